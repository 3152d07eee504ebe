"""CondInst (Tian, Shen and Chen 2020, arXiv 2003.05664), each object under its own supervision.

Pictures are RGB in 0 to 255. All that follows `CondInst.encode` costs only heads, so what it gives
can be kept while one picture is worked on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from tenfold.structures import Instances

from .boxes import clip_to
from .condinst_settings import SMALL, STAGES, Settings
from .dynamic_masks import aligned_bilinear, dynamic_masks
from .encoders import LiteEncoder
from .fcos import (
    Assigned,
    Candidates,
    FCOSHead,
    HeadOutputs,
    assign,
    detect,
    detection_losses,
)
from .fpn import FPN
from .mask_losses import STRIDE
from .mask_supervision import Supervision, Targets, mask_losses, valid
from .norm import BatchNorm2d
from .resnet import ResNet
from .small_backbone import SmallBackbone

__all__ = [
    "SMALL", "CondInst", "Encoded", "MaskBranch", "Queries", "Settings", "Supervision", "Targets",
    "aligned_bilinear", "dynamic_masks", "in_picture",
]  # fmt: skip

PIXELS = 20_000_000
"""Mask pixels that are made at once."""


@dataclass(frozen=True)
class Encoded:
    """Pictures after all that costs much."""

    levels: list[Tensor]
    """Of the pyramid, finest first."""
    features: Float[Tensor, "image channel height width"]
    """Of masks."""
    images: Float[Tensor, "image 3 padded_height padded_width"]
    """RGB in 0 to 255, 0 outside."""
    sizes: Int64[Tensor, "image 2"]
    """True height and width of each picture."""


@dataclass(frozen=True)
class Queries:
    """Networks of masks, and where they were found."""

    image: Int64[Tensor, " query"]
    rows: Int64[Tensor, " query"]
    """Row of the object in its picture."""
    places: Int64[Tensor, " query"]
    centres: Float[Tensor, "query 2"]
    levels: Int64[Tensor, " query"]
    parameters: Float[Tensor, "query number"]

    @classmethod
    def of(cls, outputs: HeadOutputs, image: Tensor, rows: Tensor, places: Tensor) -> Queries:
        """What the head says at places."""
        return cls(
            image, rows, places, outputs.locations[places], outputs.levels[places],
            outputs.parameters_at(image, places),
        )  # fmt: skip

    def at(self, some: Tensor) -> Queries:
        """Some of them."""
        return Queries(**{name: value[some] for name, value in vars(self).items()})


class MaskBranch(nn.Module):
    """Features that all masks are made of, at the finest level's stride (CondInst, sec. 3.2)."""

    def __init__(self, channels: int, settings: Settings) -> None:
        super().__init__()
        wide = settings.branch_channels

        def block(width: int) -> nn.Sequential:
            by_batch = settings.branch_norm == "batch"
            norm = BatchNorm2d(wide) if by_batch else nn.GroupNorm(settings.groups, wide)
            conv = nn.Conv2d(width, wide, 3, padding=1, bias=False)
            nn.init.kaiming_uniform_(conv.weight, a=1)
            return nn.Sequential(conv, norm, nn.ReLU())

        self.refine = nn.ModuleList([block(channels) for _ in range(STAGES)])
        self.tower = nn.Sequential(
            *[block(wide) for _ in range(settings.branch_convs)],
            nn.Conv2d(wide, settings.mask.features, 1),
        )

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        """Features from the finest levels, one for each part of `refine`."""
        found = [layer(x) for layer, x in zip(self.refine, levels, strict=False)]
        x = found[0]
        for number, part in enumerate(found[1:], start=1):
            x = x + aligned_bilinear(part, 2**number)
        return self.tower(x)


