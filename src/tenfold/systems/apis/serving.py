"""The labelling page of a run: its network, or a segmenter of the user's own, and its training."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from tenfold import __version__
from tenfold.core.checkpoint import write_tensors
from tenfold.core.config import to_json
from tenfold.data.images.exchange_coco import write_coco_points
from tenfold.data.images.instances import Objects, ObjectSet
from tenfold.files import write_json
from tenfold.nn.condinst import CondInst
from tenfold.web.jobs import Report

from . import data, evaluation
from .config import Config, PageOptions
from .labelling import Labelling, Trained
from .promptable import Promptable
from .segmenters import NetworkSegmenter

ROUNDS = "rounds"
"""Folder of what each training of a page learned from."""
MEASURED = 40
"""Pictures of a validation set on which AP is measured, at most."""
Train = Callable[[list[str], Report], Any]
"""Does what `tenfold train apis` does with these words, and returns the system."""


def open_page(
    network: CondInst, cfg: Config, images: Path, folder: Path, options: PageOptions, train: Train
) -> Labelling:
    """Open the page of a run.

    Args:
        network: That of the run.
        cfg: Its configuration.
        images: Folder of photos.
        folder: Where answers and rounds are kept.
        options: Choices; with `encoder` and `decoder` these make the masks, and nothing is trained.
        train: Trains in the way of `tenfold train`.

    Raises:
        ValueError: Photos, answers or files do not fit.
        FileNotFoundError: One of them is not there.
    """
    if options.encoder:
        own = Promptable(Path(options.encoder), Path(options.decoder), cfg.classes)
        return Labelling(own, images, folder, options)

    def learn(page: Labelling, report: Report) -> Trained:
        now = page.segmenter
        assert isinstance(now, NetworkSegmenter)
        report(0.0, "writing the answers")
        before = None if page.labels.models else precision(now, cfg)
        made = train(training(page, now), report)
        report(1.0, "measuring")
        found = NetworkSegmenter(made.model, made.cfg)
        return Trained(found, precision(found, cfg), before)

    first = NetworkSegmenter(network, cfg)
    return Labelling(first, images, folder, options, learn)


def training(page: Labelling, now: NetworkSegmenter) -> list[str]:
    """Write what a training learns from: COCO with points, weights to start from, configuration.

    Masks that people made are learned, too. It takes the steps of a round.

    Returns:
        Words for `tenfold train apis`.

    Raises:
        ValueError: There is no answer to learn from.
    """
    objects = page.objects()
    there = tuple(_said_by_people(one) for one in objects.pictures if one.file.is_file())
    objects = replace(objects, pictures=there)
    shapes = [shape for one in there for shape in one.shapes]
    if not any(shape.points or shape.mask for shape in shapes):
        raise ValueError("there is no answer to train on yet, and no mask that a person made")
    place = page.folder / ROUNDS / str(len(page.labels.models) + 1)
    (points,) = write_coco_points(objects, place, with_masks=True).files
    cfg, start = now.cfg, place / "start.safetensors"
    header = {"system": "apis", "config": to_json(cfg), "version": __version__}
    write_tensors(start, now.network.state_dict(), {"tenfold": json.dumps(header)})
    own = replace(
        cfg,
        data=replace(
            cfg.data,
            name="folder",
            path=str(page.album.folder),
            points_path=str(points),
            points_masks=True,
            least=1,  # a recipe may leave out small objects, but not what people said
        ),
        points=replace(cfg.points, rounds=0, initial=0),
        loss=replace(
            cfg.loss, supervision="box+points", point_weight=cfg.loss.point_weight_later, warmup=0
        ),
        steps=cfg.round_steps,
        optim=cfg.round_optim,
        classes=tuple(page.labels.classes),
        start=str(start),
        allow_missing=len(page.labels.classes) > len(cfg.classes),
    )
    identity = {"system": "apis", "recipe": "small", "config": to_json(own)}
    write_json(place / "config.json", identity)
    return ["--config", str(place / "config.json")]


def _said_by_people(one: Objects) -> Objects:
    """A picture's objects without the masks that the network made."""
    shapes = (
        replace(shape, mask=None) if shape.mask_said.source == "model" else shape
        for shape in one.shapes
    )
    return replace(one, shapes=tuple(shapes))


def precision(segmenter: NetworkSegmenter, of_run: Config) -> float | None:
    """Mask AP on pictures that the run did not train on, if its set is here and has masks."""
    some: ObjectSet | None = None
    for split in ("test", "validation"):
        with suppress(OSError, ValueError):
            some = data.open_set(of_run.data, split)
    cfg = replace(segmenter.cfg, data=of_run.data)
    if some is None or not data.has_masks(some):
        return None
    if cfg.classes[: len(some.classes)] != some.classes:
        return None
    some = some.at(range(min(MEASURED, len(some))))
    truth = [evaluation.true_rows(one) for one in some.pictures]
    found = evaluation.measure(segmenter.network, cfg, some, "AP")
    return evaluation.measures(cfg, truth, found, "page", True).get("masks/page/AP")
