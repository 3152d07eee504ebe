"""Measures of every round: AP of what is found, and IoU of masks in boxes that are given.

AP stands and falls with detection; masks in given boxes are what points teach.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Bool

from tenfold.core.divide import divided
from tenfold.core.system import Evaluation
from tenfold.data.images.instances import Objects, ObjectSet
from tenfold.metrics import ap
from tenfold.metrics.curves import area_under
from tenfold.nn.condinst import CondInst

from . import data, inference
from .config import Config
from .rounds_of_run import Cost, RunRounds
from .settings import FINAL
from .strategies import Pixels, pixel_box

Metrics = dict[str, float]
COLUMNS = ("AP", "AP50", "AP75", "small", "medium", "large")
WHOLE_BOX, ELLIPSE = "whole box", "ellipse in the box"
ABSENT = -100.0
"""COCO's AP where there is no object of a size."""


@dataclass(frozen=True)
class Measured:
    """What a network made of the pictures of a set; entry i of a list is of picture i."""

    found: list[list[ap.Row]]
    """Detected objects in COCO's form."""
    overlaps: list[list[float]]
    """IoU of the mask in each given box."""
    right: list[list[float]]
    """Share of the pixels of each given box that the mask has right."""


@dataclass(frozen=True)
class Details:
    """Curves that figures are drawn from."""

    split: str = "test"
    curve: tuple[tuple[str, Cost, float, float], ...] = ()
    """Stage, what was asked until then, AP, mean IoU."""
    baselines: dict[str, float] = field(default_factory=dict)
    """Mean IoU of what needs no training."""
    classes: tuple[tuple[str, float, float, float], ...] = ()
    """Name, fill of the box, mean IoU, mean IoU of the whole box; the least filled first."""


def evaluate(network: CondInst, cfg: Config, rounds: RunRounds, split: str) -> Evaluation:
    """Measure the network after every stage whose weights are there, the last one in any case."""
    some = data.open_set(cfg.data, split)
    truth = [true_rows(one) for one in some.pictures]
    is_masked = data.has_masks(some)
    metrics: Metrics = {}
    baselines: dict[str, Metrics] = {}
    curve: list[tuple[str, Cost, float, float]] = []
    last = Measured([], [], [])
    for name, one in rounds.networks(network):
        last = measure(one, cfg, some, f"{split} pictures, {name}")
        values = measures(cfg, truth, last, name, is_masked)
        metrics |= values
        cost = rounds.cost(name)
        metrics |= costs(cost, name)
        if is_masked:
            curve.append((name, cost, values[f"masks/{name}/AP"], values[f"given/{name}/IoU"]))
    final = curve[-1][0] if curve else rounds.last
    metrics |= {
        f"{group}/{FINAL}/{column}": value
        for key, value in list(metrics.items())
        for group, row, column in [key.split("/")]
        if row == final
    }
    classes: tuple[tuple[str, float, float, float], ...] = ()
    notes = []
    if is_masked:
        baselines = baselines_of(cfg, some, truth, last)
        classes = by_class(cfg, some, last)
        for name, fill, overlap, _ in classes:
            metrics[f"fill/{name.replace('/', '-')}/share"] = fill
            metrics[f"class/{name.replace('/', '-')}/IoU"] = overlap
        metrics |= areas(curve)
    else:
        notes.append(f"the {split} pictures have no masks: masks are not measured")
        metrics |= rounds.agreement(network)
    kept = rounds.note(len(curve))
    notes += [kept] if kept else []
    floor = {name: values[f"given/{FINAL}/IoU"] for name, values in baselines.items()}
    details = Details(split, tuple(curve), floor, classes)
    return Evaluation(metrics, baselines, details, tuple(notes))


# --- one network ---------------------------------------------------------------------------------


