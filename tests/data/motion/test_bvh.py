"""BVH: round trips, every rotation order against scipy, folders as clips, and bad files."""

import re
from dataclasses import replace
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from tenfold.data.motion import bvh as module
from tenfold.data.motion.bvh import read_bvh, write_bvh
from tenfold.data.motion.bvh_folder import read, read_skeleton
from tenfold.data.motion.bvh_motion import Bvh
from tenfold.data.motion.skeleton import CMU, CMU_OFFSETS

TEXT = """HIERARCHY
ROOT Hips
{
    OFFSET 1 2 3
    CHANNELS 6 Xposition Yposition Zposition Zrotation Xrotation Yrotation
    JOINT Left Leg
    {
        OFFSET 0 -4 0
        CHANNELS 3 Yrotation Xrotation Zrotation
        End Site
        {
            OFFSET 0 -3 0
        }
    }
}
MOTION
Frames: 2
Frame Time: 0.01
5 6 7 0 0 0 0 90 0
5 6 7 90 0 0 0 0 0
"""


def cmu_body(frames: int = 8, order: str = "ZXY", seed: int = 0) -> Bvh:
    """A body with the CMU tree; end sites have no channels."""
    turns = tuple(f"{axis}rotation" for axis in order)
    ends = [j not in CMU.parents for j in range(len(CMU.parents))]
    channels = [() if end else turns for end in ends]
    channels[0] = ("Xposition", "Yposition", "Zposition", *turns)
    motion = np.random.RandomState(seed).uniform(-80, 80, (frames, sum(map(len, channels))))
    names = [
        f"{CMU.joints[CMU.parents[j]]} end" if end else CMU.joints[j] for j, end in enumerate(ends)
    ]
    offsets = CMU_OFFSETS / 70
    return Bvh(tuple(names), CMU.parents, offsets, tuple(channels), 1 / 120, motion)


def written(folder: Path, name: str, text: str = TEXT) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_positions_by_hand(tmp_path):
    body = read_bvh(written(tmp_path, "a.bvh"))
    assert body.joints == ("Hips", "Left Leg", "Left Leg end") and body.parents == (-1, 0, 1)
    assert body.fps == pytest.approx(100)
    # frame 0: the knee bends by 90 degrees about x, so the shin points to -z
    np.testing.assert_allclose(body.positions()[0], [[5, 6, 7], [5, 2, 7], [5, 2, 4]], atol=1e-12)
    # frame 1: the root turns by 90 degrees about z, so the leg points to +x
    np.testing.assert_allclose(body.positions()[1], [[5, 6, 7], [9, 6, 7], [12, 6, 7]], atol=1e-12)
    dropped = body.positions(root=0)
    np.testing.assert_allclose(dropped[1], [[0, 0, 0], [0, -4, 0], [0, -7, 0]], atol=1e-12)


def test_round_trip(tmp_path):
    body = cmu_body()
    write_bvh(tmp_path / "out" / "a.bvh", body)
    again = read_bvh(tmp_path / "out" / "a.bvh")
    assert (again.joints, again.parents, again.channels) == (
        body.joints, body.parents, body.channels,
    )  # fmt: skip
    np.testing.assert_array_equal(again.offsets, body.offsets)
    assert again.frame_time == body.frame_time
    np.testing.assert_allclose(again.motion, body.motion, rtol=1e-8)
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["a.bvh"]


@pytest.mark.parametrize("order", ["".join(p) for p in permutations("XYZ")])
def test_rotation_orders_equal_scipy(order, tmp_path):
    body = cmu_body(order=order)
    angles = body.motion[:, 3:].reshape(len(body.motion), -1, 3)
    turning = [j for j, own in enumerate(body.channels) if own]
    got = body.rotations()
    for k, joint in enumerate(turning):
        want = Rotation.from_euler(order, angles[:, k], degrees=True).as_matrix()
        np.testing.assert_allclose(got[:, joint], want, atol=1e-12)
    again = body.with_pose(got, body.translations())
    np.testing.assert_allclose(again.rotations(), got, atol=1e-12)


def test_position_channels_of_inner_joints_replace_offsets(tmp_path):
    text = TEXT.replace("CHANNELS 3 Yrotation", "CHANNELS 4 Yposition Yrotation")
    text = text.replace("0 90 0\n", "-9 0 90 0\n").replace("90 0 0 0 0 0\n", "90 0 0 -9 0 0 0\n")
    body = read_bvh(written(tmp_path, "a.bvh", text))
    np.testing.assert_allclose(body.positions()[0, 1], [5, -3, 7])


