"""Average precision: by definition on small cases, and what must hold."""

from __future__ import annotations

import contextlib
import io

import numpy as np
import pytest

from tenfold.metrics import ap
from tenfold.structures import Instances


def box_iou(a: np.ndarray, b: np.ndarray) -> float:
    low, high = np.maximum(a[:2], b[:2]), np.minimum(a[2:], b[2:])
    shared = float(np.prod(np.maximum(high - low, 0)))
    return shared / (float(np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2])) - shared)


def slow_ap(truth: list[Instances], found: list[Instances], label: int, limit: float) -> float:
    """COCO's definition: greedy matching by score, 101 recalls, best precision at or beyond."""
    entries, total = [], 0
    for one, seen in zip(truth, found, strict=True):
        total += int(((one.labels == label) & ~one.is_crowd).sum())
        free = set(np.flatnonzero((one.labels == label) & ~one.is_crowd))
        crowds = np.flatnonzero((one.labels == label) & one.is_crowd)
        for i in sorted(np.flatnonzero(seen.labels == label), key=lambda i: -seen.scores[i]):
            best, at = limit, None
            for j in free:
                overlap = box_iou(seen.boxes[i], one.boxes[j])
                if overlap >= best:
                    best, at = overlap, j
            if at is not None:
                free.remove(at)
                entries.append((seen.scores[i], True))
                continue
            inside = [j for j in crowds if _share(seen.boxes[i], one.boxes[j]) >= limit]
            if not inside:
                entries.append((seen.scores[i], False))
    entries.sort(key=lambda e: -e[0])
    right = np.cumsum([hit for _, hit in entries])
    precision = right / np.arange(1, len(entries) + 1)
    recall = right / total
    at = [max([p for p, r in zip(precision, recall, strict=True) if r >= level], default=0.0)
          for level in np.linspace(0, 1, 101)]  # fmt: skip
    return 100 * float(np.mean(at))


def _share(box: np.ndarray, crowd: np.ndarray) -> float:
    low, high = np.maximum(box[:2], crowd[:2]), np.minimum(box[2:], crowd[2:])
    return float(np.prod(np.maximum(high - low, 0)) / np.prod(box[2:] - box[:2]))


def average_precision(
    truth: list[Instances], found: list[Instances], num_classes: int, kind: ap.Kind
) -> dict[str, float]:
    coded = [[ap.coded(one) for one in some] for some in (truth, found)]
    return ap.average_precision(coded[0], coded[1], num_classes, kind)


def case(seed: int) -> tuple[list[Instances], list[Instances]]:
    random = np.random.default_rng(seed)
    truth, found = [], []
    for _ in range(4):
        low = random.uniform(0, 60, (5, 2))
        boxes = np.concatenate([low, low + random.uniform(10, 40, (5, 2))], 1).astype(np.float32)
        crowd = np.array([False] * 4 + [True])
        labels = random.integers(2, size=5)
        truth.append(Instances(boxes, labels, crowd=crowd))
        moved = (boxes + random.normal(0, 4, boxes.shape)).astype(np.float32)
        scores = random.permutation(5).astype(np.float32) / 5 + random.uniform(0, 0.1)
        found.append(Instances(moved, labels, scores.astype(np.float32)))
    return truth, found


@pytest.mark.parametrize("seed", range(4))
def test_equals_its_definition(seed: int) -> None:
    truth, found = case(seed)
    want = [slow_ap(truth, found, label, 0.5) for label in (0, 1)]
    got = average_precision(truth, found, 2, "boxes")
    assert got["AP50"] == pytest.approx(np.mean(want), abs=0.5)
    levels = np.linspace(0.5, 0.95, 10)
    each = ap.per_class([ap.coded(t) for t in truth], [ap.coded(f) for f in found], 2, "boxes")
    for label in (0, 1):
        mean = np.mean([slow_ap(truth, found, label, float(level)) for level in levels])
        assert each[label] == pytest.approx(mean, abs=0.5)


