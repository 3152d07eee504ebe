"""The parameterized calibration unit (PCU): biased samples of a class, and what recalibrates them.

A class's biased distribution is a Gaussian around its mean with the one covariance that all classes
share; the unit pulls its samples towards real features, and learns that from a few real features of
each base class. Names and sizes are those of `models/LDC_net/Network.py` of the released code, and
of its `models/modules.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from tenfold.core.seed import generator

from .config import Calibration
from .heads import Base

JITTER = 1e-6
"""Share that is added to the covariance's diagonal before it is factored, of the mean variance."""
TRIES = 5
"""The jitter grows tenfold with each further try."""


class Unit(nn.Module):
    """Three bias-free layers, applied T times with the same weights, and the covariance head.

    The official layers also have dropout, but the released flow only ever runs them in eval mode,
    where it does nothing; it is left out.
    """

    def __init__(self, dim: int, settings: Calibration) -> None:
        super().__init__()
        self.recurrences, self.residual = settings.recurrences, settings.residual
        self.layer1 = nn.Linear(dim, dim, bias=False)
        self.layer2 = nn.Linear(dim, dim, bias=False)
        self.layer4 = nn.Linear(dim, dim, bias=False)
        if settings.head == "conv":
            self.layer_6 = nn.Sequential(
                nn.Conv2d(2, 2, 3, padding=1, bias=False),
                nn.ReLU(),
                nn.Conv2d(2, 1, 3, padding=1, bias=False),
            )
            self.layer_6.requires_grad_(settings.head_gradient)

    def forward(self, z: Float[Tensor, "*class sample dim"]) -> list[Tensor]:
        """The samples after each pass, z_1 .. z_T, of the shape of z."""
        passes = []
        for _ in range(self.recurrences):  # z_{t+1} = R(W4 R(W2 R(W1 z_t))), the same W in each
            out = self.layer4(F.relu(self.layer2(F.relu(self.layer1(z)))))
            z = F.relu(out + z if self.residual else out)
            passes.append(z)
        return passes

    def calibrate(
        self, z: Float[Tensor, "*class sample dim"]
    ) -> Float[Tensor, "*class sample dim"]:
        """The samples after the last pass."""
        return self(z)[-1]

    def spread(
        self, means: Float[Tensor, "class dim"], covariance: Float[Tensor, "dim dim"]
    ) -> Float[Tensor, "class dim dim"]:
        """Output of the covariance head for two channels: the mean in each row, and Sigma."""
        like = self.layer1.weight
        dim = len(covariance)
        rows = means.to(like)[:, None].expand(-1, dim, -1)  # class, dim, dim: the mean in each row
        picture = torch.stack([rows, covariance.to(like).expand_as(rows)], dim=1)  # class, 2, ...
        return self.layer_6(picture)[:, 0]  # class, dim, dim


def factor(covariance: Float[Tensor, "dim dim"]) -> Float[Tensor, "dim dim"]:
    """Lower Cholesky factor (float64) of a covariance with a little of its mean variance added."""
    covariance = covariance.double()
    mean = covariance.diagonal().mean()
    if not covariance.isfinite().all() or mean <= 0:
        raise ValueError(
            f"the shared covariance cannot be factored: its mean variance is {float(mean):g} and "
            "it must be finite and positive; are the encoder's features constant or not finite?"
        )
    identity = torch.eye(len(covariance), dtype=torch.float64, device=covariance.device)
    for attempt in range(TRIES):
        jitter = JITTER * 10**attempt * mean
        lower, failed = torch.linalg.cholesky_ex(covariance + jitter * identity)
        if not failed:
            return lower
    smallest = float(torch.linalg.eigvalsh(covariance)[0])
    raise ValueError(
        f"the shared covariance is not positive semi-definite: its smallest eigenvalue is "
        f"{smallest:.2e}, and adding {float(jitter):.2e} to its diagonal did not mend it"
    )


def noise(
    kind: Literal["full", "rank-1"], shape: tuple[int, int, int], random: torch.Generator
) -> Float[Tensor, "class sample dim"]:
    """Standard normal noise (float64); rank-1 has one number a sample for all features."""
    if kind == "full":
        return torch.randn(shape, generator=random, dtype=torch.float64)
    scalar = torch.randn((*shape[:2], 1), generator=random, dtype=torch.float64)
    return scalar.expand(shape)


def draw(
    means: Float[Tensor, "class dim"],
    spread: Float[Tensor, "*class dim dim"],
    eps: Float[Tensor, "class sample dim"],
) -> Float[Tensor, "class sample dim"]:
    """Biased samples mean + eps @ spread; spread is a factor's transpose or the head's output."""
    return means[:, None] + eps @ spread


def gaussian(
    means: Float[Tensor, "class dim"],
    covariance: Float[Tensor, "dim dim"],
    count: int,
    random: torch.Generator,
) -> Float[Tensor, "class count dim"]:
    """Float32 samples of N(mean, covariance): what new classes get in every official version."""
    eps = noise("full", (len(means), count, len(covariance)), random)
    return draw(means.double(), factor(covariance).mT, eps).float()


