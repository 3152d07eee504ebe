"""Gradients made complete: summed over replicas in buckets while backward computes others."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from tenfold.core.dist import local
from tenfold.core.watchdog import watched

from .config import Model
from .parallel import Group
from .parts import TABLES, Owners, cut_of
from .zero import Zero


@dataclass
class _Bucket:
    """Parameters whose gradients lie side by side and are summed together."""

    parameters: list[nn.Parameter]
    owner: int | None
    """The only replica that needs the sum; None: all do."""
    waits_for: int = 0
    """Parameters whose gradients are not complete on this process."""
    work: Any = None

    def lay(self) -> None:
        """Zero gradients, as views of one tensor: what is sent needs no copy."""
        if not hasattr(self, "flat"):
            one = self.parameters[0]
            self.flat = one.new_empty(sum(p.numel() for p in self.parameters))
        self.flat.zero_()
        views = self.flat.split([p.numel() for p in self.parameters])
        for p, view in zip(self.parameters, views, strict=True):
            p.grad = view.view_as(p)
        self.waits_for, self.work = len(self.parameters), None


class Buckets:
    """Sums of gradients over replicas, each begun as soon as its last gradient is there.

    Every process starts them in the same order, whatever the order in which its gradients come.
    """

    def __init__(
        self, parameters: Iterable[tuple[nn.Parameter, int, int | None]], group: Group, size: float
    ) -> None:
        """Divide parameters into buckets.

        Args:
            parameters: Each with the number of stages here that use it, and the replica that alone
                needs its sum; in the order in which the forward pass uses them.
            group: Replicas.
            size: Bytes of a bucket, at most, if it has more than one parameter.
        """
        self.group = group
        self.uses: dict[nn.Parameter, int] = {}
        self.of: dict[nn.Parameter, _Bucket] = {}
        self.left: dict[nn.Parameter, int] = {}
        self.buckets: list[_Bucket] = []
        self.next = 0
        filling: dict[int | None, tuple[_Bucket, int]] = {}
        for p, uses, owner in reversed(list(parameters)):  # as backward comes to them
            bytes_ = p.numel() * p.element_size()
            bucket, held = filling.get(owner, (_Bucket([], owner), 0))
            if held and (held + bytes_ > size or bucket.parameters[0].dtype != p.dtype):
                self.buckets.append(bucket)
                bucket, held = _Bucket([], owner), 0
            bucket.parameters.append(p)
            filling[owner] = bucket, held + bytes_
            self.uses[p], self.of[p] = uses, bucket
            p.register_post_accumulate_grad_hook(self._arrived)
        self.buckets += [bucket for bucket, _ in filling.values()]

    def begin(self, micro_batches: int) -> None:
        """Zero all gradients; each is complete when so many micro-batches have added to it."""
        self.left = {p: micro_batches * uses for p, uses in self.uses.items()}
        self.next = 0
        for bucket in self.buckets:
            bucket.lay()

    def _arrived(self, parameter: nn.Parameter) -> None:
        if parameter not in self.left:  # a backward pass that is no training step
            return
        self.left[parameter] -= 1
        if self.left[parameter] == 0:
            self.of[parameter].waits_for -= 1
            while self.next < len(self.buckets) and not self.buckets[self.next].waits_for:
                self._start_next()

    def _start_next(self) -> None:
        bucket = self.buckets[self.next]
        self.next += 1
        if bucket.owner is None:
            bucket.work = dist.all_reduce(bucket.flat, group=self.group.handle, async_op=True)
        else:
            bucket.work = dist.reduce(
                bucket.flat, group=self.group.handle, group_dst=bucket.owner, async_op=True
            )

    def finish(self) -> None:
        """Wait for all sums. A replica has no gradients of what another one owns.

        Gradients that no hook saw (a schedule added them by itself) are summed now.
        """
        while self.next < len(self.buckets):
            self._start_next()
        self.left = {}
        with watched(f"sums of gradients in {len(self.buckets)} buckets", self.group.name):
            for bucket in self.buckets:
                bucket.work.wait()


class Gradients:
    """The gradients of a process's parameters: begun empty, completed over all processes."""

    def __init__(
        self,
        named: dict[str, nn.Parameter],
        owners: Owners,
        twice: Collection[str],
        model: Model,
    ) -> None:
        """Divide the work.

        Args:
            named: Parameters by their names in the whole model, in the order of the forward pass.
            owners: Who holds what.
            twice: Those that two stages here use, each in a backward pass of its own.
            model: Sizes of the whole.
        """
        self.named, self.owners, self.grid = named, owners, owners.grid
        self.tied = model.tied
        self.bucket = owners.layout.bucket_mb * 2**20
        alike = {
            key: p
            for key, p in named.items()
            if not owners.spread_over_dp(key) and not isinstance(p, DTensor)  # FSDP's, if any
        }
        self.zero: Zero | None = None
        if owners.layout.zero:
            sizes = {key: p.numel() for key, p in alike.items()}
            # the last ranks' parts of the vocabulary are smaller, but all divide alike
            sizes |= {
                key: -(-model.vocab // owners.of(key).size) * model.hidden
                for key in TABLES
                if key in alike
            }
            self.zero = Zero(self.grid.dp, ((key, sizes[key], p) for key, p in alike.items()))
        self.buckets: Buckets | None = None
        if self.grid.dp.size > 1:
            found = ((p, 1 + (key in twice), self._only(key, p)) for key, p in alike.items())
            self.buckets = Buckets(found, self.grid.dp, self.bucket)

    def _only(self, key: str, parameter: nn.Parameter) -> int | None:
        """The replica that alone needs a parameter's gradient; None: all do."""
        if self.zero is None or (self.tied and key == TABLES[0] and self.grid.ends.size > 1):
            return None  # of tied ends another replica may update the other one
        return self.zero.owner[parameter]

    def begin(self, micro_batches: int) -> None:
        """Begin a step of so many backward passes."""
        if self.buckets is not None:
            self.buckets.begin(micro_batches)
        for p in self.named.values():
            if isinstance(p, DTensor):
                p.grad = None

    @torch.no_grad()
    def complete(self) -> None:
        """Complete the gradients; experts that were never used get zeros.

        Parts of a parameter that is cut over tp are complete. What replicas share is summed over
        dp, with ZeRO-1 on its owner alone; what tensor ranks have parts of is summed over tp; a
        tied embedding is the sum of those of the first and the last stage.
        """
        if self.buckets is not None:
            self.buckets.finish()
        grads = dict[str, Tensor]()
        for key, p in self.named.items():
            if p.grad is None:
                p.grad = torch.zeros_like(p)
            grads[key] = local(p.grad)
        if self.grid.ends.size > 1 and self.tied:
            self.grid.ends.sum_(grads[TABLES[0]])
        summed(self.grid.tp, [g for key, g in grads.items() if self.owners.partial_over_tp(key)])
        spread = [g for key, g in grads.items() if self.owners.spread_over_dp(key)]
        if self.owners.layout.dispatch == "alltoall-copies" and self.grid.tp.size > 1 and spread:
            torch._foreach_div_(spread, float(self.grid.tp.size))  # each token came T times
        if self.zero is not None:
            for parameter, owner in self.zero.owner.items():
                if owner != self.grid.dp.rank:
                    parameter.grad = None  # here it is not complete

    def norm(self) -> Tensor:
        """Norm of the whole model's gradient: what several processes hold is counted once."""
        total = torch.zeros((), dtype=torch.float64, device=next(iter(self.named.values())).device)
        replicas = 1 if self.zero is not None else self.grid.dp.size
        for key, p in self.named.items():
            if p.grad is None or (key == TABLES[0] and self.grid.ends.rank == 1):
                continue
            held = 1 if isinstance(p, DTensor) else replicas
            holders = self.grid.tp.size * held
            if self.owners.spread_over_dp(key):
                holders = 1
            elif cut_of(key) is not None and self.owners.of(key).size > 1:
                holders = held
            flat = local(p.grad).reshape(-1)
            total += flat.dot(flat).double() / holders  # a copy in float64 would cost more
        return self.grid.all.sum_(total).sqrt()


@torch.no_grad()
def summed(group: Group, tensors: list[Tensor]) -> None:
    """Sum a few tensors over a group in place, with one all-reduce."""
    if group.size == 1 or not tensors:
        return
    joined = torch.cat([t.reshape(-1) for t in tensors])
    group.sum_(joined)
    for t, part in zip(tensors, joined.split([t.numel() for t in tensors]), strict=True):
        t.copy_(part.view_as(t))
