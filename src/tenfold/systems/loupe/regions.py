"""Semantic regions: a box and a confidence for every patch, and the patches that a box holds.

As in YOLOv3, every token is the centre of a box. The layers of the paper's region module are not
published: sizes, activations and the way of a gradient to the boxes are ours. Boxes are x0 y0 x1 y1
as fractions of the image, and may reach beyond it until they are shown.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from tenfold.nn.boxes import area

FIRST_SIDE = 0.35
"""Width and height of the boxes of a head that has not learned."""
SOFTNESS = 0.05
"""Width of the border of a soft membership, as a fraction of the image."""
Boxes = Float[Tensor, "*image box 4"]


class RegionHead(nn.Module):
    """Tokens of a square grid to one box and one confidence each."""

    def __init__(self, dim: int, grid: int, hidden: int = 0) -> None:
        super().__init__()
        self.grid = grid
        self.fc1 = nn.Linear(dim, hidden or dim)
        self.fc2 = nn.Linear(hidden or dim, 5)
        nn.init.normal_(self.fc2.weight, std=0.01)
        nn.init.zeros_(self.fc2.bias)
        nn.init.constant_(self.fc2.bias[3:], math.log(FIRST_SIDE / (1 - FIRST_SIDE)))

    def forward(
        self, tokens: Float[Tensor, "*image token dim"]
    ) -> tuple[Float[Tensor, "*image token"], Float[Tensor, "*image token 4"]]:
        """Confidences from 0 to 1, and boxes, whose centres lie within their tokens' patches."""
        found = self.fc2(F.gelu(self.fc1(tokens))).sigmoid()
        corner = centres(self.grid, tokens) - 0.5 / self.grid
        centre = corner + found[..., 1:3] / self.grid
        half = found[..., 3:] / 2
        return found[..., 0], torch.cat([centre - half, centre + half], -1)


def centres(grid: int, like: Tensor) -> Float[Tensor, "patch 2"]:
    """Centre x y of each patch, row by row, as fractions of the image."""
    at = (torch.arange(grid, device=like.device, dtype=like.dtype) + 0.5) / grid
    y, x = torch.meshgrid(at, at, indexing="ij")
    return torch.stack([x.flatten(), y.flatten()], 1)


def hard_members(
    boxes: Boxes, grid: int, own: Int64[Tensor, "*image box"] | None = None
) -> Bool[Tensor, "*image box patch"]:
    """Patches whose centre lies in a box, and the patch that the box is of.

    Without `own` that is the patch in which the box's centre lies, the nearest one if it is outside
    of the image: any box has a patch.
    """
    at = centres(grid, boxes)
    inside = (at >= boxes[..., None, :2]) & (at <= boxes[..., None, 2:])
    if own is None:
        cell = ((boxes[..., :2] + boxes[..., 2:]) / 2 * grid).long().clamp(0, grid - 1)
        own = cell[..., 1] * grid + cell[..., 0]
    return inside.all(-1) | F.one_hot(own, grid**2).bool()


def soft_members(
    boxes: Boxes, grid: int, softness: float = SOFTNESS
) -> Float[Tensor, "*image box patch"]:
    """Weight of each patch in a box, from 0 to 1: a gradient's way to the box."""
    at = centres(grid, boxes)
    centre, half = (boxes[..., :2] + boxes[..., 2:]) / 2, (boxes[..., 2:] - boxes[..., :2]) / 2
    away = (at - centre[..., None, :]).abs()
    return ((half[..., None, :] - away) / softness).sigmoid().prod(-1)


def pooled(
    tokens: Float[Tensor, "*image token dim"], members: Tensor
) -> Float[Tensor, "*image box dim"]:
    """Mean of each region's tokens, weighted by their membership."""
    weight = members.to(tokens.dtype)
    return weight @ tokens / weight.sum(-1, keepdim=True).clamp(min=1e-12)


@torch.no_grad()
def select(
    scores: Float[Tensor, "image box"],
    boxes: Float[Tensor, "image box 4"],
    count: int,
    limit: float = 0.7,
) -> tuple[Int64[Tensor, "image kept"], Bool[Tensor, "image kept"]]:
    """The `count` boxes of each image with the highest scores that do not overlap each other.

    A box goes if one that is kept overlaps it by an IoU above the limit; of equal scores the lower
    index comes first. Where fewer are left, the second result is False.
    """
    left = scores.detach().clone()
    index, there = [], []
    for _ in range(count):
        best = left.argmax(1)
        index.append(best)
        there.append(left.gather(1, best[:, None])[:, 0] > -torch.inf)
        one = boxes.gather(1, best[:, None, None].expand(-1, -1, 4))
        left = left.masked_fill(_overlap(one, boxes) > limit, -torch.inf)
        left.scatter_(1, best[:, None], -torch.inf)
    return torch.stack(index, 1), torch.stack(there, 1)


def _overlap(
    one: Float[Tensor, "image 1 4"], boxes: Float[Tensor, "image box 4"]
) -> Float[Tensor, "image box"]:
    low = torch.maximum(one[..., :2], boxes[..., :2])
    high = torch.minimum(one[..., 2:], boxes[..., 2:])
    shared = (high - low).clamp(min=0).prod(-1)
    return shared / (area(one) + area(boxes) - shared).clamp(min=1e-9)


def jittered(
    boxes: Boxes, spread: float = 0.2, generator: torch.Generator | None = None
) -> tuple[Float[Tensor, "*image box 4"], Float[Tensor, "*image box"]]:
    """Boxes whose logarithms of width and height are drawn, and the drawn ones' log-probability.

    With an interaction as reward it is a second way of a gradient to the boxes (REINFORCE, Williams
    1992), ours. The log-probability has no constant.
    """
    centre, size = (boxes[..., :2] + boxes[..., 2:]) / 2, boxes[..., 2:] - boxes[..., :2]
    mean = size.clamp(min=1e-6).log()
    noise = torch.randn(mean.shape, generator=generator, device=mean.device, dtype=mean.dtype)
    drawn = (mean + spread * noise).detach()
    half = drawn.exp() / 2
    chance = -((drawn - mean) / spread).square().sum(-1) / 2
    at = centre.detach()
    return torch.cat([at - half, at + half], -1), chance
