"""Cases of APIS's points under other names, sizes and options, their numbers made anew."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path

import numpy as np
import pytest
from pycocotools import mask as codes
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from golden.apis_points import filled, sigmoid
from golden.harness import Case, check
from golden.test_apis import CHECKS
from golden.twins import some, stored, write


def passes(case: Case) -> None:
    check(case, "apis", CHECKS)


def fails(case: Case, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        passes(case)


def renamed(spec: dict, shapes: list[list[int]]) -> None:
    """Inputs of other names, keys and shapes, as many as there are shapes."""
    spec["inputs"] = {
        f"maps_{i}": {"key": f"twin.{i}", "shape": shape, "scale": 1.25, "offset": 0.25}
        for i, shape in enumerate(shapes)
    }


def entropy(p: float) -> float:
    return -p * math.log(p + 1e-12) - (1 - p) * math.log(1 - p + 1e-12)


def test_selection_of_other_maps(tmp_path: Path) -> None:
    spec, _ = stored("apis", "entropy_selection")
    renamed(spec, [[2, 1, 9, 13], [5, 1, 7, 6]])
    boxes = [(3, 1, 11, 8), (5, 0, 6, 7)]
    spec["config"] = {
        "cases": [
            {"box_xyxy": list(box), "n_pred": n, "python_random_seed": 9}
            for box, n in zip(boxes, (2, 5), strict=True)
        ],
        "tie": "constant 0.5 map 3x6x9, box [1,2,8,5], random.seed(11): uniform",
        "empty_box": "box [3,5,9,5] (zero height)",
    }
    case = write(tmp_path, "twin", spec, {})
    found = {"empty_box_point": np.array([0, 2])}
    for i, (x0, y0, x1, y1) in enumerate(boxes):
        p = sigmoid(filled(case, f"maps_{i}")[:, 0]).mean(0)
        found[f"entropy{i}"] = np.vectorize(entropy)(p.astype(float))
        inside = {(y, x): found[f"entropy{i}"][y, x] for y in range(y0, y1) for x in range(x0, x1)}
        found[f"point_row_col{i}"] = np.array(max(inside, key=inside.__getitem__))
    ties = [(y, x) for y in range(2, 5) for x in range(1, 8)]
    found["tie_point"] = np.array(ties[random.Random(11).randint(0, len(ties) - 1)])
    passes(write(tmp_path, "twin", spec, found))
    wrong = found | {"point_row_col1": found["point_row_col1"] + 1}
    fails(write(tmp_path, "wrong", spec, wrong), "point_row_col1")
    fails(write(tmp_path, "tie", spec, found | {"tie_point": np.array([2, 1])}), "tie_point")


def bilinear(values: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Rows of values at these places, between rows."""
    low = np.floor(at).astype(int)
    high = np.minimum(low + 1, len(values) - 1)
    share = (at - low).reshape(-1, *[1] * (values.ndim - 1))
    return values[low] * (1 - share) + values[high] * share


def at_image_size(maps: np.ndarray, resized: int, size: int) -> np.ndarray:
    """Rows of stride 4 at a picture's rows: aligned bilinear by 4, cut, plain bilinear."""
    cells = np.minimum(np.maximum(np.arange(resized) - 2, 0) / 4, len(maps) - 1)
    places = np.clip((np.arange(size) + 0.5) * resized / size - 0.5, 0, resized - 1)
    return bilinear(bilinear(maps, cells), places)


