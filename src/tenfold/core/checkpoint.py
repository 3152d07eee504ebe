"""Checkpoints that are whole or absent: written to a temporary folder, synced, renamed."""

from __future__ import annotations

import json
import os
import re
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors.torch import load_file, save_file

from .dist import World


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file that is never seen half-written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically, readable by a person."""
    write_text(path, json.dumps(value, indent=1, sort_keys=False, allow_nan=True) + "\n")


def read_json(path: Path) -> Any:
    """Read JSON, naming the file if it is damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not readable JSON: {error}") from error


def write_tensors(
    path: Path, tensors: dict[str, torch.Tensor], metadata: dict[str, str] | None = None
) -> None:
    """Write a safetensors file atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    save_file(
        {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}, temporary, metadata
    )
    with temporary.open("rb+") as file:
        os.fsync(file.fileno())
    temporary.replace(path)


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Read a safetensors file, naming the file if it is damaged."""
    try:
        return load_file(path)
    except Exception as error:  # safetensors raises its own type, OSError and others
        raise ValueError(f"{path} is not a readable safetensors file: {error}") from error


def read_header(path: Path) -> tuple[str, dict[str, Any]]:
    """The system's name and configuration of a weights file, from its header."""
    from safetensors import safe_open

    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
    except Exception as error:
        raise ValueError(f"{path} is not a readable safetensors file: {error}") from error
    if "tenfold" not in metadata:
        raise ValueError(
            f"{path} has no tenfold header; official checkpoints are read by `tenfold convert`"
        )
    try:
        header = json.loads(metadata["tenfold"])
        return str(header["system"]), header["config"]
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"{path} has a damaged header ({error!r})") from error


