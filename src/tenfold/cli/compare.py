"""`tenfold claim`, `report` and `demo`: several runs side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from tenfold.core.errors import UsageError
from tenfold.systems import SYSTEMS, system_class

from .arguments import parse, positional, show, table_of


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
        from tenfold.report.claim import claim_lines
        from tenfold.runner import claim as runner_claim

        changes = {"threads": threads, "device": device}
        results = runner_claim.claim(system, system_class(system), runs / system, out, changes)
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
        from tenfold.report.html import write_comparison_page, write_run_page

        if not runs:
            raise UsageError("give one or more run folders")
        for train in runs:
            if not train.is_dir():
                raise FileNotFoundError(f"{train} is not a run folder")
        print(write_run_page(runs[0]) if len(runs) == 1 else write_comparison_page(list(runs), out))

    parse(verb, rest, "tenfold report", ["--out"])


def demo(rest: list[str]) -> None:
    """Run every system at demo scale and write one page."""

    def verb(out: Path = Path("runs/demo"), systems: tuple[str, ...] = ()) -> None:
        """Run every system at demo scale: train method and baseline, predict, write one page.

        Args:
            out: Folder of the runs and of report.html.
            systems: Only these; by default all.
        """
        from tenfold.runner.demo import run_demo

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
