"""PPMoE: experts against the dense backbone, PPMoE against DPMoE, the planner against the clock.

python benchmarks/ppmoe.py        # writes benchmarks/results/ppmoe.json and .md, five minutes

1. One process, one thread: a training step (forward, backward, gradient norm, AdamW, as the loop
   does them) of the mixture model against its dense backbone and against the straightforward loop
   over experts, in turns; the loop's outputs and gradients are found equal first.
2. One mixture layer on 2 and 4 gloo processes, a thread each: PPMoE (experts in the tensor group)
   against DPMoE (all-to-all over replicas) at equal global tokens, in turns.
3. The planner: rates of this machine by `calibrate`, then seconds of a step predicted and measured.

Times are wall-clock; run it on an otherwise idle machine of two cores or more.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import datetime
import functools
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from rates import quartiles  # noqa: E402
from straightforward_ppmoe import Straightforward, converted

from tenfold.core.dist import World
from tenfold.core.loop import Loop
from tenfold.core.optim import build
from tenfold.systems.ppmoe.config import Config, Layout, Model
from tenfold.systems.ppmoe.dispatch import MoE
from tenfold.systems.ppmoe.model import FeedForward
from tenfold.systems.ppmoe.parallel import Grid, make_grid
from tenfold.systems.ppmoe.parts import Owners, initialise
from tenfold.systems.ppmoe.pipeline import Part, key_of
from tenfold.systems.ppmoe.planner.calibrate import calibrate
from tenfold.systems.ppmoe.planner.clusters import MODELS, predict_step_seconds
from tenfold.systems.ppmoe.planner.cost import Kind, Placement
from tenfold.systems.ppmoe.recipes import SMALL

RESULTS = Path(__file__).parent / "results"
GOAL = 0.90
"""Throughput of the mixture model over its dense backbone's that we want in one process."""
LOOP = 0.86
"""The same of a Python loop over experts, as it was measured before there was this library."""
DENSE, PLAIN, OURS = "dense backbone's", "straightforward", "ours"
STEPS = ((128, 16), (256, 16), (512, 16))
"""Width and batch, in sequences of 128 tokens; the first is the recipe `small`."""
CUDA_STEPS = ((512, 64), (1024, 64))
LAYERS = (
    (512, 128, 8, 1, 38.4, 35.8, 30.0),
    (2048, 128, 8, 1, 82.6, 71.6, 59.4),
    (2048, 256, 8, 1, 243.7, 198.5, 136.0),
    (4096, 256, 8, 1, 278.4, 284.0, 240.8),
    (2048, 256, 16, 2, 497.4, 472.4, 128.0),
    (2048, 512, 8, 1, 825.0, 727.3, 447.6),
    (4096, 512, 8, 1, 1350.5, 1287.1, 1101.9),
)
"""Tokens, width, experts, choices; then milliseconds of DPMoE, PPMoE and the tensor-parallel dense
network that a prototype took in 2 processes of a loaded machine. The inner width is four times the
width."""
SIDES = ("DPMoE", "PPMoE", "dense")
PLANNED: tuple[tuple[str, Kind, dict[str, Any], int, int], ...] = (
    ("one process", "ppmoe", {}, 16, 1),
    ("tp 2", "ppmoe", {"tp": 2}, 16, 1),
    ("pp 2, 4 micro-batches", "ppmoe", {"pp": 2}, 4, 4),
    ("dp 2", "ppmoe", {}, 8, 1),
    ("dp 2, all-to-all", "dpmoe", {"dispatch": "alltoall"}, 8, 1),
)
"""Name, method, layout, sequences of a replica's micro-batch, micro-batches: 2048 tokens a step."""
LIMIT_S = 400.0
"""Longest time for the processes of one world size."""


