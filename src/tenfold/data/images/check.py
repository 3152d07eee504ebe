"""Checks of image sets: pictures, label masks, and JSON files that refer to them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np

from ..io.problems import Problems, some

IMAGES = {".webp", ".png", ".jpg", ".jpeg"}

CAMVID_SPLITS = {"train": 367, "val": 101, "test": 233}
COUNTS = {
    "streetsim": 500,
    "clothing_parsing": 1004,
    "car_parts": 500,
    "coco_wsss": 384,
    "coco_tiny": 100,
    "coco_mini_captions": 159,
    "ade20k_sample": 3,
    "mini_imagenet": 60_000,
    "cub200": 11_788,
}
"""Number of images of each set."""
MINI_EACH = {"train": 500, "test": 100}
"""Pictures of each of its 100 classes."""
COCO = {
    "coco_tiny/instances_train.json": (50, 470, 80),
    "coco_tiny/instances_val.json": (50, 382, 80),
    "coco_mini_captions/instances.json": (159, 1363, 80),
    "coco_mini_captions/captions.json": (159, 795, 0),
    "car_parts/instances_train.json": (400, 3278, 18),
    "car_parts/instances_test.json": (100, 855, 18),
}
"""Images, annotations and categories of each COCO file."""
NUCLEI = {"images": 664, "train": 466, "val": 99, "test": 99}
WSSS_SPLITS = {"train": 284, "val": 70, "nolabel": 30}


def _decoded(
    f: Problems, folder: Path, expected: int, suffixes: Collection[str] = IMAGES
) -> dict[str, tuple[int, int]]:
    """Decode every picture of a folder; return (height, width) by file stem."""
    sizes: dict[str, tuple[int, int]] = {}
    for file in f.sample(f.listing(folder, suffixes, expected)):
        pixels = f.image(file)
        if pixels is not None:
            sizes[file.stem] = (pixels.shape[0], pixels.shape[1])
    return sizes


def _masks(
    f: Problems, folder: Path, images: dict[str, tuple[int, int]], labels: Collection[int]
) -> dict[str, np.ndarray]:
    """Check the mask of every image: present, same size, labels allowed; return the good ones."""
    allowed = np.zeros(65536, dtype=bool)
    allowed[list(labels)] = True
    good = {}
    for stem, size in images.items():
        file = folder / f"{stem}.png"
        if not f.exists(file):
            continue
        mask = f.image(file)
        if mask is None:
            continue
        if mask.shape != size:
            f.problem(file, f"has shape {mask.shape}, its image has {size}")
            continue
        present = np.flatnonzero(np.bincount(mask.ravel()))
        wrong = present[~allowed[present]].tolist()
        if wrong:
            f.problem(file, f"holds label {some(wrong)}, allowed are {_span(labels)}")
            continue
        good[stem] = mask
    return good


def _span(labels: Collection[int]) -> str:
    ordered = sorted(labels)
    last = next((i for i, label in enumerate(ordered) if label != ordered[0] + i), len(ordered))
    text = f"{ordered[0]}-{ordered[last - 1]}"
    return text if last == len(ordered) else f"{text} and {some(ordered[last:])}"


def check_camvid(f: Problems) -> None:
    """Three splits; every image has a mask with labels 0-10 or 11 (ignore)."""
    there = [split for split in CAMVID_SPLITS if (f.folder / split).is_dir()]
    for split, expected in CAMVID_SPLITS.items():
        if there and split not in there:
            f.note(f"{split}: is not there; the published set has {expected} pictures")
            continue
        images = _decoded(f, f.folder / split, expected)
        f.listing(f.folder / f"{split}annot", {".png"}, expected)
        _masks(f, f.folder / f"{split}annot", images, range(12))


def check_streetsim(f: Problems) -> None:
    """Labels 0-10, and the pixel counts of sample_class_stats.json."""
    images = _decoded(f, f.folder / "images", COUNTS["streetsim"])
    masks = _masks(f, f.folder / "labels", images, range(11))
    file = f.folder / "sample_class_stats.json"
    stats = f.json(file)
    if stats is None:
        return
    f.expect(file, "number of entries", len(stats), COUNTS["streetsim"])
    for item in stats:
        mask = masks.get(Path(item["file"]).stem)
        if mask is None:
            continue
        counts = np.bincount(mask.ravel(), minlength=11)
        for label in range(11):
            f.expect(
                file,
                f"pixels of class {label} in {item['file']}",
                item.get(str(label), 0),
                int(counts[label]),
            )


def check_clothing_parsing(f: Problems) -> None:
    """Images and masks of labels 0-58."""
    images = _decoded(f, f.folder / "images", COUNTS["clothing_parsing"])
    labels = f.json(f.folder / "labels.json")
    if labels is not None:
        f.expect(f.folder / "labels.json", "number of labels", len(labels["labels"]), 59)
    _masks(f, f.folder / "labels", images, range(59))


def check_car_parts(f: Problems) -> None:
    """COCO polygons of 18 parts and the label map of every image."""
    images = _decoded(f, f.folder / "images", COUNTS["car_parts"])
    _masks(f, f.folder / "parts", images, range(19))
    _coco(f, f.folder / "instances_train.json", images)
    _coco(f, f.folder / "instances_test.json", images)
    labels = f.json(f.folder / "labels.json")
    if labels is not None:
        f.expect(f.folder / "labels.json", "number of labels", len(labels["labels"]), 19)


def check_coco_tiny(f: Problems) -> None:
    """Both instance files against the images."""
    images = _decoded(f, f.folder / "images", COUNTS["coco_tiny"])
    _coco(f, f.folder / "instances_train.json", images)
    _coco(f, f.folder / "instances_val.json", images)


def check_coco_mini_captions(f: Problems) -> None:
    """Boxes, and exactly five captions an image."""
    images = _decoded(f, f.folder / "images", COUNTS["coco_mini_captions"])
    _coco(f, f.folder / "instances.json", images)
    file = f.folder / "captions.json"
    data = _coco(f, file, images)
    if data is None:
        return
    count = Counter(item["image_id"] for item in data["annotations"])
    wrong = [i["id"] for i in data["images"] if count[i["id"]] != 5]
    if wrong:
        f.problem(file, f"images without exactly 5 captions: {some(wrong)}")
    blank = [item["id"] for item in data["annotations"] if not item["caption"].strip()]
    if blank:
        f.problem(file, f"empty captions: {some(blank)}")


def _coco(f: Problems, file: Path, images: dict[str, tuple[int, int]]) -> Any:
    """References and boxes of one COCO file; `images` holds the true (height, width)."""
    data = f.json(file)
    if data is None:
        return None
    counts = COCO[f"{f.key}/{file.name}"]
    parts = ("images", "annotations", "categories")
    for part, expected in zip(parts, counts, strict=True):
        f.published(file, part, len(data.get(part, ())), expected)
        ids = [item["id"] for item in data.get(part, ())]
        twice = [key for key, times in Counter(ids).items() if times > 1]
        if twice:
            f.problem(file, f"{part} with the same id: {some(twice)}")
    known = {item["id"]: item for item in data["images"]}
    categories = {item["id"] for item in data.get("categories", ())}
    for item in data["images"]:
        stem = Path(item["file_name"]).stem
        if not (f.folder / "images" / item["file_name"]).exists():
            f.problem(file, f"image {item['id']}: images/{item['file_name']} is missing")
        elif stem in images and "width" in item:
            size = (item["height"], item["width"])
            f.expect(file, f"image {item['id']}: (height, width)", size, images[stem])
    for item in data["annotations"]:
        where = f"annotation {item['id']}"
        if item["image_id"] not in known:
            f.problem(file, f"{where}: image_id {item['image_id']} is not among the images")
        elif "bbox" in item:
            _annotation(f, file, where, item, known[item["image_id"]], categories)
    return data


def _annotation(
    f: Problems,
    file: Path,
    where: str,
    item: dict[str, Any],
    image: dict[str, Any],
    categories: set[int],
) -> None:
    width, height = image["width"], image["height"]
    if item["category_id"] not in categories:
        f.problem(file, f"{where}: category_id {item['category_id']} is not among the categories")
    x, y, w, h = item["bbox"]
    if w <= 0 or h <= 0:
        f.problem(file, f"{where}: box {item['bbox']} has no area")
    elif x < -0.5 or y < -0.5 or x + w > width + 0.5 or y + h > height + 0.5:
        f.problem(file, f"{where}: box {item['bbox']} leaves the image of {width}x{height}")
    mask = item.get("segmentation", [])
    if isinstance(mask, dict):
        f.expect(file, f"{where}: size of its run-length mask", mask["size"], [height, width])
        return
    for polygon in mask:
        xs, ys = np.array(polygon[0::2]), np.array(polygon[1::2])
        if len(polygon) < 6 or len(polygon) % 2:
            f.problem(file, f"{where}: polygon of {len(polygon)} numbers, expected x,y of >= 3")
        elif min(xs.min(), ys.min()) < -1 or xs.max() > width + 1 or ys.max() > height + 1:
            f.problem(file, f"{where}: polygon leaves the image of {width}x{height}")


def check_coco_wsss(f: Problems) -> None:
    """Both kinds of masks, the split lists, and the image labels that the masks imply."""
    images = _decoded(f, f.folder / "images", COUNTS["coco_wsss"])
    fine = _masks(f, f.folder / "masks80", images, {*range(81), 255})
    groups = _masks(f, f.folder / "SegmentationClass", images, {*range(7), 255})
    splits = {}
    for split, expected in WSSS_SPLITS.items():
        file = f.folder / "ImageSets" / f"{split}.txt"
        splits[split] = f.lines(file)
        f.published(file, "lines", len(splits[split]), expected)
    file = f.folder / "labels.json"
    labels = f.json(file)
    if labels is None:
        return
    names = labels["images"]
    count = Counter(name for part in splits.values() for name in part)
    wrong = [name for name in {*names, *count} if count[name] != 1 or name not in names]
    if wrong:
        f.problem(file, f"not in exactly one list of ImageSets: {some(sorted(wrong))}")
    for name, item in names.items():
        if name in images:
            f.expect(file, f"{name}: size", item["size"], list(images[name]))
        if name in fine:
            present = [int(c) for c in np.unique(fine[name]) if 0 < c < 255]
            f.expect(file, f"{name}: classes80", item["classes80"], present)
        if name in groups:
            implied = [int((groups[name] == group).any()) for group in range(1, 7)]
            f.expect(file, f"{name}: label", item["label"], implied)


def check_nuclei_dsb2018(f: Problems) -> None:
    """16-bit instance masks, numbered 1..n as index.json counts them."""
    images = _decoded(f, f.folder / "images", NUCLEI["images"])
    masks = _masks(f, f.folder / "masks", images, range(65536))
    file = f.folder / "index.json"
    index = f.json(file)
    if index is None:
        return
    for split in ("train", "val", "test"):
        found = sum(item["split"] == split for item in index)
        f.published(file, f"entries of split {split}", found, NUCLEI[split])
    for item in index:
        name = item["name"]
        if not (f.folder / "images" / f"{name}.webp").exists():
            f.problem(file, f"images/{name}.webp is missing")
        if name in masks:
            numbers = np.unique(masks[name])
            expected = list(range(1, item["nuclei"] + 1))
            if numbers[numbers > 0].tolist() != expected:
                f.problem(
                    f.folder / "masks" / f"{name}.png",
                    f"instances are not numbered 1..{item['nuclei']} as index.json says",
                )
            f.expect(
                file, f"{name}: (height, width)", (item["height"], item["width"]), images[name]
            )


def check_ade20k_sample(f: Problems) -> None:
    """Every object's parent exists, one level above it."""
    images = _decoded(f, f.folder, COUNTS["ade20k_sample"])
    for name, size in images.items():
        file = f.folder / f"{name}.json"
        data = f.json(file)
        if data is None:
            continue
        f.expect(file, "(height, width)", (data["height"], data["width"]), size)
        level = {item["id"]: item["part_level"] for item in data["objects"]}
        f.expect(file, "distinct object ids", len(level), len(data["objects"]))
        for item in data["objects"]:
            above = item["part_of"]
            if (above is None) != (item["part_level"] == 0):
                f.problem(file, f"object {item['id']}: level {item['part_level']}, parent {above}")
            elif above is not None and level.get(above) != item["part_level"] - 1:
                f.problem(file, f"object {item['id']}: parent {above} is not one level above")