def measure(network: CondInst, cfg: Config, some: ObjectSet, title: str) -> Measured:
    """Look for objects in all pictures of a set, and make masks in the true boxes."""
    network.eval()

    def one(row: int) -> tuple[list[ap.Row], list[float], list[float]]:
        picture, objects = some.picture(row), some.pictures[row]
        seen = inference.see(network, cfg, picture)
        found = inference.found_rows(network, seen)
        asked = [shape for shape in objects.asked if shape.mask is not None]
        boxes = [shape.box for shape in asked]
        masks = inference.committee(network, seen, boxes)
        said = [
            given.mean(0) > 0.5 if len(given) else np.zeros(given.shape[1:], dtype=bool)
            for given in masks
        ]
        return found, *judged(objects, said)

    parts = divided(len(some), one, title)
    return Measured(*([part[i] for part in parts] for i in range(3)))  # type: ignore[arg-type]


def judged(
    one: Objects, said: Sequence[Bool[np.ndarray, "_ _"]]
) -> tuple[list[float], list[float]]:
    """IoU, and share of the box's pixels that are right, of a mask in each box of a picture."""
    overlaps, right = [], []
    asked = [shape for shape in one.asked if shape.mask is not None]
    for shape, mask in zip(asked, said, strict=True):
        assert shape.mask is not None
        truth = shape.mask.within(pixel_box(shape.box, one.height, one.width))
        overlaps.append(overlap(mask, truth, shape.mask.area))
        right.append(float((mask == truth).mean()))
    return overlaps, right


def overlap(
    said: Bool[np.ndarray, "height width"], truth: Bool[np.ndarray, "height width"], area: int
) -> float:
    """IoU of a mask that lies in a box with the truth; `area` counts its pixels beyond, too."""
    shared = int((said & truth).sum())
    return shared / max(1, int(said.sum()) + area - shared)


def measures(
    cfg: Config, truth: list[list[ap.Row]], found: Measured, name: str, is_masked: bool
) -> Metrics:
    """AP of boxes, and of masks with the mean IoU in given boxes, in percent."""
    count = len(cfg.classes)
    values = _average_precision(truth, found.found, count, "boxes", f"boxes/{name}")
    if is_masked:
        values |= _average_precision(truth, found.found, count, "masks", f"masks/{name}")
        values[f"given/{name}/IoU"] = 100 * _mean(found.overlaps)
        values[f"given/{name}/accuracy"] = 100 * _mean(found.right)
    return values


def _average_precision(
    truth: list[list[ap.Row]], found: list[list[ap.Row]], count: int, kind: ap.Kind, prefix: str
) -> Metrics:
    numbers = ap.average_precision(truth, found, count, kind)
    return {f"{prefix}/{name}": numbers[name] for name in COLUMNS if numbers[name] != ABSENT}


def _mean(values: Sequence[Sequence[float]]) -> float:
    every = [value for some in values for value in some]
    return float(np.mean(every)) if every else 0.0


def costs(cost: Cost, name: str) -> Metrics:
    """Answers until the end of a stage, and the seconds of all that was said."""
    return {
        f"answers/{name}/all": float(cost.answers),
        f"answers/{name}/per object": cost.answers / max(1, cost.objects),
        f"answers/{name}/fallback": float(cost.fallback),
        f"answers/{name}/unsure": float(cost.unsure),
        f"seconds/{name}/total": cost.seconds,
    }


def areas(curve: Sequence[tuple[str, Cost, float, float]]) -> Metrics:
    """Mean heights of the curves over answers and over seconds; nothing where these do not rise."""
    found: Metrics = {}
    for over in ("answers", "seconds"):
        x = np.array([float(getattr(cost, over)) for _, cost, _, _ in curve])
        if len(x) > 1 and (np.diff(x) > 0).all():
            for column, place in (("AP", 2), ("IoU", 3)):
                y = np.array([row[place] for row in curve], dtype=np.float64)
                found[f"area/{over}/{column}"] = area_under(x, y)
    return found


