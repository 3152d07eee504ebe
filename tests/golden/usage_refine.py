"""Checks of USAGE's refinement: dense CRF, random walk, threshold sweep."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import torch

from golden.harness import Case
from tenfold.systems.usage import crf, random_walk
from tenfold.systems.usage.seed_metrics import Sweep, labels_at

LATTICE = {"apart": 0.2, "agreement": 0.95}
"""Of exact mean field and pydensecrf's lattice: largest difference, least share of equal labels."""


def filled(case: Case, role: str) -> np.ndarray:
    """An input after its `post`."""
    entry = next(e for e in case.spec["inputs"] if case.role(e["name"]) == role)
    value, post = case.input(role), entry.get("post")
    made = {
        None: lambda: value,
        "abs": lambda: np.abs(value),
        "sigmoid": lambda: 1 / (1 + np.exp(-value)),
        "gt0": lambda: (value > 0).astype(np.float32),
        "uint8img": lambda: np.clip(np.round(127 + 50 * value), 0, 255).astype(np.uint8),
    }
    return made[post]()


def crf_inputs(case: Case) -> tuple[np.ndarray, np.ndarray]:
    """Picture and probabilities: both enlarged by repeating pixels, then cropped, as noted."""
    note = case.spec["config"]["note"]
    (down, right), (finer, wider) = (
        map(int, pair) for pair in re.findall(r"repeated (\d+)x(\d+)", note)
    )
    size = re.search(r"\((\d+),(\d+)\)", note)
    assert size is not None, note
    height, width = map(int, size.groups())
    image = filled(case, "crf_img").repeat(down, 0).repeat(right, 1)[:height, :width]
    logits = filled(case, "crf_logit").repeat(finer, 1).repeat(wider, 2)[:, :height, :width]
    shares = np.exp(logits.astype(np.float64) - logits.max(0))
    return image, (shares / shares.sum(0)).astype(np.float32)


def crf_options(case: Case) -> tuple[crf.CrfOptions, crf.CrfOptions]:
    """Options of the probabilities' CRF and of the labels', from the words of the case."""
    words = case.spec["config"]["parameters"]
    first, _, second = words.partition("label_crf")
    number = r"(\d*\.?\d+)"
    names = ("gaussian_sxy", "gaussian_compat", "bilateral_sxy", "bilateral_srgb")
    names = (*names, "bilateral_compat")

    def read(text: str) -> dict[str, float]:
        found = re.findall(rf"(?:sxy|compat|srgb)[ =]{number}", text)
        assert len(found) in (0, 5), text
        return dict(zip(names, map(float, found), strict=False))

    labels = dict(re.findall(rf"(gt_prob|t)[ =]{number}", second))
    given = replace(
        crf.IRN,
        **read(second),
        gt_prob=float(labels.get("gt_prob", 0.7)),
        iterations=int(labels.get("t", 10)),
    )
    return replace(crf.PSA, **read(first)), given


def check_dense_crf(case: Case) -> None:
    """Exact mean field tightly; the lattice's within its own error."""
    image, probabilities = (torch.from_numpy(array.copy()) for array in crf_inputs(case))
    options, given = crf_options(case)
    for name in case.arrays:
        if name.startswith("label_"):
            labels = probabilities.argmax(0)
            found = crf.dense_crf(image, labels, given, len(probabilities)).argmax(0)
            same = found.numpy() == case.take(name)
            assert same.mean() >= LATTICE["agreement"], f"{name}: {same.mean():.3f} agree"
            continue
        steps = int(name.rpartition("_t")[2])
        found = crf.dense_crf(image, probabilities, replace(options, iterations=steps)).numpy()
        if name.startswith("bruteforce_"):
            case.compare(name, found, atol=1e-5, rtol=0)
            continue
        lattice = case.take(name)
        apart = np.abs(found - lattice).max()
        assert apart < LATTICE["apart"], f"{name} is {apart:.3f} from the lattice's"
        same = (found.argmax(0) == lattice.argmax(0)).mean()
        assert same >= LATTICE["agreement"], f"{name}: {same:.3f} of the labels agree"


def check_irn_random_walk(case: Case) -> None:
    """Maps spread over a boundary map."""
    options = case.spec["config"]
    boundary = torch.from_numpy(filled(case, "rw_edge"))[0]
    maps = torch.from_numpy(filled(case, "rw_cam"))
    walked = random_walk.irn(
        boundary, maps, options["radius"], float(options["beta"]), options["exp_times"]
    )
    # squaring in float32 doubles the rounding of column sums 8 times; ours is nearer to float64
    case.compare("rw", walked[:, None], rtol=5e-4, atol=1e-6)


def check_seed_eval_sweep(case: Case) -> None:
    """mIoU, IoU, FP and FN over thresholds, absent classes 0 as in the official script."""
    options = case.spec["config"]
    thresholds = [float(t) for t in case.take("thresholds")]
    sweep = Sweep(options["num_classes_with_bg"], thresholds)
    direct = torch.zeros(len(thresholds), dtype=torch.int64)
    for picture in range(options["images"]):
        present = filled(case, f"ev_label{picture}")
        maps = filled(case, f"ev_cam{picture}") * 1.0
        present[0] = 1
        maps = torch.from_numpy(maps * present[:, None, None]).float()
        truth = torch.from_numpy(case.take(f"gt{picture}").astype(np.int64))
        sweep.add(maps, truth)
        for row, threshold in enumerate(thresholds):
            found = labels_at(maps, threshold)
            direct[row] += ((found == truth) & (truth != 255)).sum()
    counts = sweep.counts
    assert torch.equal(counts.diagonal(dim1=1, dim2=2).sum(1), direct)
    curve = sweep.curve(absent="zero")
    parts = {"miou": curve.miou, "iou": curve.iou, "fp": curve.fp, "fn": curve.fn}
    case.compare_all(parts, {"rtol": 1e-6, "atol": 1e-6})


KINDS = {
    "dense_crf": check_dense_crf,
    "irn_random_walk": check_irn_random_walk,
    "seed_eval_sweep": check_seed_eval_sweep,
}
