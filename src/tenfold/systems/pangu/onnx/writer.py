"""Our Pangu-Weather network as an ONNX file that is laid out as the official ones."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Int
from torch import nn

from tenfold.files import replacing
from tenfold.weights.onnx_file import GRAPH, INITIALISER, RAW_DATA, need_onnx, prefixed

from .graph import Graph
from .tables import Triple, position_index, relative_rows, shift_mask, window_types

LIMIT = 2**31 - 1
"""Bytes that a protobuf message, hence an ONNX file, may have."""
FIRST_BASE, FIRST_NUMBER = 12, 8946
"""First block's number in the official names b1.a<n>, and first exporter number in the 24 h file.
"""
COUNTS = {"block": 107, "shifted": 13, "down": 6, "up": -5, "after_up": 7}
"""Advance of the exporter's counter over each part, in the 24 h file."""
OPSETS = (13, 17)
"""First and last opset that can be written; LayerNormalization exists from 17 on."""


def write_onnx(
    path: Path,
    network: nn.Module,
    statistics: Sequence[Float[np.ndarray, "..."]],
    *,
    bias: Literal["expanded", "compact"] = "expanded",
    counter: int = FIRST_NUMBER,
    opset: int = 17,
) -> None:
    """Write a `Pangu` with inputs and outputs in physical units and no batch axis, float32.

    `statistics`: mean and std of the levels (variable, level), mean and std of the surface
    (variable). `bias`: tables for every pair of tokens as official files have them, or as we hold
    them (much smaller). `counter`: first number in the names that the official exporter made up.
    Below opset 17 norms are written out. Relative and no bias are written as the Earth-specific
    table that they equal, and one recovery bias a variable as one a pixel. Raises ValueError for
    what the layout cannot hold, before anything is written; a file that was there stays until the
    new one is complete.
    """
    onnx = need_onnx()
    _refuse(network, opset)
    graph = Graph(opset, counter)
    _Writer(graph, network, _checked(network, statistics), bias).write()
    model = onnx.helper.make_model(
        graph.proto("pangu"),
        opset_imports=[onnx.helper.make_opsetid("", opset)],
        producer_name="tenfold",
        ir_version=8,
    )
    _save(path, model, graph.weights)


def _refuse(network: nn.Module, opset: int) -> None:
    """ValueError that lists all that an official file cannot hold."""
    cfg: Any = network.cfg
    grid: Any = network.grid
    wrong = []
    if cfg.attention != "3d":
        wrong.append(f"model.attention={cfg.attention} (only 3d)")
    if not grid.periodic:
        wrong.append("a regional grid (only longitude that closes the circle)")
    if not OPSETS[0] <= opset <= OPSETS[1]:
        wrong.append(f"opset {opset} (only {OPSETS[0]} to {OPSETS[1]})")
    if wrong:
        raise ValueError(
            f"the official layout of ONNX files has no {'; no '.join(wrong)}. "
            "Use `tenfold export` for an ordinary ONNX file"
        )


def _checked(
    network: nn.Module, statistics: Sequence[Float[np.ndarray, "..."]]
) -> list[np.ndarray]:
    grid: Any = network.grid
    upper, surface = (len(grid.upper), len(grid.levels)), (len(grid.surface),)
    names = ("mean of the levels", "std of the levels", "mean of the surface", "std of the surface")
    if len(statistics) != 4:
        raise ValueError(f"statistics are four arrays ({', '.join(names)}), got {len(statistics)}")
    shapes = (upper, upper, surface, surface)
    for name, values, shape in zip(names, statistics, shapes, strict=True):
        if values.shape != shape or not np.isfinite(values).all():
            raise ValueError(f"{name} must be finite and {shape}, got {values.shape}")
        if name.startswith("std") and values.min() <= 0:
            raise ValueError(f"{name} must be positive, got {values.min()}")
    return [np.ascontiguousarray(values, dtype=np.float32) for values in statistics]


