"""SPGSN and files of users: what is wrong with one is said, what is right comes back as BVH."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.spatial.transform import Rotation
from tiny import options

import tenfold
from tenfold import cli
from tenfold.data.motion import continuing
from tenfold.data.motion.bvh import read_bvh, write_bvh
from tenfold.data.motion.bvh_motion import Bvh
from tenfold.data.motion.kinematics import positions_to_rotations
from tenfold.data.motion.skeleton import CMU
from tenfold.generated import walker
from tenfold.systems.spgsn import Spgsn, predict
from tenfold.systems.spgsn.takes import blank_bvh

pytestmark = pytest.mark.usefixtures("generated_only")
Wrong = Callable[..., str]
PAST, FUTURE = 10, 10  # of the tiny run


@pytest.fixture(scope="module")
def run_folder(made: Callable[[str], Path]) -> Path:
    return made("spgsn")


@pytest.fixture(scope="module")
def system(run_folder: Path) -> Spgsn:
    found = tenfold.load(run_folder)
    assert isinstance(found, Spgsn)
    assert (found.cfg.data.past, found.cfg.data.future) == (PAST, FUTURE)
    return found


@pytest.fixture
def wrong(
    run_folder: Path, system: Spgsn, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> Wrong:
    """The command line refuses to predict from a file: returns its one line."""

    def refused(file: Path, *words: str) -> str:
        out = tmp_path / "out"
        with pytest.raises(SystemExit) as end:
            cli.main(["predict", str(run_folder), str(file), "--out", str(out)])
        err = capsys.readouterr().err
        assert end.value.code == 2 and len(err.strip().splitlines()) == 1, err
        assert not out.exists() or not list(out.iterdir())
        for word in (file.name, *words):
            assert word in err
        with pytest.raises(ValueError, match="."):
            system.predict(file, out)
        return err

    return refused


@pytest.fixture
def no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Predictions without animations and plots, which take most of the time."""
    monkeypatch.setattr(predict, "write_animation", lambda path, *_: path.write_bytes(b"a film"))
    monkeypatch.setattr(predict, "prediction_figure", lambda *_: b"a figure")


@pytest.fixture
def no_fading(monkeypatch: pytest.MonkeyPatch) -> None:
    """A BVH has the network's poses from the second predicted one on (the first never jumps)."""
    monkeypatch.setattr(continuing, "SEAM", 1e-6)


def walk(frames: int = 60) -> np.ndarray:
    return walker.clips("test", seed=3, num_per_action=1, frames=frames)[0].positions


def save(path: Path, **arrays: np.ndarray) -> Path:
    np.savez(path, **arrays)
    return path


def expmap(frames: int = 100, columns: int = 117) -> np.ndarray:
    return np.random.default_rng(0).normal(0, 0.1, (frames, columns))


def save_text(path: Path, table: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(",".join(f"{v:.6f}" for v in row) + "\n" for row in table))
    return path


def cmu_bvh(path: Path, frames: int = 60) -> tuple[Path, np.ndarray]:
    """A walker that also moves and turns, as a BVH; and its hip-aligned positions."""
    positions, template = walk(frames).astype(np.float64), blank_bvh(CMU)
    assert template is not None
    rotations = positions_to_rotations(positions, template.offsets, CMU.parents)
    places = np.broadcast_to(template.offsets, positions.shape).copy()
    turns = np.linspace([0, 0, 0], [0, 1.5, 0], frames)
    rotations[:, 0] = Rotation.from_rotvec(turns).as_matrix()
    places[:, 0] = np.linspace([0, 900, 0], [1500, 950, 200], frames)
    write_bvh(path, template.with_pose(rotations, places))
    return path, positions


STICK = (
    """HIERARCHY
ROOT Hips
{
  OFFSET 0 0 0
  CHANNELS 6 Xposition Yposition Zposition Zrotation Xrotation Yrotation
  JOINT Chest
  {
    OFFSET 0 10 0
    CHANNELS 3 Zrotation Xrotation Yrotation
    End Site
    {
      OFFSET 0 10 0
    }
  }
}
MOTION
Frames: 30
Frame Time: 0.0166667
"""
    + "0 0 0 0 0 0 5 5 5\n" * 30
)


# --- files to predict from ---------------------------------------------------------------------


def test_a_kind_that_is_not_known(tmp_path: Path, wrong: Wrong) -> None:
    (tmp_path / "walk.fbx").write_bytes(b"Kaydara FBX Binary")
    wrong(tmp_path / "walk.fbx", ".bvh", ".npz", ".txt")


