"""Writes claims/ppmoe-layouts.{json,md}: a training step on every layout against one process.

python claims/ppmoe_layouts.py --runs FOLDER    # all of it, half an hour; one that is cut goes on
python claims/ppmoe_layouts.py --quick --out FOLDER     # a few rows, for the tests

Exit code 1 if a limit is broken. Rows in `--runs` are of the code that made them: for other code
give another folder.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import itertools
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from tenfold.core.dist import World, local, started
from tenfold.core.log import environment
from tenfold.core.loop import Loop
from tenfold.core.optim import Optim, build
from tenfold.core.seed import generator
from tenfold.files import append_line
from tenfold.systems.ppmoe.config import Config, Data, Layout, Model
from tenfold.systems.ppmoe.fit import check_layout
from tenfold.systems.ppmoe.parallel import Grid, make_grid
from tenfold.systems.ppmoe.pipeline import Part

HERE = Path(__file__).parent
CHUNKS = 8
"""Micro-batches of a step over all replicas: the losses of a chunk make it part of the problem."""
ROWS = 2
"""Sequences of a chunk."""
SURE = 1e-6
"""Smaller gradients may be rounding noise around 0; Adam's first step is lr * their sign."""
LIMITS = {"float64": 1e-6, "float32": 1e-4}
"""Largest differences allowed, absolute and relative to the largest entry of a tensor."""
OPTIM = Optim(name="adamw", lr=1e-3, betas=(0.9, 0.95), weight_decay=0.1, clip=1.0)

TINY = Model(layers=8, hidden=16, heads=4, ffn=32, seq=16, vocab=61, experts=8)
"""A vocabulary that no tensor group divides."""
MODELS = {
    "top-1, tied": TINY,
    "top-2, capacity, untied": replace(
        TINY, top_k=2, norm_topk=True, capacity_factor=1.25, priority="prob", tied=False,
        activation="tanh",
    ),
    "rotary, experts in every block, recomputed": replace(
        TINY, positions="rotary", moe_every=1, recompute=True
    ),
    "SwiGLU, RMSNorm, grouped queries, shared expert": replace(
        TINY, heads=8, kv_heads=4, head_size=4, activation="swiglu", norm="rms", qk_norm=True,
        bias="qkv", positions="rotary", expert_ffn=12, shared=20, shared_gate=True, top_k=2,
        norm_topk=True, tied=False,
    ),
}  # fmt: skip
KINDS = {"float64": torch.float64, "float32": torch.float32, "bfloat16": torch.float32}
"""What is computed in; bfloat16 is autocast over float32 weights."""
SIZES = {2: ((2, 1, 1), (1, 1, 2), (1, 2, 1)),
         4: ((4, 1, 1), (1, 1, 4), (2, 1, 2), (2, 2, 1), (1, 2, 2))}  # fmt: skip
"""Processes -> (pp, dp, tp)."""
SCHEDULES = ("1f1b", "gpipe", "interleaved", "looped-bfs", "zero-bubble", "zbv", "dualpipev")
DISPATCHERS = ("slice", "alltoall", "alltoall-copies")
BUCKET = 2.0**-8
"""MiB of gradients that are summed at a time: a part of a block's."""


def layouts(processes: int) -> Iterator[Layout]:
    """All layouts on so many processes that differ in what they do."""
    for pp, dp, tp in SIZES[processes]:
        schedules = SCHEDULES if pp > 1 else SCHEDULES[:1]
        # copies are what tensor ranks send; without them both all-to-alls are one
        dispatchers = DISPATCHERS if tp > 1 else DISPATCHERS[: 2 if dp > 1 else 1]
        for schedule, dispatch in itertools.product(schedules, dispatchers):
            summed = tp > 1 and dispatch != "alltoall-copies"
            for sync in ("scores", "params") if summed else ("scores",):
                made = Layout(
                    pp=pp, tp=tp, schedule=schedule, dispatch=dispatch, sync=sync, bucket_mb=BUCKET
                )
                yield made
                yield from (replace(made, **more) for more in options(made, dp))


def options(layout: Layout, dp: int) -> Iterator[dict[str, bool]]:
    """What else may be asked of a layout, with a few schedules."""
    if layout.pp > 1 and layout.schedule not in ("1f1b", "zero-bubble", "zbv"):
        return
    if layout.tp > 1:
        yield {"sequence": True}
    if layout.tp > 1 and layout.dispatch == "slice" and layout.sync == "scores":
        yield {"vocab_parallel": False}
    if dp > 1:
        yield {"zero": True}
        if layout.tp > 1:
            yield {"zero": True, "sequence": True}
    if dp > 1 and layout.pp == 1:
        yield {"fsdp": True}
        if layout.tp > 1:
            yield {"fsdp": True, "sequence": True}


