"""Answers as files: regions and phrases on the picture, numbers, a table, a page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float
from PIL import Image

from tenfold.core.checkpoint import write_bytes, write_json
from tenfold.viz import overlays
from tenfold.viz.overlays import Rgb
from tenfold.viz.page import Figure, Section, uri
from tenfold.viz.predictions import Trained, write_predictions, write_table

from .answer import Answer, FoundPhrase, FoundRegion

SHOWN = 24
"""Pictures on the page, at most; the table and single files have all."""
HEIGHT = 220
HEADER = ("file", "text", "what", "name", "x0", "y0", "x1", "y1", "score", "interaction",
          "standard error", "problem")  # fmt: skip


@dataclass(frozen=True)
class Record:
    """The part of an answer that is kept when the next picture is read."""

    name: str
    answer: Answer | None = None
    problem: str = ""
    """Reason why it cannot be read."""
    written: tuple[Path, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()
    shown: tuple[tuple[Rgb, str], ...] = ()
    """Small pictures and what each shows, of those that the page shows."""


def write_picture(picture: Rgb, answer: Answer, name: str, output: Path, shown: bool) -> Record:
    """Write a picture's regions, its phrases, and all numbers of both."""
    drawn = [(with_regions(picture, answer.regions), "regions, with confidence and interaction")]
    drawn += [(with_phrase(picture, one), one.text) for one in answer.phrases]
    files = [output.with_name(f"{output.name}-regions.png")]
    write_bytes(files[0], overlays.png(drawn[0][0]))
    if answer.phrases:
        files.append(output.with_name(f"{output.name}-phrases.png"))
        sheet = overlays.sheet([[one for one, _ in drawn[1:]]], [text for _, text in drawn[1:]])
        write_bytes(files[-1], sheet)
    height, width = picture.shape[:2]
    files.append(output.with_name(f"{output.name}-answer.json"))
    write_json(files[-1], _plain(answer, width, height))
    rows = [_row(name, answer.text, "region", f"{i}", one.box, one.confidence, one.interaction,
                 f"{one.standard_error:.5f}", (width, height))
            for i, one in enumerate(answer.regions)]  # fmt: skip
    rows += [_row(name, answer.text, "phrase", one.text, one.box, one.score, one.gained, "",
                  (width, height)) for one in answer.phrases]  # fmt: skip
    small = [(overlays.fitted(one, HEIGHT), text) for one, text in drawn] if shown else []
    return Record(name, answer, "", tuple(files), tuple(rows), tuple(small))


def with_regions(picture: Rgb, regions: Sequence[FoundRegion]) -> Rgb:
    """A picture under its regions, each with its confidence s and its interaction J."""
    labels = [f"s {one.confidence:.2f}  J {1e3 * one.interaction:+.1f}" for one in regions]
    return overlays.draw_objects(
        picture, _pixels([one.box for one in regions], picture), labels, np.arange(len(regions))
    )


def with_phrase(picture: Rgb, phrase: FoundPhrase) -> Rgb:
    """A picture under the similarities of its patches with a phrase, and the phrase's box."""
    heat = phrase.heat - phrase.heat.min()
    size = (picture.shape[1], picture.shape[0])
    large = Image.fromarray((heat / max(heat.max(), 1e-9)).astype(np.float32))
    smooth = np.asarray(large.resize(size, Image.Resampling.BILINEAR)).astype(np.float64)
    warm = overlays.heat(picture, smooth)
    box = _pixels([phrase.box], picture)
    return overlays.draw_objects(warm, box, [f"{phrase.score:.2f}"], np.zeros(1, np.int64))


def _pixels(boxes: Sequence[tuple[float, ...]], picture: Rgb) -> Float[np.ndarray, "box 4"]:
    height, width = picture.shape[:2]
    found = np.array(boxes, dtype=np.float64).reshape(-1, 4)
    return found * np.array([width, height, width, height])


def _plain(answer: Answer, width: int, height: int) -> dict[str, object]:
    """All numbers of an answer; boxes in pixels."""
    values = asdict(answer)
    for one in (*values["regions"], *values["phrases"]):
        sides = (width, height, width, height)
        one["box"] = [round(v * side, 2) for v, side in zip(one["box"], sides, strict=True)]
    for one in values["phrases"]:
        one["heat"] = [[round(float(v), 4) for v in row] for row in one["heat"]]
    return {"width": width, "height": height, **values}


def _row(
    name: str, text: str, what: str, which: str, box: tuple[float, ...], score: float,
    interaction: float, error: str, size: tuple[int, int],
) -> tuple[str, ...]:  # fmt: skip
    corners = (f"{v * side:.1f}" for v, side in zip(box, (*size, *size), strict=True))
    return (name, text, what, which, *corners, f"{score:.4f}", f"{interaction:.5f}", error, "")


def write_folder(
    records: Sequence[Record], inputs: Path, out: Path, trained: Trained
) -> list[Path]:
    """Write what there is once: the table, and the page, which is last."""
    good = [record for record in records if record.answer is not None]
    rows = [row for record in good for row in record.rows]
    rows += [(one.name, *[""] * 10, one.problem) for one in records if one.problem]
    files = [path for record in good for path in record.written]
    files.append(write_table(out / "predictions.csv", HEADER, rows))
    sections = [
        Section(
            record.name,
            text=[_said(record.answer)],
            figures=[
                Figure(uri(overlays.png(one), "image/png"), caption=text, alt=text)
                for one, text in record.shown
            ],
        )
        for record in good
        if record.shown and record.answer is not None
    ]
    page = write_predictions(
        out,
        inputs,
        trained,
        sections,
        lead=f"{len(good)} pictures",
        count=len(records),
        problems=[record.problem for record in records if record.problem],
        meaning=[
            "s is the confidence of a region; J (in thousandths) is what its patches add to the "
            "similarity with the text together beyond what each adds alone. Much of J is of the "
            "picture and not of the text: compare with another caption.",
            "A phrase's box is the region with the highest confidence times share; warm colours "
            "are patches that are similar to the phrase.",
        ],
    )
    return [*files, page]


def _said(answer: Answer) -> str:
    """The text, and how near it is to the picture."""
    how = "" if answer.asked else " (no --caption was given: the nearest class)"
    return f'"{answer.text}"{how}: cosine {answer.similarity:.3f}'
