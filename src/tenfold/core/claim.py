"""A paper's claim as a test that can fail."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, Literal, TypeVar


@dataclass(frozen=True)
class Numbers:
    """A paper's own numbers, to stand beside ours."""

    baseline: float
    method: float
    where: str
    """Table or section, and whether it was read or is from memory."""


C = TypeVar("C")


@dataclass(frozen=True)
class Variant(Generic[C]):
    """One row of a claim's table: a name and the configuration that is trained."""

    name: str
    config: C
    row: str = ""
    """A row of `baselines` in the run of the arm with the same configuration: a method that shares
    what that run learned (an encoder) and needs no run of its own."""
    after: str = ""
    """Name of a variant whose run of the same seed this one starts from (`start`): what several
    have in common is trained once."""


@dataclass(frozen=True)
class Claim(Generic[C]):
    """The paper's sentence as a test that can fail: same data, budget and seeds for both arms."""

    says: str
    baseline: Variant[C]
    method: Variant[C]
    metric: str
    better: Literal["lower", "higher"]
    paper: Numbers | None = None
    setting: str = ""
    """Set-up of the arms, as far as a reader must know it."""
    also: tuple[Variant[C], ...] = ()
    """Further rows of the same table, without a verdict of their own."""
    min_effect: int | float = 0.0
    """Difference that counts as shown; 0 is any."""
    columns: tuple[str, ...] = ()
    """Metrics of a table with a row a variant and its cost, beside the tables of all metrics."""
    seeds: tuple[int, ...] = (0, 1, 2)
