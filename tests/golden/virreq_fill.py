"""Inputs and weights of cases that give a rule to each: {role: {key, shape, scale, offset}}."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from golden.harness import Case
from golden.twins import normals


def given(case: Case, role: str) -> Tensor:
    """An input of the case."""
    entry = case.spec["inputs"][role]
    value = normals(entry["key"], entry["shape"], entry.get("scale", 1.0))
    return torch.from_numpy(value + np.float32(entry.get("offset", 0.0)))


def filled(case: Case, kept: dict[str, Tensor] | None = None) -> dict[str, Tensor]:
    """The case's weights by their rules, under official names; `kept` has those that stay."""
    prefix, state = case.spec["param_key_prefix"], {}
    for key, shape, kind, scale in case.spec["params"]:
        drawn = normals(prefix + key, shape)
        if kind == "keep":
            value = (kept or {}).get(key, torch.zeros(shape, dtype=torch.int64)).numpy()
        elif kind == "const":
            value = np.full(shape, scale, np.float32)
        elif kind == "norm_weight":
            value = np.float32(1) + np.float32(scale) * drawn
        elif kind == "var":
            value = np.abs(drawn) + np.float32(0.5)
        else:
            assert kind == "normal", f"{case.json_path}: unknown rule {kind!r} of {key}"
            value = drawn * np.float32(scale)
        state[key] = torch.from_numpy(np.asarray(value))
    return state
