"""The command line: the only file that reads argv; imports one system, and only when asked."""

from __future__ import annotations

import difflib
import importlib
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn, get_type_hints

if TYPE_CHECKING:
    from rich.table import Table

    from .core.system import System


@dataclass(frozen=True)
class Entry:
    """A row of `tenfold list`, known without importing the system."""

    target: str
    task: str
    data: str
    minutes: str


SYSTEMS = {
    "spgsn": Entry(
        "tenfold.systems.spgsn:Spgsn",
        "3D skeleton motion prediction by skeleton-parted graph scattering",
        "cmu_mocap",
        "1",
    ),
}
"""Name -> where its class is. To add a system, add a line."""


class UsageError(ValueError):
    """The command line asks for something that is not there."""


def nearest(word: str, known: Sequence[str], what: str) -> NoReturn:
    """Raise the one-line error for an unknown word, with the nearest known one."""
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.4)
    hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known)}"
    raise UsageError(f"unknown {what} {word!r}; {hint}")


def system_class(name: str) -> type[System[Any]]:
    """The class of a system, imported now."""
    if name not in SYSTEMS:
        nearest(name, list(SYSTEMS), "system")
    module, _, attribute = SYSTEMS[name].target.partition(":")
    cls: type[System[Any]] = getattr(importlib.import_module(module), attribute)
    return cls


def _flags(cls: Any, prefix: str = "--") -> list[str]:
    """Every flag that a configuration class gives rise to."""
    found: list[str] = []
    hints = get_type_hints(cls)
    for f in fields(cls):
        name = prefix + f.name.replace("_", "-")
        kind = hints[f.name]
        found += _flags(kind, name + ".") if is_dataclass(kind) else [name]
    return found


def _parse(function: Callable[..., Any], rest: list[str], prog: str, flags: list[str]) -> Any:
    """Let tyro parse; an unknown flag is a one-line error with the nearest name."""
    import tyro

    for word in rest:
        flag = word.split("=", 1)[0].replace("_", "-")
        if word.startswith("--") and flag not in [*flags, "--help"]:
            if flag.startswith("--no-") and "--" + flag[5:] in flags:
                continue
            parent, _, leaf = flag.rpartition(".")
            negated = f"{parent}.{leaf.removeprefix('no-')}"
            if negated not in flags:
                nearest(flag, flags, "option")
    return tyro.cli(function, args=rest, prog=prog)


def _table(title: str, *columns: str) -> Table:
    from rich.table import Table

    table = Table(title=title, title_justify="left", show_edge=False, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _print(thing: Any) -> None:
    from rich.console import Console

    console = Console()
    if not console.is_terminal:
        console = Console(width=int(os.environ.get("COLUMNS", "140")))
    console.print(thing)


# --- the verbs ---------------------------------------------------------------------------------


def list_systems(rest: list[str]) -> None:
    """List the systems: task, data found or generated, minutes of the demo."""

    def verb() -> None:
        """List the systems: what each does, whether its data is here, minutes of its demo."""
        from .data import catalog

        table = _table("tenfold", "system", "what it does", "data", "found", "demo (min)")
        for name, entry in SYSTEMS.items():
            present = "yes" if catalog.find(entry.data) else "no: generated"
            table.add_row(name, entry.task, entry.data, present, entry.minutes)
        _print(table)

    _parse(verb, rest, "tenfold list", [])


def info(rest: list[str]) -> None:
    """Show a system's paper, recipes, claims, licence and how to cite it."""

    def verb(system: Annotated[str, _positional()]) -> None:
        """Show a system's paper, recipes, claims, licences and how to cite it.

        Args:
            system: Name of a system; `tenfold list` shows them.
        """
        from .core.config import differences, to_json

        cls = system_class(system)
        paper = cls.paper
        print(f"{system}: {paper.title} (arXiv {paper.arxiv})\n{paper.says}\n")
        print(f"official code:    {paper.code}\nofficial weights: {paper.weights_licence}\n")
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

    _parse(verb, rest, "tenfold info", [])


def _positional() -> Any:
    import tyro

    return tyro.conf.Positional


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
    flags = [*_flags(type(default)), "--run.folder", "--run.fresh", "--dry-run"]
    _parse(verb, rest[2:], f"tenfold train {name} {recipe}", flags)


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
        table = _table(group, "", "by", *[labels.get(c, c) for c in columns])
        rows = dict.fromkeys(
            k.rsplit("/", 1)[0] for k in result["metrics"] if k.startswith(group + "/")
        )
        for row in rows:
            for method, metrics in named.items():
                cells = [metrics.get(f"{row}/{c}") for c in columns]
                shown = ["" if v is None else f"{v:.2f}" for v in cells]
                table.add_row(row.partition("/")[2], method, *shown)
        _print(table)
    for note in result["notes"]:
        print(f"* {note}")


def evaluate(rest: list[str]) -> None:
    """Measure a trained run on a split."""

    def verb(
        run: Annotated[Path, _positional()], split: Literal["test", "validation"] = "test"
    ) -> None:
        """Measure a trained run, with the baselines that need no training beside it.

        Args:
            run: Run folder or .safetensors file.
            split: Which data; test is the published protocol.
        """
        from . import run as runs
        from .core.system import DataUsed  # noqa: F401 - fails early on a broken install

        name, _ = runs.open_weights(runs.weights_of(run))
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
            }
        )

    _parse(verb, rest, "tenfold evaluate", ["--split"])


