"""Checkpoints of HiViT and iTPN (sunsmarterjie/iTPN @ 638eff4): all families and layouts."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from .keymap import Converted, KeyMap, Rule

Grid = tuple[int, int]
Bias = Literal["none", "full", "full-cls", "decomposed", "shared", "shared-decoupled"]

INDEX = r"(?:.*\.)?relative_position(?:_high|_width)?_index"
FIRST = "patch_embed.proj.weight"
HEAD_WIDTH = 64
"""Channels of an attention head in every published model."""
NECK = ("align_dim_", "split_", "block_16to8", "block_8to4", "fpn_modules")
"""Beginnings of the pyramid's names."""
ASIDE = (
    "decoder_", "mask_token", "lm_head.", "lm_cls_head.", "norm.", "norm_cls.", "cls_pt_layers.",
    "fc_norm.", "head.",
)  # fmt: skip
"""Beginnings of names that are no part of backbone or pyramid."""
CLASS_ROWS = 3
"""Rows that a bias table has more where there is a class token."""


@dataclass(frozen=True)
class Layout:
    """Family, task and sizes of a file, from its keys and shapes."""

    family: Literal["pixel", "clip", "fast"]
    kind: Literal["pretrain", "finetune", "dense"]
    """dense: a detection or segmentation backbone, pyramid without decoder or head."""
    embed_dim: int
    patch_size: int
    grid: Grid
    """Of the absolute positions."""
    bias_grid: Grid
    depths: tuple[int, int, int]
    num_heads: int
    """From bias tables where there are any, else by 64 channels a head."""
    stem_ratio: float
    ratio: float
    bias: Bias
    layer_scale: bool
    class_token: bool
    conv_stem: bool
    fpn_dim: int = 0
    fpn_depth: int = 1
    fpn_levels: int = 3
    """Of the pyramid if there is one: 2 has no finest level."""
    decoder_dim: int = 0
    decoder_depth: int = 0
    teacher_dim: int = 0
    num_classes: int = 0


def is_neck(key: str) -> bool:
    """Return True if an official name belongs to the pyramid."""
    return key.startswith(NECK)


def _square(count: int, what: str) -> Grid:
    side = math.isqrt(max(count, 0))
    if side < 1 or side * side != count:
        raise ValueError(f"{what} has {count} rows, which make no square grid")
    return side, side


def _numbers(state: Mapping[str, Tensor], pattern: str) -> list[int]:
    return sorted({int(m[1]) for key in state if (m := re.match(pattern, key))})


