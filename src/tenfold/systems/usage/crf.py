"""Dense CRF by exact mean field, without a compiled wheel.

Every pixel is paired with every other by a Gaussian of distance and a bilateral Gaussian of
distance and colour (Kraehenbuehl and Koltun 2011), Potts compatibility, both kernels normalised on
both sides, a pixel's own weight included. pydensecrf computes the same sums on a lattice, with
errors up to 0.1 in a probability.

The n x n bilateral kernel is never whole in memory: pixels are sorted into compact boxes of
position and colour, boxes so far apart that a pair's weight is below e^-23 are left out, of the
rest one triangle is made, as one product a box, and kept as far as `kernel_mb` allows; what does
not fit is made again in every step. All classes go through one product, with classes in rows: a
product of few columns is several times slower on a CPU. The Gaussian is separable and needs none.
Pictures of more than `max_pixels` are solved on a reduced grid of about so many cells; only the
last step, whose messages come from that grid, is made for every pixel.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64, Shaped, UInt8
from torch import Tensor

BOX = 256
"""Pixels of a box: 256 x 256 float32 fit a core's cache, and boxes stay compact."""
FAR = 23.0
"""Pairs of weight below e^-23 (1e-10) are left out: all of 100,000 weigh 1e-5 of a pixel's own."""
CLIP = 1e-5
"""Least probability (unary_from_softmax of pydensecrf)."""

Values = Float[Tensor, "row pixel"]


@dataclass(frozen=True)
class CrfOptions:
    """The dense CRF: weights of its kernels and how its unary energies are made."""

    iterations: int = 10
    """Steps of mean field (PSA and IRN: 10)."""
    gaussian_sxy: float = 3.0
    """Standard deviation of the smoothness kernel, in pixels."""
    gaussian_compat: float = 3.0
    """Weight of the smoothness kernel."""
    bilateral_sxy: float = 80.0
    """Standard deviation of the appearance kernel's distance, in pixels (PSA: 80; IRN: 50)."""
    bilateral_srgb: float = 13.0
    """Standard deviation of the appearance kernel's colour, in steps of 255 (PSA: 13; IRN: 5)."""
    bilateral_compat: float = 10.0
    """Weight of the appearance kernel."""
    unary: Literal["probabilities", "labels"] = "probabilities"
    """What is given: probabilities (PSA), or a label map (IRN)."""
    gt_prob: float = 0.7
    """Probability of the given label where labels are given (IRN)."""
    max_pixels: int = 16_384
    """Pictures of more pixels are solved on a reduced grid: an approximation, but for its size."""
    kernel_mb: int = 1024
    """Memory for the kernel; what does not fit is computed again in every step."""

    def __post_init__(self) -> None:
        for name in ("gaussian_sxy", "bilateral_sxy", "bilateral_srgb"):
            if not getattr(self, name) > 0:
                raise ValueError(f"crf.{name} must be above 0, got {getattr(self, name)}")
        if self.iterations < 0:
            raise ValueError(f"crf.iterations must be at least 0, got {self.iterations}")
        if not 0 < self.gt_prob < 1:
            raise ValueError(f"crf.gt_prob must be between 0 and 1, got {self.gt_prob}")
        if self.max_pixels < 1:
            raise ValueError(f"crf.max_pixels must be at least 1, got {self.max_pixels}")


PSA = CrfOptions()
"""crf_inference of jiwoon-ahn/psa (tool/imutils.py)."""
IRN = CrfOptions(bilateral_sxy=50.0, bilateral_srgb=5.0, unary="labels")
"""crf_inference_label of jiwoon-ahn/irn (misc/imutils.py)."""


def dense_crf(
    image: UInt8[Tensor, "height width 3"],
    probabilities_or_labels: Shaped[Tensor, "..."],
    options: CrfOptions = PSA,
    num_labels: int = 0,
) -> Float[Tensor, "class height width"]:
    """Probabilities of every label after mean field.

    Given are probabilities [class, height, width] or, as `options.unary` says, a label map
    [height, width] of `num_labels` labels (0: as many as it holds, at least two).
    """
    given = probabilities_or_labels
    if given.shape[-2:] != image.shape[:2] or given.ndim != 3 - (options.unary == "labels"):
        raise ValueError(
            f"{options.unary} of shape {tuple(given.shape)} do not fit a picture of "
            f"{image.shape[0]}x{image.shape[1]}"
        )
    if options.unary == "labels":
        energy = label_energy(given.long(), options.gt_prob, num_labels)
    else:
        energy = -given.float().clamp(CLIP, 1).log()
    return MeanField(image, options).run(energy[None])[0]


