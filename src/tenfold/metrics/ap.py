"""COCO's average precision of boxes and masks, by pycocotools."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
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
    if evaluation is None:
        present = {r["category_id"] for rows in truth for r in rows if not r["iscrowd"]}
        precision = np.full((10, 101, num_classes), -1.0)
        precision[:, :, sorted(present)] = 0.0
        return dict.fromkeys((*NAMES, *RECALLS), 0.0), precision
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
    if evaluation is None:
        return dict.fromkeys(present, 0.0)
    precision = evaluation.eval["precision"]  # [IoU, recall, class, area, most objects]
    result = {}
    for label in present:
        values = precision[:, :, label, 0, -1]
        values = values[values > -1]
        result[label] = 100 * float(values.mean()) if len(values) else 0.0
    return result


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
    truth: Sequence[list[Row]], found: Sequence[list[Row]], num_classes: int, kind: Kind
) -> Any:
    """A pycocotools evaluation, or None where nothing was found at all."""
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
    if not guesses:
        return None
    coco = COCO()
    coco.dataset = {
        # sizes are for polygons only
        "images": [{"id": image, "height": 0, "width": 0} for image in range(len(truth))],
        "categories": [{"id": i, "name": str(i)} for i in range(num_classes)],
        "annotations": [row | {"id": number} for number, row in enumerate(rows, 1)],
    }
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
        results = coco.loadRes(guesses)
        evaluation = COCOeval(coco, results, "bbox" if kind == "boxes" else "segm")
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation
