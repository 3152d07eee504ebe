"""Hierarchical panoptic quality of pictures divided into units, and these into parts.

No code for the HPQ of ViRReq (arXiv 2207.14227) was published; this is our reconstruction of the
idea that a unit is as good as its parts are, and that what nobody labelled is not punished:

    Q(found, true) = IoU(found without void, true)         if the true unit has no labelled parts
                   = mean over classes of their parts of S / (TP + FP / 2 + FN / 2)      otherwise
    HPQ            = mean over classes of S / (TP + FP / 2 + FN / 2), summed over all pictures

with S the sum of Q over the pairs of a class. With one level it is PQ.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import numpy as np
from jaxtyping import Bool

from tenfold.structures import Code, Tree, Unit

from . import codes
from .counts import Counts, Quality, Table, joined

Rule = Literal["iou", "hpq"]
Void = Literal["image", "unit"]
THRESHOLD = 0.5
"""A pair by rule `iou` is over it, one by rule `hpq` at least that."""


@dataclass(frozen=True)
class TreeQuality(Quality):
    """HPQ of trees: counts of the classes of the first level, and of each level below."""

    levels: tuple[Quality, ...] = ()
    """Of each level, the first included; below it, of the parts of pairs alone."""
    rule: Rule = "iou"
    void: Void = "image"

    @property
    def hpq(self) -> float:
        """The number of the trees, 0 to 1."""
        return self.pq


def hpq(
    truth: Sequence[Tree], found: Sequence[Tree], rule: Rule = "iou", void: Void = "image"
) -> TreeQuality:
    """Hierarchical panoptic quality; parts are read of units that are `done`, in both trees.

    A region of several objects that was divided into them counts as these. A found unit without a
    pair is not wrong if over half of it is void, or a crowd of its class.

    Args:
        truth: A tree a picture.
        found: Those that were found, in the same order.
        rule: What a pair is: `iou`, same class and IoU over 0.5; `hpq`, of the one-to-one
            assignment with the largest sum of Q those of at least 0.5 (as in COCOTree's evaluator,
            which gives 0, not the IoU, where the found unit alone has parts, and takes the mean
            over pictures).
        void: `image`, pixels that are void in the true tree do not count; `unit`, nor do those of
            a true unit that none of its labelled parts covers.

    Raises:
        ValueError: The lists differ in length, two trees in size.
    """
    if rule not in ("iou", "hpq") or void not in ("image", "unit"):
        raise ValueError(f"rule is iou or hpq and void image or unit, got {rule!r} and {void!r}")
    levels: list[Table] = [{}]
    for true, seen in paired(truth, found):
        match = _Picture(true.told_apart(), seen.told_apart(), rule, void).match()
        _collect(match, levels, 0)
    every = tuple(Quality(table) for table in levels)
    return TreeQuality(every[0].classes, every, rule, void)


def paired(truth: Sequence[Tree], found: Sequence[Tree]) -> list[tuple[Tree, Tree]]:
    """True and found trees, which are of the same pictures so far as can be seen."""
    if len(truth) != len(found):
        raise ValueError(f"there are {len(truth)} true trees, but {len(found)} found ones")
    for true, seen in zip(truth, found, strict=True):
        if true.size != seen.size:
            raise ValueError(
                f"the tree of {seen.image or 'a picture'} is of {seen.size[0]} x {seen.size[1]} "
                f"pixels (height x width), its truth of {true.size[0]} x {true.size[1]}"
            )
    return list(zip(truth, found, strict=True))


@dataclass
class _Match:
    """Parts of a pair of units: counts of their classes, and the pairs that they make."""

    table: Table = field(default_factory=dict)
    pairs: list[_Match | None] = field(default_factory=list)
    """None is a pair without parts."""

    @property
    def quality(self) -> float:
        return Quality(self.table).pq


def _collect(match: _Match, levels: list[Table], depth: int) -> None:
    """Add the counts of a match and of all below it to those of their levels."""
    if depth == len(levels):
        levels.append({})
    levels[depth] = joined(levels[depth], match.table)
    for below in match.pairs:
        if below is not None:
            _collect(below, levels, depth + 1)


@dataclass
class _Picture:
    """Two trees of one picture."""

    truth: Tree
    found: Tree
    rule: Rule
    void: Void
    reach: dict[tuple[int, int], Code] = field(default_factory=dict)

    def match(self) -> _Match:
        return self._parts(self.truth.root, self.found.root, self._image)

    @cached_property
    def _image(self) -> Code | None:
        """Pixels that are not void; None: all."""
        return codes.inverted(self.truth.void) if self.truth.void else None

    def _known(self, true: Unit, parts: list[Unit], counted: Code | None) -> Code:
        """Pixels that count below a unit: of its parts, and outside of it those that did before."""
        inside = codes.union([part.mask for part in parts], self.truth.size)
        inside = codes.both(inside, self._image) if self._image else inside
        outside = codes.inverted(true.mask)
        outside = codes.both(outside, counted) if counted else outside
        return codes.union([inside, outside], self.truth.size)

    def _parts(self, true: Unit, seen: Unit, counted: Code | None) -> _Match:
        """Match the parts of two units; None: all pixels count."""
        parts, others = labelled(self.truth, true), labelled(self.found, seen)
        if self.void == "unit":
            counted = self._known(true, parts, counted)
        made = _Match()
        for name in dict.fromkeys(unit.name for unit in [*parts, *others]):
            of_true = [unit for unit in parts if unit.name == name]
            of_seen = [unit for unit in others if unit.name == name]
            self._of_class(of_true, of_seen, counted, made)
        return made

    def _touching(self, parts: list[Unit], others: list[Unit]) -> Bool[np.ndarray, "true seen"]:
        """Pairs of units that overlap, they or something in them."""
        reach = [
            [self._reach(side, tree, unit) for unit in units]
            for side, tree, units in ((0, self.truth, parts), (1, self.found, others))
        ]
        return codes.iou(*reach) > 0

    def _reach(self, side: int, tree: Tree, unit: Unit) -> Code:
        """Pixels of a unit and of all in it."""
        if (side, unit.id) not in self.reach:
            below = [self._reach(side, tree, part) for part in labelled(tree, unit)]
            whole = codes.union([unit.mask, *below], tree.size) if below else unit.mask
            self.reach[side, unit.id] = whole
        return self.reach[side, unit.id]

    def _of_class(
        self, parts: list[Unit], others: list[Unit], counted: Code | None, made: _Match
    ) -> None:
        name = (parts or others)[0].name
        crowds = [unit.mask for unit in parts if unit.crowd]
        parts = [unit for unit in parts if not unit.crowd]
        masks = [codes.both(one.mask, counted) if counted else one.mask for one in others]
        ious = codes.iou([unit.mask for unit in parts], masks)
        # by IoU only what can be a pair is gone into; by Q all that has a pixel in common somewhere
        near = ious > THRESHOLD if self.rule == "iou" else self._touching(parts, others)
        candidates = np.argwhere(near)
        below: dict[tuple[int, int], _Match | None] = {}
        chosen, quality = np.zeros_like(ious), ious.copy()
        for i, j in candidates.tolist():
            divided = bool(labelled(self.truth, parts[i]))
            match = self._parts(parts[i], others[j], counted) if divided else None
            below[i, j] = match
            quality[i, j] = ious[i, j] if match is None else match.quality
            chosen[i, j] = (ious if self.rule == "iou" else quality)[i, j]
        kept = [pair for pair in codes.assigned(chosen) if pair in below]
        kept = [pair for pair in kept if chosen[pair] >= THRESHOLD]
        taken = {j for _, j in kept}
        crowd = codes.union(crowds, self.truth.size) if crowds else None
        wrong = sum(
            j not in taken and not _is_excused(others[j].mask, masks[j], crowd)
            for j in range(len(others))
        )
        total = sum((float(quality[pair]) for pair in kept), 0.0)
        made.table[name] = Counts(len(kept), wrong, len(parts) - len(kept), total)
        made.pairs += [below[pair] for pair in kept]


def _is_excused(mask: Code, counted: Code, crowd: Code | None) -> bool:
    """True if over half of a found unit does not count, or is a crowd of its class."""
    area = codes.area(counted)
    if crowd:
        area -= codes.area(codes.both(counted, crowd))
    return 2 * area < codes.area(mask)


def labelled(tree: Tree, unit: Unit) -> list[Unit]:
    """The parts of a unit, if its division is complete."""
    return tree.parts(unit.id) if unit.state == "done" else []


def semantic_iou(truth: Sequence[Tree], found: Sequence[Tree], level: int = 1) -> dict[str, float]:
    """IoU of each class that is true or found at a level, 1 for the parts of the whole picture.

    Void does not count; below the first level, nor does what lies outside of the true units that
    have labelled parts there. Sums are taken over all pictures.
    """
    inside: dict[str, int] = {}
    union: dict[str, int] = {}
    for true, seen in paired(truth, found):
        true, seen = true.told_apart(), seen.told_apart()
        sides = [_of_level(tree, level) for tree in (true, seen)]
        counted = codes.union([unit.mask for unit in _owners(true, level)], true.size)
        if true.void:
            counted = codes.both(counted, codes.inverted(true.void))
        for name in dict.fromkeys([*sides[0], *sides[1]]):
            first, second = (
                codes.both(codes.union(side.get(name, []), true.size), counted) for side in sides
            )
            shared = codes.area(codes.both(first, second))
            inside[name] = inside.get(name, 0) + shared
            total = codes.area(first) + codes.area(second) - shared
            union[name] = union.get(name, 0) + total
    return {name: inside[name] / union[name] for name in inside if union[name]}


def _owners(tree: Tree, level: int) -> list[Unit]:
    """Units of the level above that have labelled parts; the root is one in any case."""
    found = [tree.root]
    for _ in range(level - 1):
        found = [part for unit in found for part in labelled(tree, unit)]
    return [unit for unit in found if level == 1 or labelled(tree, unit)]


def _of_level(tree: Tree, level: int) -> dict[str, list[Code]]:
    """Masks of a level by class."""
    masks: dict[str, list[Code]] = {}
    for unit in _owners(tree, level):
        for part in labelled(tree, unit):
            masks.setdefault(part.name, []).append(part.mask)
    return masks
