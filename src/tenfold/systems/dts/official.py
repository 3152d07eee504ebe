"""Checkpoints of SegFormer (NVlabs/SegFormer) and of DAFormer, HRDA and MIC (lhoyer).

The ImageNet files `mit_b*.pth` hold an encoder and a classifier. A SegFormer file holds a network,
and what is saved while DAFormer, HRDA and MIC train holds three: student, teacher, and the frozen
ImageNet network of the feature distance. transformers has SegFormer's weights under other names.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from tenfold.nn.aspp import DILATIONS
from tenfold.nn.mit import SIZES, MitSize
from tenfold.weights.containers import check_tensor, load_tensors, read_checkpoint, shown
from tenfold.weights.keymap import (
    Converted,
    KeyMap,
    Rule,
    numbers_of,
    require_shape,
    shape_of,
)
from tenfold.weights.mit import describe_mit

Which = Literal["student", "teacher"]
Head = Literal["none", "daformer", "segformer", "hrda"]

PREFIXES: dict[Which, str] = {"student": "model.", "teacher": "ema_model."}
"""Prefixes of the networks of a training checkpoint. The official test script deletes the text
`model.` from all keys (tools/test.py), so that the student is what it evaluates."""
OTHERS = {
    r"imnet_model\..*": "the frozen ImageNet network of the feature distance",
    r"mic\..*": "a teacher of MIC's own",
}
STEM = "patch_embed1.proj.weight"


@dataclass(frozen=True)
class Layout:
    """Sizes of a file's network, by the shapes of its tensors."""

    encoder: MitSize
    ratio: float
    """Hidden channels of the MLPs by those of the stage."""
    head: Head
    num_classes: int = 0
    channels: int = 0
    embed_dim: int = 0
    """Channels of each level before they are fused."""
    attention_dim: int = 0
    """Of HRDA's scale attention."""
    attention_classes: int = 0
    separable: bool = True
    pool: bool = False
    dilations: tuple[int, ...] = ()

    @property
    def name(self) -> str:
        """The published encoder of these sizes (b0 .. b5), or empty."""
        return next((name for name, size in SIZES.items() if size == self.encoder), "")


def read_official(path: Path, which: Which = "student") -> dict[str, Tensor]:
    """The tensors of an official file, read without running anything that it holds.

    Of a training checkpoint the student's or the teacher's come without their prefix; those of the
    other networks keep theirs, so that `convert` accounts for them.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}; give a .pth of SegFormer, DAFormer, HRDA or MIC")
    is_safe = path.suffix == ".safetensors"
    content = read_checkpoint(path) if is_safe else load_tensors(path)
    for name in ("state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(name), Mapping):
            content = content[name]
            break
    if not isinstance(content, Mapping):
        raise ValueError(f"{path} holds a {type(content).__name__}, not a dictionary of tensors")
    state = {
        str(key).removeprefix("module."): value
        for key, value in content.items()
        if isinstance(value, Tensor)
    }
    try:
        found = chosen(from_transformers(state), which)
        describe(found)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    kept = {key for key in found if key.startswith(("backbone.", "decode_head."))}
    for key, value in found.items():
        if key in kept or re.match(r"patch_embed|block|norm", key):
            check_tensor(path, key, value)
            found[key] = value.float() if value.is_floating_point() else value
    return found


TRANSFORMERS = (
    (r"^(?:segformer\.)?(?:encoder\.)?(?=patch_embeddings|block|layer_norm)", "backbone."),
    (r"^(backbone\.)patch_embeddings\.(\d)", r"\1patch_embed+\2"),
    (r"^(backbone\.)layer_norm\.(\d)", r"\1norm+\2"),
    (r"^(backbone\.)block\.(\d)", r"\1block+\2"),
    (r"layer_norm_?", "norm"),
    (r"attention\.self\.query", "attn.q"),
    (r"attention\.output\.dense", "attn.proj"),
    (r"attention\.self", "attn"),
    (r"mlp\.dense", "mlp.fc"),
    (r"^decode_head\.(?:linear_c|linear_projections)\.(\d)", r"decode_head.linear_c+\1"),
    (r"^decode_head\.linear_fuse\.", "decode_head.linear_fuse.conv."),
    (r"^decode_head\.batch_norm\.", "decode_head.linear_fuse.bn."),
    (r"^decode_head\.classifier\.", "decode_head.linear_pred."),
    (r"^classifier\.", "head."),
)
"""Parts of names in transformers' models/segformer, and the official; +N is the number after N."""


