"""Weights that training starts from: a run of LOUPE, or towers as `transformers` has them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from torch import Tensor, nn

from tenfold.core import checkpoint
from tenfold.core.errors import require_file_or_folder
from tenfold.weights import bert, swin
from tenfold.weights.containers import find_weights, heads_beside, is_run, read_checkpoint
from tenfold.weights.keymap import Converted, KeyMap, Rule

from .config import Config
from .model import Networks


def sized(cfg: Config) -> Config:
    """The configuration with the sizes of the towers that it starts from.

    Raises:
        FileNotFoundError: There are no such weights.
        ValueError: They are of another network; the error names option and file.
    """
    image, text = cfg.image, cfg.text
    if image.weights:
        state = _read(image.weights, "--image.weights")
        with _named("--image.weights", image.weights):
            found = swin.describe_swin(state)
        image = replace(
            image, tower="swin", patch=found.patch_size, dim=found.dim, depths=found.depths,
            heads=found.heads, window=found.window, ratio=found.hidden,
        )  # fmt: skip
    if text.weights:
        state = _read(text.weights, "--text.weights")
        with _named("--text.weights", text.weights):
            size = bert.describe_bert(state)
            heads = heads_beside(find_weights(Path(text.weights), "--text.weights"))
        heads = heads or max(1, size.dim // bert.HEAD_CHANNELS)
        text = replace(
            text, dim=size.dim, depth=size.depth, heads=heads,
            hidden=size.hidden, positions=size.positions,
            vector="first" if text.vector == "pooler" and not size.has_pooler else text.vector,
        )  # fmt: skip
        count = text.vocabulary.count("\n") + 1
        if text.vocabulary and size.vocabulary != count:
            raise ValueError(
                f"--text.weights {text.weights} knows {size.vocabulary} tokens, --text.pieces "
                f"{text.pieces or '(words)'} has {count}; give the vocab.txt of these weights"
            )
    return replace(cfg, image=image, text=text)


def begin(networks: Networks, cfg: Config) -> str:
    """Fill the networks by `cfg.start`, or the towers by files; returns a sentence, or nothing.

    Raises:
        FileNotFoundError: There are no such weights.
        ValueError: They do not fit; every key is listed.
    """
    told = []
    towers = (
        ("image", cfg.image, swin.convert_swin), ("text", cfg.text, bert.convert_bert)
    )  # fmt: skip
    for side, own, convert in towers:
        if own.weights and not cfg.start:
            network: nn.Module = getattr(networks.encoder, side)
            account = convert(_read(own.weights, f"--{side}.weights"), _shapes(network))
            told.append(_filled(network, account, own.weights, cfg))
    if cfg.start:
        require_file_or_folder(Path(cfg.start), "--start")
        file = find_weights(Path(cfg.start), "--start")
        name = checkpoint.read_header(file)[0] if is_run(file) else "another program"
        if name != "loupe":
            raise ValueError(
                f"--start {file} has weights of {name}, not of loupe; towers are taken by "
                "--image.weights and --text.weights"
            )
        same = KeyMap([Rule(r"(.*)", r"\1")])
        account = same.convert(checkpoint.read_tensors(file), _shapes(networks))
        told.append(_filled(networks, account, cfg.start, cfg))
    return "; ".join(told)


def _filled(network: nn.Module, account: Converted, start: str, cfg: Config) -> str:
    account.require_start(start, cfg.allow_missing)
    network.load_state_dict(account.state, strict=False)
    return f"training started from {start}: {len(account.state)} tensors"


def _read(source: str, option: str) -> dict[str, Tensor]:
    require_file_or_folder(Path(source), option)
    file = find_weights(Path(source), option)
    try:
        return dict(read_checkpoint(file))
    except ValueError as error:
        raise ValueError(f"{option} {error}") from error


@contextmanager
def _named(option: str, source: str) -> Iterator[None]:
    """Let an error say of which weights it is."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{option} {source}: {error}") from error


def _shapes(module: nn.Module) -> dict[str, tuple[int, ...]]:
    return {key: tuple(value.shape) for key, value in module.state_dict().items()}
