"""Recipes for PPMoE. PAPER has the paper's sizes (data and rates are unknown); others are small."""

from dataclasses import replace

from tenfold.core.loop import Loop
from tenfold.core.optim import Optim

from .config import Config, Data, Layout, Model

PAPER = Config(
    model=Model(),
    layout=Layout(pp=4, tp=8),
    data=Data(tokenizer="bpe", bpe_vocab=50257),
    optim=Optim(
        name="adamw", lr=3e-4, betas=(0.9, 0.95), weight_decay=0.1, clip=1.0, schedule="cosine",
        warmup=500, floor=0.1,
    ),
    steps=100_000,
    batch=8,
    loop=Loop(accumulate=16, amp="auto"),
)  # fmt: skip
"""6.7 B parameters on 32 processes: 24 layers of width 1024, 64 experts, top-1, TP 8, PP 4."""
LARGE = replace(
    PAPER,
    model=replace(PAPER.model, layers=32, hidden=4096, heads=32),
    layout=replace(PAPER.layout, pp=16),
    batch=4,
    loop=replace(PAPER.loop, accumulate=64),
)
"""143 B parameters on 128 processes."""
SMALL = replace(
    PAPER,
    model=Model(layers=4, hidden=128, heads=4, seq=128, experts=8),
    layout=Layout(),
    data=Data(),
    optim=replace(PAPER.optim, lr=8e-3, warmup=50),
    steps=1000,
    batch=16,
    loop=Loop(),
)
"""Two cores, minutes: bytes, 8 experts in 2 of 4 blocks. The rate was chosen for both networks on
held-out training text, 600 steps: of 2e-3, 4e-3 and 8e-3 the last was best for both."""
TOP2 = replace(SMALL, model=replace(SMALL.model, top_k=2))
DENSE = replace(SMALL, model=replace(SMALL.model, kind="dense"))
DEMO = replace(
    SMALL, steps=90, optim=replace(SMALL.optim, lr=3e-3, warmup=20), data=Data(eval_windows=64),
    loop=Loop(log_every=5),
)  # fmt: skip
DEMO_BASELINE = replace(DEMO, model=DENSE.model)

RECIPES = {
    "paper": PAPER,
    "large": LARGE,
    "small": SMALL,
    "top2": TOP2,
    "dense": DENSE,
    "demo": DEMO,
    "demo-baseline": DEMO_BASELINE,
}
