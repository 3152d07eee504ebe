"""The verb `learn` of the command line: new classes from a few photos, undoable."""

from __future__ import annotations

import os
import shlex
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tenfold.core.errors import UsageError

from .arguments import add_row, parse, positional, say, show, table_of

if TYPE_CHECKING:
    from tenfold.core.versions import Learned, Versions


def learn(rest: list[str]) -> None:
    """Teach a trained run new classes from a few photos, without training; undoable."""

    def verb(
        run: Annotated[Path, *positional("RUN")],
        folder: Annotated[str, *positional("FOLDER")] = "",
        name: str = "",
        head: str = "",
        max_loss: float = 100.0,
        undo: bool = False,
        redo: bool = False,
        history: bool = False,
        to: int | None = None,
    ) -> None:
        """Teach a trained run new classes from a few photos; old photos are not needed.

        Each time makes a new version beside the run's weights, which stay as they are; `predict`
        uses the current version. Version 0 is the run as it was trained.

        Args:
            run: Run folder of a system that can learn, such as ldc.
            folder: Photos of one class, or a folder of such folders, named after their classes.
            name: Name of the class, where FOLDER holds photos of one; by default FOLDER's name.
            head: Head that learns and answers from now on; of ldc: lda, ncm, teen, or the run's
                own. By default the one that answers now.
            max_loss: Refuse what would cost the classes known before more than so many points of
                accuracy, by the estimate that learning makes.
            undo: Go back to the version before.
            redo: Go forward again.
            history: List the versions.
            to: Go to this version; 0 is the run as it was trained.
        """
        ways = (folder != "", undo, redo, history, to is not None)
        if sum(ways) != 1:
            raise UsageError(
                ("learn what?" if sum(ways) == 0 else "one thing at a time:")
                + " give FOLDER (photos of one class, or a folder of class folders), or one of "
                "--history, --undo, --redo, --to N"
            )
        if name and not folder:
            raise UsageError("--name names the class of the photos in FOLDER; give FOLDER too")
        if head and not folder:
            raise UsageError("--head is of what learns the photos in FOLDER; give FOLDER too")
        if not 0 <= max_loss <= 100:
            raise UsageError(f"--max-loss is of points of accuracy, 0 to 100, got {max_loss:g}")
        versions = _versions(run)
        if folder:
            # absolute, so that "." has a name
            _learn(versions, Path(os.path.abspath(folder)), name, head, max_loss)
        elif history:
            _show_history(versions)
        else:
            before = versions.current() if to is None else None
            now = (
                versions.go(to) if to is not None else versions.undo() if undo else versions.redo()
            )
            came = "" if before is None else f", was at version {before}"
            say(f"{run} is at version {now}{came}")

    flags = ["--name", "--head", "--max-loss", "--undo", "--redo", "--history", "--to"]
    if not rest:
        raise UsageError(
            "which run? `tenfold learn RUN FOLDER` learns the classes of the photos in FOLDER; "
            "`tenfold learn --help` says more"
        )
    parse(verb, rest, "tenfold learn", flags)


def _versions(run: Path) -> Versions:
    from tenfold.runner.weights import versions_of, weights_of

    weights_of(run)
    if not run.is_dir():
        raise ValueError(
            f"{run} is a file; versions lie beside the weights: give the run folder {run.parent}"
        )
    return versions_of(run)


def _learn(versions: Versions, folder: Path, name: str, head: str, max_loss: float) -> None:
    """Learn, make it a version, and only then write pictures: nothing half-done counts."""
    from tenfold.core import checkpoint
    from tenfold.core.capabilities import Learns
    from tenfold.core.versions import check_name
    from tenfold.runner.weights import load, system_of
    from tenfold.systems import refusal, system_class

    if not folder.exists():
        raise FileNotFoundError(f"{folder} does not exist; give a folder of photos")
    if not folder.is_dir():
        raise ValueError(f"{folder} is a file; give the folder of the photos")
    if name:
        check_name(name)
    run = versions.run
    with versions.locked():  # from reading to writing: what is learned must be of this version
        began = time.monotonic()
        before = versions.current()
        _ = versions.weights  # those that are opened now
        name_of = system_of(run)
        system = load(system_class(name_of), run)
        if not isinstance(system, Learns):
            raise refusal(name_of, "learn")
        opened = time.monotonic()
        learned = system.learn(folder, name, head)
        if learned.loss > max_loss:
            raise ValueError(
                f"{folder} was not learned: the classes known before would lose an estimated "
                f"{learned.loss:.1f} points, more than --max-loss {max_loss:g}. "
                + " ".join(learned.notes)
            )
        number = versions.add(system.learned_state(), learned)
    ended = time.monotonic()
    say(
        f"{run} is at version {number}, was at version {before}; learned in "
        f"{ended - opened:.2f} s, after {opened - began:.2f} s to open the run"
    )
    _show_learned(learned)
    beside = versions.file(number).with_suffix("")
    for file, content in learned.pictures.items():
        assert Path(file).name == file
        checkpoint.write_bytes(beside / file, content)
        say(beside / file)
    checkpoint.write_json(beside / "learned.json", _facts(number, learned))
    say(beside / "learned.json")
    say(f"undo: tenfold learn {shlex.quote(str(run))} --undo")


def _facts(number: int, learned: Learned) -> dict[str, Any]:
    return {
        "version": number,
        "classes": dict(zip(learned.names, learned.photos, strict=True)),
        "known": list(learned.classes),
        "bytes": {"before": learned.memory_before, "after": learned.memory_after},
        "notes": list(learned.notes),
        **learned.facts,
    }


def _show_learned(learned: Learned) -> None:
    table = table_of("learned", "class", "photos")
    for one, photos in zip(learned.names, learned.photos, strict=True):
        add_row(table, one, str(photos))
    show(table)
    say(
        f"kept of all {len(learned.classes)} classes: {learned.memory_after:,} bytes, "
        f"before: {learned.memory_before:,}"
    )
    for line in learned.lines:
        say(line)
    for note in learned.notes:
        say(f"* {note}")


def _show_history(versions: Versions) -> None:
    table = table_of(
        str(versions.run), "version", "", "learned upon", "when", "classes learned",
        "photos", "classes known",
    )  # fmt: skip
    for row in versions.history():
        mark = "current" if row.current else ""
        if row.version is None:
            what = f"damaged: {row.problem}" if row.problem else "as it was trained"
            add_row(table, str(row.number), mark, "", "", what, "", "")
            continue
        version = row.version
        add_row(
            table,
            str(row.number),
            mark,
            str(version.parent),
            version.when,
            ", ".join(version.names),
            ", ".join(str(n) for n in version.photos),
            str(len(version.classes)),
        )
    show(table)
