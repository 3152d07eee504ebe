import json
import lzma
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tenfold.data.images.tiny_imagenet_files import CLASSES_20
from tenfold.data.prepare import prepare
from tenfold.data.text.prepare import split_text

REAL = os.environ.get("TENFOLD_DATA", "")
needs_real = pytest.mark.skipif(not REAL, reason="TENFOLD_DATA is not set")


def temporaries(folder):
    return [file.name for file in folder.iterdir() if file.name.startswith(".")]


# CMU Mocap


def write_tree(folder, actions=("walking",), frames=4):
    for action in actions:
        for split in ("train", "test"):
            for i in (1, 2, 10):
                file = folder / split / action / f"{action}_{i}.txt"
                file.parent.mkdir(parents=True, exist_ok=True)
                np.savetxt(file, np.full((frames, 117), i + 0.123456789), "%.9f", ",")


def test_cmu_tree(tmp_path):
    write_tree(tmp_path / "in", ("walking", "walking_extra"))
    out = tmp_path / "out"
    assert prepare("cmu_mocap", tmp_path / "in", out) == [
        out / "benchmark.npz",
        out / "walking_extra.npz",
    ]
    with np.load(out / "benchmark.npz") as data:
        assert data.files == [
            f"{split}/walking/walking_{i}" for split in ("train", "test") for i in (1, 2, 10)
        ]
        array = data["train/walking/walking_10"]
    assert array.dtype == np.float32 and array.shape == (4, 117)
    assert (array == np.float32(10.123456789)).all()
    assert temporaries(out) == []


@needs_real
def test_cmu_original_sample_equals_the_benchmark(tmp_path):
    folder = Path(REAL) / "cmu_mocap"
    (made,) = prepare("cmu_mocap", folder / "original_sample", tmp_path)
    with np.load(made) as ours, np.load(folder / "benchmark.npz") as published:
        assert len(ours.files) == 4
        for key in ours.files:
            assert ours[key].dtype == published[key].dtype
            np.testing.assert_array_equal(ours[key], published[key])


def test_refuses_to_overwrite(tmp_path):
    write_tree(tmp_path / "in")
    out = tmp_path / "out"
    out.mkdir()
    (out / "benchmark.npz").write_text("mine")
    with pytest.raises(ValueError, match="already holds benchmark.npz"):
        prepare("cmu_mocap", tmp_path / "in", out)
    assert (out / "benchmark.npz").read_text() == "mine"
    prepare("cmu_mocap", tmp_path / "in", out, overwrite=True)
    assert np.load(out / "benchmark.npz").files
    with pytest.raises(ValueError, match="is the source itself"):
        prepare("cmu_mocap", out, out, overwrite=True)


