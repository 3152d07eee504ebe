"""Checks of sets stored as arrays, text and lists: Tiny ImageNet, textmix, weather, CLIP, FSCIL."""

from __future__ import annotations

import gzip
import hashlib
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from ..io.problems import BROKEN, Problems, some

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Store:
    """An npz that holds JPEG files end to end: what it must contain."""

    file: str
    labels: range
    each: int
    """Images a class."""
    offset_key: str = "offset"
    label_key: str = "label"
    name_key: str = "name"
    sha256: str = ""
    """Of the published file; a file made by `prepare` may differ and still be right."""


TINY_20 = (
    Store("train.npz", range(20), 500, "offsets", "labels", "names"),
    Store("val.npz", range(20), 50, "offsets", "labels", "names"),
)
TINY_FSCIL = (
    Store(
        "train_base.npz",
        range(60),
        240,
        sha256="fb28186f562ec587dd244690038135d71e9ae0948f303bf2d61b5541fa5505cb",
    ),
    Store(
        "train_novel.npz",
        range(60, 100),
        25,
        sha256="9d322a8f0933a7796f628e39f2c9bc382a65b8906dd1f7380772ecf59e9fbabd",
    ),
    Store(
        "test.npz",
        range(100),
        50,
        sha256="a85d37db106978c815326a60864633e8adc541b69ecf4a1bde325240f105fe2d",
    ),
)
DRAWS = 5
"""Disjoint draws of 5 shots in train_novel.npz."""


def check_tiny_imagenet_20(f: Problems) -> None:
    """Offsets, labels, boxes, names; every JPEG decodes to 64x64."""
    for store in TINY_20:
        arrays = _store(f, store, ("boxes", "classes", "wnids"))
        if arrays is None:
            continue
        boxes, number = arrays["boxes"], len(arrays["labels"])
        if not f.expect(store.file, "shape of boxes", boxes.shape, (number, 4)):
            continue
        inside = (boxes.min(1) >= 0) & (boxes.max(1) <= 63)
        ordered = (boxes[:, 0] <= boxes[:, 2]) & (boxes[:, 1] <= boxes[:, 3])
        wrong = np.flatnonzero(~(inside & ordered)).tolist()
        if wrong:
            f.problem(store.file, f"boxes outside 0..63 or turned round at image {some(wrong)}")
        f.expect(store.file, "number of classes", len(arrays["classes"]), len(store.labels))
        _names(f, store, arrays, [str(wnid) for wnid in arrays["wnids"]])


