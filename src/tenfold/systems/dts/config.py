"""Configuration of DTS; every default is DAFormer's with DTS around it, with its source.

"official" is the code of the host methods (vikolss/DACS, lhoyer/DAFormer, HRDA, MIC); the authors
of DTS published none, so that what concerns the two groups is our reading of the paper.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tenfold.core.config import require
from tenfold.core.loop import Loop
from tenfold.core.optim import Optim

from .loss import Provider, Quality

SetName = Literal[
    "streets", "streets-dusk", "streetsim", "gta5", "synthia", "cityscapes", "camvid",
    "camvid-day", "camvid-dusk", "folder",
]  # fmt: skip
Recipe = Literal["s+tt", "st+tt", "s+st"]
STRIDE = 4
"""Pixels of a side of the logits' cells."""
HostName = Literal["dacs", "daformer", "hrda", "mic"]
Deployed = Literal["student1", "teacher1", "student2", "teacher2", "ensemble"]


@dataclass(frozen=True)
class Model:
    """The segmentation network; both students and both teachers are of this shape."""

    encoder: Literal["mit", "resnet18", "resnet20", "hivit", "vit"] = "mit"
    """Encoder: mit is the Mix Transformer of SegFormer, which DAFormer uses, of the sizes below; a
    ResNet has its own, by `width` and `output_stride`; hivit (iTPN) and vit (DINOv2) have those of
    the weights of `start`."""
    width: int = 0
    """Channels of a ResNet's first stage, doubled in each next; 0 is the published 64 (resnet18) or
    16 (resnet20)."""
    output_stride: int = 8
    """No map of a ResNet is smaller than 1 / this of the image (later stages are dilated instead,
    as DeepLab has it); 0 is no limit, which is the fastest."""
    stem: bool = False
    """The map of a ResNet's stem, of half the image's sides (resnet18), is a level, too."""
    dims: tuple[int, int, int, int] = (64, 128, 320, 512)
    """Channels of the four stages (MiT-B0: 32 64 160 256; B1 to B5: 64 128 320 512); vit and the
    main stage of hivit have the last, hivit's stages before a quarter and a half of it."""
    depths: tuple[int, int, int, int] = (3, 6, 40, 3)
    """Blocks of the stages (B0 and B1: 2 2 2 2; B2: 3 4 6 3; B3: 3 4 18 3; B4: 3 8 27 3); hivit has
    three stages, vit their sum."""
    heads: tuple[int, int, int, int] = (1, 2, 5, 8)
    """Attention heads of the stages; hivit and vit have the last."""
    reductions: tuple[int, int, int, int] = (8, 4, 2, 1)
    """Factors by which attention of mit shrinks keys and values along each side."""
    drop_path: float = 0.1
    """Largest stochastic depth of mit and hivit, from 0 at the first block (official)."""
    head: Literal["daformer", "segformer", "deeplab"] = "daformer"
    """Head: daformer fuses all levels with dilated convolutions, segformer with a linear layer;
    deeplab has dilated convolutions of the last level (DACS)."""
    head_dim: int = 256
    """Channels of the head (official: 256)."""
    dropout: float = 0.1
    """Dropout of whole channels before the classifier (official: 0.1)."""
    detail: tuple[int, int] = (0, 0)
    """Height and width of the detail crop of two resolutions (HRDA: 512 512); 0 0 is one
    resolution."""

    def __post_init__(self) -> None:
        require(self, "model.", "[1, inf)", "dims", "depths", "heads", "reductions", "head_dim")
        require(self, "model.", "[0, 1)", "drop_path", "dropout")
        require(self, "model.", "[0, inf)", "width", "output_stride", "detail")
        for dim, heads in zip(self.dims, self.heads, strict=True):
            if dim % heads:
                raise ValueError(
                    f"model.dims {dim} cannot be divided by its model.heads {heads}; choose "
                    "multiples"
                )


