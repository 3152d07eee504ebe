"""Trees that were made on the page, in files of this project and of others."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from tenfold.data.images import coco_panoptic, coco_tree, panoptic_parts, relations
from tenfold.files import write_json, write_text
from tenfold.structures import Tree
from tenfold.web.pages import Media, download

from . import trees
from .knowledge import KnowledgeBase
from .levels import part_spec, spec_text

TITLES = {
    "trees": "Trees (JSON) and knowledge base",
    "coco_panoptic": "COCO panoptic (first level)",
    "panoptic_parts": "Panoptic parts (TIFF)",
    "cocotree": "COCOTree",
    "x_anylabeling": "X-AnyLabeling (relations)",
}
"""Form -> its name on the page."""
CROWDS = "what was not told apart of a region is a crowd"
NOTES = {
    "coco_panoptic": (CROWDS, "parts and states are not held"),
    "panoptic_parts": (CROWDS, "parts of parts and states are not held"),
    "cocotree": ("crowds and states are not held",),
    "x_anylabeling": ("crowds are not held",),
}
"""Form -> what it cannot hold."""
Write = Callable[[Path, Sequence[Tree], Sequence[int], KnowledgeBase], None]


def exported(
    every: Sequence[Tree], numbers: Sequence[int | None], kb: KnowledgeBase, form: str
) -> Media:
    """Write trees in a form.

    Args:
        every: The trees; their `image` is the path of a photo below its folder.
        numbers: Number of each photo in the folder, None of one that vanished.
        kb: Knowledge base of the trees.
        form: One of `TITLES`.

    Raises:
        LookupError: There is no such form.
        ValueError: There is no tree, or the form cannot hold the knowledge base.
    """
    if form not in WRITERS:
        raise LookupError(f"there is no form {form[:40]!r}; there are {', '.join(TITLES)}")
    if not every:
        raise ValueError("nothing was asked for yet; there is no tree to write")
    gone = max((n for n in numbers if n is not None), default=-1) + 1
    ids = [gone + place if n is None else n for place, n in enumerate(numbers)]
    with tempfile.TemporaryDirectory(prefix="tenfold-export-") as place:
        folder = Path(place)
        WRITERS[form](folder, every, [number + 1 for number in ids], kb)
        files = [file for file in folder.rglob("*") if file.is_file()]
        return download(folder, files, form, NOTES.get(form, ()))


def _trees(
    folder: Path, every: Sequence[Tree], numbers: Sequence[int], kb: KnowledgeBase
) -> None:  # fmt: skip
    kb.write(folder / "knowledge.json")
    for tree in every:
        trees.write(folder / f"{tree.image}-tree.json", tree)


def _panoptic(
    folder: Path, every: Sequence[Tree], numbers: Sequence[int], kb: KnowledgeBase
) -> None:  # fmt: skip
    tops = kb.children(kb.root.id)
    told, things = [trees.apart(tree, kb) for tree in every], {n.name for n in tops if n.thing}
    coco_panoptic.write(folder, told, [node.name for node in tops], things)


def _parts(
    folder: Path, every: Sequence[Tree], numbers: Sequence[int], kb: KnowledgeBase
) -> None:  # fmt: skip
    spec = part_spec(kb)
    if spec is None:
        raise ValueError(
            "panoptic parts has numbers for 99 concepts side by side, which are fewer than the "
            "knowledge base has; take another form"
        )
    write_text(folder / "parts.yaml", spec_text(spec))
    for tree in every:
        uids = panoptic_parts.uids_of(trees.apart(tree, kb), spec)
        panoptic_parts.write(folder / f"{tree.image}-parts.tif", uids)


def _cocotree(
    folder: Path, every: Sequence[Tree], numbers: Sequence[int], kb: KnowledgeBase
) -> None:  # fmt: skip
    coco_tree.write(
        folder / "predictions.jsonl", [trees.apart(tree, kb) for tree in every], numbers
    )
    write_json(
        folder / "images.json",
        [{"id": n, "file_name": t.image} for n, t in zip(numbers, every, strict=True)],
    )


def _relations(
    folder: Path, every: Sequence[Tree], numbers: Sequence[int], kb: KnowledgeBase
) -> None:  # fmt: skip
    for tree in every:
        file = folder / Path(tree.image).with_suffix(".json")
        if file.exists():  # a.png and a.jpg
            file = folder / f"{tree.image}.json"
        named = replace(trees.apart(tree, kb), image=Path(tree.image).name)
        relations.write(file, named)


WRITERS: dict[str, Write] = {
    "trees": _trees, "coco_panoptic": _panoptic, "panoptic_parts": _parts,
    "cocotree": _cocotree, "x_anylabeling": _relations,
}  # fmt: skip
"""Form -> what writes it."""
assert WRITERS.keys() == TITLES.keys()
