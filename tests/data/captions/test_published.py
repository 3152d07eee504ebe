"""COCO's captions, RefCOCO and Flickr30k Entities in their published layouts."""

from __future__ import annotations

import json
import pickle

import caption_sets
import pytest

from tenfold.data import catalog
from tenfold.data.captions import own
from tenfold.data.captions.flickr30k import text_of
from tenfold.data.captions.records import Span
from tenfold.data.images.decode import Reading
from tenfold.systems.loupe import phrases

SKIP = Reading(skip_broken=True)
MINI = catalog.find("coco_mini_captions")


# --- COCO ----------------------------------------------------------------------------------------


def test_coco_pairs_boxes_and_owners(tmp_path):
    found = own.open_set("coco_mini_captions", caption_sets.coco(tmp_path), "test")
    captions = [found.pair(row).caption for row in range(len(found))]
    assert captions == ["caption 0 of 1", "caption 2 of 1", "caption 1 of 2", "caption 3 of 2"]
    assert found.owners.tolist() == [0, 0, 1, 1] and found.names == ("mat", "cat")
    objects = [found.objects(row) for row in (0, 2)]
    assert objects[0].boxes.tolist() == [[35, 1, 40, 11]]  # cut at the border
    assert [one.is_crowd.tolist() for one in objects] == [[False], [True]]
    assert objects[0].labels.tolist() == [1] and found.picture(3).shape == (30, 40, 3)


def test_coco_without_objects_and_in_splits(tmp_path):
    caption_sets.coco(tmp_path, objects=False)
    notes = tmp_path / "annotations"
    notes.mkdir()
    for split in ("train", "val"):
        (notes / f"captions_{split}2017.json").write_bytes(
            (tmp_path / "captions.json").read_bytes()
        )
    (tmp_path / "captions.json").unlink()
    (tmp_path / "images").rename(tmp_path / "train2017")
    (tmp_path / "val2017").symlink_to(tmp_path / "train2017")
    assert own.splits_of("coco2017", tmp_path) == own.THREE
    found = own.open_set("coco2017", tmp_path, "train")
    assert (len(found), found.names, len(found.objects(0))) == (4, (), 0)
    assert len(own.open_set("coco2017", tmp_path, "test")) == 4


def test_coco_captions_of_training_without_validation(tmp_path):
    caption_sets.coco(tmp_path, objects=False)
    notes, images = tmp_path / "annotations", tmp_path / "images"
    notes.mkdir()
    (tmp_path / "captions.json").rename(notes / "captions_train2017.json")
    images.rename(tmp_path / "train2017")
    assert len(own.open_set("folder", tmp_path, "train")) == 4
    for split in ("validation", "test"):
        with pytest.raises(ValueError, match=f"has no part for {split}, only train"):
            own.open_set("folder", tmp_path, split)
    (notes / "captions_test2017.json").symlink_to(notes / "captions_train2017.json")
    (tmp_path / "test2017").symlink_to(tmp_path / "train2017")
    assert len(own.open_set("folder", tmp_path, "validation")) == 4


@pytest.mark.parametrize(
    ("captions", "said"),
    [(["a", " ", "b", "c"], "annotation 1: its caption is empty"), (["a", "b", 5, "c"], "is '5'")],
)
def test_coco_captions_that_do_not_fit(tmp_path, captions, said):
    path = caption_sets.coco(tmp_path, captions)
    with pytest.raises(ValueError, match=rf"captions\.json, .*{said}.*skip_broken"):
        own.open_set("coco_mini_captions", path, "test")
    found = own.open_set("coco_mini_captions", path, "test", SKIP)
    assert len(found) == 3 and said in found.notes[0]


