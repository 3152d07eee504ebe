"""Captions to numbers: words of the training captions, or BERT's word pieces, and their places."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from tenfold.extras import install

from .phrases import TOKEN

PAD, BEGIN, END, UNKNOWN = "[PAD]", "[CLS]", "[SEP]", "[UNK]"
SPECIAL = (PAD, BEGIN, END, UNKNOWN)
MOST_TOKENS = 2**16
"""Words of captions that are tokens of their own, the most frequent first."""
MOST_BYTES = 2**22
"""Of a vocabulary: BERT's largest has 120,000 tokens in 1 MB."""


@dataclass(frozen=True)
class Encoded:
    """A text as numbers, begin and end included."""

    numbers: tuple[int, ...]
    places: tuple[tuple[int, int], ...]
    """Characters [start, end) of each token; begin and end have none (0, 0)."""


class Vocabulary:
    """Tokens of texts, of words as they are or of the pieces that BERT cuts them into."""

    def __init__(self, kind: Literal["words", "pieces"], text: str, most: int) -> None:
        """``text``: all tokens, one a line. ``most``: tokens of a text.

        Raises ValueError if one of the four tokens for begin, end, padding and others is missing.
        """
        self.kind, self.most = kind, most
        self.tokens = tuple(text.split("\n"))
        self.number = {token: i for i, token in enumerate(self.tokens)}
        missing = [token for token in SPECIAL if token not in self.number]
        if missing or len(self.number) != len(self.tokens):
            raise ValueError(
                f"a vocabulary of {len(self.tokens)} tokens "
                + (f"has no {missing[0]}" if missing else "has one twice")
                + "; take the vocab.txt of an uncased BERT, or --text.tokens words"
            )

    def __len__(self) -> int:
        return len(self.tokens)

    def encode(self, text: str) -> Encoded:
        """Numbers of a text's tokens, cut to the most that a text may have."""
        if self.kind == "pieces":
            found = _pieces(self.tokens).encode(text, add_special_tokens=False)
            numbers, places = found.ids, [tuple(place) for place in found.offsets]
        else:
            words = list(TOKEN.finditer(text))
            unknown = self.number[UNKNOWN]
            numbers = [self.number.get(word[0].lower(), unknown) for word in words]
            places = [word.span() for word in words]
        room = self.most - 2
        ends = self.number[BEGIN], self.number[END]
        return Encoded((ends[0], *numbers[:room], ends[1]), ((0, 0), *places[:room], (0, 0)))

    def batch(self, texts: Sequence[Encoded]) -> dict[str, Tensor]:
        """Texts side by side: "words", "is_token" (not padding), "is_word" (nor begin, end)."""
        longest = max(len(text.numbers) for text in texts)
        words = torch.full((len(texts), longest), self.number[PAD])
        is_token, is_word = torch.zeros(2, len(texts), longest, dtype=torch.bool)
        for row, text in enumerate(texts):
            count = len(text.numbers)
            words[row, :count] = torch.tensor(text.numbers)
            is_token[row, :count] = True
            is_word[row, 1 : count - 1] = True
            if count == 2:  # a text without a word: its begin stands for it
                is_word[row, 0] = True
        return {"words": words, "is_token": is_token, "is_word": is_word}


def read_pieces(path: Path) -> str:
    """Vocabulary of a vocab.txt; ValueError names the file and what is wrong."""
    if path.stat().st_size > MOST_BYTES:
        raise ValueError(f"{path} has {path.stat().st_size} bytes, a vocabulary at most 4194304")
    try:
        # not splitlines: the Chinese vocabulary has a line separator (U+2028) as a token
        lines = path.read_text("utf-8").removesuffix("\n").split("\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no text in UTF-8 (byte {error.start})") from error
    missing = [token for token in SPECIAL if token not in lines]
    if missing:
        raise ValueError(f"{path} is no vocabulary of BERT: it has no line {missing[0]}")
    return "\n".join(lines)


@lru_cache(2)
def _pieces(tokens: tuple[str, ...]) -> Any:
    """BERT's uncased tokenizer, by the package `tokenizers`."""
    try:
        from tokenizers import BertWordPieceTokenizer
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"word pieces need the package tokenizers: {install('text')}; or use --text.tokens "
            "words",
            name="tokenizers",
        ) from error
    return BertWordPieceTokenizer({token: i for i, token in enumerate(tokens)}, lowercase=True)
