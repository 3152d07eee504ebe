"""Recipes for iTPN. PAPER is iTPN-B on pixels; the others are PAPER, changed."""

from dataclasses import replace

from tenfold.core.loop import Loop
from tenfold.core.optim import Optim

from .config import Config, Data, Dense, Finetune, Model, Pretrain

PAPER = Config(data=replace(Data(), batch_size=4096))
PAPER_FINETUNE = replace(
    PAPER,
    tasks=("classify",),
    model=replace(PAPER.model, bias="full", drop_path=0.15),
    data=replace(PAPER.data, batch_size=1024, crop_scale=(0.08, 1.0)),
    warmup_share=0.05,
)
PAPER_CLIP = replace(
    PAPER,
    model=replace(
        PAPER.model, family="clip", layer_scale=0.1, bias="full", fpn_depth=1, drop_path=0.1
    ),
    data=replace(PAPER.data, batch_size=2048, normalise="half"),
    pretrain=replace(PAPER.pretrain, method="clip", epochs=300),
    pretrain_optim=Optim(
        lr=1.5e-3, betas=(0.9, 0.98), weight_decay=0.05, schedule="cosine", ramp="linspace",
        floor=1e-5 / 1.5e-3,
    ),
    warmup_share=5 / 300,
)  # fmt: skip
PAPER_SEGMENT = replace(
    PAPER,
    tasks=("segment",),
    model=replace(PAPER.model, bias="full", drop_path=0.1),
    data=Data(name="ade20k", batch_size=16),
    dense=Dense(epochs=127, resize=(512, 2048)),
    optim=Optim(lr=3e-5, weight_decay=0.05, schedule="linear", warmup=1500),
)
PAPER_DETECT = replace(
    PAPER,
    tasks=("detect",),
    model=replace(PAPER.model, drop_path=0.05),
    data=Data(name="coco2017", batch_size=64),
    dense=Dense(epochs=12, head_dim=256),
    optim=Optim(
        lr=2e-4, weight_decay=0.05, schedule="step", milestones=(0.75, 11 / 12), warmup=500
    ),
)

NANO = Model(
    size=64, patch_size=8, embed_dim=96, depths=(1, 1, 4), heads=3, fpn_dim=32, fpn_depth=1
)
"""0.6 million parameters with the decoder, for 64-pixel pictures."""
PLAIN = Finetune(
    epochs=6, localise_epochs=4, layer_decay=0.75, mixup=0.0, cutmix=0.0, erasing=0.0,
    rand_augment=False,
)  # fmt: skip
"""Short fine-tuning has no time for strong augmentation (ours)."""
SMALL = replace(
    PAPER,
    tasks=("pretrain",),
    model=NANO,
    data=Data(name="tiny_imagenet_20", batch_size=128, crop_scale=(0.3, 1.0), test_crop=1.0),
    pretrain=Pretrain(epochs=15, decoder_dim=64, decoder_depth=1, decoder_heads=4),
    finetune=PLAIN,
    pretrain_optim=replace(PAPER.pretrain_optim, lr=1.2e-3),
    optim=Optim(lr=1.2e-3, weight_decay=0.05, schedule="cosine", ramp="zero", floor=0.01),
    loop=Loop(amp="auto", log_every=20),
)
"""Real photos at 64 pixels; ten minutes of one core."""
CLASSIFY = replace(SMALL, tasks=("classify",))
LOCALISE = replace(SMALL, tasks=("localise",))
SEGMENT = replace(
    SMALL,
    tasks=("segment",),
    data=Data(name="camvid", batch_size=8, holdout=0.1),
    dense=Dense(epochs=8, size=192, stride=0, scales=(0.75, 1.5), head_dim=64, layer_decay=0.9),
    optim=Optim(lr=1e-3, weight_decay=0.05, schedule="linear"),
)
"""UPerHead on street pictures. Start it from a run: --start runs/itpn-small."""
DETECT = replace(
    SMALL,
    tasks=("detect",),
    data=Data(name="car_parts", batch_size=8, holdout=0.1),
    dense=Dense(
        epochs=8, head_dim=64, fc_dim=256, short_sides=(160, 176, 192), longest=256, crop=False,
        proposals=128, layer_decay=0.9,
    ),
    optim=Optim(lr=1e-3, weight_decay=0.05, schedule="step", milestones=(0.75, 0.92)),
)  # fmt: skip
"""Mask R-CNN on parts of cars. Start it from a run: --start runs/itpn-small."""
DEMO = replace(
    SMALL,
    tasks=("pretrain", "classify", "localise"),
    data=replace(SMALL.data, batch_size=64),
    loop=replace(SMALL.loop, log_every=10),
    steps=35,
    probes=False,  # they take half of the demo's time, and so few steps teach little to probe
)
DEMO_BASELINE = replace(DEMO, pretrain=replace(DEMO.pretrain, pyramid=False))

RECIPES = {
    "paper": PAPER,
    "paper-finetune": PAPER_FINETUNE,
    "paper-clip": PAPER_CLIP,
    "paper-segment": PAPER_SEGMENT,
    "paper-detect": PAPER_DETECT,
    "small": SMALL,
    "classify": CLASSIFY,
    "localise": LOCALISE,
    "segment": SEGMENT,
    "detect": DETECT,
    "demo": DEMO,
    "demo-baseline": DEMO_BASELINE,
}
