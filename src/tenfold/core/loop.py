"""The loop: one stage after another, resumable at every step, on one process or many."""

from __future__ import annotations

import contextlib
import math
import signal
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from tenfold.files import NUMBER, read_object

from . import checkpoint, compiled, optim
from .allocator import keep_freed_memory
from .config import require
from .diagnose import NonFinite
from .dist import World
from .log import Bar, MetricsLog, say
from .pace import Pace
from .precision import Amp, remark
from .prefetch import prefetched
from .running import Running, drop_checkpoints, finish, load_final
from .stage import Stage
from .step import Stepper

ACCOUNT = {"name": str, "steps": int, "seconds": NUMBER, "best": (dict, None)}
MORE = {"skipped": int, "compiled": str}
"""Shape of a finished stage's `done.json`, and of what it has under some settings: steps that fp16
skipped, and the compiler of its steps."""

FOLLOWS = "follows.json"
"""Steps of the stages before one that uses what they learned; others have no such file."""


@dataclass(frozen=True)
class Loop:
    """Settings of the training loop; only amp, accumulate and ema change what is learned, and
    compile by rounding."""

    amp: Amp = "off"
    """Mixed precision: bf16 runs the forward pass under autocast; fp16, for GPUs without bf16, also
    scales the loss, and skips (and counts) steps whose gradients overflow; auto is bf16 on devices
    that compute in it, and off on others."""
    compile: bool = False
    """Let torch compile the training step (torch.compile): equal within rounding, slow to begin."""
    accumulate: int = 1
    """Micro-batches whose gradients are averaged into one step."""
    ema: float = 0.0
    """Decay of an exponential moving average of the weights, used for evaluation; 0 is off."""
    workers: int = 1
    """Threads that prepare batches ahead; 0 prepares them in line."""
    validate_every: int = 0
    """Steps between validations; 0 validates at the end only."""
    save_every: int = 200
    """Steps between checkpoints."""
    async_save: bool = False
    """Write checkpoints while training goes on, from a copy in memory (one more of weights and
    optimiser state)."""
    log_every: int = 10
    """Steps between lines of metrics.jsonl."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Device to train on; auto takes a GPU if there is one."""
    threads: int = 0
    """Threads of torch on the CPU; 0 leaves torch's choice."""
    tensorboard: bool = False
    """Write what is logged for TensorBoard, too, in the run's folder `tensorboard` (an extra)."""

    def __post_init__(self) -> None:
        require(self, "loop.", "[1, inf)", "accumulate", "save_every", "log_every")
        require(self, "loop.", "[0, inf)", "workers", "validate_every", "threads")
        require(self, "loop.", "[0, 1)", "ema")


class Stopped(RuntimeError):
    """A signal asked to stop; the checkpoint is written and the same command goes on."""

    def __init__(self, signum: int, stage: str, step: int) -> None:
        super().__init__(
            f"stopped by {signal.Signals(signum).name} after step {step} of stage {stage!r}; "
            "the checkpoint is written, the same command continues"
        )
        self.signum, self.exit_code = signum, 128 + signum


class _StopFlag:
    """Turns SIGTERM and SIGINT into a flag that the loop reads after each step."""

    signum = 0

    @contextlib.contextmanager
    def listening(self) -> Iterator[_StopFlag]:
        def note(signum: int, frame: Any) -> None:
            self.signum = signum

        try:
            before = {s: signal.signal(s, note) for s in (signal.SIGTERM, signal.SIGINT)}
        except ValueError:  # not the main thread: the host application owns the signals
            before = {}
        try:
            yield self
        finally:
            for s, handler in before.items():
                signal.signal(s, handler)


def _validate(running: Running, log: MetricsLog) -> None:
    stage = running.stage
    if stage.validate is None:
        return
    module = running.evaluated
    module.eval()
    with torch.no_grad():
        values = stage.validate(module)
    log.add(stage.name, running.step, "validation", values)
    if not stage.monitor:
        return
    if stage.monitor not in values:
        raise ValueError(
            f"stage {stage.name!r} watches {stage.monitor!r}, but validation gave {sorted(values)}"
        )
    value, sign = values[stage.monitor], 1 if stage.better == "lower" else -1
    if not math.isfinite(value):
        raise NonFinite(
            f"stage {stage.name!r}, step {running.step}: the validation's {stage.monitor} is "
            f"{value}; lower optim.lr or set optim.clip. The last checkpoint is untouched."
        )
    if not running.best or sign * value < sign * running.best["value"]:
        running.best = {"step": running.step, "metric": stage.monitor, "value": value}
        running.write_weights("best", module)


