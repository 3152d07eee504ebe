"""The methods that LDC is measured against: heads on the same features, each a page of code.

NCM, LDA, TEEN (Wang et al. 2023), distribution calibration as in "Free Lunch" (Yang et al. 2021)
and fine-tuning. Class vectors are kept as float32, covariances as float64.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.optimize import minimize
from torch import Tensor
from torch.nn import functional

from tenfold.core.seed import generator

from .heads import Base, check_session, cosine

ROWS = 8192
"""Samples that the logistic regression takes at once: their logits stay in the cache."""
GROWING = ("vectors", "bias", "photo_means", "photo_leans", "photo_classes")
"""Parts of a state that have more rows after more sessions."""


def class_means(
    features: Float[Tensor, "image dim"], labels: Int[Tensor, " image"], known: int
) -> Float[Tensor, "class dim"]:
    """Mean feature of each new class, summed in float64."""
    counts = torch.bincount(labels - known)
    sums = torch.zeros(len(counts), features.shape[1], dtype=torch.float64)
    return sums.index_add_(0, labels - known, features.double()) / counts[:, None]


class Baseline:
    """Common part of all heads here: their state, and a `learn` whose core subclasses say."""

    def __init__(self, temperature: int | float, kept: dict[str, Tensor]) -> None:
        """`kept` is the state; its `vectors` have a row a class, and so many at least."""
        self.temperature = temperature
        self.kept = {name: value.clone() for name, value in kept.items()}
        self.base = len(kept["vectors"])

    def learned(
        self, features: Float[Tensor, "image dim"], labels: Int[Tensor, " image"]
    ) -> Float[Tensor, "class dim"]:
        """The vectors of all classes, new ones included."""
        means = class_means(features, labels, len(self.kept["vectors"]))
        return torch.cat([self.kept["vectors"], means.float()])

    def learn(self, features: Float[Tensor, "image dim"], labels: Int[Tensor, " image"]) -> None:
        """Take new classes."""
        check_session(features, labels, *self.kept["vectors"].shape)
        self.kept["vectors"] = self.learned(features, labels)

    def logits(self, features: Float[Tensor, "image dim"]) -> Float[Tensor, "image class"]:
        """Cosine times temperature, unless a subclass compares otherwise."""
        return cosine(features.float(), self.kept["vectors"], self.temperature)

    def state(self) -> dict[str, Tensor]:
        """Everything that is kept between sessions."""
        return {name: value.clone() for name, value in self.kept.items()}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Take a state back, of a head of the same kind, settings and base."""
        if state.keys() != self.kept.keys():
            raise ValueError(
                f"the saved head holds {sorted(state)}, but this one {sorted(self.kept)}. Restore "
                "it into a head of the same kind and settings."
            )
        for name, own in self.kept.items():
            value, grows = state[name], name in GROWING
            rows = self.base if name == "vectors" else 0
            same = value.dtype == own.dtype and value.dim() == own.dim()
            if not same or value.shape[grows:] != own.shape[grows:] or len(value) < rows:
                raise ValueError(
                    f"{name} of the saved head is {value.dtype} {tuple(value.shape)}, but this "
                    f"head's is {own.dtype} {tuple(own.shape)}. Restore it into a head of the same "
                    "encoder and base classes."
                )
        self.kept = {name: value.clone() for name, value in state.items()}


class Ncm(Baseline):
    """Nearest class mean by cosine: what every method should beat."""

    def __init__(self, base: Base, temperature: int | float = 16.0, centred: bool = False) -> None:
        """`centred` takes the mean of the base means from all vectors and features (ours)."""
        centre = base.means.mean(0) if centred else torch.zeros_like(base.means[0])
        super().__init__(temperature, {"vectors": base.means.float(), "centre": centre.float()})

    def logits(self, features: Float[Tensor, "image dim"]) -> Float[Tensor, "image class"]:
        """Cosine times temperature, around the centre."""
        vectors, centre = self.kept["vectors"], self.kept["centre"]
        return cosine(features.float() - centre, vectors - centre, self.temperature)


