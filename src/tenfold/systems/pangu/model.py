"""Pangu-Weather's network: a 3D Earth-specific transformer on normalised fields.

After the official pseudocode (198808xc/Pangu-Weather, `pseudocode.py`), whose class is named where
it has one. Where it cannot run or disagrees with the official ONNX files, the files count.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from tenfold.data.weather.grid import Grid

from .attention import Plan, attend, pair_index, permuted
from .config import Model
from .tokenwise import EPS, finish
from .windows import MASK_VALUE, Order, Size, Windows, pad_end, window_order

DROP_PATH_ENTRIES = 8
"""Rates of DropPath rise over this many entries; layers 1, 4 take the first two, layers 2, 3 the
other six (pseudocode, `drop_list`)."""

Volume = Float[Tensor, "batch level lat lon channel"]
Coarse = Float[Tensor, "batch level half_lat half_lon double"]


class EarthAttention(nn.Module):
    """Attention in windows with an Earth-specific, a relative or no bias (`EarthAttention3D`)."""

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

    def forward(self, x: Float[Tensor, "row channel"], order: Order) -> Tensor:
        """Attend within windows, in whose order tokens are; before the last linear layer."""
        index = pair_index(self.kind, self.windows.window, x.device)
        table = None
        if self.kind != "none":  # as a matrix, whose transpose torch copies fast
            table = self.bias_table.flatten(1).T.contiguous().unflatten(0, (-1, self.heads))
        plan = Plan(order, self.heads, index, _precision(x))
        return attend(x, self.qkv.weight, self.qkv.bias, table, plan)

    def plain(self, x: Volume, shifted: bool) -> Volume:
        """The same on a volume with torch's attention: what an export should hold."""
        windows, heads = self.windows, self.heads
        # Padded tokens are zero before the linear layer, hence its bias after it.
        cut = windows.cut(windows.pad(self.qkv(x), self.qkv.bias), shifted)
        batch, lon, types, tokens, _ = cut.shape
        bias = x.new_zeros(1, 1, tokens, tokens)
        if self.kind != "none":
            index = pair_index(self.kind, windows.window, x.device)
            bias = self.bias_table[index].permute(2, 3, 0, 1)  # type head query key
        bias = bias.expand(types, heads, -1, -1)[None]
        if shifted:
            mask = windows.mask().to(bias.device)[:, :, None]  # longitudes or 1, type, 1, ...
            bias = bias + mask.to(bias.dtype) * MASK_VALUE
        if len(bias) > 1:  # a region: its columns differ too
            cut = cut.reshape(batch, 1, lon * types, tokens, -1)
        # q/k/v batch longitude type head token channel
        cut = cut.unflatten(-1, (3, heads, -1)).permute(4, 0, 1, 2, 5, 3, 6)
        q, k, v = cut.reshape(3, -1, cut.shape[3] * heads, tokens, cut.shape[-1]).unbind(0)
        out = F.scaled_dot_product_attention(q, k, v, bias.flatten(0, 2)[None].to(q.dtype))
        # back to batch longitude type token (head channel)
        out = out.view(batch, lon, types, heads, tokens, -1).transpose(3, 4).flatten(4)
        return windows.join(out, shifted)


def _precision(x: Tensor) -> torch.dtype:
    """Of matrix products with weights."""
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype


