"""The contract for USAGE."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from torch import nn

from tenfold.core import dist
from tenfold.core.capabilities import Export
from tenfold.core.claim import Claim
from tenfold.core.optim import Groups, groups_by_name
from tenfold.core.stage import Stage
from tenfold.core.system import DataUsed, Evaluation, Paper, System
from tenfold.viz.predictions import Trained
from tenfold.weights.keymap import Converted

from . import choices, claims, data, evaluation, export, figures, predict, pretrained, settings
from .config import Config, PredictOptions
from .evaluation import Details
from .model import Networks, Segmenter
from .pipeline import Pipeline
from .recipes import RECIPES
from .training import SeedTraining
from .walking import Walker


class Usage(System[Config]):
    """From labels of whole pictures to a segmentation network, by seeds and pseudo masks."""

    paper = Paper(
        arxiv="2303.07806",
        title="USAGE: A Unified Seed Area Generation Paradigm for Weakly Supervised Semantic "
        "Segmentation",
        says="Activation maps of convolutional networks cover too little of an object and those of "
        "transformers too much; one loss with a temperature, and a teacher that drops less, make "
        "better seeds of both.",
        cite="@inproceedings{peng2023usage,\n"
        "  title={USAGE: A Unified Seed Area Generation Paradigm for Weakly Supervised Semantic "
        "Segmentation},\n"
        "  author={Peng, Zelin and Wang, Guanchun and Xie, Lingxi and Jiang, Dongsheng and Shen, "
        "Wei and Tian, Qi},\n"
        "  booktitle={ICCV},\n  pages={624--634},\n  year={2023}\n}",
        code="godlin-sjtu/USAGE holds a README and a figure, no code; what is around the losses "
        "follows PSA, SEAM, IRN and MCTformer",
        weights_licence="none were published; those of the peers are under their repositories' "
        "licences",
    )
    recipes: ClassVar[dict[str, Config]] = RECIPES
    better: ClassVar[dict[str, str]] = settings.BETTER
    units: ClassVar[dict[str, str]] = settings.UNITS
    headline: list[str] = ["segmentation/test/mIoU", "masks/train/mIoU", "seeds/train/mIoU"]
    task = "weakly supervised segmentation: labels of whole pictures to masks"
    accepts = "a picture (JPEG, PNG, WebP, ...), or a folder of pictures, with a table of labels"
    intended = (
        "Masks for pictures of which nobody drew any, where labels of whole pictures are known. "
        "Borders are rough, and what always stands beside an object (rails, water) may be taken "
        "for a part of it; not for decisions about people."
    )
    paths: ClassVar[tuple[str, ...]] = (
        "data.path", "data.seeds_path", "data.masks_path", "start"
    )  # fmt: skip
    generated: ClassVar[tuple[str, ...]] = (data.GENERATED,)
    starts_itself = True
    sized_by_start = ("model",)
    options: ClassVar[PredictOptions] = PredictOptions()
    model: Networks
    _folder: tempfile.TemporaryDirectory[str] | None = None

    def __init__(self, cfg: Config) -> None:
        super().__init__(cfg)
        if not cfg.classes:
            raise ValueError("the configuration has no classes; use Usage.complete(cfg)")
        self.model = Networks(cfg)
        self.headline = settings.headline(cfg)

    @classmethod
    def complete(cls, cfg: Config) -> Config:
        """Choose the data, generated where none is found; take classes and masks from it."""
        cfg.refine.require_read()
        return data.complete(pretrained.adapted(cfg))

    # --- training ------------------------------------------------------------------------------

    def stages(self) -> Iterator[Stage]:
        """Seed network, affinity network, segmentation network; files lie between them."""
        cfg, networks = self.cfg, self.model
        sets, pipeline = data.open_sets(cfg.data), self.pipeline()
        pipeline.require_given()
        self.origin = self.from_start(lambda: pretrained.begin(networks, cfg))
        batches = data.LabelledBatches(cfg, sets.train)
        training = SeedTraining(cfg, networks.seed)
        teacher = {"teacher": training.teacher} if training.teacher is not None else {}
        yield Stage(
            "seed",
            training,
            batches,
            cfg.steps if cfg.is_seed_trained else 0,
            cfg.optim.within(cfg.steps),
            partial(_rates, factor=cfg.head_lr),
            after_step=training.follow,
            state=teacher,
        )
        if cfg.seeds.network == "teacher" and training.teacher is not None:
            networks.seed.load_state_dict(training.teacher.state_dict())
        networks.seed.eval()
        if pipeline.has_seeds:
            pipeline.make_seeds()
            networks.threshold.fill_(choices.choose(pipeline))
        if networks.affinity is not None:
            pipeline.make_confident()
            yield self._affinity(networks.affinity, pipeline)
            networks.affinity.eval()
        pipeline.make_masks()
        if networks.segment is not None:
            yield self._segmentation(networks.segment, pipeline)

    def _affinity(self, network: Walker, pipeline: Pipeline) -> Stage:
        own = self.cfg.refine
        views = data.refine_views(own)
        return Stage(
            "affinity",
            network,
            data.MaskedBatches(self.cfg, pipeline.sets.train, pipeline.confident, views),
            own.steps,
            self.cfg.refine_optim.within(own.steps),
        )

    def _segmentation(self, network: Segmenter, pipeline: Pipeline) -> Stage:
        cfg = self.cfg
        own = cfg.segment
        mask = pipeline.pseudo_mask if own.labels == "pseudo" else pipeline.true_mask
        return Stage(
            "segment",
            network,
            data.MaskedBatches(cfg, pipeline.sets.train, mask, data.segment_views(own)),
            own.steps,
            cfg.segment_optim.within(own.steps),
            partial(_rates, factor=cfg.head_lr),
        )

    def pipeline(self) -> Pipeline:
        """What lies between the stages, in the run's folder or in one that goes with the system."""
        if self.work is not None:
            return Pipeline(self.model, self.cfg, self.work)
        world = dist.current()
        if self._folder is None and world.is_first:
            self._folder = tempfile.TemporaryDirectory(prefix="tenfold-usage-")
        name = world.gather(self._folder.name if self._folder else "")[0]
        return Pipeline(self.model, self.cfg, Path(name))

    # --- results -------------------------------------------------------------------------------

    def evaluate(self, split: str = "test") -> Evaluation:
        """Measure every stage: seeds and pseudo masks on training pictures, the network on others.

        Args:
            split: "test".

        Returns:
            In percent "seeds/train/mIoU" (at the run's threshold), "seeds/train, best
            threshold/mIoU", "masks/train/mIoU", "segmentation/test/mIoU", "errors/..." FP and FN
            of each, mAP of the classifier, IoU of each class, and "lost/<criterion>/points": points
            of mIoU that a threshold by it loses against the best. What has no masks is not
            measured.

        Raises:
            ValueError: Another split is asked for.

        Example:
            miou = system.evaluate().metrics["masks/train/mIoU"]
        """
        if split != "test":
            raise ValueError(f"unknown split {split!r}; known: test")
        data.require_classes(self.cfg)
        return evaluation.evaluate(self.model, self.cfg, self.pipeline())

    def write_predictions(self, inputs: Path, out: Path, options: Any) -> list[Path]:
        """Write heat maps, masks and overlays of a picture, or of each picture of a folder."""
        used = self.data_used()
        trained = Trained(type(self).__name__, used.name, used.kind, self.notes())
        return predict.predict_files(self.model, self.cfg, inputs, out, options, trained)

    def draw_pictures(self, evaluation: Evaluation, out: Path) -> dict[Path, str]:
        """Draw seeds, masks and segmentation, the threshold's curve, and errors of both kinds."""
        if not isinstance(evaluation.details, Details):
            raise ValueError("the evaluation is none of this system: its details are no Details")
        return figures.draw_figures(self.pipeline(), evaluation.details, out)

    def data_used(self) -> DataUsed:
        """The set of pictures."""
        return data.used(self.cfg.data)

    def notes(self) -> list[str]:
        """Setting of every number, and departures."""
        return settings.notes(self.cfg, float(self.model.threshold))

    def labels(self) -> dict[str, str]:
        """Titles of metrics, each with its setting."""
        return settings.titles(self.cfg)

    def claims(self) -> list[Claim[Config]]:
        """Seeds of USAGE against class activation maps, and what they are worth in the end."""
        return claims.claims()

    def export(self) -> Export:
        """The segmentation network, or without one the seed network."""
        return self.export_part("", (0, 0))

    def export_part(self, part: str, size: tuple[int, int]) -> Export:
        """A network, from normalised pictures.

        Args:
            part: "classifier" (activation maps and scores of classes) or "segmentation" (logits);
                empty is the last that there is.
            size: Height and width; (0, 0) is that of training.

        Raises:
            ValueError: The run has no such network.
        """
        return export.export_part(self.model, self.cfg, part, size)

    @classmethod
    def convert(cls, source: Path) -> tuple[System[Config], Converted]:
        """Read a seed network of a peer (MCTformer V2 and +, PSA, SEAM, IRN's ResNet-50).

        Returns:
            A system without a segmentation network, and what became of each tensor.

        Raises:
            ValueError: It is no such file, or has no head for classes.
        """
        cfg, state, account = pretrained.read_official(source)
        system = cls(cfg)
        system.model.seed.load_state_dict(state, strict=False)
        return system, account


def _rates(model: nn.Module, factor: float) -> Groups:
    """New layers learn faster; vectors do not decay."""
    return groups_by_name(model, {"head": (factor, True), "decode_head": (factor, True)})
