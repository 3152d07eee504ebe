"""Mask R-CNN (He et al. 2017, arXiv 1703.06870) on a list of feature maps, in plain torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from .boxes import batched_nms, clip_to, decode, giou_loss
from .norm import BatchNorm2d
from .roi_align import multi_level_roi_align, roi_align
from .rpn import ASIDE, BACKGROUND, Objects, ProposalSettings, Rpn, match, sample

__all__ = ["Detections", "MaskRcnn", "Objects", "Settings", "paste"]

OFFSETS = (10.0, 10.0, 5.0, 5.0)
"""Factors on a box head's offsets (Fast R-CNN's code)."""
GIOU = 10.0
"""Weight of the GIoU loss (official iTPN configuration)."""


@dataclass(frozen=True)
class Settings:
    """Heads, sampling and thresholds; the defaults are those of iTPN's configuration."""

    channels: int = 256
    """Channels of the convolutions of both heads."""
    convs: int = 4
    """3 x 3 convolutions of each head."""
    fc_width: int = 1024
    """Channels of the box head's fully connected layer."""
    box_size: int = 7
    """Cells of a box's side in the box head."""
    mask_size: int = 14
    """The same in the mask head, whose masks have twice as many."""
    samples: int = 512
    """Proposals a picture that the heads are trained on."""
    positives: float = 0.25
    """Largest share of positive ones among them."""
    threshold: float = 0.5
    """IoU from which a proposal is an example of an object."""
    score: float = 0.05
    """Least score of a detection."""
    nms: float = 0.5
    """IoU above which the weaker of two detections of a class goes."""
    most: int = 100
    """Detections of a picture."""
    proposals: ProposalSettings = ProposalSettings()

    def __post_init__(self) -> None:
        counts = (self.channels, self.fc_width, self.box_size, self.mask_size, self.samples)
        if min(counts) < 1 or self.most < 1 or self.convs < 1:
            raise ValueError(
                f"channels, fc_width, box_size, mask_size, samples {counts}, convs {self.convs} "
                f"and most {self.most} must be at least 1"
            )
        shares = (self.positives, self.threshold, self.score, self.nms)
        if not all(0 <= share <= 1 for share in shares):
            raise ValueError(f"positives, threshold, score, nms {shares} must be in [0, 1]")


@dataclass(frozen=True)
class Detections:
    """Objects detected in one picture."""

    boxes: Float[Tensor, "object 4"]
    scores: Float[Tensor, " object"]
    labels: Int64[Tensor, " object"]
    masks: Float[Tensor, "object side side"]
    """Probabilities within each box; empty sides without a mask head."""


class BoxHead(nn.Module):
    """Convolutions with batch norm, one fully connected layer, then classes and offsets."""

    def __init__(self, channels: int, num_classes: int, settings: Settings) -> None:
        super().__init__()
        widths = [channels] + [settings.channels] * settings.convs
        self.convs = nn.Sequential(*[
            nn.Sequential(
                nn.Conv2d(a, b, 3, padding=1, bias=False), BatchNorm2d(b), nn.ReLU()
            )
            for a, b in zip(widths[:-1], widths[1:], strict=True)
        ])  # fmt: skip
        self.fc = nn.Linear(settings.channels * settings.box_size**2, settings.fc_width)
        self.classify = nn.Linear(settings.fc_width, num_classes + 1)
        self.regress = nn.Linear(settings.fc_width, 4 * num_classes)
        nn.init.normal_(self.classify.weight, std=0.01)
        nn.init.normal_(self.regress.weight, std=0.001)
        for layer in (self.classify, self.regress):
            nn.init.zeros_(layer.bias)

    def forward(self, x: Float[Tensor, "box channel side side"]) -> tuple[Tensor, Tensor]:
        """(logits [box, class + 1], the last one background; offsets [box, class, 4])."""
        x = F.relu(self.fc(self.convs(x).flatten(1)))
        return self.classify(x).float(), self.regress(x).float().unflatten(1, (-1, 4))


