"""Predictions for images of a user, in three passes: read, predict, write.

An image goes through all three before the next one is read, so that memory is that of one image
whatever a folder holds. `inference` knows no file, `write` no network.
"""

from __future__ import annotations

from pathlib import Path

from torch import nn

from tenfold.core import dist
from tenfold.core.divide import answered
from tenfold.data.images.coco_numbers import read_numbers
from tenfold.data.images.folders import offered, read_offered
from tenfold.viz.overlays import Rgb
from tenfold.viz.predictions import Trained, sources, spread

from . import draw
from .config import Config, PredictOptions
from .inference import answer
from .write import SHOWN, Record, write_answer, write_folder


def predict_files(
    model: nn.ModuleDict,
    cfg: Config,
    inputs: Path,
    out: Path,
    options: PredictOptions,
    trained: Trained,
) -> list[Path]:
    """Answer for an image, or for each image of a folder and of the folders in it.

    The processes of a job share the images; each writes the results of its own, the first one
    writes table and page.

    Args:
        model: Networks by task.
        cfg: Their configuration.
        inputs: An image, or a folder of images. Those of a folder that cannot be read are listed
            with the reason.
        out: Folder to write to.
        options: What is asked for.
        trained: What the page says of the run.

    Returns:
        The files that were written, the page last; on processes after the first none.

    Raises:
        ValueError: There is no image, a lone one cannot be read, or none of a folder.
    """
    images = sources(inputs, out, offered)
    numbers = None
    if (options.coco or options.yolo) and "detect" not in cfg.tasks:
        raise ValueError(
            f"{'--coco' if options.coco else '--yolo'} is for detected objects, and this run has "
            f"learned {', '.join(cfg.tasks)}; leave it out, or give a run with the task detect"
        )
    if options.coco:  # what does not fit is said before the work
        numbers = read_numbers(Path(options.coco).expanduser())
        numbers.of_images([source.name for source in images])
        numbers.of_classes(cfg.classes)
    shown = spread(range(len(images)), SHOWN)
    inside = {row: place for place, row in enumerate(spread(shown, draw.SHOWN))}
    model.eval()

    def work(row: int, image: Rgb) -> Record:
        source = images[row]
        found = answer(model, cfg, image, options, inside.get(row))
        return write_answer(found, image, source.name, out / source.output, cfg, row in shown)

    records = answered(
        inputs, len(images), lambda row: read_offered(inputs, images[row].file), work,
        lambda row, problem: Record(images[row].name, problem=problem),
    )  # fmt: skip
    if not dist.current().is_first:
        return []
    return write_folder(records, inputs, out, cfg, options, trained, numbers)
