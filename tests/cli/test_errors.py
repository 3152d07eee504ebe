"""What a user sees of an error: one line, the right exit code, nothing raw, nothing half-done."""

from __future__ import annotations

import errno
import json
import os
import resource
import shutil
import subprocess
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import options, walker_npz

from tenfold import cli, systems
from tenfold.core import checkpoint
from tenfold.core.config import absolute, flatten, get, require_finite, to_json
from tenfold.core.errors import exit_code, message, report_to_torchrun
from tenfold.runner import train as run
from tenfold.viz.page import Page, write_page

pytestmark = pytest.mark.usefixtures("generated_only")
Made = Callable[[str], Path]
Call = Callable[..., tuple[int, str, str]]
SYSTEMS = tuple(systems.SYSTEMS)
HOSTILE = "a\x1b]0;owned\x07\x1b[31m\u202e"


def assert_wrong(done: tuple[int, str, str], *words: str, code: int = 2) -> None:
    """The exit code, one line on stderr and these words in it."""
    assert done[0] == code, done[2]
    assert done[2].startswith("tenfold: ") and done[2].count("\n") == 1, done[2]
    for word in words:
        assert word in done[2], done[2]


def train(system: str, folder: str | Path, *more: str | Path) -> list[str | Path]:
    return ["train", system, "demo", *options(system), "--run.folder", folder, *more]


# --- values ------------------------------------------------------------------------------------


@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize(
    "wrong",
    ["--steps=-5", "--optim.clip=nan", "--optim.lr=inf", "--optim.weight-decay=nan"]
    + ["--optim.betas 0.9 1", "--loop.ema=nan", "--loop.accumulate=0", "--loop.workers=-1"],
)
def test_numbers_that_cannot_work(system: str, wrong: str, call: Call, tmp_path: Path) -> None:
    done = call(*train(system, tmp_path / "run", *wrong.split()))
    assert_wrong(done, wrong.split("=")[0].split()[0], "got ")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("system", SYSTEMS)
def test_no_field_takes_nan(system: str) -> None:
    """Fields whose class has no rule of its own are checked before anything is built."""
    from tenfold.core.config import flatten, to_json, with_field

    cfg = systems.system_class(system).recipes["small"]
    names = [k for k, v in flatten(to_json(cfg)).items() if isinstance(v, float)]
    assert names
    for name in names:
        with pytest.raises(ValueError, match=name.rpartition(".")[2].replace("_", "-")):
            require_finite(with_field(cfg, name, float("nan")))


