"""Readers of the three published data sets: what they read, and what they say of bad files."""

import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from tenfold.data.motion import clips, cmu_mocap, h36m, threedpw
from tenfold.data.motion.clips import (
    Clip,
    Windows,
    holdout,
    protocol_starts,
    protocol_windows,
)


def table(frames: int, columns: int, seed: int = 0) -> np.ndarray:
    return np.random.RandomState(seed).standard_normal((frames, columns)).astype(np.float32) * 0.3


def cmu_text(root: Path, values: np.ndarray, split="train", name="walking/walking_1") -> Path:
    file = root / split / f"{name}.txt"
    file.parent.mkdir(parents=True, exist_ok=True)
    np.savetxt(file, values, fmt="%.9g", delimiter=",")
    return file


def cmu_npz(root: Path, **arrays: np.ndarray) -> Path:
    np.savez(root / "benchmark.npz", **{k.replace("__", "/"): v for k, v in arrays.items()})
    return root / "benchmark.npz"


def pickled(root: Path, content: object, split="train", protocol=2) -> Path:
    file = root / "sequenceFiles" / split / "street_00.pkl"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(pickle.dumps(content, protocol=protocol))
    return file


def clip(frames: int, name="train/walking/walking_1", joints=4) -> Clip:
    positions = np.arange(frames, dtype=np.float32)[:, None, None] + np.zeros((1, joints, 3), "f4")
    return Clip(name, name.split("/")[1].rpartition("_")[0] or name.split("/")[1], positions, 60.0)


# --- CMU ---


def test_cmu_text_and_npz_give_the_same_clips(tmp_path):
    values = table(90, 117)
    cmu_text(tmp_path / "tree", values)
    archive = cmu_npz(tmp_path, train__walking__walking_1=values)
    (text,) = cmu_mocap.read(tmp_path / "tree", "train", length=35)
    for path in (tmp_path, archive):
        (packed,) = cmu_mocap.read(path, "train", length=35)
        assert (text.name, text.action, text.fps) == (packed.name, packed.action, 60.0)
        np.testing.assert_allclose(text.positions, packed.positions, atol=1e-3)
    assert text.positions.shape == (45, 38, 3) and text.positions.dtype == np.float32


def test_cmu_files_come_in_natural_order_and_extra_actions_only_if_asked(tmp_path):
    for number in (10, 2):
        cmu_text(tmp_path, table(20, 117), name=f"running/running_{number}")
    cmu_text(tmp_path, table(20, 117), name="walking_extra/walking_13")
    names = [c.name for c in cmu_mocap.read(tmp_path, "train")]
    assert names == ["train/running/running_2", "train/running/running_10"]
    (extra,) = cmu_mocap.read(tmp_path, "train", actions=("walking_extra",))
    assert extra.name == "train/walking_extra/walking_13"


def test_hidden_files_of_a_mac_are_no_motions(tmp_path):
    def beside(file: Path) -> None:
        (file.parent / f"._{file.name}").write_bytes(b"\x00\x05\x16\x07")

    beside(cmu_text(tmp_path / "cmu", table(90, 117)))
    assert len(cmu_mocap.read(tmp_path / "cmu", "train")) == 1
    beside(pickled(tmp_path / "3dpw", {"jointPositions": [table(40, 72)]}))
    assert len(threedpw.read(tmp_path / "3dpw", "train")) == 1
    (tmp_path / "h36m/S1").mkdir(parents=True)
    np.savetxt(tmp_path / "h36m/S1/walking_1.txt", table(40, 99), fmt="%.6g", delimiter=",")
    beside(tmp_path / "h36m/S1/walking_1.txt")
    assert len(h36m.read(tmp_path / "h36m", "train")) == 1


def test_cmu_wrong_joint_count(tmp_path):
    cmu_text(tmp_path, table(40, 99))
    with pytest.raises(ValueError, match=r"walking_1.txt line 1 has 99 values, expected 117"):
        cmu_mocap.read(tmp_path, "train")
    cmu_npz(tmp_path / "train", train__walking__walking_1=table(40, 99))
    with pytest.raises(ValueError, match=r"walking_1 holds .* shape \(40, 99\), expected"):
        cmu_mocap.read(tmp_path / "train", "train")


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_cmu_bad_frame(tmp_path, bad):
    values = table(40, 117)
    values[[7, 9], 50] = bad
    cmu_text(tmp_path / "tree", values)
    with pytest.raises(ValueError, match=r"walking_1.txt line 8 holds (nan|inf) in column 50"):
        cmu_mocap.read(tmp_path / "tree", "train")
    cmu_npz(tmp_path, train__walking__walking_1=values)
    with pytest.raises(ValueError, match=r"walking_1 frame 7 holds .* \(2 bad frames\)"):
        cmu_mocap.read(tmp_path, "train")


