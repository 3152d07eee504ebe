"""The dual encoder as files that other libraries read: tensors, and a description of the sizes.

Swin and BERT: `transformers`' VisionTextDualEncoderModel, whose picture is the mean of Swin's
tokens, projected. ViT and BERT: `open_clip`'s CustomTextCLIP with a mean over patches and a text
tower of `transformers`. Nothing of the proxies is in either.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tenfold.core import checkpoint
from tenfold.core.lock import NAME as LOCK
from tenfold.files import require_empty
from tenfold.nn.vit import EPS, PatchEmbed, Vit

from .config import Config
from .phrases import TOKEN
from .towers import DEVIATION, MEAN, DualEncoder
from .words import BEGIN, END, PAD, SPECIAL, UNKNOWN

POOLERS = {
    "pooler": "cls_pooler", "first": "cls_last_hidden_state_pooler", "mean": "mean_pooler"
}  # fmt: skip
"""Our names of a text's vector -> `open_clip`'s."""


def write(encoder: DualEncoder, cfg: Config, out: Path) -> list[Path]:
    """Write weights, sizes and vocabulary into the new or empty folder `out`; returns the files.

    Raises:
        ValueError: The layout has no place for this encoder (the error says why), or the folder
            holds anything.
    """
    require_empty(out, "--out", {LOCK})
    out.mkdir(parents=True, exist_ok=True)
    is_vit = cfg.image.tower == "vit"
    state = open_clip_state(encoder) if is_vit else transformers_state(encoder)
    name = "open_clip_model.safetensors" if is_vit else "model.safetensors"
    files = [out / name]
    checkpoint.write_tensors(files[0], state)
    described = {"open_clip_config.json": _open_clip(cfg), "text/config.json": _bert(cfg)}
    if not is_vit:
        described = {"config.json": _dual(cfg), "preprocessor_config.json": _pictures(cfg)}
    folder = out / "text" if is_vit else out
    folder.mkdir(exist_ok=True)
    for file, values in described.items():
        files.append(out / file)
        checkpoint.write_json(files[-1], values)
    return [*files, *_tokenizer(cfg, folder)]


def _tokenizer(cfg: Config, folder: Path) -> list[Path]:
    """Write how texts become numbers, as `transformers` reads it; returns the files."""
    text = cfg.text
    more: dict[str, Any]
    if text.tokens == "pieces":
        files = [folder / "vocab.txt"]
        checkpoint.write_bytes(files[0], f"{text.vocabulary}\n".encode())
        kind, more = "BertTokenizer", {"do_lower_case": True, "strip_accents": None}
    else:  # BERT's would split don't and t-shirt, and take the accent off
        files = [folder / "tokenizer.json"]
        checkpoint.write_json(files[0], _of_words(text.vocabulary))
        kind = "PreTrainedTokenizerFast"
        more = {"pad_token": PAD, "cls_token": BEGIN, "sep_token": END, "unk_token": UNKNOWN}
    files.append(folder / "tokenizer_config.json")
    values = {"tokenizer_class": kind, **more, "model_max_length": text.most}
    checkpoint.write_json(files[-1], values)
    return files


def _of_words(vocabulary: str) -> dict[str, Any]:
    """The file of the package `tokenizers` that splits texts as `words.Vocabulary` does."""
    number = {token: i for i, token in enumerate(vocabulary.split("\n"))}
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    return {
        "version": "1.0", "truncation": None, "padding": None,
        "added_tokens": [
            {"id": number[token], "content": token, **plain, "special": True} for token in SPECIAL
        ],
        "normalizer": {"type": "Lowercase"},
        "pre_tokenizer": {
            "type": "Split", "pattern": {"Regex": TOKEN.pattern}, "behavior": "Removed",
            "invert": True,
        },
        "post_processor": {
            "type": "BertProcessing", "sep": [END, number[END]], "cls": [BEGIN, number[BEGIN]],
        },
        "decoder": None,
        "model": {"type": "WordLevel", "vocab": number, "unk_token": UNKNOWN},
    }  # fmt: skip


def transformers_state(encoder: DualEncoder) -> dict[str, Tensor]:
    """Tensors by the names of VisionTextDualEncoderModel (fourth version's, which the fifth reads).

    Raises:
        ValueError: The text tower has no pooler.
    """
    if not hasattr(encoder.text, "pooler"):
        raise ValueError(
            "transformers' dual encoder takes a text's vector behind BERT's pooler, which this run "
            "has not (--text.vector pooler); use `tenfold export` for ONNX or TorchScript"
        )
    found = {f"vision_model.{_fourth(k)}": v for k, v in encoder.image.state_dict().items()}
    found |= {f"text_model.{k}": v for k, v in encoder.text.state_dict().items()}
    found["visual_projection.weight"] = encoder.image_projection.weight
    found["text_projection.weight"] = encoder.text_projection.weight
    found["logit_scale"] = encoder.scale().log()
    return {key: value.detach().cpu().contiguous() for key, value in found.items()}


def _fourth(key: str) -> str:
    """Our name of a Swin's tensor, the fifth version's, as the fourth has it."""
    for ours, theirs in (
        ("attention.q_proj", "attention.self.query"), ("attention.k_proj", "attention.self.key"),
        ("attention.v_proj", "attention.self.value"),
        ("attention.o_proj", "attention.output.dense"), ("mlp.fc1", "intermediate.dense"),
        ("mlp.fc2", "output.dense"), ("attention.relative_position_bias.", "attention.self."),
    ):  # fmt: skip
        key = key.replace(ours, theirs)
    return key


def open_clip_state(encoder: DualEncoder) -> dict[str, Tensor]:
    """Tensors by the names of `open_clip`'s CustomTextCLIP: `visual.*`, `text.*`, `logit_scale`.

    Its first layer has no bias: ours goes into the places of the patches.

    Raises:
        ValueError: The tower begins with convolutions.
    """
    vit = encoder.image
    assert isinstance(vit, Vit)
    if not isinstance(vit.patch_embed, PatchEmbed):
        raise ValueError(
            "open_clip's ViT has no convolutions before its blocks, as this run has "
            "(--image.stem conv); use `tenfold export` for ONNX or TorchScript"
        )
    own = vit.state_dict()
    places = own["pos_embed"][0].clone()
    places[1:] += own["patch_embed.proj.bias"]
    found = {
        "visual.class_embedding": own["cls_token"][0, 0],
        "visual.positional_embedding": places,
        "visual.conv1.weight": own["patch_embed.proj.weight"],
        "visual.ln_post.weight": own["norm.weight"],
        "visual.ln_post.bias": own["norm.bias"],
        "visual.proj": encoder.image_projection.weight.T,
        "text.proj.weight": encoder.text_projection.weight,
        "logit_scale": encoder.scale().log(),
    }
    names = {
        "norm1": "ln_1", "norm2": "ln_2", "attn.qkv": "attn.in_proj", "attn.proj": "attn.out_proj",
        "mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj",
    }  # fmt: skip
    for number in range(len(vit.blocks)):
        for ours, theirs in names.items():
            for kind in ("weight", "bias"):
                joint = "_" if theirs == "attn.in_proj" else "."
                key = f"visual.transformer.resblocks.{number}.{theirs}{joint}{kind}"
                found[key] = own[f"blocks.{number}.{ours}.{kind}"]
    found |= {f"text.transformer.{k}": v for k, v in encoder.text.state_dict().items()}
    return {key: torch.clone(value.detach().cpu()).contiguous() for key, value in found.items()}


def _open_clip(cfg: Config) -> dict[str, Any]:
    image, text = cfg.image, cfg.text
    vision = {
        "image_size": image.size, "layers": image.depths[0], "width": image.dim,
        "head_width": image.dim // image.heads[0], "patch_size": image.patch,
        "mlp_ratio": image.ratio, "pool_type": "avg", "no_ln_pre": True,
        "norm_kwargs": {"eps": EPS},
    }  # fmt: skip
    words = {
        "hf_model_name": "text", "hf_tokenizer_name": "text", "hf_model_pretrained": False,
        "hf_proj_type": "linear", "context_length": text.most, "vocab_size": _count(cfg),
        "hf_pooler_type": POOLERS[text.vector],
    }  # fmt: skip
    shown = {"mean": list(MEAN), "std": list(DEVIATION), "interpolation": "bicubic",
             "resize_mode": "squash"}  # fmt: skip
    sizes = {"embed_dim": cfg.dim, "vision_cfg": vision, "text_cfg": words, "custom_text": True}
    return {"model_cfg": sizes, "preprocess_cfg": shown}


def _bert(cfg: Config) -> dict[str, Any]:
    text = cfg.text
    return {
        "model_type": "bert", "architectures": ["BertModel"], "vocab_size": _count(cfg),
        "hidden_size": text.dim, "num_hidden_layers": text.depth, "intermediate_size": text.hidden,
        "num_attention_heads": text.heads, "hidden_act": "gelu", "layer_norm_eps": 1e-12,
        "max_position_embeddings": text.positions, "type_vocab_size": 2,
        "pad_token_id": cfg.text.vocabulary.split("\n").index("[PAD]"),
        "hidden_dropout_prob": text.dropout, "attention_probs_dropout_prob": text.dropout,
    }  # fmt: skip


def _dual(cfg: Config) -> dict[str, Any]:
    image = cfg.image
    swin = {
        "model_type": "swin", "image_size": image.size, "patch_size": image.patch,
        "embed_dim": image.dim, "depths": list(image.depths), "num_heads": list(image.heads),
        "window_size": image.window, "mlp_ratio": image.ratio, "hidden_act": "gelu",
        "layer_norm_eps": 1e-5, "drop_path_rate": 0.0,
    }  # fmt: skip
    return {
        "model_type": "vision-text-dual-encoder", "architectures": ["VisionTextDualEncoderModel"],
        "projection_dim": cfg.dim, "vision_config": swin, "text_config": _bert(cfg),
    }  # fmt: skip


def _pictures(cfg: Config) -> dict[str, Any]:
    side = {"height": cfg.image.size, "width": cfg.image.size}
    return {
        "image_processor_type": "ViTImageProcessor", "size": side, "resample": 3,
        "do_resize": True, "do_normalize": True, "do_rescale": True, "rescale_factor": 1 / 255,
        "image_mean": list(MEAN), "image_std": list(DEVIATION),
    }  # fmt: skip


def _count(cfg: Config) -> int:
    return cfg.text.vocabulary.count("\n") + 1
