"""Measures of every stage: seeds and pseudo masks on training pictures, the network on the test's.

Pictures without masks are not measured, and the evaluation says so.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from tenfold.core.divide import divided
from tenfold.core.system import Evaluation
from tenfold.data.images.image_labels import Item, MultiLabelSet, read_image, read_mask
from tenfold.metrics import iou
from tenfold.viz.predictions import spread

from . import choices, data, inference
from .config import WITH_NETWORK, Config
from .kept import prepared
from .model import Networks
from .pipeline import Pipeline
from .principle import by_evidence, recommend_tau
from .seed_metrics import THRESHOLDS, Curve, average_precision

Metrics = dict[str, float]
CHUNKS = 64
"""Parts of a set, at most, that processes share; counts are whole numbers, so that their sum is
the same however they are divided."""
NOTHING = "background everywhere"
FREQUENCY = "classes by frequency"


@dataclass(frozen=True)
class Details:
    """Curves and counts that figures are drawn from."""

    curves: dict[str, Curve] = field(default_factory=dict)
    """Split -> mIoU, FP and FN of seeds at every threshold."""
    choices: dict[str, float] = field(default_factory=dict)
    """Way to choose the threshold -> its value on the training pictures."""
    balance: dict[str, tuple[float, float]] = field(default_factory=dict)
    """Stage -> FP and FN, in percent."""
    confusion: Int64[Tensor, "class class"] | None = None
    """Pixels of the test by true and predicted class."""
    threshold: float = 0.0
    """Of the run."""


def evaluate(networks: Networks, cfg: Config, pipeline: Pipeline) -> Evaluation:
    """Measure seeds, pseudo masks and segmentation, as far as there are masks to measure by."""
    networks.eval()
    found = _Found(cfg)
    sets = data.open_sets(cfg.data)
    if cfg.is_seed_trained:
        for split in ("validation", "test"):
            _classifier(found, networks, cfg, sets.split(split), split)
    if pipeline.has_seeds:
        _seeds(found, pipeline)
    _masks(found, pipeline)
    if networks.segment is not None:
        _segmentation(found, networks, pipeline)
    details = Details(found.curves, found.choices, found.balance, found.confusion, found.threshold)
    return Evaluation(found.metrics, found.baselines, details, tuple(found.notes))


class _Found:
    """Results as they come in."""

    def __init__(self, cfg: Config) -> None:
        self.cfg = cfg
        self.metrics: Metrics = {}
        self.baselines: dict[str, Metrics] = {}
        self.notes: list[str] = []
        self.curves: dict[str, Curve] = {}
        self.choices: dict[str, float] = {}
        self.balance: dict[str, tuple[float, float]] = {}
        self.confusion: Tensor | None = None
        self.threshold = 0.0

    def baseline(self, row: str, values: Metrics) -> None:
        self.baselines.setdefault(row, {}).update(values)

    def counted(self, group: str, split: str, counts: Tensor) -> None:
        """Take in pixels by true and predicted class."""
        self.metrics |= measures(counts, group, split)
        names = ("background", *self.cfg.classes)
        for name, value in zip(names, (100 * iou.iou(counts)).tolist(), strict=True):
            if not math.isnan(value):
                self.metrics[f"class/{name.replace('/', '-')}/{group}"] = value
        nothing = torch.zeros_like(counts)
        nothing[:, 0] = counts.sum(1)
        self.baseline(NOTHING, measures(nothing, group, split))
        fp, fn = balance(counts)
        self.balance[f"{group}, {split}"] = (fp, fn)

    def unmeasured(self, what: str, split: str) -> None:
        self.notes.append(f"not measured: {what}, as the {split} pictures have no masks")


def measures(counts: Int64[Tensor, "class class"], group: str, row: str) -> Metrics:
    """mIoU over classes that occur, background too, and the errors of both kinds, in percent."""
    fp, fn = balance(counts)
    errors = f"errors/{group}, {row}"
    return {
        f"{group}/{row}/mIoU": iou.scores(counts)["mIoU"], f"{errors}/FP": fp, f"{errors}/FN": fn,
    }  # fmt: skip


def balance(counts: Int64[Tensor, "class class"]) -> tuple[float, float]:
    """Pixels wrongly given to a class, and those missed, over the union: means over classes that
    occur, in percent (MCTformer's evaluation.py)."""
    right = counts.diagonal().double()
    true, given = counts.sum(1), counts.sum(0)
    union = true + given - right
    occurs = union > 0
    if not bool(occurs.any()):
        return 0.0, 0.0
    wrong, missed = ((part - right)[occurs] / union[occurs] for part in (given, true))
    return 100 * float(wrong.mean()), 100 * float(missed.mean())


def counted(
    found: MultiLabelSet, predict: Callable[[Item], np.ndarray], num_classes: int, title: str
) -> Int64[Tensor, "class class"]:
    """Pixels by true and predicted class over the pictures that have masks."""
    items = [item for item in found.items if item.has_mask]

    def one(item: Item) -> Tensor:
        truth = read_mask(item)
        assert truth is not None
        given = torch.from_numpy(np.ascontiguousarray(predict(item)))
        return iou.confusion(given, torch.from_numpy(truth.copy()), num_classes)

    parts = np.array_split(np.arange(len(items)), min(len(items), CHUNKS))
    totals = divided(len(parts), lambda i: sum(one(items[row]) for row in parts[i]), title)
    total = sum(totals)
    assert isinstance(total, Tensor)
    return total


# --- one stage after the other -------------------------------------------------------------------


def _classifier(
    found: _Found, networks: Networks, cfg: Config, some: MultiLabelSet, split: str
) -> None:
    """Average precision of each class over pictures, of the scores that training sees."""
    items = some.items
    if not items:
        return

    network = prepared(networks.seed)

    def one(row: int) -> Tensor:
        return inference.class_logits(network, cfg, [read_image(items[row])])[0]

    scores = torch.stack(divided(len(items), one, f"classes of {split} pictures"))
    count = len(cfg.classes)
    labels = torch.stack([data.one_hot(item.labels, count) for item in items]).bool()
    found.metrics[f"classifier/{split}/mAP"] = _mean(average_precision(scores, labels))
    frequency = 100 * labels.double().mean(0)
    found.baseline(
        FREQUENCY, {f"classifier/{split}/mAP": _mean(frequency[labels.any(0)])}
    )  # fmt: skip


def _mean(values: Tensor) -> float:
    kept = values[~values.isnan()]
    return float(kept.mean()) if len(kept) else 0.0


def _seeds(found: _Found, pipeline: Pipeline) -> None:
    """Seeds at the run's threshold and at the best one, and what other choices would give."""
    cfg, threshold = found.cfg, choices.choose(pipeline)
    found.threshold = threshold
    able = [n for n in cfg.threshold.compare if cfg.is_seed_trained or n not in WITH_NETWORK]
    chosen = choices.criteria(pipeline, able)
    found.choices = {name: one.threshold for name, one in chosen.items()}
    # the sweep ends before 1; what lies beyond is measured as it is, not as the sweep's end
    beyond = [t for t in (threshold, *found.choices.values()) if t > THRESHOLDS[-1]]
    for split in ("train", "validation"):
        if not pipeline.items(split):
            continue
        if split not in cfg.masked:
            found.unmeasured("seeds", split)
            continue
        sweep = pipeline.sweep(split, beyond)
        curve = sweep.curve()
        found.curves[split] = curve
        row = curve.at(threshold)
        if split == "train":
            found.counted("seeds", split, sweep.counts[row])
        else:
            found.metrics |= measures(sweep.counts[row], "seeds", split)
        found.metrics |= measures(sweep.counts[curve.best], "seeds", f"{split}, best threshold")
        found.metrics[f"threshold/best of {split}/value"] = curve.thresholds[curve.best]
    for name, value in {"chosen": threshold, **found.choices}.items():
        found.metrics[f"threshold/{name}/value"] = value
        if "train" in found.curves:
            curve = found.curves["train"]
            lost = curve.miou[curve.best] - curve.miou[curve.at(value)]
            found.metrics[f"lost/{name}/points"] = float(lost)
    if cfg.is_seed_trained and not cfg.loss.tau_pos:
        _recommendation(found, pipeline)


def _recommendation(found: _Found, pipeline: Pipeline) -> None:
    """The temperature that the errors of the usual classifier ask for, and its evidence."""
    advice = {}
    if "train" in found.curves:
        advice["by errors"] = recommend_tau(found.curves["train"])
    if "confidence" in found.cfg.threshold.compare:
        advice["by evidence"] = by_evidence(*choices.evidence(pipeline, found.threshold))
    for name, one in advice.items():
        found.metrics[f"tau/{name}/value"] = one.tau
        found.notes.append(f"recommended {name} of these seeds: {one}")


def _masks(found: _Found, pipeline: Pipeline) -> None:
    """Pseudo masks of the training pictures."""
    cfg = found.cfg
    if "train" not in cfg.masked:
        found.unmeasured("pseudo masks", "train")
        return
    pipeline.make_masks()
    some = pipeline.sets.train
    counts = counted(some, pipeline.pseudo_mask, len(cfg.classes) + 1, "pseudo masks")
    found.counted("masks", "train", counts)


def _segmentation(found: _Found, networks: Networks, pipeline: Pipeline) -> None:
    """The segmentation network on the test pictures."""
    network, cfg, test = networks.segment, found.cfg, pipeline.sets.test
    assert network is not None
    if "test" not in cfg.masked:
        found.unmeasured("segmentation", "test")
        _agreement(found, networks, pipeline)
        return

    def predict(item: Item) -> np.ndarray:
        return inference.segmentation(network, cfg, read_image(item))

    counts = counted(test, predict, len(cfg.classes) + 1, "test pictures")
    found.counted("segmentation", "test", counts)
    found.confusion = counts


def _agreement(found: _Found, networks: Networks, pipeline: Pipeline) -> None:
    """Overlap of the network with the masks that it learned from: no measure of either."""
    network, cfg = networks.segment, found.cfg
    assert network is not None
    items = spread(pipeline.items("train"), cfg.threshold.pictures or len(pipeline.items("train")))
    pipeline.make_masks()

    def one(row: int) -> Tensor:
        given = torch.from_numpy(inference.segmentation(network, cfg, read_image(items[row])))
        mask = torch.from_numpy(np.ascontiguousarray(pipeline.pseudo_mask(items[row])))
        return iou.confusion(given, mask, len(cfg.classes) + 1)

    counts = divided(len(items), one, "segmentation against pseudo masks")
    total = torch.stack(counts).sum(0)
    found.metrics["agreement/train/mIoU"] = iou.scores(total)["mIoU"]
