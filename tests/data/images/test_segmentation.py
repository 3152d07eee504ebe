"""Folders of pictures and label maps: layouts, and what is wrong with them."""

from __future__ import annotations

import json
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tenfold.data.images import segmentation
from tenfold.data.images.segmentation import open_segmentation, read_labels


def picture(path: Path, width: int = 30, height: int = 20) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((height, width, 3), 90, dtype=np.uint8)).save(path)
    return path


def labels(path: Path, values: np.ndarray, mode: str = "L") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values.astype(np.uint8)).convert(mode).save(path)
    return path


def camvid(folder: Path, value: int = 3) -> Path:
    picture(folder / "train" / "x.png")
    map_ = np.full((20, 30), 2)
    map_[0, 5], map_[1, 6] = value, 11
    labels(folder / "trainannot" / "x.png", map_)
    return folder


def test_camvid(tmp_path: Path) -> None:
    found = open_segmentation(camvid(tmp_path), "camvid", "train")
    shown, known = found.scene(0)
    assert shown.shape == (20, 30, 3) and (known[0, 5], known[1, 6]) == (3, 255)
    assert len(found.classes) == 11 and len(found) == 1 and len(found.at([])) == 0
    assert found.at([0]).scene(0)[1].tolist() == known.tolist()


def test_a_label_out_of_range_is_named(tmp_path: Path) -> None:
    found = open_segmentation(camvid(tmp_path, 42), "camvid", "train")
    with pytest.raises(
        ValueError, match=r"x\.png holds label 42 at row 0, column 5, .* 11 classes .*Remap"
    ):
        found.scene(0)


def test_pairs_and_sizes(tmp_path: Path) -> None:
    folder = camvid(tmp_path)
    picture(folder / "train" / "y.png")
    with pytest.raises(ValueError, match="'y' has no label map"):
        open_segmentation(folder, "camvid", "train")
    labels(folder / "trainannot" / "y.png", np.zeros((5, 6)))
    labels(folder / "trainannot" / "z.png", np.zeros((5, 6)))
    with pytest.raises(ValueError, match="'z' has no picture"):
        open_segmentation(folder, "camvid", "train")
    (folder / "trainannot" / "z.png").unlink()
    found = open_segmentation(folder, "camvid", "train")
    with pytest.raises(ValueError, match="6 x 5 pixels, its picture y.png 30 x 20"):
        found.scene(1)
    picture(folder / "train" / "x.jpg")
    with pytest.raises(ValueError, match="several files of one name but for the ending: x"):
        open_segmentation(folder, "camvid", "train")


def test_links_that_lead_out_of_the_folder(tmp_path: Path) -> None:
    outside = picture(tmp_path / "outside.png")
    folder = camvid(tmp_path / "set")
    (folder / "train" / "x.png").unlink()
    (folder / "train" / "x.png").symlink_to(outside)
    with pytest.raises(ValueError, match="leads out of"):
        open_segmentation(folder, "camvid", "train")


def car_parts(folder: Path, count: int) -> Path:
    for name in [*(f"train_{i:02d}" for i in range(count)), "test_1"]:
        picture(folder / "images" / f"{name}.webp", 2, 2)
        labels(folder / "parts" / f"{name}.png", np.full((2, 2), 18))
    names = ["background", *(f"part {i}" for i in range(18))]
    (folder / "labels.json").write_text(json.dumps({"labels": names}))
    return folder


def test_car_parts(tmp_path: Path) -> None:
    folder = car_parts(tmp_path, 3)
    train, test = (open_segmentation(folder, "car_parts", split) for split in ("train", "test"))
    assert [len(found) for found in (train, test)] == [3, 1]
    assert len(test.classes) == 19 and (test.scene(0)[1] == 18).all()
    with pytest.raises(ValueError, match="split 'val' of car_parts holds no picture"):
        open_segmentation(folder, "car_parts", "val")


@pytest.mark.parametrize(
    ("content", "says"),
    [(b"{", "is no JSON"), (b'{"labels": 3}', "is no list of names"), (b"\xff", "is no UTF-8")],
)
def test_lists_that_are_none(tmp_path: Path, content: bytes, says: str) -> None:
    folder = car_parts(tmp_path, 1)
    (folder / "labels.json").write_bytes(content)
    with pytest.raises(ValueError, match=f"labels.json {says}"):
        open_segmentation(folder, "car_parts", "train")


