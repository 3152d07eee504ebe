"""Training steps with `--loop.compile` against the same steps without it.

python benchmarks/compile.py SYSTEM ...   # adds to benchmarks/results/compile.<cpu>.json and .md

The first stage of a recipe, as the loop trains it, on batches made beforehand; both sides start
from the same weights and run in turns. The first steps, in which torch compiles, are timed apart.
Times are wall-clock; run it on an otherwise idle machine.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import time
from pathlib import Path
from typing import Any

import torch
from rates import RESULTS, machine, quartiles, result_file, setting, write

from tenfold import systems
from tenfold.core import dist
from tenfold.core.compiled import BACKEND
from tenfold.core.seed import seed_everything
from tenfold.core.step import Stepper
from tenfold.report.claim import md_table
from tenfold.runner.weights import construct

WARM = 3
"""Steps that count as compilation: shapes that change are compiled once more."""


class Side:
    """A system's first stage, one step at a time."""

    def __init__(self, name: str, recipe: str, is_compiled: bool) -> None:
        cls = systems.system_class(name)
        cfg = cls.complete(cls.recipes[recipe])
        seed_everything(0)
        self.stage = next(iter(construct(cls, cfg).stages()))
        world = dist.World(0, 1, dist.pick_device("auto"))
        self.count = 0
        self.stepper = Stepper(self.stage, world, 0, cfg.loop.accumulate, cfg.loop.amp)
        made = [self.stage.batches(index) for index in range(cfg.loop.accumulate)]
        self.batches = itertools.cycle(made)
        if is_compiled:
            self.stepper.compile()

    def step(self) -> float:
        """Seconds of a step."""
        began = time.perf_counter()
        self.stepper.make(self.count, self.batches, lambda: 0)
        self.stepper.settle()
        self.stage.after_step(self.count)
        self.count += 1
        return time.perf_counter() - began

    @property
    def seen(self) -> list[float]:
        """Loss and gradient norm of the last step."""
        return [self.stepper.seen.losses["loss"], self.stepper.seen.norm]


def measure(name: str, recipe: str, seconds: float) -> dict[str, Any]:
    """Both sides of a system, in turns for so many seconds once torch has compiled."""
    eager, ours = Side(name, recipe, False), Side(name, recipe, True)
    first, apart = 0.0, []
    for _ in range(WARM):
        eager.step()
        first += ours.step()
        apart.append([abs(a - b) / abs(a) for a, b in zip(eager.seen, ours.seen, strict=True)])
    times: list[tuple[float, float]] = []
    until = time.perf_counter() + seconds
    while len(times) < 5 or time.perf_counter() < until:
        times.append((eager.step(), ours.step()))
    return {
        "recipe": recipe,
        "stage": eager.stage.name,
        "amp": eager.stepper.amp,
        "eager": quartiles([a for a, _ in times]),
        "compiled": quartiles([b for _, b in times]),
        "ratio": quartiles([a / b for a, b in times]),
        "rounds": len(times),
        "first_steps": round(first, 2),
        "loss_apart": apart[0][0],
        "gradient_apart": apart[0][1],
        "saved_after": _steps_to_win(times, first),
    }


def _steps_to_win(times: list[tuple[float, float]], first: float) -> int:
    """Steps after which the time of compilation is won back; 0 for never."""
    eager, ours = (quartiles(list(side))[1] for side in zip(*times, strict=True))
    return math.ceil(max(0.0, first - WARM * ours) / (eager - ours)) if eager > ours else 0


def page(result: dict[str, Any]) -> str:
    """All systems measured so far."""
    heads = ["", "recipe, stage", "eager", "compiled", "ratio", f"first {WARM} steps", "pays after",
             "loss / gradient apart"]  # fmt: skip
    rows = []
    for name, found in result["systems"].items():
        times = [f"{1e3 * found[side][1]:.1f} ms" for side in ("eager", "compiled")]
        low, middle, high = found["ratio"]
        pays = f"{found['saved_after']} steps" if found["saved_after"] else "never"
        rows.append([
            name, f"{found['recipe']}, {found['stage']} (amp {found['amp']})", *times,
            f"{middle:.2f} ({low:.2f} to {high:.2f})", f"{found['first_steps']:.0f} s", pays,
            f"{found['loss_apart']:.0e} / {found['gradient_apart']:.0e}",
        ])  # fmt: skip
    return "\n".join([
        f"# Steps with --loop.compile (torch.compile, {BACKEND}) against steps without it",
        "",
        f"{setting(result)} Median (quartiles) of runs next to each other; above 1 the "
        "compiled step is faster. Apart: relative difference of the first step's loss and gradient "
        "norm.",
        "",
        *md_table(heads, rows, words=2),
        "",
    ])  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("systems", nargs="+", choices=tuple(systems.SYSTEMS), metavar="SYSTEM")
    parser.add_argument("--recipe", default="demo")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.compiler.config.force_disable_caches = True  # the first steps are to be a user's first
    file = result_file("compile", args.out)
    known = json.loads(file.read_text())["systems"] if file.exists() else {}
    command = f"python benchmarks/compile.py SYSTEM --recipe {args.recipe}"
    result = {**machine(), "command": command, "systems": known}
    for name in args.systems:
        torch.compiler.reset()
        result["systems"][name] = measure(name, args.recipe, args.seconds)
        write("compile", result, page(result), args.out)


if __name__ == "__main__":
    main()
