"""Models of the transformers layout: Mixtral, Qwen2-MoE and Qwen3-MoE, and dense ones of Llama's.

Names and sizes as transformers writes them (modeling_mixtral.py, modeling_qwen2_moe.py,
modeling_qwen3_moe.py, modeling_llama.py). Weights may lie in one file or in shards with an index;
they are read one of our tensors at a time.
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from tenfold.core.checkpoint import read_json, write_json, write_text
from tenfold.core.lock import NAME as LOCK
from tenfold.data.text.tokens import Tokenizer
from tenfold.files import require_empty
from tenfold.weights.containers import check_tensor
from tenfold.weights.keymap import Converted

from .config import Model
from .model import Gpt
from .parts import drawn

INDEX, LONE = "model.safetensors.index.json", "model.safetensors"
MIXTURES = ("mixtral", "qwen2_moe", "qwen3_moe")
DENSE = ("llama", "mistral", "qwen2", "qwen3")
FAMILIES = (*MIXTURES, *DENSE)
"""`model_type` of config.json -> what is read."""
SHARD_BYTES = 5 * 10**9
"""Size of a shard, as transformers cuts them."""
MOST_BLOCKS, MOST_EXPERTS = 1024, 4096


def model_of(config: Mapping[str, Any], seq: int = 0) -> Model:
    """The network that a config.json of transformers describes.

    Args:
        config: Content of config.json.
        seq: Tokens of a sequence that we train on; 0 takes all positions it was made for.

    Raises:
        ValueError: It is of another family, or has something that is not implemented here.
    """
    family = config.get("model_type")
    if family not in FAMILIES:
        raise ValueError(
            f"config.json is of a {str(family)[:40]!r} model; models that are read: "
            + ", ".join(FAMILIES)
        )
    read = _Fields(config)
    _refuse(config)
    heads = read.count("num_attention_heads")
    hidden, layers = read.count("hidden_size"), read.count("num_hidden_layers", MOST_BLOCKS)
    width = read.count("head_dim", default=0) or hidden // heads
    groups = read.count("num_key_value_heads", default=heads)
    is_qwen2 = family in ("qwen2", "qwen2_moe")
    sizes: dict[str, Any] = {
        "kind": "moe" if family in MIXTURES else "dense",
        "layers": layers,
        "hidden": hidden,
        "heads": heads,
        "kv_heads": 0 if groups == heads else groups,
        "head_size": 0 if width * heads == hidden else width,
        "ffn": read.count("intermediate_size"),
        "seq": seq or read.count("max_position_embeddings"),
        "vocab": read.count("vocab_size"),
        "activation": "swiglu",
        "norm": "rms",
        "norm_eps": read.number("rms_norm_eps", 1e-5 if family == "mixtral" else 1e-6),
        "qk_norm": family in ("qwen3", "qwen3_moe"),
        "bias": "qkv" if is_qwen2 and config.get("qkv_bias", True) else "none",
        "positions": "rotary",
        "rope_base": _rope_base(config),
        "tied": bool(config.get("tie_word_embeddings", False)),
        "balance_weight": read.number("router_aux_loss_coef", 0.001),
        "z_weight": 0.0,
    }
    if family in MIXTURES:
        sizes |= _mixture(str(family), config, read, layers)
    return Model(**sizes)


def _mixture(family: str, config: Mapping[str, Any], read: _Fields, layers: int) -> dict[str, Any]:
    """Sizes of the experts, and which blocks have them."""
    name = "num_local_experts" if "num_local_experts" in config else "num_experts"
    found: dict[str, Any] = {
        "experts": read.count(name, MOST_EXPERTS),
        "top_k": read.count("num_experts_per_tok", MOST_EXPERTS),
    }
    norm_topk = family == "mixtral" or bool(config.get("norm_topk_prob", False))
    if norm_topk and found["top_k"] == 1:
        raise ValueError(
            "config.json: num_experts_per_tok 1 with gates that are divided by their sum, which "
            "makes each of them 1, is not implemented"
        )
    if family == "mixtral":
        return found | {"norm_topk": True, "moe_every": 1}
    step = read.count("decoder_sparse_step", default=1)
    dense = config.get("mlp_only_layers") or []
    if not isinstance(dense, list) or any(type(i) is not int for i in dense):
        raise ValueError(
            f"config.json: mlp_only_layers must be a list of blocks, got {str(dense)[:40]!r}"
        )
    with_experts = tuple(i for i in range(layers) if i not in dense and (i + 1) % step == 0)
    found |= {
        "norm_topk": norm_topk,
        "expert_ffn": read.count("moe_intermediate_size"),
        "moe_every": step,
    }
    if dense:
        found["moe_at"] = with_experts
    if family == "qwen2_moe":
        found |= {"shared": read.count("shared_expert_intermediate_size"), "shared_gate": True}
    return found


def config_of(model: Model, family: str = "") -> dict[str, Any]:
    """A config.json of transformers for a network of ours.

    Args:
        model: The network.
        family: mixtral, qwen2_moe, qwen3_moe, or llama; empty takes the one that fits.

    Raises:
        ValueError: transformers has no such network; the message names the first difference.
    """
    family = family or _family(model)
    content: dict[str, Any] = {
        "architectures": [ARCHITECTURES[family]],
        "model_type": family,
        "hidden_act": "silu",
        "hidden_size": model.hidden,
        "intermediate_size": model.inner,
        "max_position_embeddings": model.seq,
        "num_attention_heads": model.heads,
        "num_key_value_heads": model.groups,
        "head_dim": model.head_width,
        "num_hidden_layers": model.layers,
        "rms_norm_eps": model.norm_eps,
        "rope_theta": model.rope_base,
        "tie_word_embeddings": model.tied,
        "torch_dtype": "float32",
        "vocab_size": model.vocab,
    }
    if family in MIXTURES:
        content |= {
            "num_local_experts" if family == "mixtral" else "num_experts": model.experts,
            "num_experts_per_tok": model.top_k,
            "router_aux_loss_coef": model.balance_weight,
        }
    if family in ("qwen2_moe", "qwen3_moe"):
        with_experts = model.moe_layers
        content |= {
            "decoder_sparse_step": 1,
            "mlp_only_layers": [i for i in range(model.layers) if i not in with_experts],
            "moe_intermediate_size": model.expert_inner,
            "norm_topk_prob": model.norm_topk and model.top_k > 1,  # ours leaves a single one
        }
    if family == "qwen2_moe":
        content["shared_expert_intermediate_size"] = model.shared
    if family == "llama":
        content["attention_bias"] = False
    return content


ARCHITECTURES = {
    "mixtral": "MixtralForCausalLM",
    "qwen2_moe": "Qwen2MoeForCausalLM",
    "qwen3_moe": "Qwen3MoeForCausalLM",
    "llama": "LlamaForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
}


def _family(model: Model) -> str:
    """The family whose networks are built as this one is."""
    for wanted, name in (("swiglu", "activation"), ("rms", "norm"), ("rotary", "positions")):
        if getattr(model, name) != wanted:
            raise ValueError(
                f"transformers has no model with model.{name} {getattr(model, name)} among those "
                f"that are written here ({', '.join(ARCHITECTURES)}); it needs {wanted}"
            )
    if model.moe_layers and model.bias_rate:
        raise ValueError(
            f"transformers has no model with model.bias_rate {model.bias_rate:g} among those that "
            "are written here: what it has shifted the choice of experts by would be lost"
        )
    if model.moe_layers and model.capacity_factor and model.drops_in_evaluation:
        raise ValueError(
            "transformers has no model with model.drops_in_evaluation, which drops tokens by what "
            "else is in the batch, among those that are written here"
        )
    if not model.moe_layers:
        family = "qwen3" if model.qk_norm else "qwen2" if model.bias == "qkv" else "llama"
    elif model.qk_norm:
        family = "qwen3_moe"
    elif model.shared or model.bias == "qkv":
        family = "qwen2_moe"
    else:
        whole = model.moe_layers == tuple(range(model.layers))
        narrow = model.expert_inner != model.inner
        # of a single expert Mixtral makes the gate 1, ours leaves it
        normed = model.norm_topk and model.top_k > 1
        family = "mixtral" if whole and not narrow and normed else ""
    fits = {
        "mixtral": True,
        "qwen2_moe": model.shared and model.shared_gate and model.bias == "qkv",
        "qwen3_moe": not model.shared and model.bias == "none",
        "qwen3": model.bias == "none",
    }
    if not family or not fits.get(family, True):
        raise ValueError(
            "no model of transformers has this combination of model.bias, qk_norm, shared, "
            "shared_gate, norm_topk, expert_ffn and blocks with experts. Mixtral: bias none, "
            "norm_topk with top_k from 2, experts as wide as ffn in every block; Qwen2-MoE: bias "
            "qkv, a shared expert with its gate; Qwen3-MoE: bias none, qk_norm, no shared expert"
        )
    return family


# --- names ---------------------------------------------------------------------------------------


def sources(model: Model, family: str) -> Iterator[tuple[str, list[str]]]:
    """(our key, their keys in order): ours is theirs joined along the first axis.

    Experts are stacked: of each its parts in turn.
    """
    yield "embed.tok.weight", ["model.embed_tokens.weight"]
    for block in range(model.layers):
        yield from _block(model, family, block)
    yield "ln_f.weight", ["model.norm.weight"]
    if not model.tied:
        yield "head.weight", ["lm_head.weight"]


def _block(model: Model, family: str, block: int) -> Iterator[tuple[str, list[str]]]:
    ours, theirs = f"layers.{block}.", f"model.layers.{block}."
    attention = theirs + "self_attn."
    yield ours + "ln1.weight", [theirs + "input_layernorm.weight"]
    parts = {"qkv": "qkv"} if model.groups == model.heads else {"q": "q", "kv": "kv"}
    for kind in ("weight", "bias")[: 1 if model.bias == "none" else 2]:
        for name, letters in parts.items():
            yield f"{ours}attn.{name}.{kind}", [f"{attention}{c}_proj.{kind}" for c in letters]
    if model.qk_norm:
        for letter in "qk":
            yield f"{ours}attn.{letter}_norm.weight", [f"{attention}{letter}_norm.weight"]
    yield ours + "attn.proj.weight", [attention + "o_proj.weight"]
    yield ours + "ln2.weight", [theirs + "post_attention_layernorm.weight"]
    inside = theirs + ("block_sparse_moe." if family == "mixtral" else "mlp.")
    names = ("w1", "w3", "w2") if family == "mixtral" else ("gate_proj", "up_proj", "down_proj")
    gate, up, down = (f"{name}.weight" for name in names)
    if block not in model.moe_layers:
        yield ours + "ffn.gate_up.weight", [inside + gate, inside + up]
        yield ours + "ffn.fc2.weight", [inside + down]
        return
    yield ours + "moe.gate.weight", [inside + "gate.weight"]
    each = [f"{inside}experts.{expert}." for expert in range(model.experts)]
    yield (
        ours + "moe.experts.gate_up_weight",
        [expert + part for expert in each for part in (gate, up)],
    )
    yield ours + "moe.experts.fc2_weight", [expert + down for expert in each]
    if model.shared:
        shared = inside + "shared_expert."
        yield ours + "shared.gate_up.weight", [shared + gate, shared + up]
        yield ours + "shared.fc2.weight", [shared + down]
        yield ours + "shared.sigmoid_gate.weight", [inside + "shared_expert_gate.weight"]


# --- files ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Folder:
    """A folder as transformers saves a model: config.json, and weights in one file or shards."""

    path: Path
    config: dict[str, Any]
    files: dict[str, Path]
    """Name of a tensor -> the file that holds it."""

    @classmethod
    def open(cls, path: Path) -> Folder:
        """Read what the folder says of itself; no weights yet.

        Raises:
            FileNotFoundError: A file is missing.
            ValueError: A file is damaged, or names another outside the folder.
        """
        if path.exists() and not path.is_dir():
            raise ValueError(
                f"{path} is no folder; give one as transformers' save_pretrained writes it"
            )
        config_file = path / "config.json"
        if not config_file.is_file():
            raise FileNotFoundError(
                f"{config_file} does not exist; give a folder as transformers' save_pretrained "
                "writes it"
            )
        config = read_json(config_file)
        if not isinstance(config, dict):
            raise ValueError(f"{config_file} is no object of fields, as a model's config.json is")
        return cls(path, config, _files(path))

    def read(self, keys: list[str], held: ExitStack, opened: dict[Path, Any]) -> list[Tensor]:
        """Some tensors in float32; files are opened when first needed and kept in `opened`."""
        found = []
        for key in keys:
            file = self.files[key]
            if file not in opened:
                opened[file] = held.enter_context(_opened(file))
            try:
                value = opened[file].get_tensor(key)
            except SafetensorError as error:
                raise ValueError(f"{file} does not hold {key}: {error}") from error
            check_tensor(file, key, value)
            found.append(value.float())
        return found


def _files(path: Path) -> dict[str, Path]:
    index = path / INDEX
    if not index.exists():
        file = path / LONE
        if not file.is_file():
            others = [p.name for p in sorted(path.glob("pytorch_model*.bin"))[:1]]
            hint = f" (it holds {others[0]}, which is not read: save it with safetensors)"
            raise FileNotFoundError(
                f"{path} holds neither {LONE} nor {INDEX}{hint if others else ''}"
            )
        with _opened(file) as content:
            return dict.fromkeys(content.keys(), file)
    content = read_json(index)
    names = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(names, dict) or not names:
        raise ValueError(f"{index} has no weight_map of tensors and files")
    found = {}
    for key, name in names.items():
        if not isinstance(name, str) or not re.fullmatch(r"[\w.-]+\.safetensors", name):
            raise ValueError(f"{index} names {str(name)[:80]!r}, which is no file of its folder")
        found[key] = path / name
    for file in sorted(set(found.values())):
        if not file.is_file():
            raise FileNotFoundError(f"{file} does not exist, but {index} names it; copy it, too")
    return found


def _opened(file: Path) -> Any:
    try:
        return safe_open(file, framework="pt")
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{file} is no safetensors file: {error}") from error


def tensors(folder: Folder, model: Model, account: Converted) -> Iterator[tuple[str, Tensor]]:
    """Our tensors one after another, in float32; every key of the folder is accounted for.

    What a shape or a missing key leaves out is named in `account` and not given.
    """
    wanted = shapes(model)
    left = dict.fromkeys(folder.files)
    opened: dict[Path, Any] = {}
    with ExitStack() as held:
        for key, theirs in sources(model, str(folder.config["model_type"])):
            there = [name for name in theirs if name in folder.files]
            for name in there:
                left.pop(name, None)
            if len(there) < len(theirs):
                account.missing.append(key)
                account.unused += there
                continue
            account.origin[key] = theirs[0]
            parts = folder.read(theirs, held, opened)
            value = _joined(parts, wanted[key])
            if value is None:
                got = tuple(parts[0].shape)
                account.mismatched.append((f"{key} (from {theirs[0]})", got, wanted[key]))
                continue
            yield key, value
    for name in left:
        if name == "lm_head.weight" and model.tied:
            account.ignored.append((name, "the head is the token embedding's weights"))
        elif name.endswith("rotary_emb.inv_freq"):
            account.ignored.append((name, "rotations are computed"))
        else:
            account.unused.append(name)


def _joined(parts: list[Tensor], shape: tuple[int, ...]) -> Tensor | None:
    """Parts one below the other in the wanted shape; None if they do not have it."""
    rows = sum(part.shape[0] if part.ndim else 0 for part in parts)
    inner = {tuple(part.shape[1:]) for part in parts}
    stacked = shape[1:] if len(shape) < 3 else shape[2:]
    total = shape[0] if len(shape) < 3 else shape[0] * shape[1]
    if rows != total or inner != {stacked}:
        return None
    return torch.cat(parts).view(shape)


def shapes(model: Model) -> dict[str, tuple[int, ...]]:
    """Shape of every tensor of the whole model; nothing is allocated."""
    with torch.device("meta"):
        return {key: tuple(value.shape) for key, value in Gpt(model).state_dict().items()}


@torch.no_grad()
def load(folder: Folder, network: Gpt) -> Converted:
    """Fill a network with a folder's weights, one tensor at a time; gives the account of keys."""
    account = Converted()
    own = network.state_dict()
    for key, value in tensors(folder, network.cfg, account):
        own[key].copy_(value)
        account.state[key] = own[key]
    return account


