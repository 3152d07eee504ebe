"""Checks of iTPN's masks, schedules, layer-wise decay and tables of positions."""

from __future__ import annotations

from random import Random

import numpy as np
import torch

from golden.harness import Case, close
from golden.itpn_fill import given, published, shape_of
from tenfold.core.optim import Optim, lr_factor
from tenfold.nn.hivit import HiViT
from tenfold.nn.position import resize_bias, sincos_2d
from tenfold.systems.itpn.decay import layered, scale_and_decay
from tenfold.systems.itpn.masking import Blockwise
from tenfold.systems.itpn.model import Classifier
from tenfold.systems.itpn.official import official_keys

EPOCH = 1000
"""Steps an epoch with which the cases' fractions of epochs are whole steps."""


def check_masks(case: Case) -> None:
    config = case.spec["config"]
    side = config["input_size"]
    make = Blockwise(side, side, config["num_masking_patches"], config["min_num_patches"])
    masks = np.stack([make.draw(Random(seed)) for seed in config["seeds"]])
    close(masks.astype(np.uint8), case.arrays["masks"], what="masks")
    close(masks.sum((1, 2)).astype(np.int32), case.arrays["counts"], what="counts")


def check_schedules(case: Case) -> None:
    config = case.spec["config"]
    for key, epochs in (("pixel_pretrain", "epochs_a"), ("pixel_finetune", "epochs_b")):
        c = config[key]
        optim = Optim(
            lr=c["lr"], schedule="cosine", warmup=EPOCH * c["warmup_epochs"], ramp="zero",
            floor=c["min_lr"] / c["lr"],
        )  # fmt: skip
        steps = [round(EPOCH * e) for e in config[epochs]]
        got = [optim.lr * lr_factor(optim, step, EPOCH * c["epochs"]) for step in steps]
        close(np.array(got), case.arrays[key], 1e-12, 1e-15, key)
    for key in (key for key in config if key.startswith("cosine")):
        lr, low, epochs, per_epoch, more = config[key]
        warmup = more.get("warmup_steps", more["warmup_epochs"] * per_epoch)
        optim = Optim(lr=lr, schedule="cosine", warmup=warmup, ramp="linspace", floor=low / lr)
        total = epochs * per_epoch
        got = [lr * lr_factor(optim, step, total) for step in range(total)]
        close(np.array(got), case.arrays[key], 1e-12, 1e-15, key)


def check_groups(case: Case) -> None:
    models = {name: v for name, v in case.spec.items() if isinstance(v, dict) and "groups" in v}
    assert models
    for name, entry in models.items():
        config = entry["config"]
        is_tiny = "embed_dim" in config
        shape = shape_of({"norm_eps": 1e-6, **config}) if is_tiny else published(name)
        classes = config.get("num_classes", 1000)
        with torch.device("meta"):
            network = Classifier(shape, classes)
        decay = config["weight_decay"]
        groups = layered(network, decay, config["layer_decay"], "finetune")
        of = {id(p): (g["lr_scale"], g["weight_decay"]) for g in groups for p in g["params"]}
        parameters = dict(network.named_parameters())
        names = official_keys(network)
        wanted = entry["groups"]
        assert set(wanted) == set(names), name
        for key, want in wanted.items():
            assert np.allclose(of[id(parameters[names[key]])], want, 1e-9), (key, want)


def check_dense_groups(case: Case) -> None:
    config = case.spec["config"]
    rule = "segment" if case.name.startswith("seg") else "detect"
    with torch.device("meta"):
        network = Classifier(published(config["model"]), 1000)
    sizes = {key: network.state_dict()[name].ndim for key, name in official_keys(network).items()}
    for key, want in case.spec["groups"].items():
        own = key.removeprefix("backbone.")
        rate, layers = config["layer_decay_rate"], config["num_layers"]
        backbone = network.backbone
        assert isinstance(backbone, HiViT)
        scale, decays = scale_and_decay(own, sizes[own], backbone, rate, rule, layers)
        got = (scale, config["weight_decay"] if decays else 0.0)
        assert np.allclose(got, want, 1e-9), (key, got, want)


def check_sincos(case: Case) -> None:
    for dim, side in case.spec["config"]["cases"]:
        close(sincos_2d(dim, side, side), case.arrays[f"d{dim}_g{side}"], 0, 1e-6)
    size, rows = case.spec["config"]["slice"].split(": rows ")
    dim, side = map(int, size.split(","))
    some = sincos_2d(dim, side, side)[list(map(int, rows.split(",")))]
    close(some, case.arrays[f"d{dim}_g{side}_rows"], 0, 1e-6)


def check_table(case: Case) -> None:
    config = case.spec["config"]
    sides = [(config[key], config[key]) for key in ("grid_from", "grid_to")]
    close(resize_bias(given(case, "table"), *sides), case.arrays["resized"], 0, 1e-5)


CHECKS = {
    "blockwise_masks": check_masks,
    "lr_schedules": check_schedules,
    "layer_decay_groups": check_groups,
    "seg_layer_decay": check_dense_groups,
    "det_layer_decay": check_dense_groups,
    "sincos_pos_embed": check_sincos,
    "rpe_table_resize": check_table,
}
"""First words of a case's name -> its check."""
