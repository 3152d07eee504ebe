"""Golden checks of the motion data: kinematics, readers, windows, protocols and the metric."""

from __future__ import annotations

import pickle
import re
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch

from golden.harness import Case
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


def indices(name: str, count: int) -> list[int]:
    """Which of so many windows an output's name means, as 0, 1, last of "input_dct_0_1_last"."""
    words = name.split("_")
    found = [int(w) if w.isdigit() else count - 1 for w in words if w.isdigit() or w == "last"]
    return found or ([0] if "first" in words else [])


def of_windows(name: str, windows: Windows, used: tuple[int, ...], past: int, num: int, scale=1.0):
    """An output about windows by its name: their number, some of them, or the network's input."""
    if name in ("n", "n_windows"):
        return np.array([len(windows)])
    at = indices(name, len(windows))
    some = windows.gather(np.array(at)) / scale if at else None
    if some is None or not name.startswith(("first_window", "last_window", "all_seq", "input_dct")):
        return None
    if name.startswith("input_dct"):
        got = network_input(some, used, past, num)
    else:
        got = some.reshape(len(some), windows.length, -1)
    return got if len(at) > 1 else got[0]


def unknown(case: Case, name: str) -> AssertionError:
    return AssertionError(f"{case.json_path}: no check for the output {name!r}")


def expmap_of(case: Case) -> np.ndarray:
    """The rule-made exponential maps, with the rows set to 0 that the input's note names."""
    expmap = case.input("expmap")
    for row in re.findall(r"row (\d+) then set to 0", case.find("expmap").note):
        expmap[int(row)] = 0
    return expmap


def fk_cmu(case: Case) -> None:
    for key in case.arrays:
        sequence = key.removeprefix("xyz/")
        if sequence == "rule":
            columns_ = expmap_of(case)
        else:
            item = next((i for i in case.spec["items"] if i["sequence"] == sequence), None)
            if item is None:
                raise unknown(case, key)
            with np.load(real_data(case), allow_pickle=False) as archive:
                columns_ = archive[sequence][item["frames"]]
        case.compare(key, forward_kinematics(columns_, CMU_OFFSETS, CMU.parents), **MM)


def fk_h36m(case: Case) -> None:
    expmap = expmap_of(case)
    local = expmap.copy()
    local[:, :6] = 0
    angles = expmap[:, 3:].reshape(len(expmap), -1, 3)
    got = {
        "xyz_raw": forward_kinematics(expmap, H36M_OFFSETS, H36M.parents),
        "xyz_noglobal": forward_kinematics(local, H36M_OFFSETS, H36M.parents),
        "rotmat": expmap_to_rotation(angles.astype(np.float64)),
    }
    case.compare_all(got, lambda name: {} if name == "rotmat" else MM)


def cmu_windows(case: Case) -> None:
    config = numbers(case.spec["note"])
    past, num = config["input_n"], config["dct_n"]
    length = past + config["output_n"]
    path = real_data(case)
    clips = {split: cmu_mocap.read(path, split, length=length) for split in ("train", "test")}
    for key in case.arrays:
        *prefix, name = key.split("/")
        protocol = re.fullmatch(r"starts(\d+)|n_windows", prefix[0]) if prefix else None
        if key.startswith("dim_used"):
            got = columns(CMU.used)
        elif prefix and prefix[0] in clips:
            clip = next(c for c in clips[prefix[0]] if c.name == "/".join(prefix))
            got = of_windows(name, Windows([clip], length), CMU.used, past, num)
        elif protocol:
            of_action = [c for c in clips["test"] if c.action == name]
            of_all = protocol[1] or "all"
            windows = protocol_windows(of_action, "cmu_mocap", of_all, past, length)
            got = windows.start if protocol[1] else np.array([len(windows)])
        else:
            got = None
        if got is None:
            raise unknown(case, key)
        case.compare(key, got, **MM)


def noise_for(case: Case, action: str, shape: tuple[int, ...]) -> np.ndarray:
    """The noise on an action's coefficients: the only input of that shape, or named after it."""
    found = [i for i in case.inputs if tuple(i.shape) == shape]
    found = found if len(found) == 1 else [i for i in found if action in i.name.split(".")]
    assert len(found) == 1, (
        f"{case.json_path}: {action} needs one noise input of shape {list(shape)}, there are "
        f"{[(i.name, i.shape) for i in case.inputs]}"
    )
    return case.value(found[0])


