"""The verb `learn`: what it prints, that it commits at one point, and its one-line errors."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tenfold import systems
from tenfold.cli import learn as verb_learn
from tenfold.core import checkpoint, errors, run_folder, versions
from tenfold.core.system import System
from tenfold.core.versions import Learned, Versions
from tenfold.runner import weights as runs
from tenfold.runner.outputs import made_by, own_folder

Call = Callable[..., tuple[int, str, str]]


@dataclass(frozen=True)
class Config:
    seed: int = 0


class Toy(System[Config]):
    """Photos are text files with a number; what is kept of a class is the mean of its numbers."""

    recipes = {"small": Config()}

    def __init__(self, cfg: Config) -> None:
        super().__init__(cfg)
        self.model = nn.Linear(1, 1)
        self.classes: tuple[str, ...] = ("nought",)
        self.means = torch.zeros(1)

    def learn(self, folder: Path, name: str, head: str = "") -> Learned:
        inside = sorted(p for p in folder.iterdir() if p.is_dir())
        found = {f.name: f for f in inside} or {name or folder.name: folder}
        before, photos = self.means.nbytes, []
        for one, place in found.items():
            numbers = [float(f.read_text()) for f in sorted(place.glob("*.txt"))]
            if not numbers:
                raise ValueError(f"{place} holds no photo; put at least one there")
            photos.append(len(numbers))
            self.means = torch.cat([self.means, torch.tensor([sum(numbers) / len(numbers)])])
            self.classes += (one,)
        notes = ("a note",)
        pictures = {"map.png": b"picture"}
        after = self.means.nbytes
        return Learned(
            tuple(found), tuple(photos), notes, before, after, self.classes, pictures,
            lines=("a finding",), facts={"found": 7}, loss=6.0,
        )  # fmt: skip

    def learned_state(self) -> dict[str, Tensor]:
        return {"means": self.means}

    def restore_learned(self, tensors: dict[str, Tensor], classes: tuple[str, ...]) -> None:
        self.means, self.classes = tensors["means"], classes

    def answer(self, x: float) -> str:
        return self.classes[int((self.means - x).abs().argmin())]


@pytest.fixture(autouse=True)
def toy_system(monkeypatch: pytest.MonkeyPatch) -> None:
    """The only system is the toy, and a loaded one has its current version."""
    plain = runs.load

    def load(cls: type[Toy], path: Path) -> Toy:
        system = plain(cls, path)
        tensors, version = Versions(path).read()
        if version:
            system.restore_learned(tensors, version.classes)
        return system

    monkeypatch.setattr(runs, "load", load)
    monkeypatch.setattr(systems, "system_class", lambda name: {"toy": Toy}[name])


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A trained toy."""
    folder = tmp_path / "toy run"
    runs.save_weights(folder / "weights.safetensors", "toy", runs.construct(Toy, Config()))
    return folder


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder of two class folders."""
    for name, numbers in {"ten": (9, 10, 11), "[red]five": (5,)}.items():
        for i, number in enumerate(numbers):
            checkpoint.write_text(tmp_path / "photos" / name / f"{i}.txt", str(number))
    return tmp_path / "photos"


@pytest.fixture
def learn(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Call:
    """Run the verb as the command line does: exit code, stdout, stderr."""
    monkeypatch.setenv("COLUMNS", "160")

    def words(*rest: str | Path) -> tuple[int, str, str]:
        capsys.readouterr()
        code, said = 0, ""
        try:
            verb_learn.learn([str(w) for w in rest])
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
        except Exception as error:
            code, said = errors.exit_code(error), str(error)
        captured = capsys.readouterr()
        return code, captured.out, captured.err + said

    return words


def assert_wrong(done: tuple[int, str, str], *words: str) -> None:
    """Exit code 2 and one line with these words."""
    code, _, err = done
    assert code == 2 and "\n" not in err, err
    for word in words:
        assert word in err


def answers(run: Path) -> list[str]:
    return [runs.load(Toy, run).answer(x) for x in (0.1, 5.2, 10.1)]


def content(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_folder_of_classes(run: Path, photos: Path, learn: Call) -> None:
    weights = (run / "weights.safetensors").read_bytes()
    code, out, _ = learn(run, photos)
    assert code == 0 and answers(run) == ["nought", "[red]five", "ten"]
    assert f"{run} is at version 1, was at version 0; learned in" in out
    assert re.search(r"\[red\]five │ 1 *\n", out) and re.search(r"ten +│ 3 *\n", out)
    assert "kept of all 3 classes: 12 bytes, before: 4\na finding\n* a note\n" in out
    picture = run / "learned/0001/map.png"
    facts = run / "learned/0001/learned.json"
    assert f"{picture}\n{facts}\nundo: tenfold learn '{run}' --undo\n" in out
    said = json.loads(facts.read_text())
    assert said["classes"] == {"[red]five": 1, "ten": 3} and said["found"] == 7
    assert "a finding\n" in out
    assert picture.read_bytes() == b"picture"
    assert (run / "weights.safetensors").read_bytes() == weights


def test_one_class_after_another(
    run: Path, photos: Path, learn: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(photos / "ten")
    code, out, _ = learn(run, ".")
    assert code == 0 and answers(run) == ["nought", "ten", "ten"]
    code, out, _ = learn(run, photos / "[red]five", "--name", "a five")
    assert code == 0 and "is at version 2, was at version 1" in out
    assert answers(run) == ["nought", "a five", "ten"]
    assert (run / "learned/0002/map.png").exists()


def test_undo_redo_to_and_history(run: Path, photos: Path, learn: Call) -> None:
    learn(run, photos / "ten")
    learn(run, photos / "[red]five")
    assert learn(run, "--undo") == (0, f"{run} is at version 1, was at version 2\n", "")
    assert answers(run) == ["nought", "ten", "ten"]
    assert learn(run, "--redo") == (0, f"{run} is at version 2, was at version 1\n", "")
    assert learn(run, "--to", "0") == (0, f"{run} is at version 0\n", "")
    assert answers(run) == ["nought"] * 3
    code, out, _ = learn(run, "--history")
    lines = out.splitlines()[-3:]
    assert code == 0 and re.match(r"0 .*current .*as it was trained", lines[0])
    assert re.match(r"1[ │]+0 .*\+00:00 .*ten[ │]+3[ │]+2", lines[1])
    assert re.match(r"2[ │]+1 .*\[red\]five[ │]+1[ │]+3", lines[2]) and "current" not in lines[2]
    assert_wrong(learn(run, "--undo"), "nothing to undo")
    assert_wrong(learn(run, "--to", "-1"), "no version -1; there are 0, 1, 2")
    learn(run, "--to", "2")
    assert_wrong(learn(run, "--redo"), "nothing to redo")


def test_a_prediction_with_other_classes_has_a_folder_of_its_own(
    run: Path, photos: Path, learn: Call
) -> None:
    """It would replace that of before; undone, the classes of before make that one again."""
    made, folders = [], []
    for words in ((), (photos / "ten",), ("--undo",)):
        assert not words or learn(run, *words)[0] == 0
        made.append(made_by(run, photos, None))
        folders.append(own_folder(run, photos, made[-1]))
        folders[-1].mkdir(parents=True, exist_ok=True)
        (folders[-1] / run_folder.JOURNAL).write_text(json.dumps(made[-1]) + "\n")
    assert made[0] == made[2] != made[1]
    assert [f.name for f in folders] == ["photos", "photos-2", "photos"]


def test_a_class_whose_name_the_output_cannot_show_is_learned_all_the_same(
    run: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before, the command failed after the version was made, and its pictures were not written."""
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="latin-1"))
    verb_learn.learn([str(run), str(photos / "ten"), "--name", "\u732b"])
    sys.stdout.flush()
    assert (run / "learned/0001/learned.json").exists()
    assert b"learned.json" in written.getvalue() and b"? " in written.getvalue()


