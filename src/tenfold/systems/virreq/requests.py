"""Recognition by request (paper, sec. 3): a picture is opened once, and asked as long as one likes.

A request of Type I divides a unit into the concepts that the knowledge base has below it, one of
Type II takes the object at a probing pixel out of a region of a countable concept. What costs much
is done when the picture is opened; a request costs a head.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, UInt8

from tenfold.data.images import runs
from tenfold.data.images.scene_views import channels_first
from tenfold.files import misfit, parse_json
from tenfold.nn.condinst import CondInst, Encoded
from tenfold.nn.fcos import HeadOutputs
from tenfold.structures import Tree, Unit

from . import trees
from .groups import concepts, keys
from .knowledge import KnowledgeBase, Node
from .model import Networks, normalised
from .probing import probed
from .text import Encoder, Prompt, vectors_of

Kind = Literal["semantic", "instance"]
Picture = UInt8[np.ndarray, "height width 3"]
REQUEST = {"unit": int, "kind": str, "names": [str], "probe": [int]}
MOST_BYTES = 2**24
"""Of a file of requests."""
KEPT = 0.5
"""Least share of an object that lies in the region of its class: regions decide otherwise."""


class Recogniser:
    """Networks with a knowledge base, to both of which concepts can be added.

    Example:
        opened = recogniser.open(picture)
        opened.run(depth=2)
        wheels = [unit for unit in opened.tree.units if unit.name == "wheel"]
    """

    def __init__(self, networks: Networks, kb: KnowledgeBase, name: str = "") -> None:
        """`name` is the file of the knowledge base, by which trees say of which they are."""
        self.networks, self.kb, self.name = networks.eval(), kb, name
        self._keys = keys(kb)

    def add(
        self, name: str, parent: int, encoder: Encoder, prompt: Prompt, centred: bool = False,
        synonyms: Sequence[str] = (), space: str = "",
    ) -> Node:  # fmt: skip
        """A new concept below a node, which can be asked for at once.

        Args:
            name: As people say it.
            parent: Id of the node.
            encoder: Of the text space that the network has.
            prompt: As the network's texts were made.
            centred: As the network's texts were made.
            synonyms: Other names.
            space: Name of the space that these make.

        Raises:
            ValueError: The parent has such a child, the encoder does not know the name, or its
                vectors are of another space.
        """
        grown = self.kb.add(name, parent, synonyms)
        node = grown.nodes[-1]
        concept = next(c for c, n in zip(concepts(grown), list(keys(grown)), strict=True)
                       if n == node.id)  # fmt: skip
        vectors, _ = vectors_of([concept], encoder, prompt, centred)
        texts = self.networks.divide.texts
        key = concept.key if concept.key not in texts.names else f"{name} ({node.id})"
        texts.add(key, vectors[0], space)
        self.kb, self._keys = grown, {**self._keys, node.id: key}
        return node

    def key(self, node: Node) -> str:
        """A node's name in the table of texts."""
        return self._keys[node.id]

    def open(self, picture: Picture, name: str = "") -> Opened:
        """Encode a picture once, for any number of requests."""
        return Opened(self, picture, name)


