"""An ONNX file opened without loading it: its graph, and its tensors one at a time."""

from __future__ import annotations

import mmap
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from tenfold.extras import install

GRAPH, INITIALISER, RAW_DATA = 7, 5, 9
"""Field numbers in the ONNX schema: ModelProto.graph, GraphProto.initializer, TensorProto.raw_data.
"""
INLINE_BYTES = 1024
"""Tensors up to this size stay in the graph; larger ones are read from the file when asked for."""
OPERANDS = (
    dict.fromkeys(("Add", "Sub", "Mul", "Div", "MatMul", "Conv", "Gather", "Reshape", "Pad"), 2)
    | dict.fromkeys(("Identity", "Sqrt", "Cast", "Slice", "Transpose", "Unsqueeze", "Squeeze"), 1)
    | {"Concat": 1, "LayerNormalization": 3}
)
"""Inputs that a node must have."""
FOLD_LIMIT = 1 << 28
"""Most elements of a constant that is put together from others."""
INLINE, EXTERNAL = 0, 1
"""TensorProto.data_location: in the graph, or in a file of its own."""


@dataclass(frozen=True)
class Stored:
    """A tensor of the file that is read when asked for."""

    name: str
    dims: tuple[int, ...]
    kind: int
    """TensorProto.DataType; 1 is float32."""
    proto: Any
    place: tuple[Path, int] | None = None
    """File and offset of its bytes; None where the graph holds them."""

    def array(self) -> np.ndarray:
        """The values (a copy); ValueError if there are fewer or more than its shape says."""
        from onnx import numpy_helper

        if self.place is not None:
            path, offset = self.place
            values = np.fromfile(path, _dtype(self.kind), prod(self.dims), offset=offset)
            return values.reshape(self.dims)
        try:
            return numpy_helper.to_array(self.proto)
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(f"tensor {self.name} of shape {self.dims}: {error}") from error


