"""Results of predictions as files: label maps, overlays, confidence, a film, a table, a page."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from tenfold.core.checkpoint import write_bytes
from tenfold.viz import films, fonts, overlays, plots
from tenfold.viz.overlays import Rgb
from tenfold.viz.page import Figure, Section, uri
from tenfold.viz.predictions import Trained, spread, write_predictions, write_table

from .config import Config

SHOWN = 24
"""Images on the page, at most; the table and single files have all."""
HEIGHT = 200
"""Pixels of an image's height on the page."""
FRAMES = 100
"""Frames of a GIF, at most: evenly from the first to the last. An MP4 has all."""
FASTEST = 50.0
"""Frames of a GIF in a second, at most."""


@dataclass(frozen=True)
class Record:
    """The part of an answer that is kept when the next image is read."""

    name: str
    shares: Sequence[tuple[str, float]] = ()
    """Classes and their share of the image, the largest first."""
    sure: float = 0.0
    """Share of pixels whose class has at least the probability `host.threshold`."""
    problem: str = ""
    """Reason why it cannot be read."""
    written: Sequence[Path] = ()
    row: Sequence[Rgb] = ()
    """Small image, overlay and confidence, of those that the page shows."""

    def text(self) -> str:
        """Return what is said of the image in one line."""
        return ", ".join(f"{name} {100 * share:.0f} %" for name, share in self.shares[:4])


def write_image(
    image: Rgb,
    labels: UInt8[np.ndarray, "height width"],
    confidence: UInt8[np.ndarray, "height width"] | None,
    sure: float,
    name: str,
    output: Path,
    cfg: Config,
    shown: bool,
) -> Record:
    """Write an image's label map, overlay and confidence map.

    Args:
        image: The image itself.
        labels: Class of each pixel.
        confidence: Probability of each pixel's class, 0 to 255; None writes none.
        sure: Share of pixels that are sure.
        name: How table and page call it.
        output: Beginning of the names of its files.
        cfg: Configuration of the run, for its classes.
        shown: Whether it is among those on the page.
    """
    count = len(cfg.classes)
    overlay = overlays.blend(image, labels, count)
    contents = {"labels": overlays.label_png(labels, count), "overlay": overlays.png(overlay)}
    if confidence is not None:
        contents["confidence"] = _grey_png(confidence)
    written = []
    for kind, content in contents.items():
        written.append(output.with_name(f"{output.name}-{kind}.png"))
        write_bytes(written[-1], content)
    values, pixels = np.unique(labels, return_counts=True)
    order = pixels.argsort()[::-1]
    shares = [(cfg.classes[values[i]], float(pixels[i] / labels.size)) for i in order]
    row: list[Rgb] = []
    if shown:
        row = [overlays.fitted(one, HEIGHT) for one in (image, overlay)]
        if confidence is not None:
            row.append(overlays.fitted(np.repeat(confidence[..., None], 3, 2), HEIGHT))
    return Record(name, shares, sure, written=written, row=row)


def _grey_png(values: UInt8[np.ndarray, "height width"]) -> bytes:
    content = io.BytesIO()
    Image.fromarray(values).save(content, "PNG")
    return content.getvalue()


# --- of all images -----------------------------------------------------------------------------


def write_folder(
    records: Sequence[Record],
    inputs: Path,
    out: Path,
    cfg: Config,
    fps: float,
    network: str,
    trained: Trained,
) -> list[Path]:
    """Write what there is once: table, class histogram, film, and the page, which is last.

    `fps` are frames a second of the film; 0 writes none.
    """
    good = [record for record in records if not record.problem]
    files = [_table(records, cfg.classes, out / "predictions.csv")]
    files += [path for record in good for path in record.written]
    means = {name: 100 * mean for name, mean in _mean_shares(good, cfg.classes).items()}
    files.append(out / "classes.png")
    histogram = plots.bars({"share": means}, ylabel="% of pixels")
    write_bytes(files[-1], histogram)
    if fps and len(good) > 1:
        files.append(_film(good, fps, out))
    shown = [record for record in good if record.row]
    figures = [
        Figure(
            uri(overlays.row_jpeg(record.row, HEIGHT), "image/jpeg"),
            caption=f"{record.name}: {record.text()}",
            alt=f"Classes of {record.name}",
        )
        for record in shown
    ]
    legend = overlays.legend(cfg.classes, _found(good, cfg.classes), 700)
    key = Figure(uri(overlays.png(legend), "image/png"), alt="classes")
    sections = [
        Section("Segmentation", text=["Picture, classes, confidence."], figures=[*figures, key]),
        Section(
            "Classes",
            text=["Share of all pixels, the mean over the pictures."],
            figures=[Figure(uri(histogram, "image/png"), alt="share of each class")],
        ),
    ]
    page = write_predictions(
        out,
        inputs,
        trained,
        sections,
        lead=f"{len(good)} pictures, by {network}",
        count=len(records),
        problems=[record.problem for record in records if record.problem],
        meaning=[
            "Confidence is the probability of each pixel's class, white for 1; after "
            "self-training it is often too high.",
            *(f"On pictures, {line}: no font here can draw it."
              for line in fonts.meanings(cfg.classes)),
        ],
    )  # fmt: skip
    return [*files, page]


def _mean_shares(good: Sequence[Record], classes: Sequence[str]) -> dict[str, float]:
    """Mean share of each class over the images."""
    totals = dict.fromkeys(classes, 0.0)
    for record in good:
        for name, share in record.shares:
            totals[name] += share / len(good)
    return totals


def _found(good: Sequence[Record], classes: Sequence[str]) -> list[int]:
    """Places of the classes that occur."""
    names = {name for record in good for name, _ in record.shares}
    return [place for place, name in enumerate(classes) if name in names]


def _film(good: Sequence[Record], fps: float, out: Path) -> Path:
    """Write overlays one after the other, all of the size of the first."""
    if films.can_write_mp4():
        films.write_mp4(out / "film.mp4", _overlays(good), fps)
        return out / "film.mp4"
    most = max(2, min(FRAMES, int(len(good) * FASTEST / fps)))
    small = list(_overlays(spread(list(good), most), 2 * HEIGHT))
    # the frames that are left last as long as all do
    rate = min(FASTEST, fps * len(small) / len(good))
    write_bytes(out / "film.gif", plots.animation_gif(small, rate))
    return out / "film.gif"


def _overlays(good: Sequence[Record], highest: int = 0) -> Iterator[Rgb]:
    """Overlays by their files, one in memory at a time, `highest` rows at most unless it is 0."""
    size: tuple[int, int] | None = None
    for record in good:
        file = next(path for path in record.written if path.name.endswith("-overlay.png"))
        with Image.open(file) as image:
            frame = image.convert("RGB")
        if size is None:
            height = min(frame.height, highest or frame.height)
            size = max(1, round(frame.width * height / frame.height)), height
        yield np.asarray(frame.resize(size, Image.Resampling.BILINEAR))


def _table(records: Sequence[Record], classes: Sequence[str], path: Path) -> Path:
    """Write a row an image: share of sure pixels, and of each class."""
    rows = []
    for one in records:
        of_class = dict(one.shares)
        cells = [f"{of_class.get(name, 0.0):.4f}" for name in classes]
        sure = "" if one.problem else f"{one.sure:.4f}"
        rows.append([one.name, sure, *([""] * len(classes) if one.problem else cells), one.problem])
    return write_table(path, ["file", "sure", *classes, "problem"], rows)
