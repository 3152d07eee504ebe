"""Bytes that this trainer keeps on a device: weights, their copies, and what backward needs.

Counted tensor by tensor as the modules of `model.py` and `experts.py` save them; checked against
measurements in claims/ppmoe-memory.md. Residual stream, norms and router are in fp32 whatever the
products are made in.
"""

from __future__ import annotations

from dataclasses import dataclass

from .shape import Placement, Shape, ends, parameters

WIDE = 4
"""Bytes of a number of the residual stream, of a weight, a gradient and a moment."""
ROUTED = 12
"""Bytes of a router's numbers a token and expert: logits, probabilities in two orders."""
PAIR = 32
"""Bytes of a (token, expert) pair: places, order, weight."""


@dataclass(frozen=True)
class Kept:
    """Bytes of a device; per micro-batch where it is said."""

    stage: float
    """Activations of a stage's blocks, a micro-batch."""
    inputs: float
    """What is kept of them with recomputation: what enters a block."""
    block: float
    """Activations of the largest block, a micro-batch: made again one after another."""
    loss: float
    """What the head keeps, a micro-batch: its input and log-probabilities of the vocabulary."""
    logits: float
    """Gradients of logits and of log-probabilities, while the loss goes backward."""
    copies: float
    """Rounded copies of the weights of blocks outside experts."""
    head_copy: float
    """Rounded copy of the head's table."""
    gradients: float
    """New gradients of one block's experts before they are added to the old ones: in fp32, or in
    16 bits beside rounded copies of these experts."""
    outside: float
    """Parameters that all replicas hold."""
    inside: float
    """Parameters of experts."""
    gathered: float
    """Parameters and gradients that FSDP has whole at a time."""

    def activation_bytes(self, place: Placement, in_flight: float, recompute: bool) -> float:
        """Most that is kept: by the first stage, which has most in flight, or at the loss."""
        stage = self.inputs if recompute else self.stage
        work = self.gradients + (self.block if recompute else 0.0)
        ends = in_flight if place.virtual > 1 else 1.0  # on the last stage
        most = max(in_flight * stage + work, ends * stage + max(work, self.loss + self.logits))
        return most + self.copies + self.head_copy

    def kept_bytes(self, last: bool, recompute: bool) -> float:
        """Bytes kept after forward of one micro-batch, on the last stage or another."""
        bytes_ = self.inputs if recompute else self.stage + self.copies
        return bytes_ + (self.loss + self.head_copy if last else 0.0)

    def state_bytes(self, place: Placement, zero: bool, fsdp: bool = False) -> float:
        """Weights, gradients and two moments, all in fp32; ZeRO-1 cuts the moments, FSDP all.

        FSDP gathers the ends and two blocks at a time, and has whole gradients of what it computes.
        """
        owners = place.replicas // place.shared_by
        if fsdp:
            alone = self.inside if place.shared_by > 1 else 0.0
            cut = self.outside + self.inside - alone
            return 4 * WIDE * (cut / place.replicas + alone) + WIDE * self.gathered
        shares = (place.replicas, owners) if zero else (1, 1)
        return sum(
            2 * WIDE * (1 + 1 / share) * held
            for share, held in zip(shares, (self.outside, self.inside), strict=True)
        )


