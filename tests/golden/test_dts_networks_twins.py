"""Other cases of DTS's networks, of known kinds: renamed, smaller, with other options."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from golden.dts_networks import KINDS
from golden.harness import Case, check
from golden.twins import normals, some, stored, write


def passes(case: Case) -> None:
    check(case, "dts", KINDS)


def fails(case: Case, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        passes(case)


def renamed(spec: dict, old: str, new: str) -> dict[str, np.ndarray]:
    """Inputs under another prefix: new numbers by the rule, so their outputs are not the stored."""
    for entry in spec["inputs"]:
        entry["name"] = new + entry["name"].removeprefix(old)
    spec["input_prefix"] = new
    return {entry["name"]: normals(entry["name"], entry["shape"]) for entry in spec["inputs"]}


def first_picture(spec: dict) -> None:
    """Inputs of one picture, whose rules draw picture by picture."""
    for entry in spec["inputs"]:
        entry["shape"][0] = 1


def test_an_encoder_of_one_picture(tmp_path: Path) -> None:
    for name in ("a_mit_forward", "b_mit_forward"):
        spec, arrays = stored("dts", name)
        first_picture(spec)
        few = {key: arrays[key][:1] for key in ("stage4", "stage1")}
        passes(write(tmp_path, f"of one, {name[0]}", spec, few))
    spec["config"]["num_heads"] = [1, 1, 1, 1]
    fails(write(tmp_path, "other heads", spec, few), "case other heads: stage4")


def test_an_encoder_of_another_size(tmp_path: Path) -> None:
    """Stage 1 by torch's own functions, of pictures whose squares of keys do not fill the grid."""
    spec, _ = stored("dts", "b_mit_forward")
    spec["inputs"] = [{"name": "other.img", "shape": [1, 3, 40, 72], "kind": "normal"}]
    spec |= {"input_prefix": "other.", "kind": "mit_forward"}
    weights = {
        key: torch.from_numpy(normals(key, shape, spec["scale"])) for key, shape in spec["params"]
    }
    for key in spec["norm_weight_keys"]:
        weights[key] = torch.from_numpy(
            np.float32(1) + np.float32(0.1) * normals(key, weights[key].shape)
        )

    def w(key: str) -> tuple[torch.Tensor, torch.Tensor]:
        return weights[f"{key}.weight"], weights[f"{key}.bias"]

    def norm(x: torch.Tensor, key: str, eps: float) -> torch.Tensor:
        return F.layer_norm(x, x.shape[-1:], *w(key), eps)

    x = F.conv2d(
        torch.from_numpy(normals("other.img", [1, 3, 40, 72])), *w("patch_embed1.proj"), 4, 3
    )
    grid = x.shape[2:]
    x = norm(x.flatten(2).mT, "patch_embed1.norm", 1e-5)
    y = norm(x, "block1.0.norm1", 1e-6)
    few = F.conv2d(y.mT.unflatten(2, grid), *w("block1.0.attn.sr"), 8)
    assert few.shape[2:] == (1, 2)
    k, v = F.linear(
        norm(few.flatten(2).mT, "block1.0.attn.norm", 1e-5), *w("block1.0.attn.kv")
    ).chunk(2, -1)
    shares = (F.linear(y, *w("block1.0.attn.q")) @ k.mT / 8**0.5).softmax(-1)
    x = x + F.linear(shares @ v, *w("block1.0.attn.proj"))
    y = F.linear(norm(x, "block1.0.norm2", 1e-6), *w("block1.0.mlp.fc1")).mT.unflatten(2, grid)
    y = F.conv2d(y, *w("block1.0.mlp.dwconv.dwconv"), padding=1, groups=32).flatten(2).mT
    x = norm(x + F.linear(F.gelu(y), *w("block1.0.mlp.fc2")), "norm1", 1e-6)
    outputs = {"stage1": x.mT.unflatten(2, grid).numpy()}
    passes(write(tmp_path, "of odd size", spec, outputs))


def test_a_head_in_inference(tmp_path: Path) -> None:
    for name in ("a_daformer_head", "b_daformer_head"):
        spec, arrays = stored("dts", name)
        first_picture(spec)
        passes(write(tmp_path, f"one, {name[0]}", spec, {"logits_eval": arrays["logits_eval"][:1]}))
    spec, arrays = stored("dts", "b_daformer_head")
    spec["config"]["dilations"] = [1, 3, 4]
    fails(write(tmp_path, "other", spec, some(arrays, "logits_eval")), "logits_eval")
    spec, arrays = stored("dts", "b_daformer_head")
    few = some(arrays, "loss_weighted", "grad:conv_seg.bias")
    passes(write(tmp_path, "gradients", spec, few))
    few["loss_weighted"] = arrays["loss_unweighted"]
    fails(write(tmp_path, "unweighted", spec, few), "loss_weighted")


