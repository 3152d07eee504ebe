"""Faults of the released code (chufengt/APIS), of each of which a test says that ours is right.

Here are those that no other file holds. The others: points at a wrong object, as crowds are counted
on one side only (test_rounds, `..._belong_to_objects_and_not_to_places`); an empty box, whose point
may be anywhere (test_strategies, `a_box_has_a_pixel_...`); the same pixel asked again (there,
`every_pixel_of_the_box_once`); contradiction taken for doubt (there, `agreement_and_contra...`);
statistics that drift while pixels are chosen (nn/test_condinst, `choosing_points_changes_no_...`);
full masks that cannot be trained on any more (there, `one_model_learns_of_all_kinds`); points
normalised by another size than the batch's (nn/test_mask_losses, `points_of_a_batch_with_...`);
unlabelled points in the mean (there, `a_point_without_a_label_counts_for_nothing`).
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import tenfold
from tenfold.generated import hollows
from tenfold.systems.apis import Apis, inference, selection
from tenfold.systems.apis.strategies import Strategy, pixel_box

pytestmark = pytest.mark.usefixtures("generated_only")
Made = Callable[[str], Path]


@pytest.mark.parametrize("turned", [False, True])
def test_the_scale_is_that_of_the_picture_whatever_limit_set_it(made: Made, turned: bool) -> None:
    """Released code infers it from a short side of 800, which is wrong where the other limit rules.

    Here the shorter side would be 64, but the longer one may have 96 alone.
    """
    system = tenfold.load(made("apis"))
    assert isinstance(system, Apis)
    cfg = replace(system.cfg, data=replace(system.cfg.data, test_side=64, longest=96))
    drawn = hollows.picture("scale", 0)
    tall, wide = 63, 193
    picture = np.resize(drawn.picture, (tall, wide, 3))
    box = (20.5, 8.0, 150.0, 60.0)
    if turned:
        picture, box = picture.transpose(1, 0, 2), (box[1], box[0], box[3], box[2])
    system.model.eval()
    seen = inference.see(system.model, cfg, picture)
    assert max(seen.resized) == 96 and min(seen.resized) < 64
    assert seen.factors == (seen.resized[1] / seen.size[1], seen.resized[0] / seen.size[0])
    (maps,) = inference.committee(system.model, seen, [box])
    x0, y0, x1, y1 = pixel_box(box, *picture.shape[:2])
    assert len(maps) and maps.shape[1:] == (y1 - y0, x1 - x0)


def test_strategies_side_by_side_choose_what_each_chooses_alone(made: Made) -> None:
    """Released code switches by copying files over a package, so that two at once are mixed up."""
    system = tenfold.load(made("apis"))
    assert isinstance(system, Apis)
    rounds = system.rounds()
    wanted: tuple[Strategy, ...] = ("entropy", "bald", "random", "topk_random")

    def asked(strategy: Strategy) -> list[tuple[int, int]]:
        cfg = replace(system.cfg, points=replace(system.cfg.points, strategy=strategy))
        train = rounds.train.at(range(3))
        return [q.xy for q in selection.ask(system.model, cfg, train, 1, {}, rounds._drawn)]

    alone = [asked(strategy) for strategy in wanted]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(asked, wanted)) == alone
    assert len({tuple(one) for one in alone}) == len(wanted)
