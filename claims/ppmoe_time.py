"""Writes claims/ppmoe-time.{json,md}: seconds of a training step, predicted and measured.

python claims/ppmoe_time.py            # three minutes on two idle cores
python claims/ppmoe_time.py --quick --out FOLDER     # a small model, for the tests

The planner measures rates of this machine (`tenfold plan ppmoe --calibrate`), predicts a step of
several layouts from them, and the same steps are made on local gloo processes, a thread each.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import torch
import torch.distributed as dist

from tenfold.core import checkpoint
from tenfold.core.allocator import keep_freed_memory
from tenfold.core.dist import World, started
from tenfold.core.log import environment
from tenfold.core.loop import Loop
from tenfold.core.optim import build
from tenfold.core.seed import generator
from tenfold.report.markdown import md, md_table
from tenfold.systems.ppmoe.config import Config, Layout, Model
from tenfold.systems.ppmoe.parallel import Grid, make_grid
from tenfold.systems.ppmoe.pipeline import Part
from tenfold.systems.ppmoe.planner.calibrate import calibrate
from tenfold.systems.ppmoe.planner.clusters import Calibration, predict_step_seconds
from tenfold.systems.ppmoe.planner.cost import COMMUNICATION, cost
from tenfold.systems.ppmoe.planner.shape import Placement, shape_of
from tenfold.systems.ppmoe.recipes import SMALL

HERE = Path(__file__).parent
COMMAND = "python claims/ppmoe_time.py"


@dataclass(frozen=True)
class Setting:
    """Steps that are predicted and made."""

    models: tuple[Model, ...]
    rows: int
    """Sequences of a step."""
    rounds: int
    seconds: float
    """Seconds of each calibration."""
    processes: tuple[int, ...]


def wide(hidden: int) -> Model:
    """The recipe `small` at another width, on bytes."""
    return replace(SMALL.model, vocab=256, hidden=hidden, heads=hidden // 32)


WHOLE = Setting((wide(128), wide(256)), 16, 11, 25.0, (1, 2, 4))
QUICK = Setting((replace(wide(32), layers=2, heads=2, seq=16),), 8, 2, 0.5, (1, 2))


@dataclass(frozen=True)
class Case:
    """A layout: pipeline, tensor and data-parallel size, dispatch, micro-batches a replica."""

    pp: int = 1
    tp: int = 1
    dp: int = 1
    dispatch: str = "slice"
    micro: int = 1

    @property
    def processes(self) -> int:
        """Their number."""
        return self.pp * self.tp * self.dp

    def place(self, rows: int) -> Placement:
        """The planner's words for it."""
        kind = "ppmoe" if self.dispatch == "slice" else "dpmoe"
        each = rows // self.dp // self.micro
        return Placement(kind, self.pp, self.tp, self.dp, each, self.micro)

    def config(self, model: Model, rows: int) -> Config:
        """The trainer's words for it."""
        layout = Layout(pp=self.pp, tp=self.tp, dispatch=self.dispatch)  # type: ignore[arg-type]
        loop = Loop(accumulate=self.micro)
        return replace(SMALL, model=model, layout=layout, batch=rows // self.micro, loop=loop)


CASES = {
    "one process": Case(),
    "TP 2": Case(tp=2),
    "PP 2, 4 micro-batches": Case(pp=2, micro=4),
    "DP 2": Case(dp=2),
    "DP 2, all-to-all": Case(dp=2, dispatch="alltoall"),
    "TP 2, PP 2, 4 micro-batches": Case(pp=2, tp=2, micro=4),
}


def step_of(cfg: Config, grid: Grid, rows: int) -> Callable[[], None]:
    """A training step as the loop makes it, on this process's part of fixed tokens."""
    model = cfg.model
    tokens = torch.randint(model.vocab, (rows, model.seq + 1), generator=generator("time"))
    mine = tokens.chunk(grid.dp.size)[grid.dp.rank]
    batches = [{"tokens": chunk} for chunk in mine.chunk(cfg.loop.accumulate)]
    part = Part(cfg, grid)
    # so small a rate that routers go on as they begin: on one batch they would soon agree
    optimizer = build(part, replace(cfg.optim, lr=1e-9))

    def step() -> None:
        part.zero_grad(set_to_none=True)
        part.train_step(batches)
        factor = cfg.optim.clip / (part.gradient_norm() + 1e-6)
        if factor < 1:
            torch._foreach_mul_([p.grad for p in part.parameters() if p.grad is not None], factor)
        optimizer.step()

    return step


def measured(setting: Setting, world: World) -> dict[str, list[float]]:
    """Seconds of every case of so many processes, model by model, in turns, of the slowest."""
    keep_freed_memory()
    found: dict[str, list[float]] = {}
    for model in setting.models:
        steps = {}
        for name, case in CASES.items():
            if case.processes == world.size:
                cfg = case.config(model, setting.rows)
                steps[key(model, name)] = step_of(cfg, make_grid(cfg, world), setting.rows)
        for number in range(setting.rounds + 2):
            for name, step in steps.items():
                world.barrier()
                start = time.perf_counter()
                step()
                if number > 1:
                    found.setdefault(name, []).append(time.perf_counter() - start)
    taken = torch.tensor(list(found.values()), dtype=torch.float64)
    if world.size > 1:
        dist.all_reduce(taken, op=dist.ReduceOp.MAX)
    return dict(zip(found, taken.tolist(), strict=True))


def key(model: Model, name: str) -> str:
    """Name of a case of a model."""
    return f"h {model.hidden}: {name}"


def work(folder: Path, quick: bool) -> None:
    """One of several processes."""
    torch.set_num_threads(1)
    with started("cpu", minutes=2.0) as world:
        found = measured(QUICK if quick else WHOLE, world)
        if world.is_first:
            (folder / f"out-{world.size}.json").write_text(json.dumps(found))


def launch(processes: int, folder: Path, quick: bool) -> dict[str, list[float]]:
    """All steps of so many processes in one start of them."""
    if processes == 1:
        return measured(QUICK if quick else WHOLE, World(0, 1, torch.device("cpu")))
    subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node",
         str(processes), __file__, "--worker", str(folder), *["--quick"] * quick],
        env={**os.environ, "OMP_NUM_THREADS": "1"}, timeout=600, check=True,
    )  # fmt: skip
    found: dict[str, list[float]] = json.loads((folder / f"out-{processes}.json").read_text())
    return found


