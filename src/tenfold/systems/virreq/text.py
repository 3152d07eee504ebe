"""Vectors of concepts: from CLIP's text encoder, or from a stored table of its vectors.

The official code encodes the bare class names at every step (`CLIP_CLS_SEG` in
mmseg/models/decode_heads/decode_head_cpp_part.py). Here they are encoded once, into a table that is
kept with the weights. A name with its whole ("the head of a bed"), synonyms, and vectors without
the mean of a large list of words are options: words alone cannot tell the eleven that ADE20K has
both as an object and as a part, and the cosine of unrelated words is about 0.7.
"""

from __future__ import annotations

import hashlib
import re
import warnings
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from tenfold.data.io.npz import read_npz
from tenfold.data.text.clip_tokens import ClipTokenizer
from tenfold.nn.clip_blocks import HEAD_CHANNELS
from tenfold.nn.clip_text import ClipTextTower
from tenfold.printable import Lines
from tenfold.weights.clip import ClipSettings, assumption, settings_beside
from tenfold.weights.clip_text import convert_clip_text, describe_clip_text
from tenfold.weights.containers import read_checkpoint

from .official import text_tower
from .table import nearest

Prompt = Literal["raw", "a-name", "part-of-whole"]
"""Sentences: the name as it is (official), "a {name}", "the {part} of a {whole}"."""
VIT_B32 = "CLIP ViT-B/32"
STORED = "clip_vitb32_a_name.npz"
"""The stored table among the data sets, made with the prompt "a {name}"."""
MOST_BYTES = 2**28
"""Of an array of a table."""
SAME = 0.99
"""Cosine from which an encoder's vector and a stored one are of the same text space."""
PROMPTS: tuple[Prompt, ...] = ("raw", "a-name", "part-of-whole")
BATCH = 64
"""Texts that are encoded at once."""

Vectors = Float[Tensor, "text dim"]


@dataclass(frozen=True)
class Concept:
    """What a table needs to know of a concept."""

    key: str
    """Its name in the table: the id of the knowledge base, which no other concept has."""
    name: str
    synonyms: tuple[str, ...] = ()
    wholes: tuple[str, ...] = ()
    """Names of the concepts that it is a part of; none for what a scene has."""
    parts: tuple[str, ...] = ()
    """Names of its parts, whose mean says something of it where no word of its own is known."""


class UnknownWordsError(ValueError):
    """An encoder that has a list of words has none of a concept's."""


@runtime_checkable
class Encoder(Protocol):
    """A source of vectors for words."""

    space: str
    """Names what made the vectors: those of two spaces have nothing to do with each other."""
    dim: int

    def vectors(self, concept: Concept, prompt: Prompt) -> Vectors:
        """A vector for each of the texts that say this concept."""
        ...

    def mean(self, prompt: Prompt) -> Float[Tensor, " dim"]:
        """Mean of the vectors, at length 1, of a large list of words."""
        ...


def sentences(concept: Concept, prompt: Prompt) -> list[str]:
    """The texts that say a concept: for each of its words, and of its wholes."""
    words = (concept.name, *concept.synonyms)
    if prompt == "raw":
        return list(words)
    words = tuple(_spoken(word) for word in words)
    if prompt == "a-name" or not concept.wholes:
        return [f"a {word}" for word in words]
    return [f"the {word} of a {_spoken(whole)}" for word in words for whole in concept.wholes]


def vectors_of(
    concepts: Sequence[Concept], encoder: Encoder, prompt: Prompt, centred: bool = False,
    draw: bool = False,
) -> tuple[Vectors, list[str]]:  # fmt: skip
    """A vector of length 1 for each concept, the mean of those of its texts; and what was drawn.

    Args:
        concepts: What the table is of.
        encoder: What knows the texts.
        prompt: Sentences in which words are put.
        centred: Whether the mean of many words is subtracted from each text's vector first.
        draw: Whether a concept of which the encoder knows no word has the mean of its parts, or
            without any a direction drawn by its key, which says that it is no other and nothing
            more; the keys of the latter are returned.

    Raises:
        ValueError: The encoder knows none of a concept's words, or has no such prompt.
    """
    middle = encoder.mean(prompt) if centred or draw else torch.zeros(encoder.dim)
    found, drawn = [], []
    for concept in concepts:
        try:
            texts = F.normalize(encoder.vectors(concept, prompt).float(), dim=-1)
        except UnknownWordsError:
            if not draw:
                raise
            texts = _of_parts(concept, encoder, prompt)
            if not len(texts):
                drawn.append(concept.key)
                texts = _drawn(concept.key, middle)[None]
        if centred:
            texts = F.normalize(texts - middle, dim=-1)
        found.append(F.normalize(texts.mean(0), dim=0))
    return torch.stack(found) if found else torch.zeros(0, encoder.dim), drawn


