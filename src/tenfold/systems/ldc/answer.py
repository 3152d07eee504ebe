"""What `learn` says of its findings: lines, values for programs, a page."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from tenfold.viz import plots
from tenfold.viz.page import Cell, Figure, Page, Section, Table, Tile, footer, rendered, uri

from .findings import Findings
from .forecast import Effect

MUCH = 5.0
"""Points of estimated accuracy whose loss is worth a warning."""
BETTER = 2.0
"""Points by which another head must keep more to be offered."""
SHOWN = 8
"""Confusions that are listed, at most."""
ESTIMATE = (
    "Known classes are estimated: features of each are drawn from the Gaussian that the run keeps "
    "of it (its mean and the shared covariance), and what heads find of them is scaled to what "
    "they found of pictures at the end of the training; no old picture is read. How near that "
    "comes: docs/guides/ldc.md. New classes are measured on the photos given, a third of which is "
    "left out at a time."
)


def better(found: Findings) -> Effect | None:
    """The head that would keep clearly more of the known classes, and more over all classes."""
    own = found.own
    more = [
        one
        for one in found.others
        if one.known >= own.known + BETTER and one.every > own.every
    ]  # fmt: skip
    return max(more, key=lambda one: one.every, default=None)


def warnings(found: Findings) -> tuple[str, ...]:
    """A warning where the known classes lose much, with the way out."""
    if found.loss < MUCH:
        return ()
    other = better(found)
    offer = "no head of this run keeps clearly more; a better encoder is what helps (--undo)"
    if other is not None:
        offer = (
            f"the head {other.head} would keep {other.known:.0f} %: --undo, then learn with "
            f"--head {other.head}"
        )
    return (
        f"the {len(found.known)} classes known before lose an estimated {found.loss:.0f} points of "
        f"accuracy ({found.before:.0f} % to {found.own.known:.0f} %); {offer}",
    )


def lines(found: Findings) -> tuple[str, ...]:
    """What a terminal shows."""
    own = found.own
    others = ", ".join(
        f"{one.head} {one.known:.1f} % and {_share(one.new)}" for one in found.others
    )
    said = [
        f"known before: accuracy {found.before:.1f} % before, {own.known:.1f} % after "
        f"(estimated, head {own.head}); new: {_share(own.new)} of photos left out",
        f"with other heads, known (estimated) and new (left out): {others}",
        f"enough? {found.enough.verdict}",
    ]
    if found.enough.taken_for:
        said.append(f"new photos left out are taken for: {'; '.join(_taken(found)[:3])}")
    if own.lost:
        said.append(f"known classes taken for new ones (estimated): {'; '.join(_lost(found)[:3])}")
    return (*said, f"none of these? {_unknown(found)}")


def facts(found: Findings) -> dict[str, Any]:
    """Values for programs: numbers in percent, classes by name."""
    every = (*found.known, *found.names)
    curve = [asdict(point) for point in found.enough.curve]
    return {
        "head": found.own.head,
        "accuracy": {
            "known_before": found.before,
            "loss": found.loss,
            "heads": {
                one.head: {
                    "known": one.known,
                    "new": None if math.isnan(one.new) else one.new,
                    "all": one.every,
                }
                for one in (found.own, *found.others)
            },
            "known_taken_for_new": [
                {"class": every[a], "taken_for": every[b], "percent": share}
                for a, b, share in found.own.lost[:SHOWN]
            ],
        },
        "better_head": getattr(better(found), "head", ""),
        "enough": {
            "verdict": found.enough.verdict,
            "curve": curve,
            "taken_for": [
                {"class": found.names[a], "taken_for": every[b], "photos": count}
                for a, b, count in found.enough.taken_for
            ],
        },
        "unknown": {**asdict(found.unknown), "calibrated_on": found.judges},
    }


def draw_curve(found: Findings) -> bytes:
    """The learning curve over the photos given, as PNG."""
    curve = found.enough.curve
    repeats = [[point.mean + sign * point.spread / 2**0.5 for point in curve] for sign in (-1, 1)]
    return plots.lines_with_spread(
        {"photos left out": ([point.shots for point in curve], repeats)},
        title="Are the photos enough?",
        xlabel="photos of each new class to learn from",
        ylabel="photos left out that are right (%)",
    )


def page(found: Findings, pictures: Mapping[str, bytes], source: str) -> bytes:
    """A page of everything that was found."""
    own, curve = found.own, found.enough.curve
    tiles = [
        Tile(
            "known classes, estimated",
            f"{own.known:.1f} %",
            [(f"{found.before:.1f} % before", "bad" if found.loss >= MUCH else "")],
        ),
        Tile("new photos left out", _share(own.new), [(f"right, head {own.head}", "")]),
    ]
    figures = {name: Figure(uri(content, "image/png"), alt=name.removesuffix(".png"))
               for name, content in pictures.items() if name.endswith(".png")}  # fmt: skip
    sections = [
        Section("Is the old accuracy kept?", text=[ESTIMATE], tables=[_heads(found)]),
        Section(
            "Are the photos enough?",
            text=[found.enough.verdict],
            tables=[_points(found)] if curve else [],
            figures=[figures["enough.png"]] if curve else [],
        ),
        Section("What is confused", text=_confused(found), tables=_confusions(found)),
        Section("None of these", text=[_unknown(found)]),
        Section("Where the photos fell", figures=[figures["features.png"]]),
    ]
    whole = Page(
        title="Learned: " + ", ".join(found.names[:6]) + (", ..." if len(found.names) > 6 else ""),
        lead=f"{sum(found.photos)} photos of {len(found.names)} new classes, from {source}",
        warnings=list(warnings(found)),
        tiles=tiles,
        sections=sections,
        footer=footer("learn"),
    )
    return rendered(whole).encode()


def _heads(found: Findings) -> Table:
    every = (found.own, *found.others)
    best = max(one.every for one in every)
    rows = [
        [
            Cell(one.head, "" if number else "the head that learned"),
            *(Cell(f"{x:.1f}") for x in (one.known, found.before - one.known)),
            Cell(_share(one.new)),
            Cell(f"{one.every:.1f}", best=one.every == best),
        ]
        for number, one in enumerate(every)
    ]
    note = f"Before, with the head {found.head_before}: {found.before:.1f} % of the known classes."
    head = ["head", "known, %", "loss, points", "new, left out", "all classes alike, %"]
    return Table("", head, rows, note)


def _points(found: Findings) -> Table:
    rows = [
        [
            Cell(str(one.shots)),
            Cell(f"{one.mean:.0f}"),
            Cell(f"{one.spread:.0f}"),
            Cell(str(one.left_out)),
            Cell(str(one.splits)),
        ]
        for one in found.enough.curve
    ]
    note = (
        "Nearest class mean under the shared covariance (the head lda), all classes to choose from."
    )
    head = ["photos of each", "right, %", "spread, points", "left out", "draws"]
    return Table("", head, rows, note)


def _confused(found: Findings) -> list[str]:
    if found.enough.taken_for or found.own.lost:
        return []
    return ["Nothing, as far as photos left out and the estimate show."]


def _confusions(found: Findings) -> list[Table]:
    every = (*found.known, *found.names)
    new = [
        [Cell(found.names[a]), Cell(every[b]), Cell(f"{count} of {found.photos[a]}")]
        for a, b, count in found.enough.taken_for[:SHOWN]
    ]
    old = [
        [Cell(every[a]), Cell(every[b]), Cell(f"{share:.0f} %")]
        for a, b, share in found.own.lost[:SHOWN]
    ]
    tables = []
    if new:
        head = ["new class", "taken for", "photos left out"]
        tables.append(Table("New photos left out in turn", head, new, text=True))
    if old:
        head = ["known class", "taken for", "of its pictures"]
        tables.append(Table("Known classes, estimated", head, old, text=True))
    return tables


def _share(percent: float) -> str:
    return "unknown (one photo each)" if math.isnan(percent) else f"{percent:.1f} %"


def _taken(found: Findings) -> list[str]:
    every = (*found.known, *found.names)
    return [
        f"{every[b]} ({count} of {found.photos[a]} of {found.names[a]})"
        for a, b, count in found.enough.taken_for
    ]


def _lost(found: Findings) -> list[str]:
    every = (*found.known, *found.names)
    return [f"{share:.0f} % of {every[a]} for {every[b]}" for a, b, share in found.own.lost]


def _unknown(found: Findings) -> str:
    """Say what the limit for unknown pictures does to the new photos, and where it comes from."""
    one = found.unknown
    before = f"{one.before} of {one.photos} photos were called unknown before they were learned"
    after = "with one photo a class, none can be left out"
    if one.left_out:
        after = f"{one.alarms} of {one.left_out} still are if each is left out in turn"
    return f"{before}; {after}. The limit lets 5 % of {found.judges} be called unknown."
