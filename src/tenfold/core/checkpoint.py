"""Checkpoints that are whole or absent: written to a temporary folder, synced, renamed."""

from __future__ import annotations

import io
import json
import math
import re
import shutil
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors.torch import load_file, save_file

from tenfold.files import read_json as read_json
from tenfold.files import replacing, sum_of
from tenfold.files import sha256 as sha256
from tenfold.files import verify as verify
from tenfold.files import write_bytes as write_bytes
from tenfold.files import write_json as write_json
from tenfold.files import write_text as write_text

from .dist import World

FILE_BYTES = 2**26
"""Bytes of a divided model's checkpoint after which a process begins another file."""


def write_tensors(
    path: Path,
    tensors: dict[str, torch.Tensor],
    metadata: dict[str, str] | None = None,
    sealed: bool = True,
) -> None:
    """Write a safetensors file atomically, with its SHA-256 beside it unless it has its own."""
    with replacing(path, sealed) as temporary:
        whole = {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}
        save_file(whole, temporary, metadata)


def stream_tensors(
    path: Path,
    shapes: Mapping[str, tuple[int, ...]],
    tensors: Iterable[tuple[str, torch.Tensor | None]],
    metadata: dict[str, str],
) -> None:
    """Write a safetensors file of float32 one tensor at a time, the same bytes as `write_tensors`.

    Args:
        path: The file; it is written atomically, with its SHA-256 beside it.
        shapes: Key -> shape of every tensor, sorted by key.
        tensors: The tensors in that order; no more than one is held.
        metadata: Entries of the header.
    """
    content: dict[str, Any] = {"__metadata__": metadata}
    end = 0
    for key, shape in shapes.items():
        start, end = end, end + 4 * math.prod(shape)
        content[key] = {"dtype": "F32", "shape": list(shape), "data_offsets": [start, end]}
    header = json.dumps(content, separators=(",", ":"), ensure_ascii=False).encode()
    header += b" " * (-len(header) % 8)
    with replacing(path, True) as temporary, temporary.open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        for (key, tensor), (wanted, shape) in zip(tensors, shapes.items(), strict=True):
            if tensor is None or key != wanted or tuple(tensor.shape) != shape:
                raise RuntimeError(f"{key} came where {wanted} of {shape} was to be written")
            file.write(tensor.detach().cpu().float().contiguous().numpy().tobytes())


@contextmanager
def opened(path: Path) -> Iterator[Mapping[str, torch.Tensor]]:
    """A safetensors file whose tensors are read when they are asked for."""
    from safetensors import safe_open

    class Tensors(Mapping[str, torch.Tensor]):
        def __init__(self, file: Any) -> None:
            self.file, self.names = file, list(file.keys())

        def __getitem__(self, key: str) -> torch.Tensor:
            if key not in self.names:
                raise KeyError(key)
            found: torch.Tensor = self.file.get_tensor(key)
            return found

        def __iter__(self) -> Iterator[str]:
            return iter(self.names)

        def __len__(self) -> int:
            return len(self.names)

    with safe_open(path, "pt") as file:
        yield Tensors(file)


def read_tensors(path: Path, way_out: str = "restore it from a copy") -> dict[str, torch.Tensor]:
    """Read a safetensors file; one that is damaged is a ValueError that ends with `way_out`."""
    verify(path, way_out)
    try:
        return load_file(path)
    except Exception as error:  # safetensors raises its own type, OSError and others
        raise ValueError(
            f"{path} is not a readable safetensors file: {error}; {way_out}"
        ) from error


def write_start(path: Path, tensors: dict[str, torch.Tensor], begun: Any) -> None:
    """Keep the weights that a run begins with, and what is known of them."""
    write_tensors(path, tensors, {"begun": json.dumps(begun)})


def read_start(path: Path) -> tuple[dict[str, torch.Tensor], Any]:
    """The weights that a run began with, and what was known of them."""
    from safetensors import safe_open

    tensors = read_tensors(path, "delete it, and --start is read again")
    with safe_open(path, "pt") as file:
        return tensors, json.loads(file.metadata()["begun"])


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


class _Patient(io.RawIOBase):
    """A file that keeps its first error, and takes everything that comes after."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__()
        self.file = file
        self.error: OSError | None = None

    def write(self, content: Any) -> int:
        """Write, unless that has failed before; returns the number of bytes in either case."""
        self._tried(lambda: self.file.write(content))
        return memoryview(content).nbytes

    def writable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """True: torch.export takes no other file, and goes back to the start at its end."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a place, unless something has failed before."""
        self._tried(lambda: self.file.seek(offset, whence))
        return offset

    def _tried(self, work: Callable[[], object]) -> None:
        if self.error is None:
            try:
                work()
            except OSError as error:
                self.error = error


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
    """Write training state (tensors, numbers, strings) atomically, its SHA-256 beside it."""
    with replacing(path, sealed=True) as temporary, for_torch(temporary) as file:
        torch.save(state, file)


