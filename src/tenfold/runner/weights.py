"""Weights on disk: write them, find them, open them."""

from __future__ import annotations

import json
import shlex
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tenfold.core import checkpoint, dist
from tenfold.core.capabilities import Learns, RunsOfficial
from tenfold.core.config import absolute, from_json, get, require_finite, to_json
from tenfold.core.errors import require_file_or_folder
from tenfold.core.seed import seed_everything, undisturbed
from tenfold.core.system import System
from tenfold.core.versions import Versions
from tenfold.data.sets import SETS
from tenfold.files import require_empty
from tenfold.printable import printable
from tenfold.report.card import write_model_card
from tenfold.systems import SYSTEMS

AnySystem = System[Any]


def completed(cls: type[AnySystem], cfg: Any) -> Any:
    """A configuration as it is built from and stored: checked, with absolute paths, filled in.

    Raises:
        ValueError: A number is NaN or infinite, or the data do not fit.
        FileNotFoundError: The data are not there.
    """
    require_finite(cfg)
    cfg = absolute(cfg, cls.paths)
    for name in cls.paths:
        path = get(cfg, name)
        _require_writable_name(path, name)
        if path and Path(path).exists():  # who needs it says what is missing
            require_file_or_folder(Path(path), f"--{name}")
    _require_read(cls, cfg)
    try:
        return cls.complete(cfg)
    except FileNotFoundError as error:
        own = _of_own(cls, cfg)
        if not own or error.errno is not None:  # one of the operating system's speaks for itself
            raise
        raise FileNotFoundError(f"{str(error).rstrip('.')}. {own}") from error


def _require_writable_name(path: str, field: str) -> None:
    """Refuse a path that config.json cannot hold, before a run is made that nobody can open."""
    try:
        path.encode()
    except UnicodeEncodeError as error:  # names of files may be any bytes
        raise ValueError(
            f"--{_option(field)} {printable(path)} is no UTF-8 text, which config.json cannot "
            "hold; rename the folder or file, or give a link to it"
        ) from error


def _require_read(cls: type[AnySystem], cfg: Any) -> None:
    """Refuse the place of a data set beside the name of one that has none: it would not be read."""
    for place, name in cls.sets.items():
        if get(cfg, place) and get(cfg, name) in cls.generated:
            way = cls.own_data or "and the name of a set that has its form"
            raise ValueError(
                f"{place} is {get(cfg, place)}, but {name} is {get(cfg, name)}, which is not read "
                f"from files. Add --{_option(name)} {way}."
            )


def _of_own(cls: type[AnySystem], cfg: Any) -> str:
    """What to add to an error about a set whose place was given: how files of one's own are named.

    Whoever gives a place alone gets the recipe's set, whose files theirs are not.
    """
    given = dict.fromkeys(name for place, name in cls.sets.items() if get(cfg, place))
    public = [f"--{_option(name)} {cls.own_data}" for name in given if get(cfg, name) in SETS]
    return f"Files of your own are {' or '.join(public)}." if cls.own_data and public else ""


def _option(field: str) -> str:
    return field.replace("_", "-")


def construct(cls: type[AnySystem], cfg: Any) -> AnySystem:
    """Build a system from its configuration, with weights that follow from the seed alone."""
    seed_everything(cfg.seed, "weights")
    return cls(cfg)


def save_weights(path: Path, name: str, system: AnySystem) -> None:
    """Write a system's weights with all that is needed to open them: name and configuration.

    The first process does it; of a divided model all call it, and send it their parts.
    """
    from tenfold import __version__

    header = {"system": name, "config": to_json(system.cfg), "version": __version__}
    # one entry: safetensors writes several in random order, and equal runs make equal files
    metadata = {"tenfold": json.dumps(header)}
    if not system.is_divided:
        checkpoint.write_tensors(path, system.model.state_dict(), metadata)
        return
    stream = system.streamed()
    if dist.current().is_first:
        checkpoint.stream_tensors(path, stream.shapes, stream.tensors, metadata)
    else:
        for _ in stream.tensors:
            pass


