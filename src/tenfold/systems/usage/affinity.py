"""Networks that learn from confident seeds which pixels belong together (PSA and IRN).

Both stand on the levels of a seed network, which they do not train. Pairs are all those within the
radius on the grid; the official code leaves out pairs whose upper end is nearer to the left, right
or lower border than the radius.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from tenfold.metrics.iou import IGNORED

from .crf import CLIP, IRN, PSA, CrfOptions, MeanField, label_energy
from .random_walk import boundary_affinity, feature_affinity, offsets, pair_views
from .seed_metrics import labels_at

EPS = 1e-5
Labels = UInt8[Tensor, "picture rows columns"]


@dataclass(frozen=True)
class Confident:
    """How seeds become labels that are sure: of a class, of the background, or ignored (255)."""

    form: Literal["psa", "irn"] = "psa"
    """PSA: two powers of the background; IRN: two thresholds."""
    low_alpha: float = 4.0
    """Background (1 - max)^alpha of the map that decides classes (PSA 4; MCTformer 1)."""
    high_alpha: float = 32.0
    """The same of the map that decides the background (PSA 32; MCTformer 12)."""
    foreground: float = 0.3
    """Threshold above which a pixel is surely of a class (IRN)."""
    background: float = 0.05
    """Threshold below which a pixel is surely background (IRN)."""

    def __post_init__(self) -> None:
        if not 0 < self.low_alpha <= self.high_alpha:
            raise ValueError(
                f"low_alpha must be above 0 and at most high_alpha, got {self.low_alpha} and "
                f"{self.high_alpha}"
            )
        if not 0 <= self.background <= self.foreground < 1:
            raise ValueError(
                f"background must be from 0 to foreground, and that below 1, got "
                f"{self.background} and {self.foreground}"
            )


def labels_from(
    image: UInt8[Tensor, "height width 3"],
    maps: Float[Tensor, "class height width"],
    options: Confident | None = None,
    crf: CrfOptions | None = None,
    stride: int = 8,
) -> UInt8[Tensor, "rows columns"]:
    """Labels on the grid of `stride` (rounded up): 0 background, class c as c + 1, 255 unsure.

    `maps` are normalised, 0 where a class is absent. PSA averages the CRF's probabilities over the
    stride's squares, IRN takes one pixel of each.
    """
    options = options or Confident()
    present = (maps.flatten(1).amax(1) > 0).nonzero()[:, 0]
    if options.form == "psa":
        sure_class, sure_ground = _by_power(image, maps[present], options, crf or PSA, stride)
    else:
        sure_class, sure_ground = _by_threshold(image, maps[present], options, crf or IRN, stride)
    labels = torch.cat([present.new_zeros(1), present + 1])[sure_class]
    labels[sure_class == 0] = IGNORED
    ground = sure_ground == 0
    # IRN asks both maps for background, PSA the second alone
    labels[ground if options.form == "psa" else ground & (sure_class == 0)] = 0
    return labels.to(torch.uint8)


def _by_power(
    image: Tensor, maps: Tensor, options: Confident, crf: CrfOptions, stride: int
) -> tuple[Tensor, Tensor]:
    highest = maps.amax(0, keepdim=True) if len(maps) else maps.new_zeros(1, *image.shape[:2])
    scores = torch.stack(
        [
            torch.cat([(1 - highest).clamp(min=0) ** alpha, maps])
            for alpha in (options.low_alpha, options.high_alpha)
        ]
    )
    found = MeanField(image, crf).run(-scores.clamp(CLIP, 1).log())
    size = (found.shape[-2], found.shape[-1])
    padding = (0, -size[1] % stride, 0, -size[0] % stride)
    # the padding has no score of any class: means over it keep their order
    low, high = F.avg_pool2d(F.pad(found, padding), stride).argmax(1)
    return low, high


def _by_threshold(
    image: Tensor, maps: Tensor, options: Confident, crf: CrfOptions, stride: int
) -> tuple[Tensor, Tensor]:
    crf = replace(crf, unary="labels")
    thresholds = (options.foreground, options.background)
    if not len(maps):
        nothing = torch.zeros(image.shape[:2], dtype=torch.int64)[::stride, ::stride]
        return nothing, nothing
    energies = [
        label_energy(labels_at(maps, threshold).long(), crf.gt_prob, len(maps) + 1)
        for threshold in thresholds
    ]
    found = MeanField(image, crf).run(torch.stack(energies)).argmax(1)
    foreground, background = found[:, ::stride, ::stride]
    return foreground, background


def _together(levels: Sequence[Tensor], parts: nn.ModuleList) -> Tensor:
    """Levels through their parts, all brought to the grid of the first, concatenated."""
    found = [part(level.detach()) for part, level in zip(parts, levels, strict=True)]
    size = (found[0].shape[-2], found[0].shape[-1])
    return torch.cat(
        [
            one
            if one.shape[-2:] == size
            else F.interpolate(one, size, mode="bilinear", align_corners=False)
            for one in found
        ],
        1,
    )


class AffinityNetwork(nn.Module):
    """PSA's AffinityNet: features whose differences say whether two pixels belong together."""

    def __init__(self, channels: Sequence[int], widths: Sequence[int] = (64, 128, 256)) -> None:
        """Take levels of `channels`; ResNet-38: conv4, conv5 and conv6 (512, 1024, 4096)."""
        super().__init__()
        if len(channels) != len(widths):
            raise ValueError(f"{len(channels)} levels, but {len(widths)} widths")
        convolutions = [
            nn.Conv2d(c, width, 1, bias=False) for c, width in zip(channels, widths, strict=True)
        ]
        for convolution in convolutions:
            nn.init.kaiming_normal_(convolution.weight)
        self.parts = nn.ModuleList(nn.Sequential(one, nn.ELU()) for one in convolutions)
        self.f9 = nn.Conv2d(sum(widths), sum(widths), 1, bias=False)
        nn.init.xavier_uniform_(self.f9.weight, gain=4)

    def forward(
        self, levels: Sequence[Float[Tensor, "picture _ _ _"]]
    ) -> Float[Tensor, "picture feature rows columns"]:
        """Features on the grid of the first level; `random_walk.psa` takes those of a picture."""
        return F.elu(self.f9(_together(levels, self.parts)))


