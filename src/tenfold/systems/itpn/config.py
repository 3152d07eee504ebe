"""Configuration of iTPN; every default is the official base recipe's, with its source."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tenfold.core.config import require
from tenfold.core.loop import Loop
from tenfold.core.optim import Optim

from .masking import blocks_of

Task = Literal["pretrain", "classify", "localise", "segment", "detect"]
SETS: dict[str, tuple[Task, ...]] = {
    "imagenet": ("pretrain", "classify"),
    "tiny_imagenet_20": ("pretrain", "classify", "localise"),
    "folder": ("pretrain", "classify", "segment", "detect"),
    "photos": ("pretrain",),
    "ade20k": ("segment",),
    "voc2012": ("segment",),
    "camvid": ("pretrain", "segment"),
    "car_parts": ("pretrain", "segment", "detect"),
    "coco2017": ("detect",),
    "coco_tiny": ("detect",),
    "scenes": ("pretrain", "classify", "localise", "segment", "detect"),
}
"""Data set -> what it can be used for."""


@dataclass(frozen=True)
class Model:
    """The backbone and its pyramid."""

    family: Literal["pixel", "clip", "fast"] = "pixel"
    """pixel; clip has layer scale and relative positions; fast is Fast-iTPN (no pre-training)."""
    size: int = 224
    """Side of a square input in pixels; dense tasks take any size, see `dense`."""
    patch_size: int = 16
    """Pixels of a unit's side: a multiple of 4 (official: 16; 8 suits 64-pixel pictures)."""
    embed_dim: int = 512
    """Channels of the main stage, a multiple of 16 (base 512, large 768)."""
    depths: tuple[int, int, int] = (3, 3, 24)
    """Blocks of the two MLP stages and the main stage (base 3 3 24, large 2 2 40)."""
    heads: int = 8
    """Attention heads of the main stage (base 8, large 12)."""
    stem_ratio: float = 3.0
    """Hidden over outer channels in the MLP stages."""
    ratio: float = 4.0
    """The same in the main stage and the pyramid (Fast-iTPN: 3)."""
    layer_scale: float = 0.0
    """Initial layer scale; 0 is none (pixel: 0; clip and fast: 0.1)."""
    bias: Literal["none", "full", "full-cls", "decomposed", "shared", "shared-decoupled"] = "none"
    """Relative position bias (pixel pre-training and detection: none; fine-tuning, clip and
    segmentation: full; clip detection, large: decomposed; the others: Fast-iTPN)."""
    class_token: bool = False
    """A class token (some Fast-iTPN models)."""
    conv_stem: bool = True
    """Fast-iTPN's usual convolutional MLP stages."""
    fpn_dim: int = 256
    """Channels of the pyramid; 0 leaves it out (classification alone can do without)."""
    fpn_depth: int = 2
    """Blocks of each step of the pyramid (pixel pre-training 2, clip and detection 1)."""
    drop_path: float = 0.0
    """Stochastic depth of downstream tasks, and of the CLIP branch."""

    def __post_init__(self) -> None:
        if self.patch_size < 4 or self.patch_size % 4:
            raise ValueError(f"model.patch_size must be a multiple of 4, got {self.patch_size}")
        if self.size < self.patch_size or self.size % self.patch_size:
            raise ValueError(
                f"model.size {self.size} is no multiple of model.patch_size {self.patch_size}"
            )
        if self.embed_dim < 16 or self.embed_dim % 16:
            raise ValueError(f"model.embed_dim must be a multiple of 16, got {self.embed_dim}")
        if self.heads < 1 or self.embed_dim % self.heads:
            raise ValueError(
                f"model.embed_dim {self.embed_dim} cannot be divided by model.heads {self.heads}"
            )
        require(self, "model.", "[1, inf)", "depths", "fpn_depth")
        require(self, "model.", "[0, inf)", "fpn_dim", "layer_scale")
        require(self, "model.", "(0, inf)", "stem_ratio", "ratio")
        require(self, "model.", "[0, 1)", "drop_path")
        if self.bias in ("shared", "shared-decoupled", "full-cls") and not self.class_token:
            raise ValueError(f"model.bias {self.bias} has rows for model.class_token; turn it on")


