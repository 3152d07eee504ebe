"""Results of predictions as files: label maps and drawn objects, sheets, a table, a page."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from tenfold.core.checkpoint import write_bytes, write_text
from tenfold.data.images.coco_numbers import Numbers
from tenfold.metrics import objects as found_objects
from tenfold.structures import Instances
from tenfold.viz import fonts, overlays
from tenfold.viz.overlays import Rgb
from tenfold.viz.page import Cell, Figure, Section, Table, uri
from tenfold.viz.predictions import Trained, output_name, write_predictions, write_table

from . import draw
from .config import Config, PredictOptions
from .inference import Answer

SHOWN = 24
"""Images on the page, at most; the table and single files have all."""
HEIGHTS = {
    "classes": 320, "boxes": 320, "objects": 320, "segmentation": 200, "reconstruction": draw.ROW,
    "pyramid": draw.ROW,
}  # fmt: skip
"""Section of the page -> height of its images in pixels."""
SHEETS = {"classes": "labels.png"}
"""Section -> name of its sheet, where that is not its own."""


@dataclass(frozen=True)
class Record:
    """The part of an answer that is kept when the next image is read."""

    name: str
    ranked: Sequence[tuple[str, float]] = ()
    box: Sequence[float] = ()
    """x0 y0 x1 y1 of the one object, in pixels."""
    objects: Sequence[dict[str, Any]] = ()
    """Objects as `metrics.objects.results` has them, masks as run-length codes."""
    size: tuple[int, int] = (0, 0)
    """Height and width in pixels."""
    shares: Sequence[tuple[str, float]] = ()
    """Classes of pixels and their share of the image, the largest first."""
    problem: str = ""
    """Reason why it cannot be read."""
    written: Sequence[Path] = ()
    rows: dict[str, list[Rgb]] = field(default_factory=dict)
    """Section of the page -> small images, of those that the page shows."""

    def text(self) -> str:
        """Return what is said of the image in one line."""
        classes = ", ".join(f"{name} {100 * p:.0f} %" for name, p in self.ranked[:3])
        count = Counter(one["category"] for one in self.objects)
        objects = ", ".join(f"{n} x {name}" if n > 1 else name for name, n in count.items())
        shares = ", ".join(f"{name} {100 * p:.0f} %" for name, p in self.shares[:4])
        return "; ".join(part for part in (classes, objects, shares) if part)


# --- of one image ------------------------------------------------------------------------------


def write_answer(
    found: Answer, image: Rgb, name: str, output: Path, cfg: Config, shown: bool
) -> Record:
    """Write an image's label map and drawn objects, and return what the table and page need.

    Args:
        found: What the networks say of it.
        image: The image itself.
        name: How table and page call it.
        output: Beginning of the names of its files.
        cfg: Configuration of the run, for its classes.
        shown: Whether it is among those on the page.
    """
    rows, written, count = dict(found.inside), [], len(cfg.classes)
    small = _reduced(image, HEIGHTS["classes"])
    if found.ranked and shown:
        rows["classes"] = [overlays.enlarged(small)[0]]
    if found.box is not None and shown:
        best = found.ranked[0][0] if found.ranked else ""
        caption = best if fonts.has_glyphs(best) else ""
        box = found.box[None] * _scale(image, small)
        rows["boxes"] = [overlays.draw_objects(small, box, [caption], np.array([0]))]
    shares: list[tuple[str, float]] = []
    if found.labels is not None:
        contents = {
            "labels": overlays.label_png(found.labels, count),
            "overlay": overlays.png(overlays.blend(image, found.labels, count)),
        }
        for kind, content in contents.items():
            written.append(output.with_name(f"{output.name}-{kind}.png"))
            write_bytes(written[-1], content)
        values, pixels = np.unique(found.labels, return_counts=True)
        order = pixels.argsort()[::-1]
        shares = [(cfg.classes[values[i]], float(pixels[i] / found.labels.size)) for i in order]
        if shown:
            little = _reduced(image, HEIGHTS["segmentation"])
            labels = _nearest(found.labels, little)
            mixed = overlays.blend(little, labels, count)
            rows["segmentation"] = [little, overlays.colour_map(labels, count), mixed]
    objects: list[dict[str, Any]] = []
    if found.objects is not None:
        objects = found_objects.results(found.objects, cfg.classes)
        written.append(output.with_name(f"{output.name}-objects.png"))
        write_bytes(written[-1], overlays.png(_drawn(found.objects, image, image, cfg.classes)))
        if shown:
            rows["objects"] = [_drawn(found.objects, image, small, cfg.classes)]
    fitted = {key: [overlays.fitted(one, HEIGHTS[key]) for one in row] for key, row in rows.items()}
    corners = () if found.box is None else [round(float(v), 1) for v in found.box]
    size = (image.shape[0], image.shape[1])
    return Record(name, found.ranked, corners, objects, size, shares, written=written, rows=fitted)


def _reduced(image: Rgb, height: int) -> Rgb:
    return overlays.fitted(image, height) if image.shape[0] > height else image


def _scale(image: Rgb, other: Rgb) -> np.ndarray:
    """Factors from corners in one image to those in another."""
    x, y = other.shape[1] / image.shape[1], other.shape[0] / image.shape[0]
    return np.array([x, y, x, y], dtype=np.float32)


def _nearest(values: np.ndarray, like: Rgb) -> np.ndarray:
    """Maps [..., height, width] of the size of another image."""
    y, x = (
        np.arange(new) * old // new
        for new, old in zip(like.shape[:2], values.shape[-2:], strict=True)
    )
    return values[..., y[:, None], x]


def _drawn(found: Instances, image: Rgb, canvas: Rgb, classes: Sequence[str]) -> Rgb:
    """Objects of an image, drawn on it or on a smaller copy."""
    assert found.scores is not None
    masks = None if found.masks is None else _nearest(found.masks, canvas)
    pairs = zip(found.labels, found.scores, strict=True)
    names = fonts.captions(tuple(classes))
    captions = [f"{names[label]} {100 * score:.0f} %" for label, score in pairs]
    boxes = found.boxes * _scale(image, canvas)
    return overlays.draw_objects(canvas, boxes, captions, found.labels, masks)


# --- of all images -----------------------------------------------------------------------------


def write_folder(
    records: Sequence[Record],
    inputs: Path,
    out: Path,
    cfg: Config,
    options: PredictOptions,
    trained: Trained,
    numbers: Numbers | None = None,
) -> list[Path]:
    """Write what there is once: tables, sheets, `objects.json`, and the page, which is last."""
    good = [record for record in records if not record.problem]
    files = [_table(records, options.top, out / "predictions.csv")]
    files += [path for record in good for path in record.written]
    if "detect" in cfg.tasks:
        files += _object_files(good, out, cfg, options, numbers)
    sections = []
    for key, (title, text) in _titles(cfg, options).items():
        shown = [record for record in good if key in record.rows]
        if not shown:  # all that were to be shown are broken
            continue
        files.append(out / SHEETS.get(key, f"{key}.png"))
        write_bytes(files[-1], _sheet(key, shown, cfg))
        figures = [
            Figure(
                uri(overlays.row_jpeg(record.rows[key], HEIGHTS[key]), "image/jpeg"),
                caption=f"{record.name}: {record.text()}" if record.text() else record.name,
                alt=f"{title} of {record.name}",
            )
            for record in shown
        ]  # fmt: skip
        if key == "segmentation":
            figures.append(
                Figure(uri(overlays.png(_legend(shown, cfg)), "image/png"), alt="classes")
            )
        sections.append(Section(title, text=text, figures=figures))
    page = write_predictions(
        out,
        inputs,
        trained,
        [*sections, *_answers(good)],
        lead=f"{len(good)} pictures, tasks: {', '.join(cfg.tasks)}",
        count=len(records),
        problems=[record.problem for record in records if record.problem],
        meaning=[
            "Probabilities and scores order the answers; they are not calibrated.",
            *(f"On pictures, {line}: no font here can draw it." for line in _numbers_drawn(cfg)),
        ],
    )
    return [*files, page]


def _numbers_drawn(cfg: Config) -> list[str]:
    """What numbers on pictures stand for, where names cannot be drawn."""
    return fonts.meanings(cfg.classes) if {"segment", "detect", "classify"} & set(cfg.tasks) else []


def _object_files(
    good: Sequence[Record], out: Path, cfg: Config, options: PredictOptions, numbers: Numbers | None
) -> list[Path]:
    """Objects as COCO results with the file that they refer to, as a table, and as YOLO text."""
    names, rows = [record.name for record in good], [record.objects for record in good]
    images = [found_objects.Image(record.name, *record.size) for record in good]
    ids = ((), ()) if numbers is None else (
        numbers.of_images(names), numbers.of_classes(cfg.classes)
    )  # fmt: skip
    found, listed = found_objects.numbered(images, rows, cfg.classes, *ids)
    files = [out / "objects.json", out / "images.json"]
    for file, content in zip(files, (found, listed), strict=True):
        write_text(file, json.dumps(content, indent=1) + "\n")
    cells = [found_objects.table_row(n, row) for n, some in zip(names, rows, strict=True)
             for row in some]  # fmt: skip
    files.append(write_table(out / "objects.csv", found_objects.HEADER, cells))
    if options.yolo:
        stems = Counter(str(PurePosixPath(name).with_suffix("")) for name in names)
        for image, some in zip(images, rows, strict=True):
            stem = str(PurePosixPath(image.name).with_suffix(""))
            name = output_name(Path(stem if stems[stem] == 1 else image.name))
            files.append(out / "yolo" / "labels" / f"{name}.txt")
            write_text(files[-1], found_objects.yolo_lines(image, some))
        files.append(out / "yolo" / "classes.txt")
        write_text(files[-1], "".join(f"{name}\n" for name in cfg.classes))
    return files


def _titles(cfg: Config, options: PredictOptions) -> dict[str, tuple[str, list[str]]]:
    """Sections of the page in order: key -> title and text."""
    score = f"Objects of score {options.score:g} and more (--score)."
    masked = ["The picture, what is seen of it, that with guesses, and the guesses alone."]
    if cfg.pretrain.normalised:
        masked.append(
            "Guesses are shown with each part's true mean and contrast, since pixels are learned "
            "normalised by them."
        )
    of_task = {
        "classify": ("classes", "Classes", []),
        "localise": ("boxes", "Boxes", []),
        "segment": ("segmentation", "Segmentation", ["Picture, classes, and both."]),
        "detect": ("objects", "Objects", [score]),
        "pretrain": ("reconstruction", "Reconstruction", masked),
    }
    found = {of_task[task][0]: of_task[task][1:] for task in cfg.tasks}
    directions = (
        "The picture, and each level's three strongest directions as red, green and blue, finest "
        "level first."
    )
    return found | {"pyramid": ("Feature pyramid", [directions])}


def _sheet(key: str, shown: Sequence[Record], cfg: Config) -> bytes:
    """A PNG of all images that a section shows."""
    rows = [record.rows[key] for record in shown]
    if key == "classes":
        return draw.labels_sheet([row[0] for row in rows], [one.ranked for one in shown])
    if key == "reconstruction":
        return draw.reconstruction_sheet(rows)
    if key == "pyramid":
        return draw.pyramid_sheet(rows, cfg.model.patch_size)
    if key == "segmentation":
        titles, strip = ("picture", "classes", "both"), _legend(shown, cfg)
        return overlays.sheet(rows, titles, height=HEIGHTS[key], footer=strip)
    each, height = (4, 200) if key == "boxes" else (2, HEIGHTS[key])
    single = [row[0] for row in rows]
    lines = [single[i : i + each] for i in range(0, len(single), each)]
    return overlays.sheet(lines, height=height)


def _legend(shown: Sequence[Record], cfg: Config) -> Rgb:
    names = {name for record in shown for name, _ in record.shares}
    return overlays.legend(cfg.classes, [i for i, n in enumerate(cfg.classes) if n in names], 700)


def _answers(good: Sequence[Record]) -> list[Section]:
    """The classes of the images that are shown, as a table."""
    rows = [
        [Cell(one.name), *(Cell(name, f"{100 * p:.1f} %") for name, p in one.ranked[:5])]
        for one in good
        if "classes" in one.rows
    ]
    if not rows:
        return []
    columns = ["file", *map(str, range(1, len(rows[0])))]
    note = f"{len(rows)} of {len(good):,} pictures; predictions.csv has all."
    table = Table("", columns, rows, note=note if len(good) > len(rows) else "", text=True)
    return [Section("Answers", tables=[table])]


def _table(records: Sequence[Record], top: int, path: Path) -> Path:
    """Write a row an image."""
    top = min(top, max(len(one.ranked) for one in records))
    ranks = [word for i in range(1, top + 1) for word in (f"class {i}", f"probability {i}")]
    boxes = ["x0", "y0", "x1", "y1"] if any(one.box for one in records) else []
    has_objects = any(one.objects for one in records)
    has_shares = any(one.shares for one in records)
    kinds = [*(["objects"] if has_objects else []), *(["shares"] if has_shares else [])]
    rows = []
    for one in records:
        cells = [cell for name, p in one.ranked[:top] for cell in (name, f"{p:.6f}")]
        cells += [""] * (len(ranks) - len(cells))
        cells += [str(v) for v in one.box] or [""] * len(boxes)
        if has_objects:
            cells.append("; ".join(thing["category"] for thing in one.objects))
        if has_shares:
            cells.append("; ".join(f"{name} {share:.4f}" for name, share in one.shares))
        rows.append([one.name, *cells, one.problem])
    return write_table(path, ["file", *ranks, *boxes, *kinds, "problem"], rows)
