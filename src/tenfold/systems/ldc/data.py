"""From pictures to batches, and from pictures to features."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from tenfold.core import dist
from tenfold.core.epochs import Epochs
from tenfold.core.seed import generator
from tenfold.core.system import DataUsed
from tenfold.data import catalog
from tenfold.data.images import augment, fscil, fscil_open
from tenfold.data.images.decode import ENDINGS, Reading
from tenfold.data.images.folders import photos_below
from tenfold.generated import shapes

from . import encoders, official
from .config import Config, Data
from .recipes import RECIPES

COMPACT = "tiny_imagenet_fscil"


def find(data: Data) -> Path | None:
    """The folder of the data, or None where it is not there; a path that was given must exist."""
    if data.name == "shapes":
        return None
    if data.name == "folder":  # pictures of the user's own, which no catalogue knows
        if not data.path:
            raise ValueError("data.name is folder; say where the pictures are: --data.path FOLDER")
        if not Path(data.path).is_dir():
            raise FileNotFoundError(f"data.path {data.path} is not a folder")
        return Path(data.path)
    return catalog.find(data.name, data.path)


def read(data: Data, seed: int) -> fscil.Protocol:
    """The pictures and the protocol of a configuration."""
    if data.name == "shapes":
        return shapes.protocol(base=data.base, way=data.way, shot=data.shot, draws=data.draws)
    folder = find(data) or catalog.find_or_explain(data.name)
    return fscil_open.read(
        data.name, folder, size=data.size, base=data.base, way=data.way, shot=data.shot,
        draws=data.draws, test_share=data.test_share, seed=seed, reading=reading_of(data),
    )  # fmt: skip


def reading_of(data: Data) -> Reading:
    """The choices about reading."""
    return Reading(data.skip_broken, data.follow_links)


def complete(cfg: Config) -> Config:
    """Choose the data (generated where none is found), the protocol's numbers and the classes."""
    cfg = with_encoder(cfg)
    data = cfg.data
    if data.path and data.name == COMPACT and not (Path(data.path) / "test.npz").exists():
        data = replace(data, name="folder")  # what the small recipes take is no folder of folders
    folder = find(data)
    if folder is None and data.name != "shapes":  # a protocol of its own
        data = replace(data, name="shapes", size=0, base=0, way=0, shot=0)
    if cfg.transformer.dim and data.name not in fscil.FIXED and not data.size:
        data = replace(data, size=cfg.transformer.input)  # so that pictures are resized once
    if cfg.classes:
        return replace(cfg, data=data)
    if folder is None:
        classes = shapes.describe(base=data.base, way=data.way)
    else:
        classes = fscil_open.describe(
            data.name, folder, base=data.base, way=data.way, reading=reading_of(data)
        )
    numbers, _ = fscil.choose(data.name, len(classes), data.base, data.way)
    return replace(
        cfg,
        data=replace(data, base=numbers.base, way=numbers.way, shot=data.shot or numbers.shot),
        classes=classes,
    )


def with_encoder(cfg: Config) -> Config:
    """The configuration with kind and sizes of the transformer whose weights it names."""
    if not cfg.encoder:
        return cfg
    kind, sizes = encoders.describe(Path(cfg.encoder), cfg.transformer)
    if not kind:
        return cfg
    model = replace(cfg.model, kind="vit" if kind == "vit" else "hivit")
    return replace(cfg, model=model, transformer=sizes)


OFFICIAL_COUNTS = {"cifar100": 500, "mini_imagenet": 500, "cub200": 30}
"""Training pictures of a base class of the public benchmarks."""


