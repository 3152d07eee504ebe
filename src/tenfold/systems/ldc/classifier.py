"""A frozen encoder, the head that learns on its features, and the classes that the head knows."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from tenfold.core.versions import check_name
from tenfold.data.images import fscil

from . import comparison
from .config import Config
from .heads import Head, Space, in_space
from .model import Network, distances

ENCODE_BATCH = 250
"""Pictures that are encoded at once."""


@torch.no_grad()
def encode(
    network: Network, view: fscil.View, images: UInt8[Tensor, "image 3 side side"]
) -> Float[Tensor, "image dim"]:
    """Features of held pictures under the test transform, in evaluation mode, on the CPU."""
    was_training, device = network.training, network.means.device
    network.eval()
    parts = [network(view.test(x).to(device)).float().cpu() for x in images.split(ENCODE_BATCH)]
    network.train(was_training)
    return torch.cat(parts)


class Classifier:
    """Tells classes apart by features of a frozen encoder, and takes new classes from few photos.

    Nothing in it reads or writes a file.

    Args:
        network: Trained encoder, with the statistics of the base session.
        cfg: Configuration of the run: which head, in which space of features, on which classes.

    Example:
        classifier = tenfold.load("runs/ldc-small").classifier
        features = classifier.features(images)  # uint8 [image, 3, side, side], side: .view.side
        classifier.learn(features, torch.zeros(len(images), dtype=torch.int64), ("hoopoe",))
        probabilities, is_unknown = classifier.classify(features)
        print(classifier.known[int(probabilities[0].argmax())])
    """

    def __init__(self, network: Network, cfg: Config) -> None:
        self.network, self.cfg = network, cfg
        self.view = fscil.view(cfg.data.name, cfg.data.size)
        """The way from a picture to the network's input."""
        self.known = list(cfg.classes[: cfg.data.base])
        """Names of the classes that the head knows now, in the order of its logits."""
        self.new_means = torch.zeros(0, network.encoder.dim, dtype=torch.float64)
        """Mean feature of each class learned after the training, by which `unknown` is judged."""

    @property
    def space(self) -> Space:
        """The space of features that the head works in."""
        return self.cfg.calibration.space if self.cfg.head == "ldc" else "raw"

    @cached_property
    def head(self) -> Head:
        """The head, made when first needed: it starts from what the training left."""
        return comparison.own(self.cfg, self.network.remembered(), self.network.unit)()

    @property
    def means(self) -> Float[Tensor, "class dim"]:
        """Mean feature of every class known now (float64)."""
        return torch.cat([self.network.means.cpu(), self.new_means])

    def features(self, images: UInt8[Tensor, "image 3 side side"]) -> Float[Tensor, "image dim"]:
        """Encode pictures that are as large as `view.side`; features in the head's space."""
        return in_space(encode(self.network, self.view, images), self.space)

    def classify(
        self, features: Float[Tensor, "image dim"], unknown: int | float = 95.0
    ) -> tuple[Float[Tensor, "image class"], Bool[Tensor, " image"]]:
        """Tell which known class each picture is of, and whether it is of none of them.

        Args:
            features: As `features` gives them.
            unknown: Percentage of the base classes' own pictures that are nearer to their class
                than a picture may be; 100 calls nothing unknown.

        Returns:
            Probability of each known class, and whether a picture is farther from every class.
        """
        probabilities = self.head.logits(features).softmax(1)
        away = distances(features, self.means, self.network.covariance.cpu())
        limit = torch.quantile(self.network.distances.cpu(), unknown / 100)
        return probabilities, (away > limit) & (unknown < 100)

    def check_new(self, names: Sequence[str]) -> None:
        """Raise ValueError for a name that cannot stand for a class, or is known already."""
        for one in names:
            check_name(one)
            twin = next((k for k in self.known if k.casefold() == one.casefold()), None)
            if twin is not None:
                raise ValueError(
                    f"class {twin!r} is known already; give another name with --name, or rename "
                    f"the folder {one!r}"
                )

    def learn(
        self,
        features: Float[Tensor, "photo dim"],
        labels: Int[Tensor, " photo"],
        names: Sequence[str],
    ) -> None:
        """Take new classes, without any earlier picture; nothing is changed if this fails.

        Args:
            features: Of the photos, as `features` gives them.
            labels: Of the photos: 0 for the first of `names`; every class needs a photo.
            names: Of the new classes.

        Raises:
            ValueError: A name is known, a class has no photo, or features are not finite.
        """
        self.check_new(names)
        self.head.learn(features, labels + len(self.known))
        new = torch.stack([features[labels == i].double().mean(0) for i in range(len(names))])
        self.new_means = torch.cat([self.new_means, new])
        self.known += names

    def state(self) -> dict[str, Tensor]:
        """Everything that later predictions and sessions need of the classes known now."""
        head = {f"head.{key}": value for key, value in self.head.state().items()}
        return {**head, "new_means": self.new_means}

    def restore(self, tensors: dict[str, Tensor], classes: tuple[str, ...]) -> None:
        """Take back a `state`, and the names of all its classes."""
        means, dim = tensors.get("new_means"), self.network.encoder.dim
        wanted = (len(classes) - self.cfg.data.base, dim)
        if means is None or means.shape != wanted or means.dtype != torch.float64:
            raise ValueError(
                f"the version lists {len(classes)} classes but does not hold a mean of each"
            )
        state = {k.removeprefix("head."): v for k, v in tensors.items() if k.startswith("head.")}
        self.head.restore(state)
        self.new_means, self.known = means.clone(), list(classes)
