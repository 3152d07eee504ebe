"""Checks of CondInst, its losses and its detector."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from golden.harness import Case
from golden.virreq_fill import filled, given
from tenfold.nn import fcos, mask_losses
from tenfold.nn.condinst import CondInst, Supervision, Targets
from tenfold.nn.dynamic_masks import DynamicHead, aligned_bilinear, dynamic_masks
from tenfold.nn.mask_supervision import mask_losses as supervised
from tenfold.nn.mask_supervision import valid
from tenfold.systems.apis import official

LIMITS = {"rtol": 1e-4, "atol": 1e-5}
FULL = {"rtol": 1e-4, "atol": 1e-5}
"""Of the whole network."""


def check_aligned_bilinear(case: Case) -> None:
    roles, factors = list(case.spec["inputs"]), case.spec["config"]["factors"]
    got = {
        f"y{i}_factor{factor}": aligned_bilinear(given(case, role), int(factor))
        for i, (role, factor) in enumerate(zip(roles, factors, strict=True))
    }
    case.compare_all(got, LIMITS)


def pictures(case: Case, coarse: str) -> Tensor:
    """RGB of a case whose pictures are noise on enlarged noise, in BGR."""
    noise = given(case, "image_noise")
    noise = noise if noise.ndim == 4 else noise[None]
    found = (noise + aligned_bilinear(given(case, coarse), 16)).clamp(0, 255).round()
    return found.flip(1)


def check_box_losses(case: Case) -> None:
    config = case.spec["config"]
    assert (config["mask_out_stride"], config["pairwise_dilation"]) == (4, 2)
    assert config["color_thresh"] == mask_losses.SIMILAR and config["pairwise_size"] == 3
    images, (height, width) = pictures(case, "image_coarse"), config["image_hw"]
    counts = valid(images, torch.tensor([[height, width]]), [config["bottom_rows_masked"]])
    alike = mask_losses.colour_similarity(images, counts)
    logits = given(case, "mask_logits")[:, 0]
    inside = mask_losses.cells_of_boxes(torch.tensor(config["boxes_xyxy"]), *logits.shape[1:])
    edges = (alike >= mask_losses.SIMILAR) & inside[:, None]

    def slope(loss) -> tuple[Tensor, Tensor]:
        x = logits.clone().requires_grad_()
        found = loss(x)
        return found.detach(), torch.autograd.grad(found, x)[0][:, None]

    project = slope(lambda x: mask_losses.projection_loss(x.sigmoid(), inside.float()).mean())
    pairwise = slope(lambda x: mask_losses.pairwise_loss(x, edges))
    around = mask_losses.neighbours(logits)
    pairs = mask_losses.disagreement(logits[:, None].expand_as(around), around)
    # beyond the border both labels are certain in official code, which no loss reads
    outside = mask_losses.neighbours(torch.ones_like(logits)) == 0
    got = {
        "color_similarity": alike, "gt_bitmasks": inside.float(), "project_loss": project[0],
        "grad_project": project[1], "pairwise_loss_no_warmup": pairwise[0],
        "grad_pairwise": pairwise[1], "pairwise_weights": edges.float(),
        "pairwise_map": pairs.masked_fill(outside, 0),
        "dice_per_instance": mask_losses.dice_loss(logits.sigmoid(), inside.float()),
    }  # fmt: skip
    case.compare_all(got, LIMITS)


def by_level(x: Tensor, outputs: fcos.HeadOutputs) -> Tensor:
    """Values of places in the official order: level, then picture, then place."""
    counts = [rows * columns for rows, columns in outputs.sizes]
    return torch.cat([part.flatten(0, 1) for part in x.split(counts, 1)])


def compare_targets(
    case: Case, outputs: fcos.HeadOutputs, assigned: list[fcos.Assigned], labels: list[Tensor]
) -> None:
    """Classes of all places, and the objects and distances of those that have one."""
    counts = [0, *(len(own) for own in labels)]
    rows = by_level(torch.stack([one.rows for one in assigned]), outputs)
    start = torch.tensor(counts).cumsum(0)[:-1, None]
    start = by_level(start.expand(-1, len(outputs.locations)), outputs)
    every, none = torch.cat(labels), case.spec["config"]["num_classes"]
    found = torch.where(rows >= 0, every[rows.clamp(min=0) + start], none)
    case.compare("labels", found)
    has = (rows >= 0).numpy()
    assert has.any()
    case.compare("target_inds", rows + start, at=has)
    distances = by_level(torch.stack([one.distances for one in assigned]), outputs)
    case.compare("reg_targets", distances, **LIMITS, at=has)


def outputs_of(case: Case) -> fcos.HeadOutputs:
    """Outputs of a head as a case gives them; nothing where it gives none."""
    config = case.spec["config"]
    strides, (height, width) = tuple(config["strides"]), config["image_hw"]
    sizes = tuple((-(-height // s), -(-width // s)) for s in strides)
    places = fcos.locations(sizes, strides)
    levels = torch.arange(len(places)).repeat_interleave(torch.tensor([len(own) for own in places]))

    def given_or(role: str, channels: int) -> Tensor:
        if f"{role}0" not in case.spec["inputs"]:
            return torch.zeros(len(config["classes"]), len(levels), channels)
        parts = [given(case, f"{role}{i}").flatten(2).mT for i in range(len(strides))]
        return torch.cat(parts, 1)

    return fcos.HeadOutputs(
        given_or("cls", config["num_classes"]), given_or("reg", 4).relu(),
        given_or("ctr", 1)[..., 0], torch.cat(places), levels, sizes, strides,
    )  # fmt: skip


def check_detector(case: Case) -> None:
    config, outputs = case.spec["config"], outputs_of(case)
    assert config["focal"] == [fcos.ALPHA, fcos.GAMMA] and config["loc_loss"] == "giou"
    labels = [torch.tensor(own) for own in config["classes"]]
    boxes = [torch.tensor(own) for own in config["boxes_xyxy"]]
    bounds, radius = config["sizes_of_interest"], config["radius"]
    assigned = [fcos.assign(outputs, bounds, own, radius=radius) for own in boxes]
    compare_targets(case, outputs, assigned, labels)
    found = fcos.detection_losses(outputs, assigned, labels)
    for name, key in (("cls", "class"), ("loc", "box"), ("ctr", "centreness")):
        case.compare(f"loss_fcos_{name}", found[key], **LIMITS)
    rows = by_level(torch.stack([one.rows for one in assigned]), outputs)
    levels = by_level(outputs.levels.expand(len(labels), -1), outputs)
    case.compare("pos_levels", levels[rows >= 0])
    case.compare("pos_gt_inds", torch.from_numpy(case.take("target_inds"))[rows >= 0])
    limits = fcos.DetectSettings(
        config["pre_nms_thresh"], config["pre_nms_topk"], config["nms_thresh"],
        config["post_nms_topk"],
    )  # fmt: skip
    for i, one in enumerate(fcos.detect(outputs, limits)):
        got = {
            "boxes": one.boxes, "scores": one.scores, "classes": one.labels,
            "locations": outputs.locations[one.places], "levels": outputs.levels[one.places],
        }  # fmt: skip
        for name, value in got.items():
            case.compare(f"prop{i}_{name}", value, **LIMITS)


def head_of(config: Mapping, features: Tensor) -> DynamicHead:
    return DynamicHead(
        config.get("in_channels", features.shape[1]), config.get("channels", 8),
        config.get("num_layers", 3), config.get("rel_coords", True),
        config.get("mask_feat_stride", 8), config.get("mask_out_stride", 4),
        tuple(config.get("sizes_of_interest", DynamicHead().extents)),
    )  # fmt: skip


def check_mask_head(case: Case) -> None:
    config, features, numbers = (
        case.spec["config"],
        given(case, "mask_feats"),
        given(case, "params"),
    )
    head = head_of(config, features)
    weights, biases = head.split(numbers)
    assert config["weight_nums"] == [w[0].numel() for w in weights]
    assert config["bias_nums"] == [b[0].numel() for b in biases]
    centres, levels = torch.tensor(config["locations_xy"]), torch.tensor(config["fpn_levels"])
    logits = dynamic_masks(
        features, numbers, centres, levels, torch.tensor(config["im_inds"]), head
    )[:, None]
    got = {
        "mask_logits": logits, "mask_scores": logits.sigmoid(), "b0": biases[0].flatten(),
        "w0": weights[0].flatten(0, 1)[..., None, None], "b_last": biases[-1].flatten(),
        "w_last": weights[-1].flatten(0, 1)[..., None, None],
    }  # fmt: skip
    case.compare_all(got, LIMITS)


def targets_of(config: Mapping) -> list[Targets]:
    """Objects of pictures, under points where there are any and under their boxes."""
    found = []
    for i, own in enumerate(config["boxes_xyxy"]):
        boxes = torch.tensor(own)
        kinds = torch.full((len(boxes),), int(Supervision.POINTS))
        labels = torch.tensor(config["classes"][i]) if "classes" in config else kinds
        found.append(
            Targets(
                boxes,
                labels,
                kinds,
                points=torch.tensor(config["point_coords_xy"][i]),
                point_labels=torch.tensor(config["point_labels"][i]),
            )  # fmt: skip
        )
    return found


def check_mask_losses(case: Case) -> None:
    config = case.spec["config"]
    features = given(case, "mask_feats").requires_grad_()
    numbers = given(case, "params").requires_grad_()
    image, targets = torch.tensor(config["im_inds"]), targets_of(config)
    starts = torch.tensor([0, *(len(one.boxes) for one in targets)]).cumsum(0)
    rows = torch.tensor(config["gt_inds"]) - starts[image]
    levels, centres = torch.tensor(config["fpn_levels"]), torch.tensor(config["locations_xy"])
    logits = dynamic_masks(features, numbers, centres, levels, image, head_of({}, features))
    size = config["image_hw"]
    images = torch.zeros(len(targets), 3, *size)
    if config["boxinst"]:
        images = pictures(case, "image_coarse")
    found = supervised(
        logits, image, rows, targets, images, valid(images, torch.tensor([size] * len(targets))),
        "box+point" if config["boxinst"] else "point", config["point_loss_weight"],
        min((config["iter_before_call"] + 1) / config["warmup_iters"], 1.0),
    )  # fmt: skip
    total = torch.stack(list(found.values())).sum()
    total.backward()
    got = {
        "loss_prj": found["projection"], "loss_pairwise": found["pairwise"], "total": total,
        "loss_point": found["point"], "grad_mask_feats": features.grad,
        "grad_params": numbers.grad,
    }  # fmt: skip
    case.compare_all(got, LIMITS)


def check_condinst(case: Case) -> None:
    """The whole network: losses, gradients, maps on the way and detections."""
    config, state = case.spec["config"], filled(case)
    classes, settings = official.described(state)
    assert classes == config["num_classes"]
    settings = replace(
        settings, point_weight=config["point_loss_weight"],
        mean=tuple(config["pixel_mean_bgr"][::-1]),
    )  # fmt: skip
    network = CondInst(classes, settings)
    account = official.convert(state, network)
    network.load_state_dict(account.require_complete(), strict=False)
    network.eval()
    images, (targets,) = pictures(case, "coarse"), targets_of(
        {name: [config[name]] for name in config if name.startswith(("boxes", "classes", "point_"))}
    )  # fmt: skip
    # rows whose colours do not count (BOXINST.BOTTOM_PIXELS_REMOVED)
    targets = replace(targets, bottom=10)
    encoded = network.encode(images)
    outputs = network.head(encoded)
    found = network.losses(encoded, [targets], config["iter_before_call"], outputs)
    total = torch.stack(list(found.values())).sum()
    total.backward()
    got = {
        "loss_fcos_cls": found["class"], "loss_fcos_loc": found["box"], "total": total,
        "loss_fcos_ctr": found["centreness"], "loss_prj": found["projection"],
        "loss_pairwise": found["pairwise"], "loss_point": found["point"],
        "mask_feats": encoded.features,
    }  # fmt: skip
    heads = {
        "cls": outputs.logits, "reg": outputs.distances, "ctr": outputs.centreness[..., None],
        "top": outputs.parameters,
    }  # fmt: skip
    start = 0
    for level, (x, (rows, columns)) in enumerate(zip(encoded.levels, outputs.sizes, strict=True)):
        name, part = f"p{level + 3}", slice(start, start + rows * columns)
        got |= {f"feat_{name}_mean_abs": x.abs().mean()}
        if f"feat_{name}" in case.arrays:
            got[f"feat_{name}"] = x[0, : len(case.arrays[f"feat_{name}"])]
        for kind, value in heads.items():
            got[f"{kind}_{name}"] = value[:, part].mT.unflatten(2, (rows, columns))
        start = part.stop
    parameters = dict(network.named_parameters())
    names = {theirs: ours for ours, theirs in account.origin.items()}
    for name in case.arrays:
        if name.startswith("grad_norm_"):
            got[name] = parameters[names[name.removeprefix("grad_norm_")]].grad.norm()
    height, width = (int(side * 1.5) for side in config["image_hw"])
    assert config["output_size"] == "1.5x image"
    (one,) = network.detect(encoded, [(height, width)], outputs)
    got |= {"n_det": np.array(len(one)), "det_boxes": one.boxes, "det_scores": one.scores}
    got |= {"det_classes": one.labels, "det_masks": one.masks}
    for name in ("det_boxes", "det_scores", "det_classes", "det_masks"):
        got[name] = got[name][: len(case.arrays.get(name, []))]  # the best, as many as are stored
    case.compare_all(got, FULL)


KINDS = {
    "aligned_bilinear": check_aligned_bilinear,
    "box_losses": check_box_losses,
    "detector": check_detector,
    "mask_head": check_mask_head,
    "mask_losses": check_mask_losses,
    "condinst": check_condinst,
}
"""Kind of case -> its check."""