def configuration(model: Model, layout: Layout, dp: int) -> Config:
    """A step of CHUNKS chunks in all."""
    loop = Loop(accumulate=CHUNKS // dp)
    return Config(model, layout, Data(), OPTIM, steps=1, batch=ROWS * dp, loop=loop)


@functools.cache
def weights(model: Model) -> dict[str, torch.Tensor]:
    """Weights large enough that routers have opinions and no gradient vanishes."""
    made = {}
    for key, p in Part(configuration(model, Layout(), 1), Grid(), "meta").keyed_parameters():
        value = torch.randn(p.shape, dtype=torch.float64, generator=generator("layouts", key))
        if re.search(r"(^|\.)ln\w+\.weight", key):
            value = 1 + 0.1 * value
        elif key.endswith("bias"):
            value = 0.02 * value
        else:
            value = (0.5 if key.endswith("gate.weight") else 0.15) * value
        made[key] = value
    return made


def chunks(model: Model) -> list[torch.Tensor]:
    """Tokens of all chunks."""
    shape = (CHUNKS * ROWS, model.seq + 1)
    tokens = torch.randint(model.vocab, shape, generator=generator("layouts", "tokens"))
    return list(tokens.chunk(CHUNKS))


@dataclass
class Step:
    """What a training step gave: on one process the whole, else this process's part."""

    loss: float
    norm: float
    margin: float
    """Smallest gap between the last expert chosen and the next."""
    gradients: dict[str, torch.Tensor]
    after: dict[str, torch.Tensor]


def step(cfg: Config, grid: Grid, kind: str) -> tuple[Step, Part]:
    """One step of this process's part of the model."""
    part = Part(cfg, grid).to(KINDS[kind])
    part.load_whole({k: v.to(KINDS[kind]) for k, v in weights(cfg.model).items()})
    micro = cfg.loop.accumulate
    mine = chunks(cfg.model)[grid.dp.rank * micro : (grid.dp.rank + 1) * micro]
    margins = [float("inf")]
    for block in (b for p in part.parts for b in p.layers.values() if hasattr(b, "moe")):
        block.moe.register_forward_hook(lambda _m, _i, out: margins.append(float(out[1].margin)))
    autocast = kind == "bfloat16"
    with torch.autocast("cpu", torch.bfloat16) if autocast else contextlib.nullcontext():
        tally = part.train_step([{"tokens": t} for t in mine])
    loss = tally.ce + cfg.model.balance_weight * tally.table[:, 0].sum()
    loss = float(loss + cfg.model.z_weight * tally.table[:, 1].sum())
    norm = float(part.gradient_norm())
    # with ZeRO a replica has those that it updates
    grads = {key: local(p.grad) for key, p in part.keyed_parameters() if p.grad is not None}
    gradients = {key: grad.clone() for key, grad in grads.items()}
    for grad in grads.values():
        grad *= min(1.0, OPTIM.clip / (norm + 1e-6))
    build(part, OPTIM, part.groups).step()
    part.share()
    after = {key: local(p.detach()) for key, p in part.keyed_parameters()}
    return Step(loss, norm, min(margins), gradients, after), part


def compare(got: Step, want: Step, part: Part) -> dict[str, float]:
    """Differences between a process's part and the whole step of one process."""
    found: dict[str, list[float]] = {
        "loss": [abs(got.loss - want.loss)],
        "norm": [abs(got.norm - want.norm)],
        "relative": [abs(got.loss / want.loss - 1), abs(got.norm / want.norm - 1)],
        "gradients": [],
        "after": [],
    }
    for key, gradient in got.gradients.items():
        whole = want.gradients[key]
        difference = float((gradient - part.piece(key, whole)).abs().max())
        found["gradients"].append(difference)
        # an expert without tokens has no gradient to be relative to
        found["relative"].append(difference / max(float(whole.abs().max()), SURE))
    for key, value in got.after.items():
        whole, after = want.gradients[key], want.after[key]
        moved = (value - part.piece(key, after)).abs()
        sure = part.piece(key, (whole.abs() > SURE) | (whole == 0))
        found["after"].append(float((moved * sure).max()))
    # torch's maximum, unlike Python's, keeps what is no number
    return {name: float(torch.tensor(v, dtype=torch.float64).max()) for name, v in found.items()}


def work(folder: Path) -> None:
    """One of several processes: run the jobs of this world size, one after the other."""
    torch.set_num_threads(1)
    grids: dict[tuple[int, int, bool, bool], Grid] = {}
    with started("cpu", minutes=2.0) as world:
        jobs = json.loads((folder / f"jobs-{world.size}.json").read_text())
        made = rows_of(folder, world.size)
        dist.barrier()  # all have read before one writes
        for number, job in list(enumerate(jobs))[len(made) :]:
            began, layout = time.monotonic(), Layout(**job["layout"])
            cfg = configuration(MODELS[job["model"]], layout, job["dp"])
            shape = (layout.pp, layout.tp, layout.is_v_shaped, layout.sequence)
            if shape not in grids:  # hundreds of groups would use up the sockets
                grids[shape] = make_grid(cfg, world)
            check_layout(cfg, world.size)
            want = Step(**torch.load(folder / f"{job['model']}-{job['kind']}.pt"))
            try:
                got, part = step(cfg, grids[shape], job["kind"])
                found = compare(got, want, part)
            except Exception as error:
                error.add_note(f"process {world.rank}, job {job}")
                raise
            # a difference that is no number must not be lost by the maximum
            worst = torch.tensor(list(found.values()), dtype=torch.float64).nan_to_num(torch.inf)
            dist.all_reduce(worst, op=dist.ReduceOp.MAX)
            if world.is_first:
                row = job | {"found": dict(zip(found, worst.tolist(), strict=True))}
                row["seconds"] = time.monotonic() - began
                append_line(folder / f"rows-{world.size}.jsonl", json.dumps(row))
                if number % 50 == 0:
                    print(f"  {world.size} processes: {number} of {len(jobs)} steps", flush=True)


def rows_of(folder: Path, processes: int) -> list[dict[str, Any]]:
    """What was compared so far, in the order of the jobs."""
    file = folder / f"rows-{processes}.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def launch(processes: int, folder: Path) -> list[dict[str, Any]]:
    """All jobs of a world size in one start of its processes; a peer that hangs ends it."""
    subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone",
         "--nproc-per-node", str(processes), __file__, "--worker", str(folder)],
        env={**os.environ, "OMP_NUM_THREADS": "1"}, check=True,
    )  # fmt: skip
    return rows_of(folder, processes)


