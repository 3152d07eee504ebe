"""iTPN's pixel pre-training as the released code computes it, written anew.

Softmax attention is materialised, each level is filled up with mask tokens and unshuffled before
the levels are summed, and pixels of all units are predicted. Names are those of official files.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F


class PlainBlock(nn.Module):
    def __init__(self, dim: int, hidden: int, heads: int = 0) -> None:
        super().__init__()
        self.heads = heads
        if heads:
            self.norm1 = nn.LayerNorm(dim, eps=1e-6)
            self.attn = nn.ModuleDict({"qkv": nn.Linear(dim, 3 * dim), "proj": nn.Linear(dim, dim)})
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(dim, hidden), "fc2": nn.Linear(hidden, dim)})

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.heads:
            y = self.norm1(x)
            batch, tokens, dim = y.shape
            qkv = self.attn["qkv"](y).reshape(batch, tokens, 3, self.heads, dim // self.heads)
            q, k, v = qkv.permute(2, 0, 3, 1, 4)
            scores = (q * (dim // self.heads) ** -0.5) @ k.transpose(-2, -1)
            y = (scores.softmax(-1) @ v).transpose(1, 2).reshape(batch, tokens, dim)
            x = x + self.attn["proj"](y)
        return x + self.mlp["fc2"](F.gelu(self.mlp["fc1"](self.norm2(x))))


class PlainMerge(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * dim, eps=1e-6)
        self.reduction = nn.Linear(4 * dim, 2 * dim, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        parts = [x[..., row::2, column::2, :] for column in (0, 1) for row in (0, 1)]
        return self.reduction(self.norm(torch.cat(parts, -1)))


class PlainSplit(nn.Module):
    def __init__(self, dim: int, out: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.reduction = nn.Linear(dim, 4 * out, bias=False)
        self.out = out

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, units, height, width, _ = x.shape
        x = self.reduction(self.norm(x))
        x = x.reshape(batch, units, height, width, 2, 2, self.out).permute(0, 1, 2, 4, 3, 5, 6)
        return x.reshape(batch, units, 2 * height, 2 * width, self.out)


class PlainPretraining(nn.Module):
    """iTPN-B by default: 224 pixels, units of 16, decoder of 8 blocks."""

    def __init__(
        self, dim: int = 512, depths: tuple[int, int, int] = (3, 3, 24), heads: int = 8,
        fpn: int = 256, fpn_depth: int = 2, decoder: int = 512, decoder_depth: int = 8,
        decoder_heads: int = 16, side: int = 14, patch: int = 16,
    ) -> None:  # fmt: skip
        super().__init__()
        self.side, self.patch, self.main = side, patch, depths[2]
        units = side * side
        self.patch_embed = nn.ModuleDict({
            "proj": nn.Conv2d(3, dim // 4, patch // 4, patch // 4),
            "norm": nn.LayerNorm(dim // 4, eps=1e-6),
        })  # fmt: skip
        self.absolute_pos_embed = nn.Parameter(torch.zeros(1, units, dim))
        stem = [PlainBlock(dim // 4, 3 * dim // 4) for _ in range(depths[0])]
        middle = [PlainBlock(dim // 2, 3 * dim // 2) for _ in range(depths[1])]
        main = [PlainBlock(dim, 4 * dim, heads) for _ in range(depths[2])]
        self.blocks = nn.ModuleList(
            [*stem, PlainMerge(dim // 4), *middle, PlainMerge(dim // 2), *main]
        )
        self.align_dim_16tofpn = nn.Linear(dim, fpn)
        self.align_dim_16to8 = nn.Linear(dim // 2, fpn, bias=False)
        self.split_16to8 = PlainSplit(dim, fpn)
        self.align_dim_8to4 = nn.Linear(dim // 4, fpn, bias=False)
        self.split_8to4 = PlainSplit(fpn, fpn)
        self.block_16to8 = nn.Sequential(*[PlainBlock(fpn, 4 * fpn) for _ in range(fpn_depth)])
        self.block_8to4 = nn.Sequential(*[PlainBlock(fpn, 4 * fpn) for _ in range(fpn_depth)])
        self.fpn_modules = nn.ModuleList([PlainBlock(fpn, 4 * fpn) for _ in range(3)])
        self.decoder_embed = nn.ModuleList([
            nn.Sequential(nn.LayerNorm(fpn, eps=1e-6), nn.Linear(fpn, decoder // k**2))
            for k in (1, 2, 4)
        ])  # fmt: skip
        self.mask_token = nn.Parameter(torch.zeros(1, 1, decoder))
        self.register_buffer("decoder_pos_embed", torch.zeros(1, units, decoder))
        self.decoder_blocks = nn.ModuleList(
            [PlainBlock(decoder, 4 * decoder, decoder_heads) for _ in range(decoder_depth)]
        )
        self.decoder_norm = nn.LayerNorm(decoder, eps=1e-6)
        self.decoder_pred = nn.Linear(decoder, 3 * patch * patch)

    def encode(self, images: torch.Tensor, kept: torch.Tensor) -> list[torch.Tensor]:
        batch, side = len(images), self.side
        x = self.patch_embed["proj"](images)
        x = x.view(batch, -1, side, 4, side, 4).permute(0, 2, 4, 3, 5, 1)
        x = self.patch_embed["norm"](x.reshape(batch, side * side, 4, 4, -1))
        x = torch.gather(x, 1, kept[:, :, None, None, None].expand(-1, -1, *x.shape[2:]))
        features = []
        for block in self.blocks[: -self.main]:
            if isinstance(block, PlainMerge):
                features.append(x)
            x = block(x)
        x = x[..., 0, 0, :]
        table = self.absolute_pos_embed.reshape(1, side, side, -1).permute(0, 3, 1, 2)
        factor = (side + 0.1) / side
        table = F.interpolate(table, scale_factor=(factor, factor), mode="bicubic")
        table = table.permute(0, 2, 3, 1).reshape(1, side * side, -1).expand(batch, -1, -1)
        x = x + torch.gather(table, 1, kept[:, :, None].expand(-1, -1, x.shape[2]))
        for block in self.blocks[-self.main :]:
            x = block(x)
        x = x[..., None, None, :]
        levels = [self.align_dim_16tofpn(x)]
        x = self.block_16to8(self.split_16to8(x) + self.align_dim_16to8(features[1]))
        levels.append(x)
        x = self.block_8to4(self.split_8to4(x) + self.align_dim_8to4(features[0]))
        levels.append(x)
        return [block(level) for block, level in zip(self.fpn_modules, levels, strict=True)]

    def forward(self, images: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        batch, units = noise.shape
        order = noise.argsort(1)
        restore = order.argsort(1)
        keep = units // 4
        mask = torch.ones_like(noise)
        mask[:, :keep] = 0
        mask = torch.gather(mask, 1, restore)
        filled = []
        levels = self.encode(images, order[:, :keep])
        for layer, level in zip(self.decoder_embed, levels, strict=True):
            x = layer(level).reshape(batch, keep, -1)
            tokens = self.mask_token.expand(batch, units - keep, -1).to(x.dtype)
            x = torch.cat([x, tokens], 1)
            filled.append(torch.gather(x, 1, restore[:, :, None].expand(-1, -1, x.shape[2])))
        x = filled[0] + filled[1] + filled[2] + self.decoder_pos_embed
        for block in self.decoder_blocks:
            x = block(x)
        predicted = self.decoder_pred(self.decoder_norm(x))
        side, patch = self.side, self.patch
        target = images.reshape(batch, 3, side, patch, side, patch).permute(0, 2, 4, 3, 5, 1)
        target = target.reshape(batch, units, -1)
        mean, var = target.mean(-1, keepdim=True), target.var(-1, keepdim=True)
        loss = (predicted - (target - mean) / (var + 1e-6) ** 0.5) ** 2
        return (loss.mean(-1) * mask).sum() / mask.sum()
