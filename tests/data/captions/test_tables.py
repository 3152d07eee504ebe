"""Tables of captions in the forms that people have, and what is said of those that do not fit."""

from __future__ import annotations

import json

import caption_sets
import numpy as np
import pytest
from PIL import Image

from tenfold.data.captions import files, own
from tenfold.data.captions.files import Record
from tenfold.data.captions.records import Span
from tenfold.data.captions.tables import read_table
from tenfold.data.images.decode import Reading

SKIP = Reading(skip_broken=True)
STRICT = Reading()


def opened(path, split="train", reading=STRICT):
    return own.open_set("folder", path, split, reading, test_share=0.25)


def texts(found):
    return [found.pair(row).caption for row in range(len(found))]


@pytest.mark.parametrize(
    ("name", "table"),
    [
        ("a.csv", "image,caption\n0.png,a cat\n1.png,\"a dog, a mat\"\n"),
        ("a.csv", "filepath;title\nimages/0.png;a cat\n/their/images/1.png;a dog, a mat\n"),
        ("a.csv", "image_name| comment_number| comment\n0.png| 0| a cat\n1.png| 0| a dog, a mat\n"),
        ("a.csv", "\ufeffsep=;\r\nfile;caption\r\n0.png;a cat\r\n1.png;a dog, a mat\r\n"),
        ("captions.txt", "image,caption\n0.png,a cat\n1.png,a dog, a mat\n"),
        ("a.tsv", "\ufeffFile_Name\tid\tText\n0.png\t7\ta cat\n1.png\t8\ta dog, a mat\n"),
        ("a.token", "0.png#0\ta cat\n1.png#0\ta dog, a mat\n"),
        ("a.jsonl", '{"file_name": "0.png", "text": "a cat"}\n\n'
         '{"file_name": "1.png", "text": " a dog, a mat "}\n'),
        ("a.ndjson", '{"image": "0.png", "caption": "a cat"}\n'
         '{"image": "1.png", "caption": "a dog, a mat"}\n'),
        ("a.json", '[{"image": "0", "caption": ["a cat"]}, {"image": "1.png", '
         '"caption": "a dog, a mat"}]'),
        ("dataset.json", '{"images": [{"filepath": "images", "filename": "0.png", "sentences": '
         '[{"raw": "a cat"}]}, {"filename": "1.png", "sentences": [{"raw": "a dog, a mat"}]}]}'),
    ],
)  # fmt: skip
def test_forms(tmp_path, name, table):
    caption_sets.lines(tmp_path, [], "empty.jsonl")
    (tmp_path / "empty.jsonl").unlink()
    (tmp_path / name).write_text(table, encoding="utf-8")
    found = [opened(tmp_path, split) for split in ("train", "test")]
    assert sorted(t for one in found for t in texts(one)) == ["a cat", "a dog, a mat"]
    assert found[0].pair(0).image.name == ("0.png" if texts(found[0]) == ["a cat"] else "1.png")


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_quotes_in_a_table_of_tabs(tmp_path, ending):
    quoted = [
        ('"a ""red"" cup, on a table"', 'a "red" cup, on a table'),
        ('"two dogs\tin grass"', "two dogs\tin grass"),
        ('"line one\nline two"', "line one\nline two"),
        ("it's 5\" long", "it's 5\" long"),
        ('"stop" says the sign', '"stop" says the sign'),
        ('"stop, says the sign', '"stop, says the sign'),
        ('she said "bye"', 'she said "bye"'),
        ('"" is empty', '"" is empty'),
        ('"open to the end', '"open to the end'),
    ]
    caption_sets.lines(tmp_path, [], "a.tsv")
    rows = [f"0.png\t{written}" for written, _ in quoted]
    text = ending.join(["image\tcaption", *rows, ""])
    (tmp_path / "a.tsv").write_bytes(text.encode())
    records = [record for _, record in read_table(tmp_path / "a.tsv")]
    found = [r.texts[0][0] if isinstance(r, Record) else r for r in records]
    assert found == [read for _, read in quoted]
    (tmp_path / "a.token").write_text('0.png#0\t"a cat"\n')
    assert [r.texts[0][0] for _, r in read_table(tmp_path / "a.token")] == ['"a cat"']


def test_lines_of_json_have_phrases_boxes_and_objects(tmp_path):
    found = opened(caption_sets.lines(tmp_path) / "a.jsonl")
    (pair,) = [found.pair(row) for row in range(len(found))]
    assert pair.phrases == (Span(0, 5, ((1.0, 2.0, 11.0, 12.0),)), Span(9, 14))
    assert [pair.caption[s.start : s.end] for s in pair.phrases] == ["a cat", "a mat"]
    assert found.names == ("cat",)
    assert found.objects(0).boxes.tolist() == [[1, 2, 11, 12]]
    assert (found.picture(0) == np.asarray(Image.open(pair.image))).all()


def test_captions_of_a_picture_stand_together(tmp_path):
    items = [
        {"image": f"{i}.png", "caption_1": f"first of {i}", "caption_2": f"second of {i}",
         "split": split} for i, split in ((0, "train"), (1, "val"), (2, "restval"), (0, "train"))
    ]  # fmt: skip
    path = caption_sets.lines(tmp_path, items)
    train, test = opened(path), opened(path, "test")
    assert texts(train)[:4] == ["first of 0", "second of 0", "first of 0", "second of 0"]
    assert train.owners.tolist() == [0, 0, 0, 0, 1, 1] and texts(test)[0] == "first of 1"


@pytest.mark.filterwarnings("ignore:.*is the only picture")
@pytest.mark.parametrize("names", ["caption_1,caption_2", "caption,caption", "caption,caption.1"])
def test_several_columns_of_captions_are_all_read(tmp_path, names):
    caption_sets.lines(tmp_path, [], "empty.jsonl")
    (tmp_path / "empty.jsonl").unlink()
    rows = "".join(f"{i}.png,a cat {i},a mat {i}\n" for i in (0, 1))
    (tmp_path / "a.csv").write_text(f"image,{names}\n{rows}")
    found = [t for split in ("train", "test") for t in texts(opened(tmp_path, split))]
    assert sorted(found) == ["a cat 0", "a cat 1", "a mat 0", "a mat 1"]


def test_objects_that_each_caption_repeats_count_once(tmp_path, monkeypatch):
    path = caption_sets.lines(tmp_path, [caption_sets.records(1)[0]] * 3)
    found = opened(path)
    assert (len(found), len(found.objects(2))) == (3, 1)
    monkeypatch.setattr(files, "MOST_OBJECTS", 0)
    with pytest.raises(ValueError, match=r"0\.png: it has 1 objects, more than 0"):
        opened(path)


def test_a_set_that_is_not_divided_is_by_the_names_of_its_pictures(tmp_path):
    items = [{"image": f"{i}.png", "caption": str(i)} for i in range(4)]
    path = caption_sets.lines(tmp_path, items)
    train, test = texts(opened(path)), texts(opened(path, "test"))
    assert sorted(train + test) == ["0", "1", "2", "3"] and len(test) == 1
    assert texts(opened(path, "validation")) == test


def test_pictures_without_a_split_beside_others_with_one_are_named(tmp_path):
    items = caption_sets.records(4)
    for item, split in zip(items, ("train", "", "val", None), strict=True):
        item |= {} if split is None else {"split": split}
    path = caption_sets.lines(tmp_path, items)
    for split in ("train", "validation"):
        found = opened(path, split)
        assert len(found) == 1
        (note,) = found.notes
        assert "1.png: no split is stated" in note and "3.png" in note and ": 2 (" in note


