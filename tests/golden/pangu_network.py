"""Checks of Pangu-Weather's network against the official pseudocode."""

from __future__ import annotations

import re

import numpy as np
import torch

from golden.harness import Case, close
from tenfold.data.weather.grid import Grid
from tenfold.systems.pangu.attention import position_index
from tenfold.systems.pangu.config import Model
from tenfold.systems.pangu.loss import variable_weights, weighted_mae
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
"""Absolute tolerances."""


def shapes(case: Case) -> dict[str, list[int]]:
    return dict(case.spec["params"])


def parameter(case: Case, key: str) -> torch.Tensor:
    """A parameter by the case's rule: norms near one, the rest scaled."""
    value = case.rule(key, shapes(case)[key])
    if ".norm" in key and key.endswith("weight"):
        return torch.from_numpy(np.float32(1) + np.float32(0.1) * value)
    return torch.from_numpy(np.float32(case.spec["param_scale"]) * value)


def given(case: Case, name: str, kind: torch.dtype) -> torch.Tensor:
    shape, scale = next((s, x) for n, s, x in case.spec["inputs"] if n == f"{case.name}.{name}")
    return torch.from_numpy(case.rule(f"{case.name}.{name}", shape, scale)).to(kind)


def renamed(key: str) -> str:
    """Our name of a parameter of the pseudocode."""
    rule = next(r for r in PSEUDOCODE.rules if re.fullmatch(r.pattern, key))
    return re.sub(rule.pattern, rule.replacement, key)


def state(case: Case, prefix: str = "", under: str = "") -> dict[str, torch.Tensor]:
    """The case's parameters below `prefix`, under our keys; `under` stands before their names."""
    start = f"{case.name}.{prefix}"
    found = {}
    for key in shapes(case):
        if key.startswith(start):
            name = under + key.removeprefix(start)
            found[renamed(name)] = parameter(case, key)
    assert found
    return found


