"""Reads PPMoE cases: configuration, weights, tokens and optimiser, all as the case states them."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from golden.harness import Case
from tenfold.core.loop import Loop
from tenfold.core.optim import Optim
from tenfold.systems.ppmoe.config import Config, Data, Layout, Model

NUMBER = r"(\d*\.?\d+(?:e-?\d+)?)"


@dataclass(frozen=True)
class Limit:
    """A precision and the differences that the goldens' README allows it."""

    dtype: torch.dtype
    value: float
    gradient: float

    def of(self, name: str) -> dict[str, float]:
        """Tolerances of an output by its name; the relative one of float64 is the storage's."""
        limit = self.gradient if name.startswith("grad") else self.value
        return {"rtol": 1e-7 if self.dtype == torch.float64 else limit, "atol": limit}


DOUBLE = Limit(torch.float64, 1e-6, 1e-6)
SINGLE = Limit(torch.float32, 1e-5, 3e-5)


def limits(case: Case, margin: str) -> list[Limit]:
    """float64, and float32 unless a nearly tied choice may legally fall otherwise there.

    The exact ties that `post` makes are ties in any precision.
    """
    gap = case.spec["scalars"].get(margin)
    narrow = gap is not None and gap < 1e-4 and not case.spec.get("post")
    return [DOUBLE] if narrow else [DOUBLE, SINGLE]


def mixture(case: Case, **others) -> Model:
    """The model of a `gate` or `moe_layer` case."""
    cfg = case.spec["config"]
    return Model(
        layers=1,
        moe_every=1,
        hidden=cfg["h"],
        heads=1,
        ffn=cfg.get("ffn", 0),
        experts=cfg["E"],
        top_k=cfg["k"],
        activation=cfg.get("act", "erf"),
        norm_topk=cfg["norm_topk"],
        capacity_factor=cfg["capacity_factor"] or 0.0,
        drops_in_evaluation=True,
        min_capacity=cfg["min_capacity"],
        priority=cfg["priority"],
        **others,
    )


def weights_of_losses(case: Case) -> tuple[float, float]:
    """Factors of aux and z in the scalar S of a `gate` or `moe_layer` case."""
    found = re.search(rf"{NUMBER} ?\*? ?aux ?\+ ?{NUMBER} ?\*? ?z", case.spec["outputs"])
    assert found, f"{case.name}: no factors of aux and z in {case.spec['outputs']!r}"
    return float(found[1]), float(found[2])


def filled(case: Case) -> dict[str, np.ndarray]:
    """Inputs and weights of a `gate` or `moe_layer` case, without the keys' prefix."""
    made = {case.role(entry.name).split(".")[-1]: case.value(entry) for entry in case.inputs}
    for key, shape in case.spec["params"]:
        own = re.search(r"(?:gate|experts)\.\w+$", key)
        assert own, f"{case.json_path}: no weight of a router or of experts is {key!r}"
        made[own[0]] = case.rule(key, shape, case.spec["scales"][key])
    for statement in (case.spec.get("post") or "").split(";"):
        if statement.strip():
            _apply(statement.replace(" ", ""), made)
    return made


def _apply(statement: str, made: dict[str, np.ndarray]) -> None:
    """One statement of `post`: `x=round(x)`, `W=round(2W)/2` or `W[E-1]=W[2]`."""
    names = {"x": "x", "W": "gate.weight"}
    if found := re.fullmatch(r"(\w)=round\((\d*)\*?\1\)(?:/(\d+))?", statement):
        name, factor, divisor = names[found[1]], float(found[2] or 1), float(found[3] or 1)
        made[name] = (np.round(made[name] * factor) / divisor).astype(np.float32)
    elif found := re.fullmatch(r"(\w)\[(E-)?(\d+)\]=\1\[(E-)?(\d+)\]", statement):
        name = names[found[1]]
        size = len(made[name])
        to, source = (
            size - int(number) if from_end else int(number)
            for from_end, number in (found.group(2, 3), found.group(4, 5))
        )
        made[name][to] = made[name][source]
    else:
        raise AssertionError(f"unknown statement in post: {statement!r}")


