"""Checks of iTPN's networks: forward, losses and gradients of every family."""

from __future__ import annotations

import re
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import torch
from torch import Tensor, nn

from golden.harness import Case, close
from golden.itpn_fill import (
    given,
    keys_of,
    layout_of,
    load,
    note_numbers,
    official,
    shape_for,
)
from tenfold.nn.hivit import HiViT
from tenfold.nn.position import relative_index
from tenfold.systems.itpn.model import Classifier, ClipPretraining, PixelPretraining
from tenfold.systems.itpn.official import official_keys
from tenfold.systems.itpn.teacher import ClipTeacher
from tenfold.weights.clip import ClipSettings
from tenfold.weights.clip_vit import convert_clip, describe_clip
from tenfold.weights.hivit import ours

ATOL = 2e-5
"""A fifth of what the README of the cases suggests; values are of order 1."""
DECODER_HEADS = 16
"""Of the published pixel pre-training, at base and large size."""
LEVELS = ("level16", "level8", "level4")
"""Names of the pyramid's levels, coarsest first, whatever the size of a unit."""


def has_gradients(case: Case) -> bool:
    return any(name.startswith("grad") for name in case.arrays)


def gradients(module: nn.Module, case: Case) -> None:
    """The norm of every gradient, and those that are stored whole."""
    parameters = dict(module.named_parameters())
    names = official_keys(module)

    def grad(key: str) -> Tensor:
        found = parameters[names[key]].grad
        assert found is not None, key
        return found

    if "grad_norms" in case.arrays:
        norms = case.take("grad_norms")
        for key, want in zip(case.spec["grad_norm_names"], norms, strict=True):
            (own,) = ours({key: torch.empty(0)})
            got = float(grad(own).double().norm())
            assert abs(got - want) <= 1e-4 * max(abs(float(want)), 1e-3), (key, got, want)
    for name, want in case.arrays.items():
        if name.startswith("grad:"):
            own_shape = ours({name.removeprefix("grad:"): torch.from_numpy(case.take(name))})
            ((own, value),) = own_shape.items()
            close(grad(own), value.numpy(), 0, 1e-4 * float(np.abs(want).max()), name)


def check_pixel_pretrain(case: Case) -> None:
    config = case.spec["config"]
    shape, layout = shape_for(case), layout_of(case)
    network = PixelPretraining(
        shape,
        mask_ratio=config["mask_ratio"],
        dim=config.get("decoder_embed_dim", layout.decoder_dim),
        depth=config.get("decoder_depth", layout.decoder_depth),
        heads=config.get("decoder_num_heads", DECODER_HEADS),
        normalised=config.get("norm_pix_loss", True),
    )
    load(network, official(case))
    images, noise = given(case, "img"), given(case, "noise")
    with torch.set_grad_enabled(has_gradients(case)):
        found = network.decode(images, noise)
        predicted = network.decoder_pred(found.decoded)
        loss = network({"images": images, "noise": noise})["loss"]
    normal = SimpleNamespace(shape=shape, normalised=True)  # stored so, whatever the loss uses
    got = {
        "noise": noise,
        "ids_keep": found.masking.kept,
        "ids_restore": found.masking.restore,
        "mask": found.masking.mask,
        "patch_embed": network.backbone.patch_embed(images),
        "decoder_in": found.entered,
        "decoder_norm": found.decoded,
        "pred": predicted,
        "target_normalised": PixelPretraining.target(normal, images),
        "loss": loss.reshape(1),
        **dict(zip(LEVELS, found.levels, strict=False)),
    }
    compare(got, case)
    if has_gradients(case):
        loss.backward()
        gradients(network, case)


