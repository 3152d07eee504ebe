"""Configuration of LOUPE; every default is the paper's as far as it says, else ours, and so marked.

The official repository (YYJMJC/LOUPE) has a README and a figure: no code and no weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tenfold.core.config import require
from tenfold.core.loop import Loop
from tenfold.core.optim import Optim

from .semantics import Form


@dataclass(frozen=True)
class Image:
    """The tower of pictures: a grid of tokens, each a patch."""

    tower: Literal["swin", "vit"] = "swin"
    """swin: Swin transformer (paper), whose tokens are those of its last stage; vit: one grid."""
    size: int = 224
    """Side of the square pictures that the tower sees (paper: 224)."""
    patch: int = 4
    """Side of a patch of the first layer."""
    stem: Literal["patch", "conv"] = "patch"
    """First layer of a vit: one projection of each patch, or convolutions (Xiao et al. 2021), which
    need fewer pictures to see the same thing at another place (ours, small)."""
    dim: int = 192
    """Channels of the first stage (Swin-L: 192)."""
    depths: tuple[int, ...] = (2, 2, 18, 2)
    """Blocks of each stage; a vit has one."""
    heads: tuple[int, ...] = (6, 12, 24, 48)
    """Attention heads of each stage."""
    window: int = 7
    """Side of Swin's windows in tokens."""
    ratio: float = 4.0
    """Hidden channels of MLPs by channels."""
    weights: str = ""
    """Weights that the tower starts from (`transformers`' Swin); empty: random."""

    def __post_init__(self) -> None:
        require(self, "image.", "[1, 16384]", "size", "patch", "dim", "depths", "heads", "window")
        require(self, "image.", "(0, 64]", "ratio")
        is_power = self.patch >= 4 and not self.patch & (self.patch - 1)
        if self.stem == "conv" and not (self.tower == "vit" and is_power):
            raise ValueError(
                "--image.stem conv is for a vit whose --image.patch is a power of 2 from 4 on, got "
                f"{self.tower} with {self.patch}"
            )
        if self.tower == "vit" and len(self.depths) != 1:
            raise ValueError(f"a vit has one stage: give --image.depths one number, {self.depths}")
        if len(self.depths) != len(self.heads):
            raise ValueError(
                f"--image.depths {self.depths} and --image.heads {self.heads} are of each stage; "
                "give as many of both"
            )
        if self.size % self.stride:
            raise ValueError(
                f"--image.size {self.size} is no multiple of {self.stride}, a token's side in "
                "pixels; choose one"
            )

    @property
    def stride(self) -> int:
        """Pixels of a token's side."""
        return self.patch << (len(self.depths) - 1)

    @property
    def grid(self) -> int:
        """Tokens of a picture's side."""
        return self.size // self.stride


@dataclass(frozen=True)
class Text:
    """The tower of texts: BERT over words or word pieces."""

    tokens: Literal["words", "pieces"] = "pieces"
    """pieces: BERT's (paper); words: those of the training captions (ours), which are taken too
    where `pieces` names no file."""
    pieces: str = ""
    """File vocab.txt of BERT's word pieces."""
    vocabulary: str = ""
    """All tokens, one a line; filled in."""
    least: int = 1
    """Times that a word occurs in the training captions to be a token of its own."""
    most: int = 60
    """Tokens of a text, those of begin and end included; a longer text is cut."""
    dim: int = 512
    """Channels (BERT-small: 512)."""
    depth: int = 4
    """Layers (BERT-small: 4)."""
    heads: int = 8
    """Attention heads (BERT-small: 8)."""
    hidden: int = 2048
    """Hidden channels of MLPs (BERT-small: 2048)."""
    positions: int = 512
    """Places that the tower knows."""
    vector: Literal["pooler", "first", "mean"] = "pooler"
    """What of a text is projected to its vector: the first token behind BERT's pooler, as in the
    dual encoders of `transformers`; the first token; the mean of all tokens (ours, small)."""
    dropout: float = 0.0
    """Dropout in training."""
    weights: str = ""
    """Weights that the tower starts from (`transformers`' BERT); empty: random."""

    def __post_init__(self) -> None:
        require(self, "text.", "[1, inf)", "least", "dim", "depth", "heads", "hidden", "positions")
        require(self, "text.", "[3, inf)", "most")
        require(self, "text.", "[0, 1)", "dropout")
        if self.most > self.positions:
            raise ValueError(
                f"--text.most {self.most} is above the {self.positions} places of --text.positions"
            )


