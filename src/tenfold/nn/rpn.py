"""The region proposal network of Faster and Mask R-CNN (Ren et al. 2015) on a feature pyramid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from .boxes import batched_nms, clip_to, covered, decode, encode, iou, is_large

ASIDE = -2
"""A reference box that is not sampled."""
BACKGROUND = -1


@dataclass(frozen=True)
class Objects:
    """Ground truth of one picture."""

    boxes: Float[Tensor, "object 4"]
    """x0 y0 x1 y1 in pixels."""
    labels: Int64[Tensor, " object"]
    ignored: Float[Tensor, "region 4"]
    """Crowds: what lies in them is no negative example."""
    masks: Bool[Tensor, "object height width"] | None = None
    """One without a pixel: the object has a box alone."""


@dataclass(frozen=True)
class Guesses:
    """Outputs of the network for every anchor; one entry a level."""

    logits: list[Float[Tensor, "batch _"]]
    offsets: list[Float[Tensor, "batch _ 4"]]
    anchors: list[Float[Tensor, "_ 4"]]


@dataclass(frozen=True)
class ProposalSettings:
    """Settings of proposals, training and choice; the defaults are Mask R-CNN's on FPN."""

    scale: float = 8.0
    """Side of an anchor over its level's stride."""
    ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
    """Heights of anchors over their widths."""
    positive: float = 0.7
    """IoU from which an anchor is an example of an object."""
    negative: float = 0.3
    """IoU below which it is one of background."""
    least: float = 0.3
    """IoU from which the best anchors of an object are its examples, though below `positive`
    (mmdetection's min_pos_iou; 0 takes them at any overlap, as detectron2 does)."""
    samples: int = 256
    """Anchors a picture that are trained on, at most half of them positive."""
    before: int = 1000
    """Best proposals of each level that go into suppression (training: twice as many)."""
    after: int = 1000
    """Proposals of a picture that are left."""
    nms: float = 0.7
    """IoU above which the weaker of two proposals goes."""

    def __post_init__(self) -> None:
        if not 0 <= self.negative <= self.positive <= 1 or not 0 <= self.least <= 1:
            raise ValueError(
                f"proposals.negative {self.negative}, positive {self.positive} and least "
                f"{self.least} must be IoUs, and negative at most positive"
            )
        if self.scale <= 0 or not self.ratios or min(self.ratios) <= 0:
            raise ValueError(
                f"proposals.scale {self.scale} and ratios {self.ratios} must be positive"
            )
        if min(self.samples, self.before, self.after) < 1 or not 0 <= self.nms <= 1:
            raise ValueError(
                f"proposals.samples {self.samples}, before {self.before} and after {self.after} "
                f"must be at least 1, nms {self.nms} in [0, 1]"
            )


def match(
    references: Float[Tensor, "reference 4"],
    objects: Objects,
    positive: float,
    negative: float,
    keep_best: bool,
    least: int | float = 0.0,
) -> Int64[Tensor, " reference"]:
    """For each reference box the row of its object, BACKGROUND, or ASIDE.

    keep_best: the references that overlap an object most are its examples though their IoU is
    below `positive`, if it is at least `least` and not 0.
    """
    count = len(references)
    if not len(objects.boxes):
        found = torch.full((count,), BACKGROUND, device=references.device)
    else:
        overlap = iou(references, objects.boxes)
        best, found = overlap.max(1)
        found = torch.where(best >= positive, found, ASIDE)
        found[best < negative] = BACKGROUND
        if keep_best:
            most = overlap.amax(0).clamp(min=max(least, 1e-6))
            is_best = overlap >= most
            rows = is_best.any(1)
            found[rows] = is_best[rows].float().argmax(1)
    if len(objects.ignored):
        inside = covered(references, objects.ignored).amax(1) > 0.5
        found[inside & (found == BACKGROUND)] = ASIDE
    return found


def sample(
    matched: Int64[Tensor, " reference"], count: int, share: float, generator: torch.Generator
) -> tuple[Int64[Tensor, " positive"], Int64[Tensor, " negative"]]:
    """Random rows of positives (at most `share` of count) and of negatives that fill up."""
    positive, negative = (matched >= 0).nonzero()[:, 0], (matched == BACKGROUND).nonzero()[:, 0]
    most = min(len(positive), int(count * share))
    rest = min(len(negative), count - most)
    chosen = []
    for rows, number in ((positive, most), (negative, rest)):
        order = torch.randperm(len(rows), generator=generator, device=generator.device)[:number]
        chosen.append(rows[order.to(rows.device)])
    return chosen[0], chosen[1]


