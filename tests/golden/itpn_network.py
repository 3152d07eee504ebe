"""Checks of iTPN's networks: forward, losses and gradients of every family."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import torch
from torch import Tensor, nn

from golden.harness import Case, close
from golden.itpn_fill import given, load, numbers, official, published, shape_of
from tenfold.nn.hivit import HiViT
from tenfold.systems.itpn.loss import token_loss
from tenfold.systems.itpn.model import Classifier, ClipPretraining, PixelPretraining
from tenfold.systems.itpn.official import official_keys
from tenfold.systems.itpn.official_layout import ours
from tenfold.systems.itpn.teacher import ClipTeacher
from tenfold.weights.clip_vit import convert_clip, describe_clip

ATOL = 2e-5
"""A fifth of what the README of the cases suggests; values are of order 1."""
DECODER = {"dim": 512, "depth": 8, "heads": 16}
"""Of the published pixel pre-training, at base and large size."""


def gradients(module: nn.Module, case: Case) -> None:
    """The norm of every gradient, and those that are stored whole."""
    parameters = dict(module.named_parameters())
    names = official_keys(module)

    def grad(key: str) -> Tensor:
        found = parameters[names[key]].grad
        assert found is not None, key
        return found

    for key, want in zip(case.spec["grad_norm_names"], case.arrays["grad_norms"], strict=True):
        (own,) = ours({key: torch.empty(0)})
        got = float(grad(own).double().norm())
        assert abs(got - want) <= 1e-4 * max(abs(float(want)), 1e-3), (key, got, want)
    for name, want in case.arrays.items():
        if name.startswith("grad:"):
            ((own, value),) = ours({name.removeprefix("grad:"): torch.from_numpy(want)}).items()
            close(grad(own), value.numpy(), 0, 1e-4 * float(np.abs(want).max()), name)


def check_pixel_pretrain(case: Case) -> None:
    config = case.spec["config"]
    is_real = "keys_file" in config
    pyramid = {"bias": "none", "fpn_dim": 256, "fpn_depth": 2}
    shape = replace(published(config["model"]), **pyramid) if is_real else shape_of(config)
    decoder = DECODER if is_real else {
        "dim": config["decoder_embed_dim"],
        "depth": config["decoder_depth"],
        "heads": config["decoder_num_heads"],
    }  # fmt: skip
    ratio, normalised = config["mask_ratio"], config["norm_pix_loss"]
    network = PixelPretraining(shape, mask_ratio=ratio, normalised=normalised, **decoder)
    load(network, official(case))
    images, noise = given(case, "img"), given(case, "noise")
    with torch.set_grad_enabled(not is_real):
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
        "level16": found.levels[0],
        "level8": found.levels[1],
        "level4": found.levels[2],
        "decoder_in": found.entered,
        "decoder_norm": found.decoded,
        "pred": predicted,
        "target_normalised": PixelPretraining.target(normal, images),
        "loss": loss.reshape(1),
    }
    compare(got, case)
    if not is_real:
        loss.backward()
        gradients(network, case)


def check_clip_pretrain(case: Case) -> None:
    config = case.spec["config"]
    network = ClipPretraining(shape_of(config), config["teacher_dim"])
    load(network, official(case))
    images = given(case, "img")
    teacher = torch.nn.functional.layer_norm(given(case, "teacher"), (config["teacher_dim"],))
    masked = given(case, "maskval") < 0.4
    main, aux, levels, tokens = network.predict(images, masked)
    losses = network({"images": images, "masked": masked, "teacher": teacher})
    got = {
        "mask": masked,
        "teacher": teacher,
        "pred_main": main,
        "pred_aux": aux,
        "loss_main": losses["loss/main"].reshape(1),
        "loss_aux": losses["loss/aux"].reshape(1),
        "level16": levels[0],
        "level8": levels[1],
        "level4": levels[2],
        "aux_tokens": tokens,
    }
    # The case's levels were kept while its leak was measured: the laterals of one masked unit are
    # those of other pixels. That unit is left out, and nothing but a masked unit may be.
    for key in ("level8", "level4"):
        want, have = case.arrays[key], got[key].detach().clone()
        away = np.abs(have.numpy() - want).max((2, 3, 4)) > 1e-3
        assert away.sum() <= 1 and not (away & ~masked.numpy()).any(), key
        have[torch.from_numpy(away)] = torch.from_numpy(want[away])
        got[key] = have
    compare(got, case)
    if "leak" in case.spec:
        check_leak(network, images, masked, case)
    (token_loss(main, teacher) + token_loss(aux, teacher)).backward()
    gradients(network, case)


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
    config = case.spec["config"]
    is_real = "keys_file" in config
    shape = published(config["model"]) if is_real else shape_of(config)
    classes = 1000 if is_real else config["num_classes"]
    network = Classifier(shape, classes)
    load(network, official(case))
    images = given(case, "img")
    features = network.backbone.encode(images).tokens
    logits = network.logits(images)
    got = {"features": features, "pooled": network.pooled(images), "logits": logits}
    if "labels" in case.arrays:
        labels = torch.from_numpy(case.arrays["labels"]).long()
        loss = torch.nn.functional.cross_entropy(logits, labels)
        loss.backward()
        got |= {"ce_loss": loss.reshape(1), "labels": labels}
        gradients(network, case)
    if "relative_position_index" in case.arrays:
        from tenfold.nn.position import relative_index

        got["relative_position_index"] = relative_index(*shape.grid)
    if "pos_embed_resized" in case.arrays:
        got["pos_embed_resized"] = network.backbone.positions(network.backbone.grid_of(images))
    compare(got, case)


def compare(got: dict[str, Tensor], case: Case) -> None:
    """Every stored array, by its name; statistics and slices of large tensors too."""
    for key, want in case.arrays.items():
        if key.startswith("grad"):
            continue
        name, _, part = key.partition(":")
        value = got[name].detach()
        if part == "stats":
            flat = value.double().flatten()
            some = flat[:: max(1, len(flat) // 4096)].sum()
            stats = torch.stack([flat.mean(), flat.std(unbiased=False), flat.abs().max(), some])
            # sums cancel: their error is that of the entries
            close(stats, want, 1e-4, 1e-4 * float(want[2]), key)
            continue
        value = value.flatten()[:512] if part == "slice" else value
        scale = max(1.0, float(np.abs(want).max())) if want.dtype.kind == "f" else 0.0
        close(value, want, 0, ATOL * scale, key)


def check_visible(case: Case) -> None:
    config = case.spec["config"]
    network = HiViT(shape_of(config))
    load(network, official(case))
    noise = given(case, "noise")
    kept = noise.argsort(1)[:, : config["n_keep"]]
    levels = network.pyramid(network.encode(given(case, "img"), kept))
    got = {"ids_keep": kept, "noise": noise}
    got |= dict(zip(("level16", "level8", "level4"), levels, strict=True))
    compare(got, case)


def check_levels(case: Case) -> None:
    config = case.spec["config"]
    shape, units = shape_of(config), next(s for k, s in case.spec["state"] if "absolute" in k)[1]
    side = round(units**0.5)
    is_detection = config["num_outs"] == 5
    has_vectors = any(key.endswith("rel_pos_h") for key, _ in case.spec["state"])
    bias = "decomposed" if has_vectors else shape.bias
    network = HiViT(replace(shape, grid=(side, side), bias_grid=shape.grid, bias=bias))
    load(network, official(case))
    got = {}
    for entry in case.spec["inputs"]:
        size = entry["name"].split(".img")[-1]
        images = torch.from_numpy(numbers(entry["name"], entry["shape"]))
        maps = network.detection_maps if is_detection else network.segmentation_maps
        for level, x in enumerate(maps(images)):
            got[f"in{size}_level{level}"] = x
    compare(got, case)


def check_teacher(case: Case) -> None:
    images = (given(case, "img01") * 0.5).clamp(-1, 1)
    state = official(case)
    layout = describe_clip(state)
    config = case.spec["config"]
    assert (layout.width, layout.layers, layout.patch_size) == (
        config["width"], config["layers"], config["patch_size"],
    )  # fmt: skip
    teacher = ClipTeacher(layout, heads=config["heads"], value_range="official")
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
    "base_real_pixel_pretrain": check_pixel_pretrain,
    "clip_pretrain": check_clip_pretrain,
    "clip_teacher": check_teacher,
    "pixel_finetune": check_classifier,
    "clip_finetune": check_classifier,
    "fast_finetune": check_classifier,
    "base_real_pixel_finetune": check_classifier,
    "pixel_interp": check_classifier,
    "pixel_visible": check_visible,
    "det_pixel_levels": check_levels,
    "det_clip_levels": check_levels,
    "seg_levels": check_levels,
}
"""First words of a case's name -> its check."""