def test_perfect_and_nothing() -> None:
    truth, _ = case(0)
    perfect = [Instances(t.boxes[:4], t.labels[:4], np.ones(4, dtype=np.float32)) for t in truth]
    assert average_precision(truth, perfect, 2, "boxes")["AP"] == pytest.approx(100)
    none = Instances(np.zeros((0, 4), np.float32), np.zeros(0, np.int64), np.zeros(0, np.float32))
    assert average_precision(truth, [none] * 4, 2, "boxes")["AP"] == 0


def test_nothing_found_is_zero_only_where_there_are_objects() -> None:
    """As with a box that is wrong: sizes and classes without an object have no number."""
    boxes, labels = np.array([[5.0, 5, 45, 45]], np.float32), np.zeros(1, np.int64)
    truth = [ap.coded(Instances(boxes, labels))]
    wrong = ap.coded(Instances(boxes + 900, labels, np.ones(1, np.float32)))
    for rows in (truth, [[]]):
        want, precision = ap.statistics(rows, [wrong], 2, "boxes")
        got, same = ap.statistics(rows, [[]], 2, "boxes")
        assert got == want and np.array_equal(same, precision)
        assert got["small"] == -100 and got["AP"] == got["medium"] == (0 if rows[0] else -100)


def test_classes_without_any_mask_have_no_precision_of_masks() -> None:
    boxes, labels = np.array([[0.0, 0, 9, 9], [0, 0, 9, 9]], np.float32), np.array([0, 1])
    masks = np.ones((2, 9, 9), dtype=bool)
    found = [ap.coded(Instances(boxes, labels, np.ones(2, np.float32), masks))]
    masks[1] = False  # an object that has a box alone
    truth = [ap.coded(Instances(boxes, labels, masks=masks))]
    for seen in (found, [[]]):
        (each,) = ap.at_thresholds(truth, seen, 2, "masks", [0.5]).values()
        want = {0: pytest.approx(100.0 if seen is found else 0.0)}
        assert each.interpolated == want and each.all_points == want
        assert ap.per_class(truth, seen, 2, "masks") == want
    assert set(ap.per_class(truth, found, 2, "boxes")) == {0, 1}


def test_masks_are_what_counts_for_masks() -> None:
    mask = np.zeros((1, 40, 40), dtype=bool)
    mask[0, 5:30, 5:30] = True
    boxes, labels = np.array([[5.0, 5, 30, 30]], np.float32), np.zeros(1, np.int64)
    truth = [Instances(boxes, labels, masks=mask)]
    half = mask.copy()
    half[0, 17:] = False
    one = np.ones(1, np.float32)
    for shape, want in ((mask, 100), (half, 0)):
        found = [Instances(boxes, labels, one, shape)]
        assert average_precision(truth, found, 1, "masks")["AP50"] == pytest.approx(want)
        assert average_precision(truth, found, 1, "boxes")["AP50"] == pytest.approx(100)
    assert np.array_equal(ap.decode_mask(ap.encode_mask(half[0])), half[0])


def test_objects_are_sorted_by_the_area_that_is_given() -> None:
    boxes, labels = np.array([[5.0, 5, 45, 45]], np.float32), np.zeros(1, np.int64)
    found = [Instances(boxes, labels, np.ones(1, np.float32))]
    for areas, size in ((None, "medium"), (np.array([900.0]), "small")):
        truth = [Instances(boxes, labels, areas=areas)]
        numbers = average_precision(truth, found, 1, "boxes")
        others = {"small", "medium", "large"} - {size}
        assert numbers[size] == pytest.approx(100) and {numbers[o] for o in others} == {-100}


def ring(random: np.random.Generator, side: int) -> tuple[np.ndarray, list[int]]:
    """The outline of a square: its box has many times the area of its mask."""
    mask, thick = np.zeros((200, 200), dtype=bool), int(random.integers(2, 9))
    x, y = (int(v) for v in random.integers(0, 200 - side, 2))
    mask[y : y + side, x : x + side] = True
    mask[y + thick : y + side - thick, x + thick : x + side - thick] = False
    return mask, [x, y, x + side, y + side]


