"""What was labelled on a page, in the forms of other tools."""

from __future__ import annotations

import io
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import get_args

from tenfold.data.images import exchange
from tenfold.data.images.album import Album
from tenfold.data.images.crops import Crop
from tenfold.data.images.exchange import Format
from tenfold.data.images.instances import Objects, ObjectSet, Said, Shape
from tenfold.web.pages import Media

from .labelled import Known

TITLES: dict[Format, str] = {
    "coco": "COCO (masks)",
    "coco_points": "COCO with points (PointSup)",
    "cvat": "CVAT for images",
    "label_studio": "Label Studio",
    "x_anylabeling": "X-AnyLabeling",
    "labelme": "LabelMe",
}
KINDS = {".json": "application/json", ".xml": "application/xml"}
assert set(TITLES) == set(get_args(Format))


def shapes_of(
    known: Sequence[tuple[Known, Crop | None]], classes: Sequence[str], model: str
) -> list[Shape]:
    """Objects with the masks that a model makes of those that have none of a person."""
    found = []
    for one, mask in known:
        shape = one.shape(classes)
        if one.mask is None and mask is not None and mask.area:
            shape = replace(
                shape, mask=mask, area=float(mask.area), mask_said=Said("model", "", model)
            )
        found.append(shape)
    return found


def object_set(
    known: Sequence[tuple[Known, Crop | None]], classes: Sequence[str], album: Album, model: str
) -> ObjectSet:
    """The pictures that have objects, in the album's order; those that vanished come last.

    Args:
        known: Objects, and the mask that the network makes of each.
        classes: Names of all classes.
        album: The photos.
        model: Name of what made the masks.
    """
    pictures: dict[str, list[tuple[Known, Crop | None]]] = {}
    for one, mask in known:
        pictures.setdefault(one.image, []).append((one, mask))
    numbers = {name: album.number(name) for name in pictures}
    gone = len(album)
    order = sorted(pictures, key=lambda name: (numbers[name] is None, numbers[name] or 0, name))
    made = []
    for name in order:
        number = numbers[name]
        gone += number is None
        height, width = pictures[name][0][0].size
        made.append(
            Objects(
                album.folder / name, name, gone if number is None else number + 1, height, width,
                tuple(shapes_of(pictures[name], classes, model)),
            )
        )  # fmt: skip
    return ObjectSet(tuple(classes), tuple(range(1, len(classes) + 1)), tuple(made))


def exported(objects: ObjectSet, form: str) -> Media:
    """Write for a tool: one file as it is, several as an archive.

    Raises:
        LookupError: There is no such form.
    """
    wanted = next((known for known in TITLES if known == form), None)
    if wanted is None:
        raise LookupError(f"there is no form {form[:40]!r}; there are {', '.join(TITLES)}")
    with tempfile.TemporaryDirectory(prefix="tenfold-export-") as place:
        folder = Path(place)
        made = exchange.write(objects, folder, wanted)
        files = sorted(made.files)
        if len(files) == 1:
            name = f"{wanted}{files[0].suffix}"
            return Media(files[0].read_bytes(), KINDS[files[0].suffix], name, made.notes)
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
            for file in files:
                archive.write(file, file.relative_to(folder).as_posix())
        return Media(packed.getvalue(), "application/zip", f"{wanted}.zip", made.notes)
