"""Type-I requests of ViRReq against the straightforward computation in the official order.

python benchmarks/virreq.py             # writes benchmarks/results/virreq.KIND.json and .md

One process, one thread. A training step: MiT-B0 with the official head on crops of 256 x 256, with
the names, losses and weights of Cityscapes Panoptic Parts (28 names) and of ADE20K (233, parts by
instance), and a MiT of 0.4 million parameters at the crops and batch of clothes at small scale.
Both sides have the same weights, images, labels and draws; their losses are found equal at every
step that is timed. Texts are encoded once on both sides, although the official code does it at
every step: that would be most of its time on a CPU. A profile says how much of our time goes into
matrix products and convolutions, which both sides need; how much the leaner side's would take at
the rate of one large product stands beside it (rates.py). A request: some names inside a unit of a
picture of 256 x 256, with what is kept of the picture. Times are wall-clock; run it on an idle
machine.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parent))
import rates  # noqa: E402
import straightforward_virreq as plainly  # noqa: E402
from rates import RESULTS, machine, products, quartiles  # noqa: E402

from tenfold.core.allocator import keep_freed_memory  # noqa: E402
from tenfold.nn.mit import MitSize  # noqa: E402
from tenfold.report.claim import md_table  # noqa: E402
from tenfold.systems.dts.config import Model  # noqa: E402
from tenfold.systems.virreq.loss import present_parts, request_loss  # noqa: E402
from tenfold.systems.virreq.segmentation import Network, TextClassifier, mix_transformer  # noqa: E402
from tenfold.systems.virreq.table import TextTable  # noqa: E402

COMPARES = "in one process, same weights, images, labels and draws; losses equal at every step"
DIM = 512
REQUESTS = 50
Step = Callable[[], list[float]]


@dataclass(frozen=True)
class Case:
    """A network, its names, and a batch."""

    model: Model
    channels: int
    names: tuple[int, int]
    """Of wholes and of parts."""
    others: tuple[float, float]
    share: float
    """Weight of the parts' loss."""
    by_instance: bool
    crop: tuple[int, int]
    batch: int


B0 = Model(dims=(32, 64, 160, 256), depths=(2, 2, 2, 2), head="segformer")
TINY = Model(dims=(16, 32, 80, 128), depths=(1, 1, 1, 1), head="segformer")
CASES = {
    "B0, 28 names (CPP)": Case(B0, 256, (19, 9), (0.01, 0.01), 3.0, False, (256, 256), 2),
    "B0, 233 names (ADE20K)": Case(B0, 256, (150, 83), (0.1, 1e-4), 1.0, True, (256, 256), 2),
    "0.4 M, 40 names (clothes)": Case(TINY, 64, (8, 32), (0.01, 0.01), 3.0, False, (192, 128), 8),
}


def networks(case: Case) -> tuple[Network, plainly.PlainNetwork, torch.Tensor]:
    """Ours and the plain one, of the same weights, and the vectors of their names."""
    torch.manual_seed(0)
    names = [f"name {i}" for i in range(sum(case.names))]
    table, model = TextTable(names, DIM, "drawn"), case.model
    table.fill(torch.randn(len(names), DIM))
    sizes = MitSize(model.dims, model.heads, model.depths, model.reductions)
    ours = Network(mix_transformer(sizes), case.channels, TextClassifier(case.channels, DIM), table)
    plain = plainly.PlainNetwork(model, case.channels, DIM)
    state = {k: v for k, v in ours.state_dict().items() if not k.startswith("texts.")}
    plain.load_state_dict(state)
    return ours, plain, table.vectors


