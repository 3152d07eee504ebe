"""Configuration of USAGE; every default has its source.

Of the paper the abstract, the overview figure and the repository's README could be read: what they
do not say is ours, and marked so. The README names PSA, SEAM and MCTformer for what is around the
two losses.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tenfold.core.config import require
from tenfold.core.loop import Loop
from tenfold.core.optim import Optim

from .backbones import Model
from .loss import Form, Over
from .networks import Precision
from .seeds import LAYERS, Rule

SetName = Literal[
    "coco_wsss", "clothing_parsing", "voc2012", "coco2014", "coco2017", "folder", "shapes_wsss"
]  # fmt: skip
Walk = Literal["none", "psa", "irn"]
Criterion = Literal[
    "activation", "total", "otsu", "otsu_picture", "edges", "stability", "confidence"
]
Choice = Literal["fixed", "swept", "validation", Criterion]
WITH_NETWORK = ("stability", "confidence")
"""Criteria that ask the seed network again."""

POWERS = ("low", "high", "power")
UNREAD: dict[Walk, tuple[str, ...]] = {
    "none": (
        *POWERS, "ground", "beta", "log2_steps", "radius", "batch_size", "view", "crop", "steps",
    ),
    "psa": ("ground",),
    "irn": POWERS,
}  # fmt: skip
"""Random walk -> the settings of `Refine` that it does not read."""


@dataclass(frozen=True)
class Data:
    """Pictures with labels of the whole picture, and how the seed network sees them."""

    name: SetName = "voc2012"
    """Set; shapes_wsss: drawn by ourselves; folder: your own pictures and their labels."""
    path: str = ""
    """Folder of the set, or of your own the table of labels (CSV: a picture's file, then its
    classes) beside the pictures; empty looks for $TENFOLD_DATA/<name>, then falls back to
    shapes_wsss."""
    seeds_path: str = ""
    """Folder of seeds that others made (.npz, or .npy of PSA, IRN and MCTformer), a file for each
    training picture; the seed network is not trained."""
    masks_path: str = ""
    """Folder of pseudo masks that others made (index PNG), a file for each training picture; the
    segmentation network alone is trained."""
    batch_size: int = 16
    """Pictures of one optimiser step of the seed network, over all processes (PSA: 16)."""
    view: Literal["whole", "crop", "inception"] = "crop"
    """Training view: the whole picture, brought to a square; a square of the picture at a random
    size (PSA, SEAM); a crop of random area and shape (MCTformer)."""
    crop: int = 448
    """Pixels of a side of the view (PSA, SEAM: 448; MCTformer: 224)."""
    longest: tuple[int, int] = (256, 512)
    """Longer side of pictures before the square is cut, drawn from this range (PSA: 256 512; SEAM:
    448 768)."""
    jitter: float = 0.3
    """Strength of brightness, contrast and saturation, and a third of it of hue (PSA: 0.3)."""
    rand_augment: bool = False
    """Random changes of colour and shape (MCTformer, by timm)."""
    holdout: float = 0.15
    """Share of the training pictures that are kept for validation, of which masks are looked at
    where there are some (ours); none where a folder names pictures for validation and the test."""
    test_share: float = 0.2
    """Share of a folder of your own that is not divided, that is for the test."""
    generated: tuple[int, int] = (60, 20)
    """Pictures that are drawn for training and for the test, where no set is found."""
    unlabelled: Literal["refuse", "skip", "keep"] = "refuse"
    """Training pictures without labels: an error, left out, or taken as background alone."""
    skip_broken: bool = False
    """Leave out what cannot be read or does not fit, with a warning, instead of stopping."""
    follow_links: bool = False
    """Follow symbolic links that lead out of the folder."""
    ignore_exif: bool = False
    """Take pictures as they are stored, without the turn that an EXIF note asks for."""
    limit: int = 0
    """Training pictures at most, evenly from the first to the last; 0 takes all."""
    features_gib: float = 4.0
    """Gibibytes of features of frozen stages that are kept on disk, for all runs together
    ($TENFOLD_CACHE); 0 keeps none. Only those of `whole` views without changes of colour are kept:
    others never come again."""

    def __post_init__(self) -> None:
        require(self, "data.", "[1, inf)", "batch_size", "crop", "longest", "generated")
        require(self, "data.", "[0, 1)", "jitter")
        require(self, "data.", "[0, 0.9)", "holdout")
        require(self, "data.", "(0, 0.9)", "test_share")
        require(self, "data.", "[0, inf)", "limit", "features_gib")
        if self.longest[0] > self.longest[1]:
            raise ValueError(f"data.longest {self.longest} must rise: the smallest size first")


@dataclass(frozen=True)
class Loss:
    """USAGE's two losses, and those of MCTformer."""

    tau_pos: float = 0.0
    """Temperature of the generation loss for the classes of a picture: above 0 concentrates a map,
    below 0 spreads it, 0 is the mean, the usual classifier of class activation maps. Its values
    could not be read; at 0.5 and more seeds fell apart (ours)."""
    tau_neg: float = 0.0
    """Temperature for the other classes (ours: the same)."""
    softmax_over: Over = "space"
    """The distribution alpha is over locations or over classes (the figure says spatial)."""
    detach: bool = False
    """No gradient goes through the weights of the pooling (the figure has no such stop)."""
    class_weight: float = 1.0
    """Weight of the loss of class tokens' own scores (MCTformer: 1)."""
    contrast_weight: float = 1.0
    """Weight of the contrast between class tokens (MCTformer+: 1; others have none)."""
    reg_weight: float = 0.0
    """Weight of the regularisation loss; off, as it cost seeds with a frozen backbone and is not
    shown to help where the last stage is trained (ours: claims/usage.md; start with 0.05)."""
    reg_form: Form = "kl"
    """Distance of student and teacher: divergence of the distributions, their squared difference,
    or the difference of maps by their largest value (the paper's could not be read)."""
    reg_ramp: bool = True
    """The weight is 0 for the first third, then rises over a sixth: a teacher that has learned
    nothing holds its student flat (ours)."""
    strong: float = 0.0
    """Share of units that every layer of the student drops (the figure: much; ours: 0.3 of
    channels, 0.2 of tokens)."""
    weak: float = 0.05
    """Share that the teacher drops (the figure: little; ours)."""
    adaptive: bool = True
    """Units that a layer relies on are dropped most ("self-adaptive"; ours)."""
    ema: float = 0.999
    """Decay of the teacher, the student's running average (ours; lower for short trainings)."""

    def __post_init__(self) -> None:
        require(self, "loss.", "[-10, 10]", "tau_pos", "tau_neg")
        require(self, "loss.", "[0, inf)", "class_weight", "contrast_weight", "reg_weight")
        require(self, "loss.", "[0, 1)", "strong", "weak", "ema")

    @property
    def has_teacher(self) -> bool:
        """True if the regularisation loss is a part of the loss."""
        return self.reg_weight > 0


