"""A run that is given more steps than it was started with, and goes on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tenfold.core import checkpoint, run_folder
from tenfold.files import read_object

EVERY_DONE = "checkpoints/*/done.json"
"""Accounts of the finished stages of a run."""
DONE = {"name": str, "steps": int}


def without_more_steps(
    folder: Path, saved: dict[str, Any], changed: list[str], cfg: Any
) -> list[str]:
    """Take "config.steps" out of a list of differences if the run in a folder can go on for more.

    Raises:
        ValueError: The run has been trained for more steps already, or keeps no state to go on.
    """
    line = next((d for d in changed if d.startswith("config.steps: ")), None)
    if line is None or not cfg.steps or len(changed) > 1:
        return changed
    done = [read_object(f, DONE, tuple(DONE)) for f in sorted(folder.glob(EVERY_DONE))]
    before = _steps(saved) or max((one["steps"] for one in done), default=0)
    if not before:  # by epochs, and not finished: nobody knows how many
        return changed
    if cfg.steps < before:
        raise ValueError(
            f"{folder} is a run of {before} steps, and {cfg.steps} are fewer; give more to go on "
            "from it, another --run.folder, or --run.fresh to start over"
        )
    for one in done[:1]:
        if not checkpoint.complete(folder / "checkpoints" / one["name"]):
            raise ValueError(
                f"{folder} keeps no state of its training, so it cannot go on for more steps; "
                f"begin a new run from its weights with --start {folder}"
            )
    return []


def _steps(saved: dict[str, Any]) -> int:
    """The steps that a run was started with; 0 where they follow from epochs."""
    return int(saved["config"].get("steps", 0))


def has_more_steps(folder: Path, cfg: Any) -> bool:
    """Return True if a folder holds this run with fewer steps."""
    saved = run_folder.read_config(folder)
    return saved is not None and _steps(saved) != cfg.steps
