"""Pickles of plain containers, numpy arrays and (if asked for) tensors, read without running them.

Also the `.npy` files that hold such a pickle instead of numbers.
"""

from __future__ import annotations

import _codecs
import io
import math
import pickle
import re
import struct
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.lib import format as npy

from .npz import BROKEN

MAX_BYTES = 2**29
"""Largest file that is read."""
HEADER = 2**12
"""Largest head of an npy file."""

_DAMAGE = (
    EOFError, ValueError, TypeError, KeyError, IndexError, AttributeError, MemoryError,
    ArithmeticError, RecursionError, struct.error,
)  # fmt: skip


def load_arrays(path: Path) -> Any:
    """Unpickle plain containers and numpy arrays; a file that asks for anything else is refused."""
    _check_size(path)
    return _load(path, path.read_bytes(), _ArrayUnpickler)


def load_npy(path: Path, tensors: bool = False) -> Any:
    """The array of an npy file, or the object that is pickled in it.

    Args:
        path: The file.
        tensors: Tensors of torch may be in it; they become arrays.

    Raises:
        ValueError: It is no npy file, is damaged, cut off or too large, or asks for anything but
            plain containers, arrays and tensors.
    """
    _check_size(path)
    content = path.read_bytes()
    stream = io.BytesIO(content)
    try:
        version = npy.read_magic(stream)
        read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, is_fortran, dtype = read(stream, max_header_size=HEADER)
    except BROKEN as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"{path} is no npy file, or its head is damaged: {reason}.") from error
    rest = content[stream.tell() :]
    if not dtype.hasobject:
        if dtype.kind not in "biuf" or math.prod(shape) * dtype.itemsize != len(rest):
            raise ValueError(
                f"{path} should hold {math.prod(shape)} numbers of type {dtype} by its shape "
                f"{shape}, but has {len(rest)} bytes. Copy it again."
            )
        return np.frombuffer(rest, dtype).reshape(shape, order="F" if is_fortran else "C").copy()
    found = _load(path, rest, _TensorUnpickler if tensors else _ArrayUnpickler)
    is_whole = isinstance(found, np.ndarray) and found.dtype == object
    return found.item() if is_whole and found.shape == () else found


def _check_size(path: Path) -> None:
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(
            f"{path} has {path.stat().st_size} bytes, more than the {MAX_BYTES} that a pickle may "
            "have. Check that it is a file of the set, as it was published."
        )


def _load(path: Path, content: bytes, unpickler: type[_ArrayUnpickler]) -> Any:
    try:
        return unpickler(io.BytesIO(content), encoding="latin1").load()
    except pickle.UnpicklingError as error:
        raise ValueError(f"{path} cannot be read: {error}.") from error
    except _DAMAGE as error:
        raise ValueError(f"{path} is damaged or cut off: {error}. Copy it again.") from error


@dataclass
class _Type:
    """Type of the numbers of an array. Not numpy's own, which believes what a file says of it."""

    dtype: np.dtype[Any]


