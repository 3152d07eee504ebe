"""Recognition by request (paper, sec. 3.2): a picture is divided as far as someone asks.

A Type-I request divides a unit by the concepts that the knowledge base has below its class; a
Type-II request takes an object out of a region of its class, the one at a pixel or all. What
answers them is an `Opened` picture, whose features are kept, so that a request costs only a head.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from tenfold.data.images import runs
from tenfold.files import misfit, read_json, require_bounded
from tenfold.structures import Tree, Unit

from . import trees
from .knowledge import KnowledgeBase, Node

Kind = Literal["semantic", "instance"]
KEPT = 0.5
"""Share of an object's pixels that must be of its class by the Type-I request; an object with less
is given up, one with more takes the others from the regions of other classes."""
MOST_REQUESTS = 10_000
MOST_BYTES = 16 * 2**20
SHAPE = [{"unit": (int, str), "kind": str, "names": [str], "probe": [int]}]


class Divided(NamedTuple):
    """Answer to a Type-I request."""

    labels: Int[np.ndarray, "height width"]
    """Place of the concept from 1, in the order of the request; 0 is others, below it outside."""
    scores: Float[np.ndarray, " concept"]
    """Of each concept, 0 to 1."""


class Object(NamedTuple):
    """Answer to a Type-II request."""

    mask: Bool[np.ndarray, "height width"]
    score: float
    """0 to 1."""
    confident: bool = True
    """False if no candidate covered the probing pixel."""


@runtime_checkable
class Opened(Protocol):
    """A picture whose features are kept."""

    size: tuple[int, int]
    """Height and width."""

    def divide(
        self, whole: Node, parts: Sequence[Node], unit: Bool[np.ndarray, "height width"]
    ) -> Divided:
        """The pixels of a unit of class `whole` among these concepts and others."""

    def probe(self, x: int, y: int, node: Node) -> Object:
        """The object of a class at a pixel."""

    def objects(self, node: Node) -> list[Object]:
        """All objects of a class, every pixel being a probe."""


@runtime_checkable
class Recogniser(Protocol):
    """What opens pictures: a trained network."""

    def open(self, image: UInt8[np.ndarray, "height width 3"]) -> Opened:
        """Compute what requests on a picture need of it."""


@dataclass(frozen=True)
class Request:
    """One request."""

    unit: int | str | None = None
    """Number of the unit, or the name of the root; None is the whole picture."""
    kind: Kind = "semantic"
    names: tuple[str, ...] | None = None
    """Concepts that are asked for; None: all below the unit's class."""
    probe: tuple[int, int] | None = None
    """Pixel x, y of the object that is asked for; None: all objects."""


@dataclass(frozen=True)
class Reply:
    """What a request added to the tree."""

    units: tuple[Unit, ...]
    confident: bool = True
    """False if no candidate covered the probing pixel, and the best was returned."""