@torch.no_grad()
def biased(
    means: Float[Tensor, "class dim"],
    covariance: Float[Tensor, "dim dim"],
    settings: Calibration,
    unit: Unit | None,
    eps: Float[Tensor, "class sample dim"],
) -> Float[Tensor, "class sample dim"]:
    """Float32 biased samples by the settings' head from given noise; cut off from any gradient."""
    means = means.double()
    if settings.head == "cholesky":
        return draw(means, factor(covariance).mT, eps).float()
    if unit is None:
        raise ValueError(
            "calibration.head conv is a part of the unit, but calibration.unit is none; "
            "set calibration.head cholesky"
        )
    each = zip(means.split(1), eps.split(1), strict=True)  # a matrix a class: not all at once
    return torch.cat([draw(m, unit.spread(m, covariance).to(m), e) for m, e in each]).float()


def base_noise(base: Base, settings: Calibration, seed: int) -> Float[Tensor, "base sample dim"]:
    """The noise of the samples that are drawn once, at the end of session 0 (float64).

    As many a class as the unit learns from or a session takes (official: 30, of which it takes 5).
    """
    shape = (len(base.means), max(settings.real, settings.samples), base.means.shape[1])
    return noise(settings.noise, shape, generator(seed, "ldc-base-samples"))


def base_samples(
    base: Base, settings: Calibration, unit: Unit | None, seed: int
) -> Float[Tensor, "base sample dim"]:
    """The biased samples of each base class that are drawn once, at the end of session 0."""
    eps = base_noise(base, settings, seed)
    return biased(base.means, base.covariance, settings, unit, eps)


def real_features(
    features: Float[Tensor, "image dim"], labels: Int[Tensor, " image"], count: int, seed: int
) -> Float[Tensor, "class count dim"]:
    """`count` random features of each of the classes 0..n-1; a class with fewer repeats them."""
    random, chosen = generator(seed, "ldc-real"), []
    for label in range(int(labels.max()) + 1):
        own = features[labels == label]
        if not len(own):
            raise ValueError(f"class {label} has no feature for the calibration unit to learn from")
        order = torch.randperm(len(own), generator=random)
        chosen.append(own[order[torch.arange(count) % len(own)]])
    return torch.stack(chosen).float()


def matching_loss(
    real: Float[Tensor, "*class sample dim"],
    passes: list[Tensor],
    kind: Literal["raw", "normalised"],
    temperature: float,
) -> Float[Tensor, "*class"]:
    """KL(softmax(real) || softmax(z_t)), summed over passes and samples: one number a class.

    That is `dis_match` of the released code; sample i is paired with real feature i. With
    log_softmax throughout: the log of a softmax is minus infinity as soon as a feature underflows.
    "normalised" compares directions: temperature times features of length one.
    """

    def scores(x: Tensor) -> Tensor:
        x = temperature * F.normalize(x, dim=-1) if kind == "normalised" else x
        return x.log_softmax(-1)

    wanted = scores(real)
    terms = [F.kl_div(scores(z), wanted, reduction="none", log_target=True) for z in passes]
    return torch.stack(terms).sum((0, -2, -1))  # over pass, sample and feature; a class is left


class UnitTrainingModel(nn.Module):
    """The unit in training, for the house's loop: loss = mean of the batch's classes."""

    covariance: Tensor

    def __init__(
        self,
        unit: Unit,
        settings: Calibration,
        temperature: float,
        covariance: Float[Tensor, "dim dim"],
    ) -> None:
        super().__init__()
        self.unit, self.kind, self.temperature = unit, settings.loss, temperature
        self.register_buffer("covariance", covariance.float(), persistent=False)

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """`real` [class, sample, dim] and `start`, or `means` and `eps` if the head learns too."""
        if "start" in batch:
            start = batch["start"]
        else:
            means = batch["means"]
            start = draw(means, self.unit.spread(means, self.covariance), batch["eps"])
        loss = matching_loss(batch["real"], self.unit(start), self.kind, self.temperature)
        return {"loss": loss.mean()}


def unit_steps(settings: Calibration, classes: int) -> int:
    """Optimiser steps of the unit's training."""
    return settings.epochs * (classes if settings.step == "class" else 1)


def unit_batches(
    base: Base,
    real: Float[Tensor, "class sample dim"],
    settings: Calibration,
    unit: Unit,
    seed: int,
) -> Callable[[int], dict[str, Tensor]]:
    """Index -> batch of `UnitTrainingModel`, a pure function of (seed, index).

    A batch is the next class in order, or all of them. Without `redraw` its samples are those that
    `base_samples` gives.
    """
    (classes, count, dim), kept = real.shape, base_noise(base, settings, seed)
    assert count <= kept.shape[1], f"{count} real features, but {kept.shape[1]} samples a class"
    kept, starts = kept[:, :count], None
    if not (settings.redraw or settings.head_gradient):
        starts = biased(base.means, base.covariance, settings, unit, kept)

    def batch(index: int) -> dict[str, Tensor]:
        epoch, first = divmod(index, classes) if settings.step == "class" else (index, 0)
        own = slice(first, first + 1) if settings.step == "class" else slice(None)
        made, means, eps = {"real": real[own]}, base.means[own], kept[own]
        if starts is not None:
            return made | {"start": starts[own]}
        if settings.redraw:
            random = generator(seed, "ldc-redraw", epoch, first)
            eps = noise(settings.noise, (len(means), count, dim), random)
        if settings.head_gradient:
            return made | {"means": means.float(), "eps": eps.float()}
        return made | {"start": biased(means, base.covariance, settings, unit, eps)}

    return batch
