"""Search for the layout that trains a model fastest on a cluster, by the cost model; no torch."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from .clusters import GIB, Cluster
from .cost import PLAIN, Cost, Extensions, cost
from .shape import Kind, Placement, Shape

METHODS = {
    "ppmoe": "PPMoE",
    "dpmoe": "DPMoE",
    "dpmoe-pipeline": "DPMoE + pipeline",
    "dense": "dense backbone",
    "dpmoe-copies": "DPMoE with copies",
}
"""Method -> how it is shown. dpmoe is the paper's baseline, P = 1, each token sent once; copies:
each tensor rank sends its copy; + pipeline: P > 1, which the paper did not compare with (ours).
The dense backbone is a yardstick: it competes only where the model asked for is dense."""


SHARES = ("dpmoe", "dpmoe-pipeline")
"""Methods in which each tensor rank sends an equal share of the tokens."""
BYTES = 256
"""Vocabulary of a tokenizer whose tokens are bytes."""
PAIRS = range(257, 2**16 + 1)
"""Vocabularies that a byte pair encoding of ours may have (`data.bpe_vocab`)."""


@dataclass(frozen=True)
class Candidate:
    """A layout with its cost."""

    method: str
    place: Placement
    cost: Cost

    @property
    def rate(self) -> float:
        """Tokens a second and device."""
        return self.cost.tokens_per_s_per_gpu

    @property
    def larger_part(self) -> str:
        """The part that needs most of its memory."""
        state = self.cost.state_bytes > self.cost.activation_bytes
        return "weights and optimiser" if state else "activations"

    def label(self) -> str:
        """Method and sizes in one line."""
        p = self.place
        more = f", v {p.virtual}" if p.virtual > 1 else ""
        sizes = f"PP {p.pp} TP {p.tp} DP {p.dp}, b {p.micro_batch_size}, M {p.micro_batches}{more}"
        return f"{METHODS[self.method]}: {sizes}"


@dataclass(frozen=True)
class Plan:
    """Every layout that was looked at, the fastest first."""

    shape: Shape
    cluster: Cluster
    batch: int
    """Sequences of a step, over all replicas."""
    extensions: Extensions
    memory_share: float
    """Share of a device's memory that a layout may use."""
    fitting: tuple[Candidate, ...]
    """Layouts that fit, the fastest first."""
    misfits: tuple[Candidate, ...]
    """Layouts that do not, the fastest first."""
    virtual: int = 1
    """Virtual stages that were allowed."""

    @property
    def memory_limit(self) -> float:
        """Bytes of a device that a layout may use."""
        return self.cluster.memory_bytes * self.memory_share

    @property
    def competing(self) -> list[Candidate]:
        """Those that train the model asked for; the dense backbone of a mixture is not one."""
        return [f for f in self.fitting if not self.shape.experts or f.method != "dense"]

    @property
    def best(self) -> Candidate:
        """The fastest layout that fits."""
        return self.competing[0]

    def best_of(self, method: str) -> Candidate | None:
        """The fastest fitting layout of a method."""
        return next((f for f in self.fitting if f.method == method), None)

    def runners_up(self, count: int = 8) -> list[Candidate]:
        """The next best, each method, P, T and D once, with the b that suits it best."""
        seen, chosen = {_sizes(self.best)}, []
        for one in self.competing:
            if _sizes(one) not in seen:
                seen.add(_sizes(one))
                chosen.append(one)
        return chosen[:count]

    def frontier(self) -> list[Candidate]:
        """Layouts than which none is both faster and smaller, from the smallest."""
        kept: list[Candidate] = []
        for one in sorted(self.competing, key=lambda f: (f.cost.memory, -f.rate)):
            if not kept or one.rate > kept[-1].rate:
                kept.append(one)
        return kept

    def discarded(self) -> dict[str, int]:
        """Counts of the layouts that do not fit, by the larger part of what they need."""
        return dict(Counter(f.larger_part for f in self.misfits))


def _sizes(one: Candidate) -> tuple[str, int, int]:
    return one.method, one.place.pp, one.place.tp