def below(found: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    """The tensors of one of our modules."""
    return {k.removeprefix(prefix): v for k, v in found.items() if k.startswith(prefix)}


def check_bias(case: Case) -> None:
    wz, wh, ww = case.spec["config"]["window"]
    index = position_index((wz, wh, ww))
    close(index.int(), case.arrays["position_index"], what="position_index")
    table = parameter(case, next(iter(shapes(case)))).double()
    expanded = table[index].permute(2, 3, 0, 1)  # type, head, query, key
    rows = case.arrays["expanded_bias_rows0_2"].shape[2]
    close(expanded[:, :, :rows], case.arrays["expanded_bias_rows0_2"], what="first rows")
    close(expanded[:, :, -1], case.arrays["expanded_bias_row_last"], what="last row")
    close(expanded.sum((2, 3)), case.arrays["expanded_bias_sum"], 0, 5e-3, "sums of 20,000")


def check_windows(case: Case) -> None:
    cfg = case.spec["config"]
    batch, *size, _ = cfg["shape_BZHWC"]
    windows = Windows(tuple(size), tuple(cfg["window"]))
    assert [-s for s in windows.shift] == cfg["shift"]
    x = given(case, "x", torch.float64)
    for name, shifted in (("plain", False), ("shifted", True)):
        cut = windows.cut(x, shifted)
        close(cut, case.arrays[f"windows_{name}"], what=name)
        assert torch.equal(windows.join(cut, shifted), x)
    close(windows.regions().to(torch.int8), case.arrays["region_ids"], what="regions")
    mask = windows.mask()[0].to(torch.int8)
    close(mask, case.arrays["mask_same_for_every_lon_window"], what="mask")


def check_block(case: Case) -> None:
    cfg = case.spec["config"]
    size, window = tuple(cfg["res_ZHW"]), tuple(cfg["window"])
    windows = Windows(size, window)
    assert list(windows.padded) == cfg["padded_ZHW"]
    model = Model(dim=cfg["dim"], heads=(cfg["heads"],) * 4)
    for kind in KINDS:
        block = EarthBlock(cfg["dim"], cfg["heads"], windows, model, 0.0)
        names = state(case, under="layer1.blocks.0.")
        block.load_state_dict(below(names, "layer1.blocks.0."))
        block.to(kind).eval()
        x = given(case, "x", kind)
        for grad in (False, True):  # inference keeps the bias and cuts the MLP
            for name, shifted in (("plain", False), ("shifted", True)):
                with torch.set_grad_enabled(grad):
                    y = block(x.view(len(x), *size, -1), shifted).flatten(1, 3)
                close(y, case.arrays[f"y_{name}"], 0, SMALL[kind], f"{name} {kind} grad {grad}")


def check_resample(case: Case) -> None:
    cfg = case.spec["config"]
    size, coarse = tuple(cfg["res_ZHW"]), tuple(cfg["res_down_ZHW"])
    for kind in KINDS:
        down, up = DownSample(cfg["dim"]), UpSample(cfg["dim"])
        down.load_state_dict(below(state(case, "down.", "downsample."), "down."))
        up.load_state_dict(below(state(case, "up.", "upsample."), "up."))
        x, y = given(case, "x", kind), given(case, "y", kind)
        got = down.to(kind)(x.view(len(x), *size, -1)).flatten(1, 3)
        close(got, case.arrays["down_x"], 0, SMALL[kind], f"down {kind}")
        got = up.to(kind)(y.view(len(y), *coarse, -1), size).flatten(1, 3)
        close(got, case.arrays["up_y"], 0, SMALL[kind], f"up {kind}")


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
        close(tokens.movedim(-1, 1), case.arrays["embedding"], 0, SMALL[kind], f"embed {kind}")
        upper, surface = recover.to(kind)(given(case, "tokens", kind).movedim(1, -1), *size)
        close(upper, case.arrays["recovered_upper"], 0, SMALL[kind], f"upper {kind}")
        close(surface, case.arrays["recovered_surface"], 0, SMALL[kind], f"surface {kind}")


def network(case: Case, checkpoint: bool = False) -> Pangu:
    """The network of a case; surface channels beyond the outputs are its constant maps."""
    cfg = case.spec["config"]
    fields = case.arrays["surface"].shape[1]
    lat, lon = cfg["lat"], cfg["lon"]
    masks = given(case, "surface", torch.float64)[0, fields:]
    grid = Grid(
        upper=("z", "q", "t", "u", "v"),
        levels=tuple(range(1000, 1000 - 10 * cfg["levels"], -10)),
        surface=("msl", "u10", "v10", "t2m"),
        constants=tuple(f"mask{i}" for i in range(len(masks))),
        latitudes=tuple(float(x) for x in np.linspace(90, -90, lat)),
        longitudes=tuple(float(x) for x in np.arange(lon) * 360 / lon),
    )
    model = Model(
        dim=cfg["dim"], depths=tuple(cfg["depths"]), heads=tuple(cfg["heads"]),
        window=tuple(cfg["window"]), checkpoint=checkpoint, drop_path=0.0,
    )  # fmt: skip
    net = Pangu(model, grid)
    found = state(case)
    padded = pad_end(masks, model.patch[1:])
    constants = {"surface_constants": padded, "upper_constants": net.upper_constants}
    net.load_state_dict({**found, **constants})
    assert sum(p.numel() for p in net.parameters()) == cfg["n_parameters"]
    for size, layer in (("stage1_ZHW", net.layer1), ("stage2_ZHW", net.layer2)):
        assert list(layer.blocks[0].attention.windows.size) == cfg[size]
    return net


def check_forward(case: Case) -> None:
    cfg = case.spec["config"]
    for kind in KINDS:
        for checkpoint in (False, True):
            net = network(case, checkpoint).to(kind)
            fields = case.arrays["surface"].shape[1]
            inputs = given(case, "upper", kind), given(case, "surface", kind)[:, :fields]
            _compare_forward(case, net, inputs, kind)
            truth = given(case, "target_upper", kind), given(case, "target_surface", kind)
            made = net.train()(*inputs)
            weights = variable_weights(net.grid.upper, net.grid.surface)
            assert weights[0].tolist() == torch.tensor(cfg["upper_weights"]).tolist()
            assert weights[1].tolist() == torch.tensor(cfg["surface_weights"]).tolist()
            ones = torch.ones_like(weights[0]), torch.ones_like(weights[1])
            plain = weighted_mae(made, truth, ones)["loss"]
            loss = weighted_mae(made, truth, weights)["loss"]
            loss.backward()
            tolerance = 1e-5 if kind == torch.float64 else 1e-4
            close(plain, case.arrays["loss_mae"], tolerance, 0, f"mae {kind}")
            close(loss, case.arrays["loss_weighted"], tolerance, 0, f"weighted {kind}")
            named = {name: p.grad for name, p in net.named_parameters()}
            norms = [named[renamed(key)].norm() for key in cfg["grad_norm_keys"]]
            close(torch.stack(norms), case.arrays["grad_norms"], tolerance, 0, f"grads {kind}")


def _compare_forward(
    case: Case, net: Pangu, inputs: tuple[torch.Tensor, torch.Tensor], kind: torch.dtype
) -> None:
    """Outputs and the tokens after every stage, in inference; the embedding's channels first."""
    stages = ("embed", "layer1", "down", "layer2", "layer3", "up", "layer4")
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
    close(upper, case.arrays["upper"], 0, FORWARD[kind], f"upper {kind}")
    close(surface, case.arrays["surface"], 0, FORWARD[kind], f"surface {kind}")
    for stage in stages:
        head = case.arrays[f"tap_{stage}_head"]
        tokens = (seen[stage].mT if stage == "embed" else seen[stage]).flatten(1)
        close(tokens[:, : head.shape[1]], head, 0, FORWARD[kind], f"{stage} {kind}")
        moments = torch.stack([tokens.mean(), tokens.std(correction=0)])
        close(moments, case.arrays[f"tap_{stage}_mean_std"], 0, FORWARD[kind], f"{stage} {kind}")


CHECKS = {
    "position_index": check_bias,
    "windows_plain": check_windows,
    "y_plain": check_block,
    "down_x": check_resample,
    "embedding": check_patch,
    "loss_weighted": check_forward,
}
"""An output that only this kind of case has -> its check."""