class _Writer:
    """One network's graph."""

    def __init__(
        self, graph: Graph, network: nn.Module, statistics: list[np.ndarray], bias: str
    ) -> None:
        self.graph, self.bias = graph, bias
        self.masks: dict[Triple, str] = {}
        self._set_sizes(network.cfg, network.grid)
        self.state = {k: v.detach().cpu().float().numpy() for k, v in network.state_dict().items()}
        self.mean, self.std = statistics[0::2], statistics[1::2]

    def _set_sizes(self, cfg: Any, grid: Any) -> None:
        """Of a system's `Model` and `Grid`, which this folder may not import."""
        self.cfg, self.grid = cfg, grid
        (lat, lon), (pz, ph, pw) = grid.shape, cfg.patch
        self.levels, self.lat, self.lon = len(grid.levels), lat, lon
        self.planes, self.rows, self.columns = -(-self.levels // pz), -(-lat // ph), lon // pw
        self.fine: Triple = (self.planes + 1, self.rows, self.columns)
        self.coarse: Triple = (self.planes + 1, -(-self.rows // 2), self.columns // 2)

    def write(self) -> None:
        graph, dim = self.graph, self.cfg.dim
        variables, fields = len(self.grid.upper), len(self.grid.surface)
        graph.input("input", (variables, self.levels, self.lat, self.lon))
        graph.input("input_surface", (fields, self.lat, self.lon))
        upper, given = self._embed_upper(variables)
        surface, ground = self._embed_surface(fields)
        x = graph.op("Concat", surface, upper, axis=2)  # the surface is plane 0
        x = graph.reshape(x, (1, dim, self.tokens(self.fine)))
        x = graph.op("Transpose", x, perm=(0, 2, 1))
        base = FIRST_BASE
        x, base = self._layer(x, 1, self.fine, base)
        skip = x
        x, base = self._down(x, base)
        for layer in (2, 3):
            x, base = self._layer(x, layer, self.coarse, base)
        x, base = self._up(x, base)
        x, base = self._layer(x, 4, self.fine, base)
        x = graph.op("Concat", skip, x, axis=-1)
        x = graph.reshape(x, (1, *self.fine, 2 * dim))
        x = graph.op("Transpose", x, perm=(0, 4, 1, 2, 3))
        self._recover_upper(x, variables, base, given)
        self._recover_surface(x, fields, base, ground)

    @staticmethod
    def tokens(size: Triple) -> int:
        return size[0] * size[1] * size[2]

    def _embed_upper(self, variables: int) -> tuple[str, str]:
        """Normalised with the levels from above down, as the official graph does."""
        graph, (pz, ph, pw) = self.graph, self.cfg.patch
        size = (self.levels, self.lat, self.lon)
        x = graph.reshape("input", (1, variables, 1, *size))
        x = graph.flip(graph.op("Transpose", x, perm=(0, 2, 3, 4, 5, 1)), 2)
        for operation, values in (("Sub", self.mean[0]), ("Div", self.std[0])):
            x = graph.op(operation, x, graph.constant(values[:, ::-1].T[:, None, None]))
        x = given = graph.flip(graph.op("Transpose", x, perm=(0, 5, 1, 2, 3, 4)), 3)
        extra = self.state["upper_constants"]
        if len(extra):
            x = graph.op("Concat", x, graph.constant(extra[None, None]), axis=1)
            variables += 1
        x = graph.reshape(x, (1, variables, *size))
        sizes = (self.planes * pz, self.rows * ph, self.lon)
        x = graph.pad_end(x, [n - m for n, m in zip(sizes, size, strict=True)], 5)
        x = graph.reshape(x, (1, variables, self.planes, pz, self.rows, ph, self.columns, pw))
        x = graph.op("Transpose", x, perm=(0, 1, 3, 5, 7, 2, 4, 6))
        x = graph.reshape(x, (1, variables * pz * ph * pw, self.planes * self.rows * self.columns))
        x = graph.convolution(x, "b1.a1", *self._embedding("embed.upper"))
        return graph.reshape(x, (1, self.cfg.dim, self.planes, self.rows, self.columns)), given

    def _embed_surface(self, fields: int) -> tuple[str, str]:
        graph, (_, ph, pw) = self.graph, self.cfg.patch
        x = graph.reshape("input_surface", (1, fields, 1, self.lat, self.lon))
        x = graph.op("Transpose", x, perm=(0, 2, 3, 4, 1))
        x = graph.op("Sub", x, graph.constant(self.mean[1]))
        x = graph.op("Div", x, graph.constant(self.std[1]))
        x = graph.op("Transpose", x, perm=(0, 4, 1, 2, 3))
        x = given = graph.reshape(x, (1, fields, self.lat, self.lon))
        x = graph.pad_end(x, [self.rows * ph - self.lat, 0], 4)
        maps = self.state["surface_constants"]
        if len(maps):
            x = graph.op("Concat", x, graph.constant(maps[None]), axis=1)
            fields += len(maps)
        x = graph.reshape(x, (1, fields, self.rows, ph, self.columns, pw))
        x = graph.op("Transpose", x, perm=(0, 1, 3, 5, 2, 4))
        x = graph.reshape(x, (1, fields * ph * pw, self.rows * self.columns))
        x = graph.convolution(x, "b1.a2", *self._embedding("embed.surface"))
        return graph.reshape(x, (1, self.cfg.dim, 1, self.rows, self.columns)), given

    def _embedding(self, key: str) -> tuple[np.ndarray, np.ndarray]:
        weight = self.state[f"{key}.weight"]
        return weight.reshape(len(weight), -1), self.state[f"{key}.bias"]

    def _layer(self, x: str, layer: int, size: Triple, base: int) -> tuple[str, int]:
        for place in range(self.cfg.depths[layer - 1]):
            x = self._block(x, f"layer{layer}.blocks.{place}", layer, size, base, place % 2 == 1)
            base += 8
        return x, base

    def _block(self, x: str, key: str, layer: int, size: Triple, base: int, shifted: bool) -> str:
        graph, state = self.graph, self.state
        number = graph.counter
        heads = self.cfg.heads[layer - 1]
        a = self._attention(x, f"{key}.attention", heads, size, base, shifted)
        a = graph.norm(
            a, f"b1.a{base + 2}", state[f"{key}.norm1.weight"], state[f"{key}.norm1.bias"]
        )
        x = graph.op("Add", x, a)
        name = f"b1.a{base + 4}"
        y = graph.linear(
            x, number + 6, state[f"{key}.fc1.weight"], f"{name}.fc1.bias", state[f"{key}.fc1.bias"]
        )
        y = graph.linear(
            graph.gelu(y), number + 7, state[f"{key}.fc2.weight"],
            f"{name}.fc2.bias", state[f"{key}.fc2.bias"],
        )  # fmt: skip
        y = graph.norm(
            y, f"b1.a{base + 3}", state[f"{key}.norm2.weight"], state[f"{key}.norm2.bias"]
        )
        graph.counter = number + COUNTS["shifted" if shifted else "block"]
        return graph.op("Add", x, y)

    def _attention(
        self, x: str, key: str, heads: int, size: Triple, base: int, shifted: bool
    ) -> str:
        graph, state, number = self.graph, self.state, self.graph.counter
        window = self.cfg.window
        width = len(state[f"{key}.project.bias"])
        x, windows, volume = self._cut(graph.reshape(x, (1, *size, width)), size, width, shifted)
        many, types, tokens = windows
        x = graph.linear(
            x, number, state[f"{key}.qkv.weight"], f"b1.a{base}.bias", state[f"{key}.qkv.bias"]
        )
        x = graph.reshape(x, (*windows, 3, heads, width // heads))
        x = graph.op("Transpose", x, perm=(3, 0, 1, 4, 2, 5))
        q, k, v = (graph.pick(x, i) for i in range(3))
        q = graph.op("Mul", q, graph.constant(np.float32((width // heads) ** -0.5)))
        logits = graph.op("MatMul", q, graph.op("Transpose", k, perm=(0, 1, 2, 4, 3)))
        logits = graph.op("Add", logits, self._table(key, number + 4, types, heads))
        if shifted:
            if size not in self.masks:
                self.masks[size] = graph.constant(shift_mask(size, window)[:, None])
            logits = graph.op("Add", logits, self.masks[size])
        x = graph.op("MatMul", graph.op("Softmax", logits, axis=-1), v)
        x = graph.reshape(graph.op("Transpose", x, perm=(0, 1, 3, 2, 4)), (*windows, width))
        x = graph.linear(
            x, number + 5, state[f"{key}.project.weight"],
            f"b1.a{base + 1}.bias", state[f"{key}.project.bias"],
        )  # fmt: skip
        return self._join(x, size, volume, width, shifted)

    def _cut(self, x: str, size: Triple, width: int, shifted: bool) -> tuple[str, Triple, Triple]:
        """Windows (longitude, type, token, channel); their numbers, and the padded size."""
        graph, (wz, wh, ww), (z, h, w) = self.graph, self.cfg.window, size
        hp = -(-h // wh) * wh
        x = graph.pad_end(x, [hp - h, 0, 0], 5)
        if shifted:
            for axis, n, part in zip((1, 2, 3), (z, hp, w), (wz, wh, ww), strict=True):
                x = graph.roll(x, axis, part // 2, n)
        x = graph.reshape(x, (1, z // wz, wz, hp // wh, wh, w // ww, ww, width))
        x = graph.op("Transpose", x, perm=(0, 5, 1, 3, 2, 4, 6, 7))
        windows = (w // ww, window_types(size, self.cfg.window), wz * wh * ww)
        return graph.reshape(x, (*windows, width)), windows, (z, hp, w)

    def _join(self, x: str, size: Triple, volume: Triple, width: int, shifted: bool) -> str:
        graph, (wz, wh, ww), (z, hp, w) = self.graph, self.cfg.window, volume
        x = graph.reshape(x, (1, w // ww, z // wz, hp // wh, wz, wh, ww, width))
        x = graph.op("Transpose", x, perm=(0, 2, 4, 3, 5, 1, 6, 7))
        x = graph.reshape(x, (1, *volume, width))
        if shifted:
            for axis, n, part in zip((1, 2, 3), volume, (wz, wh, ww), strict=True):
                x = graph.roll(x, axis, n - part // 2, n)
        x = graph.slice(x, 2, 0, size[1])
        return graph.reshape(x, (1, self.tokens(size), width))

    def _table(self, key: str, number: int, types: int, heads: int) -> str:
        graph, window = self.graph, self.cfg.window
        index = position_index(window)
        table = self._compact(key, types, heads)
        name = f"onnx::Add_{number}"
        if self.bias == "compact":
            graph.weight(name, table.shape, lambda: table)
            x = graph.op("Gather", name, graph.constant(index), axis=0)
            x = graph.op("Transpose", x, perm=(2, 3, 0, 1))
            return graph.op("Unsqueeze", x, graph.constant(np.array([0])))
        shape = (1, types, heads, *index.shape)
        graph.weight(name, shape, lambda: _expanded(table, index))
        return name

    def _compact(self, key: str, types: int, heads: int) -> Float[np.ndarray, "row type head"]:
        """The Earth-specific table, or one that does the same as the bias this model has."""
        rows = relative_rows(self.cfg.window)
        if self.cfg.bias == "none":
            return np.zeros((len(rows), types, heads), np.float32)
        table = self.state[f"{key}.bias_table"]
        if self.cfg.bias == "relative":
            table = np.repeat(table[rows], types, 1)
        return table

    def _down(self, x: str, base: int) -> tuple[str, int]:
        graph, state, dim = self.graph, self.state, self.cfg.dim
        (z, h, w), number = self.fine, self.graph.counter
        x = graph.pad_end(graph.reshape(x, (1, z, h, w, dim)), [h % 2, 0, 0], 5)
        x = graph.reshape(x, (1, z, -(-h // 2), 2, w // 2, 2, dim))
        x = graph.op("Transpose", x, perm=(0, 1, 2, 4, 3, 5, 6))
        x = graph.reshape(x, (1, self.tokens(self.coarse), 4 * dim))
        name = f"b1.a{base - 2}"
        x = graph.norm(x, name, state["down.norm.weight"], state["down.norm.bias"])
        graph.counter = number + COUNTS["down"]
        return graph.linear(x, number, state["down.linear.weight"]), base + 2

    def _up(self, x: str, base: int) -> tuple[str, int]:
        graph, state, dim = self.graph, self.state, self.cfg.dim
        (z, h, w), number = self.coarse, self.graph.counter + COUNTS["up"]
        x = graph.linear(x, number, state["up.expand.weight"])
        x = graph.reshape(x, (1, z, h, w, 2, 2, dim))
        x = graph.op("Transpose", x, perm=(0, 1, 2, 4, 3, 5, 6))
        x = graph.reshape(x, (1, z, 2 * h, 2 * w, dim))
        x = graph.slice(x, 2, 0, self.fine[1])
        x = graph.reshape(x, (1, self.tokens(self.fine), dim))
        name = f"b1.a{base - 1}"
        x = graph.norm(x, name, state["up.norm.weight"], state["up.norm.bias"])
        graph.counter = number + COUNTS["after_up"]
        return graph.linear(x, number + 1, state["up.project.weight"]), base + 3

    def _recover_upper(self, x: str, variables: int, base: int, given: str) -> None:
        graph, (pz, ph, pw) = self.graph, self.cfg.patch
        size = (self.planes, self.rows, self.columns)
        x = graph.slice(x, 2, 1, self.planes + 1)
        x = graph.reshape(x, (1, 2 * self.cfg.dim, self.tokens(size)))
        x = graph.convolution(x, f"b1.a{base - 3}", *self._recovery("upper", pz * ph * pw))
        x = graph.reshape(x, (1, variables, pz, ph, pw, *size))
        x = graph.op("Transpose", x, perm=(0, 1, 5, 2, 6, 3, 7, 4))
        x = graph.reshape(x, (1, variables, self.planes * pz, self.rows * ph, self.lon))
        x = graph.slice(graph.slice(x, 2, 0, self.levels), 3, 0, self.lat)
        if self.cfg.residual:
            whole = (1, variables, self.levels, self.lat, self.lon)
            x = graph.op("Add", x, graph.reshape(given, whole))
        for operation, values in (("Mul", self.std[0]), ("Add", self.mean[0])):
            x = graph.op(operation, x, graph.constant(values[None, :, :, None, None]))
        graph.output(x, "output", (variables, self.levels, self.lat, self.lon))

    def _recover_surface(self, x: str, fields: int, base: int, given: str) -> None:
        graph, (_, ph, pw) = self.graph, self.cfg.patch
        x = graph.slice(x, 2, 0, 1)
        x = graph.reshape(x, (1, 2 * self.cfg.dim, self.rows * self.columns))
        x = graph.convolution(x, f"b1.a{base - 2}", *self._recovery("surface", ph * pw))
        x = graph.reshape(x, (1, fields, ph, pw, self.rows, self.columns))
        x = graph.op("Transpose", x, perm=(0, 1, 4, 2, 5, 3))
        x = graph.reshape(x, (1, fields, self.rows * ph, self.lon))
        x = graph.slice(x, 2, 0, self.lat)
        if self.cfg.residual:
            x = graph.op("Add", x, given)
        for operation, values in (("Mul", self.std[1]), ("Add", self.mean[1])):
            x = graph.op(operation, x, graph.constant(values[None, :, None, None]))
        graph.output(x, "output_surface", (fields, self.lat, self.lon))

    def _recovery(self, key: str, pixels: int) -> tuple[np.ndarray, np.ndarray]:
        weight, bias = (self.state[f"recover.{key}_{part}"] for part in ("weight", "bias"))
        weight = weight.reshape(len(weight), -1).T
        return weight, bias if len(bias) == len(weight) else bias.repeat(pixels)


def _expanded(
    table: Float[np.ndarray, "row type head"], index: Int[np.ndarray, "token token"]
) -> Float[np.ndarray, "1 type head token token"]:
    return table.transpose(1, 2, 0)[None][..., index]


def _save(path: Path, model: Any, weights: list[tuple[Any, Any]]) -> None:
    """Append the weights to the graph one at a time, so that the file is never held whole."""
    graph = model.graph.SerializeToString()
    heads = []
    for proto, _ in weights:
        raw = 4 * int(np.prod(proto.dims))
        head = proto.SerializeToString() + prefixed(RAW_DATA, raw)
        heads.append((prefixed(INITIALISER, len(head) + raw) + head, raw))
    length = len(graph) + sum(len(head) + raw for head, raw in heads)
    if length > LIMIT - 1024:
        raise ValueError(
            f"{path} would have {length} bytes; an ONNX file may have {LIMIT}. "
            'Write it with bias="compact"'
        )
    model.ClearField("graph")
    with replacing(path) as temporary, temporary.open("xb") as out:
        out.write(model.SerializeToString() + prefixed(GRAPH, length) + graph)
        for (head, _), (_, values) in zip(heads, weights, strict=True):
            out.write(head + np.ascontiguousarray(values(), dtype="<f4").tobytes())
