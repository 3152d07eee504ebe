"""Text to windows of tokens, and which text a configuration means."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from tenfold.core.dist import World
from tenfold.core.seed import seed_of
from tenfold.core.system import DataUsed
from tenfold.data import catalog
from tenfold.data.text import corpus as texts
from tenfold.data.text import tokens

from .config import Config, Data

LEARN_FROM = 1 << 20
"""Bytes of each domain from which a byte pair encoding is learned."""


@lru_cache(maxsize=2)
def corpus(name: str, path: str) -> texts.Corpus:
    """The text of a configuration, read once."""
    return texts.load(name, path)  # type: ignore[arg-type]


def complete(cfg: Config) -> Config:
    """Fall back to Python's sources where textmix is not found; learn the encoding; fix V."""
    data = cfg.data
    if data.path and data.name == "textmix" and not (Path(data.path) / "manifest.json").is_file():
        data = replace(data, name="files")
    if data.name == "textmix" and not data.path and catalog.find("textmix") is None:
        data = replace(data, name="python")
    if data.tokenizer == "bpe" and not data.bpe:
        text = corpus(data.name, data.path)
        parts = [train[:LEARN_FROM].tobytes() for train in text.train.values()]
        data = replace(data, bpe=tokens.BpeTokenizer.train(parts, data.bpe_vocab).to_json())
    vocab = tokens.from_spec(data.tokenizer, data.bpe).vocab
    if cfg.model.vocab not in (0, vocab):
        raise ValueError(
            f"model.vocab is {cfg.model.vocab}, but the {data.tokenizer} tokenizer has {vocab} "
            "tokens; leave model.vocab at 0"
        )
    return replace(cfg, data=data, model=replace(cfg.model, vocab=vocab))


class Text:
    """The tokens of a configuration, by split; read when first asked for."""

    def __init__(self, cfg: Config) -> None:
        self.cfg = cfg
        self.tokenizer = tokens.from_spec(cfg.data.tokenizer, cfg.data.bpe)
        self._windows: dict[str, tokens.TokenWindows] = {}

    @property
    def corpus(self) -> texts.Corpus:
        """The text."""
        return corpus(self.cfg.data.name, self.cfg.data.path)

    def windows(self, split: str) -> tokens.TokenWindows:
        """Windows of a split: train, validation or test."""
        if split not in self._windows:
            parts = getattr(self.corpus, split)
            ids = {name: self.tokenizer.encode(part.tobytes()) for name, part in parts.items()}
            self._windows[split] = tokens.TokenWindows(
                ids, self.cfg.model.seq, self.tokenizer.lengths
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
    text = corpus(data.name, data.path)
    return DataUsed(text.name, "real", text.note, text.licence)