def test_lists_of_any_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segmentation, "MOST_TEXT", 10)
    with pytest.raises(ValueError, match=r"labels.json has more than 10 bytes"):
        open_segmentation(car_parts(tmp_path, 1), "car_parts", "train")


def test_ade20k_counts_from_one(tmp_path: Path) -> None:
    picture(tmp_path / "images" / "training" / "x.jpg")
    map_ = np.full((20, 30), 150)
    map_[0, :2] = 0, 255
    labels(tmp_path / "annotations" / "training" / "x.png", map_)
    found = open_segmentation(tmp_path, "ade20k", "train")
    known = found.scene(0)[1]
    assert len(found.classes) == 150 and known[0, :3].tolist() == [255, 255, 149]
    assert found.classes[0] == "class 1"
    rows = [f"{i}\t0.1\t5\t1\t1\tthing {i}, other name" for i in range(1, 151)]
    file = tmp_path / "objectInfo150.txt"
    file.write_text("Idx\tRatio\tTrain\tVal\tStuff\tName\n" + "\n".join(rows))
    assert open_segmentation(tmp_path, "ade20k", "train").classes[149] == "thing 150"
    file.write_text("Idx\n" + "\n".join(rows[:7]))
    with pytest.raises(ValueError, match="lists 7 classes, expected 150"):
        open_segmentation(tmp_path, "ade20k", "train")
    labels(tmp_path / "annotations" / "training" / "x.png", map_ + 1)
    with pytest.raises(ValueError, match="label 151 .*stored as 1-150"):
        found.scene(0)
    with pytest.raises(FileNotFoundError, match="validation is not there"):
        open_segmentation(tmp_path, "ade20k", "val")


def voc(folder: Path) -> Path:
    picture(folder / "JPEGImages" / "x.jpg")
    map_ = np.full((20, 30), 20)
    map_[0] = 255
    path = folder / "SegmentationClass" / "x.png"
    path.parent.mkdir()
    image = Image.fromarray(map_.astype(np.uint8), "P")
    image.putpalette(list(range(256)) * 3)
    image.save(path)
    listing = folder / "ImageSets" / "Segmentation" / "train.txt"
    listing.parent.mkdir(parents=True)
    listing.write_text("x\n")
    return listing


def test_voc_reads_palettes_and_lists(tmp_path: Path) -> None:
    listing = voc(tmp_path)
    found = open_segmentation(tmp_path, "voc2012", "train")
    assert set(np.unique(found.scene(0)[1])) == {20, 255} and len(found.classes) == 21
    listing.write_text("../x\n")
    with pytest.raises(ValueError, match="no name of a picture"):
        open_segmentation(tmp_path, "voc2012", "train")
    listing.write_text("y\n")
    with pytest.raises(FileNotFoundError, match=r"y\.jpg, listed in .*train.txt, is not there"):
        open_segmentation(tmp_path, "voc2012", "train")
    listing.write_text("")
    with pytest.raises(ValueError, match="split 'train' of voc2012 holds no picture"):
        open_segmentation(tmp_path, "voc2012", "train")
    with pytest.raises(FileNotFoundError, match=r"val.txt is not there"):
        open_segmentation(tmp_path, "voc2012", "val")


def test_voc_links_that_lead_out_of_the_folder(tmp_path: Path) -> None:
    voc(tmp_path / "set")
    file = tmp_path / "set" / "JPEGImages" / "x.jpg"
    file.unlink()
    file.symlink_to(picture(tmp_path / "outside.jpg"))
    with pytest.raises(ValueError, match="leads out of"):
        open_segmentation(tmp_path / "set", "voc2012", "train")