class Rpn(nn.Module):
    """Scores and boxes of anchors on all levels, and the proposals they make."""

    def __init__(self, channels: int, strides: Sequence[int], settings: ProposalSettings) -> None:
        super().__init__()
        self.strides, self.settings = tuple(strides), settings
        each = len(settings.ratios)
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.score = nn.Conv2d(channels, each, 1)
        self.box = nn.Conv2d(channels, 4 * each, 1)
        for layer in (self.conv, self.score, self.box):
            nn.init.normal_(layer.weight, std=0.01)
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)

    def anchors(
        self, level: int, rows: int, columns: int, device: torch.device
    ) -> Float[Tensor, "anchor 4"]:
        """Anchors of a level, in the order (row, column, ratio), centred on cells' corners."""
        stride, settings = self.strides[level], self.settings
        side = settings.scale * stride
        ratios = torch.tensor(settings.ratios, device=device)
        half = torch.stack([side / ratios.sqrt(), side * ratios.sqrt()], 1) / 2
        y = torch.arange(rows, device=device) * stride
        x = torch.arange(columns, device=device) * stride
        centre = torch.stack(torch.meshgrid(x, y, indexing="xy"), -1).reshape(-1, 1, 2)
        return torch.cat([centre - half, centre + half], -1).reshape(-1, 4)

    def forward(self, maps: Sequence[Tensor]) -> Guesses:
        """Guesses for each anchor of each level, in float32."""
        logits, offsets, anchors = [], [], []
        for level, x in enumerate(maps):
            hidden = F.relu(self.conv(x))
            batch, _, rows, columns = x.shape
            logits.append(self.score(hidden).permute(0, 2, 3, 1).reshape(batch, -1).float())
            found = self.box(hidden).view(batch, -1, 4, rows, columns)
            offsets.append(found.permute(0, 3, 4, 1, 2).reshape(batch, -1, 4).float())
            anchors.append(self.anchors(level, rows, columns, x.device))
        return Guesses(logits, offsets, anchors)

    def losses(
        self,
        guesses: Guesses,
        sizes: Int64[Tensor, "batch 2"],
        objects: Sequence[Objects],
        generator: torch.Generator,
    ) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """(binary cross-entropy of scores, L1 of offsets), each over the sampled anchors."""
        every, score = torch.cat(guesses.anchors), torch.cat(guesses.logits, 1)
        box = torch.cat(guesses.offsets, 1)
        centre = (every[:, :2] + every[:, 2:]) / 2
        of_score, of_box, count = score.sum() * 0, box.sum() * 0, 0
        settings = self.settings
        for i, one in enumerate(objects):
            limit = sizes[i].flip(0).to(centre.dtype)  # width, height
            # Anchors in the padding must not be an object's best, so they are not even matched.
            inside = (centre < limit).all(1)
            found = torch.full((len(every),), ASIDE, device=every.device)
            found[inside] = match(
                every[inside], one, settings.positive, settings.negative, True, settings.least
            )
            good, bad = sample(found, settings.samples, 0.5, generator)
            rows = torch.cat([good, bad])
            truth = (torch.arange(len(rows), device=rows.device) < len(good)).float()
            of_score = of_score + F.binary_cross_entropy_with_logits(
                score[i, rows], truth, reduction="sum"
            )
            wanted = encode(one.boxes[found[good]].float(), every[good])
            of_box = of_box + (box[i, good] - wanted).abs().sum()
            count += len(rows)
        return of_score / max(1, count), of_box / max(1, count)

    @torch.no_grad()
    def proposals(
        self,
        guesses: Guesses,
        sizes: Int64[Tensor, "batch 2"],
    ) -> list[Float[Tensor, "_ 4"]]:
        """The best boxes of each picture, without near duplicates."""
        settings, found = self.settings, []
        before = settings.before * (2 if self.training else 1)
        for i in range(len(sizes)):
            height, width = sizes[i].tolist()
            boxes, scores, levels = [], [], []
            every = zip(guesses.logits, guesses.offsets, guesses.anchors, strict=True)
            for level, (score, box, anchor) in enumerate(every):
                best, rows = score[i].topk(min(before, score.shape[1]))
                boxes.append(clip_to(decode(box[i, rows], anchor[rows]), height, width))
                scores.append(best)
                levels.append(torch.full_like(rows, level))
            box, score, level_of = torch.cat(boxes), torch.cat(scores), torch.cat(levels)
            large = is_large(box, 1)
            box, score, level_of = box[large], score[large], level_of[large]
            kept = batched_nms(box, score, level_of, settings.nms)[: settings.after]
            found.append(box[kept])
        return found