# --- truth and baselines -------------------------------------------------------------------------


def true_rows(one: Objects) -> list[ap.Row]:
    """The objects of a picture in COCO's form, crowds included."""
    rows: list[ap.Row] = []
    for shape in one.shapes:
        x0, y0, x1, y1 = shape.box
        row: ap.Row = {
            "category_id": shape.label, "bbox": [x0, y0, x1 - x0, y1 - y0], "area": shape.area,
            "iscrowd": int(shape.is_crowd),
        }  # fmt: skip
        if shape.mask is not None:
            row["segmentation"] = shape.mask.code(one.height, one.width)
        else:
            row["segmentation"] = ap.encode_mask(np.zeros((one.height, one.width), dtype=bool))
        rows.append(row)
    return rows


def filled(box: Pixels, name: str) -> Bool[np.ndarray, "height width"]:
    """The mask that a baseline has in a box."""
    x0, y0, x1, y1 = box
    if name == WHOLE_BOX:
        return np.ones((y1 - y0, x1 - x0), dtype=bool)
    y, x = (2 * (np.arange(n) + 0.5) / n - 1 for n in (y1 - y0, x1 - x0))
    inside: np.ndarray = y[:, None] ** 2 + x[None] ** 2 <= 1
    return inside


def baselines_of(
    cfg: Config, some: ObjectSet, truth: list[list[ap.Row]], last: Measured
) -> dict[str, Metrics]:
    """The whole box and its ellipse: of the true boxes for IoU, of the detected ones for AP."""
    found = {}
    for name in (WHOLE_BOX, ELLIPSE):
        overlaps, right, rows = [], [], []
        for one, detected in zip(some.pictures, last.found, strict=True):
            of_picture = _of_boxes(one, name)
            overlaps.append(of_picture[0])
            right.append(of_picture[1])
            rows.append([_refilled(row, one, name) for row in detected])
        numbers = _average_precision(truth, rows, len(cfg.classes), "masks", f"masks/{FINAL}")
        found[name] = {
            **numbers,
            f"given/{FINAL}/IoU": 100 * _mean(overlaps),
            f"given/{FINAL}/accuracy": 100 * _mean(right),
        }
    return found


def _of_boxes(one: Objects, name: str) -> tuple[list[float], list[float]]:
    boxes = [
        pixel_box(shape.box, one.height, one.width) for shape in one.asked if shape.mask is not None
    ]
    return judged(one, [filled(box, name) for box in boxes])


def _refilled(row: ap.Row, one: Objects, name: str) -> ap.Row:
    x, y, wide, tall = row["bbox"]
    box = pixel_box((x, y, x + wide, y + tall), one.height, one.width)
    mask = np.zeros((one.height, one.width), dtype=bool)
    mask[box[1] : box[3], box[0] : box[2]] = filled(box, name)
    return row | {"segmentation": ap.encode_mask(mask)}


def by_class(
    cfg: Config, some: ObjectSet, last: Measured
) -> tuple[tuple[str, float, float, float], ...]:
    """Fill and mean IoUs of each class that occurs, in percent, the least filled first."""
    rows: dict[int, list[tuple[float, float, float]]] = {}
    for one, overlaps in zip(some.pictures, last.overlaps, strict=True):
        masked = [shape for shape in one.asked if shape.mask is not None]
        for shape, value, floor in zip(masked, overlaps, _of_boxes(one, WHOLE_BOX)[0], strict=True):
            assert shape.mask is not None
            x0, y0, x1, y1 = shape.box
            fill = shape.mask.area / max(1.0, (x1 - x0) * (y1 - y0))
            rows.setdefault(shape.label, []).append((fill, value, floor))
    found: list[Any] = [
        (cfg.classes[label], *(100 * np.mean(values, axis=0)).tolist())
        for label, values in rows.items()
    ]
    return tuple(sorted(found, key=lambda row: row[1]))
