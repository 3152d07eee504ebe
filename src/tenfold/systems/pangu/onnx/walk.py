"""The layers of a Pangu-Weather ONNX graph, found by the order in which they follow one another."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import prod
from typing import Any, Literal

from tenfold.weights.onnx_file import OnnxFile, attribute

UPPER, SURFACE = "input", "input_surface"
OUTPUTS = ("output", "output_surface")
"""Names of the official files' inputs and outputs."""
BOTH = 3
"""Mark of values that depend on both inputs (1 and 2)."""
RECOVERED = 4
"""Mark of values behind patch recovery."""
EPS = 1e-5
"""Of every LayerNorm (the official files)."""


@dataclass
class Step:
    """A layer met on the way through the graph."""

    kind: Literal["linear", "norm", "table"]
    weight: str
    bias: str | None
    node: Any

    def __str__(self) -> str:
        return f"{self.kind} {self.weight}" + (f" with {self.bias}" if self.bias else "")


@dataclass
class Block:
    """The steps of one transformer block."""

    parts: dict[str, Step] = field(default_factory=dict)
    mask: str | None = None
    """The second table that is added to its attention: the block is shifted."""


ORDER = ("qkv", "bias_table", "project", "norm1", "fc1", "fc2", "norm2")
"""Parts of a block as they follow one another."""
KINDS = {"bias_table": "table", "norm1": "norm", "norm2": "norm"}
"""Kinds of the parts that are not linear layers."""


