"""Films as frames, decoded one after the other by ffmpeg, a program of its own beside ours."""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from tenfold.extras import install
from tenfold.printable import printable

from .decode import MAX_PIXELS, MAX_RATIO

Rgb = UInt8[np.ndarray, "_ _ 3"]
ENDINGS = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg")
"""Endings of names of films, in small letters."""
BEGINNINGS = re.compile(
    rb"....(?:ftyp|moov|mdat|wide|free|skip)|\x1a\x45\xdf\xa3|RIFF....AVI |\x00\x00\x01\xba", re.S
)
"""First bytes of the containers of these endings. Other files are not given to ffmpeg, which would
follow what a playlist names to other files and over the network."""
MOST_FRAMES = 20_000
"""Frames of a film that are answered, at most: eleven minutes at 30 a second."""
WHOLE = 0.9
"""Share of the frames that a film says it has with which it counts as whole; rates of frames that
come at uneven times are but about right."""
COUNTED = 16
"""Side in pixels of frames that are but counted."""


def is_film(path: Path) -> bool:
    """True for a file that is called as films are."""
    return path.suffix.lower() in ENDINGS and path.is_file()


@dataclass
class Film:
    """Frames of a film; each can be asked for, the next one soonest."""

    path: Path
    every: int
    """Every so manieth frame is one of ours."""
    fps: float
    """Frames of ours in a second; 0 if the film does not say."""
    count: int
    """Frames of ours."""
    _frames: Iterator[Any] | None = field(default=None, repr=False)
    _size: tuple[int, int] = field(default=(0, 0), repr=False)
    _next: int = field(default=0, repr=False)

    def frame(self, row: int) -> Rgb:
        """A frame, 0 the first.

        Raises:
            ValueError: The film ends before it.
        """
        if self._frames is None or row < self._next:
            self.close()
            self._frames, about = _opened(self.path, f"select=not(mod(n\\,{self.every}))")
            self._size, self._next = about["size"], 0
        content = b""
        with _readable(self.path):
            while self._next <= row:
                content = next(self._frames, b"")
                self._next += 1
        if not content:
            raise ValueError(f"{self.path} ends before its frame {row}")
        width, height = self._size
        return np.frombuffer(content, dtype=np.uint8).reshape(height, width, 3)

    def close(self) -> None:
        """End the program that decodes."""
        if self._frames is not None:
            self._frames.close()  # type: ignore[attr-defined]
            self._frames = None


def open_film(path: Path, every: int = 1) -> Film:
    """Open a film, whose frames are counted first: what containers say of them is not always so.

    Args:
        path: File.
        every: Every so manieth frame is taken, the first one always.

    Raises:
        ModuleNotFoundError: The extra that decodes films is not installed.
        ValueError: It is no film, is damaged, or has too large or too many frames.
    """
    with path.open("rb") as file:
        if not BEGINNINGS.match(file.read(12)):
            raise ValueError(
                f"{path} does not begin as a film does ({', '.join(ENDINGS)}); is it damaged?"
            )
    chosen = f"select=not(mod(n\\,{every})),scale={COUNTED}:{COUNTED}:flags=neighbor"
    frames, about = _opened(path, chosen, "gray", 8)
    count = 0
    with _readable(path):
        for _ in frames:
            count += 1
            if count > MOST_FRAMES:
                frames.close()  # type: ignore[attr-defined]
                raise ValueError(
                    f"{path} has more than {MOST_FRAMES} frames; take every so manieth by "
                    f"--every {every + 1} or more"
                )
    if not count:
        raise ValueError(f"{path} has no frame that can be decoded")
    if count + 1 < WHOLE * about["duration"] * about["fps"] / every:
        warnings.warn(
            f"{path} says that it lasts {about['duration']:g} s, about "
            f"{about['duration'] * about['fps'] / every:.0f} frames, of which {count} can be "
            "decoded; was it cut short?",
            stacklevel=2,
        )
    return Film(path, every, about["fps"] / every, count)


def _opened(
    path: Path, filters: str, pixels: str = "rgb24", bits: int = 24
) -> tuple[Iterator[Any], dict[str, Any]]:
    """Frames as bytes, and what is said of them: size (width, height) and fps."""
    try:
        import imageio_ffmpeg
    except ImportError as error:
        raise ModuleNotFoundError(f"to read {path} as a film: {install('video')}") from error
    limits = ["-max_pixels", str(MAX_PIXELS), "-protocol_whitelist", "file"]
    logger = logging.getLogger("imageio_ffmpeg")
    before = logger.level
    logger.setLevel(logging.ERROR)  # it warns of every change of size
    try:
        with _readable(path):
            frames = imageio_ffmpeg.read_frames(
                str(path.absolute()), pixels, input_params=limits, bits_per_pixel=bits,
                output_params=["-map", "0:v:0", "-vf", filters, "-fps_mode", "passthrough"],
            )  # fmt: skip
            about = next(frames)
    finally:
        logger.setLevel(before)
    width, height = about["source_size"]
    if width * height > MAX_PIXELS or max(width, height) > MAX_RATIO * min(width, height):
        frames.close()
        raise ValueError(
            f"{path} has frames of {width} x {height} pixels; at most {MAX_PIXELS} are read, and a "
            f"side may be {MAX_RATIO} times as long as the other"
        )
    return frames, about


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """What the decoder cannot read as a ValueError of one line, with its last word on it."""
    try:
        yield
    except ValueError:
        raise
    except Exception as error:  # OSError, RuntimeError, IndexError where it says nothing
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        said = [line for line in lines if "rror" in line or "nvalid" in line] or lines
        reason = re.sub(r"^\[[^]]*\] ", "", printable(said[-1]))[:200] if said else ""
        raise ValueError(
            f"{path} cannot be read as a film, it is damaged or of another kind "
            f"({reason or type(error).__name__})"
        ) from error
