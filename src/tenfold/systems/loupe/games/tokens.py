"""Games of tokens that are summed: the cosine of their sum with a text, in closed form.

With z the sum of the tokens of a coalition S, v(S) = <z, t> / |z| for a text t of length 1, and 0
for none. All that is asked of S + i or S + R are inner products of tokens with each other and with
the text: a coalition is one row of a product with the tokens' Gram matrix, and none of its changes
is ever made.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from .draws import Draws, Estimate, Sampling, draw, until
from .exact import check_regions

TINY = 1e-12
"""Least squared length of a sum of tokens, by the longest's: shorter ones have values near 0."""
CACHED = 2**19
"""Numbers of an intermediate result on a CPU."""
DEFAULT = Sampling()


class SummedTokens:
    """Cosine of the sum of tokens with a text, as a score for every function of the games.

    It has no gradient.
    """

    def __init__(self, tokens: Float[Tensor, "token dim"], text: Float[Tensor, " dim"]) -> None:
        self.gram, dots = _products(tokens.detach(), text.detach()[None])
        self.dots = dots[:, 0]

    def __call__(self, masks: Bool[Tensor, "coalition token"]) -> Float[Tensor, " coalition"]:
        """Values of coalitions."""
        inside = masks.to(self.gram.dtype)
        return inside @ self.dots * _rsqrt((inside @ self.gram * inside).sum(1))

    def flipped(
        self, masks: Bool[Tensor, "draw token"]
    ) -> tuple[Float[Tensor, " draw"], Float[Tensor, "draw token"]]:
        """Values, and those with one token changed."""
        dot, square, sign, along = self._parts(masks)
        one_square = square[:, None] + 2 * sign * along + self.gram.diagonal()
        one = (dot[:, None] + sign * self.dots) * _rsqrt(one_square)
        return dot * _rsqrt(square), one.masked_fill(_becomes_empty(masks), 0)

    def flipped_twice(self, masks: Bool[Tensor, "draw token"]) -> Float[Tensor, "draw token token"]:
        """Values with two tokens changed."""
        dot, square, sign, along = self._parts(masks)
        alone = 2 * sign * along + self.gram.diagonal()
        both = 2 * sign[:, :, None] * sign[:, None] * self.gram
        two_square = square[:, None, None] + alone[:, :, None] + alone[:, None] + both
        change = sign * self.dots
        two = (dot[:, None, None] + change[:, :, None] + change[:, None]) * _rsqrt(two_square)
        inside = masks[:, :, None] & masks[:, None]
        return two.masked_fill(inside & (masks.sum(1) == 2)[:, None, None], 0)

    def joined(
        self, masks: Bool[Tensor, "region draw token"], regions: Bool[Tensor, "region token"]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Values of S, of S with its region, and the sum over members of those of S + i."""
        found = _joined(self.gram[None], self.dots[None, :, None], masks[None], regions[None])
        return found.alone[0, ..., 0], found.whole[0, ..., 0], found.members[0, ..., 0]

    def _parts(self, masks: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """<z, t>, |z|^2, what a change does to a token's sign, and <z, x_i>."""
        inside = masks.to(self.gram.dtype)
        along = inside @ self.gram
        return inside @ self.dots, (along * inside).sum(1), 1 - 2 * inside, along


def _rsqrt(square: Tensor) -> Tensor:
    """1 / length; of no tokens a number that makes the value 0, as their sum is."""
    return square.clamp(min=TINY).rsqrt()


def _becomes_empty(masks: Tensor) -> Tensor:
    return masks & (masks.sum(1, keepdim=True) == 1)


@dataclass(frozen=True)
class _Joined:
    alone: Float[Tensor, "image region draw text"]
    whole: Float[Tensor, "image region draw text"]
    members: Float[Tensor, "image region draw text"]


@dataclass(frozen=True)
class _Sums:
    """Of coalitions S: <z, t>, |z|^2 and <z, x_i>; and <z, t> and |z|^2 of S with its region."""

    dot: Float[Tensor, "image region draw text"]
    square: Float[Tensor, "image region draw"]
    along: Float[Tensor, "image region draw token"]
    whole_dot: Float[Tensor, "image region draw text"]
    whole_square: Float[Tensor, "image region draw"]


def _sums(
    gram: Float[Tensor, "image token token"],
    dots: Float[Tensor, "image token text"],
    masks: Bool[Tensor, "image region draw token"],
    regions: Bool[Tensor, "image region token"],
) -> _Sums:
    inside, region = masks.to(gram.dtype), regions.to(gram.dtype)
    both = inside.flatten(1, 2) @ torch.cat([gram, dots], 2)
    along, dot = both.view(*inside.shape[:3], -1).split([gram.shape[2], dots.shape[2]], 3)
    square = (along * inside).sum(3)
    whole = square + 2 * (along * region[:, :, None]).sum(3)
    whole = whole + (region @ gram * region).sum(2)[..., None]
    return _Sums(dot, square, along, dot + (region @ dots)[:, :, None], whole)


def _joined(
    gram: Float[Tensor, "image token token"],
    dots: Float[Tensor, "image token text"],
    masks: Bool[Tensor, "image region draw token"],
    regions: Bool[Tensor, "image region token"],
) -> _Joined:
    """What the brackets of regions are made of, where the score is the cosine with each text."""
    z = _sums(gram, dots, masks, regions)
    own = gram.diagonal(dim1=1, dim2=2)[:, None, None]
    one = z.along.mul_(2).add_(z.square[..., None]).add_(own)  # |z + x_i|^2, in its place
    one = one.clamp_(min=TINY).rsqrt_()
    # of the members alone: the sums of 1 / |z + x_i| and of <x_i, t> / |z + x_i|
    read = torch.cat([dots, torch.ones_like(dots[..., :1])], 2)[:, None] * regions[..., None]
    sums = one @ read
    return _Joined(
        z.dot * _rsqrt(z.square)[..., None],
        z.whole_dot * _rsqrt(z.whole_square)[..., None],
        z.dot * sums[..., -1:] + sums[..., :-1],
    )


def _contrasted(
    gram: Float[Tensor, "image token token"],
    dots: Float[Tensor, "image token text"],
    masks: Bool[Tensor, "image region draw token"],
    regions: Bool[Tensor, "image region token"],
    scale: float,
) -> _Joined:
    """The same where the score is the log-share of the first text, by softmax of scaled cosines."""
    z = _sums(gram, dots, masks, regions)

    def share(dot: Tensor, square: Tensor) -> Tensor:
        cosines = dot * _rsqrt(square)[..., None]
        return (scale * cosines).log_softmax(-1)[..., :1] + math.log(dots.shape[2])

    most = int(regions.sum(2).max())
    there, member = regions.byte().sort(dim=2, descending=True, stable=True)
    there, member = there[..., :most], member[..., :most]  # image region member
    along = z.along.gather(3, member[:, :, None].expand(-1, -1, masks.shape[2], -1))
    own = gram.diagonal(dim1=1, dim2=2)[:, None].expand(regions.shape).gather(2, member)
    image = torch.arange(len(dots), device=dots.device)[:, None, None]
    one = share(
        z.dot[..., None, :] + dots[image, member][:, :, None],
        z.square[..., None] + 2 * along + own[:, :, None],
    )
    members = (one * there[:, :, None, :, None]).sum(3)
    return _Joined(share(z.dot, z.square), share(z.whole_dot, z.whole_square), members)


def interactions(
    tokens: Float[Tensor, "image token dim"],
    texts: Float[Tensor, "image text dim"],
    regions: Bool[Tensor, "image region token"],
    plan: Sampling = DEFAULT,
    p: float | None = None,
    generator: torch.Generator | None = None,
    draws: Draws | None = None,
    contrast: float = 0.0,
) -> Estimate:
    """Multivariate interaction of each region of each image under each text; (image, region, text).

    The same coalitions serve all texts, so that differences between texts are of little variance.

    Args:
        tokens: Patches of each image; their lengths count.
        texts: One or more vectors an image; their lengths do not count.
        regions: Patches of each region.
        plan: How many coalitions and how they are drawn and when to stop.
        p: Probability of Banzhaf's weights; None: Shapley's.
        generator: On the device of `tokens`.
        draws: Coalitions that are given, groups (image, region).
        contrast: 0: the score is the cosine with each text. Else it is how far the logarithm of the
            first text's share is above that of an equal share, by softmax of cosines times this,
            and the result has one text.
    """
    check_regions(regions, tokens.shape[1])
    with torch.no_grad(), torch.autocast(tokens.device.type, enabled=False):
        gram, dots = _products(tokens, texts)
        outside = ~regions
        ends = torch.stack([torch.zeros_like(outside), outside], 2)

        def once() -> Estimate:
            drawn = draws or draw(outside, plan, p, generator)
            masks = torch.cat([drawn.masks, ends], 2)
            some = _images_at_once(masks, regions, texts.shape[1] if contrast else 0)
            brackets = []
            parts = (x.split(some) for x in (gram, dots, masks, regions))
            for products, along, inside, region in zip(*parts, strict=True):
                if contrast:
                    found = _contrasted(products, along, inside, region, contrast)
                else:
                    found = _joined(products, along, inside, region)
                factor = (region.sum(2) - 1)[..., None, None]
                brackets.append(found.whole + factor * found.alone - found.members)
            bracket = torch.cat(brackets).movedim(3, 0)
            mean = drawn.mean(bracket[..., :-2], bracket[..., -2:])
            error = mean.standard_error.movedim(0, 2)
            return Estimate(mean.value.movedim(0, 2), error, mean.samples)

        return once() if draws else until(once, plan)


def _images_at_once(
    masks: Bool[Tensor, "image region draw token"],
    regions: Bool[Tensor, "image region token"],
    texts: int,
) -> int:
    """Images whose intermediate results stay in a processor's cache; a GPU has more room.

    Each is a number for every token of every coalition, or for every member and text.
    """
    wide = max(masks.shape[3], texts * int(regions.sum(2).max()) if texts else 0)
    numbers = masks[0, ..., 0].numel() * wide
    room = CACHED if masks.device.type == "cpu" else 256 * CACHED
    return max(1, room // max(1, numbers))


def _products(
    tokens: Float[Tensor, "*image token dim"], texts: Float[Tensor, "*image text dim"]
) -> tuple[Float[Tensor, "*image token token"], Float[Tensor, "*image token text"]]:
    """Inner products of tokens, and with texts of length 1; the longest token has length 1.

    At least in single precision: what a region gains is a small difference of its parts.
    """
    kind = torch.promote_types(tokens.dtype, torch.float32)
    x = tokens.to(kind)
    x = x / x.norm(dim=-1, keepdim=True).amax(-2, keepdim=True).clamp(min=1e-30)
    return x @ x.mT, x @ F.normalize(texts.to(kind), dim=-1).mT
