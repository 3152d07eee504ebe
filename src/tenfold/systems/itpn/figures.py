"""Figures of a run's report: test images and what each task makes of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from torch import nn

from tenfold.core.checkpoint import write_bytes
from tenfold.viz import fonts, overlays
from tenfold.viz.overlays import Rgb
from tenfold.viz.predictions import spread

from . import data, draw, inspect
from .config import Config, PredictOptions
from .evaluation import Details
from .inference import detect, label_map
from .model import PixelPretraining
from .networks import network_of
from .tasks import Detector, Segmenter

Add = Callable[[str, bytes, str], None]
"""Takes name, content and caption of a figure."""


def draw_figures(
    model: nn.ModuleDict, cfg: Config, details: Details, options: PredictOptions, out: Path
) -> dict[Path, str]:
    """Write a figure or two a task.

    Args:
        model: Networks by task.
        cfg: Their configuration, with the test data.
        details: What the evaluation saw.
        options: Seed of masks and least score of objects that are drawn.
        out: Folder of the figures.

    Returns:
        File -> caption.
    """
    captions: dict[Path, str] = {}

    def add(name: str, content: bytes, caption: str) -> None:
        write_bytes(out / name, content)
        captions[out / name] = caption

    model.eval()
    for task in cfg.tasks:
        network = network_of(model, task)
        if isinstance(network, PixelPretraining):
            _reconstructed(network, cfg, options, add)
        elif isinstance(network, Segmenter):
            _segmented(network, cfg, add)
        elif isinstance(network, Detector):
            _detected(network, cfg, options, add)
        elif details.logits is not None and task == "classify":
            _classified(cfg, details, add)
        elif details.boxes is not None and task == "localise":
            _localised(cfg, details, add)
    backbone = inspect.pyramid_of(model, cfg)
    if backbone is not None:
        rows = [inspect.pyramid(backbone, image, cfg) for image in _some_images(cfg)]
        content = draw.pyramid_sheet(rows, cfg.model.patch_size)
        add("pyramid.png", content, "Feature pyramid: strongest directions as colours")
    return captions


def _some(count: int, most: int = draw.SHOWN) -> list[int]:
    """Rows from beginning to end evenly."""
    return spread(range(count), most)


def _some_images(cfg: Config) -> list[Rgb]:
    if "segment" in cfg.tasks:
        maps = data.segmented(cfg.data, "test")
        return [maps.scene(i)[0] for i in _some(len(maps), 4)]
    if "detect" in cfg.tasks:
        objects = data.instances(cfg.data, "test")
        return [objects.scene(i).picture for i in _some(len(objects), 4)]
    photos = data.photographs(cfg.data, "test", cfg.seed)
    return [photos.picture(i) for i in _some(len(photos), 4)]


def _reconstructed(
    network: PixelPretraining, cfg: Config, options: PredictOptions, add: Add
) -> None:
    photos = data.photographs(cfg.data, "test", cfg.seed)
    noise = inspect.noise_of(network, options.seed)
    rows = [
        inspect.reconstruction(network, photos.picture(row), noise[place], cfg)
        for place, row in enumerate(_some(len(photos)))
    ]
    content = draw.reconstruction_sheet(rows)
    add("reconstruction.png", content, "Test pictures masked, and reconstructed")


def _classified(cfg: Config, details: Details, add: Add) -> None:
    photos, logits = data.photographs(cfg.data, "test", cfg.seed), details.logits
    assert logits is not None
    count = len(cfg.classes)
    predicted = logits.argmax(1).numpy()
    matrix = np.bincount(photos.labels * count + predicted, minlength=count**2)
    content = draw.confusion_picture(matrix.reshape(count, count), cfg.classes)
    add("confusion.png", content, "What test pictures of each class were called")
    best = logits.softmax(1).topk(min(5, count))
    rows = _some(len(photos))
    ranked = [
        [(cfg.classes[c], v) for c, v in
         zip(best.indices[i].tolist(), best.values[i].tolist(), strict=True)]
        for i in rows
    ]  # fmt: skip
    content = draw.labels_sheet([photos.picture(i) for i in rows], ranked)
    add("labels.png", content, "Test pictures and their most probable classes")


def _localised(cfg: Config, details: Details, add: Add) -> None:
    photos = data.photographs(cfg.data, "test", cfg.seed)
    assert photos.boxes is not None and details.boxes is not None
    rows = _some(len(photos), 16)
    images = [photos.picture(i) for i in rows]
    content = draw.box_sheet(images, photos.boxes[rows], details.boxes[rows])
    add("boxes.png", content, "True boxes of test pictures (orange) and predicted (blue)")


def _segmented(network: Segmenter, cfg: Config, add: Add) -> None:
    source = data.segmented(cfg.data, "test")
    scenes = [source.scene(i) for i in _some(len(source), 6)]
    maps = [label_map(network, image, cfg) for image, _ in scenes]
    images, truths = [image for image, _ in scenes], [truth for _, truth in scenes]
    content = overlays.segmentation_sheet(images, truths, maps, source.classes)
    caption = "Test pictures, true classes and predicted ones"
    add("segmentation.png", content, _with_key(caption, source.classes))


def _detected(network: Detector, cfg: Config, options: PredictOptions, add: Add) -> None:
    source, rows = data.instances(cfg.data, "test"), []
    for index in _some(len(source), 6):
        scene = source.scene(index)
        true = scene.objects.at(~scene.objects.is_crowd)
        seen = detect(network, scene.picture, cfg, options.score)
        assert seen.scores is not None
        shown = fonts.captions(cfg.classes)
        known = [shown[label] for label in true.labels]
        pairs = zip(seen.labels, seen.scores, strict=True)
        names = [f"{shown[label]} {100 * score:.0f}" for label, score in pairs]
        rows.append([
            overlays.draw_objects(scene.picture, true.boxes, known, true.labels, true.masks),
            overlays.draw_objects(scene.picture, seen.boxes, names, seen.labels, seen.masks),
        ])  # fmt: skip
    titles = ("truth", f"found, score {options.score:g} and more")
    caption = "Objects of test pictures, and found ones"
    add("objects.png", overlays.sheet(rows, titles, height=240), _with_key(caption, cfg.classes))


def _with_key(caption: str, classes: Sequence[str]) -> str:
    """The caption, and what numbers on the figure stand for where names cannot be drawn."""
    return "; ".join([caption, *fonts.meanings(classes)])
