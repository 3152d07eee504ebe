"""Films: frames in order and out of order, odd sides, and files that are none."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from tenfold.data.images import films
from tenfold.data.images.films import is_film, open_film
from tenfold.viz.films import write_mp4


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten frames, each brighter than the one before."""
    path = tmp_path_factory.mktemp("film") / "a.mp4"
    write_mp4(path, (np.full((33, 49, 3), 20 * i, dtype=np.uint8) for i in range(10)), 5.0)
    return path


def test_frames_come_in_any_order(film: Path) -> None:
    found = open_film(film)
    assert (found.count, found.fps) == (10, 5.0) and is_film(film)
    brightness = [found.frame(row).mean() for row in (0, 1, 5, 2, 9)]
    assert np.allclose(brightness, [0, 20, 100, 40, 180], atol=3)
    assert found.frame(3).shape == (32, 48, 3)
    found.close()
    third = open_film(film, 3)
    assert (third.count, third.fps) == (4, pytest.approx(5 / 3))
    assert np.allclose([third.frame(row).mean() for row in range(4)], [0, 60, 120, 180], atol=3)
    with pytest.raises(ValueError, match="ends before its frame 4"):
        third.frame(4)
    third.close()


def test_damage_is_said_in_one_line(film: Path, tmp_path: Path) -> None:
    whole = film.read_bytes()
    damaged = {
        "cut": whole[: len(whole) // 2], "head": whole[:40], "zeros": whole[:60] + bytes(2000),
        "empty": b"", "list": b"#EXTM3U\n/etc/passwd\n", "text": b"ffconcat version 1.0\n",
    }  # fmt: skip
    for name, content in damaged.items():
        path = tmp_path / f"{name}.mp4"
        path.write_bytes(content)
        with pytest.raises(ValueError, match=f"{name}.mp4 (cannot be read|does not begin)") as said:
            open_film(path)
        assert "\n" not in str(said.value), name


def test_a_film_that_was_cut_short_is_read_with_a_note(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (20, 32, 48, 3), dtype=np.uint8)
    write_mp4(tmp_path / "a.mp4", iter(noise), 5.0)
    whole = (tmp_path / "a.mp4").read_bytes()
    (tmp_path / "a.mp4").write_bytes(whole[: len(whole) * 7 // 10])
    with pytest.warns(
        UserWarning, match=r"lasts 4 s, about 20 frames, of which 1\d can be decoded"
    ):
        assert 10 <= open_film(tmp_path / "a.mp4").count < 18


def test_films_have_bounds(film: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(films, "MOST_FRAMES", 5)
        with pytest.raises(ValueError, match="more than 5 frames; take every .* --every 2"):
            open_film(film)
        assert open_film(film, 2).count == 5
    monkeypatch.setattr(films, "MAX_PIXELS", 1000)
    with pytest.raises(ValueError, match="frames of 48 x 32 pixels|cannot be read as a film"):
        open_film(film)


def test_the_extra_is_named(film: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install .*\[video\]"):
        open_film(film)
