"""The claim's arithmetic is that of the network, and its rates are those that a rule chose."""

from __future__ import annotations

import importlib.util
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import ttest_1samp
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from tenfold.core.claim import Claim
from tenfold.systems.ppmoe import claims
from tenfold.systems.ppmoe.config import Config
from tenfold.systems.ppmoe.model import Gpt

FILE = Path(__file__).parents[3] / "claims" / "ppmoe_rate.py"
spec = importlib.util.spec_from_file_location("ppmoe_rate", FILE)
assert spec is not None and spec.loader is not None
rate = importlib.util.module_from_spec(spec)
spec.loader.exec_module(rate)


@pytest.mark.parametrize("name", [claims.DENSE, claims.TOP1, claims.TOP2])
def test_flop_of_a_step_are_those_that_torch_counts(name: str) -> None:
    cfg = replace(claims.arms()[name], batch=2)
    network = Gpt(cfg.model)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, 0, 0.02)
    tokens = torch.randint(cfg.model.vocab, (2, cfg.model.seq + 1))
    # only with all scores at once does torch know attention's products on a CPU
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        network.losses(network.trunk(tokens[:, :-1]), tokens[:, 1:]).mean().backward()
    assert counter.get_total_flops() == claims.step_flop(cfg)


def test_equal_compute_is_equal_to_half_a_step_of_the_dense_network() -> None:
    found: list[Claim[Config]] = claims.claims()
    arms = {arm.name: arm.config for one in found for arm in (one.baseline, one.method)}
    assert len(arms) == 5
    for name in ("top-1", "top-2"):
        dense, moe = arms[f"dense, compute of {name}"], arms[f"MoE {name}"]
        step = claims.step_flop(dense)
        assert abs(dense.steps * step - moe.steps * claims.step_flop(moe)) <= step / 2
        assert replace(dense, steps=claims.STEPS) == arms[claims.DENSE]
    assert {len({*one.seeds} - {*rate.SEEDS}) for one in found} == {5}


def bits(*values: float | None) -> list[dict[str, Any]]:
    return [{"bits": value} for value in values]


def test_a_rate_is_chosen_between_two_neighbours_or_at_the_end_of_the_list() -> None:
    asked: list[float] = []

    def by(best: float, diverges: float = math.inf) -> float:
        def measure(lr: float) -> list[dict[str, Any]]:
            asked.append(lr)
            value = abs(math.log(lr / best))
            return bits(value, value, None if lr >= diverges else value)

        asked.clear()
        chosen: float = rate.choose(measure)[0]
        return chosen

    assert by(4e-3) == 4e-3 and asked == [2e-3, 4e-3, 8e-3]
    assert by(16e-3) == 16e-3 and asked == [2e-3, 4e-3, 8e-3, 16e-3, 32e-3]
    assert by(1e-9) == 5e-4 and asked[3:] == [1e-3, 5e-4]
    assert by(8e-3, diverges=8e-3) == 4e-3 and asked[3:] == []
    assert rate.choose(lambda lr: bits(1.0, 1.0, 1.0))[0] == 5e-4  # equal means: the lower


def test_differences_that_seeds_decide_and_spikes(tmp_path: Path) -> None:
    drawn = np.random.default_rng(0).normal(rate.detectable(1.0, 5), 1.0, (20_000, 5))
    shown = ttest_1samp(drawn, 0.0, axis=1).pvalue < 0.05
    assert shown.mean() == pytest.approx(rate.POWER, abs=0.01)
    assert rate.detectable(0.1, 10) == pytest.approx(0.1 * rate.detectable(1.0, 10))
    log = tmp_path / "metrics.jsonl"
    losses = {100: 3.0, 150: 4.0, 250: 2.0, 260: 2.5, 270: 2.1}
    lines = [{"step": k, "split": "train", "loss": v} for k, v in losses.items()]
    lines.append({"step": 270, "split": "validation", "bits": 9.0})
    log.write_text("\n".join(map(json.dumps, lines)) + "\n")
    assert rate.spike(log) == 0.5


def test_rates_are_those_that_the_rule_chose() -> None:
    arms = json.loads((FILE.parent / "ppmoe-rate.json").read_text())["arms"]
    assert {name: arm["chosen"] for name, arm in arms.items()} == claims.RATES
    for name, arm in arms.items():
        measured = {float(lr): seeds for lr, seeds in arm["measured"].items()}
        chosen, trained = rate.choose(measured.__getitem__)
        assert chosen == claims.RATES[name] and trained.keys() == measured.keys()
