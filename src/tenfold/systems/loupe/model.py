"""The networks of a run: the dual encoder, and the region module that detection and grounding use.

What only trains them (`training.py`) is not among them.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from .config import Config
from .regions import RegionHead, hard_members, pooled, select
from .towers import DualEncoder


@dataclass(frozen=True)
class Regions:
    """The most confident regions of each image of a batch."""

    own: Int64[Tensor, "image region"]
    """Patch that each box is of."""
    there: Bool[Tensor, "image region"]
    """False where an image has fewer regions."""
    confidence: Float[Tensor, "image region"]
    boxes: Float[Tensor, "image region 4"]
    """x0 y0 x1 y1 as fractions of the image; may reach beyond it."""
    members: Bool[Tensor, "image region patch"]
    """Patches whose centre a box holds, and its own."""


class Networks(nn.Module):
    """The dual encoder and the region module."""

    def __init__(self, cfg: Config) -> None:
        super().__init__()
        self.encoder = DualEncoder(cfg)
        self.regions = RegionHead(cfg.dim, cfg.image.grid)

    def found(
        self, tokens: Float[Tensor, "image patch dim"], count: int, overlap: float
    ) -> Regions:
        """Regions by falling confidence, none of which overlaps another by more than a limit."""
        confidence, boxes = self.regions(tokens)
        return chosen(confidence, boxes, self.regions.grid, count, overlap)


def chosen(
    confidence: Float[Tensor, "image patch"],
    boxes: Float[Tensor, "image patch 4"],
    grid: int,
    count: int,
    overlap: float,
) -> Regions:
    """The regions with the highest confidences."""
    own, there = select(confidence, boxes, count, overlap)
    kept = boxes.gather(1, own[..., None].expand(-1, -1, 4))
    members = hard_members(kept.detach(), grid, own)
    return Regions(own, there, confidence.gather(1, own), kept, members)


def phrase_vectors(
    tokens: Float[Tensor, "text token dim"], members: Bool[Tensor, "text phrase token"]
) -> Float[Tensor, "text phrase dim"]:
    """Directions of phrases: means of the projected tokens in their spans; 0 for none."""
    return F.normalize(pooled(tokens, members), dim=2)


def region_vectors(
    tokens: Float[Tensor, "image patch dim"], members: Tensor
) -> Float[Tensor, "image region dim"]:
    """Directions of regions: means of their patches' tokens, weighted by membership."""
    return F.normalize(pooled(tokens, members), dim=2)


@torch.no_grad()
def clipped(boxes: Float[Tensor, "*box 4"]) -> Float[Tensor, "*box 4"]:
    """Boxes as they are shown: inside the image."""
    return boxes.clamp(0, 1)
