"""Seconds and bytes of one training step of a layout, term by term; no torch.

The model is ours; where it follows the paper's analysis (sec. 3.1.4) the place says so. With its
extensions off it is what the golden `cost_model` holds. It is arithmetic, not a measurement: it is
as good as the rates in `Machine`.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from math import ceil

from tenfold.core.config import require

from .kept import WIDE, kept
from .shape import Placement, Shape, parameters

PASSES = 3
"""Forward passes that a step costs: a backward pass is two. (paper sec. 3.1.4)"""
OPTIMIZER_TRAFFIC = 28
"""Bytes read and written per parameter by Adam: four fp32 numbers in, three out. (ours)"""
STATE_BYTES = 16
"""fp16 weight and gradient, fp32 master and two moments; or all four in fp32. (ours)"""


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
class Extensions:
    """Effects that the plain model leaves out; the defaults leave them out too. (ours)"""

    imbalance: float = 1.0
    """Load of the fullest expert rank over the mean: a factor on expert products and all-to-alls,
    and, where memory is counted `as_kept`, on what its experts keep"""
    overlap: float = 0.0
    """Share of every communication that is hidden behind computation."""
    flash: bool = False
    """Attention that keeps no s x s scores, in the published formula; `as_kept` never has them."""
    zero: bool = False
    """ZeRO-1: optimiser state cut over the replicas."""
    inside_node: bool = False
    """Charge an all-to-all for what stays inside a node, and the gathering of the tensor ranks'
    shares after it; the plain model charges only what leaves the node."""
    as_kept: bool = False
    """Count the memory that this trainer keeps: its activations tensor by tensor, no s x s scores,
    whole tables of tokens at both ends, rounded copies of weights, fp32 gradients. The plain model
    has the published formula of a GPT-3 instead."""
    fsdp: bool = False
    """FSDP2: weights and gradients cut over the replicas, too, and gathered block by block for each
    micro-batch (with `as_kept`; no pipelines)."""
    sequence: bool = False
    """Sequence parallelism: what lies between the products is cut over tensor ranks (with
    `as_kept`)."""
    recompute: bool = False
    """Keep only the input of each block and make the rest again in backward (with `as_kept`)."""
    uneven: bool = False
    """Stages may differ by a block; the fullest sets the pace."""

    def __post_init__(self) -> None:
        require(self, "extensions.", "[1, inf)", "imbalance")
        require(self, "extensions.", "[0, 1]", "overlap")
        if self.fsdp and self.zero:
            raise ValueError("extensions.fsdp cuts what extensions.zero does; set one of them off")
        for name in ("recompute", "sequence", "fsdp"):
            if getattr(self, name) and not self.as_kept:
                raise ValueError(f"extensions.{name} needs extensions.as_kept, which counts blocks")


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
    """Activations kept for the backward pass on a device."""
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


def cost(shape: Shape, place: Placement, machine: Machine, extensions: Extensions = PLAIN) -> Cost:
    """Cost of a step; sizes need not divide, so that any published setting can be asked for."""
    b, s, h = place.micro_batch_size, shape.seq, shape.hidden
    n, k, layers = b * s / place.cp, shape.top_k, shape.layers
    pp, tp, dp, copies = place.pp, place.tp, place.replicas, place.copies
    moe_layers = 0 if place.kind == "dense" else shape.moe_layers
    is_dpmoe = place.kind == "dpmoe"
    size, uneven = machine.element_bytes, extensions.imbalance
    exposed = 1 - extensions.overlap
    node = tp if machine.own_link else machine.gpus_per_node
    nic = machine.nic_bytes_per_s * (tp if machine.own_link else 1)

    passes = PASSES + extensions.recompute  # one more forward
    stages = pp * place.virtual
    # the fullest stage over the mean
    fullest = ceil(layers / stages) * stages / layers if extensions.uneven else 1.0
    rate = tp * pp * machine.gemm_flops / fullest
    blocks, experts, head = forward_flop(shape, n, dense=place.kind == "dense")
    dense_gemm = (passes * blocks + PASSES * head) / rate
    expert_gemm = passes * experts / rate * uneven
    if is_dpmoe:
        expert_gemm *= copies

    # Two all-reduces a block and direction; DPMoE's mixture layers have all-to-alls instead.
    sums = float(4 * layers - (2 * moe_layers if is_dpmoe else 0))
    again = (passes - 1) / 2 * fullest  # forward's exchanges are made again, too
    if extensions.sequence and not extensions.recompute:  # products' inputs are gathered again
        sums += layers - moe_layers / 2
    one_sum = 2 * (tp - 1) / tp * size * n * h / machine.nvlink_bytes_per_s
    allreduce = sums / pp * one_sum * again
    if extensions.as_kept:  # the vocabulary is cut: the embedding's sum, and the head's backward
        allreduce += 2 / pp * one_sum
    if place.cp > 1:  # keys and values pass by all, forward; backward they and their gradients
        ring = 2 * n * shape.groups * shape.head_width / tp * (place.cp - 1) * size
        allreduce += passes * layers / pp * ring / machine.nvlink_bytes_per_s * fullest
    nodes = max(1, tp * place.shared_by // node)
    alltoall = 0.0
    if is_dpmoe:
        sent = size * n * h * k * copies * (node // tp) * (nodes - 1) / nodes
        alltoall = 4 * moe_layers / pp * sent / (nic * machine.a2a_eta) * uneven * again
        if extensions.inside_node:
            ranks, wire = tp * place.shared_by, size * n * h / machine.nvlink_bytes_per_s
            near = (min(ranks, node) - 1) / ranks
            alltoall += 4 * moe_layers / pp * k * copies / tp * near * wire * uneven * again
            if (
                copies == 1 and not extensions.sequence
            ):  # each tensor rank has got its own 1/T of the tokens back
                allreduce += 2 * moe_layers / pp * (tp - 1) / tp * wire * again
    held = shape.experts / tp
    if is_dpmoe:
        held = max(1, shape.experts / (tp * place.shared_by))
    calls = passes * machine.expert_call_s * held * moe_layers / pp * fullest

    outside, inside = parameters(shape, dense=place.kind == "dense")
    per_gpu = (outside + inside / place.shared_by) / (tp * pp)
    replicated = outside + (0 if is_dpmoe else inside)
    grad = 2 * (dp - 1) / dp * size * replicated / pp / nic
    owners = dp // place.shared_by  # replicas of a set of experts
    if is_dpmoe and owners > 1:
        grad += 2 * (owners - 1) / owners * size * inside / place.shared_by / pp / nic

    if extensions.fsdp:  # in fp32: weights gathered forward and backward, gradients scattered
        grad = place.micro_batches * 3 * (dp - 1) / dp * WIDE * replicated / pp / nic
    state = STATE_BYTES * per_gpu
    if extensions.zero:
        whole = 2 * size  # weight and gradient; the rest is cut
        cut = STATE_BYTES - whole
        state = (whole + cut / dp) * outside + (whole + cut / owners) * inside / place.shared_by
        state /= tp * pp
    in_flight = float(min(place.micro_batches, pp))
    if place.virtual > 1:  # an interleaved schedule warms up longer
        in_flight *= 1 + (pp - 1) / (pp * place.virtual)
    if extensions.as_kept:
        own = kept(shape, place, size, uneven, fullest, extensions.sequence)
        state = own.state_bytes(place, extensions.zero, extensions.fsdp)
        activations = own.activation_bytes(place, in_flight, extensions.recompute)
    else:
        scores = 0.0 if extensions.flash else 5 * shape.heads * s / (h * tp)
        activations = in_flight * n * h * layers / pp * (10 + 24 / tp + scores) * size / 2
    m, v = place.micro_batches, place.virtual
    handed = tp if extensions.sequence else 1  # ranks that each hand over their own tokens
    return Cost(
        dense_gemm=dense_gemm,
        expert_gemm=expert_gemm,
        allreduce=exposed * allreduce,
        alltoall=exposed * alltoall,
        expert_calls=calls,
        # Each stage boundary is crossed forward and backward.
        p2p=exposed * (2 * size * n * h / handed / machine.nic_bytes_per_s if pp > 1 else 0.0),
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


def forward_flop(shape: Shape, tokens: float, dense: bool = False) -> tuple[float, float, float]:
    """FLOP of the products of a forward pass: in blocks outside experts, in experts, in the head.

    A matrix of a numbers is 2na FLOP for n tokens: 16nh^2 for a feed-forward network of 4h (paper
    sec. 3.1.4, before eq. 2). Scores are counted for all pairs of positions, also those that are
    masked, as is usual; routers are not counted.
    """
    n, layers = tokens, shape.layers
    moe_layers = 0 if dense else shape.moe_layers
    blocks = layers * (2 * n * shape.attention_matrices + 4 * n * shape.seq * shape.attention_width)
    blocks += 2 * n * shape.network_matrices(shape.inner) * (layers - moe_layers)
    blocks += 2 * n * shape.network_matrices(shape.shared) * moe_layers
    experts = 2 * n * shape.network_matrices(shape.expert_inner) * shape.top_k * moe_layers
    return blocks, experts, 2 * n * shape.hidden * shape.vocab


def training_flop(shape: Shape, tokens: float) -> float:
    """FLOP of the products of a step of so many tokens, as the model needs them on any layout."""
    return PASSES * sum(forward_flop(shape, tokens))


def alltoall_over_ffn(experts: int, hidden: int, flops: float, bytes_per_s: float) -> float:
    """The paper's eq. 2: one all-to-all over the experts' FFN, if every step is serialised."""
    return (experts - 1) * experts * flops / (16 * bytes_per_s * hidden)


def alltoall_bound(experts: int) -> float:
    """The paper's eq. 3: eq. 2 is at least this for a V100, 100 Gb/s and h of at most 10^4."""
    return (experts - 1) * experts / 16


def allreduce_over_ffn(tp: int, hidden: int, flops: float, bytes_per_s: float) -> float:
    """The paper's eq. 5: the all-reduce of a tensor-parallel FFN over its products."""
    return (tp - 1) * tp * flops / (4 * bytes_per_s * hidden)