def label_energy(
    labels: Int64[Tensor, "height width"], gt_prob: float, num_labels: int = 0
) -> Float[Tensor, "class height width"]:
    """Energies where the given label has probability `gt_prob`, all others share the rest."""
    num_labels = num_labels or max(2, int(labels.max()) + 1)
    low, high = int(labels.min()), int(labels.max())
    if not 0 <= low <= high < num_labels:
        raise ValueError(f"labels reach {low}..{high}, allowed are 0..{num_labels - 1}")
    given = F.one_hot(labels, num_labels).permute(2, 0, 1).bool()
    other = -math.log((1 - gt_prob) / max(1, num_labels - 1))
    return torch.where(given, -math.log(gt_prob), other)


class MeanField:
    """Kernels of one picture, for any number of unary energies: they are made once."""

    def __init__(self, image: UInt8[Tensor, "height width 3"], options: CrfOptions) -> None:
        """Sort pixels (or cells of the reduced grid) and make their kernel."""
        self.options = options
        self.height, self.width = image.shape[:2]
        share = min(1.0, math.sqrt(options.max_pixels / (self.height * self.width)))
        self.rows = max(1, int(self.height * share))
        self.columns = max(1, int(self.width * share))
        self.exact = share == 1.0
        self.image = image.permute(2, 0, 1).float()
        colours = self.image if self.exact else self._reduced(self.image)
        self.places = Boxes(self._features(colours, self.rows, self.columns))
        self.kernel = Kernel(self.places, options.kernel_mb)
        ones = self.kernel(colours.new_ones(1, self.rows * self.columns))
        self.bilateral_norm = ones.rsqrt()
        self.smooth = self._smoothing(self.rows, self.columns)

    def run(
        self, energy: Float[Tensor, "batch class height width"]
    ) -> Float[Tensor, "batch class height width"]:
        """Probabilities after the steps of mean field, for several unary energies at once."""
        options = self.options
        coarse = energy if self.exact else self._reduced(energy)
        found = (-coarse).softmax(1)
        for _ in range(options.iterations - (not self.exact)):
            found = (self._messages(found) - coarse).softmax(1)
        if self.exact or not options.iterations:
            return found if self.exact else (-energy).softmax(1)
        return (self._last_messages(found) - energy).softmax(1)

    def _reduced(self, maps: Tensor) -> Tensor:
        """Mean over the pixels of every cell."""
        return F.adaptive_avg_pool2d(maps, (self.rows, self.columns))

    def _centres(self, rows: int, columns: int) -> tuple[Tensor, Tensor]:
        """Centres of rows and of columns of a grid, in pixels of the picture."""
        down = (torch.arange(rows, device=self.image.device) + 0.5) * (self.height / rows)
        right = (torch.arange(columns, device=self.image.device) + 0.5) * (self.width / columns)
        return down, right

    def _features(self, colours: Tensor, rows: int, columns: int) -> Float[Tensor, "pixel 5"]:
        """Position and colour of every pixel, in standard deviations of the bilateral kernel."""
        places = torch.stack(torch.meshgrid(*self._centres(rows, columns), indexing="ij"))
        options = self.options
        parts = [places / options.bilateral_sxy, colours / options.bilateral_srgb]
        return torch.cat(parts).flatten(1).T.contiguous()

    def _smoothing(self, rows: int, columns: int) -> tuple[Tensor, Tensor]:
        """The Gaussian kernel's factors along rows and columns, normalised."""
        factors = []
        for centres in self._centres(rows, columns):
            distance = (centres[:, None] - centres) / self.options.gaussian_sxy
            weights = (-0.5 * distance.square()).exp()
            norm = weights.sum(1).rsqrt()
            factors.append(norm[:, None] * weights * norm)
        return factors[0], factors[1]

    def _messages(self, found: Tensor) -> Tensor:
        """What all pixels of the grid say of each, weighted: compat * K q of both kernels."""
        flat = found.flatten(2).flatten(0, 1) * self.bilateral_norm
        bilateral = (self.kernel(flat) * self.bilateral_norm).view_as(found)
        down, right = self.smooth
        smooth = down @ found @ right
        return self.options.bilateral_compat * bilateral + self.options.gaussian_compat * smooth

    def _last_messages(self, found: Tensor) -> Tensor:
        """What the cells of the grid say of every pixel of the picture."""
        pixels = Boxes(self._features(self.image, self.height, self.width))
        flat = found.flatten(2).flatten(0, 1) * self.bilateral_norm
        sums = across(pixels, self.places, torch.cat([torch.ones_like(flat[:1]), flat]))
        bilateral = sums[1:] * sums[:1].clamp_min(1e-30).rsqrt()
        size = (self.height, self.width)
        bilateral = bilateral.view(*found.shape[:2], *size)
        finer = F.interpolate(found, size, mode="bilinear", align_corners=False)
        down, right = self._smoothing(*size)
        smooth = down @ finer @ right
        return self.options.bilateral_compat * bilateral + self.options.gaussian_compat * smooth


