"""PPMoE: experts against the dense backbone, PPMoE against DPMoE.

python benchmarks/ppmoe.py        # writes benchmarks/results/ppmoe.KIND.json and .md, five minutes
python benchmarks/ppmoe.py --tiny --out FOLDER      # one small step: does it work?

1. One process, one thread: a training step (forward, backward, gradient norm, AdamW, as the loop
   does them) of the mixture model against its dense backbone and against the straightforward loop
   over experts, in turns; the loop's outputs and gradients are found equal first. Tokens and FLOP
   a second, and their share of what one large product achieves on the same core just before.
2. One mixture layer on 2 and 4 gloo processes, a thread each: PPMoE (experts in the tensor group)
   against DPMoE (all-to-all over replicas) at equal global tokens, in turns.

Times are wall-clock; run it on an otherwise idle machine of two cores or more.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import functools
import json
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
from rates import RESULTS, machine, quartiles, square_product, write  # noqa: E402
from straightforward_ppmoe import Straightforward, converted

from tenfold.core.allocator import keep_freed_memory
from tenfold.core.dist import World
from tenfold.core.loop import Loop
from tenfold.core.optim import build
from tenfold.core.peak import peak
from tenfold.systems.ppmoe.config import Config, Layout, Model
from tenfold.systems.ppmoe.dispatch import MoE
from tenfold.systems.ppmoe.model import FeedForward
from tenfold.systems.ppmoe.parallel import Grid, make_grid
from tenfold.systems.ppmoe.parts import Owners, initialise
from tenfold.systems.ppmoe.pipeline import Part, key_of
from tenfold.systems.ppmoe.planner.cost import training_flop
from tenfold.systems.ppmoe.planner.shape import shape_of
from tenfold.systems.ppmoe.recipes import SMALL

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
LIMIT_S = 400.0
"""Longest time for the processes of one world size."""


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
    tokens: int
    """Tokens of a step."""
    flop: dict[str, float]
    """Side -> FLOP of the products of a step, as the planner counts them."""
    achievable: float
    """FLOP/s that the device can do: of a CPU, one large product measured just before; of a GPU,
    the data sheet's, 0 for an unknown kind."""
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
        self, model: torch.nn.Module, train_step: Callable[[], Any],
        norm: Callable[[], torch.Tensor], device: Device,
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
        norm, clip = float(self.norm()), SMALL.optim.clip
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


def compare(hidden: int, batch: int, rounds: int, device: Device, side: int = 2048) -> Timing:
    """Time the sides in turns; who begins changes from round to round."""
    found = sides(hidden, batch, device)
    tokens = batch * SMALL.model.seq
    is_cpu = device.name == "cpu"
    best = square_product(torch.float32, side) if is_cpu else peak(torch.device(device.name), True)
    kinds = {DENSE: "dense", PLAIN: "moe", OURS: "moe"}
    flop = {
        name: training_flop(shape_of(config(hidden, batch, kind).model), tokens)
        for name, kind in kinds.items()
    }
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
        tokens,
        flop,
        best,
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


# --- the result ---------------------------------------------------------------------------------


def ms(values: list[float]) -> str:
    low, middle, high = (1e3 * v for v in values)
    return f"{middle:.1f} ({low:.1f}-{high:.1f})"


def times(values: list[float]) -> str:
    low, middle, high = values
    return f"{middle:.2f} ({low:.2f}-{high:.2f})"


def page(result: dict[str, Any]) -> str:
    where, load = result["machine"]["environment"], result["machine"]["load"]
    lines = [
        "# PPMoE: experts against the dense backbone, PPMoE against DPMoE",
        "",
        f"{where['date']}, commit {where['commit']}, `{result['command']}`; {where['cpu']} "
        f"({result['machine']['features']}), {where['cores']} cores, {where['threads']} thread a "
        f"process, torch {where['torch']}, load {load:.2f} before the run. Times: median "
        "(quartiles) of wall-clock in milliseconds; ratios: medians over rounds of runs next to "
        "each other.",
    ]
    if result["timings"]:
        lines += steps_section(result)
    if result["layers"]:
        lines += layers_section(result["layers"], where["cores"])
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
        "FLOP: of products, as the planner counts them; achievable: the rate of one large product "
        "on the same core just before, on a GPU the data sheet's in bf16. "
        f"Goal: {GOAL:.2f} of the dense backbone (a Python loop over experts, measured once in a "
        f"prototype: {LOOP:.2f}).",
        "",
        "| | side | parameters | time | tokens/s | GFLOP/s | of what is achievable "
        "| relative (quartiles) | forward + backward | norm, clip, AdamW |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in result["timings"] + result["cuda"]:
        for name, seen in row["seconds"].items():
            what = row["what"] if name == DENSE else ""
            cells = [times(row[k][name]) if name != OURS else ""
                     for k in ("ratio", "forward_backward", "optimizer")]  # fmt: skip
            if cells[0]:
                cells[0] = f"**{cells[0].replace(' ', '** ', 1)}"
            size = f"{row['parameters'][name] / 1e6:.2f} M"
            rate = row["flop"][name] / seen[1]
            share = f"{rate / row['achievable']:.0%}" if row["achievable"] else "unknown"
            speed = f"{row['tokens'] / seen[1]:,.0f} | {rate / 1e9:,.1f} | {share}"
            cells = [size, ms(seen), speed, *cells]
            lines.append(f"| {what} | {name} | {' | '.join(cells)} |")
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15, help="of a training step; layers: half")
    parser.add_argument("--parts", nargs="+", default=["steps", "layers"])
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--tiny", action="store_true", help="one small step: does it work?")
    args = parser.parse_args()
    torch.set_num_threads(1)
    where, keeps = machine(), keep_freed_memory()
    fewer = max(7, args.rounds // 2)
    command = "python benchmarks/ppmoe.py"
    command += " --tiny" * args.tiny
    command += "" if args.rounds == 15 else f" --rounds {args.rounds}"
    differences: dict[str, float] = {}
    timings, cuda, layers = [], [], []
    if args.tiny:
        differences = assert_equal(32, 2)
        timings = [asdict(compare(32, 2, 2, Device(), side=256))]
    elif "steps" in args.parts:
        for hidden, batch in STEPS:
            differences |= assert_equal(hidden, min(batch, 8))
        timings = [asdict(compare(*size, args.rounds, Device())) for size in STEPS]
        if torch.cuda.is_available():
            cuda = [asdict(compare(*size, args.rounds, Device("cuda"))) for size in CUDA_STEPS]
    if "layers" in args.parts and not args.tiny:
        for size in (2, 4):
            layers += processes(size, layer_times, {"rounds": fewer})
    result = {
        "system": "ppmoe",
        "date": where["environment"]["date"],
        "commit": where["environment"]["commit"],
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
    }
    write("ppmoe", result, page(result), args.out)


if __name__ == "__main__":
    main()
