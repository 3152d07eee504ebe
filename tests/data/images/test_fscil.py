"""Protocols: the public lists and real data where present, small trees in the original formats."""

import hashlib
import json
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tenfold.data import catalog
from tenfold.data.images import cifar, fscil, fscil_sets
from tenfold.data.images.decode import Reading
from tenfold.data.images.fscil import Numbers, View
from tenfold.data.images.fscil_open import describe, read

GOLDEN = Path(__file__).parents[2] / "golden/ldc/protocol.json"
SMALL = Numbers(base=4, way=2, shot=2, sessions=2)
"""Of the trees made here: classes 0-3, then 4-5 and 6-7."""


@pytest.fixture(autouse=True)
def small(tmp_path, monkeypatch):
    """An empty $TENFOLD_DATA, and public sets of eight classes."""
    (tmp_path / "data").mkdir()
    monkeypatch.setenv("TENFOLD_DATA", str(tmp_path / "data"))
    for name in ("cifar100", "mini_imagenet", "cub200"):
        monkeypatch.setitem(fscil.OWN, name, SMALL)
    monkeypatch.setattr(cifar, "CLASSES", 8)


def lists(root: Path, name: str, sessions: list[list[object]]) -> Path:
    folder = root / "data" / "fscil_index_lists" / name
    folder.mkdir(parents=True, exist_ok=True)
    for number, lines in enumerate(sessions, 2):
        (folder / f"session_{number}.txt").write_text("".join(f"{line}\n" for line in lines))
    return folder


def picture(file: Path, value: int) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (6, 5), (value, 100, 50)).save(file, quality=95)


# --- the view ---


def test_view_means_blocks_exactly_where_the_size_divides():
    view = View(4, 2, (0.5, 0.25, 0.0), (0.5, 1.0, 2.0))
    images = torch.arange(48, dtype=torch.uint8).reshape(1, 3, 4, 4)
    blocks = images[0, 0].double().reshape(2, 2, 2, 2).mean((1, 3)) / 255
    torch.testing.assert_close(view.train_source(images)[0, 0].double(), blocks, rtol=1e-6, atol=0)
    got = view.test(images)
    torch.testing.assert_close(got[0, 0].double(), (blocks - 0.5) / 0.5)
    assert got.shape == (1, 3, 2, 2)
    torch.testing.assert_close(got[0, 2], view.train_source(images)[0, 2] / 2)


