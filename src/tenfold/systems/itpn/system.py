"""The contract for iTPN."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn

from tenfold.core.capabilities import Export
from tenfold.core.claim import Claim
from tenfold.core.optim import Groups, Optim, decay_groups
from tenfold.core.stage import Stage
from tenfold.core.system import DataUsed, Evaluation, Paper, System
from tenfold.data.images.classification import Photos
from tenfold.data.images.coco import SceneSet
from tenfold.data.images.decode import warn_of_replaced
from tenfold.nn.hivit import HiViT
from tenfold.viz.predictions import Trained
from tenfold.weights.keymap import Converted

from . import claims, data, evaluation, export, figures, predict, pretrained
from .config import Config, PredictOptions, Task
from .decay import Rule, layered
from .evaluation import Details
from .model import Classifier, ClipPretraining, PixelPretraining
from .networks import build, device_of, network_of, shape_of, teacher_of
from .recipes import RECIPES
from .tasks import Detector, Localiser, Segmenter
from .training_models import FeatureTrainingModel, TokenTrainingModel

TITLES: dict[Task, dict[str, str]] = {
    "pretrain": {"pixels": "pixel loss", "loss/pre-training/pixels": "loss of masked pixels"},
    "classify": {
        "top1": "top-1", "top5": "top-5",
        "accuracy/fine-tuned/top1": "top-1 accuracy, fine-tuned",
    },
    "localise": {
        "iou": "mean IoU", "above half": "IoU > 0.5",
        "overlap/localised/iou": "mean IoU of boxes",
    },
    "segment": {"iou/segmentation/mIoU": "mean IoU of classes"},
    "detect": {"ap/boxes/AP50": "box AP at IoU 0.5", "ap/masks/AP50": "mask AP at IoU 0.5"},
}  # fmt: skip
"""Task -> titles of its metrics, and of last parts of their keys."""
PROBES = {
    "top1": "top-1", "accuracy/linear probe/top1": "top-1 accuracy, linear probe",
    "accuracy/nearest neighbours/top1": "top-1 accuracy, nearest neighbours",
}  # fmt: skip
"""Titles of the metrics of probes."""
RULES: dict[Task, Rule] = {
    "classify": "finetune", "localise": "finetune", "segment": "segment", "detect": "detect",
}  # fmt: skip


class Itpn(System[Config]):
    """A pyramid of features pre-trained with its backbone, and the tasks that stand on it."""

    paper = Paper(
        arxiv="2211.12735",
        title="Integrally Pre-Trained Transformer Pyramid Networks",
        says="Pre-training backbone and feature pyramid together, by masked pixels or by a "
        "teacher's features, transfers better than pre-training the backbone alone, most of all "
        "to detection and segmentation.",
        cite="@inproceedings{tian2023integrally,\n"
        "  title={Integrally Pre-Trained Transformer Pyramid Networks},\n"
        "  author={Tian, Yunjie and Xie, Lingxi and Wang, Zhaozhi and Wei, Longhui and Zhang, "
        "Xiaopeng and Jiao, Jianbin and Wang, Yaowei and Tian, Qi and Ye, Qixiang},\n"
        "  booktitle={CVPR},\n  year={2023}\n}",
        code="sunsmarterjie/iTPN (MIT; the paper's feature modelling was never released)",
        weights_licence="MIT, as the official repository that links them",
    )
    recipes: ClassVar[dict[str, Config]] = RECIPES
    better: ClassVar[dict[str, str]] = {
        "accuracy": "higher", "overlap": "higher", "iou": "higher", "ap": "higher", "loss": "lower",
    }  # fmt: skip
    units: ClassVar[dict[str, str]] = {
        "accuracy": "%", "overlap": "%", "iou": "%", "ap": "%", "loss": "",
    }  # fmt: skip
    headline: list[str] = ["loss/pre-training/pixels", "overlap/localised/iou"]
    task = "pre-training of backbone and feature pyramid together; classify, segment, detect"
    accepts = "a picture (JPEG, PNG, WebP, ...), or a folder of pictures and of such folders"
    intended = (
        "Features for classification, segmentation and detection, and research on pre-training. "
        "Small networks trained here are no match for published ones; not for decisions on people."
    )
    paths: ClassVar[tuple[str, ...]] = (*System.paths, "pretrain.teacher")
    generated: ClassVar[tuple[str, ...]] = ("scenes",)
    passes: ClassVar[tuple[str, ...]] = (
        "pretrain.epochs", "finetune.epochs", "finetune.localise_epochs", "dense.epochs",
    )  # fmt: skip
    starts_itself = True
    sized_by_start = ("model",)
    options: ClassVar[PredictOptions] = PredictOptions()
    model: nn.ModuleDict

    def __init__(self, cfg: Config) -> None:
        super().__init__(cfg)
        needs = any(task not in ("pretrain", "localise") for task in cfg.tasks)
        if needs and not cfg.classes:
            raise ValueError("the configuration has no classes; use Itpn.complete(cfg)")
        self.model = nn.ModuleDict({task: build(cfg, task) for task in cfg.tasks})
        self.accounts: dict[str, Converted] = {}
        """Task -> account of each tensor that it started from."""
        self._given: pretrained.Given | None = None
        shown = {
            "pretrain": ["accuracy/linear probe/top1", "loss/pre-training/pixels"],
            "classify": ["accuracy/fine-tuned/top1"],
            "localise": ["overlap/localised/iou"],
            "segment": ["iou/segmentation/mIoU"],
            "detect": ["ap/boxes/AP50"] + (["ap/masks/AP50"] if cfg.dense.masks else []),
        }
        self.headline = [metric for task in cfg.tasks[::-1] for metric in shown[task]][:3]
        if cfg.tasks == ("pretrain",) and not self.has_labels:
            self.headline = shown["pretrain"][1:]

    @classmethod
    def complete(cls, cfg: Config) -> Config:
        """Take sizes from the weights it starts from, and classes from the data."""
        cfg = data.complete(pretrained.adapted(cfg))
        is_clip = "pretrain" in cfg.tasks and cfg.pretrain.method == "clip"
        if cfg.pretrain.teacher and cfg.pretrain.method != "clip":
            raise ValueError(
                f"pretrain.teacher is {cfg.pretrain.teacher}, but pretrain.method is "
                f"{cfg.pretrain.method}, which has none. Add --pretrain.method clip."
            )
        if is_clip and cfg.pretrain.teacher:  # without one, `fits` says what is needed
            dim = teacher_of(cfg).dim
            cfg = replace(cfg, pretrain=replace(cfg.pretrain, teacher_dim=dim))
        return cfg

    @property
    def has_labels(self) -> bool:
        """True if the data has a class for each picture, for probes."""
        is_own = self.cfg.data.name == "folder" and not {"segment", "detect"} & set(self.cfg.tasks)
        return is_own or self.cfg.data.name in ("imagenet", "tiny_imagenet_20", "scenes")

    def photos(self, split: str) -> Photos:
        """Pictures of pre-training, classification and localisation."""
        return data.photographs(self.cfg.data, split, self.cfg.seed)

    # --- training ------------------------------------------------------------------------------

    def stages(self) -> Iterator[Stage]:
        """One stage a task; each after the first starts from what pre-training learned."""
        if self.cfg.start:
            self.from_start(self._begin_from_start)
        for task in self.cfg.tasks:
            if task != "pretrain" and "pretrain" in self.cfg.tasks:
                self._begin(task)
            if task == "pretrain":
                yield self._pretraining()
            elif task in ("classify", "localise"):
                yield self._photo_task(task)
            else:
                yield self._dense_task(task)
        self._name_replaced("train")

    def _name_replaced(self, split: str) -> None:
        """Say which pictures could not be read when they were needed."""
        warn_of_replaced(data.replaced(self.cfg, split), split)

    def _begin_from_start(self) -> None:
        """Load what is to begin from `start`: pre-training, else every task."""
        for task in ("pretrain",) if "pretrain" in self.cfg.tasks else self.cfg.tasks:
            self._begin(task)

    def _begin(self, task: str) -> None:
        """Load a task's backbone from the run's own pre-training or from `start`."""
        given = self._started() if task == "pretrain" else self.beginning()
        if given is None:
            return
        allowed = self.cfg.allow_missing
        backbone = network_of(self.model, task).backbone
        self.accounts[task] = pretrained.begin(backbone, given.state, given.source, allowed)

    def beginning(self) -> pretrained.Given | None:
        """The weights that tasks start from; None for random ones."""
        if "pretrain" in self.cfg.tasks:
            backbone = network_of(self.model, "pretrain").backbone
            shape = shape_of(self.cfg, "pretrain")
            state = pretrained.of_backbone(backbone)
            how = self.cfg.data.normalise
            source = "the run's pre-training"
            return pretrained.Given(source, self.cfg.model, state, shape.grid, how)
        return self._started()

    def _started(self) -> pretrained.Given | None:
        """The weights of `start`, which pre-training goes on from, too."""
        if self.cfg.start and self._given is None:
            self._given = pretrained.read(self.cfg.start)
        return self._given

    def _steps(self, epochs: int, feed: data.Feed) -> int:
        return self.cfg.steps or epochs * feed.steps_per_epoch

    def _optim(self, optim: Optim, steps: int) -> Optim:
        """The optimiser with the warm-up that its share of the steps makes."""
        if optim.warmup:
            return replace(optim, warmup=min(optim.warmup, steps))
        return replace(optim, warmup=round(self.cfg.warmup_share * steps))

    def _pretraining(self) -> Stage:
        cfg, network = self.cfg, self.model["pretrain"]
        batches = data.PhotoBatches(
            cfg, self.photos("train"), self.held_out(len(self.photos("train")))
        )
        feed = batches.feed("pretrain")
        steps = self._steps(cfg.pretrain.epochs, feed)
        optim = self._optim(cfg.pretrain_optim, steps)
        groups: Callable[[nn.Module], Groups] = decay_groups
        if isinstance(network, ClipPretraining):
            teacher = teacher_of(cfg)
            side = teacher.side(cfg.model.size // cfg.model.patch_size)
            make = partial(batches.tokens, feed, side=side)
            tokens = TokenTrainingModel(network, teacher)
            return Stage("pretrain", tokens, make, steps, optim, groups)
        assert isinstance(network, PixelPretraining)
        make = partial(batches.pixels, feed)
        if not cfg.pretrain.feature_weight:
            return Stage("pretrain", network, make, steps, optim, groups)
        settings = cfg.pretrain
        features = FeatureTrainingModel(network, settings.feature_weight, settings.momentum)
        return Stage(
            "pretrain", features, make, steps, optim, groups,
            after_step=lambda step: features.follow(step, steps),
            state={"teacher": features.teacher[0]},
        )  # fmt: skip

    def held_out(self, count: int) -> np.ndarray:
        """Rows of the training pictures that are kept for validation."""
        order = torch.randperm(count, generator=torch.Generator().manual_seed(0)).numpy()
        return np.sort(order[: round(self.cfg.data.holdout * count)])

    def _photo_task(self, task: Task) -> Stage:
        cfg, network = self.cfg, self.model[task]
        held = self.held_out(len(self.photos("train")))
        batches = data.PhotoBatches(cfg, self.photos("train"), held)
        feed = batches.feed(task)
        is_class = task == "classify"
        epochs = cfg.finetune.epochs if is_class else cfg.finetune.localise_epochs
        steps = self._steps(epochs, feed)
        make = batches.classes if is_class else batches.boxes
        validate = partial(self._validated, self.photos("train").at(held)) if len(held) else None
        optim = self._optim(cfg.optim, steps)
        decay = partial(
            layered, weight_decay=optim.weight_decay, rate=cfg.finetune.layer_decay,
            rule=RULES[task],
        )  # fmt: skip
        return Stage(
            task, network, partial(make, feed), steps, optim, decay, validate=validate,
            monitor=("top1" if is_class else "iou") if validate else "", better="higher",
        )  # fmt: skip

    def _validated(self, photos: Photos, network: nn.Module) -> dict[str, float]:
        """The task's metric on held-out training pictures."""
        if isinstance(network, Classifier):
            logits = evaluation.class_logits(network, photos, self.cfg)
            found = evaluation.accuracy(logits, torch.tensor(photos.labels))
            return {"top1": found["accuracy/fine-tuned/top1"]}
        assert isinstance(network, Localiser)
        found = evaluation.overlap(evaluation.boxes(network, photos, self.cfg), photos)
        return {"iou": found["overlap/localised/iou"]}

    def _dense_task(self, task: Task) -> Stage:
        cfg = self.cfg
        is_map = task == "segment"
        source = (data.segmented if is_map else data.instances)(cfg.data, "train")
        held = self.held_out(len(source))
        batches = data.DenseBatches(cfg, source, held)
        feed = batches.feed(task)
        steps = self._steps(cfg.dense.epochs, feed)
        make = batches.maps if is_map else batches.objects
        optim = self._optim(cfg.optim, steps)
        decay = partial(
            layered, weight_decay=optim.weight_decay, rate=cfg.dense.layer_decay, rule=RULES[task]
        )
        validate = None
        if len(held):
            kept = source.at(held.tolist())
            if isinstance(kept, SceneSet) and not kept.has_objects:
                raise ValueError(
                    f"data.holdout {cfg.data.holdout:g} keeps {len(held)} of {len(source)} "
                    "pictures for validation, and none of them has an object; raise it, or set 0"
                )
            validate = partial(self._validated_dense, kept)
        watch = "mIoU" if is_map else "AP50"
        return Stage(
            task, self.model[task], partial(make, feed), steps, optim, decay, validate=validate,
            monitor=watch if validate else "", better="higher",
        )  # fmt: skip

    def _validated_dense(self, held: Any, network: nn.Module) -> dict[str, float]:
        """mIoU, or AP at IoU 0.5 of boxes, on held-out training pictures."""
        if isinstance(network, Segmenter):
            found = evaluation.segmentation(network, held, self.cfg)[0]
            return {"mIoU": found["iou/segmentation/mIoU"]}
        assert isinstance(network, Detector)
        found = evaluation.detection(network, held, self.cfg)
        return {"AP50": found["ap/boxes/AP50"]}

    # --- measuring -----------------------------------------------------------------------------

    def evaluate(self, split: str = "test") -> Evaluation:
        """Measure every task on its test split, and probe the network that tasks start from.

        Args:
            split: "test" alone.

        Returns:
            Metrics (percent, but for losses); baselines that need no network: shrunk pixels, the
            mean box, the most frequent class; `Details` of what was seen.

        Raises:
            ValueError: Another split is asked for.

        Example:
            accuracy = system.evaluate().metrics["accuracy/fine-tuned/top1"]
        """
        if split != "test":
            raise ValueError(f"unknown split {split!r}; known: test")
        if self.cfg.tasks != ("pretrain",):
            data.require_classes(self.cfg, "test")
        frozen, notes = None, list[str]()
        if self._has_probes:
            try:
                frozen = self.begun()
            except FileNotFoundError as error:  # what was trained from it can be measured still
                notes.append(f"what tasks start from is not probed: {error}")
        found = evaluation.evaluate(self.model, self.cfg, frozen)
        self._name_replaced("test")
        return replace(found, notes=(*found.notes, *notes))

    @property
    def _has_probes(self) -> bool:
        on_photos = any(task in ("pretrain", "classify", "localise") for task in self.cfg.tasks)
        return on_photos and self.cfg.probes and self.has_labels

    def begun(self) -> HiViT:
        """The backbone that the tasks start from, as it was then."""
        if "pretrain" in self.cfg.tasks:
            return network_of(self.model, "pretrain").backbone
        backbone = network_of(nn.ModuleDict({"b": build(self.cfg, "classify")}), "b").backbone
        given = self.beginning()
        if given is not None:
            pretrained.begin(backbone, given.state, given.source, self.cfg.allow_missing)
        return backbone.to(device_of(self.model))

    # --- use -----------------------------------------------------------------------------------

    def write_predictions(self, inputs: Path, out: Path, options: Any) -> list[Path]:
        """Write labels, boxes, masks, reconstructions and features of an image or a folder."""
        used = self.data_used()
        trained = Trained(type(self).__name__, used.name, used.kind, self.notes())
        return predict.predict_files(self.model, self.cfg, inputs, out, options, trained)

    def draw_pictures(self, evaluation: Evaluation, out: Path) -> dict[Path, str]:
        """Draw what each task does with test images."""
        if not isinstance(evaluation.details, Details):
            raise ValueError("the evaluation is none of this system: its details are no Details")
        return figures.draw_figures(self.model, self.cfg, evaluation.details, self.options, out)

    def data_used(self) -> DataUsed:
        """The data of this configuration."""
        return data.used(self.cfg.data)

    def notes(self) -> list[str]:
        """Protocol and departures."""
        cfg = self.cfg
        lines = []
        if "pretrain" in cfg.tasks and cfg.start:
            lines.append(f"pre-training started from {cfg.start}")
        if cfg.tasks != ("pretrain",):
            own = "this run's pre-training" if "pretrain" in cfg.tasks else cfg.start
            lines.append(f"tasks start from {own or 'random weights'}")
        if "pretrain" in cfg.tasks:
            lines += self._pretraining_notes()
        if self._has_probes:
            lines.append("probes see the frozen network that tasks start from: its mean token")
        if "localise" in cfg.tasks:
            lines.append("localised: the box of a picture's one object; a task of ours")
        if "segment" in cfg.tasks and not cfg.dense.stride:
            lines.append("segmentation takes each test picture whole, at its own size")
        return lines

    def _pretraining_notes(self) -> list[str]:
        settings = self.cfg.pretrain
        if settings.method == "pixel":
            lines = ["pixels: loss on removed units, normalised in each"]
            if not settings.pyramid:
                lines.append("HiViT-MAE: the pyramid is not pre-trained")
            if settings.feature_weight:
                lines.append("feature modelling with a moving average of itself as teacher: ours")
            return lines
        laterals = "laterals masked (ours)" if settings.leak_free else "laterals leak as officially"
        return [f"teacher {settings.teacher}, range {settings.teacher_range}; {laterals}"]

    def labels(self) -> dict[str, str]:
        """Titles of the metrics of this run's tasks."""
        titles = {key: title for task in self.cfg.tasks for key, title in TITLES[task].items()}
        return {**titles, **PROBES} if self._has_probes else titles

    def claims(self) -> list[Claim[Config]]:
        """The pyramid's worth: scratch, HiViT-MAE, iTPN."""
        return claims.claims()

    # --- files of others -----------------------------------------------------------------------

    def export(self) -> Export:
        """Take the network of the run's last task."""
        return export.export_part(self.model, self.cfg)

    def export_part(self, part: str, size: tuple[int, int]) -> Export:
        """Take the backbone, or a task's network, for images of one size.

        Args:
            part: "backbone" or a task; empty is the last task that can be exported.
            size: Height and width in pixels; (0, 0) is `model.size`.

        Raises:
            ValueError: The run has no such part.
        """
        return export.export_part(self.model, self.cfg, part, size)

    @classmethod
    def convert(cls, source: Path) -> tuple[System[Config], Converted]:
        """Read an official file of pre-training or fine-tuning; sizes follow from its shapes.

        Returns:
            A system, and what became of each tensor.

        Raises:
            ValueError: It is no file of iTPN, or a backbone without a head.
        """
        cfg, state = export.read_official(source)
        system = cls(cfg)
        return system, export.fill(system.model[cfg.tasks[0]], state)
