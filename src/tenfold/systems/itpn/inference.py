"""One image through the networks of a run: from pixels to what is said of them, no files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from tenfold.data.images import scene_views, views
from tenfold.nn import mask_rcnn
from tenfold.nn.sliding import slide
from tenfold.structures import Instances
from tenfold.viz.overlays import Rgb

from . import data, inspect
from .config import Config, PredictOptions
from .model import Classifier, PixelPretraining
from .networks import device_of, network_of
from .tasks import Detector, Localiser, Segmenter


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


@torch.inference_mode()
def label_map(network: Segmenter, image: Rgb, cfg: Config) -> UInt8[np.ndarray, "height width"]:
    """Return the classes of all pixels of an image of any size."""
    network.eval()
    unit, dense = 2 * cfg.model.patch_size, cfg.dense
    height, width = image.shape[:2]
    x = torch.from_numpy(image.copy()).permute(2, 0, 1)[None]
    x = data.normalised(x, cfg.data.normalise).to(device_of(network))

    def full(part: Tensor) -> Tensor:
        logits = network.logits(part).float()
        return nn.functional.interpolate(logits, part.shape[2:], mode="bilinear")

    if dense.stride:
        logits = slide(full, x, dense.size, dense.stride, multiple=unit)
    else:
        logits = full(padded(x, unit))
    return logits[0, :, :height, :width].argmax(0).byte().cpu().numpy()


@torch.inference_mode()
def detect(network: Detector, image: Rgb, cfg: Config, least: float = 0.0) -> Instances:
    """Return the objects of score `least` and more of an image of any size, best first."""
    network.eval()
    dense, (height, width) = cfg.dense, image.shape[:2]
    view, scale = scene_views.test_view(image, dense.short_sides[-1], dense.longest)
    x = data.normalised(view[None], cfg.data.normalise).to(device_of(network))
    sizes = torch.tensor([view.shape[1:]], device=x.device)
    (found,) = network.detect(padded(x, 4 * cfg.model.patch_size), sizes)
    # masks are as large as the image: those of weaker objects are not made
    rows = (found.scores >= least).nonzero()[:, 0]
    boxes = (found.boxes[rows].cpu() / scale).clamp(min=0)
    boxes[:, 0::2] = boxes[:, 0::2].clamp(max=width)
    boxes[:, 1::2] = boxes[:, 1::2].clamp(max=height)
    masks = None
    if dense.masks:
        masks = mask_rcnn.paste(found.masks[rows].float().cpu(), boxes, height, width).numpy()
    labels, scores = found.labels[rows].cpu().numpy(), found.scores[rows].cpu().numpy()
    return Instances(boxes.numpy(), labels, scores, masks)