def test_a_picture_of_two_splits_is_named_or_left_out(tmp_path):
    """Captions that were divided, and not pictures, would be trained on and tested with."""
    items = [{"image": f"{i}.png", "caption": f"{i} {s}", "split": s}
             for i, s in ((0, "train"), (0, "dev"), (1, "train"), (2, "val"))]  # fmt: skip
    path = caption_sets.lines(tmp_path, items)
    with pytest.raises(ValueError, match=r"a\.jsonl: .*0\.png is stated to be of train and of val"):
        opened(path)
    found = opened(path, reading=SKIP)
    assert texts(found) == ["1 train"] and "0.png is stated to be of" in found.notes[0]


def test_files_are_the_splits_that_their_names_tell(tmp_path):
    path = caption_sets.lines(tmp_path, caption_sets.records(3), "train.jsonl")
    caption_sets.lines(path, caption_sets.records(1), "val.jsonl")
    assert [len(opened(path, s)) for s in ("train", "validation", "test")] == [3, 1, 1]
    more = caption_sets.lines(path, caption_sets.records(2), "more.jsonl") / "more.jsonl"
    with pytest.warns(
        UserWarning, match=r"left out: more.jsonl \(2 records\), whose name tells no"
    ):
        assert len(opened(path)) == 3
    more.unlink()
    caption_sets.lines(path, caption_sets.records(1), "train_more.jsonl")
    with pytest.raises(ValueError, match=r"several tables for train: train.jsonl, train_more.json"):
        opened(path)


