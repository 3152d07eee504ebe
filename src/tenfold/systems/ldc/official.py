"""Checkpoints of the code that LDC and its relatives share (icoz69/CEC-CVPR2021 @ 3a5d335).

CEC, FACT and TEEN save an encoder and class vectors; LDC (Bibikiller/LDC, both versions of its
history) adds the calibration unit and the statistics of the classes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from tenfold.weights.containers import load_tensors
from tenfold.weights.keymap import Converted, KeyMap, Rule

Kind = Literal["resnet20", "resnet18"]

PREFIX = "module."
"""Prefix that DataParallel puts before every key."""
STEM, VECTORS = "encoder.conv1.weight", "fc.weight"
"""Tensors that every such file has, and from whose shapes the size of the network follows."""
ENCODERS: dict[tuple[int, int], Kind] = {(3, 3): "resnet20", (7, 4): "resnet18"}
"""Side of the first convolution and number of stages."""
ROWS = {VECTORS: "classifier", "mem_feat": "means"}
"""Tensors with a row a class, of all classes that the benchmark will ever have."""
FIXED_COVARIANCE = 64
"""Side of `mean_cov` in version 1 of LDC, whatever the encoder: a buffer of fixed size, which the
code itself cannot load again where the features are 512."""
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


@dataclass(frozen=True)
class Size:
    """Size of a checkpoint's network, by the shapes of its tensors."""

    kind: Kind
    width: int
    """Channels of the first stage."""
    dim: int
    """Features."""
    num_classes: int
    """Rows of the classifier: all classes of the benchmark, FACT's virtual ones included."""
    has_head: bool
    """It holds LDC's covariance head `layer_6` (version 2)."""


def read_official(path: Path) -> dict[str, Tensor]:
    """The tensors of an official file, read without running anything that it holds."""
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}")
    checkpoint = load_tensors(path)
    try:
        state = official_state(checkpoint)
        size_of(state)
    except ValueError as error:
        raise ValueError(f"{path} is no checkpoint of LDC, CEC, FACT or TEEN: {error}") from error
    return state


def official_state(checkpoint: object) -> dict[str, Tensor]:
    """The tensors of a file, {params: state_dict} or a bare one, without DataParallel's prefix.

    Raises ValueError if it is something else, or holds values that no network can have.
    """
    state = checkpoint.get("params", checkpoint) if isinstance(checkpoint, Mapping) else None
    if not isinstance(state, Mapping) or not state:
        raise ValueError("it is no dictionary of tensors, nor has one under `params`")
    patterns = [rule.pattern for rule in key_map().rules]
    tensors: dict[str, Tensor] = {}
    for key, value in state.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            raise ValueError(f"{_shown(key)} is a {type(value).__name__}, not a tensor")
        name = key.removeprefix(PREFIX)
        if name in tensors:
            raise ValueError(f"it has {_shown(name)} twice, with and without the prefix {PREFIX!r}")
        _check_layout(_shown(name), value)
        if any(re.fullmatch(pattern, name) for pattern in patterns):
            _check_values(name, value)
        tensors[name] = value
    if absent := [key for key in (STEM, VECTORS) if key not in tensors]:
        raise ValueError(f"it has no {', '.join(absent)}")
    return tensors


def _shown(key: object) -> str:
    """A key from a file as it may stand in a message: short, without line breaks."""
    return ascii(str(key)[:80])


def _check_layout(key: str, value: Tensor) -> None:
    """Refuse a tensor that is not plain numbers, or claims more of them than there are."""
    if value.layout != torch.strided or value.is_quantized or value.device.type != "cpu":
        raise ValueError(f"{key} is sparse, quantised or has no data; save it as a plain tensor")
    if value.numel() * value.element_size() > value.untyped_storage().nbytes():
        raise ValueError(
            f"{key} of shape {tuple(value.shape)} has only {value.untyped_storage().nbytes()} "
            "bytes of data (an expanded tensor?); save a copy made with .clone()"
        )


def _check_values(key: str, value: Tensor) -> None:
    """Refuse numbers that no network can have."""
    if key.endswith("num_batches_tracked"):
        return
    if value.dtype not in FLOATS:
        raise ValueError(f"{key} holds {value.dtype}, not floating-point numbers")
    if not torch.isfinite(value).all():
        raise ValueError(f"{key} holds values that are not finite; without it the rest can be read")
    if key.endswith("running_var") and (value < 0).any():
        raise ValueError(f"{key} holds a negative variance")


def key_map() -> KeyMap:
    """Official names and ours; `convert` also cuts rows and sorts out what cannot be used."""
    norm = r"(?:weight|bias|running_mean|running_var|num_batches_tracked)"
    layer = r"(encoder\.layer[1-4]\.\d+\."
    rules = {
        r"(encoder\.conv1\.weight)": r"\1",
        rf"(encoder\.bn1\.{norm})": r"\1",
        layer + r"(?:conv[12]|downsample\.0)\.weight)": r"\1",
        layer + rf"(?:bn[12]|downsample\.1)\.{norm})": r"\1",
        r"fc\.weight": "classifier",
        r"(layer[124])\.0\.weight": r"unit.\1.weight",
        r"(layer_6\.[02]\.weight)": r"unit.\1",
        r"mem_feat": "means",
        r"mean_cov": "covariance",
    }
    ignored = {
        r"layer3\.weight|layer_out[23]\.0\.weight|gates?": "LDC's code never uses it",
        r"slf_attn\..*": "CEC's attention between classes, which LDC does not have",
        r"dummy_orthogonal_classifier\.weight": "FACT's virtual classes",
    }
    return KeyMap([Rule(*names) for names in rules.items()], list(ignored.items()))


