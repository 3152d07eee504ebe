"""Run folders and their users: nothing of others is lost, shared, followed or believed."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import options, walker_npz

import tenfold
from tenfold.core import checkpoint, dist, lock, run_folder
from tenfold.files import read_object, sum_of
from tenfold.runner import train as runs
from tenfold.runner.outputs import made_by, own_folder

pytestmark = pytest.mark.usefixtures("generated_only")
Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def copied(made: Callable[[str], Path], tmp_path: Path) -> Path:
    """A finished run of one's own."""
    return Path(shutil.copytree(made("spgsn"), tmp_path / "copied"))


def content(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def assert_wrong(done: tuple[int, str, str], *words: str) -> None:
    """Exit code 2, nothing but one line on stderr, and these words in it."""
    code, _, err = done
    assert code == 2, err
    assert err.startswith("tenfold: ") and len(err.strip().splitlines()) == 1, err
    for word in words:
        assert word in err, err


def train(folder: Path, *more: str) -> list[str | Path]:
    return ["train", "spgsn", "demo", *options("spgsn"), "--run.folder", folder, *more]


@pytest.fixture
def stranger(tmp_path: Path) -> Path:
    """A folder of someone's model, with the thesis beside it."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "other", "hidden_size": 8}')
    (folder / "thesis.tex").write_text("precious")
    (folder / "report.html").write_text("<p>my own page</p>")
    return folder


# --- whose folder it is --------------------------------------------------------------------------


def test_a_folder_of_others_is_neither_deleted_nor_written(
    stranger: Path, call: Call, tmp_path: Path
) -> None:
    before = content(stranger)
    for words in (train(stranger), train(stranger, "--run.fresh"), ["report", stranger]):
        assert_wrong(call(*words), "not a run folder", "others wrote its config.json", "thesis.tex")
    (stranger / "config.json").write_text('{"system": "x", "recipe": "y", "config": {}}')
    assert_wrong(call(*train(stranger, "--run.fresh")), "not a run folder")
    (stranger / "config.json").write_text(before["config.json"].decode())
    demo = tmp_path / "demo"
    for name in ("spgsn-demo", "spgsn-demo-baseline"):
        shutil.copytree(stranger, demo / name)
        done = call("demo", "--systems", "spgsn", "--out", demo)
        assert_wrong(done, name, "not a run folder")
        assert content(demo / name) == before
        shutil.rmtree(demo / name)
    (demo / "report.html").write_text("mine")
    done = call("demo", "--systems", "spgsn", "--out", demo)
    assert_wrong(done, "report.html was not written by tenfold")
    assert content(stranger) == before and content(demo) == {"report.html": b"mine"}


def test_a_page_of_others_in_a_run_stays(copied: Path, call: Call, tmp_path: Path) -> None:
    page = (copied / "report.html").read_text()
    assert '<meta name="generator" content="tenfold ' in page
    (copied / "report.html").write_text(page.replace("generator", "x"))  # as before the mark
    assert call("report", copied)[0] == 0
    (copied / "report.html").write_text("<p>mine</p>")
    for words in (["report", copied], train(copied, "--run.fresh")):
        assert_wrong(call(*words), "report.html was not written by tenfold")
    both, other = tmp_path / "both.html", Path(shutil.copytree(copied, tmp_path / "other"))
    both.write_text("<p>mine</p>")
    assert_wrong(call("report", copied, other, "--out", both), "both.html was not written")
    assert (copied / "report.html").read_text() == both.read_text() == "<p>mine</p>"


def test_fresh_deletes_what_tenfold_writes_and_nothing_else(
    copied: Path, call: Call, tmp_path: Path
) -> None:
    assert call("predict", copied, walker_npz(tmp_path))[0] == 0
    assert call("export", copied, "--to", "official")[0] == 2
    ours = run_folder.contents(copied)
    assert not ours.foreign and not ours.leftovers
    notes = ("notes.txt", "pictures/mine.png", "predictions/walk.npz/mine.csv", "other/config.json")
    for name in notes:
        before = content(copied)
        (copied / name).parent.mkdir(exist_ok=True)
        (copied / name).write_text("mine")
        done = call(*train(copied, "--run.fresh"))
        assert_wrong(done, f"holds what tenfold did not write: {name}; nothing was deleted")
        assert content(copied) == {**before, name: b"mine"}
        (copied / name).unlink()
    run_folder.clear(copied)
    assert list(content(copied)) == ["config.json"]


def test_the_lock_of_a_killed_prediction_is_no_file_of_the_users(copied: Path) -> None:
    inside = copied / "predictions/walk.npz"
    inside.mkdir(parents=True)
    (inside / run_folder.JOURNAL).write_text('{}\n"walk.bvh"\n')
    (inside / "walk.bvh").write_text("half")
    with lock.locked(inside, "predicting"):
        assert run_folder.contents(copied).foreign == [f"predictions/walk.npz/{lock.NAME}"]
    (inside / lock.NAME).write_text("of one that was killed")
    found = run_folder.contents(copied)
    assert found.leftovers == [f"predictions/walk.npz/{lock.NAME}"] and not found.foreign
    run_folder.clear(copied)
    assert list(content(copied)) == ["config.json"]


def test_fresh_does_not_delete_what_the_run_starts_from(
    copied: Path, call: Call, tmp_path: Path
) -> None:
    before, link = content(copied), tmp_path / "link"
    link.symlink_to(copied)
    for start in (copied, link / "weights.safetensors"):
        done = call(*train(copied, "--run.fresh", "--start", str(start)))
        assert_wrong(done, f"--start {start} lies in {copied}, which --run.fresh would delete")
    assert content(copied) == before


def test_fresh_through_a_link_trains_the_seed_that_is_asked(
    copied: Path, call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "conclude", lambda *_: {})
    link = tmp_path / "link"
    link.symlink_to(copied)
    before = (copied / "weights.safetensors").read_bytes()
    assert call(*train(link, "--run.fresh", "--seed", "7", "--steps", "1"))[0] == 0
    assert link.is_symlink() and (copied / "weights.safetensors").read_bytes() != before
    assert json.loads((copied / "config.json").read_text())["config"]["seed"] == 7
    assert not (copied / "result.json").exists()


def test_a_finished_run_is_shown_by_the_first_process_alone(
    copied: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "mpjpe" in call(*train(copied))[1]

    @contextmanager
    def as_second(*_: object, **__: object) -> Iterator[dist.World]:
        yield dist.World(1, 1, torch.device("cpu"))  # nobody to wait for

    monkeypatch.setattr(dist, "started", as_second)
    assert call(*train(copied)) == (0, "", "")
    (copied / "report.html").unlink()  # killed before its page was written
    assert call(*train(copied)) == (0, "", "")


def test_old_runs_are_known_and_leftovers_are_not_in_the_way(
    copied: Path, call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved = json.loads((copied / "config.json").read_text())
    assert saved.pop("tenfold")
    (copied / "config.json").write_text(json.dumps(saved))
    for file in copied.rglob("*.sha256"):
        file.unlink()
    assert call(*train(copied))[0] == call("report", copied)[0] == call("evaluate", copied)[0] == 0
    monkeypatch.setattr(runs, "conclude", lambda *_: {})
    new = tmp_path / "new"
    new.mkdir()
    (new / "config.json.tmp").write_text('{"syst')  # killed in its first write
    assert call(*train(new, "--steps", "1"))[0] == 0
    assert not (new / "config.json.tmp").exists() and (new / "weights.safetensors").exists()


def test_a_link_to_nothing_is_no_run_folder(call: Call, tmp_path: Path) -> None:
    (tmp_path / "run").symlink_to(tmp_path / "gone")
    done = call(*train(tmp_path / "run"))
    assert_wrong(done, f"run is a link to {tmp_path / 'gone'}, which is not there; make that")


def test_a_finished_run_without_its_page_gets_it(copied: Path, call: Call) -> None:
    (copied / "report.html").unlink()
    (copied / "MODEL_CARD.md").unlink()
    assert call(*train(copied))[0] == 0
    assert "generator" in (copied / "report.html").read_text()
    assert "Intended use" in (copied / "MODEL_CARD.md").read_text()


# --- locks ---------------------------------------------------------------------------------------


def test_the_second_command_says_who_holds_the_folder(
    copied: Path, call: Call, tmp_path: Path
) -> None:
    file, out = walker_npz(tmp_path), tmp_path / "out"
    with lock.locked(copied, "training"), lock.locked(out, "predicting"):
        for words in (train(copied, "--run.fresh"), ["evaluate", copied], ["report", copied]):
            done = call(*words)
            assert_wrong(done, f"another process has been training in {copied} since")
            assert f"(process {os.getpid()} on " in done[2] and "try again" in done[2]
        done = call("predict", copied, file, "--out", out)
        assert_wrong(done, f"another process has been predicting in {out}")
    assert not out.exists() and not (copied / lock.NAME).exists()
    (copied / lock.NAME).write_text("of one that was killed")
    assert call("report", copied)[0] == 0 and not (copied / lock.NAME).exists()
    (copied / lock.NAME).symlink_to(file)
    before = file.read_bytes()
    assert_wrong(call("report", copied), "is a link, which is not followed")
    assert file.read_bytes() == before


def test_where_nothing_is_written_or_nothing_can_be_locked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(number: int) -> Callable[..., int]:
        def act(*_: object, **__: object) -> int:
            raise OSError(number, os.strerror(number))

        return act

    with monkeypatch.context() as patch:
        patch.setattr(lock.os, "open", refused(30))  # a read-only file system
        with lock.locked(tmp_path, "evaluating", writes=False):
            pass
        with pytest.raises(OSError, match="Read-only"), lock.locked(tmp_path, "training"):
            pass
    monkeypatch.setattr(lock.fcntl, "flock", refused(95))
    for _ in range(2):
        with lock.locked(tmp_path, "training"):
            pass
    assert capsys.readouterr().err.count("knows no locks") == 1
    assert not list(tmp_path.glob(".*"))


# --- predictions ---------------------------------------------------------------------------------


def test_different_predictions_never_share_a_folder(
    copied: Path, call: Call, tmp_path: Path
) -> None:
    first, second = walker_npz(tmp_path), tmp_path / "b/walk.npz"
    second.parent.mkdir()
    np.savez(second, positions=np.load(first)["positions"][::-1])
    for _ in range(2):  # the same one again overwrites its own
        code, out, _ = call("predict", copied, first)
        assert code == 0 and {Path(p).parent.name for p in out.split()} == {"walk.npz"}
    before = content(copied / "predictions/walk.npz")
    code, out, _ = call("predict", copied, second)
    assert code == 0 and {Path(p).parent.name for p in out.split()} == {"walk.npz-2"}
    assert content(copied / "predictions/walk.npz") == before
    made, files = run_folder.read_journal(copied / "predictions/walk.npz-2/prediction.jsonl")
    assert made["input"] == str(second) and "walk.predicted.bvh" in files

    here = tmp_path / "mine"
    here.mkdir()
    (here / "notes.txt").write_text("mine")
    assert call("predict", copied, first, "--out", here)[0] == 0
    assert_wrong(call("predict", copied, second, "--out", here), "another prediction", "input")
    (tmp_path / "own").mkdir()
    own = tmp_path / "own/walk.predicted.npz"
    own.write_text("mine")
    done = call("predict", copied, first, "--out", own.parent)
    assert_wrong(done, "walk.predicted.npz is there already", "--out")
    assert own.read_text() == (here / "notes.txt").read_text() == "mine"


def test_links_in_a_received_run_are_not_followed(copied: Path, call: Call, tmp_path: Path) -> None:
    file, mine = walker_npz(tmp_path), tmp_path / "mine"
    mine.mkdir()
    (mine / "secret.txt").write_text("mine")
    (mine / "picture.png").write_bytes(b"\x89PNG mine")
    before, folder = content(mine), copied / "predictions/walk.npz"
    folder.mkdir(parents=True)
    (folder / "predictions.csv.tmp").symlink_to(mine / "secret.txt")
    assert call("predict", copied, file)[0] == 0
    assert call("predict", copied, file, "--out", folder)[0] == 0
    shutil.rmtree(copied / "predictions")
    (copied / "predictions").symlink_to(mine)
    assert_wrong(call("predict", copied, file), "predictions is a link to")
    (copied / "predictions").unlink()

    (copied / "report.html.tmp").symlink_to(mine / "secret.txt")
    (copied / "pictures/stolen.png").symlink_to(mine / "picture.png")
    assert call("report", copied)[0] == 0
    page = (copied / "report.html").read_text()
    assert "pictures/stolen.png is a link, which is not followed" in page
    (copied / "environment.json").unlink()
    (copied / "environment.json").symlink_to(mine / "secret.txt")
    assert_wrong(call("report", copied), "environment.json is a link")
    (copied / "result.json").unlink()
    shutil.rmtree(copied / "pictures")
    (copied / "pictures").symlink_to(mine)
    assert_wrong(call(*train(copied)), "pictures is a link to", "not followed")
    assert_wrong(call(*train(copied, "--run.fresh")), "pictures is a link to")
    assert content(mine) == before


# --- damage --------------------------------------------------------------------------------------


def flipped(file: Path) -> None:
    """One bit of a file, in its last third."""
    content = bytearray(file.read_bytes())
    content[-len(content) // 3] ^= 4
    file.write_bytes(content)


def test_one_bit_of_weights_or_states_is_noticed(
    copied: Path, call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = copied / "checkpoints/train"
    whole = content(copied)
    flipped(copied / "weights.safetensors")
    for words in (["evaluate", copied], ["predict", copied, walker_npz(tmp_path)]):
        assert_wrong(call(*words), "weights.safetensors is damaged", "result.json", "train")
    monkeypatch.setattr(runs, "conclude", lambda *_: {})
    (copied / "weights.safetensors").unlink()
    (copied / "result.json").unlink()
    assert call(*train(copied))[0] == 0  # the way out
    assert (copied / "weights.safetensors").read_bytes() == whole["weights.safetensors"]
    for name in ("final.safetensors", "final.pt"):
        flipped(stage / name)
        assert_wrong(call(*train(copied)), f"{name} is damaged", f"delete {stage} to")
        (stage / name).write_bytes(whole[f"checkpoints/train/{name}"])
    state = tmp_path / "state.pt"
    checkpoint.write_state(state, {"step": 2, "a": torch.arange(100)})
    flipped(state)
    with pytest.raises(ValueError, match=r"state\.pt is damaged .*SHA-256.*older checkpoint"):
        checkpoint.read_state(state)
    sum_of(state).unlink()  # of before there were sums
    assert checkpoint.read_state(state)["step"] == 2
    assert tenfold.load(copied).model


def test_json_and_states_of_another_shape_are_one_line(copied: Path, call: Call) -> None:
    texts = {name: (copied / name).read_text() for name in ("config.json", "result.json")}
    wrong = {
        "config.json": {"[]": "must be an object", "[" * 100_000: "nested too deeply"},
        "result.json": {"{}": "lacks system", "3": "got 3", '{"metrics": [1]}': "metrics must be"},
    }
    for name, cases in wrong.items():
        for text, says in cases.items():
            (copied / name).write_text(text)
            assert_wrong(call(*train(copied)), name, says)
            if text != "{}":
                assert_wrong(call("report", copied), name, says)
        (copied / name).write_text(texts[name])
    lines = ('{"stage":"x","step":"a"}\n{"stage":"x","step":1}\n', '{"stage": "a"}\n[1]\nnull\n')
    for text in lines:
        (copied / "metrics.jsonl").write_text(text)
        assert_wrong(call("report", copied), "metrics.jsonl line ")
    (copied / "metrics.jsonl").write_text("")
    (copied / "pictures/captions.json").write_text('{"a.png": 3}')
    assert_wrong(call("report", copied), "captions.json", "a.png must be a text, got 3")
    (copied / "result.json").unlink()
    stage = copied / "checkpoints/train"
    (stage / "done.json").write_text("{}")
    assert_wrong(call(*train(copied)), "done.json", "lacks name")
    (stage / "done.json").unlink()
    (kept,) = stage.glob("step-*")
    (kept / "state.pt.sha256").unlink()
    torch.save({"step": 2}, kept / "state.pt")
    assert_wrong(call(*train(copied)), "state.pt", "'seconds'", "older checkpoint")


def test_shapes_name_the_field(tmp_path: Path) -> None:
    file = tmp_path / "x.json"
    shape = {"a": [{"b": int}], "c": {"*": (int, float)}, "d": (dict, None)}
    file.write_text(
        r'{"a": [{"b": 1}, {"b": 2, "other": "\ud83d\ude00"}], "c": {"x": 1.5}, "d": null}'
    )
    assert read_object(file, shape, ("a",))["c"] == {"x": 1.5}
    wrong = {
        '{"a": [{"b": 1}, {"b": true}]}': r"a\[1\]\.b must be a whole number, got True",
        '{"c": {"x": "1"}}': r"c\.x must be a number, got '1'",
        '{"d": 1}': "d must be an object or null, got 1",
        "{}": "it lacks a",
        '"x': "not readable JSON",
        r'{"\ud800": 1}': "half of a character",
    }
    for text, says in wrong.items():
        file.write_text(text)
        with pytest.raises(ValueError, match=rf"x\.json.*{says}"):
            read_object(file, shape, ("a",))


def test_what_makes_a_prediction_is_its_weights_input_and_options(
    copied: Path, tmp_path: Path
) -> None:
    made = made_by(copied, tmp_path / "x", None)
    assert made == made_by(copied / "weights.safetensors", tmp_path / "x", None)
    assert made != made_by(copied, tmp_path / "y", None)


def test_names_that_are_no_utf_8(call: Call, tmp_path: Path) -> None:
    """A prediction is known again; a run that nobody could open is not begun."""
    odd = tmp_path / os.fsdecode(b"caf\xe9")
    odd.mkdir()
    home = tmp_path / "home"
    checkpoint.write_text(home / "weights.safetensors", "weights")
    made = made_by(home, odd, None)
    folder = own_folder(home, odd, made)
    folder.mkdir(parents=True)
    (folder / run_folder.JOURNAL).write_text(json.dumps(made) + "\n")
    assert own_folder(home, odd, made) == folder
    other = tmp_path / os.fsdecode(b"caf\xe8")
    assert made_by(home, other, None) != made
    run = tmp_path / "run"
    done = call(*train(run, "--start", str(odd)))
    assert_wrong(done, "--start", "is no UTF-8 text", "give a link to it")
    assert not run.exists()