def test_cmu_too_few_frames(tmp_path):
    cmu_text(tmp_path, table(69, 117))
    assert len(cmu_mocap.read(tmp_path, "train", length=35)) == 1
    cmu_text(tmp_path, table(68, 117))
    with pytest.raises(ValueError, match="has 34 frames after taking every 2nd, but .* = 35"):
        cmu_mocap.read(tmp_path, "train", length=35)


def test_cmu_unknown_action_split_and_path(tmp_path):
    cmu_text(tmp_path, table(40, 117))
    with pytest.raises(ValueError, match="unknown action 'wlaking'.* nearest is 'walking'"):
        cmu_mocap.read(tmp_path, "train", actions=("wlaking",))
    with pytest.raises(ValueError, match="has no train file of soccer; it has walking"):
        cmu_mocap.read(tmp_path, "train", actions=("soccer",))
    with pytest.raises(ValueError, match="unknown split 'val'"):
        cmu_mocap.read(tmp_path, "val")
    with pytest.raises(ValueError, match="does not exist"):
        cmu_mocap.read(tmp_path / "nowhere", "train")
    cmu_text(tmp_path, table(40, 117), name="jmuping/jmuping_1")
    with pytest.raises(ValueError, match="unknown action 'jmuping'.* nearest is 'jumping'"):
        cmu_mocap.read(tmp_path, "train")


def test_cmu_truncated_text_and_words(tmp_path):
    file = cmu_text(tmp_path, table(40, 117))
    whole = file.read_text()
    file.write_text(whole[: len(whole) - 700])
    with pytest.raises(ValueError, match=r"line 40 has \d+ values.* seems cut off"):
        cmu_mocap.read(tmp_path, "train")
    file.write_text(whole.replace(whole.split(",")[3], "abc", 1))
    with pytest.raises(ValueError, match="line 1 holds 'abc', which is not a number"):
        cmu_mocap.read(tmp_path, "train")
    file.write_text("")
    with pytest.raises(ValueError, match="holds no frames"):
        cmu_mocap.read(tmp_path, "train")
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="is not a text file"):
        cmu_mocap.read(tmp_path, "train")


def test_cmu_truncated_and_pickled_npz(tmp_path, monkeypatch):
    file = cmu_npz(tmp_path, train__walking__walking_1=table(400, 117))
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="benchmark.npz is damaged or cut off"):
        cmu_mocap.read(tmp_path, "train")
    file.write_bytes(whole[:2000] + bytes(2000) + whole[4000:])
    with pytest.raises(ValueError, match="benchmark.npz train/walking/walking_1 cannot be read"):
        cmu_mocap.read(tmp_path, "train")
    cmu_npz(tmp_path, train__walking__walking_1=np.array([{"a": 1}], dtype=object))
    with pytest.raises(ValueError, match="cannot be read.* Only plain number arrays"):
        cmu_mocap.read(tmp_path, "train")
    monkeypatch.setattr(cmu_mocap, "MAX_ARCHIVE_BYTES", 10)
    with pytest.raises(ValueError, match="unpacks to .* bytes, more than the 10"):
        cmu_mocap.read(tmp_path, "train")


def test_cmu_text_size_limit(tmp_path, monkeypatch):
    cmu_text(tmp_path, table(40, 117))
    monkeypatch.setattr(clips, "MAX_TEXT_BYTES", 10)
    with pytest.raises(ValueError, match="more than the 10 that a text file"):
        cmu_mocap.read(tmp_path, "train")


def test_cmu_real_files():
    root = Path(os.environ.get("TENFOLD_DATA", "")) / "cmu_mocap"
    if not (root / "benchmark.npz").exists():
        pytest.skip(f"{root}/benchmark.npz is absent; set TENFOLD_DATA")
    packed = {c.name: c for c in cmu_mocap.read(root, "train", length=35)}
    assert len(Windows(list(packed.values()), 35)) == 15818
    for text in cmu_mocap.read(root / "original_sample", "train", length=35):
        np.testing.assert_allclose(text.positions, packed[text.name].positions, atol=1e-3)