class Teen(Baseline):
    """TEEN: a new prototype moves towards the base prototypes that look like it, untrained.

    All vectors are of unit length, the weighted mean of base prototypes too, as in the official
    code; only base classes attract, never classes of earlier sessions.
    """

    def __init__(
        self,
        base: Base,
        alpha: int | float = 0.5,
        sharpness: int | float = 16.0,
        temperature: int | float = 16.0,
    ) -> None:
        """`alpha` is the share of the base prototypes, `sharpness` the paper's tau."""
        if not 0 <= alpha <= 1:
            raise ValueError(f"alpha of TEEN must be between 0 and 1, got {alpha}")
        unit = functional.normalize(base.means, dim=1)
        super().__init__(temperature, {"vectors": unit.float()})
        self.alpha, self.sharpness = alpha, sharpness

    def learned(
        self, features: Float[Tensor, "image dim"], labels: Int[Tensor, " image"]
    ) -> Float[Tensor, "class dim"]:
        """New vectors: (1 - alpha) * own mean + alpha * base prototypes, by similarity."""
        known = self.kept["vectors"]
        means = functional.normalize(class_means(features, labels, len(known)), dim=1)
        base = known[: self.base].double()
        likeness = (self.sharpness * means @ base.T).softmax(1)
        pull = functional.normalize(likeness @ base, dim=1)
        return torch.cat([known, ((1 - self.alpha) * means + self.alpha * pull).float()])


class FineTune(Baseline):
    """Naive fine-tuning: all class vectors learn from the new photos alone, and forget."""

    def __init__(
        self,
        base: Base,
        lr: int | float = 0.1,
        momentum: int | float = 0.9,
        dampening: int | float = 0.0,
        steps: int = 150,
        temperature: int | float = 16.0,
    ) -> None:
        super().__init__(temperature, {"vectors": base.means.float()})
        self.sgd, self.steps = (float(lr), float(momentum), float(dampening)), steps

    def learned(
        self, features: Float[Tensor, "image dim"], labels: Int[Tensor, " image"]
    ) -> Float[Tensor, "class dim"]:
        """New vectors start at their means; then SGD on all photos of the session at once."""
        rate, momentum, dampening = self.sgd
        vectors = super().learned(features, labels)
        photos = functional.normalize(features.float(), dim=1) * self.temperature
        truth = functional.one_hot(labels, len(vectors)).float()
        speed = torch.zeros_like(vectors)
        for step in range(self.steps):
            # By hand, as autograd takes ten times as long for so small matrices: the mean cross
            # entropy of T <f, w/|w|> has the slope (softmax - truth)^T T f / n, of which w/|w| has
            # what is not along w, divided by |w|.
            length = vectors.norm(dim=1, keepdim=True).clamp_min(1e-12)
            unit = vectors / length
            slope = (photos @ unit.T).softmax(1).sub_(truth).T @ photos / len(photos)
            slope = (slope - (slope * unit).sum(1, keepdim=True) * unit) / length
            speed = momentum * speed + (1 - dampening if step else 1.0) * slope  # as torch.optim's
            vectors = vectors - rate * speed
        return vectors


class Lda(Baseline):
    """Linear discriminant analysis with the base session's covariance and equal priors."""

    def __init__(self, base: Base, shrinkage: int | float = 1.0) -> None:
        """The covariance used is Sigma + shrinkage * tr(Sigma) / D * I (Sigma: shared)."""
        if shrinkage < 0:
            raise ValueError(f"shrinkage of LDA must not be negative, got {shrinkage}")
        super().__init__(1.0, {"vectors": base.means.float(), "covariance": base.covariance})
        self.shrinkage = shrinkage

    def logits(self, features: Float[Tensor, "image dim"]) -> Float[Tensor, "image class"]:
        """The discriminants: log likelihoods without the term that all classes share."""
        means, covariance = self.kept["vectors"].double(), self.kept["covariance"]
        ridge = self.shrinkage * covariance.trace() / len(covariance)
        factor, failed = torch.linalg.cholesky_ex(covariance + ridge * torch.eye(len(covariance)))
        if failed:
            raise ValueError(
                f"the base covariance is singular with shrinkage {self.shrinkage} (trace "
                f"{float(covariance.trace()):.3g}). Raise the shrinkage or use more base pictures."
            )
        weights = torch.cholesky_solve(means.T, factor)
        return (features.double() @ weights - (means.T * weights).sum(0) / 2).float()


