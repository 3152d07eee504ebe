"""A run's network as what the labelling page asks, which follows every answer at once.

It makes several predictions of an object from its box and the answers so far, as `promptable` does
of a segmenter of the user's own.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from tenfold.nn.condinst import CondInst, Encoded, Queries
from tenfold.nn.mask_losses import cells_of_boxes, point_loss, projection_loss

from . import inference
from .config import Config
from .enlarge import enlarged
from .inference import Box, Seen
from .strategies import pixel_box

STEPS = 12
"""Gradient steps of an object's quick update."""
RATE = 0.1
"""Its learning rate (Adam)."""
KEPT = 2.0
"""Weight of the mean square by which the update moves the probabilities of the box: without it the
first answer costs more elsewhere than it gains (chosen on generated pictures)."""
MOST = 12
"""Predictions of an object, at most: those of the places of the highest scores."""
AROUND = 4
"""Cells of the features around an object's box that are computed with it; an answer is to cost what
the box does, whatever the picture."""
SCORE = 0.3
"""Least score of a proposed box."""
Point = tuple[int, int, int]
"""x, y of a pixel, and 1 on the object, 0 off it."""
Probabilities = Float[np.ndarray, "k height width"]


class NetworkSegmenter:
    """The network of a run, whose predictions of an object follow the answers at once.

    The numbers that a place of the pyramid gives to the mask head (169) are an object's own: a few
    gradient steps on them alone, of the losses of points and of the box's projection, redraw its
    mask. The network itself learns in the next round.
    """

    grows = True
    """Classes beyond its own are taken: its masks follow from boxes and answers."""
    finds = True
    """Boxes are proposed for objects of its classes."""

    def __init__(self, network: CondInst, cfg: Config) -> None:
        self.network, self.cfg = network.eval(), cfg
        self.classes = list(cfg.classes)

    def open(self, image: UInt8[np.ndarray, "height width 3"]) -> OpenedPicture:
        """Encode a picture."""
        return OpenedPicture(self, inference.see(self.network, self.cfg, image))


@dataclass(frozen=True)
class OpenedPicture:
    """A picture that the network has encoded."""

    segmenter: NetworkSegmenter
    seen: Seen

    def committee(self, box: tuple[float, ...], label: int, points: list[Point]) -> Probabilities:
        """Predict the pixels of a box by the places that find its object, heeding the answers.

        Args:
            box: x0 y0 x1 y1 in pixels of the picture; the result is of `strategies.pixel_box`'s.
            label: Class of the object, which plays no part.
            points: Answers about it so far.

        Returns:
            Probabilities; k = 0 if nothing predicts the object.
        """
        network, seen = self.segmenter.network, self.seen
        x0, y0, x1, y1 = box
        given = scaled((x0, y0, x1, y1), seen)
        device = seen.encoded.features.device
        with torch.no_grad():
            queries = network.positives(seen.outputs, [given[None].to(device)])
            queries = best(queries, seen)
        near = window(seen.encoded, given, network.settings.mask.stride)
        queries = replace(queries, centres=queries.centres - near.corner)
        if points and len(queries.image):
            across, down = seen.factors
            xy = torch.tensor([[(x + 0.5) * across, (y + 0.5) * down] for x, y, _ in points])
            labels = torch.tensor([answer for *_, answer in points])
            place = given.to(device) - near.corner.repeat(2)
            queries = updated(
                network, near, queries, place, xy.to(device) - near.corner, labels.to(device)
            )
        pixels = pixel_box((x0, y0, x1, y1), *seen.size)
        with torch.no_grad():
            maps = near.spread(network.masks(near.encoded, queries).sigmoid()).cpu()
        found: np.ndarray = enlarged(maps, seen.resized, seen.size, pixels).clamp(0, 1).numpy()
        return found

    def propose_boxes(self) -> list[tuple[Box, int, float]]:
        """Boxes of score 0.3 and more."""
        found = inference.objects_of(self.segmenter.network, self.seen, SCORE)
        return [(one.box, one.label, one.score) for one in found]