def test_positions_can_be_written_back():
    body = cmu_body()
    positions = body.positions()
    np.testing.assert_allclose(body.with_positions(positions).positions(), positions, atol=1e-9)


def test_resampling_keeps_frames_and_goes_through_turns():
    body = cmu_body()
    twice = body.resample(240.0)
    assert len(twice.motion) == 15 and twice.fps == pytest.approx(240)
    np.testing.assert_allclose(twice.positions()[::2], body.positions(), atol=1e-9)
    assert len(body.resample(60.0).motion) == 4
    one = replace(body, motion=np.zeros((2, body.motion.shape[1])))
    one.motion[:, 3] = [179, -179]  # two degrees apart, across the seam
    middle = one.resample(240.0).rotations()[1, 0]
    np.testing.assert_allclose(middle, np.diag([-1.0, -1, 1]), atol=1e-12)
    with pytest.raises(ValueError, match="fps must be positive and finite, got 0"):
        body.resample(0.0)


def test_folder_with_splits_and_actions(tmp_path):
    for name in ("train/walk/a1", "train/walk/a2", "train/run_01", "test/run_02"):
        write_bvh(tmp_path / f"{name}.bvh", cmu_body())
    skeleton = read_skeleton(tmp_path, 70.0)
    names = [c.name for c in read(tmp_path, "train", skeleton, length=8)]
    assert names == ["train/run/run_01", "train/walk/a1", "train/walk/a2"]
    (clip,) = read(tmp_path, "test", replace(skeleton, fps=60.0))
    assert (clip.action, clip.fps, clip.positions.shape) == ("run", pytest.approx(60), (4, 38, 3))
    bones = np.linalg.norm(clip.positions[:, 4] - clip.positions[:, 3], axis=-1)
    np.testing.assert_allclose(bones, np.linalg.norm(CMU_OFFSETS[4]), rtol=1e-5)
    assert set(CMU.used) <= set(skeleton.used) and skeleton.fps == pytest.approx(120)
    assert sorted(skeleton.lower + skeleton.upper) == list(range(len(skeleton.used)))


def test_last_fifth_is_the_test(tmp_path):
    for number in range(6):
        write_bvh(tmp_path / f"walk_{number}.bvh", cmu_body(10))
    skeleton = read_skeleton(tmp_path, 70.0)
    assert [c.name for c in read(tmp_path, "test", skeleton)] == ["test/walk/walk_5"]
    assert len(read(tmp_path, "train", skeleton)) == 5
    file = tmp_path / "walk_0.bvh"
    assert [len(read(file, s, skeleton)[0].positions) for s in ("train", "test")] == [8, 2]


def test_bad_folders(tmp_path):
    with pytest.raises(ValueError, match="holds no .bvh file"):
        read_skeleton(tmp_path)
    write_bvh(tmp_path / "a.bvh", cmu_body())
    skeleton = read_skeleton(tmp_path, 70.0)
    with pytest.raises(ValueError, match=r"a.bvh: the first four fifths of its 8 frames has 7"):
        read(tmp_path, "train", skeleton, length=35)
    with pytest.raises(ValueError, match="unknown split 'tset'.* nearest is 'test'"):
        read(tmp_path, "tset", skeleton)
    written(tmp_path, "b.bvh")
    with pytest.raises(ValueError, match="b.bvh has another skeleton .*3 joints there is no LHip"):
        read(tmp_path, "test", skeleton)
    (tmp_path / "b.bvh").unlink()
    write_bvh(tmp_path / "a.bvh", replace(cmu_body(), motion=0 * cmu_body().motion))
    with pytest.raises(ValueError, match="a.bvh, of which the skeleton is taken: only 0 of 38"):
        read_skeleton(tmp_path, 70.0)
    for name, time in (("c", 0.01), ("d", 0.02)):
        write_bvh(tmp_path / f"train/{name}.bvh", replace(cmu_body(), frame_time=time))
    skeleton = read_skeleton(tmp_path, 70.0)
    with pytest.raises(ValueError, match=r"d.bvh has 50 frames .* file 100\. Name .* --data.fps"):
        read(tmp_path, "train", skeleton, any_rate=False)
    assert [len(c.positions) for c in read(tmp_path, "train", skeleton)] == [8, 15]


