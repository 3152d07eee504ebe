"""Public sets of streets, written small and read back; class maps; statistics of classes."""

from __future__ import annotations

import json
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tenfold.data import checks
from tenfold.data.images import class_maps, class_statistics, own, rare_classes
from tenfold.data.images.class_maps import ClassMap, read_class_map
from tenfold.data.images.decode import Reading
from tenfold.data.images.segmentation import Segmented, of_arrays, read_labels
from tenfold.data.images.streets import open_streets, pictures_of

SIDES = (6, 8)
IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
SYNTHIA = {3: 0, 4: 1, 2: 2, 21: 3, 5: 4, 7: 5, 15: 6, 9: 7, 6: 8, 16: 9, 1: 10, 10: 11, 17: 12,
           8: 13, 18: 14, 19: 15, 20: 16, 12: 17, 11: 18}  # fmt: skip
"""The official tables, written once more."""


def known() -> np.ndarray:
    """All train ids and pixels that do not count."""
    values = np.full(SIDES, 255)
    values.flat[:19] = np.arange(19)
    return values


def picture(file: Path, sides: tuple[int, int] = SIDES) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((*sides, 3), 80, dtype=np.uint8)).save(file)


def png(file: Path, values: np.ndarray, mode: str = "L") -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(values.astype(np.uint8))
    if mode == "P":
        image.putpalette(np.random.default_rng(0).integers(0, 256, 768, dtype=np.uint8).tobytes())
    image.save(file)


def wide_png(file: Path, values: np.ndarray) -> None:
    """Three channels of 16 bits, with a filter of each of PNG's five kinds in turn."""
    file.parent.mkdir(parents=True, exist_ok=True)
    height, width, _ = values.shape
    lines = values.astype(">u2").tobytes()
    raw = np.frombuffer(lines, dtype=np.uint8).reshape(height, 6 * width).astype(int)
    body = b""
    for row in range(height):
        line, above = raw[row], raw[row - 1] if row else np.zeros(6 * width, dtype=int)
        left, corner = (np.concatenate([np.zeros(6, dtype=int), x[:-6]]) for x in (line, above))
        guess = left + above - corner
        near = np.abs(np.stack([guess - left, guess - above, guess - corner])).argmin(0)
        paeth = np.choose(near, [left, above, corner])
        minus = (0, left, above, (left + above) // 2, paeth)[row % 5]
        body += bytes([row % 5]) + ((line - minus) % 256).astype(np.uint8).tobytes()

    def chunk(kind: bytes, content: bytes) -> bytes:
        sum_ = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + sum_

    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    data = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(body)) + chunk(b"IEND", b"")
    file.write_bytes(b"\x89PNG\r\n\x1a\n" + data)


def label_ids(stray: int = 0) -> np.ndarray:
    """Labels as Cityscapes stores them; what does not count is `stray` or 3."""
    table = np.full(256, 3)
    table[:19] = IDS
    values = table[known()]
    values[-1, -1] = stray
    return values


def cityscapes(folder: Path, split: str = "train", stray: int = 0) -> Path:
    for city, number in (("aachen", 0), ("ulm", 1)):
        stem = f"{city}_{number:06d}_000019"
        picture(folder / "leftImg8bit" / split / city / f"{stem}_leftImg8bit.png")
        place = folder / "gtFine" / split / city
        png(place / f"{stem}_gtFine_labelIds.png", label_ids(stray))
        for other in ("labelTrainIds", "instanceIds", "color"):
            png(place / f"{stem}_gtFine_{other}.png", np.full(SIDES, 99))
        (place / f"{stem}_gtFine_polygons.json").write_text("{}")
    return folder


def gta5(folder: Path, stray: int = 34) -> Path:
    for stem in ("00001", "00002"):
        picture(folder / "images" / f"{stem}.png")
        png(folder / "labels" / f"{stem}.png", label_ids(stray), "P")
    png(folder / "labels" / "00001_labelTrainIds.png", known())
    return folder


