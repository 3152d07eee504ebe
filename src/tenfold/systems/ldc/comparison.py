"""The heads of a result's table, each built from one encoder's features."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial

from tenfold.core.claim import Claim, Variant
from tenfold.core.optim import Optim

from .baselines import FineTune, FreeLunch, Lda, Ncm, Teen
from .calibration_unit import Unit, base_samples
from .config import Calibration, Config, HeadName
from .heads import Base, Head, Space
from .model import new_unit
from .recipes import NO_UNIT, OFFICIAL, OFFICIAL_OPTIM, REFERENCE, REFERENCE_OPTIM, RELEASED
from .rehearsal import Rehearsal

Make = Callable[[], Head]


def rehearsal(base: Base, settings: Calibration, temperature: float, seed: int, unit: Unit) -> Make:
    """LDC under some settings; without a unit it is rehearsal of plain Gaussian samples."""
    given = None if settings.unit == "none" else unit
    samples = base_samples(base, settings, given, seed) if settings.fixed_samples else None
    return lambda: Rehearsal(base, settings, temperature, seed, given, samples)


FREE: tuple[HeadName, ...] = ("lda", "ncm", "teen")
"""Heads that any run can learn with, since they train nothing: means and one covariance do."""


def own(cfg: Config, base: Base, unit: Unit, kind: HeadName | None = None) -> Make:
    """The head of a run's own configuration, or of another `kind` on the same statistics."""
    temperature, kind = cfg.model.temperature, kind or cfg.head
    if kind == "ldc":
        return rehearsal(base, cfg.calibration, temperature, cfg.seed, unit)
    plain: Mapping[str, Make] = {
        "ncm": lambda: Ncm(base, temperature),
        "lda": lambda: Lda(base),
        "teen": lambda: Teen(base, temperature=temperature),
        "fine-tune": lambda: FineTune(base, temperature=temperature),
    }
    return plain[kind]


@dataclass(frozen=True)
class Row:
    """A head of a result's table and the space of features that it works in."""

    make: Make
    space: Space = "raw"


def quick(cfg: Config, raw: Base, tukey: Base) -> dict[str, Row]:
    """Heads that learn nothing before the sessions."""
    temperature = cfg.model.temperature
    tune = partial(FineTune, raw, dampening=0.9, temperature=temperature)  # SGD as LDC's sessions
    return {
        "NCM": Row(lambda: Ncm(raw, temperature)),
        "NCM, centred": Row(lambda: Ncm(raw, temperature, centred=True)),
        "NCM, square-root features": Row(lambda: Ncm(tukey, temperature), "tukey"),
        "LDA": Row(lambda: Lda(raw)),
        "LDA, square-root features": Row(lambda: Lda(tukey), "tukey"),
        "TEEN": Row(lambda: Teen(raw, temperature=temperature)),
        "fine-tuning": Row(lambda: tune(lr=0.1)),
        "fine-tuning, rate 0.01": Row(lambda: tune(lr=0.01)),
    }


@dataclass(frozen=True)
class Trained:
    """A calibration unit that is trained beside the run's own, for comparison."""

    name: str
    settings: Calibration
    optim: Optim


TRAINED = (
    Trained("official", OFFICIAL, OFFICIAL_OPTIM),
    Trained("reference", REFERENCE, REFERENCE_OPTIM),
)
SETTINGS = {trained.name: trained for trained in TRAINED}


def slow(
    cfg: Config,
    measured: Callable[[Calibration], Base],
    units: Mapping[str, Unit],
    lunch: Base | None,
) -> dict[str, Row]:
    """Ablations of the run's own LDC, the official code's variants, and Free Lunch.

    `measured` gives the statistics that a head with some settings starts from, `lunch` are those
    that Free Lunch wants; None leaves it out (it takes roots of features, which a transformer's are
    too negative for).
    """

    def row(settings: Calibration, unit: Unit | None = None) -> Row:
        base, seed = measured(settings), cfg.seed
        unit = unit or new_unit(base.means.shape[1], settings, seed)
        return Row(rehearsal(base, settings, cfg.model.temperature, seed, unit), settings.space)

    mine, rows = cfg.calibration, dict[str, Row]()
    if lunch is not None:
        rows["Free Lunch"] = Row(lambda: FreeLunch(lunch, cfg.seed))
    if cfg.head == "ldc":
        rows["own settings, unit untrained"] = row(replace(mine, unit="untrained"))
        rows["own settings, no unit"] = row(replace(mine, unit="none"))
    for name, unit in units.items():
        rows[f"LDC ({name})"] = row(SETTINGS[name].settings, unit)
    if mine != OFFICIAL:
        rows["LDC (released code)"] = row(RELEASED)
        rows["LDC (official), no unit"] = row(NO_UNIT)
    return rows


def claims(cfg: Config) -> list[Claim[Config]]:
    """The paper's claims, against honest baselines on the same encoder."""
    ours = Variant("LDC (reference)", replace(cfg, peers="all"))

    def row(name: str, key: str = "") -> Variant[Config]:
        return Variant(name, ours.config, key or name)

    bare = row("LDC (reference), no unit", "own settings, no unit")
    official, released = row("LDC (official)"), row("LDC (released code)")
    also = (
        row("NCM, centred"), row("NCM, square-root features"), row("LDA"),
        row("LDA, square-root features"), row("TEEN"), row("Free Lunch"),
        row("fine-tuning, rate 0.01"),
        row("LDC (reference), unit untrained", "own settings, unit untrained"),
        row("LDC (official), no unit"),
    )  # fmt: skip
    setting = (
        "all rows of a seed share one encoder; its settings and those of LDC (reference) were "
        "chosen on base classes alone: 40 of them as base, 20 as new, pictures held out"
    )
    final, harmonic = "final/mean/overall", "final/mean/harmonic"
    asked = [
        ("LDC beats nearest class means in final accuracy", row("NCM"), ours, final),
        ("LDC beats nearest class means in harmonic accuracy", row("NCM"), ours, harmonic),
        ("LDC forgets less than fine-tuning (rate 0.1)", row("fine-tuning"), ours, final),
        ("The trained unit helps overall accuracy, reference settings", bare, ours, final),
        ("The trained unit helps harmonic accuracy, reference settings", bare, ours, harmonic),
        ("Official settings: a trained unit against the released, untrained one", released,
         official, final),
        ("Official settings forget less than fine-tuning (rate 0.1)", row("fine-tuning"), official,
         final),
        ("Official settings beat nearest class means", row("NCM"), official, final),
    ]  # fmt: skip
    return [
        Claim(f"{says}.", baseline, method, metric, "higher", None, setting, also)
        for says, baseline, method, metric in asked
    ]
