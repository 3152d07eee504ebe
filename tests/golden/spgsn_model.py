"""Checks of the SPGSN network against the official code: model, filters, DCT, learning rate."""

from __future__ import annotations

import re
import zlib

import numpy as np
import torch

from golden.harness import Case, close
from golden.noise import is_noise
from tenfold.core.optim import Optim, lr_factor
from tenfold.nn.dct import dct_matrix
from tenfold.systems.spgsn.config import Model
from tenfold.systems.spgsn.inference import prepare
from tenfold.systems.spgsn.loss import mpjpe_loss
from tenfold.systems.spgsn.model import ScatteringNetwork
from tenfold.systems.spgsn.official import convert, key_map
from tenfold.systems.spgsn.scattering import EdgeMasks, band_filters, normalised


def _official_state(case: Case) -> dict[str, torch.Tensor]:
    """The tensors of the case under their official keys."""
    scale, state = case.spec["scale"], {}
    shapes = dict(case.spec["tensors"])
    for key, shape in shapes.items():
        stem, _, leaf = key.rpartition(".")
        is_norm = f"{stem}.running_mean" in shapes
        if leaf == "num_batches_tracked":
            value = np.int64(0)
        elif is_norm and leaf == "weight":
            value = 1 + np.float32(0.1) * case.rule(key, shape)
        elif is_norm and leaf == "running_var":
            value = np.abs(case.rule(key, shape)) + np.float32(0.5)
        else:
            value = case.rule(key, shape, scale)
        state[key] = torch.from_numpy(np.array(value))
    return state


def _mask(case: Case, key: str, shape: list[int]) -> torch.Tensor:
    spec = case.spec["mask"]
    if spec["kind"] == "bernoulli":
        seed = zlib.crc32(key.encode()) & 0xFFFFFFFF
        drawn = np.random.RandomState(seed).random_sample(shape) < spec["edge_prob"]
        return torch.from_numpy(drawn.astype(np.float32))
    fixed = {"ones": 1.0, "mean": spec.get("edge_prob")}
    assert spec["kind"] in fixed, f"{case.json_path}: unknown kind of mask {spec['kind']!r}"
    return torch.full(shape, fixed[spec["kind"]])


def _masks(case: Case) -> list[EdgeMasks]:
    masks = [_mask(case, key, shape) for key, shape in case.spec["mask"]["masks"]]
    return [EdgeMasks(*masks[i : i + 3]) for i in range(0, len(masks), 3)]


def _network(case: Case) -> ScatteringNetwork:
    cfg = case.spec["config"]
    model = Model(
        width=cfg["hidden"],
        num_blocks=cfg["num_stage"],
        num_filters=cfg["J"],
        dropout=cfg["dropout"],
        edge_prob=case.spec["mask"].get("edge_prob", 0.4),
    )
    net = ScatteringNetwork(
        model, cfg["node_n"], cfg["dct_n"], cfg["up_joints"], cfg["down_joints"]
    )
    converted = convert(_official_state(case), net.order, net.state_dict())
    net.load_state_dict(converted.require_complete())
    return net.train(case.spec["mode"] == "train")