@dataclass(frozen=True)
class Games:
    """How interactions are found."""

    score: Literal["global", "contrast"] = "global"
    """global: cosine of the kept patches' sum with the text (ours; the paper does not say);
    contrast: log-share of the text among others of the batch."""
    texts: int = 64
    """Texts of the score `contrast`, its own included."""
    how: Literal["unsil", "sampled", "exact"] = "unsil"
    """unsil: predicted, and sampled where unsure (paper); sampled: always, in closed form; exact:
    all coalitions, up to 16 patches."""
    samples: int = 64
    """Coalitions of a region, an antithetic pair counted twice (ours)."""
    regions: int = 10
    """Regions of a picture (ours; the paper: the M most confident)."""
    overlap: float = 0.7
    """IoU above which the less confident of two regions is left out (ours)."""
    limit: float = 0.5
    """Predicted deviation, by that of interactions, above which a game is sampled (ours)."""
    share: float = 0.05
    """Part of the other games that is sampled nevertheless (ours)."""
    always: int = 500
    """First steps with games in which all are sampled (ours)."""

    def __post_init__(self) -> None:
        require(self, "games.", "[1, inf)", "regions")
        require(self, "games.", "[2, 4096]", "texts")
        require(self, "games.", "[4, 65536]", "samples")
        require(self, "games.", "[0, inf)", "limit", "always")
        require(self, "games.", "[0, 1]", "overlap", "share")
        if self.samples % 2:
            raise ValueError(f"--games.samples must be even (pairs), got {self.samples}")


@dataclass(frozen=True)
class Loss:
    """Losses beside the contrastive one, whose weight is 1; the weights of 0 are left out."""

    fine: float = 0.0
    """FILIP's contrastive loss of finest similarities: a control."""
    token: float = 1.0
    """L_TSA: confidences of regions learn from interactions of their patches (paper: 1)."""
    semantic: float = 1.0
    """L_FSA: shares of regions and phrases learn from their interactions (paper: 1)."""
    ramp: tuple[float, float] = (0.2, 0.4)
    """Shares of all steps between which the two weights rise from 0 (ours): interactions of a model
    that has not learned are noise."""
    target: Literal["right", "difference"] = "right"
    """right: interactions under the picture's own caption; difference: less the mean of those under
    other captions of the batch (ours)."""
    others: int = 3
    """Other captions of `difference`."""
    turned: bool = False
    """Take interactions with their sign turned (ours): patches of one object say the same, and
    their interaction is the lowest."""
    form: Form = "relu"
    """Soft labels of phrases: interactions above 0 by their sum, or a softmax of all (ours)."""
    temperature: float = 0.1
    """Of the softmax of regions over phrases (ours)."""
    boxes: Literal["soft", "drawn", "both", "none"] = "soft"
    """Way of a gradient to the boxes, which the paper leaves open; all are ours. soft: soft
    memberships of L_FSA; drawn: REINFORCE with sizes drawn and interactions as reward."""
    largest: float = 0.75
    """Area of a box, as a share of the picture, above which its interaction does not count."""
    clear: bool = True
    """Leave out pictures whose interactions differ by less than twice their standard errors."""

    def __post_init__(self) -> None:
        require(self, "loss.", "[0, inf)", "fine", "token", "semantic")
        require(self, "loss.", "[0, 1]", "ramp")
        require(self, "loss.", "[1, 64]", "others")
        require(self, "loss.", "(0, inf)", "temperature", "largest")
        if self.ramp[0] > self.ramp[1]:
            raise ValueError(f"--loss.ramp must rise, got {self.ramp[0]} to {self.ramp[1]}")

    @property
    def has_regions(self) -> bool:
        """Whether the region module is trained."""
        return bool(self.token or self.semantic)


