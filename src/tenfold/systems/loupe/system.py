"""The contract for LOUPE."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import torch

from tenfold.core.capabilities import Export
from tenfold.core.claim import Claim
from tenfold.core.errors import require_file_or_folder
from tenfold.core.seed import generator
from tenfold.core.stage import Stage
from tenfold.core.system import DataUsed, Evaluation, Paper, System
from tenfold.viz.predictions import Trained

from . import batches, claims, data, evaluation, exported, figures, predict, pretrained, words
from .config import Config, PredictOptions
from .evaluation import GROUPS, Details
from .model import Networks
from .parts import ABSENCES, PartedEncoder
from .recipes import RECIPES
from .training import Training

PARTS = ("", " xstyle", " testA", " testB")
"""What stands behind a group of metrics: nothing, or a further test part."""
MEASURES = [f"{group}{part}" for group in GROUPS for part in PARTS]


class Loupe(System[Config]):
    """A dual encoder of pictures and texts that learned which regions go with which phrases."""

    paper = Paper(
        arxiv="2208.02515",
        title="Fine-Grained Semantically Aligned Vision-Language Pre-Training",
        says="Shapley interactions between patches, and between regions and phrases, supervise a "
        "dual encoder in training alone, so that it finds and names regions without boxes.",
        cite="@inproceedings{li2022fine,\n"
        "  title={Fine-Grained Semantically Aligned Vision-Language Pre-Training},\n"
        "  author={Li, Juncheng and He, Xin and Wei, Longhui and Qian, Long and Zhu, Linchao and "
        "Xie, Lingxi and Zhuang, Yueting and Tian, Qi and Tang, Siliang},\n"
        "  booktitle={NeurIPS},\n  year={2022}\n}",
        code="YYJMJC/LOUPE: a README and a figure; no code and no weights",
        weights_licence="none were published",
    )
    recipes: ClassVar[dict[str, Config]] = RECIPES
    better: ClassVar[dict[str, str]] = {
        **dict.fromkeys(MEASURES, "higher"),
        **{f"{name}/{way}/median": "lower" for name in MEASURES for way in ("i2t", "t2i")},
    }
    units: ClassVar[dict[str, str]] = {
        **dict.fromkeys(MEASURES, "%"),
        **{f"{name}/{way}/median": "" for name in MEASURES for way in ("i2t", "t2i")},
    }
    headline: list[str] = ["retrieval/both/rsum"]
    task = "fine-grained image-text pre-training: retrieval, grounding, detection without boxes"
    accepts = "a picture (JPEG, PNG, WebP, ...), or a folder of pictures"
    intended = (
        "Retrieval, and finding what a phrase names, in pictures like those of the training. "
        "Trained from scratch it knows the words of its training captions; not for decisions about "
        "people."
    )
    paths: ClassVar[tuple[str, ...]] = (
        "data.path", "image.weights", "text.weights", "text.pieces", "start",
    )  # fmt: skip
    generated: ClassVar[tuple[str, ...]] = (data.GENERATED,)
    starts_itself = True
    starts = ("start", "image.weights", "text.weights")
    sized_by_start = ("image", "text")
    options: ClassVar[PredictOptions] = PredictOptions()
    absences = ABSENCES
    model: Networks

    def __init__(self, cfg: Config) -> None:
        super().__init__(cfg)
        if not cfg.text.vocabulary:
            raise ValueError("the configuration has no vocabulary; use Loupe.complete(cfg)")
        batches.vocabulary_of(cfg)  # says what is wrong with it
        self.model = Networks(cfg)

    @classmethod
    def complete(cls, cfg: Config) -> Config:
        """Choose the data that is there, its vocabulary, and the sizes of given towers."""
        own = replace(cfg.data, name=data.chosen(cfg.data))
        if not own.classes:
            own = replace(own, classes="\n".join(data.open_captions(own, "train").names))
        cfg = replace(cfg, data=own)
        if cfg.text.tokens == "words" and cfg.text.pieces:
            raise ValueError(
                f"text.pieces is {cfg.text.pieces}, but text.tokens is words, which reads no file. "
                "Add --text.tokens pieces."
            )
        if cfg.text.tokens == "pieces" and not (cfg.text.pieces or cfg.text.vocabulary):
            cfg = replace(cfg, text=replace(cfg.text, tokens="words"))
        if not cfg.text.vocabulary:
            cfg = replace(cfg, text=replace(cfg.text, vocabulary=_vocabulary(cfg)))
        return pretrained.sized(cfg)

    def stages(self) -> Iterator[Stage]:
        """One: all losses together; the proxies join when the encoder has learned something."""
        cfg = self.cfg
        self.origin = self.from_start(lambda: pretrained.begin(self.model, cfg))
        found = data.open_captions(cfg.data, "train")
        yield Stage(
            "align",
            Training(cfg, self.model),
            batches.Batches(cfg, found),
            cfg.steps,
            cfg.optim.within(cfg.steps),
        )

    def evaluate(self, split: str = "test") -> Evaluation:
        """Measure retrieval, grounding, detection, and what interactions are worth.

        Args:
            split: A part of the set but the training's; with "test", its further tests too.

        Returns:
            "retrieval/i2t/R@1" ..., "retrieval/both/rsum", "grounding/<way>/acc@0.5" ...,
            "detection/<names>/AP@0.5" ..., "ranking/<score>/AUC", in percent; chance as baseline.

        Raises:
            ValueError: There is no such part.

        Example:
            system.evaluate().metrics["retrieval/t2i/R@1"]
        """
        return evaluation.evaluate(self.model, self.cfg, split)

    def write_predictions(self, inputs: Path, out: Path, options: Any) -> list[Path]:
        """Write regions with their interactions, and where each phrase of the text is."""
        used = self.data_used()
        trained = Trained(type(self).__name__, used.name, used.kind, self.notes())
        return predict.predict_files(self.model, self.cfg, inputs, out, options, trained)

    def draw_pictures(self, evaluation: Evaluation, out: Path) -> dict[Path, str]:
        """Draw test pictures with regions and phrases, and how games rank objects."""
        if not isinstance(evaluation.details, Details):
            raise ValueError("the evaluation is none of this system: its details are no Details")
        return figures.draw_figures(self.model, self.cfg, evaluation.metrics, out)

    def labels(self) -> dict[str, str]:
        """Titles of metrics."""
        return {
            "retrieval/both/rsum": "recall at 1, 5, 10 both ways, summed",
            "grounding/regions/iou": "mean IoU of a phrase's region",
        }

    def claims(self) -> list[Claim[Config]]:
        """The proxies against the contrastive loss alone, and what the controls say."""
        return claims.claims()

    def export(self) -> Export:
        """The dual encoder, from normalised pictures and words to vectors of length 1."""
        cfg, draw = self.cfg, generator(0, "export")
        images = torch.randn(2, 3, cfg.image.size, cfg.image.size, generator=draw)
        texts = batches.vocabulary_of(cfg)
        batch = texts.batch([texts.encode("a small thing"), texts.encode("a thing")])
        given = (images, batch["words"], batch["is_token"])
        names = ("images", "words", "is_token")
        network = deepcopy(self.model.encoder).cpu()
        return Export(network, given, names, ("image_vectors", "text_vectors"))

    def export_official(self, out: Path) -> list[Path]:
        """Write the dual encoder as `transformers` (Swin) or `open_clip` (ViT) have theirs.

        Raises:
            ValueError: Their layout has no place for this encoder (the error says why), or the
                folder holds anything.
        """
        return exported.write(self.model.encoder, self.cfg, out)

    def dual_encoder(self, absent: str) -> PartedEncoder:
        """The dual encoder, whose patches and words can be left out; see `ABSENCES`."""
        return PartedEncoder(self.model, self.cfg, absent)

    def data_used(self) -> DataUsed:
        """The captions that it learned from."""
        return data.used(self.cfg.data)

    def notes(self) -> list[str]:
        """Losses, the game, and what of it is ours."""
        cfg = self.cfg
        names = {"fine": cfg.loss.fine, "L_TSA": cfg.loss.token, "L_FSA": cfg.loss.semantic}
        used = [f"{weight:g} {name}" for name, weight in names.items() if weight]
        lines = [f"losses: contrastive{''.join(f' + {name}' for name in used)}"]
        if cfg.loss.has_regions:
            less = ", less that under other captions" if cfg.loss.target == "difference" else ""
            less += ", sign turned" if cfg.loss.turned else ""
            lines += [
                f"interactions: score {cfg.games.score}{less}, {cfg.games.how}; gradient to boxes: "
                f"{cfg.loss.boxes}",
                "the paper's code was not published: score, losses' forms and region module are "
                "our reading",
            ]
        return lines


def _vocabulary(cfg: Config) -> str:
    """All tokens, one a line: of a file, or the words of the training captions."""
    if cfg.text.tokens == "pieces":
        require_file_or_folder(Path(cfg.text.pieces), "--text.pieces")
        return words.read_pieces(Path(cfg.text.pieces))
    found = data.open_captions(cfg.data, "train")
    known = data.vocabulary(data.captions_of(found), words.MOST_TOKENS, cfg.text.least)
    return "\n".join([*words.SPECIAL, *known])
