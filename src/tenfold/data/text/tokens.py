"""From text to numbers: tokenizers without loss, and windows of tokens to train and score on."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Any, Literal, TypeAlias

import numpy as np
from jaxtyping import Bool, Int64, Integer, UInt

from tenfold.extras import install

from .tokenizer_file import CHARACTERS, FileTokenizer

MAX_VOCAB = 2**16
"""Ids are kept in 16 bits."""
MAX_TOKEN_BYTES = 64
MAX_JSON = 2**22
"""Most characters of a tokenizer in a weights file; 65,536 tokens need about 900,000."""
BATCH = 2**20
"""Characters that are encoded at a time: the package needs many times their memory."""
LONGEST = 2**16
"""Characters of a line: what is longer is taken as several."""


class ByteTokenizer:
    """A token is a byte."""

    vocab = 256
    """Number of tokens: ids are 0 to vocab - 1."""

    @property
    def lengths(self) -> Int64[np.ndarray, " vocab"]:
        """1 for every token."""
        return np.ones(self.vocab, np.int64)

    def encode(self, text: bytes) -> UInt[np.ndarray, " _"]:
        """The bytes themselves, uint8; any bytes will do."""
        return np.frombuffer(text, np.uint8)

    def decode(self, ids: Sequence[int] | Integer[np.ndarray, " _"]) -> bytes:
        """The bytes; ValueError for an id outside 0..255."""
        return _checked(ids, self.vocab).astype(np.uint8).tobytes()

    def to_json(self) -> str:
        """Nothing is needed."""
        return ""

    def to_file(self) -> str:
        """The same as a tokenizer.json of the package `tokenizers`."""
        return BpeTokenizer([]).to_file()


class BpeTokenizer:
    """Byte-pair encoding over bytes, learnt and applied within lines by the package `tokenizers`.

    Tokens 0 to 255 are the bytes, the others pairs of earlier tokens, in the order in which they
    were learnt. No token reaches across a line end, so text that is cut there has the same tokens
    as a whole. Words are split as GPT-2 does.
    """

    def __init__(self, merges: Sequence[tuple[int, int]]) -> None:
        """``merges``: pairs of earlier ids, best first.

        Raises ValueError for pairs that name no earlier token or come twice, and for more than
        65,536 tokens or 64 bytes in one.
        """
        self.merges = tuple(merges)
        table = [bytes([byte]) for byte in range(256)]
        known = set(table)
        seen = set()
        for number, (left, right) in enumerate(self.merges):
            if not (0 <= left < len(table) and 0 <= right < len(table)) or (left, right) in seen:
                raise ValueError(
                    f"merge {number} of the tokenizer is {(left, right)}: expected a new pair of "
                    f"ids from 0 to {len(table) - 1}. Train the tokenizer again."
                )
            seen.add((left, right))
            token = table[left] + table[right]
            if token not in known:  # two pairs may give the same token
                known.add(token)
                table.append(token)
            if len(token) > MAX_TOKEN_BYTES or len(table) > MAX_VOCAB:
                raise ValueError(
                    f"merge {number} of the tokenizer makes token {len(table) - 1} of "
                    f"{len(token)} bytes; the limits are {MAX_VOCAB} tokens and "
                    f"{MAX_TOKEN_BYTES} bytes. Train it with a smaller vocabulary."
                )
        self._table = table

    @classmethod
    def train(cls, texts: Iterable[bytes], vocab_size: int) -> BpeTokenizer:
        """Learn from UTF-8 texts; the same texts in the same order give the same tokenizer.

        The vocabulary is smaller than ``vocab_size`` where no pair is left that occurs twice.
        Raises ValueError for sizes outside 257..65536 and for text that is not UTF-8.
        """
        if not 256 < vocab_size <= MAX_VOCAB:
            raise ValueError(
                f"a vocabulary of {vocab_size} tokens was asked for; the 256 bytes and their pairs "
                f"need 257 to {MAX_VOCAB}. For 256 use the tokenizer 'byte'."
            )
        package = _package()
        made = package.Tokenizer(package.models.BPE())
        made.pre_tokenizer = package.pre_tokenizers.ByteLevel(add_prefix_space=False)
        trainer = package.trainers.BpeTrainer(
            vocab_size=vocab_size,
            min_frequency=2,
            show_progress=False,
            initial_alphabet=list(CHARACTERS),
            max_token_length=MAX_TOKEN_BYTES,
        )
        made.train_from_iterator(
            chain.from_iterable(chain.from_iterable(map(_batches, texts))), trainer
        )
        ids = {character: byte for byte, character in enumerate(CHARACTERS)}
        merges = []
        for left, right in json.loads(made.to_str())["model"]["merges"]:
            merges.append((ids[left], ids[right]))
            ids.setdefault(left + right, len(ids))
        return cls(merges)

    @property
    def vocab(self) -> int:
        """Number of tokens."""
        return len(self._table)

    @property
    def lengths(self) -> Int64[np.ndarray, " vocab"]:
        """Bytes that each token stands for."""
        return np.array([len(token) for token in self._table], np.int64)

    def encode(self, text: bytes) -> UInt[np.ndarray, " _"]:
        """The ids of UTF-8 text, uint16; ValueError naming the first byte that is not UTF-8."""
        parts = [np.empty(0, np.uint16)]
        for lines in _batches(text):
            found = self._encoder.encode_batch_fast(lines, add_special_tokens=False)
            every = chain.from_iterable(one.ids for one in found)
            parts.append(np.fromiter(every, np.uint16))
        return np.concatenate(parts)

    def decode(self, ids: Sequence[int] | Integer[np.ndarray, " _"]) -> bytes:
        """The bytes that the ids stand for; ValueError for an id outside the vocabulary."""
        return b"".join([self._table[token] for token in _checked(ids, self.vocab).tolist()])

    def to_json(self) -> str:
        """The merges, which are all there is to know."""
        return json.dumps({"type": "BPE", "merges": self.merges}, separators=(",", ":"))

    def to_file(self) -> str:
        """The same as a tokenizer.json of the package `tokenizers`."""
        made = self._encoder
        made.decoder = _package().decoders.ByteLevel()
        text: str = made.to_str()
        return text

    @classmethod
    def from_json(cls, text: str) -> BpeTokenizer:
        """Read what `to_json` wrote; ValueError for anything else, which may be hostile."""
        way_out = "Train the tokenizer again."
        if len(text) > MAX_JSON:
            raise ValueError(
                f"the tokenizer has {len(text)} characters, at most {MAX_JSON} are read. {way_out}"
            )
        try:
            content = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"the tokenizer is not valid JSON: {error}. {way_out}") from error
        kind = content.get("type") if isinstance(content, dict) else type(content).__name__
        if kind != "BPE":
            raise ValueError(f"the tokenizer is of type {str(kind)[:40]!r}, not 'BPE'. {way_out}")
        merges = content.get("merges")
        if set(content) != {"type", "merges"} or not isinstance(merges, list):
            raise ValueError(f"the tokenizer is not a list of merges written by us. {way_out}")
        for number, pair in enumerate(merges):
            right_kind = isinstance(pair, list) and len(pair) == 2
            if not right_kind or any(type(one) is not int for one in pair):
                raise ValueError(f"merge {number} of the tokenizer is no pair of ids. {way_out}")
        return cls([(left, right) for left, right in merges])

    @cached_property
    def _encoder(self) -> Any:
        """The package's tokenizer, which is needed to encode only."""
        package = _package()
        names = ["".join(CHARACTERS[byte] for byte in token) for token in self._table]
        merges = [(names[left], names[right]) for left, right in self.merges]
        vocab = {name: number for number, name in enumerate(names)}
        made = package.Tokenizer(package.models.BPE(vocab=vocab, merges=merges))
        made.pre_tokenizer = package.pre_tokenizers.ByteLevel(add_prefix_space=False)
        return made