def kept(
    shape: Shape,
    place: Placement,
    element: int,
    imbalance: float = 1.0,
    fullest: float = 1.0,
    sequence: bool = False,
) -> Kept:
    """Bytes on the fullest device.

    Args:
        shape: Model.
        place: Layout.
        element: Bytes of a number in products: 4, or 2 with autocast.
        imbalance: Load of the fullest expert rank over the mean.
        fullest: Blocks of the fullest stage over the mean.
        sequence: Tensor ranks split the residual stream along the sequence.
    """
    tp, pp = place.tp, place.pp
    split = tp if sequence else 1
    dense, rounds = place.kind == "dense", element if element < WIDE else 0
    mixtures = 0 if dense else shape.moe_layers
    n = place.micro_batch_size * shape.seq / place.cp
    plain, mixed = (block_bytes(shape, place, element, imbalance, m, split) for m in (False, True))
    count = (shape.layers - mixtures) * plain + mixtures * mixed
    outside, inside = parameters(shape, dense=dense)
    blocks = (outside - ends(shape)) / (tp * pp) * fullest
    table = shape.vocab * shape.hidden / tp  # at both ends, one if tied
    whole = (2 if shape.swiglu else 1) * shape.vocab * shape.hidden
    own_ends = ends(shape) - whole + whole / tp if pp == 1 else table
    experts = inside / (tp * pp * place.shared_by) * fullest
    layer = inside / max(1, mixtures) / (tp * place.shared_by)
    inner = max(shape.shared, shape.inner if mixtures < shape.layers else 0)
    largest = (shape.attention_matrices + shape.network_matrices(inner)) / tp
    head = element * shape.hidden + (2 if shape.swiglu else 1) * WIDE * shape.hidden
    return Kept(
        stage=n * count / pp * fullest,
        inputs=n * WIDE * shape.hidden / split * shape.layers / pp * fullest,
        block=n * max(plain, mixed if mixtures else 0.0),
        loss=n * (head / split + WIDE * shape.vocab / tp),
        logits=n * 2 * WIDE * shape.vocab / tp,
        copies=rounds * blocks,
        head_copy=float(rounds * table),
        gradients=WIDE * layer,
        outside=blocks + own_ends,
        inside=experts,
        gathered=2 * own_ends + 3 * (largest + (layer if place.shared_by == 1 else 0.0)),
    )


def block_bytes(
    shape: Shape,
    place: Placement,
    element: int,
    imbalance: float,
    mixture: bool,
    split: int = 1,
) -> float:
    """Bytes a token that a block keeps, of a dense network or of a mixture.

    `split` ranks share the tokens of what lies between the products, and of these products' inputs.
    """
    h, tp, c = shape.hidden, place.tp, element
    queries, head = shape.attention_width / tp, shape.head_width
    keys = shape.groups * head / tp
    grouped = shape.groups != shape.heads
    # A norm keeps its input and statistics; RMSNorm also the input that it has scaled.
    norms: float = 2 * (2 * WIDE * h + WIDE if shape.swiglu else WIDE * h + 2 * WIDE) / split
    # Queries and keys that are two products have their input rounded for each, or once to be sent.
    attention: float = c * h * (2 if grouped and c < WIDE and split == 1 else 1) / split
    attention += c * queries + WIDE * shape.heads / tp  # output, log-sums
    if not shape.swiglu:
        attention += 3 * c * queries
    else:  # rotated ones lie beside the product that values are a part of
        attention += c * (queries + keys + 2 * keys + queries)
        attention += 0 if grouped else c * queries
        attention += 2 * c * head * place.cp / place.micro_batch_size  # cosines and sines

    def network(inner: int) -> float:
        return c * inner / tp * (4 if shape.swiglu else 2)

    if not mixture:
        return norms + attention + c * h / split + network(shape.inner)
    rows, back = expert_rows(shape, place, imbalance)
    experts = c * (rows * (h + 2 * shape.expert_inner) + back * h)
    routing = WIDE * h / split + ROUTED * shape.experts + PAIR * shape.top_k
    own_input = c * h / split if c < WIDE else 0.0  # else that of the router
    shared = network(shape.shared) + own_input if shape.shared else 0.0
    return norms + attention + experts + routing + shared


def expert_rows(shape: Shape, place: Placement, imbalance: float) -> tuple[float, float]:
    """Rows a token of a rank's experts, and rows of answers that it keeps to weigh them."""
    rows = shape.top_k * place.copies / place.tp
    if place.kind == "dpmoe":  # answers go back to the ranks that sent the tokens: evenly
        return rows * imbalance, rows
    # index_add keeps the weighted answers, too
    return rows * imbalance, rows * imbalance * (2 if place.tp > 1 else 1)
