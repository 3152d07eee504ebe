"""The labelled target images that join the supervised loss."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tenfold.data.images.segmentation import Segmented, read_text

from .config import Data


def of_target(data: Data, opened: Callable[[], Segmented]) -> Segmented | None:
    """The images that are listed, or as many as asked for, spread over the set; None for none.

    `opened` gives the target's labelled training images, which are not looked at without need.
    """
    count = data.target_labels
    if not count and not data.target_list:
        return None
    found = opened()
    if data.target_list:
        return found.at(_listed(Path(data.target_list), found))
    if count > len(found):
        raise ValueError(
            f"data.target_labels is {count}, but the target has {len(found)} labelled images"
        )
    return found.at([place * len(found) // count for place in range(count)])


def _listed(file: Path, found: Segmented) -> list[int]:
    """Rows of the images that a text file names."""
    rows: dict[str, list[int]] = {}
    for row, (picture, _) in enumerate(found.files):
        parts = picture.parts
        names = {"/".join(parts[first:]) for first in range(len(parts))} | {picture.stem}
        for name in names:
            rows.setdefault(name, []).append(row)
    listed = [line.strip() for line in read_text(file, "names images").splitlines()]
    wanted = dict.fromkeys(name for name in listed if name)
    for name in wanted:
        if len(rows.get(name, [])) != 1:
            count = len(rows.get(name, []))
            raise ValueError(
                f"{file} names {name!r}, which {count or 'none'} of the target's {len(found)} "
                "labelled training images is called; give their paths or names, one a line"
            )
    if not wanted:
        raise ValueError(f"{file} names no images; give a name a line, or leave data.target_list")
    return sorted({rows[name][0] for name in wanted})