@dataclass(frozen=True)
class Seeds:
    """Class activation maps of training pictures, from the trained seed network."""

    size: int = 0
    """Side of a square to which pictures are brought first; 0 keeps their shape and size (PSA;
    MCTformer: 224)."""
    scales: tuple[float, ...] = (0.5, 1.0, 1.5, 2.0)
    """Scales whose maps are added (PSA, SEAM, IRN; MCTformer: 1 alone)."""
    flip: bool = True
    """Add the maps of mirrored pictures (all peers)."""
    rule: Rule = "psa"
    """How maps of scales become one: psa (PSA, and SEAM's before its branch), irn, seam (SEAM's
    own, of its branch), or mctformer and mctformer-plus, with the attention of class tokens."""
    affinity: bool = True
    """Maps are spread by what patches attend to (MCTformer)."""
    precision: Precision = "float32"
    """Numbers that maps, and the labels of predictions, are computed in. bfloat16 takes half of the
    time or less where a processor multiplies such numbers (AVX512-BF16, AMX; benchmarks/usage.py),
    else more. Features of a frozen backbone that are kept on disk are float32."""
    network: Literal["student", "teacher"] = "student"
    """Network whose maps are taken; a teacher needs loss.reg_weight (ours: the student)."""

    def __post_init__(self) -> None:
        require(self, "seeds.", "[0, inf)", "size")
        require(self, "seeds.", "(0, 8]", "scales")
        if not self.scales:
            raise ValueError("seeds.scales is empty; 1 is the picture as it is")


