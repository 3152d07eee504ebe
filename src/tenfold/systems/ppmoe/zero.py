"""ZeRO-1: optimiser state divided among the data-parallel processes, by whole parameters."""

from __future__ import annotations

import torch
from torch import nn

from tenfold.core.optim import Groups, decay_groups

from .pipeline import Part


class Zero:
    """Gives each data-parallel process parameters to update, and shares what they became."""

    def __init__(self, part: Part) -> None:
        self.dp = part.grid.dp
        self.owned: list[list[nn.Parameter]] = [[] for _ in range(self.dp.size)]
        self.alone: list[nn.Parameter] = []
        loads = [0] * self.dp.size
        named = [(key, p) for key, p in part.keyed_parameters() if p.requires_grad]
        # largest first to the least loaded: every process comes to the same division
        for key, p in sorted(named, key=lambda item: (-item[1].numel(), item[0])):
            if part.spread_over_dp(key):
                self.alone.append(p)
                continue
            owner = loads.index(min(loads))
            self.owned[owner].append(p)
            loads[owner] += p.numel()

    def groups(self, model: nn.Module) -> Groups:
        """Groups of the parameters that this process updates."""
        mine = nn.ParameterList([*self.owned[self.dp.rank], *self.alone])
        return decay_groups(mine)

    @torch.no_grad()
    def share(self) -> None:
        """After a step: every owner's parameters to all."""
        for owner, parameters in enumerate(self.owned):
            if not parameters or self.dp.size == 1:
                continue
            flat = torch.cat([p.reshape(-1) for p in parameters])
            self.dp.broadcast_(flat, owner)
            for p, value in zip(
                parameters, flat.split([p.numel() for p in parameters]), strict=True
            ):
                p.copy_(value.view_as(p))
