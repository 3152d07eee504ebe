"""Classes of a user's pictures: read and classified a few at a time, then a table and a page.

Three passes: `_read` opens files, `_answers` knows no file, and what writes knows no network.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from tenfold.core import dist
from tenfold.core.checkpoint import write_bytes
from tenfold.core.divide import divided
from tenfold.data.images.decode import channels_first, square
from tenfold.data.images.folders import offered, plain, read_offered
from tenfold.printable import printable
from tenfold.viz import plots
from tenfold.viz.page import Cell, Figure, Section, Table, Tile, uri
from tenfold.viz.predictions import Trained, spread, write_predictions, write_table

from .classifier import Classifier
from .config import PredictOptions
from .feature_plot import short

SHOWN = 60
"""Pictures on the page, at most."""
ON_SHEET, ON_PAGE = 12, 6
"""Pictures of `predictions.png`, and of each sheet of the page."""
BARS = 5
THUMBNAIL = 256
"""Pixels of the longer side of a picture that is shown."""
BATCH = 32
"""Pictures that are classified at once, and that a process takes at a time: the same batches for
any number of processes, since the last bit of a feature may depend on its batch."""


@dataclass(frozen=True)
class Read:
    """A picture of the user, made small as soon as it is decoded, or why it cannot be read."""

    name: str
    """Path of its file from the folder that was asked about."""
    folder: str
    """Path of its folder from there; for the folder itself its name."""
    truth: str = ""
    """The known class after which its folder is named; empty if there is none."""
    problem: str = ""
    """Reason why it cannot be read; empty if it can."""
    square: UInt8[Tensor, "3 side side"] | None = None
    """Input of the encoder."""
    thumbnail: UInt8[np.ndarray, "height width 3"] | None = None
    """Of a picture that the page may show."""


@dataclass(frozen=True)
class Answer:
    """Classes of one picture, or why it could not be read."""

    name: str
    folder: str
    truth: str = ""
    ranked: tuple[tuple[str, float], ...] = ()
    """Classes and probabilities, the most probable first."""
    is_unknown: bool = False
    problem: str = ""
    thumbnail: UInt8[np.ndarray, "height width 3"] | None = None

    @property
    def is_right(self) -> bool:
        """True if the first class is the folder's, be it called unknown or not."""
        return bool(self.truth) and self.ranked[0][0] == self.truth


