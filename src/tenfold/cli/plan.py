"""The verb `plan` of the command line: the fastest layout of a model on a cluster, by a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tenfold.core.config import require
from tenfold.core.errors import UsageError, nearest
from tenfold.files import require_own

from .arguments import add_row, flags_of, parse, positional, say, show, table_of

if TYPE_CHECKING:
    from tenfold.systems.ppmoe.planner.clusters import Calibration, Cluster
    from tenfold.systems.ppmoe.planner.report import Table
    from tenfold.systems.ppmoe.planner.shape import Shape

PLANNERS = ("ppmoe",)
"""Systems that can be planned."""
PICTURES = ("pareto.png", "curve.png", "curve-total.png")
"""Files that are drawn beside plan.json."""


@dataclass(frozen=True)
class Constants:
    """Rates in place of those of the cluster; 0 leaves them."""

    gemm_flops: float = 0.0
    """FLOP/s of a device that matrix products achieve."""
    nvlink_bytes_per_s: float = 0.0
    """Bus bandwidth of an all-reduce inside a node."""
    nic_bytes_per_s: float = 0.0
    """Bandwidth of a node to the others."""
    hbm_bytes_per_s: float = 0.0
    """Memory bandwidth that the optimiser achieves."""
    expert_call_s: float = 0.0
    """Seconds of calling one expert forward, beyond its products."""
    a2a_eta: float = 0.0
    """Share of the link that an all-to-all achieves."""


def plan(rest: list[str]) -> None:
    """Find the fastest layout of a large model on a cluster, by a cost model."""
    usage = (
        "usage: tenfold plan SYSTEM [--model M] [--cluster C] [--batch B] [--out DIR] ...\n"
        "       tenfold plan SYSTEM --paper [--out claims]     the paper's settings and figures\n"
        "       tenfold plan SYSTEM --field [--out claims]     layouts that others published\n"
        "       tenfold plan SYSTEM --calibrate                rates of this machine, 25 s\n\n"
        "Searches all layouts (pipeline, tensor, data, micro-batches) of PPMoE, DPMoE and the\n"
        "dense backbone by a cost model, and says why the others lose and which constants decide.\n"
        "A prediction is as good as its constants: only --calibrate measures any.\n\n"
        f"  SYSTEM  {', '.join(PLANNERS)}\n\n"
        "examples:\n"
        "  tenfold plan ppmoe --model 6.7B-moe --cluster 4x8xV100-32G --out plans/small\n"
        "  tenfold plan ppmoe --model layers=24,hidden=2048,heads=16,vocab=50257,seq=2048,"
        "experts=16\n"
        "  tenfold plan ppmoe --model small --cluster local:4 --calibrate\n\n"
        "`tenfold plan SYSTEM --help` lists every option."
    )
    if not rest or rest[0] in ("-h", "--help"):
        say(usage)
        return
    if rest[0] not in PLANNERS:
        nearest(rest[0], list(PLANNERS), "system that can be planned")
    _plan_ppmoe(rest)


def _plan_ppmoe(rest: list[str]) -> None:
    from tenfold.systems.ppmoe.planner.cost import Extensions

    kept = Extensions(as_kept=True)

    def verb(
        system: Annotated[str, *positional("SYSTEM")],
        model: str = "",
        cluster: str = "",
        gpu: str = "",
        batch: int = 0,
        out: str = "",
        paper: bool = False,
        field: bool = False,
        calibrate: bool = False,
        calibration: str = "",
        seconds: float = 25.0,
        micro_batch: int = 4,
        virtual: int = 1,
        memory_share: float = 0.9,
        extensions: Any = kept,
        constants: Constants = Constants(),  # noqa: B008 - frozen
    ) -> None:
        """Find the fastest layout by the cost model; say why others lose and what decides.

        Args:
            system: Name of the system: ppmoe.
            model: A name (0.3B, 6.7B-moe, 6.7B, 143B-moe, small, small-dense), or sizes as
                layers=24,hidden=1024,heads=16,vocab=50257,seq=2048,experts=64,top_k=1,moe_every=2;
                also ffn, expert_ffn, shared, kv_heads, head_size, dense_first, and swiglu=1.
                By default 6.7B-moe, on local processes small.
            cluster: NODESxGPUSxKIND-MEMORY such as 4x8xV100-32G (also V100-16G, A100-40G,
                A100-80G, H100-80G, H200-141G, GB200-186G), 4x8 with --gpu, or local, local:4
                with a calibration.
            gpu: A device by its numbers: memory=24GB,bf16=165TF,link=64GB/s,hbm=1008GB/s,
                nic=12.5GB/s (link: NVLink or PCIe, both directions; nic: of a node).
            batch: Sequences of a step, over all replicas; 0 takes 4 a device.
            out: Folder of plan.json, pareto.png, curve.png, curve-total.png; of ppmoe-plan.json
                and .md with --paper, ppmoe-field.json and .md with --field; of calibration.json
                with --calibrate.
            paper: Print the paper's settings through the cost model beside the paper's figures.
            field: Print layouts that others published for Qwen3, DeepSeek-V3 and Kimi-K2 beside
                what the planner would choose on the same cluster.
            calibrate: Measure rates of this machine, then plan with them.
            calibration: File that --calibrate wrote before.
            seconds: Time of the measurement.
            micro_batch: Sequences of a micro-batch at which to measure.
            virtual: Most virtual stages a device (interleaved schedule).
            memory_share: Share of a device's memory that a layout may use.
            extensions: What the plain model leaves out.
            constants: Rates in place of those of the cluster.
        """
        from tenfold.systems.ppmoe.planner import clusters

        if not 0 < seconds <= 3600 or micro_batch < 1:
            raise ValueError(
                f"--seconds must be in (0, 3600] and --micro-batch at least 1, got {seconds} and "
                f"{micro_batch}"
            )
        if paper and field:
            raise UsageError("give either --paper or --field")
        if paper or field:
            _paper(out) if paper else _field(out)
            return
        if out:
            pictures = [Path(out) / name for name in PICTURES]
            require_own(Path(out) / "plan.json", "memory_limit_bytes", *pictures)
        measured = _calibration(calibrate, calibration, model, seconds, micro_batch, out)
        shape = clusters.parse_model(model or ("6.7B-moe" if measured is None else "small"))
        where = cluster or ("4x8xV100-32G" if measured is None else "local")
        if gpu and not cluster:
            where = "1x1"
        at = _with(clusters.parse_cluster(where, shape, measured, gpu), constants)
        if measured is not None and measured.shape.hidden != shape.hidden:
            say(
                f"* the rates were measured at hidden {measured.shape.hidden}, not {shape.hidden}: "
                "calibrate with this model"
            )
        _search(shape, at, batch or 4 * at.world, extensions, virtual, memory_share, out)

    verb.__annotations__ |= {
        "system": Annotated[str, *positional("SYSTEM")],
        "extensions": Extensions,
        "constants": Constants,
        **dict.fromkeys(("model", "cluster", "gpu", "out", "calibration"), str),
        **dict.fromkeys(("batch", "micro_batch", "virtual"), int),
        **dict.fromkeys(("paper", "field", "calibrate"), bool),
        **dict.fromkeys(("seconds", "memory_share"), float),
        "return": None,
    }
    own = ("model cluster gpu batch out paper field calibrate calibration seconds micro-batch "
           "virtual memory-share").split()  # fmt: skip
    flags = [f"--{name}" for name in own]
    flags += flags_of(Extensions, "--extensions.") + flags_of(Constants, "--constants.")
    parse(verb, rest, "tenfold plan", flags)


def _calibration(
    wanted: bool, given: str, model: str, seconds: float, micro_batch: int, out: str
) -> Calibration | None:
    """Measure, or read what was measured; None if neither was asked for."""
    from tenfold.core import checkpoint
    from tenfold.systems.ppmoe.planner import clusters, report

    if wanted and given:
        raise UsageError("give either --calibrate or --calibration FILE")
    if given:
        file = Path(given)
        if not file.exists():
            raise FileNotFoundError(f"{file} does not exist; --calibrate writes one")
        return clusters.Calibration.from_json(checkpoint.read_json(file), str(file))
    if not wanted:
        return None
    from tenfold.systems.ppmoe.planner.calibrate import calibrate

    target = Path(out) / "calibration.json"
    require_own(target, "alltoall_bytes_per_s")
    found = calibrate(clusters.parse_model(model or "small"), micro_batch, seconds)
    _print(report.calibration_table(found))
    checkpoint.write_json(target, found.to_json())
    say(f"{target}\n")
    return found


def _with(cluster: Cluster, constants: Constants) -> Cluster:
    """The cluster with the rates that the user gave."""
    given = {f.name: getattr(constants, f.name) for f in fields(constants)}
    require(constants, "constants.", "[0, inf)", *given)
    changes = {name: value for name, value in given.items() if value}
    if not changes:
        return cluster
    source = f"{cluster.source}; given on the command line: {', '.join(changes)}"
    return replace(cluster, machine=replace(cluster.machine, **changes), source=source)


def _search(
    shape: Shape,
    cluster: Cluster,
    batch: int,
    extensions: Any,
    virtual: int,
    memory_share: float,
    out: str,
) -> None:
    from tenfold.core import checkpoint
    from tenfold.systems.ppmoe.planner import report
    from tenfold.systems.ppmoe.planner.search import curve, launch_command, plan

    made = plan(shape, cluster, batch, extensions, virtual=virtual, memory_share=memory_share)
    # Rates of local processes say nothing of a cluster of machines.
    points = [] if cluster.machine.own_link else curve(made)
    say("\n".join(report.heading(made)))
    best = made.best
    how = "with measured rates" if cluster.measured else "with tuned constants, not measured"
    say(
        f"best: {best.label()}: {best.rate:.0f} tokens/s/GPU, bubble {best.cost.bubble:.1%}; "
        f"predicted {how}\n"
    )
    for table in report.tables_of(made, points):
        _print(table)
    for note in report.notes(made):
        say(f"* {note}")
    ours = made.best_of("ppmoe")
    for one in [best] if ours in (None, best) else [best, ours]:
        assert one is not None
        say(f"\n{one.label()}\n  {launch_command(made, one)}")
    if not out:
        return
    folder = Path(out)
    pictures = {"pareto.png": report.pareto_png(made)}
    if points:
        pictures |= report.curve_pngs(made, points)
    checkpoint.write_json(folder / "plan.json", report.plan_json(made, points))
    for name, picture in pictures.items():
        checkpoint.write_bytes(folder / name, picture)
    say("\n".join(["", *(str(folder / name) for name in ["plan.json", *pictures])]))


def _print(table: Table) -> None:
    shown = table_of(table.title, *table.columns)
    for row in table.rows:
        add_row(shown, *row)
    show(shown)
    say()


def _paper(out: str) -> None:
    """Print the paper's settings beside its figures; with a folder, write them as a claim."""
    from tenfold.systems.ppmoe.planner import report
    from tenfold.systems.ppmoe.planner.paper import TAGS, WARNING

    folder = Path(out)
    if out:
        require_own(folder / "ppmoe-plan.json", "sensitivities", folder / "ppmoe-plan.md")
    tables = report.paper_tables()
    for table in tables:
        _print(table)
    legend = "; ".join(f"{tag}: {what}" for tag, what in TAGS.items())
    say(f"* source: {legend}\n* {WARNING}")
    if not out:
        return
    from tenfold.core import checkpoint, dist, log

    environment = log.environment(dist.current())
    title = "ppmoe: the paper's settings through the cost model"
    page = _page(title, WARNING, tables, ["Source: " + legend + "."], environment)
    checkpoint.write_json(
        folder / "ppmoe-plan.json", {**report.paper_json(), "environment": environment}
    )
    checkpoint.write_text(folder / "ppmoe-plan.md", page)
    say(f"\n{folder / 'ppmoe-plan.json'}\n{folder / 'ppmoe-plan.md'}")


