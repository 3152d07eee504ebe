"""The loop's promises: exact resume, equality across processes, clear stops."""

from __future__ import annotations

import json
import os
import random
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import forked
import pytest
import torch
from safetensors.torch import load_file

from tenfold.core import checkpoint, dist, loop, optim
from tenfold.core.optim import Optim
from tenfold.core.saver import Saver
from tenfold.core.seed import generator
from tenfold.core.stage import Stage

TOY = Path(__file__).parent / "toy.py"


def toy(run: Path, *options: str, processes: int = 1) -> subprocess.CompletedProcess[str]:
    if processes > 1:
        return forked.torchrun(processes, TOY, run, *options)
    return forked.run(TOY, run, *options)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing stopped."""
    run = tmp_path_factory.mktemp("toy") / "whole"
    done = toy(run)
    assert done.returncode == 0, done.stderr
    return run


def weights(run: Path) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = {}
    for file in sorted(run.glob("checkpoints/*/final*.safetensors")):
        name = f"{file.parent.name}/{file.stem}"
        found |= {f"{name}/{k}": v for k, v in load_file(file).items()}
    for folder in sorted(run.glob("checkpoints/*/final")):
        whole = checkpoint.read_whole(folder)
        found |= {f"{folder.parent.name}/{k}": v for k, v in whole.items()}
    if (run / "teacher.pt").exists():
        teacher = torch.load(run / "teacher.pt", weights_only=True)
        found |= {f"teacher/{k}": v for k, v in teacher.items()}
    return found


def assert_equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor], tolerance: float) -> None:
    assert a and a.keys() == b.keys()
    for key in a:
        if tolerance == 0:
            assert torch.equal(a[key], b[key]), key
        else:
            torch.testing.assert_close(a[key], b[key], rtol=tolerance, atol=tolerance, msg=key)


def without_time(run: Path) -> list[dict]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k != "seconds"} for line in lines]


def test_killed_at_five_random_steps_equals_unkilled(tmp_path: Path, whole: Path) -> None:
    """SIGKILL five times in one run, at steps drawn anew each time the test runs."""
    killed = tmp_path / "killed"
    for _ in range(5):
        step = random.randint(2, 9)  # counted from the start of that process
        done = toy(killed, "--kill-at", str(step))
        assert done.returncode in (-9, 0), done.stderr
    assert toy(killed).returncode == 0
    assert_equal(weights(whole), weights(killed), 0)
    assert without_time(whole) == without_time(killed)


def test_a_finished_run_started_again_changes_nothing(whole: Path) -> None:
    """Also what a stage keeps besides its model (a teacher) is as it was at its end."""
    before = weights(whole)
    assert toy(whole).returncode == 0
    assert_equal(before, weights(whole), 0)


def test_sigterm_writes_a_checkpoint_and_says_so(tmp_path: Path, whole: Path) -> None:
    done = toy(tmp_path / "run", "--kill-at", "6", "--signal", "TERM")
    assert done.returncode == 143
    assert "SIGTERM" in done.stderr and "same command continues" in done.stderr
    folder = tmp_path / "run/checkpoints/first"
    # the signal comes at the end of step 6; processes agree on it in the next step
    assert [p.name for p in checkpoint.complete(folder)] == ["step-000000007"]
    assert toy(tmp_path / "run").returncode == 0
    assert_equal(weights(tmp_path / "run"), weights(whole), 0)


def test_two_processes_equal_one(tmp_path: Path) -> None:
    """Each rank trains on its own shard; also the stage whose models take turns."""
    one, two = tmp_path / "one", tmp_path / "two"
    assert toy(one, "--plain").returncode == 0
    done = toy(two, "--plain", processes=2)
    assert done.returncode == 0, done.stderr
    assert_equal(weights(one), weights(two), 1e-5)
    for a, b in zip(without_time(one), without_time(two), strict=True):
        for key, value in a.items():
            assert b[key] == (value if isinstance(value, str) else pytest.approx(value, rel=1e-4))


def test_two_processes_resume_exactly(tmp_path: Path) -> None:
    """Also where the host reads each step during the next, as it does of a GPU."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert toy(whole, processes=2).returncode == 0
    assert toy(killed, "--kill-at", "7", "--late", processes=2).returncode != 0
    assert toy(killed, "--late", processes=2).returncode == 0
    assert_equal(weights(whole), weights(killed), 0)
    assert without_time(whole) == without_time(killed)