def test_two_resolutions_of_one_picture(tmp_path: Path) -> None:
    spec, arrays = stored("dts", "a_hrda")
    first_picture(spec)
    passes(write(tmp_path, "one", spec, {"inference_eval": arrays["inference_eval"][:1]}))
    spec, arrays = stored("dts", "b_hrda")
    few = some(arrays, "hr", "lr_scaled", "loss_hr_weighted01")
    passes(write(tmp_path, "training", spec, few))
    spec["config"] |= {"hr_loss_weight": 0.2}
    twice = {"loss_hr_weighted02": 2 * few["loss_hr_weighted01"]}
    passes(write(tmp_path, "more of the detail", spec, twice))
    spec["config"]["crop_box_y1_y2_x1_x2"] = [48, 112, 40, 136]
    fails(write(tmp_path, "elsewhere", spec, some(arrays, "hr")), "hr")


def test_teachers_of_another_rate(tmp_path: Path) -> None:
    spec, _ = stored("dts", "a_ema")
    spec["inputs"] = spec["inputs"][:4]
    for entry in spec["inputs"]:
        entry["shape"] = [2, 4, 3]
    given = renamed(spec, "a.", "any.thing.")
    spec["config"] |= {"alpha": 0.6, "steps": 3}
    teacher, outputs, alphas = given["any.thing.w0"], {}, [0.5, 0.6, 0.6]
    for step, alpha in enumerate(alphas, 1):
        teacher = alpha * teacher + (1 - alpha) * given[f"any.thing.w{step}"]
        outputs[f"ema{step}"] = teacher.astype(np.float32)
    outputs["alphas:f64"] = np.array(alphas)
    passes(write(tmp_path, "other", spec, outputs))
    spec["config"]["alpha"] = 0.61
    fails(write(tmp_path, "wrong", spec, outputs), "alphas")


def test_rates_of_another_power(tmp_path: Path) -> None:
    spec, _ = stored("dts", "a_lr_schedule")
    spec["config"] = {
        "base_lr": [2.5e-4], "warmup_iters": 10, "warmup_ratio": 0.1, "max_iters": 50,
        "power": 0.9, "min_lr": 1e-5,
    }  # fmt: skip
    steps = np.array([0, 3, 10, 49])
    rates = (2.5e-4 - 1e-5) * (1 - steps / 50) ** 0.9 + 1e-5
    ramp = 1 - (1 - np.minimum(steps / 10, 1)) * (1 - 0.1)
    passes(write(tmp_path, "poly", spec, {"iters": steps, "lr:f64": (ramp * rates)[:, None]}))


def test_groups_of_other_rates(tmp_path: Path) -> None:
    spec, _ = stored("dts", "a_param_groups")
    spec["groups"] = [[key, 2 * rate, 3 * decay] for key, rate, decay in spec["groups"]]
    passes(write(tmp_path, "twice", spec))
    key = next(key for key, *_ in spec["groups"] if key.endswith("bottleneck.bn.weight"))
    spec["groups"] = [[k, rate, 0.0 if k == key else d] for k, rate, d in spec["groups"]]
    fails(write(tmp_path, "norms", spec), "bottleneck.bn.weight")


def test_keys_of_a_smaller_network(tmp_path: Path) -> None:
    """The first two blocks of each stage."""
    spec, _ = stored("dts", "official_keys_mit_b5")
    spec["keys"] = [e for e in spec["keys"] if not re.match(r"block\d\.([2-9]|\d\d)", e[0])]
    spec["n_keys"] = len(spec["keys"])
    spec["n_values"] = sum(int(np.prod(shape)) for _, shape, _ in spec["keys"])
    passes(write(tmp_path, "fewer blocks", spec))
    spec["keys"] = [e for e in spec["keys"] if not e[0].startswith("block2.0.mlp.fc2")]
    spec["n_keys"] -= 2
    fails(write(tmp_path, "incomplete", spec), "missing: backbone.block2.0.mlp.fc2.weight")
