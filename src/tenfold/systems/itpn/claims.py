"""The paper's claim at a scale that can be run here."""

from __future__ import annotations

from dataclasses import replace

from tenfold.core.claim import Claim, Numbers, Variant

from .config import Config
from .recipes import SMALL

WHOLE = replace(SMALL, tasks=("pretrain", "classify", "localise"))
"""One run pre-trains and then fine-tunes both tasks."""
ITPN = Variant("iTPN", WHOLE)
MAE = Variant("HiViT-MAE", replace(WHOLE, pretrain=replace(WHOLE.pretrain, pyramid=False)))
SCRATCH = Variant("from scratch", replace(WHOLE, tasks=("classify", "localise")))

SETTING = (
    "HiViT-MAE pre-trains the same backbone without the pyramid, which starts at random in "
    "localisation; all three fine-tune with equal steps, from scratch without pre-training"
)


def _claim(
    says: str, baseline: Variant[Config], metric: str, paper: Numbers | None
) -> Claim[Config]:
    others = tuple(arm for arm in (SCRATCH, MAE) if arm != baseline)
    return Claim(says, baseline, ITPN, metric, "higher", paper, SETTING, others)


def claims() -> list[Claim[Config]]:
    """Against both baselines, on a dense task and on classification."""
    return [
        _claim(
            "On a dense task, localisation, a pre-trained pyramid beats one that starts at random.",
            MAE,
            "overlap/localised/iou",
            Numbers(49.5, 53.0, "COCO box AP, HiViT-B against iTPN-B, Mask R-CNN 1x (repository)"),
        ),
        _claim(
            "Pre-training beats training from scratch in localisation.",
            SCRATCH,
            "overlap/localised/iou",
            None,
        ),
        _claim(
            "Pre-training the pyramid too improves fine-tuned classification.",
            MAE,
            "accuracy/fine-tuned/top1",
            Numbers(84.2, 85.1, "ImageNet top-1, HiViT-B 800 epochs, iTPN-B 400 (repository)"),
        ),
        _claim(
            "Pre-training beats training from scratch in classification.",
            SCRATCH,
            "accuracy/fine-tuned/top1",
            None,
        ),
        _claim(
            "Pre-training the pyramid too makes frozen features better.",
            MAE,
            "accuracy/linear probe/top1",
            None,
        ),
    ]