def test_pipeline_schedule_drives_a_stage_and_resumes(tmp_path: Path) -> None:
    """Forward and backward by torch's 1F1B schedule; the parts are saved as one model."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    done = toy(whole, "--pipeline", processes=2)
    assert done.returncode == 0, done.stderr
    words = ("--pipeline", "--behind")  # checkpoints that are written while training goes on
    assert toy(killed, *words, "--kill-at", "10", processes=2).returncode != 0
    # that of step 8 was begun when that of step 4 was whole, and may be, too
    found = {p.name for p in checkpoint.complete(killed / "checkpoints/pipe")}
    assert found and found <= {"step-000000004", "step-000000008"}
    done = toy(killed, *words, processes=2)
    assert done.returncode == 0, done.stderr
    assert_equal(weights(whole), weights(killed), 0)
    assert {key.split(".")[0] for key in weights(whole)} == {"pipe/stage0", "pipe/stage1"}


def test_checkpoints_written_meanwhile_resume_exactly(tmp_path: Path, whole: Path) -> None:
    killed = tmp_path / "killed"
    assert toy(killed, "--behind", "--kill-at", "18").returncode == -9
    done = toy(killed, "--behind")
    assert done.returncode == 0, done.stderr
    assert_equal(weights(whole), weights(killed), 0)


def test_a_save_that_fails_meanwhile_is_told_and_leaves_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    saver, value = Saver(tmp_path, HERE, behind=True), torch.zeros(3)
    saver.save(1, {"value": value}, {"part": value})
    value += 1  # training goes on
    saver.wait()
    assert not [one for one in recwarn if "single process" in str(one.message)]
    path, state = checkpoint.load(tmp_path) or (None, {})
    assert path == tmp_path / "step-000000001" and torch.equal(state["value"], torch.zeros(3))
    assert torch.equal(checkpoint.read_whole(path)["part"], torch.zeros(3))

    def full(*given: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(checkpoint, "write_state", full)
    saver.save(2, {"value": value}, {"part": value})
    with pytest.raises(OSError, match="no space left"):
        saver.save(3, {"value": value}, {"part": value})
    assert [p.name for p in tmp_path.iterdir()] == ["step-000000001"]


def test_pipeline_equals_one_process(tmp_path: Path) -> None:
    from tenfold.core.seed import seed_everything

    done = toy(tmp_path, "--pipeline", processes=2)
    assert done.returncode == 0, done.stderr
    seed_everything(7)
    first = torch.nn.Sequential(torch.nn.Linear(6, 16), torch.nn.Tanh())
    second = torch.nn.Linear(16, 3)
    model = torch.nn.Sequential(first, second)
    sgd = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for step in range(12):
        x = torch.randn(8, 6, generator=generator("pipe", step))
        sgd.zero_grad()
        torch.nn.functional.mse_loss(model(x), x[:, :3].sin()).backward()
        sgd.step()
    got = weights(tmp_path)
    torch.testing.assert_close(got["pipe/stage0.0.weight"], first[0].weight.detach())
    torch.testing.assert_close(got["pipe/stage1.weight"], second.weight.detach())


@pytest.mark.parametrize(("processes", "late"), [(1, ()), (2, ("--late",))])
def test_non_finite_weight_is_named_and_stops(tmp_path: Path, processes, late) -> None:
    done = toy(tmp_path, "--poison", "5", *late, processes=processes)
    assert done.returncode == 3
    assert "stage 'first', step 5" in done.stderr and "body.4.weight" in done.stderr


class Line(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(2, 1)

    def forward(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {"loss": self.layer(batch["x"]).square().mean()}


def fit(batches, **changes) -> Stage:
    torch.manual_seed(0)
    optim = changes.pop("optim", Optim(lr=0.1))
    return Stage("line", Line(), batches, changes.pop("steps", 4), optim, **changes)


HERE = dist.World(0, 1, torch.device("cpu"))


def test_non_finite_input_is_named(tmp_path: Path) -> None:
    def bad(index: int) -> dict[str, torch.Tensor]:
        x = torch.ones(3, 2)
        x[1, 0] = float("nan") if index == 2 else 1.0
        return {"x": x}

    with pytest.raises(loop.NonFinite, match=r"step 2.*batch\['x'\] \(row 1\)"):
        loop.train(iter([fit(bad)]), loop.Loop(workers=0), HERE, tmp_path, 0)


def test_accumulated_steps_equal_one_large_batch(tmp_path: Path) -> None:
    sgd = Optim("sgd", lr=0.1)  # adam would not see a gradient that is twice as large
    x = torch.randn(4, 8, 2, generator=generator("x"))
    large = fit(lambda i: {"x": x[i]}, optim=sgd)
    small = fit(lambda i: {"x": x[i // 2].reshape(2, 4, 2)[i % 2]}, optim=sgd)
    loop.train(iter([large]), loop.Loop(), HERE, tmp_path / "a", 0)
    loop.train(iter([small]), loop.Loop(accumulate=2), HERE, tmp_path / "b", 0)
    torch.testing.assert_close(large.model.layer.weight, small.model.layer.weight)


def test_bf16_autocast_is_used(tmp_path: Path) -> None:
    kinds = []
    stage = fit(lambda i: {"x": torch.ones(3, 2)}, steps=1)
    stage.model.layer.register_forward_hook(lambda m, a, out: kinds.append(out.dtype))
    loop.train(iter([stage]), loop.Loop(amp="bf16"), HERE, tmp_path, 0)
    assert kinds == [torch.bfloat16]
    assert stage.model.layer.weight.dtype == torch.float32


def test_best_weights_are_kept(tmp_path: Path) -> None:
    seen: list[tuple[float, torch.Tensor]] = []

    def validate(model: torch.nn.Module) -> dict[str, float]:
        value = [3.0, 1.0, 2.0, 5.0][len(seen)]
        seen.append((value, model.layer.weight.detach().clone()))
        return {"error": value}

    stage = fit(lambda i: {"x": torch.ones(3, 2)}, validate=validate, monitor="error")
    accounts = loop.train(iter([stage]), loop.Loop(validate_every=1), HERE, tmp_path, 0)
    assert accounts[0]["best"] == {"step": 2, "metric": "error", "value": 1.0}
    assert torch.equal(stage.model.layer.weight, seen[1][1])


@pytest.mark.parametrize("behind", [False, True])
def test_best_weights_are_those_of_their_record_after_a_kill(tmp_path: Path, behind: bool) -> None:
    """Killed after better ones were written, but before a checkpoint that knows of them."""
    seen: dict[int, torch.Tensor] = {}

    def run(values: dict[int, float], steps: int, killed: int = 0) -> dict[str, Any]:
        def after_step(step: int) -> None:
            if step + 1 == killed:
                raise KeyboardInterrupt
            seen[step + 1] = stage.model.layer.weight.detach().clone()

        stage = fit(
            lambda i: {"x": torch.ones(3, 2)}, steps=steps, after_step=after_step, monitor="error",
            validate=lambda model: {"error": values[max(seen)]},
        )  # fmt: skip
        seen.clear()
        settings = loop.Loop(validate_every=1, save_every=2, workers=0, async_save=behind)
        (account,) = loop.train(iter([stage]), settings, HERE, tmp_path, 0)
        return {**account["best"], "weight": stage.model.layer.weight.detach()}

    with pytest.raises(KeyboardInterrupt):
        run({1: 3.0, 2: 2.0, 3: 1.0}, steps=8, killed=4)
    second = seen[2]
    # with another number of steps the third may be worse
    best = run({3: 4.0, 4: 4.0, 5: 4.0, 6: 4.0}, steps=6)
    assert best["step"] == 2 and torch.equal(best["weight"], second)
    assert not list(tmp_path.rglob("best*"))


def test_best_weights_of_version_1_are_found(tmp_path: Path) -> None:
    """They had no step in their name."""

    def run(killed: int = 0) -> dict[str, Any]:
        def after_step(step: int) -> None:
            if step + 1 == killed:
                raise KeyboardInterrupt

        stage = fit(
            lambda i: {"x": torch.ones(3, 2)}, after_step=after_step, monitor="error",
            validate=lambda model: {"error": 1.0},
        )  # fmt: skip
        settings = loop.Loop(validate_every=1, save_every=2)
        return loop.train(iter([stage]), settings, HERE, tmp_path, 0)[0]["best"]

    with pytest.raises(KeyboardInterrupt):
        run(killed=4)
    for file in sorted(tmp_path.rglob("best*")):
        file.rename(file.with_name(file.name.replace("-000000001", "")))
    assert (tmp_path / "checkpoints/line/best.safetensors").exists()
    assert run() == {"step": 1, "metric": "error", "value": 1.0}


def test_the_log_of_independent_stages_stays_when_they_get_more_steps(tmp_path: Path) -> None:
    """A stage that uses others starts over, and so does its log."""

    def steps_logged(steps: int) -> dict[str, list[int]]:
        named = {"one": True, "two": True, "user": False}
        stages = [
            replace(fit(lambda i: {"x": torch.ones(3, 2)}, steps=steps), name=n, independent=alone)
            for n, alone in named.items()
        ]
        loop.train(iter(stages), loop.Loop(log_every=1), HERE, tmp_path, 0)
        lines = without_time(tmp_path)
        return {n: [line["step"] for line in lines if line["stage"] == n] for n in named}

    assert steps_logged(2) == dict.fromkeys(("one", "two", "user"), [1, 2])
    assert steps_logged(4) == dict.fromkeys(("one", "two", "user"), [1, 2, 3, 4])


def test_a_validation_that_cannot_be_is_told(tmp_path: Path) -> None:
    stage = fit(lambda i: {"x": torch.ones(3, 2)}, steps=1)
    with pytest.warns(UserWarning, match=f"for stage {stage.name} nothing is held out"):
        loop.train(iter([stage]), loop.Loop(validate_every=1), HERE, tmp_path, 0)


def test_prefetched_batches_are_the_same_and_in_order() -> None:
    def make(index: int) -> torch.Tensor:
        return torch.rand(3, generator=generator("batch", index))

    plain = list(loop.prefetched(make, 2, 9, 0))
    threaded = list(loop.prefetched(make, 2, 9, 3))
    assert all(torch.equal(a, b) for a, b in zip(plain, threaded, strict=True))
    assert len(plain) == 7


def test_an_error_in_a_batch_thread_reaches_the_caller(tmp_path: Path) -> None:
    def bad(index: int) -> dict[str, torch.Tensor]:
        raise ValueError("file 7 is damaged")

    with pytest.raises(ValueError, match="file 7 is damaged"):
        loop.train(iter([fit(bad)]), loop.Loop(workers=2), HERE, tmp_path, 0)


def test_half_written_checkpoints_are_never_taken(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, 3, {"step": 3}, {}, HERE)
    (tmp_path / "step-000000009.tmp").mkdir()
    loaded = checkpoint.load(tmp_path)
    assert loaded == (tmp_path / "step-000000003", {"step": 3})
    (tmp_path / "step-000000003/state.pt").write_bytes(b"PK\x03\x04 cut")
    with pytest.raises(ValueError, match="cannot be read"):
        checkpoint.load(tmp_path)


@pytest.mark.parametrize(
    "write, old, new",
    [
        (checkpoint.write_text, "old", "new"),
        (checkpoint.write_state, {"step": 1}, {"step": 2}),
        (checkpoint.write_tensors, {"a": torch.zeros(2)}, {"a": torch.ones(2)}),
    ],
    ids=["text", "state", "tensors"],
)
def test_a_write_that_fails_leaves_the_old_file(
    write, old, new, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(handle: int) -> None:
        raise OSError("no space left")

    write(tmp_path / "file", old)
    before = (tmp_path / "file").read_bytes()
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="no space left"):
        write(tmp_path / "file", new)
    assert (tmp_path / "file").read_bytes() == before


def test_a_checkpoint_with_code_in_it_is_refused(tmp_path: Path) -> None:
    marker = tmp_path / "executed"

    class Payload:
        def __reduce__(self):
            return (Path.touch, (marker,))

    folder = tmp_path / "step-000000001"
    folder.mkdir()
    torch.save({"step": Payload()}, folder / "state.pt")
    with pytest.raises(ValueError, match="cannot be read"):
        checkpoint.load(tmp_path)
    assert not marker.exists()


def test_schedules() -> None:
    cosine = Optim(lr=1.0, schedule="cosine", warmup=2, floor=0.1)
    factors = [optim.lr_factor(cosine, s, 12) for s in range(13)]
    assert factors[:2] == [0.5, 1.0] and factors[2] == 1.0
    assert abs(factors[12] - 0.1) < 1e-12 and abs(factors[7] - 0.55) < 1e-12
    assert optim.lr_factor(Optim(schedule="linear"), 3, 4) == 0.25
    wsd = Optim(schedule="wsd", warmup=2, decay=0.25, floor=0.2)
    factors = [optim.lr_factor(wsd, step, 16) for step in range(17)]
    assert factors[:2] == [0.5, 1.0] and set(factors[1:13]) == {1.0}
    assert factors[13:] == pytest.approx([0.8, 0.6, 0.4, 0.2])
    with pytest.raises(ValueError, match=r"optim\.period"):
        optim.lr_factor(Optim(schedule="step"), 0, 4)


def test_a_product_ramp_multiplies_the_schedule() -> None:
    poly = Optim(schedule="linear", power=2.0, warmup=4, ramp="product", ramp_floor=0.2)
    factors = [optim.lr_factor(poly, step, 10) for step in (0, 2, 4, 5, 10)]
    assert factors == pytest.approx([0.2, 0.6 * 0.8**2, 0.6**2, 0.25, 0])
    assert optim.lr_factor(replace(poly, warmup=0), 0, 10) == 1


def test_groups_by_words_in_names() -> None:
    """The longest word counts, then the first of the alphabet; without one all decays."""
    parts = {"norm": 1, "head_norm": 1, "pos_block_head": 1, "bn": 1}
    model = torch.nn.ModuleDict({name: torch.nn.Linear(3, 2) for name in parts})
    rules = {"norm": (1.0, False), "head": (10.0, True), "pos_block": (2.0, False)}
    adam = optim.build(model, Optim(weight_decay=0.5), lambda m: optim.groups_by_name(m, rules))
    of = {id(p): (g["lr_scale"], g["weight_decay"]) for g in adam.param_groups for p in g["params"]}
    found = {name: {of[id(p)] for p in model[name].parameters()} for name in parts}
    assert found == {
        "norm": {(1.0, 0.0)},
        "head_norm": {(10.0, 0.5)},
        "pos_block_head": {(2.0, 0.0)},
        "bn": {(1.0, 0.5)},
    }


def test_vectors_do_not_decay_and_groups_scale() -> None:
    model = torch.nn.Linear(3, 2)
    adam = optim.build(model, Optim(weight_decay=0.5))
    assert [g["weight_decay"] for g in adam.param_groups] == [0.5, 0.0]
    scaled = optim.build(
        model, Optim(lr=0.1), lambda m: [{"params": list(m.parameters()), "lr_scale": 10.0}]
    )
    optim.set_lr(scaled, Optim(lr=0.1), 0, 5)
    assert scaled.param_groups[0]["lr"] == 1.0


def test_shares_must_divide() -> None:
    assert dist.World(1, 2, torch.device("cpu")).share(8) == slice(4, 8)
    with pytest.raises(ValueError, match="multiple of 2"):
        dist.World(0, 2, torch.device("cpu")).share(7)


def test_more_processes_than_gpus_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch's own error is no ValueError, and names neither processes nor a way out."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert dist.pick_device("auto", 1) == torch.device("cuda", 1)
    assert dist.pick_device("cpu", 2) == torch.device("cpu")
    with pytest.raises(ValueError, match="process 2 of this host has no GPU.*start 2 processes"):
        dist.pick_device("auto", 2)