def test_view_crops_the_centre_where_it_does_not_divide():
    view = View(7, 3, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    images = torch.arange(147, dtype=torch.uint8).reshape(1, 3, 7, 7)
    assert torch.equal(view.test(images), images[:, :, 2:5, 2:5].float() / 255)
    assert torch.equal(view.train_source(images), images.float() / 255)
    with pytest.raises(ValueError, match=r"pictures of 8 pixels, expected 7"):
        view.test(torch.zeros(1, 3, 8, 8, dtype=torch.uint8))


# --- CIFAR-100 ---


def cifar_rows() -> tuple[list[int], list[int]]:
    """Labels of 5 training and 2 test pictures a class, mixed."""
    return [i * 3 % 8 for i in range(40)], [i * 5 % 8 for i in range(16)]


def cifar_pickles(root: Path, **change: object) -> Path:
    folder = root / "cifar" / "cifar-100-python"
    folder.mkdir(parents=True, exist_ok=True)
    for split, labels in zip(("train", "test"), cifar_rows(), strict=True):
        data = np.arange(len(labels), dtype=np.uint8)[:, None].repeat(3072, 1)
        content = {"data": data, "fine_labels": labels, "coarse_labels": labels}
        content["filenames"] = [f"{split}_{i}.png" for i in range(len(labels))]
        content |= change if split == "train" else {}
        (folder / split).write_bytes(pickle.dumps(content, protocol=2))
    names = {"fine_label_names": [f"class {i}" for i in range(8)]}
    (folder / "meta").write_bytes(pickle.dumps(names, protocol=2))
    return folder.parent


def cifar_binary(root: Path) -> Path:
    folder = root / "binary" / "cifar-100-binary"
    folder.mkdir(parents=True)
    for split, labels in zip(("train", "test"), cifar_rows(), strict=True):
        rows = [bytes([0, label]) + bytes([i]) * 3072 for i, label in enumerate(labels)]
        (folder / f"{split}.bin").write_bytes(b"".join(rows))
    (folder / "fine_label_names.txt").write_text("".join(f"class{i}\n" for i in range(8)))
    return folder.parent


def cifar_lists(root: Path) -> list[list[int]]:
    """The last two pictures of each new class, last first."""
    labels = cifar_rows()[0]
    of_class = [[row for row, label in enumerate(labels) if label == c] for c in range(8)]
    sessions = [[row for c in pair for row in of_class[c][:2:-1]] for pair in ((4, 5), (6, 7))]
    lists(root, "cifar100", sessions)
    return sessions


def test_cifar_pickles_and_binary_give_the_listed_photos(tmp_path):
    sessions = cifar_lists(tmp_path)
    made = [read("cifar100", cifar_pickles(tmp_path)), read("cifar100", cifar_binary(tmp_path))]
    assert made[0].classes[7] == "class 7" and made[1].classes[7] == "class7"
    for got in made:
        assert (got.base, got.way, got.shot, got.sessions) == (4, 2, 2, 2)
        assert got.train.labels.tolist() == [c for c in range(4) for _ in range(5)]
        assert got.test.labels.tolist() == [c for c in range(8) for _ in range(2)]
        assert (got.view.side, got.view.size, got.view.mean[0]) == (32, 32, 0.507)
        for session, rows in enumerate(sessions):  # each picture holds its own row number
            held = got.novel.at(got.support[0][session])
            assert held.images[:, 0, 0, 0].tolist() == rows
            assert held.labels.tolist() == [4 + 2 * session + i // 2 for i in range(4)]
    assert made[0].train.names[0] == "train_0.png"
    assert made[1].train.names[0] == "train.bin:0"
    assert [made[0].seen(s) for s in range(3)] == [4, 6, 8]


def test_cifar_pictures_are_a_plane_a_colour_row_by_row(tmp_path):
    cifar_lists(tmp_path)
    planes = torch.stack([torch.arange(1024).view(32, 32) // 8 + 50 * c for c in range(3)])
    data = planes.to(torch.uint8).reshape(1, -1).repeat(40, 1).numpy()
    got = read("cifar100", cifar_pickles(tmp_path, data=data))
    assert torch.equal(got.train.images[0], planes.to(torch.uint8))


def test_further_draws_are_other_pictures_by_seed(tmp_path):
    sessions = cifar_lists(tmp_path)
    path = cifar_pickles(tmp_path)
    one, two = (read("cifar100", path, draws=3, seed=seed) for seed in (0, 1))
    again = read("cifar100", path, draws=2, seed=0)
    for session, rows in enumerate(sessions):
        first, second, third = (
            one.novel.at(draw[session]).images[:, 0, 0, 0].tolist() for draw in one.support
        )
        assert first == rows and not set(first) & set(second)
        # a third draw of two does not fit into five photos, so it may share some
        assert one.novel.labels[one.support[2][session]].tolist() == sorted(
            one.novel.labels[one.support[0][session]].tolist()
        )
        assert len(set(third)) == 4
        same = again.novel.at(again.support[1][session]).images[:, 0, 0, 0].tolist()
        assert same == second
    different = [p.novel.images[torch.cat(p.support[1])][:, 0, 0, 0].tolist() for p in (one, two)]
    assert different[0] != different[1]


def test_fewer_classes_keep_the_public_sessions(tmp_path):
    sessions = cifar_lists(tmp_path)
    got = read("cifar100", cifar_pickles(tmp_path), base=3, way=1, shot=1, size=16)
    assert got.classes == ("class 0", "class 1", "class 2", "class 4", "class 6")
    assert got.classes == describe("cifar100", tmp_path / "cifar", base=3, way=1)
    assert got.novel.images[torch.cat(got.support[0])][:, 0, 0, 0].tolist() == [
        sessions[0][0], sessions[1][0],
    ]  # fmt: skip
    assert got.test.labels.tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert got.view.test(got.test.images).shape == (10, 3, 16, 16)
    for change, says in (
        ({"base": 5}, r"data.base is 5, but the protocol of cifar100 has 4"),
        ({"way": 3}, r"data.way is 3, but the protocol of cifar100 has 2"),
        ({"base": 1}, r"data.base is 1: .*at least 2"),
        ({"shot": 6}, r"class 'class 4' .* 5 pictures .* at least 6 .*lower data.shot"),
        ({"size": 20}, r"data.size is 20, but cifar100 has pictures of 32"),
        ({"draws": 0}, r"data.draws must be at least 1"),
    ):
        with pytest.raises(ValueError, match=says):
            read("cifar100", tmp_path / "cifar", **change)


def test_without_lists_the_way_to_them_is_said(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"cifar100: .*session lists.*fscil_index_lists"):
        read("cifar100", cifar_pickles(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"neither cifar-100-python/train nor"):
        describe("cifar100", tmp_path / "data")


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("40", r"session_3.txt names '40', which is no training picture"),
        ("-1", r"names '-1', which is no"),
        ("../../x", r"names '../../x', which is no"),
        ("0", r"names '0', a picture of class 0, but this session has classes 6-7"),
    ],
)
def test_wrong_list_lines_are_named(tmp_path, line, says):
    sessions = cifar_lists(tmp_path)
    lists(tmp_path, "cifar100", [sessions[0], [line, *sessions[1][1:]]])
    with pytest.raises(ValueError, match=says):
        read("cifar100", cifar_pickles(tmp_path))


def test_a_picture_listed_twice_and_a_missing_list_are_refused(tmp_path):
    sessions = cifar_lists(tmp_path)
    folder = lists(tmp_path, "cifar100", [sessions[0], sessions[1] + sessions[1][:1]])
    path = cifar_pickles(tmp_path)
    with pytest.raises(ValueError, match=r"name a picture twice"):
        read("cifar100", path)
    (folder / "session_3.txt").unlink()
    with pytest.raises(ValueError, match=r"session_3.txt is missing"):
        read("cifar100", path)


class Evil:
    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self):
        return os.system, (f"touch {self.file}",)


def test_a_pickle_that_asks_for_more_than_arrays_is_not_run(tmp_path):
    cifar_lists(tmp_path)
    path = cifar_pickles(tmp_path, filenames=Evil(tmp_path / "ran"))
    with pytest.raises(
        ValueError, match=r"train cannot be read: it asks for the global posix.system"
    ):
        read("cifar100", path)
    assert not (tmp_path / "ran").exists()


def test_a_pickle_as_python_2_wrote_it_is_read(tmp_path):
    # the authors' files: keys and pixels are byte strings, which a Python 3 pickle never has
    pixels = bytes(range(256)) * 24
    (folder := tmp_path / "old").mkdir()
    (folder / "train").write_bytes(
        b"\x80\x02}(U\x04datacnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n"
        b"K\x00\x85U\x01b\x87R(K\x01K\x02M\x00\x0c\x86cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R"
        b"(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89"
        b"T" + len(pixels).to_bytes(4, "little") + pixels + b"tbU\x0bfine_labels](K\x07K\x02eu."
    )
    got = cifar.read(folder, "train")
    assert got.images.flatten().tolist() == list(pixels) and got.labels.tolist() == [7, 2]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"fine_labels": [8] * 40}, r"row 0 has label 8, allowed are 0-7"),
        ({"fine_labels": [10**30] * 40}, r"label outside 0-7"),
        ({"fine_labels": [0.0] * 40}, r"no list of whole numbers"),
        ({"fine_labels": [0] * 39}, r"40 pictures, 39 labels"),
        ({"data": np.zeros((40, 3071), np.uint8)}, r"3071 columns, expected 3072"),
        ({"data": np.zeros((40, 3072))}, r"no table of uint8"),
        ({"filenames": [1] * 40}, r"no list of names"),
    ],
)
def test_wrong_cifar_pickles_are_named(tmp_path, change, says):
    cifar_lists(tmp_path)
    with pytest.raises(ValueError, match=says):
        read("cifar100", cifar_pickles(tmp_path, **change))


