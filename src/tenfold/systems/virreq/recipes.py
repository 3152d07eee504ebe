"""Recipes for ViRReq. PAPER is the authors' setting of Type-I on ADE20K's crops; the others are
PAPER, changed."""

from dataclasses import replace

from tenfold.core.loop import Loop
from tenfold.core.optim import Optim

from .config import Config, Data, Loss, Model, Separate, Text

PAPER = Config()

TINY = Model(
    dims=(16, 32, 64, 96), depths=(1, 1, 2, 1), heads=(1, 2, 4, 6), drop_path=0.0, head_dim=64
)
"""0.7 million parameters, half of them the step into the space of texts."""
SMALL = replace(
    PAPER,
    model=TINY,
    text=Text(source="table", prompt="a-name", centred=True, draw=True),
    data=Data(batch_size=8, crop=144, scales=(0.6, 1.2)),
    loss=Loss(groups="parent", outside="ignore", others_weight=1.0, part_weight=1.0),
    separate=Separate(network="small", steps=800, batch_size=4, proposals=64),
    separate_optim=Optim(lr=1e-3, weight_decay=1e-4, schedule="linear", warmup=50, clip=5.0),
    steps=3000,
    optim=Optim(lr=1e-3, weight_decay=0.01, schedule="linear", warmup=100),
    head_lr=1.0,
    loop=Loop(log_every=20, amp="auto"),
)
"""Clothes at 256 pixels' height, on two cores. The first level is labelled completely."""
DEMO = replace(
    SMALL,
    model=replace(TINY, head_dim=32),
    data=replace(SMALL.data, name="dolls", crop=64, scales=(0.8, 1.2), batch_size=8, labelled=0.3),
    text=replace(SMALL.text, source="learned", dim=32),
    separate=replace(SMALL.separate, steps=80),
    separate_optim=replace(SMALL.separate_optim, lr=2e-3, warmup=10),
    steps=150,
    optim=replace(SMALL.optim, lr=2e-3, warmup=10),
    loop=Loop(log_every=5),
)

"""Three of ten dolls and carts have labels of their parts."""
DEMO_BASELINE = replace(DEMO, loss=replace(DEMO.loss, part_others_weight=1.0))
"""What nobody labelled is taken for absent."""

RECIPES = {"paper": PAPER, "small": SMALL, "demo": DEMO, "demo-baseline": DEMO_BASELINE}
