"""A knowledge base in place of a run's: its concepts are asked for, and no others."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from . import knowledge, sources
from .config import Text
from .knowledge import KnowledgeBase, Node
from .recogniser import TrainedRecogniser
from .text import Encoder

Path_ = tuple[str, ...]


def take_over(recogniser: TrainedRecogniser, file: Path, text: Text) -> None:
    """Let a recogniser ask for what a file's knowledge base has.

    Concepts that the run knows under the same wholes keep their vectors, unless the file gives them
    other synonyms, over which the vector is a mean; those, and concepts that no label ever showed,
    get theirs from what made the run's.

    Raises:
        ValueError: The file is no knowledge base, the run's texts were learned with it, or their
            source does not know a word; then nothing is changed.
    """
    wanted = knowledge.read(file)
    encoder: Encoder | None = None
    before = recogniser.kb
    for path, node in _paths(wanted):
        grown = _with(recogniser.kb, path, node)
        if grown is recogniser.kb:
            continue
        try:
            encoder = encoder or _encoder(text)
            recogniser.adopt(grown, encoder, text.prompt, text.centred)
        except ValueError as error:
            recogniser.kb = before
            where = " of ".join(reversed(path))
            raise ValueError(f"{file}: the run does not know {where}: {error}") from error
    recogniser.kb = _only(recogniser.kb, {path for path, _ in _paths(wanted)})


def _encoder(text: Text) -> Encoder:
    if text.source == "learned":
        raise ValueError(
            "its texts were learned with it; train with --text.source table or clip for concepts "
            "that were not trained"
        )
    return sources.encoder(text)


def _paths(kb: KnowledgeBase) -> Iterator[tuple[Path_, Node]]:
    """Every path of names from below the root down, wholes first, and the node at its end."""
    left: list[tuple[Path_, Node]] = [((node.name,), node) for node in kb.children(kb.root.id)]
    while left:
        path, node = left.pop(0)
        yield path, node
        left += [((*path, child.name), child) for child in kb.children(node.id)]


def _with(kb: KnowledgeBase, path: Path_, node: Node) -> KnowledgeBase:
    """With a node at a path, by its synonyms if it has any; the same one if nothing is new."""
    whole = kb.at(path[:-1])
    known = next((child for child in kb.children(whole.id) if child.name == node.name), None)
    if known is None:
        return kb.add(node.name, whole.id, node.synonyms)
    if not node.synonyms or set(node.synonyms) == set(known.synonyms):
        return kb
    return kb.rename(known.id, synonyms=node.synonyms)


def _only(kb: KnowledgeBase, wanted: set[Path_]) -> KnowledgeBase:
    """Without the concepts whose paths are not wanted."""
    for path, node in list(_paths(kb)):
        if path in wanted or any(path[:end] not in wanted for end in range(1, len(path))):
            continue
        whole = kb.at(path[:-1])
        if node.id in whole.children:
            kb = kb.remove(node.id, whole.id)
    return kb
