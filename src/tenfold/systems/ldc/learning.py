"""New classes from a user's photos, and what the user should know before relying on them."""

from __future__ import annotations

from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tenfold.core.versions import Learned
from tenfold.data.images.decode import read_pictures

from . import answer, comparison, data
from .classifier import Classifier
from .config import HeadName
from .enough import away_left_out, enough
from .evaluation import nbytes
from .feature_plot import Scene, draw_space
from .findings import Findings, Unknown
from .forecast import Draws, Effect, accuracy, draws, effect, left_out, widths
from .heads import Head
from .model import HEADS, whitened

UNKNOWN = 95.0
"""Percentage of `predict --unknown` by which learned photos are judged: its default."""


def learn_files(classifier: Classifier, inputs: Path, name: str, kind: str = "") -> Learned:
    """Take the classes of a folder of photos, or of a folder of class folders; write nothing.

    Args:
        classifier: It knows the new classes afterwards.
        inputs: Folder of photos of any size; read one at a time.
        name: Of the class of a folder of photos; empty takes the folder's name.
        kind: Head that learns, and answers from now on; empty is the one of now.

    Raises:
        ValueError: A photo cannot be read, a class is known already, or there is no such head.
    """
    given = data.new_classes(inputs, name)
    names, files = tuple(given), [one.files for one in given.values()]
    classifier.check_new(names)  # before photos are read
    if kind:
        classifier.check_head(kind)
    counts = tuple(len(some) for some in files)
    labels = torch.arange(len(names)).repeat_interleave(torch.tensor(counts))
    every = [file for some in files for file in some]
    photos = read_pictures(every, labels.tolist(), classifier.view.side, "shorter")
    features = classifier.features(photos.images)
    base = classifier.network.remembered()
    scene = Scene(classifier.means, features, labels, tuple(classifier.known), names)
    memory = nbytes(classifier.head.state())
    found = _learn(classifier, features, labels, names, kind)
    pictures = {"features.png": draw_space(scene, base)}
    if found.enough.curve:
        pictures["enough.png"] = answer.draw_curve(found)
    pictures["learned.html"] = answer.page(found, pictures, inputs.name)
    return Learned(
        names=names,
        photos=counts,
        notes=(*data.notes_on(given), *answer.warnings(found)),
        memory_before=memory,
        memory_after=nbytes(classifier.head.state()),
        classes=tuple(classifier.known),
        pictures=pictures,
        lines=answer.lines(found),
        facts=answer.facts(found),
        loss=found.loss,
    )


def _learn(
    classifier: Classifier,
    features: Float[Tensor, "photo dim"],
    labels: Int[Tensor, " photo"],
    names: tuple[str, ...],
    kind: str,
) -> Findings:
    """Let the classifier learn, and measure what can be measured before and after."""
    network, seed = classifier.network, classifier.cfg.seed
    means, known, was = classifier.means, tuple(classifier.known), classifier.kind
    covariance, num = network.covariance.cpu(), len(classifier.known)
    given = draws(means, covariance, classifier.photos, seed)
    before = scale_of(classifier, was, given) * accuracy(classifier.head, given)
    unknown = _unknown(classifier, features, labels)
    curve = enough(whitened(features, covariance, 1.0), labels, whitened(means, covariance, 1.0),
                   seed)  # fmt: skip
    if kind:
        classifier.use(kind)

    def measured(one: HeadName, head: Head) -> Effect:
        scale, new = scale_of(classifier, one, given), left_out(head, features, labels, num)
        if head is classifier.head:
            classifier.learn(features, labels, names)
        else:
            head.learn(features, labels + num)
        return effect(one, head, given, num, scale, new)

    free = [one for one in comparison.FREE if one != classifier.kind]
    rivals = tuple(measured(one, classifier.standing(one)) for one in free)
    own = measured(classifier.kind, classifier.head)
    counts = tuple(torch.bincount(labels).tolist())
    return Findings(
        known, names, counts, was, before, own, rivals, curve, unknown, network.judges()
    )


def scale_of(classifier: Classifier, kind: HeadName, given: Draws) -> float:
    """By what factor a head's accuracy on pictures differs from that on draws.

    From the base classes before any other was learned: on pictures it was measured at the end of
    the training. A Gaussian for every class suits some heads more than pictures do.
    """
    network = classifier.network
    on_pictures = float(network.measured[HEADS.index(kind)])
    base = given.labels < classifier.cfg.data.base
    of_base = Draws(given.features[base], given.labels[base])
    on_draws = accuracy(classifier.fresh(kind), of_base)
    return on_pictures / on_draws if on_pictures >= 0 and on_draws > 0 else 1.0


def _unknown(
    classifier: Classifier, features: Float[Tensor, "photo dim"], labels: Int[Tensor, " photo"]
) -> Unknown:
    """Judge the photos before they are learned, and each by the others of its class."""
    network = classifier.network
    covariance, means = network.covariance.cpu(), classifier.means
    before = classifier.unknown(features, means, classifier.photos, UNKNOWN)
    away = away_left_out(
        whitened(features, covariance), labels, whitened(means, covariance),
        widths(classifier.photos),
    )  # fmt: skip
    limit = network.distances.cpu().quantile(UNKNOWN / 100)
    return Unknown(int(before.sum()), len(labels), len(away), int((away > limit).sum()))
