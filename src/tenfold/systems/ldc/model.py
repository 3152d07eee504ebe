"""The encoder with its cosine classifier, and what the sessions leave behind."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from tenfold.core import dist
from tenfold.core.seed import generator

from . import encoders
from .calibration_unit import Unit
from .config import Calibration, HeadName, Model, Transformer
from .heads import Base, Space, cosine, in_space

PERCENTILES = 101
SHRINKAGE = 0.1
UNMEASURED = -1.0
"""Accuracy of a head that was not tried."""
HEADS: tuple[HeadName, ...] = get_args(HeadName)
Judges = Literal["training", "held-out", "test"]
JUDGES: tuple[Judges, ...] = ("training", "held-out", "test")
"""Pictures whose distances decide what is unknown; weights keep the number."""


class Network(nn.Module):
    """Everything that `predict` needs before a class is learned; later ones lie beside the weights.

    `classifier` is what base training fits; `vectors`, `means` and `covariance` are what the run's
    head starts from, in the head's space; `unit` is the calibration unit.
    """

    classifier: Tensor
    vectors: Tensor
    means: Tensor
    covariance: Tensor
    counts: Tensor
    distances: Tensor
    judged: Tensor
    measured: Tensor

    def __init__(
        self,
        cfg: Model,
        calibration: Calibration,
        classes: int,
        seed: int,
        turns: int = 1,
        sizes: Transformer | None = None,
    ) -> None:
        """`turns` is the orientations that base training tells apart, 1 or 4."""
        super().__init__()
        self.encoder = encoders.build(cfg, sizes or Transformer())
        self.temperature = cfg.temperature
        dim = self.encoder.dim
        self.turns = turns
        self.classifier = nn.Parameter(torch.empty(classes * turns, dim))
        nn.init.kaiming_uniform_(self.classifier, a=5**0.5)  # that of nn.Linear
        self.unit = new_unit(dim, calibration, seed)
        self.others = nn.ModuleDict()
        """Units of other settings, trained for comparison only."""
        self.register_buffer("vectors", torch.zeros(classes, dim))
        self.register_buffer("means", torch.zeros(classes, dim, dtype=torch.float64))
        self.register_buffer("covariance", torch.eye(dim, dtype=torch.float64))
        self.register_buffer("counts", torch.zeros(classes, dtype=torch.int64))
        self.register_buffer("distances", torch.zeros(PERCENTILES, dtype=torch.float64))
        self.register_buffer("judged", torch.zeros(2, dtype=torch.int64))
        self.register_buffer("measured", torch.full((len(HEADS),), UNMEASURED).double())
        self.register_load_state_dict_pre_hook(_complete)

    def forward(
        self, images: Float[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, "batch feature"]:
        """Features of normalised pictures."""
        return self.encoder(images.contiguous(memory_format=torch.channels_last))

    def other(self, name: str) -> Unit:
        """A unit of other settings."""
        unit = self.others[name]
        assert isinstance(unit, Unit)
        return unit

    def remember(
        self,
        base: Base,
        distances: Float[Tensor, " image"],
        judges: Judges,
        accuracies: Mapping[HeadName, float],
    ) -> None:
        """Take over the base session's statistics, and those of the judges.

        Of their distances the percentiles are kept, and the accuracies (percent) of heads on them.
        """
        for kind, accuracy in accuracies.items():
            self.measured[HEADS.index(kind)] = accuracy
        self.judged.copy_(torch.tensor([JUDGES.index(judges), len(distances)]))
        self.vectors.copy_(base.vectors)
        self.means.copy_(base.means)
        self.covariance.copy_(base.covariance)
        self.counts.copy_(base.counts)
        self.distances.copy_(distances.quantile(torch.linspace(0, 1, PERCENTILES).double()))

    def judges(self) -> str:
        """Say which pictures the limit for unknown ones was calibrated on."""
        kind, count = self.judged.tolist()
        if not count:
            return "the training's pictures (an earlier version did not keep which)"
        said = {
            "training": "training pictures of the base classes, which are nearer to their classes "
            "than new ones, so that of these more are called unknown",
            "held-out": "pictures of the base classes held out of training",
            "test": "test pictures of the base classes (every other one)",
        }
        return f"{count:,} {said[JUDGES[kind]]}"

    def remembered(self) -> Base:
        """The base session's statistics as the weights keep them, on the CPU."""
        means, covariance = self.means.cpu(), self.covariance.cpu()
        every = covariance.expand(len(means), -1, -1)  # one for all classes: no others are kept
        return Base(means, covariance, self.vectors.cpu(), every, self.counts.cpu())


