"""The contract: what each of the ten systems is, does and claims."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Generic, Literal

import torch
from torch import Tensor, nn

from . import checkpoint
from .claim import C, Claim
from .errors import require_file_or_folder, require_place
from .stage import Stage


@dataclass(frozen=True)
class Paper:
    """Paper that a system implements."""

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
    """Data that a result rests on; every page and table says so."""

    name: str
    kind: Literal["real", "simulated", "generated"]
    note: str = ""
    licence: str = ""


@dataclass(frozen=True)
class Streamed:
    """Weights of a whole model that no process holds, one after another."""

    shapes: dict[str, tuple[int, ...]]
    """Key -> shape, in the order of the tensors; they are float32."""
    tensors: Iterator[tuple[str, Tensor | None]]
    """Whole tensors on the first process, None on the others; all take everything from it."""


@dataclass(frozen=True)
class Evaluation:
    """Metrics of a system on a split, and what stands beside them."""

    metrics: dict[str, float]
    """Of the trained model, flat: "mpjpe/walking/80ms" -> value."""
    baselines: dict[str, dict[str, float]] = field(default_factory=dict)
    """Of baselines that need no training of their own: name -> metrics."""
    details: Any = None
    """Material that the system's `pictures` draws from: curves, confusion matrices, boxes."""
    notes: tuple[str, ...] = ()
    """Remarks on these numbers that a reader must know beyond the system's `notes`."""


