"""The verbs of the command line, a function each; heavy imports wait inside them."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from .arguments import flags_of, parse, positional, show, table_of
from .core.names import UsageError, nearest
from .systems import SYSTEMS, system_class

if TYPE_CHECKING:
    from .core.system import System


def list_systems(rest: list[str]) -> None:
    """List the systems: task, data found or generated, minutes of the demo."""

    def verb() -> None:
        """List the systems: what each does, whether its data is here, minutes of its demo."""
        from .data import catalog

        table = table_of("tenfold", "system", "what it does", "data", "found", "demo (min)")
        for name, entry in SYSTEMS.items():
            present = "yes" if catalog.find(entry.data) else "no: generated"
            table.add_row(name, entry.task, entry.data, present, entry.minutes)
        show(table)

    parse(verb, rest, "tenfold list", [])


def info(rest: list[str]) -> None:
    """Show a system's paper, recipes, claims, licence and how to cite it."""

    def verb(system: Annotated[str, *positional("SYSTEM")]) -> None:
        """Show a system's paper, recipes, claims, licences and how to cite it.

        Args:
            system: Name of a system; `tenfold list` shows them.
        """
        from .core.config import differences, to_json

        cls = system_class(system)
        paper = cls.paper
        print(f"{system}: {paper.title} (arXiv {paper.arxiv})\n{paper.says}\n")
        print(f"official code:    {paper.code}\nofficial weights: {paper.weights_licence}\n")
        print(f"predicts from:    {cls.accepts}\n")
        first = to_json(cls.recipes["paper"])
        for name, recipe in cls.recipes.items():
            changed = differences(first, to_json(recipe))
            print(f"recipe {name}: " + ("the published setting" if not changed else "paper, but"))
            for line in changed:
                print(f"    {line}")
        from .run import construct

        print()
        for claim in construct(cls, cls.complete(cls.recipes["small"])).claims():
            print(f"claim: {claim.says} ({claim.method.name} against {claim.baseline.name})")
        print(f"\ncite:\n{paper.cite}")

    parse(verb, rest, "tenfold info", [])


MOST_ROWS = 16
"""Rows of a table in the terminal; of longer ones only those that the system shows first."""


@dataclass(frozen=True)
class Run:
    """Where the run lives."""

    folder: str = ""
    """Run folder; empty means runs/<system>-<recipe>. An unfinished run there is continued."""
    fresh: bool = False
    """Delete what the folder holds and start over."""


def train(rest: list[str]) -> None:
    """Train a system by a recipe; any field of its configuration can be changed."""
    import tyro

    usage = (
        "usage: tenfold train SYSTEM RECIPE [--run.folder DIR] [--dry-run] [--FIELD VALUE ...]\n\n"
        "Trains, evaluates on the test split, and writes a run folder with weights, metrics,\n"
        "pictures and report.html. The same command continues an interrupted run.\n\n"
        f"  SYSTEM  {', '.join(SYSTEMS)}\n"
        "  RECIPE  a named setting: paper, small, demo ... (`tenfold info SYSTEM`)\n\n"
        "examples:\n"
        "  tenfold train spgsn demo\n"
        "  tenfold train spgsn small --optim.lr 3e-4 --run.folder runs/lower-rate\n"
        "  torchrun --nproc-per-node 2 -m tenfold train spgsn small\n\n"
        "`tenfold train SYSTEM RECIPE --help` lists every field."
    )
    if not rest or rest[0] in ("-h", "--help"):
        print(usage)
        return
    cls = system_class(rest[0])
    name, recipes = rest[0], cls.recipes
    if len(rest) < 2 or rest[1].startswith("-"):
        raise UsageError(
            f"which recipe? `tenfold train {name} RECIPE`; known: {', '.join(recipes)}"
        )
    recipe = rest[1]
    if recipe not in recipes:
        nearest(recipe, list(recipes), "recipe")
    default = recipes[recipe]

    def verb(
        config: Annotated[Any, tyro.conf.arg(name="", constructor=type(default))] = default,
        run: Run = Run(),  # noqa: B008 - frozen
        dry_run: bool = False,
    ) -> None:
        """Train; every field below can be changed.

        Args:
            config: The system's configuration.
            run: Where the run lives.
            dry_run: Print the configuration, shapes and one step's loss; write nothing.
        """
        from . import run as runs

        if dry_run:
            _show_dry_run(cls, config)
            return
        folder = Path(run.folder or f"runs/{name}-{recipe}")
        result = runs.train(name, cls, recipe, config, folder, run.fresh)
        if result:
            _show_result(result)
            print(f"\n{folder / 'report.html'}")

    verb.__annotations__["config"] = Annotated[type(default), tyro.conf.arg(name="")]
    verb.__annotations__["run"] = Run
    verb.__annotations__["dry_run"] = bool
    verb.__annotations__["return"] = None
    flags = [*flags_of(type(default)), "--run.folder", "--run.fresh", "--dry-run"]
    parse(verb, rest[2:], f"tenfold train {name} {recipe}", flags)