def _field(out: str) -> None:
    """Print published layouts beside the planner's; with a folder, write them as a claim."""
    from tenfold.core import checkpoint, dist, log
    from tenfold.systems.ppmoe.planner import field

    folder = Path(out)
    if out:
        require_own(folder / "ppmoe-field.json", "settings", folder / "ppmoe-field.md")
    compared = [field.compare(one) for one in field.FIELD]
    loads = field.loads_table(field.FIELD)
    tables = [field.layouts_table(compared), field.published_table(compared), loads]
    for table in tables:
        _print(table)
    notes = [*field.rates(compared), *field.sources(field.FIELD)]
    say("\n".join(f"* {note}" for note in [field.WARNING, *notes]))
    if not out:
        return
    environment = log.environment(dist.current())
    value = {**field.field_json(compared, loads), "environment": environment}
    title = "ppmoe: layouts that others published, and what the planner would choose"
    lines = ["## Rates, sources and approximations", "", *(f"- {note}" for note in notes)]
    checkpoint.write_json(folder / "ppmoe-field.json", value)
    page = _page(title, field.WARNING, tables, lines, environment)
    checkpoint.write_text(folder / "ppmoe-field.md", page)
    say(f"\n{folder / 'ppmoe-field.json'}\n{folder / 'ppmoe-field.md'}")


def _page(
    title: str,
    warning: str,
    tables: Sequence[Table],
    notes: list[str],
    environment: dict[str, Any],
) -> str:
    from tenfold.report.markdown import md, md_table

    lines = [f"# {title}", "", f"**{warning}**", ""]
    for table in tables:
        lines += [f"## {table.title}", ""]
        lines += [*md_table(table.columns, [[md(cell) for cell in r] for r in table.rows]), ""]
    lines += [*notes, "", "## Setting", ""]
    rows = [[md(key.replace("_", " ")), md(value)] for key, value in environment.items()]
    return "\n".join([*lines, *md_table(["", ""], rows, words=2), ""])