def test_wrong_numbers_of_joints(tmp_path: Path, wrong: Wrong) -> None:
    wrong(save(tmp_path / "few.npz", positions=walk()[:, :32]), "(60, 32, 3)", "(frames, 38, 3)")
    wrong(save(tmp_path / "flat.npz", positions=walk().reshape(60, -1)), "(frames, 38, 3)")
    wrong(save(tmp_path / "e.npz", expmap=expmap(columns=99)), "99", "117")
    wrong(save_text(tmp_path / "h36m.txt", expmap(columns=99)), "line 1", "99", "117")
    wrong(save(tmp_path / "other.npz", joints=walk()), "positions", "joints")


def test_another_skeleton(tmp_path: Path, wrong: Wrong) -> None:
    (tmp_path / "stick.bvh").write_text(STICK)
    wrong(tmp_path / "stick.bvh", "3 joints", "38", "--data.name bvh")


def test_frames_that_are_not_finite(tmp_path: Path, wrong: Wrong) -> None:
    positions = walk()
    positions[7, 5, 1] = np.nan
    wrong(save(tmp_path / "nan.npz", positions=positions), "frame 7", "nan")
    table = expmap()
    table[12, 40] = np.inf
    wrong(save(tmp_path / "inf.npz", expmap=table), "frame 12", "inf")
    wrong(save_text(tmp_path / "inf.txt", table), "line 13", "inf")
    lines = cmu_bvh(tmp_path / "nan.bvh")[0].read_text().splitlines()
    first = lines[-3].split()
    lines[-3] = " ".join(["nan", *first[1:]])
    (tmp_path / "nan.bvh").write_text("\n".join(lines))
    wrong(tmp_path / "nan.bvh", f"line {len(lines) - 2}")


def test_positions_that_are_no_body_seen_from_the_hips(tmp_path: Path, wrong: Wrong) -> None:
    """In metres, of no size, somewhere in the world, or with a joint that flies off."""
    wrong(save(tmp_path / "metres.npz", positions=walk() / 1000), "0.001 times", "times 1000")
    wrong(save(tmp_path / "zeros.npz", positions=0 * walk()), "0 times")
    wrong(save(tmp_path / "far.npz", positions=walk() + [0, 900, 0]), "'Hips'", "900 mm", "BVH")
    positions = walk()
    positions[7, 5, 1] = 1e30
    wrong(save(tmp_path / "huge.npz", positions=positions), "frame 7", "1e+30 mm")


def test_a_link_to_itself(
    run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "loop.bvh").symlink_to("loop.bvh")
    with pytest.raises(SystemExit) as end:
        cli.main(["predict", str(run_folder), str(tmp_path / "loop.bvh")])
    assert end.value.code == 2 and "loop.bvh does not exist" in capsys.readouterr().err


def test_too_few_frames(tmp_path: Path, wrong: Wrong) -> None:
    wrong(save(tmp_path / "short.npz", positions=walk()[:9]), "9 frames", "10 are observed")
    wrong(save(tmp_path / "none.npz", positions=walk()[:0]), "0 frames")
    wrong(save_text(tmp_path / "short.txt", expmap(18)), "9 frames", "10 are observed")
    wrong(cmu_bvh(tmp_path / "short.bvh", 5)[0], "5 frames", "10 are observed")


