"""Weights that training starts from: a run, a file of the authors' layout, an encoder alone."""

from __future__ import annotations

from pathlib import Path

from tenfold.core import checkpoint
from tenfold.core.errors import require_file_or_folder
from tenfold.weights.containers import find_weights, is_run
from tenfold.weights.keymap import KeyMap, Rule

from . import official
from .config import Config
from .segmentation import Network

SAME = KeyMap([Rule(r"(?!texts\.)(.*)", r"\1")], [(r"texts\..*", "the run's own texts")])


def begin(network: Network, cfg: Config) -> str:
    """Fill the network by `cfg.start`, but for its table of texts; returns a sentence, or nothing.

    Raises:
        FileNotFoundError: There are no such weights.
        ValueError: They do not fit; every key is listed.
    """
    if not cfg.start:
        return ""
    source = Path(cfg.start)
    require_file_or_folder(source, "--start")
    file = find_weights(source, "--start")
    shapes = {key: tuple(value.shape) for key, value in network.state_dict().items()}
    if is_run(file):
        name, _ = checkpoint.read_header(file)
        if name != "virreq":
            raise ValueError(f"--start {file} has weights of {name}, not of virreq")
        account = SAME.convert(checkpoint.read_tensors(file), shapes)
        account.missing = [key for key in account.missing if not key.startswith("texts.")]
    else:
        account = official.convert(official.read_official(file), shapes)
    network.load_state_dict(account.require_complete(), strict=False)
    return f"training started from {source}: {len(account.state)} tensors"
