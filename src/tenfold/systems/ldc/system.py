"""The contract for LDC."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from tenfold.core.capabilities import Export
from tenfold.core.claim import Claim
from tenfold.core.divide import divided
from tenfold.core.optim import Optim, one_group
from tenfold.core.seed import generator
from tenfold.core.stage import Stage
from tenfold.core.system import DataUsed, Evaluation, Paper, System
from tenfold.core.versions import Learned
from tenfold.data.feature_cache import cached, digest_of
from tenfold.metrics import fewshot
from tenfold.viz.predictions import Trained

from . import comparison, data, evaluation, figures, official, predict
from .calibration_unit import Unit, UnitTrainingModel, real_features, unit_batches, unit_steps
from .classifier import ENCODE_BATCH, Classifier, encode
from .config import Calibration, Config, HeadName, PredictOptions
from .data import Encoded, Images
from .evaluation import Course, Details
from .heads import Base, Space, cosine, in_space, statistics
from .learning import learn_files
from .model import JUDGES, BaseTrainingModel, Exported, Judges, Network, distances, new_unit
from .pretrained import take_encoder
from .recipes import RECIPES, SMALL
from .rehearsal import learned_vectors


class Ldc(System[Config]):
    """Few-shot class-incremental learning on a frozen encoder, by calibrated rehearsal."""

    paper = Paper(
        arxiv="2210.00232",
        title="Learnable Distribution Calibration for Few-Shot Class-Incremental Learning",
        says="A unit that learns on base classes how a biased Gaussian of a class should be "
        "recalibrated lets new classes join from five photos without forgetting, and without "
        "storing photos.",
        cite="@article{liu2023learnable,\n"
        "  title={Learnable Distribution Calibration for Few-Shot Class-Incremental Learning},\n"
        "  author={Liu, Binghao and Yang, Boyu and Xie, Lingxi and Wang, Ren and Tian, Qi and "
        "Ye, Qixiang},\n  journal={IEEE Transactions on Pattern Analysis and Machine "
        "Intelligence},\n  volume={45},\n  number={10},\n  pages={12699--12706},\n  year={2023}\n}",
        code="Bibikiller/LDC (no licence; parts were never published), built on CEC (MIT)",
        weights_licence="none were published; CEC's checkpoints (MIT) load",
    )
    recipes: ClassVar[dict[str, Config]] = RECIPES
    better: ClassVar[dict[str, str]] = {
        "accuracy": "higher",
        "final": "higher",
        "drop": "lower",
        # errors within a group have no direction: they are few, too, where all goes to the other
        "confusion/last session/base as novel": "lower",
        "confusion/last session/novel as base": "lower",
        "memory": "lower",
        "unknown": "lower",
        "unknown/at 95/never learned": "higher",
    }
    units: ClassVar[dict[str, str]] = {
        "accuracy": "%",
        "final": "%",
        "drop": "%",
        "drop/mean/points": "points",
        "confusion": "%",
        "spread": "points",
        "unknown": "%",
        "memory": "kB",
    }
    headline: list[str] = ["final/mean/overall", "final/mean/harmonic"]
    task = "few-shot class-incremental learning: new classes from five photos each"
    accepts = "a picture (JPEG, PNG, WebP, ...), or a folder of pictures and of such folders"
    intended = (
        "Adding classes to a picture classifier from a few photos each. Base classes and encoder "
        "decide what can be told apart; not for decisions about people."
    )

    paths: ClassVar[tuple[str, ...]] = (*System.paths, "encoder")
    generated: ClassVar[tuple[str, ...]] = ("shapes",)
    passes: ClassVar[tuple[str, ...]] = ("epochs",)
    options: ClassVar[PredictOptions] = PredictOptions()

    def __init__(self, cfg: Config) -> None:
        super().__init__(cfg)
        if not cfg.classes:
            raise ValueError("the configuration has no classes; use Ldc.complete(cfg)")
        turns = 4 if cfg.data.rotations and not cfg.encoder else 1
        self.model: Network = Network(
            cfg.model, cfg.calibration, cfg.data.base, cfg.seed, turns, cfg.transformer
        )
        self.settings = cfg.calibration if cfg.head == "ldc" else None
        self.others: dict[str, comparison.Trained] = {}
        """Units of other settings that are trained beside the run's own, for the table."""
        if cfg.peers == "all":
            self.others = {t.name: t for t in comparison.TRAINED if t.settings != cfg.calibration}
            dim, seed = self.model.encoder.dim, cfg.seed
            for name, other in self.others.items():
                self.model.others[name] = new_unit(dim, other.settings, seed)
        self.images = Images(cfg)
        self.classifier = Classifier(self.model, cfg)
        self._encoded: dict[str, tuple[tuple[int, ...], Encoded]] = {}

    @classmethod
    def complete(cls, cfg: Config) -> Config:
        """Take the classes from the data; fall back to generated shapes where there is none."""
        return data.complete(cfg)

    # --- training ------------------------------------------------------------------------------

    def stages(self) -> Iterator[Stage]:
        """Base training; then the unit, on statistics of the trained encoder."""
        cfg = self.cfg
        training = BaseTrainingModel(self.model, self._early())
        if cfg.encoder and self._early():
            raise ValueError(
                "--calibration.features first-epoch are features of base training, which --encoder "
                "leaves out; set --calibration.features final"
            )
        if cfg.encoder:
            take_encoder(self.model, Path(cfg.encoder), cfg.model.kind)
        else:
            held, epochs = len(self.images.held) > 0, self.images.epochs
            yield Stage(
                name="base",
                model=training,
                batches=self.images.batch,
                steps=cfg.steps or cfg.epochs * epochs.steps,
                optim=cfg.optim,
                groups=one_group,
                validate=self.held_accuracy if held else None,
                monitor="accuracy" if held else "",
                better="higher",
            )
        base = self.measured(self.settings)
        judges, near = self._judges()
        away = distances(near.features, base.means, base.covariance)
        # on pictures of the training all heads look better than they are
        accuracies = {} if judges == "training" else self._accuracies(base, near)
        self.model.remember(base, away, judges, accuracies)
        jobs = [("calibrate", cfg.calibration, self.model.unit, cfg.unit_optim)]
        jobs = jobs if cfg.head == "ldc" else []
        for name, other in self.others.items():
            jobs.append((f"calibrate-{name}", other.settings, self.model.other(name), other.optim))
        for name, settings, unit, optim in jobs:
            if settings.unit == "trained":
                early = training.collected() if settings.features == "first-epoch" else None
                yield self.calibration(name, settings, unit, optim, early)

    def calibration(
        self,
        name: str,
        settings: Calibration,
        unit: Unit,
        optim: Optim,
        early: Tensor | None = None,
    ) -> Stage:
        """Training of a unit; `early` are the real features that base training met at first."""
        base, seed = self.measured(settings), self.cfg.seed
        train = self.encoded("train", settings.space)
        if early is None:
            real = real_features(train.features, train.labels, settings.real, seed)
        else:
            real = in_space(early.flatten(0, 1), settings.space).view(early.shape)
        return Stage(
            name=name,
            model=UnitTrainingModel(unit, settings, self.cfg.model.temperature, base.covariance),
            batches=unit_batches(base, real, settings, unit, seed),
            steps=unit_steps(settings, self.cfg.data.base),
            optim=optim,
            groups=one_group,
        )

    def _early(self) -> int:
        """Count the features a class that base training has to collect in its first epoch."""
        settings = self.cfg.calibration
        return settings.real if settings.features == "first-epoch" else 0

    def _judges(self) -> tuple[Judges, Encoded]:
        """Pictures of base classes that decide what is unknown, in the head's space.

        Pictures that the encoder was not trained on, if there are any: those of the training are
        nearer to their classes. Of the test pictures every other one, so that the rest can tell
        how often the limit is passed.
        """
        space = self.classifier.space
        if len(self.images.held):
            return "held-out", self.encoded("held", space)
        test = self.encoded("test", space)
        of_base = torch.nonzero(test.labels < self.cfg.data.base).flatten()[::2]
        if len(of_base) == 0:
            return "training", self.encoded("train", space)
        return "test", Encoded(test.features[of_base], test.labels[of_base])

    def _accuracies(self, base: Base, judges: Encoded) -> dict[HeadName, float]:
        """Percentage that each head gets right before it learns a class."""
        found: dict[HeadName, float] = {}
        temperature, vectors = self.cfg.model.temperature, base.vectors.float()
        for kind in self.classifier.choices():
            if kind == "ldc":  # its unit, not trained yet, has no part in this
                logits = cosine(judges.features.float(), vectors, temperature)
            else:
                logits = comparison.own(self.cfg, base, self.model.unit, kind)().logits(
                    judges.features
                )
            found[kind] = fewshot.accuracy(logits.argmax(1), judges.labels)
        return found

    def held_accuracy(self, training: nn.Module) -> dict[str, float]:
        """Accuracy of the trained classifier on held-out pictures of the base classes (percent)."""
        assert isinstance(training, BaseTrainingModel)
        protocol = self.images.protocol
        rows = torch.from_numpy(self.images.held)
        right = 0.0
        device = training.classifier.device
        for part in rows.split(ENCODE_BATCH):
            images = protocol.view.test(protocol.train.images[part])
            images = images.contiguous(memory_format=torch.channels_last).to(device)
            labels = protocol.train.labels[part].to(device)
            losses = training({"images": images, "labels": labels})
            right += float(losses["accuracy"]) * len(part)
        return {"accuracy": right / len(rows)}

    # --- features and heads --------------------------------------------------------------------

    def encoded(self, what: str, space: Space = "raw") -> Encoded:
        """Features of "train", "held", "novel" or "test" pictures; made once for an encoder.

        All processes of a job must ask for the same, since they share the work.
        """
        version = tuple(p._version for p in self.model.encoder.state_dict().values())
        if self._encoded.get(what, ((), None))[0] != version:
            images, protocol = self.images, self.images.protocol
            pictures = protocol.test if what == "test" else protocol.novel
            if what in ("train", "held"):
                rows = images.kept if what == "train" else images.held
                pictures = protocol.train.at(torch.from_numpy(rows))
            parts = pictures.images.split(ENCODE_BATCH)
            gib = self.cfg.data.features_gib
            keep = bool(self.cfg.encoder) and gib > 0
            device = self.model.means.device.type
            state = self.model.encoder.state_dict() if keep else {}
            digest = digest_of(state, device, repr(self.cfg.transformer)) if keep else ""

            def part(index: int) -> Tensor:
                def compute() -> Tensor:
                    return encode(self.model, images.view, parts[index])

                if not keep:
                    return compute()
                return cached(parts[index], images.view, digest, gib, compute)

            features = divided(len(parts), part, f"features of {what} pictures")
            self._encoded[what] = version, Encoded(torch.cat(features), pictures.labels)
        raw = self._encoded[what][1]
        return Encoded(in_space(raw.features, space), raw.labels)

    def measured(self, settings: Calibration | None = None) -> Base:
        """The base session's statistics, from the training pictures, for a head of LDC or another.

        Learned on every call, in a second or so; nothing of it needs a gradient of the encoder.
        """
        train = self.encoded("train", settings.space if settings else "raw")
        base = statistics(train.features, train.labels)
        if settings and settings.base_vectors == "learned":
            temperature = self.cfg.model.temperature
            vectors = learned_vectors(base, train.features, train.labels, temperature, settings)
            return replace(base, vectors=vectors)
        return base

    def course(self, split: str, space: Space = "raw") -> Course:
        """The sessions of a split: "test" is the protocol; "validation" has base classes only."""
        protocol = self.images.protocol
        if split == "validation":
            if not len(self.images.held):
                raise ValueError("nothing is held out; set data.holdout (such as 0.1)")
            return Course(protocol.base, 0, ((),), self.encoded("held", space))
        if split != "test":
            raise ValueError(f"unknown split {split!r}; known: test, validation")
        novel = self.encoded("novel", space)
        draws = tuple(
            tuple(Encoded(novel.features[rows], novel.labels[rows]) for rows in sessions)
            for sessions in protocol.support
        )
        return Course(protocol.base, protocol.way, draws, self.encoded("test", space))

    # --- measuring -----------------------------------------------------------------------------

    def evaluate(self, split: str = "test") -> Evaluation:
        """Measure the run's own head and others on the same features and draws.

        Args:
            split: "test" is the protocol; "validation" has the base classes only.

        Returns:
            Metrics in percent, over all draws of the photos, of the run's head and of each other;
            details are `evaluation.Details`.

        Raises:
            ValueError: There is no such split, or nothing is held out.
        """
        courses = {"raw": self.course(split)}
        own = comparison.own(self.cfg, self.measured(self.settings), self.model.unit)
        rows = {"": comparison.Row(own, self.classifier.space), **self._rows()}
        for row in rows.values():
            if row.space not in courses:
                courses[row.space] = self.course(split, row.space)
        heads = {name: (row.make, courses[row.space]) for name, row in rows.items()}
        outcomes = evaluation.evaluate(heads)
        numbers = {
            name: evaluation.summary([evaluation.scores(one, heads[name][1]) for one in each])
            for name, each in outcomes.items()
        }
        own_course = courses[self.classifier.space]
        if split == "test":
            judged_test = JUDGES[int(self.model.judged[0])] == "test"
            numbers[""] |= evaluation.called_unknown(self.classifier, own_course, judged_test)
        return Evaluation(numbers.pop(""), numbers, Details(own_course, tuple(outcomes[""])))

    def draw_pictures(self, evaluation: Evaluation, out: Path) -> dict[Path, str]:
        """Draw accuracy over the sessions, what is confused, and the space of features."""
        return figures.report_pictures(evaluation, self.model.remembered(), self.cfg, out)

    def _rows(self) -> dict[str, comparison.Row]:
        train, tukey = self.encoded("train"), self.encoded("train", "tukey")
        rows = comparison.quick(self.cfg, self.measured(), statistics(tukey.features, tukey.labels))
        if self.cfg.peers == "all":
            lunch = None
            if bool((train.features >= 0).all()):
                lunch = statistics(train.features.sqrt(), train.labels)
            units = {name: self.model.other(name) for name in self.others}
            rows |= comparison.slow(self.cfg, self.measured, units, lunch)
        return rows

    # --- use -----------------------------------------------------------------------------------

    def learn(self, inputs: Path, name: str, head: str = "") -> Learned:
        """Take the classes of a folder of photos, or of a folder of class folders; write nothing.

        Args:
            inputs: Folder of photos of any size; read one at a time.
            name: Of the class of a folder of photos; empty takes the folder's name.
            head: Head that learns and answers from now on, such as "lda"; empty is that of now.

        Raises:
            ValueError: A photo cannot be read, a class is known already, or there is no such head.
        """
        return learn_files(self.classifier, inputs, name, head)

    def learned_state(self) -> dict[str, Tensor]:
        """Everything that later predictions and sessions need of the classes known now."""
        return self.classifier.state()

    def restore_learned(self, tensors: dict[str, Tensor], classes: tuple[str, ...]) -> None:
        """Take a version back: `learned_state` and the names of its classes."""
        self.classifier.restore(tensors, classes)

    def write_predictions(self, inputs: Path, out: Path, options: PredictOptions) -> list[Path]:
        """Name classes of a picture, or of all pictures of a folder: table, sheet, page."""
        used = self.data_used()
        trained = Trained(type(self).__name__, used.name, used.kind, self.notes())
        return predict.predict_files(self.classifier, inputs, out, options, trained)

    # --- what a page says ----------------------------------------------------------------------

    def data_used(self) -> DataUsed:
        """The data of this configuration."""
        return data.used(self.cfg.data)

    def notes(self) -> list[str]:
        """Protocol, draws, memory, departures."""
        return [*data.notes(self.cfg), f"`unknown` is calibrated on {self.model.judges()}"]

    def labels(self) -> dict[str, str]:
        """Titles of the headline, and of columns whose names say little."""
        return {
            "final/mean/overall": "overall accuracy after the last session",
            "final/mean/harmonic": "harmonic mean of base and new accuracy after the last session",
            "average": "average of sessions",
            "never learned": "of classes not learned yet",
            "NCR@2FOR": "new, base 2 points lower",
            "NCR@5FOR": "new, base 5 points lower",
            "points": "PD: first session less last",
            "relative": "PD of the first session",
            "base as base": "base as another base class",
            "novel as novel": "new as another new class",
            "base as novel": "base as new",
            "novel as base": "new as base",
        }

    def claims(self) -> list[Claim[Config]]:
        """The paper's claims, on one encoder a seed."""
        return comparison.claims(SMALL)

    # --- files of others -----------------------------------------------------------------------

    def export(self) -> Export:
        """Encoder and the current class vectors: normalised pictures to cosine logits."""
        state = self.classifier.head.state()
        if "vectors" not in state or self.classifier.kind == "lda":
            kind = self.classifier.kind
            raise ValueError(f"head {kind} compares no class vectors by cosine; such heads export")
        size = self.images.view.size
        example = torch.randn(2, 3, size, size, generator=generator("export"))
        module = Exported(self.model.cpu().eval(), state["vectors"], self.classifier.space)
        return Export(module, (example,), ("images",), ("logits",))

    @classmethod
    def convert(cls, source: Path) -> tuple[Ldc, Any]:
        """Read a checkpoint of CEC, LDC or code built on CEC; sizes follow from its shapes."""
        state = official.read_official(source)
        size = official.size_of(state)
        cfg = data.of_official(size)
        system = cls(replace(cfg, head="ldc" if "mean_cov" in state else "ncm"))
        account = official.convert(state, system.model.state_dict())
        network = system.model
        network.load_state_dict(account.state, strict=False)
        network.vectors.copy_(network.classifier.detach())
        if "means" not in account.state:  # both codes put the class means where the vectors were
            network.means.copy_(network.classifier.detach())
        network.counts.fill_(data.OFFICIAL_COUNTS[cfg.data.name])
        return system, account