@dataclass(frozen=True)
class Threshold:
    """The value a seed must have to be no background."""

    how: Choice = "total"
    """Choice: fixed; swept over the training pictures' masks, as papers do (it looks at what it is
    measured on); on the masks of the validation pictures; or by a criterion that looks at no mask:
    the mean activation, that of all classes together, Otsu's of each map or of each picture,
    agreement with a CRF's edges, stability under a mirror, or the classifier's confidence in the
    seed alone."""
    fixed: float = 0.3
    """Value of the choice `fixed`."""
    compare: tuple[Criterion, ...] = ("total", "activation", "otsu")
    """Criteria without masks that the evaluation sets against the best threshold; stability and
    confidence ask the seed network, and are left out where it is not trained."""
    pictures: int = 100
    """Pictures that a criterion looks at, at most, evenly from the first to the last; 0 takes all.
    """

    def __post_init__(self) -> None:
        require(self, "threshold.", "(0, 1)", "fixed")
        require(self, "threshold.", "[0, inf)", "pictures")


@dataclass(frozen=True)
class Refine:
    """Refinement of seeds to pseudo masks: a random walk, a dense CRF."""

    walk: Walk = "psa"
    """Random walk by what a network learns of affinities (psa) or boundaries (irn) in a stage of
    its own, on the maps of the seed network's stages; or none. Of convolutional networks."""
    crf: bool = False
    """Dense CRF behind the walk, or of the seeds beside a background of the threshold."""
    crf_pixels: int = 16_384
    """Pixels of the grid on which the CRF of larger pictures is solved (ours): its time grows with
    the square."""
    low: float = 4.0
    """Power of the background beside which a label is sure, for psa (PSA: 4; MCTformer: 1)."""
    high: float = 32.0
    """Power of the background that is sure, for psa (PSA: 32; MCTformer: 12)."""
    power: float = 16.0
    """Power of the background in PSA's walk (PSA: 16)."""
    ground: float = 0.25
    """Background beside the maps that IRN's walk makes, of the largest value (IRN: 0.25)."""
    beta: float = 8.0
    """Power of affinities (PSA: 8; IRN: 10)."""
    log2_steps: int = 8
    """The walk makes two to this many steps (PSA, IRN: 8)."""
    radius: int = 5
    """Cells within which pairs are learned and walked (PSA: 5; IRN: 10, then 5)."""
    batch_size: int = 8
    """Pictures of one step (PSA: 8)."""
    view: Literal["whole", "crop"] = "crop"
    """Training view: the whole picture, brought to a square, or crops."""
    crop: int = 448
    """Side of crops, or of whole views (PSA: 448)."""
    steps: int = 10_500
    """Steps of the stage (PSA: 8 epochs of VOC)."""

    def __post_init__(self) -> None:
        require(self, "refine.", "[1, inf)", "crf_pixels", "batch_size", "crop", "steps")
        require(self, "refine.", "(0, inf)", "low", "high", "power", "beta")
        require(self, "refine.", "(0, 1)", "ground")
        require(self, "refine.", "[2, 64]", "radius")
        require(self, "refine.", "[0, 12]", "log2_steps")
        if self.low > self.high:
            raise ValueError(f"refine.low {self.low:g} must not be above refine.high {self.high:g}")

    def require_read(self) -> None:
        """Refuse settings that were given beside a walk which does not read them.

        Not where a configuration is built: runs that were trained with such ones are opened.
        """
        for name in UNREAD[self.walk]:
            value = getattr(self, name)
            if value != getattr(Refine, name):
                walks = [f"--refine.walk {walk}" for walk in UNREAD if name not in UNREAD[walk]]
                raise ValueError(
                    f"refine.{name} is {value}, but refine.walk is {self.walk}, which does not "
                    f"read it. Leave it out, or add {' or '.join(walks)}."
                )


