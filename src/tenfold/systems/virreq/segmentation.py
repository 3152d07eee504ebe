"""The network of Type-I requests: what the pixels of a unit are, among concepts given as text.

An encoder (official: a Mix Transformer), SegFormer's head, and the text classifier in place of its
last layer
(ViRReq, arXiv 2207.14227, sec. 3.3; official: mmseg/models/decode_heads/decode_head_cpp_part.py).
A logit is a cosine times one learned temperature, so that it depends on its own concept alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int16, Int64
from torch import Tensor, nn

from tenfold.nn.aspp import ConvNorm
from tenfold.nn.bilinear import Between, between
from tenfold.nn.encoders import LiteEncoder
from tenfold.nn.mit import EPS, MitSize, MixTransformer
from tenfold.nn.segformer import NormedFusion

from .table import TextTable

SMALLEST = 32
"""Pixels of a side of a picture: the first attention joins 8 x 8 cells of 4 pixels."""
FIRST_TEMPERATURE = 1 / 0.07
"""What training begins with, as CLIP's did."""
BLOCK = 32
"""Names whose logits are one matrix product at inference. Every product has this many, so that what
is computed for a name is the same sum, bit for bit, beside whichever others it stands."""
TINY = 1e-12
"""Least length of a pixel's features. Where dropout and ReLU leave none, logits are 0; the official
code divides by 0."""
VOID, OTHERS = -1, 0
"""In an answer: outside of the unit, and none of the concepts."""


Backbone = MixTransformer | LiteEncoder


def mix_transformer(sizes: MitSize, drop_path: float = 0.1) -> MixTransformer:
    """The official encoder: all norms with mmsegmentation's eps."""
    return MixTransformer(*sizes, drop_path=drop_path, patch_eps=EPS)


class Encoded(NamedTuple):
    """What is kept of a picture: a request on it costs a matrix product."""

    pixels: Float[Tensor, "rows columns dim"]
    """Features of the 1/4 map's cells, of length 1."""
    size: tuple[int, int]
    """Height and width of the picture."""


class Answer(NamedTuple):
    """What a request found inside a unit."""

    labels: Int16[Tensor, "height width"]
    """Numbers of concepts from 1, in the order of the request; 0 is others, -1 outside the unit."""
    scores: Float[Tensor, " concept"]
    """Mean probability of each concept over the pixels that are its own; 0 where it has none."""


def cosines(
    pixels: Float[Tensor, "*cell dim"], texts: Float[Tensor, "name dim"]
) -> Float[Tensor, "*cell name"]:
    """Products with each text's vector; without gradients in blocks of `BLOCK` names."""
    if torch.is_grad_enabled():
        return F.linear(pixels, texts)
    count = len(texts)
    padded = F.pad(texts, (0, 0, 0, -count % BLOCK))
    found = [F.linear(pixels, block) for block in padded.split(BLOCK)]
    return torch.cat(found, -1)[..., :count]


class TextClassifier(nn.Module):
    """Cosines of pixels with texts, times a learned temperature."""

    def __init__(
        self,
        channels: int,
        dim: int = 512,
        dropout: float = 0.1,
        most: float = 100.0,
        half: bool = False,
    ) -> None:
        """`channels` of the head become the `dim` of the texts; `most` is the largest temperature,
        0 for none (official); `half` multiplies in float16 (official on a GPU)."""
        super().__init__()
        self.channel_transform = ConvNorm(channels, dim, 3)
        self.dropout = nn.Dropout2d(dropout)
        self.logit_scale = nn.Parameter(torch.tensor(math.log(FIRST_TEMPERATURE)))
        self.most, self.half_product = most, half

    def temperature(self) -> Float[Tensor, ""]:
        """The factor of cosines."""
        found = self.logit_scale.exp()
        return found.clamp(max=self.most) if self.most else found

    def features(
        self, x: Float[Tensor, "batch channel rows columns"]
    ) -> Float[Tensor, "batch rows columns dim"]:
        """Pixels in the space of the texts, of any length."""
        return self.dropout(self.channel_transform(x)).permute(0, 2, 3, 1)

    def unit(self, vectors: Float[Tensor, "name dim"]) -> Float[Tensor, "name dim"]:
        """Vectors of texts at length 1, in the precision of the product."""
        if not self.half_product:
            return F.normalize(vectors, dim=-1)
        short = vectors.half()
        return short / short.norm(dim=-1, keepdim=True)

    def logits(
        self, pixels: Float[Tensor, "*cell dim"], vectors: Float[Tensor, "name dim"]
    ) -> Float[Tensor, "*cell name"]:
        """Logits of pixels of length 1."""
        texts = self.unit(vectors)
        if self.half_product:
            return cosines(self.temperature() * pixels.half(), texts).float()
        return cosines(pixels, texts) * self.temperature()

    def forward(
        self, x: Float[Tensor, "batch channel rows columns"], vectors: Float[Tensor, "name dim"]
    ) -> Float[Tensor, "batch name rows columns"]:
        """Logits of a map of the head, for vectors of texts of any length."""
        pixels = self.features(x)
        length = torch.linalg.vector_norm(pixels, dim=-1, keepdim=True).clamp(min=TINY)
        if self.half_product:
            found = self.logits(pixels / length, vectors)
        else:  # divided where there are fewer numbers
            found = cosines(pixels, self.unit(vectors)) * (self.temperature() / length)
        return found.permute(0, 3, 1, 2)


