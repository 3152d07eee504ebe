"""Checkpoints that are whole or absent: written to a temporary folder, synced, renamed."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

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


def write_state(path: Path, state: dict[str, Any]) -> None:
    """Write training state (tensors, numbers, strings) atomically."""
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def read_state(path: Path) -> dict[str, Any]:
    """Read training state onto the CPU without executing anything in the file."""
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ValueError(
            f"{path} cannot be read ({error}); delete {path.parent} to go on from an older "
            "checkpoint or from the start"
        ) from error
    return state


def save(folder: Path, step: int, state: dict[str, Any], world: World, parallel: bool) -> None:
    """Save the state after `step` steps as `folder/step-<n>/`, then drop older ones.

    A replicated stage is written by the first process; a `parallel` one by each process, since
    each holds its own part.
    """
    final = folder / f"step-{step:09d}"
    temporary = folder / f"step-{step:09d}.tmp"
    if world.is_first:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
    world.barrier()
    if parallel or world.is_first:
        name = f"rank-{world.rank}.pt" if parallel else "state.pt"
        write_state(temporary / name, state)
    world.barrier()
    if world.is_first:
        shutil.rmtree(final, ignore_errors=True)
        temporary.rename(final)
        for old in complete(folder)[:-1]:
            remove(old)
    world.barrier()


def remove(checkpoint_folder: Path) -> None:
    """Drop a checkpoint; renamed first, so that a half-removed one is never taken for whole."""
    doomed = checkpoint_folder.with_name(checkpoint_folder.name + ".tmp")
    checkpoint_folder.rename(doomed)
    shutil.rmtree(doomed, ignore_errors=True)


def complete(folder: Path) -> list[Path]:
    """The whole checkpoints of a stage, oldest first."""
    if not folder.is_dir():
        return []
    return sorted(p for p in folder.iterdir() if re.fullmatch(r"step-\d{9}", p.name))


def load(folder: Path, world: World, parallel: bool) -> dict[str, Any] | None:
    """The newest whole checkpoint of a stage, or None; tensors on the CPU, no code executed."""
    found = complete(folder)
    if not found:
        return None
    path = found[-1] / (f"rank-{world.rank}.pt" if parallel else "state.pt")
    if not path.exists():
        raise ValueError(
            f"{path} is missing: the checkpoint was written by another number of processes; "
            "start with as many as before, or --run.fresh"
        )
    return read_state(path)
