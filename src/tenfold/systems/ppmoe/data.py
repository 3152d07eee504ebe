"""Text to windows of tokens, and which text a configuration means."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt
from torch import Tensor

from tenfold.core.dist import World
from tenfold.core.seed import seed_of
from tenfold.core.system import DataUsed
from tenfold.data import catalog
from tenfold.data.text import corpus as texts
from tenfold.data.text import shards, tokens
from tenfold.data.text.tokenizer_file import FileTokenizer, read_tokenizer

from .config import Config, Data

LEARN_FROM = 1 << 20
"""Bytes of each domain from which a byte pair encoding is learned."""


@lru_cache(maxsize=2)
def corpus(name: str, path: str, field: str) -> texts.Corpus:
    """The text of a configuration, read once."""
    return texts.load(name, path, field)  # type: ignore[arg-type]


@lru_cache(maxsize=2)
def stored(path: str) -> shards.Tokens:
    """Tokens on disk, opened once."""
    return shards.read(Path(path))


def weights(data: Data) -> dict[str, float]:
    """Share of each domain in what is trained on; they add up to 1.

    Raises ValueError for a domain that the text has not, and for shares that are no numbers.
    """
    if data.name == "tokens":
        sizes = stored(data.path).sizes
    else:
        train = corpus(data.name, data.path, data.field).train
        sizes = {name: len(text) for name, text in train.items()}
    if data.weights == "bytes" or (not data.weights and data.name in ("files", "tokens")):
        found = {name: float(size) for name, size in sizes.items()}
    elif data.weights in ("", "equal"):
        found = dict.fromkeys(sizes, 1.0)
    else:
        found = dict.fromkeys(sizes, 0.0) | _numbers(data.weights, list(sizes))
    total = sum(found.values())
    return {name: share / total for name, share in found.items()}


def _numbers(text: str, domains: list[str]) -> dict[str, float]:
    """Shares as a user gives them."""
    found: dict[str, float] = {}
    for part in text.split(","):
        name, _, number = (piece.strip() for piece in part.partition("="))
        try:
            share = float(number)
        except ValueError:
            share = math.nan
        if not 0 <= share < math.inf or name not in domains or name in found:
            raise ValueError(
                f"data.weights has {part.strip()!r}; give bytes, equal, or numbers from 0 for some "
                f"of {', '.join(domains)}, each once, as in {domains[0]}=1"
            )
        found[name] = share
    if not sum(found.values()):
        raise ValueError(f"data.weights is {text!r}: no domain has more than 0; give one a share")
    return found


def complete(cfg: Config) -> Config:
    """Fall back to Python's sources where textmix is not found; learn the encoding; fix V."""
    data = cfg.data
    if data.path and data.name == "textmix" and not (Path(data.path) / "manifest.json").is_file():
        data = replace(data, name="tokens" if shards.is_tokens(Path(data.path)) else "files")
    if data.name == "textmix" and not data.path and catalog.find("textmix") is None:
        data = replace(data, name="python")
    data = with_tokenizer(data)
    if data.name == "tokens":
        found = stored(data.path)
        own, file = (found.tokenizer, found.learnt), cfg.data.tokenizer_file
        if file and (data.tokenizer, data.bpe) != own:
            raise ValueError(
                f"--data.tokenizer-file {file} is not the tokenizer of which the tokens of "
                f"{data.path} are; leave it out: the folder has its own"
            )
        data = replace(data, tokenizer=found.tokenizer, bpe=found.learnt)  # type: ignore[arg-type]
    if data.tokenizer == "bpe" and not data.bpe:
        text = corpus(data.name, data.path, data.field)
        parts = [train[:LEARN_FROM].tobytes() for train in text.train.values()]
        data = replace(data, bpe=tokens.BpeTokenizer.train(parts, data.bpe_vocab).to_json())
    weights(data)  # those that do not fit the text are refused before anything starts
    vocab = tokens.from_spec(data.tokenizer, data.bpe).vocab
    if not fits(cfg.model.vocab, vocab, data.tokenizer) and cfg.model.vocab:
        raise ValueError(
            f"model.vocab is {cfg.model.vocab}, but the {data.tokenizer} tokenizer has {vocab} "
            "tokens; leave model.vocab at 0"
        )
    return replace(cfg, data=data, model=replace(cfg.model, vocab=cfg.model.vocab or vocab))


