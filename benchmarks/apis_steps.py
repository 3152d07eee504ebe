"""A training step and the detection of APIS against the order of operations of official code.

The detector is the same on both sides. Plain: numbers of masks are computed at every place, masks
by a grouped convolution (apis_masks.py), the pairwise loss over all cells with unfolded logits and
colours (AdelaiDet, condinst.py and dynamic_mask_head.py), and masks that were found are enlarged to
the whole picture. Losses, gradients and detections are compared first.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import apis_masks
import rates
import torch
import torch.nn.functional as F
from rates import quartiles
from torch import Tensor

from tenfold.core.allocator import keep_freed_memory
from tenfold.nn import mask_losses, mask_supervision
from tenfold.nn.condinst import CondInst, Encoded, Queries, Supervision, Targets
from tenfold.nn.fcos import HeadOutputs
from tenfold.report.claim import md_table
from tenfold.systems.apis import inference
from tenfold.systems.apis.config import Config
from tenfold.systems.apis.model import build
from tenfold.systems.apis.recipes import PAPER, SMALL

OBJECTS, POINTS = 4, 6


@dataclass(frozen=True)
class Case:
    """A network, and pictures for it."""

    cfg: Config
    pictures: int
    size: tuple[int, int]


COCO = replace(PAPER, classes=tuple(f"class {i}" for i in range(80)))
CLOTHES = replace(SMALL, classes=("thing",))
TRAINED = {
    "recipe small, 8 of 192 x 128, a training step": Case(CLOTHES, 8, (192, 128)),
    "recipe paper (ResNet-50), 1 of 480 x 640, a training step": Case(COCO, 1, (480, 640)),
}
DETECTED = {
    "recipe small, 192 x 128, detection": Case(CLOTHES, 1, (192, 128)),
    "recipe paper (ResNet-50), 480 x 640, detection": Case(COCO, 1, (480, 640)),
}
Work = Callable[[], list[Tensor]]


class Plain(CondInst):
    """The network in the official order of operations."""

    def masks(self, encoded: Encoded, queries: Queries) -> Tensor:
        """By a grouped convolution over copied features."""
        if not len(queries.image):
            return encoded.features.new_zeros(0, *(2 * n for n in encoded.features.shape[2:]))
        return apis_masks.grouped(
            encoded.features, queries.parameters, queries.centres, queries.levels, queries.image,
            self.settings.mask,
        )  # fmt: skip

    def head(self, encoded: Encoded) -> HeadOutputs:
        """With the numbers of masks at every place."""
        outputs = super().head(encoded)
        return Numbers(**vars(outputs), numbers=outputs.parameters)


@dataclass(frozen=True)
class Numbers(HeadOutputs):
    """Outputs whose numbers of masks are there already."""

    numbers: Tensor = field(kw_only=True)

    def parameters_at(self, image: Tensor, places: Tensor) -> Tensor:
        return self.numbers[image, places]


def unfolded(maps: Tensor) -> Tensor:
    """Values of the eight neighbours: [map, channel, 8, height, width]."""
    count, channels, height, width = maps.shape
    found = F.unfold(maps, 3, dilation=2, padding=2).view(count, channels, 9, height, width)
    return torch.cat([found[:, :, :4], found[:, :, 5:]], 2)


def plain_pairwise(logits: Tensor, edges: Tensor, count: Tensor | None = None) -> Tensor:
    """Disagreement of all neighbours, of which most are then multiplied by 0."""
    x = logits[:, None]
    if not len(x):
        return x.sum()
    on, off = F.logsigmoid(x), F.logsigmoid(-x)
    both_on = on[:, :, None] + unfolded(on)
    both_off = off[:, :, None] + unfolded(off)
    most = torch.maximum(both_on, both_off)
    same = ((both_on - most).exp() + (both_off - most).exp()).log() + most
    assert count is not None
    return -(same[:, 0] * edges).sum() / count.clamp(min=1)


def plain_similarity(images: Tensor, valid: Tensor) -> Tensor:
    """By unfolding colours."""
    with torch.no_grad():
        colours = mask_losses.lab(F.avg_pool2d(images.float(), 4).trunc())
        distance = (colours[:, :, None] - unfolded(colours)).norm(dim=1)
        middle = valid[:, 2::4, 2::4].float()
        return (-distance / 2).exp() * unfolded(middle[:, None])[:, 0]


def given(case: Case) -> tuple[Tensor, list[Targets]]:
    """Noise in soft patches, boxes and points of which half lie on the object."""
    draw = torch.Generator().manual_seed(0)
    height, width = case.size
    coarse = torch.rand(case.pictures, 3, height // 16, width // 16, generator=draw)
    images = 255 * F.interpolate(coarse, case.size, mode="bilinear")
    extent = torch.tensor([width, height])
    targets = []
    for _ in range(case.pictures):
        low = 0.5 * torch.rand(OBJECTS, 2, generator=draw) * extent
        boxes = torch.cat([low, low + 0.4 * extent], 1)
        share = torch.rand(OBJECTS, POINTS, 2, generator=draw)
        points = boxes[:, None, :2] + share * (boxes[:, 2:] - boxes[:, :2])[:, None]
        answers = torch.randint(2, (OBJECTS, POINTS), generator=draw)
        kinds = torch.full((OBJECTS,), int(Supervision.POINTS))
        labels = torch.zeros(OBJECTS, dtype=torch.long)
        targets.append(Targets(boxes, labels, kinds, None, points, answers))
    return images, targets


def networks(case: Case) -> dict[str, CondInst]:
    """Both sides, of the same weights; scores are raised so that as much is found as may be."""
    torch.manual_seed(0)
    ours = build(case.cfg)
    torch.nn.init.normal_(ours.fcos.controller.weight, std=0.05)
    bias = ours.fcos.cls_logits.bias
    assert isinstance(bias, Tensor)
    torch.nn.init.zeros_(bias)
    plain = Plain(len(case.cfg.classes), ours.settings)
    plain.load_state_dict(ours.state_dict())
    return {"straightforward": plain, "ours": ours}


def training(case: Case) -> dict[str, Work]:
    """One step of each side: forward, backward, Adam."""
    images, targets = given(case)

    def side(name: str, network: CondInst) -> Work:
        optimiser = torch.optim.Adam([p for p in network.parameters() if p.requires_grad], 1e-4)
        plain = (plain_pairwise, plain_similarity)
        own = (mask_losses.pairwise_loss, mask_losses.colour_similarity)

        def step() -> list[Tensor]:
            torch.manual_seed(0)  # of the masks that are trained, both draw the same
            parts = plain if name == "straightforward" else own
            mask_supervision.pairwise_loss, mask_supervision.colour_similarity = parts
            optimiser.zero_grad(set_to_none=True)
            losses = network.losses(network.encode(images), targets, 10**6)
            torch.stack(list(losses.values())).sum().backward()
            mask_supervision.pairwise_loss, mask_supervision.colour_similarity = own
            grads = [p.grad.norm() for p in network.parameters() if p.grad is not None]
            optimiser.step()
            return [*(x.detach() for x in losses.values()), torch.stack(grads).norm()]

        return step

    return {name: side(name, network) for name, network in networks(case).items()}


def detection(case: Case) -> dict[str, Work]:
    """A picture through each side: its objects with masks of its size."""
    images, _ = given(case)
    picture = images[0].permute(1, 2, 0).byte().numpy()
    sides = {name: network.eval() for name, network in networks(case).items()}
    data = replace(case.cfg.data, test_side=min(case.size), longest=max(case.size))
    cfg = replace(case.cfg, data=data)

    def plain() -> list[Tensor]:
        with torch.no_grad():
            (found,) = sides["straightforward"].detect(
                sides["straightforward"].encode(images.byte().float())
            )
        return [torch.from_numpy(found.boxes), torch.from_numpy(found.scores)]

    def mine() -> list[Tensor]:
        found = inference.detect(sides["ours"], cfg, picture)
        return [torch.from_numpy(found.boxes), torch.from_numpy(found.scores)]

    return {"straightforward": plain, "ours": mine}


def compared(what: str, sides: dict[str, Work], rounds: int) -> dict[str, Any]:
    """Both sides in turns."""
    keep_freed_memory()
    results = [work() for work in sides.values()]
    apart = max(
        ((a - b).norm() / b.norm().clamp(min=1e-3)).item() for a, b in zip(*results, strict=True)
    )
    assert apart < 1e-4, (what, apart)
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(rates.WARM + rounds):
        for name, work in sides.items():
            start = time.perf_counter()
            work()
            if number >= rates.WARM:
                seconds[name].append(time.perf_counter() - start)
    a, b = seconds.values()
    share, rate = rates.products(sides["ours"])
    return {
        "what": what,
        "seconds": {name: quartiles(each) for name, each in seconds.items()},
        "ratio": quartiles([x / y for x, y in zip(a, b, strict=True)]),
        **rates.unavoidable(sides.values(), statistics.median(b)),
        "share of products": round(share, 3),
        "FLOP/s of products": round(rate),
        "apart": float(f"{apart:.1e}"),
        "where": rates.where(sides["ours"]),
    }


def measure(rounds: int) -> list[dict[str, Any]]:
    """All cases."""
    return [
        *(compared(name, training(case), rounds) for name, case in TRAINED.items()),
        *(compared(name, detection(case), rounds) for name, case in DETECTED.items()),
    ]


def page(found: Sequence[dict[str, Any]]) -> list[str]:
    rows = []
    for one in found:
        times = [f"{1000 * statistics.median(each):.0f} ms" for each in one["seconds"].values()]
        low, middle, high = one["ratio"]
        rows.append([
            one["what"], *times, f"**{middle:.2f}** ({low:.2f}-{high:.2f})", rates.share(one),
            f"{one['share of products']:.0%} at {one['FLOP/s of products'] / 1e9:.0f} GFLOP/s",
            f"{one['apart']:.0e}",
        ])  # fmt: skip
    heads = ["", "straightforward", "ours", "ratio", "unavoidable", "products of our time",
             "results apart (relative)"]  # fmt: skip
    return [
        "Whole steps: the same detector on both sides; straightforward are masks and their losses "
        "in the order of official code. Wall-clock, medians; ratio: median (quartiles) of rounds "
        f"next to each other. {rates.MEANS}",
        "",
        *md_table(heads, rows, words=1),
        "",
        *rates.below_goal(found),
        "The small network's convolutions have 32 to 128 channels and run at 80 % of a large "
        "product's rate or less; a picture alone is too small for oneDNN in torch's eyes, which "
        "takes its own slow kernel for two thirds of the layers. Tried: channels-last features and "
        "weights, 1 to 4 % faster in all four cases, not kept.",
        "",
    ]
