"""Commands in the documents: each is parsed by the verb that it names, which then does nothing."""

from __future__ import annotations

import functools
import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tenfold import cli
from tenfold.cli import app, arguments
from tenfold.core.errors import UsageError
from tenfold.runner import weights
from tenfold.systems import SYSTEMS

ROOT = Path(__file__).resolve().parent.parent
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *ROOT.glob("docs/*.md"),
    *ROOT.glob("docs/guides/*.md"),
    *ROOT.glob("src/tenfold/systems/*/README.md"),
]
BLOCK = re.compile(r"^```\w*\n(.*?)^```", re.MULTILINE | re.DOTALL)
START = re.compile(r"(?:^|[\s/])tenfold ([a-z].*)")
OPEN = re.compile(r"\.\.\.|\[|--help")
"""Marks of a command that is no whole one."""
SKIPPED = re.compile(r"\bSYSTEM\b|^\w+( \w+)? \.\.\.|--config|^check")
"""Marks of a command whose options depend on what it leaves open, or on a file."""


def commands(text: str) -> Iterator[str]:
    """What follows `tenfold` in lines of a script, without comments."""
    for line in text.replace("\\\n", " ").splitlines():
        for part in re.split(r" && |; | > |\)", re.split(r"\s#", line)[0]):
            if found := START.search(part):
                yield found[1]


def documented() -> Iterator[tuple[Path, str, bool]]:
    """Page, command, and whether it stands there to be typed; else it may be a part of one."""
    for page in PAGES:
        text = page.read_text()
        for block in BLOCK.findall(text):
            yield from ((page, found, not OPEN.search(found)) for found in commands(block))
        for code in re.findall(r"`([^`\n]+)`", BLOCK.sub("", text)):
            whole = page.name == "choose.md"
            yield from ((page, found, whole and not OPEN.search(found)) for found in commands(code))


def modules() -> list[ModuleType]:
    """Files of the command line that parse."""
    return [one for one in vars(cli).values() if getattr(one, "parse", None) is arguments.parse]


def test_commands_of_the_documents_are_understood(monkeypatch: pytest.MonkeyPatch) -> None:
    real, whole = arguments.parse, True

    def parse(function: Callable[..., Any], rest: list[str], prog: str, flags: list[str]) -> None:
        if whole:
            real(functools.wraps(function)(lambda *args, **options: None), rest, prog, flags)
        for word in rest:
            option = word.split("=")[0]
            known = {"--help", *flags}
            if option.startswith("--") and not {option, re.sub(r"\bno-", "", option)} & known:
                raise UsageError(f"no option {option}")

    for module in modules():
        monkeypatch.setattr(module, "parse", parse)
    seen, wrong = set[str](), []
    for page, command, whole in documented():  # noqa: B007 - `parse` looks at it
        words = shlex.split(command)
        named = f"{' '.join(words[1:2])} {page.stem} {page.parent.name}"
        runs = [name for name in SYSTEMS if name in named] or list(SYSTEMS)
        key = f"{command} {runs} {whole}"
        if key in seen or SKIPPED.search(command) or not (whole or "--" in command):
            continue
        seen.add(key)
        said = []
        for run in runs:  # what a run is of, no text says: one that takes the command is enough
            monkeypatch.setattr(weights, "system_of", lambda _, run=run: run)
            try:
                app.VERBS[words[0]](words[1:])  # KeyError: there is no such verb
            except Exception as error:
                said.append(repr(error))
            else:
                break
        else:
            wrong.append(f"{page.relative_to(ROOT)}: tenfold {command}: {said[0]}")
    assert len(seen) > 100
    assert not wrong, "\n".join(wrong)