def save_converted(folder: Path, name: str, system: AnySystem, account: str) -> Path:
    """Write weights that came from an official checkpoint, with the account and a model card."""
    require_empty(folder, "--out")
    save_weights(folder / "weights.safetensors", name, system)
    checkpoint.write_text(folder / "conversion.txt", account + "\n")
    card = {
        "system": name,
        "recipe": "converted from an official checkpoint",
        "paper": asdict(system.paper),
        "parameters": sum(p.numel() for p in system.model.parameters()),
        "intended": system.intended,
        "licence": system.paper.weights_licence,
        "notes": ["conversion.txt lists what became of every key"],
    }
    write_model_card(folder, card)
    return folder


def weights_of(path: Path) -> Path:
    """The weights file of a run folder, or the file itself."""
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist; give a run folder or a .safetensors file")
    require_file_or_folder(path)
    file = path / "weights.safetensors" if path.is_dir() else path
    if not file.exists() and not (path / "config.json").exists():
        raise FileNotFoundError(
            f"{path} holds no weights.safetensors and is no run folder; give one, or weights alone"
        )
    if not file.exists():
        raise FileNotFoundError(
            f"{path} holds no weights.safetensors: the run is unfinished; "
            "give its `tenfold train` command again, it continues"
        )
    require_file_or_folder(file)
    return file


def _way_out(weights: Path) -> str:
    """What to do about weights that are damaged."""
    if (weights.parent / "checkpoints").is_dir():
        return (
            f"delete it and {weights.parent / 'result.json'}, and give the run's `tenfold train` "
            "command again: it writes both anew from what each stage left"
        )
    return "restore it from a copy"


def system_of(path: Path) -> str:
    """The name of the system that a run, a weights file or an official file belongs to."""
    return official_of(path) or checkpoint.read_header(weights_of(path))[0]


def official_of(path: Path) -> str:
    """The system that predicts with the file (or a folder of such files) as it is, or nothing."""
    if not path.exists() or (path / "weights.safetensors").exists():
        return ""
    files = path.iterdir() if path.is_dir() else [path]
    endings = {file.suffix for file in files}
    return next((n for n, entry in SYSTEMS.items() if entry.opens and entry.opens in endings), "")


def versions_of(run: Path) -> Versions:
    """The versions of a run folder; their errors say the command that leads out."""
    return Versions(run, f"tenfold learn {shlex.quote(str(run))} --to")


def load(cls: type[AnySystem], path: Path) -> AnySystem:
    """Open a trained system, ready for `predict`; see `tenfold.load`.

    Args:
        cls: Class of the system that the weights belong to (`system_of` names it).
        path: A run folder, a weights file, or an official file or folder of such files.

    Returns:
        The system on the CPU, in eval mode, with the classes that were learned after training.

    Raises:
        FileNotFoundError: `path` does not exist, or the run in it is unfinished.
        ValueError: The weights are damaged, not of tenfold, or do not fit their configuration.
    """
    if official_of(path):
        assert issubclass(cls, RunsOfficial)
        return cls.open(path)
    file = weights_of(path)
    _, values = checkpoint.read_header(file)
    with undisturbed():  # who seeds, opens a run and adds layers gets the layers of that seed
        system = construct(cls, from_json(type(next(iter(cls.recipes.values()))), values))
    if path.is_dir() and (path / "work").is_dir():
        system.work = path / "work"
    if system.is_divided:
        checkpoint.verify(file, _way_out(file))
        system.read_from(file)
    else:
        try:
            system.model.load_state_dict(checkpoint.read_tensors(file, _way_out(file)))
        except RuntimeError as error:  # torch lists every key on a line of its own
            raise ValueError(f"{file} does not fit its own configuration: {error}") from error
    system.model.eval()
    learned, version = versions_of(file.parent).read()  # after the training
    if version is not None:
        assert isinstance(system, Learns)
        system.restore_learned(learned, version.classes)
    return system
