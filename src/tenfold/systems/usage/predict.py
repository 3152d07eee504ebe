"""Predictions for pictures of a user, in three passes: read, predict, write.

A picture goes through all three before the next one is read, so that memory is that of one picture
whatever a folder holds.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tenfold.core import dist
from tenfold.core.divide import answered
from tenfold.data.images.folders import offered, read_offered
from tenfold.data.images.label_tables import read_table
from tenfold.data.images.picture_names import is_picture_name, picture_names
from tenfold.viz.overlays import Rgb
from tenfold.viz.predictions import Trained, sources, spread

from .answer import answer, threshold_of
from .config import Config, PredictOptions
from .kept import prepared
from .model import Networks
from .write import Record, write_folder, write_picture


def predict_files(
    networks: Networks,
    cfg: Config,
    inputs: Path,
    out: Path,
    options: PredictOptions,
    trained: Trained,
) -> list[Path]:
    """Find masks and heat maps of a picture, or of each picture of a folder and those in it.

    The processes of a job share the pictures; each writes the results of its own, the first one
    writes table and pages.

    Args:
        networks: Of the run.
        cfg: Their configuration.
        inputs: A picture, or a folder of pictures. Those of a folder that cannot be read are listed
            with the reason.
        out: Folder to write to.
        options: What is asked for.
        trained: What the page says of the run.

    Returns:
        The files that were written, the page last; on processes after the first none.

    Raises:
        ValueError: There is no picture, a lone one cannot be read, none of a folder can, or the
            table of labels does not fit.
    """
    networks.eval()
    seeds = prepared(networks.seed, cfg.seeds.precision)
    pictures = sources(inputs, out, offered)
    given = labels_of(options.labels, [one.file for one in pictures], cfg, inputs)
    shown = set(spread(range(len(pictures)), options.shown))

    def work(row: int, picture: Rgb) -> Record:
        source = pictures[row]
        found = answer(networks, seeds, cfg, picture, given.get(source.file), options)
        return write_picture(picture, found, source.name, out / source.output, cfg, row in shown)

    records = answered(
        inputs, len(pictures), lambda row: read_offered(inputs, pictures[row].file), work,
        lambda row, problem: Record(pictures[row].name, problem=problem),
    )  # fmt: skip
    if not dist.current().is_first:
        return []
    return write_folder(records, inputs, out, cfg, threshold_of(networks, cfg, options), trained)


def labels_of(
    table: str, files: list[Path], cfg: Config, inputs: Path
) -> Mapping[Path, tuple[int, ...]]:
    """Labels of pictures by a table of the user's; those that it does not name have none there."""
    if not table:
        return {}
    root = inputs
    place = inputs.parent.resolve() / inputs.name
    if not inputs.is_dir():  # a table may name all pictures that lie beside and below it
        beside = Path(table).parent.resolve()
        root = beside if beside in place.parents else place.parent
        others = (file for file in root.rglob("*") if is_picture_name(file.name))
        files = [place, *(file for file in others if file != place)]
    names = picture_names(root, files)
    read = read_table(Path(table), names, cfg.classes, has_option=False)
    numbers = {name: number for number, name in enumerate(cfg.classes)}
    labels = {}
    for file, present in read.labels.items():
        for name in present:
            if name not in numbers:
                raise ValueError(
                    f"{table} has the label {name!r} of {file.name}, but the run has the classes "
                    f"{', '.join(cfg.classes[:8])}{', ...' if len(cfg.classes) > 8 else ''}"
                )
        labels[inputs if file == place else file] = tuple(sorted(numbers[name] for name in present))
    return labels