class Walk:
    """Convolutions, blocks and the layers between them; ValueError says what was looked for."""

    def __init__(self, file: OnnxFile) -> None:
        self.file = file
        self._check_inputs()
        self.data = file.marks({UPPER: 1, SURFACE: 2})
        """Inputs that each value comes from: 1, 2 or both."""
        self.embeds, self.recovers = self._convolutions()
        after = [n.output[0] for n in self.recovers]
        self.behind = file.marks(dict.fromkeys(after, RECOVERED))
        """Values behind patch recovery."""
        self.layers, self.middle = self._parse(self._steps())
        """Blocks of the four layers; and down.norm, ..., up.project."""

    def _check_inputs(self) -> None:
        """The official names and fixed shapes, before anything else is looked for."""
        file = self.file
        inputs = [i.name for i in file.graph.input if i.name not in file.initialisers]
        outputs = [o.name for o in file.graph.output]
        shapes = {n: file.shapes.get(n, ()) for n in (*inputs, *outputs)}
        text = ", ".join(f"{name} {shape or 'of no fixed shape'}" for name, shape in shapes.items())
        looked = (
            "looked for the inputs input (variables, levels, latitudes, longitudes) and "
            "input_surface (variables, latitudes, longitudes) and the outputs output and "
            f"output_surface of the same shapes, found {text}: not a Pangu-Weather model"
        )
        if set(inputs) != {UPPER, SURFACE} or set(outputs) != set(OUTPUTS):
            raise file.error(looked)
        upper, surface = shapes[UPPER], shapes[SURFACE]
        if len(upper) != 4 or len(surface) != 3 or upper[2:] != surface[1:]:
            raise file.error(looked)
        if (shapes[OUTPUTS[0]], shapes[OUTPUTS[1]]) != (upper, surface):
            raise file.error(looked)

    def _convolutions(self) -> tuple[list[Any], list[Any]]:
        """Embedding of the levels and the surface, and their recovery: the four convolutions."""
        leads = self.file.marks({OUTPUTS[0]: 1, OUTPUTS[1]: 2}, back=True)
        placed: dict[tuple[str, int], list[Any]] = {}
        for node in self.file.nodes:
            if node.op_type == "Conv":
                mark = self.data.get(node.input[0], 0)
                key = ("recover", leads.get(node.output[0], 0)) if mark == BOTH else ("embed", mark)
                placed.setdefault(key, []).append(node)
        wanted = [("embed", 1), ("embed", 2), ("recover", 1), ("recover", 2)]
        if set(placed) != set(wanted) or any(len(nodes) != 1 for nodes in placed.values()):
            counts = {f"{k} {mark}": len(nodes) for (k, mark), nodes in placed.items()}
            raise self.file.error(
                "looked for four convolutions, one that embeds each input and one that makes each "
                f"output, found {counts or 'none'}: not a Pangu-Weather model"
            )
        nodes = [placed[key][0] for key in wanted]
        for node in nodes:
            weight = self.file.constant(node.input[1])
            if weight is None or len(node.input) < 3 or any(n != 1 for n in weight.dims[2:]):
                raise self.file.error(f"{node.name} is no 1 x 1 convolution with a bias")
        return nodes[:2], nodes[2:]

    def _steps(self) -> list[Step]:
        """Linear layers, norms and tables between embedding and recovery, in the order they run."""
        steps = []
        for node in self.file.nodes:
            if self.data.get(node.output[0]) == BOTH and not self.behind.get(node.output[0]):
                step = self._step(node)
                steps += [step] if step else []
        return steps

    def _step(self, node: Any) -> Step | None:
        file = self.file
        if node.op_type == "MatMul":
            weight = file.constant(node.input[1])
            if weight is not None and len(weight.dims) == 2:
                return Step("linear", node.input[1], self._vector("Add", node), node)
        elif node.op_type == "LayerNormalization":
            self._check_eps(node, attribute(node, "epsilon", EPS))
            return Step("norm", node.input[1], node.input[2], node)
        elif node.op_type == "Mul":
            sources = [file.producer.get(i) for i in node.input]
            divided = next((s for s in sources if s is not None and s.op_type == "Div"), None)
            scale = next((i for i in node.input if self._is_vector(i)), None)
            bias = self._vector("Add", node)
            if divided is not None and scale and bias:
                self._check_eps(node, self._eps(divided))
                return Step("norm", scale, bias, node)
        elif node.op_type == "Add":
            fixed = [i for i in node.input if not self.data.get(i)]
            if len(fixed) == 1 and len(self._shape(fixed[0])) >= 3:
                return Step("table", fixed[0], None, node)
        return None

    def _is_vector(self, name: str) -> bool:
        stored = self.file.constant(name)
        return stored is not None and len(stored.dims) == 1 and stored.dims[0] > 1

    def _vector(self, operation: str, node: Any) -> str | None:
        """The one-dimensional constant of the operation that follows a node."""
        users = self.file.users.get(node.output[0], [])
        if len(users) != 1 or users[0].op_type != operation:
            return None
        return next((i for i in users[0].input if self._is_vector(i)), None)

    def _eps(self, divided: Any) -> float | None:
        """The constant below the square root by which a decomposed norm divides."""
        root = self.file.producer.get(divided.input[1])
        inner = None if root is None else self.file.producer.get(root.input[0])
        for name in () if inner is None else inner.input:
            stored = self.file.constant(name)
            if stored is not None and prod(stored.dims) == 1:
                return float(stored.array().item())
        return None

    def _check_eps(self, node: Any, eps: float | None) -> None:
        if eps is not None and not 0.99 * EPS < eps < 1.01 * EPS:
            raise self.file.error(f"the norm {node.name} has an epsilon of {eps:g}, ours has {EPS}")

    def _parse(self, steps: list[Step]) -> tuple[list[list[Block]], dict[str, Step]]:
        """Blocks of layer 1, of layers 2 and 3, and of layer 4, and the layers between them."""
        left = steps[::-1]
        middle: dict[str, Step] = {}
        fine = self._blocks(left, "layer 1")
        for key, kind in (("down.norm", "norm"), ("down.linear", "linear")):
            middle[key] = self._take(left, kind, key)
        coarse = self._blocks(left, "layer 2")
        for key, kind in (("up.expand", "linear"), ("up.norm", "norm"), ("up.project", "linear")):
            middle[key] = self._take(left, kind, key)
        last = self._blocks(left, "layer 4")
        if left:
            raise self.file.error(f"looked for patch recovery after layer 4, found {left[-1]}")
        return [fine, *self._halves(coarse), last], middle

    def _blocks(self, left: list[Step], where: str) -> list[Block]:
        blocks: list[Block] = []
        while left and left[-1].kind == "linear" and left[-1].bias:
            block = Block()
            for part in ORDER:
                what = f"{part} of block {len(blocks)} from {where} on"
                block.parts[part] = self._take(left, KINDS.get(part, "linear"), what)
                if part == "bias_table":
                    block.mask = _mask(left)
            blocks.append(block)
        if not blocks:
            instead = left[-1] if left else "the end"
            raise self.file.error(f"looked for a block of {where}, found {instead}")
        return blocks

    def _take(self, left: list[Step], kind: str, what: str) -> Step:
        if not left or left[-1].kind != kind:
            instead = left[-1] if left else "the end of the network"
            raise self.file.error(f"looked for {what}, a {kind}, found {instead}")
        return left.pop()

    def _halves(self, blocks: list[Block]) -> list[list[Block]]:
        """Layers 2 and 3, which only differ in heads or in that each begins with a plain block.

        Where neither tells, the split does not change what the network computes; we take the
        most even one.
        """
        shifted = [b.mask is not None for b in blocks]
        heads = [self.dims(b.parts["bias_table"].weight)[-3] for b in blocks]
        for cut in sorted(range(1, len(blocks)), key=lambda c: abs(2 * c - len(blocks))):
            parity = [i % 2 == 1 for i in (*range(cut), *range(len(blocks) - cut))]
            uniform = len(set(heads[:cut])) == len(set(heads[cut:])) == 1
            if uniform and (shifted == parity or not any(shifted)):
                return [blocks[:cut], blocks[cut:]]
        raise self.file.error(
            f"the {len(blocks)} blocks at low resolution cannot be divided into two layers in "
            f"which every second block is shifted (masks found: {shifted})"
        )

    def is_residual(self) -> bool:
        """Return True if something that is not a constant is added behind patch recovery."""
        return any(
            node.op_type == "Add"
            and self.behind.get(node.output[0])
            and all(self.data.get(i) for i in node.input)
            for node in self.file.nodes
        )

    def _shape(self, name: str) -> tuple[int, ...]:
        stored = self.file.constant(name)
        return self.file.shapes.get(name, ()) if stored is None else stored.dims

    def dims(self, name: str) -> tuple[int, ...]:
        """Shape of a bias table, 1 x types x heads x tokens x tokens."""
        dims = self._shape(name)
        if len(dims) < 4 or dims[-1] != dims[-2] or prod(dims[:-4]) != 1:
            raise self.file.error(
                f"looked for a bias table (1, types, heads, tokens, tokens), {name} is {dims}"
            )
        return dims


def _mask(left: list[Step]) -> str | None:
    """A second table in the same attention."""
    return left.pop().weight if left and left[-1].kind == "table" else None
