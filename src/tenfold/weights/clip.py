"""Whole dual encoders of CLIP's kind: read in OpenAI's, transformers' and open_clip's layouts.

The tensors say every size but the heads, and neither the activation nor how pictures are prepared.
Those stand in the JSON files beside the weights (config.json and preprocessor_config.json of
transformers, open_clip_config.json), or are OpenAI's: heads of 64 channels, QuickGELU, the shorter
side to the input's size.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from tenfold.files import read_object, require_bounded
from tenfold.printable import Lines

from . import clip_text, clip_vit
from .clip_layers import HEAD_CHANNELS, joined
from .clip_text import ClipTextLayout, describe_clip_text
from .clip_vit import ClipLayout, describe_clip
from .containers import OTHERS, read_checkpoint
from .keymap import Converted, KeyMap, Rule

Activation = Literal["quick_gelu", "gelu"]
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)
"""Of the channels of pictures, in OpenAI's code."""
CONFIG, PREPARATION, OPEN_CLIP = "config.json", "preprocessor_config.json", "open_clip_config.json"
FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin", *OTHERS)
"""Weights in a folder as open_clip and transformers save a model."""
MOST_BYTES = 2**24
"""Of a JSON file."""
NUMBER = (int, float)
TOWER = {
    "num_attention_heads": int, "hidden_act": str, "layer_norm_eps": NUMBER, "hidden_size": int,
}  # fmt: skip
ALONE = ("clip_vision_model", "clip_text_model")
"""Kinds of transformers' models that are one encoder, of pictures and of texts."""
SIDES, PARTS = ("image", "text"), ("vision_config", "text_config")
OPEN_TOWER = {"heads": int, "head_width": int, "width": int, "act_kwargs": object}
UNUSED = (
    (r"(?:text_model|vision_model)\.embeddings\.position_ids", "a list of numbers from 0"),
    (r"input_resolution|context_length|vocab_size|(?:text\.)?attn_mask", "no weight"),
)


@dataclass(frozen=True)
class ClipSettings:
    """All that the tensors of a dual encoder do not say."""

    heads: tuple[int, int] = (0, 0)
    """Of the image encoder and of the text encoder; 0: one for every 64 channels."""
    activation: Activation = "quick_gelu"
    mean: tuple[float, float, float] = MEAN
    std: tuple[float, float, float] = STD
    resize: Literal["shorter", "squash"] = "shorter"
    """Side that is brought to the input's size, the middle being cut out then; or both."""
    assumed: bool = True
    """Whether these are OpenAI's because no file said other ones."""


@dataclass(frozen=True)
class ClipFile:
    """A dual encoder as it lies on disk: tensors under `visual.`, `text.` and `logit_scale`."""

    state: dict[str, Tensor] = field(repr=False)
    vision: ClipLayout
    text: ClipTextLayout
    settings: ClipSettings


def weights_file(path: Path) -> Path:
    """The weights that a user's path means: a file, or one in a folder of open_clip's or others'.

    Raises:
        FileNotFoundError: There is no such file, or no weights in the folder.
    """
    if not path.is_dir():
        return path
    found = next((path / name for name in FILES if (path / name).is_file()), None)
    if found is None:
        raise FileNotFoundError(f"{path} holds no weights of a CLIP ({', '.join(FILES)})")
    return found


def read_clip(path: Path) -> ClipFile:
    """A dual encoder of a file or folder; every key that does not fit is listed in the error.

    Raises:
        FileNotFoundError: It is not there.
        ValueError: It is damaged, lacks one of the two encoders, or these have different spaces.
    """
    file = weights_file(path)
    state = read_checkpoint(file)
    try:
        vision, text = describe_clip(state), describe_clip_text(state)
        if vision.output_dim != text.dim:
            raise ValueError(
                f"its pictures have vectors of {vision.output_dim} numbers, its texts of "
                f"{text.dim}: they are of two spaces, and cannot be compared"
            )
        own = convert_whole(state, shapes(vision, text)).require_complete()
    except ValueError as error:
        raise ValueError(Lines(f"{file}: {error}")) from error
    return ClipFile(own, vision, text, settings_beside(file, vision.width, text.width))


