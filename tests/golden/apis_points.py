"""Checks of APIS's choice of points, of its files and of COCO's average precision."""

from __future__ import annotations

import json
import random
import re
import zlib

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from golden.harness import Case
from tenfold.data.images.points import drawn_points, true_labels
from tenfold.metrics import ap
from tenfold.systems.apis import enlarge
from tenfold.systems.apis.answers import FALLBACK, Answer
from tenfold.systems.apis.rounds import stage_text
from tenfold.systems.apis.strategies import MEASURES, Options, pixel_box, propose, uncertainty

NONE = np.zeros((0, 2), dtype=np.int64)
DRAWN = Options(ties="drawn")
"""As released."""


def filled(case: Case, name: str) -> np.ndarray:
    """An input of a case that lists them by name: key, shape, scale, offset."""
    entry = case.spec["inputs"][name]
    drawn = np.random.RandomState(zlib.crc32(entry["key"].encode()) & 0xFFFFFFFF)
    value = drawn.standard_normal(entry["shape"]).astype(np.float32)
    return value * np.float32(entry["scale"]) + np.float32(entry.get("offset", 0.0))


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def cropped(p: np.ndarray, box: tuple[int, int, int, int]) -> np.ndarray:
    x0, y0, x1, y1 = box
    return p[:, y0:y1, x0:x1]


def row_col(p: np.ndarray, box: tuple[int, int, int, int], rng: random.Random) -> np.ndarray:
    """The pixel that the released strategy takes of maps of a whole picture."""
    found = propose(cropped(p, box), box, NONE, "entropy", rng, DRAWN)
    assert found is not None
    return np.array(found.xy[::-1])


def numbers(text: str, name: str) -> tuple[int, ...]:
    """The list of numbers after a word."""
    found = re.search(rf"{name}\D*(\d[\dx, ]*)", text)
    assert found is not None, text
    return tuple(int(n) for n in re.findall(r"\d+", found[1]))


def check_selection(case: Case) -> None:
    config = case.spec["config"]
    for i, (name, one) in enumerate(zip(case.spec["inputs"], config["cases"], strict=True)):
        p = sigmoid(filled(case, name)[:, 0])
        assert len(p) == one["n_pred"]
        case.compare(f"entropy{i}", uncertainty(p, "entropy"))
        rng = random.Random(one["python_random_seed"])
        case.compare(f"point_row_col{i}", row_col(p, tuple(one["box_xyxy"]), rng))
    if "tie" in config:
        size, box = numbers(config["tie"], "map"), numbers(config["tie"], "box")
        rng = random.Random(*numbers(config["tie"], "seed"))
        case.compare("tie_point", row_col(np.full(size, 0.5), box, rng))
    if "empty_box" in config:
        box = numbers(config["empty_box"], "box")
        row, column = case.take("empty_box_point")
        ours = pixel_box(box, int(1 + max(box[3], row)), int(1 + max(box[2], column)))
        assert (ours[2] - ours[0]) * (ours[3] - ours[1]) > 0
        p = np.full((2, ours[3] - ours[1], ours[2] - ours[0]), 0.5)
        found = propose(p, ours, NONE, "entropy")
        # the released code may take any pixel of the picture; ours stays in the box
        assert found is not None and ours[0] <= found.xy[0] < ours[2]
        assert ours[1] <= found.xy[1] < ours[3]


def check_pipeline(case: Case) -> None:
    """Probabilities of stride 4 at the picture's pixels, then the released choice in each box."""
    config = case.spec["config"]
    assert config["mask_out_stride"] == 4
    resized, size = config["resized_hw"], config["image_hw"]
    (name,) = case.spec["inputs"]
    maps = torch.from_numpy(sigmoid(filled(case, name)[:, 0]))
    p = enlarged(maps, resized, size)
    case.compare("scores_at_image_size", p, 1e-5, 1e-6)
    whole = enlarge.enlarged(maps, tuple(resized), tuple(size), (0, 0, size[1], size[0]))
    case.compare("scores_at_image_size", whole, 1e-5, 1e-6)
    of = np.array(config["gt_inds"])
    found = []
    for i, box in enumerate(config["boxes_resized_xyxy"]):
        pixels = pixel_box([v / config["factor"] for v in box], *size)
        found.append(row_col(p.numpy()[of == i], pixels, random.Random(i)))
    case.compare("points_row_col", np.array(found))


def enlarged(maps: Tensor, resized: list[int], size: list[int]) -> Tensor:
    """Four times as large by CondInst's aligned bilinear, without padding, at a picture's size."""
    height, width = (4 * n for n in maps.shape[1:])
    x = F.pad(maps[None], (0, 1, 0, 1), mode="replicate")
    x = F.interpolate(x, (height + 1, width + 1), mode="bilinear", align_corners=True)
    x = F.pad(x, (2, 0, 2, 0), mode="replicate")[..., : resized[0], : resized[1]]
    return F.interpolate(x, tuple(size), mode="bilinear", align_corners=False)[0]


