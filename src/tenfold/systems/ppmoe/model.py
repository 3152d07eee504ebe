"""A GPT with mixtures of experts, whole or one part of it: the same modules on every layout.

Parameter names are those of the whole model, so that a part's weights need no renaming.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from tenfold.core.seed import generator

from .config import Layout, Model
from .dispatch import MoE
from .parallel import Grid, Group, copy_in, sum_out
from .routing import Routing

LOGITS = 2**24
"""Logits that are held at a time where only losses are wanted."""
DRAWN = 2**22
"""Numbers that are drawn at a time: a process holds no more of what is not its own."""


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

    def __init__(self, size_in: int, size_out: int, group: Group, bias: bool = True) -> None:
        super().__init__(size_in // group.size, size_out, bias)
        self.group = group

    def forward(self, x: Tensor) -> Tensor:
        """Sum over tensor ranks of their products."""
        if self.group.size == 1:
            return super().forward(x)
        y = sum_out(F.linear(x, self.weight), self.group)
        return y if self.bias is None else y + self.bias


def new_norm(cfg: Model) -> nn.LayerNorm | nn.RMSNorm:
    """A norm of hidden states."""
    kind = nn.RMSNorm if cfg.norm == "rms" else nn.LayerNorm
    return kind(cfg.hidden, cfg.norm_eps)


class Attention(nn.Module):
    """Causal self-attention; tensor ranks share the heads."""

    def __init__(self, cfg: Model, grid: Grid, index: int) -> None:
        super().__init__()
        self.cfg, self.index, self.tp = cfg, index, grid.tp
        width, bias = cfg.head_width, cfg.bias != "none"
        if cfg.groups == cfg.heads:
            self.qkv = Column(cfg.hidden, 3 * cfg.heads * width, grid.tp, bias)
        else:
            self.q = Column(cfg.hidden, cfg.heads * width, grid.tp, bias)
            self.kv = Column(cfg.hidden, 2 * cfg.groups * width, grid.tp, bias)
        if cfg.qk_norm:
            self.q_norm = nn.RMSNorm(width, cfg.norm_eps)
            self.k_norm = nn.RMSNorm(width, cfg.norm_eps)
        self.proj = Row(cfg.heads * width, cfg.hidden, grid.tp, cfg.bias == "all")

    def forward(
        self, x: Float[Tensor, "batch time hidden"], cache: Cache | None = None
    ) -> Float[Tensor, "batch time hidden"]:
        """Attend to this and earlier tokens; with a cache, x are the tokens that follow it."""
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

    def _projected(self, x: Float[Tensor, "batch time hidden"]) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values: batch, head, time, size, of this tensor rank's heads."""
        norms: list[Tensor] = []
        if self.cfg.qk_norm:
            norms = [self.q_norm.weight, self.k_norm.weight]
        x, *norms = copy_in(
            self.tp, x, *norms
        )  # each rank sees its own heads' part of their gradient
        # batch, time, 3 x hidden -> three blocks q, k, v, heads contiguous inside each
        parts = (
            self.qkv(x).chunk(3, -1)
            if self.cfg.groups == self.cfg.heads
            else (self.q(x), *self.kv(x).chunk(2, -1))
        )
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
        self.tp = grid.tp
        self.approximate = "tanh" if cfg.activation == "tanh" else "none"
        self.is_gated, bias = cfg.activation == "swiglu", cfg.bias == "all"
        if self.is_gated:
            self.gate_up = Column(cfg.hidden, 2 * inner, grid.tp, bias)
        else:
            self.fc1 = Column(cfg.hidden, inner, grid.tp, bias)
        self.fc2 = Row(inner, cfg.hidden, grid.tp, bias)

    def forward(self, x: Float[Tensor, "*any hidden"]) -> Float[Tensor, "*any hidden"]:
        """fc2(GELU(fc1(x))), or fc2(silu(gate) * up)."""
        (x,) = copy_in(self.tp, x)
        if self.is_gated:
            gate, up = self.gate_up(x).chunk(2, -1)
            return self.fc2(F.silu(gate) * up)
        return self.fc2(F.gelu(self.fc1(x), approximate=self.approximate))


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
            mixed, routing = self.moe(inner.flatten(0, 1), scale)  # tokens of all rows in a line
            added = mixed.view_as(inner)
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
        if self.is_first or (self.is_last and cfg.tied):
            self.embed = nn.ModuleDict({"tok": nn.Embedding(cfg.vocab, cfg.hidden)})
        if self.is_first and cfg.positions == "learned":
            self.embed["pos"] = nn.Embedding(cfg.seq, cfg.hidden)
        self.layers = nn.ModuleDict({str(i): Block(cfg, layout, grid, i) for i in held})
        if self.is_last:
            self.ln_f = new_norm(cfg)
            if not cfg.tied:
                self.head = nn.Linear(cfg.hidden, cfg.vocab, bias=False)
        self.loss_scale: float | Tensor = 1.0
        """Weight of this micro-batch's balance and z losses: 1 / micro-batches."""
        self.compiled: dict[int, nn.Module] = {}
        """Blocks as torch.compile runs them, in training, by their indices."""
        self.routed: Callable[[int, Routing], None] | None = None
        """Called with each mixture layer's index and routing, once a forward pass."""

    def forward(self, x: Tensor, cache: Cache | None = None) -> Tensor:
        """Tokens (batch, time) or a previous part's hidden states -> hidden states or logits."""
        x = self.trunk(x, cache)
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

    def logits(self, x: Float[Tensor, "*any hidden"]) -> Float[Tensor, "*any vocab"]:
        """The head: logits of hidden states."""
        return F.linear(self.ln_f(x), self.table if self.cfg.tied else self.head.weight)

    def losses(
        self, x: Float[Tensor, "row time hidden"], target: Int64[Tensor, "row time"]
    ) -> Float[Tensor, "row time"]:
        """Cross-entropy in nats of each target, of the logits of some tokens at a time.

        All logits of a batch are the largest thing of an evaluation: vocabulary numbers a token.
        """
        some = max(1, LOGITS // self.cfg.vocab)
        parts = zip(x.flatten(0, 1).split(some), target.flatten().split(some), strict=True)
        found = [
            F.cross_entropy(self.logits(states).float(), wanted, reduction="none")
            for states, wanted in parts
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

    def _embed(self, tokens: Int64[Tensor, "batch time"], start: int) -> Tensor:
        try:
            x = self.embed["tok"](tokens)
        except IndexError as error:
            low, high = int(tokens.min()), int(tokens.max())
            raise ValueError(
                f"token ids are from {low} to {high}, but the vocabulary is 0 to "
                f"{self.cfg.vocab - 1}; encode with the tokenizer of this model"
            ) from error
        if "pos" in self.embed:
            end = start + tokens.shape[1]
            if end > self.cfg.seq:
                raise ValueError(
                    f"{end} tokens are more than the model's {self.cfg.seq} learned positions"
                )
            x = x + self.embed["pos"](torch.arange(start, end, device=tokens.device))
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


def cut_of(key: str) -> tuple[int, int] | None:
    """Dimension in which tensor ranks cut a parameter, and in how many blocks, each by itself.

    None: all have the whole. q, k and v are three blocks of the qkv outputs, each cut by itself; so
    are k and v of kv, and the two of gate_up.
    """
    if ".experts." in key or ".attn.q." in key or ".fc1." in key:
        return 0, 1
    if ".attn.kv." in key or ".gate_up." in key:
        return 0, 2
    if ".attn.qkv." in key:
        return 0, 3
    if key.endswith((".attn.proj.weight", ".fc2.weight")):
        return 1, 1
    return None


def own_part(key: str, whole: Tensor, size: int, rank: int) -> Tensor:
    """A rank's part of a parameter, of `size` ranks that share it."""
    cut = cut_of(key)
    if cut is None or size == 1:
        return whole
    dim, blocks = cut
    parts = [block.chunk(size, dim)[rank] for block in whole.chunk(blocks, dim)]
    return torch.cat(parts, dim)


def shape_of(key: str, part: Tensor, size: int) -> tuple[int, ...]:
    """Shape of the whole parameter, from a part's."""
    shape, cut = list(part.shape), cut_of(key)
    if cut is not None:
        shape[cut[0]] *= size
    return tuple(shape)


@torch.no_grad()
def initialise(model: nn.Module, cfg: Model, seed: int, owners: Callable[[str], Group]) -> None:
    """N(0, 0.02), what is added to the residual stream / sqrt(2 L) (GPT-2), biases 0, norms 1.

    Every whole tensor follows from (seed, its name) and each process keeps its part: weights do
    not depend on the layout. Large ones are drawn in slabs.
    """
    for key, parameter in model.named_parameters():
        if key.endswith("bias") or ".ln" in key or key.startswith("ln_f") or "_norm." in key:
            parameter.fill_(1.0 if key.endswith("weight") else 0.0)
            continue
        group = owners(key)
        shape = shape_of(key, parameter, group.size)
        if math.prod(shape) <= DRAWN:
            whole = drawn(key, torch.empty(shape), cfg, seed)
            parameter.copy_(own_part(key, whole, group.size, group.rank))
        else:
            _draw_slabs(parameter, key, shape, group, cfg, seed)


def _draw_slabs(
    parameter: Tensor, key: str, shape: tuple[int, ...], group: Group, cfg: Model, seed: int
) -> None:
    """Draw a large parameter some rows at a time, each slab by a generator of its own.

    Rows are those of the matrix, of all experts one below the other. A process draws the slabs
    that hold rows of its own and keeps its part of them.
    """
    columns = shape[-1]
    rows = math.prod(shape[:-1])
    each = max(1, DRAWN // columns)
    # numbers of the rows and columns of the whole that are here
    numbers = torch.arange(rows).view(shape[:-1])
    cut = cut_of(key)
    own_rows, own_columns = numbers.flatten(), slice(None)
    if cut is not None and group.size > 1 and cut[0] == 0:
        own_rows = own_part(key, numbers, group.size, group.rank).flatten()
    elif cut is not None and group.size > 1:
        width = columns // group.size
        own_columns = slice(group.rank * width, (group.rank + 1) * width)
    target = parameter.view(-1, parameter.shape[-1])
    for slab, start in enumerate(range(0, rows, each)):
        here = (own_rows >= start) & (own_rows < start + each)
        if not bool(here.any()):
            continue
        part = torch.empty(min(each, rows - start), columns)
        part.normal_(0, _deviation(key, cfg), generator=generator(seed, key, slab))
        target[here] = part[own_rows[here] - start][:, own_columns].to(target)


def drawn(key: str, whole: Tensor, cfg: Model, seed: int) -> Tensor:
    """Fill a whole parameter that is no bias and no norm with what follows from seed and name."""
    return whole.normal_(0, _deviation(key, cfg), generator=generator(seed, key))


def _deviation(key: str, cfg: Model) -> float:
    adds = key.endswith((".proj.weight", ".fc2.weight", "fc2_weight"))
    return 0.02 / math.sqrt(2 * cfg.layers) if adds else 0.02
