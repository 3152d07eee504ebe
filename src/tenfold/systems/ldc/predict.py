"""What `predict` writes for pictures of a user: a table, a page, and a sheet to look at."""

from __future__ import annotations

import csv
import io
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from tenfold.core.checkpoint import write_bytes, write_text
from tenfold.data.images.decode import read_picture
from tenfold.viz import plots
from tenfold.viz.page import (
    Badge,
    Cell,
    Figure,
    Page,
    Section,
    Table,
    Tile,
    footer,
    uri,
    write_page,
)

from . import data
from .feature_plot import canvas, short

if TYPE_CHECKING:
    from .system import Ldc

SHOWN = 60
"""Pictures on the page, at most."""
ON_SHEET, ON_PAGE = 12, 6
"""Pictures of `predictions.png`, and of each sheet of the page."""
BARS = 5
THUMBNAIL = 256
"""Pixels of the longer side of a picture that is shown."""


@dataclass(frozen=True)
class Answer:
    """What is said of one picture."""

    file: Path
    name: str
    """Of the file, from the folder that was asked about."""
    truth: str = ""
    """The known class after which its folder is named; empty if there is none."""
    ranked: tuple[tuple[str, float], ...] = ()
    """Classes and probabilities, the most probable first."""
    is_unknown: bool = False
    problem: str = ""
    """Why it could not be read."""

    @property
    def is_right(self) -> bool:
        """Whether the first class is the folder's, be it called unknown or not."""
        return bool(self.truth) and self.ranked[0][0] == self.truth


def predict_files(system: Ldc, inputs: Path, out: Path) -> list[Path]:
    """Name the classes of a picture, or of all pictures of a folder or of its class folders.

    Writes `predictions.csv` (everything), `predictions.png` (a sheet of a dozen) and
    `predictions.html`. In a folder, pictures that cannot be read are listed as such; a lone one is
    an error.
    """
    inputs = Path(os.path.abspath(inputs))  # so that "." has a name
    answers = _answers(system, inputs)
    good = [answer for answer in answers if not answer.problem]
    if not good:
        raise ValueError(
            f"{inputs}: none of {len(answers)} pictures can be read; the first: "
            f"{answers[0].problem}"
        )
    table, sheet = out / "predictions.csv", out / "predictions.png"
    write_text(table, _csv(answers, system.options.top))
    write_bytes(sheet, draw_sheet(_spread(good, ON_SHEET), columns=2))
    return [table, sheet, write_page(_page(system, answers, inputs), out / "predictions.html")]


# --- from files to answers -------------------------------------------------------------------


def _answers(system: Ldc, inputs: Path) -> list[Answer]:
    """Answers in the order of the files; of many pictures only a batch is in memory at once."""
    files, lenient, root = [inputs], inputs.is_dir(), inputs.parent
    classes: dict[str, str] = {}
    if lenient:
        files, root = [f for some in data.new_classes(inputs, "").values() for f in some], inputs
        classes = {name.casefold(): name for name in system.known}
    top = min(max(system.options.top, BARS), len(system.known))
    found = []
    for start in range(0, len(files), data.ENCODE_BATCH):
        some = files[start : start + data.ENCODE_BATCH]
        features, problems = _features(system, some, lenient)
        probabilities, unknown = system.answers(features)
        best = probabilities.topk(top)
        rows = zip(best.indices.tolist(), best.values.tolist(), unknown.tolist(), strict=True)
        for file in some:
            name = printable(file.relative_to(root).as_posix())
            truth = classes.get(file.parent.name.casefold(), "")
            if file in problems:
                found.append(Answer(file, name, truth, problem=problems[file]))
                continue
            numbers, values, is_unknown = next(rows)
            ranked = tuple((system.known[i], v) for i, v in zip(numbers, values, strict=True))
            found.append(Answer(file, name, truth, ranked, is_unknown))
    return found


def _features(system: Ldc, files: list[Path], lenient: bool) -> tuple[Tensor, dict[Path, str]]:
    """Features of the files that can be read, and what is wrong with the others."""
    try:
        return system.features_of(files), {}
    except ValueError:
        if not lenient:
            raise
    found, problems = system.means_known()[:0].float(), {}  # one is broken at least: one by one
    for file in files:
        try:
            found = torch.cat([found, system.features_of([file])])
        except ValueError as error:
            problems[file] = printable(str(error))
    return found, problems


