"""A run's dual encoder with parts of pictures and texts left out, as explanations ask for it."""

from __future__ import annotations

import re

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from tenfold.core.capabilities import PictureParts, SentenceParts

from .batches import as_tensor, vocabulary_of
from .config import Config
from .model import Networks
from .towers import normalised

ABSENCES = ("tokens", "grey")
"""tokens: all are computed once, and a picture's vector is the sum of those that are kept, which is
the game of the training; grey: absent patches have the mean colour, and all is computed anew."""
BATCH = 64
"""Coalitions that are encoded at once."""


class PartedEncoder:
    """Both towers of a run; see `core.capabilities.DualEncoder`."""

    def __init__(self, networks: Networks, cfg: Config, absent: str) -> None:
        """``absent``: one of ABSENCES."""
        if absent not in ABSENCES:
            raise ValueError(f"patches can be left out as {' or '.join(ABSENCES)}, not {absent!r}")
        self.encoder, self.cfg, self.absent = networks.encoder.eval(), cfg, absent
        self.name = "LOUPE"
        self.scale = float(self.encoder.scale().detach())
        self.vocabulary = vocabulary_of(cfg)

    @torch.no_grad()
    def picture(self, photo: UInt8[np.ndarray, "height width 3"]) -> PictureParts:
        """A photo, stretched to a square, so that its grid covers it."""
        grid, device = self.cfg.image.grid, self.encoder.logit_scale.device
        image = normalised(as_tensor(photo, self.cfg.image.size)[None].to(device))
        tokens = self.encoder.image_tokens(image)[0].float().cpu()

        @torch.no_grad()
        def grey(masks: Bool[Tensor, "coalition patch"]) -> Float[Tensor, "coalition dim"]:
            found = []
            for some in masks.split(BATCH):
                kept = some.view(-1, 1, grid, grid).to(device).float()
                side = self.cfg.image.stride
                pixels = kept.repeat_interleave(side, 2).repeat_interleave(side, 3)
                found.append(self.encoder.image_tokens(image * pixels).mean(1).float().cpu())
            return torch.cat(found)

        def summed(masks: Bool[Tensor, "coalition patch"]) -> Float[Tensor, "coalition dim"]:
            return masks.float() @ tokens

        height, width = photo.shape[:2]
        window = (0.0, 0.0, float(width), float(height))
        return PictureParts((grid, grid), window, summed if self.absent == "tokens" else grey)

    def sentence(self, text: str) -> SentenceParts:
        """A text; an absent word keeps its place, and is attended to by none.

        Raises:
            ValueError: It has no word, or more than the run takes.
        """
        encoded, device = self.vocabulary.encode(text), self.encoder.logit_scale.device
        words = list(re.finditer(r"\S+", text))
        last = max((end for _, end in encoded.places), default=0)
        if not words or len(encoded.numbers) < 3:
            raise ValueError(f"the sentence {text[:40]!r} has no word")
        if last < len(text.rstrip()):
            raise ValueError(
                f"the sentence {text[:40]!r} has more tokens than the {self.cfg.text.most - 2} "
                "that this run takes; shorten it"
            )
        # of each token, the number of its word behind the two that are always there
        owner = torch.tensor([
            next((n for n, word in enumerate(words) if word.start() <= start < word.end()), 0)
            for start, _ in encoded.places[1:-1]
        ])  # fmt: skip
        numbers = torch.tensor(encoded.numbers, device=device)

        @torch.no_grad()
        def encode(masks: Bool[Tensor, "coalition word"]) -> Float[Tensor, "coalition dim"]:
            found = []
            for some in masks.split(BATCH):
                ends = some.new_ones(len(some), 1)
                kept = torch.cat([ends, some[:, owner], ends], 1).to(device)
                rows = numbers.expand(len(some), -1)
                found.append(self.encoder.text_tokens(rows, kept)[0].float().cpu())
            return torch.cat(found)

        return SentenceParts(tuple(word[0] for word in words), encode)
