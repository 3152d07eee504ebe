"""Pickles of plain containers and numpy arrays, read without running anything of them."""

from __future__ import annotations

import _codecs
import io
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np

MAX_BYTES = 2**29
"""Largest file that is read."""


def load_arrays(path: Path) -> Any:
    """Unpickle plain containers and numpy arrays; a file that asks for anything else is refused."""
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(
            f"{path} has {path.stat().st_size} bytes, more than the {MAX_BYTES} that a pickle may "
            "have. Check that it is a file of the set, as it was published."
        )
    try:
        return _ArrayUnpickler(io.BytesIO(path.read_bytes()), encoding="latin1").load()
    except pickle.UnpicklingError as error:
        raise ValueError(f"{path} cannot be read: {error}.") from error
    except (
        EOFError, ValueError, TypeError, KeyError, IndexError, AttributeError, MemoryError,
        ArithmeticError, RecursionError, struct.error,
    ) as error:  # fmt: skip
        raise ValueError(f"{path} is damaged or cut off: {error}. Copy it again.") from error


class _ArrayUnpickler(pickle._Unpickler):
    """Knows the globals that numpy arrays need, and no others.

    The unpickler in Python, because the one in C fills gigabytes for a memo index that a damaged
    file makes up.
    """

    def find_class(self, module: str, name: str) -> Any:
        wanted = f"{module.replace('numpy._core.', 'numpy.core.')}.{name}"
        if wanted not in _ALLOWED:
            raise pickle.UnpicklingError(
                f"it asks for the global {module}.{name}, but only numpy arrays are allowed. Do "
                "not trust this file unless you know where it comes from"
            )
        return _ALLOWED[wanted]


def _empty_array(*_: object) -> np.ndarray:
    """An array that its pickled state will fill; sizes that a file asks for are not allocated."""
    return np.empty(0)


def _encode_latin1(text: str, encoding: str) -> bytes:
    """Encode as numpy arrays pickled by Python 3 at protocol 2 need; no other codec is loaded."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(
            f"it asks for the codec {encoding!r}, but only latin1 is allowed"
        )
    return _codecs.latin_1_encode(text)[0]


_ALLOWED: dict[str, Any] = {
    "numpy.ndarray": _empty_array,
    "numpy.dtype": np.dtype,
    "numpy.core.multiarray._reconstruct": _empty_array,
    "numpy.core.multiarray.scalar": np.float64(0).__reduce__()[0],
    "_codecs.encode": _encode_latin1,
}