def kind_of(state: Mapping[str, Tensor]) -> Kind:
    """Name the encoder of an official state; ValueError if it is another one."""
    stem = tuple(state[STEM].shape)
    stages = {m[1] for key in state if (m := re.match(r"encoder\.layer(\d+)\.", key))}
    kind = ENCODERS.get((stem[-1] if len(stem) == 4 else 0, len(stages)))
    if kind is None:
        raise ValueError(
            f"its first convolution has the shape {stem} and its encoder {len(stages)} stages; "
            "resnet20 has a 3 x 3 convolution and 3 stages, resnet18 7 x 7 and 4"
        )
    return kind


def size_of(state: Mapping[str, Tensor]) -> Size:
    """The size of the network of an official state; ValueError if its parts do not fit.

    A model of this size is not much larger than the state, so that building one is safe.
    """
    kind, stem, vectors = kind_of(state), tuple(state[STEM].shape), tuple(state[VECTORS].shape)
    width, stages = stem[0], 3 if kind == "resnet20" else 4
    dim = width * 2 ** (stages - 1)
    if stem[1:3] != (3, stem[3]) or len(vectors) != 2 or vectors[1] != dim or not all(vectors):
        raise ValueError(
            f"{STEM} of shape {stem} and {VECTORS} of shape {vectors} do not belong together; "
            f"{kind} needs ({width}, 3, {stem[3]}, {stem[3]}) and (classes, {dim})"
        )
    last = f"encoder.layer{stages}.0.conv2.weight"
    if last not in state or tuple(state[last].shape) != (dim, dim, 3, 3):
        got = tuple(state[last].shape) if last in state else "absent"
        raise ValueError(f"{last} is {got}; with a {VECTORS} of {vectors} it is {(dim, dim, 3, 3)}")
    return Size(kind, width, dim, vectors[0], "layer_6.0.weight" in state)


def convert(checkpoint: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> Converted:
    """An official state (of `read_official`) as that of a network whose state now is `target`.

    Of the vectors and means of classes the first rows are taken, as many as `target` has: the rest
    is of classes not yet seen or, in FACT, virtual. Whatever is left out stands in `ignored`, and
    so do those parts of `target` that the file does not have at all, which keep their values.
    """
    given = dict(checkpoint)
    ignored = _take_unusable(given, size_of(checkpoint).dim)
    for key, name in ROWS.items():
        rows = len(target[name]) if name in target else 0
        if key in given and given[key].ndim == 2 and 0 < rows < len(given[key]):
            ignored.append((f"{key}[{rows}:]", "classes that were not asked for"))
            given[key] = given[key][:rows]
    means = given.get("mem_feat")
    if means is not None and means.ndim == 2 and not means.any(1).all():
        ignored.append(("mem_feat", "rows of zeros: saved before the classes had means"))
        del given["mem_feat"]
    account = key_map().convert(given, {key: tuple(value.shape) for key, value in target.items()})
    held = {_part(key) for key in account.origin} | {"encoder", "classifier"}
    ours = [key for key in account.missing if _part(key) not in held]
    account.missing = [key for key in account.missing if key not in ours]
    account.ignored += ignored + [(key, "ours; the file has no such part") for key in ours]
    account.state = {key: value.to(target[key].dtype) for key, value in account.state.items()}
    return account


def _take_unusable(given: dict[str, Tensor], dim: int) -> list[tuple[str, str]]:
    """Remove a covariance that was never filled in or is of a fixed size, and say so."""
    covariance = given.get("mean_cov")
    if covariance is None:
        return []
    if tuple(covariance.shape) == (FIXED_COVARIANCE,) * 2 and dim != FIXED_COVARIANCE:
        reason = f"unusable: {FIXED_COVARIANCE} x {FIXED_COVARIANCE} whatever the {dim} features"
    elif not covariance.any():
        reason = "zeros: saved before the classes had a covariance"
    else:
        return []
    del given["mean_cov"]
    return [("mean_cov", reason)]


def _part(key: str) -> str:
    """The part of our network that a key belongs to; a file has a part or does not."""
    return "unit.layer_6" if key.startswith("unit.layer_6.") else key.split(".")[0]


def to_official(state: Mapping[str, Tensor], num_classes: int = 0) -> dict[str, dict[str, Tensor]]:
    """Our encoder and class vectors as CEC, FACT and TEEN load them; save it with `torch.save`.

    Their code wants a row for each of the benchmark's `num_classes` classes: those not yet seen are
    zeros, which it overwrites. 0 is as many as there are vectors. Of a classifier that tells turned
    pictures apart (`data.rotations`) the vectors of upright ones are taken.
    """
    vectors = state["classifier"]
    if "means" in state:
        vectors = vectors[:: max(1, len(vectors) // len(state["means"]))]
    if num_classes and num_classes < len(vectors):
        raise ValueError(
            f"num_classes is {num_classes}, but the state has vectors of {len(vectors)} classes; "
            "give at least as many, or 0"
        )
    unseen = vectors.new_zeros(max(num_classes - len(vectors), 0), vectors.shape[1])
    ours = {**state, "classifier": torch.cat([vectors, unseen])}
    template = {key: value for key, value in ours.items() if key.startswith("encoder.")}
    official = key_map().reversed_state(ours, {**template, VECTORS: vectors})
    return {"params": {PREFIX + key: value.detach().cpu() for key, value in official.items()}}