def _show_dry_run(cls: type[System[Any]], config: Any) -> None:
    from . import run as runs
    from .core.config import flatten, to_json

    for key, value in flatten(to_json(config)).items():
        print(f"{key:28} {value}")
    found = runs.dry_run(cls, config)
    print(f"\nparameters of the first stage: {found.parameters:,}")
    print("\n".join(["stages:", *("  " + s for s in found.stages)]))
    print("\n".join(["one batch:", *("  " + s for s in found.batch)]))
    print("one step:", ", ".join(f"{k} {v:.5g}" for k, v in found.losses.items()))


def number(value: float) -> str:
    """Two digits after the point, or four that count where that would be nothing."""
    return f"{value:.2f}" if abs(value) >= 0.1 or value == 0 else f"{value:.4g}"


def _show_result(result: dict[str, Any]) -> None:
    """Print metrics: one table a group, rows by the middle part, methods side by side."""
    data = result["data"]
    print(f"data: {data['name']} ({data['kind']}{', ' + data['note'] if data['note'] else ''})")
    named = {result["recipe"]: result["metrics"], **result["baselines"]}
    labels = result.get("labels", {})
    groups: dict[str, None] = {k.split("/")[0]: None for k in result["metrics"]}
    for group in groups:
        columns = list(dict.fromkeys(
            k.split("/")[-1] for k in result["metrics"] if k.startswith(group + "/")
        ))  # fmt: skip
        table = table_of(group, "", "by", *[labels.get(c, c) for c in columns])
        rows = list(dict.fromkeys(
            k.rsplit("/", 1)[0] for k in result["metrics"] if k.startswith(group + "/")
        ))  # fmt: skip
        if len(rows) > MOST_ROWS:  # the page has them all
            first = {k.split("/")[1] for k in result.get("main", [])}
            rows = [r for r in rows if r.partition("/")[2] in first] or rows[:MOST_ROWS]
        for row in rows:
            for method, metrics in named.items():
                cells = [metrics.get(f"{row}/{c}") for c in columns]
                shown = ["" if v is None else number(v) for v in cells]
                table.add_row(row.partition("/")[2], method, *shown)
        show(table)
    for note in result["notes"]:
        print(f"* {note}")


def evaluate(rest: list[str]) -> None:
    """Measure a trained run on a split."""

    def verb(
        run: Annotated[Path, *positional("RUN")], split: Literal["test", "validation"] = "test"
    ) -> None:
        """Measure a trained run, with the baselines that need no training beside it.

        Args:
            run: Run folder or .safetensors file.
            split: Which data; test is the published protocol.
        """
        from . import run as runs
        from .core.checkpoint import read_header

        name, _ = read_header(runs.weights_of(run))
        system = runs.load(system_class(name), run)
        data = system.data_used()
        _show_result(
            {
                "recipe": name,
                "data": {"name": data.name, "kind": data.kind, "note": data.note},
                "metrics": system.evaluate(split),
                "baselines": system.baselines(split),
                "notes": system.notes(),
                "labels": system.labels(),
                "main": system.headline,
            }
        )

    parse(verb, rest, "tenfold evaluate", ["--split"])


