"""Small sets of pictures with objects or label maps, as the tools of others export them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

WIDTH, HEIGHT = 40, 30
NAMES = ("cat", "dog")
BOXES = ((10.0, 5.0, 10.0, 12.0), (22.0, 8.0, 12.0, 6.0))
"""x, y, width, height of the objects of each picture, one of each class."""


def picture(path: Path, seed: int = 0, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.RandomState(seed).randint(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    for value, (x, y, w, h) in zip((250, 5), BOXES, strict=True):
        pixels[int(y) : int(y + h), int(x) : int(x + w)] = value
    Image.fromarray(pixels).save(path, **options)
    return path


def polygon(box: Sequence[float]) -> list[float]:
    x, y, w, h = box
    return [x, y, x + w, y, x + w, y + h, x, y + h]


def coco(file: Path, names: Sequence[str], masks: bool = True, **changes: Any) -> Path:
    """An annotation file of pictures of these names, with two objects each."""
    size = {"height": HEIGHT, "width": WIDTH}
    items = [
        {"id": 2 * i + k, "image_id": i, "category_id": k + 1, "bbox": list(box), "iscrowd": 0,
         "area": box[2] * box[3], "segmentation": [polygon(box)] if masks else []}
        for i in range(len(names)) for k, box in enumerate(BOXES)
    ]  # fmt: skip
    content = {
        "images": [{"id": i, "file_name": name} | size for i, name in enumerate(names)],
        "categories": [{"id": i + 1, "name": name} for i, name in enumerate(NAMES)],
        "annotations": items,
    } | changes
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content))
    return file


def pictures(folder: Path, count: int, ending: str = "jpg") -> list[str]:
    return [picture(folder / f"p{i}.{ending}", i).name for i in range(count)]


def roboflow(root: Path) -> None:
    for split, count in (("train", 4), ("valid", 2), ("test", 1)):
        coco(root / split / "_annotations.coco.json", pictures(root / split, count))


def cvat(root: Path) -> None:
    coco(root / "annotations" / "instances_default.json", pictures(root / "images", 5))


def cvat_subset(root: Path) -> None:
    names = pictures(root / "images" / "default", 5)
    coco(root / "annotations" / "instances_default.json", names)


def label_studio(root: Path) -> None:
    coco(root / "result.json", [f"images\\{n}" for n in pictures(root / "images", 5)])


def elsewhere(root: Path) -> None:
    coco(root / "export.json", [f"/mnt/disk/{n}" for n in pictures(root / "images", 5)])


def fiftyone(root: Path) -> None:
    for split, count in (("train", 4), ("validation", 2)):
        coco(root / split / "labels.json", pictures(root / split / "data", count))


def published(root: Path) -> None:
    for split, count in (("train", 4), ("val", 2)):
        names = pictures(root / f"{split}2017", count)
        coco(root / "annotations" / f"instances_{split}2017.json", names)
        coco(root / "annotations" / f"person_keypoints_{split}2017.json", names)


COCO: dict[str, Callable[[Path], None]] = {
    f.__name__: f
    for f in (roboflow, cvat, cvat_subset, label_studio, elsewhere, fiftyone, published)
}
"""Layouts of COCO's form."""


def yolo_line(label: int, box: Sequence[float], outline: bool = False) -> str:
    x, y, w, h = box
    values = [(x + w / 2) / WIDTH, (y + h / 2) / HEIGHT, w / WIDTH, h / HEIGHT]
    if outline:
        scale = (WIDTH, HEIGHT) * 4
        values = [v / s for v, s in zip(polygon(box), scale, strict=True)]
    return " ".join([str(label), *(f"{v:.6f}" for v in values)])


def yolo(images: Path, labels: Path, count: int, outline: bool = False) -> None:
    """Pictures with two objects each, but for the last one, which has no label file."""
    for name in pictures(images, count)[:-1]:
        labels.mkdir(parents=True, exist_ok=True)
        lines = [yolo_line(k, box, outline) for k, box in enumerate(BOXES)]
        (labels / name).with_suffix(".txt").write_text("\n".join(lines) + "\n")


def ultralytics(root: Path) -> None:
    for split, count in (("train", 4), ("val", 2)):
        yolo(root / "images" / split, root / "labels" / split, count, outline=True)
    text = "path: /elsewhere\ntrain: images/train\nval: images/val\nnames:\n  0: cat\n  1: dog\n"
    (root / "data.yaml").write_text(text)


