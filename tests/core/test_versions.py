"""Versions: whole or absent wherever a process is killed, undoable, and hostile files refused."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tenfold.core import checkpoint, versions
from tenfold.core.versions import ENTRY, Learned, Versions


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run folder with weights."""
    folder = tmp_path / "a run"
    checkpoint.write_tensors(folder / "weights.safetensors", {"w": torch.arange(6.0)})
    return folder


def state(value: float) -> dict[str, torch.Tensor]:
    return {"means": torch.full((3, 4), value, dtype=torch.float64), "n": torch.tensor(int(value))}


def learned(*classes: str, photos: int = 5) -> Learned:
    """The last of the classes was learned."""
    return Learned(classes[-1:], (photos,), (), 0, 0, classes)


def add(run: Path, value: float, *classes: str) -> int:
    return Versions(run).add(state(value), learned(*classes))


def value(run: Path) -> float:
    """What the current version holds; 0 stands for version 0."""
    tensors, _ = Versions(run).read()
    return float(tensors["means"].unique()) if tensors else 0.0


def forked(work: Callable[[], Any]) -> int:
    """Do the work in another process; its exit code, negative for a signal."""
    child = os.fork()
    if child == 0:
        try:
            work()
            os._exit(0)
        except BaseException:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def killed_at(point: int, after: bool) -> None:
    """From now on, this process dies before (or after) the n-th call that touches the disk."""
    count = 0

    def deadly(call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            nonlocal count
            count += 1
            if count == point and not after:
                os.kill(os.getpid(), signal.SIGKILL)
            result = call(*args, **kwargs)
            if count == point and after:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return wrapped

    os.fsync, os.replace = deadly(os.fsync), deadly(os.replace)
    checkpoint.save_file = deadly(checkpoint.save_file)


def test_a_run_that_learned_nothing_is_at_version_0_and_gets_no_folder(run: Path) -> None:
    store = Versions(run)
    assert (store.current(), store.read()) == (0, ({}, None))
    assert [(r.number, r.current) for r in store.history()] == [(0, True)]
    assert not (run / "learned").exists()


def test_what_is_added_is_read_back(run: Path) -> None:
    tensors = {
        **state(2.0),
        "none": torch.zeros(0, 3),
        "half": torch.randn(3).bfloat16(),
        "mask": torch.tensor([True, False]),
        "turned": torch.arange(6).reshape(2, 3).T,
    }
    assert Versions(run).add(tensors, learned("cat", "dog", photos=7)) == 1
    found, version = Versions(run).read()
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert found[name].dtype == tensor.dtype and torch.equal(found[name], tensor)
    assert version is not None
    assert (version.number, version.parent) == (1, 0)
    assert (version.names, version.photos, version.classes) == (("dog",), (7,), ("cat", "dog"))
    assert version.when.endswith("+00:00")
    assert json.loads((run / "learned/current.json").read_text()) == {"version": 1}


def test_undo_redo_and_branches(run: Path) -> None:
    assert [add(run, n, *"abc"[:n]) for n in (1, 2, 3)] == [1, 2, 3]
    store = Versions(run)
    assert (store.undo(), store.undo(), value(run)) == (2, 1, 1.0)
    assert (store.redo(), value(run)) == (2, 2.0)
    store.undo()
    assert add(run, 4.0, "a", "d") == 4  # a branch: 1 -> 2 -> 3 and 1 -> 4
    with pytest.raises(ValueError, match="nothing to redo: no version .* upon version 4"):
        store.redo()
    assert (store.undo(), store.redo(), value(run)) == (1, 4, 4.0)  # the newest child
    assert (store.go(3), store.undo(), store.undo(), store.undo()) == (3, 2, 1, 0)
    assert value(run) == 0.0
    with pytest.raises(ValueError, match="nothing to undo: .* is at version 0"):
        store.undo()
    with pytest.raises(ValueError, match="has no version 9; there are 0, 1, 2, 3, 4"):
        store.go(9)
    rows = store.history()
    assert [r.number for r in rows if r.current] == [0]
    assert [r.version.parent for r in rows if r.version] == [0, 1, 2, 1]
    assert [r.version.classes for r in rows if r.version][-1] == ("a", "d")


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_killed_anywhere_while_adding_leaves_the_old_or_the_new_version(
    run: Path, after: bool
) -> None:
    add(run, 1.0, "a")
    untouched = (run / "learned/0001.safetensors").read_bytes()
    seen = []
    for point in range(1, 20):
        copy = Path(shutil.copytree(run, run.with_name(f"run-{point}")))

        def work(point: int = point, copy: Path = copy) -> None:
            killed_at(point, after)
            add(copy, 2.0, "a", "b")

        code = forked(work)
        assert code in (0, -signal.SIGKILL)
        committed = Versions(copy).current() == 2
        assert value(copy) == (2.0 if committed else 1.0)
        assert (copy / "learned/0001.safetensors").read_bytes() == untouched
        assert not any(row.problem for row in Versions(copy).history())
        number = add(copy, 3.0, "a", "c")
        assert value(copy) == 3.0 and not list((copy / "learned").glob("*.tmp"))
        assert Versions(copy).undo() == (2 if committed else 1) != number
        seen.append(committed)
        if code == 0:
            break
    # save, sync, rename, sync of the folder; sync, rename, sync of the folder
    assert seen == ([False] * 6 if not after else [False] * 5 + [True]) + [True] * 2


def test_half_a_temporary_file_is_ignored_and_cleaned(run: Path) -> None:
    add(run, 1.0, "a")
    stray = run / "learned/0007.safetensors.tmp"
    stray.write_bytes((run / "learned/0001.safetensors").read_bytes()[:50])
    assert value(run) == 1.0 and len(Versions(run).history()) == 2
    assert add(run, 2.0, "a", "b") == 2 and not stray.exists()


def test_processes_that_add_at_once_do_so_one_after_another(run: Path) -> None:
    children = []
    for n in range(1, 5):
        child = os.fork()
        if child == 0:
            try:
                for _ in range(3):
                    add(run, float(n), f"class {n}")
                os._exit(0)
            except BaseException:
                os._exit(1)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * 4
    rows = [r.version for r in Versions(run).history() if r.version]
    assert [(v.number, v.parent) for v in rows] == [(n, n - 1) for n in range(1, 13)]
    assert sorted(v.names[0] for v in rows) == sorted([f"class {n}" for n in range(1, 5)] * 3)
    assert Versions(run).current() == 12


def test_who_waits_too_long_is_told(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add(run, 1.0, "a")
    monkeypatch.setattr(versions, "PATIENCE", 0.05)
    with Versions(run).locked():
        with pytest.raises(ValueError, match="another process has been learning in .*try again"):
            add(run, 2.0, "a", "b")
        with pytest.raises(ValueError, match="another process"):
            Versions(run).undo()
        assert value(run) == 1.0  # reading needs no lock
    assert add(run, 2.0, "a", "b") == 2


def rewritten(file: Path, **changes: Any) -> None:
    """Write the version anew with other entries in its header; None leaves one out."""
    with versions.safe_open(file, "pt") as opened:
        header = {**json.loads(opened.metadata()[ENTRY]), **changes}
    header = {k: v for k, v in header.items() if v is not None}
    save_file(load_file(file), file, {ENTRY: json.dumps(header)})


def truncated(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-8])


def flipped(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


def without_header(file: Path) -> None:
    save_file(load_file(file), file)


def deeply_nested(file: Path) -> None:
    save_file(load_file(file), file, {ENTRY: "[" * 100_000})


def other_shape(file: Path) -> None:
    with versions.safe_open(file, "pt") as opened:
        header = opened.metadata()
    save_file({**load_file(file), "means": torch.full((4, 3), 3.0).double()}, file, header)


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "truncated": (truncated, "not a readable version"),
    "one bit": (flipped, "not what was written"),
    "another shape": (other_shape, "not what was written"),
    "no safetensors": (lambda f: f.write_text("hello"), "not a readable version"),
    "empty": (lambda f: f.write_bytes(b""), "not a readable version"),
    "gone": (lambda f: f.unlink(), "is gone"),
    "no header": (without_header, f"no {ENTRY}"),
    "nested": (deeply_nested, "not a readable version"),
    "from version 2": (lambda f: shutil.copy(f.with_name("0002.safetensors"), f), "was renamed"),
    "no weights": (lambda f: rewritten(f, weights=None), "weights"),
    "other weights": (lambda f: rewritten(f, weights="0" * 64), "upon other weights"),
    "its own parent": (lambda f: rewritten(f, parent=3), "cannot follow version 3"),
    "negative parent": (lambda f: rewritten(f, parent=-1), "cannot follow version -1"),
    "a name too many": (lambda f: rewritten(f, names=["c", "d"]), "2 classes with photos [5]"),
    "no photo": (lambda f: rewritten(f, photos=[0]), "photos [0]"),
    "a number as name": (lambda f: rewritten(f, names=[3]), "must be a str"),
    "escape codes": (lambda f: rewritten(f, classes=["a", "\x1b[2J", "c"]), "cannot name a class"),
    "other order": (lambda f: rewritten(f, classes=["b", "a", "c"]), "not what was written"),
    "a class twice": (lambda f: rewritten(f, classes=["a", "a", "c"]), "names one twice"),
    "no time": (lambda f: rewritten(f, when="yesterday"), "yesterday"),
    "a new field": (lambda f: rewritten(f, colour="red"), "another version of tenfold"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_version_is_refused_with_the_way_out(run: Path, damage: str) -> None:
    for n in (1, 2, 3):
        add(run, n, *"abc"[:n])
    spoil, words = DAMAGES[damage]
    spoil(run / "learned/0003.safetensors")
    store = Versions(run, f"tenfold learn '{run}' --to")
    for act in (store.read, store.undo):
        with pytest.raises(ValueError) as caught:
            act()
        message = str(caught.value)
        assert words in message and "0003.safetensors" in message and "\n" not in message
        assert f"`tenfold learn '{run}' --to 2` goes back to version 2" in message
    assert [bool(row.problem) for row in store.history()][:3] == [False] * 3
    assert (store.go(2), value(run)) == (2, 2.0)
    with pytest.raises(ValueError, match=r"0003\.safetensors|has no version 3"):
        store.go(3)
    assert value(run) == 2.0


def test_the_way_out_skips_other_damaged_versions(run: Path) -> None:
    for n in (1, 2, 3):
        add(run, n, *"abc"[:n])
    for n in (2, 3):
        truncated(run / f"learned/000{n}.safetensors")
    with pytest.raises(ValueError, match=r"go\(1\)"):
        Versions(run).read()
    truncated(run / "learned/0001.safetensors")
    with pytest.raises(ValueError, match=r"go\(0\)"):
        Versions(run).read()
    assert [bool(row.problem) for row in Versions(run).history()] == [False, True, True, True]
    assert (Versions(run).go(0), value(run)) == (0, 0.0)


def test_after_another_training_nothing_learned_is_used(run: Path) -> None:
    add(run, 1.0, "a")
    checkpoint.write_tensors(run / "weights.safetensors", {"w": torch.ones(6)})
    with pytest.raises(ValueError, match=r"upon other weights .* trained again.*go\(0\)"):
        Versions(run).read()
    assert Versions(run).go(0) == 0
    assert add(run, 2.0, "b") == 2 and value(run) == 2.0


def test_weights_that_change_while_learning_make_no_version_of_the_new_ones(run: Path) -> None:
    store = Versions(run)
    assert re.fullmatch("[0-9a-f]{64}", store.weights)  # read before what is learned upon them
    checkpoint.write_tensors(run / "weights.safetensors", {"w": torch.ones(6)})
    store.add(state(1.0), learned("a"))
    with pytest.raises(ValueError, match=r"upon other weights"):
        Versions(run).read()


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "3", "null", '{"version": -1}', '{"version": true}', '{"version": "1"}']
    + ['{"version": 1.0}', "{}", "[" * 100_000, '{"version": ' + "9" * 5000 + "}", "\x00"],
    ids=lambda text: text[:16],
)
def test_a_damaged_pointer_is_refused_and_can_be_written_anew(run: Path, text: str) -> None:
    add(run, 1.0, "a")
    (run / "learned/current.json").write_text(text)
    for act in (Versions(run).read, Versions(run).history, lambda: add(run, 2.0, "b")):
        with pytest.raises(ValueError, match=r"current\.json .*go\(N\).* 0, 1$"):
            act()
    assert (Versions(run).go(1), value(run)) == (1, 1.0)


def test_other_files_are_left_alone(run: Path) -> None:
    add(run, 1.0, "a")
    names = ("0000.safetensors", "notes.txt", "00001.safetensors", "0002.txt", "x2.safetensors")
    for name in names:
        (run / "learned" / name).write_text("mine")
    (run / "learned/0003.safetensors").mkdir()
    (run / "learned/mine.tmp").mkdir()
    assert [r.number for r in Versions(run).history()] == [0, 1]
    assert add(run, 2.0, "a", "b") == 2
    assert all((run / "learned" / name).read_text() == "mine" for name in names)


def test_a_file_in_place_of_the_folder(run: Path) -> None:
    (run / "learned").write_text("mine")
    assert Versions(run).current() == 0
    with pytest.raises(ValueError, match="learned must be a folder"):
        add(run, 1.0, "a")
    assert (run / "learned").read_text() == "mine"


@pytest.mark.parametrize(
    "wrong",
    [
        Learned((), (), (), 0, 0, ("a",)),
        Learned(("a",), (1, 2), (), 0, 0, ("a",)),
        Learned(("a",), (0,), (), 0, 0, ("a",)),
        Learned(("a",), (1,), (), 0, 0, ("b",)),
        Learned(("a",), (1,), (), 0, 0, ("a", "a")),
        *(Learned((n,), (1,), (), 0, 0, (n,)) for n in ("", " ", "a\nb", "\x1b[2J", "x" * 101)),
    ],
)
def test_what_cannot_be_read_back_is_not_written(run: Path, wrong: Learned) -> None:
    with pytest.raises(ValueError):
        Versions(run).add(state(1.0), wrong)
    assert Versions(run).current() == 0 and not list((run / "learned").glob("*.safetensors*"))


def test_equal_states_make_equal_digests_and_all_else_another(run: Path) -> None:
    one = {"a": torch.ones(2, 3), "b": torch.zeros(1)}
    same = versions._digest(dict(reversed(one.items())), ("x", "y"))
    assert versions._digest(one, ("x", "y")) == same
    others = [
        versions._digest({**one, "a": torch.ones(3, 2)}, ("x", "y")),
        versions._digest({**one, "a": torch.ones(2, 3).int()}, ("x", "y")),
        versions._digest({"a": one["a"], "c": one["b"]}, ("x", "y")),
        versions._digest(one, ("y", "x")),
    ]
    assert len({same, *others}) == 5
