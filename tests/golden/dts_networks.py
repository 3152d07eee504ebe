"""Checks of DTS's networks, of its teachers, and of how they are optimised and loaded."""

from __future__ import annotations

import re

import numpy as np
import torch
from torch import Tensor, nn

from golden.harness import Case
from tenfold.core.optim import Optim, lr_factor
from tenfold.nn.aspp import DaformerHead
from tenfold.nn.ema import alpha_at, update_teacher
from tenfold.nn.hrda import Box, Hrda, hrda_loss
from tenfold.nn.mit import MitSize, MixTransformer
from tenfold.nn.pixel_loss import pixel_loss
from tenfold.nn.uperhead import enlarged
from tenfold.systems.dts.official import Layout, convert, describe
from tenfold.systems.dts.rates import parameter_groups
from tenfold.weights.mit import HEADS

LIMITS = {"rtol": 1e-4, "atol": 1e-5}
"""What the README of the cases suggests."""
TYPES = {"float32": torch.float32, "int64": torch.int64}


def given(case: Case, role: str) -> Tensor:
    """An input of the case."""
    return torch.from_numpy(case.input(role))


def official(case: Case) -> dict[str, Tensor]:
    """The case's weights by their rules, under official names."""
    scale, norms, state = case.spec["scale"], set(case.spec["norm_weight_keys"]), {}
    for key, shape in case.spec["params"]:
        if key.endswith(".num_batches_tracked"):
            state[key] = torch.zeros(shape, dtype=torch.int64)
            continue
        if key in norms:
            value = np.float32(1) + np.float32(0.1) * case.rule(key, shape)
        elif key.endswith(".running_var"):
            value = np.abs(case.rule(key, shape)) + np.float32(0.5)
        else:
            value = case.rule(key, shape, scale)
        state[key] = torch.from_numpy(value)
    return state


def encoder(config: dict, drop_path: float = 0.0) -> MixTransformer:
    """The encoder of a case's options."""
    size = MitSize(*(tuple(config[k]) for k in ("embed_dims", "num_heads", "depths", "sr_ratios")))
    network = MixTransformer(*size, drop_path=drop_path, ratio=config.get("mlp_ratio", 4))
    for module in network.modules():
        if isinstance(module, nn.LayerNorm) and module.eps != 1e-5:
            module.eps = config.get("ln_eps", 1e-6)
    return network


def head(config: dict, widths: list[int] | None = None) -> DaformerHead:
    """The head of a case's options."""
    made = DaformerHead(
        widths or config["in_channels"],
        config["num_classes"],
        config["channels"],
        config["embed_dim"],
        config.get("dilations", (1, 6, 12, 18)),
        config.get("sep", True),
        config.get("pool", False),
        config.get("dropout", 0),
    )
    for module in made.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = config.get("bn_eps", 1e-5)
            module.momentum = config.get("bn_momentum", 0.1)
    return made


def gradients(module: nn.Module) -> dict[str, Tensor]:
    """Gradients under the names of outputs."""
    named = module.named_parameters()
    return {f"grad:{name}": p.grad for name, p in named if p.grad is not None}


def check_mit_forward(case: Case) -> None:
    config = case.spec["config"]
    network = encoder(config, config.get("drop_path", 0)).eval()
    network.load_state_dict(official(case))
    with torch.no_grad():
        maps = network(given(case, "img"))
    case.compare_all({f"stage{i}": x for i, x in enumerate(maps, 1)}, LIMITS)


def check_daformer_head(case: Case) -> None:
    network = head(case.spec["config"])
    network.load_state_dict(official(case))
    names = sorted(i.name for i in case.inputs if re.search(r"feat\d+$", i.name))
    maps = [given(case, case.role(name)) for name in names]
    labels, weights = given(case, "label"), given(case, "weight")
    with torch.no_grad():
        got = {"logits_eval": network.eval()(maps)}
    logits = network.train()(maps)
    loss = pixel_loss(logits, labels, weights)
    got |= {"logits_train": logits, "loss_weighted": loss}
    got["loss_unweighted"] = pixel_loss(logits, labels)
    loss.backward()
    after = {f"after:{key}": value for key, value in network.named_buffers()}
    case.compare_all(got | gradients(network) | after, LIMITS)


