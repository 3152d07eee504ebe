"""Pangu-Weather: our network against the straightforward computation, same weights, equal output.

python benchmarks/pangu.py        # writes benchmarks/results/pangu.KIND.json and .md

Both sides run in one process, in turns, after outputs and gradients were found equal. The paper's
network (13 levels, width 192, 2 + 6 + 6 + 2 blocks, windows of 2 x 6 x 12) is measured on a grid of
97 x 192, which fits a small machine, and our small recipe's network at its own size. Times are
wall-clock; run it on an otherwise idle machine. Peak memory is that of a process of its own for
each side: the kernel's maximum of resident memory (VmHWM), less what was resident before the
network was built. Time and memory are those of torch's defaults: no allocator is set. Beside each
ratio stands the share of our time that no side can do without (rates.py); the page compares the
kinds of CPU whose results are in the folder.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import rates
import torch
from rates import RESULTS, quartiles
from straightforward_pangu import Straightforward

from tenfold.data.weather.grid import Grid
from tenfold.report.markdown import md_table
from tenfold.systems.pangu import attention, tokenwise
from tenfold.systems.pangu.config import Model
from tenfold.systems.pangu.model import Pangu
from tenfold.systems.pangu.onnx.pseudocode import PSEUDOCODE

SIDES = ("straightforward", "ours")
GOALS = {"inference": 1.8, "forward and backward": 1.5}
"""Ratios in float32 at the paper's configuration that we set out to reach."""
MEMORY_GOAL = 0.6
"""The same of our peak memory over the other's."""
PAPER = Model(drop_path=0.0)  # both sides draw DropPath alike, but not the same samples
SMALL = Model(
    dim=64, depths=(2, 2, 2, 2), heads=(4, 8, 8, 4), patch=(2, 2, 2), window=(2, 4, 8),
    drop_path=0.0,
)  # fmt: skip
TRIED = (
    "Tried on an AMD EPYC (25-17), busy otherwise, by time of the processor, and not kept: parts "
    "of an MLP of 2, 8 or 32 MiB instead of 4 (0.97 to 1.02 of the speed of inference); GELU "
    "fused into oneDNN's product (9.4 instead of 9.6 ms with the product, equal to the bit); MKL "
    "told to use AVX-512 or AVX2 by its variables (72 to 90 GFLOP/s for one product of 1024 x "
    "1024, 85 without); attention matrices of 0.25 to 2 MiB at once (within 4 % of each other; "
    "now 1 MiB); sums of columns as products with ones (slower). Freed memory that is kept, as "
    "`tenfold train` does, saves the small network's step in bf16 2 % and the straightforward "
    "one's 10 %, which has more of it. Nearly half of the small "
    "network's step in bf16 is not products but GELU, exponentials, norms, sums and conversions, "
    "on both sides, and products of attention's 16-wide heads run at a quarter of the rate of a "
    "large one: no share of 80 % can be had there by these means.",
)
"""What did not pay; measured once, by hand."""
Tensors = tuple[torch.Tensor, torch.Tensor]
Sides = dict[str, Callable[[], Tensors]]


@dataclass(frozen=True)
class Case:
    """A network, its grid and a batch."""

    name: str
    cfg: Model
    levels: int
    lat: int
    lon: int
    batch: int

    def grid(self) -> Grid:
        return Grid(
            upper=("z", "q", "t", "u", "v"),
            levels=tuple(range(1000, 1000 - 50 * self.levels, -50)),
            surface=("msl", "u10", "v10", "t2m"),
            constants=("land", "soil", "topography"),
            latitudes=tuple(np.linspace(90, -90, self.lat).tolist()),
            longitudes=tuple((np.arange(self.lon) * 360 / self.lon).tolist()),
        )

    def inputs(self) -> Tensors:
        draw = torch.Generator().manual_seed(1)
        upper = torch.randn(self.batch, 5, self.levels, self.lat, self.lon, generator=draw)
        return upper, torch.randn(self.batch, 4, self.lat, self.lon, generator=draw)

    def ours(self) -> Pangu:
        """Our network, nothing in it zero, the constants included."""
        torch.manual_seed(0)
        ours = Pangu(self.cfg, self.grid())
        with torch.no_grad():
            for name, value in ours.named_parameters():
                if value.ndim == 1:
                    value.normal_(1.0 if "norm" in name and "weight" in name else 0.0, 0.1)
                elif name.endswith("bias_table"):
                    value.normal_(0, 0.5)
            ours.surface_constants[:, : self.lat, : self.lon].normal_()
        return ours

    def straightforward(self, ours: Pangu | None) -> Straightforward:
        """The other side, with our weights if given."""
        c, sizes = self.cfg, (self.levels, self.lat, self.lon)
        other = Straightforward(
            5, 4, 3, sizes, c.dim, c.depths, c.heads, c.patch, c.window, c.drop_path
        )
        if ours is not None:
            other.load_state_dict(PSEUDOCODE.reversed_state(ours.state_dict(), other.state_dict()))
            other.constants.copy_(ours.surface_constants[:, : self.lat, : self.lon])
        return other


