"""Strategies of point selection: the pixel of a box about which to ask (arXiv 2207.11493).

Everything is of the crop of one object, so the cost is that of its box and not of its picture.
The released code has `entropy` (src/condinst/Entropy); the other measures differ from it only where
several predictions of one object disagree, so all of them take the predictions one by one.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from jaxtyping import Bool, Float, Float64, Int, Int64

Measure = Literal["entropy", "least_confidence", "margin", "variance", "vote_entropy", "bald"]
"""How unsure several predictions of one pixel are."""
Strategy = Literal[
    "random", "centre", "entropy", "least_confidence", "margin", "variance", "vote_entropy", "bald",
    "boundary", "topk_random", "diverse",
]  # fmt: skip
"""Measures, of which the highest pixel is taken, and other ways to choose."""
MEASURES: tuple[Measure, ...] = get_args(Measure)
STRATEGIES: tuple[Strategy, ...] = get_args(Strategy)
DRAWN = ("random", "topk_random")
"""Strategies that draw, and need a generator."""
TINY = 1e-12
"""Added within logarithms (src/condinst/Entropy/condinst.py)."""

Pixels = tuple[int, int, int, int]
"""x0 y0 x1 y1 of a box in whole pixels, ends exclusive."""
Rng = np.random.Generator | random.Random
"""Generators that are taken; the released code draws by Python's own."""


@dataclass(frozen=True)
class Options:
    """Choices within the strategies; ours, but for the first measure."""

    measure: Measure = "entropy"
    """Uncertainty that boundary, topk_random and diverse stand on."""
    share: float = 0.1
    """Share of the most uncertain pixels among which topk_random draws."""
    near: float = 2.0
    """Pixels from the mask's border at which boundary has lost 63 % of a pixel's weight."""
    ties: Literal["first", "drawn"] = "first"
    """Of equal pixels the first by rows, or any of them (as released), which needs a generator."""

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise ValueError(f"share must be above 0 and at most 1, got {self.share}")
        if not self.near > 0:
            raise ValueError(f"near must be above 0 pixels, got {self.near}")


USUAL = Options()


@dataclass(frozen=True)
class Proposal:
    """A pixel to ask about."""

    xy: tuple[int, int]
    """Of the picture."""
    score: float
    """Of the pixel on the map."""
    map: Float64[np.ndarray, "height width"]
    """Scores of the box's pixels, labelled ones too; zero where nothing predicted the object."""
    is_fallback: bool = False
    """True if nothing predicted the object, and the pixel was drawn."""


@dataclass(frozen=True)
class Request:
    """What a strategy needs to know of one object."""

    probabilities: Float[np.ndarray, "k height width"]
    """Predictions within `box`; none (k = 0) for an object that has no positive location."""
    box: Pixels
    labelled: Int[np.ndarray, "point 2"]
    """x y of pixels that were asked about before, or clicked."""


def pixel_box(box: Sequence[int | float], height: int, width: int) -> Pixels:
    """The whole pixels of a box: both corners rounded down, inside the picture, one pixel at least.

    The released code rounds so as well, but an empty box makes its scores zero everywhere, and any
    pixel of the picture may be chosen.

    Raises:
        ValueError: Coordinates are no numbers, or the picture has no pixel.
    """
    if len(box) != 4 or not all(math.isfinite(value) for value in box):
        raise ValueError(f"box {tuple(box)} is not four numbers x0 y0 x1 y1")
    if height < 1 or width < 1:
        raise ValueError(f"the picture of a box has {width} x {height} pixels")
    x0, y0 = (min(max(math.floor(v), 0), n - 1) for v, n in ((box[0], width), (box[1], height)))
    x1 = min(max(math.floor(box[2]), x0 + 1), width)
    y1 = min(max(math.floor(box[3]), y0 + 1), height)
    return x0, y0, x1, y1


# --- measures ------------------------------------------------------------------------------------


