"""Fills an iTPN case: official weights by their rule, through the key map, into our modules."""

from __future__ import annotations

import json
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from golden.harness import Case
from tenfold.nn.hivit import Shape
from tenfold.systems.itpn.official import official_keys
from tenfold.systems.itpn.official_layout import convert


def numbers(key: str, shape: list[int]) -> np.ndarray:
    """Standard normals of a key, float32."""
    seed = zlib.crc32(key.encode()) & 0xFFFFFFFF
    return np.random.RandomState(seed).standard_normal(shape).astype(np.float32)


def given(case: Case, name: str) -> Tensor:
    """An input of the case whose name ends so."""
    entry = next(i for i in case.spec["inputs"] if i["name"].split(".")[-1] == name)
    if entry["kind"] == "uniform":
        seed = zlib.crc32(entry["name"].encode()) & 0xFFFFFFFF
        random = np.random.RandomState(seed).random_sample(entry["shape"])
        return torch.from_numpy(random.astype(np.float32))
    return torch.from_numpy(numbers(entry["name"], entry["shape"]) * np.float32(entry["scale"]))


def keys_of(case: Case) -> list[list]:
    """[key, shape] of the case's tensors: its own list, or that of an official model beside it."""
    if "state" in case.spec:
        return case.spec["state"]
    file = case.json_path.parent / Path(case.spec["config"]["keys_file"]).name
    listed = json.loads(file.read_text())["keys"]
    return [[key, shape] for key, shape, kind in listed if kind == "float32"]


def is_norm(case: Case, key: str, shape: list[int]) -> bool:
    """Whether the rule of norm weights and layer scales holds."""
    if "norm_weight_keys" in case.spec:
        return key in case.spec["norm_weight_keys"]
    assert "every LayerNorm weight" in case.spec["norm_weight_keys_rule"]
    return len(shape) == 1 and (key.endswith(".weight") or ".gamma_" in key)


def official(case: Case) -> dict[str, Tensor]:
    """The case's weights as the official code saves them."""
    scale, state = np.float32(case.spec["scale"]), {}
    for key, shape in keys_of(case):
        v = numbers(key, shape) * scale
        if is_norm(case, key, shape):
            v = np.float32(1) + np.float32(0.1) * v
        state[key] = torch.from_numpy(v)
    for key, shape in case.spec.get("kept_buffers", []):
        state[key] = torch.zeros(shape, dtype=torch.int64)
    return state


def load(module: nn.Module, state: dict[str, Tensor]) -> None:
    """Weights into a module; every key of both sides is accounted for."""
    names = official_keys(module)
    target = {key: tuple(module.state_dict()[name].shape) for key, name in names.items()}
    account = convert(state, target)
    found = account.require_complete()
    module.load_state_dict({names[key]: value for key, value in found.items()})


def published(model: str) -> Shape:
    """Our `Shape` of an official pixel classifier, by the first words of its name."""
    shapes = {
        "itpn_base": Shape(embed_dim=512, depths=(3, 3, 24), num_heads=8, bias="full"),
        "itpn_large": Shape(embed_dim=768, depths=(2, 2, 40), num_heads=12, bias="full"),
    }
    return next(shape for name, shape in shapes.items() if model.startswith(name))


def shape_of(config: dict) -> Shape:
    """Our `Shape` of a case's constructor arguments."""
    side = config["img_size"] // config["patch_size"]
    first = config.get("mlp_depth1", config.get("mlp_depth", config.get("depth_stage1")))
    second = config.get("mlp_depth2", config.get("mlp_depth", config.get("depth_stage2")))
    fast = bool(config.get("subln"))
    bias = "full" if config.get("rpe") else "none"
    if config.get("use_shared_decoupled_rel_pos_bias"):
        bias = "shared-decoupled"
    elif config.get("use_shared_rel_pos_bias"):
        bias = "shared"
    elif config.get("use_rel_pos_bias"):
        bias = "full-cls"
    has_neck = config.get("num_outs", 1) > 1
    return Shape(
        embed_dim=config["embed_dim"],
        depths=(first, second, config["depth"]),
        num_heads=config["num_heads"],
        patch_size=config["patch_size"],
        grid=(side, side),
        bias=bias,
        stem_ratio=config.get("bridge_mlp_ratio", 3.0),
        ratio=config.get("mlp_ratio", 4.0),
        layer_scale=config.get("init_values") or 0.0,
        fast=fast,
        conv_stem=bool(config.get("convmlp", True)),
        has_class_token=bool(config.get("cls_token")),
        fpn_dim=config.get("fpn_dim", 256) if has_neck else 0,
        fpn_depth=config.get("fpn_depth", 2),
        eps=config["norm_eps"],
    )