def upcycled(state: dict[str, Tensor], model: Model, seed: int) -> dict[str, Tensor]:
    """Weights of a dense network as those of a mixture whose experts all begin as its networks.

    Routers begin as those of a new network. With gate weights that add up to 1 (model.norm_topk,
    top_k from 2) the mixture then answers as the dense network does (Komatsuzaki et al. 2022,
    "Sparse Upcycling", sec. 3). A state that is of a mixture already is given as it is.
    """
    found = dict(state)
    blocks = []
    for block in model.moe_layers:
        ours = f"layers.{block}."
        dense = [key for key in found if key.startswith(ours + "ffn.")]
        for key in dense:
            name = key.removeprefix(ours + "ffn.").replace(".", "_")
            value = found.pop(key)
            found[f"{ours}moe.experts.{name}"] = value.expand(model.experts, *value.shape)
        if dense:
            blocks.append(str(block))
            key = ours + "moe.gate.weight"
            found[key] = drawn(key, torch.empty(model.experts, model.hidden), model, seed)
    if blocks:
        sums_to_one = model.norm_topk and model.top_k > 1
        hint = (
            "" if sums_to_one else "; the first answers differ, as gate weights do not add up to 1"
        )
        warnings.warn(
            f"upcycled: experts of blocks {', '.join(blocks)} all begin as the dense network, "
            f"their routers anew{hint}",
            stacklevel=2,
        )
    return found


