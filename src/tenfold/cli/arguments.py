"""Parts that the verbs share: typed arguments by tyro, one-line errors, tables."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Any, get_type_hints

from tenfold.core.errors import nearest

if TYPE_CHECKING:
    from rich.table import Table


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


def table_of(title: str, *columns: str) -> Table:
    """An empty table whose cells wrap."""
    from rich.table import Table

    table = Table(title=title, title_justify="left", show_edge=False, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def show(thing: Any) -> None:
    """Print to the terminal; elsewhere as wide as $COLUMNS, or 140."""
    from rich.console import Console

    console = Console()
    if not console.is_terminal:
        console = Console(width=int(os.environ.get("COLUMNS", "140")))
    console.print(thing)


def positional(name: str) -> Any:
    """Mark an argument as positional, shown as `name`; tyro is not imported before it is needed."""
    import tyro

    return tyro.conf.arg(metavar=name, prefix_name=False), tyro.conf.Positional
