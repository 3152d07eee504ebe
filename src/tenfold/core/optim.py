"""Optimiser settings, parameter groups, and learning rates as a pure function of the step."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import nn

from .config import require


@dataclass(frozen=True)
class Optim:
    """Settings of one stage's optimiser."""

    name: Literal["adam", "adamw", "sgd"] = "adamw"
    """Optimiser; adam and adamw are torch's fused implementations."""
    lr: float = 1e-3
    """Peak learning rate."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Adam's running-average factors."""
    momentum: float = 0.9
    """Momentum of sgd."""
    dampening: float = 0.0
    """Share of each gradient that sgd's momentum leaves out."""
    nesterov: bool = False
    """Nesterov's momentum (sgd)."""
    weight_decay: float = 0.0
    """Weight decay; not applied to tensors with fewer than two dimensions."""
    clip: float = 0.0
    """Largest gradient norm; 0 does not clip."""
    schedule: Literal["constant", "cosine", "linear", "step", "wsd"] = "constant"
    """Learning rate over steps: cosine and linear fall to lr * floor; step multiplies by gamma; wsd
    (warm-up, stable, decay) is constant and falls to lr * floor in the last steps."""
    warmup: int = 0
    """Steps of linear warm-up from 0."""
    ramp: Literal["above-zero", "zero", "linspace", "product"] = "above-zero"
    """Factor at step s of the warm-up: (s + 1) / warmup, s / warmup (MAE), s / (warmup - 1)
    (BEiT); product: s / warmup times the schedule, which then counts all steps (mmcv)."""
    ramp_floor: float = 0.0
    """Factor at the first step of a product ramp (mmcv's warmup_ratio)."""
    floor: float = 0.0
    """Final learning rate as a share of lr (cosine, linear, wsd)."""
    decay: float = 0.2
    """Share of the steps in which wsd falls, linearly, at the end."""
    power: float = 1.0
    """Exponent of the linear schedule (poly)."""
    gamma: float = 0.1
    """Factor of each step of the step schedule."""
    period: int = 0
    """Steps between two steps of the step schedule; 0 lets the system decide (epochs)."""
    offset: int = 0
    """Shift of the step schedule: the factor is gamma ** ((step + offset) // period)."""

    milestones: tuple[float, ...] = ()
    """Shares of all steps after which the step schedule multiplies by gamma; instead of period."""

    def __post_init__(self) -> None:
        require(self, "optim.", "[0, 1]", "milestones")
        require(self, "optim.", "(0, 1]", "decay")
        require(self, "optim.", "[0, 1]", "ramp_floor")
        require(self, "optim.", "(0, inf)", "lr", "gamma", "power")
        require(self, "optim.", "[0, inf)", "weight_decay", "clip", "warmup", "floor", "period")
        require(self, "optim.", "[0, inf)", "offset")
        require(self, "optim.", "[0, 1)", "betas", "momentum", "dampening")
        if self.nesterov and (self.dampening or not self.momentum):
            raise ValueError("optim.nesterov needs optim.momentum, and optim.dampening 0")

    def within(self, steps: int) -> Optim:
        """The same with a warm-up no longer than a training of so many steps."""
        return replace(self, warmup=min(self.warmup, steps))


RAMPS = {"above-zero": (1, 0), "zero": (0, 0), "linspace": (0, 1)}
"""Summands of a warm-up: added to the step, and taken from the number of steps."""


def lr_factor(optim: Optim, step: int, steps: int) -> float:
    """Factor on the learning rate at 0-based `step` of `steps`: warm-up, then the schedule."""
    if optim.ramp == "product":
        ramp = min(1.0, step / optim.warmup) if optim.warmup else 1.0
        whole_schedule = replace(optim, warmup=0, ramp="above-zero")
        return (1 - (1 - ramp) * (1 - optim.ramp_floor)) * lr_factor(whole_schedule, step, steps)
    if optim.warmup and step < optim.warmup:
        first, whole = RAMPS[optim.ramp]
        return min(1.0, (step + first) / max(1, optim.warmup - whole))
    done = (step - optim.warmup) / max(1, steps - optim.warmup)
    if optim.schedule == "cosine":
        return optim.floor + (1 - optim.floor) * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
    if optim.schedule == "linear":
        return optim.floor + (1 - optim.floor) * float(max(0.0, 1 - done) ** optim.power)
    if optim.schedule == "wsd":
        left = max(0.0, 1 - step / steps) / optim.decay
        return optim.floor + (1 - optim.floor) * min(1.0, left)
    if optim.schedule == "step" and optim.milestones:
        return float(optim.gamma ** sum(step >= share * steps for share in optim.milestones))
    if optim.schedule == "step":
        if optim.period < 1:
            raise ValueError(
                "optim.schedule is 'step' but optim.period is 0; set optim.period (steps)"
            )
        return float(optim.gamma ** ((step + optim.offset) // optim.period))
    return 1.0


Groups = list[dict[str, Any]]


def one_group(model: nn.Module) -> Groups:
    """All trained parameters alike: biases and norms decay too, as in much older code."""
    return [{"params": [p for p in model.parameters() if p.requires_grad]}]


def decay_groups(model: nn.Module) -> Groups:
    """Two groups: matrices decay, vectors and scalars (biases, norms) do not."""
    trained = [p for p in model.parameters() if p.requires_grad]
    groups: Groups = [
        {"params": [p for p in trained if p.ndim >= 2]},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]
    return [g for g in groups if g["params"]]


def groups_by_name(model: nn.Module, rules: Mapping[str, tuple[float, bool]]) -> Groups:
    """Groups by words in the parameters' names: word -> (factor on lr, whether weights decay).

    As mmcv's `custom_keys`: one rule counts, that of the longest word that is in the name, and of
    two as long that which comes first in the alphabet. Without one, a parameter of any shape
    decays, at the plain rate.
    """
    words = sorted(sorted(rules), key=len, reverse=True)
    found: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            word = next((word for word in words if word in name), None)
            rule = (1.0, True) if word is None else rules[word]
            found.setdefault(rule, []).append(parameter)
    return [
        {"params": some, "lr_scale": scale, **({} if decays else {"weight_decay": 0.0})}
        for (scale, decays), some in found.items()
    ]


def build(
    model: nn.Module, optim: Optim, groups: Callable[[nn.Module], Groups] = decay_groups
) -> torch.optim.Optimizer:
    """The optimiser of a stage; a group may carry `lr_scale` (layer-wise decay, faster heads)."""
    made = groups(model)
    for group in made:
        group.setdefault("lr_scale", 1.0)
    if not made:
        raise ValueError("the model of this stage has no parameter to train")
    if optim.name == "sgd":
        return torch.optim.SGD(
            made, lr=optim.lr, momentum=optim.momentum, dampening=optim.dampening,
            nesterov=optim.nesterov, weight_decay=optim.weight_decay,
        )  # fmt: skip
    kind = torch.optim.Adam if optim.name == "adam" else torch.optim.AdamW
    return kind(made, lr=optim.lr, betas=optim.betas, weight_decay=optim.weight_decay, fused=True)


def set_lr(optimizer: torch.optim.Optimizer, optim: Optim, step: int, steps: int) -> float:
    """Set the learning rate of every group for this step; returns that of an unscaled group."""
    lr = optim.lr * lr_factor(optim, step, steps)
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_scale"]
    return lr
