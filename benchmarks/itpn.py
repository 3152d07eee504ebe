"""iTPN-B's pixel pre-training against the straightforward computation of the released code.

python benchmarks/itpn.py                # writes benchmarks/results/itpn.KIND.json and .md

One process, one thread, the published base size at 224 pixels, batch 4. Both sides have the same
weights, pictures and masks; loss and gradients are found equal first. A step is forward, backward
and AdamW: plain (`foreach=False, fused=False`, as on a CPU by default) there, fused here. Each side
runs in float32 and under bf16 autocast. A profile says how much of our time goes into matrix
products, which both sides need: no ratio can be above that of all of plain's time to them; their
rate beside that of one large square product says whether they could be faster; the share of our
time that the leaner side's would take at that rate stands beside it (rates.py). Peak memory is that
of a fresh process that makes two steps, at batch 4, where weights, gradients and AdamW's state are
most of it, and at batch 32. Times are wall-clock; run it on an idle machine.
"""

from __future__ import annotations

import argparse
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parent))
import rates  # noqa: E402
from rates import RESULTS, products, quartiles  # noqa: E402
from straightforward_itpn import PlainPretraining  # noqa: E402

from tenfold.nn.hivit import Shape  # noqa: E402
from tenfold.report.markdown import md_table  # noqa: E402
from tenfold.systems.itpn.model import PixelPretraining  # noqa: E402
from tenfold.systems.itpn.official import official_keys  # noqa: E402

BATCH, MANY, SIZE = 4, 32, 224
BASE = Shape(fpn_dim=256, fpn_depth=2)
COMPARES = (
    "in one process, same weights, pictures and masks, equal loss and gradients; float32 against "
    "float32 and bf16 autocast against bf16 autocast"
)


def ours() -> PixelPretraining:
    torch.manual_seed(0)
    return PixelPretraining(BASE, mask_ratio=0.75, dim=512, depth=8, heads=16)


def plain(weights: PixelPretraining) -> PlainPretraining:
    network = PlainPretraining()
    state = weights.state_dict()
    network.load_state_dict({key: state[name] for key, name in official_keys(weights).items()})
    return network


def inputs(batch: int = BATCH) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(1)
    images = torch.randn(batch, 3, SIZE, SIZE, generator=draw)
    return images, torch.rand(batch, BASE.units, generator=draw)


