"""emoji_scenes: drawn bit for bit, phrases and boxes that fit, every misfit named."""

from __future__ import annotations

import hashlib
import json
import math

import caption_sets
import numpy as np
import pytest
from PIL import Image

from tenfold.data import catalog
from tenfold.data.captions import emoji
from tenfold.data.captions.records import Span, checked_spans
from tenfold.data.checks import check

REAL = catalog.find("emoji_scenes")
needs_data = pytest.mark.skipif(REAL is None, reason="emoji_scenes is not there")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return caption_sets.emoji(tmp_path_factory.mktemp("emoji"))


def test_a_scene_is_drawn_as_the_readme_says(folder):
    found = emoji.open_emoji_scenes(folder, "train")
    sheets = [np.asarray(Image.open(folder / name)).tolist() for name in emoji.SHEETS]
    picture = [[[200.0, 60.0, 60.0] for _ in range(16)] for _ in range(16)]
    for concept, artist, x, y, size in caption_sets.SCENE["items"]:
        for row in range(size):
            for column in range(size):
                source = [math.floor((i + 0.5) * 8 / size) for i in (row, column)]
                pixel = sheets[artist][concept // 2 * 8 + source[0]][concept % 2 * 8 + source[1]]
                alpha = pixel[3] / 255
                under = picture[y + row][x + column]
                picture[y + row][x + column] = [
                    u * (1 - alpha) + p * alpha for u, p in zip(under, pixel[:3], strict=True)
                ]
    expected = [[[math.floor(v + 0.5) for v in pixel] for pixel in row] for row in picture]
    assert found.picture(0).tolist() == expected


def test_pairs_have_phrases_boxes_and_concepts(folder):
    found = emoji.open_emoji_scenes(folder, "train")
    pair = found.pair(1)
    said = [pair.caption[span.start : span.end] for span in pair.phrases]
    assert said == ["a cat", "an old car", "a red background"]
    assert [span.boxes for span in pair.phrases] == [((1, 2, 5, 6),), ((8, 8, 16, 16),), ()]
    objects = found.objects(1)
    assert objects.boxes.tolist() == [[1, 2, 5, 6], [8, 8, 16, 16]]
    assert [found.names[label] for label in objects.labels] == ["cat", "old car"]
    assert (len(found), found.owners.tolist(), pair.key) == (2, [0, 1], "train/1")


@needs_data
def test_published_scenes_have_the_published_sums():
    sums = json.loads((REAL / "render_check.json").read_text())["sha1_of_first_4_train_renders"]
    recipe = emoji.read_recipe(REAL)
    with (REAL / "train.jsonl").open(encoding="utf-8") as lines:
        scenes = [
            emoji.read_scene(line, recipe, False) for line, _ in zip(lines, sums, strict=False)
        ]
    assert [hashlib.sha1(emoji.draw(s, recipe).tobytes()).hexdigest() for s in scenes] == sums


@needs_data
@pytest.mark.parametrize("split", ["validation", "test_xstyle"])
def test_published_phrases_name_what_is_in_their_boxes(split):
    found = emoji.open_emoji_scenes(REAL, split)
    for row in range(len(found)):
        pair, objects = found.pair(row), found.objects(row)
        checked_spans(pair.caption, pair.phrases, (112, 112))
        named = {
            span.boxes[0]: pair.caption[span.start : span.end]
            for span in pair.phrases
            if span.boxes
        }
        for box, label in zip(objects.boxes.tolist(), objects.labels, strict=True):
            assert found.names[label] in named[tuple(box)]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"items": [[3, 0, 1, 2, 4]]}, "no such drawing or size"),
        ({"items": [[0, 0, 13, 2, 4]]}, "leaves the canvas of 16"),
        ({"items": [[0, 0, 1, 2]]}, "is not concept, artist, x, y, size"),
        ({"items": [[1, 1, 1, 2, 4], [0, 0, 1, 2, 4]]}, "wrong split"),
        ({"items": [[0, 0, True, 2, 4]]}, "whole number"),
        ({"bg": "pink"}, "'pink' is not a colour"),
        ({"phrases": [[30, 41, 0]]}, "phrase 30-41 is no part of its caption of 40 characters"),
        ({"phrases": [[0, 5, 2]]}, "an item of the scene"),
        ({"caption": " "}, "caption is empty"),
        ({"caption": "x" * 20_000}, "20000 characters, more than 10000"),
    ],
)
def test_a_scene_that_does_not_fit_is_named(tmp_path, change, said):
    folder = caption_sets.emoji(tmp_path, {**caption_sets.SCENE, **change})
    with pytest.raises(ValueError, match=rf"train\.jsonl, line 1: .*{said}"):
        emoji.open_emoji_scenes(folder, "train")
    assert any(said in problem.what for problem in check("emoji_scenes", folder).problems)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("meta.json", b"{", "is no JSON"),
        ("meta.json", b"{}", "lacks canvas"),
        ("concepts.json", b'[{"id": 1, "name": "cat"}]', "ids must be 0, 1, 2"),
        ("sprites_google.webp", b"RIFF", "cannot be read"),
        ("train.jsonl", b"\xff\xfe", "is no UTF-8 text"),
        ("train.jsonl", b"", "holds no scene|line 1"),
    ],
)
def test_a_damaged_file_is_named(tmp_path, name, content, said):
    folder = caption_sets.emoji(tmp_path)
    (folder / name).write_bytes(content)
    with pytest.raises(ValueError, match=rf"{name}.*({said})"):
        emoji.open_emoji_scenes(folder, "train")


def test_a_sheet_of_another_size_is_named(tmp_path):
    folder = caption_sets.emoji(tmp_path, sprite=9)
    with pytest.raises(ValueError, match="16 x 16 pixels of RGBA, expected 18 x 18"):
        emoji.open_emoji_scenes(folder, "train")


def test_an_unknown_split_and_a_missing_file_are_named(folder, tmp_path):
    with pytest.raises(ValueError, match="no split 'val'; it has train, validation"):
        emoji.open_emoji_scenes(folder, "val")
    with pytest.raises(FileNotFoundError, match=r"meta\.json is not there"):
        emoji.open_emoji_scenes(tmp_path, "train")


@pytest.mark.parametrize(
    ("box", "said"),
    [((4.0, 4.0, 4.0, 9.0), "is empty"), ((0.0, -1.0, 4.0, 9.0), "leaves the picture of 16 x 12")],
)
def test_boxes_of_phrases_lie_in_the_picture(box, said):
    with pytest.raises(ValueError, match=said):
        checked_spans("a cat", [Span(0, 5, (box,))], (12, 16))
