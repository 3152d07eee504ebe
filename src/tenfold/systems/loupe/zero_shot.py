"""Detection and grounding without training on boxes: regions, classified by texts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from tenfold.nn.boxes import batched_nms


def class_vectors(prompts: Float[Tensor, "class prompt dim"]) -> Float[Tensor, "class dim"]:
    """Directions of classes: means of the directions of their prompts."""
    return F.normalize(F.normalize(prompts, dim=2).mean(1), dim=1)


def class_shares(
    regions: Float[Tensor, "region dim"], classes: Float[Tensor, "class dim"], temperature: float
) -> Float[Tensor, "region class"]:
    """Probability of each class for each region, by softmax of cosines."""
    cosines = F.normalize(regions, dim=1) @ F.normalize(classes, dim=1).T
    return (cosines / temperature).softmax(1)


@dataclass(frozen=True)
class Found:
    """Detections of an image by falling score."""

    boxes: Float[Tensor, "object 4"]
    labels: Int64[Tensor, " object"]
    scores: Float[Tensor, " object"]


def detect(
    boxes: Float[Tensor, "region 4"],
    confidence: Float[Tensor, " region"],
    shares: Float[Tensor, "region class"],
    least: float = 0.0,
    limit: float = 0.5,
) -> Found:
    """Regions with their best classes, scored by confidence times share.

    Args:
        boxes: Of the regions.
        confidence: Of the regions.
        shares: Probability of each class.
        least: Score that a detection must exceed.
        limit: IoU above which the lower of two detections of a class goes.
    """
    share, labels = shares.max(1)
    scores = confidence * share
    rows = (scores > least).nonzero()[:, 0]
    rows = rows[batched_nms(boxes[rows], scores[rows], labels[rows], limit)]
    return Found(boxes[rows], labels[rows], scores[rows])


def ground(
    regions: Float[Tensor, "region dim"],
    confidence: Float[Tensor, " region"],
    phrase: Float[Tensor, " dim"],
    temperature: float,
) -> Float[Tensor, " region"]:
    """Scores of regions for a phrase: confidence times softmax over regions; the best is meant."""
    cosines = F.normalize(regions, dim=1) @ F.normalize(phrase, dim=0)
    return confidence * (cosines / temperature).softmax(0)


def box_of_map(values: Float[np.ndarray, "row column"]) -> tuple[float, float, float, float]:
    """Box x0 y0 x1 y1 of the largest connected part of a map above half of its maximum.

    As fractions of the image: what a map of similarities alone can say of a place. A map without a
    value above 0 is of the whole image.
    """
    from scipy import ndimage

    if not values.max() > 0:
        return 0.0, 0.0, 1.0, 1.0
    parts, count = ndimage.label(values >= values.max() / 2)
    sizes = np.bincount(parts.ravel(), minlength=count + 1)[1:]
    rows, columns = ndimage.find_objects(parts)[int(sizes.argmax())]
    height, width = values.shape
    return columns.start / width, rows.start / height, columns.stop / width, rows.stop / height
