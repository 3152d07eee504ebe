"""The mixture layer, and the ways to bring tokens to experts: PPMoE by index, DPMoE by all-to-all.

All give the same numbers; they differ in who holds an expert and in what is sent.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from .config import Layout, Model
from .experts import Experts
from .parallel import (
    Grid,
    attach,
    copy_in,
    exchange,
    gather_time,
    join,
    join_time,
    rounded,
    scatter_time,
    sum_out,
    take,
    take_time,
)
from .routing import Router, Routing


class Pairs:
    """The (token, choice) pairs to be computed, sorted by expert; pair number = token * k + choice.

    Of all experts, or of those `first` .. `first + count - 1`.
    """

    def __init__(
        self,
        experts: Int64[Tensor, "token choice"],
        keep: Bool[Tensor, "token choice"] | None,
        num_experts: int,
        first: int = 0,
        count: int | None = None,
    ) -> None:
        self.tokens, self.top_k = experts.shape
        flat = experts.reshape(-1)
        if keep is not None:
            flat = flat.masked_fill(~keep.reshape(-1), num_experts)  # dropped ones last
        self.counts: Int64[Tensor, " expert"]
        self.counts = torch.bincount(flat, minlength=num_experts + 1)[:num_experts]
        self.order: Int64[Tensor, " row"] = flat.argsort(stable=True)
        self.complete = keep is None and count in (None, num_experts)
        if not self.complete:
            stop = num_experts if count is None else first + count
            start, own = int(self.counts[:first].sum()), self.counts[first:stop]
            self.order = self.order[start : start + int(own.sum())]
            self.counts = own
        self.token: Int64[Tensor, " row"] = self.order
        if self.top_k > 1:
            self.token = self.order // self.top_k

    def rows_of(self, x: Float[Tensor, "token hidden"]) -> Float[Tensor, "row hidden"]:
        """Each pair's token."""
        if self.complete:
            return _Spread.apply(x, self)
        return x.index_select(0, self.token)

    def combine(
        self, rows: Float[Tensor, "row hidden"], weights: Float[Tensor, "token choice"]
    ) -> Float[Tensor, "token hidden"]:
        """Rows times their gate weights, added at their tokens.

        Without any rows the result is still tied to both: the backward pass of this process has
        to run the same collectives as that of the others.
        """
        weighted = rows * weights.reshape(-1)[self.order].unsqueeze(1).to(rows.dtype)
        if self.complete:
            return _Collect.apply(weighted, self)
        return rows.new_zeros(self.tokens, rows.shape[1]).index_add(0, self.token, weighted)

    @cached_property
    def inverse(self) -> Int64[Tensor, " row"]:
        """Row of each pair, where all pairs are computed."""
        places = torch.arange(len(self.order), device=self.order.device)
        return torch.empty_like(self.order).scatter_(0, self.order, places)

    def spread(self, x: Tensor) -> Tensor:
        """Tokens to rows, where all pairs are computed."""
        return x.index_select(0, self.token)

    def collect(self, rows: Tensor) -> Tensor:
        """Rows added at their tokens, where all pairs are computed: a permutation, then a sum."""
        pairs = rows.index_select(0, self.inverse)  # back in the order of tokens and choices
        return pairs if self.top_k == 1 else pairs.unflatten(0, (-1, self.top_k)).sum(1)


class _Spread(torch.autograd.Function):
    """Tokens to rows; backward collects, which autograd would do by a slower, unordered sum."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, pairs: Pairs) -> Tensor:
        ctx.pairs = pairs
        return pairs.spread(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return ctx.pairs.collect(grad), None


class _Collect(torch.autograd.Function):
    """Rows to tokens; backward spreads."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, pairs: Pairs) -> Tensor:
        ctx.pairs = pairs
        return pairs.collect(rows)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return ctx.pairs.spread(grad), None