def _watch(net: ScatteringNetwork) -> dict[str, torch.Tensor]:
    """Hooks that collect the quantities of the paper, nodes as the skeleton has them."""
    seen: dict[str, torch.Tensor] = {}
    num_upper, num_lower = net.mask_shapes[1][0], net.mask_shapes[2][0]
    parts = {"up": slice(0, num_upper), "down": slice(num_upper, num_upper + num_lower)}

    def whole(x: torch.Tensor, *dims: int) -> torch.Tensor:
        for dim in dims:
            x = x.index_select(dim, net.inverse)
        return x

    def watch(name: str, block) -> None:
        def on_graphs(_m, _i, out) -> None:
            low, bands = out
            seen[name + "whole.att_masked"] = whole(low[0], 0, 1)
            seen[name + "whole.filters"] = whole(bands[0], 1, 2)
            for part, nodes in parts.items():
                seen[f"{name}{part}.att_masked"] = low[1][nodes, nodes]
                seen[f"{name}{part}.filters"] = bands[1][:, nodes, nodes]

        def on_tree(_m, inputs, out) -> None:
            derived, (low_input, waves) = inputs[1], out
            channels = []
            for body, (low, gain) in enumerate(zip(derived.low, derived.gains, strict=True)):
                nodes = slice(body * len(low), (body + 1) * len(low))
                bands = [band @ wave[:, nodes] for wave in waves for band in derived.bands[body]]
                spectrum = [(low @ low_input)[None], block.tree.second_linear(bands, gain)]
                channels.append(torch.cat(spectrum).transpose(0, 1))
            seen[name + "whole.tree_out"] = whole(channels[0], 2)
            for part, nodes in parts.items():
                seen[f"{name}{part}.tree_out"] = channels[1][:, :, nodes]

        def on_exchange(_m, _i, out) -> None:
            seen[name + "W_up2down"], seen[name + "W_down2up"] = out

        def on_attention(_m, _i, out) -> None:
            seen[name + "spectrum_att"] = whole(out, 1).mT[..., None]

        def on_low_norm(_m, inputs) -> None:
            seen["low"] = inputs[0][None]  # channel, node, batch, width

        def on_band_norm(_m, inputs) -> None:
            forest = torch.cat([seen.pop("low"), inputs[0]])
            seen[name + "forest_out"] = whole(forest.permute(2, 0, 1, 3), 2)

        block.graphs.register_forward_hook(on_graphs)
        block.tree.register_forward_hook(on_tree)
        block.exchange.register_forward_hook(on_exchange)
        block.low_norm.register_forward_pre_hook(on_low_norm)
        block.band_norm.register_forward_pre_hook(on_band_norm)
        block.attention.register_forward_hook(on_attention)
        block.register_forward_hook(lambda _m, _i, out: seen.update({name + "out": whole(out, 1)}))

    net.embed.register_forward_hook(lambda _m, _i, out: seen.update(gc1_out=whole(out, 1)))
    for i, block in enumerate(net.blocks):
        watch(f"gcbs.{i}.", block)
    return seen


def check_model(case: Case) -> None:
    net, masks = _network(case), _masks(case)
    coeffs = torch.from_numpy(case.input("input"))
    scale = case.find("input").scale
    if scale > 10:  # positions in mm: what is lost is a share of them, not of each result
        tolerance = {"rtol": 0.0, "atol": 2e-6 * scale}
    else:
        tolerance = {"rtol": 1e-5, "atol": 1e-5}
    prepared = prepare(net, masks) if case.spec["mode"] == "eval" else None
    seen = _watch(net)
    output = net(coeffs, masks)
    got = {"output": output, "residual": output - coeffs, **seen}
    if case.spec["mode"] == "train":
        got |= _training_step(case, net, output)
        _compare_stepped(case, got, tolerance)
    case.compare_all(got, tolerance)
    if prepared is not None:
        want = output.detach().numpy()
        close(prepared(coeffs), want, **tolerance, what="prepared")
        singly = torch.cat([prepared(one) for one in coeffs.split(1)])
        close(singly, want, **tolerance, what="prepared, one sample at a time")


def _compare_stepped(case: Case, got: dict, tolerance: dict[str, float]) -> None:
    """The parameters after the step, but for those whose gradient is rounding noise around 0."""
    for name in (name for name in case.arrays if name.startswith("after/")):
        key = name.replace("after/", "grad/", 1)
        if key in case.arrays:
            noise = is_noise(got[key], case.arrays[key])
            case.compare(name, got[name], **tolerance, at=~noise)


