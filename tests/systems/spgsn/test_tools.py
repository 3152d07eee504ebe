"""SPGSN on files of the tools that people have: predictions that go on where the body was going."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import bvhio
import motions
import numpy as np
import pytest
import torch

from tenfold.data.motion.bvh import read_bvh
from tenfold.systems.spgsn import Spgsn, predict

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
    body, hierarchy = read_bvh(path), bvhio.readAsHierarchy(str(path))
    positions, own = body.positions(), [j for j, c in enumerate(body.channels) if c]
    for frame in (0, PAST, PAST + FUTURE - 1):
        hierarchy.loadPose(frame)
        found = np.array([tuple(joint.PositionWorld) for joint, _, _ in hierarchy.layout()])
        np.testing.assert_allclose(found, positions[frame, own], rtol=1e-4, atol=1e-3)
    assert bvhio.readAsBvh(str(path)).FrameCount == len(body.motion)
