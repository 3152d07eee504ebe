"""FCOS (Tian et al. 2019, arXiv 1904.01355; 2020, arXiv 2006.09214) on a feature pyramid.

A place is a cell of a level; places are in the order (level, row, column).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from .boxes import batched_nms, giou_loss
from .norm import world_mean

ALPHA, GAMMA = 0.25, 2.0
"""Of the focal loss (Lin et al. 2017, arXiv 1708.02002)."""
PRIOR = 0.01
"""Probability of each class before training."""
FAR = math.inf
"""Upper end of the last level's range, and area of no object (official code: 1e8 pixels)."""
SMOOTH = 1.0
"""Added to intersection and union of boxes in units of their level's stride (compute_ious)."""


def locations(
    sizes: Sequence[tuple[int, int]], strides: Sequence[int], device: torch.device | None = None
) -> list[Float[Tensor, "place 2"]]:
    """x and y, in pixels, of the places of each level; sizes are rows and columns."""
    found = []
    for (rows, columns), stride in zip(sizes, strides, strict=True):
        y = torch.arange(rows, device=device, dtype=torch.float32) * stride + stride // 2
        x = torch.arange(columns, device=device, dtype=torch.float32) * stride + stride // 2
        found.append(torch.stack(torch.meshgrid(x, y, indexing="xy"), -1).reshape(-1, 2))
    return found


