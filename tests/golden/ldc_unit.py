"""LDC's unit, its training and one session against the official code."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from golden.harness import Case, close
from golden.ldc_fill import fill, given
from tenfold.systems.ldc.calibration_unit import (
    Unit,
    UnitTrainingModel,
    draw,
    factor,
    matching_loss,
)
from tenfold.systems.ldc.config import Calibration
from tenfold.systems.ldc.heads import Base
from tenfold.systems.ldc.rehearsal import Rehearsal

LAYERS = {"W1": "layer1", "W2": "layer2", "W4": "layer4"}


def near(got: Tensor, want: np.ndarray, share: float, what: str) -> None:
    """Equality within a share of the largest entry."""
    close(got, want, rtol=0, atol=share * float(np.abs(want).max()), what=what)


def unit_of(case: Case, settings: Calibration) -> Unit:
    """A unit without covariance head, with the case's weights."""
    unit = Unit(case.spec["config"]["D"], settings)
    unit.load_state_dict(
        {k.replace(".0.", ".", 1): fill(case, k, s) for k, s in case.spec["params"]}
    )
    return unit


def check_biased(case: Case) -> None:
    """Biased samples of the covariance head and of the plain Gaussian."""
    want, config = case.arrays, case.spec["config"]
    means, eps = given(case, "g.pcu.mem_feat"), given(case, "g.pcu.eps")
    root = given(case, "g.pcu.cov_factor")
    sigma = root @ root.T / config["D"]
    near(means, want["mu"], 1e-7, "mu")
    near(sigma, want["sigma"], 1e-6, "sigma")
    unit = Unit(config["D"], Calibration(head="conv"))
    unit.layer_6.load_state_dict(
        {k.removeprefix("layer_6."): fill(case, k, s) for k, s in case.spec["params"]}
    )
    spread = unit.spread(means, sigma)
    shown = len(want["cov_in"])
    near(spread[:shown], want["cov_in"], 1e-5, "cov_in")
    near(draw(means, spread, eps), want["biased_head"], 1e-5, "biased_head")
    spread = unit.double().spread(means, sigma)
    near(spread[:shown], want["cov_in_f64"], 1e-9, "cov_in_f64")
    got = draw(means.double(), factor(sigma).mT, eps.double())
    near(got, want["biased_chol_f64"], 1e-9, "biased_chol_f64")


def check_recurrence(case: Case) -> None:
    """Passes, their KL, and the gradients of the total."""
    want, unit = case.arrays, unit_of(case, Calibration(recurrences=case.spec["config"]["T"]))
    z, real = given(case, "g.pcu.z0"), given(case, "g.pcu.real")[0]
    passes = unit(z)
    for t, got in enumerate(passes, 1):
        near(got, want[f"z{t}"], 1e-6, f"z{t}")
    each = torch.stack([matching_loss(real, [z], "raw", 16.0) for z in passes])
    near(each, want["kl_t"], 1e-6, "kl_t")
    loss = matching_loss(real, passes, "raw", 16.0)
    near(loss, want["loss"], 1e-6, "loss")
    loss.backward()
    for key, layer in LAYERS.items():
        near(getattr(unit, layer).weight.grad, want[f"grad_{key}"], 1e-5, f"grad_{key}")
    passes = unit.double()(z.double())
    near(passes[-1], want["z3_f64"], 1e-9, "z3_f64")
    each = torch.stack([matching_loss(real.double(), [z], "raw", 16.0) for z in passes])
    near(each, want["kl_t_f64"], 1e-9, "kl_t_f64")


def check_matching(case: Case) -> None:
    """The unit's training: one step a class, classes in order, SGD with dampening."""
    want, config = case.arrays, case.spec["config"]
    settings = Calibration()
    trainee = UnitTrainingModel(unit_of(case, settings), settings, 16.0, torch.eye(config["D"]))
    real = given(case, "g.pcu.dm_real")
    batches = [
        {"real": real[c : c + 1], "start": given(case, f"g.pcu.g{c}")[None]}
        for c in range(config["classes"])
    ]
    sgd = torch.optim.SGD(trainee.parameters(), 0.1, momentum=0.9, dampening=settings.dampening)

    def measured() -> Tensor:
        with torch.no_grad():
            return torch.stack([trainee(batch)["loss"] for batch in batches])

    losses = [measured()]
    for _ in range(config["epochs"]):
        for batch in batches:
            sgd.zero_grad()
            trainee(batch)["loss"].backward()
            sgd.step()
        losses.append(measured())
    near(torch.stack(losses), want["class_loss"], 1e-5, "class_loss")
    for key, layer in LAYERS.items():
        weight = getattr(trainee.unit, layer).weight
        near(weight, want[key], 1e-4, key)


class Given(Rehearsal):
    """Rehearsal whose samples of new classes are the case's."""

    given: Tensor

    def draw_new(self, means: Tensor, covariance: Tensor, random: torch.Generator) -> Tensor:
        return self.given


def check_session(case: Case) -> None:
    """One official session: covariance, calibrated samples, every step's loss, class vectors."""
    want, config = case.arrays, case.spec["config"]
    means, root = given(case, "g.ses.base_mu"), given(case, "g.ses.cov_factor")
    sigma = (root @ root.T / config["D"]).double()
    counts, each = torch.full((len(means),), 30), sigma.expand(len(means), -1, -1)
    base = Base(means.double(), sigma, means, each, counts)
    samples = (means[:, None] + given(case, "g.ses.base_g")).abs()
    settings = Calibration(session_epochs=config["epochs_new"])
    head = Given(base, settings, float(config["temperature"]), 0, unit_of(case, settings), samples)
    head.given = torch.from_numpy(want["novel_biased"])
    features, shot = given(case, "g.ses.novel_feat"), config["shot"]
    labels = config["base_class"] + torch.arange(config["way"]).repeat_interleave(shot)
    head.learn(features, labels)
    near(head.covariance.float(), want["mean_cov_after"], 1e-6, "mean_cov_after")
    assert head.samples is not None
    calibrated = head.calibrated(head.samples).flatten(0, 1)
    near(calibrated[:20], want["calibrated_first_20"], 1e-5, "calibrated_first_20")
    near(calibrated[-20:], want["calibrated_last_20"], 1e-5, "calibrated_last_20")
    near(head.losses, want["loss"], 1e-5, "loss")
    near(head.vectors, want["fc_after"], 1e-6, "fc_after")
    near(head.vectors - torch.from_numpy(want["fc_before"]), want["fc_delta"], 1e-3, "fc_delta")
    near(head.means, want["fc_before"], 1e-6, "mem_feat stays")


CHECKS = {
    "biased_sampling": check_biased,
    "pcu_recurrence": check_recurrence,
    "dis_match": check_matching,
    "session_update": check_session,
}
