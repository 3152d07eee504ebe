"""benchmarks/gpu.py without a GPU: its logic at the sizes of tests, and what it says."""

from __future__ import annotations

import argparse
import importlib.util
import json
import subprocess
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(BENCHMARKS)
    described = importlib.util.spec_from_file_location("gpu", BENCHMARKS / "gpu.py")
    assert described and described.loader
    module = importlib.util.module_from_spec(described)
    described.loader.exec_module(module)
    environment = dict.fromkeys(("date", "commit", "device", "torch"), "none")
    monkeypatch.setattr(module, "machine", lambda: {"environment": environment})
    return module


def test_without_a_gpu_it_says_so(
    gpu: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu.main([]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and "torch sees no GPU" in err


@pytest.mark.usefixtures("generated_only")
def test_steps_are_made_and_what_fails_is_a_line(
    gpu: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def here(name: str, args: argparse.Namespace, seconds: float) -> list[dict[str, Any]]:
        assert 0 < seconds <= gpu.LONGEST_S
        if name == "pangu":  # whatever goes wrong in a system
            monkeypatch.setattr(gpu, "configured", lambda *_: [][0])
        return gpu.steps_of(name, torch.device(args.device), args.tiny)

    monkeypatch.setattr(gpu, "apart", here)
    words = ["--device", "cpu", "--tiny", "--parts", "steps", "--out", str(tmp_path)]
    assert gpu.main([*words, "--systems", "ppmoe", "spgsn", "pangu"]) == 1
    value = json.loads((tmp_path / "gpu.json").read_text())
    rows = [(r["system"], r["precision"]) for r in value["steps"]]
    assert rows == [(s, p) for s in ("ppmoe", "spgsn", "pangu") for p in ("fp32", "bf16")]
    for row in value["steps"][:4]:
        assert row["flop"] > 0 and 0 < row["share_of_peak"] < 1 and row["loss"] > 0
        assert row["memory_bytes"] is None
    assert {row["error"] for row in value["steps"][4:]} == {"IndexError: list index out of range"}
    page = (tmp_path / "gpu.md").read_text()
    assert "**IndexError: list index out of range**" in page and "Not run: 1 device(s)." in page


REPORT = """<testsuites><testsuite>
<testcase classname="tests.golden.test_pangu" name="test_golden[a]"><properties>
<property name="operations" value="12"/><property name="stayed" value="aten.x aten.y"/>
</properties></testcase>
<testcase name="test_golden[b]"><failure message="no"/></testcase>
<testcase name="test_golden[c]"><skipped/></testcase>
</testsuite></testsuites>"""


def test_golden_cases_are_counted_by_system(
    gpu: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ran(words: list[str], timeout: float, **_: object) -> subprocess.CompletedProcess[str]:
        assert 0 < timeout <= 450 and words[words.index("--device") + 1] == "cpu"
        tests = [Path(word).stem for word in words if word.endswith(".py")]
        if tests == ["test_ldc"]:
            raise subprocess.TimeoutExpired(words, timeout)
        assert tests == ["test_pangu"]
        file = next(w.partition("=")[2] for w in words if w.startswith("--junitxml="))
        Path(file).write_text(REPORT)
        return subprocess.CompletedProcess(words, 1, "", "")

    monkeypatch.setattr(subprocess, "run", ran)
    args = ["--device", "cpu", "--parts", "goldens", "--out", str(tmp_path)]
    assert gpu.main([*args, "--systems", "pangu", "ldc"]) == 1
    pangu, ldc = json.loads((tmp_path / "gpu.json").read_text())["goldens"]
    assert pangu == {
        "system": "pangu", "passed": 1, "skipped": 1, "failed": ["test_golden[b]"],
        "operations": 12, "stayed": ["aten.x", "aten.y"],
    }  # fmt: skip
    assert ldc["error"].startswith("no answer in ")
    page = (tmp_path / "gpu.md").read_text()
    assert page.count("test_golden[b]") == 1 and "**no answer in " in page


def test_layouts_run_where_there_are_two_devices(
    gpu: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ran(words: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        if "--layout.pp" in words:
            raise subprocess.TimeoutExpired(words, options["timeout"])
        bad = "--layout.dispatch" in words
        config = json.loads(Path(words[words.index("layouts") + 1]).read_text())
        assert config["system"] == "ppmoe" and config["config"]["loop"]["device"] == "cpu"
        return subprocess.CompletedProcess(words, int(bad), "", "tenfold: it differs\n" * bad)

    monkeypatch.setattr(subprocess, "run", ran)
    args = ["--device", "cpu", "--tiny", "--parts", "layouts", "--out", str(tmp_path)]
    assert gpu.main(args) == 1
    rows = json.loads((tmp_path / "gpu.json").read_text())["layouts"]
    assert [r["error"] for r in rows] == [
        "", "no answer in 90 s", "", "code 1: tenfold: it differs",
    ]  # fmt: skip
    assert "| tensor parallel | equal to one process |" in (tmp_path / "gpu.md").read_text()
