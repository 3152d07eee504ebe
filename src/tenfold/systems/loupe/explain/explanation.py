"""The games of a photo and a sentence: interactions, comparisons, and the question of a box.

The value of a coalition of patches and words is the logit (the scaled cosine) of what an encoder
makes of the photo without the other patches, and of the sentence without the other words.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from tenfold.core.capabilities import DualEncoder

from ..games import Estimate, Sampling, crossed, sampled
from .options import Box, ExplainOptions
from .players import Players, inside, players_of

Progress = Callable[[str], None]


class Remembering:
    """An encoder that computes the vector of a coalition once; vectors have length 1."""

    def __init__(
        self, encode: Callable[[Tensor], Tensor], members: Bool[Tensor, "player part"]
    ) -> None:
        """`members` are the parts of each player."""
        self.encode, self.members = encode, members.to(torch.uint8)
        self.known: dict[bytes, Tensor] = {}

    def __call__(self, masks: Bool[Tensor, "coalition player"]) -> Float[Tensor, "coalition dim"]:
        """Vectors in double precision."""
        keys = [row.tobytes() for row in np.packbits(masks.numpy(), axis=1)]
        first = {key: i for i, key in reversed(list(enumerate(keys))) if key not in self.known}
        if first:
            rows = masks[sorted(first.values())]
            found = self.encode((rows.to(torch.uint8) @ self.members).bool())
            vectors = F.normalize(found.double(), dim=1)
            for i, vector in zip(sorted(first.values()), vectors, strict=True):
                self.known[keys[i]] = vector
        return torch.stack([self.known[key] for key in keys])


@dataclass(frozen=True)
class BoxAnswer:
    """What a part of the photo has to do with the sentence; all in logits."""

    box: Box
    members: Bool[Tensor, " player"]
    alone: float
    """Of the box and the sentence, all else left out."""
    without: float
    """Of the photo without the box."""
    value: Estimate
    """Gain by the whole box, the mean over what else is there of the photo; of the right sentence,
    and (if there are wrong ones) less that of the wrong ones."""
    together: Estimate
    """What its patches gain by acting together, J(R); the same two."""
    words: Estimate
    """Interaction of the whole box with each word."""


@dataclass(frozen=True)
class Explanation:
    """An answer, taken apart; values and interactions are in logits."""

    encoder: str
    scale: float
    sentence: str
    words: tuple[str, ...]
    against: tuple[str, ...]
    size: tuple[int, int]
    """Width and height of the photo."""
    players: Players
    logits: tuple[float, ...]
    """Of the whole photo with the sentence, and with those that do not fit."""
    nothing: float
    """Logit without any patch and any word."""
    pairs: Estimate
    """Interaction of each patch with each word."""
    patches: Estimate
    """Value of each patch, the mean over what else is there of both sides."""
    each_word: Estimate
    """Value of each word."""
    shown: Estimate
    """Value of each patch for the whole sentence, and (if there are wrong ones) less the mean of
    its values for the wrong ones; (patch, 1 or 2)."""
    box: BoxAnswer | None
    options: ExplainOptions


@dataclass(frozen=True)
class Match:
    """A photo and sentences as encoders of coalitions, with what was drawn of them."""

    explanation: Explanation
    photo: Remembering
    sentence: Remembering
    found: Float[Tensor, "row column"]
    first: crossed.Side
    second: crossed.Side


def explain(
    encoder: DualEncoder,
    photo: UInt8[np.ndarray, "height width 3"],
    sentence: str,
    options: ExplainOptions | None = None,
    say: Progress = lambda line: None,
) -> Match:
    """Take the match of a photo and a sentence apart.

    Args:
        encoder: Of both (`loupe.clip.read` opens CLIP's files).
        photo: RGB, upright.
        sentence: The one that is explained.
        options: How, and how much; None takes the defaults.
        say: Is told what is being done.

    Returns:
        The explanation, and what `judge` needs to say how good it is.

    Raises:
        ValueError: A sentence has no word or too many, the box does not lie in the photo, or too
            few coalitions are asked for.
    """
    options = options or ExplainOptions()
    for said in (sentence, *options.against):
        try:
            said.encode()
        except UnicodeEncodeError as error:  # half of a character, or bytes of another encoding
            raise ValueError(f"the sentence {ascii(said[:40])} is no text in UTF-8") from error
    size = (photo.shape[1], photo.shape[0])
    picture, text = encoder.picture(photo), encoder.sentence(sentence)
    others = [encoder.sentence(other) for other in options.against]
    players = players_of(picture.grid, picture.window, options.players)
    asked = inside(players, options.box_numbers(), size) if options.box else None
    seen = Remembering(picture.encode, players.members)
    read = Remembering(text.encode, torch.eye(len(text.words), dtype=torch.bool))
    for what, count, drawn in (
        ("pictures", len(players), options.pictures), ("texts", len(text.words), options.texts),
    ):  # fmt: skip
        if drawn < min(2**count, count + 2):
            raise ValueError(
                f"{drawn} coalitions cannot tell {count} parts apart; give --{what} of at least "
                f"{count + 2}, better several times as many"
            )
    generator = torch.Generator().manual_seed(options.seed)
    first = crossed.side(len(players), options.pictures, options.p, generator)
    second = crossed.side(len(text.words), options.texts, options.p, generator)
    whole = torch.ones(1, len(players), dtype=torch.bool)
    sentences = torch.cat(
        [read(torch.ones(1, len(text.words), dtype=torch.bool))]
        + [F.normalize(o.encode(torch.ones(1, len(o.words), dtype=torch.bool)).double(), dim=1)
           for o in others]
    )  # fmt: skip
    say(f"{len(first.masks)} photos and {len(second.masks)} sentences with parts left out")
    vectors, scale = seen(first.masks), encoder.scale
    found = scale * vectors @ read(second.masks).T
    patches, words = crossed.values(found, first, second)
    logits = scale * seen(whole) @ sentences.T
    nothing = scale * seen(~whole) @ read(torch.zeros(1, len(text.words), dtype=torch.bool)).T
    answer = None
    if asked is not None:
        game = _BoxGame(seen, read, sentences, scale, second, options)
        answer = game.answer(options.box_numbers(), asked, generator, say)
    explanation = Explanation(
        encoder.name, scale, sentence, text.words, options.against, size, players,
        tuple(logits[0].tolist()), float(nothing),
        crossed.interactions(found, first, second), patches, words,
        crossed.values_of_side(scale * right_and_wrong(vectors @ sentences.T), first),
        answer, options,
    )  # fmt: skip
    return Match(explanation, seen, read, found, first, second)


def right_and_wrong(found: Float[Tensor, "coalition text"]) -> Float[Tensor, "coalition score"]:
    """Scores of the first text, and less the mean of the others if there are any."""
    if found.shape[1] == 1:
        return found
    return torch.stack([found[:, 0], found[:, 0] - found[:, 1:].mean(1)], 1)


@dataclass(frozen=True)
class _BoxGame:
    """The games in which a box is one player, or a coalition of its patches."""

    seen: Remembering
    read: Remembering
    sentences: Float[Tensor, "text dim"]
    scale: float
    second: crossed.Side
    options: ExplainOptions

    def answer(
        self, box: Box, asked: Bool[Tensor, " player"], generator: torch.Generator, say: Progress
    ) -> BoxAnswer:
        outside = (~asked).nonzero()[:, 0]
        first = crossed.side(1 + len(outside), self.options.pictures, self.options.p, generator)
        say(f"{len(first.masks)} photos with the whole box, or without it")
        masks = torch.zeros(len(first.masks), len(asked), dtype=torch.bool)
        masks[:, outside] = first.masks[:, 1:]
        masks |= first.masks[:, :1] & asked
        vectors = self.seen(masks)
        words = crossed.interactions(
            self.scale * vectors @ self.read(self.second.masks).T, first, self.second
        )
        value = crossed.values_of_side(
            self.scale * right_and_wrong(vectors @ self.sentences.T), first
        )
        alone, without = self._logits(torch.stack([asked, ~asked]))[:, 0].tolist()
        return BoxAnswer(
            box, asked, alone, without, _row(value), self._together(asked, say), _row(words)
        )

    def _logits(self, masks: Bool[Tensor, "coalition player"]) -> Float[Tensor, "coalition text"]:
        return self.scale * right_and_wrong(self.seen(masks) @ self.sentences.T)

    def _together(self, asked: Bool[Tensor, " player"], say: Progress) -> Estimate:
        """J(R) of each score, all by the same coalitions."""
        count = self.options.regions * (int(asked.sum()) + 2)
        say(f"at most {count} photos with patches of the box left out")
        plan = Sampling(samples=self.options.regions)
        scores = 1 + (len(self.sentences) > 1)

        def of(score: int) -> Estimate:
            generator = torch.Generator().manual_seed(self.options.seed)
            return sampled.interactions(
                lambda masks: self._logits(masks)[:, score],
                asked[None], plan, self.options.p, generator,
            )  # fmt: skip

        found = [of(score) for score in range(scores)]
        return Estimate(
            torch.cat([one.value for one in found]),
            torch.cat([one.standard_error for one in found]),
            plan.samples,
        )


def _row(found: Estimate) -> Estimate:
    """The numbers of the first player, which is the box."""
    return Estimate(found.value[0], found.standard_error[0], found.samples)
