"""One picture through the network: objects, and the predictions of given ones; no files."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float32, UInt8
from torch import Tensor

from tenfold.core.seed import generator
from tenfold.data.images.scene_views import channels_first, resized, size_for
from tenfold.metrics import ap
from tenfold.nn import fcos
from tenfold.nn.boxes import clip_to
from tenfold.nn.condinst import CondInst, Encoded, Queries
from tenfold.structures import Instances

from .config import Config
from .enlarge import enlarged
from .strategies import Pixels, pixel_box

MOST_MASKS = 2**30
"""Bytes of the masks of one picture."""
Rgb = UInt8[np.ndarray, "_ _ 3"]
Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Seen:
    """A picture behind all that costs much."""

    encoded: Encoded
    outputs: fcos.HeadOutputs
    size: tuple[int, int]
    """Height and width of the picture."""
    resized: tuple[int, int]
    """Height and width as the network saw it."""
    is_flipped: bool = False
    """The network saw it mirrored."""

    @property
    def factors(self) -> tuple[float, float]:
        """From x and y of the picture to those that the network saw."""
        return self.resized[1] / self.size[1], self.resized[0] / self.size[0]


@torch.no_grad()
def see(network: CondInst, cfg: Config, picture: Rgb, is_flipped: bool = False) -> Seen:
    """Bring a picture to the test's size and encode it."""
    height, width = picture.shape[:2]
    size = size_for(height, width, cfg.data.test_side, cfg.data.longest)
    x = channels_first(resized(picture[:, ::-1] if is_flipped else picture, *size))
    device = next(network.parameters()).device
    encoded = network.encode(x[None].to(device).float())
    return Seen(encoded, network.head(encoded), (height, width), size, is_flipped)


# --- detection -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Found:
    """An object that was found, with its mask in the whole pixels of its box."""

    box: Box
    label: int
    score: float
    pixels: Pixels
    mask: np.ndarray

    def whole(self, size: tuple[int, int]) -> np.ndarray:
        """The mask of the picture."""
        found = np.zeros(size, dtype=bool)
        x0, y0, x1, y1 = self.pixels
        found[y0:y1, x0:x1] = self.mask
        return found


@torch.no_grad()
def objects_of(network: CondInst, seen: Seen, score: float = 0.0, most: int = 0) -> list[Found]:
    """Objects of a picture, best first; outside of its box a mask has no pixel (PointSup)."""
    (found,) = fcos.detect(seen.outputs, network.settings.detection)
    kept = (found.scores >= score).nonzero()[:, 0]
    kept = kept[:most] if most else kept
    across, down = seen.factors
    scale = found.boxes.new_tensor([across, down, across, down])
    boxes = clip_to(found.boxes[kept] / scale, *seen.size)
    is_there = (boxes[:, 2:] > boxes[:, :2]).all(1)
    kept, boxes = kept[is_there], boxes[is_there]
    none = torch.zeros_like(kept)
    queries = Queries.of(seen.outputs, none, none, found.places[kept])
    maps = network.masks(seen.encoded, queries).sigmoid().cpu()
    rows = zip(
        boxes.cpu().tolist(), found.labels[kept].tolist(), found.scores[kept].tolist(), maps,
        strict=True,
    )  # fmt: skip
    result = []
    for box, label, value, scores in rows:
        pixels = pixel_box(box, *seen.size)
        mask = enlarged(scores[None], seen.resized, seen.size, pixels)[0] > 0.5
        result.append(Found(tuple(box), label, value, pixels, mask.numpy()))
    return result


def found_rows(network: CondInst, seen: Seen) -> list[ap.Row]:
    """Objects of a picture in COCO's form."""
    rows = []
    for one in objects_of(network, seen):
        x0, y0, x1, y1 = one.box
        rows.append({
            "category_id": one.label, "bbox": [x0, y0, x1 - x0, y1 - y0],
            "area": float(one.mask.sum()), "iscrowd": 0, "score": one.score,
            "segmentation": ap.encode_mask(one.whole(seen.size)),
        })  # fmt: skip
    return rows


