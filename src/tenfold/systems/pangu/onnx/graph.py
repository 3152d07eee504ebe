"""Operations of a Pangu-Weather ONNX graph, written one after the other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from tenfold.weights.onnx_file import need_onnx

LAST_INT = 2**63 - 1
"""End of a slice that leaves nothing out."""


class Graph:
    """Nodes in the order in which they run, and weights that are made when the file is written."""

    def __init__(self, opset: int, counter: int) -> None:
        self.onnx = need_onnx()
        self.opset, self.counter = opset, counter
        self.nodes: list[Any] = []
        self.inputs: list[Any] = []
        self.outputs: list[Any] = []
        self.weights: list[tuple[Any, Callable[[], np.ndarray]]] = []

    def op(self, kind: str, *inputs: str, **given: Any) -> str:
        """A node; the name of its only output."""
        name = f"/b1/{kind}_{len(self.nodes)}"
        out = f"{name}_output_0"
        self.nodes.append(self.onnx.helper.make_node(kind, list(inputs), [out], name, **given))
        return out

    def constant(self, values: np.ndarray | np.generic) -> str:
        """A Constant node, as the official file holds statistics and maps."""
        array = np.array(values, order="C")  # a copy: `ascontiguousarray` adds an axis to scalars
        return self.op("Constant", value=self.onnx.numpy_helper.from_array(array))

    def weight(self, name: str, shape: Sequence[int], values: Callable[[], np.ndarray]) -> str:
        """An initialiser of float32, made only when it is written."""
        proto = self.onnx.TensorProto(name=name, dims=shape, data_type=1)
        self.weights.append((proto, values))
        return name

    def input(self, name: str, shape: Sequence[int]) -> None:
        """An input of fixed shape."""
        self.inputs.append(self.onnx.helper.make_tensor_value_info(name, 1, shape))

    def output(self, value: str, name: str, shape: Sequence[int]) -> None:
        """An output of fixed shape: the value without its batch axis."""
        target = self.constant(np.array(shape, np.int64))
        self.nodes.append(self.onnx.helper.make_node("Reshape", [value, target], [name], name))
        self.outputs.append(self.onnx.helper.make_tensor_value_info(name, 1, shape))

    def proto(self, name: str) -> Any:
        """The graph without its weights."""
        return self.onnx.helper.make_graph(self.nodes, name, self.inputs, self.outputs)

    def reshape(self, x: str, shape: Sequence[int]) -> str:
        """Same values, other axes."""
        return self.op("Reshape", x, self.constant(np.array(shape, np.int64)))

    def slice(self, x: str, axis: int, start: int, stop: int, step: int = 1) -> str:
        """Part of one axis."""
        parts = (self.constant(np.array([n], np.int64)) for n in (start, stop, axis, step))
        return self.op("Slice", x, *parts)

    def flip(self, x: str, axis: int) -> str:
        """One axis reversed."""
        return self.slice(x, axis, -1, -LAST_INT, -1)

    def roll(self, x: str, axis: int, start: int, length: int) -> str:
        """One axis rolled so that it begins at `start`."""
        if start % length == 0:
            return x
        parts = (self.slice(x, axis, start, LAST_INT), self.slice(x, axis, 0, start))
        return self.op("Concat", *parts, axis=axis)

    def pick(self, x: str, place: int) -> str:
        """One entry of the first axis."""
        return self.op("Gather", x, self.constant(np.int64(place)), axis=0)

    def pad_end(self, x: str, pads: Sequence[int], rank: int) -> str:
        """Zeros after the ends of the last axes of a value with `rank` axes."""
        if not any(pads):
            return x
        ends = [0] * (2 * rank - len(pads)) + list(pads)
        return self.op("Pad", x, self.constant(np.array(ends, np.int64)))

    def linear(
        self,
        x: str,
        number: int,
        weight: np.ndarray,
        bias_name: str = "",
        bias: np.ndarray | None = None,
    ) -> str:
        """A product with a transposed, opaquely named matrix, and a bias."""
        name = self.weight(f"onnx::MatMul_{number}", weight.shape[::-1], lambda: weight.T)
        x = self.op("MatMul", x, name)
        if bias is None:
            return x
        return self.op("Add", self.weight(bias_name, bias.shape, lambda: bias), x)

    def convolution(
        self,
        x: str,
        name: str,
        weight: Float[np.ndarray, "out channel"],
        bias: Float[np.ndarray, " out"],
    ) -> str:
        """A convolution of one pixel over (1, channel, token)."""
        self.weight(f"{name}.weight", (*weight.shape, 1), lambda: weight[:, :, None])
        self.weight(f"{name}.bias", bias.shape, lambda: bias)
        return self.op("Conv", x, f"{name}.weight", f"{name}.bias", kernel_shape=[1])

    def norm(self, x: str, name: str, weight: np.ndarray, bias: np.ndarray) -> str:
        """LayerNorm over the last axis; below opset 17 written out."""
        self.weight(f"{name}.weight", weight.shape, lambda: weight)
        self.weight(f"{name}.bias", bias.shape, lambda: bias)
        if self.opset >= 17:
            pair = (f"{name}.weight", f"{name}.bias")
            return self.op("LayerNormalization", x, *pair, axis=-1, epsilon=1e-5)
        x = self.op("Sub", x, self.op("ReduceMean", x, axes=[-1], keepdims=1))
        square = self.op("Pow", x, self.constant(np.float32(2)))
        square = self.op("ReduceMean", square, axes=[-1], keepdims=1)
        square = self.op("Add", square, self.constant(np.float32(1e-5)))
        x = self.op("Mul", self.op("Div", x, self.op("Sqrt", square)), f"{name}.weight")
        return self.op("Add", x, f"{name}.bias")

    def gelu(self, x: str) -> str:
        """x / 2 (1 + erf(x / sqrt 2))."""
        y = self.op("Div", x, self.constant(np.float32(2**0.5)))
        y = self.op("Add", self.op("Erf", y), self.constant(np.float32(1)))
        return self.op("Mul", self.op("Mul", x, y), self.constant(np.float32(0.5)))