def predict(rest: list[str]) -> None:
    """Run a trained system on a file of yours."""

    def verb(
        run: Annotated[Path, _positional()],
        file: Annotated[Path, _positional()],
        out: Path = Path(),
    ) -> None:
        """Run a trained system on a file of yours and write files that a person can open.

        Args:
            run: Run folder or .safetensors file.
            file: Input; `tenfold info SYSTEM` says which kinds.
            out: Output folder; by default predictions/<file name> in the run folder.
        """
        from . import run as runs

        if not file.exists():
            raise FileNotFoundError(f"{file} does not exist")
        weights = runs.weights_of(run)
        name, _ = runs.open_weights(weights)
        system = runs.load(system_class(name), run)
        folder = weights.parent / "predictions" / file.stem if out == Path() else out
        for path in system.predict(file, folder):
            print(path)

    _parse(verb, rest, "tenfold predict", ["--out"])


def export(rest: list[str]) -> None:
    """Export a trained network to ONNX or torch.export, checked equal to eager."""

    def verb(
        run: Annotated[Path, _positional()],
        to: Literal["onnx", "torch"] = "onnx",
        out: Path = Path(),
    ) -> None:
        """Export a trained network and check that it equals eager at two batch sizes.

        Args:
            run: Run folder or .safetensors file.
            to: onnx (needs the extra `export`) or torch (torch.export, a .pt2 file).
            out: Output file; by default beside the weights.
        """
        from . import run as runs
        from .export import export_checked

        weights = runs.weights_of(run)
        name, _ = runs.open_weights(weights)
        suffix = ".onnx" if to == "onnx" else ".pt2"
        target = weights.with_name(name + suffix) if out == Path() else out
        worst = export_checked(runs.load(system_class(name), run).export(), to, target)
        print(f"{target}  (largest difference from eager: {worst:.2g})")

    _parse(verb, rest, "tenfold export", ["--to", "--out"])


def convert(rest: list[str]) -> None:
    """Convert an official checkpoint to our safetensors."""

    def verb(
        system: Annotated[str, _positional()],
        checkpoint: Annotated[Path, _positional()],
        out: Path = Path(),
        partial: bool = False,
    ) -> None:
        """Convert an official checkpoint; every unmatched key is listed.

        Args:
            system: Name of the system.
            checkpoint: File as its authors' code writes it; read without executing anything.
            out: Output file; by default the checkpoint's name with .safetensors.
            partial: Write even if keys are missing or unused.
        """
        from . import run as runs

        if not checkpoint.exists():
            raise FileNotFoundError(f"{checkpoint} does not exist")
        made, account = system_class(system).convert(checkpoint)
        print(account.report())
        if not partial:
            account.require_complete()
        target = checkpoint.with_suffix(".safetensors") if out == Path() else out
        runs.save_weights(target, system, made)
        print(target)

    _parse(verb, rest, "tenfold convert", ["--out", "--partial"])