def keep_freed_memory() -> bool:
    """Let glibc keep what is freed, whichever side freed it.

    Otherwise it gives memory back to the system or not by the order in which tensors die, and the
    page faults of one side can take a fifth of a step in one run and nothing in the next.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    trim_threshold, mmap_threshold = -1, -3
    libc = ctypes.CDLL(None)
    return bool(libc.mallopt(trim_threshold, 2**31 - 1) and libc.mallopt(mmap_threshold, 2**30))


# --- a training step in one process -------------------------------------------------------------


@dataclass
class Timing:
    """A training step of every side; the last side is ours."""

    what: str
    seconds: dict[str, list[float]]
    """Side -> lower quartile, median, upper quartile over the rounds."""
    ratio: dict[str, list[float]]
    """Side -> quartiles of its time over ours, in runs next to each other: our throughput over
    its."""
    forward_backward: dict[str, list[float]]
    """The same of forward and backward alone."""
    optimizer: dict[str, list[float]]
    """The same of the gradient norm, clipping and AdamW."""
    rounds: int
    parameters: dict[str, int]
    load: list[float]
    """Fullest expert's load over the mean, mean of the layers, in the first and the last step."""
    goal_met: bool


@dataclass(frozen=True)
class Device:
    """Where and in which precision a step runs."""

    name: str = "cpu"

    def synchronize(self) -> None:
        if self.name != "cpu":
            torch.cuda.synchronize()

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        if self.name == "cpu":
            return contextlib.nullcontext()
        return torch.autocast(self.name, torch.bfloat16)


class Side:
    """A model with its optimiser: one step, timed in two pieces."""

    def __init__(
        self, model: torch.nn.Module, train_step: Callable[[], Any], norm: Callable[[], float],
        device: Device,
    ) -> None:  # fmt: skip
        self.model, self.train_step, self.norm, self.device = model, train_step, norm, device
        self.parameters = list(model.parameters())
        # so small a rate that routing stays what it is at the start: trained on one batch, the
        # router would soon send all to one expert, which costs no more than the dense network
        self.optimizer = build(model, replace(SMALL.optim, lr=1e-9))
        self.out: Any = None

    def step(self) -> tuple[float, float]:
        """Seconds of forward and backward, and of the rest."""
        self.device.synchronize()
        start = time.perf_counter()
        self.model.zero_grad(set_to_none=True)
        with self.device.autocast():
            self.out = self.train_step()
        self.device.synchronize()
        middle = time.perf_counter()
        norm, clip = self.norm(), SMALL.optim.clip
        grads = [p.grad for p in self.parameters if p.grad is not None]
        if norm > clip:
            torch._foreach_mul_(grads, clip / (norm + 1e-6))
        self.optimizer.step()
        self.device.synchronize()
        return middle - start, time.perf_counter() - middle


