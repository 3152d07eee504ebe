"""`tenfold data check` of sets of captions."""

from __future__ import annotations

import caption_sets
import pytest

from tenfold.data.checks import check


@pytest.mark.parametrize(
    ("name", "make", "said"),
    [
        ("folder", caption_sets.lines, "train: captions 1, pictures 1, classes of objects 1"),
        ("folder", caption_sets.coco, "test: captions 4, pictures 2, classes of objects 2"),
        ("flickr30k", caption_sets.flickr30k, "test: captions 2, pictures 1"),
        ("refcoco+", caption_sets.refer, "testA: captions 1, pictures 1, classes of objects 2"),
    ],
)
def test_what_was_found_is_said(tmp_path, name, make, said):
    found = check(name, make(tmp_path))
    assert found.problems == [] and said in found.notes and found.files


def test_what_does_not_fit_is_a_problem(tmp_path):
    path = caption_sets.lines(tmp_path, [*caption_sets.records(4), {"image": "9.png"}])
    found = check("folder", path)
    (problem,) = found.problems
    assert "line 5: it has no caption" in problem.what


def test_shards_are_decoded(tmp_path):
    for i in range(2):
        caption_sets.shard(tmp_path / f"{i}.tar", caption_sets.members(range(2), (8, 8)))
    bad = [("x.png", b"no"), ("x.txt", b"a")]
    caption_sets.shard(tmp_path / "2.tar", [*caption_sets.members(range(2), (8, 8)), *bad])
    problems = {problem.what for problem in check("folder", tmp_path).problems}
    assert len(problems) == 1 and "2.tar: record 'x' is not a picture" in problems.pop()


def test_captions_of_coco_are_checked_with_its_objects(tmp_path):
    caption_sets.coco(tmp_path, ["a", "b", "", "c"])
    notes = tmp_path / "annotations"
    notes.mkdir()
    for split in ("train", "val"):
        for kind in ("captions", "instances"):
            content = (tmp_path / f"{kind}.json").read_bytes()
            (notes / f"{kind}_{split}2017.json").write_bytes(content)
        (tmp_path / f"{split}2017").symlink_to(tmp_path / "images")
    (tmp_path / "captions.json").unlink()
    (tmp_path / "instances.json").unlink()
    found = check("coco2017", tmp_path)
    assert any("annotation 2: its caption is empty" in p.what for p in found.problems)
