"""Pangu-Weather's network: a 3D Earth-specific transformer on normalised fields (spec sec. 3)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

from tenfold.data.grid import Grid

from .attention import Plan, attend, compact, expand, relative_index
from .config import Model
from .windows import MASK_VALUE, Size, Windows, groups, pad_end

MLP_CHUNK = 1024
"""Tokens whose hidden layer inference holds at once: it stays in a core's cache."""
DROP_PATH_ENTRIES = 8
"""Rates of DropPath rise over this many entries; layers 1, 4 take the first (spec sec. 3.9)."""

Volume = Float[Tensor, "batch level lat lon channel"]
Coarse = Float[Tensor, "batch level half_lat half_lon double"]


class EarthAttention(nn.Module):
    """Attention in windows with an Earth-specific, a relative or no bias (spec sec. 3.5)."""

    def __init__(self, dim: int, heads: int, windows: Windows, bias: str) -> None:
        super().__init__()
        self.heads, self.windows, self.kind = heads, windows, bias
        self.qkv = nn.Linear(dim, 3 * dim)
        self.project = nn.Linear(dim, dim)
        wz, wh, ww = windows.window
        if bias != "none":
            rows = wz**2 * wh**2 * (2 * ww - 1)
            shape = (rows, windows.types, heads)
            if bias == "relative":
                shape = ((2 * wz - 1) * (2 * wh - 1) * (2 * ww - 1), 1, heads)
            self.bias_table = nn.Parameter(torch.empty(shape))
            nn.init.trunc_normal_(self.bias_table, std=0.02)

    def source(self) -> Tensor | None:
        """The bias in the form in which attention takes it."""
        if self.kind == "none":
            return None
        if self.kind == "earth":
            return compact(self.bias_table, self.windows.window)
        index = relative_index(self.windows.window).to(self.bias_table.device)
        return self.bias_table[index.flatten(), 0].T.view(1, self.heads, *index.shape)

    def forward(self, x: Volume, shifted: bool) -> Float[Tensor, "row channel"]:
        """Attend within windows, shifted by half a window or not; rows of tokens, unprojected."""
        if torch.compiler.is_exporting():
            return self.plain(x, shifted)
        plan = Plan(
            groups(self.windows, shifted, len(x), x.device), self.heads,
            self.windows.window if self.kind == "earth" else None, _precision(x),
        )  # fmt: skip
        rows = x.reshape(-1, x.shape[-1])
        return attend(rows, self.qkv.weight, self.qkv.bias, self.source(), plan)

    def plain(self, x: Volume, shifted: bool) -> Float[Tensor, "row channel"]:
        """The same with torch's attention: what an export should hold."""
        windows, heads = self.windows, self.heads
        # Padded tokens are zero before the linear layer, hence its bias after it.
        cut = windows.cut(windows.pad(self.qkv(x), self.qkv.bias), shifted)
        batch, lon, types, tokens, _ = cut.shape
        source = self.source()
        if source is not None and self.kind == "earth":
            source = expand(source, windows.window)
        bias = x.new_zeros(1, 1, 1, 1) if source is None else source
        bias = bias.expand(types, heads, tokens, tokens)[None]
        if shifted:
            mask = windows.mask().to(bias.device)[:, :, None]  # longitudes or 1, type, 1, ...
            bias = bias + mask.to(bias.dtype) * MASK_VALUE
        if len(bias) > 1:  # a region: its columns differ too
            cut = cut.reshape(batch, 1, lon * types, tokens, -1)
        cut = cut.unflatten(-1, (3, heads, -1)).permute(4, 0, 1, 2, 5, 3, 6)
        q, k, v = cut.reshape(3, -1, cut.shape[3] * heads, tokens, cut.shape[-1]).unbind(0)
        out = F.scaled_dot_product_attention(q, k, v, bias.flatten(0, 2)[None].to(q.dtype))
        out = out.view(batch, lon, types, heads, tokens, -1).transpose(3, 4).flatten(4)
        return windows.join(out, shifted).reshape(-1, x.shape[-1])


def _precision(x: Tensor) -> torch.dtype:
    """Of matrix products with weights."""
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype


class _Mlp(torch.autograd.Function):
    """fc2(GELU(fc1(x))), a chunk of rows at a time; keeps only the hidden layer before GELU."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor, low: torch.dtype
    ) -> Tensor:
        x, w1, b1, w2, b2 = (t.to(low) for t in (x, w1, b1, w2, b2))
        hidden, out = x.new_empty(len(x), len(w1)), x.new_empty(len(x), len(w2))
        for part in _parts(x):
            torch.addmm(b1, x[part], w1.T, out=hidden[part])
            torch.addmm(b2, F.gelu(hidden[part]), w2.T, out=out[part])
        ctx.save_for_backward(x, w1, w2, hidden)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> Any:
        x, w1, w2, hidden = ctx.saved_tensors
        grad = grads[0].to(x.dtype)
        dx, dw1, dw2 = torch.empty_like(x), torch.zeros_like(w1), torch.zeros_like(w2)
        db1 = w1.new_zeros(len(w1))
        for part in _parts(x):
            inner, g = hidden[part], grad[part]
            dw2.addmm_(g.T, F.gelu(inner))
            dinner = torch.ops.aten.gelu_backward(g @ w2, inner)
            dw1.addmm_(dinner.T, x[part])
            db1 += dinner.sum(0)
            torch.mm(dinner, w1, out=dx[part])
        return dx, dw1, db1, dw2, grad.sum(0), None


def _parts(x: Tensor) -> Iterable[slice]:
    step = len(x) if x.is_cuda else MLP_CHUNK
    return [slice(first, min(first + step, len(x))) for first in range(0, len(x), step)]


class EarthBlock(nn.Module):
    """Attention and MLP, each normalised after it and added: post-norm (spec sec. 3.3)."""

    def __init__(self, dim: int, heads: int, windows: Windows, cfg: Model, drop: float) -> None:
        super().__init__()
        self.attention = EarthAttention(dim, heads, windows, cfg.bias)
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.fc1 = nn.Linear(dim, round(cfg.mlp_ratio * dim))
        self.fc2 = nn.Linear(round(cfg.mlp_ratio * dim), dim)
        self.drop = drop

    def mlp(self, x: Float[Tensor, "row channel"]) -> Float[Tensor, "row channel"]:
        """fc2(GELU(fc1(x)))."""
        if torch.compiler.is_exporting():
            return self.fc2(F.gelu(self.fc1(x)))
        fc1, fc2 = self.fc1, self.fc2
        out: Tensor = _Mlp.apply(x, fc1.weight, fc1.bias, fc2.weight, fc2.bias, _precision(x))
        return out

    def forward(self, x: Volume, shifted: bool) -> Volume:
        """One block; DropPath leaves a branch out for a whole sample."""
        shape, attended = x.shape, self.attention(x, shifted)
        rows = x.reshape(-1, shape[-1])
        if torch.is_grad_enabled() or torch.compiler.is_exporting() or x.is_cuda:
            return self.finish(rows, attended, len(x)).view(shape)
        out = torch.empty_like(rows)
        for part in _parts(rows):  # in a core's cache
            out[part] = self.finish(rows[part], attended[part], 1)
        return out.view(shape)

    def finish(self, x: Tensor, attended: Tensor, batch: int) -> Tensor:
        """All that a token does by itself, after attention."""
        x = self._add(x, self.norm1(self.attention.project(attended)), batch)
        return self._add(x, self.norm2(self.mlp(x)), batch)

    def _add(self, x: Tensor, branch: Tensor, batch: int) -> Tensor:
        if not self.training or not self.drop:
            return x + branch
        kept = (torch.rand(batch, device=x.device) >= self.drop).to(x.dtype) / (1 - self.drop)
        return torch.addcmul(
            x, branch.to(x.dtype), kept.repeat_interleave(len(x) // batch)[:, None]
        )


class Layer(nn.Module):
    """Blocks at one resolution, every second one shifted."""

    def __init__(
        self, dim: int, heads: int, windows: Windows, cfg: Model, drops: Iterable[float]
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([EarthBlock(dim, heads, windows, cfg, d) for d in drops])
        self.checkpointed = cfg.checkpoint

    def forward(self, x: Volume) -> Volume:
        """All blocks; with `model.checkpoint` each is computed again in the backward pass."""
        for number, block in enumerate(self.blocks):
            if self.checkpointed and torch.is_grad_enabled():
                x = checkpoint(block, x, number % 2 == 1, use_reentrant=False)
            else:
                x = block(x, number % 2 == 1)
        return x


class DownSample(nn.Module):
    """Halve latitude and longitude, double the channels (spec sec. 3.7)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * dim)
        self.linear = nn.Linear(4 * dim, 2 * dim, bias=False)

    def forward(self, x: Volume) -> Coarse:
        """Merge 2 x 2 neighbours; an odd southern row (or a region's column) meets zeros."""
        x = F.pad(x, (0, 0, 0, x.shape[3] % 2, 0, x.shape[2] % 2))
        x = x.unflatten(3, (-1, 2)).unflatten(2, (-1, 2)).transpose(3, 4)
        return self.linear(self.norm(x.flatten(4)))