def check_hrda(case: Case) -> None:
    config = case.spec["config"]
    low, high = config["scales"]
    assert config.get("lr_loss_weight", 0) == 0, "no loss of the context is known here"
    backbone = encoder(config["encoder"])
    widths = config["encoder"]["embed_dims"]
    attention = config | {"channels": config["attention_embed_dim"], "dilations": ()}
    attention["embed_dim"] = config["attention_embed_dim"]
    network = Hrda(
        backbone, head(config, widths), head(attention, widths), tuple(config["hr_crop_size"]),
        round(high / low), config["crop_coord_divisible"],
    )  # fmt: skip
    network.load_state_dict(official(case))
    images, labels, weights = given(case, "img"), given(case, "label"), given(case, "weight")
    with torch.no_grad():
        whole = enlarged(network.eval()(images).fused, tuple(images.shape[2:]))
    box = Box(*config["crop_box_y1_y2_x1_x2"])
    found = network.train()(images, box)
    fused, detail = hrda_loss(found, labels, box, weights, config["hr_loss_weight"])
    (fused + detail).backward()
    share = round(10 * config["hr_loss_weight"])
    got = {
        "inference_eval": whole, "fused": found.fused, "lr_scaled": found.context,
        "hr": found.detail, f"loss_fused_weighted{10 - share:02}": fused,
        f"loss_hr_weighted{share:02}": detail,
    }  # fmt: skip
    case.compare_all(got | gradients(network), LIMITS)


def check_ema(case: Case) -> None:
    config = case.spec["config"]
    student, teacher = (nn.ParameterDict({"w": given(case, "w0")}) for _ in range(2))
    got, alphas = {}, []
    for step in range(1, config["steps"] + 1):
        student["w"].data = given(case, f"w{step}")
        alphas.append(alpha_at(step, config["alpha"]))
        update_teacher(teacher, student, alphas[-1])
        got[f"ema{step}"] = teacher["w"].detach().clone()
    assert alpha_at(0, config["alpha"]) == 0
    case.compare("alphas:f64", np.array(alphas), 0, 1e-10)
    case.compare_all(got, {"rtol": 1e-6, "atol": 1e-6})


def check_lr_schedule(case: Case) -> None:
    config = case.spec["config"]
    rates = []
    for base in config["base_lr"]:
        optim = Optim(
            lr=base, schedule="linear", power=config["power"], warmup=config["warmup_iters"],
            ramp="product", ramp_floor=config["warmup_ratio"], floor=config["min_lr"] / base,
        )  # fmt: skip
        at = case.take("iters").tolist()
        rates.append([base * lr_factor(optim, step, config["max_iters"]) for step in at])
    case.compare("lr:f64", np.array(rates).T, 1e-10, 0)


def check_param_groups(case: Case) -> None:
    config, wanted = case.spec["config"], case.spec["groups"]
    found = (re.search(r"aspp_modules\.(\d+)\.", key) for key, *_ in wanted)
    branches = 1 + max(int(match[1]) for match in found if match)  # no name says how dilated
    own = head(config | {"dilations": range(1, branches + 1)}, config["embed_dims"])
    network = nn.ModuleDict({"backbone": encoder(config), "decode_head": own})
    lr = min(rate for _, rate, _ in wanted)
    decay = max(decay for _, _, decay in wanted)
    of = {
        id(p): (lr * group["lr_scale"], group.get("weight_decay", decay))
        for group in parameter_groups(network)
        for p in group["params"]
    }
    parameters = dict(network.named_parameters())
    assert {key for key, *_ in wanted} == set(parameters)
    for key, *want in wanted:
        assert np.allclose(of[id(parameters[key])], want, 1e-9, 0), (key, of[id(parameters[key])])


def network_of(layout: Layout) -> nn.Module:
    """A network of a file's sizes, under official names."""
    network = nn.ModuleDict({"backbone": MixTransformer(*layout.encoder, ratio=layout.ratio)})
    if layout.head != "none":
        assert layout.head == "daformer"
        network["decode_head"] = DaformerHead(
            layout.encoder.dims, layout.num_classes, layout.channels, layout.embed_dim,
            layout.dilations, layout.separable, layout.pool,
        )  # fmt: skip
    return network


def check_official_keys(case: Case) -> None:
    listed = case.spec["keys"]
    state = {
        key: torch.empty(shape, dtype=TYPES[kind], device="meta") for key, shape, kind in listed
    }
    assert len(state) == case.spec["n_keys"]
    layout = describe(state)
    with torch.device("meta"):
        network = network_of(layout)
    own = network.state_dict()
    target = {key: tuple(value.shape) for key, value in own.items()}
    account = convert(state, target)
    assert account.is_complete and not account.ignored, account.report()
    assert set(account.state) == set(own)
    values = sum(v.numel() for v in own.values() if v.is_floating_point())
    assert values == case.spec["n_values"]
    # one key away, and one too many, and the account says so
    gone = next(key for key in state if key.endswith("block2.0.attn.sr.bias"))
    rest = {key: value for key, value in state.items() if key != gone} | {"surplus": state[gone]}
    wrong = convert(rest, target)
    assert wrong.missing == [f"backbone.{gone.removeprefix('backbone.')}"]
    assert wrong.unused == ["surplus"] and layout.encoder.heads == HEADS


KINDS = {
    "mit_forward": check_mit_forward,
    "daformer_head": check_daformer_head,
    "hrda": check_hrda,
    "ema": check_ema,
    "lr_schedule": check_lr_schedule,
    "param_groups": check_param_groups,
    "official_keys": check_official_keys,
}