PHRASE = {"start": 0, "end": 5}
BAD = {
    "its caption is empty": {"caption": "  "},
    "its caption is '7', expected a text": {"caption": 7},
    "half of a character": {"caption": "\udce4"},
    "has no caption": {"caption": None, "drop": "caption"},
    "its picture 'x.png' is not there": {"image": "x.png"},
    "no file of a picture": {"image": 3},
    "phrase 0-99 is no part of its caption": {"phrases": [{"start": 0, "end": 99}]},
    "phrase 5-5 is no part": {"phrases": [{"start": 5, "end": 5}]},
    "needs whole numbers start and end": {"phrases": [{"start": 0.5, "end": 3}]},
    "no list of objects with start": {"phrases": {}},
    "phrases and several captions": {"caption": ["a", "b"]},
    "x0 y0 x1 y1 = 1 2 50 9, which leaves the picture of 40 x 30": {
        "phrases": [{**PHRASE, "boxes": [[1, 2, 50, 9]]}]},
    "x0 y0 x1 y1 = 5 5 5 9, which is empty": {"phrases": [{**PHRASE, "boxes": [[5, 5, 5, 9]]}]},
    "expected x0, y0, x1, y1": {"phrases": [{**PHRASE, "boxes": [[5, 5, 5]]}]},
    "an object has the box": {"objects": [{"name": "cat", "box": [-9, 0, 3, 3]}]},
    "needs a name": {"objects": [{"box": [0, 0, 3, 3]}]},
    "its split is 'other'": {"split": "other"},
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:.*is the only picture")
@pytest.mark.parametrize("said", BAD)
def test_a_record_that_does_not_fit_is_named_or_left_out_and_counted(tmp_path, said):
    change = dict(BAD[said])
    bad = caption_sets.records(2)[1] | change
    bad.pop(bad.pop("drop", ""), None)
    path = caption_sets.lines(tmp_path, [caption_sets.records(1)[0], bad])
    with pytest.raises(ValueError, match=f"a.jsonl.*{said}.*data.skip_broken"):
        opened(path)
    found = own.open_set("folder", path / "a.jsonl", "train", SKIP)
    assert len(found) == 1
    (note,) = found.notes
    assert note.startswith("records left out of a.jsonl: 1 (") and said in note


def test_a_line_that_is_no_json_or_no_utf_8_is_named(tmp_path):
    path = caption_sets.lines(tmp_path)
    (path / "a.jsonl").write_bytes(
        (path / "a.jsonl").read_bytes() + b'{"image": "2.png", "caption": "caf\xe9"}\n{"image"\n'
    )
    with pytest.raises(ValueError, match=r"line 3: its caption is no UTF-8 text: 'caf\\udce9'"):
        opened(path)
    found = own.open_set("folder", path, "train", SKIP, test_share=0.4)
    assert "a.jsonl: 2 (" in found.notes[0] and "line 4: " in found.notes[0]


@pytest.mark.parametrize("ending", ["jsonl", "csv"])
def test_pictures_beside_a_table_are_its_own(tmp_path, ending):
    for split in ("train", "test"):
        caption_sets.photo(tmp_path / split / "p0.jpg", 1)
        rows = {"jsonl": f'{{"file_name": "p0.jpg", "text": "of {split}"}}\n',
                "csv": f"file_name,text\np0.jpg,of {split}\n"}  # fmt: skip
        (tmp_path / split / f"metadata.{ending}").write_text(rows[ending])
    for split in ("train", "test"):
        found = opened(tmp_path, split)
        assert texts(found) == [f"of {split}"]
        assert found.pair(0).image == tmp_path / split / "p0.jpg"


@pytest.mark.parametrize(
    "name, content, said",
    [("a.csv", "who,what\n0.png,a cat\n", "begins with the columns 'who', 'what', but needs"),
     ("a.jsonl", '{"who": "0.png"}', "a.jsonl, line 1: it has no file of a picture")],
)  # fmt: skip
def test_a_folder_says_why_its_table_is_none(tmp_path, name, content, said):
    caption_sets.lines(tmp_path, [], "empty.jsonl")
    (tmp_path / "empty.jsonl").unlink()
    (tmp_path / name).write_text(content)
    with pytest.raises(FileNotFoundError, match=f"holds no captions. .*{said}.*Read are:"):
        opened(tmp_path)


def test_rows_of_other_lengths_are_named(tmp_path):
    caption_sets.lines(tmp_path)
    (tmp_path / "a.jsonl").unlink()
    (tmp_path / "a.tsv").write_text("image\tcaption\n0.png\ta cat\n1.png\n2.png\ta\tb\n")
    with pytest.raises(ValueError, match="line 3: it has 1 columns, the table 2"):
        opened(tmp_path)
    found = opened(tmp_path, reading=SKIP)
    assert texts(found) == ["a cat"] and "a.tsv: 2 (" in found.notes[0]


def test_damaged_and_empty_pictures_are_named_or_left_out(tmp_path):
    path = caption_sets.lines(tmp_path, caption_sets.records(4))
    (path / "images" / "1.png").write_bytes(b"")
    whole = (path / "images" / "2.png").read_bytes()
    (path / "images" / "2.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"1\.png"):
        opened(path)
    found = [opened(path, split, SKIP) for split in ("train", "test")]
    assert sum(map(len, found)) == 2
    assert "a.jsonl: 2 (" in found[0].notes[0] and "2.png" in found[0].notes[0]


def test_a_folder_without_captions_says_what_is_read(tmp_path):
    caption_sets.photo(tmp_path / "a.png")
    (tmp_path / "note.txt").write_text("hello\n")
    with pytest.raises(FileNotFoundError, match=r"holds no captions\. Read are: shards \*\.tar"):
        opened(tmp_path)
    (tmp_path / "a.csv").write_text("name,kind\n1,2\n")
    with pytest.raises(
        ValueError, match="begins with the columns 'name', 'kind', but needs one of a"
    ):
        opened(tmp_path / "a.csv")
    (tmp_path / "a.csv").write_text("image,caption\n", encoding="utf-16")
    with pytest.raises(ValueError, match=r"a\.csv is text in UTF-16\. Save it as UTF-8"):
        opened(tmp_path / "a.csv")
    (tmp_path / "a.json").write_text(json.dumps({"a": 1}))
    with pytest.raises(ValueError, match="holds no list of records"):
        opened(tmp_path / "a.json")
