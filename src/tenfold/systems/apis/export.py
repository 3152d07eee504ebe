"""Networks of a run for other frameworks: the heads of CondInst, or all of its detection."""

from __future__ import annotations

from copy import deepcopy

import torch
from jaxtyping import Float
from torch import Tensor, nn

from tenfold.core.capabilities import Export
from tenfold.core.seed import generator
from tenfold.nn.condinst import CondInst
from tenfold.nn.condinst_graph import DetectionGraph
from tenfold.nn.suppression import onnx_operators

from . import model
from .config import Config

PARTS = ("heads", "detect")
LARGEST = 4096
"""Pixels of a side."""


def export_part(network: CondInst, cfg: Config, part: str, size: tuple[int, int]) -> Export:
    """Take a copy of a part of the network, for pictures of 0 to 255.

    Args:
        network: The network.
        cfg: Its configuration.
        part: One of PARTS; empty is the first.
        size: Height and width; (0, 0) is the largest square that the test's shorter side holds.

    Raises:
        ValueError: There is no such part, or the network cannot be of this size.
    """
    part = part or PARTS[0]
    if part not in PARTS:
        raise ValueError(f"this run has no part {part!r} to export; it has {', '.join(PARTS)}")
    unit = model.DIVISOR
    side = max(1, cfg.data.test_side // unit) * unit
    height, width = size if any(size) else (side, side)
    if not all(0 < n <= LARGEST and n % unit == 0 for n in (height, width)):
        raise ValueError(
            f"the network cannot be exported for {height} x {width} pixels: both must be multiples "
            f"of {unit}, {LARGEST} at most"
        )
    own = deepcopy(network).cpu().eval()
    images = 255 * torch.rand(2, 3, height, width, generator=generator(0, "export"))
    if part == "heads":
        of_heads = ("logits", "distances", "centreness", "parameters", "features")
        return Export(Heads(own), (images,), ("images",), of_heads)
    names = ("boxes", "scores", "labels", "masks")
    return Export(DetectionGraph(own), (images[:1],), ("images",), names, False, onnx_operators)


class Heads(nn.Module):
    """What every place of the pyramid says, and the features of masks."""

    def __init__(self, network: CondInst) -> None:
        super().__init__()
        self.network = network

    def forward(
        self, images: Float[Tensor, "batch 3 height width"]
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Logits of classes, distances in strides, centreness, parameters of masks; features."""
        levels = self.network.levels(self.network.normalised(images))
        found = self.network.fcos(levels)
        return (
            found.logits, found.distances, found.centreness, found.parameters,
            self.network.branch(levels),
        )  # fmt: skip