def synthia(folder: Path, stray: int = 0) -> Path:
    root = folder / "RAND_CITYSCAPES"
    values = np.zeros((*SIDES, 3), dtype=int)
    for stored, place in SYNTHIA.items():
        values[known() == place, 0] = stored
    values[-1, -1, 0] = stray
    values[..., 1] = np.arange(SIDES[0] * SIDES[1]).reshape(SIDES)  # numbers of instances
    picture(root / "RGB" / "0000000.png")
    wide_png(root / "GT" / "LABELS" / "0000000.png", values)
    return folder


def streetsim(folder: Path) -> Path:
    for stem in ("00000", "00001"):
        picture(folder / "images" / f"{stem}.webp")
        png(folder / "labels" / f"{stem}.png", np.arange(48).reshape(SIDES) % 11, "P")
    return folder


MAKERS = {"cityscapes": cityscapes, "gta5": gta5, "synthia": synthia}


@pytest.mark.parametrize("name", MAKERS)
def test_labels_are_read_back_as_train_ids(tmp_path: Path, name: str) -> None:
    found = open_streets(MAKERS[name](tmp_path), name, "train")
    assert found.classes == class_maps.CITYSCAPES_NAMES
    assert len(found) == (1 if name == "synthia" else 2)
    for row in range(len(found)):
        shown, labels = found.scene(row)
        assert shown.shape == (*SIDES, 3) and np.array_equal(labels, known())
        assert np.array_equal(found.labels(row), labels)
    assert [file.name for file in pictures_of(tmp_path, name, "train")] == [
        file.name for file, _ in found.files
    ]


def test_the_dusk_of_camvid_and_its_days_are_sets_of_their_own(tmp_path: Path) -> None:
    names = {"train": ("0001TP_1", "0006R0_1", "0016E5_1"), "test": ("0001TP_2", "Seq05VD_1")}
    for split, stems in names.items():
        for stem in stems:
            picture(tmp_path / split / f"{stem}.png")
            png(tmp_path / f"{split}annot" / f"{stem}.png", np.arange(48).reshape(SIDES) % 12)
    day, dusk = "camvid-day", "camvid-dusk"
    expected = {
        (dusk, "train"): names["train"][:1], (day, "train"): names["train"][1:],
        (dusk, "test"): names["test"][:1], (day, "test"): names["test"][1:],
    }  # fmt: skip
    for (name, split), stems in expected.items():
        found = open_streets(tmp_path, name, split)
        assert tuple(file.stem for file, _ in found.files) == stems
        assert [file for file, _ in found.files] == pictures_of(tmp_path, name, split)
        assert found.labels(0)[1, 3] == 255  # 11, the void class of the whole set
    with pytest.raises(ValueError, match="no set of streets; these are: .*camvid-dusk"):
        open_streets(tmp_path, "camvid-night", "train")


@pytest.mark.parametrize("name", MAKERS)
def test_a_check_names_the_file_with_a_number_that_is_no_class(tmp_path: Path, name: str) -> None:
    MAKERS[name](tmp_path, stray=77)
    told = [problem.what for problem in checks.check(name, tmp_path).problems]
    assert told and all("holds label 77 at row 5, column 7" in text for text in told)
    assert any(".png" in text for text in told)


def test_a_map_of_another_size_is_named_or_left_out(tmp_path: Path) -> None:
    folder = gta5(tmp_path)
    picture(folder / "images" / "00002.png", (7, 9))
    with pytest.raises(ValueError, match=r"00002.png has 8 x 6 pixels, its picture .* 9 x 7"):
        open_streets(folder, "gta5", "train").scene(1)
    found = open_streets(folder, "gta5", "train", Reading(skip_broken=True))
    assert np.array_equal(found.scene(1)[1], known()) and len(found.replaced) == 1


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    folder = cityscapes(tmp_path)
    (folder / "gtFine/train/ulm/ulm_000001_000019_gtFine_labelIds.png").unlink()
    with pytest.raises(ValueError, match="'ulm/ulm_000001_000019' has no label map"):
        open_streets(folder, "cityscapes", "train")
    with pytest.warns(UserWarning, match="left out"):
        found = open_streets(folder, "cityscapes", "train", Reading(skip_broken=True))
    assert len(found) == 1 and len(pictures_of(folder, "cityscapes", "train")) == 2
    with pytest.raises(FileNotFoundError, match="leftImg8bit/val is not there"):
        open_streets(folder, "cityscapes", "val")
    with pytest.raises(ValueError, match="gta5 has no split 'val'"):
        open_streets(folder, "gta5", "val")
    with pytest.raises(ValueError, match="'kitti' is no set of streets; these are: cityscapes"):
        open_streets(folder, "kitti", "train")


