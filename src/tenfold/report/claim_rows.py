"""Rows of a committed claim, as README, the systems' pages and the page of evidence show them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from .claim import MOST_SEEDS, seeds_to_decide
from .markdown import md
from .results import is_number

GROUPS = {
    "mpjpe": "joint error",
    "rmse": "RMSE",
    "bits": "",  # its only column says "bits per byte"
    "final": "final accuracy",
    "overlap": "",  # "mean IoU"
    "iou": "IoU",
    "ap": "AP",
}
"""Words for groups of metrics that do not speak for themselves."""
FIELD = re.compile(r"[a-z]+\d+m?")
"""Names of weather fields: z500, t2m."""
FIELD_UNITS = {"z": "m²/s²", "q": "kg/kg", "t": "K", "u": "m/s", "v": "m/s", "msl": "Pa"}
"""Units of weather fields by their names without level or height."""
ARROWS = (
    "Means over seeds; ↓: lower is better, ↑: higher is better. Not shown (n): n seeds would "
    "decide it with a power of 80 %, were difference and spread those seen."
)
NO_BREAK = "\u00a0"
VERDICTS = ("shown", "not shown", "contradicted")


def setting(found: Mapping[str, Any]) -> str:
    """Data, budget and seeds of a claim's runs, in few words."""
    data, budget = found["data"], found["budget"].split(",")[0].removesuffix(" each")
    # "steps of each (A: 940, B: 880 after the 940 of A), same ..."
    if budget.startswith("steps of each"):
        each = re.findall(r": (\d+)( after the|[,)])", found["budget"])
        steps = sorted(int(number) for number, _ in each)
        budget = f"{steps[0]} to {steps[-1]} steps"
        if any("after" in then for _, then in each):
            budget += ", most after those of a run that they share"
    seeds = found["claims"][0]["verdict"]["seeds"]
    return f"Data: {data['name']} (**{data['kind']}**). Each run: {budget}; {seeds} seeds."


def claims_table(found: Mapping[str, Any], sentences: bool) -> list[str]:
    """A row a claim: the metric, the method, the baseline, their difference, the verdict.

    `sentences` puts the claim itself first; without it the table is narrow.
    """
    head = f"metric | method | baseline | difference [95{NO_BREAK}%] | verdict |"
    marks = "---|--:|--:|--:|---|"
    lines = [f"| claim | {head}", f"|---|{marks}"] if sentences else [f"| {head}", f"|{marks}"]
    for claim in found["claims"]:
        title = metric_title(claim["metric"], found)
        if not sentences:  # no remarks, and no number parted from its unit
            title = re.sub(r"(\d) (ms|h)\b", rf"\1{NO_BREAK}\2", re.sub(r" \(.*?\)", "", title))
        cells = claim_cells(claim, title)
        cells = [md(claim["says"]), *cells] if sentences else cells
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def claim_cells(claim: Mapping[str, Any], title: str) -> list[str]:
    """Metric, both sides, difference and verdict; all numbers with as many decimals."""
    verdict, sides = claim["verdict"], ("method", "baseline")
    spread = min(verdict[f"{side}_std"] or 0.0 for side in sides)
    decimals = 1 if spread >= 1 else 2 if spread >= 0.1 else 3
    ends = [number(end, decimals) for end in verdict["interval"] or ()]
    # "(official head)" of both sides is said once, beside the metric
    endings = {claim[side][claim[side].find(" (") :] for side in sides if " (" in claim[side]}
    shared = endings.pop() if len(endings) == 1 and all(" (" in claim[s] for s in sides) else ""
    arrow = "↓" if claim["better"] == "lower" else "↑"
    name = outcome(claim) if verdict["name"] == "not shown" else f"**{verdict['name']}**"
    return [
        f"{title}{NO_BREAK}{arrow}{shared}",
        *(f"{claim[s].removesuffix(shared)} {number(verdict[s], decimals)}" for s in sides),
        number(verdict["difference"], decimals) + (f" [{', '.join(ends)}]" if ends else ""),
        name,
    ]


def outcome(claim: Mapping[str, Any]) -> str:
    """The verdict; one that is open says how many seeds would decide it."""
    verdict = claim["verdict"]
    if verdict["name"] != "not shown" or not verdict["interval"]:
        return str(verdict["name"])
    effect = float(claim.get("min_effect") or 0.0)
    needed = seeds_to_decide(verdict, effect, claim["better"])
    return f"{verdict['name']} ({needed or f'over {MOST_SEEDS}'})"


def number(value: float | None, decimals: int) -> str:
    """A number with a minus sign instead of a hyphen; a dash for what was not finite."""
    return f"{value:.{decimals}f}".replace("-", "−") if is_number(value) else "–"


def metric_title(key: str, found: Mapping[str, Any]) -> str:
    """The words for a key: "rmse/z500/24h" is "RMSE, Z500, 24 h [m²/s²]".

    Titles of columns and units are the system's own, as committed with its results.
    """
    group, *rest = key.split("/")
    row, column = "/".join(rest[:-1]), rest[-1] if rest else ""
    row = "" if row in ("mean", "average") else row
    column = found.get("labels", {}).get(column, column)
    parts = [GROUPS.get(group, group), row.upper() if FIELD.fullmatch(row) else row, column]
    title = ", ".join(part.replace("_", " ") for part in parts if part)
    title = re.sub(r"(\d)(ms|h)\b", r"\1 \2", title)
    unit = found.get("units", {}).get(group, "")
    if unit.startswith("SI"):
        unit = FIELD_UNITS.get(row.rstrip("0123456789m"), "")
    says_unit = not unit or unit == "1" or unit.split()[0] in title
    return title if says_unit else f"{title} [{unit}]"


def verdict_counts(claims: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """How many claims ended with which verdict; without those that none did."""
    names = [claim["verdict"]["name"] for claim in claims]
    return {name: names.count(name) for name in VERDICTS if name in names}
