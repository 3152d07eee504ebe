"""SPGSN at work: evaluation, pictures, batches, and predictions of a folder of motions."""

from __future__ import annotations

import csv
import gc
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import tenfold
from tenfold.core.seed import generator
from tenfold.core.system import Evaluation
from tenfold.data.motion import bvh_folder
from tenfold.data.motion.clips import Windows
from tenfold.generated import walker
from tenfold.systems.spgsn import Spgsn, predict
from tenfold.systems.spgsn.evaluation import Curves, horizons

pytestmark = pytest.mark.usefixtures("generated_only")


@pytest.fixture(scope="module")
def system(made: Callable[[str], Path]) -> Spgsn:
    found = tenfold.load(made("spgsn"))
    assert isinstance(found, Spgsn)
    return found


@pytest.fixture(scope="module")
def walk() -> np.ndarray:
    return walker.clips("test", seed=3, num_per_action=1, frames=30)[0].positions


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, walk: np.ndarray) -> Path:
    """Motions whose names differ in suffix and folder alone, and what is no motion."""
    folder = tmp_path_factory.mktemp("use") / "motions"
    (folder / "c").mkdir(parents=True)
    (folder / ".hidden").mkdir()
    np.savez(folder / "a.npz", positions=walk)
    np.savez(folder / "c/a.npz", positions=walk[:15])
    np.savez(folder / ".hidden/a.npz", positions=walk)
    table = np.random.default_rng(0).normal(0, 0.1, (50, 117))
    np.savetxt(folder / "a.txt", table, "%.6f", ",")
    (folder / "=broken.bvh").write_text("HIERARCHY\n")
    (folder / "notes.md").write_text("not a motion")
    return folder


@pytest.fixture(scope="module")
def written(system: Spgsn, folder: Path) -> list[Path]:
    """Files of the predictions of the folder."""
    return system.predict(str(folder), str(folder.parent / "out"))