def jobs_of(processes: int, quick: bool) -> list[dict[str, Any]]:
    """Every layout with every model and precision; quick: a few, in float64."""
    found = []
    for layout in layouts(processes):
        dp = processes // (layout.pp * layout.tp)
        for name, kind in itertools.product(MODELS, KINDS):
            if kind not in LIMITS and MODELS[name] != TINY:
                continue
            told = {k: v for k, v in vars(layout).items() if v != getattr(Layout(), k)}
            found.append({"layout": told, "dp": dp, "model": name, "kind": kind})
    if quick:  # spread over layouts and models
        found = [job for job in found if job["kind"] == "float64"][::13]
    return found


def main() -> int:
    """Run one process, then all layouts, and write the files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a few rows")
    parser.add_argument("--out", type=Path, default=HERE, help="where the two files go")
    parser.add_argument("--runs", type=Path, help="where rows are kept as they are made")
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        work(args.worker)
        return 0
    torch.set_num_threads(1)
    rows = []
    margins: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.runs or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        kinds = ("float64",) if args.quick else KINDS
        for (name, model), kind in itertools.product(MODELS.items(), kinds):
            one, _ = step(configuration(model, Layout(), 1), Grid(), kind)
            torch.save(vars(one), folder / f"{name}-{kind}.pt")
            if kind == "float64":
                margins[name] = one.margin
        for processes in (2,) if args.quick else SIZES:
            jobs = jobs_of(processes, args.quick)
            (folder / f"jobs-{processes}.json").write_text(json.dumps(jobs))
            made = [{key: row[key] for key in jobs[0]} for row in rows_of(folder, processes)]
            if made != jobs[: len(made)]:
                parser.error(f"{folder} holds rows of other steps; give another --runs")
            rows += launch(processes, folder)
    for row in rows:
        limit = LIMITS.get(row["kind"])
        row["wrong"] = limit is not None and not max(row["found"].values()) <= limit
    told = environment(World(0, 1, torch.device("cpu")))
    told["command"] = " ".join(["python", "claims/ppmoe_layouts.py", *sys.argv[1:]])
    told["seconds"] = round(sum(row.pop("seconds") for row in rows))
    args.out.mkdir(parents=True, exist_ok=True)
    result = {"environment": told, "limits": LIMITS, "margins": margins, "rows": rows}
    (args.out / "ppmoe-layouts.json").write_text(packed(result))
    (args.out / "ppmoe-layouts.md").write_text(page(result))
    wrong = sum(row["wrong"] for row in rows)
    print(f"{len(rows)} steps in {told['seconds']} s, {wrong} of them outside the limits")
    return int(wrong > 0)


def packed(result: dict[str, Any]) -> str:
    """JSON with a line a row, which diffs well and stays small."""
    head = json.dumps({k: v for k, v in result.items() if k != "rows"}, indent=1)
    rows = []
    for row in result["rows"]:
        found = {k: float(f"{v:.3g}") for k, v in row["found"].items()}
        rows.append("  " + json.dumps(row | {"found": found}))
    return head[:-2] + ',\n "rows": [\n' + ",\n".join(rows) + "\n ]\n}\n"


def page(result: dict[str, Any]) -> str:
    """The Markdown page: a row a layout, the worst over the models."""
    told, rows = result["environment"], result["rows"]
    by_layout: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in rows:
        layout = Layout(**row["layout"])
        # where no choice is left, none is shown
        dispatch = layout.dispatch if row["dp"] * layout.tp > 1 else "–"
        sync = layout.sync if layout.tp > 1 and dispatch != "alltoall-copies" else "–"
        schedule = layout.schedule if layout.pp > 1 else "–"
        more = (
            ", ".join(
                text
                for text, asked in (
                    ("sequence", layout.sequence),
                    ("ZeRO-1", layout.zero),
                    ("FSDP2", layout.fsdp),
                    ("whole vocabulary", layout.tp > 1 and not layout.vocab_parallel),
                )
                if asked
            )
            or "–"
        )
        key = (layout.pp, row["dp"], layout.tp, schedule, dispatch, sync, more)
        by_layout.setdefault(key, []).append(row)
    wrong = sum(row["wrong"] for row in rows)
    judged = sum(row["kind"] in LIMITS for row in rows)
    lines = [
        "# PPMoE: every layout computes the same training step",
        "",
        f"**{judged - wrong} of {judged} steps within the limits** (float64 {LIMITS['float64']:g}, "
        f"float32 {LIMITS['float32']:g}, absolute and relative). Each row compares a step on "
        "several processes (gloo, CPU) with the same step on one: same weights, same "
        f"{CHUNKS} micro-batches in all (balance and z losses are defined on a micro-batch), "
        "gradients and the parameters after clipping and AdamW. Shown are largest differences "
        f"over {len(MODELS)} models:",
        "",
        *(f"- {name}; smallest routing margin {gap:.1e}" for name, gap in
          result["margins"].items()),
        "",
        "`grad` is the largest absolute difference of a gradient, `rel` the largest of loss, "
        "norm and each gradient tensor relative to its largest entry, `after` that of a parameter "
        f"after the step, where its gradient is 0 or above {SURE:g} (Adam's first step is the "
        "sign of smaller ones, which float32 may round to either). "
        "bfloat16 is autocast on both sides, of the first model; it has no limit, since a token "
        "whose experts are nearly tied may go to another one.",
        "",
        f"Machine: {told['cpu']}, {told['cores']} cores; torch {told['torch']}, python "
        f"{told['python']}. Commit {told['commit']}, {told['date']}, {told['seconds']} s. "
        f"Command: `{told['command']}`.",
        "",
        "| pp | dp | tp | schedule | dispatch | sync | more | float64 grad | rel | after "
        "| float32 grad | rel | after | bfloat16 loss | rel | |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    for key, group in by_layout.items():
        cells = [str(k) for k in key]
        for kind in ("float64", "float32"):
            cells += [worst(group, kind, what) for what in ("gradients", "relative", "after")]
        cells += [worst(group, "bfloat16", what) for what in ("loss", "relative")]
        cells.append("**outside**" if any(row["wrong"] for row in group) else "ok")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def worst(rows: list[dict[str, Any]], kind: str, what: str) -> str:
    """The largest difference of a group of rows, or a dash if none was made."""
    found = [row["found"][what] for row in rows if row["kind"] == kind]
    return f"{max(found):.1e}" if found else "–"


if __name__ == "__main__":
    sys.exit(main())