def search(
    shape: Shape,
    cluster: Cluster,
    batch: int,
    extensions: Extensions = PLAIN,
    *,
    virtual: int = 1,
    memory_share: float = 0.9,
    methods: Sequence[str] = tuple(METHODS),
    narrow: bool = False,
) -> Plan:
    """Cost every layout of `batch` sequences a step; what fits uses `memory_share` of a device.

    `narrow` looks at DPMoE's experts over fewer replicas than could share them, too, as others'
    trainers have it.
    """
    if batch < 1:
        raise ValueError(f"--batch must be at least 1 sequence, got {batch}")
    if virtual < 1:
        raise ValueError(f"--virtual must be at least 1 stage a device, got {virtual}")
    if not 0 < memory_share <= 1:
        raise ValueError(f"--memory-share must be in (0, 1], got {memory_share}")
    candidates = [
        Candidate(method, place, cost(shape, place, cluster.rates, extensions))
        for method in methods
        if shape.experts or method == "dense"
        for place in placements(
            shape, cluster, batch, method, virtual, uneven=extensions.uneven, narrow=narrow
        )
        if shape.seq % place.tp == 0 or not (extensions.sequence or method in SHARES)
        if not extensions.fsdp or (place.pp == 1 and shape.hidden % place.dp == 0)
    ]
    candidates.sort(key=lambda f: (-f.rate, f.cost.memory))
    limit = cluster.memory_bytes * memory_share
    return Plan(
        shape=shape,
        cluster=cluster,
        batch=batch,
        extensions=extensions,
        memory_share=memory_share,
        fitting=tuple(f for f in candidates if f.cost.memory <= limit),
        misfits=tuple(f for f in candidates if f.cost.memory > limit),
        virtual=virtual,
    )


def plan(
    shape: Shape,
    cluster: Cluster,
    batch: int,
    extensions: Extensions = PLAIN,
    *,
    virtual: int = 1,
    memory_share: float = 0.9,
) -> Plan:
    """Search all layouts; ValueError with the way out if none exists or none fits in memory."""
    made = search(shape, cluster, batch, extensions, virtual=virtual, memory_share=memory_share)
    if made.competing:
        return made
    tried = [f for f in made.misfits if f.method != "dense" or not shape.experts]
    if not tried:
        raise ValueError(
            f"no layout of {shape.layers} layers, {shape.heads} heads and {shape.experts} experts "
            f"on {cluster.world} devices divides a batch of {batch}; try a --batch that is a "
            f"multiple of {cluster.world}, or another number of nodes"
        )
    least = min(tried, key=lambda f: f.cost.memory)
    raise ValueError(
        f"nothing fits into {made.memory_limit / GIB:.1f} GiB ({memory_share:.0%} of a device): "
        f"the smallest, {least.label()}, needs {least.cost.memory / GIB:.1f} GiB "
        f"({least.cost.state_bytes / GIB:.1f} of it weights and optimiser); more nodes, "
        "--extensions.zero, --extensions.sequence or --extensions.recompute need less"
    )


