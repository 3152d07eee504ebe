"""`tenfold check layouts`: a layout that is right is found equal, one that is wrong is named."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import forked
import pytest
import torch

from tenfold.core.config import to_json
from tenfold.core.dist import World
from tenfold.systems.ppmoe import equality
from tenfold.systems.ppmoe.config import Config, Data, Layout, Model
from tenfold.systems.ppmoe.data import Text, complete
from tenfold.systems.ppmoe.parallel import Grid, Group
from tenfold.systems.ppmoe.recipes import DEMO


@pytest.fixture
def cfg(tmp_path: Path) -> Config:
    text = tmp_path / "text.txt"
    text.write_text("".join(f"line {i} of a text\n" for i in range(2_000)))
    model = Model(
        layers=5, hidden=16, heads=4, kv_heads=2, ffn=16, seq=8, experts=4, top_k=2,
        activation="swiglu", bias="none", norm="rms", positions="rotary",
    )  # fmt: skip
    data = Data(name="files", path=str(text), tokenizer="bpe", bpe_vocab=259)  # two cannot halve it
    loop = replace(DEMO.loop, accumulate=2, device="cpu")
    return complete(replace(DEMO, model=model, data=data, batch=2, loop=loop))


def test_two_processes_are_found_equal(cfg: Config, tmp_path: Path) -> None:
    saved = {"system": "ppmoe", "recipe": "demo", "config": to_json(cfg)}
    (tmp_path / "config.json").write_text(json.dumps(saved))
    words = ("check", "layouts", tmp_path / "config.json", "--layout.tp", "2", "--then.pp", "2")
    words += ("--layout.sequence",)
    done = forked.torchrun(2, "-m", "tenfold", *words)
    assert done.returncode == 0, done.stderr[-3000:]  # 5 blocks on 2 stages, too
    assert "a step, pp 1, tp 2" in done.stdout and "2 steps, then 1 with pp 2" in done.stdout
    assert "layers.3.moe.experts.gate_up_weight" in done.stdout or "all 32 param" in done.stdout


def test_what_differs_is_named(cfg: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    world, windows = World(0, 1, torch.device("cpu")), Text(cfg).windows("train")
    found = equality.step_differences(cfg, windows, world)
    assert [one.what for one in found[:2]] == ["loss", "gradient norm"] and len(found) > 30
    assert not any(one.is_wrong for one in found)
    assert not any(
        one.is_wrong for one in equality.resume_differences(cfg, Layout(), windows, world)
    )
    own = equality.Part.keyed_parameters
    broken = "layers.1.moe.gate.weight"

    def wrong(part: equality.Part) -> object:
        for key, parameter in own(part):
            if key == broken and parameter.grad is not None and part.is_checked:
                parameter.grad = parameter.grad * float("nan")
            yield key, parameter

    parts: list[equality.Part] = []

    def made(*given: object) -> equality.Part:
        part = original(*given)  # type: ignore[arg-type]
        part.is_checked = not parts
        parts.append(part)
        return part

    original = equality._part
    monkeypatch.setattr(equality, "_part", made)
    monkeypatch.setattr(equality.Part, "keyed_parameters", wrong)
    monkeypatch.setattr(equality.Part, "is_checked", False, raising=False)
    found = equality.step_differences(cfg, windows, world)
    assert [one.what for one in found if one.is_wrong][-1] == broken


def test_replicas_that_balance_together_are_one_micro_batch(cfg: Config) -> None:
    """As many tokens for the loads as the replicas count (test_layers has that they do)."""
    together = replace(cfg, model=replace(cfg.model, balance_scope="global"))
    world, grid = World(0, 1, torch.device("cpu")), Grid(dp=Group("dp", 2))
    windows = Text(cfg).windows("train")
    apart = equality._chunks(cfg, grid, windows, world).as_one(0, 2)
    taken = equality._chunks(together, grid, windows, world).as_one(0, 2)
    assert [len(one["tokens"]) for one in apart] == [1] * 4  # of each replica two
    for one, own in zip(taken, ((0, 2), (1, 3)), strict=True):
        assert torch.equal(one["tokens"], torch.cat([apart[i]["tokens"] for i in own]))
    limited = replace(together, model=replace(together.model, capacity_factor=1.0))
    with pytest.raises(ValueError, match="give --model.balance-scope micro"):
        equality._require_comparable(limited, grid)
    equality._require_comparable(limited, Grid())