class _Patient:
    """A file that keeps its first error, and takes everything that comes after."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.error: OSError | None = None

    def write(self, content: Any) -> int:
        """Write, unless that has failed before; returns the number of bytes in either case."""
        size = memoryview(content).nbytes
        if self.error is None:
            try:
                self.file.write(content)
            except OSError as error:
                self.error = error
        return size

    def flush(self) -> None:
        """Do nothing: the file is flushed when torch is done."""


@contextmanager
def for_torch(path: Path) -> Iterator[Any]:
    """A new file for torch to write to; its error is raised at the end.

    torch's writer drops the reason of an error, and may end the whole process over it.
    """
    with path.open("wb") as file:
        patient = _Patient(file)
        yield patient
        if patient.error is not None:
            raise OSError(patient.error.errno, patient.error.strerror, str(path))


def write_state(path: Path, state: dict[str, Any]) -> None:
    """Write training state (tensors, numbers, strings) atomically."""
    temporary = path.with_name(path.name + ".tmp")
    with for_torch(temporary) as file:
        torch.save(state, file)
    with temporary.open("rb+") as written:
        os.fsync(written.fileno())
    temporary.replace(path)


def read_state(path: Path) -> dict[str, Any]:
    """Read training state onto the CPU without executing anything in the file."""
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ValueError(
            f"{path} cannot be read ({type(error).__name__}); delete {path.parent} to go on from "
            "an older checkpoint or from the start"
        ) from error
    return state


def save(
    folder: Path, step: int, state: dict[str, Any], parts: dict[str, torch.Tensor], world: World
) -> None:
    """Save the state after `step` steps as `folder/step-<n>/`, then drop older ones.

    `state` is the same on all processes and is written by the first; `parts` are tensors of a
    model divided among processes (see `write_parts`).
    """
    final = folder / f"step-{step:09d}"
    temporary = folder / f"step-{step:09d}.tmp"
    _fresh(temporary, world)
    with _removed_on_error(temporary, world):
        if world.is_first:
            write_state(temporary / "state.pt", state)
        _write_parts(temporary, parts, world)
    world.barrier(patient=True)
    if world.is_first:
        shutil.rmtree(final, ignore_errors=True)
        temporary.rename(final)
        for old in complete(folder)[:-1]:
            remove(old)
    world.barrier(patient=True)


@contextmanager
def _removed_on_error(folder: Path, world: World) -> Iterator[None]:
    """A folder that an error (a full disk) does not leave behind, half-filled."""
    try:
        yield
    except Exception:
        if world.is_first:
            shutil.rmtree(folder, ignore_errors=True)
        raise


def _fresh(folder: Path, world: World) -> None:
    """An empty folder, seen by all processes."""
    if world.is_first:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    world.barrier()


def write_parts(folder: Path, parts: dict[str, torch.Tensor], world: World) -> None:
    """Write a model that is divided among processes into a folder, which appears when whole.

    Every process gives its parts by their keys in the whole model, as DTensors (or plain tensors,
    where all hold the same). Files are safetensors; they can be read on any division.
    """
    temporary = folder.with_name(folder.name + ".tmp")
    _fresh(temporary, world)
    with _removed_on_error(temporary, world):
        _write_parts(temporary, parts, world)
    world.barrier(patient=True)
    if world.is_first:
        shutil.rmtree(folder, ignore_errors=True)
        temporary.rename(folder)
    world.barrier(patient=True)


def _write_parts(folder: Path, parts: dict[str, torch.Tensor], world: World) -> None:
    if not parts and world.size == 1:
        return
    # torch's own distributed checkpoint, but in safetensors: its default index is a pickle.
    # Imported here since it takes a second, and few runs have divided models.
    import torch.distributed.checkpoint as dcp
    from torch.distributed.checkpoint.api import CheckpointException
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageWriter

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            dcp.save(
                parts,
                storage_writer=HuggingFaceStorageWriter(str(folder), save_distributed=True),
                no_dist=world.size == 1,
            )
        except CheckpointException as error:  # not an Exception; its text is a traceback
            raise next(cause for cause, _ in error.failures.values()) from error


def read_parts(folder: Path, parts: dict[str, torch.Tensor], world: World) -> None:
    """Fill this process's parts in place, whatever the division was when they were written."""
    import torch.distributed.checkpoint as dcp
    from torch.distributed.checkpoint.api import CheckpointException
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dcp.load(
                parts,
                storage_reader=HuggingFaceStorageReader(str(folder)),
                no_dist=world.size == 1,
            )
    except (Exception, CheckpointException) as error:  # torch wraps what any process met
        reason = (str(error).strip().splitlines() or [type(error).__name__])[-1]
        raise ValueError(
            f"{folder} does not hold this model ({reason}); it was written by another "
            "configuration, or is damaged: delete it to go on from an older checkpoint"
        ) from error


def read_whole(folder: Path) -> dict[str, torch.Tensor]:
    """All tensors of a divided model, whole, on this process alone."""
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader
    from torch.distributed.checkpoint.metadata import TensorStorageMetadata

    reader = HuggingFaceStorageReader(str(folder))
    found = {
        key: torch.empty(item.size, dtype=item.properties.dtype)
        for key, item in reader.read_metadata().state_dict_metadata.items()
        if isinstance(item, TensorStorageMetadata)
    }
    read_parts(folder, found, World(0, 1, torch.device("cpu")))
    return found


def remove(old: Path) -> None:
    """Drop a file, or a folder: renamed first, so that half of one is never taken for whole."""
    if old.is_file():
        old.unlink()
        return
    doomed = old.with_name(old.name + ".tmp")
    old.rename(doomed)
    shutil.rmtree(doomed, ignore_errors=True)


def complete(folder: Path) -> list[Path]:
    """The whole checkpoints of a stage, oldest first."""
    if not folder.is_dir():
        return []
    return sorted(p for p in folder.iterdir() if re.fullmatch(r"step-\d{9}", p.name))


def load(folder: Path) -> tuple[Path, dict[str, Any]] | None:
    """The newest whole checkpoint of a stage and its state, or None; no code is executed."""
    found = complete(folder)
    return (found[-1], read_state(found[-1] / "state.pt")) if found else None
