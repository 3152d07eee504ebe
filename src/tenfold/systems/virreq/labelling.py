"""The page of ViRReq: pictures are divided as far as someone asks, and where people stop is kept.

A click takes an object out of its region (a Type-II request), a concept's button divides a unit (a
Type-I request), a new concept is asked for at once; "wrong", "not there" and "finish here" say how
far the annotation of a unit goes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tenfold.data.images.album import Album
from tenfold.web.pages import Call, Media
from tenfold.web.session import Stale, identity

from . import shown
from .annotated import ABSENT, FINISH, FOUND, WRONG, Annotated, Answer
from .annotations import CONCEPT, KNOWLEDGE, SYNONYM, Annotations, grown, name_of
from .config import PageOptions
from .exports import TITLES, exported
from .knowledge import KnowledgeBase
from .looking import Looking, Network

MOST_WORDS = 20
"""Synonyms that are sent at once."""
UNDONE = {
    FOUND: "what was found", WRONG: "that a unit was wrong", ABSENT: "that a concept is not there",
    FINISH: "that a unit was finished", CONCEPT: "a new concept", SYNONYM: "another word",
}  # fmt: skip
"""Kind of an event -> words for its undoing."""


class Labelling:
    """Trees of the pictures of a folder, asked for and judged by people.

    Args:
        network: Answers.
        base: Knowledge base to begin with.
        images: Folder of the photos.
        folder: Where the log is kept, and the knowledge base that grows.
        options: Choices.

    Raises:
        FileNotFoundError: The folder of photos is not there.
        ValueError: The photos, the log or the knowledge base cannot be used.
    """

    page = "virreq"

    def __init__(
        self, network: Network, base: KnowledgeBase, images: Path, folder: Path,
        options: PageOptions,
    ) -> None:  # fmt: skip
        self.album = Album(images, aside=folder)
        self.folder, self.network = folder, network
        self.annotations = Annotations(folder, self.album, base, options.who)
        self._looking = Looking(network, self.album, options.opened)
        try:
            self._looking.adopt(self.annotations.kb)
        except BaseException:
            self.annotations.close()
            raise
        mine: dict[str, Any] = {"id": str, "tab": str, "image": int}
        here: dict[str, Any] = {**mine, "revision": int}
        at: dict[str, Any] = {**here, "unit": int}
        words: dict[str, Any] = {"path": [str], "name": str}
        self.queries: Mapping[str, Call] = {
            "state": Call(self.state),
            "tree": Call(self.tree, {"image": int}),
        }
        self.commands: Mapping[str, Call] = {
            "click": Call(self.click, {**here, "x": int, "y": int}),
            "split": Call(self.split, at),
            "ask": Call(self.ask, {**at, "name": str}),
            "wrong": Call(self.wrong, at),
            "absent": Call(self.absent, {**at, "name": str}),
            "finish": Call(self.finish, at),
            "undo": Call(self.undo, mine),
            "concept": Call(
                self.concept, {**at, **words}, {"synonyms": [str], "thing": bool}
            ),
            "synonym": Call(self.synonym, {**mine, **words}),
        }  # fmt: skip

    def close(self) -> None:
        """Let another process write."""
        self.annotations.close()

    # --- what there is -------------------------------------------------------------------------

    @property
    def kb(self) -> KnowledgeBase:
        """The knowledge base with what was added on the page."""
        return self.annotations.kb

    def state(self) -> dict[str, Any]:
        """What a page needs once."""
        begun = (self.album.number(name) for name in self.annotations.begun())
        return {
            "folder": self.album.folder.name,
            "images": list(self.album.names),
            "first": next((number for number in begun if number is not None), 0),
            "refusal": self.network.refusal,
            "knowledge": self._knowledge(),
            "progress": self.progress(),
            "forms": [{"name": form, "title": title} for form, title in TITLES.items()],
        }

    def tree(self, image: int) -> dict[str, Any]:
        """A picture's units, with all masks."""
        name = self._name(image)
        now = self.annotations.picture(name)
        picture = shown.shown(now, self.kb, self.annotations.revision(name), image)
        return {"picture": picture, "masks": shown.masks(now.tree.units)}

    def image(self, index: int) -> Media:
        """Return a picture for a browser."""
        content, kind = self.album.encoded(index)
        return Media(content, kind)

    def export(self, form: str) -> Media:
        """Return all trees in a form."""
        trees = [self.annotations.picture(name).tree for name in self.annotations.begun()]
        numbers = [self.album.number(tree.image) for tree in trees]
        return exported(trees, numbers, self.kb, form)

    def progress(self) -> dict[str, Any]:
        """What was done so far."""
        states: Counter[str] = Counter()
        finished = 0
        every = self.annotations.begun()
        for name in every:
            now = self.annotations.picture(name)
            below = [unit for unit in now.tree.units if unit.parent is not None]
            states.update(
                unit.state for unit in below
                if now.nodes[unit.id].children or now.is_region(unit.id)
            )  # fmt: skip
            states["units"] += len(below)
            finished += next(now.left(), None) is None
        return {
            "pictures": len(self.album), "begun": len(every), "finished": finished,
            "units": states["units"], "done": states["done"], "open": states["open"],
            "untouched": states["not-annotated"],
        }  # fmt: skip

    def _knowledge(self) -> dict[str, Any]:
        nodes = shown.nodes(self.kb, self.annotations.base)
        return {"nodes": nodes, "file": self.annotations.file.name}

    def _name(self, image: int) -> str:
        if not 0 <= image < len(self.album):
            raise LookupError(f"there is no picture {image}; there are {len(self.album)}")
        return self.album.names[image]

    # --- requests ------------------------------------------------------------------------------

    def click(
        self, id: str, tab: str, image: int, revision: int, x: int, y: int
    ) -> dict[str, Any]:  # fmt: skip
        """Show what is at a pixel: the unit there, or the object, taken out of its region.

        A picture that nobody has divided is divided by the first concepts before.
        """
        name, now = self._at(image, revision, id)
        height, width = now.tree.size
        if not (0 <= x < width and 0 <= y < height):
            raise ValueError(f"x {x}, y {y} is outside of the {width} x {height} picture")
        answers: list[Answer] = []
        if id not in self.annotations.session:
            kb, root, then = self.kb, now.tree.root.id, now
            if now.deepest(x, y).id == root and not now.is_begun(root):
                answers.append(self._looking.parts(image, now, kb, root))
                then = self.annotations.with_answers(name, answers)
            region = then.deepest(x, y).id
            if then.is_region(region):
                answers.append(self._looking.object_at(image, then, kb, region, x, y))
            if answers:
                self.annotations.found(id, tab, name, answers, revision)
        unit = self.annotations.picture(name).deepest(x, y)
        words = f"{unit.name} {unit.id}." if unit.parent is not None else self._nothing()
        return self._after(image, now, unit.id, words + _doubt(answers))

    def split(self, id: str, tab: str, image: int, revision: int, unit: int) -> dict[str, Any]:
        """Divide a unit by all concepts below its own, or tell a region apart into objects."""
        name, now = self._at(image, revision, id, unit)
        answer = None
        if id not in self.annotations.session:
            if now.is_region(unit):
                answer = self._looking.objects(image, now, self.kb, unit)
            else:
                answer = self._looking.parts(image, now, self.kb, unit)
            if answer.what == "parts" and not answer.names:
                raise ValueError(
                    "there is nothing left to ask for: parts that are here were gone on with, the "
                    "others were ruled out; a concept's own button asks for it again"
                )
            self.annotations.found(id, tab, name, [answer], revision)
        return self._after(image, now, unit, _found([answer] if answer else []))

    def ask(
        self, id: str, tab: str, image: int, revision: int, unit: int, name: str
    ) -> dict[str, Any]:
        """Ask for one concept in a unit."""
        picture, now = self._at(image, revision, id, unit)
        self._require_whole(now, unit)
        answers = []
        if id not in self.annotations.session:
            answers.append(self._looking.parts(image, now, self.kb, unit, [name]))
            self.annotations.found(id, tab, picture, answers, revision)
        return self._after(image, now, unit, _found(answers))

    def concept(
        self, id: str, tab: str, image: int, revision: int, unit: int, path: list[str], name: str,
        synonyms: Sequence[str] = (), thing: bool = False,
    ) -> dict[str, Any]:  # fmt: skip
        """Add a concept, and ask for it in a unit that it can be a part of."""
        picture, now = self._at(image, revision, id, unit)
        words = [_clean(word) for word in synonyms if word.strip()]
        if len(words) > MOST_WORDS:
            raise ValueError(f"at most {MOST_WORDS} other words are taken, got {len(words)}")
        own = _clean(name)
        said = {"kind": CONCEPT, "path": path, "name": own, "synonyms": words, "thing": thing}
        self._grow(id, tab, said)
        now = self.annotations.picture(picture)
        node = now.nodes.get(unit)
        is_below = node == self.kb.at(path) and not now.is_region(unit)
        answers = []
        again = f"{id[:60]}-ask"  # a killed server that is asked once more goes on here
        if is_below and again not in self.annotations.session:
            answers.append(self._looking.parts(image, now, self.kb, unit, [own]))
            self.annotations.found(again, tab, picture, answers, revision)
        words_of = _found(answers) if answers else "It is asked for where it can be a part."
        after = self._after(
            image, now, unit, f"{own} was added. {words_of}{self._mute([own, *words])}"
        )
        return after | {"knowledge": self._knowledge()}

    def synonym(self, id: str, tab: str, image: int, path: list[str], name: str) -> dict[str, Any]:
        """Add another word of a concept; it is asked for by the mean of all its words."""
        now = self.annotations.picture(self._name(image))
        self._grow(id, tab, {"kind": SYNONYM, "path": path, "name": _clean(name)})
        words = f"{path[-1]} is also called {_clean(name)} now.{self._mute([_clean(name)])}"
        return self._after(image, now, None, words) | {"knowledge": self._knowledge()}

    def _grow(self, id: str, tab: str, said: dict[str, Any]) -> None:
        """Keep a change of the knowledge base that the network can follow."""
        if identity(id, "id") in self.annotations.session:
            return
        if self.network.refusal:
            raise ValueError(self.network.refusal)
        with self.annotations.session.lock:
            self._looking.adopt(grown(self.kb, said))
            self.annotations.add(id, tab, said)

    # --- what people say -----------------------------------------------------------------------

    def wrong(self, id: str, tab: str, image: int, revision: int, unit: int) -> dict[str, Any]:
        """Take a unit out that is not what it says."""
        name, now = self._at(image, revision, id, unit)
        if unit == now.tree.root.id:
            raise ValueError("the whole picture is never wrong; choose a unit in it")
        self.annotations.wrong(id, tab, name, unit, revision)
        one = now.tree.by_id.get(unit)
        words = "" if one is None else f"{one.name} {one.id} is taken out, U brings it back."
        above = now.tree.root.id if one is None else one.parent
        return self._after(image, now, above, words)

    def absent(
        self, id: str, tab: str, image: int, revision: int, unit: int, name: str
    ) -> dict[str, Any]:
        """Keep that a concept is not there."""
        picture, now = self._at(image, revision, id, unit)
        self._require_whole(now, unit)
        node = self.kb.child(now.nodes[unit].id, name) if unit in now.nodes else None
        if node is not None:
            self.annotations.absent(id, tab, picture, unit, node.name, revision)
        return self._after(image, now, unit, f"No {name} here.")

    def finish(self, id: str, tab: str, image: int, revision: int, unit: int) -> dict[str, Any]:
        """Keep that a person stops at a unit; choose what is still open."""
        name, now = self._at(image, revision, id, unit)
        self.annotations.finish(id, tab, name, unit, revision)
        then = self.annotations.picture(name)
        one = then.tree.by_id.get(unit, then.tree.root)
        words = {
            "done": f"{one.name} is done: what is not here of its parts is not there.",
            "open": f"{one.name} is still open.",
            "not-annotated": f"{one.name} is finished, its parts are not annotated.",
        }[one.state]
        following = next(then.left(one.id), None)
        words += " Nothing is left in this picture." if following is None else ""
        return self._after(image, now, (following or one).id, words)

    def undo(self, id: str, tab: str, image: int) -> dict[str, Any]:
        """Take back the last thing that was done in this tab."""
        name = self._name(image)
        now = self.annotations.picture(name)
        event = self.annotations.undo(id, tab)
        if event is None:
            return self._after(image, now, None, "There is nothing to take back.")
        words = f"Taken back: {UNDONE[event['kind']]}."
        if event["subject"] == KNOWLEDGE:
            after = self._after(image, now, None, f"{words} {event['name']} is gone.")
            return after | {"knowledge": self._knowledge()}
        unit = event["answers"][0]["unit"] if event["kind"] == FOUND else event["unit"]
        number = self.album.number(name_of(event["subject"]))
        if number is None or number == image:
            return self._after(image, now, unit, words)
        return self._after(number, None, unit, words)

    # --- what a page is told -------------------------------------------------------------------

    def _at(
        self, image: int, revision: int, id: str, unit: int | None = None
    ) -> tuple[str, Annotated]:
        """A picture as the page saw it, or a later one of which this id was kept."""
        name = self._name(image)
        if identity(id, "id") not in self.annotations.session:
            self.annotations.require(name, revision)
        now = self.annotations.picture(name)
        if unit is not None and unit not in now.nodes and id not in self.annotations.session:
            raise Stale(f"unit {unit} is not there any more")
        return name, now

    def _require_whole(self, now: Annotated, unit: int) -> None:
        if unit in now.nodes and now.is_region(unit):
            raise ValueError(
                f"unit {unit} is a region of {now.nodes[unit].name}; choose one of its objects"
            )

    def _after(
        self, image: int, before: Annotated | None, select: int | None, said: str
    ) -> dict[str, Any]:
        """A picture as it is now, with the masks that were not there before."""
        name = self._name(image)
        with self.annotations.session.lock:
            now, revision = self.annotations.picture(name), self.annotations.revision(name)
        old = {shown.key_of(unit) for unit in before.tree.units} if before is not None else set()
        new = [unit for unit in now.tree.units if shown.key_of(unit) not in old]
        return {
            "picture": shown.shown(now, self.kb, revision, image),
            "masks": shown.masks(new),
            "select": select if select in now.nodes else None,
            "said": said,
            "progress": self.progress(),
        }

    def _mute(self, words: Sequence[str]) -> str:
        """Words about those that change no answer."""
        mute = self.network.unheard(words)
        return f" This run has no text for {', '.join(mute)}: answers heed none." if mute else ""

    def _nothing(self) -> str:
        known = ", ".join(node.name for node in self.kb.children(self.kb.root.id)[:6])
        return f"Nothing that is asked for is there ({known})."


def _found(answers: Sequence[Answer]) -> str:
    """Words about what requests found."""
    if not answers:
        return ""
    names = Counter(unit.name for answer in answers for unit in answer.units)
    found = ", ".join(f"{n} {name}" if n > 1 else name for name, n in names.items())
    missed = [name for answer in answers for name in answer.names if name not in names]
    words = f"Found: {found}." if found else "Nothing new was found."
    if missed and found:
        words += f" Not found: {', '.join(missed[:8])}{' and more' if len(missed) > 8 else ''}."
    return words + _doubt(answers)


def _doubt(answers: Sequence[Answer]) -> str:
    if all(answer.confident for answer in answers):
        return ""
    return " The network told no object apart: it is a connected piece of the region."


def _clean(text: str) -> str:
    """A word as people mean it."""
    return " ".join(text.split())
