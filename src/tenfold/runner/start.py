"""Weights that a training starts from: of another run, of a file, of an official checkpoint."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from torch import Tensor

from tenfold.core import checkpoint, run_folder
from tenfold.core.capabilities import Converts
from tenfold.core.config import absolute, from_json, get, to_json, with_field
from tenfold.core.errors import require_file_or_folder
from tenfold.weights.keymap import Converted, KeyMap, Rule

from .weights import AnySystem, completed, weights_of

SAME = KeyMap([Rule(r"(.*)", r"\1")])
"""Keys of a run are those of another run of the same system."""
KEPT = "checkpoints/start.safetensors"
"""File of a run with the weights that it began with: `--start` may change, or go, meanwhile."""


def completed_again(cls: type[AnySystem], recipe: str, cfg: Any, folder: Path) -> Any:
    """`completed`, also of the run in a folder whose weights to start from are gone.

    What only they could decide is in its config.json.

    Raises:
        ValueError: A number is NaN or infinite, or the data do not fit.
        FileNotFoundError: The data, or weights of a run that has not begun, are not there.
    """
    whole = absolute(cfg, cls.paths)
    gone = [name for name in cls.starts if (path := get(whole, name)) and not Path(path).exists()]
    saved = run_folder.read_config(folder) if gone and (folder / KEPT).exists() else None
    if saved is None:
        return completed(cls, cfg)
    begun = to_json(from_json(type(cfg), saved["config"]))
    default, values = to_json(cls.recipes.get(recipe, cfg)), to_json(whole)
    for group in cls.sized_by_start:
        values[group] = _begun(values[group], default[group], begun[group])
    other = from_json(type(cfg), values)
    for name in gone:
        other = with_field(other, name, "")
    other = completed(cls, other)
    for name in gone:
        other = with_field(other, name, get(whole, name))
    return other


def _begun(given: Any, default: Any, begun: Any) -> Any:
    """Values as they were begun with, but for those that were asked for: they may be others."""
    if isinstance(given, dict):
        return {key: _begun(value, default[key], begun[key]) for key, value in given.items()}
    return begun if given == default else given


def keep_start(folder: Path, system: AnySystem, given: dict[str, Tensor]) -> None:
    """Write what a run begins with into its folder, unless that is random or there already."""
    if system.kept is None and any(get(system.cfg, name) for name in system.starts):
        tensors = given or system.model.state_dict()
        checkpoint.write_start(folder / KEPT, tensors, system.begun)


def start_from(system: AnySystem, name: str) -> dict[str, Tensor]:
    """Give a system that is about to be trained the weights that `cfg.start` names.

    Returns them by their keys in the model; those of one that starts itself are read by its stages.

    Raises:
        FileNotFoundError: There are no such weights.
        ValueError: They are of another system, or keys or shapes differ, which are all listed;
            with `allow_missing` that is a warning, and what does not fit starts anew.
    """
    source, lenient = system.cfg.start, system.cfg.allow_missing
    if not source or system.starts_itself:
        return {}
    if system.kept is not None:
        state, system.begun = checkpoint.read_start(system.kept)
        system.begin(state)
        system.origin = system.begun
        return state
    found, account = _read(type(system), name, Path(source), lenient)
    shapes = {key: tuple(value.shape) for key, value in system.model.state_dict().items()}
    fitted = SAME.convert(system.fitting(found), shapes)
    fitted.ignored += account.ignored
    fitted.unused += account.unused
    other = _mismatched(account)
    fitted.mismatched += account.mismatched
    fitted.missing = [key for key in fitted.missing if key not in other]
    if not fitted.is_complete:
        if not lenient:
            raise ValueError(fitted.misfit(source))
        warnings.warn(fitted.misfit(source), stacklevel=2)
    if not fitted.state:
        raise ValueError(f"{source} has no tensor that fits this configuration")
    system.begin(fitted.state)
    anew = len(shapes) - len(fitted.state)
    system.origin = f"training started from {source}: {len(fitted.state)} tensors" + (
        f"; {anew} others started anew" if anew else ""
    )
    system.begun = system.origin
    return fitted.state


def _read(
    cls: type[AnySystem], name: str, source: Path, lenient: bool
) -> tuple[dict[str, Tensor], Converted]:
    """Tensors by our keys, and the account of an official checkpoint, empty for one of ours."""
    require_file_or_folder(source, "--start")
    is_official = source.suffix != ".safetensors" and not (source.is_dir() and _has_ours(source))
    if is_official and issubclass(cls, Converts):
        made, account = cls.convert(source)
        if not lenient:
            account.require_complete()
        unfilled = _mismatched(account).union(account.missing)  # random numbers, not the file's
        state = {k: v for k, v in made.model.state_dict().items() if k not in unfilled}
        return state, account
    if is_official and source.is_file():
        raise ValueError(
            f"--start {source} is no .safetensors file, and {name} has no official checkpoints"
        )
    file = weights_of(source)
    other, _ = checkpoint.read_header(file)
    if other != name:
        raise ValueError(f"--start {source} has weights of {other}, not of {name}")
    return checkpoint.read_tensors(file), Converted()


def _mismatched(account: Converted) -> set[str]:
    """Our keys whose tensor has another shape in the file."""
    return {key for key, *_ in account.mismatched}


def _has_ours(folder: Path) -> bool:
    """True for a run; transformers writes a config.json, too, which names no system."""
    if (folder / "weights.safetensors").exists():
        return True
    config = folder / "config.json"
    content = checkpoint.read_json(config) if config.is_file() else None
    return isinstance(content, dict) and "system" in content
