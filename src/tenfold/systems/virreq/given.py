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

    Concepts that the run knows under the same wholes keep their vectors; others, which no label
    ever showed, get theirs from what made the run's.

    Raises:
        ValueError: The file is no knowledge base, the run's texts were learned with it, or their
            source does not know a word; then nothing is changed.
    """
    wanted = knowledge.read(file)
    encoder: Encoder | None = None
    before = recogniser.kb
    for path, node in _paths(wanted):
        whole = recogniser.kb.at(path[:-1])
        if _has(recogniser.kb, whole.id, node):
            continue
        try:
            encoder = encoder or _encoder(text)
            recogniser.add(node.name, whole.id, encoder, text.prompt, text.centred, node.synonyms)
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


def _has(kb: KnowledgeBase, whole: int, node: Node) -> bool:
    return any(child.name == node.name for child in kb.children(whole))


def _only(kb: KnowledgeBase, wanted: set[Path_]) -> KnowledgeBase:
    """Without the concepts whose paths are not wanted."""
    for path, node in list(_paths(kb)):
        if path in wanted or any(path[:end] not in wanted for end in range(1, len(path))):
            continue
        whole = kb.at(path[:-1])
        if node.id in whole.children:
            kb = kb.remove(node.id, whole.id)
    return kb
