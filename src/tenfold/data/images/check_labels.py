"""Checks of image-level labels, by the readers that training uses."""

from __future__ import annotations

import warnings
from collections.abc import Callable

from ..io.problems import Problems
from .image_labels import MultiLabelSet, read_image, read_mask
from .multilabel import OWN, open_set

SPLITS = ("train", "val", "test")


def check_tags(f: Problems, is_alone: bool = True) -> None:
    """A folder with a table of labels or JSON of LabelMe: what it is, and whether all can be read.

    is_alone: it holds nothing else; if it does, labels that do not fit are but a note.
    """
    sets: dict[str, MultiLabelSet] = {}
    for split in SPLITS:
        found = _opened(f, OWN, split, f.note if not is_alone else None)
        if found is not None:
            sets[split] = found
    if "train" not in sets:
        return
    parts = [f"{split} {len(one)} pictures" for split, one in sets.items()]
    one = sets["train"]
    counts = [f"{name} {n}" for name, n in zip(one.classes, one.positives, strict=True)]
    f.note(
        f"image-level labels ({one.labels_from}); {', '.join(parts)}; train: {'; '.join(counts)}"
    )
    for found in sets.values():
        for item in f.sample(found.items):
            f.seen()
            try:
                read_image(item)
                read_mask(item)
            except (ValueError, OSError) as error:
                f.problem(item.image, str(error))


def check_labels(f: Problems, name: str) -> None:
    """Labels of the pictures of a public set; what its other check has said is not said again."""
    for split in SPLITS[:2]:
        found = _opened(f, name, split)
        if found is not None:
            counts = zip(found.classes, found.positives, strict=True)
            shown = "; ".join(f"{label} {count}" for label, count in counts if count)
            f.note(f"{split}: labels of {len(found)} pictures ({found.labels_from}): {shown}")


def _opened(
    f: Problems, name: str, split: str, tell: Callable[[str], None] | None = None
) -> MultiLabelSet | None:
    """A split, or None; warnings become notes, an error a problem (or what `tell` does)."""
    said = {problem.what for problem in f.result.problems} | set(f.result.notes)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            found = open_set(name, f.folder, split)
        except FileNotFoundError as error:
            found, text = None, str(error)
        except ValueError as error:
            found, text = None, str(error)
    for warning in caught:
        if str(warning.message) not in said:
            f.note(str(warning.message))
    if found is None and text not in said and f" has no split '{split}'" not in text:
        tell(text) if tell else f.problem(f.folder, text)
    return found
