"""UNSIL: a small network that predicts interactions, and how far its predictions may be off.

Inputs are those of the paper: the tokens of a region, those of its context, and the text. The
layers are ours, as are the details of when its prediction is trusted.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.distributed as dist
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from .games import Estimate


class Unsil(nn.Module):
    """Interaction of each region under a text, and the logarithm of its variance.

    Both are of interactions less their mean, by their standard deviation (see `Standard`).
    """

    def __init__(self, dim: int, hidden: int = 0) -> None:
        super().__init__()
        hidden = hidden or dim
        self.q = nn.Linear(dim, dim, bias=False)
        self.k = nn.Linear(dim, dim, bias=False)
        self.v = nn.Linear(dim, dim, bias=False)
        self.fc1 = nn.Linear(5 * dim + 1, hidden)
        self.fc2 = nn.Linear(hidden, hidden)
        self.out = nn.Linear(hidden, 2)

    def forward(
        self,
        tokens: Float[Tensor, "image token dim"],
        text: Float[Tensor, "image dim"],
        regions: Bool[Tensor, "image region token"],
    ) -> tuple[Float[Tensor, "image region"], Float[Tensor, "image region"]]:
        """Attention of the text over the region and over the rest, then an MLP."""
        members = regions.shape[2]
        scores = (self.k(tokens) @ self.q(text)[..., None])[..., 0] / math.sqrt(text.shape[1])
        values = self.v(tokens)
        region, context = (self._attended(scores, values, some) for some in (regions, ~regions))
        t = text[:, None].expand_as(region)
        # a game of one token has no size to tell
        size = regions.sum(2, keepdim=True).to(text.dtype).log() / math.log(max(members, 2))
        x = torch.cat([region, context, t, region * t, context * t, size], 2)
        found = self.out(F.gelu(self.fc2(F.gelu(self.fc1(x)))))
        return found[..., 0], found[..., 1]

    @staticmethod
    def _attended(scores: Tensor, values: Tensor, some: Tensor) -> Tensor:
        """Values by the softmax over some tokens; 0 if there are none."""
        weight = scores[:, None].masked_fill(~some, -torch.inf).softmax(2)
        return weight.nan_to_num(0) @ values


def sigma(log_variance: Tensor) -> Tensor:
    """Standard deviation that a prediction comes with."""
    return (log_variance / 2).exp()


def to_sample(
    deviation: Float[Tensor, "*region"],
    limit: float = 0.5,
    share: float = 0.05,
    always: bool = False,
    generator: torch.Generator | None = None,
) -> Bool[Tensor, "*region"]:
    """Return True where a game is sampled rather than predicted.

    Args:
        deviation: Of the predictions, by the standard deviation of interactions.
        limit: Deviation above which a prediction is not trusted.
        share: Part of the others that is sampled nevertheless, to see a prediction that drifts.
        always: Sample all, as in the first steps.
        generator: On the device of `deviation`.
    """
    chance = torch.rand(deviation.shape, generator=generator, device=deviation.device)
    return (deviation > limit) | (chance < share) | always


class Standard(nn.Module):
    """Running mean and standard deviation of interactions, equal on all processes."""

    mean: Tensor
    square: Tensor
    seen: Tensor

    def __init__(self, momentum: float = 0.01) -> None:
        super().__init__()
        self.momentum = momentum
        self.register_buffer("mean", torch.zeros(()))
        self.register_buffer("square", torch.ones(()))
        self.register_buffer("seen", torch.zeros((), dtype=torch.long))

    @torch.no_grad()
    def update(self, values: Float[Tensor, "*region"]) -> None:
        """Take the sampled interactions of a step into account; of every process, or none."""
        x = values.float()
        sums = torch.stack([x.sum(), x.square().sum(), x.new_tensor(float(x.numel()))])
        if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
            dist.all_reduce(sums)
        count = sums[2].clamp(min=1)
        # the mean of all steps until it is that of the last 1 / momentum
        step = torch.clamp(1 / (self.seen + 1.0), min=self.momentum) * (sums[2] > 0)
        self.mean.lerp_(sums[0] / count, step)
        self.square.lerp_(sums[1] / count, step)
        self.seen += (sums[2] > 0).long()

    @property
    def deviation(self) -> Tensor:
        """Standard deviation, above 0."""
        return (self.square - self.mean.square()).clamp(min=1e-16).sqrt()

    def standardised(self, values: Tensor) -> Tensor:
        """Interactions in the units of the predictor."""
        return (values - self.mean) / self.deviation

    def restored(self, values: Tensor) -> Tensor:
        """Interactions from the units of the predictor."""
        return values * self.deviation + self.mean


@dataclass(frozen=True)
class Hybrid:
    """Interactions of which some were sampled; a row an image, a column a region."""

    interaction: Float[Tensor, "image region"]
    """The estimate where it was sampled, else the prediction."""
    standard_error: Float[Tensor, "image region"]
    """Of the estimate, else the predicted deviation."""
    sampled: Bool[Tensor, "image region"]
    predicted: Float[Tensor, "image region"]
    """In the units of the predictor, with the logarithm of its variance: what it learns from."""
    log_variance: Float[Tensor, "image region"]


Game = Callable[[Tensor, Tensor], Estimate]
"""Numbers of images, and masks of their regions (image, region, token), to their interactions
(image, region): a game that is dear to play."""


def hybrid(
    network: Unsil,
    standard: Standard,
    tokens: Float[Tensor, "image token dim"],
    text: Float[Tensor, "image dim"],
    regions: Bool[Tensor, "image region token"],
    game: Game,
    always: bool = False,
    limit: float = 0.5,
    share: float = 0.05,
    generator: torch.Generator | None = None,
) -> Hybrid:
    """Predict all interactions, and sample those of which the predictor is unsure.

    The predictor's gradients stop at its inputs. Only the games of regions that are sampled are
    played: of images without one none, of the others as many as of the one with most.

    Args:
        network: The predictor.
        standard: Mean and deviation of interactions; the caller updates it.
        tokens: Of each image.
        text: Of each image.
        regions: Of each image, each with a token.
        game: Plays what is sampled.
        always: Sample all.
        limit: Deviation above which it is sampled (`to_sample`).
        share: Part of the others that is sampled (`to_sample`).
        generator: On the device of `tokens`.
    """
    predicted, log_variance = network(tokens.detach(), text.detach(), regions)
    deviation = sigma(log_variance.detach().float())
    sampled = to_sample(deviation, limit, share, always, generator)
    value = standard.restored(predicted.detach().float())
    error = deviation * standard.deviation
    images = sampled.any(1).nonzero()[:, 0]
    if len(images):
        most = int(sampled.sum(1).max())
        order = sampled[images].byte().sort(dim=1, descending=True, stable=True)
        there, column = order.values[:, :most].bool(), order.indices[:, :most]
        found = game(images, regions[images[:, None], column])
        at = (images[:, None].expand_as(column)[there], column[there])
        value[at] = found.value[there].to(value.dtype)
        error[at] = found.standard_error[there].to(error.dtype)
    return Hybrid(value, error, sampled, predicted, log_variance)
