"""Configuration of APIS; every default has its source.

Of the paper the abstract could be read; what is said of training is by the official scripts and
configurations (chufengt/APIS), which change AdelaiDet. What they do not say is marked "ours".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tenfold.core.config import require
from tenfold.core.loop import Loop
from tenfold.core.optim import Optim
from tenfold.data.images.exchange import Format

from .strategies import Measure, Strategy

SetName = Literal[
    "coco2017", "clothing_parsing", "car_parts", "nuclei_dsb2018", "coco_tiny", "folder", "hollows"
]  # fmt: skip
Kind = Literal["mask", "box", "box+points", "points"]
Committee = Literal["locations", "flip", "dropout"]


@dataclass(frozen=True)
class Model:
    """CondInst: FCOS, a mask branch, and a mask head whose parameters each location predicts."""

    backbone: Literal["resnet50", "efficientnet-lite0", "small"] = "resnet50"
    """Backbone: ResNet-50, EfficientNet-Lite0 (ours), or four stages with group norm (ours)."""
    frozen_stages: int = 0
    """Stages of EfficientNet-Lite0 that stay as they were, from the stem on; 6 are all. Its norms
    stay wherever training has a start."""
    widths: tuple[int, ...] = ()
    """Channels of the small backbone's stages, or of a ResNet's stem; empty: the usual ones."""
    depths: tuple[int, ...] = ()
    """Blocks of a ResNet's stages; empty: the published ones."""
    channels: int = 256
    """Channels of the feature pyramid and of the towers (AdelaiDet)."""
    groups: int = 32
    """Groups of the group norms (AdelaiDet)."""
    convs: int = 4
    """Convolutions of each tower (AdelaiDet)."""
    bounds: tuple[int, ...] = (64, 128, 256, 512)
    """Pixels from the centre of an object to its farthest side up to which it is found on the
    first level, the second, ... (AdelaiDet); there is one level more."""
    branch: int = 128
    """Channels of the mask branch (AdelaiDet)."""
    branch_convs: int = 4
    """Convolutions of the mask branch behind the sum of levels (AdelaiDet)."""
    mask_channels: int = 8
    """Channels of its result: 8 make 169 parameters an object (CondInst), 16 make 233 (BoxInst)."""
    proposals: int = 500
    """Locations of a process's batch that make masks in training, at random (CondInst)."""
    per_picture: int = 0
    """The same of a picture, the best of each object (BoxInst has 64); give proposals 0 with it."""

    def __post_init__(self) -> None:
        require(self, "model.", "[1, inf)", "channels", "groups", "bounds", "branch")
        require(self, "model.", "[1, inf)", "mask_channels", "widths", "depths")
        require(self, "model.", "[0, 6]", "frozen_stages")
        require(self, "model.", "[0, inf)", "convs", "branch_convs", "proposals", "per_picture")
        if len(self.bounds) < 2:
            raise ValueError(f"model.bounds {self.bounds} are of three levels at least: give two")


@dataclass(frozen=True)
class Data:
    """Pictures with objects, and how the network sees them."""

    name: SetName = "coco2017"
    """Set; hollows: drawn by ourselves; folder: your own pictures with a file of COCO's form."""
    path: str = ""
    """Folder of the set; empty looks for $TENFOLD_DATA/<name>, then falls back to hollows."""
    points_path: str = ""
    """File of COCO's form with points (PointSup's layout, as `tenfold serve` exports it), of the
    training pictures: its answers are trained on from the beginning."""
    points_masks: bool = False
    """Objects that have a mask in `points_path`, too, learn from it (ours)."""
    batch_size: int = 16
    """Pictures of one optimiser step, over all processes (official)."""
    short_sides: tuple[int, ...] = (640, 672, 704, 736, 768, 800)
    """Shorter side of training pictures, one of these at random (official)."""
    test_side: int = 800
    """Shorter side in selection, test and use (official)."""
    longest: int = 1333
    """Longer side at most (official)."""
    flip: bool = True
    """Mirror half of the training pictures (official)."""
    one_class: bool = False
    """Take all objects for one class, so that masks are measured rather than recognition (ours)."""
    least: int = 1
    """Objects with fewer pixels are left out of the training set (ours)."""
    limit: int = 0
    """Training pictures at most, evenly from the first to the last; 0 takes all."""
    test_limit: int = 0
    """Test pictures at most, in the same way."""
    test_share: float = 0.2
    """Share of a folder that is not divided, for the test."""
    generated: tuple[int, int] = (60, 20)
    """Pictures that are drawn for training and for the test, where no set is found."""
    skip_broken: bool = False
    """Leave out what cannot be read or does not fit, with a warning, instead of stopping."""
    follow_links: bool = False
    """Follow symbolic links that lead out of the folder."""
    ignore_exif: bool = False
    """Take pictures as they are stored, without the turn that an EXIF note asks for."""

    def __post_init__(self) -> None:
        require(self, "data.", "[1, inf)", "batch_size", "least", "generated")
        require(self, "data.", "[32, 4096]", "short_sides", "test_side", "longest")
        require(self, "data.", "[0, inf)", "limit", "test_limit")
        require(self, "data.", "(0, 0.9)", "test_share")
        if not self.short_sides:
            raise ValueError("data.short_sides is empty; give one length or more")
        if self.points_masks and not self.points_path:
            raise ValueError("data.points_masks is of data.points_path, which is not given")