def test_files_that_are_cut_off(tmp_path: Path, wrong: Wrong) -> None:
    whole = save(tmp_path / "cut.npz", positions=walk()).read_bytes()
    for size in (len(whole) // 2, 30, 0):
        (tmp_path / "cut.npz").write_bytes(whole[:size])
        wrong(tmp_path / "cut.npz")
    text = save_text(tmp_path / "cut.txt", expmap()).read_text()
    (tmp_path / "cut.txt").write_text(text[:-400])
    wrong(tmp_path / "cut.txt", "line 100", "cut off")
    (tmp_path / "cut.txt").write_text("")
    wrong(tmp_path / "cut.txt", "no frames")
    lines = cmu_bvh(tmp_path / "cut.bvh")[0].read_text().splitlines()
    for kept in (lines.index("MOTION"), 20):
        (tmp_path / "cut.bvh").write_text("\n".join(lines[:kept]))
        wrong(tmp_path / "cut.bvh", "line", "cut off")
    (tmp_path / "cut.bvh").write_text("\n".join([*lines[:-1], lines[-1][:50]]))
    wrong(tmp_path / "cut.bvh", f"line {len(lines)}", "frame 59")


def test_files_that_hold_something_else(tmp_path: Path, wrong: Wrong) -> None:
    (tmp_path / "image.npz").write_bytes(b"\x89PNG\r\n\x1a\n" * 20)
    wrong(tmp_path / "image.npz")
    (tmp_path / "image.txt").write_bytes(b"\x89PNG\r\n\x1a\n" * 20)
    wrong(tmp_path / "image.txt")
    (tmp_path / "image.bvh").write_bytes(b"\x89PNG\r\n\x1a\n" * 20)
    wrong(tmp_path / "image.bvh", "line 1")
    wrong(save(tmp_path / "int.npz", positions=np.zeros((30, 38, 3), int)), "int64")


class Payload:
    """Makes a folder when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> object:
        return os.mkdir, (str(self.marker),)


def test_objects_in_an_npz_are_refused_and_not_run(tmp_path: Path, wrong: Wrong) -> None:
    hidden = np.array([Payload(tmp_path / "ran")] * 20, dtype=object)
    wrong(save(tmp_path / "objects.npz", positions=hidden))
    assert not (tmp_path / "ran").exists()


# --- data to train on --------------------------------------------------------------------------


@pytest.fixture
def no_training(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., None]:
    """`tenfold train` refuses data: one line that names these words, and no weights."""

    def refused(name: str, path: Path, words: Sequence[str], *more: str) -> None:
        run = tmp_path / "run"
        argv = ["train", "spgsn", "demo", *options("spgsn"), "--run.fresh"]
        argv += ["--data.name", name, "--data.path", str(path), "--run.folder", str(run), *more]
        with pytest.raises(SystemExit) as end:
            cli.main(argv)
        err = capsys.readouterr().err
        assert end.value.code == 2 and len(err.strip().splitlines()) == 1, err
        assert not list(run.rglob("*.safetensors")) and not (run / "result.json").exists()
        for word in words:
            assert word in err

    return refused


def test_training_on_damaged_cmu(tmp_path: Path, no_training: Callable[..., None]) -> None:
    root = tmp_path / "cmu"
    good = save_text(root / "train/walking/walking_1.txt", expmap())
    save_text(root / "test/walking/walking_1.txt", expmap())
    other = save_text(root / "train/wlaking/wlaking_1.txt", expmap())
    no_training("cmu_mocap", root, ["unknown action 'wlaking'", "'walking'"])
    other.unlink()
    other.parent.rmdir()
    text = good.read_text()
    good.write_text(text[:-300])
    no_training("cmu_mocap", root, ["walking_1.txt", "line 100", "cut off"])
    good.write_text(text.replace(text.split(",")[200], "nan", 1))
    no_training("cmu_mocap", root, ["walking_1.txt", "line", "nan"])
    save_text(good, expmap(38))
    no_training("cmu_mocap", root, ["walking_1.txt", "19 frames", "20"])
    whole = save(tmp_path / "benchmark.npz", **{"train/walking/walking_1": expmap()}).read_bytes()
    (tmp_path / "benchmark.npz").write_bytes(whole[:-200])
    no_training("cmu_mocap", tmp_path / "benchmark.npz", ["benchmark.npz", "cut off"])
    hidden = np.array([Payload(tmp_path / "ran")], dtype=object)
    save(tmp_path / "benchmark.npz", **{"train/walking/walking_1": hidden})
    no_training("cmu_mocap", tmp_path / "benchmark.npz", ["train/walking/walking_1"])
    assert not (tmp_path / "ran").exists()


def test_training_on_a_pickle_with_code(tmp_path: Path, no_training: Callable[..., None]) -> None:
    (tmp_path / "3dpw/train").mkdir(parents=True)
    file = tmp_path / "3dpw/train/street_00.pkl"
    file.write_bytes(pickle.dumps({"jointPositions": [Payload(tmp_path / "ran")]}, protocol=2))
    no_training("3dpw", tmp_path / "3dpw", ["street_00.pkl", "mkdir", "only numpy arrays"])
    assert not (tmp_path / "ran").exists()


def test_training_on_bvh_of_two_skeletons(tmp_path: Path, no_training: Callable[..., None]) -> None:
    folder = tmp_path / "mine"
    for number in range(3):
        folder.mkdir(exist_ok=True)
        cmu_bvh(folder / f"walk_{number}.bvh", 40)
    (folder / "walk_1.bvh").write_text(STICK)
    no_training("bvh", folder, ["walk_1.bvh", "another skeleton"], "--data.mm-per-unit", "1")


@pytest.mark.usefixtures("no_figures")
def test_training_on_bvh_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The skeleton, its rate and its parts come from the files; the run predicts such a file."""
    folder = tmp_path / "mine"
    folder.mkdir()
    for number in range(3):
        cmu_bvh(folder / f"walk_{number}.bvh", 60)
    monkeypatch.setattr(Spgsn, "draw_pictures", lambda *_: {})
    monkeypatch.setattr("tenfold.runner.train.write_run_page", lambda *_: None)
    words = ["train", "spgsn", "demo", *options("spgsn"), "--steps", "1", "--data.name", "bvh"]
    words += ["--data.path", str(folder), "--data.mm-per-unit", "1.0"]
    cli.main([*words, "--run.folder", str(tmp_path / "run")])
    system = tenfold.load(tmp_path / "run")
    assert system.data_used().kind == "real"
    assert system.cfg.skeleton.joints == read_bvh(folder / "walk_0.bvh").joints
    written = system.predict(folder / "walk_2.bvh", tmp_path / "out")
    assert "walk_2.predicted.bvh" in {p.name for p in written}


# --- what comes back ---------------------------------------------------------------------------


def arrays(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as held:
        return {key: held[key] for key in held.files}


def directions(positions: np.ndarray, parents: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors of the bones, and which of them a joint with one child alone decides."""
    bones = positions[:, 1:] - positions[:, list(parents)[1:]]
    length = np.linalg.norm(bones, axis=-1, keepdims=True)
    single = np.array([parents.count(p) == 1 for p in parents[1:]])
    return bones / np.maximum(length, 1e-9), single & (length[..., 0] > 1).all(0)


def assert_same_poses(got: np.ndarray, want: np.ndarray) -> None:
    """Bones point the same way; positions agree but for the lengths that a BVH cannot change."""
    ours, decided = directions(got, CMU.parents)
    theirs, _ = directions(want, CMU.parents)
    cosines = (ours * theirs).sum(-1)[:, decided]
    assert decided.sum() > 15 and cosines.min() > 1 - 1e-5
    body = np.linalg.norm(want.max(1) - want.min(1), axis=-1).min()
    assert np.linalg.norm(got - want, axis=-1).mean() < 0.05 * body


@pytest.mark.usefixtures("no_fading")
def test_bvh_comes_back_as_bvh(system: Spgsn, tmp_path: Path) -> None:
    file, positions = cmu_bvh(tmp_path / "walk.bvh")
    written = system.predict(file, tmp_path / "out")
    kinds = {p.name.removeprefix("walk.") for p in written}
    assert kinds == {
        "predicted.bvh", "continued.bvh", "predicted.npz", "animation.gif", "error.png",
        "viewer.html",
    }  # fmt: skip
    assert sorted((tmp_path / "out").iterdir()) == sorted(written)
    assert written[-1].name == "walk.viewer.html"  # what to look at first
    held = arrays(tmp_path / "out/walk.predicted.npz")
    np.testing.assert_allclose(held["observed"], positions[-20:-10], atol=0.01)
    np.testing.assert_allclose(held["truth"], positions[-10:], atol=0.01)
    assert held["predicted"].shape == held["continued"].shape == (FUTURE, 38, 3)
    assert held["spread"].shape == (FUTURE, 38) and held["fps"] == 60
    assert tuple(held["joints"]) == CMU.joints

    source = read_bvh(file)
    predicted = read_bvh(tmp_path / "out/walk.predicted.bvh")
    continued = read_bvh(tmp_path / "out/walk.continued.bvh")
    for bvh, seen in ((predicted, slice(-20, -10)), (continued, slice(None))):
        count = len(source.motion[seen])
        assert (bvh.joints, bvh.parents) == (source.joints, source.parents)
        assert len(bvh.motion) == count + FUTURE and bvh.frame_time == source.frame_time
        np.testing.assert_allclose(bvh.positions()[:count], source.positions()[seen], atol=0.01)
    assert_same_poses(predicted.positions(root=0)[PAST + 1 :], held["predicted"][1:])
    assert_same_poses(continued.positions(root=0)[1 - FUTURE :], held["continued"][1:])
    assert_root_goes_on(predicted, PAST)
    assert_root_goes_on(continued, 60)
    with Image.open(tmp_path / "out/walk.animation.gif") as gif:
        assert gif.n_frames == PAST + FUTURE


def assert_root_goes_on(bvh: Bvh, observed: int) -> None:
    """The body keeps its velocity, within what its feet may change, and the turn of its heading."""
    steps = np.diff(bvh.motion[:, :3], axis=0)
    flat, seen = steps[observed - 1 :, [0, 2]], steps[observed - 2, [0, 2]]
    assert np.linalg.norm(flat - seen, axis=1).max() < 0.5 * np.linalg.norm(seen)
    angles = np.diff(bvh.motion[:, 5])
    np.testing.assert_allclose(angles[observed - 1 :], angles[observed - 2], atol=1e-4)
    assert np.abs(steps[observed - 1 :, 1]).max() < 0.5 * np.linalg.norm(seen)


@pytest.mark.usefixtures("no_figures", "no_fading")
def test_npz_and_text_come_back_as_bvh_of_the_benchmark_body(system: Spgsn, tmp_path: Path) -> None:
    from_npz = system.predict(save(tmp_path / "walk.npz", positions=walk()), tmp_path / "npz")
    from_text = system.predict(save_text(tmp_path / "e.txt", expmap()), tmp_path / "text")
    assert len(from_npz) == len(from_text) == 6
    held = arrays(tmp_path / "npz/walk.predicted.npz")
    bvh = read_bvh(tmp_path / "npz/walk.predicted.bvh")
    assert_same_poses(bvh.positions(root=0)[:PAST], held["observed"])
    assert_same_poses(bvh.positions(root=0)[PAST + 1 :], held["predicted"][1:])
    with np.load(tmp_path / "text/e.predicted.npz") as other:
        assert other["truth"].shape == (FUTURE, 38, 3)  # 100 lines, every second one kept


@pytest.mark.usefixtures("no_figures")
def test_a_template_continues_the_whole_clip(system: Spgsn, tmp_path: Path) -> None:
    system.predict(save(tmp_path / "walk.npz", positions=walk()), tmp_path / "out")
    assert len(read_bvh(tmp_path / "out/walk.continued.bvh").motion) == 60 + FUTURE


def test_without_a_truth_there_is_no_error_plot(system: Spgsn, tmp_path: Path) -> None:
    written = system.predict(save(tmp_path / "w.npz", positions=walk()[:12]), tmp_path / "out")
    assert not [p for p in written if p.name.endswith("error.png")]
    held = arrays(tmp_path / "out/w.predicted.npz")
    assert "truth" not in held and np.array_equal(held["predicted"], held["continued"])
    with Image.open(tmp_path / "out/w.animation.gif") as gif:
        assert gif.n_frames == PAST + FUTURE


@pytest.mark.usefixtures("no_figures")
def test_frame_rates_are_matched(system: Spgsn, tmp_path: Path) -> None:
    """A BVH at 120 frames a second is read at the run's 60."""
    file, _ = cmu_bvh(tmp_path / "fast.bvh", 60)
    text = file.read_text()
    (line,) = [row for row in text.splitlines() if row.startswith("Frame Time")]
    file.write_text(text.replace(line, "Frame Time: 0.00833333333"))
    system.predict(file, tmp_path / "out")
    continued = read_bvh(tmp_path / "out/fast.continued.bvh")
    assert len(continued.motion) == 30 + FUTURE and round(continued.fps) == 60


@pytest.mark.usefixtures("no_figures", "no_fading")
def test_a_body_of_another_size(system: Spgsn, tmp_path: Path) -> None:
    """Bones in centimetres: the network sees the training body's size, the BVH keeps its own."""
    file, positions = cmu_bvh(tmp_path / "small.bvh")
    bvh = read_bvh(file)
    motion = bvh.motion.copy()
    motion[:, :3] /= 10
    write_bvh(file, Bvh(bvh.joints, bvh.parents, bvh.offsets / 10, bvh.channels, 1 / 60, motion))
    system.predict(file, tmp_path / "out")
    held = arrays(tmp_path / "out/small.predicted.npz")
    np.testing.assert_allclose(held["truth"], positions[-10:], atol=0.01)
    predicted = read_bvh(tmp_path / "out/small.predicted.bvh").positions(root=0)
    assert_same_poses(10 * predicted[PAST + 1 :], held["predicted"][1:])
