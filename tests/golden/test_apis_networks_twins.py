"""Cases of CondInst under other names, sizes and options, their numbers made anew."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from golden import plain_condinst as plain
from golden.harness import Case, check
from golden.test_apis import CHECKS
from golden.twins import some, stored, write
from golden.virreq_fill import filled, given

Arrays = dict[str, np.ndarray]


def passes(case: Case) -> None:
    check(case, "apis", CHECKS)


def fails(case: Case, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        passes(case)


def renamed(spec: dict, shapes: dict[str, list[int]]) -> None:
    """Inputs under other keys and of other shapes; those without a shape are left out."""
    spec["inputs"] = {
        role: entry | {"key": f"twin.{role}", "shape": shapes[role]}
        for role, entry in spec["inputs"].items()
        if role in shapes
    }


def arrays(found: dict) -> Arrays:
    values = {key: value.detach().numpy() if isinstance(value, Tensor) else value
              for key, value in found.items()}  # fmt: skip
    return {key: np.asarray(value) for key, value in values.items()}


def test_maps_enlarged_otherwise(tmp_path: Path) -> None:
    spec, _ = stored("apis", "aligned_bilinear")
    spec["config"]["factors"] = ["3", "4"]
    renamed(spec, {"x0": [2, 1, 3, 2], "x1": [1, 2, 5, 1]})
    case = write(tmp_path, "twin", spec, {})
    found = arrays({
        "y0_factor3": plain.enlarged(given(case, "x0"), 3),
        "y1_factor4": plain.enlarged(given(case, "x1"), 4),
    })  # fmt: skip
    passes(write(tmp_path, "twin", spec, found))
    found["y1_factor4"] = found["y1_factor4"][:, ::-1].copy()
    fails(write(tmp_path, "wrong", spec, found), "y1_factor4")


def test_losses_of_other_boxes(tmp_path: Path) -> None:
    spec, _ = stored("apis", "boxinst_losses")
    boxes = [[3.0, 4.5, 40.2, 33.9], [16.0, 0.0, 63.0, 47.0]]
    spec["config"] |= {"image_hw": [48, 64], "boxes_xyxy": boxes, "bottom_rows_masked": 11}
    shapes = {
        "image_noise": [1, 3, 48, 64], "image_coarse": [1, 3, 3, 4], "mask_logits": [2, 1, 12, 16],
    }  # fmt: skip
    renamed(spec, shapes)
    case = write(tmp_path, "twin", spec, {})
    image = plain.picture(given(case, "image_noise").numpy(), given(case, "image_coarse").numpy())
    alike = plain.similarity(image[0], 11)
    logits = given(case, "mask_logits").requires_grad_()
    inside = torch.stack([plain.bitmask(box, 48, 64) for box in boxes])
    weights = (alike >= 0.3).float() * inside[:, None]
    scores = logits.sigmoid()[:, 0]
    project = torch.stack(
        [plain.projection(s, t) for s, t in zip(scores, inside, strict=True)]
    ).mean()
    terms = plain.pairwise_map(logits)
    pairwise = (terms * weights).sum() / weights.sum()
    dice = [plain.dice(s, t) for s, t in zip(scores, inside, strict=True)]
    found = arrays({
        "color_similarity": alike[None], "gt_bitmasks": inside, "project_loss": project,
        "pairwise_map": terms, "pairwise_weights": weights, "pairwise_loss_no_warmup": pairwise,
        "grad_project": torch.autograd.grad(project, logits, retain_graph=True)[0],
        "grad_pairwise": torch.autograd.grad(pairwise, logits)[0],
        "dice_per_instance": torch.stack(dice),
    })  # fmt: skip
    assert 0 < found["pairwise_weights"].mean() < inside.mean()
    passes(write(tmp_path, "twin", spec, found))
    spec["config"]["bottom_rows_masked"] = 0
    fails(write(tmp_path, "wrong", spec, some(found, "color_similarity")), "color_similarity")


def flat(parts: list[Tensor], image: int) -> Tensor:
    """Values of all places of a picture."""
    return torch.cat([part[image].flatten(1).T for part in parts])


def by_level(of_images: list[Tensor], where: list) -> np.ndarray:
    """Values of places in the order of level, picture and place."""
    levels = torch.tensor([level for level, *_ in where])
    return torch.cat(
        [own[levels == level] for level in range(int(levels.max()) + 1) for own in of_images]
    ).numpy()


def test_a_detector_of_other_levels(tmp_path: Path) -> None:
    spec, _ = stored("apis", "fcos_center_sampling")
    strides, bounds, classes = [8, 16, 32], [40, 90], 3
    boxes = [[[5.0, 6.0, 40.0, 33.0], [30.0, 20.0, 95.0, 63.0], [31.0, 2.0, 60.0, 30.0]],
             [[1.0, 2.0, 93.0, 60.0]]]  # fmt: skip
    spec["config"] |= {
        "image_hw": [64, 96], "boxes_xyxy": boxes, "classes": [[0, 2, 1], [1]], "radius": 1.2,
        "num_classes": classes, "strides": strides, "sizes_of_interest": bounds,
        "pre_nms_thresh": 0.1, "pre_nms_topk": 30, "post_nms_topk": 12, "nms_thresh": 0.5,
    }  # fmt: skip
    shapes = {
        f"{role}{level}": [2, channels, 64 // s, 96 // s]
        for level, s in enumerate(strides)
        for role, channels in (("cls", classes), ("reg", 4), ("ctr", 1))
    }
    renamed(spec, shapes)
    case = write(tmp_path, "twin", spec, {})
    where = plain.places(64, 96, strides)
    each = [plain.wanted(where, own, strides, bounds, 1.2) for own in boxes]
    labels, targets, rows, start = [], [], [], 0
    for own, names in zip(each, spec["config"]["classes"], strict=True):
        labels.append(torch.tensor([names[i] if i >= 0 else classes for i, _ in own]))
        rows.append(torch.tensor([i + start if i >= 0 else -7 for i, _ in own]))
        targets.append(torch.tensor([d for _, d in own]))
        start += len(names)
    heads = {
        role: [given(case, f"{role}{i}") for i in range(3)] for role in ("cls", "reg", "ctr")
    }  # fmt: skip
    heads["reg"] = [x.relu() for x in heads["reg"]]
    every = {role: torch.cat([flat(x, i) for i in (0, 1)]) for role, x in heads.items()}
    found = plain.detector_losses(
        every["cls"], every["reg"], every["ctr"][:, 0], torch.cat(labels).tolist(),
        torch.cat(targets),
    )  # fmt: skip
    positive = by_level(rows, where)
    levels = by_level([torch.tensor([level for level, *_ in where])] * 2, where)
    made = arrays(found) | {
        "labels": by_level(labels, where), "target_inds": positive,
        "reg_targets": by_level(targets, where), "pos_gt_inds": positive[positive >= 0],
        "pos_levels": levels[positive >= 0],
    }  # fmt: skip
    for i in (0, 1):
        kept = plain.detections(
            flat(heads["cls"], i), flat(heads["reg"], i), flat(heads["ctr"], i)[:, 0], where,
            strides, 0.1, 30, 0.5, 12,
        )  # fmt: skip
        made[f"prop{i}_scores"] = np.array([score for score, *_ in kept], np.float32)
        made[f"prop{i}_classes"] = np.array([label for _, label, *_ in kept])
        made[f"prop{i}_boxes"] = np.array([box for *_, box in kept], np.float32)
        at = [where[place] for _, _, place, _ in kept]
        made[f"prop{i}_levels"] = np.array([level for level, *_ in at])
        made[f"prop{i}_locations"] = np.array([xy for _, *xy in at], np.float32)
    assert len(made["prop0_scores"]) == 12 and len(set(positive.tolist())) == 5
    passes(write(tmp_path, "twin", spec, made))
    spec["config"]["nms_thresh"] = 0.2
    fails(write(tmp_path, "wrong", spec, made), "prop0_boxes")


@pytest.mark.parametrize("name", ["mask_head_default", "mask_head_norel_2layer"])
def test_masks_of_another_head(tmp_path: Path, name: str) -> None:
    spec, _ = stored("apis", name)
    config = spec["config"]
    coordinates, layers = config["rel_coords"], [(3 + 2 * config["rel_coords"], 4), (4, 1)]
    config |= {
        "in_channels": 3, "channels": 4, "num_layers": 2, "mask_feat_stride": 4,
        "mask_out_stride": 2, "sizes_of_interest": [10, 20, 30], "fpn_levels": [2, 0, 1],
        "locations_xy": [[3.0, 5.0], [17.0, 2.0], [8.0, 8.0]], "im_inds": [1, 0, 1],
        "weight_nums": [a * b for a, b in layers], "bias_nums": [b for _, b in layers],
    }  # fmt: skip
    count = sum((a + 1) * b for a, b in layers)
    renamed(spec, {"mask_feats": [2, 3, 5, 4], "params": [3, count]})
    case = write(tmp_path, "twin", spec, {})
    features, numbers = given(case, "mask_feats"), given(case, "params")
    masks = [
        plain.mask(
            features[config["im_inds"][i]], numbers[i], config["locations_xy"][i],
            config["fpn_levels"][i], layers, 4, 2, coordinates, (10, 20, 30),
        )
        for i in range(3)
    ]  # fmt: skip
    first = layers[0][0] * 4
    logits = torch.stack(masks)[:, None]
    found = arrays({
        "mask_logits": logits, "mask_scores": logits.sigmoid(),
        "w0": numbers[:, :first].reshape(12, -1, 1, 1),
        "b0": numbers[:, first + 4 : first + 8].flatten(),
        "w_last": numbers[:, first : first + 4].reshape(3, 4, 1, 1), "b_last": numbers[:, -1],
    })  # fmt: skip
    passes(write(tmp_path, "twin", spec, found))
    config["im_inds"] = [0, 0, 1]
    fails(write(tmp_path, "wrong", spec, found), "mask_logits")


LAYERS = [(10, 8), (8, 8), (8, 1)]


def plain_mask_losses(
    logits: list[Tensor], rows: list[int], images: list[int], config: dict, alike: list[Tensor]
) -> dict[str, Tensor]:
    """Official losses of masks; rows are of objects of all pictures."""
    boxes = [box for own in config["boxes_xyxy"] for box in own]
    points = [own for image in config["point_coords_xy"] for own in image]
    answers = [own for image in config["point_labels"] for own in image]
    height, width = config["image_hw"]
    terms = [plain.point_terms(m, points[r], answers[r]) for m, r in zip(logits, rows, strict=True)]
    found = {"loss_point": config["point_loss_weight"] * torch.stack(terms).mean()}
    if alike:
        project, total, count = [], torch.zeros(()), 0.0
        for m, row, image in zip(logits, rows, images, strict=True):
            inside = plain.bitmask(boxes[row], height, width)
            project.append(plain.projection(m.sigmoid(), inside))
            edges = (alike[image] >= 0.3).float() * inside
            total = total + (plain.pairwise_map(m[None, None])[0] * edges).sum()
            count += edges.sum().item()
        warm = min((config["iter_before_call"] + 1) / config.get("warmup_iters", 10000), 1)
        found |= {"loss_prj": torch.stack(project).mean()}
        found["loss_pairwise"] = total / max(count, 1) * warm
    return found | {"total": sum(found.values())}


@pytest.mark.parametrize("name", ["mask_head_train_box_point", "mask_head_train_point_only"])
def test_other_masks_are_trained(tmp_path: Path, name: str) -> None:
    spec, _ = stored("apis", name)
    config = spec["config"]
    config |= {
        "image_hw": [32, 48], "boxes_xyxy": [[[2.0, 3.0, 30.0, 29.0]], [[8.5, 1.0, 47.0, 20.0]]],
        "point_coords_xy": [[[[0.5, 0.5], [31.5, 17.5]]], [[[47.5, 31.5], [20.5, 10.5]]]],
        "point_labels": [[[1, 0]], [[0, 0]]], "gt_inds": [1, 0, 0], "im_inds": [1, 0, 0],
        "fpn_levels": [0, 2, 1], "locations_xy": [[20.0, 12.0], [16.0, 16.0], [24.0, 8.0]],
        "iter_before_call": 99, "warmup_iters": 250, "point_loss_weight": 0.3,
    }  # fmt: skip
    shapes = {
        "image_noise": [2, 3, 32, 48], "image_coarse": [2, 3, 2, 3], "mask_feats": [2, 8, 4, 6],
        "params": [3, 169],
    }  # fmt: skip
    renamed(spec, shapes)
    case = write(tmp_path, "twin", spec, {})
    features = given(case, "mask_feats").requires_grad_()
    numbers = given(case, "params").requires_grad_()
    logits = [
        plain.mask(
            features[config["im_inds"][i]], numbers[i], config["locations_xy"][i],
            config["fpn_levels"][i], LAYERS, 8, 4,
        )
        for i in range(3)
    ]  # fmt: skip
    alike = []
    if config["boxinst"]:
        noise, coarse = (given(case, f"image_{part}").numpy() for part in ("noise", "coarse"))
        alike = [plain.similarity(image, 0) for image in plain.picture(noise, coarse)]
    found = plain_mask_losses(logits, config["gt_inds"], config["im_inds"], config, alike)
    found["total"].backward()
    made = arrays(found | {"grad_mask_feats": features.grad, "grad_params": numbers.grad})
    passes(write(tmp_path, "twin", spec, made))
    config["point_loss_weight"] = 0.4
    fails(write(tmp_path, "wrong", spec, made), "loss_point")


NARROW = {256: 32, 128: 6, 512: 16, 1024: 16, 2048: 16, 64: 4}
"""Channels of the stored network -> those of the twin, but for the backbone's."""