@dataclass(frozen=True)
class Data:
    """Pictures, and how they are changed for training."""

    name: Literal[
        "imagenet", "tiny_imagenet_20", "folder", "photos", "ade20k", "voc2012", "camvid",
        "car_parts", "coco2017", "coco_tiny", "scenes",
    ] = "imagenet"  # fmt: skip
    """Data set. folder: your own, found by looking: class folders, label maps, JSON of COCO's form
    or YOLO's text files; photos: any pictures, for pre-training only; scenes: generated. See
    `tenfold data`."""
    path: str = ""
    """Folder of the data; empty looks for $TENFOLD_DATA/<name>, then falls back to scenes."""
    batch_size: int = 64
    """Pictures of one optimiser step, over all processes."""
    crop_scale: tuple[float, float] = (0.2, 1.0)
    """Area of random crops, as shares of the picture (pre-training 0.2-1, fine-tuning 0.08-1)."""
    test_crop: float = 0.875
    """Share of the resized picture's side that the test's centre crop keeps (official: 224 of 256);
    1 keeps the whole shorter side."""
    test_share: float = 0.2
    """Share of the pictures (class folders: of each class's) kept for the test, where a set of your
    own is not divided."""
    holdout: float = 0.0
    """Share of the training pictures kept for validation while training (ours)."""
    normalise: Literal["imagenet", "half"] = "imagenet"
    """Mean and deviation of channels: ImageNet's (pixel), or one half (clip)."""
    skip_broken: bool = False
    """Leave out pictures and annotations that cannot be read or do not fit, with a warning, instead
    of stopping. What turns out to be broken later is replaced by the next picture, and named."""
    follow_links: bool = False
    """Follow symbolic links that lead out of the folder, instead of refusing them."""
    ignore_exif: bool = False
    """Read pictures as they are stored, without the turn that an EXIF note asks for: where
    annotations were made on raw pixels."""

    def __post_init__(self) -> None:
        require(self, "data.", "[1, inf)", "batch_size")
        require(self, "data.", "(0, 1]", "test_crop")
        require(self, "data.", "[0, 0.9)", "test_share", "holdout")
        low, high = self.crop_scale
        if not 0 < low <= high <= 1:
            raise ValueError(f"data.crop_scale must rise within (0, 1], got {self.crop_scale}")


@dataclass(frozen=True)
class Pretrain:
    """Pre-training without labels."""

    method: Literal["pixel", "clip"] = "pixel"
    """pixel: masked pixels (official `itpn_pixel`); clip: a teacher's tokens (`itpn_clip`)."""
    epochs: int = 400
    """Passes over the data (official: 400 or 1600 pixel, 300 or 800 clip)."""
    pyramid: bool = True
    """Train the pyramid with the backbone; False is the baseline HiViT-MAE, whose decoder sees the
    main stage alone (pixel)."""
    num_outs: Literal[2, 3] = 3
    """Levels of the pyramid that are trained, coarsest first: 3, or 2 without the finest, which
    then starts at random in later tasks. The official classes also name 1, which does not run
    (`pyramid` False is what it would be), and for clip 4 and 5, which are as 3."""
    mask_ratio: float = 0.75
    """Share of units that are removed (pixel)."""
    decoder_dim: int = 512
    """Channels of the pixel decoder."""
    decoder_depth: int = 8
    """Blocks of the pixel decoder."""
    decoder_heads: int = 16
    """Heads of the pixel decoder."""
    normalised: bool = True
    """Predict pixels normalised in each unit; the official code has no other way."""
    feature_weight: float = 0.0
    """Weight of feature modelling with a moving average of the model itself as teacher (paper:
    0.3; ours, since that code was never released); 0 is off."""
    momentum: float = 0.996
    """Of that average at the start; it rises to 1 along a cosine (ours)."""
    teacher: str = ""
    """Teacher of method clip: a CLIP ViT (.pt, .safetensors), or a run whose backbone teaches.
    Heads and activation of a CLIP are read from config.json or open_clip_config.json beside it;
    without one they are OpenAI's (64 channels a head, QuickGELU)."""
    teacher_dim: int = 512
    """Channels of the teacher's tokens; filled from the teacher (CLIP-B 512, CLIP-L 768)."""
    teacher_range: Literal["official", "correct"] = "official"
    """official: the teacher sees pictures in [0, 1] as if they were in [-1, 1], washed out, as in
    the official code; correct: as it was trained."""
    leak_free: bool = False
    """Mask the pyramid's laterals too (clip); in the official code they show the main head the very
    pixels of the units that it must predict."""
    masked_share: float = 0.38
    """Share of units that are masked in blocks (clip; official: 75 of 196)."""
    max_mask_patches_per_block: int = 0
    """Units that one block may add to a mask (clip; the official code's option of this name); 0
    sets no limit but what is left to mask (official default)."""

    def __post_init__(self) -> None:
        require(self, "pretrain.", "(0, 1)", "mask_ratio", "masked_share")
        require(self, "pretrain.", "[0, inf)", "max_mask_patches_per_block", "feature_weight")
        require(self, "pretrain.", "[1, inf)", "epochs", "decoder_dim", "decoder_depth")
        require(self, "pretrain.", "[1, inf)", "decoder_heads", "teacher_dim")
        require(self, "pretrain.", "[0, 1]", "momentum")
        if self.decoder_dim % 16 or self.decoder_dim % self.decoder_heads:
            raise ValueError(
                f"pretrain.decoder_dim {self.decoder_dim} must be a multiple of 16 and of "
                f"pretrain.decoder_heads {self.decoder_heads}"
            )
        if self.feature_weight and (self.method == "clip" or not self.pyramid):
            raise ValueError("pretrain.feature_weight needs method pixel and a pyramid")
        if self.method == "clip" and not self.pyramid:
            raise ValueError("pretrain.method clip works on the pyramid; set pretrain.pyramid")