@dataclass(frozen=True)
class Segment:
    """The segmentation network that learns from pseudo masks."""

    labels: Literal["pseudo", "true"] = "pseudo"
    """Masks to learn from; the true ones are the ceiling."""
    encoder: Literal["seed", "mit", "resnet18", "resnet20"] = "seed"
    """Encoder: seed is the seed network's backbone, as it was before it learned seeds (the peers';
    they train all of it), mit is MiT-B0."""
    width: int = 0
    """Channels of a ResNet's first stage; 0 is the published."""
    head: Literal["deeplab", "segformer"] = "deeplab"
    """Head: DeepLab's (peers), or SegFormer's."""
    view: Literal["whole", "crop"] = "crop"
    """Training view: the whole picture, brought to a square, or crops of a random size."""
    size: int = 0
    """Longer side to which pictures are brought; 0 keeps theirs. Whole views need none."""
    crop: int = 321
    """Side of crops, or of whole views (MCTformer: 321)."""
    scales: tuple[float, float] = (0.7, 1.3)
    """Range of the random size (MCTformer)."""
    batch_size: int = 4
    """Pictures of one step (MCTformer: 4)."""
    steps: int = 79_000
    """Steps (MCTformer: 30 epochs of VOC); 0 ends with the pseudo masks."""
    test_scales: tuple[float, ...] = (1.0,)
    """Scales of the test whose probabilities are averaged (MCTformer: 0.5 0.75 1 1.25 1.5)."""
    flip: bool = True
    """Average with mirrored pictures in the test (MCTformer)."""
    crf: bool = False
    """Dense CRF in the test (MCTformer has it)."""

    def __post_init__(self) -> None:
        require(self, "segment.", "[1, inf)", "crop", "batch_size")
        require(self, "segment.", "[0, inf)", "steps", "size", "width")
        require(self, "segment.", "(0, 8]", "scales", "test_scales")
        if not self.test_scales:
            raise ValueError("segment.test_scales is empty; 1 is the picture as it is")