def tukey(features: Float[Tensor, "image dim"], beta: int | float) -> Float[Tensor, "image dim"]:
    """Tukey's ladder of powers: x^beta, which makes features less skewed."""
    if not beta > 0 or bool((features < 0).any()):
        raise ValueError(
            f"Tukey's transform needs beta > 0 and features of at least 0, got beta {beta} and "
            f"features from {float(features.min()):.3g} on. Take them after the last ReLU."
        )
    return features.pow(beta)


def nearest(
    features: Float[Tensor, "image dim"], means: Float[Tensor, "base dim"], k: int
) -> Int[Tensor, "image k"]:
    """The k base classes whose means are nearest to a feature (Euclidean)."""
    return torch.cdist(features, means).topk(k, largest=False).indices


def calibrated_means(
    features: Float[Tensor, "image dim"], means: Float[Tensor, "image k dim"]
) -> Float[Tensor, "image dim"]:
    """Centres of photos' Gaussians: the mean of feature and k nearest base means."""
    return (means.sum(1) + features) / (means.shape[1] + 1)


def calibrated_covariance(
    covariances: Float[Tensor, "k dim dim"], alpha: int | float
) -> Float[Tensor, "dim dim"]:
    """Covariance of one photo's Gaussian, from those of its k nearest base classes.

    As in the official code, `alpha` is added to every entry, not to the diagonal alone.
    """
    return covariances.mean(0) + alpha


def gaussian(
    mean: Float[Tensor, " dim"],
    covariance: Float[Tensor, "dim dim"],
    count: int,
    random: torch.Generator,
) -> Float[Tensor, "count dim"]:
    """Draws from a normal distribution, whose covariance may be singular (few pictures)."""
    jitter = 1e-6 * float(covariance.trace()) / len(mean) + 1e-12
    factor = torch.linalg.cholesky(covariance + jitter * torch.eye(len(mean)).double())
    noise = torch.randn(count, len(mean), generator=random)
    return mean.float() + noise @ factor.T.float()


def logistic_regression(
    samples: Float[Tensor, "sample dim"],
    labels: Int[Tensor, " sample"],
    start: tuple[Float[Tensor, "class dim"], Float[Tensor, " class"]],
    iterations: int,
) -> tuple[Float[Tensor, "class dim"], Float[Tensor, " class"]]:
    """Weights and bias that minimise mean cross-entropy + |weights|^2 / (2 samples).

    That is scikit-learn's objective with C = 1 and its default tolerance; the bias is free. It is
    minimised over whitened samples, which takes five times fewer iterations to the same answer.
    """
    num, dim = samples.shape
    first = torch.cat([start[0], start[1][:, None]], 1).double()
    covariance = samples.T.cov().double().view(dim, dim)
    # Features that all samples share, or few samples, make it singular; any factor will do.
    floor = 1e-4 * float(covariance.trace()) / dim + 1e-8
    blacken = torch.eye(dim + 1, dtype=torch.float64)  # (sample, 1) = blacken @ (white sample, 1)
    blacken[:dim, :dim] = torch.linalg.cholesky(covariance + floor * blacken[:dim, :dim])
    blacken[:dim, dim] = samples.mean(0, dtype=torch.float64)
    whiten = torch.linalg.inv(blacken)
    white = functional.pad(samples, (0, 1), value=1.0) @ whiten.T.float()

    def objective(flat: np.ndarray) -> tuple[float, np.ndarray]:
        point = torch.from_numpy(flat).view(first.shape)
        weights = point @ whiten
        weights[:, dim] = 0
        loss = 0.5 * float(weights.square().sum())
        gradient = weights @ whiten.T
        for x, y in zip(white.split(ROWS), labels.split(ROWS), strict=True):
            logs = (x @ point.T.float()).log_softmax(1)
            loss -= float(logs.gather(1, y[:, None]).sum(dtype=torch.float64))
            errors = logs.exp_()
            errors[torch.arange(len(y)), y] -= 1
            gradient += errors.T @ x
        return loss / num, gradient.flatten().numpy() / num

    begin = (first @ blacken).flatten().numpy()
    options = {"maxiter": iterations, "gtol": 1e-4, "ftol": 0.0}
    best = minimize(objective, begin, method="L-BFGS-B", jac=True, options=options)
    weights = (torch.from_numpy(best.x).view(first.shape) @ whiten).float()
    return weights[:, :dim].contiguous(), weights[:, dim].contiguous()