class UpSample(nn.Module):
    """Double latitude and longitude, halve the channels (spec sec. 3.7)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.expand = nn.Linear(2 * dim, 4 * dim, bias=False)
        self.norm = nn.LayerNorm(dim)
        self.project = nn.Linear(dim, dim, bias=False)

    def forward(self, x: Coarse, size: Size) -> Volume:
        """Shuffle channels to pixels, crop to `size`."""
        x = self.expand(x).unflatten(4, (2, 2, -1))  # batch level lat lon dlat dlon channel
        x = x.transpose(3, 4).flatten(4, 5).flatten(2, 3)[:, :, : size[1], : size[2]]
        return self.project(self.norm(x))


class PatchEmbed(nn.Module):
    """Patches of fields to tokens: plane 0 is the surface, the rest are levels (spec sec. 3.1)."""

    def __init__(self, upper: int, surface: int, dim: int, patch: Size, flat: bool) -> None:
        super().__init__()
        self.patch, self.flat = patch, flat
        self.upper = nn.Conv3d(upper, dim, patch, patch)
        self.surface = nn.Conv2d(surface, dim, patch[1:], patch[1:])

    def forward(
        self,
        upper: Float[Tensor, "batch variable level lat lon"],
        surface: Float[Tensor, "batch field ground_lat ground_lon"],
    ) -> Float[Tensor, "batch plane row column channel"]:
        """Tokens; in 2-D attention the surface is added to the one plane of levels."""
        pz, ph, pw = self.patch
        x = pad_end(upper, self.patch).unflatten(2, (-1, pz)).unflatten(4, (-1, ph))
        x = x.unflatten(6, (-1, pw)).permute(0, 2, 4, 6, 1, 3, 5, 7).flatten(4)
        levels = F.linear(x, self.upper.weight.flatten(1), self.upper.bias)
        y = pad_end(surface, self.patch[1:]).unflatten(2, (-1, ph)).unflatten(4, (-1, pw))
        y = y.permute(0, 2, 4, 1, 3, 5).flatten(3)
        ground = F.linear(y, self.surface.weight.flatten(1), self.surface.bias)[:, None]
        return levels + ground if self.flat else torch.cat([ground, levels], 1)


class PatchRecover(nn.Module):
    """Tokens to fields: plane 0 gives the surface, the rest the levels (spec sec. 3.8)."""

    def __init__(
        self, upper: int, surface: int, dim: int, patch: Size, flat: bool, pixel_bias: bool
    ) -> None:
        super().__init__()
        self.patch, self.flat = patch, flat
        pz, ph, pw = patch
        many = (pz * ph * pw, ph * pw) if pixel_bias else (1, 1)
        self.upper_weight = nn.Parameter(torch.empty(dim, upper, *patch))
        self.upper_bias = nn.Parameter(torch.zeros(upper * many[0]))
        self.surface_weight = nn.Parameter(torch.empty(dim, surface, ph, pw))
        self.surface_bias = nn.Parameter(torch.zeros(surface * many[1]))
        for weight in (self.upper_weight, self.surface_weight):
            nn.init.trunc_normal_(weight, std=0.02)

    def forward(
        self, x: Volume, levels: int, rows: int, columns: int
    ) -> tuple[
        Float[Tensor, "batch variable levels rows columns"],
        Float[Tensor, "batch field rows columns"],
    ]:
        """Fields, cropped to `levels`, `rows` and `columns`."""
        planes, ground = (x, x[:, 0]) if self.flat else (x[:, 1:], x[:, 0])
        upper = self._pixels(planes, self.upper_weight, self.upper_bias)
        upper = upper.unflatten(-1, self.upper_weight.shape[1:])  # ... variable pz ph pw
        upper = upper.permute(0, 4, 1, 5, 2, 6, 3, 7).flatten(6).flatten(4, 5).flatten(2, 3)
        surface = self._pixels(ground, self.surface_weight, self.surface_bias)
        surface = surface.unflatten(-1, self.surface_weight.shape[1:])
        surface = surface.permute(0, 3, 1, 4, 2, 5).flatten(4).flatten(2, 3)
        return upper[:, :, :levels, :rows, :columns], surface[:, :, :rows, :columns]

    @staticmethod
    def _pixels(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        pixels = weight.flatten(1).shape[1]
        return F.linear(x, weight.flatten(1).T, bias.repeat_interleave(pixels // len(bias)))


class Pangu(nn.Module):
    """One lead time's network, on normalised fields with a batch axis."""

    surface_constants: Tensor
    upper_constants: Tensor

    def __init__(self, cfg: Model, grid: Grid) -> None:
        super().__init__()
        self.cfg, self.grid = cfg, grid
        self.levels, (lat, lon) = len(grid.levels), grid.shape
        flat = cfg.attention == "2d"
        patch = (self.levels, *cfg.patch[1:]) if flat else cfg.patch
        sizes = token_sizes(cfg, grid)
        window = (1, *cfg.window[1:]) if flat else cfg.window
        fine, coarse = (Windows(size, window, grid.periodic) for size in sizes)
        variables, fields, dim = len(grid.upper), len(grid.surface), cfg.dim
        extra = int(cfg.height_channel)
        rows, columns = (-(-n // p) * p for n, p in zip((lat, lon), patch[1:], strict=True))
        # padded: the official weights come with maps whose padding is not zero (spec sec. 2)
        self.register_buffer("surface_constants", torch.zeros(len(grid.constants), rows, columns))
        self.register_buffer("upper_constants", torch.zeros(extra, self.levels, lat, lon))
        self.embed = PatchEmbed(variables + extra, fields + len(grid.constants), dim, patch, flat)
        rates = torch.linspace(0, cfg.drop_path, DROP_PATH_ENTRIES).tolist()
        a, b, c, d = cfg.depths
        outer, inner = rates[:2], rates[2:]
        self.layer1 = Layer(dim, cfg.heads[0], fine, cfg, _spread(outer, a))
        self.down = DownSample(dim)
        self.layer2 = Layer(2 * dim, cfg.heads[1], coarse, cfg, _spread(inner, b))
        self.layer3 = Layer(2 * dim, cfg.heads[2], coarse, cfg, _spread(inner, c))
        self.up = UpSample(dim)
        self.layer4 = Layer(dim, cfg.heads[3], fine, cfg, _spread(outer, d))
        pixel = cfg.recovery_bias == "pixel"
        self.recover = PatchRecover(variables, fields, 2 * dim, patch, flat, pixel)
        self.apply(_initialise)
        if cfg.residual:
            nn.init.zeros_(self.recover.upper_weight)
            nn.init.zeros_(self.recover.surface_weight)

    def forward(
        self,
        upper: Float[Tensor, "batch variable level lat lon"],
        surface: Float[Tensor, "batch field lat lon"],
    ) -> tuple[Float[Tensor, "batch variable level lat lon"], Float[Tensor, "batch field lat lon"]]:
        """The fields one lead time later."""
        given, ground = upper, surface
        if len(self.upper_constants):
            given = torch.cat([upper, self.upper_constants.expand(len(upper), -1, -1, -1, -1)], 1)
        if len(self.surface_constants):
            masks = self.surface_constants.expand(len(surface), -1, -1, -1)
            ground = torch.cat([pad_end(surface, self.embed.patch[1:]), masks], 1)
        x = self.layer1(self.embed(given, ground))
        skip, size = x, (x.shape[1], x.shape[2], x.shape[3])
        x = self.layer3(self.layer2(self.down(x)))
        x = torch.cat([skip, self.layer4(self.up(x, size))], -1)
        made = self.recover(x, self.levels, *self.grid.shape)
        if self.cfg.residual:
            return upper + made[0], surface + made[1]
        return made


def token_sizes(cfg: Model, grid: Grid) -> tuple[Size, Size]:
    """Tokens along level, latitude, longitude of both resolutions."""
    (lat, lon), (pz, ph, pw) = grid.shape, cfg.patch
    planes = 1 if cfg.attention == "2d" else -(-len(grid.levels) // pz) + 1
    if grid.periodic and lon % (2 * pw):
        raise ValueError(
            f"{lon} longitudes are not divisible by twice the patch of {pw}: a periodic axis "
            "cannot be padded. Choose another model.patch, or a grid whose size it divides"
        )
    fine = (planes, -(-lat // ph), -(-lon // pw))
    return fine, (planes, -(-fine[1] // 2), -(-fine[2] // 2))


def _spread(rates: list[float], depth: int) -> list[float]:
    """A rate for each block; the entries themselves where there are as many."""
    at = torch.linspace(0, len(rates) - 1, depth) if depth > 1 else torch.zeros(depth)
    return [rates[round(float(i))] for i in at]


def _initialise(module: nn.Module) -> None:
    """Truncated normal weights of 0.02, biases 0 (spec sec. 4)."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
