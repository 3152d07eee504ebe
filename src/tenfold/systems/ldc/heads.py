"""Heads: a head is a classifier on fixed features that takes classes a few photos at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

Space = Literal["raw", "tukey"]


@dataclass(frozen=True)
class Base:
    """Statistics that session 0 leaves to the heads. They are float64, features float32."""

    means: Float[Tensor, "base dim"]
    """Mean feature of each base class."""
    covariance: Float[Tensor, "dim dim"]
    """Mean of the base classes' unbiased covariances: the one matrix that LDC keeps."""
    vectors: Float[Tensor, "base dim"]
    """Initial vectors of the base classes (float32): the means, or better."""
    covariances: Float[Tensor, "base dim dim"]
    """One covariance a class, for heads that pay for them."""
    counts: Int[Tensor, " base"]
    """Pictures of each class."""


def in_space(features: Float[Tensor, "image dim"], space: Space) -> Float[Tensor, "image dim"]:
    """Features as a head wants them: as they are, or square roots of unit length.

    Features below zero, which transformers have, keep their sign (ours).
    """
    if space == "raw":
        return features
    return functional.normalize(features.sign() * features.abs().sqrt(), dim=1)


def cosine(
    features: Float[Tensor, "*batch dim"],
    vectors: Float[Tensor, "class dim"],
    temperature: int | float,
) -> Float[Tensor, "*batch class"]:
    """Logits `temperature * <f/|f|, w/|w|>` (CEC's `ft_cos`); a zero vector has cosine 0."""
    scaled = functional.normalize(features, dim=-1) * temperature
    return functional.linear(scaled, functional.normalize(vectors, dim=-1))


def statistics(features: Float[Tensor, "image dim"], labels: Int[Tensor, " image"]) -> Base:
    """Means and unbiased covariances of classes 0..n-1; every class needs two pictures."""
    features, counts = features.double(), torch.bincount(labels)
    if int(counts.min()) < 2:
        raise ValueError(
            f"base statistics need at least two pictures of each class; class "
            f"{int(counts.argmin())} has {int(counts.min())}"
        )
    of_class = [features[labels == c] for c in range(len(counts))]
    dim = features.shape[1]
    covariances = torch.stack([x.T.cov().view(dim, dim) for x in of_class])
    means = torch.stack([x.mean(0) for x in of_class])
    return Base(means, covariances.mean(0), means.float(), covariances, counts)


def check_session(
    features: Float[Tensor, "image dim"], labels: Int[Tensor, " image"], known: int, dim: int
) -> int:
    """Count the classes of a session; an error unless they are the next ones, each present."""
    if features.shape[1] != dim:
        raise ValueError(
            f"the session's features have {features.shape[1]} numbers, but those of the base "
            f"classes {dim}. Use the encoder that made the base statistics."
        )
    brought = labels.unique()
    if len(brought) == 0 or brought.tolist() != list(range(known, known + len(brought))):
        raise ValueError(
            f"a session's labels must be the next classes, {known}, {known + 1}, ..., each with at "
            f"least one picture, got {brought.tolist()}. Number new classes on from those known."
        )
    bad = labels[~features.isfinite().all(1)]
    if len(bad):
        raise ValueError(
            f"{len(bad)} pictures of the session (the first of class {int(bad[0])}) have features "
            "that are not finite. Look at these pictures and at the encoder's weights."
        )
    return len(brought)


@runtime_checkable
class Head(Protocol):
    """A classifier that starts from `Base` and learns sessions of new classes, one after another.

    It never sees an earlier picture again, and all that it keeps is in `state`.
    """

    def learn(self, features: Float[Tensor, "image dim"], labels: Int[Tensor, " image"]) -> None:
        """Take new classes, numbered on from those known, each with at least one picture."""

    def logits(self, features: Float[Tensor, "image dim"]) -> Float[Tensor, "image class"]:
        """Scores of all classes seen so far; the largest is the answer."""

    def state(self) -> dict[str, Tensor]:
        """Everything that is kept between sessions."""

    def restore(self, state: dict[str, Tensor]) -> None:
        """Take a state back."""