def of_official(size: official.Size) -> Config:
    """The configuration that an official checkpoint belongs to, judging by its shapes."""
    recipe = "paper"
    if size.kind == "resnet18":
        recipe = "cub200" if size.num_classes > 150 else "mini-imagenet"
    cfg = RECIPES[recipe]
    own = fscil.OWN[cfg.data.name]
    total = own.base + own.sessions * own.way
    names = tuple(f"class {i}" for i in range(total))
    if catalog.find(cfg.data.name) is not None:
        names = fscil_open.describe(cfg.data.name)
    conv = replace(cfg.calibration, head="conv")
    return replace(
        cfg,
        model=replace(cfg.model, width=size.width),
        data=replace(cfg.data, base=min(own.base, size.num_classes), size=0),
        classes=names,
        calibration=conv if size.has_head else cfg.calibration,
    )


def used(data: Data) -> DataUsed:
    """Name and kind of the data that a result rests on."""
    if data.name == "shapes":
        return DataUsed("shapes", "generated", "drawn shapes of our own", "MIT")
    licence = "your own" if data.name == "folder" else catalog.entry(data.name).licence
    note = f"{data.base} base classes, then {data.way} new ones at a time, {data.shot} photos each"
    return DataUsed(data.name, "real", note if data.way else f"{data.base} classes", licence)


@dataclass(frozen=True)
class Encoded:
    """Features and labels of some pictures."""

    features: Float[Tensor, "image dim"]
    labels: Int[Tensor, " image"]


