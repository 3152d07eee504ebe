"""Random walks that spread seeds over pixels that belong together (PSA, IRN), and by attention.

Official (misc/indexing.py of jiwoon-ahn/irn, infer_aff.py of jiwoon-ahn/psa): a dense matrix over
all pairs of pixels, its columns normalised, squared `log2_steps` times. A pixel has at most 68
neighbours within radius 5, and a class needs one vector: here the sparse matrix is applied
2^log2_steps times instead, equal up to rounding, with memory linear in the pixels.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

Maps = Float[Tensor, "class rows columns"]


def offsets(radius: int) -> list[tuple[int, int]]:
    """Steps (down, right) to the neighbours nearer than `radius`, one of each pair of opposites."""
    if radius < 2:
        raise ValueError(f"a radius of {radius} has no neighbours, the least is 2")
    right = [(0, x) for x in range(1, radius)]
    return right + [
        (y, x)
        for y in range(1, radius)
        for x in range(1 - radius, radius)
        if x * x + y * y < radius * radius
    ]


def pair_views(maps: Tensor, step: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Views of `maps` [..., rows, columns] at both ends of every pair that is `step` apart."""
    down, right = step
    rows, columns = max(0, maps.shape[-2] - down), max(0, maps.shape[-1] - abs(right))
    left = max(0, -right)
    return (
        maps[..., :rows, left : left + columns],
        maps[..., down : down + rows, left + right : left + right + columns],
    )


def path(step: tuple[int, int]) -> list[tuple[int, int]]:
    """Pixels of the straight path of a step, both ends too: those nearer than 1 to the line."""
    down, right = step
    low, high = sorted((0, right))
    return [
        (y, x)
        for y in range(down + 1)
        for x in range(low, high + 1)
        if (down * x - right * y) ** 2 < down * down + right * right
    ]


def boundary_affinity(
    boundary: Float[Tensor, "*batch rows columns"], step: tuple[int, int]
) -> Float[Tensor, "*batch inner_rows inner_columns"]:
    """Affinity of every pair that is `step` apart: 1 - the highest boundary on its path (IRN)."""
    rows, columns = pair_views(boundary, step)[0].shape[-2:]
    left = max(0, -step[1])
    highest: Tensor | None = None
    for y, x in path(step):
        seen = boundary[..., y : y + rows, left + x : left + x + columns]
        highest = seen if highest is None else torch.maximum(highest, seen)
    assert highest is not None
    return 1 - highest


def irn(
    boundary: Float[Tensor, "rows columns"],
    maps: Maps,
    radius: int = 5,
    beta: float = 10.0,
    log2_steps: int = 8,
) -> Maps:
    """Maps after 2^log2_steps steps of the walk that boundaries (0 to 1) hold back.

    `maps` are on the boundary's grid; they are not normalised (the official code divides by the
    highest value of the picture and takes 0.25 for background afterwards).
    """
    pairs = {step: boundary_affinity(boundary, step) for step in offsets(radius)}
    return walk(pairs, maps * (1 - boundary), beta, log2_steps)


def feature_affinity(
    features: Float[Tensor, "*batch channel rows columns"], step: tuple[int, int]
) -> Float[Tensor, "*batch inner_rows inner_columns"]:
    """Affinity of every pair that is `step` apart: exp(-mean |difference|) (PSA)."""
    here, there = pair_views(features, step)
    return torch.exp(-(here - there).abs().mean(-3))


def psa(
    features: Float[Tensor, "channel rows columns"],
    maps: Float[Tensor, "class height width"],
    stride: int = 8,
    radius: int = 5,
    alpha: float = 16.0,
    beta: float = 8.0,
    log2_steps: int = 8,
    full_border: bool = True,
) -> Float[Tensor, "labels height width"]:
    """Scores of background and classes after the walk of PSA; their argmax is the pseudo mask.

    `maps` are normalised (0 to 1) and in pixels; background is (1 - max)^alpha; all are averaged
    over the stride's squares, and brought back bilinearly. `full_border=False` leaves out the pairs
    that the official code does not make: those whose upper end is in the last rows, or in the first
    or last columns, nearer to the border than the radius; such pixels then spread less.
    """
    height, width = maps.shape[1:]
    rows, columns = features.shape[1:]
    if (rows, columns) != (-(-height // stride), -(-width // stride)):
        raise ValueError(
            f"features of {rows}x{columns} do not fit maps of {height}x{width} at stride {stride}: "
            f"expected {-(-height // stride)}x{-(-width // stride)}"
        )
    background = (1 - maps.amax(0, keepdim=True)).clamp(min=0) ** alpha
    seeds = F.pad(
        torch.cat([background, maps]), (0, columns * stride - width, 0, rows * stride - height)
    )
    pairs = {step: feature_affinity(features, step) for step in offsets(radius)}
    if not full_border:
        kept = torch.zeros_like(features[0])
        kept[: 1 - radius, radius - 1 : 1 - radius] = 1
        pairs = {step: pair * pair_views(kept, step)[0] for step, pair in pairs.items()}
    walked = walk(pairs, F.avg_pool2d(seeds, stride), beta, log2_steps)
    return F.interpolate(walked[None], scale_factor=stride, mode="bilinear", align_corners=False)[
        0, :, :height, :width
    ]


def walk(
    pairs: dict[tuple[int, int], Tensor],
    maps: Maps,
    beta: float,
    log2_steps: int,
) -> Maps:
    """Maps times T^(2^log2_steps), where T is the affinity^beta with its columns' sums made 1.

    `pairs` holds, for each step of `offsets`, the affinity of all pairs that are so far apart.
    """
    rows, columns = maps.shape[1:]
    here = torch.arange(rows * columns, dtype=torch.int32, device=maps.device)
    here = here.view(rows, columns)
    neighbours, weights = [here], [maps.new_ones(rows, columns)]
    for step, affinity in pairs.items():
        if not affinity.numel():
            continue
        scaled = affinity.to(maps.dtype) ** beta
        for end, other in ((0, 1), (1, 0)):
            weight, index = torch.zeros_like(maps[0]), here.clone()
            pair_views(weight, step)[end].copy_(scaled)
            pair_views(index, step)[end].copy_(pair_views(here, step)[other])
            weights.append(weight)
            neighbours.append(index)
    index = torch.stack(neighbours, -1).flatten(0, 1)
    weight = torch.stack(weights, -1).flatten(0, 1)
    weight = weight / weight.sum(1, keepdim=True)  # symmetric before: a row is a column
    values = maps.flatten(1).T.contiguous()
    for _ in range(2**log2_steps):
        values = F.embedding_bag(index, values, per_sample_weights=weight, mode="sum")
    return values.T.reshape(maps.shape)


def by_attention(affinity: Float[Tensor, "pixel pixel"], maps: Maps) -> Maps:
    """Maps refined by the patch affinity of a transformer: one step, not normalised (MCTformer)."""
    return (maps.flatten(1) @ affinity.T).view(maps.shape)
