"""A GPT with mixtures of experts, whole or one part of it: the same modules on every layout.

Parameter names are those of the whole model, so that a part's weights need no renaming.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from .config import Layout, Model
from .dispatch import MoE
from .parallel import ALONE, Grid, Group
from .routing import Routing
from .vocabulary import Tokens, own_tokens, token_losses

LOGITS = 2**24
"""Logits that are held at a time where only losses are wanted."""


@dataclass
class Cache:
    """Keys and values of the tokens seen so far: layer -> (keys, values)."""

    layers: dict[int, tuple[Tensor, Tensor]]
    length: int = 0


def rotate(
    x: Float[Tensor, "batch head time size"], start: int, base: float = 10_000.0
) -> Float[Tensor, "batch head time size"]:
    """Rotary position embedding (RoFormer, eq. 34), half against half, from position `start`."""
    half = x.shape[-1] // 2
    steps = torch.arange(half, device=x.device, dtype=torch.float32)
    times = torch.arange(start, start + x.shape[-2], device=x.device, dtype=torch.float32)
    angles = torch.outer(times, base ** (-steps / half))
    cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
    a, b = x[..., :half], x[..., half:]
    return torch.cat([a * cos - b * sin, a * sin + b * cos], -1)


class Column(nn.Linear):
    """A linear map cut along its outputs among tensor ranks; its input has passed f."""

    def __init__(self, size_in: int, size_out: int, group: Group, bias: bool = True) -> None:
        super().__init__(size_in, size_out // group.size, bias)


class Row(nn.Linear):
    """A linear map cut along its inputs; the partial sums are added, then the bias."""

    def __init__(self, size_in: int, size_out: int, grid: Grid, bias: bool = True) -> None:
        super().__init__(size_in // grid.tp.size, size_out, bias)
        self.grid = grid

    def forward(self, x: Tensor) -> Tensor:
        """Sum over tensor ranks of their products."""
        if self.grid.tp.size == 1:
            return super().forward(x)
        y = self.grid.leave(F.linear(x, self.weight))
        return y if self.bias is None else y + self.bias


def new_norm(cfg: Model) -> nn.LayerNorm | nn.RMSNorm:
    """A norm of hidden states."""
    kind = nn.RMSNorm if cfg.norm == "rms" else nn.LayerNorm
    return kind(cfg.hidden, cfg.norm_eps)


class Attention(nn.Module):
    """Causal self-attention; tensor ranks share the heads."""

    def __init__(self, cfg: Model, grid: Grid, index: int) -> None:
        super().__init__()
        self.cfg, self.index, self.grid = cfg, index, grid
        width, bias = cfg.head_width, cfg.bias != "none"
        if cfg.groups == cfg.heads:
            self.qkv = Column(cfg.hidden, 3 * cfg.heads * width, grid.tp, bias)
        else:
            self.q = Column(cfg.hidden, cfg.heads * width, grid.tp, bias)
            self.kv = Column(cfg.hidden, 2 * cfg.groups * width, grid.tp, bias)
        if cfg.qk_norm:
            self.q_norm = nn.RMSNorm(width, cfg.norm_eps)
            self.k_norm = nn.RMSNorm(width, cfg.norm_eps)
        self.proj = Row(cfg.heads * width, cfg.hidden, grid, cfg.bias == "all")

    def forward(
        self, x: Float[Tensor, "batch own_time hidden"], cache: Cache | None = None
    ) -> Float[Tensor, "batch own_time hidden"]:
        """Attend to this and earlier tokens; with a cache, x are the tokens that follow it.

        Where the sequence is split, x are this rank's tokens and so is the answer.
        """
        cfg = self.cfg
        q, k, v = self._projected(x)
        start = 0 if cache is None else cache.length
        if cfg.positions == "rotary":
            q, k = rotate(q, start, cfg.rope_base), rotate(k, start, cfg.rope_base)
        if cache is not None:
            if self.index in cache.layers:
                before = cache.layers[self.index]
                k, v = torch.cat([before[0], k], 2), torch.cat([before[1], v], 2)
            cache.layers[self.index] = (k, v)
        mask = None
        if start and q.shape[2] > 1:
            mask = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool, device=x.device)
            mask = mask.tril(start)
        y = F.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, is_causal=start == 0, enable_gqa=cfg.groups != cfg.heads
        )
        return self.proj(y.transpose(1, 2).flatten(2))  # the heads side by side again

    def _projected(
        self, x: Float[Tensor, "batch own_time hidden"]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values: batch, head, time, size, of this tensor rank's heads."""
        norms: list[Tensor] = []
        if self.cfg.qk_norm:
            norms = [self.q_norm.weight, self.k_norm.weight]
        # a rank has its heads' part of the norms' gradients
        with self.grid.entered(x, *norms, again=not self.cfg.recompute) as (x, *norms):
            parts = (
                self.qkv(x).chunk(3, -1)
                if self.cfg.groups == self.cfg.heads
                else (self.q(x), *self.kv(x).chunk(2, -1))
            )
        # batch, time, 3 x hidden -> three blocks q, k, v, heads contiguous inside each
        q, k, v = (part.unflatten(-1, (-1, self.cfg.head_width)).transpose(1, 2) for part in parts)
        if norms:
            q, k = (
                F.rms_norm(t, t.shape[-1:], weight.to(t.dtype), self.cfg.norm_eps)
                for t, weight in zip((q, k), norms, strict=True)
            )
        return q, k, v