class Images:
    """The pictures of one configuration: read when first needed."""

    def __init__(self, cfg: Config) -> None:
        self.cfg = cfg

    @cached_property
    def protocol(self) -> fscil.Protocol:
        """Pictures, labels, sessions."""
        protocol = read(self.cfg.data, self.cfg.seed)
        if protocol.classes != self.cfg.classes:
            raise ValueError(
                f"the data has other classes than this run: {len(protocol.classes)} of "
                f"{self.cfg.data.name} against {len(self.cfg.classes)}"
            )
        return protocol

    @cached_property
    def held(self) -> Int[np.ndarray, " image"]:
        """Rows of the training pictures kept for validation: the last of each class."""
        return self._split[1]

    @cached_property
    def kept(self) -> Int[np.ndarray, " image"]:
        """Rows of the training pictures to train on."""
        return self._split[0]

    @cached_property
    def _split(self) -> tuple[np.ndarray, np.ndarray]:
        labels = self.protocol.train.labels.numpy()
        kept, held = [], []
        for label in range(self.protocol.base):
            rows = np.flatnonzero(labels == label)
            count = round(len(rows) * self.cfg.data.holdout)
            kept.append(rows[: len(rows) - count])
            held.append(rows[len(rows) - count :])
        return np.sort(np.concatenate(kept)), np.sort(np.concatenate(held))

    @cached_property
    def epochs(self) -> Epochs:
        """Rows of the kept pictures for each batch of base training."""
        return Epochs(len(self.kept), self.cfg.data.batch_size, self.cfg.seed)

    def batch(self, index: int) -> dict[str, Tensor]:
        """Micro-batch `index` of base training, this process's rows of it."""
        data, pictures = self.cfg.data, self.protocol.train
        rows = torch.from_numpy(self.kept[self.epochs.rows(index)])
        # drawn for the whole batch, so that any number of processes sees the same pictures
        draw = generator(self.cfg.seed, "augment", index)
        images = self.protocol.view.train_source(pictures.images[rows])
        side = self.protocol.view.size
        if data.augment == "crop" and images.shape[-1] == side:
            images = augment.crop(images, side // 8, draw)
        else:
            images = augment.resized_crop(images, side, draw)
        images, turns = augment.flip(images, draw), torch.zeros(len(rows), dtype=torch.int64)
        if data.rotations:
            turns = torch.randint(4, (len(rows),), generator=draw)
            for turn in (1, 2, 3):
                images[turns == turn] = images[turns == turn].rot90(turn, (2, 3))
        if data.colour:
            images = augment.colour(images, data.colour, draw)
        mine = dist.current().share(data.batch_size)
        normalised = self.protocol.view.normalise(images[mine])
        return {
            "images": normalised.contiguous(memory_format=torch.channels_last),
            "labels": pictures.labels[rows][mine],
            "turns": turns[mine],
        }

    @cached_property
    def view(self) -> fscil.View:
        """The way from a picture to the network's input; no picture is read."""
        return view_of(self.cfg)


def view_of(cfg: Config) -> fscil.View:
    """The way from a held picture to the network's input, in the colours that the encoder wants."""
    view = fscil.view(cfg.data.name, cfg.data.size)
    if cfg.model.kind not in ("vit", "hivit"):
        return view
    mean, std = encoders.COLOURS[cfg.transformer.normalise]
    return replace(view, mean=mean, std=std)


@dataclass(frozen=True)
class NewClass:
    """Photos of a class to learn."""

    folder: Path
    files: list[Path]

    def deeper(self) -> dict[str, int]:
        """Sub-folder -> photos in it and below; they belong to the class too."""
        below = [file.relative_to(self.folder).parts for file in self.files]
        return dict(Counter(parts[0] for parts in below if len(parts) > 1))


def new_classes(inputs: Path, name: str) -> dict[str, NewClass]:
    """Class name -> photos, of a folder of photos or of a folder of class folders.

    Photos of a class may lie in sub-folders of its folder. A few photos beside several folders of
    photos could be either, and are refused without a name.
    """
    if not inputs.is_dir():
        raise FileNotFoundError(f"{inputs} is not a folder; give a folder of photos")
    below = [item for item in inputs.iterdir() if item.is_dir() and item.name[0] != "."]
    loose = [
        item
        for item in inputs.iterdir()  # hidden ones are none, as below it
        if item.suffix.lower() in ENDINGS and item.name[0] != "." and item.is_file()
    ]
    if loose or not below:
        one = NewClass(inputs, photos_below(inputs))
        inside = one.deeper()
        if len(loose) < len(inside) and not name:
            raise ValueError(
                f"{inputs} holds {len(loose)} photos ({loose[0].name}, ...) beside {len(inside)} "
                f"folders of photos ({', '.join(sorted(inside)[:3])}, ...). If these are classes, "
                "move the loose photos away; if all is one class, name it with --name"
            )
        return {name or inputs.name: one}
    if name:
        raise ValueError(
            f"--name names one class, but {inputs} holds class folders, whose names count"
        )
    return {one.name: NewClass(one, photos_below(one)) for one in sorted(below)}


def notes_on(classes: Mapping[str, NewClass]) -> tuple[str, ...]:
    """Remarks on the photos that were given: single ones, and those of sub-folders."""
    alone = [name for name, one in classes.items() if len(one.files) == 1]
    few = "only one photo, so its mean is a guess; five are what the method was made for"
    notes = [f"{', '.join(alone)}: {few}"] if alone else []
    for name, one in classes.items():
        if deep := one.deeper():
            which = ", ".join(f"{folder} ({count})" for folder, count in deep.items())
            notes.append(f"{name}: {sum(deep.values())} photos are of sub-folders: {which}")
    return tuple(notes)


def notes(cfg: Config) -> list[str]:
    """Protocol, draws and memory: notes for the reader of a result."""
    data = cfg.data
    lines = [
        f"{data.base} base classes; accuracy after a session is over the test pictures of all "
        "classes seen by then, with class vectors from features, not the trained classifier",
    ]
    if data.way:
        draws = f"mean of {data.draws} draws of the photos" if data.draws > 1 else "one draw"
        sessions = (len(cfg.classes) - data.base) // data.way
        lines.append(f"{sessions} sessions of {data.way} classes, {data.shot} photos each; {draws}")
    if cfg.head == "ldc":
        settings = cfg.calibration
        kept = "and fixed samples of each class" if settings.fixed_samples else "and nothing else"
        lines.append(f"LDC keeps a vector and a mean a class, one covariance, the unit, {kept}")
    return lines
