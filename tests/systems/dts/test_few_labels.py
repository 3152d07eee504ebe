"""Labelled target images that join, by number or by name."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tenfold.data.images.segmentation import Segmented
from tenfold.systems.dts import few_labels
from tenfold.systems.dts.config import Data

NAMES = ("a/1.png", "a/2.png", "b/1.png", "b/3.png")
SET = Segmented(("road",), tuple((Path("/set") / name, Path("/labels") / name) for name in NAMES))


def listed(folder: Path, text: str) -> list[str]:
    file = folder / "few.txt"
    file.write_text(text, encoding="utf-8-sig")
    found = few_labels.of_target(replace(Data(), target_list=str(file)), lambda: SET)
    assert found is not None
    return [f"{picture.parent.name}/{picture.name}" for picture, _ in found.files]


def test_images_are_found_by_path_name_or_stem(tmp_path: Path) -> None:
    assert listed(tmp_path, "b/1.png\r\n\n 3 \n2.png\n2\n") == ["a/2.png", "b/1.png", "b/3.png"]


@pytest.mark.parametrize(
    ("text", "message"),
    [("9", "'9', which none of"), ("1.png", "'1.png', which 2 of"), (" \n", "names no images")],
)
def test_a_list_that_fits_no_image_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        listed(tmp_path, text)


def test_a_number_is_spread_over_the_set_and_not_both() -> None:
    found = few_labels.of_target(replace(Data(), target_labels=2), lambda: SET)
    assert found is not None and [row[0].name for row in found.files] == ["1.png", "1.png"]
    assert few_labels.of_target(Data(), lambda: pytest.fail("opened without need")) is None
    with pytest.raises(ValueError, match="give one of them"):
        Data(target_labels=1, target_list="few.txt")
