"""A small residual backbone with group norm, for networks that are trained from nothing."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class _Stage(nn.Module):
    """Half the size by a 3 x 3 convolution, then one residual block."""

    def __init__(self, channels: int, width: int, groups: int) -> None:
        super().__init__()
        self.down = nn.Conv2d(channels, width, 3, 2, 1, bias=False)
        self.conv1 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm, self.norm1, self.norm2 = (nn.GroupNorm(groups, width) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.down(x)))
        y = F.relu(self.norm1(self.conv1(x)))
        return F.relu(x + self.norm2(self.conv2(y)))


class SmallBackbone(nn.Module):
    """Maps at a fourth, an eighth and so on of a picture's sides, one for each width."""

    def __init__(self, widths: Sequence[int] = (32, 64, 96, 128), groups: int = 8) -> None:
        """widths: channels of the maps; groups: of the norms, which must divide each width."""
        super().__init__()
        self.widths = tuple(widths)
        self.stem = nn.Conv2d(3, widths[0], 3, 2, 1, bias=False)
        self.norm = nn.GroupNorm(groups, widths[0])
        before = (widths[0], *widths[:-1])
        self.stages = nn.ModuleList([
            _Stage(channels, width, groups)
            for channels, width in zip(before, widths, strict=True)
        ])  # fmt: skip
        for module in self.modules():
            if isinstance(module, nn.Conv2d):  # He et al. 2015, fan out
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def maps(
        self, x: Float[Tensor, "batch 3 height width"]
    ) -> list[Float[Tensor, "batch channel height2 width2"]]:
        """The map after every stage, finest first."""
        x = F.relu(self.norm(self.stem(x)))
        found = []
        for stage in self.stages:
            x = stage(x)
            found.append(x)
        return found
