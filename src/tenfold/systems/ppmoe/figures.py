"""Figures of a run's report: which expert reads what, and bits per byte beside the baselines."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from tenfold.core.checkpoint import write_bytes
from tenfold.data.text.tokens import TokenWindows
from tenfold.viz import plots

from .model import Gpt, listening
from .routing import Routing

WINDOWS = 32
"""Windows of each domain that the figures read."""


def expert_load(
    model: Gpt, windows: dict[str, Int64[Tensor, "row time"]], batch: int = 32
) -> dict[str, Float[np.ndarray, "layer expert"]]:
    """Share of each domain's tokens that each expert of each mixture layer is chosen for.

    Args:
        model: The whole model.
        windows: Domain -> ids of at most seq tokens a row.
        batch: Rows that are read at a time.

    Returns:
        Domain -> shares whose rows sum to 1. With top-k, shares are of the k choices; tokens that
        a full queue drops are counted too.

    Raises:
        ValueError: A domain has no tokens.
    """
    layers = {index: row for row, index in enumerate(model.cfg.moe_layers)}
    device = next(model.parameters()).device
    shares = {}
    for domain, tokens in windows.items():
        if not tokens.numel():
            raise ValueError(f"{domain} has no tokens to route; give one window or more")
        counts = torch.zeros(len(layers), model.cfg.experts, dtype=torch.int64)

        def add(index: int, routing: Routing, counts: Tensor = counts) -> None:
            counts[layers[index]] += routing.counts.cpu()

        with listening(model, add):
            for part in tokens.split(batch):
                model(part.to(device))
        shares[domain] = (counts / counts.sum(1, keepdim=True)).double().numpy()
    return shares


def some_windows(
    windows: TokenWindows, most: int = WINDOWS
) -> dict[str, Int64[Tensor, "row time"]]:
    """Up to `most` whole windows of each domain, from all over it."""
    chosen = {}
    for domain in windows.domains:
        whole = (len(windows.ids[domain]) - 1) // windows.seq  # without a padded last one
        places = np.unique(np.linspace(0, max(whole - 1, 0), most).round().astype(int)).tolist()
        rows = np.concatenate([windows.in_order(domain, i, i + 1).tokens for i in places])
        own = min(windows.seq, len(windows.ids[domain]))  # a domain shorter than a window
        chosen[domain] = torch.from_numpy(rows[:, :own])
    return chosen


def load_figures(model: Gpt, windows: TokenWindows, split: str, out: Path) -> dict[Path, str]:
    """Draw expert load by domain for the first, middle and last mixture layer: file -> caption."""
    layers = model.cfg.moe_layers
    if not layers:
        return {}
    captions = {}
    load = expert_load(model, some_windows(windows))
    for row in sorted({0, len(layers) // 2, len(layers) - 1}):
        path = out / f"expert-load-{layers[row]}.png"
        table = {domain: shares[row] for domain, shares in load.items()}
        write_bytes(path, _load_plot(table, layers[row]))
        captions[path] = _load_caption(table, layers[row], model.cfg.top_k, split)
    return captions


def bits_figure(
    bits: dict[str, float], baselines: dict[str, dict[str, float]], split: str, out: Path
) -> dict[Path, str]:
    """Draw bits per byte by domain, of the model and of the baselines: file -> caption."""
    path = out / "bits-per-byte.png"
    table = {"model": bits} | {
        name: {domain: metrics[f"bits/{domain}/per byte"] for domain in bits}
        for name, metrics in baselines.items()
    }
    title = f"{split.capitalize()} text"
    write_bytes(path, plots.bars(table, title=title, ylabel="bits per byte"))
    return {
        path: f"Bits per byte of each domain's {split} text, beside baselines that only count "
        "bytes of the training text. Lower is better; text that is not compressed has 8."
    }


def _load_plot(table: dict[str, np.ndarray], layer: int) -> bytes:
    percent = (100 * np.stack(list(table.values()))).round(1)
    few = percent.shape[1] <= 16
    return plots.heatmap(
        percent,
        rows=[domain if len(domain) <= 24 else domain[:23] + "…" for domain in table],
        columns=[str(e) for e in range(percent.shape[1])] if few else (),
        title=f"Who reads what, block {layer}",
        xlabel="expert",
        unit="share of the domain's tokens (%)",
        size=(5.4, 1.5 + 0.4 * max(len(percent), 3)),
    )


def _load_caption(table: dict[str, np.ndarray], layer: int, top_k: int, split: str) -> str:
    mean = np.stack(list(table.values())).mean(0)
    pairs = []
    for domain, shares in table.items():
        best = np.argsort(-shares, kind="stable")[:2]
        pairs.append(f"{domain} {shares[best].sum():.0%} ({', '.join(map(str, best))})")
    each = "" if top_k == 1 else f" Each token has {top_k} experts; shares are of all choices."
    return (
        f"Block {layer}: share of each domain's {split} tokens that the router sends to each "
        f"expert.{each} Over all domains the most loaded expert gets "
        f"{mean.max() / mean.mean():.2f} times the mean (1 is balanced). The two experts used "
        f"most: {', '.join(pairs)}."
    )