class OnnxFile:
    """The graph of an ONNX file, with names resolved; nothing of it is run.

    Raises FileNotFoundError, ValueError (not ONNX, truncated, data outside of the folder) or
    ModuleNotFoundError (no `onnx`).
    """

    def __init__(self, path: Path) -> None:
        onnx = need_onnx()
        if not path.is_file():
            raise FileNotFoundError(f"no file {path}")
        self.path = path
        try:
            with path.open("rb") as handle, mmap.mmap(handle.fileno(), 0, prot=mmap.PROT_READ) as m:
                light, places = _without_raw_data(m)
            model = onnx.ModelProto.FromString(light)
        except (ValueError, onnx_decode_error()) as error:
            raise ValueError(f"{path} is not an ONNX file, or is cut off: {error}") from error
        self.graph = model.graph
        self.nodes = list(model.graph.node)
        self._inline(t for n in self.nodes for a in n.attribute if (t := a.t).data_location)
        self._inline(t for t in model.graph.initializer if t.data_location)
        if not self.nodes:
            raise ValueError(f"{path} is not an ONNX file: it has no nodes")
        self.initialisers = {
            proto.name: self._stored(proto.name, proto, place)
            for proto, place in zip(model.graph.initializer, places, strict=True)
        }
        self.producer = {name: node for node in self.nodes for name in node.output if name}
        self.users: dict[str, list[Any]] = {}
        for node in self.nodes:
            for name in dict.fromkeys(node.input):
                self.users.setdefault(name, []).append(node)
        self._check_order()
        self.shapes = _shapes(onnx, model)

    def error(self, message: str) -> ValueError:
        """An error that names the file."""
        return ValueError(f"{self.path}: {message}")

    def constant(self, name: str) -> Stored | None:
        """The initialiser or Constant node called `name`, also through Identity nodes."""
        while (node := self.producer.get(name)) is not None and node.op_type == "Identity":
            name = node.input[0]
        if node is not None and node.op_type == "Constant":
            value = attribute(node, "value", None)
            return None if value is None else self._stored(name, value, None)
        return self.initialisers.get(name)

    def fold(self, name: str) -> np.ndarray | None:
        """A constant's values, also of one rearranged, joined or padded; None if it is not one."""
        stored = self.constant(name)
        if stored is not None:
            return stored.array()
        node = self.producer.get(name)
        if node is None or node.op_type not in _FOLDED:
            return None
        given = [self.fold(i) for i in node.input if i]
        if any(x is None for x in given):
            return None
        if prod(self.shapes.get(name, (FOLD_LIMIT + 1,))) > FOLD_LIMIT:
            raise self.error(f"the constant {name} has more than {FOLD_LIMIT} elements")
        try:
            return _folded(node, [x for x in given if x is not None])
        except (ValueError, IndexError, TypeError) as error:
            raise self.error(f"{node.op_type} of constants to {name}: {error}") from error

    def origins(self, name: str) -> list[str]:
        """Initialisers from which a constant is made."""
        if name in self.initialisers:
            return [name]
        node = self.producer.get(name)
        return [] if node is None else [o for i in node.input if i for o in self.origins(i)]

    def marks(self, starts: Mapping[str, int], *, back: bool = False) -> dict[str, int]:
        """Bits of `starts` carried along the data, or back: what each value comes from (leads to).

        Shapes of tensors carry nothing.
        """
        found = dict(starts)
        for node in reversed(self.nodes) if back else self.nodes:
            source, target = (node.output, node.input) if back else (node.input, node.output)
            bits = 0
            for name in source:
                bits |= found.get(name, 0)
            if bits and node.op_type not in ("Shape", "Size"):
                for name in target:
                    found[name] = found.get(name, 0) | bits
        return found

    def _inline(self, tensors: Iterable[Any]) -> None:
        """Take small tensors from files of their own: shapes and axes are among them."""
        for proto in tensors:
            stored = self._stored(proto.name or "a constant", proto, None)
            if stored.place and prod(stored.dims) * _dtype(stored.kind).itemsize <= INLINE_BYTES:
                proto.raw_data = stored.array().tobytes()
                proto.data_location = INLINE
                del proto.external_data[:]

    def _check_order(self) -> None:
        """Check what ONNX demands and our walk relies on: topological order, no operand missing."""
        known = {"", *self.initialisers, *(i.name for i in self.graph.input)}
        for node in self.nodes:
            if len(node.input) < OPERANDS.get(node.op_type, 0) or not node.output:
                raise self.error(f"node {node.name} lacks an input or output of {node.op_type}")
            if lost := [name for name in node.input if name not in known]:
                raise self.error(f"node {node.name} uses {lost[0]}, which nothing before it makes")
            known.update(node.output)

    def _stored(self, name: str, proto: Any, place: tuple[int, int] | None) -> Stored:
        dims = tuple(int(d) for d in proto.dims)
        if any(d < 0 for d in dims):
            raise self.error(f"tensor {name} has the shape {dims}")
        if place is None and proto.data_location != EXTERNAL:
            return Stored(name, dims, proto.data_type, proto)
        path = self.path
        wanted = prod(dims) * _dtype(proto.data_type).itemsize
        if place is None:
            path, place = self._external(name, proto, wanted)
        if place[1] != wanted:
            raise self.error(f"tensor {name} of shape {dims} has {place[1]} bytes, not {wanted}")
        return Stored(name, dims, proto.data_type, proto, (path, place[0]))

    def _external(self, name: str, proto: Any, wanted: int) -> tuple[Path, tuple[int, int]]:
        entries = {e.key: e.value for e in proto.external_data}
        folder = self.path.parent.resolve()
        place = (folder / entries.get("location", "")).resolve()
        if not place.is_relative_to(folder) or place == folder:
            raise self.error(
                f"the data of {name} is said to lie at {entries.get('location')!r}, outside of the "
                "file's folder; only files beside it are read"
            )
        if not place.is_file():
            raise FileNotFoundError(
                f"{self.path} keeps the data of {name} in {place}: no such file"
            )
        try:
            offset, length = int(entries.get("offset", 0)), int(entries.get("length", wanted))
        except ValueError as error:
            raise self.error(f"the place of the data of {name} is no number: {error}") from error
        if offset < 0 or offset + length > place.stat().st_size:
            raise self.error(f"{place} is too short to hold {name} ({length} bytes at {offset})")
        return place, (offset, length)


def need_onnx() -> Any:
    """The module `onnx`; ModuleNotFoundError says how to get it."""
    try:
        import onnx
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"ONNX files need the package onnx: {install('export')}"
        ) from error
    return onnx


def onnx_decode_error() -> type[Exception]:
    """Return the exception that protobuf raises for bytes that are no message."""
    from google.protobuf.message import DecodeError

    error: type[Exception] = DecodeError
    return error


def attribute(node: Any, name: str, default: Any) -> Any:
    """An attribute of a node."""
    from onnx import helper

    return next((helper.get_attribute_value(a) for a in node.attribute if a.name == name), default)


def axes_of(node: Any, rank: int, given: list[np.ndarray]) -> list[int]:
    """Axes of Squeeze or Unsqueeze: an input since opset 13, an attribute before."""
    axes = given[1].tolist() if len(given) > 1 else attribute(node, "axes", [])
    return sorted(int(a) % rank for a in axes)


