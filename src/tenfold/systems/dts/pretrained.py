"""Weights that training starts from: a run, an official checkpoint, an ImageNet encoder."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from tenfold.core import checkpoint
from tenfold.core.errors import require_file_or_folder
from tenfold.data.images.class_maps import CITYSCAPES_NAMES
from tenfold.weights.containers import find_weights, is_run
from tenfold.weights.keymap import Converted, KeyMap, Rule

from . import backbones, official
from .config import Config, Model
from .model import Network, Networks
from .recipes import RECIPES

SAME = KeyMap([Rule(r"(.*)", r"\1")])


@dataclass(frozen=True)
class Begun:
    """Parts of a run that given weights have filled."""

    origin: str = ""
    """Sentence for the report; empty where training starts from random weights."""
    head: bool = False
    """Whether student 1 has a trained head, too."""
    groups: bool = False
    """Whether all students and teachers are filled."""


def begin(networks: Networks, cfg: Config) -> Begun:
    """Fill student 1, or all networks from a run of the same method, by `cfg.start`.

    Raises:
        FileNotFoundError: There are no such weights.
        ValueError: They do not fit; every key is listed. With `allow_missing` that is a warning.
    """
    if not cfg.start:
        return Begun()
    source = Path(cfg.start)
    require_file_or_folder(source, "--start")
    file = find_weights(source, "--start")
    require_file_or_folder(file, "--start")
    name, values = checkpoint.read_header(file) if is_run(file) else ("", {})
    if name != "dts":
        account = _of_others(networks.student(1), file, name, cfg)
        _take(networks.student(1), account, cfg)
        has_head = any(key.startswith("decode_head.") for key in account.state)
        return Begun(_sentence(source, account), has_head)
    state = checkpoint.read_tensors(file)
    if values["method"] == cfg.method and _shapes(state) == _shapes(networks.state_dict()):
        networks.load_state_dict(state)
        return Begun(f"training started from all networks of {source}", True, True)
    deployed = values["groups"]["deploy"].replace("ensemble", "teacher1") + "."
    own = {k.removeprefix(deployed): v for k, v in state.items() if k.startswith(deployed)}
    account = SAME.convert(own, _shapes(networks.student(1).state_dict()))
    _take(networks.student(1), account, cfg)
    return Begun(_sentence(source, account), True)


def _of_others(network: Network, file: Path, name: str, cfg: Config) -> Converted:
    """Weights that are of no run of this system by our keys, with the account of every key."""
    if backbones.is_transformer(cfg.model):
        account = backbones.converted(cfg, _shapes(network.backbone.state_dict()))
        return account.with_prefix("backbone.")
    if name:
        hint = "; --model.encoder hivit takes its backbone" if name == "itpn" else ""
        raise ValueError(f"--start {file} has weights of {name}, not of dts{hint}")
    return read_official(network, file)


def read_official(network: Network, source: Path) -> Converted:
    """An official file by our keys, with the account of every key."""
    state = official.read_official(source)
    return official.convert(state, _shapes(network.state_dict()))


def fill(network: Network, source: Path) -> Converted:
    """Fill a network from an official file; returns the account of every key."""
    account = read_official(network, source)
    network.load_state_dict(account.state, strict=False)
    return account


def configuration_of(source: Path) -> Config:
    """The configuration of an official file's network: sizes by its shapes, classes by its count.

    Raises:
        ValueError: It has no head, or a head that is not built here.
    """
    found = official.describe(official.read_official(source))
    if found.head == "none":
        raise ValueError(
            f"{source} has an encoder alone; train from it: "
            f"tenfold train dts paper --start {source}"
        )
    is_hrda, count = found.head == "hrda", found.num_classes
    model = Model(
        dims=_four(found.encoder.dims), depths=_four(found.encoder.depths),
        heads=_four(found.encoder.heads), reductions=_four(found.encoder.reductions),
        head="segformer" if found.head == "segformer" else "daformer", head_dim=found.channels,
        detail=(512, 512) if is_hrda else (0, 0),
    )  # fmt: skip
    names: tuple[str, ...] = CITYSCAPES_NAMES
    if count != len(names):
        names = tuple(f"class {number}" for number in range(count))
    recipe = RECIPES["paper-hrda" if is_hrda else "paper"]
    groups = replace(recipe.groups, deploy="student1")
    return replace(recipe, method="source", model=model, groups=groups, classes=names)


def _four(values: tuple[int, ...]) -> tuple[int, int, int, int]:
    first, second, third, fourth = values
    return first, second, third, fourth


def _shapes(state: dict[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {key: tuple(value.shape) for key, value in state.items()}


def _take(network: Network, account: Converted, cfg: Config) -> None:
    account.require_start(cfg.start, cfg.allow_missing)
    network.load_state_dict(account.state, strict=False)


def _sentence(source: Path, account: Converted) -> str:
    return f"training started from {source}: {len(account.state)} tensors of each student"