def test_numbers_of_16_bits(tmp_path: Path) -> None:
    """Pillow alone would show zeros; what does not fit a byte is refused by name."""
    file = tmp_path / "wide.png"
    values = np.random.default_rng(0).integers(0, 256, (11, 5, 3))
    wide_png(file, values)
    assert np.array_equal(read_labels(file, (), True), values[..., 0])
    with pytest.raises(ValueError, match=r"wide.png cannot be read: it has mode RGB, not one"):
        read_labels(file)
    wide_png(file, np.broadcast_to(values[..., :1], values.shape))
    assert np.array_equal(read_labels(file), values[..., 0])
    values[2, 3] = 256
    wide_png(file, values)
    with pytest.raises(ValueError, match=r"wide.png cannot be read: .* 16 bits, more than 255"):
        read_labels(file, (), True)
    file.write_bytes(file.read_bytes()[:90])
    with pytest.raises(ValueError, match="wide.png"):
        read_labels(file, (), True)


def test_a_folder_with_a_class_map(tmp_path: Path) -> None:
    stored = np.array([[7, 8, 11, 0], [7, 255, 8, 9]])
    picture(tmp_path / "images" / "a.png", (2, 4))
    png(tmp_path / "masks" / "a.png", stored)
    content = {"names": ["road", "walk"], "ids": [7, [8, 11]], "ignored": [0, 9]}
    (tmp_path / "class_map.json").write_text(json.dumps(content))
    with pytest.warns(UserWarning, match="only picture"):
        found = own.open_maps(tmp_path, "train", 0.2, 0)
    assert found.classes == ("road", "walk")
    assert found.scene(0)[1].tolist() == [[0, 1, 1, 255], [0, 255, 1, 255]]
    # a map that is given stands above that of the folder
    others = tmp_path / "others.json"
    others.write_text(json.dumps({"names": ["a", "b"], "ids": [9, 11], "ignored": "others"}))
    with pytest.warns(UserWarning, match="only picture"):
        found = own.open_maps(tmp_path, "train", 0.2, 0, class_map=read_class_map(others))
    assert found.scene(0)[1].tolist() == [[255, 255, 1, 255], [255, 255, 255, 0]]
    png(tmp_path / "masks" / "a.png", stored + 1)
    told = checks.check("folder", tmp_path).problems
    assert "a.png holds label 12" in told[0].what and "the class map knows 0, 7, 8" in told[0].what