def loss_of(network: nn.Module, images: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    if isinstance(network, PlainPretraining):
        return network(images, noise)
    return network({"images": images, "noise": noise})["loss"]


def stepper(network: nn.Module, half: bool, batch: int = BATCH) -> Callable[[], None]:
    is_plain = isinstance(network, PlainPretraining)
    kind = {"foreach": False, "fused": False} if is_plain else {"fused": True}
    optimiser = torch.optim.AdamW(
        network.parameters(), 1e-6, (0.9, 0.95), weight_decay=0.05, **kind
    )
    images, noise = inputs(batch)

    def step() -> None:
        optimiser.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            loss = loss_of(network, images, noise)
        loss.backward()
        optimiser.step()

    return step


def differences() -> dict[str, float]:
    """Loss and gradients in float32, loss in bf16."""
    own = ours()
    other = plain(own)
    losses, images = {}, inputs()
    for name, network in (("ours", own), ("plain", other)):
        loss = loss_of(network, *images)
        loss.backward()
        losses[name] = float(loss.detach())
        if rates.BF16:
            with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
                losses[f"{name}, bf16"] = float(loss_of(network, *images))
    theirs = dict(other.named_parameters())
    parameters, worst = dict(own.named_parameters()), 0.0
    for key, name in official_keys(own).items():
        if name not in parameters:
            continue
        a, b = parameters[name].grad, theirs[key].grad
        assert a is not None and b is not None, key
        worst = max(worst, float((a - b).norm() / b.norm().clamp(min=1e-12)))
    found = {
        "loss, float32 (relative)": abs(losses["ours"] / losses["plain"] - 1),
        "gradients, float32 (relative norm, worst)": worst,
    }
    if rates.BF16:
        found["loss, bf16 (relative)"] = abs(losses["ours, bf16"] / losses["plain, bf16"] - 1)
    assert found["loss, float32 (relative)"] < 1e-5 and worst < 1e-3, found
    return found


def memory(side: str, kind: str, batch: int) -> int:
    """Peak bytes of a fresh process that makes two steps."""
    words = [sys.executable, __file__, "--peak", side, "--kind", kind, "--batch", str(batch)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    return int(done.stdout.split()[-1])


def peak(side: str, kind: str, batch: int) -> None:
    network: nn.Module = ours()
    if side == "plain":
        assert isinstance(network, PixelPretraining)
        network = plain(network)
    step = stepper(network, rates.KINDS[kind], batch)
    step()
    step()
    # Not getrusage's peak: a process inherits that of the one that started it.
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found, "the system does not say how much memory was in use"
    print(1024 * int(found[1]))


def measured(rounds: int) -> list[dict[str, Any]]:
    """Every side in turns; the ratio is of runs next to each other."""
    own = ours()
    sides = {}
    for kind, half in rates.KINDS.items():
        sides[f"plain, {kind}"] = stepper(plain(own), half)
        sides[f"ours, {kind}"] = stepper(own, half)
    for step in sides.values():
        step()
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, step in sides.items():
            start = time.perf_counter()
            step()
            seconds[name].append(time.perf_counter() - start)
    found = []
    for kind, half in rates.KINDS.items():
        share, rate = products(sides[f"ours, {kind}"])
        dtype = torch.bfloat16 if half else torch.float32
        both = (sides[f"plain, {kind}"], sides[f"ours, {kind}"])
        a, b = seconds[f"plain, {kind}"], seconds[f"ours, {kind}"]
        found.append({
            "what": f"a training step of iTPN-B, batch {BATCH}, {kind}",
            "seconds": {"straightforward": quartiles(a), "ours": quartiles(b)},
            "ratio": {"straightforward": quartiles([x / y for x, y in zip(a, b, strict=True)])},
            "share of matrix products": round(share, 3),
            "highest ratio possible": round(quartiles(a)[1] / (quartiles(b)[1] * share), 2),
            "FLOP/s of matrix products": round(rate),
            **rates.unavoidable(both, statistics.median(b), dtype),
            "where": rates.where(sides[f"ours, {kind}"]),
            "rounds": rounds,
        })  # fmt: skip
    return found


def page(result: dict[str, Any]) -> str:
    times, peaks = [], []
    for timing in result["timings"]:
        low, middle, high = timing["ratio"]["straightforward"]
        sides = timing["seconds"]
        cells = [f"{m:.2f} s ({lo:.2f}-{hi:.2f})" for lo, m, hi in sides.values()]
        times.append([timing["what"], *cells, f"**{middle:.2f}** ({low:.2f}-{high:.2f})",
                      f"{timing['share of matrix products']:.0%}",
                      f"{timing['highest ratio possible']:.2f}",
                      f"{timing['FLOP/s of matrix products'] / 1e9:.0f} of "
                      f"{timing[rates.RATE] / 1e9:.0f}", rates.share(timing)])  # fmt: skip
    for what, found in result["peak bytes"].items():
        a, b = found["plain"], found["ours"]
        peaks.append([what, f"{a / 2**30:.2f} GiB", f"{b / 2**30:.2f} GiB", f"**{b / a:.2f}**"])
    heads = ["", "straightforward", "ours", "ratio", "matrix products", "ratio without all else",
             "GFLOP/s of the products", "unavoidable"]  # fmt: skip
    return "\n".join([
        "# iTPN: ours against the straightforward computation",
        "",
        f"{rates.setting(result)} Times: median (quartiles) of wall-clock; ratio: "
        "median over rounds of runs next to each other; matrix products: their share of our time, "
        "the ratio if ours needed no time for anything else, and their rate against that of a "
        f"product of two square matrices. {rates.MEANS}",
        "",
        *md_table(heads, times, words=1),
        "",
        *rates.below_goal(result["timings"]),
        *md_table(["peak memory", "straightforward", "ours", "ours / it"], peaks, words=1),
        "",
        "Differences before timing: "
        + ", ".join(f"{k} {v:.1e}" for k, v in result["differences"].items()) + ".",
        "",
    ])  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--peak", choices=("plain", "ours"))
    parser.add_argument("--kind", choices=tuple(rates.KINDS), default="float32")
    parser.add_argument("--batch", type=int, default=BATCH)
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.peak:
        peak(args.peak, args.kind, args.batch)
        return
    before = rates.machine()  # its load is that before the run
    result = {
        "compares": COMPARES,
        "differences": differences(),
        "peak bytes": {
            f"batch {batch}, {kind}": {s: memory(s, kind, batch) for s in ("plain", "ours")}
            for batch in (BATCH, MANY)
            for kind in rates.KINDS
        },
        "timings": measured(args.rounds),
        **before,
        "command": f"python benchmarks/itpn.py --rounds {args.rounds}",
    }
    rates.write("itpn", result, page(result), args.out)


if __name__ == "__main__":
    main()
