"""Other Pangu-Weather cases of the known kinds: renamed, of other sizes, with other outputs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import pad

from golden.harness import Case, check
from golden.pangu_network import renamed
from golden.test_pangu import CHECKS
from golden.twins import normals, some, stored, write
from tenfold.data.weather.grid import Grid
from tenfold.systems.pangu.config import Model
from tenfold.systems.pangu.model import Pangu


def passes(case: Case) -> None:
    check(case, "pangu", CHECKS)


def fails(case: Case, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        passes(case)


# --- the network -------------------------------------------------------------------------------

MODEL = Model(
    dim=8, depths=(2, 1, 1, 2), heads=(2, 4, 2, 2), patch=(1, 3, 2), window=(2, 2, 4),
    mlp_ratio=3.0, height_channel=True, drop_path=0.0,
)  # fmt: skip
GRID = Grid(
    upper=("t", "v"), levels=(850, 500, 200), surface=("v10",), constants=("land", "soil"),
    latitudes=tuple(np.linspace(90, -90, 8)), longitudes=tuple(22.5 * np.arange(16)),
)  # fmt: skip


def forward_twin() -> tuple[dict, dict[str, np.ndarray]]:
    """A network with other patches, variables, constant maps and a constant channel of levels.

    Its numbers are of our own network, which equals the pseudocode at the stored sizes: what is
    checked is that all this is read.
    """
    spec, _ = stored("pangu", "forward_tiny")
    net = Pangu(MODEL, GRID).double().eval()
    official = (key.removeprefix("forward_tiny.") for key, _ in spec["params"])
    known, weights = net.state_dict(), {}
    for key in (key for key in official if renamed(key) in known):
        drawn = normals(f"h.{key}", known[renamed(key)].shape)
        is_norm = ".norm" in key and key.endswith("weight")
        weights[key] = torch.from_numpy(1 + 0.1 * drawn if is_norm else 0.2 * drawn).double()
    assert {renamed(key) for key in weights} == {name for name, _ in net.named_parameters()}
    net.load_state_dict({renamed(key): value for key, value in weights.items()}, strict=False)
    shapes = {"upper": [2, 3, 3, 8, 16], "surface": [2, 3, 8, 16]}
    shapes |= {"target_upper": [2, 2, 3, 8, 16], "target_surface": [2, 1, 8, 16]}
    x = {k: torch.from_numpy(normals(f"h.{k}", shape)).double() for k, shape in shapes.items()}
    made, tokens = [], []
    net.layer3.register_forward_hook(lambda _m, _i, out: tokens.append(out))
    for upper, surface in zip(x["upper"], x["surface"], strict=True):
        net.surface_constants = pad(surface[1:], (0, 0, 0, 1))  # 8 rows are 3 patches of 3
        net.upper_constants = upper[2:]
        with torch.no_grad():
            made.append(net(upper[None, :2], surface[None, :1]))
    upper, surface = (torch.cat(parts) for parts in zip(*made, strict=True))
    far = (upper - x["target_upper"]).abs().mean((0, 2, 3, 4)), (
        surface - x["target_surface"]
    ).abs().mean((0, 2, 3))  # fmt: skip
    weight = torch.tensor([1.5, 0.54]), torch.tensor([0.66])
    third = torch.cat(tokens)
    arrays = {
        "upper": upper,
        "surface": surface,
        "tap_layer3_mean_std": torch.stack([third.mean(), third.std(correction=0)]),
        "loss_mae": far[0].mean() + 0.25 * far[1].mean(),
        "loss_weighted": (far[0] * weight[0]).mean() + 0.25 * (far[1] * weight[1]).mean(),
    }
    spec["config"] = {
        "levels": 3, "lat": 8, "lon": 16, "dim": 8, "depths": [2, 1, 1, 2], "heads": [2, 4, 2, 2],
        "window": [2, 2, 4], "patch": [1, 3, 2], "upper_in": 3, "surface_in": 3,
        "upper_weights": [1.5, 0.54], "surface_weights": [0.66],
    }  # fmt: skip
    spec["params"] = [[f"h.{key}", list(value.shape)] for key, value in weights.items()]
    spec["inputs"] = [[f"h.{name}", shape, 1.0] for name, shape in shapes.items()]
    return spec, {name: value.numpy().astype(np.float32) for name, value in arrays.items()}


def test_a_network_of_other_patches_and_maps(tmp_path: Path) -> None:
    spec, arrays = forward_twin()
    passes(write(tmp_path, "other patches", spec, arrays))
    passes(write(tmp_path, "one output", spec, some(arrays, "surface")))
    wrong = some(arrays, "loss_weighted")
    wrong["loss_weighted"] = arrays["loss_mae"]
    fails(write(tmp_path, "other loss", spec, wrong), "loss_weighted")
    fails(write(tmp_path, "odd", spec, {"tap_layer9_head": np.ones((2, 3))}), "no stages .*layer9")


def patches(x: np.ndarray, patch: list[int]) -> np.ndarray:
    """[variable, *patch, *place] of a padded field: what a convolution of that stride sees."""
    for axis, size in enumerate(patch, 1):
        missing = -x.shape[axis] % size
        x = np.pad(x, [(0, missing if a == axis else 0) for a in range(x.ndim)])
        shape = (*x.shape[:axis], x.shape[axis] // size, size, *x.shape[axis + 1 :])
        x = np.moveaxis(x.reshape(shape), axis + 1, -1)
    places, sizes = range(1, 1 + len(patch)), range(1 + len(patch), x.ndim)
    return x.transpose(0, *sizes, *places)


def test_patches_of_another_size(tmp_path: Path) -> None:
    spec, _ = stored("pangu", "patch")
    config = {
        "levels": 5, "lat": 7, "lon": 6, "patch": [3, 2, 3], "dim": 4, "upper_channels_in": 2,
        "surface_channels_in": 3, "upper_out": 2, "surface_out": 1,
    }  # fmt: skip
    shapes = {
        "embed.conv.weight": [4, 2, 3, 2, 3], "embed.conv.bias": [4],
        "embed.conv_surface.weight": [4, 3, 2, 3], "embed.conv_surface.bias": [4],
        "recover.conv.weight": [8, 2, 3, 2, 3], "recover.conv.bias": [2],
        "recover.conv_surface.weight": [8, 1, 2, 3], "recover.conv_surface.bias": [1],
    }  # fmt: skip
    given = {"upper": [1, 2, 5, 7, 6], "surface": [1, 3, 7, 6], "tokens": [1, 8, 3, 4, 2]}
    w = {key: 0.2 * normals(f"q.{key}", shape) for key, shape in shapes.items()}
    x = {key: normals(f"q.{key}", shape)[0] for key, shape in given.items()}
    levels = np.einsum(
        "dvabc,vabczhw->dzhw", w["embed.conv.weight"], patches(x["upper"], [3, 2, 3])
    )
    ground = np.einsum(
        "dvbc,vbchw->dhw", w["embed.conv_surface.weight"], patches(x["surface"], [2, 3])
    )
    levels = levels + w["embed.conv.bias"][:, None, None, None]
    ground = (ground + w["embed.conv_surface.bias"][:, None, None])[:, None]
    back = np.einsum("dvbc,dhw->vhbwc", w["recover.conv_surface.weight"], x["tokens"][:, 0])
    back = back.reshape(1, 8, 6)[:, :7] + w["recover.conv_surface.bias"][:, None, None]
    spec |= {
        "config": config,
        "params": [[f"q.{key}", shape] for key, shape in shapes.items()],
        "inputs": [[f"q.{key}", shape, 1.0] for key, shape in given.items()],
    }
    arrays = {
        "embedding": np.concatenate([ground, levels], 1)[None],
        "recovered_surface": back[None],
    }
    passes(write(tmp_path, "patches", spec, arrays))


def test_a_block_without_its_shift(tmp_path: Path) -> None:
    spec, arrays = stored("pangu", "block_2x6x12")
    passes(write(tmp_path, "plain", spec, some(arrays, "y_plain")))
    spec, arrays = stored("pangu", "resample")
    passes(write(tmp_path, "down only", spec, some(arrays, "down_x")))


def test_windows_of_another_size(tmp_path: Path) -> None:
    spec, _ = stored("pangu", "window_ops_2x6x12")
    spec["config"] |= {"window": [2, 3, 4], "shape_BZHWC": [1, 4, 6, 8, 3], "shift": [-1, -1, -2]}
    spec["inputs"] = [["anything", [1, 4, 6, 8, 3], 1.0]]
    x = normals("anything", [1, 4, 6, 8, 3]).reshape(1, 2, 2, 2, 3, 2, 4, 3)
    plain = x.transpose(0, 5, 1, 3, 2, 4, 6, 7).reshape(1, 2, 4, 24, 3)
    passes(write(tmp_path, "cut", spec, {"windows_plain": plain}))


def test_bias_of_another_window(tmp_path: Path) -> None:
    spec, _ = stored("pangu", "earth_bias_2x6x12")
    (wz, wh, ww), shape = (3, 2, 4), [3 * 3 * 2 * 2 * 7, 2, 2]
    z, h, w = (a.ravel() for a in np.meshgrid(*map(np.arange, (wz, wh, ww)), indexing="ij"))
    index = (z[:, None] + wz * z) * wh * wh + h[:, None] + wh * h
    index = index * (2 * ww - 1) + w[:, None] - w + ww - 1
    table = normals("h.earth_specific_bias", shape)
    spec["config"] = {"window": [wz, wh, ww], "n_types": 2, "heads": 2}
    spec["params"] = [["h.earth_specific_bias", shape]]
    expanded = table[index].transpose(2, 3, 0, 1)
    arrays = {"position_index": index, "expanded_bias_rows1_4": expanded[:, :, 1:5]}
    passes(write(tmp_path, "bias", spec, arrays))


# --- metrics, schedules, noise, tracks ---------------------------------------------------------


def test_metrics_of_another_grid_and_formula(tmp_path: Path) -> None:
    spec, _ = stored("pangu", "metrics")
    shape, rows = [2, 9, 12], 9
    names = ["pred", "truth", "climatology", "ens0", "ens1", "ens2"]
    spec["config"] |= {
        "shape_VHW": shape, "members": 3,
        "fields": "pred = 2 + 3*N(pred) - 0.5*N(truth); truth = 2 + N(truth); climatology = "
        "2 + 0.1*N(climatology); ens_i = 0.7*N(ens_i) + 0.9*truth + 1.0 (truth with its +2)",
    }  # fmt: skip
    spec["inputs"] = [[f"x.y.{name}", shape, 1.5] for name in names]
    n = {name: normals(f"x.y.{name}", shape, 1.5).astype(np.float64) for name in names}
    pred, truth = 2 + 3 * n["pred"] - 0.5 * n["truth"], 2 + n["truth"]
    ensemble = np.stack([0.7 * n[f"ens{i}"] + 0.9 * truth + 1 for i in range(3)])
    cos = np.cos(np.radians(90 - np.arange(rows) * 180 / (rows - 1)))
    weights = rows * cos / cos.sum()

    def mean(field: np.ndarray) -> np.ndarray:
        return (weights[:, None] * field).mean((-2, -1))

    a, b = (field - 2 - 0.1 * n["climatology"] for field in (pred, truth))
    error = np.abs(ensemble - truth).mean(0)
    pairs = np.abs(ensemble[:, None] - ensemble).sum((0, 1))
    arrays = {
        "lat_weights": weights,
        "rmse": np.sqrt(mean((pred - truth) ** 2)),
        "bias": mean(pred - truth),
        "acc": mean(a * b) / np.sqrt(mean(a * a) * mean(b * b)),
        "ens_mean_rmse": np.sqrt(mean((ensemble.mean(0) - truth) ** 2)),
        "crps_biased": mean(error - pairs / (2 * 9)),
        "crps_fair": mean(error - pairs / (2 * 6)),
    }
    arrays = {name: value.astype(np.float32) for name, value in arrays.items()}
    passes(write(tmp_path, "metrics", spec, arrays))
    spec["config"]["fields"] = spec["config"]["fields"].replace("3*N(pred)", "sin(N(pred))")
    fails(write(tmp_path, "odd", spec, arrays), "pred = '2 . sin.* needs 'sin' first")


def test_a_shorter_schedule(tmp_path: Path) -> None:
    spec, arrays = stored("pangu", "schedule")
    config = spec["config"]
    config |= {"hours": 31, "leads": config["leads"][3:8]}
    config["chains"] = {"24+6": {"30": [24, 6]}}
    few = {"hourly_model": arrays["hourly_model"][:31]}
    few["n_calls_24_6_3_1"] = arrays["n_calls_24_6_3_1"][3:8]
    passes(write(tmp_path, "shorter", spec, few))
    config["chains"]["24+6"]["30"] = [6, 24]
    fails(write(tmp_path, "wrong chain", spec, few), "30")


def test_one_octave_is_plain_noise(tmp_path: Path) -> None:
    spec, arrays = stored("pangu", "perlin")
    spec["config"] |= {"octaves": 1, "persistence": 0.3, "noise_scale": 0.5}
    plain = arrays["single_octave"]
    few = {"fractal": plain, "perturbation": np.float32(0.5) * plain}
    passes(write(tmp_path, "one", spec, few))
    few["ridged"] = plain
    fails(write(tmp_path, "odd", spec, few), "no check for the output 'ridged'")


def test_one_storm_for_a_shorter_time(tmp_path: Path) -> None:
    spec, arrays = stored("pangu", "tc_tracker")
    spec["config"]["cases"] = {"east": spec["config"]["cases"]["dateline"] | {"T": 3}}
    few = {f"east_{name}": arrays[f"dateline_{name}"][:3] for name in ("track", "true")}
    few["east_vort_step0_3x5"] = arrays["dateline_vort_step0_9x9"][3:6, 2:7]
    few["east_msl_step0_5x1"] = arrays["dateline_msl_step0_9x9"][2:7, 4:5]
    passes(write(tmp_path, "east", spec, few))
    few["east_true"] = few["east_track"][:, :2]
    fails(write(tmp_path, "not where it was", spec, few), "east_true")
