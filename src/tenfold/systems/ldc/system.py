"""The contract for LDC."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from tenfold.core import checkpoint
from tenfold.core.capabilities import Export
from tenfold.core.claim import Claim
from tenfold.core.optim import Optim, one_group
from tenfold.core.seed import generator
from tenfold.core.stage import Stage
from tenfold.core.system import DataUsed, Paper, System
from tenfold.core.versions import Learned, check_name
from tenfold.data.images.decode import read_pictures

from . import comparison, data, figures, official, predict
from .calibration_unit import Unit, UnitTrainee, real_features, unit_batches, unit_steps
from .config import Calibration, Config
from .data import Encoded, Images
from .heads import Base, Head, Space, in_space, statistics
from .model import BaseTrainee, Exported, Network, distances, new_unit
from .recipes import RECIPES, SMALL
from .rehearsal import learned_vectors
from .sessions import Course, Outcome, measure, nbytes


@dataclass(frozen=True)
class Asked:
    """What `predict` may be asked for."""

    top: int = 5
    """Classes to list for each picture."""
    unknown: float = 95.0
    """A picture is called unknown if it is farther from every class than this percentage of the
    known classes' own pictures; 100 calls nothing unknown."""

    def __post_init__(self) -> None:
        if self.top < 1:
            raise ValueError(f"--top must be at least 1, got {self.top}")
        if not 0 <= self.unknown <= 100:
            raise ValueError(f"--unknown is a percentage, 0 to 100, got {self.unknown}")


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
        "confusion": "lower",
        "memory": "lower",
    }
    units: ClassVar[dict[str, str]] = {
        "accuracy": "%", "final": "%", "drop": "%", "confusion": "%", "spread": "%",
    }  # fmt: skip
    headline: list[str] = ["final/mean/overall", "final/mean/harmonic"]
    task = "few-shot class-incremental learning: new classes from five photos each"
    accepts = "a picture (JPEG, PNG, WebP, ...) or a folder of pictures"
    intended = (
        "Adding classes to a picture classifier from a few photos each. Base classes and encoder "
        "decide what can be told apart; not for decisions about people."
    )

    options: Any = Asked()

    def __init__(self, cfg: Config) -> None:
        super().__init__(cfg)
        if not cfg.classes:
            raise ValueError("the configuration has no classes; use Ldc.complete(cfg)")
        turns = 4 if cfg.data.rotations and not cfg.encoder else 1
        self.model: Network = Network(cfg.model, cfg.calibration, cfg.data.base, cfg.seed, turns)
        self.settings = cfg.calibration if cfg.head == "ldc" else None
        self.others: dict[str, comparison.Trained] = {}
        """Units of other settings that are trained beside the run's own, for the table."""
        if cfg.peers == "all":
            self.others = {t.name: t for t in comparison.TRAINED if t.settings != cfg.calibration}
            dim, seed = self.model.encoder.dim, cfg.seed
            for name, other in self.others.items():
                self.model.others[name] = new_unit(dim, other.settings, seed)
        self.images = Images(cfg)
        self.known = list(cfg.classes[: cfg.data.base])
        """Names of the classes that the head knows now."""
        self.new_means = torch.zeros(0, self.model.encoder.dim, dtype=torch.float64)
        """Mean feature of each class learned after the training, by which `unknown` is judged."""
        self.outcomes: list[Outcome] = []
        """Each draw of the run's own head, as last evaluated."""
        self.compared: dict[str, dict[str, float]] = {}
        """Numbers of the other rows of the table."""
        self._encoded: dict[str, tuple[tuple[int, ...], Encoded]] = {}
        self._head: Head | None = None

    @classmethod
    def complete(cls, cfg: Config) -> Config:
        """Take the classes from the data; fall back to generated shapes where there is none."""
        return data.complete(cfg)

    # --- training ------------------------------------------------------------------------------

    def stages(self) -> Iterator[Stage]:
        """Base training; then the unit, on statistics of the trained encoder (spec sec. 3-5)."""
        cfg = self.cfg
        trainee = BaseTrainee(self.model, self._early())
        if cfg.encoder and self._early():
            raise ValueError(
                "--calibration.features first-epoch are features of base training, which --encoder "
                "leaves out; set --calibration.features final"
            )
        if cfg.encoder:
            self._take_encoder()
        else:
            held = len(self.images.held) > 0
            yield Stage(
                name="base",
                model=trainee,
                batches=self.images.batch,
                steps=cfg.steps or cfg.epochs * self.images.steps_per_epoch,
                optim=cfg.optim,
                groups=one_group,
                validate=self.held_accuracy if held else None,
                monitor="accuracy" if held else "",
                better="higher",
            )
        base = self.measured(self.settings)
        near = self.encoded("held" if len(self.images.held) else "train", self.space)
        self.model.remember(base, distances(near.features, base.means, base.covariance))
        jobs = [("calibrate", cfg.calibration, self.model.unit, cfg.unit_optim)]
        jobs = jobs if cfg.head == "ldc" else []
        for name, other in self.others.items():
            jobs.append((f"calibrate-{name}", other.settings, self.model.other(name), other.optim))
        for name, settings, unit, optim in jobs:
            if settings.unit == "trained":
                early = trainee.collected() if settings.features == "first-epoch" else None
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
            model=UnitTrainee(unit, settings, self.cfg.model.temperature, base.covariance),
            batches=unit_batches(base, real, settings, unit, seed),
            steps=unit_steps(settings, self.cfg.data.base),
            optim=optim,
            groups=one_group,
        )

    def _early(self) -> int:
        """How many features a class base training has to collect in its first epoch."""
        settings = self.cfg.calibration
        return settings.real if settings.features == "first-epoch" else 0

    def _take_encoder(self) -> None:
        """The encoder and classifier of other weights, which must be of the same shape."""
        path = Path(self.cfg.encoder)
        file = path / "weights.safetensors" if path.is_dir() else path
        if not file.exists():
            raise FileNotFoundError(f"encoder {file} does not exist; give a run or its weights")
        given = checkpoint.read_tensors(file)
        own = self.model.state_dict()
        wanted = {k: v for k, v in own.items() if k.startswith("encoder.")}
        for key, value in wanted.items():
            if key not in given or given[key].shape != value.shape:
                found = tuple(given[key].shape) if key in given else "missing"
                raise ValueError(
                    f"{file}: {key} is {found}, this model needs {tuple(value.shape)}; "
                    "set --model.kind and --model.width as those weights have them"
                )
        for key, value in wanted.items():
            value.copy_(given[key])

    def held_accuracy(self, trainee: nn.Module) -> dict[str, float]:
        """Accuracy of the trained classifier on held-out pictures of the base classes (percent)."""
        assert isinstance(trainee, BaseTrainee)
        protocol = self.images.protocol
        rows = torch.from_numpy(self.images.held)
        right = 0.0
        device = trainee.classifier.device
        for part in rows.split(data.ENCODE_BATCH):
            images = protocol.view.test(protocol.train.images[part])
            images = images.contiguous(memory_format=torch.channels_last).to(device)
            labels = protocol.train.labels[part].to(device)
            found = trainee({"images": images, "labels": labels})
            right += float(found["accuracy"]) * len(part)
        return {"accuracy": 100 * right / len(rows)}

    # --- features and heads --------------------------------------------------------------------

    @property
    def space(self) -> Space:
        """The space of the run's own head."""
        return self.settings.space if self.settings else "raw"

    def encoded(self, what: str, space: Space = "raw") -> Encoded:
        """Features of "train", "held", "novel" or "test" pictures; made once for an encoder."""
        version = tuple(p._version for p in self.model.encoder.state_dict().values())
        if self._encoded.get(what, ((), None))[0] != version:
            images, protocol = self.images, self.images.protocol
            pictures = protocol.test if what == "test" else protocol.novel
            if what in ("train", "held"):
                rows = images.kept if what == "train" else images.held
                pictures = protocol.train.at(torch.from_numpy(rows))
            found = data.encode(self.model, images.view, pictures.images)
            self._encoded[what] = version, Encoded(found, pictures.labels)
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

    def remembered(self) -> Base:
        """The base session's statistics as the weights keep them; no picture is read."""
        model = self.model
        means, covariance = model.means.cpu(), model.covariance.cpu()
        every = covariance.expand(len(means), -1, -1)  # one for all classes: no others are kept
        return Base(means, covariance, model.vectors.cpu(), every, model.counts.cpu())

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

    def head(self) -> Head:
        """The head that learns and predicts: of the current version."""
        if self._head is None:
            self._head = comparison.own(self.cfg, self.remembered(), self.model.unit)()
        return self._head

    # --- measuring -----------------------------------------------------------------------------

    def evaluate(self, split: str) -> dict[str, float]:
        """The run's own head through all sessions; mean and spread over the draws (percent)."""
        make = comparison.own(self.cfg, self.measured(self.settings), self.model.unit)
        found, self.outcomes = measure(make, self.course(split, self.space))
        return found

    def baselines(self, split: str) -> dict[str, dict[str, float]]:
        """Other heads on the same features and draws."""
        self.compared = {
            name: measure(row.make, self.course(split, row.space))[0]
            for name, row in self._rows().items()
        }
        return self.compared

    def _rows(self) -> dict[str, comparison.Row]:
        train, tukey = self.encoded("train"), self.encoded("train", "tukey")
        rows = comparison.quick(self.cfg, self.measured(), statistics(tukey.features, tukey.labels))
        if self.cfg.peers == "all":
            lunch = statistics(train.features.sqrt(), train.labels)
            units = {name: self.model.other(name) for name in self.others}
            rows |= comparison.slow(self.cfg, self.measured, units, lunch)
        return rows

    # --- use -----------------------------------------------------------------------------------

    def features_of(self, files: list[Path]) -> Float[Tensor, "image dim"]:
        """Features of pictures of any size, in the head's space."""
        found = read_pictures(files, [0] * len(files), self.images.view.side, "shorter")
        return self.encode(found.images)

    def encode(self, images: UInt8[Tensor, "image 3 side side"]) -> Float[Tensor, "image dim"]:
        """Features of pictures that are as large as the run holds them, in the head's space."""
        return in_space(data.encode(self.model, self.images.view, images), self.space)

    def learn(self, inputs: Path, name: str) -> Learned:
        """Take the classes of a folder of photos, or of a folder of class folders; writes nothing.

        `name` names the class of a folder of photos; empty takes the folder's name.
        """
        of_class = data.new_classes(inputs, name)
        names, files = tuple(of_class), list(of_class.values())
        for one in names:
            check_name(one)
            twin = next((k for k in self.known if k.casefold() == one.casefold()), None)
            if twin is not None:
                raise ValueError(
                    f"class {twin!r} is known already ({inputs}); give another name with --name, "
                    "or rename the folder"
                )
        counts = tuple(len(some) for some in files)
        features = self.features_of([file for some in files for file in some])
        labels = torch.arange(len(names)).repeat_interleave(torch.tensor(counts))
        head, first = self.head(), len(self.known)
        scene = figures.Scene(self.means_known(), features, labels, tuple(self.known), names)
        memory = nbytes(head.state())
        head.learn(features, labels + first)
        new = torch.stack([features[labels == i].double().mean(0) for i in range(len(names))])
        self.new_means = torch.cat([self.new_means, new])
        self.known += names
        return Learned(
            names=names,
            photos=counts,
            notes=data.notes_on(names, counts),
            memory_before=memory,
            memory_after=nbytes(head.state()),
            classes=tuple(self.known),
            pictures={"features.png": figures.space(scene, self.remembered())},
        )

    def learned_state(self) -> dict[str, Tensor]:
        """All that later predictions and sessions need of the classes known now."""
        head = {f"head.{key}": value for key, value in self.head().state().items()}
        return {**head, "new_means": self.new_means}

    def restore_learned(self, tensors: dict[str, Tensor], classes: tuple[str, ...]) -> None:
        """Take a version back: `learned_state` and the names of its classes."""
        means, dim = tensors.get("new_means"), self.model.encoder.dim
        wanted = (len(classes) - self.cfg.data.base, dim)
        if means is None or means.shape != wanted or means.dtype != torch.float64:
            raise ValueError(
                f"the version lists {len(classes)} classes but does not hold a mean of each"
            )
        state = {k.removeprefix("head."): v for k, v in tensors.items() if k.startswith("head.")}
        self.head().restore(state)
        self.new_means, self.known = means.clone(), list(classes)

    def means_known(self) -> Float[Tensor, "class dim"]:
        """Mean feature of every class known now (float64)."""
        return torch.cat([self.model.means.cpu(), self.new_means])

    def predict(self, inputs: Path, out: Path) -> list[Path]:
        """Classes of a picture, or of each picture of a folder: table, sheet of pictures."""
        return predict.predict_files(self, inputs, out)

    def answers(self, features: Float[Tensor, "image dim"]) -> tuple[Tensor, Tensor]:
        """Probability of each known class [image, class], and whether a picture is unknown."""
        found = self.head().logits(features).softmax(1)
        away = distances(features, self.means_known(), self.model.covariance.cpu())
        limit = torch.quantile(self.model.distances.cpu(), self.options.unknown / 100)
        return found, (away > limit) & (self.options.unknown < 100)

    def pictures(self, out: Path) -> dict[Path, str]:
        """Accuracy over the sessions, what is confused, and the space of features."""
        return figures.report_pictures(self, out)

    def data_used(self) -> DataUsed:
        """The data of this configuration."""
        return data.used(self.cfg.data)

    def notes(self) -> list[str]:
        """Protocol, draws, memory, departures."""
        return data.notes(self.cfg)

    def labels(self) -> dict[str, str]:
        """Titles of columns."""
        return {"average": "average of sessions", "points": "PD (points)", "relative": "PD (%)"}

    def claims(self) -> list[Claim[Config]]:
        """What the paper says, on one encoder a seed."""
        return comparison.claims(SMALL)

    # --- files of others -----------------------------------------------------------------------

    def export(self) -> Export:
        """Encoder and the current class vectors: normalised pictures to cosine logits."""
        state = self.head().state()
        if "vectors" not in state:
            raise ValueError(f"head {self.cfg.head} has no class vectors; cosine heads export")
        size = self.images.view.size
        example = torch.randn(2, 3, size, size, generator=generator("export"))
        module = Exported(self.model.cpu().eval(), state["vectors"], self.space)
        return Export(module, (example,), ("images",), ("logits",))

    @classmethod
    def convert(cls, source: Path) -> tuple[System[Config], Any]:
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
