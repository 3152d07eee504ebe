"""Dual encoders of CLIP's kind, written as plain checkpoints that open_clip and transformers read.

Tensors alone (safetensors), and beside them the JSON files that say what tensors do not. The table
of tokens is not among them: take that of the CLIP which the encoder came from.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from tenfold.files import replacing, write_json

from .clip import CONFIG, FILES, OPEN_CLIP, PREPARATION, ClipFile, shapes
from .clip_layers import HEAD_CHANNELS, parted_blocks
from .clip_text import ClipTextLayout
from .clip_vit import ClipLayout

Layout = Literal["open_clip", "transformers"]
NAMES = (
    ("visual.class_embedding", "vision_model.embeddings.class_embedding"),
    ("visual.positional_embedding", "vision_model.embeddings.position_embedding.weight"),
    ("visual.conv1.weight", "vision_model.embeddings.patch_embedding.weight"),
    ("visual.ln_pre.weight", "vision_model.pre_layrnorm.weight"),
    ("visual.ln_pre.bias", "vision_model.pre_layrnorm.bias"),
    ("visual.ln_post.weight", "vision_model.post_layernorm.weight"),
    ("visual.ln_post.bias", "vision_model.post_layernorm.bias"),
    ("text.token_embedding.weight", "text_model.embeddings.token_embedding.weight"),
    ("text.positional_embedding", "text_model.embeddings.position_embedding.weight"),
    ("text.ln_final.weight", "text_model.final_layer_norm.weight"),
    ("text.ln_final.bias", "text_model.final_layer_norm.bias"),
    ("logit_scale", "logit_scale"),
)
"""Our names -> transformers', outside of the blocks and of the transposed projections."""


def write_clip(folder: Path, clip: ClipFile, layout: Layout) -> list[Path]:
    """Write a dual encoder into a folder.

    `transformers.CLIPModel.from_pretrained(folder)` and
    `open_clip.create_model_and_transforms("local-dir:" + folder)` read it.

    Args:
        folder: Made if it is not there.
        clip: Sizes, settings and all tensors, under the names of `read_clip`.
        layout: Whose names and whose JSON files.

    Returns:
        The files: the weights first.

    Raises:
        ValueError: Tensors are missing, or of other shapes than the sizes say.
    """
    wanted = shapes(clip.vision, clip.text)
    found = {key: tuple(value.shape) for key, value in clip.state.items()}
    wrong = sorted(key for key in wanted.keys() | found.keys() if wanted.get(key) != found.get(key))
    if wrong:
        key = wrong[0]
        raise ValueError(
            f"{len(wrong)} tensors do not fit these sizes: {key} is {found.get(key, 'missing')}, "
            f"expected {wanted.get(key, 'none')}"
        )
    if layout == "open_clip":
        state, notes = official_names(clip.state), {OPEN_CLIP: _open_clip(clip)}
        file = folder / FILES[0]
    else:
        state = transformers_names(clip.state)
        notes = {CONFIG: _config(clip), PREPARATION: _preparation(clip)}
        file = folder / "model.safetensors"
    _write_tensors(file, state)
    for name, content in notes.items():
        write_json(folder / name, content)
    return [file, *(folder / name for name in notes)]


def official_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state of `read_clip` under OpenAI's names, which are open_clip's too."""
    return {key.removeprefix("text."): value for key, value in state.items()}


def transformers_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state of `read_clip` under the names of transformers' CLIPModel."""
    found = {theirs: state[ours] for ours, theirs in NAMES}
    found["visual_projection.weight"] = state["visual.proj"].t().contiguous()
    found["text_projection.weight"] = state["text.text_projection"].t().contiguous()
    for prefix, tower in (("visual.", "vision"), ("text.", "text")):
        found |= parted_blocks(state, prefix, tower)
    return found


def _write_tensors(file: Path, state: Mapping[str, Tensor]) -> None:
    from safetensors.torch import save_file

    with replacing(file) as temporary:
        plain = {key: value.detach().cpu().contiguous() for key, value in state.items()}
        save_file(plain, temporary, {"format": "pt"})


def _heads(clip: ClipFile) -> tuple[int, int]:
    """Heads of both encoders, as numbers."""
    widths = (clip.vision.width, clip.text.width)
    of_vision, of_text = (
        heads or max(1, width // HEAD_CHANNELS)
        for heads, width in zip(clip.settings.heads, widths, strict=True)
    )
    return of_vision, of_text


def _side(clip: ClipFile) -> int:
    return clip.vision.grid[0] * clip.vision.patch_size


def _config(clip: ClipFile) -> dict[str, Any]:
    heads, vision, text = _heads(clip), clip.vision, clip.text
    last = text.vocabulary - 1

    def tower(one: ClipLayout | ClipTextLayout, number: int) -> dict[str, Any]:
        return {
            "hidden_size": one.width,
            "intermediate_size": one.hidden or 4 * one.width,
            "num_hidden_layers": one.layers,
            "num_attention_heads": number,
            "projection_dim": text.dim,
            "hidden_act": clip.settings.activation,
            "layer_norm_eps": 1e-5,
        }

    of_vision, of_text = tower(vision, heads[0]), tower(text, heads[1])
    of_vision |= {"image_size": _side(clip), "patch_size": vision.patch_size}
    of_text |= {"max_position_embeddings": text.context, "vocab_size": text.vocabulary}
    of_text |= {"bos_token_id": last - 1, "eos_token_id": last, "pad_token_id": last}
    return {
        "architectures": ["CLIPModel"],
        "model_type": "clip",
        "projection_dim": text.dim,
        "logit_scale_init_value": float(clip.state["logit_scale"]),
        "vision_config": {"model_type": "clip_vision_model", **of_vision},
        "text_config": {"model_type": "clip_text_model", **of_text},
    }


def _preparation(clip: ClipFile) -> dict[str, Any]:
    side, is_cut = _side(clip), clip.settings.resize == "shorter"
    both = {"height": side, "width": side}
    return {
        "image_processor_type": "CLIPImageProcessor",
        "do_resize": True,
        "size": {"shortest_edge": side} if is_cut else both,
        "resample": 3,
        "do_center_crop": is_cut,
        "crop_size": both,
        "do_convert_rgb": True,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(clip.settings.mean),
        "image_std": list(clip.settings.std),
    }


def _open_clip(clip: ClipFile) -> dict[str, Any]:
    (of_vision, of_text), vision, text = _heads(clip), clip.vision, clip.text
    ratios = [(one.hidden or 4 * one.width) / one.width for one in (vision, text)]
    return {
        "model_cfg": {
            "embed_dim": text.dim,
            "quick_gelu": clip.settings.activation == "quick_gelu",
            "vision_cfg": {
                "image_size": _side(clip),
                "layers": vision.layers,
                "width": vision.width,
                "head_width": vision.width // of_vision,
                "mlp_ratio": ratios[0],
                "patch_size": vision.patch_size,
            },
            "text_cfg": {
                "context_length": text.context,
                "vocab_size": text.vocabulary,
                "width": text.width,
                "heads": of_text,
                "layers": text.layers,
                "mlp_ratio": ratios[1],
            },
        },
        "preprocess_cfg": {
            "mean": list(clip.settings.mean),
            "std": list(clip.settings.std),
            "interpolation": "bicubic",
            "resize_mode": "shortest" if clip.settings.resize == "shorter" else "squash",
        },
    }
