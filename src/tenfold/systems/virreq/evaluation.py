"""Measures of Type-I requests: each whole of the truth is asked for its parts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from tenfold.core.divide import divided
from tenfold.core.system import Evaluation
from tenfold.data.images.scene_views import channels_first
from tenfold.metrics.iou import IGNORED, confusion, iou

from . import data
from .config import Config
from .groups import Group, groups, keys
from .model import normalised
from .segmentation import Network


@dataclass(frozen=True)
class Details:
    """What pictures and claims are made from."""

    counts: dict[str, Int64[Tensor, "_ _"]]
    """Whole -> pixels by true part (row) and found part (column); 0 is others."""
    names: dict[str, tuple[str, ...]]
    """Whole -> its parts."""


def evaluate(network: Network, cfg: Config, split: str) -> Evaluation:
    """mIoU of the parts of every whole, inside the whole as the truth has it.

    Returns:
        "iou/<whole>/mIoU" over the parts that occur, in percent, and "iou/parts/mIoU" over the
        parts of all wholes but the picture; others count as found, not as a class.
    """
    kb = data.knowledge_of(cfg)
    own = groups(kb, data.codes_of(cfg), "parent")
    found = data.open_pictures(cfg.data, split)
    rows = range(0, len(found), cfg.data.test_every if split == "test" else 1)
    network.eval()
    shares = divided(
        len(rows),
        lambda place: of_picture(network, own, *found.items[rows[place]].read()),
        "measuring",
    )
    counts = {
        group.name: sum((share[i] for share in shares), torch.zeros(()).long())
        for i, group in enumerate(own)
    }
    metrics, parts = {}, []
    named = list(keys(kb).values())
    names = {group.name: tuple(named[row] for row in group.rows) for group in own}
    for group in own:
        each = iou(counts[group.name])[1:]
        is_true = counts[group.name][1:].sum(1) > 0
        values = each[is_true]
        if len(values):
            metrics[f"iou/{group.name}/mIoU"] = 100 * float(values.mean())
        if group.level > 1:
            parts.append(values)
        for name, value, known in zip(names[group.name], each, is_true, strict=True):
            if known:
                metrics[f"concept/{group.name}/{name.replace('/', '-')}"] = 100 * float(value)
    if parts and len(every := torch.cat(parts)):
        metrics["iou/parts/mIoU"] = 100 * float(every.mean())
    return Evaluation(metrics, details=Details(counts, names))


def of_picture(
    network: Network, own: list[Group], picture: np.ndarray, labels: np.ndarray
) -> list[Int64[Tensor, "_ _"]]:
    """Counts of each group: pixels by true and found part inside the whole."""
    encoded = network.encode(normalised(channels_first(picture)))
    codes = torch.from_numpy(labels.astype(np.int64))
    vectors = network.texts.rows_of()
    found = []
    for group in own:
        inside = group.inside[codes]
        size = len(group.rows) + 1
        if not inside.any():
            found.append(torch.zeros(size, size, dtype=torch.int64))
            continue
        answer = network.answer(encoded, vectors[list(group.rows)], inside)
        wanted = group.wanted[codes].long()
        truth = torch.where(wanted == IGNORED, 0, wanted + 1)
        truth = torch.where(inside, truth, IGNORED)
        found.append(confusion(answer.labels.long(), truth, size))
    return found
