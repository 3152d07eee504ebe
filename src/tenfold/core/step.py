"""One training step: forward and backward, what must be finite, and the update of the weights."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from . import optim, watchdog
from .compiled import compiled, failures_named
from .diagnose import NonFinite, blamed, culprit
from .dist import World, local
from .precision import Amp, settled
from .prefetch import Copies
from .scaler import LEAST, Scaler
from .seed import seed_everything
from .stage import Batch, Stage

READ_FIRST = ("cpu",)
"""Kinds of device where the host reads each step before the weights are touched. Others would wait
for it: there a step that is not finite changes nothing, and the host reads of it during the
next."""
KINDS = {"bf16": torch.bfloat16, "fp16": torch.float16}
"""Types of autocast."""


@dataclass(frozen=True)
class Seen:
    """Values of one step, on the host."""

    losses: dict[str, float]
    """Means over the micro-batches of this process."""
    norm: float
    """Norm of the gradient before clipping."""
    is_bad: bool
    """Whether this process saw a value that is not finite."""
    anyone_bad: bool
    signum: int
    """Signal on which all processes are to stop; 0 for none."""
    scale: float = 1.0
    """Scale of the loss from the next step on (fp16)."""
    skipped: int = 0
    """Steps skipped so far, since their gradients overflowed (fp16)."""


class Values:
    """Values of one step on the device, which begin their way to the host at once."""

    def __init__(
        self, step: int, batches: list[Batch], losses: dict[str, Tensor], norm: Tensor,
        flags: list[Tensor],
    ) -> None:  # fmt: skip
        self.step, self.batches, self.norm = step, batches, norm
        self.names = tuple(losses)
        _, self.bad, self.overflow, *_ = flags
        """Whether any process saw what is not finite, and whether gradients overflowed."""
        self.host = torch.stack([*losses.values(), norm, *(flag.double() for flag in flags)])
        self.event: torch.cuda.Event | None = None
        if self.host.is_cuda:
            pinned = torch.empty(self.host.shape, dtype=self.host.dtype, pin_memory=True)
            self.host = pinned.copy_(self.host, non_blocking=True)
            self.event = torch.cuda.Event(blocking=True)
            self.event.record()

    def read(self) -> Seen:
        """Wait until the device has made the step, and not for what it was given since."""
        if self.event is not None:
            with watchdog.reading(f"step {self.step}"):
                self.event.synchronize()
        *losses, norm, is_bad, anyone_bad, _, signum, scale, skipped = self.host.tolist()
        named = dict(zip(self.names, losses, strict=True))
        return Seen(named, norm, bool(is_bad), bool(anyone_bad), int(signum), scale, int(skipped))


class Stepper:
    """Makes the steps of one stage."""

    def __init__(
        self, stage: Stage, world: World, seed: int, accumulate: int = 1, amp: Amp = "off"
    ) -> None:
        self.stage, self.world, self.seed = stage, world, seed
        self.accumulate, self.amp = accumulate, settled(amp, world.device)
        stage.model.to(world.device)
        self.optimizer = optim.build(stage.model, stage.optim, stage.groups)
        self.wrapped: nn.Module = stage.model
        if world.size > 1 and not stage.parallel:
            ids = [world.device.index] if world.device.type == "cuda" else None
            self.wrapped = DistributedDataParallel(
                stage.model,
                device_ids=ids,
                gradient_as_bucket_view=True,
                find_unused_parameters=stage.alternates,
            )
        self.copied = Copies(world.device)
        self.scaler = Scaler(world.device) if amp == "fp16" else None
        if self.scaler is not None and stage.parallel and stage.scaled is None:
            raise ValueError(
                f"stage {stage.name!r} cannot scale its loss, which fp16 needs; use --loop.amp bf16"
            )
        self.is_compiled = False
        self.reads_first = world.device.type in READ_FIRST
        self.stuck = torch.zeros((), dtype=torch.bool, device=world.device)
        """Whether a step was not finite: nothing changes after it."""
        self.waiting: Values | None = None
        """A step that was made and not read."""
        self.batch: Batch = None
        """The last (micro-)batch that was trained on."""
        self.seen = Seen({}, 0.0, False, False, 0)
        """The last step that was read."""

    def compile(self) -> None:
        """Have torch compile what each step from now on runs."""
        self.is_compiled = True
        if self.stage.compiles is not None:
            self.stage.compiles(compiled)
        elif isinstance(self.wrapped, DistributedDataParallel):
            self.wrapped.module = compiled(self.stage.model)
        else:
            self.wrapped = compiled(self.stage.model)

    def make(self, step: int, batches: Iterator[Batch], signum: Callable[[], int]) -> None:
        """Forward and backward of the next micro-batches, then one optimiser step.

        `signum` gives the signal that asks this process to stop, or 0.

        Raises NonFinite on every process if any process sees a value that is not finite: before
        the weights are touched, or, where the host reads later, in the next step at the latest.
        """
        values = self._computed(step, self._taken(batches), signum)
        if self.reads_first:
            self._read(values)
            self._update(values)
        else:
            self._update(values)
            earlier, self.waiting = self.waiting, values
            if earlier is not None:
                self._read(earlier)

    def logged(self) -> dict[str, float]:
        """What the log says of the last step that was read, besides its losses."""
        seen, found = self.seen, {}
        if math.isfinite(seen.norm):  # it is not where fp16 overflowed
            found["grad_norm"] = seen.norm
        if self.scaler is not None:
            found |= {"fp16/scale": seen.scale, "fp16/skipped": seen.skipped}
        return found

    def settle(self) -> None:
        """Read what was not read yet; raises NonFinite as `make` does."""
        values, self.waiting = self.waiting, None
        if values is not None:
            self._read(values)

    def _computed(self, step: int, batches: Iterable[Batch], signum: Callable[[], int]) -> Values:
        """Gradients of a step, complete on every process, and its values."""
        stage = self.stage
        watchdog.at(f"step {step} of stage {stage.name!r}")
        seed_everything(self.seed, stage.name, step, self.world.rank)
        stage.model.train()
        stage.model.zero_grad(set_to_none=True)  # the optimiser may have a share of them only
        num_parts = 1 if stage.parallel else self.accumulate
        sums: dict[str, Tensor] = {}
        kept: list[Batch] = []
        if self.scaler is not None and stage.scaled is not None:
            stage.scaled(self.scaler.scale)
        for part, batch in enumerate(batches):
            self.batch = batch
            if not self.reads_first:
                kept.append(self.batch)
            for key, value in self._forward_backward(part + 1 < num_parts).items():
                # in double precision, as the host would add
                own = value.detach().to(self.world.device, torch.float64) / num_parts
                sums[key] = sums[key] + own if key in sums else own
        if self.scaler is not None:
            self.scaler.unscale(self._gradients)
        norm = self._norm()
        flags = self._flags(list(sums.values()), norm, signum())
        return Values(step, kept, sums, norm, flags)

    def _flags(self, losses: list[Tensor], norm: Tensor, signum: int) -> list[Tensor]:
        """Own and agreed findings, as in `Seen`."""
        bad = ~torch.isfinite(torch.stack([*losses, norm])).all()
        overflow = torch.zeros_like(bad)
        if self.scaler is not None:
            overflow = bad & (self.scaler.scale >= LEAST)
            for loss in losses:  # which is not scaled
                overflow = overflow & torch.isfinite(loss)
            bad = bad & ~overflow
        signal = torch.full_like(norm, signum)  # filled in there; a copy would be waited for
        agreed = self.world.maximum(torch.stack([bad.double(), overflow.double(), signal]))
        any_bad, any_overflow, signal = agreed.unbind()
        if self.scaler is None:
            return [bad, any_bad, any_overflow, signal, torch.ones_like(norm), signal * 0]
        self.scaler.update(any_overflow > 0)
        return [bad, any_bad, any_overflow, signal, self.scaler.scale, self.scaler.skipped]

    def _taken(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """The micro-batches of a step, on the device."""
        if self.stage.parallel:  # a pipeline needs them at once
            yield self.copied([next(batches) for _ in range(self.accumulate)])
            return
        for _ in range(self.accumulate):
            yield self.copied(next(batches))

    def _forward_backward(self, is_followed: bool) -> dict[str, Tensor]:
        with contextlib.ExitStack() as stack:
            if is_followed and isinstance(self.wrapped, DistributedDataParallel):
                stack.enter_context(self.wrapped.no_sync())
            if self.amp in KINDS:
                stack.enter_context(torch.autocast(self.world.device.type, KINDS[self.amp]))
            if self.is_compiled:
                stack.enter_context(failures_named(self.stage.name))
            return dict(self.stage.training_step(self.wrapped, self.batch, self._backward))

    def _backward(self, loss: Tensor) -> None:
        loss = loss / self.accumulate
        (loss if self.scaler is None else loss * self.scaler.scale).backward()

    @property
    def _gradients(self) -> list[Tensor]:
        return [local(p.grad) for p in self.stage.model.parameters() if p.grad is not None]

    def _norm(self) -> Tensor:
        """Norm over all parameters; over all processes' parts where the stage is parallel."""
        own = getattr(self.stage.model, "gradient_norm", None)
        if self.stage.parallel and own is not None:
            return own().to(torch.float64)
        if not (gradients := self._gradients):
            return torch.zeros((), dtype=torch.float64, device=self.world.device)
        return torch.nn.utils.get_total_norm(gradients).to(torch.float64)

    def _update(self, values: Values) -> None:
        """Clip and step, where nothing speaks against it."""
        clip, gradients = self.stage.optim.clip, self._gradients
        if clip and gradients and (not self.reads_first or self.seen.norm > clip):
            factor = torch.where(values.norm > clip, clip / (values.norm + 1e-6), 1.0)
            torch._foreach_mul_(gradients, factor.to(gradients[0].dtype))
        if self.reads_first and self.scaler is None:
            self.optimizer.step()
            return
        self.stuck = self.stuck | (values.bad > 0)
        masked_step(self.optimizer, self.stuck | (values.overflow > 0))

    def _read(self, values: Values) -> None:
        self.seen = values.read()
        if self.seen.anyone_bad:
            raise self._diverged(values)

    def _diverged(self, values: Values) -> NonFinite:
        """Find the error that names the culprits of all processes."""
        seen = self.seen
        if not self.reads_first:  # its gradients are gone; the weights are as they were then
            self._computed(values.step, values.batches, lambda: 0)
        where = culprit(self.stage, self.batch, seen.losses, seen.norm) if seen.is_bad else ""
        found = self.world.gather([where, seen.losses, seen.norm])
        hint = " fp16 ends at 65504: try --loop.amp bf16." if self.amp == "fp16" else ""
        return NonFinite(
            f"stage {self.stage.name!r}, step {values.step}, {blamed(found)}. "
            f"The last checkpoint is untouched.{hint}"
        )


@torch.no_grad()
def masked_step(optimizer: torch.optim.Optimizer, skip: Tensor) -> None:
    """One step of an optimiser that changes nothing where `skip`, on the device, is true.

    torch's fused optimisers can do so; of others, and where processes hold parts of tensors,
    weights and state are copied before. State that the step would have begun is zero after it.
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    is_whole = all(local(p) is p for p in parameters)
    if is_whole and all(group.get("fused") for group in optimizer.param_groups):
        optimizer.found_inf = skip.float()  # type: ignore[attr-defined]
        optimizer.step()
        return
    before = {t: local(t).clone() for t in _changed_by(optimizer)}
    optimizer.step()
    for t in _changed_by(optimizer):
        own = local(t)
        torch.where(skip, before[t] if t in before else torch.zeros_like(own), own, out=own)


def _changed_by(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    """Weights that have a gradient, and tensors of the optimiser's state."""
    weights = [p for g in optimizer.param_groups for p in g["params"] if p.grad is not None]
    slots: list[Any] = [v for state in optimizer.state.values() for v in state.values()]
    return weights + [v for v in slots if isinstance(v, Tensor)]
