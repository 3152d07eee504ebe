"""Steps that the host reads during the next one, as it does of a GPU, equal those of a CPU.

And fp16, and steps that torch compiles.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tenfold.core import checkpoint, compiled, dist, loop, scaler, step
from tenfold.core.optim import Optim
from tenfold.core.seed import generator
from tenfold.core.stage import Stage

HERE = dist.World(0, 1, torch.device("cpu"))
LOOP = loop.Loop(accumulate=2, ema=0.9, workers=2, save_every=4, log_every=3, validate_every=5)
ADAM = Optim("adamw", lr=0.01, weight_decay=0.1, clip=0.3, schedule="cosine")
SGD = Optim("sgd", lr=0.05, clip=0.3, nesterov=True)
TERMS = ("loss", "loss/abs")


class Turns(torch.nn.Module):
    """Two networks with dropout and a norm, of which one has its turn."""

    def __init__(self) -> None:
        super().__init__()

        def network() -> torch.nn.Module:
            parts = [torch.nn.Linear(4, 8), torch.nn.BatchNorm1d(8), torch.nn.Dropout(0.3)]
            return torch.nn.Sequential(*parts, torch.nn.Linear(8, 2))

        self.networks = torch.nn.ModuleList([network(), network()])

    def forward(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        error = self.networks[int(batch["turn"])](batch["x"]) - batch["y"]
        return {"loss": error.square().mean(), "loss/abs": error.abs().mean()}


def twice(model, batch, backward):
    """A step of its own, with two backward passes."""
    losses = model(batch)
    backward(losses["loss"] * 0.5)
    backward(model({**batch, "x": 2 * batch["x"]})["loss"])
    return losses


def batches(bad: int = -1) -> Callable[[int], dict[str, torch.Tensor]]:
    """Batches of which one holds a NaN."""

    def batch(index: int) -> dict[str, torch.Tensor]:
        x = torch.randn(6, 4, generator=generator("x", index))
        y = x[:, :2].sin()
        x[3, 0] = float("nan") if index == bad else x[3, 0]
        return {"x": x, "y": y, "turn": torch.tensor(index // LOOP.accumulate % 2)}

    return batch


def stage(optim: Optim, bad: int = -1, **more: Any) -> Stage:
    torch.manual_seed(0)
    return Stage("turns", Turns(), batches(bad), 13, optim, alternates=True, **more)


def lines(run: Path) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k != "seconds"} for line in found]


def equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def test_scale_and_skips_equal_torchs_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Overflows at drawn steps; the scale grows after three good ones."""
    monkeypatch.setattr(scaler, "PATIENCE", 3)
    ours, theirs = scaler.Scaler(HERE.device), torch.amp.GradScaler("cpu", growth_interval=3)
    weight = torch.nn.Parameter(torch.ones(4))
    sgd = torch.optim.SGD([weight])
    skipped = 0
    for bad in torch.rand(40, generator=generator("overflow")) < 0.3:
        grad = torch.full((4,), float("inf") if bad else 1.0)
        weight.grad = theirs.scale(grad)
        own = ours.scale * grad
        theirs.unscale_(sgd)
        ours.unscale([own])
        assert torch.equal(own, weight.grad)
        theirs.step(sgd)
        theirs.update()
        ours.update(bad)
        skipped += int(bad)
        assert float(ours.scale) == theirs.get_scale()
    assert int(ours.skipped) == skipped > 5


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("optim", [ADAM, SGD], ids=["fused", "copied"])
def test_fp16_skips_counts_and_resumes(
    optim: Optim, late: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its first scales are too large; killed in between, it goes on with the scale it had."""
    monkeypatch.setattr(scaler, "FIRST", 2.0**22)
    if late:
        monkeypatch.setattr(step, "READ_FIRST", ())
    settings = replace(LOOP, amp="fp16", log_every=1, validate_every=0)
    whole = stage(optim)
    (account,) = loop.train(iter([whole]), settings, HERE, tmp_path / "whole", 0)

    def kill(done: int) -> None:
        if done == 5:
            raise Killed

    with pytest.raises(Killed):
        killed = stage(optim, after_step=kill)
        loop.train(iter([killed]), settings, HERE, tmp_path / "killed", 0)
    resumed = stage(optim)
    loop.train(iter([resumed]), settings, HERE, tmp_path / "killed", 0)
    assert equal(whole.model.state_dict(), resumed.model.state_dict())
    said = lines(tmp_path / "whole")
    assert said == lines(tmp_path / "killed")
    skipped = [line for line in said if "grad_norm" not in line]
    assert 0 < len(skipped) < 10 and account["skipped"] == len(skipped)
    assert [line["fp16/skipped"] for line in said][-1] == len(skipped)
    assert said[0]["fp16/scale"] == 2.0**21
    assert {p.dtype for p in whole.model.parameters()} == {torch.float32}


def test_fp16_gradients_are_those_of_fp32(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Clipping sees them unscaled."""
    monkeypatch.setattr(scaler, "FIRST", 2.0**8)
    found = []
    for amp in ("off", "fp16"):
        own = stage(ADAM)
        loop.train(iter([own]), replace(LOOP, amp=amp, log_every=1), HERE, tmp_path / amp, 0)
        found.append([line["grad_norm"] for line in lines(tmp_path / amp)[:-1]])
    assert found[1] == pytest.approx(found[0], rel=0.05)


def test_a_loss_beyond_fp16_stops_with_a_way_out(tmp_path: Path) -> None:
    """The loss is not scaled, so that no scale would help."""
    own = stage(ADAM)
    with torch.no_grad():
        own.model.networks[0][3].weight.fill_(1e5)
    with pytest.raises(loop.NonFinite, match="step 0.*--loop.amp bf16"):
        loop.train(iter([own]), replace(LOOP, amp="fp16"), HERE, tmp_path, 0)


class Killed(Exception):
    pass


@pytest.mark.parametrize("own_step", [{}, {"training_step": twice}], ids=["plain", "own"])
@pytest.mark.parametrize("optim", [ADAM, SGD], ids=["fused", "copied"])
def test_late_equals_first_and_resumes(
    optim: Optim, own_step, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bit for bit: accumulation, clipping, dropout, turns, average; lines of the log, too."""
    first = stage(optim, **own_step)
    loop.train(iter([first]), LOOP, HERE, tmp_path / "first", 0)
    monkeypatch.setattr(step, "READ_FIRST", ())
    late = stage(optim, **own_step)
    loop.train(iter([late]), LOOP, HERE, tmp_path / "late", 0)
    assert equal(first.model.state_dict(), late.model.state_dict())
    assert lines(tmp_path / "first") == lines(tmp_path / "late")

    def kill(done: int) -> None:
        if done == 9:
            raise Killed

    killed = stage(optim, after_step=kill, **own_step)
    with pytest.raises(Killed):
        loop.train(iter([killed]), LOOP, HERE, tmp_path / "killed", 0)
    resumed = stage(optim, **own_step)
    loop.train(iter([resumed]), LOOP, HERE, tmp_path / "killed", 0)
    assert equal(first.model.state_dict(), resumed.model.state_dict())
    assert lines(tmp_path / "first") == lines(tmp_path / "killed")


def diverged(optim: Optim, run: Path, where: str) -> tuple[str, dict[str, torch.Tensor], Stage]:
    """The message of a run with a NaN in step 7, and its weights after step 6."""
    before: dict[str, torch.Tensor] = {}

    def keep(done: int) -> None:
        if done == 6:
            before.update({k: v.detach().clone() for k, v in own.model.named_parameters()})

    def spoil(model, batch, backward):
        if where == "gradient" and seen(batch):
            model.networks[1][0].weight.register_hook(lambda grad: grad * float("inf"))
        losses = model(batch)
        backward(losses["loss"])
        return losses

    def seen(batch: dict[str, torch.Tensor]) -> bool:
        return torch.equal(batch["y"], batches()(14)["y"])

    bad = {"input": 15, "gradient": -1}[where]
    own = stage(optim, bad, after_step=keep, training_step=spoil)
    settings = replace(LOOP, log_every=50, validate_every=0)
    with pytest.raises(loop.NonFinite) as error:
        loop.train(iter([own]), settings, HERE, run, 0)
    return str(error.value), before, own


@pytest.mark.parametrize("where", ["input", "gradient"])
@pytest.mark.parametrize("optim", [ADAM, SGD], ids=["fused", "copied"])
def test_a_bad_step_changes_nothing_and_is_named(
    optim: Optim, where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the same words as on a CPU, and before the next checkpoint (step 8) is written."""
    said, before, _ = diverged(optim, tmp_path / "first", where)
    assert "step 7" in said and {"input": "row 3", "gradient": "networks.1.0.weight"}[where] in said
    monkeypatch.setattr(step, "READ_FIRST", ())
    late, _, own = diverged(optim, tmp_path / "late", where)
    assert late == said
    assert equal(before, {k: v.detach() for k, v in own.model.named_parameters()})
    kept = checkpoint.complete(tmp_path / "late/checkpoints/turns")
    assert [path.name for path in kept] == ["step-000000004"]


@pytest.mark.parametrize("optim", [ADAM, replace(SGD, momentum=0.9)], ids=["fused", "copied"])
def test_a_masked_step_is_none_at_all(optim: Optim) -> None:
    """Also the very first, which begins the optimiser's state."""
    found = []
    for skips in ([False, False], [True, False, True, False]):
        torch.manual_seed(0)
        model = torch.nn.Linear(3, 2)
        made = step.optim.build(model, optim)
        for skip in skips:
            model.zero_grad()
            model(torch.ones(4, 3)).square().mean().backward()
            if skip:
                model.weight.grad.fill_(float("nan"))
            step.masked_step(made, torch.tensor(skip))
        found.append({**model.state_dict(), "state": torch.cat(
            [v.reshape(-1) for slots in made.state.values() for v in slots.values()]
        )})  # fmt: skip
    assert equal(*found)


def test_compiled_steps_equal_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where the compiler computes as torch does, bit for bit: dropout, keys, average and all."""
    monkeypatch.setattr(compiled, "BACKEND", "eager")
    plain, ours = stage(ADAM), stage(ADAM)
    loop.train(iter([plain]), LOOP, HERE, tmp_path / "plain", 0)
    capsys.readouterr()
    settings = replace(LOOP, compile=True)
    (account,) = loop.train(iter([ours]), settings, HERE, tmp_path / "compiled", 0)
    assert equal(plain.model.state_dict(), ours.model.state_dict())
    assert lines(tmp_path / "plain") == lines(tmp_path / "compiled")
    assert account["compiled"] == "eager"
    assert "torch.compile (eager)" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("g++"), reason="torch's compiler for CPUs needs g++")
def test_torchs_own_compiler_is_equal_within_rounding(tmp_path: Path) -> None:
    """Dropout draws the same; after 13 steps weights are apart by 1e-4 at most."""
    plain, ours = stage(replace(SGD, lr=0.01)), stage(replace(SGD, lr=0.01))
    loop.train(iter([plain]), LOOP, HERE, tmp_path / "plain", 0)
    loop.train(iter([ours]), replace(LOOP, compile=True), HERE, tmp_path / "compiled", 0)
    for key, value in plain.model.state_dict().items():
        torch.testing.assert_close(ours.model.state_dict()[key], value, rtol=1e-4, atol=1e-4)


def test_what_cannot_be_compiled_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(graph: Any, inputs: Any) -> Any:
        raise RuntimeError("there is no compiler")

    monkeypatch.setattr(compiled, "BACKEND", broken)
    with pytest.raises(ValueError, match="there is no compiler.*without --loop.compile"):
        loop.train(iter([stage(ADAM)]), replace(LOOP, compile=True), HERE, tmp_path, 0)