class BoundaryNetwork(nn.Module):
    """IRN's boundary branch; its displacement field serves instances and is left out."""

    def __init__(self, channels: Sequence[int], widths: Sequence[int] | None = None) -> None:
        """Take levels of `channels`; ResNet-50: the five stages, widths of 32."""
        super().__init__()
        widths = [32] * len(channels) if widths is None else widths
        if len(channels) != len(widths) or any(width % 4 for width in widths):
            raise ValueError(f"widths {list(widths)} must be multiples of 4, one a level")
        self.parts = nn.ModuleList(
            nn.Sequential(nn.Conv2d(c, width, 1, bias=False), nn.GroupNorm(4, width), nn.ReLU())
            for c, width in zip(channels, widths, strict=True)
        )
        self.last = nn.Conv2d(sum(widths), 1, 1)

    def forward(
        self, levels: Sequence[Float[Tensor, "picture _ _ _"]]
    ) -> Float[Tensor, "picture rows columns"]:
        """Logits of a boundary on the grid of the first level; `random_walk.irn` takes sigmoids."""
        return self.last(_together(levels, self.parts))[:, 0]


def psa_loss(
    features: Float[Tensor, "picture feature rows columns"], labels: Labels, radius: int = 5
) -> Float[Tensor, ""]:
    """Mean of a quarter of background pairs', a quarter of classes' and half of unlike pairs'."""
    pairs = ((step, feature_affinity(features, step)) for step in offsets(radius))
    background, foreground, unlike = _pair_losses(pairs, labels)
    return background / 4 + foreground / 4 + unlike / 2


def irn_loss(
    logits: Float[Tensor, "picture rows columns"], labels: Labels, radius: int = 10
) -> Float[Tensor, ""]:
    """The same weights over the affinities that the boundaries make (IRN trains at radius 10)."""
    boundary = logits.sigmoid()
    pairs = ((step, boundary_affinity(boundary, step)) for step in offsets(radius))
    background, foreground, unlike = _pair_losses(pairs, labels)
    return (background / 2 + foreground / 2 + unlike) / 2


def _pair_losses(
    pairs: Iterable[tuple[tuple[int, int], Tensor]], labels: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Mean negative log likelihood of pairs within background, within a class, and unlike."""
    sums: list[Tensor | float] = [0.0, 0.0, 0.0]
    counts: list[Tensor | float] = [0.0, 0.0, 0.0]
    for step, affinity in pairs:
        here, there = pair_views(labels, step)
        sure = (here != IGNORED) & (there != IGNORED)
        alike = sure & (here == there)
        like, unlike = -(affinity + EPS).log(), -(1 + EPS - affinity).log()
        kinds = ((alike & (here == 0), like), (alike & (here > 0), like), (sure & ~alike, unlike))
        for kind, (which, cost) in enumerate(kinds):
            sums[kind] = sums[kind] + (cost * which).sum()
            counts[kind] = counts[kind] + which.sum()
    means = [torch.as_tensor(s) / (c + EPS) for s, c in zip(sums, counts, strict=True)]
    return means[0], means[1], means[2]