def test_cut_off_cifar_files_are_named(tmp_path):
    cifar_lists(tmp_path)
    for path, name in ((cifar_pickles(tmp_path), "train"), (cifar_binary(tmp_path), "train.bin")):
        (file,) = path.rglob(name)
        file.write_bytes(file.read_bytes()[:5000])
        with pytest.raises(ValueError, match=rf"{name} .*cut off"):
            read("cifar100", path)


def test_other_class_counts_are_refused(tmp_path, monkeypatch):
    cifar_lists(tmp_path)
    monkeypatch.setitem(fscil.OWN, "cifar100", Numbers(4, 2, 2, 3))
    lists(tmp_path, "cifar100", [[0]] * 3)
    with pytest.raises(ValueError, match=r"cifar100 has 8 classes here, expected 4 \+ 3 x 2"):
        describe("cifar100", cifar_pickles(tmp_path))


# --- CUB-200-2011 ---


def cub(root: Path, odd: str = "") -> Path:
    """Eight species, three training and two test photos each, and their lists."""
    folder = root / "cub" / "CUB_200_2011"
    rows = []
    for c in range(8):
        for i in range(5):
            name = f"{c + 1:03}.Grey_{c}_Bird/Bird_{c}_{i}.jpg"
            picture(folder / "images" / name, 20 * c + 3 * i)
            rows.append((odd if odd and c == i == 0 else name, int(i in (0, 2, 4)), c + 1))
    for stem, column in (("images", 0), ("train_test_split", 1), ("image_class_labels", 2)):
        text = "".join(f"{number} {row[column]}\n" for number, row in enumerate(rows, 1))
        (folder / f"{stem}.txt").write_text(text)
    text = "".join(f"{c + 1} {c + 1:03}.Grey_{c}_Bird\n" for c in range(8))
    (folder / "classes.txt").write_text(text)
    lines = [
        [f"CUB_200_2011/images/{rows[5 * c + i][0]}" for c in pair for i in (4, 2)]
        for pair in ((4, 5), (6, 7))
    ]
    lists(root, "cub200", lines)
    return folder.parent


