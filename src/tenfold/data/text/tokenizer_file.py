"""A tokenizer.json of the package `tokenizers`, as published models bring it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64, Integer, UInt

from tenfold.extras import install
from tenfold.files import require_bounded

MAX_JSON = 2**25
"""Most characters of the file; the largest published have 2**24."""
MAX_VOCAB = 2**20
PIECE = 2**20
"""Characters that are encoded at a time, cut at a line end: some tokenizers put a blank before
each piece, so pieces are long."""
SAMPLE = "The QUICK fox  jumps,\n\tover 12 na\u00efve caf\u00e9s \u2014 don't."
"""Text that a tokenizer must give back as it is: letters of both cases, blanks, accents, signs."""
LOSS = 0.001
"""Largest share of a text's bytes that its tokens may lack or add: some compose its accents."""
BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")


def _characters() -> Iterator[str]:
    """The printable character that byte-level BPE writes for each byte, as GPT-2 chose them."""
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    others = 0
    for byte in range(256):
        yield chr(byte if byte in printable else 256 + others)
        others += byte not in printable


CHARACTERS = tuple(_characters())


def read_tokenizer(file: Path) -> FileTokenizer:
    """Read a tokenizer.json that keeps every byte of a text: bits per byte divide by their number.

    Raises:
        FileNotFoundError: It is not there.
        ValueError: It is too large or damaged, or text does not come back from its tokens.
    """
    require_bounded(file, MAX_JSON)
    try:
        made = FileTokenizer(file.read_text("utf-8"))
        made.require_faithful()
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error
    return made


class FileTokenizer:
    """The tokenizer of a tokenizer.json; special tokens are never made from text."""

    def __init__(self, content: str) -> None:
        """``content``: the file.

        Raises ValueError for what is no such file, and ModuleNotFoundError without `tokenizers`.
        """
        if len(content) > MAX_JSON:
            raise ValueError(
                f"tokenizer.json has {len(content)} characters, at most {MAX_JSON} are read"
            )
        try:
            from tokenizers import Tokenizer
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                f"a tokenizer.json needs the package tokenizers: {install('text')}",
                name="tokenizers",
            ) from error
        try:
            self._encoder: Any = Tokenizer.from_str(content)
        except Exception as error:  # the package raises Exception itself
            raise ValueError(f"tokenizer.json cannot be read: {str(error)[:200]}") from error
        # wishes of a model for batches of short texts: ours would get fill between its pieces
        self._encoder.no_padding()
        self._encoder.no_truncation()
        self._content = content
        ids = self._encoder.get_vocab(with_added_tokens=True)
        self.vocab = max(ids.values(), default=-1) + 1
        if not 0 < self.vocab <= MAX_VOCAB:
            raise ValueError(f"tokenizer.json has {self.vocab} tokens; 1 to {MAX_VOCAB} are read")
        self._names = {number: name for name, number in ids.items()}

    @cached_property
    def _table(self) -> list[bytes]:
        """The bytes that each token stands for; none for special tokens and numbers between."""
        content = json.loads(self._content)
        added = content.get("added_tokens") or []
        special = {one["id"] for one in added if one.get("special")}
        is_of_bytes = "ByteLevel" in json.dumps([content.get("decoder"),
                                                 content.get("pre_tokenizer")])  # fmt: skip
        to_bytes = _of_characters if is_of_bytes else _of_text
        plain = {one["id"]: one["content"].encode() for one in added}
        return [
            b"" if number in special or number not in self._names
            else plain.get(number) or to_bytes(self._names[number])
            for number in range(self.vocab)
        ]  # fmt: skip

    def require_faithful(self) -> None:
        """Raise ValueError unless `SAMPLE` comes back from its tokens, but for a blank before."""
        back = self.decode(self.encode(SAMPLE.encode())).decode("utf-8", "replace")
        if back not in (SAMPLE, f" {SAMPLE}"):
            raise ValueError(
                f"its tokens lose text: of {SAMPLE!r} comes back {back[:100]!r}. Give a tokenizer "
                "that keeps all (byte-level BPE, or SentencePiece with bytes)"
            )

    def require_whole(self, text: bytes, ids: UInt[np.ndarray, " _"], source: str) -> None:
        """Raise ValueError, naming `source`, if `ids` stand for more or fewer bytes than its text.

        Special tokens that the text spells out are taken as those.
        """
        found = int(self.lengths[ids].sum())
        most = max(1.0, LOSS * len(text))
        if abs(found - len(text)) <= most:
            return
        found += sum(text.count(name) * len(name) for name in self._special)
        if abs(found - len(text)) > most:
            raise ValueError(
                f"{source}: of {len(text)} bytes of text the tokens of the tokenizer.json stand "
                f"for {found}, so that bits per byte would be wrong. Give a tokenizer that keeps "
                "all of it, or text that it knows"
            )

    @cached_property
    def _special(self) -> list[bytes]:
        added = json.loads(self._content).get("added_tokens") or []
        return [one["content"].encode() for one in added if one.get("special")]

    @cached_property
    def lengths(self) -> Int64[np.ndarray, " vocab"]:
        """Bytes that each token stands for."""
        return np.array([len(token) for token in self._table], np.int64)

    def encode(self, text: bytes) -> UInt[np.ndarray, " _"]:
        """The ids of UTF-8 text, uint32; ValueError naming the first byte that is not UTF-8."""
        try:
            whole = text.decode("utf-8")
        except UnicodeDecodeError as error:
            raise ValueError(
                f"byte {error.start} of the text is not UTF-8; a tokenizer needs whole characters. "
                "Re-encode the text."
            ) from error
        found = self._encoder.encode_batch_fast(_pieces(whole), add_special_tokens=False)
        return np.fromiter(chain.from_iterable(one.ids for one in found), np.uint32)

    def decode(self, ids: Sequence[int] | Integer[np.ndarray, " _"]) -> bytes:
        """The bytes that the ids stand for; ids that the file does not name stand for none."""
        table = self._table
        every = np.asarray(ids, np.int64).tolist()
        return b"".join(table[token] for token in every if 0 <= token < len(table))

    def to_json(self) -> str:
        """The file."""
        return self._content

    def to_file(self) -> str:
        """The file."""
        return self._content


def _pieces(text: str) -> list[str]:
    """A text in pieces of about a million characters, cut behind line ends where there are any."""
    found, at = [], 0
    while at < len(text):
        end = min(at + PIECE, len(text))
        if end < len(text):
            end = text.rfind("\n", at, end) + 1 or end
        found.append(text[at:end])
        at = end
    return found


def _of_characters(token: str) -> bytes:
    """The bytes behind the printable characters of byte-level tokens."""
    numbers = {character: byte for byte, character in enumerate(CHARACTERS)}
    return bytes(numbers[c] for c in token) if all(c in numbers for c in token) else token.encode()


def _of_text(token: str) -> bytes:
    """The bytes of a token of SentencePiece: a low line for a blank, <0xAB> for a lone byte."""
    lone = BYTE.fullmatch(token)
    return bytes([int(lone[1], 16)]) if lone else token.replace("\u2581", " ").encode()