def check_strategies(case: Case) -> None:
    assert case.spec["config"]["eps"] == 1e-12
    for i, (name, one) in enumerate(
        zip(case.spec["inputs"], case.spec["config"]["cases"], strict=True)
    ):
        p = sigmoid(filled(case, name).astype(np.float64))
        box = tuple(one["box_xyxy"])
        known = np.array(one["already_labelled_row_col"], dtype=np.int64).reshape(-1, 2)[:, ::-1]
        for measure in (name for name in MEASURES if f"{name}{i}" in case.arrays):
            case.compare(f"{measure}{i}", uncertainty(p, measure), 1e-9, 1e-12)
            found = propose(cropped(p, box), box, known, measure)
            assert found is not None
            case.compare(f"{measure}{i}_point_row_col", np.array(found.xy[::-1]))
            case.compare(f"{measure}{i}", _placed(found.map, p.shape[1:], box), 1e-9, 1e-12,
                         at=np.s_[box[1] : box[3], box[0] : box[2]])  # fmt: skip


def _placed(part: np.ndarray, size: tuple, box: tuple[int, int, int, int]) -> np.ndarray:
    whole = np.zeros(size)
    whole[box[1] : box[3], box[0] : box[2]] = part
    return whole


def check_drawn_points(case: Case) -> None:
    config = case.spec["config"]
    places = drawn_points(config["coco"], config["points"], config["numpy_seed"])
    labels = true_labels(config["coco"], places)
    case.compare("point_coords", np.array(list(places.values())))
    case.compare("point_labels", np.array(list(labels.values())))


def check_merge(case: Case) -> None:
    """The stored result is that of the released indexing; ours gives each pixel to its object."""
    config = case.spec["config"]
    coco, previous = config["coco"], config["previous"]["annotations"]
    stage, expected = config["step"], config["expected"]
    drawn = {item["id"]: item for item in config["random10"]["annotations"]}
    ours, official = (
        _answers(config, crowds) for crowds in (False, True)
    )  # what the loader counted, and what the merge does
    case.compare("point_coords", np.array([a["point_coords"] for a in expected["annotations"]]))
    case.compare("point_labels", np.array([a["point_labels"] for a in expected["annotations"]]))
    before = [
        Answer(f"b{item['id']}/{i}", item["id"], x, y, label, "random", round=i)
        for item in previous
        for i, ((x, y), label) in enumerate(
            zip(item["point_coords"], item["point_labels"], strict=True)
        )
    ]
    texts = []
    for chosen in (official, ours):
        more, missing = [], 0
        for item in coco["annotations"]:
            source = "entropy" if item["id"] in chosen else FALLBACK
            other = drawn[item["id"]]
            x, y = chosen.get(item["id"], other["point_coords"][stage - 1])
            label = other["point_labels"][stage - 1]
            if source == "entropy":
                label = true_labels(coco, {item["id"]: np.array([[x, y]])})[item["id"]][0]
            missing += source == FALLBACK
            more.append(Answer(f"{item['id']}", item["id"], x, y, label, source, round=stage - 1))
        texts.append(stage_text(coco, before + more, stage))
        if chosen is official:
            assert missing == config["not_predicted"]
    assert json.loads(texts[0]) == expected
    if any(item["iscrowd"] for item in coco["annotations"]):
        crowds = {item["id"] for item in coco["annotations"] if item["iscrowd"]}
        assert not crowds & ours.keys()
    assert (texts[0] == texts[1]) == (official == ours)


def _answers(config: dict, with_crowds: bool) -> dict[int, tuple[int, int]]:
    """Chosen pixel of each annotation id, by its place among an image's annotations."""
    found = {}
    for image, chosen in config["selected_row_col"].items():
        own = [
            item["id"]
            for item in config["coco"]["annotations"]
            if item["image_id"] == int(image) and (with_crowds or not item["iscrowd"])
        ]
        for place, (row, column) in chosen:
            if place < len(own):
                found[own[place]] = (column, row)
    return found


def check_average_precision(case: Case) -> None:
    coco = case.spec["config"]["coco"]
    label = {item["id"]: i for i, item in enumerate(sorted(coco["categories"], key=_id))}
    images = sorted(image["id"] for image in coco["images"])
    for kind, name in (("masks", "segm"), ("boxes", "bbox")):
        truth = [
            [a | {"category_id": label[a["category_id"]]} for a in coco["annotations"]
             if a["image_id"] == image] for image in images
        ]  # fmt: skip
        found = [
            [_plain(d) | {"category_id": label[d["category_id"]]} for d in
             case.spec["config"]["detections"] if d["image_id"] == image] for image in images
        ]  # fmt: skip
        numbers, precision = ap.statistics(truth, found, len(label), kind)
        case.compare(f"stats_{name}", np.array(list(numbers.values())) / 100, 1e-6, 1e-7)
        case.compare(f"precision_{name}", precision[:, ::10], 1e-6, 1e-7)


def _id(item: dict) -> int:
    return item["id"]


def _plain(found: dict) -> dict:
    """A found object as it was given, its box and area left to pycocotools."""
    return {key: found[key] for key in ("segmentation", "score")}


KINDS = {
    "entropy_selection": check_selection,
    "entropy_pipeline": check_pipeline,
    "strategies": check_strategies,
    "drawn_points": check_drawn_points,
    "step_merge": check_merge,
    "mask_ap": check_average_precision,
}
