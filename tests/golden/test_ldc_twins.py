"""Other LDC cases of the known kinds: under another prefix, smaller, with other outputs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from golden.harness import Case, check
from golden.test_ldc import CHECKS
from golden.twins import normals, some, stored, write


def passes(case: Case) -> None:
    check(case, "ldc", CHECKS)


def fails(case: Case, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        passes(case)


def test_an_encoder_with_one_picture(tmp_path: Path) -> None:
    spec, arrays = stored("ldc", "resnet20_cec")
    spec["input_prefix"] = "g.r20."
    spec["inputs"][0][1][0], spec["config"]["labels"] = 1, [0]
    fewer = {name: arrays[name][:1] for name in ("eval_feat", "eval_layer2_pooled")}
    passes(write(tmp_path, "single", spec, fewer))
    fails(
        write(tmp_path, "odd", spec, {"eval_layer9": np.ones(1)}), "no check for .* 'eval_layer9'"
    )


def test_biased_samples_of_fewer_classes(tmp_path: Path) -> None:
    spec, arrays = stored("ldc", "biased_sampling")
    spec["input_prefix"] = "g.pcu."
    for entry in spec["inputs"]:
        entry[1][0] = 2 if entry[1][0] == 4 else entry[1][0]
    fewer = {name: arrays[name][:2] for name in ("mu", "biased_head", "biased_chol_f64")}
    fewer["cov_in_f64"] = arrays["cov_in_f64"][:1]
    passes(write(tmp_path, "two classes", spec, fewer))


def test_any_number_of_recurrences(tmp_path: Path) -> None:
    """Inputs of another prefix and width, and the same in numpy."""
    spec, _ = stored("ldc", "pcu_recurrence")
    spec["config"] |= {"D": 5, "T": 2}
    spec["params"] = [[key, [5, 5]] for key, _ in spec["params"]]
    spec["input_prefix"] = "h9."
    spec["inputs"] = [
        ["h9.pcu.z0", [7, 5], 1.0, "abs"],
        ["h9.pcu.real", [3, 7, 5], 1.0, "abs; class 2 used"],
    ]
    z = np.abs(normals("h9.pcu.z0", [7, 5])).astype(np.float64)
    real = np.abs(normals("h9.pcu.real", [3, 7, 5])).astype(np.float64)[2]
    weights = [normals(key, [5, 5], 0.18).astype(np.float64) for key, _ in spec["params"]]

    def logs(x: np.ndarray) -> np.ndarray:
        return x - np.log(np.exp(x).sum(1, keepdims=True))

    passes_, terms = [], []
    for _ in range(2):
        for weight in weights:
            z = np.maximum(z @ weight.T, 0)
        passes_.append(z)
        terms.append((np.exp(logs(real)) * (logs(real) - logs(z))).sum())
    arrays = {"z1_f64": passes_[0], "z2_f64": passes_[1], "kl_t_f64": np.array(terms)}
    arrays |= {"loss": np.float32(sum(terms)), "z2": passes_[1].astype(np.float32)}
    passes(write(tmp_path, "twice", spec, arrays))
    fails(write(tmp_path, "thrice", spec, arrays | {"z3": arrays["z2"]}), r"looked at \['z3'\]")


def test_the_unit_learns_for_fewer_epochs(tmp_path: Path) -> None:
    spec, arrays = stored("ldc", "dis_match")
    spec["input_prefix"], spec["config"]["epochs"] = "g.pcu.", 2
    few = {"class_loss": arrays["class_loss"][:3]}
    passes(write(tmp_path, "short", spec, few))
    spec["config"]["optimizer"] = "SGD lr 0.1 momentum 0.9 dampening 0 wd 0"
    fails(write(tmp_path, "undamped", spec, few), "class_loss")


def test_a_session_of_fewer_epochs(tmp_path: Path) -> None:
    spec, arrays = stored("ldc", "session_update")
    spec["input_prefix"], spec["config"]["epochs_new"] = "g.ses.", 1
    steps = len(arrays["loss"]) // 3
    few = some(arrays, "novel_biased", "mean_cov_after", "labels")
    few |= {"loss": arrays["loss"][:steps], "calibrated_last_7": arrays["calibrated_last_20"][-7:]}
    passes(write(tmp_path, "short", spec, few))
    spec["config"]["order"] = spec["config"]["order"].replace("batches of 50", "batches of 60")
    fails(write(tmp_path, "larger batches", spec, few), "loss")
    few["labels"] = few["labels"][::-1]
    fails(write(tmp_path, "other order", spec, few), "labels")


def test_metrics_of_fewer_sessions(tmp_path: Path) -> None:
    spec, arrays = stored("ldc", "ncm_metrics")
    spec["input_prefix"], spec["config"]["sessions"] = "g.ncm.", 3
    for entry in spec["inputs"]:
        entry[1][0] = 18
    accuracy = arrays["session_acc_f64"][:3]
    passes(write(tmp_path, "fewer", spec, {
        "session_acc_f64": accuracy,
        "novel_acc_f64": arrays["novel_acc_f64"][:2],
        "prototypes_f64": arrays["prototypes_f64"][:18],
        "mean_cov_f64": arrays["mean_cov_f64"],
        "pd_f64": np.float64(accuracy[0] - accuracy[-1]),
        "avg_acc_f64": np.float64(accuracy.mean()),
    }))  # fmt: skip


def test_calibration_of_fewer_queries(tmp_path: Path) -> None:
    spec, arrays = stored("ldc", "free_lunch_dc")
    spec["input_prefix"], spec["inputs"][2][1] = "g.fl.", [2, 16]
    passes(write(tmp_path, "two", spec, {"cov_f64": arrays["cov_f64"][:2]}))


def test_a_protocol_of_one_benchmark(tmp_path: Path) -> None:
    spec, _ = stored("ldc", "protocol")
    one = {"cub200": spec["datasets"]["cub200"]}
    passes(write(tmp_path, "birds", spec | {"datasets": one}))
    other = spec | {"datasets": {"cub300": one["cub200"]}}
    fails(write(tmp_path, "more birds", other), "no protocol of 'cub300'; known")
