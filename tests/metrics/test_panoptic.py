"""Panoptic qualities: the numbers of the official evaluators, and properties."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from metrics.nested_boxes import boxes
from metrics.street_segments import CLASSES, SIZE, picture

from tenfold.data.images import coco_tree
from tenfold.data.images.runs import code_of, codes_of, full, mask_of
from tenfold.metrics import panoptic
from tenfold.structures import PartMap, Segments, Tree, Unit

PANOPTICAPI = {
    "sky": (5, 1, 1, 4.814401056279509),
    "road": (4, 1, 2, 3.7914657225864903),
    "car": (11, 1, 3, 9.780820105820105),
    "person": (13, 0, 3, 10.733865074356489),
}
"""TP, FP, FN and sum of IoU of pictures 0 to 5 by cocodataset/panopticapi, evaluation.py."""
COCOTREE = {  # hpq, otq, tq, bq, mean_nq, mq, lq, mask_recovery
    0: (0.364351852, 0.821417189, 0.853703704, 0.991397849, 0.962180656, 0.962180656, 1,
        0.861111111),
    1: (0.421454678, 0.894269978, 0.945868946, 0.996996997, 0.94544808, 0.94544808, 1, 0.948717949),
    2: (0.506944444, 0.946356442, 0.982589427, 0.994871795, 0.963125, 0.963125, 1, 0.987654321),
    3: (0.361111111, 0.846950353, 0.90020202, 0.992869875, 0.940844759, 0.966580053, 0.970588235,
        0.906666667),
    4: (0.290277778, 0.808906597, 0.857407407, 0.995698925, 0.94343318, 0.94343318, 1, 0.861111111),
    5: (0.323958333, 0.825832263, 0.853703704, 0.991397849, 0.967352325, 0.967352325, 1,
        0.861111111),
}  # fmt: skip
"""By melonkick3090/COCOTree's benchmark, paper_v1 with exact names, each seed of `boxes`."""


def pictures(found: bool) -> list[Segments]:
    return [picture(seed, found) for seed in range(6)]


def tree_of(one: Segments) -> Tree:
    """A tree of one level."""
    codes = codes_of(one.ids)
    void = codes.pop(one.void, None)
    units = [Unit(0, "scene", None, full(*one.ids.shape), state="done")]
    for number, code in codes.items():
        units.append(Unit(number, one.names[number], 0, code, crowd=number in one.crowd))
    return Tree(one.ids.shape, tuple(units), void=void)


def trees(seed: int) -> tuple[Tree, Tree]:
    return coco_tree.tree_of(boxes(seed)), coco_tree.tree_of(boxes(seed, shaken=True))


# --- segments ------------------------------------------------------------------------------------


def test_pq_is_that_of_panopticapi() -> None:
    quality = panoptic.pq(pictures(False), pictures(True))
    for name, (tp, fp, fn, total) in PANOPTICAPI.items():
        counts = quality.classes[name]
        assert (counts.tp, counts.fp, counts.fn) == (tp, fp, fn), name
        assert counts.quality == pytest.approx(total, abs=1e-12)
    assert quality.pq == pytest.approx(0.7460987285940421, abs=1e-12)
    assert quality.sq == pytest.approx(0.9063985087161603, abs=1e-12)
    assert quality.rq == pytest.approx(0.8258279077244595, abs=1e-12)
    assert quality.pq + sum(quality.losses.values()) == pytest.approx(1)
    things = quality.among({"car", "person"})
    assert things.pq == pytest.approx((9.780820105820105 / 13 + 10.733865074356489 / 14.5) / 2)


def test_numbers_of_segments_do_not_matter() -> None:
    """Small ones are looked up in a table, those of more than three bytes or below 0 searched."""
    want = panoptic.pq(pictures(False), pictures(True))
    for step in (1, 10_000_000, -3):
        renamed = []
        for one in pictures(True):
            number = {old: step * (i + 1) for i, old in enumerate(reversed([*one.names]))}
            ids = np.zeros(SIZE, dtype=np.int64)
            for old, new in number.items():
                ids[one.ids == old] = new
            renamed.append(Segments(ids, {number[n]: name for n, name in one.names.items()}))
        assert panoptic.pq(pictures(False), renamed) == want


