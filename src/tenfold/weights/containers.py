"""Checkpoint files of others, read as tensors without running anything that they hold."""

from __future__ import annotations

import argparse
import io
import json
import pickle
import re
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
PLAIN = (*FLOATS, torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
"""Types of numbers that a network can have here; those of 8-bit floats need their scales."""
WRAPPERS = (
    "model", "module", "state_dict", "params", "model_state_dict", "model_state", "state_dict_ema",
)  # fmt: skip
"""Names under which files keep the state of a network, the first that is there counts."""
PREFIXES = ("module.", "_orig_mod.", "model.", "net.", "encoder.", "backbone.")
"""Prefixes that wrappers put before every key."""
RUN, OTHERS = "weights.safetensors", ("model.safetensors", "pytorch_model.bin")
"""Weights in a run folder, and in a folder as transformers saves a model."""
MOST_BYTES = 16 * 2**30
NUMPY_SCALARS: list[Any] = [
    np.dtype, *(type(np.dtype(kind)) for kind in ("f4", "f8", "i4", "i8", "?")),
    (np.float64(0).__reduce__()[0], "numpy.core.multiarray.scalar"),
    (np.float64(0).__reduce__()[0], "numpy._core.multiarray.scalar"),
]  # fmt: skip
"""What a number of NumPy needs to be read, by its name in files of NumPy 1 and 2: training notes
such as mmcv's `best_score` are of these."""


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """The tensors of a `.safetensors`, or of a file of torch.save or torch.jit.save.

    Wrappers ({model: ...}) and common prefixes are taken off. ValueError if it is something else,
    or holds values that no network can have.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}; give a checkpoint (.safetensors, .pt, .pth)")
    if path.stat().st_size > MOST_BYTES:
        raise ValueError(f"{path} has more than {MOST_BYTES} bytes")
    state = _unwrapped(_content(path), path)
    found: dict[str, Tensor] = {}
    prefix = _prefix(state)
    for key, value in state.items():
        name = key.removeprefix(prefix)
        if name in found:
            raise ValueError(f"{path} has {shown(name)} twice, with and without {prefix!r}")
        check_tensor(path, name, value)
        found[name] = value.float() if value.dtype in FLOATS else value
    return found


def find_weights(path: Path, what: str) -> Path:
    """The weights that a user's path means: a file, a run folder, a folder of transformers.

    `what` begins the error where there are none.
    """
    if not path.is_dir():
        if not path.exists():
            raise FileNotFoundError(f"{what} {path} does not exist; give a run or its weights")
        return path
    found = next((path / name for name in (RUN, *OTHERS) if (path / name).exists()), None)
    if found is None:
        raise FileNotFoundError(f"{what} {path / RUN} does not exist; give a run or its weights")
    return found


def heads_beside(file: Path) -> int:
    """Heads by the `config.json` that transformers keeps beside weights; 0 if there is none.

    Raises:
        ValueError: It cannot be read, or the network is one without GELU, which ours have.
    """
    beside = file.with_name("config.json")
    if not beside.is_file():
        return 0
    try:
        told = json.loads(beside.read_text(encoding="utf-8"))
        heads, activation = told.get("num_attention_heads", 0), told.get("hidden_act", "gelu")
    except (OSError, ValueError, AttributeError) as error:
        raise ValueError(f"{beside} beside the encoder cannot be read: {error}") from error
    if type(heads) is not int or heads < 0:
        raise ValueError(f"{beside}: num_attention_heads is {heads!r}, a number is expected")
    if activation not in ("gelu", "gelu_python"):  # two names of the exact one
        raise ValueError(
            f"{beside}: hidden_act is {activation!r}; this network has gelu, with which these "
            "weights give other features; take weights that were trained with it"
        )
    return heads


def is_run(file: Path) -> bool:
    """True for weights of a run of ours; other files can be named .safetensors too."""
    return file.suffix == ".safetensors" and "tenfold" in metadata(file)


def metadata(path: Path) -> dict[str, str]:
    """The notes in the header of a safetensors file; ours have one called `tenfold`."""
    from safetensors import safe_open

    try:
        with safe_open(path, "pt") as file:
            return dict(file.metadata() or {})
    except Exception as error:  # safetensors raises its own type, OSError and others
        raise ValueError(f"{path} is no readable safetensors file: {error}") from error


def _content(path: Path) -> Any:
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        try:
            return load_file(path)
        except Exception as error:
            raise ValueError(f"{path} is no readable safetensors file: {error}") from error
    if is_torchscript(path):
        return read_torchscript(path)
    with torch.serialization.safe_globals([argparse.Namespace]):  # official files keep `args`
        return load_tensors(path)


def load_tensors(path: Path) -> Any:
    """Load what torch.save wrote, of tensors and plain containers alone; else raise ValueError.

    torch's own message is not shown: it proposes to run what the file holds.
    """
    try:
        with torch.serialization.safe_globals(NUMPY_SCALARS):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises whatever a damaged file leads to
        named = re.search(r"GLOBAL ([\w.]+)", str(error))
        reason = f"it names {named[1]}" if named else type(error).__name__
        raise ValueError(
            f"{path} cannot be read as tensors alone ({reason}); it is no checkpoint of torch, "
            "damaged, or holds code"
        ) from error


def _unwrapped(content: Any, path: Path) -> Mapping[str, Tensor]:
    """The dictionary of tensors, which may lie under a name."""
    for name in WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(name), Mapping):
            content = content[name]
    if not isinstance(content, Mapping):
        raise ValueError(f"{path} holds a {type(content).__name__}, not a dictionary of tensors")
    state = {k: v for k, v in content.items() if isinstance(k, str) and isinstance(v, Tensor)}
    if not state:
        keys = ", ".join(shown(key) for key in list(content)[:5])
        raise ValueError(f"{path} has no tensors; its keys are {keys}")
    return state


def _prefix(state: Mapping[str, Tensor]) -> str:
    """Return the known prefixes that all keys begin with (several may be nested)."""
    found = ""
    while True:
        more = [p for p in PREFIXES if all(key.startswith(found + p) for key in state)]
        if not more:
            return found
        found += more[0]


def shown(key: object) -> str:
    """A key from a file as it may stand in a message: short, without line breaks."""
    return ascii(str(key)[:80])


def check_tensor(path: Path, key: str, value: Tensor) -> None:
    """Refuse a tensor that is not plain finite numbers, or claims more of them than there are."""
    if value.layout != torch.strided or value.is_quantized or value.device.type != "cpu":
        raise ValueError(f"{path}: {shown(key)} is sparse, quantised or has no data")
    if value.dtype not in PLAIN:
        raise ValueError(
            f"{path}: {shown(key)} is {str(value.dtype).removeprefix('torch.')}, which is not "
            "read; save the weights as float32, float16 or bfloat16"
        )
    if value.numel() * value.element_size() > value.untyped_storage().nbytes():
        raise ValueError(
            f"{path}: {shown(key)} of shape {tuple(value.shape)} has only "
            f"{value.untyped_storage().nbytes()} bytes of data; save a copy made with .clone()"
        )
    if value.is_floating_point() and not bool(torch.isfinite(value).all()):
        raise ValueError(f"{path}: {shown(key)} holds values that are not finite")


# --- TorchScript archives (OpenAI's CLIP files) -------------------------------------------------


def is_torchscript(path: Path) -> bool:
    """Return True if a file is an archive of torch.jit.save."""
    if not zipfile.is_zipfile(path):
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith("/constants.pkl") for name in archive.namelist())
    except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError):
        return False  # a damaged archive is no checkpoint of any kind, which torch says


class _Bag:
    """Stands for any class of an archive: keeps its attributes, runs nothing."""

    def __setstate__(self, state: Any) -> None:
        self.attributes = state if isinstance(state, dict) else {}


def _tensor(
    storage: Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *rest: Any
) -> Tensor:
    """torch's own rebuilding of a tensor, with bounds checked."""
    last = offset + sum((n - 1) * s for n, s in zip(size, stride, strict=True))
    empty = any(n == 0 for n in size)
    if min([offset, *size, *stride]) < 0 or (not empty and last >= storage.numel()):
        raise ValueError("a tensor reaches beyond its storage")
    return storage.as_strided(size, stride, offset)


class _Unpickler(pickle.Unpickler):
    """Knows tensors and plain containers; every class of the archive is a `_Bag`."""

    KINDS = {
        "HalfStorage": torch.float16, "FloatStorage": torch.float32, "LongStorage": torch.int64,
        "BFloat16Storage": torch.bfloat16, "DoubleStorage": torch.float64,
        "IntStorage": torch.int32, "BoolStorage": torch.bool, "ByteStorage": torch.uint8,
    }  # fmt: skip

    def __init__(self, content: bytes, archive: zipfile.ZipFile, root: str) -> None:
        super().__init__(io.BytesIO(content))
        self.archive, self.root = archive, root
        self.storages: dict[str, Tensor] = {}

    def find_class(self, module: str, name: str) -> Any:
        if module.startswith("__torch__"):
            return _Bag
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _tensor
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if module == "torch" and name in self.KINDS:
            return self.KINDS[name]
        if module == "torch.jit._pickle" and name.startswith("build_"):
            return lambda content, *more: content
        raise ValueError(f"it asks for {module}.{name}, which is no part of a network's weights")

    def persistent_load(self, key: Any) -> Tensor:
        _, kind, name, _, count = key
        if name not in self.storages:
            raw = self.archive.read(f"{self.root}/data/{name}")
            if not isinstance(kind, torch.dtype) or len(raw) < count * kind.itemsize:
                raise ValueError(f"storage {shown(name)} has {len(raw)} bytes for {count} numbers")
            data = bytearray(raw)
            self.storages[name] = (
                torch.frombuffer(data, dtype=kind) if data else torch.empty(0, dtype=kind)
            )
        return self.storages[name]


def read_torchscript(path: Path) -> dict[str, Tensor]:
    """The tensors of an archive of torch.jit.save by their names; its code is not run."""
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(item.file_size for item in archive.infolist()) > MOST_BYTES:
                raise ValueError(f"it unpacks to more than {MOST_BYTES} bytes")
            root = next(n for n in archive.namelist() if n.endswith("/data.pkl"))
            root = root.removesuffix("/data.pkl")
            content = archive.read(f"{root}/data.pkl")
            top = _Unpickler(content, archive, root).load()
    except Exception as error:  # whatever a damaged or hostile pickle leads to
        raise ValueError(f"{path} cannot be read as a TorchScript archive: {error}") from error
    found: dict[str, Tensor] = {}
    _collect(top, "", found, 0)
    return found


def _collect(value: Any, name: str, found: dict[str, Tensor], depth: int) -> None:
    if depth > 64:
        raise ValueError("modules are nested too deeply")
    if isinstance(value, Tensor):
        found[name] = value
    elif isinstance(value, _Bag):
        for key, inner in getattr(value, "attributes", {}).items():
            _collect(inner, f"{name}.{key}" if name else str(key), found, depth + 1)
