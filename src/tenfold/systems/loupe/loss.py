"""Losses of LOUPE: contrastive, of tokens (L_TSA), of semantics (L_FSA), and of its predictor.

Where several processes share a batch, its images are compared with the texts of all.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor

EPS = 1e-6
"""Confidences are kept this far from 0 and 1."""
LOG_VARIANCE = (-14.0, 4.0)
"""Limits of the logarithm of a predicted variance."""
MAX_SCALE = 100.0
"""Largest factor on cosines (CLIP)."""


def gathered(x: Tensor) -> Tensor:
    """Rows of all processes in their order, with gradients to each."""
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return x
    found: Tensor = _Gather.apply(x)
    return found


class _Gather(torch.autograd.Function):
    """All rows; on the way back each process has the sum of what all make of its rows."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        parts = [torch.empty_like(x) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, x.contiguous())
        ctx.rows = slice(dist.get_rank() * len(x), (dist.get_rank() + 1) * len(x))
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        total = gradient.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total[ctx.rows]


def contrastive_loss(
    images: Float[Tensor, "pair dim"],
    texts: Float[Tensor, "pair dim"],
    scale: Float[Tensor, ""] | float,
    captions: Int64[Tensor, " pair"] | None = None,
) -> Float[Tensor, ""]:
    """L_CMC: cross-entropy of cosines by image and by text, the mean of the two (CLIP).

    Args:
        images: Vectors of this process's images, of length 1.
        texts: Those of their texts.
        scale: Factor on cosines, at most 100.
        captions: Number of each caption; equal captions are not each other's negatives.
    """
    of_images = images @ gathered(texts).T
    of_texts = texts @ gathered(images).T
    return pair_loss(of_images, of_texts, scale, captions)


def pair_loss(
    of_images: Float[Tensor, "pair text"],
    of_texts: Float[Tensor, "pair image"],
    scale: Float[Tensor, ""] | float,
    captions: Int64[Tensor, " pair"] | None = None,
) -> Float[Tensor, ""]:
    """The same of any similarities of this process's rows with those of all processes."""
    count = len(of_images)
    rank = dist.get_rank() if of_images.shape[1] != count else 0
    own = torch.arange(count, device=of_images.device) + rank * count
    factor = scale.clamp(max=MAX_SCALE) if isinstance(scale, Tensor) else min(scale, MAX_SCALE)
    rows = [factor * of_images, factor * of_texts]
    if captions is not None:
        same = captions[:, None] == gathered(captions)
        same[torch.arange(count, device=same.device), own] = False
        rows = [row.masked_fill(same, -torch.inf) for row in rows]
    return (F.cross_entropy(rows[0], own) + F.cross_entropy(rows[1], own)) / 2


def fine_similarities(
    patches: Float[Tensor, "image patch dim"],
    words: Float[Tensor, "text word dim"],
    is_word: Bool[Tensor, "text word"],
) -> tuple[Float[Tensor, "image text"], Float[Tensor, "image text"]]:
    """Mean over patches of the best word, and over words of the best patch (FILIP, eq. 4 and 5).

    Words of padding count on neither side; a text has at least one word.
    """
    x, y = F.normalize(patches, dim=2), F.normalize(words, dim=2)
    alike = x.flatten(0, 1) @ y.flatten(0, 1).T
    alike = alike.view(*x.shape[:2], *y.shape[:2])  # image patch text word
    # the places of maxima: their gradient is written to one number of each row, not to all
    best_word = alike.masked_fill(~is_word, -torch.inf).max(3).values
    best_patch = alike.max(1).values * is_word
    return best_word.mean(1), best_patch.sum(2) / is_word.sum(1)


def fine_loss(
    patches: Float[Tensor, "pair patch dim"],
    words: Float[Tensor, "pair word dim"],
    is_word: Bool[Tensor, "pair word"],
    scale: Float[Tensor, ""] | float,
    captions: Int64[Tensor, " pair"] | None = None,
) -> Float[Tensor, ""]:
    """The contrastive loss of FILIP's similarities."""
    if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
        by_image = fine_similarities(patches, gathered(words), gathered(is_word))[0]
        by_text = fine_similarities(gathered(patches), words, is_word)[1].T
    else:
        by_image, by_text = fine_similarities(patches, words, is_word)
        by_text = by_text.T
    return pair_loss(by_image, by_text, scale, captions)