@pytest.mark.parametrize(
    "old, new, message",
    [
        ("CHANNELS 3 Y", "CHANNELS 2 Y", "line 9: CHANNELS 2"),
        ("CHANNELS 3 Y", "CHANNELS 3 W", "line 9: CHANNELS 3 Wrotation"),
        ("CHANNELS 3 Yrotation", "CHANNELS 3 Xrotation", "line 9: CHANNELS 3 Xrotation"),
        ("OFFSET 0 -4 0", "OFFSET 0 -4", "line 8: OFFSET has 2 values"),
        ("OFFSET 0 -4 0", "OFFSET 0 x 0", "line 8: 'x' is no number. Repair"),
        ("OFFSET 0 -4 0", "OFFSET 0 -4e9 0", r"finite and at most 1e\+09, got -4e\+09"),
        ("Frame Time: 0.01", "Frame Time: 0,01", "line 18: '0,01' is no number; .* decimal point"),
        ("HIERARCHY", "PK", "line 1: unexpected 'PK'; a BVH file begins with HIERARCHY"),
        (TEXT, "\n", "is empty"),
        ("JOINT", "JIONT", "line 6: unexpected 'JIONT Left Leg'"),
        ("}\nMOTION", "}\nROOT b\n{\n}\nMOTION", "line 16: ROOT outside the tree"),
        ("Frames: 2", "Frames: 0", "line 17: 0 frames"),
        ("Frame Time: 0.01", "Frame Time: 0", "line 18: frame time must be positive"),
        ("Frame Time: 0.01\n", "", "line 18: expected 'Frame Time'"),
        ("7 90 0 0 0 0 0", "7 90 0 0 0 0", "line 20: frame 1 has 8 values, expected 9"),
        ("7 90 0 0 0 0 0", "7 90 0 0 0 0 nan", "line 20: values must be finite .* got nan"),
        (TEXT[TEXT.index("MOTION") :], "", "line 15: the file ends before MOTION"),
        (TEXT[TEXT.index("Frames") :], "", "the file ends within MOTION"),
    ],
)
def test_bad_files_are_named_with_their_line(tmp_path, old, new, message):
    assert old in TEXT
    file = written(tmp_path, "a.bvh", TEXT.replace(old, new, 1))
    with pytest.raises(ValueError, match=f"a.bvh.*{message}"):
        read_bvh(file)


@pytest.mark.parametrize(
    "old, new",
    [
        ("HIERARCHY", "\ufeffHIERARCHY"),
        ("ROOT Hips\n{", "ROOT Hips {"),
        ("ROOT Hips\n{", "ROOT Hips{"),
        ("        }\n    }\n}\n", "}}}\n"),
        ("End Site", "END SITE"),
        ("End Site\n        {\n", "End Site {"),
        ("Frames: 2", "frames : 2"),
        ("Frame Time: 0.01", "FRAME TIME:0.01"),
        ("\n", "\r\n"),
        ("\n", "\r"),
    ],
)
def test_grammar_of_other_tools(tmp_path, old, new):
    assert old in TEXT
    count = -1 if old == "\n" else 1
    file = tmp_path / "a.bvh"
    file.write_bytes(TEXT.replace(old, new, count).encode())
    assert_same(read_bvh(file), read_bvh(written(tmp_path, "b.bvh")))


@pytest.mark.parametrize("change", [str.lower, str.upper])
def test_keywords_in_any_letter_case(tmp_path, change):
    words = "HIERARCHY ROOT JOINT End Site OFFSET CHANNELS MOTION Frames Frame Time".split()
    words += ["Xposition", "Yposition", "Zposition", "Xrotation", "Yrotation", "Zrotation"]
    text = TEXT
    for word in words:
        text = re.sub(rf"\b{word}\b", change(word), text)
    assert text != TEXT
    assert_same(read_bvh(written(tmp_path, "a.bvh", text)), read_bvh(written(tmp_path, "b.bvh")))


def assert_same(got: Bvh, want: Bvh) -> None:
    assert (got.joints, got.parents, got.channels) == (want.joints, want.parents, want.channels)
    np.testing.assert_array_equal(got.motion, want.motion)
    assert got.frame_time == want.frame_time


@pytest.mark.parametrize(
    "name, encoding",
    [("ボーン", "utf-8"), ("ボ", "shift_jis"), ("左腕", "gbk"), ("Épaule gauche", "latin-1")],
)
def test_bytes_of_names_are_kept(tmp_path, name, encoding):
    content = TEXT.replace("Left Leg", name).encode(encoding)
    (tmp_path / "a.bvh").write_bytes(content)
    write_bvh(tmp_path / "b.bvh", read_bvh(tmp_path / "a.bvh"))
    assert b"JOINT " + name.encode(encoding) + b"\n" in (tmp_path / "b.bvh").read_bytes()
    assert read_bvh(tmp_path / "b.bvh").joints == read_bvh(tmp_path / "a.bvh").joints


