"""A plan, the paper's table and a calibration as tables, pictures and JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from tenfold.viz import plots

from . import paper
from .clusters import GIB, Calibration
from .cost import COMMUNICATION, cost
from .search import (
    METHODS,
    Candidate,
    Plan,
    Point,
    Sensitivity,
    launch_command,
    sensitivities,
    why_it_loses,
)
from .shape import Shape, parameters


@dataclass(frozen=True)
class Table:
    """Text cells; the first column is words."""

    title: str
    columns: tuple[str, ...]
    rows: list[list[str]]


def tables_of(made: Plan, points: Sequence[Point]) -> list[Table]:
    """All tables of a plan, in reading order."""
    tables = [methods_table(made), terms_table(made), memory_table(made), losers_table(made)]
    tables.append(sensitivity_table(sensitivities(made)))
    return [*tables, curve_table(points)] if points else tables


def methods_table(made: Plan) -> Table:
    """The fastest layout of each method."""
    rows = []
    for method, name in METHODS.items():
        one = made.best_of(method)
        if one is not None:
            p, bubble = one.place, f"{one.cost.bubble:.1%}"
            sizes = [p.pp, p.tp, p.dp, p.micro_batch_size, p.micro_batches]
            mark = " (best)" if one is made.best else ""
            rows.append(
                [name + mark, *map(str, sizes), f"{one.rate:.0f}", _gib(one.cost.memory), bubble]
            )
        elif any(f.method == method for f in made.misfits):
            rows.append([name, *["–"] * 5, "does not fit", "", ""])
    columns = ("method", "PP", "TP", "DP", "b", "M", "tokens/s/GPU", "GiB/GPU", "bubble")
    return Table("fastest layout of each method", columns, rows)


def terms_table(made: Plan) -> Table:
    """Times that a step of the best layout is spent on."""
    step = made.best.cost.step
    terms = made.best.cost.terms()
    rows = [[n, f"{1e3 * s:.2f}", f"{s / step:.1%}"] for n, s in terms.items() if s]
    sent = sum(terms[name] for name in COMMUNICATION)
    rows.append(["all", f"{1e3 * step:.2f}", "100.0%"])
    rows.append(["of it communication", f"{1e3 * sent:.2f}", f"{sent / step:.1%}"])
    return Table(f"a step of {made.best.label()}", ("spent on", "ms a step", "share"), rows)


def memory_table(made: Plan) -> Table:
    """Memory of the best layout, a device."""
    c, zero = made.best.cost, made.extensions.zero
    skewed = []
    if made.extensions.as_kept and made.shape.experts:
        uneven = replace(made.extensions, imbalance=2 * made.extensions.imbalance)
        full = cost(made.shape, made.best.place, made.cluster.rates, uneven).activation_bytes
        skewed = [[f"activations, at an expert load of {uneven.imbalance:g}", _gib(full)]]
    rows = [
        [
            "weights, gradients, optimiser state" + (" (ZeRO-1)" if zero else ""),
            _gib(c.state_bytes),
        ],
        ["activations", _gib(c.activation_bytes)],
        *skewed,
        ["all", _gib(c.memory)],
        ["limit", _gib(made.memory_limit)],
    ]
    return Table("memory of a device", ("what", "GiB"), rows)


def losers_table(made: Plan, count: int = 8) -> Table:
    """The next best layouts, and what they lose by; then the fastest that do not fit."""
    best, limit = made.best, made.memory_limit
    faster = [f for f in made.misfits if f.rate > best.rate and _competes(made, f)]
    rows = [
        [f.label(), f"{f.rate:.0f}", f"{f.rate / best.rate - 1:+.1%}", why_it_loses(best, f, limit)]
        for f in [*made.runners_up(count), *faster[:2]]
    ]
    return Table("why the others lose", ("layout", "tokens/s/GPU", "to best", "by"), rows)


def _gib(count: float) -> str:
    return f"{count / GIB:.3g}"


def _competes(made: Plan, one: Candidate) -> bool:
    return not made.shape.experts or one.method != "dense"


def sensitivity_table(rows: Sequence[Sensitivity]) -> Table:
    """Changes of the plan by each uncertain constant."""
    lines = [
        [
            r.constant,
            r.value,
            f"{r.rate_of_winner:.0f}",
            r.best.label() if r.changed else "the same",
            f"{r.best.rate:.0f}",
        ]
        for r in rows
    ]
    columns = ("constant", "changed to", "tokens/s/GPU of the best", "then best", "tokens/s/GPU")
    return Table("sensitivity of the best layout", columns, lines)


CURVE = ("ppmoe", "dpmoe", "dpmoe-pipeline", "dense")


def curve_table(points: Sequence[Point]) -> Table:
    """Rate of each method, per device and in all, over the size of the cluster."""
    rows = []
    for p in points:
        rates = [p.best[m].rate if p.best[m] else None for m in CURVE]  # type: ignore[union-attr]
        each = ["–" if r is None else f"{r:.0f}" for r in rates]
        total = ["–" if r is None else f"{r * p.gpus:.4g}" for r in rates]
        rows.append([str(p.gpus), str(p.batch), *each, *total])
    names = [METHODS[m] for m in CURVE]
    columns = ("GPUs", "batch", *names, *(f"{n}, all" for n in names))
    return Table("tokens/s/GPU and tokens/s in all, best layout at each size", columns, rows)


def heading(made: Plan) -> list[str]:
    """Lines that say what was planned, and what was looked at."""
    dense, moe = sum(parameters(made.shape, dense=True)), sum(parameters(made.shape))
    size = f"{moe / 1e9:.3g} B parameters, backbone {dense / 1e9:.3g} B"
    gone = ", ".join(f"{count} by {part}" for part, count in sorted(made.discarded().items()))
    fit = len(made.fitting)
    return [
        f"model: {_words(made.shape)} ({size})",
        f"cluster: {made.cluster.name}, {made.cluster.world} devices; {made.batch} sequences a "
        "step",
        f"layouts: {fit + len(made.misfits)} looked at, {len(made.misfits)} do not fit "
        f"{made.memory_limit / GIB:.1f} GiB" + (f" ({gone})" if gone else ""),
    ]


def _words(shape: Shape) -> str:
    return ", ".join(f"{k} {v}" for k, v in asdict(shape).items())


def notes(made: Plan) -> list[str]:
    """Reservations that stand beside every prediction."""
    m, place = made.cluster.machine, made.best.place
    if made.cluster.measured:
        lines = ["rates were measured on this machine; what `calibration.json` calls spread is "
                 "their uncertainty"]  # fmt: skip
    else:
        lines = [
            "NOT measured: a prediction by a model whose constants are tuned or assumed. "
            f"{made.cluster.source}. Seconds an expert call ({m.expert_call_s:g}) and all-to-all "
            f"efficiency ({m.a2a_eta:g}) were tuned to the paper's ratios",
        ]
    if not made.extensions.inside_node:
        lines.append(
            "an all-to-all inside a node costs nothing in this model; --extensions.inside-node "
            "charges it"
        )
    memory = "logits, rounded copies of weights" if not made.extensions.as_kept else ""
    memory = memory or "memory that a GPU's allocator and kernels need beside"
    lines.append(
        f"not counted: {memory}, the time of embedding and head on their stages, "
        "and which stages share a node; DPMoE's experts are spread over as many replicas as "
        "divides them, narrower groups are not searched"
    )
    if place.kind == "dpmoe" and made.shape.experts % (place.tp * place.dp):
        lines.append(
            f"the trainer's all-to-all needs experts divisible by TP x DP = {place.tp * place.dp}: "
            "the command is refused"
        )
    return lines


def paper_tables() -> list[Table]:
    """The paper's settings beside its figures, and the sensitivities of the ratios."""
    rows = []
    for r in paper.rows():
        places = {"tokens/s/GPU": 0, "%": 1}.get(r.unit, 3)
        theirs = "–" if r.paper is None else f"{r.bound} {r.paper:.{places}f}".strip()
        off, unit = r.deviation, " points" if r.unit == "%" else " %"
        shown = "–" if off is None else f"{off:+.1f}{unit}"
        rows.append([r.setting, f"{r.ours:.{places}f}", r.unit, theirs, shown, r.tag])
    columns = ("setting", "our model", "unit", "paper", "deviation", "source")
    first = Table("the paper's settings through the cost model, s = 2048", columns, rows)
    lines = []
    for name, values in paper.swept().items():
        for value, ratios in values.items():
            shown = "; ".join(f"{k} {v:.3f}" for k, v in ratios.items())
            lines.append([name, value, shown])
    second = Table("one input changed at a time", ("input", "value", "ratios"), lines)
    return [first, second]