def test_a_class_map_of_colours(tmp_path: Path) -> None:
    picture(tmp_path / "images" / "a.png", (1, 2))
    (tmp_path / "masks").mkdir()
    Image.fromarray(np.array([[[9, 0, 0], [1, 2, 3]]], dtype=np.uint8)).save(
        tmp_path / "masks" / "a.png"
    )
    content = {"names": ["a", "b"], "colours": [[1, 2, 3], [9, 0, 0]]}
    (tmp_path / "class_map.json").write_text(json.dumps(content))
    with pytest.warns(UserWarning, match="only picture"):
        assert own.open_maps(tmp_path, "train", 0.2, 0).scene(0)[1].tolist() == [[1, 0]]


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ([], "it must be an object, got \\[\\]; its fields are names, colours, ids, ignored"),
        ({"ids": [1]}, "it lacks names"),
        ({"names": ["a"]}, "names lists 1 classes, allowed are 2 to 255"),
        ({"names": ["a", "a"]}, "names must be different and not empty, got a twice"),
        ({"names": ["a", "b"], "colors": []}, "fields that are not known: colors"),
        ({"names": ["a", "b"], "colours": [[1, 2, 3]]}, "colours must be 2 different ones"),
        ({"names": ["a", "b"], "colours": [[1, 2, 3], [1, 2]]}, "colours must be \\[red, green"),
        (
            {"names": ["a", "b"], "colours": [[1, 2, 3], [1, 2, 256]]},
            "colours must be of numbers 0-255",
        ),
        ({"names": ["a", "b"], "ids": [1]}, "ids has 1 entries, names 2"),
        ({"names": ["a", "b"], "ids": [1, [2, 1]]}, "each once; 1 is listed twice"),
        ({"names": ["a", "b"], "ids": [1, 300]}, "each once; 300 is not"),
        ({"names": ["a", "b"], "ids": [1, ["x"]]}, r"ids\[1\]\[0\] must be a whole number"),
        ({"names": ["a", "b"], "ignored": "rest"}, 'ignored .unless "others". must be a list'),
    ],
)
def test_a_bad_class_map_is_named(tmp_path: Path, content: object, text: str) -> None:
    file = tmp_path / "mine.json"
    file.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=rf"class map .*mine.json: .*{text}"):
        read_class_map(file)


def test_class_maps_must_agree() -> None:
    where = ("GTA5", "my folder")
    class_maps.agree(("a", "b"), ("a", "b"), where)
    with pytest.raises(
        ValueError, match="of GTA5 and my folder differ: only GTA5 has b; only my folder has c, d"
    ):
        class_maps.agree(("a", "b"), ("a", "c", "d"), where)
    with pytest.raises(ValueError, match="class 0 is 'a' in GTA5, 'b' in my folder"):
        class_maps.agree(("a", "b"), ("b", "a"), where)


def test_known_colours_and_means() -> None:
    assert class_maps.colours_of(class_maps.CITYSCAPES_NAMES)[0] == (128, 64, 128)
    assert len(class_maps.colours_of(class_maps.CAMVID.names)) == 11
    assert class_maps.colours_of(("a", "b")) == ()
    assert len(class_maps.SYNTHIA_16) == 16 and len(class_maps.SYNTHIA_13) == 13
    assert ClassMap(("a", "b")).table[:3] == (0, 1, -1)


# --- statistics ----------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    place = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("TENFOLD_CACHE", str(place))
    return place / "class_statistics"


def counted(found: Segmented) -> list[list[int]]:
    return class_statistics.class_statistics(found).tolist()


