"""SPGSN as a system: train, evaluate, predict, claim, convert."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from tenfold.core.capabilities import Export
from tenfold.core.claim import Claim, Variant
from tenfold.core.seed import generator
from tenfold.core.stage import Stage
from tenfold.core.system import DataUsed, Paper, System
from tenfold.data.motion.clips import Windows
from tenfold.metrics.mpjpe import fill_unused, mpjpe
from tenfold.weights.containers import load_tensors

from . import data, official, predict
from .config import Config
from .loss import mpjpe_loss
from .model import ScatteringNetwork, build
from .recipes import GCN, MLP, PARTS_ONLY, RECIPES, SCATTERING_ONLY, SMALL

TEST_BATCH = 128
LABELLED_MS = {25.0: (80, 160, 320, 400, 560, 1000), 30.0: tuple(range(100, 1001, 100))}
"""Horizons that papers report, by the frame rate they assume (spec sec. 6)."""


class Trainee(nn.Module):
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
    headline: list[str] = ["mpjpe/average/80ms", "mpjpe/average/400ms"]
    task = "3D skeleton motion prediction by skeleton-parted graph scattering"
    accepts = (
        ".bvh of the run's skeleton, any frame rate and size; .npz with positions (frames, joints, "
        "3) in mm at the run's frame rate, or expmap (frames, columns); .txt of the benchmark"
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
        self.curves: dict[str, Float[np.ndarray, " future"]] = {}
        """Error over future frames, averaged over actions, of what was evaluated last."""

    @classmethod
    def complete(cls, cfg: Config) -> Config:
        """Take the skeleton from the data; fall back to generated walkers where there is none."""
        return data.complete(cfg)

    def stages(self) -> Iterator[Stage]:
        """One stage; the learning rate falls at the start of every second epoch (spec sec. 4)."""
        epoch = self.motions.steps_per_epoch
        steps = self.cfg.steps or self.cfg.epochs * epoch
        optim = self.cfg.optim
        if optim.schedule == "step" and not optim.period:
            optim = replace(optim, period=2 * epoch, offset=epoch)
        trainee = Trainee(self.model, self.motions.basis)
        can_validate = self.motions.validation is not None
        yield Stage(
            name="train",
            model=trainee,
            batches=self.motions.batch,
            steps=steps,
            optim=optim,
            validate=self._validate if can_validate else None,
            monitor="mpjpe" if can_validate else "",
        )

    def _validate(self, trainee: nn.Module) -> dict[str, float]:
        """Error over all future frames of the held-out windows, unweighted mean of actions."""
        assert isinstance(trainee, Trainee)
        windows = self.motions.windows("validation")
        errors = self._errors(windows, _ready(trainee.network))
        return {"mpjpe": float(np.mean([e.mean() for e in errors.values()]))}

    def horizons(self) -> dict[str, int]:
        """Label -> 0-based future frame: labels as papers print them, at their assumed rate."""
        skeleton, future = self.cfg.skeleton, self.cfg.data.future
        rate = skeleton.label_fps or skeleton.fps
        wanted = LABELLED_MS.get(rate, LABELLED_MS[25.0])
        frames = {round(ms * rate / 1000) - 1 for ms in wanted}
        known = sorted(f for f in frames if 0 <= f < future) or [future - 1]
        return {f"{round((f + 1) * 1000 / rate)}ms": f for f in known}

    def labels(self) -> dict[str, str]:
        """Column titles that add the true time where the conventional label is not it."""
        true_ms = {
            k: round((f + 1) * 1000 / self.cfg.skeleton.fps) for k, f in self.horizons().items()
        }
        return {k: k if k == f"{ms}ms" else f"{k} (true {ms} ms)" for k, ms in true_ms.items()}

    def evaluate(self, split: str) -> dict[str, float]:
        """MPJPE in mm per action and horizon; the average is over actions seen in training."""
        self.model.eval()
        return self._table(split, _ready(self.model), self.cfg.model.kind)

    def baselines(self, split: str) -> dict[str, dict[str, float]]:
        """Repeat the last observed pose."""
        return {"repeat last pose": self._table(split, _same, "repeat last pose")}

    def _table(self, split: str, predictor: Any, name: str) -> dict[str, float]:
        windows = self.motions.windows(split)
        errors = self._errors(windows, predictor)
        trained = {clip.action for clip in self.motions.train.clips}
        rows = {a if a in trained else f"{a} (never trained)": e for a, e in errors.items()}
        seen = [e for a, e in errors.items() if a in trained] or list(errors.values())
        rows["average"] = torch.stack(seen).mean(0)
        self.curves[name] = rows["average"].numpy()
        return {
            f"mpjpe/{row}/{label}": float(error[frame])
            for row, error in rows.items()
            for label, frame in self.horizons().items()
        }

    @torch.no_grad()
    def _errors(self, windows: Windows, predictor: Any) -> dict[str, Float[Tensor, "future"]]:
        """Error in mm of each future frame, for each action, over all joints (spec sec. 6)."""
        past, device = self.cfg.data.past, next(self.model.parameters()).device
        basis = self.motions.basis.float().to(device)
        found: dict[str, Tensor] = {}
        for action, indices in windows.by_action().items():
            total = torch.zeros(self.cfg.data.future, dtype=torch.float64)
            for part in np.array_split(indices, -(-len(indices) // TEST_BATCH)):
                positions = windows.gather(part)
                inputs = data.nodes(positions[:, :past], self.cfg.skeleton)
                coeffs = data.padded_coeffs(inputs, self.motions.basis).to(device)
                joints = _joints(predictor(coeffs), basis)[:, past:].cpu()
                truth = torch.from_numpy(positions[:, past:])
                full = fill_unused(truth, joints, self.cfg.skeleton)
                total += mpjpe(full, truth).double() * len(part)
            found[action] = total / len(indices)
        return found

    @torch.no_grad()
    def forecast(
        self, positions: Float[np.ndarray, "past joint 3"], samples: int = 0
    ) -> Float[np.ndarray, "samples frames joint 3"]:
        """Future poses of one observed window, in the units of the data; all joints.

        `samples` > 0 draws that many edge masks, whose spread is a cheap uncertainty estimate.
        Joints that the network does not see keep their last position, twins follow their source.
        """
        self.model.eval()
        device = next(self.model.parameters()).device
        coeffs = data.padded_coeffs(
            data.nodes(positions[None], self.cfg.skeleton), self.motions.basis
        )
        coeffs, basis = coeffs.to(device), self.motions.basis.float().to(device)
        if samples and not isinstance(self.model, ScatteringNetwork):
            raise ValueError(f"model.kind {self.cfg.model.kind!r} has no edge masks to sample")
        if isinstance(self.model, ScatteringNetwork) and samples:
            draw = generator(self.cfg.seed, "forecast")
            outputs = [self.model(coeffs, self.model.draw_masks(draw)) for _ in range(samples)]
        else:
            outputs = [self.model(coeffs)]
        joints = torch.cat([_joints(o, basis)[:, self.cfg.data.past :] for o in outputs]).cpu()
        still = torch.from_numpy(np.repeat(positions[-1:], joints.shape[1], 0))
        return fill_unused(still.expand(len(joints), -1, -1, -1), joints, self.cfg.skeleton).numpy()

    def predict(self, inputs: Path, out: Path) -> list[Path]:
        """Predict from a BVH, npz or benchmark text file: BVH, npz, animation and error plot."""
        return predict.predict_file(self, inputs, out)

    def pictures(self, out: Path) -> dict[Path, str]:
        """One test window of each of a few actions as an animation, and the error over time."""
        return predict.report_pictures(self, out)

    def data_used(self) -> DataUsed:
        """The data of this configuration."""
        return data.used(self.cfg.data)

    def notes(self) -> list[str]:
        """Protocol, frames, true times, mask policy."""
        cfg = self.cfg
        lines = [
            f"protocol: {cfg.data.protocol} test windows, {len(self.motions.test)} in all; "
            f"{cfg.data.past} frames observed, {cfg.data.future} predicted",
            "error: per-frame MPJPE in mm over all joints, constant ones included (they dilute it)",
        ]
        if cfg.skeleton.label_fps != cfg.skeleton.fps and cfg.skeleton.label_fps:
            times = ", ".join(f"{k} = {v.split('true ')[1][:-1]}" for k, v in self.labels().items())
            lines.append(
                f"labels assume {cfg.skeleton.label_fps:g} frames a second as all papers do; the "
                f"motions have {cfg.skeleton.fps:g}, so in real time {times}"
            )
        if cfg.skeleton.name == "cmu_mocap" and cfg.data.name == "cmu_mocap":
            lines.append("the benchmark's CMU millimetres are about 1.24 real ones")
        if cfg.model.kind == "spgsn":
            lines.append(f"edge masks at inference: {cfg.model.mask_eval}")
        untrained = {c.action for c in self.motions.test.clips} - {
            c.action for c in self.motions.train.clips
        }
        if untrained:
            lines.append(f"outside the average, never trained on: {', '.join(sorted(untrained))}")
        return lines

    def claims(self) -> list[Claim[Config]]:
        """The paper's ablation: scattering and parts each help, both help most."""
        full, gcn = Variant("SPGSN", SMALL), Variant("DCT-GCN", GCN)
        setting = (
            "rates of SPGSN, DCT-GCN and MLP were each chosen on held-out training windows; the "
            "two ablations take SPGSN's. Equal steps are not equal time: see seconds in the JSON"
        )
        questions: list[tuple[str, Variant[Config], tuple[int, ...]]] = [
            ("Graph scattering on body parts beats a plain DCT-GCN", gcn, (80, 400, 1000)),
            (
                "Body parts add to scattering alone",
                Variant("scattering only", SCATTERING_ONLY),
                (400,),
            ),
            ("Scattering adds to body parts alone", Variant("parts only", PARTS_ONLY), (400,)),
            (
                "SPGSN beats an MLP like siMLPe (later than the paper; our question)",
                Variant("MLP (siMLPe-like)", MLP),
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
    def convert(cls, source: Path) -> tuple[System[Config], Any]:
        """Read a checkpoint of the official code (`.pth.tar`); its size follows from its shapes."""
        checkpoint = load_tensors(source)
        try:
            state = official.official_state(checkpoint)
        except ValueError as error:
            raise ValueError(f"{source} is not an official SPGSN checkpoint: {error}") from error
        if state["gc1.weight"].ndim != 2 or not state["gc1.att"].ndim:
            raise ValueError(f"{source} is not an official SPGSN checkpoint: odd shapes of gc1")
        coeffs, width = state["gc1.weight"].shape
        nodes, filters = len(state["gc1.att"]), state["gcbs.0.gc1.scat_tree.f_coef"].numel() // 2
        blocks = len({key.split(".")[1] for key in state if key.startswith("gcbs.")})
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


def _ready(network: nn.Module) -> nn.Module:
    """The network for many predictions: with cached filters, where masks are not drawn anew."""
    if isinstance(network, ScatteringNetwork) and network.cfg.mask_eval != "sample":
        return network.prepared()
    return network


def _same(coeffs: Tensor) -> Tensor:
    return coeffs


def _joints(
    coeffs: Float[Tensor, "batch node coeff"], basis: Float[Tensor, "coeff frame"]
) -> Float[Tensor, "batch frame used 3"]:
    """Positions of the used joints from DCT coefficients."""
    return (coeffs.float() @ basis).transpose(1, 2).unflatten(2, (-1, 3))