def predict(rest: list[str]) -> None:
    """Run a trained system on a file of yours."""
    import tyro

    given = Path(rest[0]) if rest and not rest[0].startswith("-") else None
    asked: Any = None
    if given is not None:  # a system may have options of its own
        from . import run as runs

        asked = system_class(runs.system_of(given)).options

    def verb(
        run: Annotated[Path, *positional("RUN")],
        file: Annotated[Path, *positional("FILE")],
        out: Path = Path(),
        options: Any = asked,
    ) -> None:
        """Run a trained system on a file of yours and write files that a person can open.

        `tenfold predict RUN --help` lists what the system of that run can be asked for.

        Args:
            run: Run folder or .safetensors file; for pangu also an official .onnx file, or a
                folder of them, which onnxruntime runs as they are.
            file: Input; `tenfold info SYSTEM` says which kinds.
            out: Output folder; by default predictions/<file name> in the run folder.
            options: The system's own options.
        """
        from . import run as runs

        if not file.exists():
            raise FileNotFoundError(f"{file} does not exist")
        system = runs.load(system_class(runs.system_of(run)), run)
        system.options = options
        home = run if run.is_dir() else run.parent
        folder = home / "predictions" / file.stem if out == Path() else out
        for path in system.predict(file, folder):
            print(path)

    shown = tyro.conf.arg(name="") if asked is not None else tyro.conf.Suppress
    verb.__annotations__ = {
        "run": Annotated[Path, *positional("RUN")],
        "file": Annotated[Path, *positional("FILE")],
        "out": Path,
        "options": Annotated[type(asked), shown],
        "return": None,
    }
    flags = ["--out", *(flags_of(type(asked)) if asked is not None else [])]
    parse(verb, rest, "tenfold predict", flags)


def export(rest: list[str]) -> None:
    """Export a trained network to ONNX or torch.export, checked equal to eager."""

    def verb(
        run: Annotated[Path, *positional("RUN")],
        to: Literal["onnx", "torch", "official"] = "onnx",
        out: Path = Path(),
        part: str = "",
        size: tuple[int, int] = (0, 0),
    ) -> None:
        """Export a trained network and check that it equals eager at two batch sizes.

        Args:
            run: Run folder or .safetensors file.
            to: onnx (needs the extra `export`), torch (torch.export, a .pt2 file), or official:
                files as the authors' own, where a system has such (pangu).
            out: Output file, of official ones the folder; by default beside the weights.
            part: Which network, where a system has several (itpn: backbone, or a task's name).
            size: Height and width of pictures, where the network takes any (itpn); the file is then
                for that size.
        """
        from . import run as runs
        from .core.checkpoint import read_header
        from .export import export_checked

        weights = runs.weights_of(run)
        name, _ = read_header(weights)
        if to == "official":
            folder = weights.parent / "official" if out == Path() else out
            for path in runs.load(system_class(name), run).export_official(folder):
                print(path)
            return
        suffix = ".onnx" if to == "onnx" else ".pt2"
        target = weights.with_name(name + suffix) if out == Path() else out
        system = runs.load(system_class(name), run)
        what = system.export_part(part, size) if part or any(size) else system.export()
        worst = export_checked(what, to, target)
        print(f"{target}  (largest difference from eager: {worst:.2g})")

    parse(verb, rest, "tenfold export", ["--to", "--out", "--part", "--size"])