FULL = Case("paper's network on 97 x 192", PAPER, 13, 97, 192, 1)
CASES = {
    "full": FULL,
    "small": Case("small recipe's network on 32 x 64", SMALL, 5, 32, 64, 8),
    "quarter": Case("paper's network on 49 x 96", PAPER, 13, 49, 96, 1),
}


@dataclass
class Memory:
    """Peak of resident memory of a process of its own for each side."""

    what: str
    megabytes: dict[str, float]
    """Side -> peak less what was resident before the network was built."""
    ratio: float
    """Ours over the other's."""
    goal: float


def inference(network: torch.nn.Module, inputs: Tensors, low: bool) -> Callable[[], Tensors]:
    def call() -> Tensors:
        network.eval()
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=low):
            return network(*inputs)

    return call


def training(network: torch.nn.Module, inputs: Tensors, low: bool) -> Callable[[], Tensors]:
    """Forward and backward of the pseudocode's loss against zeros."""

    def call() -> Tensors:
        network.train().zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=low):
            upper, surface = network(*inputs)
        (upper.float().abs().mean() + 0.25 * surface.float().abs().mean()).backward()
        return upper.detach(), surface.detach()

    return call


KINDS = {"inference": inference, "forward and backward": training}


def gradients(ours: Pangu, other: Straightforward) -> float:
    """Largest difference of a gradient, relative to the largest entry of its tensor."""
    want = {name: p.grad for name, p in other.named_parameters()}
    got = PSEUDOCODE.reversed_state({name: p.grad for name, p in ours.named_parameters()}, want)
    floor = 1e-9 * max(float(grad.abs().max()) for grad in want.values())
    return max(float((got[n] - w).abs().max() / (w.abs().max() + floor)) for n, w in want.items())


def assert_equal() -> dict[str, float]:
    """Largest differences: outputs within 2e-5 in float32, gradients within 1e-8 in float64."""
    worst = {}
    for case in (CASES["full"], CASES["small"]):
        ours, inputs = case.ours(), case.inputs()
        other = case.straightforward(ours)
        for kind, make in KINDS.items():
            want, got = make(other, inputs, False)(), make(ours, inputs, False)()
            far = max(float((a - b).abs().max()) for a, b in zip(want, got, strict=True))
            worst[f"{case.name}, {kind}, output"] = far
            assert far < 2e-5, (case.name, kind, far)
    for case in (CASES["quarter"], CASES["small"]):
        ours, inputs = case.ours().double(), tuple(x.double() for x in case.inputs())
        other = case.straightforward(ours).double()
        for network in (other, ours):
            training(network, inputs, False)()
        worst[f"{case.name}, gradients (relative, float64)"] = far = gradients(ours, other)
        assert far < 1e-8, (case.name, far)
    return worst