def paper_json() -> dict[str, Any]:
    """The paper's table for `claims/`."""
    return {
        "warning": paper.WARNING,
        "sources": paper.TAGS,
        "inputs": asdict(paper.Knobs()),
        "rows": [{**asdict(r), "deviation": r.deviation} for r in paper.rows()],
        "sensitivities": paper.swept(),
    }


def calibration_table(measured: Calibration) -> Table:
    """Measured rates, and how much they scattered."""
    s = measured.spread
    rows: list[tuple[str, str, str, float]] = [
        ("block, forward and backward", f"{measured.gemm_flops / 1e9:.4g}", "GFLOP/s", s["block"]),
        ("bare matrix product (not used)", f"{measured.matmul_flops / 1e9:.4g}", "GFLOP/s",
         s["matmul"]),
        ("an expert call", f"{1e6 * measured.expert_call_s:.4g}", "us", s["experts"]),
        ("all-reduce of activations", f"{measured.allreduce_bytes_per_s / 1e9:.4g}", "GB/s",
         s["allreduce"]),
        ("all-reduce of gradients", f"{measured.gradient_bytes_per_s / 1e9:.4g}", "GB/s",
         s["gradient"]),
        ("all-to-all of activations", f"{measured.alltoall_bytes_per_s / 1e9:.4g}", "GB/s",
         s["alltoall"]),
        ("AdamW", f"{measured.optimizer_bytes_per_s / 1e9:.4g}", "GB/s", s["optimizer"]),
        ("memory copy (not used)", f"{measured.copy_bytes_per_s / 1e9:.4g}", "GB/s", s["copy"]),
    ]  # fmt: skip
    lines = [[name, value, unit, f"{spread:.0%}"] for name, value, unit, spread in rows]
    return Table(
        f"this machine, one thread a process, {measured.cores} cores; {measured.micro_batch_size} "
        f"sequences of {_words(measured.shape)}",
        ("what", "median", "unit", "spread (IQR/median)"),
        lines,
    )