@dataclass(frozen=True)
class HeadOutputs:
    """Outputs of the head at every place."""

    logits: Float[Tensor, "image place class"]
    """Of each class by itself."""
    distances: Float[Tensor, "image place 4"]
    """To the box's left, top, right and bottom, in strides of the level."""
    centreness: Float[Tensor, "image place"]
    """Logits."""
    locations: Float[Tensor, "place 2"]
    """x and y in pixels."""
    levels: Int64[Tensor, " place"]
    sizes: tuple[tuple[int, int], ...]
    """Rows and columns of each level."""
    strides: tuple[int, ...]
    hidden: tuple[Tensor, ...] = ()
    """Features of each level that boxes, and numbers of masks, are read off."""
    controller: nn.Conv2d | None = None
    """Gives the numbers of the mask that a place stands for (CondInst); made when asked for, so
    outputs are of no use after the network's weights have changed."""

    @property
    def parameters(self) -> Float[Tensor, "image place number"]:
        """Numbers of masks at every place."""
        assert self.controller is not None
        return torch.cat([self.controller(x).float().flatten(2).mT for x in self.hidden], 1)

    def parameters_at(
        self, image: Int64[Tensor, " query"], places: Int64[Tensor, " query"]
    ) -> Float[Tensor, "query number"]:
        """Numbers of masks at some places, the only ones that are computed."""
        assert self.controller is not None
        starts = [0, *accumulate(rows * columns for rows, columns in self.sizes)]
        steps = torch.arange(3, device=places.device)
        found, order = [], []
        for x, start, stop, (_, columns) in zip(
            self.hidden, starts[:-1], starts[1:], self.sizes, strict=True
        ):
            mine = ((places >= start) & (places < stop)).nonzero()[:, 0]
            at = places[mine] - start
            row = (at // columns)[:, None, None] + steps[:, None]
            column = (at % columns)[:, None, None] + steps
            # [query, 3, 3, channel]: what the kernel lies on
            found.append(F.pad(x, (1, 1, 1, 1)).permute(0, 2, 3, 1)[
                image[mine, None, None], row, column
            ])  # fmt: skip
            order.append(mine)
        kernel = self.controller.weight.permute(0, 2, 3, 1).flatten(1)
        numbers = F.linear(torch.cat(found).flatten(1), kernel, self.controller.bias)
        return numbers.float()[torch.cat(order).argsort()]

    @property
    def scores(self) -> Float[Tensor, "image place class"]:
        """Probability of the class times centreness."""
        return self.logits.sigmoid() * self.centreness.sigmoid()[..., None]

    @property
    def boxes(self) -> Float[Tensor, "image place 4"]:
        """x0 y0 x1 y1 in pixels."""
        strides = self.distances.new_tensor(self.strides)[self.levels]
        low, high = (self.distances * strides[:, None]).split(2, -1)
        return torch.cat([self.locations - low, self.locations + high], -1)

    def place(self, level: int, row: int, column: int) -> int:
        """Index of a place."""
        before = sum(rows * columns for rows, columns in self.sizes[:level])
        return before + row * self.sizes[level][1] + column


def tower(channels: int, convs: int, groups: int) -> nn.Sequential:
    """3 x 3 convolutions with group norm."""
    layers: list[nn.Module] = []
    for _ in range(convs):
        layers += [nn.Conv2d(channels, channels, 3, padding=1), nn.GroupNorm(groups, channels)]
        layers.append(nn.ReLU())
    return nn.Sequential(*layers)


class TextClassifier(nn.Module):
    """Logits as products of a place's features with texts of classes (GLIP, arXiv 2112.03857).

    <x, e> / exp(scale) + <t, b> + b0 with t the normalised text and e its projection, as ViRReq's
    code has it (adet/modeling/fcos_by_request/fcos.py); x is not normalised.
    """

    text: Tensor

    def __init__(
        self, channels: int, text: Float[Tensor, "class width"], divisor: float = 0.1
    ) -> None:
        """text: a vector of each class, of any length. divisor: of the normalised vectors."""
        super().__init__()
        self.divisor = divisor
        self.scale = nn.Parameter(torch.zeros(1))
        self.text_bias = nn.Parameter(torch.zeros(text.shape[1]))
        self.bias = nn.Parameter(torch.full((1,), -math.log((1 - PRIOR) / PRIOR)))
        self.project = nn.Linear(text.shape[1], channels)
        self.register_buffer("text", text.detach().clone())

    def forward(
        self, x: Float[Tensor, "image channel height width"]
    ) -> Float[Tensor, "image class height width"]:
        """Logits of the classes whose texts it has now."""
        text = F.normalize(self.text, dim=-1)
        kernel = self.project(text / self.divisor) / self.scale.exp()
        return F.conv2d(x, kernel[..., None, None], text @ self.text_bias + self.bias)


class FCOSHead(nn.Module):
    """Two towers of convolutions, which all levels share, and what is read off them."""

    def __init__(
        self,
        channels: int,
        classes: int,
        strides: Sequence[int],
        convs: int = 4,
        outputs: int = 169,
        groups: int = 32,
        classifier: nn.Module | None = None,
    ) -> None:
        """Build the towers.

        Args:
            channels: Of the levels and of the towers.
            classes: Number of classes of the 3 x 3 convolution; unused with a `classifier`.
            strides: Of the levels, in pixels.
            convs: Convolutions of each tower.
            outputs: Numbers of each place's mask.
            groups: Of the group norms.
            classifier: Maps the features of a tower to logits, in place of a convolution.
        """
        super().__init__()
        self.strides = tuple(strides)
        self.cls_tower = tower(channels, convs, groups)
        self.bbox_tower = tower(channels, convs, groups)
        self.cls_logits = classifier or nn.Conv2d(channels, classes, 3, padding=1)
        self.bbox_pred = nn.Conv2d(channels, 4, 3, padding=1)
        self.ctrness = nn.Conv2d(channels, 1, 3, padding=1)
        self.controller = nn.Conv2d(channels, outputs, 3, padding=1)
        self.scales = nn.ParameterList([torch.ones(1) for _ in strides])
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=0.01)
                assert module.bias is not None
                nn.init.zeros_(module.bias)
        if classifier is None:
            nn.init.constant_(self.cls_logits.bias, -math.log((1 - PRIOR) / PRIOR))  # type: ignore[arg-type]

    def forward(self, levels: Sequence[Tensor]) -> HeadOutputs:
        """Outputs at every place of the levels, finest first, in float32."""
        found: list[list[Tensor]] = [[], [], []]
        hidden = []
        for x, scale in zip(levels, self.scales, strict=True):
            of_class, of_box = self.cls_tower(x), self.bbox_tower(x)
            each = (
                self.cls_logits(of_class), F.relu(self.bbox_pred(of_box) * scale),
                self.ctrness(of_box),
            )  # fmt: skip
            hidden.append(of_box)
            for outputs, value in zip(found, each, strict=True):
                outputs.append(value.float().flatten(2).mT)
        logits, distances, centreness = (torch.cat(parts, 1) for parts in found)
        sizes = tuple((x.shape[2], x.shape[3]) for x in levels)
        places = locations(sizes, self.strides, logits.device)
        number = [torch.full_like(part[:, 0], i).long() for i, part in enumerate(places)]
        return HeadOutputs(
            logits, distances, centreness[..., 0], torch.cat(places), torch.cat(number), sizes,
            self.strides, tuple(hidden), self.controller,
        )  # fmt: skip


