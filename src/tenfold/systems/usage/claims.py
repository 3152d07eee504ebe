"""The paper's claims at a scale that can be run here: half an hour of one core."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from tenfold.core.claim import Claim, Variant
from tenfold.core.optim import Optim

from .backbones import Model
from .config import Config, Loss, Refine, Seeds, Segment, Threshold
from .loss import Form
from .recipes import DEMO, SMALL

WEIGHTS = "TENFOLD_EFFICIENTNET_LITE0"
"""Environment variable that names ImageNet's weights of EfficientNet-Lite0."""
TAU = 0.1
"""Of -0.2, 0.1 and 0.2 the best on validation pictures (claims/usage_threshold.py)."""
FORMS: tuple[Form, ...] = ("kl", "l1", "mse")
PICTURES = 200
"""Training pictures; 0.15 of them are held out for validation."""
NONE = Segment(steps=0)
BY_VALIDATION = Threshold(how="validation", compare=("activation",))


def claims() -> list[Claim[Config]]:
    """A temperature against none, for two families; what it is worth in the end; regularisation."""
    file = os.environ.get(WEIGHTS, "")
    has_weights = bool(file) and Path(file).is_file()
    cnn = pretrained(file) if has_weights else _from_scratch()
    setting = _setting(has_weights)
    alone = _seeds_alone(cnn)
    gap, usage = _tau("GAP", alone, 0.0), _tau(f"USAGE, tau {TAU:g}", alone, TAU)
    gap_end = _tau("GAP, to the end", cnn, 0.0)
    usage_end = _tau(f"USAGE, tau {TAU:g}, to the end", cnn, TAU)
    true = replace(cnn, steps=1, segment=replace(cnn.segment, labels="true"), refine=Refine("none"))
    found = [
        Claim(
            "A temperature in the generation loss makes better seeds than the mean of the maps.",
            gap, usage, "seeds/train/mIoU", "higher", None, setting,
        ),
        Claim(
            "It makes better pseudo masks, too.",
            gap_end, usage_end, "masks/train/mIoU", "higher", None, TO_THE_END,
            (Variant("true masks", true),),
        ),
        Claim(
            "A segmentation network that learns from them is better, too.",
            gap_end, usage_end, "segmentation/test/mIoU", "higher", None, TO_THE_END,
        ),
    ]  # fmt: skip
    vit = _transformer()
    found.append(
        Claim(
            "A temperature makes better seeds of a transformer.",
            _tau("transformer, GAP", vit, 0.0), _tau(f"transformer, tau {TAU:g}", vit, TAU),
            "seeds/train/mIoU", "higher", None, TRANSFORMER,
        )
    )  # fmt: skip
    trained = _last_stage_trained(cnn)
    plain = _tau("last stage trained", trained, TAU)
    found += [
        Claim(
            f"Regularisation by a teacher ({form}) makes better seeds where the last stage is "
            "trained.",
            plain, _regularised(trained, form), "seeds/train/mIoU", "higher", None, REGULARISED,
        )
        for form in FORMS
    ]  # fmt: skip
    return found


def _setting(has_weights: bool) -> str:
    weights = (
        "EfficientNet-Lite0 with ImageNet's weights, frozen but for the last convolution"
        if has_weights
        else f"a small ResNet from scratch, as ${WEIGHTS} names no ImageNet weights"
    )
    return (
        f"The convolutional network is {weights}. Tau {TAU:g} is the best of -0.2, 0.1 and 0.2 by "
        "seeds of validation pictures (claims/usage-threshold.md), which are held out of the "
        "training pictures; the threshold of every arm is chosen on these, too."
    )


TO_THE_END = (
    "The segmentation network is the seed network's backbone with SegFormer's head, trained for a "
    "short time; the CRF is solved on a grid of 256 cells. Of the row `true masks` the "
    "segmentation alone counts: its seed network has one step."
)
TRANSFORMER = "The transformer is MCTformer-V2 at a small size, from scratch, whose maps are weak."
REGULARISED = (
    "Where the last stage is trained, students drop 0.3 of the channels that a layer relies on "
    "most."
)


def _tau(name: str, cfg: Config, tau: float) -> Variant[Config]:
    return Variant(name, replace(cfg, loss=replace(cfg.loss, tau_pos=tau, tau_neg=tau)))


def _seeds_alone(cfg: Config) -> Config:
    """Without later stages: soon done."""
    return replace(cfg, refine=Refine("none"), segment=NONE)


def pretrained(file: str) -> Config:
    """The recipe `small` from ImageNet's weights, on fewer pictures, for fewer steps."""
    return replace(
        SMALL,
        data=replace(SMALL.data, limit=PICTURES),
        threshold=BY_VALIDATION,
        refine=replace(SMALL.refine, crf_pixels=256),
        segment=replace(SMALL.segment, head="segformer", batch_size=8, steps=80),
        steps=110,
        start=str(Path(file).resolve()),
    )


def _from_scratch() -> Config:
    """A small network on real pictures."""
    data = replace(SMALL.data, crop=128)
    segment = replace(DEMO.segment, crop=128, steps=200)
    return replace(
        SMALL, model=DEMO.model, data=data, seeds=Seeds(size=128, scales=(1.0,)),
        threshold=BY_VALIDATION, refine=replace(SMALL.refine, crf_pixels=256), segment=segment,
        steps=400, optim=DEMO.optim, segment_optim=DEMO.segment_optim,
    )  # fmt: skip


def _transformer() -> Config:
    """MCTformer-V2 with class tokens, small enough to be trained here."""
    return Config(
        model=Model(name="mctformer", width=96, depths=(4,), heads=3, grid=8),
        data=replace(SMALL.data, crop=128, limit=PICTURES),
        loss=Loss(ema=0.99),
        seeds=Seeds(size=128, scales=(1.0,), rule="mctformer"),
        threshold=BY_VALIDATION,
        refine=Refine("none"),
        segment=NONE,
        steps=200,
        optim=Optim(lr=5e-4, weight_decay=0.05, schedule="cosine", warmup=20),
        head_lr=1.0,
        loop=SMALL.loop,
    )


def _last_stage_trained(cfg: Config) -> Config:
    """The last stage and what is behind it learn, too; of the network from scratch all does."""
    if cfg.model.name == "efficientnet-lite0":
        cfg = replace(cfg, model=replace(cfg.model, frozen_stages=7))
        cfg = replace(cfg, data=replace(cfg.data, batch_size=8))
        cfg = replace(cfg, optim=replace(cfg.optim, lr=2e-4), head_lr=5.0, steps=100)
    return _seeds_alone(replace(cfg, loss=replace(cfg.loss, strong=0.3)))


def _regularised(cfg: Config, form: Form) -> Variant[Config]:
    loss = replace(
        cfg.loss, tau_pos=TAU, tau_neg=TAU, reg_weight=0.5 if form == "l1" else 0.05, reg_form=form
    )
    return Variant(f"with L_REG, {form}", replace(cfg, loss=loss))