def _training_step(case: Case, net: ScatteringNetwork, output: torch.Tensor) -> dict:
    basis = dct_matrix(case.spec["seq_len"])[: output.shape[2]].float()
    target = torch.from_numpy(case.input("target"))
    loss = mpjpe_loss(output, target, basis)
    loss.backward()
    got = {"loss": loss[None], "pred_p3d": (output @ basis).transpose(1, 2)}
    keys, template = key_map(net.order), _official_state(case)
    grads = {name: p.grad.clone() for name, p in net.named_parameters()}
    zeros = {k: torch.zeros_like(v) for k, v in net.state_dict().items()} | grads
    official_grads = keys.reversed_state(zeros, template)
    got |= {f"grad/{key}": value for key, value in official_grads.items()}
    unused = [key for key, why in keys.convert(template, {}).ignored if "never uses" in why]
    assert sorted(unused) == sorted(case.spec["params_without_grad"])
    said = case.spec["training_step"]
    clip, lr = re.search(r"clip_grad_norm_\(([\d.e-]+)\)", said), re.search(r"lr=([\d.e-]+)", said)
    assert clip and lr and "Adam" in said, f"{case.json_path}: no optimiser in {said!r}"
    norm = torch.nn.utils.clip_grad_norm_(net.parameters(), float(clip[1]))
    torch.optim.Adam(net.parameters(), lr=float(lr[1])).step()
    got["grad_norm"] = norm[None]
    after = keys.reversed_state(net.state_dict(), template)
    return got | {f"after/{key}": value for key, value in after.items()}


def check_filters(case: Case) -> None:
    """Filters of graphs: an output has its graph's name with H for W, or they are in one order."""
    made = {}
    for item in case.spec["items"]:
        (key, shape, scale), (coef_key, coef_shape, coef_scale) = item["W"], item["coef"]
        graph = torch.from_numpy(case.rule(key, shape, scale))
        coefs = torch.from_numpy(case.rule(coef_key, coef_shape, coef_scale))
        identity = torch.eye(shape[0])
        name = key.replace("W", "H", 1)
        made[name] = band_filters((identity + normalised(graph)) / 2, identity, coefs)
    if not set(case.arrays) <= set(made):
        assert len(made) == len(case.arrays), (
            f"{case.json_path}: {len(made)} graphs, but the outputs {sorted(case.arrays)}"
        )
        made = dict(zip(case.arrays, made.values(), strict=True))
    case.compare_all(made)


def check_dct(case: Case) -> None:
    """Matrices of any length, and a signal's first coefficients, its own or padded by a frame."""
    signal = torch.from_numpy(case.input("signal")).double() if case.inputs else torch.zeros(1, 1)
    length = signal.shape[-1]
    for name in case.arrays:
        found = re.fullmatch(r"(?:.*\.)?(i?dct)\.(\d+)_f64", name)
        if found:
            matrix = dct_matrix(int(found[2])).numpy()
            case.compare(name, matrix if found[1] == "dct" else matrix.T, 1e-12, 1e-12)
            continue
        found = re.fullmatch(r"(?:.*\.)?(coef|recon|padded_coef)(\d+)", name)
        assert found, f"{case.json_path}: no check for the output {name!r}"
        x, basis = signal, dct_matrix(length)[: int(found[2])]
        if found[1] == "padded_coef":
            said = re.search(r"frames (\d+)\.\.\d+ replaced by frame (\d+)", case.spec["note"])
            assert said, f"{case.json_path}: no padding in {case.spec['note']!r}"
            past, last = int(said[1]), int(said[2])
            again = x[:, last : last + 1].expand(-1, length - past)
            x = torch.cat([x[:, :past], again], 1)
        x = x @ basis.T
        got = x @ basis if found[1] == "recon" else x
        case.compare(name, got.float(), atol=1e-6 * case.find("signal").scale)


def check_lr(case: Case) -> None:
    epoch = 7  # any number of steps
    own = {"lr": 1e-3, "gamma": 0.96, "every": 2} | (case.spec.get("config") or {})
    optim = Optim(
        schedule="step", lr=own["lr"], gamma=own["gamma"], period=own["every"] * epoch, offset=epoch
    )
    for name, want in case.arrays.items():
        for step in (0, epoch - 1):
            got = [
                optim.lr * lr_factor(optim, i * epoch + step, len(want) * epoch)
                for i in range(len(want))
            ]
            case.compare(name, np.array(got), 1e-12, 0, f"step {step} of each epoch")


CHECKS = {"model": check_model, "filters": check_filters, "dct": check_dct, "lr": check_lr}
