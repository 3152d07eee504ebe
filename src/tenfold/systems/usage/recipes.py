"""Recipes for USAGE. PAPER is DeiT with MCTformer's tokens; the others are it, changed."""

from dataclasses import replace

from tenfold.core.loop import Loop
from tenfold.core.optim import Optim

from .backbones import Model
from .config import Config, Data, Loss, Refine, Seeds, Segment, Threshold

POLY = Optim(name="sgd", lr=0.1, momentum=0.0, weight_decay=5e-4, schedule="linear", power=0.9)
RESNET38 = Config(
    model=Model(name="resnet38", frozen_stages=2, dropout=0.5),
    loss=Loss(tau_pos=-0.1, tau_neg=-0.1),
)
"""PSA's classifier; the abstract has its maps under-activated, so tau below 0 (ours)."""
PAPER = Config(
    model=Model(name="mctformer"),
    data=Data(
        batch_size=64, view="inception", crop=224, jitter=0.0, rand_augment=True, holdout=0.0
    ),
    loss=Loss(tau_pos=0.1, tau_neg=0.1),
    seeds=Seeds(size=224, scales=(1.0,), rule="mctformer"),
    refine=Refine(walk="none", crf=True),
    segment=Segment(encoder="mit", head="segformer", crop=320),
    steps=9_900,
    optim=Optim(lr=6.25e-5, weight_decay=0.05, schedule="cosine", warmup=825, floor=0.16),
    head_lr=1.0,
)  # fmt: skip
"""MCTformer-V2 on VOC: 60 epochs of 165 steps; its maps are over-activated, so tau above 0."""
COCO = replace(PAPER, data=replace(PAPER.data, name="coco2014"), steps=76_800)
SMALL = Config(
    model=Model(name="efficientnet-lite0", frozen_stages=-1),
    data=Data(
        name="coco_wsss", batch_size=16, view="whole", crop=256, jitter=0.0
    ),
    loss=Loss(tau_pos=0.1, tau_neg=0.1, ema=0.99),
    seeds=Seeds(size=256, scales=(1.0,)),
    threshold=Threshold(
        compare=("total", "activation", "otsu", "otsu_picture", "edges", "stability", "confidence"),
        pictures=40,
    ),
    refine=Refine(walk="none", crf=True, crf_pixels=1024),
    segment=Segment(head="segformer", view="whole", crop=256, batch_size=16, steps=300),
    steps=270,
    optim=Optim(name="adam", lr=1e-3),
    segment_optim=Optim(name="adam", lr=1e-3, schedule="linear"),
    head_lr=1.0,
    loop=Loop(log_every=20),
)  # fmt: skip
"""A frozen backbone, whose features are kept: start it from ImageNet's weights of
EfficientNet-Lite0 (--start FILE). Under five minutes of one core, evaluation included."""
DEMO = replace(
    SMALL,
    model=Model(
        name="resnet18", width=16, depths=(1, 1, 1, 1), output_stride=4, freeze_norm=False
    ),
    data=replace(SMALL.data, name="shapes_wsss", crop=64, generated=(96, 24)),
    loss=replace(SMALL.loss, tau_pos=0.3, tau_neg=0.3),
    seeds=replace(SMALL.seeds, size=64),
    threshold=Threshold(),
    refine=replace(SMALL.refine, crf=False),
    segment=replace(
        SMALL.segment, encoder="resnet18", head="deeplab", width=16, crop=64, steps=60
    ),
    steps=120,
    optim=Optim(lr=3e-3, schedule="cosine", warmup=10),
    segment_optim=Optim(lr=3e-3, schedule="cosine", warmup=10),
    loop=Loop(log_every=10),
)  # fmt: skip
DEMO_BASELINE = replace(DEMO, loss=replace(DEMO.loss, tau_pos=0.0, tau_neg=0.0))
"""The usual classifier of class activation maps: the mean of a map is its score."""

RECIPES = {
    "paper": PAPER,
    "paper-resnet38": RESNET38,
    "paper-coco": COCO,
    "small": SMALL,
    "demo": DEMO,
    "demo-baseline": DEMO_BASELINE,
}