Tokenizer: TypeAlias = ByteTokenizer | BpeTokenizer | FileTokenizer
"""All have vocab, lengths, encode, decode and to_json."""


def from_spec(name: Literal["byte", "bpe", "file"], learnt: str = "") -> Tokenizer:
    """The tokenizer of a configuration: its name, and what its `to_json` gave."""
    if name == "file":
        return FileTokenizer(learnt)
    if name == "bpe" and not learnt:
        raise ValueError(
            "a byte-pair tokenizer has to be learnt first, and these weights hold none. Train on "
            "text, or use --data.tokenizer byte."
        )
    return ByteTokenizer() if name == "byte" else BpeTokenizer.from_json(learnt)


def _package() -> Any:
    try:
        import tokenizers
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"byte-pair encoding needs the package tokenizers: {install('text')}; or use "
            "--data.tokenizer byte",
            name="tokenizers",
        ) from error
    return tokenizers


def _batches(text: bytes) -> Iterator[list[str]]:
    """The lines of a text with their ends, in order, about a million characters at a time."""
    try:
        whole = text.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"byte {error.start} of the text is not UTF-8; byte-pair encoding needs whole "
            "characters. Re-encode the text, or use --data.tokenizer byte."
        ) from error
    batch: list[str] = []
    at = first = 0
    while at < len(whole):
        end = whole.find("\n", at, at + LONGEST) + 1 or min(at + LONGEST, len(whole))
        batch.append(whole[at:end])
        at = end
        if at - first >= BATCH or at == len(whole):
            yield batch
            batch, first = [], at


def _checked(ids: Sequence[int] | Integer[np.ndarray, " _"], vocab: int) -> Int64[np.ndarray, " _"]:
    found = np.asarray(ids)
    if not found.size:
        return np.empty(0, np.int64)
    wrong = np.flatnonzero((found < 0) | (found >= vocab))
    if len(wrong):
        raise ValueError(
            f"token {found[wrong[0]]} at place {wrong[0]} is none of the {vocab} of this "
            f"vocabulary, 0 to {vocab - 1}. Decode with the tokenizer that made the ids."
        )
    return found.astype(np.int64)