def check_mini_imagenet(f: Problems) -> None:
    """Every picture opens, in either layout; class_order of fscil_index_lists has the labels."""
    roots = [f.folder, f.folder / "MINI-ImageNet", f.folder / "miniimagenet"]
    root = next((r for r in roots if (r / "images").is_dir() or (r / "train").is_dir()), f.folder)
    is_tree = not (root / "images").is_dir() and (root / "train").is_dir()
    for split, each in MINI_EACH.items():
        if is_tree:
            folders = sorted(x for x in (root / split).glob("n*") if x.is_dir())
            f.expect(root / split, "number of classes", len(folders), 100)
            for folder in folders:
                _decoded(f, folder, each)
        else:
            table = root / f"{split}.csv"
            lines = f.lines(table if table.is_file() else root / "split" / table.name)
            f.expect(table, "number of lines", len(lines), 1 + 100 * each)
    if not is_tree:
        _decoded(f, root / "images", COUNTS["mini_imagenet"])


def check_cub200(f: Problems) -> None:
    """images.txt names every picture, and every picture opens."""
    folder = f.folder / "CUB_200_2011" if (f.folder / "CUB_200_2011").is_dir() else f.folder
    lines = f.lines(folder / "images.txt")
    f.expect(folder / "images.txt", "number of images", len(lines), COUNTS["cub200"])
    for line in f.sample(lines):
        file = folder / "images" / line.split()[-1]
        if f.exists(file):
            f.image(file)
