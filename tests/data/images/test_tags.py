"""Folders with image-level labels: tables in each form, LabelMe's files, class folders; damage."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import image_sets
import numpy as np
import pytest

from tenfold.data.checks import check
from tenfold.data.images.decode import Reading
from tenfold.data.images.image_labels import MultiLabelSet
from tenfold.data.images.multilabel import open_set, read_image, read_mask
from tenfold.data.images.segmentation import read_labels

Labels = dict[str, set[str]]
PICTURES = 6
TRUTH: Labels = {f"img{i}": {"cat"} | ({"dog"} if i % 2 else set()) for i in range(PICTURES)}


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for i in range(PICTURES):
        image_sets.picture(folder / "images" / f"img{i}.jpg", i)
    return folder


@pytest.fixture
def folder(photos, tmp_path) -> Path:
    shutil.copytree(photos, tmp_path / "set")
    return tmp_path / "set"


def both(path: Path, **how: object) -> tuple[MultiLabelSet, MultiLabelSet]:
    return open_set("folder", path, "train", **how), open_set("folder", path, "val", **how)


def labels(*sets: MultiLabelSet) -> Labels:
    return {i.name: {one.classes[n] for n in i.labels} for one in sets for i in one.items}


def table(row: Callable[[str, list[str]], str], head: str = "") -> str:
    """A table of TRUTH, made of what `row` makes of a picture and its labels."""
    return head + "".join(row(name, sorted(found)) for name, found in TRUTH.items())


def flags(name: str, found: list[str]) -> str:
    return f"{name}.jpg,{int('dog' in found)},{int('cat' in found)}\n"


FORMS = {
    "columns of 0 and 1": table(flags, "image,dog,cat\n"),
    "columns in words, a counter": table(
        lambda n, f: f"7,{n}.jpg,{'dog' in f},TRUE\n", ",filename,dog,cat\n"
    ),
    "Roboflow": table(lambda n, f: f"{n}.jpg, {int('dog' in f)}, 1\n", "filename, dog, cat\n"),
    "list by semicolon": table(lambda n, f: f"{n}.jpg,{';'.join(f)}\n"),
    "list by bar, other capitals": table(
        lambda n, f: f"{n.upper()}.JPG;{'|'.join(f)}\n", "File;Labels\n"
    ),
    "list by comma, quoted": table(lambda n, f: f'{n}.jpg,"{", ".join(f)}"\n', "image,tags\n"),
    "list by space, no endings": table(lambda n, f: f"{n},{' '.join(f)}\n", "image_name,tags\n"),
    "list of Python": table(lambda n, f: f'images/{n}.jpg,"{f}"\n', "path,labels\n"),
    "long, another ending": table(
        lambda n, f: "".join(f"{n}.png\t{label}\n" for label in f), "image_id\tlabel\n"
    ),
    "long, boxes beside": table(
        lambda n, f: "".join(f"/mnt/x/images/{n}.jpg,40,30,{c},1,2,3,4\n" for c in f),
        "filename,width,height,class,xmin,ymin,xmax,ymax\n",
    ),
    "loose": table(lambda n, f: ",".join([f"{n}.jpg", *f]) + "\n"),
    "Excel's first line": table(lambda n, f: f"{n}.jpg;{'|'.join(f)}\n", "sep=;\nFile;Labels\n"),
    "byte-order mark, Windows": "\ufeff" + table(flags, "image,dog,cat\n").replace("\n", "\r\n"),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.filterwarnings("ignore:.*columns that hold no labels are left out.*:UserWarning")
def test_forms_of_tables(folder, form):
    text = FORMS[form]
    (folder / "labels.csv").write_text(text, encoding="utf-8")
    train, val = both(folder)
    assert labels(train, val) == TRUTH and len(val) == 1
    in_columns = "0 and 1" in train.labels_from
    assert train.classes == (("dog", "cat") if in_columns else ("cat", "dog"))
    assert train.labels_from.startswith("labels.csv: ")
    shutil.move(folder / "labels.csv", folder / "any.tsv")
    (folder / "other.csv").write_text("image,label\nx.jpg,y\n")
    assert labels(*both(folder / "any.tsv")) == TRUTH


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("image,label\nimg0.jpg,cat\nimg9.jpg,cat\n", r"names 1 pictures .* \(line 3: img9.jpg\)"),
        ("image,a,b\nimg0.jpg,1,0\nimg0.jpg,1,1\n", "img0.jpg is a in line 2, a, b in line 3"),
        ("image;labels\nimg0.jpg;a|b\nimg0.jpg;a\n", "rows contradict each other for 1 pictures"),
        ("image,label\nimg0.jpg,cat\nIMG0.png,cat\n", "lines 2 and 3 mean one picture"),
        ("image,label\nimg0.jpg,cat\nimg1.jpg,Cat\n", "'cat' and 'Cat' differ in capitals"),
        ("image,a,b\nimg0.jpg,1,0\nimg1.jpg,1,-1\nimg2.jpg,1,1\n", "line 3: column 'b' holds '-1'"),
        ("image,a,b\nimg0.jpg,1\n", "line 2 has 2 cells, the heading 3"),
        ("image,width,height\nimg0.jpg,3,4\n", "columns width, height: which one has the labels"),
        ("img0.jpg,0,1\nimg1.jpg,1,1\n", "2 columns of 0 and 1 without names"),
        ("img0.jpg,3,4\nimg1.jpg,1,1\n", "line 1 holds the number '3'"),
        ("image,labels\nimg0,cat dog\nimg1,cow\n", "is 'cat dog' one label or several"),
        ("image,labels\nimg0,a|b\nimg1,a;b\n", "labels are parted by ; and by |"),
        ("image,label,split\nimg0,a,train\nimg1,a,else\n", "line 3: 'else' is no split"),
        ("image,label,split\nimg0,a,train\nimg0,b,val\n", "img0 is in val and in train"),
        ("a,b\nc,d\n", "no column names pictures"),
        ("image\nimg0.jpg\n", "no column names pictures"),
        ("image,label\n", "no column names pictures"),
        ("image,label\nimg0.jpg,cat\nimg1.jpg,\nimg2.jpg,\nimg3.jpg,cat\nimg4.jpg,\n",
         r"\d of \d pictures have no label \(img"),
        ("image,label,split\nimg0,cat,train\nimg1,cat,train\nimg2,dog,valid\n",
         r"dog is a label of split 'val' \(img2\), but never seen in training"),
        ('image,label\nimg0.jpg,"' + "a" * 200_000, "cannot be read as CSV: field larger"),
        ("image,label\nimg0.jpg,\0\n", "holds zero bytes"),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_what_does_not_fit_is_named(folder, text, said):
    (folder / "labels.csv").write_text(text)
    with pytest.raises((ValueError, FileNotFoundError), match=said):
        both(folder)
    assert any(re.search(said, p.what) for p in check("folder", folder).problems)


def test_what_does_not_fit_is_left_out_if_asked_for(folder):
    rows = "img0,cat\nimg1,cat;dog\nimg2,cat\nimg9,cat\nimg3,cat;dog\nimg3,dog\nimg4,dog\n"
    (folder / "labels.csv").write_text(f"image,labels\n{rows}")
    with pytest.warns(UserWarning) as said:
        found = labels(*both(folder, reading=Reading(skip_broken=True)))
    assert found.keys() == {"img0", "img1", "img2", "img4"}
    texts = " ".join(str(one.message) for one in said)
    for part in ("line 5: img9", "whose rows contradict are left out: img3", "2 of 6 pictures are"):
        assert part in texts


def test_names_that_can_mean_two_pictures(folder):
    for name in ("a/x.jpg", "b/x.jpg", "a/y.jpg", "b/y.jpg"):
        image_sets.picture(folder / "images" / name)
    (folder / "t.csv").write_text("image,label\nx.jpg,cat\nimg1,cat\nimg2,cat\n")
    with pytest.raises(ValueError, match=r"t.csv line 2: 'x.jpg' can mean a/x.jpg, b/x.jpg"):
        open_set("folder", folder)
    (folder / "t.csv").write_text("image,label\nc/y.jpg,cat\nimg1,cat\nimg2,cat\n")
    with pytest.raises(FileNotFoundError, match="line 2: c/y.jpg"):
        open_set("folder", folder)
    (folder / "t.csv").write_text("image,label\na/x.jpg,cat\nb\\y.JPG,cat\nimg2,cat\n")
    with pytest.warns(UserWarning, match="7 of 10 pictures are not in t.csv"):
        assert set(labels(*both(folder))) == {"a/x", "b/y", "img2"}


# --- splits --------------------------------------------------------------------------------------


def test_splits_of_columns_tables_and_folders(folder, tmp_path):
    rows = [f"img{i},{'cat' if i % 2 else 'dog'}" for i in range(PICTURES)]
    words = ["train", "Training", "train", "valid", "validation", "test"]
    text = "".join(f"{r},{w}\n" for r, w in zip(rows, words, strict=True))
    (folder / "labels.csv").write_text("image,label,subset\n" + text)
    sizes = [len(open_set("folder", folder, s)) for s in ("train", "val", "test")]
    assert sizes == [3, 2, 1]
    (folder / "labels.csv").write_text(
        "fname,labels,is_valid\n" + "".join(f"{r},{i > 3}\n" for i, r in enumerate(rows))
    )
    assert [len(one) for one in both(folder)] == [4, 2]
    with pytest.raises(ValueError, match="no split 'test'; it has train, val"):
        open_set("folder", folder, "test")
    (folder / "labels.csv").unlink()
    for name, part in (("train", rows[:4]), ("val", rows[4:])):
        (folder / f"{name}.csv").write_text("\n".join(["image,label", *part]))
    assert [len(one) for one in both(folder)] == [4, 2]
    (folder / "all.csv").write_text("\n".join(["image,label", *rows]))
    with pytest.warns(
        UserWarning, match=r"left out: all.csv \(7 lines\), whose name tells no split"
    ):
        assert [len(one) for one in both(folder)] == [4, 2]
    (folder / "all.csv").unlink()
    (folder / "val.csv").write_text("\n".join(["image,label", *rows[3:]]))
    with pytest.raises(ValueError, match=r"1 pictures are in the table of another split.*img3.jpg"):
        open_set("folder", folder)
    root = tmp_path / "roboflow"
    for split, numbers in (("train", (0, 1, 2)), ("valid", (3, 4))):
        for i in numbers:
            image_sets.picture(root / split / f"img{i}.jpg", i)
        lines = [f"img{i}.jpg, {int(i != 1)}, 1" for i in numbers]
        (root / split / "_classes.csv").write_text("\n".join(["filename, cat, dog", *lines]))
    assert [len(one) for one in both(root)] == [3, 2]


def test_a_table_without_a_split_beside_one_of_a_split_is_for_training(folder):
    rows = [f"img{i},{'cat' if i % 2 else 'dog'}" for i in range(PICTURES)]
    for name, part in (("labels", rows[:4]), ("val", rows[4:])):
        (folder / f"{name}.csv").write_text("\n".join(["image,label", *part]))
    assert [len(one) for one in both(folder)] == [4, 2]


def test_division_is_by_name_and_leaves_each_class_for_training(folder):
    text = "".join(f"img{i}.jpg,c{i}\n" for i in range(PICTURES)) + "img0.jpg,c5\n"
    (folder / "labels.csv").write_text("image,label\n" + text)
    train = open_set("folder", folder, test_share=0.9)
    assert min(train.positives) == 1 and len(train) >= PICTURES - 1
    (folder / "labels.csv").write_text(FORMS["columns of 0 and 1"])
    first, second = (open_set("folder", folder, "val", test_share=0.4, seed=s) for s in (0, 1))
    assert len(first) == len(second) == 2 and first.items != second.items


# --- other sources -------------------------------------------------------------------------------


def label_file(picture: Path, tags: dict[str, bool], *shapes: str, named: str = "") -> None:
    content = {
        "version": "5.0", "flags": tags, "imagePath": named or picture.name,
        "shapes": [{"label": s, "points": [[0, 0], [3, 3]], "flags": {}} for s in shapes],
    }  # fmt: skip
    picture.with_suffix(".json").write_text(json.dumps(content))


def test_flags_and_shapes_of_labelme_and_x_anylabeling(folder):
    for i, found in enumerate(TRUTH.values()):
        picture = folder / "images" / f"img{i}.jpg"
        if i < 3:
            label_file(picture, {"cat": "cat" in found, "dog": "dog" in found})
        else:
            label_file(picture, {}, *sorted(found), "cat", named=f"..\\elsewhere\\img{i}.jpg")
    assert labels(*both(folder)) == TRUTH
    notes = check("folder", folder).notes
    assert any("flags and shapes" in note and "train: cat 5" in note for note in notes)
    (folder / "images" / "img5.json").unlink()
    with pytest.warns(UserWarning, match="1 of 6 pictures have no label file.*img5"):
        assert labels(*both(folder)).keys() == TRUTH.keys() - {"img5"}
    label_file(folder / "images" / "img5.jpg", {"cat": 1})
    with pytest.raises(ValueError, match="img5.json: flags.cat must be true or false, got 1"):
        open_set("folder", folder)
    label_file(folder / "images" / "img7.jpg", {"cat": True})
    (folder / "images" / "img5.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"img7.json has labels, but its picture img7.jpg"):
        open_set("folder", folder)
    with pytest.warns(UserWarning, match="1 label files left out.*img7"):
        open_set("folder", folder, reading=Reading(skip_broken=True))


def test_class_folders_join_the_labels_of_copies(tmp_path):
    for i in range(4):
        image_sets.picture(tmp_path / "cat" / f"img{i}.jpg", i)
        image_sets.picture(tmp_path / "dog" / f"other{i}.jpg", 9 + i)
    (tmp_path / "cow").mkdir()
    for place in ("dog", "cow"):
        shutil.copy(tmp_path / "cat" / "img1.jpg", tmp_path / place)
    image_sets.picture(tmp_path / "dog" / "img2.jpg", 7)  # another picture of the same name
    found = labels(*both(tmp_path))
    assert len(found) == 9 and found["cat/img1"] == {"cat", "cow", "dog"}
    assert found["cat/img2"] == {"cat"} and found["dog/img2"] == {"dog"}
    assert not check("folder", tmp_path).problems


def test_a_folder_without_labels_says_what_is_looked_for(folder):
    with pytest.raises(FileNotFoundError, match="has no labels: neither a table .* class folders"):
        open_set("folder", folder)
    with pytest.raises(ValueError, match="set folder has no path"):
        open_set("folder")
    with pytest.raises(FileNotFoundError, match="is not there"):
        open_set("folder", folder / "nowhere")


# --- masks and lists of classes ------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["", "_mask"])
@pytest.mark.parametrize(
    ("names", "stored"),
    [
        (["background", "dog", "cat"], (0, 2, 1)),
        ({"0": "background", "7": "cat", "9": "Dog", "3": "cow"}, (0, 7, 9)),
        (["dog", "cat"], (0, 2, 1)),
        ({"names": ["background", "cat", "dog"], "ids": [0, 5, 6]}, (0, 5, 6)),
    ],
)
@pytest.mark.filterwarnings("ignore:.*classes that no picture is labelled with:UserWarning")
def test_masks_are_read_by_their_names(folder, names, stored, suffix):
    (folder / "labels.csv").write_text(FORMS["list by semicolon"])
    for i in range(PICTURES):
        image_sets.label_map(folder / "masks" / f"img{i}{suffix}.png", stored)
    (folder / "masks" / "classes.json").write_text(json.dumps(names))
    train = open_set("folder", folder)
    assert train.classes == ("cat", "dog") and all(item.has_mask for item in train.items)
    expected = folder / "expected.png"
    image_sets.label_map(expected, (0, 1, 2))
    for item in train.items:
        np.testing.assert_array_equal(read_mask(item), read_labels(expected))
        assert read_image(item).shape[:2] == read_mask(item).shape


def test_masks_without_names_count_in_the_order_of_classes(folder):
    (folder / "labels.csv").write_text(FORMS["list by semicolon"])
    image_sets.label_map(folder / "masks" / "img0.png", (0, 1, 3))
    with pytest.warns(UserWarning, match="no list says what .* taken are 0 background, 1 cat, 2 d"):
        train, val = both(folder)
    (item,) = [i for i in (*train.items, *val.items) if i.has_mask]
    with pytest.raises(ValueError, match=r"img0.png holds 3 at row 8, column 22"):
        read_mask(item)
    assert any("img0.png holds 3" in p.what for p in check("folder", folder).problems)


def test_a_list_of_classes_gives_order_and_names(folder):
    (folder / "classes.txt").write_text("dog\ncat\nhot dog\n")
    (folder / "labels.csv").write_text("image,labels\nimg0,hot dog\nimg1,cat\nimg2,dog\nimg3,cat\n")
    with pytest.warns(UserWarning, match="2 of 6 pictures are not in labels.csv"):
        train, val = both(folder)
    assert train.classes == ("dog", "cat", "hot dog")
    assert labels(train, val)["img0"] == {"hot dog"}
    (folder / "labels.csv").write_text("image,labels\nimg0,cow\nimg1,cat\nimg2,dog\nimg3,cat\n")
    with pytest.raises(
        ValueError, match=r"img0.jpg has the label 'cow', which the list of classes"
    ):
        open_set("folder", folder)


def test_more_labels_than_masks_have_numbers_are_refused(folder):
    rows = "".join(f"img0.jpg,c{i}\nimg1.jpg,c{i}\nimg2.jpg,c{i}\n" for i in range(255))
    (folder / "labels.csv").write_text("image,label\n" + rows)
    with pytest.raises(ValueError, match="255 classes .*more than 254. Are these labels"):
        open_set("folder", folder)
