"""Recipes for DTS. PAPER is DTS on DAFormer; the others are PAPER, changed."""

from dataclasses import replace

from tenfold.core.loop import Loop
from tenfold.core.optim import Optim

from .config import Config, Data, Groups, Host, Model

PAPER = Config(
    optim=Optim(
        lr=6e-5, weight_decay=0.01, schedule="linear", warmup=1500, ramp="product", ramp_floor=1e-6
    ),
)
HRDA = replace(
    PAPER,
    model=replace(PAPER.model, detail=(512, 512)),
    data=replace(
        PAPER.data, source_size=(1440, 2560), target_size=(1024, 2048), crop=(1024, 1024),
        rare_share=2.0, border=(30, 240, 30, 30), border_of="image",
    ),
    host=replace(PAPER.host, name="hrda"),
)  # fmt: skip
"""DTS on HRDA."""
MIC = replace(HRDA, host=replace(HRDA.host, name="mic"))
"""DTS on MIC on HRDA, the paper's best."""
SYNTHIA = replace(PAPER, data=replace(PAPER.data, source="synthia", source_size=(760, 1280)))

TINY = Model(
    dims=(16, 32, 64, 96), depths=(1, 1, 2, 1), heads=(1, 2, 4, 6), drop_path=0.0, head_dim=64
)
"""0.6 million parameters."""
SMALL = replace(
    PAPER,
    model=Model(
        encoder="resnet18", width=16, output_stride=16, head="segformer", head_dim=64,
    ),
    data=Data(
        source="streetsim", target="camvid", batch_size=6, source_size=(120, 160),
        target_size=(120, 160), crop=(96, 128), rare_temperature=0.1, rare_pixels=20,
        rare_share=0.0, border=(0, 0, 0, 0),
    ),
    host=Host(threshold=0.9, alpha=0.99, feature_weight=0.0, mask_block=16),
    groups=Groups(warmup=50, deploy="teacher2"),
    source_steps=2000,
    steps=400,
    source_optim=Optim(lr=5e-3, weight_decay=0.01, schedule="linear", warmup=50),
    optim=Optim(lr=3e-3, weight_decay=0.01, schedule="linear", warmup=50),
    head_lr=1.0,
    loop=Loop(log_every=20, amp="auto"),
)  # fmt: skip
"""Rendered streets to Cambridge at 160 x 120, four minutes of one core; 0.7 million parameters.
Chosen by what rendered streets of another style, as the target, gain in the time."""
DEMO = replace(
    SMALL,
    model=replace(TINY, head_dim=32),
    data=replace(
        SMALL.data,
        batch_size=4,
        source_size=(96, 128),
        target_size=(96, 128),
        crop=(64, 96),
        test_every=4,
    ),
    groups=Groups(warmup=5),
    source_steps=80,
    steps=30,
    source_optim=replace(SMALL.source_optim, lr=2e-3, warmup=5),
    optim=replace(SMALL.optim, lr=3e-4, warmup=5),
    head_lr=2.0,
    loop=Loop(log_every=5),
)
DEMO_BASELINE = replace(DEMO, method="host", groups=replace(DEMO.groups, deploy="student1"))

RECIPES = {
    "paper": PAPER,
    "paper-hrda": HRDA,
    "paper-mic": MIC,
    "paper-synthia": SYNTHIA,
    "small": SMALL,
    "demo": DEMO,
    "demo-baseline": DEMO_BASELINE,
}
