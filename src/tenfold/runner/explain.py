"""The match of a photo and a sentence, taken apart: by an encoder of a file, or a run of ours."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import torch

from tenfold.core import dist
from tenfold.core.capabilities import DualEncoder, Explains
from tenfold.core.config import to_json
from tenfold.core.errors import UsageError, require_file_or_folder
from tenfold.data.images.decode import read_picture
from tenfold.systems import SYSTEMS, refusal, system_class
from tenfold.systems.loupe import clip
from tenfold.systems.loupe.explain import ExplainOptions, explain, judge, page
from tenfold.weights.clip import FILES as CLIP_FILES
from tenfold.weights.clip import weights_file
from tenfold.weights.containers import is_run

from . import outputs
from .use import Device
from .weights import load, system_of, weights_of

CPU = torch.device("cpu")


def run(
    checkpoint: Path,
    photo: Path,
    sentence: str,
    out: Path | None,
    options: ExplainOptions,
    merges: str = "",
    activation: Literal["", "quick_gelu", "gelu"] = "",
    device: Device = "auto",
    say: Callable[[str], None] = lambda line: None,
) -> list[Path]:
    """Explain a match; writes a page, a picture and JSON.

    Args:
        checkpoint: A run folder or weights file of a system that explains; or a dual encoder in
            OpenAI's, open_clip's or transformers' layout.
        photo: A picture.
        sentence: What is said of it.
        out: Folder to write to; None is predictions/<name of the photo> beside the weights, with
            -2 and so on where another prediction lies.
        options: What is asked.
        merges: Table of tokens of a dual encoder that is no run of ours.
        activation: Its activation, if its files do not say it.
        device: Device to compute on; auto takes a GPU if there is one.
        say: Is told what is being done.

    Returns:
        The journal and the files written.

    Raises:
        FileNotFoundError: A file is not there.
        ValueError: The photo, the checkpoint, the sentences or the options cannot be used.
    """
    with dist.started(device) as world:
        if world.size > 1:
            raise UsageError("an explanation is made by one process; start it without torchrun")
        picture = read_picture(photo)
        encoder, notes = open_encoder(checkpoint, options.absent, merges, activation, world.device)
        made = _made_by(checkpoint, photo, sentence, options, merges, activation)
        home = checkpoint if checkpoint.is_dir() else checkpoint.parent
        folder = out or outputs.own_folder(home, photo, made)
        with outputs.writing(folder, made, world) as journal:  # refuses before work is lost
            match = explain(encoder, picture, sentence, options, say)
            quality = judge(match, say) if options.judge else None
            written = page.write(folder, photo.name, picture, match.explanation, quality, notes)
        return [journal, *written]


def open_encoder(
    checkpoint: Path,
    absent: str = "",
    merges: str = "",
    activation: Literal["", "quick_gelu", "gelu"] = "",
    device: torch.device = CPU,
) -> tuple[DualEncoder, Sequence[str]]:
    """The encoders of a checkpoint, and lines about them; arguments and errors of `run`."""
    if not checkpoint.exists():
        raise FileNotFoundError(
            f"{checkpoint} does not exist; give a run folder or a checkpoint of CLIP's layout"
        )
    require_file_or_folder(checkpoint)
    if _is_run(checkpoint):
        name = system_of(checkpoint)
        if "explain" not in SYSTEMS[name].verbs:
            raise refusal(name, "explain")
        if merges or activation:
            raise UsageError("a run of ours needs neither --merges nor --activation")
        system = load(system_class(name), checkpoint)
        system.model.to(device)
        assert isinstance(system, Explains)
        ways = system.absences
        if absent and absent not in ways:
            raise ValueError(f"{name} leaves patches out as {' or '.join(ways)}, not {absent!r}")
        return system.dual_encoder(absent or ways[0]), system.notes()
    encoder = clip.read(checkpoint, merges, absent or clip.ABSENCES[0], activation)
    assumed = (
        "No file beside the weights says heads, activation and how photos are prepared: OpenAI's "
        "are taken (QuickGELU; --activation gelu for networks that open_clip trained)."
    )
    return encoder.to(device), [assumed] if encoder.settings.assumed else []


def _is_run(checkpoint: Path) -> bool:
    """True for what tenfold wrote; a folder without weights of others is taken for a run."""
    if not checkpoint.is_dir():
        return is_run(checkpoint)
    return not any((checkpoint / name).is_file() for name in CLIP_FILES)


def _made_by(
    checkpoint: Path,
    photo: Path,
    sentence: str,
    options: ExplainOptions,
    merges: str,
    activation: str,
) -> dict[str, Any]:
    """What makes an explanation, as JSON has it."""
    file = weights_of(checkpoint) if _is_run(checkpoint) else weights_file(checkpoint)
    state = file.stat()
    asked = {"sentence": sentence, **to_json(options), "merges": merges, "activation": activation}
    made = {
        "weights": [[outputs.written(file.resolve()), state.st_size, state.st_mtime_ns]],
        "input": outputs.written(photo.resolve()),
        "options": asked,
    }
    plain: dict[str, Any] = json.loads(json.dumps(made))
    return plain