def test_cub_takes_the_official_split_and_the_listed_photos(tmp_path):
    got = read("cub200", cub(tmp_path), size=14)
    assert got.classes[:2] == ("Grey 0 Bird", "Grey 1 Bird")
    assert got.classes == describe("cub200", tmp_path / "cub")
    assert got.train.labels.tolist() == [c for c in range(4) for _ in range(3)]
    assert got.test.names[:2] == ("001.Grey_0_Bird/Bird_0_1.jpg", "001.Grey_0_Bird/Bird_0_3.jpg")
    names = got.novel.at(got.support[0][1]).names
    assert [name[-7:-4] for name in names] == ["6_4", "6_2", "7_4", "7_2"]
    assert (got.view.side, got.view.size) == (16, 14) and got.train.images.shape[2:] == (16, 16)
    assert abs(got.test.images[2:4, 0].float().mean() - 26) < 3  # the pictures of class 1
    assert read("cub200", tmp_path / "cub" / "CUB_200_2011", base=2, size=7).train.labels.max() == 1


@pytest.mark.parametrize("odd", ["../../secret.jpg", "/etc/passwd"])
def test_cub_paths_that_leave_the_folder_are_refused(tmp_path, odd):
    with pytest.raises(ValueError, match=r"leads out of .*images"):
        read("cub200", cub(tmp_path, odd), size=14)