class CondInst(nn.Module):
    """FCOS with a network for the mask of each object, over a feature pyramid."""

    def __init__(
        self, classes: int, settings: Settings | None = None, classifier: nn.Module | None = None
    ) -> None:
        """classifier: Of a tower's features, in place of a convolution (`fcos.TextClassifier`)."""
        super().__init__()
        self.settings = settings = settings or Settings()
        self.backbone: ResNet | SmallBackbone | LiteEncoder
        if settings.backbone == "resnet50":
            width = settings.widths[0] if settings.widths else 0
            self.backbone = ResNet("resnet50", width, depths=settings.depths, early_stride=True)
        elif settings.backbone == "efficientnet-lite0":
            self.backbone = LiteEncoder(fixed=settings.frozen, frozen=settings.frozen_stages)
        elif settings.widths:
            self.backbone = SmallBackbone(settings.widths, settings.groups)
        else:
            self.backbone = SmallBackbone(groups=settings.groups)
        own = self.backbone
        widths = own.dims if isinstance(own, LiteEncoder) else own.widths
        self.pyramid = FPN(widths[-STAGES:], settings.channels, settings.extra)
        self.fcos = FCOSHead(
            settings.channels, classes, settings.strides, settings.convs, settings.mask.numbers,
            settings.groups, classifier,
        )  # fmt: skip
        self.branch = MaskBranch(settings.channels, settings)
        if self._is_frozen:
            for module in self.backbone.modules():
                if isinstance(module, BatchNorm2d):
                    module.requires_grad_(False)
            for name in ("conv1", "layer1"):
                self.backbone.get_submodule(name).requires_grad_(False)
        self.train()

    @property
    def _is_frozen(self) -> bool:
        return self.settings.frozen and isinstance(self.backbone, ResNet)

    def train(self, mode: bool = True) -> CondInst:
        """Train or not; frozen statistics stay as they are."""
        super().train(mode)
        if self._is_frozen:
            self.backbone.eval()  # it has no other layers that differ in training
        return self

    # --- what can be kept -------------------------------------------------------------------------

    def encode(
        self,
        images: Float[Tensor, "image 3 height width"],
        sizes: Int64[Tensor, "image 2"] | None = None,
    ) -> Encoded:
        """Levels and mask features of pictures.

        sizes: true heights and widths, if pictures do not fill the batch. What lies outside is not
        looked at. Sides of the batch need not be multiples of anything.
        """
        height, width = images.shape[2:]
        if sizes is None:
            sizes = torch.tensor([[height, width]] * len(images), device=images.device)
        sizes, divisor = sizes.to(images.device), self.settings.strides[STAGES - 1]
        images = F.pad(images, (0, -width % divisor, 0, -height % divisor))
        outside = ~valid(images, sizes)[:, None]
        images = images.masked_fill(outside, 0)
        levels = self.levels(self.normalised(images).masked_fill(outside, 0))
        return Encoded(levels, self.branch(levels), images, sizes)

    def normalised(
        self, images: Float[Tensor, "image 3 height width"]
    ) -> Float[Tensor, "image 3 height width"]:
        """Colours as the backbone takes them."""
        mean, std = (
            images.new_tensor(x).view(3, 1, 1) for x in (self.settings.mean, self.settings.std)
        )
        return (images - mean) / std

    def levels(self, x: Float[Tensor, "image 3 height width"]) -> list[Tensor]:
        """Levels of the pyramid, of normalised pictures whose sides the strides divide."""
        own = self.backbone
        found = own(x) if isinstance(own, LiteEncoder) else own.maps(x)
        return self.pyramid(found[-STAGES:])

    def head(self, encoded: Encoded) -> HeadOutputs:
        """Classes, boxes and masks' parameters at every place."""
        return self.fcos(encoded.levels)

    # --- training ---------------------------------------------------------------------------------

    def losses(
        self,
        encoded: Encoded,
        targets: Sequence[Targets],
        iteration: int,
        outputs: HeadOutputs | None = None,
    ) -> dict[str, Float[Tensor, ""]]:
        """Weighted losses, whose sum is to be minimised.

        Each object's mask is trained by what is known of it; the masks' losses are means over all
        places that make masks, whatever their kind, so every such place weighs the same.

        Args:
            encoded: Pictures.
            targets: Objects of each.
            iteration: Steps done before, for the warm-up of the pairwise loss.
            outputs: Of the head, if there already.
        """
        settings = self.settings
        outputs = self.head(encoded) if outputs is None else outputs
        assigned = [self._assigned(outputs, one) for one in targets]
        found = detection_losses(outputs, assigned, [one.labels for one in targets])
        queries = self._chosen(outputs, _positive(outputs, assigned))
        weight = min((iteration + 1) / settings.warmup, 1.0) if settings.warmup else 1.0
        of_masks = mask_losses(
            self.masks(encoded, queries), queries.image, queries.rows, targets, encoded.images,
            valid(encoded.images, encoded.sizes, [one.bottom for one in targets]),
            settings.with_points, settings.point_weight, weight,
        )  # fmt: skip
        # connected to every output even where no place finds an object
        of_masks["mask"] += encoded.features.sum() * 0 + queries.parameters.sum() * 0
        return found | of_masks

    def _assigned(self, outputs: HeadOutputs, targets: Targets) -> Assigned:
        settings, boxes = self.settings, targets.boxes.float()
        if settings.sampling == "mask":
            assert targets.masks is not None, "mask sampling needs masks"
            return assign(outputs, settings.bounds, boxes, masks=targets.masks)
        return assign(outputs, settings.bounds, boxes, targets.centres, radius=settings.radius)

    def _chosen(self, outputs: HeadOutputs, queries: Queries) -> Queries:
        """Those whose masks are trained."""
        settings, count = self.settings, len(queries.image)
        if settings.proposals and count > settings.proposals:
            some = torch.randperm(count, device=queries.image.device)[: settings.proposals]
            return queries.at(some.sort().values)
        if not settings.per_picture or not count:
            return queries
        image, places = queries.image, queries.places
        score = outputs.logits[image, places].sigmoid().amax(1)
        score = score * outputs.centreness[image, places].sigmoid()
        kept = []
        for i in image.unique():
            mine = (image == i).nonzero()[:, 0]
            objects = queries.rows[mine].unique()
            most = max(settings.per_picture // len(objects), 1)
            for one in objects:
                own = mine[queries.rows[mine] == one]
                kept.append(own[score[own].topk(min(most, len(own))).indices])
        return queries.at(torch.cat(kept))

    # --- masks ------------------------------------------------------------------------------------

    def masks(self, encoded: Encoded, queries: Queries) -> Float[Tensor, "query rows columns"]:
        """Logits of masks, a cell for 4 x 4 pixels of the batch's pictures."""
        return dynamic_masks(
            encoded.features, queries.parameters, queries.centres, queries.levels, queries.image,
            self.settings.mask,
        )  # fmt: skip

    def positives(self, outputs: HeadOutputs, boxes: Sequence[Float[Tensor, "_ 4"]]) -> Queries:
        """All places that find objects of these boxes, in the order of pictures and places."""
        assigned = [
            assign(outputs, self.settings.bounds, own.float(), radius=self.settings.radius)
            for own in boxes
        ]
        return _positive(outputs, assigned)

    @torch.no_grad()
    def predictions_of(
        self,
        encoded: Encoded,
        boxes: Sequence[Float[Tensor, "_ 4"]],
        outputs: HeadOutputs | None = None,
    ) -> list[list[Float[Tensor, "prediction rows columns"]]]:
        """Mask logits, at stride 4, of all places that find each object.

        No statistics change: they are those of inference, where official code has them drift
        (APIS, src/condinst/Entropy). Labels play no part. An object that no place finds has none.

        Args:
            encoded: Pictures, encoded in eval mode.
            boxes: Of the objects of each picture, in its pixels.
            outputs: Of the head, if there already.
        """
        assert not self.training, "statistics of batches would be used, and changed"
        queries = self.positives(self.head(encoded) if outputs is None else outputs, boxes)
        logits = self.masks(encoded, queries)
        return [
            [logits[(queries.image == i) & (queries.rows == row)] for row in range(len(own))]
            for i, own in enumerate(boxes)
        ]

    def at_locations(
        self,
        encoded: Encoded,
        index: Int64[Tensor, "query 4"],
        outputs: HeadOutputs | None = None,
    ) -> Float[Tensor, "query rows columns"]:
        """Mask logits of places, given as picture, level, row and column."""
        outputs = self.head(encoded) if outputs is None else outputs
        places = torch.tensor([outputs.place(*own) for own in index[:, 1:].tolist()])
        places = places.long().to(index.device)
        none = torch.full_like(places, -1)
        return self.masks(encoded, Queries.of(outputs, index[:, 0], none, places))

    # --- detection --------------------------------------------------------------------------------

    @torch.no_grad()
    def detect(
        self,
        encoded: Encoded,
        sizes: Sequence[tuple[int, int]] | None = None,
        outputs: HeadOutputs | None = None,
    ) -> list[Instances]:
        """Objects of each picture, best first, with masks.

        sizes: heights and widths to which the pictures are brought back; None for their own.
        """
        outputs = self.head(encoded) if outputs is None else outputs
        own = [(height, width) for height, width in encoded.sizes.tolist()]
        found = detect(outputs, self.settings.detection)
        return [
            self._detected(encoded, outputs, i, one, own[i], size)
            for i, (one, size) in enumerate(zip(found, sizes or own, strict=True))
        ]

    def _detected(
        self,
        encoded: Encoded,
        outputs: HeadOutputs,
        image: int,
        found: Candidates,
        own: tuple[int, int],
        size: tuple[int, int],
    ) -> Instances:
        scale = found.boxes.new_tensor([size[1] / own[1], size[0] / own[0]] * 2)
        boxes = clip_to(found.boxes * scale, *size)
        kept = (boxes[:, 2:] > boxes[:, :2]).all(1)
        boxes, places = boxes[kept], found.places[kept]
        of_image = torch.full_like(places, image)
        scores = self.masks(encoded, Queries.of(outputs, of_image, of_image, places)).sigmoid()
        masks = torch.zeros(len(boxes), *size, dtype=torch.bool, device=boxes.device)
        chunk = max(1, PIXELS // (size[0] * size[1]))
        for start in range(0, len(boxes), chunk):
            part = slice(start, start + chunk)
            masks[part] = in_picture(scores[part], own, size) > 0.5
        if self.settings.cut:
            for mask, (x0, y0, x1, y1) in zip(masks, boxes.long().tolist(), strict=True):
                inside = torch.zeros_like(mask)
                inside[y0:y1, x0:x1] = True
                mask &= inside
        arrays = (boxes, found.labels[kept], found.scores[kept], masks)
        return Instances(*(x.cpu().numpy() for x in arrays))


def in_picture(
    scores: Float[Tensor, "mask rows columns"], own: tuple[int, int], size: tuple[int, int]
) -> Float[Tensor, "mask height width"]:
    """Scores at stride 4 as maps of the picture's own size.

    Args:
        scores: Of masks, over the batch's pictures.
        own: Height and width of the picture in the batch.
        size: Height and width to which it is brought back.
    """
    found = aligned_bilinear(scores[:, None], STRIDE)[..., : own[0], : own[1]]
    return F.interpolate(found, size, mode="bilinear", align_corners=False)[:, 0]


def _positive(outputs: HeadOutputs, assigned: Sequence[Assigned]) -> Queries:
    """All places that have an object."""
    rows = torch.stack([one.rows for one in assigned])
    image, places = (rows >= 0).nonzero(as_tuple=True)
    return Queries.of(outputs, image, rows[image, places], places)
