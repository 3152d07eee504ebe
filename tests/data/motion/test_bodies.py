"""Bodies of many tools: their root, joints by name, other sizes, sides and directions."""

from dataclasses import replace
from pathlib import Path

import motions
import numpy as np
import pytest

from tenfold.data.checks import check
from tenfold.data.motion.bodies import body_root, fitted, keys, matched, skeleton_of
from tenfold.data.motion.bvh import read_bvh, write_bvh
from tenfold.data.motion.bvh_folder import read, read_skeleton
from tenfold.data.motion.bvh_motion import Bvh
from tenfold.data.motion.continuing import continued
from tenfold.data.motion.directions import axes, feet, sides

HERE = Path("a.bvh")


def take(name: str, folder: Path, frames: int = 40, **asked: float) -> Bvh:
    (folder / "take.bvh").write_text(motions.text(motions.TOOLS[name], frames, **asked))
    return read_bvh(folder / "take.bvh")


@pytest.mark.parametrize("name", motions.TOOLS)
def test_root_sides_and_directions(name, tmp_path):
    tool, bvh = motions.TOOLS[name], take(name, tmp_path)
    skeleton = skeleton_of(bvh, 10 / tool.unit)
    assert bvh.joints[skeleton.root] == tool.names["hips"]
    # what hangs rigidly on the hips is constant; hips and joints above them are at 0
    assert not np.any(bvh.positions(skeleton.root)[:, [0, skeleton.root]])
    side = dict(zip(bvh.joints, sides(bvh.joints, bvh.parents), strict=True))
    for role, word in tool.names.items():
        assert side[word] == {"L": "left", "R": "right", "": "middle"}[role.partition(".")[2]]
    for positions in (bvh.positions(skeleton.root), bvh.positions()[:2]):
        left, up, front = axes(positions, skeleton)
        assert up.tolist() == ([0, 1, 0] if tool.up == "y" else [0, 0, 1])
        assert left.tolist() == [1, 0, 0] and np.allclose(np.cross(left, up), front)
    below = {bvh.joints[j] for j in feet(bvh.joints, bvh.parents)}
    assert {tool.names["foot.L"], tool.names["toe.R"]} <= below
    thigh = skeleton.joints.index(tool.names["shin.L"])
    assert skeleton.bones[thigh] == pytest.approx(420, rel=0.01)


def test_a_spine_that_wobbles_is_no_root(tmp_path):
    """Position channels on every joint, bones that stretch a little, no joint above the hips."""
    bvh = take("mixamo", tmp_path)
    noise = np.random.RandomState(0).normal(0, 0.2, bvh.motion.shape)
    wobbling = replace(bvh, motion=bvh.motion + noise)
    assert bvh.joints[body_root(wobbling)] == "mixamorig:Hips"
    skeleton_of(wobbling, 10.0)


def test_joints_by_name_in_any_order_with_others_between(tmp_path):
    bvh = take("motionbuilder", tmp_path)
    skeleton = skeleton_of(bvh, 10.0)
    assert matched(bvh, skeleton, HERE)[skeleton.root] == skeleton.root
    want = fitted(bvh, skeleton, matched(bvh, skeleton, HERE), 10.0, HERE)
    other = replace(motions.TOOLS["motionbuilder"], order="YXZ", above=["Armature"])
    roles = dict(motions.ROLES)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(motions, "ROLES", dict(reversed(roles.items())))
        (tmp_path / "b.bvh").write_text(motions.text(other, 40))
    turned = read_bvh(tmp_path / "b.bvh")
    assert turned.joints != bvh.joints
    got = fitted(turned, skeleton, matched(turned, skeleton, HERE), 10.0, HERE)
    np.testing.assert_allclose(got, want, atol=0.01)
    # a name space, and letters, are not a name
    assert keys(["mixamorig:Left Arm", "left_arm", "LeftArm"]) == [
        "leftarm",
        "leftarm#2",
        "leftarm#3",
    ]


