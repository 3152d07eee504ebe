"""Configuration of LDC; every default is the paper's or the official code's, with its source."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tenfold.core.config import require
from tenfold.core.loop import Loop
from tenfold.core.optim import Optim

HeadName = Literal["ldc", "ncm", "lda", "teen", "fine-tune"]
"""Heads that a run can be trained with."""


@dataclass(frozen=True)
class Model:
    """The encoder and the cosine classifier on it."""

    kind: Literal["resnet20", "resnet18", "vit", "hivit"] = "resnet20"
    """resnet20 for pictures of about 32 pixels (CIFAR-100), resnet18 with ImageNet's stem for
    larger ones (miniImageNet, CUB-200) (official code); vit (DINOv2) and hivit (iTPN) only with
    `encoder`, whose weights choose them (ours)."""
    width: int = 0
    """Channels of the first stage; 0 is the published 16 (resnet20) or 64 (resnet18)."""
    temperature: float = 16.0
    """Factor on cosine logits (official code: -temperature 16)."""

    def __post_init__(self) -> None:
        require(self, "model.", "[0, inf)", "width")
        require(self, "model.", "(0, inf)", "temperature")


@dataclass(frozen=True)
class Transformer:
    """Sizes of an encoder `vit` or `hivit`: all but `input` and `heads` follow from its weights."""

    input: int = 0
    """Side in pixels to which pictures are resized, a multiple of patch_size; 0 is 224 for vit, and
    the side that a hivit was trained with."""
    normalise: Literal["imagenet", "half"] = "imagenet"
    """Mean and deviation of the colours: ImageNet's, or one half."""
    dim: int = 0
    """Channels, which are the features."""
    depths: tuple[int, ...] = ()
    """Blocks: of vit one number, of hivit those of its three stages."""
    heads: int = 0
    """Heads of attention; 0 is what config.json beside the weights says, else a head for 64
    channels, as in all published sizes."""
    patch_size: int = 0
    """Pixels of a patch's side."""
    grid: int = 0
    """Patches of the side for which positions are stored."""
    hidden: int = 0
    """Hidden channels of a vit's MLPs."""
    registers: int = 0
    """Register tokens of a vit."""
    gated: bool = False
    """SwiGLU: DINOv2's giant, Fast-iTPN."""
    layer_scale: float = 0.0
    """Layer scale that blocks started with; 0 without."""
    class_token: bool = False
    """hivit with a class token."""
    conv_stem: bool = True
    """Fast-iTPN's convolutional stem."""
    ratio: float = 4.0
    """Hidden channels over channels of hivit's main stage."""
    stem_ratio: float = 3.0
    """The same of its first two stages."""
    bias: Literal["none", "full", "full-cls", "decomposed", "shared", "shared-decoupled"] = "none"
    """Relative position bias of hivit."""