@dataclass(frozen=True)
class Transformer:
    """What else an encoder hivit or vit is; all of it follows from the weights of `start`."""

    patch_size: int = 16
    """Pixels of a patch's side."""
    grid: int = 14
    """Patches of the side for which positions are stored; they are resized for other images."""
    ratio: float = 4.0
    """Hidden channels over channels of the MLPs."""
    stem_ratio: float = 3.0
    """The same of hivit's first two stages."""
    registers: int = 0
    """Register tokens of a vit."""
    gated: bool = False
    """SwiGLU: DINOv2's giant, Fast-iTPN."""
    layer_scale: float = 0.0
    """Layer scale that blocks start with; 0 without."""
    bias: Literal["none", "full", "full-cls", "decomposed", "shared", "shared-decoupled"] = "none"
    """Relative position bias of hivit."""
    bias_grid: int = 0
    """Patches of the side for which it is stored; 0 is `grid`."""
    class_token: bool = False
    """hivit with a class token."""
    conv_stem: bool = True
    """Fast-iTPN's convolutional stem."""
    pyramid: int = 0
    """Channels of iTPN's pyramid; 0 has none."""
    pyramid_depth: int = 1
    """Blocks of each step down the pyramid."""

    def __post_init__(self) -> None:
        require(self, "transformer.", "[1, inf)", "patch_size", "grid", "pyramid_depth")
        require(self, "transformer.", "(0, inf)", "ratio", "stem_ratio")
        require(
            self, "transformer.", "[0, inf)", "registers", "layer_scale", "bias_grid", "pyramid"
        )
        if self.bias in ("full-cls", "shared", "shared-decoupled") and not self.class_token:
            raise ValueError(
                f"transformer.bias {self.bias} has rows for transformer.class_token; turn it on"
            )


@dataclass(frozen=True)
class Data:
    """Labelled source images, target images without labels, and the crops of both."""

    source: SetName = "gta5"
    """Labelled set; streets: rendered by ourselves; folder: your own images and index masks."""
    target: SetName = "cityscapes"
    """Set to adapt to, whose training labels are not looked at; its test labels measure."""
    source_path: str = ""
    """Folder of the source; empty looks for $TENFOLD_DATA/<name>, then falls back to streets."""
    target_path: str = ""
    """Folder of the target; empty looks for $TENFOLD_DATA/<name>, then falls back to the streets'
    second style."""
    target_labels: int = 0
    """Labelled target images that join the supervised loss, spread evenly over the set, as
    neighbours in a film are alike; 0 is none (ours)."""
    target_list: str = ""
    """Text file that names the labelled target images which join, one a line (`a/b.png`, `b.png` or
    `b`), in place of `target_labels`."""
    batch_size: int = 2
    """Source images of one optimiser step, and as many target images, over all processes."""
    source_size: tuple[int, int] = (720, 1280)
    """Height and width to which source images are brought; 0 0 keeps theirs (official GTA5:
    720 1280, with HRDA 1440 2560)."""
    target_size: tuple[int, int] = (512, 1024)
    """Height and width to which target images are brought; 0 0 keeps theirs (official: 512 1024,
    with HRDA 1024 2048)."""
    crop: tuple[int, int] = (512, 512)
    """Height and width of crops (official: 512 512, with HRDA 1024 1024)."""
    most: float = 0.75
    """A source crop in which one class has more of the counted pixels is drawn again (official)."""
    rare_temperature: float = 0.01
    """Temperature of rare class sampling; 0 draws source images uniformly (DACS)."""
    rare_pixels: int = 3000
    """Pixels of the drawn class that an image needs at least (official: 3000)."""
    rare_share: float = 0.5
    """A crop with no more than this share of `rare_pixels` is drawn again (official: 0.5, HRDA
    2.0); 0 keeps the first."""
    border: tuple[int, int, int, int] = (15, 120, 0, 0)
    """Rows at top and bottom, columns at left and right, of pseudo labels that do not count
    (official: 15 120 0 0 of the crop; HRDA 30 240 30 30 of the image)."""
    border_of: Literal["crop", "image"] = "crop"
    """Margins are those of every crop (DAFormer), or of the image before the crop (HRDA)."""
    generated: tuple[int, int] = (48, 16)
    """Streets that are rendered for training and for the test, where none are on disk."""
    test_every: int = 1
    """Every so manieth test image is measured; 1 takes all (the demo takes fewer)."""
    test_share: float = 0.2
    """Share of a folder of your own that is not divided, or of a set that has but training images,
    that is for the test if it is measured."""
    skip_broken: bool = False
    """Leave out pictures and label maps that cannot be read or do not fit, with a warning, instead
    of stopping. What turns out to be broken later is replaced by the next picture, and named."""
    follow_links: bool = False
    """Follow symbolic links that lead out of the folder, instead of refusing them."""
    ignore_exif: bool = False
    """Take pictures as they are stored, without the turn that an EXIF note asks for."""

    def __post_init__(self) -> None:
        require(self, "data.", "[1, inf)", "batch_size", "crop", "generated", "test_every")
        require(self, "data.", "[0, inf)", "source_size", "target_size", "target_labels")
        require(self, "data.", "[0, inf)", "rare_temperature", "rare_pixels", "rare_share")
        require(self, "data.", "[0, inf)", "border")
        require(self, "data.", "(0, 1]", "most")
        if self.target_labels and self.target_list:
            raise ValueError(
                f"data.target_labels is {self.target_labels} and data.target_list is "
                f"{self.target_list}; give one of them"
            )
        require(self, "data.", "(0, 0.9)", "test_share")
        top, bottom, left, right = self.border
        if self.border_of == "crop" and (
            top + bottom >= self.crop[0] or left + right >= self.crop[1]
        ):
            raise ValueError(
                f"data.border {self.border} leaves nothing of a crop of {self.crop[0]} x "
                f"{self.crop[1]}; lower it"
            )


