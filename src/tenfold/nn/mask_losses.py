"""Losses of masks under full masks, boxes alone, and points.

Dice (V-Net, arXiv 1606.04797), projection and pairwise terms of BoxInst (arXiv 2012.02310, sec. 3),
points of PointSup (arXiv 2104.06404, sec. 4). Maps have a cell for each `STRIDE` x `STRIDE` pixels.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor

STRIDE = 4
"""Pixels of a cell's side."""
DILATION = 2
"""Cells between neighbours whose labels are compared (BoxInst, sec. 3.2)."""
STEPS = tuple(
    (dy, dx)
    for dy in (-DILATION, 0, DILATION)
    for dx in (-DILATION, 0, DILATION)
    if (dy, dx) != (0, 0)
)
"""From a cell to its eight neighbours."""
SIMILAR = 0.3
"""Least similarity of colours of neighbours that should have one label."""
XYZ = (
    (0.412453, 0.357580, 0.180423),
    (0.212671, 0.715160, 0.072169),
    (0.019334, 0.119193, 0.950227),
)
"""From linear sRGB to XYZ (ITU-R BT.709 primaries, D65)."""
WHITE = (0.95047, 1.0, 1.08883)
"""XYZ of D65, 2 degrees."""


def dice_loss(
    scores: Float[Tensor, "mask *cell"], targets: Float[Tensor, "mask *cell"]
) -> Float[Tensor, " mask"]:
    """1 - 2 <x, t> / (|x|^2 + |t|^2) of each mask."""
    x, t = scores.flatten(1), targets.flatten(1)
    shared = (x * t).sum(1)
    return 1 - 2 * shared / (x.square().sum(1) + t.square().sum(1) + 1e-5)


def projection_loss(
    scores: Float[Tensor, "mask height width"], inside: Float[Tensor, "mask height width"]
) -> Float[Tensor, " mask"]:
    """Dice of a mask's largest scores in each row and in each column with those of its box."""
    return dice_loss(scores.amax(1), inside.amax(1)) + dice_loss(scores.amax(2), inside.amax(2))


def cells_of_boxes(
    boxes: Float[Tensor, "object 4"], height: int, width: int
) -> Bool[Tensor, "object height width"]:
    """Cells of a map whose pixel at (STRIDE / 2, STRIDE / 2) lies in the box, ends included."""
    low = boxes[:, :2].trunc()[:, :, None]
    high = (boxes[:, 2:] + 1).trunc()[:, :, None]
    at = torch.arange(max(height, width), device=boxes.device) * STRIDE + STRIDE // 2
    inside = (at >= low) & (at < high)
    return inside[:, 1, :height, None] & inside[:, 0, None, :width]


def lab(images: Float[Tensor, "image 3 height width"]) -> Float[Tensor, "image 3 height width"]:
    """CIE L*a*b* of sRGB in 0 to 255, under D65."""
    rgb = images.double() / 255
    linear = torch.where(rgb > 0.04045, ((rgb + 0.055) / 1.055) ** 2.4, rgb / 12.92)
    xyz = torch.einsum("xc,nchw->nxhw", linear.new_tensor(XYZ), linear)
    xyz = xyz / linear.new_tensor(WHITE).view(1, 3, 1, 1)
    x, y, z = torch.where(xyz > 0.008856, xyz.pow(1 / 3), 7.787 * xyz + 16 / 116).unbind(1)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], 1).float()


def neighbours(
    maps: Float[Tensor, "*map height width"],
) -> Float[Tensor, "*map 8 height width"]:
    """Values of the eight neighbours of each cell, 0 outside."""
    height, width = maps.shape[-2:]
    padded = F.pad(maps, (DILATION,) * 4)
    parts = [
        padded[..., DILATION + y : DILATION + y + height, DILATION + x : DILATION + x + width]
        for y, x in STEPS
    ]
    return torch.stack(parts, -3)


@torch.no_grad()
def colour_similarity(
    images: Float[Tensor, "image 3 height width"], valid: Bool[Tensor, "image height width"]
) -> Float[Tensor, "image 8 rows columns"]:
    """Similarity of the colours of each cell and its neighbours, exp(-|difference| / 2) in Lab.

    Args:
        images: RGB in 0 to 255, sides a multiple of `STRIDE`.
        valid: Pixels that count; a cell whose middle does not is like no neighbour.
    """
    colours = lab(F.avg_pool2d(images.float(), STRIDE).trunc())
    distance = (colours[:, :, None] - neighbours(colours)).square_().sum(1).sqrt()
    middle = valid[:, STRIDE // 2 :: STRIDE, STRIDE // 2 :: STRIDE]
    return (-distance / 2).exp() * neighbours(middle.float())


def disagreement(one: Float[Tensor, "*cell"], other: Float[Tensor, "*cell"]) -> Tensor:
    """-log of the probability that cells of these logits have the same label.

    That is s(a) s(b) + s(-a) s(-b) = s(a) s(b) (1 + exp(-a - b)) with the sigmoid s.
    """
    return F.softplus(-one) + F.softplus(-other) - F.softplus(-one - other)


def pairwise_loss(
    logits: Float[Tensor, "mask height width"],
    edges: Bool[Tensor, "mask 8 height width"],
    count: Float[Tensor, ""] | None = None,
) -> Float[Tensor, ""]:
    """Mean disagreement over those edges, from each cell to its eight neighbours, that count.

    count: Number that the sum is divided by; None for that of the edges.
    """
    mask, step, row, column = edges.nonzero(as_tuple=True)
    dy, dx = torch.tensor(STEPS, device=logits.device)[step].unbind(1)
    height, width = logits.shape[1:]
    other_row, other_column = row + dy, column + dx
    flat = logits.reshape(-1)
    one = flat.take((mask * height + row) * width + column)
    other = flat.take((mask * height + other_row) * width + other_column)
    total = disagreement(one, other).sum()
    return total / (total.new_tensor(len(mask)) if count is None else count).clamp(min=1)


def point_loss(
    logits: Float[Tensor, "mask height width"],
    xy: Float[Tensor, "mask point 2"],
    labels: Int64[Tensor, "mask point"],
    count: Float[Tensor, ""] | None = None,
) -> Float[Tensor, ""]:
    """Mean binary cross-entropy of labelled points against bilinear samples of the logits.

    Official code divides by the number of all points, those without a label too
    (PointSup, point_utils.py).

    Args:
        logits: Of masks, a cell for `STRIDE` x `STRIDE` pixels; 0 outside.
        xy: In pixels of the padded batch; the middle of the first pixel is (0.5, 0.5).
        labels: 1 on the object, 0 off it, -1 without a label.
        count: Number that the sum is divided by; None for that of the labelled points.
    """
    height, width = logits.shape[1:]
    grid = 2 * xy / xy.new_tensor([width * STRIDE, height * STRIDE]) - 1
    sampled = F.grid_sample(logits[:, None], grid[:, :, None], align_corners=False)[:, 0, :, 0]
    known = labels >= 0
    each = F.binary_cross_entropy_with_logits(
        sampled, labels.clamp(min=0).to(sampled.dtype), reduction="none"
    )
    total = torch.where(known, each, 0.0).sum()
    return total / (known.sum() if count is None else count).clamp(min=1)
