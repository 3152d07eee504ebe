"""Sizes of the networks whose activations are seeds: values alone, which need no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tenfold.core.config import require

Name = Literal[
    "resnet18", "resnet50", "resnet38", "efficientnet-lite0", "deit", "mctformer",
    "mctformer-plus", "hivit",
]  # fmt: skip
Bias = Literal["none", "full", "full-cls", "decomposed", "shared", "shared-decoupled"]
Colours = tuple[tuple[float, float, float], tuple[float, float, float]]

CNNS = ("resnet18", "resnet50", "resnet38", "efficientnet-lite0")
"""Networks of convolutions, whose maps are under-activated by the paper's abstract."""
CLASS_TOKENS = ("mctformer", "mctformer-plus")
"""Networks that have a class token a class."""
OUTPUT_STRIDES = {"resnet18": 16, "resnet50": 16, "resnet38": 8, "efficientnet-lite0": 16}
"""Where `output_stride` is 0. IRN's and PSA's are those of the second and the third."""
IMAGENET: Colours = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
LITE: Colours = ((127 / 255,) * 3, (128 / 255,) * 3)


@dataclass(frozen=True)
class Model:
    """The seed network: a backbone, and a convolution that makes a map of each class."""

    name: Name = "resnet38"
    """Backbone. resnet38 is PSA's and SEAM's, resnet50 is IRN's, mctformer (V2) and mctformer-plus
    have a class token a class, deit one for all; hivit is iTPN's. USAGE's own are resnet38 and
    DeiT-small with MCTformer's tokens (the README of its repository)."""
    width: int = 0
    """Channels of the first stage, or of a token (hivit: of the last stage); 0 is the published."""
    depths: tuple[int, ...] = ()
    """Blocks of each stage (a transformer's: one number, hivit's: three); () is the published.
    efficientnet-lite0 and resnet38 have their published ones alone."""
    heads: int = 0
    """Attention heads; 0 is one for 64 channels, as in every published transformer here."""
    patch_size: int = 16
    """Pixels of a side of a transformer's patch."""
    grid: int = 14
    """Patches of a side of the picture for which positions are learned: crop / patch_size."""
    output_stride: int = 0
    """Pixels of a side of a map's cell, of convolutional networks; 0 is 8 for resnet38 and 16 for
    the others. Later stages have no stride."""
    dilate: bool = True
    """Whether stages that have lost their stride are dilated; IRN's resnet50 is not."""
    frozen_stages: int = 0
    """Stages that are not trained, from the pictures on; the stem, or the patch embedding, is the
    first, then each stage, or each block. PSA and SEAM freeze 2, IRN 3; -1 freezes the whole
    backbone, so that the convolution alone is trained."""
    freeze_norm: bool = True
    """Whether batch norms keep their statistics, scales and shifts (PSA, SEAM, IRN)."""
    dropout: float = 0.0
    """Share of channels that are dropped before the convolution (PSA, SEAM: 0.5; IRN: 0)."""
    correlation: bool = False
    """SEAM's branch, which spreads maps by what places have in common (resnet38, from SEAM's files;
    it is not trained here). Maps by it are those of seeds.rule seam."""
    drop_path: float = 0.0
    """Largest rate of stochastic depth of a transformer (MCTformer+: 0.1)."""
    bias: Bias = "none"
    """Relative position bias (hivit)."""
    stem_ratio: float = 3.0
    """Hidden channels of the first two stages' MLPs, over their channels (hivit)."""
    ratio: float = 4.0
    """Hidden channels of a transformer's MLPs, over its channels."""
    layer_scale: float = 0.0
    """Initial layer scale, 0 without (hivit)."""
    gated: bool = False
    """SwiGLU and inner norms: Fast-iTPN (hivit)."""
    conv_stem: bool = True
    """First stages of convolutions (hivit of Fast-iTPN)."""
    class_token: bool = False
    """Whether there is a class token, which a map does not need (hivit)."""

    def __post_init__(self) -> None:
        require(self, "model.", "[0, inf)", "width", "heads", "output_stride", "layer_scale")
        require(self, "model.", "[1, inf)", "patch_size", "grid")
        require(self, "model.", "(0, inf)", "ratio", "stem_ratio")
        require(self, "model.", "[0, 1)", "dropout", "drop_path")
        require(self, "model.", "[-1, inf)", "frozen_stages")
        if self.correlation and self.name != "resnet38":
            raise ValueError(
                f"model.correlation is SEAM's, of resnet38, and model.name is {self.name}; leave "
                "it out"
            )
        wanted = {"resnet18": 4, "resnet50": 4, "hivit": 3, "deit": 1}.get(self.name, 0)
        wanted = 1 if self.name in CLASS_TOKENS else wanted
        if self.depths and (len(self.depths) != wanted or min(self.depths) < 1):
            many = f"{wanted} numbers of at least 1, or ()" if wanted else "()"
            raise ValueError(f"model.depths is {self.depths}; {self.name} takes {many}")

    @property
    def is_convolutional(self) -> bool:
        """Return True for a network of convolutions."""
        return self.name in CNNS

    @property
    def multiple(self) -> int:
        """Sides of pictures are multiples of it."""
        return 1 if self.is_convolutional else self.patch_size

    @property
    def colours(self) -> Colours:
        """Mean and deviation of a channel of pictures in [0, 1], as ImageNet's weights expect."""
        return LITE if self.name == "efficientnet-lite0" else IMAGENET
