"""Records that several rooms share; this file imports nothing of tenfold."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int, Int64


@dataclass(frozen=True)
class Instances:
    """Objects of one image: true ones, or found ones with scores.

    Row i of every array is of object i; what does not fit is a ValueError.

    Example:
        sure = found.at(found.scores >= 0.5)
    """

    boxes: Float[np.ndarray, "object 4"]
    """x0 y0 x1 y1 in pixels of the image, ends exclusive."""
    labels: Int64[np.ndarray, " object"]
    """Classes from 0."""
    scores: Float[np.ndarray, " object"] | None = None
    """From 0 to 1, of found objects."""
    masks: Bool[np.ndarray, "object height width"] | None = None
    """Pixels of each object; None in a set of boxes."""
    areas: Float[np.ndarray, " object"] | None = None
    """Pixels, by which objects count as small or large; None: of mask or box."""
    crowd: Bool[np.ndarray, " object"] | None = None
    """Regions that are neither to be found nor wrong if found; None: no object is one."""

    def __post_init__(self) -> None:
        count = len(self.boxes)
        size = (0, 0) if self.masks is None or self.masks.ndim != 3 else self.masks.shape[1:]
        kinds = {
            "boxes": ("f", (count, 4)),
            "labels": ("i", (count,)),
            "scores": ("f", (count,)),
            "masks": ("b", (count, *size)),
            "areas": ("f", (count,)),
            "crowd": ("b", (count,)),
        }
        for name, (kind, shape) in kinds.items():
            value = getattr(self, name)
            if value is not None and (value.dtype.kind != kind or value.shape != shape):
                raise ValueError(
                    f"{name} of {count} objects are {value.dtype} {value.shape}, expected kind "
                    f"{kind!r} and shape {shape}"
                )

    def __len__(self) -> int:
        return len(self.boxes)

    @property
    def is_crowd(self) -> Bool[np.ndarray, " object"]:
        """True for each object that is a crowd."""
        return np.zeros(len(self), dtype=bool) if self.crowd is None else self.crowd

    def at(self, rows: Bool[np.ndarray, " object"] | Int[np.ndarray, " some"]) -> Instances:
        """Return some of the objects, by rows or by a mask of rows."""
        arrays = (self.boxes, self.labels, self.scores, self.masks, self.areas, self.crowd)
        return Instances(*(None if x is None else x[rows] for x in arrays))  # type: ignore[arg-type]
