"""CLIP's tokens of texts: lower-cased byte-pair encoding (openai/CLIP, clip/simple_tokenizer.py).

The table of merges is a file of the official code, bpe_simple_vocab_16e6.txt.gz, or transformers'
merges.txt, which holds the same. Of the official
cleaning, `ftfy` (repair of wrongly decoded text) is left out but for its composed characters.
"""

from __future__ import annotations

import gzip
import html
import re
import unicodedata
import zlib
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from jaxtyping import Int64

from .tokenizer_file import CHARACTERS

FILE = "bpe_simple_vocab_16e6.txt.gz"
PLAIN_FILE = "merges.txt"
"""Table beside a checkpoint of transformers: the merges that it has, and no others."""
MERGES = 49152 - 256 - 2
"""Lines of the table that count, behind its first."""
MOST_BYTES = 2**24
"""Of the table when it is unpacked; the official has 3.2 MB."""
CONTRACTION = re.compile("'s|'t|'re|'ve|'m|'ll|'d")
END = "</w>"
CONTEXT = 77
"""Most tokens of a text, its start and end among them."""


class ClipTokenizer:
    """Texts to tokens; 49408 in all with the official table, of which the last two are start and
    end."""

    def __init__(self, merges: Sequence[tuple[str, str]]) -> None:
        symbols = list(_bytes_as_text().values())
        tokens = [*symbols, *(s + END for s in symbols), *(a + b for a, b in merges)]
        self.ids = {token: number for number, token in enumerate(tokens)}
        self.ranks = {pair: rank for rank, pair in enumerate(merges)}
        self.start, self.end = len(tokens), len(tokens) + 1
        self._word = lru_cache(2**12)(self._merged)

    @classmethod
    def read(cls, path: Path) -> ClipTokenizer:
        """The tokenizer of the official table, or of a merges.txt.

        Raises:
            ValueError: The file is damaged, or another.
        """
        is_plain = path.suffix == ".txt"
        try:
            with path.open("rb") if is_plain else gzip.open(path) as file:
                content = file.read(MOST_BYTES + 1).decode("utf-8")
        except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
            raise ValueError(f"{path} cannot be read as CLIP's table of merges: {error}") from error
        lines = content.split("\n")[1 : MERGES + 1]
        if is_plain:
            while lines and not lines[-1].strip():
                lines.pop()
        pairs = [tuple(line.split()) for line in lines]
        wrong = next((i for i, pair in enumerate(pairs) if len(pair) != 2), None)
        few = not is_plain and len(pairs) < MERGES
        if few or wrong is not None:
            where = f"line {wrong + 2} is no pair" if wrong is not None else f"{len(pairs)} merges"
            raise ValueError(
                f"{path} is not CLIP's table of {MERGES} merges ({where}); take {FILE} of "
                "openai/CLIP"
            )
        return cls([(pair[0], pair[1]) for pair in pairs])

    def encode(self, text: str) -> list[int]:
        """The tokens of a text, without start and end."""
        symbols = _bytes_as_text()
        found: list[int] = []
        for word in words(cleaned(text)):
            found += self._word("".join(symbols[byte] for byte in word.encode("utf-8")))
        return found

    def table(self, texts: Sequence[str], context: int = CONTEXT) -> Int64[np.ndarray, "text _"]:
        """Start, tokens and end of each text, then zeros.

        Raises:
            ValueError: A text has more tokens than there is room for.
        """
        found = np.zeros((len(texts), context), np.int64)
        for row, text in enumerate(texts):
            tokens = [self.start, *self.encode(text), self.end]
            if len(tokens) > context:
                raise ValueError(
                    f"the text {text[:60]!r} has {len(tokens)} tokens with start and end, of which "
                    f"CLIP reads {context}; shorten it"
                )
            found[row, : len(tokens)] = tokens
        return found

    def _merged(self, word: str) -> tuple[int, ...]:
        """Tokens of a word: the pair that was learned first is merged until none is left."""
        parts = [*word[:-1], word[-1] + END]
        while len(parts) > 1:
            pairs = list(zip(parts, parts[1:], strict=False))
            first = min(pairs, key=lambda pair: self.ranks.get(pair, len(self.ranks)))
            if first not in self.ranks:
                break
            merged, i = [], 0
            while i < len(parts):
                if tuple(parts[i : i + 2]) == first:
                    merged.append(parts[i] + parts[i + 1])
                    i += 2
                else:
                    merged.append(parts[i])
                    i += 1
            parts = merged
        return tuple(self.ids[part] for part in parts)


def cleaned(text: str) -> str:
    """A text as its tokens are made: entities of HTML resolved twice, one blank, lower case."""
    text = html.unescape(html.unescape(unicodedata.normalize("NFC", text)))
    return " ".join(text.split()).lower()


def words(text: str) -> Iterator[str]:
    """Contractions, runs of letters, single digits, and runs of what is neither nor a blank."""
    place = 0
    while place < len(text):
        kind = _kind(text[place])
        contraction = CONTRACTION.match(text, place)
        end = place + 1
        if contraction:
            end = contraction.end()
        elif kind in "LO":
            while end < len(text) and _kind(text[end]) == kind:
                end += 1
        if kind != " ":
            yield text[place:end]
        place = end


def _kind(character: str) -> str:
    """L for letters, N for numbers, a blank, or O for others."""
    if character.isspace():
        return " "
    kind = unicodedata.category(character)[0]
    return kind if kind in "LN" else "O"


@lru_cache(1)
def _bytes_as_text() -> dict[int, str]:
    """A printable character for every byte, in the order in which they are numbered."""
    order = sorted(range(256), key=lambda byte: CHARACTERS[byte] != chr(byte))
    return {byte: CHARACTERS[byte] for byte in order}
