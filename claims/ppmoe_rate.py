"""Learning rates of the arms of ppmoe's claim, each chosen on held-out text.

    python claims/ppmoe_rate.py [--runs runs/ppmoe-rate]

Arms: dense, top-1 and top-2 at equal steps, as `tenfold claim ppmoe` trains them. Measure: bits per
byte, the mean over domains, of all windows of the validation split, which is the end of the
training text; the text that the claim reports is not read. Seeds 100, 101 and 102, none of which
the claim has.

Rule, written before the run: rates are of the list 5e-4, 1e-3, 2e-3, 4e-3, 8e-3, 16e-3, 32e-3. For
each arm by itself 2e-3, 4e-3 and 8e-3 are trained with all three seeds; while the best of what was
trained has a neighbour in the list that was not, that one is trained, too. The best is the rate
whose mean over the three seeds is least; a training that diverged counts as infinite, and of equal
means the lower rate is taken.

What was known when the rule was written: pilot runs of seed 99, half as many steps of twice the
bytes: 3.29 bits a byte of dense and 3.33 of top-1 with 4e-3, 3.48 of dense with 2e-3; with 8e-3
top-1 stood at the entropy of bytes for 150 steps.

A run that was stopped goes on with the same command. Writes ppmoe-rate.json and .md beside itself.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from scipy.stats import nct, t

from tenfold.core import checkpoint, dist, loop
from tenfold.core.config import to_json
from tenfold.core.diagnose import NonFinite
from tenfold.core.log import environment
from tenfold.files import write_text
from tenfold.report.markdown import md, md_table, spread
from tenfold.systems.ppmoe import claims
from tenfold.systems.ppmoe.config import Config
from tenfold.systems.ppmoe.system import Ppmoe

HERE = Path(__file__).parent
RATES = (5e-4, 1e-3, 2e-3, 4e-3, 8e-3, 16e-3, 32e-3)
FIRST = (2e-3, 4e-3, 8e-3)
SEEDS = (100, 101, 102)
SETTLED = 200
"""Steps after which a loss that rises is a spike, and no longer the start of a training."""
POWER = 0.8
NAME = "ppmoe-rate"

Measured = dict[float, list[dict[str, Any]]]
"""Rate -> what was measured of each seed."""


def choose(measure: Callable[[float], list[dict[str, Any]]]) -> tuple[float, Measured]:
    """The rule: the chosen rate, and what was measured of every rate that was trained."""
    found = {rate: measure(rate) for rate in FIRST}
    while True:
        best = min(sorted(found), key=lambda rate: mean(found[rate]))
        at = RATES.index(best)
        beside = [rate for rate in RATES[max(0, at - 1) : at + 2] if rate not in found]
        if not beside:
            return best, found
        found[beside[0]] = measure(beside[0])


def mean(measured: Sequence[Mapping[str, Any]]) -> float:
    """Mean bits per byte over seeds."""
    return fmean(math.inf if one["bits"] is None else one["bits"] for one in measured)


def train(cfg: Config, folder: Path, world: dist.World) -> dict[str, Any]:
    """Train, or take what was trained; bits per byte of held-out text, and the largest spike."""
    cfg = Ppmoe.complete(cfg)
    file, config = folder / "validation.json", to_json(cfg)
    if file.is_file():
        found: dict[str, Any] = checkpoint.read_json(file)
        if found["config"] != config:
            raise ValueError(f"{file} is of another configuration; give another --runs")
        return found
    system, began = Ppmoe(cfg), time.process_time()
    bits: dict[str, float] | None = None
    try:
        loop.train(system.stages(), cfg.loop, world, folder, cfg.seed)
        bits = system.evaluate("validation").metrics
    except NonFinite as error:
        print(error)
    found = {
        "seed": cfg.seed,
        "bits": None if bits is None else bits[claims.METRIC],
        "domains": bits,
        "spike": spike(folder / "metrics.jsonl"),
        "cpu_seconds": round(time.process_time() - began, 1),
        "config": config,
    }
    checkpoint.write_json(file, found)
    return found


def spike(log: Path) -> float:
    """Most nats by which a logged loss was above the lowest before it, once training settled."""
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    lowest, most = math.inf, 0.0
    for line in lines:
        if line["split"] == "train":
            loss = line.get("loss/ce", line["loss"])
            if line["step"] > SETTLED:
                most = max(most, loss - lowest)
            lowest = min(lowest, loss)
    return most


def detectable(deviation: float, seeds: int) -> float:
    """Difference that a paired t-test of 5 % finds in `POWER` of cases.

    Args:
        deviation: Standard deviation of the paired differences.
        seeds: Number of pairs.
    """
    critical, low, high = float(t.ppf(0.975, seeds - 1)), 0.0, 100.0
    for _ in range(60):
        middle = (low + high) / 2
        found = float(nct.sf(critical, seeds - 1, middle))
        low, high = (middle, high) if found < POWER else (low, middle)
    return high * deviation / math.sqrt(seeds)


def pairs(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Paired differences of the arms at their chosen rates, and what seeds of the claim decide."""
    own = {
        name: [one["bits"] for one in arm["measured"][f"{arm['chosen']:g}"]]
        for name, arm in result["arms"].items()
    }
    found = []
    for a, b in (
        (claims.DENSE, claims.TOP1), (claims.DENSE, claims.TOP2), (claims.TOP1, claims.TOP2)
    ):  # fmt: skip
        change = [y - x for x, y in zip(own[a], own[b], strict=True)]
        deviation = stdev(change)
        found.append({
            "baseline": a, "method": b, "difference": fmean(change), "deviation": deviation,
            "decided": detectable(deviation, len(claims.SEEDS)),
        })  # fmt: skip
    return found