def rings(seed: int) -> tuple[list[Instances], list[Instances]]:
    """Rings of all sizes; found ones are thinner, or where there is none."""
    random = np.random.default_rng(seed)
    truth, found = [], []
    for _ in range(12):
        made = [ring(random, int(random.integers(20, 150))) for _ in range(6)]
        masks, boxes = np.array([m for m, _ in made]), np.array([b for _, b in made], np.float32)
        labels = random.integers(2, size=6)
        truth.append(Instances(boxes[:3], labels[:3], masks=masks[:3]))
        thinner = masks.copy()
        thinner[:3, 1:] &= masks[:3, :-1]
        scores = random.random(6).astype(np.float32)
        found.append(Instances(boxes, labels, scores, thinner))
    return truth, found


def as_others_do(coco: type, evaluator: type, truth: list, found: list) -> list[float]:
    """The six numbers of results that have masks and scores only, as detectors write them."""
    annotations = [
        {**row, "image_id": i, "id": 1 + 10 * i + k}
        for i, rows in enumerate(truth) for k, row in enumerate(rows)
    ]  # fmt: skip
    results = [
        {k: row[k] for k in ("category_id", "score", "segmentation")} | {"image_id": i}
        for i, rows in enumerate(found) for row in rows
    ]  # fmt: skip
    with contextlib.redirect_stdout(io.StringIO()):
        known = coco()
        known.dataset = {
            "images": [{"id": i, "height": 200, "width": 200} for i in range(len(truth))],
            "categories": [{"id": i, "name": str(i)} for i in range(2)],
            "annotations": annotations,
        }
        known.createIndex()
        evaluation = evaluator(known, known.loadRes(results), "segm")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return [100 * float(v) for v in list(evaluation.stats)[:6]]


@pytest.mark.parametrize("oracle", ["pycocotools", "faster_coco_eval"])
def test_sizes_of_masks_are_those_of_masks(oracle: str) -> None:
    if oracle == "pycocotools":
        from pycocotools.coco import COCO as Known
        from pycocotools.cocoeval import COCOeval as Evaluator
    else:
        faster = pytest.importorskip("faster_coco_eval")
        Known, Evaluator = faster.COCO, faster.COCOeval_faster
    truth, found = ([ap.coded(one) for one in some] for some in rings(0))
    mine = ap.average_precision(truth, found, 2, "masks")
    want = as_others_do(Known, Evaluator, truth, found)
    assert list(mine.values()) == pytest.approx(want, abs=1e-6)
    assert min(mine["small"], mine["medium"]) > 1  # there is something to be wrong about


def test_precision_at_any_threshold() -> None:
    truth, found = case(0)
    rows = [[ap.coded(one) for one in some] for some in (truth, found)]
    limits = [0.5, 0.3]
    numbers = ap.at_thresholds(rows[0], rows[1], 3, "boxes", limits)
    assert list(numbers) == limits
    for limit, one in numbers.items():
        assert set(one.interpolated) == set(one.all_points) == {0, 1}  # there is no third class
        for label in (0, 1):
            want = slow_ap(truth, found, label, limit)
            assert one.interpolated[label] == pytest.approx(want, abs=0.5)
            assert one.all_points[label] == pytest.approx(want, abs=2)
    half = average_precision(truth, found, 3, "boxes")["AP50"]
    assert numbers[0.5].mean_interpolated == pytest.approx(half)
    empty = ap.at_thresholds(rows[0], [[]] * 4, 3, "boxes", limits)
    assert empty[0.3].all_points == {0: 0.0, 1: 0.0} and empty[0.3].mean_all_points == 0
    nothing = ap.at_thresholds([[]] * 4, rows[1], 3, "boxes", limits)
    assert nothing[0.3].mean_interpolated == nothing[0.3].mean_all_points == 0
    one_label = [[row for row in some if row["category_id"] == 1] for some in rows[1]]
    missed = ap.at_thresholds(rows[0], one_label, 3, "boxes", limits)
    assert missed[0.3].all_points[0] == 0 < missed[0.3].all_points[1]
