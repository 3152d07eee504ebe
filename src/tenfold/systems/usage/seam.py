"""What SEAM does with maps (Wang et al., CVPR 2020; YudeWang/SEAM): norms, terms, correlation.

`Correlated` makes the maps that SEAM calls its seeds, with weights of its files. It is not trained
here: that takes SEAM's two losses between a picture and a smaller one.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from tenfold.nn.cam import EPS

Maps = Float[Tensor, "batch class rows columns"]
PIECE = 2**22
"""Pairs of places whose likeness is in memory at once."""


def max_norm(maps: Maps) -> Maps:
    """Maps from 0, their least value above 0, to nearly 1 (tool/visualization.py)."""
    positive = maps.relu()
    least = positive.amin((2, 3), keepdim=True)
    largest = positive.amax((2, 3), keepdim=True)
    return (positive - least - EPS).relu() / (largest - least + EPS)


def adaptive_min_pooling_loss(maps: Maps) -> Float[Tensor, ""]:
    """Mean, above 0, of the lowest quarter of places, each by its largest class."""
    largest = maps.amax(1).flatten(1)
    return largest.topk(largest.shape[1] // 4, largest=False).values.relu().mean()


def max_onehot(maps: Maps) -> Maps:
    """Maps in which each place keeps its largest class only; the background's, the first, stays."""
    background, classes = maps[:, :1], maps[:, 1:]
    is_largest = classes == classes.amax(1, keepdim=True)
    return torch.cat([background, classes.where(is_largest, maps.new_zeros(()))], 1)


class PixelCorrelation(nn.Module):
    """Maps spread by how alike the features of places are: ReLU of cosines, as shares (PCM)."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.f9 = nn.Conv2d(channels, width, 1, bias=False)
        nn.init.xavier_uniform_(self.f9.weight, gain=4)

    def forward(
        self, maps: Maps, features: Float[Tensor, "batch channel height width"]
    ) -> Float[Tensor, "batch class height width"]:
        """Maps at the features' size, each place the mean over all of those that are like it."""
        maps = F.interpolate(maps, features.shape[2:], mode="bilinear", align_corners=True)
        f = self.f9(features).flatten(2)
        f = f / (f.norm(dim=1, keepdim=True) + EPS)
        maps, found = maps.flatten(2), []
        for some in f.split(max(1, PIECE // f[:, 0].numel()), 2):  # pairs of all places need GiB
            alike = (f.mT @ some).relu()
            found.append(maps @ alike / (alike.sum(1, keepdim=True) + EPS))
        return torch.cat(found, 2).unflatten(2, features.shape[2:])


class Correlated(nn.Module):
    """SEAM's branch (network/resnet38_SEAM.py): maps, one class a place, spread by alike places.

    What is alike is told by colours and the third and fourth stages of ResNet-38.
    """

    WIDTHS = (64, 128)
    """Channels to which the two stages are brought."""
    LEVELS = (2, 3)
    """The two stages among the levels of the backbone (PSA's conv4 and conv5)."""

    def __init__(self, level_dims: Sequence[int]) -> None:
        """`level_dims` are the channels of the backbone's levels."""
        super().__init__()
        first, second = (level_dims[row] for row in self.LEVELS)
        self.f8_3 = nn.Conv2d(first, self.WIDTHS[0], 1, bias=False)
        self.f8_4 = nn.Conv2d(second, self.WIDTHS[1], 1, bias=False)
        width = sum(self.WIDTHS)
        self.pixels = PixelCorrelation(width + 3, width)

    def forward(
        self,
        images: Float[Tensor, "batch 3 height width"],
        maps: Maps,
        levels: Sequence[Float[Tensor, "batch _ _ _"]],
    ) -> Maps:
        """Maps of the classes, spread.

        Args:
            images: As the backbone saw them.
            maps: Of the classes, without the background, which is what is left of 1.
            levels: Of the backbone.
        """
        positive = maps.relu()
        shares = (positive - EPS).relu() / (positive.amax((2, 3), keepdim=True) + EPS)
        ground = 1 - shares.amax(1, keepdim=True)
        winners = max_onehot(torch.cat([ground, shares], 1))
        third, fourth = (levels[row] for row in self.LEVELS)
        size = third.shape[2:]
        colours = F.interpolate(images, size=size, mode="bilinear", align_corners=True)
        features = [colours, self.f8_3(third).relu(), self.f8_4(fourth).relu()]
        return self.pixels(winners, torch.cat(features, 1))[:, 1:]
