"""Configuration of ViRReq; every default is the paper's or the authors' code's, with its source.

"official" is chufengt/ViRReq (whole-to-part-semantic-segmentation), which has the networks and the
losses; preparation of data, evaluation and weights were never published.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tenfold.core.config import require
from tenfold.core.loop import Loop
from tenfold.core.optim import Optim

from .text import Prompt

SetName = Literal["clothing_parsing", "car_parts", "cityscapes_parts", "ade20k_parts", "dolls"]
EncoderName = Literal["mit", "efficientnet-lite0"]
TextSource = Literal["clip", "table", "learned"]


@dataclass(frozen=True)
class Model:
    """The network of Type-I requests: an encoder, SegFormer's head, text classifier."""

    encoder: EncoderName = "mit"
    """mit: a Mix Transformer (official); efficientnet-lite0: a small convolutional network, which
    learns from few pictures if it starts from ImageNet's weights."""
    frozen: int = 0
    """Stages of efficientnet-lite0, from the first on, that are not trained."""
    dims: tuple[int, int, int, int] = (64, 128, 320, 512)
    """Channels of the four stages (official: MiT-B5; B0: 32 64 160 256)."""
    depths: tuple[int, int, int, int] = (3, 6, 40, 3)
    """Blocks of the stages (B0: 2 2 2 2)."""
    heads: tuple[int, int, int, int] = (1, 2, 5, 8)
    """Attention heads of the stages."""
    reductions: tuple[int, int, int, int] = (8, 4, 2, 1)
    """Factors by which attention shrinks keys and values along each side."""
    drop_path: float = 0.1
    """Largest stochastic depth, from 0 at the first block (official)."""
    head_dim: int = 256
    """Channels of the head (official: 256)."""
    dropout: float = 0.1
    """Dropout of whole channels before the cosines (official: 0.1)."""
    most_temperature: float = 100.0
    """Largest factor of the cosines, as CLIP has it; 0 has no limit (official)."""
    half: bool = False
    """Cosines in float16 (official on GPUs)."""

    def __post_init__(self) -> None:
        require(self, "model.", "[1, inf)", "dims", "depths", "heads", "reductions", "head_dim")
        require(self, "model.", "[0, 1)", "drop_path", "dropout")
        require(self, "model.", "[0, 6]", "frozen")
        if self.frozen and self.encoder == "mit":
            raise ValueError("model.frozen is of efficientnet-lite0; a Mix Transformer has 0")
        require(self, "model.", "[0, inf)", "most_temperature")
        for dim, heads in zip(self.dims, self.heads, strict=True):
            if dim % heads:
                raise ValueError(
                    f"model.dims {dim} cannot be divided by its model.heads {heads}; choose "
                    "multiples"
                )


@dataclass(frozen=True)
class Text:
    """Where the vectors of concepts come from."""

    source: TextSource = "clip"
    """clip: CLIP's text encoder (official: ViT-B/32); table: stored vectors of its words; learned:
    a vector a concept, trained with the network, which knows no other concepts."""
    prompt: Prompt = "raw"
    """raw: the bare name (official); a-name: "a {name}"; part-of-whole: "the {part} of a {whole}",
    which tells parts from wholes of the same word."""
    centred: bool = False
    """Without the mean of many words, which all vectors of texts share."""
    draw: bool = False
    """A concept of which a table has no word gets the mean of its parts or, without any, a
    direction of its own, instead of a refusal."""
    clip: str = ""
    """Weights of CLIP with its text encoder: OpenAI's .pt, or a file of transformers or open_clip.
    Heads and activation are read from config.json or open_clip_config.json beside it; without one
    they are OpenAI's (64 channels a head, QuickGELU)."""
    merges: str = ""
    """CLIP's bpe_simple_vocab_16e6.txt.gz; empty looks for $TENFOLD_DATA/clip_text."""
    table: str = ""
    """Stored vectors (.npz); empty looks for $TENFOLD_DATA/clip_text."""
    dim: int = 512
    """Numbers of a vector (CLIP ViT-B/32: 512); of files it is filled in."""
    space: str = ""
    """Name of what made the vectors; filled in. Those of two spaces are never mixed."""
    drawn: tuple[str, ...] = ()
    """Concepts that got a direction of their own; filled in."""

    def __post_init__(self) -> None:
        require(self, "text.", "[1, inf)", "dim")


