"""Two groups: equal to the host alone where they should be, and all hosts and recipes train."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny import config, options

from tenfold.core import dist, loop
from tenfold.systems.dts import data
from tenfold.systems.dts.config import Config, Groups
from tenfold.systems.dts.groups import SelfTraining
from tenfold.systems.dts.model import Networks
from tenfold.systems.dts.system import Dts

pytestmark = pytest.mark.usefixtures("generated_only")
HERE = dist.World(0, 1, torch.device("cpu"))
ALONE = Groups(deploy="student1")


def tiny(*words: str, recipe: str = "demo") -> Config:
    return config("dts", recipe, [*options("dts"), "--steps", "3", *words])


def trained(cfg: Config, folder: Path) -> Dts:
    torch.manual_seed(cfg.seed)
    system = Dts(cfg)
    loop.train(system.stages(), cfg.loop, HERE, folder, cfg.seed)
    return system


def test_the_first_group_alone_is_the_host_bit_for_bit(tmp_path: Path) -> None:
    """With dropout, jitter, blur, rare classes and a stage before."""
    words = ("--source-steps", "2", "--model.dropout", "0.5", "--host.threshold", "0.1")
    two = tiny(*words, "--groups.recipe", "s+st", "--groups.provider", "own")
    one = replace(two, method="host", groups=ALONE)
    a, b = trained(two, tmp_path / "a").model, trained(one, tmp_path / "b").model
    for name in ("student1", "teacher1"):
        states = a.named(name).state_dict(), b.named(name).state_dict()
        assert not [
            key for key, value in states[0].items() if not torch.equal(value, states[1][key])
        ]
    first, second = (a.student(group).state_dict() for group in (1, 2))
    assert any(not torch.equal(value, second[key]) for key, value in first.items())


def step_of(cfg: Config) -> tuple[dict[str, float], Networks]:
    """Losses of the first step of adaptation, and networks with gradients."""
    torch.manual_seed(0)
    system = Dts(cfg)
    *_, stage = system.stages()
    stage.model.train()
    losses = stage.training_step(stage.model, stage.batches(0), lambda value: value.backward())
    assert all(p.grad is not None and p.grad.isfinite().all() for p in stage.model.parameters())
    return {name: float(value) for name, value in losses.items()}, system.model


@pytest.mark.parametrize("recipe", ["s+tt", "st+tt", "s+st"])
@pytest.mark.parametrize("host", ["dacs", "daformer", "mic", "hrda"])
def test_every_host_with_every_recipe(host: str, recipe: str) -> None:
    words = ["--host.name", host, "--groups.recipe", recipe, "--host.threshold", "0.05"]
    words += ["--host.feature-weight", "0.005", "--host.feature-share", "0.01"]
    words += ["--host.things", "road", "building", "sky"]
    if host == "hrda":
        words += ["--data.crop", "64", "64", "--model.detail", "32", "32"]
        words += ["--data.source-size", "64", "80", "--data.target-size", "64", "80"]
    losses, _ = step_of(tiny(*words))
    assert ("loss/features1" in losses) == (host != "dacs")
    assert ("loss/features2" in losses) == (host != "dacs")
    assert ("loss/masked2" in losses) == (host == "mic")
    parts = [value for name, value in losses.items() if name.startswith("loss/")]
    assert losses["loss"] == pytest.approx(sum(parts), rel=1e-5)
    assert losses["quality1"] > 0


def test_features_stay_near_where_source_pixels_are(tmp_path: Path) -> None:
    """Of source mixed with target, in the pixels that were pasted: labels elsewhere are guesses."""
    words = ["--host.name", "daformer", "--host.feature-weight", "1", "--groups.recipe", "st+tt"]
    *_, stage = Dts(tiny(*words)).stages()
    training, batch = stage.training_step, stage.batches(0)
    targets = training.label(batch)
    work = training.work(2, batch, targets[2], training.draws(training.cfg, batch))
    pasted = work.near.labels != 255
    assert 0 < pasted.sum() < pasted.numel()
    assert torch.equal(work.near.labels[pasted], batch["labels2"][pasted])
    assert torch.equal(work.first.labels[pasted], batch["labels2"][pasted])
    found = training.frozen(work.first.images)[-1]
    torch.testing.assert_close(work.near.features, found)


@pytest.mark.parametrize("head", ["daformer", "segformer", "deeplab"])
@pytest.mark.parametrize("encoder", ["mit", "resnet20"])
def test_every_encoder_with_every_head(encoder: str, head: str) -> None:
    step_of(tiny("--model.encoder", encoder, "--model.head", head))


def test_a_joint_pass_has_the_sum_of_both_losses() -> None:
    """Without batch norms in training, which mix the domains there."""
    words = ["--model.head", "segformer", "--model.dropout", "0", "--host.threshold", "0.05"]
    totals = []
    for joint in ("--host.joint", "--host.no-joint"):
        torch.manual_seed(0)
        system = Dts(tiny(*words, joint))
        *_, stage = system.stages()
        stage.model.eval()
        batch = stage.batches(0)
        found = stage.training_step(stage.model, batch, lambda value: value.backward())
        totals.append(found["loss"])
        totals.append(torch.cat([p.grad.flatten() for p in stage.model.parameters()]))
    torch.testing.assert_close(totals[0], totals[2])
    torch.testing.assert_close(totals[1], totals[3], rtol=1e-4, atol=1e-6)


def test_exchange_begins_after_the_warm_up() -> None:
    cfg = tiny("--groups.warmup", "2", "--loop.accumulate", "2")
    training = SelfTraining(cfg, Networks(cfg))
    assert [training.provider(step) for step in range(4)] == ["own", "own", "cross", "cross"]
    alone = replace(cfg, method="host", groups=replace(ALONE, warmup=0))
    assert SelfTraining(alone, Networks(alone)).provider(9) == "own"


def test_students_start_alike_but_for_their_heads() -> None:
    """Without a stage before and without weights to start from."""
    torch.manual_seed(0)
    system = Dts(tiny())
    next(system.stages())
    one, two = system.model.student(1), system.model.student(2)
    for name, value in one.backbone.state_dict().items():
        assert torch.equal(value, two.backbone.state_dict()[name])
    assert not torch.equal(one.decode_head.conv_seg.weight, two.decode_head.conv_seg.weight)
    for group in (1, 2):
        teacher, student = system.model.teacher(group), system.model.student(group)
        states = teacher.state_dict(), student.state_dict()
        assert all(torch.equal(value, states[1][key]) for key, value in states[0].items())
        assert not any(p.requires_grad for p in teacher.parameters())


def test_teachers_that_were_measured_train_again() -> None:
    system = Dts(tiny("--model.dropout", "0.5"))
    stage = next(system.stages())
    system.model.eval()
    stage.training_step(stage.model.train(), stage.batches(0), lambda value: value.backward())
    teacher = system.model.teacher(1)
    assert teacher.training and not teacher.decode_head.dropout.training


def test_a_run_that_goes_on_keeps_its_teachers(tmp_path: Path) -> None:
    """Their average does not begin anew."""
    from tenfold.runner.weights import save_weights

    first = trained(tiny(), tmp_path / "a")
    save_weights(tmp_path / "first.safetensors", "dts", first)
    again = Dts(tiny("--start", str(tmp_path / "first.safetensors")))
    stage = next(again.stages())
    before = again.model.state_dict()
    assert all(torch.equal(value, before[key]) for key, value in first.model.state_dict().items())
    weight = again.model.teacher(1).decode_head.conv_seg.weight
    student, old = again.model.student(1).decode_head.conv_seg.weight, weight.clone()
    stage.after_step(0)
    torch.testing.assert_close(weight, old + 0.01 * (student.detach() - old))


def test_a_run_starts_from_another(tmp_path: Path) -> None:
    from tenfold.runner.weights import save_weights

    source = trained(tiny("--method", "source", "--groups.deploy", "student1"), tmp_path / "a")
    save_weights(tmp_path / "source.safetensors", "dts", source)
    adapted = Dts(tiny("--start", str(tmp_path / "source.safetensors")))
    next(adapted.stages())
    wanted = source.model.student(1).state_dict()
    for name in adapted.model.names():
        own = adapted.model.named(name).state_dict()
        assert all(torch.equal(value, own[key]) for key, value in wanted.items())
    assert "training started from" in adapted.origin
    other = tiny("--start", str(tmp_path / "source.safetensors"), "--model.head-dim", "16")
    with pytest.raises(ValueError, match="does not fit this configuration"):
        next(Dts(other).stages())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--data.border", "20", "12", "0", "0"), "leaves nothing of a crop of 32 x 32"),
        (("--host.name", "hrda"), "model.detail"),
        (("--optim.clip", "1"), "optim.clip would join"),
        (("--method", "host"), "has one group; use --groups.deploy student1"),
        (("--data.source", "folder"), "say where it is: --data.source-path"),
        (("--model.heads", "3", "1", "1", "1"), "cannot be divided by its model.heads"),
    ],
)
def test_what_cannot_work_is_refused(
    words: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises((ValueError, SystemExit)) as refused:
        tiny(*words)
    said = f"{refused.value} {capsys.readouterr().err}".replace("│", " ")
    assert message in " ".join(said.split())


def test_batches_hold_what_the_groups_need() -> None:
    cfg = tiny("--data.border", "4", "8", "0", "0", "--data.target-labels", "2")
    batch = data.Batches(cfg).adaptation("ab", 3)
    assert batch["valid_a"].sum((1, 2)).tolist() == [20 * 32] * 2
    assert not torch.equal(batch["source1"], batch["source2"])
    assert not torch.equal(batch["target_a"], batch["target_b"])
    with pytest.raises(ValueError, match="target_labels is 99, but the target has 6"):
        data.Batches(tiny("--data.target-labels", "99"))


def test_trains_in_bfloat16(tmp_path: Path) -> None:
    """Teachers in inference mode under autocast; losses in float32."""
    cfg = tiny("--loop.amp", "bf16", "--host.threshold", "0.05", "--source-steps", "1")
    found = trained(cfg, tmp_path)
    assert all(value.isfinite().all() for value in found.model.state_dict().values())