def token_targets(
    interaction: Float[Tensor, "image region"], counted: Bool[Tensor, "image region"] | None = None
) -> Float[Tensor, "image region"]:
    """Interactions of each image's regions on a scale from 0 (its lowest) to 1 (its highest).

    Args:
        interaction: J(R), by the members less one: larger regions have larger interactions.
        counted: False for regions that set neither end.
    """
    if counted is None:
        low, high = interaction.amin(1, keepdim=True), interaction.amax(1, keepdim=True)
    else:
        low = interaction.masked_fill(~counted, torch.inf).amin(1, keepdim=True)
        high = interaction.masked_fill(~counted, -torch.inf).amax(1, keepdim=True)
    # an image of which no region counts has no ends
    return ((interaction - low) / (high - low + 1e-8)).clamp(0, 1).nan_to_num(0).detach()


def is_clear(
    interaction: Float[Tensor, "image region"],
    standard_error: Float[Tensor, "image region"],
    counted: Bool[Tensor, "image region"],
) -> Bool[Tensor, " image"]:
    """Return True for images whose interactions differ by more than twice their mean error.

    On the scale from 0 to 1 noise alone would make a target of one region 1 and of another 0.
    """
    low = interaction.masked_fill(~counted, torch.inf).amin(1)
    high = interaction.masked_fill(~counted, -torch.inf).amax(1)
    error = (standard_error * counted).sum(1) / counted.sum(1).clamp(min=1)
    return (high - low > 2 * error) & (counted.sum(1) > 1)


def token_loss(
    confidence: Float[Tensor, "image region"],
    target: Float[Tensor, "image region"],
    counted: Bool[Tensor, "image region"] | None = None,
) -> Float[Tensor, ""]:
    """L_TSA: cross-entropy of regions' confidences with their targets, the mean over regions."""
    s = confidence.clamp(EPS, 1 - EPS)
    loss = -(target * s.log() + (1 - target) * (1 - s).log())
    if counted is None:
        return loss.mean()
    return (loss * counted).sum() / counted.sum().clamp(min=1)


def semantic_loss(
    shares: Float[Tensor, "image region phrase"], target: Float[Tensor, "image region phrase"]
) -> Float[Tensor, ""]:
    """L_FSA: cross-entropy of regions' shares with their targets; regions without one are left out.

    The targets follow from the shares themselves and have no gradient.
    """
    target = target.detach()
    log = torch.where(target > 0, shares, 1).clamp(min=1e-30).log()
    rows = (target.sum(2) > 0).sum()
    return -(target * log).sum() / rows.clamp(min=1)


def predictor_loss(
    predicted: Float[Tensor, "*region"],
    log_variance: Float[Tensor, "*region"],
    interaction: Float[Tensor, "*region"],
    sampled: Bool[Tensor, "*region"] | None = None,
) -> Float[Tensor, ""]:
    """L_UNSIL: Gaussian negative log-likelihood of sampled interactions, less a constant."""
    s = log_variance.clamp(*LOG_VARIANCE)
    loss = ((-s).exp() * (interaction.detach() - predicted).square() + s) / 2
    if sampled is None:
        return loss.mean()
    return (loss * sampled).sum() / sampled.sum().clamp(min=1)


def box_loss(
    log_probability: Float[Tensor, "image region"],
    reward: Float[Tensor, "image region"],
    counted: Bool[Tensor, "image region"],
) -> Float[Tensor, ""]:
    """REINFORCE of `regions.jittered`: reward less its mean over the image's regions."""
    mean = (reward * counted).sum(1, keepdim=True) / counted.sum(1, keepdim=True).clamp(min=1)
    gain = ((reward - mean) * counted).detach()
    return -(gain * log_probability).sum() / counted.sum().clamp(min=1)
