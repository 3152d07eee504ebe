"""3DPW: joint positions from `sequenceFiles/{train,validation,test}/*.pkl`, unpickled safely."""

from __future__ import annotations

import _codecs
import io
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np

from .motion import Clip, check_frames, check_names, check_table
from .skeleton import THREEDPW

SPLITS = ("train", "validation", "test")
MAX_BYTES = 2**29


def read(path: Path, split: str, length: int = 0) -> list[Clip]:
    """Clips of a split, one a person and sequence, 24 joints relative to the pelvis, in mm.

    ``path`` holds the three split folders (or `sequenceFiles` does). All frames are kept: the test
    rule "the last frames of 50 observed" is `protocol_windows(..., "3dpw", "all", ...)`. The set
    has no actions, and errors are means over all windows, so the action of every clip is "all".
    Source: spec section 5.3.
    """
    check_names([split], SPLITS, "split", "3dpw")
    folder = path / "sequenceFiles" if (path / "sequenceFiles").is_dir() else path
    files = sorted((folder / split).rglob("*.pkl"))
    if not files:
        raise ValueError(
            f"{folder / split} holds no .pkl file. Set data.path to the folder that holds "
            "train, validation and test."
        )
    clips = []
    for file in files:
        content = load_arrays(file)
        people = content.get("jointPositions") if isinstance(content, dict) else None
        if not isinstance(people, (list, tuple)) or not people:
            raise ValueError(
                f"{file} has no list 'jointPositions'. Use the sequence files of 3DPW as they are."
            )
        for person, table in enumerate(people):
            source = f"{file} jointPositions[{person}]"
            if not isinstance(table, np.ndarray):
                raise ValueError(f"{source} is a {type(table).__name__}, expected an array.")
            check_table(table, 72, source)
            check_frames(len(table), length, source)
            joints = table.reshape(-1, 24, 3).astype(np.float64)
            metres = joints - joints[:, :1]
            clips.append(
                Clip(
                    f"{split}/{file.stem}/{person}",
                    "all",
                    (1000 * metres).astype(np.float32),
                    THREEDPW.fps,
                )
            )
    return clips


def load_arrays(path: Path) -> Any:
    """Unpickle plain containers and numpy arrays; a file that asks for anything else is refused."""
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(
            f"{path} has {path.stat().st_size} bytes, more than the {MAX_BYTES} that a sequence "
            "file may have. Check that it belongs to 3DPW."
        )
    try:
        return _ArrayUnpickler(io.BytesIO(path.read_bytes()), encoding="latin1").load()
    except pickle.UnpicklingError as error:
        raise ValueError(f"{path} cannot be read: {error}.") from error
    except (
        EOFError, ValueError, TypeError, KeyError, IndexError, AttributeError, MemoryError,
        OverflowError, RecursionError, struct.error,
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
    """What numpy arrays pickled by Python 3 at protocol 2 need; no other codec is loaded."""
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
