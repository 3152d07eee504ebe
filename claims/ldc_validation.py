"""How LDC's reference settings were chosen: a protocol made of base classes alone.

    python claims/ldc_validation.py [--epochs 60] [--runs runs/claims/ldc-validation]

40 of the 60 base classes of `tiny_imagenet_fscil` play the base session (their first 200
pictures), the other 20 arrive in 4 sessions of 5 (five draws of 5 photos); tested on the last 40
pictures of each class. No picture of the real new classes and no test picture is read.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import torch

from tenfold.core import dist, log, loop
from tenfold.core.stage import Stage
from tenfold.data.images import fscil, fscil_open
from tenfold.report.markdown import md_table
from tenfold.runner.weights import construct
from tenfold.systems.ldc import Ldc, comparison
from tenfold.systems.ldc.calibration_unit import Unit
from tenfold.systems.ldc.config import Calibration
from tenfold.systems.ldc.evaluation import Course, evaluate, scores, summary
from tenfold.systems.ldc.heads import Head, statistics
from tenfold.systems.ldc.recipes import (
    NO_UNIT,
    OFFICIAL,
    OFFICIAL_OPTIM,
    REFERENCE,
    REFERENCE_OPTIM,
    RELEASED,
    SMALL,
)

HERE = Path(__file__).parent
BASE, WAY, SESSIONS, SHOT, DRAWS = 40, 5, 4, 5, 5
TRAIN, TOTAL = 200, 240
"""Pictures of a class to learn from, and all of them."""
COLUMNS = ("overall", "base", "novel", "harmonic")


def pseudo(real: fscil.Protocol) -> fscil.Protocol:
    """The protocol described above."""
    labels = real.train.labels
    row = torch.arange(len(labels)) % TOTAL  # each class has as many, one class after the other
    assert torch.equal(labels, torch.arange(len(labels)) // TOTAL)
    photos = (labels >= BASE) & (row < SHOT * DRAWS)
    each = torch.arange(int(photos.sum())).view(SESSIONS, WAY, DRAWS, SHOT)
    support = tuple(
        tuple(each[session, :, draw].flatten() for session in range(SESSIONS))
        for draw in range(DRAWS)
    )
    return replace(
        real,
        classes=real.classes[: BASE + WAY * SESSIONS],
        base=BASE,
        way=WAY,
        shot=SHOT,
        sessions=SESSIONS,
        train=real.train.at(((labels < BASE) & (row < TRAIN)).nonzero()[:, 0]),
        novel=real.train.at(photos.nonzero()[:, 0]),
        test=real.train.at((row >= TRAIN).nonzero()[:, 0]),
        support=support,
    )


def units() -> dict[str, tuple[Calibration, object]]:
    """Units to train: their settings and optimisers."""
    return {
        "reference": (REFERENCE, REFERENCE_OPTIM),
        "raw": (replace(REFERENCE, space="raw"), REFERENCE_OPTIM),
        "plain": (replace(REFERENCE, residual=False), REFERENCE_OPTIM),
        "official": (OFFICIAL, OFFICIAL_OPTIM),
    }


def variants() -> dict[str, tuple[Calibration, str]]:
    """Row of the table -> settings, and the unit that they use."""
    found: dict[str, tuple[Calibration, str]] = {
        "**LDC (reference)**": (REFERENCE, "reference"),
        "unit untrained": (replace(REFERENCE, unit="untrained"), ""),
        "no unit": (replace(REFERENCE, unit="none"), ""),
    }
    for share in (0.1, 0.5, 1.0):
        found[f"share of calibrated samples {share:g} (reference: 0.25)"] = (
            replace(REFERENCE, calibrated_share=share), "reference",
        )  # fmt: skip
    found |= {
        "unit without residual": (replace(REFERENCE, residual=False), "plain"),
        "40 samples a class (reference: 100)": (replace(REFERENCE, samples=40), "reference"),
        "raw features": (replace(REFERENCE, space="raw"), "raw"),
        "sessions change base vectors too": (replace(REFERENCE, tuned="all"), "reference"),
        "base vectors are means": (replace(REFERENCE, base_vectors="means"), "reference"),
        "base vectors are means, sessions change all": (
            replace(REFERENCE, base_vectors="means", tuned="all"), "reference",
        ),
        "LDC (official)": (OFFICIAL, "official"),
        "LDC (released code): unit untrained": (RELEASED, ""),
        "LDC (official), no unit": (NO_UNIT, ""),
    }  # fmt: skip
    return found


def main() -> None:
    """Train one encoder and the units, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=SMALL.epochs)
    parser.add_argument("--runs", type=Path, default=Path("runs/claims/ldc-validation"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    cfg = replace(SMALL, epochs=args.epochs, loop=replace(SMALL.loop, threads=1))
    cfg = Ldc.complete(replace(cfg, data=replace(cfg.data, base=BASE)))
    if cfg.data.name != SMALL.data.name:
        raise SystemExit(f"{SMALL.data.name} was not found; set TENFOLD_DATA")
    system = construct(Ldc, cfg)
    system.images.protocol = pseudo(fscil_open.read(SMALL.data.name))
    system.cfg = cfg = replace(cfg, classes=system.images.protocol.classes)
    trained = {
        name: comparison.new_unit(64, settings, 0) for name, (settings, _) in units().items()
    }
    with dist.started("cpu") as world:
        loop.train(stages(system, trained), cfg.loop, world, args.runs, cfg.seed)
        environment = log.environment(world)
    environment["command"] = f"python claims/ldc_validation.py --epochs {args.epochs}"
    rows: dict[str, dict[str, float]] = {}
    tukey = statistics(*_both(system, "tukey"))
    for name, row in comparison.quick(cfg, system.measured(), tukey).items():
        rows[name] = measured(row.make, system.course("test", row.space))
    for name, (settings, unit) in variants().items():
        given = trained[unit] if unit else comparison.new_unit(64, settings, 0)
        make = comparison.rehearsal(system.measured(settings), settings, 16.0, 0, given)
        rows[name] = measured(make, system.course("test", settings.space))
    write(rows, environment)


def _both(system: Ldc, space: str) -> tuple[torch.Tensor, torch.Tensor]:
    found = system.encoded("train", space)
    return found.features, found.labels


def measured(make: Callable[[], Head], course: Course) -> dict[str, float]:
    """A head's numbers over all draws."""
    return summary([scores(one, course) for one in evaluate({"": (make, course)})[""]])


def stages(system: Ldc, trained: dict[str, Unit]) -> Iterator[Stage]:
    """Base training, then every unit."""
    yield next(system.stages())
    for name, (settings, optim) in units().items():
        yield system.calibration(f"unit-{name}", settings, trained[name], optim)


def write(rows: dict[str, dict[str, float]], environment: dict[str, object]) -> None:
    """The two files."""
    result = {"rows": rows, "environment": environment}
    (HERE / "ldc-validation.json").write_text(json.dumps(result, indent=1) + "\n")
    cells = []
    for name, found in rows.items():
        shown = [f"{found[f'final/mean/{c}']:.2f}" for c in COLUMNS]
        shown[0] += f" ± {found['spread/over draws/overall']:.2f}"
        cells.append([name, f"{found['accuracy/by session/0']:.2f}", *shown])
    lines = [
        "# LDC: how the reference settings were chosen",
        "",
        (__doc__ or "").split("\n\n")[2].replace("\n", " "),
        "",
        "Percent; mean over five draws ± their standard deviation, one encoder (seed 0).",
        "",
        *md_table(["head", "base session", *COLUMNS], cells),
        "",
        f"{environment['cpu']}, one thread, torch {environment['torch']}, "
        f"{environment['date']}, commit {environment['commit']}: `{environment['command']}`",
        "",
    ]
    (HERE / "ldc-validation.md").write_text("\n".join(lines))


if __name__ == "__main__":
    main()
