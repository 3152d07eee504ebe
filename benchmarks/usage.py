"""USAGE's activation maps of several scales and flips against the straightforward loop.

python benchmarks/usage.py               # writes benchmarks/results/usage.KIND.json and .md

One process, one thread, pictures of several sizes with two classes of 20 each. The loop takes one
picture, scale and flip at a time, in float32; ours takes both flips at once, with folded norms and
channels last, in float32 and in bfloat16. Both have the same weights (random, with norms that do
something), and their maps in [0, 1] are compared first. A profile says how much of our time goes
into convolutions and matrix products, which both sides need, and their rate beside that of one
large square product says whether they could be faster; the share of our time that the leaner side's
would take at that rate stands beside it (rates.py). Times are wall-clock; run it on an idle
machine. The dense CRF's part is `usage_crf.py`.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parent))
import rates  # noqa: E402
from rates import RESULTS, machine, products, quartiles  # noqa: E402
from straightforward_usage import plain_maps  # noqa: E402

from tenfold.report.claim import md_table  # noqa: E402
from tenfold.systems.usage import seeds  # noqa: E402
from tenfold.systems.usage.backbones import Model  # noqa: E402
from tenfold.systems.usage.networks import (  # noqa: E402
    Precision,
    SeedNetwork,
    build,
    for_inference,
)

CLASSES = 20
PRECISIONS: tuple[Precision, ...] = ("float32", "bfloat16") if rates.BF16 else ("float32",)
SCALES = (1.0, 0.5, 1.5, 2.0)
CASES: dict[str, tuple[Model, seeds.Rule, tuple[float, ...], tuple[tuple[int, int], ...]]] = {
    "ResNet-50 (IRN)": (Model("resnet50", dilate=False), "psa", SCALES, ((192, 256),)),
    "ResNet-38 (PSA, SEAM)": (Model("resnet38"), "psa", (1.0, 0.5), ((96, 128),)),
    "EfficientNet-Lite0": (
        Model("efficientnet-lite0"), "psa", SCALES, ((192, 256), (256, 192)),
    ),
    "MCTformer-V2, DeiT-S": (
        Model("mctformer"), "mctformer", (1.0, 0.75, 1.25), ((224, 304), (304, 224)),
    ),
    "ResNet-18 of 16 channels": (
        Model("resnet18", width=16), "psa", SCALES, ((96, 96), (96, 128), (128, 96)),
    ),
}  # fmt: skip


def network_of(model: Model) -> SeedNetwork:
    """Random weights, and norms that do something."""
    torch.manual_seed(0)
    network = build(model, CLASSES).eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None and module.running_var is not None
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    return network


def folder(sizes: tuple[tuple[int, int], ...]) -> tuple[list[Tensor], Tensor]:
    """Pictures, and the labels that all have."""
    draw = torch.Generator().manual_seed(1)
    labels = torch.zeros(CLASSES, dtype=torch.bool)
    labels[[3, 11]] = True
    return [torch.randn(3, *size, generator=draw) for size in sizes], labels


def sides(
    model: Model, rule: seeds.Rule, scales: tuple[float, ...], sizes: tuple[tuple[int, int], ...]
) -> dict[str, Callable[[], list[Tensor]]]:
    """All ways to compute the maps of a folder."""
    network, (images, labels) = network_of(model), folder(sizes)
    found = {"loop": lambda: [plain_maps(network, image, labels, scales) for image in images]}
    for precision in PRECISIONS:
        fast = for_inference(network, precision)

        def ours(fast: SeedNetwork = fast) -> list[Tensor]:
            return [
                seeds.activation_maps(fast, image, labels, scales, True, rule) for image in images
            ]

        found[precision] = ours
    return found


def measured(name: str, rounds: int) -> list[dict[str, Any]]:
    """A network's ways in turns; the ratio is of runs next to each other."""
    ways = sides(*CASES[name])
    maps = {way: torch.cat([x.flatten() for x in run()]) for way, run in ways.items()}
    apart = {way: (x - maps["loop"]).abs() for way, x in maps.items()}
    assert apart["float32"].max() < 2e-3, f"{name}: maps are {apart['float32'].max()} apart"
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(rounds):
        for way, run in ways.items():
            start = time.perf_counter()
            run()
            seconds[way].append(time.perf_counter() - start)
    found = []
    for precision in PRECISIONS:
        share, rate = products(ways[precision])
        a, b = seconds["loop"], seconds[precision]
        _, _, scales, sizes = CASES[name]
        found.append({
            "what": f"{name}, {precision}",
            "pictures": [list(size) for size in sizes], "scales": list(scales), "flips": True,
            "seconds": {"straightforward": quartiles(a), "ours": quartiles(b)},
            "ratio": {"straightforward": quartiles([x / y for x, y in zip(a, b, strict=True)])},
            "largest difference of maps in [0, 1]": float(apart[precision].max()),
            "mean difference of maps in [0, 1]": float(apart[precision].mean()),
            "share of products": round(share, 3),
            "FLOP/s of products": round(rate),
            **rates.unavoidable(
                (ways["loop"], ways[precision]), statistics.median(b), getattr(torch, precision)
            ),
            "where": rates.where(ways[precision]),
            "rounds": rounds,
        })  # fmt: skip
    return found


