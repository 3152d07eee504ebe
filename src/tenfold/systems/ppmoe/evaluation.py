"""Bits per byte of a split, by domain, and of baselines that only count bytes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from tenfold.core import dist
from tenfold.core.dist import World
from tenfold.core.divide import divided
from tenfold.core.system import Evaluation
from tenfold.data.text.corpus import Corpus
from tenfold.data.text.tokens import TokenWindows

from .config import Config
from .model import Gpt
from .pipeline import Part, Tally
from .routing_load import Load, some_windows

COUNTED = 2**22
"""Tokens that are counted at a time."""
BATCH = 32
"""Windows that are read at a time."""


@dataclass(frozen=True)
class Details:
    """The part of an evaluation that figures need beside its metrics."""

    split: str
    bits: dict[str, float]
    """Bits per byte of each domain."""
    load: Mapping[str, Load] | None = None
    """Share of each domain's tokens that each expert is chosen for, where the model is divided;
    else figures ask the network."""


def evaluate(
    model: Gpt | Part,
    cfg: Config,
    corpus: Corpus | TokenWindows,
    windows: TokenWindows,
    split: str,
) -> Evaluation:
    """Measure the model and the baselines on the windows of a split.

    corpus: Text to count bytes of, or windows to train on, whose tokens are counted.
    model: The whole, or this process's part of it.
    """
    most, load = cfg.data.eval_windows, None
    if isinstance(model, Part):
        world = dist.current()
        bits = bits_of_parts(model, windows, world, most)
        load = load_of_parts(model, windows, world)
    else:
        bits = bits_per_byte(model, windows, most)
    if isinstance(corpus, TokenWindows):
        beside = {"token frequencies": _flat(token_frequencies(corpus, windows, most))}
    else:
        beside = baselines(cfg, corpus, split)
    return Evaluation(_flat(bits), beside, Details(split, bits, load))


@torch.no_grad()
def bits_per_byte(model: Gpt, windows: TokenWindows, most: int = 0) -> dict[str, float]:
    """Bits per byte of each domain; every byte but a domain's first is predicted once.

    Args:
        model: The whole model; it is put in eval mode.
        windows: Text to predict; the processes share its batches.
        most: Windows of each domain, from its beginning; 0 reads all.

    Returns:
        Domain -> sum of the tokens' losses / ln 2 / bytes that they stand for.
    """
    model.eval()
    device = next(model.parameters()).device
    batches = _batches(windows, most)

    def measured(index: int) -> tuple[float, int]:
        """Nats of a batch, and the bytes that they are for."""
        rows = windows.in_order(*batches[index])
        losses = token_losses(model, torch.from_numpy(rows.tokens).to(device))
        nats = float(losses[torch.from_numpy(rows.mask).to(device)].double().sum())
        return nats, int(rows.bytes.sum())

    return _bits(windows, batches, divided(len(batches), measured, "evaluation"))


@torch.no_grad()
def bits_of_parts(
    part: Part, windows: TokenWindows, world: World, most: int = 0
) -> dict[str, float]:
    """The same of a model that is divided among processes; all call it, none holds the whole.

    Replicas take batches in turn, each as many: experts may lie on other replicas.
    """
    part.eval()
    dp = part.grid.dp
    batches = _batches(windows, most)
    rounds = -(-len(batches) // dp.size)
    found = []
    for turn in range(rounds):
        index = turn * dp.size + dp.rank
        rows = windows.in_order(*batches[min(index, len(batches) - 1)])
        losses = part.token_losses(torch.from_numpy(rows.tokens).to(part.device))
        nats = float(losses[torch.from_numpy(rows.mask).to(part.device)].double().sum())
        if index < len(batches) and part.grid.tp.rank == part.grid.pp.rank == 0:
            found.append((index, nats, int(rows.bytes.sum())))
    every = sorted(tuple(one) for some in world.gather(found) for one in some)
    return _bits(windows, batches, [(nats, size) for _, nats, size in every])


def _batches(windows: TokenWindows, most: int) -> list[tuple[str, int, int]]:
    """Domain, first and last window of each batch."""
    batches = []
    for domain in windows.domains:
        count = windows.count(domain)
        last = min(most or count, count)
        batches += [(domain, i, min(i + BATCH, last)) for i in range(0, last, BATCH)]
    return batches


def _bits(
    windows: TokenWindows,
    batches: list[tuple[str, int, int]],
    parts: list[tuple[float, int]],
) -> dict[str, float]:
    """Bits per byte of domains, from nats and bytes of batches in their order."""
    nats, size = dict.fromkeys(windows.domains, 0.0), dict.fromkeys(windows.domains, 0)
    for (domain, *_), (own_nats, own_bytes) in zip(batches, parts, strict=True):
        nats[domain] += own_nats
        size[domain] += own_bytes
    return {domain: nats[domain] / math.log(2) / size[domain] for domain in windows.domains}


@torch.no_grad()
def load_of_parts(part: Part, windows: TokenWindows, world: World) -> dict[str, Load]:
    """Share of each domain's tokens that experts are chosen for (`figures.expert_load`)."""
    layers = part.cfg.model.moe_layers
    found = {}
    part.eval()
    for domain, tokens in some_windows(windows).items():
        tally = Tally(layers, part.cfg.model.experts, part.device)
        for own in part.held.values():
            own.routed = tally.add
        whole = tokens.shape[1] - tokens.shape[1] % part.grid.tp.size  # which tensor ranks share
        rows = torch.cat([tokens[:, :whole], tokens[:, :1]], 1)  # the last is a target alone
        part.token_losses(rows.to(part.device))
        for own in part.held.values():
            own.routed = None
        counts = part.grid.all.sum_(tally.counts().clone())  # a stage's rows are 0 elsewhere
        found[domain] = (counts / counts.sum(1, keepdim=True).clamp(min=1)).cpu().numpy()
    return found


