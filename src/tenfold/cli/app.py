"""The command line: the only file that reads argv; a verb imports one system, when asked."""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import stat
import sys
import traceback
import warnings
from collections.abc import Callable
from typing import Any

from tenfold.core.errors import (
    BUG,
    UsageError,
    exit_code,
    message,
    nearest,
    report_to_torchrun,
)
from tenfold.printable import shown

from . import (
    check,
    compare,
    completion,
    data,
    doctor,
    evaluate,
    exchange,
    explain,
    learn,
    overview,
    plan,
    predict,
    serve,
    train,
)
from .arguments import say


def _completion(rest: list[str]) -> None:
    """Print a script that completes commands in bash, zsh or fish."""
    completion.completion(rest, VERBS)


VERBS: dict[str, Callable[[list[str]], None]] = {
    "list": overview.list_systems,
    "info": overview.info,
    "train": train.train,
    "evaluate": evaluate.evaluate,
    "predict": predict.predict,
    "explain": explain.explain,
    "learn": learn.learn,
    "serve": serve.serve,
    "export": exchange.export,
    "convert": exchange.convert,
    "claim": compare.claim,
    "report": compare.report,
    "doctor": doctor.doctor,
    "demo": compare.demo,
    "data": data.data,
    "plan": plan.plan,
    "check": check.check,
    "completion": _completion,
}

ALONE = ("learn", "serve", "export", "convert", "claim", "report", "demo")
"""Verbs of one process: several would each do all of the work, and write the same files."""


def _help() -> str:
    lines = ["usage: tenfold VERB ...", "", "Ten published systems under one roof.", ""]
    lines += [f"  {name:10} {(verb.__doc__ or '').strip()}" for name, verb in VERBS.items()]
    lines += ["", "`tenfold VERB --help` teaches each; start with `tenfold list`, then",
              "`tenfold train spgsn demo`. Exit codes: 0 done, 1 problems found, 2 wrong input,",
              "3 training diverged, 75 a process hung, 76 a process was lost,",
              "143 stopped by SIGTERM with a checkpoint written."]  # fmt: skip
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> None:
    """Run the command line; a user's mistake is one line on stderr and exit code 2."""
    words = [_at_home(word) for word in (sys.argv[1:] if argv is None else argv)]
    if not _is_width(os.environ.get("COLUMNS", "80")):
        del os.environ["COLUMNS"]  # of scripts and containers without a terminal
    if not words or words[0] in ("-h", "--help", "help"):
        say(_help())
        return
    if words[0] in ("-V", "--version"):
        from tenfold import __version__

        say(__version__)
        return
    try:
        if words[0] not in VERBS:
            nearest(words[0], list(VERBS), "verb")
        if words[0] in ALONE and _processes() > 1:
            raise UsageError(f"`tenfold {words[0]}` is of one process; start it without torchrun")
        _refuse_pipes()
        with warnings.catch_warnings():
            warnings.showwarning = _once()
            VERBS[words[0]](words[1:])
        sys.stdout.flush()  # a full disk behind it is an error like any other
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        sys.exit(0)
    except Exception as error:
        code = exit_code(error)
        text = f"tenfold: {message(error)}"
        report_to_torchrun(text)
        if _told(error):
            sys.exit(code)
        if code == BUG or os.environ.get("TENFOLD_TRACEBACK"):
            say(traceback.format_exc().rstrip(), file=sys.stderr)
        if code != BUG:
            say(text, file=sys.stderr)
        sys.exit(code)


def _at_home(word: str) -> str:
    """The word of a command with a leading ~ (of its value, too) made the home folder."""
    option, equals, value = word.partition("=")
    if equals and option.startswith("--") and value.startswith("~"):
        return f"{option}={os.path.expanduser(value)}"
    return os.path.expanduser(word) if word.startswith("~") else word


@functools.cache
def _refuse_pipes() -> None:
    """Make opening a named pipe an error: a reader would wait for ever for what nobody writes.

    One lies in a folder of photos or a run folder as any file does, and no reader looks first.
    """

    def look(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and isinstance(arguments[0], (str, bytes)) and arguments[0]:
            path, mode = os.fsdecode(arguments[0]), 0
            with contextlib.suppress(OSError, ValueError):
                mode = os.stat(path).st_mode
            if stat.S_ISFIFO(mode) and not path.startswith(("/dev/", "/proc/")):
                raise OSError(errno.EINVAL, "is a pipe, not a file; leave it out", path)

    sys.addaudithook(look)


def _is_width(columns: str) -> bool:
    return columns.isascii() and columns.isdigit() and int(columns) > 0


def _once() -> Callable[..., None]:
    """A function that shows a warning as one line; the same is shown once in a command.

    Python itself compares where in the source a warning comes from, which is of no use to a user.
    """
    said: set[str] = set()

    def show(message: Warning | str, *where: Any, **more: Any) -> None:
        text = shown(message) if isinstance(message, Warning) else message
        if text not in said:
            said.add(text)
            say(f"tenfold: warning: {text}", file=sys.stderr)

    return show


def _processes() -> int:
    """Number of processes that torchrun has started for this job."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def _told(error: Exception) -> bool:
    """Return True if another process of this job speaks of the error; never for a lone process."""
    if _processes() == 1:
        return False
    from tenfold.core import watchdog

    return watchdog.told(error)