class Opened:
    """A picture, what the networks made of it, and the tree of what was asked so far."""

    def __init__(self, recogniser: Recogniser, picture: Picture, name: str = "") -> None:
        self.recogniser, self.picture = recogniser, picture
        size = (picture.shape[0], picture.shape[1])
        self.tree = trees.begun(name, size, recogniser.kb, recogniser.name)
        self.encoded = recogniser.networks.divide.encode(normalised(channels_first(picture)))

    @cached_property
    def objects(self) -> tuple[CondInst, Encoded, HeadOutputs]:
        """The network of objects, with all of it that is alike for all probes.

        Raises:
            ValueError: The run has none.
        """
        separate = self.recogniser.networks.separate
        if separate is None:
            raise ValueError(
                "this run has no network of objects; train one (--separate.network small)"
            )
        with torch.no_grad():
            encoded = separate.encode(channels_first(self.picture)[None].float())
            return separate, encoded, separate.head(encoded)

    def unit(self, number: int) -> Unit:
        """A unit of the tree; ValueError with those that are there."""
        if number not in self.tree.by_id:
            have = ", ".join(f"{u.id} ({u.name})" for u in self.tree.units[:8])
            raise ValueError(f"there is no unit {number}; the tree has {have}")
        return self.tree.by_id[number]

    def node(self, unit: Unit) -> Node:
        """The knowledge base's node of a unit."""
        return self.recogniser.kb.node_of(self.tree, unit)

    def mask(self, unit: Unit) -> Bool[np.ndarray, "height width"]:
        """Pixels of a unit."""
        return runs.mask_of(unit.mask)

    # --- requests --------------------------------------------------------------------------------

    def ask(
        self, unit: int = 0, kind: Kind = "semantic", names: Sequence[str] | None = None,
        probe: tuple[int, int] | None = None,
    ) -> list[Unit]:  # fmt: skip
        """One request; returns the new units.

        Args:
            unit: Number of the unit in the tree; 0 is the whole picture.
            kind: semantic: into concepts (Type I); instance: the object at the probe (Type II).
            names: Concepts that are asked for, children of the unit's; by default all of them.
            probe: x and y of a pixel of the unit.

        Raises:
            ValueError: There is no such unit or concept, or the probe lies outside of the unit.
        """
        if kind == "semantic":
            return self._divided(self.unit(unit), names)
        if probe is None:
            raise ValueError(f"a request for an instance in unit {unit} needs a probe (x, y)")
        return self._probed(self.unit(unit), probe)

    def _divided(self, unit: Unit, names: Sequence[str] | None) -> list[Unit]:
        recogniser, node = self.recogniser, self.node(unit)
        children = recogniser.kb.children(node.id)
        if names is not None:
            children = [recogniser.kb.child(node.id, name) for name in names]
        if not children:
            raise ValueError(f"{node.name!r} has no parts in the knowledge base; add some")
        divide = recogniser.networks.divide
        vectors = divide.texts.rows_of([recogniser.key(child) for child in children])
        found = divide.answer(self.encoded, vectors, torch.from_numpy(self.mask(unit)))
        codes = runs.codes_of(found.labels.numpy().astype(np.int64))
        parts = [
            (child.name, codes[number], min(1.0, max(0.0, float(score))))
            for number, (child, score) in enumerate(zip(children, found.scores, strict=True), 1)
            if number in codes
        ]
        for part in self.tree.parts(unit.id):  # an answer replaces the one before
            if part.source == "type1" and part.name in {child.name for child in children}:
                self.tree = trees.without(self.tree, part.id)
        return self._grown(unit, parts, "type1", "done" if names is None else "open")

    def _probed(self, unit: Unit, probe: tuple[int, int]) -> list[Unit]:
        (x, y), (height, width), node = probe, self.tree.size, self.node(unit)
        region = self.mask(unit)
        if not (0 <= x < width and 0 <= y < height and region[y, x]):
            raise ValueError(
                f"the probe ({x}, {y}) is not in unit {unit.id} ({unit.name}); give x and y of one "
                "of its pixels"
            )
        label = self._label(node)
        separate, encoded, outputs = self.objects
        found = probed(separate, encoded, outputs, label, probe)
        mask = found.mask.numpy() & region
        code = runs.code_of(mask)
        return self._grown(unit, [(unit.name, code, found.score)], "type2", "open")

    def _label(self, node: Node) -> int:
        things = self.recogniser.networks.things
        if node.id not in things:
            known = ", ".join(self.recogniser.kb.node(number).name for number in things[:8])
            raise ValueError(
                f"{node.name!r} is not countable; the network knows objects of {known}"
            )
        return things.index(node.id)

    def _grown(
        self, unit: Unit, parts: list[tuple[str, Any, float]], source: Any, state: Any
    ) -> list[Unit]:
        before = set(self.tree.by_id)
        self.tree = trees.with_parts(self.tree, unit.id, parts, source, state)
        return [one for one in self.tree.units if one.id not in before]

    # --- all of them -----------------------------------------------------------------------------

    def run(self, depth: int, objects: bool = True) -> Tree:
        """Ask from the whole picture down: concepts, objects of the countable ones, their parts.

        Args:
            depth: Levels of concepts.
            objects: Whether regions of countable concepts are separated.
        """
        if depth < 1:
            raise ValueError(f"depth is {depth}; 1 at least asks what the picture is of")
        waiting = [(self.tree.root.id, 1)]
        while waiting:
            number, level = waiting.pop(0)
            unit = self.unit(number)
            if not self.recogniser.kb.children(self.node(unit).id):
                self.tree = trees.with_state(self.tree, number, "done")
                continue
            for part in self._divided(unit, None):
                separated = self._separated(part) if objects else []
                if level < depth:
                    waiting += [(one.id, level + 1) for one in separated or [part]]
        return self.tree

    def _separated(self, region: Unit) -> list[Unit]:
        """The objects of a region, best first; no pixel is of two, and what is stuff has none."""
        node, networks = self.node(region), self.recogniser.networks
        if networks.separate is None or node.id not in networks.things:
            return []
        left, parts = self.mask(region).copy(), []
        for mask, score in self._detected(networks.things.index(node.id)):
            own = mask & left
            if own.sum() >= KEPT * mask.sum() > 0:
                parts.append((region.name, runs.code_of(own), score))
                left &= ~own
        return self._grown(region, parts, "type2", "done") if parts else []

    def _detected(self, label: int) -> list[tuple[Bool[np.ndarray, "height width"], float]]:
        found = self._instances
        rows = np.flatnonzero(found.labels == label)
        assert found.masks is not None and found.scores is not None
        return [(found.masks[row], float(found.scores[row])) for row in rows]

    @cached_property
    def _instances(self) -> Any:
        separate, encoded, outputs = self.objects
        return separate.detect(encoded, outputs=outputs)[0]


