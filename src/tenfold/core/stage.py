"""One gradient-trained stage: what the loop needs to train it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import Tensor, nn

from .optim import Groups, Optim, decay_groups
from .pace import Work

Batch = Any


Losses = Mapping[str, Tensor]


Backward = Callable[[Tensor], None]


Shard = Callable[[str, Tensor], tuple[str, Tensor]]
"""(name in this process's model, its tensor) -> (key in the whole model, DTensor or plain tensor).
The result shares memory with the tensor; a plain one is the same wherever its key is."""


def nothing(step: int) -> None:
    """Do nothing after a step."""


def forward_backward(model: nn.Module, batch: Batch, backward: Backward) -> Losses:
    """The ordinary step: one forward, one backward of `loss`."""
    losses: Losses = model(batch)
    backward(losses["loss"])
    return losses


@dataclass
class Stage:
    """One gradient-trained stage."""

    name: str
    """File name of its checkpoint: "base", "session-3", "teacher"."""
    model: nn.Module
    """model(batch) -> {"loss": scalar, "loss/kl": scalar, ...}"""
    batches: Callable[[int], Batch]
    """index -> this process's micro-batch; a pure function of (seed, index, rank). With
    accumulation, step s uses indices s * accumulate .. s * accumulate + accumulate - 1."""
    steps: int
    optim: Optim
    groups: Callable[[nn.Module], Groups] = decay_groups
    """Parameter groups; a group may carry `lr_scale`."""
    after_step: Callable[[int], None] = nothing
    """Called after each optimiser step, before the weights' average: EMA teachers, schedules that
    are not a learning rate, parameters that another process updated."""
    training_step: Callable[[nn.Module, Batch, Backward], Losses] = forward_backward
    """Own forward and backward: a pipeline schedule, or models that alternate. It calls
    `backward(loss)` as often as it likes, or lets a schedule do so; it returns what to log."""
    parallel: Shard | None = None
    """For a model that is divided among processes and communicates by itself: says which part of
    the whole a tensor is. The loop then wraps nothing, hands `training_step` the list of all
    micro-batches of a step, and takes gradients and losses as complete; the checkpoint fits any
    division."""
    scaled: Callable[[Tensor], None] | None = None
    """For a stage that is parallel, told before a step what its loss is to be multiplied by before
    it runs backward (a scalar on the device; fp16)."""
    compiles: Callable[[Callable[[nn.Module], nn.Module]], None] | None = None
    """For a `training_step` that does not call the model it is given: uses, in training, what the
    function makes of the modules that it does call (`loop.compile`)."""
    independent: bool = False
    """Uses nothing that an earlier stage learned: it goes on where that one got more steps, while
    other stages start over."""
    alternates: bool = False
    """Some parameters get no gradient in some steps: models that take turns."""
    state: Mapping[str, Any] = field(default_factory=dict)
    """More to save and restore: name -> object with state_dict and load_state_dict (teachers)."""
    validate: Callable[[nn.Module], dict[str, float]] | None = None
    """Metrics on held-out data (never the test split); every process computes all of them."""
    monitor: str = ""
    """Metric of `validate` that decides which weights are best; empty keeps the last."""
    better: Literal["lower", "higher"] = "lower"
    work: Work | None = None
    """Work of a step: bar, log and page then say how much of it is done a second."""
