"""CLIP's text encoder (Radford et al. 2021, arXiv 2103.00020, sec. 2.4).

Names of parameters are those of the official code (openai/CLIP, clip/model.py, `encode_text`).
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from .clip_blocks import ClipTransformer

HEAD_CHANNELS = 64
"""Channels of an attention head in every published size; the weights do not say."""


class ClipTextTower(nn.Module):
    """Tokens of texts to one vector each, in the space that texts share with pictures."""

    def __init__(
        self, width: int, layers: int, dim: int, context: int = 77, vocabulary: int = 49408
    ) -> None:
        """`dim` numbers make a vector; `context` is the most tokens of a text."""
        super().__init__()
        self.context = context
        self.token_embedding = nn.Embedding(vocabulary, width)
        self.positional_embedding = nn.Parameter(torch.zeros(context, width))
        heads = max(1, width // HEAD_CHANNELS)
        self.transformer = ClipTransformer(width, layers, heads, causal=True)
        self.ln_final = nn.LayerNorm(width)
        self.text_projection = nn.Parameter(torch.zeros(width, dim))
        self.requires_grad_(False)
        self.eval()

    @torch.no_grad()
    def forward(self, tokens: Int64[Tensor, "text token"]) -> Float[Tensor, "text dim"]:
        """The feature at each text's end, which is its largest token, projected; of any length.

        No token sees a later one, so that what stands behind the last end is not computed.
        """
        ends = tokens.argmax(1)
        tokens = tokens[:, : int(ends.max()) + 1]
        x = self.token_embedding(tokens) + self.positional_embedding[: tokens.shape[1]]
        x = self.ln_final(self.transformer(x))
        return x[torch.arange(len(x)), ends] @ self.text_projection
