"""The setting of every number: scales, flips, CRF, threshold and how it was chosen."""

from __future__ import annotations

from .config import Config
from .model import UNSET

UNITS = {
    "seeds": "%", "masks": "%", "segmentation": "%", "classifier": "%", "class": "%",
    "agreement": "%", "errors": "%", "lost": "points", "threshold": "", "tau": "",
}  # fmt: skip
"""Group of metrics -> unit."""
BETTER = {
    "seeds": "higher", "masks": "higher", "segmentation": "higher", "classifier": "higher",
    "class": "higher", "agreement": "higher", "errors": "lower", "lost": "lower",
}  # fmt: skip
"""Group of metrics -> direction; a threshold has none."""
COLUMNS = {"FP": "wrongly given (FP)", "FN": "missed (FN)"}
WAYS = {
    "fixed": "fixed before", "swept": "the best on the training pictures' masks",
    "validation": "the best on the validation pictures' masks",
    "activation": "by mean activation, without masks", "otsu": "by Otsu, without masks",
    "total": "by the activation of all classes, without masks",
    "otsu_picture": "by Otsu of each picture, without masks",
    "edges": "by edges, without masks", "stability": "by stability, without masks",
    "confidence": "by the classifier, without masks",
}  # fmt: skip
"""Choice of the threshold -> how a title says it."""


def measured(cfg: Config) -> list[str]:
    """The metrics of a run that its page shows first, the last stage first."""
    found = []
    if cfg.segment.steps and "test" in cfg.masked:
        found.append("segmentation/test/mIoU")
    if "train" in cfg.masked:
        found.append("masks/train/mIoU")
        if not cfg.data.masks_path:
            found.append("seeds/train/mIoU")
    if cfg.is_seed_trained:
        found.append("classifier/test/mAP")
    if cfg.segment.steps and "test" not in cfg.masked:
        found.append("agreement/train/mIoU")
    if not found:
        found.append("threshold/chosen/value")
    return found


def headline(cfg: Config) -> list[str]:
    """At most three of `measured`."""
    return measured(cfg)[:3]


def of_seeds(cfg: Config) -> str:
    """Setting of seeds but for the threshold."""
    if cfg.data.seeds_path:
        return "of others' files, no CRF"
    own = cfg.seeds
    size = f"at {own.size} x {own.size}, " if own.size else ""
    rule = ", SEAM's branch" if own.rule == "seam" else ""
    half = ", bfloat16" if own.precision == "bfloat16" else ""
    return f"{size}{_scales(own.scales, own.flip)}{rule}, no CRF{half}"


def of_threshold(cfg: Config) -> str:
    """How the threshold was chosen."""
    return f"threshold {WAYS[cfg.threshold.how]}"


def of_masks(cfg: Config) -> str:
    """Setting of the pseudo masks."""
    if cfg.data.masks_path:
        return "of others' files"
    crf = "CRF" if cfg.refine.crf else "no CRF"
    if cfg.has_walk:
        names = {"psa": "PSA", "irn": "IRN"}
        return f"random walk of {names[cfg.refine.walk]}, {crf}"
    return f"of seeds, {crf}, {of_threshold(cfg)}"


def of_segmentation(cfg: Config) -> str:
    """Setting of the last stage's test."""
    own = cfg.segment
    labels = "true masks" if own.labels == "true" else "pseudo masks"
    crf = "CRF" if own.crf else "no CRF"
    return f"trained on {labels}, {_scales(own.test_scales, own.flip)}, {crf}"


def _scales(scales: tuple[float, ...], flip: bool) -> str:
    many = "scales" if len(scales) > 1 else "scale"
    shown = " ".join(f"{scale:g}" for scale in scales)
    return f"{many} {shown}, {'with' if flip else 'no'} flips"


def titles(cfg: Config) -> dict[str, str]:
    """Titles of metrics, each with its setting."""
    every = {
        "segmentation/test/mIoU": f"mIoU of segmentation, test ({of_segmentation(cfg)})",
        "masks/train/mIoU": f"mIoU of pseudo masks, training pictures ({of_masks(cfg)})",
        "seeds/train/mIoU": "mIoU of seeds, training pictures "
        f"({of_seeds(cfg)}, {of_threshold(cfg)})",
        "classifier/test/mAP": "mAP of the classifier, test (each class over pictures)",
        "agreement/train/mIoU": "overlap of segmentation and pseudo masks, training pictures "
        "(no measure of either)",
        "threshold/chosen/value": f"{of_threshold(cfg)}",
    }
    found = {key: every[key] for key in measured(cfg)}
    if "train" in cfg.masked:
        found |= COLUMNS
    return found


def notes(cfg: Config, threshold: float) -> list[str]:
    """Lines on a run's protocol."""
    lines = []
    if not cfg.data.masks_path:
        value = "" if threshold == UNSET else f" {threshold:.2f}"
        lines.append(
            f"seeds: {of_seeds(cfg)}; {of_threshold(cfg)}{value}; given the pictures' true labels"
        )
    if cfg.is_seed_trained:
        own = cfg.loss
        tau = f"tau {own.tau_pos:g}" + (
            f", {own.tau_neg:g} for absent classes" if own.tau_neg != own.tau_pos else ""
        )
        gap = " (the mean: usual class activation maps)" if not own.tau_pos else ""
        reg = (
            f"regularisation {own.reg_form}, weight {own.reg_weight:g}"
            if own.has_teacher
            else "no regularisation"
        )
        lines.append(f"{tau}{gap}; {reg}; {cfg.model.name}")
        lines.append("losses are our reading of the paper, whose code was not published")
    lines.append(f"pseudo masks: {of_masks(cfg)}")
    if cfg.segment.steps:
        lines.append(f"segmentation: {of_segmentation(cfg)}")
    lines.append("mIoU is over background and the classes that occur; pixels of 255 do not count")
    return lines
