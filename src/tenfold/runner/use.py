"""A trained system at work: measured on a split, or run on a user's files, by all processes."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal

from tenfold.core import dist, lock
from tenfold.core.diagnose import require_finite_metrics
from tenfold.core.errors import require_file_or_folder
from tenfold.systems import system_class

from . import outputs
from .weights import load, system_of

Device = Literal["auto", "cpu", "cuda"]


def evaluate(path: Path, split: str, device: Device = "auto") -> dict[str, Any]:
    """Measure a run on a split, each process its share of the work.

    Args:
        path: A run folder or a weights file.
        split: "test", or another split that the system's data have.
        device: Device to compute on; auto takes a GPU if there is one.

    Returns:
        On the first process what a table of results needs: "recipe" (the system's name), "data",
        "metrics", "baselines", "notes", "labels" and "main"; {} on the others.

    Raises:
        FileNotFoundError: There are no such weights, or their data are not there.
        ValueError: The weights cannot be used, there is no such split, or no GPU.
    """
    name = system_of(path)
    with dist.started(device) as world, ExitStack() as held:
        if world.is_first and path.is_dir():
            held.enter_context(lock.locked(path, "evaluating", writes=False))
        world.barrier()
        system = load(system_class(name), path)
        system.to(world.device)
        found = system.evaluate(split)
        require_finite_metrics(found.metrics, found.baselines)
        data = system.data_used()
        result = {
            "recipe": name,
            "data": {"name": data.name, "kind": data.kind, "note": data.note},
            "metrics": found.metrics,
            "baselines": found.baselines,
            "notes": [*system.notes(), *found.notes],
            "labels": system.labels(),
            "main": system.headline,
        }
        world.barrier(patient=True)
        return result if world.is_first else {}


def predict(
    path: Path, inputs: Path, out: Path | None, options: Any = None, device: Device = "auto"
) -> list[Path]:
    """Run a trained system, or an official file, on a file or folder; each process its share.

    Args:
        path: A run folder, a weights file or an official file.
        inputs: A file, or a folder of files, of a kind that the system accepts.
        out: Folder to write to, made if it is not there; None is predictions/<name of the input>
            beside the weights, or <name>-2 and so on where another prediction lies.
        options: Options of the class of the system's `options`; None takes the defaults.
        device: Device to compute on; auto takes a GPU if there is one.

    Returns:
        The journal of the prediction (what made it, its files) and the files written, on the first
        process; [] on the others.

    Raises:
        FileNotFoundError: `path` or `inputs` is not there.
        ValueError: The weights, the inputs or the options cannot be used, there is no GPU, or `out`
            holds another prediction, is being written to, or holds a file that would be lost.
    """
    with dist.started(device) as world:
        system = load(system_class(system_of(path)), path)
        system.to(world.device)
        made, folder = _place(path, inputs, out, options or system.options, world)
        with outputs.writing(folder, made, world) as journal:
            written = system.predict(inputs, folder, options)
            world.barrier(patient=True)
        return [journal, *written] if world.is_first else []


def _place(
    path: Path, inputs: Path, out: Path | None, options: Any, world: dist.World
) -> tuple[dict[str, Any], Path]:
    """What makes the prediction, and its folder, as the first process sees them."""
    made: dict[str, Any] = {}
    if world.is_first:
        require_file_or_folder(inputs)  # a link to itself has no path to note down
        made = outputs.made_by(path, inputs, options)
        if out is None:
            home = path if path.is_dir() else path.parent
            out = outputs.own_folder(home, inputs, made)
    return made, Path(world.gather(str(out))[0])