def test_bodies_that_do_not_fit_are_refused_by_name(tmp_path):
    bvh = take("motionbuilder", tmp_path)
    skeleton = skeleton_of(bvh, 10.0)
    names = tuple("Tail" if name == "Head" else name for name in bvh.joints)
    with pytest.raises(ValueError, match=r"a.bvh has another skeleton .* there is no Head"):
        matched(replace(bvh, joints=names), skeleton, HERE)
    parents = list(bvh.parents)
    parents[bvh.joints.index("LeftArm")] = bvh.joints.index("Hips")
    with pytest.raises(ValueError, match="joint 'LeftArm' hangs on 'Hips', not on 'LeftShoulder'"):
        matched(replace(bvh, parents=tuple(parents)), skeleton, HERE)
    body = take("cmu", tmp_path)
    skeleton = skeleton_of(body, 56.4)
    long = body.offsets.copy()
    long[body.joints.index("LeftForeArm")] *= 20
    with pytest.raises(ValueError, match="the bone of joint 'LeftForeArm' is .* Retarget it first"):
        fitted(replace(body, offsets=long), skeleton, list(range(26)), 56.4, HERE)


@pytest.mark.parametrize("scale", [0.01, 0.7, 25.4])
def test_another_size_gets_the_lengths_of_the_trained_body(scale, tmp_path):
    bvh = take("rokoko", tmp_path)
    skeleton = skeleton_of(bvh, 10.0)
    joints = matched(bvh, skeleton, HERE)
    want = fitted(bvh, skeleton, joints, 10.0, HERE)
    other = take("rokoko", tmp_path, scale=scale)
    np.testing.assert_allclose(fitted(other, skeleton, joints, 10.0, HERE), want, atol=0.5)
    longer = bvh.offsets.copy()
    longer[bvh.joints.index("LeftShin")] *= 1.3  # of one bone, too
    np.testing.assert_allclose(
        fitted(replace(bvh, offsets=longer), skeleton, joints, 10.0, HERE), want, atol=0.01
    )


def test_folders_as_people_have_them(tmp_path):
    """Hidden files of a Mac, upper case, offsets that are never used, an error of one line."""
    tool = motions.TOOLS["motionbuilder"]
    for number in range(3):
        text = motions.text(tool, 50, number)
        text = text.replace("\tOFFSET 0.000000", f"\tOFFSET {number}.0", 1)
        (tmp_path / f"WALK_{number}.BVH").write_text(text)
    (tmp_path / "._WALK_0.BVH").write_bytes(b"\x00\x05\x16\x07")
    skeleton = read_skeleton(tmp_path)
    assert [c.name for c in read(tmp_path, "train", skeleton)] == [
        "train/WALK/WALK_0", "train/WALK/WALK_1"
    ]  # fmt: skip
    assert len(read(tmp_path, "test", skeleton, 35)) == 1
    with pytest.warns(UserWarning, match="a body of 16.93 mm at 0.1 mm a unit"):
        read_skeleton(tmp_path, 0.1)
    only = tmp_path / "one"
    only.mkdir()
    (only / "walk.bvh").write_text(motions.text(tool, 120))
    with pytest.raises(
        ValueError, match="the last fifth, the test split, of its 120 frames has 24"
    ):
        read(only, "test", read_skeleton(only), 35)
    assert "whose 120 frames the last fifth is the test, 24" in "".join(check("bvh", only).notes)


def test_splits_in_any_letter_case(tmp_path):
    """Else Test/, which sorts before Train/, would be trained on."""
    for name in ("Test", "Train"):
        (tmp_path / name).mkdir()
        written = tmp_path / name / f"{name}ed_1.bvh"
        written.write_text(motions.text(motions.TOOLS["mixamo"], 40))
    skeleton = read_skeleton(tmp_path)
    assert [c.name for c in read(tmp_path, "train", skeleton)] == ["train/Trained/Trained_1"]
    assert [c.name for c in read(tmp_path, "test", skeleton)] == ["test/Tested/Tested_1"]
    (tmp_path / "Test" / "Tested_1.bvh").unlink()
    (tmp_path / "Test").rmdir()
    with pytest.raises(ValueError, match="a sub-folder Train, but none for the split 'test'"):
        read(tmp_path, "test", skeleton)


