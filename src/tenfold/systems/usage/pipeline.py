"""What lies between the stages: seeds and pseudo masks, as files.

One picture is in memory at a time; processes share the pictures.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from tenfold.core.divide import divided
from tenfold.data.images import cam_files
from tenfold.data.images.image_labels import Item, MultiLabelSet, read_image, read_mask
from tenfold.data.images.segmentation import read_labels
from tenfold.files import write_bytes
from tenfold.viz.overlays import label_png

from . import data, inference, pseudo, walking
from .config import Config
from .data import require_size
from .files import Kind, Work, digest_of_files
from .kept import prepared
from .model import UNSET, Networks
from .networks import SeedNetwork
from .seed_metrics import THRESHOLDS, Sweep

Maps = Float[Tensor, "class height width"]
LabelMap = UInt8[np.ndarray, "height width"]
MASK_ENDINGS = (".png",)
LOOKED_AT = 200
"""Files of others that are read before training, evenly from the first to the last."""
NUMBERS = 256
"""Colours of a palette that may hold 255, too: a smaller one is stored in fewer bits."""


class Pipeline:
    """Seeds and masks of a run's pictures, made when they are asked for."""

    def __init__(self, networks: Networks, cfg: Config, root: Path) -> None:
        self.networks, self.cfg, self.work = networks, cfg, Work(root)
        self.sets = data.open_sets(cfg.data)
        self._sweeps: dict[tuple[str, tuple[float, ...]], Sweep] = {}
        self.chosen = UNSET
        """Threshold of networks that have none of their own."""

    @property
    def threshold(self) -> float:
        """The value that a seed must have: the run's, or what `choices.choose` found."""
        known = float(self.networks.threshold)
        return self.chosen if known == UNSET else known

    @property
    def has_seeds(self) -> bool:
        """False where others' masks are taken."""
        return not self.cfg.data.masks_path

    def items(self, split: str) -> tuple[Item, ...]:
        """Pictures of a split."""
        return self.sets.split(split).items

    def require_given(self) -> None:
        """Look at the files of others before anything is trained.

        All must be there; up to LOOKED_AT are read.

        Raises:
            FileNotFoundError: A picture has none.
            ValueError: One is damaged, of another size, or holds a number of no class.
        """
        if not (self.cfg.data.seeds_path or self.cfg.data.masks_path):
            return
        items = self.items("train")
        if self.has_seeds and "validation" in self.cfg.masked:
            items += self.items("validation")  # their seeds are measured
        step = max(1, len(items) // LOOKED_AT)
        for row, item in enumerate(items):
            if self.cfg.data.masks_path:
                _given(Path(self.cfg.data.masks_path), item, MASK_ENDINGS)
            else:
                self._seed_file(item)
            if row % step == 0:
                found = self.seed(item).numpy() if self.has_seeds else self.pseudo_mask(item)
                require_size(found, read_image(item), item, "seeds" if self.has_seeds else "masks")

    # --- seeds ---------------------------------------------------------------------------------

    def make_seeds(self) -> None:
        """Write the activation maps of training and validation pictures."""
        if self.cfg.data.seeds_path:
            return
        items = self.items("train") + self.items("validation")
        network = prepared(self.networks.seed, self.cfg.seeds.precision)
        write = partial(self._write_seed, network)
        self.work.make("seeds", items, self._digest("seeds"), write)

    def _write_seed(self, network: SeedNetwork, item: Item, file: Path) -> None:
        maps = inference.seed_maps(network, self.cfg, read_image(item), item.labels)
        found = {label: maps[label].cpu().numpy() for label in item.labels}
        cam_files.write(file, found, {"rule": self.cfg.seeds.rule, "scales": self.cfg.seeds.scales})

    def seed(self, item: Item) -> Maps:
        """Activation maps of a picture in [0, 1]; those of absent classes are 0.

        Raises:
            ValueError: Others' file of it is missing, damaged, or of another size.
        """
        maps = torch.from_numpy(cam_files.read(self._seed_file(item), len(self.cfg.classes)))
        if not maps.shape[1]:  # of a picture without labels
            return torch.zeros(len(maps), *read_image(item).shape[:2])
        absent = torch.ones(len(maps), dtype=torch.bool)
        absent[list(item.labels)] = False
        maps[absent] = 0
        return maps.clamp(0, 1)

    def _seed_file(self, item: Item) -> Path:
        given = self.cfg.data.seeds_path
        return _given(Path(given), item, (".npz", ".npy")) if given else self._made("seeds", item)

    # --- threshold -----------------------------------------------------------------------------

    def sweep(self, split: str, beyond: Sequence[float] = ()) -> Sweep:
        """Seeds of a split against its masks, at every threshold, and at those `beyond`."""
        rises = tuple(sorted({*THRESHOLDS, *beyond}))
        if (split, rises) not in self._sweeps:
            self.make_seeds()
            self._sweeps[split, rises] = swept(self, self.sets.split(split), rises)
        return self._sweeps[split, rises]

    # --- sure labels ---------------------------------------------------------------------------

    def make_confident(self) -> None:
        """Write the labels that seeds are sure of, for the network of affinities."""
        self.make_seeds()
        digest = self._digest("confident")
        self.work.make("confident", self.items("train"), digest, self._write_confident)

    def _write_confident(self, item: Item, file: Path) -> None:
        picture, maps = read_image(item), self.seed(item)
        require_size(maps.numpy(), picture, item, "affinity")
        labels = walking.sure_labels(torch.from_numpy(picture.copy()), maps, self.cfg)
        write_bytes(file, label_png(labels.numpy(), NUMBERS))

    def confident(self, item: Item) -> LabelMap:
        """Labels that seeds are sure of: 0 background, 255 unsure."""
        return read_labels(self._made("confident", item))

    # --- masks ---------------------------------------------------------------------------------

    def make_masks(self) -> None:
        """Write the pseudo masks of the training pictures."""
        if self.cfg.data.masks_path:
            return
        self.make_seeds()
        write = partial(self._write_mask, self.threshold)
        self.work.make("masks", self.items("train"), self._digest("masks"), write)

    def _write_mask(self, threshold: float, item: Item, file: Path) -> None:
        picture, maps = read_image(item), self.seed(item)
        require_size(maps.numpy(), picture, item, "masks")
        image = torch.from_numpy(picture.copy())
        walker = self.networks.affinity
        if walker is None:
            scores = pseudo.with_threshold(maps, threshold)
        else:
            scores = walker.walked(picture, maps)
        if self.cfg.refine.crf:
            scores = pseudo.refined_by_crf(image, scores, self.cfg.refine.crf_pixels)
        labels = scores.argmax(0).byte().numpy()
        write_bytes(file, label_png(labels, len(self.cfg.classes) + 1))

    def pseudo_mask(self, item: Item) -> LabelMap:
        """The pseudo mask of a picture: 0 background, 255 does not count."""
        given = self.cfg.data.masks_path
        file = _given(Path(given), item, MASK_ENDINGS) if given else self._made("masks", item)
        labels = read_labels(file)
        most = int(labels[labels != pseudo.IGNORED].max(initial=0))
        if most > len(self.cfg.classes):
            raise ValueError(
                f"mask {file} holds label {most}, but there are {len(self.cfg.classes)} classes "
                "(0 is background, 255 is ignored); remap it"
            )
        return labels

    def true_mask(self, item: Item) -> LabelMap:
        """The true mask of a picture; nothing counts where there is none."""
        found = read_mask(item)
        if found is None:
            return np.full(read_image(item).shape[:2], pseudo.IGNORED, dtype=np.uint8)
        return found

    # --- files ---------------------------------------------------------------------------------

    def has_files(self, item: Item) -> bool:
        """True if seeds and mask of a training picture were made, or are others'."""
        own = self.cfg.data
        has_seeds = bool(own.seeds_path or own.masks_path) or self._made("seeds", item).is_file()
        return has_seeds and (bool(own.masks_path) or self._made("masks", item).is_file())

    def _made(self, kind: Kind, item: Item) -> Path:
        return self.work.file(kind, item)

    def _digest(self, kind: Kind) -> str:
        """What files of a kind follow from."""
        cfg = self.cfg
        if cfg.data.seeds_path:
            found = digest_of_files(None, cfg.data.name, cfg.data.path, cfg.data.seeds_path)
        else:
            found = digest_of_files(
                self.networks.seed, cfg.data.name, cfg.data.path, cfg.model, cfg.seeds
            )
        if kind == "confident":
            own = (cfg.refine.walk, cfg.refine.low, cfg.refine.high, cfg.refine.crf_pixels)
            return digest_of_files(None, found, *own)
        if kind == "masks":
            walker = self.networks.affinity
            of = (cfg.refine, self.threshold) if walker is None else (cfg.refine, cfg.start)
            return digest_of_files(walker, found, *of)
        return found


def swept(
    pipeline: Pipeline, some: MultiLabelSet, thresholds: Sequence[float] = THRESHOLDS
) -> Sweep:
    """Count the seeds of the pictures of a set that have masks."""
    items = [item for item in some.items if item.has_mask]
    total = Sweep(len(pipeline.cfg.classes) + 1, thresholds)

    def one(row: int) -> Tensor:
        sweep = Sweep(len(pipeline.cfg.classes) + 1, thresholds)
        truth, maps = read_mask(items[row]), pipeline.seed(items[row])
        assert truth is not None
        if maps.shape[1:] != truth.shape:  # of others' files but some were read before
            require_size(maps.numpy(), read_image(items[row]), items[row], "seeds")
        sweep.add(maps, torch.from_numpy(truth.copy()).long())
        return sweep.exceeded

    for counts in divided(len(items), one, "seeds against masks"):
        total.exceeded += counts
    return total


def _given(folder: Path, item: Item, endings: tuple[str, ...]) -> Path:
    """Others' file of a picture."""
    for ending in endings:
        file = folder / f"{item.name}{ending}"
        if file.is_file():
            return file
    raise FileNotFoundError(
        f"{folder} has no file {item.name}{' or '.join(endings)} for the picture {item.image}"
    )
