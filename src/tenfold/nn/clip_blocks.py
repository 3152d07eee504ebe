"""The transformer of CLIP (Radford et al. 2021, arXiv 2103.00020), of pictures and of texts.

Names of parameters are those of the official code (openai/CLIP, clip/model.py).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class ClipBlock(nn.Module):
    """A block of CLIP's transformer."""

    def __init__(self, width: int, heads: int, causal: bool = False) -> None:
        """A token of a `causal` block sees those before it, as in texts."""
        super().__init__()
        self.heads, self.causal = heads, causal
        self.ln_1 = nn.LayerNorm(width)
        self.attn = nn.MultiheadAttention(width, heads, batch_first=True)
        self.ln_2 = nn.LayerNorm(width)
        self.mlp = nn.ModuleDict(
            {"c_fc": nn.Linear(width, 4 * width), "c_proj": nn.Linear(4 * width, width)}
        )

    def forward(self, x: Float[Tensor, "batch token width"]) -> Float[Tensor, "batch token width"]:
        """Attention and MLP with QuickGELU, x * sigmoid(1.702 x)."""
        y = self.ln_1(x)
        qkv = F.linear(y, self.attn.in_proj_weight, self.attn.in_proj_bias)
        q, k, v = qkv.unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind()
        y = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        x = x + self.attn.out_proj(y.transpose(1, 2).flatten(2))
        y = self.mlp["c_fc"](self.ln_2(x))
        return x + self.mlp["c_proj"](y * torch.sigmoid(1.702 * y))


class ClipTransformer(nn.Module):
    """The blocks, under their official name."""

    def __init__(self, width: int, layers: int, heads: int, causal: bool = False) -> None:
        super().__init__()
        blocks = [ClipBlock(width, heads, causal) for _ in range(layers)]
        self.resblocks = nn.ModuleList(blocks)

    def forward(self, x: Float[Tensor, "batch token width"]) -> Float[Tensor, "batch token width"]:
        """All of them."""
        for block in self.resblocks:
            x = block(x)
        return x