def predict_files(
    classifier: Classifier, inputs: Path, out: Path, options: PredictOptions, trained: Trained
) -> list[Path]:
    """Name the classes of a picture, or of all pictures of a folder and of the folders in it.

    At any time one decoded photo is in memory, and small copies: of a batch, and of those that the
    page shows. The processes of a job share the batches, and the first one writes.

    Args:
        classifier: What tells the classes apart.
        inputs: A picture, or a folder. In a folder, pictures that cannot be read are listed with
            the reason, and a sub-folder named after a known class is taken as the truth.
        out: Folder for `predictions.csv` (all answers), `predictions.png` (a sheet of a dozen) and
            `predictions.html`.
        options: How many classes to list, and what to call unknown.
        trained: What the page says of the classifier.

    Returns:
        The files written: on the first process, on the others nothing.

    Raises:
        ValueError: There is no picture, or none can be read.
    """
    inputs = Path(os.path.abspath(inputs))  # so that "." has a name
    lenient = inputs.is_dir()
    files = offered(inputs) if lenient else [inputs]
    classes = {plain(name): name for name in classifier.known} if lenient else {}
    pictured = set(spread(range(len(files)), SHOWN))

    def work(batch: int) -> list[Answer]:
        rows = range(len(files))[batch * BATCH : (batch + 1) * BATCH]
        side = classifier.view.side
        read = [_read(files[row], inputs, classes, side, row in pictured) for row in rows]
        return _answers(classifier, read, options)

    batches = divided(-(-len(files) // BATCH), work, "pictures")
    answers = [answer for batch in batches for answer in batch]
    if not lenient and answers[0].problem:
        raise ValueError(answers[0].problem)
    if all(answer.problem for answer in answers):
        raise ValueError(
            f"{inputs}: none of {len(answers)} pictures can be read; the first: "
            f"{answers[0].problem}"
        )
    if not dist.current().is_first:
        return []
    return _write(answers, inputs, out, options, trained, classifier.known, classifier.kind)


# --- read ------------------------------------------------------------------------------------


def _read(file: Path, inputs: Path, classes: dict[str, str], side: int, pictured: bool) -> Read:
    """A picture as the encoder and the page want it; the whole photo is let go."""
    root = inputs if inputs.is_dir() else inputs.parent
    name, folder = file.relative_to(root), file.parent.relative_to(root)
    words = (
        printable(name.as_posix()),
        printable(folder.as_posix() if folder.name else root.name),
        classes.get(plain(file.parent.name), ""),
    )
    try:
        photo = read_offered(inputs, file)
    except (ValueError, OSError) as error:  # OSError: it is gone, or may not be read
        return Read(*words, problem=printable(str(error)))
    small = channels_first(square(photo, side, "shorter"))
    return Read(*words, square=small, thumbnail=_thumbnail(photo) if pictured else None)


def _thumbnail(photo: UInt8[np.ndarray, "height width 3"]) -> UInt8[np.ndarray, "_ _ 3"]:
    image = Image.fromarray(photo)
    image.thumbnail((THUMBNAIL, THUMBNAIL))
    return np.asarray(image)


# --- predict ---------------------------------------------------------------------------------


def _answers(classifier: Classifier, read: Sequence[Read], options: PredictOptions) -> list[Answer]:
    """Classes of some pictures, in their order; those that cannot be read keep their problem."""
    known, squares = classifier.known, [one.square for one in read if one.square is not None]
    ranked: list[tuple[tuple[str, float], ...]] = []
    unknown: list[bool] = []
    if squares:
        features = classifier.features(torch.stack(squares))
        probabilities, far = classifier.classify(features, options.unknown)
        best = probabilities.topk(min(max(options.top, BARS), len(known)))
        unknown = far.tolist()
        for numbers, values in zip(best.indices.tolist(), best.values.tolist(), strict=True):
            ranked.append(tuple((known[i], v) for i, v in zip(numbers, values, strict=True)))
    said = iter(zip(ranked, unknown, strict=True))
    return [
        Answer(
            one.name, one.folder, one.truth, *(((), False) if one.problem else next(said)),
            one.problem, one.thumbnail,
        )
        for one in read
    ]  # fmt: skip


# --- write -----------------------------------------------------------------------------------


def _write(
    answers: Sequence[Answer],
    inputs: Path,
    out: Path,
    options: PredictOptions,
    trained: Trained,
    known: Sequence[str],
    head: str,
) -> list[Path]:
    good = [answer for answer in answers if not answer.problem]
    # without a thumbnail only where all that were to be shown are broken
    shown = [answer for answer in good if answer.thumbnail is not None] or spread(good, ON_SHEET)
    top = min(options.top, len(good[0].ranked))
    table = _csv(answers, top, out / "predictions.csv")
    sheet = out / "predictions.png"
    write_bytes(sheet, draw_sheet(spread(shown, ON_SHEET), columns=2))
    named = any(answer.truth for answer in good)
    colours = ["Green: the class after which the folder is named; orange: another answer."]
    figures = [
        Figure(uri(draw_sheet(some, 1), "image/png"), alt=", ".join(a.name for a in some))
        for some in (shown[i : i + ON_PAGE] for i in range(0, len(shown), ON_PAGE))
    ]
    page = write_predictions(
        out,
        inputs,
        trained,
        [
            Section("Pictures", text=colours if named else [], figures=figures),
            Section("Answers", tables=[_table(shown, len(good), top)]),
            *([Section("By folder", tables=[_folders(good)])] if named else []),
        ],
        lead=f"{len(known)} classes are known",
        tiles=_tiles(good),
        count=len(answers),
        problems=[answer.problem for answer in answers if answer.problem],
        meaning=_meaning(options, head),
        last=[Section("Known classes", text=[", ".join(known)], closed=True)],
    )
    return [table, sheet, page]


def _csv(answers: Sequence[Answer], top: int, path: Path) -> Path:
    """A row a picture."""
    ranks = [word for i in range(1, top + 1) for word in (f"class {i}", f"probability {i}")]
    rows = []
    for one in answers:
        cells = [cell for name, p in one.ranked[:top] for cell in (name, f"{p:.6f}")]
        said = "" if one.problem else "yes" if one.is_unknown else "no"
        blank = [""] * (len(ranks) - len(cells))
        rows.append([one.name, said, *cells, *blank, one.problem])
    return write_table(path, ["file", "unknown", *ranks, "problem"], rows)


def draw_sheet(answers: Sequence[Answer], columns: int) -> bytes:
    """Draw pictures with the probabilities of their first classes, as PNG."""
    rows = -(-len(answers) // columns)
    columns = min(columns, len(answers))
    width, height = 5.0, 1.42
    with plots.canvas("light", width * columns, height * rows) as figure:
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
            if answer.thumbnail is not None:
                picture.imshow(answer.thumbnail)
            picture.set_anchor("N")
            picture.axis("off")
            _bars(place(index, 1.45, 0.1, 3.4, 1.02), answer)
        return plots.encoded(figure, "png", dpi=120)


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
    top = min(top, BARS)
    rows = [
        [
            Cell(one.name),
            Cell("unknown" if one.is_unknown else "", tone="bad"),
            *(Cell(name, f"{100 * p:.1f} %") for name, p in one.ranked[:top]),
        ]
        for one in shown
    ]
    note = (
        f"{len(shown)} of {count:,} pictures; predictions.csv has all."
        if count > len(shown)
        else ""
    )
    return Table("", ["file", "known?", *map(str, range(1, top + 1))], rows, note, text=True)


def _folders(good: Sequence[Answer]) -> Table:
    """Count the outcomes of each folder's pictures."""
    total = Counter(one.folder for one in good)
    right = Counter(one.folder for one in good if one.is_right)
    unknown = Counter(one.folder for one in good if one.is_unknown)
    known = {one.folder for one in good if one.truth}
    rows = [
        [
            Cell(name, "" if name in known else "no known class"),
            Cell(str(count)),
            Cell(f"{right[name]} ({100 * right[name] / count:.0f} %)" if name in known else "–"),
            Cell(str(unknown[name])),
        ]
        for name, count in total.items()
    ]
    note = "An answer counts as right whether or not it is called unknown."
    return Table("", ["folder", "pictures", "right", "called unknown"], rows, note)


def _meaning(options: PredictOptions, head: str) -> list[str]:
    """Explain how to read the answers, and what was asked."""
    asked = options.unknown
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
        f"Answers kept for each picture: {options.top} (--top). "
        f"Head that learned the classes: {head}.",
    ]