class MoE(nn.Module):
    """Router, dispatch, experts, combination (paper sec. 3.2 and 3.3)."""

    def __init__(self, cfg: Model, layout: Layout, grid: Grid) -> None:
        super().__init__()
        self.cfg, self.layout, self.grid = cfg, layout, grid
        self.owners = grid.tp if layout.dispatch == "slice" else grid.experts
        self.gate = Router(cfg)
        self.experts = Experts(cfg, cfg.experts // self.owners.size)

    @property
    def partial_router(self) -> bool:
        """True if each tensor rank has only a part of the router's gradient."""
        copies = self.layout.dispatch == "alltoall-copies"
        return self.layout.sync == "params" and self.grid.tp.size > 1 and not copies

    def forward(
        self, x: Float[Tensor, "*batch hidden"], scale: float | Tensor = 1.0
    ) -> tuple[Float[Tensor, "*batch hidden"], Routing]:
        """Mix experts; `scale` weighs the balance and z losses, which enter backward here.

        x is the same on all tensor ranks, and so is the output; where the sequence is split, both
        are of this rank's tokens, (batch, time, hidden).
        """
        tp, cfg = self.grid.tp, self.cfg
        if self.grid.split.size > 1:
            y, routing = self._split(x)
        else:
            y, routing = self._together(x.flatten(0, -2))
            y = y.view_as(x)
        if self.training and (cfg.balance_weight or cfg.z_weight):
            loss = cfg.balance_weight * routing.balance_loss + cfg.z_weight * routing.z_loss
            y = attach(y, loss, scale / tp.size if self.partial_router else scale)
        return y, routing

    def _together(self, x: Float[Tensor, "token hidden"]) -> tuple[Tensor, Routing]:
        """All tensor ranks have all tokens."""
        tp = self.grid.tp
        if self.partial_router:
            (x,) = copy_in(tp, x)
        routing = self._routed(x)
        seen, weights = x, routing.weights
        if self.layout.dispatch == "alltoall":
            return self._alltoall_shared(x, weights, routing), routing
        if self.layout.dispatch == "alltoall-copies":
            return self._alltoall(x, weights, routing.experts, routing.keep), routing
        if not self.partial_router:
            seen, weights = copy_in(tp, x, weights)
        return sum_out(self._slice(seen, weights, routing), self.owners), routing

    def _split(self, x: Float[Tensor, "batch own_time hidden"]) -> tuple[Tensor, Routing]:
        """Each tensor rank has some of the tokens; all decide for all of them, from all logits."""
        tp, dispatch, shape = self.grid.tp, self.layout.dispatch, x.shape[:2]

        def of_all(own: Tensor) -> Tensor:
            """Rows of all tokens; gradients are sums of ranks' parts where those are partial."""
            together = gather_time if self.partial_router else join_time
            return (
                together(own.unflatten(0, shape), tp).flatten(0, 1).clone()
            )  # FSDP warns of views

        def own(of_all: Tensor) -> Tensor:
            """This rank's tokens of rows of all."""
            return of_all.unflatten(0, (len(x), -1)).chunk(tp.size, 1)[tp.rank].flatten(0, 1)

        routing = self._routed(x.flatten(0, 1), of_all)
        weights = routing.weights
        if dispatch == "slice":
            if not self.partial_router:
                (weights,) = copy_in(tp, weights)
            y = self._slice(gather_time(rounded(x), tp).flatten(0, 1), weights, routing)
            return scatter_time(y.unflatten(0, (len(x), -1)), tp), routing
        if dispatch == "alltoall-copies":
            seen = join_time(x, tp).flatten(0, 1)
            y = self._alltoall(seen, weights, routing.experts, routing.keep)
            return take_time(y.unflatten(0, (len(x), -1)), tp), routing
        if not self.partial_router:  # backward: whole gradients of all weights on each rank
            weights = take_time(weights.unflatten(0, (len(x), -1)), tp).flatten(0, 1)
        else:
            weights = own(weights)
        keep = None if routing.keep is None else own(routing.keep)
        y = self._alltoall(x.flatten(0, 1), weights, own(routing.experts), keep)
        return y.view_as(x), routing

    def _routed(self, x: Tensor, of_all: Callable[[Tensor], Tensor] | None = None) -> Routing:
        """The router's decisions; with global balance, beside the loads of all replicas."""
        routing: Routing = self.gate(x, of_all)
        dp = self.grid.dp
        if self.cfg.balance_scope == "micro" or dp.size == 1 or not self.training:
            return routing
        # the probabilities' gradient stays that of a replica: the mean over replicas is the whole
        counts = dp.sum_(routing.counts.to(routing.probs.dtype))
        return replace(routing, share=counts / counts.sum())

    def _slice(self, x: Tensor, weights: Tensor, routing: Routing) -> Tensor:
        """PPMoE: this rank's part of the one sum that a tensor-parallel FFN needs too."""
        own = self.cfg.experts // self.owners.size
        first = self.owners.rank * own
        pairs = Pairs(routing.experts, routing.keep, self.cfg.experts, first, own)
        rows = self.experts(pairs.rows_of(x), pairs.counts)
        return pairs.combine(rows, weights)

    def _alltoall_shared(self, x: Tensor, weights: Tensor, routing: Routing) -> Tensor:
        """DPMoE without duplicates: each tensor rank sends its share of the tokens."""
        tp = self.grid.tp
        if tp.size == 1:
            return self._alltoall(x, weights, routing.experts, routing.keep)
        if self.layout.sync == "scores":
            x, weights = take(x, tp), take(weights, tp)
        else:  # f has been applied: what the other ranks do to x and weights is summed by it
            x, weights = x.chunk(tp.size)[tp.rank], weights.chunk(tp.size)[tp.rank]
        experts = routing.experts.chunk(tp.size)[tp.rank]
        keep = None if routing.keep is None else routing.keep.chunk(tp.size)[tp.rank]
        return join(self._alltoall(x, weights, experts, keep), tp)

    def _alltoall(self, x: Tensor, weights: Tensor, experts: Tensor, keep: Tensor | None) -> Tensor:
        """DPMoE: rows go to the processes that own their experts, and come back."""
        owners = self.owners
        pairs = Pairs(experts, keep, self.cfg.experts)
        rows = pairs.rows_of(x)
        if owners.size == 1:
            return pairs.combine(self.experts(rows, pairs.counts), weights)
        own = self.cfg.experts // owners.size
        sent = pairs.counts.view(owners.size, own)
        got = owners.exchange(sent, [1] * owners.size, [1] * owners.size)
        send, receive = sent.sum(1).tolist(), got.sum(1).tolist()
        arrived = exchange(rows, owners, send, receive)
        # rows come by sender, then expert: bring them by expert, then sender
        number = torch.arange(own, device=x.device).repeat(owners.size)
        number = torch.repeat_interleave(number, got.reshape(-1), output_size=len(arrived))
        by_expert = number.argsort(stable=True)
        made = self.experts(arrived[by_expert], got.sum(0))
        back = torch.empty_like(by_expert)
        back[by_expert] = torch.arange(len(by_expert), device=x.device)
        return pairs.combine(exchange(made[back], owners, receive, send), weights)