def uncertainty(
    probabilities: Float[np.ndarray, "k height width"], measure: Measure
) -> Float64[np.ndarray, "height width"]:
    """How unsure k predictions are of each pixel, in float64; entropies in nats."""
    p = probabilities.astype(np.float64)
    if measure == "variance":
        return p.var(0)
    if measure == "vote_entropy":
        return entropy((p > 0.5).mean(0))
    mean = p.mean(0)
    if measure == "least_confidence":
        return 1 - np.maximum(mean, 1 - mean)
    if measure == "margin":
        return 1 - np.abs(2 * mean - 1)
    if measure == "bald":  # what the predictions say of each other: zero if all are alike
        return entropy(mean) - entropy(p).mean(0)
    return entropy(mean)


def entropy(p: Float64[np.ndarray, "*shape"]) -> Float64[np.ndarray, "*shape"]:
    """Entropy of yes and no, in nats; TINY below zero where one of the two is sure."""
    found: np.ndarray = -p * np.log(p + TINY) - (1 - p) * np.log(1 - p + TINY)
    return found


# --- proposals -----------------------------------------------------------------------------------


def propose(
    probabilities: Float[np.ndarray, "k height width"],
    box: Pixels,
    labelled: Int[np.ndarray, "point 2"],
    strategy: Strategy,
    rng: Rng | None = None,
    options: Options = USUAL,
) -> Proposal | None:
    """Choose a pixel of one object's box that was not asked about yet.

    Args:
        probabilities: k predictions of the object within its box, from 0 to 1; with k = 0 a pixel
            is drawn in place of what the strategy would choose (`is_fallback`).
        box: The box, as `pixel_box` gives it.
        labelled: x y of pixels in the picture that are not to be chosen again; those outside of the
            box do not matter.
        strategy: One of STRATEGIES.
        rng: Needed by what draws: DRAWN, ties that are drawn, an object that nothing predicted.
        options: Choices within the strategies.

    Returns:
        The pixel, or None if all pixels of the box have been asked about.

    Raises:
        ValueError: The strategy is unknown, sizes do not fit, a value is no probability, or a
            generator is needed and missing.
    """
    x0, y0, x1, y1 = box
    _, height, width = probabilities.shape
    if strategy not in STRATEGIES:
        raise ValueError(f"no strategy is called {strategy!r}; there are {', '.join(STRATEGIES)}")
    if (height, width) != (y1 - y0, x1 - x0) or not height * width:
        raise ValueError(
            f"probabilities of box {box} are {width} x {height} pixels, expected "
            f"{x1 - x0} x {y1 - y0} and one pixel at least"
        )
    if probabilities.size and not (probabilities.min() >= 0 and probabilities.max() <= 1):
        raise ValueError(f"probabilities of box {box} are not all from 0 to 1")
    free = _free(box, labelled)
    if not free.any():
        return None
    is_fallback = not len(probabilities) and strategy not in ("random", "centre")
    if is_fallback or strategy == "random":
        scores = np.zeros((height, width))
        place = int(np.flatnonzero(free)[_drawn(int(free.sum()), strategy, rng)])
    elif strategy == "topk_random":
        scores = uncertainty(probabilities, options.measure)
        place = _among_the_top(scores, free, options.share, rng)
    else:
        scores = _scores(probabilities, free, strategy, options)
        place = _highest(scores, free, options.ties, rng)
    y, x = divmod(place, width)
    return Proposal((x0 + x, y0 + y), float(scores[y, x]), scores, is_fallback)


def propose_all(
    requests: Mapping[int, Request],
    strategy: Strategy,
    seed: Sequence[int] = (0,),
    options: Options = USUAL,
) -> dict[int, Proposal]:
    """Choose a pixel for each object, by annotation id; objects without a free pixel are left out.

    An object draws from a generator of `seed` and its own id, so that neither the order of the
    objects nor who else is asked about changes what is drawn.
    """
    found = {}
    for number, one in requests.items():
        rng = np.random.default_rng([*seed, number])
        proposal = propose(one.probabilities, one.box, one.labelled, strategy, rng, options)
        if proposal is not None:
            found[number] = proposal
    return found


