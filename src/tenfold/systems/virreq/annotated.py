"""Pictures that people divide on a page: their trees, read from the events of the page.

What a network answered is in the events, so that a tree is the same whatever network is there
later. What hangs on something that was taken back (parts of a unit, units of a concept) is gone
with it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from tenfold.data.images import runs
from tenfold.journal import Event
from tenfold.structures import Code, State, Tree, Unit

from . import trees
from .knowledge import KnowledgeBase, Node

FOUND, WRONG, ABSENT, FINISH = "found", "wrong", "absent", "finish"
"""Kinds of events about a picture: answers of the network, and what a person says of them."""
What = Literal["parts", "objects", "object"]
"""What was asked for: concepts in a unit, all objects of a region, the one at a pixel."""


@dataclass(frozen=True)
class Answer:
    """What a request added to a tree."""

    what: What
    unit: int
    """Unit that was asked about."""
    units: tuple[Unit, ...] = ()
    """New ones."""
    names: tuple[str, ...] = ()
    """Concepts that were asked for."""
    gone: tuple[int, ...] = ()
    """Units that the new ones replace."""
    masks: Mapping[int, Code] = field(default_factory=dict)
    """New masks of units that lost pixels to the new ones."""
    confident: bool = True
    """False where the network did not tell the objects apart."""


@dataclass(frozen=True)
class Annotated:
    """A picture as its events have it."""

    tree: Tree
    """Its units, with states by what is known of each."""
    nodes: Mapping[int, Node]
    """Unit -> its concept."""
    known: Mapping[int, frozenset[str]]
    """Unit -> concepts that are known to be there or not to be there."""
    absent: Mapping[int, frozenset[str]]
    """Unit -> concepts that a person says are not there."""
    wrong: Mapping[int, tuple[Unit, ...]]
    """Unit -> parts that a person took out of it."""
    told: frozenset[int]
    """Regions of which all objects are there."""
    stopped: frozenset[int]
    """Units at which a person stopped."""
    last: int
    """Largest number that a unit has had."""

    def is_region(self, number: int) -> bool:
        """Whether a unit is a region of a countable concept, to be told apart into objects."""
        unit = self.tree.by_id[number]
        if unit.parent is None or not self.nodes[number].thing:
            return False
        return self.tree.by_id[unit.parent].name != unit.name

    def concepts(self, number: int, kb: KnowledgeBase) -> list[Node]:
        """The concepts into which a unit can be divided."""
        return kb.children(self.nodes[number].id)

    def is_begun(self, number: int) -> bool:
        """Whether anything was asked or said of a unit's parts."""
        said = (self.known, self.wrong)
        return bool(self.tree.parts(number)) or any(of.get(number) for of in said)

    def is_kept(self, number: int) -> bool:
        """Whether a unit is not replaced by a later request: someone went on with it."""
        return number in self.stopped or self.is_begun(number)

    def below(self, number: int) -> list[int]:
        """A unit and all that it was divided into."""
        found = [number]
        for at in found:  # which grows
            found += [part.id for part in self.tree.parts(at)]
        return found

    def left(self, after: int | None = None) -> Iterator[Unit]:
        """Units that are to be divided, in the order of the tree, from the one after a unit on."""
        order = list(self.tree.walk())
        place = [unit.id for unit in order].index(self.tree.root.id if after is None else after) + 1
        for unit in [*order[place:], *order[:place]]:
            has_parts = bool(self.nodes[unit.id].children) or self.is_region(unit.id)
            if unit.state != "done" and unit.id not in self.stopped and has_parts:
                yield unit

    def deepest(self, x: int, y: int) -> Unit:
        """The deepest unit at a pixel; of those that overlap the later one."""
        row, column = y, x
        unit = self.tree.root
        while True:
            inside = [u for u in self.tree.parts(unit.id) if runs.mask_of(u.mask)[row, column]]
            if not inside:
                return unit
            unit = inside[-1]


def event_of(answers: Sequence[Answer]) -> dict[str, Any]:
    """Fields of an event of the kind `FOUND`."""
    return {
        "answers": [
            {
                "what": one.what, "unit": one.unit, "names": [*one.names], "gone": [*one.gone],
                "units": [trees.unit_item(unit) for unit in one.units],
                "masks": [{"id": number, "mask": mask} for number, mask in one.masks.items()],
            }
            for one in answers
        ]
    }  # fmt: skip


def annotated(
    events: Sequence[Event], kb: KnowledgeBase, image: str, size: tuple[int, int], name: str
) -> Annotated:
    """A picture of its standing events.

    Args:
        events: In their order.
        kb: Knowledge base of now.
        image: Name of the picture.
        size: Its height and width.
        name: File of the knowledge base.

    Raises:
        ValueError: An event is not what the page writes.
    """
    found = _Folded(trees.begun(image, size, kb, name))
    for event in events:
        try:
            found.take(event)
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"event {str(event.get('id'))[:64]!r} of the log lacks {error}, or it is of "
                "another type; restore the log from a copy"
            ) from error
    return found.result(kb)


