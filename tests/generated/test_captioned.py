"""Generated pictures with captions: the same each time, phrases and boxes exact."""

import numpy as np

from tenfold.generated import captioned


def test_phrases_name_the_shapes_in_their_boxes():
    said = set()
    for index in range(60):
        one = captioned.captioned("train", index)
        assert len(one.labels) == len(one.boxes) >= 1
        assert sorted(row for _, _, row in one.phrases if row >= 0) == list(range(len(one.labels)))
        for start, end, row in one.phrases:
            text = one.caption[start:end]
            if row == captioned.BACKGROUND:
                assert text.endswith("background")
                continue
            name = captioned.NAMES[one.labels[row]]
            assert text == f"a {name}"
            x0, y0, x1, y1 = one.boxes[row].astype(int)
            inside = one.picture[y0:y1, x0:x1].astype(int)
            near = np.abs(inside - captioned.COLOURS[name.split()[0]]).max(-1) < 25
            assert near.sum() >= 0.04 * near.size
        if " of " in one.caption:
            (_, _, first), (_, _, second) = one.phrases[:2]
            is_left = one.boxes[first][[0, 2]].sum() < one.boxes[second][[0, 2]].sum()
            assert ("left" in one.caption) == is_left
            said.add(is_left)
    assert said == {True, False}


def test_a_picture_follows_from_split_number_and_seed():
    one = captioned.captioned("train", 3)
    again = captioned.captioned.__wrapped__("train", 3)
    assert (one.picture == again.picture).all() and one.caption == again.caption
    others = [captioned.captioned(*key) for key in (("test", 3), ("train", 4), ("train", 3, 1))]
    assert len({other.picture.tobytes() for other in (one, *others)}) == 4
