"""The identity of a run folder: who wrote it, which of its files are ours, and what else is there.

A run is a folder whose `config.json` tenfold wrote. Only files of the closed list below are ever
deleted in one; anything else is the user's.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tenfold.files import parse_json, read_object, write_json

from . import lock
from .config import differences, with_defaults

KEY = "tenfold"
"""Key of `config.json` that says who wrote it: our version."""
JOURNAL = "prediction.jsonl"
"""File of a folder of predictions: what made them, then a line for each file."""
SHAPE = {"system": str, "recipe": str, "config": dict}
BEST = r"best(-\d{9})?"
"""Best weights of a stage with their step, which version 1.0.0 did not give them."""
SUM = r"(\.sha256)?"
OURS = re.compile(
    r"config\.json|environment\.json|metrics\.jsonl|result\.json|report\.html|MODEL_CARD\.md"
    rf"|weights\.safetensors{SUM}"
    r"|official/(pangu_weather_\d+\.onnx|grid\.json)"
    r"|official/model(-\d{5}-of-\d{5})?\.safetensors(\.index\.json)?"
    rf"|official/(open_clip_)?model\.safetensors{SUM}"
    r"|official/(text/)?((open_clip_|preprocessor_|tokenizer_)?config|tokenizer)\.json"
    r"|official/(text/)?vocab\.txt"
    r"|pictures/captions\.json"
    r"|tensorboard/[^/]+/events\.out\.tfevents\.[\w.-]+"
    rf"|checkpoints/start\.safetensors{SUM}"
    rf"|checkpoints/[^/]+/((done|follows)\.json|final\.pt{SUM}|(final|{BEST})\.safetensors{SUM})"
    rf"|checkpoints/[^/]+/(final|{BEST}|step-\d{{9}})(\.tmp)?"
    rf"/(state\.pt|[^/]+\.(safetensors|json)){SUM}"
    r"|learned/(current\.json|lock|\d{4,9}\.safetensors|\d{4,9}/[^/]+\.(png|jpg|gif|html|json))"
    r"|work/(seeds|confident|masks)/(.+/)?([^/]+\.(npz|png)|made\.json)"
    rf"|work/rounds/(answers\.jsonl|[a-z0-9]+\.json|[a-z0-9]+\.safetensors{SUM})"
    rf"|predictions/(.+/)?{re.escape(JOURNAL)}"
)
"""Files of a run by their paths in it; those that a run names itself are found by `_named`."""
TEMPORARY = re.compile(r"(.+)\.tmp|\.(report\.html|MODEL_CARD\.md)\.\d+\.tmp")
"""Names of files that were being written when a process was killed (the second: once)."""
FOLDERS = (
    "pictures", "checkpoints", "learned", "predictions", "official", "work", "tensorboard"
)  # fmt: skip


@dataclass(frozen=True)
class Contents:
    """Files of a run folder by their paths in it, sorted by whose they are."""

    ours: list[str]
    leftovers: list[str]
    """Ours, half-written by a process that was killed."""
    foreign: list[str]

    def found(self) -> str:
        """Name what is not ours, the first few."""
        more = f" and {len(self.foreign) - 3} more" if len(self.foreign) > 3 else ""
        return ", ".join(self.foreign[:3]) + more


def read_config(folder: Path) -> dict[str, Any] | None:
    """The `config.json` of a run, without our key; None if there is none or others wrote it.

    Raises:
        ValueError: It is damaged, or holds no object.
    """
    file = folder / "config.json"
    if not file.exists():
        return None
    found = read_object(file, {})
    ours = KEY in found
    if not ours:  # runs of before we wrote our key: every configuration of ours has these
        config = found.get("config")
        ours = {"system", "recipe"} <= found.keys() and isinstance(config, dict)
        ours = ours and isinstance(config, dict) and {"seed", "loop"} <= config.keys()
    if not ours:
        return None
    whole = read_object(file, SHAPE, tuple(SHAPE))
    return {key: whole[key] for key in SHAPE}


def write_config(folder: Path, identity: dict[str, Any]) -> None:
    """Make the folder that of a run: system, recipe and config, and that we wrote them."""
    from tenfold import __version__

    write_json(folder / "config.json", {KEY: __version__, **identity})


def changes(
    saved: dict[str, Any], identity: dict[str, Any], cfg: Any, paths: Sequence[str] = ()
) -> list[str]:
    """List the fields in which a run differs from one that is wanted, with both values.

    `paths` are the dotted names of the fields that are paths; see `with_defaults`.
    """
    return differences(saved | {"config": with_defaults(saved["config"], cfg, paths)}, identity)


def require(folder: Path) -> None:
    """Raise ValueError for a folder that others wrote, naming what it holds."""
    if read_config(folder) is not None:
        return
    some = ("result.json", "metrics.jsonl", "weights.safetensors")  # its config.json was lost
    if (folder / "config.json").exists() or not any((folder / name).exists() for name in some):
        raise ValueError(_not_ours(folder))


def require_new(folder: Path) -> None:
    """Raise ValueError unless a folder is absent or holds nothing but what a killed run left."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise ValueError(f"{folder} is a file; give a folder")
    names = {p.name for p in folder.iterdir()}
    if names - {lock.NAME, "config.json.tmp"}:
        raise ValueError(f"{_not_ours(folder)} Give an empty or new --run.folder.")


