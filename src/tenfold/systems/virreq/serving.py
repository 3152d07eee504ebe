"""The page of a run: its networks, the texts that they take new words from, its knowledge base."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from . import data, given, sources
from .annotations import FILE
from .config import Config, PageOptions, Text
from .knowledge import KnowledgeBase
from .labelling import Labelling
from .model import Networks
from .recogniser import OpenedPicture, TrainedRecogniser
from .text import Concept, Encoder, UnknownWordsError


class Taught:
    """Networks of a run that take words from its source of texts, which is opened when needed."""

    def __init__(self, recogniser: TrainedRecogniser, text: Text) -> None:
        self._recogniser, self._text = recogniser, text
        self.refusal = ""
        if text.source == "learned":
            self.refusal = (
                "this run learned its words with its network and takes no new ones; train with "
                "--text.source table or clip"
            )

    def open(self, image: UInt8[np.ndarray, "height width 3"]) -> OpenedPicture:
        """Compute what requests on a picture need of it."""
        return self._recogniser.open(image)

    def adopt(self, kb: KnowledgeBase) -> None:
        """Answer by this knowledge base from now on; ValueError if a concept has no known word."""
        if not self._recogniser.unknown(kb):
            return
        if self.refusal:
            raise ValueError(self.refusal)
        text = self._text
        try:
            encoder = self._encoder
        except FileNotFoundError as error:
            raise ValueError(str(error)) from error
        self._recogniser.adopt(kb, encoder, text.prompt, text.centred)

    def unheard(self, words: Sequence[str]) -> list[str]:
        """Those of these words that the texts do not have, so that they change no answer."""
        found = []
        for word in words:
            try:
                self._encoder.vectors(Concept(word, word), self._text.prompt)
            except UnknownWordsError:
                found.append(word)
        return found

    @cached_property
    def _encoder(self) -> Encoder:
        return sources.encoder(self._text)


def open_page(
    networks: Networks, cfg: Config, images: Path, folder: Path, options: PageOptions
) -> Labelling:
    """Open the page of a run.

    Args:
        networks: Those of the run.
        cfg: Its configuration.
        images: Folder of photos.
        folder: Where the log is kept, and the knowledge base that grows.
        options: Choices.

    Raises:
        ValueError: Photos, log or knowledge base do not fit.
        FileNotFoundError: One of them is not there.
    """
    recogniser = TrainedRecogniser(networks, data.knowledge_of(cfg))
    base = recogniser.kb
    if options.knowledge:
        file = Path(options.knowledge)
        if file.exists() and (folder / FILE).exists() and file.samefile(folder / FILE):
            raise ValueError(
                f"--knowledge {file} is the page's own, which it goes on with by itself; leave it "
                "out"
            )
        given.take_over(recogniser, file, cfg.text)
        base = recogniser.kb
    return Labelling(Taught(recogniser, cfg.text), base, images, folder, options)
