"""Checks of Pangu-Weather's network against the official pseudocode."""

from __future__ import annotations

import re

import numpy as np
import torch

from golden.harness import Case
from tenfold.data.weather.grid import Grid
from tenfold.systems.pangu.attention import position_index
from tenfold.systems.pangu.config import Model
from tenfold.systems.pangu.loss import (
    SURFACE_WEIGHTS,
    UPPER_WEIGHTS,
    variable_weights,
    weighted_mae,
)
from tenfold.systems.pangu.model import (
    DownSample,
    EarthBlock,
    Pangu,
    PatchEmbed,
    PatchRecover,
    UpSample,
)
from tenfold.systems.pangu.onnx.pseudocode import PSEUDOCODE
from tenfold.systems.pangu.windows import Windows, pad_end

KINDS = (torch.float64, torch.float32)
FORWARD = {torch.float64: 1e-5, torch.float32: 2e-3}
SMALL = {torch.float64: 1e-5, torch.float32: 1e-4}
"""Absolute tolerances of the whole network and of its parts."""
LOSSES = {"loss_mae", "loss_weighted", "grad_norms"}


def shapes(case: Case) -> dict[str, list[int]]:
    """Shapes of a case's parameters by the pseudocode's names."""
    return {case.role(key): shape for key, shape in case.spec["params"]}


def parameter(case: Case, key: str, shape: list[int]) -> torch.Tensor:
    """A parameter by the case's rule: norms near one, the rest scaled."""
    value = case.rule(key, shape)
    if ".norm" in f".{case.role(key)}" and key.endswith("weight"):
        return torch.from_numpy(np.float32(1) + np.float32(0.1) * value)
    return torch.from_numpy(np.float32(case.spec["param_scale"]) * value)


def given(case: Case, role: str, kind: torch.dtype) -> torch.Tensor:
    return torch.from_numpy(case.input(role)).to(kind)


def renamed(key: str) -> str:
    """Our name of a parameter of the pseudocode."""
    rule = next(r for r in PSEUDOCODE.rules if re.fullmatch(r.pattern, key))
    return re.sub(rule.pattern, rule.replacement, key)


def state(case: Case, prefix: str = "", under: str = "") -> dict[str, torch.Tensor]:
    """The case's parameters below `prefix`, under our keys; `under` stands before their names."""
    found = {}
    for key, shape in case.spec["params"]:
        name = case.role(key)
        if name.startswith(prefix):
            found[renamed(under + name.removeprefix(prefix))] = parameter(case, key, shape)
    assert found, f"{case.json_path}: no parameter is {prefix!r} after the prefix"
    return found