def _not_ours(folder: Path) -> str:
    names = sorted(p.name for p in folder.iterdir() if p.name != lock.NAME)
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    why = "others wrote its config.json" if "config.json" in names else "no config.json"
    holds = f"not empty: it holds {', '.join(names[:3])}{more}" if names else "empty"
    return f"{folder} is not a run folder ({why}) and {holds}; nothing in it was touched."


def contents(folder: Path) -> Contents:
    """Sort the files of a run folder by whose they are; links to folders are not followed."""
    found = Contents([], [], [])
    named = set(_named(folder))
    for path in sorted(_files(folder)):
        if path == lock.NAME:
            continue
        temporary = TEMPORARY.fullmatch(path)
        plain = temporary[1] if temporary and temporary[1] else path
        if plain.startswith("checkpoints.tmp/"):  # see `clear`
            plain = plain.replace(".tmp", "", 1)
        if (folder / path).is_symlink() and (folder / path).is_dir():
            found.foreign.append(f"{path} (a link to a folder)")
        elif path.endswith(f"/{lock.NAME}") and not lock.is_held(folder / path):
            found.leftovers.append(path)  # of a prediction or an export that was killed
        elif not (OURS.fullmatch(plain) or plain in named or (temporary and not temporary[1])):
            found.foreign.append(path)
        elif temporary or ".tmp/" in path:
            found.leftovers.append(path)
        else:
            found.ours.append(path)
    return found


def _files(folder: Path) -> Iterator[str]:
    """Paths of all files below, and of links to folders."""
    for base, folders, files in os.walk(folder):
        links = [name for name in folders if os.path.islink(os.path.join(base, name))]
        for name in (*files, *links):
            yield Path(base, name).relative_to(folder).as_posix()


def _named(folder: Path) -> Iterator[str]:
    """Files whose names the run itself says: exports, pictures, predictions."""
    saved = read_config(folder)
    if saved is not None:
        for suffix in ("onnx", "pt2"):
            yield f"{saved['system']}.{suffix}"
    captions = folder / "pictures/captions.json"
    if captions.is_file():
        yield from (f"pictures/{name}" for name in read_object(captions, {}))
    elif captions.parent.is_dir():  # killed while it drew
        endings = (".png", ".gif", ".jpg", ".jpeg", ".svg", ".mp4")
        yield from (f"pictures/{p.name}" for p in captions.parent.iterdir() if p.suffix in endings)
    for journal in sorted((folder / "predictions").rglob(JOURNAL)):
        base = journal.parent.relative_to(folder).as_posix()
        yield from (f"{base}/{path}" for path in read_journal(journal)[1])


def read_journal(file: Path) -> tuple[dict[str, Any], list[str]]:
    """What made the predictions of a folder, and the paths of its files; {} if it is damaged."""
    made: dict[str, Any] = {}
    paths: list[str] = []
    for number, line in enumerate(file.read_text("utf-8", errors="replace").splitlines()):
        try:
            entry = parse_json(line)
        except ValueError:
            continue  # the last one may be half-written
        if number == 0:
            made = entry if isinstance(entry, dict) else {}
        elif isinstance(entry, str) and not {"", ".."} & set(entry.split("/")):
            paths.append(entry)
    return made, paths


def refuse_links(folder: Path) -> None:
    """Raise ValueError if writing to a run folder would write somewhere else."""
    for path in _files(folder):
        file = folder / path
        if file.is_symlink() and (file.is_dir() or path == "metrics.jsonl"):
            raise ValueError(
                f"{file} is a link to {os.readlink(file)}; links in a run folder are not followed "
                "for writing: put what it points at in its place, or delete it"
            )


def sweep(folder: Path) -> None:
    """Delete what killed processes left half-written."""
    _delete(folder, contents(folder).leftovers)


def require_clearable(folder: Path) -> Contents:
    """Raise ValueError, naming what it found, if a run folder holds more than tenfold wrote."""
    found = contents(folder)
    if found.foreign:
        raise ValueError(
            f"{folder} holds what tenfold did not write: {found.found()}; nothing was deleted. "
            "Move that away, or give another --run.folder."
        )
    return found


def clear(folder: Path) -> None:
    """Delete the files of a run, and no other; `config.json` stays, and with it whose folder it is.

    The folder itself stays too, so that a link to it does. Who is killed meanwhile leaves a run
    that is unfinished or not begun, never one that looks finished.
    """
    require_clearable(folder)
    sweep(folder)
    (folder / "result.json").unlink(missing_ok=True)
    if (folder / "checkpoints").is_dir():  # at once: half of one must not be taken for whole
        (folder / "checkpoints").rename(folder / "checkpoints.tmp")
    found = contents(folder)
    _delete(folder, [*found.leftovers, *(path for path in found.ours if path != "config.json")])


def _delete(folder: Path, paths: list[str]) -> None:
    for path in paths:
        if path.endswith(f"/{lock.NAME}"):  # someone may take it just now
            lock.sweep((folder / path).parent)
        else:
            (folder / path).unlink()
    for name in (*FOLDERS, "checkpoints.tmp"):
        for base, _, _ in os.walk(folder / name, topdown=False):
            if not os.listdir(base):
                os.rmdir(base)
