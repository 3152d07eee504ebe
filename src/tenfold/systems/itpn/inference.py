"""One image through the networks of a run: from pixels to what is said of them, no files."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from tenfold.data.images import scene_views, views
from tenfold.nn import mask_rcnn
from tenfold.nn.sliding import classes_at, slide, slide_classes
from tenfold.structures import Instances
from tenfold.viz.overlays import Rgb

from . import data, inspect
from .config import Config, PredictOptions
from .model import Classifier, PixelPretraining
from .networks import device_of, network_of
from .tasks import Detector, Localiser, Segmenter

MOST_UNITS = 4200
"""Units of a picture that attend to each other at most: those of 1333 x 800 pixels, official
detection's largest."""
MOST_MASKS = 2**31
"""Bytes of the masks of one picture."""


@dataclass(frozen=True)
class Answer:
    """All that the networks of a run say of one image, in its pixels."""

    ranked: Sequence[tuple[str, float]] = ()
    """Classes and probabilities, the most probable first."""
    box: Float[np.ndarray, "4"] | None = None
    """x0 y0 x1 y1 of the one object."""
    labels: UInt8[np.ndarray, "height width"] | None = None
    objects: Instances | None = None
    inside: dict[str, list[Rgb]] = field(default_factory=dict)
    """Rows of images that show what a network sees: its name -> row."""


@torch.inference_mode()
def answer(
    model: nn.ModuleDict, cfg: Config, image: Rgb, options: PredictOptions, place: int | None
) -> Answer:
    """Ask the networks of all tasks about one image.

    Args:
        model: Networks by task.
        cfg: Their configuration.
        image: RGB of any size.
        options: What is asked for.
        place: Row of the sheet that shows how networks see it, which decides on the mask of its
            reconstruction; None looks into no network.
    """
    cfg = at_size(cfg, options.short)
    ranked: list[tuple[str, float]] = []
    box = labels = objects = None
    rows: dict[str, list[Rgb]] = {}
    for task in cfg.tasks:
        network = network_of(model, task)
        if isinstance(network, Classifier):
            view = views.centre(image, cfg.model.size, cfg.data.test_crop)[None]
            chances = class_probabilities(network, view, cfg)[0]
            best = chances.topk(min(options.top, len(cfg.classes)))
            pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
            ranked = [(cfg.classes[label], chance) for label, chance in pairs]
        elif isinstance(network, Localiser):
            box = whole_box(network, image, cfg)
        elif isinstance(network, Segmenter):
            labels = label_map(network, image, cfg)
        elif isinstance(network, Detector):
            objects = detect(network, image, cfg, options.score)
        elif isinstance(network, PixelPretraining) and place is not None:
            noise = inspect.noise_of(network, options.seed)[place]
            rows["reconstruction"] = inspect.reconstruction(network, image, noise, cfg)
    backbone = inspect.pyramid_of(model, cfg)
    if backbone is not None and place is not None:
        rows["pyramid"] = inspect.pyramid(backbone, image, cfg)
    return Answer(ranked, box, labels, objects, rows)


@torch.inference_mode()
def class_probabilities(
    network: Classifier, images: UInt8[Tensor, "image 3 side side"], cfg: Config
) -> Float[Tensor, "image class"]:
    """Return the probabilities of all classes for test views of images."""
    x = data.normalised(images, cfg.data.normalise).to(device_of(network))
    return network.logits(x).float().softmax(1).cpu()


@torch.inference_mode()
def whole_box(network: Localiser, image: Rgb, cfg: Config) -> Float[np.ndarray, "4"]:
    """Return the box of an image's one object: x0 y0 x1 y1 in its pixels, inside of it."""
    height, width = image.shape[:2]
    seen = views.view(image, (0, 0, width, height), False, cfg.model.size)[None]
    x = data.normalised(seen, cfg.data.normalise).to(device_of(network))
    sides = np.array([width, height, width, height], dtype=np.float32)
    return (network.boxes(x)[0].cpu().numpy().clip(0, 1) * sides).astype(np.float32)


def padded(images: Float[Tensor, "batch 3 height width"], multiple: int) -> Tensor:
    """Return images whose sides are filled with zeros (the mean colour) up to a multiple."""
    height, width = images.shape[2:]
    return nn.functional.pad(images, (0, -width % multiple, 0, -height % multiple))