@dataclass(frozen=True)
class Data:
    """Pictures, order of the classes, and number of photos of a new class."""

    name: Literal[
        "tiny_imagenet_fscil", "cifar100", "mini_imagenet", "cub200", "folder", "shapes"
    ] = "cifar100"
    """Data set; folder is any folder of class folders; shapes is generated. See `tenfold data`."""
    path: str = ""
    """Folder of the data; empty looks for $TENFOLD_DATA/<name>, then falls back to shapes."""
    size: int = 0
    """Side of the network's input in pixels; 0 is the data set's own (folder: 32)."""
    base: int = 0
    """Base classes; 0 is the data set's own protocol (folder: all classes)."""
    way: int = 0
    """New classes of a session; 0 is the protocol's."""
    shot: int = 0
    """Photos of a new class; 0 is the protocol's."""
    draws: int = 1
    """Draws of the photos of new classes; their mean and spread are reported. The public protocol
    has one fixed draw."""
    test_share: float = 0.2
    """Share of each class's pictures kept for the test (folder only)."""
    batch_size: int = 128
    """Pictures of one optimiser step of base training, over all processes (official code: 128)."""
    augment: Literal["crop", "resized"] = "crop"
    """crop: random crop after padding by an eighth, and flip (CIFAR-100); resized: random resized
    crop and flip (miniImageNet, CUB-200) (official code)."""
    rotations: bool = False
    """Base training tells each class in four orientations apart, which makes features that serve
    new classes better (label augmentation, Lee et al. 2020; ours)."""
    colour: float = 0.0
    """Strength of random brightness and saturation in base training (ours; official: none)."""
    holdout: float = 0.0
    """Share of each base class's training pictures kept for validation (ours)."""
    skip_broken: bool = False
    """Leave out pictures that cannot be read, with a warning, instead of stopping (folder)."""
    features_gib: float = 2.0
    """Gibibytes of features kept on disk for runs with `encoder`, in $TENFOLD_CACHE/features or
    ~/.cache/tenfold/features; 0 keeps none."""
    follow_links: bool = False
    """Follow symbolic links that lead out of the folder, instead of refusing them (folder)."""

    def __post_init__(self) -> None:
        require(self, "data.", "[0, inf)", "size", "base", "way", "shot", "features_gib")
        require(self, "data.", "[1, inf)", "draws")
        require(self, "data.", "[2, inf)", "batch_size")  # BatchNorm
        require(self, "data.", "[0, 0.9)", "holdout", "test_share")
        require(self, "data.", "[0, 1]", "colour")


@dataclass(frozen=True)
class Calibration:
    """The parameterized calibration unit (PCU) and the sessions that use it.

    The defaults are `official`: the released code with its full-rank noise of version 1 and the
    features of the trained encoder. Each quirk is a switch; `REFERENCE` has them mended.
    """

    space: Literal["raw", "tukey"] = "raw"
    """Features that everything below works on: as the encoder gives them (official code), or their
    square roots scaled to unit length, which are closer to a Gaussian (ours, after Free Lunch)."""
    base_vectors: Literal["means", "learned"] = "means"
    """Vectors of base classes: their means (official code), or learned on the base session's real
    features by cross-entropy, `base_steps` steps of all of them (ours)."""
    base_steps: int = 300
    """Steps of learning base vectors, SGD with rate 0.1 and momentum 0.9."""
    tuned: Literal["all", "new"] = "all"
    """Vectors that sessions change: of all seen classes (official code), or of all but the base
    classes (ours: base vectors have seen hundreds of real pictures, samples tell them nothing)."""
    unit: Literal["trained", "untrained", "none"] = "trained"
    """trained: as the paper says; untrained: what the released code runs, since it restores the
    weights from before the unit's training; none: samples as they are drawn (ablation)."""
    recurrences: int = 3
    """Passes T through the same three layers (official code: 3)."""
    residual: bool = False
    """Add each pass's input to its output before the last ReLU (ours; official code: no)."""
    head: Literal["cholesky", "conv"] = "cholesky"
    """Map from noise to a sample: by the Cholesky factor of the shared covariance (version 1), or
    by the convolutional covariance head `layer_6` (version 2 and HEAD)."""
    head_gradient: bool = False
    """Train the convolutional head with the unit; the released code detaches its samples."""
    noise: Literal["full", "rank-1"] = "full"
    """rank-1 draws one number a sample for all features, as the released `sample_v2` does."""
    features: Literal["final", "first-epoch"] = "final"
    """Real features that the unit learns from: of the trained encoder (ours), or those seen in the
    first epoch of base training, augmented and never refreshed (official code)."""
    loss: Literal["raw", "normalised"] = "raw"
    """KL between softmax of raw features (official code), or of normalised features times the
    temperature (ours: raw features are so small that their softmax is nearly flat)."""
    real: int = 30
    """Real and biased samples of a class that the unit learns from (official code: 30)."""
    epochs: int = 500
    """Passes over the base classes in the unit's training (official code: 500)."""
    step: Literal["class", "all"] = "class"
    """Classes of one optimiser step: one after the other (official code), or all at once (ours)."""
    redraw: bool = False
    """Draw the biased samples anew in each epoch (ours; official code: drawn once)."""
    samples: int = 5
    """Calibrated samples of each seen class in a session (official code: 5)."""
    calibrated_share: float = 1.0
    """Share of the samples that pass the unit; the others are rehearsed as drawn. Official: 1."""
    fixed_samples: bool = True
    """Keep the samples of a class for ever (official code), which costs memory for each class;
    False draws them anew in each session from the class's mean and the shared covariance."""
    covariance: Literal["official", "pooled"] = "official"
    """Update of the shared covariance by a new class: with weight way / (base + way), once a class
    (official code), or by its degrees of freedom (ours)."""
    session_epochs: int = 150
    """Passes over the samples in a session (official code: epochs_new 150)."""
    session_batch: int = 50
    """Samples of one step of a session (official code: 50); 0 takes all of them."""
    session_lr: float = 0.01
    """Learning rate of a session, SGD with momentum 0.9 (official code: 0.01)."""
    dampening: float = 0.9
    """Dampening of SGD's momentum in the unit's training and in sessions (official code: 0.9)."""
    shuffle: bool = False
    """Shuffle the samples in each pass and keep the last, smaller batch (ours; official: fixed
    order, tail dropped)."""

    def __post_init__(self) -> None:
        require(self, "calibration.", "[1, inf)", "recurrences", "real", "samples", "base_steps")
        require(self, "calibration.", "[1, inf)", "session_epochs")
        require(self, "calibration.", "[0, inf)", "epochs", "session_batch")
        require(self, "calibration.", "[0, 1]", "calibrated_share")
        require(self, "calibration.", "(0, inf)", "session_lr")
        require(self, "calibration.", "[0, 1)", "dampening")
        if self.head_gradient and self.head != "conv":
            raise ValueError("calibration.head_gradient needs calibration.head conv")
        if self.unit == "none" and self.head == "conv":
            raise ValueError("calibration.head conv is a part of the unit; set head cholesky")


