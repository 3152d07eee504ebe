"""Recipes for LDC. PAPER is the released code on CIFAR-100; the others are PAPER, changed."""

from dataclasses import replace

from tenfold.core.loop import Loop
from tenfold.core.optim import Optim

from .config import Calibration, Config, Data, Model

OFFICIAL = Calibration()
"""The released code, with what its paper says it does: a trained unit, full-rank noise (version 1),
features of the trained encoder."""
RELEASED = replace(OFFICIAL, unit="untrained")
"""Behaviour of the released code as run: the unit's weights are put back to where they began."""
NO_UNIT = replace(OFFICIAL, unit="none")
REFERENCE = Calibration(
    space="tukey",
    base_vectors="learned",
    tuned="new",
    residual=True,
    loss="normalised",
    step="all",
    redraw=True,
    epochs=400,
    samples=100,
    calibrated_share=0.25,
    fixed_samples=False,
    covariance="pooled",
    session_epochs=100,
    session_batch=0,
    session_lr=0.1,
    dampening=0.0,
    shuffle=True,
)
"""The official code's flaws mended (each a switch of `Calibration`), and what its weakness at small
scale called for: chosen on base classes alone, see docs/systems/ldc.md."""

OFFICIAL_OPTIM = Optim(name="sgd", lr=0.1, dampening=0.9)
REFERENCE_OPTIM = Optim(name="adam", lr=1e-3)

PAPER = Config(
    model=Model(),
    data=Data(),
    calibration=OFFICIAL,
    optim=Optim(
        name="sgd", lr=0.1, nesterov=True, weight_decay=5e-4, schedule="step",
        milestones=(0.6, 0.7),
    ),
    unit_optim=OFFICIAL_OPTIM,
    epochs=100,
)  # fmt: skip
MINI = replace(
    PAPER,
    model=Model(kind="resnet18"),
    data=replace(PAPER.data, name="mini_imagenet", augment="resized"),
    optim=replace(PAPER.optim, milestones=(0.4, 0.7)),
)
CUB = replace(
    PAPER,
    model=Model(kind="resnet18"),
    data=replace(PAPER.data, name="cub200", augment="resized"),
    optim=replace(PAPER.optim, lr=0.01, milestones=(0.3, 0.4, 0.6, 0.8)),
)
SMALL = replace(
    PAPER,
    data=replace(PAPER.data, name="tiny_imagenet_fscil", draws=5, rotations=True),
    calibration=REFERENCE,
    unit_optim=REFERENCE_OPTIM,
    optim=replace(PAPER.optim, schedule="cosine", milestones=(), warmup=112),
    epochs=60,
    loop=Loop(amp="auto", workers=1, log_every=20),
)
"""Real photos at 32 pixels, twenty minutes of one core. `--data.path FOLDER` takes any folder of
class folders instead."""
DEMO = replace(
    SMALL,
    data=replace(SMALL.data, base=20, way=2),
    optim=replace(SMALL.optim, warmup=20),
    epochs=3,
    loop=replace(SMALL.loop, log_every=5),
)
DEMO_BASELINE = replace(DEMO, head="ncm")

RECIPES = {
    "paper": PAPER,
    "mini-imagenet": MINI,
    "cub200": CUB,
    "small": SMALL,
    "demo": DEMO,
    "demo-baseline": DEMO_BASELINE,
}
