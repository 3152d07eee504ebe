"""Objects of a user's pictures: read, predict, write, one picture in memory at a time."""

from __future__ import annotations

from pathlib import Path

from tenfold.core import dist
from tenfold.core.divide import answered
from tenfold.data.images.folders import offered, read_offered
from tenfold.nn.condinst import CondInst
from tenfold.viz.overlays import Rgb
from tenfold.viz.predictions import Trained, sources, spread

from .config import Config, PredictOptions
from .inference import detect
from .write import Record, write_folder, write_picture


def predict_files(
    network: CondInst,
    cfg: Config,
    inputs: Path,
    out: Path,
    options: PredictOptions,
    trained: Trained,
) -> list[Path]:
    """Find the objects of a picture, or of each picture of a folder and of the folders in it.

    The processes of a job share the pictures; each writes the results of its own, the first one
    writes tables and page.

    Args:
        network: The trained network.
        cfg: Its configuration.
        inputs: A picture, or a folder of pictures. Those of a folder that cannot be read are listed
            with the reason.
        out: Folder to write to.
        options: What is asked for.
        trained: What the page says of the run.

    Returns:
        The files that were written, the page last; on processes after the first none.

    Raises:
        ValueError: There is no picture, a lone one cannot be read, or none of a folder.
    """
    pictures = sources(inputs, out, offered)
    shown = set(spread(range(len(pictures)), options.shown))
    network.eval()

    def work(row: int, picture: Rgb) -> Record:
        source = pictures[row]
        found = detect(network, cfg, picture, options.score, options.most)
        output = out / source.output
        return write_picture(picture, found, source.name, output, cfg.classes, row in shown)

    records = answered(
        inputs, len(pictures), lambda row: read_offered(inputs, pictures[row].file), work,
        lambda row, problem: Record(pictures[row].name, problem=problem),
    )  # fmt: skip
    if not dist.current().is_first:
        return []
    return write_folder(records, inputs, out, cfg.classes, options, trained)
