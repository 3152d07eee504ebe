"""Share of a text's tokens that each expert is chosen for."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from tenfold.data.text.tokens import TokenWindows

from .model import Gpt, listening
from .routing import Routing

WINDOWS = 32
"""Windows of each domain that are read."""

Load = Float[np.ndarray, "layer expert"]
"""Share of tokens that each expert of each mixture layer is chosen for."""


def expert_load(
    model: Gpt, windows: dict[str, Int64[Tensor, "row time"]], batch: int = 32
) -> dict[str, Load]:
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