@dataclass(frozen=True)
class Host:
    """The method of self-training that each group follows."""

    name: HostName = "daformer"
    """dacs: labelled source and mixed images; daformer: also the distance to a frozen encoder's
    features; hrda: in two resolutions; mic: also masked target images."""
    alpha: float = 0.999
    """Largest decay of the teachers' average (official: 0.999; DACS: 0.99)."""
    threshold: float = 0.968
    """Probability from which a pseudo label counts as sure (official: 0.968)."""
    quality: Quality = "batch"
    """Weight of pseudo labels: the share of sure pixels in the batch (official) or in each image,
    or 1 and 0 for each pixel."""
    jitter: float = 0.8
    """Probability of colour jitter of mixed images (official: 0.8)."""
    jitter_strength: float = 0.2
    """Strength of brightness, contrast, saturation and hue (official: 0.2)."""
    blur: float = 0.5
    """Probability of Gaussian blur of mixed images (official: 0.5)."""
    feature_weight: float = 0.005
    """Weight of the distance to the features of the encoder as it was before, of labelled source
    pixels (DAFormer: 0.005)."""
    feature_share: float = 0.75
    """Share of a cell that its class must have for the distance (official: 0.75)."""
    things: tuple[str, ...] = (
        "traffic light", "traffic sign", "person", "rider", "car", "truck", "bus", "train",
        "motorcycle", "bicycle", "sign", "pedestrian", "bicyclist",
    )  # fmt: skip
    """Classes of the distance, by name (official: the thing classes)."""
    mask_ratio: float = 0.7
    """Share of blocks that are masked (MIC: 0.7)."""
    mask_block: int = 64
    """Side of a masked block in pixels (MIC: 64)."""
    mask_weight: float = 1.0
    """Weight of the loss of masked target images (MIC: 1)."""
    joint: bool = False
    """Source and mixed images in one forward pass: sooner, but batch statistics then mix the
    domains (ours; officially apart)."""
    compat: bool = False
    """Draw the classes of ClassMix as the official code: of the whole batch, 255 among them."""

    def __post_init__(self) -> None:
        require(self, "host.", "[0, 1]", "threshold", "jitter", "blur", "mask_ratio")
        require(self, "host.", "[0, 1]", "feature_share")
        require(self, "host.", "[0, 1)", "alpha", "jitter_strength")
        require(self, "host.", "[0, inf)", "feature_weight", "mask_weight")
        require(self, "host.", "[1, inf)", "mask_block")

    @property
    def has_features(self) -> bool:
        """True if the distance of features is a part of the loss."""
        return self.name != "dacs" and self.feature_weight > 0

    @property
    def has_masks(self) -> bool:
        """True if masked target images are a part of the loss."""
        return self.name == "mic" and self.mask_weight > 0


@dataclass(frozen=True)
class Groups:
    """The two groups of teacher and student (our reading of the paper's section 3)."""

    recipe: Recipe = "s+tt"
    """Images of group 2: labelled source and target mixed with target (half of the pixels are
    target); source mixed with target instead of source (three quarters); as group 1 (a quarter)."""
    provider: Provider = "cross"
    """Teacher of the pseudo labels: the other group's (cross), the average of both (mean), its own
    (no exchange), or always that of group 1 (1to2) or 2 (2to1)."""
    warmup: int = 1500
    """First steps in which each group learns from its own teacher: two random teachers teach
    nothing (ours: as long as the learning rate's warm-up)."""
    deploy: Deployed = "student2"
    """Network that predictions and exports use; all are measured. The paper does not say which."""

    def __post_init__(self) -> None:
        require(self, "groups.", "[0, inf)", "warmup")