def scaled(box: Box, seen: Seen) -> Float[Tensor, "4"]:
    """A box in pixels that the network saw."""
    across, down = seen.factors
    return torch.tensor(box) * torch.tensor([across, down, across, down])


def best(queries: Queries, seen: Seen) -> Queries:
    """Those of the places with the highest scores, at most MOST."""
    if len(queries.image) <= MOST:
        return queries
    scores = seen.outputs.scores[queries.image, queries.places].amax(1)
    return queries.at(scores.topk(MOST).indices.sort().values)


@dataclass(frozen=True)
class Window:
    """The part of a picture's features around a box."""

    encoded: Encoded
    corner: Float[Tensor, "2"]
    """x and y of its first pixel, in pixels that the network saw."""
    whole: tuple[int, int]
    """Rows and columns of all features."""
    stride: int

    def spread(self, maps: Float[Tensor, "k rows columns"]) -> Float[Tensor, "k tall wide"]:
        """Maps of the window in maps of the picture, which are zero elsewhere."""
        factor = maps.shape[1] // self.encoded.features.shape[2]
        left, top = (int(value) // self.stride * factor for value in self.corner.tolist())
        found = maps.new_zeros(len(maps), self.whole[0] * factor, self.whole[1] * factor)
        found[:, top : top + maps.shape[1], left : left + maps.shape[2]] = maps
        return found


def window(encoded: Encoded, box: Float[Tensor, "4"], stride: int) -> Window:
    """The features of a box and of AROUND cells around it.

    Args:
        encoded: A picture.
        box: In pixels that the network saw.
        stride: Pixels of a cell.
    """
    height, width = encoded.features.shape[2:]
    x0, y0, x1, y1 = (value / stride for value in box.tolist())
    left, top = (max(0, min(int(v) - AROUND, n - 1)) for v, n in ((x0, width), (y0, height)))
    right, below = (
        max(low + 1, min(int(v) + 1 + AROUND, n))
        for low, v, n in ((left, x1, width), (top, y1, height))
    )
    part = encoded.features[:, :, top:below, left:right]
    corner = torch.tensor([left, top], device=part.device) * float(stride)
    return Window(replace(encoded, features=part), corner, (height, width), stride)


def updated(
    network: CondInst, near: Window, queries: Queries, box: Float[Tensor, "4"],
    xy: Float[Tensor, "point 2"], labels: Int64[Tensor, " point"],
) -> Queries:  # fmt: skip
    """Queries whose numbers were changed so that their masks fit the answers.

    The places learn for themselves, as the losses are sums over them.

    Args:
        network: The network, which does not change.
        near: The features around the object, from whose corner all pixels are counted.
        queries: Places that find the object, with the numbers of their masks.
        box: The object's.
        xy: Pixels of the answers.
        labels: The answers, 1 on the object, 0 off it.
    """
    count = len(queries.image)
    xy, labels = (x[None].expand(count, *x.shape) for x in (xy, labels))
    numbers = queries.parameters.detach().clone().requires_grad_()
    optimiser = torch.optim.Adam([numbers], lr=RATE)
    with torch.no_grad():
        before = network.masks(near.encoded, queries).sigmoid()
        cells = cells_of_boxes(box[None], *before.shape[1:])
        inside = cells.float().expand(count, -1, -1)
    with torch.enable_grad():
        for _ in range(STEPS):
            logits = network.masks(near.encoded, replace(queries, parameters=numbers))
            scores = logits.sigmoid()
            moved = ((scores - before).square() * inside).sum() / inside[0].sum().clamp(min=1)
            loss = count * point_loss(logits, xy, labels)
            loss = loss + projection_loss(scores, inside).sum() + KEPT * moved
            (numbers.grad,) = torch.autograd.grad(loss, [numbers])
            optimiser.step()
    return replace(queries, parameters=numbers.detach())
