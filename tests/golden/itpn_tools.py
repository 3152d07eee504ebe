"""Checks of iTPN's masks, schedules, layer-wise decay and tables of positions."""

from __future__ import annotations

import re
from random import Random

import numpy as np
import torch

from golden.harness import Case
from golden.itpn_fill import given, published, shape_of
from tenfold.core.optim import Optim, lr_factor
from tenfold.nn.hivit import HiViT, Shape
from tenfold.nn.position import resize_bias, sincos_2d
from tenfold.systems.itpn.decay import layered, scale_and_decay
from tenfold.systems.itpn.masking import Blockwise
from tenfold.systems.itpn.model import Classifier
from tenfold.systems.itpn.official import official_keys

EPOCH = 1000
"""Steps an epoch with which the cases' fractions of epochs are whole steps."""


def check_masks(case: Case) -> None:
    config = case.spec["config"]
    size = config["input_size"]
    height, width = size if isinstance(size, list) else (size, size)
    low = config.get("min_aspect", Blockwise.aspects[0])
    make = Blockwise(
        height,
        width,
        config["num_masking_patches"],
        config["min_num_patches"],
        config.get("max_num_patches") or 0,
        (low, config.get("max_aspect") or 1 / low),
    )
    masks = np.stack([make.draw(Random(seed)) for seed in config["seeds"]])
    got = {"masks": masks.astype(np.uint8), "counts": masks.sum((1, 2)).astype(np.int32)}
    case.compare_all(got)


def check_schedules(case: Case) -> None:
    """Rates at fractions of epochs, which are listed in the same order, and tables of all steps."""
    config, limits = case.spec["config"], (1e-12, 1e-15)
    at = iter([value for key, value in config.items() if key.startswith("epochs")])
    for key, c in config.items():
        if isinstance(c, dict):
            optim = Optim(
                lr=c["lr"], schedule="cosine", warmup=round(EPOCH * c["warmup_epochs"]),
                ramp="zero", floor=c["min_lr"] / c["lr"],
            )  # fmt: skip
            steps = [round(EPOCH * e) for e in next(at)]
            got = [optim.lr * lr_factor(optim, step, EPOCH * c["epochs"]) for step in steps]
            case.compare(key, np.array(got), *limits)
        elif not key.startswith("epochs"):
            lr, low, epochs, per_epoch, more = c
            warmup = more.get("warmup_steps", more.get("warmup_epochs", 0) * per_epoch)
            optim = Optim(lr=lr, schedule="cosine", warmup=warmup, ramp="linspace", floor=low / lr)
            total = epochs * per_epoch
            got = [lr * lr_factor(optim, step, total) for step in range(total)]
            case.compare(key, np.array(got), *limits)


def shape_of_keys(keys: set[str]) -> Shape:
    """A classifier's `Shape` with these official names; how wide it is no name says."""

    def numbers(pattern: str) -> list[int]:
        return sorted({int(m[1]) for key in keys if (m := re.match(pattern, key))})

    (first, second), last = numbers(r"blocks\.(\d+)\.reduction\."), numbers(r"blocks\.(\d+)\.")[-1]
    return Shape(
        embed_dim=64,
        depths=(first, second - first - 1, last - second),
        num_heads=4,
        bias="full" if any("bias_table" in key for key in keys) else "none",
        layer_scale=0.1 if any(".gamma_" in key for key in keys) else 0.0,
    )


def check_groups(case: Case) -> None:
    models = {name: v for name, v in case.spec.items() if isinstance(v, dict) and "groups" in v}
    for name, entry in models.items():
        config, wanted = entry["config"], entry["groups"]
        is_tiny = "embed_dim" in config
        shape = shape_of({"norm_eps": 1e-6, **config}) if is_tiny else shape_of_keys(set(wanted))
        with torch.device("meta"):
            network = Classifier(shape, config.get("num_classes", 1000))
        decay = config["weight_decay"]
        groups = layered(network, decay, config["layer_decay"], "finetune")
        of = {id(p): (g["lr_scale"], g["weight_decay"]) for g in groups for p in g["params"]}
        parameters = dict(network.named_parameters())
        names = official_keys(network)
        assert set(wanted) == set(names), name
        for key, want in wanted.items():
            assert np.allclose(of[id(parameters[names[key]])], want, 1e-9), (key, want)


def check_dense_groups(case: Case) -> None:
    config = case.spec["config"]
    rules, source = {"seg": "segment", "det": "detect"}, case.spec["source"]["file"]
    assert source.split("/")[0] in rules, f"{case.json_path}: neither det nor seg: {source!r}"
    rule = rules[source.split("/")[0]]
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
    config, got = case.spec["config"], {}
    for dim, side in config["cases"]:
        got[f"d{dim}_g{side}"] = sincos_2d(dim, side, side)
    if "slice" in config:
        size, rows = config["slice"].split(": rows ")
        dim, side = map(int, size.split(","))
        some = sincos_2d(dim, side, side)[list(map(int, rows.split(",")))]
        got[f"d{dim}_g{side}_rows"] = some
    case.compare_all(got, {"rtol": 0.0, "atol": 1e-6})


def check_table(case: Case) -> None:
    config = case.spec["config"]
    grids = (config[key] for key in ("grid_from", "grid_to"))
    sides = [tuple(grid) if isinstance(grid, list) else (grid, grid) for grid in grids]
    got = {"resized": resize_bias(given(case, "table"), *sides)}
    case.compare_all(got, {"rtol": 0.0, "atol": 1e-5})


CHECKS = {
    "masks": check_masks,
    "schedules": check_schedules,
    "groups": check_groups,
    "dense_groups": check_dense_groups,
    "sincos": check_sincos,
    "table": check_table,
}