@dataclass(frozen=True)
class PredictOptions:
    """Options of `predict`."""

    top: int = 5
    """Classes to list for each picture."""
    unknown: float = 95.0
    """A picture is called unknown if it is farther from every class than this percentage of the
    known classes' own pictures; 100 calls nothing unknown."""

    def __post_init__(self) -> None:
        require(self, "", "[1, inf)", "top")
        require(self, "", "[0, 100]", "unknown")


@dataclass(frozen=True)
class Config:
    """LDC: what to train on what, and which head learns new classes."""

    model: Model = Model()
    transformer: Transformer = Transformer()
    data: Data = Data()
    classes: tuple[str, ...] = ()
    """All classes in label order, the base classes first; empty is filled from the data."""
    encoder: str = ""
    """Weights or folder whose encoder is taken as it is, without base training: of an earlier run,
    converted from an official checkpoint, of an iTPN run, or of DINOv2 (official or
    transformers')."""
    head: HeadName = "ldc"
    """Head that learns new classes on the encoder's features."""
    calibration: Calibration = Calibration()
    """Settings of the head `ldc`."""
    peers: Literal["quick", "all"] = "quick"
    """Other heads that are measured on the same features: those that need no training of a unit,
    or all, the released code's variants and Free Lunch included (minutes)."""
    optim: Optim = Optim(name="sgd", lr=0.1, nesterov=True, weight_decay=5e-4, schedule="cosine")
    """Optimiser of base training."""
    unit_optim: Optim = Optim(name="sgd", lr=0.1, dampening=0.9)
    """Optimiser of the calibration unit."""
    loop: Loop = Loop()
    start: str = ""
    """Weights that training starts from: a run, its weights, or an official checkpoint."""
    allow_missing: bool = False
    """Start although some tensors are missing in `start`, unused, or of another shape."""
    steps: int = 0
    """Optimiser steps of base training; 0 means `epochs` passes."""
    epochs: int = 100
    """Passes of base training where steps is 0 (CEC's recipe: 100)."""
    seed: int = 0
    """Seed of weights, batches, draws and samples."""

    def __post_init__(self) -> None:
        require(self, "", "[0, inf)", "steps")
        require(self, "", "[1, inf)", "epochs")
