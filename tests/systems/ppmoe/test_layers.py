"""PPMoE's pieces on one process: routing, experts, the mixture layer, the cache, recomputation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from typing import Any, Literal

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from tenfold.core.optim import Optim
from tenfold.systems.ppmoe import experts as module_of_experts
from tenfold.systems.ppmoe.config import Config, Data, Layout, Model
from tenfold.systems.ppmoe.dispatch import MoE, Pairs
from tenfold.systems.ppmoe.experts import Experts
from tenfold.systems.ppmoe.model import Cache, Gpt
from tenfold.systems.ppmoe.parallel import Grid, Group, attach
from tenfold.systems.ppmoe.pipeline import Part
from tenfold.systems.ppmoe.routing import Router, capacity_of, queue_places, route

TINY = Model(layers=4, hidden=8, heads=2, ffn=12, seq=10, vocab=16, experts=4)
SEEDS = st.integers(0, 2**31 - 1)


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def filled(module: torch.nn.Module, seed: int = 0, scale: float = 0.5) -> torch.nn.Module:
    module.double()
    with torch.no_grad():
        for i, p in enumerate(module.parameters()):
            p.copy_(scale * randn(*p.shape, seed=seed + i))
    return module


# --- experts ------------------------------------------------------------------------------------


def one_expert(experts: Experts, e: int, x: torch.Tensor) -> torch.Tensor:
    inner = F.gelu(x @ experts.fc1_weight[e].t() + experts.fc1_bias[e])
    return inner @ experts.fc2_weight[e].t() + experts.fc2_bias[e]


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=5), SEEDS)
def test_experts_equal_a_loop(counts: list[int], seed: int) -> None:
    """Values and gradients, with experts that get nothing, and with no rows at all."""
    experts = filled(Experts(TINY, len(counts)), seed)
    x = randn(sum(counts), TINY.hidden, seed=seed).requires_grad_()
    parts = zip(range(len(counts)), x.split(counts), strict=True)
    want = torch.cat([one_expert(experts, e, rows) for e, rows in parts])
    got = experts(x, torch.tensor(counts))
    torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-12)
    given_to = [x, *experts.parameters()]
    ours = torch.autograd.grad(got.square().sum(), given_to)
    theirs = torch.autograd.grad(want.square().sum(), given_to, materialize_grads=True)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("counts", [[2, 0, 3], [0, 0], [4]], ids=str)
@pytest.mark.parametrize("activation", ["erf", "tanh"])
def test_gradients_of_experts(counts: list[int], activation: Literal["erf", "tanh"]) -> None:
    """Against finite differences, of everything."""
    small = Model(layers=1, hidden=3, heads=1, ffn=2, experts=len(counts), activation=activation)
    experts = filled(Experts(small, len(counts)))
    names = [name for name, _ in experts.named_parameters()]
    given_to = [randn(sum(counts), 3).requires_grad_(), *experts.parameters()]

    def run(x: torch.Tensor, *parameters: torch.Tensor) -> torch.Tensor:
        named = dict(zip(names, parameters, strict=True))
        return torch.func.functional_call(experts, named, (x, torch.tensor(counts)))

    assert torch.autograd.gradcheck(run, given_to)


def test_no_rounded_copies_of_experts_are_kept_for_backward(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    experts = filled(Experts(replace(TINY, hidden=16, ffn=64), 64)).float()
    of_experts = {p.untyped_storage().data_ptr() for p in experts.parameters()}
    kept: dict[int, int] = {}
    hooks = module_of_experts.saved_tensors_hooks

    def counting(pack: Callable[..., Any], unpack: Callable[..., Any]) -> Any:
        def counted(saved: torch.Tensor) -> Any:  # hooks outside do not see what hooks inside do
            packed = pack(saved)
            storage = packed[0].untyped_storage()
            kept[storage.data_ptr()] = storage.nbytes()
            return packed

        return hooks(counted, unpack)

    monkeypatch.setattr(module_of_experts, "saved_tensors_hooks", counting)
    x, counts = randn(64, 16, seed=3).float(), torch.ones(64, dtype=torch.int64)
    weight = randn(64, 16, seed=4).float()

    def gradients() -> list[torch.Tensor]:
        experts.zero_grad()
        rows = x.clone().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16):
            found = experts(rows, counts)
        (found * weight).sum().backward()
        return [rows.grad, *(p.grad for p in experts.parameters())]  # type: ignore[list-item]

    with torch.autocast("cpu", torch.bfloat16):
        outs = [experts(x.clone().requires_grad_(), counts) for _ in range(3)]
    copies = sum(size for storage, size in kept.items() if storage not in of_experts)
    rows = 3 * 64 * (16 + 2 * 64) * 2  # what a network keeps of its rows
    assert outs and of_experts <= kept.keys() | {
        experts.fc2_bias.untyped_storage().data_ptr(),
        experts.fc1_bias.untyped_storage().data_ptr(),
    }
    assert rows <= copies < rows + 64 * 16 * 64 * 2  # one matrix in bfloat16 would be more
    found = gradients()
    monkeypatch.setattr(module_of_experts, "cast_again", lambda own, cast: nullcontext())
    for mine, plain in zip(found, gradients(), strict=True):
        assert torch.equal(mine, plain)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
def test_experts_in_each_precision(dtype: torch.dtype) -> None:
    experts = filled(Experts(TINY, 3))
    x, counts = randn(7, TINY.hidden), torch.tensor([4, 0, 3])
    want = experts(x, counts)
    got = experts.to(dtype)(x.to(dtype), counts)
    assert got.dtype == dtype
    torch.testing.assert_close(got.double(), want, rtol=0.05, atol=0.05)


def test_grouped_products_equal_one_after_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """`grouped_mm`, which GPUs use: values and gradients, with an expert that gets nothing."""
    experts, counts = filled(Experts(TINY, 4)).float(), torch.tensor([3, 0, 5, 2])
    x = randn(10, TINY.hidden).float().requires_grad_()
    found = []
    for grouped in (False, True):
        monkeypatch.setattr("tenfold.systems.ppmoe.experts.can_group", lambda x, w, g=grouped: g)
        y = experts(x, counts)
        grads = torch.autograd.grad((y * y.detach()).sum(), [x, *experts.parameters()])
        found.append([y, *grads])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


# --- routing ------------------------------------------------------------------------------------


def slow_places(experts: torch.Tensor, probs: torch.Tensor, priority: str) -> list[list[int]]:
    """Queues built pair by pair: by probability, or first choices in token order, then second."""
    tokens, top_k = experts.shape
    pairs = [(t, j) for j in range(top_k) for t in range(tokens)]
    if priority == "prob":
        pairs.sort(key=lambda pair: (-float(probs[pair]), pair[1], pair[0]))
    waiting: Counter[int] = Counter()
    places = [[0] * top_k for _ in range(tokens)]
    for t, j in pairs:
        e = int(experts[t, j])
        places[t][j] = waiting[e]
        waiting[e] += 1
    return places


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 12), st.integers(1, 3), st.integers(3, 5), st.sampled_from(["position", "prob"]),
    st.booleans(), SEEDS,
)  # fmt: skip
def test_queue_places(
    tokens: int, top_k: int, num: int, priority: str, tied: bool, seed: int
) -> None:
    logits = randn(tokens, num, seed=seed)
    logits = logits.round() if tied else logits  # many equal probabilities
    probs, experts = logits.softmax(1).sort(dim=1, descending=True, stable=True)
    probs, experts = probs[:, :top_k], experts[:, :top_k]
    assert queue_places(experts, probs, priority).tolist() == slow_places(experts, probs, priority)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 20), st.integers(1, 3), st.floats(0.1, 2.0), st.integers(1, 3),
    st.sampled_from(["position", "prob"]), SEEDS,
)  # fmt: skip
def test_capacity_is_filled_and_never_exceeded(
    tokens: int, top_k: int, factor: float, least: int, priority: str, seed: int
) -> None:
    limits = {"capacity_factor": factor, "min_capacity": least, "priority": priority}
    cfg = replace(TINY, top_k=top_k, **limits)
    routing = route(randn(tokens, cfg.experts, seed=seed), cfg)
    capacity = capacity_of(tokens, top_k, cfg.experts, factor, least)
    places = factor * top_k * tokens / cfg.experts
    assert capacity >= least and capacity >= places
    assert capacity == least or capacity - 1 < places  # rounded up, and no further
    kept = torch.bincount(routing.experts[routing.keep], minlength=cfg.experts)
    assert torch.equal(kept, routing.counts.clamp(max=capacity))


@given(st.integers(1, 8), st.integers(1, 4), SEEDS)
def test_ties_go_to_the_lowest_expert(tokens: int, top_k: int, seed: int) -> None:
    logits = randn(tokens, 4, seed=seed).round().clamp(-1, 1)
    for kind in (torch.float32, torch.float64):
        experts = route(logits.to(kind), replace(TINY, top_k=top_k)).experts.tolist()
        for row, chosen in zip(logits.tolist(), experts, strict=True):
            assert chosen == sorted(range(4), key=lambda e: (-row[e], e))[:top_k]


def test_gate_weights() -> None:
    logits = randn(6, 4)
    plain = route(logits, replace(TINY, top_k=2))
    torch.testing.assert_close(plain.weights, plain.probs.gather(1, plain.experts))
    normal = route(logits, replace(TINY, top_k=2, norm_topk=True))
    torch.testing.assert_close(normal.weights.sum(1), torch.ones(6, dtype=torch.float64))
    # with one expert a token the router would get no gradient
    assert (route(logits, replace(TINY, norm_topk=True)).weights < 1).all()
    assert route(logits, replace(TINY, top_k=4)).margin == torch.inf
    ranked = plain.probs.sort(dim=1, descending=True).values
    assert plain.margin == (ranked[:, 1] - ranked[:, 2]).min()


def test_losses_of_a_balanced_router() -> None:
    routing = route(torch.eye(4, dtype=torch.float64) * 3, TINY)
    assert routing.balance_loss.item() == pytest.approx(1)
    even = route(torch.zeros(8, 4, dtype=torch.float64), TINY)
    assert even.entropy.item() == pytest.approx(torch.tensor(4.0).log().item())
    assert even.z_loss.item() == pytest.approx(torch.tensor(4.0).log().square().item())


def test_balancing_bias_shifts_only_the_choice() -> None:
    cfg = replace(TINY, bias_rate=0.1)
    router = filled(Router(cfg))
    x = randn(32, cfg.hidden)
    before = router(x)
    busiest = int(before.counts.argmax())
    router.bias[busiest] -= 10
    router.bias[busiest - 1] += 0.1  # one that is chosen
    after = router(x)
    assert after.counts[busiest] == 0 and before.counts[busiest] > 0
    assert after.counts[busiest - 1] > 0
    torch.testing.assert_close(after.probs, before.probs, rtol=0, atol=0)
    torch.testing.assert_close(after.weights, after.probs.gather(1, after.experts))
    assert "bias" not in Router(TINY).state_dict()


def test_balancing_step_favours_idle_experts() -> None:
    model = replace(TINY, bias_rate=0.1)
    part = Part(configuration(model), Grid())
    counts = torch.tensor([[4.0, 0, 2, 2], [0, 0, 0, 8]], dtype=torch.float64)
    part.balance(counts, 0.5)
    biases = [part.parts[0].layers[str(i)].moe.gate.bias for i in model.moe_layers]
    assert biases[0].tolist() == [-0.5, 0.5, 0, 0]
    assert biases[1].tolist() == [0.5, 0.5, 0.5, -0.5]


# --- the mixture layer --------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 9), st.integers(1, 3), st.sampled_from([0.0, 0.6, 1.0]), st.booleans(),
    st.sampled_from(["slice", "alltoall", "alltoall-copies"]), SEEDS,
)  # fmt: skip
def test_mixture_equals_a_loop_over_tokens(
    tokens: int, top_k: int, factor: float, norm: bool, dispatch: str, seed: int
) -> None:
    cfg = replace(TINY, top_k=top_k, capacity_factor=factor, norm_topk=norm)
    moe = filled(MoE(cfg, Layout(dispatch=dispatch), Grid()), seed)
    x = randn(tokens, cfg.hidden, seed=seed).requires_grad_()
    y, routing = moe(x)
    rows = []
    for t in range(tokens):
        row = torch.zeros(cfg.hidden, dtype=torch.float64)
        for j in range(top_k):
            if routing.keep is None or routing.keep[t, j]:
                e = int(routing.experts[t, j])
                row = row + routing.weights[t, j] * one_expert(moe.experts, e, x[t])
        rows.append(row)
    want = torch.stack(rows)
    torch.testing.assert_close(y, want, rtol=1e-12, atol=1e-12)
    balance = cfg.balance_weight * routing.balance_loss + cfg.z_weight * routing.z_loss
    given_to = [x, *moe.parameters()]
    ours = torch.autograd.grad(y.square().sum(), given_to, retain_graph=True)
    theirs = torch.autograd.grad(want.square().sum() + balance, given_to, materialize_grads=True)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-11)


def test_the_papers_dispatch_example() -> None:
    """Paper sec. 3.3: eight tokens, four experts, two tensor ranks."""
    order = torch.tensor([2, 3, 1, 2, 0, 3, 2, 0])[:, None]
    held = []
    for first in (0, 2):
        pairs = Pairs(order, None, 4, first, 2)
        held += [part.tolist() for part in pairs.order.split(pairs.counts.tolist())]
    assert held == [[4, 7], [2], [0, 3, 6], [1, 5]]


def test_attach_hands_a_loss_its_gradient() -> None:
    y, side = randn(3, 2).requires_grad_(), randn(1).requires_grad_()
    loss = side.square().sum()
    got = attach(y, loss, 0.25)
    assert torch.equal(got, y)
    got.sum().backward()
    assert torch.equal(y.grad, torch.ones_like(y))
    torch.testing.assert_close(side.grad, 0.25 * 2 * side.detach())


def test_balance_loss_is_for_training_only() -> None:
    plain = replace(TINY, balance_weight=0.0, z_weight=0.0)
    layers = [filled(MoE(cfg, Layout(), Grid())) for cfg in (TINY, plain, TINY)]
    x = randn(5, TINY.hidden)
    layers[0].eval()
    evaluated, without, trained = (
        torch.autograd.grad(moe(x)[0].sum(), moe.gate.weight)[0] for moe in layers
    )
    torch.testing.assert_close(evaluated, without)
    assert not torch.allclose(trained, without)


# --- the model ----------------------------------------------------------------------------------


def configuration(model: Model, **layout) -> Config:
    return Config(model, Layout(**layout), Data(), Optim(), steps=1, batch=2)


def gradients(model: Model, seed: int, factor: float = 1.0) -> dict[str, torch.Tensor]:
    part = filled(Part(configuration(model), Grid()), seed=3)
    part.scale_loss(torch.tensor(factor))
    tokens = torch.randint(model.vocab, (2, model.seq + 1), generator=_generator(5))
    torch.manual_seed(seed)
    part.train_step([{"tokens": tokens}, {"tokens": tokens.flip(0)}])
    return {key: p.grad for key, p in part.keyed_parameters()}


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_recomputing_gives_the_same_gradients(dropout: float) -> None:
    """And counts each routing once: it is the forward pass that reports it."""
    model = replace(TINY, dropout=dropout, capacity_factor=1.0)
    kept, again = (gradients(replace(model, recompute=r), 7) for r in (False, True))
    for key, gradient in kept.items():
        torch.testing.assert_close(again[key], gradient, rtol=0, atol=0, msg=key)
    part = filled(Part(configuration(replace(model, recompute=True)), Grid()), seed=3)
    tally = part.train_step([{"tokens": torch.zeros(2, 4, dtype=torch.int64)}])
    assert tally.counts().sum(1).tolist() == [6, 6]


def test_a_scaled_loss_scales_every_gradient() -> None:
    """Those of balance and z losses, too (fp16)."""
    plain, scaled = gradients(TINY, 7), gradients(replace(TINY, recompute=True), 7, factor=8.0)
    for key, gradient in plain.items():
        assert torch.equal(scaled[key], 8 * gradient), key


@pytest.mark.parametrize("pieces", [[1] * 8, [5, 3], [3, 1, 4]], ids=str)
@pytest.mark.parametrize("positions", ["learned", "rotary"])
@torch.no_grad()
def test_cache_equals_the_full_forward(positions: str, pieces: list[int]) -> None:
    model = replace(TINY, positions=positions, top_k=2)
    gpt = filled(Gpt(model)).eval()
    tokens = torch.randint(model.vocab, (3, 8), generator=_generator(1))
    cache, found = Cache({}), []
    for piece in tokens.split(pieces, 1):
        cache.length = sum(f.shape[1] for f in found)
        found.append(gpt(piece, cache))
    torch.testing.assert_close(torch.cat(found, 1), gpt(tokens), rtol=1e-10, atol=1e-10)


def test_later_tokens_do_not_change_earlier_logits() -> None:
    gpt = filled(Gpt(TINY)).eval()
    tokens = torch.randint(TINY.vocab, (2, 8), generator=_generator(1))
    other = tokens.clone()
    other[:, 5:] = (other[:, 5:] + 1) % TINY.vocab
    a, b = gpt(tokens), gpt(other)
    torch.testing.assert_close(a[:, :5], b[:, :5])
    assert not torch.allclose(a[:, 5:], b[:, 5:])


def test_learned_positions_end() -> None:
    gpt = Gpt(TINY).eval()
    with pytest.raises(ValueError, match="11 tokens are more than the model's 10"):
        gpt(torch.zeros(1, 11, dtype=torch.int64))


def test_every_parameter_gets_a_gradient() -> None:
    for model in (TINY, replace(TINY, tied=False, positions="rotary"), replace(TINY, kind="dense")):
        idle = [key for key, g in gradients(model, 0).items() if not g.any()]
        assert not idle


def test_global_balance_makes_replicas_one() -> None:
    """The mean of the replicas' gradients is that of one process with all rows."""
    cfg = replace(TINY, top_k=2, balance_weight=10.0, balance_scope="global")
    rows = randn(12, 8, seed=1)
    whole = filled(MoE(cfg, Layout(), Grid()))
    counted = whole.gate(rows).counts

    class Replicas(Group):
        def sum_(self, x: torch.Tensor) -> torch.Tensor:
            return x.copy_(counted)

    def gradient(grid: Grid, some: torch.Tensor) -> torch.Tensor:
        moe = filled(MoE(cfg, Layout(), grid))
        (moe(some)[0] * 0).sum().backward()
        return moe.gate.weight.grad

    found = [gradient(Grid(dp=Replicas("dp", 2)), half) for half in rows.chunk(2)]
    alone = [gradient(Grid(), half) for half in rows.chunk(2)]
    want = gradient(Grid(), rows)
    torch.testing.assert_close(sum(found) / 2, want)
    assert not torch.allclose(sum(alone) / 2, want)