@dataclass(frozen=True)
class Data:
    """Pictures with a label map, of which a knowledge base says what is part of what."""

    name: SetName = "clothing_parsing"
    """Set; dolls: drawn by ourselves."""
    path: str = ""
    """Folder of the set; empty looks for $TENFOLD_DATA/<name>, then falls back to dolls."""
    knowledge: str = ""
    """Knowledge base (JSON) in place of the set's own; its `codes` are numbers in the label
    maps."""
    batch_size: int = 8
    """Pictures of one optimiser step, over all processes."""
    crop: int = 512
    """Side of training crops (official: 512 on ADE20K, 1024 on Cityscapes Panoptic Parts)."""
    scales: tuple[float, float] = (0.5, 2.0)
    """Range of the random size of crops (official: 0.5 2.0)."""
    labelled: float = 1.0
    """Share of training pictures whose wholes are divided into parts; of the others only the first
    level is labelled (ours: incomplete labels)."""
    hidden: tuple[str, ...] = ()
    """Concepts whose labels training never sees (ours: new concepts)."""
    examples: int = 0
    """Train on so many pictures of each hidden concept alone, whose labels are all seen, instead of
    the whole set: for a run that starts from one without them (ours)."""
    generated: tuple[int, int] = (200, 40)
    """Pictures of dolls for training and for the test."""
    test_every: int = 1
    """Every so manieth test picture is measured."""
    skip_broken: bool = False
    """Leave out pictures and labels that cannot be read or do not fit, with a warning, instead of
    stopping. What turns out to be broken later is replaced by the next picture, and named."""
    follow_links: bool = False
    """Follow symbolic links that lead out of the folder, instead of refusing them."""
    ignore_exif: bool = False
    """Take pictures as they are stored, without the turn that an EXIF note asks for."""

    def __post_init__(self) -> None:
        require(self, "data.", "[1, inf)", "batch_size", "generated", "test_every")
        require(self, "data.", "[32, inf)", "crop")
        require(self, "data.", "(0, inf)", "scales")
        require(self, "data.", "[0, inf)", "examples")
        if self.examples and not self.hidden:
            raise ValueError(
                f"data.examples is {self.examples}, but data.hidden names no concept; name those "
                "that the examples show"
            )
        require(self, "data.", "[0, 1]", "labelled")


@dataclass(frozen=True)
class Loss:
    """Losses of Type-I requests (`loss.py`)."""

    groups: Literal["parent", "level"] = "level"
    """Concepts that are told apart together: all of a level (official: wholes, and parts of all
    wholes), or those of one whole."""
    others_weight: float = 0.01
    """Weight of unlabelled pixels of the first level (official: 0.01, on ADE20K 0.1); 0 ignores
    them, 1 takes them at their word."""
    part_others_weight: float = 0.01
    """The same of deeper levels (official: 0.01, on ADE20K 0.0001)."""
    part_weight: float = 3.0
    """Weight of the loss of each deeper group (official: 3, on ADE20K 1)."""
    outside: Literal["others", "ignore"] = "others"
    """Pixels outside of the wholes that a group divides: others (official), or not counted."""
    parts: Literal["all", "present", "complete"] = "all"
    """Parts that compete at a pixel: all of the group (official), those labelled anywhere on the
    same whole (official on ADE20K), or also all of its class where it is labelled completely."""

    def __post_init__(self) -> None:
        require(self, "loss.", "[0, inf)", "others_weight", "part_others_weight", "part_weight")


