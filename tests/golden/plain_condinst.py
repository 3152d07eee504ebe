"""CondInst and its losses computed plainly, in the order of the official code, for twins."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

SIZES = (64, 128, 256, 512, 1024)
Box = list[float]


def enlarged(x: Tensor, factor: int) -> Tensor:
    """Pixel k lies at (k - factor // 2) / factor cells, and at the first or last beyond them."""
    for dim in (2, 3):
        count = x.shape[dim]
        at = (torch.arange(factor * count) - factor // 2).clamp(min=0) / factor
        low = at.long()
        high = (low + 1).clamp(max=count - 1)
        share = (at - low).view(-1, *[1] * (3 - dim))
        x = x.index_select(dim, low) * (1 - share) + x.index_select(dim, high) * share
    return x


def picture(noise: np.ndarray, coarse: np.ndarray) -> Tensor:
    """RGB of BGR noise."""
    found = torch.from_numpy(noise) + enlarged(torch.from_numpy(coarse), 16)
    return found.clamp(0, 255).round()[:, [2, 1, 0]]


def around(x: Tensor) -> Tensor:
    """The eight neighbours at a distance of 2: [n, c, 8, h, w]."""
    n, c, h, w = x.shape
    found = F.unfold(x, 3, dilation=2, padding=2).view(n, c, 9, h, w)
    return found[:, :, [0, 1, 2, 3, 5, 6, 7, 8]]


def lab(rgb: np.ndarray) -> np.ndarray:
    """CIE Lab of [h, w, 3] in 0 to 255."""
    value = rgb / 255
    linear = np.where(value > 0.04045, ((value + 0.055) / 1.055) ** 2.4, value / 12.92)
    matrix = [[0.412453, 0.357580, 0.180423], [0.212671, 0.715160, 0.072169],
              [0.019334, 0.119193, 0.950227]]  # fmt: skip
    xyz = linear @ np.array(matrix).T / [0.95047, 1.0, 1.08883]
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    x, y, z = f[..., 0], f[..., 1], f[..., 2]
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], -1)


def similarity(image: Tensor, bottom: int) -> Tensor:
    """Of colours, [8, h, w]; a picture without padding."""
    small = F.avg_pool2d(image[None], 4)[0].to(torch.uint8).permute(1, 2, 0).numpy()
    colours = torch.from_numpy(lab(small.astype(float))).float().permute(2, 0, 1)[None]
    mask = torch.ones(1, 1, *image.shape[1:])
    mask[:, :, image.shape[1] - bottom :] = 0
    alike = torch.exp(-0.5 * torch.norm(colours[:, :, None] - around(colours), dim=1))
    return (alike * around(mask[:, :, 2::4, 2::4])[:, 0])[0]


def bitmask(box: Box, height: int, width: int) -> Tensor:
    whole = torch.zeros(height, width)
    whole[int(box[1]) : int(box[3] + 1), int(box[0]) : int(box[2] + 1)] = 1
    return whole[2::4, 2::4]


def dice(x: Tensor, target: Tensor) -> Tensor:
    return 1 - 2 * (x * target).sum() / ((x * x).sum() + (target * target).sum() + 1e-5)


def projection(scores: Tensor, inside: Tensor) -> Tensor:
    """Of one mask."""
    return sum(dice(scores.max(dim).values, inside.max(dim).values) for dim in (0, 1))


def pairwise_map(logits: Tensor) -> Tensor:
    """[n, 8, h, w] of [n, 1, h, w]."""
    front, back = F.logsigmoid(logits), F.logsigmoid(-logits)
    one, other = front[:, :, None] + around(front), back[:, :, None] + around(back)
    return -torch.logaddexp(one, other)[:, 0]


def point_terms(logits: Tensor, points: list[list[float]], labels: list[int]) -> Tensor:
    """Of one mask [h, w], by hand."""
    found = []
    for (x, y), label in zip(points, labels, strict=True):
        column, row = x / 4 - 0.5, y / 4 - 0.5
        value = torch.zeros(())
        for i in (int(np.floor(row)), int(np.floor(row)) + 1):
            for j in (int(np.floor(column)), int(np.floor(column)) + 1):
                if 0 <= i < logits.shape[0] and 0 <= j < logits.shape[1]:
                    value = value + logits[i, j] * (1 - abs(row - i)) * (1 - abs(column - j))
        found.append(F.softplus(-value) if label else F.softplus(value))
    return torch.stack(found)