def convert(rest: list[str]) -> None:
    """Convert an official checkpoint to our safetensors."""

    def verb(
        system: Annotated[str, *positional("SYSTEM")],
        checkpoint: Annotated[Path, *positional("CKPT")],
        out: Path = Path(),
        partial: bool = False,
    ) -> None:
        """Convert an official checkpoint; every unmatched key is listed.

        Args:
            system: Name of the system.
            checkpoint: File as its authors' code writes it; read without executing anything.
            out: Output folder; by default the checkpoint's name without its endings. It can be
                given to evaluate, predict and export like a run.
            partial: Write even if keys are missing or unused.
        """
        from . import run as runs

        if not checkpoint.exists():
            raise FileNotFoundError(f"{checkpoint} does not exist")
        made, account = system_class(system).convert(checkpoint)
        print(account.report())
        if not partial:
            account.require_complete()
        plain = checkpoint.with_name(checkpoint.name.split(".")[0])
        print(runs.save_converted(plain if out == Path() else out, system, made, account.report()))

    parse(verb, rest, "tenfold convert", ["--out", "--partial"])


def claim(rest: list[str]) -> None:
    """Run a system's claims: method and baselines, several seeds, a verdict."""

    def verb(
        system: Annotated[str, *positional("SYSTEM")],
        out: Path = Path("claims"),
        runs: Path = Path("runs/claims"),
        threads: int = 0,
        device: Literal["auto", "cpu", "cuda"] = "auto",
    ) -> None:
        """Train every arm of the claims with every seed and judge; finished runs are kept.

        Args:
            system: Name of the system.
            out: Folder of <system>.json and <system>.md.
            runs: Folder of the runs.
            threads: Threads of torch; 0 leaves its choice.
            device: Where to train.
        """
        from . import run
        from .report.claim import claim_lines

        changes = {"threads": threads, "device": device}
        results = run.claim(system, system_class(system), runs / system, out, changes)
        print("\n".join(claim_lines(results)))
        print(f"\n{out / system}.md holds every metric of every arm")

    parse(verb, rest, "tenfold claim", ["--out", "--runs", "--threads", "--device"])


def report(rest: list[str]) -> None:
    """Write the page of a run, or one page that compares several."""

    def verb(
        runs: Annotated[tuple[Path, ...], *positional("RUN ...")],
        out: Path = Path("comparison.html"),
    ) -> None:
        """Write the page of one run, or one page that compares several.

        Args:
            runs: Run folders.
            out: The page, where several runs are compared.
        """
        from .report.html import write_comparison_page, write_run_page

        if not runs:
            raise UsageError("give one or more run folders")
        for run in runs:
            if not run.is_dir():
                raise FileNotFoundError(f"{run} is not a run folder")
        print(write_run_page(runs[0]) if len(runs) == 1 else write_comparison_page(list(runs), out))

    parse(verb, rest, "tenfold report", ["--out"])


def doctor(rest: list[str]) -> None:
    """Check the installation: versions, devices, data, extras."""

    def verb() -> None:
        """Check the installation: versions, devices, process groups, data and extras."""
        from .doctor import examine

        table = table_of("tenfold doctor", "what", "found", "")
        healthy = True
        for what, found, good, advice in examine():
            healthy &= good
            table.add_row(what, found, "ok" if good else advice)
        show(table)
        if not healthy:
            sys.exit(1)

    parse(verb, rest, "tenfold doctor", [])


def demo(rest: list[str]) -> None:
    """Run every system at demo scale and write one page."""

    def verb(out: Path = Path("runs/demo"), systems: tuple[str, ...] = ()) -> None:
        """Run every system at demo scale: train method and baseline, predict, write one page.

        Args:
            out: Folder of the runs and of report.html.
            systems: Only these; by default all.
        """
        from .demo import run_demo

        page, rows = run_demo({n: system_class(n) for n in systems or SYSTEMS}, out)
        table = table_of("tenfold demo", "system", "data", "metric", "ours", "baseline", "seconds")
        for row in rows:
            table.add_row(
                row["system"],
                row["data"],
                row["metric"],
                f"{row['method value']:.2f}",
                f"{row['baseline value']:.2f} ({row['baseline']})",
                f"{row['seconds']:.0f}",
            )
        show(table)
        print(page)

    parse(verb, rest, "tenfold demo", ["--out", "--systems"])