# --- writing -------------------------------------------------------------------------------------


def write(
    folder: Path,
    model: Model,
    read: Callable[[str], Tensor],
    shard_bytes: int = SHARD_BYTES,
) -> list[Path]:
    """Write a network in the transformers layout: config.json, shards and their index.

    Args:
        folder: New or empty folder.
        model: The network.
        read: Gives a tensor of ours by its key; each is asked for once, in order.
        shard_bytes: Bytes after which a new shard is begun.

    Raises:
        ValueError: transformers has no such network, or the folder holds anything.
    """
    require_empty(folder, "--out", {LOCK})
    config = config_of(model)
    family = str(config["model_type"])
    sizes = {key: 4 * math.prod(shape) for key, shape in shapes(model).items()}
    shards: list[list[tuple[str, list[str]]]] = [[]]
    held = 0
    for key, theirs in sources(model, family):
        if held and held + sizes[key] > shard_bytes:
            shards.append([])
            held = 0
        shards[-1].append((key, theirs))
        held += sizes[key]
    folder.mkdir(parents=True, exist_ok=True)
    index: dict[str, str] = {}
    files = []
    for number, shard in enumerate(shards, 1):
        name = LONE if len(shards) == 1 else f"model-{number:05}-of-{len(shards):05}.safetensors"
        content = {
            name_there: part
            for key, theirs in shard
            for name_there, part in _divided(key, read(key), theirs)
        }
        save_file(content, folder / name, {"format": "pt"})
        index |= dict.fromkeys(content, name)
        files.append(folder / name)
    if len(shards) > 1:
        total = {"total_size": sum(sizes.values())}
        write_json(folder / INDEX, {"metadata": total, "weight_map": index})
        files.append(folder / INDEX)
    write_json(folder / "config.json", config)
    return [*files, folder / "config.json"]


