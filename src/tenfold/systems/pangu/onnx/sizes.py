"""Sizes of a Pangu-Weather network from the shapes in its ONNX graph."""

from __future__ import annotations

from dataclasses import dataclass, replace

from tenfold.weights.onnx_file import OnnxFile

from .fields import Branch
from .tables import Triple, window_types

Four = tuple[int, int, int, int]
"""One number a layer."""


@dataclass(frozen=True)
class Sizes:
    """All from which a configuration follows; names as in the system's `Model`."""

    dim: int
    depths: Four
    heads: Four
    patch: Triple
    window: Triple
    mlp_ratio: float
    variables: int
    """Variables on levels."""
    fields: int
    """Variables at the surface."""
    constants: int
    """Constant maps beside the surface's variables."""
    height_channel: bool
    """True if the levels have a constant channel."""
    residual: bool
    """True if the network is added to its input (never in official files)."""
    levels: int
    lat: int
    lon: int

    def tokens(self, coarse: bool) -> Triple:
        """Tokens along level, latitude, longitude."""
        pz, ph, pw = self.patch
        fine = (-(-self.levels // pz) + 1, -(-self.lat // ph), self.lon // pw)
        return (fine[0], -(-fine[1] // 2), fine[2] // 2) if coarse else fine


@dataclass(frozen=True)
class Shapes:
    """Shapes that the walk through the graph found."""

    embeds: list[tuple[int, ...]]
    """Of both embeddings' weights: channels out, channels of a patch in, 1."""
    tables: list[tuple[int, ...]]
    """Of the first bias table of each layer: types, heads, tokens, tokens."""
    depths: list[int]
    """Blocks of each layer."""
    hidden: int
    """Hidden channels of the first MLP."""
    residual: bool
    """True if the network is added to its input."""


def find_sizes(
    file: OnnxFile,
    branches: tuple[Branch, Branch],
    shapes: Shapes,
    patch: Triple | None,
    window: Triple | None,
) -> Sizes:
    """Sizes of the network.

    Where several patches or windows have the same shapes, that which a reshape of the graph spells
    out is taken, unless one is given; ValueError if none or several are left.
    """
    upper, surface = branches
    (variables, levels), fields = upper.mean.shape, len(surface.mean)
    lat, lon = file.shapes["input"][2:]
    height = 0 if upper.constants is None else len(upper.constants)
    maps = 0 if surface.constants is None else len(surface.constants)
    if height > 1:
        raise file.error(f"{height} constant channels beside the levels; we know 0 or 1")
    volume, area = _cells(file, shapes.embeds, (variables + height, fields + maps))
    patches = _patches(volume, area, (levels, lat, lon), upper.padded, surface.padded)
    best = _chosen(file, "patch", patches, patch, (levels, lat, lon))
    dim = shapes.embeds[0][0]
    a, b, c, d = shapes.depths
    e, f, g, h = (t[1] for t in shapes.tables)
    sizes = Sizes(
        dim, (a, b, c, d), (e, f, g, h), best, (1, 1, 1), shapes.hidden / dim, variables, fields,
        maps, bool(height), shapes.residual, levels, lat, lon,
    )  # fmt: skip
    fine, coarse = sizes.tokens(False), sizes.tokens(True)
    windows = _windows(fine, coarse, shapes.tables)
    return replace(sizes, window=_chosen(file, "window", windows, window, fine))


def _cells(
    file: OnnxFile, embeds: list[tuple[int, ...]], channels: tuple[int, int]
) -> tuple[int, int]:
    """Numbers a patch holds of one channel: of the levels, of the surface."""
    (volume, a), (area, b) = (divmod(d[1], n) for d, n in zip(embeds, channels, strict=True))
    if a or b or not area or volume % area or not volume or embeds[0][0] < 1:
        raise file.error(
            f"the embeddings take {embeds[0][1]} and {embeds[1][1]} numbers a patch, which are no "
            f"patches of {channels[0]} and {channels[1]} channels"
        )
    return volume, area


def _patches(
    volume: int, area: int, grid: Triple, upper: tuple[int, ...], surface: tuple[int, ...]
) -> list[Triple]:
    """Patches of so many numbers that pad the grid to the sizes found."""
    pz, (levels, lat, lon) = volume // area, grid
    pairs = [(h, area // h) for h in range(1, area + 1) if area % h == 0]
    return [
        (pz, h, w)
        for h, w in pairs
        if lon % (2 * w) == 0
        and upper == (-(-levels // pz) * pz, -(-lat // h) * h, lon)
        and surface == upper[1:]
    ]


def _windows(fine: Triple, coarse: Triple, tables: list[tuple[int, ...]]) -> list[Triple]:
    """Windows of so many tokens that have so many types at both resolutions."""
    pairs = tables[0][-1]
    windows = []
    for wz in (n for n in range(1, fine[0] + 1) if fine[0] % n == 0 and pairs % n == 0):
        for wh in (n for n in range(1, pairs // wz + 1) if pairs // wz % n == 0):
            window = (wz, wh, pairs // wz // wh)
            types = [window_types(t, window) for t in (fine, coarse, coarse, fine)]
            fits = fine[2] % window[2] == 0 and coarse[2] % window[2] == 0
            if fits and types == [t[0] for t in tables]:
                windows.append(window)
    return windows


def _chosen(
    file: OnnxFile, what: str, fitting: list[Triple], given: Triple | None, sizes: Triple
) -> Triple:
    """The only candidate, the given one, or the one that the graph's reshapes spell out."""
    if given is not None:
        if given not in fitting:
            raise file.error(f"{what} {given} does not fit; the file's shapes allow {fitting}")
        return given
    if len(fitting) > 1:
        fitting = [c for c in fitting if _is_spelled(file, c, sizes)]
    if len(fitting) != 1:
        raise file.error(
            f"looked for the {what} that fits the file's shapes, found {fitting or 'none'}; "
            f"if it is known, give {what}="
        )
    return fitting[0]


def _is_spelled(file: OnnxFile, candidate: Triple, sizes: Triple) -> bool:
    """Return True if some value has axes (n1, c1, n2, c2, n3, c3) one after the other."""
    want: list[int] = []
    for size, part in zip(sizes, candidate, strict=True):
        want += [-(-size // part), part]
    return any(
        list(shape[i : i + 6]) == want
        for shape in file.shapes.values()
        for i in range(len(shape) - 5)
    )


def expected_shapes(sizes: Sizes) -> dict[str, tuple[int, ...]]:
    """Our network's keys and shapes; recovery has a bias for every pixel."""
    dim, (pz, ph, pw), window = sizes.dim, sizes.patch, sizes.window
    extra, hidden = int(sizes.height_channel), sizes.mlp_ratio
    padded = -(-sizes.lat // ph) * ph, sizes.lon
    out: dict[str, tuple[int, ...]] = {
        "surface_constants": (sizes.constants, *padded),
        "upper_constants": (extra, sizes.levels, sizes.lat, sizes.lon),
        "embed.upper.weight": (dim, sizes.variables + extra, pz, ph, pw),
        "embed.upper.bias": (dim,),
        "embed.surface.weight": (dim, sizes.fields + sizes.constants, ph, pw),
        "embed.surface.bias": (dim,),
        "down.norm.weight": (4 * dim,),
        "down.norm.bias": (4 * dim,),
        "down.linear.weight": (2 * dim, 4 * dim),
        "up.expand.weight": (4 * dim, 2 * dim),
        "up.norm.weight": (dim,),
        "up.norm.bias": (dim,),
        "up.project.weight": (dim, dim),
        "recover.upper_weight": (2 * dim, sizes.variables, pz, ph, pw),
        "recover.upper_bias": (sizes.variables * pz * ph * pw,),
        "recover.surface_weight": (2 * dim, sizes.fields, ph, pw),
        "recover.surface_bias": (sizes.fields * ph * pw,),
    }
    rows = window[0] ** 2 * window[1] ** 2 * (2 * window[2] - 1)
    for layer, (depth, heads) in enumerate(zip(sizes.depths, sizes.heads, strict=True), 1):
        coarse = layer in (2, 3)
        width = 2 * dim if coarse else dim
        types = window_types(sizes.tokens(coarse), window)
        for place in range(depth):
            block = _block_shapes(width, round(hidden * width), (rows, types, heads))
            out |= {f"layer{layer}.blocks.{place}.{k}": shape for k, shape in block.items()}
    return out


def _block_shapes(
    width: int, hidden: int, table: tuple[int, int, int]
) -> dict[str, tuple[int, ...]]:
    linear = {
        "attention.qkv": (3 * width, width),
        "attention.project": (width, width),
        "fc1": (hidden, width),
        "fc2": (width, hidden),
    }
    out: dict[str, tuple[int, ...]] = {"attention.bias_table": table}
    for key, shape in linear.items():
        out |= {f"{key}.weight": shape, f"{key}.bias": shape[:1]}
    for key in ("norm1", "norm2"):
        out |= {f"{key}.weight": (width,), f"{key}.bias": (width,)}
    return out
