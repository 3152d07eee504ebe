"""Going on from what exists: more steps, other weights, another run's configuration."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import config, options

import tenfold
from tenfold import cli, systems
from tenfold.core import checkpoint, loop, run_folder
from tenfold.core.running import Running
from tenfold.runner import train as run
from tenfold.runner.weights import construct
from tenfold.systems.spgsn import Spgsn
from tenfold.weights.keymap import Converted

pytestmark = pytest.mark.usefixtures("generated_only", "quick")
Made = Callable[[str], Path]
SYSTEMS = tuple(systems.SYSTEMS)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch, made: Made) -> None:
    """Training ends with its weights; what `made` makes is whole."""
    conclude = run.conclude

    def only_for_made(*words: object) -> dict:
        return conclude(*words) if "made" in str(words[3]) else {}

    monkeypatch.setattr(run, "conclude", only_for_made)


def call(capsys: pytest.CaptureFixture[str], *words: str | Path) -> tuple[int, str]:
    """Exit code and stderr of a command."""
    code = 0
    try:
        cli.main([str(word) for word in words])
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    return code, capsys.readouterr().err


def words(system: str, folder: Path, *more: str | Path) -> list[str | Path]:
    return ["train", system, "demo", *options(system), "--run.folder", folder, *more]


def assert_equal(a: Path, b: Path) -> None:
    one, other = load_file(a / "weights.safetensors"), load_file(b / "weights.safetensors")
    assert one.keys() == other.keys()
    for key in one:
        assert torch.equal(one[key], other[key]), key


def optimizer_of(run: Path) -> list[torch.Tensor]:
    """Moments of the optimiser of a run's last stage, in the order of the parameters."""
    (file,) = sorted((run / "checkpoints").glob("*/step-*/state.pt"))[-1:]
    state = checkpoint.read_state(file).get("optimizer", {"state": {}})["state"]  # else divided
    return [moment for row in sorted(state) for _, moment in sorted(state[row].items())]


# --- more steps --------------------------------------------------------------------------------