@pytest.mark.parametrize("number", [5, 20_000_000, -2])
def test_a_pixel_of_an_unknown_number_is_named(number: int) -> None:
    one = picture(0)
    ids = one.ids.copy()
    ids[3, 7] = number
    with pytest.raises(ValueError, match=rf"picture 0: pixel x 7, y 3 has the number {number}"):
        panoptic.pq([one], [replace(one, ids=ids)])


def test_pictures_of_other_sizes_or_numbers_are_refused() -> None:
    one = picture(0)
    with pytest.raises(ValueError, match=r"35 x 52 pixels \(height x width\), its truth 36 x 52"):
        panoptic.pq([one], [replace(one, ids=one.ids[1:])])
    with pytest.raises(ValueError, match="1 true pictures, but 2 found"):
        panoptic.pq([one], [one, one])


# --- parts ---------------------------------------------------------------------------------------


def parts_of_person(width: int) -> PartMap:
    """A person of two parts on a road, both `width` columns wide."""
    sids = np.full((6, 12), 7, dtype=np.int32)
    iids, pids = np.full_like(sids, -1), np.zeros_like(sids)
    sids[:4, 2:10], iids[:4, 2:10] = 24, 0
    pids[:4, 2 : 2 + width], pids[:4, 2 + width : 10] = 1, 2
    return PartMap(sids, iids, pids)


def test_parts_count_by_their_mean_overlap() -> None:
    true = parts_of_person(4)
    quality = panoptic.part_pq([true], [parts_of_person(6)])
    # background 40 of 40 pixels, part 1: 16 of 24, part 2: 8 of 16
    assert quality.classes["person"].pq == pytest.approx((1 + 16 / 24 + 8 / 16) / 3)
    assert quality.classes["road"].pq == 1
    unknown = parts_of_person(4)
    unknown.pids[:4, 2:4] = 255
    seen = panoptic.part_pq([true], [unknown]).classes["person"]
    assert seen.pq == pytest.approx((1 + 8 / 16 + 1) / 3)


def test_wholes_without_parts_are_left_out() -> None:
    bare, found = parts_of_person(4), parts_of_person(4)
    bare.pids[:] = 0
    quality = panoptic.part_pq([bare], [found])
    assert quality.classes["person"].weight == 0
    crowd = replace(found, iids=np.full_like(found.iids, -1))
    assert panoptic.part_pq([crowd], [found]).classes["person"].weight == 0
    with pytest.raises(ValueError, match="the maps of it and its truth have sizes"):
        panoptic.part_pq([found], [PartMap(*(x[1:] for x in (bare.sids, bare.iids, bare.pids)))])
    with pytest.raises(ValueError, match=r"parts are numbered 0 to 300"):
        panoptic.part_pq([found], [replace(found, pids=found.pids * 150)])


# --- trees ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", ["iou", "hpq"])
def test_hpq_of_one_level_is_pq(rule: str) -> None:
    true, found = ([tree_of(one) for one in pictures(seen)] for seen in (False, True))
    flat = panoptic.pq(pictures(False), pictures(True))
    quality = panoptic.hpq(true, found, rule=rule)
    assert quality.hpq == pytest.approx(flat.pq, abs=1e-12)
    for name in CLASSES:
        ours, theirs = quality.classes[name], flat.classes[name]
        assert (ours.tp, ours.fp, ours.fn) == (theirs.tp, theirs.fp, theirs.fn)
    assert len(quality.levels) == 1


@pytest.mark.parametrize("void", ["image", "unit"])
@pytest.mark.parametrize("rule", ["iou", "hpq"])
def test_a_tree_is_as_good_as_itself(rule: str, void: str) -> None:
    for seed in range(3):
        for tree in trees(seed):
            quality = panoptic.hpq([tree], [tree], rule, void)
            assert quality.hpq == 1 and [level.pq for level in quality.levels] == [1, 1, 1]
            assert quality.losses == {"iou": 0, "fp": 0, "fn": 0}


