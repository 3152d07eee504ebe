"""The contract for iTPN."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
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
from tenfold.core.system import DataUsed, Paper, System
from tenfold.data.images.classification import Photos
from tenfold.weights.keymap import Converted

from . import claims, data, evaluation, export, figures, predict, pretrained
from .config import Config, Task
from .decay import Rule, layered
from .model import Classifier, ClipPretraining, PixelPretraining
from .networks import build, network_of, shape_of, teacher_of
from .recipes import RECIPES
from .tasks import Detector, Localiser, Segmenter
from .training_models import FeatureTrainee, TokenTrainee

RULES: dict[Task, Rule] = {
    "classify": "finetune", "localise": "finetune", "segment": "segment", "detect": "detect",
}  # fmt: skip


@dataclass(frozen=True)
class Asked:
    """What `predict` may be asked for."""

    top: int = 5
    """Classes to list for each picture."""
    score: float = 0.3
    """Least score of detected objects that are drawn and listed."""
    seed: int = 0
    """Seed of the masks of reconstructions."""

    def __post_init__(self) -> None:
        if self.top < 1:
            raise ValueError(f"--top must be at least 1, got {self.top}")
        if not 0 <= self.score < 1:
            raise ValueError(f"--score must be in [0, 1), got {self.score}")


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
    accepts = "a picture (JPEG, PNG, WebP, ...) or a folder of pictures"
    intended = (
        "Features for classification, segmentation and detection, and research on pre-training. "
        "Small networks trained here are no match for published ones; not for decisions on people."
    )
    options: Any = Asked()
    model: nn.ModuleDict

    def __init__(self, cfg: Config) -> None:
        super().__init__(cfg)
        needs = any(task not in ("pretrain", "localise") for task in cfg.tasks)
        if needs and not cfg.classes:
            raise ValueError("the configuration has no classes; use Itpn.complete(cfg)")
        self.model = nn.ModuleDict({task: build(cfg, task) for task in cfg.tasks})
        self.accounts: dict[str, Converted] = {}
        """What became of each tensor that a task started from."""
        self.found: dict[str, Any] = {}
        """What the last evaluation saw, for pictures."""
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
        if is_clip and cfg.pretrain.teacher:  # without one, `fits` says what is needed
            dim = teacher_of(cfg).dim
            cfg = replace(cfg, pretrain=replace(cfg.pretrain, teacher_dim=dim))
        return cfg

    @property
    def has_labels(self) -> bool:
        """Whether the data has a class for each picture, for probes."""
        return self.cfg.data.name in ("imagenet", "tiny_imagenet_20", "folder", "scenes")

    def photos(self, split: str) -> Photos:
        """Pictures of pre-training, classification and localisation."""
        return data.photographs(self.cfg.data, split, self.cfg.seed)

    # --- training ------------------------------------------------------------------------------

    def stages(self) -> Iterator[Stage]:
        """One stage a task; each after the first starts from what pre-training learned."""
        for task in self.cfg.tasks:
            if task != "pretrain" or self.cfg.start:
                self._begin(task)
            if task == "pretrain":
                yield self._pretraining()
            elif task in ("classify", "localise"):
                yield self._photo_task(task)
            else:
                yield self._dense_task(task)

    def _begin(self, task: str) -> None:
        """Load a task's backbone from the run's own pre-training or from `start`."""
        given = self.beginning()
        if given is None:
            return
        allowed = self.cfg.allow_missing
        backbone = network_of(self.model, task).backbone
        self.accounts[task] = pretrained.begin(backbone, given.state, given.source, allowed)

    def beginning(self) -> pretrained.Given | None:
        """What tasks start from; None for random weights."""
        if "pretrain" in self.cfg.tasks:
            backbone = network_of(self.model, "pretrain").backbone
            shape = shape_of(self.cfg, "pretrain")
            state = pretrained.of_backbone(backbone)
            return pretrained.Given("the run's pre-training", self.cfg.model, state, shape.grid)
        if self.cfg.start and self._given is None:
            self._given = pretrained.read(self.cfg.start)
        return self._given

    def _steps(self, epochs: int, feed: data.Feed) -> int:
        return self.cfg.steps or epochs * feed.steps_per_epoch

    def _optim(self, optim: Optim, steps: int) -> Optim:
        """With the warm-up that its share of the steps makes."""
        if optim.warmup:
            return replace(optim, warmup=min(optim.warmup, steps))
        return replace(optim, warmup=round(self.cfg.warmup_share * steps))

    def _pretraining(self) -> Stage:
        cfg, network = self.cfg, self.model["pretrain"]
        batches = data.PhotoBatches(
            cfg, self.photos("train"), self._held(len(self.photos("train")))
        )
        feed = batches.feed("pretrain")
        steps = self._steps(cfg.pretrain.epochs, feed)
        optim = self._optim(cfg.pretrain_optim, steps)
        groups: Callable[[nn.Module], Groups] = decay_groups
        if isinstance(network, ClipPretraining):
            teacher = teacher_of(cfg)
            side = teacher.side(cfg.model.size // cfg.model.patch_size)
            make = partial(batches.tokens, feed, side=side)
            trainee = TokenTrainee(network, teacher)
            return Stage("pretrain", trainee, make, steps, optim, groups)
        assert isinstance(network, PixelPretraining)
        make = partial(batches.pixels, feed)
        if not cfg.pretrain.feature_weight:
            return Stage("pretrain", network, make, steps, optim, groups)
        settings = cfg.pretrain
        features = FeatureTrainee(network, settings.feature_weight, settings.momentum)
        return Stage(
            "pretrain", features, make, steps, optim, groups,
            after_step=lambda step: features.follow(step, steps),
            state={"teacher": features.teacher[0]},
        )  # fmt: skip

    def _held(self, count: int) -> np.ndarray:
        """Rows of the training pictures that are kept for validation."""
        order = torch.randperm(count, generator=torch.Generator().manual_seed(0)).numpy()
        return np.sort(order[: round(self.cfg.data.holdout * count)])

    def _photo_task(self, task: Task) -> Stage:
        cfg, network = self.cfg, self.model[task]
        held = self._held(len(self.photos("train")))
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
            found = evaluation.accuracy(logits, torch.from_numpy(photos.labels))
            return {"top1": found["accuracy/fine-tuned/top1"]}
        found = evaluation.overlap(evaluation.boxes(network, photos, self.cfg), photos)
        return {"iou": found["overlap/localised/iou"]}

    def _dense_task(self, task: Task) -> Stage:
        cfg = self.cfg
        is_map = task == "segment"
        source = (data.segmented if is_map else data.instances)(cfg.data, "train")
        held = self._held(len(source))
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
            validate = partial(self._validated_dense, source.at(held.tolist()))
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

    def evaluate(self, split: str) -> dict[str, float]:
        """Every task on its test split; probes of the network that tasks start from."""
        if split != "test":
            raise ValueError(f"unknown split {split!r}; known: test")
        cfg = self.cfg
        found: dict[str, float] = {}
        photo_tasks = [t for t in cfg.tasks if t in ("pretrain", "classify", "localise")]
        if photo_tasks and cfg.probes and self.has_labels:
            backbone = self.begun()
            found |= evaluation.probe(backbone, self.photos("train"), self.photos("test"), cfg)
        for task in cfg.tasks:
            network = self.model[task]
            if isinstance(network, PixelPretraining | ClipPretraining):
                found |= evaluation.reconstruction(network, self.photos("test"), cfg)
            elif isinstance(network, Classifier):
                photos = self.photos("test")
                logits = evaluation.class_logits(network, photos, cfg)
                self.found["logits"] = logits
                found |= evaluation.accuracy(logits, torch.from_numpy(photos.labels))
            elif isinstance(network, Localiser):
                boxes = evaluation.boxes(network, self.photos("test"), cfg)
                self.found["boxes"] = boxes
                found |= evaluation.overlap(boxes, self.photos("test"))
            elif isinstance(network, Segmenter):
                maps = data.segmented(cfg.data, "test")
                numbers, self.found["confusion"] = evaluation.segmentation(network, maps, cfg)
                found |= numbers
            elif isinstance(network, Detector):
                found |= evaluation.detection(network, data.instances(cfg.data, "test"), cfg)
        return found

    def begun(self) -> Any:
        """The backbone that the tasks start from, as it was then."""
        if "pretrain" in self.cfg.tasks:
            return network_of(self.model, "pretrain").backbone
        backbone = network_of(nn.ModuleDict({"b": build(self.cfg, "classify")}), "b").backbone
        given = self.beginning()
        if given is not None:
            pretrained.begin(backbone, given.state, given.source, self.cfg.allow_missing)
        return backbone.to(evaluation.device_of(self.model))

    def baselines(self, split: str) -> dict[str, dict[str, float]]:
        """What no network is needed for: shrunk pixels, the mean box, the most frequent class."""
        cfg = self.cfg
        rows: dict[str, dict[str, float]] = {}
        photo_tasks = [t for t in cfg.tasks if t in ("pretrain", "classify", "localise")]
        if photo_tasks and cfg.probes and self.has_labels:
            pixels = evaluation.of_pixels(self.photos("train"), self.photos("test"), cfg)
            rows["pixels, 16 x 16"] = pixels
        if "localise" in cfg.tasks:
            rows["mean box"] = evaluation.mean_box(self.photos("train"), self.photos("test"))
        if "segment" in cfg.tasks:
            rows["most frequent class"] = evaluation.most_frequent(cfg)
        return rows

    # --- use -----------------------------------------------------------------------------------

    def predict(self, inputs: Path, out: Path) -> list[Path]:
        """Labels, boxes, masks, reconstructions and features of a picture or a folder of them."""
        return predict.predict_files(self, inputs, out)

    def pictures(self, out: Path) -> dict[Path, str]:
        """What each task does with test pictures."""
        return figures.report_pictures(self, out)

    def data_used(self) -> DataUsed:
        """The data of this configuration."""
        return data.used(self.cfg.data)

    def notes(self) -> list[str]:
        """Protocol and departures."""
        cfg = self.cfg
        lines = []
        if cfg.tasks != ("pretrain",):
            own = "this run's pre-training" if "pretrain" in cfg.tasks else cfg.start
            lines.append(f"tasks start from {own or 'random weights'}")
        if "pretrain" in cfg.tasks:
            lines += self._pretraining_notes()
        photo_tasks = [t for t in cfg.tasks if t in ("pretrain", "classify", "localise")]
        if photo_tasks and cfg.probes and self.has_labels:
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
        """Titles of columns."""
        return {
            "top1": "top-1", "top5": "top-5", "iou": "mean IoU", "above half": "IoU > 0.5",
            "pixels": "pixel loss",
        }  # fmt: skip

    def claims(self) -> list[Claim[Config]]:
        """The pyramid's worth: scratch, HiViT-MAE, iTPN."""
        return claims.claims()

    # --- files of others -----------------------------------------------------------------------

    def export(self) -> Export:
        """The run's last task."""
        return export.export(self, "", (0, 0))

    def export_part(self, part: str, size: tuple[int, int]) -> Export:
        """Backbone, or a task's network, for pictures of a size."""
        return export.export(self, part, size)

    @classmethod
    def convert(cls, source: Path) -> tuple[System[Config], Converted]:
        """Read an official file of pre-training or fine-tuning; sizes follow from its shapes."""
        return export.convert(cls, source)
