"""DTS from day to dusk: CamVid's sequences in daylight to the one that was filmed at dusk.

    python claims/dts_dusk.py [--runs runs/claims/dts-dusk] [--threads 1]

Both sides are real and labelled. The source are the 305 labelled images of the training split that
were filmed in daylight (0006R0, 0016E5); the target is 0001TP, whose first half is seen without
labels and whose second half is measured.
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

HERE = Path(__file__).parent


def moved(arm: Variant[Config]) -> Variant[Config]:
    """A row of the claim, from day to dusk."""
    data = arm.config.data
    source = "camvid-dusk" if data.source == data.target else "camvid-day"
    data = replace(data, source=source, target="camvid-dusk")
    return replace(arm, config=replace(arm.config, data=data))


def of_dusk() -> list[Claim[Config]]:
    """Those of the system's claims whose rows are measured here, too."""
    rows = {arm.name for arm in claims.BY_DUSK}
    also = (moved(claims.STATISTICS), moved(claims.ORACLE))
    return [
        replace(claim, baseline=moved(claim.baseline), method=moved(claim.method), also=also)
        for claim in claims.claims()
        if {claim.baseline.name, claim.method.name} <= rows
    ]


def main() -> None:
    """Train every row with every seed, and write the table beside this file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=Path, default=Path("runs/claims/dts-dusk"))
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    loop = {"threads": args.threads, "device": "cpu"}
    command = f"python claims/dts_dusk.py --threads {args.threads}"
    results = measure("dts-dusk", "dts", Dts, of_dusk(), args.runs, HERE, loop, command)
    print("\n".join(claim_lines(results)))


if __name__ == "__main__":
    main()