def train_stage(
    stage: Stage, loop: Loop, world: World, run: Path, seed: int, log: MetricsLog, known: list[str],
    stop: _StopFlag,
) -> None:  # fmt: skip
    """Train one stage to its end, from its newest checkpoint if there is one."""
    stepper = Stepper(stage, world, seed, loop.accumulate, loop.amp)
    running = Running(stepper, run, loop.ema, loop.async_save)
    if loop.compile:
        stepper.compile()
    done = running.folder / "done.json"
    if done.exists():
        if read_object(done, ACCOUNT | MORE, tuple(ACCOUNT))["steps"] >= stage.steps:
            load_final(running)
            drop_checkpoints(running)  # it was killed before it had done so
            return
        world.barrier()  # all have seen it
        running.reopen()
    running.resume()
    if world.is_first:
        log.rewind(stage.name, running.step, [*known, *_kept(run, stage.name)])
    batches = prefetched(
        stage.batches, running.step * loop.accumulate, stage.steps * loop.accumulate, loop.workers,
        world.device,
    )  # fmt: skip
    if loop.compile and world.is_first:
        say(f"{stage.name}: torch.compile ({compiled.BACKEND}) makes the first steps slow")
    bar = Bar(stage.name, stage.steps, running.step, world.is_first)
    pace = Pace(stage.work, stepper.amp != "off", world)
    began = time.monotonic() - running.seconds
    try:
        while running.step < stage.steps:
            lr = optim.set_lr(running.optimizer, stage.optim, running.step, stage.steps)
            running.train_step(batches, lambda: stop.signum)
            last = running.step == stage.steps
            logs = running.step % loop.log_every == 0 or last or running.step == 1
            validates = bool(loop.validate_every) and running.step % loop.validate_every == 0
            if logs or validates:
                stepper.settle()
            running.seconds = time.monotonic() - began
            if logs:
                losses = stepper.seen.losses
                losses = losses if stage.parallel else world.mean(losses)
                values = {**losses, "lr": lr, **stepper.logged()}
                values["seconds"] = round(running.seconds, 3)
                values |= pace.values(running.step)
                log.add(stage.name, running.step, "train", values)
            if last:
                running.require_unharmed()
            if validates or last:
                _validate(running, log)
                pace.restart(running.step)
            loss = stepper.seen.losses.get("loss", float("nan"))
            bar.update(running.step, f"loss {loss:.4g}{pace.text}")
            signum = stepper.seen.signum
            if running.step % loop.save_every == 0 or last or signum:
                running.save()
                pace.restart(running.step)
            if signum:
                raise Stopped(signum, stage.name, running.step)
    finally:
        bar.close()
        batches.close()
        running.saver.wait()
    finish(running)


def _kept(run: Path, name: str) -> list[str]:
    """Other stages that use nothing of earlier ones, which go on where one of those got more steps:
    what they logged stays."""
    folders = [folder for folder in (run / "checkpoints").glob("*") if folder.name != name]
    return [folder.name for folder in folders if not (folder / FOLLOWS).exists()]


def _start_over_after_others(folder: Path, past: dict[str, int], world: World) -> None:
    """Drop what a stage learned if the stages before it have got more steps since."""
    file = folder / FOLLOWS
    outdated = file.exists() and checkpoint.read_json(file) != past
    world.barrier()
    if world.is_first:
        if outdated:
            checkpoint.remove(folder)
        if outdated or not file.exists():
            checkpoint.write_json(file, past)
    world.barrier()


def train(
    stages: Iterator[Stage], loop: Loop, world: World, run: Path, seed: int
) -> list[dict[str, Any]]:
    """Train every stage in order and return their accounts (name, steps, seconds, best)."""
    if loop.threads:
        torch.set_num_threads(loop.threads)
    if world.device.type == "cpu":
        keep_freed_memory()
    if world.is_first and (line := remark(loop.amp, world.device)):
        say(line)
    log = MetricsLog(run / "metrics.jsonl", world.is_first, loop.tensorboard)
    accounts: list[dict[str, Any]] = []
    stop = _StopFlag()
    for stage in stages:  # between two, where files may be written for long, signals end at once
        known = [a["name"] for a in accounts]
        if stage.name in known:
            raise ValueError(f"two stages are named {stage.name!r}")
        if loop.validate_every and stage.validate is None and world.is_first:
            warnings.warn(
                f"loop.validate_every is {loop.validate_every}, but for stage {stage.name} nothing "
                "is held out to validate on",
                stacklevel=2,
            )
        with stop.listening():
            if accounts and not stage.independent:
                past = {account["name"]: account["steps"] for account in accounts}
                _start_over_after_others(run / "checkpoints" / stage.name, past, world)
            train_stage(stage, loop, world, run, seed, log, known, stop)
        done = run / "checkpoints" / stage.name / "done.json"
        accounts.append(read_object(done, ACCOUNT | MORE, tuple(ACCOUNT)))
    return accounts
