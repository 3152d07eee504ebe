"""Measuring: probes of frozen networks, accuracy, boxes, label maps, average precision."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor, nn

from tenfold.core.seed import generator
from tenfold.data.images import scene_views, views
from tenfold.data.images.classification import Photos
from tenfold.data.images.coco import Instances, Scene
from tenfold.data.images.segmentation import Segmented
from tenfold.metrics import ap, iou, probes
from tenfold.nn import mask_rcnn
from tenfold.nn.hivit import HiViT
from tenfold.nn.sliding import slide

from . import data
from .config import Config
from .model import ClipPretraining, PixelPretraining
from .tasks import Detector, Segmenter

BATCH = 200
"""Pictures that go through a network at once."""
TINY_PIXELS = 16
"""Side to which pictures are shrunk for the baseline without a network."""


def device_of(module: nn.Module) -> torch.device:
    """Where a module lies."""
    return next(module.parameters()).device


def centres(photos: Photos, cfg: Config) -> Iterator[UInt8[Tensor, "batch 3 side side"]]:
    """Test views of all pictures, a batch at a time."""
    size, share = cfg.model.size, cfg.data.test_crop
    for start in range(0, len(photos), BATCH):
        rows = range(start, min(start + BATCH, len(photos)))
        yield torch.stack([views.centre(photos.picture(i), size, share) for i in rows])


@torch.inference_mode()
def features(backbone: HiViT, photos: Photos, cfg: Config) -> Float[Tensor, "image dim"]:
    """Mean token of the main stage for each picture."""
    device, how = device_of(backbone), cfg.data.normalise
    backbone.eval()
    found = []
    for pictures in centres(photos, cfg):
        x = data.normalised(pictures, how).to(device)
        found.append(backbone.encode(x).tokens.mean(1).float().cpu())
    return torch.cat(found)


def probe(backbone: HiViT, train: Photos, test: Photos, cfg: Config) -> dict[str, float]:
    """Top-1 of a linear probe and of nearest neighbours on a frozen network (percent)."""
    x, y = features(backbone, train, cfg).clone(), features(backbone, test, cfg).clone()
    return _probed(x, y, train, test)


def of_pixels(train: Photos, test: Photos, cfg: Config) -> dict[str, float]:
    """The same without a network: on pictures shrunk to 16 x 16 pixels."""
    small = [
        torch.cat([
            torch.nn.functional.interpolate(x / 255, (TINY_PIXELS,) * 2, mode="area").flatten(1)
            for x in centres(photos, cfg)
        ])
        for photos in (train, test)
    ]  # fmt: skip
    return _probed(small[0], small[1], train, test)


def _probed(x: Tensor, y: Tensor, train: Photos, test: Photos) -> dict[str, float]:
    labels, truth = (torch.from_numpy(p.labels) for p in (train, test))
    count = len(train.classes)
    linear = probes.linear_probe(x, labels, y, count)
    near = probes.neighbours(x, labels, y, count)
    return {
        "accuracy/linear probe/top1": probes.top(linear, truth),
        "accuracy/nearest neighbours/top1": probes.top(near, truth),
    }


@torch.inference_mode()
def reconstruction(
    network: PixelPretraining | ClipPretraining, photos: Photos, cfg: Config
) -> dict[str, float]:
    """Loss on test pictures under fixed masks (method pixel)."""
    if not isinstance(network, PixelPretraining):
        return {}
    network.eval()
    device, total, count = device_of(network), 0.0, 0
    for number, pictures in enumerate(centres(photos, cfg)):
        noise = torch.rand(
            len(pictures), network.shape.units, generator=generator("masks of the test", number)
        )
        images = data.normalised(pictures, cfg.data.normalise).to(device)
        loss = network({"images": images, "noise": noise.to(device)})["loss/pixel"]
        total, count = total + float(loss) * len(pictures), count + len(pictures)
    return {"loss/pre-training/pixels": total / count}


@torch.inference_mode()
def class_logits(network: nn.Module, photos: Photos, cfg: Config) -> Float[Tensor, "image class"]:
    """Logits of a classifier for test views."""
    network.eval()
    device, how = device_of(network), cfg.data.normalise
    parts = [
        network.logits(data.normalised(x, how).to(device)).float().cpu()  # type: ignore[operator]
        for x in centres(photos, cfg)
    ]
    return torch.cat(parts)


def accuracy(logits: Float[Tensor, "image class"], labels: Int64[Tensor, " image"]) -> dict:
    """Top-1 and top-5 of fine-tuning (percent)."""
    found = {"accuracy/fine-tuned/top1": probes.top(logits, labels)}
    if logits.shape[1] > 5:
        found["accuracy/fine-tuned/top5"] = probes.top(logits, labels, 5)
    return found


@torch.inference_mode()
def boxes(network: nn.Module, photos: Photos, cfg: Config) -> Float[np.ndarray, "image 4"]:
    """Predicted boxes in pixels of each (whole, stretched) test picture."""
    network.eval()
    device, size, found = device_of(network), cfg.model.size, []
    for start in range(0, len(photos), BATCH):
        rows = range(start, min(start + BATCH, len(photos)))
        pictures = [photos.picture(i) for i in rows]
        whole = [views.view(p, (0, 0, p.shape[1], p.shape[0]), False, size) for p in pictures]
        x = data.normalised(torch.stack(whole), cfg.data.normalise).to(device)
        shares = network.boxes(x).cpu().numpy()  # type: ignore[operator]
        sides = np.array([[p.shape[1], p.shape[0]] * 2 for p in pictures])
        found.append(shares * sides)
    return np.concatenate(found).astype(np.float32)


def overlap(predicted: np.ndarray, photos: Photos) -> dict[str, float]:
    """Mean IoU and the share of boxes above 0.5 (percent)."""
    assert photos.boxes is not None
    each = iou.box_iou(torch.from_numpy(predicted), torch.from_numpy(photos.boxes)).numpy()
    return {
        "overlap/localised/iou": 100 * float(each.mean()),
        "overlap/localised/above half": 100 * float((each > 0.5).mean()),
    }


def mean_box(train: Photos, test: Photos) -> dict[str, float]:
    """The baseline of localisation: the training boxes' mean place, whatever the picture."""
    assert train.boxes is not None

    def sides(photos: Photos) -> np.ndarray:
        shapes = [photos.picture(i).shape for i in range(len(photos))]
        return np.array([[w, h, w, h] for h, w, _ in shapes])

    mean = (train.boxes / sides(train)).mean(0)
    return overlap((mean * sides(test)).astype(np.float32), test)


