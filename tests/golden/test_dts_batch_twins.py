"""Cases of mixing and sampling under other names, sizes and options, their numbers made anew."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from golden.dts_batches import KINDS
from golden.harness import Case, check
from golden.twins import some, stored, write


def renamed(spec: dict, shapes: dict[str, list[int]] | None = None) -> dict:
    """Inputs of another prefix, and of other shapes."""
    spec["system"] = "dts"
    prefix = spec.get("input_prefix") or ""
    for entry in spec["inputs"]:
        role = entry["name"].removeprefix(prefix)
        entry["name"], entry["shape"] = f"twin.{role}", (shapes or {}).get(role, entry["shape"])
    spec["input_prefix"] = "twin."
    return spec


def passes(case: Case) -> None:
    check(case, "dts", KINDS)


def test_classmix_of_three_pictures(tmp_path: Path) -> None:
    spec, _ = stored("dts", "b_classmix")
    maps, images = [3, 20, 24], [3, 3, 20, 24]
    shapes = {"srclab": maps, "pl": maps, "srcimg": images, "tgtimg": images}
    spec = renamed(spec, shapes)
    spec["config"]["target_weight"] = 1
    case = write(tmp_path, "twin", spec)
    labels, pseudo, source, target = (case.input(role) for role in shapes)
    unique = np.unique(labels)
    half = -(-len(unique) // 2)
    choices = np.stack([np.roll(unique, row)[:half] for row in range(3)])
    arrays: dict[str, np.ndarray] = {"choices": choices, "unique": unique}
    masks = [np.isin(one, chosen) for one, chosen in zip(labels, choices, strict=True)]
    arrays["mask"] = np.stack(masks)[:, None].astype(np.uint8)
    for row, mask in enumerate(masks):
        arrays[f"img{row}"] = np.where(mask, source[row], target[row])[None]
        arrays[f"lbl{row}"] = np.where(mask, labels[row], pseudo[row])[None, None].astype(np.uint8)
        arrays[f"w{row}"] = np.ones((1, 1, 20, 24), dtype=np.float32)
    passes(write(tmp_path, "twin", spec, arrays))
    arrays["lbl2"] = arrays["lbl2"][..., ::-1]
    with pytest.raises(AssertionError, match="lbl2"):
        passes(write(tmp_path, "wrong", spec, arrays))


def test_blur_alone_of_two_pictures(tmp_path: Path) -> None:
    """Half of the first axis of a constant picture: a blur that is known without a kernel."""
    spec, _ = stored("dts", "a_blur_jitter")
    spec = renamed(spec, {"img01": [2, 3, 31, 12], "normed": [2, 3, 4, 5]})
    spec["config"] |= {"sigmas": [1], "brightness": 1, "contrast": 1, "saturation": 1, "hue": 0}
    case = write(tmp_path, "twin", spec)
    x, normed = case.input("img01"), case.input("normed")
    line = np.exp(-(np.arange(-1, 2) ** 2) / 2)
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (0, 0)), mode="reflect")
    line /= line.sum()
    blurred = sum(weight * padded[:, :, at : at + 31] for at, weight in enumerate(line))
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    channels = (slice(None), None, None)
    arrays = {
        "blur_kernel_size": np.array([3, 1]),  # of 31 and of 12 pixels
        "blur_1": blurred.astype(np.float32),
        "jitter": x,
        "denorm": (normed * std[channels] + mean[channels]).astype(np.float32),
    }
    passes(write(tmp_path, "twin", spec, arrays))


def test_a_block_mask_of_another_size(tmp_path: Path) -> None:
    spec, _ = stored("dts", "a_mic_mask")
    spec = renamed(spec, {})
    spec["inputs"][0]["shape"] = [3, 1, 2, 3]
    spec["config"] = {"mask_ratio": 0.4, "mask_block_size": 4, "image_hw": [8, 12]}
    drawn = write(tmp_path, "twin", spec).value(write(tmp_path, "twin", spec).inputs[0])
    mask = (drawn > 0.4).repeat(4, 2).repeat(4, 3).astype(np.uint8)
    passes(write(tmp_path, "twin", spec, {"mask": mask}))


def test_sampling_at_another_temperature(tmp_path: Path) -> None:
    spec, arrays = stored("dts", "b_rcs")
    spec["system"], spec["config"]["temperatures"] = "dts", [0.5]
    total = np.zeros(6)
    for one in spec["config"]["stats"]:
        for kind, pixels in one.items():
            total[int(kind) if kind != "file" else 5] += 0 if kind == "file" else pixels
    classes = np.argsort(total[:5])
    score = np.exp((1 - total[classes] / total.sum()) / 0.5)
    made = {"classes_T0.5": classes, "prob_T0.5": (score / score.sum()).astype(np.float32)}
    passes(write(tmp_path, "twin", spec, made))
    passes(write(tmp_path, "fewer", spec, some(arrays, "classes_T0.2", "prob_T0.2")))