def mask(
    features: Tensor, numbers: Tensor, xy: list[float], level: int, layers: list[tuple[int, int]],
    stride: int, out_stride: int, coordinates: bool = True, sizes: tuple = SIZES,
) -> Tensor:  # fmt: skip
    """One mask [h, w] of the features [c, h, w] of its picture; layers are (in, out)."""
    height, width = features.shape[1:]
    x = features
    if coordinates:
        y = torch.arange(height).float()[:, None] * stride + stride // 2
        at = torch.arange(width).float()[None] * stride + stride // 2
        relative = [(xy[0] - at).expand(height, width), (xy[1] - y).expand(height, width)]
        x = torch.cat([torch.stack(relative) / sizes[level], x])
    start, bias_at = 0, sum(a * b for a, b in layers)
    for number, (a, b) in enumerate(layers):
        weight = numbers[start : start + a * b].view(b, a)
        bias = numbers[bias_at : bias_at + b]
        x = (
            torch.einsum("oi,ihw->ohw", weight, x if number == 0 else x.relu())
            + bias[:, None, None]
        )
        start, bias_at = start + a * b, bias_at + b
    return enlarged(x[None], stride // out_stride)[0, 0] if stride != out_stride else x[0]


def places(height: int, width: int, strides: list[int]) -> list[tuple[int, float, float]]:
    """Level, x and y of every place."""
    return [
        (level, column * s + s // 2, row * s + s // 2)
        for level, s in enumerate(strides)
        for row in range(-(-height // s))
        for column in range(-(-width // s))
    ]


def wanted(
    where: list[tuple[int, float, float]], boxes: list[Box], strides: list[int],
    bounds: list[float], radius: float = 1.5, masks: list[Tensor] | None = None,
) -> list[tuple[int, list[float]]]:  # fmt: skip
    """Object (-1 for none) and distances in strides of each place."""
    found = []
    for level, x, y in where:
        best, area, chosen = -1, np.inf, [0.0] * 4
        low, high = [-1, *bounds][level], [*bounds, 1e8][level]
        for i, (x0, y0, x1, y1) in enumerate(boxes):
            sides = [x - x0, y - y0, x1 - x, y1 - y]
            if masks is None:
                reach = radius * strides[level]
                cx, cy = (x0 + x1) / 2, (y0 + y1) / 2
                near = min(x - max(cx - reach, x0), y - max(cy - reach, y0),
                           min(cx + reach, x1) - x, min(cy + reach, y1) - y) > 0  # fmt: skip
            else:
                near = min(sides) > 0 and bool(masks[i][int(y), int(x)])
            size = (x1 - x0) * (y1 - y0)
            if near and low <= max(sides) <= high and size < area:
                best, area, chosen = i, size, [d / strides[level] for d in sides]
        found.append((best, chosen))
    return found


def detector_losses(
    logits: Tensor, distances: Tensor, central: Tensor, labels: list[int], targets: Tensor
) -> dict[str, Tensor]:
    """Of flat places; labels are the number of classes where there is no object."""
    classes = logits.shape[1]
    has = [i for i, label in enumerate(labels) if label < classes]
    truth = F.one_hot(torch.tensor(labels), classes + 1)[:, :classes].float()
    p = logits.sigmoid()
    focal = -0.25 * truth * (1 - p) ** 2 * F.logsigmoid(logits)
    focal = focal - 0.75 * (1 - truth) * p**2 * F.logsigmoid(-logits)
    box, centre, weights = [], [], []
    for i in has:
        (pl, pt, pr, pb), (tl, tt, tr, tb) = distances[i], targets[i]
        shared = (torch.min(pl, tl) + torch.min(pr, tr)) * (torch.min(pt, tt) + torch.min(pb, tb))
        outer = (torch.max(pl, tl) + torch.max(pr, tr)) * (torch.max(pt, tt) + torch.max(pb, tb))
        union = (pl + pr) * (pt + pb) + (tl + tr) * (tt + tb) - shared
        giou = (shared + 1) / (union + 1) - (outer - union) / outer
        across, down = torch.min(tl, tr) / torch.max(tl, tr), torch.min(tt, tb) / torch.max(tt, tb)
        weight = torch.sqrt(across * down)
        box.append((1 - giou) * weight)
        weights.append(weight)
        centre.append(weight * F.softplus(-central[i]) + (1 - weight) * F.softplus(central[i]))
    count = max(len(has), 1)
    return {
        "loss_fcos_cls": focal.sum() / count, "loss_fcos_loc": sum(box) / sum(weights),
        "loss_fcos_ctr": sum(centre) / count,
    }  # fmt: skip


def detections(
    logits: Tensor, distances: Tensor, central: Tensor, where: list[tuple[int, float, float]],
    strides: list[int], threshold: float, per_level: int, overlap: float, most: int,
) -> list[tuple[float, int, int, list[float]]]:  # fmt: skip
    """Score, class, place and box of a picture's objects, best first."""
    chance = (logits.sigmoid() * central.sigmoid()[:, None]).tolist()
    found = []
    for level in range(len(strides)):
        own = [
            (score, label, i)
            for i, row in enumerate(chance)
            for label, score in enumerate(row)
            if where[i][0] == level and score > threshold
        ]
        found += sorted(own, key=lambda one: -one[0])[:per_level]
    kept: list[tuple[float, int, int, list[float]]] = []
    for score, label, i in sorted(found, key=lambda one: -one[0]):
        level, x, y = where[i]
        left, top, right, bottom = (distances[i] * strides[level]).tolist()
        box = [x - left, y - top, x + right, y + bottom]
        if all(of != label or iou(box, other) <= overlap for _, of, _, other in kept):
            kept.append((score**0.5, label, i, box))
    return kept[:most]


def iou(a: Box, b: Box) -> float:
    shared = max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(
        0.0, min(a[3], b[3]) - max(a[1], b[1])
    )
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)


# --- the whole network, by its official names -----------------------------------------------------


def network(state: dict[str, Tensor], image: Tensor) -> tuple[list[Tensor], Tensor, list]:
    """Levels, mask features, and (classes, distances, centreness, numbers) of each level."""

    def conv(x: Tensor, key: str, stride: int = 1) -> Tensor:
        weight = state[f"{key}.weight"]
        return F.conv2d(x, weight, state.get(f"{key}.bias"), stride, weight.shape[2] // 2)

    def norm(x: Tensor, key: str) -> Tensor:
        mean, var = state[f"{key}.running_mean"], state[f"{key}.running_var"]
        return F.batch_norm(x, mean, var, state[f"{key}.weight"], state[f"{key}.bias"])

    def tower(x: Tensor, key: str) -> Tensor:
        number = 0
        while f"{key}.{number}.weight" in state:
            x = conv(x, f"{key}.{number}")
            x = F.group_norm(
                x, 32, state[f"{key}.{number + 1}.weight"], state[f"{key}.{number + 1}.bias"]
            ).relu()
            number += 3
        return x

    key = "backbone.bottom_up.stem.conv1"
    x = F.max_pool2d(norm(conv(image, key, 2), f"{key}.norm").relu(), 3, 2, 1)
    maps = []
    for stage in range(2, 6):
        block = 0
        while f"backbone.bottom_up.res{stage}.{block}.conv1.weight" in state:
            key = f"backbone.bottom_up.res{stage}.{block}"
            stride = 2 if stage > 2 and block == 0 else 1
            y = norm(conv(x, f"{key}.conv1", stride), f"{key}.conv1.norm").relu()
            y = norm(conv(y, f"{key}.conv2"), f"{key}.conv2.norm").relu()
            y = norm(conv(y, f"{key}.conv3"), f"{key}.conv3.norm")
            if f"{key}.shortcut.weight" in state:
                x = norm(conv(x, f"{key}.shortcut", stride), f"{key}.shortcut.norm")
            x, block = (x + y).relu(), block + 1
        maps.append(x)
    top = conv(maps[3], "backbone.fpn_lateral5")
    levels = [conv(top, "backbone.fpn_output5")]
    for level in (4, 3):
        top = conv(maps[level - 2], f"backbone.fpn_lateral{level}") + F.interpolate(
            top, scale_factor=2
        )
        levels.insert(0, conv(top, f"backbone.fpn_output{level}"))
    levels.append(conv(levels[2], "backbone.top_block.p6", 2))
    levels.append(conv(levels[3].relu(), "backbone.top_block.p7", 2))

    def block(x: Tensor, key: str) -> Tensor:
        return norm(conv(x, f"{key}.0"), f"{key}.1").relu()

    x = block(levels[0], "mask_branch.refine.0")
    for number in (1, 2):
        x = x + enlarged(block(levels[number], f"mask_branch.refine.{number}"), 2**number)
    number = 0
    while f"mask_branch.tower.{number}.0.weight" in state:
        x, number = block(x, f"mask_branch.tower.{number}"), number + 1
    features = conv(x, f"mask_branch.tower.{number}")
    head, found = "proposal_generator.fcos_head", []
    for number, level in enumerate(levels):
        of_class, of_box = tower(level, f"{head}.cls_tower"), tower(level, f"{head}.bbox_tower")
        scale = state[f"{head}.scales.{number}.scale"]
        distances = (conv(of_box, f"{head}.bbox_pred") * scale).relu()
        found.append((
            conv(of_class, f"{head}.cls_logits"), distances, conv(of_box, f"{head}.ctrness"),
            conv(of_box, "controller"),
        ))  # fmt: skip
    return levels, features, found
