"""Type-II requests: the object of a region that holds one probing pixel (paper, sec. 3.4).

The authors' code has the network (CondInst, adet/modeling/condinst) and trains every place on an
object to answer for it; how a probe is answered was not published. Here, at each level, the place
whose cell holds the probe makes a mask; of those masks that cover the probe the one counts whose
class is most probable there. Centreness plays no part: a probe near an object's border is as good
as one in its middle.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Int64
from torch import Tensor

from tenfold.nn.condinst import CondInst, Encoded, in_picture
from tenfold.nn.fcos import HeadOutputs


class Found(NamedTuple):
    """The object at a probe."""

    mask: Bool[Tensor, "height width"]
    score: float
    """Probability of the class at the place, times that of the mask at the probe."""
    confident: bool
    """Whether the mask covers the probe."""


def cells(
    probe: tuple[int, int], sizes: Sequence[tuple[int, int]], strides: Sequence[int]
) -> Int64[Tensor, "level 4"]:
    """Picture, level, row and column of the cells that hold a probe (x, y), one for each level."""
    x, y = probe
    return torch.tensor([
        (0, level, min(y // stride, rows - 1), min(x // stride, columns - 1))
        for level, ((rows, columns), stride) in enumerate(zip(sizes, strides, strict=True))
    ])  # fmt: skip


@torch.no_grad()
def probed(
    network: CondInst, encoded: Encoded, outputs: HeadOutputs, label: int, probe: tuple[int, int]
) -> Found:
    """The object of a class at a probe (x, y), in a picture that is alone in its batch.

    The same probe gives the same object. If no mask covers the probe the best is returned, and said
    not to be sure.
    """
    height, width = (int(side) for side in encoded.sizes[0])
    index = cells(probe, outputs.sizes, outputs.strides)
    places = torch.tensor([outputs.place(*own) for own in index[:, 1:].tolist()])
    shares = in_picture(
        network.at_locations(encoded, index, outputs).sigmoid(), (height, width), (height, width)
    )
    here = shares[:, probe[1], probe[0]]
    chances = outputs.logits[0, places, label].sigmoid() * here
    covers = here > 0.5
    best = int(torch.where(covers, chances, chances - 1).argmax())
    mask = shares[best] > 0.5
    x0, y0, x1, y1 = outputs.boxes[0, places[best]].tolist()
    inside = torch.zeros_like(mask)
    inside[max(0, int(y0)) : max(0, int(y1) + 1), max(0, int(x0)) : max(0, int(x1) + 1)] = True
    return Found(mask & inside, float(chances[best]), bool(covers[best]))