@dataclass(frozen=True)
class Loss:
    """What masks learn from, and the weights of the losses."""

    supervision: Kind = "box+points"
    """What is known of every object: its mask, its box alone, box and points (ours), or points
    alone, as the published configurations train (its box is for detection only)."""
    masked_share: float = 0.0
    """Share of the objects, at random, of which the mask is known all the same (ours)."""
    point_weight: float = 0.1
    """Weight of the point loss in the first stage (official)."""
    point_weight_later: float = 1.0
    """Weight of the point loss in the rounds (official)."""
    warmup: int = 10_000
    """Steps of the first stage over which the weight of the pairwise loss rises to 1 (BoxInst)."""
    bottom: int = 10
    """Rows at the lower end of pictures whose colours do not count (BoxInst on COCO)."""

    def __post_init__(self) -> None:
        require(self, "loss.", "[0, 1]", "masked_share")
        require(self, "loss.", "[0, inf)", "point_weight", "point_weight_later", "bottom")
        require(self, "loss.", "[0, inf)", "warmup")


@dataclass(frozen=True)
class Points:
    """Which pixels are asked about."""

    rounds: int = 9
    """Rounds of answers and training after the first stage (official: points 2 to 10)."""
    initial: int = 1
    """Random points of each object in the first stage (official)."""
    strategy: Strategy | Literal["none"] = "entropy"
    """How a pixel is chosen: entropy is the paper's, random its baseline; none asks nothing."""
    committee: Committee = "locations"
    """Predictions that are combined: those of all positive locations of an object (official),
    with those of the mirrored picture, or with features dropped at random (ours)."""
    members: int = 4
    """Passes of the committee `dropout`."""
    drop: float = 0.1
    """Share of the pyramid's channels that each of these passes drops."""
    measure: Measure = "entropy"
    """Uncertainty that boundary, topk_random and diverse stand on."""
    share: float = 0.1
    """Share of the box's pixels, the most uncertain ones, of which topk_random takes one."""
    near: float = 2.0
    """Pixels from the border of the mask within which boundary asks."""
    per_object: int = 1
    """Answers of an object in a round (official: 1)."""
    per_image: int = 0
    """Answers of a picture in a round, at most, its most uncertain objects first; 0: no limit."""
    total: int = 0
    """Answers of a round, at most, the most uncertain objects of all first; 0: no limit."""
    ties: Literal["first", "drawn"] = "first"
    """Of equally uncertain pixels the first by rows, or any of them (official)."""
    seed: int = 12345
    """Seed of the random points (PointSup's generator)."""

    def __post_init__(self) -> None:
        require(self, "points.", "[0, 100]", "rounds", "initial", "per_object")
        require(self, "points.", "[0, inf)", "per_image", "total", "seed")
        require(self, "points.", "[1, 64]", "members")
        require(self, "points.", "(0, 1]", "share")
        require(self, "points.", "(0, inf)", "near")
        require(self, "points.", "[0, 1)", "drop")


@dataclass(frozen=True)
class Oracle:
    """Who answers in a run: the true masks, as well as people do; and what answers cost."""

    noise: float = 0.0
    """Share of answers that are wrong (ours)."""
    not_sure: float = 0.0
    """Pixels from the border of an object within which the answer is "not sure" (ours)."""
    skip: float = 0.0
    """Share of questions that are skipped (ours)."""
    seconds_point: float = 0.9
    """Seconds of an answer, stated, not measured (PointSup's figure, from memory)."""
    seconds_box: float = 7.0
    """Seconds of a box, stated (PointSup)."""
    seconds_mask: float = 79.2
    """Seconds of a polygon, stated (COCO, by the paper's abstract)."""

    def __post_init__(self) -> None:
        require(self, "oracle.", "[0, 1]", "noise", "skip")
        require(self, "oracle.", "[0, 1000]", "not_sure")
        require(self, "oracle.", "[0, inf)", "seconds_point", "seconds_box", "seconds_mask")


