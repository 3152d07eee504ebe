"""Weights that training starts from: a run, a file of ImageNet's, a checkpoint of a peer."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from torch import Tensor

from tenfold.core import checkpoint
from tenfold.core.errors import require_file_or_folder
from tenfold.weights import containers
from tenfold.weights.keymap import Converted

from . import official
from .backbones import Name
from .config import Config
from .model import Networks
from .networks import build
from .recipes import RECIPES
from .seeds import Rule

BODY = "seed.body."
OWN = ("threshold",)
"""What a run finds by itself each time."""


def adapted(cfg: Config) -> Config:
    """The configuration with the sizes of the file that training starts from.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is of another kind of network.
    """
    if not cfg.start:
        return cfg
    source = Path(cfg.start)
    require_file_or_folder(source, "--start")
    if is_run(source):
        return cfg
    return replace(cfg, model=official.describe(source, cfg.model))


def is_run(source: Path) -> bool:
    """True for a run of this system, or its weights file."""
    file = source / "weights.safetensors" if source.is_dir() else source
    ours = file.is_file() and containers.is_run(file)
    return ours and checkpoint.read_header(file)[0] == "usage"


def begin(networks: Networks, cfg: Config) -> str:
    """Fill the networks from `cfg.start`; returns a sentence for the report.

    Of a run every network is taken; of another file the seed network's backbone, with which the
    networks of later stages start, too.

    Raises:
        FileNotFoundError: There are no such weights.
        ValueError: They do not fit; every key is listed. With `allow_missing` that is a warning.
    """
    if not cfg.start:
        if cfg.model.frozen_stages < 0 and cfg.is_seed_trained and not cfg.allow_missing:
            raise ValueError(
                f"model.frozen_stages is -1, but no weights of {cfg.model.name} are given to start "
                "from, and a frozen backbone of random ones learns nothing: give --start FILE "
                "(weights of ImageNet, or a run), or train a network from scratch (--model.name "
                "resnet18 --model.frozen-stages 0); --allow-missing does it all the same"
            )
        return ""
    source = Path(cfg.start)
    if is_run(source):
        return _from_run(networks, cfg, source)
    account = official.load(networks.seed, source)
    account.require_start(cfg.start, cfg.allow_missing)
    body = networks.seed.body.state_dict()
    for other in networks.bodies():
        other.load_state_dict(body)
    return f"training started from {source}: {len(account.state)} tensors of the backbone"


def _from_run(networks: Networks, cfg: Config, source: Path) -> str:
    file = source / "weights.safetensors" if source.is_dir() else source
    state, own = checkpoint.read_tensors(file), networks.state_dict()
    account = Converted()
    for key, value in state.items():
        if key in OWN:
            continue
        if key not in own:
            account.unused.append(key)
        elif value.shape != own[key].shape:
            account.mismatched.append((key, tuple(value.shape), tuple(own[key].shape)))
        else:
            account.state[key] = value
    account.missing = [key for key in own if key not in state and key not in OWN]
    account.require_start(cfg.start, cfg.allow_missing)
    networks.load_state_dict(account.state, strict=False)
    return f"training started from {source}: {len(account.state)} tensors"


def read_official(source: Path) -> tuple[Config, dict[str, Tensor], Converted]:
    """A peer's checkpoint of a seed network: its configuration, tensors, and their account.

    Raises:
        ValueError: It fits no kind, or has a backbone without a head for classes.
    """
    state = official.read(source)
    kind, count = _kind(state), _classes(state)
    if kind is None or count is None:
        raise ValueError(
            f"{source} is no seed network with a head for classes; train from an ImageNet file: "
            f"tenfold train usage paper --start {source}"
        )
    recipe = RECIPES["paper" if kind.startswith("mctformer") else "paper-resnet38"]
    is_seam = kind == "resnet38" and official.has_background(state)
    try:
        model = official.described(state, replace(recipe.model, name=kind, correlation=is_seam))
        account = official.convert(state, build(model, count))
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from error
    cfg = replace(
        recipe,
        model=model,
        seeds=replace(recipe.seeds, rule="seam" if is_seam else RULES[kind]),
        segment=replace(recipe.segment, steps=0),
        refine=replace(recipe.refine, walk="none", crf=True),
        classes=tuple(f"class {number}" for number in range(count)),
    )
    return cfg, account.state, account


RULES: dict[Name, Rule] = {
    "mctformer": "mctformer", "mctformer-plus": "mctformer-plus", "resnet38": "psa",
    "resnet50": "irn",
}  # fmt: skip
"""Kind of a peer's network -> how its maps are merged."""
MARKS: tuple[tuple[str, Name], ...] = (
    ("conv1a.weight", "resnet38"), ("pos_embed_pat", "mctformer-plus"),
    ("cls_token", "mctformer"), ("resnet50.conv1.weight", "resnet50"),
)  # fmt: skip
"""A tensor -> the kind of network that has it, the first of them."""


def _kind(state: dict[str, Tensor]) -> Name | None:
    return next((kind for key, kind in MARKS if key in state), None)


def _classes(state: dict[str, Tensor]) -> int | None:
    """Classes of a file's head; SEAM's first output is the background's."""
    for key in ("fc8.weight", "classifier.weight", "head.weight"):
        if key in state and state[key].ndim == 4:
            return len(state[key]) - (key == "fc8.weight" and official.has_background(state))
    return None
