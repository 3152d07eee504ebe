"""Seconds and bytes of one training step of a layout, term by term; no torch.

The model is ours; where it follows the paper's analysis (sec. 3.1.4) the place says so. With its
extensions off it is what the golden `cost_model` holds. It is arithmetic, not a measurement: it is
as good as the rates in `Machine`.
"""

from __future__ import annotations

from dataclasses import MISSING, dataclass, fields
from typing import Literal

from tenfold.core.config import require

Kind = Literal["dense", "ppmoe", "dpmoe"]

PASSES = 3
"""Forward passes that a step costs: a backward pass is two. (paper sec. 3.1.4)"""
OPTIMIZER_TRAFFIC = 28
"""Bytes read and written per parameter by Adam: four fp32 numbers in, three out. (ours)"""
STATE_BYTES = 16
"""fp16 weight and gradient, fp32 master and two moments; or all four in fp32. (ours)"""


@dataclass(frozen=True)
class Shape:
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

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            least = 1 if field.default is MISSING or field.name in ("top_k", "moe_every") else 0
            if value < least:
                raise ValueError(f"model {field.name} must be at least {least}, got {value}")
        if self.experts and self.top_k > self.experts:
            raise ValueError(f"model top_k {self.top_k} is more than experts {self.experts}")

    @property
    def inner(self) -> int:
        """Inner width of a feed-forward network."""
        return self.ffn or 4 * self.hidden

    @property
    def expert_inner(self) -> int:
        """Inner width of an expert."""
        return self.expert_ffn or self.inner

    @property
    def attention_width(self) -> int:
        """Width of all heads of queries."""
        return self.heads * (self.head_size or self.hidden // self.heads)

    @property
    def attention_matrices(self) -> int:
        """Numbers of the four matrices of attention; 4h^2 where all heads have their own keys."""
        width = self.attention_width
        own = (self.kv_heads or self.heads) * width // self.heads
        return self.hidden * (2 * width + 2 * own)

    def network_matrices(self, inner: int) -> int:
        """Numbers of the matrices of a network of this inner width; 8h^2 for 4h."""
        return (3 if self.swiglu else 2) * self.hidden * inner

    @property
    def moe_layers(self) -> int:
        """Blocks with experts, Lm."""
        return self.layers // self.moe_every if self.experts else 0


@dataclass(frozen=True)
class Machine:
    """Achieved rates of the devices and their links; defaults are a V100 node's, tuned (ours)."""

    gemm_flops: float = 45e12
    """FLOP/s that the matrix products of the whole model achieve, g. (ours)"""
    nvlink_bytes_per_s: float = 130e9
    """Bus bandwidth of an all-reduce inside a node, Bv. (ours; 300e9 is the data sheet's)"""
    nic_bytes_per_s: float = 12.5e9
    """Bandwidth of a node to the others, Bn. (paper sec. 3.1.4: 100 Gb/s)"""
    hbm_bytes_per_s: float = 700e9
    """Memory bandwidth the optimiser achieves. (ours; 900e9 is the data sheet's)"""
    gpus_per_node: int = 8
    """Devices of a node, G. (paper sec. 4)"""
    expert_call_s: float = 270e-6
    """Seconds of calling one expert forward, beyond its products, alpha. (ours, tuned)"""
    a2a_eta: float = 0.5
    """Share of the link that an all-to-all achieves, eta. (ours, tuned)"""
    element_bytes: int = 2
    """Bytes of an activation or gradient on the links."""
    own_link: bool = False
    """Each process has a link of its own, so that a tensor group counts as a node: local processes,
    whose exchange all goes through the same memory."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            # A kernel that costs nothing to call is a fair question.
            if field.name not in ("own_link", "expert_call_s") and not value > 0:
                raise ValueError(f"{field.name} must be positive, got {value}")
        if self.expert_call_s < 0:
            raise ValueError(f"expert_call_s must not be negative, got {self.expert_call_s}")


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

    def __post_init__(self) -> None:
        for name in ("pp", "tp", "dp", "micro_batch_size", "micro_batches", "copies", "virtual"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")

    @property
    def world(self) -> int:
        """Devices."""
        return self.pp * self.dp * self.tp

    @property
    def shared_by(self) -> int:
        """Replicas over which a set of experts is spread: 1 unless the method is dpmoe."""
        return (self.expert_dp or self.dp) if self.kind == "dpmoe" else 1


@dataclass(frozen=True)
class Extensions:
    """Effects that the plain model leaves out; the defaults leave them out too. (ours)"""

    imbalance: float = 1.0
    """Load of the fullest expert rank over the mean: a factor on expert products and all-to-alls"""
    overlap: float = 0.0
    """Share of every communication that is hidden behind computation."""
    flash: bool = False
    """Attention that keeps no s x s scores."""
    zero: bool = False
    """ZeRO-1: optimiser state cut over the replicas."""
    inside_node: bool = False
    """Charge an all-to-all for what stays inside a node, and the gathering of the tensor ranks'
    shares after it; the plain model charges only what leaves the node."""

    def __post_init__(self) -> None:
        require(self, "extensions.", "[1, inf)", "imbalance")
        require(self, "extensions.", "[0, 1]", "overlap")


PLAIN = Extensions()
"""The model without extensions."""


@dataclass(frozen=True)
class Cost:
    """Costs of one step, in seconds and bytes."""

    dense_gemm: float
    """Seconds a stage and micro-batch: products outside experts, forward and backward."""
    expert_gemm: float
    """Seconds a stage and micro-batch: products of experts."""
    allreduce: float
    """Seconds a stage and micro-batch: sums over the tensor group."""
    alltoall: float
    """Seconds a stage and micro-batch: exchange of tokens between nodes."""
    expert_calls: float
    """Seconds a stage and micro-batch: calling experts, beyond their products."""
    p2p: float
    """Seconds of handing one micro-batch to the next stage and its gradient back."""
    grad: float
    """Seconds a step: mean of the gradients over replicas."""
    opt: float
    """Seconds a step: the optimiser."""
    params_per_gpu: float
    """Parameters on a device."""
    state_bytes: float
    """Weights, gradients and optimiser state on a device."""
    activation_bytes: float
    """Activations kept for the backward pass on a device (no recomputation)."""
    work_slots: float
    """Micro-batches a stage works on in a step, M."""
    idle_slots: float
    """Micro-batches' time a stage waits in a step, (P - 1) / v."""
    p2p_slots: float
    """Hand-overs that a step waits for."""
    tokens_per_gpu: float
    """Tokens of a step over all devices, per device."""

    @property
    def stage(self) -> float:
        """Seconds of one micro-batch on one stage, forward and backward."""
        return (
            self.dense_gemm + self.expert_gemm + self.allreduce + self.alltoall + self.expert_calls
        )

    @property
    def bubble(self) -> float:
        """Share of a pipeline's time in which a stage waits."""
        return self.idle_slots / (self.work_slots + self.idle_slots)

    @property
    def step(self) -> float:
        """Seconds of a step."""
        busy = (self.work_slots + self.idle_slots) * self.stage
        return busy + self.p2p_slots * self.p2p + self.grad + self.opt

    @property
    def tokens_per_s_per_gpu(self) -> float:
        """The rate by which layouts are ranked."""
        return self.tokens_per_gpu / self.step

    @property
    def memory(self) -> float:
        """Bytes on a device."""
        return self.state_bytes + self.activation_bytes

    def terms(self) -> dict[str, float]:
        """Seconds of a step by what they are spent on; their sum is the step."""
        work = self.work_slots
        return {
            "dense GEMM": work * self.dense_gemm,
            "expert GEMM": work * self.expert_gemm,
            "expert calls": work * self.expert_calls,
            "all-reduce": work * self.allreduce,
            "all-to-all": work * self.alltoall,
            "bubble": self.idle_slots * self.stage,
            "stage hand-over": self.p2p_slots * self.p2p,
            "gradient reduction": self.grad,
            "optimiser": self.opt,
        }


COMMUNICATION = ("all-reduce", "all-to-all", "stage hand-over", "gradient reduction")
"""The terms of a `Cost` that are spent on links."""


def parameters(shape: Shape, dense: bool = False) -> tuple[int, int]:
    """Parameters outside the mixture layers and in them (experts and routers). (ours: GPT-3)"""
    h = shape.hidden
    moe_layers = 0 if dense else shape.moe_layers

    def network(inner: int) -> int:
        return shape.network_matrices(inner) + (0 if shape.swiglu else inner + h)

    attention, norms = shape.attention_matrices + (0 if shape.swiglu else 4 * h), 4 * h
    if shape.swiglu:  # no biases, and a table of tokens at both ends
        norms, ends = 2 * h, 2 * shape.vocab * h + h
    else:
        ends = shape.vocab * h + shape.seq * h + 2 * h
    outside = shape.layers * (attention + norms) + (shape.layers - moe_layers) * network(
        shape.inner
    )
    outside += ends + (moe_layers * network(shape.shared) if shape.shared else 0)
    return outside, moe_layers * shape.experts * (network(shape.expert_inner) + h)


def cost(shape: Shape, place: Placement, machine: Machine, extensions: Extensions = PLAIN) -> Cost:
    """Cost of a step; sizes need not divide, so that any published setting can be asked for."""
    b, s, h = place.micro_batch_size, shape.seq, shape.hidden
    n, k, layers = b * s, shape.top_k, shape.layers
    pp, tp, dp, copies = place.pp, place.tp, place.dp, place.copies
    moe_layers = 0 if place.kind == "dense" else shape.moe_layers
    is_dpmoe = place.kind == "dpmoe"
    size, uneven = machine.element_bytes, extensions.imbalance
    exposed = 1 - extensions.overlap
    node = tp if machine.own_link else machine.gpus_per_node
    nic = machine.nic_bytes_per_s * (tp if machine.own_link else 1)

    # A matrix of a numbers is 2na FLOP forward: 16nh^2 for a feed-forward network of 4h (paper sec.
    # 3.1.4, before eq. 2).
    rate = tp * pp * machine.gemm_flops
    scores_flop = 4 * n * s * shape.attention_width
    flop = layers * (2 * n * shape.attention_matrices + scores_flop)
    flop += 2 * n * shape.network_matrices(shape.inner) * (layers - moe_layers)
    flop += 2 * n * shape.network_matrices(shape.shared) * moe_layers
    dense_gemm = PASSES * (flop + 2 * n * h * shape.vocab) / rate
    one_expert = 2 * n * shape.network_matrices(shape.expert_inner)
    expert_gemm = PASSES * one_expert * k * moe_layers / rate * uneven
    if is_dpmoe:
        expert_gemm *= copies

    # Two all-reduces a block and direction; DPMoE's mixture layers have all-to-alls instead.
    sums = 4 * layers - (2 * moe_layers if is_dpmoe else 0)
    allreduce = sums / pp * 2 * (tp - 1) / tp * size * n * h / machine.nvlink_bytes_per_s
    nodes = max(1, tp * place.shared_by // node)
    alltoall = 0.0
    if is_dpmoe:
        sent = size * n * h * k * copies * (node // tp) * (nodes - 1) / nodes
        alltoall = 4 * moe_layers / pp * sent / (nic * machine.a2a_eta) * uneven
        if extensions.inside_node:
            ranks, wire = tp * place.shared_by, size * n * h / machine.nvlink_bytes_per_s
            near = (min(ranks, node) - 1) / ranks
            alltoall += 4 * moe_layers / pp * k * copies / tp * near * wire * uneven
            if copies == 1:  # each tensor rank has got its own 1/T of the tokens back
                allreduce += 2 * moe_layers / pp * (tp - 1) / tp * wire
    held = shape.experts / tp
    if is_dpmoe:
        held = max(1, shape.experts / (tp * place.shared_by))
    calls = PASSES * machine.expert_call_s * held * moe_layers / pp

    outside, inside = parameters(shape, dense=place.kind == "dense")
    per_gpu = (outside + inside / place.shared_by) / (tp * pp)
    replicated = outside + (0 if is_dpmoe else inside)
    grad = 2 * (dp - 1) / dp * size * replicated / pp / nic
    owners = dp // place.shared_by  # replicas of a set of experts
    if is_dpmoe and owners > 1:
        grad += 2 * (owners - 1) / owners * size * inside / place.shared_by / pp / nic

    state = STATE_BYTES * per_gpu
    if extensions.zero:
        whole = 2 * size  # weight and gradient; the rest is cut
        cut = STATE_BYTES - whole
        state = (whole + cut / dp) * outside + (whole + cut / owners) * inside / place.shared_by
        state /= tp * pp
    in_flight = float(min(place.micro_batches, pp))
    if place.virtual > 1:  # an interleaved schedule warms up longer
        in_flight *= 1 + (pp - 1) / (pp * place.virtual)
    scores = 0.0 if extensions.flash else 5 * shape.heads * s / (h * tp)
    activations = in_flight * n * h * layers / pp * (10 + 24 / tp + scores) * size / 2
    m, v = place.micro_batches, place.virtual
    return Cost(
        dense_gemm=dense_gemm,
        expert_gemm=expert_gemm,
        allreduce=exposed * allreduce,
        alltoall=exposed * alltoall,
        expert_calls=calls,
        # Each stage boundary is crossed forward and backward.
        p2p=exposed * (2 * size * n * h / machine.nic_bytes_per_s if pp > 1 else 0.0),
        grad=exposed * grad,
        opt=per_gpu * OPTIMIZER_TRAFFIC / machine.hbm_bytes_per_s,
        params_per_gpu=per_gpu,
        state_bytes=state,
        activation_bytes=activations,
        work_slots=float(m),
        idle_slots=(pp - 1) / v,
        p2p_slots=float(m * v + 2 * pp - 2),
        tokens_per_gpu=m * n / (pp * tp),
    )


def alltoall_over_ffn(experts: int, hidden: int, flops: float, bytes_per_s: float) -> float:
    """The paper's eq. 2: one all-to-all over the experts' FFN, if every step is serialised."""
    return (experts - 1) * experts * flops / (16 * bytes_per_s * hidden)


def alltoall_bound(experts: int) -> float:
    """The paper's eq. 3: eq. 2 is at least this for a V100, 100 Gb/s and h of at most 10^4."""
    return (experts - 1) * experts / 16


def allreduce_over_ffn(tp: int, hidden: int, flops: float, bytes_per_s: float) -> float:
    """The paper's eq. 5: the all-reduce of a tensor-parallel FFN over its products."""
    return (tp - 1) * tp * flops / (4 * bytes_per_s * hidden)
