"""Objects of a labelling page as the network sees them: mask, uncertainty, the pixel to ask about.

A picture's features are computed once; an answer then costs the heads of one object.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, UInt8

from tenfold.data.images.album import Album
from tenfold.data.images.crops import Crop, crop_of

from .answers import pixels_asked
from .labelled import Known
from .strategies import Strategy, entropy, propose

FALLBACK = "fallback"
"""Source of a drawn pixel of an object that nothing predicted."""


@runtime_checkable
class Opened(Protocol):
    """A picture that a segmenter has looked at."""

    def committee(
        self, box: tuple[float, ...], label: int, points: list[tuple[int, int, int]]
    ) -> Float[np.ndarray, "k height width"]:
        """Predict the pixels of a box, k times, heeding points x, y, on the object or not."""


@runtime_checkable
class Segmenter(Protocol):
    """A network that makes masks of boxes and points.

    One that has `grows`, and it is true, takes classes beyond its own; one that has `finds`, and
    it is true, opens pictures that have `propose_boxes`.
    """

    classes: list[str]

    def open(self, image: UInt8[np.ndarray, "height width 3"]) -> Opened:
        """Look at a picture, once for all its objects."""


@dataclass(frozen=True)
class Seen:
    """An object as it is seen at one of its revisions."""

    revision: int
    mask: Crop
    unsure: float = 0.0
    """Mean entropy of its box's pixels, as a share of the most there is."""
    point: tuple[int, int] | None = None
    """Pixel to ask about; None if all have been."""
    score: float = 0.0
    source: str = ""
    """Who chose the pixel: a strategy, or "fallback"."""
    problem: str = ""
    """Words about a picture that cannot be looked at."""


class Looking:
    """A network at work on the photos of an album, one object at a time.

    Args:
        segmenter: The network.
        album: The photos.
        strategy: How a pixel is chosen.
        kept: Pictures whose features stay in memory.
    """

    def __init__(self, segmenter: Segmenter, album: Album, strategy: Strategy, kept: int) -> None:
        self.segmenter = segmenter
        self._album, self._strategy, self._kept = album, strategy, kept
        self._guard = threading.Lock()
        self._opened: OrderedDict[str, tuple[Opened, tuple[int, int]]] = OrderedDict()
        """Name of a picture -> its features, and its height and width."""
        self._seen: dict[int, Seen] = {}

    def known(self, number: int) -> Seen | None:
        """The object as it was seen last, perhaps before its last answer."""
        return self._seen.get(number)

    def look(self, one: Known, revision: int, label: int) -> Seen:
        """The object as it is now, computed once for each of its revisions."""
        with self._guard:
            seen = self._seen.get(one.id)
            if seen is None or seen.revision != revision:
                try:
                    seen = self._computed(one, revision, label)
                except (OSError, ValueError) as error:  # nothing is lost: it can be asked later
                    nothing = Crop(*one.pixels[:2], 0, 0, b"")
                    seen = Seen(revision, nothing, problem=f"{one.image}: {error}")
                self._seen[one.id] = seen
        return seen

    def warm_up(self) -> None:
        """Have what the first answer would wait for: libraries load some of theirs when used."""
        x0, side = 8, 64
        with self._guard:
            blank = self.segmenter.open(np.zeros((side, side, 3), dtype=np.uint8))
            blank.committee((x0, x0, side - x0, side - x0), 0, [(side // 2, side // 2, 1)])

    def change(self, segmenter: Segmenter) -> None:
        """Look with another network from now on."""
        with self._guard:
            self.segmenter = segmenter
            self._opened.clear()
            self._seen.clear()

    def proposed(self, name: str) -> list[tuple[tuple[float, ...], int, float]]:
        """Box, class and score of what the network finds in a picture; nothing, if it does not."""
        with self._guard:
            found: Any = self._features(name, None)
        return getattr(found, "propose_boxes", list)()

    def mask(self, one: Known, label: int) -> Crop:
        """The mask of an object that is not of the page; nothing of it is kept."""
        with self._guard:
            found = self._features(one.image, one).committee(one.box, label, one.points)
        mean = found.mean(0) if len(found) else np.zeros(found.shape[1:])
        return crop_of(mean > 0.5, *one.pixels[:2])

    def _computed(self, one: Known, revision: int, label: int) -> Seen:
        box = one.pixels
        found = self._features(one.image, one).committee(one.box, label, one.points)
        mean = (found.mean(0) if len(found) else np.zeros(found.shape[1:])).astype(np.float64)
        unsure = float(entropy(mean).mean() / np.log(2)) if len(found) else 1.0
        rng = np.random.default_rng([one.id, revision])
        asked = pixels_asked(one.answers, one.id)
        chosen = propose(found, box, asked, self._strategy, rng)
        seen = Seen(revision, crop_of(mean > 0.5, *box[:2]), min(max(unsure, 0.0), 1.0))
        if chosen is None:
            return seen
        source = FALLBACK if chosen.is_fallback else self._strategy
        return Seen(revision, seen.mask, seen.unsure, chosen.xy, float(chosen.score), source)

    def _features(self, name: str, one: Known | None) -> Opened:
        """Features of a picture, which must be of the size that the object was drawn on."""
        if name not in self._opened:
            number = self._album.number(name)
            if number is None:
                raise FileNotFoundError("the picture is not in the folder any more")
            pixels = self._album.picture(number)
            height, width = pixels.shape[:2]
            self._require_size(one, (height, width))
            self._opened[name] = self.segmenter.open(pixels), (height, width)
            while len(self._opened) > self._kept:
                self._opened.popitem(last=False)
        self._opened.move_to_end(name)
        found, size = self._opened[name]
        self._require_size(one, size)  # another object, or a search, may have opened it
        return found

    def _require_size(self, one: Known | None, size: tuple[int, int]) -> None:
        if one is not None and size != one.size:
            raise ValueError(
                f"it has {size[1]} x {size[0]} pixels, but object {one.id} was drawn on "
                f"{one.size[1]} x {one.size[0]}; put that picture back"
            )
