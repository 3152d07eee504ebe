"""LDC's metrics and peers against independent float64 numbers and the official Free Lunch."""

from __future__ import annotations

import re

import torch

from golden.harness import Case, close
from golden.ldc_fill import given
from tenfold.metrics import fewshot
from tenfold.systems.ldc import baselines
from tenfold.systems.ldc.heads import cosine, statistics

EXACT = dict(rtol=1e-9, atol=1e-9)


def limits(name: str) -> dict[str, float]:
    """Batch averages are float32 in the official code, whatever their name says."""
    return dict(rtol=1e-6, atol=1e-6) if name.startswith("averager_acc") else EXACT


def averager(predictions: torch.Tensor, labels: torch.Tensor, size: int) -> float:
    """The official accuracy: the mean over batches, a short last one counting as much as any."""
    batches = zip(predictions.split(size), labels.split(size), strict=True)
    return sum(fewshot.accuracy(p, y) for p, y in batches) / -(-len(labels) // size)


def by_class(features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Features [class, picture, dim] as rows, and their labels."""
    labels = torch.arange(len(features)).repeat_interleave(features.shape[1])
    return features.flatten(0, 1), labels


def check_ncm(case: Case) -> None:
    config = case.spec["config"]
    base, way, shots = config["base_class"], config["way"], config["novel_shots"]
    # The features are float32, as an encoder's; all that follows is float64.
    centers = given(case, "centers")[:, None]
    train = (centers + given(case, "train_noise")).clamp(min=0).double()
    test, truth = by_class((centers + given(case, "test_noise")).clamp(min=0).double())
    start = statistics(*by_class(train[:base]))
    head, prototypes = baselines.Ncm(start, config["temperature"]), start.means
    predictions, averages, pairs = [], [], []
    for session in range(config["sessions"]):
        seen = base + session * way
        if session:
            new, labels = by_class(train[seen - way : seen, :shots])
            labels += seen - way
            head.learn(new, labels)
            prototypes = torch.cat([prototypes, baselines.class_means(new, labels, seen - way)])
        logits = cosine(test, prototypes, config["temperature"])
        close(head.logits(test), logits.numpy(), what="head in float32", rtol=1e-5, atol=1e-5)
        predicted, counted = logits.argmax(1), truth < seen
        predictions.append(predicted)
        averages.append(averager(predicted[counted], truth[counted], config["official_batch"]))
        of_seen = predicted[counted], truth[counted], base
        pairs.append((fewshot.base_accuracy(*of_seen), fewshot.novel_accuracy(*of_seen)))
    sessions = fewshot.session_accuracies(torch.stack(predictions), truth, base, way)
    got = {
        "session_acc_f64": sessions,
        "base_acc_f64": [pair[0] for pair in pairs],
        "novel_acc_f64": [pair[1] for pair in pairs[1:]],
        "harmonic_f64": [fewshot.harmonic_accuracy(*pair) for pair in pairs[1:]],
        "averager_acc_f64": averages,
        "mean_cov_f64": start.covariance,
        "prototypes_f64": prototypes,
        "avg_acc_f64": fewshot.average_accuracy(sessions),
        "pd_f64": fewshot.performance_drop(sessions),
        "krate_f64": fewshot.relative_drop(sessions),
    }
    for name in case.arrays:
        if found := re.fullmatch(r"logits_(first|last)(\d+)_f64", name):
            rows = int(found[2])
            got[name] = logits[:rows] if found[1] == "first" else logits[-rows:]
    as_double = {k: torch.as_tensor(v, dtype=torch.float64) for k, v in got.items()}
    case.compare_all(as_double, limits)


def check_free_lunch(case: Case) -> None:
    config = case.spec["config"]
    means = given(case, "base_mean").double()
    factors = given(case, "base_cov_factor").double()
    covariances = factors @ factors.mT / config["D"]
    query = baselines.tukey(given(case, "query").double(), config["beta"])
    leans = baselines.nearest(query, means, config["k"])
    got = {
        "tukey_f64": query,
        "mean_f64": baselines.calibrated_means(query, means[leans]),
        "cov_f64": torch.stack(
            [baselines.calibrated_covariance(covariances[of], config["alpha"]) for of in leans]
        ),
    }
    case.compare_all(got, EXACT)


CHECKS = {"ncm_metrics": check_ncm, "free_lunch_dc": check_free_lunch}