def test_pixels_are_counted_once(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = gta5(tmp_path)
    found = open_streets(folder, "gta5", "train")
    want = [[1] * 19] * 2
    assert counted(found) == want
    (file,) = cache.iterdir()
    with monkeypatch.context() as patch:
        patch.setattr(Segmented, "labels", lambda *_: pytest.fail("read again"))
        assert counted(found) == want
    whole = file.read_text()
    for damaged in (whole[:40], whole.replace(", 1]", ", 2]"), "[]"):  # made anew
        file.write_text(damaged)
        assert counted(found) == want and file.read_text() == whole
    ids = label_ids()
    ids[0, 0] = 8
    png(folder / "labels" / "00001.png", ids, "P")
    assert counted(found)[0][:3] == [0, 2, 1] and len(list(cache.iterdir())) == 2
    monkeypatch.setenv("TENFOLD_CACHE", str(folder / "labels" / "00001.png"))
    with pytest.warns(UserWarning, match="class statistics are not kept"):
        assert counted(found)[1] == [1] * 19
    assert counted(of_arrays(("a", "b"), [found.scene(0)]))[0] == [0, 2]


def test_official_statistics_are_taken(tmp_path: Path, cache: Path) -> None:
    folder = streetsim(tmp_path)
    found = open_streets(folder, "streetsim", "train")
    counts = counted(found)
    for file in cache.iterdir():
        file.unlink()
    sample = [
        {**{str(kind): n for kind, n in enumerate(line)}, "file": f"x/0000{row}_labelTrainIds.png"}
        for row, line in enumerate(counts)
    ]
    by_class = {str(k): [[one["file"], one[str(k)]] for one in sample] for k in range(11)}
    taken = class_statistics.class_statistics
    for name, content in (
        ("samples_with_class.json", by_class),
        ("sample_class_stats.json", sample[::-1]),
    ):
        (folder / name).write_text(json.dumps(content))
        assert (
            taken(found, folder).tolist() == counts
            and not cache.is_dir()
            or not any(cache.iterdir())
        )
    official = folder / "sample_class_stats.json"
    for content, text in (
        ([{**sample[0], "3": 9}, sample[1]], "not of these label maps: 00000.png has other"),
        ([{**sample[0], "12": 9}], "9 pixels of class 12, but the set has 11 classes"),
        ([{"file": "other.png", "1": 4}], "no entry for any of 2 label maps"),
        ([{"file": 5, "1": 4}], "is no list of class statistics .* Delete it"),
        ({"a": 1}, "is no list of class statistics"),
    ):
        official.write_text(json.dumps(content))
        with pytest.raises(ValueError, match=text):
            taken(found, folder)
    official.write_text(json.dumps(sample[:1]))  # the other one is counted
    assert taken(found, folder).tolist() == counts


def test_statistics_of_maps_that_cannot_be_read(tmp_path: Path) -> None:
    folder = gta5(tmp_path)
    (folder / "labels" / "00002.png").write_bytes(b"no png")
    with pytest.raises(ValueError, match="00002.png"):
        counted(open_streets(folder, "gta5", "train"))
    found = open_streets(folder, "gta5", "train", Reading(skip_broken=True))
    assert counted(found) == [[1] * 19, [0] * 19]


# --- rare classes --------------------------------------------------------------------------------


def test_rare_classes_are_drawn_as_their_probabilities_say() -> None:
    pixels = np.array([[90, 0, 0, 5], [800, 0, 60, 0], [700, 0, 2, 3]])
    sampler = rare_classes.rare_classes(pixels, 0.5, least=4)
    assert sampler.classes.tolist() == [3, 2, 0]  # class 1 is never there
    assert [rows.tolist() for rows in sampler.rows] == [[0], [1], [0, 1, 2]]
    # of no picture enough: all that have any
    assert rare_classes.rare_classes(pixels, 0.5, 70).rows[0].tolist() == [0, 2]
    generator = torch.Generator().manual_seed(0)
    drawn = [sampler.draw(generator) for _ in range(2000)]
    for kind, probability in zip(sampler.classes, sampler.probabilities, strict=True):
        share = sum(one[0] == kind for one in drawn) / len(drawn)
        assert abs(share - probability) < 0.04
    assert {row for kind, row in drawn if kind == 3} == {0}
    with pytest.raises(ValueError, match="no picture has a labelled pixel"):
        rare_classes.rare_classes(np.zeros((2, 3), dtype=np.int64), 0.5)
    with pytest.raises(ValueError, match="temperature must be greater than 0, got 0"):
        rare_classes.rare_classes(pixels, 0)


def test_crops_are_worth_training_on() -> None:
    labels = np.zeros((20, 60), dtype=np.uint8)
    labels[::2, 30:], labels[:, 58:] = 1, 255
    for seed in range(20):
        generator = torch.Generator().manual_seed(seed)
        top, left = rare_classes.source_crop(labels, (8, 12), generator, wanted=1, least=20)
        part = labels[top : top + 8, left : left + 12]
        assert part.shape == (8, 12)
        counts = np.bincount(part[part != 255], minlength=2)
        assert (part == 1).sum() > 20 and counts.max() < 0.75 * counts.sum()
    # a crop without any label, and one larger than the picture, are no error
    empty = np.full((4, 4), 255, dtype=np.uint8)
    assert rare_classes.source_crop(empty, (9, 9), torch.Generator()) == (0, 0)
