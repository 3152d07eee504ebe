"""Text of any script: fonts are found where there are some, and nothing is drawn as a box."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from tenfold.viz import fonts, overlays, plots

PLAIN, CAT = "größe Ωмир", "\U000e01f0\U000f4321"  # no font has private characters


@pytest.fixture
def own_font(tmp_path: Path) -> Iterator[None]:
    """A font of the system that has the characters of CAT, as filled squares."""
    from fontTools.fontBuilder import FontBuilder
    from fontTools.pens.ttGlyphPen import TTGlyphPen
    from matplotlib import font_manager

    pen = TTGlyphPen(None)
    pen.moveTo((100, 0))
    for corner in ((100, 700), (900, 700), (900, 0)):
        pen.lineTo(corner)
    pen.closePath()
    made = FontBuilder(1000, isTTF=True)
    made.setupGlyphOrder([".notdef", "square"])
    made.setupCharacterMap({ord(c): "square" for c in CAT})
    made.setupGlyf({".notdef": TTGlyphPen(None).glyph(), "square": pen.glyph()})
    made.setupHorizontalMetrics({".notdef": (500, 0), "square": (1000, 100)})
    made.setupHorizontalHeader(ascent=800, descent=-200)
    made.setupNameTable({"familyName": "Squares", "styleName": "Regular"})
    made.setupOS2()
    made.setupPost()
    made.save(tmp_path / "squares.ttf")
    forget()
    known = list(font_manager.fontManager.ttflist)
    font_manager.fontManager.addfont(tmp_path / "squares.ttf")
    yield
    font_manager.fontManager.ttflist[:] = known
    forget()


def forget() -> None:
    for kept in (fonts._files, fonts._file, fonts._drawn, fonts.captions):
        kept.cache_clear()


def ink(text: str) -> int:
    image = Image.new("L", (400, 60))
    fonts.write(ImageDraw.Draw(image), (0, 0), fonts.line_of(text, 30), (255,))
    return int((np.asarray(image) > 0).sum())


def test_a_font_that_has_the_characters_is_found(own_font: None) -> None:
    assert fonts.has_glyphs(f"{PLAIN} {CAT}")
    line = fonts.line_of(f"a {CAT}", 30)
    assert [Path(font.path).name for font, _ in line.runs] == ["DejaVuSans.ttf", "squares.ttf"]
    assert ink(CAT) > 500
    assert fonts.families([f"a {CAT}", "b"]) == ["DejaVu Sans", "Squares"]
    assert fonts.meanings(["a", CAT]) == []


def test_what_no_font_has_is_a_number_and_said() -> None:
    forget()
    names = ("cat", CAT, PLAIN)
    with pytest.warns(UserWarning, match="1 names of classes .*#1 for .* Install a font"):
        assert fonts.captions(names) == ("cat", "#1", PLAIN)
    assert fonts.meanings(names) == [f"#1 is {CAT}"]
    assert fonts.spelled(f"a {CAT}!") == "a U+E01F0 U+F4321!" and fonts.spelled(PLAIN) == PLAIN
    assert ink(CAT) == ink("??")  # whoever draws it all the same draws no boxes


def test_plots_have_no_boxes() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # matplotlib warns of glyphs that it draws as boxes
        with plots.canvas("light", 3, 2) as figure:
            axes = figure.subplots()
            axes.set_xticks([0, 1], [CAT, "plain"])
            axes.set_title(CAT)
            plots.encoded(figure, "png")
            assert [t.get_text() for t in axes.get_xticklabels()] == ["U+E01F0 U+F4321", "plain"]
            assert axes.get_title(loc="left") == "U+E01F0 U+F4321"


def test_a_line_is_cut_where_there_is_no_room() -> None:
    whole = fonts.line_of("a very long name of a class", 20)
    cut = fonts.line_of("a very long name of a class", 20, 100)
    assert whole.width > 200 and cut.width <= 100 and cut.runs[-1][1].endswith("\u2026")
    assert fonts.line_of("", 20).height > 0


def test_names_of_all_scripts_stand_on_pictures() -> None:
    picture = np.zeros((240, 240, 3), dtype=np.uint8)
    box, labels = np.array([[20.0, 50, 100, 90]], dtype=np.float32), np.array([0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        shown = overlays.legend(["猫", "بطة", "कुत्ता", "плот"], range(4), 300)
    assert shown.shape[1] == 300
    found = overlays.draw_objects(picture, box, ["بطة"], labels)
    assert (found[30:50] > 0).any()
