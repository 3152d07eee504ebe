"""Other PPMoE cases of the known kinds, and which parameters of a step are not compared."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.special import erf

from golden.harness import Case, check
from golden.noise import SURE, is_noise
from golden.ppmoe_model import sure
from golden.test_ppmoe import CHECKS
from golden.twins import normals, some, stored, write

KEY_BIAS = "layers.0.attn.qkv.bias"


def passes(case: Case) -> None:
    check(case, "ppmoe", CHECKS)


def fails(case: Case, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        passes(case)


# --- other prefixes and sizes ------------------------------------------------------------------


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def test_a_gate_of_another_size(tmp_path: Path) -> None:
    spec, _ = stored("ppmoe", "gate_top2_dropless_norm")
    spec["config"] |= {"T": 10, "E": 5, "h": 6, "k": 3, "norm_topk": True}
    shapes = {"x": [10, 6], "c": [10, 3]}
    spec["inputs"] = [{"key": f"h.in.{n}", "shape": s, "scale": 1.0} for n, s in shapes.items()]
    spec["params"], spec["scales"] = [["w.gate.weight", [5, 6]]], {"w.gate.weight": 0.9}
    x, c = (normals(f"h.in.{n}", s).astype(np.float64) for n, s in shapes.items())
    logits = x @ normals("w.gate.weight", [5, 6], 0.9).astype(np.float64).T
    p = softmax(logits)
    idx = np.argsort(-p, 1, kind="stable")[:, :3]
    w = np.take_along_axis(p, idx, 1)
    w /= w.sum(1, keepdims=True)
    counts = np.bincount(idx.ravel(), minlength=5)
    aux = 5 * (counts / 30 * p.mean(0)).sum()
    z = (np.log(np.exp(logits).sum(1)) ** 2).mean()
    ranked = -np.sort(-p, 1)
    spec["scalars"] = {
        "aux": aux, "z": z, "dropped": 0, "S": (w * c).sum() + 0.3 * aux + 0.1 * z,
        "margin": (ranked[:, 2] - ranked[:, 3]).min(),
    }  # fmt: skip
    arrays = {"p": p.astype(np.float32), "idx": idx, "w_kept": w.astype(np.float32)}
    passes(write(tmp_path, "gate", spec, arrays | {"counts": counts}))
    spec["scalars"]["entropy"] = 1.0
    fails(write(tmp_path, "odd", spec, arrays), "no check for the number 'entropy'")


def test_a_layer_of_another_size(tmp_path: Path) -> None:
    spec, _ = stored("ppmoe", "moe_top1")
    spec["config"] |= {"T": 7, "E": 4, "h": 6, "ffn": 10, "k": 1}
    shapes = {
        "gate.weight": [4, 6], "experts.fc1_weight": [4, 10, 6], "experts.fc1_bias": [4, 10],
        "experts.fc2_weight": [4, 6, 10], "experts.fc2_bias": [4, 6],
    }  # fmt: skip
    spec["params"] = [[f"h.l.{key}", shape] for key, shape in shapes.items()]
    spec["scales"] = {f"h.l.{key}": 0.4 for key in shapes}
    spec["inputs"] = [{"key": f"h.l.{n}", "shape": [7, 6], "scale": 1.0} for n in ("x", "gy")]
    x = normals("h.l.x", [7, 6]).astype(np.float64)
    gate, w1, b1, w2, b2 = (
        normals(f"h.l.{key}", shape, 0.4).astype(np.float64) for key, shape in shapes.items()
    )
    p = softmax(x @ gate.T)
    parts = np.zeros((2, 7, 6))
    for token, own in enumerate(p.argmax(1)):
        inner = w1[own] @ x[token] + b1[own]
        inner = inner * (1 + erf(inner / 2**0.5)) / 2
        parts[own // 2, token] = p[token, own] * (w2[own] @ inner + b2[own])
    spec["scalars"] = {"dropped": 0}
    arrays = {"y": parts.sum(0).astype(np.float32), "partial_tp2": parts.astype(np.float32)}
    passes(write(tmp_path, "layer", spec, arrays))
    arrays["partial_tp2"] = arrays["partial_tp2"][::-1]
    fails(write(tmp_path, "swapped", spec, arrays), "partial_tp2")


def test_a_plan_of_one_row(tmp_path: Path) -> None:
    spec, _ = stored("ppmoe", "cost_model")
    row = spec["rows"][3]
    spec["rows"] = [row | {"out": {"bubble": row["out"]["bubble"]}}]
    spec["paper_equations"] = [{k: v for k, v in spec["paper_equations"][0].items() if k != "eq5"}]
    passes(write(tmp_path, "one", spec))
    spec["rows"][0]["out"]["speed"] = 1
    fails(write(tmp_path, "odd", spec), "no check for 'speed'")


# --- steps whose gradient is rounding ----------------------------------------------------------


def test_a_key_bias_without_any_gradient(tmp_path: Path) -> None:
    """It is exactly 0 in the case and rounding here, which Adam makes a step of."""
    spec, arrays = stored("ppmoe", "lm_top1_tied_m2")
    few = some(arrays, "hidden", f"grad.{KEY_BIAS}", f"after_step.{KEY_BIAS}")
    width = spec["config"]["h"]
    keys = slice(width, 2 * width)
    assert np.abs(few[f"grad.{KEY_BIAS}"][keys]).max() < 1e-15
    few[f"grad.{KEY_BIAS}"][keys] = 0
    passes(write(tmp_path, "exact", spec, few))
    few[f"after_step.{KEY_BIAS}"][keys.start] += 1e-2
    fails(write(tmp_path, "far", spec, few), f"after_step.{KEY_BIAS}")


def test_what_is_noise() -> None:
    tiny, large = SURE / 10, SURE * 10
    got = np.array([0.0, tiny, 0.0, tiny, large, large, tiny, 0.0])
    want = np.array([0.0, 0.0, -tiny, tiny, large, tiny, large, large])
    noise = [False, True, True, True, False, False, False, False]
    assert is_noise(got, want).tolist() == noise
    assert is_noise(torch.tensor(got), want).tolist() == noise


def test_only_noise_is_left_out(tmp_path: Path) -> None:
    """A wrong step is seen where the gradient is sure, and where both sides know that it is 0."""
    spec, arrays = stored("ppmoe", "lm_top1_empty_rank")
    name = "layers.0.moe.experts.fc2_weight"
    case = write(tmp_path, "case", spec, some(arrays, f"grad.{name}", f"after_step.{name}"))
    grad, want = (torch.from_numpy(case.arrays[f"{k}.{name}"]) for k in ("grad", "after_step"))
    silent = (grad == 0).flatten(1).all(1)
    assert silent.any() and not silent.all()  # an expert without a token, and others
    stepped, off = f"after_step.{name}", 1e-4
    for expert in (int(silent.nonzero()[0]), int((~silent).nonzero()[0])):
        got = {f"grad.{name}": grad.clone(), stepped: want.clone()}
        got[stepped][expert, 0, 0] += off
        kept = sure(case, got, stepped)
        assert float(kept[expert, 0, 0] - want[expert, 0, 0]) == pytest.approx(off, rel=1e-2)
        # with rounding for a gradient the same step is no fault, but twice the rate is
        got[f"grad.{name}"][expert, 0, 0] = SURE / 100
        small = Case(case.json_path)
        small.arrays[f"grad.{name}"][expert, 0, 0] = 0
        assert torch.equal(sure(small, got, stepped), want)
        got[stepped][expert, 0, 0] += 3e-3
        assert not torch.equal(sure(small, got, stepped), want)