class Network(nn.Module):
    """Pictures to logits of concepts at 1/4 of their size."""

    def __init__(
        self,
        backbone: Backbone,
        channels: int,
        classifier: TextClassifier,
        texts: TextTable,
    ) -> None:
        """`channels` are those of the head, before the classifier's."""
        super().__init__()
        self.backbone = backbone
        self.decode_head = NormedFusion(backbone.dims, channels)
        self.classifier = classifier
        self.texts = texts

    def fused(
        self, images: Float[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, "batch channel rows columns"]:
        """Features of the head, of all levels."""
        return self.decode_head(self.backbone(images))

    def forward(
        self,
        images: Float[Tensor, "batch 3 height width"],
        names: Sequence[str] | None = None,
    ) -> Float[Tensor, "batch name rows columns"]:
        """Logits of these concepts, or of all in the table."""
        return self.classifier(self.fused(images), self.texts.rows_of(names))

    @torch.no_grad()
    def encode(self, image: Float[Tensor, "3 height width"]) -> Encoded:
        """What requests on a picture need of it; ValueError for one of less than 32 pixels."""
        if min(image.shape[1:]) < SMALLEST:
            raise ValueError(
                f"a picture of {image.shape[1]} x {image.shape[2]} pixels is too small for the "
                f"network; its sides need {SMALLEST} at least"
            )
        pixels = self.classifier.features(self.fused(image[None]))[0]
        return Encoded(F.normalize(pixels, dim=-1, eps=TINY), (image.shape[1], image.shape[2]))

    @torch.no_grad()
    def answer(
        self,
        encoded: Encoded,
        vectors: Float[Tensor, "name dim"],
        unit: Bool[Tensor, "height width"] | None = None,
    ) -> Answer:
        """The pixels of a unit (of the whole picture without one) among concepts and others.

        Only the logits of these concepts in the unit's box are computed.
        """
        height, width = encoded.size
        labels = torch.full((height, width), VOID, dtype=torch.int16)
        scores = torch.zeros(len(vectors))
        if unit is None:
            unit = torch.ones(height, width, dtype=torch.bool)
        rows, columns = (_span(unit.any(axis)) for axis in (1, 0))
        if rows is None or columns is None or not len(vectors):
            return Answer(labels.masked_fill(unit, OTHERS), scores)
        down = between(rows, height, encoded.pixels.shape[0])
        across = between(columns, width, encoded.pixels.shape[1])
        cells = encoded.pixels[down.first : down.last, across.first : across.last]
        logits = F.pad(self.classifier.logits(cells, vectors), (1, 0))  # others is 0
        best, inside = largest(logits, down, across), unit[rows, columns]
        labels[rows, columns] = torch.where(inside, best, VOID).to(torch.int16)
        # probabilities of the nearest cells
        chances = logits.softmax(-1)[down.nearest()[:, None], across.nearest(), best] * inside
        count = torch.bincount(torch.where(inside, best, 0).flatten(), minlength=len(vectors) + 1)
        total = torch.bincount(best.flatten(), chances.flatten(), len(vectors) + 1)
        return Answer(labels, (total / count.clamp(min=1))[1:].float())


def _span(filled: Bool[Tensor, " side"]) -> slice | None:
    """From the first to the last True."""
    places = filled.nonzero()
    return slice(int(places[0]), int(places[-1]) + 1) if len(places) else None


def largest(
    logits: Float[Tensor, "rows columns name"], down: Between, across: Between
) -> Int64[Tensor, "height width"]:
    """The name of the largest enlarged logit of each pixel; the first of equals.

    A name is enlarged only where it can be the largest, a plane at a time.
    """
    possible = candidates(logits)
    few = possible.flatten(0, 1).any(0).nonzero()[:, 0]
    by_name = logits.permute(2, 1, 0).index_select(0, few).contiguous()
    tall = by_name @ down.matrix()  # name, column of cells, height
    best = tall.new_zeros(len(across.low), len(down.low))
    found = torch.zeros(best.shape, dtype=torch.int16)
    share = across.share[:, None]
    for plane, name, x in zip(
        tall, few.tolist(), _reach(possible.any(0), few, across), strict=True
    ):
        if name == OTHERS:  # whose logit is 0
            continue
        large = torch.lerp(
            plane.index_select(0, across.low[x]), plane.index_select(0, across.high[x]), share[x]
        )
        own = best[x]
        found[x].masked_fill_(large > own, name)
        torch.maximum(own, large, out=own)
    return found.T.long()


def candidates(
    logits: Float[Tensor, "rows columns name"],
) -> Bool[Tensor, "places_down places_across name"]:
    """Names that can be the largest somewhere between four cells.

    What lies between cells is at most the largest of them, and at least the smallest; so a name is
    out where another's smallest is above its largest.
    """
    highest = lowest = logits
    for axis in (0, 1):
        if logits.shape[axis] > 1:
            size = logits.shape[axis] - 1
            highest = torch.maximum(highest.narrow(axis, 0, size), highest.narrow(axis, 1, size))
            lowest = torch.minimum(lowest.narrow(axis, 0, size), lowest.narrow(axis, 1, size))
    return highest >= lowest.amax(-1, keepdim=True)


def _reach(
    possible: Bool[Tensor, "place name"], few: Int64[Tensor, " few"], side: Between
) -> list[slice]:
    """From the first to the last pixel of a side at which each of a few names is possible."""
    first = possible.int().argmax(0)[few]
    last = len(possible) - 1 - possible.flip(0).int().argmax(0)[few]
    low = side.low.clamp(max=len(possible) - 1)  # the last cell is in no place of its own
    ends = zip(
        torch.searchsorted(low, first).tolist(),
        torch.searchsorted(low, last, right=True).tolist(),
        strict=True,
    )
    return [slice(*one) for one in ends]
