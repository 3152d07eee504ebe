"""Figures of a run's report: which expert reads what, and bits per byte beside the baselines."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from tenfold.core.checkpoint import write_bytes
from tenfold.viz import plots

from .config import Model
from .routing_load import Load


def load_figures(cfg: Model, load: Mapping[str, Load], split: str, out: Path) -> dict[Path, str]:
    """Draw expert load by domain for the first, middle and last mixture layer: file -> caption."""
    layers = cfg.moe_layers
    if not layers:
        return {}
    captions = {}
    for row in sorted({0, len(layers) // 2, len(layers) - 1}):
        path = out / f"expert-load-{layers[row]}.png"
        table = {domain: shares[row] for domain, shares in load.items()}
        write_bytes(path, _load_plot(table, layers[row]))
        captions[path] = _load_caption(table, layers[row], cfg.top_k, split)
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