def at_size(cfg: Config, short: int) -> Config:
    """Return a configuration whose dense tasks see pictures of this shorter side; 0: as it is."""
    if not short:
        return cfg
    dense = cfg.dense
    ratio = dense.longest / dense.short_sides[-1]
    longest = max(short, round(short * ratio))
    resize = (short, 4 * short)  # as in the official 512 2048
    return replace(
        cfg, dense=replace(dense, resize=resize, short_sides=(short,), longest=longest)
    )  # fmt: skip


@torch.inference_mode()
def label_map(network: Segmenter, image: Rgb, cfg: Config) -> UInt8[np.ndarray, "height width"]:
    """Return the classes of all pixels of an image of any size.

    It is brought to the size of the test first, seen through windows or whole as the configuration
    says, and the logits are brought to the image's own size.
    """
    network.eval()
    unit, dense = 2 * cfg.model.patch_size, cfg.dense
    height, width = image.shape[:2]
    sides = scene_views.size_for(height, width, *dense.resize) if any(dense.resize) else None
    seen = image.copy() if sides is None else scene_views.resized(image, *sides)
    x = scene_views.channels_first(seen)[None]
    x = data.normalised(x, cfg.data.normalise).to(device_of(network))

    def full(part: Tensor) -> Tensor:
        logits = network.logits(part).float()
        return nn.functional.interpolate(logits, part.shape[2:], mode="bilinear")

    stride = dense.stride or _stride_of_large(x, cfg)
    if stride and sides is None:
        return slide_classes(full, x, dense.size, stride, multiple=unit).numpy()
    if stride:
        logits = slide(full, x, dense.size, stride, multiple=unit)[0]
    else:
        logits = full(padded(x, unit))[0, :, : x.shape[2], : x.shape[3]]
    return classes_at(logits, height, width).numpy()


def _stride_of_large(x: Tensor, cfg: Config) -> int:
    """Stride of windows for a picture that is too large to be seen whole; 0 for others."""
    sides = [-(-side // cfg.model.patch_size) for side in x.shape[2:]]
    if sides[0] * sides[1] <= MOST_UNITS:
        return 0
    warnings.warn(
        f"pictures of more than {MOST_UNITS} units of {cfg.model.patch_size} x "
        f"{cfg.model.patch_size} pixels are not seen whole, but through windows of "
        f"{cfg.dense.size} pixels; --short brings them to a size",
        stacklevel=2,
    )
    return max(1, 2 * cfg.dense.size // 3)  # official: 341 of 512


@torch.inference_mode()
def detect(network: Detector, image: Rgb, cfg: Config, least: float = 0.0) -> Instances:
    """Return the objects of score `least` and more of an image of any size, best first."""
    network.eval()
    dense, (height, width) = cfg.dense, image.shape[:2]
    view, factors = scene_views.test_view(image, dense.short_sides[-1], dense.longest)
    x = data.normalised(view[None], cfg.data.normalise).to(device_of(network))
    sizes = torch.tensor([view.shape[1:]], device=x.device)
    (found,) = network.detect(padded(x, 4 * cfg.model.patch_size), sizes)
    # masks are as large as the image: those of weaker objects are not made
    rows = (found.scores >= least).nonzero()[:, 0]
    if dense.masks and len(rows) * height * width > MOST_MASKS:
        fitting = max(1, MOST_MASKS // (height * width))
        warnings.warn(
            f"masks of {len(rows)} objects of {width} x {height} pixels need more than "
            f"{MOST_MASKS / 2**30:.0f} GiB: the best {fitting} are kept",
            stacklevel=2,
        )
        rows = rows[:fitting]
    boxes = (found.boxes[rows].cpu() / torch.tensor(factors * 2)).clamp(min=0)
    boxes[:, 0::2] = boxes[:, 0::2].clamp(max=width)
    boxes[:, 1::2] = boxes[:, 1::2].clamp(max=height)
    masks = None
    if dense.masks:
        masks = mask_rcnn.paste(found.masks[rows].float().cpu(), boxes, height, width).numpy()
    labels, scores = found.labels[rows].cpu().numpy(), found.scores[rows].cpu().numpy()
    return Instances(boxes.numpy(), labels, scores, masks)
