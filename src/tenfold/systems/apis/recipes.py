"""Recipes for APIS. PAPER is the official schedule on COCO; the others are it, smaller."""

from dataclasses import replace

from tenfold.core.loop import Loop
from tenfold.core.optim import Optim

from .config import Config, Data, Detection, Loss, Model, Points

PAPER = Config()
POINTS = replace(PAPER, loss=replace(PAPER.loss, supervision="points"))
"""As the published configurations are, which turn the losses of boxes off."""
SMALL = Config(
    model=Model(
        backbone="small", channels=64, groups=8, convs=2, bounds=(32, 64, 128), branch=32,
        branch_convs=2, proposals=128,
    ),
    data=Data(
        name="clothing_parsing", batch_size=8, short_sides=(112, 128), test_side=128, longest=224,
        one_class=True, least=150,
    ),
    loss=Loss(warmup=600, bottom=0),
    points=Points(rounds=5),
    detection=Detection(most=50),
    steps=2000,
    round_steps=200,
    optim=Optim(name="adam", lr=1e-3, schedule="cosine", warmup=50, clip=5.0, floor=0.1),
    round_optim=Optim(name="adam", lr=5e-4, schedule="cosine", warmup=10, clip=5.0, floor=0.1),
    loop=Loop(log_every=20),
)  # fmt: skip
"""From scratch, on small pictures."""
DEMO = replace(
    SMALL,
    model=replace(
        SMALL.model, widths=(16, 24, 32, 48), channels=32, convs=1, bounds=(24, 48), branch=16,
        branch_convs=1,
    ),
    data=replace(
        SMALL.data, name="hollows", short_sides=(64,), test_side=64, longest=64, least=1,
        one_class=False, batch_size=4, generated=(64, 24),
    ),
    loss=replace(SMALL.loss, warmup=60),
    points=replace(SMALL.points, rounds=2),
    steps=220,
    round_steps=40,
    optim=replace(SMALL.optim, lr=3e-3, warmup=10),
    round_optim=replace(SMALL.round_optim, lr=2e-3),
    loop=Loop(log_every=10),
)  # fmt: skip
DEMO_BASELINE = replace(DEMO, points=replace(DEMO.points, strategy="random"))
"""Pixels at random, of which the paper says that they are worth less."""

RECIPES = {
    "paper": PAPER,
    "paper-points": POINTS,
    "small": SMALL,
    "demo": DEMO,
    "demo-baseline": DEMO_BASELINE,
}
