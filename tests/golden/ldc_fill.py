"""Weights and inputs of LDC's golden cases: regenerated from their keys, never stored."""

from __future__ import annotations

import re

import numpy as np
import torch
from torch import Tensor

from golden.harness import Case


def fill(case: Case, key: str, shape) -> Tensor:
    """A weight by the first of the case's rules whose pattern is found in its key."""
    rule = next((r for r in case.spec["rules"] if re.search(r["match"], key)), None)
    if rule is None:
        raise KeyError(f"case {case.name}: no rule matches the weight {key!r}")
    drawn = case.rule(key, shape, rule.get("scale", 1.0))
    kinds = {
        "normal": lambda v: v,
        "norm_weight": lambda v: np.float32(1) + np.float32(0.1) * v,
        "running_var": lambda v: np.abs(v) + np.float32(0.5),
        "abs": np.abs,
    }
    if rule["kind"] not in kinds:
        raise KeyError(f"case {case.name}: unknown kind {rule['kind']!r} of rule {rule['match']!r}")
    return torch.from_numpy(kinds[rule["kind"]](drawn))


def given(case: Case, role: str) -> Tensor:
    """An input by its role; of the notes only a leading "abs" is applied here.

    Other notes say how the tensor that is used is made from this one, which is the check's part.
    """
    entry = case.find(role)
    drawn = case.value(entry)
    absolute = re.split("[; ]", entry.note)[0] == "abs"
    return torch.from_numpy(np.abs(drawn) if absolute else drawn)


def stated(pattern: str, said: str, default: float) -> float:
    """A number that a case states in words, such as the `lr (.*)` of "SGD lr 0.1 momentum 0.9"."""
    found = re.search(pattern.replace("#", r"(\d+(?:\.\d+)?(?:e-?\d+)?)"), said)
    return float(found[1]) if found else default