# --- dense tasks -------------------------------------------------------------------------------


def padded(images: Float[Tensor, "batch 3 height width"], multiple: int) -> Tensor:
    """Sides filled with zeros (the mean colour) up to a multiple."""
    height, width = images.shape[2:]
    return nn.functional.pad(images, (0, -width % multiple, 0, -height % multiple))


@torch.inference_mode()
def label_map(
    network: Segmenter, picture: UInt8[np.ndarray, "height width 3"], cfg: Config
) -> UInt8[np.ndarray, "height width"]:
    """Classes of all pixels of a picture of any size."""
    network.eval()
    unit, dense = 2 * cfg.model.patch_size, cfg.dense
    height, width = picture.shape[:2]
    x = torch.from_numpy(picture.copy()).permute(2, 0, 1)[None]
    x = data.normalised(x, cfg.data.normalise).to(device_of(network))

    def full(part: Tensor) -> Tensor:
        logits = network.logits(part).float()
        return nn.functional.interpolate(logits, part.shape[2:], mode="bilinear")

    if dense.stride:
        logits = slide(full, x, dense.size, dense.stride, multiple=unit)
    else:
        logits = full(padded(x, unit))
    return logits[0, :, :height, :width].argmax(0).byte().cpu().numpy()


def segmentation(
    network: Segmenter, found: Segmented, cfg: Config
) -> tuple[dict[str, float], Tensor]:
    """mIoU and accuracies (percent) on a set, and the confusion matrix."""
    count = len(found.classes)
    total = torch.zeros(count, count, dtype=torch.int64)
    for index in range(len(found)):
        picture, truth = found.scene(index)
        predicted = torch.from_numpy(label_map(network, picture, cfg))
        total += iou.confusion(predicted, torch.from_numpy(truth.copy()), count)
    return {f"iou/segmentation/{k}": v for k, v in iou.scores(total).items()}, total


