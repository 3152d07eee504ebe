"""Trees of pictures of a user: read, asked, written, one picture at a time."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tenfold.core import dist
from tenfold.core.checkpoint import write_bytes
from tenfold.core.divide import answered
from tenfold.data.images import coco_panoptic, panoptic_parts
from tenfold.data.images.folders import offered, read_offered
from tenfold.data.images.panoptic_parts import PartSpec
from tenfold.structures import Tree
from tenfold.viz import overlays
from tenfold.viz.overlays import Rgb
from tenfold.viz.page import Figure, Section, uri, write_whole
from tenfold.viz.predictions import (
    Source,
    Trained,
    sources,
    spread,
    write_predictions,
    write_table,
)

from . import trees
from .config import PredictOptions
from .knowledge import KnowledgeBase
from .levels import level_map, names_of, part_spec, spec_text
from .recogniser import OpenedPicture, TrainedRecogniser
from .requests import Recognition, Request, read

SHOWN = 24
"""Pictures on the page, at most; the table and single files have all."""
HEIGHT = 200
MOST_LEVELS = 4
"""Levels that are drawn."""


@dataclass(frozen=True)
class Record:
    """The part of an answer that is kept when the next picture is read."""

    name: str
    tree: Tree | None = None
    problem: str = ""
    """Reason why it cannot be read."""
    written: tuple[Path, ...] = ()
    row: tuple[Rgb, ...] = ()
    """Small picture and levels, of those that the page shows."""


def predict_files(
    recogniser: TrainedRecogniser,
    inputs: Path,
    out: Path,
    options: PredictOptions,
    trained: Trained,
) -> list[Path]:  # fmt: skip
    """Ask for a picture, or for each of a folder and of the folders in it.

    The processes of a job share the pictures; each writes the results of its own, the first one
    writes table and page.

    Returns:
        The files that were written, the page last; on processes after the first none.

    Raises:
        ValueError: There is no picture, a lone one cannot be read, or none of a folder; or a
            request does not fit a picture's tree.
    """
    pictures = sources(inputs, out, offered)
    asked = read(Path(options.request)) if options.request else None
    shown = set(spread(range(len(pictures)), SHOWN))
    spec = part_spec(recogniser.kb) if options.parts else None

    def read_and_open(row: int) -> tuple[Rgb, OpenedPicture]:
        picture = read_offered(inputs, pictures[row].file)
        return picture, recogniser.open(picture)

    def work(row: int, given: tuple[Rgb, OpenedPicture]) -> Record:
        source, (picture, opened) = pictures[row], given
        recognition = Recognition(opened, recogniser.kb, source.name, "knowledge.json")
        if asked is None:
            recognition.run(options.depth)
        else:
            _follow(recognition, asked)
        found = recognition.tree
        return _written(picture, found, recogniser.kb, spec, source, out, row in shown)

    records = answered(
        inputs, len(pictures), read_and_open, work,
        lambda row, problem: Record(pictures[row].name, problem=problem),
    )  # fmt: skip
    if not dist.current().is_first:
        return []
    return _write_folder(records, recogniser.kb, inputs, out, options, trained)


def _follow(recognition: Recognition, asked: list[Request]) -> None:
    """Answer requests in order; an error names picture and request."""
    for row, request in enumerate(asked):
        try:
            recognition.answer(request)
        except ValueError as error:
            raise ValueError(f"{recognition.tree.image}: request {row}: {error}") from error


def _written(
    picture: Rgb, tree: Tree, kb: KnowledgeBase, spec: PartSpec | None, source: Source, out: Path,
    shown: bool,
) -> Record:  # fmt: skip
    """Write the tree of a picture, and the picture under the concepts of each level."""
    output = out / source.output
    uids = None if spec is None else panoptic_parts.uids_of(trees.apart(tree, kb), spec)
    files = [output.with_name(f"{output.name}-tree.json")]
    trees.write(files[0], tree)
    if uids is not None:
        files.append(output.with_name(f"{output.name}-parts.tif"))
        panoptic_parts.write(files[-1], uids)
    row = [overlays.fitted(picture, HEIGHT)]
    for level in range(1, min(kb.depth, MOST_LEVELS) + 1):
        names = names_of(kb, level)
        labels = level_map(tree, names, level)
        if (labels == 255).all():
            break
        drawn = overlays.blend(picture, labels, len(names), bare=255)
        files.append(output.with_name(f"{output.name}-level{level}.png"))
        write_bytes(files[-1], overlays.png(drawn))
        row.append(overlays.fitted(drawn, HEIGHT))
    return Record(source.name, tree, written=tuple(files), row=tuple(row) if shown else ())


def _write_folder(
    records: list[Record], kb: KnowledgeBase, inputs: Path, out: Path, options: PredictOptions,
    trained: Trained,
) -> list[Path]:  # fmt: skip
    """Write what there is once: table, knowledge base, panoptic files, and the page, the last."""
    good = [record for record in records if record.tree is not None]
    files = [path for record in good for path in record.written]
    rows = [
        [record.name, str(unit.id), unit.name, "" if unit.parent is None else str(unit.parent),
         f"{unit.score:.4f}", unit.state, unit.source, ""]
        for record in good if record.tree is not None for unit in record.tree.walk()
    ]  # fmt: skip
    rows += [[record.name, *[""] * 6, record.problem] for record in records if record.problem]
    header = ["file", "unit", "class", "parent", "score", "state", "source", "problem"]
    files.append(write_table(out / "predictions.csv", header, rows))
    kb.write(out / "knowledge.json")
    files.append(out / "knowledge.json")
    spec = part_spec(kb) if options.parts else None
    if spec is not None:
        files.append(write_whole(out / "parts.yaml", spec_text(spec)))
    if options.panoptic:
        told = [trees.apart(record.tree, kb) for record in good if record.tree is not None]
        tops = kb.children(kb.root.id)
        things = {node.name for node in tops if node.thing}
        files += coco_panoptic.write(out, told, [n.name for n in tops], things)
    figures = [
        Figure(
            uri(overlays.row_jpeg(record.row, HEIGHT), "image/jpeg"),
            caption=f"{record.name}: {_said(record.tree)}",
            alt=f"Levels of {record.name}",
        )
        for record in good
        if record.row and record.tree is not None
    ]
    for level in range(1, min(kb.depth, MOST_LEVELS) + 1):
        names = names_of(kb, level)
        found = {u.name for r in good if r.tree is not None for u in r.tree.units}
        seen = [place for place, name in enumerate(names) if name in found]
        if seen:
            strip = overlays.legend(names, seen, 700)
            figures.append(Figure(uri(overlays.png(strip), "image/png"), f"level {level}", "names"))
    page = write_predictions(
        out,
        inputs,
        trained,
        [Section("Trees", text=["The picture, and what was found at each level."],
                 figures=figures)],
        lead=f"{len(good)} pictures",
        count=len(records),
        problems=[record.problem for record in records if record.problem],
        meaning=["A unit that is not annotated was not asked for its parts: it may well have some.",
                 "A score is the mean probability of a concept over its pixels."],
    )  # fmt: skip
    return [*files, page]


def _said(tree: Tree) -> str:
    """The first level of a tree in one line."""
    told = tree.told_apart()
    names = [unit.name for unit in told.parts(told.root.id)]
    counts = {name: names.count(name) for name in dict.fromkeys(names)}
    return ", ".join(f"{n} {name}" if n > 1 else name for name, n in counts.items()) or "nothing"
