"""Windows of a (level, latitude, longitude) volume: cutting, shifting, padding and masks."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from tenfold.nn.kept import kept

MASK_VALUE = -100.0
"""Added where query and key lie in different regions (pseudocode; not minus infinity)."""
Size = tuple[int, int, int]
"""Level, latitude, longitude."""


@dataclass(frozen=True)
class Windows:
    """Division of a volume of tokens into windows (pseudocode, `EarthSpecificBlock`).

    Latitude is padded at its southern end to a multiple of the window. Longitude is periodic: it
    must be a multiple, is rolled without a mask, and all its windows share one bias. In a region
    it is padded and masked like latitude.
    """

    size: Size
    """Tokens along level, latitude, longitude."""
    window: Size
    """Tokens of a window."""
    periodic: bool = True
    """True if longitude closes the circle."""

    def __post_init__(self) -> None:
        (z, h, w), (wz, wh, ww) = self.size, self.window
        if z % wz:
            raise ValueError(
                f"{z} planes (one of the surface, the others patches of levels) are not divisible "
                f"by the window's {wz}; use another number of levels, data.levels, or model.window"
            )
        if self.periodic and w % ww:
            raise ValueError(
                f"{w} tokens of longitude are not divisible by the window's {ww}: a periodic axis "
                "cannot be padded. Choose model.window or model.patch so that it divides the grid"
            )
        if h < -(-wh // 2) or (not self.periodic and w < -(-ww // 2)):
            raise ValueError(
                f"{h} x {w} tokens fill less than half a window of {wh} x {ww}: the grid is too "
                "small for this model; make model.window or model.patch smaller"
            )

    @cached_property
    def padded(self) -> Size:
        """Size after padding to whole windows."""
        z, h, w = self.size
        _, wh, ww = self.window
        return z, -(-h // wh) * wh, -(-w // ww) * ww

    @property
    def tokens(self) -> int:
        """Tokens of a window, N."""
        return self.window[0] * self.window[1] * self.window[2]

    @property
    def counts(self) -> Size:
        """Windows along level, latitude, longitude."""
        a, b, c = (p // w for p, w in zip(self.padded, self.window, strict=True))
        return a, b, c

    @property
    def types(self) -> int:
        """Windows with a bias of their own: those of one longitude."""
        return self.counts[0] * self.counts[1]

    @property
    def shift(self) -> Size:
        """Half a window, how far a shifted block looks."""
        a, b, c = (w // 2 for w in self.window)
        return a, b, c

    def pad(
        self, x: Float[Tensor, "batch level lat lon channel"], fill: Float[Tensor, " channel"]
    ) -> Float[Tensor, "batch level padded_lat padded_lon channel"]:
        """Append rows (and columns of a region) that hold `fill`."""
        (_, h, w), (_, hp, wp) = self.size, self.padded
        if hp > h:
            x = torch.cat([x, fill.to(x.dtype).expand(*x.shape[:2], hp - h, *x.shape[3:])], 2)
        if wp > w:
            x = torch.cat([x, fill.to(x.dtype).expand(*x.shape[:3], wp - w, x.shape[4])], 3)
        return x

    def cut(
        self, x: Shaped[Tensor, "batch level lat lon channel"], shifted: bool
    ) -> Shaped[Tensor, "batch lon_window type token channel"]:
        """Windows of a padded volume; token order level, latitude, longitude."""
        if shifted:
            x = torch.roll(x, [-s for s in self.shift], (1, 2, 3))
        (nz, nh, nw), (wz, wh, ww) = self.counts, self.window
        x = x.view(x.shape[0], nz, wz, nh, wh, nw, ww, x.shape[-1])
        return x.permute(0, 5, 1, 3, 2, 4, 6, 7).reshape(x.shape[0], nw, nz * nh, -1, x.shape[-1])

    def join(
        self, windows: Float[Tensor, "batch lon_window type token channel"], shifted: bool
    ) -> Float[Tensor, "batch level lat lon channel"]:
        """The volume from its windows, with the padding cropped."""
        (nz, nh, nw), (wz, wh, ww) = self.counts, self.window
        x = windows.reshape(windows.shape[0], nw, nz, nh, wz, wh, ww, -1)
        x = x.permute(0, 2, 4, 3, 5, 1, 6, 7).reshape(x.shape[0], *self.padded, -1)
        if shifted:
            x = torch.roll(x, self.shift, (1, 2, 3))
        return x[:, :, : self.size[1], : self.size[2]]

    def regions(self) -> Int[Tensor, "level lat lon"]:
        """Region of each token after the roll; tokens of different regions do not attend."""
        parts = [_thirds(n, w) for n, w in zip(self.padded, self.window, strict=True)]
        if self.periodic:
            parts[2] = torch.zeros_like(parts[2])
        level, lat, lon = parts
        return 9 * lon + 3 * level[:, None, None] + lat[:, None]

    def mask(self) -> Bool[Tensor, "lon_window type token token"]:
        """True where a shifted window's query and key lie apart; one for all if periodic."""
        ids = self.cut(self.regions()[None, ..., None], shifted=False)[0, ..., 0]
        if self.periodic:
            ids = ids[:1]
        return ids[..., :, None] != ids[..., None, :]


