"""Results of predictions as files: masks on pictures, COCO results, tables, a page."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tenfold.files import write_bytes, write_text
from tenfold.metrics import objects
from tenfold.structures import Instances
from tenfold.viz import fonts, overlays
from tenfold.viz.overlays import Rgb
from tenfold.viz.page import Figure, Section, uri
from tenfold.viz.predictions import Trained, write_predictions, write_table

from .config import PredictOptions

HEIGHT = 320
"""Pixels of a picture's height on the page."""


@dataclass(frozen=True)
class Record:
    """The part of an answer that is kept when the next picture is read."""

    name: str
    objects: Sequence[dict[str, Any]] = ()
    """As `metrics.objects.results` has them, masks as run-length codes."""
    size: tuple[int, int] = (0, 0)
    """Height and width in pixels."""
    problem: str = ""
    """Reason why it cannot be read."""
    written: Sequence[Path] = ()
    shown: Rgb | None = None
    """Small picture, of those that the page shows."""

    def text(self) -> str:
        """Return what was found in one line."""
        count = Counter(one["category"] for one in self.objects)
        some = ", ".join(f"{n} x {name}" if n > 1 else name for name, n in count.items())
        return some or "no object"


def write_picture(
    picture: Rgb, found: Instances, name: str, output: Path, classes: Sequence[str], shown: bool
) -> Record:
    """Write a picture with its masks, and return what tables and page need.

    Args:
        picture: The picture itself.
        found: Its objects, with scores and masks.
        name: How tables and page call it.
        output: Beginning of the names of its files.
        classes: Names of the classes.
        shown: Whether it is among those on the page.
    """
    drawn = draw(picture, found, classes)
    file = output.with_name(f"{output.name}-objects.png")
    write_bytes(file, overlays.png(drawn))
    return Record(
        name,
        objects.results(found, classes),
        (picture.shape[0], picture.shape[1]),
        written=[file],
        shown=overlays.fitted(drawn, HEIGHT) if shown else None,
    )


def draw(picture: Rgb, found: Instances, classes: Sequence[str], has_captions: bool = True) -> Rgb:
    """Masks, boxes and captions on a picture; of one class a colour an object, and no name."""
    names = fonts.captions(tuple(classes)) if len(classes) > 1 else ("",)
    captions = [names[label] if has_captions else "" for label in found.labels]
    if found.scores is not None and has_captions:
        scores = [f"{100 * score:.0f} %" for score in found.scores]
        captions = [f"{name} {score}".strip() for name, score in zip(captions, scores, strict=True)]
    labels = np.arange(len(found)) if len(classes) == 1 else found.labels
    return overlays.draw_objects(picture, found.boxes, captions, labels, found.masks)


def write_folder(
    records: Sequence[Record],
    inputs: Path,
    out: Path,
    classes: Sequence[str],
    options: PredictOptions,
    trained: Trained,
) -> list[Path]:
    """Write what there is once: COCO results, tables and the page, which is last."""
    good = [record for record in records if not record.problem]
    images = [objects.Image(record.name, *record.size) for record in good]
    found, listed = objects.numbered(images, [record.objects for record in good], classes)
    files = [path for record in good for path in record.written]
    for name, content in (("objects.json", found), ("images.json", listed)):
        write_text(out / name, json.dumps(content, indent=1) + "\n")
        files.append(out / name)
    cells = [objects.table_row(one.name, row) for one in good for row in one.objects]
    files.append(write_table(out / "objects.csv", objects.HEADER, cells))
    rows = [[one.name, str(len(one.objects)), one.text(), one.problem] for one in records]
    rows = [row[:1] + ["", ""] + row[3:] if row[3] else row for row in rows]
    head = ("file", "objects", "classes", "problem")
    files.append(write_table(out / "predictions.csv", head, rows))
    figures = [
        Figure(
            uri(overlays.row_jpeg([record.shown], HEIGHT), "image/jpeg"),
            caption=f"{record.name}: {record.text()}",
            alt=f"Objects of {record.name}",
        )
        for record in good
        if record.shown is not None
    ]
    page = write_predictions(
        out,
        inputs,
        trained,
        [Section("Objects", text=[f"Of score {options.score:g} and more."], figures=figures)],
        lead=f"{len(good)} pictures, {len(found)} objects",
        count=len(records),
        problems=[record.problem for record in records if record.problem],
        meaning=[
            "Scores order the objects; they are not calibrated.",
            "objects.json has COCO's results, with masks as run-length codes; images.json has the "
            "pictures and categories that they refer to.",
            *(
                f"On pictures, {line}: no font here can draw it."
                for line in fonts.meanings(classes)
            ),
        ],
    )
    return [*files, page]
