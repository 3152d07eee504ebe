"""Parts that the verbs share: typed arguments by tyro, one-line errors, tables."""

from __future__ import annotations

import contextlib
import functools
import io
import os
import re
import sys
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, get_type_hints

from tenfold.core.errors import UsageError, nearest
from tenfold.printable import printable

if TYPE_CHECKING:
    from rich.table import Table

LIST_FLAGS = "--list-flags"
"""Word that has a verb print the options that it takes, for completion."""
COMPLETION = ("--tyro-print-completion", "--tyro-write-completion")
"""Options of tyro itself."""
PLAIN = {
    r"^Error parsing (config|options|run)\b[\w.]*: ": "",  # the message itself names the option
    r"^Error parsing ": "",
    r"invalid literal for int\(\) with base 10: (.*)": r"\1 is no whole number",
    r"could not convert string to float: (.*)": r"\1 is no number",
}
"""Words of tyro and Python -> words of ours."""


def flags_of(cls: Any, prefix: str = "--") -> list[str]:
    """Every flag that a configuration class gives rise to."""
    found: list[str] = []
    hints = get_type_hints(cls)
    for f in fields(cls):
        name = prefix + f.name.replace("_", "-")
        kind = hints[f.name]
        found += flags_of(kind, name + ".") if is_dataclass(kind) else [name]
    return found


def parse(function: Callable[..., Any], rest: list[str], prog: str, flags: list[str]) -> Any:
    """Let tyro parse; an unknown flag is a one-line error with the nearest name."""
    if LIST_FLAGS in rest:
        say("\n".join(flags))
        return None
    import tyro

    for word in rest:
        flag = word.split("=", 1)[0].replace("_", "-")
        if word.startswith("--") and flag not in [*flags, "--help", *COMPLETION]:
            if flag.startswith("--no-") and "--" + flag[5:] in flags:
                continue
            parent, _, leaf = flag.rpartition(".")
            negated = f"{parent}.{leaf.removeprefix('no-')}"
            if negated not in flags:
                nearest(flag, flags, "option")
    if "--help" in rest or "-h" in rest:  # alone: the usage line lacks what is given before it
        return tyro.cli(function, args=["--help"], prog=prog)

    @functools.wraps(function)
    def given(*args: Any, **options: Any) -> Callable[[], Any]:
        return functools.partial(function, *args, **options)

    said, columns = io.StringIO(), os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = "10000"  # tyro frames what it says; one line of it is wanted
    try:
        with contextlib.redirect_stderr(said):
            call = tyro.cli(given, args=rest, prog=prog)
    except SystemExit as end:
        if not end.code:
            raise
        raise UsageError(_unframed(said.getvalue())) from None
    finally:
        if columns is None:
            del os.environ["COLUMNS"]
        else:
            os.environ["COLUMNS"] = columns
    return call()


def _unframed(box: str) -> str:
    """What stands in a frame of tyro, in one line, without its advice to ask for help."""
    said: list[str] = []
    for line in box.strip().splitlines()[1:]:  # the first is a title
        row = line.strip(" \u2502|")
        if row.strip("\u2500-\u256d\u256e\u2570\u256f "):  # no rule of the frame
            said.append(row)
        elif said:
            break
    text = " ".join(" ".join(said).split()) or box.strip()
    for pattern, plain in PLAIN.items():
        text = re.sub(pattern, plain, text)
    return text


def say(text: object = "", file: TextIO | None = None) -> None:
    """Print a text of one or more lines; control characters in it never reach the terminal."""
    stream = file or sys.stdout
    encoding = getattr(stream, "encoding", None) or "utf-8"
    shown = printable(str(text), "\n").encode(encoding, "replace").decode(encoding)
    print(shown, file=stream, flush=file is not None)


def table_of(title: str, *columns: str) -> Table:
    """An empty table whose cells wrap; `add_row` of `arguments` fills it."""
    from rich.table import Table
    from rich.text import Text

    shown = Text(printable(title), style="table.title")
    table = Table(title=shown, title_justify="left", show_edge=False, pad_edge=False)
    for column in columns:
        table.add_column(Text(printable(column)), overflow="fold")
    return table


def add_row(table: Table, *cells: str) -> None:
    """Add plain text: brackets are no markup, control characters are replaced."""
    from rich.text import Text

    table.add_row(*[Text(printable(cell, "\n")) for cell in cells])


def show(thing: Any) -> None:
    """Print to the terminal; elsewhere as wide as $COLUMNS, or 140.

    What the encoding of the output has not becomes a question mark, as `say` has it.
    """
    from rich.console import Console

    console = Console()
    if not console.is_terminal:
        console = Console(width=int(os.environ.get("COLUMNS", "140")))
    with console.capture() as captured:
        console.print(thing)
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    print(captured.get().encode(encoding, "replace").decode(encoding), end="")


def path_or(default: Path, given: str) -> Path:
    """The path that was given (also "."), or the default where none was."""
    return Path(given) if given else default


def positional(name: str) -> Any:
    """Mark an argument as positional, shown as `name`; tyro is not imported before it is needed."""
    import tyro

    return tyro.conf.arg(metavar=name, prefix_name=False), tyro.conf.Positional
