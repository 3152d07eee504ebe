"""The threshold of a run: chosen with masks, or by criteria that look at none."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

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
    """The choice of each criterion over training pictures, without a look at their masks."""
    if not names:
        return {}
    pipeline.make_seeds()
    return threshold.choose(list(names), _pictures(pipeline, set(names)))


def evidence(pipeline: Pipeline, value: float) -> tuple[float, float]:
    """Share of the classifier's score that seeds at a threshold keep alone, and that is left
    without them: medians over training pictures."""
    network = without_memory(pipeline.networks.seed)
    found = []
    for item in _items(pipeline):
        image = torch.from_numpy(read_image(item))
        seed = (pipeline.seed(item).amax(0) > value)[..., None]
        empty = image.float().mean((0, 1), keepdim=True).round().byte().expand_as(image)
        views = [image, empty, torch.where(seed, image, empty), torch.where(seed, empty, image)]
        whole, nothing, *parts = _score(network, pipeline, item, torch.stack(views)).tolist()
        if whole > nothing:
            found.append([(part - nothing) / (whole - nothing) for part in parts])
    kept, removed = torch.tensor(found or [[0.0, 0.0]]).median(0).values.tolist()
    return kept, removed


def _items(pipeline: Pipeline) -> list[Item]:
    items = [item for item in pipeline.items("train") if item.labels]
    return spread(items, pipeline.cfg.threshold.pictures or len(items))


def _pictures(pipeline: Pipeline, names: set[Criterion]) -> Iterator[Seeds]:
    """What criteria look at, one picture at a time."""
    has_network = bool(names & {"stability", "confidence"})
    network = without_memory(pipeline.networks.seed) if has_network else None
    for item in _items(pipeline):
        picture, maps = read_image(item), pipeline.seed(item)
        other, score = None, None
        if network is not None and "stability" in names:
            mirrored = picture[:, ::-1].copy()
            cfg = pipeline.cfg
            seen = inference.seed_maps(network, cfg, mirrored, item.labels, flip=False)
            other = seen.flip(2).cpu()
        if network is not None and "confidence" in names:
            score = partial(_score, network, pipeline, item)
        yield Seeds(torch.from_numpy(picture), maps, other, score)


def _score(
    network: SeedNetwork,
    pipeline: Pipeline,
    item: Item,
    images: UInt8[Tensor, "picture height width 3"],
) -> Float[Tensor, " picture"]:
    """Mean score of an item's classes, before the sigmoid, of pictures."""
    found = inference.class_logits(network, pipeline.cfg, list(images.numpy()))
    return found[:, list(item.labels)].mean(1)
