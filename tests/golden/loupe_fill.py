"""Inputs and weights of LOUPE's cases, by their rule."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from golden.harness import Case

EXACT = {"rtol": 1e-9, "atol": 1e-9}


def given(case: Case, role: str) -> Tensor:
    """An input in double precision."""
    return torch.from_numpy(case.input(role)).double()


def direction(case: Case, role: str, shift: float = 0.0) -> Tensor:
    """The same as vectors of length 1."""
    return F.normalize(given(case, role) + shift, dim=-1)


def regions(chosen: list[list[int]], players: int) -> Tensor:
    """Masks of lists of players."""
    found = torch.zeros(len(chosen), players, dtype=torch.bool)
    for row, members in zip(found, chosen, strict=True):
        row[members] = True
    return found


def filled(case: Case, module: nn.Module) -> nn.Module:
    """A network in double precision with the case's weights, found by the ends of their names."""
    scale, names = case.spec["weight_scale"], dict(case.spec["weights"])
    for name, parameter in module.double().named_parameters():
        found = [key for key in names if key == name or key.endswith(f".{name}")]
        assert len(found) == 1, f"{case.json_path}: {len(found)} weights are {name!r}: {found}"
        assert list(parameter.shape) == names.pop(found[0]), found[0]
        parameter.data = torch.from_numpy(case.rule(found[0], parameter.shape, scale)).double()
    assert not names, f"{case.json_path}: no use for the weights {list(names)}"
    return module