def config(hidden: int, batch: int, kind: str) -> Config:
    model = replace(SMALL.model, kind=kind, hidden=hidden, heads=hidden // 32, vocab=256)
    return replace(SMALL, model=model, batch=batch)


def sides(hidden: int, batch: int, device: Device) -> dict[str, Side]:
    """The models with their optimisers, all on one batch of bytes drawn at random."""
    draw = torch.Generator().manual_seed(1)
    tokens = torch.randint(256, (batch, SMALL.model.seq + 1), generator=draw).to(device.name)

    def part_side(kind: str) -> Side:
        part = Part(config(hidden, batch, kind), Grid(), device.name)
        step = functools.partial(part.train_step, [{"tokens": tokens}])
        return Side(part, step, part.gradient_norm, device)

    dense, ours = part_side("dense"), part_side("moe")
    model = Straightforward(config(hidden, batch, "moe").model).to(device.name)
    model.load_state_dict(converted({key_of(k): v for k, v in ours.model.state_dict().items()}))
    parameters = list(model.parameters())

    def norm() -> float:
        grads = [p.grad for p in parameters if p.grad is not None]
        return float(torch.nn.utils.get_total_norm(grads))

    plain = Side(model, functools.partial(model.train_step, tokens), norm, device)
    return {DENSE: dense, PLAIN: plain, OURS: ours}


def assert_equal(hidden: int, batch: int) -> dict[str, float]:
    """Largest difference of logits (within 1e-5) and of gradients, relative (within 1e-4)."""
    found = sides(hidden, batch, Device())
    plain, ours = found[PLAIN], found[OURS]
    tokens = plain.train_step.args[0]  # type: ignore[attr-defined]
    with torch.no_grad():
        logits = ours.model.parts[0](tokens[:, :-1])  # type: ignore[index]
        output = float((logits - plain.model(tokens[:, :-1])[0]).abs().max())
    plain.train_step()
    ours.train_step()
    grads = {key_of(n): p.grad for n, p in ours.model.named_parameters()}
    got = converted(grads)  # type: ignore[arg-type]
    wanted = {
        name: torch.zeros_like(p) if p.grad is None else p.grad
        for name, p in plain.model.named_parameters()
    }
    assert got.keys() == wanted.keys()
    scale = max(float(grad.abs().max()) for grad in wanted.values())
    errors = [
        float((got[n] - w).abs().max()) / (float(w.abs().max()) + 1e-3 * scale)
        for n, w in wanted.items()
    ]
    assert output < 1e-5, output
    assert max(errors) < 1e-4, max(errors)
    return {f"logits, h {hidden}": output, f"gradients (relative), h {hidden}": max(errors)}


def compare(hidden: int, batch: int, rounds: int, device: Device) -> Timing:
    """Time the sides in turns; who begins changes from round to round."""
    found = sides(hidden, batch, device)
    first = load_of(found[OURS].train_step())
    for side in found.values():
        side.step()
        side.step()
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in found}
    names = list(found)
    for i in range(rounds):
        for name in names[i % len(names) :] + names[: i % len(names)]:
            times[name].append(found[name].step())

    def over_ours(pick: Callable[[tuple[float, float]], float]) -> dict[str, list[float]]:
        return {
            name: [
                round(q, 3)
                for q in quartiles(
                    [pick(a) / pick(b) for a, b in zip(seen, times[OURS], strict=True)]
                )
            ]
            for name, seen in times.items()
            if name != OURS
        }

    ratio = over_ours(sum)
    what = f"MoE training step, h {hidden}" + ("" if device.name == "cpu" else ", CUDA bf16")
    print(f"{what}: {ratio}", file=sys.stderr)
    return Timing(
        what,
        {name: quartiles([sum(t) for t in seen]) for name, seen in times.items()},
        ratio,
        over_ours(lambda t: t[0]),
        over_ours(lambda t: t[1]),
        rounds,
        {name: sum(p.numel() for p in side.parameters) for name, side in found.items()},
        [first, load_of(found[OURS].out)],
        ratio[DENSE][1] >= GOAL,
    )


def load_of(tally: Any) -> float:
    """Fullest expert's load over the mean, mean of the layers."""
    counts = tally.counts()
    return round(float((counts.max(1).values / counts.mean(1)).mean()), 3)


# --- several processes --------------------------------------------------------------------------


