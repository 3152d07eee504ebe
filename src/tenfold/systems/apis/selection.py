"""Questions of a round: which pixel of which object is asked about, and what the oracle says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64

from tenfold.core.divide import divided
from tenfold.core.seed import seed_of
from tenfold.data.images.instances import ObjectSet, Shape
from tenfold.nn.condinst import CondInst

from . import inference
from .answers import FALLBACK, Answer, oracle
from .config import Config
from .data import is_masked
from .strategies import Options, pixel_box, propose

LEAST_DRAWN = 10
"""Random points that are drawn of each object, whatever number is used: officially 10, of which
a round takes the first ones, so that a smaller set of points is a part of a larger one."""
Pixels = dict[int, Int64[np.ndarray, "_ 2"]]
"""Annotation -> x y."""


@dataclass(frozen=True)
class Question:
    """A pixel that is to be asked about."""

    annotation: int
    xy: tuple[int, int]
    source: str
    score: float


def unmasked(shapes: Sequence[Shape], cfg: Config) -> list[Shape]:
    """Those whose masks are not known anyway."""
    return [shape for shape in shapes if not is_masked(cfg, shape)]


def random_questions(
    shapes: Sequence[Shape], drawn: Mapping[int, Int64[np.ndarray, "_ 2"]], places: range
) -> list[Question]:
    """The random points of these places of each object; a pixel may come twice (PointSup)."""
    found = []
    for shape in shapes:
        for place in places:
            x, y = drawn[shape.id][place].tolist()
            found.append(Question(shape.id, (x, y), "random", 0.0))
    return found


def ask(
    network: CondInst, cfg: Config, train: ObjectSet, number: int, labelled: Pixels, drawn: Pixels
) -> list[Question]:
    """Choose the pixels of a round.

    Args:
        network: What the stage before has learned.
        cfg: Strategy, committee and budgets.
        train: Training pictures.
        number: The round, from 1.
        labelled: Pixels of each object that are not to be asked about again.
        drawn: Random pixels of each object, for the strategy `random`, and for objects that the
            network does not find.
    """
    own = cfg.points
    first = own.initial + (number - 1) * own.per_object
    places = range(first, first + own.per_object)
    if own.strategy == "random":
        questions = [
            random_questions(unmasked(one.asked, cfg), drawn, places) for one in train.pictures
        ]
    else:
        network.eval()

        def one(row: int) -> list[Question]:
            return _of_picture(network, cfg, train, row, number, labelled, drawn, places)

        questions = divided(len(train), one, f"questions of round {number}")
    return within_budget(questions, cfg, number)


def _of_picture(
    network: CondInst, cfg: Config, train: ObjectSet, row: int, number: int, labelled: Pixels,
    drawn: Pixels, places: range,
) -> list[Question]:  # fmt: skip
    own, one = cfg.points, train.pictures[row]
    options = Options(own.measure, own.share, own.near, own.ties)
    shapes = unmasked(one.asked, cfg)
    boxes = [shape.box for shape in shapes]
    maps = inference.members(network, cfg, train.picture(row), boxes, number, row)
    found: list[Question] = []
    for shape, some in zip(shapes, maps, strict=True):
        if not len(some):
            found += [
                Question(q.annotation, q.xy, FALLBACK, 0.0)
                for q in random_questions([shape], drawn, places)
            ]
            continue
        box = pixel_box(shape.box, one.height, one.width)
        known = labelled.get(shape.id, np.zeros((0, 2), dtype=np.int64))
        rng = np.random.default_rng(seed_of(cfg.seed, "pixel", number, shape.id))
        for _ in places:
            chosen = propose(some, box, known, own.strategy, rng, options)  # type: ignore[arg-type]
            if chosen is None:
                break
            found.append(Question(shape.id, chosen.xy, own.strategy, chosen.score))
            known = np.concatenate([known, np.array([chosen.xy])])
    return found


def within_budget(
    questions: Sequence[Sequence[Question]], cfg: Config, number: int
) -> list[Question]:
    """The questions of all pictures, in their order, less those that a budget has no room for.

    Those of the highest scores stay; of equal ones (all random ones) some are drawn.
    """
    own = cfg.points
    rng = np.random.default_rng(seed_of(cfg.seed, "budget", number))
    kept = [_best(some, own.per_image, rng) for some in questions]
    every = [question for some in kept for question in some]
    return _best(every, own.total, rng)


def _best(some: Sequence[Question], most: int, rng: np.random.Generator) -> list[Question]:
    if not most or len(some) <= most:
        return list(some)
    drawn = rng.permutation(len(some))
    order = sorted(range(len(some)), key=lambda i: (-some[i].score, drawn[i]))
    return [some[i] for i in sorted(order[:most])]


def answered(
    questions: Sequence[Question], shapes: Mapping[int, Shape], cfg: Config, number: int
) -> list[Answer]:
    """Answers of the oracle, each of which draws for itself."""
    own, found = cfg.oracle, []
    count: dict[int, int] = {}
    for question in questions:
        place = count[question.annotation] = count.get(question.annotation, 0) + 1
        seed = seed_of(cfg.seed, "oracle", number, question.annotation, place)
        rng = np.random.default_rng(seed)
        mask = shapes[question.annotation].mask
        assert mask is not None  # data.complete has seen to it
        is_skipped = bool(own.skip) and rng.random() < own.skip
        said = oracle(mask, *question.xy, own.noise, own.not_sure, rng)
        found.append(
            Answer(
                id=f"{number}/{question.annotation}/{place}",
                annotation=question.annotation,
                x=question.xy[0],
                y=question.xy[1],
                label="skip" if is_skipped else said,
                source=question.source,
                seconds=own.seconds_point,
                who="true masks",
                model="" if not number else f"round {number - 1}",
                round=number,
            )
        )
    return found
