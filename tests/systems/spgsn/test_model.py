"""The networks of SPGSN: ablations, masks, loss, inference copy, export."""

from dataclasses import replace

import pytest
import torch

from tenfold.nn.dct import dct_matrix
from tenfold.systems.spgsn.config import Model
from tenfold.systems.spgsn.data import padded_coeffs
from tenfold.systems.spgsn.inference import prepare
from tenfold.systems.spgsn.loss import mpjpe_loss
from tenfold.systems.spgsn.model import build, node_order
from tenfold.systems.spgsn.scattering import tanh

UPPER, LOWER, NODES, COEFFS = [2, 3, 4], [0, 5], 18, 5  # joint 1 is in neither part
TINY = Model(width=6, num_blocks=2, dropout=0.25)
VARIANTS = {
    "full": TINY,
    "three filters": replace(TINY, num_filters=3),
    "weighted": replace(TINY, exchange_weight=0.6, part_weight=0.6),
    "scattering only": replace(TINY, parts=False),
    "parts only": replace(TINY, scattering=False),
    "neither": replace(TINY, scattering=False, parts=False),
    "gcn": replace(TINY, kind="gcn"),
    "mlp": replace(TINY, kind="mlp"),
}
SPGSN = {name: cfg for name, cfg in VARIANTS.items() if cfg.kind == "spgsn"}


def made(cfg: Model) -> torch.nn.Module:
    """A network whose BatchNorm statistics are not trivial."""
    torch.manual_seed(0)
    network = build(cfg, NODES, COEFFS, UPPER, LOWER)
    for name, buffer in network.named_buffers():
        if name.endswith("running_var"):
            buffer.uniform_(0.5, 2)
        elif name.endswith("running_mean"):
            buffer.normal_(0, 0.1)
    return network