@pytest.mark.parametrize("rule", ["iou", "hpq"])
def test_hpq_does_not_depend_on_numbers_and_order(rule: str) -> None:
    true, found = trees(1)
    number = {unit.id: 1000 - 7 * unit.id for unit in found.units}
    parent = {None: None} | number
    units = [replace(unit, id=number[unit.id], parent=parent[unit.parent]) for unit in found.units]
    other = replace(found, units=tuple(units[::-1]))
    want = panoptic.hpq([true], [found], rule)
    got = panoptic.hpq([true], [other], rule)
    assert got.hpq == pytest.approx(want.hpq, abs=1e-12)
    for ours, theirs in zip(got.levels, want.levels, strict=True):
        assert {n: (c.tp, c.fp, c.fn) for n, c in ours.classes.items()} == {
            n: (c.tp, c.fp, c.fn) for n, c in theirs.classes.items()
        }


def test_a_lost_leaf_never_helps() -> None:
    tree = trees(2)[0]
    whole = panoptic.hpq([tree], [tree]).hpq
    leaves = [unit for unit in tree.units if not tree.parts(unit.id)]
    for leaf in leaves[::4]:
        less = replace(tree, units=tuple(unit for unit in tree.units if unit != leaf))
        assert panoptic.hpq([tree], [less]).hpq < whole
    found = trees(2)[1]
    before = panoptic.hpq([tree], [found]).hpq
    right = [unit for unit in found.units if found.depths[unit.id] == 3]
    for leaf in right[::6]:
        less = replace(found, units=tuple(unit for unit in found.units if unit != leaf))
        assert panoptic.hpq([tree], [less]).hpq <= before + 1e-12


def test_what_was_not_annotated_is_not_punished() -> None:
    tree = trees(0)[0]
    stopped = replace(
        tree, units=tuple(replace(u, state="open") if u.parent == 0 else u for u in tree.units)
    )
    assert panoptic.hpq([stopped], [tree]).hpq == 1  # nobody knows what is in the wholes
    assert len(panoptic.hpq([stopped], [tree]).levels) == 1
    assert panoptic.hpq([tree], [stopped]).hpq == 0  # here it is known, and nothing was found


def test_a_divided_region_stands_for_its_objects() -> None:
    masks = codes_of(np.repeat([[1, 1, 2, 2, 0]], 4, axis=0))
    region = code_of(np.repeat([[True] * 4 + [False]], 4, axis=0))
    scene = Unit(0, "scene", None, full(4, 5), state="done")
    cars = [Unit(2, "car", 1, masks[1]), Unit(3, "car", 1, masks[2])]
    divided = Tree((4, 5), (scene, Unit(1, "car", 0, region, state="done"), *cars))
    flat = Tree((4, 5), (scene, *(replace(car, parent=0) for car in cars)))
    assert divided.told_apart() == flat
    assert panoptic.hpq([flat], [divided]).hpq == 1
    whole = Tree((4, 5), (scene, Unit(1, "car", 0, region)))
    assert panoptic.hpq([flat], [whole]).hpq == 0
    crowd = Tree((4, 5), (scene, Unit(1, "car", 0, region, crowd=True)))
    assert panoptic.hpq([crowd], [flat]).classes["car"].weight == 0


def test_void_of_a_unit_is_kinder() -> None:
    scene = Unit(0, "scene", None, full(6, 8), state="done")

    def mask(x0: int, x1: int) -> dict:
        found = np.zeros((6, 8), dtype=bool)
        found[:, x0:x1] = True
        return code_of(found)

    true = Tree((6, 8), (scene, Unit(1, "car", 0, mask(0, 8), state="done"),
                         Unit(2, "wheel", 1, mask(0, 3))))  # fmt: skip
    units = (scene, Unit(1, "car", 0, mask(0, 8), state="done"), Unit(2, "wheel", 1, mask(0, 4)),
             Unit(3, "wheel", 1, mask(5, 8)))  # fmt: skip
    found = Tree((6, 8), units)
    assert panoptic.hpq([true], [found]).hpq == pytest.approx(0.75 / 1.5)
    assert panoptic.hpq([true], [found], void="unit").hpq == 1


@pytest.mark.parametrize("rule", ["iou", "hpq"])
def test_void_of_a_picture_is_never_a_prediction(rule: str) -> None:
    """Whatever is found there, and however much of it, is as if nothing were."""
    true = tree_of(picture(0))
    assert true.void is not None
    void = mask_of(true.void)
    found = tree_of(picture(0, True))
    want = panoptic.hpq([true], [found], rule)
    more = tuple(
        unit if unit.parent is None or number % 2
        else replace(unit, mask=code_of(mask_of(unit.mask) | void))
        for number, unit in enumerate(found.units)
    )  # fmt: skip
    alone = Unit(999, "sign", 0, true.void)
    got = panoptic.hpq([true], [replace(found, units=(*more, alone))], rule)
    assert got.hpq == pytest.approx(want.hpq, abs=1e-12) and not got.classes["sign"].weight


