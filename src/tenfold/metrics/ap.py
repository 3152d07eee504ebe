"""COCO's average precision of boxes and masks, by pycocotools."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float64

from tenfold.structures import Instances

Kind = Literal["boxes", "masks"]
NAMES = ("AP", "AP50", "AP75", "small", "medium", "large")
"""Of COCO's first six numbers: over IoU 0.5 to 0.95, at 0.5, at 0.75, and of objects by area."""
RECALLS = ("AR1", "AR10", "AR", "AR small", "AR medium", "AR large")
"""Of COCO's other six: average recall with 1, 10 and 100 objects of an image, and by area."""

Row = dict[str, Any]
"""An object in COCO's form: numbers, and a run-length code as mask, which is small."""


def coded(objects: Instances) -> list[Row]:
    """Return the objects of one image in COCO's form."""
    rows: list[Row] = []
    for i, (x0, y0, x1, y1) in enumerate(objects.boxes.tolist()):
        row: Row = {
            "category_id": int(objects.labels[i]),
            "bbox": [x0, y0, x1 - x0, y1 - y0],
            "area": _area(objects, i),
            "iscrowd": int(objects.is_crowd[i]),
        }
        if objects.scores is not None:
            row["score"] = float(objects.scores[i])
        if objects.masks is not None:
            row["segmentation"] = encode_mask(objects.masks[i])
        rows.append(row)
    return rows


def _area(objects: Instances, i: int) -> float:
    if objects.areas is not None:
        return float(objects.areas[i])
    if objects.masks is not None:
        return float(objects.masks[i].sum())
    x0, y0, x1, y1 = objects.boxes[i]
    return float((x1 - x0) * (y1 - y0))


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
    truth: Sequence[list[Row]], found: Sequence[list[Row]], num_classes: int, kind: Kind
) -> dict[str, float]:
    """Measure what was found in each image; an entry of `coded` an image.

    Returns:
        AP, AP50, AP75, small, medium, large in percent; -100 where there is no such object.
    """
    numbers, _ = statistics(truth, found, num_classes, kind)
    return {name: numbers[name] for name in NAMES}


def statistics(
    truth: Sequence[list[Row]], found: Sequence[list[Row]], num_classes: int, kind: Kind
) -> tuple[dict[str, float], Float64[np.ndarray, "iou recall class"]]:
    """Measure COCO's twelve numbers and the precision behind them.

    Returns:
        NAMES and RECALLS in percent, -100 where there is no such object; and precision from 0 to 1
        at IoU 0.5 to 0.95 and recall 0 to 1 in 101 steps, of objects of all areas, -1 for classes
        without an object. Nothing found is 0 for those that have one.
    """
    evaluation = _evaluated(truth, found, num_classes, kind)
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation.summarize()
    numbers = zip((*NAMES, *RECALLS), evaluation.stats, strict=True)
    precision = evaluation.eval["precision"][:, :, :, 0, -1]
    return {name: 100 * float(value) for name, value in numbers}, precision


def per_class(
    truth: Sequence[list[Row]], found: Sequence[list[Row]], num_classes: int, kind: Kind
) -> dict[int, float]:
    """AP of each class that occurs, in percent."""
    evaluation = _evaluated(truth, found, num_classes, kind)
    present = sorted({r["category_id"] for rows in truth for r in rows if not r["iscrowd"]})
    precision = evaluation.eval["precision"]  # [IoU, recall, class, area, most objects]
    result = {}
    for label in present:
        values = precision[:, :, label, 0, -1]
        values = values[values > -1]
        result[label] = 100 * float(values.mean()) if len(values) else 0.0
    return result


@dataclass(frozen=True)
class AtThreshold:
    """Precision at one IoU, in percent; a class that does not occur has none."""

    interpolated: dict[int, float]
    """AP of each class over 101 recalls (COCO)."""
    all_points: dict[int, float]
    """AP of each class over every recall that is reached (VOC from 2010 on)."""

    @property
    def mean_interpolated(self) -> float:
        """Mean over classes; 0 if none occurs."""
        return float(np.mean([*self.interpolated.values()])) if self.interpolated else 0.0

    @property
    def mean_all_points(self) -> float:
        """Mean over classes; 0 if none occurs."""
        return float(np.mean([*self.all_points.values()])) if self.all_points else 0.0