class Boxes:
    """Points sorted into boxes of at most `BOX`, each compact: halved along its longest side."""

    def __init__(self, points: Float[Tensor, "pixel feature"]) -> None:
        """Sort points."""
        waiting, boxes = [torch.arange(len(points), device=points.device)], []
        while waiting:
            rows = waiting.pop()
            if len(rows) <= BOX:
                boxes.append(rows)
                continue
            inside = points[rows]
            side = int((inside.amax(0) - inside.amin(0)).argmax())
            rows = rows[inside[:, side].argsort()]
            # whole boxes on the left: all but one are full, so that there are as few as possible
            half = BOX * ((-(-len(rows) // BOX)) // 2)
            waiting += [rows[half:], rows[:half]]
        self.order = torch.cat(boxes)
        """Point at each sorted place."""
        self.points = points[self.order]
        ends = [0]
        for box in boxes:
            ends.append(ends[-1] + len(box))
        self.spans = list(zip(ends[:-1], ends[1:], strict=True))
        """First sorted place of every box, and the one after its last."""
        self.low = torch.stack([self.points[a:b].amin(0) for a, b in self.spans])
        self.high = torch.stack([self.points[a:b].amax(0) for a, b in self.spans])

    def near(self, box: int, other: Boxes, first: int = 0) -> list[int]:
        """Boxes of `other`, from `first` on, that hold a point near enough to count."""
        low, high = other.low[first:], other.high[first:]
        gap = torch.maximum(self.low[box] - high, low - self.high[box]).clamp(min=0)
        return [first + int(i) for i in (gap.square().sum(1) < 2 * FAR).nonzero()[:, 0]]

    def columns(self, boxes: list[int]) -> Int64[Tensor, " place"]:
        """Sorted places of these boxes."""
        device = self.points.device
        return torch.cat([torch.arange(*self.spans[box], device=device) for box in boxes])


def weights_between(
    rows: Float[Tensor, "row feature"], columns: Float[Tensor, "column feature"]
) -> Float[Tensor, "row column"]:
    """exp(-distance^2 / 2) of all pairs: one product and one exponential, in place."""
    # near the rows' middle, where weights matter, squares are small: no digits are lost
    middle = rows.mean(0)
    rows, columns = rows - middle, columns - middle
    one = torch.ones_like(rows[:, :1])
    left = torch.cat([rows, -0.5 * rows.square().sum(1, keepdim=True), one], 1)
    one = torch.ones_like(columns[:, :1])
    right = torch.cat([columns, one, -0.5 * columns.square().sum(1, keepdim=True)], 1)
    return (left @ right.T).exp_()


class Kernel:
    """Product with the symmetric kernel of all pairs of the points."""

    def __init__(self, places: Boxes, megabytes: int) -> None:
        """Make strips of the upper triangle, one a box, until the memory is used up."""
        self.places = places
        self.columns = [
            places.columns(places.near(box, places, first=box)) for box in range(len(places.spans))
        ]
        self.kept: dict[int, Tensor] = {}
        left = megabytes * 2**20
        for box, columns in enumerate(self.columns):
            start, end = places.spans[box]
            left -= (end - start) * len(columns) * places.points.element_size()
            if left < 0:
                break
            self.kept[box] = self._strip(box)

    def _strip(self, box: int) -> Tensor:
        """Weights of a box's points (rows) with those of itself and of later boxes near it."""
        start, end = self.places.spans[box]
        points = self.places.points
        return weights_between(points[start:end], points[self.columns[box]])

    def __call__(self, values: Values) -> Values:
        """Sums of `values` over all points, weighted; values and sums in the points' order."""
        ordered = values[:, self.places.order]
        sums = torch.zeros_like(ordered)
        for box, columns in enumerate(self.columns):
            start, end = self.places.spans[box]
            strip = self.kept[box] if box in self.kept else self._strip(box)
            sums[:, start:end] += ordered[:, columns] @ strip.T
            rest = slice(end - start, None)  # the box itself comes first: it is whole already
            sums.index_add_(1, columns[rest], ordered[:, start:end] @ strip[:, rest])
        result = torch.empty_like(sums)
        result[:, self.places.order] = sums
        return result


def across(pixels: Boxes, cells: Boxes, values: Float[Tensor, "row cell"]) -> Values:
    """Sums of the cells' values for every pixel, weighted; in the pixels' and cells' own order."""
    ordered = values[:, cells.order]
    sums = values.new_zeros(len(values), len(pixels.order))
    for box, (start, end) in enumerate(pixels.spans):
        near = pixels.near(box, cells)
        if not near:  # pixels of a colour that no cell's mean has
            continue
        columns = cells.columns(near)
        weights = weights_between(pixels.points[start:end], cells.points[columns])
        sums[:, pixels.order[start:end]] = ordered[:, columns] @ weights.T
    return sums