def test_check_of_a_folder(tmp_path):
    tool = motions.TOOLS["blender"]
    for number in range(4):
        (tmp_path / f"walk_{number}.bvh").write_text(motions.text(tool, 40, number % 3))
    (tmp_path / "slow.bvh").write_text(motions.text(replace(tool, fps=30), 20, 4))
    (tmp_path / "cut.bvh").write_text(motions.text(tool, 40)[:-30])
    (tmp_path / "zoo.bvh").write_text(motions.text(motions.TOOLS["cmu"], 40))
    for name in ("folder", "bvh"):
        found = check(name, tmp_path)
        assert found.files == 7
        bad = {problem.file: problem.what for problem in found.problems}
        assert set(bad) == {"cut.bvh", "zoo.bvh", "walk_3.bvh"}
        assert "cut off" in bad["cut.bvh"] and "no thigh.L" in bad["zoo.bvh"]
        assert bad["walk_3.bvh"] == "holds the same frames as walk_0.bvh"
        notes = "\n".join(found.notes)
        assert "metres, --data.mm-per-unit 1000" in notes and "frame rates differ" in notes
        assert "slow.bvh: 20 frames" in notes
    with pytest.raises(ValueError, match="--path FOLDER"):
        check("bvh")


# --- motions that go on ------------------------------------------------------------------------


def going_on(bvh: Bvh, root: int, past: int = 10, future: int = 20) -> Bvh:
    goals = bvh.positions(root)[past : past + future]
    soles = feet(bvh.joints, bvh.parents)
    up = np.array([0.0, 1, 0])
    return continued(bvh, slice(0, past), goals, [True] * len(bvh.joints), root, soles, up)


def test_true_poses_come_back_as_true_rotations(tmp_path):
    """Twist and all: inverse kinematics starts from what was observed, not from rest."""
    bvh = take("cmu", tmp_path)
    again = going_on(bvh, 0)
    turns = bvh.rotations()[:30].swapaxes(-1, -2) @ again.rotations()
    angles = np.degrees(np.arccos(np.clip((np.trace(turns, axis1=-2, axis2=-1) - 1) / 2, -1, 1)))
    assert angles[:, 1:].max() < 6
    np.testing.assert_array_equal(again.motion[:10], bvh.motion[:10])
    apart = np.linalg.norm(again.positions(0) - bvh.positions(0)[:30], axis=-1)
    assert apart.max() * 56.4 < 25  # mm


def test_a_foot_on_the_floor_holds_the_body(tmp_path):
    """The walk's velocity is wrong by a fifth at the end: feet take some of it back."""
    bvh = take("motionbuilder", tmp_path)
    root = bvh.joints.index("Hips")
    again = going_on(bvh, root)
    gone = np.diff(again.positions()[:, root], axis=0)
    assert np.linalg.norm(gone[9:], axis=1).min() > 2  # of 3.7 cm a frame
    # on the spot, with feet that slide, it stays on the spot
    still = bvh.motion.copy()
    place = sum(map(len, bvh.channels[:root]))
    still[:, place : place + 3] = [0, 92, 0]
    stays = going_on(replace(bvh, motion=still), root).positions()[:, root]
    assert np.ptp(stays[10:], axis=0)[[0, 2]].max() < 10


@pytest.mark.parametrize("cut", ["place", "heading", "pose"])
def test_a_cut_is_not_gone_on_with(cut, tmp_path):
    """A body that was set elsewhere, or a rest pose at the end, three frames before and at it."""
    bvh = take("rokoko", tmp_path, 40)
    motion, rotating = bvh.motion.copy(), np.arange(bvh.motion.shape[1]) >= 3
    if cut == "place":
        motion[7:, 0] += 5000
    elif cut == "heading":
        motion[7:, 3] += 180
    else:
        motion[9, rotating] = np.where(np.arange(rotating.sum()) < 3, motion[9, rotating], 0)
    made = going_on(replace(bvh, motion=motion), 0, future=15)
    steps = np.linalg.norm(np.diff(made.positions()[9:], axis=0), axis=-1)
    turns = np.degrees(np.linalg.norm(np.diff(made.rotations()[9:], axis=0), axis=(-2, -1)))
    assert steps.max() < (40 if cut == "pose" else 6)  # cm
    if cut == "heading":
        assert turns[:, 0].max() < 5
    if cut == "pose":  # back to the motion without going further first
        joint = bvh.joints.index("LeftArm")
        gaps = [bvh.rotations()[f, joint] - made.rotations()[f, joint] for f in (9, 10)]
        assert np.linalg.norm(gaps[1]) < 1.05 * np.linalg.norm(gaps[0])


def test_one_observed_frame_goes_on_at_rest(tmp_path):
    bvh = take("cmu", tmp_path)
    again = going_on(bvh, 0, past=1)
    write_bvh(tmp_path / "b.bvh", again)
    np.testing.assert_allclose(np.ptp(again.positions()[:, 0], axis=0), 0, atol=2)