def test_coco_numbers_may_be_texts(tmp_path):
    path = caption_sets.coco(tmp_path, objects=False)
    before = own.open_set("coco_mini_captions", path, "test")
    content = json.loads((path / "captions.json").read_text())
    for item in content["images"]:
        item["id"] = str(item["id"])
    for item in content["annotations"]:
        item["image_id"] = str(item["image_id"])
    (path / "captions.json").write_text(json.dumps(content))
    found = own.open_set("coco_mini_captions", path, "test")
    assert [found.pair(i) for i in range(4)] == [before.pair(i) for i in range(4)]


@pytest.mark.parametrize("before", ["images\\", "C:\\our\\images\\", "/home/our/images/"])
def test_coco_names_of_other_machines_are_found(tmp_path, before):
    path = caption_sets.coco(tmp_path, objects=False)
    content = json.loads((path / "captions.json").read_text())
    for item in content["images"]:
        item["file_name"] = before + item["file_name"]
    (path / "captions.json").write_text(json.dumps(content))
    found = own.open_set("coco_mini_captions", path, "test")
    assert [found.pair(i).key for i in range(4)] == ["1.png", "1.png", "2.png", "2.png"]
    assert found.pair(0).image == path / "images/1.png"


@pytest.mark.parametrize("number", [[[]], 1.5, "1.5", "one", "", None])
def test_coco_captions_of_no_picture(tmp_path, number):
    path = caption_sets.coco(tmp_path)
    content = json.loads((path / "captions.json").read_text())
    content["annotations"][2]["image_id"] = number
    (path / "captions.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match="annotation 2: is of image .*, which is not listed"):
        own.open_set("coco_mini_captions", path, "test")


def test_coco_pictures_without_a_caption_are_counted_and_lost_ones_named(tmp_path):
    path = caption_sets.coco(tmp_path)
    content = json.loads((path / "captions.json").read_text())
    content["annotations"] = [a for a in content["annotations"] if a["image_id"] == 1]
    (path / "captions.json").write_text(json.dumps(content))
    found = own.open_set("coco_mini_captions", path, "test")
    assert len(found) == 2 and "image 2 has no caption" in found.notes[0]
    (path / "images" / "1.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"1\.png"):
        own.open_set("coco_mini_captions", path, "test")


@pytest.mark.skipif(MINI is None, reason="coco_mini_captions is not there")
def test_the_real_set_has_five_captions_a_photo_and_phrases_that_fit():
    found = own.open_set("coco_mini_captions", MINI, "test")
    assert (len(found), len(found.names), found.notes) == (795, 80, ())
    assert [int(n) for n in set(map(list(found.owners).count, range(159)))] == [5]
    for row in range(0, 795, 7):
        text = found.pair(row).caption
        assert all(text[start:end].strip() == text[start:end] for start, end in phrases.spans(text))


# --- RefCOCO -------------------------------------------------------------------------------------


@pytest.mark.parametrize("pickled", [True, False])
def test_refcoco_sentences_mean_a_box(tmp_path, pickled):
    path = caption_sets.refer(tmp_path, pickled)
    assert own.splits_of("refcoco", path) == ("train", "testA")
    found = own.open_set("refcoco", path, "testA")
    pair = found.pair(0)
    assert (pair.caption, pair.key) == ("left cat 2", "2.png")
    assert pair.phrases == (Span(0, 10, ((35.0, 1.0, 40.0, 11.0),)),)
    with pytest.raises(ValueError, match="no split 'testB'; it has train, testA"):
        own.open_set("refcoco", path, "testB")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"ann_id": 9}, "object 9 is not in instances.json"),
        ({"image_id": 9}, "image 9, which instances.json does not list"),
        ({"sentences": []}, "no list of sentences"),
        ({"sentences": [{"sent": " "}]}, "caption is empty"),
    ],
)
def test_references_that_do_not_fit(tmp_path, change, said):
    path = caption_sets.refer(tmp_path, False, **change)
    with pytest.raises(ValueError, match=rf"refs\.json, reference 1: .*{said}"):
        own.open_set("refcoco", path, "train")
    with pytest.raises(ValueError, match=f"no picture with a caption.*{said}"):
        own.open_set("refcoco", path, "train", SKIP)