@dataclass(frozen=True)
class Separate:
    """The network of Type-II requests: CondInst with texts for classes."""

    network: Literal["resnet50", "small", "none"] = "resnet50"
    """Backbone (official: resnet50); none: regions of things are not separated into objects."""
    steps: int = 24_000
    """Steps of training (official: 24,000 on Cityscapes Panoptic Parts, 40,000 on ADE20K)."""
    batch_size: int = 8
    """Pictures of one optimiser step (official: 8, on ADE20K 16)."""
    proposals: int = 500
    """Places whose masks are trained in a batch (official: 500, on ADE20K 1000); 0 for all."""
    least: int = 16
    """Pixels of an object that counts (ours)."""

    def __post_init__(self) -> None:
        require(self, "separate.", "[1, inf)", "steps", "batch_size", "least")
        require(self, "separate.", "[0, inf)", "proposals")


@dataclass(frozen=True)
class Config:
    """Everything a run depends on."""

    model: Model = Model()
    text: Text = Text()
    data: Data = Data()
    loss: Loss = Loss()
    separate: Separate = Separate()
    separate_optim: Optim = Optim(
        name="sgd", lr=0.01, weight_decay=1e-4, schedule="step", milestones=(0.75,), warmup=1000
    )
    """Optimiser of the network of objects (official: SGD, 0.01, a tenth after three quarters)."""
    steps: int = 160_000
    """Steps of training of the division into concepts (official: 160,000)."""
    optim: Optim = Optim(
        lr=6e-5, weight_decay=0.01, schedule="linear", warmup=1500, ramp="product", ramp_floor=1e-6
    )
    """Optimiser (official: AdamW, 6e-5, linear to 0, mmcv's warm-up)."""
    head_lr: float = 10.0
    """Factor on the learning rate of head and classifier (official: 10)."""
    knowledge: str = ""
    """Knowledge base as JSON; filled in from the data."""
    loop: Loop = Loop()
    seed: int = 0
    """Seed of weights, order of pictures and crops."""
    start: str = ""
    """Weights that training starts from: a run, an official checkpoint, an ImageNet encoder."""
    allow_missing: bool = False
    """Start anew what the weights of `start` do not have, instead of refusing them."""

    def __post_init__(self) -> None:
        require(self, "", "[1, inf)", "steps")
        require(self, "", "(0, inf)", "head_lr")


@dataclass(frozen=True)
class PredictOptions:
    """Options of `tenfold predict` for a run of ViRReq."""

    depth: int = 2
    """Levels of concepts that are asked for from the whole picture down; 64 is all."""
    knowledge: str = ""
    """Knowledge base (JSON) whose concepts are asked for in place of the run's: those that the run
    does not know get their vectors from the run's source of texts."""
    request: str = ""
    """Requests of a file (JSON) in place of all: [{"unit", "kind", "names" | "probe"}, ...]."""
    panoptic: bool = True
    """Write COCO's panoptic format of the first level beside the trees."""
    parts: bool = True
    """Write the numbers of panoptic-parts (TIFF) of the first two levels, and their names (YAML);
    not of a knowledge base with more than 99 concepts side by side, for which it has no numbers."""

    def __post_init__(self) -> None:
        if not 1 <= self.depth <= 64:
            raise ValueError(f"--depth must be in [1, 64], got {self.depth}")


@dataclass(frozen=True)
class PageOptions:
    """Options of `tenfold serve` for a run of ViRReq."""

    knowledge: str = ""
    """Knowledge base (JSON) to begin with in place of the run's: the run's with more concepts, or
    more words for some. The file is read, and never written to."""
    who: str = ""
    """Name that is kept with what is said."""
    opened: int = 6
    """Pictures whose features are kept in memory."""

    def __post_init__(self) -> None:
        require(self, "", "[1, 1000]", "opened")
        if len(self.who) > 60:
            raise ValueError(f"--who is of {len(self.who)} characters, at most 60")