def read_state(path: Path) -> dict[str, Any]:
    """Read training state onto the CPU without executing anything in the file."""
    way_out = f"delete {path.parent} to go on from an older checkpoint or from the start"
    verify(path, way_out)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ValueError(f"{path} cannot be read ({type(error).__name__}); {way_out}") from error
    if not isinstance(state, dict):
        raise ValueError(f"{path} holds a {type(state).__name__}, not a training state; {way_out}")
    return state


def save(
    folder: Path, step: int, state: dict[str, Any], parts: dict[str, torch.Tensor], world: World
) -> None:
    """Save the state after `step` steps as `folder/step-<n>/`, then drop older ones.

    `state` is the same on all processes and is written by the first; `parts` are tensors of a
    model divided among processes (see `write_parts`).
    """
    temporary = begin(folder, step, world)
    with removed_on_error(temporary, world):
        if world.is_first:
            write_state(temporary / "state.pt", state)
        _write_parts(temporary, parts, world)
    world.barrier(patient=True)
    if world.is_first:
        complete_save(folder, step)
    world.barrier(patient=True)


def begin(folder: Path, step: int, world: World) -> Path:
    """Make the empty folder that a checkpoint is written to; all processes call it."""
    temporary = folder / f"step-{step:09d}.tmp"
    _fresh(temporary, world)
    return temporary


def complete_save(folder: Path, step: int) -> None:
    """Let the folder that is written take its name, then drop older checkpoints."""
    final = folder / f"step-{step:09d}"
    temporary = final.with_name(final.name + ".tmp")
    _seal(temporary)
    shutil.rmtree(final, ignore_errors=True)
    temporary.rename(final)
    for old in complete(folder)[:-1]:
        remove(old)


@contextmanager
def removed_on_error(folder: Path, world: World) -> Iterator[None]:
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
    with removed_on_error(temporary, world):
        _write_parts(temporary, parts, world)
    world.barrier(patient=True)
    if world.is_first:
        _seal(temporary)
        shutil.rmtree(folder, ignore_errors=True)
        temporary.rename(folder)
    world.barrier(patient=True)


def _seal(folder: Path) -> None:
    """Write the SHA-256 of each part that torch wrote beside it."""
    for file in sorted(folder.glob("*.safetensors")):
        write_text(sum_of(file), f"{sha256(file)}  {file.name}\n")


def _verify_parts(folder: Path, world: World) -> None:
    """Check the parts of a divided model, each process its share; all raise if one is damaged."""
    problems: list[str] = []
    broken = folder if folder.name.startswith("step-") else folder.parent
    for file in sorted(folder.glob("*.safetensors"))[world.rank :: world.size]:
        try:
            verify(file, f"delete {broken} to go on from an older checkpoint or from the start")
        except ValueError as error:
            problems.append(str(error))
    found = [text for share in world.gather(problems) for text in share]
    if found:
        raise ValueError(found[0])


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
                storage_writer=HuggingFaceStorageWriter(
                    str(folder), _files_of(parts, world), save_distributed=True
                ),
                no_dist=world.size == 1,
            )
        except CheckpointException as error:  # not an Exception; its text is a traceback
            raise next(cause for cause, _ in error.failures.values()) from error


def write_parts_behind(
    folder: Path, parts: dict[str, torch.Tensor], world: World, group: Any
) -> Callable[[], object]:
    """Copy the parts and let torch write them in a thread; the answer waits for it, or raises.

    Args:
        folder: An empty one; it is not whole before all processes have written.
        parts: As those of `write_parts`.
        world: All processes.
        group: Processes by which the thread agrees with the others', on the CPU; none if alone.
    """
    import torch.distributed.checkpoint as dcp
    from torch.distributed.checkpoint.api import CheckpointException
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageWriter

    # which the thread says later, of a process alone
    warnings.filterwarnings("ignore", "torch.distributed is disabled", UserWarning)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        writing = dcp.async_save(
            parts,
            storage_writer=HuggingFaceStorageWriter(
                str(folder), _files_of(parts, world), save_distributed=True
            ),
            process_group=group,
            no_dist=world.size == 1,
        )
    assert isinstance(writing, Future)

    def wait() -> None:
        try:
            writing.result()
        except CheckpointException as error:  # as above
            raise next(cause for cause, _ in error.failures.values()) from error

    return wait


def _files_of(parts: dict[str, torch.Tensor], world: World) -> dict[str, int]:
    """Number of the file that each tensor goes to: a file is put together in memory, whole."""
    sizes: dict[str, int] = {}
    for own in world.gather({key: value.numel() * 4 for key, value in parts.items()}):
        sizes |= {key: max(size, sizes.get(key, 0)) for key, size in own.items()}
    found, number, held = {}, 1, 0
    for key, size in sorted(sizes.items()):
        if held and held + size > FILE_BYTES:
            number, held = number + 1, 0
        found[key] = number
        held += size
    return found


def read_parts(folder: Path, parts: dict[str, torch.Tensor], world: World) -> None:
    """Fill this process's parts in place, whatever the division was when they were written."""
    import torch.distributed.checkpoint as dcp
    from torch.distributed.checkpoint.api import CheckpointException
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader

    _verify_parts(folder, world)
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