def processes(size: int, work: Callable[[World, dict[str, Any]], Any], job: dict[str, Any]) -> Any:
    """What `work` returns on the first of `size` new gloo processes; all are gone afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        spawned = mp.start_processes(
            _process, args=(size, folder, work, job), nprocs=size, join=False, start_method="spawn"
        )
        end = time.monotonic() + LIMIT_S
        try:
            while not spawned.join(timeout=max(0.1, end - time.monotonic())):
                if time.monotonic() > end:
                    raise RuntimeError(f"{size} processes gave no answer in {LIMIT_S:.0f} s")
        finally:
            for process in spawned.processes:
                if process.is_alive():
                    process.kill()
                    process.join()
        return json.loads((Path(folder) / "found.json").read_text())


def _process(rank: int, size: int, folder: str, work: Callable[..., Any], job: Any) -> None:
    torch.set_num_threads(1)
    keep_freed_memory()
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=size,
        timeout=datetime.timedelta(seconds=90),
    )  # fmt: skip
    found = work(World(rank, size, torch.device("cpu")), job)
    if rank == 0:
        (Path(folder) / "found.json").write_text(json.dumps(found))
    dist.barrier()
    dist.destroy_process_group()


def in_turns(
    runs: dict[str, Callable[[], object]], rounds: int, warm: int = 2
) -> dict[str, list[float]]:
    """Seconds of each, of the slowest process, round by round; all processes start together."""
    taken: dict[str, list[float]] = {name: [] for name in runs}
    for i in range(warm + rounds):
        for name, run in runs.items():
            dist.barrier()
            start = time.perf_counter()
            run()
            if i >= warm:
                taken[name].append(time.perf_counter() - start)
    for name, seen in taken.items():
        slowest = torch.tensor(seen, dtype=torch.float64)
        dist.all_reduce(slowest, op=dist.ReduceOp.MAX)
        taken[name] = slowest.tolist()
    return taken


def layer_times(world: World, job: dict[str, Any]) -> list[dict[str, Any]]:
    """One layer forward and backward, in every size of `LAYERS`; on each process."""
    tensor = replace(SMALL, layout=Layout(tp=world.size), batch=world.size, loop=Loop())
    replicas = replace(tensor, layout=Layout(dispatch="alltoall"))
    by_tensor, by_replica = make_grid(tensor, world), make_grid(replicas, world)
    rows = []
    for tokens, hidden, experts, top_k, *_ in LAYERS:
        cfg = Model(layers=1, hidden=hidden, heads=hidden // 32, experts=experts, top_k=top_k)
        found: dict[str, Any] = {
            "PPMoE": MoE(cfg, tensor.layout, by_tensor),
            "DPMoE": MoE(cfg, replicas.layout, by_replica),
            "dense": FeedForward(cfg, by_tensor, cfg.inner),
        }
        draw = torch.Generator().manual_seed(2)
        x = torch.randn(tokens, hidden, generator=draw)
        grad = torch.randn(tokens, hidden, generator=draw)
        runs, results = {}, {}
        for name in SIDES:
            layer = found[name]
            holder = torch.nn.ModuleDict({"moe" if name != "dense" else "ffn": layer})
            laid, grid = (replicas, by_replica) if name == "DPMoE" else (tensor, by_tensor)
            initialise(holder, cfg, 0, Owners(laid.layout, grid))
            part = slice(None)  # every process has all tokens, or a replica's share of them
            if name == "DPMoE":
                part = world.share(tokens)
            given, back = x[part].clone().requires_grad_(), grad[part].clone()
            runs[name] = functools.partial(forward_backward, layer, given, back)
            results[name] = (layer, given, part)
        with torch.no_grad():
            share = world.share(tokens)
            one, two = (
                layer.eval()(given)[0] for layer, given, _ in map(results.get, ("PPMoE", "DPMoE"))
            )
            assert float((one[share] - two).abs().max()) < 1e-5
            load = found["PPMoE"](x)[1].counts.double()
        for layer in found.values():
            layer.train()
        taken = in_turns(runs, job["rounds"])
        ratios = {
            "DPMoE over PPMoE": [
                a / b for a, b in zip(taken["DPMoE"], taken["PPMoE"], strict=True)
            ],
            "dense over PPMoE": [
                a / b for a, b in zip(taken["dense"], taken["PPMoE"], strict=True)
            ],
        }
        rows.append(
            {
                "processes": world.size,
                "tokens": tokens,
                "hidden": hidden,
                "inner": cfg.inner,
                "experts": experts,
                "top_k": top_k,
                "seconds": {name: quartiles(seen) for name, seen in taken.items()},
                "ratio": {name: [round(q, 3) for q in quartiles(r)] for name, r in ratios.items()},
                "load": round(float(load.max() / load.mean()), 3),
                "rounds": job["rounds"],
            }
        )
        if world.is_first:
            print(f"layer, {world.size} processes: {rows[-1]}", file=sys.stderr)
    return rows


def forward_backward(layer: torch.nn.Module, x: torch.Tensor, grad: torch.Tensor) -> None:
    layer.zero_grad(set_to_none=True)
    x.grad = None
    y = layer(x)
    (y[0] if isinstance(y, tuple) else y).backward(grad)


# --- the planner --------------------------------------------------------------------------------


def planner(seconds: float, rounds: int) -> dict[str, Any]:
    """Seconds of a step, predicted from rates measured here, and measured."""
    shape = MODELS["small"]
    rates = calibrate(shape, micro_batch_size=8, seconds=seconds)
    measured = processes(2, step_times, {"rounds": rounds})
    rows = []
    for (name, kind, layout, rows_each, micro), taken in zip(PLANNED, measured, strict=True):
        tp, pp = layout.get("tp", 1), layout.get("pp", 1)
        dp = 2 if name.startswith("dp") else 1
        place = Placement(kind, pp, tp, dp, rows_each, micro)
        predicted = predict_step_seconds(shape, place, rates)
        rows.append(
            {
                "layout": name,
                "predicted": round(predicted, 6),
                "seconds": taken,
                "error_percent": round(100 * (predicted / taken[1] - 1), 1),
            }
        )
    kept = ("gemm_flops", "expert_call_s", "allreduce_bytes_per_s", "gradient_bytes_per_s",
            "alltoall_bytes_per_s", "optimizer_bytes_per_s", "spread")  # fmt: skip
    told = rates.to_json()
    return {"calibration": {key: told[key] for key in kept}, "rounds": rounds, "layouts": rows}


def step_times(world: World, job: dict[str, Any]) -> list[list[float]]:
    """Quartiles of a training step's seconds in every layout of `PLANNED`, in turns."""
    draw = torch.Generator().manual_seed(1)
    tokens = torch.randint(256, (16, SMALL.model.seq + 1), generator=draw)
    model = replace(SMALL.model, vocab=256)
    runs: dict[str, Callable[[], object]] = {}
    for name, _, layout, rows, micro in PLANNED:
        alone = name == "one process"
        cfg = replace(
            SMALL, model=model, layout=Layout(**layout), loop=Loop(accumulate=micro),
            batch=rows * (2 if name.startswith("dp") else 1),
        )  # fmt: skip
        grid = Grid() if alone else make_grid(cfg, world)
        if alone and not world.is_first:
            runs[name] = int  # the other core has nothing to do
            continue
        part = Part(cfg, grid)
        mine = tokens.chunk(grid.dp.size)[grid.dp.rank]
        batches = [{"tokens": chunk} for chunk in mine.chunk(micro)]
        step = functools.partial(part.train_step, batches)
        runs[name] = Side(part, step, part.gradient_norm, Device()).step
    return [quartiles(seen) for seen in in_turns(runs, job["rounds"]).values()]


