"""The paper's claim at a scale that can be run here."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from tenfold.core.claim import Claim, Variant

from .config import Config, SetName, Strategy
from .recipes import SMALL

AP, IOU, AREA = "masks/final/AP", "given/final/IoU", "area/answers/IoU"
ACCURACY = "given/final/accuracy"
ROUNDS = 5
"""Rounds after the first point of each object."""
BOXES, FIRST = "boxes", "first point"
"""Names of the variants that others start from."""
CHOSEN: tuple[Strategy, ...] = ("bald", "topk_random", "diverse")
"""Strategies beside the paper's."""
WEIGHTS = "TENFOLD_EFFICIENTNET_LITE0"
"""Environment variable that names ImageNet's weights of EfficientNet-Lite0."""
SETTING = (
    "{network}. All rows start from what boxes of the same seed has learned from boxes alone, and "
    "learn as many steps: those of points first with a random pixel of each object, which they "
    "share, then "
    f"{ROUNDS} rounds of one pixel of each object. All objects are one class. Answers come from "
    "the true masks; seconds are stated (0.9 an answer, 7 a box, 79.2 a mask), not measured."
)


def base(name: SetName = "clothing_parsing") -> Config:
    """Data, network and steps of the rows: half an hour of one core for each seed.

    With ImageNet's weights in reach, frozen, on pictures of clothing at their own size; else from
    scratch. Chosen on clothing_parsing's validation pictures, and by the time there is.
    """
    file = os.environ.get(WEIGHTS, "")
    found = replace(
        SMALL,
        data=replace(
            SMALL.data, name=name, limit=300, batch_size=4, short_sides=(170,), test_side=170,
            longest=306,
        ),
        loss=replace(SMALL.loss, warmup=300), steps=900, round_steps=100,
        optim=replace(SMALL.optim, lr=2e-3), round_optim=replace(SMALL.round_optim, lr=1e-3),
    )  # fmt: skip
    if name != "clothing_parsing":
        found = replace(
            found, data=replace(found.data, limit=200), steps=600, round_steps=80
        )  # fmt: skip
    if not (file and Path(file).is_file()):
        return found
    model = replace(found.model, backbone="efficientnet-lite0", frozen_stages=6)
    return replace(found, model=model, start=file)


def claims(base: Config) -> list[Claim[Config]]:
    """Chosen pixels against random ones, and both against boxes alone and full masks.

    base: the recipe whose data, network and steps the rows have.
    """
    setting = SETTING.format(
        network="EfficientNet-Lite0 with ImageNet's weights, frozen, below the pyramid"
        if base.start
        else f"A small network from scratch, as ${WEIGHTS} names no ImageNet weights"
    )
    boxes, first = _beginnings(base)
    random, chosen = _points("random", base), _points("entropy", base)
    more = replace(base.points, rounds=ROUNDS + 1, initial=0, strategy="none")
    long = replace(base, steps=0, points=more)
    alone = Variant(
        "boxes alone", replace(long, loss=replace(base.loss, supervision="box")), after=boxes.name
    )
    masks = Variant(
        "full masks", replace(long, loss=replace(base.loss, supervision="mask")), after=boxes.name
    )
    others = (masks, alone, *(_points(name, base) for name in CHOSEN), first, boxes)
    columns = (
        AP,
        "masks/final/AP50",
        IOU,
        ACCURACY,
        AREA,
        "answers/final/per object",
        "seconds/final/total",
    )
    return [
        Claim(
            "Pixels of which the network is least sure teach better masks than as many random "
            "ones.",
            random, chosen, IOU, "higher", None, setting, others, columns=columns,
        ),
        Claim(
            "They raise the AP of masks, too.",
            random, chosen, AP, "higher", None, setting,
        ),
        Claim(
            "Over all rounds, the curve of chosen pixels lies above that of random ones.",
            random, chosen, AREA, "higher", None, setting,
        ),
        Claim(
            "Six answers an object teach better masks than boxes alone.",
            alone, random, IOU, "higher", None, setting,
        ),
    ]  # fmt: skip


def _beginnings(base: Config) -> tuple[Variant[Config], Variant[Config]]:
    """Training on boxes alone, and after it a round with a random pixel of each object."""
    nothing = replace(base.points, rounds=0, initial=0, strategy="none")
    of_boxes = replace(base, points=nothing, loss=replace(base.loss, supervision="box"))
    weight = base.loss.point_weight_later
    of_first = replace(
        base,
        steps=base.round_steps,
        optim=base.round_optim,
        loss=replace(base.loss, point_weight=weight, warmup=0),
        points=replace(nothing, initial=1),
    )
    return Variant(BOXES, of_boxes), Variant(FIRST, of_first, after=BOXES)


def _points(strategy: Strategy, base: Config) -> Variant[Config]:
    points = replace(base.points, rounds=ROUNDS, strategy=strategy)
    return Variant(strategy, replace(base, steps=0, points=points), after=FIRST)