class System(Generic[C]):
    """One published system; the table in `tenfold.systems` names its class.

    A subclass sets `paper` and `recipes`, builds `self.model` (all that `predict` needs) in
    `__init__` without reading files, and implements `stages`, `evaluate`, `write_predictions` and
    `data_used`. What only some systems can do is a protocol in `core.capabilities`.

    Under `torchrun`, every process calls `evaluate` and `predict`, and each does its share of the
    work (`core.divide`); all else is called by the first process alone.

    Example:
        system = tenfold.load("runs/spgsn-small")
        system.predict("clip.bvh", "out")
        evaluation = system.evaluate("test")
        system.pictures(evaluation, "pictures")
    """

    paper: ClassVar[Paper]
    recipes: ClassVar[dict[str, Any]]
    """"paper", "small", "demo" and "demo-baseline" at least."""
    better: ClassVar[dict[str, str]]
    """Metric, or group of metrics, -> "lower" or "higher"; the longest name that fits counts."""
    units: ClassVar[dict[str, str]]
    """Metric, or group of metrics, -> unit; the longest name that fits counts."""
    headline: list[str]
    """The metrics that a page shows first; a system may narrow them to what its data have."""
    task: ClassVar[str]
    """Task in a few words."""
    accepts: ClassVar[str]
    """Kinds of files that `predict` takes."""
    intended: ClassVar[str]
    """Uses that its weights are for, and uses that they are not for."""

    resumable: ClassVar[tuple[str, ...]] = (
        "loop.device", "loop.workers", "loop.threads", "loop.log_every", "loop.save_every",
        "loop.async_save", "loop.tensorboard",
    )  # fmt: skip
    """Fields (or groups of them) that an interrupted run may change when it goes on."""
    paths: ClassVar[tuple[str, ...]] = ("data.path", "start")
    """Fields of the configuration that are paths; a run stores them absolute."""
    sets: ClassVar[dict[str, str]] = {"data.path": "data.name"}
    """Field of the configuration for the place of a data set -> the field for its name."""
    generated: ClassVar[tuple[str, ...]]
    """Names of data sets that are read from no place."""
    own_data: ClassVar[str] = "folder"
    """Name that stands for files of the user's own; empty where they take the form of a set."""
    passes: ClassVar[tuple[str, ...]] = ()
    """Fields that count passes over the data, which are read where `steps` is 0."""
    options: ClassVar[Any] = None
    """Options of `predict`: a frozen dataclass with defaults, each field an option."""

    starts_itself: ClassVar[bool] = False
    """Its `stages` read `cfg.start`, by `from_start`: weights that fit only a part of the model."""
    starts: ClassVar[tuple[str, ...]] = ("start",)
    """Fields that name weights which only the beginning of a training reads."""
    sized_by_start: ClassVar[tuple[str, ...]] = ()
    """Groups of the configuration to which `complete` gives sizes of those weights."""

    cfg: C
    """Besides the system's own it has `loop`, `steps`, `seed`, `start` (weights that training
    starts from: a run, a weights file, an official checkpoint) and `allow_missing`."""
    model: nn.Module
    origin: str = ""
    """Sentence on the weights that training started from; empty for random ones."""
    begun: Any = None
    """What `from_start` returned."""
    kept: Path | None = None
    """File of the weights that its run began with, where it goes on: `start` is not read again."""
    work: Path | None = None
    """Folder for files that one stage leaves to the next (a run's `work`, of the names in
    `core.run_folder`), written after the first stage was yielded; None: it keeps none."""

    def __init__(self, cfg: C) -> None:
        self.cfg = cfg

    @classmethod
    def complete(cls, cfg: C) -> C:
        """Fill in what only the data can decide (a skeleton, a class list); may read files."""
        return cfg

    def fitting(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Weights to start from as this model has them, where they are of a simpler one."""
        return state

    def begin(self, state: dict[str, Tensor]) -> None:
        """Take weights to start from, by their keys in `model`; others stay as they are."""
        self.model.load_state_dict(state, strict=False)

    def from_start(self, begin: Callable[[], Any]) -> Any:
        """Let `begin` fill `model` with the weights to start from; the run keeps what came of it.

        Args:
            begin: Returns what must be known of them later, a JSON value.

        Returns:
            What it returned, here or when the run began.
        """
        if self.kept is None:
            self.begun = begin()
        else:
            state, self.begun = checkpoint.read_start(self.kept)
            self.model.load_state_dict(state)
        return self.begun

    @property
    def is_divided(self) -> bool:
        """True if the model is divided among processes, and none holds the whole."""
        return False

    def to(self, device: torch.device) -> None:
        """Bring the model to a device; a divided one has its own place."""
        if not self.is_divided:
            self.model.to(device)

    def streamed(self) -> Streamed:
        """The weights of a divided model, for the run's file; all processes call it."""
        raise NotImplementedError

    def read_from(self, file: Path) -> None:
        """Let a divided model take its weights from the run's file when it needs them."""
        raise NotImplementedError

    def stages(self) -> Iterator[Stage]:
        """Yield what to train, in order: a later stage may use what an earlier one learned."""
        raise NotImplementedError

    def evaluate(self, split: str = "test") -> Evaluation:
        """Measure `self.model` on a split, with the baselines that need no training.

        Args:
            split: "test" is the published protocol; "validation" where the data has one.

        Raises:
            ValueError: There is no such split.
        """
        raise NotImplementedError

    def predict(self, inputs: str | Path, out: str | Path, options: Any = None) -> list[Path]:
        """Run on a file or folder of a user; write files that a person can open.

        Args:
            inputs: A file, or a folder of files; `accepts` says which kinds.
            out: Folder to write to; made if it is not there.
            options: What is asked for, of the class of `self.options`; by default that itself.

        Returns:
            The files that were written, what to look at first last.

        Raises:
            FileNotFoundError: `inputs` is not there.
            ValueError: `inputs` cannot be read, or does not fit the trained model; `out` is a file.
        """
        source, options = Path(inputs), self.options if options is None else options
        require_file_or_folder(source)
        require_place(Path(out))
        if type(options) is not type(self.options):
            raise ValueError(
                f"options of predict must be a {type(self.options).__name__}, "
                f"got a {type(options).__name__}"
            )
        return self.write_predictions(source, Path(out), options)

    def write_predictions(self, inputs: Path, out: Path, options: Any) -> list[Path]:
        """Do the work of `predict`: read, predict, write, one input in memory at a time."""
        raise NotImplementedError

    def pictures(self, evaluation: Evaluation, out: str | Path = "pictures") -> dict[Path, str]:
        """Draw what an evaluation found, into the folder `out`: file -> caption.

        Raises:
            ValueError: `evaluation` is not what `evaluate` returned, or `out` is a file.
        """
        if not isinstance(evaluation, Evaluation):
            raise ValueError(
                f"pictures draws what an evaluation found, got {evaluation!r}: evaluate first, "
                "system.pictures(system.evaluate('test'), out)"
            )
        folder = Path(out)
        require_place(folder)
        folder.mkdir(parents=True, exist_ok=True)
        return self.draw_pictures(evaluation, folder)

    def draw_pictures(self, evaluation: Evaluation, out: Path) -> dict[Path, str]:
        """Do the work of `pictures`."""
        return {}

    def claims(self) -> list[Claim[C]]:
        """The paper's claims at a scale that can be run here."""
        return []

    def data_used(self) -> DataUsed:
        """The data that training and evaluation read."""
        raise NotImplementedError

    def notes(self) -> list[str]:
        """List what a reader of a result must know: protocol, units, departures."""
        return []

    def labels(self) -> dict[str, str]:
        """Titles of metrics and of columns: key, or last part of a key -> title."""
        return {}
