"""Plots are pictures of the right kind, whatever the data; smoothing is checked by hand."""

import io
import xml.etree.ElementTree

import numpy as np
import pytest
from PIL import Image

from tenfold.viz.page import Figure, uri
from tenfold.viz.plots import (
    animation_gif,
    bars,
    curves,
    heatmap,
    lines_with_spread,
    scatter,
    smooth,
    wants_log,
)


def draw(kind: str, fmt: str, theme: str) -> bytes:
    style = {"title": "a $title_with %", "ylabel": "error [mm]", "fmt": fmt, "theme": theme}
    if kind == "curves":
        noise = np.random.default_rng(0).random(200)
        lines = {"_run": (range(200), list(noise)), "b": ([0, 100, 200], [1.0, np.nan, 3.0])}
        return curves(lines, window=9, marks=[100], **style)
    if kind == "bars":
        values = {"ours": {"a": 1, "b": 2.0}, "theirs": {"a": 2.0}}
        return bars(values, errors={"ours": {"a": 0.1}}, **style)
    if kind == "heatmap":
        values = np.array([[1.0, -2.0], [np.nan, 0.0]])
        return heatmap(values, rows=["a", "b"], columns=["c", "d"], centred=True, **style)
    if kind == "scatter":
        groups = {"all": ([8, 64, 16384], [1.0, 3.0, 2000.0]), "front": ([8, 64], [1.0, 3.0])}
        return scatter(groups, joined=["front"], doublings=True, log=True, **style)
    lines = {"ours": ([1, 2, 3], [[1.0, 2, 3], [2.0, 3, 4]]), "one": ([1, 2], [[1.0, 2.0]])}
    return lines_with_spread(lines, **style)


@pytest.mark.parametrize("kind", ["curves", "bars", "heatmap", "scatter", "spread"])
def test_png_and_svg(kind):
    image = Image.open(io.BytesIO(draw(kind, "png", "dark")))
    assert image.format == "PNG" and image.width == 972
    assert image.convert("L").getpixel((2, 2)) < 60  # a dark ground
    root = xml.etree.ElementTree.fromstring(draw(kind, "svg", "light"))
    assert root.tag.endswith("svg")


def test_the_same_data_give_the_same_bytes():
    assert draw("curves", "png", "light") == draw("curves", "png", "light")
    assert draw("bars", "svg", "light") == draw("bars", "svg", "light")


@pytest.mark.parametrize(
    "y", [[], [np.nan, np.nan], [1.0], [0.0, 0.0, 0.0], [1e-12, 1.0, 1e9], [-1.0, np.inf, 2.0]]
)
def test_awkward_data_are_drawn(y):
    assert curves({"line": (list(range(len(y))), y)}).startswith(b"\x89PNG")


def test_smoothing_is_a_centred_mean_that_stops_at_gaps():
    y = [1.0, 2.0, 6.0, np.nan, 10.0, 20.0]
    np.testing.assert_allclose(smooth(y, 3), [1.5, 3.0, 4.0, np.nan, 15.0, 15.0])
    np.testing.assert_array_equal(smooth(y, 0), y)


def test_log_only_where_it_helps():
    assert wants_log([[1.0, 10.0, 100.0]])
    assert not wants_log([[1.0, 2.0, 3.0]])
    assert not wants_log([[0.0, 10.0, 1000.0]])
    assert not wants_log([])


def test_animation_keeps_frames_size_and_speed():
    frames = [np.full((20, 30), i / 4) for i in range(5)]
    image = Image.open(io.BytesIO(animation_gif(frames, fps=10)))
    assert (image.format, image.n_frames, image.size) == ("GIF", 5, (30, 20))
    assert image.info["duration"] == 100 and image.info["loop"] == 0
    image.seek(4)
    assert image.convert("RGB").getpixel((3, 3)) == (255, 255, 255)
    mixed = [np.zeros((4, 4, 3), np.uint8), Image.new("RGBA", (4, 4), "red")]
    assert Image.open(io.BytesIO(animation_gif(mixed))).n_frames == 2


def test_bad_input_says_what_is_wrong():
    with pytest.raises(ValueError, match="at least one frame"):
        animation_gif([])
    with pytest.raises(ValueError, match="one size"):
        animation_gif([np.zeros((4, 4)), np.zeros((5, 4))])
    with pytest.raises(ValueError, match="fps"):
        animation_gif([np.zeros((4, 4))], fps=0)
    with pytest.raises(ValueError, match="2 values a repeat, but 3 x"):
        lines_with_spread({"a": ([1, 2, 3], [[1.0, 2.0]])})
    with pytest.raises(ValueError, match="no group is called 'b'"):
        scatter({"a": ([1], [1])}, joined=["b"])
    with pytest.raises(ValueError, match="filled matrix"):
        heatmap(np.zeros((0, 3)))


def test_a_page_knows_line_art_from_pictures() -> None:
    """Lines and bars may be inverted on a dark page; colours that mean a value may not."""
    drawn = bars({"a": {"x": 1.0}}, title="t")
    assert Figure(uri(drawn, "image/png")).is_line_art
    values = heatmap(np.eye(3), title="t")
    assert not Figure(uri(values, "image/png")).is_line_art
    assert not Figure(link="large.png").is_line_art
    assert not Figure("data:image/gif;base64,R0lG").is_line_art