def narrowed(params: list) -> list:
    """One block in each stage, the stem of 4 channels, and heads of 32."""
    found = []
    for key, shape, kind, scale in params:
        if re.search(r"res\d\.[1-9]|_tower\.(?:[3-9]|10)|mask_branch\.tower\.[1-3]\.", key):
            continue
        if key.startswith("mask_branch.tower.4"):
            key = key.replace("tower.4", "tower.1")
        if "bottom_up" in key:
            size = [n if n in (1, 3, 7) else max(n // 16, 1) for n in shape]
        elif "fpn_lateral" in key and len(shape) == 4:
            size = [32, shape[1] // 16, 1, 1]
        elif key.startswith("mask_branch.refine") and len(shape) == 4:
            size = [6, 32, 3, 3]
        else:
            size = [NARROW.get(n, n) for n in shape]
            size = [3] + size[1:] if "cls_logits" in key else size
        # of the larger spread that fewer channels need
        wide = kind == "normal" and len(shape) == 4
        fan = int(np.prod(size[1:])) if wide else 1
        spread = 1.4 / np.sqrt(fan) if wide else scale
        spread *= 0.02 if "stem" in key and wide else 1
        found.append([key, size, kind, spread])
    return found


def test_a_network_of_another_size(tmp_path: Path) -> None:
    spec, _ = stored("apis", "condinst_full_r50")
    config = spec["config"]
    spec["params"], spec["param_key_prefix"] = narrowed(spec["params"]), "other."
    boxes = [[10.0, 6.0, 50.0, 60.0], [40.0, 20.0, 90.0, 62.0]]
    config |= {
        "image_hw": [64, 160], "boxes_xyxy": boxes, "classes": [2, 0], "num_classes": 3,
        "point_coords_xy": [[[20.5, 30.5], [48.5, 8.5], [70.5, 2.5]],
                            [[60.5, 40.5], [41.5, 61.5], [80.5, 30.5]]],
        "point_labels": [[1, 0, 0], [1, 0, 1]], "point_loss_weight": 0.6, "iter_before_call": 2000,
    }  # fmt: skip
    renamed(spec, {"image_noise": [3, 64, 160], "coarse": [1, 3, 4, 10]})
    case = write(tmp_path, "twin", spec, {})
    state = filled(case)
    for name, value in state.items():
        value.requires_grad_(value.is_floating_point() and "running" not in name)
    image = plain.picture(given(case, "image_noise").numpy()[None], given(case, "coarse").numpy())
    mean = torch.tensor(config["pixel_mean_bgr"]).view(3, 1, 1)
    levels, features, heads = plain.network(state, image[:, [2, 1, 0]] - mean)
    strides, bounds = [8, 16, 32, 64, 128], [64, 128, 256, 512]
    where = plain.places(64, 160, strides)
    own = plain.wanted(where, boxes, strides, bounds)
    every = [
        torch.cat([part[0].flatten(1).T for part in parts]) for parts in zip(*heads, strict=True)
    ]
    logits, distances, central, numbers = every
    found = plain.detector_losses(
        logits, distances, central[:, 0], [config["classes"][i] if i >= 0 else 3 for i, _ in own],
        torch.tensor([d for _, d in own]),
    )  # fmt: skip

    def mask(place: int) -> Tensor:
        level, *xy = where[place]
        return plain.mask(features[0], numbers[place], xy, level, LAYERS, 8, 4)

    positive = [i for i, (row, _) in enumerate(own) if row >= 0]
    wrapped = config | {
        name: [config[name]] for name in ("boxes_xyxy", "point_coords_xy", "point_labels")
    }
    of_masks = plain_mask_losses(
        [mask(i) for i in positive], [own[i][0] for i in positive], [0] * len(positive), wrapped,
        [plain.similarity(image[0], 10)],
    )  # fmt: skip
    total = sum(found.values()) + of_masks.pop("total")
    total.backward()
    made = found | of_masks | {"total": total, "mask_feats": features}
    for name in (
        "controller.weight",
        "mask_branch.refine.2.0.weight",
        "backbone.fpn_lateral4.bias",
    ):
        made[f"grad_norm_{name}"] = state[name].grad.norm()
    for number, level in enumerate(levels):
        made[f"feat_p{number + 3}_mean_abs"] = level.abs().mean()
    made |= {"feat_p6": levels[3][0, :5], "cls_p3": heads[0][0], "reg_p7": heads[4][1]}
    made |= {"ctr_p5": heads[2][2], "top_p4": heads[1][3]}
    kept, scale = [], 1.5
    for score, label, place, box in plain.detections(
        logits, distances, central[:, 0], where, strides, 0.05, 1000, 0.6, 100
    ):
        x0, y0, x1, y1 = (
            min(max(side * scale, 0.0), limit)
            for side, limit in zip(box, (240, 96, 240, 96), strict=True)
        )
        if x1 > x0 and y1 > y0:
            kept.append((score, label, place, (x0, y0, x1, y1)))
    made["n_det"] = np.array(len(kept))
    assert len(kept) > 5
    masks = torch.zeros(3, 96, 240, dtype=torch.bool)
    for i, (_, _, place, box) in enumerate(kept[:3]):
        whole = plain.enlarged(mask(place).sigmoid()[None, None], 4)
        whole = F.interpolate(whole, (96, 240), mode="bilinear", align_corners=False)[0, 0]
        x0, y0, x1, y1 = (int(side) for side in box)
        masks[i, y0:y1, x0:x1] = whole[y0:y1, x0:x1] > 0.5
    made |= {
        "det_scores": np.array([one[0] for one in kept[:3]], np.float32),
        "det_classes": np.array([one[1] for one in kept[:3]]),
        "det_boxes": np.array([one[3] for one in kept[:3]], np.float32), "det_masks": masks,
    }  # fmt: skip
    made = arrays(made)
    passes(write(tmp_path, "twin", spec, made))
    config["point_loss_weight"] = 0.5
    fails(write(tmp_path, "wrong", spec, some(made, "loss_point", "det_masks")), "loss_point")
