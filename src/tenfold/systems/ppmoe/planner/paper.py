"""The paper's settings through the cost model, beside the paper's figures, with sensitivities.

A tuned illustration, not a reproduction: the paper gives neither micro-batches nor achieved rates,
so that three published ratios stand against two tuned and six free numbers.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from .clusters import MODELS
from .cost import PLAIN, Cost, Machine, cost
from .shape import Kind, Placement

WARNING = (
    "A tuned illustration, not a reproduction: seconds an expert call and all-to-all efficiency "
    "were chosen so that the first ratios come out near the paper's; GEMM rates, micro-batch sizes "
    "and micro-batch counts are free guesses, because the paper does not give them. Nothing here "
    "was measured; the paper's 1.75x and 90 % are neither confirmed nor contradicted by it."
)
TAGS = {
    "P": "the paper's text",
    "A": "the paper's abstract",
    "N": "a third party's reading notes, not verified at the source",
    "D": "derived by arithmetic from those",
}


@dataclass(frozen=True)
class Knobs:
    """The free and tuned inputs of the worked example. (ours)"""

    b_small: int = 8
    b_large: int = 4
    m_small: int = 16
    m_large: int = 64
    """Micro-batches of the pipelined layouts; layouts without a pipeline have 4."""
    g_small: float = 20e12
    g_large: float = 45e12
    eta: float = 0.5
    alpha: float = 270e-6


@dataclass(frozen=True)
class Row:
    """A setting or ratio: our value beside the paper's figure."""

    setting: str
    ours: float
    unit: str
    paper: float | None = None
    bound: str = ""
    """> or <= where the paper's figure is one."""
    tag: str = ""

    @property
    def deviation(self) -> float | None:
        """(ours - paper) / paper; of shares in %, the difference in points."""
        if self.paper is None:
            return None
        return self.ours - self.paper if self.unit == "%" else 100 * (self.ours / self.paper - 1)


def setting(
    size: str, kind: Kind, pp: int, dp: int, knobs: Knobs, copies: float = 1.0, tp: int = 8
) -> Cost:
    """Cost of one of the paper's settings; `size` is small or large."""
    small = size == "small"
    machine = Machine(
        gemm_flops=knobs.g_small if small else knobs.g_large,
        expert_call_s=knobs.alpha,
        a2a_eta=knobs.eta,
    )
    b, m = (knobs.b_small, knobs.m_small) if small else (knobs.b_large, knobs.m_large)
    place = Placement(kind, pp, tp, dp, b, m if pp > 1 else 4, copies)
    return cost(MODELS["6.7B-moe" if small else "143B-moe"], place, machine, PLAIN)


@dataclass(frozen=True)
class Settings:
    """Costs of the paper's settings; the layouts are the paper's, b and M ours."""

    small_dense: Cost
    small_ppmoe: Cost
    small_dense_dp: Cost
    small_dpmoe: Cost
    large_dense: Cost
    large_ppmoe: Cost
    large_dense_dp: Cost
    large_dpmoe: Cost
    large_copies: Cost

    def ratios(self) -> dict[str, float]:
        """The ratios whose sensitivities are shown."""
        rate = {name: c.tokens_per_s_per_gpu for name, c in vars(self).items()}
        return {
            "small PPMoE": rate["small_ppmoe"] / rate["small_dense"],
            "small DPMoE": rate["small_dpmoe"] / rate["small_dense_dp"],
            "large PPMoE": rate["large_ppmoe"] / rate["large_dense"],
            "large PPMoE/DPMoE": rate["large_ppmoe"] / rate["large_dpmoe"],
            "large PPMoE/DPMoE, u = 8": rate["large_ppmoe"] / rate["large_copies"],
        }


def settings(knobs: Knobs = Knobs()) -> Settings:  # noqa: B008 - frozen
    """All of the paper's settings but the smallest model's on 32 replicas."""
    return Settings(
        small_dense=setting("small", "dense", 4, 1, knobs),
        small_ppmoe=setting("small", "ppmoe", 4, 1, knobs),
        small_dense_dp=setting("small", "dense", 1, 4, knobs),
        small_dpmoe=setting("small", "dpmoe", 1, 4, knobs),
        large_dense=setting("large", "dense", 16, 1, knobs),
        large_ppmoe=setting("large", "ppmoe", 16, 1, knobs),
        large_dense_dp=setting("large", "dense", 1, 16, knobs),
        large_dpmoe=setting("large", "dpmoe", 1, 16, knobs),
        large_copies=setting("large", "dpmoe", 1, 16, knobs, copies=8.0),
    )