@dataclass(frozen=True)
class Finetune:
    """Classification and localisation: what is done to pictures and labels."""

    epochs: int = 100
    """Passes of classification (official: base 100, large 50)."""
    localise_epochs: int = 12
    """Passes of localisation (ours: the task is ours)."""
    layer_decay: float = 0.6
    """Layer-wise decay of the learning rate; 1 is none (base 0.60, large 0.55)."""
    mixup: float = 0.8
    """Mixup's alpha; 0 is off."""
    cutmix: float = 1.0
    """CutMix's alpha; 0 is off."""
    smoothing: float = 0.1
    """Label smoothing."""
    erasing: float = 0.25
    """Probability of random erasing."""
    rand_augment: bool = True
    """RandAugment m9-mstd0.5-inc1."""
    cells: int = 4
    """Localisation sees each pyramid level as cells x cells averages (ours)."""

    def __post_init__(self) -> None:
        require(self, "finetune.", "(0, 1]", "layer_decay")
        require(self, "finetune.", "[1, inf)", "cells", "epochs", "localise_epochs")
        require(self, "finetune.", "[0, inf)", "mixup", "cutmix")
        require(self, "finetune.", "[0, 1)", "smoothing", "erasing")


@dataclass(frozen=True)
class Dense:
    """Segmentation and detection."""

    epochs: int = 12
    """Passes over the data (detection 1x: 12; ADE20K: 160,000 steps, about 127 passes)."""
    size: int = 512
    """Side of segmentation's training crops in pixels, and of its test windows."""
    stride: int = 341
    """Pixels between test windows, `size` at most; 0 takes the picture whole."""
    resize: tuple[int, int] = (0, 0)
    """Shorter side and largest longer side to which segmentation brings pictures first, in training
    (before the random scale) and test (official: 512 2048); 0 0 keeps their size."""
    scales: tuple[float, float] = (0.5, 2.0)
    """Random scale of pictures in segmentation (official: 0.5-2)."""
    head_dim: int = 768
    """Channels of UPerHead, or of Mask R-CNN's heads (official: 768; 256)."""
    fc_dim: int = 1024
    """Width of Mask R-CNN's last layer before boxes (official: 1024)."""
    auxiliary: float = 0.4
    """Weight of segmentation's auxiliary head (official: 0.4)."""
    short_sides: tuple[int, ...] = (480, 512, 544, 576, 608, 640, 672, 704, 736, 768, 800)
    """Shorter sides that detection draws from; the last is the test's."""
    longest: int = 1333
    """Largest longer side of detection."""
    crop: bool = True
    """DETR-style crops in detection."""
    proposals: int = 512
    """Sampled proposals a picture in detection (official: 512). Twice as many, but 1000 at most, go
    into suppression and come out of it."""
    masks: bool = True
    """Train the mask head; boxes alone otherwise."""
    layer_decay: float = 0.9
    """Layer-wise decay; 1 is none (base 0.90, large 0.95; the official code's rule for each)."""

    def __post_init__(self) -> None:
        if not self.short_sides:
            raise ValueError("--dense.short-sides needs one or more sides in pixels")
        require(self, "dense.", "[16, inf)", "short_sides", "longest")
        if any(self.resize) and not 16 <= self.resize[0] <= self.resize[1]:
            raise ValueError(
                f"dense.resize must be a shorter side of 16 pixels or more and a longest one, or "
                f"0 0 for none, got {self.resize}"
            )
        if not 0 < self.scales[0] <= self.scales[1]:
            raise ValueError(f"dense.scales must be positive and rise, got {self.scales}")
        require(self, "dense.", "[1, inf)", "epochs", "head_dim", "fc_dim", "proposals")
        require(self, "dense.", "[16, inf)", "size")
        require(self, "dense.", "[0, inf)", "stride", "auxiliary")
        require(self, "dense.", "(0, 1]", "layer_decay")