def most_frequent(cfg: Config) -> dict[str, float]:
    """The baseline of segmentation: the training split's most frequent class everywhere."""
    train, test = (data.segmented(cfg.data, split) for split in ("train", "test"))
    count = len(test.classes)
    counts = np.zeros(256, dtype=np.int64)
    for index in range(len(train)):
        counts += np.bincount(train.scene(index)[1].ravel(), minlength=256)
    best = int(counts[:count].argmax())
    total = torch.zeros(count, count, dtype=torch.int64)
    for index in range(len(test)):
        truth = torch.from_numpy(test.scene(index)[1].copy())
        total += iou.confusion(torch.full_like(truth, best), truth, count)
    return {f"iou/segmentation/{k}": v for k, v in iou.scores(total).items()}


@dataclass(frozen=True)
class Seen:
    """What a detector found in one picture, in its pixels."""

    boxes: Float[np.ndarray, "object 4"]
    labels: Int64[np.ndarray, " object"]
    scores: Float[np.ndarray, " object"]
    masks: np.ndarray | None
    """Bool [object height width]."""


@torch.inference_mode()
def detect(network: Detector, picture: UInt8[np.ndarray, "height width 3"], cfg: Config) -> Seen:
    """Objects of a picture of any size."""
    network.eval()
    dense, (height, width) = cfg.dense, picture.shape[:2]
    view, scale = scene_views.test_view(picture, dense.short_sides[-1], dense.longest)
    x = data.normalised(view[None], cfg.data.normalise).to(device_of(network))
    sizes = torch.tensor([view.shape[1:]], device=x.device)
    (found,) = network.detect(padded(x, 4 * cfg.model.patch_size), sizes)
    boxes = (found.boxes.cpu() / scale).clamp(min=0)
    boxes[:, 0::2] = boxes[:, 0::2].clamp(max=width)
    boxes[:, 1::2] = boxes[:, 1::2].clamp(max=height)
    masks = None
    if dense.masks:
        masks = mask_rcnn.paste(found.masks.float().cpu(), boxes, height, width).numpy()
    return Seen(boxes.numpy(), found.labels.cpu().numpy(), found.scores.cpu().numpy(), masks)


def truth_of(scene: Scene) -> ap.Truth:
    """A scene as the metric has it, crowds after objects."""
    masks = None
    if scene.masks is not None and scene.ignored_masks is not None:
        masks = np.concatenate([scene.masks, scene.ignored_masks])
    crowd = np.repeat([False, True], [len(scene.boxes), len(scene.ignored)])
    return ap.Truth(
        np.concatenate([scene.boxes, scene.ignored]),
        np.concatenate([scene.labels, scene.ignored_labels]),
        crowd, scene.picture.shape[0], scene.picture.shape[1], masks,
        np.concatenate([scene.areas, scene.ignored_areas]),
    )  # fmt: skip


def detection(network: Detector, found: Instances, cfg: Config) -> dict[str, float]:
    """COCO's average precision of boxes and masks (percent) on a set."""
    truths, seen = [], []
    for index in range(len(found)):
        scene = found.scene(index)
        truths.append(truth_of(scene))
        one = detect(network, scene.picture, cfg)
        seen.append(ap.Found(one.boxes, one.scores, one.labels, one.masks))
    kinds = ["boxes", "masks"] if cfg.dense.masks else ["boxes"]
    result: dict[str, float] = {}
    for kind in kinds:
        numbers = ap.average_precision(truths, seen, len(found.classes), kind)  # type: ignore[arg-type]
        result |= {f"ap/{kind}/{name}": value for name, value in numbers.items() if value >= 0}
    return result
