"""Hierarchical temporal aggregation: the models that make a lead time, and their order.

Every call adds error, so the longest models go first (paper). Hours are those after the start.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

LIMIT = 1_000_000
"""Hours that a plan may reach, 114 years: more is a mistake and would fill the memory."""


@dataclass(frozen=True)
class Call:
    """One call of a model: it makes the state at `hour` from the one at `source`."""

    hour: int
    """Hours after the start at which the state made is valid."""
    model: int
    """Lead time of the model in hours."""
    source: int
    """Hour of the state it starts from; 0 is the analysis."""
    output: bool = True
    """True if the state was asked for; otherwise it is only a source of others."""


def checked(models: Iterable[int]) -> tuple[int, ...]:
    """Lead times in hours, each once, the longest first; ValueError if none or not positive."""
    leads = tuple(sorted(set(models), reverse=True))
    if not leads or leads[-1] < 1 or leads[0] > LIMIT:
        raise ValueError(
            f"lead times {list(leads)} h: give at least one, each from 1 to {LIMIT} whole hours."
        )
    return leads


def greedy(hours: int, models: Iterable[int]) -> tuple[int, ...] | None:
    """The paper's chain: always the longest model that fits; None if it ends before the hour."""
    calls: list[int] = []
    for model in checked(models):
        count, hours = divmod(hours, model)
        calls += [model] * count
    return None if hours else tuple(calls)


def fewest(hours: int, models: Iterable[int]) -> tuple[int, ...] | None:
    """The chain of fewest calls, found by dynamic programming; None if the hour has none. (ours)

    Of chains that are equally short, the one with the longest models first.
    """
    leads = checked(models)
    calls = [0] + [hours + 1] * hours  # hours + 1: not reachable
    for hour in range(1, hours + 1):
        calls[hour] = 1 + min((calls[hour - m] for m in leads if m <= hour), default=hours + 1)
    if calls[hours] > hours:
        return None
    chain: list[int] = []
    while hours:
        chain.append(next(m for m in leads if m <= hours and calls[hours - m] == calls[hours] - 1))
        hours -= chain[-1]
    return tuple(chain)


def chain(hours: int, models: Iterable[int], shortest: bool = False) -> tuple[int, ...]:
    """Models that make a lead time of so many hours, in the order of their calls, longest first.

    By the paper's greedy rule, hierarchical temporal aggregation, which needs the fewest calls
    whenever each lead time divides the next longer one, as 1, 3, 6, 24 do. For other sets it may
    end early (30 h by 24 and 10): then the chain is `fewest`. It may also need more calls than
    necessary (30 h by 24, 10 and 1: 7 for 3); `shortest` takes `fewest` there too.

    Raises:
        ValueError: There is no chain; the message names hours near by that have one.
    """
    leads = checked(models)
    if not 1 <= hours <= LIMIT:
        raise ValueError(f"a lead time of {hours} h: give 1 to {LIMIT} whole hours.")
    calls = None if shortest and not nested(leads) else greedy(hours, leads)
    if calls is None:
        calls = fewest(hours, leads)
    if calls is None:
        raise ValueError(
            f"no chain of models of {_names(leads)} h makes {hours} h. "
            f"Near by they reach {_names(near(hours, leads))} h."
        )
    return calls


def nested(leads: Sequence[int]) -> bool:
    """Return True if each lead time divides the next longer one, so that greedy is best."""
    ordered = checked(leads)
    return all(a % b == 0 for a, b in zip(ordered, ordered[1:], strict=False))


def near(hours: int, models: Iterable[int], count: int = 2) -> list[int]:
    """Up to so many hours that can be reached on either side of one that cannot."""
    leads = checked(models)
    top = hours + count * leads[-1]
    reached = bytearray(top + 1)
    reached[0] = 1
    for hour in range(1, top + 1):
        reached[hour] = any(m <= hour and reached[hour - m] for m in leads)
    below = [h for h in range(hours - 1, 0, -1) if reached[h]][:count]
    above = [h for h in range(hours + 1, top + 1) if reached[h]][:count]
    return [*reversed(below), *above]


def hourly(hours: int, models: Iterable[int], every: int = 1) -> tuple[Call, ...]:
    """Calls that make the states every so many hours up to `hours`, sources before what needs them.

    The state of an hour comes from the longest model that divides it (pseudocode); where none
    does, from the last call of its `chain` (ours). States that only others need are among the
    calls, with `output` false.

    Raises:
        ValueError: An hour has no chain; the message names hours near by that have one.
    """
    leads = checked(models)
    if not 1 <= every <= hours <= LIMIT:
        raise ValueError(
            f"states every {every} h up to {hours} h: give 1 <= every <= hours <= {LIMIT}."
        )
    calls: dict[int, Call] = {}
    asked = range(every, hours + 1, every)
    for goal in asked:
        hour = goal
        while hour and hour not in calls:
            model = next((m for m in leads if hour % m == 0), 0) or chain(hour, leads)[-1]
            calls[hour] = Call(hour, model, hour - model, output=hour in asked)
            hour -= model
    return tuple(calls[hour] for hour in sorted(calls))


def plan_text(hours: int, models: Iterable[int], every: int | None = None) -> str:
    """The chain of a lead time, or with `every` the calls of a series of outputs, as a table."""
    leads = checked(models)
    if every is not None:
        return _series_text(hours, leads, every)
    order = chain(hours, leads)
    by = "longest first" if order == greedy(hours, leads) else "fewest calls: longest first fails"
    lines = [
        f"{hours} h by models of {_names(leads)} h: {_calls(order)} ({by})",
        "call  model  from     to",
    ]
    source = 0
    for index, model in enumerate(order, start=1):
        lines.append(f"{index:4}  {model:3} h  {source:4} h  {source + model:4} h")
        source += model
    return "\n".join(lines)


def _series_text(hours: int, leads: tuple[int, ...], every: int) -> str:
    calls = hourly(hours, leads, every)
    wanted = sum(call.output for call in calls)
    between = (
        f", {len(calls) - wanted} of them only for other states" if wanted < len(calls) else ""
    )
    lines = [
        f"every {every} h to {hours} h by models of {_names(leads)} h: "
        f"{_calls([call.model for call in calls])}{between}",
        "model  from     to",
    ]
    for call in calls:
        lines.append(
            f"{call.model:3} h  {call.source:4} h  {call.hour:4} h"
            + ("" if call.output else "  not an output")
        )
    return "\n".join(lines)


def _calls(models: Sequence[int]) -> str:
    counts = Counter(models)
    parts = [f"{counts[model]} x {model} h" for model in sorted(counts, reverse=True)]
    return f"{len(models)} call{'s' * (len(models) > 1)} = {' + '.join(parts)}"


def _names(numbers: Sequence[int]) -> str:
    return ", ".join(str(number) for number in numbers) or "nothing"