# --- Human3.6M ---


def h36m_text(root: Path, values: np.ndarray, subject=5, name="walking_1") -> Path:
    file = root / f"S{subject}" / f"{name}.txt"
    file.parent.mkdir(parents=True, exist_ok=True)
    np.savetxt(file, values, fmt="%.9g", delimiter=",")
    return file


def test_h36m_reads_a_split(tmp_path):
    for name in ("walking_1", "walking_2", "eating_1"):
        h36m_text(tmp_path / "dataset", table(60, 99), name=name)
    h36m_text(tmp_path / "dataset", table(60, 99), subject=1)
    clips = h36m.read(tmp_path, "test", length=20)
    assert [c.name for c in clips] == ["S5/walking_1", "S5/walking_2", "S5/eating_1"]
    assert clips[0].positions.shape == (30, 32, 3) and clips[0].fps == 25.0
    assert [c.name for c in h36m.read(tmp_path, "train")] == ["S1/walking_1"]
    with pytest.raises(ValueError, match="no validation file of any action; looked for S11/"):
        h36m.read(tmp_path, "validation")


def test_h36m_bad_files(tmp_path):
    h36m_text(tmp_path, table(60, 117))
    with pytest.raises(ValueError, match="walking_1.txt line 1 has 117 values, expected 99"):
        h36m.read(tmp_path, "test")
    values = table(60, 99)
    values[3, 3] = np.nan
    file = h36m_text(tmp_path, values)
    with pytest.raises(ValueError, match="walking_1.txt line 4 holds nan"):
        h36m.read(tmp_path, "test")
    h36m_text(tmp_path, table(30, 99))
    with pytest.raises(ValueError, match="has 15 frames after taking every 2nd, but .* = 20"):
        h36m.read(tmp_path, "test", length=20)
    file.write_text(file.read_text()[:-300])
    with pytest.raises(ValueError, match="seems cut off"):
        h36m.read(tmp_path, "test")
    h36m_text(tmp_path, table(60, 99))
    with pytest.raises(ValueError, match="unknown action 'smokin'.* nearest is 'smoking'"):
        h36m.read(tmp_path, "test", actions=("smokin",))
    h36m_text(tmp_path, table(60, 99), name="etaing_1")
    with pytest.raises(ValueError, match="unknown action 'etaing'.* nearest is 'eating'"):
        h36m.read(tmp_path, "test")


# --- 3DPW ---


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_3dpw_reads_each_person(tmp_path, protocol):
    people = [table(60, 72).astype(np.float64), table(50, 72, seed=1)]
    content = {"jointPositions": people, "sequence": "street", "betas": [np.float64(1)]}
    pickled(tmp_path, content, protocol=protocol)
    first, second = threedpw.read(tmp_path, "train", length=40)
    assert (first.name, second.name) == ("train/street_00/0", "train/street_00/1")
    want = people[0].reshape(-1, 24, 3)
    want = 1000 * (want - want[:, :1])
    np.testing.assert_allclose(first.positions, want, rtol=1e-5, atol=1e-3)


def test_3dpw_pickle_with_code_is_refused(tmp_path):
    marker = tmp_path / "ran"

    class Attack:
        def __reduce__(self):
            return os.mkdir, (str(marker),)

    pickled(tmp_path, {"jointPositions": [Attack()]})
    with pytest.raises(ValueError, match=r"street_00.pkl cannot be read: it asks for .*\.mkdir"):
        threedpw.read(tmp_path, "train")
    assert not marker.exists()


def test_3dpw_bad_files(tmp_path):
    with pytest.raises(ValueError, match="holds no .pkl file"):
        threedpw.read(tmp_path, "train")
    file = pickled(tmp_path, {"jointPositions": [table(60, 72)]})
    with pytest.raises(ValueError, match="has 60 frames, but .* = 70"):
        threedpw.read(tmp_path, "train", length=70)
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="damaged or cut off|cannot be read"):
        threedpw.read(tmp_path, "train")
    pickled(tmp_path, {"jointPositions": [table(60, 69)]})
    with pytest.raises(ValueError, match=r"jointPositions\[0\] holds .* expected .*72"):
        threedpw.read(tmp_path, "train")
    values = table(60, 72)
    values[5, 5] = np.nan
    pickled(tmp_path, {"jointPositions": [values]})
    with pytest.raises(ValueError, match=r"jointPositions\[0\] frame 5 holds nan"):
        threedpw.read(tmp_path, "train")
    for content in ([1], {"poses": []}, {"jointPositions": []}):
        pickled(tmp_path, content)
        with pytest.raises(ValueError, match="has no list 'jointPositions'"):
            threedpw.read(tmp_path, "train")
    pickled(tmp_path, {"jointPositions": ["x"]})
    with pytest.raises(ValueError, match="is a str, expected an array"):
        threedpw.read(tmp_path, "train")