def check_clip_pretrain(case: Case) -> None:
    config, layout = case.spec["config"], layout_of(case)
    dim = config.get("teacher_dim", layout.teacher_dim)
    network = ClipPretraining(shape_for(case), dim)
    load(network, official(case))
    images = given(case, "img")
    teacher = torch.nn.functional.layer_norm(given(case, "teacher"), (dim,))
    (share,) = note_numbers(case, "maskval", "value < #")
    masked = given(case, "maskval") < share
    with torch.set_grad_enabled(has_gradients(case)):
        main, aux, levels, tokens = network.predict(images, masked)
        losses = network({"images": images, "masked": masked, "teacher": teacher})
    got = {
        "mask": masked,
        "teacher": teacher,
        "pred_main": main,
        "pred_aux": aux,
        "loss_main": losses["loss/main"].reshape(1),
        "loss_aux": losses["loss/aux"].reshape(1),
        "aux_tokens": tokens,
        **dict(zip(LEVELS, levels, strict=False)),
    }
    if "leak" in case.spec:
        for key in (key for key in got if key in LEVELS[1:]):
            got[key] = disturbed(case, key, got[key].detach(), masked)
        check_leak(network, images, masked, case)
    compare(got, case)
    if has_gradients(case):
        losses["loss"].backward()
        gradients(network, case)


def disturbed(case: Case, key: str, level: Tensor, masked: Tensor) -> Tensor:
    """A level with the case's values in one masked unit.

    A case that measured its leak kept the levels of that run, whose pixels in one masked unit are
    other ones; nothing else may differ. Statistics of such a level say too little to be compared.
    """
    for name in (name for name in case.arrays if name in (f"{key}:stats", f"{key}:slice")):
        first = masked[0].nonzero()[0]
        reached = name.endswith("stats") or int(first) * level[0, 0].numel() < 512
        if reached:
            case.take(name)
    if key not in case.arrays:
        return level
    want, have = case.arrays[key], level.clone()
    away = np.abs(have.numpy() - want).max((2, 3, 4)) > 1e-3
    assert away.sum() <= 1 and not (away & ~masked.numpy()).any(), key
    have[torch.from_numpy(away)] = torch.from_numpy(want[away])
    return have


@torch.no_grad()
def check_leak(network: ClipPretraining, images: Tensor, masked: Tensor, case: Case) -> None:
    """Other pixels in a masked unit move its main prediction, unless laterals are masked too."""
    unit, side = int(masked[0].nonzero()[0]), network.shape.patch_size
    row, column = (side * i for i in divmod(unit, network.shape.grid[1]))
    other = images.clone()
    other[0, :, row : row + side, column : column + side] *= -1
    moved = {}
    for leak_free in (False, True):
        network.leak_free = leak_free
        before, after = (network.predict(x, masked)[:2] for x in (images, other))
        moved[leak_free] = [(b - a).abs()[0].mean(-1) for b, a in zip(before, after, strict=True)]
    network.leak_free = False
    elsewhere = torch.arange(masked.shape[1]) != unit
    assert float(moved[False][0][unit]) > 0.3 * case.spec["leak"]["main_at_perturbed_masked_unit"]
    assert float(moved[False][0][elsewhere].max()) == 0
    assert float(moved[False][1].max()) == 0 == float(torch.stack(moved[True]).max())


def check_classifier(case: Case) -> None:
    config, shape = case.spec["config"], shape_for(case)
    network = Classifier(shape, config.get("num_classes", layout_of(case).num_classes))
    load(network, official(case))
    images = given(case, "img")
    features = network.backbone.encode(images).tokens
    logits = network.logits(images)
    got = {"features": features, "pooled": network.pooled(images), "logits": logits}
    if "labels" in case.arrays:
        labels = torch.from_numpy(case.take("labels")).long()
        loss = torch.nn.functional.cross_entropy(logits, labels)
        loss.backward()
        got["ce_loss"] = loss.reshape(1)
        gradients(network, case)
    if shape.bias in ("full", "none"):
        got["relative_position_index"] = relative_index(*shape.grid)
    grid = network.backbone.grid_of(images)
    got["pos_embed_resized"] = network.backbone.positions(grid)
    compare(got, case)