# --- requests in files ---------------------------------------------------------------------------


def read_requests(file: Path) -> list[dict[str, Any]]:
    """Requests of a JSON file: a list of {"unit", "kind", "names" | "probe"}, done in order.

    Raises:
        ValueError: It is no such list; the error names file and request.
    """
    if not file.is_file():
        raise FileNotFoundError(f"{file} is not there, or is not a file")
    if file.stat().st_size > MOST_BYTES:
        raise ValueError(f"{file} has more than {MOST_BYTES} bytes")
    try:
        content = parse_json(file.read_text(encoding="utf-8"))
        problem = misfit(content, [REQUEST], "")
        for row, item in enumerate([] if problem else content):
            if item.get("kind", "semantic") not in ("semantic", "instance"):
                problem = f"[{row}].kind is {item['kind'][:40]!r}; semantic or instance"
            elif "probe" in item and len(item["probe"]) != 2:
                problem = f"[{row}].probe is x and y, got {item['probe'][:4]}"
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error
    if problem:
        raise ValueError(f"{file}: {problem}; a request is of {', '.join(REQUEST)}")
    return list(content)


def follow(opened: Opened, requests: Sequence[dict[str, Any]]) -> Tree:
    """Do requests in order; an error names the request."""
    for row, item in enumerate(requests):
        probe = item.get("probe")
        try:
            opened.ask(
                item.get("unit", 0), item.get("kind", "semantic"), item.get("names"),
                None if probe is None else (probe[0], probe[1]),
            )  # fmt: skip
        except ValueError as error:
            raise ValueError(f"request {row}: {error}") from error
    return opened.tree
