"""Cases of USAGE under other names, sizes and options, their numbers made anew."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from golden.harness import Case, check
from golden.test_usage import CHECKS
from golden.twins import normals, some, stored, write
from golden.usage_fill import filled, given


def passes(case: Case) -> None:
    check(case, "usage", CHECKS)


def fails(case: Case, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        passes(case)


def renamed(spec: dict, shapes: dict[str, list[int]]) -> None:
    """Inputs of another prefix and of other shapes; those without a shape are left out."""
    old = spec["input_prefix"]
    roles = [(entry, entry["name"].removeprefix(old)) for entry in spec["inputs"]]
    spec["inputs"] = [
        entry | {"name": f"twin.{role}", "shape": shapes[role]}
        for entry, role in roles
        if role in shapes
    ]
    spec["input_prefix"] = "twin."


def shares(x: np.ndarray, axis: int = -1) -> np.ndarray:
    """Softmax."""
    e = np.exp(x - x.max(axis, keepdims=True))
    return e / e.sum(axis, keepdims=True)


@pytest.mark.parametrize("over", ["space", "class"])
def test_scores_of_other_temperatures(tmp_path: Path, over: str) -> None:
    spec, _ = stored("usage", "k_usage_gen_posneg")
    renamed(spec, {"gen_act": [2, 3, 2, 4], "gen_label": [2, 3]})
    spec["config"] = {
        "tau_pos": 1.25, "tau_neg": -0.5, "grad_through_weights": False, "softmax_dim": over
    }  # fmt: skip
    case = write(tmp_path, "twin", spec, {})
    maps = filled(case, "gen_act").astype(float).reshape(2, 3, 8)
    labels = filled(case, "gen_label")
    alpha = shares(maps, 2 if over == "space" else 1)
    tau = np.where(labels > 0, 1.25, -0.5)[..., None]
    weights = alpha**tau / (alpha**tau).sum(2, keepdims=True)
    scores = (weights * maps).sum(2)
    rate = 1 / (1 + np.exp(-scores))
    total = -(labels * np.log(rate) + (1 - labels) * np.log(1 - rate)).mean()
    slope = (rate - labels)[..., None] * weights / labels.size
    found = {"alpha": alpha, "weights": weights, "score": scores, "loss_f64": np.array(total)}
    found["grad_act"] = slope.reshape(2, 3, 2, 4)
    passes(write(tmp_path, "twin", spec, found))
    spec["config"]["tau_neg"] = -0.4
    fails(write(tmp_path, "wrong", spec, some(found, "score")), "score")


def test_a_distance_of_other_maps(tmp_path: Path) -> None:
    spec, _ = stored("usage", "k_usage_reg")
    shape = [2, 4, 3, 3]
    renamed(spec, {"reg_student": shape, "reg_teacher": shape, "gen_label": [2, 4]})
    case = write(tmp_path, "twin", spec, {})
    student, teacher = (
        shares(filled(case, role).astype(float).reshape(2, 4, 9))
        for role in ("reg_student", "reg_teacher")
    )
    labels = filled(case, "gen_label")
    kl = (teacher * np.log(teacher / student)).sum(2)
    slope = (student - teacher) * labels[..., None] / labels.sum()
    total = np.array((kl * labels).sum() / labels.sum())
    found = {"kl": kl, "loss_f64": total, "grad_student": slope.reshape(shape)}
    passes(write(tmp_path, "twin", spec, found))
    found["loss_f64"] = np.array(kl.mean())
    fails(write(tmp_path, "of all", spec, found), "loss_f64")


def test_an_adjustment_of_other_layers(tmp_path: Path) -> None:
    spec, _ = stored("usage", "k_usage_adjust")
    shapes = {
        "adj_feat": [3, 5, 2, 2], "adj_u": [3, 5], "adj_attn_logits": [3, 2, 6, 6],
        "adj_u_tok": [3, 4],
    }  # fmt: skip
    renamed(spec, shapes)
    spec["config"] |= {"p": {"much": 0.8, "tokens": 0.3}, "n_class_tokens": 2}
    case = write(tmp_path, "twin", spec, {})
    features, drawn = filled(case, "adj_feat").astype(float), filled(case, "adj_u").astype(float)
    mean = features.mean((2, 3))
    chance = np.minimum(0.95, 0.8 * mean / mean.mean(1, keepdims=True))
    keep = drawn >= chance
    out = features * (keep / (1 - chance))[:, :, None, None]
    received = shares(filled(case, "adj_attn_logits").astype(float))[:, :, :2].mean((1, 2))[:, 2:]
    of_token = np.minimum(0.95, 0.3 * received / received.mean(1, keepdims=True))
    found = {
        "p_much": chance, "keep_much": keep.astype(np.uint8), "out_much": out,
        "keep_uniform_much": (drawn >= 0.8).astype(np.uint8), "tok_score": received,
        "tok_p": of_token,
        "tok_keep": (filled(case, "adj_u_tok") >= of_token).astype(np.uint8),
    }  # fmt: skip
    passes(write(tmp_path, "twin", spec, found))
    spec["config"]["p"]["much"] = 0.7
    fails(write(tmp_path, "wrong", spec, some(found, "p_much")), "p_much")


def test_a_teacher_of_another_momentum(tmp_path: Path) -> None:
    spec, _ = stored("usage", "k_usage_ema")
    renamed(spec, {name: [2, 3] for name in ("ema_theta0", "ema_student0", "ema_student1")})
    spec["config"] |= {"momentum": 0.75, "steps": 2}
    case = write(tmp_path, "twin", spec, {})
    found = [filled(case, "ema_theta0").astype(float)]
    for step in range(2):
        found.append(0.75 * found[-1] + 0.25 * filled(case, f"ema_student{step}").astype(float))
    passes(write(tmp_path, "twin", spec, {"teacher_f64": np.stack(found)}))
    found[2] = found[2] + 1e-9
    fails(write(tmp_path, "wrong", spec, {"teacher_f64": np.stack(found)}), "teacher_f64")


def test_rates_of_another_length(tmp_path: Path) -> None:
    spec, _ = stored("usage", "k_poly_optimizer")
    spec["config"] |= {"max_step": 5, "lr": [0.5], "weight_decay": 0.01, "power": 2.0}
    spec["config"] |= {"sgd_momentum": 0.1, "note": "constant gradients .7"}
    rates = [0.5 * (1 - min(step, 4) / 5) ** 2 for step in range(7)]
    value, speed, values = 1.0, 0.0, []
    for step, rate in enumerate(rates):
        slope = 0.7 + 0.01 * value
        speed = slope if step == 0 else 0.1 * speed + slope
        value -= rate * speed
        values.append([value])
    found = {"lr_f64": np.array(rates)[:, None], "param": np.array(values, np.float32)}
    passes(write(tmp_path, "twin", spec, found))
    fails(write(tmp_path, "wrong", spec, found | {"lr_f64": found["lr_f64"] * 1.001}), "lr_f64")


SIZES = {
    "cls_token": [1, 3, 16], "patch_embed.proj.weight": [16, 3, 4, 4],
    "patch_embed.proj.bias": [16], "norm.weight": [16], "norm.bias": [16],
    "head.weight": [3, 16, 3, 3], "head.bias": [3],
}  # fmt: skip
BLOCK = {
    "norm1.weight": [16], "norm1.bias": [16], "attn.qkv.weight": [48, 16], "attn.qkv.bias": [48],
    "attn.proj.weight": [16, 16], "attn.proj.bias": [16], "norm2.weight": [16], "norm2.bias": [16],
    "mlp.fc1.weight": [32, 16], "mlp.fc1.bias": [32], "mlp.fc2.weight": [16, 32],
    "mlp.fc2.bias": [16],
}  # fmt: skip


@pytest.mark.parametrize("name", ["k_mctformer_v2", "k_mctformer_plus"])
def test_a_transformer_of_another_size(tmp_path: Path, name: str) -> None:
    """Two blocks of 16 channels, three classes, of a picture of 12 x 8 pixels, by torch's own."""
    spec, _ = stored("usage", name)
    is_plus = spec["config"]["decay_parameter"] is not None
    renamed(spec, {"mct_img": [1, 3, 16, 16], "mct_label": [1, 3], "mct_img_ns": [1, 3, 12, 8]})
    spec["config"] |= {
        "img_size": 16, "patch_size": 4, "embed_dim": 16, "depth": 2, "num_heads": 4,
        "num_classes": 3, "mlp_ratio": 2, "attention_n_layers": 1,
    }  # fmt: skip
    tables = {"pos_embed": [1, 19, 16]}
    if is_plus:
        tables = {"pos_embed": [1, 17, 16], "pos_embed_cls": [1, 3, 16]}
        tables["pos_embed_pat"] = [1, 16, 16]
    blocks = {f"blocks.{i}.{key}": shape for i in range(2) for key, shape in BLOCK.items()}
    spec["params"] = list((SIZES | tables | blocks).items())
    w = {}
    for key, shape in spec["params"]:
        is_norm = "norm" in key and key.endswith("weight")
        value = 1 + 0.1 * normals(key, shape) if is_norm else normals(key, shape, 0.15)
        w[key] = torch.from_numpy(value.astype(np.float32))

    def layer(x: torch.Tensor, key: str) -> torch.Tensor:
        return F.linear(x, w[f"{key}.weight"], w[f"{key}.bias"])

    def norm(x: torch.Tensor, key: str) -> torch.Tensor:
        return F.layer_norm(x, (16,), w[f"{key}.weight"], w[f"{key}.bias"], 1e-6)

    image = given(write(tmp_path, "twin", spec, {}), "mct_img_ns")
    kernel = "patch_embed.proj"
    x = F.conv2d(image, w[f"{kernel}.weight"], w[f"{kernel}.bias"], 4).flatten(2).mT
    first, patches = (w["pos_embed"][:, :3], w["pos_embed"][:, 3:])
    more = 0.0 if is_plus else 0.1
    if is_plus:
        first, patches = w["pos_embed_cls"], w["pos_embed_pat"]
    patches = F.interpolate(
        patches.mT.reshape(1, 16, 4, 4), scale_factor=((3 + more) / 4, (2 + more) / 4),
        mode="bicubic",
    )  # fmt: skip
    x = torch.cat([w["cls_token"] + first, x + patches.flatten(2).mT], 1)
    total = torch.zeros(6, 6)
    for i in range(2):
        qkv = layer(norm(x, f"blocks.{i}.norm1"), f"blocks.{i}.attn.qkv")
        q, k, v = qkv.reshape(9, 3, 4, 4).permute(1, 2, 0, 3)
        attention = (q @ k.mT / 2).softmax(-1)
        x = x + layer((attention @ v).transpose(0, 1).reshape(1, 9, 16), f"blocks.{i}.attn.proj")
        y = F.gelu(layer(norm(x, f"blocks.{i}.norm2"), f"blocks.{i}.mlp.fc1"))
        x = x + layer(y, f"blocks.{i}.mlp.fc2")
        total += attention.mean(0)[3:, 3:]
    cls, maps = x[:, :3], x[:, 3:].mT.reshape(1, 16, 3, 2)
    maps = F.conv2d(maps, w["head.weight"], w["head.bias"], padding=1)
    to_patches = attention.mean(0)[:3, 3:].reshape(1, 3, 3, 2)
    fused = to_patches * maps.relu()
    fused = fused.sqrt() if is_plus else fused
    refined = torch.einsum("pq,ncq->ncp", total, fused.flatten(2)).reshape(fused.shape)
    found = {
        "ns_cam_patchcam": maps.relu(), "ns_cam_mct": to_patches, "ns_cam_fused": fused,
        "ns_patch_attn_sum": total[None], "ns_cam_fused_refined": refined,
    }  # fmt: skip
    if not is_plus:
        found["ns_logits"] = cls.mean(-1)
    arrays = {key: value.numpy() for key, value in found.items()}
    passes(write(tmp_path, "twin", spec, arrays))
    spec["config"]["attention_n_layers"] = 2
    fails(write(tmp_path, "of two blocks", spec, some(arrays, "ns_cam_mct")), "ns_cam_mct")


