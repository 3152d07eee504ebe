"""APIS: masks against answers and against seconds, round by round.

    python claims/apis_curves.py [--data clothing_parsing | car_parts] [--runs DIR] [--threads 1]

Trains the rows of `tenfold claim apis` (finished runs are taken), on the set of the claim or on
another, and writes the claim's table, the curves of every row that asks, and how many answers each
needs to reach what random pixels reach with all of theirs.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from tenfold.core.claim import Claim
from tenfold.files import write_bytes, write_text
from tenfold.metrics.curves import cost_of
from tenfold.report.markdown import md_table, spread
from tenfold.runner.claim import measure
from tenfold.systems.apis import Apis, Config, claims
from tenfold.systems.apis.config import SetName
from tenfold.viz import plots

HERE = Path(__file__).parent
SETS: tuple[SetName, ...] = ("clothing_parsing", "car_parts")
COLUMNS = {"given": ("IoU", "mean IoU in true boxes"), "masks": ("AP", "mask AP")}
"""Group of metrics -> column, title."""
Result = Mapping[str, Any]
Curves = dict[str, Float[np.ndarray, "seed stage"]]
"""Row -> values of its stages."""


def claims_on(name: SetName) -> list[Claim[Config]]:
    """The claim's rows on a set."""
    return claims.claims(claims.base(name))


def curves_of(results: Mapping[str, Sequence[Result]], group: str) -> tuple[list[float], Curves]:
    """Answers an object after each stage, and values of the rows that ask, a line a seed."""
    column = COLUMNS[group][0]
    found: Curves = {}
    for name, stages in _asking(results).items():
        values = [
            [one["metrics"][f"{group}/{s}/{column}"] for s in stages] for one in results[name]
        ]
        found[name] = np.array(values)
    return _costs(results, "answers", "per object"), found


def _asking(results: Mapping[str, Sequence[Result]]) -> dict[str, list[str]]:
    """Stages of the rows that ask."""
    found = {}
    for name, some in results.items():
        metrics = some[0]["metrics"]
        keys = [key.split("/")[1] for key in metrics if key.startswith("answers/")]
        stages = [stage for stage in dict.fromkeys(keys) if stage != "final"]
        asked = [metrics[f"answers/{stage}/per object"] for stage in (stages[0], stages[-1])]
        if len(stages) > 1 and asked[1] > asked[0]:
            found[name] = stages
    return found


def _costs(results: Mapping[str, Sequence[Result]], group: str, column: str) -> list[float]:
    """What the stages of a row that asks have cost, the same for all of them."""
    name, stages = list(_asking(results).items())[-1]
    return [results[name][0]["metrics"][f"{group}/{stage}/{column}"] for stage in stages]


def hours_of(results: Mapping[str, Sequence[Result]]) -> list[float]:
    """Hours of people for boxes and answers until each stage, by the stated seconds."""
    return [seconds / 3600 for seconds in _costs(results, "seconds", "total")]


def needed(answers: Sequence[float], curves: Curves, against: str) -> dict[str, float | None]:
    """Answers an object with which a row's mean reaches the last mean of another; None if never."""
    target = float(curves[against].mean(0)[-1])
    x = np.array(answers, dtype=np.float64)
    return {name: cost_of(target, x, values.mean(0)) for name, values in curves.items()}


def page(results: Mapping[str, Sequence[Result]], data: str) -> list[str]:
    """Markdown lines: each row's stages, and the answers that it needs."""
    lines = [f"# APIS: curves on {data}", ""]
    for group, (column, title) in COLUMNS.items():
        answers, curves = curves_of(results, group)
        reach = needed(answers, curves, "random")
        head = ["row", *(f"{n:.3g}" for n in answers), "answers to reach random's last"]
        hours = [f"{value:.1f}" for value in hours_of(results)]
        rows = [["hours of people (stated)", *hours, ""]]
        for name, values in curves.items():
            deviation = values.std(0, ddof=1) if len(values) > 1 else np.zeros(len(answers))
            cells = [spread(m, d, 1) for m, d in zip(values.mean(0), deviation, strict=True)]
            count = reach[name]
            rows.append([name, *cells, "not reached" if count is None else f"{count:.2f}"])
        lines += [f"## {title} (%) by answers an object", "", *md_table(head, rows), ""]
        for name, some in results.items():
            if name not in curves:
                values = [one["metrics"][f"{group}/final/{column}"] for one in some]
                cost = some[0]["metrics"]["seconds/final/total"] / 3600
                lines.append(f"- {name}: {np.mean(values):.1f} ({cost:.1f} hours)")
        lines.append("")
    costs = next(iter(results.values()))[0]["metrics"]
    lines.append(
        f"Means of {len(next(iter(results.values())))} seeds. Seconds are stated: 7 a box, 0.9 an "
        f"answer, so that {costs['answers/final/all']:.0f} answers of a row and its boxes are "
        f"{costs['seconds/final/total'] / 3600:.1f} hours; 79.2 a mask."
    )
    return lines


def draw(results: Mapping[str, Sequence[Result]], group: str, in_hours: bool = False) -> bytes:
    """Curves of the rows that ask, with a deviation of the seeds as a band."""
    answers, curves = curves_of(results, group)
    x, label = (answers, "answers an object")
    if in_hours:
        x, label = hours_of(results), "hours of people for boxes and answers (stated)"
    lines = {name: (x, values) for name, values in curves.items()}
    title = COLUMNS[group][1]
    return plots.lines_with_spread(lines, xlabel=label, ylabel=f"{title} (%)", size=(6.4, 4.0))


def main() -> None:
    """Train what is missing, and write tables and curves beside this file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", choices=SETS, default=SETS[0])
    parser.add_argument("--runs", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    is_own = args.data == SETS[0]
    title = "apis" if is_own else f"apis-{args.data.replace('_', '-')}"
    runs = args.runs or Path("runs/claims") / title
    loop = {"threads": args.threads, "device": "cpu"}
    command = "python claims/apis_curves.py" + ("" if is_own else f" --data {args.data}")
    table = measure(title, "apis", Apis, claims_on(args.data), runs, HERE, loop, command)
    results = {
        name: [
            json.loads((runs / f"{name.replace(' ', '-')}-seed{seed}/result.json").read_text())
            for seed in one["seeds"]
        ]
        for name, one in table["methods"].items()
        if one["parameters"]
    }
    stem = "apis-curves" if is_own else f"{title}-curves"
    write_text(HERE / f"{stem}.md", "\n".join(page(results, args.data)) + "\n")
    for group in COLUMNS:
        write_bytes(HERE / f"{stem}-{group}.png", draw(results, group))
        write_bytes(HERE / f"{stem}-{group}-hours.png", draw(results, group, in_hours=True))


if __name__ == "__main__":
    main()