class Recognition:
    """A picture on which requests are made; `tree` is what they found so far.

    Example:
        picture = Recognition(network.open(image), kb)
        (cars,) = picture.recognise(names=["car"]).units
        picture.recognise(cars.id, "instance", probe=(40, 25))
    """

    def __init__(
        self, opened: Opened, kb: KnowledgeBase, image: str = "", name: str = "",
        tree: Tree | None = None,
    ) -> None:  # fmt: skip
        """`image` and `name` are the files of picture and knowledge base; `tree` is gone on with.

        Raises:
            ValueError: The tree is of another size, or has classes that are not in the base.
        """
        self.opened, self.kb = opened, kb
        self.tree = trees.begun(image, opened.size, kb, name) if tree is None else tree
        if self.tree.size != opened.size:
            raise ValueError(
                f"the tree is of a picture of {self.tree.size[0]} x {self.tree.size[1]} pixels "
                f"(height x width), this one has {opened.size[0]} x {opened.size[1]}"
            )
        trees.check(self.tree, kb)

    # --- requests --------------------------------------------------------------------------------

    def recognise(
        self,
        unit: int | str | None = None,
        kind: Kind = "semantic",
        names: Sequence[str] | None = None,
        probe: tuple[int, int] | None = None,
    ) -> Reply:
        """Answer one request, and put what was found into the tree.

        Args:
            unit: Number of a unit, or the root's name; None is the whole picture.
            kind: `semantic`, the unit by concepts (Type-I); `instance`, an object of the unit's
                class out of it (Type-II).
            names: Concepts of a Type-I request; without, all below the unit's class. What an
                earlier request found of them is replaced.
            probe: Pixel x, y of a Type-II request; without, all objects of the unit.

        Raises:
            ValueError: There is no such unit or concept (with the nearest names), the class is not
                countable, or the probe lies outside of the unit or the picture.
        """
        at = self._unit(unit)
        if kind == "semantic":
            if probe is not None:
                raise ValueError("a Type-I request has no probe; ask for kind='instance'")
            return self._divide(at, names)
        if kind != "instance":
            raise ValueError(f"kind is semantic or instance, got {kind!r}")
        if names is not None:
            raise ValueError("a Type-II request asks for the unit's own class, not for names")
        node = self.kb.node_of(self.tree, at)
        above = None if at.parent is None else self.tree.by_id[at.parent]
        if not node.thing:
            raise ValueError(f"{node.name!r} is not countable in the knowledge base")
        if above is not None and above.name == at.name:
            raise ValueError(f"unit {at.id} is one {node.name} already; probe unit {above.id}")
        return self._all_objects(at, node) if probe is None else self._object_at(at, node, probe)

    def answer(self, request: Request) -> Reply:
        """Answer a request that was read from a file."""
        return self.recognise(request.unit, request.kind, request.names, request.probe)

    def run(self, depth: int) -> Tree:
        """Divide the picture and its units to a depth of the knowledge base.

        Regions of countable classes are told apart at each level before they are divided.

        Args:
            depth: Levels below the whole picture, 1 for its regions and objects.
        """
        if depth < 1:
            raise ValueError(f"depth must be at least 1, got {depth}")
        level = [self.tree.root.id]
        for _ in range(depth):
            below = []
            for number in level:
                unit = self.tree.by_id[number]
                if self.kb.node_of(self.tree, unit).children:
                    below += self._level(unit)
            level = below
        return self.tree

    def _level(self, unit: Unit) -> list[int]:
        """Divide a unit, tell its regions apart; return the numbers of what is there to divide."""
        regions = self._divide(unit, None).units
        found: dict[int, list[Object]] = {}
        for region in regions:
            node = self.kb.node_of(self.tree, region)
            found[region.id] = self.opened.objects(node) if node.thing else []
        self._merge(unit, found)
        return [
            number
            for region in self.tree.parts(unit.id)
            for number in [part.id for part in self.tree.parts(region.id)] or [region.id]
        ]

    # --- Type-I ----------------------------------------------------------------------------------

    def _divide(self, unit: Unit, names: Sequence[str] | None) -> Reply:
        node = self.kb.node_of(self.tree, unit)
        every = self.kb.children(node.id)
        if not every:
            raise ValueError(f"{node.name!r} has no parts in the knowledge base; add one")
        asked = every if names is None else [self.kb.child(node.id, name) for name in names]
        asked = list(dict.fromkeys(asked))
        if not asked:
            raise ValueError("names is empty: give concepts, or leave it out to ask for all")
        whole = runs.mask_of(unit.mask)
        found = self.opened.divide(node, asked, whole)
        tree = self.tree
        for part in self.tree.parts(unit.id):
            if part.name in {one.name for one in asked}:
                tree = trees.without(tree, part.id)
        # parts never leave their whole, whatever the network says outside of it
        codes = runs.codes_of(np.where(whole, found.labels, 0))
        first = max(self.tree.by_id) + 1
        new = [
            (one.name, codes[place], _share(found.scores[place - 1]))
            for place, one in enumerate(asked, 1)
            if place in codes
        ]
        done = {one.name for one in every} <= {one.name for one in asked}
        done = done or (unit.state == "done" and names is not None)
        self.tree = trees.with_parts(
            tree, unit.id, new, "type1", "done" if done else "open", first=first
        )
        return Reply(tuple(u for u in self.tree.parts(unit.id) if u.id >= first))

    # --- Type-II ---------------------------------------------------------------------------------

    def _object_at(self, region: Unit, node: Node, probe: tuple[int, int]) -> Reply:
        x, y = probe
        height, width = self.tree.size
        if not (0 <= x < width and 0 <= y < height):
            raise ValueError(f"the probe x {x}, y {y} is outside of the {width} x {height} picture")
        inside = runs.mask_of(region.mask)
        if not inside[y, x]:
            raise ValueError(
                f"the probe x {x}, y {y} is outside of unit {region.id} ({region.name}); give a "
                "pixel of it"
            )
        for part in self.tree.parts(region.id):
            mask = runs.mask_of(part.mask)
            if mask[y, x] and part.name == region.name:
                return Reply((part,))
            inside &= ~mask
        found = self.opened.probe(x, y, node)
        mask = found.mask & inside
        if not mask.any():
            raise ValueError(f"no {node.name} was found at x {x}, y {y}")
        state = "open" if region.state != "done" else region.state
        first = max(self.tree.by_id) + 1
        new = [(region.name, runs.code_of(mask), _share(found.score))]
        self.tree = trees.with_parts(self.tree, region.id, new, "type2", state, first=first)
        return Reply((self.tree.by_id[first],), found.confident)

    def _all_objects(self, region: Unit, node: Node) -> Reply:
        above = region if region.parent is None else self.tree.by_id[region.parent]
        return Reply(tuple(self._merge(above, {region.id: self.opened.objects(node)})))

    def _merge(self, unit: Unit, found: dict[int, list[Object]]) -> list[Unit]:
        """Give the pixels of a unit to objects of its regions, the best first.

        A pixel belongs to the first object that has it. An object of which less than half is of its
        region is given up; one with more takes its other pixels from the other regions.
        """
        whole = runs.mask_of(unit.mask)
        regions = {part.id: runs.mask_of(part.mask) for part in self.tree.parts(unit.id)}
        taken = np.zeros_like(whole)
        for part in self.tree.parts(unit.id):
            if part.id not in found:  # its objects stay as they are
                for other in self.tree.parts(part.id):
                    taken |= runs.mask_of(other.mask)
        every = [(one, number) for number, some in found.items() for one in some]
        every.sort(key=lambda pair: -pair[0].score)
        kept: dict[int, list[tuple[str, dict[str, Any], float]]] = {number: [] for number in found}
        for one, number in every:
            free = one.mask & whole & ~taken
            if not free.any() or (free & regions[number]).sum() < KEPT * one.mask.sum():
                continue
            taken |= free
            for region, mask in regions.items():
                regions[region] = mask | free if region == number else mask & ~free
            name = self.tree.by_id[number].name
            kept[number].append((name, runs.code_of(free), _share(one.score)))
        first = max(self.tree.by_id) + 1
        start = first
        tree = self.tree
        for number, parts in kept.items():
            for part in tree.parts(number):
                tree = trees.without(tree, part.id)
            if parts:
                tree = trees.with_parts(tree, number, parts, "type2", "done", first=start)
                start += len(parts)
        self.tree = self._redrawn(tree, unit, regions)
        return [one for one in self.tree.units if first <= one.id < start]

    def _redrawn(self, tree: Tree, unit: Unit, regions: dict[int, np.ndarray]) -> Tree:
        """The tree with other masks of regions; one without a pixel is gone."""
        for number, mask in regions.items():
            if not mask.any():
                state = tree.by_id[unit.id].state
                tree = trees.with_state(trees.without(tree, number), unit.id, state)
            else:
                change = partial(replace, mask=runs.code_of(mask))
                tree = trees.changed(tree, number, change)
        return tree

    def _unit(self, unit: int | str | None) -> Unit:
        if unit is None or unit == self.kb.root.name:
            return self.tree.root
        if unit not in self.tree.by_id:
            raise ValueError(
                f"the picture has no unit {unit!r}; units are numbered "
                f"{', '.join(map(str, [*self.tree.by_id][:8]))}, the whole is {self.kb.root.name!r}"
            )
        return self.tree.by_id[int(unit)]