def seconds(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def compare(
    what: str, sides: Sides, rounds: int, goal: float | None, dtype: torch.dtype
) -> dict[str, Any]:
    """Time the sides in turns; the ratio, quartiles of runs next to each other, is to be `goal`."""
    for side in sides.values():
        side()
    times: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(rounds):
        for name in SIDES if number % 2 else SIDES[::-1]:  # neither is always second
            times[name].append(seconds(sides[name]))
    ratio = [a / b for a, b in zip(*(times[name] for name in SIDES), strict=True)]
    print(f"{what}: {statistics.median(ratio):.2f}", file=sys.stderr)
    return {
        "what": what,
        "seconds": {name: quartiles(seen) for name, seen in times.items()},
        "ratio": {SIDES[0]: [round(q, 3) for q in quartiles(ratio)]},
        "rounds": rounds,
        "goal": goal,
        **rates.unavoidable(sides.values(), statistics.median(times["ours"]), dtype),
    }


def best(function: Callable[[], object]) -> float:
    return min(seconds(function) for _ in range(20))


def masked_product() -> float:
    """How many times longer a product takes if half its factors are exp(-100), as under a mask."""
    plain, values = torch.rand(6, 144, 144), torch.randn(6, 144, 32)
    masked = plain.masked_fill(torch.rand_like(plain) < 0.5, float(np.exp(np.float32(-100))))
    first, second = (best(lambda p=p: torch.bmm(p, values)) for p in (plain, masked))
    return round(second / first, 1)


def libraries() -> dict[str, dict[str, float]]:
    """GFLOP/s of products of the paper's coarse MLP (2,496 tokens, 384 to 1,536), fp32."""
    x, weight, shift = torch.randn(2496, 384), torch.randn(1536, 384), torch.randn(1536)
    grad = torch.randn(2496, 1536)
    onednn = torch.ops.mkldnn._linear_pointwise
    ways = {
        "output": (lambda: torch.addmm(shift, x, weight.T), (x, weight, shift)),
        "gradient of the input": (lambda: grad @ weight, (grad, weight.T, None)),
        "gradient of the weight": (lambda: grad.T @ x, (grad.T, x.T, None)),
    }
    flop = 2e-9 * x.numel() * len(weight)
    return {
        what: {
            "torch's (MKL)": round(flop / best(usual), 1),
            "oneDNN": round(flop / best(lambda a=args: onednn(*a, "none", [], "")), 1),
        }
        for what, (usual, args) in ways.items()
    }


def kernels() -> dict[str, dict[str, float]]:
    """Milliseconds of torch's attention on a chunk of windows, by type of its inputs."""
    found = {}
    for what, (windows, heads, tokens, width) in {
        "paper's (8 windows, 6 heads, 144 tokens, 32 wide)": (8, 6, 144, 32),
        "small (32 windows, 4 heads, 64 tokens, 16 wide)": (32, 4, 64, 16),
    }.items():
        qkv, bias = (
            torch.randn(3, windows, heads, tokens, width),
            torch.randn(heads, tokens, tokens),
        )
        sides = {"fp32": qkv, "bf16": qkv.bfloat16()}
        found[what] = {
            name: round(1e3 * best(lambda x=x, b=bias: attention._attention(*x, b)), 2)
            for name, x in sides.items()
        }
    return found


def resident(field: str) -> float:
    """Megabytes resident now (VmRSS) or at most so far (VmHWM).

    Not getrusage: its maximum outlives exec, so that a child has that of the process it came from.
    """
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(x.split()[1]) for x in lines if x.startswith(f"{field}:")) * 1024 / 1e6


def peak_of_this_process(case: Case, kind: str, side: str, low: bool) -> float:
    """Megabytes that a side needs in this process, which must have done nothing else."""
    for one in (replace(CASES["small"], batch=1), case):  # the first loads torch's code
        before = resident("VmRSS")
        network = one.ours() if side == "ours" else one.straightforward(None)
        call = KINDS[kind](network, one.inputs(), low)
        for _ in range(2):  # the second has the gradients of the first to drop
            call()
    return resident("VmHWM") - before


def peaks(key: str, kind: str, low: bool, threads: int) -> Memory:
    """Peak memory of both sides, each in a process of its own."""
    found = {}
    for side in SIDES:
        words = ["--threads", str(threads), "--peak", key, kind, side, str(int(low))]
        run = [sys.executable, __file__, *words]
        out = subprocess.run(run, capture_output=True, text=True, check=True).stdout
        found[side] = round(float(out), 1)
    what = f"{CASES[key].name}, {kind}, {'bf16' if low else 'fp32'}"
    ratio = round(found["ours"] / found[SIDES[0]], 3)
    print(f"{what}: {ratio} of the memory", file=sys.stderr)
    return Memory(what, found, ratio, MEMORY_GOAL)


