"""Generated walkers: deterministic, smooth, and their truth goes on exactly."""

import numpy as np

from tenfold.data.motion.clips import Windows
from tenfold.data.motion.skeleton import CMU, CMU_OFFSETS
from tenfold.generated.walker import ACTIONS, clips


def test_same_arguments_give_the_same_clips():
    first, second = clips(num_per_action=2, frames=40), clips(num_per_action=2, frames=40)
    assert [c.name for c in first] == [c.name for c in second]
    for one, two in zip(first, second, strict=True):
        np.testing.assert_array_equal(one.positions, two.positions)
    assert list(Windows(first, 35).by_action()) == list(ACTIONS)
    assert first[0].name == "train/walking/walking_1"


def test_seed_and_split_change_every_clip():
    base = clips(num_per_action=1, frames=10)
    for other in (clips(num_per_action=1, frames=10, seed=1), clips("test", 0, 1, 10)):
        for one, two in zip(base, other, strict=True):
            assert np.abs(one.positions - two.positions).max() > 1


def test_a_longer_clip_continues_a_shorter_one():
    for short, long in zip(clips(frames=30), clips(frames=90), strict=True):
        np.testing.assert_array_equal(short.positions, long.positions[:30])


def test_bodies_are_rigid_smooth_and_move():
    far = np.array(CMU.parents) >= 0
    lengths = np.linalg.norm(CMU_OFFSETS, axis=-1)[far]
    for clip in clips(num_per_action=1, frames=200):
        x = clip.positions
        assert x.shape == (200, 38, 3) and x.dtype == np.float32
        bones = np.linalg.norm(x - x[:, np.maximum(CMU.parents, 0)], axis=-1)[:, far]
        np.testing.assert_allclose(bones, np.broadcast_to(lengths, bones.shape), atol=1e-2)
        assert np.linalg.norm(np.diff(x, axis=0), axis=-1).max() < 150  # mm a frame
        assert np.ptp(x, axis=0).max() > 100
        for constant in (0, 1, 2, 7, 8, 13):
            assert np.ptp(x[:, constant], axis=0).max() < 1e-3
        for joint, source in CMU.twins:
            np.testing.assert_allclose(x[:, joint], x[:, source], atol=1e-3)
