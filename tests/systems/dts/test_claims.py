"""The claim's table: its rows, and that a stage shared by several is the stage of each."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import config, options

from tenfold.core import dist, loop
from tenfold.core.claim import Claim, Variant
from tenfold.runner.claim import jobs_of
from tenfold.runner.weights import save_weights
from tenfold.systems.dts import claims
from tenfold.systems.dts.config import Config, Groups, Model, Transformer
from tenfold.systems.dts.data import Batches, Kept, labelled
from tenfold.systems.dts.inference import answer, answers
from tenfold.systems.dts.model import build
from tenfold.systems.dts.system import Dts

HERE = dist.World(0, 1, torch.device("cpu"))


def trained(cfg: Config, folder: Path) -> Dts:
    torch.manual_seed(cfg.seed)
    system = Dts(cfg)
    loop.train(system.stages(), cfg.loop, HERE, folder, cfg.seed)
    save_weights(folder / "weights.safetensors", "dts", system)
    return system


@pytest.mark.usefixtures("generated_only")
@pytest.mark.parametrize("method", ["host", "dts"])
def test_starting_from_a_run_on_the_source_is_that_stage_and_then_adaptation(
    method: str, tmp_path: Path
) -> None:
    """Bit for bit, with a ResNet whose batch norms remember, dropout and changed colours."""
    words = [*options("dts"), "--steps", "2", "--source-steps", "3", "--host.threshold", "0.1"]
    words += ["--model.encoder", "resnet18", "--model.width", "4", "--model.output-stride", "0"]
    words += ["--model.dropout", "0.5"]
    whole, alone = config("dts", "demo", words), Groups(deploy="student1")
    stage = replace(whole, method="source", groups=alone, steps=3, source_steps=0)
    if method == "host":
        whole = replace(whole, method="host", groups=alone)
    trained(stage, tmp_path / "source")
    rest = replace(whole, source_steps=0, start=str(tmp_path / "source"))
    at_once = trained(whole, tmp_path / "whole").model.state_dict()
    in_two = trained(rest, tmp_path / "rest").model.state_dict()
    assert [k for k, value in at_once.items() if not torch.equal(value, in_two[k])] == []


def test_rows_start_from_what_is_trained_before_them() -> None:
    every = [arm for c in claims.claims() for arm in (c.baseline, *c.also, c.method)]
    arms = {arm.name: arm for arm in every if not arm.row}
    jobs = jobs_of(claims.claims(), arms)
    assert len(jobs) == len(set(jobs)) == 3 * len(arms)
    for arm, seed in jobs:
        before = arms[arm].after
        assert bool(before) != (
            arm in ("source only", "source only, MiT", "source only, colours changed")
        )
        assert not before or jobs.index((before, seed)) < jobs.index((arm, seed))
        assert arms[arm].config.source_steps == 0
    names = {arm.config.groups.provider for arm in arms.values() if arm.config.method == "dts"}
    assert names == {"own", "cross", "mean", "1to2", "2to1"}
    assert all(one.metric in claims.COLUMNS for one in claims.claims())
    assert {arm.name for arm in claims.BY_DUSK} <= arms.keys()


def test_what_verdicts_need_comes_first_and_a_circle_is_refused() -> None:
    def arm(name: str, after: str = "") -> Variant[int]:
        return Variant(name, 0, after=after)

    a, b, c, d = arm("a"), arm("b", "c"), arm("c"), arm("d", "b")
    one = Claim("It is so.", a, b, "m", "higher", also=(d, c), seeds=(0, 1))
    arms = {x.name: x for x in (a, d, c, b)}
    assert jobs_of([one], arms) == [
        ("a", 0), ("c", 0), ("b", 0), ("a", 1), ("c", 1), ("b", 1), ("d", 0), ("d", 1),
    ]  # fmt: skip
    with pytest.raises(ValueError, match="'b' is trained after 'b', which starts from itself"):
        jobs_of([one], {**arms, "c": arm("c", "b")})
    with pytest.raises(ValueError, match="'b' is trained after 'x', which is no arm"):
        jobs_of([one], {**arms, "b": arm("b", "x")})


def test_a_small_set_is_decoded_once_and_a_large_one_not_kept() -> None:
    made: list[int] = []

    def make() -> tuple[np.ndarray, ...]:
        made.append(1)
        return (np.zeros(60, dtype=np.uint8),)

    kept = Kept(room=100)
    for row in (0, 1, 0, 1):
        kept.get("source", row, make)
    assert len(made) == 3  # the second is no longer kept


@pytest.mark.usefixtures("generated_only")
def test_labelled_target_images_are_spread_over_the_set() -> None:
    cfg = config("dts", "demo", [*options("dts"), "--data.target-labels", "3"])
    few = Batches(cfg).few
    assert few is not None
    whole = labelled(cfg.data, "target", "train")  # six images
    for place, row in enumerate((0, 2, 4)):
        assert np.array_equal(few.scene(place)[0], whole.scene(row)[0])


def test_images_of_any_sizes_are_answered_as_one_by_one() -> None:
    sizes = [(24, 32), (24, 32), (16, 32), (24, 32)]
    draw = np.random.default_rng(0)
    pictures = [draw.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes]
    model = Model(encoder="resnet18", width=4, output_stride=16, head="segformer", head_dim=8)
    networks = [build(model, Transformer(), 5).eval() for _ in range(2)]
    together = answers(networks, pictures)
    assert [tuple(one.shape[1:]) for one in together] == [(6, 8), (6, 8), (4, 8), (6, 8)]
    for one, picture in zip(together, pictures, strict=True):
        torch.testing.assert_close(one, answer(networks, picture), rtol=1e-4, atol=1e-5)