class FreeLunch(Baseline):
    """Distribution calibration ("Free Lunch"): Gaussians of new classes lean on similar base ones.

    Made for tasks of new classes only; how it runs over sessions is ours. Each session fits a
    logistic regression, from the last one's weights on, to samples of all classes seen: of a base
    class's own mean and covariance, and of each photo's calibrated Gaussian. The photos themselves
    are among the samples in their own session only; then their calibrated means are kept.
    """

    def __init__(
        self,
        base: Base,
        seed: int,
        beta: int | float = 0.5,
        k: int = 2,
        alpha: int | float = 0.21,
        samples: int = 750,
        base_samples: int = 750,
        iterations: int = 1000,
    ) -> None:
        """`base` must be the statistics of features transformed by `tukey(features, beta)`.

        `samples` are those of a new class, divided among its photos, `base_samples` those of a
        base class: as many by default, so that no class is likelier than another.
        """
        num, dim = base.means.shape
        if not 1 <= k <= num:
            raise ValueError(f"k of Free Lunch must be 1 to {num} (the base classes), got {k}")
        if min(samples, base_samples, iterations) < 1 or alpha < 0:
            raise ValueError(
                f"Free Lunch needs samples, base_samples and iterations of at least 1 and alpha "
                f"of at least 0, got {samples}, {base_samples}, {iterations} and {alpha}"
            )
        self.seed, self.beta, self.k, self.alpha = seed, beta, k, alpha
        self.samples, self.base_samples, self.iterations = samples, base_samples, iterations
        kept = {
            "vectors": torch.zeros(num, dim),
            "bias": torch.zeros(num),
            "means": base.means,
            "covariances": base.covariances,
            "photo_means": torch.zeros(0, dim).double(),
            "photo_leans": torch.zeros(0, k).long(),
            "photo_classes": torch.zeros(0).long(),
        }
        super().__init__(1.0, kept)
        self._fit(torch.zeros(0, dim), torch.zeros(0).long())

    def learn(self, features: Float[Tensor, "image dim"], labels: Int[Tensor, " image"]) -> None:
        """Take new classes: one Gaussian a photo, then a new logistic regression over all."""
        kept, (known, dim) = self.kept, self.kept["vectors"].shape
        new = check_session(features, labels, known, dim)
        photos = tukey(features.double(), self.beta)
        leans = nearest(photos, kept["means"], self.k)
        grown = {
            "vectors": torch.zeros(new, dim),
            "bias": torch.zeros(new),
            "photo_means": calibrated_means(photos, kept["means"][leans]),
            "photo_leans": leans,
            "photo_classes": labels,
        }
        self.kept = {**kept, **{name: torch.cat([kept[name], x]) for name, x in grown.items()}}
        self._fit(photos.float(), labels)

    def _fit(self, photos: Float[Tensor, "image dim"], labels: Int[Tensor, " image"]) -> None:
        kept, x, y = self.kept, [photos], [labels]
        random = generator(self.seed, "free lunch", len(kept["vectors"]))
        for c in range(self.base):
            x.append(gaussian(kept["means"][c], kept["covariances"][c], self.base_samples, random))
            y.append(torch.full((self.base_samples,), c))
        shots = torch.bincount(kept["photo_classes"])
        for photo, of in enumerate(kept["photo_classes"]):
            leans, count = kept["photo_leans"][photo], max(1, self.samples // int(shots[of]))
            covariance = calibrated_covariance(kept["covariances"][leans], self.alpha)
            x.append(gaussian(kept["photo_means"][photo], covariance, count, random))
            y.append(of.expand(count))
        kept["vectors"], kept["bias"] = logistic_regression(
            torch.cat(x), torch.cat(y), (kept["vectors"], kept["bias"]), self.iterations
        )

    def logits(self, features: Float[Tensor, "image dim"]) -> Float[Tensor, "image class"]:
        """Logits of the regression, on transformed features."""
        return tukey(features.float(), self.beta) @ self.kept["vectors"].T + self.kept["bias"]
