"""Tables of speed, from what benchmarks have committed: a file a system and kind of CPU."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parent.parent / "benchmarks" / "results"
SHARE = "share at the rate of a square product"
HEAD = ("| what | against | times as fast | unavoidable |", "|---|---|--:|--:|")
OF = "'s"
WORTH = 1.05
"""Times as fast from which compilation is said to pay."""


def kinds(name: str) -> dict[str, dict[str, Any]]:
    """What was measured of a system, by the kind of CPU, in the order of their names."""
    files = sorted(RESULTS.glob(f"{name}.*.json"))
    return {file.name.split(".")[1]: json.loads(file.read_text()) for file in files}


def timings(speed: dict[str, Any]) -> list[dict[str, Any]]:
    """What was timed, of a file or of the parts of one; a part has one other side."""
    if "timings" in speed:
        return list(speed["timings"])
    found = [one for part in speed.values() for one in part["found"] if "ratio" in one]
    return [
        one | {"ratio": {side: one["ratio"]}}
        for one in found
        for side in one["seconds"]
        if side != "ours"
    ]


def rows(measured: list[dict[str, Any]]) -> list[str]:
    """Rows of what was timed, against which side, how many times as fast, what is unavoidable.

    Of several results the lowest and the highest. What was timed, and what no side can do without,
    are said once.
    """
    ratios: dict[str, dict[str, list[float]]] = {}
    shares: dict[str, list[float]] = {}
    for speed in measured:
        for timing in timings(speed):
            sides = ratios.setdefault(timing["what"], {})
            for side, (_, median, _) in timing["ratio"].items():
                sides.setdefault(side, []).append(median)
            shares.setdefault(timing["what"], []).extend(share(timing))
    lines = []
    for what, sides in ratios.items():
        first, bound = what, span(shares.get(what, []), ".0%")
        for side, found in sides.items():
            lines.append(f"{first} | {side.removesuffix(OF)} | {span(found, '.2f')} | {bound} |")
            first = bound = ""
    return lines


def share(timing: dict[str, Any]) -> list[float]:
    """What no side can do without, of our time; none where it was not measured."""
    if SHARE in timing:
        return [timing[SHARE]]
    if not timing.get("achievable"):
        return []
    return [min(timing["flop"].values()) / timing["achievable"] / timing["seconds"]["ours"][1]]


def span(values: list[float], form: str) -> str:
    """The lowest and the highest of some values: "1.43–1.76"; one, or none, as it is."""
    ends = [f"{end(values):{form}}" for end in (min, max)] if values else [""]
    return "–".join(dict.fromkeys(ends))


def section(name: str) -> list[str]:
    """Speed on the page of a system."""
    found = kinds(name)
    if not found:
        return []
    links = [f"[{kind}](../../benchmarks/results/{name}.{kind}.md)" for kind in found]
    same = next(iter(found.values())).get("compares", "in one process with equal outputs")
    lines = ["### Speed", "", f"{same[0].upper()}{same[1:]}. Kind of CPU: {', '.join(links)}."]
    return [*lines, "", *HEAD, *(f"| {row}" for row in rows([*found.values()])), ""]


def table(names: list[str]) -> list[str]:
    """README's table: every system, with how many kinds of CPU its results are of."""
    lines = [f"| system {HEAD[0]}", f"|---{HEAD[1]}"]
    for name in names:
        found = kinds(name)
        count = f"{len(found)} kind{'s' if len(found) > 1 else ''}"
        first = f"[{name}](docs/systems/{name}.md#speed), {count}"
        for row in rows([*found.values()]):
            lines.append(f"| {first} | {row}")
            first = ""
    return lines


def compiled() -> list[str]:
    """README's sentences on `--loop.compile`: how many times as fast a step is for each system."""
    found = kinds("compile")
    ratios: dict[str, list[float]] = {}
    for one in found.values():
        for name, timed in one["systems"].items():
            ratios.setdefault(name, []).append(timed["ratio"][1])
    if not ratios:
        return []
    pays = [name for name, values in ratios.items() if min(values) >= WORTH]

    def listed(names: list[str]) -> str:
        return ", ".join(f"{name} ({span(ratios[name], '.2f')})" for name in names)

    links = ", ".join(f"[{kind}](benchmarks/results/compile.{kind}.md)" for kind in found)
    rest = listed([name for name in ratios if name not in pays])
    return [
        "",
        "`--loop.compile` is off by default. Steps of recipe demo against steps without it, on a "
        "CPU, once torch has",
        f"compiled (half a minute to three): faster for {listed(pays)};",
        f"no faster, or slower, for {rest}.",
        f"Compilation, and how far results are apart: {links}.",
    ]