class _ArrayUnpickler(pickle._Unpickler):
    """Knows the globals that numpy arrays need, and no others.

    The unpickler in Python, because the one in C fills gigabytes for a memo index that a damaged
    file makes up. States are set here: numpy takes a type of objects whose flags deny it, and
    would follow bytes as addresses.
    """

    allowed: dict[str, Any] = {}
    stack: list[Any]
    read: Callable[[int], bytes]
    dispatch: ClassVar[dict[int, Callable[[Any], None]]] = dict(pickle._Unpickler.dispatch)

    def find_class(self, module: str, name: str) -> Any:
        wanted = f"{module.replace('numpy._core.', 'numpy.core.')}.{name}"
        if wanted not in self.allowed:
            raise pickle.UnpicklingError(
                f"it asks for the global {module}.{name}, but only numpy arrays are allowed. Do "
                "not trust this file unless you know where it comes from"
            )
        return self.allowed[wanted]

    def load_build(self) -> None:
        """Set the state of an array or its type, and of nothing else."""
        state, inst = self.stack.pop(), self.stack[-1]
        if isinstance(inst, _Type) and isinstance(state, tuple) and len(state) >= 5:
            if state[2:5] != (None, None, None) or state[1] not in ("<", ">", "|", "="):
                raise pickle.UnpicklingError("it holds records, or an order of bytes unknown here")
            if state[1] != "|":
                inst.dtype = inst.dtype.newbyteorder(state[1])
        elif isinstance(inst, np.ndarray) and isinstance(state, tuple) and len(state) == 5:
            _, shape, kind, is_fortran, content = state
            if isinstance(content, str):
                content = content.encode("latin1")
            _check_array(content, kind, shape)
            inst.__setstate__((1, shape, kind.dtype, bool(is_fortran), content))  # type: ignore[arg-type]
        else:
            raise pickle.UnpicklingError(
                f"it sets the state of a {type(inst).__name__}, which is not allowed"
            )

    def load_setitem(self) -> None:
        """Put an item into a dict; a key must be plain, for nested ones take forever to hash."""
        _check_keys(self.stack[-2:-1])
        super().load_setitem()  # type: ignore[misc]

    def load_setitems(self) -> None:
        """Put items into a dict."""
        _check_keys(self.stack[::2])
        super().load_setitems()  # type: ignore[misc]

    def load_dict(self) -> None:
        """Make a dict of items."""
        _check_keys(self.stack[::2])
        super().load_dict()  # type: ignore[misc]

    def load_set_items(self) -> None:
        """Refuse sets, which hash what they hold."""
        raise pickle.UnpicklingError("it holds a set, which is not allowed")

    def load_bytearray8(self) -> None:
        """Read before anything is allocated."""
        (length,) = struct.unpack("<Q", self.read(8))
        content = self.read(min(length, MAX_BYTES))
        if len(content) != length:
            raise EOFError(f"{length} bytes should follow, {len(content)} do")
        self.stack.append(content)

    dispatch[pickle.BUILD[0]] = load_build
    dispatch[pickle.SETITEM[0]] = load_setitem
    dispatch[pickle.SETITEMS[0]] = load_setitems
    dispatch[pickle.DICT[0]] = load_dict
    dispatch[pickle.ADDITEMS[0]] = load_set_items
    dispatch[pickle.FROZENSET[0]] = load_set_items
    dispatch[pickle.BYTEARRAY8[0]] = load_bytearray8


def _check_keys(keys: Sequence[object]) -> None:
    """Keys of a dict that cost nothing to hash, or an error."""
    strange = [key for key in keys if not isinstance(key, str | bytes | int | float | np.generic)]
    if any(key is not None for key in strange):
        raise pickle.UnpicklingError(
            f"it holds a dict with a {type(strange[0]).__name__} as a key, which is not allowed"
        )


def _check_array(content: Any, kind: Any, shape: Any) -> None:
    """Bytes, or a list of objects, as many as the shape says, or an error."""
    if not isinstance(shape, tuple) or not all(isinstance(n, int) for n in shape):
        raise pickle.UnpicklingError("it holds an array whose shape is no tuple of whole numbers")
    if len(shape) > 32 or not all(0 <= n < 2**48 for n in shape):
        raise pickle.UnpicklingError(f"it holds an array of the impossible shape {shape[:32]}")
    if not isinstance(kind, _Type):
        raise pickle.UnpicklingError("it holds an array of no known type")
    count = math.prod(shape)
    if kind.dtype.hasobject:
        if not isinstance(content, list) or len(content) != count:
            raise ValueError(f"an array of shape {shape} has not {count} objects")
    elif not isinstance(content, bytes) or len(content) != count * kind.dtype.itemsize:
        raise ValueError(f"an array of shape {shape} has not {count} numbers")


def _from_buffer(content: Any, kind: Any, shape: Any, order: Any, *_: object) -> np.ndarray:
    """An array of numbers, as protocol 5 hands it on."""
    _check_array(content, kind, shape)
    if kind.dtype.hasobject or order not in ("C", "F"):
        raise pickle.UnpicklingError("it holds an array of objects, or in an unknown order")
    found = np.frombuffer(content, kind.dtype) if content else np.empty(0, kind.dtype)
    return found.reshape(shape, order=order)


def _empty_array(*_: object) -> np.ndarray:
    """An array that its pickled state will fill; sizes that a file asks for are not allocated."""
    return np.empty(0)


def _type(spec: object, *_: object) -> _Type:
    if not isinstance(spec, str) or not re.fullmatch(r"[<>=|]?[biufcOSU?]\d{0,5}", spec):
        shown = repr(spec[:40]) if isinstance(spec, str) else type(spec).__name__
        raise pickle.UnpicklingError(f"it asks for the type {shown} of numbers")
    return _Type(np.dtype(spec))


def _scalar(kind: object, content: object = b"") -> Any:
    """A number of numpy from its bytes."""
    raw = content.encode("latin1") if isinstance(content, str) else content
    return _from_buffer(raw, kind, (1,), "C")[0]


