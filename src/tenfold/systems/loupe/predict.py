"""Pictures of a user: read, asked, written, one in memory at a time."""

from __future__ import annotations

from pathlib import Path

from tenfold.core import dist
from tenfold.core.divide import answered
from tenfold.data.images.folders import offered, read_offered
from tenfold.viz.overlays import Rgb
from tenfold.viz.predictions import Trained, sources, spread

from .answer import Asked
from .config import Config, PredictOptions
from .evaluation import name_vectors
from .model import Networks
from .write import SHOWN, Record, write_folder, write_picture


def predict_files(
    networks: Networks,
    cfg: Config,
    inputs: Path,
    out: Path,
    options: PredictOptions,
    trained: Trained,
) -> list[Path]:
    """Ask of a picture, or of each of a folder and of the folders in it, what a text names.

    The processes of a job share the pictures; each writes the results of its own, the first one
    writes table and page.

    Args:
        networks: The dual encoder and the region module.
        cfg: Their configuration.
        inputs: A picture, or a folder. Pictures of a folder that cannot be read are listed with the
            reason.
        out: Folder to write to.
        options: What is asked for.
        trained: What the page says of the run.

    Returns:
        The files that were written, the page last; on processes after the first none.

    Raises:
        ValueError: There is no picture, a lone one cannot be read, or none of a folder; the text
            is too long or no word of it is known, or without a text none of the classes.
    """
    asked = Asked(networks, cfg, options.samples)
    if options.caption:
        asked.text(options.caption)  # says what is wrong with it before any picture is read
        asked.require_whole(options.caption)
    pictures = sources(inputs, out, offered)
    shown = set(spread(range(len(pictures)), SHOWN))
    names = tuple(cfg.data.classes.split("\n")) if cfg.data.classes else ("thing",)
    if not options.caption:
        names = tuple(name for name in names if asked.knows(f"a {name}"))
        if not names:
            raise ValueError(
                "the training captions name no class of objects that a picture could be asked "
                "for; say what is sought with --caption"
            )
    vectors = name_vectors(networks, asked.vocabulary, names)

    def work(row: int, picture: Rgb) -> Record:
        text = options.caption or f"a {asked.likely(picture, names, vectors)}"
        answer = asked.answer(picture, text, options.regions, bool(options.caption))
        source = pictures[row]
        return write_picture(picture, answer, source.name, out / source.output, row in shown)

    records = answered(
        inputs, len(pictures), lambda row: read_offered(inputs, pictures[row].file), work,
        lambda row, problem: Record(pictures[row].name, problem=problem),
    )  # fmt: skip
    if not dist.current().is_first:
        return []
    return write_folder(records, inputs, out, trained)