def test_verbs_of_one_process_are_refused_to_several(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A claim ended in a traceback when all was trained; `learn --undo` went back twice."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    for words in (("claim", "spgsn"), ("learn", tmp_path, "--undo"), ("demo",)):
        code, _, err = call(*words)
        assert code == 2 and err.count("\n") == 1
        assert f"`tenfold {words[0]}` is of one process; start it without torchrun" in err


def test_what_tyro_says_is_one_line(call: Call) -> None:
    for words, says in (
        (["--steps", "many"], "--steps: 'many' is no whole number"),
        (["--model.kind", f"ls{HOSTILE}"], "Expected one of"),
        (["--steps"], "--steps"),
        (["extra"], "extra"),
    ):
        done = call("train", "spgsn", "demo", *words)
        assert_wrong(done, says)
        assert "\x1b" not in done[2]


@pytest.mark.parametrize("system", ["spgsn", "ppmoe"])
def test_a_last_step_that_diverges(system: str, call: Call, tmp_path: Path) -> None:
    done = call(*train(system, tmp_path / "run", "--steps", "1", "--optim.lr", "1e30"))
    assert_wrong(done, "not finite", "optim.lr", code=3)
    assert not (tmp_path / "run/result.json").exists()
    assert not (tmp_path / "run/weights.safetensors").exists()


def test_metrics_that_are_no_numbers(
    made: Made, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tenfold.core.system import Evaluation
    from tenfold.systems.spgsn import Spgsn

    found = Evaluation({"a/b/c": float("nan"), "a/b/d": 1.0}, {"still": {"a/b/c": 2.0}})
    spgsn = made("spgsn")
    monkeypatch.setattr(Spgsn, "evaluate", lambda *_: found)
    assert_wrong(call("evaluate", spgsn), "a/b/c", code=3)
    undefined = Evaluation({"a/b/c": float("nan"), "a/b/d": 1.0}, {"still": {"a/b/c": np.nan}})
    monkeypatch.setattr(Spgsn, "evaluate", lambda *_: undefined)
    assert call("evaluate", spgsn)[0] == 0


# --- the operating system ----------------------------------------------------------------------


@contextmanager
def limited(size: int) -> Iterator[None]:
    """Files may have so many bytes: a full disk, for those who write more."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("size", [3000, 20000])
def test_a_full_disk_while_training(
    size: int, call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "conclude", lambda *_: {})
    with limited(size):
        done = call(*train("spgsn", tmp_path / "run"))
    assert_wrong(done, "File too large", "ulimit")
    assert not list((tmp_path / "run").rglob("*.tmp"))
    assert call(*train("spgsn", tmp_path / "run"))[0] == 0


def test_a_full_disk_elsewhere(made: Made, call: Call, tmp_path: Path) -> None:
    own = Path(shutil.copytree(made("spgsn"), tmp_path / "own"))
    motion = walker_npz(tmp_path)
    for words in (
        ["predict", own, motion, "--out", tmp_path / "out"],
        ["report", own],
        ["export", own, "--to", "torch", "--out", tmp_path / "x.pt2"],
    ):
        with limited(1000):
            assert_wrong(call(*words), "File too large")
    assert not list(tmp_path.glob("unchecked*"))


def test_the_words_of_libraries(tmp_path: Path) -> None:
    """torch, safetensors and HDF5 wrap what the system says."""
    full = os.strerror(errno.ENOSPC)
    for error, says in (
        (OSError(errno.ENOSPC, full, "a.pt"), f"a.pt: {full}; free some space"),
        (OSError(errno.EROFS, os.strerror(errno.EROFS), "a"), "Read-only"),
        (RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 7"), "disk"),
        (RuntimeError("PytorchStreamWriter failed writing file data/0: file write"), "disk"),
        (Exception("Error while serializing: I/O error: x (os error 28)"), full),
        (OSError("Can't write (filename = 'a.nc', errno = 28, error message = 'No')"), full),
    ):
        assert exit_code(error) == 2 and says in message(error), message(error)
    assert exit_code(RuntimeError("a bug")) == 70
    with pytest.raises(OSError, match="Is a directory"), checkpoint.for_torch(tmp_path):
        pass
    with limited(2000), pytest.raises(OSError, match="too large"):  # noqa: SIM117
        with checkpoint.for_torch(tmp_path / "x") as file:
            torch.save(torch.zeros(10_000), file)


def test_names_and_places_that_cannot_be(made: Made, call: Call, tmp_path: Path) -> None:
    long, file = tmp_path / ("a" * 300), tmp_path / "file"
    file.touch()
    spgsn, motion = made("spgsn"), walker_npz(tmp_path)
    for place, says in (
        (long, "255 bytes"),
        (file, ""),
        (file / "x", "/file is a file; give a folder"),
    ):
        assert_wrong(call(*train("spgsn", place)), says)
        assert_wrong(call("predict", spgsn, motion, "--out", place), says)
        code, _, err = call("demo", "--systems", "spgsn", "--out", place)
        assert code == 2 and says in err and "Traceback" not in err, err
    assert_wrong(call(*train("spgsn", "/proc/run")), "/proc/run")


def test_pipes_and_devices_do_not_hang(made: Made, call: Call, tmp_path: Path) -> None:
    pipe, folder, state = tmp_path / "pipe.bvh", tmp_path / "folder", tmp_path / "run"
    spgsn = made("spgsn")
    os.mkfifo(pipe)
    for words in (
        ["predict", spgsn, pipe],
        ["predict", spgsn, "/dev/zero"],
        ["evaluate", pipe],
        ["export", pipe],
        ["convert", "spgsn", pipe],
        ["learn", pipe, tmp_path],
        ["data", "check", "cmu_mocap", "--path", pipe],
        train("spgsn", state, "--data.name", "bvh", "--data.path", pipe),
        train("spgsn", state, "--start", pipe),
        ["train", "spgsn", "--config", pipe],
    ):
        assert_wrong(call(*words), "pipe")
    for name in ("folder/a.bvh", "run/config.json"):
        (tmp_path / name).parent.mkdir()
        os.mkfifo(tmp_path / name)
    words = train("spgsn", tmp_path / "x", "--data.name", "bvh", "--data.path", folder)
    assert_wrong(call(*words), "a.bvh", "pipe")
    assert_wrong(call(*train("spgsn", state)), "config.json", "pipe")


# --- hostile files -----------------------------------------------------------------------------


def test_npz_files_that_lie(made: Made, call: Call, tmp_path: Path) -> None:
    spgsn, file = made("spgsn"), tmp_path / "x.npz"
    array = np.zeros((60, 38, 3), np.float32)
    header = {"descr": "<f4", "fortran_order": False, "shape": (10**12, 38, 3)}

    def lies(path: Path) -> None:
        with zipfile.ZipFile(path, "w") as archive, archive.open("positions.npy", "w") as stream:
            np.lib.format.write_array_header_1_0(stream, header)
            stream.write(b"\0" * 100)

    def no_array(path: Path) -> None:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("expmap", b"hello")

    def bomb(path: Path) -> None:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            with archive.open("positions.npy", "w", force_zip64=True) as stream:
                big = {**header, "shape": (2**21, 38, 3)}
                np.lib.format.write_array_header_1_0(stream, big)
                for _ in range(3):
                    stream.write(b"\0" * 2**20)

    def named(path: Path) -> None:
        with path.open("wb") as stream:
            np.save(stream, array)

    def objects(path: Path) -> None:
        np.savez(path, positions=np.array([{}, []], dtype=object))

    for write in (lies, no_array, bomb, named, objects):
        write(file)
        assert_wrong(call("predict", spgsn, file), "x.npz")


@pytest.mark.parametrize("seconds", ["1e9", "8.33"])
def test_a_frame_that_takes_for_ever(seconds: str, tmp_path: Path) -> None:
    from tenfold.data.motion.bvh import read_bvh

    head = "HIERARCHY\nROOT a\n{\nOFFSET 0 0 0\nCHANNELS 1 Xrotation\n}\nMOTION\nFrames: 2\n"
    (tmp_path / "a.bvh").write_text(f"{head}Frame Time: {seconds}\n1\n2\n")
    with pytest.raises(ValueError, match=r"line 9: frame time .* at most 1 second"):
        read_bvh(tmp_path / "a.bvh")
    (tmp_path / "a.bvh").write_text(f"{head}Frame Time: 0.5\n1\n2\n")
    with pytest.raises(ValueError, match="frames a second, more than"):
        read_bvh(tmp_path / "a.bvh").resample(1e9)


def test_nothing_raw_reaches_terminal_or_page(call: Call, tmp_path: Path) -> None:
    hostile = tmp_path / HOSTILE
    for words in (["report", hostile], ["evaluate", hostile], ["info", HOSTILE], [HOSTILE]):
        done = call(*words)
        assert_wrong(done)
        assert "\x1b" not in done[2] and "\x07" not in done[2] and "\u202e" not in done[2]
    page = write_page(Page(f"of {HOSTILE}", lead="two\nlines", footer=""), tmp_path / "page.html")
    text = page.read_text()
    assert "owned" in text and "two\nlines" in text
    assert not any(c in text for c in "\x1b\x07\u202e")


def test_a_line_break_in_a_name_does_not_break_the_line(call: Call, tmp_path: Path) -> None:
    """In the name that is given, in one that is found, and in one line of a check."""
    folder = tmp_path / "two\nlines"
    for name in ("a", "b"):
        (folder / name).mkdir(parents=True)
        Image.new("RGB", (9, 9)).save(folder / name / "a.png")
    (folder / "a" / "b\nc.png").write_bytes(b"no picture")
    assert_wrong(call("info", folder / "nowhere"))
    assert_wrong(call("data", "check", "--path", folder / "nowhere"), "two\ufffdlines")
    code, out, _ = call("data", "check", "folder", "--path", folder)
    assert code == 1 and "b\ufffdc.png" in out and "3 files, 1 problem\n" in out
    assert out.count("\n") == 2 + out.count("  note: "), out


def test_an_error_of_the_system_names_the_file() -> None:
    def read(path: Path) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with pytest.raises(OSError) as wrong:
        read(Path("/proc/self/mem"))
    assert message(wrong.value) == "/proc/self/mem: Input/output error"


def test_brackets_are_no_markup(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import importlib.util

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    out = call("doctor")[1]
    assert "pip install 'tenfold[export]'" in out and "pip install -e '.[weather]'" in out
    done = call("completion")
    assert_wrong(done, "bash, zsh, fish")


def test_a_missing_extra_is_one_line(
    made: Made, call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    from tenfold.generated import waves

    file = waves.write_netcdf(tmp_path / "states.nc", waves.WaveStates(), [80])
    run = made("pangu")
    for module in ("xarray", "h5netcdf", "h5py"):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, module, None)
            done = call("predict", run, file, "--hours", "6", "--out", tmp_path / "out")
        assert_wrong(done, module, "pip install -e '.[weather]'", "tenfold[weather]")


def test_convert_without_official_checkpoints(call: Call) -> None:
    assert_wrong(call("convert", "loupe", "any.pt"), "loupe has no official checkpoints")


@pytest.mark.parametrize(
    ("system", "option", "says"),
    [
        ("itpn", "--pretrain.teacher", "Add --pretrain.method clip"),
        ("loupe", "--text.pieces", "Add --text.tokens pieces"),
        ("virreq", "--text.table", "Add --text.source table"),
        ("virreq", "--text.clip", "Add --text.source clip"),
        ("virreq", "--text.merges", "Add --text.source clip and --text.clip"),
    ],
)
def test_a_file_that_would_not_be_read_is_refused(
    system: str, option: str, says: str, call: Call, tmp_path: Path
) -> None:
    (tmp_path / "given").write_text("of the user")
    done = call(*train(system, tmp_path / "run", option, tmp_path / "given"))
    assert_wrong(done, f"{option[2:]} is {tmp_path / 'given'}", says)


def test_masks_beside_the_true_ones_are_refused(call: Call, tmp_path: Path) -> None:
    done = call(*train("usage", "run", "--data.masks-path", tmp_path, "--segment.labels", "true"))
    assert_wrong(done, f"data.masks_path is {tmp_path}, but segment.labels is true")


@pytest.mark.parametrize(
    ("system", "option"),
    [("spgsn", "--epochs"), ("pangu", "--epochs"), ("ldc", "--epochs")]
    + [("itpn", f"--{group}") for group in ("pretrain.epochs", "finetune.localise-epochs")],
)
def test_passes_that_would_not_count_are_refused(
    system: str, option: str, call: Call, tmp_path: Path
) -> None:
    done = call(*train(system, tmp_path / "run", "--steps", "6", option, "7"))
    assert_wrong(done, f"{option} is 7, but steps is 6, which counts. Add --steps 0.")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("system", SYSTEMS)
def test_every_number_of_passes_is_known(system: str) -> None:
    """Those that `steps` stands in for: not of stages that have no steps of their own."""
    cls = systems.system_class(system)
    fields = {name for name in flatten(to_json(cls.recipes["demo"])) if name.endswith("epochs")}
    assert {name for name in fields if not name.startswith("calibration.")} == set(cls.passes)


def test_a_climatology_is_read_before_the_training(call: Call, tmp_path: Path) -> None:
    (tmp_path / "given").write_text("of the user")
    done = call(*train("pangu", tmp_path / "run", "--evaluation.climatology", tmp_path / "given"))
    assert_wrong(done, str(tmp_path / "given"))


def test_a_file_of_no_set_is_refused(call: Call, tmp_path: Path) -> None:
    words = train("pangu", tmp_path / "run", "--data.file", "mine.nc", "--data.name")
    own = "A file of your own is --data.name files --data.path FILE."
    assert_wrong(call(*words, "waves"), "data.file is mine.nc, but data.name is waves", own)
    code, _, err = call(*words, "era5")
    assert code == 2 and "data set 'era5' was not found" in err
    assert not (tmp_path / "run").exists()


def test_convert_looks_at_its_folder_first(call: Call, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("mine")
    (tmp_path / "any.pt").write_bytes(b"not read")
    done = call("convert", "spgsn", tmp_path / "any.pt", "--out", tmp_path / "out")
    assert_wrong(done, "exists and is not empty; choose another --out")


# --- paths and the terminal --------------------------------------------------------------------


def test_home_and_here(
    made: Made, call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr(run, "conclude", lambda *_: {})
    assert call(*train("spgsn", "x", "--run.folder=~/x", "--steps", "1"))[0] == 0
    assert (tmp_path / "home/x/weights.safetensors").exists()
    spgsn, motion = made("spgsn"), walker_npz(tmp_path)
    code, _, err = call("predict", spgsn, motion, "--out", ".")
    assert code == 0, err
    found = {path.name for path in Path().iterdir()}
    assert "walk.predicted.npz" in found and "~" not in found


@pytest.mark.parametrize("system", SYSTEMS)
def test_paths_are_stored_absolute(
    system: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tenfold.core.config import with_field

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/me")
    cls = systems.system_class(system)
    cfg = cls.recipes["small"]
    assert absolute(cfg, cls.paths) == cfg
    for name in cls.paths:
        assert get(absolute(with_field(cfg, name, "a/b"), cls.paths), name) == str(tmp_path / "a/b")
        assert get(absolute(with_field(cfg, name, "~/b"), cls.paths), name) == "/home/me/b"


@pytest.mark.parametrize("columns", ["", "0", "abc", "-5", "1"])
def test_any_width(columns: str, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    code, out, _ = call("list")
    assert code == 0 and out and (columns == "1" or "spgsn" in out)


def test_completion_in_bash(call: Call, tmp_path: Path) -> None:
    code, script, _ = call("completion", "bash")
    assert code == 0

    def completed(*words: str) -> list[str]:
        line = " ".join(f"'{word}'" for word in words)
        tail = f"COMP_WORDS=(tenfold {line}); COMP_CWORD={len(words)}; _tenfold; "
        done = subprocess.run(
            ["bash"], input=f'{script}\n{tail} echo "${{COMPREPLY[@]}}"\n',
            capture_output=True, text=True, check=True, cwd=tmp_path,
        )  # fmt: skip
        return done.stdout.split()

    assert completed("tr") == ["train"]
    assert completed("train", "") == list(SYSTEMS)
    assert "demo" in completed("train", "spgsn", "")
    assert completed("train", "spgsn", "demo", "--model.wi") == ["--model.width"]
    assert completed("train", "spgsn", "demo", "--seed", "1", "--run.f") == [
        "--run.folder", "--run.fresh"
    ]  # fmt: skip
    assert completed("predict", "x", "--temp") == ["--temperature"]
    assert completed("data", "ch") == ["check"] and completed("conv") == ["convert"]
    for shell in ("zsh", "fish"):
        code, out, _ = call("completion", shell)
        assert code == 0 and "--model.width" in out and "ppmoe" in out
    assert call("list", "--tyro-print-completion", "bash")[0] == 0


def test_torchrun_gets_the_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "error.json"
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(file))
    report_to_torchrun("tenfold: it is wrong")
    assert not file.exists()  # no torchrun
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "1")
    with pytest.raises(SystemExit):
        cli.main(["trian"])
    said = json.loads(file.read_text())["message"]
    assert said["message"] == "tenfold: unknown verb 'trian'; did you mean 'train'?"
    assert "py_callstack" not in said["extraInfo"]  # torch would show that instead
