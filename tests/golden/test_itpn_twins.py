"""Other iTPN cases of the known kinds: renamed, smaller, by lists of keys, with other options."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random

import numpy as np
import pytest

from golden.harness import Case, check
from golden.test_itpn import CHECKS
from golden.twins import some, stored, write


def passes(case: Case) -> None:
    check(case, "itpn", CHECKS)


def fails(case: Case, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        passes(case)


def few_pictures(spec: dict, arrays: dict[str, np.ndarray], count: int, *names: str) -> dict:
    """The first pictures of a case, whose rules draw picture by picture."""
    for entry in spec["inputs"]:
        entry["shape"][0] = count
    return {name: arrays[name][:count] for name in names}


def by_keys(spec: dict, folder: Path, *kept: str) -> dict:
    """The case with its tensors in a file of keys beside it, and few of its arguments."""
    listed = [[key, shape, "float32"] for key, shape in spec.pop("state")]
    listed += [[key, shape, "int64"] for key, shape in spec.get("kept_buffers", [])]
    (folder / "keys.of.it").write_text(json.dumps({"keys": listed}))
    config = {name: spec["config"][name] for name in ("img_size", "norm_eps", *kept)}
    spec["config"] = config | {"model": "some model", "keys_file": "golden/itpn/keys.of.it"}
    return spec


def test_pixel_pretraining_of_one_picture(tmp_path: Path) -> None:
    spec, arrays = stored("itpn", "pixel_pretrain_a")
    names = ["pred", "level8", "decoder_in", "ids_keep"]
    passes(write(tmp_path, "first", spec, few_pictures(spec, arrays, 1, *names)))
    spec["config"]["mask_ratio"] = 0.5
    fails(write(tmp_path, "other", spec, {"ids_keep": arrays["ids_keep"][:1]}), "ids_keep")


def test_pixel_pretraining_by_a_file_of_keys(tmp_path: Path) -> None:
    spec, arrays = stored("itpn", "pixel_pretrain_d_two_levels")
    kept = ("mask_ratio", "norm_pix_loss", "decoder_num_heads", "num_heads")
    spec = by_keys(spec, tmp_path, *kept)
    few = few_pictures(spec, arrays, 1, "pred", "level8", "mask")
    passes(write(tmp_path, "by keys", spec, few))
    (tmp_path / "keys.of.it").unlink()
    fails(write(tmp_path, "alone", spec, few), "needs the list of keys keys.of.it; it is not at")


@pytest.mark.parametrize("name", ["clip_pretrain_a", "clip_pretrain_b_nogamma_norpe"])
def test_clip_pretraining_by_a_file_of_keys(tmp_path: Path, name: str) -> None:
    """Statistics and slices, as those of a real size are stored, without gradients."""
    spec, arrays = stored("itpn", name)
    spec = by_keys(spec, tmp_path, "num_heads")
    few = some(arrays, "mask", "loss_main", "loss_aux")
    flat = arrays["pred_main"].astype(np.float64).ravel()
    few["pred_main:slice"] = arrays["pred_main"].ravel()[:512]
    few["pred_main:stats"] = np.array([flat.mean(), flat.std(), np.abs(flat).max(), flat.sum()])
    passes(write(tmp_path, "by keys", spec, few))
    few["loss_main"] = few["loss_aux"]
    fails(write(tmp_path, "wrong", spec, few), "loss_main")


def test_masks_of_other_units_are_read(tmp_path: Path) -> None:
    spec, arrays = stored("itpn", "clip_pretrain_c_two_levels")
    passes(write(tmp_path, "few", spec, some(arrays, "mask", "pred_aux", "level8")))
    spec["inputs"][2]["note"] = "mask = value < 0.7; stored"
    fails(write(tmp_path, "more", spec, some(arrays, "mask")), "case more: mask")
    spec["inputs"][2]["note"] = "stored"
    fails(write(tmp_path, "unsaid", spec, some(arrays, "mask")), "says nothing of 'value < #'")


@pytest.mark.parametrize("name", ["fast_finetune_b_decoupled", "clip_finetune_a"])
def test_classifiers_of_one_picture(tmp_path: Path, name: str) -> None:
    spec, arrays = stored("itpn", name)
    passes(write(tmp_path, "first", spec, few_pictures(spec, arrays, 1, "logits")))


def test_a_classifier_by_a_file_of_keys(tmp_path: Path) -> None:
    spec, arrays = stored("itpn", "pixel_finetune_a")
    spec = by_keys(spec, tmp_path)
    few = few_pictures(spec, arrays, 2, "logits", "features")
    passes(write(tmp_path, "by keys", spec, few))


def test_levels_of_the_smaller_picture(tmp_path: Path) -> None:
    for name, out in (("det_pixel_levels", "level3"), ("seg_levels_norpe_two_sizes", "level2")):
        spec, arrays = stored("itpn", name)
        spec["inputs"] = spec["inputs"][:1]
        passes(write(tmp_path, f"any {out}", spec, some(arrays, f"in64x64_{out}")))
    spec["source"]["file"] = "det/mmdet/models/backbones/itpn.py"
    fails(write(tmp_path, "det", spec, some(arrays, "in64x64_level2")), "shape")


def test_units_kept_and_teacher_of_one_picture(tmp_path: Path) -> None:
    spec, arrays = stored("itpn", "pixel_visible_rpe_a")
    few = few_pictures(spec, arrays, 1, "level16", "level4")
    passes(write(tmp_path, "one", spec, few))
    spec, arrays = stored("itpn", "clip_teacher_target")
    few = few_pictures(spec, arrays, 1, "target", "img")
    passes(write(tmp_path, "teacher", spec, few))
    spec["inputs"][0]["note"] = "then *0.25 and clamp to [-1,1]; stored as img"
    fails(write(tmp_path, "paler", spec, few), "target")


def blocks(size: tuple[int, int], count: int, least: int, most: int, random: Random) -> np.ndarray:
    """BEiT's masks, written again."""
    mask, tries = np.zeros(size, int), 0
    while mask.sum() < count and tries < 10:
        room, tries = min(most, count - mask.sum()), tries + 1
        area, ratio = random.uniform(least, room), np.exp(random.uniform(np.log(0.3), -np.log(0.3)))
        h, w = int(round((area * ratio) ** 0.5)), int(round((area / ratio) ** 0.5))
        if h < size[0] and w < size[1]:
            y, x = random.randint(0, size[0] - h), random.randint(0, size[1] - w)
            if 0 < h * w - mask[y : y + h, x : x + w].sum() <= room:
                mask[y : y + h, x : x + w], tries = 1, 0
    return mask


