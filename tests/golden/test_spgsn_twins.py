"""Other SPGSN cases of the known kinds: renamed, of other sizes, with other outputs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.fft import dct

from golden.harness import Case, check
from golden.test_spgsn import CHECKS
from golden.twins import normals, some, stored, write


def passes(case: Case) -> None:
    check(case, "spgsn", CHECKS)


def fails(case: Case, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        passes(case)


@pytest.mark.parametrize(("length", "num", "past"), [(24, 9, 7), (50, 50, 20)])
def test_dct_of_any_length(tmp_path: Path, length: int, num: int, past: int) -> None:
    spec, _ = stored("spgsn", "dct")
    key, shape = "h.some.signal", [3, length]
    spec["inputs"] = [{"key": key, "shape": shape, "scale": 10.0}]
    spec["note"] = f"padded: frames {past}..{length - 1} replaced by frame {past - 1} first"
    x = normals(key, shape, 10.0).astype(np.float64)
    padded = np.concatenate([x[:, :past], np.repeat(x[:, past - 1 : past], length - past, 1)], 1)
    basis = dct(np.eye(length), axis=0, norm="ortho")
    coefs, of_padded = (dct(a, axis=1, norm="ortho")[:, :num] for a in (x, padded))
    arrays = {
        f"dct.{length}_f64": basis,
        f"idct.{length}_f64": np.linalg.inv(basis),
        f"coef{num}": coefs.astype(np.float32),
        f"recon{num}": (coefs @ basis[:num]).astype(np.float32),
        f"padded_coef{num}": of_padded.astype(np.float32),
    }
    passes(write(tmp_path, "lengths", spec, arrays))
    arrays[f"padded_coef{num}"] = arrays[f"coef{num}"]
    fails(write(tmp_path, "wrong", spec, arrays), f"case wrong: padded_coef{num}")
    passes(write(tmp_path, "bare", {"kind": "dct", "outputs": {}}, {"dct.5_f64": np.array(dct(
        np.eye(5), axis=0, norm="ortho"))}))  # fmt: skip


def test_kinematics_without_rotations(tmp_path: Path) -> None:
    spec, arrays = stored("spgsn", "fk_h36m")
    spec["inputs"][0]["shape"][0] = 3  # a rule draws row by row: these are the first of five
    few = {name: array[:3] for name, array in some(arrays, "xyz_raw").items()}
    passes(write(tmp_path, "positions", spec, few))
    spec["inputs"][0]["note"] = ""
    fails(write(tmp_path, "rest pose not made", spec, few), "xyz_raw")


def test_kinematics_of_own_rows_only(tmp_path: Path) -> None:
    spec, arrays = stored("spgsn", "fk_cmu")
    passes(write(tmp_path, "rows", spec, some(arrays, "xyz/rule")))


def test_noise_by_any_name(tmp_path: Path) -> None:
    """Without size it changes nothing, so that the repeated last frame's errors are due."""
    spec, arrays = stored("spgsn", "cmu_mpjpe")
    noise = spec["inputs"][0]
    spec["inputs"] = [noise | {"key": "h2.jitter", "scale": 0.0}]
    spec["horizons_frames"] = spec["horizons_frames"][:3]
    errors = arrays["zero_velocity_dct/running"][:3]
    passes(write(tmp_path, "quiet", spec, {"noisy/running": errors}))
    fails(
        write(tmp_path, "other", spec, {"loud/running": errors}), "no check for .* 'loud/running'"
    )
    spec["inputs"][0]["scale"] = 20.0
    fails(write(tmp_path, "loud", spec, {"noisy/running": errors}), "noisy/running")
    spec["inputs"][0]["shape"] = [47, 75, 30]
    fails(write(tmp_path, "short", spec, {"noisy/running": errors}), "needs one noise input")


def test_windows_and_samples_by_name(tmp_path: Path) -> None:
    spec, arrays = stored("spgsn", "cmu_windows")
    own = "test/walking/walking_1"
    fewer = some(arrays, "starts8/walking", f"{own}/first_window")
    fewer[f"{own}/input_dct_last_0"] = arrays[f"{own}/input_dct_0_1_last"][[2, 0]]
    passes(write(tmp_path, "windows", spec, fewer))
    fails(write(tmp_path, "odd", spec, {f"{own}/middle": np.ones(1)}), "no check for .*middle")
    spec, arrays = stored("spgsn", "h36m_sampling")
    passes(write(tmp_path, "some", spec, some(arrays, "starts8/800.2743.2", "dim_used_h36m")))


def test_readers_with_fewer_outputs(tmp_path: Path) -> None:
    spec, arrays = stored("spgsn", "h36m_reader")
    passes(write(tmp_path, "one", spec, some(arrays, "last_window", "n_windows")))
    spec, arrays = stored("spgsn", "3dpw_reader")
    spec["inputs"], spec["note"] = spec["inputs"][1:], spec["note"].split("; ")[1]
    test = [name for name in arrays if name.startswith("test/")]
    passes(write(tmp_path, "two", spec, some(arrays, *test)))


def test_filters_by_other_names(tmp_path: Path) -> None:
    spec, arrays = stored("spgsn", "scattering_filters")
    spec["items"] = spec["items"][1:3]
    renamed = {"Wavelets.a": arrays["H.9.2"], "b": arrays["H.12.3"]}
    passes(write(tmp_path, "filters", spec, renamed))
    passes(write(tmp_path, "fewer", spec, some(arrays, "H.12.3")))
    fails(write(tmp_path, "odd", spec, {"b": arrays["H.12.3"]}), r"2 graphs, but the outputs .'b'")


def test_rates_of_fewer_epochs(tmp_path: Path) -> None:
    spec, arrays = stored("spgsn", "lr_schedule")
    passes(write(tmp_path, "rates", spec, {"lr_f64": arrays["lr_f64"][:7]}))
    spec["config"] = {"lr": 0.01, "gamma": 0.5, "every": 3}
    want = 0.01 * 0.5 ** ((np.arange(8) + 1) // 3)
    passes(write(tmp_path, "others", spec, {"lr_f64": want}))


def test_a_model_with_one_sample_and_two_outputs(tmp_path: Path) -> None:
    spec, arrays = stored("spgsn", "model_tiny_J2_eval")
    spec["inputs"][0]["shape"][0] = 1
    fewer = some(arrays, "output", "gcbs.0.up.filters")
    fewer["output"] = fewer["output"][:1]
    passes(write(tmp_path, "single", spec, fewer))


def test_a_step_by_its_own_words(tmp_path: Path) -> None:
    spec, arrays = stored("spgsn", "model_tiny_train_step")
    few = [name for name in arrays if name.startswith(("after/gc", "grad/gc"))]
    passes(write(tmp_path, "step", spec, some(arrays, *few)))
    spec["training_step"] = spec["training_step"].replace("lr=1e-3", "lr=2e-3")
    fails(write(tmp_path, "faster", spec, some(arrays, *few)), "case faster: after/")
    spec["training_step"] = "SGD"
    fails(write(tmp_path, "unsaid", spec, some(arrays, *few)), "no optimiser in 'SGD'")
