"""USAGE's exact dense CRF against a plain mean field in torch with both kernels whole.

One process, one thread, float32, a picture of 80 x 80 pixels, 7 labels, PSA's weights, 10 steps.
The plain computation makes both n x n kernels once, normalises them, and multiplies both with the
probabilities [pixel, class] in every step. The results are compared first. Times are those of the
processor, so that a busy machine changes them little. The rate counts all pairs of the bilateral
kernel (n x n x classes x 2 operations a step) for the plain side, and those that ours multiplies
for ours, beside the rate of one large product.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from rates import square_product
from torch import Tensor

from tenfold.systems.usage.crf import CLIP, PSA, CrfOptions, MeanField, dense_crf

SIDE, LABELS = 80, 7


def plain_mean_field(image: Tensor, probabilities: Tensor, options: CrfOptions) -> Tensor:
    """Mean field with whole kernels."""
    height, width = image.shape[:2]
    rows, columns = torch.meshgrid(
        torch.arange(float(height)), torch.arange(float(width)), indexing="ij"
    )
    place = torch.stack([rows.flatten(), columns.flatten()], 1)
    colour = image.reshape(-1, 3).float()
    both = torch.cat([place / options.bilateral_sxy, colour / options.bilateral_srgb], 1)
    smooth = torch.exp(-0.5 * torch.cdist(place, place).square() / options.gaussian_sxy**2)
    bilateral = torch.exp(-0.5 * torch.cdist(both, both).square())
    kernels = []
    for kernel in (smooth, bilateral):
        norm = kernel.sum(1).rsqrt()
        kernels.append(norm[:, None] * kernel * norm)
    energy = -probabilities.clamp(CLIP, 1).log().flatten(1).T
    found = (-energy).softmax(1)
    for _ in range(options.iterations):
        message = options.gaussian_compat * (kernels[0] @ found)
        message += options.bilateral_compat * (kernels[1] @ found)
        found = (message - energy).softmax(1)
    return found.T.reshape(probabilities.shape)


def scene(side: int = SIDE, labels: int = LABELS) -> tuple[Tensor, Tensor]:
    """A picture of discs, shades and noise, and blurred guesses of what is where."""
    generator = torch.Generator().manual_seed(0)
    y, x = torch.meshgrid(torch.linspace(0, 1, side), torch.linspace(0, 1, side), indexing="ij")
    image = torch.stack([80 + 60 * x, 90 + 50 * y, 120 - 40 * x * y], -1)
    logits = torch.zeros(labels, side, side)
    for label in range(1, labels):
        at, size = (
            torch.rand(2, generator=generator),
            0.1 + 0.1 * torch.rand(1, generator=generator),
        )
        far = ((y - at[0]).square() + (x - at[1]).square()).sqrt()
        colour = 255 * torch.rand(3, generator=generator)
        image = torch.where((far < size)[..., None], colour, image)
        logits[label] = 3 * (1.3 - far / size)
    image = image + 10 * torch.randn(side, side, 3, generator=generator)
    return image.clamp(0, 255).round().to(torch.uint8), logits.softmax(0)


@dataclass(frozen=True)
class Timed:
    """Seconds of the best of some rounds."""

    seconds: float
    result: Any


def timed(work: Callable[[], Any], rounds: int) -> Timed:
    """Processor time of the fastest round."""
    best, result = float("inf"), None
    for _ in range(rounds):
        start = time.process_time()
        result = work()
        best = min(best, time.process_time() - start)
    return Timed(best, result)


def measure(rounds: int = 3, options: CrfOptions = PSA) -> dict[str, float]:
    """Seconds of both sides, their ratio, largest difference and rates in Gflop/s."""
    image, probabilities = scene()
    plain = timed(lambda: plain_mean_field(image, probabilities, options), rounds)
    ours = timed(lambda: dense_crf(image, probabilities, options), rounds)
    field = MeanField(image, options)
    energy = -probabilities.clamp(CLIP, 1).log()
    step = timed(lambda: field._messages((-energy[None]).softmax(1)), rounds * 3).seconds
    places = field.kernel.places
    pairs = sum(
        (end - start) * (2 * len(columns) - (end - start))
        for (start, end), columns in zip(places.spans, field.kernel.columns, strict=True)
    )
    large = square_product(clock=time.process_time) / 1e9
    rate = 2 * pairs * LABELS / step / 1e9
    return {
        "plain_s": plain.seconds,
        "ours_s": ours.seconds,
        "ratio": plain.seconds / ours.seconds,
        "largest_difference": float((plain.result - ours.result).abs().max()),
        "share_of_pairs": pairs / SIDE**4,
        "step_gflops": rate,
        "large_product_gflops": large,
        "share_of_large_product": rate / large,
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    for name, value in measure().items():
        print(f"{name} {value:.4g}")
