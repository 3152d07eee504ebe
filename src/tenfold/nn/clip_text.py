"""CLIP's text encoder (Radford et al. 2021, arXiv 2103.00020, sec. 2.4).

Names of parameters are those of the official code (openai/CLIP, clip/model.py, `encode_text`).
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from .clip_blocks import HEAD_CHANNELS, ClipTransformer


class ClipTextTower(nn.Module):
    """Tokens of texts to one vector each, in the space that texts share with pictures."""

    def __init__(
        self,
        width: int,
        layers: int,
        dim: int,
        context: int = 77,
        vocabulary: int = 49408,
        heads: int = 0,
        hidden: int = 0,
        quick: bool = True,
    ) -> None:
        """`dim` numbers make a vector; `context` is the most tokens of a text.

        0 heads are one for every 64 channels; `hidden` and `quick` are those of `ClipBlock`.
        """
        super().__init__()
        self.context = context
        self.token_embedding = nn.Embedding(vocabulary, width)
        self.positional_embedding = nn.Parameter(torch.zeros(context, width))
        heads = heads or max(1, width // HEAD_CHANNELS)
        self.transformer = ClipTransformer(width, layers, heads, True, hidden, quick)
        self.ln_final = nn.LayerNorm(width)
        self.text_projection = nn.Parameter(torch.zeros(width, dim))
        self.requires_grad_(False)
        self.eval()

    @torch.no_grad()
    def forward(
        self,
        tokens: Int64[Tensor, "text token"],
        kept: Bool[Tensor, "text token"] | None = None,
    ) -> Float[Tensor, "text dim"]:
        """The feature at each text's end, which is its largest token, projected; of any length.

        No token sees a later one, so that what stands behind the last end is not computed. Tokens
        that are not `kept` keep their place, and none attends to them.
        """
        ends = tokens.argmax(1)
        tokens = tokens[:, : int(ends.max()) + 1]
        kept = None if kept is None else kept[:, : tokens.shape[1]]
        x = self.token_embedding(tokens) + self.positional_embedding[: tokens.shape[1]]
        x = self.ln_final(self.transformer(x, kept))
        return x[torch.arange(len(x)), ends] @ self.text_projection
