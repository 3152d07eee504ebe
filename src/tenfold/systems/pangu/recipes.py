"""Recipes for Pangu-Weather. PAPER is the published setting; the others are PAPER, changed."""

from dataclasses import replace

from tenfold.core.loop import Loop
from tenfold.core.optim import Optim

from .config import Config, Data, Evaluation, Model

LEVELS = (1000, 925, 850, 700, 600, 500, 400, 300, 250, 200, 150, 100, 50)
PAPER = Config(
    model=Model(),
    data=Data(
        name="era5",
        upper=("z", "q", "t", "u", "v"),
        levels=LEVELS,
        surface=("msl", "u10", "v10", "t2m"),
        constants=("lsm", "slt", "zs"),
        train="1979-01-01:2017-12-31",
        validation="2019-01-01:2019-12-31",
        test="2018-01-01:2018-12-31",
        batch_size=192,
    ),
    optim=Optim(name="adam", lr=5e-4, weight_decay=3e-6, schedule="cosine"),
    leads=(24, 6, 3, 1),
    epochs=100,
)
LITE = replace(
    PAPER,
    model=replace(PAPER.model, patch=(2, 8, 8), window=(2, 6, 6)),
    data=replace(PAPER.data, train="2007-01-01:2017-12-31", batch_size=8),
    leads=(24,),
)
"""Pangu-lite, one GPU; window 6 along longitude, as 12 does not divide 90 (the authors do not say
what they do)."""
SMALL = replace(
    PAPER,
    model=Model(
        dim=48,
        depths=(2, 2, 2, 2),
        heads=(3, 6, 6, 3),
        patch=(2, 2, 2),
        window=(2, 4, 8),
        residual=True,
    ),
    data=Data(name="pangu_atmos", constants=("lsm", "orog"), batch_size=8),
    evaluation=Evaluation(hours=(6, 12, 24, 30, 48, 72), members=8),
    optim=Optim(name="adam", lr=1e-3, weight_decay=3e-6, schedule="cosine", warmup=50),
    loop=Loop(amp="auto", validate_every=220),
    leads=(24, 6),
    epochs=20,
)
"""A core, a quarter of an hour: the simulated set, 5 levels on 32 x 64. Rate and schedule
were chosen beforehand, not tuned."""
DAY = replace(SMALL, leads=(24,), evaluation=replace(SMALL.evaluation, members=0))
SIX = replace(DAY, leads=(6,))
DAY_OFFICIAL = replace(DAY, model=replace(DAY.model, residual=False))
SIX_OFFICIAL = replace(SIX, model=replace(SIX.model, residual=False))
STORM = replace(
    SMALL,
    model=replace(SMALL.model, window=(2, 4, 6)),
    data=Data(
        name="pangu_atmos",
        file="storm1996_6h.nc",
        upper=("u", "v"),
        levels=(500,),
        surface=("msl", "t", "u", "v"),
        train="1996-01-10:1996-01-20",
        test="1996-01-05:1996-01-09",
        batch_size=4,
    ),
    evaluation=Evaluation(hours=(6, 12, 24, 48)),
    loop=Loop(amp="auto"),
    leads=(6,),
    steps=300,
    epochs=1,
)
"""A region of real analyses with missing corners: eleven days to learn from, five to report. It
shows that regions work, not what a regional model can do."""
DEMO = replace(
    DAY,
    model=replace(DAY.model, dim=32, heads=(2, 4, 4, 2)),
    evaluation=Evaluation(hours=(24, 48, 72), every=12),
    loop=Loop(amp="auto", log_every=5),
    steps=50,
)
DEMO_BASELINE = replace(DEMO, leads=(6,))

RECIPES = {
    "paper": PAPER,
    "lite": LITE,
    "small": SMALL,
    "day": DAY,
    "six": SIX,
    "day-official": DAY_OFFICIAL,
    "six-official": SIX_OFFICIAL,
    "storm": STORM,
    "demo": DEMO,
    "demo-baseline": DEMO_BASELINE,
}