def roboflow_yolo(root: Path) -> None:
    for split, count in (("train", 4), ("valid", 2)):
        yolo(root / split / "images", root / split / "labels", count)
    text = "train: ../train/images\nval: ../valid/images\nnc: 2\nnames: ['cat', 'dog']\n"
    (root / "data.yaml").write_text(text)


def label_studio_yolo(root: Path) -> None:
    yolo(root / "images", root / "labels", 5)
    (root / "classes.txt").write_text("cat\ndog\n")


def darknet(root: Path) -> None:
    yolo(root / "obj_train_data", root / "obj_train_data", 5)
    (root / "obj.names").write_text("cat\ndog\n")
    (root / "train.txt").write_text("".join(f"data/obj_train_data/p{i}.jpg\n" for i in range(5)))


YOLO: dict[str, Callable[[Path], None]] = {
    f.__name__: f for f in (ultralytics, roboflow_yolo, label_studio_yolo, darknet)
}
"""Layouts of YOLO's text files."""


def label_map(path: Path, values: Sequence[int] = (0, 1, 2), mode: str = "L") -> Path:
    """Background and the two objects of `picture`, stored as these values."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full((HEIGHT, WIDTH), values[0], dtype=np.uint8)
    for value, (x, y, w, h) in zip(values[1:], BOXES, strict=True):
        pixels[int(y) : int(y + h), int(x) : int(x + w)] = value
    image = Image.fromarray(pixels)
    if mode == "P":
        image.putpalette([7 * i % 256 for i in range(768)])
    image.save(path)
    return path


def maps(images: Path, labels: Path, count: int, more: str = "", **options: Any) -> None:
    for name in pictures(images, count):
        label_map(labels / f"{Path(name).stem}{more}.png", **options)


def splits_inside(root: Path) -> None:
    for split, count in (("train", 4), ("val", 2)):
        maps(root / "images" / split, root / "masks" / split, count, mode="P")
    (root / "classes.txt").write_text("\ufeffground\ncat\ndog\n", encoding="utf-8")


def splits_around(root: Path) -> None:
    for split, count in (("train", 4), ("valid", 2)):
        maps(root / split / "images", root / split / "labels", count)
    (root / "labels.json").write_text(
        json.dumps({"labels": {"0": "ground", "1": "cat", "2": "dog"}})
    )


def undivided(root: Path) -> None:
    maps(root / "images", root / "annotations", 5)
    (root / "classes.json").write_text(json.dumps({"ground": 0, "cat": 1, "dog": 2}))


def like_camvid(root: Path) -> None:
    for split, count in (("train", 4), ("test", 2)):
        maps(root / split, root / f"{split}annot", count)
    (root / "classes.txt").write_text("cat\ndog\n")  # without the background


def by_words(root: Path) -> None:
    for split, count in (("train", 4), ("test", 2)):
        maps(root / f"images_prepped_{split}", root / f"annotations_prepped_{split}", count)
    (root / "classes.txt").write_text("ground\ncat\ndog\n")


def roboflow_maps(root: Path) -> None:
    for split, count in (("train", 4), ("valid", 2)):
        maps(root / split, root / split, count, "_mask")
        (root / split / "_classes.csv").write_text(
            "Pixel Value, Class\n0, ground\n1, cat\n2, dog\n"
        )


def cvat_maps(root: Path) -> None:
    """In colours that a list explains."""
    for name in pictures(root / "JPEGImages", 5):
        file = root / "SegmentationClass" / f"{Path(name).stem}.png"
        pixels = np.asarray(Image.open(label_map(file)))
        colours = np.array([[0, 0, 0], [250, 50, 83], [51, 221, 255]], dtype=np.uint8)
        Image.fromarray(colours[pixels]).save(file)
    lines = ["# label:color_rgb:parts:actions", "ground:0,0,0::", "cat:250,50,83::"]
    (root / "labelmap.txt").write_text("\n".join([*lines, "dog:51,221,255::"]))


MAPS: dict[str, Callable[[Path], None]] = {
    f.__name__: f
    for f in (
        splits_inside,
        splits_around,
        undivided,
        like_camvid,
        by_words,
        roboflow_maps,
        cvat_maps,
    )
}
"""Layouts of label maps."""
