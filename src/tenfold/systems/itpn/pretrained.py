"""The network that a task starts from: of this run's pre-training, of another run, of a file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from torch import Tensor, nn

from tenfold.core import checkpoint
from tenfold.core.config import from_json
from tenfold.nn.hivit import HiViT
from tenfold.printable import Lines
from tenfold.weights import hivit as weights
from tenfold.weights.containers import is_run, read_checkpoint
from tenfold.weights.hivit import ASIDE, is_neck
from tenfold.weights.keymap import Converted

from .config import Config, Model, Task
from .official import official_keys, resized

ORDER: tuple[Task, ...] = ("pretrain", "classify", "localise", "segment", "detect")
"""Order in which tasks are asked for their backbone, of a run with several."""
SHAPED = (
    "family", "patch_size", "embed_dim", "depths", "heads", "stem_ratio", "ratio", "layer_scale",
    "class_token", "conv_stem", "fpn_dim", "fpn_depth",
)  # fmt: skip
"""Fields of the model that follow from the weights it starts from."""
FINEST = ("align_dim_8to4", "split_8to4", "block_8to4", "fpn_modules.2")
"""Beginnings of the names of its finest level."""


@dataclass(frozen=True)
class Given:
    """Weights to start from, under official names."""

    source: str
    model: Model
    state: dict[str, Tensor]
    grid: tuple[int, int]
    normalise: Literal["imagenet", "half"]
    """How the pictures were normalised that they learned from."""


def of_backbone(backbone: nn.Module) -> dict[str, Tensor]:
    """A backbone's tensors under official names."""
    names = official_keys(backbone)
    state = backbone.state_dict()
    return {key: state[name].detach().clone() for key, name in names.items()}


def read(path: str) -> Given:
    """Weights of a run (its folder or its weights file), or a checkpoint in the official layout."""
    source = Path(path)
    if not source.exists():
        raise FileNotFoundError(f"start {source} does not exist; give a run or a checkpoint")
    if source.is_dir():
        source = source / "weights.safetensors"
        if not source.exists():
            raise FileNotFoundError(
                f"start {source.parent} has no weights.safetensors; is its training finished?"
            )
    if is_run(source):
        return _of_run(source)
    state = read_checkpoint(source)
    layout = weights.describe(state)
    how: Literal["imagenet", "half"] = "imagenet" if layout.family == "pixel" else "half"
    return Given(str(source), model_of(layout), weights.ours(state), layout.grid, how)


def _of_run(source: Path) -> Given:
    name, values = checkpoint.read_header(source)
    if name != "itpn":
        raise ValueError(f"start {source} has weights of {name}, not of itpn")
    cfg = from_json(Config, values)
    state = checkpoint.read_tensors(source)
    task = next(task for task in ORDER if task in cfg.tasks)
    prefix = f"{task}.backbone."
    own = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
    side = cfg.model.size // cfg.model.patch_size
    where, how = f"{source.parent} ({task})", cfg.data.normalise
    return Given(where, cfg.model, own, (side, side), how)


def model_of(layout: weights.Layout) -> Model:
    """Our settings of an official layout."""
    return Model(
        family=layout.family,
        size=layout.grid[0] * layout.patch_size,
        patch_size=layout.patch_size,
        embed_dim=layout.embed_dim,
        depths=layout.depths,
        heads=layout.num_heads,
        stem_ratio=layout.stem_ratio,
        ratio=layout.ratio,
        layer_scale=0.1 if layout.layer_scale else 0.0,
        bias=layout.bias,
        class_token=layout.class_token,
        conv_stem=layout.conv_stem,
        fpn_dim=layout.fpn_dim,
        fpn_depth=layout.fpn_depth,
    )


def adapted(cfg: Config) -> Config:
    """The configuration with the sizes of the weights that it starts from."""
    if not cfg.start:
        return cfg
    given = read(cfg.start).model
    own = {name: getattr(given, name) for name in SHAPED}
    if not given.fpn_dim:  # the file has no pyramid: what is asked for starts at random
        own.update(fpn_dim=cfg.model.fpn_dim, fpn_depth=cfg.model.fpn_depth)
    return replace(cfg, model=replace(cfg.model, **own))


def begin(
    backbone: HiViT, given: Mapping[str, Tensor], source: str, allow_missing: bool
) -> Converted:
    """Load a backbone; ValueError lists whatever is missing or unused and should not be.

    What may differ: a task without a pyramid leaves one unused, bias tables start at zero where the
    source has none, and of a source without any pyramid (HiViT-MAE) a new one starts at random, as
    does the finest level of one pre-trained without it.
    """
    names = official_keys(backbone)
    state = backbone.state_dict()
    target = {key: tuple(state[name].shape) for key, name in names.items()}
    has_neck = any(is_neck(key) for key in given)
    needs_neck = backbone.shape.fpn_dim > 0
    kept = dict(given)
    ignored = []
    for key in given:
        if key.startswith(ASIDE):
            ignored.append((key, "decoder or head, which no task starts from"))
            del kept[key]
        elif is_neck(key) and not needs_neck:
            ignored.append((key, "the pyramid, which this task does not use"))
            del kept[key]
        elif "position_bias" in key or ".rel_pos_" in key:
            if key not in target:
                ignored.append((key, "relative positions, which model.bias leaves out"))
                del kept[key]
    account = weights.convert(resized(kept, target), target)
    fresh = [k for k in account.missing if "position_bias" in k or ".rel_pos_" in k]
    if needs_neck and not has_neck:
        fresh += [k for k in account.missing if is_neck(k)]
    elif needs_neck and not any(key.startswith(FINEST) for key in given):
        fresh += [k for k in account.missing if k.startswith(FINEST)]
    account.missing = [key for key in account.missing if key not in fresh]
    account.ignored += ignored + [(key, "not in the source: starts anew") for key in fresh]
    if not allow_missing:
        try:
            account.require_complete()
        except ValueError as error:
            said = Lines(
                f"{source} does not fit; set model.fpn_depth and the like as it has them, or "
                f"--allow-missing. {error}"
            )
            raise ValueError(said) from None
    found = {names[key]: value for key, value in account.state.items()}
    backbone.load_state_dict(found, strict=False)
    return account