@pytest.mark.parametrize("system", ["spgsn", "ppmoe", "pangu", "ldc", "dts"])
def test_more_steps_equal_a_run_of_so_many(
    system: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Bit for bit where the learning rate does not depend on the number of steps."""
    fixed = ["--optim.schedule", "constant", "--optim.warmup", "0"]
    short, whole = tmp_path / "short", tmp_path / "whole"
    assert call(capsys, *words(system, short, *fixed, "--steps", "2"))[0] == 0
    assert call(capsys, *words(system, short, *fixed, "--steps", "4"))[0] == 0
    assert call(capsys, *words(system, whole, *fixed, "--steps", "4"))[0] == 0
    assert_equal(short, whole)
    for one, other in zip(optimizer_of(short), optimizer_of(whole), strict=True):
        assert torch.equal(one, other)
    assert json.loads((short / "config.json").read_text())["config"]["steps"] == 4
    lines = [json.loads(line) for line in (short / "metrics.jsonl").read_text().splitlines()]
    first = [line["step"] for line in lines if line["stage"] == lines[0]["stage"]]
    assert first == sorted(first) and first[-1] == 4


def test_fewer_steps_are_refused(
    made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Path(shutil.copytree(made("spgsn"), tmp_path / "run"))
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    code, err = call(capsys, *words("spgsn", folder, "--steps", "3"))
    assert code == 2 and "a run of 6 steps, and 3 are fewer" in err and err.count("\n") == 1
    code, err = call(capsys, *words("spgsn", folder, "--steps", "9", "--seed", "3"))
    assert code == 2 and "seed: 0 -> 3" in err
    assert before == {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    for kept in folder.glob("checkpoints/*/step-*"):
        shutil.rmtree(kept)  # as versions before this one did
    code, err = call(capsys, *words("spgsn", folder, "--steps", "9"))
    assert code == 2 and "--start" in err and (folder / "result.json").exists()


# --- other weights -----------------------------------------------------------------------------


@pytest.mark.parametrize("system", SYSTEMS)
def test_training_starts_from_a_run(
    system: str, made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """After one step of a rate of nearly zero the weights are still those of the start."""
    start = made(system)
    still = ["--steps", "1", "--optim.lr", "1e-30", "--optim.weight-decay", "0"]
    if system == "itpn":
        still += ["--pretrain-optim.lr", "1e-30", "--pretrain-optim.weight-decay", "0"]
    if system == "usage":
        still += ["--segment-optim.lr", "1e-30", "--segment-optim.weight-decay", "0"]
    if system == "apis":
        still += ["--round-optim.lr", "1e-30", "--round-optim.weight-decay", "0"]
    if system == "virreq":
        still += ["--separate-optim.lr", "1e-30", "--separate-optim.weight-decay", "0"]
    sources = [("a", start), ("b", start / "weights.safetensors")]
    for name, source in sources if system == "spgsn" else sources[:1]:
        code, err = call(capsys, *words(system, tmp_path / name, *still, "--start", source))
        assert code == 0, err
        given = dict(tenfold.load(start).model.named_parameters())
        found = dict(tenfold.load(tmp_path / name).model.named_parameters())
        if system == "dts":  # a step moves each teacher by 1 - alpha towards its student
            for key in [key for key in found if key.startswith("teacher")]:
                student = given[key.replace("teacher", "student", 1)]
                moved = given[key] + 0.01 * (student - given[key])
                torch.testing.assert_close(found[key], moved, rtol=1e-5, atol=1e-7, msg=key)
        trained = [k for k in found if "pretrain.backbone." in k or system != "itpn"]
        trained = [k for k in trained if system != "ldc" or not k.startswith(("unit", "others"))]
        if system == "dts":
            trained = [k for k in trained if k.startswith("student")]
        assert trained
        for key in trained:
            torch.testing.assert_close(found[key], given[key], rtol=1e-6, atol=1e-9, msg=key)
    config = json.loads((tmp_path / "a/config.json").read_text())["config"]
    assert config["start"] == str(start)
    code, err = call(capsys, *words(system, tmp_path / "a", *still))
    assert code == 2 and "start" in err  # another run


def test_a_start_that_does_not_fit_lists_every_key(
    made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    start = made("spgsn")
    wide = words("spgsn", tmp_path / "run", "--start", start, "--model.width", "12")
    code, err = call(capsys, *wide)
    assert code == 2 and "--allow-missing" in err and "shape: " in err and "is (" in err
    tensors = load_file(start / "weights.safetensors")
    changed = sum(f"shape: {key} " in err for key in tensors)
    assert changed and not (tmp_path / "run").exists()
    code, err = call(capsys, *wide, "--allow-missing")
    assert code == 0 and err.startswith("tenfold: warning: ") and "shape: " in err
    plain = tmp_path / "plain.safetensors"
    save_file(tensors, plain)
    for source, says in (
        (made("ppmoe"), "has weights of ppmoe, not of spgsn"),
        (tmp_path / "nowhere", "does not exist"),
        (plain, "no tenfold header"),
        (Path(__file__), "test_going_on.py"),
    ):
        code, err = call(capsys, *words("spgsn", tmp_path / "new", "--start", source))
        assert code == 2 and says in err and "Traceback" not in err, err
    code, err = call(capsys, *words("ppmoe", tmp_path / "new", "--start", __file__))
    assert code == 2 and "test_going_on.py is no folder; give one as transformers" in err
    assert not (tmp_path / "new").exists()


def test_tensors_of_another_shape_in_an_official_file_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With --allow-missing they start anew, and that is told."""
    made = construct(Spgsn, config("spgsn", "demo", [*options("spgsn"), "--seed", "5"]))
    first, *others = made.model.state_dict()
    account = Converted({key: made.model.state_dict()[key] for key in others})
    account.mismatched.append((first, (1, 2), tuple(made.model.state_dict()[first].shape)))
    monkeypatch.setattr(Spgsn, "convert", classmethod(lambda *_: (made, account)))
    (tmp_path / "official.pth").write_bytes(b"")
    start = words("spgsn", tmp_path / "run", "--steps", "1", "--start", tmp_path / "official.pth")
    code, err = call(capsys, *start)
    assert code == 2 and f"shape: {first} is (1, 2), expected" in err
    code, err = call(capsys, *start, "--allow-missing")
    assert code == 0 and f"shape: {first} is (1, 2), expected" in err and "missing: " not in err


@pytest.mark.parametrize("system", ["spgsn", "ppmoe", "itpn", "dts", "usage", "virreq"])
def test_a_run_goes_on_without_the_weights_it_started_from(
    system: str, made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """It ends with the weights that it would have had, and says where it started from."""
    start = Path(shutil.copytree(made(system), tmp_path / "start"))
    given = options(system)
    if system == "itpn":  # sizes that the start decides are not asked for
        cut = given.index("--model.embed-dim")
        given[cut : given.index("--model.patch-size")] = []
    own = ["train", system, "demo", *given, "--start", start, "--steps", "3"]
    own += ["--tasks", "classify", "localise"] if system == "itpn" else []
    assert call(capsys, *own, "--run.folder", tmp_path / "whole")[0] == 0
    stopped = [*own, "--run.folder", tmp_path / "stopped", "--loop.save-every", "2"]
    save = Running.save

    def save_and_stop(running: Running) -> None:
        save(running)
        raise loop.Stopped(signal.SIGTERM, running.stage.name, running.step)

    with monkeypatch.context() as patched:
        patched.setattr(Running, "save", save_and_stop)
        assert call(capsys, *stopped)[0] == 143
    shutil.rmtree(start)
    code, err = call(capsys, *stopped, "--seed", "3")
    assert code == 2 and "seed: 0 -> 3" in err
    code, err = call(capsys, *own, "--run.folder", tmp_path / "new")
    assert code == 2 and "does not exist" in err
    origins = []
    monkeypatch.setattr(run, "conclude", lambda *words: origins.append(words[2].origin) or {})
    code, err = call(capsys, *stopped)
    assert code == 0, err
    assert_equal(tmp_path / "whole", tmp_path / "stopped")
    assert str(start) in origins[0] or system == "itpn"  # whose notes say it
    monkeypatch.setattr(run, "conclude", lambda *_: {})
    code, err = call(capsys, *stopped, "--run.fresh")
    assert code == 2 and "does not exist" in err
    assert (tmp_path / "stopped/weights.safetensors").exists()
    assert not run_folder.contents(tmp_path / "stopped").foreign


# --- another run's configuration ---------------------------------------------------------------


def test_the_configuration_of_another_run(
    made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = made("spgsn") / "config.json"
    known = json.loads(source.read_text())
    for place, given in enumerate(([], ["demo"])):
        folder = tmp_path / f"run-{place}"
        more = ["--config", source, "--run.folder", folder, "--steps", "1", "--seed", "5"]
        assert call(capsys, "train", "spgsn", *given, *more)[0] == 0
        config = json.loads((folder / "config.json").read_text())
        assert config["recipe"] == "demo"
        assert config["config"] == {**known["config"], "steps": 1, "seed": 5}
    for text, says in (
        (json.dumps({**known, "system": "itpn"}), "of a run of itpn, not of spgsn"),
        ('{"hidden_size": 768}', "no config.json of a run"),
        ("[]", "no config.json of a run"),
        ("{", "not readable JSON"),
        (json.dumps({**known, "config": {**known["config"], "new": 1}}), "new"),
        (json.dumps({**known, "config": {**known["config"], "steps": -1}}), "--steps"),
        (json.dumps({**known, "config": {**known["config"], "steps": "1"}}), "config.steps"),
    ):
        (tmp_path / "config.json").write_text(text)
        more = ["--config", tmp_path / "config.json", "--run.folder", tmp_path / "new"]
        code, err = call(capsys, "train", "spgsn", *more)
        assert code == 2 and says in err and err.count("\n") == 1, err
    code, err = call(capsys, "train", "spgsn", "--config")
    assert code == 2 and "RUN/config.json" in err
    code, err = call(capsys, "train", "spgsn", f"--config={tmp_path / 'no.json'}")
    assert code == 2 and "no.json" in err
