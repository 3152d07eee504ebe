"""A run killed before any of its file operations: the same command ends with everything."""

from __future__ import annotations

import builtins
import io
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import config, options

from tenfold.core import checkpoint, log
from tenfold.core.system import Evaluation
from tenfold.report import history
from tenfold.runner import train as runs
from tenfold.runner.weights import construct
from tenfold.systems.spgsn import Spgsn

PNG = b"\x89PNG\r\n\x1a\n"


def evaluated(system: Spgsn, split: str = "test") -> Evaluation:
    """A metric that follows from the weights, in no time."""
    total = sum(float(p.detach().double().sum()) for p in system.model.parameters())
    return Evaluation({"mpjpe/average/400ms": total}, {"nothing": {"mpjpe/average/400ms": 0.0}})


def drawn(system: Spgsn, evaluation: Evaluation, out: Path) -> dict[Path, str]:
    checkpoint.write_bytes(out / "curve.png", PNG)
    return {out / "curve.png": "A picture."}


@pytest.fixture
def command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, generated_only: None
) -> Callable[[Path], None]:
    """Train two steps with checkpoints and best weights; everything else is trivial."""
    words = [*options("spgsn"), "--steps", "2", "--data.holdout", "0.01"]
    cfg = config("spgsn", "demo", words)
    cfg = replace(cfg, loop=replace(cfg.loop, save_every=1, validate_every=1, workers=0))
    made = construct(Spgsn, cfg)
    begin = [p.detach().clone() for p in made.model.parameters()]

    def validated(system: Spgsn, module: Any) -> dict[str, float]:
        """Better at every step: how far the weights have come."""
        now = zip(begin, module.network.parameters(), strict=True)
        return {"mpjpe": -sum(float((p - q).abs().sum()) for p, q in now)}

    monkeypatch.setattr(Spgsn, "complete", classmethod(lambda cls, cfg: cfg))
    monkeypatch.setattr("tenfold.systems.spgsn.data.Motions", lambda *_: made.motions)
    monkeypatch.setattr(Spgsn, "_validate", validated)
    monkeypatch.setattr(Spgsn, "evaluate", evaluated)
    monkeypatch.setattr(Spgsn, "draw_pictures", drawn)
    monkeypatch.setattr(Spgsn, "notes", lambda _: ["a note"])
    monkeypatch.setattr(history, "curves", lambda *_, **__: PNG)
    monkeypatch.setattr(log, "_commit", lambda: "")
    monkeypatch.setattr(runs, "_code", dict)
    monkeypatch.setattr(os, "fsync", lambda _: None)
    return lambda folder: runs.train("spgsn", Spgsn, "demo", cfg, folder) and None


def files_of(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if p.is_file())


def outcome(folder: Path) -> dict[str, Any]:
    """Every file of a run; of those with times or places in them, only what may not differ."""
    found: dict[str, Any] = {}
    for path in files_of(folder):
        found[path.relative_to(folder).as_posix()] = path.read_bytes()
    result = json.loads(found["result.json"])
    found["result.json"] = {k: v for k, v in result.items() if "seconds" not in k}
    for stage in found["result.json"].pop("stages"):
        assert stage["steps"] == 2
    varying = ("environment.json", "metrics.jsonl", "report.html", "MODEL_CARD.md")
    times = ("done.json", "state.pt", "state.pt.sha256")
    for name in [*varying, *(n for n in found if n.endswith(times))]:
        assert found[name], name
        found[name] = "there"
    states = [checkpoint.read_state(path) for path in folder.rglob("state.pt")]
    found["states"] = [plain(state | {"seconds": 0}) for state in states]
    return found


def plain(state: Any) -> Any:
    """A state with bytes for tensors: to print them takes longer than the training."""
    if isinstance(state, dict):
        return {key: plain(value) for key, value in state.items()}
    if isinstance(state, list | tuple):
        return [plain(value) for value in state]
    return state.numpy().tobytes() if isinstance(state, torch.Tensor) else state


def test_killed_before_any_file_operation_the_same_command_ends_with_everything(
    command: Callable[[Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What lies on the disk before each operation is copied: it is what a kill would leave."""
    run, copies = tmp_path / "run", []
    names: list[str] = []

    def before(name: str, plain: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            target = str(args[0])
            writes = name != "open" or bool(set("wxa+") & set((*args, "r")[1]))
            if writes and watching and ("run" + os.sep in target or target.endswith("run")):
                watching.clear()
                names.append(f"{name} {Path(target).name}")
                copies.append(tmp_path / f"copy{len(copies)}")
                if run.exists():
                    shutil.copytree(run, copies[-1])
                watching.append(True)
            return plain(*args, **kwargs)

        return wrapped

    watching = [True]
    with monkeypatch.context() as patch:
        for name in ("replace", "rename", "mkdir", "unlink", "rmdir", "remove"):
            patch.setattr(os, name, before(name, getattr(os, name)))
        for module in (io, builtins):
            patch.setattr(module, "open", before("open", module.open))
        command(run)
    whole = outcome(run)
    assert {"result.json", "report.html", "MODEL_CARD.md", "weights.safetensors"} <= whole.keys()
    assert not [name for name in whole if ".tmp" in name or name.startswith(".")]
    assert len(copies) > 80, names
    seen: list[dict[str, bytes]] = [{}]  # else it is the first start
    for copy, name in zip(copies, names, strict=True):
        before_it = {str(p.relative_to(copy)): p.read_bytes() for p in files_of(copy)}
        if before_it not in seen:  # not every operation changes what is there
            seen.append(before_it)
            command(copy)
            assert outcome(copy) == whole, name
    assert len(seen) > 40
