"""Measures of every task on a test split; the processes of a job share the batches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor, nn

from tenfold.core.divide import divided
from tenfold.core.seed import generator
from tenfold.core.system import Evaluation
from tenfold.data.images import views
from tenfold.data.images.classification import Photos
from tenfold.data.images.coco import SceneSet
from tenfold.data.images.segmentation import Segmented
from tenfold.metrics import ap, iou, probes
from tenfold.nn.hivit import HiViT

from . import data
from .config import Config
from .inference import detect, label_map
from .model import Classifier, PixelPretraining
from .networks import device_of, network_of
from .tasks import Detector, Localiser, Segmenter

T = TypeVar("T")

BATCH = 200
"""Images that go through a network at once."""
CHUNKS = 256
"""Parts of a dense set, at most, that processes share; their counts are whole numbers, so that
their sum is the same however they are divided."""
TINY_PIXELS = 16
"""Side to which images are shrunk for the baseline without a network."""
Metrics = dict[str, float]


@dataclass(frozen=True)
class Details:
    """Outputs for the test images, task by task: what figures are drawn from."""

    logits: Float[Tensor, "image class"] | None = None
    """Of the classifier."""
    boxes: Float[np.ndarray, "image 4"] | None = None
    """Of localisation: x0 y0 x1 y1 in pixels."""
    confusion: Int64[Tensor, "class class"] | None = None
    """Of segmentation: pixels by true class (row) and predicted class (column)."""


def _batches(count: int, work: Callable[[range], T], title: str = "") -> list[T]:
    """Results of all batches of BATCH rows, in order; no title where training shows a bar."""
    starts = range(0, count, BATCH)
    return divided(len(starts), lambda i: work(range(count)[starts[i] : starts[i] + BATCH]), title)


def _chunks(count: int, work: Callable[[int], Tensor]) -> Tensor:
    """The sum of whole-numbered results of all rows."""
    parts = np.array_split(np.arange(count), min(count, CHUNKS))
    totals = divided(len(parts), lambda i: sum(map(work, parts[i].tolist())))
    total = sum(totals)
    assert isinstance(total, Tensor)
    return total


def centres(photos: Photos, rows: range, cfg: Config) -> UInt8[Tensor, "image 3 side side"]:
    """Return the test views of some images."""
    size, share = cfg.model.size, cfg.data.test_crop
    return torch.stack([views.centre(photos.picture(i), size, share) for i in rows])


def evaluate(model: nn.ModuleDict, cfg: Config, frozen: HiViT | None) -> Evaluation:
    """Measure all tasks on their test splits.

    Args:
        model: Networks by task.
        cfg: Their configuration.
        frozen: The backbone that tasks start from, to be probed; None leaves probes out.

    Returns:
        Metrics in percent, but for losses; baselines that need no network; `Details`.
    """
    metrics: Metrics = {}
    baselines: dict[str, Metrics] = {}
    seen: dict[str, Any] = {}

    def photos(split: str) -> Photos:
        return data.photographs(cfg.data, split, cfg.seed)

    if frozen is not None:
        metrics, baselines["pixels, 16 x 16"] = probed(frozen, photos("train"), photos("test"), cfg)
    for task in cfg.tasks:
        network = network_of(model, task)
        if isinstance(network, PixelPretraining):
            metrics |= reconstruction(network, photos("test"), cfg)
        elif isinstance(network, Classifier):
            seen["logits"] = class_logits(network, photos("test"), cfg)
            metrics |= accuracy(seen["logits"], torch.tensor(photos("test").labels))
        elif isinstance(network, Localiser):
            seen["boxes"] = boxes(network, photos("test"), cfg)
            metrics |= overlap(seen["boxes"], photos("test"))
            baselines["mean box"] = mean_box(photos("train"), photos("test"))
        elif isinstance(network, Segmenter):
            train, test = (data.segmented(cfg.data, split) for split in ("train", "test"))
            numbers, seen["confusion"] = segmentation(network, test, cfg)
            metrics |= numbers
            baselines["most frequent class"] = most_frequent(train, test)
        elif isinstance(network, Detector):
            objects = data.instances(cfg.data, "test").aligned(cfg.classes)
            metrics |= detection(network, objects, cfg)
    return Evaluation(metrics, baselines, Details(**seen))


# --- probes of a frozen network ------------------------------------------------------------------


@torch.inference_mode()
def features(backbone: HiViT, photos: Photos, cfg: Config) -> Float[Tensor, "image dim"]:
    """Return the mean token of the main stage for each image."""
    device, how = device_of(backbone), cfg.data.normalise
    backbone.eval()

    def work(rows: range) -> Tensor:
        x = data.normalised(centres(photos, rows, cfg), how).to(device)
        return backbone.encode(x).tokens.mean(1).float().cpu()

    return torch.cat(_batches(len(photos), work, "features"))


def pixels(photos: Photos, cfg: Config) -> Float[Tensor, "image value"]:
    """Return images shrunk to 16 x 16 pixels, which need no network."""

    def work(rows: range) -> Tensor:
        x = centres(photos, rows, cfg) / 255
        return nn.functional.interpolate(x, (TINY_PIXELS,) * 2, mode="area").flatten(1)

    return torch.cat(_batches(len(photos), work))


def probed(backbone: HiViT, train: Photos, test: Photos, cfg: Config) -> tuple[Metrics, Metrics]:
    """Probe a frozen network, and shrunk pixels as its baseline.

    Returns:
        Top-1 of a linear probe and of nearest neighbours (percent), of both.
    """
    sides = [
        (features(backbone, train, cfg).clone(), features(backbone, test, cfg).clone()),
        (pixels(train, cfg), pixels(test, cfg)),
    ]
    labels, truth = (torch.tensor(p.labels) for p in (train, test))
    count = len(train.classes)

    def work(index: int) -> Metrics:
        side, is_linear = index // 2, index % 2 == 0
        x, y = sides[side]
        if is_linear:
            logits = probes.linear_probe(x, labels, y, count)
            return {"accuracy/linear probe/top1": probes.top(logits, truth)}
        votes = probes.neighbours(x, labels, y, count)
        return {"accuracy/nearest neighbours/top1": probes.top(votes, truth)}

    own = divided(4, work, "probes")
    return own[0] | own[1], own[2] | own[3]


# --- tasks on photos -----------------------------------------------------------------------------


@torch.inference_mode()
def reconstruction(network: PixelPretraining, photos: Photos, cfg: Config) -> Metrics:
    """Return the loss of pixels on test images, under masks that are always the same."""
    network.eval()
    device = device_of(network)

    def work(rows: range) -> float:
        draw = generator("masks of the test", rows.start // BATCH)
        noise = torch.rand(len(rows), network.shape.units, generator=draw)
        images = data.normalised(centres(photos, rows, cfg), cfg.data.normalise).to(device)
        loss = network({"images": images, "noise": noise.to(device)})["loss/pixel"]
        return float(loss) * len(rows)

    total = 0.0
    for loss in _batches(len(photos), work, "reconstruction"):
        total += loss
    return {"loss/pre-training/pixels": total / len(photos)}


@torch.inference_mode()
def class_logits(network: Classifier, photos: Photos, cfg: Config) -> Float[Tensor, "image class"]:
    """Return the logits of a classifier for test views."""
    network.eval()
    device, how = device_of(network), cfg.data.normalise

    def work(rows: range) -> Tensor:
        x = data.normalised(centres(photos, rows, cfg), how).to(device)
        return network.logits(x).float().cpu()

    return torch.cat(_batches(len(photos), work))


def accuracy(logits: Float[Tensor, "image class"], labels: Int64[Tensor, " image"]) -> Metrics:
    """Return top-1 and top-5 of fine-tuning (percent)."""
    found = {"accuracy/fine-tuned/top1": probes.top(logits, labels)}
    if logits.shape[1] > 5:
        found["accuracy/fine-tuned/top5"] = probes.top(logits, labels, 5)
    return found


@torch.inference_mode()
def boxes(network: Localiser, photos: Photos, cfg: Config) -> Float[np.ndarray, "image 4"]:
    """Return predicted boxes in pixels of each (whole, stretched) test image."""
    network.eval()
    device, size = device_of(network), cfg.model.size

    def work(rows: range) -> np.ndarray:
        images = [photos.picture(i) for i in rows]
        whole = [views.view(p, (0, 0, p.shape[1], p.shape[0]), False, size) for p in images]
        x = data.normalised(torch.stack(whole), cfg.data.normalise).to(device)
        shares = network.boxes(x).cpu().numpy().clip(0, 1)  # within the image, as predict has them
        return shares * np.array([[p.shape[1], p.shape[0]] * 2 for p in images])

    return np.concatenate(_batches(len(photos), work)).astype(np.float32)


def overlap(predicted: Float[np.ndarray, "image 4"], photos: Photos) -> Metrics:
    """Return mean IoU and the share of boxes above 0.5 (percent)."""
    assert photos.boxes is not None
    each = iou.box_iou(torch.from_numpy(predicted), torch.tensor(photos.boxes)).numpy()
    return {
        "overlap/localised/iou": 100 * float(each.mean()),
        "overlap/localised/above half": 100 * float((each > 0.5).mean()),
    }


def mean_box(train: Photos, test: Photos) -> Metrics:
    """Measure the baseline of localisation: the training boxes' mean place, whatever the image."""
    assert train.boxes is not None

    def sides(photos: Photos) -> np.ndarray:
        def work(rows: range) -> list[list[int]]:
            shapes = [photos.picture(i).shape for i in rows]
            return [[w, h, w, h] for h, w, _ in shapes]

        return np.array([side for part in _batches(len(photos), work) for side in part])

    mean = (train.boxes / sides(train)).mean(0)
    return overlap((mean * sides(test)).astype(np.float32), test)


