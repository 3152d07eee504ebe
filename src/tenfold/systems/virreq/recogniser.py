"""Trained networks as what answers requests: a picture is encoded once, and asked from then on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import count

import numpy as np
import torch
from jaxtyping import Bool, UInt8

from tenfold.data.images.scene_views import channels_first
from tenfold.nn.condinst import CondInst, Encoded
from tenfold.nn.fcos import HeadOutputs
from tenfold.structures import Instances

from .groups import concepts, keys
from .knowledge import KnowledgeBase, Node
from .model import Networks, normalised
from .probing import probed
from .requests import Divided, Object
from .text import Encoder, Prompt, space_of, vectors_of

Picture = UInt8[np.ndarray, "height width 3"]


class TrainedRecogniser:
    """Networks with the knowledge base by which they were trained, to which concepts can be added.

    Example:
        picture = Recognition(recogniser.open(image), recogniser.kb)
        wheels = [unit for unit in picture.run(2).units if unit.name == "wheel"]
    """

    def __init__(self, networks: Networks, kb: KnowledgeBase, objects: bool = True) -> None:
        """Without `objects` regions are never told apart."""
        self.networks, self.kb, self.objects = networks.eval(), kb, objects
        # an id and its words: a concept of the same id that got a synonym has another vector
        self._keys = {(number, kb.node(number).texts): key for number, key in keys(kb).items()}

    def open(self, image: Picture) -> OpenedPicture:
        """Encode a picture."""
        return OpenedPicture(self, image)

    def key(self, node: Node) -> str:
        """A node's name in the table of texts; ValueError if the networks do not know it."""
        if (node.id, node.texts) not in self._keys:
            raise ValueError(f"{node.name!r} ({node.id}) has no text in this run; add it first")
        return self._keys[node.id, node.texts]

    def add(
        self, name: str, parent: int, encoder: Encoder, prompt: Prompt, centred: bool = False,
        synonyms: Sequence[str] = (),
    ) -> Node:  # fmt: skip
        """A new concept below a node, which can be asked for at once.

        Args:
            name: As people say it.
            parent: Id of the node.
            encoder: Of the text space that the network has.
            prompt: As the network's texts were made.
            centred: As the network's texts were made.
            synonyms: Other names.

        Raises:
            ValueError: The parent has such a child, the encoder does not know the name, or its
                vectors are of another space than the network's.
        """
        self.adopt(self.kb.add(name, parent, synonyms), encoder, prompt, centred)
        return self.kb.nodes[-1]

    def unknown(self, kb: KnowledgeBase) -> list[Node]:
        """Concepts of a knowledge base that have no text in this run, or other words than there."""
        return [n for n in kb.nodes if n.id != kb.root.id and (n.id, n.texts) not in self._keys]

    def adopt(
        self, kb: KnowledgeBase, encoder: Encoder, prompt: Prompt, centred: bool = False
    ) -> None:
        """Take a knowledge base that grew: what is new in it can be asked for at once.

        Raises:
            ValueError: The encoder does not know the words of a concept, or its vectors are of
                another space than the network's; then nothing is taken.
        """
        new = {node.id: node for node in self.unknown(kb)}
        every = [c for c, number in zip(concepts(kb), keys(kb), strict=True) if number in new]
        vectors, _ = vectors_of(every, encoder, prompt, centred)
        texts = self.networks.divide.texts
        for node, vector in zip(new.values(), vectors, strict=True):
            key = next(k for k in _names(node) if k not in texts.names)
            texts.add(key, vector, space_of(encoder, prompt, centred))
            self._keys[node.id, node.texts] = key
        self.kb = kb


def _names(node: Node) -> Iterator[str]:
    """Names for a node in the table of texts, the plainest first."""
    yield node.name
    yield f"{node.name} ({node.id})"
    yield from (f"{node.name} ({node.id}.{n})" for n in count(1))


class OpenedPicture:
    """A picture, with all of it that is alike for all requests."""

    def __init__(self, recogniser: TrainedRecogniser, image: Picture) -> None:
        self.recogniser, self.image = recogniser, image
        self.size = (image.shape[0], image.shape[1])
        divide = recogniser.networks.divide
        self.encoded = divide.encode(normalised(channels_first(image), divide))

    def divide(
        self, whole: Node, parts: Sequence[Node], unit: Bool[np.ndarray, "height width"]
    ) -> Divided:
        """The pixels of a unit among these concepts and others."""
        divide = self.recogniser.networks.divide
        vectors = divide.texts.rows_of([self.recogniser.key(part) for part in parts])
        found = divide.answer(self.encoded, vectors, torch.from_numpy(np.ascontiguousarray(unit)))
        return Divided(found.labels.numpy(), found.scores.numpy().clip(0, 1))

    def probe(self, x: int, y: int, node: Node) -> Object:
        """The object of a class at a pixel; ValueError if the run knows no objects of it."""
        things = self.recogniser.networks.things
        if node.id not in things:
            known = ", ".join(self.recogniser.kb.node(number).name for number in things[:8])
            raise ValueError(
                f"this run knows no objects of {node.name!r}, but of {known or 'none'}"
            )
        found = probed(*self._objects, things.index(node.id), (x, y))
        return Object(found.mask.numpy(), found.score, found.confident)

    def objects(self, node: Node) -> list[Object]:
        """All objects of a class, best first; none if the run tells none apart."""
        networks = self.recogniser.networks
        known = networks.separate is not None and node.id in networks.things
        if not known or not self.recogniser.objects:
            return []
        found = self._instances
        assert found.masks is not None and found.scores is not None
        rows = np.flatnonzero(found.labels == networks.things.index(node.id))
        return [Object(found.masks[row], float(found.scores[row])) for row in rows]

    @cached_property
    def _objects(self) -> tuple[CondInst, Encoded, HeadOutputs]:
        separate = self.recogniser.networks.separate
        if separate is None:
            raise ValueError(
                "this run has no network of objects; train one (--separate.network small)"
            )
        with torch.no_grad():
            encoded = separate.encode(channels_first(self.image)[None].float())
            return separate, encoded, separate.head(encoded)

    @cached_property
    def _instances(self) -> Instances:
        separate, encoded, outputs = self._objects
        return separate.detect(encoded, outputs=outputs)[0]