# --- windows ---


def test_windows_equal_slices():
    clips = [clip(12), clip(7, "train/soccer/soccer_1"), clip(9, "train/walking/walking_2")]
    windows = Windows(clips, 5)
    assert len(windows) == 8 + 3 + 5
    got = windows.gather(np.array([15, 0, 9]))
    assert got[:, :, 0, 0].tolist() == [[4, 5, 6, 7, 8], [0, 1, 2, 3, 4], [1, 2, 3, 4, 5]]
    assert {k: len(v) for k, v in windows.by_action().items()} == {"walking": 13, "soccer": 3}


def test_windows_refuse_what_cannot_be_cut():
    with pytest.raises(ValueError, match="at least one clip"):
        Windows([], 5)
    with pytest.raises(ValueError, match="has 3 joints, but .* has 4"):
        Windows([clip(9), clip(9, joints=3)], 5)
    with pytest.raises(ValueError, match="has 9 frames, too few"):
        Windows([clip(9)], 5, [np.array([5])])
    assert len(Windows([clip(3)], 5, [np.arange(0)])) == 0


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5])
def test_holdout_shares_no_frame(share):
    clips = [clip(60), clip(50, "train/walking/walking_2"), clip(40, "train/soccer/soccer_1")]
    train, validation = holdout(clips, share, 10)
    seen = {(c.name, f) for c in train for f in c.positions[:, 0, 0].tolist()}
    held = {(c.name, f) for c in validation for f in c.positions[:, 0, 0].tolist()}
    assert not seen & held
    assert sum(len(c.positions) - 9 for c in validation) == round(share * 92) + round(share * 31)
    assert {c.action for c in train} == {"walking", "soccer"}


def test_holdout_of_nothing_is_refused():
    with pytest.raises(ValueError, match="leaves none to validate on"):
        holdout([clip(12)], 0.1, 10)


def test_protocols():
    assert [len(s) for s in protocol_starts([40, 36], "h36m", "all", 10, 35)] == [6, 2]
    (starts,) = protocol_starts([90], "3dpw", "all", 10, 40)
    assert starts.tolist() == list(range(40, 51))
    with pytest.raises(ValueError, match="'256' is not defined for cmu_mocap; .* all, 8"):
        protocol_starts([400], "cmu_mocap", "256", 10, 35)
    with pytest.raises(ValueError, match="needs both sub-actions"):
        protocol_starts([400], "h36m", "256", 10, 35)
    with pytest.raises(ValueError, match="more than 166 frames"):
        protocol_starts([166, 400], "h36m", "8", 10, 35)
    with pytest.raises(ValueError, match="data.past is 60"):
        protocol_starts([400], "cmu_mocap", "8", 60, 70)


def test_protocol_windows_pair_sub_actions():
    names = ["S5/walking_1", "S5/eating_1", "S5/walking_2", "S5/eating_2"]
    clips = [clip(n, name) for name, n in zip(names, (300, 400, 500, 600), strict=True)]
    windows = protocol_windows(clips, "h36m", "8", 10, 35)
    first, second = protocol_starts([300, 500], "h36m", "8", 10, 35)
    assert windows.start[windows.clip == 0].tolist() == first.tolist()
    assert windows.start[windows.clip == 2].tolist() == second.tolist()
    assert {k: len(v) for k, v in windows.by_action().items()} == {"walking": 8, "eating": 8}


def test_clips_of_one_name_keep_windows_of_their_own():
    one_name = [clip(frames, "test/walking/take") for frames in (100, 60, 80)]
    windows = protocol_windows(one_name, "bvh", "all", 10, 35)
    assert np.bincount(windows.clip).tolist() == [66, 26, 46]
