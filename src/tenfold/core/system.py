"""The contract: what each of the ten systems is, does and claims."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Generic, Literal, TypeVar

from torch import Tensor, nn

from .optim import Groups, Optim, decay_groups
from .versions import Learned

Batch = Any
Losses = Mapping[str, Tensor]
Backward = Callable[[Tensor], None]
Whole = Callable[[str, Tensor], tuple[str, Tensor]]
"""(name in this process's model, its tensor) -> (key in the whole model, DTensor or plain tensor).
The result shares memory with the tensor; a plain one is the same wherever its key is."""


@dataclass(frozen=True)
class Numbers:
    """A paper's own numbers, to stand beside ours."""

    baseline: float
    method: float
    where: str
    """Table or section, and whether it was read or is from memory."""


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


def nothing(step: int) -> None:
    """Do nothing after a step."""


def forward_backward(model: nn.Module, batch: Batch, backward: Backward) -> Losses:
    """The ordinary step: one forward, one backward of `loss`."""
    losses: Losses = model(batch)
    backward(losses["loss"])
    return losses


@dataclass
class Fit:
    """One gradient-trained stage."""

    name: str
    """File name of its checkpoint: "base", "session-3", "teacher"."""
    model: nn.Module
    """model(batch) -> {"loss": scalar, "loss/kl": scalar, ...}"""
    batches: Callable[[int], Batch]
    """index -> this process's micro-batch; a pure function of (seed, index, rank). With
    accumulation, step s uses indices s * accumulate .. s * accumulate + accumulate - 1."""
    steps: int
    optim: Optim
    groups: Callable[[nn.Module], Groups] = decay_groups
    """Parameter groups; a group may carry `lr_scale`."""
    after_step: Callable[[int], None] = nothing
    """Called after each optimiser step, before the weights' average: EMA teachers, schedules that
    are not a learning rate, parameters that another process updated."""
    drive: Callable[[nn.Module, Batch, Backward], Losses] = forward_backward
    """Own forward and backward: a pipeline schedule, or models that alternate. It calls
    `backward(loss)` as often as it likes, or lets a schedule do so; it returns what to log."""
    parallel: Whole | None = None
    """For a model that is divided among processes and communicates by itself: says which part of
    the whole a tensor is. The loop then wraps nothing, hands `drive` the list of all micro-batches
    of a step, and takes gradients and losses as complete; the checkpoint fits any division."""
    alternates: bool = False
    """Some parameters get no gradient in some steps: models that take turns."""
    state: Mapping[str, Any] = field(default_factory=dict)
    """More to save and restore: name -> object with state_dict and load_state_dict (teachers)."""
    validate: Callable[[nn.Module], dict[str, float]] | None = None
    """Metrics on held-out data (never the test split); every process computes all of them."""
    watch: str = ""
    """Metric of `validate` that decides which weights are best; empty keeps the last."""
    better: Literal["lower", "higher"] = "lower"


@dataclass(frozen=True)
class Export:
    """How a system's network is exported: a module, example inputs, and their batch axes."""

    module: nn.Module
    inputs: tuple[Tensor, ...]
    input_names: tuple[str, ...]
    output_names: tuple[str, ...]


C = TypeVar("C")


@dataclass(frozen=True)
class Arm(Generic[C]):
    """One row of a claim's table: a name and the configuration that is trained."""

    name: str
    config: C
    row: str = ""
    """A row of `baselines` in the run of the arm with the same configuration: a method that shares
    what that run learned (an encoder) and needs no run of its own."""


@dataclass(frozen=True)
class Claim(Generic[C]):
    """The paper's sentence as a test that can fail: same data, budget and seeds for both arms."""

    says: str
    baseline: Arm[C]
    method: Arm[C]
    metric: str
    better: Literal["lower", "higher"]
    paper: Numbers | None = None
    setting: str = ""
    """What a reader must know of how the arms were set up."""
    also: tuple[Arm[C], ...] = ()
    """Further rows of the same table, without a verdict of their own."""
    seeds: tuple[int, ...] = (0, 1, 2)


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

    free: ClassVar[tuple[str, ...]] = (
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

    def fits(self) -> Iterator[Fit]:
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