def _complete(network: nn.Module, state: dict[str, Tensor], prefix: str, *_: object) -> None:
    """Weights of earlier versions do not say which pictures judged, nor how heads fared."""
    assert isinstance(network, Network)
    for name in ("judged", "measured"):
        state.setdefault(prefix + name, getattr(network, name))


def whitened(
    points: Float[Tensor, "point dim"],
    covariance: Float[Tensor, "dim dim"],
    shrinkage: int | float = SHRINKAGE,
) -> Float[Tensor, "point dim"]:
    """Points (float64) in which the covariance, shrunk a little, is the identity.

    Raw, a covariance has directions of almost no variance. (ours)
    """
    dim = len(covariance)
    ridge = shrinkage * covariance.trace() / dim * torch.eye(dim, dtype=covariance.dtype)
    factor = torch.linalg.cholesky(covariance + ridge)
    return torch.linalg.solve_triangular(factor, points.double().T, upper=False).T


def distances(
    features: Float[Tensor, "image dim"],
    means: Float[Tensor, "class dim"],
    covariance: Float[Tensor, "dim dim"],
    widths: Float[Tensor, " class"] | None = None,
) -> Float[Tensor, " image"]:
    """Mahalanobis distance to the nearest class mean, under the shared covariance.

    `widths` are the classes' standard deviations in its units, 1 by default.
    """
    away = torch.cdist(whitened(features, covariance), whitened(means, covariance))
    return (away if widths is None else away / widths).amin(1)


def new_unit(dim: int, calibration: Calibration, seed: int) -> Unit:
    """A calibration unit with its initial weights, which follow from the seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(generator(seed, "unit").initial_seed())
        return Unit(dim, calibration)


class BaseTrainingModel(nn.Module):
    """Encoder and classifier in base training: cross-entropy of cosine logits (CEC's trainer).

    Args:
        network: Encoder and classifier that are trained.
        keep: Features a class to collect as training meets them, augmented and never refreshed:
            what the released LDC calls the real features; 0 collects none.
    """

    seen: Tensor
    filled: Tensor

    def __init__(self, network: Network, keep: int = 0) -> None:
        super().__init__()
        self.encoder, self.classifier = network.encoder, network.classifier
        self.temperature, self.keep, self.turns = network.temperature, keep, network.turns
        if keep:
            classes, dim = network.means.shape
            self.register_buffer("seen", torch.zeros(classes, keep, dim))
            self.register_buffer("filled", torch.zeros(classes, dtype=torch.int64))

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Loss and accuracy (percent) of a batch of `images`, `labels`, and in training `turns`."""
        features = self.encoder(batch["images"]).float()
        if self.keep and self.training:
            self._collect(features.detach(), batch["labels"])
        vectors, wanted = self.classifier, batch["labels"]
        if "turns" in batch:  # row class * turns + turn, after Lee et al. 2020
            wanted = wanted * self.turns + batch["turns"]
        else:  # upright pictures, upright classes
            vectors = vectors[:: self.turns]
        logits = cosine(features, vectors, self.temperature)  # batch, class (times turns)
        hit = 100 * (logits.argmax(1) == wanted).float().mean()
        return {"loss": functional.cross_entropy(logits, wanted), "accuracy": hit.detach()}

    def _collect(self, features: Float[Tensor, "batch dim"], labels: Int[Tensor, " batch"]) -> None:
        if bool((self.filled == self.keep).all()):
            return
        # of every process's rows, in the order of the batch: what one process would have met
        for share, own in dist.current().gather_objects((features.cpu(), labels.tolist())):
            for feature, label in zip(share, own, strict=True):
                place = int(self.filled[label])
                if place < self.keep:
                    self.seen[label, place] = feature
                    self.filled[label] += 1

    def collected(self) -> Float[Tensor, "class keep dim"]:
        """The features of the first pictures of each class; a class with fewer repeats them."""
        counts = self.filled.cpu()
        if not bool((counts > 0).all()):
            raise ValueError(
                f"base training met no picture of class {int(counts.argmin())}, so it has no early "
                "features; train for longer, or set --calibration.features final"
            )
        rows = torch.arange(self.keep) % counts[:, None]
        return self.seen.cpu()[torch.arange(len(counts))[:, None], rows]


class Exported(nn.Module):
    """Encoder and class vectors as one network: pictures to cosine logits."""

    def __init__(self, network: Network, vectors: Float[Tensor, "class dim"], space: Space) -> None:
        super().__init__()
        self.encoder, self.temperature, self.space = network.encoder, network.temperature, space
        self.vectors = nn.Parameter(vectors.clone(), requires_grad=False)

    def forward(
        self, images: Float[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, "batch class"]:
        """Cosine logits of normalised pictures."""
        features = in_space(self.encoder(images), self.space)
        return cosine(features, self.vectors, self.temperature)
