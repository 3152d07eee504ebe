"""SPGSN on files of the tools that people have: predictions that go on where the body was going."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import motions
import numpy as np
import pytest
import torch

from tenfold.data.images.films import open_film
from tenfold.data.motion.bvh import read_bvh
from tenfold.systems.spgsn import Spgsn, predict
from tenfold.systems.spgsn.config import PredictOptions
from tenfold.systems.spgsn.evaluation import LAST, NOISY, corrupted, horizon_of, weights_kept
from tenfold.systems.spgsn.figures import COLOURS
from tenfold.systems.spgsn.inference import drawn, forecast, predict_take

PAST, FUTURE = 10, 25


def trained(folder: Path, unit: float, steps: int = 3) -> Spgsn:
    """A small network after a few steps, on a folder of BVH files."""
    demo = Spgsn.recipes["demo"]
    cfg = replace(
        demo,
        model=replace(demo.model, width=8, num_blocks=1),
        data=replace(demo.data, name="bvh", path=str(folder), mm_per_unit=10 / unit, batch_size=4),
    )
    torch.manual_seed(0)
    system = Spgsn(Spgsn.complete(cfg))
    stage = next(system.stages())
    optimiser = torch.optim.Adam(stage.model.parameters(), lr=1e-3)
    for step in range(steps):
        loss = stage.model.train()(stage.batches(step))["loss"]
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return system


@pytest.fixture
def no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predict, "write_animation", lambda path, *_: path.write_bytes(b"a film"))
    monkeypatch.setattr(predict, "prediction_figure", lambda *_: b"a figure")


@pytest.mark.usefixtures("no_figures")
@pytest.mark.parametrize("name", motions.TOOLS)
def test_a_prediction_goes_on_where_the_body_was_going(name: str, tmp_path: Path) -> None:
    tool, folder = motions.TOOLS[name], tmp_path / "takes"
    folder.mkdir()
    for number in range(2):
        (folder / f"walk_{number}.bvh").write_text(motions.text(tool, 45, number))
    system = trained(folder, tool.unit)
    written = system.predict(folder / "walk_1.bvh", tmp_path / "out")
    predicted, continued = (read_bvh(p) for p in written[:2])
    source = read_bvh(folder / "walk_1.bvh")
    assert len(predicted.motion) == PAST + FUTURE and len(continued.motion) == 45 + FUTURE
    assert (continued.joints, continued.channels) == (source.joints, source.channels)
    np.testing.assert_allclose(continued.motion[:45], source.motion, atol=1e-5)
    for bvh, seen in ((predicted, PAST), (continued, 45)):
        positions, rotations = bvh.positions(), bvh.rotations()
        steps = np.linalg.norm(np.diff(positions, axis=0), axis=-1)
        assert steps[seen - 1].max() <= 2 * steps[: seen - 1].max()
        turns = rotations[seen - 1].swapaxes(-1, -2) @ rotations[seen]
        angles = np.degrees(np.arccos(np.clip((np.trace(turns, axis1=1, axis2=2) - 1) / 2, -1, 1)))
        turning = [bool(own) for own in bvh.channels]
        assert angles[turning].mean() <= 10
    # the way through the world goes on: 1.1 m a second
    root = positions[:, bvh.joints.index(system.cfg.skeleton.joints[system.cfg.skeleton.root])]
    gone = np.linalg.norm(root[-1] - root[44]) / tool.unit
    assert gone == pytest.approx(110 * FUTURE / tool.fps, rel=0.35)
    assert_read_equal_by_bvhio(written[0])


def assert_read_equal_by_bvhio(path: Path) -> None:
    """Another reader, of other people, finds the same places."""
    bvhio = pytest.importorskip("bvhio")
    body, hierarchy = read_bvh(path), bvhio.readAsHierarchy(str(path))
    positions, own = body.positions(), [j for j, c in enumerate(body.channels) if c]
    for frame in (0, PAST, PAST + FUTURE - 1):
        hierarchy.loadPose(frame)
        found = np.array([tuple(joint.PositionWorld) for joint, _, _ in hierarchy.layout()])
        np.testing.assert_allclose(found, positions[frame, own], rtol=1e-4, atol=1e-3)
    assert bvhio.readAsBvh(str(path)).FrameCount == len(body.motion)


# --- training and predicting on what people have -----------------------------------------------


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Spgsn:
    """A run on two walks in centimetres."""
    folder = tmp_path_factory.mktemp("own")
    for number in range(2):
        text = motions.text(motions.TOOLS["rokoko"], 45, number)
        (folder / f"walk_{number}.bvh").write_text(text)
    return trained(folder, 1.0)


def test_mixed_rates_ask(tmp_path: Path) -> None:
    tool = motions.TOOLS["motionbuilder"]
    for number, fps in enumerate((30, 60, 30)):
        text = motions.text(replace(tool, fps=fps), 80, number)
        (tmp_path / f"walk_{number}.bvh").write_text(text)
    with pytest.raises(ValueError, match=r"walk_1.bvh has 60 frames a second.* 30\..*--data.fps"):
        trained(tmp_path, 1.0)
    demo = Spgsn.recipes["demo"]
    asked = replace(demo.data, name="bvh", path=str(tmp_path), fps=30.0)
    system = Spgsn(Spgsn.complete(replace(demo, data=asked)))
    assert [len(c.positions) for c in system.motions.clips("train")] == [80, 40]


def test_a_test_split_that_is_too_short_is_said_before_training(tmp_path: Path) -> None:
    tool = motions.TOOLS["motionbuilder"]
    (tmp_path / "walk.bvh").write_text(motions.text(tool, 120))
    with pytest.raises(ValueError, match="the last fifth, the test split, of its 120 frames has"):
        trained(tmp_path, 1.0, steps=0)


@pytest.mark.usefixtures("no_figures")
def test_a_body_in_metres_is_scaled(own: Spgsn, tmp_path: Path) -> None:
    tool = motions.TOOLS["rokoko"]
    (tmp_path / "a.bvh").write_text(motions.text(tool, 45, 1))
    (tmp_path / "b.bvh").write_text(motions.text(tool, 45, 1, scale=0.01))
    found = []
    for name in "ab":
        own.predict(tmp_path / f"{name}.bvh", tmp_path / "out")
        with np.load(tmp_path / f"out/{name}.predicted.npz") as held:
            found.append(held["predicted"])
    np.testing.assert_allclose(found[1], found[0], atol=2)  # rounded in the file to a hundredth
    small = read_bvh(tmp_path / "out/b.predicted.bvh").positions()
    np.testing.assert_allclose(
        100 * small, read_bvh(tmp_path / "out/a.predicted.bvh").positions(), atol=1.0
    )


@pytest.mark.usefixtures("no_figures")
def test_joints_that_the_run_does_not_know_keep_their_pose(own: Spgsn, tmp_path: Path) -> None:
    """Fingers, a prop, a joint above the hips, limbs in another order."""
    tool = replace(motions.TOOLS["rokoko"], above=["Armature"], beside=["Camera"], everywhere=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(motions, "ROLES", dict(reversed(motions.ROLES.items())))
        text = motions.text(tool, 45, 1)
    (tmp_path / "a.bvh").write_text(text)
    own.predict(tmp_path / "a.bvh", tmp_path / "out")
    source, got = (read_bvh(tmp_path / f) for f in ("a.bvh", "out/a.continued.bvh"))
    assert got.joints == source.joints
    column = got.motion.shape[1] - 6
    np.testing.assert_allclose(got.motion[:, column:], 0, atol=1e-9)  # the camera
    np.testing.assert_allclose(np.ptp(got.motion[:, :6], axis=0), 0, atol=1e-9)


def test_spread_is_of_the_noise_of_training(own: Spgsn) -> None:
    poses = own.motions.test.gather(np.array([0]))[0][:PAST]
    own.model.eval()
    dropped = forecast(own.model, own.cfg, own.motions.basis, poses, samples=4)
    assert drawn(own.cfg) == "dropout" and dropped.std(0).max() > 0.01  # mm
    again = forecast(own.model, own.cfg, own.motions.basis, poses, samples=4)
    np.testing.assert_array_equal(dropped, again)
    assert not own.model.training
    masks = replace(own.cfg, model=replace(own.cfg.model, edge_prob=0.4))
    assert drawn(masks) == "edge masks"
    still = replace(own.cfg, model=replace(own.cfg.model, dropout=0.0))
    assert drawn(still) == ""
    with pytest.raises(ValueError, match="without edge masks and without dropout"):
        forecast(own.model, still, own.motions.basis, poses, samples=4)
    assert predict_take(own.model, still, own.motions.basis, poses).spread is None


def test_films_and_the_viewer(own: Spgsn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "<b>.bvh").write_text(motions.text(motions.TOOLS["rokoko"], 45, 1))
    written = own.predict(tmp_path / "<b>.bvh", tmp_path / "out", PredictOptions(format="mp4"))
    (film,) = [p for p in written if p.name.endswith("animation.mp4")]
    opened = open_film(film)
    assert opened.count == PAST + FUTURE and opened.fps == pytest.approx(20)
    frame = opened.frame(20).astype(int)
    opened.close()
    for tone in COLOURS.values():  # limbs of both sides, and the trunk
        assert (np.abs(frame - tone).sum(-1) < 90).sum() > 50
    page = written[-1].read_text()
    assert "<b>.bvh" not in page and "&lt;b&gt;.bvh" in page
    assert "http:" not in page and "https:" not in page
    data = json.loads(page.split('id="data">')[1].split("</script>")[0])
    assert [body["name"] for body in data["bodies"]] == ["truth", "prediction"]
    for body in data["bodies"]:
        assert len(body["centred"]) == len(body["placed"]) == PAST + FUTURE
        low, high = np.reshape(body["placed"], (35, -1, 3))[..., 1].min(), 0
        assert -1000 < low < high  # mm below the hips, y up
    monkeypatch.setattr(predict, "can_write_mp4", lambda: False)
    with pytest.raises(ValueError, match=r"to write films as MP4: .*tenfold\[video\]"):
        own.predict(tmp_path / "<b>.bvh", tmp_path / "out", PredictOptions(format="mp4"))


# --- rows of tables ----------------------------------------------------------------------------


def test_rows_of_noisy_input_and_of_the_last_weights(own: Spgsn) -> None:
    found = own.evaluate()
    rows = {key.split("/")[1] for key in found.metrics}
    assert {"average", NOISY} <= rows and LAST not in rows
    noisy, clean = (found.metrics[f"mpjpe/{row}/80ms"] for row in (NOISY, "average"))
    assert noisy > clean
    titles = own.labels()
    # 25 frames of 100 a second
    assert titles["mpjpe/average"] == "average; short-horizon model (25 frames), last weights"
    assert "10 mm of noise, 10% of joints lost" in titles[f"mpjpe/{NOISY}"]
    own.last.take(own.model)
    with torch.no_grad():
        own.last.weights["readout.bias"] += 1.0
    try:
        late = own.evaluate().metrics
    finally:
        own.last.weights = {}
    assert late[f"mpjpe/{LAST}/80ms"] != late["mpjpe/average/80ms"] == clean
    long = replace(own.cfg, data=replace(own.cfg.data, holdout=0.1))
    long = replace(long, skeleton=replace(long.skeleton, label_fps=25.0))
    assert horizon_of(long) == "long-horizon model (25 frames)"
    assert weights_kept(long) == "best on validation"


def test_noise_is_that_which_is_stated() -> None:
    poses = np.zeros((200, 10, 30, 3), np.float32) + np.arange(10)[:, None, None] * 1000
    noisy = corrupted(poses, 3)
    np.testing.assert_array_equal(noisy, corrupted(poses, 3))
    apart = noisy - poses
    held = np.abs(apart).max(-1) > 500
    assert (held[:, -1].mean()) == pytest.approx(0.1, abs=0.02)
    assert not held[:, 0].any() and (np.diff(held.astype(int), axis=1) >= 0).all()
    assert apart[~held].std() == pytest.approx(10, rel=0.02)
