"""Earth-specific bias tables in ONNX files: expanded for every pair of tokens, or compact."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

from tenfold.weights.onnx_file import OnnxFile, Stored

Triple = tuple[int, int, int]
"""Level, latitude, longitude."""
MASK_VALUE = -100.0
"""Added to the attention of tokens that only the roll made neighbours (pseudocode)."""


def position_index(window: Triple) -> Int[np.ndarray, "token token"]:
    """Row of the compact table for (query, key) (pseudocode, `_construct_index`)."""
    wz, wh, ww = window
    z, h, x = (a.ravel() for a in np.meshgrid(*map(np.arange, window), indexing="ij"))
    level, row = z[:, None] + wz * z, h[:, None] + wh * h
    return (level * wh**2 + row) * (2 * ww - 1) + x[:, None] - x + ww - 1


def relative_rows(window: Triple) -> Int[np.ndarray, " row"]:
    """For each row of an Earth-specific table, the row of a relative one that it equals."""
    wz, wh, ww = window
    key_z, query_z, key_h, query_h, x = np.indices((wz, wz, wh, wh, 2 * ww - 1)).reshape(5, -1)
    z, h = query_z - key_z + wz - 1, query_h - key_h + wh - 1
    return (z * (2 * wh - 1) + h) * (2 * ww - 1) + x


def window_types(tokens: Triple, window: Triple) -> int:
    """Windows with a table of their own: those of one longitude."""
    return tokens[0] // window[0] * -(-tokens[1] // window[1])


def shift_mask(tokens: Triple, window: Triple) -> Float[np.ndarray, "type token token"]:
    """-100 where query and key of a shifted window lie apart; longitude is periodic."""
    (wz, wh, ww), z = window, tokens[0]
    rows = -(-tokens[1] // wh) * wh
    ids = 3 * _thirds(z, wz)[:, None] + _thirds(rows, wh)
    ids = ids.reshape(z // wz, wz, rows // wh, wh).transpose(0, 2, 1, 3).reshape(-1, wz * wh)
    ids = ids.repeat(ww, 1)
    return np.where(ids[:, :, None] != ids[:, None], MASK_VALUE, 0).astype(np.float32)


def _thirds(length: int, window: int) -> Int[np.ndarray, " place"]:
    """0 before the last window, 1 in its first part, 2 in its last half."""
    place = np.arange(length)
    if window == 1:
        return np.zeros_like(place)
    return (place >= length - window).astype(int) + (place >= length - window // 2)


def compact_table(
    file: OnnxFile, stored: Stored, window: Triple, key: str
) -> Float[np.ndarray, "row type head"]:
    """One entry a row of an expanded table; ValueError if pairs of one row are not all equal."""
    types, heads, tokens, _ = stored.dims[-4:]
    index = position_index(window)
    if tokens != len(index):
        raise file.error(f"{stored.name} ({key}) has {tokens} tokens, windows have {len(index)}")
    _, first = np.unique(index.ravel(), return_index=True)
    expanded = stored.array().reshape(types, heads, -1)
    table = expanded[:, :, first]
    worst = 0.0
    for one, rows in zip(expanded, table, strict=True):  # a type at a time: the file's are large
        difference = np.abs(one - rows[:, index.ravel()]).max()
        worst = max(worst, float(difference) if np.isfinite(difference) else np.inf)
    if worst:
        raise file.error(
            f"the bias table of {key}, {stored.name}, is not that of windows {window}: pairs of "
            f"one row differ by up to {worst:.3g}. If its window is another, give window="
        )
    return np.ascontiguousarray(table.transpose(2, 0, 1))


def gathered_table(
    file: OnnxFile, name: str, window: Triple, key: str
) -> tuple[Float[np.ndarray, "row type head"], str]:
    """A compact table that the graph expands by Gather, and its initialiser."""
    node = file.producer.get(name)
    while node is not None and node.op_type in ("Unsqueeze", "Transpose", "Reshape", "Identity"):
        node = file.producer.get(node.input[0])
    if node is None or node.op_type != "Gather":
        found = "nothing" if node is None else node.op_type
        raise file.error(f"looked for the bias table of {key} behind {name}, found {found}")
    stored, index = file.constant(node.input[0]), file.fold(node.input[1])
    if stored is None or index is None or stored.kind != 1 or len(stored.dims) != 3:
        raise file.error(f"the bias table of {key} is no constant of (rows, types, heads)")
    if not np.array_equal(index.ravel(), position_index(window).ravel()):
        raise file.error(f"the rows gathered for {key} are not those of windows {window}")
    return stored.array(), stored.name


def check_mask(
    file: OnnxFile, mask: np.ndarray, tokens: Triple, window: Triple, where: str
) -> None:
    """ValueError unless a mask in the file is the one that we compute."""
    ours = shift_mask(tokens, window)
    if mask.ndim < 3 or mask.size % ours.size or mask.shape[-1] != ours.shape[-1]:
        raise file.error(f"the mask of {where} is {mask.shape}, ours {ours.shape}")
    if not (mask.reshape(-1, *ours.shape) == ours).all():
        raise file.error(f"the mask of {where} is not that of windows {window} shifted by half")
