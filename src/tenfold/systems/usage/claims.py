"""The paper's claims at a scale that can be run here."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from tenfold.core.claim import Claim, Variant
from tenfold.core.optim import Optim

from .backbones import Model
from .config import Config, Data, Loss, Refine, Seeds, Segment, Threshold
from .loss import Form
from .recipes import DEMO, SMALL

WEIGHTS = "TENFOLD_EFFICIENTNET_LITE0"
"""Environment variable that names ImageNet's weights of EfficientNet-Lite0."""
TAU = 0.1
"""Of -0.2, 0.1 and 0.2 the best on validation pictures, whose rows are in the table."""
FORMS: tuple[Form, ...] = ("kl", "l1", "mse")
NONE = Segment(steps=0)


def claims() -> list[Claim[Config]]:
    """A temperature against none, for two families; what it is worth in the end; regularisation."""
    file = os.environ.get(WEIGHTS, "")
    has_weights = bool(file) and Path(file).is_file()
    cnn = _pretrained(file) if has_weights else _from_scratch()
    setting = _setting(has_weights)
    gap, usage = _tau("GAP", cnn, 0.0), _tau(f"USAGE, tau {TAU:g}", cnn, TAU)
    true = replace(cnn, steps=1, segment=replace(cnn.segment, labels="true"), refine=Refine("none"))
    others = (
        _tau("seeds alone, tau -0.2", _seeds_alone(cnn), -0.2),
        _tau("seeds alone, tau 0.2", _seeds_alone(cnn), 0.2),
        Variant("true masks", true),
    )
    found = [
        Claim(
            "A temperature in the generation loss makes better seeds than the mean of the maps.",
            gap, usage, "seeds/train/mIoU", "higher", None, setting, others,
        ),
        Claim(
            "It makes better pseudo masks, too.",
            gap, usage, "masks/train/mIoU", "higher", None, setting,
        ),
        Claim(
            "A segmentation network that learns from them is better, too.",
            gap, usage, "segmentation/test/mIoU", "higher", None, setting,
        ),
    ]  # fmt: skip
    vit = _transformer()
    found.append(
        Claim(
            "A temperature makes better seeds of a transformer.",
            _tau("transformer, GAP", vit, 0.0), _tau(f"transformer, tau {TAU:g}", vit, TAU),
            "seeds/train/mIoU", "higher", None, setting,
            (_tau("transformer, tau -0.2", vit, -0.2),),
        )
    )  # fmt: skip
    trained = _last_stages_trained(cnn)
    plain = _tau("last stages trained", trained, TAU)
    found += [
        Claim(
            f"Regularisation by a teacher ({form}) makes better seeds where last stages are "
            "trained.",
            plain, _regularised(trained, form), "seeds/train/mIoU", "higher", None, setting,
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
        f"The convolutional network is {weights}; the transformer is MCTformer-V2 at a small size, "
        f"from scratch. Tau {TAU:g} is the best of -0.2, 0.1 and 0.2 by seeds of validation "
        "pictures; the threshold of every arm is chosen on these, too. Where last stages are "
        "trained, students drop 0.3 of the channels that a layer relies on most."
    )


def _tau(name: str, cfg: Config, tau: float) -> Variant[Config]:
    return Variant(name, replace(cfg, loss=replace(cfg.loss, tau_pos=tau, tau_neg=tau)))


def _seeds_alone(cfg: Config) -> Config:
    """Without later stages: soon done."""
    return replace(cfg, refine=Refine("none"), segment=NONE)


def _pretrained(file: str) -> Config:
    return replace(SMALL, start=str(Path(file).resolve()))


def _from_scratch() -> Config:
    """A small network on real pictures."""
    data = replace(SMALL.data, crop=128)
    segment = replace(DEMO.segment, crop=128, steps=200)
    return replace(
        SMALL, model=DEMO.model, data=data, seeds=Seeds(size=128, scales=(1.0,)), segment=segment,
        steps=400, optim=DEMO.optim, segment_optim=DEMO.segment_optim,
    )  # fmt: skip


def _transformer() -> Config:
    """MCTformer-V2 with class tokens, small enough to be trained here."""
    return Config(
        model=Model(name="mctformer", width=96, depths=(4,), heads=3, grid=12),
        data=Data(name="coco_wsss", batch_size=16, view="whole", crop=192, jitter=0.0),
        loss=Loss(ema=0.99),
        seeds=Seeds(size=192, scales=(1.0,), rule="mctformer"),
        threshold=Threshold(how="validation"),
        refine=Refine("none"),
        segment=NONE,
        steps=400,
        optim=Optim(lr=5e-4, weight_decay=0.05, schedule="cosine", warmup=40),
        head_lr=1.0,
        loop=SMALL.loop,
    )


def _last_stages_trained(cfg: Config) -> Config:
    """The last two stages learn, too; of the network from scratch all do."""
    if cfg.model.name == "efficientnet-lite0":
        cfg = replace(cfg, model=replace(cfg.model, frozen_stages=6))
        cfg = replace(cfg, optim=replace(cfg.optim, lr=2e-4), head_lr=5.0, steps=150)
    return _seeds_alone(replace(cfg, loss=replace(cfg.loss, strong=0.3)))


def _regularised(cfg: Config, form: Form) -> Variant[Config]:
    loss = replace(
        cfg.loss, tau_pos=TAU, tau_neg=TAU, reg_weight=0.5 if form == "l1" else 0.05, reg_form=form
    )
    return Variant(f"with L_REG, {form}", replace(cfg, loss=loss))
