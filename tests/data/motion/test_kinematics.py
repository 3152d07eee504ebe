"""Forward and inverse kinematics: properties that hold for any pose, and derived body parts."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation, Slerp

from tenfold.data.motion.kinematics import (
    expmap_to_rotation,
    forward_kinematics,
    joint_positions,
    positions_to_rotations,
    slerp,
)
from tenfold.data.motion.skeleton import (
    CMU,
    CMU_OFFSETS,
    H36M,
    H36M_OFFSETS,
    THREEDPW,
    derive_parts,
)

BODIES = [(CMU, CMU_OFFSETS), (H36M, H36M_OFFSETS)]
seeds = st.integers(0, 2**32 - 1)


@settings(max_examples=30, deadline=None)
@given(seeds, st.floats(0, 6))
def test_rotations_are_orthonormal_and_equal_scipy(seed, scale):
    expmap = np.random.RandomState(seed).standard_normal((4, 3)) * scale
    got = expmap_to_rotation(expmap)
    np.testing.assert_allclose(got @ got.swapaxes(-1, -2), np.tile(np.eye(3), (4, 1, 1)), atol=1e-5)
    np.testing.assert_allclose(np.linalg.det(got), 1, atol=1e-5)
    np.testing.assert_allclose(got, Rotation.from_rotvec(expmap).as_matrix(), atol=1e-5)


@settings(max_examples=15, deadline=None)
@given(seeds, st.sampled_from(BODIES))
def test_bones_keep_their_length(seed, body):
    skeleton, offsets = body
    expmap = np.random.RandomState(seed).standard_normal((3, 3 + 3 * len(skeleton.joints)))
    positions = forward_kinematics(expmap, offsets, skeleton.parents)
    parents = np.maximum(skeleton.parents, 0)
    bones = np.linalg.norm(positions - positions[:, parents], axis=-1)
    far = np.array(skeleton.parents) > 0
    want = np.broadcast_to(np.linalg.norm(offsets, axis=-1)[far], bones[:, far].shape)
    np.testing.assert_allclose(bones[:, far], want, rtol=1e-5, atol=1e-6)


@settings(max_examples=15, deadline=None)
@given(seeds, st.sampled_from(BODIES), st.booleans())
def test_inverse_kinematics_reproduces_positions(seed, body, at_origin):
    skeleton, offsets = body
    random = np.random.RandomState(seed)
    turns = Rotation.random(2 * len(skeleton.joints), random_state=random).as_matrix()
    local = turns.reshape(2, -1, 3, 3)
    placed = np.broadcast_to(offsets, (2, *offsets.shape)).copy()
    placed[:, 0] = 0 if at_origin else random.standard_normal((2, 3)) * 1000
    positions = joint_positions(local, placed, skeleton.parents)
    again = positions_to_rotations(positions, offsets, skeleton.parents)
    np.testing.assert_allclose(again @ again.swapaxes(-1, -2), np.eye(3) + 0 * again, atol=1e-9)
    got = joint_positions(again, placed, skeleton.parents)
    np.testing.assert_allclose(got, positions, atol=1e-5)


def test_inverse_kinematics_turns_a_bone_by_half():
    offsets = np.array([[0.0, 0, 0], [0, 2, 0]])
    positions = np.array([[[0.0, 0, 0], [0, -2, 0]]])
    local = positions_to_rotations(positions, offsets, (-1, 0))
    np.testing.assert_allclose(
        joint_positions(local, offsets[None], (-1, 0)), positions, atol=1e-12
    )


def test_slerp_equals_scipy():
    turns = Rotation.random(5, random_state=1)
    at = np.linspace(0, 4, 17)
    got = slerp(turns.as_matrix()[:, None], at)[:, 0]
    np.testing.assert_allclose(got, Slerp(np.arange(5), turns)(at).as_matrix(), atol=1e-12)


def test_rest_pose_of_the_benchmark_is_a_sum_of_offsets():
    positions = forward_kinematics(np.zeros((1, 117)), CMU_OFFSETS, CMU.parents)[0]
    np.testing.assert_allclose(positions[5], CMU_OFFSETS[[2, 3, 4, 5]].sum(axis=0))


def test_wrong_number_of_columns_is_named():
    with pytest.raises(ValueError, match="38 joints need 117 columns .* got 99"):
        forward_kinematics(np.zeros((1, 99)), CMU_OFFSETS, CMU.parents)


@pytest.mark.parametrize("skeleton", [CMU, H36M, THREEDPW], ids=lambda s: s.name)
def test_every_used_joint_is_in_one_part(skeleton):
    assert len(skeleton.joints) == len(skeleton.parents)
    assert sorted(skeleton.lower + skeleton.upper) == list(range(len(skeleton.used)))
    assert not set(skeleton.used) & {joint for joint, _ in skeleton.twins}
    assert {source for _, source in skeleton.twins} <= set(skeleton.used)


def test_derived_parts_equal_the_published_ones():
    derived = derive_parts(H36M.joints, H36M.parents, H36M_OFFSETS)
    assert derived == (H36M.used, H36M.lower, H36M.upper, H36M.twins)
    expmap = np.random.RandomState(0).standard_normal((9, 117))
    expmap[:, 6:9] = expmap[:, 24:27] = 0  # CMU's hip joints never turn
    positions = forward_kinematics(expmap, CMU_OFFSETS, CMU.parents)
    derived = derive_parts(CMU.joints, CMU.parents, CMU_OFFSETS, positions)
    assert derived == (CMU.used, CMU.lower, CMU.upper, tuple(sorted(CMU.twins)))


@settings(max_examples=40, deadline=None)
@given(seeds, st.integers(4, 30), st.booleans())
def test_derived_parts_of_any_tree(seed, joints, named):
    random = np.random.RandomState(seed)
    parents = (-1, *(int(random.randint(max(0, j - 3), j)) for j in range(1, joints)))
    offsets = random.standard_normal((joints, 3)) * random.randint(0, 2, (joints, 1))
    words = ["leg", "arm", "b"] if named else ["b"]
    names = [f"{words[random.randint(len(words))]}{j}" for j in range(joints)]
    try:
        used, lower, upper, twins = derive_parts(names, parents, offsets)
    except ValueError as error:
        assert "at least 2 are needed" in str(error)
        return
    assert sorted(lower + upper) == list(range(len(used))) and lower and upper
    assert not set(used) & {joint for joint, _ in twins}
    assert {source for _, source in twins} <= set(used)


def test_unnamed_joints_split_by_height():
    parents = (-1, 0, 1, 2, 0, 4, 5, 0, 7, 8)
    offsets = np.array(
        [[0, 0, 0]] + [[1, -1, 0], [0, -4, 0], [0, -4, 0]] + [[-1, -1, 0], [0, -4, 0], [0, -4, 0]]
        + [[0, 2, 0], [0, 3, 0], [0, 3, 0]], dtype=float,
    )  # fmt: skip
    used, lower, upper, _ = derive_parts([str(j) for j in range(10)], parents, offsets)
    assert [used[k] for k in lower] == [2, 3, 5, 6] and [used[k] for k in upper] == [8, 9]
