"""What `predict` writes for pictures of a user: tables, pages, label maps and drawn objects."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image

from tenfold.core.checkpoint import write_bytes, write_text
from tenfold.data import views
from tenfold.data.pictures import photos, read_picture
from tenfold.metrics.ap import encode_mask
from tenfold.report import overlays
from tenfold.report.overlays import Rgb
from tenfold.report.page import Badge, Figure, Page, Section, footer, uri, write_page
from tenfold.report.tables import Cell, Table

from . import data, measure, picture
from .model import Classifier, PixelPretraining
from .networks import network_of
from .tasks import Detector, Localiser, Segmenter

if TYPE_CHECKING:
    from .system import Itpn

SHOWN = 24
"""Pictures on the page, at most; the tables and single files have all."""
LARGEST = 1024
"""Longer side of pictures of which the pyramid is drawn."""


@dataclass
class Answer:
    """What is said of one picture."""

    file: Path
    name: str
    ranked: list[tuple[str, float]] = field(default_factory=list)
    """Classes and probabilities, the most probable first."""
    box: list[float] = field(default_factory=list)
    """x0 y0 x1 y1 of the one object, in pixels."""
    objects: list[dict[str, Any]] = field(default_factory=list)
    shares: list[tuple[str, float]] = field(default_factory=list)
    """Classes of pixels and their share of the picture."""
    problem: str = ""


@dataclass
class Files:
    """Where things go."""

    out: Path
    written: list[Path] = field(default_factory=list)

    def picture(self, name: str, content: bytes) -> Path:
        """Write a PNG."""
        path = self.out / name
        write_bytes(path, content)
        self.written.append(path)
        return path


def predict_files(system: Itpn, inputs: Path, out: Path) -> list[Path]:
    """All tasks of a run on a picture, or on each picture of a folder.

    In a folder, pictures that cannot be read are listed as such; a lone one is an error.
    """
    inputs = Path(os.path.abspath(inputs))
    files = photos(inputs) if inputs.is_dir() else [inputs]
    answers, pictures = [], []
    for file in files:
        try:
            pictures.append(read_picture(file))
            answers.append(Answer(file, printable(file.name)))
        except ValueError as error:
            if len(files) == 1:
                raise
            answers.append(Answer(file, printable(file.name), problem=printable(str(error))))
    good = [answer for answer in answers if not answer.problem]
    if not good:
        raise ValueError(f"{inputs}: none of {len(files)} pictures can be read")
    system.model.eval()
    made, sections = Files(out), []
    for task in system.cfg.tasks:
        network = network_of(system.model, task)
        if isinstance(network, Classifier):
            sections.append(_classified(system, network, good, pictures, made))
        elif isinstance(network, Localiser):
            sections.append(_localised(system, network, good, pictures, made))
        elif isinstance(network, Segmenter):
            sections.append(_segmented(system, network, good, pictures, made))
        elif isinstance(network, Detector):
            sections.append(_detected(system, network, good, pictures, made))
        elif isinstance(network, PixelPretraining):
            sections.append(_reconstructed(system, network, good, pictures, made))
    if any(network_of(system.model, t).backbone.shape.fpn_dim for t in system.cfg.tasks):
        sections.append(_features(system, good, pictures, made))
    table = out / "predictions.csv"
    write_text(table, _csv(answers, system.options.top))
    page = write_page(_page(system, sections, answers, inputs), out / "predictions.html")
    return [table, *made.written, page]


def printable(text: str) -> str:
    """Text that any file can hold and any reader can show: names of files may be any bytes."""
    return "".join(c if c.isprintable() else "\ufffd" for c in text)


def _figure(content: bytes, what: str) -> Figure:
    return Figure(uri(content, "image/png"), alt=what)


def _chunks(count: int) -> list[range]:
    return [range(i, min(i + measure.BATCH, count)) for i in range(0, count, measure.BATCH)]


@torch.inference_mode()
def _classified(
    system: Itpn, network: Classifier, good: list[Answer], pictures: list[Rgb], made: Files
) -> Section:
    cfg, device = system.cfg, measure.device_of(network)
    top = min(system.options.top, len(cfg.classes))
    for rows in _chunks(len(good)):
        seen = [views.centre(pictures[i], cfg.model.size, cfg.data.test_crop) for i in rows]
        x = data.normalised(torch.stack(seen), cfg.data.normalise).to(device)
        best = network.logits(x).float().softmax(1).topk(top)
        for i, values, labels in zip(
            rows, best.values.tolist(), best.indices.tolist(), strict=True
        ):
            good[i].ranked = [(cfg.classes[c], v) for c, v in zip(labels, values, strict=True)]
    some = range(min(len(good), SHOWN))
    content = picture.labels_sheet([pictures[i] for i in some], [good[i].ranked for i in some])
    made.picture("labels.png", content)
    return Section("Classes", figures=[_figure(content, "classes and probabilities")])


def _localised(
    system: Itpn, network: Localiser, good: list[Answer], pictures: list[Rgb], made: Files
) -> Section:
    shown: list[Rgb] = []
    for answer, one in zip(good, pictures, strict=True):
        box = whole_box(system, network, one)
        answer.box = [round(float(v), 1) for v in box]
        if len(shown) < SHOWN:
            caption = answer.ranked[0][0] if answer.ranked else ""
            shown.append(overlays.draw_objects(one, box[None], [caption], np.array([0])))
    rows = [shown[i : i + 4] for i in range(0, len(shown), 4)]
    content = overlays.sheet(rows, height=200)
    made.picture("boxes.png", content)
    return Section("Boxes", figures=[_figure(content, "the box of each picture's object")])


@torch.inference_mode()
def whole_box(system: Itpn, network: Localiser, one: Rgb) -> np.ndarray:
    """The box of a picture's object in its pixels, inside of it."""
    cfg, (height, width) = system.cfg, one.shape[:2]
    seen = views.view(one, (0, 0, width, height), False, cfg.model.size)[None]
    x = data.normalised(seen, cfg.data.normalise).to(measure.device_of(network))
    sides = np.array([width, height, width, height], dtype=np.float32)
    return (network.boxes(x)[0].cpu().numpy().clip(0, 1) * sides).astype(np.float32)


