"""Players of a photo: its patches, or squares of them where they are many, and those of a box."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool
from torch import Tensor

from .options import Box


@dataclass(frozen=True)
class Players:
    """Parts of a photo that are left out whole."""

    rows: int
    columns: int
    members: Bool[Tensor, "player patch"]
    cells: tuple[Box, ...]
    """Left, top, right and bottom of each, in pixels of the photo."""

    def __len__(self) -> int:
        return len(self.cells)


def players_of(grid: tuple[int, int], window: Box, most: int) -> Players:
    """The patches of a grid, or the smallest squares of patches of which there are few enough."""
    rows, columns = grid
    side = 1
    while -(-rows // side) * -(-columns // side) > most:
        side += 1
    tall, wide = -(-rows // side), -(-columns // side)
    row, column = torch.arange(rows) // side, torch.arange(columns) // side
    owner = (row[:, None] * wide + column).flatten()
    members = owner == torch.arange(tall * wide)[:, None]
    x, y = (window[2] - window[0]) / columns, (window[3] - window[1]) / rows
    cells = []
    for player in range(tall * wide):
        r, c = divmod(player, wide)
        right, low = min((c + 1) * side, columns), min((r + 1) * side, rows)
        cells.append((window[0] + c * side * x, window[1] + r * side * y,
                      window[0] + right * x, window[1] + low * y))  # fmt: skip
    return Players(tall, wide, members, tuple(cells))


def inside(players: Players, box: Box, size: tuple[int, int]) -> Bool[Tensor, " player"]:
    """Players whose centre lies in a box, or the one in which the centre of a small box lies.

    Args:
        players: Of the photo.
        box: In pixels of the photo.
        size: Width and height of the photo.

    Raises:
        ValueError: The box does not lie in the photo, or where the encoder sees nothing of it.
    """
    x0, y0, x1, y1 = box
    if x0 < 0 or y0 < 0 or x1 > size[0] or y1 > size[1]:
        said = ",".join(f"{v:g}" for v in box)
        raise ValueError(
            f"the box {said} does not lie in the photo of {size[0]} x {size[1]} pixels"
        )
    cells = torch.tensor(players.cells, dtype=torch.double)
    x, y = cells[:, 0::2].mean(1), cells[:, 1::2].mean(1)
    found = (x >= x0) & (x < x1) & (y >= y0) & (y < y1)
    if not found.any():
        at, down = (x0 + x1) / 2, (y0 + y1) / 2
        found = (cells[:, 0] <= at) & (at < cells[:, 2])
        found &= (cells[:, 1] <= down) & (down < cells[:, 3])
    if not found.any():
        left, top, right, low = (*cells.amin(0)[:2].tolist(), *cells.amax(0)[2:].tolist())
        raise ValueError(
            f"the encoder does not see the box {','.join(f'{v:g}' for v in box)}: of this photo it "
            f"takes {left:.0f},{top:.0f},{right:.0f},{low:.0f}"
        )
    return found
