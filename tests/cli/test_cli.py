"""The command line: help, one-line errors, exit codes, and every verb on a tiny run."""

from __future__ import annotations

import importlib.util
import json
import os
import pickle
import shutil
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from golden.harness import cases
from safetensors.torch import load_file, save_file
from tiny import config, options, walker_npz

import tenfold
from tenfold import cli, systems
from tenfold.core.claim import Claim, Variant
from tenfold.core.stage import Stage
from tenfold.runner import demo
from tenfold.runner import train as run
from tenfold.runner.weights import construct
from tenfold.systems.spgsn import Spgsn
from tenfold.systems.spgsn.official import key_map

pytestmark = pytest.mark.usefixtures("generated_only")
Made = Callable[[str], Path]
Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def spgsn(made: Made) -> Path:
    """A finished run that must not be changed."""
    return made("spgsn")


@pytest.fixture
def copied(spgsn: Path, tmp_path: Path) -> Path:
    """A finished run of one's own."""
    return Path(shutil.copytree(spgsn, tmp_path / "copied"))


def content(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def assert_wrong(done: tuple[int, str, str], *words: str, lines: int = 1) -> None:
    """Exit code 2, nothing but one line on stderr, and these words in it."""
    code, _, err = done
    assert code == 2, err
    assert err.startswith("tenfold: ") and "Traceback" not in err
    assert not lines or len(err.strip().splitlines()) == lines, err
    for word in words:
        assert word in err


def train(folder: Path, *more: str | Path) -> list[str | Path]:
    return ["train", "spgsn", "demo", *options("spgsn"), "--run.folder", folder, *more]


# --- help --------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", [[], *([v] for v in cli.VERBS)], ids=lambda v: "".join(v) or "-")
def test_help_of_every_verb(verb: list[str], call: Call) -> None:
    code, out, err = call(*verb, "--help")
    assert (code, err) == (0, "")
    assert f"usage: {' '.join(['tenfold', *verb])}" in out


def test_help_after_other_words_shows_all_of_the_command(call: Call, tmp_path: Path) -> None:
    assert "usage: tenfold serve [-h] [OPTIONS] SYSTEM RUN\n" in call("serve", "apis", "-h")[1]
    assert "SYSTEM CKPT [--out" in call("convert", "apis", tmp_path, "--help")[1]


def test_help_of_export_names_the_systems(call: Call) -> None:
    said = " ".join(call("export", "--help")[1].replace("│", "").split())
    assert f"such ({systems.able('export official files')})" in said
    assert said.count(f"({systems.able('export a part')}") == 2


@pytest.mark.parametrize("action", ["info", "check", "prepare", "get"])
def test_help_of_data_actions(action: str, call: Call) -> None:
    code, out, _ = call("data", action, "--help")
    assert code == 0 and f"usage: tenfold data {action}" in out


def test_the_first_help_names_every_verb_and_exit_code(call: Call) -> None:
    code, out, _ = call()
    assert code == 0 and all(f"  {verb} " in out for verb in cli.VERBS)
    assert "Exit codes" in out
    assert call("--version")[1].strip() == tenfold.__version__


# --- unknown words -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "near"),
    [
        (["trian"], "'train'"),
        (["info", "spgn"], "'spgsn'"),
        (["train", "spgn", "demo"], "'spgsn'"),
        (["train", "spgsn"], "demo"),
        (["train", "spgsn", "smal"], "'small'"),
        (["train", "spgsn", "demo", "--model.widht", "8"], "'--model.width'"),
        (["train", "spgsn", "demo", "--optim.learning-rate=3"], "--optim."),
        (["evaluate", "somewhere", "--spilt", "test"], "'--split'"),
        (["claim", "spgns"], "'spgsn'"),
        (["convert", "spgns", __file__], "'spgsn'"),
        (["demo", "--systems", "spgns"], "'spgsn'"),
        (["data", "chekc"], "'check'"),
        (["data", "info", "cmu_mocop"], "'cmu_mocap'"),
        (["data", "check", "camvit"], "'camvid'"),
        (["data", "get", "tiny_imagenet_2", "out"], "tiny_imagenet_2"),
        (["data", "prepare", "cmu_mocop", "a", "b"], "'cmu_mocap'"),
    ],
    ids=lambda v: "_".join(v)[:40] if isinstance(v, list) else "",
)
def test_an_unknown_word_is_one_line_with_the_nearest(
    words: list[str], near: str, call: Call
) -> None:
    assert_wrong(call(*words), near)