class FeedForward(nn.Module):
    """The dense network of a block, cut along its inner width."""

    def __init__(self, cfg: Model, grid: Grid, inner: int) -> None:
        super().__init__()
        self.grid, self.keeps = grid, not cfg.recompute
        self.approximate = "tanh" if cfg.activation == "tanh" else "none"
        self.is_gated, bias = cfg.activation == "swiglu", cfg.bias == "all"
        if self.is_gated:
            self.gate_up = Column(cfg.hidden, 2 * inner, grid.tp, bias)
        else:
            self.fc1 = Column(cfg.hidden, inner, grid.tp, bias)
        self.fc2 = Row(inner, cfg.hidden, grid, bias)

    def forward(self, x: Float[Tensor, "*any hidden"]) -> Float[Tensor, "*any hidden"]:
        """fc2(GELU(fc1(x))), or fc2(silu(gate) * up)."""
        with self.grid.entered(x, again=self.keeps) as (x,):
            inner = self.gate_up(x) if self.is_gated else self.fc1(x)
        if self.is_gated:
            gate, up = inner.chunk(2, -1)
            return self.fc2(F.silu(gate) * up)
        return self.fc2(F.gelu(inner, approximate=self.approximate))


class Shared(FeedForward):
    """The expert that every token passes, perhaps times a gate of its own (Qwen2-MoE)."""

    def __init__(self, cfg: Model, grid: Grid) -> None:
        super().__init__(cfg, grid, cfg.shared)
        self.sigmoid_gate = nn.Linear(cfg.hidden, 1, bias=False) if cfg.shared_gate else None

    def forward(self, x: Float[Tensor, "*any hidden"]) -> Float[Tensor, "*any hidden"]:
        """The network's answer; the gate is the same on all tensor ranks, as x is."""
        y = super().forward(x)
        return y if self.sigmoid_gate is None else self.sigmoid_gate(x).sigmoid() * y


class Block(nn.Module):
    """x += attention(LN(x)); x += feed-forward or mixture(LN(x))."""

    moe: MoE
    """Only in blocks with experts; the others have `ffn`."""
    shared: Shared
    """Only in blocks with experts, where the model has such."""
    ffn: FeedForward

    def __init__(self, cfg: Model, layout: Layout, grid: Grid, index: int) -> None:
        super().__init__()
        self.index, self.drop = index, nn.Dropout(cfg.dropout)
        self.ln1 = new_norm(cfg)
        self.attn = Attention(cfg, grid, index)
        self.ln2 = new_norm(cfg)
        if index in cfg.moe_layers:
            self.moe = MoE(cfg, layout, grid)
            if cfg.shared:
                self.shared = Shared(cfg, grid)
        else:
            self.ffn = FeedForward(cfg, grid, cfg.inner)

    def forward(
        self,
        x: Float[Tensor, "batch time hidden"],
        scale: float | Tensor = 1.0,
        cache: Cache | None = None,
    ) -> tuple[Float[Tensor, "batch time hidden"], Routing | None]:
        """The block's output, and what its router decided."""
        x = x + self.drop(self.attn(self.ln1(x), cache))
        inner, routing = self.ln2(x), None
        if hasattr(self, "moe"):
            added, routing = self.moe(inner, scale)
            if hasattr(self, "shared"):
                added = added + self.shared(inner)
        else:
            added = self.ffn(inner)
        return x + self.drop(added), routing