def page(result: Mapping[str, Any]) -> str:
    """The page: rates of each arm, then what five seeds can decide."""
    rows = []
    for name, arm in result["arms"].items():
        for rate, seeds in sorted(arm["measured"].items(), key=lambda item: float(item[0])):
            bits = [one["bits"] for one in seeds]
            whole = [one for one in bits if one is not None]
            shown = f"{len(bits) - len(whole)} diverged"
            if len(whole) == len(bits):
                shown = spread(fmean(bits), stdev(bits), 3)
            is_chosen = float(rate) == arm["chosen"]
            rows.append([
                md(name), f"**{rate}**" if is_chosen else rate,
                *("–" if one is None else f"{one:.3f}" for one in bits),
                f"**{shown}**" if is_chosen else shown,
                f"{max(one['spike'] for one in seeds):.2f}",
            ])  # fmt: skip
    decided = [
        [md(f"{p['baseline']} → {p['method']}"), f"{p['difference']:+.3f}", f"{p['deviation']:.3f}",
         f"{p['decided']:.3f}"] for p in result["pairs"]
    ]  # fmt: skip
    seen = result["environment"]
    rule = (__doc__ or "").split("\n\n")[2:5]
    return "\n".join([
        "# ppmoe: the rates of its claim", "",
        "**" + ", ".join(f"{md(n)}: {a['chosen']:g}" for n, a in result["arms"].items()) + "**", "",
        *(" ".join(part.split()) + "\n" for part in rule),
        "Bits per byte of held-out text; spike: the most nats by which a logged training loss was "
        f"above the lowest before it, after step {SETTLED}, of three seeds.", "",
        *md_table(["arm", "rate", *(f"seed {s}" for s in SEEDS), "mean ± deviation", "spike"],
                  rows, words=2), "",
        f"## What {len(claims.SEEDS)} seeds decide", "",
        "Paired differences at the chosen rates over the three seeds, at equal steps; decided: the "
        f"true difference that {len(claims.SEEDS)} pairs of that deviation would show (95 % "
        f"interval) in {POWER:.0%} of cases.", "",
        *md_table(["", "difference", "deviation", "decided"], decided), "",
        f"{result['runs']} trainings of {claims.STEPS} steps, {result['cpu_minutes']:.0f} minutes "
        f"of one core in all. {md(seen['cpu'])}, one thread, torch {md(seen['torch'])}, "
        f"{seen['date']}, commit {seen['commit']}: `{seen['command']}`", "",
    ])  # fmt: skip


def main() -> None:
    """Search, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=Path, default=Path("runs") / NAME)
    args = parser.parse_args()
    found: dict[str, Any] = {}
    with dist.started("cpu") as world:
        for name, arm in claims.arms().items():

            def measure(rate: float, name: str = name, arm: Config = arm) -> list[dict[str, Any]]:
                cfg = replace(
                    arm, optim=replace(arm.optim, lr=rate), loop=replace(arm.loop, threads=1)
                )
                folder = f"{name.replace(' ', '-')}-{rate:g}"
                seeds = [
                    train(replace(cfg, seed=seed), args.runs / f"{folder}-seed{seed}", world)
                    for seed in SEEDS
                ]
                print(f"{name}, {rate:g}: {mean(seeds):.4f}", flush=True)
                return seeds

            chosen, measured = choose(measure)
            found[name] = {
                "chosen": chosen,
                "measured": {
                    f"{rate:g}": [{k: v for k, v in one.items() if k != "config"} for one in seeds]
                    for rate, seeds in sorted(measured.items())
                },
            }
        told = environment(world) | {"command": "python claims/ppmoe_rate.py"}
    every = [one for arm in found.values() for some in arm["measured"].values() for one in some]
    result = {"arms": found, "runs": len(every),
              "cpu_minutes": sum(one["cpu_seconds"] for one in every) / 60}  # fmt: skip
    result |= {"pairs": pairs(result), "environment": told}
    checkpoint.write_json(HERE / f"{NAME}.json", result)
    write_text(HERE / f"{NAME}.md", page(result))
    print(page(result))


if __name__ == "__main__":
    main()