def from_transformers(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The official names for a state of transformers' SegFormer; any other state as it is.

    Keys and values are one tensor there.
    """
    if not any(re.match(r"(?:segformer\.)?(?:encoder\.)?patch_embeddings", key) for key in state):
        return dict(state)
    found: dict[str, Tensor] = {}
    for key, value in state.items():
        for pattern, name in TRANSFORMERS:
            key = re.sub(pattern, name, key)
        found[re.sub(r"\+(\d)", lambda match: str(int(match[1]) + 1), key)] = value
    for key in [key for key in found if ".attn.key." in key]:
        if (other := key.replace(".key.", ".value.")) in found:
            both = torch.cat([found.pop(key), found.pop(other)])
            found[key.replace(".key.", ".kv.")] = both
    return found


def chosen(state: Mapping[str, Tensor], which: Which) -> dict[str, Tensor]:
    """A state whose student or teacher has lost its prefix; a state of one network as it is."""
    networks = [name for name, p in PREFIXES.items() if any(key.startswith(p) for key in state)]
    if not networks:
        return dict(state)
    if which not in networks:
        raise ValueError(f"it holds no {which}, but {' and '.join(networks)}; ask for that")
    return {key.removeprefix(PREFIXES[which]): value for key, value in state.items()}


def describe(state: Mapping[str, Tensor]) -> Layout:
    """The sizes of a state of `chosen`; ValueError if it is another network."""
    prefix = "" if STEM in state else "backbone."
    if prefix + STEM not in state:
        have = ", ".join(shown(key) for key in list(state)[:4])
        raise ValueError(
            f"it has no {STEM}, so no Mix Transformer (a vision transformer goes with "
            f"--model.encoder hivit or vit); its keys are {have}"
        )
    found = describe_mit(state, prefix)
    encoder, ratio = MitSize(*found[:4]), found.ratio
    if not any(key.startswith("decode_head.") for key in state):
        return Layout(encoder, ratio, "none")
    if "decode_head.linear_pred.weight" in state:
        classes, channels = shape_of(state, "decode_head.linear_pred.weight", 4)[:2]
        require_shape(state, "decode_head.linear_fuse.conv.weight", channels, 4 * channels, 1, 1)
        return Layout(encoder, ratio, "segformer", classes, channels, channels)
    attention = _head(state, "decode_head.scale_attention.")
    name: Head = "daformer" if attention is None else "hrda"
    own = _head(state, "decode_head." if attention is None else "decode_head.head.")
    if own is None:
        raise ValueError("its decode_head is neither SegFormer's nor DAFormer's nor HRDA's")
    classes, channels, embed_dim = own
    fuse = f"decode_head.{'' if attention is None else 'head.'}fuse_layer."
    branches = numbers_of(state, rf"{re.escape(fuse)}aspp_modules\.(\d+)\.")
    if branches and len(branches) != len(DILATIONS):
        raise ValueError(
            f"its head has {len(branches)} branches of context, whose dilations no shape says; the "
            f"published has {len(DILATIONS)}: {DILATIONS}"
        )
    return Layout(
        encoder, ratio, name, classes, channels, embed_dim,
        attention_dim=0 if attention is None else attention[1],
        attention_classes=0 if attention is None else attention[0],
        separable=f"{fuse}aspp_modules.1.conv.weight" not in state,
        pool=f"{fuse}image_pool.1.conv.weight" in state,
        dilations=DILATIONS if branches else (),
    )  # fmt: skip


def _head(state: Mapping[str, Tensor], prefix: str) -> tuple[int, int, int] | None:
    """(classes, channels, channels of a level) of a head of DAFormer's kind, if there is one."""
    if f"{prefix}embed_layers.0.proj.weight" not in state:
        return None
    classes, channels = shape_of(state, f"{prefix}conv_seg.weight", 4)[:2]
    embed_dim, fuse = shape_of(state, f"{prefix}embed_layers.0.proj.weight", 2)[0], "fuse_layer."
    if f"{prefix}{fuse}conv.weight" in state:
        require_shape(state, f"{prefix}{fuse}conv.weight", channels, 4 * embed_dim, 1, 1)
    else:
        key = f"{prefix}{fuse}aspp_modules.0.conv.weight"
        require_shape(state, key, channels, 4 * embed_dim, 1, 1)
        width = shape_of(state, f"{prefix}{fuse}bottleneck.conv.weight", 4)[1]
        require_shape(state, f"{prefix}{fuse}bottleneck.conv.weight", channels, width, 3, 3)
    return classes, channels, embed_dim


def key_map(head: Head) -> KeyMap:
    """Official names and ours, which are the same but for an encoder that is alone."""
    part = r"((?:patch_embed|block|norm)[1-4]\..+)"
    ignored = {r"head\.(?:weight|bias)": "the ImageNet classifier"} | OTHERS
    ignored[r"model\..*"] = "the student; the teacher was asked for"
    ignored[r"ema_model\..*"] = "the teacher; the student was asked for"
    ignored[r"auxiliary_head\..*"] = "a head that only training has"
    if head == "segformer":
        ignored[r"decode_head\.conv_seg\..*"] = "SegFormer's code never uses it"
    rules = [Rule(r"((?:backbone|decode_head)\..+)", r"\1"), Rule(part, r"backbone.\1")]
    return KeyMap(rules, list(ignored.items()))


def convert(state: Mapping[str, Tensor], target: Mapping[str, tuple[int, ...]]) -> Converted:
    """A state of `read_official` for a network of `backbone` and `decode_head` (key -> shape).

    Every key of both sides is accounted for. Of a file that has an encoder alone, the head's keys
    of the target are ignored: they keep their values.
    """
    head = describe(state).head
    account = key_map(head).convert(state, target)
    if head == "none":
        ours = [key for key in account.missing if key.startswith("decode_head.")]
        account.missing = [key for key in account.missing if key not in ours]
        account.ignored += [(key, "ours; the file has an encoder alone") for key in ours]
    return account
