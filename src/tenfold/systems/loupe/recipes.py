"""Recipes for LOUPE. PAPER is the paper's towers; the others are PAPER, changed."""

from dataclasses import replace

from tenfold.core.loop import Loop
from tenfold.core.optim import Optim

from .config import Config, Data, Games, Image, Loss, Text

PAPER = Config()

SWIN_T = replace(
    PAPER, image=Image(dim=96, depths=(2, 2, 6, 2), heads=(3, 6, 12, 24)), data=Data(batch_size=64)
)
"""Swin-T and BERT-small: towers whose public weights fit a desktop."""
SMALL = replace(
    PAPER,
    image=Image(tower="vit", size=112, patch=16, stem="conv", dim=128, depths=(2,), heads=(4,)),
    text=Text(
        tokens="words", most=32, dim=128, depth=1, heads=4, hidden=512, positions=32, vector="mean"
    ),
    dim=128,
    games=Games(how="sampled"),
    steps=1500,
    optim=Optim(
        lr=1.5e-3,
        betas=(0.9, 0.98),
        weight_decay=0.05,
        schedule="cosine",
        warmup=75,
        floor=0.05,
        clip=1.0,
    ),
    loop=Loop(log_every=20, threads=1),
)
"""Tiny towers on two cores: 49 patches, as many tokens as the paper's."""
DEMO = replace(
    SMALL,
    image=Image(tower="vit", size=48, patch=8, dim=48, depths=(1,), heads=(2,)),
    text=replace(SMALL.text, dim=48, heads=2, hidden=96, most=24, positions=24),
    dim=48,
    games=Games(how="unsil", samples=16, regions=4, always=60),
    loss=Loss(ramp=(0.1, 0.3)),
    data=Data(name="shapes", batch_size=32),
    steps=300,
    optim=replace(SMALL.optim, lr=3e-3, warmup=20),
    loop=Loop(log_every=5),
)
DEMO_BASELINE = replace(DEMO, loss=Loss(token=0.0, semantic=0.0))
"""The contrastive loss alone."""

RECIPES = {
    "paper": PAPER,
    "swin-t": SWIN_T,
    "small": SMALL,
    "demo": DEMO,
    "demo-baseline": DEMO_BASELINE,
}
