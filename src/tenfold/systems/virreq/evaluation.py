"""Measures of Type-I requests: each whole of the truth is asked for its parts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Int64
from torch import Tensor

from tenfold.core.divide import divided
from tenfold.core.system import Evaluation
from tenfold.data.images import runs
from tenfold.metrics.iou import IGNORED, confusion, iou
from tenfold.metrics.panoptic import TreeQuality, hpq, probe_quality
from tenfold.structures import Code, Tree

from . import data, sets
from .config import Config
from .groups import Group, groups, keys
from .model import Networks
from .recogniser import OpenedPicture, TrainedRecogniser
from .requests import Recognition
from .segmentation import Encoded, Network

PROBES = 5
"""Pixels of each true object that are probed."""
Probed = list[tuple[Code, list[Code]]]
"""True objects and the masks of their probes."""


@dataclass(frozen=True)
class Details:
    """What pictures and claims are made from."""

    trees: TreeQuality
    """HPQ of regions, all asked for from the picture down."""

    counts: dict[str, Int64[Tensor, "_ _"]]
    """Whole -> pixels by true part (row) and found part (column); 0 is others."""
    names: dict[str, tuple[str, ...]]
    """Whole -> its parts."""


def evaluate(networks: Networks, cfg: Config, split: str) -> Evaluation:
    """Parts of every whole, inside the whole as the truth has it; and trees from the picture down.

    Returns:
        "iou/<whole>/mIoU" over the parts that occur, "iou/parts/mIoU" over the parts of all wholes
        but the picture, "iou/hidden/mIoU" of concepts without labels in training and
        "iou/known/mIoU" of the other parts,
        "concept/<whole>/<part>", "probe/objects/..." of the objects that pixels of the truth
        return (IoU, share of at least 0.5, IoU of two of one object), and "hpq/regions/all":
        hierarchical panoptic quality of regions (as `metrics.panoptic.hpq` reconstructs it), in
        percent. Others count where they were found, and are no class.
    """
    kb = data.knowledge_of(cfg)
    own = groups(kb, data.codes_of(cfg), "parent", numbers=sets.table_size(cfg.data))
    found = data.open_split(cfg, split)
    rows = range(0, len(found), cfg.data.test_every if split == "test" else 1)
    recogniser = TrainedRecogniser(networks, kb, objects=False)
    things = data.things_of(kb, data.codes_of(cfg), sets.table_size(cfg.data))

    def work(place: int) -> tuple[list[Int64[Tensor, "_ _"]], Tree, Tree, Probed]:
        item, picture, labels = found.read(rows[place])
        opened, numbers = recogniser.open(picture), sets.numbers_in(labels)
        counts = of_picture(networks.divide, own, opened.encoded, numbers)
        objects = data.objects_of(
            numbers, things, cfg.separate.least, objects=sets.objects_in(labels)
        )
        regions = things.inside[:, numbers]
        asked = probes_of(opened, objects, regions, rows[place]) if networks.separate else []
        return counts, item.truth(kb), Recognition(opened, kb).run(kb.depth), asked

    shares = divided(len(rows), work, "measuring")
    counts = {g.name: torch.stack([one[0][i] for one in shares]).sum(0) for i, g in enumerate(own)}
    metrics, parts, hidden, known = {}, [], [], []
    named = list(keys(kb).values())
    unseen = {key for number, key in keys(kb).items() if kb.node(number).name in cfg.data.hidden}
    names = {group.name: tuple(named[row] for row in group.rows) for group in own}
    for group in own:
        each = iou(counts[group.name])[1:]
        is_true = counts[group.name][1:].sum(1) > 0
        if is_true.any():
            metrics[f"iou/{group.name}/mIoU"] = 100 * float(each[is_true].mean())
        if group.level > 1:
            parts.append(each[is_true])
        for name, value, occurs in zip(names[group.name], each, is_true, strict=True):
            if not occurs:
                continue
            if name in unseen:
                hidden.append(value)
            elif group.level > 1:
                known.append(value)
            metrics[f"concept/{group.name}/{name.replace('/', '-')}"] = 100 * float(value)
    if parts and len(every := torch.cat(parts)):
        metrics["iou/parts/mIoU"] = 100 * float(every.mean())
    for name, values in (("hidden", hidden), ("known", known)):
        if hidden and values:
            metrics[f"iou/{name}/mIoU"] = 100 * float(torch.stack(values).mean())
    quality = hpq([one[1] for one in shares], [one[2] for one in shares])
    metrics["hpq/regions/all"] = 100 * quality.hpq
    for level, measured in enumerate(quality.levels, 1):
        metrics[f"hpq/regions/level {level}"] = 100 * measured.pq
    probed = [one for share in shares for one in share[3]]
    if probed:
        asked = probe_quality([true for true, _ in probed], [masks for _, masks in probed])
        metrics["probe/objects/IoU"] = 100 * asked.iou
        metrics["probe/objects/recall"] = 100 * asked.recall
        metrics["probe/objects/agreement"] = 100 * asked.consistency
    return Evaluation(metrics, details=Details(quality, counts, names))


def probes_of(
    opened: OpenedPicture,
    objects: dict[str, Tensor],
    regions: Bool[np.ndarray, "thing height width"],
    row: int,
) -> Probed:
    """Each true object of a picture, and what some of its pixels return inside its class's region.

    The pixels follow from the picture's number.
    """
    draw = np.random.default_rng(row)
    kb, networks = opened.recogniser.kb, opened.recogniser.networks
    found = []
    for label, mask in zip(objects["labels"].tolist(), objects["masks"].numpy(), strict=True):
        places = np.argwhere(mask)
        node, masks = kb.node(networks.things[label]), []
        for y, x in places[draw.integers(len(places), size=PROBES)].tolist():
            masks.append(runs.code_of(opened.probe(x, y, node).mask & regions[label]))
        found.append((runs.code_of(mask), masks))
    return found


def of_picture(
    network: Network,
    own: list[Group],
    encoded: Encoded,
    numbers: Int64[np.ndarray, "height width"],
) -> list[Int64[Tensor, "_ _"]]:
    """Counts of each group: pixels by true and found part inside the whole."""
    codes = torch.from_numpy(numbers)
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
