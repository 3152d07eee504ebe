"""Type-I requests of ViRReq in the order of the official code, written anew and plainly.

Levels are enlarged and joined before they are fused; features of 512 channels are divided by their
length; all logits are enlarged, cut into groups, given the logit of others, and allowed parts are
found instance by instance. A request on a picture runs the classifier, enlarges the logits of all
names, and takes the largest among some. Names of parameters are ours.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from straightforward_dts import PlainConv, PlainEncoder, resized
from torch import nn
from torch.nn import functional as F

from tenfold.systems.dts.config import Model

FORBIDDEN = math.log(1e-40)


class PlainHead(nn.Module):
    """SegFormer's head in mmsegmentation's order."""

    def __init__(self, widths: Sequence[int], channels: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList([PlainConv(width, channels, 1) for width in widths])
        self.fusion_conv = PlainConv(len(widths) * channels, channels, 1)

    def forward(self, maps: Sequence[torch.Tensor]) -> torch.Tensor:
        size = maps[0].shape[2:]
        levels = [resized(conv(x), size) for conv, x in zip(self.convs, maps, strict=True)]
        return self.fusion_conv(torch.cat(levels, 1))


class PlainClassifier(nn.Module):
    def __init__(self, channels: int, dim: int, dropout: float) -> None:
        super().__init__()
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))
        self.channel_transform = PlainConv(channels, dim, 3)
        self.dropout = nn.Dropout2d(dropout)

    def forward(self, x: torch.Tensor, texts: torch.Tensor) -> torch.Tensor:
        x = self.dropout(self.channel_transform(x))
        batch, dim, height, width = x.shape
        x = x.permute(0, 2, 3, 1).reshape(-1, dim)
        x = x / x.norm(dim=-1, keepdim=True)
        texts = texts / texts.norm(dim=-1, keepdim=True)
        logits = self.logit_scale.exp() * x @ texts.t()
        return logits.view(batch, height, width, -1).permute(0, 3, 1, 2)


class PlainNetwork(nn.Module):
    def __init__(self, cfg: Model, channels: int, dim: int) -> None:
        super().__init__()
        self.backbone = PlainEncoder(cfg)
        for module in self.backbone.modules():
            if isinstance(module, nn.LayerNorm):
                module.eps = 1e-6
        self.decode_head = PlainHead(cfg.dims, channels)
        self.classifier = PlainClassifier(channels, dim, cfg.dropout)

    def forward(self, images: torch.Tensor, texts: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.decode_head(self.backbone(images)), texts)


def losses(
    logits: torch.Tensor, semantic: torch.Tensor, parts: torch.Tensor, count: int,
    others: tuple[float, float], instances: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:  # fmt: skip
    """Both losses, of the first `count` names and of the parts; the labels are copied first."""
    semantic, parts = semantic.clone(), parts.clone()
    logits = resized(logits, semantic.shape[1:])
    whole, of_parts = logits[:, :count], logits[:, count:]
    pixels = float(semantic.numel())
    if instances is not None:
        of_parts, pixels = allowed(of_parts, parts, instances)
    for labels in (semantic, parts):
        labels[labels == 255] = -1
        labels += 1
    if instances is not None:
        parts[instances == 255] = 0
    found = []
    for values, labels, weight, number in ((whole, semantic, others[0], semantic.numel()),
                                           (of_parts, parts, others[1], pixels)):  # fmt: skip
        values = F.pad(values, (0, 0, 0, 0, 1, 0))
        weights = values.new_ones(values.shape[1])
        weights[0] = weight
        each = F.cross_entropy(values, labels.long(), weights, reduction="none")
        found.append(each.sum() / number)
    return found[0], found[1]


def allowed(
    logits: torch.Tensor, parts: torch.Tensor, instances: torch.Tensor
) -> tuple[torch.Tensor, float]:
    """Logits of the parts that occur on each instance, and the number of pixels that have some."""
    mask = torch.zeros_like(logits, dtype=torch.bool).permute(0, 2, 3, 1)
    for image, (own, of_parts) in enumerate(zip(instances, parts, strict=True)):
        for number in own.unique():
            if number == 255:
                continue
            present = of_parts[own == number].unique()
            present = present[present < 255].long()
            if len(present):
                row = torch.zeros(logits.shape[1], dtype=torch.bool)
                row[present] = True
                mask[image, own == number] = row
    pixels = float(mask.sum(-1).bool().sum())
    logits = logits.clone()
    logits[~mask.permute(0, 3, 1, 2)] = FORBIDDEN
    return logits, max(pixels, 1.0)


def request(
    network: PlainNetwork, fused: torch.Tensor, texts: torch.Tensor, size: Sequence[int],
    children: Sequence[int], unit: torch.Tensor,
) -> torch.Tensor:  # fmt: skip
    """Labels of a unit's pixels, from the features of the head."""
    logits = resized(network.classifier(fused, texts), size)[0, list(children)]
    best = F.pad(logits, (0, 0, 0, 0, 1, 0)).softmax(0).argmax(0)
    return best.masked_fill(~unit, -1)