def at_thresholds(
    truth: Sequence[list[Row]],
    found: Sequence[list[Row]],
    num_classes: int,
    kind: Kind,
    thresholds: Sequence[float],
) -> dict[float, AtThreshold]:
    """AP of each class that occurs, at each IoU; objects are matched as COCO does."""
    evaluation = _evaluated(truth, found, num_classes, kind, thresholds)
    present = sorted({r["category_id"] for rows in truth for r in rows if not r["iscrowd"]})
    precision = evaluation.eval["precision"][..., 0, -1]  # IoU, recall, class
    images = len(truth)
    result = {}
    for t, threshold in enumerate(thresholds):
        interpolated, all_points = {}, {}
        for label in present:
            first = label * len(evaluation.params.areaRng) * images  # objects of all areas
            of_class = [e for e in evaluation.evalImgs[first : first + images] if e is not None]
            interpolated[label] = 100 * float(precision[t, :, label].mean())
            all_points[label] = 100 * _all_points(of_class, t)
        result[threshold] = AtThreshold(interpolated, all_points)
    return result


def _all_points(images: list[dict[str, Any]], threshold: int) -> float:
    """Area below the best precision at each recall or beyond, from what pycocotools matched."""
    scores = np.concatenate([e["dtScores"] for e in images])
    right = np.concatenate([e["dtMatches"][threshold] > 0 for e in images])
    ignored = np.concatenate([e["dtIgnore"][threshold] for e in images]).astype(bool)
    total = sum(int((np.asarray(e["gtIgnore"]) == 0).sum()) for e in images)
    order = np.argsort(-scores[~ignored], kind="mergesort")
    hits = right[~ignored][order].cumsum()
    precision = hits / np.arange(1, len(hits) + 1)
    best = np.maximum.accumulate(precision[::-1])[::-1]
    return float((np.diff(hits, prepend=0) * best).sum() / total)


def _without_mask(row: Row) -> Row | None:
    """A true object that was annotated by its box alone, as a region that does not count."""
    from pycocotools import mask as codes

    code = row["segmentation"]
    if codes.area(code):
        return None
    height, width = code["size"]
    box = codes.frPyObjects(np.array([row["bbox"]], dtype=np.float64), height, width)[0]
    return row | {"segmentation": box, "iscrowd": 1}


def _evaluated(
    truth: Sequence[list[Row]],
    found: Sequence[list[Row]],
    num_classes: int,
    kind: Kind,
    thresholds: Sequence[float] | None = None,
) -> Any:
    """A pycocotools evaluation."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    assert len(truth) == len(found)
    # it writes into what it is given, and counts objects from 1
    rows = [row | {"image_id": image} for image, some in enumerate(truth) for row in some]
    if kind == "masks":
        rows = [_without_mask(row) or row for row in rows]
    guesses = [row | {"image_id": image} for image, some in enumerate(found) for row in some]
    if kind == "masks":  # with a box, it would take the box's area for the size of the object
        guesses = [{k: v for k, v in row.items() if k not in ("bbox", "area")} for row in guesses]
    coco, results = COCO(), COCO()
    coco.dataset = {
        # sizes are for polygons only
        "images": [{"id": image, "height": 0, "width": 0} for image in range(len(truth))],
        "categories": [{"id": i, "name": str(i)} for i in range(num_classes)],
        "annotations": [row | {"id": number} for number, row in enumerate(rows, 1)],
    }
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
        if guesses:
            results = coco.loadRes(guesses)
        else:  # which it does not take
            results.dataset = coco.dataset | {"annotations": []}
            results.createIndex()
        evaluation = COCOeval(coco, results, "bbox" if kind == "boxes" else "segm")
        if thresholds is not None:  # for objects of all areas alone
            evaluation.params.iouThrs = np.array(thresholds)
            evaluation.params.areaRng = evaluation.params.areaRng[:1]
            evaluation.params.areaRngLbl = evaluation.params.areaRngLbl[:1]
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation
