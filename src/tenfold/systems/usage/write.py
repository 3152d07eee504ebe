"""Results of predictions as files: heat maps, masks, overlays, seeds, a table, two pages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tenfold.data.images import cam_files
from tenfold.files import write_bytes
from tenfold.viz import fonts, overlays, slider
from tenfold.viz.overlays import Rgb
from tenfold.viz.page import Badge, Figure, Section, relative, uri
from tenfold.viz.predictions import Trained, write_predictions, write_table

from .answer import Answer
from .config import Config

HEIGHT = 180
"""Pixels of a picture's height on the page."""
NOTHING = "background"
SLIDER = "threshold.html"


@dataclass(frozen=True)
class Record:
    """The part of an answer that is kept when the next picture is read."""

    name: str
    labels: Sequence[str] = ()
    is_given: bool = False
    scores: Sequence[float] = ()
    """Probability of each class by the classifier."""
    shares: Sequence[float] = ()
    """Share of background and each class of the mask."""
    problem: str = ""
    """Reason why it cannot be read."""
    written: Sequence[Path] = ()
    row: Sequence[Rgb] = ()
    """Small pictures, of those that the page shows."""
    shown: slider.Shown | None = None

    def text(self) -> str:
        """Return what is said of the picture in one line."""
        origin = "given" if self.is_given else "found"
        return f"{', '.join(self.labels) or 'no class'} ({origin})"


def write_picture(
    picture: Rgb, answer: Answer, name: str, output: Path, cfg: Config, shown: bool
) -> Record:
    """Write a picture's masks, overlay, heat maps and seeds.

    Args:
        picture: The picture itself.
        answer: What the networks say.
        name: How table and page call it.
        output: Beginning of the names of its files.
        cfg: Configuration of the run, for its classes.
        shown: Whether it is among those on the pages.
    """
    count = len(cfg.classes) + 1
    overlay = overlays.blend(picture, answer.mask, count, bare=0)
    contents = {
        "mask": overlays.label_png(answer.mask, count), "overlay": overlays.png(overlay),
    }  # fmt: skip
    row, entry = [picture, overlay], None
    written = []
    if answer.maps is not None and answer.seeds is not None:
        heat = overlays.heat(picture, answer.maps.amax(0).numpy())
        contents |= {
            "heat": overlays.png(heat), "seeds": overlays.label_png(answer.seeds, count),
        }  # fmt: skip
        row = [picture, heat, overlays.blend(picture, answer.seeds, count, bare=0), overlay]
        maps = {label: answer.maps[label].numpy() for label in answer.labels}
        written.append(output.with_name(f"{output.name}-seeds.npz"))
        cam_files.write(written[-1], maps)
        if shown:
            of_label = {label + 1: values for label, values in maps.items()}
            entry = slider.shown(name, picture, of_label, "" if answer.is_given else "labels found")
    for kind, content in contents.items():
        written.append(output.with_name(f"{output.name}-{kind}.png"))
        write_bytes(written[-1], content)
    pixels = np.bincount(answer.mask.ravel(), minlength=count)[:count]
    return Record(
        name,
        [cfg.classes[label] for label in answer.labels],
        answer.is_given,
        [] if answer.scores is None else answer.scores.tolist(),
        (pixels / answer.mask.size).tolist(),
        written=written,
        row=[overlays.fitted(one, HEIGHT) for one in row] if shown else [],
        shown=entry,
    )


# --- of all pictures ---------------------------------------------------------------------------


def write_folder(
    records: Sequence[Record],
    inputs: Path,
    out: Path,
    cfg: Config,
    threshold: float,
    trained: Trained,
) -> list[Path]:
    """Write what there is once: table, the page with the slider, and the page, which is last."""
    good = [record for record in records if not record.problem]
    files = [_table(records, cfg.classes, out / "predictions.csv")]
    files += [path for record in good for path in record.written]
    entries = [record.shown for record in good if record.shown is not None]
    names = (NOTHING, *cfg.classes)
    meaning = [
        "A heat map is the largest of the activation maps of a picture's classes, from 0 to 1; its "
        f"mask is where it exceeds the threshold ({threshold:.2f}).",
        "The last picture of a row is the mask of the run's last stage.",
        "Labels that are found come from the classifier, which may miss classes.",
        *(f"On pictures, {line}: no font here can draw it." for line in fonts.meanings(names)),
    ]
    last = []
    if entries:
        files.append(_slider(entries, len(good), names, threshold, inputs, out, trained))
        last.append(
            Section("Threshold", href=relative(files[-1], out / "predictions.html"),
                    href_text="picture, activation map and mask, with a slider")
        )  # fmt: skip
    page = write_predictions(
        out,
        inputs,
        trained,
        [*last, Section("Masks", text=[_columns(entries)], figures=_figures(good, names))],
        lead=f"{len(good)} pictures",
        count=len(records),
        problems=[record.problem for record in records if record.problem],
        meaning=meaning,
    )
    return [*files, page]


def _columns(entries: Sequence[slider.Shown]) -> str:
    if not entries:
        return "Picture, mask."
    return "Picture, heat map, mask of the heat map, mask of the last stage."


def _figures(good: Sequence[Record], names: Sequence[str]) -> list[Figure]:
    """A row for each picture that is shown, and the colours of the classes that occur."""
    found = [
        Figure(
            uri(overlays.row_jpeg(record.row, HEIGHT), "image/jpeg"),
            caption=f"{record.name}: {record.text()}",
            alt=f"Heat map and mask of {record.name}",
        )
        for record in good
        if record.row
    ]
    occur = [place for place in range(1, len(names)) if any(r.shares[place] for r in good)]
    key = overlays.legend(names, occur, 700)
    return [*found, Figure(uri(overlays.png(key), "image/png"), alt="classes")]


def _slider(
    entries: Sequence[slider.Shown], count: int, names: Sequence[str], threshold: float,
    inputs: Path, out: Path, trained: Trained,
) -> Path:  # fmt: skip
    """The page of some of `count` pictures."""
    many = f"{len(entries)} of {count}" if count > len(entries) else f"{count}"
    return slider.write_slider(
        out / SLIDER,
        entries,
        names,
        threshold,
        {"of the run": threshold},
        title=f"Threshold of {inputs.resolve().name}",
        lead=f"{many} pictures: picture, activation map, mask",
        badges=[Badge(f"trained on {trained.kind} data", trained.kind)],
        meaning=[
            "The mask is where the largest activation map of the picture's classes exceeds the "
            "threshold; `tenfold predict --threshold` writes masks at the one that you choose.",
            *trained.notes,
        ],
        origin=f"{trained.system}, trained on {trained.data}",
    )


def _table(records: Sequence[Record], classes: Sequence[str], path: Path) -> Path:
    """Write a row a picture: labels, their origin, probabilities, shares of the mask."""
    columns = [f"p({name})" for name in classes]
    shares = [f"share of {name}" for name in (NOTHING, *classes)]
    rows = []
    for one in records:
        scores = [f"{value:.4f}" for value in one.scores] or [""] * len(columns)
        pixels = [f"{value:.4f}" for value in one.shares] or [""] * len(shares)
        origin = "" if one.problem else "given" if one.is_given else "found"
        labels = ";".join(one.labels)
        rows.append([one.name, labels, origin, *scores, *pixels, one.problem])
    head = ["file", "labels", "origin", *columns, *shares, "problem"]
    return write_table(path, head, rows)
