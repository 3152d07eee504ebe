"""A feature pyramid (Lin et al. 2017, arXiv 1612.03144) with coarser levels, as FCOS has it."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn


class FPN(nn.Module):
    """Maps of one width at every level: those of a backbone's last stages, and coarser ones.

    Each coarser level is a 3 x 3 convolution of stride 2 of the one before, rectified but for the
    first (FCOS, arXiv 1904.01355, sec. 4; adet/modeling/backbone/fpn.py).
    """

    def __init__(self, in_channels: Sequence[int], channels: int, extra: int = 2) -> None:
        """in_channels: of the backbone's maps, finest first. extra: number of coarser levels."""
        super().__init__()
        self.lateral = nn.ModuleList([nn.Conv2d(width, channels, 1) for width in in_channels])
        self.output = nn.ModuleList([
            nn.Conv2d(channels, channels, 3, padding=1) for _ in in_channels
        ])  # fmt: skip
        self.coarser = nn.ModuleList([
            nn.Conv2d(channels, channels, 3, 2, padding=1) for _ in range(extra)
        ])  # fmt: skip
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_uniform_(module.weight, a=1)
                assert module.bias is not None
                nn.init.zeros_(module.bias)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Levels from the finest; each map is to have twice the height and width of the next."""
        x = self.lateral[-1](maps[-1])
        found = [self.output[-1](x)]
        for i in range(len(maps) - 2, -1, -1):
            x = self.lateral[i](maps[i]) + F.interpolate(x, size=maps[i].shape[2:])
            found.insert(0, self.output[i](x))
        for i, layer in enumerate(self.coarser):
            found.append(layer(F.relu(found[-1]) if i else found[-1]))
        return found
