"""What a run is: a folder that a configuration fills with weights, metrics and a page."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any

import torch

from .core import checkpoint, dist, log, loop
from .core.config import differences, from_json, to_json, with_defaults
from .core.seed import seed_everything
from .core.system import Claim, System
from .core.versions import Versions
from .report.card import card_info, write_model_card
from .report.claim import write_claim
from .report.html import write_run_page
from .systems import SYSTEMS

AnySystem = System[Any]


def construct(cls: type[AnySystem], cfg: Any) -> AnySystem:
    """Build a system from its configuration, with weights that follow from the seed alone."""
    seed_everything(cfg.seed, "weights")
    return cls(cfg)


def save_weights(path: Path, name: str, system: AnySystem) -> None:
    """Write a system's weights with all that is needed to open them: name and configuration."""
    from . import __version__

    header = {"system": name, "config": to_json(system.cfg), "version": __version__}
    # one entry: safetensors writes several in random order, and equal runs make equal files
    checkpoint.write_tensors(path, system.model.state_dict(), {"tenfold": json.dumps(header)})


def save_converted(folder: Path, name: str, system: AnySystem, account: str) -> Path:
    """Write weights that came from an official checkpoint, with the account and a model card."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder} exists and is not empty; choose another --out")
    save_weights(folder / "weights.safetensors", name, system)
    checkpoint.write_text(folder / "conversion.txt", account + "\n")
    card = {
        "system": name,
        "recipe": "converted from an official checkpoint",
        "paper": asdict(system.paper),
        "parameters": sum(p.numel() for p in system.model.parameters()),
        "intended": system.intended,
        "licence": system.paper.weights_licence,
        "notes": ["conversion.txt lists what became of every key"],
    }
    write_model_card(folder, card)
    return folder


def weights_of(path: Path) -> Path:
    """The weights file of a run folder, or the file itself."""
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist; give a run folder or a .safetensors file")
    file = path / "weights.safetensors" if path.is_dir() else path
    if not file.exists():
        raise FileNotFoundError(
            f"{path} holds no weights.safetensors: the run is unfinished; "
            "give its `tenfold train` command again, it continues"
        )
    return file


def system_of(path: Path) -> str:
    """The name of the system that a run, a weights file or an official file belongs to."""
    return official_of(path) or checkpoint.read_header(weights_of(path))[0]


def official_of(path: Path) -> str:
    """The system that predicts with the file (or a folder of such files) as it is, or nothing."""
    if not path.exists() or (path / "weights.safetensors").exists():
        return ""
    files = path.iterdir() if path.is_dir() else [path]
    endings = {file.suffix for file in files}
    return next((n for n, entry in SYSTEMS.items() if entry.opens and entry.opens in endings), "")


def load(cls: type[AnySystem], path: Path) -> AnySystem:
    """A system ready for `predict`, from a run folder, a weights file or an official file."""
    if official_of(path):
        return cls.open(path)
    file = weights_of(path)
    _, values = checkpoint.read_header(file)
    system = construct(cls, from_json(type(next(iter(cls.recipes.values()))), values))
    try:
        system.model.load_state_dict(checkpoint.read_tensors(file))
    except RuntimeError as error:  # torch lists every key on a line of its own
        raise ValueError(f"{file} does not fit its own configuration: {error}") from error
    system.model.eval()
    tensors, version = Versions(file.parent).read()  # of what was learned after the training
    if version is not None:
        system.restore_learned(tensors, version.classes)
    return system


def _refuse_other_runs(
    folder: Path, identity: dict[str, Any], cfg: Any, fresh: bool, free: tuple[str, ...]
) -> None:
    """Raise unless the folder is new, holds this very run, or holds a run to be made fresh.

    Fields that are `free` may differ.
    """
    file = folder / "config.json"
    if not file.exists() and folder.exists() and any(folder.iterdir()):
        raise ValueError(
            f"{folder} is not a run folder (no config.json) and not empty; nothing in it was "
            "touched. Give an empty or new --run.folder."
        )
    changed = []
    if file.exists():
        saved = checkpoint.read_json(file)
        if isinstance(saved, dict):
            saved |= {"config": with_defaults(saved.get("config", {}), cfg)}
        changed = differences(saved, identity)
    changed = [d for d in changed if not d.startswith(tuple(f"config.{f}" for f in free))]
    if changed and not fresh:
        raise ValueError(
            f"{folder} holds a run with another configuration:\n  "
            + "\n  ".join(changed)
            + "\nUse another --run.folder, or --run.fresh to start over."
        )


def _time_limit(cfg: Any) -> float:
    """Seconds that processes may wait for each other; systems that communicate have a field."""
    return float(getattr(getattr(cfg, "layout", None), "timeout", 600.0))


def _code() -> dict[str, str]:
    """What must be equal on all hosts of a job besides the configuration."""
    from . import __version__

    package = Path(__file__).parent
    digest = hashlib.blake2b(digest_size=8)
    for file in sorted(package.rglob("*.py")):
        digest.update(f"{file.relative_to(package)}\n".encode() + file.read_bytes())
    versions = {"tenfold's version": __version__, "torch's version": str(torch.__version__)}
    return {**versions, "digest of tenfold's source files": digest.hexdigest()}


def train(
    name: str, cls: type[AnySystem], recipe: str, cfg: Any, folder: Path, fresh: bool = False
) -> dict[str, Any]:
    """Train into a run folder (or continue there), evaluate, and write its page.

    Returns the result as in `result.json`. What is wrong with the configuration or the data is
    raised before anything is written or deleted.
    """
    with dist.started(cfg.loop.device, limit=_time_limit(cfg)) as world:
        cfg = cls.complete(cfg)
        identity = {"system": name, "recipe": recipe, "config": to_json(cfg)}
        world.require_same({**identity, "fresh": fresh, "folder": str(folder), **_code()})
        _refuse_other_runs(folder, identity, cfg, fresh, cls.free)
        done = folder / "result.json"
        if done.exists() and not fresh:
            return checkpoint.read_json(done)
        system = construct(cls, cfg)
        fits = system.fits()
        first = list(islice(fits, 1))  # reads the data; there may be nothing to train
        world.barrier(patient=True)
        if world.is_first:
            if fresh:
                shutil.rmtree(folder, ignore_errors=True)
            checkpoint.write_json(folder / "config.json", identity)
            checkpoint.write_json(folder / "environment.json", log.environment(world))
        world.barrier()
        accounts = loop.train(chain(first, fits), cfg.loop, world, folder, cfg.seed)
        result: dict[str, Any] = {}
        if world.is_first:
            system.model.to(world.device)
            save_weights(folder / "weights.safetensors", name, system)
            result = conclude(name, recipe, system, folder, accounts)
        world.barrier(patient=True)
        return result


def conclude(
    name: str, recipe: str, system: AnySystem, folder: Path, accounts: list[dict[str, Any]]
) -> dict[str, Any]:
    """Evaluate on the test split; write result, pictures, model card and page."""
    system.model.eval()
    began = time.monotonic()
    metrics = system.evaluate("test")
    baselines = system.baselines("test")
    pictures = folder / "pictures"
    pictures.mkdir(parents=True, exist_ok=True)
    captions = {p.name: text for p, text in system.pictures(pictures).items()}
    checkpoint.write_json(pictures / "captions.json", captions)
    data = asdict(system.data_used())
    result = {
        "system": name,
        "recipe": recipe,
        "data": data,
        "seed": system.cfg.seed,
        "seconds": round(sum(a["seconds"] for a in accounts), 2),
        "seconds_evaluation": round(time.monotonic() - began, 2),
        "parameters": sum(p.numel() for p in system.model.parameters()),
        "stages": accounts,
        "metrics": metrics,
        "baselines": baselines,
        "better": system.better,
        "units": system.units,
        "main": system.headline,
        "labels": system.labels(),
        "notes": system.notes(),
    }
    checkpoint.write_json(folder / "result.json", result)
    card = {
        **card_info(folder),
        "paper": asdict(system.paper),
        "intended": system.intended,
        "limits": system.notes(),
        "licence": "MIT for the code; for the weights, the terms of the data they learned from",
    }
    write_model_card(folder, card)
    write_run_page(folder, to_json(type(system).recipes.get(recipe, system.cfg)))
    return result


@dataclass(frozen=True)
class DryRun:
    """What `--dry-run` found."""

    parameters: int
    batch: list[str]
    losses: dict[str, float]
    stages: list[str]


def dry_run(cls: type[AnySystem], cfg: Any) -> DryRun:
    """Build everything and run one step of the first stage, writing nothing."""
    cfg = cls.complete(cfg)
    with dist.started(cfg.loop.device) as world:
        system = construct(cls, cfg)
        fit = next(iter(system.fits()), None)
        if fit is None:
            raise ValueError("nothing is trained under this configuration, so there is no step")
        batch = fit.batches(0)
        fit.model.to(world.device).train()
        moved = loop.to_device(batch, world.device)
        step = [moved] if fit.parallel else moved
        losses = fit.drive(fit.model, step, lambda loss: loss.backward())
    return DryRun(
        sum(p.numel() for p in fit.model.parameters()),
        list(_shapes(batch)),
        {k: float(v.detach()) for k, v in losses.items()},
        [f"{fit.name}: {fit.steps} steps"],
    )


def _shapes(value: Any, where: str = "batch") -> Iterable[str]:
    if isinstance(value, torch.Tensor):
        yield f"{where}: {str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}"
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _shapes(item, f"{where}.{key}")
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            yield from _shapes(item, f"{where}[{index}]")
    else:
        yield f"{where}: {value!r}"


def claim(
    name: str, cls: type[AnySystem], runs: Path, out: Path, loop_changes: dict[str, Any]
) -> dict[str, Any]:
    """Train every arm of a system's claims with every seed (or take finished runs), and judge.

    Writes `<out>/<name>.json` and `.md`; returns what is in the JSON.
    """
    system = construct(cls, cls.complete(cls.recipes["small"]))
    claims: list[Claim[Any]] = system.claims()
    named = {arm.name: arm for c in claims for arm in (c.baseline, *c.also, c.method)}
    arms = {arm.name: arm.config for arm in named.values() if not arm.row}
    rows = {arm: [a for a in named.values() if a.row and a.config == arms[arm]] for arm in arms}
    seeds = sorted({s for c in claims for s in c.seeds})
    methods: dict[str, Any] = {}
    steps: dict[str, int] = {}
    notes: list[str] = []
    last: dict[str, Any] = {}
    jobs = [(s, a) for s in seeds for a in arms]

    def note_result(method: str, seed: int, metrics: dict[str, float], seconds: float) -> None:
        entry = methods.setdefault(
            method, {"seeds": [], "metrics": [], "seconds": [], "parameters": 0}
        )
        entry["seeds"].append(seed)
        entry["metrics"].append(metrics)
        entry["seconds"].append(seconds)
        entry["parameters"] = last["parameters"]

    for number, (seed, arm) in enumerate(jobs, 1):
        cfg = replace(arms[arm], seed=seed, loop=replace(arms[arm].loop, **loop_changes))
        print(f"[{number}/{len(jobs)}] {arm}, seed {seed}", file=sys.stderr, flush=True)
        folder = runs / f"{arm.replace(' ', '-')}-seed{seed}"
        last = train(name, cls, "claim", cfg, folder)
        steps[arm] = sum(stage["steps"] for stage in last["stages"])
        notes = [n for n in last["notes"] if number == 1 or n in notes]  # true of all runs
        note_result(arm, seed, last["metrics"], last["seconds"])
        for other in rows[arm]:
            note_result(other.name, seed, last["baselines"][other.row], last["seconds"])
    shown = {arm.row for arm in named.values()}
    for reference, metrics in last["baselines"].items():
        if reference in shown:
            continue
        methods[reference] = {"seeds": [0], "metrics": [metrics], "seconds": [0.0], "parameters": 0}
    results = {
        "claims": [
            {
                "says": c.says,
                "metric": c.metric,
                "better": c.better,
                "paper": None if c.paper is None else asdict(c.paper),
                "baseline": c.baseline.name,
                "method": c.method.name,
            }
            for c in claims
        ],
        "methods": methods,
        # of the runs, which may be older than this table
        "environment": checkpoint.read_json(folder / "environment.json"),
        "data": last["data"],
        "better": cls.better,
        "units": cls.units,
        "labels": last["labels"],
        "budget": _budget(steps),
        "notes": [*notes, *dict.fromkeys(c.setting for c in claims if c.setting)],
    }
    write_claim(name, results, out)
    return results


def _budget(steps: dict[str, int]) -> str:
    """The steps of every arm, in a word where they are equal."""
    counts = set(steps.values())
    if len(counts) == 1:
        return f"{counts.pop()} steps each, same batches and seeds"
    each = ", ".join(f"{arm}: {count}" for arm, count in steps.items())
    return f"steps of each ({each}), same batch size and seeds"
