"""`tenfold completion`: a script that completes verbs, systems, recipes and options in a shell."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated, Literal

from tenfold.core.errors import UsageError
from tenfold.systems import SYSTEMS, system_class

from .arguments import LIST_FLAGS, flags_of, parse, positional, say

Verbs = Mapping[str, Callable[[list[str]], None]]
Table = Sequence[tuple[tuple[str, ...], list[str]]]
"""Words before -> words that can follow."""
SHELLS = ("bash", "zsh", "fish")
ACTIONS = ("info", "check", "prepare", "get", "tokenise")
"""Actions of `tenfold data`."""


def completion(rest: list[str], verbs: Verbs) -> None:
    """Print a script that completes commands in bash, zsh or fish."""

    def verb(shell: Annotated[Literal["bash", "zsh", "fish"], *positional("SHELL")]) -> None:
        """Print a script that completes verbs, systems, recipes and options.

        bash: `tenfold completion bash > ~/.local/share/bash-completion/completions/tenfold`.
        zsh: `eval "$(tenfold completion zsh)"` in ~/.zshrc, after compinit.
        fish: `tenfold completion fish > ~/.config/fish/completions/tenfold.fish`.
        The script holds all words, so that completing starts no Python.

        Args:
            shell: bash, zsh or fish.
        """
        table = list(words(verbs))
        say(_fish(table) if shell == "fish" else _bash(table, zsh=shell == "zsh"))

    if not rest:
        raise UsageError(f"which shell? `tenfold completion SHELL`; known: {', '.join(SHELLS)}")
    parse(verb, rest, "tenfold completion", [])


def words(verbs: Verbs) -> Iterator[tuple[tuple[str, ...], list[str]]]:
    """Words before -> what can follow; of the beginnings that fit, the longest counts."""
    yield (), list(verbs)
    names = list(SYSTEMS)
    for verb in verbs:
        if verb == "train":
            yield (verb,), names
            for name in names:
                recipes = list(system_class(name).recipes)
                yield (verb, name), recipes
                for recipe in recipes:
                    yield (verb, name, recipe), _flags(verbs, verb, name, recipe)
        elif verb == "data":
            yield (verb,), list(ACTIONS)
            for action in ACTIONS:
                yield (verb, action), _flags(verbs, verb, action)
        elif verb == "check":
            yield (verb,), ["layouts"]
            yield (verb, "layouts"), _flags(verbs, verb, "layouts")
        elif verb == "plan":
            yield (verb,), ["ppmoe"]
            yield (verb, "ppmoe"), _flags(verbs, verb, "ppmoe")
        elif verb == "predict":
            own = [system_class(name).options for name in names]
            more = [flag for one in own if one is not None for flag in flags_of(type(one))]
            yield (verb,), list(dict.fromkeys([*_flags(verbs, verb), *more]))
        elif verb == "completion":
            yield (verb,), list(SHELLS)
        else:
            follows = names if verb in ("info", "claim", "convert") else []
            yield (verb,), [*follows, *_flags(verbs, verb)]


def _flags(verbs: Verbs, *verb: str) -> list[str]:
    """The options of a verb, as it checks them."""
    with contextlib.redirect_stdout(io.StringIO()) as out:
        verbs[verb[0]]([*verb[1:], LIST_FLAGS])
    return [*out.getvalue().split(), "--help"]


def _bash(words: Table, zsh: bool) -> str:
    """One `case` on the words so far; files are offered where nothing else fits."""
    table = [(" ".join(before), " ".join(after)) for before, after in words]
    table.sort(key=lambda row: -len(row[0]))  # the longest beginning first
    begins = [(f"{before} " if before else "", after) for before, after in table]
    cases = [f'    "{before}"*) words="{after}" ;;' for before, after in begins]
    start = ["autoload -U +X bashcompinit && bashcompinit"] if zsh else []
    return "\n".join([
        "# Completion of tenfold; made by `tenfold completion`.", *start,
        "_tenfold() {",
        '  local current="${COMP_WORDS[COMP_CWORD]}" words=""',
        "  COMPREPLY=()",
        '  case "${COMP_WORDS[*]:1:COMP_CWORD-1} " in',
        *cases,
        "  esac",
        '  COMPREPLY=($(compgen -W "$words" -- "$current"))',
        '  if [ ${#COMPREPLY[@]} -eq 0 ]; then COMPREPLY=($(compgen -f -- "$current")); fi',
        "}",
        "complete -o filenames -F _tenfold tenfold",
    ])  # fmt: skip


def _fish(words: Table) -> str:
    """A condition on the words so far for each set of words."""
    lines = [
        "# Completion of tenfold; made by `tenfold completion`.",
        "function __tenfold_begins",
        "    set -l given (commandline -opc)[2..-1]",
        "    test (count $given) -ge (count $argv)",
        "    or return 1",
        "    test (count $argv) -eq 0; or test \"$given[1..(count $argv)]\" = \"$argv\"",
        "end",
        "function __tenfold_is",
        "    test (count (commandline -opc)) -eq (math (count $argv) + 1)",
        "    and __tenfold_begins $argv",
        "end",
    ]  # fmt: skip
    for before, after in words:
        plain = " ".join(word for word in after if not word.startswith("-"))
        options = " ".join(word for word in after if word.startswith("-"))
        place = " ".join(["", *before])
        if plain:
            lines.append(f"complete -c tenfold -f -n '__tenfold_is{place}' -a '{plain}'")
        if options:
            lines.append(f"complete -c tenfold -n '__tenfold_begins{place}' -a '{options}'")
    return "\n".join(lines)