def detect(
    network: CondInst, cfg: Config, picture: Rgb, score: float = 0.0, most: int = 0
) -> Instances:
    """Objects of a picture with masks of its size, best first.

    Args:
        network: The network, in eval mode.
        cfg: Its configuration.
        picture: RGB of any size.
        score: Least score of an object.
        most: Objects at most; 0 for as many as detection keeps.
    """
    seen = see(network, cfg, picture)
    found = objects_of(network, seen, score, most)
    pixels = seen.size[0] * seen.size[1]
    if len(found) * pixels > MOST_MASKS:
        fitting = max(1, MOST_MASKS // pixels)
        warnings.warn(
            f"masks of {len(found)} objects of {seen.size[1]} x {seen.size[0]} pixels need more "
            f"than {MOST_MASKS / 2**30:.0f} GiB: the best {fitting} are kept",
            stacklevel=2,
        )
        found = found[:fitting]
    masks = np.zeros((len(found), *seen.size), dtype=bool)
    for row, one in enumerate(found):
        x0, y0, x1, y1 = one.pixels
        masks[row, y0:y1, x0:x1] = one.mask
    return Instances(
        np.array([one.box for one in found], dtype=np.float32).reshape(-1, 4),
        np.array([one.label for one in found], dtype=np.int64),
        np.array([one.score for one in found], dtype=np.float32),
        masks,
    )


# --- given boxes ---------------------------------------------------------------------------------


@torch.no_grad()
def committee(
    network: CondInst, seen: Seen, boxes: Sequence[Box]
) -> list[Float32[np.ndarray, "k height width"]]:
    """Probabilities in each box, of all locations that find its object; k = 0 if none does.

    Args:
        network: The network, in eval mode.
        seen: The picture.
        boxes: In pixels of the picture.
    """
    height, width = seen.size
    across, down = seen.factors
    given = torch.tensor(boxes, dtype=torch.float32).view(-1, 4)
    if seen.is_flipped:
        given[:, [0, 2]] = width - given[:, [2, 0]]
    given = given * torch.tensor([across, down, across, down])
    device = seen.encoded.features.device
    (every,) = network.predictions_of(seen.encoded, [given.to(device)], seen.outputs)
    found = []
    for box, logits in zip(boxes, every, strict=True):
        x0, y0, x1, y1 = pixel_box(box, height, width)
        pixels = (width - x1, y0, width - x0, y1) if seen.is_flipped else (x0, y0, x1, y1)
        maps = enlarged(logits.sigmoid().cpu(), seen.resized, seen.size, pixels).clamp(0, 1)
        found.append((maps.flip(2) if seen.is_flipped else maps).numpy())
    return found


def members(
    network: CondInst, cfg: Config, picture: Rgb, boxes: Sequence[Box], *name: int | str
) -> list[Float32[np.ndarray, "k height width"]]:
    """Probabilities in each box by the committee that the configuration asks for.

    `name`: what the dropped channels follow from, besides the run's seed.
    """
    own = cfg.points
    seen = see(network, cfg, picture)
    parts = [committee(network, seen, boxes)]
    if own.committee == "flip":
        parts.append(committee(network, see(network, cfg, picture, is_flipped=True), boxes))
    elif own.committee == "dropout":
        draw = generator(cfg.seed, "dropout", *name)
        parts = [
            committee(network, _dropped(network, seen, own.drop, draw), boxes)
            for _ in range(own.members)
        ]
    return [np.concatenate(some) for some in zip(*parts, strict=True)]


@torch.no_grad()
def _dropped(network: CondInst, seen: Seen, share: float, draw: torch.Generator) -> Seen:
    """The same picture without some channels of the pyramid, others scaled up for them."""
    levels: list[Tensor] = []
    for x in seen.encoded.levels:
        kept = torch.rand(1, x.shape[1], 1, 1, generator=draw) >= share
        levels.append(x * kept.to(x) / (1 - share))
    encoded = replace(seen.encoded, levels=levels, features=network.branch(levels))
    return replace(seen, encoded=encoded, outputs=network.head(encoded))