def goal_text(met: bool, goal: float) -> str:
    return f"{goal:g}: {'met' if met else '**not met**'}"


def page(result: dict) -> str:
    lines = [
        "# Pangu-Weather: ours against the straightforward computation",
        "",
        f"{rates.setting(result)} "
        "Paper's network: 13 levels, width 192, 2 + 6 + 6 + 2 blocks, windows of 2 x 6 x 12, "
        "patches of 2 x 4 x 4, batch 1. Small recipe's: 5 levels, width 64, 2 + 2 + 2 + 2 blocks, "
        "windows of 2 x 4 x 8, patches of 2 x 2 x 2, batch 8. bf16: both sides under autocast. "
        "Times: median (quartiles) of wall-clock; ratio: median over rounds of runs next to each "
        f"other. {rates.MEANS}",
        "",
        "| | side | time | over ours (quartiles) | goal | unavoidable |",
        "|---|---|---|---|---|---|",
    ]
    for row in result["timings"]:
        low, middle, high = row["ratio"][SIDES[0]]
        goal = goal_text(middle >= row["goal"], row["goal"]) if row["goal"] else ""
        for name, seen in row["seconds"].items():
            a, b, c = (1e3 * v for v in seen)
            first = name == SIDES[0]
            over = f"**{middle:.2f}** ({low:.2f}-{high:.2f})" if first else ""
            lines.append(
                f"| {row['what'] if first else ''} | {name} | {b:.0f} ms ({a:.0f}-{c:.0f}) "
                f"| {over} | {goal if first else ''} | {'' if first else rates.share(row)} |"
            )
    lines += [
        "",
        "Peak memory, each side in a process of its own: the kernel's maximum of resident",
    ]
    lines[-1] += " memory, less what was resident before the network was built."
    lines += ["", "| | straightforward | ours | ours over it | goal |", "|---|---|---|---|---|"]
    for row in result["memory"]:
        other, own = (f"{row['megabytes'][name]:.0f} MB" for name in SIDES)
        met = goal_text(row["ratio"] <= row["goal"], row["goal"])
        lines.append(f"| {row['what']} | {other} | {own} | **{row['ratio']:.2f}** | {met} |")
    lines += ["", "Largest differences before timing: "]
    lines[-1] += "; ".join(f"{name} {value:.1e}" for name, value in result["differences"].items())
    lines += ["", *findings(result)]
    for what, rows in result["profile"].items():
        lines += ["", f"Where the time goes, {what}:", ""]
        lines += ["| operator | share | time | calls |", "|---|---|---|---|"]
        lines += [
            f"| `{r['operator']}` | {r['share']:.1%} | {r['milliseconds']:.0f} ms | {r['calls']} |"
            for r in rows
        ]
    return "\n".join(lines) + "\n"


def low_precision(timings: list[dict]) -> list[str]:
    """Our time in bf16 as a share of that in fp32, by medians."""
    middle = {row["what"]: row["seconds"]["ours"][1] for row in timings}
    names = [what.removesuffix(", bf16") for what in middle if what.endswith(", bf16")]
    return [f"{middle[n + ', bf16'] / middle[n + ', fp32']:.2f} of the time ({n})" for n in names]


def kinds(result: dict) -> list[str]:
    """Time in products and elsewhere on every kind of CPU whose result is kept."""
    kept = {f.stem.removeprefix("pangu."): f for f in sorted(RESULTS.glob("pangu.*.json"))}
    found = {kind: json.loads(file.read_text()) for kind, file in kept.items()}
    rows = []
    for kind, one in (found | {result["kind"]: result}).items():
        middle = {row["what"]: row["seconds"] for row in one["timings"]}
        for what, seen in one["profile"].items():
            case, side = what.rsplit(", ", 1)
            products = sum(r["milliseconds"] for r in seen if r["operator"] in rates.KERNELS)
            whole = 1e3 * middle[case][side][1]
            rows.append([case, kind, side, f"{products:.0f} ms", f"{whole - products:.0f} ms"])
    rows.sort(key=lambda row: row[0])
    return md_table(["", "CPU", "side", "products", "the rest"], rows, words=3)


