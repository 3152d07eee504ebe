"""The threshold of a run: chosen with masks, or by criteria that look at none."""

from __future__ import annotations

from collections.abc import Sequence, Set
from functools import partial

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from tenfold.core.divide import divided
from tenfold.data.images.image_labels import Item, read_image
from tenfold.viz.predictions import spread

from . import inference, threshold
from .config import Criterion
from .kept import without_memory
from .model import UNSET
from .networks import SeedNetwork
from .pipeline import Pipeline
from .threshold import Choice, Seeds


def choose(pipeline: Pipeline) -> float:
    """The threshold of a run: the one that it has, or one that is chosen now as it says."""
    if pipeline.threshold == UNSET:
        pipeline.chosen = _chosen(pipeline)
    return pipeline.threshold


def _chosen(pipeline: Pipeline) -> float:
    own = pipeline.cfg.threshold
    if own.how == "fixed":
        return own.fixed
    if own.how == "swept":
        return threshold.swept(pipeline.sweep("train").curve()).threshold
    if own.how == "validation":
        return threshold.validation(pipeline.sweep("validation").curve()).threshold
    found = criteria(pipeline, [own.how])
    if own.how not in found:
        raise ValueError(
            f"threshold.how is {own.how}, which tells nothing of these seeds: maps are empty, "
            "or the classifier does not tell pictures from plain colours. Train longer, or take "
            "--threshold.how fixed with --start RUN"
        )
    return found[own.how].threshold


def criteria(pipeline: Pipeline, names: Sequence[Criterion]) -> dict[str, Choice]:
    """The choice of each criterion over training pictures, without a look at their masks.

    The processes of a job share the pictures.
    """
    if not names:
        return {}
    threshold.require_known(names)
    pipeline.make_seeds()
    items, seen = _items(pipeline), _Seen(pipeline, set(names))

    def one(row: int) -> dict[str, Tensor]:
        return threshold.look(names, seen(items[row]))

    return threshold.choose(names, divided(len(items), one, "thresholds without masks"))


def evidence(pipeline: Pipeline, value: float) -> tuple[float, float]:
    """Share of the classifier's score that seeds at a threshold keep alone, and that is left
    without them: medians over training pictures."""
    items, seen = _items(pipeline), _Seen(pipeline, {"confidence"})

    def one(row: int) -> Tensor | None:
        return threshold.evidence(seen(items[row]), value)

    return threshold.median_evidence(divided(len(items), one, "evidence of the seeds"))


def _items(pipeline: Pipeline) -> list[Item]:
    items = [item for item in pipeline.items("train") if item.labels]
    return spread(items, pipeline.cfg.threshold.pictures or len(items))


class _Seen:
    """What criteria may look at of a picture."""

    def __init__(self, pipeline: Pipeline, names: Set[str]) -> None:
        self.pipeline, self.names = pipeline, names
        has_network = bool(names & {"stability", "confidence"})
        seed, precision = pipeline.networks.seed, pipeline.cfg.seeds.precision
        self.network = without_memory(seed, precision) if has_network else None

    def __call__(self, item: Item) -> Seeds:
        picture, maps = read_image(item), self.pipeline.seed(item)
        other, score, cfg = None, None, self.pipeline.cfg
        if self.network is not None and "stability" in self.names:
            mirrored = picture[:, ::-1].copy()
            seen = inference.seed_maps(self.network, cfg, mirrored, item.labels, flip=False)
            other = seen.flip(2).cpu()
        if self.network is not None and "confidence" in self.names:
            score = partial(_score, self.network, self.pipeline, item)
        return Seeds(torch.from_numpy(picture.copy()), maps, other, score)


def _score(
    network: SeedNetwork,
    pipeline: Pipeline,
    item: Item,
    images: UInt8[Tensor, "picture height width 3"],
) -> Float[Tensor, " picture"]:
    """Mean score of an item's classes, before the sigmoid, of pictures."""
    found = inference.class_logits(network, pipeline.cfg, list(images.numpy()))
    return found[:, list(item.labels)].mean(1)