def test_a_merge_of_other_scales(tmp_path: Path) -> None:
    spec, _ = stored("usage", "k_irn_cam_merge")
    renamed(spec, {"irn_out0": [4, 2, 3], "irn_out1": [4, 5, 4], "irn_label": [4]})
    spec["config"] |= {"size": [30, 35], "scales": [1.0, 1.7]}
    case = write(tmp_path, "twin", spec, {})
    keys = filled(case, "irn_label").nonzero()[0]
    raw = [2 * given(case, f"irn_out{i}").relu()[keys][None] for i in range(2)]
    found = {"keys": keys}
    for name, size in (("strided_cam", (8, 9)), ("highres_cam", (32, 48))):
        total = sum(F.interpolate(x, size, mode="bilinear", align_corners=False) for x in raw)
        total = total[0, :, :30, :35].numpy()
        found[name] = total / (total.max((1, 2), keepdims=True) + 1e-5)
    passes(write(tmp_path, "twin", spec, found))
    labels, _ = stored("usage", "k_irn_cam_argmax")
    labels["config"]["bg_threshold"] = 0.4
    background = np.full((1, 30, 35), 0.4, np.float32)
    best = np.concatenate([background, found["highres_cam"]]).argmax(0)
    label = np.concatenate([[0], keys + 1])[best].astype(np.uint8)
    passes(write(tmp_path, "labels", labels, {"label": label}))
    fails(write(tmp_path, "wrong", labels, {"label": label[::-1].copy()}), "label")
    fails(write(tmp_path / "alone", "labels", labels, {"label": label}), "beside it")


