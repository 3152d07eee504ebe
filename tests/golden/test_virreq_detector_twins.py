"""Cases of ViRReq's detector under other names and sizes, their numbers made anew."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from golden import plain_condinst as plain
from golden.harness import Case, check
from golden.test_virreq import CHECKS
from golden.twins import some, stored, write
from golden.virreq_fill import filled, given


def fails(case: Case, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        check(case, "virreq", CHECKS)


def test_a_classifier_of_other_texts(tmp_path: Path) -> None:
    spec, _ = stored("virreq", "fcos_text_classifier")
    spec["config"] |= {"classes": 3, "image_dim": 5, "text_dim": 4, "text_divisor": 0.5}
    spec["param_key_prefix"] = "twin."
    shapes = [[1], [4], [1], [5, 4], [5]]
    spec["params"] = [[p[0], s, *p[2:]] for p, s in zip(spec["params"], shapes, strict=True)]
    for role, shape in (("x", [1, 5, 2, 3]), ("text", [3, 4])):
        spec["inputs"][role] |= {"key": f"twin.{role}", "shape": shape}
    case = write(tmp_path, "twin", spec, {})
    w = {key: value.double().numpy() for key, value in filled(case).items()}
    x, text = given(case, "x").double().numpy(), given(case, "text").double().numpy()
    text = text / np.linalg.norm(text, axis=1, keepdims=True)
    words = text / 0.5 @ w["text_porj.weight"].T + w["text_porj.bias"]
    logits = np.einsum("nchw,kc->nkhw", x, words) / np.exp(w["logit_scale"])
    logits = logits + (text @ w["bias_lang"] + w["bias0"])[:, None, None]
    found = {"logits": logits.astype(np.float32)}
    check(write(tmp_path, "twin", spec, found), "virreq", CHECKS)
    spec["config"]["text_divisor"] = 0.4
    fails(write(tmp_path, "wrong", spec, found), "logits")


def test_places_on_other_masks(tmp_path: Path) -> None:
    spec, _ = stored("virreq", "fcos_mask_sampling_targets")
    boxes = [[[4.0, 10.0, 60.0, 50.0]], [[1.0, 2.0, 90.0, 60.0], [20.0, 5.0, 70.0, 62.0]]]
    strides, names = [8, 16, 32], [[2], [0, 1]]
    spec["config"] |= {
        "image_hw": [64, 96], "boxes_xyxy": boxes, "classes": names, "num_classes": 3,
        "strides": strides,
    }  # fmt: skip
    where = plain.places(64, 96, strides)
    levels = np.array([level for level, *_ in where])
    y, x = np.mgrid[:64, :96]
    labels, rows, distances = [], [], []
    for image, own in enumerate(boxes):
        masks = [
            torch.from_numpy(
                ((x - (x0 + x1) / 2) / ((x1 - x0) / 2)) ** 2
                + ((y - (y0 + y1) / 2) / ((y1 - y0) / 2)) ** 2
                <= 1
            )
            for x0, y0, x1, y1 in own
        ]
        each = plain.wanted(where, own, strides, [64, 128], masks=masks)
        labels.append(np.array([names[image][i] if i >= 0 else 3 for i, _ in each]))
        rows.append(np.array([i + image if i >= 0 else -7 for i, _ in each]))
        distances.append(np.array([d for _, d in each], np.float32))
    found = {
        name: np.concatenate([own[levels == level] for level in range(3) for own in parts])
        for name, parts in (("labels", labels), ("target_inds", rows), ("reg_targets", distances))
    }
    assert set(found["target_inds"].tolist()) == {-7, 0, 1, 2}
    check(write(tmp_path, "twin", spec, found), "virreq", CHECKS)
    spec["config"]["boxes_xyxy"][0] = [[4.0, 20.0, 60.0, 50.0]]
    fails(write(tmp_path, "wrong", spec, some(found, *found)), "labels")
