"""The transformer of CLIP (Radford et al. 2021, arXiv 2103.00020), of pictures and of texts.

Names of parameters are those of the official code (openai/CLIP, clip/model.py). Its activation is
QuickGELU, x * sigmoid(1.702 x); most networks of mlfoundations/open_clip have GELU.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

HEAD_CHANNELS = 64
"""Channels of an attention head in every size of OpenAI's; the weights do not say."""

Kept = Bool[Tensor, "batch token"]


class ClipBlock(nn.Module):
    """A block of CLIP's transformer."""

    def __init__(
        self, width: int, heads: int, causal: bool = False, hidden: int = 0, quick: bool = True
    ) -> None:
        """A token of a `causal` block sees those before it, as in texts.

        Args:
            width: Channels.
            heads: Heads of the attention.
            causal: Whether no token sees a later one.
            hidden: Channels within the MLP; 0: four times the width.
            quick: Whether the activation is QuickGELU, else GELU.
        """
        super().__init__()
        self.heads, self.causal, self.quick = heads, causal, quick
        hidden = hidden or 4 * width
        self.ln_1 = nn.LayerNorm(width)
        self.attn = nn.MultiheadAttention(width, heads, batch_first=True)
        self.ln_2 = nn.LayerNorm(width)
        self.mlp = nn.ModuleDict(
            {"c_fc": nn.Linear(width, hidden), "c_proj": nn.Linear(hidden, width)}
        )

    def forward(
        self, x: Float[Tensor, "batch token width"], kept: Kept | None = None
    ) -> Float[Tensor, "batch token width"]:
        """Attention and MLP; `kept` is False for tokens that none attends to."""
        y = self.ln_1(x)
        qkv = F.linear(y, self.attn.in_proj_weight, self.attn.in_proj_bias)
        q, k, v = qkv.unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind()
        seen = None if kept is None else kept[:, None, None]  # batch, head, query, key
        if seen is not None and self.causal:
            seen = (
                seen & torch.ones(x.shape[1], x.shape[1], dtype=torch.bool, device=x.device).tril()
            )
        is_causal = self.causal and seen is None
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=seen, is_causal=is_causal)
        x = x + self.attn.out_proj(y.transpose(1, 2).flatten(2))
        y = self.mlp["c_fc"](self.ln_2(x))
        y = y * torch.sigmoid(1.702 * y) if self.quick else F.gelu(y)
        return x + self.mlp["c_proj"](y)


class ClipTransformer(nn.Module):
    """The blocks, under their official name."""

    def __init__(
        self,
        width: int,
        layers: int,
        heads: int,
        causal: bool = False,
        hidden: int = 0,
        quick: bool = True,
    ) -> None:
        super().__init__()
        blocks = [ClipBlock(width, heads, causal, hidden, quick) for _ in range(layers)]
        self.resblocks = nn.ModuleList(blocks)

    def forward(
        self, x: Float[Tensor, "batch token width"], kept: Kept | None = None
    ) -> Float[Tensor, "batch token width"]:
        """All of them."""
        for block in self.resblocks:
            x = block(x, kept)
        return x
