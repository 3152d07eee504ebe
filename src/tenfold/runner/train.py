"""Training into a run folder: a configuration fills it with weights, metrics and a page."""

from __future__ import annotations

import hashlib
import time
from contextlib import ExitStack
from dataclasses import asdict, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any, get_args

import torch

from tenfold.core import checkpoint, dist, lock, log, loop, precision, run_folder
from tenfold.core.config import get, to_json
from tenfold.core.diagnose import NonFinite, require_finite_metrics
from tenfold.printable import Lines
from tenfold.report.card import card_info, write_model_card
from tenfold.report.html import write_run_page
from tenfold.report.results import read_result
from tenfold.viz.page import require_own_page

from .more_steps import has_more_steps, without_more_steps
from .start import KEPT, completed_again, keep_start, start_from
from .weights import AnySystem, completed, construct, save_weights

LAST = ("result.json", "MODEL_CARD.md", "report.html")
"""The files that a run writes last; one that has them all is finished."""


def _refuse_other_runs(
    folder: Path,
    identity: dict[str, Any],
    cfg: Any,
    fresh: bool,
    resumable: tuple[str, ...],
    paths: tuple[str, ...],
) -> None:
    """Raise unless the folder is new, holds this very run, or holds a run to be made fresh.

    Fields that are `resumable` may differ.
    """
    saved = run_folder.read_config(folder)
    if saved is None:
        run_folder.require_new(folder)
        return
    run_folder.refuse_links(folder)
    require_own_page(folder / "report.html")
    if fresh:
        _refuse_to_begin_from_deleted(folder, cfg, paths)
        run_folder.require_clearable(folder)
        return
    may = tuple(f"config.{field}" for field in resumable)
    changed = run_folder.changes(saved, identity, cfg, paths)
    changed = [d for d in changed if not d.startswith(may)]
    changed = without_more_steps(folder, saved, changed, cfg)
    if changed:
        raise ValueError(
            Lines(
                f"{folder} holds a run with another configuration:\n  "
                + "\n  ".join(changed)
                + "\nUse another --run.folder, or --run.fresh to start over."
            )
        )


def _refuse_to_begin_from_deleted(folder: Path, cfg: Any, paths: tuple[str, ...]) -> None:
    """Raise ValueError if the run that is to be deleted holds what the new one reads.

    Killed, the new one could not go on, and weights to start from would be lost.
    """
    for name in paths:
        path = get(cfg, name)
        if path and Path(path).resolve().is_relative_to(folder.resolve()):
            raise ValueError(
                f"--{name.replace('_', '-')} {path} lies in {folder}, which --run.fresh would "
                "delete; give another --run.folder"
            )


def _time_limit(cfg: Any) -> float:
    """Seconds that processes may wait for each other; systems that communicate have a field."""
    return float(getattr(getattr(cfg, "layout", None), "timeout", 600.0))


def _code() -> dict[str, str]:
    """Return what must be equal on all hosts of a job besides the configuration."""
    from tenfold import __version__

    package = Path(__file__).parents[1]
    digest = hashlib.blake2b(digest_size=8)
    for file in sorted(package.rglob("*.py")):
        digest.update(f"{file.relative_to(package)}\n".encode() + file.read_bytes())
    versions = {"tenfold's version": __version__, "torch's version": str(torch.__version__)}
    return {**versions, "digest of tenfold's source files": digest.hexdigest()}


def train(
    name: str, cls: type[AnySystem], recipe: str, cfg: Any, folder: Path, fresh: bool = False
) -> dict[str, Any]:
    """Train into a run folder (or continue there), evaluate, and write its page.

    What is wrong with the configuration or the data is raised before anything is written or
    deleted.

    Args:
        name: Name of the system in `tenfold.systems`.
        cls: Class of the system.
        recipe: Name of the recipe that `cfg` comes from; it is written down, not looked up.
        cfg: Configuration of the system's kind.
        folder: Run folder: new, empty, or of this very run, which is then continued.
        fresh: Delete the run that the folder holds and start over.

    Returns:
        The result as in `result.json` on the first process, {} on others.

    Raises:
        ValueError: The configuration or the data is wrong, or the folder holds anything else.
        FileNotFoundError: The data are not there.
        Stopped: SIGTERM or SIGINT came; a checkpoint is written, and the same call continues.
        NonFinite: A loss or gradient is NaN or infinite; the error names the culprit.
    """
    with dist.started(cfg.loop.device, limit=_time_limit(cfg), knob="--layout.timeout") as world:
        cfg = completed(cls, cfg) if fresh else completed_again(cls, recipe, cfg, folder)
        cfg, told = with_precision(cfg, folder, fresh, world.device)
        identity = {"system": name, "recipe": recipe, "config": to_json(cfg)}
        world.require_same({**identity, "fresh": fresh, "folder": str(folder), **_code()})
        _refuse_other_runs(folder, identity, cfg, fresh, cls.resumable, cls.paths)
        if not (fresh or has_more_steps(folder, cfg)):
            if all((folder / name).exists() for name in LAST):
                if world.is_first:
                    lock.sweep(folder)
                return read_result(folder / "result.json") if world.is_first else {}
        with ExitStack() as held:
            if world.is_first:
                held.enter_context(lock.locked(folder, "training"))
            world.barrier()
            # what another command did before the lock was ours counts, too
            _refuse_other_runs(folder, identity, cfg, fresh, cls.resumable, cls.paths)
            grown = not fresh and has_more_steps(folder, cfg)
            if (folder / "result.json").exists() and not (fresh or grown):
                return _completed(name, cls, recipe, cfg, folder, world)
            return _trained(name, cls, recipe, cfg, folder, fresh, world, told)


