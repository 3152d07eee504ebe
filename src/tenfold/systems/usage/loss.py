"""Losses of USAGE, by what can be read of the paper: its abstract and its overview figure.

Generation: activations, weighted by their spatial distribution under a temperature, are a class
score. Regularisation: the distributions of a student and its teacher are alike. Where the figure
does not say a thing it is an option here, and ours.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.distributed as dist
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

Values = Float[Tensor, "batch class location"]
Labels = Float[Tensor, "batch class"]
Form = Literal["kl", "l1", "mse"]
Over = Literal["space", "class"]

EPS = 1e-5
"""Beside the largest value of a map that is divided by it (SEAM, PSA)."""


def log_distribution(activations: Values, over: Over = "space") -> Values:
    """Logarithm of the spatial activation distribution alpha: softmax of activations."""
    return activations.log_softmax(2 if over == "space" else 1)


def pooling_weights(
    activations: Values, tau: Labels | float, over: Over = "space"
) -> Float[Tensor, "batch class location"]:
    """Share of each location in its class's score: alpha^tau, normalised over the locations.

    0 is average pooling, of a large tau the largest activation counts alone, of a low the least.
    """
    log_alpha = log_distribution(activations, over)
    sharp = log_alpha * (tau[:, :, None] if isinstance(tau, Tensor) else tau)
    return sharp.softmax(2)


def generation_loss(
    activations: Values,
    labels: Labels,
    tau_pos: float,
    tau_neg: float,
    softmax_over: Over = "space",
    detach: bool = False,
) -> tuple[Float[Tensor, ""], Float[Tensor, "batch class"]]:
    """L_GEN and the class scores it is of: the classification loss of weighted activations.

    Args:
        activations: A value of each class and location, before ReLU.
        labels: 1 for the classes of a picture, else 0.
        tau_pos: Temperature of the classes that are there: above 0 concentrates a map, below 0
            spreads it, 0 is the mean (the usual classifier of class activation maps).
        tau_neg: That of the others.
        softmax_over: Locations, or classes, over which the distribution is taken.
        detach: Whether no gradient goes through the weights; the figure has no such stop.
    """
    of_present, of_others = activations.new_tensor(tau_pos), activations.new_tensor(tau_neg)
    tau = torch.where(labels > 0, of_present, of_others)
    weights = pooling_weights(activations, tau, softmax_over)
    scores = ((weights.detach() if detach else weights) * activations).sum(2)
    return F.multilabel_soft_margin_loss(scores, labels), scores


def regularisation_loss(
    student: Values, teacher: Values, labels: Labels, form: Form
) -> Float[Tensor, ""]:
    """L_REG, the mean over the classes that are in their pictures; the teacher has no gradient.

    kl: divergence of the student's distribution from the teacher's. l1: mean difference of maps
    divided by their largest values (as SEAM's equivariance). mse: sum of squared differences of
    the distributions. Where several processes share a batch, the mean is that of the whole.
    """
    distances = map_distances(student, teacher.detach(), form)
    return (distances * labels).sum() / _count_per_process(labels.sum())


def map_distances(student: Values, teacher: Values, form: Form) -> Float[Tensor, "batch class"]:
    """The terms of `regularisation_loss`, of every class."""
    if form == "l1":
        return (by_largest(teacher) - by_largest(student)).abs().mean(2)
    log_student, log_teacher = log_distribution(student), log_distribution(teacher)
    if form == "mse":
        return (log_teacher.exp() - log_student.exp()).square().sum(2)
    return (log_teacher.exp() * (log_teacher - log_student)).sum(2)


def by_largest(activations: Values) -> Values:
    """Maps without values below 0, divided by their largest."""
    positive = activations.relu()
    return positive / (positive.amax(2, keepdim=True) + EPS)


def ramp(step: int, steps: int) -> float:
    """Factor on L_REG at 0-based `step`: 0 for a third of all, then linear to 1 over a sixth.

    From the first step on a teacher that has learned nothing keeps its student flat.
    """
    return min(1.0, max(0.0, 6 * step / max(1, steps) - 2))


def _count_per_process(count: Float[Tensor, ""]) -> Float[Tensor, ""]:
    """Present classes of the whole batch, at least 1, by the number of processes."""
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return count.clamp(min=1)
    total = count.clone()
    dist.all_reduce(total)
    return total.clamp(min=1) / dist.get_world_size()


# --- terms of MCTformer --------------------------------------------------------------------------


def ranked_pooling(activations: Values, decay: float) -> Float[Tensor, "batch class"]:
    """Class scores of activations, the k-th largest weighted by decay^k (MCTformer+)."""
    count = activations.shape[2]
    places = torch.arange(count, dtype=activations.dtype, device=activations.device)
    weights = decay**places
    return activations.sort(2, descending=True).values @ (weights / weights.sum())


def class_token_contrast(
    class_tokens: Float[Tensor, "block batch class channel"], labels: Labels
) -> Float[Tensor, ""]:
    """Cross-entropy of the class tokens' cosines, each to itself, of the classes that are there.

    It is the mean over blocks and pictures (MCTformer+, engine.py).
    """
    cosines = F.normalize(class_tokens, dim=3)
    log_shares = (cosines @ cosines.mT).log_softmax(3)
    own = -log_shares.diagonal(dim1=2, dim2=3).mean(0)
    return ((own * labels).sum(1) / (labels.sum(1) + 1e-8)).mean()
