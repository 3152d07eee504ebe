"""Photos of painted people, and a network that knows every part by its colour."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scipy import ndimage

from tenfold.systems.virreq.config import PageOptions
from tenfold.systems.virreq.knowledge import KnowledgeBase, Node
from tenfold.systems.virreq.labelling import Labelling
from tenfold.systems.virreq.requests import Divided, Object

TAB, OTHER = "tab-00001", "tab-00002"
SIZE = (96, 128)
COLOURS = {
    "hair": (90, 50, 30), "face": (230, 190, 160), "shirt": (60, 120, 200),
    "pocket": (200, 220, 60), "trousers": (60, 60, 70), "tree": (40, 130, 50),
}  # fmt: skip
WORDS = {
    "person": ("hair", "face", "shirt", "pocket", "trousers"), "head": ("hair", "face"),
    "body": ("shirt", "pocket", "trousers"), "pouch": ("pocket",), "hat": (),
} | {name: (name,) for name in COLOURS}  # fmt: skip
"""Words that the network knows -> parts that they are of."""
PEOPLE = {"a.png": (30, 90), "more/b.png": (60,)}
"""Photo -> middle columns of its people."""
_names = count()


def fresh() -> str:
    return f"event-{next(_names):06}"


def base() -> KnowledgeBase:
    """A person has a head (hair, face) and a body (shirt, trousers); there are trees, too."""
    return KnowledgeBase(
        (
            Node(0, "scene", (), False, (1, 2)),
            Node(1, "person", ("human",), True, (3, 4)),
            Node(2, "tree"),
            Node(3, "head", (), False, (5, 6)),
            Node(4, "body", (), False, (7, 8)),
            Node(5, "hair"), Node(6, "face"), Node(7, "shirt"), Node(8, "trousers"),
        )
    )  # fmt: skip


def draw(folder: Path) -> Path:
    for name, middles in PEOPLE.items():
        picture = np.full((*SIZE, 3), 245, dtype=np.uint8)
        for x in middles:
            for part, (left, top, right, bottom) in {
                "face": (-6, 12, 6, 28), "hair": (-7, 8, 7, 14), "shirt": (-12, 28, 12, 56),
                "trousers": (-10, 56, 10, 86), "pocket": (3, 34, 9, 40),
            }.items():  # fmt: skip
                picture[top:bottom, x + left : x + right] = COLOURS[part]
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(folder / name)
    return folder


class Painted:
    """Answers by colours; `objects` is whether it tells people apart."""

    def __init__(self, objects: bool = True, refusal: str = "") -> None:
        self.tells, self.refusal, self.opened, self.asked = objects, refusal, 0, 0

    def open(self, image: np.ndarray) -> OpenedPainting:
        self.opened += 1
        return OpenedPainting(self, image)

    def unheard(self, words: Sequence[str]) -> list[str]:
        return [word for word in words if word not in WORDS]

    def adopt(self, kb: KnowledgeBase) -> None:
        for node in kb.nodes:
            if node.id != kb.root.id and not any(text in WORDS for text in node.texts):
                raise ValueError(f"no text {node.name!r}: the nearest are hat, hair")


class OpenedPainting:
    def __init__(self, network: Painted, image: np.ndarray) -> None:
        self.network, self.image = network, image
        self.size = (image.shape[0], image.shape[1])

    def _mask(self, node: Node) -> np.ndarray:
        parts = {part for text in node.texts for part in WORDS.get(text, ())}
        found = np.zeros(self.size, dtype=bool)
        for part in parts:
            found |= (self.image == COLOURS[part]).all(-1)
        return found

    def divide(self, whole: Node, parts: Sequence[Node], unit: np.ndarray) -> Divided:
        self.network.asked += 1
        labels = np.zeros(self.size, dtype=np.int16)
        for place, node in enumerate(parts, 1):
            labels[self._mask(node)] = place  # the later of two that both fit
        return Divided(labels, np.full(len(parts), 0.8))

    def objects(self, node: Node) -> list[Object]:
        if not self.network.tells or node.name != "person":
            return []
        numbers, number = ndimage.label(self._mask(node), np.ones((3, 3)))
        return [Object(numbers == n, 0.9 - n / 100) for n in range(1, number + 1)]

    def probe(self, x: int, y: int, node: Node) -> Object:
        every = self.objects(node)
        if not every:
            raise ValueError(f"this run knows no objects of {node.name!r}")
        hits = [one for one in every if one.mask[y, x]]
        return hits[0] if hits else Object(every[0].mask, 0.2, confident=False)


@contextmanager
def pages(folder: Path) -> Iterator[Callable[..., Labelling]]:
    """A function that opens the page in a folder; it closes the one before."""
    if not (folder / "photos").exists():
        draw(folder / "photos")
    every: list[Labelling] = []

    def open_page(network: Any = None, kb: KnowledgeBase | None = None, **more: Any) -> Labelling:
        for page in every:
            page.close()
        network = network or Painted()
        options = PageOptions(**more)
        every.append(Labelling(network, kb or base(), folder / "photos", folder / "out", options))
        return every[-1]

    yield open_page
    for page in every:
        page.close()


def do(page: Labelling, verb: str, **more: Any) -> dict[str, Any]:
    """A command about picture 0 as it is now."""
    image = more.setdefault("image", 0)
    if verb not in ("undo", "synonym"):
        more.setdefault("revision", page.tree(image)["picture"]["revision"])
    return page.commands[verb].run(**{"id": fresh(), "tab": TAB, **more})


def person(page: Labelling) -> int:
    return int(do(page, "click", x=30, y=40)["select"])


def unit(said: dict[str, Any], name: str) -> dict[str, Any]:
    """The last unit of a name that a page shows."""
    return next(u for u in reversed(said["picture"]["units"]) if u["class"] == name)


def concepts(one: dict[str, Any]) -> dict[str, str]:
    return {concept["name"]: concept["is"] for concept in one["concepts"]}


def states(page: Labelling, image: str = "a.png") -> dict[tuple[int, str], str]:
    return {(u.id, u.name): u.state for u in page.annotations.picture(image).tree.units}
