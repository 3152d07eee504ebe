"""Golden checks of the motion data: kinematics, readers, windows, protocols and the metric."""

from __future__ import annotations

import pickle
import re
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch

from golden.harness import Case, close
from tenfold.data.motion import cmu_mocap, h36m, threedpw
from tenfold.data.motion.clips import Windows, protocol_starts, protocol_windows
from tenfold.data.motion.kinematics import expmap_to_rotation, forward_kinematics
from tenfold.data.motion.skeleton import CMU, CMU_OFFSETS, H36M, H36M_OFFSETS, THREEDPW
from tenfold.metrics.mpjpe import fill_unused, mpjpe, mpjpe_at

# The reference computes kinematics of bodies of 1000 mm and more in float32 (eps 1.2e-7), we in
# float64; so a coordinate near 0 differs by up to a few 1e-4 mm.
MM = dict(rtol=1e-5, atol=5e-4)


def real_data(case: Case) -> Path:
    try:
        return case.data_file(case.spec["data"])
    except FileNotFoundError as error:
        pytest.skip(f"{case.spec['data']} is absent ({error}); set TENFOLD_DATA")


def numbers(note: str) -> dict[str, int]:
    """Settings that a case states in words, such as "input_n 10 output_n 25 dct_n 30"."""
    return {name: int(value) for name, value in re.findall(r"(\w+) (\d+)", note)}


def columns(used: tuple[int, ...]) -> np.ndarray:
    return np.array([3 * joint + axis for joint in used for axis in range(3)])


def network_input(windows: np.ndarray, used: tuple[int, ...], past: int, num: int) -> np.ndarray:
    """DCT coefficients (windows, nodes, num) of the past, its last frame repeated."""
    from tenfold.nn.dct import dct_matrix

    length = windows.shape[1]
    frames = np.minimum(np.arange(length), past - 1)
    x = windows[:, frames][:, :, list(used)].reshape(len(windows), length, -1).astype(np.float64)
    return np.einsum("kt,btv->bvk", dct_matrix(length).numpy()[:num], x)


def from_coeffs(coeffs: np.ndarray, length: int) -> torch.Tensor:
    """Positions (windows, length, joints, 3) of DCT coefficients (windows, nodes, num)."""
    from tenfold.nn.dct import dct_matrix

    basis = dct_matrix(length).numpy()[: coeffs.shape[2]]
    x = np.einsum("kt,bvk->btv", basis, coeffs.astype(np.float64))
    return torch.from_numpy(x.reshape(len(x), length, -1, 3))


def check_all(case: Case, got: dict[str, np.ndarray], **tolerance: float) -> None:
    assert set(got) == set(case.spec["outputs"]), set(got) ^ set(case.spec["outputs"])
    for key, value in got.items():
        want = case.arrays[key]
        close(np.asarray(value), want, what=f"{case.name} {key}", **tolerance)


def fk_cmu(case: Case) -> None:
    got = {}
    for key in case.spec["outputs"]:
        sequence = key.removeprefix("xyz/")
        if sequence == "rule":
            columns_ = case.input("fk.cmu.expmap")
            columns_[0] = 0
        else:
            item = next(i for i in case.spec["items"] if i["sequence"] == sequence)
            with np.load(real_data(case), allow_pickle=False) as archive:
                columns_ = archive[sequence][item["frames"]]
        got[key] = forward_kinematics(columns_, CMU_OFFSETS, CMU.parents)
    check_all(case, got, **MM)


def fk_h36m(case: Case) -> None:
    expmap = case.input("fk.h36m.expmap")
    expmap[0] = 0
    local = expmap.copy()
    local[:, :6] = 0
    angles = expmap[:, 3:].reshape(len(expmap), -1, 3)
    got = {
        "xyz_raw": forward_kinematics(expmap, H36M_OFFSETS, H36M.parents),
        "xyz_noglobal": forward_kinematics(local, H36M_OFFSETS, H36M.parents),
        "rotmat": expmap_to_rotation(angles.astype(np.float64)),
    }
    close(got["rotmat"], case.arrays["rotmat"], what="rotmat")
    check_all(case, got, **MM)


def cmu_windows(case: Case) -> None:
    config = numbers(case.spec["note"])
    past, num = config["input_n"], config["dct_n"]
    length = past + config["output_n"]
    path, got = real_data(case), {}
    clips = {split: cmu_mocap.read(path, split, length=length) for split in ("train", "test")}
    for key in case.spec["outputs"]:
        *prefix, name = key.split("/")
        if key == "dim_used":
            got[key] = columns(CMU.used)
        elif prefix[0] in clips:
            clip = next(c for c in clips[prefix[0]] if c.name == "/".join(prefix))
            windows = Windows([clip], length)
            ends = windows.gather(np.array([0, 1, len(windows) - 1]))
            got[key] = {
                "n_windows": np.array([len(windows)]),
                "first_window": ends[0].reshape(length, -1),
                "last_window": ends[-1].reshape(length, -1),
                "input_dct_0_1_last": network_input(ends, CMU.used, past, num),
            }[name]
        else:
            protocol = {"n_windows": "all"}.get(prefix[0]) or prefix[0].removeprefix("starts")
            of_action = [c for c in clips["test"] if c.action == name]
            windows = protocol_windows(of_action, "cmu_mocap", protocol, past, length)
            got[key] = windows.start if protocol != "all" else np.array([len(windows)])
    check_all(case, got, **MM)


