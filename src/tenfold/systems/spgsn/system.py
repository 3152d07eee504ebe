"""SPGSN as a system: train, evaluate, predict, claim, convert."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from tenfold.core.capabilities import Export
from tenfold.core.claim import Claim, Variant
from tenfold.core.seed import generator
from tenfold.core.stage import Stage
from tenfold.core.system import DataUsed, Evaluation, Paper, System
from tenfold.viz.predictions import Trained
from tenfold.weights.containers import check_tensor, load_tensors
from tenfold.weights.keymap import Converted
from tenfold.weights.mit import require_shape

from . import data, evaluation, figures, official, predict
from .config import Config, PredictOptions
from .loss import mpjpe_loss
from .model import ScatteringNetwork, build
from .recipes import GCN, MLP, PARTS_ONLY, RECIPES, SCATTERING_ONLY, SMALL

CLAIM_STEPS = 12_000
"""Of each arm of the claim, by the rule of claims/length.py: at 1,500, and at 6,000 still, DCT-GCN
gained more than 2 % of its held-out error by twice as many."""


class TrainingModel(nn.Module):
    """The network with its loss: what the loop trains."""

    def __init__(self, network: nn.Module, basis: Float[Tensor, "coeff frame"]) -> None:
        super().__init__()
        self.network = network
        self.basis: Tensor
        self.register_buffer("basis", basis.float(), persistent=False)

    def forward(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Loss in mm; in training, edge masks follow from the batch's `mask_seed`."""
        masks = None
        if self.training and isinstance(self.network, ScatteringNetwork):
            masks = self.network.draw_masks(torch.Generator().manual_seed(batch["mask_seed"]))
        predicted = self.network(batch["coeffs"], masks)
        return {"loss": mpjpe_loss(predicted.float(), batch["positions"], self.basis)}


