"""Pangu-Weather's network: attention against its definition, options, precision, export."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch.autograd import gradcheck

from tenfold.data.weather.grid import Grid
from tenfold.systems.pangu import attention as attention_module
from tenfold.systems.pangu import tokenwise
from tenfold.systems.pangu.attention import position_index, relative_index
from tenfold.systems.pangu.config import Config, Model
from tenfold.systems.pangu.forecaster import Forecaster
from tenfold.systems.pangu.model import EarthAttention, EarthBlock, Pangu
from tenfold.systems.pangu.windows import Windows, window_order

TINY = Model(
    dim=8, depths=(2, 2, 2, 2), heads=(1, 2, 2, 1), patch=(2, 2, 2), window=(2, 2, 2), drop_path=0.0
)
BIASES = ("earth", "relative", "none")


def grid(levels: int = 5, lat: int = 10, lon: int = 16, periodic: bool = True) -> Grid:
    return Grid(
        upper=("z", "t"),
        levels=tuple(1000 - 50 * i for i in range(levels)),
        surface=("msl",),
        latitudes=tuple(float(x) for x in np.linspace(80, -80, lat)),
        longitudes=tuple(float(x) for x in np.arange(lon) * (360 / lon if periodic else 1.0)),
        periodic=periodic,
    )


def made(cfg: Model = TINY, where: Grid | None = None, seed: int = 0) -> Pangu:
    """A network in which nothing is zero."""
    torch.manual_seed(seed)
    network = Pangu(cfg, where or grid())
    for value in network.parameters():
        value.data += 0.3 * torch.randn_like(value)
    return network


def fields(network: Pangu, batch: int = 2, seed: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    upper = torch.randn(batch, 2, network.levels, *network.grid.shape, generator=draw)
    return upper, torch.randn(batch, 1, *network.grid.shape, generator=draw)


def plainly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compute as an export would hold it: torch's modules and attention, no function of ours."""
    monkeypatch.setattr(torch.compiler, "is_exporting", lambda: True)


def in_small_parts(patch: pytest.MonkeyPatch) -> None:
    """Every chunk has one window, or a few tokens, so that seams are everywhere."""
    patch.setattr(attention_module, "CHUNK_BYTES", {"cpu": 1})
    patch.setattr(tokenwise, "HIDDEN_BYTES", 700)


# --- attention -----------------------------------------------------------------------------------


