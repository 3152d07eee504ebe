"""The contract: what each of the ten systems is, does and claims."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, Literal

from torch import Tensor, nn

from .capabilities import Export
from .claim import C, Claim
from .stage import Stage
from .versions import Learned


@dataclass(frozen=True)
class Paper:
    """What a system implements."""

    arxiv: str
    title: str
    says: str
    """One sentence."""
    cite: str
    """BibTeX."""
    code: str
    """The official repository, or why there is none."""
    weights_licence: str
    """Licence of official weights, or that none were published."""


@dataclass(frozen=True)
class DataUsed:
    """Which data a result rests on; every page and table says so."""

    name: str
    kind: Literal["real", "simulated", "generated"]
    note: str = ""
    licence: str = ""


class System(Generic[C]):
    """One published system; `cli.py` finds it by name, nothing is registered.

    A subclass sets `paper` and `recipes`, builds `self.model` (all that `predict` needs) in
    `__init__` without reading files, and implements the four methods.
    """

    paper: ClassVar[Paper]
    recipes: ClassVar[dict[str, Any]]
    """"paper", "small", "demo" and "demo-baseline" at least."""
    better: ClassVar[dict[str, str]]
    """Metric group -> "lower" or "higher"."""
    units: ClassVar[dict[str, str]]
    """Metric group -> unit."""
    headline: list[str]
    """The metrics that a page shows first; a system may narrow them to what its data have."""
    task: ClassVar[str]
    """What it does, in a few words."""
    accepts: ClassVar[str]
    """Kinds of files that `predict` takes."""
    intended: ClassVar[str]
    """What its weights may be used for, and what not."""

    resumable: ClassVar[tuple[str, ...]] = (
        "loop.device", "loop.workers", "loop.threads", "loop.log_every", "loop.save_every",
    )  # fmt: skip
    """Fields (or groups of them) that an interrupted run may change when it goes on."""
    options: Any = None
    """What `predict` may be asked for: a frozen dataclass with defaults, each field an option."""

    cfg: C
    model: nn.Module

    def __init__(self, cfg: C) -> None:
        self.cfg = cfg

    @classmethod
    def complete(cls, cfg: C) -> C:
        """Fill in what only the data can decide (a skeleton, a class list); may read files."""
        return cfg

    def stages(self) -> Iterator[Stage]:
        """What to train, in order, lazily: a later stage may use what an earlier one learned."""
        raise NotImplementedError

    def evaluate(self, split: str) -> dict[str, float]:
        """Metrics of `self.model` on a split, flat: "mpjpe/walking/80ms"."""
        raise NotImplementedError

    def baselines(self, split: str) -> dict[str, dict[str, float]]:
        """Metrics of baselines that need no training, for the same table."""
        return {}

    def predict(self, inputs: Path, out: Path) -> list[Path]:
        """Run on a user's file; write files that a person can open."""
        raise NotImplementedError

    def claims(self) -> list[Claim[C]]:
        """The paper's claims at a scale that can be run here."""
        return []

    def learn(self, inputs: Path, name: str) -> Learned:
        """Take new classes from a folder of photos (`name` names them); write nothing."""
        raise ValueError(
            f"{type(self).__name__} cannot learn new classes after its training; ldc can"
        )

    def learned_state(self) -> dict[str, Tensor]:
        """What `learn` has changed since the training: a version, to lie beside the weights."""
        raise NotImplementedError

    def restore_learned(self, tensors: dict[str, Tensor], classes: tuple[str, ...]) -> None:
        """Take a version back, with the names of all its classes."""
        raise NotImplementedError

    def data_used(self) -> DataUsed:
        """The data that training and evaluation read."""
        raise NotImplementedError

    def notes(self) -> list[str]:
        """What a reader of a result must know: protocol, units, departures."""
        return []

    def labels(self) -> dict[str, str]:
        """Titles of metric columns, where the last part of a key does not say enough."""
        return {}

    def pictures(self, out: Path) -> dict[Path, str]:
        """Pictures for the report: file -> caption."""
        return {}

    def export(self) -> Export:
        """The network as plain tensors in and out."""
        raise NotImplementedError

    def export_part(self, part: str, size: tuple[int, int]) -> Export:
        """One of several networks, for pictures of height and width `size` (0, 0: the run's)."""
        raise ValueError(
            f"{type(self).__name__} has one network of one size; leave out --part and --size"
        )

    def export_official(self, out: Path) -> list[Path]:
        """Write the weights as the authors' own files have them; returns what was written."""
        raise ValueError(
            f"{type(self).__name__} has no official layout to export to; use --to onnx"
        )

    @classmethod
    def open(cls, source: Path) -> System[C]:
        """A system that predicts with an official file as it is, without converting it."""
        raise ValueError(f"{source} cannot be run as it is; `tenfold convert` reads checkpoints")

    @classmethod
    def convert(cls, source: Path) -> tuple[System[C], Any]:
        """Read an official checkpoint: a system with its weights, and the conversion's account."""
        raise NotImplementedError