def row(model: Model, name: str, rows: int, rates: Calibration, taken: list[float]) -> dict:
    """A layout: seconds predicted and measured."""
    case = CASES[name]
    place, shape = case.place(rows), shape_of(model)
    predicted = predict_step_seconds(shape, place, rates)
    terms = cost(shape, place, rates.machine(place.world)).terms()
    low, middle, high = quantiles(taken, n=4)
    return {
        "hidden": model.hidden,
        "layout": name,
        "processes": case.processes,
        "cores": rates.cores,
        "predicted": predicted,
        "communication": sum(terms[term] for term in COMMUNICATION),
        "measured": [low, middle, high],
        "error": predicted / middle - 1,
    }


def main(args: list[str]) -> int:
    """Calibrate, measure, compare, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a small model")
    parser.add_argument("--out", type=Path, default=HERE, help="where the two files go")
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args(args)
    if given.worker:
        work(given.worker, given.quick)
        return 0
    setting, load = QUICK if given.quick else WHOLE, os.getloadavg()[0]
    threads, began = torch.get_num_threads(), time.monotonic()
    torch.set_num_threads(1)
    try:
        micro = setting.rows // 2
        rates = {m: calibrate(shape_of(m), micro, setting.seconds) for m in setting.models}
        taken: dict[str, list[float]] = {}
        with tempfile.TemporaryDirectory() as folder:
            for processes in setting.processes:
                taken |= launch(processes, Path(folder), given.quick)
    finally:
        torch.set_num_threads(threads)
    rows = [
        row(model, name, setting.rows, rates[model], taken[key(model, name)])
        for model in setting.models
        for name in CASES
        if key(model, name) in taken
    ]
    told = environment(World(0, 1, torch.device("cpu")))
    told |= {"command": COMMAND, "threads": 1, "load before": round(load, 2)}
    told["seconds"] = round(time.monotonic() - began)
    value = {
        "tokens_of_a_step": {m.hidden: setting.rows * m.seq for m in setting.models},
        "rounds": setting.rounds,
        "rows": rows,
        "calibrations": {m.hidden: rates[m].to_json() for m in setting.models},
        "environment": told,
    }
    given.out.mkdir(parents=True, exist_ok=True)
    checkpoint.write_json(given.out / "ppmoe-time.json", value)
    checkpoint.write_text(given.out / "ppmoe-time.md", page(value))
    print(f"{summary(rows)} {told['seconds']} s")
    return 0


def summary(rows: list[dict[str, Any]]) -> str:
    """Errors of layouts that have a core a process, and of all others."""
    parts = []
    for text, chosen in (
        ("with a core a process", [r for r in rows if r["processes"] <= r["cores"]]),
        ("where processes share cores", [r for r in rows if r["processes"] > r["cores"]]),
    ):
        errors = [abs(r["error"]) for r in chosen]
        if errors:
            parts.append(f"{text}: median {median(errors):.0%}, largest {max(errors):.0%}")
    return f"Error of the predicted time of a step, {'; '.join(parts)}."


def order(rows: list[dict[str, Any]]) -> list[str]:
    """Which layout of as many processes is the fastest, by the planner and by the clock."""
    lines = []
    for hidden, processes in sorted({(r["hidden"], r["processes"]) for r in rows}):
        group = [r for r in rows if (r["hidden"], r["processes"]) == (hidden, processes)]
        if len(group) > 1:
            by_plan = sorted(group, key=lambda r: r["predicted"])
            by_clock = sorted(group, key=lambda r: r["measured"][1])
            words = [", ".join(r["layout"].split(",")[0] + " all-to-all" * ("all-to" in r["layout"])
                               for r in ranked) for ranked in (by_plan, by_clock)]  # fmt: skip
            lines.append(
                f"- h {hidden}, {processes} processes, fastest first: predicted {words[0]}; "
                f"measured {words[1]}"
            )
    return lines


def page(value: dict[str, Any]) -> str:
    """The claim as Markdown."""
    table = []
    for r in value["rows"]:
        low, middle, high = (1e3 * s for s in r["measured"])
        each = r["processes"] / r["cores"]
        table.append([
            str(r["hidden"]), r["layout"], str(r["processes"]),
            f"shared by {each:.3g}" if each > 1 else "own", f"{1e3 * r['predicted']:.1f}",
            f"{r['communication'] / r['predicted']:.0%}", f"{middle:.1f} ({low:.1f}-{high:.1f})",
            f"{r['error']:+.0%}",
        ])  # fmt: skip
    rates = []
    for hidden, c in value["calibrations"].items():
        speeds = [f"{c[f'{name}_bytes_per_s'] / 1e9:.3g}"
                  for name in ("allreduce", "gradient", "alltoall", "optimizer")]  # fmt: skip
        rates.append([
            str(hidden), f"{c['gemm_flops'] / 1e9:.4g}", f"{1e6 * c['expert_call_s']:.0f}", *speeds,
            f"{max(c['spread'].values()):.0%}",
        ])  # fmt: skip
    setting = [[md(k.replace("_", " ")), md(v)] for k, v in value["environment"].items()]
    cores = value["rows"][0]["cores"]
    sizes = ", ".join(f"{n} tokens at h {h}" for h, n in value["tokens_of_a_step"].items())
    columns = ["h", "layout", "processes", "core", "predicted [ms]", "of it communication",
               "measured [ms]", "error"]  # fmt: skip
    lines = [
        "# ppmoe: a step's time as the planner predicts it, and as measured", "",
        f"**{summary(value['rows'])}**", "",
        f"The recipe `small` (4 blocks, 8 experts in two of them, top-1) at two widths, a step of "
        f"{sizes} on every layout: forward, backward, reduction, gradient norm, clipping, AdamW. "
        f"Local gloo processes with one thread each on {cores} cores, which all go through one "
        f"memory: more than {cores} processes share cores and take turns, which the planner counts "
        "as a lower rate of each, and no link here is one between machines. Rates were measured "
        "just before, on one and two processes. Measured: median (quartiles) of "
        f"{value['rounds']} steps of the slowest process, layouts of as many processes in turns.",
        "", *md_table(columns, [[md(c) for c in r] for r in table], words=2), "",
        *order(value["rows"]), "", "## Rates", "",
        *md_table(["h", "block [GFLOP/s]", "expert call [us]", "all-reduce [GB/s]",
                   "gradients [GB/s]", "all-to-all [GB/s]", "AdamW [GB/s]", "widest spread"],
                  [[md(c) for c in r] for r in rates]), "",
        "## Setting", "", *md_table(["", ""], setting, words=2), "",
    ]  # fmt: skip
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
