"""One of several processes that run `lm_step` cases on layouts: `ppmoe_worker.py JOBS OUT`.

All jobs of a world size go through one start of the processes, which takes longer than the jobs.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F

from golden import ppmoe_cases as cases
from golden import ppmoe_model
from golden.harness import Case
from tenfold.core.dist import World, started
from tenfold.systems.ppmoe.config import Config, Layout
from tenfold.systems.ppmoe.fit import check_layout
from tenfold.systems.ppmoe.parallel import Grid, make_grid
from tenfold.systems.ppmoe.parts import own_part
from tenfold.systems.ppmoe.pipeline import Part

_grids: dict[tuple, Grid] = {}


def grid_of(cfg: Config, world: World) -> Grid:
    """The groups of a layout, made once: hundreds of them would use up the sockets."""
    layout = cfg.layout
    shape = (layout.pp, layout.tp, layout.is_v_shaped)
    if shape not in _grids:
        _grids[shape] = make_grid(cfg, world)
    check_layout(cfg, world.size)
    return _grids[shape]


def differences(case: Case, layout: Layout, world: World) -> dict[str, float]:
    """Largest differences between a step of this process's part and the case, in float64."""
    cfg = cases.config(case, layout)
    grid, spec = grid_of(cfg, world), case.spec["config"]
    assert grid.dp.size == spec["dp"], "aux and z depend on the number of replicas"
    part = Part(cfg, grid).double()
    part.load_whole(cases.whole_weights(case, torch.float64))
    first = grid.dp.rank * spec["M"]
    mine = cases.chunks(case)[first : first + spec["M"]]
    tally = part.train_step([{"tokens": tokens} for tokens in mine])
    norm, want, model = float(part.gradient_norm()), case.spec["scalars"], cfg.model

    def farthest(prefix: str, tensors: dict[str, torch.Tensor]) -> float:
        found = [torch.zeros((), dtype=torch.float64)]
        for key, got in tensors.items():
            if (whole := case.arrays.get(prefix + key)) is not None:
                group = part.owners.of(key)
                own = own_part(key, torch.from_numpy(whole).double(), group.size, group.rank)
                found.append((got.detach() - own).abs().max())
        return float(torch.stack(found).max())  # unlike Python's, it keeps what is no number

    gradients = {key: p.grad.clone() for key, p in part.keyed_parameters()}
    means = {
        "loss": float(ppmoe_model.total_loss(tally, model)),
        "ce": float(tally.ce),
        "grad_norm": norm,
        "dropped": float(tally.table[:, 3].sum()),
    }
    found = {
        name: abs(value - float(np.mean(want[name])))  # the case has ce of each chunk
        for name, value in means.items()
        if name in want
    }
    found["gradients"] = farthest("grad.", gradients)
    counts = [f"counts.{i}" for i in range(spec["dp"] * spec["M"] * len(model.moe_layers))]
    if all(name in case.arrays for name in counts):
        # counts run over chunks, then layers; a step's tally has sums over the chunks
        each = torch.stack([torch.from_numpy(case.arrays[name]) for name in counts])
        rows = each.view(-1, len(model.moe_layers), model.experts).sum(0)
        found["counts"] = float((tally.counts() - rows).abs().max())
    if "logits" in case.arrays:
        found["evaluation"] = evaluation(case, part, mine, first)
    ppmoe_model.step(part, norm)
    found["after_step"] = farthest("after_step.", dict(part.keyed_parameters()))
    return found


def evaluation(case: Case, part: Part, mine: list[torch.Tensor], first: int) -> float:
    """The largest difference of a token's loss from that of the case's logits."""
    part.eval()
    logits = torch.from_numpy(case.arrays["logits"]).split(len(mine[0]))
    evaluated = []
    for tokens, rows in zip(mine, logits[first:], strict=False):
        known = F.cross_entropy(rows.transpose(1, 2), tokens[:, 1:], reduction="none")
        evaluated.append((part.token_losses(tokens) - known).abs().max())
    return float(torch.stack(evaluated).max())


def main() -> None:
    jobs, out = json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2])
    torch.set_num_threads(1)
    with started("cpu", minutes=2.0) as world:
        for job in jobs:
            try:
                found = differences(Case(Path(job["case"])), Layout(**job["layout"]), world)
            except Exception as error:
                error.add_note(f"rank {world.rank}, job {job}")
                raise
            # a difference that is no number must not be lost by the maximum
            worst = torch.tensor(list(found.values())).nan_to_num(torch.inf)
            dist.all_reduce(worst, op=dist.ReduceOp.MAX)
            job["found"] = dict(zip(found, worst.tolist(), strict=True))
        if world.is_first:
            out.write_text(json.dumps(jobs))


if __name__ == "__main__":
    main()
