"""A step of DACS, DAFormer and DTS in the order of the official code, written anew and plainly.

The teacher is averaged by a loop over parameters and runs in training mode with autograd on;
source, feature distance and mixed images have a forward or backward pass each, the distance by a
second one through the kept graph; images are changed one by one; the blur has a square kernel. Maps
are in the usual order of channels, and attention is materialised. Names of parameters are those of
official files.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from tenfold.data.images.mixing import MEAN, STD, Jitter, Strong, kernel_size
from tenfold.systems.dts.config import Config, Model

Pair = tuple[torch.Tensor, torch.Tensor]


# --- the network ---------------------------------------------------------------------------------


class PlainDropPath(nn.Module):
    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.training or not self.rate:
            return x
        keep = torch.rand(len(x), 1, 1) >= self.rate
        return x / (1 - self.rate) * keep


class PlainAttention(nn.Module):
    def __init__(self, dim: int, heads: int, reduction: int) -> None:
        super().__init__()
        self.heads, self.reduction = heads, reduction
        self.q, self.kv, self.proj = (nn.Linear(dim, n * dim) for n in (1, 2, 1))
        if reduction > 1:
            self.sr, self.norm = nn.Conv2d(dim, dim, reduction, reduction), nn.LayerNorm(dim)

    def forward(self, x: torch.Tensor, height: int, width: int) -> torch.Tensor:
        batch, tokens, dim = x.shape
        split = (self.heads, dim // self.heads)
        q = self.q(x).reshape(batch, tokens, *split).permute(0, 2, 1, 3)
        few = x
        if self.reduction > 1:
            grid = x.permute(0, 2, 1).reshape(batch, dim, height, width)
            few = self.norm(self.sr(grid).reshape(batch, dim, -1).permute(0, 2, 1))
        k, v = self.kv(few).reshape(batch, -1, 2, *split).permute(2, 0, 3, 1, 4)
        shares = ((q @ k.transpose(-2, -1)) * split[1] ** -0.5).softmax(-1)
        return self.proj((shares @ v).transpose(1, 2).reshape(batch, tokens, dim))


class PlainMlp(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim)
        self.dwconv = nn.ModuleDict({"dwconv": nn.Conv2d(4 * dim, 4 * dim, 3, 1, 1, 1, 4 * dim)})

    def forward(self, x: torch.Tensor, height: int, width: int) -> torch.Tensor:
        x = self.fc1(x)
        grid = x.transpose(1, 2).view(len(x), -1, height, width)
        return self.fc2(F.gelu(self.dwconv["dwconv"](grid).flatten(2).transpose(1, 2)))


class PlainBlock(nn.Module):
    def __init__(self, dim: int, heads: int, reduction: int, rate: float) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim, 1e-6), nn.LayerNorm(dim, 1e-6)
        self.attn, self.mlp = PlainAttention(dim, heads, reduction), PlainMlp(dim)
        self.drop_path = PlainDropPath(rate)

    def forward(self, x: torch.Tensor, height: int, width: int) -> torch.Tensor:
        x = x + self.drop_path(self.attn(self.norm1(x), height, width))
        return x + self.drop_path(self.mlp(self.norm2(x), height, width))


class PlainEncoder(nn.Module):
    def __init__(self, cfg: Model) -> None:
        super().__init__()
        rates, channels = torch.linspace(0, cfg.drop_path, sum(cfg.depths)).tolist(), 3
        for i, dim in enumerate(cfg.dims, 1):
            side, stride = (7, 4) if i == 1 else (3, 2)
            proj = nn.Conv2d(channels, dim, side, stride, side // 2)
            embed = nn.ModuleDict({"proj": proj, "norm": nn.LayerNorm(dim)})
            blocks = [PlainBlock(dim, cfg.heads[i - 1], cfg.reductions[i - 1], rates.pop(0))
                      for _ in range(cfg.depths[i - 1])]  # fmt: skip
            self.add_module(f"patch_embed{i}", embed)
            self.add_module(f"block{i}", nn.ModuleList(blocks))
            self.add_module(f"norm{i}", nn.LayerNorm(dim, 1e-6))
            channels = dim

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        found = []
        for i in range(1, 5):
            embed = self.get_submodule(f"patch_embed{i}")
            x = embed["proj"](x)
            batch, _, height, width = x.shape
            x = embed["norm"](x.flatten(2).transpose(1, 2))
            for block in self.get_submodule(f"block{i}"):
                x = block(x, height, width)
            x = self.get_submodule(f"norm{i}")(x).reshape(batch, height, width, -1)
            x = x.permute(0, 3, 1, 2).contiguous()
            found.append(x)
        return found


class PlainConv(nn.Module):
    def __init__(self, channels: int, out: int, side: int, dilation: int = 1, groups: int = 1):
        super().__init__()
        padding = side // 2 * dilation
        self.conv = nn.Conv2d(channels, out, side, 1, padding, dilation, groups, bias=False)
        self.bn = nn.BatchNorm2d(out)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(self.bn(self.conv(x)), inplace=True)


class PlainHead(nn.Module):
    def __init__(self, cfg: Model, classes: int) -> None:
        super().__init__()
        wide = cfg.head_dim
        self.embed_layers = nn.ModuleDict({
            str(i): nn.ModuleDict({"proj": nn.Linear(dim, wide)}) for i, dim in enumerate(cfg.dims)
        })  # fmt: skip
        branches: list[nn.Module] = [PlainConv(4 * wide, wide, 1)]
        for dilation in (6, 12, 18):
            far = PlainConv(4 * wide, 4 * wide, 3, dilation, 4 * wide)
            parts = {"depthwise_conv": far, "pointwise_conv": PlainConv(4 * wide, wide, 1)}
            branches.append(nn.ModuleDict(parts))
        self.fuse_layer = nn.ModuleDict(
            {"aspp_modules": nn.ModuleList(branches), "bottleneck": PlainConv(4 * wide, wide, 3)}
        )
        self.dropout, self.conv_seg = nn.Dropout2d(cfg.dropout), nn.Conv2d(wide, classes, 1)

    def forward(self, maps: Sequence[torch.Tensor]) -> torch.Tensor:
        levels = []
        for embed, x in zip(self.embed_layers.values(), maps, strict=True):
            y = embed["proj"](x.flatten(2).transpose(1, 2)).permute(0, 2, 1).contiguous()
            levels.append(resized(y.reshape(len(x), -1, *x.shape[2:]), maps[0].shape[2:]))
        x = torch.cat(levels, 1)
        near, *others = self.fuse_layer["aspp_modules"]
        found = [near(x), *(f["pointwise_conv"](f["depthwise_conv"](x)) for f in others)]
        return self.conv_seg(self.dropout(self.fuse_layer["bottleneck"](torch.cat(found, 1))))


def resized(x: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    return F.interpolate(x, tuple(size), mode="bilinear", align_corners=False)


class PlainNetwork(nn.Module):
    """A Mix Transformer with DAFormer's head."""

    def __init__(self, cfg: Model, classes: int) -> None:
        super().__init__()
        self.backbone, self.decode_head = PlainEncoder(cfg), PlainHead(cfg, classes)

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits at the images' size, and the last features."""
        maps = self.backbone(images)
        return resized(self.decode_head(maps), images.shape[2:]), maps[-1]