def shapes(vision: ClipLayout, text: ClipTextLayout) -> dict[str, tuple[int, ...]]:
    """Names and shapes of all tensors of a dual encoder of these sizes."""
    found: dict[str, tuple[int, ...]] = {"logit_scale": ()}
    for prefix, one in (("visual.", vision), ("text.", text)):
        width, hidden = one.width, one.hidden or 4 * one.width
        for number in range(one.layers):
            block = f"{prefix}transformer.resblocks.{number}."
            linear = {
                "attn.in_proj_": (3 * width, width),
                "attn.out_proj.": (width, width),
                "mlp.c_fc.": (hidden, width),
                "mlp.c_proj.": (width, hidden),
            }
            for name, shape in linear.items():
                found |= {f"{block}{name}weight": shape, f"{block}{name}bias": shape[:1]}
            for name in ("ln_1", "ln_2"):
                found |= {f"{block}{name}.weight": (width,), f"{block}{name}.bias": (width,)}
    wide, patch, tokens = vision.width, vision.patch_size, vision.grid[0] * vision.grid[1] + 1
    found |= {
        "visual.class_embedding": (wide,),
        "visual.positional_embedding": (tokens, wide),
        "visual.conv1.weight": (wide, 3, patch, patch),
        "visual.proj": (wide, vision.output_dim),
        "text.token_embedding.weight": (text.vocabulary, text.width),
        "text.positional_embedding": (text.context, text.width),
        "text.text_projection": (text.width, text.dim),
    }
    for name, channels in (
        ("visual.ln_pre", wide),
        ("visual.ln_post", wide),
        ("text.ln_final", text.width),
    ):
        found |= {f"{name}.weight": (channels,), f"{name}.bias": (channels,)}
    return found


def convert_whole(state: Mapping[str, Tensor], target: Mapping[str, tuple[int, ...]]) -> Converted:
    """Both encoders' tensors under `visual.`, `text.` and `logit_scale`."""
    rules = [
        replace(rule, replacement=prefix + rule.replacement)
        for prefix, rules in (("visual.", clip_vit.RULES), ("text.", clip_text.RULES))
        for rule in rules
    ]
    scale = Rule("logit_scale", "logit_scale", lambda x: x.reshape(()))
    return KeyMap([scale, *rules], list(UNUSED)).convert(joined(state), target)


# --- the files beside the weights ----------------------------------------------------------------


