"""Names of the official code for the tensors of our modules."""

from __future__ import annotations

from torch import nn


def official_keys(module: nn.Module) -> dict[str, str]:
    """Official name -> ours: a backbone's tensors lie on top there, beside decoder and head."""
    found: dict[str, str] = {}
    for name in module.state_dict():
        key = name.removeprefix("backbone.")
        assert key not in found, key
        found[key] = name
    return found