def test_cub_tables_must_fit(tmp_path):
    root = cub(tmp_path) / "CUB_200_2011"
    split = (root / "train_test_split.txt").read_text()
    (root / "train_test_split.txt").write_text(split.replace("7 ", "70 ", 1))
    with pytest.raises(ValueError, match=r"do not list the same pictures"):
        read("cub200", root)
    (root / "train_test_split.txt").write_text(split + "oops\n")
    with pytest.raises(ValueError, match=r"train_test_split.txt: line 41 is not"):
        read("cub200", root)
    (root / "train_test_split.txt").write_text(split)
    labels = (root / "image_class_labels.txt").read_text()
    (root / "image_class_labels.txt").write_text(labels.replace("1 1\n", "1 9\n", 1))
    with pytest.raises(ValueError, match=r"picture 1 has class '9' .* allowed are 1-8"):
        read("cub200", root)
    with pytest.raises(FileNotFoundError, match=r"holds no CUB_200_2011/images.txt"):
        read("cub200", tmp_path / "data")


# --- miniImageNet ---

WNIDS = [f"n0000000{c}" for c in (3, 1, 2, 0, 5, 4, 7, 6)]


def mini(root: Path, has_tables: bool) -> Path:
    folder = root / ("tables" if has_tables else "trees" + os.sep + "MINI-ImageNet")
    for split, each in (("train", 3), ("test", 2)):
        rows = []
        for c, wnid in enumerate(WNIDS):
            for i in range(each):
                name = f"{wnid}{split}{i:03}.jpg"
                place = Path("images") if has_tables else Path(split) / wnid
                picture(folder / place / name, 20 * c + i)
                rows.append(f"{name},{wnid}")
        if has_tables:
            (folder / "split").mkdir(exist_ok=True)
            (folder / "split" / f"{split}.csv").write_text("\n".join(["filename,label", *rows]))
    lines = [
        [f"MINI-ImageNet/train/{WNIDS[c]}/{WNIDS[c]}train{i:03}.jpg" for c in pair for i in (2, 0)]
        for pair in ((4, 5), (6, 7))
    ]
    order = lists(root, "mini_imagenet", lines) / "class_order.txt"
    order.write_text("".join(f"{wnid}\n" for wnid in WNIDS))
    return folder if has_tables else folder.parent


@pytest.mark.parametrize("has_tables", [True, False])
def test_mini_imagenet_follows_class_order_in_both_layouts(tmp_path, has_tables):
    got = read("mini_imagenet", mini(tmp_path, has_tables), size=21)
    assert list(got.classes) == WNIDS == list(describe("mini_imagenet", tmp_path))
    assert (got.view.side, got.view.size) == (23, 21)  # as 92 to 84
    assert got.train.labels.tolist() == [c for c in range(4) for _ in range(3)]
    assert abs(got.test.images[:2, 0].float().mean()) < 3
    assert abs(got.test.images[-2:, 0].float().mean() - 140) < 3
    names = got.novel.at(got.support[0][0]).names
    assert [name[-7:-4] for name in names] == ["002", "000", "002", "000"]


