"""Knowledge base: what may be asked for, and into which parts it is divided (paper, sec. 3).

Nodes form a directed graph without cycles: one part word may serve several wholes. It is read from
and written to JSON, {"nodes": [{"id", "name", "synonyms", "thing", "children", "codes"}]}.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import Any

from tenfold.files import misfit, parse_json, require_bounded, write_text
from tenfold.structures import DEEPEST, Tree, Unit

OTHERS = "others"
"""Name of what is none of the parts; no node has it."""
MOST_NODES = 20_000
MOST_BYTES = 64 * 2**20
LONGEST = 200
"""Characters of a name."""
NODE = {
    "id": int, "name": str, "synonyms": [str], "thing": bool, "children": [int], "codes": [int],
}  # fmt: skip


@dataclass(frozen=True)
class Node:
    """A concept."""

    id: int
    name: str
    synonyms: tuple[str, ...] = ()
    """Other names; a network sees the mean of all."""
    thing: bool = False
    """True if it is countable, so that its region is divided into instances."""
    children: tuple[int, ...] = ()
    """Concepts into which a region of it is divided, in the order in which they are asked for."""
    codes: tuple[int, ...] = ()
    """Numbers by which a set's label maps store it."""

    @property
    def texts(self) -> tuple[str, ...]:
        """The name and the synonyms."""
        return self.name, *self.synonyms