@dataclass(frozen=True)
class Data:
    """Pictures with captions; phrases and boxes where there are any."""

    name: str = "emoji_scenes"
    """Set of the catalogue; folder: your own, at data.path; shapes: drawn by ourselves."""
    path: str = ""
    """Folder or file of the set; empty looks for $TENFOLD_DATA/<name>, then falls back to
    shapes."""
    batch_size: int = 128
    """Pairs of one optimiser step, over all processes."""
    generated: tuple[int, int] = (256, 64)
    """Pairs of `shapes` for training and for each other part."""
    hold: int = 1024
    """Megabytes of training pictures that are kept in memory once they are read."""
    classes: str = ""
    """Names of the classes of objects, one a line, of which `predict` takes the nearest where it
    is given no text; filled in."""
    test_every: int = 1
    """Every so manieth test pair is measured."""
    test_share: float = 0.2
    """Share of a set of your own that is not divided, for the test."""
    skip_broken: bool = False
    """Leave out what cannot be read or does not fit, counted and named, instead of stopping."""
    follow_links: bool = False
    """Follow symbolic links that lead out of the folder."""
    ignore_exif: bool = False
    """Take pictures as they are stored, without the turn that an EXIF note asks for."""

    def __post_init__(self) -> None:
        require(self, "data.", "[1, inf)", "batch_size", "generated", "test_every")
        require(self, "data.", "[0, inf)", "hold")
        require(self, "data.", "(0, 0.9)", "test_share")


@dataclass(frozen=True)
class Config:
    """Everything a run depends on."""

    image: Image = Image()
    text: Text = Text()
    dim: int = 256
    """Channels of the space that both towers are projected to (ours)."""
    games: Games = Games()
    loss: Loss = Loss()
    data: Data = Data()
    steps: int = 20_000
    """Optimiser steps (ours; the paper: 20 epochs of 240 million pairs)."""
    optim: Optim = Optim(
        lr=2e-4,
        betas=(0.9, 0.98),
        weight_decay=0.01,
        schedule="cosine",
        warmup=1000,
        floor=0.05,
        clip=1.0,
    )
    """Optimiser (paper: AdamW, 2e-4, decay 0.01, cosine)."""
    loop: Loop = Loop()
    seed: int = 0
    """Seed of weights, order of pairs and games."""
    start: str = ""
    """Run that training starts from."""
    allow_missing: bool = False
    """Start anew what the weights of `start` do not have, instead of refusing them."""

    def __post_init__(self) -> None:
        require(self, "", "[1, inf)", "steps", "dim")
        if self.loss.target == "difference" and self.games.score != "global":
            raise ValueError("--loss.target difference is for --games.score global alone")
        if self.games.how == "exact" and self.games.score != "global":
            raise ValueError("--games.how exact is for --games.score global alone")
        if self.games.how == "exact" and self.image.grid**2 > 16 and self.loss.has_regions:
            raise ValueError(
                f"--games.how exact takes up to 16 patches, a picture has {self.image.grid**2}; "
                "take sampled"
            )


@dataclass(frozen=True)
class PredictOptions:
    """Options of `tenfold predict` for a run of LOUPE."""

    caption: str = ""
    """Text that is asked of each picture; empty: the most similar names of the classes that the
    run knows."""
    regions: int = 5
    """Regions that are shown."""
    samples: int = 256
    """Coalitions of a region; more make smaller standard errors."""

    def __post_init__(self) -> None:
        if not 1 <= self.regions <= 64:
            raise ValueError(f"--regions must be in [1, 64], got {self.regions}")
        if not 4 <= self.samples <= 65536 or self.samples % 2:
            raise ValueError(f"--samples must be even and in [4, 65536], got {self.samples}")