def printable(text: str) -> str:
    """Text that any file can hold and any reader can show: names of files may be any bytes."""
    return "".join(c if c.isprintable() else "\ufffd" for c in text)


def _spread(answers: Sequence[Answer], most: int) -> list[Answer]:
    """At most so many, from beginning to end evenly: all folders get their share."""
    chosen = np.linspace(0, len(answers) - 1, min(most, len(answers))).round().astype(int)
    return [answers[i] for i in chosen]


# --- files -----------------------------------------------------------------------------------


def _csv(answers: Sequence[Answer], top: int) -> str:
    """A row a picture; a text that a spreadsheet would run as a formula gets an apostrophe."""
    top = min(top, max(len(answer.ranked) for answer in answers))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    ranks = [word for i in range(1, top + 1) for word in (f"class {i}", f"probability {i}")]
    writer.writerow(["file", "unknown", *ranks, "problem"])
    for one in answers:
        cells = [x for name, p in one.ranked[:top] for x in (_safe(name), f"{p:.6f}")]
        said = "" if one.problem else "yes" if one.is_unknown else "no"
        blank = [""] * (len(ranks) - len(cells))
        writer.writerow([_safe(one.name), said, *cells, *blank, _safe(one.problem)])
    return text.getvalue()


def _safe(text: str) -> str:
    return f"'{text}" if text.startswith(("=", "+", "-", "@")) else text


