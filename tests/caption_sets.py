"""Small sets of pictures with captions, as they are published and as people have them."""

from __future__ import annotations

import io
import json
import pickle
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

CANVAS, CELL, COLUMNS = 16, 8, 2
CONCEPTS = ("cat", "dog", "old car")
SCENE = {
    "bg": "red", "items": [[0, 0, 1, 2, 4], [2, 1, 8, 8, 8]],
    "caption": "a cat and an old car on a red background",
    "phrases": [[0, 5, 0], [10, 20, 1], [24, 40, -1]],
}  # fmt: skip


def emoji(folder: Path, scene: dict[str, Any] = SCENE, **changes: Any) -> Path:
    """A folder in the layout of emoji_scenes, each split of two scenes."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = -(-len(CONCEPTS) // COLUMNS)
    for seed, artist in enumerate(("google", "twitter")):
        drawn = np.random.default_rng(seed).integers(
            0, 256, (rows * CELL, COLUMNS * CELL, 4), dtype=np.uint8
        )
        drawn[..., 3] = np.where(drawn[..., 3] > 128, 255, drawn[..., 3])
        Image.fromarray(drawn).save(folder / f"sprites_{artist}.webp", lossless=True, exact=True)
    concepts = [{"id": i, "name": name} for i, name in enumerate(CONCEPTS)]
    meta = {
        "canvas": CANVAS, "sizes": [4, 8], "colours": {"red": [200, 60, 60]},
        "vendors": ["google", "twitter"], "twitter_held_out": [1], "sprite": CELL,
        "columns": COLUMNS, **changes,
    }  # fmt: skip
    (folder / "concepts.json").write_text(json.dumps(concepts))
    (folder / "meta.json").write_text(json.dumps(meta))
    unseen = {"bg": "red", "items": [[1, 1, 0, 0, 8]], "caption": "a dog", "phrases": [[0, 5, 0]]}
    for split in ("train", "val", "test", "test_xstyle"):
        one = unseen if split == "test_xstyle" else scene
        (folder / f"{split}.jsonl").write_text(f"{json.dumps(one)}\n" * 2)
    return folder


# --- pictures with files ------------------------------------------------------------------------

WIDTH, HEIGHT = 40, 30
CAPTION = "a cat on a mat"


def photo(path: Path, seed: int = 0, size: tuple[int, int] = (WIDTH, HEIGHT)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content(seed, size))
    return path


def content(seed: int = 0, size: tuple[int, int] = (WIDTH, HEIGHT)) -> bytes:
    """A picture file."""
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def records(count: int = 2) -> list[dict[str, Any]]:
    """Records of JSON with a phrase, its box and an object."""
    box = [1, 2, 11, 12]
    return [
        {"image": f"{i}.png", "caption": f"{CAPTION}, {i}",
         "phrases": [{"start": 0, "end": 5, "boxes": [box]}, {"start": 9, "end": 14}],
         "objects": [{"name": "cat", "box": box}]}
        for i in range(count)
    ]  # fmt: skip


def lines(folder: Path, items: list[dict[str, Any]] | None = None, name: str = "a.jsonl") -> Path:
    """A folder of pictures and lines of JSON."""
    for i in range(4):
        photo(folder / "images" / f"{i}.png", i)
    items = records() if items is None else items
    (folder / name).write_text("".join(f"{json.dumps(item)}\n" for item in items))
    return folder


def coco(folder: Path, captions: list[Any] | None = None, objects: bool = True) -> Path:
    """The layout of coco_mini_captions: pictures 1 and 2 with two captions and an object each."""
    images = [{"id": i, "file_name": f"{i}.png", "width": WIDTH, "height": HEIGHT} for i in (1, 2)]
    for i in (1, 2):
        photo(folder / "images" / f"{i}.png", i)
    said = [f"caption {i} of {i % 2 + 1}" for i in range(4)] if captions is None else captions
    items = [{"id": i, "image_id": i % 2 + 1, "caption": text} for i, text in enumerate(said)]
    (folder / "captions.json").write_text(json.dumps({"images": images, "annotations": items}))
    if objects:
        things = [
            {"id": i, "image_id": i, "category_id": 7, "bbox": [35, 1, 8, 10], "area": 50,
             "iscrowd": i - 1} for i in (1, 2)
        ]  # fmt: skip
        kinds = [{"id": 3, "name": "mat"}, {"id": 7, "name": "cat"}]
        text = json.dumps({"images": images, "annotations": things, "categories": kinds})
        (folder / "instances.json").write_text(text)
    return folder


def refer(folder: Path, pickled: bool = True, **changes: Any) -> Path:
    """The layout of RefCOCO."""
    coco(folder)
    (folder / "captions.json").unlink()
    found = [
        {"ref_id": i, "ann_id": i, "image_id": i, "split": split, "category_id": 7,
         "file_name": f"{i}.png", "sent_ids": [i],
         "sentences": [{"sent_id": i, "sent": f"left cat {i}", "raw": "Left cat", "tokens": []}],
         **changes}
        for i, split in ((1, "train"), (2, "testA"))
    ]  # fmt: skip
    if pickled:
        (folder / "refs(unc).p").write_bytes(pickle.dumps(found, protocol=2))
    else:
        (folder / "refs.json").write_text(json.dumps(found))
    return folder


SENTENCE = (
    "[/EN#11/people Two men] near [/EN#12/other the big dog] , [/EN#0/notvisual which] runs ."
)
NOTES = """<annotation><filename>7.png</filename>
<size><width>40</width><height>30</height><depth>3</depth></size>
<object><name>11</name><bndbox><xmin>1</xmin><ymin>2</ymin><xmax>10</xmax><ymax>30</ymax></bndbox>
</object>
<object><name>11</name><bndbox><xmin>11</xmin><ymin>2</ymin><xmax>40</xmax><ymax>30</ymax></bndbox>
</object>
<object><name>12</name><scene>1</scene><nobndbox>0</nobndbox></object></annotation>"""


def flickr30k(folder: Path, sentence: str = SENTENCE, notes: str = NOTES) -> Path:
    """The layout of Flickr30k Entities, of one photo with two sentences."""
    for name, text in (
        ("Sentences/7.txt", f"{sentence}\n{sentence}\n"),
        ("Annotations/7.xml", notes),
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    photo(folder / "flickr30k-images" / "7.png")
    (folder / "test.txt").write_text("7\n")
    return folder


Members = list[tuple[str, bytes]]


def shard(file: Path, members: Members, form: int = tarfile.USTAR_FORMAT) -> Path:
    """A tar of these members."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(file, "w", format=form) as tar:
        for name, said in members:
            info = tarfile.TarInfo(name)
            info.size = len(said)
            tar.addfile(info, io.BytesIO(said))
    return file


def members(numbers: range, size: tuple[int, int] = (WIDTH, HEIGHT)) -> Members:
    """Pictures and texts of records."""
    return [
        one for i in numbers
        for one in ((f"{i:04d}.png", content(i, size)), (f"{i:04d}.txt", f"caption {i}".encode()))
    ]  # fmt: skip