@dataclass(frozen=True)
class Config:
    """Everything a run depends on."""

    method: Literal["dts", "host", "source"] = "dts"
    """dts: two groups; host: one teacher and student; source: labelled source images alone."""
    model: Model = Model()
    transformer: Transformer = Transformer()
    data: Data = Data()
    host: Host = Host()
    groups: Groups = Groups()
    source_steps: int = 0
    """Steps on labelled source images before adaptation, for an encoder that nobody pre-trained
    (ours)."""
    steps: int = 40_000
    """Steps of adaptation (official: 40,000)."""
    source_optim: Optim = Optim(lr=1e-3, weight_decay=0.01, schedule="linear")
    """Optimiser of the steps before adaptation."""
    optim: Optim = Optim(lr=6e-5, weight_decay=0.01, schedule="linear", warmup=1500)
    """Optimiser of adaptation (official: AdamW, 6e-5, linear to 0, mmcv's warm-up)."""
    head_lr: float = 10.0
    """Factor on the learning rate of the head (official: 10)."""
    classes: tuple[str, ...] = ()
    """Names of the classes; filled in from the data."""
    loop: Loop = Loop()
    seed: int = 0
    """Seed of weights, order of images, crops and mixing."""
    start: str = ""
    """Weights that training starts from: a run, an official checkpoint, an ImageNet encoder; for
    encoder hivit a run or file of iTPN, for vit a file of DINOv2 or a folder of transformers."""
    allow_missing: bool = False
    """Start anew what the weights of `start` do not have, instead of refusing them."""

    def __post_init__(self) -> None:
        require(self, "", "[0, inf)", "source_steps")
        require(self, "", "[1, inf)", "steps")
        require(self, "", "(0, inf)", "head_lr")
        dim, units = self.model.dims[-1], self.transformer.patch_size
        if self.model.encoder == "hivit" and (dim % 4 or units % 4):
            raise ValueError(
                f"encoder hivit has a quarter of model.dims {dim} and of transformer.patch-size "
                f"{units} in its first stage; choose multiples of 4"
            )
        if self.host.name != "mic" and any(self.model.detail) != (self.host.name == "hrda"):
            raise ValueError(
                f"host.name is {self.host.name}, but model.detail is {self.model.detail}; two "
                "resolutions are for hosts hrda and mic, one (0 0) for dacs, daformer and mic"
            )
        if any(self.model.detail) and any(
            side % (2 * STRIDE) or side < part
            for side, part in zip(self.data.crop, self.model.detail, strict=True)
        ):
            raise ValueError(
                f"data.crop {self.data.crop} must be multiples of {2 * STRIDE} and no smaller than "
                f"model.detail {self.model.detail}"
            )
        if self.method == "dts" and self.optim.clip:
            raise ValueError(
                "optim.clip would join the gradients of both groups in one norm; leave it 0"
            )
        if self.method != "dts" and self.groups.deploy in ("student2", "teacher2", "ensemble"):
            raise ValueError(
                f"groups.deploy is {self.groups.deploy}, but method {self.method} has one group; "
                "use --groups.deploy student1"
            )
        if self.method == "source" and self.groups.deploy != "student1":
            raise ValueError("method source has no teacher; use --groups.deploy student1")


@dataclass(frozen=True)
class PredictOptions:
    """Options of `tenfold predict` for a run of DTS."""

    network: Literal["deployed", "student1", "teacher1", "student2", "teacher2", "ensemble"] = (
        "deployed"
    )
    """Network that predicts; deployed is the run's `groups.deploy`."""
    confidence: bool = True
    """Write a map of the probability of each pixel's class beside the labels."""
    fps: float = 10.0
    """Frames per second of the film of overlays that is written for a folder of frames (of a film,
    its own); 0 writes none. MP4 with the extra `video`, else a GIF of 100 frames at most."""
    every: int = 1
    """Every so manieth frame of a film is labelled."""

    def __post_init__(self) -> None:
        if not 1 <= self.every <= 1_000_000:
            raise ValueError(f"--every must be in [1, 1000000], got {self.every}")
        if not 0 <= self.fps <= 50:
            raise ValueError(f"--fps must be in [0, 50], got {self.fps}")