@dataclass(frozen=True)
class Detection:
    """What counts as found."""

    score: float = 0.05
    """Least product of class and centre scores (AdelaiDet)."""
    before: int = 1000
    """Candidates of a level before suppression (AdelaiDet)."""
    overlap: float = 0.6
    """Overlap above which the weaker of two goes (AdelaiDet)."""
    most: int = 100
    """Objects of a picture (AdelaiDet)."""

    def __post_init__(self) -> None:
        require(self, "detection.", "[0, 1]", "score", "overlap")
        require(self, "detection.", "[1, inf)", "before", "most")


@dataclass(frozen=True)
class Config:
    """Everything a run depends on."""

    model: Model = Model()
    data: Data = Data()
    loss: Loss = Loss()
    points: Points = Points()
    oracle: Oracle = Oracle()
    detection: Detection = Detection()
    steps: int = 90_000
    """Steps of the first stage (official "1x"); 0: it is what the run starts from."""
    round_steps: int = 30_000
    """Steps of each round (official)."""
    optim: Optim = Optim(
        name="sgd",
        lr=0.01,
        momentum=0.9,
        weight_decay=1e-4,
        schedule="step",
        milestones=(60 / 90, 80 / 90),
        warmup=1000,
        ramp="product",
        ramp_floor=0.001,
    )
    """Optimiser of the first stage (official)."""
    round_optim: Optim = Optim(
        name="sgd",
        lr=0.01,
        momentum=0.9,
        weight_decay=1e-4,
        schedule="step",
        milestones=(10 / 30, 20 / 30),
        warmup=1000,
        ramp="product",
        ramp_floor=0.001,
    )
    """Optimiser of the rounds (official)."""
    classes: tuple[str, ...] = ()
    """Names of the classes; filled in from the data."""
    is_masked: bool = True
    """Whether test pictures have masks to measure by; filled in from the data."""
    loop: Loop = Loop()
    seed: int = 0
    """Seed of weights, order of pictures, views, and of what is drawn in selection."""
    start: str = ""
    """Weights that training starts from: a run, an official checkpoint, an ImageNet ResNet-50."""
    allow_missing: bool = False
    """Start anew what the weights of `start` do not have, instead of refusing them."""

    def __post_init__(self) -> None:
        require(self, "", "[0, inf)", "steps", "round_steps")
        own = self.loss
        if self.asks and own.supervision in ("mask", "box"):
            raise ValueError(
                f"loss.supervision is {own.supervision}, which learns from no point; use "
                "--points.strategy none --points.initial 0, or box+points"
            )
        if own.supervision == "points" and not self.asks and not self.data.points_path:
            raise ValueError(
                "loss.supervision is points, but no point is asked for; set points.initial, or "
                "data.points_path"
            )

    @property
    def asks(self) -> bool:
        """True if pixels are asked about."""
        own = self.points
        is_asked = own.rounds > 0 and own.strategy != "none" and own.per_object > 0
        return own.initial > 0 or is_asked


@dataclass(frozen=True)
class PredictOptions:
    """Options of `tenfold predict` for a run of APIS."""

    score: float = 0.3
    """Least score of an object that is written."""
    most: int = 100
    """Objects of a picture, at most."""
    shown: int = 24
    """Pictures on the page, at most."""

    def __post_init__(self) -> None:
        require(self, "", "[0, 1]", "score")
        require(self, "", "[1, 2000]", "most")
        require(self, "", "[1, 200]", "shown")


@dataclass(frozen=True)
class PageOptions:
    """Options of `tenfold serve` for a run of APIS."""

    strategy: Strategy = "diverse"
    """How a pixel is chosen; diverse keeps away from what was asked before."""
    visit: int = 3
    """Questions about an object before the next one has its turn."""
    boxes: str = ""
    """File with objects to begin with, of COCO's form (masks, points, or boxes alone)."""
    form: Format = "coco"
    """Tool that wrote `boxes`, if it is of another form (labelme, x_anylabeling: a folder)."""
    encoder: str = ""
    """ONNX encoder of a promptable segmenter that makes the masks in place of the run's network."""
    decoder: str = ""
    """Its decoder."""
    who: str = ""
    """Name that answers are kept under."""
    opened: int = 6
    """Pictures whose features are kept in memory."""
    ahead: bool = True
    """Look at objects that nobody has asked for while nothing else is to be done."""

    def __post_init__(self) -> None:
        require(self, "", "[1, 1000]", "visit", "opened")
        if bool(self.encoder) != bool(self.decoder):
            raise ValueError("give both --encoder and --decoder, or neither")
        if len(self.who) > 60:
            raise ValueError(f"--who is of {len(self.who)} characters, at most 60")
