"""Checks of sets with parts, by the readers that training uses."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..io.problems import Problems, some
from . import ade20k, panoptic_parts
from .decode import read_picture

CITYSCAPES = {"train": 2_975, "val": 500}
"""Pictures of each split."""
ADE20K = 27_574


def check_cityscapes_parts(f: Problems) -> None:
    """Every number is one of the format, every picture there and of the size of its map."""
    for split, count in CITYSCAPES.items():
        where = f.folder / "gtFinePanopticParts" / split
        try:
            pairs = panoptic_parts.find(f.folder, split)
        except FileNotFoundError as error:
            tell = f.note if split == "val" else lambda text, at=where: f.problem(at, text)
            tell(str(error))
            continue
        except ValueError as error:
            f.problem(where, str(error))
            continue
        f.published(where, "pictures", len(pairs), count)
        alien: set[int] = set()
        for image, labels in f.sample(pairs):
            f.seen(2)
            try:
                uids = panoptic_parts.read(labels)
                _same_size(image, labels, uids.shape)
            except (ValueError, OSError) as error:
                f.problem(labels, str(error))
                continue
            ids = panoptic_parts.decode(uids)
            known = panoptic_parts.within(ids, panoptic_parts.CITYSCAPES_PARTS)
            lost = (known.sids != ids.sids) | ((ids.pids > 0) & (known.pids != ids.pids))
            alien |= set(np.unique(ids.sids_pids[lost]).tolist())
        if alien:
            f.note(
                f"{split}: classes or parts (class * 100 + part) that Cityscapes Panoptic Parts "
                f"does not have, taken for none: {some(sorted(alien))}"
            )


def check_ade20k_parts(f: Problems) -> None:
    """Every object's mask, whole and level, and the picture of every JSON file."""
    try:
        files = ade20k.find(f.folder)
    except ValueError as error:
        f.problem(f.folder, str(error))
        return
    f.published(f.folder, "pictures", len(files), ADE20K)
    wholes = divided = 0
    for file in f.sample(files):
        f.seen(2)
        try:
            picture = ade20k.read(file)
            _same_size(picture.file, file, picture.size)
        except (ValueError, OSError) as error:
            f.problem(file, str(error))
            continue
        above = {one.part_of for one in picture.objects}
        tops = [one for one in picture.objects if one.level == 0]
        wholes += len(tops)
        divided += sum(one.id in above for one in tops)
    f.note(f"{divided} of {wholes} objects are divided into parts")


def _same_size(image: Path, labels: Path, size: tuple[int, ...]) -> None:
    seen = read_picture(image).shape[:2]
    if tuple(seen) != tuple(size):
        raise ValueError(
            f"{labels} is of {size[1]} x {size[0]} pixels, its picture {image} of {seen[1]} x "
            f"{seen[0]}"
        )