@dataclass(frozen=True)
class PredictOptions:
    """Options of `predict`.

    Example:
        system.predict("holiday", "out", PredictOptions(top=3, score=0.5))

    Raises:
        ValueError: A value is out of its range.
    """

    top: int = 5
    """Classes to list for each picture."""
    score: float = 0.3
    """Least score of detected objects that are drawn and listed."""
    seed: int = 0
    """Seed of the masks of reconstructions."""
    short: int = 0
    """Shorter side in pixels to which segmentation and detection bring pictures, the longer one
    growing along up to the protocol's ratio; 0 is as the run was tested."""
    coco: str = ""
    """COCO file of these pictures, whose numbers of images and categories objects.json then has."""
    yolo: bool = False
    """Write objects as YOLO text too: a file for each picture, and the names of classes."""

    def __post_init__(self) -> None:
        require(self, "", "[1, inf)", "top")
        require(self, "", "[0, 1)", "score")
        if self.short:
            require(self, "", "[16, 4096]", "short")


@dataclass(frozen=True)
class Config:
    """iTPN: what is trained, on what, from which weights."""

    tasks: tuple[Task, ...] = ("pretrain",)
    """Tasks to train, in order. Each task after pretrain starts from its weights, or from `start`,
    or from random ones."""
    start: str = ""
    """Weights that the tasks start from: a run, its weights, or what `tenfold convert` made."""
    allow_missing: bool = False
    """Start although some tensors of backbone or pyramid are missing in `start`, or unused."""
    model: Model = Model()
    data: Data = Data()
    pretrain: Pretrain = Pretrain()
    finetune: Finetune = Finetune()
    dense: Dense = Dense()
    classes: tuple[str, ...] = ()
    """Classes in label order; empty is filled from the data."""
    pretrain_optim: Optim = Optim(
        lr=2.4e-3, betas=(0.9, 0.95), weight_decay=0.05, schedule="cosine", ramp="zero"
    )
    """Optimiser of pre-training; warm-up is a share of the steps where it is 0."""
    optim: Optim = Optim(
        lr=1.6e-3, weight_decay=0.05, schedule="cosine", ramp="zero", floor=5e-6 / 1.6e-3
    )
    """Optimiser of the other tasks."""
    warmup_share: float = 0.1
    """Warm-up as a share of a task's steps, where its optimiser's `warmup` is 0."""
    loop: Loop = Loop(amp="auto")
    steps: int = 0
    """Optimiser steps of every task; 0 means its epochs."""
    probes: bool = True
    """Measure the network that tasks start from by a linear probe and nearest neighbours."""
    seed: int = 0
    """Seed of weights, batches, masks and splits."""

    def __post_init__(self) -> None:
        if not self.tasks or len(set(self.tasks)) < len(self.tasks):
            raise ValueError(f"tasks must be one or more, each once, got {self.tasks}")
        if "pretrain" in self.tasks and self.tasks[0] != "pretrain":
            raise ValueError(f"tasks {self.tasks}: pretrain must come first")
        for task in self.tasks:
            if task not in SETS[self.data.name]:
                able = [name for name, tasks in SETS.items() if task in tasks]
                raise ValueError(
                    f"data.name {self.data.name} is for {', '.join(SETS[self.data.name])}; task "
                    f"{task} needs one of {', '.join(able)}"
                )
        if "pretrain" in self.tasks and self.model.family == "fast":
            raise ValueError("Fast-iTPN's pre-training was never released; use pixel or clip")
        need: list[Task] = [t for t in self.tasks if t in ("localise", "segment", "detect")]
        need += ["pretrain"] if "pretrain" in self.tasks and self.pretrain.pyramid else []
        if need and not self.model.fpn_dim:
            raise ValueError(f"task {need[0]} needs a pyramid; set model.fpn_dim")
        if "pretrain" in self.tasks and self.pretrain.method == "clip":
            units, own = self.model.size // self.model.patch_size, self.pretrain
            made = blocks_of(units, own.masked_share, own.max_mask_patches_per_block)
            if 0 < made.most < made.least:
                raise ValueError(
                    f"pretrain.max_mask_patches_per_block {made.most} is less than the smallest "
                    f"block, {made.least} units of the {made.count} to mask; raise it, or 0"
                )
        require(self, "", "[0, 1)", "warmup_share")
        require(self, "", "[0, inf)", "steps")
