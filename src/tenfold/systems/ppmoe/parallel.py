"""The processes as a grid (pp, dp, tp), and collectives that carry gradients.

Conjugate operators: f is the identity forward and an all-reduce backward, g the reverse (paper
sec. 3.3). With a group of one process each does nothing.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from tenfold.core.dist import World
from tenfold.core.watchdog import watched

from .config import Config
from .fit import check_layout


@dataclass(frozen=True)
class Group:
    """Processes that communicate: its size, this process's place in it, and torch's handle."""

    name: str
    size: int = 1
    rank: int = 0
    handle: Any = None

    def __deepcopy__(self, memo: Any) -> Group:
        return self  # an average of the weights talks to the same processes

    def sum_(self, x: Tensor) -> Tensor:
        """Sum over the group, in place."""
        if self.size > 1:
            with watched(f"all_reduce of {tuple(x.shape)}", self.name):
                dist.all_reduce(x, group=self.handle)
        return x

    def largest_(self, x: Tensor) -> Tensor:
        """Element-wise maximum over the group, in place."""
        if self.size > 1:
            with watched(f"maximum of {tuple(x.shape)}", self.name):
                dist.all_reduce(x, dist.ReduceOp.MAX, group=self.handle)
        return x

    def share_of_sum(self, x: Tensor) -> Tensor:
        """This process's equal share of the rows, summed over the group (reduce-scatter)."""
        if self.size == 1:
            return x
        own = x.new_empty((len(x) // self.size, *x.shape[1:]))
        with watched(f"reduce_scatter of {tuple(x.shape)}", self.name), warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            dist.reduce_scatter_tensor(own, x.contiguous(), group=self.handle)
        return own

    def gather(self, x: Tensor) -> Tensor:
        """Equal shares of rows, joined in rank order."""
        if self.size == 1:
            return x
        whole = x.new_empty((self.size * len(x), *x.shape[1:]))
        with watched(f"all_gather of {tuple(x.shape)}", self.name), warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            dist.all_gather_into_tensor(whole, x.contiguous(), group=self.handle)
        return whole

    def broadcast_(self, x: Tensor, source: int) -> Tensor:
        """Take the group's process `source`'s values, in place."""
        if self.size > 1:
            with watched(f"broadcast of {tuple(x.shape)}", self.name):
                dist.broadcast(x, group=self.handle, group_src=source)
        return x

    def exchange(self, x: Tensor, send: list[int], receive: list[int]) -> Tensor:
        """All-to-all of rows: `send[r]` rows go to process r, `receive[r]` come from it."""
        if self.size == 1:
            return x
        got = x.new_empty((sum(receive), *x.shape[1:]))
        with watched(f"all_to_all of {sum(send)} rows", self.name):
            dist.all_to_all_single(got, x.contiguous(), receive, send, group=self.handle)
        return got


ALONE = Group("alone")


@dataclass(frozen=True)
class Grid:
    """This process's groups; rank order (pp, dp, tp), tp innermost: a node is a tensor group."""

    pp: Group = ALONE
    dp: Group = ALONE
    tp: Group = ALONE
    all: Group = ALONE
    experts: Group = ALONE
    """dp x tp, among which DPMoE spreads its experts."""
    ends: Group = ALONE
    """The first and last pipeline stage, which share a tied embedding; else alone."""
    mesh: DeviceMesh | None = None
    sequence: bool = False
    """Tensor ranks split the residual stream along the sequence, instead of each having it all."""

    def __deepcopy__(self, memo: Any) -> Grid:
        return self

    @property
    def split(self) -> Group:
        """The tensor ranks among which the tokens of a sequence are split; else alone."""
        return self.tp if self.sequence else ALONE

    @contextmanager
    def entered(
        self, x: Tensor, *weights: Tensor, again: bool = False
    ) -> Iterator[tuple[Tensor, ...]]:
        """What tensor ranks compute their parts of: f, or all tokens of the sequence.

        Args:
            x: Activations; exchanged in the type of products.
            weights: What all ranks hold and each uses a part of: f of them, too.
            again: Keep a rank's own tokens alone for the backward pass, which gathers them again.
        """
        if self.split.size == 1:
            yield copy_in(self.tp, x, *weights)
            return
        own = rounded(x)
        whole = gather_time(own, self.tp)
        with _gathered_again(own, whole, self.tp) if again else nullcontext():
            yield whole, *(copy_in(self.tp, *weights) if weights else ())

    def leave(self, x: Tensor) -> Tensor:
        """The sum of the tensor ranks' parts: g, or this rank's tokens of it."""
        return sum_out(x, self.tp) if self.split.size == 1 else scatter_time(x, self.tp)


def make_grid(cfg: Config, world: World) -> Grid:
    """Build all groups; every process must call it with the same configuration."""
    check_layout(cfg, world.size)
    if world.size == 1:
        return Grid()
    pp, tp = cfg.layout.pp, cfg.layout.tp
    dp = world.size // (pp * tp)
    mesh = init_device_mesh(world.device.type, (pp, dp, tp), mesh_dim_names=("pp", "dp", "tp"))
    axes = {
        name: Group(name, mesh[name].size(), mesh[name].get_local_rank(), mesh[name].get_group())
        for name in ("pp", "dp", "tp")
    }
    both = mesh["dp", "tp"]._flatten("experts")
    experts = Group("dp x tp", both.size(), both.get_local_rank(), both.get_group())
    ends = ALONE
    if pp > 1 and not cfg.layout.is_v_shaped:
        across = dp * tp
        pairs = [[i, (pp - 1) * across + i] for i in range(across)]
        mine, _ = dist.new_subgroups_by_enumeration(pairs)
        if axes["pp"].rank in (0, pp - 1):
            ends = Group("first and last stage", 2, int(axes["pp"].rank > 0), mine)
    return Grid(
        axes["pp"], axes["dp"], axes["tp"], Group("all", world.size, world.rank, None), experts,
        ends, mesh, cfg.layout.sequence,
    )  # fmt: skip


class _Copy(torch.autograd.Function):
    """f: identity forward, all-reduce backward, of several tensors at once."""

    @staticmethod
    def forward(ctx: Any, group: Group, *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.group = group
        return tuple(t.view_as(t) for t in tensors)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        wide = grads[0].dtype
        for g in grads[1:]:
            wide = torch.promote_types(wide, g.dtype)
        joined = torch.cat([g.reshape(-1).to(wide) for g in grads])
        ctx.group.sum_(joined)
        parts = joined.split([g.numel() for g in grads])
        return None, *(p.view(g.shape).to(g.dtype) for p, g in zip(parts, grads, strict=True))


class _Sum(torch.autograd.Function):
    """g: all-reduce forward, identity backward."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, group: Group) -> Tensor:
        return group.sum_(x.clone(memory_format=torch.contiguous_format))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad, None


class _Take(torch.autograd.Function):
    """This process's share of the rows; backward gathers the shares' gradients."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, group: Group) -> Tensor:
        ctx.group = group
        return x.chunk(group.size)[group.rank].clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return ctx.group.gather(grad), None


class _Join(torch.autograd.Function):
    """All shares of rows, gathered; backward takes this process's share."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, group: Group) -> Tensor:
        ctx.group = group
        return group.gather(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad.chunk(ctx.group.size)[ctx.group.rank].clone(), None


class _Exchange(torch.autograd.Function):
    """All-to-all of rows; backward sends the gradients back."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, group: Group, send: list[int], receive: list[int]) -> Tensor:
        ctx.group, ctx.send, ctx.receive = group, send, receive
        return group.exchange(x, send, receive)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        return ctx.group.exchange(grad, ctx.receive, ctx.send), None, None, None


def _apart(x: Tensor, size: int) -> Tensor:
    """(batch, time, ...) as rows of ranks: each rank's stretch of time, one after another."""
    return x.unflatten(1, (size, -1)).transpose(0, 1).flatten(0, 1)


def _joined(x: Tensor, size: int) -> Tensor:
    """The reverse: rows of ranks to (batch, time, ...)."""
    return x.unflatten(0, (size, -1)).transpose(0, 1).flatten(1, 2)


class _GatherTime(torch.autograd.Function):
    """All tokens of a sequence; backward gives a rank the gradients of its own tokens.

    `alike`: all ranks do the same with them, so that each has whole gradients; else their sum.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, group: Group, alike: bool) -> Tensor:
        ctx.group, ctx.alike = group, alike
        return _joined(group.gather(x), group.size)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        group = ctx.group
        if ctx.alike:
            return grad.chunk(group.size, 1)[group.rank].clone(), None, None
        return group.share_of_sum(_apart(grad, group.size)), None, None


class _ScatterTime(torch.autograd.Function):
    """A rank's tokens of the sum over ranks; backward gathers all tokens' gradients."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, group: Group) -> Tensor:
        ctx.group = group
        return group.share_of_sum(_apart(x, group.size))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return _joined(ctx.group.gather(grad), ctx.group.size), None


class _TakeTime(torch.autograd.Function):
    """A rank's tokens of what all hold; backward gathers all tokens' gradients."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, group: Group) -> Tensor:
        ctx.group = group
        return x.chunk(group.size, 1)[group.rank].clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return _joined(ctx.group.gather(grad), ctx.group.size), None


class _Attach(torch.autograd.Function):
    """y unchanged; backward hands the gradient `scale` to a loss that sits beside the output.

    This is how balance and z losses of early pipeline stages enter the backward pass.
    """

    @staticmethod
    def forward(ctx: Any, y: Tensor, loss: Tensor, scale: float | Tensor) -> Tensor:
        ctx.scale, ctx.kind = scale, loss.dtype
        return y.view_as(y)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        one = torch.ones((), dtype=ctx.kind, device=grad.device)
        return grad, (ctx.scale * one).to(ctx.kind), None


def copy_in(group: Group, *tensors: Tensor) -> tuple[Tensor, ...]:
    """f of several tensors with one all-reduce in backward."""
    return tensors if group.size == 1 else _Copy.apply(group, *tensors)


def sum_out(x: Tensor, group: Group) -> Tensor:
    """g: the sum over the group; gradients pass unchanged."""
    return x if group.size == 1 else _Sum.apply(x, group)


def take(x: Tensor, group: Group) -> Tensor:
    """This process's share of rows that all hold; the rows must divide."""
    return x if group.size == 1 else _Take.apply(x, group)


def join(x: Tensor, group: Group) -> Tensor:
    """The rows of all shares, on every process."""
    return x if group.size == 1 else _Join.apply(x, group)


def gather_time(x: Tensor, group: Group) -> Tensor:
    """All tokens of a sequence that is split; gradients of ranks' parts are summed."""
    return x if group.size == 1 else _GatherTime.apply(x, group, False)


def join_time(x: Tensor, group: Group) -> Tensor:
    """The same where all ranks do alike with it: each has whole gradients already."""
    return x if group.size == 1 else _GatherTime.apply(x, group, True)


def rounded(x: Tensor) -> Tensor:
    """x in the type of products, as autocast has it."""
    kind = x.device.type
    return x.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else x


def _gathered_again(own: Tensor, whole: Tensor, group: Group) -> saved_tensors_hooks:
    """Keep for backward a rank's own tokens where all are saved, and gather them again."""
    place = whole.untyped_storage().data_ptr()

    def pack(saved: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor] | None]:
        if saved.untyped_storage().data_ptr() != place:
            return saved, None
        view = saved.size(), saved.stride(), saved.storage_offset()
        return own.detach(), lambda own: _joined(group.gather(own), group.size).as_strided(*view)

    def unpack(packed: tuple[Tensor, Callable[[Tensor], Tensor] | None]) -> Tensor:
        saved, again = packed
        return saved if again is None else again(saved)

    return saved_tensors_hooks(pack, unpack)


def scatter_time(x: Tensor, group: Group) -> Tensor:
    """A rank's tokens of the sum over ranks, of (batch, time, ...); the time must divide."""
    return x if group.size == 1 else _ScatterTime.apply(x, group)


def take_time(x: Tensor, group: Group) -> Tensor:
    """A rank's tokens of what all hold; the time must divide."""
    return x if group.size == 1 else _TakeTime.apply(x, group)


def exchange(x: Tensor, group: Group, send: list[int], receive: list[int]) -> Tensor:
    """All-to-all of rows with gradients."""
    return x if group.size == 1 else _Exchange.apply(x, group, send, receive)


def attach(y: Tensor, loss: Tensor, scale: float | Tensor) -> Tensor:
    """Let `scale * loss` into the backward pass beside whatever follows from y."""
    return _Attach.apply(y, loss, scale)