def test_the_split_of_few_shot_learning_is_told_apart(tmp_path):
    folder = mini(tmp_path, True)
    table = folder / "split" / "train.csv"
    table.write_text("\n".join(table.read_text().splitlines()[:10]))
    with pytest.raises(ValueError, match=r"train.csv has 3 of the 8 classes"):
        read("mini_imagenet", folder)
    table.write_text("filename,label\n../../x.jpg,n00000003\n")
    with pytest.raises(ValueError, match=r"has 1 of the 8"):
        read("mini_imagenet", folder)
    table.write_text("filename,label\nx.jpg,dog\n")
    with pytest.raises(ValueError, match=r"train.csv line 2 is 'x.jpg,dog'"):
        read("mini_imagenet", folder)
    rows = "\n".join(f"{'../' * 9}etc/{wnid}.jpg,{wnid}" for wnid in WNIDS)
    table.write_text(f"filename,label\n{rows}\n")
    with pytest.raises(ValueError, match=r"leads out of"):
        read("mini_imagenet", folder)
    with pytest.raises(FileNotFoundError, match=r"neither images/ with split/train.csv nor"):
        read("mini_imagenet", tmp_path / "data")


# --- folders ---


def tree(root: Path, names="abcdef", each: int = 10) -> Path:
    for c, name in enumerate(names):
        for i in range(each):
            picture(root / name / f"{i:02}.png", 10 * c + i)
    return root


def test_a_folder_is_split_by_class_and_seed(tmp_path):
    path = tree(tmp_path / "own")
    got = read("folder", path, base=2, way=2, shot=3, draws=3, test_share=0.3)
    assert got.classes == tuple("abcdef") == describe("folder", path)
    assert (got.base, got.way, got.shot, got.sessions) == (2, 2, 3, 2)
    assert got.test.labels.tolist() == [c for c in range(6) for _ in range(3)]
    assert got.train.labels.tolist() == [0] * 7 + [1] * 7
    assert not set(got.test.names) & {*got.train.names, *got.novel.names}
    drawn = [set(got.novel.at(draw[0]).names) for draw in got.support]
    assert not drawn[0] & drawn[1] and all(len(names) == 6 for names in drawn)
    assert (got.view.side, got.view.size) == (37, 32)
    same, other = (
        read("folder", path, base=2, way=2, shot=3, test_share=0.3, seed=seed) for seed in (0, 1)
    )
    assert same.test.names == got.test.names != other.test.names
    # another class changes nothing for those that were there
    picture(path / "aa" / "0.png", 0), picture(path / "aa" / "1.png", 0)
    for i in range(2, 6):
        picture(path / "aa" / f"{i}.png", i)
    more = read("folder", path, test_share=0.3)
    assert set(got.test.names) < set(more.test.names)


def test_a_folder_without_sessions_is_all_base(tmp_path):
    got = read("folder", tree(tmp_path / "own"), size=14)
    assert (got.base, got.sessions, got.support) == (6, 0, ((),))
    assert len(got.novel) == 0 and len(got.train) == 48 and len(got.test) == 12
    one = read("folder", tmp_path / "own", base=4, size=14)
    assert (one.way, one.sessions) == (2, 1)


def test_a_folder_with_its_own_split_is_taken_as_it_is(tmp_path):
    tree(tmp_path / "own" / "train", "abc", 7), tree(tmp_path / "own" / "val", "abc", 3)
    got = read("folder", tmp_path / "own", base=2, way=1)
    assert (len(got.train), len(got.test), len(got.novel)) == (14, 9, 5)
    tree(tmp_path / "own" / "val", "d", 3)
    with pytest.raises(ValueError, match=r"do not hold the same classes; only one has d"):
        read("folder", tmp_path / "own")