@pytest.fixture
def no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Predictions without animations and plots, which take most of the time."""
    monkeypatch.setattr(predict, "write_animation", lambda path, *_: path.write_bytes(b"a film"))
    monkeypatch.setattr(predict, "prediction_figure", lambda *_: b"a figure")


# --- a folder of motions -----------------------------------------------------------------------


def test_results_of_a_folder_do_not_overwrite_each_other(written: list[Path], folder: Path) -> None:
    out = folder.parent / "out"
    kinds = ("predicted.npz", "predicted.bvh", "continued.bvh", "animation.gif", "error.png")
    kinds += ("viewer.html",)
    expected = {f"{name}.{kind}" for name in ("a.npz", "a.txt", "c/a.npz") for kind in kinds}
    expected = expected - {"c/a.npz.error.png"} | {"predictions.csv", "predictions.html"}
    assert {p.relative_to(out).as_posix() for p in written} == expected
    assert {p.relative_to(out).as_posix() for p in out.rglob("*.*")} == expected
    assert written[-1].name == "predictions.html"

    with (out / "predictions.csv").open() as file:
        rows = {row["file"]: row for row in csv.DictReader(file)}
    assert list(rows) == ["'=broken.bvh", "a.npz", "a.txt", "c/a.npz"]
    assert "cut off" in rows["'=broken.bvh"]["problem"] and not rows["'=broken.bvh"]["frames"]
    assert [row["frames"] for row in rows.values()][1:] == ["30", "25", "15"]
    with np.load(out / "a.npz.predicted.npz") as held:
        error = np.linalg.norm(held["predicted"] - held["truth"], axis=-1).mean()
    assert float(rows["a.npz"]["error mm"]) == pytest.approx(error, abs=1e-3)
    assert rows["c/a.npz"]["error mm"] == rows["c/a.npz"]["problem"] == ""
    page = (out / "predictions.html").read_text()
    assert page.count("data:image/gif") == 3 and "1 of 4 files cannot be read" in page
    assert "Not read" in page and "generated" in page and "edge masks at inference: mean" in page


def test_a_folder_gives_what_its_files_give_alone(
    system: Spgsn, written: list[Path], folder: Path, tmp_path: Path
) -> None:
    for alone in system.predict(folder / "c/a.npz", tmp_path):
        together = written[-1].parent / "c" / alone.name.replace("a.", "a.npz.", 1)
        assert together.read_bytes() == alone.read_bytes()


@pytest.mark.usefixtures("no_figures")
def test_predictions_are_not_predicted_from(
    system: Spgsn, tmp_path: Path, walk: np.ndarray
) -> None:
    folder = tmp_path / "motions"
    folder.mkdir()
    np.savez(folder / "a.npz", positions=walk[:12])
    first = system.predict(folder, folder / "out")
    assert system.predict(folder, folder / "out") == first
    with pytest.raises(ValueError, match="another folder with --out"):
        system.predict(folder, folder)


def test_folders_without_a_motion(system: Spgsn, tmp_path: Path) -> None:
    empty, broken = tmp_path / "empty", tmp_path / "broken"
    for one in (empty, broken):
        one.mkdir()
    with pytest.raises(ValueError, match=r"empty holds no motion \(.bvh .npz .txt\)"):
        system.predict(empty, tmp_path / "out")
    (broken / "b.npz").write_bytes(b"")
    with pytest.raises(ValueError, match="none of 1 files can be read; the first: .*b.npz"):
        system.predict(broken, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("no_figures")
def test_a_folder_that_may_not_be_looked_into_is_listed(
    system: Spgsn, shut: Callable[[Path], None], tmp_path: Path, walk: np.ndarray
) -> None:
    folder = tmp_path / "motions"
    (folder / "shut").mkdir(parents=True)
    np.savez(folder / "a.npz", positions=walk[:12])
    shut(folder / "shut")
    system.predict(folder, tmp_path / "out")
    with (tmp_path / "out/predictions.csv").open() as file:
        said = {row["file"]: row["problem"] for row in csv.DictReader(file)}
    assert not said["a.npz"] and "may not be looked into" in said["shut"]
    with pytest.raises(PermissionError):  # motions to train on are not left out
        bvh_folder.files_below(folder)


@pytest.mark.usefixtures("no_figures")
def test_links_that_leave_the_folder_are_not_followed(
    system: Spgsn, tmp_path: Path, walk: np.ndarray
) -> None:
    folder = tmp_path / "motions"
    folder.mkdir()
    np.savez(folder / "a.npz", positions=walk)
    (tmp_path / "secret.txt").write_text("secret")
    (folder / "b.txt").symlink_to(tmp_path / "secret.txt")
    (tmp_path / "elsewhere").mkdir()
    (folder / "c").symlink_to(tmp_path / "elsewhere")
    (folder / "self.bvh").symlink_to("self.bvh")
    (folder / "gone.bvh").symlink_to("nowhere.bvh")
    system.predict(folder, tmp_path / "out")
    table = (tmp_path / "out/predictions.csv").read_text()
    assert "secret" not in table and "elsewhere" not in table
    said = {row["file"]: row["problem"] for row in csv.DictReader(table.splitlines())}
    assert said.keys() == {"a.npz", "b.txt", "c", "gone.bvh", "self.bvh"} and not said["a.npz"]
    assert all("leads out of" in said[name] for name in ("b.txt", "c"))
    assert said["gone.bvh"] and said["self.bvh"]


@pytest.mark.usefixtures("no_figures")
def test_one_motion_is_in_memory_at_a_time(
    system: Spgsn, tmp_path: Path, walk: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[weakref.ref[object]] = []
    read_take, folder = predict.read_take, tmp_path / "motions"
    folder.mkdir()
    for number in range(3):
        np.savez(folder / f"{number}.npz", positions=walk[:12])

    def read(*given: object) -> object:
        gc.collect()
        assert not [one for one in held if one() is not None]
        take = read_take(*given)
        held.append(weakref.ref(take))
        return take

    monkeypatch.setattr(predict, "read_take", read)
    system.predict(folder, tmp_path / "out")
    assert len(held) == 3


# --- evaluation --------------------------------------------------------------------------------


def test_an_evaluation_is_all_that_pictures_need(
    system: Spgsn, made: Callable[[str], Path], tmp_path: Path
) -> None:
    evaluation = system.evaluate("test")
    assert isinstance(evaluation.details, Curves)
    assert set(evaluation.details.average) == {"spgsn", "repeat last pose"}
    assert evaluation.baselines["repeat last pose"].keys() == evaluation.metrics.keys()
    captions = tenfold.load(made("spgsn")).pictures(evaluation, str(tmp_path / "pictures"))
    assert len(captions) == 3 and all(p.stat().st_size for p in captions)
    trained = made("spgsn") / "pictures"  # drawn when the run ended
    for path in captions:
        assert path.read_bytes() == (trained / path.name).read_bytes()


@pytest.mark.usefixtures("no_figures")
def test_drawn_masks_follow_from_the_seed(system: Spgsn, walk: np.ndarray, tmp_path: Path) -> None:
    """The official way of predicting is random; ours gives the same numbers each time."""
    np.savez(tmp_path / "walk.npz", positions=walk)
    clips = system.motions.test.clips[:1]

    def measured(seed: int) -> tuple[Evaluation, bytes]:
        model = replace(system.cfg.model, mask_eval="sample", edge_prob=0.4)
        sampled = Spgsn(replace(system.cfg, model=model, seed=seed))
        sampled.model.load_state_dict(system.model.state_dict())
        vars(sampled.motions)["test"] = Windows(clips, sampled.motions.length)
        written = sampled.predict(tmp_path / "walk.npz", tmp_path / "out")
        (npz,) = [p for p in written if p.suffix == ".npz"]
        return sampled.evaluate("test"), npz.read_bytes()

    (first, early), (again, late), (other, elsewhere) = map(measured, (0, 0, 1))
    assert first.metrics == again.metrics and early == late
    assert first.metrics != other.metrics and early != elsewhere


def test_headline_and_titles_of_other_frame_rates(system: Spgsn) -> None:
    assert system.headline == Spgsn.headline
    assert system.labels()["80ms"] == "80ms (true 33 ms)"
    assert "80ms (true 33 ms) ahead" in system.labels()["mpjpe/average/80ms"]
    slow = Spgsn(replace(system.cfg, skeleton=replace(system.cfg.skeleton, label_fps=30.0)))
    assert list(horizons(slow.cfg)) == ["100ms", "200ms", "300ms"]
    assert slow.headline == ["mpjpe/average/100ms", "mpjpe/average/300ms"]


# --- batches -----------------------------------------------------------------------------------


def test_rows_of_a_batch(system: Spgsn) -> None:
    """An epoch is a permutation that follows from the seed and the epoch; the rest is dropped."""
    motions, size = system.motions, system.cfg.data.batch_size
    count = len(motions.train)
    steps = count // size
    assert motions.epochs.steps == steps > 1
    for index in (0, 1, steps - 1, steps, 2 * steps + 1):
        epoch, place = divmod(index, steps)
        order = torch.randperm(count, generator=generator(system.cfg.seed, "order", epoch))
        rows = order[place * size : (place + 1) * size].numpy()
        assert np.array_equal(motions.epochs.rows(index), rows)
        batch = motions.batch(index)["positions"]
        used = motions.train.gather(rows)[:, :, list(system.cfg.skeleton.used)]
        assert np.array_equal(batch.numpy(), used.reshape(size, motions.length, -1))
