"""Frozen teachers of the CLIP branch: from pictures in [0, 1] to one target a unit."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from tenfold.nn.clip_vision import ClipVisionTower
from tenfold.nn.hivit import HiViT
from tenfold.nn.position import resize_position
from tenfold.weights.clip import ClipSettings
from tenfold.weights.clip_vit import ClipLayout

Range = Literal["official", "correct"]
"""Change of pictures in [0, 1] before the teacher's own normalisation: the official code
takes them for [-1, 1] and so washes them out to [0.5, 1] (`itpn_clip`); or nothing."""


def ranged(x: Float[Tensor, "batch 3 height width"], value_range: Range) -> Tensor:
    """Pictures as the teacher's normalisation gets them."""
    return x if value_range == "correct" else ((x + 1) / 2).clamp(0, 1)


def standardised(x: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """Subtract the mean and divide by the deviation of each channel."""
    shape = (1, 3, 1, 1)
    return (x - x.new_tensor(mean).view(shape)) / x.new_tensor(std).view(shape)


class ClipTeacher(ClipVisionTower):
    """CLIP's image encoder: all patch tokens, projected, normalised without scale and shift."""

    def __init__(
        self, layout: ClipLayout, settings: ClipSettings, value_range: Range = "correct"
    ) -> None:
        dim, patch, grid = layout.output_dim, layout.patch_size, layout.grid
        super().__init__(
            layout.width, layout.layers, dim, patch, grid, settings.heads[0], layout.hidden,
            settings.activation == "quick_gelu",
        )  # fmt: skip
        self.dim, self.patch, self.grid, self.value_range = dim, patch, grid, value_range
        self.mean, self.std = settings.mean, settings.std

    def side(self, units: int) -> int:
        """Pixels of a picture's side with which it gives one token a unit."""
        return units * self.patch

    def normalise(
        self, images: Float[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, "batch 3 height width"]:
        """From [0, 1] to what the encoder was trained on."""
        return standardised(ranged(images, self.value_range), self.mean, self.std)

    def tokens(
        self, images: Float[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, "batch token channel"]:
        """Patch tokens after the last norm."""
        grid = (images.shape[2] // self.patch, images.shape[3] // self.patch)
        positions = self.positional_embedding[None, 1:]
        if grid != self.grid:
            positions = resize_position(positions, self.grid, grid)
        return self.ln_post(self.attended(self.patches(images) + positions)[:, 1:])

    @torch.no_grad()
    def forward(
        self, images: Float[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, "batch token dim"]:
        """Targets for pictures in [0, 1]."""
        target = self.tokens(self.normalise(images)) @ self.proj
        return F.layer_norm(target.float(), target.shape[-1:])


class BackboneTeacher(nn.Module):
    """The main stage of another network of this family, as it stands in a run's weights."""

    def __init__(
        self, backbone: HiViT, mean: tuple[float, ...], std: tuple[float, ...], value_range: Range
    ) -> None:
        super().__init__()
        self.backbone, self.mean, self.std = backbone, mean, std
        self.value_range = value_range
        self.dim = backbone.shape.embed_dim
        self.requires_grad_(False)
        self.eval()

    def side(self, units: int) -> int:
        """Pixels of a picture's side with which it gives one token a unit."""
        return units * self.backbone.shape.patch_size

    @torch.no_grad()
    def forward(
        self, images: Float[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, "batch token dim"]:
        """Targets for pictures in [0, 1]."""
        x = standardised(ranged(images, self.value_range), self.mean, self.std)
        tokens = self.backbone.encode(x).tokens
        return F.layer_norm(tokens.float(), tokens.shape[-1:])
