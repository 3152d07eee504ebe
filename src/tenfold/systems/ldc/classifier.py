"""A frozen encoder, the head that learns on its features, and the classes that the head knows."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import get_args

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from tenfold.core.versions import check_name
from tenfold.data.images import fscil
from tenfold.data.images.folders import plain
from tenfold.nn.resnet import ResNet

from . import comparison
from .config import Config, HeadName
from .data import view_of
from .forecast import widths
from .heads import Head, Space, in_space
from .model import Network, distances

ENCODE_BATCH = 250
"""Pictures that are encoded at once."""
LARGE_BATCH = 25
"""The same of large encoders, whose activations fill the memory."""


@torch.no_grad()
def encode(
    network: Network, view: fscil.View, images: UInt8[Tensor, "image 3 side side"]
) -> Float[Tensor, "image dim"]:
    """Features of held pictures under the test transform, in evaluation mode, on the CPU."""
    was_training, device = network.training, network.means.device
    network.eval()
    size = ENCODE_BATCH if isinstance(network.encoder, ResNet) else LARGE_BATCH
    parts = [network(view.test(x).to(device)).float().cpu() for x in images.split(size)]
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
        self.view = view_of(cfg)
        """The way from a picture to the network's input."""
        self.known = list(cfg.classes[: cfg.data.base])
        """Names of the classes that the head knows now, in the order of its logits."""
        self.new_means = torch.zeros(0, network.encoder.dim, dtype=torch.float64)
        """Mean feature of each class learned after the training, by which `unknown` is judged."""
        self.new_photos = torch.zeros(0, dtype=torch.int64)
        """Photos of each of them; 0 where a version does not say."""
        self.kind: HeadName = cfg.head
        """Name of the head that answers now."""

    @property
    def space(self) -> Space:
        """The space of features that the head works in."""
        return self.cfg.calibration.space if self.cfg.head == "ldc" else "raw"

    @cached_property
    def head(self) -> Head:
        """The head, made when first needed: it starts from what the training left."""
        return self.fresh(self.kind)

    def fresh(self, kind: HeadName) -> Head:
        """A head that knows the base classes alone."""
        return comparison.own(self.cfg, self.network.remembered(), self.network.unit, kind)()

    def choices(self) -> tuple[HeadName, ...]:
        """Heads that this run can learn with: its own, and those that need no training."""
        return tuple(dict.fromkeys((self.cfg.head, *comparison.FREE)))

    def standing(self, kind: HeadName) -> Head:
        """Another head that knows the same classes: those learned later by their means alone."""
        head = self.fresh(kind)
        if len(self.new_means):
            base = self.cfg.data.base
            labels = torch.arange(base, base + len(self.new_means))
            head.learn(self.new_means.float(), labels)
        return head

    def check_head(self, kind: str) -> HeadName:
        """Return the head of that name; ValueError names those that there are."""
        found = next((one for one in self.choices() if one == kind), None)
        if found is None:
            raise ValueError(
                f"this run has no head {kind!r}; --head is one of {', '.join(self.choices())}"
            )
        return found

    def use(self, kind: str) -> None:
        """Let another head answer and learn from now on."""
        found = self.check_head(kind)
        if found != self.kind:
            self.head, self.kind = self.standing(found), found

    @property
    def means(self) -> Float[Tensor, "class dim"]:
        """Mean feature of every class known now (float64)."""
        return torch.cat([self.network.means.cpu(), self.new_means])

    @property
    def photos(self) -> Int[Tensor, " class"]:
        """Photos that each mean is of; 0 for base classes, whose means are certain."""
        base = torch.zeros(self.cfg.data.base, dtype=torch.int64)
        return torch.cat([base, self.new_photos])

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
        return probabilities, self.unknown(features, self.means, self.photos, unknown)

    def unknown(
        self,
        features: Float[Tensor, "image dim"],
        means: Float[Tensor, "class dim"],
        photos: Int[Tensor, " class"],
        percent: int | float = 95.0,
    ) -> Bool[Tensor, " image"]:
        """Tell which pictures are farther from all means than `percent` of the base's pictures.

        A mean of few `photos` is itself off, so that distances from it count for less.
        """
        away = distances(features, means, self.network.covariance.cpu(), widths(photos))
        limit = torch.quantile(self.network.distances.cpu(), percent / 100)
        return (away > limit) & (percent < 100)

    def check_new(self, names: Sequence[str]) -> None:
        """Raise ValueError for a name that cannot stand for a class, or does so already."""
        met: dict[str, str] = {}
        for one in names:
            check_name(one)
            key = plain(one)
            if key in met:
                raise ValueError(
                    f"two folders for one class: {met[key]!r} and {one!r} differ in capitals or "
                    "spaces only; join or rename them"
                )
            met[key] = one
            twin = next((known for known in self.known if plain(known) == key), None)
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
        self.new_photos = torch.cat([self.new_photos, torch.bincount(labels)])
        self.known += names

    def state(self) -> dict[str, Tensor]:
        """Everything that later predictions and sessions need of the classes known now."""
        head = {f"head.{key}": value for key, value in self.head.state().items()}
        kept = {**head, "new_means": self.new_means, "new_photos": self.new_photos}
        if self.kind != self.cfg.head:
            kept["kind"] = torch.tensor(list(self.kind.encode()), dtype=torch.uint8)
        return kept

    def restore(self, tensors: dict[str, Tensor], classes: tuple[str, ...]) -> None:
        """Take back a `state`, and the names of all its classes."""
        means, dim = tensors.get("new_means"), self.network.encoder.dim
        wanted = (len(classes) - self.cfg.data.base, dim)
        if means is None or means.shape != wanted or means.dtype != torch.float64:
            raise ValueError(
                f"the version lists {len(classes)} classes but does not hold a mean of each"
            )
        state = {k.removeprefix("head."): v for k, v in tensors.items() if k.startswith("head.")}
        kind = bytes(tensors.get("kind", torch.tensor([], dtype=torch.uint8)).tolist())
        named = next((one for one in get_args(HeadName) if one.encode() == kind), self.cfg.head)
        head = self.fresh(named)
        head.restore(state)
        photos = tensors.get("new_photos", torch.zeros(len(means), dtype=torch.int64))
        if photos.shape != means.shape[:1] or photos.dtype != torch.int64:
            raise ValueError(f"the version does not hold the photos of its {len(means)} classes")
        self.head, self.kind = head, named
        self.new_means, self.new_photos, self.known = means.clone(), photos.clone(), list(classes)