@dataclass(frozen=True)
class KnowledgeBase:
    """Concepts below one root, which is the whole picture.

    What is none is a ValueError that names the node: a cycle, a child that is not there, two roots,
    two children of one name. Changes give a new one.

    Example:
        kb = kb.add("mirror", kb.at(("car",)).id)
    """

    nodes: tuple[Node, ...]

    def __post_init__(self) -> None:
        if not 1 <= len(self.nodes) <= MOST_NODES:
            raise ValueError(f"a knowledge base has 1 to {MOST_NODES} nodes, got {len(self.nodes)}")
        twice = [key for key, n in Counter(node.id for node in self.nodes).items() if n > 1]
        if twice:
            raise ValueError(f"two nodes of the knowledge base have the id {twice[0]}")
        for node in self.nodes:
            self._check_node(node)
        roots = [node.name for node in self.nodes if not self.parents(node.id)]
        cycle = self._cycle()
        if cycle:
            raise ValueError(f"the knowledge base has a cycle: {' -> '.join(cycle)}")
        if len(roots) != 1:
            raise ValueError(
                f"the knowledge base has {len(roots)} nodes that are in nothing "
                f"({', '.join(map(repr, roots[:5]))}); one, the whole picture, is allowed"
            )
        if self.depth >= DEEPEST:
            raise ValueError(f"the knowledge base is deeper than {DEEPEST} levels")

    def _check_node(self, node: Node) -> None:
        for text in node.texts:
            if not text.strip() or len(text) > LONGEST or not text.isprintable():
                raise ValueError(
                    f"node {node.id} of the knowledge base has the name {text[:40]!r}; a name has "
                    f"1 to {LONGEST} printable characters"
                )
            if _key(text) == OTHERS:
                raise ValueError(f"node {node.id} is named {OTHERS!r}, which is what is left over")
        named: dict[str, Node] = {}
        for number in node.children:
            if number not in self.by_id:
                raise ValueError(
                    f"node {node.id} ({node.name}) of the knowledge base has the child {number}, "
                    "which is not there"
                )
            child = self.by_id[number]
            for text in {_key(text) for text in child.texts}:
                other = named.setdefault(text, child)
                if other is not child or node.children.count(number) > 1:
                    raise ValueError(
                        f"two children of {node.name!r} in the knowledge base are named {text!r} "
                        f"({other.id} and {child.id}); give one another name"
                    )

    def _cycle(self) -> list[str]:
        """Names along a cycle; none in a graph without."""
        waiting = {node.id: len(self.parents(node.id)) for node in self.nodes}
        ready = [number for number, count in waiting.items() if not count]
        while ready:
            for child in self.by_id[ready.pop()].children:
                waiting[child] -= 1
                if not waiting[child]:
                    ready.append(child)
        left = {number for number, count in waiting.items() if count}
        if not left:
            return []
        at, seen = min(left), []
        while at not in seen:  # against the arrows, as each of these has a parent among them
            seen.append(at)
            at = next(number for number in self.parents(at) if number in left)
        return [self.by_id[number].name for number in [at, *reversed(seen[seen.index(at) :])]]

    # --- looking up ------------------------------------------------------------------------------

    @cached_property
    def by_id(self) -> dict[int, Node]:
        """Id -> node."""
        return {node.id: node for node in self.nodes}

    @cached_property
    def _above(self) -> dict[int, list[int]]:
        found: dict[int, list[int]] = {}
        for node in self.nodes:
            for child in dict.fromkeys(node.children):
                found.setdefault(child, []).append(node.id)
        return found

    @cached_property
    def root(self) -> Node:
        """The whole picture."""
        return next(node for node in self.nodes if not self.parents(node.id))

    @cached_property
    def depth(self) -> int:
        """Levels below the root."""
        order: dict[int, int] = {}
        level, depth = {self.root.id}, 0
        while level:
            order |= dict.fromkeys(level, depth)
            level = {child for number in level for child in self.by_id[number].children}
            depth += 1
        return max(order.values())

    def parents(self, number: int) -> list[int]:
        """Ids of the nodes of which one is a child."""
        return self._above.get(number, [])

    def node(self, number: int) -> Node:
        """The node of an id; ValueError if there is none."""
        if number not in self.by_id:
            raise ValueError(
                f"the knowledge base has no node {number}; ids are {_some(self.by_id)}"
            )
        return self.by_id[number]

    def children(self, number: int) -> list[Node]:
        """The concepts into which one is divided, in order."""
        return [self.by_id[child] for child in self.node(number).children]

    def child(self, number: int, name: str) -> Node:
        """A child by its name or a synonym; ValueError with the nearest names if there is none."""
        known = {_key(text): child for child in self.children(number) for text in child.texts}
        if _key(name) in known:
            return known[_key(name)]
        whole = self.node(number).name
        near = get_close_matches(_key(name), known, n=3, cutoff=0.6)
        elsewhere = [
            " and ".join(self.by_id[above].name for above in self.parents(node.id))
            for node in self.nodes
            if _key(name) in map(_key, node.texts) and self.parents(node.id)
        ]
        hint = f"did you mean {' or '.join(map(repr, near))}?" if near else ""
        hint = hint or (f"it is a part of {elsewhere[0]}" if elsewhere else "")
        hint = hint or f"its parts are {_some([c.name for c in self.children(number)]) or 'none'}"
        raise ValueError(f"{whole!r} has no part {name!r} in the knowledge base; {hint}")

    def at(self, path: Sequence[str]) -> Node:
        """The node at the end of a path of names from below the root on."""
        found = self.root
        for name in path:
            found = self.child(found.id, name)
        return found

    def node_of(self, tree: Tree, unit: Unit) -> Node:
        """The node of a unit, by the names of the units above it.

        A unit of its whole's own class is one of the objects of a region, and has the same node.
        """
        chain = [unit]
        while chain[-1].parent is not None:
            chain.append(tree.by_id[chain[-1].parent])
        path = [
            one.name for one, above in zip(chain, chain[1:], strict=False) if one.name != above.name
        ]
        return self.at(path[::-1])

    # --- changing --------------------------------------------------------------------------------

    def add(
        self, name: str, parent: int, synonyms: Iterable[str] = (), thing: bool = False
    ) -> KnowledgeBase:
        """A new concept, as the last child of a node; all other ids stay."""
        number = max(self.by_id) + 1
        node = Node(number, name, tuple(synonyms), thing)
        whole = self.node(parent)
        grown = replace(whole, children=(*whole.children, number))
        return self._with(grown, node)

    def link(self, child: int, parent: int) -> KnowledgeBase:
        """A concept that is there, as the last child of another node too."""
        whole = self.node(parent)
        return self._with(replace(whole, children=(*whole.children, self.node(child).id)))

    def rename(
        self, number: int, name: str | None = None, synonyms: Iterable[str] | None = None,
        thing: bool | None = None,
    ) -> KnowledgeBase:  # fmt: skip
        """Another name, other synonyms or another countability; None keeps it."""
        node = self.node(number)
        return self._with(
            replace(
                node,
                name=node.name if name is None else name,
                synonyms=node.synonyms if synonyms is None else tuple(synonyms),
                thing=node.thing if thing is None else thing,
            )
        )

    def remove(self, number: int, parent: int | None = None) -> KnowledgeBase:
        """Without a concept below one whole, or below all; what hangs on nothing goes too.

        Raises:
            ValueError: It is the root, or no child of that whole.
        """
        node = self.node(number)
        if number == self.root.id:
            raise ValueError(f"{node.name!r} is the whole picture, which cannot be removed")
        wholes = self.parents(number) if parent is None else [parent]
        left = dict(self.by_id)
        for whole in wholes:
            if number not in self.node(whole).children:
                raise ValueError(f"{node.name!r} ({number}) is no part of {self.node(whole).name}")
            children = tuple(child for child in left[whole].children if child != number)
            left[whole] = replace(left[whole], children=children)
        reached, queue = set(), [self.root.id]
        while queue:
            at = queue.pop()
            if at not in reached:
                reached.add(at)
                queue += left[at].children
        return KnowledgeBase(tuple(left[node.id] for node in self.nodes if node.id in reached))

    def _with(self, *changed: Node) -> KnowledgeBase:
        """With some nodes in place of those of their ids, or behind all."""
        new = {node.id: node for node in changed}
        kept = [new.pop(node.id, node) for node in self.nodes]
        return KnowledgeBase((*kept, *new.values()))

    # --- files -----------------------------------------------------------------------------------

    @property
    def text(self) -> str:
        """The JSON file."""
        lines = [json.dumps(_item(node), ensure_ascii=False) for node in self.nodes]
        return '{"nodes": [\n ' + ",\n ".join(lines) + "\n]}\n"

    @property
    def sha(self) -> str:
        """SHA-256 of its JSON, by which trees say of which they are."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    def write(self, file: Path) -> None:
        """Write the JSON file."""
        write_text(file, self.text)


def read(file: Path) -> KnowledgeBase:
    """Read a JSON file.

    Raises:
        ValueError: It is no knowledge base; the error names file and node.
    """
    require_bounded(file, MOST_BYTES)
    try:
        return of(parse_json(file.read_text(encoding="utf-8")))
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error


def of(content: Any) -> KnowledgeBase:
    """The knowledge base of a parsed JSON file."""
    problem = misfit(content, {"nodes": [NODE]}, "")
    if not problem and "nodes" not in content:
        problem = "it lacks nodes"
    if not problem:
        short = [i for i, item in enumerate(content["nodes"]) if not {"id", "name"} <= item.keys()]
        problem = f"nodes[{short[0]}] lacks id or name" if short else ""
    if problem:
        raise ValueError(f"{problem}; a knowledge base is a list nodes of {', '.join(NODE)}")
    lists = ("synonyms", "children", "codes")
    return KnowledgeBase(
        tuple(
            Node(
                item["id"], item["name"], thing=item.get("thing", False),
                **{name: tuple(item.get(name, ())) for name in lists},
            )
            for item in content["nodes"]
        )
    )  # fmt: skip


def _item(node: Node) -> dict[str, Any]:
    found = {
        "id": node.id, "name": node.name, "synonyms": [*node.synonyms], "thing": node.thing,
        "children": [*node.children],
    }  # fmt: skip
    return found | ({"codes": [*node.codes]} if node.codes else {})


def _key(text: str) -> str:
    """A name as names are compared."""
    return " ".join(text.replace("_", " ").casefold().split())


def _some(items: Iterable[Any]) -> str:
    every = [str(item) for item in items]
    more = f" and {len(every) - 8} more" if len(every) > 8 else ""
    return ", ".join(every[:8]) + more
