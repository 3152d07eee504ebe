"""Objects written for other tools, and read from them: who said what stays with each shape.

A human's box, class or mask is never written over by a model's. What a format cannot hold is said
in a note, and so is what of a file was left out: nothing is dropped in silence.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Literal, get_args

from . import exchange_coco, exchange_cvat, exchange_label_studio, exchange_labelme
from .exchange_parts import Exported
from .instances import ObjectSet, Shape

__all__ = ["FORMATS", "Exported", "Format", "merged", "read", "updated", "write"]

Format = Literal["coco", "coco_points", "cvat", "label_studio", "x_anylabeling", "labelme"]
FORMATS: tuple[Format, ...] = get_args(Format)


def write(objects: ObjectSet, out: Path, form: Format) -> Exported:
    """Write the objects of all pictures for a tool into the folder `out`.

    Raises:
        ValueError: There is no such format.
    """
    writers: dict[str, Callable[[ObjectSet, Path], Exported]] = {
        "coco": exchange_coco.write_coco,
        "coco_points": exchange_coco.write_coco_points,
        "cvat": exchange_cvat.write_cvat,
        "label_studio": exchange_label_studio.write_label_studio,
        "x_anylabeling": exchange_labelme.write_x_anylabeling,
        "labelme": exchange_labelme.write_labelme,
    }
    if form not in writers:
        raise ValueError(f"objects cannot be written as {form!r}; there are {', '.join(FORMATS)}")
    return writers[form](objects, out)


def read(path: Path, form: Format, known: ObjectSet, skip: bool = False) -> ObjectSet:
    """Read the objects of `known`'s pictures from the file of a tool, or its folder of files.

    What does not fit raises, or is left out and noted with `skip`; see `joined`.

    Raises:
        ValueError: There is no such format, or the file does not fit it.
        FileNotFoundError: The file, or a picture of it, is not there.
    """
    readers: dict[str, Callable[[Path, ObjectSet, bool], ObjectSet]] = {
        "coco": exchange_coco.read_coco,
        "coco_points": exchange_coco.read_coco,
        "cvat": exchange_cvat.read_cvat,
        "label_studio": exchange_label_studio.read_label_studio,
        "x_anylabeling": exchange_labelme.read_labelme,
        "labelme": exchange_labelme.read_labelme,
    }
    if form not in readers:
        raise ValueError(f"objects cannot be read as {form!r}; there are {', '.join(FORMATS)}")
    if not path.exists():
        raise FileNotFoundError(f"{path} is not there. Give the file that the tool exported.")
    return readers[form](path, known, skip)


# --- a model beside humans -----------------------------------------------------------------------


def updated(old: Shape, new: Shape) -> tuple[Shape, list[str]]:
    """One shape of two that are the same object: a model's parts never replace a human's.

    Returns:
        The shape, and what of the new one was not taken.
    """
    notes = []
    found = old
    by_model = new.said.source == "model"
    if by_model and old.said.source == "human":
        if (new.label, new.box) != (old.label, old.box):
            notes.append(f"annotation {old.id}: class and box of a human are kept")
    else:
        # without a mask its area is that of its box, which says nothing of a mask that stays
        area = new.area if old.mask is None else old.area
        found = replace(
            found, label=new.label, box=new.box, said=new.said, score=new.score, area=area
        )
    if new.mask is not None:
        is_kept = (
            old.mask is not None
            and old.mask_said.source == "human"
            and new.mask_said.source == "model"
        )
        if is_kept:
            notes.append(f"annotation {old.id}: the mask of a human is kept")
        else:
            found = replace(found, mask=new.mask, mask_said=new.mask_said, area=new.area)
    have = {(p.x, p.y, p.label, p.said) for p in found.points}
    more = tuple(p for p in new.points if (p.x, p.y, p.label, p.said) not in have)
    return replace(found, points=(*found.points, *more)), notes


def merged(old: ObjectSet, new: ObjectSet) -> ObjectSet:
    """The objects of two sets of the same pictures, by annotation id, a human's above a model's.

    Raises:
        ValueError: The sets are of other pictures, or an id is of objects of two pictures.
    """
    if [p.name for p in old.pictures] != [p.name for p in new.pictures]:
        raise ValueError("objects can be joined only for the same pictures in the same order")
    classes = list(old.classes) + [name for name in new.classes if name not in old.classes]
    place = {shape.id: row for row, p in enumerate(old.pictures) for shape in p.shapes}
    notes: list[str] = []
    pictures = []
    for row, (mine, theirs) in enumerate(zip(old.pictures, new.pictures, strict=True)):
        shapes = {shape.id: shape for shape in mine.shapes}
        for shape in theirs.shapes:
            if place.get(shape.id, row) != row:
                raise ValueError(
                    f"annotation {shape.id} is of {old.pictures[place[shape.id]].name}, and now of "
                    f"{theirs.name}. Give one of them another id."
                )
            given = replace(shape, label=classes.index(new.classes[shape.label]))
            if shape.id in shapes:
                shapes[shape.id], more = updated(shapes[shape.id], given)
                notes += more
            else:
                shapes[shape.id] = given
        pictures.append(replace(mine, shapes=tuple(shapes.values())))
    ids = list(old.category_ids)
    ids += range(max(ids, default=0) + 1, max(ids, default=0) + 1 + len(classes) - len(ids))
    return replace(
        old, classes=tuple(classes), category_ids=tuple(ids), pictures=tuple(pictures),
        notes=(*old.notes, *new.notes, *notes),
    )  # fmt: skip
