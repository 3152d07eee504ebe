"""Every check is run on a small intact fake (clean) and on damaged ones (each damage named)."""

import hashlib
import io
import json
import lzma
import os
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from tenfold.data.checks import check
from tenfold.data.images import check as check_images
from tenfold.data.images import check_stores
from tenfold.data.motion import cmu_files
from tenfold.data.motion.check import ZERO_COLUMNS
from tenfold.data.text import check as check_text
from tenfold.data.weather import check as check_weather


def said(result, *words):
    """Whether one problem mentions all the words (in its file or text)."""
    return any(all(w in f"{p.file} {p.what}" for w in words) for p in result.problems)


def picture(file, size=(20, 16), mode="RGB", value=90):
    file.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.RandomState(value).randint(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).convert(mode).save(file)


def mask(file, array):
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(array)).save(file)


def write_json(file, data):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(data))


# CMU Mocap


def frames(count, seed=0):
    table = np.random.RandomState(seed).uniform(-1, 1, (count, 117)).astype(np.float32)
    table[:, ZERO_COLUMNS] = 0
    return table


@pytest.fixture
def mocap(monkeypatch):
    known = {"train/walking/walking_1": ("", 40), "test/walking/walking_1": ("", 30)}
    monkeypatch.setattr(cmu_files, "FILES", known)
    return {"train/walking/walking_1": frames(40), "test/walking/walking_1": frames(30, 1)}


def test_cmu_npz(tmp_path, mocap):
    np.savez(tmp_path / "benchmark.npz", **mocap)
    result = check("cmu_mocap", tmp_path)
    assert (result.files, result.problems, result.notes) == (3, [], [])


def test_cmu_damage(tmp_path, mocap):
    mocap["train/walking/walking_1"][[7, 9]] = np.nan
    mocap["test/walking/walking_1"] = frames(29)
    np.savez(tmp_path / "benchmark.npz", **mocap)
    result = check("cmu_mocap", tmp_path)
    assert said(result, "train/walking/walking_1", "NaN", "frame 7, 9")
    assert said(result, "test/walking/walking_1", "found 29, expected 30")
    mocap["train/walking/walking_1"] = np.roll(frames(40), 1, axis=1)
    mocap["test/walking/walking_1"] = np.zeros((30, 99), np.float64)
    np.savez(tmp_path / "benchmark.npz", **mocap)
    result = check("cmu_mocap", tmp_path)
    assert said(result, "columns", "shifted")
    assert said(result, "(30, 99)") and said(result, "float64")
    file = tmp_path / "benchmark.npz"
    file.write_bytes(file.read_bytes()[:-500])
    assert said(check("cmu_mocap", tmp_path), "benchmark.npz", "cannot be read")


def test_cmu_text_tree_and_missing_files_are_notes(tmp_path, mocap):
    file = tmp_path / "train/walking/walking_1.txt"
    file.parent.mkdir(parents=True)
    np.savetxt(file, mocap["train/walking/walking_1"], delimiter=",")
    result = check("cmu_mocap", tmp_path)
    assert result.problems == []
    assert "1 of 2 published files are absent: test/walking/walking_1" in result.notes[0]
    file.write_text(file.read_text() + "1,2,x\n")
    assert said(check("cmu_mocap", tmp_path), "walking_1.txt", "comma-separated")


def test_cmu_empty_folder(tmp_path):
    assert said(check("cmu_mocap", tmp_path), "neither benchmark.npz")


def test_h36m(tmp_path):
    file = tmp_path / "S1" / "walking_1.txt"
    file.parent.mkdir()
    np.savetxt(file, np.zeros((3, 98)), delimiter=",")
    result = check("h36m", tmp_path)
    assert said(result, "S1/walking_1.txt", "(frames, 99)") and said(result, "209 of 210")


# Tiny ImageNet