def test_masks_of_another_grid_and_limit(tmp_path: Path) -> None:
    spec, arrays = stored("itpn", "blockwise_masks_8x8")
    seeds = spec["config"]["seeds"] = [3, 5]
    # a limit of all that is to be masked is none
    spec["config"]["max_num_patches"] = spec["config"]["num_masking_patches"]
    passes(write(tmp_path, "no limit", spec, {"masks": arrays["masks"][seeds]}))
    spec["config"] |= {"input_size": [9, 12], "num_masking_patches": 40, "max_num_patches": 9}
    masks = np.stack([blocks((9, 12), 40, 4, 9, Random(seed)) for seed in seeds]).astype(np.uint8)
    passes(write(tmp_path, "limit", spec, {"masks": masks}))
    spec["config"]["max_num_patches"] = None
    fails(write(tmp_path, "unlimited", spec, {"masks": masks}), "masks")


def test_schedules_by_other_names(tmp_path: Path) -> None:
    spec, arrays = stored("itpn", "lr_schedules")
    config = spec["config"]
    spec["config"] = {
        "tuning": config["pixel_finetune"], "epochs_t": config["epochs_b"][2:5],
        "table": config["cosine2"],
    }  # fmt: skip
    few = {"tuning": arrays["pixel_finetune"][2:5], "table": arrays["cosine2"]}
    passes(write(tmp_path, "rates", spec, few))


def test_groups_of_an_unnamed_model(tmp_path: Path) -> None:
    spec, _ = stored("itpn", "layer_decay_groups")
    named = spec["tiny"]
    of_config = {name: named["config"][name] for name in ("layer_decay", "weight_decay")}
    passes(write(tmp_path, "of keys", {"any": named | {"config": of_config}}))
    key = "blocks.7.mlp.fc1.weight"
    named["groups"][key][0] *= 1.01
    fails(write(tmp_path, "wrong", {"any": named}), key)
    spec, _ = stored("itpn", "det_layer_decay")
    passes(write(tmp_path, "dense", spec))
    spec["source"]["file"] = "seg/" + spec["source"]["file"].split("/", 1)[1]
    fails(write(tmp_path, "seg", spec), "absolute_pos_embed")


def test_tables_of_other_sizes(tmp_path: Path) -> None:
    spec, arrays = stored("itpn", "sincos_pos_embed")
    spec["config"] = {"cases": [[32, 8]]}
    passes(write(tmp_path, "one", spec, some(arrays, "d32_g8")))
    spec, arrays = stored("itpn", "rpe_table_resize_4to7")
    spec["config"] = {"grid_from": [4, 4], "grid_to": [7, 7]}
    passes(write(tmp_path, "grids", spec, arrays))


def test_keys_of_two_levels(tmp_path: Path) -> None:
    """The tensors of pre-training with num_outs 2, as a listing of an official model has them."""
    spec, _ = stored("itpn", "pixel_pretrain_d_two_levels")
    listed = [[key, shape, "float32"] for key, shape in spec["state"]]
    fixed = {"decoder_pos_embed"}
    count = sum(int(np.prod(shape)) for key, shape, _ in listed if key not in fixed)
    passes(write(tmp_path, "two levels", {"keys": listed, "n_trainable": count}))
