"""Euler angles of any order: equal to scipy's rotations, and continuous in time."""

from itertools import permutations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from tenfold.data.motion.euler import euler_angles, from_euler

ORDERS = ["".join(p) for p in permutations("XYZ")]


@pytest.mark.parametrize("order", ORDERS)
def test_angles_go_on_from_those_before(order):
    """They come back as they were, through gimbal lock and over many turns."""
    drift = np.random.RandomState(0).uniform(-12, 12, (300, 3))
    angles = np.cumsum(drift, 0) + [1000.0, 80, -170]
    turned = from_euler(order, angles)
    want = Rotation.from_euler(order, angles, degrees=True).as_matrix()
    np.testing.assert_allclose(turned, want, atol=1e-12)
    np.testing.assert_allclose(euler_angles(turned[1:], order, angles[0]), angles[1:], atol=1e-6)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("lock", [90.0, -90.0])
def test_gimbal_lock_moves_one_angle(order, lock):
    near = 80 * np.sign(lock)
    angles = np.array([[10.0, near, 20], [15, lock, 30], [20, lock, 50], [25, near, 55]])
    found = euler_angles(from_euler(order, angles), order)
    np.testing.assert_allclose(from_euler(order, found), from_euler(order, angles), atol=1e-7)
    assert np.abs(np.diff(found, axis=0)).max() < 40


@pytest.mark.parametrize("order", ["X", "Y", "Z", "XY", "ZX"])
def test_fewer_axes(order):
    angles = np.linspace(-300, 250, 60)[:, None] * [0.7, 0.2][: len(order)]
    found = euler_angles(from_euler(order, angles), order, angles[0])
    np.testing.assert_allclose(found, angles, atol=1e-6)
