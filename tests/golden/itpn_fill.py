"""Fills an iTPN case: official weights by their rule, through the key map, into our modules."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from golden.harness import HERE, Case
from tenfold.nn.hivit import Shape
from tenfold.systems.itpn.official import official_keys
from tenfold.weights.hivit import Layout, convert, describe


def given(case: Case, role: str) -> Tensor:
    """An input of the case."""
    return torch.from_numpy(case.input(role))


def note_numbers(case: Case, role: str, pattern: str) -> list[float]:
    """The numbers that an input's note states, such as the 0.4 of "mask = value < 0.4"."""
    note = case.find(role).note
    found = re.search(pattern.replace("#", r"(-?\d+(?:\.\d+)?)"), note)
    assert found, f"{case.json_path}: the note {note!r} of {role} says nothing of {pattern!r}"
    return [float(group) for group in found.groups()]


def keys_of(case: Case) -> list[list]:
    """[key, shape] of the case's tensors: its own list, or that of an official model beside it."""
    if "state" in case.spec:
        return case.spec["state"]
    name = Path(case.spec["config"]["keys_file"]).name
    files = [folder / name for folder in (case.json_path.parent, HERE / "itpn")]
    file = next((file for file in files if file.exists()), None)
    assert file, f"{case.json_path} needs the list of keys {name}; it is not at {files}"
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
    scale, state = case.spec["scale"], {}
    for key, shape in keys_of(case):
        v = case.rule(key, shape, scale)
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
    found = [shape for name, shape in shapes.items() if model.startswith(name)]
    assert found, f"unknown official model {model!r}; known: {', '.join(shapes)}"
    return found[0]


def layout_of(case: Case) -> Layout:
    """What the case's keys and shapes say."""
    return describe({key: torch.empty(shape, device="meta") for key, shape in keys_of(case)})


def shape_of_layout(layout: Layout) -> Shape:
    """Our `Shape` of what a file's keys say."""
    return Shape(
        embed_dim=layout.embed_dim,
        depths=layout.depths,
        num_heads=layout.num_heads,
        patch_size=layout.patch_size,
        grid=layout.grid,
        bias=layout.bias,
        bias_grid=layout.bias_grid,
        stem_ratio=layout.stem_ratio,
        ratio=layout.ratio,
        layer_scale=0.1 if layout.layer_scale else 0.0,
        fast=layout.family == "fast",
        conv_stem=layout.conv_stem,
        has_class_token=layout.class_token,
        fpn_dim=layout.fpn_dim,
        fpn_depth=layout.fpn_depth,
        fpn_levels=layout.fpn_levels,
    )


def shape_for(case: Case) -> Shape:
    """Our `Shape` of a case: of its constructor arguments, else of the keys that it names."""
    config = case.spec["config"]
    if "embed_dim" in config:
        return shape_of(config)
    shape = replace(shape_of_layout(layout_of(case)), eps=config["norm_eps"])
    return replace(shape, num_heads=config.get("num_heads", shape.num_heads))


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
    num_outs = config.get("num_outs", 1)
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
        fpn_dim=config.get("fpn_dim", 256) if num_outs > 1 else 0,
        fpn_depth=config.get("fpn_depth", 2),
        fpn_levels=2 if num_outs == 2 else 3,
        eps=config["norm_eps"],
    )
