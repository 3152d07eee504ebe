"""The processes as a grid (pp, dp, tp), and collectives that carry gradients.

Conjugate operators: f is the identity forward and an all-reduce backward, g the reverse (paper
sec. 3.3). With a group of one process each does nothing.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from tenfold.core.dist import World
from tenfold.core.watchdog import watched

from .config import Config


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

    def __deepcopy__(self, memo: Any) -> Grid:
        return self


def check_layout(cfg: Config, world_size: int) -> None:
    """Raise ValueError if the model or the batch does not fit the layout on so many processes."""
    model, layout = cfg.model, cfg.layout
    pp, tp = layout.pp, layout.tp
    if world_size % (pp * tp):
        raise ValueError(
            f"layout.pp {pp} x layout.tp {tp} = {pp * tp} does not divide the {world_size} "
            f"processes; start a multiple of {pp * tp} (torchrun --nproc-per-node), or change them"
        )
    dp = world_size // (pp * tp)
    stages = pp * layout.stages_per_process
    if pp > 1 and model.layers < stages:
        raise ValueError(
            f"model.layers {model.layers} are fewer than {stages} pipeline stages "
            f"(layout.pp {pp} x {layout.stages_per_process} a process); use fewer stages"
        )
    shared = (("kv_heads", model.groups), ("shared", model.shared))
    for name, value in (("heads", model.heads), ("ffn", model.inner), *shared):
        if value % tp:
            raise ValueError(f"model.{name} {value} is not divisible by layout.tp {tp}")
    share = tp if layout.dispatch == "slice" else tp * dp
    if model.moe_layers and model.experts % share:
        how = "layout.tp" if layout.dispatch == "slice" else "layout.tp x data-parallel size"
        raise ValueError(
            f"model.experts {model.experts} is not divisible by {how} {share}: every process "
            "holds equally many experts"
        )
    if cfg.batch % dp:
        raise ValueError(
            f"batch {cfg.batch} is not divisible by the data-parallel size {dp} "
            f"({world_size} processes / (pp {pp} x tp {tp}))"
        )
    micro = cfg.loop.accumulate
    by_rounds = layout.schedule in ("interleaved", "zero-bubble")
    if pp > 1 and by_rounds and micro % max(1, micro // pp):
        raise ValueError(
            f"schedule {layout.schedule} runs loop.accumulate {micro} micro-batches in "
            f"{micro // pp} rounds on {pp} stages, which must be equal; use a multiple of {pp}"
        )
    if pp > 1 and layout.schedule == "dualpipev" and micro < 2 * pp:
        raise ValueError(
            f"schedule dualpipev on {pp} processes needs {2 * pp} micro-batches or more, got "
            f"loop.accumulate {micro}"
        )
    if model.moe_layers and layout.dispatch == "alltoall" and model.seq % tp:
        raise ValueError(
            f"model.seq {model.seq} is not divisible by layout.tp {tp}: with layout.dispatch "
            "alltoall each tensor rank sends an equal share of the tokens; use slice"
        )
    if layout.zero and cfg.loop.ema:
        raise ValueError("layout.zero and loop.ema do not go together; set one of them off")


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
        ends, mesh,
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


def exchange(x: Tensor, group: Group, send: list[int], receive: list[int]) -> Tensor:
    """All-to-all of rows with gradients."""
    return x if group.size == 1 else _Exchange.apply(x, group, send, receive)


def attach(y: Tensor, loss: Tensor, scale: float | Tensor) -> Tensor:
    """Let `scale * loss` into the backward pass beside whatever follows from y."""
    return _Attach.apply(y, loss, scale)