def test_a_pipeline_of_another_size(tmp_path: Path) -> None:
    spec, _ = stored("apis", "entropy_selection_pipeline")
    renamed(spec, [[3, 1, 12, 10]])
    boxes = [[4.0, 8.0, 39.0, 41.0], [20.0, 3.0, 37.0, 44.0]]
    spec["config"] |= {
        "resized_hw": [45, 39], "image_hw": [30, 26], "gt_inds": [1, 0, 1],
        "boxes_resized_xyxy": boxes, "factor": 1.5,
    }  # fmt: skip
    maps = sigmoid(filled(write(tmp_path, "twin", spec, {}), "maps_0")[:, 0].astype(float))
    found = np.array([at_image_size(at_image_size(m, 45, 30).T, 39, 26).T for m in maps])
    points = []
    for i, box in enumerate(boxes):
        x0, y0, x1, y1 = (math.floor(v / 1.5) for v in box)
        mean = found[[0, 2]].mean(0) if i else found[1]
        inside = {(y, x): abs(mean[y, x] - 0.5) for y in range(y0, y1) for x in range(x0, x1)}
        points.append(min(inside, key=inside.__getitem__))
    arrays = {
        "scores_at_image_size": found.astype(np.float32), "points_row_col": np.array(points)
    }  # fmt: skip
    passes(write(tmp_path, "twin", spec, arrays))
    arrays["scores_at_image_size"] = arrays["scores_at_image_size"][:, ::-1].copy()
    fails(write(tmp_path, "wrong", spec, arrays), "scores_at_image_size")


def test_strategies_on_other_maps(tmp_path: Path) -> None:
    spec, _ = stored("apis", "strategies_reference")
    renamed(spec, [[4, 7, 9]])
    known = [[2, 3], [6, 8]]
    spec["config"]["cases"] = [{"box_xyxy": [1, 0, 8, 6], "already_labelled_row_col": known}]
    p = sigmoid(filled(write(tmp_path, "twin", spec, {}), "maps_0").astype(float))
    mean, h = p.mean(0), np.vectorize(entropy)
    maps = {
        "entropy": h(mean), "least_confidence": np.minimum(mean, 1 - mean),
        "margin": 1 - abs(2 * mean - 1), "variance": (p**2).mean(0) - mean**2,
        "vote_entropy": h((p > 0.5).mean(0)), "bald": h(mean) - h(p).mean(0),
    }  # fmt: skip
    found = {}
    for name, values in maps.items():
        allowed = [(y, x) for y in range(6) for x in range(1, 8) if [y, x] not in known]
        best = max(values[place] for place in allowed)
        found[f"{name}0"] = values
        found[f"{name}0_point_row_col"] = np.array(
            next(place for place in allowed if values[place] > best - 1e-13)
        )
    passes(write(tmp_path, "twin", spec, found))
    fails(write(tmp_path, "wrong", spec, found | {"bald0": found["variance0"]}), "bald0")
    passes(write(tmp_path, "one", spec, some(found, "bald0", "bald0_point_row_col")))
    odd = found | {"range0": found["bald0"]}
    fails(write(tmp_path, "odd", spec, odd), r"never looked at \['range0'\]")


def test_drawn_points_of_another_file(tmp_path: Path) -> None:
    spec, _ = stored("apis", "point_annotations")
    boxes = [[3.5, 2.25, 9.5, 4.0], [0.0, 0.0, 20.0, 12.0]]
    spec["config"] = {"numpy_seed": 77, "points": 3, "coco": {
        "images": [{"id": 8, "width": 20, "height": 12, "file_name": "8.jpg"}],
        "annotations": [
            {"id": 90 - i, "image_id": 8, "category_id": 1, "iscrowd": i, "bbox": box,
             "segmentation": [[3, 2, 9, 2, 9, 7, 3, 7]]} for i, box in enumerate(boxes)
        ],
    }}  # fmt: skip
    rng = np.random.RandomState(77)
    places = []
    for x, y, w, h in boxes:
        drawn = rng.rand(3, 2)
        places.append([[math.floor(a * w + x), math.floor(b * h + y)] for a, b in drawn.tolist()])
    labels = [[int(3 <= x < 9 and 2 <= y < 7) for x, y in some_] for some_ in places]
    found = {"point_coords": np.array(places), "point_labels": np.array(labels)}
    passes(write(tmp_path, "twin", spec, found))
    found["point_labels"] = 1 - found["point_labels"]
    fails(write(tmp_path, "wrong", spec, found), "point_labels")