class EarthBlock(nn.Module):
    """Attention and MLP, each normalised after it and added: post-norm (`EarthSpecificBlock`)."""

    def __init__(self, dim: int, heads: int, windows: Windows, cfg: Model, drop: float) -> None:
        super().__init__()
        self.attention = EarthAttention(dim, heads, windows, cfg.bias)
        self.norm1, self.norm2 = nn.LayerNorm(dim, EPS), nn.LayerNorm(dim, EPS)
        self.fc1 = nn.Linear(dim, round(cfg.mlp_ratio * dim))
        self.fc2 = nn.Linear(round(cfg.mlp_ratio * dim), dim)
        self.drop = drop

    def forward(self, x: Volume, shifted: bool) -> Volume:
        """One block, shifted by half a window or not."""
        if torch.compiler.is_exporting():
            y = x + self.norm1(self.attention.project(self.attention.plain(x, shifted)))
            return y + self.norm2(self.fc2(F.gelu(self.fc1(y))))
        order = window_order(self.attention.windows, shifted, len(x), x.device)
        rows = permuted(x.reshape(-1, x.shape[-1]), order.rows, order.back)
        return permuted(self.in_order(rows, order), order.back, order.rows).view(x.shape)

    def in_order(self, x: Float[Tensor, "row channel"], order: Order) -> Tensor:
        """The same on tokens in the order of windows."""
        layers = self.attention.project, self.fc1, self.fc2, self.norm1, self.norm2
        weights = [w for layer in layers for w in (layer.weight, layer.bias)]
        factors = None
        if self.training and self.drop:
            factors = self._factor(x, order), self._factor(x, order)
        attended, keep = self.attention(x, order), torch.is_grad_enabled()
        return finish(x, attended, factors, _precision(x), keep, weights)

    def _factor(self, x: Tensor, order: Order) -> Float[Tensor, "row 1"]:
        """DropPath: 0 for samples whose branch is left out, else what keeps the mean."""
        kept = torch.rand(order.batch, 1, device=x.device) >= self.drop
        return kept.to(x.dtype)[order.sample] / (1 - self.drop)


