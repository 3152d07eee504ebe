"""Figures of a run's report: curves over answers, pixels that were asked about, masks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from tenfold.data.images.instances import Objects, Point
from tenfold.files import write_bytes
from tenfold.structures import Instances
from tenfold.viz import overlays, plots
from tenfold.viz.overlays import Rgb
from tenfold.viz.predictions import spread

from . import data, inference, write
from .evaluation import Details
from .rounds_of_run import RunRounds

ROWS = 6
"""Pictures of a sheet."""
LARGE = 320
"""Pixels of the longer side to which pictures are enlarged before pixels are marked on them."""
YES, NO = (60, 220, 90), (255, 70, 60)
"""Colours of pixels on and off the object; their shapes differ, too."""
CLASSES = 20
"""Classes of the bars, at most, evenly from the least filled to the most."""
SCORE = 0.3
"""Least score of the objects that are drawn."""
Add = Callable[[str, bytes, str], None]


def draw_figures(rounds: RunRounds, details: Details, out: Path) -> dict[Path, str]:
    """Write curves, chosen pixels and masks.

    Args:
        rounds: Network, answers and configuration of the run.
        details: What the evaluation found.
        out: Folder of the figures.

    Returns:
        File -> caption.
    """
    captions: dict[Path, str] = {}

    def add(name: str, content: bytes, caption: str) -> None:
        write_bytes(out / name, content)
        captions[out / name] = caption

    rounds.network.eval()
    _masks(rounds, details.split, add)
    _points(rounds, add)
    if len(details.curve) > 1:
        _curves(details, add)
    if len(details.classes) > 1:
        _classes(details, add)
    return captions


def _masks(rounds: RunRounds, split: str, add: Add) -> None:
    """Test pictures: found objects beside the true ones."""
    cfg, some = rounds.cfg, data.open_set(rounds.cfg.data, split)
    rows = []
    for row in spread(range(len(some)), ROWS):
        picture, one = some.picture(row), some.pictures[row]
        found = inference.detect(rounds.network, cfg, picture, SCORE)
        has_names = len(cfg.classes) > 1
        shown, true = (
            write.draw(picture, some, cfg.classes, has_names) for some in (found, truth(one))
        )
        rows.append([overlays.enlarged(picture)[0], shown, true])
    if rows:
        sheet = overlays.sheet(rows, ("picture", "found", "truth"))
        caption = f"Test pictures: objects of score {SCORE:g} and more, and the true ones"
        add("masks.png", sheet, caption)


def truth(one: Objects) -> Instances:
    """The true objects of a picture; those without masks by their boxes alone."""
    shapes = one.asked
    masks = np.zeros((len(shapes), one.height, one.width), dtype=bool)
    for row, shape in enumerate(shapes):
        if shape.mask is not None:
            masks[row] = shape.mask.whole(one.height, one.width)
    boxes = np.array([shape.box for shape in shapes], dtype=np.float32).reshape(-1, 4)
    labels = np.array([shape.label for shape in shapes], dtype=np.int64)
    return Instances(boxes, labels, masks=masks)


def _points(rounds: RunRounds, add: Add) -> None:
    """Training pictures with all pixels that were asked about, numbered by round."""
    known = rounds.known(rounds.last)
    train = data.open_set(rounds.cfg.data, "train")
    asked = [
        row for row, one in enumerate(train.pictures) if any(known(shape.id) for shape in one.asked)
    ]
    rows = []
    for row in spread(asked, ROWS):
        picture, one = train.picture(row), train.pictures[row]
        seen = inference.see(rounds.network, rounds.cfg, picture)
        boxes = [shape.box for shape in one.asked]
        unsure = np.zeros(picture.shape[:2])
        for box, maps in zip(boxes, inference.committee(rounds.network, seen, boxes), strict=True):
            if len(maps):
                x0, y0, x1, y1 = inference.pixel_box(box, one.height, one.width)
                mean = maps.mean(0)
                place = unsure[y0:y1, x0:x1]
                np.maximum(place, 1 - np.abs(2 * mean - 1), out=place)
        points = [point for shape in one.asked for point in known(shape.id)]
        heat = overlays.heat(picture, unsure.astype(np.float32))
        rows.append([marked(picture, points), marked(heat, points)])
    if rows:
        titles = ("answers", "unsure")
        add("points.png", overlays.sheet(rows, titles, height=220),
            "Training pictures: pixels that were asked about (ring: on the object, cross: not); "
            "yellow is where the network is least sure of the masks in the boxes")  # fmt: skip


def marked(picture: Rgb, points: list[Point]) -> Rgb:
    """A picture with rings at pixels on the object and crosses at others."""
    large, factor = overlays.enlarged(picture, LARGE)
    image = Image.fromarray(large)
    draw = ImageDraw.Draw(image)
    size = max(4, min(large.shape[:2]) // 45)
    for point in points:
        x, y = factor * (point.x + 0.5), factor * (point.y + 0.5)
        for tint, wide in (((0, 0, 0), 4), (YES if point.label == 1 else NO, 2)):
            if point.label == 1:
                reach = size + wide // 2
                box = (x - reach, y - reach, x + reach, y + reach)
                draw.ellipse(box, outline=tint, width=wide)
            else:
                for slope in (size, -size):
                    draw.line((x - size, y - slope, x + size, y + slope), fill=tint, width=wide)
    return np.asarray(image)


def _curves(details: Details, add: Add) -> None:
    """AP and mean IoU over answers and over seconds."""
    for over, label in (("answers", "answers"), ("seconds", "seconds of boxes and answers")):
        x = [float(getattr(cost, over)) for _, cost, _, _ in details.curve]
        if len(set(x)) < 2:
            continue
        lines = {
            "mask AP": (x, [ap for _, _, ap, _ in details.curve]),
            "mean IoU": (x, [iou for *_, iou in details.curve]),
            **{f"IoU, {name}": (x, [value] * len(x)) for name, value in details.baselines.items()},
        }
        picture = plots.curves(lines, xlabel=label, ylabel="%", log=False, size=(6.4, 3.6))
        caption = f"Test masks against {label}, a dot a round; IoU is of masks in the true boxes"
        add(f"{over}.png", picture, caption)


def _classes(details: Details, add: Add) -> None:
    """IoU of the classes beside that of the whole box, the least filled first."""
    some = spread(details.classes, CLASSES)
    values = {
        "network": {name: iou for name, _, iou, _ in some},
        "whole box": {name: iou for name, _, _, iou in some},
    }
    picture = plots.bars(values, ylabel="mean IoU (%)", size=(7.0, 3.6))
    add("classes.png", picture, "Masks in the true boxes by class; the class that fills its boxes "
        "least stands first")  # fmt: skip