def jpeg(seed, size=64):
    stream = io.BytesIO()
    pixels = np.random.RandomState(seed).randint(0, 255, (size, size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(stream, "JPEG")
    return stream.getvalue()


def store(images, labels, wnids, offset="offset", label="label", name="name"):
    return {
        "jpeg": np.frombuffer(b"".join(images), np.uint8).copy(),
        offset: np.cumsum([0, *map(len, images)]).astype(np.int64),
        label: np.array(labels, np.int16),
        name: np.array([f"{wnids[c]}_{i}.JPEG" for i, c in enumerate(labels)]),
    }


@pytest.fixture
def tiny(monkeypatch):
    stores = tuple(replace(s, labels=range(2), each=3) for s in check_stores.TINY_20)
    monkeypatch.setattr(check_stores, "TINY_20", stores)
    keys = ("offsets", "labels", "names")
    arrays = store([jpeg(i) for i in range(6)], [0, 0, 0, 1, 1, 1], ["n1", "n2"], *keys)
    arrays["boxes"] = np.tile(np.array([0, 0, 63, 40], np.int16), (6, 1))
    arrays["classes"], arrays["wnids"] = np.array(["a", "b"]), np.array(["n1", "n2"])
    return arrays


def tiny_check(folder, arrays):
    np.savez(folder / "train.npz", **arrays)
    np.savez(folder / "val.npz", **arrays)
    return check("tiny_imagenet_20", folder)


def test_tiny_imagenet_20(tmp_path, tiny):
    result = tiny_check(tmp_path, tiny)
    assert (result.files, result.problems) == (14, [])
    assert check("tiny_imagenet_20", tmp_path, limit=2).files == 6


@pytest.mark.parametrize(
    "damage, words",
    [
        (lambda a: a["labels"].__setitem__(4, 7), ("image 4", "label 7", "0-1")),
        (lambda a: a["offsets"].__setitem__(2, 1), ("offsets", "after image 1")),
        (lambda a: a["boxes"].__setitem__((3, 2), 64), ("boxes", "image 3")),
        (lambda a: a["boxes"].__setitem__((3, 0), 63 + 1), ("boxes", "image 3")),
        (lambda a: a["jpeg"].__setitem__(slice(0, 600), 0), ("image 0", "does not decode")),
        (lambda a: a["names"].__setitem__(1, "n2_1.JPEG"), ("n2_1.JPEG", "label 0 is n1")),
        (lambda a: a.__setitem__("labels", a["labels"][:5]), ("5 labels need 6 offsets",)),
        (lambda a: a.pop("boxes"), ("lacks the arrays boxes",)),
    ],
)
def test_tiny_imagenet_20_damage(tmp_path, tiny, damage, words):
    damage(tiny)
    assert said(tiny_check(tmp_path, tiny), "train.npz", *words)


def test_tiny_imagenet_truncated_and_wrong_size(tmp_path, tiny):
    images = [jpeg(i) for i in range(6)]
    images[2], images[5] = images[2][:300], jpeg(5, size=32)
    small = store(images, [0, 0, 0, 1, 1, 1], ["n1", "n2"], "offsets", "labels", "names")
    result = tiny_check(tmp_path, {**tiny, **small})
    assert said(result, "image 2 (n1_2.JPEG)", "does not decode")
    assert said(result, "image 5", "(32, 32)")


def test_tiny_imagenet_fscil(tmp_path, monkeypatch):
    base, novel, test = check_stores.TINY_FSCIL
    stores = (
        replace(base, labels=range(2), each=1, sha256=""),
        replace(novel, labels=range(2, 7), each=5, sha256=""),
        replace(test, labels=range(7), each=1),
    )
    monkeypatch.setattr(check_stores, "TINY_FSCIL", stores)
    wnids = [f"n{i}" for i in range(7)]
    write_json(
        tmp_path / "classes.json",
        [{"label": i, "wnid": w, "name": w} for i, w in enumerate(wnids)],
    )
    one = jpeg(0)
    for item in stores:
        labels = [c for c in item.labels for _ in range(item.each)]
        np.savez(tmp_path / item.file, **store([one] * len(labels), labels, wnids))
    (tmp_path / "index_list").mkdir()
    rows = tmp_path / "index_list" / "session_2.txt"
    rows.write_text("".join(f"{i}\n" for i in range(25)))
    result = check("tiny_imagenet_fscil", tmp_path)
    assert result.problems == []
    assert "test.npz is not the published file" in result.notes[0]
    rows.write_text("".join(f"{i}\n" for i in [0, 0, *range(2, 25)]))
    assert said(check("tiny_imagenet_fscil", tmp_path), "session_2.txt", "distinct rows")
    rows.write_text("25\n")
    assert said(check("tiny_imagenet_fscil", tmp_path), "session_2.txt", "row number below 25")
    rows.write_text("".join(f"{i}\n" for i in reversed(range(25))))
    assert said(check("tiny_imagenet_fscil", tmp_path), "session_2.txt", "labels of its rows")


# Text and lists


@pytest.fixture
def text(tmp_path):
    manifest = {}
    for domain in check_text.DOMAINS:
        for split in ("train", "val"):
            raw = f"{domain} {split} \u00e9\n".encode() * 50
            (tmp_path / f"{domain}.{split}.txt.xz").write_bytes(lzma.compress(raw))
            digest = hashlib.sha256(raw).hexdigest()
            manifest[f"{domain}.{split}"] = {"bytes": len(raw), "sha256": digest}
    write_json(tmp_path / "manifest.json", manifest)
    return tmp_path


def test_textmix(text):
    result = check("textmix", text)
    assert (result.files, result.problems, result.notes) == (9, [], [])


def test_textmix_damage(text):
    file = text / "prose_en.train.txt.xz"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 255
    file.write_bytes(content)
    (text / "prose_es.val.txt.xz").write_bytes(lzma.compress(b"other"))
    (text / "docs_py.val.txt.xz").unlink()
    result = check("textmix", text)
    assert said(result, "prose_en.train.txt.xz", "does not unpack")
    assert said(result, "prose_es.val.txt.xz", "sha256") and said(result, "prose_es.val", "bytes")
    assert said(result, "docs_py.val.txt.xz", "missing")
    (text / "manifest.json").write_text("{")
    assert said(check("textmix", text), "manifest.json", "not valid JSON")


@pytest.fixture
def lists(tmp_path):
    for name in check_stores.FSCIL:
        (tmp_path / name).mkdir()

    def put(name, session, lines):
        (tmp_path / name / f"session_{session}.txt").write_text("\n".join(lines) + "\n")

    put("cifar100", 1, map(str, range(30_000)))
    bird = "CUB_200_2011/images/{:03d}.Bird/{}_{}.jpg"
    put("cub200", 1, [bird.format(c + 1, c, i) for c in range(100) for i in range(30)])
    order = [f"n{i:08d}" for i in range(100)]
    (tmp_path / "mini_imagenet" / "class_order.txt").write_text("\n".join(order))
    mini = "MINI-ImageNet/train/{}/{}.jpg"
    for s in range(2, 10):
        put("cifar100", s, (str(30_000 + 25 * s + i) for i in range(25)))
        new = order[60 + 5 * (s - 2) :][:5]
        put("mini_imagenet", s, [mini.format(w, i) for w in new for i in range(5)])
    for s in range(2, 12):
        low = 100 + 10 * (s - 2)
        put("cub200", s, [bird.format(low + c + 1, c, i) for c in range(10) for i in range(5)])
    return tmp_path


def edit(file, line, new):
    lines = file.read_text().splitlines()
    lines[line] = new
    file.write_text("\n".join(lines))


def test_fscil_index_lists(lists):
    result = check("fscil_index_lists", lists)
    assert (result.files, result.problems) == (9 + 11 + 8 + 1, [])


def test_fscil_index_lists_damage(lists):
    edit(lists / "cifar100/session_3.txt", 4, "50000")
    edit(lists / "cifar100/session_4.txt", 4, "17")
    edit(lists / "cub200/session_5.txt", 0, "CUB_200_2011/images/001.Bird/x.jpg")
    edit(lists / "mini_imagenet/session_2.txt", 0, "MINI-ImageNet/train/n99999999/x.jpg")
    edit(lists / "mini_imagenet/class_order.txt", 0, "n00000001")
    (lists / "cub200/session_7.txt").write_text("x\n")
    result = check("fscil_index_lists", lists)
    assert said(result, "cifar100/session_3.txt", "50000")
    assert said(result, "cifar100/session_4.txt", "earlier session", "17")
    assert said(result, "cub200/session_5.txt", "not of the classes 130-139")
    assert said(result, "mini_imagenet/session_2.txt", "n99999999")
    assert said(result, "class_order.txt", "found 99, expected 100")
    assert said(result, "cub200/session_7.txt", "found 1, expected 50")


def test_cifar100(tmp_path, monkeypatch):
    monkeypatch.setattr(check_stores, "CIFAR_MD5", {"test": hashlib.md5(b"x").hexdigest()})
    (tmp_path / "test").write_bytes(b"x")
    assert check("cifar100", tmp_path).problems == []
    (tmp_path / "test").write_bytes(b"y")
    assert said(check("cifar100", tmp_path), "test", "md5")


def test_cifar100_binary(tmp_path, monkeypatch):
    monkeypatch.setattr(check_stores, "CIFAR_EACH", {"train": 2, "test": 1})
    folder = tmp_path / "cifar-100-binary"
    folder.mkdir()
    for split, each in check_stores.CIFAR_EACH.items():
        rows = [bytes([0, label]) + bytes(3072) for label in range(100) for _ in range(each)]
        (folder / f"{split}.bin").write_bytes(b"".join(rows))
    (folder / "fine_label_names.txt").write_text("".join(f"class{i}\n" for i in range(100)))
    result = check("cifar100", tmp_path)
    assert (result.files, result.problems) == (3, [])
    whole = (folder / "train.bin").read_bytes()
    (folder / "train.bin").write_bytes(whole[3074:])
    assert said(check("cifar100", tmp_path), "train.bin", "found 1, 2, expected 2")
    (folder / "train.bin").write_bytes(whole[1:])
    assert said(check("cifar100", tmp_path), "train.bin has 614799 bytes", "cut off")
    (folder / "test.bin").unlink()
    (folder / "train.bin").write_bytes(whole)
    assert said(check("cifar100", tmp_path), "test.bin is missing")


# Images


@pytest.fixture
def camvid(tmp_path, monkeypatch):
    monkeypatch.setattr(check_images, "CAMVID_SPLITS", {"train": 2, "val": 1, "test": 1})
    for split, count in check_images.CAMVID_SPLITS.items():
        for i in range(count):
            picture(tmp_path / split / f"{i}.webp", value=i)
            mask(tmp_path / f"{split}annot" / f"{i}.png", np.full((16, 20), 11, np.uint8))
    return tmp_path


def test_camvid(camvid):
    result = check("camvid", camvid)
    assert (result.files, result.problems) == (8, [])


def test_camvid_damage(camvid):
    mask(camvid / "trainannot/0.png", np.full((16, 20), 12, np.uint8))
    mask(camvid / "trainannot/1.png", np.zeros((20, 16), np.uint8))
    (camvid / "valannot/0.png").unlink()
    image = camvid / "test/0.webp"
    image.write_bytes(image.read_bytes()[:60])
    result = check("camvid", camvid)
    assert said(result, "trainannot/0.png", "label 12", "0-11")
    assert said(result, "trainannot/1.png", "(20, 16)", "(16, 20)")
    assert said(result, "valannot/0.png", "missing")
    assert said(result, "test/0.webp", "does not decode")
    png = camvid / "trainannot/0.png"
    content = bytearray(png.read_bytes())
    content[-20] ^= 255  # inside the pixel data: the chunk's check sum no longer fits
    png.write_bytes(content)
    assert said(check("camvid", camvid), "trainannot/0.png", "does not decode")


def test_streetsim(tmp_path, monkeypatch):
    monkeypatch.setitem(check_images.COUNTS, "streetsim", 1)
    picture(tmp_path / "images/00000.webp")
    mask(tmp_path / "labels/00000.png", np.full((16, 20), 3, np.uint8))
    write_json(tmp_path / "sample_class_stats.json", [{"3": 320, "file": "00000.png"}])
    assert check("streetsim", tmp_path).problems == []
    write_json(tmp_path / "sample_class_stats.json", [{"3": 319, "file": "00000.png"}])
    assert said(check("streetsim", tmp_path), "class 3", "found 319, expected 320")


@pytest.fixture
def coco(tmp_path, monkeypatch):
    counts = {f"coco_tiny/instances_{split}.json": (1, 2, 1) for split in ("train", "val")}
    monkeypatch.setattr(check_images, "COCO", counts)
    monkeypatch.setitem(check_images.COUNTS, "coco_tiny", 1)
    picture(tmp_path / "images/1.webp")
    polygon = {"segmentation": [[0, 0, 9, 0, 9, 9]], "bbox": [0, 0, 9, 9], "iscrowd": 0}
    crowd = {"segmentation": {"size": [16, 20], "counts": "x"}, "bbox": [1, 1, 5, 5]}
    data = {
        "images": [{"id": 1, "file_name": "1.webp", "width": 20, "height": 16}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 7, **polygon},
            {"id": 2, "image_id": 1, "category_id": 7, "iscrowd": 1, **crowd},
        ],
        "categories": [{"id": 7, "name": "thing"}],
    }
    write_json(tmp_path / "instances_val.json", data)
    write_json(tmp_path / "instances_train.json", data)
    return tmp_path, data


def test_coco(coco):
    folder, _ = coco
    assert check("coco_tiny", folder).problems == []


@pytest.mark.parametrize(
    "damage, words",
    [
        (lambda d: d["annotations"][0].update(image_id=5), ("annotation 1", "image_id 5")),
        (lambda d: d["annotations"][0].update(bbox=[12, 0, 9, 9]), ("leaves the image of 20x16",)),
        (lambda d: d["annotations"][0].update(bbox=[1, 1, 0, 3]), ("has no area",)),
        (lambda d: d["annotations"][0].update(category_id=8), ("category_id 8",)),
        (lambda d: d["annotations"][0].update(segmentation=[[1, 2, 3]]), ("polygon of 3",)),
        (
            lambda d: d["annotations"][0].update(segmentation=[[0, 0, 40, 0, 9, 9]]),
            ("polygon lea",),
        ),
        (lambda d: d["annotations"][1]["segmentation"].update(size=[1, 1]), ("run-length",)),
        (lambda d: d["annotations"][1].update(id=1), ("annotations with the same id: 1",)),
        (lambda d: d["images"][0].update(width=21), ("image 1", "(16, 21)", "(16, 20)")),
        (lambda d: d["images"][0].update(file_name="2.webp"), ("images/2.webp is missing",)),
        (lambda d: d["annotations"].clear(), ("annotations: found 0, expected 2",)),
        (lambda d: d["annotations"][0].pop("image_id"), ("unexpected structure", "image_id")),
    ],
)
def test_coco_damage(coco, damage, words):
    folder, data = coco
    damage(data)
    write_json(folder / "instances_train.json", data)
    assert said(check("coco_tiny", folder), *words)


def test_nuclei(tmp_path, monkeypatch):
    monkeypatch.setattr(check_images, "NUCLEI", {"images": 1, "train": 1, "val": 0, "test": 0})
    picture(tmp_path / "images/a.webp")
    cells = np.zeros((16, 20), np.uint16)
    cells[2:4, 2:4], cells[8:, 8:] = 1, 2
    mask(tmp_path / "masks/a.png", cells)
    item = {"name": "a", "width": 20, "height": 16, "nuclei": 2, "split": "train"}
    write_json(tmp_path / "index.json", [item])
    assert check("nuclei_dsb2018", tmp_path).problems == []
    cells[8:, 8:] = 3
    mask(tmp_path / "masks/a.png", cells)
    assert said(check("nuclei_dsb2018", tmp_path), "masks/a.png", "1..2")


def test_coco_wsss(tmp_path, monkeypatch):
    monkeypatch.setitem(check_images.COUNTS, "coco_wsss", 1)
    monkeypatch.setattr(check_images, "WSSS_SPLITS", {"train": 1, "val": 0, "nolabel": 0})
    picture(tmp_path / "images/7.webp")
    mask(tmp_path / "masks80/7.png", np.full((16, 20), 2, np.uint8))
    mask(tmp_path / "SegmentationClass/7.png", np.full((16, 20), 2, np.uint8))
    (tmp_path / "ImageSets").mkdir()
    for split, text in (("train", "7\n"), ("val", ""), ("nolabel", "")):
        (tmp_path / "ImageSets" / f"{split}.txt").write_text(text)
    item = {"size": [16, 20], "label": [0, 1, 0, 0, 0, 0], "classes80": [2]}
    write_json(tmp_path / "labels.json", {"images": {"7": item}})
    assert check("coco_wsss", tmp_path).problems == []
    (tmp_path / "ImageSets" / "val.txt").write_text("7\n")
    write_json(tmp_path / "labels.json", {"images": {"7": {**item, "label": [1, 1, 0, 0, 0, 0]}}})
    result = check("coco_wsss", tmp_path)
    assert said(result, "not in exactly one list") and said(result, "7: label")


def test_ade20k(tmp_path, monkeypatch):
    monkeypatch.setitem(check_images.COUNTS, "ade20k_sample", 1)
    picture(tmp_path / "a.webp")
    whole = {"id": 0, "part_level": 0, "part_of": None}
    part = {"id": 1, "part_level": 1, "part_of": 0}
    write_json(tmp_path / "a.json", {"width": 20, "height": 16, "objects": [whole, part]})
    assert check("ade20k_sample", tmp_path).problems == []
    part["part_of"] = 9
    write_json(tmp_path / "a.json", {"width": 20, "height": 16, "objects": [whole, part]})
    assert said(check("ade20k_sample", tmp_path), "object 1", "parent 9")


@pytest.fixture
def mini(tmp_path, monkeypatch):
    """Both layouts, with one picture a class and split."""
    monkeypatch.setattr(check_images, "MINI_EACH", {"train": 1, "test": 1})
    monkeypatch.setitem(check_images.COUNTS, "mini_imagenet", 200)
    picture(tmp_path / "one.jpg")
    one = (tmp_path / "one.jpg").read_bytes()
    flat, trees = tmp_path / "flat", tmp_path / "trees"
    for split in check_images.MINI_EACH:
        rows = [f"n{i:08d}{split}.jpg,n{i:08d}" for i in range(100)]
        for row in rows:
            name, wnid = row.split(",")
            for file in (flat / "images" / name, trees / "MINI-ImageNet" / split / wnid / name):
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(one)
        (flat / "split").mkdir(exist_ok=True)
        (flat / "split" / f"{split}.csv").write_text("\n".join(["filename,label", *rows]))
    return flat, trees


def test_mini_imagenet_in_both_layouts(mini):
    flat, trees = mini
    for folder, files in ((flat, 202), (trees, 200)):
        result = check("mini_imagenet", folder)
        assert (result.files, result.problems) == (files, [])
    assert check("mini_imagenet", flat, limit=3).files == 5


def test_mini_imagenet_damage(mini, tmp_path):
    flat, trees = mini
    (flat / "images" / "n00000007test.jpg").write_bytes(b"x")
    (flat / "split" / "train.csv").write_text("filename,label\n")
    result = check("mini_imagenet", flat)
    assert said(result, "n00000007test.jpg", "does not decode")
    assert said(result, "train.csv", "found 1, expected 101")
    tree = trees / "MINI-ImageNet"
    (tree / "test" / "n00000007" / "n00000007test.jpg").unlink()
    (tree / "train" / "n00000003").rename(tmp_path / "gone")
    result = check("mini_imagenet", trees)
    assert said(result, "test/n00000007", "found 0, expected 1")
    assert said(result, "MINI-ImageNet/train", "found 99, expected 100")
    assert said(check("mini_imagenet", tmp_path / "gone"), "images", "missing")


# Weather


def test_pangu_atmos(tmp_path, monkeypatch):
    h5py = pytest.importorskip("h5py")
    name = "storm1996_6h.nc"
    monkeypatch.setattr(check_weather, "FILES", {name: {"t": (2, 16, 20)}})
    monkeypatch.setattr(check_weather, "STORM_MISSING", {"t": [1]})
    values = np.full((2, 16, 20), 280.0, np.float32)
    values[0].reshape(-1)[:224] = np.nan
    values[1] = np.nan

    def write(values, lat):
        with h5py.File(tmp_path / name, "w") as file:
            file["lat"], file["lon"], file["time"] = lat, np.arange(20.0), np.array([0, 6])
            file["t"] = values

    write(values, np.arange(16.0))
    assert check("pangu_atmos", tmp_path).problems == []
    values[0, -1, -1] = 7
    write(values, -np.arange(16.0))
    result = check("pangu_atmos", tmp_path)
    assert said(result, "south to north") and said(result, "values 7 to 280")
    values[0, -1, -1] = np.nan
    write(values, np.arange(16.0))
    assert said(check("pangu_atmos", tmp_path), "t: unexpected missing values at step 0")
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(content[: len(content) // 2])
    assert said(check("pangu_atmos", tmp_path), "cannot be read as HDF5")
    (tmp_path / name).write_bytes(b"<html>")
    assert said(check("pangu_atmos", tmp_path), "not a NetCDF-4 file (6 bytes)")


def test_without_h5py_only_the_signature(tmp_path, monkeypatch):
    monkeypatch.setattr(check_weather.importlib.util, "find_spec", lambda name: None)
    for name in check_weather.FILES:
        (tmp_path / name).write_bytes(check_weather.MAGIC)
    result = check("pangu_atmos", tmp_path)
    assert result.problems == [] and "h5py is not installed" in result.notes[0]


# What every check has in common


def test_limit_and_missing_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match="does not exist"):
        check("camvid", tmp_path / "none")
    with pytest.raises(ValueError, match="limit must be 0"):
        check("camvid", tmp_path, limit=-1)
    file = tmp_path / "x"
    file.write_text("")
    with pytest.raises(FileNotFoundError, match="is a file"):
        check("camvid", file)


@pytest.mark.skipif(not os.environ.get("TENFOLD_DATA"), reason="TENFOLD_DATA is not set")
@pytest.mark.parametrize("name", ["cmu_mocap", "textmix", "fscil_index_lists", "emoji_scenes"])
def test_real_sets_are_clean(name):
    assert check(name).problems == []