def with_tokenizer(data: Data) -> Data:
    """Take in the tokenizer.json that is named, so that the configuration needs it no more."""
    if not data.tokenizer_file:
        return data
    content = _tokenizer_file(Path(data.tokenizer_file))
    return replace(data, tokenizer="file", bpe=content, tokenizer_file="")


def fits(model: int, tokenizer: int, kind: str) -> bool:
    """True if a model has the tokens of a tokenizer; published ones may have more, unused."""
    return model >= tokenizer if kind == "file" else model == tokenizer


def _tokenizer_file(file: Path) -> str:
    """The content of a tokenizer.json, which is checked."""
    if not file.is_file():
        raise FileNotFoundError(
            f"--data.tokenizer-file {file} does not exist; give a tokenizer.json of the package "
            "tokenizers"
        )
    try:
        return read_tokenizer(file).to_json()
    except ValueError as error:
        raise ValueError(f"--data.tokenizer-file {error}") from error


class Text:
    """The tokens of a configuration, by split; read when first asked for."""

    def __init__(self, cfg: Config) -> None:
        self.cfg = cfg
        self.tokenizer = tokens.from_spec(cfg.data.tokenizer, cfg.data.bpe)
        self._windows: dict[str, tokens.TokenWindows] = {}

    @property
    def corpus(self) -> texts.Corpus | None:
        """The text; None where there are tokens alone."""
        if self.cfg.data.name == "tokens":
            return None
        data = self.cfg.data
        return corpus(data.name, data.path, data.field)

    def _encoded(self, domain: str, text: bytes) -> UInt[np.ndarray, " _"]:
        ids = self.tokenizer.encode(text)
        if isinstance(self.tokenizer, FileTokenizer):
            self.tokenizer.require_whole(text, ids, domain)
        return ids

    def windows(self, split: str) -> tokens.TokenWindows:
        """Windows of a split: train, validation or test."""
        if split not in self._windows:
            shares = weights(self.cfg.data)
            if self.cfg.data.name == "tokens":
                ids = stored(self.cfg.data.path).ids(split)
            else:
                parts = getattr(self.corpus, split)
                ids = {n: self._encoded(n, part.tobytes()) for n, part in parts.items()}
            if split == "train":  # what has no share is not drawn from, but it is measured
                ids = {name: part for name, part in ids.items() if shares[name]}
            own = [shares[name] for name in ids]
            self._windows[split] = tokens.TokenWindows(
                ids,
                self.cfg.model.seq,
                self.tokenizer.lengths,
                None if len({*own}) == 1 else own,
            )
        return self._windows[split]

    def batch(self, index: int, dp: World) -> dict[str, Tensor]:
        """A micro-batch: this replica's rows, domains in turn; `seed` is for its dropout."""
        rows = self.windows("train").draw(
            self.cfg.batch, seed_of(self.cfg.seed, "batch"), index, dp.share(self.cfg.batch)
        )
        seed = seed_of(self.cfg.seed, "dropout", index, dp.rank)
        return {"tokens": torch.from_numpy(rows), "seed": torch.tensor(seed)}


def used(data: Data) -> DataUsed:
    """The data of a configuration, for pages and tables."""
    shares = ", ".join(f"{name} {share:.1%}" for name, share in weights(data).items())
    if data.name == "tokens":
        name, note, licence = "tokens", stored(data.path).note, "your own"
    else:
        text = corpus(data.name, data.path, data.field)
        name, note, licence = text.name, text.note, text.licence
    several = f" Rows to train on: {shares}." if "," in shares else ""
    return DataUsed(name, "real", note + several, licence)
