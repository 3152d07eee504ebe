"""Configuration of SPGSN; every default is the paper's or the official code's, with its source."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tenfold.core.config import require
from tenfold.core.loop import Loop
from tenfold.core.optim import Optim
from tenfold.data.motion.skeleton import Skeleton


@dataclass(frozen=True)
class Model:
    """The skeleton-parted graph scattering network, its ablations, and two baselines."""

    kind: Literal["spgsn", "gcn", "mlp"] = "spgsn"
    """spgsn: the paper's network; gcn: plain DCT-GCN (LearnTrajDep); mlp: siMLPe-like. (ours)"""
    width: int = 256
    """Features of each graph block, d (official code: linear_size)."""
    num_blocks: int = 9
    """Residual blocks, L (official code: num_stage)."""
    num_filters: int = 1
    """Band-pass filters J of each scattering layer (official code: --J 1)."""
    dropout: float = 0.5
    """Dropout probability (official code: 0.5)."""
    edge_prob: float = 0.4
    """Probability that an edge survives the random mask of a training step (official code: 0.4)."""
    mask_eval: Literal["mean", "sample", "ones"] = "mean"
    """Edge mask at inference: mean multiplies by edge_prob and is deterministic (ours); sample
    draws masks at inference too, as the official code does; ones keeps every edge."""
    scattering: bool = True
    """False leaves only the low-pass channel: the ablation 'parts only'."""
    parts: bool = True
    """False leaves only the whole body: the ablation 'scattering only'."""
    readout_gain: float = 1.0
    """Factor on what spgsn and gcn add to their input. 1 is the official code, whose last layer has
    to grow to the scale of millimetres; a larger one gets there in short runs (ours)."""
    exchange_weight: float = 1.0
    """Weight of what one part sends to the other (official code: W_pg is stored, never used)."""
    part_weight: float = 1.0
    """Weight of the parts on the whole body (official code: W_p is stored, never used)."""

    def __post_init__(self) -> None:
        require(self, "model.", "[1, inf)", "width", "num_blocks", "num_filters")
        require(self, "model.", "[0, 1)", "dropout")
        require(self, "model.", "(0, 1]", "edge_prob")


@dataclass(frozen=True)
class Data:
    """Motions, and how they are cut into windows."""

    name: Literal["cmu_mocap", "h36m", "3dpw", "bvh", "walker"] = "cmu_mocap"
    """Data set; bvh is any folder of BVH files; walker is generated. See `tenfold data`."""
    path: str = ""
    """Folder of the data; empty looks for $TENFOLD_DATA/<name>, then falls back to walker."""
    mm_per_unit: float = 10.0
    """Millimetres a unit of length of BVH files (10: centimetres; the CMU conversions: 56.4)."""
    fps: float = 0.0
    """Frames per second to which BVH files are resampled; 0 keeps their own."""
    past: int = 10
    """Observed frames (paper: 10)."""
    future: int = 25
    """Predicted frames (paper: 25 on CMU)."""
    num_coeffs: int = 30
    """DCT coefficients kept of past + future (official code: --dct_n 30 on CMU)."""
    protocol: Literal["all", "256", "8"] = "all"
    """Test windows: all of them (official SPGSN code), 256 or 8 an action (older papers)."""
    batch_size: int = 32
    """Windows of one optimiser step, over all processes (official code: 32)."""
    holdout: float = 0.0
    """Share of each action's training windows, the last in clip order, kept for validation (ours;
    the official CMU script has no validation split)."""

    def __post_init__(self) -> None:
        require(self, "data.", "[1, inf)", "past", "future")
        require(self, "data.", "[2, inf)", "batch_size")  # BatchNorm
        require(self, "data.", "(0, inf)", "mm_per_unit")
        require(self, "data.", "[0, inf)", "fps")
        require(self, "data.", "[0, 0.9)", "holdout")
        if not 1 <= self.num_coeffs <= self.past + self.future:
            raise ValueError(
                f"data.num_coeffs must be between 1 and past + future = {self.past + self.future}, "
                f"got {self.num_coeffs}"
            )


@dataclass(frozen=True)
class PredictOptions:
    """What `tenfold predict` may be asked for."""

    format: Literal["gif", "mp4"] = "gif"
    """Kind of the animations; mp4 needs the extra `video`."""


@dataclass(frozen=True)
class Config:
    """SPGSN: what to train on what."""

    model: Model = Model()
    data: Data = Data()
    skeleton: Skeleton = Skeleton()
    """The body; empty is filled from the data set."""
    optim: Optim = Optim(name="adam", lr=1e-3, clip=1.0, schedule="step", gamma=0.96)
    loop: Loop = Loop()
    start: str = ""
    """Weights that training starts from: a run, its weights, or an official checkpoint."""
    allow_missing: bool = False
    """Start although some tensors are missing in `start`, unused, or of another shape."""
    steps: int = 0
    """Optimiser steps; 0 means `epochs` passes over the training windows."""
    epochs: int = 50
    """Passes over the training windows where steps is 0 (official code: 50)."""
    seed: int = 0
    """Seed of weights, batches, masks and dropout."""

    def __post_init__(self) -> None:
        require(self, "", "[0, inf)", "steps")
        require(self, "", "[1, inf)", "epochs")
