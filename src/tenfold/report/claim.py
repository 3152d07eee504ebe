"""The statistics of a claim, and the two files that keep its outcome, whichever way it fell."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean, median, stdev
from typing import Any, Literal

import numpy as np

from tenfold.viz.page import write_whole

from .claim_tables import metric_tables, overview
from .markdown import md, md_table, signed, spread
from .results import decimals, duration, is_number, numbers

MOST_SEEDS, POWER = 100, 0.8


@dataclass(frozen=True)
class Verdict:
    """Verdict of the seeds on a claim; `difference` is method minus baseline, paired by seed."""

    name: Literal["shown", "not shown", "contradicted"]
    seeds: int
    baseline: float
    baseline_std: float | None
    method: float
    method_std: float | None
    difference: float
    difference_std: float | None
    interval: tuple[float, float] | None
    """95 % confidence interval of the paired difference (Student's t)."""
    p: float | None
    """Two-sided p of the paired t-test against a difference of zero."""
    reason: str


def verdict(
    baseline: Sequence[int | float],
    method: Sequence[int | float],
    better: Literal["lower", "higher"],
    min_effect: int | float = 0.0,
) -> Verdict:
    """Judge a claim from one value a seed; position i of both lists is the same seed.

    Shown: the whole 95 % interval of the paired difference lies on the claimed side, beyond
    `min_effect`. Contradicted: the whole interval lies on the other side of zero. Otherwise,
    with fewer than two seeds, with a value that is not finite, and if all seeds gave the same
    values (then they are copies of one run): not shown.
    """
    if len(baseline) != len(method):
        raise ValueError(
            f"a claim pairs the seeds: {len(baseline)} baseline values, {len(method)} of the method"
        )
    if better not in ("lower", "higher"):
        raise ValueError(f'better is "lower" or "higher", got {better!r}')
    if min_effect < 0:
        raise ValueError(f"min_effect is a size, at least 0, got {min_effect}")
    pairs = [(float(a), float(b)) for a, b in zip(baseline, method, strict=True)]
    finite = [(a, b) for a, b in pairs if math.isfinite(a) and math.isfinite(b)]
    change = [b - a for a, b in finite]
    enough = len(finite) > 1
    spread = stdev(change) if enough else None
    interval, p = _interval(change) if enough else (None, None)
    if len(finite) < len(pairs):
        name, reason = "not shown", f"{len(pairs) - len(finite)} of {len(pairs)} seeds not finite"
    elif interval is None:
        count = "no seeds" if not pairs else "1 seed"
        name, reason = "not shown", f"{count}: at least 2 are needed for an interval"
    else:
        name, reason = _judge(interval, better, min_effect)
    if interval is not None and len(set(pairs)) == 1:  # copies of one run, whatever their number
        name, reason = "not shown", "every seed gave the same values, so the seeds test nothing"
    return Verdict(
        name=name,  # type: ignore[arg-type]
        seeds=len(pairs),
        baseline=fmean(a for a, _ in finite) if finite else math.nan,
        baseline_std=stdev(a for a, _ in finite) if enough else None,
        method=fmean(b for _, b in finite) if finite else math.nan,
        method_std=stdev(b for _, b in finite) if enough else None,
        difference=fmean(change) if finite else math.nan,
        difference_std=spread,
        interval=interval,
        p=p,
        reason=reason,
    )


def _interval(change: Sequence[float]) -> tuple[tuple[float, float], float | None]:
    """The t interval of the mean of paired differences, and its p (none without any spread)."""
    from scipy.stats import t

    mean, error = fmean(change), stdev(change) / math.sqrt(len(change))
    if error == 0:
        return (mean, mean), None
    freedom = len(change) - 1
    half = float(t.ppf(0.975, freedom)) * error
    return (mean - half, mean + half), float(2 * t.sf(abs(mean / error), freedom))


def _judge(interval: tuple[float, float], better: str, min_effect: float) -> tuple[str, str]:
    """The rule, on the gain: the difference with its sign turned so that more is better."""
    low, high = interval if better == "higher" else (-interval[1], -interval[0])
    beyond = f" beyond {min_effect:g}" if min_effect else ""
    if low > min_effect:
        return "shown", f"the 95 % interval lies wholly on the claimed side{beyond}"
    if high < 0:
        return "contradicted", "the 95 % interval lies wholly on the other side"
    if min_effect and low > 0:
        return "not shown", f"better, but the 95 % interval reaches below {min_effect:g}"
    return "not shown", "the 95 % interval includes no difference"


def seeds_to_decide(
    one: Mapping[str, Any], min_effect: float = 0.0, better: str = "higher"
) -> int | None:
    """Seeds with which a paired t-test (5 %, two-sided) has a power of 80 %.

    For a difference and a spread as large as those seen; none if they are not known, if there is
    no difference beyond `min_effect` (beyond zero on the side that is not claimed, as `verdict`
    has it), or if it would take more than `MOST_SEEDS`. Power by the noncentral t distribution
    (Cohen, Statistical Power Analysis, 1988, chapter 2).

    Args:
        one: Fields of a `Verdict`, as the JSON of a claim keeps them.
        min_effect: Size of the difference that a claim is about.
        better: Which is the claimed side, "lower" or "higher".
    """
    from scipy.stats import nct, t

    mean, deviation = one["difference"], one["difference_std"]
    if not deviation or not is_number(mean):
        return None
    gain = mean if better == "higher" else -mean
    beyond = gain - min_effect if gain > 0 else -gain
    if beyond <= 0:
        return None
    n = np.arange(2, MOST_SEEDS + 1)
    limit, away = t.ppf(0.975, n - 1), beyond / deviation * np.sqrt(n)
    power = nct.sf(limit, n - 1, away) + nct.cdf(-limit, n - 1, away)
    enough = power >= POWER
    return int(n[enough.argmax()]) if enough.any() else None


def judge(results: Mapping[str, Any]) -> list[Verdict]:
    """The verdict of each entry of `results["claims"]`, in order (see `write_claim`)."""
    return [_judge_one(claim, results["methods"]) for claim in results["claims"]]


def _judge_one(claim: Mapping[str, Any], methods: Mapping[str, Any]) -> Verdict:
    by_seed = {}
    for role in ("baseline", "method"):
        name = claim[role]
        if name not in methods:
            raise ValueError(
                f"claim {claim['says']!r} names the {role} {name!r}; measured: {', '.join(methods)}"
            )
        seeds, metrics = methods[name]["seeds"], methods[name]["metrics"]
        if len(seeds) != len(metrics):
            raise ValueError(f"method {name!r}: {len(seeds)} seeds but {len(metrics)} results")
        known = sorted({key for one in metrics for key in one})
        if metrics and claim["metric"] not in known:
            raise ValueError(
                f"claim {claim['says']!r}: {name!r} has no metric {claim['metric']!r}; "
                f"it has {', '.join(known)}"
            )
        by_seed[role] = {
            seed: numbers(one).get(claim["metric"], math.nan)
            for seed, one in zip(seeds, metrics, strict=True)
        }
    both = [seed for seed in by_seed["baseline"] if seed in by_seed["method"]]
    return verdict(
        [by_seed["baseline"][seed] for seed in both],
        [by_seed["method"][seed] for seed in both],
        claim["better"],
        float(claim.get("min_effect") or 0.0),
    )


def write_claim(system: str, results: Mapping[str, Any], out_dir: Path) -> tuple[Path, Path]:
    """Write `<system>.json` and `<system>.md` and return both paths.

    `results` is a dictionary that JSON can hold::

        {"claims": [{"says": "the paper's sentence", "metric": "mpjpe/400ms",
                     "better": "lower" | "higher", "baseline": "a method", "method": "a method",
                     "paper": {"baseline": 10.1, "method": 9.2, "where": "Table 2"} | None,
                     "min_effect": 0.0}],                        # min_effect may be absent
         "methods": {"a method": {"seeds": [0, 1], "metrics": [{flat metrics}, {...}],
                                  "seconds": [60.1, 59.8], "steps": 300,
                                  "after": "another method"}},   # these three may be absent
         "columns": ["iou/mIoU"],   # metrics of the table with a row a method; may be absent
         "environment": {...},      # as environment.json
         "data": {"name": ..., "kind": "real" | "generated" | "simulated", "note": ...},
         "budget": "300 steps of 32 windows", "seconds": 730.0, "notes": [...],
         "better": {"mpjpe": "lower"}, "units": {"mpjpe": "mm"},
         "labels": {"80ms": "80 ms (true 33 ms)"}}               # these three may be absent

    The JSON file is `results` with `system` and, in each claim, its `verdict`. What is not finite
    becomes null there: JSON has no nan.
    """
    verdicts = judge(results)
    claims = [
        {**claim, "verdict": asdict(one)}
        for claim, one in zip(results["claims"], verdicts, strict=True)
    ]
    kept = _finite({"system": system, **results, "claims": claims})
    out = Path(out_dir)
    text = json.dumps(kept, indent=2, ensure_ascii=False, default=str, allow_nan=False)
    page = write_whole(out / f"{system}.md", claim_page(system, results))
    return write_whole(out / f"{system}.json", text + "\n"), page


def claim_lines(results: Mapping[str, Any]) -> list[str]:
    """One line a claim, for the terminal: verdict, mean and spread of both, the paper's numbers."""
    return [
        f"{one.name}: {claim['says']} {_numbers_line(claim, one)}"
        for claim, one in zip(results["claims"], judge(results), strict=True)
    ]


def _numbers_line(claim: Mapping[str, Any], one: Verdict) -> str:
    baseline, method, _ = _three(one)
    parts = [f"{claim['metric']} {baseline} ({claim['baseline']}) to {method} ({claim['method']})"]
    if one.interval:
        low, high = one.interval
        parts.append(
            f"difference {signed(one.difference)}, 95 % [{signed(low)}, {signed(high)}], {_p(one)}"
        )
    parts.append(f"{one.seeds} {'seed' if one.seeds == 1 else 'seeds'}")
    return "; ".join(parts)


def _p(one: Verdict) -> str:
    return "p undefined (no spread)" if one.p is None else f"p = {one.p:.2g}"


def _three(one: Verdict) -> tuple[str, str, str]:
    """Baseline, method and their difference, all with the same decimals."""
    every = (one.baseline, one.method, one.baseline_std or 0.0, one.method_std or 0.0)
    places = decimals(list(every))
    difference = spread(one.difference, one.difference_std, places)
    return (
        spread(one.baseline, one.baseline_std, places),
        spread(one.method, one.method_std, places),
        f"+{difference}" if one.difference > 0 else difference,
    )


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(k): _finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def claim_page(system: str, results: Mapping[str, Any]) -> str:
    """The text of `<system>.md`; `results` as for `write_claim`, or as its JSON file holds them."""
    data = results.get("data") or {}
    lines = [f"# Claims of {md(system)}", ""]
    if data:
        note = f": {md(data['note'])}" if data.get("note") else ""
        kind = md(data.get("kind", "unknown"))
        lines += [f"Data: **{kind}**, {md(data.get('name', 'unnamed'))}{note}", ""]
    if results.get("budget"):
        lines += [f"Budget of each run: {md(results['budget'])}", ""]
    pairs = list(zip(results["claims"], judge(results), strict=True))
    rows = [[md(c["says"]), f"**{v.name}**", _paper(c), _ours(v), str(v.seeds)] for c, v in pairs]
    head = ["claim", "verdict", "paper: baseline → method", "ours: baseline → method", "seeds"]
    lines += [*md_table(head, rows, words=2), "", *overview(results)]
    for i, (claim, one) in enumerate(pairs, 1):
        lines += _claim_part(i, claim, one)
    lines += ["## Every metric", "", "Mean ± standard deviation over the seeds.", ""]
    lines += metric_tables(results)
    return "\n".join(lines + _setting(results))


def _paper(claim: Mapping[str, Any]) -> str:
    paper = claim.get("paper")
    if not paper:
        return "–"
    return f"{_given(paper.get('baseline'))} → {_given(paper.get('method'))}"


def _given(value: Any) -> str:
    """A number of the paper, with the digits that the paper prints."""
    return "–" if value is None else md(value)


def _ours(one: Verdict) -> str:
    return " → ".join(_three(one)[:2])


def _claim_part(index: int, claim: Mapping[str, Any], one: Verdict) -> list[str]:
    paper = claim.get("paper") or {}
    effect = f", by more than {claim['min_effect']:g}" if claim.get("min_effect") else ""
    baseline, method, difference = _three(one)
    rows = [
        [
            md(claim["baseline"]),
            _given(paper.get("baseline")),
            baseline,
        ],
        [md(claim["method"]), _given(paper.get("method")), method],
    ]
    numeric = all(is_number(paper.get(k)) for k in ("baseline", "method"))
    theirs = f"{paper['method'] - paper['baseline']:+.3g}".replace("-", "−") if numeric else "–"
    rows.append(["difference", theirs, difference])
    where = f"paper ({md(paper['where'])})" if paper.get("where") else "paper"
    lines = [
        f"## {index}. {one.name}",
        "",
        f"> {md(claim['says'])}",
        "",
        f"Metric: `{claim['metric']}`, {claim['better']} is better{effect}.",
        "",
        *md_table(["", where, "ours"], rows),
        "",
    ]
    if one.interval:
        low, high = one.interval
        lines.append(
            f"Paired difference over {one.seeds} seeds: 95 % interval "
            f"[{signed(low)}, {signed(high)}], {_p(one)}."
        )
    lines.append(f"**{one.name.capitalize()}**: {one.reason}.")
    if one.name == "not shown" and one.interval:
        least = float(claim.get("min_effect") or 0.0)
        needed = seeds_to_decide(asdict(one), least, claim["better"])
        lines.append(
            f"A difference and a spread as large as these take {needed or f'over {MOST_SEEDS}'} "
            f"seeds to be decided with a power of {100 * POWER:.0f} %."
        )
    return [*lines, ""]


def _setting(results: Mapping[str, Any]) -> list[str]:
    """List place, time and duration of the runs: enough to run them again."""
    environment = results.get("environment") or {}
    rows = [[md(key.replace("_", " ")), md(value)] for key, value in environment.items()]
    if is_number(results.get("seconds")):
        rows.append(["all runs took", duration(results["seconds"])])
    for name, one in results["methods"].items():
        seeds = ", ".join(map(str, one["seeds"]))
        times = [float(s) for s in one.get("seconds") or [] if is_number(s)]
        each = f"; {duration(median(times))} each" if times else ""
        rows.append([md(f"seeds of {name}"), seeds + each])
    lines = ["## Setting", "", *md_table(["", ""], rows, words=2), ""]
    notes = [f"- {md(note)}" for note in results.get("notes") or []]
    return [*lines, "## Notes", "", *notes, ""] if notes else lines