def by_definition(
    module: EarthAttention, x: torch.Tensor, shifted: bool, table: torch.Tensor | None
) -> torch.Tensor:
    """Attention of all tokens to all, those of other windows excluded."""
    windows, heads = module.windows, module.heads
    batch, *size, channels = x.shape
    padded = x.new_zeros(batch, *windows.padded, channels)
    padded[:, :, : size[1], : size[2]] = x
    q, k, v = (
        module.qkv(padded.flatten(1, 3)).view(batch, -1, 3, heads, channels // heads).unbind(2)
    )
    scores = torch.einsum("bihc,bjhc->bhij", q, k) * (channels // heads) ** -0.5
    axes = torch.meshgrid(*map(torch.arange, windows.padded), indexing="ij")
    inside, numbers, wrapped = [], [], []
    for axis, (place, n, w) in enumerate(zip(axes, windows.padded, windows.window, strict=True)):
        shift = w // 2 if shifted else 0
        moved = (place.flatten() - shift) % n
        inside.append(moved % w)
        numbers.append(moved // w)
        crosses = place.flatten() < shift  # came round from the other end
        if axis < 2 or not windows.periodic:
            wrapped.append(crosses)
    (wz, wh, ww), (z, h, w) = windows.window, inside
    kind = numbers[0] * windows.counts[1] + numbers[1]
    if table is not None and module.kind == "earth":
        level, row = z[:, None] + wz * z[None], h[:, None] + wh * h[None]
        entry = (level * wh**2 + row) * (2 * ww - 1) + w[:, None] - w[None] + ww - 1
        scores = scores + table[entry, kind[:, None]].permute(2, 0, 1)
    elif table is not None:
        apart = [a[:, None] - a[None] + n - 1 for a, n in zip(inside, windows.window, strict=True)]
        entry = (apart[0] * (2 * wh - 1) + apart[1]) * (2 * ww - 1) + apart[2]
        scores = scores + table[entry, 0].permute(2, 0, 1)
    for cross in wrapped:
        scores = scores - 100.0 * (cross[:, None] != cross[None])
    same = torch.stack([n[:, None] == n[None] for n in numbers]).all(0)
    p = scores.masked_fill(~same, -torch.inf).softmax(-1)
    out = torch.einsum("bhij,bjhc->bihc", p, v).reshape(batch, *windows.padded, channels)
    return out[:, :, : size[1], : size[2]]


@st.composite
def problems(draw) -> tuple[Windows, int, int, str, bool]:
    window = tuple(draw(st.integers(1, 3)) for _ in range(3))
    periodic = draw(st.booleans())
    z = window[0] * draw(st.integers(1, 2))
    h = draw(st.integers(-(-window[1] // 2), 5))
    w = window[2] * draw(st.integers(1, 3))
    if not periodic:
        w = draw(st.integers(-(-window[2] // 2), 5))
    windows = Windows((z, h, w), window, periodic)
    return (
        windows,
        draw(st.integers(1, 2)),
        draw(st.integers(1, 2)),
        draw(st.sampled_from(BIASES)),
        draw(st.booleans()),
    )


@settings(max_examples=60, deadline=None)
@given(problems())
@example((Windows((2, 2, 2), (2, 3, 3), False), 1, 1, "none", True))  # a mask and no table
@example((Windows((2, 4, 6), (2, 3, 3)), 2, 2, "earth", True))  # a mask and padding
def test_attention_equals_its_definition(problem) -> None:
    windows, batch, heads, kind, shifted = problem
    torch.manual_seed(0)
    module = EarthAttention(2 * heads, heads, windows, kind).double()
    for value in module.parameters():
        value.data = torch.randn_like(value)
    x = torch.randn(batch, *windows.size, 2 * heads, dtype=torch.float64, requires_grad=True)
    factor = torch.randn(batch, *windows.size, 2 * heads, dtype=torch.float64)
    table = None if kind == "none" else module.bias_table
    order = window_order(windows, shifted, batch, x.device)
    found = {}
    with pytest.MonkeyPatch.context() as patch:
        in_small_parts(patch)
        for name in ("definition", "ours", "plain"):
            if name == "definition":
                out = by_definition(module, x, shifted, table)
            elif name == "plain":
                out = module.plain(x, shifted)
            else:
                rows = module(x.flatten(0, 3)[order.rows], order)
                out = rows[order.back].view(x.shape)
            leaves = [x, module.qkv.weight, module.qkv.bias, *([] if table is None else [table])]
            found[name] = out, *torch.autograd.grad((out * factor).sum(), leaves)
    for name in ("ours", "plain"):
        for got, want in zip(found[name], found["definition"], strict=True):
            torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("shifted", [False, True])
def test_gradients_of_attention_by_differences(shifted) -> None:
    windows = Windows((2, 3, 2), (1, 2, 2))
    order = window_order(windows, shifted, 1, torch.device("cpu"))
    index = position_index(windows.window)
    plan = attention_module.Plan(order, 1, index, torch.float64)
    torch.manual_seed(0)
    shapes = (12, 2), (6, 2), (6,), (windows.types, 1, 12)
    inputs = [torch.randn(s, dtype=torch.float64, requires_grad=True) for s in shapes]
    assert gradcheck(lambda *tensors: attention_module.attend(*tensors, plan), inputs)


@pytest.mark.parametrize("dropped", [False, True])
def test_gradients_of_the_rest_of_a_block_by_differences(dropped, monkeypatch) -> None:
    monkeypatch.setattr(tokenwise, "HIDDEN_BYTES", 100)
    torch.manual_seed(0)
    shapes = (5, 3), (5, 3), (3, 3), (3,), (4, 3), (4,), (3, 4), (3,), (3,), (3,), (3,), (3,)
    inputs = [torch.randn(s, dtype=torch.float64, requires_grad=True) for s in shapes]
    factors = None
    if dropped:
        factors = torch.rand(5, 1, dtype=torch.float64), torch.rand(5, 1, dtype=torch.float64)

    def run(x, attended, *weights):
        return tokenwise.finish(x, attended, factors, x.dtype, True, weights)

    assert gradcheck(run, inputs)


@pytest.mark.parametrize("onednn", [False, torch.backends.mkldnn.is_available()])
def test_linear_of_either_library(onednn, monkeypatch) -> None:
    monkeypatch.setattr(tokenwise, "ONEDNN", onednn)
    torch.manual_seed(0)
    x, weight, shift = torch.randn(5, 7), torch.randn(3, 7), torch.randn(3)
    torch.testing.assert_close(tokenwise.linear(x, weight, shift), x @ weight.T + shift)
    torch.testing.assert_close(
        tokenwise.linear(x[1:, :3], weight[:, :3]), x[1:, :3] @ weight[:, :3].T
    )
    torch.testing.assert_close(tokenwise.linear(x[:, :3], weight.T), x[:, :3] @ weight)


def test_padding_is_a_key_but_asks_nothing() -> None:
    order = window_order(Windows((1, 3, 2), (1, 2, 2)), False, 2, torch.device("cpu"))
    assert [group.size for group in order.groups] == [4, 2]
    assert sorted(order.rows.tolist()) == list(range(12))
    assert torch.equal(order.rows[order.back], torch.arange(12))
    assert order.sample.tolist() == [0] * 4 + [1] * 4 + [0] * 2 + [1] * 2


def test_what_a_mask_hides_is_zero_not_subnormal() -> None:
    p = attention_module._exponential(torch.tensor([0.0, -5.0, -86.0, -99.0, -300.0]), True)
    assert p[:3].tolist() == torch.tensor([0.0, -5.0, -86.0]).exp().tolist()
    assert p[3:].tolist() == [0.0, 0.0]


def test_indices_stay_within_their_tables() -> None:
    for window in ((2, 6, 12), (1, 3, 2)):
        wz, wh, ww = window
        index = position_index(window)
        assert set(index.flatten().tolist()) == set(range(wz**2 * wh**2 * (2 * ww - 1)))
        index = relative_index(window)
        rows = (2 * wz - 1) * (2 * wh - 1) * (2 * ww - 1)
        assert set(index.flatten().tolist()) == set(range(rows))


# --- the network ---------------------------------------------------------------------------------


def test_the_height_of_a_lone_level_is_a_number() -> None:
    cfg = Config(model=replace(TINY, height_channel=True), grid=grid(1), leads=(24,))
    forecaster = Forecaster(cfg)
    forecaster.set_maps(np.zeros((10, 16), bool), np.zeros((0, 10, 16), np.float32))
    (network,) = forecaster.networks.values()
    assert isinstance(network, Pangu) and torch.equal(
        network.upper_constants, torch.zeros(1, 1, 10, 16)
    )


def test_number_of_parameters_at_full_size() -> None:
    whole = replace(
        grid(13, 721, 1440), upper=("z", "q", "t", "u", "v"),
        surface=("msl", "u10", "v10", "t2m"), constants=("land", "soil", "topography"),
    )  # fmt: skip
    with torch.device("meta"):
        network = Pangu(Model(), whole)
    assert sum(p.numel() for p in network.parameters()) == 64_220_169
    assert network.layer1.blocks[0].attention.windows.types == 124
    assert network.layer2.blocks[0].attention.windows.types == 64


CONFIGURATIONS = {
    "paper's": (TINY, grid()),
    "padded": (replace(TINY, window=(2, 4, 2)), grid(5, 9, 16)),
    "2d": (replace(TINY, attention="2d"), grid()),
    "relative": (replace(TINY, bias="relative"), grid()),
    "none": (replace(TINY, bias="none"), grid()),
    "region": (TINY, grid(5, 9, 13, periodic=False)),
    "residual": (replace(TINY, residual=True), grid()),
    "pixel bias, height": (replace(TINY, recovery_bias="pixel", height_channel=True), grid()),
}


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_whole_network_equals_plain_modules(name, monkeypatch) -> None:
    network = made(*CONFIGURATIONS[name]).double()
    inputs = [x.double() for x in fields(network)]
    in_small_parts(monkeypatch)
    found = []
    for plain in (False, True):
        if plain:
            plainly(monkeypatch)
        network.zero_grad()
        outputs = network(*inputs)
        sum((out**2).mean() for out in outputs).backward()
        grads = [p.grad for p in network.parameters()]
        assert all(grad is not None and grad.abs().max() > 0 for grad in grads)
        found.append([*outputs, *grads])
    assert found[0][0].shape == inputs[0].shape and found[0][1].shape == inputs[1].shape
    for got, want in zip(*found, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_inference_equals_training_mode_without_dropout(name, monkeypatch) -> None:
    network = made(*CONFIGURATIONS[name]).double()
    inputs = [x.double() for x in fields(network)]
    want = network(*inputs)
    in_small_parts(monkeypatch)
    for context in (torch.no_grad(), torch.inference_mode()):
        with context:
            got = network.eval()(*inputs)
        for a, b in zip(got, want, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)
    sum(x.sum() for x in network.train()(*inputs)).backward()  # after inference mode


def test_turning_the_earth_turns_the_forecast() -> None:
    """By a window of the coarser tokens, each 2 patches wide; biases know no longitude."""
    network = made(where=grid(lon=32)).eval()
    step = TINY.window[2] * 2 * TINY.patch[2]
    inputs = fields(network)
    turned = network(*(x.roll(step, -1) for x in inputs))
    for got, want in zip(turned, network(*inputs), strict=True):
        torch.testing.assert_close(got, want.roll(step, -1))
        assert not torch.allclose(got, want, atol=1e-3)


def test_a_region_does_not_wrap_round() -> None:
    inputs = None
    far = {}
    for periodic in (True, False):
        network = made(replace(TINY, depths=(2, 1, 1, 2)), grid(lon=32, periodic=periodic)).eval()
        inputs = inputs or fields(network)
        moved = [x.clone() for x in inputs]
        for x in moved:
            x[..., -1] += 1
        pairs = zip(network(*inputs), network(*moved), strict=True)
        far[periodic] = max(float((a - b)[..., 0].detach().abs().max()) for a, b in pairs)
    assert far[True] > 1e-4 and far[False] == 0


@pytest.mark.parametrize("name", ["paper's", "padded", "region"])
def test_checkpointing_changes_nothing(name) -> None:
    cfg, where = CONFIGURATIONS[name]
    found = []
    for again in (False, True):
        network = made(replace(cfg, checkpoint=again, drop_path=0.3), where)
        torch.manual_seed(5)
        sum(x.abs().mean() for x in network(*fields(network))).backward()
        found.append([p.grad for p in network.parameters()])
    for got, want in zip(*found, strict=True):
        torch.testing.assert_close(got, want)


def test_weights_may_change_between_forecasts() -> None:
    """Nothing derived from weights is kept: after a step or a load it would be stale."""
    network, other = made().eval(), made(seed=7).eval()
    inputs = fields(network)
    with torch.no_grad():
        before, want = network(*inputs), other(*inputs)
    network.load_state_dict(other.state_dict())
    with torch.no_grad():
        for got, new, old in zip(network(*inputs), want, before, strict=True):
            assert torch.equal(got, new) and not torch.allclose(got, old, atol=1e-3)
    optimiser = torch.optim.Adam(network.parameters(), lr=0.1)
    sum(x.sum() for x in network(*inputs)).backward()
    optimiser.step()
    fresh = made(seed=9).eval()
    fresh.load_state_dict(network.state_dict())
    with torch.no_grad():
        for got, new in zip(network(*inputs), fresh(*inputs), strict=True):
            assert torch.equal(got, new)


# --- DropPath ------------------------------------------------------------------------------------


def test_rates_of_drop_path() -> None:
    cfg = replace(TINY, depths=(2, 6, 6, 2), drop_path=0.2)
    network = Pangu(cfg, grid())
    entries = np.linspace(0, 0.2, 8)
    for layer, want in zip(
        (network.layer1, network.layer2, network.layer3, network.layer4),
        (entries[:2], entries[2:], entries[2:], entries[:2]),
        strict=True,
    ):
        np.testing.assert_allclose([block.drop for block in layer.blocks], want)


def test_drop_path_leaves_a_branch_out_for_whole_samples() -> None:
    torch.manual_seed(0)
    block = EarthBlock(4, 1, Windows((2, 3, 2), (1, 2, 2)), TINY, 0.25)
    torch.nn.init.zeros_(block.norm2.weight)  # leaves the attention's branch
    x = torch.randn(400, 2, 3, 2, 4)
    branch = block.eval()(x, True) - x
    seen = block.train()(x, True) - x
    dropped = (seen == 0).flatten(1).all(1)
    torch.testing.assert_close(seen[~dropped], branch[~dropped] / 0.75, rtol=1e-4, atol=1e-5)
    assert 60 < int(dropped.sum()) < 140


# --- precision -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_bfloat16_is_as_close_as_with_plain_modules(name, monkeypatch) -> None:
    network = made(*CONFIGURATIONS[name])
    inputs = fields(network)
    found = {}
    for which in ("float32", "ours", "plain"):
        if which == "plain":
            plainly(monkeypatch)
        network.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=which != "float32"):
            outputs = network(*inputs)
        sum(out.float().square().mean() for out in outputs).backward()
        assert {p.grad.dtype for p in network.parameters()} == {torch.float32}
        flat = [torch.cat([out.float().flatten() for out in outputs])]
        flat.append(torch.cat([p.grad.flatten() for p in network.parameters()]))
        found[which] = flat
    for ours, plain, truth in zip(found["ours"], found["plain"], found["float32"], strict=True):
        assert ours.isfinite().all()
        assert 0 < (ours - truth).norm() < 3 * (plain - truth).norm()


# --- refusals ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cfg", "where", "message"),
    [
        (TINY, grid(levels=3), "3 planes .* not divisible by the window's 2"),
        (TINY, grid(lon=18), "18 longitudes are not divisible by twice the patch"),
        (replace(TINY, window=(2, 2, 3)), grid(), "8 tokens of longitude are not divisible .* 3"),
        (replace(TINY, window=(2, 8, 2)), grid(), "less than half a window of 8 x 2"),
        (replace(TINY, window=(2, 2, 16)), grid(lon=13, periodic=False), "less than half a window"),
    ],
)
def test_grids_that_do_not_fit_are_refused(cfg, where, message) -> None:
    with pytest.raises(ValueError, match=message):
        Pangu(cfg, where)


# --- export --------------------------------------------------------------------------------------


SLOW = pytest.mark.slow  # half a minute each; every system's own export is always tested


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=SLOW) for name in ("padded", "2d", "region")]
)
def test_export_equals_eager(name, tmp_path) -> None:
    import onnxruntime

    cfg, where = CONFIGURATIONS[name]
    network = made(replace(cfg, depths=(2, 1, 1, 1)), where).eval().requires_grad_(False)
    example = fields(network)
    dynamic = ({0: torch.export.Dim("batch")},) * 2
    exported = torch.export.export(network, example, dynamic_shapes=dynamic)
    file = tmp_path / "network.onnx"
    torch.onnx.export(
        exported, example, file, dynamo=True, dynamic_shapes=dynamic, verbose=False,
        input_names=["upper", "surface"],
    )  # fmt: skip
    session = onnxruntime.InferenceSession(file)
    for batch in (2, 3):
        inputs = fields(network, batch)
        want = network(*inputs)
        feed = {"upper": inputs[0].numpy(), "surface": inputs[1].numpy()}
        onnx = [torch.from_numpy(y) for y in session.run(None, feed)]
        for got, also, right in zip(exported.module()(*inputs), onnx, want, strict=True):
            # of numbers up to 15
            torch.testing.assert_close(got, right, rtol=1e-4, atol=5e-5)
            torch.testing.assert_close(also, right, rtol=1e-4, atol=5e-5)