@pytest.mark.parametrize("with_crowd", [True, False])
def test_a_merge_of_another_file(tmp_path: Path, with_crowd: bool) -> None:
    """Without a crowd in front, the released merge and ours are one."""
    spec, _ = stored("apis", "step_json_merge")

    def items(**more: list) -> list[dict]:
        return [
            {"id": number, "image_id": 6, "category_id": 1, "iscrowd": int(with_crowd and not i),
             "bbox": [i, i, 6, 5], "area": 30} | {k: v[i] for k, v in more.items()}
            for i, number in enumerate((41, 17, 33))
        ]  # fmt: skip

    outlines = [[[i, i, i + 6, i, i + 6, i + 5, i, i + 5]] for i in range(3)]
    rest = {
        "images": [{"id": 6, "width": 14, "height": 12}],
        "categories": [{"id": 1, "name": "x"}],
    }
    before = [[[0, 0], [1, 9]], [[2, 2], [9, 9]], [[3, 3], [4, 4]]]
    drawn = [[[9, 9], [9, 8], [j, 1]] for j in range(3)]
    random_labels = [[0, 0, 1], [0, 0, 0], [1, 1, 1]]
    chosen = [[0, [3, 1]], [1, [10, 9]]]  # rows and columns, by the place among the objects
    places, labels = [], []
    for i in range(3):
        pixel = [[1, 3], [9, 10], None][i]
        is_on = pixel and i <= pixel[0] < i + 6 and i <= pixel[1] < i + 5
        places.append([*before[i], pixel or drawn[i][2]])
        labels.append([1, 0, int(bool(is_on)) if pixel else random_labels[i][2]])
    spec["config"] |= {
        "coco": {"annotations": items(segmentation=outlines), **rest},
        "previous": {"annotations": items(point_coords=before, point_labels=[[1, 0]] * 3), **rest},
        "random10": {"annotations": items(point_coords=drawn, point_labels=random_labels), **rest},
        "selected_row_col": {"6": chosen}, "step": 3, "not_predicted": 1,
        "expected": {"annotations": items(point_coords=places, point_labels=labels), **rest},
    }  # fmt: skip
    found = {"point_coords": np.array(places), "point_labels": np.array(labels)}
    passes(write(tmp_path, "twin", spec, found))
    spec["config"]["not_predicted"] = 2
    with pytest.raises(AssertionError):
        passes(write(tmp_path, "wrong", spec, found))


def test_average_precision_of_other_objects(tmp_path: Path) -> None:
    """By pycocotools, called as in its own demonstration."""
    spec, _ = stored("apis", "mask_ap_b")
    rng = np.random.default_rng(5)

    def code(seed: int) -> dict:
        mask = np.zeros((40, 50), np.uint8)
        y, x, h, w = np.random.default_rng(seed).integers(2, 24, 4)
        mask[y : y + h, x : x + w] = 1
        made = codes.encode(np.asfortranarray(mask))
        return {"size": [40, 50], "counts": made["counts"].decode()}

    truth = [
        {"id": i, "image_id": 3 + i % 2, "category_id": 5 if i % 3 else 2, "iscrowd": int(i == 4),
         "segmentation": code(i), "area": int(codes.area(code(i))),
         "bbox": codes.toBbox(code(i)).tolist()} for i in range(1, 9)
    ]  # fmt: skip
    guesses = [
        {"image_id": 3 + i % 2, "category_id": 5 if i % 3 else 2, "segmentation": code(i % 9 or 40),
         "score": float(rng.integers(1, 5)) / 4} for i in range(1, 15)
    ]  # fmt: skip
    coco = {
        "info": {}, "annotations": truth, "categories": [{"id": n, "name": str(n)} for n in (2, 5)],
        "images": [{"id": n, "height": 40, "width": 50, "file_name": f"{n}.jpg"} for n in (3, 4)],
    }  # fmt: skip
    spec["config"] |= {"coco": json.loads(json.dumps(coco)), "detections": guesses}
    found = {}
    api = COCO()
    api.dataset = coco
    api.createIndex()
    for name in ("segm", "bbox"):
        evaluation = COCOeval(api, api.loadRes(json.loads(json.dumps(guesses))), name)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
        found[f"stats_{name}"] = evaluation.stats.astype(np.float32)
        found[f"precision_{name}"] = evaluation.eval["precision"][:, ::10, :, 0, -1]
    passes(write(tmp_path, "twin", spec, found))
    found["stats_segm"] = found["stats_segm"] + np.float32(0.01)
    fails(write(tmp_path, "wrong", spec, found), "stats_segm")
