"""Weights of CondInst and BoxInst as AdelaiDet saves them, and of a ResNet as detectron2 does.

aim-uofa/AdelaiDet and what is built on it (chufengt/APIS, chufengt/ViRReq, whose classifier of
texts is known too). Their networks read BGR; ours read RGB, so the first kernels are turned.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from .keymap import Converted, KeyMap, Rule

BOTTOM = r"(?:(?:backbone\.)?bottom_up\.)?"
HEAD = r"proposal_generator\.fcos_head\."


def _turned(kernel: Tensor) -> Tensor:
    """BGR for RGB, or back."""
    return kernel.flip(1)


def _rules() -> list[Rule]:
    found = [
        Rule(rf"{BOTTOM}stem\.conv1\.weight", "backbone.conv1.weight", _turned, _turned),
        Rule(rf"{BOTTOM}stem\.conv1\.norm\.(\w+)", r"backbone.bn1.\1"),
    ]
    for stage in range(2, 6):
        theirs, ours = rf"{BOTTOM}res{stage}\.(\d+)\.", rf"backbone.layer{stage - 1}.\1."
        found += [
            Rule(rf"{theirs}conv(\d)\.weight", rf"{ours}conv\2.weight"),
            Rule(rf"{theirs}conv(\d)\.norm\.(\w+)", rf"{ours}bn\2.\3"),
            Rule(rf"{theirs}shortcut\.weight", rf"{ours}downsample.0.weight"),
            Rule(rf"{theirs}shortcut\.norm\.(\w+)", rf"{ours}downsample.1.\2"),
        ]
    for level in range(3, 6):
        theirs, ours = rf"backbone\.fpn_(lateral|output){level}\.(\w+)", rf"\1.{level - 3}.\2"
        found.append(Rule(theirs, f"pyramid.{ours}"))
    for level in (6, 7):
        found.append(
            Rule(rf"backbone\.top_block\.p{level}\.(\w+)", rf"pyramid.coarser.{level - 6}.\1")
        )
    text = {
        "logit_scale": "scale", "bias_lang": "text_bias", "bias0": "bias",
        r"text_porj\.weight": "project.weight", r"text_porj\.bias": "project.bias",
    }  # fmt: skip
    found += [
        Rule(rf"{HEAD}cls_logits\.{theirs}", f"fcos.cls_logits.{ours}")
        for theirs, ours in text.items()
    ]
    return [
        *found,
        Rule(rf"{HEAD}scales\.(\d+)\.scale", r"fcos.scales.\1"),
        Rule(rf"{HEAD}((?:\w+_tower|cls_logits|bbox_pred|ctrness)\..+)", r"fcos.\1"),
        Rule(r"controller\.(\w+)", r"fcos.controller.\1"),
        Rule(r"mask_branch\.((?:refine|tower)\..+)", r"branch.\1"),
    ]


IGNORED = [
    (r"mask_head\.sizes_of_interest", "ends of the levels' ranges, a setting here"),
    (r"mask_head\._iter", "steps done, which the training counts here"),
    (r"mask_branch\.(?:seg_head|logits)\..+", "a semantic loss of training"),
    (r"pixel_(?:mean|std)", "a setting here"),
    (rf"{BOTTOM}(?:stem\.)?fc\..+|linear\..+", "a classifier of ImageNet"),
]
LAYOUT = KeyMap(_rules(), IGNORED)


@dataclass(frozen=True)
class CondInstLayout:
    """Sizes of a network, by the shapes of its tensors."""

    classes: int
    """0 for a classifier of texts."""
    width: int
    """Channels of the ResNet's stem."""
    depths: tuple[int, ...]
    channels: int
    convs: int
    extra: int
    """Levels coarser than the backbone's."""
    features: int
    """Of masks."""
    numbers: int
    """Of each mask's network."""
    branch_channels: int
    branch_convs: int


def describe_condinst(state: Mapping[str, Tensor]) -> CondInstLayout:
    """Sizes of a network in AdelaiDet's layout; ValueError if it is none."""
    head, branch = "proposal_generator.fcos_head.", "mask_branch."
    stem = "backbone.bottom_up.stem.conv1.weight"
    channels = _shape(state, "controller.weight", 4)[1]
    is_text = f"{head}cls_logits.text_porj.weight" in state
    stages = [_count(state, rf"backbone\.bottom_up\.res{n}\.(\d+)\.conv1\.") for n in range(2, 6)]
    branch_convs = _count(state, rf"{branch}tower\.(\d+)\.weight", rf"{branch}tower\.(\d+)\.0\.")
    last = _shape(state, f"{branch}tower.{branch_convs - 1}.weight", 4)
    return CondInstLayout(
        classes=0 if is_text else _shape(state, f"{head}cls_logits.weight", 4)[0],
        width=_shape(state, stem, 4)[0],
        depths=tuple(stages),
        channels=channels,
        convs=_count(state, rf"{head}bbox_tower\.(\d+)\.weight") // 2,
        extra=sum(f"backbone.top_block.p{level}.weight" in state for level in (6, 7)),
        features=last[0],
        numbers=_shape(state, "controller.weight", 4)[0],
        branch_channels=last[1],
        branch_convs=branch_convs - 1,
    )


def convert_condinst(
    state: Mapping[str, Tensor], target: Mapping[str, tuple[int, ...]]
) -> Converted:
    """Tensors of a file under our names, with an account of every key of both sides."""
    account = LAYOUT.convert(state, target)
    # frozen norms have no such counters, which nothing reads where the momentum is a number
    account.missing = [k for k in account.missing if not k.endswith("num_batches_tracked")]
    return account


def _shape(state: Mapping[str, Tensor], key: str, ndim: int) -> tuple[int, ...]:
    if key not in state:
        have = ", ".join(ascii(name[:40]) for name in list(state)[:4])
        raise ValueError(f"no CondInst in AdelaiDet's layout: it has no {key}, but {have}")
    shape = tuple(state[key].shape)
    if len(shape) != ndim or not all(shape):
        raise ValueError(f"{key} is of shape {shape}; {ndim} dimensions are expected")
    return shape


def _count(state: Mapping[str, Tensor], *patterns: str) -> int:
    """How many numbers there are at a place of the keys."""
    found = {int(m[1]) for key in state for p in patterns if (m := re.match(p, key))}
    if not found:
        raise ValueError(f"no CondInst in AdelaiDet's layout: no key fits {patterns[0]}")
    return len(found)