@dataclass(frozen=True)
class Assigned:
    """Object of each place of a picture."""

    rows: Int64[Tensor, " place"]
    """Row of the object, -1 for none."""
    distances: Float[Tensor, "place 4"]
    """To the sides of its box, in strides of the level."""


def assign(
    outputs: HeadOutputs,
    bounds: Sequence[int],
    boxes: Float[Tensor, "object 4"],
    centres: Float[Tensor, "object 2"] | None = None,
    masks: Bool[Tensor, "object height width"] | None = None,
    radius: float = 1.5,
) -> Assigned:
    """Give each place of a picture the object that it is to find.

    A place serves objects whose largest distance to a side lies in its level's range; of several,
    the one of the smallest box.

    Args:
        outputs: Of the head, for the places alone.
        bounds: Ends of the levels' ranges of distances in pixels, one fewer than levels.
        boxes: In pixels.
        centres: Where places are within `radius` strides of these (centre sampling, FCOS 2020,
            sec. 3.2); None for those of the boxes.
        masks: Where places are any on the object (mask sampling, ViRReq); not both.
        radius: In strides of the level.
    """
    xy, levels = outputs.locations, outputs.levels
    strides = xy.new_tensor(outputs.strides)[levels]
    if not len(boxes):
        none = torch.full((len(xy),), -1, device=xy.device)
        return Assigned(none, xy.new_zeros(len(xy), 4))
    low, high = boxes[:, :2], boxes[:, 2:]
    distances = torch.cat([xy[:, None] - low, high - xy[:, None]], -1)
    if masks is None:
        centres = (low + high) / 2 if centres is None else centres
        reach = (radius * strides)[:, None, None]
        inside = xy[:, None] > torch.maximum(centres - reach, low)
        inside &= xy[:, None] < torch.minimum(centres + reach, high)
        serves = inside.all(-1)
    else:
        column = xy[:, 0].long().clamp(max=masks.shape[2] - 1)
        row = xy[:, 1].long().clamp(max=masks.shape[1] - 1)
        serves = (distances.amin(-1) > 0) & masks[:, row, column].T
    ends = xy.new_tensor([-1, *bounds, FAR])
    reached = distances.amax(-1)
    serves &= (reached >= ends[levels][:, None]) & (reached <= ends[levels + 1][:, None])
    areas = (high - low).prod(-1)
    best, rows = torch.where(serves, areas, FAR).min(1)
    found = distances.gather(1, rows[:, None, None].expand(-1, 1, 4))[:, 0] / strides[:, None]
    return Assigned(torch.where(best < FAR, rows, -1), found)


def centreness(distances: Float[Tensor, "place 4"]) -> Float[Tensor, " place"]:
    """How far from its box's centre a place is, 1 at the centre (FCOS, eq. 3)."""
    low, high = distances[:, :2], distances[:, 2:]
    return (torch.minimum(low, high) / torch.maximum(low, high)).prod(-1).sqrt()


def focal_loss(
    logits: Float[Tensor, "*place class"], target: Float[Tensor, "*place class"]
) -> Float[Tensor, ""]:
    """Sum of focal losses of each class by itself."""
    chance = logits.sigmoid()
    plain = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    wrong = chance + target - 2 * chance * target  # 1 - probability of the truth
    weight = ALPHA * target + (1 - ALPHA) * (1 - target)
    return (weight * plain * wrong**GAMMA).sum()


