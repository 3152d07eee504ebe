"""LDC's sessions: class vectors tuned on new photos and on samples of the classes seen before.

With a unit it is LDC, without one plain Gaussian rehearsal. Everything random follows from the seed
and the number of classes known, so that a session taken up again is the same session.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from tenfold.core.seed import generator

from .calibration_unit import Unit, biased, gaussian, noise
from .config import Calibration
from .heads import Base, check_session, cosine

MOMENTUM = 0.9
"""Momentum of a session's SGD (official code)."""
EPS = 1e-12
"""Smallest length by which a vector is divided (official code: F.normalize)."""


def batches(
    count: int, settings: Calibration, random: torch.Generator
) -> Iterator[list[Int[Tensor, " sample"]]]:
    """Indices of the batches of each epoch: fixed, with the tail dropped, or shuffled and whole.

    Fewer samples than a batch are one batch (the released code would then learn nothing at all).
    """
    order, size = torch.arange(count), min(settings.session_batch or count, count)
    for _ in range(settings.session_epochs):
        if settings.shuffle:
            yield list(torch.randperm(count, generator=random).split(size))
        else:
            yield list(order[: count - count % size].split(size))


@torch.no_grad()
def tune(
    vectors: Float[Tensor, "class dim"],
    features: Float[Tensor, "sample dim"],
    labels: Int[Tensor, " sample"],
    temperature: float,
    settings: Calibration,
    random: torch.Generator,
    fixed: int = 0,
) -> tuple[Float[Tensor, "class dim"], Float[Tensor, " step"]]:
    """New class vectors, and the loss of each step: cross-entropy of cosine logits, by SGD.

    The first `fixed` vectors stay as they are.

    The tensors are so small that autograd and optimiser would cost most of the time; the gradient
    is written out: that of the unit vectors, less its part along them, over their length.
    """
    vectors = vectors.clone()
    features = F.normalize(features, dim=1, eps=EPS)
    wanted = F.one_hot(labels, len(vectors)).to(vectors)
    buffer: Tensor | None = None
    losses = []
    for epoch in batches(len(features), settings, random):
        for own in epoch:
            x, y = features[own], wanted[own]
            length = vectors.norm(dim=1, keepdim=True).clamp_min_(EPS)
            units = vectors / length
            logs = (x @ units.T).mul_(temperature).log_softmax(1)
            losses.append((logs * y).sum() / -len(x))
            across = (logs.exp_().sub_(y).T @ x).mul_(temperature / len(x))
            along = (across * units).sum(1, keepdim=True)
            gradient = across.sub_(units.mul_(along)).div_(length)
            gradient[:fixed] = 0
            if buffer is None:  # the first step is not dampened (torch.optim.SGD)
                buffer = gradient
            else:
                buffer.mul_(MOMENTUM).add_(gradient, alpha=1 - settings.dampening)
            vectors.sub_(buffer, alpha=settings.session_lr)
    return vectors, torch.stack(losses)


def learned_vectors(
    base: Base,
    features: Float[Tensor, "image dim"],
    labels: Int[Tensor, " image"],
    temperature: float,
    settings: Calibration,
) -> Float[Tensor, "base dim"]:
    """Vectors of base classes, learned on real features from the class means on (ours)."""
    steps = replace(
        settings, session_epochs=settings.base_steps, session_batch=0, session_lr=0.1, dampening=0.0
    )
    start = F.normalize(base.means, dim=1).float()
    return tune(start, features.float(), labels, temperature, steps, generator("unused"))[0]