def _of_parts(concept: Concept, encoder: Encoder, prompt: Prompt) -> Vectors:
    """Vectors of length 1 of those parts that the encoder knows."""
    found = [torch.zeros(0, encoder.dim)]
    for part in concept.parts:
        try:
            found.append(encoder.vectors(Concept(part, part), prompt).float())
        except UnknownWordsError:
            continue
    return F.normalize(torch.cat(found), dim=-1)


def _drawn(key: str, middle: Float[Tensor, " dim"]) -> Float[Tensor, " dim"]:
    """A direction as far from the mean of all words as a word is."""
    seed = torch.Generator().manual_seed(zlib.crc32(key.encode()))
    away = F.normalize(torch.randn(len(middle), generator=seed), dim=0)
    return middle + (1 - middle.square().sum()).clamp(min=0).sqrt() * away


def space_of(encoder: Encoder, prompt: Prompt, centred: bool) -> str:
    """The name of a table's space: encoder, prompt, and whether it is centred."""
    return f"{encoder.space}, prompt {prompt}{', centred' if centred else ''}"


def _spoken(word: str) -> str:
    return " ".join(word.replace("_", " ").split())


# --- a stored table -----------------------------------------------------------------------------


class StoredTexts:
    """Vectors of a list of words, made once by an encoder that need not be here."""

    def __init__(
        self, names: Sequence[str], vectors: Vectors, space: str, prompt: Prompt, source: str
    ) -> None:
        self.names, self.rows = tuple(names), F.normalize(vectors.float(), dim=-1)
        self.space, self.prompt, self.source = space, prompt, source
        self.dim = self.rows.shape[1]
        self._exact = {name: row for row, name in reversed(list(enumerate(self.names)))}
        self._folded: dict[str, int] = {}
        for row, name in enumerate(self.names):
            self._folded.setdefault(folded(name), row)

    @classmethod
    def read(cls, path: Path) -> StoredTexts:
        """A table of `names`, `vectors`, `space` and `prompt`, or that of `STORED`.

        Raises:
            ValueError: The file is damaged, or its arrays do not fit together.
        """
        own, ready = ("names", "vectors", "space", "prompt"), ("lvis_names", "lvis", "coco_names",
                                                               "coco")  # fmt: skip
        found, have = read_npz(path, (*own, *ready), MOST_BYTES)
        for key, array in found.items():
            if array.dtype.kind == "U" and not _is_text(array):
                raise ValueError(f"{path}: {key} holds characters that there are not")
        if set(own) <= found.keys():
            space, prompt = str(found["space"]), _prompt(str(found["prompt"]), path)
            names, vectors = found["names"], found["vectors"]
        elif set(ready) <= found.keys():
            space, prompt = VIT_B32, "a-name"
            names = np.concatenate([found["lvis_names"], found["coco_names"]])
            vectors = np.concatenate([found["lvis"], found["coco"]])
        else:
            raise ValueError(
                f"{path} holds {', '.join(have[:8])}; a table of texts has {', '.join(own)}"
            )
        if names.ndim != 1 or names.dtype.kind != "U" or vectors.shape[:1] != names.shape:
            raise ValueError(
                f"{path}: {names.shape} names of type {names.dtype} do not fit vectors of shape "
                f"{vectors.shape}"
            )
        if vectors.ndim != 2 or vectors.dtype.kind != "f" or not np.isfinite(vectors).all():
            raise ValueError(
                f"{path}: vectors of shape {vectors.shape} and type {vectors.dtype} are no finite "
                "numbers, a row a name"
            )
        words = [str(name) for name in names]
        rows = torch.from_numpy(vectors.astype(np.float32))
        return cls(words, rows, space, prompt, path.name)

    def find(self, word: str) -> int | None:
        """The row of a word: as it stands, else without case, underscores, brackets, plural."""
        row, plain = self._exact.get(word), folded(word)
        for near in (plain, plain.removesuffix("s")):
            row = self._folded.get(near) if row is None else row
        return row

    def vectors(self, concept: Concept, prompt: Prompt) -> Vectors:
        """Those of the concept's name and synonyms that the table has."""
        self._require(prompt)
        words = (concept.name, *concept.synonyms)
        rows = [row for row in map(self.find, words) if row is not None]
        if not rows:
            said = " or ".join(repr(word) for word in words)
            raise UnknownWordsError(
                f"{self.source} has no text {said}: {nearest(concept.name, self.names)}; give "
                "one as a synonym, or an encoder (--text.clip)"
            )
        return self.rows[rows]

    def mean(self, prompt: Prompt) -> Float[Tensor, " dim"]:
        """Mean of all rows."""
        self._require(prompt)
        return self.rows.mean(0)

    def _require(self, prompt: Prompt) -> None:
        if prompt != self.prompt:
            raise ValueError(
                f"{self.source} was made with the prompt {self.prompt}, not {prompt}; another "
                "needs an encoder (--text.clip)"
            )


def folded(word: str) -> str:
    """A word without case, underscores, and what stands in brackets behind it."""
    return _spoken(re.sub(r"\(.*?\)", " ", word)).lower()


