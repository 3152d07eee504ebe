"""COCO's average precision of boxes and masks, by pycocotools."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float, Int64

Kind = Literal["boxes", "masks"]
NAMES = ("AP", "AP50", "AP75", "small", "medium", "large")
"""Of COCO's first six numbers: over IoU 0.5 to 0.95, at 0.5, at 0.75, and of objects by area."""


@dataclass(frozen=True)
class Truth:
    """The objects of one picture."""

    boxes: Float[np.ndarray, "object 4"]
    """x0 y0 x1 y1 in pixels."""
    labels: Int64[np.ndarray, " object"]
    crowd: Bool[np.ndarray, " object"]
    """Regions that are neither to be found nor wrong if found."""
    height: int
    width: int
    masks: Bool[np.ndarray, "object height width"] | None = None
    areas: Float[np.ndarray, " object"] | None = None
    """Pixels, by which objects are small, medium or large; else of the mask, or of the box."""


@dataclass(frozen=True)
class Found:
    """What was found in one picture."""

    boxes: Float[np.ndarray, "object 4"]
    scores: Float[np.ndarray, " object"]
    labels: Int64[np.ndarray, " object"]
    masks: Bool[np.ndarray, "object height width"] | None = None


def encode_mask(mask: Bool[np.ndarray, "height width"]) -> dict[str, Any]:
    """COCO's run-length code."""
    from pycocotools import mask as codes

    found: dict[str, Any] = codes.encode(np.asfortranarray(mask.astype(np.uint8)))
    return found


def decode_mask(code: dict[str, Any]) -> Bool[np.ndarray, "height width"]:
    """The mask of a run-length code."""
    from pycocotools import mask as codes

    return np.asarray(codes.decode(code)).astype(bool)


def average_precision(
    truth: Sequence[Truth], found: Sequence[Found], num_classes: int, kind: Kind
) -> dict[str, float]:
    """AP, AP50, AP75, small, medium, large in percent; -100 where there is no such object."""
    evaluation = _evaluated(truth, found, num_classes, kind)
    if evaluation is None:
        return dict.fromkeys(NAMES, 0.0)
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation.summarize()
    numbers = zip(NAMES, evaluation.stats[:6], strict=True)
    return {name: 100 * float(value) for name, value in numbers}


def per_class(
    truth: Sequence[Truth], found: Sequence[Found], num_classes: int, kind: Kind
) -> dict[int, float]:
    """AP of each class that occurs, in percent."""
    evaluation = _evaluated(truth, found, num_classes, kind)
    present = sorted({int(n) for t in truth for n in t.labels[~t.crowd]})
    if evaluation is None:
        return dict.fromkeys(present, 0.0)
    precision = evaluation.eval["precision"]  # [IoU, recall, class, area, most objects]
    result = {}
    for label in present:
        values = precision[:, :, label, 0, -1]
        values = values[values > -1]
        result[label] = 100 * float(values.mean()) if len(values) else 0.0
    return result


def _evaluated(truth: Sequence[Truth], found: Sequence[Found], num_classes: int, kind: Kind) -> Any:
    """A pycocotools evaluation, or None where nothing was found at all."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    assert len(truth) == len(found)
    rows: list[dict[str, Any]] = []
    for image, one in enumerate(truth):
        for i in range(len(one.boxes)):
            row = _row(one, i, image, kind)
            rows.append(
                row | {"id": len(rows) + 1, "area": _area(one, i), "iscrowd": int(one.crowd[i])}
            )
    guesses = [
        _row(one, i, image, kind) | {"score": float(one.scores[i])}
        for image, one in enumerate(found)
        for i in range(len(one.boxes))
    ]
    if not guesses:
        return None
    coco = COCO()
    coco.dataset = {
        "images": [
            {"id": i, "height": one.height, "width": one.width} for i, one in enumerate(truth)
        ],
        "categories": [{"id": i, "name": str(i)} for i in range(num_classes)],
        "annotations": rows,
    }
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
        results = coco.loadRes(guesses)
        evaluation = COCOeval(coco, results, "bbox" if kind == "boxes" else "segm")
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation


def _area(one: Truth, i: int) -> float:
    if one.areas is not None:
        return float(one.areas[i])
    if one.masks is not None:
        return float(one.masks[i].sum())
    x0, y0, x1, y1 = one.boxes[i]
    return float((x1 - x0) * (y1 - y0))


def _row(one: Truth | Found, i: int, image: int, kind: Kind) -> dict[str, Any]:
    x0, y0, x1, y1 = (float(v) for v in one.boxes[i])
    row = {"image_id": image, "category_id": int(one.labels[i]), "bbox": [x0, y0, x1 - x0, y1 - y0]}
    if kind == "masks":
        assert one.masks is not None
        row["segmentation"] = encode_mask(one.masks[i])
    return row
