"""Weights that training starts from: a run, a published checkpoint, an ImageNet backbone."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path

from tenfold.core import checkpoint
from tenfold.core.errors import require_file_or_folder
from tenfold.nn.condinst import CondInst
from tenfold.weights.containers import find_weights, is_run
from tenfold.weights.keymap import Converted, KeyMap, Rule

from . import official
from .config import Config, Model
from .recipes import RECIPES

SAME = KeyMap([Rule(r"(.*)", r"\1")])


def begin(network: CondInst, cfg: Config) -> str:
    """Fill the network by `cfg.start`; returns a sentence for the report, empty without a start.

    Raises:
        FileNotFoundError: There are no such weights.
        ValueError: They do not fit; every key is listed. With `allow_missing` that is a warning.
    """
    if not cfg.start:
        return ""
    source = Path(cfg.start)
    require_file_or_folder(source, "--start")
    file = find_weights(source, "--start")
    require_file_or_folder(file, "--start")
    shapes = {key: tuple(value.shape) for key, value in network.state_dict().items()}
    if is_run(file):
        name, _ = checkpoint.read_header(file)
        if name != "apis":
            raise ValueError(f"--start {file} has weights of {name}, not of apis")
        account = SAME.convert(checkpoint.read_tensors(file), shapes)
        _leave_other_classes(account)
    else:
        account = official.load(network, file)
    account.require_start(cfg.start, cfg.allow_missing)
    network.load_state_dict(account.state, strict=False)
    return f"training started from {source}: {len(account.state)} tensors"


def _leave_other_classes(account: Converted) -> None:
    """Start the classifier anew where a run was of another number of classes."""
    other = [entry for entry in account.mismatched if entry[0].startswith(official.CLASSIFIER)]
    if other:
        warnings.warn("the run has other classes: the classifier starts anew", stacklevel=3)
        account.mismatched = [entry for entry in account.mismatched if entry not in other]
        account.ignored += [(key, official.ANEW) for key, *_ in other]


def configuration_of(source: Path) -> tuple[Config, Converted]:
    """The configuration of a published checkpoint, by its shapes, and its tensors.

    Raises:
        FileNotFoundError: There is none.
        ValueError: It holds something else; what does not fit is listed.
    """
    network, account = official.opened(source)
    own = network.settings
    model = Model(
        widths=own.widths, depths=own.depths, channels=own.channels, groups=own.groups,
        convs=own.convs, bounds=own.bounds, branch=own.branch_channels,
        branch_convs=own.branch_convs, mask_channels=own.mask.features,
    )  # fmt: skip
    count = len(account.state[f"{official.CLASSIFIER}bias"])
    names = tuple(f"class {number}" for number in range(1, count + 1))
    return replace(RECIPES["paper"], model=model, classes=names), account
