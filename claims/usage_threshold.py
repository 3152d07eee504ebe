"""What thresholds chosen without masks lose against the best threshold of the sweep.

`compare` takes pictures with their maps, their classifier's score and their truth, looks at each
once, and gives the rows of one seed network on one set; `worst` sums up rows of many. The
criterion `activation` was chosen on `coco_wsss` (lost at most 0.2 points with average pooling, tau
0.2 and tau -0.3). `clothing_parsing` was looked at once, afterwards, and does not confirm it: with
average pooling it lost 4.3 to 4.6 and Otsu's threshold 3.1 to 3.7; with tau 0.2 it lost 3.5 to 4.1
and Otsu's 0.7 to 1.2.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from jaxtyping import Int
from torch import Tensor

from tenfold.report.claim import md_table
from tenfold.systems.usage import principle, threshold
from tenfold.systems.usage.seed_metrics import Sweep
from tenfold.systems.usage.threshold import Choice, Seeds

FIXED = 0.3
"""What a user who chooses nothing might take."""


@dataclass(frozen=True)
class Row:
    """One choice on one set with one seed network."""

    where: str
    name: str
    threshold: float
    miou: float
    lost: float
    """Points of mIoU below the best threshold."""


def compare(
    where: str,
    num_classes: int,
    pictures: Iterable[tuple[Seeds, Int[Tensor, "height width"]]],
    names: Sequence[str] = tuple(threshold.CRITERIA),
) -> tuple[list[Row], principle.Recommendation]:
    """Rows of all choices, the swept one first, and the temperature that its FP and FN advise.

    `num_classes` counts the background.
    """
    sweep = Sweep(num_classes)
    criteria = {name: threshold.CRITERIA[name]() for name in names}
    for seeds, truth in pictures:
        sweep.add(seeds.maps, truth)
        for criterion in criteria.values():
            criterion.add(seeds)
    curve = sweep.curve()
    choices: list[Choice] = [threshold.swept(curve), threshold.fixed(FIXED)]
    choices += [criterion.choice() for criterion in criteria.values()]
    rows = [
        Row(
            where,
            choice.name,
            choice.threshold,
            float(curve.miou[curve.at(choice.threshold)]),
            threshold.loss(choice, curve),
        )
        for choice in choices
    ]
    return rows, principle.recommend_tau(curve)


def worst(rows: Iterable[Row]) -> dict[str, float]:
    """The most that each choice lost anywhere."""
    found: dict[str, float] = {}
    for row in rows:
        found[row.name] = max(found.get(row.name, 0.0), row.lost)
    return found


def table(rows: Sequence[Row]) -> str:
    """Rows as Markdown."""
    head = ["set and network", "choice", "threshold", "mIoU", "lost"]
    cells = [
        [row.where, row.name, f"{row.threshold:.2f}", f"{row.miou:.1f}", f"{row.lost:.1f}"]
        for row in rows
    ]
    return "\n".join(md_table(head, cells, words=2))
