"""The lines of `metrics.jsonl` to figures: what was logged, put together in panels."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import median
from typing import Any

from tenfold.viz.plots import Line, Theme, curves

from .results import in_order, is_number, lookup, natural

NOT_A_CURVE = {"step", "stage", "split", "time", "seconds", "epoch", "rank", "date"}
NOT_A_CURVE |= {"flop_per_second", "share_of_peak"}  # units a second in other units
PER_SECOND = "_per_second"
TITLES = {"loss": "Loss", "lr": "Learning rate", "grad_norm": "Gradient norm (before clipping)"}
MOST_LINES = 8
MOST_PANELS = 16

Lines = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Panel:
    """One figure to be: named lines, where stages begin, and the sentence under it."""

    title: str
    ylabel: str
    lines: dict[str, Line]
    marks: list[float]
    caption: str
    window: int = 0

    def png(self, theme: Theme) -> bytes:
        """Draw it; the same panel is drawn once in a process, however many pages show it."""
        lines = tuple((name, tuple(x), tuple(y)) for name, (x, y) in self.lines.items())
        return _drawn(self.title, self.ylabel, lines, tuple(self.marks), self.window, theme)


@lru_cache(maxsize=128)
def _drawn(
    title: str, ylabel: str, lines: tuple[Any, ...], marks: tuple[float, ...], window: int,
    theme: Theme,
) -> bytes:  # fmt: skip
    named = {name: (x, y) for name, x, y in lines}
    return curves(named, title=title, ylabel=ylabel, window=window, marks=marks, theme=theme)


def offsets(metrics: Lines) -> dict[str, float]:
    """The step at which each stage begins when the stages are laid end to end."""
    last: dict[str, float] = {}
    for line in metrics:
        stage = str(line["stage"])
        last[stage] = max(last.get(stage, 0.0), float(line["step"]))
    out, at = {}, 0.0
    for stage, steps in last.items():
        out[stage] = at
        at += steps
    return out


def line_of(metrics: Lines, key: str, split: str) -> Line:
    """The values of one key over the whole run; stages laid end to end, with a gap between."""
    begin, x, y, before = offsets(metrics), [], [], ""
    for line in metrics:
        if line["split"] != split or not is_number(line.get(key)):
            continue
        stage = str(line["stage"])
        if before and stage != before:
            x.append(begin[stage])
            y.append(math.nan)
        before = stage
        x.append(begin[stage] + float(line["step"]))
        y.append(float(line[key]))
    return x, y


def keys_of(metrics: Lines, split: str) -> list[str]:
    """The numeric keys a split logged, in order of appearance."""
    found = {k: None for line in metrics if line["split"] == split for k in line}
    return [
        k
        for k in found
        if k not in NOT_A_CURVE
        and any(is_number(line.get(k)) for line in metrics if line["split"] == split)
    ]


def splits_of(metrics: Lines) -> list[str]:
    """The splits of a run, train first."""
    return sorted({str(line["split"]) for line in metrics}, key=lambda s: (s != "train", s))


def _some(keys: list[str]) -> tuple[list[str], str]:
    """At most eight keys for one panel; averages (fewer slashes) before details."""
    fewest = min(key.count("/") for key in keys)
    chosen = [k for k in keys if k.count("/") == fewest] if len(keys) > MOST_LINES else keys
    chosen = in_order(chosen)[:MOST_LINES]
    return chosen, f"{len(chosen)} of {len(keys)} shown. " if len(chosen) < len(keys) else ""


def _panel(
    title: str, ylabel: str, lines: dict[str, Line], marks: list[float], caption: str, noisy: bool
) -> Panel:
    """A panel whose long noisy lines are averaged, which its caption then says."""
    longest = max((len(x) for x, _ in lines.values()), default=0)
    window = longest // 40 if noisy and longest > 80 else 0
    if window > 1:
        caption += f"Bold: average over {window} logged values. "
    return Panel(title, ylabel, lines, marks, caption.strip(), window if window > 1 else 0)


def _speed(metrics: Lines, key: str) -> str:
    """Sentence on the speed of a training, by the medians of what was logged."""
    found = {}
    for name in (key, "flop_per_second", "share_of_peak"):
        seen = [line[name] for line in metrics if is_number(line.get(name))]
        found[name] = median(seen) if seen else 0.0
    units, flop, share = found.values()
    text = f"Median: {units:,.0f} {key.removesuffix(PER_SECOND)} a second"
    if flop:
        size, prefix = (1e12, "T") if flop >= 1e12 else (1e9, "G")
        text += f", {flop / size:,.3g} {prefix}FLOP/s"
    return text + (f", {share:.0%} of what the devices can do. " if share else ". ")


def panels(metrics: Lines, units: Mapping[str, Any] | None = None) -> list[Panel]:
    """The panels of one run: loss, its parts, rate, gradient, and each group of the rest."""
    marks = [at for at in offsets(metrics).values() if at > 0]
    stages = "Dotted: a new stage. " if marks else ""
    splits = splits_of(metrics)
    out = []
    total = {split: line_of(metrics, "loss", split) for split in splits}
    total = {split: line for split, line in total.items() if line[0]}
    if total:
        broken = [
            line["step"]
            for line in metrics
            if is_number(line.get("loss")) and not math.isfinite(line["loss"])
        ]
        note = f"Not finite at step {broken[0]}. " if broken else ""
        out.append(_panel("Loss", "loss", total, marks, stages + note, noisy=True))
    groups: dict[tuple[str, str], list[str]] = {}
    for split in splits:
        for key in keys_of(metrics, split):
            if key != "loss":
                groups.setdefault((split, key.split("/")[0]), []).append(key)
    order = {"loss": 0, "lr": 2, "grad_norm": 3}
    for (split, group), keys in sorted(
        groups.items(),
        key=lambda item: order.get(item[0][1], 1 if item[0][0] != "train" else 4),
    ):
        chosen, note = _some(keys)
        name = "Parts of the loss" if group == "loss" else TITLES.get(group, group)
        if group.endswith(PER_SECOND):
            name, note = "Speed", _speed(metrics, group)
        title = name if split == "train" else f"{name} ({split})"
        unit = lookup(keys[0], units)
        strip = len(group) + 1 if len(keys) > 1 else 0
        lines = {(k[strip:] or k): line_of(metrics, k, split) for k in chosen}
        ylabel = group.replace("_", " ") + (f" [{unit}]" if unit else "")
        noisy = split == "train" and group != "lr"
        out.append(_panel(title, ylabel, lines, marks, stages + note, noisy))
    return out


def overlays(runs: Mapping[str, Lines], units: Mapping[str, Any] | None = None) -> list[Panel]:
    """The panels of a comparison: one key each, a line a run."""
    out = []
    seen: dict[tuple[str, str], None] = {}
    for metrics in runs.values():
        for split in splits_of(metrics):
            for key in keys_of(metrics, split):
                seen[split, key] = None
    order = {"loss": 0, "lr": 5, "grad_norm": 6}

    def rank(item: tuple[str, str]) -> tuple[int, int, list[tuple[int, float, str]]]:
        split, key = item
        return order.get(key, 3 if split == "train" else 1), key.count("/"), natural(key)

    for split, key in sorted(seen, key=rank):
        lines = {name: line_of(metrics, key, split) for name, metrics in runs.items()}
        unit = lookup(key, units)
        label = key.replace("_", " ")
        title = f"{TITLES.get(key, key)} ({split})"
        ylabel = label + (f" [{unit}]" if unit else "")
        lines = {name: line for name, line in lines.items() if line[0]}
        out.append(_panel(title, ylabel, lines, [], "", split == "train" and key != "lr"))
    return out
