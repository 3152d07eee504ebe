"""Scale of the loss under fp16, so that small gradients do not vanish."""

from __future__ import annotations

import torch
from torch import Tensor

FIRST, LEAST = 2.0**16, 2.0**-13
"""Scale of the first step; scale below which a gradient is at fault and not its scale."""
PATIENCE = 2000
"""Steps in a row without overflow after which the scale is doubled."""


class Scaler:
    """Dynamic scale, by the rules of `torch.amp.GradScaler`, decided on the device.

    torch's own reads whether there was an overflow where the optimiser cannot skip, knows only the
    gradients that its optimiser has, and cannot be told what other processes found.
    """

    def __init__(self, device: torch.device) -> None:
        self.scale = torch.full((), FIRST, device=device)
        self.good = torch.zeros((), dtype=torch.int64, device=device)
        """Steps since the scale was changed."""
        self.skipped = torch.zeros((), dtype=torch.int64, device=device)
        """Steps that were skipped since their gradients overflowed, of all."""

    def unscale(self, gradients: list[Tensor]) -> None:
        """Divide gradients by the scale, in place."""
        if gradients:
            torch._foreach_mul_(gradients, self.scale.reciprocal().to(gradients[0].dtype))

    def update(self, overflow: Tensor) -> None:
        """Halve the scale after an overflow; double it after many steps without one."""
        good = torch.where(overflow, 0, self.good + 1)
        is_patient = good == PATIENCE
        grown = torch.where(is_patient & torch.isfinite(2 * self.scale), 2 * self.scale, self.scale)
        self.scale = torch.where(overflow, self.scale / 2, grown)
        self.good = torch.where(is_patient, 0, good)
        self.skipped = self.skipped + overflow

    def state_dict(self) -> dict[str, float]:
        """State for a checkpoint."""
        return {
            "scale": float(self.scale), "good": int(self.good), "skipped": int(self.skipped)
        }  # fmt: skip

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Take up the state of a checkpoint."""
        self.scale.fill_(state["scale"])
        self.good.fill_(state["good"])
        self.skipped.fill_(state["skipped"])