def describe(state: Mapping[str, Tensor]) -> Layout:
    """The layout of a file; ValueError if it is no iTPN, or its parts do not fit."""
    table = "absolute_pos_embed" if "absolute_pos_embed" in state else "pos_embed"
    if table not in state or FIRST not in state or not _numbers(state, r"blocks\.(\d+)\."):
        have = ", ".join(ascii(key[:40]) for key in list(state)[:4])
        raise ValueError(
            f"the file is no iTPN checkpoint: it lacks {table}, {FIRST} or blocks.*; it has {have}"
        )
    fast = table == "pos_embed"
    dim, tokens = state[table].shape[2], state[table].shape[1]
    merges = _numbers(state, r"blocks\.(\d+)\.reduction\.")
    numbers = _numbers(state, r"blocks\.(\d+)\.")
    last = numbers[-1]
    if last + 1 != len(numbers):
        raise ValueError(f"its blocks are numbered up to {last}, but there are {len(numbers)}")
    if len(merges) != 2 or merges[0] < 1 or not merges[0] + 1 < merges[1] < last:
        raise ValueError(f"its blocks have merges at {merges}, expected two between three stages")
    main = merges[1] + 1
    has_token = "cls_token" in state
    grid = _square(tokens - has_token, table)
    gammas = any(".gamma_" in key for key in state)
    hidden = "mlp.w1.weight" if f"blocks.{main}.mlp.w1.weight" in state else "mlp.fc1.weight"
    stem = "mlp.w1.weight" if "blocks.0.mlp.w1.weight" in state else "mlp.fc1.weight"
    needed = [f"blocks.0.{stem}", f"blocks.{main}.{hidden}"]
    absent = [key for key in needed if key not in state]
    if absent:
        raise ValueError(f"the file lacks {', '.join(absent)}")
    _require_whole(state, merges, last, stem, dim)
    bias, bias_grid, heads = _bias(state, main, has_token)
    fpn = state["align_dim_16to8.weight"].shape[0] if "align_dim_16to8.weight" in state else 0
    kind: Literal["pretrain", "finetune", "dense"] = "dense"
    if "mask_token" in state:
        kind = "pretrain"
    elif "head.weight" in state:
        kind = "finetune"
    family: Literal["pixel", "clip", "fast"] = "pixel"
    if fast:
        family = "fast"
    elif gammas or "lm_head.weight" in state:
        family = "clip"
    has_decoder = "decoder_pred.weight" in state
    return Layout(
        family=family,
        kind=kind,
        embed_dim=dim,
        patch_size=4 * state[FIRST].shape[-1],
        grid=grid,
        bias_grid=bias_grid if bias_grid != (0, 0) else grid,
        depths=(merges[0], merges[1] - merges[0] - 1, last - main + 1),
        num_heads=heads or max(1, dim // HEAD_WIDTH),
        stem_ratio=state[needed[0]].shape[0] / (dim // 4),
        ratio=state[needed[1]].shape[0] / dim,
        bias=bias,
        layer_scale=gammas,
        class_token=has_token,
        conv_stem=state[needed[0]].ndim == 4 or not fast,
        fpn_dim=fpn,
        fpn_depth=len(_numbers(state, r"block_16to8\.(\d+)\.")) or 1,
        fpn_levels=2 if fpn and "split_8to4.norm.weight" not in state else 3,
        decoder_dim=state["decoder_pred.weight"].shape[1] if has_decoder else 0,
        decoder_depth=len(_numbers(state, r"decoder_blocks\.(\d+)\.")),
        teacher_dim=state["lm_head.weight"].shape[0] if "lm_head.weight" in state else 0,
        num_classes=state["head.weight"].shape[0] if "head.weight" in state else 0,
    )


def _require_whole(
    state: Mapping[str, Tensor], merges: list[int], last: int, stem: str, dim: int
) -> None:
    """Every block has its large tensors, so that a network of these sizes is no larger than the
    file."""
    for number in range(last + 1):
        if number in merges:
            continue
        key, shape = f"blocks.{number}.attn.proj.weight", (dim, dim)
        if number < merges[1]:
            width = dim // (4 if number < merges[0] else 2)
            rows = state[f"blocks.0.{stem}"].shape[0] * width // (dim // 4)
            key, shape = f"blocks.{number}.{stem}", (rows, width)
        found = state.get(key)
        if found is None or tuple(found.shape[:2]) != shape:
            has = "missing" if found is None else tuple(found.shape)
            raise ValueError(f"{key} is {has}, expected {shape}")


def _bias(state: Mapping[str, Tensor], main: int, has_token: bool) -> tuple[Bias, Grid, int]:
    """(kind of position bias, its grid, heads if the tables say)."""
    if "rel_pos_bias.relative_position_bias_for_high" in state:
        high = state["rel_pos_bias.relative_position_bias_for_high"]
        wide = state["rel_pos_bias.relative_position_bias_for_width"]
        grid = ((high.shape[0] - 2) // 2, (wide.shape[0] - 2) // 2)
        return "shared-decoupled", grid, high.shape[1]
    own = f"blocks.{main}.attn."
    if own + "rel_pos_h" in state:
        high, wide = state[own + "rel_pos_h"], state[own + "rel_pos_w"]
        grid = ((high.shape[0] + 1) // 2, (wide.shape[0] + 1) // 2)
        return "decomposed", grid, state[own + "proj.weight"].shape[0] // high.shape[1]
    for key, kind in (
        ("rel_pos_bias.relative_position_bias_table", "shared"),
        (own + "relative_position_bias_table", "full-cls" if has_token else "full"),
    ):
        if key in state:
            rows, heads = state[key].shape
            extra = CLASS_ROWS if kind != "full" else 0
            side = _square(rows - extra, key)[0]
            return kind, ((side + 1) // 2,) * 2, heads  # type: ignore[return-value]
    return "none", (0, 0), 0


# --- from official tensors to ours -------------------------------------------------------------


def _linear(weight: Tensor) -> Tensor:
    """A 1 x 1 convolution as a linear layer."""
    return weight[:, :, 0, 0] if weight.ndim == 4 else weight


def _merge(weight: Tensor) -> Tensor:
    """A 2 x 2 convolution as a linear layer on joined sub-patches, the row varying first."""
    return weight.permute(0, 3, 2, 1).flatten(1) if weight.ndim == 4 else weight


def _rename(key: str) -> str:
    return "absolute_pos_embed" if key == "pos_embed" else key


def ours(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Official tensors as our modules have them: Fast-iTPN's convolutions become linear layers."""
    found = {}
    for key, value in state.items():
        if re.fullmatch(INDEX, key):
            continue
        if re.fullmatch(r"blocks\.\d+\.reduction\.weight", key):
            value = _merge(value)
        elif re.fullmatch(r"blocks\.\d+\.mlp\.\w+\.weight", key):
            value = _linear(value)
        found[_rename(key)] = value
    return found


def convert(state: Mapping[str, Tensor], target: Mapping[str, tuple[int, ...]]) -> Converted:
    """Official tensors, or those of `ours`, as those of a module with these official names.

    Index buffers are ignored, since they follow from the grid.
    """
    rules = [
        Rule("pos_embed", "absolute_pos_embed"),
        Rule(r"(blocks\.\d+\.reduction\.weight)", r"\1", _merge),
        Rule(r"(blocks\.\d+\.mlp\.\w+\.weight)", r"\1", _linear),
        Rule(r"(.*)", r"\1"),
    ]
    return KeyMap(rules, [(INDEX, "rebuilt from the grid")]).convert(state, target)
