"""Inputs and weights of USAGE's cases, by their rule."""

from __future__ import annotations

import re

import numpy as np
import torch
from torch import Tensor

from golden.harness import Case


def filled(case: Case, role: str) -> np.ndarray:
    """An input after what its `post` says."""
    entry = case.find(role)
    post = next(e["post"] for e in case.spec["inputs"] if e["name"] == entry.name)
    if post == "uniform":
        drawn = np.random.RandomState(case.seed(entry.name)).random_sample(entry.shape)
        return drawn.astype(np.float32)
    value = case.value(entry)
    if post is None:
        return value
    if post == "gt0":
        return (value > 0).astype(np.float32)
    assert post == "abs", f"{case.json_path}: unknown post {post!r}"
    return np.abs(value)


def given(case: Case, role: str, dtype: torch.dtype = torch.float32) -> Tensor:
    """An input as a tensor."""
    return torch.from_numpy(filled(case, role)).to(dtype)


def official(case: Case) -> dict[str, Tensor]:
    """The case's weights, under official names: norms around 1, all else scaled."""
    scale, state = case.spec["param_scale"], {}
    for key, shape in case.spec["params"]:
        if key.endswith(".weight") and re.search("norm|bn", key):
            value = np.float32(1) + np.float32(0.1) * case.rule(key, shape)
        else:
            value = case.rule(key, shape, scale)
        state[key] = torch.from_numpy(value)
    return state