def compare(got: dict[str, Tensor], case: Case) -> None:
    """Every stored array but gradients, by its name; statistics and slices of large tensors too."""
    whole, some = {}, {}
    for key in (k for k in case.arrays if k not in case.looked_at and not k.startswith("grad")):
        name, _, part = key.partition(":")
        assert name in got, (
            f"{case.json_path}: no check for the output {key!r}; this kind may have {sorted(got)}"
        )
        value = got[name].detach()
        if part == "stats":
            flat = value.double().flatten()
            few = flat[:: max(1, len(flat) // 4096)].sum()
            some[key] = torch.stack([flat.mean(), flat.std(unbiased=False), flat.abs().max(), few])
        else:
            whole[key] = value.flatten()[:512] if part == "slice" else value

    def of_stats(key: str) -> dict[str, float]:
        # sums cancel: their error is that of the entries
        return {"rtol": 1e-4, "atol": 1e-4 * float(case.arrays[key][2])}

    def of_values(key: str) -> dict[str, float]:
        return {"rtol": 0.0, "atol": ATOL * max(1.0, float(np.abs(case.arrays[key]).max()))}

    case.compare_all(some, of_stats, names=some)
    case.compare_all(whole, of_values, names=whole)


def check_visible(case: Case) -> None:
    config = case.spec["config"]
    network = HiViT(shape_for(case))
    load(network, official(case))
    noise = given(case, "noise")
    kept = noise.argsort(1)[:, : config["n_keep"]]
    levels = network.pyramid(network.encode(given(case, "img"), kept))
    got = {"ids_keep": kept, "noise": noise}
    got |= dict(zip(LEVELS, levels, strict=False))
    compare(got, case)


def check_levels(case: Case) -> None:
    """Maps of the detection backbone, or of the segmentation backbone, as the source says."""
    shape, keys = shape_for(case), dict(keys_of(case))
    side = round(keys["absolute_pos_embed"][1] ** 0.5)
    task = case.spec["source"]["file"].split("/")[0]
    assert task in ("det", "seg"), f"{case.json_path}: neither det nor seg is the source {task!r}"
    bias = "decomposed" if any(key.endswith("rel_pos_h") for key in keys) else shape.bias
    network = HiViT(replace(shape, grid=(side, side), bias_grid=shape.grid, bias=bias))
    load(network, official(case))
    got = {}
    for entry in case.inputs:
        size = re.search(r"\d+x\d+$", entry.name)
        assert size, f"{case.json_path}: no size in the name of the input {entry.name!r}"
        images = torch.from_numpy(case.value(entry))
        maps = network.detection_maps if task == "det" else network.segmentation_maps
        for level, x in enumerate(maps(images)):
            got[f"in{size[0]}_level{level}"] = x
    compare(got, case)


def check_teacher(case: Case) -> None:
    factor, low, high = note_numbers(case, "img01", r"\*# and clamp to \[#, ?#\]")
    images = (given(case, "img01") * factor).clamp(low, high)
    state = official(case)
    layout = describe_clip(state)
    config = case.spec["config"]
    assert (layout.width, layout.layers, layout.patch_size) == (
        config["width"], config["layers"], config["patch_size"],
    )  # fmt: skip
    teacher = ClipTeacher(layout, ClipSettings((config["heads"], 0)), "official")
    account = convert_clip(state, {k: tuple(v.shape) for k, v in teacher.state_dict().items()})
    teacher.load_state_dict(account.require_complete())
    tokens = teacher.tokens(teacher.normalise(images))
    got = {
        "img": images,
        "normalised": teacher.normalise(images),
        "tokens": tokens,
        "target": teacher(images),
    }
    compare(got, case)


CHECKS = {
    "pixel_pretrain": check_pixel_pretrain,
    "clip_pretrain": check_clip_pretrain,
    "teacher": check_teacher,
    "classifier": check_classifier,
    "visible": check_visible,
    "levels": check_levels,
}
