"""`tenfold claim`, `report` and `demo`: several runs side by side."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any, Literal

from tenfold.core.errors import UsageError
from tenfold.systems import SYSTEMS, system_class

from .arguments import add_row, parse, path_or, positional, say, show, table_of


def claim(rest: list[str]) -> None:
    """Run a system's claims: method and baselines, several seeds, a verdict; or show them all."""

    def verb(
        system: Annotated[str, *positional("SYSTEM")] = "",
        out: Path = Path("claims"),
        runs: Path = Path("runs/claims"),
        threads: int = 0,
        device: Literal["auto", "cpu", "cuda"] = "auto",
        all: bool = False,
        report: bool = False,
        pages: Path = Path("docs"),
    ) -> None:
        """Train every arm of the claims with every seed and judge; finished runs are kept.

        Args:
            system: Name of the system.
            out: Folder of <system>.json and <system>.md.
            runs: Folder of the runs.
            threads: Threads of torch; 0 leaves its choice.
            device: Where to train.
            all: Every system, one after the other.
            report: Train nothing: make one page of all systems' results in OUT. Needs --all.
            pages: Folder of that page, evidence.md and evidence.html.
        """
        if all == bool(system):
            raise UsageError("name one system, or give --all")
        if report:
            if not all:
                raise UsageError(f"--report is of all systems, not of {system} alone; give --all")
            from tenfold.report.evidence import write_evidence

            tasks = {name: entry.task for name, entry in SYSTEMS.items()}
            say("\n".join(map(str, write_evidence(tasks, out, pages))))
            return
        from tenfold.report.claim import claim_lines
        from tenfold.runner import claim as runner_claim

        changes = {"threads": threads, "device": device}
        for name in SYSTEMS if all else [system]:
            results = runner_claim.claim(name, system_class(name), runs / name, out, changes)
            say("\n".join(claim_lines(results)))
            say(f"\n{out / name}.md holds every metric of every arm")

    flags = ["--out", "--runs", "--threads", "--device", "--all", "--report", "--pages"]
    parse(verb, rest, "tenfold claim", flags)


def report(rest: list[str]) -> None:
    """Write the page of a run, or one page that compares several."""

    def verb(
        runs: Annotated[tuple[Path, ...], *positional("RUN ...")],
        out: str = "",
    ) -> None:
        """Write the page of one run, or one page that compares several.

        Args:
            runs: Run folders.
            out: The page, where several runs are compared; by default comparison.html.
        """
        from tenfold.core import lock, run_folder
        from tenfold.report.html import write_comparison_page, write_run_page

        if not runs:
            raise UsageError("give one or more run folders")
        for run in runs:
            if not run.is_dir():
                raise FileNotFoundError(f"{run} is not a run folder")
            run_folder.require(run)
        if len(runs) > 1:
            say(write_comparison_page(list(runs), path_or(Path("comparison.html"), out)))
            return
        if out:
            raise UsageError(
                f"--out is of a page that compares several runs; that of {runs[0]} is "
                f"{runs[0] / 'report.html'}: leave --out out"
            )
        with lock.locked(runs[0], "writing the page"):
            say(write_run_page(runs[0], _recipe_of(runs[0])))

    parse(verb, rest, "tenfold report", ["--out"])


def _recipe_of(run: Path) -> dict[str, Any] | None:
    """The recipe of a run as it is shipped, by which the page says what the run changed."""
    from tenfold.core import run_folder
    from tenfold.core.config import to_json

    saved = run_folder.read_config(run)
    if saved is None or saved["system"] not in SYSTEMS:
        return None
    recipe = system_class(saved["system"]).recipes.get(saved["recipe"])
    return None if recipe is None else to_json(recipe)


def demo(rest: list[str]) -> None:
    """Run every system at demo scale and write one page."""

    def verb(
        out: Path = Path("runs/demo"), systems: tuple[str, ...] = (), fresh: bool = False
    ) -> None:
        """Train every system at demo scale, show that it learns, and write one page.

        What is trained is measured beside the untrained network and baselines that need no
        training. Whether a paper's method beats its rival needs more: `tenfold claim SYSTEM`.

        Args:
            out: Folder of the runs and of report.html.
            systems: Only these; by default all. The page keeps what OUT has of the others.
            fresh: Delete runs of another configuration that lie in OUT, and start them over.
        """
        from tenfold.report.results import number as shown
        from tenfold.runner.demo import UNTRAINED, run_demo

        for name in systems:
            system_class(name)  # an unknown name ends here
        page, rows = run_demo(systems or tuple(SYSTEMS), out, fresh)
        table = table_of(
            "tenfold demo", "system", "data", "metric", UNTRAINED, "trained", "seconds"
        )
        for row in rows:
            if "error" in row:
                add_row(table, row["system"], "", row["error"])
                continue
            add_row(
                table,
                row["system"],
                row["data"],
                row["metric"],
                shown(row[UNTRAINED]),
                shown(row["trained"]),
                f"{row['seconds']:.0f}",
            )
        show(table)
        say(page)
        sys.exit(max(row.get("exit_code", 0) for row in rows))

    parse(verb, rest, "tenfold demo", ["--out", "--systems", "--fresh"])
