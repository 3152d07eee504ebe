"""Experts against their dense backbone, at equal steps and at equal compute, where it can be run.

The paper's claims are on speed (claims/ppmoe_network.py, benchmarks/ppmoe.py); these are on what
that speed is for: a lower loss for the same arithmetic.
"""

from __future__ import annotations

from dataclasses import replace

from tenfold.core.claim import Claim, Variant

from .config import Config, Model
from .planner.cost import PASSES, Machine, cost
from .planner.shape import Placement, Shape
from .recipes import SMALL

METRIC = "bits/mean/per byte"
COLUMNS = (METRIC, *(f"bits/{d}/per byte" for d in ("prose_en", "drama_en", "prose_es", "docs_py")))
SEEDS = (0, 1, 2, 3, 4)
DENSE, TOP1, TOP2 = "dense", "MoE top-1", "MoE top-2"
RATES = {DENSE: 4e-3, TOP1: 4e-3, TOP2: 4e-3}
"""Chosen by `claims/ppmoe_rate.py` on held-out text, with seeds that are not among `SEEDS`."""
MODEL = Model(layers=2, hidden=64, heads=2, seq=64, vocab=256, experts=8)
"""Half of SMALL's depth, width and window, so that 25 runs and the search of rates fit into three
quarters of an hour of one core. A step of 1,024 bytes takes 20 ms, with top-1 25 and with top-2 29;
of smaller steps dispatching tokens to experts would be the larger part."""
STEPS = 1600
"""As many bytes as 800 steps of 2,048, with which pilot runs of one seed (99) were little better
than pairs of bytes: 3.3 bits a byte, top-1 behind dense."""


def arms() -> dict[str, Config]:
    """Name -> configuration of what is compared at equal steps."""
    models = {
        DENSE: replace(MODEL, kind="dense"),
        TOP1: MODEL,
        TOP2: replace(MODEL, top_k=2),
    }
    return {
        name: replace(
            SMALL, model=model, steps=STEPS, optim=replace(SMALL.optim, lr=RATES[name])
        )
        for name, model in models.items()
    }  # fmt: skip


def step_flop(cfg: Config) -> float:
    """FLOP of a training step: the planner's products, forward and backward, and the routers'."""
    model, dense = cfg.model, cfg.model.kind == "dense"
    shape = Shape(
        layers=model.layers, hidden=model.hidden, heads=model.heads, vocab=model.vocab,
        seq=model.seq, experts=0 if dense else model.experts, top_k=model.top_k,
        moe_every=model.moe_every,
    )  # fmt: skip
    place = Placement("dense" if dense else "ppmoe", 1, 1, 1, cfg.batch, 1)
    found = cost(shape, place, Machine(gemm_flops=1.0))  # seconds at 1 FLOP/s
    router = 2 * cfg.batch * model.seq * model.hidden * model.experts
    return found.dense_gemm + found.expert_gemm + PASSES * router * shape.moe_layers


def with_flop_of(dense: Config, other: Config) -> Config:
    """The dense training with as many steps as cost what the other's cost, to half a step."""
    return replace(dense, steps=round(other.steps * step_flop(other) / step_flop(dense)))


def claims() -> list[Claim[Config]]:
    """Top-1 and top-2 against dense, at equal steps and at equal compute, and the second expert."""
    made = arms()
    dense, top1, top2 = (Variant(name, made[name]) for name in (DENSE, TOP1, TOP2))
    as_top1, as_top2 = (
        Variant(f"dense, compute of {other.name[4:]}", with_flop_of(dense.config, other.config))
        for other in (top1, top2)
    )
    every = (dense, top1, as_top1, top2, as_top2)
    setting = _setting(every)
    told = [
        ("Eight experts, top-1, lower the loss of their dense backbone at equal steps.",
         dense, top1),
        ("Eight experts, top-1, lower it at equal compute.", as_top1, top1),
        ("Eight experts, top-2, lower the loss of their dense backbone at equal steps.",
         dense, top2),
        ("Eight experts, top-2, lower it at equal compute.", as_top2, top2),
        ("A second expert for each token lowers the loss further at equal steps.", top1, top2),
    ]  # fmt: skip
    return [
        Claim(says, baseline, method, METRIC, "lower", None, setting, columns=COLUMNS, seeds=SEEDS)
        for says, baseline, method in told
    ]


def _setting(every: tuple[Variant[Config], ...]) -> str:
    """Set-up as a reader must know it: sizes, arithmetic, rates."""
    each = "; ".join(
        f"{arm.name} {arm.config.steps * step_flop(arm.config) / 1e12:.3f}" for arm in every
    )
    rates = ", ".join(f"{name} {rate:g}" for name, rate in RATES.items())
    return (
        f"{MODEL.layers} blocks of width {MODEL.hidden}, experts in the second; {SMALL.batch} "
        f"windows of {MODEL.seq} bytes a step. Training TFLOP by the planner's formula and the "
        f"routers' products: {each}. At equal compute the dense network has more steps, of fresh "
        f"text, and its rate falls over all of them. Rates ({rates}) were chosen for each at equal "
        "steps on held-out training text with three other seeds (ppmoe-rate.md). Five comparisons, "
        "each judged by itself."
    )
