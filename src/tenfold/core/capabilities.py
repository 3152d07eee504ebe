"""Capabilities that only some systems have: a protocol each, which the verbs ask for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, UInt8
from torch import Tensor, nn

from .system import System
from .versions import Learned


@dataclass(frozen=True)
class Export:
    """Description of a network's export: a module, example inputs, and their batch axes."""

    module: nn.Module
    inputs: tuple[Tensor, ...]
    input_names: tuple[str, ...]
    output_names: tuple[str, ...]
    is_free: bool = True
    """Whether the first axis of every input is a batch of any size; else it is as it is."""
    operators: Callable[[], dict[Any, Callable[..., Any]]] = dict
    """Operators of our own in it, and how ONNX has them."""


@runtime_checkable
class Exports(Protocol):
    """Has a network that runs on plain tensors elsewhere."""

    def export(self) -> Export:
        """The network as plain tensors in and out."""


@runtime_checkable
class ExportsParts(Protocol):
    """Has several networks, or networks that take images of any size."""

    def export_part(self, part: str, size: tuple[int, int]) -> Export:
        """One of the networks, for images of height and width `size` (0, 0: the run's)."""


@runtime_checkable
class ExportsOfficial(Protocol):
    """Writes files as the authors' own."""

    def export_official(self, out: Path) -> list[Path]:
        """Write the weights in the official layout into a new or empty folder; returns the files.

        Raises:
            ValueError: The folder holds anything: what others published has the same names.
        """


@runtime_checkable
class Converts(Protocol):
    """Reads official checkpoints."""

    @classmethod
    def convert(cls, source: Path) -> tuple[System[Any], Any]:
        """A system with the checkpoint's weights, and the account of every key."""


@runtime_checkable
class RunsOfficial(Protocol):
    """Predicts with official files as they are, without converting them."""

    @classmethod
    def open(cls, source: Path) -> System[Any]:
        """A system that predicts with the file, or with the folder of files."""


@runtime_checkable
class Learns(Protocol):
    """Takes new classes after its training."""

    def learn(self, inputs: Path, name: str, head: str = "") -> Learned:
        """Take the classes of a folder of photos (`name` names a lone one); write nothing.

        `head` is the way of learning, of those that the system has; empty is that of now.
        """

    def learned_state(self) -> dict[str, Tensor]:
        """Return what `learn` changed since the training: a version, to lie beside the weights."""

    def restore_learned(self, tensors: dict[str, Tensor], classes: tuple[str, ...]) -> None:
        """Take a version back, with the names of all its classes."""


@runtime_checkable
class Serves(Protocol):
    """Has a page on which people label."""

    page_options: Any
    """Defaults of the options that the page takes, a dataclass."""

    def labelling(
        self,
        images: Path,
        folder: Path,
        options: Any,
        train: Callable[[list[str], Callable[[float, str], None]], System[Any]],
    ) -> Any:
        """Return what the page is about, a `web.pages.Labelling`.

        Args:
            images: Folder of photos.
            folder: Where answers, and what is made of them, are kept.
            options: Of the class of `page_options`.
            train: Does what `tenfold train` with these words does, telling how far it is, and
                returns the system.
        """


@dataclass(frozen=True)
class PictureParts:
    """A photo as an encoder divides it; masks and vectors are on the CPU, without gradients."""

    grid: tuple[int, int]
    """Rows and columns of its patches."""
    window: tuple[float, float, float, float]
    """Left, top, right and bottom of the grid, in pixels of the photo (what is outside, the encoder
    does not see; a grid wider than the photo covers what was padded)."""
    encode: Callable[[Bool[Tensor, "coalition patch"]], Float[Tensor, "coalition dim"]]
    """Which patches are there, row by row of the grid, to a vector each; any number at once."""


@dataclass(frozen=True)
class SentenceParts:
    """A sentence as an encoder divides it; masks and vectors are on the CPU, without gradients."""

    words: tuple[str, ...]
    """What can be left out, one by one; punctuation goes with its word."""
    encode: Callable[[Bool[Tensor, "coalition word"]], Float[Tensor, "coalition dim"]]
    """Which words are there, to a vector each; any number at once, also without any word."""


@runtime_checkable
class DualEncoder(Protocol):
    """Encoders of photos and of sentences into one space, of which parts can be left out."""

    name: str
    """Says in a few words on a page what it is."""
    scale: float
    """Factor on cosines in its logits."""

    def picture(self, photo: UInt8[np.ndarray, "height width 3"]) -> PictureParts:
        """A photo (RGB, upright), ready to be encoded."""

    def sentence(self, text: str) -> SentenceParts:
        """A sentence, ready to be encoded; ValueError if it has no word, or too many."""


@runtime_checkable
class Explains(Protocol):
    """Compares photos with sentences, so that what parts of both do together can be asked."""

    absences: tuple[str, ...]
    """How patches can be left out, the usual way first: "grey" (their pixels are the mean colour),
    "removed" (their tokens are not computed), "tokens" (all are computed once, and the vector is
    made of the tokens that are kept)."""

    def dual_encoder(self, absent: str) -> DualEncoder:
        """Return its encoders, which leave patches out in one of these ways."""


CAPABILITIES: dict[str, type] = {
    "export": Exports,
    "export a part": ExportsParts,
    "export official files": ExportsOfficial,
    "convert": Converts,
    "run official files": RunsOfficial,
    "learn": Learns,
    "serve": Serves,
    "explain": Explains,
}
"""Verb -> what a system must have for it."""
