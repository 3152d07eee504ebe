"""The loop: one stage after another, resumable at every step, on one process or many."""

from __future__ import annotations

import contextlib
import math
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from tenfold.files import NUMBER, read_object, sum_of

from . import checkpoint, optim, watchdog
from .allocator import keep_freed_memory
from .config import require
from .diagnose import NonFinite, blamed, culprit, harm_of_last_step
from .dist import World, local
from .log import Bar, MetricsLog
from .prefetch import prefetched, to_device
from .saver import Saver
from .seed import seed_everything
from .stage import Batch, Losses, Stage

ACCOUNT = {"name": str, "steps": int, "seconds": NUMBER, "best": (dict, None)}
"""Shape of a finished stage's `done.json`."""


@dataclass(frozen=True)
class Loop:
    """Settings of the training loop; only amp, accumulate and ema change what is learned."""

    amp: Literal["off", "bf16"] = "off"
    """Mixed precision: bf16 runs the forward pass under autocast."""
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


def _scalars(losses: Losses) -> dict[str, float]:
    return {k: float(v.detach()) for k, v in losses.items()}


class _Running:
    """One stage while it runs: the wrapped model, optimiser, average, and where it stands."""

    def __init__(self, stage: Stage, loop: Loop, world: World, run: Path, seed: int) -> None:
        self.stage, self.loop, self.world, self.seed = stage, loop, world, seed
        self.folder = run / "checkpoints" / stage.name
        stage.model.to(world.device)
        self.optimizer = optim.build(stage.model, stage.optim, stage.groups)
        self.average: AveragedModel | None = None
        if loop.ema:
            self.average = AveragedModel(
                stage.model, multi_avg_fn=get_ema_multi_avg_fn(loop.ema), use_buffers=False
            )
        self.wrapped: nn.Module = stage.model
        if world.size > 1 and not stage.parallel:
            ids = [world.device.index] if world.device.type == "cuda" else None
            self.wrapped = DistributedDataParallel(
                stage.model,
                device_ids=ids,
                gradient_as_bucket_view=True,
                find_unused_parameters=stage.alternates,
            )
        self.saver = Saver(self.folder, world, loop.async_save)
        self.step = 0
        self.batch: Batch = None
        """The last (micro-)batch that was trained on."""
        self.best: dict[str, Any] = {}
        self.seconds = 0.0
        self.signum = 0

    def weights(self, name: str) -> Path:
        """Return the path of weights "best" or "final": a file, or a divided model's folder."""
        return self.folder / (name if self.stage.parallel else f"{name}.safetensors")

    def write_weights(self, name: str, module: nn.Module) -> None:
        """Write weights as "best" or "final"; all processes call it."""
        if self.stage.parallel:
            checkpoint.write_parts(self.weights(name), self.parts(module), self.world)
        elif self.world.is_first:
            checkpoint.write_tensors(self.weights(name), module.state_dict())

    def read_weights(self, name: str) -> None:
        """Take the weights written as "best" or "final"."""
        module = self.stage.model
        if self.stage.parallel:
            checkpoint.read_parts(self.weights(name), self.parts(module), self.world)
        else:
            way_out = f"delete {self.folder} to train stage {self.stage.name!r} again"
            module.load_state_dict(checkpoint.read_tensors(self.weights(name), way_out))

    def parts(self, module: nn.Module, prefix: str = "") -> dict[str, torch.Tensor]:
        """A divided model's tensors by their keys in the whole, sharing memory."""
        assert self.stage.parallel
        named = module.state_dict(keep_vars=False).items()
        return {prefix + key: t for key, t in (self.stage.parallel(n, t) for n, t in named)}

    def all_parts(self) -> dict[str, torch.Tensor]:
        """Collect a divided model's tensors for a checkpoint: weights, optimiser state, average."""
        if not self.stage.parallel:
            return {}
        found = self.parts(self.stage.model, "model.")
        if self.average is not None:
            found |= self.parts(self.average.module, "average.")
        names: dict[torch.Tensor, str]
        names = {p: name for name, p in self.stage.model.named_parameters()}
        for parameter, slots in self.optimizer.state.items():
            for slot, value in slots.items():
                key, tensor = self.stage.parallel(names[parameter], value)
                found[f"optimizer.{key}.{slot}"] = tensor
        return found

    def make_optimizer_state(self) -> None:
        """Let the optimiser allocate its state, to be filled: a step of rate 0, gradients 0."""
        for group in self.optimizer.param_groups:
            group["lr"] = 0.0
            for p in group["params"]:
                p.grad = torch.zeros_like(p)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def more(self) -> dict[str, Any]:
        """State of what the stage keeps besides its model."""
        return {name: value.state_dict() for name, value in self.stage.state.items()}

    def load_more(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            self.stage.state[name].load_state_dict(value)

    @property
    def evaluated(self) -> nn.Module:
        """The weights that count: the average if there is one."""
        return self.stage.model if self.average is None else self.average.module

    def state(self) -> dict[str, Any]:
        """Collect what all processes have alike."""
        found = {
            "step": self.step,
            "seconds": self.seconds,
            "best": self.best,
            "more": self.more(),
            "averaged": None if self.average is None else self.average.n_averaged,
        }
        if not self.stage.parallel:
            found["model"] = self.stage.model.state_dict()
            found["optimizer"] = self.optimizer.state_dict()
            found["average"] = None if self.average is None else self.average.module.state_dict()
        return found

    def save(self) -> None:
        self.saver.save(self.step, self.state(), self.all_parts())

    def resume(self) -> None:
        found = checkpoint.load(self.folder)
        if found is None:
            return
        path, state = found
        try:
            self._take(path, state)
        except (KeyError, TypeError, AttributeError, RuntimeError) as error:
            why = (str(error).strip().splitlines() or [""])[0]
            raise ValueError(
                f"{path / 'state.pt'} does not hold the state of this stage "
                f"({type(error).__name__}: {why}); delete {path} to go on from an older "
                "checkpoint or from the start"
            ) from error

    def _take(self, path: Path, state: dict[str, Any]) -> None:
        self.step, self.seconds, self.best = state["step"], state["seconds"], state["best"]
        if self.average is not None:
            self.average.n_averaged.copy_(state["averaged"])
        if self.stage.parallel:
            self.make_optimizer_state()
            checkpoint.read_parts(path, self.all_parts(), self.world)
        else:
            self.stage.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            if self.average is not None:
                self.average.module.load_state_dict(state["average"])
        self.load_more(state["more"])

    def reopen(self) -> None:
        """Let a finished stage go on from its last state, for more steps; all processes call it."""
        found = checkpoint.load(self.folder)
        if found is None:
            raise ValueError(
                f"{self.folder} keeps no state of its training, so it cannot go on for more steps; "
                "--start begins a new run from its weights"
            )
        if found[1]["best"]:  # which the final weights are
            self.read_weights("final")
            self.write_weights("best", self.stage.model)
        self.world.barrier(patient=True)
        if self.world.is_first:
            (self.folder / "done.json").unlink()
        self.world.barrier()

    def train_step(
        self, batches: Iterator[Batch], stop: _StopFlag
    ) -> tuple[dict[str, float], float]:
        """Forward and backward of all micro-batches, then one optimiser step.

        Returns the mean losses and the gradient norm; raises NonFinite on every process if any
        process sees a non-finite value, before the weights are touched.
        """
        stage, loop = self.stage, self.loop
        watchdog.at(f"step {self.step} of stage {stage.name!r}")
        seed_everything(self.seed, stage.name, self.step, self.world.rank)
        stage.model.train()
        stage.model.zero_grad(set_to_none=True)  # the optimiser may have a share of them only
        sums: dict[str, float] = {}
        batch: Batch = None
        # a divided model gets all micro-batches at once: a pipeline needs them
        num_parts = 1 if stage.parallel else loop.accumulate
        for part in range(num_parts):
            batch = to_device(self._taken(batches), self.world.device)
            waits = part + 1 < num_parts and isinstance(self.wrapped, DistributedDataParallel)
            with contextlib.ExitStack() as stack:
                if waits:
                    stack.enter_context(self.wrapped.no_sync())  # type: ignore[operator]
                if loop.amp == "bf16":
                    stack.enter_context(torch.autocast(self.world.device.type, torch.bfloat16))
                losses = stage.training_step(self.wrapped, batch, self._backward)
            for key, value in _scalars(losses).items():
                sums[key] = sums.get(key, 0.0) + value / num_parts
        self.batch = batch
        parameters = [p for p in stage.model.parameters() if p.grad is not None]
        norm = self._gradient_norm(parameters)
        bad = not all(abs(v) < float("inf") for v in [*sums.values(), norm])
        anyone_bad, self.signum = self.world.largest([int(bad), stop.signum])
        if anyone_bad:
            where = culprit(stage, batch, sums, norm) if bad else ""
            seen = self.world.gather([where, sums, norm])
            raise NonFinite(
                f"stage {stage.name!r}, step {self.step}, {blamed(seen)}. "
                "The last checkpoint is untouched."
            )
        if stage.optim.clip and norm > stage.optim.clip:
            gradients = [local(p.grad) for p in parameters if p.grad is not None]
            torch._foreach_mul_(gradients, stage.optim.clip / (norm + 1e-6))
        self.optimizer.step()
        stage.after_step(self.step)
        if self.average is not None:
            self.average.update_parameters(stage.model)
        self.step += 1
        return sums, norm

    def require_unharmed(self) -> None:
        """Raise NonFinite on every process if the last step, which is behind us, diverged."""
        found = self.world.gather(harm_of_last_step(self.stage, self.batch))
        if any(found):
            rank = next(rank for rank, text in enumerate(found) if text)
            raise NonFinite(
                f"stage {self.stage.name!r}, after its last step ({self.step - 1}), process "
                f"{rank}: {found[rank]}; lower optim.lr or set optim.clip. "
                "The last checkpoint is untouched."
            )

    def _taken(self, batches: Iterator[Batch]) -> Batch:
        if self.stage.parallel:
            return [next(batches) for _ in range(self.loop.accumulate)]
        return next(batches)

    def _backward(self, loss: torch.Tensor) -> None:
        (loss / self.loop.accumulate).backward()

    def _gradient_norm(self, parameters: list[nn.Parameter]) -> float:
        """Norm over all parameters; over all processes' parts where the stage is parallel."""
        if self.stage.parallel:
            own = getattr(self.stage.model, "gradient_norm", None)
            if own is not None:
                return float(own())
        gradients = [p.grad for p in parameters if p.grad is not None]
        return float(torch.nn.utils.get_total_norm(gradients)) if gradients else 0.0


def _validate(running: _Running, log: MetricsLog) -> None:
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


def _finish(running: _Running) -> None:
    """Write the weights that count and what is kept beside them, load both, drop checkpoints."""
    stage, folder, world = running.stage, running.folder, running.world
    world.barrier(patient=True)  # best weights are written
    if running.best:
        running.read_weights("best")
    running.write_weights("final", stage.model if running.best else running.evaluated)
    if world.is_first:
        checkpoint.write_state(folder / "final.pt", running.more())
        account = {"name": stage.name, "steps": running.step, "seconds": round(running.seconds, 2)}
        checkpoint.write_json(folder / "done.json", {**account, "best": running.best or None})
    world.barrier(patient=True)
    _load_final(running)
    world.barrier(patient=True)
    _drop_checkpoints(running)


def _drop_checkpoints(running: _Running) -> None:
    """Delete what a finished stage needs no more: the last state lets the run get more steps."""
    if not running.world.is_first:
        return
    best = running.weights("best")
    for old in (*checkpoint.complete(running.folder)[:-1], best, sum_of(best)):
        if old.exists():
            checkpoint.remove(old)


def _load_final(running: _Running) -> None:
    """Leave a finished stage as it was at its end, teachers and the like included."""
    running.read_weights("final")
    running.stage.model.to(running.world.device)
    running.load_more(checkpoint.read_state(running.folder / "final.pt"))


def train_stage(
    stage: Stage, loop: Loop, world: World, run: Path, seed: int, log: MetricsLog, known: list[str],
    stop: _StopFlag,
) -> None:  # fmt: skip
    """Train one stage to its end, from its newest checkpoint if there is one."""
    running = _Running(stage, loop, world, run, seed)
    done = running.folder / "done.json"
    if done.exists():
        if read_object(done, ACCOUNT, tuple(ACCOUNT))["steps"] >= stage.steps:
            _load_final(running)
            _drop_checkpoints(running)  # it was killed before it had done so
            return
        world.barrier()  # all have seen it
        running.reopen()
    running.resume()
    if world.is_first:
        log.rewind(stage.name, running.step, known)
    batches = prefetched(
        stage.batches, running.step * loop.accumulate, stage.steps * loop.accumulate, loop.workers
    )
    bar = Bar(stage.name, stage.steps, running.step, world.is_first)
    began = time.monotonic() - running.seconds
    try:
        while running.step < stage.steps:
            lr = optim.set_lr(running.optimizer, stage.optim, running.step, stage.steps)
            losses, norm = running.train_step(batches, stop)
            running.seconds = time.monotonic() - began
            last = running.step == stage.steps
            if running.step % loop.log_every == 0 or last or running.step == 1:
                rounded = round(running.seconds, 3)
                losses = losses if stage.parallel else world.mean(losses)
                values = {**losses, "lr": lr, "grad_norm": norm, "seconds": rounded}
                log.add(stage.name, running.step, "train", values)
            if last:
                running.require_unharmed()
            if (loop.validate_every and running.step % loop.validate_every == 0) or last:
                _validate(running, log)
            bar.update(running.step, f"loss {losses.get('loss', float('nan')):.4g}")
            if running.step % loop.save_every == 0 or last or running.signum:
                running.save()
            if running.signum:
                raise Stopped(running.signum, stage.name, running.step)
    finally:
        bar.close()
        batches.close()
        running.saver.wait()
    _finish(running)


def _start_over_after_others(folder: Path, past: dict[str, int], world: World) -> None:
    """Drop what a stage learned if the stages before it have got more steps since."""
    file = folder / "follows.json"
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
    log = MetricsLog(run / "metrics.jsonl", world.is_first, loop.tensorboard)
    accounts: list[dict[str, Any]] = []
    stop = _StopFlag()
    for stage in stages:  # between two, where files may be written for long, signals end at once
        known = [a["name"] for a in accounts]
        if stage.name in known:
            raise ValueError(f"two stages are named {stage.name!r}")
        with stop.listening():
            if accounts and not stage.independent:
                past = {account["name"]: account["steps"] for account in accounts}
                _start_over_after_others(run / "checkpoints" / stage.name, past, world)
            train_stage(stage, loop, world, run, seed, log, known, stop)
        done = run / "checkpoints" / stage.name / "done.json"
        accounts.append(read_object(done, ACCOUNT, tuple(ACCOUNT)))
    return accounts
