"""The contract for APIS."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

from tenfold.core import dist
from tenfold.core.capabilities import Export
from tenfold.core.claim import Claim
from tenfold.core.optim import Optim
from tenfold.core.stage import Stage
from tenfold.core.system import DataUsed, Evaluation, Paper, System
from tenfold.nn.condinst import CondInst
from tenfold.viz.predictions import Trained
from tenfold.weights.keymap import Converted

from . import (
    claims,
    data,
    evaluation,
    export,
    figures,
    model,
    predict,
    pretrained,
    serving,
    settings,
)
from .config import Config, PageOptions, PredictOptions
from .evaluation import Details
from .labelling import Labelling
from .recipes import RECIPES
from .rounds_of_run import RunRounds
from .training import Training, groups


class Apis(System[Config]):
    """Instance segmentation from boxes and from pixels that the network asks about."""

    paper = Paper(
        arxiv="2207.11493",
        title="Active Pointly-Supervised Instance Segmentation",
        says="Where every object has a box, a network that asks about the pixel of which it is "
        "least sure learns masks from fewer answers than from random points.",
        cite="@inproceedings{tang2022active,\n"
        "  title={Active Pointly-Supervised Instance Segmentation},\n"
        "  author={Tang, Chufeng and Xie, Lingxi and Zhang, Gang and Zhang, Xiaopeng and Tian, Qi "
        "and Hu, Xiaolin},\n"
        "  booktitle={ECCV},\n  year={2022}\n}",
        code="chufengt/APIS, a preliminary release: files that replace some of AdelaiDet",
        weights_licence="none were published; CondInst's and BoxInst's, which are read, are under "
        "AdelaiDet's licence (academic use)",
    )
    recipes: ClassVar[dict[str, Config]] = RECIPES
    better: ClassVar[dict[str, str]] = settings.BETTER
    units: ClassVar[dict[str, str]] = settings.UNITS
    headline: list[str] = settings.headline(is_masked=True)
    task = "instance segmentation from boxes and answers about pixels that the machine chooses"
    accepts = "a picture (JPEG, PNG, WebP, ...), or a folder of pictures"
    intended = (
        "Masks of objects of which people drew boxes and answered yes or no about pixels. Borders "
        "are soft, and small objects are missed; not for decisions about people."
    )
    paths: ClassVar[tuple[str, ...]] = ("data.path", "data.points_path", "start")
    sets: ClassVar[dict[str, str]] = {**System.sets, "data.points_path": "data.name"}
    generated: ClassVar[tuple[str, ...]] = (data.GENERATED,)
    starts_itself = True
    options: ClassVar[PredictOptions] = PredictOptions()
    page_options: ClassVar[PageOptions] = PageOptions()
    model: CondInst
    _folder: tempfile.TemporaryDirectory[str] | None = None

    def __init__(self, cfg: Config) -> None:
        super().__init__(cfg)
        if not cfg.classes:
            raise ValueError("the configuration has no classes; use Apis.complete(cfg)")
        self.model = model.build(cfg)
        self.headline = settings.headline(cfg.is_masked)

    @classmethod
    def complete(cls, cfg: Config) -> Config:
        """Choose the data, generated where none is found, and take the classes from it."""
        return data.complete(cfg)

    # --- training ------------------------------------------------------------------------------

    def stages(self) -> Iterator[Stage]:
        """Boxes with the first points, then rounds, each with the points that were asked about."""
        cfg, rounds = self.cfg, self.rounds()
        self.origin = self.from_start(lambda: pretrained.begin(self.model, cfg))
        for number, name in enumerate(settings.stages(cfg)):
            if number:
                rounds.ask(number)
            batches = data.Batches(cfg, rounds.train, name, rounds.known(name))
            if number:
                yield self._stage(name, cfg.round_steps, cfg.round_optim, batches)
            else:
                yield self._stage(name, cfg.steps, cfg.optim, batches)
            rounds.keep(name)

    def _stage(self, name: str, steps: int, optim: Optim, batches: data.Batches) -> Stage:
        training = Training(self.cfg, self.model, is_first=name == settings.FIRST)
        return Stage(name, training, batches, steps, optim.within(steps), groups)

    def rounds(self) -> RunRounds:
        """What lies between the stages, in the run's folder or in one that goes with the system."""
        if self.work is not None:
            return RunRounds(self.model, self.cfg, self.work)
        world = dist.current()
        if self._folder is None and world.is_first:
            self._folder = tempfile.TemporaryDirectory(prefix="tenfold-apis-")
        name = world.gather(self._folder.name if self._folder else "")[0]
        return RunRounds(self.model, self.cfg, Path(name))

    # --- results -------------------------------------------------------------------------------

    def evaluate(self, split: str = "test") -> Evaluation:
        """Measure the network after every round.

        Args:
            split: "test"; "validation" where the set has one.

        Returns:
            In percent, of each stage ("boxes", "round1", ..., and "final", the last one):
            "masks/<stage>/AP" and "boxes/<stage>/AP" as COCO has them (AP50, AP75, small, medium,
            large, too), "given/<stage>/IoU": mean IoU of masks in the true boxes, and "accuracy":
            share of these boxes' pixels that are right; what was asked
            until then ("answers/<stage>/all", "seconds/<stage>/total"); "class/<class>/IoU" and
            "fill/<class>/share" of the last one; "area/answers/AP": mean height of the curve.

        Raises:
            ValueError: There is no such split.

        Example:
            ap = system.evaluate().metrics["masks/final/AP"]
        """
        data.require_classes(self.cfg)
        return evaluation.evaluate(self.model, self.cfg, self.rounds(), split)

    def write_predictions(self, inputs: Path, out: Path, options: Any) -> list[Path]:
        """Write objects of a picture, or of each picture of a folder, as COCO's and as pictures."""
        used = self.data_used()
        trained = Trained(type(self).__name__, used.name, used.kind, self.notes())
        return predict.predict_files(self.model, self.cfg, inputs, out, options, trained)

    def draw_pictures(self, evaluation: Evaluation, out: Path) -> dict[Path, str]:
        """Draw the curves, the pixels that were asked about, and masks beside the true ones."""
        if not isinstance(evaluation.details, Details):
            raise ValueError("the evaluation is none of this system: its details are no Details")
        return figures.draw_figures(self.rounds(), evaluation.details, out)

    def data_used(self) -> DataUsed:
        """The set of pictures."""
        return data.used(self.cfg.data)

    def notes(self) -> list[str]:
        """Setting of every number, and departures."""
        return settings.notes(self.cfg, self.data_used().kind)

    def labels(self) -> dict[str, str]:
        """Titles of metrics."""
        return settings.titles()

    def claims(self) -> list[Claim[Config]]:
        """Chosen pixels against random ones, and both against boxes and full masks."""
        return claims.claims(claims.base())

    @classmethod
    def convert(cls, source: Path) -> tuple[System[Config], Converted]:
        """Read a checkpoint of CondInst or BoxInst (AdelaiDet), whose sizes follow from its shapes.

        Returns:
            A system with the checkpoint's network, and what became of each tensor.

        Raises:
            ValueError: It is no such file, or has no head.
        """
        cfg, account = pretrained.configuration_of(source)
        system = cls(cfg)
        system.model.load_state_dict(account.state, strict=False)
        return system, account

    def labelling(
        self, images: Path, folder: Path, options: PageOptions, train: serving.Train
    ) -> Labelling:
        """Return the page on which people label photos with the help of this run.

        Args:
            images: Folder of photos.
            folder: Where answers, and what is trained on them, are kept.
            options: Choices.
            train: Trains in the way of `tenfold train`.
        """
        return serving.open_page(self.model, self.cfg, images, folder, options, train)

    def export(self) -> Export:
        """The network up to its heads, from pictures of 0 to 255: masks are made of both."""
        return self.export_part("", (0, 0))

    def export_part(self, part: str, size: tuple[int, int]) -> Export:
        """The heads, or all of detection, for pictures of one size.

        Args:
            part: "heads" (or empty), for batches of any number; "detect" gives one picture's boxes,
                scores, labels and masks.
            size: Height and width in pixels, multiples of 32; (0, 0) is the test's shorter side.

        Raises:
            ValueError: There is no such part, or the network cannot be of this size.
        """
        return export.export_part(self.model, self.cfg, part, size)
