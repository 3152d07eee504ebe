"""Two resolutions, fused by a learned attention: HRDA (Hoyer et al. 2022, arXiv 2204.13132).

The context is the whole picture, made smaller; the detail is a crop of it at full size, or all of
it by overlapping windows. Names of parameters are those of the official code (lhoyer/HRDA and
lhoyer/MIC, mmseg/models/segmentors/hrda_encoder_decoder.py and decode_heads/hrda_head.py).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Integer
from torch import Generator, Tensor, nn

from .pixel_loss import pixel_loss
from .sliding import slide_at_once
from .uperhead import enlarged


class Box(NamedTuple):
    """A part of a picture: rows top to bottom, columns left to right, the ends left out."""

    top: int
    bottom: int
    left: int
    right: int

    def of(self, x: Tensor, stride: int = 1) -> Tensor:
        """This part of pictures or of maps whose cells are `stride` pixels wide; a view."""
        top, bottom, left, right = (side // stride for side in self)
        return x[..., top:bottom, left:right]


class Resolutions(NamedTuple):
    """Logits of both resolutions, each at its own size."""

    fused: Tensor
    """At the size of the detail's logits of the whole picture."""
    context: Tensor
    """Scaled by 1 - attention, as the official head returns them."""
    detail: Tensor
    """Of the crop, or of the whole picture."""
    features: list[Tensor]
    """The encoder's maps of the context."""


class Hrda(nn.Module):
    """An encoder and a head for both resolutions, and a second head for the attention."""

    def __init__(
        self,
        backbone: nn.Module,
        head: nn.Module,
        attention: nn.Module,
        crop: tuple[int, int] = (512, 512),
        shrink: int = 2,
        divisible: int = 8,
    ) -> None:
        """The head and the attention take the encoder's maps and give logits, the attention of as
        many classes or of one. `crop` is the detail's height and width; the context is `shrink`
        times smaller than the picture; crops start at multiples of `divisible` pixels."""
        super().__init__()
        if any(side < 1 or side % divisible for side in crop):
            raise ValueError(
                f"HRDA's detail crop {crop[0]} x {crop[1]} (height x width) must be multiples of "
                f"{divisible}, where crops may start"
            )
        self.backbone = backbone
        self.decode_head = nn.ModuleDict({"head": head, "scale_attention": attention})
        self.crop, self.shrink, self.divisible = crop, shrink, divisible

    def draw_box(self, height: int, width: int, generator: Generator) -> Box:
        """A random place of the detail crop in a picture of `height` x `width`."""
        starts = []
        for side, crop in zip((height, width), self.crop, strict=True):
            if side < crop:
                raise ValueError(
                    f"a picture of {height} x {width} is smaller than HRDA's detail crop "
                    f"{self.crop[0]} x {self.crop[1]} (height x width); make the crop smaller"
                )
            # official: (margin + 1) // divisible places, so one at least where there is a margin
            places = 1 if side == crop else max(1, (side - crop + 1) // self.divisible)
            drawn = int(torch.randint(places, (), generator=generator))
            starts.append(drawn * self.divisible)
        top, left = starts
        return Box(top, top + self.crop[0], left, left + self.crop[1])

    def segment(
        self, images: Float[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, "batch class rows columns"]:
        """Logits of one resolution."""
        return self.decode_head["head"](self.backbone(images))

    def forward(
        self, images: Float[Tensor, "batch 3 height width"], box: Box | None = None
    ) -> Resolutions:
        """Both resolutions; the detail is that of `box`, or of windows over all of it."""
        height, width = images.shape[2:]
        features = self.backbone(enlarged(images, (height // self.shrink, width // self.shrink)))
        context = self.decode_head["head"](features)
        whole = (context.shape[2] * self.shrink, context.shape[3] * self.shrink)
        stride = -(-height // whole[0])  # of the detail's logits, in pixels
        if (whole[0] * stride, whole[1] * stride) != (height, width):
            multiple = stride * self.shrink
            raise ValueError(
                f"pictures of {height} x {width} pixels (height x width) do not fit a context "
                f"{self.shrink} times smaller; pad them to multiples of {multiple}"
            )
        attention = self.decode_head["scale_attention"](features).sigmoid()
        if box is None:
            step = (self.crop[0] // 2, self.crop[1] // 2)
            detail = pasted = slide_at_once(self.segment, images, self.crop, step)
        else:
            detail = self.segment(box.of(images))
            inside = torch.zeros_like(attention[:1, :1])
            box.of(inside, stride * self.shrink).fill_(1)
            attention = attention * inside  # outside the crop the context is alone
            top, left = box.top // stride, box.left // stride
            bottom, right = whole[0] - top - detail.shape[2], whole[1] - left - detail.shape[3]
            pasted = F.pad(detail, (left, right, top, bottom))
        scaled = (1 - attention) * context
        fused = enlarged(attention, whole) * pasted + enlarged(scaled, whole)
        return Resolutions(fused, scaled, detail, features)


def hrda_loss(
    found: Resolutions,
    labels: Integer[Tensor, "batch height width"],
    box: Box,
    weights: Float[Tensor, "batch height width"] | None = None,
    detail_share: float = 0.1,
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """The losses of the fused logits and of the detail's, which add up to HRDA's (eq. 11)."""
    fused = pixel_loss(found.fused, labels, weights)
    part = None if weights is None else box.of(weights)
    detail = pixel_loss(found.detail, box.of(labels), part)
    return (1 - detail_share) * fused, detail_share * detail
