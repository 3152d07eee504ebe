"""Weights that training starts from: a run, a file of the authors' layout, an encoder alone."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from tenfold.core import checkpoint
from tenfold.core.errors import require_file_or_folder
from tenfold.weights.containers import find_weights, is_run
from tenfold.weights.keymap import KeyMap, Rule

from . import official
from .config import Config
from .model import Networks

TEXTS = r"divide\.texts\..*|.*\.cls_logits\.text"
"""Keys of texts: those of encoders are the run's own, learned ones are taken over."""


def begin(networks: Networks, cfg: Config) -> str:
    """Fill the networks by `cfg.start`, but for an encoder's texts; returns a sentence, or nothing.

    An official file has the network that divides regions; a run has both.

    Raises:
        FileNotFoundError: There are no such weights.
        ValueError: They do not fit; every key is listed.
    """
    if not cfg.start:
        return ""
    source = Path(cfg.start)
    require_file_or_folder(source, "--start")
    file = find_weights(source, "--start")
    if is_run(file):
        name, _ = checkpoint.read_header(file)
        if name != "virreq":
            raise ValueError(f"--start {file} has weights of {name}, not of virreq")
        shapes = _shapes(networks)
        ignored = [] if cfg.text.source == "learned" else [(TEXTS, "the run's own texts")]
        same = KeyMap([Rule(r"(.*)", r"\1")], ignored)
        account = same.convert(checkpoint.read_tensors(file), shapes)
        own = dict(account.ignored)
        account.missing = [key for key in account.missing if key not in own]
    else:
        shapes = _shapes(networks.divide)
        account = official.convert(official.read_official(file), shapes).with_prefix("divide.")
    account.require_start(cfg.start, cfg.allow_missing)
    networks.load_state_dict(account.state, strict=False)
    return f"training started from {source}: {len(account.state)} tensors"


def _shapes(module: nn.Module) -> dict[str, tuple[int, ...]]:
    return {key: tuple(value.shape) for key, value in module.state_dict().items()}