def test_no_such_set(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'nothing' is no set of label maps; .*camvid"):
        open_segmentation(tmp_path, "nothing", "train")


# --- label maps --------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "CMYK", "I;16"])
def test_colours_and_depths_are_no_labels(tmp_path: Path, mode: str) -> None:
    file = tmp_path / ("x.tif" if mode == "CMYK" else "x.png")
    values = {"RGB": (1, 2, 3), "RGBA": (1, 2, 3, 255), "CMYK": (1, 2, 3, 4), "I;16": 256}
    Image.new(mode, (3, 2), values[mode]).save(file)
    with pytest.raises(ValueError, match=r"x\.(png|tif) .*(mode \w+, not one number|up to 256)"):
        read_labels(file)


def test_advice_about_colours_is_of_folders_that_can_take_it(tmp_path: Path) -> None:
    Image.new("RGB", (3, 2), (1, 2, 3)).save(tmp_path / "x.png")
    with pytest.raises(ValueError, match=r"in a folder of your own, be listed .*labelmap\.txt"):
        read_labels(tmp_path / "x.png")


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "I;16", "L", "P", "1"])
def test_grey_in_any_dress(tmp_path: Path, mode: str) -> None:
    file = tmp_path / "x.png"
    value = {"RGB": (1, 1, 1), "RGBA": (1, 1, 1, 255), "LA": (1, 255)}.get(mode, 1)
    Image.new(mode, (3, 2), value).save(file)
    assert read_labels(file).tolist() == [[1] * 3] * 2


def grey_png(bits: int, *rows: list[int]) -> bytes:
    """A grey PNG of numbers of a few bits, which Pillow itself does not write."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(
            ">I", zlib.crc32(name + content)
        )  # fmt: skip

    packed = b""
    for row in rows:
        text = "".join(f"{value:0{bits}b}" for value in row)
        text += "0" * (-len(text) % 8)
        packed += b"\0" + int(text, 2).to_bytes(len(text) // 8, "big")
    head = struct.pack(">IIBBBBB", len(rows[0]), len(rows), bits, 0, 0, 0, 0)
    body = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(packed)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_grey_of_few_bits_is_not_stretched(tmp_path: Path, bits: int) -> None:
    top = 2**bits - 1
    rows = [[0, 1, top], [top, top // 2, 0]]
    (tmp_path / "x.png").write_bytes(grey_png(bits, *rows))
    assert read_labels(tmp_path / "x.png").tolist() == rows


@pytest.mark.parametrize("orientation", [3, 6])
def test_label_maps_are_never_turned(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    values = np.arange(6, dtype=np.uint8).reshape(2, 3)
    Image.fromarray(values).save(tmp_path / "x.png", exif=exif)
    assert read_labels(tmp_path / "x.png").tolist() == values.tolist()


def test_files_that_are_no_label_maps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "x.png"
    with pytest.raises(FileNotFoundError, match=r"label map .*x\.png is not there"):
        read_labels(file)
    Image.new("L", (8, 8)).save(file, format="JPEG")
    with pytest.raises(ValueError, match=r"x\.png is no PNG, or damaged. Save it"):
        read_labels(file)
    frames = [Image.new("L", (8, 8), value) for value in (1, 2)]
    frames[0].save(file, save_all=True, append_images=frames[1:])
    with pytest.raises(ValueError, match="it is an animation"):
        read_labels(file)
    content = labels(file, np.random.RandomState(0).randint(0, 5, (40, 40))).read_bytes()
    for end in (10, 30, 60, len(content) // 2):
        file.write_bytes(content[:end])
        with pytest.raises(ValueError, match=r"label map .*x\.png"):
            read_labels(file)
    file.write_bytes(content)
    monkeypatch.setattr(segmentation, "MAX_PIXELS", 100)
    with pytest.raises(ValueError, match="more than 100 pixels"):
        read_labels(file)


@pytest.mark.parametrize(
    ("name", "split", "count", "classes"),
    [
        ("camvid", "train", 367, 11),
        ("camvid", "val", 101, 11),
        ("camvid", "test", 233, 11),
        ("car_parts", "train", 400, 19),
        ("car_parts", "test", 100, 19),
    ],
)
def test_real_sets(name: str, split: str, count: int, classes: int) -> None:
    folder = Path(os.environ.get("TENFOLD_DATA", "/nowhere")) / name
    if not folder.is_dir():
        pytest.skip(f"{name} is absent; set TENFOLD_DATA")
    found = open_segmentation(folder, name, split)
    assert (len(found), len(found.classes)) == (count, classes)
    seen: set[int] = set()
    for index in range(0, len(found), 10):
        shown, known = found.scene(index)
        assert shown.shape[:2] == known.shape
        seen |= set(np.unique(known).tolist())
    assert len(seen - {255}) > classes // 2 and max(seen - {255}) < classes
