"""The loop: one stage after another, resumable at every step, on one process or many."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from . import checkpoint, optim, watch
from .dist import World
from .log import Bar, MetricsLog
from .seed import seed_everything
from .system import Batch, Fit, Losses


@dataclass(frozen=True)
class Loop:
    """How training runs; nothing here changes what is learned except amp, accumulate and ema."""

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
    log_every: int = 10
    """Steps between lines of metrics.jsonl."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to train; auto takes a GPU if there is one."""
    threads: int = 0
    """Threads of torch on the CPU; 0 leaves torch's choice."""

    def __post_init__(self) -> None:
        for name in ("accumulate", "save_every", "log_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"loop.{name} must be at least 1, got {getattr(self, name)}")
        for name in ("workers", "validate_every", "threads"):
            if getattr(self, name) < 0:
                raise ValueError(f"loop.{name} must not be negative, got {getattr(self, name)}")
        if not 0 <= self.ema < 1:
            raise ValueError(f"loop.ema must be in [0, 1), got {self.ema}")


class NonFinite(RuntimeError):
    """A loss or gradient is NaN or infinite; the message names the culprit and the knob."""

    exit_code = 3


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


def prefetched(
    batches: Callable[[int], Batch], first: int, end: int, workers: int
) -> Generator[Batch]:
    """Batches first..end-1 in order, made ahead by threads; neither order nor content changes."""
    if workers == 0:
        for index in range(first, end):
            yield batches(index)
        return
    with ThreadPoolExecutor(workers, thread_name_prefix="batches") as pool:
        ahead: list[Future[Batch]] = []
        following = first
        try:
            for _ in range(first, end):
                while following < end and len(ahead) < 2 * workers:
                    ahead.append(pool.submit(batches, following))
                    following += 1
                yield ahead.pop(0).result()
        finally:
            for future in ahead:
                future.cancel()


def to_device(batch: Batch, device: torch.device) -> Batch:
    """Move every tensor of a batch (dicts, lists and tuples of them) to the device."""
    if isinstance(batch, torch.Tensor):
        return batch.to(device, non_blocking=True)
    if isinstance(batch, dict):
        return {k: to_device(v, device) for k, v in batch.items()}
    if isinstance(batch, (list, tuple)):
        moved = [to_device(v, device) for v in batch]
        return type(batch)(*moved) if hasattr(batch, "_fields") else type(batch)(moved)
    return batch


def _scalars(losses: Losses) -> dict[str, float]:
    return {k: float(v.detach()) for k, v in losses.items()}


def _bad_inputs(batch: Batch, where: str = "batch") -> str:
    """The first tensor of a batch that holds a non-finite value, or an empty string."""
    if isinstance(batch, torch.Tensor):
        if batch.is_floating_point() and not bool(torch.isfinite(batch).all()):
            row = (
                int((~torch.isfinite(batch)).flatten(1).any(1).nonzero()[0])
                if batch.ndim > 1
                else 0
            )
            return f"{where} (row {row})"
        return ""
    items: list[tuple[Any, Any]] = []
    if isinstance(batch, dict):
        items = list(batch.items())
    elif isinstance(batch, (list, tuple)):
        items = list(enumerate(batch))
    for key, value in items:
        found = _bad_inputs(value, f"{where}[{key!r}]")
        if found:
            return found
    return ""


def _culprit(fit: Fit, batch: Batch, losses: dict[str, float], norm: float) -> str:
    """Say what is not finite: the input, a weight, a module's output, a loss term, a gradient."""
    bad = _bad_inputs(batch)
    if bad:
        return f"the input {bad} is not finite; check the data"
    for name, parameter in fit.model.named_parameters():
        if not bool(torch.isfinite(parameter).all()):
            return f"the weight {name} is not finite; lower optim.lr or set optim.clip"
    first: list[str] = []

    def watch(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            if not first and _bad_inputs(output, "output"):
                first.append(f"{name} ({type(module).__name__})")

        return hook

    if not fit.parallel:
        hooks = [m.register_forward_hook(watch(n)) for n, m in fit.model.named_modules() if n]
        with torch.no_grad(), contextlib.suppress(Exception):
            fit.model(batch)
        for hook in hooks:
            hook.remove()
    terms = [k for k, v in losses.items() if not abs(v) < float("inf")]
    if first:
        return f"the output of {first[0]} is the first that is not finite; lower optim.lr"
    if terms:
        return f"the loss term {', '.join(terms)} is not finite; lower optim.lr"
    grads = [
        n for n, p in fit.model.named_parameters()
        if p.grad is not None and not bool(torch.isfinite(p.grad).all())
    ]  # fmt: skip
    if grads:
        return f"the gradient of {grads[0]} ({len(grads)} in all) is not finite; set optim.clip"
    return f"the gradient norm is {norm}; lower optim.lr"


def _blamed(seen: list[Any]) -> str:
    """What processes found, each (culprit, losses, norm): bad losses before mere bad gradients."""
    found = [
        (
            all(abs(v) < float("inf") for v in losses.values()),
            f"process {rank}: {where} (losses {losses}, gradient norm {norm:.3g})",
        )
        for rank, (where, losses, norm) in enumerate(seen)
        if where
    ]
    only_echo = min(echo for echo, _ in found)
    named = [text for echo, text in found if echo == only_echo]
    more = f"; and {len(named) - 4} more processes" if len(named) > 4 else ""
    return "; ".join(named[:4]) + more


class _Stage:
    """One fit while it runs: the wrapped model, optimiser, average, and where it stands."""

    def __init__(self, fit: Fit, loop: Loop, world: World, run: Path, seed: int) -> None:
        self.fit, self.loop, self.world, self.seed = fit, loop, world, seed
        self.folder = run / "checkpoints" / fit.name
        fit.model.to(world.device)
        self.optimizer = optim.build(fit.model, fit.optim, fit.groups)
        self.average: AveragedModel | None = None
        if loop.ema:
            self.average = AveragedModel(
                fit.model, multi_avg_fn=get_ema_multi_avg_fn(loop.ema), use_buffers=False
            )
        self.wrapped: nn.Module = fit.model
        if world.size > 1 and not fit.parallel:
            ids = [world.device.index] if world.device.type == "cuda" else None
            self.wrapped = DistributedDataParallel(
                fit.model,
                device_ids=ids,
                gradient_as_bucket_view=True,
                find_unused_parameters=fit.alternates,
            )
        self.step = 0
        self.best: dict[str, Any] = {}
        self.seconds = 0.0
        self.signum = 0

    def weights(self, name: str) -> Path:
        """Where the weights "best" or "final" lie: a file, or a folder for a divided model."""
        return self.folder / (name if self.fit.parallel else f"{name}.safetensors")

    def write_weights(self, name: str, module: nn.Module) -> None:
        """Write weights as "best" or "final"; all processes call it."""
        if self.fit.parallel:
            checkpoint.write_parts(self.weights(name), self.parts(module), self.world)
        elif self.world.is_first:
            checkpoint.write_tensors(self.weights(name), module.state_dict())

    def read_weights(self, name: str) -> None:
        """Take the weights written as "best" or "final"."""
        module = self.fit.model
        if self.fit.parallel:
            checkpoint.read_parts(self.weights(name), self.parts(module), self.world)
        else:
            module.load_state_dict(checkpoint.read_tensors(self.weights(name)))

    def parts(self, module: nn.Module, prefix: str = "") -> dict[str, torch.Tensor]:
        """A divided model's tensors by their keys in the whole, sharing memory."""
        assert self.fit.parallel
        named = module.state_dict(keep_vars=False).items()
        return {prefix + key: t for key, t in (self.fit.parallel(n, t) for n, t in named)}

    def all_parts(self) -> dict[str, torch.Tensor]:
        """What a checkpoint of a divided model holds: weights, optimiser state, average."""
        if not self.fit.parallel:
            return {}
        found = self.parts(self.fit.model, "model.")
        if self.average is not None:
            found |= self.parts(self.average.module, "average.")
        names: dict[torch.Tensor, str]
        names = {p: name for name, p in self.fit.model.named_parameters()}
        for parameter, slots in self.optimizer.state.items():
            for slot, value in slots.items():
                key, tensor = self.fit.parallel(names[parameter], value)
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
        return {name: value.state_dict() for name, value in self.fit.state.items()}

    def load_more(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            self.fit.state[name].load_state_dict(value)

    @property
    def evaluated(self) -> nn.Module:
        """The weights that count: the average if there is one."""
        return self.fit.model if self.average is None else self.average.module

    def state(self) -> dict[str, Any]:
        """What all processes have alike."""
        found = {
            "step": self.step,
            "seconds": self.seconds,
            "best": self.best,
            "more": self.more(),
            "averaged": None if self.average is None else self.average.n_averaged,
        }
        if not self.fit.parallel:
            found["model"] = self.fit.model.state_dict()
            found["optimizer"] = self.optimizer.state_dict()
            found["average"] = None if self.average is None else self.average.module.state_dict()
        return found

    def save(self) -> None:
        checkpoint.save(self.folder, self.step, self.state(), self.all_parts(), self.world)

    def resume(self) -> None:
        found = checkpoint.load(self.folder)
        if found is None:
            return
        path, state = found
        self.step, self.seconds, self.best = state["step"], state["seconds"], state["best"]
        if self.average is not None:
            self.average.n_averaged.copy_(state["averaged"])
        if self.fit.parallel:
            self.make_optimizer_state()
            checkpoint.read_parts(path, self.all_parts(), self.world)
        else:
            self.fit.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            if self.average is not None:
                self.average.module.load_state_dict(state["average"])
        self.load_more(state["more"])

    def train_step(
        self, batches: Iterator[Batch], stop: _StopFlag
    ) -> tuple[dict[str, float], float]:
        """Forward and backward of all micro-batches, then one optimiser step.

        Returns the mean losses and the gradient norm; raises NonFinite on every process if any
        process sees a non-finite value, before the weights are touched.
        """
        fit, loop = self.fit, self.loop
        watch.at(f"step {self.step} of stage {fit.name!r}")
        seed_everything(self.seed, fit.name, self.step, self.world.rank)
        fit.model.train()
        fit.model.zero_grad(set_to_none=True)  # the optimiser may have a share of them only
        sums: dict[str, float] = {}
        batch: Batch = None
        # a divided model gets all micro-batches at once: a pipeline needs them
        drives = 1 if fit.parallel else loop.accumulate
        for drive in range(drives):
            batch = to_device(self._taken(batches), self.world.device)
            waits = drive + 1 < drives and isinstance(self.wrapped, DistributedDataParallel)
            with contextlib.ExitStack() as stack:
                if waits:
                    stack.enter_context(self.wrapped.no_sync())  # type: ignore[operator]
                if loop.amp == "bf16":
                    stack.enter_context(torch.autocast(self.world.device.type, torch.bfloat16))
                losses = fit.drive(self.wrapped, batch, self._backward)
            for key, value in _scalars(losses).items():
                sums[key] = sums.get(key, 0.0) + value / drives
        parameters = [p for p in fit.model.parameters() if p.grad is not None]
        norm = self._gradient_norm(parameters)
        bad = not all(abs(v) < float("inf") for v in [*sums.values(), norm])
        anyone_bad, self.signum = self.world.largest([int(bad), stop.signum])
        if anyone_bad:
            where = _culprit(fit, batch, sums, norm) if bad else ""
            seen = self.world.gather([where, sums, norm])
            raise NonFinite(
                f"stage {fit.name!r}, step {self.step}, {_blamed(seen)}. "
                "The last checkpoint is untouched."
            )
        if fit.optim.clip and norm > fit.optim.clip:
            gradients = [p.grad for p in parameters if p.grad is not None]
            torch._foreach_mul_(gradients, fit.optim.clip / (norm + 1e-6))
        self.optimizer.step()
        fit.after_step(self.step)
        if self.average is not None:
            self.average.update_parameters(fit.model)
        self.step += 1
        return sums, norm

    def _taken(self, batches: Iterator[Batch]) -> Batch:
        if self.fit.parallel:
            return [next(batches) for _ in range(self.loop.accumulate)]
        return next(batches)

    def _backward(self, loss: torch.Tensor) -> None:
        (loss / self.loop.accumulate).backward()

    def _gradient_norm(self, parameters: list[nn.Parameter]) -> float:
        """Norm over all parameters; over all processes' parts where the stage is parallel."""
        if self.fit.parallel:
            own = getattr(self.fit.model, "gradient_norm", None)
            if own is not None:
                return float(own())
        gradients = [p.grad for p in parameters if p.grad is not None]
        return float(torch.nn.utils.get_total_norm(gradients)) if gradients else 0.0


def _validate(stage: _Stage, log: MetricsLog) -> None:
    fit = stage.fit
    if fit.validate is None:
        return
    module = stage.evaluated
    module.eval()
    with torch.no_grad():
        values = fit.validate(module)
    log.add(fit.name, stage.step, "validation", values)
    if not fit.watch:
        return
    if fit.watch not in values:
        raise ValueError(
            f"stage {fit.name!r} watches {fit.watch!r}, but validation gave {sorted(values)}"
        )
    value, sign = values[fit.watch], 1 if fit.better == "lower" else -1
    if not stage.best or sign * value < sign * stage.best["value"]:
        stage.best = {"step": stage.step, "metric": fit.watch, "value": value}
        stage.write_weights("best", module)


def _finish(stage: _Stage) -> None:
    """Write the weights that count and what is kept beside them, load both, drop checkpoints."""
    fit, folder, world = stage.fit, stage.folder, stage.world
    world.barrier(patient=True)  # best weights are written
    if stage.best:
        stage.read_weights("best")
    stage.write_weights("final", fit.model if stage.best else stage.evaluated)
    if world.is_first:
        checkpoint.write_state(folder / "final.pt", stage.more())
        account = {"name": fit.name, "steps": stage.step, "seconds": round(stage.seconds, 2)}
        checkpoint.write_json(folder / "done.json", {**account, "best": stage.best or None})
    world.barrier(patient=True)
    _load_final(stage)
    world.barrier(patient=True)
    if world.is_first:
        for old in checkpoint.complete(folder):
            checkpoint.remove(old)
        best = stage.weights("best")
        if best.exists():
            checkpoint.remove(best)


def _load_final(stage: _Stage) -> None:
    """Leave a finished stage as it was at its end, teachers and the like included."""
    stage.read_weights("final")
    stage.fit.model.to(stage.world.device)
    stage.load_more(checkpoint.read_state(stage.folder / "final.pt"))


def train_stage(
    fit: Fit, loop: Loop, world: World, run: Path, seed: int, log: MetricsLog, known: list[str],
    stop: _StopFlag,
) -> None:  # fmt: skip
    """Train one stage to its end, from its newest checkpoint if there is one."""
    stage = _Stage(fit, loop, world, run, seed)
    if (stage.folder / "done.json").exists():
        _load_final(stage)
        return
    stage.resume()
    if world.is_first:
        log.rewind(fit.name, stage.step, known)
    batches = prefetched(
        fit.batches, stage.step * loop.accumulate, fit.steps * loop.accumulate, loop.workers
    )
    bar = Bar(fit.name, fit.steps, stage.step, world.is_first)
    began = time.monotonic() - stage.seconds
    try:
        while stage.step < fit.steps:
            lr = optim.set_lr(stage.optimizer, fit.optim, stage.step, fit.steps)
            losses, norm = stage.train_step(batches, stop)
            stage.seconds = time.monotonic() - began
            last = stage.step == fit.steps
            if stage.step % loop.log_every == 0 or last or stage.step == 1:
                rounded = round(stage.seconds, 3)
                losses = losses if fit.parallel else world.mean(losses)
                values = {**losses, "lr": lr, "grad_norm": norm, "seconds": rounded}
                log.add(fit.name, stage.step, "train", values)
            if (loop.validate_every and stage.step % loop.validate_every == 0) or last:
                _validate(stage, log)
            bar.update(stage.step, f"loss {losses.get('loss', float('nan')):.4g}")
            if (stage.step % loop.save_every == 0 and not last) or stage.signum:
                stage.save()
            if stage.signum:
                raise Stopped(stage.signum, fit.name, stage.step)
    finally:
        bar.close()
        batches.close()
    _finish(stage)


def train(
    fits: Iterator[Fit], loop: Loop, world: World, run: Path, seed: int
) -> list[dict[str, Any]]:
    """Train every stage in order and return their accounts (name, steps, seconds, best)."""
    if loop.threads:
        torch.set_num_threads(loop.threads)
    log = MetricsLog(run / "metrics.jsonl", world.is_first)
    accounts: list[dict[str, Any]] = []
    with _StopFlag().listening() as stop:
        for fit in fits:
            known = [a["name"] for a in accounts]
            if fit.name in known:
                raise ValueError(f"two stages are named {fit.name!r}")
            train_stage(fit, loop, world, run, seed, log, known, stop)
            accounts.append(checkpoint.read_json(run / "checkpoints" / fit.name / "done.json"))
    return accounts