def draw_sheet(answers: Sequence[Answer], columns: int) -> bytes:
    """Pictures with the probabilities of their first classes, as PNG."""
    rows = -(-len(answers) // columns)
    columns = min(columns, len(answers))
    width, height = 5.0, 1.42
    with canvas(width * columns, height * rows) as figure:
        figure.set_layout_engine("none")

        def place(index: int, x: float, y: float, wide: float, high: float) -> Any:
            """Axes at inches from the left and lower end of a card."""
            row, column = divmod(index, columns)
            left, lower = column * width + x, (rows - 1 - row) * height + y
            size = (width * columns, height * rows)
            return figure.add_axes(
                (left / size[0], lower / size[1], wide / size[0], high / size[1])
            )

        for index, answer in enumerate(answers):
            picture = place(index, 0.1, 0.1, 1.22, 1.22)
            picture.imshow(_thumbnail(answer.file))
            picture.set_anchor("N")
            picture.axis("off")
            _bars(place(index, 1.45, 0.1, 3.4, 1.02), answer)
        return plots.encoded(figure, "png", dpi=120)


def _thumbnail(file: Path) -> UInt8[np.ndarray, "height width 3"]:
    image = Image.fromarray(read_picture(file))
    image.thumbnail((THUMBNAIL, THUMBNAIL))
    return np.asarray(image)


def _bars(axes: Any, answer: Answer) -> None:
    """A bar a class; green is the class of the folder's name, orange a wrong answer."""
    right, wrong = plots.colour(2), plots.colour(1)
    title = answer.name if len(answer.name) <= 34 else f"…{answer.name[-33:]}"
    axes.set_title(title, fontsize=8.5, pad=4)
    if answer.is_unknown:
        axes.set_title("unknown", fontsize=8.5, pad=4, loc="right", color=wrong)
    for y, (name, probability) in enumerate(answer.ranked[:BARS]):
        tint = plots.colour(0)
        if answer.truth:
            tint = right if name == answer.truth else wrong if y == 0 else plots.colour(6)
        axes.barh(-y, probability, 0.84, color=tint, alpha=0.35 if y or not answer.truth else 0.5)
        axes.text(0.012, -y, short(name, 34), va="center_baseline", fontsize=8.5)
        percent = f"{100 * probability:.1f} %"
        axes.text(1.17, -y, percent, va="center_baseline", ha="right", fontsize=8.5)
    axes.set(xlim=(0, 1.17), ylim=(0.5 - BARS, 0.5))
    axes.axis("off")
    axes.plot([0, 0], [0.45, 0.55 - min(BARS, len(answer.ranked))], color="#8b949e", linewidth=0.8)


# --- the page --------------------------------------------------------------------------------


def _page(system: Ldc, answers: Sequence[Answer], inputs: Path) -> Page:
    good = [answer for answer in answers if not answer.problem]
    broken = [answer for answer in answers if answer.problem]
    shown, used = _spread(good, SHOWN), system.data_used()
    sheets = [shown[i : i + ON_PAGE] for i in range(0, len(shown), ON_PAGE)]
    named = any(answer.truth for answer in good)
    colours = ["Green: the class after which the folder is named; orange: another answer."]
    figures = [
        Figure(uri(draw_sheet(sheet, 1), "image/png"), alt=", ".join(a.name for a in sheet))
        for sheet in sheets
    ]
    warning = f"{len(broken)} of {len(answers)} pictures cannot be read; they are listed below"
    sections = [
        Section("Pictures", text=colours if named else [], figures=figures),
        Section("Answers", tables=[_table(shown, len(good), system.options.top)]),
        *([Section("By folder", tables=[_folders(good)])] if named else []),
        *([Section("Not read", bullets=_problems(broken))] if broken else []),
        Section("What this means", bullets=_meaning(system)),
        Section("Known classes", text=[", ".join(system.known)], closed=True),
    ]
    return Page(
        title=f"Predictions for {printable(inputs.name)}",
        lead=f"{len(system.known)} classes are known",
        badges=[Badge(f"trained on {used.kind} data", used.kind)],
        warnings=[warning] if broken else [],
        tiles=_tiles(good),
        sections=sections,
        footer=footer(f"{type(system).__name__}, trained on {used.name}"),
    )


def _tiles(good: Sequence[Answer]) -> list[Tile]:
    unknown = sum(answer.is_unknown for answer in good)
    tiles = [Tile("pictures", f"{len(good):,}"), Tile("called unknown", f"{unknown:,}")]
    judged = [answer for answer in good if answer.truth]
    if judged:
        right = sum(answer.is_right for answer in judged)
        of = f"{right:,} of {len(judged):,} in folders named like a known class"
        tiles.append(Tile("accuracy", f"{100 * right / len(judged):.1f} %", [(of, "")]))
    return tiles


def _table(shown: Sequence[Answer], count: int, top: int) -> Table:
    top = min(top, BARS, len(shown[0].ranked))
    rows = [
        [
            Cell(one.name),
            Cell("unknown" if one.is_unknown else "", tone="bad"),
            *(Cell(name, f"{100 * p:.1f} %") for name, p in one.ranked[:top]),
        ]
        for one in shown
    ]
    note = f"{len(shown)} of {count:,} pictures; predictions.csv has all." if count > SHOWN else ""
    return Table("", ["file", "known?", *map(str, range(1, top + 1))], rows, note, text=True)


def _folders(good: Sequence[Answer]) -> Table:
    """What became of the pictures of each folder."""
    total = Counter(one.file.parent.name for one in good)
    right = Counter(one.file.parent.name for one in good if one.is_right)
    unknown = Counter(one.file.parent.name for one in good if one.is_unknown)
    known = {one.file.parent.name for one in good if one.truth}
    rows = [
        [
            Cell(printable(name), "" if name in known else "no known class"),
            Cell(str(count)),
            Cell(f"{right[name]} ({100 * right[name] / count:.0f} %)" if name in known else "–"),
            Cell(str(unknown[name])),
        ]
        for name, count in total.items()
    ]
    note = "An answer counts as right whether or not it is called unknown."
    return Table("", ["folder", "pictures", "right", "called unknown"], rows, note)


def _problems(broken: Sequence[Answer]) -> list[str]:
    lines = [one.problem for one in broken[:SHOWN]]
    left = len(broken) - len(lines)
    return [*lines, f"and {left} more, see predictions.csv"] if left else lines


def _meaning(system: Ldc) -> list[str]:
    """How to read the answers, and what was asked."""
    asked = system.options.unknown
    unknown = (
        f"Unknown: the picture is farther from every class than {asked:g} % of the pictures of the "
        "base classes are, in units of the classes' common spread; so of pictures of known "
        f"classes about {100 - asked:g} % are called unknown too. --unknown changes the limit, "
        "100 turns it off."
    )
    if asked == 100:
        unknown = "No picture is called unknown, since --unknown 100 turns that off."
    return [
        "Probabilities are of the known classes only and add up to 1 over them: a picture of "
        "something else still gets a most probable class. They order the classes and are not "
        "calibrated.",
        unknown,
        f"Answers kept for each picture: {system.options.top} (--top). "
        f"Head that learned the classes: {system.cfg.head}.",
        *system.notes(),
    ]
