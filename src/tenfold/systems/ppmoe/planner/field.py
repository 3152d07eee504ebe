"""Layouts that others published, through the cost model, beside what the planner would choose.

Facts carry their source; what is not published is said. Times are predictions with assumed rates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from .clusters import GIB, Cluster, parse_cluster
from .cost import Extensions, cost
from .report import Table
from .search import Candidate, search, why_it_loses
from .shape import Placement, Shape, parameters

WARNING = (
    "Predictions by a model with assumed rates, of this trainer's memory, not of Megatron's: all "
    "layouts are costed as if this trainer ran them. Nothing here was measured by us; where a "
    "speed is published and ours is near, that may be luck."
)
BRIDGE = "NVIDIA-NeMo/Megatron-Bridge"
MLA = (
    "multi-head latent attention is not in the model: heads of {head} with 8 heads of keys and "
    "values have as many numbers in their matrices to 0.1 %; its products of queries and keys (192 "
    "wide) and their activations are counted too small"
)
QWEN_CONFIG = f"sizes: {BRIDGE}, models/qwen/qwen_provider.py; norms of queries and keys left out"
DEEPSEEK_CONFIG = "sizes: copies of the model's config.json in public repositories"
KEPT = Extensions(as_kept=True, zero=True, uneven=True, inside_node=True)
"""Memory as kept, moments over the replicas (all recipes but Kimi's Muon have that), stages that
differ by a block, all-to-alls inside a node charged."""
SHARE = 0.9
"""Share of a device's memory that a layout may use."""
VIRTUAL = 4
"""Virtual stages that ours may have instead of one."""
LOADS = (1.0, 1.5, 2.0, 4.0)
"""Loads of the fullest expert rank over the mean."""


@dataclass(frozen=True)
class Published:
    """A model, its cluster, and the layout that others give for it."""

    name: str
    shape: Shape
    cluster: str
    place: Placement
    recompute: bool
    """Whole blocks are made again in backward; recipes that do so in part count as not."""
    tokens_per_s: int
    """Tokens a second and device that were published for this layout; 0: none were."""
    tflops: int
    """TFLOP/s a device that were published for this layout; 0: none were."""
    sources: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def batch(self) -> int:
        """Sequences of a step."""
        return self.place.dp * self.place.micro_batch_size * self.place.micro_batches

    @property
    def expert_parallel(self) -> int:
        """Devices over which a set of experts is spread."""
        return self.place.tp * self.place.shared_by


QWEN_30B = Shape(
    48, 2048, 32, 151936, 4096, 128, 8, moe_every=1, ffn=6144, expert_ffn=768, kv_heads=4,
    head_size=128, swiglu=1,
)  # fmt: skip
QWEN_235B = replace(QWEN_30B, layers=94, hidden=4096, heads=64, ffn=12288, expert_ffn=1536)
DEEPSEEK = Shape(
    61, 7168, 128, 129280, 4096, 256, 8, moe_every=1, ffn=18432, expert_ffn=2048, shared=2048,
    kv_heads=8, head_size=96, swiglu=1, dense_first=3,
)  # fmt: skip
KIMI = replace(DEEPSEEK, heads=64, vocab=163840, experts=384, head_size=98, dense_first=1)
RACK = "64 GPUs of a rack count as a node (NVLink), 400 Gb/s a GPU between racks: assumed"
SUMMARY = f"{BRIDGE} df0289c, docs/performance-summary.md, release 25.11, BF16"
BALANCED = "its benchmarks force an even load of the experts"
FIELD = (
    Published(
        "Qwen3-30B-A3B, 8 H100", QWEN_30B, "1x8xH100-80G",
        Placement("dpmoe", 2, 4, 1, 2, 16, expert_dp=1), True, 0, 0,
        (f"{BRIDGE} 04eb4f8, recipes/qwen/h100/qwen3_moe.py: 8 GPUs, TP 4 PP 2 EP 4, 4096 tokens, "
         "all blocks recomputed", f"{BRIDGE} 0eca073, recipes/common.py: batch 32, micro-batch 2",
         QWEN_CONFIG),
        ("no speed is published for this layout; for TP 1 PP 2 EP 8 on 16 H100 in FP8 the "
         "performance summary of release 26.02 has 118 TFLOP/s/GPU",),
    ),
    Published(
        "Qwen3-235B-A22B, 256 H100", QWEN_235B, "32x8xH100-80G",
        Placement("dpmoe", 16, 4, 2, 1, 16, expert_dp=2, cp=2), False, 0, 0,
        (f"{BRIDGE} 04eb4f8, recipes/qwen/h100/qwen3_moe.py: 256 GPUs, TP 4 PP 16 CP 2 EP 8, 4096 "
         "tokens, micro-batch 1, nothing recomputed",
         f"{BRIDGE} 0eca073, recipes/common.py: batch 32", QWEN_CONFIG),
        ("no speed is published for this layout; for TP 2 PP 8 VP 4 EP 32, batch 8192, in FP8 the "
         "performance summary of release 26.02 has 1633 tokens/s/GPU, 242 TFLOP/s/GPU",),
    ),
    Published(
        "DeepSeek-V3, 1024 H100", DEEPSEEK, "128x8xH100-80G",
        Placement("dpmoe", 16, 2, 32, 1, 128), False, 0, 0,
        (f"{BRIDGE} 0edb669, recipes/deepseek/h100/deepseek_v3.py: 1024 GPUs, TP 2 PP 16 EP 64, "
         "4096 tokens, batch 4096, micro-batch 1, nothing recomputed, moments in bf16",
         DEEPSEEK_CONFIG),
        ("no speed is published for this layout; for TP 2 PP 8 VP 4 EP 64 on 1024 H100, batch 8192 "
         "in FP8 that of release 25.09 has 1297 tokens/s/GPU, 338 TFLOP/s/GPU",
         MLA.format(head=96), "the block of multi-token prediction is left out"),
    ),
    Published(
        "Kimi-K2, 512 H100", KIMI, "64x8xH100-80G",
        Placement("dpmoe", 16, 2, 16, 1, 256), False, 0, 0,
        (f"{BRIDGE} 0cabbd5, recipes/kimi/h100/kimi_k2.py: 512 GPUs, TP 2 PP 16 EP 32, 4096 "
         "tokens, batch 4096, micro-batch 1, Muon",
         f"{BRIDGE} 0350b4e, recipes/kimi/kimi_k2.py: sizes"),
        ("no speed is published for this layout", MLA.format(head=98),
         "selective recomputation is of the attention's scores, which are never kept here",
         "AdamW in place of Muon: one moment more"),
    ),
    Published(
        "DeepSeek-V3, 256 GB200", DEEPSEEK, "4x64xGB200-186G",
        Placement("dpmoe", 4, 1, 64, 1, 64, virtual=4), False, 3139, 782,
        (f"{SUMMARY}: 256 GPUs, TP 1 PP 4 VP 4 EP 64, 4096 tokens, batch 4096, micro-batch 1, "
         "3139 tokens/s/GPU, 782 TFLOP/s/GPU, "
         f"without multi-token prediction; {BALANCED}",
         DEEPSEEK_CONFIG,
         "arXiv 2603.07685 (Megatron Core), abstract: 1048 TFLOP/s/GPU on GB200; its precision and "
         "layout are not in the abstract"),
        (RACK,
         "the recipe recomputes the latent projections of attention (mla_up_proj): counted as not",
         MLA.format(head=96)),
    ),
    Published(
        "Qwen3-235B-A22B, 256 GB200", QWEN_235B, "4x64xGB200-186G",
        Placement("dpmoe", 8, 1, 32, 1, 256, virtual=3), False, 4916, 728,
        (f"{SUMMARY}: 256 GPUs, TP 1 PP 8 VP 3 EP 32, 4096 tokens, batch 8192, micro-batch 1, 4916 "
         f"tokens/s/GPU, 728 TFLOP/s/GPU; {BALANCED}", QWEN_CONFIG),
        (RACK, "what the recipe recomputes was not looked up: counted as nothing"),
    ),
)  # fmt: skip


@dataclass(frozen=True)
class Compared:
    """Published layout and the planner's, on the same cluster and batch."""

    published: Published
    cluster: Cluster
    theirs: Candidate
    theirs_saving: Candidate
    """The same with all blocks recomputed."""
    ours: Candidate | None
    """The fastest that fits and that this trainer runs."""
    ours_recomputes: bool
    any_: Candidate | None
    """The fastest that fits, experts over any number of replicas."""
    any_recomputes: bool

    @property
    def limit(self) -> float:
        """Bytes of a device that a layout may use."""
        return self.cluster.memory_bytes * SHARE


def cluster_of(published: Published) -> Cluster:
    """The cluster; experts are one grouped product there, so that none is called by itself."""
    found = parse_cluster(published.cluster, published.shape)
    machine = found.machine
    # a data sheet's NICs are those of 8 devices
    nic = machine.nic_bytes_per_s * machine.gpus_per_node / 8
    return replace(found, machine=replace(machine, nic_bytes_per_s=nic, expert_call_s=0.0))


def compare(published: Published, load: float = 1.0) -> Compared:
    """Cost the published layout, and search for the best, with this load of the fullest rank."""
    shape, cluster = published.shape, cluster_of(published)

    def options(recompute: bool) -> Extensions:
        return replace(KEPT, imbalance=load, recompute=recompute)

    def at(place: Placement, recompute: bool) -> Candidate:
        return Candidate(
            "dpmoe-pipeline", place, cost(shape, place, cluster.rates, options(recompute))
        )

    best: dict[bool, tuple[Candidate, bool] | None] = {True: None, False: None}
    for recompute in (False, True):
        made = search(
            shape, cluster, published.batch, options(recompute), virtual=VIRTUAL,
            memory_share=SHARE, methods=("ppmoe", "dpmoe", "dpmoe-pipeline"), narrow=True,
        )  # fmt: skip
        for trainable in (True, False):
            chosen = next((f for f in made.fitting if not trainable or runs(f, shape)), None)
            before = best[trainable]
            if chosen and (before is None or chosen.rate > before[0].rate):
                best[trainable] = chosen, recompute
    own, other = best[True], best[False]
    return Compared(
        published, cluster, at(published.place, published.recompute), at(published.place, True),
        own[0] if own else None, bool(own and own[1]),
        other[0] if other else None, bool(other and other[1]),
    )  # fmt: skip


def runs(one: Candidate, shape: Shape) -> bool:
    """True if this trainer runs it: its all-to-all spreads experts over all of T x D, evenly."""
    p = one.place
    return p.kind != "dpmoe" or (p.shared_by == p.dp and shape.experts % (p.tp * p.dp) == 0)


def layouts_table(compared: Sequence[Compared]) -> Table:
    """Predicted speed and memory of each setting's layouts, and what decides."""
    rows = []
    for c in compared:
        theirs, saving = c.theirs, c.theirs_saving
        lines: list[tuple[str, Candidate, bool]] = [("published", theirs, c.published.recompute)]
        if theirs.cost.memory > c.limit and not c.published.recompute:
            lines.append(("published, all recomputed", saving, True))
        if c.ours:
            lines.append(("ours", c.ours, c.ours_recomputes))
        if c.any_ and c.any_ != c.ours:
            lines.append(("best of any trainer", c.any_, c.any_recomputes))
        lead = c.ours or c.any_
        for who, one, recompute in lines:
            fits = "yes" if one.cost.memory <= c.limit else "no"
            rows.append([
                c.published.name, who, label(one, recompute), f"{one.rate:.0f}",
                f"{one.cost.step:.3g}", f"{one.cost.bubble:.0%}",
                f"{one.cost.state_bytes / GIB:.0f} + {one.cost.activation_bytes / GIB:.0f}",
                fits, why(lead, one, c.limit),
            ])  # fmt: skip
        if c.ours is None:
            rows.append([c.published.name, "ours", "none fits", *["–"] * 5, ""])
    columns = ("setting", "whose", "layout", "tokens/s/GPU", "s a step", "bubble",
               "GiB/GPU: state + activations", "fits", "why")  # fmt: skip
    return Table("published layouts and ours, predicted", columns, rows)


def why(lead: Candidate | None, one: Candidate, limit: float) -> str:
    """One line on how a layout stands to the planner's."""
    if lead is None:
        return ""
    if one == lead:
        terms = lead.cost.terms()
        most = sorted(terms, key=lambda t: -terms[t])[:3]
        return "spent on " + ", ".join(f"{t} {terms[t] / lead.cost.step:.0%}" for t in most)
    if one.cost.memory <= limit and one.rate > lead.rate:
        return "faster than ours, which loses by " + why_it_loses(one, lead, limit)
    return why_it_loses(lead, one, limit)


def label(one: Candidate, recompute: bool) -> str:
    """Method and sizes in one line."""
    p = one.place
    kind = "PPMoE" if p.kind == "ppmoe" else f"all-to-all, EP {p.tp * p.shared_by}"
    words = f"{kind}, TP {p.tp} PP {p.pp} DP {p.dp}"
    words += f" CP {p.cp}" if p.cp > 1 else ""
    words += f", v {p.virtual}" if p.virtual > 1 else ""
    return f"{words}, b {p.micro_batch_size}, M {p.micro_batches}" + (
        ", recomputed" if recompute else ""
    )


def published_table(compared: Sequence[Compared]) -> Table:
    """Speeds that were published, beside the prediction for the same layout."""
    rows = []
    for c in compared:
        p, one = c.published, c.theirs
        known = p.tokens_per_s > 0
        rows.append([
            p.name, f"{sum(parameters(p.shape)) / 1e9:.0f}", str(p.batch), str(p.shape.seq),
            f"{p.tokens_per_s:.0f}" if known else "not published", f"{one.rate:.0f}",
            f"{one.rate / p.tokens_per_s - 1:+.0%}" if known else "–",
            f"{p.tflops:.0f}" if known else "not published",
        ])  # fmt: skip
    columns = ("setting", "B parameters", "batch", "tokens", "tokens/s/GPU, published", "predicted",
               "deviation", "TFLOP/s/GPU, published")  # fmt: skip
    return Table("speeds that are published", columns, rows)


def loads_table(published: Sequence[Published]) -> Table:
    """Speed and memory of the published layout and of the planner's, as load grows uneven."""
    rows = []
    for p in published:
        even = compare(p)
        for load in LOADS:
            cells = []
            for one, recompute in ((even.theirs, p.recompute), (even.ours, even.ours_recomputes)):
                if one is None:
                    cells += ["–", "–"]
                    continue
                options = replace(KEPT, imbalance=load, recompute=recompute)
                now = cost(p.shape, one.place, even.cluster.rates, options)
                over = "" if now.memory <= even.limit else " (too much)"
                cells += [f"{now.tokens_per_s_per_gpu:.0f}", f"{now.memory / GIB:.0f}{over}"]
            again = compare(p, load)
            same = even.ours and again.ours and again.ours.place == even.ours.place
            same = same and again.ours_recomputes == even.ours_recomputes
            new = label(again.ours, again.ours_recomputes) if again.ours else "none fits"
            rows.append([p.name, f"{load:g}", *cells, "the same" if same else new])
    columns = ("setting", "load, max/mean", "published: tokens/s/GPU", "GiB/GPU",
               "ours: tokens/s/GPU", "GiB/GPU", "then ours")  # fmt: skip
    return Table("uneven expert load: the fullest rank sets time and memory", columns, rows)


def sources(published: Sequence[Published]) -> list[str]:
    """Where each setting is from, and what is approximate."""
    return [f"{p.name}: {'; '.join([*p.sources, *p.notes])}." for p in published]


def rates(compared: Sequence[Compared]) -> list[str]:
    """What was assumed of each cluster, and how layouts are costed."""
    clusters = {c.published.cluster.split("x", 2)[2]: c for c in compared}
    lines = [
        f"{kind}: {c.cluster.source}; all-to-all at {c.cluster.machine.a2a_eta:.0%} of the link"
        for kind, c in clusters.items()
    ]
    return [
        *lines,
        "All: experts are one grouped product (no seconds a call), no communication is hidden "
        "behind products (published runs hide some), gradients and moments in fp32, moments cut "
        f"over replicas, {SHARE:.0%} of a device's memory may be used, ours may have {VIRTUAL} "
        "virtual stages. Ours: what this trainer runs; best of any trainer: the experts of an "
        "all-to-all over fewer replicas, too (EP is then free of DP).",
    ]


def field_json(compared: Sequence[Compared], loads: Table) -> dict[str, Any]:
    """The comparison for `claims/`."""

    def one(found: Candidate | None, recompute: bool) -> dict[str, Any] | None:
        if found is None:
            return None
        return {
            "layout": asdict(found.place), "recompute": recompute,
            "tokens_per_s_per_gpu": found.rate, "step_s": found.cost.step,
            "terms_s": found.cost.terms(), "state_bytes": found.cost.state_bytes,
            "activation_bytes": found.cost.activation_bytes,
        }  # fmt: skip

    return {
        "warning": WARNING,
        "extensions": asdict(KEPT),
        "settings": [
            {
                **asdict(c.published), "machine": asdict(c.cluster.rates),
                "memory_limit_bytes": c.limit,
                "theirs": one(c.theirs, c.published.recompute),
                "theirs_recomputed": one(c.theirs_saving, True),
                "ours": one(c.ours, c.ours_recomputes),
                "any_trainer": one(c.any_, c.any_recomputes),
            }
            for c in compared
        ],
        "loads": {"columns": loads.columns, "rows": loads.rows},
    }  # fmt: skip
