"""A stage while it runs: what it keeps, its checkpoints, and its end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from tenfold.files import sum_of

from . import checkpoint, compiled
from .diagnose import NonFinite, harm_of_last_step
from .saver import Saver
from .stage import Batch
from .step import Stepper


class Running:
    """One stage while it runs: model, optimiser, average, and where it stands."""

    def __init__(self, stepper: Stepper, run: Path, ema: float, async_save: bool = False) -> None:
        self.stepper, self.stage, self.world = stepper, stepper.stage, stepper.world
        self.optimizer, self.scaler = stepper.optimizer, stepper.scaler
        self.folder = run / "checkpoints" / self.stage.name
        self.saver = Saver(self.folder, self.world, async_save)
        self.average: AveragedModel | None = None
        if ema:
            self.average = AveragedModel(
                self.stage.model, multi_avg_fn=get_ema_multi_avg_fn(ema), use_buffers=False
            )
        self.step = 0
        self.best: dict[str, Any] = {}
        self.saved_best = self.weights("best")
        """The best weights of the last checkpoint."""
        self.seconds = 0.0

    def weights(self, name: str) -> Path:
        """Return the path of weights "best" or "final": a file, or a divided model's folder.

        The best have their step in the name: the last checkpoint's record may be of older ones.
        """
        if name == "best" and self.best:
            name += f"-{self.best['step']:09d}"
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
        """Restore what the stage keeps besides its model."""
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
            "scaler": None if self.scaler is None else self.scaler.state_dict(),
        }
        if not self.stage.parallel:
            found["model"] = self.stage.model.state_dict()
            found["optimizer"] = self.optimizer.state_dict()
            found["average"] = None if self.average is None else self.average.module.state_dict()
        return found

    def save(self) -> None:
        """Write a checkpoint, but never one of steps that are not known to be finite."""
        self.stepper.settle()
        self.saver.save(self.step, self.state(), self.all_parts())
        best = self.weights("best")
        # what is written behind may never be whole: then the checkpoint before it counts
        self.drop_best({best, self.saved_best} if self.saver.behind else {best})
        self.saved_best = best

    def drop_best(self, needed: set[Path]) -> None:
        """Delete weights that were the best at some step, but for those that are needed."""
        kept = {path.name for file in needed for path in (file, sum_of(file))}
        for old in sorted(self.folder.glob("best*")) if self.world.is_first else ():
            if old.name not in kept and old.suffix != ".tmp":
                checkpoint.remove(old)

    def resume(self) -> None:
        """Go on from the newest checkpoint, if there is one."""
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
        unnamed = self.weights("best")
        self.step, self.seconds, self.best = state["step"], state["seconds"], state["best"]
        self.saved_best = self.weights("best")
        if self.world.is_first and unnamed.exists() and not self.saved_best.exists():
            unnamed.rename(self.saved_best)  # version 1.0.0 gave them no step
            if sum_of(unnamed).exists():
                sum_of(unnamed).rename(sum_of(self.saved_best))
        if self.average is not None:
            self.average.n_averaged.copy_(state["averaged"])
        if self.scaler is not None:
            self.scaler.load_state_dict(state["scaler"])
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
        self.best = found[1]["best"]
        if self.best:  # which the final weights are
            self.read_weights("final")
            self.write_weights("best", self.stage.model)
        self.world.barrier(patient=True)
        if self.world.is_first:
            (self.folder / "done.json").unlink()
        self.world.barrier()

    def train_step(self, batches: Iterator[Batch], signum: Callable[[], int]) -> None:
        """One step on the next micro-batches; raises NonFinite as `Stepper.make` does."""
        self.stepper.make(self.step, batches, signum)
        self.stage.after_step(self.step)
        if self.average is not None:
            self.average.update_parameters(self.stage.model)
        self.step += 1

    def require_unharmed(self) -> None:
        """Raise NonFinite on every process if the last step, which is behind us, diverged."""
        found = self.world.gather(harm_of_last_step(self.stage, self.stepper.batch))
        if any(found):
            rank = next(rank for rank, text in enumerate(found) if text)
            raise NonFinite(
                f"stage {self.stage.name!r}, after its last step ({self.step - 1}), process "
                f"{rank}: {found[rank]}; lower optim.lr or set optim.clip. "
                "The last checkpoint is untouched."
            )


def finish(running: Running) -> None:
    """Write the weights that count and what is kept beside them, load both, drop checkpoints."""
    stage, folder, world = running.stage, running.folder, running.world
    world.barrier(patient=True)  # best weights are written
    if running.best:
        running.read_weights("best")
    running.write_weights("final", stage.model if running.best else running.evaluated)
    if world.is_first:
        checkpoint.write_state(folder / "final.pt", running.more())
        account = {"name": stage.name, "steps": running.step, "seconds": round(running.seconds, 2)}
        if running.scaler is not None:
            account["skipped"] = int(running.scaler.skipped)
        if running.stepper.is_compiled:
            account["compiled"] = compiled.BACKEND
        checkpoint.write_json(folder / "done.json", {**account, "best": running.best or None})
    world.barrier(patient=True)
    load_final(running)
    world.barrier(patient=True)
    drop_checkpoints(running)


def drop_checkpoints(running: Running) -> None:
    """Delete what a finished stage needs no more: the last state lets the run get more steps."""
    if not running.world.is_first:
        return
    for old in checkpoint.complete(running.folder)[:-1]:
        checkpoint.remove(old)
    running.drop_best(set())


def load_final(running: Running) -> None:
    """Leave a finished stage as it was at its end, teachers and the like included."""
    running.read_weights("final")
    running.stage.model.to(running.world.device)
    running.load_more(checkpoint.read_state(running.folder / "final.pt"))