@dataclass(frozen=True)
class InOrder:
    """Windows that follow each other; token i + 1 is the target of token i."""

    tokens: Int64[np.ndarray, "window length"]
    """Ids, seq + 1 of them; the last window of a domain is padded with 0 behind its targets."""
    mask: Bool[np.ndarray, "window seq"]
    """Mask of the real targets."""
    bytes: Int64[np.ndarray, " window"]
    """Bytes that the real targets of each window stand for: the unit of bits per byte."""


GOLDEN = (5**0.5 - 1) / 2
"""Its multiples are spread over the unit interval more evenly than any other number's."""


class TokenWindows:
    """Windows of ``seq`` tokens and their targets, over the ids of some domains.

    Ids stay in the 8, 16 or 32 bits in which they came; only the windows asked for become int64.
    """

    def __init__(
        self,
        ids: Mapping[str, UInt[np.ndarray, " _"]],
        seq: int,
        lengths: Int64[np.ndarray, " vocab"] | None = None,
        weights: Sequence[float] | None = None,
    ) -> None:
        """``lengths``: bytes of each token of the vocabulary; None: a token is a byte.

        ``weights``: share of each domain in the rows that are drawn, not below 0, on any scale;
        None: domains take turns.
        """
        if seq < 1:
            raise ValueError(f"windows need 1 token or more, got {seq}. Set a longer sequence.")
        if not ids:
            raise ValueError("windows need the tokens of one domain or more, got none.")
        for domain, own in ids.items():
            if len(own) < 2:
                raise ValueError(
                    f"{domain} has {len(own)} tokens, 2 are needed to predict one from the "
                    "other. Give more text."
                )
        self.ids = dict(ids)
        self.domains = tuple(ids)
        self.seq = seq
        self.lengths = np.ones(256, np.int64) if lengths is None else lengths
        self._ends = None if weights is None else np.cumsum(weights) / np.sum(weights)

    def domain_of(self, rows: int, index: int = 0) -> Int64[np.ndarray, "{rows}"]:
        """Number of the domain of each row of draw ``index``.

        Domains take turns, on from one draw to the next where ``rows`` is no multiple of their
        number: over all draws each has equally many. With weights, row n takes the domain in whose
        share the fraction of n times the golden ratio falls: any stretch of rows is divided nearly
        as the weights are, and row n is known without those before it.
        """
        row = np.arange(rows, dtype=np.int64) + index * rows
        if self._ends is None:
            return row % len(self.domains)
        found = np.searchsorted(self._ends, (row + 0.5) * GOLDEN % 1, side="right")
        return np.minimum(found, len(self.domains) - 1).astype(np.int64)

    def draw(
        self, rows: int, seed: int, index: int = 0, share: slice = slice(None)
    ) -> Int64[np.ndarray, "row {self.seq}+1"]:
        """Random windows, the domains in turn; nothing but the arguments decides which.

        All ``rows`` of draw ``index`` are drawn, those of ``share`` (of this process, say) are
        returned. Raises ValueError if a domain is shorter than a window.
        """
        lengths = np.array([len(own) for own in self.ids.values()])
        if lengths.min() <= self.seq:
            domain = self.domains[lengths.argmin()]
            raise ValueError(
                f"{domain} has {lengths.min()} tokens, but a window of {self.seq} and its target "
                f"needs {self.seq + 1}. Shorten the sequences or give more text."
            )
        domain_of = self.domain_of(rows, index)
        starts = np.random.default_rng([seed, index]).integers(lengths[domain_of] - self.seq)
        drawn = list(zip(domain_of.tolist(), starts.tolist(), strict=True))[share]
        found = np.empty((len(drawn), self.seq + 1), np.int64)
        for row, (domain, start) in enumerate(drawn):
            found[row] = self.ids[self.domains[domain]][start : start + self.seq + 1]
        return found

    def count(self, domain: str) -> int:
        """Number of windows of a domain in order, the last one perhaps shorter."""
        return -(-(len(self.ids[domain]) - 1) // self.seq)

    def in_order(self, domain: str, first: int = 0, last: int | None = None) -> InOrder:
        """Windows ``first`` to ``last`` - 1 (None: all) of a domain, end to end.

        Over all windows every token but the first is the target once, so that bits per byte are
        the sum of the losses in nats / ln 2 / the sum of the bytes.
        """
        own = self.ids[domain]
        windows = range(self.count(domain))[first:last]
        tokens = np.zeros((len(windows), self.seq + 1), np.int64)
        mask = np.zeros((len(windows), self.seq), bool)
        for row, window in enumerate(windows):
            part = own[window * self.seq : (window + 1) * self.seq + 1]
            tokens[row, : len(part)] = part
            mask[row, : len(part) - 1] = True
        return InOrder(tokens, mask, (self.lengths[tokens[:, 1:]] * mask).sum(1))
