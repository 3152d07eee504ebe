"""LDC's unit and sessions: sampling, gradients, switches, state, and refusals."""

from __future__ import annotations

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tenfold.core.seed import generator
from tenfold.systems.ldc import calibration_unit as unit_module
from tenfold.systems.ldc.calibration_unit import (
    Unit,
    UnitTrainingModel,
    base_samples,
    biased,
    draw,
    factor,
    gaussian,
    matching_loss,
    noise,
    real_features,
    unit_batches,
    unit_steps,
)
from tenfold.systems.ldc.config import Calibration
from tenfold.systems.ldc.heads import Base, cosine, in_space, statistics
from tenfold.systems.ldc.rehearsal import Rehearsal, learned_vectors, tune

DIM, BASE, PHOTOS = 6, 4, 12
TEMPERATURE = 16.0


def random_of(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def photos(classes: int, count: int, seed: int, first: int = 0) -> tuple[Tensor, Tensor]:
    """Features as an encoder gives them: not negative, each class around its own direction."""
    random = random_of(seed)
    means = torch.rand(classes, 1, DIM, generator=random)
    spread = 0.2 * torch.randn(classes, count, DIM, generator=random)
    labels = first + torch.arange(classes).repeat_interleave(count)
    return (means + spread).relu().flatten(0, 1), labels


def base_of(seed: int = 0) -> Base:
    return statistics(*photos(BASE, PHOTOS, seed))


def unit_of(settings: Calibration, seed: int = 0) -> Unit:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Unit(DIM, settings)


def head_of(settings: Calibration, unit: Unit | None = None, seed: int = 0) -> Rehearsal:
    unit = unit_of(settings) if unit is None and settings.unit != "none" else unit
    samples = base_samples(base_of(), settings, unit, seed) if settings.fixed_samples else None
    return Rehearsal(base_of(), settings, TEMPERATURE, seed, unit, samples)


def trained(settings: Calibration, steps: int) -> tuple[UnitTrainingModel, Tensor]:
    """A unit after some steps of SGD, and their losses."""
    base, unit = base_of(), unit_of(settings)
    real = real_features(*photos(BASE, PHOTOS, 0), settings.real, 0)
    batches = unit_batches(base, real, settings, unit, 0)
    trainee = UnitTrainingModel(unit, settings, TEMPERATURE, base.covariance)
    learning = [p for p in trainee.parameters() if p.requires_grad]
    sgd = torch.optim.SGD(learning, 0.1, momentum=0.9, dampening=settings.dampening)
    losses = []
    for step in range(steps):
        sgd.zero_grad()
        loss = trainee(batches(step))["loss"]
        loss.backward()
        sgd.step()
        losses.append(loss.detach())
    return trainee, torch.stack(losses)


# Sampling


def test_samples_have_the_mean_and_covariance_asked_for() -> None:
    """Those of base classes, and those that new classes keep."""
    base, count = base_of(), 200_000
    eps = noise("full", (2, count, DIM), random_of(1))
    old = biased(base.means[:2], base.covariance, Calibration(), None, eps).double()
    new = gaussian(base.means[:2], base.covariance, count, random_of(2)).double()
    scale = float(base.covariance.diagonal().mean())
    for got in (old, new):
        for c in range(2):
            # 5 standard errors of a mean and of a covariance's entry
            assert (got[c].mean(0) - base.means[c]).abs().max() < 5 * (scale / count) ** 0.5
            assert (got[c].T.cov() - base.covariance).abs().max() < 5 * scale * (2 / count) ** 0.5


def test_rank_one_noise_has_rank_one() -> None:
    one = noise("rank-1", (3, 20, DIM), random_of(0))
    assert torch.linalg.matrix_rank(one.flatten(0, 1)) == 1
    base = base_of()
    samples = draw(base.means, factor(base.covariance).mT, one[:1].expand(BASE, -1, -1))
    around = samples - base.means[:, None]
    assert torch.linalg.matrix_rank(around.flatten(0, 1)) == 1
    assert torch.linalg.matrix_rank(noise("full", (1, 20, DIM), random_of(0))[0]) == DIM


def test_factor_of_a_singular_covariance_and_of_none() -> None:
    column = torch.arange(1.0, DIM + 1, dtype=torch.float64)[:, None]
    lower = factor(column @ column.T)  # rank one: only the jitter makes it positive definite
    assert torch.allclose(lower @ lower.T, column @ column.T, atol=1e-3)
    with pytest.raises(ValueError, match="mean variance is 0"):
        factor(torch.zeros(DIM, DIM))
    with pytest.raises(ValueError, match="finite"):
        factor(torch.full((DIM, DIM), torch.nan))
    with pytest.raises(ValueError, match=r"smallest eigenvalue is -1\.00e\+00"):
        factor(torch.diag(torch.tensor([2.0, 2, 2, 2, 2, -1])))


def test_base_samples_are_those_that_the_unit_learns_from() -> None:
    settings = Calibration(real=7, samples=3)
    unit, base = unit_of(settings), base_of()
    real = real_features(*photos(BASE, PHOTOS, 0), settings.real, 0)
    batches = unit_batches(base, real, settings, unit, 3)
    kept = base_samples(base, settings, unit, 3)
    assert kept.shape == (BASE, 7, DIM)
    for index in (0, 2, BASE + 1):
        batch = batches(index)
        own = index % BASE
        assert torch.equal(batch["start"], kept[own : own + 1])
        assert torch.equal(batch["real"], real[own : own + 1])
    assert base_samples(base, Calibration(real=2, samples=9), unit, 3).shape == (BASE, 9, DIM)
    assert not torch.equal(base_samples(base, settings, unit, 4), kept)


def test_redrawn_samples_follow_from_seed_and_index() -> None:
    settings, base = Calibration(real=5, redraw=True), base_of()
    unit, real = unit_of(settings), torch.rand(BASE, 5, DIM)
    batches = unit_batches(base, real, settings, unit, 0)
    first = [batches(i)["start"] for i in range(2 * BASE)]
    again = unit_batches(base, real, settings, unit, 0)
    assert torch.equal(again(2 * BASE - 1)["start"], first[-1])  # asked out of order
    assert len({tuple(x.flatten().tolist()) for x in first}) == 2 * BASE
    assert unit_steps(settings, BASE) == 500 * BASE
    assert unit_steps(dataclasses.replace(settings, step="all"), BASE) == 500


def test_real_features_come_from_their_class_and_repeat_where_too_few() -> None:
    features, labels = photos(2, 3, 0)
    got = real_features(features, labels, 7, 0)
    for c in range(2):
        rows = {tuple(row) for row in got[c].tolist()}
        assert rows == {tuple(row) for row in features[labels == c].tolist()}
    with pytest.raises(ValueError, match="class 1 has no feature"):
        real_features(features, labels * 2, 3, 0)


# The unit and its loss


def test_conv_head_gets_a_gradient_only_with_head_gradient() -> None:
    official, mended = (Calibration(head="conv", head_gradient=g) for g in (False, True))
    before = unit_of(mended).layer_6.state_dict()
    (still, losses), (moved, others) = trained(official, 3), trained(mended, 3)
    for name, weight in still.unit.layer_6.named_parameters():
        assert torch.equal(weight, before[name]) and not weight.requires_grad, name
    for name, weight in moved.unit.layer_6.named_parameters():
        assert weight.grad.abs().max() > 0 and not torch.equal(weight, before[name]), name
    assert torch.allclose(losses[0], others[0], rtol=1e-5)  # the same samples at first


def test_loss_is_finite_where_the_log_of_a_softmax_is_not() -> None:
    real = torch.rand(2, 3, DIM)
    z = torch.zeros(2, 3, DIM)
    z[..., 0] = 200
    naive = (real.softmax(-1) * (real.log_softmax(-1) - z.softmax(-1).log())).sum((-1, -2))
    assert not naive.isfinite().any()
    z.requires_grad_()
    loss = matching_loss(real, [z, z], "raw", TEMPERATURE)
    loss.sum().backward()
    assert loss.shape == (2,) and loss.isfinite().all() and z.grad.isfinite().all()


def test_loss_sums_over_passes_and_samples_and_vanishes_at_equality() -> None:
    real, z = torch.rand(2, 3, DIM), [torch.rand(2, 3, DIM), torch.rand(2, 3, DIM)]
    total = matching_loss(real, z, "raw", TEMPERATURE)
    single = [
        matching_loss(real[:, i : i + 1], [x[:, i : i + 1]], "raw", TEMPERATURE)
        for x in z
        for i in range(3)
    ]
    assert torch.allclose(total, torch.stack(single).sum(0), rtol=1e-5)
    assert matching_loss(real, [real], "raw", TEMPERATURE).abs().max() < 1e-6
    # normalised: only directions count
    assert matching_loss(real, [3 * real], "normalised", TEMPERATURE).abs().max() < 1e-5
    assert matching_loss(real, [3 * real], "raw", TEMPERATURE).min() > 1e-3


def test_passes_share_weights_and_residual_adds_the_input() -> None:
    z = torch.rand(2, 5, DIM)
    once = unit_of(Calibration(recurrences=1))
    thrice = unit_of(Calibration(recurrences=3))
    assert torch.equal(thrice.calibrate(z), once.calibrate(once.calibrate(once.calibrate(z))))
    residual = unit_of(Calibration(recurrences=1, residual=True))
    inner = residual.layer2(F.relu(residual.layer1(z)))
    assert torch.allclose(residual.calibrate(z), F.relu(residual.layer4(F.relu(inner)) + z))


def test_training_lowers_the_loss() -> None:
    settings = Calibration(loss="normalised", step="all", residual=True)
    _, losses = trained(settings, 60)
    assert losses[-1] < 0.8 * losses[0]


# Sessions


@pytest.mark.parametrize("dampening", [0.9, 0.0])
def test_tuning_equals_autograd_and_torch_sgd(dampening: float) -> None:
    settings = Calibration(session_epochs=4, session_batch=5, dampening=dampening, session_lr=0.3)
    features, labels = photos(5, 3, 1)
    start = torch.rand(5, DIM, dtype=torch.float64)
    features = features.double()
    got, losses = tune(start, features, labels, TEMPERATURE, settings, random_of(0))
    vectors = start.clone().requires_grad_()
    sgd = torch.optim.SGD([vectors], 0.3, momentum=0.9, dampening=dampening)
    wanted = []
    for _ in range(4):
        for x, y in zip(features.split(5), labels.split(5), strict=True):
            cosine = F.normalize(x, dim=1) @ F.normalize(vectors, dim=1).T
            loss = F.cross_entropy(TEMPERATURE * cosine, y)
            sgd.zero_grad()
            loss.backward()
            sgd.step()
            wanted.append(loss.detach())
    torch.testing.assert_close(got, vectors.detach(), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(losses, torch.stack(wanted), rtol=1e-9, atol=1e-9)


def test_tail_is_dropped_unless_shuffled() -> None:
    features, labels = photos(3, 4, 1)
    for settings, steps in (
        (Calibration(session_epochs=2, session_batch=5), 4),
        (Calibration(session_epochs=2, session_batch=5, shuffle=True), 6),
        (Calibration(session_epochs=2), 2),  # fewer than a batch: one batch of all
    ):
        start = torch.rand(3, DIM)
        _, losses = tune(start, features, labels, TEMPERATURE, settings, random_of(0))
        assert len(losses) == steps


def test_covariance_folds_in_as_the_settings_say_and_stays_positive_definite() -> None:
    for rule in ("official", "pooled"):
        head = head_of(Calibration(covariance=rule, session_epochs=1))
        covariance, freedom = base_of().covariance, BASE * (PHOTOS - 1)
        for first in (BASE, BASE + 2):  # the base's weight stays that of the base classes
            features, labels = photos(2, 3, first, first)
            for label in (first, first + 1):
                own = features[labels == label].double().T.cov()
                old, weight = (BASE, 2) if rule == "official" else (freedom, 2)
                covariance = (old * covariance + weight * own) / (old + weight)
                freedom += 2
            head.learn(features, labels)
            torch.testing.assert_close(head.covariance, covariance, rtol=1e-12, atol=1e-12)
            # the samples of new classes are drawn after all of them were folded in
            random = generator(0, "ldc-session", first)
            kept = gaussian(head.means[first:], head.covariance, 5, random)
            assert torch.equal(head.samples[first:], kept)
        folded = head.covariance
        head.learn(*photos(1, 1, 6, BASE + 4))  # one photo says nothing of a spread
        assert torch.equal(head.covariance, folded)
        assert torch.linalg.eigvalsh(folded).min() > 0


@pytest.mark.parametrize("fixed", [True, False])
def test_a_restored_head_goes_on_as_the_first_would(fixed: bool) -> None:
    settings = Calibration(session_epochs=3, fixed_samples=fixed, shuffle=True)
    head, other = head_of(settings), head_of(settings)
    head.learn(*photos(2, 5, 2, BASE))
    other.restore({k: v.clone() for k, v in head.state().items()})
    for each in (head, other):
        each.learn(*photos(2, 4, 3, BASE + 2))
    features, _ = photos(3, 4, 9)
    assert torch.equal(head.logits(features), other.logits(features))
    assert all(torch.equal(v, other.state()[k]) for k, v in head.state().items())


def test_a_broken_state_is_refused() -> None:
    head = head_of(Calibration())
    state = head.state()
    for change, says in (
        ({"means": state["means"][:2]}, "'means' must be"),
        ({"vectors": state["vectors"].double()}, "'vectors' must be"),
        ({"covariance": torch.full((DIM, DIM), torch.inf, dtype=torch.float64)}, "'covariance'"),
        ({"vectors": torch.tensor(1.0)}, "'vectors' must be"),
        ({"extra": torch.ones(1)}, "extra"),
    ):
        with pytest.raises(ValueError, match=says):
            head.restore(state | change)
    two = {k: v if k in ("covariance", "freedom") else v[:2] for k, v in state.items()}
    with pytest.raises(ValueError, match="2 classes, but the base 4"):
        head.restore(two)


def test_memory_does_not_depend_on_the_pictures_seen() -> None:
    def size(settings: Calibration, shot: int, classes: int) -> int:
        head = head_of(settings)
        head.learn(*photos(classes, shot, 2, BASE))
        return sum(v.numel() * v.element_size() for v in head.state().values())

    small = Calibration(session_epochs=1, fixed_samples=False)
    assert size(small, 2, 2) == size(small, 50, 2)
    # a vector and a mean a class, one covariance and its degrees of freedom
    assert size(small, 2, 2) == 4 * 2 * (BASE + 2) * DIM + 8 * DIM * DIM + 8
    kept = dataclasses.replace(small, fixed_samples=True)
    assert size(kept, 2, 2) - size(small, 2, 2) == 4 * 5 * (BASE + 2) * DIM


def test_sessions_are_refused_that_do_not_continue_the_classes() -> None:
    head = head_of(Calibration(session_epochs=1))
    features, labels = photos(2, 3, 1, BASE)
    before = {k: v.clone() for k, v in head.state().items()}
    for x, y, says in (
        (features, labels + 1, "next classes, 4, 5"),
        (features, labels - BASE, "next classes, 4, 5"),
        (features, labels + (labels == BASE + 1), r"got \[4, 6\]"),
        (features[:, :3], labels, "3 numbers, but those of the base classes 6"),
        (features[:0], labels[:0], r"got \[\]"),
        (features * torch.nan, labels, "not finite"),
        (features * (labels == BASE)[:, None], labels, "class 5 are zero"),
    ):
        with pytest.raises(ValueError, match=says):
            head.learn(x, y)
    assert all(torch.equal(v, before[k]) for k, v in head.state().items())


def test_a_unit_must_be_there_when_the_settings_say_so() -> None:
    base, settings = base_of(), Calibration(unit="none")
    samples = base_samples(base, settings, None, 0)
    with pytest.raises(ValueError, match="calibration.unit is none, but a unit"):
        Rehearsal(base, settings, TEMPERATURE, 0, unit_of(settings), samples)
    with pytest.raises(ValueError, match="calibration.unit is trained, but no unit"):
        Rehearsal(base, Calibration(), TEMPERATURE, 0, None, samples)
    with pytest.raises(ValueError, match="at least calibration.samples 40"):
        Rehearsal(base, dataclasses.replace(settings, samples=40), TEMPERATURE, 0, None, samples)
    with pytest.raises(ValueError, match="head conv is a part of the unit"):
        base_samples(base, Calibration(unit="none", head="conv"), None, 0)


def test_the_head_keeps_its_own_frozen_unit() -> None:
    settings = Calibration(session_epochs=2, residual=True)
    unit = unit_of(settings)
    head, samples = head_of(settings, unit), torch.rand(1, 3, DIM)
    before = head.calibrated(samples)
    with torch.no_grad():
        unit.layer1.weight.zero_()
    assert torch.equal(head.calibrated(samples), before)


def outcome(settings: Calibration) -> Tensor:
    """Losses of the unit's training, then losses and vectors of two sessions."""
    steps = min(6, unit_steps(settings, BASE))
    trainee, losses = trained(settings, steps)
    head = head_of(settings, None if settings.unit == "none" else trainee.unit)
    parts = [losses]
    for session, shot in enumerate((5, 3)):
        head.learn(*photos(2, shot, 20 + session, len(head.vectors)))
        parts += [head.losses, head.vectors.flatten()]
    return torch.cat(parts)


CONV = Calibration(real=8, epochs=5, session_epochs=3, session_batch=15, head="conv")
PLAIN = dataclasses.replace(CONV, head="cholesky")
SWITCHES = dict(
    unit="none", recurrences=2, residual=True, head="conv", noise="rank-1", loss="normalised",
    real=6, epochs=1, step="all", redraw=True, samples=4, fixed_samples=False, covariance="pooled",
    session_epochs=2, session_batch=10, session_lr=0.02, dampening=0.0, shuffle=True,
    head_gradient=True, tuned="new", calibrated_share=0.4,
)  # fmt: skip
OF_THE_SYSTEM = {"features", "space", "base_vectors", "base_steps"}
"""Which features, in which space, and what base vectors start from, is the system's part."""


def test_every_switch_changes_something() -> None:
    assert SWITCHES.keys() | OF_THE_SYSTEM == {f.name for f in dataclasses.fields(Calibration)}
    reached = {s: outcome(s) for s in (PLAIN, CONV)}
    assert torch.equal(reached[PLAIN], outcome(PLAIN))
    for name, value in SWITCHES.items():
        start = CONV if name == "head_gradient" else PLAIN
        got = outcome(dataclasses.replace(start, **{name: value}))
        assert got.shape != reached[start].shape or not torch.equal(got, reached[start]), name


def test_the_official_head_is_not_used_for_new_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    head = head_of(CONV)
    monkeypatch.setattr(unit_module.Unit, "spread", lambda *_: pytest.fail("head used"))
    head.learn(*photos(2, 3, 1, BASE))
    again = head_of(dataclasses.replace(CONV, head="cholesky"))
    again.learn(*photos(2, 3, 1, BASE))
    assert torch.equal(head.samples[BASE:], again.samples[BASE:])


def test_only_new_vectors_move_if_asked() -> None:
    head = head_of(dataclasses.replace(PLAIN, tuned="new"))
    before = head.vectors.clone()
    head.learn(*photos(2, 5, 1, BASE))
    first = head.vectors[BASE:].clone()
    head.learn(*photos(2, 5, 2, BASE + 2))
    assert torch.equal(head.vectors[:BASE], before)
    assert not torch.equal(head.vectors[BASE : BASE + 2], first)  # new once is not fixed for ever


def test_learned_base_vectors_fit_the_real_features_better() -> None:
    features, labels = photos(BASE, PHOTOS, 0)
    settings = dataclasses.replace(PLAIN, base_steps=50)
    learned = learned_vectors(base_of(), features, labels, TEMPERATURE, settings)

    def loss(vectors: Tensor) -> float:
        return float(F.cross_entropy(cosine(features, vectors, TEMPERATURE), labels))

    assert loss(learned) < 0.9 * loss(base_of().vectors)


def test_square_root_features_have_length_one() -> None:
    made = in_space(torch.tensor([[4.0, 0.0], [1.0, 9.0], [0.0, 0.0]]), "tukey")
    torch.testing.assert_close(made[:2], torch.tensor([[1, 0], [0.1**0.5, 0.9**0.5]]))
    assert torch.equal(made[2], torch.zeros(2))
    assert in_space(made, "raw") is made


def test_a_share_of_the_samples_passes_the_unit() -> None:
    head = head_of(dataclasses.replace(PLAIN, calibrated_share=0.4))
    samples = torch.rand(3, 5, DIM)
    made = head.calibrated(samples)
    assert torch.equal(made[:, 2:], samples[:, 2:])
    assert torch.equal(made[:, :2], head.unit.calibrate(samples[:, :2]))
