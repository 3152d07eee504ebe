"""Masks of CondInst: our factored networks against a grouped convolution over copied features.

Both sides make the same masks at stride 4 from features at stride 8, with three layers of 1 x 1
convolutions for each object; the grouped convolution is how official code computes them
(AdelaiDet, dynamic_mask_head.py). Results and gradients are compared first. The enlargement to
stride 4 is in all times.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import rates
import torch
import torch.nn.functional as F
from rates import quartiles
from torch import Tensor

from tenfold.nn.dynamic_masks import DynamicHead, dynamic_masks
from tenfold.report.claim import md_table

HEAD = DynamicHead()
CASES = {
    "100 objects, 800 x 1344": (100, 1, 100, 168),
    "100 objects, 256 x 256": (100, 1, 32, 32),
    "500 masks of 16 pictures, 256 x 256": (500, 16, 32, 32),
}
"""Masks, pictures, rows and columns of the features."""
Work = Callable[..., Any]


def grouped(
    features: Tensor, numbers: Tensor, centres: Tensor, levels: Tensor, image: Tensor,
    head: DynamicHead = HEAD,
) -> Tensor:  # fmt: skip
    """The official order of operations."""
    height, width = features.shape[2:]
    y, x = (torch.arange(n) * head.stride + head.stride // 2 for n in (height, width))
    cells = torch.stack(torch.meshgrid(x, y, indexing="xy")).float()
    extent = torch.tensor(head.extents, dtype=torch.float32)[levels]
    relative = (centres[:, :, None, None] - cells) / extent[:, None, None, None]
    found = torch.cat([relative, features[image]], 1).reshape(1, -1, height, width)
    weights, biases = head.split(numbers)
    for layer, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        kernel = weight.reshape(-1, weight.shape[2], 1, 1)
        found = F.conv2d(found if layer == 0 else F.relu(found), kernel, bias.reshape(-1),
                         groups=len(numbers))  # fmt: skip
    return enlarged(found.reshape(len(numbers), 1, height, width))[:, 0]


def enlarged(masks: Tensor) -> Tensor:
    """To twice the size, in the official order of operations (adet/utils/comm.py)."""
    height, width = masks.shape[2:]
    found = F.pad(masks, (0, 1, 0, 1), mode="replicate")
    size = (2 * height + 1, 2 * width + 1)
    found = F.interpolate(found, size, mode="bilinear", align_corners=True)
    return F.pad(found, (1, 0, 1, 0), mode="replicate")[..., : 2 * height, : 2 * width]


def inputs(masks: int, pictures: int, rows: int, columns: int) -> tuple[Tensor, ...]:
    draw = torch.Generator().manual_seed(0)
    features = torch.randn(pictures, HEAD.features, rows, columns, generator=draw)
    numbers = 0.3 * torch.randn(masks, HEAD.numbers, generator=draw)
    centres = torch.rand(masks, 2, generator=draw) * torch.tensor([8.0 * columns, 8.0 * rows])
    levels = torch.randint(len(HEAD.extents), (masks,), generator=draw)
    return features, numbers, centres, levels, torch.arange(masks) * pictures // masks


def trained(work: Work) -> Work:
    """Masks and the gradients of their squares."""

    def run(features: Tensor, numbers: Tensor, *where: Tensor) -> tuple[Tensor, ...]:
        parts = [features.clone().requires_grad_(), numbers.clone().requires_grad_()]
        masks = work(*parts, *where)
        return masks, *torch.autograd.grad(masks.square().sum(), parts)

    return run


def inferred(work: Work) -> Work:
    def run(*given: Tensor) -> tuple[Tensor]:
        with torch.no_grad():
            return (work(*given),)

    return run


def measure(rounds: int) -> list[dict[str, Any]]:
    """Processor time of both sides in turns, their ratio, and how far apart the results are."""
    found = []
    for case, sizes in CASES.items():
        given = inputs(*sizes)
        for what, wrap in (("inference", inferred), ("training", trained)):
            sides = {"grouped": wrap(grouped), "ours": wrap(dynamic_masks)}
            results = {name: work(*given) for name, work in sides.items()}
            apart = [
                ((a - b).abs().median() / b.abs().max()).item()
                for a, b in zip(results["ours"], results["grouped"], strict=True)
            ]
            largest = (results["ours"][0] - results["grouped"][0]).abs().max().item()
            assert largest < 1e-4 and max(apart) < 1e-6, (largest, apart)
            seconds: dict[str, list[float]] = {name: [] for name in sides}
            for _ in range(rounds):
                for name, work in sides.items():
                    start = time.process_time()
                    work(*given)
                    seconds[name].append(time.process_time() - start)
            ratios = [a / b for a, b in zip(seconds["grouped"], seconds["ours"], strict=True)]
            found.append({
                "what": f"{case}, {what}",
                "seconds": {name: quartiles(each) for name, each in seconds.items()},
                "ratio": quartiles(ratios),
                **rates.unavoidable(
                    [partial(work, *given) for work in sides.values()],
                    statistics.median(seconds["ours"]),
                    clock=time.process_time,
                ),
                "largest difference of a mask": float(f"{largest:.1e}"),
                "largest mask": round(results["grouped"][0].abs().max().item(), 1),
            })  # fmt: skip
    return found


def page(found: list[dict[str, Any]]) -> list[str]:
    rows = []
    for one in found:
        times = [f"{1000 * statistics.median(each):.1f} ms" for each in one["seconds"].values()]
        low, middle, high = one["ratio"]
        apart = f"{one['largest difference of a mask']:.0e} of {one['largest mask']}"
        ratio = f"**{middle:.2f}** ({low:.2f}-{high:.2f})"
        rows.append([one["what"], *times, ratio, rates.share(one), apart])
    heads = ["masks", "grouped convolution", "ours", "ratio", "unavoidable", "logits differ by"]
    return [
        "Masks: a network of 169 numbers for each, over features at stride 8, enlarged to stride "
        "4. Training: forward and backward. Processor time, medians; ratio: median (quartiles) of "
        f"rounds next to each other. {rates.MEANS}",
        "",
        *md_table(heads, rows, words=1),
        "",
    ]