def plan_json(made: Plan, points: Sequence[Point]) -> dict[str, Any]:
    """`plan.json`: the inputs, the best layout, the others, sensitivities and the curve."""
    best = made.best
    return {
        "model": asdict(made.shape),
        "cluster": asdict(made.cluster),
        "batch": made.batch,
        "extensions": asdict(made.extensions),
        "memory_limit_bytes": made.memory_limit,
        "notes": notes(made),
        "looked_at": len(made.fitting) + len(made.misfits),
        "discarded": made.discarded(),
        "best": _one(best),
        "launch": launch_command(made, best),
        "best_of_method": {m: _one(f) for m in METHODS if (f := made.best_of(m))},
        "runners_up": [
            {**_one(f), "why": why_it_loses(best, f, made.memory_limit)} for f in made.runners_up()
        ],
        "frontier": [_one(f) for f in made.frontier()],
        "sensitivities": [
            {"constant": r.constant, "value": r.value, "rate_of_best": r.rate_of_winner,
             "then_best": _one(r.best), "changed": r.changed}
            for r in sensitivities(made)
        ],
        "curve": [
            {"gpus": p.gpus, "batch": p.batch,
             "best": {m: _one(f) if f else None for m, f in p.best.items()}}
            for p in points
        ],
    }  # fmt: skip


def _one(candidate: Candidate) -> dict[str, Any]:
    c = candidate.cost
    return {
        "method": candidate.method,
        "layout": asdict(candidate.place),
        "tokens_per_s_per_gpu": candidate.rate,
        "memory_bytes": c.memory,
        "state_bytes": c.state_bytes,
        "activation_bytes": c.activation_bytes,
        "bubble": c.bubble,
        "step_s": c.step,
        "terms_s": c.terms(),
    }


def pareto_png(made: Plan) -> bytes:
    """Rate against memory of all layouts that fit; the frontier is joined."""
    groups = {}
    for method, name in METHODS.items():
        if points := [f for f in made.fitting if f.method == method]:
            groups[name] = ([_x(f) for f in points], [f.rate for f in points])
    front = made.frontier()
    groups["frontier"] = ([_x(f) for f in front], [f.rate for f in front])
    return plots.scatter(
        groups,
        joined=["frontier"],
        title=f"{made.cluster.name}, {made.batch} sequences a step ({_kind(made)})",
        xlabel="memory [GiB/GPU]",
        ylabel="tokens/s/GPU",
        size=(6.4, 4.2),
    )


def _x(one: Candidate) -> float:
    return one.cost.memory / GIB


def _kind(made: Plan) -> str:
    return "calibrated" if made.cluster.measured else "predicted, not measured"


def curve_pngs(made: Plan, points: Sequence[Point]) -> dict[str, bytes]:
    """Rate per device and in all over the size of the cluster, a file name each."""
    drawings = {}
    for file, in_all in (("curve.png", False), ("curve-total.png", True)):
        groups = {}
        for method in CURVE:
            rates = [(p.gpus, f.rate) for p in points if (f := p.best[method])]
            if rates:
                groups[METHODS[method]] = (
                    [x for x, _ in rates],
                    [x * y if in_all else y for x, y in rates],
                )
        each = made.batch // made.cluster.world
        drawings[file] = plots.scatter(
            groups,
            joined=list(groups),
            title=f"{made.cluster.name.partition('x')[2]}, {each} sequences a GPU ({_kind(made)})",
            xlabel="GPUs",
            ylabel="tokens/s" if in_all else "tokens/s/GPU",
            doublings=True,
            log=in_all,
            size=(6.4, 4.2),
        )
    return drawings