class Rehearsal:
    """A cosine classifier that rehearses seen classes from their means and one covariance.

    State: class vectors and means [class, dim], the covariance [dim, dim] (float64) and its degrees
    of freedom; with `fixed_samples` also the samples of each class that sessions take. The unit
    never changes.
    """

    losses: Tensor
    """Loss of each step of the last session."""

    def __init__(
        self,
        base: Base,
        settings: Calibration,
        temperature: float,
        seed: int,
        unit: Unit | None,
        samples: Float[Tensor, "base sample dim"] | None,
    ) -> None:
        if (unit is None) != (settings.unit == "none"):
            raise ValueError(
                f"calibration.unit is {settings.unit}, but {'no' if unit is None else 'a'} unit "
                "was given"
            )
        if settings.fixed_samples and (samples is None or samples.shape[1] < settings.samples):
            raise ValueError(
                "calibration.fixed_samples needs the base classes' samples, at least "
                f"calibration.samples {settings.samples} a class; make them with base_samples"
            )
        self.settings, self.temperature, self.seed = settings, temperature, seed
        self.unit = None if unit is None else copy.deepcopy(unit).cpu().requires_grad_(False)
        self.base = len(base.means)
        self.means = base.means.float()
        self.vectors = base.vectors.float().clone()
        self.covariance = base.covariance.double()
        self.freedom = float((base.counts - 1).sum())
        self.samples: Tensor | None = None
        if settings.fixed_samples and samples is not None:
            self.samples = samples[:, : settings.samples].float()

    def learn(self, features: Float[Tensor, "image dim"], labels: Int[Tensor, " image"]) -> None:
        """Take new classes, numbered on from those known, each with at least one picture.

        Nothing is changed if this fails.
        """
        known = len(self.vectors)
        new = _by_class(features, labels, known, self.means.shape[1])
        random = generator(self.seed, "ldc-session", known)
        covariance, freedom = self._folded(new)
        own = torch.stack([x.mean(0) for x in new])
        means, vectors = torch.cat([self.means, own]), torch.cat([self.vectors, own])
        if self.samples is None:
            shape = (len(means), self.settings.samples, means.shape[1])
            eps = noise(self.settings.noise, shape, random)
            samples = biased(means, covariance, self.settings, self.unit, eps)
        else:
            samples = torch.cat([self.samples, self.draw_new(own, covariance, random)])
        seen = torch.arange(len(means)).repeat_interleave(samples.shape[1])
        vectors, losses = tune(
            vectors,
            torch.cat([features.float(), self.calibrated(samples).flatten(0, 1)]),
            torch.cat([labels, seen]),
            self.temperature,
            self.settings,
            random,
            fixed=self.base if self.settings.tuned == "new" else 0,
        )
        if not vectors.isfinite().all():
            raise ValueError(
                f"the class vectors became not finite in the session after class {known - 1}; "
                f"lower calibration.session_lr (now {self.settings.session_lr:g})"
            )
        self.means, self.vectors, self.losses = means, vectors, losses
        self.covariance, self.freedom = covariance, freedom
        self.samples = None if self.samples is None else samples

    def draw_new(
        self,
        means: Float[Tensor, "class dim"],
        covariance: Float[Tensor, "dim dim"],
        random: torch.Generator,
    ) -> Float[Tensor, "class sample dim"]:
        """The samples of new classes to keep: a plain Gaussian in every official version."""
        return gaussian(means, covariance, self.settings.samples, random)

    @torch.no_grad()
    def calibrated(
        self, samples: Float[Tensor, "class sample dim"]
    ) -> Float[Tensor, "class sample dim"]:
        """Samples after the unit, or as they are without one; the unit takes the first share."""
        if self.unit is None:
            return samples
        count = round(self.settings.calibrated_share * samples.shape[1])
        return torch.cat([self.unit.calibrate(samples[:, :count]), samples[:, count:]], 1)

    def logits(self, features: Float[Tensor, "image dim"]) -> Float[Tensor, "image class"]:
        """Temperature times the cosine to each class vector."""
        return cosine(features.float(), self.vectors, self.temperature)

    def state(self) -> dict[str, Tensor]:
        """Everything that is kept between sessions."""
        kept = {
            "vectors": self.vectors,
            "means": self.means,
            "covariance": self.covariance,
            "freedom": torch.tensor(self.freedom, dtype=torch.float64),
        }
        return kept if self.samples is None else kept | {"samples": self.samples}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Take a state back; its keys, types and shapes must be those of this head."""
        mine = self.state()
        if state.keys() != mine.keys():
            raise ValueError(f"the head's state has {sorted(state)}, expected {sorted(mine)}")
        classes = len(state["vectors"]) if state["vectors"].ndim else 0
        for key, own in mine.items():
            per_class = key not in ("covariance", "freedom")
            shape = (classes, *own.shape[1:]) if per_class else own.shape
            got = state[key]
            if got.shape != shape or got.dtype != own.dtype or not got.isfinite().all():
                raise ValueError(
                    f"the head's state {key!r} must be finite {own.dtype} {list(shape)}, got "
                    f"{got.dtype} {list(got.shape)}"
                )
        if classes < self.base:
            raise ValueError(f"the head's state has {classes} classes, but the base {self.base}")
        self.vectors, self.means = state["vectors"].clone(), state["means"].clone()
        self.covariance, self.freedom = state["covariance"].clone(), float(state["freedom"])
        self.samples = state["samples"].clone() if "samples" in state else None

    def _folded(self, new: list[Tensor]) -> tuple[Tensor, float]:
        """The shared covariance and its degrees of freedom with the new classes folded in."""
        covariance, freedom = self.covariance, self.freedom
        for x in new:
            if len(x) < 2:  # one photo says nothing about a spread
                continue
            if self.settings.covariance == "official":
                old, weight = float(self.base), float(len(new))
            else:
                old, weight = freedom, float(len(x) - 1)
            covariance = (old * covariance + weight * x.double().T.cov()) / (old + weight)
            freedom += len(x) - 1
        return covariance, freedom


def _by_class(features: Tensor, labels: Tensor, known: int, dim: int) -> list[Tensor]:
    """The features of each new class, after checks."""
    count = check_session(features, labels, known, dim)
    numbers = range(known, known + count)
    new = [features[labels == label].float() for label in numbers]
    for label, x in zip(numbers, new, strict=True):
        if not float(x.mean(0).norm()) > EPS:
            raise ValueError(f"all features of class {label} are zero; is its picture blank?")
    return new