# --- changes of images ---------------------------------------------------------------------------


def changed(image: torch.Tensor, jitter: Jitter | None, sigma: float | None) -> torch.Tensor:
    """Colours and blur of one image, (1, 3, height, width)."""
    mean, std = torch.tensor(MEAN).view(1, 3, 1, 1), torch.tensor(STD).view(1, 3, 1, 1)
    if jitter is not None:
        x = image * std + mean
        for which in jitter.order:
            if which == 0:
                x = (x + (jitter.brightness - 1)).clamp(0, 1)
            elif which == 1:
                x = (x * jitter.contrast).clamp(0, 1)
            else:
                hue, saturation, value = hsv(x)
                if which == 2:
                    saturation = (saturation * jitter.saturation).clamp(0, 1)
                else:
                    hue = (hue + jitter.hue) % 1
                x = rgb(hue, saturation, value)
        image = (x - mean) / std
    if sigma is not None:
        rows, columns = (kernel_size(side) for side in image.shape[2:])
        kernel = gaussian(rows, sigma)[:, None] * gaussian(columns, sigma)[None]
        pad = (columns // 2, columns // 2, rows // 2, rows // 2)
        wide = F.pad(image, pad, mode="reflect")
        image = F.conv2d(wide, kernel.expand(3, 1, rows, columns), groups=3)
    return image


def gaussian(length: int, sigma: float) -> torch.Tensor:
    weights = torch.exp(-((torch.arange(length) - length // 2) ** 2) / (2 * sigma**2))
    return weights / weights.sum()


def hsv(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    value, which = x.max(1)
    spread = value - x.min(1)[0]
    divisor = torch.where(spread == 0, torch.ones_like(spread), spread)
    red, green, blue = ((value - part) / divisor for part in x.unbind(1))
    sixths = torch.stack([blue - green, 2 + red - blue, 4 + green - red], 1)
    hue = sixths.gather(1, which[:, None])[:, 0] / 6 % 1
    return hue, spread / (value + 1e-6), value


def rgb(hue: torch.Tensor, saturation: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    sixth = torch.floor(hue * 6) % 6
    rest = hue * 6 % 6 - sixth
    p, q = value * (1 - saturation), value * (1 - rest * saturation)
    t = value * (1 - (1 - rest) * saturation)
    order = torch.stack([value, q, p, p, t, value, t, value, value, q, p, p, p, p, t, value, value,
                         q], 1)  # fmt: skip
    places = torch.stack([sixth, sixth + 6, sixth + 12], 1).long()
    return order.gather(1, places)


# --- the step ------------------------------------------------------------------------------------


class PlainHost:
    """One student, its teacher and, for DAFormer, the encoder as it was before."""

    def __init__(
        self, cfg: Config, student: PlainNetwork, teacher: PlainNetwork, things: Sequence[int]
    ) -> None:
        self.host, self.student, self.teacher = cfg.host, student, teacher
        self.things = list(things) if cfg.host.has_features else None
        self.before = PlainEncoder(cfg.model)
        self.before.load_state_dict(student.backbone.state_dict())
        self.before.eval().requires_grad_(False)
        student.train()
        teacher.train().requires_grad_(False)
        for module in teacher.modules():
            if isinstance(module, PlainDropPath | nn.Dropout2d):
                module.eval()
        decay, groups = cfg.optim.weight_decay, []
        for name, value in student.named_parameters():
            rate = cfg.optim.lr * (cfg.head_lr if "head" in name else 1)
            kept = 0.0 if "norm" in name and "head" not in name else decay
            groups.append({"params": [value], "lr": rate, "weight_decay": kept})
        self.optimiser = torch.optim.AdamW(groups, foreach=False, fused=False)

    def average(self, step: int) -> None:
        """The teacher follows the student; at the first step it is the student."""
        alpha = min(1 - 1 / (step + 1), self.host.alpha)
        pairs = zip(self.teacher.parameters(), self.student.parameters(), strict=True)
        for old, new in pairs:
            if not old.data.shape:
                old.data = alpha * old.data + (1 - alpha) * new.data
            else:
                old.data[:] = alpha * old[:].data[:] + (1 - alpha) * new[:].data[:]

    def labels(self, images: torch.Tensor) -> Pair:
        """Pseudo labels, and their weight, one for all pixels of the batch."""
        logits, _ = self.teacher(images)
        confidence, labels = torch.max(torch.softmax(logits.detach().float(), 1), 1)
        sure = confidence.ge(self.host.threshold).long() == 1
        weight = torch.sum(sure).item() / np.size(np.array(labels.cpu()))
        return labels, weight * torch.ones(confidence.shape)

    def supervised(self, images: torch.Tensor, labels: torch.Tensor) -> list[float]:
        """Source pass, and the distance of features by a second backward pass."""
        logits, features = self.student(images)
        loss = entropy(logits, labels.long(), torch.ones(labels.shape))
        loss.backward(retain_graph=self.things is not None)
        found = [loss.item()]
        if self.things is not None:
            with torch.no_grad():
                before = self.before(images)[-1]
            distance = self.distance(features, before, labels, logits.shape[1])
            distance.backward()
            found.append(distance.item())
        return found

    def distance(
        self, features: torch.Tensor, before: torch.Tensor, labels: torch.Tensor, classes: int
    ) -> torch.Tensor:
        assert self.things is not None
        kinds = labels.long().clone()
        kinds[kinds == 255] = classes
        factor = labels.shape[2] // features.shape[3]
        one_hot = F.one_hot(kinds, classes + 1).permute(0, 3, 1, 2).float()
        share, cells = torch.max(F.avg_pool2d(one_hot, factor), 1)
        cells[(cells == classes) | (share < self.host.feature_share)] = 255
        mask = (cells[..., None] == torch.tensor(self.things)).any(-1)
        if not mask.any():  # where the official code has NaN
            return 0.0 * features.sum()
        far = torch.norm(features - before, dim=1, p=2)
        return self.host.feature_weight * torch.mean(far[mask])

    def mixed(self, above: Sequence[torch.Tensor], below: Sequence[torch.Tensor],
              chosen: torch.Tensor, drawn: Strong) -> float:  # fmt: skip
        """Paste the drawn classes of one batch (images, labels, weights) on the other, and learn
        from them."""
        images, labels, weights = [], [], []
        for i in range(len(chosen)):
            kinds = chosen[i].nonzero()[:, 0]
            mask = (above[1][i : i + 1].long()[..., None] == kinds).any(-1).long()
            parts = [a[i : i + 1] * mask + b[i : i + 1] * (1 - mask)
                     for a, b in zip(above, below, strict=True)]  # fmt: skip
            jitter = drawn.jitters[i] if drawn.jitters else None
            sigma = drawn.sigmas[i] if drawn.sigmas else None
            images.append(changed(parts[0], jitter, sigma))
            labels.append(parts[1])
            weights.append(parts[2])
        logits, _ = self.student(torch.cat(images))
        loss = entropy(logits, torch.cat(labels).long(), torch.cat(weights))
        loss.backward()
        return loss.item()


def entropy(logits: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    losses = F.cross_entropy(logits.float(), labels, reduction="none", ignore_index=255)
    return (losses * weights).mean()
