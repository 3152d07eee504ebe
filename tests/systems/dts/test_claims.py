"""The claim's table: its rows, and that a stage shared by several is the stage of each."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny import config, options

from tenfold.core import dist, loop
from tenfold.runner.claim import jobs_of
from tenfold.runner.weights import save_weights
from tenfold.systems.dts import claims
from tenfold.systems.dts.config import Config, Groups
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
        assert (before == "") == arm.startswith("source only") or "labelled" in arm
        assert not before or jobs.index((before, seed)) < jobs.index((arm, seed))
        assert arms[arm].config.source_steps == 0
    names = {arm.config.groups.provider for arm in arms.values() if arm.config.method == "dts"}
    assert names == {"own", "cross", "mean", "1to2", "2to1"}
    assert all(one.metric in claims.COLUMNS for one in claims.claims())
    assert {arm.name for arm in claims.BY_DUSK} <= arms.keys()
