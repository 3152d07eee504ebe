"""Parts of APIS against the straightforward computation.

python benchmarks/apis.py                # writes benchmarks/results/apis.KIND.json and .md

One process, one thread, for each part; what is compared stands at the top of its file. `--only`
measures some parts anew and keeps the others' committed results of this kind of CPU.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parent))
import apis_masks  # noqa: E402
import apis_steps  # noqa: E402
import rates  # noqa: E402
from rates import RESULTS, machine  # noqa: E402

PARTS = {"masks": apis_masks, "steps": apis_steps}
"""Name -> module with `measure(rounds)` and `page(found)`."""


def page(result: dict[str, Any]) -> str:
    lines = ["# APIS: ours against the straightforward computation", ""]
    for name, part in result.items():
        lines += [
            rates.setting(part),
            "",
            *PARTS[name].page(part["found"]),
        ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--part", choices=PARTS, help="measure one and print it (used within)")
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.part:
        print(json.dumps(PARTS[args.part].measure(args.rounds)))
        return
    file = rates.result_file("apis", args.out)
    kept: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    for name in args.only:
        before = machine()  # its load is that before the run
        command = [sys.executable, __file__, "--rounds", str(args.rounds), "--part", name]
        done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
        kept[name] = {
            "found": json.loads(done.stdout.splitlines()[-1]),
            **before,
            "command": f"python benchmarks/apis.py --rounds {args.rounds} --only {name}",
        }
    result = {name: kept[name] for name in PARTS if name in kept}
    rates.write("apis", result, page(result), args.out)


if __name__ == "__main__":
    main()