def _is_text(array: np.ndarray) -> bool:
    """Whether an array of texts has characters of Unicode alone, halves of pairs not among them."""
    if not array.dtype.isnative:
        return False
    numbers = np.ascontiguousarray(array).reshape(-1).view(np.uint32)
    is_half = (numbers >= 0xD800) & (numbers < 0xE000)
    return bool((numbers <= 0x10FFFF).all()) and not is_half.any()


def _prompt(said: str, path: Path) -> Prompt:
    for known in PROMPTS:
        if said == known:
            return known
    raise ValueError(f"{path} has the prompt {said!r}; one of {', '.join(PROMPTS)} is expected")


# --- CLIP's encoder -----------------------------------------------------------------------------


def _unusual(settings: ClipSettings, width: int) -> str:
    """What of an encoder is not as OpenAI's: with it, the same tensors have another space."""
    heads, usual = settings.heads[1], max(1, width // HEAD_CHANNELS)
    said = f", {heads} heads" if heads not in (0, usual) else ""
    return said + (", gelu" if settings.activation == "gelu" else "")


class ClipTexts:
    """CLIP's text encoder with its tokens."""

    def __init__(
        self, tower: ClipTextTower, tokenizer: ClipTokenizer, space: str, words: Sequence[str] = ()
    ) -> None:
        """`words` are those whose mean is taken for centring."""
        self.tower, self.tokenizer, self.space, self.words = tower, tokenizer, space, tuple(words)
        self.dim = tower.text_projection.shape[1]

    @classmethod
    def read(cls, weights: Path, merges: Path, stored: StoredTexts | None = None) -> ClipTexts:
        """The encoder of a file of OpenAI (.pt), of transformers or of the authors' network.

        Its space is that of `stored` if the same words have the same vectors in both. Heads and
        activation are those of the JSON files beside it; a file without them is taken for
        OpenAI's, with a warning where no stored vectors show that it is.

        Raises:
            ValueError: It has no text encoder, or one of which keys are left; all are listed.
        """
        state = read_checkpoint(weights)
        inside = text_tower(state)
        state = inside or state
        try:
            sizes = describe_clip_text(state)
        except ValueError as error:
            raise ValueError(f"{weights}: {error}") from error
        # the authors' network has OpenAI's inside
        own = ClipSettings(assumed=False) if inside else settings_beside(weights, text=sizes.width)
        try:
            tower = ClipTextTower(
                sizes.width, sizes.layers, sizes.dim, sizes.context, sizes.vocabulary,
                own.heads[1], sizes.hidden, own.activation == "quick_gelu",
            )  # fmt: skip
            shapes = {key: tuple(value.shape) for key, value in tower.state_dict().items()}
            tower.load_state_dict(convert_clip_text(state, shapes).require_complete())
        except ValueError as error:
            raise ValueError(Lines(f"{weights}: {error}")) from error
        tokenizer = ClipTokenizer.read(merges)
        if tokenizer.end >= sizes.vocabulary:
            raise ValueError(
                f"{weights} has {sizes.vocabulary} tokens, {merges} {tokenizer.end + 1}; take the "
                "table of merges of the same CLIP"
            )
        mark = hashlib.sha256(tower.text_projection.numpy().tobytes()).hexdigest()[:12]
        space = f"CLIP text encoder {mark}{_unusual(own, sizes.width)}"
        found = cls(tower, tokenizer, space, stored.names if stored else ())
        if stored is not None and found.agrees(stored):
            found.space = stored.space
        elif own.assumed:
            warnings.warn(assumption("text.clip", weights), stacklevel=2)
        return found

    def agrees(self, stored: StoredTexts) -> bool:
        """Whether a few words of a stored table have the same direction here."""
        if stored.dim != self.dim or stored.prompt == "part-of-whole":
            return False
        names = stored.names[:: max(1, len(stored.names) // 8)][:8]
        ours = [sentences(Concept(name, name), stored.prompt)[0] for name in names]
        theirs = torch.stack([stored.rows[stored.names.index(name)] for name in names])
        return bool((F.normalize(self._encoded(ours), dim=-1) * theirs).sum(1).min() > SAME)

    def vectors(self, concept: Concept, prompt: Prompt) -> Vectors:
        """Those of all texts that say the concept."""
        return self._encoded(sentences(concept, prompt))

    def mean(self, prompt: Prompt) -> Float[Tensor, " dim"]:
        """Mean over a stored table's words."""
        if not self.words:
            raise ValueError(
                "text.centred needs a large list of words; give a table (--text.table)"
            )
        said = [sentences(Concept(word, word), prompt)[0] for word in self.words]
        return F.normalize(self._encoded(said), dim=-1).mean(0)

    def _encoded(self, texts: Sequence[str]) -> Vectors:
        tokens = torch.from_numpy(self.tokenizer.table(texts, self.tower.context))
        return torch.cat([self.tower(some) for some in tokens.split(BATCH)]).float()