def _segmented(
    system: Itpn, network: Segmenter, good: list[Answer], pictures: list[Rgb], made: Files
) -> Section:
    rows: list[list[Rgb]] = []
    cfg, seen = system.cfg, set()
    count = len(cfg.classes)
    for answer, one in zip(good, pictures, strict=True):
        labels = measure.label_map(network, one, cfg)
        stem = Path(answer.name).stem
        made.picture(f"{stem}-labels.png", _palette_png(labels, count))
        made.picture(f"{stem}-overlay.png", overlays.png(overlays.blend(one, labels, count)))
        values, pixels = np.unique(labels, return_counts=True)
        order = pixels.argsort()[::-1]
        answer.shares = [(cfg.classes[values[i]], pixels[i] / labels.size) for i in order]
        if len(rows) < SHOWN:
            rows.append(
                [one, overlays.colour_map(labels, count), overlays.blend(one, labels, count)]
            )
            seen |= set(values.tolist())
    strip = overlays.legend(cfg.classes, sorted(seen), 700)
    content = overlays.sheet(rows, ("picture", "classes", "both"), height=200, footer=strip)
    made.picture("segmentation.png", content)
    return Section("Segmentation", figures=[_figure(content, "classes of pixels")])


def _palette_png(labels: np.ndarray, count: int) -> bytes:
    """Class numbers as a palette PNG, which viewers show in colours."""
    image = Image.fromarray(labels, "P")
    image.putpalette(overlays.palette(count).tobytes())
    content = io.BytesIO()
    image.save(content, "PNG")
    return content.getvalue()


