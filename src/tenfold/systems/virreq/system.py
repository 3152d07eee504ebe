"""The contract for ViRReq."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any, ClassVar

import torch

from tenfold.core.capabilities import Export
from tenfold.core.claim import Claim
from tenfold.core.seed import generator
from tenfold.core.stage import Stage
from tenfold.core.system import DataUsed, Evaluation, Paper, System
from tenfold.data.images.decode import warn_of_replaced
from tenfold.viz.predictions import Trained
from tenfold.weights.keymap import Converted

from . import (
    claims,
    data,
    evaluation,
    figures,
    given,
    predict,
    pretrained,
    serving,
    sets,
    sources,
)  # fmt: skip
from .config import Config, PageOptions, PredictOptions
from .evaluation import Details
from .groups import groups
from .labelling import Labelling
from .model import Networks, ObjectTraining, RequestTraining, parameter_groups
from .recipes import RECIPES
from .recogniser import TrainedRecogniser

GROUPS = ("iou", "concept", "hpq", "probe")
"""Of metrics."""


class Virreq(System[Config]):
    """A network that divides a region into the concepts that it is asked for, down a hierarchy."""

    paper = Paper(
        arxiv="2207.14227",
        title="Visual Recognition by Request",
        says="Recognition is asked for step by step down a hierarchy of concepts given as text, so "
        "that no picture need be labelled whole, and what nobody labelled is not read as absent.",
        cite="@inproceedings{tang2023visual,\n"
        "  title={Visual Recognition by Request},\n"
        "  author={Tang, Chufeng and Xie, Lingxi and Zhang, Xiaopeng and Hu, Xiaolin and Tian, "
        "Qi},\n"
        "  booktitle={CVPR},\n  year={2023}\n}",
        code="chufengt/ViRReq: networks and losses; no preparation, evaluation or weights",
        weights_licence="none were published",
    )
    recipes: ClassVar[dict[str, Config]] = RECIPES
    better: ClassVar[dict[str, str]] = dict.fromkeys(GROUPS, "higher")
    units: ClassVar[dict[str, str]] = dict.fromkeys(GROUPS, "%")
    headline: list[str] = ["iou/parts/mIoU", "hpq/regions/all"]
    task = "recognition by request: a picture into wholes, wholes into parts, as far as asked"
    accepts = "a picture (JPEG, PNG, WebP, ...), or a folder of pictures"
    intended = (
        "Division of pictures into wholes and parts whose labels may be incomplete. Trained from "
        "scratch it knows its own concepts; a new word is answered by what is near it among them."
    )
    paths: ClassVar[tuple[str, ...]] = (
        "data.path", "data.knowledge", "text.clip", "text.merges", "text.table", "start",
    )  # fmt: skip
    generated: ClassVar[tuple[str, ...]] = (sets.GENERATED,)
    own_data = ""
    starts_itself = True
    sized_by_start = ("model",)
    options: ClassVar[PredictOptions] = PredictOptions()
    page_options: ClassVar[PageOptions] = PageOptions()
    model: Networks

    def __init__(self, cfg: Config) -> None:
        super().__init__(cfg)
        if not cfg.knowledge:
            raise ValueError("the configuration has no knowledge base; use Virreq.complete(cfg)")
        self.model = Networks(cfg, data.knowledge_of(cfg))

    @classmethod
    def complete(cls, cfg: Config) -> Config:
        """Choose data and texts that are there, and take the knowledge base from the data."""
        cfg = data.complete(pretrained.sized(cfg))
        return sources.complete(cfg, data.knowledge_of(cfg))

    def stages(self) -> Iterator[Stage]:
        """Division of regions into concepts (Type-I), then into objects (Type-II)."""
        cfg, kb, networks = self.cfg, data.knowledge_of(self.cfg), self.model
        sources.fill(networks.divide.texts, kb, cfg.text)
        self.origin = self.from_start(lambda: pretrained.begin(networks, cfg))
        hidden = frozenset() if cfg.data.examples else frozenset(cfg.data.hidden)
        own = groups(kb, data.codes_of(cfg), cfg.loss.groups, hidden, sets.table_size(cfg.data))
        yield Stage(
            "divide",
            RequestTraining(cfg, networks.divide, own),
            data.Batches(cfg, "divide", cfg.data.batch_size),
            cfg.steps,
            cfg.optim.within(cfg.steps),
            parameter_groups(cfg.head_lr),
        )
        if networks.separate is not None:
            networks.name_things(kb)
            yield Stage(
                "separate",
                ObjectTraining(networks.separate),
                data.ObjectBatches(cfg),
                cfg.separate.steps,
                cfg.separate_optim.within(cfg.separate.steps),
            )
        warn_of_replaced(data.open_split(cfg, "train").replaced, "train")

    def evaluate(self, split: str = "test") -> Evaluation:
        """Measure the division of every whole of the truth into its parts.

        Args:
            split: "test" or "validation".

        Returns:
            "iou/<whole>/mIoU", "iou/parts/mIoU" over the parts of all wholes,
            "concept/<whole>/<part>", "probe/objects/..." of objects at pixels of the truth, and
            "hpq/regions/..." of whole trees, in percent.

        Raises:
            ValueError: Another split is asked for.

        Example:
            miou = system.evaluate().metrics["iou/parts/mIoU"]
        """
        if split not in ("test", "validation"):
            raise ValueError(f"unknown split {split!r}; known: test, validation")
        found = evaluation.evaluate(self.model, self.cfg, split)
        warn_of_replaced(data.open_split(self.cfg, split).replaced, split)
        return found

    def write_predictions(self, inputs: Path, out: Path, options: Any) -> list[Path]:
        """Write tree and pictures of each level of a picture, or of each of a folder."""
        used = self.data_used()
        trained = Trained(type(self).__name__, used.name, used.kind, self.notes())
        recogniser = TrainedRecogniser(self.model, data.knowledge_of(self.cfg))
        if options.knowledge:
            given.take_over(recogniser, Path(options.knowledge), self.cfg.text)
        return predict.predict_files(recogniser, inputs, out, options, trained)

    def labelling(
        self, images: Path, folder: Path, options: PageOptions,
        train: Callable[[list[str], Callable[[float, str], None]], System[Any]],
    ) -> Labelling:  # fmt: skip
        """Return the page on which people ask for and judge trees of photos.

        Args:
            images: Folder of photos.
            folder: Where what was asked and said is kept, and the knowledge base that grows.
            options: Choices.
            train: Not used: this page trains nothing.
        """
        return serving.open_page(self.model, self.cfg, images, folder, options)

    def draw_pictures(self, evaluation: Evaluation, out: Path) -> dict[Path, str]:
        """Draw test pictures level by level, and the IoU of every concept."""
        if not isinstance(evaluation.details, Details):
            raise ValueError("the evaluation is none of this system: its details are no Details")
        return figures.draw_figures(self.model, self.cfg, evaluation.metrics, out)

    def labels(self) -> dict[str, str]:
        """Titles of metrics."""
        return {
            "iou/parts/mIoU": "mean IoU of parts, wholes given",
            "hpq/regions/all": "HPQ of regions (our reconstruction)",
        }

    def claims(self) -> list[Claim[Config]]:
        """Few labels of parts, texts as classes, new concepts."""
        return claims.claims()

    @classmethod
    def convert(cls, source: Path) -> tuple[System[Config], Converted]:
        """Read a checkpoint of the authors' whole-to-part network; sizes follow from its shapes.

        Returns:
            A system whose concepts are those of Cityscapes Panoptic Parts, and what became of each
            tensor.

        Raises:
            ValueError: It is no such file; an encoder alone, CLIP or a network of objects is said
                to be one, with what of it is known and how to use it.
        """
        networks, cfg, account = pretrained.opened(source)
        system = cls(cfg)
        system.model = networks
        return system, account

    def export(self) -> Export:
        """The network of concepts, from normalised pictures to logits of all at a quarter."""
        side = self.cfg.data.crop
        images = torch.randn(2, 3, side, side, generator=generator(0, "export"))
        network = deepcopy(self.model.divide).cpu()
        return Export(network, (images,), ("images",), ("logits",))

    def data_used(self) -> DataUsed:
        """The set, and the share of it whose parts are labelled."""
        return data.used(self.cfg.data)

    def notes(self) -> list[str]:
        """Texts, and what of the labels was taken away."""
        cfg = self.cfg
        lines = [f"texts: {cfg.text.space}"]
        if cfg.text.drawn:
            lines.append(f"without a text, a direction of their own: {', '.join(cfg.text.drawn)}")
        if cfg.data.labelled < 1:
            lines.append(f"{cfg.data.labelled:.0%} of the training pictures have labels of parts")
        if cfg.data.hidden:
            often = f"{cfg.data.examples} pictures each" if cfg.data.examples else "never"
            lines.append(f"labelled in training, {often}: {', '.join(cfg.data.hidden)}")
        return lines
