"""CLIP's vision transformer (Radford et al. 2021, arXiv 2103.00020, sec. 2.4).

Names of parameters are those of the official code (openai/CLIP, clip/model.py, VisionTransformer).
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from .clip_blocks import HEAD_CHANNELS, ClipTransformer


class ClipVisionTower(nn.Module):
    """Pictures to one vector each, in the space that they share with texts."""

    def __init__(
        self,
        width: int,
        layers: int,
        dim: int,
        patch: int,
        grid: tuple[int, int],
        heads: int = 0,
        hidden: int = 0,
        quick: bool = True,
    ) -> None:
        """`dim` numbers make a vector; a picture has `grid` rows and columns of square patches.

        0 heads are one for every 64 channels; `hidden` and `quick` are those of `ClipBlock`.
        """
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, patch, patch, bias=False)
        self.class_embedding = nn.Parameter(torch.zeros(width))
        self.positional_embedding = nn.Parameter(torch.zeros(grid[0] * grid[1] + 1, width))
        self.ln_pre = nn.LayerNorm(width)
        heads = heads or max(1, width // HEAD_CHANNELS)
        self.transformer = ClipTransformer(width, layers, heads, False, hidden, quick)
        self.ln_post = nn.LayerNorm(width)
        self.proj = nn.Parameter(torch.zeros(width, dim))
        self.requires_grad_(False)
        self.eval()

    def patches(
        self, images: Float[Tensor, "image 3 height width"]
    ) -> Float[Tensor, "image patch channel"]:
        """Patches without their positions; one of the mean colour, which is 0, is 0."""
        return self.conv1(images).flatten(2).transpose(1, 2)

    @torch.no_grad()
    def encode(
        self,
        patches: Float[Tensor, "image patch channel"],
        kept: Bool[Tensor, "image patch"] | None = None,
    ) -> Float[Tensor, "image dim"]:
        """The feature of the class token, projected; patches that are not `kept` are not seen."""
        x = patches + self.positional_embedding[1:]
        return self._pooled(x, kept)

    @torch.no_grad()
    def encode_some(
        self, patches: Float[Tensor, "patch channel"], kept: Bool[Tensor, "coalition patch"]
    ) -> Float[Tensor, "coalition dim"]:
        """The same of one picture, without computing those patches that nothing keeps.

        Quickest where the coalitions of a call are about equally large.
        """
        most = int(kept.sum(1).max())
        there, which = kept.byte().sort(dim=1, descending=True, stable=True)
        there, which = there[:, :most].bool(), which[:, :most]
        x = (patches + self.positional_embedding[1:])[which]
        return self._pooled(x, there)

    def forward(self, images: Float[Tensor, "image 3 height width"]) -> Float[Tensor, "image dim"]:
        """Vectors of normalised pictures."""
        return self.encode(self.patches(images))

    def attended(
        self,
        x: Float[Tensor, "image patch channel"],
        kept: Bool[Tensor, "image patch"] | None = None,
    ) -> Float[Tensor, "image token channel"]:
        """The class token and all patches, which know their positions, after the transformer."""
        first = (self.class_embedding + self.positional_embedding[0]).expand(len(x), 1, -1)
        if kept is not None:
            kept = torch.cat([kept.new_ones(len(kept), 1), kept], 1)
        return self.transformer(self.ln_pre(torch.cat([first, x], 1)), kept)

    def _pooled(self, x: Tensor, kept: Tensor | None) -> Tensor:
        return self.ln_post(self.attended(x, kept)[:, 0]) @ self.proj
