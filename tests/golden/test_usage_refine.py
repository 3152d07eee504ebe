"""Cases of USAGE's refinement under other names, sizes and options, their numbers made anew."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from golden.harness import Case, check
from golden.twins import stored, write
from golden.usage_refine import KINDS, crf_inputs, filled


def renamed(spec: dict, shapes: dict[str, list[int]]) -> dict:
    """Inputs of another prefix and of other shapes; of pictures only as many as have a shape."""
    prefix = spec["input_prefix"]
    roles = [(entry, entry["name"].removeprefix(prefix)) for entry in spec["inputs"]]
    spec["inputs"] = [
        entry | {"name": f"twin_{role}", "shape": shapes[role]}
        for entry, role in roles
        if role in shapes
    ]
    spec["input_prefix"] = "twin_"
    return spec


def passes(case: Case) -> None:
    check(case, "usage", KINDS)


@pytest.mark.parametrize("name", ["k_dense_crf", "k_irn_random_walk", "k_seed_eval_sweep"])
def test_under_another_name(tmp_path: Path, name: str) -> None:
    passes(write(tmp_path, "another", *stored("usage", name)))


def mean_field(image: np.ndarray, q: np.ndarray, kernels: list[tuple], steps: int) -> np.ndarray:
    """Mean field with whole kernels in float64: (compat, sxy, srgb or 0) each."""
    places = np.argwhere(np.ones(image.shape[:2])).astype(float)
    colours = image.reshape(-1, 3).astype(float)
    energy = -np.log(q.reshape(len(q), -1).clip(1e-5, 1).astype(float))
    matrices = []
    for compat, place, colour in kernels:
        far = ((places[:, None] - places) ** 2).sum(-1) / place**2
        if colour:
            far += ((colours[:, None] - colours) ** 2).sum(-1) / colour**2
        kernel = np.exp(-far / 2)
        norm = kernel.sum(0) ** -0.5
        matrices.append(compat * norm[:, None] * kernel * norm)
    found = np.exp(-energy) / np.exp(-energy).sum(0)
    for _ in range(steps):
        found = np.exp(sum(found @ matrix for matrix in matrices) - energy)
        found /= found.sum(0)
    return found.reshape(q.shape)


def test_a_crf_of_another_size(tmp_path: Path) -> None:
    spec, _ = stored("usage", "k_dense_crf")
    spec = renamed(spec, {"crf_img": [4, 3, 3], "crf_logit": [3, 8, 11]})
    spec["config"]["note"] = (
        "image = crf_img repeated 5x7 and cropped to (19,21); probabilities = softmax over labels "
        "of crf_logit repeated 3x2 and cropped"
    )
    spec["config"]["parameters"] = "gaussian sxy=2 compat=4; bilateral sxy=30 srgb=20.5 compat=5"
    image, q = crf_inputs(write(tmp_path, "twin", spec, {}))
    assert image.shape == (19, 21, 3)
    kernels = [(4, 2, 0), (5, 30, 20.5)]
    found = {f"bruteforce_q_t{steps}": mean_field(image, q, kernels, steps) for steps in (0, 1, 4)}
    passes(write(tmp_path, "twin", spec, found))
    found["q_t4"] = found["bruteforce_q_t4"][::-1]
    with pytest.raises(AssertionError, match="q_t4 is"):
        passes(write(tmp_path, "wrong", spec, found))


def test_a_walk_of_another_size(tmp_path: Path) -> None:
    spec, _ = stored("usage", "k_irn_random_walk")
    spec = renamed(spec, {"rw_edge": [1, 6, 8], "rw_cam": [2, 6, 8]})
    spec["config"] = {"radius": 3, "beta": 4, "exp_times": 5}
    case = write(tmp_path, "twin", spec, {})
    edge, maps = filled(case, "rw_edge")[0].astype(float), filled(case, "rw_cam").astype(float)
    pixels = [(y, x) for y in range(6) for x in range(8)]
    affinity = np.zeros((48, 48))
    for i, (y, x) in enumerate(pixels):
        for j, (v, u) in enumerate(pixels):
            down, right = v - y, u - x
            if down**2 + right**2 >= 9:
                continue
            between = [
                edge[b, a]
                for b in range(min(y, v), max(y, v) + 1)
                for a in range(min(x, u), max(x, u) + 1)
                if (down * (a - x) - right * (b - y)) ** 2 < max(1, down**2 + right**2)
            ]
            affinity[i, j] = (1 if i == j else 1 - max(between)) ** 4
    steps = np.linalg.matrix_power(affinity / affinity.sum(0), 32)
    walked = ((maps * (1 - edge)).reshape(2, 48) @ steps).reshape(2, 1, 6, 8)
    passes(write(tmp_path, "twin", spec, {"rw": walked}))
    with pytest.raises(AssertionError, match="rw"):
        passes(write(tmp_path, "wrong", spec, {"rw": walked * 1.01}))


def test_a_sweep_of_other_pictures(tmp_path: Path) -> None:
    spec, _ = stored("usage", "k_seed_eval_sweep")
    sizes = [(5, 7), (6, 4)]
    shapes = {f"ev_label{i}": [2] for i in range(2)}
    spec = renamed(spec, shapes | {f"ev_cam{i}": [2, *size] for i, size in enumerate(sizes)})
    spec["config"] |= {"num_classes_with_bg": 3, "images": 2}
    case = write(tmp_path, "twin", spec, {})
    thresholds = np.array([0.1, 0.45, 0.5, 0.8])
    right, true, found = (np.zeros((4, 3)) for _ in range(3))
    arrays = {"thresholds": thresholds}
    for i, size in enumerate(sizes):
        truth = (np.arange(size[0] * size[1]).reshape(size) * 7 % 4).astype(np.uint8)
        truth[truth == 3] = 255
        arrays[f"gt{i}"] = truth
        present = filled(case, f"ev_label{i}")
        present[0] = 1
        maps = filled(case, f"ev_cam{i}") * present[:, None, None]
        for row, threshold in enumerate(thresholds):
            whole = np.concatenate([np.full((1, *size), threshold, np.float32), maps])
            label = whole.argmax(0)
            for c in range(3):
                right[row, c] += ((label == c) & (truth == c)).sum()
                true[row, c] += (truth == c).sum()
                found[row, c] += ((label == c) & (truth != 255)).sum()
    union = true + found - right
    for name, part in (("iou", right), ("fp", found - right), ("fn", true - right)):
        arrays[name] = 100 * part / (union + 1e-10)
    arrays |= {"miou": arrays["iou"].mean(1), "fp": arrays["fp"].mean(1)}
    arrays["fn"] = arrays["fn"].mean(1)
    passes(write(tmp_path, "twin", spec, arrays))
    with pytest.raises(AssertionError, match="fn"):
        passes(write(tmp_path, "wrong", spec, arrays | {"fn": arrays["fn"] + 0.1}))