class Gpt(nn.Module):
    """Consecutive blocks of the model, with the embedding if first and the head if last."""

    embed: nn.ModuleDict
    head: nn.Linear

    def __init__(
        self,
        cfg: Model,
        layout: Layout | None = None,
        grid: Grid | None = None,
        layers: range | None = None,
    ) -> None:
        super().__init__()
        self.cfg = cfg
        layout, grid = layout or Layout(), grid or Grid()
        held = layers if layers is not None else range(cfg.layers)
        self.is_first, self.is_last = held.start == 0, held.stop == cfg.layers
        self.grid, self.words = grid, grid.tp if layout.vocab_parallel else ALONE
        if self.is_first or (self.is_last and cfg.tied):
            table = Tokens(cfg.vocab, cfg.hidden, grid, self.words)
            self.embed = nn.ModuleDict({"tok": table})
        if self.is_first and cfg.positions == "learned":
            self.embed["pos"] = nn.Embedding(cfg.seq, cfg.hidden)
        self.layers = nn.ModuleDict({str(i): Block(cfg, layout, grid, i) for i in held})
        if self.is_last:
            self.ln_f = new_norm(cfg)
            if not cfg.tied:
                own = own_tokens(cfg.vocab, self.words)
                self.head = nn.Linear(cfg.hidden, len(own), bias=False)
        self.loss_scale: float | Tensor = 1.0
        """Weight of this micro-batch's balance and z losses: 1 / micro-batches."""
        self.compiled: dict[int, nn.Module] = {}
        """Blocks as torch.compile runs them, in training, by their indices."""
        self.routed: Callable[[int, Routing], None] | None = None
        """Called with each mixture layer's index and routing, once a forward pass."""

    def forward(
        self, x: Tensor, cache: Cache | None = None, target: Tensor | None = None
    ) -> Tensor:
        """Tokens (batch, time) or a previous part's hidden states -> hidden states or logits.

        With the tokens that follow, the last part gives their losses instead.
        """
        x = self.trunk(x, cache)
        if target is not None:
            return self.losses(x, target)
        return self.logits(x) if self.is_last else x

    def trunk(self, x: Tensor, cache: Cache | None = None) -> Tensor:
        """Hidden states after this part's blocks."""
        if self.is_first:
            x = self._embed(x, 0 if cache is None else cache.length)
        for block in self.blocks():
            run = self.compiled.get(block.index, block) if self.training else block
            if self.cfg.recompute and self.training:
                x, routing = checkpoint(run, x, self.loss_scale, use_reentrant=False)
            else:
                x, routing = run(x, self.loss_scale, cache)
            if routing is not None and self.routed is not None:
                self.routed(block.index, routing)
        return x

    def logits(self, x: Float[Tensor, "batch own_time hidden"]) -> Float[Tensor, "batch time own"]:
        """The head: logits of hidden states, of the part of the vocabulary that is here."""
        with self._normed(x) as states:
            return F.linear(states, self.head_weight)

    @contextmanager
    def _normed(self, x: Float[Tensor, "batch own_time hidden"]) -> Iterator[Tensor]:
        """What the head's products are made of: of all tokens."""
        x = self.ln_f(x)
        if self.words.size == 1:
            yield x
        else:
            with self.grid.entered(x, again=True) as (x,):
                yield x

    def mean_loss(
        self, logits: Float[Tensor, "batch time own"], target: Int64[Tensor, "batch time"]
    ) -> Float[Tensor, ""]:
        """Mean next-token cross-entropy in nats, in float32 or better."""
        flat, wanted = logits.flatten(0, 1), target.reshape(-1)
        if self.words.size == 1:
            return F.cross_entropy(flat.to(torch.promote_types(flat.dtype, torch.float32)), wanted)
        return token_losses(flat, wanted, self.cfg.vocab, self.words).mean()

    def losses(
        self, x: Float[Tensor, "row own_time hidden"], target: Int64[Tensor, "row time"]
    ) -> Float[Tensor, "row time"]:
        """Cross-entropy in nats of each target, of the logits of some tokens at a time.

        All logits of a batch are the largest thing of an evaluation: vocabulary numbers a token.
        """
        some = max(1, LOGITS * self.words.size // self.cfg.vocab)
        with self._normed(x) as states:
            parts = zip(states.flatten(0, 1).split(some), target.flatten().split(some), strict=True)
            found = [
                token_losses(
                    F.linear(few, self.head_weight).float(), wanted, self.cfg.vocab, self.words
                )
                for few, wanted in parts
            ]
        return torch.cat(found).view(target.shape)

    def blocks(self) -> list[Block]:
        """The blocks in order."""
        return [b for b in self.layers.values() if isinstance(b, Block)]

    @property
    def table(self) -> Tensor:
        """The token embedding's weights, of the head too where they are tied."""
        weight = self.embed["tok"].weight
        assert isinstance(weight, Tensor)
        return weight

    @property
    def head_weight(self) -> Tensor:
        """The head's weights: those of the embedding where they are tied."""
        return self.table if self.cfg.tied else self.head.weight

    def _embed(self, tokens: Int64[Tensor, "batch time"], start: int) -> Tensor:
        x: Tensor = self.embed["tok"](tokens)
        if "pos" in self.embed:
            end = start + tokens.shape[1]
            if end > self.cfg.seq:
                raise ValueError(
                    f"{end} tokens are more than the model's {self.cfg.seq} learned positions"
                )
            places = torch.arange(start, end, device=tokens.device)
            split = self.grid.split
            x = x + self.embed["pos"](places.chunk(split.size)[split.rank])
        return x


@contextmanager
def listening(model: Gpt, listener: Callable[[int, Routing], None]) -> Iterator[None]:
    """Call `listener` with each mixture layer's routing, in eval mode and without gradients."""
    before, trains = model.routed, model.training
    model.routed = listener
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.routed = before
        model.train(trains)
