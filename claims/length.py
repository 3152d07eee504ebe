"""How long the arms of a claim are trained: budgets are doubled until held-out data gain no more.

    python claims/length.py spgsn|itpn [--runs runs/length]

What is read: SPGSN, a tenth of the training windows, the error in mm over all frames ahead, the
mean of the actions; iTPN, 2,000 of the 10,000 training photos, top-1 of a linear probe of the
frozen network that was fitted on the other 8,000. Seed 100, which no claim has; no test data.

Rule, written before the run: every arm is trained with the first budget, with twice that, and so
on (each time from the start: the rate falls to its end within the budget), until twice the budget
gains less than 2 % of the error (SPGSN) or less than 2 points (iTPN). The budget before that
doubling is enough for that arm. All arms of the claim are trained as long as the arm that needs
most. An arm that still gains at the last budget of the list is given that one, and the page says
so.

Arms: SPGSN, DCT-GCN and MLP, whose rates were chosen for themselves, 1,500 to 12,000 steps; iTPN
and HiViT-MAE, 15 to 240 passes of pre-training. A run that was stopped goes on with the same
command. Writes <system>-length.json and .md beside itself.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from tenfold import systems
from tenfold.core import checkpoint, dist, loop
from tenfold.core.config import to_json
from tenfold.core.log import environment
from tenfold.files import write_text
from tenfold.report.markdown import md, md_table
from tenfold.runner.weights import construct
from tenfold.systems.itpn import Itpn
from tenfold.systems.itpn import evaluation as itpn_evaluation
from tenfold.systems.itpn import recipes as itpn
from tenfold.systems.spgsn import Spgsn
from tenfold.systems.spgsn import evaluation as spgsn_evaluation
from tenfold.systems.spgsn import recipes as spgsn

HERE = Path(__file__).parent
SEED = 100


@dataclass(frozen=True)
class Question:
    """What is doubled, for which arms, and what counts as a gain."""

    arms: Mapping[str, Any]
    """Name -> configuration."""
    budgets: Sequence[int]
    """The first, and each twice the one before."""
    budget: str
    """What a budget counts."""
    longer: Callable[[Any, int], Any]
    """(configuration, budget) -> configuration."""
    score: Callable[[Any], float]
    """Trained system -> what held-out data say."""
    says: str
    """Name of the score."""
    gain: Callable[[float, float], float]
    """(score of a budget, score of twice that) -> gain, in units of `least`."""
    least: float
    unit: str


def error_ahead(system: Spgsn) -> float:
    """Error in mm of held-out windows."""
    return spgsn_evaluation.validate(system.model, system.motions)["mpjpe"]


def probe(system: Itpn) -> float:
    """Top-1 (percent) of a linear probe, fitted and judged on different training photos."""
    photos = system.photos("train")
    held = system.held_out(len(photos))
    fitted = np.setdiff1d(np.arange(len(photos)), held)
    own, _ = itpn_evaluation.probed(system.begun(), photos.at(fitted), photos.at(held), system.cfg)
    return own["accuracy/linear probe/top1"]


def _with_steps(cfg: Any, steps: int) -> Any:
    return replace(cfg, steps=steps)


def _with_passes(cfg: Any, passes: int) -> Any:
    return replace(cfg, pretrain=replace(cfg.pretrain, epochs=passes))


def _held(cfg: Any, share: float) -> Any:
    return replace(cfg, data=replace(cfg.data, holdout=share))


def questions() -> dict[str, Question]:
    """System -> question."""
    motion = {"SPGSN": spgsn.SMALL, "DCT-GCN": spgsn.GCN, "MLP (siMLPe-like)": spgsn.MLP}
    mae = replace(itpn.SMALL, pretrain=replace(itpn.SMALL.pretrain, pyramid=False))
    return {
        "spgsn": Question(
            {name: _held(cfg, 0.1) for name, cfg in motion.items()},
            (1500, 3000, 6000, 12000), "steps", _with_steps, error_ahead, "error, mm",
            lambda once, twice: 100 * (once - twice) / once, 2.0, "%",
        ),
        "itpn": Question(
            {name: _held(cfg, 0.2) for name, cfg in {"iTPN": itpn.SMALL, "HiViT-MAE": mae}.items()},
            (15, 30, 60, 120, 240), "passes", _with_passes, probe, "linear probe, top-1",
            lambda once, twice: twice - once, 2.0, "points",
        ),
    }  # fmt: skip


def enough(
    budgets: Sequence[int],
    score: Callable[[int], float],
    gain: Callable[[float, float], float],
    least: float,
) -> tuple[int, dict[int, float], bool]:
    """The rule: a budget, the score of every budget tried, and whether twice as much was tried."""
    found = {budgets[0]: score(budgets[0])}
    for once, twice in zip(budgets, budgets[1:], strict=False):
        found[twice] = score(twice)
        if gain(found[once], found[twice]) < least:
            return once, found, True
    return budgets[-1], found, False


def train(name: str, cfg: Any, score: Callable[[Any], float], folder: Path,
          world: dist.World) -> dict[str, Any]:  # fmt: skip
    """Train a configuration, or take what was trained; its score."""
    cls = systems.system_class(name)
    cfg = cls.complete(replace(cfg, seed=SEED, loop=replace(cfg.loop, threads=1)))
    file, config = folder / "held-out.json", to_json(cfg)
    if file.is_file():
        found: dict[str, Any] = checkpoint.read_json(file)
        if found["config"] != config:
            raise ValueError(f"{file} is of another configuration; give another --runs")
        return found
    system, began = construct(cls, cfg), time.process_time()
    loop.train(system.stages(), cfg.loop, world, folder, cfg.seed)
    used = system.data_used()
    found = {
        "score": score(system),
        "data": {"name": used.name, "kind": used.kind},
        "cpu_seconds": round(time.process_time() - began, 1),
        "config": config,
    }
    checkpoint.write_json(file, found)
    return found


def page(name: str, result: Mapping[str, Any]) -> str:
    """The page: scores of each arm by budget, and what the rule says."""
    asked, seen = questions()[name], result["environment"]
    rows = []
    for arm, found in result["arms"].items():
        scores = found["scores"]
        cells = [f"{scores[str(b)]:.2f}" if str(b) in scores else "–" for b in asked.budgets]
        more = "" if found["ended"] else " or more"
        rows.append([md(arm), *cells, f"**{found['enough']:,}**{more}"])
    parts = (__doc__ or "").split("\n\n")
    return "\n".join([
        f"# {name}: how long the arms of its claim are trained", "",
        f"**{result['budget']:,} {asked.budget}**", "",
        *(" ".join(part.split()) + "\n" for part in parts[2:4]),
        f"Table: {asked.says}, by {asked.budget}; enough: where twice as much gains less than "
        f"{asked.least:g} {asked.unit}. Data: {result['data']['kind']}, {result['data']['name']}.",
        "",
        *md_table(["arm", *(f"{b:,}" for b in asked.budgets), "enough"], rows), "",
        f"{result['runs']} trainings, {result['cpu_minutes']:.0f} minutes of one core in all. "
        f"{md(seen['cpu'])}, one thread, torch {md(seen['torch'])}, {seen['date']}, commit "
        f"{seen['commit']}: `{seen['command']}`", "",
    ])  # fmt: skip


def main() -> None:
    """Search, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("system", choices=tuple(questions()))
    parser.add_argument("--runs", type=Path, default=Path("runs/length"))
    args = parser.parse_args()
    name: str = args.system
    asked = questions()[name]
    arms: dict[str, dict[str, Any]] = {}
    every: list[dict[str, Any]] = []
    with dist.started("cpu") as world:
        for arm, cfg in asked.arms.items():

            def score(budget: int, arm: str = arm, cfg: Any = cfg) -> float:
                folder = args.runs / f"{name}-{arm.split()[0]}-{budget}"
                found = train(name, asked.longer(cfg, budget), asked.score, folder, world)
                every.append(found)
                print(f"{arm}, {budget} {asked.budget}: {found['score']:.3f}", flush=True)
                return float(found["score"])

            budget, scores, ended = enough(asked.budgets, score, asked.gain, asked.least)
            arms[arm] = {"enough": budget, "scores": {str(b): s for b, s in scores.items()},
                         "ended": ended}  # fmt: skip
        told = environment(world) | {"command": f"python claims/length.py {name}"}
    result = {
        "budget": max(found["enough"] for found in arms.values()),
        "arms": arms,
        "data": every[0]["data"],
        "runs": len(every),
        "cpu_minutes": sum(one["cpu_seconds"] for one in every) / 60,
        "environment": told,
    }
    checkpoint.write_json(HERE / f"{name}-length.json", result)
    write_text(HERE / f"{name}-length.md", page(name, result))
    print(page(name, result))


if __name__ == "__main__":
    main()