def rows() -> list[Row]:
    """The paper's settings, our values, the paper's figures."""
    knobs = Knobs()
    at, ratio = settings(knobs), settings(knobs).ratios()
    alone = setting("small", "dense", 1, 32, replace(knobs, b_small=2), tp=1)
    speed = "tokens/s/GPU"

    def rate(c: Cost) -> float:
        return c.tokens_per_s_per_gpu

    def relative(c: Cost, dense: Cost) -> float:
        return rate(c) / rate(dense)

    return [
        Row("0.3B dense, DP 32", rate(alone), speed, 5120.0, tag="N"),
        Row("0.3B dense, TP 8 PP 4", rate(at.small_dense), speed),
        Row("6.7B PPMoE, TP 8 PP 4", rate(at.small_ppmoe), speed),
        Row("6.7B DPMoE, TP 8 DP 4", rate(at.small_dpmoe), speed),
        Row("6.7B dense, TP 8 PP 16", rate(at.large_dense), speed),
        Row("143B PPMoE, TP 8 PP 16", rate(at.large_ppmoe), speed),
        Row("143B DPMoE, TP 8 DP 16", rate(at.large_dpmoe), speed),
        Row("143B DPMoE, TP 8 DP 16, u = 8", rate(at.large_copies), speed),
        Row("6.7B PPMoE / dense, same layout", ratio["small PPMoE"], "", 0.814, tag="N"),
        Row("6.7B DPMoE / dense, same layout", ratio["small DPMoE"], "", 0.662, tag="N"),
        Row(
            "6.7B PPMoE / DPMoE",
            relative(at.small_ppmoe, at.small_dpmoe),
            "",
            0.814 / 0.662,
            tag="D",
        ),
        Row("143B PPMoE / dense, same layout", ratio["large PPMoE"], "", 0.907, tag="N"),
        Row(
            "143B DPMoE / dense, same layout",
            relative(at.large_dpmoe, at.large_dense_dp),
            "",
            0.907 / 1.75,
            "<=",
            "D",
        ),
        Row(
            "143B DPMoE / dense, u = 8",
            relative(at.large_copies, at.large_dense_dp),
            "",
            0.907 / 1.75,
            "<=",
            "D",
        ),
        Row("143B PPMoE / DPMoE", ratio["large PPMoE/DPMoE"], "", 1.75, ">", "A"),
        Row("143B PPMoE / DPMoE, u = 8", ratio["large PPMoE/DPMoE, u = 8"], "", 1.75, ">", "A"),
        *_shares(at),
    ]


def _shares(at: Settings) -> list[Row]:
    """Shares of a forward pass; the paper does not say which model its PPMoE shares are of."""
    shares = []
    for name, c, moe, sent in (
        ("143B DPMoE", at.large_dpmoe, 82.6, 65.5),
        ("143B DPMoE, u = 8", at.large_copies, 82.6, 65.5),
    ):
        total, exchange, experts = _forward(c)
        shares.append(Row(f"{name}: MoE, forward", 100 * (exchange + experts) / total, "%", moe,
                          tag="P"))  # fmt: skip
        shares.append(Row(f"{name}: all-to-all, forward", 100 * exchange / total, "%", sent,
                          tag="P"))  # fmt: skip
    for name, c in (("6.7B PPMoE", at.small_ppmoe), ("143B PPMoE", at.large_ppmoe)):
        total, _, experts = _forward(c)
        # One all-reduce in four belongs to a mixture layer: every second FFN, half of all sums.
        moe_sum = c.allreduce / 2 / 4
        shares.append(Row(f"{name}: MoE, forward", 100 * (experts + moe_sum) / total, "%", 38.2,
                          tag="N"))  # fmt: skip
        shares.append(Row(f"{name}: communication, forward", 100 * c.allreduce / 2 / total, "%",
                          20.7, tag="N"))  # fmt: skip
    return shares


def _forward(c: Cost) -> tuple[float, float, float]:
    """Seconds of a stage's forward pass: all, all-to-all, experts. Backward is two of compute."""
    experts = (c.expert_gemm + c.expert_calls) / 3
    exchange = c.alltoall / 2
    return c.dense_gemm / 3 + c.allreduce / 2 + exchange + experts, exchange, experts


@dataclass(frozen=True)
class Sweep:
    """One input changed at a time, and the ratios it changes."""

    what: str
    field: str
    values: tuple[Any, ...]
    ratios: tuple[str, ...]


SWEEPS = (
    Sweep("b small", "b_small", (2, 4, 8, 16), ("small PPMoE",)),
    Sweep("b large", "b_large", (1, 2, 4, 8), ("large PPMoE", "large PPMoE/DPMoE")),
    Sweep("g small", "g_small", (12e12, 20e12, 35e12), ("small PPMoE", "small DPMoE")),
    Sweep("g large", "g_large", (30e12, 45e12, 70e12), ("large PPMoE", "large PPMoE/DPMoE")),
    Sweep("eta", "eta", (1.0, 0.7, 0.5, 0.35), ("small DPMoE", "large PPMoE/DPMoE")),
    Sweep("alpha", "alpha", (50e-6, 150e-6, 270e-6, 400e-6), ("small PPMoE", "large PPMoE")),
    Sweep("M large", "m_large", (16, 64), ("large PPMoE", "large PPMoE/DPMoE")),
)
"""M large changes the pipelined layouts only: at 16, PPMoE has a quarter of the batch."""


def swept() -> dict[str, dict[str, dict[str, float]]]:
    """Input -> value -> ratio -> its size; values in the middle are the base."""
    sizes: dict[str, dict[str, dict[str, float]]] = {}
    for sweep in SWEEPS:
        for value in sweep.values:
            ratios = settings(replace(Knobs(), **{sweep.field: value})).ratios()
            kept = {name: ratios[name] for name in sweep.ratios}
            sizes.setdefault(sweep.what, {})[f"{value:g}"] = kept
    return sizes
