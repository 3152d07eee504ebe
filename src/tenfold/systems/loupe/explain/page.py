"""An explanation as a page, a picture and JSON."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from tenfold.core.errors import require_place
from tenfold.files import write_bytes, write_json
from tenfold.printable import printable
from tenfold.viz import overlays, plots
from tenfold.viz.page import Cell, Figure, Page, Section, Table, Tile, footer, uri, write_page

from ..faithfulness import Pointing
from ..games import Estimate
from . import figures
from .explanation import BoxAnswer, Explanation
from .judge import LESS, WHOLE, Quality, word_map
from .numbers import as_json, column

Photo = UInt8[np.ndarray, "_ _ 3"]
COLOURS = "Red: together more than apart; blue: less; faint: within two standard errors of 0."
STRONGEST = 10
"""Pairs that the table names."""
PAGE, NUMBERS, PICTURE = "explanation.html", "explanation.json", "explanation.png"
MEANING = (
    "A logit is the cosine of photo and sentence times the encoder's factor. A number says by how "
    "much it changes in the mean when the patch, the word or both are there, over what else is "
    "there (weighted Banzhaf values and interactions, as FIxLIP has them).",
    "An interaction above 0: patch and word do more together than each does without the other. "
    "Below 0: they stand for the same, or contradict each other.",
    "Behind ± is the standard error. Faint patches lie within two of them from 0: of numbers that "
    "are all 0, about one in twenty would lie further off.",
    "Maps show what the encoder does, not what is right; compare with sentences that do not fit, "
    "since much of a map is of the photo, whatever the sentence says.",
)


def write(
    out: Path,
    name: str,
    photo: Photo,
    said: Explanation,
    quality: Quality | None,
    notes: Sequence[str] = (),
) -> list[Path]:
    """Write an explanation into a folder: page, picture, numbers.

    Args:
        out: Folder.
        name: Of the photo, for the page.
        photo: RGB, as it was explained.
        said: The explanation.
        quality: How good it is, if that was asked.
        notes: Lines for the end of the page.

    Raises:
        ValueError: `out` is a file.
    """
    require_place(out)
    write_json(out / NUMBERS, as_json(name, said, quality))
    write_bytes(out / PICTURE, sheet(photo, said))
    sections = [_compared(photo, said), _pairs(photo, said), _words(photo, said)]
    if said.box is not None:
        sections.insert(0, _box(said, said.box, quality))
    if quality is not None:
        sections.append(_quality(said, quality))
    page = Page(
        title=f"{printable(name)}: “{printable(said.sentence)}”",
        lead=f"{len(said.players)} parts of the photo, {len(said.words)} words; "
        f"{printable(said.encoder)}",
        tiles=_tiles(said, quality),
        sections=[*sections, Section("What this means", bullets=[*MEANING, *notes])],
        footer=footer(printable(said.encoder)),
    )
    return [write_page(page, out / PAGE), out / PICTURE, out / NUMBERS]


# --- sections ------------------------------------------------------------------------------------


def _tiles(said: Explanation, quality: Quality | None) -> list[Tile]:
    right = said.logits[0]
    lines = [
        (f"cosine {right / said.scale:.3f}", "soft"),
        (f"nothing of both {said.nothing:.2f}", "soft"),
    ]
    tiles = [Tile("logit of photo and sentence", f"{right:.2f}", lines)]
    if said.against:
        wrong = sum(said.logits[1:]) / len(said.against)
        tone = "good" if right > max(said.logits[1:]) else "bad"
        ahead = f"highest of the others {max(said.logits[1:]):.2f}"
        tiles.append(
            Tile("above sentences that do not fit", f"{right - wrong:+.2f}", [(ahead, tone)])
        )
    if said.box is not None:
        value = _number(said.box.value, 0)
        tiles.append(Tile("the box as a whole brings", value, []))
    if quality is not None:
        heat = f"a heat map {quality.heat.value:.2f} ± {quality.heat.standard_error:.2f}"
        share = f"{quality.pairs.value:.2f} ± {quality.pairs.standard_error:.2f}"
        tiles.append(Tile("R² on fresh coalitions", share, [(heat, "soft")]))
    return tiles


def _figure(picture: np.ndarray, caption: str) -> Figure:
    caption = printable(caption)
    return Figure(uri(overlays.png(picture), "image/png"), caption=caption, alt=caption)


def _largest(*values: Tensor) -> float:
    return max(float(v.abs().max()) for v in values)


def _compared(photo: Photo, said: Explanation) -> Section:
    """Values of patches for the whole sentence, and less those for the wrong ones."""
    captions = ["for the sentence"]
    if said.against:
        captions.append("less the mean of the sentences that do not fit")
    largest = _largest(said.shown.value)
    shown = [
        _figure(_map(photo, said, column(said.shown, i), largest), f"What each patch brings {text}")
        for i, text in enumerate(captions)
    ]
    rows = [
        [Cell(printable(text)), Cell(f"{logit:.2f}"), Cell(f"{logit / said.scale:.3f}")]
        for text, logit in zip((said.sentence, *said.against), said.logits, strict=True)
    ]
    table = Table("", ["sentence", "logit", "cosine"], rows)
    title = "Right against wrong" if said.against else "The photo"
    note = [f"Red: the patch raises the logit; blue: it lowers it. The darkest is {largest:.2g}."]
    if not said.against:
        note.append("Give sentences that do not fit to compare with: --against.")
    return Section(title, text=note, tables=[table], figures=shown)


def _pairs(photo: Photo, said: Explanation) -> Section:
    """The strongest pairs, and the word with which each patch gains most."""
    best = said.pairs.value.argmax(1)
    at = best[:, None]
    clear = said.pairs.value.gather(1, at) > figures.CLEAR * said.pairs.standard_error.gather(1, at)
    both = figures.word_map(photo, said, torch.where(clear[:, 0], best, -1))
    used = sorted({int(word) for word in best[clear[:, 0]]})
    legend = overlays.legend([printable(w) for w in said.words], used, both.shape[1])
    wide = np.full((legend.shape[0], both.shape[1], 3), 255, np.uint8)
    wide[:, : legend.shape[1]] = legend[:, : both.shape[1]]
    strongest = strongest_pairs(said)
    rows = [
        [
            Cell(f"{number} {printable(said.words[word])}"),
            Cell(f"{patch // said.players.columns + 1}, {patch % said.players.columns + 1}"),
            Cell(with_error(value, error)),
        ]
        for number, (patch, word, value, error) in enumerate(strongest, 1)
    ]
    table = Table("", ["word", "row, column", "interaction"], rows)
    places = figures.numbered(photo, said, [patch for patch, *_ in strongest])
    return Section(
        "Strongest pairs of a patch and a word",
        tables=[table],
        figures=[
            _figure(places, "Where they are, by their numbers in the table"),
            _figure(
                np.concatenate([both, wide]), "Word with which each patch gains most, if clear"
            ),
        ],
    )


def _words(photo: Photo, said: Explanation) -> Section:
    """Which patches act together with each word."""
    largest = _largest(said.pairs.value)
    maps = [
        _figure(
            _map(photo, said, column(said.pairs, i), largest),
            f"{word}: {_number(said.each_word, i)} by itself",
        )
        for i, word in enumerate(said.words)
    ]
    return Section(
        "Patches that act together with each word",
        text=[f"{COLOURS} The darkest is {largest:.2g} logits, on all of them."],
        figures=maps,
        kind="small",
    )


def _box(said: Explanation, box: BoxAnswer, quality: Quality | None) -> Section:
    """Whether a part of the photo supports the sentence."""
    rows = [
        [Cell("logit of the whole photo"), Cell(f"{said.logits[0]:.2f}")],
        [Cell("of the box alone"), Cell(f"{box.alone:.2f}")],
        [Cell("of the photo without the box"), Cell(f"{box.without:.2f}")],
        [Cell("what the box brings as a whole"), Cell(_number(box.value, 0))],
        [Cell(f"what its {int(box.members.sum())} patches gain by acting together, J"),
         Cell(_number(box.together, 0))],
    ]  # fmt: skip
    if said.against:
        rows += [
            [Cell("what it brings, less with the other sentences"), Cell(_number(box.value, 1))],
            [Cell("J, less that with the other sentences"), Cell(_number(box.together, 1))],
        ]
    pointing = {} if quality is None else quality.pointing
    head = ["word", "interaction"] + (["hit", "share"] if pointing else [])
    words = [
        [Cell(printable(word)), Cell(_number(box.words, i)), *_pointed(pointing, word_map(i, word))]
        for i, word in enumerate(said.words)
    ]
    note = ""
    if pointing:
        chance = 100 * next(iter(pointing.values())).chance
        note = (
            "Hit: whether the strongest patch of the word's map lies in the box. Share: of what is "
            f"positive on the map, in the box. By chance both would be {chance:.0f} %."
        )
        maps = [
            [Cell(name), *_pointed(pointing, name)] for name in (WHOLE, LESS) if name in pointing
        ]
        words += [[row[0], Cell(""), *row[1:]] for row in maps]
    tables = [Table("", ["", "logits"], rows), Table("The box with each word", head, words, note)]
    where = ",".join(f"{v:g}" for v in box.box)
    return Section(
        f"Does the part {where} support the sentence?", [answer(said, box)], tables=tables
    )


def _pointed(pointing: dict[str, Pointing], name: str) -> list[Cell]:
    """Whether a map points to the box."""
    if name not in pointing:
        return []
    one = pointing[name]
    return [Cell("yes" if one.hit else "no"), Cell(f"{100 * one.inside:.0f} %")]


def answer(said: Explanation, box: BoxAnswer) -> str:
    """The answer to the question of a box, in a sentence."""
    which = 1 if said.against else 0
    value, error = float(box.value.value[which]), float(box.value.standard_error[which])
    than = "it more than sentences that do not fit" if said.against else "the sentence"
    if abs(value) < figures.CLEAR * error:
        return (
            f"Not to be told: {with_error(value, error)} logits lie within two standard errors of "
            "0; more coalitions (--pictures) may tell."
        )
    size = with_error(abs(value), error).removeprefix("+")
    if value > 0:
        return f"Yes: the box supports {than}, by {size} logits."
    less = "supports it less than sentences that do not fit"
    said_of_it = less if said.against else "speaks against the sentence"
    return f"No: the box {said_of_it}, by {size} logits."


def _quality(said: Explanation, quality: Quality) -> Section:
    """R2, insertion and deletion."""
    among = ", those of patches among them" if quality.has_patch_pairs else ""
    shares = [
        f"{one.value:.3f} ± {one.standard_error:.3f}" for one in (quality.heat, quality.pairs)
    ]
    rows = [
        [Cell("players alone (a heat map)"), Cell(shares[0]), Cell(f"{quality.by_heat.gain:+.2f}")],
        [Cell(f"pairs too{among}"), Cell(shares[1]), Cell(f"{quality.by_pairs.gain:+.2f}")],
        [Cell("orders that know nothing"), Cell(""),
         Cell(f"{quality.random.value:+.2f} ± {quality.random.standard_error:.2f}")],
    ]  # fmt: skip
    x = np.linspace(0, 1, len(quality.by_heat.insertion))
    lines = {"by heat map": quality.by_heat, "by pairs": quality.by_pairs,
             "knowing nothing": quality.random_curves[0]}  # fmt: skip
    drawn = [
        Figure(
            uri(
                plots.curves(
                    {name: (x, getattr(one, kind).numpy()) for name, one in lines.items()},
                    xlabel=f"share of patches and words {what}", ylabel="logit", log=False,
                ),
                "image/png",
            ),
            caption=f"{kind.capitalize()}: {better}",
            alt=f"{kind} curves",
        )
        for kind, what, better in (
            ("insertion", "put in", "a good order rises early"),
            ("deletion", "taken out", "a good order falls early"),
        )
    ]  # fmt: skip
    head = ["explanation", "R²", "gain"]
    note = (
        "R²: share of what the logit does on coalitions drawn anew that the explanation tells. "
        "Gain: area under insertion less that under deletion."
    )
    if not quality.has_patch_pairs:
        note += " Pairs of patches are left out: they take two coalitions each (--pictures)."
    return Section("How good is it?", tables=[Table("", head, rows, note)], figures=drawn)


# --- parts ---------------------------------------------------------------------------------------


def strongest_pairs(said: Explanation) -> list[tuple[int, int, float, float]]:
    """Patch, word, interaction and standard error of the pairs that differ most from 0."""
    flat = said.pairs.value.flatten()
    order = flat.abs().argsort(descending=True, stable=True)[:STRONGEST].tolist()
    words = len(said.words)
    errors = said.pairs.standard_error.flatten()
    return [(i // words, i % words, float(flat[i]), float(errors[i])) for i in order]


def _map(photo: Photo, said: Explanation, found: Estimate, largest: float) -> np.ndarray:
    return figures.signed_map(photo, said, found.value, found.standard_error, largest)


def _number(found: Estimate, index: int) -> str:
    return with_error(float(found.value[index]), float(found.standard_error[index]))


def with_error(value: float, error: float) -> str:
    """A number with its standard error, which has two digits."""
    tiny = not 0 < error < math.inf
    digits = 2 if tiny else min(5, max(1, 1 - math.floor(math.log10(error))))
    return f"{value:+.{digits}f} ± {error:.{digits}f}"


def _place(said: Explanation, patch: int) -> str:
    row, column = divmod(patch, said.players.columns)
    return f"row {row + 1}, column {column + 1}"


def sheet(photo: Photo, said: Explanation) -> bytes:
    """All maps in one picture, each with its name below."""
    largest, pairs = _largest(said.shown.value), _largest(said.pairs.value)
    plain, factor = figures.scaled(photo)
    shown = [
        figures.with_box(plain, said, factor),
        _map(photo, said, column(said.shown, 0), largest),
    ]
    names = ["the photo", "for the sentence"]
    if said.against:
        shown.append(_map(photo, said, column(said.shown, 1), largest))
        names.append("right less wrong")
    shown += [_map(photo, said, column(said.pairs, i), pairs) for i in range(len(said.words))]
    names += [f"with “{printable(word)}”" for word in said.words]
    pictures = [figures.named(one, name) for one, name in zip(shown, names, strict=True)]
    wide = max(3, math.ceil(math.sqrt(len(pictures))))
    rows = [pictures[i : i + wide] for i in range(0, len(pictures), wide)]
    return overlays.sheet(rows, height=pictures[0].shape[0] * 2 // 3)
