"""A toy system for the loop's promises, run as a script so that it can be killed.

python toy.py RUN [--kill-at N] [--signal KILL|TERM] [--plain] [--poison N] [--pipeline] [--late]
              [--behind]
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from tenfold.core import dist, loop, step
from tenfold.core.optim import Optim
from tenfold.core.seed import generator, seed_everything
from tenfold.core.stage import Stage

STEPS = 12
LOOP = loop.Loop(
    accumulate=2, ema=0.9, workers=3, save_every=4, log_every=1, validate_every=3, device="cpu"
)


class Net(nn.Module):
    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Linear(6, 16), nn.LayerNorm(16), nn.Dropout(dropout), nn.Tanh(), nn.Linear(16, 3)
        )

    def forward(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        error = self.body(batch["x"]) - batch["y"]
        return {"loss": error.square().mean(), "loss/abs": error.abs().mean().detach()}


class Pair(nn.Module):
    """Two students that take turns."""

    def __init__(self) -> None:
        super().__init__()
        self.students = nn.ModuleList([Net(0.0), Net(0.0)])

    def forward(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return self.students[int(batch["turn"])](batch)


def batches(stage: str, size: int = 8, shared: bool = True):
    def batch(index: int) -> dict[str, torch.Tensor]:
        rows = dist.current().share(size) if shared else slice(size)
        draw = generator(stage, index)
        x = torch.randn(size, 6, generator=draw)
        y = x[:, :3].sin() + x[:, 3:]
        return {"x": x[rows], "y": y[rows], "turn": torch.tensor(index // LOOP.accumulate % 2)}

    return batch


class Toy:
    def __init__(self, kill_at: int, signum: int, plain: bool, poison: int) -> None:
        self.net, self.pair = Net(0.0 if plain else 0.3), Pair()
        self.teacher = Net(0.0)
        self.teacher.load_state_dict(self.pair.students[0].state_dict())
        self.kill_at, self.signum, self.poison, self.done = kill_at, signum, poison, 0

    def count(self, step: int) -> None:
        self.done += 1
        if self.done == self.kill_at:
            os.kill(os.getpid(), self.signum)
        if self.done == self.poison:
            with torch.no_grad():
                self.net.body[4].weight[0, 0] = float("nan")

    def follow(self, step: int) -> None:
        with torch.no_grad():
            for t, s in zip(
                self.teacher.parameters(), self.pair.students[0].parameters(), strict=True
            ):
                t.lerp_(s, 0.1)
        self.count(step)

    def stages(self) -> Iterator[Stage]:
        held_out = batches("validation", 32, shared=False)(0)
        optim = Optim(
            name="adamw", lr=0.01, weight_decay=0.1, clip=0.5, schedule="cosine", warmup=2
        )
        yield Stage(
            "first", self.net, batches("first"), STEPS, optim, after_step=self.count,
            validate=lambda net: {"error": float(net(held_out)["loss"])}, monitor="error",
        )  # fmt: skip
        first = (
            self.net.body[4].weight.detach().abs().sum()
        )  # the second stage depends on the first
        sgd = Optim(name="sgd", lr=0.01 * float(first) / float(first.clamp_min(1e-9)), clip=1.0)
        yield Stage(
            "second", self.pair, batches("second"), STEPS, sgd, after_step=self.follow,
            state={"teacher": self.teacher}, alternates=True,
        )  # fmt: skip


def pipeline_fit(world: dist.World) -> Stage:
    """Two pipeline stages driven by a 1F1B schedule; each process holds its own part."""
    import warnings

    from torch.distributed.pipelining import PipelineStage, Schedule1F1B

    warnings.simplefilter("ignore")
    parts = [nn.Sequential(nn.Linear(6, 16), nn.Tanh()), nn.Linear(16, 3)]
    part = parts[world.rank]
    stage = PipelineStage(part, world.rank, world.size, world.device)
    schedule = Schedule1F1B(stage, 4, loss_fn=nn.functional.mse_loss)

    def training_step(model, batches, backward):
        (batch,), losses = batches, []
        if world.rank == 0:
            schedule.step(batch["x"])
            return {}
        schedule.step(target=batch["y"], losses=losses)
        return {"loss": torch.stack(losses).mean()}

    def whole_batch(index: int) -> dict[str, torch.Tensor]:
        x = torch.randn(8, 6, generator=generator("pipe", index))
        return {"x": x, "y": x[:, :3].sin()}

    optim = Optim(name="sgd", lr=0.1, momentum=0.9)

    def whole(name, tensor):
        return f"stage{world.rank}.{name}", tensor

    return Stage(
        "pipe", part, whole_batch, STEPS, optim, training_step=training_step, parallel=whole
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("run", type=Path)
    parser.add_argument("--kill-at", type=int, default=0)
    parser.add_argument("--signal", default="KILL")
    parser.add_argument("--plain", action="store_true")
    parser.add_argument("--pipeline", action="store_true")
    parser.add_argument("--poison", type=int, default=0)
    parser.add_argument("--late", action="store_true", help="the host reads as it does of a GPU")
    parser.add_argument("--behind", action="store_true")
    args = parser.parse_args()
    if args.late:
        step.READ_FIRST = ()
    torch.set_num_threads(1)
    seed_everything(7)
    signum = getattr(signal, f"SIG{args.signal}")
    try:
        with dist.started("cpu", minutes=1) as world:
            if args.pipeline:
                fit = pipeline_fit(world)
                if args.kill_at and world.rank == 1:
                    count = Toy(args.kill_at, signum, True, 0)
                    fit.after_step = count.count
                settings = replace(LOOP, accumulate=1, ema=0.0, async_save=args.behind)
                loop.train(iter([fit]), settings, world, args.run, 7)
                return
            toy = Toy(args.kill_at, signum, args.plain, args.poison)
            settings = replace(LOOP, ema=0.0) if args.plain else LOOP
            settings = replace(settings, async_save=args.behind)
            loop.train(toy.stages(), settings, world, args.run, 7)
            if world.is_first:
                torch.save(toy.teacher.state_dict(), args.run / "teacher.pt")
    except loop.Stopped as stopped:
        print(stopped, file=sys.stderr)
        sys.exit(128 + stopped.signum)
    except loop.NonFinite as error:
        print(error, file=sys.stderr)
        sys.exit(3)


if __name__ == "__main__":
    main()