def _detected(
    system: Itpn, network: Detector, good: list[Answer], pictures: list[Rgb], made: Files
) -> Section:
    shown: list[Rgb] = []
    cfg, records = system.cfg, []
    for number, (answer, one) in enumerate(zip(good, pictures, strict=True)):
        found = measure.detect(network, one, cfg)
        rows = np.flatnonzero(found.scores >= system.options.score)
        for row in rows:
            x0, y0, x1, y1 = (round(float(v), 2) for v in found.boxes[row])
            record = {
                "image_id": number, "file_name": answer.name,
                "category": cfg.classes[found.labels[row]],
                "bbox": [x0, y0, round(x1 - x0, 2), round(y1 - y0, 2)],
                "score": round(float(found.scores[row]), 4),
            }  # fmt: skip
            if found.masks is not None:
                code = encode_mask(found.masks[row])
                record["segmentation"] = {
                    "size": list(code["size"]),
                    "counts": code["counts"].decode(),
                }
            records.append(record)
            answer.objects.append(record)
        masks = None if found.masks is None else found.masks[rows]
        captions = [f"{cfg.classes[found.labels[r]]} {100 * found.scores[r]:.0f} %" for r in rows]
        drawn = overlays.draw_objects(one, found.boxes[rows], captions, found.labels[rows], masks)
        made.picture(f"{Path(answer.name).stem}-objects.png", overlays.png(drawn))
        if len(shown) < SHOWN:
            shown.append(drawn)
    path = made.out / "objects.json"
    write_text(path, json.dumps(records, indent=1) + "\n")
    made.written.append(path)
    content = overlays.sheet([shown[i : i + 2] for i in range(0, len(shown), 2)], height=320)
    made.picture("objects.png", content)
    text = [f"Objects of score {system.options.score:g} and more (--score)."]
    return Section("Objects", text=text, figures=[_figure(content, "objects found")])


@torch.inference_mode()
def _reconstructed(
    system: Itpn, network: PixelPretraining, good: list[Answer], pictures: list[Rgb], made: Files
) -> Section:
    cfg, some = system.cfg, pictures[: picture.SHOWN]
    seen = torch.stack([views.centre(one, cfg.model.size, cfg.data.test_crop) for one in some])
    content = reconstruction(system, network, seen)
    made.picture("reconstruction.png", content)
    text = [
        "Guesses are shown with each part's true mean and contrast, since pixels are learned "
        "normalised by them."
    ]
    figures = [_figure(content, "masked pictures and their reconstruction")]
    return Section("Reconstruction", text=text if network.normalised else [], figures=figures)


@torch.inference_mode()
def reconstruction(system: Itpn, network: PixelPretraining, seen: torch.Tensor) -> bytes:
    """A sheet of masked pictures and what the network makes of them."""
    from tenfold.core.seed import generator

    from .loss import patchify, statistics, unpatchify

    cfg, how = system.cfg, system.cfg.data.normalise
    images = data.normalised(seen, how).to(measure.device_of(network))
    draw = generator("masks to look at", system.options.seed)
    noise = torch.rand(len(seen), network.shape.units, generator=draw).to(images.device)
    found = network.decode(images, noise)
    values = network.decoder_pred(found.decoded).float()
    side = network.shape.patch_size
    if network.normalised:
        mean, deviation = statistics(patchify(images, side))
        values = values * deviation + mean
    guess = data.shown(unpatchify(values, side, network.shape.grid), how)
    removed = found.masking.mask.bool().cpu().numpy()
    return picture.reconstruction_sheet(
        data.shown(images, how), removed, guess, cfg.model.patch_size
    )


@torch.inference_mode()
def _features(system: Itpn, good: list[Answer], pictures: list[Rgb], made: Files) -> Section:
    some = pictures[: picture.SHOWN]
    content = pyramid(system, some)
    made.picture("pyramid.png", content)
    text = ["The three strongest directions of each level's features as red, green and blue."]
    return Section("Feature pyramid", text=text, figures=[_figure(content, "feature pyramid")])


