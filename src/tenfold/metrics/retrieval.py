"""Retrieval both ways: ranks and recalls, with equal similarities in a defined order."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int64

CELLS = 2**24
"""Comparisons that are held at once."""
AT = (1, 5, 10)
Similarity = Float[np.ndarray, "image caption"]
Owners = Int64[np.ndarray, " owned"]


def image_to_text_ranks(similarity: Similarity, owners: Owners) -> Int64[np.ndarray, " image"]:
    """Captions before the first of each image's own, 0 if one of its own is the best.

    Of equal similarities the lower index comes first.

    Args:
        similarity: Of each image with each caption.
        owners: Image that a caption is of.
    """
    _check(similarity, owners)
    images, captions = similarity.shape
    missing = np.setdiff1d(np.arange(images), owners)
    if len(missing):
        raise ValueError(f"image {missing[0]} has no caption; leave it out")
    ranks = []
    for start in range(0, images, max(1, CELLS // captions)):
        rows = similarity[start : start + max(1, CELLS // captions)]
        own = owners == np.arange(start, start + len(rows))[:, None]
        at = np.where(own, rows, -np.inf).argmax(1)  # the first of equal ones
        ranks.append(_before(rows, at))
    return np.concatenate(ranks)


def text_to_image_ranks(similarity: Similarity, owners: Owners) -> Int64[np.ndarray, " owned"]:
    """Images before each caption's own, as `image_to_text_ranks`."""
    _check(similarity, owners)
    step = max(1, CELLS // len(similarity))
    return np.concatenate(
        [
            _before(similarity[:, start : start + step].T, owners[start : start + step])
            for start in range(0, len(owners), step)
        ]
    )


def _before(
    rows: Float[np.ndarray, "query item"], at: Int64[np.ndarray, " query"]
) -> Int64[np.ndarray, " query"]:
    """Items before the one at a place: the better ones, and equal ones of a lower index."""
    value = np.take_along_axis(rows, at[:, None], 1)
    earlier = np.arange(rows.shape[1]) < at[:, None]
    found: Int64[np.ndarray, " query"] = (
        ((rows > value) | ((rows == value) & earlier)).sum(1).astype(np.int64)
    )
    return found


def _check(similarity: Similarity, owners: Owners) -> None:
    if not len(similarity) or len(owners) != similarity.shape[1]:
        raise ValueError(
            f"similarities of {similarity.shape[0]} images and {similarity.shape[1]} captions with "
            f"{len(owners)} owners; each caption needs one, and there must be an image"
        )
    if len(owners) and not (0 <= owners.min() and owners.max() < len(similarity)):
        raise ValueError(
            f"owners must be images 0 to {len(similarity) - 1}, got {owners.min()} to "
            f"{owners.max()}"
        )
    if not np.isfinite(similarity).all():
        row, column = np.argwhere(~np.isfinite(similarity))[0]
        raise ValueError(f"the similarity of image {row} with caption {column} is not finite")


def recall(ranks: Int64[np.ndarray, " query"], at: int) -> float:
    """Queries whose answer is among the first `at`, in percent."""
    return 100 * float((ranks < at).mean())


def retrieval(similarity: Similarity, owners: Owners, at: Sequence[int] = AT) -> dict[str, float]:
    """Recall at 1, 5 and 10 both ways in percent, their sum, and the median rank from 1.

    Returns:
        i2t/R@1 ..., t2i/R@1 ..., rsum, i2t/median, t2i/median.
    """
    ranks = {
        "i2t": image_to_text_ranks(similarity, owners),
        "t2i": text_to_image_ranks(similarity, owners),
    }
    found = {f"{way}/R@{k}": recall(some, k) for way, some in ranks.items() for k in at}
    found["rsum"] = sum(found.values())
    return found | {f"{way}/median": float(np.median(some) + 1) for way, some in ranks.items()}