def cmu_mpjpe(case: Case) -> None:
    """Errors of the repeated last frame, with noise on its coefficients or without."""
    horizons = case.spec["horizons_frames"]
    stated = re.search(r"(\d+) of (\d+) coefficients", case.spec["note"])
    assert stated, f"{case.json_path}: no numbers of coefficients in {case.spec['note']!r}"
    num, length = int(stated[1]), int(stated[2])
    past = numbers(case.spec["note"]).get("input_n", 10)
    clips = cmu_mocap.read(real_data(case), "test", length=length)
    for key in (key for key in case.arrays if not key.endswith("/train_loss")):
        kind, action = key.split("/")
        found = re.fullmatch(r"(zero_velocity_dct|noisy)(?:_(\d+))?", kind)
        if not found:
            raise unknown(case, key)
        of_action = [c for c in clips if c.action == action]
        windows = protocol_windows(of_action, "cmu_mocap", found[2] or "all", past, length)
        truth = windows.gather(np.arange(len(windows)))
        coeffs = network_input(truth, CMU.used, past, num)
        if found[1] == "noisy":
            coeffs = coeffs + noise_for(case, action, coeffs.shape)
        truth_all = torch.from_numpy(truth).double()
        pred = from_coeffs(coeffs, length)
        full = fill_unused(truth_all, pred, CMU)
        case.compare(key, mpjpe_at(full[:, past:], truth_all[:, past:], horizons))
        loss = f"{kind}/train_loss"
        if loss in case.arrays:
            actions = [k for k in case.arrays if k.startswith(f"{kind}/") and k != loss]
            assert actions == [key], f"{case.json_path}: {loss!r} could be of any of {actions}"
            used = truth_all[:, :, list(CMU.used)]
            case.compare(loss, mpjpe(pred, used).mean()[None])


def h36m_sampling(case: Case) -> None:
    config = numbers(case.spec["note"])
    past, length = config["input_n"], config["seq_len"]
    for key in case.arrays:
        found = re.fullmatch(r"starts(\d+)/(\d+(?:\.\d+)*)\.(\d+)", key)
        if key.startswith("dim_used"):
            got = columns(H36M.used)
        elif found:
            counts = [int(count) for count in found[2].split(".")]
            starts = protocol_starts(counts, "h36m", found[1], past, length)
            got = starts[int(found[3]) - 1]
        else:
            raise unknown(case, key)
        case.compare(key, got)


def written(case: Case, folder: str) -> dict[Path, list[np.ndarray]]:
    """The inputs that a case's reader is to find, by the file that it says each is written to."""
    found: dict[Path, list[np.ndarray]] = {}
    for entry, own in zip(case.spec["inputs"], case.inputs, strict=True):
        name = re.match(r"[^,\s]+", entry["written_as"])
        assert name, f"{case.json_path}: no file in {entry['written_as']!r}"
        file = Path(folder) / name[0]
        file.parent.mkdir(parents=True, exist_ok=True)
        found.setdefault(file, []).append(case.value(own))
    return found


def h36m_reader(case: Case) -> None:
    config = numbers(case.spec["note"])
    length = config["seq_len"]
    assert config.get("sample_rate", 2) == 2, "the reader takes every second frame"
    with tempfile.TemporaryDirectory() as folder:
        subjects, actions = set(), []
        for file, (table,) in written(case, folder).items():
            np.savetxt(file, table, fmt="%.9g", delimiter=",")
            subjects.add(int(file.parent.name[1:]))
            actions.append(file.stem.rpartition("_")[0])
        split = next(s for s, known in h36m.SUBJECTS.items() if subjects <= set(known))
        actions = list(dict.fromkeys(actions))
        windows = Windows(h36m.read(Path(folder), split, actions, length), length)
    for name in case.arrays:
        is_columns = name.startswith("dim_used")
        got = columns(H36M.used) if is_columns else of_windows(name, windows, H36M.used, 0, 0)
        if got is None:
            raise unknown(case, name)
        case.compare(name, got, **MM)


def threedpw_reader(case: Case) -> None:
    configs = {part.split(":")[0].strip(): numbers(part) for part in case.spec["note"].split(";")}
    with tempfile.TemporaryDirectory() as folder:
        for file, people in written(case, folder).items():
            content = {"jointPositions": [person.astype(np.float64) for person in people]}
            file.write_bytes(pickle.dumps(content, protocol=2))
        made = {}
        for split, config in configs.items():
            past, length = config["input_n"], config["input_n"] + config["output_n"]
            clips = threedpw.read(Path(folder), split, length)
            if split == "test":
                made[split] = protocol_windows(clips, "3dpw", "all", past, length)
            else:
                made[split] = Windows(clips, length)
    for key in case.arrays:
        split, _, name = key.partition("/")
        config = configs[split]
        got = of_windows(
            name, made[split], THREEDPW.used, config["input_n"], config["dct_n"], scale=1000
        )
        if got is None:
            raise unknown(case, key)
        case.compare(key, got)


CHECKS = {
    "fk_cmu": fk_cmu,
    "fk_h36m": fk_h36m,
    "cmu_windows": cmu_windows,
    "cmu_mpjpe": cmu_mpjpe,
    "h36m_sampling": h36m_sampling,
    "h36m_reader": h36m_reader,
    "3dpw_reader": threedpw_reader,
}
