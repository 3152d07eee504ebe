"""ZeRO-1: optimiser state divided among the data-parallel processes, by whole parameters."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import nn

from tenfold.core.optim import Groups, decay_groups

from .parallel import Group


class Zero:
    """Gives each data-parallel process parameters to update, and shares what they became."""

    def __init__(self, replicas: Group, named: Iterable[tuple[str, int, nn.Parameter]]) -> None:
        """Divide parameters that all replicas hold.

        Args:
            replicas: The data-parallel processes.
            named: Name, size by which it is divided (the same on all tensor ranks), parameter.
        """
        self.replicas = replicas
        self.owned: list[list[nn.Parameter]] = [[] for _ in range(replicas.size)]
        self.owner: dict[nn.Parameter, int] = {}
        loads = [0] * replicas.size
        # largest first to the least loaded: every process comes to the same division
        for _, size, p in sorted(named, key=lambda item: (-item[1], item[0])):
            owner = loads.index(min(loads))
            self.owned[owner].append(p)
            self.owner[p] = owner
            loads[owner] += size

    def groups(self, model: nn.Module) -> Groups:
        """Groups of the parameters that this process updates."""
        others = {p for p, owner in self.owner.items() if owner != self.replicas.rank}
        return decay_groups(nn.ParameterList(p for p in model.parameters() if p not in others))

    @torch.no_grad()
    def share(self, size: float) -> None:
        """After a step: every owner's parameters to all, so many bytes at a time."""
        if self.replicas.size == 1:
            return
        for owner, parameters in enumerate(self.owned):
            for some in _runs(parameters, size):
                flat = torch.cat([p.reshape(-1) for p in some])
                self.replicas.broadcast_(flat, owner)
                for p, value in zip(some, flat.split([p.numel() for p in some]), strict=True):
                    p.copy_(value.view_as(p))


def _runs(parameters: list[nn.Parameter], size: float) -> Iterator[list[nn.Parameter]]:
    """Consecutive ones of so many bytes together, at least one."""
    run: list[nn.Parameter] = []
    held = 0
    for p in parameters:
        bytes_ = p.numel() * p.element_size()
        if run and held + bytes_ > size:
            yield run
            run, held = [], 0
        run.append(p)
        held += bytes_
    if run:
        yield run