def test_folders_that_cannot_make_a_protocol(tmp_path):
    path = tree(tmp_path / "own")
    for change, says in (
        ({"base": 2, "way": 3}, r"4 new classes .*data.way=3. Set data.way to one of 1, 2, 4"),
        ({"base": 7}, r"data.base is 7, but there are 6 classes"),
        ({"base": 2, "shot": 9}, r"class 'c' of folder has 8 pictures to train .*at least 9"),
        ({"test_share": 0}, r"data.test_share is 0"),
    ):
        with pytest.raises(ValueError, match=says):
            read("folder", path, **change)
    for file in sorted((path / "b").iterdir())[3:]:
        file.unlink()
    with pytest.raises(
        ValueError, match=r"class 'b' of folder has 1 pictures to train .*remove the class"
    ):
        read("folder", path)
    with pytest.raises(ValueError, match=r"at least 2 are needed"):
        read("folder", tree(tmp_path / "one", "a"))
    with pytest.raises(ValueError, match=r"data.path is empty"):
        read("folder")
    with pytest.raises(ValueError, match=r"no pictures are read for 'imagenet': choose one of"):
        read("imagenet", path)


def test_a_broken_photo_is_skipped_only_if_asked(tmp_path):
    path = tree(tmp_path / "own")
    (path / "c" / "03.png").write_bytes(b"\xff\xd8\xff broken")
    with pytest.raises(ValueError, match=r"03.png"):
        read("folder", path, base=2, way=2)
    with pytest.warns(UserWarning, match=r"1 of 60 pictures left out.*03.png"):
        got = read("folder", path, base=2, way=2, reading=Reading(skip_broken=True))
    assert "c/03.png" not in {*got.novel.names, *got.test.names}


# --- the public lists and the real data ---


@pytest.fixture
def shared(monkeypatch) -> Path:
    monkeypatch.undo()  # the real numbers and the real $TENFOLD_DATA
    return catalog.root() or pytest.skip("$TENFOLD_DATA is not set")


@pytest.mark.skipif(not GOLDEN.exists(), reason="the golden case is not there")
@pytest.mark.parametrize("name", ["cifar100", "cub200", "mini_imagenet"])
def test_public_lists_are_those_of_the_golden_case(shared, name):
    if not (shared / "fscil_index_lists").is_dir():
        pytest.skip("the lists are not there")
    golden = json.loads(GOLDEN.read_text())["datasets"][name]
    own = fscil.OWN[name]
    assert (own.base, own.way, own.shot, own.sessions) == (
        golden["base"], golden["way"], golden["shot"], golden["sessions"] - 1,
    )  # fmt: skip
    assert own.base + own.way * own.sessions == golden["total"]
    expected = {item["file"]: item for item in golden["files"] if item["file"] != "session_1.txt"}
    assert len(expected) == own.sessions
    for number, lines in enumerate(fscil_sets._lists(shared / "fscil_index_lists" / name, name), 2):
        item = expected[f"session_{number}.txt"]
        digest = hashlib.sha256("\n".join(lines).encode()).hexdigest()
        assert (len(lines), digest) == (item["n"], item["sha256_of_lines"])
        assert (lines[0], lines[-1]) == (item["first"][0], item["last"][-1])


def test_tiny_imagenet_draws_are_consecutive_rows_and_draw_0_is_the_list(shared):
    if not (shared / "tiny_imagenet_fscil").is_dir():
        pytest.skip("the set is not there")
    source = fscil_sets.SOURCES["tiny_imagenet_fscil"](shared / "tiny_imagenet_fscil", 0)
    assert len(source.train) == 15_400 and len(source.test) == 5_000
    got = read("tiny_imagenet_fscil", base=2, way=5, draws=5)
    assert (len(got.train), len(got.novel), len(got.test)) == (480, 1000, 42 * 50)
    assert got.classes == describe("tiny_imagenet_fscil", base=2)
    folder = shared / "tiny_imagenet_fscil" / "index_list"
    for session in range(8):
        listed = (folder / f"session_{session + 2}.txt").read_text().split()
        assert got.support[0][session].tolist() == [int(row) for row in listed]
        for draw in range(5):
            first = [125 * session + 25 * way + 5 * draw for way in range(5)]
            assert got.support[draw][session].tolist() == [
                row + shot for row in first for shot in range(5)
            ]
    assert got.view.test(got.train.images[:2]).shape == (2, 3, 32, 32)
