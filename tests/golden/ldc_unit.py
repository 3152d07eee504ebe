"""LDC's unit, its training and one session against the official code."""

from __future__ import annotations

import re

import numpy as np
import torch
from torch import Tensor

from golden.harness import Case
from golden.ldc_fill import fill, given, stated
from tenfold.systems.ldc.calibration_unit import (
    Unit,
    UnitTrainingModel,
    draw,
    factor,
    matching_loss,
)
from tenfold.systems.ldc.config import Calibration
from tenfold.systems.ldc.heads import Base
from tenfold.systems.ldc.rehearsal import MOMENTUM, Rehearsal

LAYERS = {"W1": "layer1", "W2": "layer2", "W4": "layer4"}


def near(case: Case, name: str, got: Tensor, share: float) -> None:
    """Equality with an output, if the case has it, within a share of the largest entry."""
    if name in case.arrays:
        case.compare(name, got, rtol=0, atol=share * float(np.abs(case.arrays[name]).max()))


def unit_of(case: Case, settings: Calibration) -> Unit:
    """A unit without covariance head, with the case's weights."""
    unit = Unit(case.spec["config"]["D"], settings)
    own = {k: s for k, s in case.spec["params"] if not k.startswith("layer_6.")}
    unit.load_state_dict({k.replace(".0.", ".", 1): fill(case, k, s) for k, s in own.items()})
    return unit


def check_biased(case: Case) -> None:
    """Biased samples of the covariance head and of the plain Gaussian."""
    config = case.spec["config"]
    means, eps = given(case, "mem_feat"), given(case, "eps")
    root = given(case, "cov_factor")
    sigma = root @ root.T / config["D"]
    near(case, "mu", means, 1e-7)
    near(case, "sigma", sigma, 1e-6)
    unit = Unit(config["D"], Calibration(head="conv"))
    unit.layer_6.load_state_dict(
        {k.removeprefix("layer_6."): fill(case, k, s) for k, s in case.spec["params"]}
    )
    spread = unit.spread(means, sigma)
    exact = unit.double().spread(means, sigma)
    for name, got, share in (("cov_in", spread, 1e-5), ("cov_in_f64", exact, 1e-9)):
        if name in case.arrays:
            near(case, name, got[: len(case.arrays[name])], share)
    near(case, "biased_head", draw(means, spread, eps), 1e-5)
    got = draw(means.double(), factor(sigma).mT, eps.double())
    near(case, "biased_chol_f64", got, 1e-9)


def check_recurrence(case: Case) -> None:
    """Passes, their KL, and the gradients of the total."""
    unit = unit_of(case, Calibration(recurrences=case.spec["config"]["T"]))
    z, entry = given(case, "z0"), case.find("real")
    real = given(case, "real")[int(stated("class # used", entry.note, 0))]
    passes = unit(z)
    for t, got in enumerate(passes, 1):
        near(case, f"z{t}", got, 1e-6)
    each = torch.stack([matching_loss(real, [z], "raw", 16.0) for z in passes])
    near(case, "kl_t", each, 1e-6)
    loss = matching_loss(real, passes, "raw", 16.0)
    near(case, "loss", loss, 1e-6)
    loss.backward()
    for key, layer in LAYERS.items():
        near(case, f"grad_{key}", getattr(unit, layer).weight.grad, 1e-5)
    passes = unit.double()(z.double())
    for t, got in enumerate(passes, 1):
        near(case, f"z{t}_f64", got, 1e-9)
    each = torch.stack([matching_loss(real.double(), [z], "raw", 16.0) for z in passes])
    near(case, "kl_t_f64", each, 1e-9)


def check_matching(case: Case) -> None:
    """The unit's training: one step a class, classes in order, SGD with dampening."""
    config = case.spec["config"]
    settings = Calibration(recurrences=config.get("T", Calibration.recurrences))
    trainee = UnitTrainingModel(unit_of(case, settings), settings, 16.0, torch.eye(config["D"]))
    real = given(case, "dm_real")
    batches = [
        {"real": real[c : c + 1], "start": given(case, f"g{c}")[None]}
        for c in range(config["classes"])
    ]
    said = config["optimizer"]
    sgd = torch.optim.SGD(
        trainee.parameters(),
        lr=stated("lr #", said, 0.1),
        momentum=stated("momentum #", said, 0.9),
        dampening=stated("dampening #", said, settings.dampening),
        weight_decay=stated("wd #", said, 0),
    )

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
    near(case, "class_loss", torch.stack(losses), 1e-5)
    for key, layer in LAYERS.items():
        near(case, key, getattr(trainee.unit, layer).weight, 1e-4)


class Given(Rehearsal):
    """Rehearsal whose samples of new classes are the case's."""

    given: Tensor

    def draw_new(self, means: Tensor, covariance: Tensor, random: torch.Generator) -> Tensor:
        return self.given


def check_session(case: Case) -> None:
    """One official session: covariance, calibrated samples, every step's loss, class vectors."""
    config = case.spec["config"]
    means, root = given(case, "base_mu"), given(case, "cov_factor")
    sigma = (root @ root.T / config["D"]).double()
    drawn, note = given(case, "base_g"), case.find("base_g").note
    counts, each = torch.full((len(means),), drawn.shape[1]), sigma.expand(len(means), -1, -1)
    base = Base(means.double(), sigma, means, each, counts)
    samples = (means[:, None] + drawn).abs()
    said, order = config["optimizer"], config["order"]
    settings = Calibration(
        session_epochs=config["epochs_new"],
        session_lr=stated("lr #", said, 0.01),
        dampening=stated("dampening #", said, 0.9),
        session_batch=int(stated("batches of #", order, 50)),
        samples=int(stated("first # of each class", note, 5)),
    )
    assert stated("momentum #", said, MOMENTUM) == MOMENTUM
    head = Given(base, settings, float(config["temperature"]), 0, unit_of(case, settings), samples)
    head.base = config["base_class"]  # in a session after the first, more classes have means
    head.given = torch.from_numpy(case.take("novel_biased"))
    features, shot = given(case, "novel_feat"), config["shot"]
    new = len(means) + torch.arange(config["way"]).repeat_interleave(shot)
    head.learn(features, new)
    near(case, "mean_cov_after", head.covariance.float(), 1e-6)
    assert head.samples is not None
    calibrated = head.calibrated(head.samples)
    labels = torch.arange(len(calibrated)).repeat_interleave(calibrated.shape[1])
    for name in case.arrays:
        if found := re.fullmatch(r"calibrated_(first|last)_(\d+)", name):
            rows, flat = int(found[2]), calibrated.flatten(0, 1)
            near(case, name, flat[:rows] if found[1] == "first" else flat[-rows:], 1e-5)
    near(case, "labels", torch.cat([new, labels]), 0)
    near(case, "loss", head.losses, 1e-5)
    near(case, "fc_after", head.vectors, 1e-6)
    near(case, "fc_before", head.means, 1e-6)  # mem_feat stays
    near(case, "fc_delta", head.vectors - head.means, 1e-3)


CHECKS = {
    "biased_sampling": check_biased,
    "pcu_recurrence": check_recurrence,
    "dis_match": check_matching,
    "session_update": check_session,
}
