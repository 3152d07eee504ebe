"""Between physical fields and the network in a Pangu-Weather graph: statistics and constant maps.

The official graph stores its statistics in an order of its own and flips the levels around them,
so the walk keeps track of which axis is which and of every flip.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tenfold.weights.onnx_file import OnnxFile, attribute

UPPER_AXES = ("v", "l", "y", "x")
"""Axes of `input`: variable, level, latitude, longitude."""
SURFACE_AXES = ("v", "y", "x")
"""Axes of `input_surface`."""
PASSED = ("Identity", "Cast", "Pad", "Slice", "Transpose", "Reshape", "Unsqueeze", "Squeeze")
"""Operations that rearrange fields."""


@dataclass(frozen=True)
class Layout:
    """Field axis of each axis of a value ("" for one of length 1), and those that are reversed."""

    axes: tuple[str, ...]
    flipped: frozenset[str] = frozenset()


@dataclass
class Branch:
    """All that happens to one input before its patches are embedded."""

    mean: np.ndarray
    """(variable, level) or (variable), canonical order, as is `std`."""
    std: np.ndarray
    constants: np.ndarray | None = None
    """Maps appended to the variables: (map, level, lat, lon) or (map, lat, lon)."""
    padded: tuple[int, ...] = ()
    """Sizes of the axes but the first, with padding."""
    names: dict[str, str] = field(default_factory=dict)
    """Initialisers of the statistics -> what they are."""
    maps: list[str] = field(default_factory=list)
    """Names of the appended maps."""


def read_branch(
    file: OnnxFile, name: str, axes: tuple[str, ...], toward: Mapping[str, int]
) -> Branch:
    """Follow an input to its patches; `toward` holds the values that lead to its embedding.

    Raises ValueError if there is no subtraction and division by constants on the way, or an
    operation that this reader does not know.
    """
    layout, value = Layout(axes), name
    sizes = dict(zip(axes, file.shapes[name], strict=True))
    parts: dict[str, Any] = {"names": {}}
    while True:
        users = [n for n in file.users.get(value, []) if toward.get(n.output[0])]
        users = [n for n in users if n.op_type not in ("Shape", "Size")]
        if len(users) != 1:
            raise file.error(f"{value}, made of {name}, has {len(users)} users, not one")
        node = users[0]
        after = _moved(file, node, value, node.output[0], layout)
        if after is None and node.op_type in ("Sub", "Div") and node.input[0] == value:
            kind = "mean" if node.op_type == "Sub" else "std"
            if kind in parts:
                raise file.error(f"two operations {node.op_type} on the way from {name}")
            parts[kind] = _statistics(file, node.input[1], layout, sizes)
            parts["names"] |= dict.fromkeys(file.origins(node.input[1]), f"{kind} of {name}")
        elif after is None and node.op_type == "Concat" and node.input[0] == value:
            if "constants" in parts:
                raise file.error(f"two operations Concat on the way from {name}")
            parts["constants"] = _appended(file, node, layout, axes)
            parts["maps"] = list(node.input[1:])
        elif after is None:
            break
        layout, value = after or layout, node.output[0]
    if absent := [k for k in ("mean", "std") if k not in parts]:
        raise file.error(
            f"looked for the {' and '.join(absent)} (Sub and Div by constants) on the way from "
            f"{name}, but came to {node.op_type} {node.name}"
        )
    if layout.flipped:
        raise file.error(f"the fields of {name} are still reversed where their patches are cut")
    shape = file.shapes.get(value, ())
    if len(shape) != len(layout.axes):
        raise file.error(f"the shape of {value}, made of {name}, is not known")
    padded = tuple(shape[layout.axes.index(a)] for a in axes[1:])
    return Branch(**parts, padded=padded)


def read_output(
    file: OnnxFile, name: str, axes: tuple[str, ...], data: Mapping[str, int]
) -> tuple[np.ndarray, np.ndarray, list[str]] | None:
    """Mean and std that an output is multiplied by and shifted with, and their initialisers.

    `data` holds the values that depend on the inputs. None where the way back is not understood.
    """
    layout, value = Layout(axes), name
    sizes = dict(zip(axes, file.shapes[name], strict=True))
    mean, names = None, []
    while (node := file.producer.get(value)) is not None:
        if node.op_type in ("Add", "Mul"):
            fixed = [i for i in node.input if not data.get(i)]
            if len(fixed) != 1 or (node.op_type == "Mul") == (mean is None):
                return None
            values = _statistics(file, fixed[0], layout, sizes)
            names += file.origins(fixed[0])
            if mean is not None:
                return mean, values, names
            mean = values
            value = next(i for i in node.input if data.get(i))
            continue
        before = _moved(file, node, value, node.input[0], layout)
        if before is None:
            return None
        layout, value = before, node.input[0]
    return None


def _moved(file: OnnxFile, node: Any, here: str, there: str, layout: Layout) -> Layout | None:
    """The layout at the other side of a node that only rearranges; None for other nodes.

    `here` is the value of which the layout is known: the node's input, or its output on the way
    back.
    """
    shapes = file.shapes.get(here, ()), file.shapes.get(there, ())
    if node.op_type not in PASSED or not all(shapes) or len(shapes[0]) != len(layout.axes):
        return None
    forward = here == node.input[0]
    if node.op_type == "Transpose":
        rank = len(layout.axes)
        perm = list(attribute(node, "perm", range(rank)[::-1]))
        if sorted(perm) != list(range(rank)):
            return None
        order = perm if forward else np.argsort(perm).tolist()
        return Layout(tuple(layout.axes[i] for i in order), layout.flipped)
    if node.op_type in ("Reshape", "Unsqueeze", "Squeeze"):
        axes = _relabelled(layout.axes, *shapes)
        return None if axes is None else Layout(axes, layout.flipped)
    if node.op_type == "Slice":
        reversed_axes = _reversed_axes(file, node, len(layout.axes))
        if reversed_axes is None:
            return None
        names = {layout.axes[a] for a in reversed_axes} - {""}
        return Layout(layout.axes, layout.flipped ^ names)
    return layout


def _relabelled(
    axes: tuple[str, ...], old: tuple[int, ...], new: tuple[int, ...]
) -> tuple[str, ...] | None:
    """Names of axes after a reshape that adds or removes axes of length 1 and nothing else."""
    left = [(name, size) for name, size in zip(axes, old, strict=True) if name]
    out = []
    for size in new:
        if left and left[0][1] == size:
            out.append(left.pop(0)[0])
        elif size == 1:
            out.append("")
        else:
            return None
    return None if left else tuple(out)


def _reversed_axes(file: OnnxFile, node: Any, rank: int) -> list[int] | None:
    """Axes that a Slice reverses whole; None if it takes steps of another kind."""
    if len(node.input) < 5:  # no steps: a crop
        return []
    axes, steps = (file.fold(node.input[i]) for i in (3, 4))
    if steps is None or (axes is None and node.input[3]):
        return None
    places = range(len(steps)) if axes is None else [int(a) % rank for a in axes.ravel()]
    out = []
    for axis, step in zip(places, steps.ravel(), strict=True):
        before, after = (file.shapes[name][axis] for name in (node.input[0], node.output[0]))
        if step != 1 and (step != -1 or before != after):
            return None
        if step == -1:
            out.append(axis)
    return out


def _statistics(file: OnnxFile, name: str, layout: Layout, sizes: Mapping[str, int]) -> np.ndarray:
    """A constant that is broadcast against fields, as (variable, level) or (variable)."""
    values = file.fold(name)
    if values is None or values.dtype != np.float32:
        raise file.error(f"statistics {name} are no constant of float32")
    kept = [a for a in UPPER_AXES[:2] if a in sizes]
    shape = (1,) * (len(layout.axes) - values.ndim) + values.shape
    wrong = [n for a, n in zip(layout.axes, shape, strict=False) if a not in kept and n != 1]
    if len(shape) != len(layout.axes) or wrong:
        raise file.error(f"statistics {name} of shape {values.shape} are not one number a field")
    values = values.reshape(shape)
    for axis in layout.flipped:
        values = np.flip(values, layout.axes.index(axis))
    order = [layout.axes.index(a) for a in kept]
    rest = [i for i in range(len(shape)) if i not in order]
    values = values.transpose(*order, *rest).reshape([shape[i] for i in order])
    wanted = [sizes[a] for a in kept]
    if any(n not in (1, w) for n, w in zip(values.shape, wanted, strict=True)):
        raise file.error(f"statistics {name} are {values.shape}, the fields {tuple(wanted)}")
    if not np.isfinite(values).all():
        raise file.error(f"statistics {name} are not finite")
    return np.ascontiguousarray(np.broadcast_to(values, wanted))


def _appended(file: OnnxFile, node: Any, layout: Layout, axes: tuple[str, ...]) -> np.ndarray:
    """Constant maps that a Concat appends to the variables, in the order of `axes`."""
    axis = attribute(node, "axis", 0) % len(layout.axes)
    parts = [file.fold(i) for i in node.input[1:]]
    arrays = [p for p in parts if p is not None and p.dtype == np.float32]
    if layout.axes[axis] != "v" or len(arrays) != len(parts) or not arrays:
        raise file.error(f"{node.name} appends something else than constant maps to the variables")
    if any(p.ndim != len(layout.axes) for p in arrays):
        raise file.error(f"maps appended by {node.name} have {arrays[0].ndim} axes")
    maps = np.concatenate(arrays, axis)
    for flipped in layout.flipped:
        maps = np.flip(maps, layout.axes.index(flipped))
    order = [layout.axes.index(a) for a in axes]
    rest = [i for i in range(maps.ndim) if i not in order]
    sizes = [maps.shape[i] for i in order]
    if not np.isfinite(maps).all():
        raise file.error(f"maps appended by {node.name} are not finite")
    return np.ascontiguousarray(maps.transpose(*order, *rest).reshape(sizes))