def coeffs(batch: int = 3, seed: int = 1) -> torch.Tensor:
    return torch.randn(batch, NODES, COEFFS, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("cfg", VARIANTS.values(), ids=VARIANTS)
def test_every_parameter_gets_a_gradient(cfg) -> None:
    network = made(cfg)
    if cfg.kind == "mlp":  # its last layer starts at zero and hides the others
        torch.nn.init.normal_(network.readout.weight)
    network(coeffs()).square().sum().backward()
    idle = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    # A bias before BatchNorm, or before a softmax over channels, has no effect on the output.
    assert not [name for name in idle if not name.endswith("bias")]
    assert all(p.grad is not None for p in network.parameters())


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("cfg", VARIANTS.values(), ids=VARIANTS)
def test_precisions(cfg, dtype) -> None:
    network = made(replace(cfg, dropout=0.0, edge_prob=1.0))
    x = coeffs(8)
    want = network(x)
    if dtype == torch.float64:
        got, tolerance = network.double()(x.double()), 1e-4
    else:
        with torch.autocast("cpu", dtype):
            got, tolerance = network(x), 0.3
        got.float().sum().backward()
    assert (got - want).abs().max() < tolerance


def test_tanh_is_that_of_torch() -> None:
    x = torch.cat([torch.linspace(-12, 12, 4001), torch.tensor([0.0, 1e-4, 200.0, -200.0])])
    a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
    got, want = tanh(a), b.tanh()
    torch.testing.assert_close(got, want, rtol=0, atol=2e-7)
    got.square().sum().backward(), want.square().sum().backward()
    torch.testing.assert_close(a.grad, b.grad, rtol=0, atol=1e-6)
    assert tanh(x.bfloat16()).equal(x.bfloat16().tanh())


def test_official_number_of_parameters() -> None:
    cmu = build(Model(), 75, 30, upper=range(10, 25), lower=range(10))
    ours = sum(p.numel() for p in cmu.parameters())
    dead = 9 * (3 + 1) * 48 * 48  # per block: three graph operates of the tree and the mix
    assert ours + dead == 5_823_874


@pytest.mark.parametrize("cfg", SPGSN.values(), ids=SPGSN)
def test_prepared_equals_evaluation(cfg) -> None:
    for mask_eval in ("mean", "ones"):
        network = made(replace(cfg, mask_eval=mask_eval, readout_gain=3.0)).eval()
        prepared = prepare(network)
        for batch in (1, 4):
            torch.testing.assert_close(prepared(coeffs(batch)), network(coeffs(batch)))
    masks = network.draw_masks(torch.Generator().manual_seed(3))
    torch.testing.assert_close(prepare(network, masks)(coeffs(1)), network(coeffs(1), masks))


def test_prepared_refuses_random_masks() -> None:
    with pytest.raises(ValueError, match="mask_eval is 'sample'"):
        prepare(made(replace(TINY, mask_eval="sample")))


def test_masks_at_inference() -> None:
    network = made(TINY).eval()
    assert torch.equal(network(coeffs()), network(coeffs()))
    network.cfg = replace(TINY, mask_eval="sample")
    assert not torch.equal(network(coeffs()), network(coeffs()))
    masks = [network.draw_masks(torch.Generator().manual_seed(s)) for s in (5, 5, 6)]
    first, same, other = (network(coeffs(), m) for m in masks)
    assert torch.equal(first, same) and not torch.equal(first, other)


def test_masks_keep_their_share_of_edges() -> None:
    masks = made(replace(TINY, num_blocks=60)).draw_masks(torch.Generator().manual_seed(0))
    edges = torch.cat([graph.flatten() for mask in masks for graph in mask])
    assert set(edges.tolist()) == {0.0, 1.0}
    assert abs(edges.mean().item() - TINY.edge_prob) < 0.01


def test_parts_must_be_disjoint() -> None:
    with pytest.raises(ValueError, match="disjoint"):
        node_order(NODES, [0, 1], [1, 2])
    with pytest.raises(ValueError, match="within 6 joints"):
        node_order(NODES, [0], [6])


def test_parts_see_each_other_only_through_the_exchange() -> None:
    """Without exchange and whole-body edges, moving the lower part leaves the upper one alone."""
    network = made(replace(TINY, exchange_weight=0.0, num_blocks=1)).eval()
    block, masks = network.blocks[0], network.default_masks()
    masks = [m._replace(whole=torch.zeros_like(m.whole)) for m in masks]
    (derived,) = network.derive(masks)
    x, upper = torch.randn(2, NODES, TINY.width), slice(0, 3 * len(UPPER))
    moved = x.clone()
    moved[:, upper.stop :] += 1
    low = block.spectrum(x, derived)[0], block.spectrum(moved, derived)[0]
    torch.testing.assert_close(low[0][:, upper], low[1][:, upper])
    block.cfg = replace(block.cfg, exchange_weight=1.0)
    other = block.spectrum(moved, derived)[0]
    assert not torch.allclose(low[0][:, upper], other[:, upper])


def test_order_of_joints_does_not_matter() -> None:
    """Renaming the joints, and the rows of what is stored a node, renames the output."""
    network = made(TINY).eval()
    swap = [1, 0, 3, 2, 4, 5]  # new joint -> old joint
    nodes = [3 * j + axis for j in swap for axis in range(3)]
    renamed = build(
        TINY, NODES, COEFFS, [swap.index(j) for j in UPPER], [swap.index(j) for j in LOWER]
    )
    state = network.state_dict()
    old = [nodes[i] for i in renamed.order.tolist()]  # internal node of `renamed` -> old node
    rows = torch.tensor([network.order.tolist().index(node) for node in old])
    for key, value in state.items():
        if key.endswith(("graph", "whole")):
            state[key] = value[rows][:, rows]
        elif "norm" in key and value.ndim:
            state[key] = value.view(NODES, -1)[rows].flatten()
    renamed.load_state_dict(state)
    x = coeffs()
    torch.testing.assert_close(renamed.eval()(x[:, nodes]), network(x)[:, nodes])


def test_coefficients_are_of_the_observed_frames_and_repeats_of_the_last() -> None:
    observed, basis = torch.randn(3, 4, NODES), dct_matrix(9)
    frames = (padded_coeffs(observed, basis).double() @ basis).transpose(1, 2).float()
    torch.testing.assert_close(frames[:, :4], observed, rtol=1e-4, atol=1e-5)
    repeats = observed[:, 3:].expand(-1, 5, -1)
    torch.testing.assert_close(frames[:, 4:], repeats, rtol=1e-4, atol=1e-5)


def test_loss_by_hand() -> None:
    basis = dct_matrix(2)
    predicted = torch.zeros(1, 6, 2, dtype=torch.float64)
    target = torch.zeros(1, 2, 6, dtype=torch.float64)
    target[0, 0] = torch.tensor([3.0, 4.0, 0.0, 0.0, 0.0, 0.0])  # joint 0 is 5 off in frame 0
    target[0, 1] = torch.tensor([0.0, 0.0, 0.0, 1.0, 2.0, 2.0])  # joint 1 is 3 off in frame 1
    assert mpjpe_loss(predicted, target, basis).item() == pytest.approx((5 + 3) / 4)
    exact = (target.transpose(1, 2) @ basis.T).contiguous()
    assert mpjpe_loss(exact, target, basis).item() == pytest.approx(0, abs=1e-12)


@pytest.mark.slow  # every fast run exports the full network, see test_every_system
@pytest.mark.parametrize("name", ["full", "parts only", "gcn", "mlp"])
def test_export_equals_eager(name, tmp_path) -> None:
    import onnxruntime

    network = made(VARIANTS[name]).eval().requires_grad_(False)
    dynamic = {"coeffs": {0: torch.export.Dim("batch", min=2)}}
    exported = torch.export.export(network, (coeffs(2),), dynamic_shapes=dynamic)
    program = torch.onnx.export(
        network, (coeffs(2),), dynamo=True, dynamic_shapes=dynamic, verbose=False
    )
    program.save(tmp_path / "network.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "network.onnx")
    for batch in (2, 5):
        want = network(coeffs(batch))
        torch.testing.assert_close(exported.module()(coeffs(batch)), want)
        (got,) = session.run(None, {session.get_inputs()[0].name: coeffs(batch).numpy()})
        torch.testing.assert_close(torch.from_numpy(got), want)


@pytest.mark.slow  # every fast run exports the full network, see test_every_system
@pytest.mark.parametrize("name", ["full", "scattering only"])
def test_prepared_exports(name) -> None:
    prepared = prepare(made(VARIANTS[name]))
    for batch in (1, 4):
        exported = torch.export.export(prepared, (coeffs(batch),))
        torch.testing.assert_close(exported.module()(coeffs(batch)), prepared(coeffs(batch)))