def cmu_mpjpe(case: Case) -> None:
    horizons = case.spec["horizons_frames"]
    num, length = map(int, re.search(r"(\d+) of (\d+) coefficients", case.spec["note"]).groups())
    past = numbers(case.spec["note"]).get("input_n", 10)
    clips = cmu_mocap.read(real_data(case), "test", length=length)
    got = {}
    for key in case.spec["outputs"]:
        kind, action = key.split("/")
        if action == "train_loss":
            continue
        protocol = re.search(r"_(\d+)$", kind)
        windows = protocol_windows(
            [c for c in clips if c.action == action],
            "cmu_mocap",
            protocol[1] if protocol else "all",
            past,
            length,
        )
        truth = windows.gather(np.arange(len(windows)))
        coeffs = network_input(truth, CMU.used, past, num)
        if kind == "noisy":
            coeffs = coeffs + case.input("metric.noise")
        truth_all = torch.from_numpy(truth).double()
        pred = from_coeffs(coeffs, length)
        if f"{kind}/train_loss" in case.spec["outputs"]:
            used = truth_all[:, :, list(CMU.used)]
            got[f"{kind}/train_loss"] = mpjpe(pred, used).mean()[None]
        full = fill_unused(truth_all, pred, CMU)
        got[key] = mpjpe_at(full[:, past:], truth_all[:, past:], horizons)
    check_all(case, got, rtol=1e-5, atol=1e-5)


def h36m_sampling(case: Case) -> None:
    config = numbers(case.spec["note"])
    past, length = config["input_n"], config["seq_len"]
    got = {}
    for key in case.spec["outputs"]:
        if key == "dim_used_h36m":
            got[key] = columns(H36M.used)
        else:
            protocol, frames, action = re.fullmatch(r"starts(\d+)/(\d+\.\d+)\.(\d)", key).groups()
            counts = [int(count) for count in frames.split(".")]
            starts = protocol_starts(counts, "h36m", protocol, past, length)
            got[key] = starts[int(action) - 1]
    check_all(case, got)


def h36m_reader(case: Case) -> None:
    length = numbers(case.spec["note"])["seq_len"]
    with tempfile.TemporaryDirectory() as folder:
        subjects, actions = set(), []
        for entry in case.spec["inputs"]:
            name = re.match(r"[^,]+", entry["written_as"])[0]
            file = Path(folder) / name
            file.parent.mkdir(parents=True, exist_ok=True)
            np.savetxt(file, case.input(entry["key"]), fmt="%.9g", delimiter=",")
            subjects.add(int(file.parent.name[1:]))
            actions.append(file.stem.rpartition("_")[0])
        split = next(s for s, known in h36m.SUBJECTS.items() if subjects <= set(known))
        actions = list(dict.fromkeys(actions))
        windows = Windows(h36m.read(Path(folder), split, actions, length), length)
    ends = windows.gather(np.array([0, len(windows) - 1])).reshape(2, length, -1)
    got = {
        "n_windows": np.array([len(windows)]),
        "first_window": ends[0],
        "last_window": ends[1],
        "dim_used": columns(H36M.used),
    }
    check_all(case, got, **MM)


def threedpw_reader(case: Case) -> None:
    configs = {part.split(":")[0].strip(): numbers(part) for part in case.spec["note"].split(";")}
    got = {}
    with tempfile.TemporaryDirectory() as folder:
        for entry in case.spec["inputs"]:
            file = Path(folder) / re.match(r"[^,]+", entry["written_as"])[0]
            file.parent.mkdir(parents=True, exist_ok=True)
            content = {"jointPositions": [case.input(entry["key"]).astype(np.float64)]}
            file.write_bytes(pickle.dumps(content, protocol=2))
        for split, config in configs.items():
            past, length = config["input_n"], config["input_n"] + config["output_n"]
            clips = threedpw.read(Path(folder), split, length)
            if split == "test":
                windows = protocol_windows(clips, "3dpw", "all", past, length)
            else:
                windows = Windows(clips, length)
            metres = windows.gather(np.arange(len(windows))) / 1000
            coeffs = network_input(metres, THREEDPW.used, past, config["dct_n"])
            got[f"{split}/n"] = np.array([len(windows)])
            got[f"{split}/all_seq_0"] = metres[0].reshape(length, -1)
            got[f"{split}/input_dct_0"] = coeffs[0]
            got[f"{split}/input_dct_last"] = coeffs[-1]
    check_all(case, got)


CHECKS = {
    "fk_cmu": fk_cmu,
    "fk_h36m": fk_h36m,
    "cmu_windows": cmu_windows,
    "cmu_mpjpe": cmu_mpjpe,
    "h36m_sampling": h36m_sampling,
    "h36m_reader": h36m_reader,
    "3dpw_reader": threedpw_reader,
}