# --- the result ---------------------------------------------------------------------------------


def machine() -> dict[str, object]:
    names = [
        line.split(":")[1].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    return {
        "platform": platform.platform(),
        "cpu": names[0] if names else platform.processor(),
        "cores": os.cpu_count(),
        "threads": 1,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "load_average_before": [round(x, 2) for x in os.getloadavg()],
    }


def commit() -> str:
    here = Path(__file__).parent
    run = ["git", "-C", str(here), "describe", "--always", "--dirty", "--abbrev=12"]
    return subprocess.run(run, capture_output=True, text=True).stdout.strip() or "unknown"


def ms(values: list[float]) -> str:
    low, middle, high = (1e3 * v for v in values)
    return f"{middle:.1f} ({low:.1f}-{high:.1f})"


def times(values: list[float]) -> str:
    low, middle, high = values
    return f"{middle:.2f} ({low:.2f}-{high:.2f})"


def page(result: dict[str, Any]) -> str:
    where = result["machine"]
    lines = [
        "# PPMoE: experts against the dense backbone, PPMoE against DPMoE, planner against clock",
        "",
        f"{result['date']}, commit {result['commit']}, `{result['command']}`; {where['cpu']}, "
        f"{where['cores']} cores, {where['threads']} thread a process, torch {where['torch']}, "
        f"load {where['load_average_before'][0]} before the run. Times: median (quartiles) of "
        "wall-clock in milliseconds; ratios: medians over rounds of runs next to each other.",
    ]
    if result["timings"]:
        lines += steps_section(result)
    if result["layers"]:
        lines += layers_section(result["layers"], where["cores"])
    if result["planner"]:
        lines += planner_section(result["planner"])
    return "\n".join(lines) + "\n"


def steps_section(result: dict[str, Any]) -> list[str]:
    kept = "glibc keeps freed memory (else page faults decide)" if result["keeps_memory"] else ""
    lines = [
        "",
        "## A training step, one process",
        "",
        "Forward, backward, gradient norm, clipping and AdamW as the loop does them. 4 layers, "
        "sequences of 128 bytes drawn at random, 8 experts in 2 of 4 layers, top-1, float32"
        f"{'; ' + kept if kept else ''}. Relative: our throughput over that of the side. "
        f"Goal: {GOAL:.2f} of the dense backbone (a Python loop over experts, measured once in a "
        f"prototype: {LOOP:.2f}).",
        "",
        "| | side | parameters | time | relative (quartiles) | forward + backward "
        "| norm, clip, AdamW |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in result["timings"] + result["cuda"]:
        for name, seen in row["seconds"].items():
            what = row["what"] if name == DENSE else ""
            cells = [times(row[k][name]) if name != OURS else ""
                     for k in ("ratio", "forward_backward", "optimizer")]  # fmt: skip
            if cells[0]:
                cells[0] = f"**{cells[0].replace(' ', '** ', 1)}"
            size = f"{row['parameters'][name] / 1e6:.2f} M"
            lines.append(f"| {what} | {name} | {size} | {ms(seen)} | {' | '.join(cells)} |")
    lines.append("")
    for row in result["timings"] + result["cuda"]:
        before, after = row["load"]
        lines.append(
            f"- {row['what']}: goal {'met' if row['goal_met'] else '**not met**'}, "
            f"{row['ratio'][DENSE][1]:.2f} of the dense backbone over {row['rounds']} rounds; "
            f"router as initialised: fullest expert {before:.2f} times the mean load in the first "
            f"step, {after:.2f} in the last"
        )
    lines += ["", "Largest differences from the straightforward side before timing: "]
    lines[-1] += ", ".join(f"{name} {value:.1e}" for name, value in result["differences"].items())
    return lines


def layers_section(rows: list[dict[str, Any]], cores: int) -> list[str]:
    lines = [
        "",
        "## One layer, PPMoE against DPMoE",
        "",
        "Forward and backward in float32 on local gloo processes, one thread each; the time is "
        "that of the slowest process. Equal global tokens n: each of the T replicas of DPMoE "
        "holds n/T of them, each tensor rank of PPMoE all n. Dense: one network of the same "
        "width, cut over the tensor group; with top-2 a mixture multiplies twice as much. "
        "Reductions of gradients over replicas are not in it. All processes share one memory: "
        "nothing here is a link between nodes, and PPMoE moves more bytes; "
        "claims/ppmoe-network.md has slow links. Before: a prototype in 2 processes of a loaded "
        "machine (within 20%).",
        "",
        "| T | n, h, f, E, k | DPMoE | PPMoE | dense | DPMoE/PPMoE | dense/PPMoE | before: DPMoE, "
        "PPMoE, dense; ratios | fullest expert |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    known = {row[:4]: row[4:] for row in LAYERS}
    for row in rows:
        key = (row["tokens"], row["hidden"], row["experts"], row["top_k"])
        one, two, dense = known[key]
        before = f"{one:.0f}, {two:.0f}, {dense:.0f}; {one / two:.2f}, {dense / two:.2f}"
        sizes = f"{key[0]}, {key[1]}, {row['inner']}, {key[2]}, {key[3]}"
        cells = [ms(row["seconds"][name]) for name in SIDES]
        cells += [times(seen) for seen in row["ratio"].values()]
        before = before if row["processes"] == 2 else ""
        lines.append(
            f"| {row['processes']} | {sizes} | {' | '.join(cells)} | {before} | {row['load']:.2f} |"
        )
    if any(row["processes"] > cores for row in rows):
        lines += [
            "",
            f"4 processes on {cores} cores take turns: those times say what a layout costs in all, "
            "not how it scales.",
        ]
    return lines


def planner_section(found: dict[str, Any]) -> list[str]:
    rates = found["calibration"]
    spread = max(rates["spread"].values())
    lines = [
        "",
        "## The planner",
        "",
        "Recipe `small`, 2048 tokens a step on 2 processes (the first row: on one). Predicted by "
        "the cost model from rates measured here just before: "
        f"{rates['gemm_flops'] / 1e9:.0f} GFLOP/s, {1e6 * rates['expert_call_s']:.0f} us an expert "
        f"call, all-reduce {rates['allreduce_bytes_per_s'] / 1e9:.2f} GB/s, all-to-all "
        f"{rates['alltoall_bytes_per_s'] / 1e9:.2f} GB/s, gradients "
        f"{rates['gradient_bytes_per_s'] / 1e9:.2f} GB/s, AdamW "
        f"{rates['optimizer_bytes_per_s'] / 1e9:.1f} GB/s (widest interquartile range "
        f"{spread:.0%}). Measured: {found['rounds']} rounds, layouts in turns, slowest process.",
        "",
        "| layout | predicted, ms | measured, ms | error |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| {row['layout']} | {1e3 * row['predicted']:.1f} | {ms(row['seconds'])} "
        f"| {row['error_percent']:+.0f}% |"
        for row in found["layouts"]
    ]
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15, help="of a training step; layers: half")
    parser.add_argument("--calibrate", type=float, default=25.0, help="seconds")
    parser.add_argument("--parts", nargs="+", default=["steps", "layers", "planner"])
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    where, keeps = machine(), keep_freed_memory()
    fewer = max(7, args.rounds // 2)
    command = "python benchmarks/ppmoe.py"
    command += "" if args.rounds == 15 else f" --rounds {args.rounds}"
    differences: dict[str, float] = {}
    timings, cuda, layers, plan = [], [], [], {}
    if "steps" in args.parts:
        for hidden, batch in STEPS:
            differences |= assert_equal(hidden, min(batch, 8))
        timings = [asdict(compare(*size, args.rounds, Device())) for size in STEPS]
        if torch.cuda.is_available():
            cuda = [asdict(compare(*size, args.rounds, Device("cuda"))) for size in CUDA_STEPS]
    if "layers" in args.parts:
        for size in (2, 4):
            layers += processes(size, layer_times, {"rounds": fewer})
    if "planner" in args.parts:
        plan = planner(args.calibrate, fewer)
    result = {
        "system": "ppmoe",
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="minutes"),
        "commit": commit(),
        "command": command,
        "machine": where,
        "config": asdict(SMALL.model),
        "compares": "in one process (outputs equal to the straightforward side's; the dense "
        "backbone is another model)",
        "goal": GOAL,
        "keeps_memory": keeps,
        "differences": differences,
        "timings": timings,
        "cuda": cuda,
        "layers": layers,
        "planner": plan,
    }
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "ppmoe.json").write_text(json.dumps(result, indent=1) + "\n")
    (args.out / "ppmoe.md").write_text(page(result))
    print(page(result))


if __name__ == "__main__":
    main()
