"""Pangu-Weather computed step by step as its description reads.

What `benchmarks/pangu.py` compares with. Written from the description of the official pseudocode,
with its parameter names (so that our weights convert), without its leftovers: masks are built once,
not in every call. As in the public ports: windows are padded before the linear layers, the bias is
gathered from its table in every forward, the mask is one for every window, attention matrices are
whole tensors, and autograd does the backward pass.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn


def pairs(window: tuple[int, int, int]) -> torch.Tensor:
    """Row of the bias table for (query, key), flat."""
    wz, wh, ww = window
    z, h, x = torch.meshgrid(*map(torch.arange, window), indexing="ij")
    z, h, x = z.flatten(), h.flatten(), x.flatten()
    row = (z[:, None] + wz * z[None]) * wh**2 + h[:, None] + wh * h[None]
    return (row * (2 * ww - 1) + x[:, None] - x[None] + ww - 1).flatten()


def into_windows(x, window):
    """(batch, lon window, type, token, channel) of (batch, level, lat, lon, channel)."""
    batch, z, h, w, channels = x.shape
    wz, wh, ww = window
    x = x.reshape(batch, z // wz, wz, h // wh, wh, w // ww, ww, channels)
    x = x.permute(0, 5, 1, 3, 2, 4, 6, 7)
    return x.reshape(batch, w // ww, (z // wz) * (h // wh), wz * wh * ww, channels)


def from_windows(x, window, size):
    (z, h, w), (wz, wh, ww) = size, window
    x = x.reshape(len(x), w // ww, z // wz, h // wh, wz, wh, ww, -1)
    return x.permute(0, 2, 4, 3, 5, 1, 6, 7).reshape(len(x), z, h, w, -1)


def full_mask(padded, window) -> torch.Tensor:
    """0 and -100, (lon window, type, query, key)."""
    (z, h, w), (wz, wh, _) = padded, window
    region = torch.zeros(1, z, h, w, 1)
    levels = (slice(0, -wz), slice(-wz, -(wz // 2)), slice(-(wz // 2), None))
    rows = (slice(0, -wh), slice(-wh, -(wh // 2)), slice(-(wh // 2), None))
    for i, level in enumerate(levels):
        for j, row in enumerate(rows):
            region[:, level, row] = 3 * i + j
    ids = into_windows(region, window)[0, ..., 0]
    return torch.where(ids[..., None, :] != ids[..., :, None], -100.0, 0.0)


class EarthAttention3D(nn.Module):
    def __init__(self, dim, heads, types, window) -> None:
        super().__init__()
        wz, wh, ww = window
        self.heads, self.types, self.tokens = heads, types, wz * wh * ww
        self.linear1, self.linear2 = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        rows = wz**2 * wh**2 * (2 * ww - 1)
        self.earth_specific_bias = nn.Parameter(torch.zeros(rows, types, heads))
        self.register_buffer("position_index", pairs(window), persistent=False)

    def forward(self, x, mask):
        batch, lon, types, tokens, dim = x.shape
        qkv = self.linear1(x).reshape(batch, lon, types, tokens, 3, self.heads, dim // self.heads)
        q, k, v = qkv.permute(4, 0, 1, 2, 5, 3, 6)
        scores = (q * (dim // self.heads) ** -0.5) @ k.transpose(-2, -1)
        bias = self.earth_specific_bias[self.position_index]
        bias = bias.view(tokens, tokens, types, self.heads).permute(2, 3, 0, 1)
        scores = scores + bias
        if mask is not None:
            scores = scores + mask[None, :, :, None]
        out = torch.softmax(scores, -1) @ v
        return self.linear2(out.transpose(3, 4).reshape(batch, lon, types, tokens, dim))


class Mlp(nn.Module):
    def __init__(self, dim) -> None:
        super().__init__()
        self.linear1, self.linear2 = nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim)

    def forward(self, x):
        return self.linear2(F.gelu(self.linear1(x)))


class Block(nn.Module):
    def __init__(self, dim, heads, size, window, shifted, drop) -> None:
        super().__init__()
        z, h, w = size
        self.size, self.window, self.drop = size, window, drop
        self.padded = z, -(-h // window[1]) * window[1], w
        self.shift = tuple(n // 2 for n in window) if shifted else None
        types = (z // window[0]) * (self.padded[1] // window[1])
        self.attention = EarthAttention3D(dim, heads, types, window)
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.linear = Mlp(dim)
        mask = full_mask(self.padded, window) if shifted else None
        self.register_buffer("mask", mask, persistent=False)

    def drop_path(self, x):
        if not self.training or not self.drop:
            return x
        kept = torch.rand(len(x), 1, 1, device=x.device) >= self.drop
        return x * kept / (1 - self.drop)

    def forward(self, x):
        z, h, w = self.size
        y = x.reshape(len(x), z, h, w, -1)
        y = F.pad(y, (0, 0, 0, 0, 0, self.padded[1] - h))
        if self.shift:
            y = torch.roll(y, [-s for s in self.shift], (1, 2, 3))
        y = self.attention(into_windows(y, self.window), self.mask)
        y = from_windows(y, self.window, self.padded)
        if self.shift:
            y = torch.roll(y, self.shift, (1, 2, 3))
        y = y[:, :, :h].reshape(x.shape)
        x = x + self.drop_path(self.norm1(y))
        return x + self.drop_path(self.norm2(self.linear(x)))


class Layer(nn.Module):
    def __init__(self, dim, heads, size, window, drops) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            Block(dim, heads, size, window, i % 2 == 1, drop) for i, drop in enumerate(drops)
        )

    def forward(self, x):
        for block in self.blocks:
            x = block(x)
        return x


class DownSample(nn.Module):
    def __init__(self, dim, size) -> None:
        super().__init__()
        self.size = size
        self.norm, self.linear = nn.LayerNorm(4 * dim), nn.Linear(4 * dim, 2 * dim, bias=False)

    def forward(self, x):
        z, h, w = self.size
        x = F.pad(x.reshape(len(x), z, h, w, -1), (0, 0, 0, 0, 0, h % 2))
        x = x.reshape(len(x), z, (h + 1) // 2, 2, w // 2, 2, -1).permute(0, 1, 2, 4, 3, 5, 6)
        return self.linear(self.norm(x.reshape(len(x), z * ((h + 1) // 2) * (w // 2), -1)))


class UpSample(nn.Module):
    def __init__(self, dim, size) -> None:
        super().__init__()
        self.size = size
        self.linear1 = nn.Linear(2 * dim, 4 * dim, bias=False)
        self.linear2 = nn.Linear(dim, dim, bias=False)
        self.norm = nn.LayerNorm(dim)

    def forward(self, x):
        z, h, w = self.size
        x = self.linear1(x).reshape(len(x), z, (h + 1) // 2, w // 2, 2, 2, -1)
        x = x.permute(0, 1, 2, 4, 3, 5, 6).reshape(len(x), z, h + h % 2, w, -1)[:, :, :h]
        return self.linear2(self.norm(x.reshape(len(x), z * h * w, -1)))


class PatchEmbedding(nn.Module):
    def __init__(self, upper, surface, dim, patch) -> None:
        super().__init__()
        self.patch = patch
        self.conv = nn.Conv3d(upper, dim, patch, patch)
        self.conv_surface = nn.Conv2d(surface, dim, patch[1:], patch[1:])

    def forward(self, upper, surface):
        pz, ph, pw = self.patch
        levels, rows, columns = upper.shape[2:]
        upper = F.pad(upper, (0, -columns % pw, 0, -rows % ph, 0, -levels % pz))
        surface = F.pad(surface, (0, -columns % pw, 0, -rows % ph))
        x = torch.cat([self.conv_surface(surface)[:, :, None], self.conv(upper)], 2)
        return x.flatten(2).transpose(1, 2)


class PatchRecovery(nn.Module):
    def __init__(self, upper, surface, dim, patch, size) -> None:
        super().__init__()
        self.size = size
        self.conv = nn.ConvTranspose3d(dim, upper, patch, patch)
        self.conv_surface = nn.ConvTranspose2d(dim, surface, patch[1:], patch[1:])

    def forward(self, x, levels, rows, columns):
        x = x.transpose(1, 2).reshape(len(x), x.shape[2], *self.size)
        upper, surface = self.conv(x[:, :, 1:]), self.conv_surface(x[:, :, 0])
        return upper[:, :, :levels, :rows, :columns], surface[:, :, :rows, :columns]


class Straightforward(nn.Module):
    def __init__(self, upper, surface, constants, grid, dim, depths, heads, patch, window, drop):
        """`upper`, `surface`: numbers of variables; `grid`: levels, latitudes, longitudes."""
        super().__init__()
        self.grid = grid
        levels, lat, lon = grid
        fine = -(-levels // patch[0]) + 1, -(-lat // patch[1]), lon // patch[2]
        coarse = fine[0], (fine[1] + 1) // 2, fine[2] // 2
        rates = torch.linspace(0, drop, 8).tolist()
        self.register_buffer("constants", torch.zeros(constants, lat, lon), persistent=False)
        self._input_layer = PatchEmbedding(upper, surface + constants, dim, patch)
        self.layer1 = Layer(dim, heads[0], fine, window, rates[:2][: depths[0]])
        self.downsample = DownSample(dim, fine)
        self.layer2 = Layer(2 * dim, heads[1], coarse, window, rates[2:][: depths[1]])
        self.layer3 = Layer(2 * dim, heads[2], coarse, window, rates[2:][: depths[2]])
        self.upsample = UpSample(dim, fine)
        self.layer4 = Layer(dim, heads[3], fine, window, rates[:2][: depths[3]])
        self._output_layer = PatchRecovery(upper, surface, 2 * dim, patch, fine)

    def forward(self, upper, surface):
        masks = self.constants.expand(len(surface), -1, -1, -1)
        x = self._input_layer(upper, torch.cat([surface, masks], 1))
        x = skip = self.layer1(x)
        x = self.layer3(self.layer2(self.downsample(x)))
        x = self.layer4(self.upsample(x))
        return self._output_layer(torch.cat([skip, x], -1), *self.grid)
