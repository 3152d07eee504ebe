"""Captions of COCO's form, with the boxes of the instance file beside them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..images.coco import SceneSet, corners, listed, open_coco, read_json
from ..images.coco_files import located
from ..images.decode import USUAL, Reading
from ..images.folders import inside_of
from .files import WAY_OUT, CaptionFiles, Photo, Text, looked_at, text_of
from .records import LeftOut

YEARS = ("2017", "2014")


def find_captions(folder: Path, split: str) -> tuple[Path, Path | None, Path] | None:
    """Files of captions and instances, and the folder of pictures, of "train", "val" or "test".

    None if there are no captions of that split. A set that is not divided is its test split.
    """
    whole = folder / "captions.json"
    if split == "test" and whole.is_file():
        return whole, _if_there(folder / "instances.json"), folder / "images"
    for year in YEARS:
        part = f"{split}{year}"
        for place in (folder / "annotations", folder):
            file = place / f"captions_{part}.json"
            if file.is_file():
                images = next(
                    (x for x in (folder / part, folder / "images" / part) if x.is_dir()),
                    folder / "images",
                )
                return file, _if_there(place / f"instances_{part}.json"), images
    return None


def _if_there(file: Path) -> Path | None:
    return file if file.is_file() else None


def open_coco_captions(
    name: str, captions: Path, instances: Path | None, images: Path, reading: Reading = USUAL
) -> CaptionFiles:
    """Open a file of captions of COCO's form.

    Args:
        name: Of the set.
        captions: File with images and annotations that have a caption.
        instances: File of the objects of the same pictures; None if there is none.
        images: Folder of the pictures.
        reading: With `skip_broken`, captions and pictures that do not fit are left out and counted.

    Raises:
        ValueError: Something does not fit; the error names file, record and way out.
        FileNotFoundError: A file or a picture is not there.
    """
    content = read_json(captions)
    left = LeftOut()
    texts: dict[int, list[Text]] = {}
    known = {
        i for item in listed(content, "images", captions) if isinstance(i := item.get("id"), int)
    }
    for item in listed(content, "annotations", captions):
        try:
            number = item.get("image_id")
            if not isinstance(number, int) or number not in known:
                raise ValueError(f"is of image {str(number)[:40]}, which is not listed")
            texts.setdefault(number, []).append(text_of(item.get("caption")))
        except ValueError as error:
            where = f"annotation {str(item.get('id'))[:40]}"
            if not reading.skip_broken:
                raise ValueError(f"{captions}, {where}: {error}. {WAY_OUT}.") from error
            left.add(f"{where}: {error}")
    scenes = open_coco(instances, images, reading) if instances else None
    photos = _with_objects(scenes, texts) if scenes else {}
    for item in content["images"]:
        number = item.get("id")
        if not isinstance(number, int) or number in photos or number not in texts:
            continue
        try:
            photos[number] = _photo(item, images, tuple(texts[number]), reading)
        except (ValueError, OSError) as error:
            if not reading.skip_broken:
                kind = FileNotFoundError if isinstance(error, OSError) else ValueError
                said = str(error).rstrip(".")
                raise kind(f"{captions}, image {number}: {said}. {WAY_OUT}.") from error
            left.add(f"image {number}: {error}")
    for number in sorted(known - texts.keys()):
        left.add(f"image {number} has no caption")
    found = tuple(photos[number] for number in texts if number in photos)
    classes = scenes.classes if scenes else ()
    return looked_at(CaptionFiles(name, found, classes, captions, reading, left))


def _with_objects(scenes: SceneSet, texts: Mapping[int, list[Text]]) -> dict[int, Photo]:
    label = {number: i for i, number in enumerate(scenes.category_ids)}
    photos = {}
    for entry in scenes.entries:
        if entry.image_id not in texts:
            continue
        boxes = [tuple(float(v) for v in corners(o["bbox"], entry)) for o in entry.objects]
        photos[entry.image_id] = Photo(
            entry.file,
            entry.file.name,
            tuple(texts[entry.image_id]),
            tuple((a, b, c, d) for a, b, c, d in boxes),
            tuple(label[o["category_id"]] for o in entry.objects),
            tuple(o["iscrowd"] == 1 for o in entry.objects),
            (entry.height, entry.width),
        )
    return photos


def _photo(
    item: Mapping[str, Any], images: Path, texts: tuple[Text, ...], reading: Reading
) -> Photo:
    """A picture that only the file of captions knows."""
    name = item.get("file_name")
    if not isinstance(name, str) or not name or "\0" in name:
        raise ValueError(f"its file_name is {str(name)[:40]!r}")
    file = inside_of(images, located(images, name), reading.follow_links)
    if not file.is_file():
        raise FileNotFoundError(f"{file} is not there")
    key = name if file == images / name else file.relative_to(images).as_posix()
    return Photo(file, key, texts)


def find_parts(folder: Path) -> list[str]:
    """Those of train, val and test that have captions."""
    return [split for split in ("train", "val", "test") if find_captions(folder, split)]