def test_frame_counts_that_are_wrong(tmp_path):
    fewer = written(tmp_path, "a.bvh", TEXT.replace("Frames: 2", "Frames: 1"))
    with pytest.warns(UserWarning, match="more rows than declared: 2, but the header says 1"):
        assert len(read_bvh(fewer).motion) == 1
    more = written(tmp_path, "a.bvh", TEXT.replace("Frames: 2", "Frames: 99999999999"))
    with pytest.warns(UserWarning, match="has 2 rows, but the header says 99999999999"):
        assert len(read_bvh(more).motion) == 2


@pytest.mark.parametrize(
    "stated, fps",
    [("0.0333333", 30), ("0.0333", 30), ("0.0083333", 120), ("0.016666", 60), ("0.04", 25),
     ("4.1667e-2", 24), ("0.0333667", 29.97), ("0.03", 100 / 3), ("0.008", 125)],
)  # fmt: skip
def test_rates_that_rounded_times_mean(tmp_path, stated, fps):
    file = written(tmp_path, "a.bvh", TEXT.replace("0.01", stated))
    assert read_bvh(file).fps == pytest.approx(fps, rel=1e-6 if fps != 29.97 else 1e-4)


@pytest.mark.parametrize("time", ["33.3333", "1e9", "1e-300", "-0.01"])
def test_frame_times_that_are_none(tmp_path, time):
    file = written(tmp_path, "a.bvh", TEXT.replace("0.01", time))
    hint = ".*seconds expected" if not time.startswith(("-", "1e-")) else ""
    with pytest.raises(ValueError, match=f"line 18: frame time must be positive.*{hint}"):
        read_bvh(file)
    wide = written(tmp_path, "b.bvh", TEXT.encode("utf-8").decode())
    wide.write_bytes(TEXT.encode("utf-16"))
    with pytest.raises(ValueError, match="UTF-16"):
        read_bvh(wide)


@pytest.mark.parametrize("fps, frames", [(30, 120), (60, 239), (29.97, 119), (25, 100), (120, 477)])
def test_frames_are_as_many_as_the_time_holds(fps, frames):
    body = replace(cmu_body(2), frame_time=1 / 30)
    body = replace(body, motion=np.repeat(body.motion[:1], 120, 0))
    assert len(body.resample(float(fps)).motion) == frames
    rounded = replace(body, frame_time=0.0333333)
    assert len(rounded.resample(30.0).motion) == 120


def test_resampling_in_parts_is_resampling(monkeypatch):
    body = cmu_body(40)
    whole = body.resample(77.0)
    monkeypatch.setattr("tenfold.data.motion.bvh_motion.CHUNK", 7)
    np.testing.assert_allclose(body.resample(77.0).motion, whole.motion, atol=1e-9)
    np.testing.assert_allclose(body.positions(0), body.positions(root=0), atol=1e-12)


def test_a_joint_with_few_channels_turns_as_far_as_it_can():
    body = cmu_body()
    own = (body.channels[0], ("Xrotation",), ("Zrotation", "Xrotation"), *body.channels[3:])
    few = replace(body, channels=own, motion=body.motion[:, : sum(map(len, own))])
    again = few.with_pose(few.rotations(), few.translations())
    np.testing.assert_allclose(again.rotations(), few.rotations(), atol=1e-9)


def test_limits(tmp_path, monkeypatch):
    file = written(tmp_path, "a.bvh")
    monkeypatch.setattr(module, "MAX_JOINTS", 2)
    with pytest.raises(ValueError, match="line 10: more than 2 joints"):
        read_bvh(file)
    monkeypatch.undo()
    monkeypatch.setattr(module, "MAX_VALUES", 10)
    with pytest.raises(ValueError, match="line 20: more than 10 values"):
        read_bvh(file)
    monkeypatch.setattr(module, "MAX_BYTES", 10)
    with pytest.raises(ValueError, match="more than the 10"):
        read_bvh(file)


def test_a_failed_write_leaves_the_old_file(tmp_path):
    write_bvh(tmp_path / "a.bvh", cmu_body())
    before = (tmp_path / "a.bvh").read_text()
    bad = cmu_body()
    bad.motion[3, 3] = np.nan
    with pytest.raises(ValueError, match="a.bvh frame 3 holds nan"):
        write_bvh(tmp_path / "a.bvh", bad)
    assert (tmp_path / "a.bvh").read_text() == before