def inputs(case: Case) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Noise; labels in squares, half of the parts without one; instances in larger squares."""
    draw = torch.Generator().manual_seed(1)
    height, width = case.crop

    def squares(side: int, high: int, none: float) -> torch.Tensor:
        coarse = (case.batch, height // side, width // side)
        labels = torch.randint(high, coarse, generator=draw)
        labels[torch.rand(coarse, generator=draw) < none] = 255
        return labels.repeat_interleave(side, 1).repeat_interleave(side, 2).byte()

    images = torch.randn(case.batch, 3, height, width, generator=draw)
    semantic, parts = squares(32, case.names[0], 0.1), squares(16, case.names[1], 0.5)
    instances = squares(64, 3, 0.5)
    return images, semantic, parts, instances


def steps(case: Case) -> dict[str, Step]:
    """One training step of each side."""
    ours, plain, vectors = networks(case)
    images, semantic, parts, instances = inputs(case)
    count = case.names[0]

    def mine() -> tuple[torch.Tensor, torch.Tensor]:
        logits = ours(images)
        few = present_parts(parts, instances, case.names[1]) if case.by_instance else None
        return (
            request_loss(logits[:, :count], semantic, case.others[0]),
            request_loss(logits[:, count:], parts, case.others[1], allowed=few),
        )

    def theirs() -> tuple[torch.Tensor, torch.Tensor]:
        units = instances if case.by_instance else None
        logits = plain(images, vectors)
        return plainly.losses(logits, semantic, parts, count, case.others, units)

    def step(network: torch.nn.Module, compute: Callable[[], tuple[torch.Tensor, ...]]) -> Step:
        network.train()
        optimiser = torch.optim.AdamW(network.parameters(), 6e-5, weight_decay=0.01)
        index = [0]

        def run() -> list[float]:
            torch.manual_seed(index[0])
            index[0] += 1
            optimiser.zero_grad(set_to_none=True)
            whole, of_parts = compute()
            (whole + case.share * of_parts).backward()
            optimiser.step()
            return [whole.item(), of_parts.item()]

        return run

    return {"straightforward": step(plain, theirs), "ours": step(ours, mine)}


def timing(name: str, rounds: int) -> dict[str, Any]:
    """Both sides in turns; the ratio is of steps next to each other."""
    keep_freed_memory()
    sides = steps(CASES[name])
    seconds: dict[str, list[float]] = {side: [] for side in sides}
    worst = 0.0
    for number in range(rates.WARM + rounds):
        found = {}
        for side, step in sides.items():
            start = time.perf_counter()
            found[side] = step()
            if number >= rates.WARM:
                seconds[side].append(time.perf_counter() - start)
        for one, other in zip(*found.values(), strict=True):
            worst = max(worst, abs(one - other) / max(abs(other), 1e-3))
    assert worst < 1e-4, worst
    share, rate = products(sides["ours"])
    a, b = seconds["straightforward"], seconds["ours"]
    return {
        "what": name,
        "seconds": {"straightforward": quartiles(a), "ours": quartiles(b)},
        "ratio": {"straightforward": quartiles([x / y for x, y in zip(a, b, strict=True)])},
        "share of products": round(share, 3),
        **rates.unavoidable(sides.values(), statistics.median(b)),
        "FLOP/s of products": round(rate),
        "largest difference of a loss": float(f"{worst:.1e}"),
        "where": rates.where(sides["ours"]),
        "rounds": rounds,
    }


def requests(name: str, asked: int, part: float) -> dict[str, Any]:
    """A request for some names inside a unit that has a share of the picture's sides."""
    keep_freed_memory()
    case = CASES[name]
    ours, plain, vectors = networks(case)
    ours.eval(), plain.eval()
    side = 256
    image = torch.randn(3, side, side, generator=torch.Generator().manual_seed(2))
    unit = torch.zeros(side, side, dtype=torch.bool)
    end = round(part * side)
    unit[side - end :, side - end :] = True
    children = list(range(0, len(vectors), max(1, len(vectors) // asked)))[:asked]
    start = time.perf_counter()
    encoded = ours.encode(image)
    encoding = time.perf_counter() - start
    with torch.no_grad():
        fused = plain.decode_head(plain.backbone(image[None]))
    seconds: dict[str, list[float]] = {"straightforward": [], "ours": []}
    for number in range(REQUESTS + 3):
        begin = time.perf_counter()
        found = ours.answer(encoded, vectors[children], unit).labels
        middle = time.perf_counter()
        if number < 8:
            with torch.no_grad():
                want = plainly.request(plain, fused, vectors, (side, side), children, unit)
            if number >= 3:
                seconds["straightforward"].append(time.perf_counter() - middle)
        if number >= 3:
            seconds["ours"].append(middle - begin)
    return {
        "what": f"{name}: {asked} names, {part:.0%} of each side",
        "seconds": {key: quartiles(values) for key, values in seconds.items()},
        "longest": max(seconds["ours"]),
        "encoding": round(encoding, 4),
        "same pixels": round(float((found == want).float().mean()), 5),
    }


def page(result: dict[str, Any]) -> str:
    times, asked = [], []
    for timed in result["timings"]:
        low, middle, high = timed["ratio"]["straightforward"]
        cells = [f"{m:.2f} s ({lo:.2f}-{hi:.2f})" for lo, m, hi in timed["seconds"].values()]
        times.append([timed["what"], *cells, f"**{middle:.2f}** ({low:.2f}-{high:.2f})",
                      f"{timed['share of products']:.0%}",
                      rates.share(timed),
                      f"{timed['FLOP/s of products'] / 1e9:.0f} of "
                      f"{timed[rates.RATE] / 1e9:.0f}",
                      f"{timed['largest difference of a loss']:.0e}"])  # fmt: skip
    for row in result["requests"]:
        cells = [f"{1e3 * m:.1f} ms ({1e3 * lo:.1f}-{1e3 * hi:.1f})"
                 for lo, m, hi in row["seconds"].values()]  # fmt: skip
        asked.append([row["what"], *cells, f"{1e3 * row['longest']:.1f} ms",
                      f"{1e3 * row['encoding']:.0f} ms", f"{row['same pixels']:.2%}"])  # fmt: skip
    heads = ["a training step", "straightforward", "ours", "ratio", "products and convolutions",
             "unavoidable", "GFLOP/s", "losses differ by"]  # fmt: skip
    return "\n".join([
        "# ViRReq: ours against the straightforward computation",
        "",
        f"{rates.setting(result)} B0: 256 x 256, 2 images; "
        "0.4 M: 192 x 128, 8 images; texts encoded beforehand on both sides. Times: median "
        "(quartiles) of wall-clock; ratio: median over rounds of steps next to each other; "
        "products and convolutions: their share of our time, and their rate against that of a "
        f"product of two square matrices. {rates.MEANS} Losses: "
        "the largest relative difference of a part of the loss at any step.",
        "",
        *md_table(heads, times, words=1),
        "",
        *rates.below_goal(result["timings"]),
        "A request on a picture of 256 x 256 pixels with what is kept of it; what is kept is "
        "computed once, in the time of the column before the last:",
        "",
        *md_table(["a request", "straightforward", "ours", "longest", "encoding the picture",
                   "pixels of the same answer"], asked, words=1),
        "",
    ])  # fmt: skip


ASKED = (
    ("B0, 28 names (CPP)", 4, 0.5), ("B0, 28 names (CPP)", 19, 1.0),
    ("B0, 233 names (ADE20K)", 12, 0.5), ("B0, 233 names (ADE20K)", 150, 1.0),
)  # fmt: skip
"""Cases of requests: names that are asked, and the unit's share of the picture's sides."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    before = machine()  # its load is that before the run
    result = {
        "compares": COMPARES,
        "timings": [timing(name, args.rounds) for name in CASES],
        "requests": [requests(*asked) for asked in ASKED],
        **before,
        "command": f"python benchmarks/virreq.py --rounds {args.rounds}",
    }
    rates.write("virreq", result, page(result), args.out)


if __name__ == "__main__":
    main()