def below(found: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    """The tensors of one of our modules."""
    return {k.removeprefix(prefix): v for k, v in found.items() if k.startswith(prefix)}


def check_bias(case: Case) -> None:
    """The table's row of each pair of tokens, and the bias that follows for all pairs."""
    wz, wh, ww = case.spec["config"]["window"]
    index = position_index((wz, wh, ww))
    ((key, shape),) = case.spec["params"]
    table = parameter(case, key, shape).double()
    expanded = table[index].permute(2, 3, 0, 1)  # type, head, query, key
    got = {
        "position_index": index.int(),
        "expanded_bias_row_last": expanded[:, :, -1],
        "expanded_bias_sum": expanded.sum((2, 3)),
    }
    for name in case.arrays:
        if found := re.fullmatch(r"expanded_bias_rows(\d+)_(\d+)", name):
            got[name] = expanded[:, :, int(found[1]) : int(found[2]) + 1]
    # sums cancel: their error is that of so many entries
    sums = {"rtol": 0.0, "atol": 2.5e-7 * index.numel()}
    case.compare_all(got, lambda name: sums if name == "expanded_bias_sum" else {})


def check_windows(case: Case) -> None:
    cfg = case.spec["config"]
    _, *size, _ = cfg["shape_BZHWC"]
    windows = Windows(tuple(size), tuple(cfg["window"]))
    assert [-s for s in windows.shift] == cfg["shift"]
    x, got = given(case, "x", torch.float64), {}
    for name, shifted in (("plain", False), ("shifted", True)):
        got[f"windows_{name}"] = cut = windows.cut(x, shifted)
        assert torch.equal(windows.join(cut, shifted), x)
    got["region_ids"] = windows.regions().to(torch.int8)
    got["mask_same_for_every_lon_window"] = windows.mask()[0].to(torch.int8)
    case.compare_all(got)


def check_block(case: Case) -> None:
    cfg, own = case.spec["config"], shapes(case)
    size, window = tuple(cfg["res_ZHW"]), tuple(cfg["window"])
    windows = Windows(size, window)
    assert list(windows.padded) == cfg["padded_ZHW"]
    ratio = own["linear.linear1.weight"][0] / cfg["dim"]
    model = Model(dim=cfg["dim"], heads=(cfg["heads"],) * 4, mlp_ratio=ratio)
    for kind in KINDS:
        block = EarthBlock(cfg["dim"], cfg["heads"], windows, model, 0.0)
        names = state(case, under="layer1.blocks.0.")
        block.load_state_dict(below(names, "layer1.blocks.0."))
        block.to(kind).eval()
        x = given(case, "x", kind)
        for grad in (False, True):  # inference keeps the bias and cuts the MLP
            got = {}
            for name, shifted in (("plain", False), ("shifted", True)):
                with torch.set_grad_enabled(grad):
                    y = block(x.view(len(x), *size, -1), shifted)
                got[f"y_{name}"] = y.flatten(1, 3)
            case.compare_all(got, within(SMALL, kind), f"{kind} grad {grad}", case.arrays)


def within(limits: dict[torch.dtype, float], kind: torch.dtype) -> dict[str, float]:
    return {"rtol": 0.0, "atol": limits[kind]}


def check_resample(case: Case) -> None:
    cfg = case.spec["config"]
    size, coarse = tuple(cfg["res_ZHW"]), tuple(cfg["res_down_ZHW"])
    for kind in KINDS:
        down, up = DownSample(cfg["dim"]), UpSample(cfg["dim"])
        down.load_state_dict(below(state(case, "down.", "downsample."), "down."))
        up.load_state_dict(below(state(case, "up.", "upsample."), "up."))
        x, y = given(case, "x", kind), given(case, "y", kind)
        got = {
            "down_x": down.to(kind)(x.view(len(x), *size, -1)).flatten(1, 3),
            "up_y": up.to(kind)(y.view(len(y), *coarse, -1), size).flatten(1, 3),
        }
        case.compare_all(got, within(SMALL, kind), str(kind), case.arrays)


def check_patch(case: Case) -> None:
    cfg, found = case.spec["config"], state(case, "embed.", "_input_layer.")
    found |= state(case, "recover.", "_output_layer.")
    patch, dim = tuple(cfg["patch"]), cfg["dim"]
    size = cfg["levels"], cfg["lat"], cfg["lon"]
    for kind in KINDS:
        embed = PatchEmbed(cfg["upper_channels_in"], cfg["surface_channels_in"], dim, patch, False)
        width = next(iter(below(found, "recover.upper_weight").values())).shape[0]
        recover = PatchRecover(
            cfg["upper_out"], cfg["surface_out"], width, patch, False, pixel_bias=False
        )
        embed.load_state_dict(below(found, "embed."))
        recover.load_state_dict(below(found, "recover."))
        tokens = embed.to(kind)(given(case, "upper", kind), given(case, "surface", kind))
        upper, surface = recover.to(kind)(given(case, "tokens", kind).movedim(1, -1), *size)
        got = {
            "embedding": tokens.movedim(-1, 1),
            "recovered_upper": upper,
            "recovered_surface": surface,
        }
        case.compare_all(got, within(SMALL, kind), str(kind), case.arrays)


def named(count: int, table: dict[str, float], weights: list[float] | None) -> tuple[str, ...]:
    """Names of so many variables: the paper's, or those that have the weights of the case."""
    names = list(table)
    if weights is not None:
        assert len(weights) == count, f"{count} variables, but the weights {weights}"
        names = [
            next((n for n, own in table.items() if own == weight), f"other{i}")
            for i, weight in enumerate(weights)
        ]
    return tuple(f"other{i}" if names[:i].count(n) else n for i, n in enumerate(names[:count]))


def network(case: Case, kind: torch.dtype, checkpoint: bool = False) -> Pangu:
    """The network of a case; input channels beyond the outputs are its constant maps."""
    cfg = case.spec["config"]
    shape = {key.removeprefix("_output_layer."): s for key, s in shapes(case).items()}
    fields, variables = shape["conv_surface.weight"][1], shape["conv.weight"][1]
    upper, surface = given(case, "upper", kind), given(case, "surface", kind)
    maps, heights = surface[:, fields:], upper[:, variables:]
    assert cfg.get("upper_in", upper.shape[1]) == upper.shape[1]
    assert cfg.get("surface_in", surface.shape[1]) == surface.shape[1]
    assert heights.shape[1] < 2, f"{case.json_path}: levels have one constant channel at most"
    lat, lon = cfg["lat"], cfg["lon"]
    grid = Grid(
        upper=named(variables, UPPER_WEIGHTS, cfg.get("upper_weights")),
        levels=tuple(range(1000, 1000 - 10 * cfg["levels"], -10)),
        surface=named(fields, SURFACE_WEIGHTS, cfg.get("surface_weights")),
        constants=tuple(f"mask{i}" for i in range(maps.shape[1])),
        latitudes=tuple(float(x) for x in np.linspace(90, -90, lat)),
        longitudes=tuple(float(x) for x in np.arange(lon) * 360 / lon),
    )
    model = Model(
        dim=cfg["dim"], depths=tuple(cfg["depths"]), heads=tuple(cfg["heads"]),
        window=tuple(cfg["window"]), patch=tuple(cfg.get("patch", Model.patch)),
        mlp_ratio=shape["layer1.blocks.0.linear.linear1.weight"][0] / cfg["dim"],
        height_channel=heights.shape[1] > 0, checkpoint=checkpoint, drop_path=0.0,
    )  # fmt: skip
    net = Pangu(model, grid).to(kind)
    # Maps are inputs of the pseudocode, one set a sample; here they are the network's own.
    net.surface_constants = pad_end(maps, model.patch[1:])
    net.upper_constants = heights
    if not maps.shape[1]:
        net.surface_constants = maps[0]
    if not heights.shape[1]:
        net.upper_constants = heights[0]
    found, kept = state(case), ("surface_constants", "upper_constants")
    net.load_state_dict({**found, **{name: getattr(net, name) for name in kept}})
    if "n_parameters" in cfg:
        assert sum(p.numel() for p in net.parameters()) == cfg["n_parameters"]
    for size, layer in (("stage1_ZHW", net.layer1), ("stage2_ZHW", net.layer2)):
        own = list(layer.blocks[0].attention.windows.size)
        assert own == cfg.get(size, own), f"{case.json_path}: {size}"
    return net


def check_forward(case: Case) -> None:
    losses = LOSSES & set(case.arrays)
    for kind in KINDS:
        for checkpoint in (False, True):
            net = network(case, kind, checkpoint)
            upper, surface = given(case, "upper", kind), given(case, "surface", kind)
            inputs = upper[:, : len(net.grid.upper)], surface[:, : len(net.grid.surface)]
            got = _inference(case, net, inputs)
            case.compare_all(got, within(FORWARD, kind), str(kind), got)
            got = _losses(case, net, inputs, kind) if losses else {}
            tolerance = {"rtol": 1e-5 if kind == torch.float64 else 1e-4, "atol": 0.0}
            case.compare_all(got, tolerance, str(kind), losses)


def _losses(
    case: Case, net: Pangu, inputs: tuple[torch.Tensor, torch.Tensor], kind: torch.dtype
) -> dict[str, torch.Tensor]:
    """The losses that the case may have, and norms of the weighted one's gradients."""
    cfg = case.spec["config"]
    truth = given(case, "target_upper", kind), given(case, "target_surface", kind)
    made = net.train()(*inputs)
    own = variable_weights(net.grid.upper, net.grid.surface)
    names = zip(own, (net.grid.upper, net.grid.surface), ("upper", "surface"), strict=True)
    weights = []
    for known, variables, where in names:
        stated = torch.tensor(cfg.get(f"{where}_weights", known.tolist()))
        ours = [not name.startswith("other") for name in variables]
        assert known[ours].tolist() == stated[ours].tolist()
        weights.append(stated)
    ones = [torch.ones_like(w) for w in weights]
    got = {
        "loss_mae": weighted_mae(made, truth, (ones[0], ones[1]))["loss"],
        "loss_weighted": weighted_mae(made, truth, (weights[0], weights[1]))["loss"],
    }
    got["loss_weighted"].backward()
    gradients = {name: p.grad for name, p in net.named_parameters()}
    norms = [gradients[renamed(case.role(key))].norm() for key in cfg.get("grad_norm_keys", [])]
    return got | ({"grad_norms": torch.stack(norms)} if norms else {})


def _inference(
    case: Case, net: Pangu, inputs: tuple[torch.Tensor, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """Outputs, and the tokens after each stage of the case; the embedding has channels first."""
    wanted = {
        name: found
        for name in case.arrays
        if (found := re.fullmatch(r"tap_(\w+?)_(head|mean_std)", name))
    }
    stages = {found[1] for found in wanted.values()}
    unknown = stages - {name for name, _ in net.named_children()}
    assert not unknown, f"{case.json_path}: the network has no stages {sorted(unknown)}"
    seen: dict[str, torch.Tensor] = {}
    hooks = [
        getattr(net, stage).register_forward_hook(
            lambda _m, _i, out, stage=stage: seen.update({stage: out.flatten(1, 3)})
        )
        for stage in stages
    ]
    with torch.no_grad():
        upper, surface = net.eval()(*inputs)
    for hook in hooks:
        hook.remove()
    got = {n: x for n, x in (("upper", upper), ("surface", surface)) if n in case.arrays}
    for name, found in wanted.items():
        stage = found[1]
        tokens = (seen[stage].mT if stage == "embed" else seen[stage]).flatten(1)
        if found[2] == "head":
            got[name] = tokens[:, : case.arrays[name].shape[1]]
        else:
            got[name] = torch.stack([tokens.mean(), tokens.std(correction=0)])
    return got


CHECKS = {
    "bias": check_bias,
    "windows": check_windows,
    "block": check_block,
    "resample": check_resample,
    "patch": check_patch,
    "forward": check_forward,
}