def test_a_pickle_is_not_run(tmp_path):
    path = caption_sets.refer(tmp_path)

    class Evil:
        def __reduce__(self):
            return (pytest.fail, ("it was run",))

    (path / "refs(unc).p").write_bytes(pickle.dumps([{"split": "train", "x": Evil()}]))
    with pytest.raises(ValueError, match=r"refs\(unc\)\.p cannot be read: it asks for the global"):
        own.open_set("refcoco", path, "train")
    (path / "refs.json").write_text("[]")
    with pytest.raises(ValueError, match="several files of sentences"):
        own.open_set("refcoco", path, "train")


# --- Flickr30k Entities --------------------------------------------------------------------------


def test_flickr30k_phrases_have_the_boxes_of_their_numbers(tmp_path):
    found = own.open_set("flickr30k", caption_sets.flickr30k(tmp_path), "test")
    pair = found.pair(1)
    assert pair.caption == "Two men near the big dog , which runs ."
    said = [pair.caption[span.start : span.end] for span in pair.phrases]
    assert said == ["Two men", "the big dog", "which"]
    # counted from 1, the last pixel inside
    assert pair.phrases[0].boxes == ((0, 1, 10, 30), (10, 1, 40, 30))
    assert [span.boxes for span in pair.phrases[1:]] == [(), ()]
    assert (len(found), found.owners.tolist(), pair.image.name) == (2, [0, 0], "7.png")


def test_nested_kinds_and_text_without_marks():
    assert text_of("[/EN#3/clothing/other a hat]", {}) == ("a hat", (Span(0, 5),))
    assert text_of("no phrase at all", {}) == ("no phrase at all", ())
    with pytest.raises(ValueError, match="a phrase that does not end"):
        text_of("a [/EN#3/people man runs", {})
    with pytest.raises(ValueError, match="a phrase that does not end"):  # at once
        text_of("[/EN#3" + "/" * 9000, {})


NOTES = caption_sets.NOTES


@pytest.mark.parametrize(
    ("notes", "said"),
    [
        (NOTES[:100], r"7\.xml is no XML"),
        ("<!DOCTYPE a [<!ENTITY b 'c'>]>" + NOTES, "defines entities"),
        (
            NOTES.replace("<xmax>40", "<xmax>90"),
            "= 10 1 90 30, which leaves the picture of 40 x 30",
        ),
        (NOTES.replace("<xmax>10<", "<xmax>0<"), "which is empty"),
        (NOTES.replace("<xmax>10<", "<xmax>ten<"), "no whole number"),
        (
            NOTES.replace("<width>40", "<width>41"),
            "40 x 30 pixels, but boxes were made on one of 41",
        ),
    ],
)
def test_notes_that_do_not_fit(tmp_path, notes, said):
    path = caption_sets.flickr30k(tmp_path, notes=notes)
    with pytest.raises(ValueError, match=said):
        own.open_set("flickr30k", path, "test")
    with pytest.raises(ValueError, match="no picture with a caption that can be read: .*7"):
        own.open_set("flickr30k", path, "test", SKIP)


def test_sentences_that_are_no_utf_8_or_lists_with_paths_are_named(tmp_path):
    path = caption_sets.flickr30k(tmp_path)
    (path / "Sentences" / "7.txt").write_bytes(b"ok\ncaf\xe9\n")
    with pytest.raises(ValueError, match=r"7\.txt, line 2 is no UTF-8 text"):
        own.open_set("flickr30k", path, "test")
    (path / "test.txt").write_text("../7\n")
    with pytest.raises(ValueError, match=r"no number of a photo: \.\./7"):
        own.open_set("flickr30k", path, "test")
    with pytest.raises(ValueError, match="no split 'train'; it has test"):
        own.open_set("flickr30k", path, "train")