def _encode_latin1(text: str, encoding: str) -> bytes:
    """Encode as numpy arrays pickled by Python 3 at protocol 2 need; no other codec is loaded."""
    if encoding != "latin1":
        shown = repr(encoding[:40]) if isinstance(encoding, str) else type(encoding).__name__
        raise pickle.UnpicklingError(f"it asks for the codec {shown}, but only latin1 is allowed")
    return _codecs.latin_1_encode(text)[0]


_ArrayUnpickler.allowed = {
    "numpy.ndarray": _empty_array,
    "numpy.dtype": _type,
    "numpy.core.multiarray._reconstruct": _empty_array,
    "numpy.core.multiarray.scalar": _scalar,
    "numpy.core.numeric._frombuffer": _from_buffer,
    "_codecs.encode": _encode_latin1,
}


# --- tensors -------------------------------------------------------------------------------------


class _TensorUnpickler(_ArrayUnpickler):
    """Knows the globals of tensors besides, which become arrays."""


class _StorageUnpickler(_ArrayUnpickler):
    """Reads what torch writes of a storage: its kind, its key, its length."""

    def persistent_load(self, key: Any) -> tuple[np.dtype[Any], str, int]:
        if not isinstance(key, tuple) or len(key) < 5 or not isinstance(key[1], np.dtype):
            raise pickle.UnpicklingError("it holds a storage of a kind that is not read")
        if not isinstance(key[2], str) or not isinstance(key[4], int):
            raise pickle.UnpicklingError("it holds a storage without a name or a length")
        return key[1], key[2], key[4]


_STORAGES = {
    f"torch.{name}Storage": np.dtype(kind)
    for name, kind in (
        ("Float", "<f4"), ("Double", "<f8"), ("Half", "<f2"), ("Long", "<i8"), ("Int", "<i4"),
        ("Short", "<i2"), ("Char", "i1"), ("Byte", "u1"), ("Bool", "?"),
    )
}  # fmt: skip
_StorageUnpickler.allowed = {**_STORAGES}
_MAGIC = 0x1950A86A20F9469CFC6C
"""First number of torch's files before the archives (torch/serialization.py)."""


def _storage(content: object) -> np.ndarray:
    """The numbers of a storage as `torch.storage._load_from_bytes` reads them, without torch."""
    raw = content.encode("latin1") if isinstance(content, str) else content
    if not isinstance(raw, bytes):
        raise pickle.UnpicklingError("it holds a storage that is no bytes")
    stream = io.BytesIO(raw)
    magic, _, _, storage, keys = (_StorageUnpickler(stream).load() for _ in range(5))
    if magic != _MAGIC or not isinstance(storage, tuple) or keys != [storage[1]]:
        raise pickle.UnpicklingError("it holds a storage in a form that is not read")
    dtype, _, length = storage
    (stored,) = struct.unpack("<q", stream.read(8))
    numbers = stream.read()
    if stored != length or length < 0 or len(numbers) != length * dtype.itemsize:
        raise ValueError(f"a tensor of {length} numbers has {len(numbers)} bytes")
    return np.frombuffer(numbers, dtype)


def _tensor(
    storage: object, offset: object, size: object, stride: object, *_: object
) -> np.ndarray:
    """An array like the tensor, with bounds checked; no larger than the storage."""
    sides = (
        (*size, *stride, offset) if isinstance(size, tuple) and isinstance(stride, tuple) else ()
    )
    if not isinstance(storage, np.ndarray) or not sides or not isinstance(size, tuple):
        raise pickle.UnpicklingError("it holds a tensor in a form that is not read")
    if not all(isinstance(n, int) and 0 <= n < 2**40 for n in sides) or not len(size) <= 8:
        raise ValueError("a tensor has an impossible shape")
    start, steps = sides[-1], sides[len(size) : -1]
    if len(steps) != len(size) or math.prod(size) > storage.size:
        raise ValueError(f"a tensor of shape {size} has only {storage.size} numbers")
    last = start + sum((n - 1) * step for n, step in zip(size, steps, strict=True))
    if math.prod(size) and last >= storage.size:
        raise ValueError("a tensor reaches beyond its numbers")
    if not math.prod(size):
        return np.empty(size, storage.dtype)
    bytes_ = tuple(step * storage.itemsize for step in steps)
    return np.lib.stride_tricks.as_strided(storage[start:], size, bytes_).copy()


def _no_hooks(*items: object) -> OrderedDict[str, object]:
    """The hooks of a tensor, of which there are none."""
    if items:
        raise pickle.UnpicklingError("it holds a tensor with hooks")
    return OrderedDict()


_TensorUnpickler.allowed = {
    **_ArrayUnpickler.allowed,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch.storage._load_from_bytes": _storage,
    "collections.OrderedDict": _no_hooks,
}