def with_precision(cfg: Any, folder: Path, fresh: bool, device: torch.device) -> tuple[Any, str]:
    """The configuration with `loop.amp` as it is trained, and what the user should know of that.

    A run goes on in what it began in.
    """
    if cfg.loop.amp != "auto":
        return cfg, ""
    saved = None if fresh else run_folder.read_config(folder)
    began: Any = saved["config"].get("loop") if saved else {"amp": "auto"}
    amp: Any = began.get("amp", "off") if isinstance(began, dict) else began
    if amp not in get_args(precision.Amp):  # it is refused as another configuration
        return cfg, ""
    on = replace(cfg.loop, amp=precision.settled(amp, device))
    return replace(cfg, loop=on), precision.remark(amp, device)


def _completed(
    name: str, cls: type[AnySystem], recipe: str, cfg: Any, folder: Path, world: dist.World
) -> dict[str, Any]:
    """The result of a run that was killed between its result and its page, which are written."""
    result = read_result(folder / "result.json")
    if world.is_first:
        run_folder.sweep(folder)
        _write_pages(cls, recipe, cfg, folder, result)
    world.barrier(patient=True)
    return result if world.is_first else {}


def _trained(
    name: str, cls: type[AnySystem], recipe: str, cfg: Any, folder: Path, fresh: bool,
    world: dist.World, told: str,
) -> dict[str, Any]:  # fmt: skip
    system = construct(cls, cfg)
    if (folder / KEPT).exists() and not fresh:
        system.kept = folder / KEPT
    given = start_from(system, name)
    system.work = folder / "work"
    stages = system.stages()
    first = list(islice(stages, 1))  # reads the data; there may be nothing to train
    world.barrier(patient=True)
    if world.is_first:
        if fresh:
            run_folder.clear(folder)
        elif has_more_steps(folder, cfg):  # killed hereafter, it is unfinished and not finished
            (folder / "result.json").unlink(missing_ok=True)
        identity = {"system": name, "recipe": recipe, "config": to_json(cfg)}
        run_folder.write_config(folder, identity)
        run_folder.sweep(folder)
        checkpoint.write_json(folder / "environment.json", log.environment(world))
        keep_start(folder, system, given)
        if told:
            log.say(told)
    del given  # it is as large as the model
    world.barrier()
    accounts = loop.train(chain(first, stages), cfg.loop, world, folder, cfg.seed)
    weights = folder / "weights.safetensors"
    if world.is_first or system.is_divided:
        save_weights(weights, name, system)
    world.barrier(patient=True)
    if system.is_divided:
        system.read_from(weights)
    system.to(world.device)
    result = conclude(name, recipe, system, folder, accounts, world)
    world.barrier(patient=True)
    return result


def conclude(
    name: str, recipe: str, system: AnySystem, folder: Path, accounts: list[dict[str, Any]],
    world: dist.World,
) -> dict[str, Any]:  # fmt: skip
    """Evaluate on the test split, each process its share; write result, pictures, card and page.

    Returns the result on the first process, which alone writes, and nothing on the others.
    """
    system.model.eval()
    began = time.monotonic()
    evaluation = system.evaluate("test")
    try:
        require_finite_metrics(evaluation.metrics, evaluation.baselines)
    except NonFinite:
        if world.is_first:  # what diverged is no result, and is not to be used as one
            (folder / "weights.safetensors").unlink(missing_ok=True)
        raise
    if not world.is_first:
        return {}
    pictures = folder / "pictures"
    captions = {p.name: text for p, text in system.pictures(evaluation, pictures).items()}
    checkpoint.write_json(pictures / "captions.json", captions)
    notes = [*system.notes(), *evaluation.notes]
    if any("compiled" in account for account in accounts):
        notes.append("the training's steps were compiled (torch.compile)")
    skipped = sum(account.get("skipped", 0) for account in accounts)
    if skipped:
        count = sum(account["steps"] for account in accounts)
        notes.append(f"fp16: {skipped} of {count} steps were skipped: their gradients overflowed")
    if system.origin:
        notes.insert(0, system.origin)
    result = {
        "system": name,
        "recipe": recipe,
        "data": asdict(system.data_used()),
        "seed": system.cfg.seed,
        "seconds": round(sum(a["seconds"] for a in accounts), 2),
        "seconds_evaluation": round(time.monotonic() - began, 2),
        "parameters": sum(p.numel() for p in system.model.parameters()),
        "stages": accounts,
        "metrics": evaluation.metrics,
        "baselines": evaluation.baselines,
        "better": system.better,
        "units": system.units,
        "main": system.headline,
        "labels": system.labels(),
        "notes": notes,
    }
    checkpoint.write_json(folder / "result.json", result)
    _write_pages(type(system), recipe, system.cfg, folder, result)
    return result


def _write_pages(
    cls: type[AnySystem], recipe: str, cfg: Any, folder: Path, result: dict[str, Any]
) -> None:
    """Write the model card and the page of a run that has its result."""
    card = {
        **card_info(folder),
        "paper": asdict(cls.paper),
        "intended": cls.intended,
        "limits": result["notes"],
        "licence": "MIT for the code; for the weights, the terms of the data they learned from",
    }
    write_model_card(folder, card)
    write_run_page(folder, to_json(cls.recipes.get(recipe, cfg)))
