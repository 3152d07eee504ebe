"""Measures of every network of a run on labelled images; processes share the images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor, nn

from tenfold.core.divide import divided
from tenfold.core.system import Evaluation
from tenfold.data.images.class_maps import CITYSCAPES_NAMES, SYNTHIA_13, SYNTHIA_16
from tenfold.data.images.segmentation import Segmented
from tenfold.metrics import iou

from . import data
from .config import Config
from .inference import answers, label_map
from .model import Networks

Metrics = dict[str, float]
TARGET_STATISTICS = "source only, statistics of the target"
"""Row of the network that saw no target image but in its batch norms."""
CHUNKS = 64
"""Parts of a small set that processes share; counts are whole numbers, so that their sum is the
same however they are divided."""
TOGETHER = 8
"""Images of a part, at most: their answers are held at once."""
MEANS = {"mIoU16": SYNTHIA_16, "mIoU13": SYNTHIA_13}
"""Means over fewer classes, as papers give them for SYNTHIA to Cityscapes."""


@dataclass(frozen=True)
class Details:
    """Counts that figures are drawn from."""

    confusion: dict[str, Int64[Tensor, "class class"]]
    """Network -> pixels by true class (row) and predicted class (column)."""
    source: Int64[np.ndarray, " class"]
    """Labelled pixels of each class in the source."""


def evaluate(networks: Networks, cfg: Config) -> Evaluation:
    """Measure all networks on the target's test images, or on the source's where it has no labels.

    Returns:
        Metrics in percent; the source's most frequent class as baseline; `Details`.
    """
    networks.eval()
    found = test_images(cfg)
    names = [*networks.names()]
    if cfg.method == "dts":
        names.append("ensemble")
    counts = confusions(networks, names, found, cfg)
    metrics: Metrics = {}
    for name in [networks.deployed, *names]:
        row = "deployed" if "iou/deployed/mIoU" not in metrics else name
        metrics |= measures(counts[name], cfg, row)
    pixels = data.source_pixels(cfg.data).sum(0)
    best = int(pixels.argmax())
    always = torch.zeros_like(counts[networks.deployed])
    always[:, best] = counts[networks.deployed].sum(1)
    frequent = measures(always, cfg, "deployed", classes=False)
    baselines = {f"{cfg.classes[best]} everywhere": frequent}
    if cfg.method == "source":
        adapted = confusions(with_target_statistics(networks, cfg), ["student1"], found, cfg)
        baselines[TARGET_STATISTICS] = measures(adapted["student1"], cfg, "deployed")
    return Evaluation(metrics, baselines, Details(counts, pixels))


@torch.no_grad()
def with_target_statistics(networks: Networks, cfg: Config) -> Networks:
    """A copy whose batch norms have the statistics of the target's training images."""
    found = deepcopy(networks)
    norms = [m for m in found.modules() if isinstance(m, nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean over all batches
        norm.train()
    pictures, size = data.target_pictures(cfg.data), cfg.data.batch_size
    device = next(found.parameters()).device
    for start in range(0, len(pictures), size):
        rows = range(start, min(start + size, len(pictures)))
        images = [data.resized(pictures.picture(row), cfg.data.target_size) for row in rows]
        # photos of several sizes (data.target_size 0 0) make several batches of one
        for _, alike in groupby(images, lambda image: image.shape):
            found.student(1)(data.normalised(list(alike)).to(device))
    return found.eval()


def test_images(cfg: Config) -> Segmented:
    """Labelled images that a run is measured on."""
    role = "target" if data.is_labelled(cfg.data) else "source"
    found = data.labelled(cfg.data, role, "test")
    return found.at(range(0, len(found), cfg.data.test_every))


def test_size(cfg: Config) -> tuple[int, int]:
    """Height and width at which they are seen: as images of their set are in training."""
    return cfg.data.target_size if data.is_labelled(cfg.data) else cfg.data.source_size


def confusions(
    networks: Networks, names: Sequence[str], found: Segmented, cfg: Config
) -> dict[str, Int64[Tensor, "class class"]]:
    """Pixels by true and predicted class over a whole set, for each of the networks."""
    count, size = len(cfg.classes), test_size(cfg)
    singles = [name for name in names if name != "ensemble"]

    def counted(rows: list[int]) -> Tensor:
        pictures, truths = zip(*map(found.scene, rows), strict=True)
        seen = {name: answers(networks.members(name), pictures, size) for name in singles}
        if "ensemble" in names:
            both = zip(seen["teacher1"], seen["teacher2"], strict=True)
            seen["ensemble"] = [((one.exp() + other.exp()) / 2).log() for one, other in both]
        return torch.stack([of_network(seen[name], truths) for name in names])

    def of_network(answered: list[Tensor], truths: Sequence[np.ndarray]) -> Tensor:
        each = [
            iou.confusion(
                torch.from_numpy(label_map(one, *truth.shape)), torch.tensor(truth), count
            )
            for one, truth in zip(answered, truths, strict=True)
        ]
        return torch.stack(each).sum(0)

    number = max(min(len(found), CHUNKS), -(-len(found) // TOGETHER))
    parts = np.array_split(np.arange(len(found)), number)
    totals = divided(len(parts), lambda i: counted(parts[i].tolist()), "test images")
    total = sum(totals)
    assert isinstance(total, Tensor)
    return dict(zip(names, total, strict=True))


def measures(
    counts: Int64[Tensor, "class class"], cfg: Config, row: str, classes: bool = True
) -> Metrics:
    """mIoU and accuracies of a network, and the IoU of each class that occurs, in percent."""
    numbers = iou.scores(counts)
    of_class = dict(zip(cfg.classes, (100 * iou.iou(counts)).tolist(), strict=True))
    if cfg.classes == CITYSCAPES_NAMES and cfg.data.source == "synthia":
        for title, names in MEANS.items():
            numbers[title] = mean_over(of_class, names)
    found = {f"iou/{row}/{column}": value for column, value in numbers.items()}
    for name, value in of_class.items() if classes else ():
        if not math.isnan(value):
            found[f"class/{name.replace('/', '-')}/{row}"] = value
    return found


def mean_over(of_class: dict[str, float], names: Sequence[str]) -> float:
    """Mean IoU of some classes; those that do not occur do not count."""
    values = [of_class[name] for name in names if not math.isnan(of_class[name])]
    return sum(values) / len(values) if values else 0.0