class _Folded:
    """A tree in the making."""

    def __init__(self, begun: Tree) -> None:
        self.begun = begun
        self.units: dict[int, Unit] = {begun.root.id: begun.root}
        self.known: dict[int, frozenset[str]] = {}
        self.absent: dict[int, frozenset[str]] = {}
        self.wrong: dict[int, tuple[Unit, ...]] = {}
        self.told: dict[int, bool] = {}
        self.stopped: dict[int, bool] = {}
        self.last = begun.root.id

    def take(self, event: Event) -> None:
        kind = event["kind"]
        if kind == FOUND:
            for item in event["answers"]:
                self._answer(item)
            return
        number = event["unit"]
        if number not in self.units:  # it was taken back
            return
        if kind == WRONG:
            self._wrong(self.units[number])
        elif kind == ABSENT:
            names = frozenset([event["name"]])
            for part in self._parts(number):
                if self.units[part].name in names:
                    self._drop(part)
            self.absent[number] = self.absent.get(number, frozenset()) | names
            self.known[number] = self.known.get(number, frozenset()) | names
        elif kind == FINISH:
            for one in [number, *self._below(number)]:
                if one == number or not (self.known.get(one) or self._parts(one)):
                    self.stopped[one] = True
            if event["told"]:
                self.told[number] = True
            self.known[number] = self.known.get(number, frozenset()) | frozenset(event["names"])
        else:
            raise ValueError(f"kind {kind!r}")

    def _answer(self, item: Mapping[str, Any]) -> None:
        at, names = item["unit"], frozenset(item["names"])
        if at not in self.units:
            return
        for number in item["gone"]:
            self._drop(number)
        self.stopped.pop(at, None)  # someone goes on here
        for one in item["masks"]:
            if one["id"] in self.units:
                mask = runs.checked(one["mask"], self.begun.size)
                self.units[one["id"]] = replace(self.units[one["id"]], mask=mask)
        for one in item["units"]:
            unit = trees.unit_of(one, self.begun.size)
            if unit.parent != at:
                raise ValueError(f"unit {unit.id} is part of {unit.parent}, not of {at}")
            self._forget(unit.id)
            self.units[unit.id] = unit
            self.last = max(self.last, unit.id)
        if item["what"] == "parts":
            self.known[at] = self.known.get(at, frozenset()) | names
            self.absent[at] = self.absent.get(at, frozenset()) - names
            left = tuple(unit for unit in self.wrong.get(at, ()) if unit.name not in names)
            self.wrong[at] = left
        elif item["what"] == "objects":
            self.told[at] = True

    def _wrong(self, unit: Unit) -> None:
        """Take a unit out; of its concept nothing is known any more."""
        above = unit.parent
        if above is None:
            return
        self._drop(unit.id)
        self.wrong[above] = (*self.wrong.get(above, ()), unit)
        self.known[above] = self.known.get(above, frozenset()) - {unit.name}
        self.told.pop(above, None)
        self.stopped.pop(above, None)

    def _drop(self, number: int) -> None:
        for at in [number, *self._below(number)]:
            self.units.pop(at, None)
            self._forget(at)

    def _parts(self, number: int) -> list[int]:
        return [unit.id for unit in self.units.values() if unit.parent == number]

    def _below(self, number: int) -> list[int]:
        found = self._parts(number)
        for at in found:  # which grows
            found += self._parts(at)
        return found

    def _forget(self, number: int) -> None:
        records: tuple[dict[int, Any], ...]
        records = (self.known, self.absent, self.wrong, self.told, self.stopped)
        for one in records:
            one.pop(number, None)

    def result(self, kb: KnowledgeBase) -> Annotated:
        """What hangs on the root and is of concepts that there are."""
        below: dict[int | None, list[Unit]] = {}
        for unit in self.units.values():
            below.setdefault(unit.parent, []).append(unit)
        nodes = {self.begun.root.id: kb.root}
        level = [self.begun.root]
        while level:
            unit = level.pop()
            for part in below.get(unit.id, ()):
                node = _node_below(kb, nodes[unit.id], unit, part)
                if node is not None:
                    nodes[part.id] = node
                    level.append(part)
        kept = tuple(unit for unit in self.units.values() if unit.id in nodes)
        found = Annotated(
            replace(self.begun, units=kept), nodes, self.known, self.absent, self.wrong,
            frozenset(self.told), frozenset(self.stopped), self.last,
        )  # fmt: skip
        states = [replace(unit, state=state_of(found, unit.id, kb)) for unit in kept]
        return replace(found, tree=replace(found.tree, units=tuple(states)))


def _node_below(kb: KnowledgeBase, node: Node, unit: Unit, part: Unit) -> Node | None:
    if part.name == unit.name:  # an object of a region
        return node
    return next((child for child in kb.children(node.id) if child.name == part.name), None)


def state_of(found: Annotated, number: int, kb: KnowledgeBase) -> State:
    """How far a unit is divided.

    done: of every concept below its own it is known where it is or that it is not there, because a
    request asked for it or a person said so; of a region, all objects are there. open: some of it
    is known. not-annotated: nothing is. So a concept that was asked for and not found is known, and
    one that is added to the knowledge base later opens the unit again.
    """
    if found.is_region(number):
        is_done = number in found.told
    else:
        names = {node.name for node in found.concepts(number, kb)}
        is_done = names <= found.known.get(number, frozenset())
        if not names and number not in found.stopped:
            is_done = False
    if is_done:
        return "done"
    return "open" if found.is_begun(number) else "not-annotated"
