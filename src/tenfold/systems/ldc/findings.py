"""What is found out about a step of learning."""

from __future__ import annotations

from dataclasses import dataclass

from .enough import Enough
from .forecast import Effect


@dataclass(frozen=True)
class Unknown:
    """What the limit for unknown pictures makes of the new photos."""

    before: int
    """Photos that were called unknown before their classes were learned."""
    photos: int
    left_out: int
    """Photos that were left out in turn."""
    alarms: int
    """Of those, the ones that are called unknown all the same."""


@dataclass(frozen=True)
class Findings:
    """Everything that is told of a step of learning; accuracies are estimates unless said."""

    known: tuple[str, ...]
    """Classes known before."""
    names: tuple[str, ...]
    photos: tuple[int, ...]
    head_before: str
    before: float
    """Estimated accuracy of the known classes before (percent), by the head of then."""
    own: Effect
    """Of the head that learned."""
    others: tuple[Effect, ...]
    """Of heads that need no training, had they learned the same."""
    enough: Enough
    unknown: Unknown
    judges: str
    """Pictures that the limit for unknown was calibrated on."""

    @property
    def loss(self) -> float:
        """Estimated points of accuracy that the known classes lose."""
        return self.before - self.own.known
