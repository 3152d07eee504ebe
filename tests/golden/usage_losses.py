"""Checks of USAGE's losses, of its adjustment and teacher, and of how the peers are optimised."""

from __future__ import annotations

import re

import numpy as np
import torch
from torch import nn

from golden.harness import Case
from golden.usage_fill import given
from tenfold.core.optim import Optim, build, lr_factor, set_lr
from tenfold.nn.ema import update_teacher
from tenfold.systems.usage import adjust, loss

LIMITS = {"rtol": 1e-6, "atol": 1e-6}
"""What the README of the cases suggests, of float64 that is stored as float32."""
EXACT = {"rtol": 1e-12, "atol": 1e-12}


def limits(name: str) -> dict[str, float]:
    """Closeness by what the output is stored as."""
    return EXACT if name.endswith("_f64") else LIMITS


def check_usage_gen(case: Case) -> None:
    config = case.spec["config"]
    maps = given(case, "gen_act", torch.float64).requires_grad_()
    labels, values = given(case, "gen_label", torch.float64), maps.flatten(2)
    tau_pos, tau_neg = float(config["tau_pos"]), float(config["tau_neg"])
    over = config.get("softmax_dim", "space")
    found, scores = loss.generation_loss(
        values, labels, tau_pos, tau_neg, over, not config["grad_through_weights"]
    )
    found.backward()
    tau = torch.where(labels > 0, values.new_tensor(tau_pos), values.new_tensor(tau_neg))
    got = {
        "alpha": loss.log_distribution(values, over).exp(), "score": scores, "loss_f64": found,
        "weights": loss.pooling_weights(values, tau, over), "grad_act": maps.grad,
    }  # fmt: skip
    case.compare_all(got, limits)


def check_usage_reg(case: Case) -> None:
    student = given(case, "reg_student", torch.float64).requires_grad_()
    teacher = given(case, "reg_teacher", torch.float64)
    labels = given(case, "gen_label", torch.float64)
    if not case.spec["config"].get("present_classes_only", True):
        labels = torch.ones_like(labels)
    mine, theirs = student.flatten(2), teacher.flatten(2)
    found = loss.regularisation_loss(mine, theirs, labels, "kl")
    found.backward()
    got = {
        "alpha_student": loss.log_distribution(mine).exp(), "loss_f64": found,
        "alpha_teacher": loss.log_distribution(theirs).exp(), "grad_student": student.grad,
        "kl": loss.map_distances(mine, theirs, "kl"),
    }  # fmt: skip
    case.compare_all(got, limits)


def check_usage_adjust(case: Case) -> None:
    config = case.spec["config"]
    assert config["cap"] == adjust.MOST
    features = given(case, "adj_feat", torch.float64)
    drawn = given(case, "adj_u", torch.float64)
    got = {}
    for name, strength in config["p"].items():
        if name == "tokens":
            continue
        for how in ("", "uniform_"):
            plan = adjust.Adjustment(float(strength), adaptive=not how)
            chance = adjust.probabilities(adjust.channel_importance(features), plan)
            got[f"keep_{how}{name}"] = (drawn >= chance).byte()
            got[f"p_{how}{name}"] = chance
            got[f"out_{how}{name}"] = adjust.drop_channels(features, plan, drawn)
    first = config["n_class_tokens"]
    attention = given(case, "adj_attn_logits", torch.float64).softmax(-1)[:, :, :first]
    plan = adjust.Adjustment(float(config["p"]["tokens"]))
    score = adjust.token_importance(attention, first)
    kept = adjust.kept_tokens(attention, first, plan, given(case, "adj_u_tok", torch.float64))
    assert kept[:, :first].all()
    got |= {"tok_score": score, "tok_p": adjust.probabilities(score, plan)}
    got["tok_keep"] = kept[:, first:].byte()
    case.compare_all(got, limits)


def check_usage_ema(case: Case) -> None:
    config = case.spec["config"]
    teacher, student = nn.Module(), nn.Module()
    teacher.theta = nn.Parameter(given(case, "ema_theta0", torch.float64))
    found = [teacher.theta.detach().clone()]
    for step in range(config["steps"]):
        student.theta = nn.Parameter(given(case, f"ema_student{step}", torch.float64))
        update_teacher(teacher, student, config["momentum"])
        found.append(teacher.theta.detach().clone())
    case.compare_all({"teacher_f64": torch.stack(found)}, limits)


def check_poly_optimizer(case: Case) -> None:
    """Rates fall to those of the last step, and stay.

    The peers hand the weight decay to torch in the place of the momentum (`sgd_momentum`).
    """
    config = case.spec["config"]
    gradients = [float(x) for x in re.findall(r"(?<![\d.])\.\d+", config["note"])]
    wanted, steps = len(case.take("lr_f64")), config["max_step"]
    rates = [float(rate) for rate in config["lr"]]
    optim = Optim(
        name="sgd", lr=rates[0], momentum=config["sgd_momentum"], schedule="linear",
        power=config["power"], weight_decay=config["weight_decay"],
    )  # fmt: skip
    model = nn.ParameterList([nn.Parameter(torch.ones(())) for _ in rates])
    scales = [rate / rates[0] for rate in rates]
    optimizer = build(
        model,
        optim,
        lambda m: [{"params": [p], "lr_scale": s} for p, s in zip(m, scales, strict=True)],
    )
    lr, values = [], []
    for step in range(wanted):
        set_lr(optimizer, optim, min(step, steps - 1), steps)
        for parameter, gradient in zip(model, gradients, strict=True):
            parameter.grad = torch.tensor(gradient)
        optimizer.step()
        lr.append([group["lr"] for group in optimizer.param_groups])
        values.append([p.item() for p in model])
    assert lr_factor(optim, 0, steps) == 1
    case.compare("lr_f64", np.array(lr), **EXACT)
    case.compare("param", np.array(values, np.float32), **LIMITS)


KINDS = {
    "usage_gen": check_usage_gen,
    "usage_reg": check_usage_reg,
    "usage_adjust": check_usage_adjust,
    "usage_ema": check_usage_ema,
    "poly_optimizer": check_poly_optimizer,
}
"""Kind of case -> its check."""