def test_history_of_a_run_that_learned_nothing(run: Path, learn: Call) -> None:
    before = content(run)
    code, out, _ = learn(run, "--history")
    assert code == 0 and "as it was trained" in out and content(run) == before


def test_help(learn: Call) -> None:
    code, out, _ = learn("--help")
    assert code == 0 and "usage: tenfold learn" in out
    assert all(word in out for word in ("--name", "--undo", "--redo", "--history", "--to"))


WAYS = "FOLDER (photos of one class, or a folder of class folders), or one of --history, --undo"


@pytest.mark.parametrize(
    ("rest", "words"),
    [
        ([], "which run? `tenfold learn RUN FOLDER`"),
        (["RUN"], f"learn what? give {WAYS}"),
        (["RUN", "PHOTOS", "--undo"], f"one thing at a time: give {WAYS}"),
        (["RUN", "PHOTOS", "--to", "0"], "one thing at a time"),
        (["RUN", "--undo", "--redo"], "one thing at a time"),
        (["RUN", "--history", "--to", "0"], "one thing at a time"),
        (["RUN", "--undo", "--name", "cat"], "--name names the class of the photos in FOLDER"),
        (["RUN", "--name", "cat"], "learn what?"),
        (["RUN", "--undoo"], "'--undo'"),
        (["RUN", "PHOTOS/none"], "none does not exist"),
        (["RUN", "PHOTOS/ten/0.txt"], "0.txt is a file"),
        (["RUN", "PHOTOS", "--name", "a\nb"], "cannot name a class"),
        (["RUN", "PHOTOS", "--name", "x" * 200], "cannot name a class"),
        (["PHOTOS/none", "--undo"], "none does not exist"),
        (["PHOTOS", "--undo"], "holds no weights.safetensors"),
        (["RUN/weights.safetensors", "--undo"], "weights.safetensors is a file"),
    ],
    ids=lambda v: " ".join(v)[:40] if isinstance(v, list) else "",
)
def test_mistakes_are_one_line_and_touch_nothing(
    rest: list[str], words: str, run: Path, photos: Path, learn: Call
) -> None:
    before = content(run)
    given = [w.replace("RUN", str(run)).replace("PHOTOS", str(photos)) for w in rest]
    assert_wrong(learn(*given), words)
    assert content(run) == before