def _share(score: Any) -> float:
    return float(min(max(float(score), 0.0), 1.0))


def read(file: Path) -> list[Request]:
    """Requests of a JSON file: a list of {"unit", "kind", "names", "probe": [x, y]}.

    Raises:
        ValueError: It is no such list; the error names file and request.
    """
    require_bounded(file, MOST_BYTES)
    content = read_json(file)
    problem = misfit(content, SHAPE, "requests")
    if not problem and len(content) > MOST_REQUESTS:
        problem = f"there are {len(content)} requests, more than {MOST_REQUESTS}"
    for i, item in enumerate(content if not problem else []):
        unknown = item.keys() - SHAPE[0].keys()
        if unknown:
            problem = f"requests[{i}] has the field {min(unknown)!r}"
        elif item.get("kind", "semantic") not in ("semantic", "instance"):
            problem = f"requests[{i}].kind is {item['kind'][:40]!r}, not semantic or instance"
        elif "probe" in item and len(item["probe"]) != 2:
            problem = f"requests[{i}].probe is not [x, y]"
        if problem:
            break
    if problem:
        raise ValueError(f"{file}: {problem}; a request has {', '.join(SHAPE[0])}")
    return [
        Request(
            item.get("unit"), item.get("kind", "semantic"),
            tuple(item["names"]) if "names" in item else None,
            (item["probe"][0], item["probe"][1]) if "probe" in item else None,
        )
        for item in content
    ]  # fmt: skip
