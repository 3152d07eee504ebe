"""Run by torchrun on 4 processes: train on (2,1,2), stop, go on in copies on other layouts, and
measure: each process its share of the text.

python reshard.py FOLDER LAYOUT ...     trains and continues (see test_resume.py)
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import torch

from tenfold.core import checkpoint, dist, loop
from tenfold.core.optim import Optim
from tenfold.core.stage import Stage
from tenfold.runner.weights import save_weights
from tenfold.systems.ppmoe import Ppmoe
from tenfold.systems.ppmoe.config import Config, Data, Layout, Model

STEPS, SAVED = 5, 3
CHUNKS = 4
"""Micro-batches of all replicas in a step: the balance loss depends on their number."""
OPTIM = Optim(lr=3e-3, betas=(0.9, 0.95), weight_decay=0.1, clip=0.5, schedule="cosine", warmup=2)
MODEL = Model(
    layers=4, hidden=16, heads=4, seq=16, vocab=256, experts=4, bias_rate=0.01, capacity_factor=1.5
)
LAYOUTS = {
    "2-1-2": Layout(pp=2, tp=2),
    "1-2-2": Layout(tp=2, zero=True, sequence=True),
    "1-4-1": Layout(fsdp=True),
    "4-1-1": Layout(pp=4),
    "2-1-2-alltoall": Layout(pp=2, tp=2, dispatch="alltoall", sync="params"),
    "2-2-1-zbv": Layout(pp=2, schedule="zbv"),
}
REPLICAS = {"1-2-2": 2, "1-4-1": 4, "2-2-1-zbv": 2}


class Killed(RuntimeError):
    """Stands for the end of the job."""


def config(layout: Layout, replicas: int) -> Config:
    """The same run on a layout: as many micro-batches of as many rows over all replicas."""
    return Config(
        MODEL, layout, Data(name="python", eval_windows=4), OPTIM, STEPS, batch=2 * replicas,
        loop=loop.Loop(accumulate=CHUNKS // replicas, save_every=SAVED, workers=0, device="cpu",
                       async_save=True),
    )  # fmt: skip


class Chunked(Ppmoe):
    """Rows by chunk, not by batch: replica d's micro-batch m is chunk d * M + m of the step."""

    kill = False

    def rows(self, index: int) -> dict[str, torch.Tensor]:
        world, micro = dist.current(), self.cfg.loop.accumulate
        replicas = world.size // (self.cfg.layout.pp * self.cfg.layout.tp)
        replica = world.rank // self.cfg.layout.tp % replicas
        chunk = index // micro * CHUNKS + replica * micro + index % micro
        rows = self.windows("train").draw(2, 1, chunk)
        return {"tokens": torch.from_numpy(rows), "seed": torch.tensor(0)}

    def stages(self) -> Iterator[Stage]:
        stages = super().stages()
        stage = next(stages)
        inner, stage.batches = stage.after_step, self.rows

        def after(step: int) -> None:
            inner(step)
            if self.kill and step == SAVED:
                raise Killed

        stage.after_step = after
        yield stage
        yield from stages


def train(run: Path, layout: Layout, replicas: int, world: dist.World, kill: bool = False) -> None:
    """Train in `run`, from its checkpoint if there is one; write what all processes measure."""
    system = Chunked(config(layout, replicas))
    system.kill = kill
    try:
        loop.train(system.stages(), system.cfg.loop, world, run, 0)
    except Killed:
        world.barrier()
        return
    weights = run / "weights.safetensors"
    save_weights(weights, "ppmoe", system)
    world.barrier(patient=True)
    system.read_from(weights)
    measured = world.gather(system.evaluate("test").metrics)
    if world.is_first:
        checkpoint.write_json(run / "measured.json", measured)


def main() -> None:
    folder, names = Path(sys.argv[1]), sys.argv[2:]
    torch.set_num_threads(1)
    with dist.started("cpu") as world:
        train(folder / "stopped", LAYOUTS["2-1-2"], 1, world, kill=True)
        for name in names:
            if world.is_first:
                shutil.copytree(folder / "stopped", folder / name)
            world.barrier()
            train(folder / name, LAYOUTS[name], REPLICAS.get(name, 1), world)


if __name__ == "__main__":
    main()
