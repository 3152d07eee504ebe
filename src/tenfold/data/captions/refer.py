"""RefCOCO, RefCOCO+ and RefCOCOg: sentences that each mean one object of a photo of COCO.

The published `refs(unc).p` is a pickle: it is read without running it, plain values alone; JSON of
the same content (`refs*.json`) is read as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from ..images.coco import corners, open_coco
from ..images.coco_masks import Entry
from ..images.decode import USUAL, Reading
from ..io.pickles import load_arrays
from ..io.problems import some
from .files import WAY_OUT, CaptionFiles, Photo, Text, looked_at
from .records import LeftOut, Span, checked_caption
from .tables import read_json_list

SPLITS = {"train": "train", "val": "validation", "test": "test", "testA": "testA", "testB": "testB"}
"""Name of a split in the file -> ours."""
IMAGES = ("images", "train2014", "images/train2014", "images/mscoco/images/train2014", ".")
"""Places of the photos."""


def find_refs(folder: Path) -> Path | None:
    """The file of sentences; None if the folder is not of RefCOCO's layout.

    Raises:
        ValueError: There are several.
    """
    if not (folder / "instances.json").is_file():
        return None
    found = sorted([*folder.glob("refs*.json"), *folder.glob("refs*.p")])
    stems = {file.stem for file in found}
    if len(stems) > 1:
        raise ValueError(
            f"{folder} has several files of sentences: {some([f.name for f in found])}. Keep one."
        )
    return found[0] if found else None


@lru_cache(maxsize=2)
def _refs(file: Path) -> list[Any]:
    found = load_arrays(file) if file.suffix == ".p" else read_json_list(file)
    if not isinstance(found, list) or not all(isinstance(ref, dict) for ref in found):
        raise ValueError(f"{file} holds no list of references; take the file as it was published")
    return found


def splits_of(folder: Path) -> tuple[str, ...]:
    """Our names of the splits that the sentences are divided into."""
    file = find_refs(folder)
    stated = {str(ref.get("split")) for ref in _refs(file)} if file else set()
    return tuple(ours for theirs, ours in SPLITS.items() if theirs in stated)


def open_refer(name: str, folder: Path, split: str, reading: Reading = USUAL) -> CaptionFiles:
    """Open a split: each sentence is a caption with one phrase, the box of the object it means.

    Raises:
        ValueError: A reference does not fit; the error names it. With `skip_broken` it is left out.
        FileNotFoundError: A file or a photo is not there.
    """
    file = find_refs(folder)
    if file is None:
        raise FileNotFoundError(
            f"{folder} needs instances.json and refs*.p (or refs*.json) of RefCOCO's layout"
        )
    images = next((p for p in map(folder.joinpath, IMAGES) if any(p.glob("*.[jJpPwW]*g*"))), folder)
    scenes = open_coco(folder / "instances.json", images, reading)
    entries = {entry.image_id: entry for entry in scenes.entries}
    boxes = {o["id"]: corners(o["bbox"], e) for e in scenes.entries for o in e.objects}
    texts: dict[int, list[Text]] = {}
    left = LeftOut()
    for place, ref in enumerate(_refs(file), 1):
        if SPLITS.get(str(ref.get("split"))) != split:
            continue
        try:
            for text in _texts(ref, entries, boxes):
                texts.setdefault(ref["image_id"], []).append(text)
        except ValueError as error:
            where = f"reference {str(ref.get('ref_id', place))[:40]}"
            if not reading.skip_broken:
                raise ValueError(f"{file}, {where}: {error}. {WAY_OUT}.") from error
            left.add(f"{where}: {error}")
    label = {number: i for i, number in enumerate(scenes.category_ids)}
    photos = []
    for number, some_texts in texts.items():
        entry = entries[number]
        found = [corners(o["bbox"], entry) for o in entry.objects]
        photos.append(
            Photo(
                entry.file,
                entry.file.name,
                tuple(some_texts),
                tuple((float(a), float(b), float(c), float(d)) for a, b, c, d in found),
                tuple(label[o["category_id"]] for o in entry.objects),
                tuple(o["iscrowd"] == 1 for o in entry.objects),
                (entry.height, entry.width),
            )
        )
    return looked_at(CaptionFiles(name, tuple(photos), scenes.classes, file, reading, left))


def _texts(
    ref: Mapping[str, Any], entries: Mapping[int, Entry], boxes: Mapping[int, list[int | float]]
) -> list[Text]:
    """Sentences of a reference, each as a caption that is one phrase."""
    image, annotation, sentences = ref.get("image_id"), ref.get("ann_id"), ref.get("sentences")
    if not isinstance(image, int) or image not in entries:
        raise ValueError(f"it is of image {str(image)[:40]}, which instances.json does not list")
    if not isinstance(annotation, int) or annotation not in boxes:
        raise ValueError(f"its object {str(annotation)[:40]} is not in instances.json")
    if not isinstance(sentences, list) or not sentences:
        raise ValueError("it has no list of sentences")
    a, b, c, d = (float(value) for value in boxes[annotation])
    found = []
    for sentence in sentences:
        stated = sentence if isinstance(sentence, dict) else {}
        text = checked_caption(stated.get("sent", stated.get("raw"))).strip()
        found.append((text, (Span(0, len(text), ((a, b, c, d),)),)))
    return found