class MaskHead(nn.Module):
    """Convolutions, a doubling, and one mask a class."""

    def __init__(self, channels: int, num_classes: int, settings: Settings) -> None:
        super().__init__()
        widths = [channels] + [settings.channels] * settings.convs
        self.convs = nn.Sequential(*[
            nn.Sequential(nn.Conv2d(a, b, 3, padding=1), nn.ReLU())
            for a, b in zip(widths[:-1], widths[1:], strict=True)
        ])  # fmt: skip
        self.up = nn.ConvTranspose2d(settings.channels, settings.channels, 2, 2)
        self.masks = nn.Conv2d(settings.channels, num_classes, 1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                assert module.bias is not None
                nn.init.zeros_(module.bias)

    def forward(
        self, x: Float[Tensor, "box channel side side"], labels: Int64[Tensor, " box"]
    ) -> Float[Tensor, "box double double"]:
        """Logits of the mask of each box's class."""
        found = self.masks(F.relu(self.up(self.convs(x)))).float()
        return found[torch.arange(len(found), device=found.device), labels]


class MaskRcnn(nn.Module):
    """RPN, box head and mask head. Maps are finest first; the coarsest serves the RPN alone."""

    def __init__(
        self,
        channels: int,
        strides: Sequence[int],
        num_classes: int,
        settings: Settings,
        has_masks: bool = True,
    ) -> None:
        super().__init__()
        self.settings, self.num_classes, self.strides = settings, num_classes, tuple(strides)
        self.rpn = Rpn(channels, strides, settings.proposals)
        self.box_head = BoxHead(channels, num_classes, settings)
        self.mask_head = MaskHead(channels, num_classes, settings) if has_masks else None

    def losses(
        self,
        maps: Sequence[Tensor],
        sizes: Int64[Tensor, "batch 2"],
        objects: Sequence[Objects],
        generator: torch.Generator,
    ) -> dict[str, Tensor]:
        """Weighted losses, whose sum is to be minimised.

        sizes: true height and width of each picture inside the padded batch.
        """
        guesses = self.rpn(maps)
        of_score, of_box = self.rpn.losses(guesses, sizes, objects, generator)
        proposals = self.rpn.proposals(guesses, sizes)
        picked = [self._picked(p, o, generator) for p, o in zip(proposals, objects, strict=True)]
        boxes = torch.cat([p[0] for p in picked])
        rows = torch.cat([p[1] for p in picked])
        owner = torch.cat([torch.full_like(p[1], i) for i, p in enumerate(picked)])
        labels = torch.full_like(rows, self.num_classes)
        good = rows >= 0
        each = [one.labels[p[1][p[1] >= 0]] for one, p in zip(objects, picked, strict=True)]
        labels[good] = torch.cat(each)
        logits, offsets = self.box_head(self._pooled(maps, boxes, owner, self.settings.box_size))
        losses = {
            "rpn/score": of_score,
            "rpn/box": of_box,
            "box/class": F.cross_entropy(logits, labels, reduction="sum") / max(1, len(labels)),
        }
        mine, owners, of_class = boxes[good], owner[good], labels[good]
        truth = torch.cat(
            [one.boxes[p[1][p[1] >= 0]] for one, p in zip(objects, picked, strict=True)]
        ).float()
        own = offsets[good][torch.arange(len(mine), device=mine.device), of_class]
        guessed = decode(own, mine, OFFSETS)
        total = giou_loss(guessed, truth).sum() + offsets.sum() * 0
        losses["box/box"] = GIOU * total / max(1, len(labels))
        if self.mask_head is not None:
            losses["mask"] = self._mask_loss(maps, mine, owners, of_class, objects, picked)
        return losses

    def _picked(
        self, proposals: Tensor, objects: Objects, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Sampled boxes, objects' own boxes among them, and the row of the object or BACKGROUND."""
        settings = self.settings
        boxes = torch.cat([objects.boxes.float(), proposals])
        found = match(boxes, objects, settings.threshold, settings.threshold, keep_best=False)
        good, bad = sample(found, settings.samples, settings.positives, generator)
        rows = torch.cat([good, bad])
        assert ASIDE < BACKGROUND < 0
        return boxes[rows], found[rows]

    def _pooled(self, maps: Sequence[Tensor], boxes: Tensor, owner: Tensor, size: int) -> Tensor:
        """Features of boxes, from all maps but the coarsest."""
        return multi_level_roi_align(maps[:-1], self.strides[:-1], boxes, owner, size)

    def _mask_loss(
        self,
        maps: Sequence[Tensor],
        boxes: Tensor,
        owner: Tensor,
        labels: Tensor,
        objects: Sequence[Objects],
        picked: Sequence[tuple[Tensor, Tensor]],
    ) -> Tensor:
        """Binary cross-entropy of the true class's mask inside each positive box.

        An object whose mask has no pixel was annotated by its box alone and does not count.
        """
        assert self.mask_head is not None
        counts = []
        for one, (_, found) in zip(objects, picked, strict=True):
            assert one.masks is not None, "a mask head needs masks"
            counts.append(one.masks.flatten(1).any(1)[found[found >= 0]])
        known = torch.cat(counts)
        boxes, owner, labels = boxes[known], owner[known], labels[known]
        if not len(boxes):  # connected to every parameter all the same
            return torch.stack([p.sum() for p in self.mask_head.parameters()]).sum() * 0
        features = self._pooled(maps, boxes, owner, self.settings.mask_size)
        logits = self.mask_head(features, labels)
        side, targets = logits.shape[-1], []
        for i, one in enumerate(objects):
            assert one.masks is not None
            rows = picked[i][1][picked[i][1] >= 0][counts[i]]
            if len(rows):
                # Objects are the "batch": a copy of the mask for each of 128 boxes is half a GB.
                own = one.masks[:, None].float()
                targets.append(roi_align(own, boxes[owner == i], rows, side, 1)[:, 0])
        target = (torch.cat(targets) >= 0.5).float()
        return F.binary_cross_entropy_with_logits(logits, target)

    @torch.no_grad()
    def detect(self, maps: Sequence[Tensor], sizes: Int64[Tensor, "batch 2"]) -> list[Detections]:
        """Objects of each picture, best first, in pixels of the batch's pictures."""
        proposals = self.rpn.proposals(self.rpn(maps), sizes)
        found = []
        for i, boxes in enumerate(proposals):
            one = [x[i : i + 1] for x in maps]
            found.append(self._detected(one, boxes, sizes[i]))
        return found

    def _detected(self, maps: Sequence[Tensor], boxes: Tensor, size: Tensor) -> Detections:
        settings, side = self.settings, 2 * self.settings.mask_size
        owner = torch.zeros(len(boxes), dtype=torch.int64, device=boxes.device)
        logits, offsets = self.box_head(self._pooled(maps, boxes, owner, settings.box_size))
        scores = logits.softmax(1)[:, :-1]
        rows, labels = (scores > settings.score).nonzero(as_tuple=True)
        height, width = size.tolist()
        refined = clip_to(decode(offsets[rows, labels], boxes[rows], OFFSETS), height, width)
        best = scores[rows, labels]
        kept = batched_nms(refined, best, labels, settings.nms)[: settings.most]
        refined, best, labels = refined[kept], best[kept], labels[kept]
        masks = refined.new_zeros(len(refined), side, side)
        if self.mask_head is not None and len(refined):
            owner = torch.zeros(len(refined), dtype=torch.int64, device=boxes.device)
            pooled = self._pooled(maps, refined, owner, settings.mask_size)
            masks = self.mask_head(pooled, labels).sigmoid()
        return Detections(refined, best, labels, masks)


PIXELS = 50_000_000
"""Mask pixels that are made at once."""


def paste(
    masks: Float[Tensor, "object side side"],
    boxes: Float[Tensor, "object 4"],
    height: int,
    width: int,
    threshold: float = 0.5,
) -> Bool[Tensor, "object height width"]:
    """Masks within boxes as masks of the whole picture: bilinear at the centres of its pixels."""
    found = torch.zeros(len(masks), height, width, dtype=torch.bool, device=masks.device)
    y = torch.arange(height, device=masks.device) + 0.5
    x = torch.arange(width, device=masks.device) + 0.5
    chunk = max(1, PIXELS // (height * width))
    for start in range(0, len(masks), chunk):
        part = slice(start, start + chunk)
        low, high = boxes[part, None, :2], boxes[part, None, 2:]
        extent = (high - low).clamp(min=1e-3)
        at_x = 2 * (x[None] - low[..., 0]) / extent[..., 0] - 1
        at_y = 2 * (y[None] - low[..., 1]) / extent[..., 1] - 1
        grid = torch.stack(
            [at_x[:, None, :].expand(-1, height, -1), at_y[:, :, None].expand(-1, -1, width)], -1
        )
        values = F.grid_sample(masks[part, None].float(), grid, align_corners=False)
        found[part] = values[:, 0] >= threshold
    return found