@dataclass(frozen=True)
class Config:
    """Everything a run depends on."""

    model: Model = Model()
    data: Data = Data()
    loss: Loss = Loss()
    seeds: Seeds = Seeds()
    threshold: Threshold = Threshold()
    refine: Refine = Refine()
    segment: Segment = Segment()
    steps: int = 9_900
    """Steps of the seed network (PSA: 15 epochs of VOC)."""
    optim: Optim = Optim(
        name="sgd", lr=0.1, momentum=0.0, weight_decay=5e-4, schedule="linear", power=0.9
    )
    """Optimiser of the seed network (PSA; what its code calls momentum is the schedule's power)."""
    refine_optim: Optim = Optim(
        name="sgd", lr=0.1, momentum=0.0, weight_decay=5e-4, schedule="linear", power=0.9
    )
    """Optimiser of the network of affinities (PSA)."""
    segment_optim: Optim = Optim(
        name="sgd", lr=7e-4, momentum=0.0, weight_decay=1e-5, schedule="linear", power=0.9
    )
    """Optimiser of the segmentation network (MCTformer)."""
    head_lr: float = 10.0
    """Factor on the learning rate of new layers (PSA: 10)."""
    classes: tuple[str, ...] = ()
    """Names of the classes without background; filled in from the data."""
    masked: tuple[str, ...] = ()
    """Splits that have masks to measure by; filled in from the data."""
    loop: Loop = Loop()
    seed: int = 0
    """Seed of weights, order of pictures, views and dropping."""
    start: str = ""
    """Weights that training starts from: a run, an ImageNet file or checkpoint of the backbone."""
    allow_missing: bool = False
    """Start anew what the weights of `start` do not have, instead of refusing them."""

    def __post_init__(self) -> None:
        require(self, "", "[1, inf)", "steps")
        require(self, "", "(0, inf)", "head_lr")
        if self.data.seeds_path and self.data.masks_path:
            raise ValueError(
                "data.seeds_path and data.masks_path are both given; masks need no seeds: leave "
                "one out"
            )
        if self.seeds.network == "teacher" and not self.loss.has_teacher:
            raise ValueError(
                "seeds.network is teacher, but without loss.reg_weight there is none; use "
                "--seeds.network student"
            )
        if self.threshold.how in WITH_NETWORK and self.data.seeds_path:
            raise ValueError(
                f"threshold.how {self.threshold.how} asks the seed network, which is not trained "
                "where data.seeds_path is given; use total, activation, otsu or edges"
            )
        if self.has_walk and not self.model.is_convolutional:
            raise ValueError(
                f"refine.walk is {self.refine.walk}, which stands on the stages of a convolutional "
                f"network, and model.name is {self.model.name}; use --refine.walk none"
            )
        if self.data.masks_path and self.segment.labels == "true":
            raise ValueError(
                f"data.masks_path is {self.data.masks_path}, but segment.labels is true, which "
                "learns from the set's own masks. Leave one out."
            )
        if self.data.masks_path and not self.segment.steps:
            raise ValueError("data.masks_path is given, but segment.steps is 0: nothing to train")
        has_tokens = not self.model.is_convolutional and self.model.name != "hivit"
        if self.seeds.rule in LAYERS and not has_tokens:
            raise ValueError(
                f"seeds.rule is {self.seeds.rule}, which needs attention that is not taken of "
                f"{self.model.name}; use psa or irn"
            )
        if self.seeds.rule == "seam" and not self.model.correlation:
            raise ValueError(
                "seeds.rule is seam, which needs SEAM's branch; give --model.correlation true and "
                "--start with a file of SEAM's, or use psa"
            )
        is_cut = self.segment.steps and self.segment.encoder == "seed"
        if is_cut and self.segment.crop % self.model.multiple:
            raise ValueError(
                f"segment.crop is {self.segment.crop}; {self.model.name} takes multiples of "
                f"{self.model.multiple} (or use another segment.encoder)"
            )
        if self.data.crop % self.model.multiple:
            raise ValueError(
                f"data.crop is {self.data.crop}; {self.model.name} takes multiples of "
                f"{self.model.multiple}"
            )

    @property
    def has_walk(self) -> bool:
        """True if there is a stage that learns affinities."""
        return self.refine.walk != "none" and not self.data.masks_path

    @property
    def is_seed_trained(self) -> bool:
        """False if others' seeds or masks are taken."""
        return not (self.data.seeds_path or self.data.masks_path)


@dataclass(frozen=True)
class PredictOptions:
    """Options of `tenfold predict` for a run of USAGE."""

    labels: str = ""
    """Table of the pictures' labels (CSV: a picture's file, then its classes); empty: labels are
    those that the classifier finds."""
    threshold: float = 0.0
    """Value a seed must have to be no background; 0 is the run's own."""
    sure: float = 0.5
    """Probability from which the classifier says that a class is there."""
    crf: bool = False
    """Dense CRF on the heat maps' masks."""
    shown: int = 24
    """Pictures on the page with the slider, at most."""

    def __post_init__(self) -> None:
        require(self, "", "[0, 1)", "threshold")
        require(self, "", "(0, 1)", "sure")
        require(self, "", "[1, 200]", "shown")
