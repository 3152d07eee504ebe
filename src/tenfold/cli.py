"""The command line: the only file that reads argv; a verb imports one system, when asked."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable

from . import verbs, verbs_data, verbs_learn, verbs_plan
from .core.errors import BUG, exit_code
from .core.names import nearest

VERBS: dict[str, Callable[[list[str]], None]] = {
    "list": verbs.list_systems,
    "info": verbs.info,
    "train": verbs.train,
    "evaluate": verbs.evaluate,
    "predict": verbs.predict,
    "learn": verbs_learn.learn,
    "export": verbs.export,
    "convert": verbs.convert,
    "claim": verbs.claim,
    "report": verbs.report,
    "doctor": verbs.doctor,
    "demo": verbs.demo,
    "data": verbs_data.data,
    "plan": verbs_plan.plan,
}


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
        code = exit_code(error)
        if _told(error):
            sys.exit(code)
        if code == BUG or os.environ.get("TENFOLD_TRACEBACK"):
            traceback.print_exc()
        if code != BUG:
            print(f"tenfold: {error}", file=sys.stderr)
        sys.exit(code)


def _told(error: Exception) -> bool:
    """Whether another process of this job speaks of the error; a lone process always does."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return False
    from .core import watch

    return watch.told(error)
