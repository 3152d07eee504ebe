"""Predictions for images of a user, in three passes: read, predict, write.

An image goes through all three before the next one is read, so that memory is that of one image
whatever a folder holds.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tenfold.core import dist
from tenfold.core.divide import answered
from tenfold.data.images.films import is_film, open_film
from tenfold.data.images.folders import offered, read_offered
from tenfold.viz.overlays import Rgb
from tenfold.viz.predictions import Source, Trained, sources, spread

from .config import Config, PredictOptions
from .inference import answer, confidence_map, label_map
from .model import Networks
from .write import SHOWN, Record, write_folder, write_image


def predict_files(
    networks: Networks,
    cfg: Config,
    inputs: Path,
    out: Path,
    options: PredictOptions,
    trained: Trained,
) -> list[Path]:
    """Label an image, each image of a folder and of the folders in it, or each frame of a film.

    The processes of a job share the images; each writes the results of its own, the first one
    writes table, film and page.

    Args:
        networks: Students and teachers.
        cfg: Their configuration.
        inputs: An image, a folder of images or frames of a film, or a film. Images of a folder that
            cannot be read are listed with the reason.
        out: Folder to write to.
        options: What is asked for.
        trained: What the page says of the run.

    Returns:
        The files that were written, the page last; on processes after the first none.

    Raises:
        ValueError: There is no image, a lone one cannot be read, or none of a folder.
    """
    asked = networks.deployed if options.network == "deployed" else options.network
    members = networks.members(asked)
    networks.eval()
    film = open_film(inputs, options.every) if is_film(inputs) else None
    images = sources(inputs, out, offered) if film is None else frames(inputs, film.count)
    shown = set(spread(range(len(images)), SHOWN))

    def read(row: int) -> Rgb:
        return read_offered(inputs, images[row].file) if film is None else film.frame(row)

    def work(row: int, image: Rgb) -> Record:
        source = images[row]
        found = answer(members, image, cfg.data.target_size)
        height, width = image.shape[:2]
        labels = label_map(found, height, width)
        sure = confidence_map(found, height, width)
        share = float(np.mean(sure >= 255 * cfg.host.threshold))
        kept = sure if options.confidence else None
        return write_image(
            image, labels, kept, share, source.name, out / source.output, cfg, row in shown
        )

    try:
        records = answered(
            inputs, len(images), read, work,
            lambda row, problem: Record(images[row].name, problem=problem),
        )  # fmt: skip
    finally:
        if film is not None:
            film.close()
    if not dist.current().is_first:
        return []
    fps = options.fps and film.fps if film is not None and film.fps else options.fps
    return write_folder(records, inputs, out, cfg, fps, asked, trained)


def frames(film: Path, count: int) -> list[Source]:
    """The frames of a film by number, as images are listed."""
    return [Source(film, f"frame {row}", f"frame-{row:06}") for row in range(count)]