def page(result: dict[str, Any]) -> str:
    rows = []
    for timing in result["timings"]:
        low, middle, high = timing["ratio"]["straightforward"]
        cells = [f"{m:.2f} s ({lo:.2f}-{hi:.2f})" for lo, m, hi in timing["seconds"].values()]
        done, possible = timing["FLOP/s of products"], timing[rates.RATE]
        rows.append([
            timing["what"], ", ".join("x".join(map(str, size)) for size in timing["pictures"]),
            " ".join(f"{scale:g}" for scale in timing["scales"]), *cells,
            f"**{middle:.2f}** ({low:.2f}-{high:.2f})",
            f"{timing['largest difference of maps in [0, 1]']:.1e} / "
            f"{timing['mean difference of maps in [0, 1]']:.1e}",
            f"{timing['share of products']:.0%}",
            f"{done / 1e9:.0f} of {possible / 1e9:.0f} ({done / possible:.0%})",
            rates.share(timing),
        ])  # fmt: skip
    crf: list[str] = []
    if "crf" in result:
        values = [[name, f"{value:.4g}"] for name, value in result["crf"].items()]
        crf = ["## Dense CRF", "", *md_table(["", "value"], values), ""]
    heads = ["", "pictures", "scales, each with its flip", "straightforward", "ours", "ratio",
             "difference, largest / mean", "products", "GFLOP/s of the products",
             "unavoidable"]  # fmt: skip
    return "\n".join([
        "# USAGE: activation maps against the straightforward loop",
        "",
        f"{rates.setting(result)} Times of all pictures together: median (quartiles) "
        "of wall-clock; ratio: median over rounds of runs next to each other; products: the share "
        "of convolutions and matrix products in our time, and their rate against that of a "
        f"product of two square matrices. {rates.MEANS} The loop is float32 in every row. "
        "Differences are of "
        "random weights; of transformers, whose maps are nearly flat then, stretching them to "
        "[0, 1] enlarges what was rounded.",
        "",
        *md_table(heads, rows, words=3),
        "",
        *rates.below_goal(result["timings"]),
        *crf,
    ])  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", choices=tuple(CASES))
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    before = machine()  # its load is that before the run
    names = [args.only] if args.only else list(CASES)
    result = {
        "timings": [row for name in names for row in measured(name, args.rounds)],
        **before,
        "command": f"python benchmarks/usage.py --rounds {args.rounds}",
    }
    if find_spec("usage_crf") and not args.only:
        result["crf"] = import_module("usage_crf").measure()
    rates.write("usage", result, page(result), args.out)


if __name__ == "__main__":
    main()