def check_tiny_imagenet_fscil(f: Problems) -> None:
    """The three stores, classes.json, and the rows of the session lists."""
    classes = f.json(f.folder / "classes.json") or []
    labels = [item["label"] for item in classes]
    wnids = [item["wnid"] for item in classes]
    f.expect("classes.json", "labels 0..n-1 in order", labels == list(range(len(labels))), True)
    f.expect("classes.json", "number of distinct wnids", len(set(wnids)), TINY_FSCIL[2].labels.stop)
    novel = None
    for store in TINY_FSCIL:
        arrays = _store(f, store)
        if arrays is not None:
            _names(f, store, arrays, wnids)
            novel = arrays["label"] if store is TINY_FSCIL[1] else novel
            digest = hashlib.sha256((f.folder / store.file).read_bytes()).hexdigest()
            if store.sha256 and digest != store.sha256:
                f.note(f"{store.file} is not the published file byte for byte (sha256 {digest})")
    if novel is None:
        return
    first = TINY_FSCIL[1].labels.start
    for session in range(2, 2 + len(TINY_FSCIL[1].labels) // 5):
        file = f.folder / "index_list" / f"session_{session}.txt"
        rows = _numbers(f, file, f.lines(file), len(novel))
        if not rows:
            continue
        low = first + 5 * (session - 2)
        expected = [label for label in range(low, low + 5) for _ in range(5)]
        f.expect(file, "labels of its rows", novel[rows].tolist(), expected)
        f.expect(file, "distinct rows", len(set(rows)), len(rows))


def _store(f: Problems, store: Store, more: Sequence[str] = ()) -> Arrays | None:
    """Check one store of JPEG files; return its arrays if their lengths agree."""
    keys = (store.offset_key, store.label_key, store.name_key)
    arrays = f.npz(f.folder / store.file, ("jpeg", *keys, *more))
    if arrays is None:
        return None
    data = arrays["jpeg"]
    offsets, labels, names = (arrays[key] for key in keys)
    number = len(labels)
    f.expect(store.file, "number of images", number, store.each * len(store.labels))
    if data.dtype != np.uint8 or data.ndim != 1 or offsets.dtype != np.int64:
        f.problem(store.file, "jpeg must be one row of uint8, offsets int64")
        return None
    if offsets.shape != (number + 1,) or names.shape != (number,):
        f.problem(
            store.file,
            f"{number} labels need {number + 1} offsets and {number} names, "
            f"found {offsets.shape} and {names.shape}",
        )
        return None
    steps = np.flatnonzero(np.diff(offsets) <= 0).tolist()
    if steps or offsets[0] != 0 or offsets[-1] != len(data):
        where = f"not increasing after image {some(steps)}" if steps else "wrong at an end"
        f.problem(store.file, f"{store.offset_key} must rise from 0 to {len(data)}: {where}")
        return None
    wrong = np.flatnonzero(~np.isin(labels, np.array(store.labels))).tolist()
    if wrong:
        limits = f"{store.labels.start}-{store.labels.stop - 1}"
        f.problem(
            store.file,
            f"image {some(wrong)} has label {some(labels[wrong].tolist())}, allowed are {limits}",
        )
    for label in store.labels:
        f.expect(store.file, f"images of class {label}", int((labels == label).sum()), store.each)
    for index in f.sample(range(number)):
        _jpeg(f, store, index, str(names[index]), data[offsets[index] : offsets[index + 1]])
    return arrays


def _jpeg(f: Problems, store: Store, index: int, name: str, content: np.ndarray) -> None:
    f.seen()
    try:
        with Image.open(io.BytesIO(content.tobytes())) as image:
            image.load()
            size, form = image.size, image.format
    except BROKEN as error:
        f.problem(store.file, f"image {index} ({name}) does not decode: {error}")
        return
    if size != (64, 64) or form != "JPEG":
        f.problem(store.file, f"image {index} ({name}) is {form} {size}, expected JPEG (64, 64)")


def _names(f: Problems, store: Store, arrays: Arrays, wnids: list[str]) -> None:
    """Training files are called <wnid>_<number>.JPEG: the label must fit the wnid."""
    for index, name in enumerate(arrays[store.name_key].tolist()):
        label = int(arrays[store.label_key][index])
        if name.startswith("n") and label < len(wnids) and name.split("_")[0] != wnids[label]:
            f.problem(store.file, f"image {index} is {name}, but label {label} is {wnids[label]}")
            return
    if len(set(arrays[store.name_key].tolist())) != len(arrays[store.name_key]):
        f.problem(store.file, "holds a file name twice")


def _numbers(f: Problems, file: Path, lines: list[str], limit: int) -> list[int]:
    """Return the row numbers of an index list, or none with a problem recorded."""
    wrong = [line for line in lines if not (line.isdigit() and int(line) < limit)]
    if wrong:
        f.problem(file, f"line {some(wrong)!r} is not a row number below {limit}")
        return []
    return [int(line) for line in lines]


FSCIL = {
    # list: sessions, images of a session's file, classes of a session, base classes
    "cifar100": (9, 25, 5, 60),
    "cub200": (11, 50, 10, 100),
    "mini_imagenet": (9, 25, 5, 60),
}
BASE_LINES = {"cifar100": 30_000, "cub200": 3_000}
CIFAR_ROWS = 50_000


def check_fscil_index_lists(f: Problems) -> None:
    """Numbers of lines, classes of every session, no image in two sessions."""
    order = f.lines(f.folder / "mini_imagenet" / "class_order.txt")
    f.expect("mini_imagenet/class_order.txt", "distinct wnids", len(set(order)), 100)
    for name, (sessions, lines, classes, base) in FSCIL.items():
        used: dict[str, int] = {}
        for session in range(1 if name in BASE_LINES else 2, sessions + 1):
            file = f.folder / name / f"session_{session}.txt"
            found = f.lines(file)
            expected = BASE_LINES[name] if session == 1 else lines
            f.expect(file, "number of lines", len(found), expected)
            twice = [line for line in found if used.setdefault(line, session) != session]
            if twice:
                f.problem(file, f"images of an earlier session: {some(twice)}")
            f.expect(file, "distinct lines", len(set(found)), len(found))
            if name == "cifar100":
                _numbers(f, file, found, CIFAR_ROWS)
                continue
            labels = [_label(name, line, order) for line in found]
            low = 0 if session == 1 else base + classes * (session - 2)
            high = base if session == 1 else low + classes
            wrong = [
                line for line, label in zip(found, labels, strict=True) if not low <= label < high
            ]
            if wrong:
                f.problem(file, f"not of the classes {low}-{high - 1}: {some(wrong)}")
            elif session > 1:
                five = [label for label in range(low, high) for _ in range(5)]
                f.expect(file, "labels, 5 consecutive lines a class", labels, five)


def _label(name: str, line: str, order: list[str]) -> int:
    """Class of a line, or -1 if it has none."""
    if name == "cub200":
        match = re.fullmatch(r"CUB_200_2011/images/(\d{3})\.[^/]+/[^/]+\.jpg", line)
        return int(match[1]) - 1 if match else -1
    match = re.fullmatch(r"MINI-ImageNet/train/(n\d{8})/[^/]+\.jpg", line)
    return order.index(match[1]) if match and match[1] in order else -1


CIFAR_MD5 = {
    "train": "16019d7e3df5f24257cddd939b257f8d",
    "test": "f0ef6b0ae62326f3e7ffdfab6717acfc",
    "meta": "7973b15100ade9c7d40fb424638fde48",
}
"""Sums of the three pickles, as common loaders state them; they are not opened here."""
CIFAR_EACH = {"train": 500, "test": 100}
"""Pictures of a class."""


def check_cifar100(f: Problems) -> None:
    """MD5 of the three pickles; of the binary version, sizes, labels and names of classes."""
    from . import cifar  # torch, which the other checks do without

    try:
        _, is_binary = cifar.find(f.folder)
    except FileNotFoundError:
        is_binary = False  # then the pickles are missed below
    if is_binary:
        _cifar_binary(f)
        return
    nested = f.folder / "cifar-100-python"
    for name, expected in CIFAR_MD5.items():
        file = (nested if nested.is_dir() else f.folder) / name
        if f.exists(file):
            f.seen()
            f.expect(file, "md5", hashlib.md5(file.read_bytes()).hexdigest(), expected)


def _cifar_binary(f: Problems) -> None:
    from . import cifar

    try:
        names = cifar.class_names(f.folder)
        f.seen()
        for split, each in CIFAR_EACH.items():
            labels = cifar.read(f.folder, split).labels.numpy()
            f.seen()
            counts = np.bincount(labels, minlength=len(names))
            f.expect(f"{split}.bin", "pictures of a class", some(sorted(set(counts))), str(each))
    except (ValueError, FileNotFoundError) as error:
        f.problem(f.folder, str(error))


CLIP = {"lvis": (1203, 512), "coco": (80, 512), "pascal_part_rn50": (93, 1024)}
CLIP_NAMES = {"lvis_names": 1203, "coco_names": 80, "pascal_part_names": 93}
BPE_LINES = 262_145


def check_clip_text(f: Problems) -> None:
    """Shapes, finite values, distinct names, and the byte-pair table."""
    file = f.folder / "clip_vitb32_a_name.npz"
    arrays = f.npz(file, (*CLIP, *CLIP_NAMES))
    if arrays is not None:
        for key, shape in CLIP.items():
            f.expect(file, f"shape of {key}", arrays[key].shape, shape)
            f.expect(file, f"type of {key}", str(arrays[key].dtype), "float16")
            if not np.isfinite(arrays[key]).all():
                f.problem(file, f"{key} holds NaN or infinite values")
        for key, number in CLIP_NAMES.items():
            f.expect(file, f"distinct {key}", len(set(arrays[key].tolist())), number)
    file = f.folder / "bpe_simple_vocab_16e6.txt.gz"
    if f.exists(file):
        f.seen()
        try:
            lines = gzip.decompress(file.read_bytes()).decode("utf-8").splitlines()
        except BROKEN as error:
            f.problem(file, f"does not unpack: {error}")
            return
        f.expect(file, "number of lines", len(lines), BPE_LINES)
