"""Sizes of a GPT with mixture layers, its parameters, and its placement on devices; no torch."""

from __future__ import annotations

from dataclasses import MISSING, dataclass, fields
from typing import TYPE_CHECKING, Literal

from ..widths import Widths

if TYPE_CHECKING:
    from ..config import Model

Kind = Literal["dense", "ppmoe", "dpmoe"]


@dataclass(frozen=True)
class Shape(Widths):
    """A GPT and its mixture layers; `experts` 0 is a dense model."""

    layers: int
    """Transformer blocks, L."""
    hidden: int
    """Width, h."""
    heads: int
    """Attention heads."""
    vocab: int
    """Tokens of the vocabulary, V."""
    seq: int
    """Tokens of a sequence, s."""
    experts: int = 0
    """Experts of a mixture layer, E."""
    top_k: int = 1
    """Experts a token, k."""
    moe_every: int = 2
    """Every how many blocks one has experts."""
    ffn: int = 0
    """Inner width of a feed-forward network; 0 is 4h."""
    expert_ffn: int = 0
    """Inner width of an expert; 0 is that of a feed-forward network."""
    shared: int = 0
    """Inner width of an expert that every token passes."""
    kv_heads: int = 0
    """Heads of keys and values; 0: as many as heads."""
    head_size: int = 0
    """Width of a head; 0 is hidden / heads."""
    swiglu: int = 0
    """1: networks of SwiGLU, three matrices and no biases, RMSNorm, rotary positions and a head of
    its own, as most have since Llama; 0: GPT-3's."""

    dense_first: int = 0
    """Blocks without experts before the first that may have some (DeepSeek: 3)."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            least = 1 if field.default is MISSING or field.name in ("top_k", "moe_every") else 0
            if value < least:
                raise ValueError(f"model {field.name} must be at least {least}, got {value}")
        if self.experts and self.top_k > self.experts:
            raise ValueError(f"model top_k {self.top_k} is more than experts {self.experts}")

    @property
    def attention_width(self) -> int:
        """Width of all heads of queries."""
        return self.heads * self.head_width

    @property
    def attention_matrices(self) -> int:
        """Numbers of the four matrices of attention; 4h^2 where all heads have their own keys."""
        return 2 * self.hidden * (self.attention_width + self.groups * self.head_width)

    def network_matrices(self, inner: int) -> int:
        """Numbers of the matrices of a network of this inner width; 8h^2 for 4h."""
        return (3 if self.swiglu else 2) * self.hidden * inner

    @property
    def moe_layers(self) -> int:
        """Blocks with experts, Lm."""
        return max(0, self.layers - self.dense_first) // self.moe_every if self.experts else 0


def shape_of(model: Model) -> Shape:
    """Sizes of a configured network; of blocks with experts that are given by number, how many."""
    number = len(model.moe_layers)
    chosen = bool(model.moe_at) and number > 0
    return Shape(
        layers=model.layers,
        hidden=model.hidden,
        heads=model.heads,
        vocab=model.vocab,
        seq=model.seq,
        experts=model.experts if number else 0,
        top_k=model.top_k,
        moe_every=1 if chosen else model.moe_every,
        ffn=model.ffn,
        expert_ffn=model.expert_ffn,
        shared=model.shared,
        kv_heads=model.kv_heads,
        head_size=model.head_size,
        swiglu=int(model.activation == "swiglu"),
        dense_first=model.layers - number if chosen else 0,
    )


@dataclass(frozen=True)
class Placement:
    """Placement of a model on P x D x T devices, and the cut of a step's batch."""

    kind: Kind
    """dense: the backbone without experts; ppmoe: experts over T; dpmoe: over D (and T)."""
    pp: int
    """Pipeline stages, P."""
    tp: int
    """Tensor-parallel size, T."""
    dp: int
    """Data replicas, D."""
    micro_batch_size: int
    """Sequences of a micro-batch of one replica, b."""
    micro_batches: int
    """Micro-batches of a step and replica, M."""
    copies: float = 1.0
    """Sends of a token by an all-to-all, u: 1, or T where each tensor rank sends its copy."""
    expert_dp: int = 0
    """Replicas that share one set of experts, where the method is dpmoe; 0 is all D."""
    virtual: int = 1
    """Virtual stages of a device (interleaved schedule), v."""
    cp: int = 1
    """Devices that share each sequence's tokens (context parallel), C: others', ours has none."""

    def __post_init__(self) -> None:
        sizes = ("pp", "tp", "dp", "cp", "micro_batch_size", "micro_batches", "copies", "virtual")
        for name in sizes:
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")

    @property
    def replicas(self) -> int:
        """Devices that hold the same weights outside the experts."""
        return self.dp * self.cp

    @property
    def world(self) -> int:
        """Devices."""
        return self.pp * self.replicas * self.tp

    @property
    def shared_by(self) -> int:
        """Replicas over which a set of experts is spread: 1 unless the method is dpmoe."""
        return (self.expert_dp or self.replicas) if self.kind == "dpmoe" else 1


def parameters(shape: Shape, dense: bool = False) -> tuple[int, int]:
    """Parameters outside the mixture layers and in them (experts and routers). (ours: GPT-3)"""
    h = shape.hidden
    moe_layers = 0 if dense else shape.moe_layers

    def network(inner: int) -> int:
        return shape.network_matrices(inner) + (0 if shape.swiglu else inner + h)

    attention, norms = shape.attention_matrices + (0 if shape.swiglu else 4 * h), 4 * h
    if shape.swiglu:  # no biases
        norms = 2 * h
    outside = shape.layers * (attention + norms) + (shape.layers - moe_layers) * network(
        shape.inner
    )
    outside += ends(shape) + (moe_layers * network(shape.shared) if shape.shared else 0)
    return outside, moe_layers * shape.experts * (network(shape.expert_inner) + h)


def ends(shape: Shape) -> int:
    """Parameters before the first block and after the last; of these SwiGLU's has two tables."""
    if shape.swiglu:
        return 2 * shape.vocab * shape.hidden + shape.hidden
    return (shape.vocab + shape.seq + 2) * shape.hidden