def test_trees_of_other_pictures_are_refused() -> None:
    one = tree_of(picture(0))
    other = tree_of(replace(picture(0), ids=picture(0).ids[:-1]))
    with pytest.raises(ValueError, match=r"is of 35 x 52 pixels"):
        panoptic.hpq([one], [replace(other, image="a.png")])
    with pytest.raises(ValueError, match="1 true trees, but 0 found"):
        panoptic.hpq([one], [])
    with pytest.raises(ValueError, match="rule is iou or hpq"):
        panoptic.hpq([one], [one], rule="IoU")  # type: ignore[arg-type]


def test_iou_of_classes_at_each_level() -> None:
    true, found = trees(3)
    for level, names in ((1, {"van", "car", "sign"}), (2, {"wheel", "door", "hatch", "rim"})):
        ious = panoptic.semantic_iou([true, true], [found, found], level)
        assert ious == panoptic.semantic_iou([true], [found], level)
        assert ious.keys() <= names and ious["car" if level == 1 else "wheel"] > 0.5
        perfect = panoptic.semantic_iou([true], [true], level)
        assert set(perfect.values()) == {1.0}
    # what is outside of the wholes whose parts are known does not count
    flat = tree_of(picture(0))
    assert panoptic.semantic_iou([flat], [flat], 2) == {}
    both = [
        np.isin(one.ids, [n for n, name in one.names.items() if name == "road"])
        for one in (picture(0), picture(0, True))
    ]
    both[1] &= picture(0).ids != 0
    want = (both[0] & both[1]).sum() / (both[0] | both[1]).sum()
    got = panoptic.semantic_iou([flat], [tree_of(picture(0, True))])["road"]
    assert got == pytest.approx(float(want))


# --- trees of free words -------------------------------------------------------------------------


@pytest.mark.parametrize("seed", COCOTREE)
def test_numbers_of_cocotree(seed: int) -> None:
    """HPQ where each instance is a semantic node of its own; what else differs is documented."""
    sides = boxes(seed), boxes(seed, shaken=True)
    hpq = panoptic.hpq(*([coco_tree.tree_of(side)] for side in sides), rule="hpq").hpq
    (otq,) = panoptic.otq(*([coco_tree.tree_of(side, "overlap")] for side in sides))
    got = (hpq, otq.otq, otq.tq, otq.bq, otq.nq, otq.mq, otq.lq, otq.recovery)
    assert got == pytest.approx(COCOTREE[seed], abs=1e-9)
    assert panoptic.mean([otq, otq]) == otq


def test_names_may_be_alike() -> None:
    true, found = trees(3)
    plain = panoptic.otq([true], [found])[0]
    alike = panoptic.otq([true], [found], similarity=lambda a, b: 1.0 if a == b else 0.5)[0]
    assert plain.lq < alike.lq < 1 and plain.tq == alike.tq
    others = replace(found, units=(*found.units, Unit(99, "Others", 0, full(*found.size))))
    assert panoptic.otq([true], [others])[0] == plain
    empty = replace(found, units=(found.root,))
    assert panoptic.otq([true], [empty])[0].otq == 0


# --- probes --------------------------------------------------------------------------------------


def test_probes_of_one_object_should_agree() -> None:
    def box(width: int) -> dict:
        found = np.zeros((10, 20), dtype=bool)
        found[:, :width] = True
        return code_of(found)

    quality = panoptic.probe_quality([box(10), box(20)], [[box(10), box(10), box(4)], [box(19)]])
    assert quality.iou == pytest.approx((1 + 1 + 0.4 + 0.95) / 4)
    assert quality.recall == 0.75 and quality.agreeing == pytest.approx(1 / 3)
    assert quality.consistency == pytest.approx((1 + 0.4 + 0.4) / 3)
    assert (quality.probes, quality.objects) == (4, 2)
    with pytest.raises(ValueError, match="2 objects and probes of 1"):
        panoptic.probe_quality([box(1), box(2)], [[box(1)]])
