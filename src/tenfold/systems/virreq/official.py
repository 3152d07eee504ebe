"""Checkpoints of the authors' whole-to-part network, in the layout of their mmsegmentation.

None were published; the layout follows from the code (chufengt/ViRReq,
whole-to-part-semantic-segmentation). A file holds CLIP whole, whose text tower `text_tower` finds;
a file of an encoder alone (ImageNet, of SegFormer's authors or of mmsegmentation) is read too.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from tenfold.weights import efficientnet
from tenfold.weights.containers import read_checkpoint, shown
from tenfold.weights.keymap import Converted, KeyMap, Rule, require_shape, shape_of
from tenfold.weights.mit import (
    MitLayout,
    describe_mit,
    from_mmseg,
    to_mmseg,
)

CLASSIFIER = "decode_head.CLIP_CLS_SEG."
CLIP = CLASSIFIER + "clip_model."
STEM = "patch_embed1.proj.weight"
LITE = "backbone.conv_stem.weight"
"""A key of EfficientNet-Lite0's weights under our names."""

SEMANTIC_NAMES = (
    "road", "sidewalk", "building", "wall", "fence", "pole", "traffic_light", "traffic_sign",
    "vegetation", "terrain", "sky", "person", "rider", "car", "truck", "bus", "train",
    "motorcycle", "bicycle",
)  # fmt: skip
PART_NAMES = (
    "torso", "head", "arm", "leg", "window", "wheel", "light", "license_plate", "chassis",
)  # fmt: skip
"""Texts of the official network of Cityscapes Panoptic Parts, in the order of its logits."""


@dataclass(frozen=True)
class Layout:
    """Sizes of a file's network, by the shapes of its tensors."""

    encoder: MitLayout | None
    """None is EfficientNet-Lite0, of one size."""
    channels: int = 0
    """Of the head; 0 where the file has an encoder alone."""
    dim: int = 0
    """Numbers of a text."""


def read_official(path: Path) -> dict[str, Tensor]:
    """The tensors of an official file under our names, those that we do not know under theirs.

    Raises:
        ValueError: It is no such network.
    """
    return known(path, read_checkpoint(path))[0]


def known(path: Path, state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], Layout]:
    """`ours` for the tensors of a file, and its layout; the error of another one names it."""
    found = ours(state)
    try:
        return found, describe(found)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def ours(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """An official state under our names; what is not known keeps its name."""
    if efficientnet.STEM in state:
        given = efficientnet.rules("backbone.")
        return {_renamed(key, given): value for key, value in state.items()}
    found = from_mmseg(state)
    if STEM in found:  # a common prefix was taken off, or there was none
        found = {
            f"backbone.{key}" if re.match(r"(patch_embed|block|norm)[1-4]\.", key) else key: value
            for key, value in found.items()
        }
    is_ours = re.compile(re.escape(CLASSIFIER) + r"(?!clip_model\.)")
    return {is_ours.sub("classifier.", key): value for key, value in found.items()}


def _renamed(key: str, rules: Sequence[Rule]) -> str:
    for rule in rules:
        key = re.sub(rf"^{rule.pattern}$", rule.replacement, key)
    return key


def theirs(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state of our network under official names; the table of texts, which they lack, is left."""
    found = {
        re.sub(r"^classifier\.", CLASSIFIER, key): value
        for key, value in state.items()
        if not key.startswith("texts.")
    }
    return to_mmseg(found)


def describe(state: Mapping[str, Tensor]) -> Layout:
    """The sizes of a state of `ours`; ValueError if it is another network."""
    if LITE in state:
        return Layout(None)
    if f"backbone.{STEM}" not in state:
        have = ", ".join(shown(key) for key in list(state)[:4])
        raise ValueError(f"it has no Mix Transformer; its keys are {have}")
    encoder = describe_mit(state, "backbone.")
    if not any(key.startswith("decode_head.") for key in state):
        return Layout(encoder)
    dim, channels = shape_of(state, "classifier.channel_transform.conv.weight", 4)[:2]
    levels = len(encoder.dims)
    require_shape(state, "decode_head.fusion_conv.conv.weight", channels, levels * channels, 1, 1)
    for level, width in enumerate(encoder.dims):
        require_shape(state, f"decode_head.convs.{level}.conv.weight", channels, width, 1, 1)
    return Layout(encoder, channels, dim)


def convert(state: Mapping[str, Tensor], target: Mapping[str, tuple[int, ...]]) -> Converted:
    """A state of `ours` for a network (key -> shape), every key of both sides accounted for.

    Of a file that has an encoder alone, the keys of head and classifier keep their values, as the
    table of texts always does.
    """
    has_head = describe(state).channels > 0
    ignored = {
        re.escape(CLIP) + ".*": "CLIP, whose texts are encoded once (--text.clip)",
        r"head\.(?:weight|bias)": "the ImageNet classifier",
        r"decode_head\.conv_seg\..*": "the classifier that the text classifier replaces",
        efficientnet.CLASSIFIER: "the ImageNet classifier",
        r"backbone\.(?:conv_head|bn1|blocks\.15)\..*": "of EfficientNet-Lite0's classifier",
    }
    rules = [Rule(r"((?:backbone|decode_head|classifier)\..+)", r"\1")]
    account = KeyMap(rules, list(ignored.items())).convert(state, target)
    own = ("texts.",) if has_head else ("texts.", "decode_head.", "classifier.")
    kept = [key for key in account.missing if key.startswith(own)]
    account.missing = [key for key in account.missing if key not in kept]
    account.ignored += [(key, "ours; the file does not have it") for key in kept]
    return account


def text_tower(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of CLIP inside an official file, under CLIP's names; empty if there are none."""
    return {key.removeprefix(CLIP): v for key, v in state.items() if key.startswith(CLIP)}
