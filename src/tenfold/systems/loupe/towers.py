"""Both towers and their projections: the dual encoder that is used, whatever it learned from.

The vector of a picture is the mean of its projected tokens, so that it is a sum of players; that of
a text is its first token's. No other module has a say in either.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor, nn

from tenfold.nn.bert import Bert, BertShape
from tenfold.nn.swin import Swin, SwinShape
from tenfold.nn.vit import Vit, VitShape

from .config import Config, Image, Text

MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""ImageNet's, which Swin's weights expect."""
FIRST_SCALE = 1 / 0.07
"""Factor on cosines at the start (CLIP)."""


def normalised(
    images: UInt8[Tensor, "batch 3 height width"],
) -> Float[Tensor, "batch 3 height width"]:
    """Pictures of bytes as the tower expects them."""
    mean, deviation = (
        torch.tensor(values, device=images.device).view(3, 1, 1) for values in (MEAN, DEVIATION)
    )
    return (images / 255 - mean) / deviation


class ConvStem(nn.Sequential):
    """A token of each patch by convolutions (Xiao et al. 2021): the first of stride 4, then 2."""

    def __init__(self, dim: int, patch: int) -> None:
        """``patch``: a power of 2, at least 4."""
        halvings = patch.bit_length() - 3
        layers: list[nn.Module] = []
        before = 3
        for number in range(halvings + 1):
            width = max(8, dim >> (halvings - number))
            kernel, stride = (3, 2) if number else (5, 4)
            layers += [
                nn.Conv2d(before, width, kernel, stride, kernel // 2, bias=False),
                nn.GroupNorm(1, width), nn.ReLU(inplace=True),
            ]  # fmt: skip
            before = width
        super().__init__(*layers, nn.Conv2d(before, dim, 1), nn.Flatten(2))
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(
        self, images: Float[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, "batch token dim"]:
        """Tokens, row by row."""
        found: Tensor = super().forward(images.contiguous(memory_format=torch.channels_last))
        return found.transpose(1, 2)


def image_tower(cfg: Image) -> Vit | Swin:
    """The network from pictures to tokens."""
    if cfg.tower == "vit":
        hidden = int(cfg.ratio * cfg.dim)
        vit = Vit(
            VitShape(
                cfg.dim, cfg.depths[0], cfg.heads[0], cfg.patch, cfg.grid, hidden,
                layer_scale=False,
            )
        )  # fmt: skip
        if cfg.stem == "conv":
            vit.patch_embed = ConvStem(cfg.dim, cfg.patch)  # type: ignore[assignment]
        return vit
    return Swin(SwinShape(cfg.dim, cfg.depths, cfg.heads, cfg.window, cfg.patch, cfg.ratio))


def text_shape(cfg: Text) -> BertShape:
    """Sizes of the network from words to tokens."""
    count = cfg.vocabulary.count("\n") + 1
    return BertShape(
        count, cfg.dim, cfg.depth, cfg.heads, cfg.hidden, cfg.positions, dropout=cfg.dropout
    )


class DualEncoder(nn.Module):
    """Pictures and texts to tokens and vectors of one space."""

    def __init__(self, cfg: Config) -> None:
        super().__init__()
        self.grid = cfg.image.grid
        self.image = image_tower(cfg.image)
        self.text = Bert(text_shape(cfg.text), cfg.text.vector == "pooler")
        self.vector = cfg.text.vector
        wide = self.image.out_dim if isinstance(self.image, Swin) else cfg.image.dim
        self.image_projection = nn.Linear(wide, cfg.dim, bias=False)
        self.text_projection = nn.Linear(cfg.text.dim, cfg.dim, bias=False)
        self.logit_scale = nn.Parameter(torch.tensor(math.log(FIRST_SCALE)))
        for module in self.modules():
            # 0.02, as published, at 768 channels; in narrow towers that would leave little but the
            # embeddings
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=(3 * module.in_features) ** -0.5)
        for layer in (self.image_projection, self.text_projection):
            nn.init.normal_(layer.weight, std=layer.in_features**-0.5)

    def scale(self) -> Float[Tensor, ""]:
        """Factor on cosines, at most 100."""
        return self.logit_scale.clamp(max=math.log(100.0)).exp()

    def image_tokens(
        self, images: Float[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, "batch patch dim"]:
        """Projected tokens of patches, row by row: the players."""
        if isinstance(self.image, Vit):
            return self.image_projection(self.image.tokens(images)[:, 1:])
        return self.image_projection(self.image(images))

    def text_tokens(
        self, words: Int64[Tensor, "batch token"], is_token: Bool[Tensor, "batch token"]
    ) -> tuple[Float[Tensor, "batch dim"], Float[Tensor, "batch token dim"]]:
        """Vectors of texts, and their projected tokens."""
        found = self.text(words, is_token)
        tokens = self.text_projection(found)
        if self.vector == "pooler":
            return self.text_projection(self.text.pooler(found)), tokens
        if self.vector == "first":
            return tokens[:, 0], tokens
        inside = is_token[..., None]
        return (tokens * inside).sum(1) / inside.sum(1), tokens

    def image_vectors(self, images: Tensor) -> Float[Tensor, "batch dim"]:
        """Vectors of pictures, of length 1."""
        return F.normalize(self.image_tokens(images).mean(1), dim=1)

    def text_vectors(self, words: Tensor, is_token: Tensor) -> Float[Tensor, "batch dim"]:
        """Vectors of texts, of length 1."""
        return F.normalize(self.text_tokens(words, is_token)[0], dim=1)

    def forward(
        self,
        images: Float[Tensor, "batch 3 height width"],
        words: Int64[Tensor, "batch token"],
        is_token: Bool[Tensor, "batch token"],
    ) -> tuple[Float[Tensor, "batch dim"], Float[Tensor, "batch dim"]]:
        """Vectors of both sides."""
        return self.image_vectors(images), self.text_vectors(words, is_token)