class LastWeights:
    """Weights of a run's last step, kept beside the best ones: a table has a row of each."""

    def __init__(self) -> None:
        self.weights: dict[str, Tensor] = {}

    def take(self, network: nn.Module) -> None:
        """Keep a copy of a network's weights as they are now."""
        found = network.state_dict()
        self.weights = {key: value.detach().cpu().clone() for key, value in found.items()}

    def of(self, network: nn.Module) -> nn.Module | None:
        """A network of this kind with these weights; None where none were kept."""
        if not self.weights:
            return None
        other = copy.deepcopy(network)
        other.load_state_dict(self.weights)
        return other

    def state_dict(self) -> dict[str, Tensor]:
        """What a checkpoint keeps."""
        return self.weights

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take what a checkpoint kept."""
        self.weights = dict(state)


class Spgsn(System[Config]):
    """Skeleton-parted graph scattering network for motion prediction."""

    paper = Paper(
        arxiv="2208.00368",
        title="Skeleton-Parted Graph Scattering Networks for 3D Human Motion Prediction",
        says="Adaptive graph scattering on body parts keeps high bands that graph networks smooth "
        "away, and predicts human motion better.",
        cite="@inproceedings{li2022skeleton,\n"
        "  title={Skeleton-Parted Graph Scattering Networks for 3D Human Motion Prediction},\n"
        "  author={Li, Maosen and Chen, Siheng and Zhang, Zijing and Xie, Lingxi and Tian, Qi and "
        "Zhang, Ya},\n  booktitle={ECCV},\n  year={2022}\n}",
        code="MediaBrain-SJTU/SPGSN (MIT)",
        weights_licence="none were published",
    )
    recipes: ClassVar[dict[str, Config]] = RECIPES
    better: ClassVar[dict[str, str]] = {"mpjpe": "lower"}
    units: ClassVar[dict[str, str]] = {"mpjpe": "mm"}
    generated: ClassVar[tuple[str, ...]] = ("walker",)
    own_data = "bvh"
    passes: ClassVar[tuple[str, ...]] = ("epochs",)
    options: ClassVar[PredictOptions] = PredictOptions()
    headline: list[str] = ["mpjpe/average/80ms", "mpjpe/average/400ms"]
    task = "3D skeleton motion prediction by skeleton-parted graph scattering"
    accepts = (
        ".bvh with the run's joints by name, of any frame rate, size and tool; .npz with positions "
        "(frames, joints, 3) in mm at the run's frame rate, or expmap (frames, columns); .txt of "
        "the benchmark"
    )
    intended = (
        "Research on short-term prediction (under half a second) of single bodies with the "
        "skeleton of the training data. Not for decisions about people."
    )

    def __init__(self, cfg: Config) -> None:
        super().__init__(cfg)
        if not cfg.skeleton.used:
            raise ValueError("the configuration has no skeleton; use Spgsn.complete(cfg)")
        self.model = build(
            cfg.model,
            3 * len(cfg.skeleton.used),
            cfg.data.num_coeffs,
            cfg.skeleton.upper,
            cfg.skeleton.lower,
        )
        self.motions = data.Motions(cfg)
        self.last = LastWeights()
        self.headline = self._headline()

    @classmethod
    def complete(cls, cfg: Config) -> Config:
        """Take the skeleton from the data; fall back to generated walkers where there is none."""
        return data.complete(cfg)

    def stages(self) -> Iterator[Stage]:
        """One stage; the learning rate falls at the start of every second epoch.

        As in the official code (main_cmu_3d.py with lr_decay 2), where a run asks for that.
        """
        epoch = self.motions.epochs.steps
        _ = self.motions.test  # what is wrong with it is said before anything is trained
        steps = self.cfg.steps or self.cfg.epochs * epoch
        optim = self.cfg.optim
        if optim.schedule == "step" and not optim.period:
            optim = replace(optim, period=2 * epoch, offset=epoch)
        can_validate = self.motions.validation is not None
        yield Stage(
            name="train",
            model=TrainingModel(self.model, self.motions.basis),
            batches=self.motions.batch,
            steps=steps,
            optim=optim,
            validate=self._validate if can_validate else None,
            monitor="mpjpe" if can_validate else "",
            state={"last": self.last} if can_validate else {},
        )

    def _validate(self, model: nn.Module) -> dict[str, float]:
        assert isinstance(model, TrainingModel)
        self.last.take(model.network)
        return evaluation.validate(model.network, self.motions)

    def evaluate(self, split: str = "test") -> Evaluation:
        """Measure MPJPE in mm per action and horizon, beside repeating the last observed pose.

        Args:
            split: "test", or "validation" where the data has one or `data.holdout` makes one.

        Returns:
            Metrics "mpjpe/walking/80ms", "mpjpe/average/80ms" (the mean of actions seen in
            training) and so on; `details` are the `Curves` that `pictures` draws.

        Raises:
            ValueError: There is no such split.
        """
        return evaluation.evaluate(self.model, self.motions, split, self.last.of(self.model))

    def write_predictions(self, inputs: Path, out: Path, options: PredictOptions) -> list[Path]:
        """Predict from a motion, or all of a folder: BVH, npz, animation, viewer of each."""
        used = self.data_used()
        trained = Trained("spgsn", used.name, used.kind, self._conventions())
        return predict.predict_motions(
            self.model, self.cfg, self.motions.basis, inputs, out, trained, options
        )

    def draw_pictures(self, evaluation: Evaluation, out: Path) -> dict[Path, str]:
        """Draw the error over time, and one test window of each of two actions as an animation."""
        return figures.evaluation_figures(self.model, self.motions, evaluation.details, out)

    def labels(self) -> dict[str, str]:
        """Titles of horizons, with the true time where the conventional label is not it."""
        columns = self._columns()
        averages = {
            f"mpjpe/average/{label}": f"mean joint error {title} ahead, average of actions"
            for label, title in columns.items()
        }
        kept, horizon = evaluation.weights_kept(self.cfg), evaluation.horizon_of(self.cfg)
        noise = f"{evaluation.NOISE_MM:g} mm of noise, {evaluation.MISSING:.0%} of joints lost"
        rows = {
            "mpjpe/average": f"average; {horizon}, {kept}",
            f"mpjpe/{evaluation.LAST}": f"average; {horizon}, last weights",
            f"mpjpe/{evaluation.NOISY}": f"average; {horizon}, {kept}; observed with {noise}",
        }
        return columns | averages | rows

    def _columns(self) -> dict[str, str]:
        """Horizon -> its title."""
        fps = self.cfg.skeleton.fps
        true_ms = {k: round((f + 1) * 1000 / fps) for k, f in evaluation.horizons(self.cfg).items()}
        return {k: k if k == f"{ms}ms" else f"{k} (true {ms} ms)" for k, ms in true_ms.items()}

    def _headline(self) -> list[str]:
        """The average at 80 and at 400 ms, or at the horizons of this run that are nearest."""
        known = evaluation.horizons(self.cfg)
        nearest = [min(known, key=lambda k: abs(int(k[:-2]) - ms)) for ms in (80, 400)]
        return [f"mpjpe/average/{label}" for label in dict.fromkeys(nearest)]

    def data_used(self) -> DataUsed:
        """The data of this configuration."""
        return data.used(self.cfg.data)

    def notes(self) -> list[str]:
        """Protocol, frames, true times, mask policy."""
        cfg, motions = self.cfg, self.motions
        lines = [
            f"protocol: {cfg.data.protocol} test windows, {len(motions.test)} in all; "
            f"{cfg.data.past} frames observed, {cfg.data.future} predicted",
            f"{evaluation.horizon_of(cfg)}, {evaluation.weights_kept(cfg)}; in the literature "
            "short and long horizons are separate models, whose numbers do not belong in one row",
            f"row of noisy input: {evaluation.NOISE_MM:g} mm of normal noise on every observed "
            f"coordinate, and {evaluation.MISSING:.0%} of joints lost at a random observed frame "
            "and held where they were; errors are to the clean truth",
            "error: per-frame MPJPE in mm over all joints, constant ones included (they dilute it)",
            *self._conventions(),
        ]
        untrained = {c.action for c in motions.test.clips} - {c.action for c in motions.train.clips}
        if untrained:
            lines.append(f"outside the average, never trained on: {', '.join(sorted(untrained))}")
        return lines

    def _conventions(self) -> list[str]:
        """Notes that follow from the configuration alone, without reading the data."""
        cfg, lines = self.cfg, []
        if cfg.skeleton.label_fps != cfg.skeleton.fps and cfg.skeleton.label_fps:
            times = ", ".join(
                f"{k} = {v.split('true ')[1][:-1]}" for k, v in self._columns().items()
            )
            lines.append(
                f"labels assume {cfg.skeleton.label_fps:g} frames a second as all papers do; the "
                f"motions have {cfg.skeleton.fps:g}, so in real time {times}"
            )
        if cfg.skeleton.name == "cmu_mocap" and cfg.data.name == "cmu_mocap":
            lines.append("the benchmark's CMU millimetres are about 1.24 real ones")
        if cfg.model.kind == "spgsn":
            lines.append(f"edge masks at inference: {cfg.model.mask_eval}")
        return lines

    def claims(self) -> list[Claim[Config]]:
        """The paper's ablation: scattering and parts each help, both help most."""

        def arm(name: str, cfg: Config) -> Variant[Config]:
            return Variant(name, replace(cfg, steps=CLAIM_STEPS))

        full, gcn = arm("SPGSN", SMALL), arm("DCT-GCN", GCN)
        setting = (
            "rates of SPGSN, DCT-GCN and MLP were each chosen on held-out training windows; the "
            "two ablations take SPGSN's; all by runs of at most 1,000 steps. The number of steps "
            "is by claims/length.py. Equal steps are not equal time: see seconds in the JSON"
        )
        questions: list[tuple[str, Variant[Config], tuple[int, ...]]] = [
            ("Graph scattering on body parts beats a plain DCT-GCN", gcn, (80, 400, 1000)),
            (
                "Body parts add to scattering alone",
                arm("scattering only", SCATTERING_ONLY),
                (400,),
            ),
            ("Scattering adds to body parts alone", arm("parts only", PARTS_ONLY), (400,)),
            (
                "SPGSN beats an MLP like siMLPe (later than the paper; our question)",
                arm("MLP (siMLPe-like)", MLP),
                (80, 400, 1000),
            ),
        ]
        return [
            Claim(
                f"{says}, at {ms} ms.", other, full, f"mpjpe/average/{ms}ms", "lower", None, setting
            )
            for says, other, horizons in questions
            for ms in horizons
        ]

    def export(self) -> Export:
        """The network alone: DCT coefficients in and out, masks fixed by model.mask_eval."""
        if self.cfg.model.mask_eval == "sample" and self.cfg.model.kind == "spgsn":
            raise ValueError("model.mask_eval=sample is random and cannot be exported; use mean")
        nodes = 3 * len(self.cfg.skeleton.used)
        example = (
            torch.randn(2, nodes, self.cfg.data.num_coeffs, generator=generator("export")) * 100
        )
        module = self.model.cpu().eval()
        return Export(module, (example,), ("coeffs",), ("predicted_coeffs",))

    @classmethod
    def convert(cls, source: Path) -> tuple[Spgsn, Converted]:
        """Read a checkpoint of the official code (`.pth.tar`); its size follows from its shapes.

        Raises:
            ValueError: It is no such checkpoint.
        """
        checkpoint = load_tensors(source)
        try:
            state = official.official_state(checkpoint)
        except ValueError as error:
            raise ValueError(f"{source} is not an official SPGSN checkpoint: {error}") from error
        for key, value in state.items():
            check_tensor(source, key, value)
        if state["gc1.weight"].ndim != 2 or not state["gc1.att"].ndim:
            raise ValueError(f"{source} is not an official SPGSN checkpoint: odd shapes of gc1")
        coeffs, width = state["gc1.weight"].shape
        nodes, filters = len(state["gc1.att"]), state["gcbs.0.gc1.scat_tree.f_coef"].numel() // 2
        blocks = len({key.split(".")[1] for key in state if key.startswith("gcbs.")})
        try:
            for number in range(blocks):  # so that the network is no larger than the file
                key = f"gcbs.{number}.gc1.scat_tree.feat_sc1.weight"
                require_shape(state, key, filters, width, width)
        except ValueError as error:
            raise ValueError(f"{source} is not an official SPGSN checkpoint: {error}") from error
        system = cls._from_shapes(nodes, width, blocks, filters, coeffs)
        network = system.model
        assert isinstance(network, ScatteringNetwork)
        account = official.convert(state, network.order, network.state_dict())
        network.load_state_dict(account.state, strict=False)
        return system, account

    @classmethod
    def _from_shapes(cls, nodes: int, width: int, blocks: int, filters: int, coeffs: int) -> Spgsn:
        """The system that fits an official checkpoint's shapes."""
        by_nodes = {3 * len(s.used): (n, s) for n, s in data.PUBLISHED.items()}
        if nodes not in by_nodes:
            raise ValueError(
                f"the checkpoint has {nodes} graph nodes; known skeletons have {sorted(by_nodes)}"
            )
        name, skeleton = by_nodes[nodes]
        paper = RECIPES["paper"]
        future = {"h36m": 10 if coeffs <= 20 else 25, "cmu_mocap": 25, "3dpw": 30}[name]
        return cls(
            replace(
                paper,
                model=replace(paper.model, width=width, num_blocks=blocks, num_filters=filters),
                data=replace(paper.data, name=name, num_coeffs=coeffs, future=future),
                skeleton=skeleton,
            )
        )
