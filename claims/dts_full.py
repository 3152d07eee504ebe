"""DTS on rendered streets to Cambridge at 320 x 240, with everything fixed before a run was seen.

    python claims/dts_full.py [--runs runs/claims/dts-full] [--threads 1]

The networks see images as large as the labels that measure them (those of `tenfold claim dts` see
half the sides). Network, rates and thresholds are those of the recipe `small`; steps, crop and
batch follow from the larger image and the time there is. Seeds 3, 4 and 5 were used nowhere before.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from tenfold.core.claim import Claim, Variant
from tenfold.report.claim import claim_lines
from tenfold.runner.claim import measure
from tenfold.systems.dts import Dts, claims
from tenfold.systems.dts.config import Config
from tenfold.systems.dts.recipes import SMALL

HERE = Path(__file__).parent
SEEDS = (3, 4, 5)
GAIN = 5.0
"""Points that adaptation is to gain."""
PROTOCOL = (
    "Everything was fixed before a run of this setting was seen, on seeds that were used nowhere "
    "before: network, rates and thresholds of the recipe small, images at 320 x 240, crops of 256 "
    "x 192, 4 a batch, 2000 steps on the source and 1000 of adaptation."
)


def enlarged(arm: Variant[Config]) -> Variant[Config]:
    """A row of the claim on images of twice the sides, with 2.5 times the steps of adaptation."""
    cfg = arm.config
    steps = cfg.steps if cfg.steps == SMALL.source_steps else cfg.steps * 5 // 2
    data = replace(
        cfg.data, source_size=(240, 320), target_size=(240, 320), crop=(192, 256), batch_size=4,
        rare_pixels=4 * cfg.data.rare_pixels,
    )  # fmt: skip
    host = replace(cfg.host, mask_block=2 * cfg.host.mask_block)
    groups = replace(cfg.groups, warmup=2 * cfg.groups.warmup)
    return replace(arm, config=replace(cfg, data=data, host=host, groups=groups, steps=steps))


def of_full_size() -> list[Claim[Config]]:
    """Those of the system's claims, adaptation against none by the larger margin."""
    also = tuple(enlarged(arm) for arm in (claims.STATISTICS, claims.ORACLE, claims.PAIR))
    return [_of_full_size(claim, also) for claim in claims.claims()]


def _of_full_size(claim: Claim[Config], also: tuple[Variant[Config], ...]) -> Claim[Config]:
    baseline, method = enlarged(claim.baseline), enlarged(claim.method)
    claim = replace(claim, baseline=baseline, method=method, also=also, seeds=SEEDS)
    if not claim.min_effect:
        return claim
    says = claim.says.replace(f"{claim.min_effect:g} points", f"{GAIN:g} points")
    return replace(claim, says=says, min_effect=GAIN, setting=PROTOCOL)


def main() -> None:
    """Train every row with every seed, and write the table beside this file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=Path, default=Path("runs/claims/dts-full"))
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    loop = {"threads": args.threads, "device": "cpu"}
    command = f"python claims/dts_full.py --threads {args.threads}"
    results = measure("dts-full", "dts", Dts, of_full_size(), args.runs, HERE, loop, command)
    print("\n".join(claim_lines(results)))


if __name__ == "__main__":
    main()