class Layer(nn.Module):
    """Blocks at one resolution, every second one shifted."""

    def __init__(
        self, dim: int, heads: int, windows: Windows, cfg: Model, drops: Iterable[float]
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([EarthBlock(dim, heads, windows, cfg, d) for d in drops])
        self.windows, self.checkpointed = windows, cfg.checkpoint

    def forward(self, x: Volume) -> Volume:
        """All blocks; with `model.checkpoint` each is computed again in the backward pass."""
        if torch.compiler.is_exporting():
            for number, block in enumerate(self.blocks):
                x = block(x, number % 2 == 1)
            return x
        rows, before = x.reshape(-1, x.shape[-1]), None
        for number, block in enumerate(self.blocks):
            assert isinstance(block, EarthBlock)
            order = window_order(self.windows, number % 2 == 1, len(x), x.device)
            if before is None:
                rows = permuted(rows, order.rows, order.back)
            else:
                rows = permuted(rows, before.back[order.rows], order.back[before.rows])
            if self.checkpointed and torch.is_grad_enabled():
                rows = checkpoint(block.in_order, rows, order, use_reentrant=False)
            else:
                rows = block.in_order(rows, order)
            before = order
        assert before is not None  # depths are at least 1
        return permuted(rows, before.back, before.rows).view(x.shape)


class DownSample(nn.Module):
    """Halve latitude and longitude, double the channels (`DownSample`)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * dim)
        self.linear = nn.Linear(4 * dim, 2 * dim, bias=False)

    def forward(self, x: Volume) -> Coarse:
        """Merge 2 x 2 neighbours; an odd southern row (or a region's column) meets zeros."""
        x = F.pad(x, (0, 0, 0, x.shape[3] % 2, 0, x.shape[2] % 2))
        # batch level lat/2 lon/2 dlat dlon channel
        x = x.unflatten(3, (-1, 2)).unflatten(2, (-1, 2)).transpose(3, 4)
        return self.linear(self.norm(x.flatten(4)))  # 4 dim channels to 2 dim


class UpSample(nn.Module):
    """Double latitude and longitude, halve the channels (`UpSample`)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.expand = nn.Linear(2 * dim, 4 * dim, bias=False)
        self.norm = nn.LayerNorm(dim)
        self.project = nn.Linear(dim, dim, bias=False)

    def forward(self, x: Coarse, size: Size) -> Volume:
        """Shuffle channels to pixels, crop to `size`."""
        x = self.expand(x).unflatten(4, (2, 2, -1))  # batch level lat lon dlat dlon channel
        # batch level lat dlat lon dlon channel; each pair is one axis of twice the length
        x = x.transpose(3, 4).flatten(4, 5).flatten(2, 3)[:, :, : size[1], : size[2]]
        return self.project(self.norm(x))


class PatchEmbed(nn.Module):
    """Patches of fields to tokens: plane 0 is the surface, the rest levels (`PatchEmbedding`)."""

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
        # a convolution whose stride is its size: batch variable plane pz row ph column pw, then
        # batch plane row column (variable pz ph pw)
        x = pad_end(upper, self.patch).unflatten(2, (-1, pz)).unflatten(4, (-1, ph))
        x = x.unflatten(6, (-1, pw)).permute(0, 2, 4, 6, 1, 3, 5, 7).flatten(4)
        levels = F.linear(x, self.upper.weight.flatten(1), self.upper.bias)
        y = pad_end(surface, self.patch[1:]).unflatten(2, (-1, ph)).unflatten(4, (-1, pw))
        y = y.permute(0, 2, 4, 1, 3, 5).flatten(3)  # batch row column (field ph pw)
        ground = F.linear(y, self.surface.weight.flatten(1), self.surface.bias)[:, None]
        return levels + ground if self.flat else torch.cat([ground, levels], 1)


class PatchRecover(nn.Module):
    """Tokens to fields: plane 0 gives the surface, the rest the levels (`PatchRecovery`)."""

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
        # batch variable (plane pz) (row ph) (column pw)
        upper = upper.permute(0, 4, 1, 5, 2, 6, 3, 7).flatten(6).flatten(4, 5).flatten(2, 3)
        surface = self._pixels(ground, self.surface_weight, self.surface_bias)
        surface = surface.unflatten(-1, self.surface_weight.shape[1:])
        surface = surface.permute(0, 3, 1, 4, 2, 5).flatten(4).flatten(2, 3)  # batch field lat lon
        return upper[:, :, :levels, :rows, :columns], surface[:, :, :rows, :columns]

    @staticmethod
    def _pixels(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        pixels = weight.flatten(1).shape[1]
        return F.linear(x, weight.flatten(1).T, bias.repeat_interleave(pixels // len(bias)))


class Pangu(nn.Module):
    """One lead time's network, on normalised fields with a batch axis.

    Args:
        cfg: Sizes and ablations.
        grid: Fields and grid; the levels, with the surface, must fill whole windows.

    Example:
        network = Pangu(Model(dim=48, heads=(3, 6, 6, 3), patch=(2, 2, 2), window=(2, 4, 8)), grid)
        upper, surface = network(upper, surface)
    """

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
        # padded: the official weights come with maps whose padding is not zero (ONNX)
        self.register_buffer("surface_constants", torch.zeros(len(grid.constants), rows, columns))
        self.register_buffer("upper_constants", torch.zeros(extra, self.levels, lat, lon))
        self.embed = PatchEmbed(variables + extra, fields + len(grid.constants), dim, patch, flat)
        rates = [cfg.drop_path * i / (DROP_PATH_ENTRIES - 1) for i in range(DROP_PATH_ENTRIES)]
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
        """Make the fields one lead time later.

        Args:
            upper: Variables on levels, each less its mean, over its standard deviation.
            surface: Variables on one level, likewise.

        Returns:
            Upper and surface fields of the same shapes, normalised.
        """
        given, ground = upper, surface
        if len(self.upper_constants):
            given = torch.cat(
                [upper, self.upper_constants.expand(upper.shape[0], -1, -1, -1, -1)], 1
            )
        if len(self.surface_constants):
            masks = self.surface_constants.expand(surface.shape[0], -1, -1, -1)
            ground = torch.cat([pad_end(surface, self.embed.patch[1:]), masks], 1)
        x = self.layer1(self.embed(given, ground))  # batch plane row column dim
        skip, size = x, (x.shape[1], x.shape[2], x.shape[3])
        x = self.layer3(self.layer2(self.down(x)))  # batch plane row/2 column/2 (2 dim)
        x = torch.cat([skip, self.layer4(self.up(x, size))], -1)  # batch plane row column (2 dim)
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
    step = (len(rates) - 1) / max(1, depth - 1)
    return [rates[round(i * step)] for i in range(depth)]


def _initialise(module: nn.Module) -> None:
    """Truncated normal weights of 0.02, biases 0 (zhaoshan2/pangu-pytorch)."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