@torch.inference_mode()
def pyramid(system: Itpn, some: Sequence[Rgb]) -> bytes:
    """A sheet of pyramid levels, of the last task that has a pyramid."""
    from tenfold.nn.hivit import raster

    cfg = system.cfg
    networks = [network_of(system.model, task) for task in cfg.tasks]
    backbone = next(n.backbone for n in networks[::-1] if n.backbone.shape.fpn_dim)
    unit, rows, seen = cfg.model.patch_size, [], []
    for one in some:
        height, width = one.shape[:2]
        scale = min(1.0, LARGEST / max(height, width))
        height, width = (max(unit, round(s * scale / unit) * unit) for s in (height, width))
        image = Image.fromarray(one).resize((width, height), Image.Resampling.BICUBIC)
        x = torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1)[None]
        x = data.normalised(x, cfg.data.normalise).to(measure.device_of(backbone))
        grid = backbone.grid_of(x)
        levels = backbone.pyramid(backbone.encode(x))
        maps = [raster(level, grid)[0].permute(1, 2, 0).float().cpu().numpy() for level in levels]
        rows.append(maps[::-1])
        seen.append(np.asarray(image))
    strides = (unit // 4, unit // 2, unit)[3 - backbone.shape.fpn_levels :]
    return picture.pyramid_sheet(seen, rows, strides)


# --- table and page ----------------------------------------------------------------------------


def _csv(answers: Sequence[Answer], top: int) -> str:
    """A row a picture; a text that a spreadsheet would run as a formula gets an apostrophe."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    top = min(top, max(len(one.ranked) for one in answers))
    ranks = [word for i in range(1, top + 1) for word in (f"class {i}", f"probability {i}")]
    has_box = any(one.box for one in answers)
    boxes = ["x0", "y0", "x1", "y1"] if has_box else []
    kinds = [("objects", any(one.objects for one in answers)),
             ("shares", any(one.shares for one in answers))]  # fmt: skip
    writer.writerow(["file", *ranks, *boxes, *(name for name, on in kinds if on), "problem"])
    for one in answers:
        cells = [x for name, p in one.ranked[:top] for x in (_safe(name), f"{p:.6f}")]
        cells += [""] * (len(ranks) - len(cells))
        cells += [str(v) for v in one.box] or [""] * len(boxes)
        if kinds[0][1]:
            cells.append(_safe("; ".join(o["category"] for o in one.objects)))
        if kinds[1][1]:
            cells.append(_safe("; ".join(f"{name} {share:.4f}" for name, share in one.shares)))
        writer.writerow([_safe(one.name), *cells, _safe(one.problem)])
    return text.getvalue()


def _safe(text: str) -> str:
    return f"'{text}" if text.startswith(("=", "+", "-", "@")) else text


def _page(system: Itpn, sections: list[Section], answers: Sequence[Answer], inputs: Path) -> Page:
    used = system.data_used()
    broken = [one for one in answers if one.problem]
    warning = f"{len(broken)} of {len(answers)} pictures cannot be read; they are listed below"
    more = []
    if broken:
        more.append(Section("Not read", bullets=[one.problem for one in broken[:SHOWN]]))
    shown = [one for one in answers if not one.problem][:SHOWN]
    if any(one.ranked for one in shown):
        rows = [[Cell(one.name), *(Cell(n, f"{100 * p:.1f} %") for n, p in one.ranked[:5])]
                for one in shown]  # fmt: skip
        columns = ["file", *map(str, range(1, len(rows[0])))]
        more.append(Section("Answers", tables=[Table("", columns, rows, text=True)]))
    notes = Section("What this means", bullets=[
        "Probabilities and scores order the answers; they are not calibrated.", *system.notes()
    ])  # fmt: skip
    return Page(
        title=f"Predictions for {printable(inputs.name)}",
        lead=f"{len(answers) - len(broken)} pictures, tasks: {', '.join(system.cfg.tasks)}",
        badges=[Badge(f"trained on {used.kind} data", used.kind)],
        warnings=[warning] if broken else [],
        tiles=[],
        sections=[*sections, *more, notes],
        footer=footer(f"{type(system).__name__}, trained on {used.name}"),
    )