def settings_beside(file: Path, image: int = 0, text: int = 0) -> ClipSettings:
    """What the JSON files beside weights say of their encoders; without any of them, OpenAI's.

    Args:
        file: The weights.
        image: Channels of the encoder of pictures; 0 where it is not used.
        text: Of that of texts.

    Raises:
        ValueError: A file is damaged, of another network, or says what these encoders do not have.
    """
    folder, widths = file.parent, (image, text)
    found = ClipSettings()
    if (folder / OPEN_CLIP).is_file():
        found = _of_open_clip(folder / OPEN_CLIP, widths)
    elif (folder / CONFIG).is_file():
        found = _of_transformers(folder / CONFIG, folder / PREPARATION, widths)
    for side, heads, width in zip(SIDES, found.heads, widths, strict=True):
        own = heads or max(1, width // HEAD_CHANNELS)
        if own < 0 or width % own:
            raise ValueError(
                f"{folder}: {own} heads cannot divide the {width} channels of the {side} encoder; "
                f"{CONFIG} or {OPEN_CLIP} beside the weights says how many there are"
            )
    return found


def assumption(option: str, file: Path) -> str:
    """A sentence for whoever gives weights with no JSON file that says heads and activation."""
    return (
        f"{option} {file} does not say its heads and activation: OpenAI's are taken (a head for "
        f"every 64 channels, QuickGELU). Most networks of open_clip have others: put their "
        f"{CONFIG} or {OPEN_CLIP} beside the file, which is read then"
    )


def _require_width(config: Path, side: str, said: Any, width: int) -> None:
    """Refuse a JSON file that lies beside the weights of another network."""
    if width and said != width:
        raise ValueError(
            f"{config} is of an encoder with {said} channels, and the {side} encoder beside it has "
            f"{width}; give the weights with their own {config.name}, or in a folder without one"
        )


def _of_transformers(config: Path, preparation: Path, widths: tuple[int, int]) -> ClipSettings:
    require_bounded(config, MOST_BYTES)
    kind = read_object(config, {}).get("model_type")
    said = read_object(config, TOWER if kind in ALONE else dict.fromkeys(PARTS, TOWER))
    if kind not in (*ALONE, "clip") and not any(part in said for part in PARTS):
        return ClipSettings()  # of something else that lies in the folder
    towers = [said.get(part, {}) for part in PARTS]
    if kind in ALONE:
        towers = [said if kind == one else {} for one in ALONE]
        if widths[1 - ALONE.index(kind)]:
            return ClipSettings()  # it says nothing of an encoder that is used
    used = [tower for tower, width in zip(towers, widths, strict=True) if width]
    kinds = {_activation(tower.get("hidden_act", "quick_gelu"), config) for tower in used}
    if len(kinds) > 1:
        raise ValueError(f"{config} has two activations: {', '.join(sorted(kinds))}")
    for tower in used:
        if abs(float(tower.get("layer_norm_eps", 1e-5)) - 1e-5) > 1e-9:
            raise ValueError(f"{config}: layer_norm_eps is {tower['layer_norm_eps']}, not 1e-05")
    for side, tower, width in zip(SIDES, towers, widths, strict=True):
        _require_width(config, side, tower.get("hidden_size", width), width)
    # what transformers takes where nothing is said
    heads = [
        int(tower.get("num_attention_heads", usual)) if width else 0
        for tower, usual, width in zip(towers, (12, 8), widths, strict=True)
    ]
    found = ClipSettings((heads[0], heads[1]), kinds.pop(), assumed=False)
    if not preparation.is_file():
        return found
    require_bounded(preparation, MOST_BYTES)
    shape = {"image_mean": [NUMBER], "image_std": [NUMBER]}
    more = read_object(preparation, shape)
    mean, std = more.get("image_mean", MEAN), more.get("image_std", STD)
    resize: Literal["shorter", "squash"] = "shorter"
    size = more.get("size", {})
    # both sides at once, whatever is cut out of the middle afterwards
    if isinstance(size, dict) and "height" in size and "shortest_edge" not in size:
        resize = "squash"
    return replace(
        found, mean=_three(mean, preparation), std=_three(std, preparation), resize=resize
    )


def _of_open_clip(file: Path, widths: tuple[int, int]) -> ClipSettings:
    require_bounded(file, MOST_BYTES)
    model = {"vision_cfg": OPEN_TOWER, "text_cfg": OPEN_TOWER, "quick_gelu": bool}
    preparation = {"mean": [NUMBER], "std": [NUMBER], "resize_mode": str}
    said = read_object(file, {"model_cfg": model, "preprocess_cfg": preparation})
    towers = said.get("model_cfg", {})
    vision, text = towers.get("vision_cfg", {}), towers.get("text_cfg", {})
    wide = int(vision.get("width", 768))  # open_clip's defaults
    _require_width(file, SIDES[0], wide, widths[0])
    _require_width(file, SIDES[1], text.get("width", 512), widths[1])
    channels = int(vision.get("head_width", 64))
    if channels < 1 or wide < channels:
        raise ValueError(
            f"{file}: model_cfg.vision_cfg has a width of {wide} and a head_width of {channels}; "
            "at least one head is needed"
        )
    more = said.get("preprocess_cfg", {})
    mode = more.get("resize_mode", "shortest")
    if mode not in ("shortest", "squash"):
        raise ValueError(f"{file}: resize_mode is {mode!r}; shortest or squash is read")
    return ClipSettings(
        (wide // channels if widths[0] else 0, int(text.get("heads", 8)) if widths[1] else 0),
        "quick_gelu" if towers.get("quick_gelu", False) else "gelu",
        _three(more.get("mean", MEAN), file),
        _three(more.get("std", STD), file),
        "squash" if mode == "squash" else "shorter",
        assumed=False,
    )


def _activation(said: str, file: Path) -> Activation:
    if said == "quick_gelu":
        return "quick_gelu"
    if said in ("gelu", "gelu_python"):
        return "gelu"
    raise ValueError(f"{file}: hidden_act is {said!r}; quick_gelu or gelu is read")


def _three(values: Any, file: Path) -> tuple[float, float, float]:
    """A mean or deviation of the three channels."""
    if len(values) != 3 or not torch.tensor([float(v) for v in values]).isfinite().all():
        raise ValueError(f"{file}: a mean and a deviation are 3 numbers, got {values}")
    return float(values[0]), float(values[1]), float(values[2])
