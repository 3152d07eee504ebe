"""A picture asked with a text: regions and what they gain under it, and where each phrase is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from tenfold.core.seed import generator

from . import data
from .batches import as_tensor, places_of, vocabulary_of
from .config import Config
from .data import Pair
from .games import Sampling, tokens
from .model import Networks, clipped, phrase_vectors, region_vectors
from .semantics import interactions, shares
from .towers import normalised
from .words import Vocabulary
from .zero_shot import ground

Picture = UInt8[np.ndarray, "height width 3"]


@dataclass(frozen=True)
class FoundRegion:
    """A region of a picture under a text."""

    box: tuple[float, float, float, float]
    """x0 y0 x1 y1 as fractions of the picture."""
    confidence: float
    interaction: float
    """J of its patches under the text; above 0: they say more together than one by one."""
    standard_error: float
    patches: int


@dataclass(frozen=True)
class FoundPhrase:
    """A phrase of a text, and where it is."""

    text: str
    box: tuple[float, float, float, float]
    score: float
    """Confidence of its region times its share among regions."""
    gained: float
    """Interaction of the phrase and its region in the semantics game."""
    heat: Float[np.ndarray, "row column"]
    """Cosine of each patch with the phrase."""


@dataclass(frozen=True)
class Answer:
    """What is said of a picture under a text."""

    text: str
    asked: bool
    """False if nobody gave a text, and the class that fits best is taken."""
    similarity: float
    """Cosine of picture and text."""
    regions: tuple[FoundRegion, ...]
    phrases: tuple[FoundPhrase, ...]


class Asked:
    """Networks that are asked about pictures."""

    def __init__(self, networks: Networks, cfg: Config, samples: int = 256) -> None:
        self.networks, self.cfg = networks.eval(), cfg
        self.device = next(networks.parameters()).device
        self.vocabulary: Vocabulary = vocabulary_of(cfg)
        self.plan = Sampling(samples)

    def knows(self, text: str) -> bool:
        """Return True if a text has a word that the run knows."""
        unknown = self.vocabulary.number["[UNK]"]
        return any(number != unknown for number in self.vocabulary.encode(text).numbers[1:-1])

    def require_whole(self, text: str) -> None:
        """Raise ValueError for a text that is cut, as those of training are."""
        encoded, most = self.vocabulary.encode(text), self.vocabulary.most
        last = max(end for _, end in encoded.places)
        if len(encoded.numbers) == most and last < len(text.rstrip()):
            raise ValueError(
                f"--caption {text[:60]!r} has more tokens than the {most - 2} that this run takes; "
                "shorten it"
            )

    def text(self, text: str) -> tuple[Tensor, Tensor, Tensor, list[str]]:
        """Vector and tokens of a text, the tokens of its phrases as far as it is read, and these.

        Raises:
            ValueError: It has no word that the run knows.
        """
        encoded = self.vocabulary.encode(text)
        if not self.knows(text):
            raise ValueError(
                f"--caption {text[:60]!r} has no word of the training captions; use their words"
            )
        batch = self.vocabulary.batch([encoded])
        vector, words = self.networks.encoder.text_tokens(
            batch["words"].to(self.device), batch["is_token"].to(self.device)
        )
        every = data.phrases_of(Pair(None, text))
        # a phrase that was cut off with the end of its text is none that the run has read
        spans = [span for span in every if places_of(span, encoded)]
        members = torch.zeros(1, max(1, len(spans)), words.shape[1], dtype=torch.bool)
        for row, span in enumerate(spans):
            members[0, row, list(places_of(span, encoded))] = True
        if not spans:  # the whole text is its phrase
            members[0, 0] = batch["is_word"][0]
        names = [text[span.start : span.end] for span in spans] or [text]
        return vector.float(), words.float(), members.to(self.device), names

    @torch.no_grad()
    def tokens(self, picture: Picture) -> Float[Tensor, "1 patch dim"]:
        """Players of a picture."""
        image = as_tensor(picture, self.cfg.image.size)[None].to(self.device)
        return self.networks.encoder.image_tokens(normalised(image)).float()

    @torch.no_grad()
    def answer(self, picture: Picture, text: str, count: int, asked: bool = True) -> Answer:
        """Regions of a picture under a text, the most confident first, and its phrases."""
        patches = self.tokens(picture)
        vector, words, members, names = self.text(text)
        found = self.networks.found(patches, count, self.cfg.games.overlap)
        dice = generator(self.cfg.seed, "predict")
        if self.device.type != "cpu":
            dice = torch.Generator(self.device).manual_seed(dice.initial_seed())
        played = tokens.interactions(
            patches, vector[:, None], found.members, self.plan, generator=dice
        )
        boxes = clipped(found.boxes)[0].tolist()
        there = found.there[0].tolist()
        regions = tuple(
            FoundRegion(
                (box[0], box[1], box[2], box[3]), float(found.confidence[0, row]),
                float(played.value[0, row, 0]), float(played.standard_error[0, row, 0]),
                int(found.members[0, row].sum()),
            )
            for row, box in enumerate(boxes) if there[row]
        )  # fmt: skip
        similarity = F.cosine_similarity(patches.mean(1), vector)
        phrases = self._phrases(patches, words, members, names)
        return Answer(text, asked, float(similarity), regions, phrases)

    def _phrases(
        self, patches: Tensor, words: Tensor, members: Tensor, names: list[str]
    ) -> tuple[FoundPhrase, ...]:
        games, grid = self.cfg.games, self.cfg.image.grid
        found = self.networks.found(patches, games.regions, games.overlap)
        vectors = region_vectors(patches, found.members)
        phrases = phrase_vectors(words, members)
        gained = interactions(
            shares(vectors @ phrases.mT, members.any(2), self.cfg.loss.temperature),
            found.there, members.any(2),
        )  # fmt: skip
        sharp = 1 / float(self.networks.encoder.scale())
        heat = F.normalize(patches[0], dim=1) @ phrases[0].T
        result = []
        for row, name in enumerate(names):
            score = ground(vectors[0], found.confidence[0], phrases[0, row], sharp)
            best = int(score.masked_fill(~found.there[0], -1).argmax())
            x0, y0, x1, y1 = clipped(found.boxes[0, best]).tolist()
            result.append(
                FoundPhrase(
                    name, (x0, y0, x1, y1), float(score[best]), float(gained[0, best, row]),
                    heat[:, row].reshape(grid, grid).cpu().numpy(),
                )
            )  # fmt: skip
        return tuple(result)

    @torch.no_grad()
    def likely(
        self, picture: Picture, names: tuple[str, ...], vectors: Float[Tensor, "name dim"]
    ) -> str:
        """The name whose vector is nearest to the picture's."""
        image = F.normalize(self.tokens(picture).mean(1), dim=1)
        return names[int((vectors @ image[0]).argmax())]
