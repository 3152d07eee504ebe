"""Published weights for seed networks: ImageNet's, those of the peers, and runs of iTPN.

Every tensor of a file and of the network is accounted for: taken, left out for a reason, or named
as unused, missing or of another shape.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from tenfold.core import checkpoint
from tenfold.nn.efficientnet import EfficientNetLite
from tenfold.nn.hivit import HiViT
from tenfold.nn.resnet import ResNet
from tenfold.nn.resnet38 import ResNet38
from tenfold.nn.vit import Vit
from tenfold.weights import efficientnet, hivit
from tenfold.weights.containers import is_run, read_checkpoint
from tenfold.weights.keymap import Converted, KeyMap, Rule, require_shape

from .backbones import Model
from .networks import SeedNetwork

State = Mapping[str, Tensor]

PARTS = ("pretrain", "classify")
"""Parts of an iTPN run whose backbone is taken, the first that there is."""
CLASSIFIER = "a classifier of other classes"
WEIGHTS = "weights.safetensors"


def load(network: SeedNetwork, source: Path) -> Converted:
    """Fill a network from a file, as far as it fits; returns the account of every tensor.

    Args:
        network: Of the sizes that `describe` finds in the file.
        source: A file of torch or safetensors, or a run of iTPN (folder or weights).

    Raises:
        FileNotFoundError: There is none.
        ValueError: It holds no tensors, or those of another network.
    """
    state = read(source)
    try:
        account = convert(state, network)
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from error
    network.load_state_dict(account.state, strict=False)
    return account


def read(source: Path) -> dict[str, Tensor]:
    """The tensors of a file under its own names; of an iTPN run those of its backbone."""
    source = _file(source)
    run = _run(source)
    if run is None:
        return read_checkpoint(source)
    prefix = f"{run['part']}.backbone."
    state = checkpoint.read_tensors(source)
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}


def describe(source: Path, asked: Model) -> Model:
    """The model that was asked for, with the sizes of a file's network.

    Raises:
        ValueError: The file is of another kind of network than `asked.name`.
    """
    source = _file(source)
    run = _run(source)
    if run is not None:
        if asked.name != "hivit":
            raise ValueError(f"{source} is a run of itpn; it is for model.name hivit")
        return _of_run(run["model"], asked)
    state = read_checkpoint(source)  # its errors name the file
    try:
        return described(state, asked)
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from error


def described(state: State, asked: Model) -> Model:
    """`describe` for tensors under their own names."""
    name = asked.name
    if name == "hivit":
        return _of_hivit(state, asked)
    marks = {"resnet38": "conv1a.weight", "efficientnet-lite0": efficientnet.STEM}
    if name in ("resnet18", "resnet50"):
        return _of_resnet(state, asked)
    if name in marks:
        own = from_mxnet(state) if name == "resnet38" else state
        width = _shape(own, marks[name], 4)[0]
        _require_last(own, width, name)
        return replace(asked, width=width)
    dim, _, side, _ = _shape(state, "patch_embed.proj.weight", 4)
    hidden = _shape(state, "blocks.0.mlp.fc1.weight", 2)[0]
    table = "pos_embed_pat" if "pos_embed_pat" in state else "pos_embed"
    rows = _shape(state, table, 3)[1]
    depth = _depth(state, r"blocks\.(\d+)\.")
    for number in range(depth):  # so that a network of these sizes is no larger than the file
        require_shape(state, f"blocks.{number}.attn.qkv.weight", 3 * dim, dim)
        require_shape(state, f"blocks.{number}.mlp.fc1.weight", hidden, dim)
    extra = 0 if table == "pos_embed_pat" else _first_tokens(state)
    grid = math.isqrt(max(rows - extra, 0))
    same = name == ("mctformer-plus" if table == "pos_embed_pat" else "mctformer")
    is_own = _shape(state, "cls_token", 3)[1] > 1 and same
    return replace(
        asked, width=dim, depths=(depth,), patch_size=side,
        ratio=hidden / dim, grid=grid if is_own or name == "deit" else asked.grid,
    )  # fmt: skip


def convert(state: State, network: SeedNetwork) -> Converted:
    """Tensors of a file, under its own names, for a seed network (our key -> tensor)."""
    body, own = network.body, network.state_dict()
    target = {key: tuple(value.shape) for key, value in own.items()}
    rules, ignored = _rules(state, network)
    given = _prepared(state, network)
    if not any(re.fullmatch(rule.pattern, key) for rule in rules for key in given):
        have = ", ".join(ascii(key[:40]) for key in list(state)[:4])
        raise ValueError(f"it holds no {network.model.name}: its tensors are {have}")
    heads = {key: value for key, value in given.items() if _head_of(body).fullmatch(key)}
    first, count = 1 if has_background(state) else 0, network.num_classes
    # a row more in a file that is not known to have a background is named as misshapen below: which
    # of the rows is too much only its maker knows
    fits = bool(heads) and all(
        value.shape[:1] in ((count + first,), (count + 1,))
        and value.ndim == own["head.weight" if value.ndim > 1 else "head.bias"].ndim
        for value in heads.values()
    )
    if fits:
        names = r"(?:fc8|classifier|head)\.(weight|bias)"
        rules.append(Rule(names, r"head.\1", lambda value: value[first:]))
    else:
        ignored[_head_of(body).pattern] = CLASSIFIER
    account = KeyMap(rules, list(ignored.items())).convert(given, target)
    if not fits:
        anew = [key for key in account.missing if key.startswith("head.")]
        account.ignored += [(key, "ours; starts anew") for key in anew]
        account.missing = [key for key in account.missing if key not in anew]
    # old files have no such counters, which nothing reads where the momentum is a number
    account.missing = [k for k in account.missing if not k.endswith("num_batches_tracked")]
    return account


def _rules(state: State, network: SeedNetwork) -> tuple[list[Rule], dict[str, str]]:
    """Rules of a backbone, and patterns that are left out with their reasons."""
    body = network.body
    if isinstance(body, ResNet38):
        rules = [Rule(r"((?:conv1a|b\d(?:_\d)?|bn7)\..+)", r"body.\1")]
        ignored = {r"(?:arg:)?linear1000_.*": CLASSIFIER}
        if network.correlation is None:
            ignored[r"f8_\d\..*|f9\..*"] = "affinities of SEAM or PSA (model.correlation: SEAM's)"
        else:
            rules += [
                Rule(r"(f8_\d)\.weight", r"correlation.\1.weight"),
                Rule(r"f9\.weight", "correlation.pixels.f9.weight"),
            ]
        return rules, ignored
    if isinstance(body, ResNet):
        ignored = {r"(?:stage\d|backbone|newly_added)\..*": "the same tensors under another name"}
        if "resnet50.conv1.weight" not in state:
            ignored = {}
        return [Rule(r"(?:resnet50\.)?((?:conv1|bn1|layer\d)\..+)", r"body.\1")], ignored
    if isinstance(body, EfficientNetLite):
        return efficientnet.rules("body."), {}
    if isinstance(body, HiViT):
        ignored = {
            r"(?:decoder_|mask_token|lm_|norm|cls_pt_layers|fc_norm).*": "decoder or last norm",
            r"(?:align_dim_|split_|block_16to8|block_8to4|fpn_modules).*": "the pyramid",
        }
        parts = r"patch_embed|absolute_pos_embed|blocks|cls_token|rel_pos_bias"
        return [Rule(rf"((?:{parts})\b.*)", r"body.\1")], ignored
    ignored = {r"(?:head_dist\..*|dist_token)": "DeiT's distillation"}
    if not body.shape.last_norm:
        ignored[r"norm\..*"] = "MCTformer does not use it"
    if body.shape.split_positions:
        ignored["pos_embed"] = "MCTformer+ does not use it"
    names = r"cls_token|pos_embed\w*|patch_embed\.proj\.\w+|blocks\.\d+\..+|norm\.\w+"
    return [Rule(rf"({names})", r"body.\1")], ignored


def _head_of(body: object) -> re.Pattern[str]:
    """Names of a classifier in files of such a backbone."""
    if isinstance(body, ResNet38):
        return re.compile(r"fc8\.weight")
    if isinstance(body, ResNet):
        return re.compile(r"classifier\.weight|fc\.(?:weight|bias)")
    if isinstance(body, EfficientNetLite):
        return re.compile(efficientnet.CLASSIFIER)
    return re.compile(r"head\.(?:weight|bias)")


def has_background(state: State) -> bool:
    """True for a file of SEAM's, whose classifier has affinities beside it.

    Its first output is the background's, which no loss reads; no other peer has one.
    """
    return "fc8.weight" in state and "f9.weight" in state


def _prepared(state: State, network: SeedNetwork) -> State:
    """Tensors that are no longer those of the file, under names of the file."""
    body = network.body
    if isinstance(body, ResNet38):
        return from_mxnet(state)
    if isinstance(body, HiViT):
        return hivit.ours(state)
    return with_tokens(state, body) if isinstance(body, Vit) else state


# --- ResNet-38 -----------------------------------------------------------------------------------

NORMS = {"beta": "bias", "gamma": "weight", "mean": "running_mean", "var": "running_var"}


def from_mxnet(state: State) -> dict[str, Tensor]:
    """The names of PSA for those of MXNet (ilsvrc-cls_rna-a1); others as they are.

    res3b2_branch2a_weight is b3_2.conv_branch2a.weight there (network/resnet38d.py).
    """
    found = {}
    for key, value in state.items():
        name = re.sub(r"^(?:arg|aux):", "", key)
        name = re.sub(r"^conv1a_weight$", "conv1a.weight", name)
        match = re.fullmatch(r"(res|bn)(\d)(?:a|b(\d))_(branch\w+?)_(?:moving_)?([a-z]+)", name)
        last = re.fullmatch(r"bn7_(?:moving_)?([a-z]+)", name)
        if match:
            kind, stage, number, branch, part = match.groups()
            block = f"b{stage}" + (f"_{number}" if number else "")
            layer = "conv" if kind == "res" else "bn"
            name = f"{block}.{layer}_{branch}.{NORMS.get(part, part)}"
        elif last:
            name = f"bn7.{NORMS.get(last[1], last[1])}"
        found[name] = value
    return found


# --- transformers --------------------------------------------------------------------------------


def with_tokens(state: State, body: Vit) -> State:
    """Class tokens and positions as the network has them, made of a file that has one token.

    As MCTformer starts from DeiT (main.py): the token and its position for every class, positions
    of patches resized; where MCTformer+ doubles the grid, each is repeated.
    """
    shape, found = body.shape, dict(state)
    token = state.get("cls_token")
    if token is None or token.ndim != 3:
        return state
    if token.shape[1] == 1 and shape.class_tokens > 1:
        found["cls_token"] = token.repeat(1, shape.class_tokens, 1)
    table = state.get("pos_embed")
    if table is None or table.ndim != 3 or "pos_embed_pat" in state:
        return found
    extra = _first_tokens(state)
    first, patches = table[:, : token.shape[1]], table[:, extra:]
    side = math.isqrt(patches.shape[1])
    if side * side != patches.shape[1] or not side:
        raise ValueError(f"pos_embed has {patches.shape[1]} patches, which make no square grid")
    first = first.repeat(1, shape.class_tokens, 1) if first.shape[1] == 1 else first
    patches = _regridded(patches, side, shape.grid, repeat=shape.split_positions)
    if shape.split_positions:
        del found["pos_embed"]
        found |= {"pos_embed_cls": first, "pos_embed_pat": patches}
    else:
        found["pos_embed"] = torch.cat([first, patches], 1)
    return found


def _regridded(table: Tensor, side: int, wanted: int, repeat: bool) -> Tensor:
    if side == wanted:
        return table
    x = table.unflatten(1, (side, side)).permute(0, 3, 1, 2)
    if repeat and wanted % side == 0:
        x = x.repeat_interleave(wanted // side, 2).repeat_interleave(wanted // side, 3)
    else:
        x = F.interpolate(x, size=(wanted, wanted), mode="bicubic")
    return x.flatten(2).transpose(1, 2)


def _first_tokens(state: State) -> int:
    """Rows of the table of positions before those of patches."""
    return _shape(state, "cls_token", 3)[1] + ("dist_token" in state)


# --- sizes ---------------------------------------------------------------------------------------


def _shape(state: State, key: str, ndim: int) -> tuple[int, ...]:
    if key not in state:
        have = ", ".join(ascii(name[:40]) for name in list(state)[:4])
        raise ValueError(f"it has no {key}, so it is another network; its tensors are {have}")
    shape = tuple(state[key].shape)
    if len(shape) != ndim or not all(shape):
        raise ValueError(f"{key} is of shape {shape}; {ndim} dimensions are expected")
    return shape


def _depth(state: State, pattern: str) -> int:
    numbers = sorted({int(m[1]) for key in state if (m := re.match(pattern, key))})
    if numbers != list(range(len(numbers))) or not numbers:
        raise ValueError(f"its blocks are numbered {numbers[:8]}, not from 0")
    return len(numbers)


def _of_resnet(state: State, asked: Model) -> Model:
    prefix = "resnet50." if "resnet50.conv1.weight" in state else ""
    own = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
    width, is_deep = _shape(own, "conv1.weight", 4)[0], "layer1.0.conv3.weight" in own
    if is_deep != (asked.name == "resnet50"):
        found = "resnet50" if is_deep else "resnet18"
        raise ValueError(f"its blocks are those of {found}; set model.name")
    depths = tuple(_depth(own, rf"layer{stage}\.(\d+)\.") for stage in range(1, 5))
    for stage, depth in enumerate(depths):  # as for transformers
        planes = width << stage
        for number in range(depth):
            key = f"layer{stage + 1}.{number}.conv2.weight"
            require_shape(own, key, planes, planes, 3, 3)
    return replace(asked, width=width, depths=depths)


def _require_last(state: State, width: int, name: str) -> None:
    """One of the last tensors is of the width that the first one says, as for transformers."""
    if name == "resnet38":
        require_shape(state, "b7.conv_branch2b2.weight", 64 * width, 32 * width, 1, 1)
        return
    with torch.device("meta"):
        last = EfficientNetLite(width).conv_head.weight
    require_shape(state, "_conv_head.weight", *last.shape)


def _of_hivit(state: State, asked: Model) -> Model:
    found = hivit.describe(state)
    if found.grid[0] != found.grid[1]:
        raise ValueError(f"its positions are of a grid of {found.grid}; square ones are read")
    return replace(
        asked, width=found.embed_dim, depths=found.depths, heads=found.num_heads,
        patch_size=found.patch_size, grid=found.grid[0], bias=found.bias,
        stem_ratio=found.stem_ratio, ratio=found.ratio, gated=found.family == "fast",
        layer_scale=0.1 if found.layer_scale else 0.0, conv_stem=found.conv_stem,
        class_token=found.class_token,
    )  # fmt: skip


def _of_run(values: Mapping[str, Any], asked: Model) -> Model:
    return replace(
        asked, width=values["embed_dim"], depths=tuple(values["depths"]), heads=values["heads"],
        patch_size=values["patch_size"], grid=values["size"] // values["patch_size"],
        bias=values["bias"], stem_ratio=values["stem_ratio"], ratio=values["ratio"],
        gated=values["family"] == "fast", layer_scale=values["layer_scale"],
        conv_stem=values["conv_stem"], class_token=values["class_token"],
    )  # fmt: skip


def _file(source: Path) -> Path:
    """The weights that a path means: a file, or those of a run."""
    found = source / WEIGHTS if source.is_dir() else source
    if not found.is_file():
        raise FileNotFoundError(
            f"no file {found}; give weights (.pth, .pt, .safetensors) or a run of itpn"
        )
    return found


def _run(file: Path) -> dict[str, Any] | None:
    """Settings and part of an iTPN run's weights; None for files of others."""
    if not is_run(file):
        return None
    name, values = checkpoint.read_header(file)
    if name != "itpn":
        raise ValueError(f"{file} has weights of {name}; of other systems, those of itpn serve")
    part = next((part for part in PARTS if part in values["tasks"]), None)
    if part is None:
        raise ValueError(
            f"{file}: of iTPN runs those with a task of {', '.join(PARTS)} serve, it has "
            f"{', '.join(values['tasks'])}"
        )
    return {"part": part, "model": values["model"]}
