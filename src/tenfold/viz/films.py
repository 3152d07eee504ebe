"""A film of pictures as MP4, where the extra that encodes it is installed."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from tenfold.extras import EXTRAS
from tenfold.files import replacing

Rgb = UInt8[np.ndarray, "_ _ 3"]


def can_write_mp4() -> bool:
    """True if the extra is installed."""
    return all(find_spec(module) is not None for module in EXTRAS["video"])


def write_mp4(path: Path, frames: Iterable[Rgb], fps: float) -> None:
    """Write pictures of one size, one in memory at a time, as H.264.

    Players want even sides: an odd last row or column is left out.

    Args:
        path: File to write.
        frames: One picture at least.
        fps: Pictures a second.

    Raises:
        ValueError: The encoder failed.
    """
    import imageio_ffmpeg

    with replacing(path) as temporary:
        writer = None
        for frame in frames:
            height, width = (side // 2 * 2 for side in frame.shape[:2])
            if writer is None:
                writer = imageio_ffmpeg.write_frames(
                    str(temporary.absolute()), (width, height), fps=fps, macro_block_size=2,
                    codec="libx264", quality=7, ffmpeg_log_level="error",
                    output_params=["-f", "mp4", "-movflags", "+faststart", "-bitexact"],
                )  # fmt: skip
                writer.send(None)
            writer.send(np.ascontiguousarray(frame[:height, :width]))
        if writer is None:
            raise ValueError(f"{path}: a film needs one picture at least")
        writer.close()
        if not temporary.is_file() or not temporary.stat().st_size:
            raise ValueError(f"{path} could not be written as a film")
