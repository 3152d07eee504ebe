"""Weights divided among the data-parallel processes by torch's FSDP2, block by block."""

from __future__ import annotations

from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import Shard

from .config import Model
from .model import Gpt
from .parallel import Grid
from .parts import Owners, cut_of


def dimensions(part: Gpt, owners: Owners, cfg: Model) -> dict[str, int]:
    """Name -> dimension in which replicas cut a parameter: the hidden one, where that is free.

    Tensor ranks cut another, so that a process has one piece of the whole. Vectors and the like
    stay whole on each replica.
    """
    found = {}
    for key, parameter in part.named_parameters():
        cut = cut_of(key)
        free = [dim for dim in range(parameter.ndim) if cut is None or dim != cut[0]]
        fits = [dim for dim in free if parameter.shape[dim] == cfg.hidden]
        if parameter.ndim > 1 and fits and not owners.spread_over_dp(key):
            found[key] = fits[-1]
    return found


def shard(part: Gpt, grid: Grid, dims: dict[str, int]) -> None:
    """Divide the weights; a block gathers its own while it is computed, and sums gradients."""
    assert grid.mesh is not None
    named = dict(part.named_parameters())
    place = {named[key]: Shard(dim) for key, dim in dims.items()}
    whole = {p for p in named.values() if p not in place}

    def where(parameter: nn.Parameter) -> Shard:
        return place[parameter]

    for module in (*part.blocks(), part):
        made = fully_shard(
            module, mesh=grid.mesh["dp"], reshard_after_forward=True, shard_placement_fn=where,
            ignored_params=whole,
        )  # fmt: skip
        made.set_gradient_divide_factor(1.0)  # losses are divided already
        made.set_force_sum_reduction_for_comms(True)  # gloo has no other