def _free(box: Pixels, labelled: Int[np.ndarray, "point 2"]) -> Bool[np.ndarray, "height width"]:
    x0, y0, x1, y1 = box
    free = np.ones((y1 - y0, x1 - x0), dtype=bool)
    inside = (labelled >= (x0, y0)).all(1) & (labelled < (x1, y1)).all(1)
    x, y = (labelled[inside] - (x0, y0)).T
    free[y, x] = False
    return free


def _scores(
    probabilities: Float[np.ndarray, "k height width"],
    free: Bool[np.ndarray, "height width"],
    strategy: Strategy,
    options: Options,
) -> Float64[np.ndarray, "height width"]:
    """What the chosen pixel has most of."""
    if strategy == "centre":
        return _from_the_centre(free)
    if strategy == "boundary":
        scores = uncertainty(probabilities, options.measure)
        away = _from_the_border(probabilities.astype(np.float64).mean(0) > 0.5)
        return scores * np.exp(-away / options.near)
    if strategy == "diverse":
        return uncertainty(probabilities, options.measure) * _from_the_points(free)
    return uncertainty(probabilities, strategy)  # type: ignore[arg-type]


def _from_the_centre(
    free: Bool[np.ndarray, "height width"],
) -> Float64[np.ndarray, "height width"]:
    """Nearness to the centre of a box without points; later, distance to points and borders."""
    from scipy.ndimage import distance_transform_edt

    height, width = free.shape
    if free.all():
        y, x = np.ogrid[:height, :width]
        # whole numbers, so that the two or four pixels around an even centre are equal
        return -(((2 * y - height + 1) ** 2 + (2 * x - width + 1) ** 2) / 4.0)
    found: np.ndarray = distance_transform_edt(np.pad(free, 1))[1:-1, 1:-1]
    return found


def _from_the_border(
    mask: Bool[np.ndarray, "height width"],
) -> Float64[np.ndarray, "height width"]:
    """Pixels to the nearest pixel on the other side of the mask's border; zero without a border."""
    from scipy.ndimage import distance_transform_edt

    if mask.all() or not mask.any():
        return np.zeros(mask.shape)
    found: np.ndarray = np.where(mask, distance_transform_edt(mask), distance_transform_edt(~mask))
    return found - 1


def _from_the_points(
    free: Bool[np.ndarray, "height width"],
) -> Float64[np.ndarray, "height width"]:
    """Distance to the nearest labelled pixel as a share of the box's diagonal; 1 without any."""
    from scipy.ndimage import distance_transform_edt

    if free.all():
        return np.ones(free.shape)
    found: np.ndarray = distance_transform_edt(free) / math.hypot(*free.shape)
    return found


def _highest(
    scores: Float64[np.ndarray, "height width"],
    free: Bool[np.ndarray, "height width"],
    ties: str,
    rng: Rng | None,
) -> int:
    """Place, by rows, of the highest score of a free pixel."""
    allowed = np.where(free, scores, -np.inf)
    if ties == "first":
        return int(allowed.argmax())
    equal = np.flatnonzero(allowed == allowed.max())
    if len(equal) == 1:  # the released code draws only among several
        return int(equal[0])
    return int(equal[_drawn(len(equal), "ties='drawn'", rng)])


def _among_the_top(
    scores: Float64[np.ndarray, "height width"],
    free: Bool[np.ndarray, "height width"],
    share: float,
    rng: Rng | None,
) -> int:
    """A place drawn among the highest scores; of equal ones at the end, the first by rows count."""
    places: Int64[np.ndarray, " some"] = np.flatnonzero(free)
    values = scores.ravel()[places]
    count = max(1, round(share * len(places)))
    least = np.partition(values, len(values) - count)[len(values) - count]
    above = places[values > least]
    top = np.concatenate([above, places[values == least][: count - len(above)]])
    return int(np.sort(top)[_drawn(len(top), "topk_random", rng)])


def _drawn(count: int, what: str, rng: Rng | None) -> int:
    """A whole number below `count`."""
    if rng is None:
        raise ValueError(f"{what} draws among pixels, so it needs a generator (rng)")
    return rng.randrange(count) if isinstance(rng, random.Random) else int(rng.integers(count))