def test_values_that_cannot_be(call: Call, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    for option, value in (("model.dropout", "1.5"), ("loop.accumulate", "0")):
        code, _, err = call(*train(folder, f"--{option}", value))
        assert code == 2 and option in err and value in err and "Traceback" not in err
    assert_wrong(call(*train(folder, "--data.path", tmp_path / "no")), "does not exist")
    code, _, err = call(*train(folder, "--steps", "many"))
    assert code == 2 and "steps" in err and "Traceback" not in err
    code, _, err = call(*train(folder, "--model.kind", "lstm"))
    assert code == 2 and "gcn" in err
    assert not folder.exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there(call: Call, tmp_path: Path) -> None:
    words = train(tmp_path / "run", "--loop.device", "cuda")
    assert_wrong(call(*words), "loop.device", "no GPU")


def test_a_mistyped_data_folder(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TENFOLD_DATA", str(tmp_path / "mistyped"))
    assert_wrong(call("train", "spgsn", "demo", "--dry-run"), "TENFOLD_DATA", "mistyped")
    assert_wrong(call("list"), "TENFOLD_DATA")


@pytest.mark.parametrize("verb", ["evaluate", "export", "report"])
def test_a_run_that_is_not_there(verb: str, call: Call, tmp_path: Path) -> None:
    assert_wrong(call(verb, tmp_path / "nowhere"), "nowhere")


# --- looking -----------------------------------------------------------------------------------


def test_list_and_info(call: Call) -> None:
    code, out, _ = call("list")
    assert code == 0 and all(name in out for name in systems.SYSTEMS) and "generated" in out
    code, out, _ = call("info", "spgsn")
    assert code == 0
    for word in (
        "2208.00368",
        "recipe paper",
        "recipe demo",
        "claim:",
        "cite:",
        "official weights",
        "MIT",
    ):
        assert word in out


def test_doctor(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, _ = call("doctor")
    assert code in (0, 1)
    for word in ("Python", "torch", "GPU", "extra export", "TENFOLD_DATA", "this folder"):
        assert word in out
    monkeypatch.setenv("TENFOLD_DATA", str(tmp_path / "mistyped"))
    code, out, err = call("doctor")
    assert code == 1 and "mistyped" in out + err


def test_data_verbs(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code, out, _ = call("data")
    assert code == 0 and "cmu_mocap" in out and "not found" in out
    code, out, _ = call("data", "info", "cmu_mocap")
    assert code == 0 and "TENFOLD_DATA" in out or "cmu_mocap" in out
    assert_wrong(call("data", "check"), "TENFOLD_DATA")
    broken = tmp_path / "no-data/cmu_mocap"
    broken.mkdir()
    (broken / "benchmark.npz").write_bytes(b"PK\x03\x04 cut")
    code, out, _ = call("data", "check", "cmu_mocap")
    assert code == 1 and "BAD" in out and "benchmark.npz" in out
    assert_wrong(call("data", "prepare", "cmu_mocap", tmp_path / "no", tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_dry_run_writes_nothing(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    code, out, _ = call(*train(Path("run"), "--dry-run"))
    assert code == 0 and not list(here.iterdir())
    for word in ("model.width", "parameters", "batch.coeffs", "one step: loss", "6 steps"):
        assert word in out


# --- run folders -------------------------------------------------------------------------------


def test_a_finished_run_returns_at_once(
    spgsn: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = content(spgsn)
    monkeypatch.setattr(run, "construct", lambda *_: pytest.fail("it trains again"))
    code, out, _ = call(*train(spgsn))
    assert code == 0 and "report.html" in out and "repeat last pose" in out
    assert content(spgsn) == before


def test_another_configuration_is_refused(copied: Path, call: Call) -> None:
    before = content(copied)
    done = call(*train(copied, "--model.dropout", "0.3", "--seed", "4"))
    assert_wrong(done, "config.model.dropout: 0.1 -> 0.3", "seed: 0 -> 4", "--run.fresh", lines=0)
    assert content(copied) == before


def test_fresh_starts_over_but_deletes_no_other_folder(
    copied: Path, call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "conclude", lambda *_: {})
    (copied / "mark").touch()
    done = call(*train(copied, "--run.fresh", "--steps", "1"))
    assert_wrong(done, "copied holds what tenfold did not write: mark; nothing was deleted")
    assert (copied / "result.json").exists()
    (copied / "mark").unlink()
    assert call(*train(copied, "--run.fresh", "--steps", "1"))[0] == 0
    assert not (copied / "result.json").exists() and (copied / "weights.safetensors").exists()
    letters = tmp_path / "letters"
    letters.mkdir()
    (letters / "novel.txt").write_text("once")
    assert_wrong(call(*train(letters, "--run.fresh")), "not a run folder")
    assert_wrong(call(*train(letters)), "not empty")
    assert content(letters) == {"novel.txt": b"once"}


def test_bad_data_is_an_error_before_anything_is_written(call: Call, tmp_path: Path) -> None:
    folder = tmp_path / "data/train/walking"
    folder.mkdir(parents=True)
    (folder / "walking_1.txt").write_text("1,2,3\n")
    words = ["--data.name", "cmu_mocap", "--data.path", str(tmp_path / "data")]
    done = call("train", "spgsn", "demo", "--run.folder", tmp_path / "run", *words)
    assert_wrong(done, "walking_1.txt line 1 has 3 values", "117")
    assert not (tmp_path / "run").exists()


def test_a_damaged_config_is_named(copied: Path, call: Call) -> None:
    (copied / "config.json").write_text('{"system": ')
    assert_wrong(call(*train(copied)), "config.json", "JSON")


def test_an_unfinished_run(copied: Path, call: Call, tmp_path: Path) -> None:
    (copied / "weights.safetensors").unlink()
    for words in (["evaluate", copied], ["export", copied], ["predict", copied, __file__]):
        assert_wrong(call(*words), "unfinished", "train")
        other = [tmp_path if word == copied else word for word in words]
        assert_wrong(call(*other), "is no run folder")
    with pytest.raises(FileNotFoundError, match="unfinished"):
        tenfold.load(copied)


# --- weights files -----------------------------------------------------------------------------


def test_a_cut_weights_file(copied: Path, call: Call) -> None:
    file = copied / "weights.safetensors"
    whole = file.read_bytes()
    for damaged in (whole[: len(whole) // 2], b"", b"\xff" * 200):
        file.write_bytes(damaged)
        assert_wrong(call("evaluate", copied), "weights.safetensors")


def test_weights_that_are_not_ours(copied: Path, call: Call, spgsn: Path) -> None:
    file = copied / "weights.safetensors"
    (copied / "weights.safetensors.sha256").unlink()
    tensors = load_file(spgsn / "weights.safetensors")
    good = {"system": "spgsn", "config": spgsn_config(spgsn), "version": "0"}

    def header(**changes: Any) -> dict[str, str]:
        return {"tenfold": json.dumps({**good, **changes})}

    save_file(tensors, file)
    assert_wrong(call("evaluate", copied), "no tenfold header", "convert")
    for damaged in ("{", "[]", "{}"):
        save_file(tensors, file, {"tenfold": damaged})
        assert_wrong(call("evaluate", copied), "weights.safetensors", "header")
    save_file(tensors, file, header(system="spgns"))
    assert_wrong(call("evaluate", copied), "'spgsn'")
    save_file(tensors, file, header(system=["spgsn"]))
    assert_wrong(call("evaluate", copied), "unknown system")
    save_file(tensors, file, header(config={**spgsn_config(spgsn), "new": 1}))
    assert_wrong(call("evaluate", copied), "new", "another version")
    first = next(iter(tensors))
    save_file({k: v for k, v in tensors.items() if k != first}, file, header())
    assert_wrong(call("evaluate", copied), "weights.safetensors", first, lines=0)
    save_file({**tensors, first: torch.zeros(1, 2, 3)}, file, header())
    assert_wrong(call("evaluate", copied), first, lines=0)


def spgsn_config(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "config.json").read_text())["config"]


# --- using a run -------------------------------------------------------------------------------


def test_evaluate(spgsn: Path, call: Call) -> None:
    code, out, _ = call("evaluate", spgsn)
    assert code == 0 and "generated" in out and "repeat last pose" in out
    assert_wrong(call("evaluate", spgsn, "--split", "validation"), "data.holdout")


def test_predict(spgsn: Path, call: Call, tmp_path: Path) -> None:
    file = walker_npz(tmp_path)
    code, out, _ = call("predict", spgsn, file, "--out", tmp_path / "out")
    assert code == 0
    assert sorted(map(Path, out.split())) == sorted((tmp_path / "out").iterdir())
    assert_wrong(call("predict", spgsn, tmp_path / "no.npz"), "no.npz", "does not exist")


def test_predict_by_default_beside_the_weights(copied: Path, call: Call, tmp_path: Path) -> None:
    code, out, _ = call("predict", copied / "weights.safetensors", walker_npz(tmp_path))
    assert code == 0 and (copied / "predictions/walk.npz/walk.predicted.npz").exists()


def test_load_from_python(spgsn: Path, tmp_path: Path) -> None:
    system = tenfold.load(spgsn)
    assert isinstance(system, Spgsn) and not system.model.training
    paths = system.predict(walker_npz(tmp_path), tmp_path / "out")
    assert paths and all(p.exists() for p in paths)
    assert tenfold.load(str(spgsn / "weights.safetensors")).cfg == system.cfg


def test_export(spgsn: Path, call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "out/network.pt2"
    for _ in range(2):  # over our own
        code, out, _ = call("export", spgsn, "--to", "torch", "--out", target)
        assert code == 0 and str(target) in out and target.exists()
    found = importlib.util.find_spec
    monkeypatch.setattr(
        "tenfold.runner.export.find_spec", lambda m: None if m == "onnxscript" else found(m)
    )
    assert_wrong(
        call("export", spgsn, "--out", tmp_path / "x.onnx"), "onnxscript", "tenfold[export]"
    )


@pytest.mark.parametrize("content", [b"mine", b"PK, not an archive", b"\x08\n\x12\x07pytorch"])
def test_an_export_overwrites_nothing_of_others(
    content: bytes, spgsn: Path, call: Call, tmp_path: Path
) -> None:
    for to in ("onnx", "torch"):
        file = tmp_path / f"spgsn.{to}"
        file.write_bytes(content)
        done = call("export", spgsn, "--to", to, "--out", file)
        assert_wrong(done, file.name, "is not overwritten", "--out")
        assert file.read_bytes() == content


def test_an_export_that_differs_is_not_kept(
    spgsn: Path, call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "tenfold.runner.export._listed", lambda y: [y + torch.rand_like(y) * y.abs().max()]
    )
    done = call("export", spgsn, "--to", "torch", "--out", tmp_path / "out/network.pt2")
    assert_wrong(done, "differs from eager", "nothing was written")
    assert not list((tmp_path / "out").iterdir())


def test_report(copied: Path, spgsn: Path, call: Call, tmp_path: Path) -> None:
    (copied / "report.html").unlink()
    code, out, _ = call("report", copied)
    assert code == 0 and Path(out.strip()) == copied / "report.html"
    for page in (copied, spgsn):  # what the training wrote is not lost
        assert "changed from the recipe" in (page / "report.html").read_text()
    both = tmp_path / "both.html"
    assert call("report", copied, spgsn, "--out", both)[0] == 0 and both.exists()
    assert_wrong(call("report"), "run folders")
    alone = call("report", copied, "--out", tmp_path / "one.html")
    assert_wrong(alone, "--out is of a page that compares several", str(copied / "report.html"))


def test_options_of_other_exports_are_refused(spgsn: Path, call: Call) -> None:
    for option, *values in (("--part", "segment"), ("--size", "64", "64")):
        done = call("export", spgsn, "--to", "official", option, *values)
        assert_wrong(done, f"{option} is of --to onnx and torch")


def shrunk(monkeypatch: pytest.MonkeyPatch, name: str, *more: str) -> None:
    """The recipes that `demo` and `claim` train, at tiny scale."""
    words, cls = [*options(name), "--steps", "2", *more], systems.system_class(name)
    tiny = {r: config(name, r, words) for r in ("small", "demo", "demo-baseline")}
    monkeypatch.setattr(cls, "recipes", {**cls.recipes, **tiny})


def test_demo(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two systems, one after the other; finished ones are kept; one that fails."""
    monkeypatch.setattr(demo, "AT_ONCE", 1)  # in this process, where the recipes are small
    chosen = ["spgsn", "ppmoe"]
    for name in chosen:  # in the precision of some systems, which a run keeps as what it was
        shrunk(monkeypatch, name, "--loop.amp", "auto")
    out_folder = tmp_path / "demo"
    code, out, err = call("demo", "--out", out_folder, "--systems", *chosen)
    assert code == 0, err
    assert "spgsn" in out and "generated" in out and str(out_folder / "report.html") in out
    rows = json.loads((out_folder / "demo.json").read_text())
    assert [row["system"] for row in rows] == chosen
    assert (out_folder / "report.html").exists()
    for name in chosen:
        result = json.loads((out_folder / f"{name}-demo" / "result.json").read_text())
        (row,) = (row for row in rows if row["system"] == name)
        assert row["untrained"] == result["baselines"]["untrained"][row["metric"]]
        assert row["trained"] == result["metrics"][row["metric"]]
    before = {p: p.stat().st_mtime_ns for p in out_folder.rglob("*.safetensors")}
    code, out, err = call("demo", "--out", out_folder, "--systems", *chosen)
    assert code == 0, out + err
    assert before == {p: p.stat().st_mtime_ns for p in out_folder.rglob("*.safetensors")}

    def boom(*_: object, **__: object) -> None:
        raise RuntimeError("boom")

    with monkeypatch.context() as failing:  # one that fails leaves what the page showed
        failing.setattr(demo, "train", boom)
        code, out, err = call("demo", "--out", out_folder, "--systems", "ppmoe", "ppmoe")
    assert code == 70 and "boom" in out and "spgsn" not in out
    spgsn, ppmoe = json.loads((out_folder / "demo.json").read_text())
    assert {**spgsn, "seconds": 0} == {**rows[0], "seconds": 0}
    assert "boom" in ppmoe["error"] and ppmoe["trained"] == rows[1]["trained"]
    page = (out_folder / "report.html").read_text()
    assert "tenfold demo: 2 systems" in page and "1 of 2 systems failed" in page
    # nor does one that is done again, be the other's run damaged or its row lost with demo.json
    (out_folder / "demo.json").unlink()
    assert call("demo", "--out", out_folder, "--systems", "spgsn")[0] == 0
    again = json.loads((out_folder / "demo.json").read_text())
    assert [row["system"] for row in again] == chosen and "error" not in again[1]
    (out_folder / "ppmoe-demo/metrics.jsonl").write_text("{\n{}\n")
    assert call("demo", "--out", out_folder, "--systems", "spgsn")[0] == 0
    assert "is not valid JSON" in json.loads((out_folder / "demo.json").read_text())[1]["error"]

    monkeypatch.setattr(Spgsn, "evaluate", boom)
    code, out, err = call("demo", "--out", tmp_path / "failing", "--systems", "spgsn")
    assert code == 70 and "boom" in out


def test_claim(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shrunk(monkeypatch, "spgsn")
    monkeypatch.setattr(Spgsn, "pictures", lambda *_: {})
    monkeypatch.setattr(run, "write_run_page", lambda *_: None)
    small = Spgsn.recipes["small"]
    arms = [
        Variant(k, replace(small, model=replace(small.model, kind=k))) for k in ("gcn", "spgsn")
    ]
    still = Variant("standing still", arms[1].config, "repeat last pose")  # a row of that run
    longer = Variant("longer", replace(small, steps=3), after="spgsn")
    metric, also = "mpjpe/average/400ms", (longer, still)
    one = Claim("It is so.", *arms, metric, "lower", also=also, seeds=(0, 1), columns=(metric,))
    monkeypatch.setattr(Spgsn, "claims", lambda _: [one])
    words = ["claim", "spgsn", "--out", tmp_path / "claims", "--runs", tmp_path / "runs"]
    code, out, err = call(*words, "--device", "cpu", "--threads", "1")
    assert code == 0, err
    assert "It is so." in out
    results = json.loads((tmp_path / "claims/spgsn.json").read_text())
    assert results["methods"]["spgsn"]["seeds"] == [0, 1]
    assert results["methods"]["standing still"]["seeds"] == [0, 1]
    assert "repeat last pose" not in results["methods"]  # once is enough
    runs = tmp_path / "runs/spgsn"
    assert sorted(p.name for p in runs.iterdir()) == [
        "gcn-seed0", "gcn-seed1", "longer-seed0", "longer-seed1", "spgsn-seed0", "spgsn-seed1",
    ]  # fmt: skip
    for seed in (0, 1):
        started = json.loads((runs / f"longer-seed{seed}/config.json").read_text())["config"]
        assert started["start"] == str(runs / f"spgsn-seed{seed}")
    assert "gcn: 2, longer: 3 after the 2 of spgsn, spgsn: 2" in results["budget"]
    page = (tmp_path / "claims/spgsn.md").read_text()
    assert "| longer | spgsn | 3 |" in page
    where = ("--out", tmp_path / "claims", "--pages", tmp_path / "docs")
    code, out, err = call("claim", "--all", "--report", *where)
    assert code == 0 and "evidence.html" in out, err
    shown = (tmp_path / "docs/evidence.md").read_text()
    assert "| It is so. |" in shown and "| [usage](#usage) | not run yet |" in shown
    for words, says in (((), "give --all"), (("spgsn", "--all"), "give --all"),
                        (("spgsn", "--report"), "--report is of all systems")):  # fmt: skip
        code, _, err = call("claim", *words, *where)
        assert code == 2 and says in err


# --- convert -----------------------------------------------------------------------------------


def official(spgsn: Path) -> tuple[Spgsn, dict[str, torch.Tensor]]:
    """A tiny CMU network of ours, and its weights under the keys of the official code.

    Keys and shapes are those of the golden case, its 256 features made 8 and its 9 blocks 1.
    """
    cfg = Spgsn.recipes["paper"]
    cfg = replace(cfg, data=replace(cfg.data, name="walker"))
    cfg = replace(cfg, model=replace(cfg.model, width=8, num_blocks=1))
    system = construct(Spgsn, Spgsn.complete(cfg))
    (case,) = [c for c in cases("spgsn", None) if c.name == "model_cmu_eval"]
    smaller = {256: 8, 75 * 256: 75 * 8, 64: 2}
    template = {
        key: torch.zeros([smaller.get(n, n) for n in shape])
        for key, shape in case.spec["tensors"]
        if not key.startswith("gcbs.") or key.startswith("gcbs.0.")
    }
    state = key_map(system.model.order).reversed_state(system.model.state_dict(), template)
    return system, {"module." + key: value for key, value in state.items()}


def save_official(state: dict[str, torch.Tensor], path: Path) -> Path:
    torch.save({"epoch": 50, "lr": 1e-4, "err": 3.0, "state_dict": state, "optimizer": {}}, path)
    return path


def test_an_official_checkpoint_converts_and_predicts(
    spgsn: Path, call: Call, tmp_path: Path
) -> None:
    system, state = official(spgsn)
    file = save_official(state, tmp_path / "ckpt.pth.tar")
    code, out, err = call("convert", "spgsn", file, "--out", tmp_path / "ours")
    assert code == 0, err
    assert "tensors converted" in out and "ignored" in out
    assert "missing" not in out and "unused" not in out
    ours = tenfold.load(tmp_path / "ours")
    for key, value in system.model.state_dict().items():
        assert torch.equal(ours.model.state_dict()[key], value), key
    code, _, err = call("predict", tmp_path / "ours", walker_npz(tmp_path))
    assert code == 0, err


def test_missing_and_unused_keys_are_listed(spgsn: Path, call: Call, tmp_path: Path) -> None:
    _, state = official(spgsn)
    state["module.gcbs.0.extra"] = torch.zeros(2)
    del state["module.gc7.bias"]
    file, out = save_official(state, tmp_path / "ckpt.pth.tar"), tmp_path / "ours"
    done = call("convert", "spgsn", file, "--out", out)
    assert_wrong(done, "gcbs.0.extra", "readout.bias", lines=0)
    assert not out.exists()
    assert call("convert", "spgsn", file, "--out", out, "--partial")[0] == 0
    assert {p.name for p in out.iterdir()} == {
        "weights.safetensors", "weights.safetensors.sha256", "conversion.txt", "MODEL_CARD.md"
    }  # fmt: skip
    assert_wrong(call("convert", "spgsn", file, "--out", out, "--partial"), "not empty")


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("gc1.weight", torch.zeros(35, 4096), "is of shape (1, 8, 8), expected (1, 4096, 4096)"),
        ("gcbs.5000.x", torch.zeros(1), "it has no gcbs.1.gc1.scat_tree.feat_sc1.weight"),
        (
            "gcbs.0.gc1.scat_tree.f_coef",
            torch.zeros(1).expand(10**12),
            "expected (500000",
        ),
        ("gc7.bias", torch.full((30,), torch.nan), "not finite"),
    ],
)
def test_an_official_checkpoint_asks_for_no_more_than_it_holds(
    spgsn: Path, call: Call, tmp_path: Path, key: str, value: torch.Tensor, says: str
) -> None:
    _, state = official(spgsn)
    file = save_official(state | {f"module.{key}": value}, tmp_path / "ckpt.pth.tar")
    assert_wrong(call("convert", "spgsn", file, "--out", tmp_path / "ours"), "ckpt.pth.tar", says)
    save_official({3: torch.zeros(1)}, file)  # type: ignore[dict-item]
    done = call("convert", "spgsn", file, "--out", tmp_path / "ours")
    assert_wrong(done, "ckpt.pth.tar", "holds no state_dict of tensors")


class Payload:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (Path.touch, (self.path,))


def test_a_checkpoint_with_code_is_refused_and_not_run(
    spgsn: Path, call: Call, tmp_path: Path
) -> None:
    marker, out = tmp_path / "executed", tmp_path / "ours"
    zipped, plain = tmp_path / "zipped.pth.tar", tmp_path / "plain.pth.tar"
    torch.save({"state_dict": Payload(marker)}, zipped)
    plain.write_bytes(pickle.dumps({"state_dict": Payload(marker)}))
    for file in (zipped, plain):
        assert_wrong(call("convert", "spgsn", file, "--out", out), file.name, lines=0)
    assert not marker.exists() and not out.exists()


def test_files_that_are_no_checkpoint(spgsn: Path, call: Call, tmp_path: Path) -> None:
    out = tmp_path / "ours"
    whole = save_official(official(spgsn)[1], tmp_path / "ckpt.pth.tar").read_bytes()
    for number, damaged in enumerate((whole[: len(whole) // 2], whole[:50], b"", b"hello")):
        file = tmp_path / f"damaged-{number}.pth.tar"
        file.write_bytes(damaged)
        assert_wrong(call("convert", "spgsn", file, "--out", out), file.name, lines=0)
    odd: list[Any] = [[1, 2], {"state_dict": {"gc1.weight": torch.zeros(3)}}, torch.zeros(2), {}]
    odd += [{"gc1.weight": 3}, {"state_dict": 5}, {"state_dict": {0: torch.zeros(2)}}]
    # a network of so many features would need terabytes, the file has none of them
    wide = {"gc1.weight": torch.zeros(1).expand(30, 10**6), "gc1.att": torch.zeros(75, 75)}
    odd.append(wide | {"gcbs.0.gc1.scat_tree.f_coef": torch.zeros(2)})
    for number, value in enumerate(odd):
        file = tmp_path / f"odd-{number}.pth.tar"
        torch.save(value, file)
        assert_wrong(call("convert", "spgsn", file, "--out", out), file.name)
    np.savez(tmp_path / "x.npz", x=np.zeros(3))
    assert_wrong(call("convert", "spgsn", tmp_path / "x.npz", "--out", out), "x.npz", lines=0)
    assert_wrong(call("convert", "spgsn", tmp_path / "no.pth"), "does not exist")
    assert not out.exists()


# --- how training ends -------------------------------------------------------------------------


def test_sigterm_writes_a_checkpoint_and_the_same_command_goes_on(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "conclude", lambda *_: {})
    stages = Spgsn.stages

    def stopped(system: Spgsn) -> Iterator[Stage]:
        for stage in stages(system):
            stage.after_step = lambda step: (
                os.kill(os.getpid(), signal.SIGTERM) if step == 1 else None
            )
            yield stage

    with monkeypatch.context() as patch:
        patch.setattr(Spgsn, "stages", stopped)
        code, _, err = call(*train(tmp_path / "run"))
    assert code == 143 and "SIGTERM" in err and "same command continues" in err
    assert list((tmp_path / "run/checkpoints/train").glob("step-*"))
    assert call(*train(tmp_path / "run"))[0] == 0
    assert (tmp_path / "run/weights.safetensors").exists()


def test_a_diverged_training(call: Call, tmp_path: Path) -> None:
    words = [
        "--optim.lr",
        "1e30",
        "--optim.clip",
        "0",
        "--optim.name",
        "sgd",
        "--optim.warmup",
        "0",
    ]
    code, _, err = call(*train(tmp_path / "run", *words))
    assert code == 3 and len(err.strip().splitlines()) == 1
    assert "stage 'train', step" in err and "lower optim.lr" in err
    assert not (tmp_path / "run/weights.safetensors").exists()
