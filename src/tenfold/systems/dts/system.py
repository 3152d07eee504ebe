"""The contract for DTS."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from tenfold.core.capabilities import Export
from tenfold.core.claim import Claim
from tenfold.core.seed import generator
from tenfold.core.stage import Stage
from tenfold.core.system import DataUsed, Evaluation, Paper, System
from tenfold.data.images.decode import warn_of_replaced
from tenfold.viz.predictions import Trained
from tenfold.weights.keymap import Converted

from . import backbones, claims, data, evaluation, figures, predict, pretrained
from .config import Config, PredictOptions
from .evaluation import Details
from .groups import SelfTraining, SourceTraining, target_share
from .hosts import Students
from .model import Network, Networks
from .rates import parameter_groups
from .recipes import RECIPES

TITLES = {
    "mIoU": "mean IoU", "mAcc": "mean accuracy", "aAcc": "pixel accuracy",
    "iou/deployed/mIoU": "mean IoU on the target", "iou/deployed/aAcc": "pixel accuracy",
    "mIoU16": "mean IoU of 16 classes", "mIoU13": "mean IoU of 13 classes",
}  # fmt: skip


class Dts(System[Config]):
    """Two groups of teacher and student that adapt a segmentation network to unlabelled images."""

    paper = Paper(
        arxiv="2303.09083",
        title="Focus on Your Target: A Dual Teacher-Student Framework for Domain-adaptive Semantic "
        "Segmentation",
        says="A larger share of target images helps to adapt and harms what is learned from the "
        "source; two groups of teacher and student with different shares, which teach each "
        "other, keep both.",
        cite="@inproceedings{huo2023focus,\n"
        "  title={Focus on Your Target: A Dual Teacher-Student Framework for Domain-adaptive "
        "Semantic Segmentation},\n"
        "  author={Huo, Xinyue and Xie, Lingxi and Zhou, Wengang and Li, Houqiang and Tian, Qi},\n"
        "  booktitle={ICCV},\n  year={2023}\n}",
        code="xinyuehuo/DTS holds two lines and no code; hosts follow lhoyer/DAFormer, HRDA, MIC",
        weights_licence="none were published; those of the hosts are under their repositories' "
        "licences",
    )
    recipes: ClassVar[dict[str, Config]] = RECIPES
    better: ClassVar[dict[str, str]] = {"iou": "higher", "class": "higher"}
    units: ClassVar[dict[str, str]] = {"iou": "%", "class": "%"}
    headline: list[str] = ["iou/deployed/mIoU"]
    task = "domain-adaptive segmentation: labelled renderings to unlabelled photos"
    accepts = "a picture (JPEG, PNG, WebP, ...), a folder of pictures or of frames, or a film"
    intended = (
        "Segmentation of images of which none is labelled, from a labelled set of another look. "
        "Rare classes are often lost; not for driving, nor for decisions about people."
    )
    paths: ClassVar[tuple[str, ...]] = (
        "data.source_path", "data.target_path", "data.target_list", "start",
    )  # fmt: skip
    sets: ClassVar[dict[str, str]] = {
        "data.source_path": "data.source", "data.target_path": "data.target",
    }  # fmt: skip
    generated: ClassVar[tuple[str, ...]] = tuple(data.STYLES)
    starts_itself = True
    sized_by_start = ("model", "transformer")
    options: ClassVar[PredictOptions] = PredictOptions()
    model: Networks

    def __init__(self, cfg: Config) -> None:
        super().__init__(cfg)
        if not cfg.classes:
            raise ValueError("the configuration has no classes; use Dts.complete(cfg)")
        self.model = Networks(cfg)

    @classmethod
    def complete(cls, cfg: Config) -> Config:
        """Choose the data, generated where none is found, and take the classes from it.

        Sizes of a vision transformer are those of the weights that it starts from.
        """
        return data.complete(backbones.sized(cfg))

    # --- training ------------------------------------------------------------------------------

    def stages(self) -> Iterator[Stage]:
        """Labelled source images first, where that is asked for; then adaptation."""
        cfg, networks = self.cfg, self.model
        batches = data.Batches(cfg)
        begun = pretrained.Begun(**self.from_start(lambda: asdict(pretrained.begin(networks, cfg))))
        self.origin = begun.origin
        has_source = cfg.method == "source" or cfg.source_steps > 0
        if has_source:
            steps = cfg.steps if cfg.method == "source" else cfg.source_steps
            yield Stage(
                "source",
                self._students(1),
                batches.supervised,
                steps,
                cfg.source_optim.within(steps),
                partial(parameter_groups, head_lr=cfg.head_lr),
                training_step=SourceTraining(cfg, networks),
            )
        if cfg.method != "source":
            if not begun.groups or has_source:
                networks.begin_groups(own_heads=not (begun.head or has_source))
            yield self._adaptation(batches, begun.groups and not has_source)
        warn_of_replaced(batches.replaced, "train")

    def _students(self, count: int) -> Students:
        things = [row for row, name in enumerate(self.cfg.classes) if name in self.cfg.host.things]
        students = [self.model.student(group) for group in range(1, count + 1)]
        return Students(students, self.cfg.host, things)

    def _adaptation(self, batches: data.Batches, is_continued: bool) -> Stage:
        cfg, networks = self.cfg, self.model
        frozen = None
        if cfg.host.has_features:
            frozen = deepcopy(networks.student(1).backbone).eval().requires_grad_(False)
        training = SelfTraining(cfg, networks, frozen, is_continued=is_continued)
        state: dict[str, Any] = {f"teacher{g}": networks.teacher(g) for g in training.groups}
        if frozen is not None:
            state["frozen"] = frozen
        sides = max(training.sides(group) for group in training.groups)
        return Stage(
            "adapt",
            self._students(networks.num_groups),
            partial(batches.adaptation, sides),
            cfg.steps,
            cfg.optim.within(cfg.steps),
            partial(parameter_groups, head_lr=cfg.head_lr),
            training_step=training,
            after_step=training.after_step,
            alternates=networks.num_groups > 1,
            state=state,
        )

    # --- results -------------------------------------------------------------------------------

    def evaluate(self, split: str = "test") -> Evaluation:
        """Measure all students and teachers on the target's test images.

        Args:
            split: "test".

        Returns:
            "iou/<network>/mIoU" and "class/<class>/<network>" in percent; the network "deployed" is
            the one that predictions use.

        Raises:
            ValueError: Another split is asked for.

        Example:
            miou = system.evaluate().metrics["iou/deployed/mIoU"]
        """
        if split != "test":
            raise ValueError(f"unknown split {split!r}; known: test")
        data.require_classes(self.cfg)
        found = evaluation.evaluate(self.model, self.cfg)
        warn_of_replaced(evaluation.test_images(self.cfg).replaced, "test")
        return found

    def write_predictions(self, inputs: Path, out: Path, options: Any) -> list[Path]:
        """Write labels, overlays and confidence of an image, of each of a folder, or of a film."""
        used = self.data_used()
        trained = Trained(type(self).__name__, used.name, used.kind, self.notes())
        return predict.predict_files(self.model, self.cfg, inputs, out, options, trained)

    def draw_pictures(self, evaluation: Evaluation, out: Path) -> dict[Path, str]:
        """Draw test images, confusion and shares of classes."""
        if not isinstance(evaluation.details, Details):
            raise ValueError("the evaluation is none of this system: its details are no Details")
        return figures.draw_figures(self.model, self.cfg, evaluation.details, out)

    def data_used(self) -> DataUsed:
        """Source and target."""
        return data.used(self.cfg.data)

    def notes(self) -> list[str]:
        """Protocol and departures."""
        cfg = self.cfg
        if cfg.method == "source":
            few = f", {_few(cfg)} of them of the target" if _few(cfg) else ""
            return [f"source only: labelled images{few}, no adaptation"]
        lines = [
            f"host {cfg.host.name}; labels of the target's training images are not looked at"
            if not _few(cfg)
            else f"host {cfg.host.name}; {_few(cfg)} labelled target images join in"
        ]
        if cfg.method == "dts":
            share = 100 * target_share(cfg.groups.recipe)
            lines += [
                "our reading of the paper, whose code was not published",
                f"group 2: {cfg.groups.recipe}, {share:g} % target pixels (group 1: 25 %); "
                f"provider {cfg.groups.provider} after {cfg.groups.warmup} steps",
            ]
        lines.append(
            f"deployed: {cfg.groups.deploy}; statistics of batch norms are the running ones"
        )
        if cfg.data.test_every > 1:
            lines.append(f"one of {cfg.data.test_every} test images is measured")
        if not data.is_labelled(cfg.data):
            lines.append("the target has no labels: measured on held-out source images")
        return lines

    def labels(self) -> dict[str, str]:
        """Titles of metrics."""
        is_synthia = self.cfg.data.source == "synthia"
        shown = {k: title for k, title in TITLES.items() if is_synthia or not k.startswith("mIoU1")}
        classes = {f"class/{name.replace('/', '-')}/deployed": name for name in self.cfg.classes}
        return {**shown, **classes}

    def claims(self) -> list[Claim[Config]]:
        """Two groups against one at equal cost."""
        return claims.claims()

    @classmethod
    def convert(cls, source: Path) -> tuple[System[Config], Converted]:
        """Read a checkpoint of SegFormer, DAFormer, HRDA or MIC; sizes follow from its shapes.

        Of a training checkpoint it is the student that is taken, as in the official test script.

        Returns:
            A system without a teacher, and what became of each tensor.

        Raises:
            ValueError: It is no such file, or has an encoder alone.
        """
        system = cls(pretrained.configuration_of(source))
        return system, pretrained.fill(system.model.student(1), source)

    def export(self) -> Export:
        """The deployed network, from normalised images to logits at a quarter of their sides."""
        height, width = self.cfg.data.crop
        network = Deployed([deepcopy(n).cpu() for n in self.model.members(self.model.deployed)])
        images = torch.randn(2, 3, height, width, generator=generator(0, "export"))
        return Export(network, (images,), ("images",), ("logits",))


class Deployed(nn.Module):
    """One network, or the average of both teachers, from images to logits."""

    def __init__(self, networks: Sequence[Network]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)

    def forward(
        self, images: Float[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, "batch class rows columns"]:
        """Logits; of an average, logarithms of probabilities."""
        found = [network(images).fused for network in self.networks]
        if len(found) == 1:
            return found[0]
        return torch.stack([logits.softmax(1) for logits in found]).mean(0).log()


def _few(cfg: Config) -> str:
    """Labelled target images in words; empty for none."""
    if cfg.data.target_list:
        return f"those of {Path(cfg.data.target_list).name}"
    return str(cfg.data.target_labels or "")