# --- dense tasks ---------------------------------------------------------------------------------


def segmentation(
    network: Segmenter, found: Segmented, cfg: Config
) -> tuple[Metrics, Int64[Tensor, "class class"]]:
    """Return mIoU and accuracies (percent) on a set, and the confusion matrix."""
    count = len(found.classes)

    def work(index: int) -> Tensor:
        image, truth = found.scene(index)
        predicted = torch.from_numpy(label_map(network, image, cfg))
        return iou.confusion(predicted, torch.from_numpy(truth.copy()), count)

    total = _chunks(len(found), work)
    return _scores(total), total


def _scores(confusion: Int64[Tensor, "class class"]) -> Metrics:
    return {f"iou/segmentation/{k}": v for k, v in iou.scores(confusion).items()}


def most_frequent(train: Segmented, test: Segmented) -> Metrics:
    """Measure the baseline of segmentation: the training split's most frequent class everywhere."""
    count = len(test.classes)

    def pixels_of(index: int) -> Tensor:
        labels = torch.from_numpy(train.scene(index)[1].copy())
        return torch.bincount(labels.flatten(), minlength=256)

    best = int(_chunks(len(train), pixels_of)[:count].argmax())

    def work(index: int) -> Tensor:
        truth = torch.from_numpy(test.scene(index)[1].copy())
        return iou.confusion(torch.full_like(truth, best), truth, count)

    return _scores(_chunks(len(test), work))


def detection(network: Detector, found: SceneSet, cfg: Config) -> Metrics:
    """Return COCO's average precision of boxes and masks (percent) on a set."""

    def work(index: int) -> tuple[list[ap.Row], list[ap.Row]]:
        scene = found.scene(index)
        return ap.coded(scene.objects), ap.coded(detect(network, scene.picture, cfg))

    pairs = divided(len(found), work)
    truths, seen = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    kinds = ["boxes", "masks"] if cfg.dense.masks and found.has_masks else ["boxes"]
    result: Metrics = {}
    for kind in kinds:
        numbers = ap.average_precision(truths, seen, len(found.classes), kind)  # type: ignore[arg-type]
        result |= {f"ap/{kind}/{name}": value for name, value in numbers.items() if value >= 0}
    return result