def findings(result: dict) -> list[str]:
    """What makes the difference; the numbers are of this run, or of the files kept."""
    used = "oneDNN" if tokenwise.ONEDNN else "torch's"
    rate_rows = [[what, *(f"{v:.0f}" for v in row.values())] for what, row in
                 result["libraries"].items()]  # fmt: skip
    kernel_rows = [[what, *(f"{v:.2f} ms" for v in row.values())] for what, row in
                   result["kernels"].items()]  # fmt: skip
    return [
        "What we do otherwise: tokens are put in the order of windows, padding left out, so that "
        "no window is copied; attention is torch's fused kernel, and in the backward pass matrices "
        "of a chunk of windows that stay in a core's cache; the bias is expanded for one type of "
        "window at a time, and its gradient added up there; queries that are padding are left "
        "out; the rest of a block (projection, norms, MLP) goes over a part of the tokens at a "
        "time, which saves memory rather than time.",
        "",
        "Both sides need the products with weights; what we save is mostly the rest. So the ratio "
        "is larger on a CPU whose products are fast:",
        "",
        *kinds(result),
        "",
        "Under the shift mask, probabilities are exp(-100), which is no normal number of float32: "
        f"a product with half of them takes {result['masked_product']:g} times as long on this "
        "CPU. The straightforward computation has them in every shifted block; ours are zero.",
        "",
        "torch multiplies float32 with MKL, which on AMD's CPUs does not use its kernels for "
        "AVX-512. GFLOP/s of the products of the paper's coarse MLP:",
        "",
        *md_table(["", *next(iter(result["libraries"].values()))], rate_rows, words=1),
        "",
        f"Ours takes {used} for outputs and gradients of inputs (oneDNN on AMD's with AVX-512), "
        "and torch's for gradients of weights, which oneDNN has to transpose. Attention's kernel, "
        "a chunk of windows:",
        "",
        *md_table(["", *next(iter(result["kernels"].values()))], kernel_rows, words=1),
        "",
        "Under bf16 ours calls it "
        + ("with bf16: this CPU has tiles (AMX)." if attention.TILES else
           "with float32, since this CPU has no tiles (AMX)."),
        "",
        *TRIED,
        "",
        *(["With bf16 ours takes " + "; ".join(low_precision(result["timings"])) + "."]
          if rates.BF16 else []),
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--peak", nargs=4, help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.peak:
        key, kind, side, low = args.peak
        print(peak_of_this_process(CASES[key], kind, side, low == "1"))
        return
    before = rates.machine()  # its load is that before the run
    differences = assert_equal()
    timings, profiles = [], {}
    for key in ("full", "small"):
        case, inputs = CASES[key], CASES[key].inputs()
        ours = case.ours()
        networks = dict(zip(SIDES, (case.straightforward(ours), ours), strict=True))
        for low in rates.KINDS.values():
            for kind, make in KINDS.items():
                what = f"{case.name}, {kind}, {'bf16' if low else 'fp32'}"
                sides = {name: make(network, inputs, low) for name, network in networks.items()}
                goal = GOALS[kind] if key == "full" and not low else None
                dtype = torch.bfloat16 if low else torch.float32
                timings.append(compare(what, sides, args.rounds, goal, dtype))
                if goal or (key == "small" and kind != "inference"):
                    for name, side in sides.items():
                        profiles[f"{what}, {name}"] = rates.operators(side, 8)
    memory = [
        peaks("full", kind, low, args.threads) for low in rates.KINDS.values() for kind in KINDS
    ]
    result = {
        "system": "pangu",
        **before,
        "command": f"python benchmarks/pangu.py --threads {args.threads} --rounds {args.rounds}",
        "config": {key: asdict(CASES[key]) for key in ("full", "small")},
        "differences": differences,
        "masked_product": masked_product(),
        "libraries": libraries(),
        "kernels": kernels(),
        "timings": timings,
        "memory": [asdict(one) for one in memory],
        "profile": profiles,
    }
    rates.write("pangu", result, page(result), args.out)


if __name__ == "__main__":
    main()