def placements(
    shape: Shape,
    cluster: Cluster,
    batch: int,
    method: str,
    virtual: int = 1,
    *,
    uneven: bool = False,
    narrow: bool = False,
) -> Iterator[Placement]:
    """Every way to lay a method on the cluster whose sizes divide; `uneven` stages need not."""
    kinds: dict[str, Kind] = {"ppmoe": "ppmoe", "dense": "dense"}
    kind = kinds.get(method, "dpmoe")
    node, world = cluster.machine.gpus_per_node, cluster.world
    # all that tensor ranks share evenly: the trainer refuses the rest
    cut = math.gcd(shape.heads, shape.groups, shape.inner, shape.shared)
    cut = math.gcd(cut, 0 if kind == "dense" else shape.experts)
    for pp in divisors(world) if uneven else divisors(shape.layers):
        if pp > shape.layers:
            break
        if kind == "dpmoe" and (method == "dpmoe-pipeline") != (pp > 1):
            continue
        # Stages must be alike: the slowest sets the pace, and the cost model knows only the mean.
        if kind != "dense" and shape.moe_layers % pp and not uneven:
            continue
        for tp in divisors(math.gcd(cut, node)):
            if world % (pp * tp) or (method == "dpmoe-copies" and tp == 1):
                continue
            dp = world // (pp * tp)
            if batch % dp:
                continue
            sharing = _expert_dp(shape.experts, tp, dp, narrow) if kind == "dpmoe" else [0]
            copies = float(tp) if method == "dpmoe-copies" else 1.0
            for b in divisors(batch // dp):
                m = batch // (dp * b)
                stages = {1}
                # An interleaved schedule deals micro-batches out in rounds of P.
                deals = (
                    shape.layers >= pp * virtual if uneven else shape.layers % (pp * virtual) == 0
                )
                if pp > 1 and deals and m % pp == 0:
                    stages.add(virtual)
                for v, d in itertools.product(sorted(stages), sharing):
                    yield Placement(kind, pp, tp, dp, b, m, copies, d, v)


def _expert_dp(experts: int, tp: int, dp: int, narrow: bool) -> list[int]:
    """Most replicas that share a set of experts evenly, or every number; 0 stands for all."""

    def even(d: int) -> bool:
        return experts % d == 0 and (experts % (tp * d) == 0 or (tp * d) % experts == 0)

    found = [0 if d == dp else d for d in divisors(dp) if even(d)]
    return found if narrow else found[-1:]


def divisors(number: int) -> list[int]:
    """All divisors, the smallest first."""
    low = [d for d in range(1, math.isqrt(number) + 1) if number % d == 0]
    return sorted({*low, *(number // d for d in low)})


def why_it_loses(winner: Candidate, loser: Candidate, memory_limit: float) -> str:
    """One line: memory, or the term by which the loser's step is longer most."""
    if loser.cost.memory > memory_limit:
        return (
            f"memory: {loser.cost.memory / GIB:.1f} GiB, mostly {loser.larger_part}; "
            f"the limit is {memory_limit / GIB:.1f}"
        )
    mine, theirs = winner.cost.terms(), loser.cost.terms()
    term = max(mine, key=lambda t: theirs[t] - mine[t])
    more = (theirs[term] - mine[term]) / winner.cost.step
    return (
        f"{term}: {1e3 * theirs[term]:.4g} ms a step against {1e3 * mine[term]:.4g} "
        f"(+{more:.1%} of the best step)"
    )


@dataclass(frozen=True)
class Sensitivity:
    """A plan with one constant changed."""

    constant: str
    value: str
    rate_of_winner: float
    """Tokens/s/device of the layout that won before."""
    best: Candidate
    changed: bool
    """Another layout wins."""


def sensitivities(made: Plan) -> list[Sensitivity]:
    """Every uncertain constant halved and doubled; expert load once even, once 2 : 1."""
    rows: list[Sensitivity] = []
    machine = made.cluster.machine
    names = {
        "gemm_flops": "GEMM rate",
        "nvlink_bytes_per_s": "all-reduce bandwidth",
        "nic_bytes_per_s": "bandwidth between nodes",
        "hbm_bytes_per_s": "optimiser's memory bandwidth",
        "expert_call_s": "seconds an expert call",
        "a2a_eta": "all-to-all efficiency",
    }
    for key, name in names.items():
        for factor in (0.5, 2.0):
            value = getattr(machine, key) * factor
            cluster = replace(made.cluster, machine=replace(machine, **{key: value}))
            rows.append(_changed(made, name, f"x{factor:g} = {value:.3g}", cluster=cluster))
    old = made.extensions
    load, inside = replace(old, imbalance=2 * old.imbalance), replace(old, inside_node=True)
    rows.append(_changed(made, "expert load, max/mean", f"{load.imbalance:g}", extensions=load))
    if not old.inside_node:
        name = "all-to-all inside a node"
        rows.append(_changed(made, name, "charged at NVLink", extensions=inside))
    return rows


def _changed(
    made: Plan,
    name: str,
    value: str,
    cluster: Cluster | None = None,
    extensions: Extensions | None = None,
) -> Sensitivity:
    cluster, extensions = cluster or made.cluster, extensions or made.extensions
    again = [
        replace(f, cost=cost(made.shape, f.place, cluster.rates, extensions))
        for f in made.competing
    ]
    # No rate changes what fits; load does.
    fitting = [f for f in again if f.cost.memory <= made.memory_limit] or again[:1]
    best = max(fitting, key=lambda f: f.rate)
    return Sensitivity(name, value, again[0].rate, best, best.place != made.best.place)


@dataclass(frozen=True)
class Point:
    """The best layout of each method at one size of the cluster."""

    gpus: int
    batch: int
    best: dict[str, Candidate | None]


def curve(made: Plan, largest: int = 10_000) -> list[Point]:
    """From one node, doubling, until `largest` devices are passed; sequences a device are kept."""
    per_gpu = max(1, made.batch // made.cluster.world)
    points: list[Point] = []
    while not points or points[-1].gpus < largest:
        cluster = replace(made.cluster, nodes=2 ** len(points))
        batch = per_gpu * cluster.world
        at = search(made.shape, cluster, batch, made.extensions, virtual=made.virtual,
                    memory_share=made.memory_share)  # fmt: skip
        points.append(Point(cluster.world, batch, {m: at.best_of(m) for m in METHODS}))
    return points


def launch_command(made: Plan, candidate: Candidate) -> str:
    """The command line that trains the model that was planned in this layout.

    Recipe, tokenizer and precision are those of the plan: bytes for a vocabulary of 256 (and the
    recipe `small`), else byte pairs and `paper`, or, where none can have so many or so few tokens,
    a tokenizer.json, to be named; 16 bit where the rates are of 16 bit. `--batch` is a micro-batch
    of all replicas.
    """
    place, shape = candidate.place, made.shape
    nodes, node = made.cluster.nodes, made.cluster.machine.gpus_per_node
    words = [f"torchrun --nnodes {nodes} --nproc-per-node {node}"]
    if nodes > 1:
        words.append("--rdzv-backend c10d --rdzv-endpoint HOST:29500")
    if shape.vocab == BYTES:
        words.append("-m tenfold train ppmoe small --data.tokenizer byte")
    elif shape.vocab in PAIRS:
        words.append("-m tenfold train ppmoe paper --data.tokenizer bpe")
        words.append(f"--data.bpe-vocab {shape.vocab}")
    else:
        words.append("-m tenfold train ppmoe paper --data.tokenizer-file TOKENIZER.json")
        words.append(f"--model.vocab {shape.vocab}")
    amp = made.cluster.amp if made.cluster.machine.element_bytes == 2 else "off"
    words.append(f"--loop.amp {amp}")
    words.append(f"--layout.pp {place.pp} --layout.tp {place.tp}")
    if candidate.method != "dense":
        copies = candidate.method == "dpmoe-copies"
        dispatch = "alltoall-copies" if copies else "alltoall" if place.kind == "dpmoe" else "slice"
        words.append(f"--layout.dispatch {dispatch}")
    if place.virtual > 1:
        words.append(f"--layout.schedule interleaved --layout.virtual {place.virtual}")
    for name in ("zero", "fsdp", "sequence"):
        if getattr(made.extensions, name):
            words.append(f"--layout.{name}")
    words.append(f"--loop.accumulate {place.micro_batches}")
    words.append(f"--batch {place.micro_batch_size * place.dp}")
    words.append(f"--model.layers {shape.layers} --model.hidden {shape.hidden}")
    words.append(f"--model.heads {shape.heads} --model.seq {shape.seq}")
    words += [
        f"--model.{name.replace('_', '-')} {getattr(shape, name)}"
        for name in ("ffn", "expert_ffn", "shared", "kv_heads", "head_size")
        if getattr(shape, name)
    ]
    if shape.swiglu:
        words.append("--model.activation swiglu --model.norm rms --model.bias none")
        words.append("--model.positions rotary --model.no-tied")
    if candidate.method == "dense":
        words.append("--model.kind dense")
    else:
        words.append(f"--model.experts {shape.experts} --model.top-k {shape.top_k}")
        if shape.dense_first:
            first = shape.dense_first + shape.moe_every - 1
            numbers = range(first, shape.layers, shape.moe_every)
            words.append(f"--model.moe-at {' '.join(map(str, numbers))}")
        else:
            words.append(f"--model.moe-every {shape.moe_every}")
    if made.extensions.recompute:
        words.append("--model.recompute")
    return " ".join(words)
