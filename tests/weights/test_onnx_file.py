"""ONNX files of any origin: data beside them, cut off, damaged, or of another model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from systems.pangu.onnx_cases import Case, case, check_equal

from tenfold.systems.pangu.onnx.network import OnnxNetwork
from tenfold.systems.pangu.onnx.reader import read_onnx
from tenfold.systems.pangu.onnx.writer import write_onnx

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> tuple[Case, Path]:
    made, path = case(), tmp_path_factory.mktemp("onnx") / "pangu_weather_24.onnx"
    write_onnx(path, made.network, made.statistics)
    return made, path


def test_tensors_in_files_of_their_own(written, tmp_path) -> None:
    model = onnx.load(str(written[1]))
    path = tmp_path / "a.onnx"
    onnx.save(
        model, str(path), save_as_external_data=True, location="data", size_threshold=0,
        convert_attribute=True,
    )  # fmt: skip
    check_equal(written[0], path)
    light = onnx.load(str(path), load_external_data=False)
    (tmp_path / "data").rename(tmp_path / "elsewhere")
    with pytest.raises(FileNotFoundError, match="data: no such file"):
        read_onnx(path)

    def lie_at(where: str) -> None:
        constants = (n.attribute[0].t for n in light.graph.node if n.op_type == "Constant")
        for tensor in (*light.graph.initializer, *constants):
            tensor.external_data[0].value = where

    for where in ("../data", "/data", ""):
        lie_at(where)
        onnx.save(light, str(path))
        with pytest.raises(ValueError, match="outside of the file's folder"):
            read_onnx(path)
    (tmp_path / "data").write_bytes(b"short")
    lie_at("data")
    onnx.save(light, str(path))
    with pytest.raises(ValueError, match="too short to hold"):
        read_onnx(path)


def test_files_that_are_no_such_model(written, tmp_path) -> None:
    path = tmp_path / "a_1.onnx"
    whole = written[1].read_bytes()
    cut = (whole[:-100], whole[: len(whole) // 2])
    for content in (b"", b"no onnx at all", *cut, b"\0" * 9):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="not an ONNX file, or is cut off|has no nodes"):
            read_onnx(path)
    value = onnx.helper.make_tensor_value_info
    node = onnx.helper.make_node("Conv", ["x", "w"], ["y"])
    graph = onnx.helper.make_graph(
        [node], "resnet", [value("x", 1, (1, 3, 8, 8))], [value("y", 1, (1, 4, 6, 6))],
        [onnx.numpy_helper.from_array(np.ones((4, 3, 3, 3), np.float32), "w")],
    )  # fmt: skip
    onnx.save(onnx.helper.make_model(graph), str(path))
    with pytest.raises(ValueError, match=r"found x \(1, 3, 8, 8\), y .*not a Pangu-Weather model"):
        read_onnx(path)
    with pytest.raises(ValueError, match=r"not a Pangu-Weather model.*found inputs \{'x'"):
        OnnxNetwork(path)(torch.ones(1, 1, 1, 1, 1), torch.ones(1, 1, 1, 1))
    with pytest.raises(FileNotFoundError):
        read_onnx(tmp_path / "absent.onnx")


def test_bytes_may_be_damaged_anywhere(written, tmp_path) -> None:
    """Whatever byte of the first kilobytes changes, the answer is weights or a ValueError."""
    content, rng = written[1].read_bytes(), np.random.default_rng(0)
    path = tmp_path / "a.onnx"
    for _ in range(40):
        damaged = bytearray(content)
        for place in rng.integers(0, 4000, 3):
            damaged[place] = rng.integers(256)
        path.write_bytes(damaged)
        try:
            read_onnx(path)
        except ValueError as error:
            assert str(path) in str(error)


def test_sizes_must_be_those_of_the_bytes(written, tmp_path) -> None:
    model = onnx.load(str(written[1]))
    table = next(i for i in model.graph.initializer if i.name == "onnx::Add_8950")
    table.dims[1] += 1
    path = tmp_path / "a.onnx"
    onnx.save(model, str(path))
    with pytest.raises(ValueError, match=r"onnx::Add_8950 of shape \(1, 5, .* bytes, not"):
        read_onnx(path)


def test_a_node_without_its_inputs_is_named(written, tmp_path) -> None:
    model = onnx.load(str(written[1]))
    node = next(n for n in model.graph.node if n.op_type == "MatMul")
    del node.input[1]
    path = tmp_path / "a.onnx"
    onnx.save(model, str(path))
    with pytest.raises(ValueError, match=f"node {node.name} lacks an input or output of MatMul"):
        read_onnx(path)
