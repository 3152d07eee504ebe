"""Pictures for a run's report: test pictures and what each task makes of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from tenfold.core.checkpoint import write_bytes
from tenfold.data.images import views
from tenfold.data.images.classification import Photos
from tenfold.viz import overlays

from . import data, draw, evaluation, predict
from .model import Classifier, PixelPretraining
from .networks import network_of
from .tasks import Detector, Localiser, Segmenter

if TYPE_CHECKING:
    from .system import Itpn

SHOWN = 8
Add = Callable[[str, bytes, str], None]
"""Takes name, content and caption of a picture."""


def _spread(count: int, most: int = SHOWN) -> list[int]:
    """Rows from beginning to end evenly."""
    return sorted(set(np.linspace(0, count - 1, min(most, count)).round().astype(int).tolist()))


def report_pictures(system: Itpn, out: Path) -> dict[Path, str]:
    """Write a picture or two a task; file -> caption."""
    found: dict[Path, str] = {}

    def add(name: str, content: bytes, caption: str) -> None:
        write_bytes(out / name, content)
        found[out / name] = caption

    for task in system.cfg.tasks:
        network = network_of(system.model, task).eval()
        if isinstance(network, PixelPretraining):
            photos = system.photos("test")
            share, size = system.cfg.data.test_crop, system.cfg.model.size
            seen = [views.centre(photos.picture(i), size, share) for i in _spread(len(photos))]
            content = predict.reconstruction(system, network, torch.stack(seen))
            add("reconstruction.png", content, "Test pictures masked, and reconstructed")
        elif isinstance(network, Classifier):
            _classified(system, network, add)
        elif isinstance(network, Localiser):
            photos = system.photos("test")
            rows = _spread(len(photos), 16)
            boxes = evaluation.boxes(network, photos.at(np.array(rows)), system.cfg)
            assert photos.boxes is not None
            content = draw.box_sheet([photos.picture(i) for i in rows], photos.boxes[rows], boxes)
            add("boxes.png", content, "True boxes of test pictures (orange) and predicted (blue)")
        elif isinstance(network, Segmenter):
            source = data.segmented(system.cfg.data, "test")
            scenes = [source.scene(i) for i in _spread(len(source), 6)]
            maps = [evaluation.label_map(network, p, system.cfg) for p, _ in scenes]
            content = overlays.segmentation_sheet(
                [p for p, _ in scenes], [t for _, t in scenes], maps, source.classes
            )
            add("segmentation.png", content, "Test pictures, true classes and predicted ones")
        elif isinstance(network, Detector):
            add(
                "objects.png", _objects(system, network), "Objects of test pictures, and found ones"
            )
    some = _some_pictures(system)
    if some and any(network_of(system.model, t).backbone.shape.fpn_dim for t in system.cfg.tasks):
        content = predict.pyramid(system, some)
        add("pyramid.png", content, "Feature pyramid: strongest directions as colours")
    return found


def _some_pictures(system: Itpn) -> list[overlays.Rgb]:
    cfg = system.cfg
    if "segment" in cfg.tasks:
        maps = data.segmented(cfg.data, "test")
        return [maps.scene(i)[0] for i in _spread(len(maps), 4)]
    if "detect" in cfg.tasks:
        objects = data.instances(cfg.data, "test")
        return [objects.scene(i).picture for i in _spread(len(objects), 4)]
    photos: Photos = system.photos("test")
    return [photos.picture(i) for i in _spread(len(photos), 4)]


def _classified(system: Itpn, network: Classifier, add: Add) -> None:
    photos = system.photos("test")
    logits = system.found.get("logits")
    if logits is None:
        logits = evaluation.class_logits(network, photos, system.cfg)
    count = len(system.cfg.classes)
    predicted = logits.argmax(1).numpy()
    matrix = np.bincount(photos.labels * count + predicted, minlength=count**2)
    content = draw.confusion_picture(matrix.reshape(count, count), system.cfg.classes)
    add("confusion.png", content, "What test pictures of each class were called")
    best = logits.softmax(1).topk(min(5, count))
    rows = _spread(len(photos))
    ranked = [
        [(system.cfg.classes[c], v) for c, v in
         zip(best.indices[i].tolist(), best.values[i].tolist(), strict=True)]
        for i in rows
    ]  # fmt: skip
    content = draw.labels_sheet([photos.picture(i) for i in rows], ranked)
    add("labels.png", content, "Test pictures and their most probable classes")


def _objects(system: Itpn, network: Detector) -> bytes:
    cfg, source = system.cfg, data.instances(system.cfg.data, "test")
    rows = []
    for index in _spread(len(source), 6):
        scene = source.scene(index)
        seen = evaluation.detect(network, scene.picture, cfg)
        good = np.flatnonzero(seen.scores >= system.options.score)
        masks = None if seen.masks is None else seen.masks[good]
        true = [cfg.classes[i] for i in scene.labels]
        names = [f"{cfg.classes[seen.labels[i]]} {100 * seen.scores[i]:.0f}" for i in good]
        rows.append([
            overlays.draw_objects(scene.picture, scene.boxes, true, scene.labels, scene.masks),
            overlays.draw_objects(scene.picture, seen.boxes[good], names, seen.labels[good], masks),
        ])  # fmt: skip
    return overlays.sheet(
        rows, ("truth", f"found, score {system.options.score:g} and more"), height=240
    )
