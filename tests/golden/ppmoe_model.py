"""Checks of PPMoE in one process: router, mixture layer, one training step of the model."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from golden import ppmoe_cases as cases
from golden.harness import Case, close
from golden.noise import is_noise
from tenfold.core.optim import build
from tenfold.systems.ppmoe.config import Layout
from tenfold.systems.ppmoe.dispatch import MoE
from tenfold.systems.ppmoe.parallel import Grid, Group
from tenfold.systems.ppmoe.parts import own_part
from tenfold.systems.ppmoe.pipeline import Part
from tenfold.systems.ppmoe.routing import Router, Routing, capacity_of, queue_places

DISPATCHERS = ("slice", "alltoall", "alltoall-copies")


def kept(routing: Routing) -> torch.Tensor:
    """Which pairs have a place, all where there is no capacity."""
    if routing.keep is None:
        return torch.ones_like(routing.experts, dtype=torch.bool)
    return routing.keep


def scalars(routing: Routing) -> dict[str, torch.Tensor]:
    """What a case states of a routing in numbers."""
    return {
        "aux": routing.balance_loss,
        "z": routing.z_loss,
        "dropped": (~kept(routing)).sum(),
        "margin": routing.margin,
    }


def compare(case: Case, got: dict[str, torch.Tensor], limit: cases.Limit) -> None:
    """Every array and every number of the case, none left out."""
    case.compare_all(got, limit.of, str(limit.dtype), case.arrays)
    for name, value in case.spec["scalars"].items():
        if name.endswith("margin") and case.spec["config"]["k"] == case.spec["config"]["E"]:
            continue  # with all experts chosen there is no next one
        assert name in got, f"{case.json_path}: no check for the number {name!r}"
        want = np.asarray(value, dtype=np.float64)
        close(got[name].double(), want, **limit.of(name), what=f"{case.name} {limit.dtype}: {name}")


def check_gate(case: Case) -> None:
    cfg, model = case.spec["config"], cases.mixture(case)
    made, (aux, z) = cases.filled(case), cases.weights_of_losses(case)
    for limit in cases.limits(case, "margin"):
        x, c = (torch.from_numpy(made[name]).to(limit.dtype) for name in ("x", "c"))
        router = Router(model).to(limit.dtype)
        router.load_state_dict({"weight": torch.from_numpy(made["gate.weight"])})
        routing = router(x)
        routing.logits.retain_grad()
        weights = routing.weights * kept(routing)
        total = (weights * c).sum() + aux * routing.balance_loss + z * routing.z_loss
        total.backward()
        chosen = routing.probs.gather(1, routing.experts)
        capacity = -1
        if model.capacity_factor:
            capacity = capacity_of(
                cfg["T"], cfg["k"], cfg["E"], model.capacity_factor, model.min_capacity
            )
        got = {
            "logits": routing.logits,
            "p": routing.probs,
            "idx": routing.experts,
            "w": routing.weights,
            "w_kept": weights,
            "keep": kept(routing),
            "pos": queue_places(routing.experts, chosen, model.priority),
            "counts": routing.counts,
            "grad_logits": routing.logits.grad,
            "capacity": torch.tensor(capacity),
            "S": total,
        }
        compare(case, got | scalars(routing), limit)


class Unsummed(Group):
    """A group in which each process keeps its own part of a sum, so that no other is needed."""

    def sum_(self, x: torch.Tensor) -> torch.Tensor:
        return x


def check_moe_layer(case: Case) -> None:
    aux, z = cases.weights_of_losses(case)
    model = cases.mixture(case, balance_weight=aux, z_weight=z)
    made = cases.filled(case)
    for limit in cases.limits(case, "margin"):
        tensors = {k: torch.from_numpy(v).to(limit.dtype) for k, v in made.items()}
        gy, partials = tensors.pop("gy"), _partials(case, model, tensors)
        for dispatch in DISPATCHERS:
            moe = MoE(model, Layout(dispatch=dispatch), Grid()).to(limit.dtype).train()
            moe.load_state_dict({k: v for k, v in tensors.items() if k != "x"})
            x = tensors["x"].clone().requires_grad_()
            y, routing = moe(x)
            (y * gy).sum().backward()  # the layer itself hands aux and z to the backward pass
            total = (y * gy).sum() + aux * routing.balance_loss + z * routing.z_loss
            got = {
                "logits": routing.logits,
                "idx": routing.experts,
                "keep": kept(routing),
                "w_kept": routing.weights * kept(routing),
                "counts": routing.counts,
                "y": y,
                "grad_x": x.grad,
                "S": total,
                **{f"grad.{name}": p.grad for name, p in moe.named_parameters()},
                **partials,
            }
            compare(case, got | scalars(routing), limit)


def _partials(case: Case, model, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """What each tensor rank holds before the all-reduce, for the sizes that the case has."""
    found = {}
    for name in (n for n in case.arrays if n.startswith("partial_tp")):
        size = int(name.removeprefix("partial_tp"))
        for sync in ("scores", "params"):
            rows = []
            for rank in range(size):
                grid = Grid(tp=Unsummed("tp", size, rank))
                moe = MoE(model, Layout(tp=size, sync=sync), grid).to(tensors["x"].dtype)
                own = {k: own_part(f".{k}", v, size, rank) for k, v in tensors.items() if k != "x"}
                moe.load_state_dict(own)
                rows.append(moe(tensors["x"])[0])
            partial = torch.stack(rows)
            assert name not in found or torch.equal(partial, found[name])
            found[name] = partial
    return found


def check_lm_step(case: Case) -> None:
    for limit in cases.limits(case, "min_margin"):
        _check_step(case, limit)


def _check_step(case: Case, limit: cases.Limit) -> None:
    cfg = cases.config(case, Layout())
    # one process does the chunks of all replicas: the mean is over all of them
    chunks = cases.chunks(case)
    cfg = replace(cfg, loop=replace(cfg.loop, accumulate=len(chunks)), batch=len(chunks[0]))
    part = Part(cfg, Grid()).to(limit.dtype)
    part.load_whole(cases.whole_weights(case, limit.dtype))
    hidden: list[list[torch.Tensor]] = [[] for _ in range(cfg.model.layers)]
    routings: list[Routing] = []
    logits: list[torch.Tensor] = []

    def on_block(block, _inputs, out) -> None:
        hidden[block.index].append(out[0].detach())
        if out[1] is not None:
            routings.append(out[1])

    handles = [b.register_forward_hook(on_block) for b in part.parts[0].layers.values()]
    handles.append(
        part.parts[0].register_forward_hook(lambda _m, _i, out: logits.append(out.detach()))
    )
    batches = [{"tokens": tokens} for tokens in chunks]
    tally = part.train_step(batches)
    for handle in handles:
        handle.remove()
    model, norm = cfg.model, float(part.gradient_norm())
    got = {f"grad.{key}": p.grad.clone() for key, p in part.keyed_parameters()}
    layers = len(model.moe_layers)
    by_chunk = [routings[i : i + layers] for i in range(0, len(routings), layers)]
    losses = {
        "ce": [part.parts[0].mean_loss(o, t[:, 1:]) for o, t in zip(logits, chunks, strict=True)],
        "aux": [torch.stack([r.balance_loss for r in rs]).sum() for rs in by_chunk],
        "z": [torch.stack([r.z_loss for r in rs]).sum() for rs in by_chunk],
    }
    got |= {name: torch.stack(values) for name, values in losses.items()}
    got |= {f"counts.{i}": routing.counts for i, routing in enumerate(routings)}
    got |= {
        "logits": torch.cat(logits),
        "hidden": torch.stack([torch.cat(rows) for rows in hidden]),
        "grad_norm": torch.tensor(norm),
        "loss": total_loss(tally, model),
        "dropped": tally.table[:, 3].sum(),
    }
    got["min_margin"] = torch.stack([r.margin for r in routings]).min()
    step(part, norm)
    got |= {f"after_step.{key}": p for key, p in part.keyed_parameters()}
    part.zero_grad()
    got["loss_after_step"] = total_loss(part.train_step(batches), model)
    if limit.dtype == torch.float32:
        stepped = [name for name in case.arrays if name.startswith("after_step.")]
        got |= {name: sure(case, got, name) for name in stepped}
    compare(case, got, limit)


def sure(case: Case, got: dict[str, torch.Tensor], name: str) -> torch.Tensor:
    """A stepped parameter, with the case's value where its gradient is but rounding around 0.

    There Adam moves it by any share of the learning rate: only more than that is wrong.
    """
    key, want = name.replace("after_step", "grad", 1), case.arrays[name]
    own = got[key].numpy()
    noise = torch.from_numpy(is_noise(own, case.arrays.get(key, own)))
    moved = 2 * cases.optimiser(case).lr + cases.SINGLE.value
    near = (got[name] - torch.from_numpy(want)).abs() <= moved
    return torch.where(noise & near, torch.from_numpy(want), got[name])


def total_loss(tally, model) -> torch.Tensor:
    """The step's loss, from the means that a step returns."""
    table = tally.table
    return tally.ce + model.balance_weight * table[:, 0].sum() + model.z_weight * table[:, 1].sum()


@torch.no_grad()
def step(part: Part, norm: float) -> None:
    """Clip and one step of the case's optimiser, as the loop does it."""
    optim = part.cfg.optim
    factor = min(1.0, optim.clip / (norm + 1e-6))  # torch's clip_grad_norm_
    for p in part.parameters():
        p.grad *= factor
    build(part, optim).step()


CHECKS = {"gate": check_gate, "moe_layer": check_moe_layer, "lm_step": check_lm_step}
