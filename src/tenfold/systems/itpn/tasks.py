"""Downstream networks: a backbone with its pyramid, and a head for each dense task.

Each is called with a batch and gives its losses, as the loop wants it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from tenfold.core.seed import generator
from tenfold.nn.boxes import giou_loss
from tenfold.nn.hivit import HiViT, Shape, raster
from tenfold.nn.mask_rcnn import Detections, MaskRcnn, Objects, Settings
from tenfold.nn.rpn import ProposalSettings
from tenfold.nn.uperhead import FcnHead, UPerHead, segmentation_loss

from .config import Dense


class Localiser(nn.Module):
    """The box of a picture's one object, from all levels of the pyramid (ours).

    Each level is averaged over cells x cells parts of the picture; two linear layers give the
    corners as shares of the picture's sides.
    """

    HIDDEN = 128

    def __init__(self, shape: Shape, cells: int) -> None:
        super().__init__()
        self.cells = cells
        self.backbone = HiViT(shape)
        self.norm = nn.LayerNorm(shape.fpn_dim, eps=shape.eps)
        width = 3 * shape.fpn_dim * cells * cells
        self.hidden = nn.Linear(width, self.HIDDEN)
        self.box = nn.Linear(self.HIDDEN, 4)

    def boxes(self, images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch 4"]:
        """x0 y0 x1 y1, each a share of width or height."""
        grid = self.backbone.grid_of(images)
        parts = []
        for level in self.backbone.pyramid(self.backbone.encode(images)):
            cells = nn.functional.adaptive_avg_pool2d(raster(level, grid), self.cells)
            parts.append(self.norm(cells.flatten(2).transpose(1, 2)).flatten(1))
        x = nn.functional.gelu(self.hidden(torch.cat(parts, 1)))
        centre, size = self.box(x).float().sigmoid().split(2, 1)
        return torch.cat([centre - size / 2, centre + size / 2], 1)

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Losses of {"images", "boxes"}, boxes as shares: DETR's, L1 times 5 and GIoU times 2."""
        found = self.boxes(batch["images"])
        distance = (found - batch["boxes"]).abs().sum(1).mean()
        overlap = giou_loss(found, batch["boxes"]).mean()
        total = 5 * distance + 2 * overlap
        return {"loss": total, "loss/distance": distance, "loss/giou": overlap}


class Segmenter(nn.Module):
    """UPerHead, and an auxiliary head, on four maps of pyramid and stages (official `seg`)."""

    def __init__(self, shape: Shape, dense: Dense, num_classes: int) -> None:
        super().__init__()
        self.backbone = HiViT(shape)
        widths = self.backbone.widths()
        self.head = UPerHead(widths, dense.head_dim, num_classes)
        self.auxiliary = dense.auxiliary
        self.aux = FcnHead(widths[2], max(16, dense.head_dim // 3), num_classes)

    def logits(
        self, images: Float[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, "batch num_classes rows columns"]:
        """At the stride of the finest map."""
        return self.head(self.backbone.segmentation_maps(images))

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Losses of {"images", "labels"}; label 255 does not count."""
        maps = self.backbone.segmentation_maps(batch["images"])
        main = segmentation_loss(self.head(maps), batch["labels"])
        aux = segmentation_loss(self.aux(maps[2]), batch["labels"])
        return {"loss": main + self.auxiliary * aux, "loss/main": main, "loss/auxiliary": aux}


class Detector(nn.Module):
    """Mask R-CNN on the five maps of the pyramid, without another neck (official `det`)."""

    def __init__(self, shape: Shape, dense: Dense, num_classes: int, seed: int) -> None:
        super().__init__()
        self.backbone = HiViT(shape)
        self.seed = seed
        stride = shape.patch_size // 4
        strides = tuple(stride * 2**level for level in range(5))
        self.head = MaskRcnn(
            shape.fpn_dim, strides, num_classes, head_settings(dense), has_masks=dense.masks
        )

    def forward(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Losses of {"images", "sizes", "objects", "draw"}; draw seeds the sampling."""
        maps = self.backbone.detection_maps(batch["images"])
        draw = generator(self.seed, "sampling", int(batch["draw"]))
        objects = [Objects(**one) for one in batch["objects"]]
        parts = self.head.losses(maps, batch["sizes"], objects, draw)
        return {"loss": torch.stack(list(parts.values())).sum()} | {
            f"loss/{name.replace('/', ' ')}": value for name, value in parts.items()
        }

    def detect(
        self, images: Float[Tensor, "batch 3 height width"], sizes: Int64[Tensor, "batch 2"]
    ) -> Sequence[Detections]:
        """Boxes, classes, scores and masks of each picture."""
        return self.head.detect(self.backbone.detection_maps(images), sizes)


OFFICIAL_PROPOSALS = 1000
"""Proposals that go into suppression and come out of it in the official configuration."""


def head_settings(dense: Dense) -> Settings:
    """Mask R-CNN's settings of this configuration."""
    limit = min(OFFICIAL_PROPOSALS, 2 * dense.proposals)
    proposals = ProposalSettings(before=limit, after=limit)
    return Settings(
        channels=dense.head_dim, fc_width=dense.fc_dim, samples=dense.proposals, proposals=proposals
    )