# --- lm_step ------------------------------------------------------------------------------------


def config(case: Case, layout: Layout) -> Config:
    """The configuration of an `lm_step` case on a layout."""
    cfg = case.spec["config"]
    model = Model(
        layers=cfg["L"],
        hidden=cfg["h"],
        heads=cfg["heads"],
        ffn=cfg["ffn"],
        seq=cfg["S"],
        vocab=cfg["V"],
        experts=cfg["E"],
        top_k=cfg["k"],
        moe_at=tuple(cfg["moe_layers"]),
        activation=cfg["act"],
        tied=cfg["tie"],
        norm_topk=cfg["norm_topk"],
        capacity_factor=cfg["cf"] or 0.0,
        drops_in_evaluation=True,
        min_capacity=cfg["min_cap"],
        priority=cfg["priority"],
        balance_weight=cfg["ca"],
        z_weight=cfg["cz"],
    )
    loop = Loop(accumulate=cfg["M"])
    return Config(model, layout, Data(), optimiser(case), 1, cfg["B"] // cfg["M"], loop=loop)


def optimiser(case: Case) -> Optim:
    """The optimiser that the case states in words."""
    said = case.spec["outputs"]
    patterns = {
        "clip": rf"clip\({NUMBER}\)",
        "lr": rf"lr {NUMBER}",
        "betas": rf"betas {NUMBER}/{NUMBER}",
        "eps": rf"eps {NUMBER}",
        "decay": rf"wd {NUMBER} on tensors with >=2 dims",
    }
    found = {name: re.search(pattern, said) for name, pattern in patterns.items()}
    assert "AdamW" in said and all(found.values()), f"{case.name}: no optimiser in {said!r}"
    value = {name: [float(g) for g in match.groups()] for name, match in found.items() if match}
    assert value["eps"] == [1e-8], "tenfold leaves Adam's eps at torch's 1e-8"
    return Optim(
        name="adamw",
        lr=value["lr"][0],
        betas=(value["betas"][0], value["betas"][1]),
        weight_decay=value["decay"][0],
        clip=value["clip"][0],
    )


PARAMETERS: dict[str, Callable[[str], bool]] = {
    "ln*/ln_f weight": lambda key: _is_norm(key) and key.endswith("weight"),
    "ln bias": lambda key: _is_norm(key) and key.endswith("bias"),
    "gate.weight": lambda key: key.endswith("gate.weight"),
    "every other bias": lambda key: key.endswith("bias"),
    "every other weight (embeddings too)": lambda key: key.endswith("weight"),
}
"""Which keys a phrase of `scales` means; the first phrase that fits a key holds."""


def _is_norm(key: str) -> bool:
    return re.search(r"(^|\.)ln(\d+|_f)\.", key) is not None


def whole_weights(case: Case, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Every parameter of the whole model by its key."""
    rules = []
    for phrase in case.spec["scales"].split(";"):
        who, _, rule = phrase.partition(":")
        found = re.fullmatch(rf"(?:{NUMBER}\+)?{NUMBER}\*r", rule.strip())
        assert found, f"{case.name}: cannot read the rule {rule!r}"
        rules.append((PARAMETERS[who.strip()], np.float32(found[1] or 0), float(found[2])))
    made = {}
    for key, shape in case.spec["params"]:
        start, scale = next((a, b) for meant, a, b in rules if meant(key))
        made[key] = torch.from_numpy(start + case.rule(key, shape, scale)).to(dtype)
    return made


def chunks(case: Case) -> list[torch.Tensor]:
    """The tokens of all dp x M chunks, in order."""
    entry, cfg = case.find("tokens"), case.spec["config"]
    random = np.random.RandomState(case.seed(entry.name))
    tokens = random.randint(0, cfg["V"], entry.shape)
    return list(torch.from_numpy(tokens).chunk(cfg["dp"] * cfg["M"]))