def write_tokenizer(folder: Path, tokenizer: Tokenizer) -> list[Path]:
    """Write tokenizer.json and what transformers needs to open it."""
    files = [folder / "tokenizer.json", folder / "tokenizer_config.json"]
    write_text(files[0], tokenizer.to_file())
    write_json(files[1], {"tokenizer_class": "PreTrainedTokenizerFast"})
    return files


def _divided(key: str, value: Tensor, theirs: list[str]) -> Iterator[tuple[str, Tensor]]:
    """A tensor of ours as those of the transformers layout, in the order of their names."""
    value = value.detach().float().cpu()
    if len(theirs) == 1:
        yield theirs[0], value.clone()
        return
    if value.ndim == 3:  # experts: of each its parts in turn
        parts = value.chunk(len(theirs) // len(value), 1)
        flat = [part[expert] for expert in range(len(value)) for part in parts]
    else:  # q, k and v, or two, of as many rows each
        flat = list(value.chunk(len(theirs)))
    for name, part in zip(theirs, flat, strict=True):
        yield name, part.clone()


class _Fields:
    """Numbers of a config.json, each within its bounds."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.config = config

    def count(self, name: str, most: int = 2**31 - 1, default: int | None = None) -> int:
        """A whole number from 1; a field that is absent or null has the default."""
        value = self.config.get(name)
        if value is None and default is not None:
            return default
        if type(value) is not int or not 1 <= value <= most:
            raise ValueError(
                f"config.json: {name} must be a whole number from 1 to {most}, got {value!r}"
            )
        return value

    def number(self, name: str, default: float) -> float:
        """A number from 0; a field that is absent or null has the default."""
        value = self.config.get(name)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e9:
            raise ValueError(f"config.json: {name} must be a number from 0, got {value!r}")
        return float(value)


def _rope_base(config: Mapping[str, Any]) -> float:
    """Base of the rotations, as versions 4 and 5 of transformers write it."""
    scaling = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if not isinstance(scaling, dict):
        raise ValueError(
            f"config.json: rope_parameters must be an object of fields, got {str(scaling)[:40]!r}"
        )
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    if kind != "default":
        raise ValueError(
            f"config.json: rotations of type {str(kind)[:40]!r} (rope_parameters) are not "
            "implemented; only the default ones are"
        )
    usual = 1e6 if config["model_type"] == "mixtral" else 1e4
    base = scaling.get("rope_theta", config.get("rope_theta"))
    return _Fields({"rope_theta": base}).number("rope_theta", usual)


def _refuse(config: Mapping[str, Any]) -> None:
    """Raise ValueError for what would change the numbers and is not implemented."""
    if config.get("hidden_act", "silu") != "silu":
        raise ValueError(f"config.json: hidden_act {config['hidden_act']!r} is not implemented")
    window = config.get("sliding_window")
    uses = config.get("use_sliding_window", config.get("model_type") in ("mixtral", "mistral"))
    if window is not None and uses:
        raise ValueError(
            f"config.json: attention in a sliding window ({window} tokens) is not implemented"
        )
    if "quantization_config" in config:
        raise ValueError("config.json: quantised weights are not read; give those in float")
    for name in ("mlp_bias", "attention_bias"):
        if config.get(name):
            raise ValueError(f"config.json: {name} is not implemented")
