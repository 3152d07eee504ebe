"""Official Pangu-Weather ONNX files: written as the official ones are, read back, and run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from systems.pangu.onnx_cases import SMALL, Case, case, check_equal, check_runs, grid

from tenfold.systems.pangu.model import Pangu
from tenfold.systems.pangu.onnx import network, writer
from tenfold.systems.pangu.onnx.network import convert_folder
from tenfold.systems.pangu.onnx.reader import read_onnx
from tenfold.systems.pangu.onnx.tables import position_index, shift_mask
from tenfold.systems.pangu.onnx.writer import write_onnx
from tenfold.systems.pangu.windows import Windows

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> tuple[Case, Path]:
    made, path = case(), tmp_path_factory.mktemp("onnx") / "pangu_weather_24.onnx"
    write_onnx(path, made.network, made.statistics)
    return made, path


@pytest.fixture
def copy(written, tmp_path):
    """A function: the file changed by `change(model)`, saved, its path."""

    def make(change, name: str = "changed_24.onnx") -> Path:
        model = onnx.load(str(written[1]))
        change(model)
        onnx.save(model, str(tmp_path / name))
        return tmp_path / name

    return make


@pytest.mark.parametrize("bias", ["expanded", "compact"])
@pytest.mark.parametrize("counter, opset", [(8946, 17), (77, 13)])
@pytest.mark.parametrize(
    "cfg, where",
    [
        (SMALL, grid(5, 17, 48)),
        (replace(SMALL, dim=16, height_channel=False), grid(5, 17, 48, constants=0)),
        (replace(SMALL, depths=(2, 1, 3, 1)), grid(1, 13, 48)),
        (replace(SMALL, window=(2, 6, 12), depths=(1, 1, 1, 2)), grid(13, 25, 96)),
    ],
    ids=["height", "no maps", "one level", "13 levels"],
)
def test_there_and_back(tmp_path, cfg, where, bias, counter, opset) -> None:
    made, path = case(cfg, where, seed=counter), tmp_path / "a.onnx"
    write_onnx(path, made.network, made.statistics, bias=bias, counter=counter, opset=opset)
    onnx.checker.check_model(str(path), full_check=True)
    check_equal(made, path)
    sizes = read_onnx(path).sizes
    assert network.model_of(sizes) == replace(cfg, depths=sizes.depths)
    assert sum(sizes.depths) == sum(cfg.depths) and sizes.depths[1] == cfg.depths[1]
    check_runs(made, path)
    assert [p.name for p in tmp_path.iterdir()] == ["a.onnx"]


def test_the_names_are_the_official_ones(tmp_path) -> None:
    """With the official depths, names and numbers are those of the 24 h file (pangu-pytorch)."""
    made, path = case(replace(SMALL, depths=(2, 6, 6, 2))), tmp_path / "a.onnx"
    write_onnx(path, made.network, made.statistics)
    names = {i.name for i in onnx.load(str(path)).graph.initializer}
    assert len(names) == 223
    bases = [12, 20, *range(30, 71, 8), *range(78, 119, 8), 129, 137]
    first = [8946, 9053, 9072, 9179, 9192, 9299, 9312, 9419, 9432, 9539, 9552, 9659, 9672, 9779]
    for base, number in zip(bases, [*first, 9794, 9901], strict=True):
        assert {f"onnx::MatMul_{number + i}" for i in (0, 5, 6, 7)} < names
        assert {f"onnx::Add_{number + 4}", f"b1.a{base}.bias", f"b1.a{base + 1}.bias"} < names
        assert {f"b1.a{base + 2}.weight", f"b1.a{base + 3}.bias"} < names
        assert {f"b1.a{base + 4}.fc1.bias", f"b1.a{base + 4}.fc2.bias"} < names
    assert {f"onnx::MatMul_{n}" for n in (9066, 9787, 9788)} < names
    assert {f"b1.a{n}.weight" for n in (1, 2, 26, 125, 142, 143)} < names
    shapes = {i.name: tuple(i.dims) for i in onnx.load(str(path)).graph.initializer}
    assert shapes["b1.a1.weight"] == (12, 6 * 32, 1)
    assert shapes["onnx::MatMul_8946"] == (12, 36)
    assert shapes["onnx::Add_8950"] == (1, 4, 2, 36, 36)
    assert shapes["b1.a142.weight"] == (160, 24, 1)
    assert read_onnx(path).sizes.depths == (2, 6, 6, 2)


@pytest.mark.parametrize("bias", ["relative", "none"])
def test_other_biases_are_written_as_the_table_they_equal(tmp_path, bias) -> None:
    cfg = replace(SMALL, bias=bias, residual=True, recovery_bias="channel")
    made, path = case(cfg), tmp_path / "a_1.onnx"
    write_onnx(path, made.network, made.statistics)
    check_runs(made, path)
    found = read_onnx(path)
    assert found.sizes.residual
    again = Pangu(network.model_of(found.sizes), made.network.grid).eval()
    again.load_state_dict(found.account.require_complete())
    given = [torch.randn_like(x) for x in made.state()]
    with torch.no_grad():
        for a, b in zip(again(*given), made.network(*given), strict=True):
            torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


def test_what_cannot_be_written_is_listed(tmp_path, monkeypatch) -> None:
    where = grid(5, 17, 48)
    network = Pangu(replace(SMALL, attention="2d"), replace(where, periodic=False))
    with pytest.raises(ValueError, match="attention=2d.*regional grid.*opset 12"):
        write_onnx(tmp_path / "a.onnx", network, case().statistics, opset=12)
    made = case()
    with pytest.raises(ValueError, match=r"std of the surface must be finite and \(4,\)"):
        write_onnx(tmp_path / "a.onnx", made.network, (*made.statistics[:3], np.ones(3)))
    with pytest.raises(ValueError, match="must be positive"):
        write_onnx(tmp_path / "a.onnx", made.network, (*made.statistics[:3], np.zeros(4)))
    with pytest.raises(ValueError, match="four arrays"):
        write_onnx(tmp_path / "a.onnx", made.network, made.statistics[:3])
    monkeypatch.setattr(writer, "LIMIT", 100_000)
    with pytest.raises(ValueError, match='may have 100000.*bias="compact"'):
        write_onnx(tmp_path / "a.onnx", made.network, made.statistics)
    assert not list(tmp_path.iterdir())


def test_a_write_that_fails_leaves_nothing_behind(tmp_path) -> None:
    made = case()
    (tmp_path / "a.onnx").mkdir()
    with pytest.raises(OSError):
        write_onnx(tmp_path / "a.onnx", made.network, made.statistics)
    assert [p.name for p in tmp_path.iterdir()] == ["a.onnx"]


def test_masks_and_index_are_the_networks() -> None:
    for size, window in (
        ((4, 5, 12), (2, 3, 6)),
        ((8, 13, 24), (2, 6, 12)),
        ((3, 4, 8), (1, 2, 4)),
    ):
        want = Windows(size, window).mask()[0]
        assert np.array_equal(shift_mask(size, window) == -100, want.numpy())
    from tenfold.systems.pangu.attention import position_index as theirs

    assert np.array_equal(position_index((2, 3, 6)), theirs((2, 3, 6)).numpy())


def rename_all(model) -> None:
    """Every name in the graph becomes opaque but those of inputs and outputs."""
    kept = {v.name for v in (*model.graph.input, *model.graph.output)} | {""}
    names: dict[str, str] = {}

    def new(name: str) -> str:
        return name if name in kept else names.setdefault(name, f"t{len(names)}")

    for node in model.graph.node:
        node.input[:] = [new(n) for n in node.input]
        node.output[:] = [new(n) for n in node.output]
        node.name = ""
    for tensor in model.graph.initializer:
        tensor.name = new(tensor.name)


def hoist(model) -> None:
    """Constant nodes become initialisers, as other exporters have them."""
    left = []
    for node in model.graph.node:
        if node.op_type == "Constant":
            tensor = model.graph.initializer.add()
            tensor.CopyFrom(node.attribute[0].t)
            tensor.name = node.output[0]
        else:
            left.append(node)
    del model.graph.node[:]
    model.graph.node.extend(left)


def swap_sums(model) -> None:
    """Bias and product change places in every sum."""
    for node in model.graph.node:
        if node.op_type == "Add":
            node.input[:] = node.input[::-1]


def share(model) -> None:
    """An initialiser behind an Identity node, as exporters do with equal tensors."""
    tensor = next(i for i in model.graph.initializer if i.name == "b1.a14.weight")
    tensor.name = "shared"
    model.graph.node.insert(0, onnx.helper.make_node("Identity", ["shared"], ["b1.a14.weight"]))


@pytest.mark.parametrize("change", [rename_all, hoist, swap_sums, share])
def test_other_exporters(written, copy, change) -> None:
    path = copy(change)
    check_equal(written[0], path)
    account = read_onnx(path).account
    named = [*account.origin.values(), *(name for name, _ in account.ignored), *account.unused]
    for tensor in onnx.load(str(path)).graph.initializer:
        assert any(tensor.name in names for names in named)


def tensor(model, name: str):
    return next(i for i in model.graph.initializer if i.name == name)


def changed(model, name: str, change) -> None:
    found = tensor(model, name)
    values = onnx.numpy_helper.to_array(found).copy()
    found.CopyFrom(onnx.numpy_helper.from_array(change(values), name))


def unequal_pair(model) -> None:
    def change(values):
        values[0, 1, 1, 0, 0] += 0.5  # query and key (0, 0): a row that other pairs share
        return values

    changed(model, "onnx::Add_8950", change)


def not_finite(model) -> None:
    changed(model, "b1.a12.bias", lambda x: np.full_like(x, np.nan))


def double(model) -> None:
    changed(model, "b1.a2.weight", lambda x: x.astype(np.float64))


def without_block(model) -> None:
    """The first sum of a block and its bias leave no linear layer behind."""
    node = next(n for n in model.graph.node if "b1.a12.bias" in n.input)
    target = node.output[0]
    source = next(i for i in node.input if i != "b1.a12.bias")
    model.graph.node.remove(node)
    for other in model.graph.node:
        other.input[:] = [source if i == target else i for i in other.input]


def without_norm(model) -> None:
    node = next(n for n in model.graph.node if n.op_type == "LayerNormalization")
    for other in model.graph.node:
        other.input[:] = [node.input[0] if i == node.output[0] else i for i in other.input]
    model.graph.node.remove(node)


def other_eps(model) -> None:
    node = next(n for n in model.graph.node if n.op_type == "LayerNormalization")
    next(a for a in node.attribute if a.name == "epsilon").f = 1e-3


def other_mean_at_the_end(model) -> None:
    node = [n for n in model.graph.node if n.op_type == "Add"][-1]
    constant = next(n for n in model.graph.node if n.output[0] == node.input[1])
    values = onnx.numpy_helper.to_array(constant.attribute[0].t) + 1
    constant.attribute[0].t.CopyFrom(onnx.numpy_helper.from_array(values))


def not_normalised(model) -> None:
    node = next(n for n in model.graph.node if n.op_type == "Sub")
    node.op_type = "Pow"


def still_flipped(model) -> None:
    """The second flip is left out: statistics no longer belong to the levels they did."""
    node = [n for n in model.graph.node if n.op_type == "Slice"][1]
    for other in model.graph.node:
        other.input[:] = [node.input[0] if i == node.output[0] else i for i in other.input]
    model.graph.node.remove(node)


def other_inputs(model) -> None:
    model.graph.input[0].name = "upper"
    for node in model.graph.node:
        node.input[:] = ["upper" if i == "input" else i for i in node.input]


def free_batch(model) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_param = "lat"


def other_mask(model) -> None:
    for node in model.graph.node:
        if node.op_type == "Constant" and len(node.attribute[0].t.dims) == 4:
            values = onnx.numpy_helper.to_array(node.attribute[0].t)
            if values.min() == -100:
                node.attribute[0].t.CopyFrom(onnx.numpy_helper.from_array(values * 0.5))


def unsorted(model) -> None:
    nodes = list(model.graph.node)[::-1]
    del model.graph.node[:]
    model.graph.node.extend(nodes)


@pytest.mark.parametrize(
    "change, message",
    [
        (unequal_pair, r"bias table of layer1\.blocks\.0.*onnx::Add_8950.*differ by up to 0\.5"),
        (not_finite, r"b1\.a12\.bias \(layer1\.blocks\.0\.attention\.qkv\.bias\).*not finite"),
        (double, r"b1\.a2\.weight is of type 11.*not float32"),
        (without_block, "looked for a block of layer 1, found linear onnx::MatMul_8946"),
        (without_norm, r"looked for norm1 of block 0 from layer 1 on, a norm, found linear"),
        (other_eps, "epsilon of 0.001"),
        (other_mean_at_the_end, "the mean or std of output_surface is not that of its input"),
        (not_normalised, "looked for the mean and std .* on the way from input"),
        (still_flipped, "fields of input are still reversed"),
        (other_inputs, r"looked for the inputs.*found upper \(5, 5, 17, 48\).*not a Pangu"),
        (free_batch, "input of no fixed shape"),
        (other_mask, r"mask of layer2\.blocks\.1 is not that"),
        (unsorted, "which nothing before it makes"),
    ],
    ids=lambda x: x.__name__ if callable(x) else "",
)
def test_changed_files_are_refused(copy, change, message) -> None:
    path = copy(change)
    with pytest.raises(ValueError, match=message) as error:
        read_onnx(path)
    assert str(path) in str(error.value)


def test_tensors_of_wrong_shape_and_tensors_left_over(copy) -> None:
    def change(model) -> None:
        changed(model, "b1.a14.weight", lambda x: np.concatenate([x, x]))
        extra = onnx.numpy_helper.from_array(np.ones((2, 2), np.float32), "stranger")
        model.graph.initializer.append(extra)

    path = copy(change)
    account = read_onnx(path).account
    assert account.unused == ["stranger"]
    assert ("layer1.blocks.0.norm1.weight", (24,), (12,)) in account.mismatched
    with pytest.raises(ValueError, match=rf"{path.name}: .*\n(.*\n)*unused: stranger"):
        convert_folder(path)


def test_ambiguous_windows_are_asked_for(tmp_path) -> None:
    """Where shapes allow several windows, the graph's reshapes tell; a given one must fit."""
    made, path = case(), tmp_path / "a.onnx"
    write_onnx(path, made.network, made.statistics)
    assert read_onnx(path, window=(2, 3, 6), patch=(2, 4, 4)).sizes.window == (2, 3, 6)
    with pytest.raises(ValueError, match=r"window \(2, 6, 3\) does not fit; .*\(2, 3, 6\)"):
        read_onnx(path, window=(2, 6, 3))
    where = grid(5, 16, 64)  # patches 4 x 4, 2 x 8 and 8 x 2 pad this grid alike
    made = case(replace(SMALL, window=(2, 2, 4), patch=(2, 2, 8)), where)
    write_onnx(path, made.network, made.statistics)
    assert read_onnx(path).sizes.patch == (2, 2, 8)
    check_equal(made, path)
