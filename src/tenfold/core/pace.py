"""Speed of a training: units and FLOP a second, and their share of what the devices can do."""

from __future__ import annotations

import time
from dataclasses import dataclass

from .dist import World
from .peak import peak

PREFIXES = ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


@dataclass(frozen=True)
class Work:
    """Work of one optimiser step, over all processes."""

    units: float
    """Number of what is learned from: tokens, images."""
    unit: str
    """Name of that, plural; it becomes a part of names in the log."""
    flop: float = 0.0
    """FLOP of its products, forward and backward, as the model needs them (nothing that is made
    again); 0 if they are not counted."""


def short(value: float, space: str = "") -> str:
    """A number with three digits and a prefix: 45.1k."""
    size, prefix = next((p for p in PREFIXES if value >= p[0]), (1.0, ""))
    return f"{value / size:.3g}{space}{prefix}"


class Pace:
    """Speed between two lines of the log, without validations and checkpoints.

    The first line only starts the clock: before it, memory is taken and kernels are chosen.
    """

    def __init__(self, work: Work | None, half: bool, world: World) -> None:
        self.work = work if world.is_first else None  # who writes and speaks
        self.half, self.world = half, world
        self.peak: float | None = None
        self.step, self.since = 0, 0.0
        self.text = ""
        """What a progress bar shows."""

    def restart(self, step: int) -> None:
        """Forget what was before: something else than training took its time."""
        self.step, self.since = step, time.monotonic()

    def values(self, step: int) -> dict[str, float]:
        """What a line of the log says of the steps since the last."""
        if self.work is None:
            return {}
        if self.peak is None:
            self.peak = peak(self.world.device, self.half, self.world.size) if self.work.flop else 0
            self.restart(step)
        if step == self.step:
            return {}
        rate = (step - self.step) / max(1e-9, time.monotonic() - self.since)
        self.restart(step)
        found = {f"{self.work.unit}_per_second": rate * self.work.units}
        self.text = f"  {short(rate * self.work.units)} {self.work.unit}/s"
        if self.work.flop:
            found["flop_per_second"] = rate * self.work.flop
            self.text += f"  {short(rate * self.work.flop, ' ')}FLOP/s"
        if self.peak:
            found["share_of_peak"] = rate * self.work.flop / self.peak
            self.text += f" ({found['share_of_peak']:.0%})"
        return {name: float(f"{value:.5g}") for name, value in found.items()}