def test_photos_that_cannot_be_learned_change_nothing(run: Path, photos: Path, learn: Call) -> None:
    learn(run, photos / "ten")
    before = content(run)
    (photos / "zero").mkdir()  # the last of the classes
    assert_wrong(learn(run, photos), "zero holds no photo")
    (photos / "ten" / "3.txt").write_text("a lion")
    assert_wrong(learn(run, photos / "ten"), "a lion")
    assert content(run) == before


def test_a_class_folder_with_a_name_for_no_table(run: Path, photos: Path, learn: Call) -> None:
    strange = photos / "a\x1b[2Jb"
    shutil.copytree(photos / "ten", strange)
    assert_wrong(learn(run, strange), "'a\\x1b[2Jb' cannot name a class")
    assert Versions(run).current() == 0


def test_a_damaged_version_stops_learning_and_undo_with_the_way_out(
    run: Path, photos: Path, learn: Call
) -> None:
    learn(run, photos / "ten")
    learn(run, photos / "[red]five")
    file = run / "learned/0002.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    for rest in ([photos / "ten"], ["--undo"]):
        assert_wrong(learn(run, *rest), "0002.safetensors", f"`tenfold learn '{run}' --to 1`")
    code, out, _ = learn(run, "--history")
    assert code == 0 and "damaged" in out and "0002.safetensors" in out
    assert learn(run, "--to", "1")[0] == 0 and answers(run) == ["nought", "ten", "ten"]


def test_another_process_that_learns_is_waited_for_before_the_version_is_read(
    run: Path, photos: Path, learn: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(versions, "PATIENCE", 0.05)
    loads: list[Path] = []
    plain = runs.load
    monkeypatch.setattr(runs, "load", lambda cls, path: (loads.append(path), plain(cls, path))[1])
    with Versions(run).locked():
        assert_wrong(learn(run, photos), "another process has been learning")
    assert not loads and learn(run, photos)[0] == 0 and loads


def test_a_run_that_is_trained_again_while_it_learns_keeps_the_new_weights_alone(
    run: Path, photos: Path, learn: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = Toy.learn

    def slow(self: Toy, folder: Path, name: str, head: str = "") -> Learned:
        runs.save_weights(run / "weights.safetensors", "toy", runs.construct(Toy, Config(1)))
        return plain(self, folder, name, head)

    monkeypatch.setattr(Toy, "learn", slow)
    learn(run, photos)
    with pytest.raises(ValueError, match="trained again"):
        answers(run)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize(
    ("where", "name", "call"),
    [
        (runs, "load", 1),
        (Toy, "learn", 1),
        (Toy, "learned_state", 1),
        (checkpoint, "save_file", 1),
        (os, "replace", 1),
        (os, "replace", 2),
        (checkpoint, "write_bytes", 1),
        (verb_learn, "_show_learned", 1),
    ],
    ids=lambda v: str(v) if isinstance(v, str | int) else "",
)
def test_killed_anywhere_while_learning(
    where: Any, name: str, call: int, after: bool, run: Path, photos: Path, learn: Call
) -> None:
    """Predictions are those of before until the second rename, and those of after from then on."""
    learn(run, photos / "ten")
    child = os.fork()
    if child == 0:
        plain, count = getattr(where, name), 0

        def deadly(*args: Any, **kwargs: Any) -> Any:
            nonlocal count
            count += 1
            if count == call and not after:
                os.kill(os.getpid(), signal.SIGKILL)
            result = plain(*args, **kwargs)
            if count == call:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        try:
            setattr(where, name, deadly)
            verb_learn.learn([str(run), str(photos / "[red]five")])
        finally:
            os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    committed = name in ("write_bytes", "_show_learned") or (
        (name, call, after) == ("replace", 2, True)
    )
    assert answers(run) == ["nought", "[red]five" if committed else "ten", "ten"]
    assert learn(run, photos / "[red]five", "--name", "again")[0] == 0
    assert Versions(run).undo() == (2 if committed else 1)


def test_what_costs_too_much_is_refused(run: Path, photos: Path, learn: Call) -> None:
    before = content(run)
    assert_wrong(learn(run, photos, "--max-loss", "5"), "6.0 points", "--max-loss 5", "a note")
    assert content(run) | {"learned/lock": b""} == before | {"learned/lock": b""}
    assert_wrong(learn(run, "--undo", "--head", "lda"), "--head", "FOLDER")
    assert_wrong(learn(run, photos, "--max-loss", "-1"), "--max-loss", "-1")
    assert learn(run, photos, "--max-loss", "6")[0] == 0