def detection_losses(
    outputs: HeadOutputs, assigned: Sequence[Assigned], labels: Sequence[Int64[Tensor, " _"]]
) -> dict[str, Float[Tensor, ""]]:
    """Losses of classes (focal), boxes (GIoU, weighted by centreness) and centreness.

    Normalisers are means over processes: the number of places with an object, and for boxes the
    sum of their centreness.
    """
    rows = torch.stack([one.rows for one in assigned])
    image, place = (rows >= 0).nonzero(as_tuple=True)
    each = [own[one.rows[one.rows >= 0]] for one, own in zip(assigned, labels, strict=True)]
    target = torch.zeros_like(outputs.logits)
    target[image, place, torch.cat(each)] = 1
    wanted = torch.stack([one.distances for one in assigned])[image, place]
    count = world_mean(wanted.new_tensor(len(wanted))).clamp(min=1)
    central = centreness(wanted)
    found = outputs.distances[image, place]
    of_box = giou_loss(_around(found), _around(wanted), SMOOTH) * central
    of_centre = F.binary_cross_entropy_with_logits(
        outputs.centreness[image, place], central, reduction="sum"
    )
    # connected to every output even where there is no object
    nothing = outputs.distances.sum() * 0 + outputs.centreness.sum() * 0
    return {
        "class": focal_loss(outputs.logits, target) / count,
        "box": of_box.sum() / world_mean(central.sum()).clamp(min=1e-6) + nothing,
        "centreness": of_centre / count,
    }


def _around(distances: Tensor) -> Tensor:
    """Boxes around the origin."""
    return torch.cat([-distances[:, :2], distances[:, 2:]], 1)


@dataclass(frozen=True)
class DetectSettings:
    """Limits of detection; the defaults are those of AdelaiDet's FCOS."""

    threshold: float = 0.05
    """Least probability times centreness."""
    per_level: int = 1000
    """Best candidates of a level and picture."""
    nms: float = 0.6
    """IoU above which the weaker of two detections of a class goes."""
    most: int = 100
    """Detections of a picture."""

    def __post_init__(self) -> None:
        if not (0 <= self.threshold < 1 and 0 <= self.nms <= 1):
            raise ValueError(f"threshold {self.threshold} and nms {self.nms} must be in [0, 1]")
        if self.per_level < 1 or self.most < 1:
            raise ValueError(f"per_level {self.per_level} and most {self.most} must be at least 1")


@dataclass(frozen=True)
class Candidates:
    """Boxes found in one picture, best first."""

    boxes: Float[Tensor, "object 4"]
    scores: Float[Tensor, " object"]
    """Root of probability times centreness."""
    labels: Int64[Tensor, " object"]
    places: Int64[Tensor, " object"]
    """Place that each comes from."""


@torch.no_grad()
def detect(outputs: HeadOutputs, settings: DetectSettings | None = None) -> list[Candidates]:
    """Objects of each picture, in pixels of the batch's pictures and not cut at their borders."""
    settings = settings or DetectSettings()
    scores, boxes = outputs.scores, outputs.boxes
    counts = [rows * columns for rows, columns in outputs.sizes]
    found = []
    for own, box in zip(scores, boxes, strict=True):
        parts, start = [], 0
        for part in own.split(counts):
            place, label = (part > settings.threshold).nonzero(as_tuple=True)
            score = part[place, label]
            if len(score) > settings.per_level:
                score, best = score.topk(settings.per_level)
                place, label = place[best], label[best]
            parts.append((score, place + start, label))
            start += len(part)
        score, place, label = (torch.cat(each) for each in zip(*parts, strict=True))
        score = score.sqrt()
        kept = batched_nms(box[place], score, label, settings.nms)[: settings.most]
        found.append(Candidates(box[place[kept]], score[kept], label[kept], place[kept]))
    return found