@dataclass(frozen=True, eq=False)
class Group:
    """Windows of one type, which share bias and mask; in a region, a window of each sample."""

    first: int
    """Row of the first token, in the order of windows."""
    kind: int
    """Type of window."""
    count: int
    """Windows in the batch."""
    size: int
    """Tokens of each that are not padding."""
    keys: Int[Tensor, " token"] | None
    """Places in the window of those tokens and then of its padding; None: there is none."""
    mask: Float[Tensor, "size token"] | None
    """Values to add to the scores; padding asks for nothing, but is a key."""


@dataclass(frozen=True, eq=False)
class Order:
    """The tokens of a batch window by window, without padding."""

    rows: Int[Tensor, " row"]
    """Row (of batch, level, latitude, longitude) of each token in the order of windows."""
    back: Int[Tensor, " row"]
    """The way back."""
    sample: Int[Tensor, " row"]
    """Sample that each token, in the order of windows, belongs to."""
    groups: tuple[Group, ...]
    batch: int
    """Samples."""


@kept(32)
def window_order(windows: Windows, shifted: bool, batch: int, device: torch.device) -> Order:
    """The order of windows for a batch; made once, kept."""
    with torch.inference_mode(False), torch.device("cpu"):
        (z, h, w), (_, hp, wp) = windows.size, windows.padded
        count, total = z * h * w, batch * z * h * w
        place = torch.arange(count).view(1, z, h, w)
        place = F.pad(place, (0, wp - w, 0, hp - h), value=total)[..., None]
        place = windows.cut(place, shifted)[0, ..., 0]  # longitude, type, token
        if not windows.periodic:  # columns differ in what is padding, and in their masks
            place = place.flatten(0, 1)[None]
        place = place.transpose(0, 1)  # group, window, token
        starts = torch.arange(batch)[:, None, None] * count
        places = (place[:, None] + starts).flatten(1, 2)
        rows = places[places < total]
        groups, first = [], 0
        masks = _masks(windows, device) if shifted else [None] * len(places)
        for number, part in enumerate(places):
            padding = part[0] == total
            size, keys, mask = int((~padding).sum()), None, masks[number]
            if padding.any():
                keys = padding.int().argsort(stable=True).to(device)
                if mask is not None:  # contiguous, as attention's kernel takes it
                    mask = mask.index_select(0, keys[:size]).index_select(1, keys)
            groups.append(Group(first, number % windows.types, len(part), size, keys, mask))
            first += len(part) * size
        rows, back, sample = (x.to(device) for x in (rows, rows.argsort(), rows // count))
        return Order(rows, back, sample, tuple(groups), batch)


def _masks(windows: Windows, device: torch.device) -> list[Tensor | None]:
    """Mask of the scores of each group of shifted windows; the few different ones are shared."""
    masks = windows.mask().flatten(0, 1).flatten(1)
    kinds, which = masks.unique(dim=0, return_inverse=True)
    values = (kinds.float() * MASK_VALUE).view(-1, windows.tokens, windows.tokens)
    each = [x.to(device) if x.any() else None for x in values]
    return [each[i] for i in which.tolist()]


def _thirds(length: int, window: int) -> Int[Tensor, " length"]:
    """0 before the last window, 1 in its first part, 2 in its last half (pseudocode)."""
    place = torch.arange(length)
    if window == 1:  # not shifted
        return torch.zeros_like(place)
    return (place >= length - window).long() + (place >= length - window // 2).long()


def pad_end(x: Float[Tensor, "*fields"], multiples: tuple[int, ...]) -> Float[Tensor, "*padded"]:
    """Zeros at the ends of the last axes, up to a multiple of each, as the official files pad."""
    pads: list[int] = []
    for axis in range(len(multiples)):
        pads += [0, -x.shape[-1 - axis] % multiples[-1 - axis]]
    return F.pad(x, pads) if any(pads) else x