def test_seam_of_other_maps(tmp_path: Path) -> None:
    spec, _ = stored("usage", "k_seam_ops")
    renamed(spec, {"seam_cam": [1, 3, 3, 4], "seam_feat": [1, 6, 3, 4]})
    spec["params"] = [["weight", [5, 6, 1, 1]]]
    case = write(tmp_path, "twin", spec, {})
    maps, features = filled(case, "seam_cam")[0], filled(case, "seam_feat")[0].reshape(6, 12)
    positive = np.maximum(maps, 0).reshape(3, 12)
    least, most = positive.min(1, keepdims=True), positive.max(1, keepdims=True)
    normed = np.maximum(positive - least - 1e-5, 0) / (most - least + 1e-5)
    onehot = normed.copy()
    onehot[1:][normed[1:] != normed[1:].max(0)] = 0
    lowest = np.sort(maps.reshape(3, 12).max(0))[:3]
    f = normals("weight", [5, 6], 0.4) @ features
    f = f / (np.sqrt((f**2).sum(0)) + 1e-5)
    alike = np.maximum(f.T @ f, 0)
    pcm = normed @ (alike / (alike.sum(0) + 1e-5))
    shape = (1, 3, 3, 4)
    found = {
        "max_norm": normed.reshape(shape), "max_onehot": onehot.reshape(shape),
        "pcm": pcm.reshape(shape),
        "adaptive_min_pooling_loss": np.array(np.maximum(lowest, 0).mean()),
    }  # fmt: skip
    passes(write(tmp_path, "twin", spec, found))
    fails(write(tmp_path, "wrong", spec, {"pcm": found["pcm"][:, ::-1].copy()}), "pcm")
