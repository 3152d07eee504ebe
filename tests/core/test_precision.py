"""Mixed precision where the device computes in it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch

from tenfold import systems
from tenfold.core import precision
from tenfold.core.system import Evaluation
from tenfold.runner.train import train

CPU = torch.device("cpu")


def device(monkeypatch: pytest.MonkeyPatch, has_bf16: bool) -> None:
    monkeypatch.setattr(precision, "computes_in_bf16", lambda device: has_bf16)


def test_torch_can_be_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    assert precision.computes_in_bf16(CPU) in (True, False)
    monkeypatch.setattr("platform.machine", lambda: "arm64")
    assert precision.computes_in_bf16(CPU) in (True, False)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert not precision.computes_in_bf16(CPU)


@pytest.mark.parametrize("has_bf16", [True, False])
def test_auto_is_bf16_where_the_device_computes_in_it(
    has_bf16: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    device(monkeypatch, has_bf16)
    assert precision.settled("auto", CPU) == ("bf16" if has_bf16 else "off")
    assert [precision.settled(a, CPU) for a in ("off", "bf16", "fp16")] == ["off", "bf16", "fp16"]
    assert (
        bool(precision.remark("auto", CPU)) is bool(precision.remark("bf16", CPU)) is not has_bf16
    )
    assert not precision.remark("off", CPU) and not precision.remark("fp16", CPU)


def test_a_run_goes_on_in_the_precision_that_it_began_in(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cfg: Any = tiny.config("spgsn", "demo", tiny.options("spgsn"))
    cfg = replace(cfg, steps=2, loop=replace(cfg.loop, amp="auto"))
    run, cls = tmp_path / "run", systems.system_class("spgsn")
    found = {"mpjpe/average/400ms": 1.0}
    monkeypatch.setattr(cls, "evaluate", lambda *_: Evaluation(found, {"nothing": found}))
    monkeypatch.setattr(cls, "pictures", lambda *_: {})
    file = run / "config.json"

    def amp() -> str:
        found: str = json.loads(file.read_text())["config"]["loop"]["amp"]
        return found

    def change(value: str) -> None:
        saved = json.loads(file.read_text())
        saved["config"]["loop"]["amp"] = value
        file.write_text(json.dumps(saved))

    device(monkeypatch, False)
    train("spgsn", cls, "demo", cfg, run)
    assert amp() == "off" and "loop.amp auto: this CPU does not" in capsys.readouterr().err
    device(monkeypatch, True)
    train("spgsn", cls, "demo", replace(cfg, steps=3), run)  # a machine with bf16 goes on
    assert amp() == "off"
    train("spgsn", cls, "demo", cfg, run, fresh=True)
    assert amp() == "bf16"
    device(monkeypatch, False)
    train("spgsn", cls, "demo", cfg, run)  # finished, and of the same configuration
    change("int3")
    with pytest.raises(ValueError, match=r"int3.*auto|auto.*int3"):
        train("spgsn", cls, "demo", cfg, run)
