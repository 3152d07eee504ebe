"""A training step of LOUPE with its proxies against the contrastive loss alone.

python benchmarks/loupe.py             # writes benchmarks/results/loupe.KIND.json and .md

One process, one thread, the recipe `small` (49 patches, 128 pairs, 10 regions of a picture, 64
coalitions of a region) on generated pairs of its sizes. Every arm has the same weights and batch;
the steps are forward, backward and AdamW. A round has a step of each arm, one after the other, and
a ratio is that of two steps of a round. Times are those of the processor, so that a busy machine
changes them little. A profile says how much of a step with both proxies goes into matrix products
and convolutions; how much of each step these would take at the rate of one large product stands
beside its time (rates.py; the steps do not compute the same, so it is each one's own). The
interactions of a batch of 64 pairs in one call, beside one coalition at a time, and shapiq, are in
benchmarks/loupe_games.py.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parent))
import rates  # noqa: E402
from rates import RESULTS, machine, products, quartiles  # noqa: E402

from tenfold.core import optim  # noqa: E402
from tenfold.core.allocator import keep_freed_memory  # noqa: E402
from tenfold.report.claim import md_table  # noqa: E402
from tenfold.systems.loupe import batches, data  # noqa: E402
from tenfold.systems.loupe.config import Config  # noqa: E402
from tenfold.systems.loupe.model import Networks  # noqa: E402
from tenfold.systems.loupe.recipes import SMALL  # noqa: E402
from tenfold.systems.loupe.system import Loupe  # noqa: E402
from tenfold.systems.loupe.training import Training  # noqa: E402

COMPARES = "in one process, same weights and batch; steps with the proxies against one without"
ALONE = "contrastive alone"
BOTH = "both proxies, sampled"
AFTER = 1.0
"""Share of the steps at which the proxies have their whole weight."""


def arms() -> dict[str, Config]:
    """Name -> the recipe `small` on generated pairs, with other losses."""
    base = Loupe.complete(replace(SMALL, data=replace(SMALL.data, name="shapes")))

    def with_losses(**weights: Any) -> Config:
        return replace(base, loss=replace(base.loss, **weights))

    alone = with_losses(token=0.0, semantic=0.0)
    return {
        ALONE: alone,
        BOTH: base,
        "both, J less that of other captions": with_losses(target="difference"),
        "both, UNSIL, all sampled": replace(base, games=replace(base.games, how="unsil")),
        "both, UNSIL, 5 % sampled": replace(
            base, games=replace(base.games, how="unsil", always=0, limit=100.0)
        ),
        "both, score contrast, sampled": replace(base, games=replace(base.games, score="contrast")),
        "both, score contrast, UNSIL, 5 % sampled": replace(
            base,
            games=replace(base.games, score="contrast", how="unsil", always=0, limit=100.0),
        ),
        "contrastive and FILIP's": replace(alone, loss=replace(alone.loss, fine=1.0)),
    }


def step_of(cfg: Config) -> Callable[[], float]:
    """A training step on one batch; it returns the loss."""
    torch.manual_seed(0)
    module = Training(cfg, Networks(cfg)).train()
    optimiser = optim.build(module, cfg.optim)
    batch = batches.Batches(cfg, data.open_captions(cfg.data, "train"))(0)

    def step() -> float:
        optimiser.zero_grad()
        losses = module({**batch, "step": round(AFTER * cfg.steps)})
        losses["loss"].backward()
        optimiser.step()
        return float(losses["loss"].detach())

    return step


def measured(rounds: int) -> dict[str, Any]:
    """Times of all arms, their ratios to the contrastive loss alone, and a profile."""
    keep_freed_memory()
    steps = {name: step_of(cfg) for name, cfg in arms().items()}
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(rates.WARM + rounds):
        for name, step in steps.items():
            start = time.process_time()
            step()
            if number >= rates.WARM:
                seconds[name].append(time.process_time() - start)
    share, rate = products(steps[BOTH])

    def bound(name: str) -> dict[str, Any]:
        middle = statistics.median(seconds[name])
        found = rates.unavoidable([steps[name]], middle, clock=time.process_time)
        return {**found, "where": rates.where(steps[name])}

    alone = seconds[ALONE]
    return {
        "timings": [
            {
                "what": f"a step, {name}",
                "seconds": quartiles(some),
                "by alone": quartiles([a / b for a, b in zip(some, alone, strict=True)]),
                "ratio": {ALONE: quartiles([b / a for a, b in zip(some, alone, strict=True)])},
                **bound(name),
            }
            for name, some in seconds.items()
            if name != ALONE
        ],
        "alone": quartiles(alone),
        **bound(ALONE),
        "share of products": round(share, 3),
        "FLOP/s of products": round(rate),
        "rounds": rounds,
    }


def page(result: dict[str, Any]) -> str:
    """The table as Markdown."""
    low, middle, high = result["alone"]
    rows = [[f"a step, {ALONE}", f"{middle:.3f} s ({low:.3f}-{high:.3f})", "1",
             rates.share(result)]]  # fmt: skip
    for timing in result["timings"]:
        low, middle, high = timing["seconds"]
        first, ratio, last = timing["by alone"]
        rows.append([timing["what"], f"{middle:.3f} s ({low:.3f}-{high:.3f})",
                     f"**{ratio:.2f}** ({first:.2f}-{last:.2f})",
                     rates.share(timing)])  # fmt: skip
    return "\n".join([
        "# LOUPE: a step with its proxies against the contrastive loss alone",
        "",
        f"{rates.setting(result)} Recipe small: 49 patches, 128 pairs, 10 regions, 64 "
        f"coalitions of each. Median (quartiles) of {result['rounds']} rounds, time of the "
        "processor; ratios are of steps next to each other. Unavoidable: the share of a step that "
        "its own matrix products, convolutions and attention would take at the rate of one large "
        "product of the same type and threads.",
        "",
        *md_table(["a step", "time", "by contrastive alone", "unavoidable"], rows, words=1),
        "",
        f"With both proxies, sampled, {result['share of products']:.0%} of the time goes into "
        "matrix products and convolutions, at "
        f"{result['FLOP/s of products'] / 1e9:.0f} of the "
        f"{result[rates.RATE] / 1e9:.0f} GFLOP/s of one large product.",
        "",
        *rates.below_goal([{"what": ALONE, **result}, *result["timings"]]),
    ])  # fmt: skip


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    before = machine()  # its load is that before the run
    result = {
        "compares": COMPARES, **measured(args.rounds), **before,
        "command": f"python benchmarks/loupe.py --rounds {args.rounds}",
    }  # fmt: skip
    rates.write("loupe", result, page(result), args.out)


if __name__ == "__main__":
    main()