def token_losses(model: Gpt, tokens: Int64[Tensor, "row time"]) -> Float[Tensor, "row target"]:
    """Cross-entropy in nats of each token but the first."""
    return model.losses(model.trunk(tokens[:, :-1]), tokens[:, 1:])


def token_frequencies(
    train: TokenWindows, windows: TokenWindows, most: int = 0
) -> dict[str, float]:
    """Bits per byte of a model that knows how frequent each token is in training."""
    seen = np.ones(len(windows.lengths))
    for ids in train.ids.values():
        for start in range(0, len(ids), COUNTED):
            seen += np.bincount(ids[start : start + COUNTED], minlength=len(seen))
    cost = -np.log2(seen / seen.sum())
    found: dict[str, tuple[float, int]] = {}
    for domain, first, last in _batches(windows, most):
        rows = windows.in_order(domain, first, last)
        bits, size = found.get(domain, (0.0, 0))
        found[domain] = (
            bits + float((cost[rows.tokens[:, 1:]] * rows.mask).sum()),
            size + int(rows.bytes.sum()),
        )
    return {domain: bits / size for domain, (bits, size) in found.items()}


def baselines(cfg: Config, corpus: Corpus, split: str) -> dict[str, dict[str, float]]:
    """Byte frequencies, and frequencies of a byte after the one before it, of the training."""
    texts = getattr(corpus, split)
    if cfg.data.eval_windows and cfg.data.tokenizer == "byte":  # the same text
        end = cfg.data.eval_windows * cfg.model.seq + 1
        texts = {domain: part[:end] for domain, part in texts.items()}
    train = list(corpus.train.values())

    def counted(index: int) -> tuple[np.ndarray, np.ndarray]:
        """Each byte and each pair of bytes in a domain."""
        part = train[index]
        pairs = part[:-1].astype(np.int64) * 256 + part[1:]
        return np.bincount(part, minlength=256), np.bincount(pairs, minlength=65536)

    # every byte has been seen once, every pair a tenth of a time: nothing is impossible
    single, double = np.ones(256), np.full((256, 256), 0.1)
    for bytes_seen, pairs_seen in divided(len(train), counted):
        single += bytes_seen
        double += pairs_seen.reshape(256, 256)
    ones = -np.log2(single / single.sum())
    twos = -np.log2(double / double.sum(1, keepdims=True))
    return {
        "byte frequencies": _flat({d: float(ones[x[1:]].mean()) for d, x in texts.items()}),
        "pairs of bytes": _flat({d: float(twos[x[:-1], x[1:]].mean()) for d, x in texts.items()}),
    }


def _flat(bits: dict[str, float]) -> dict[str, float]:
    flat = {f"bits/{domain}/per byte": value for domain, value in bits.items()}
    return flat | {"bits/mean/per byte": float(np.mean(list(bits.values())))}