_FOLDED = ("Unsqueeze", "Squeeze", "Reshape", "Transpose", "Concat", "Pad")


def _folded(node: Any, given: list[np.ndarray]) -> np.ndarray:
    x = given[0]
    if node.op_type == "Transpose":
        return x.transpose(attribute(node, "perm", None))
    if node.op_type == "Concat":
        return np.concatenate(given, attribute(node, "axis", 0))
    if node.op_type == "Reshape":
        target = [x.shape[i] if n == 0 else int(n) for i, n in enumerate(given[1])]
        return x.reshape(target)
    if node.op_type == "Unsqueeze":
        many = len(given[1]) if len(given) > 1 else len(attribute(node, "axes", []))
        return np.expand_dims(x, tuple(axes_of(node, x.ndim + many, given)))
    if node.op_type == "Squeeze":
        return x.squeeze(tuple(axes_of(node, x.ndim, given)) or None)
    before, after = np.asarray(given[1]).reshape(2, x.ndim)  # Pad
    value = float(given[2].item()) if len(given) > 2 else 0.0
    return np.pad(x, np.stack([before, after], 1), constant_values=value)


def _dtype(kind: int) -> np.dtype[Any]:
    from onnx import helper

    try:
        return np.dtype(helper.tensor_dtype_to_np_dtype(kind)).newbyteorder("<")
    except (KeyError, TypeError) as error:
        raise ValueError(f"unknown type of tensor, {kind}") from error


def _shapes(onnx: Any, model: Any) -> dict[str, tuple[int, ...]]:
    """Shapes of all values that are fixed; those that cannot be inferred are left out."""
    try:
        model = onnx.shape_inference.infer_shapes(model, data_prop=True)
    except (RuntimeError, ValueError, onnx.shape_inference.InferenceError):
        pass  # what the file itself says of shapes is left
    found = {t.name: tuple(t.dims) for t in model.graph.initializer}
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        tensor = value.type.tensor_type
        dims = tuple(d.dim_value for d in tensor.shape.dim)
        if tensor.HasField("shape") and all(d > 0 for d in dims):
            found[value.name] = dims
    return found


def _without_raw_data(data: mmap.mmap) -> tuple[bytes, list[tuple[int, int] | None]]:
    """The model without its large initialisers, and where their bytes are: offset, length."""
    out: list[bytes] = []
    places: list[tuple[int, int] | None] = []
    for number, start, body, end in _fields(data, 0, len(data)):
        if number != GRAPH:
            out.append(data[start:end])
            continue
        graph: list[bytes] = []
        for inner, inner_start, inner_body, inner_end in _fields(data, body, end):
            if inner != INITIALISER:
                graph.append(data[inner_start:inner_end])
                continue
            kept, place = _tensor(data, inner_body, inner_end)
            graph.append(prefixed(INITIALISER, len(kept)) + kept)
            places.append(place)
        joined = b"".join(graph)
        out.append(prefixed(GRAPH, len(joined)) + joined)
    return b"".join(out), places


def _tensor(data: mmap.mmap, start: int, end: int) -> tuple[bytes, tuple[int, int] | None]:
    kept: list[bytes] = []
    place = None
    for number, begin, body, stop in _fields(data, start, end):
        if number == RAW_DATA and stop - body > INLINE_BYTES:
            place = (body, stop - body)
        else:
            kept.append(data[begin:stop])
    return b"".join(kept), place


def _fields(data: mmap.mmap, at: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """Fields of a protobuf message: number, where its tag starts, its content starts and ends."""
    while at < end:
        start = at
        tag, at = _varint(data, at, end)
        number, wire = tag >> 3, tag & 7
        body = at
        if wire == 0:
            _, at = _varint(data, at, end)
        elif wire == 2:
            length, body = _varint(data, at, end)
            at = body + length
        elif wire in (1, 5):
            at += 8 if wire == 1 else 4
        else:
            raise ValueError(f"no such field at byte {start}")
        if at > end or number == 0:
            raise ValueError(f"the field at byte {start} ends at {at}, after {end}")
        yield number, start, body, at


def _varint(data: mmap.mmap, at: int, end: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= end:
            break
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
    raise ValueError(f"a number is cut off at byte {at}")


def prefixed(field: int, length: int) -> bytes:
    """Tag and length of a protobuf field whose content has `length` bytes."""
    out = bytearray([field << 3 | 2])
    while length > 127:
        out.append(length & 127 | 128)
        length >>= 7
    out.append(length)
    return bytes(out)