def test_a_bad_file_leaves_nothing_behind(tmp_path):
    write_tree(tmp_path / "in")
    bad = tmp_path / "in/test/walking/walking_2.txt"
    bad.write_text("1,2,3\n")
    with pytest.raises(ValueError, match=r"walking_2.txt has shape \(1, 3\)"):
        prepare("cmu_mocap", tmp_path / "in", tmp_path / "out")
    bad.write_text("1,2,x\n")
    with pytest.raises(ValueError, match="walking_2.txt cannot be read"):
        prepare("cmu_mocap", tmp_path / "in", tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []
    with pytest.raises(FileNotFoundError, match="data/cmu_mocap"):
        prepare("cmu_mocap", tmp_path / "out", tmp_path / "out2")


# Text mix


def test_split_text_by_hand():
    lines = b"".join(b"%07d\n" % i for i in range(250_000))  # 2 MB: 5 % are exactly 100,000 bytes
    train, val = split_text(lines, "x")
    assert train + val == lines and len(val) == 100_000
    train, val = split_text(lines[:800_000], "x")
    assert len(val) == 60_000
    train, val = split_text(lines + lines[: 1_600_000 + 3], "x")  # the cap falls on a line end
    assert len(train + val) == 3_600_000
    with pytest.raises(ValueError, match="nothing is left to train on"):
        split_text(lines[:59_999], "x")


def test_textmix(tmp_path):
    (tmp_path / "in").mkdir()
    text = "una línea\r\n" * 10_000
    (tmp_path / "in" / "mine.txt").write_bytes(text.encode())
    out = tmp_path / "out"
    names = [file.name for file in prepare("textmix", tmp_path / "in", out)]
    assert names == ["manifest.json", "mine.train.txt.xz", "mine.val.txt.xz"]
    train = lzma.decompress((out / "mine.train.txt.xz").read_bytes())
    val = lzma.decompress((out / "mine.val.txt.xz").read_bytes())
    assert train + val == text.replace("\r\n", "\n").encode()
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["mine.val"]["bytes"] == len(val)
    (out / "manifest.json").unlink()
    with pytest.raises(ValueError, match="already holds mine"):  # found after the work
        prepare("textmix", tmp_path / "in", out)
    (tmp_path / "in" / "mine.txt").write_bytes("Peña\n".encode("latin-1") * 20_000)
    with pytest.raises(ValueError, match="not UTF-8 at byte 2"):
        prepare("textmix", tmp_path / "in", tmp_path / "out2")


@needs_real
def test_textmix_equals_the_published_files_byte_for_byte(tmp_path):
    folder = Path(REAL) / "textmix"
    (tmp_path / "in").mkdir()
    parts = [(folder / f"drama_en.{split}.txt.xz").read_bytes() for split in ("train", "val")]
    (tmp_path / "in/drama_en.txt").write_bytes(b"".join(map(lzma.decompress, parts)))
    prepare("textmix", tmp_path / "in", tmp_path / "out")
    for split, part in zip(("train", "val"), parts, strict=True):
        assert (tmp_path / "out" / f"drama_en.{split}.txt.xz").read_bytes() == part
    published = json.loads((folder / "manifest.json").read_text())
    ours = json.loads((tmp_path / "out/manifest.json").read_text())
    assert all(published[key] == value for key, value in ours.items())


# CamVid


def write_camvid(folder, label=11):
    for split in ("train", "val", "test"):
        for sub in (split, f"{split}annot"):
            (folder / sub).mkdir(parents=True)
        Image.new("RGB", (480, 360), (10, 200, 30)).save(folder / split / "a.png")
        index = np.full((360, 480), 3, np.uint8)
        index[:180] = label
        Image.fromarray(index).save(folder / f"{split}annot" / "a.png")


def test_camvid(tmp_path):
    write_camvid(tmp_path / "in")
    out = tmp_path / "out"
    assert len(prepare("camvid", tmp_path / "in", out)) == 6
    with Image.open(out / "train/a.webp") as image:
        assert image.size == (320, 240)
        assert np.abs(np.asarray(image).mean((0, 1)) - (10, 200, 30)).max() < 3
    with Image.open(out / "trainannot/a.png") as labels:
        assert labels.mode == "P" and labels.size == (320, 240)
        assert labels.getpalette()[9:12] == [128, 64, 128]
        index = np.asarray(labels)
    assert (index[:120] == 11).all() and (index[120:] == 3).all()
    with pytest.raises(ValueError, match="already holds train, "):
        prepare("camvid", tmp_path / "in", out)
    (out / "train/old.webp").write_text("")
    prepare("camvid", tmp_path / "in", out, overwrite=True)
    assert [file.name for file in (out / "train").iterdir()] == ["a.webp"]
    assert temporaries(out) == []


def test_camvid_bad_originals(tmp_path):
    write_camvid(tmp_path / "in", label=12)
    with pytest.raises(ValueError, match="holds label 12"):
        prepare("camvid", tmp_path / "in", tmp_path / "out")
    (tmp_path / "in/trainannot/a.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match="a.png cannot be used"):
        prepare("camvid", tmp_path / "in", tmp_path / "out")
    (tmp_path / "in/trainannot/a.png").unlink()
    with pytest.raises(FileNotFoundError, match="labels of a.png"):
        prepare("camvid", tmp_path / "in", tmp_path / "out")


# Tiny ImageNet


@pytest.fixture(scope="module")
def official(tmp_path_factory):
    """The official layout, with 200 classes; each "JPEG" is its own name."""
    folder = tmp_path_factory.mktemp("official") / "tiny-imagenet-200"
    twenty = [wnid for wnid, _ in CLASSES_20]
    wnids = twenty + [f"n{i:08d}" for i in range(180)]
    base = {sorted(wnids)[i] for i in np.random.RandomState(2210).permutation(200)[:60]}
    (folder / "val" / "images").mkdir(parents=True)
    val = []
    for c, wnid in enumerate(wnids):
        images = folder / "train" / wnid / "images"
        images.mkdir(parents=True)
        # base classes need 240, the others 25: fewer files are sooner written
        names = [f"{wnid}_{i}.JPEG" for i in range(250 if c < 20 else 240 if wnid in base else 30)]
        for name in names:
            (images / name).write_bytes(name.encode())
        boxes = "".join(f"{name}\t1\t2\t33\t44\n" for name in sorted(names))
        (images.parent / f"{wnid}_boxes.txt").write_text(boxes)
        val += [(f"val_{i * 200 + c}.JPEG", wnid) for i in range(2)]
    val.sort(key=lambda row: int(row[0][4:-5]))
    for name, _ in val:
        (folder / "val" / "images" / name).write_bytes(name.encode())
    (folder / "val" / "val_annotations.txt").write_text(
        "".join(f"{name}\t{wnid}\t0\t0\t63\t63\n" for name, wnid in val)
    )
    (folder / "wnids.txt").write_text("\n".join(reversed(wnids)) + "\n")
    (folder / "words.txt").write_text("".join(f"{wnid}\tword {wnid}\n" for wnid in wnids))
    return folder


def test_tiny_imagenet_20(official, tmp_path):
    assert [file.name for file in prepare("tiny_imagenet_20", official, tmp_path)] == [
        "train.npz",
        "val.npz",
    ]
    data = np.load(tmp_path / "train.npz", allow_pickle=False)
    assert data["labels"].tolist() == [c for c in range(20) for _ in range(250)]
    assert data["names"][:3].tolist() == [f"n01443537_{i}.JPEG" for i in range(3)]
    start, end = data["offsets"][7:9]
    assert data["jpeg"][start:end].tobytes() == b"n01443537_7.JPEG"
    assert data["boxes"].dtype == np.int16 and data["boxes"][0].tolist() == [1, 2, 33, 44]
    val = np.load(tmp_path / "val.npz", allow_pickle=False)
    assert val["names"][:2].tolist() == ["val_0.JPEG", "val_1.JPEG"]
    assert val["labels"].tolist() == [*range(20), *range(20)]


def test_tiny_imagenet_fscil(official, tmp_path):
    prepare("tiny_imagenet_fscil", official, tmp_path)
    classes = json.loads((tmp_path / "classes.json").read_text())
    every = sorted((official / "wnids.txt").read_text().split())
    first = np.random.RandomState(2210).permutation(200)[0]
    assert classes[0] == {"label": 0, "wnid": every[first], "name": f"word {every[first]}"}
    base = np.load(tmp_path / "train_base.npz")
    novel = np.load(tmp_path / "train_novel.npz")
    test = np.load(tmp_path / "test.npz")
    assert np.bincount(base["label"]).tolist() == [240] * 60
    assert np.bincount(novel["label"])[60:].tolist() == [25] * 40
    assert test["label"].dtype == np.uint8 and len(test["label"]) == 200
    assert novel["name"][26].startswith(classes[61]["wnid"])
    rows = [int(row) for row in (tmp_path / "index_list/session_3.txt").read_text().split()]
    assert rows[:6] == [125, 126, 127, 128, 129, 150] and len(rows) == 25
    assert novel["label"][rows].tolist() == [c for c in range(65, 70) for _ in range(5)]


@needs_real
def test_tiny_imagenet_index_lists_equal_the_published(official, tmp_path):
    prepare("tiny_imagenet_fscil", official, tmp_path)
    for file in sorted((tmp_path / "index_list").iterdir()):
        published = Path(REAL) / "tiny_imagenet_fscil" / "index_list" / file.name
        assert file.read_text().split() == published.read_text().split()


def test_tiny_imagenet_incomplete(official, tmp_path):
    with pytest.raises(FileNotFoundError, match="tiny-imagenet-200 as unpacked"):
        prepare("tiny_imagenet_20", official / "train", tmp_path)


# What is not a recipe


def test_nothing_to_prepare(tmp_path):
    with pytest.raises(ValueError, match="nothing to prepare"):
        prepare("fscil_index_lists", tmp_path, tmp_path / "out")
    with pytest.raises(ValueError, match="no recipe"):
        prepare("clip_text", tmp_path, tmp_path / "out")
    with pytest.raises(ValueError, match="'camvid'"):
        prepare("camvit", tmp_path, tmp_path / "out")
    with pytest.raises(FileNotFoundError, match="is not a folder"):
        prepare("camvid", tmp_path / "none", tmp_path / "out")
