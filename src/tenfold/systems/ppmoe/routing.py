"""The router, which chooses experts for tokens: softmax, top-k, capacity, losses (paper sec. 3.2).

The paper leaves capacity, losses and ties open; they follow GShard, Switch and ST-MoE.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from .config import Model


@dataclass(frozen=True)
class Routing:
    """Decisions of the router for n tokens, k experts each."""

    logits: Float[Tensor, "token expert"]
    probs: Float[Tensor, "token expert"]
    experts: Int64[Tensor, "token choice"]
    """Chosen experts, the most probable first; ties go to the lowest index."""
    weights: Float[Tensor, "token choice"]
    """Gate weights, before dropping."""
    keep: Bool[Tensor, "token choice"] | None
    """False where the expert's queue was full; None drops nothing."""
    counts: Int64[Tensor, " expert"]
    """Pairs routed to each expert, before dropping."""
    share: Float[Tensor, " expert"] | None = None
    """Share of the pairs of all replicas; None counts these tokens alone."""

    @property
    def margin(self) -> Float[Tensor, ""]:
        """Smallest gap between a token's k-th and next probability; infinite if all are chosen."""
        k = self.experts.shape[1]
        if k == self.probs.shape[1]:
            return self.probs.new_tensor(math.inf)
        ranked = self.probs.detach().sort(dim=1, descending=True).values
        return (ranked[:, k - 1] - ranked[:, k]).min()

    @cached_property
    def balance_loss(self) -> Float[Tensor, ""]:
        """E * sum(share of pairs * mean probability): 1 when balanced (Switch, eq. 4)."""
        share = self.share
        if share is None:
            share = self.counts.to(self.probs.dtype) / self.experts.numel()
        return self.probs.shape[1] * (share * self.probs.mean(0)).sum()

    @cached_property
    def z_loss(self) -> Float[Tensor, ""]:
        """Mean squared log-partition of the logits (ST-MoE, eq. 5)."""
        return self.logits.logsumexp(1).square().mean()

    @property
    def entropy(self) -> Float[Tensor, ""]:
        """Mean entropy of a token's probabilities, in nats."""
        return -torch.special.xlogy(self.probs, self.probs).sum(1).mean()


def capacity_of(tokens: int, top_k: int, experts: int, factor: float, least: int) -> int:
    """Places of each expert: max(ceil(factor * k * n / E), least)."""
    return max(math.ceil(factor * top_k * tokens / experts), least)


def queue_places(
    experts: Int64[Tensor, "token choice"],
    probs: Float[Tensor, "token choice"],
    priority: Literal["position", "prob"],
) -> Int64[Tensor, "token choice"]:
    """0-based place of each pair in its expert's queue.

    `position`: all first choices in token order, then all second ones (GShard); `prob`: larger
    probability first, then choice rank, then token.
    """
    tokens, top_k = experts.shape
    flat = experts.t().reshape(-1)  # first choices of all tokens, then second ones
    line = torch.arange(flat.numel(), device=flat.device)
    if priority == "prob":
        line = torch.argsort(probs.t().reshape(-1), descending=True, stable=True)
    by_expert = line[torch.argsort(flat[line], stable=True)]
    sorted_experts = flat[by_expert]
    starts = torch.searchsorted(sorted_experts, sorted_experts)
    places = torch.empty_like(flat)
    places[by_expert] = torch.arange(flat.numel(), device=flat.device) - starts
    return places.reshape(top_k, tokens).t()


def route(
    logits: Float[Tensor, "token expert"],
    cfg: Model,
    bias: Float[Tensor, " expert"] | None = None,
    drops: bool = True,
) -> Routing:
    """Choose experts from router logits; `bias` shifts the choice but not the gate weights.

    With a capacity, tokens that find no place are dropped, unless `drops` is False.

    Ties go to the lowest expert index on every process and device: argmax and a stable sort
    promise that, top-k does not.
    """
    tokens, num_experts = logits.shape
    k = cfg.top_k
    # over the first axis: on a CPU torch's softmax is many times as fast there as over short rows
    probs = logits.t().contiguous().softmax(0).t().contiguous()
    score = (probs if bias is None else probs + bias).detach()
    if k == 1:
        experts = score.argmax(1, keepdim=True)
    else:
        experts = score.sort(dim=1, descending=True, stable=True).indices[:, :k].contiguous()
    chosen = probs.gather(1, experts)
    weights = chosen / chosen.sum(1, keepdim=True) if cfg.norm_topk and k > 1 else chosen
    keep = None
    if cfg.capacity_factor and drops:
        places = queue_places(experts, chosen.detach(), cfg.priority)
        keep = places < capacity_of(tokens, k, num_experts, cfg.capacity_factor, cfg.min_capacity)
    counts = torch.bincount(experts.reshape(-1), minlength=num_experts)
    return Routing(logits, probs, experts, weights, keep, counts)


class Router(nn.Module):
    """A linear map to one logit an expert, in float32 or better whatever the activations are."""

    def __init__(self, cfg: Model) -> None:
        super().__init__()
        self.cfg = cfg
        self.weight = nn.Parameter(torch.empty(cfg.experts, cfg.hidden))
        self.bias: Tensor | None
        self.register_buffer("bias", torch.zeros(cfg.experts) if cfg.bias_rate else None)

    def forward(
        self,
        x: Float[Tensor, "token hidden"],
        of_all: Callable[[Tensor], Tensor] | None = None,
    ) -> Routing:
        """Route n tokens; a capacity drops some in training alone.

        What else is in a batch says nothing of a text that is measured or continued. `of_all` makes
        logits of all tokens of a sequence from those of the tokens here, where it is split.
        """
        with torch.autocast(x.device.type, enabled=False):
            wide = torch.promote_types(x.dtype, torch.float32)
            logits = x.to(wide) @ self.weight.to(wide).t()
            if of_all is not None:
                logits = of_all(logits)
            drops = self.training or self.cfg.drops_in_evaluation
            return route(logits, self.cfg, self.bias, drops)
