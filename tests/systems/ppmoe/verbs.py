"""Run by torchrun: several commands of tenfold in one start.

python verbs.py COMMANDS.json          a list of [words of the command, file for what it prints]
"""

from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path

from tenfold import cli
from tenfold.core import dist


def main() -> None:
    with dist.started("cpu") as world:
        for words, printed in json.loads(Path(sys.argv[1]).read_text()):
            with open(f"{printed}.{world.rank}", "w") as file, contextlib.redirect_stdout(file):
                cli.main(words)


if __name__ == "__main__":
    main()