def claim(rest: list[str]) -> None:
    """Run a system's claims: method and baselines, several seeds, a verdict."""

    def verb(
        system: Annotated[str, _positional()],
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

        run.claim(
            system, system_class(system), runs / system, out, {"threads": threads, "device": device}
        )
        print((out / f"{system}.md").read_text())

    _parse(verb, rest, "tenfold claim", ["--out", "--runs", "--threads", "--device"])


def report(rest: list[str]) -> None:
    """Write the page of a run, or one page that compares several."""

    def verb(
        runs: Annotated[tuple[Path, ...], _positional()], out: Path = Path("comparison.html")
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

    _parse(verb, rest, "tenfold report", ["--out"])


def doctor(rest: list[str]) -> None:
    """Check the installation: versions, devices, data, extras."""

    def verb() -> None:
        """Check the installation: versions, devices, process groups, data and extras."""
        from .doctor import examine

        table = _table("tenfold doctor", "what", "found", "")
        healthy = True
        for what, found, good, advice in examine():
            healthy &= good
            table.add_row(what, found, "ok" if good else advice)
        _print(table)
        if not healthy:
            sys.exit(1)

    _parse(verb, rest, "tenfold doctor", [])


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
        table = _table("tenfold demo", "system", "data", "metric", "ours", "baseline", "seconds")
        for row in rows:
            table.add_row(
                row["system"],
                row["data"],
                row["metric"],
                f"{row['method value']:.2f}",
                f"{row['baseline value']:.2f} ({row['baseline']})",
                f"{row['seconds']:.0f}",
            )
        _print(table)
        print(page)

    _parse(verb, rest, "tenfold demo", ["--out", "--systems"])


def data(rest: list[str]) -> None:
    """List data sets, check, prepare or get them."""
    usage = (
        "usage: tenfold data                         a table of all data sets\n"
        "       tenfold data info NAME               where it is from, licence, layout\n"
        "       tenfold data check [NAME] [--path P] counts, shapes, ranges; names each bad file\n"
        "       tenfold data prepare NAME SOURCE OUT original files to the compact form\n"
        "       tenfold data get NAME OUT            download it, where it is a plain download\n\n"
        "Data is looked for under $TENFOLD_DATA/<name>. What is not found is generated, and every\n"
        "result says so."
    )
    actions = {"info": _data_info, "check": _data_check, "prepare": _data_prepare, "get": _data_get}
    if not rest:
        _data_table()
    elif rest[0] in ("-h", "--help"):
        print(usage)
    elif rest[0] in actions:
        actions[rest[0]](rest[1:])
    else:
        nearest(rest[0], list(actions), "action of `tenfold data`")


def _data_table() -> None:
    from .data import catalog

    table = _table("data sets", "name", "what", "kind", "licence", "origin", "size", "present")
    for row in catalog.table():
        table.add_row(row.name, row.what, row.kind, row.licence, row.origin, row.size, row.present)
    _print(table)


def _data_info(rest: list[str]) -> None:
    def verb(name: Annotated[str, _positional()]) -> None:
        """Say what a data set is, where it is from, its licence and its layout.

        Args:
            name: Data set; `tenfold data` lists them.
        """
        from .data import catalog

        print(catalog.info(name))

    _parse(verb, rest, "tenfold data info", [])


def _data_check(rest: list[str]) -> None:
    def verb(name: Annotated[str, _positional()] = "", path: Path = Path()) -> None:
        """Check counts, shapes and ranges; name each bad file. Exit code 1 if any is bad.

        Args:
            name: Data set; by default every one that is found.
            path: Its folder, if it is not under $TENFOLD_DATA.
        """
        from .data import catalog, checks

        names = [name] if name else [n for n in catalog.SETS if catalog.find(n)]
        if not names:
            raise FileNotFoundError("no data found; set TENFOLD_DATA, or give a name and --path")
        bad = 0
        for one in names:
            folder = catalog.find_or_explain(one, "" if path == Path() else str(path))
            found = checks.check(one, folder)
            bad += len(found.problems)
            print(f"{one}: {found.files} files, {len(found.problems)} problems")
            for problem in found.problems:
                print(f"  BAD {problem.file}: {problem.what}")
            for note in found.notes:
                print(f"  note: {note}")
        if bad:
            sys.exit(1)

    _parse(verb, rest, "tenfold data check", ["--path"])


def _data_prepare(rest: list[str]) -> None:
    def verb(
        name: Annotated[str, _positional()],
        source: Annotated[Path, _positional()],
        out: Annotated[Path, _positional()],
    ) -> None:
        """Turn original files into the compact form.

        Args:
            name: Data set.
            source: Folder of the original files.
            out: Folder to write.
        """
        from .data.prepare import prepare

        for path in prepare(name, source, out):
            print(path)

    _parse(verb, rest, "tenfold data prepare", [])


def _data_get(rest: list[str]) -> None:
    def verb(name: Annotated[str, _positional()], out: Annotated[Path, _positional()]) -> None:
        """Download a data set that is a plain download; a cut download is resumed.

        Args:
            name: Data set.
            out: Folder to write.
        """
        from rich.progress import DownloadColumn, Progress, TimeRemainingColumn

        from .data.download import get

        with Progress(
            *Progress.get_default_columns()[:2], DownloadColumn(), TimeRemainingColumn()
        ) as bar:
            task = bar.add_task(name, total=None)
            path = get(
                name, out, progress=lambda a, b: bar.update(task, completed=a, total=b or None)
            )
        print(path)

    _parse(verb, rest, "tenfold data get", [])


VERBS: dict[str, Callable[[list[str]], None]] = {
    "list": list_systems,
    "info": info,
    "train": train,
    "evaluate": evaluate,
    "predict": predict,
    "export": export,
    "convert": convert,
    "claim": claim,
    "report": report,
    "doctor": doctor,
    "demo": demo,
    "data": data,
}


def _help() -> str:
    lines = ["usage: tenfold VERB ...", "", "Ten published systems under one roof.", ""]
    lines += [f"  {name:10} {(verb.__doc__ or '').strip()}" for name, verb in VERBS.items()]
    lines += ["", "`tenfold VERB --help` teaches each; start with `tenfold list`, then",
              "`tenfold train spgsn demo`. Exit codes: 0 done, 1 problems found, 2 wrong input,",
              "3 training diverged, 143 stopped by SIGTERM with a checkpoint written."]  # fmt: skip
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> None:
    """Run the command line; a user's mistake is one line on stderr and exit code 2."""
    words = sys.argv[1:] if argv is None else argv
    if not words or words[0] in ("-h", "--help", "help"):
        print(_help())
        return
    if words[0] in ("-V", "--version"):
        from . import __version__

        print(__version__)
        return
    try:
        if words[0] not in VERBS:
            nearest(words[0], list(VERBS), "verb")
        VERBS[words[0]](words[1:])
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        sys.exit(0)
    except Exception as error:
        code = _exit_code(error)
        if code == 0 or os.environ.get("TENFOLD_TRACEBACK"):
            traceback.print_exc()
        if code == 0:
            sys.exit(70)  # a bug of ours
        print(f"tenfold: {error}", file=sys.stderr)
        sys.exit(code)


def _exit_code(error: Exception) -> int:
    """Exit code of an error that is not our bug; 0 for one that is."""
    if isinstance(error, (ValueError, FileNotFoundError, NotADirectoryError, IsADirectoryError)):
        return 2
    if isinstance(error, (PermissionError, ModuleNotFoundError)):
        return 2
    loop = sys.modules.get("tenfold.core.loop")
    if loop is not None and isinstance(error, loop.Stopped):
        return 128 + error.signum
    if loop is not None and isinstance(error, loop.NonFinite):
        return 3
    return 0
