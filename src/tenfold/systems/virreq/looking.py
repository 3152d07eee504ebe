"""Requests of a page: asked of a network whose features of a picture are kept, and merged with
what people have done with earlier answers, which is never replaced.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, UInt8
from scipy import ndimage

from tenfold.data.images import runs
from tenfold.data.images.album import Album
from tenfold.structures import Code, Tree, Unit

from . import trees
from .annotated import Annotated, Answer
from .knowledge import KnowledgeBase
from .requests import Opened, Recognition

SAME = 0.5
"""IoU from which an object is one that a person took out."""
LEAST = 0.01
"""Share of a region that a connected piece needs to be taken for an object."""
Mask = Bool[np.ndarray, "height width"]


@runtime_checkable
class Network(Protocol):
    """What answers, and can be taught words."""

    refusal: str
    """Reason why it takes no new concepts; empty if it does."""

    def open(self, image: UInt8[np.ndarray, "height width 3"]) -> Opened:
        """Compute what requests on a picture need of it."""

    def adopt(self, kb: KnowledgeBase) -> None:
        """Answer by this knowledge base from now on; ValueError if a concept has no known word."""

    def unheard(self, words: Sequence[str]) -> list[str]:
        """Those of these words that the texts do not have, so that they change no answer."""


class Looking:
    """A network at work on the photos of an album, one request at a time.

    Args:
        network: The network.
        album: The photos.
        kept: Pictures whose features stay in memory.
    """

    def __init__(self, network: Network, album: Album, kept: int) -> None:
        self.network = network
        self._guard = threading.Lock()
        self._kept = lru_cache(maxsize=kept)(lambda number: network.open(album.picture(number)))

    def adopt(self, kb: KnowledgeBase) -> None:
        """Have the network answer by this knowledge base; ValueError if a concept is unknown."""
        with self._guard:
            self.network.adopt(kb)

    def parts(
        self, number: int, now: Annotated, kb: KnowledgeBase, unit: int,
        names: Sequence[str] | None = None,
    ) -> Answer:  # fmt: skip
        """Divide a unit by these concepts, or by all but those that a person ruled out.

        Parts that people went on with stay as they are. The others of these concepts are replaced,
        and those of other concepts lose the pixels that the new ones win.

        Raises:
            ValueError: There is no such concept, or its part was gone on with.
        """
        tree = now.tree
        parts = tree.parts(unit)
        kept = [part for part in parts if now.is_kept(part.id)]
        ruled_out = now.absent.get(unit, frozenset()) | {u.name for u in now.wrong.get(unit, ())}
        held = {part.name for part in kept}
        node = now.nodes[unit]
        if names is None:
            asked = [c.name for c in kb.children(node.id) if c.name not in ruled_out | held]
            if kb.children(node.id) and not asked:
                return Answer("parts", unit)
        else:
            asked = [kb.child(node.id, name).name for name in names]
            taken = [name for name in asked if name in held]
            if taken:
                raise ValueError(f"{taken[0]!r} is there, and divided; take it out to ask again")
        free = _free(tree.by_id[unit], kept)
        rivals = [c.name for c in kb.children(node.id) if c.name in {part.name for part in parts}]
        every = list(dict.fromkeys([*asked, *rivals]))
        found = self._asked(
            number, kb, _alone(tree, unit, free), lambda r: r.recognise(unit, names=every).units
        )
        new = [one for one in found if one.name in asked]
        won = _together(new, tree.size)
        gone, masks = [], {}
        for part in parts:
            if part.name in asked:
                gone.append(part.id)
            elif part not in kept:
                before = runs.mask_of(part.mask)
                left = before & ~won
                if not left.any():
                    gone.append(part.id)
                elif left.sum() < before.sum():
                    masks[part.id] = runs.code_of(left)
        return Answer(
            "parts", unit, _numbered(new, now.last), tuple(asked), tuple(gone), masks
        )  # fmt: skip

    def objects(self, number: int, now: Annotated, kb: KnowledgeBase, region: int) -> Answer:
        """Tell a region apart into objects; those that are there stay.

        Where the network finds none they are the region's connected pieces, and not sure.
        """
        tree = now.tree
        free = _free(tree.by_id[region], tree.parts(region))
        alone = _alone(tree, region, free)
        above = tree.by_id[region].parent
        assert above is not None
        # objects stay in their region: beyond it is what other regions have
        alone = trees.changed(alone, above, lambda u: replace(u, mask=runs.code_of(free)))
        ruled_out = [unit.mask for unit in now.wrong.get(region, ())]
        found = self._asked(number, kb, alone, lambda r: r.recognise(region, "instance").units)
        new = [one for one in found if not _is_among(one.mask, ruled_out)]
        confident = bool(new)
        if not new and not tree.parts(region):
            new = [
                Unit(0, tree.by_id[region].name, region, runs.code_of(piece), source="type1")
                for piece in pieces(free)
                if piece.sum() >= LEAST * free.sum()
            ]
            new = [one for one in new if not _is_among(one.mask, ruled_out)]
        return Answer("objects", region, _numbered(new, now.last), confident=confident or not new)

    def object_at(
        self, number: int, now: Annotated, kb: KnowledgeBase, region: int, x: int, y: int
    ) -> Answer:
        """The object of a region at a pixel of it that no other object has.

        Where the network finds none that has the pixel it is the connected piece of the region
        there, and not sure.
        """
        tree = now.tree

        def probe(recognition: Recognition) -> tuple[Unit, ...]:
            try:
                reply = recognition.recognise(region, "instance", probe=(x, y))
            except ValueError:  # this network knows no objects of the class, or none is here
                return ()
            covers = runs.mask_of(reply.units[0].mask)[y, x]
            return reply.units if covers else ()

        new = list(self._asked(number, kb, tree, probe))
        confident = bool(new)
        if not new:
            free = _free(tree.by_id[region], tree.parts(region))
            here = next(piece for piece in pieces(free) if piece[y, x])
            name = tree.by_id[region].name
            new = [Unit(0, name, region, runs.code_of(here), source="type1")]
        return Answer("object", region, _numbered(new, now.last), confident=confident)

    def _asked(
        self, number: int, kb: KnowledgeBase, tree: Tree,
        ask: Callable[[Recognition], tuple[Unit, ...]],
    ) -> tuple[Unit, ...]:  # fmt: skip
        with self._guard:
            return ask(Recognition(self._kept(number), kb, tree=tree))


def pieces(mask: Mask) -> list[Mask]:
    """Connected pieces of a mask, the largest first."""
    numbers, count = ndimage.label(mask, np.ones((3, 3)))
    areas = np.bincount(numbers.ravel(), minlength=count + 1)[1:]
    return [numbers == 1 + place for place in np.argsort(-areas, kind="stable").tolist()]


def _free(unit: Unit, kept: Sequence[Unit]) -> Mask:
    """The pixels of a unit that none of these parts has."""
    return runs.mask_of(unit.mask) & ~_together(kept, tuple(unit.mask["size"]))


def _together(units: Sequence[Unit], size: tuple[int, ...]) -> Mask:
    height, width = size
    return runs.mask_of(runs.merged([unit.mask for unit in units], height, width))


def _alone(tree: Tree, number: int, mask: Mask) -> Tree:
    """The tree with a unit of these pixels and without parts."""
    for part in tree.parts(number):
        tree = trees.without(tree, part.id)
    return trees.changed(tree, number, lambda unit: replace(unit, mask=runs.code_of(mask)))


def _is_among(mask: Code, others: Sequence[Code]) -> bool:
    from pycocotools import mask as codes

    return bool(others) and bool((codes.iou([mask], list(others), [0] * len(others)) > SAME).any())


def _numbered(units: Sequence[Unit], last: int) -> tuple[Unit, ...]:
    """Units with numbers that no unit has had."""
    return tuple(replace(unit, id=last + 1 + place) for place, unit in enumerate(units))
