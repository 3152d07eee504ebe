"""LOUPE's predictor of interactions against sampling and against the closed form.

    python claims/loupe_unsil.py RUN [--pairs 512] [--steps 400]

RUN is a finished run of LOUPE with regions. Its tokens are frozen; regions are those of its region
module, texts the captions. The predictor learns from sampled interactions of training pairs, as in
training, and is asked of test pairs; the truth is the closed form with many coalitions. For two
scores, the cosine of the sum with the text and its log-share among 64 texts:

- time per pair (of the processor, so that a busy machine changes it little), all regions at once;
- root mean square error and Spearman's correlation with the truth, within pictures and over all;
- calibration: mean error by predicted deviation (0.80 for a normal distribution), and how often
  the truth lies within two deviations (0.95).

Writes loupe-unsil.json and .md beside itself.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
from rates import machine  # noqa: E402

import tenfold  # noqa: E402
from tenfold.report.claim import md_table  # noqa: E402
from tenfold.systems.loupe import data, scores  # noqa: E402
from tenfold.systems.loupe.batches import Examples  # noqa: E402
from tenfold.systems.loupe.evaluation import encoded  # noqa: E402
from tenfold.systems.loupe.games import Sampling, sampled, tokens  # noqa: E402
from tenfold.systems.loupe.loss import predictor_loss  # noqa: E402
from tenfold.systems.loupe.ranking import SCALE, TEXTS, texts_for  # noqa: E402
from tenfold.systems.loupe.system import Loupe  # noqa: E402
from tenfold.systems.loupe.training import spearman  # noqa: E402
from tenfold.systems.loupe.unsil import Standard, Unsil, sigma  # noqa: E402

HERE = Path(__file__).parent
CHUNK = 64
PLAN = Sampling(samples=64)
TRUTH = Sampling(samples=8192)
NAIVE = 4
"""Pairs that are played one coalition after another; their time is that of each."""
SCORES = {"cosine": 0.0, "share among 64 texts": SCALE}
HEAD = [
    "score", "by", "ms a pair", "error", "Spearman, all", "within pictures", "error / deviation",
    "within 2 deviations",
]  # fmt: skip


@dataclass(frozen=True)
class Games:
    """Frozen tokens of pairs, their texts (the own one first), and regions."""

    patches: Tensor
    texts: Tensor
    regions: Tensor

    def rows(self, some: Tensor | slice) -> Games:
        """Some of the pairs."""
        return Games(self.patches[some], self.texts[some], self.regions[some])

    def __len__(self) -> int:
        return len(self.patches)


@torch.no_grad()
def games_of(system: Loupe, split: str, pairs: int) -> Games:
    """Games of the first pairs of a split."""
    cfg = system.cfg
    examples = Examples(cfg, data.open_captions(cfg.data, split))
    patches, text, regions = [], [], []
    for first in range(0, min(pairs, len(examples)), CHUNK):
        rows = range(first, min(first + CHUNK, pairs, len(examples)))
        seen = encoded(system.model.eval(), examples.batch(rows))
        found = system.model.found(seen.patches, cfg.games.regions, cfg.games.overlap)
        patches.append(seen.patches)
        text.append(texts_for(seen.text, torch.arange(len(rows)), TEXTS))
        regions.append(found.members)
    count = min(some.shape[1] for some in text)
    return Games(
        torch.cat(patches), torch.cat([some[:, :count] for some in text]), torch.cat(regions)
    )


def played(games: Games, contrast: float, plan: Sampling) -> tuple[Tensor, Tensor]:
    """Interactions under the own text and their standard errors, in closed form."""
    texts = games.texts if contrast else games.texts[:, :1]
    found = [
        tokens.interactions(p, t, r, plan, contrast=contrast)
        for p, t, r in zip(
            games.patches.split(CHUNK), texts.split(CHUNK), games.regions.split(CHUNK), strict=True
        )
    ]
    return (torch.cat([one.value[..., 0] for one in found]),
            torch.cat([one.standard_error[..., 0] for one in found]))  # fmt: skip


def naive(games: Games, contrast: float) -> tuple[Tensor, Tensor]:
    """The same by a score of masks, coalition by coalition of one picture."""
    values, errors = [], []
    for patches, texts, regions in zip(games.patches, games.texts, games.regions, strict=True):
        if contrast:
            score: Any = scores.contrast(patches, texts, contrast)
        else:
            summed = scores.global_cosine(patches, texts[0])
            score = lambda masks, summed=summed: summed(masks)  # noqa: E731  (its masks, one by one)
        found = sampled.interactions(score, regions, PLAN)
        values.append(found.value)
        errors.append(found.standard_error)
    return torch.stack(values), torch.stack(errors)


def learned(games: Games, contrast: float, steps: int) -> tuple[Unsil, Standard]:
    """A predictor that learned from sampled interactions, one chunk of pairs a step."""
    torch.manual_seed(0)
    network, standard = Unsil(games.patches.shape[2]), Standard()
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-3)
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = 1e-3 * min(1.0, 2 * (1 - step / steps))
        some = games.rows(torch.randint(len(games), (CHUNK,)))
        value, _ = played(some, contrast, PLAN)
        standard.update(value)
        predicted, log_variance = network(some.patches, some.texts[:, 0], some.regions)
        loss = predictor_loss(predicted, log_variance, standard.standardised(value))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return network, standard


@torch.no_grad()
def predicted(network: Unsil, standard: Standard, games: Games) -> tuple[Tensor, Tensor]:
    """Predictions and their deviations."""
    value, log_variance = network(games.patches, games.texts[:, 0], games.regions)
    return standard.restored(value), sigma(log_variance) * standard.deviation


def timed(run: Callable[[], tuple[Tensor, Tensor]], pairs: int) -> tuple[Any, float]:
    """Result, and milliseconds of the processor per pair."""
    run()
    start = time.process_time()
    found = run()
    return found, 1e3 * (time.process_time() - start) / pairs


def row(score: str, by: str, ms: float, found: tuple[Tensor, Tensor], truth: Tensor) -> list[Any]:
    """Accuracy and calibration of one way."""
    value, deviation = found
    off = (value - truth).abs()
    ratio = off / deviation.clamp(min=1e-12)
    within = torch.stack([spearman(a, b) for a, b in zip(value, truth, strict=True)])
    return [
        score, by, ms, float(off.square().mean().sqrt()),
        float(spearman(value.flatten(), truth.flatten())), float(within.mean()),
        float(ratio.mean()), float((ratio <= 2).float().mean()),
    ]  # fmt: skip


def compared(system: Loupe, pairs: int, steps: int) -> list[list[Any]]:
    """Rows of the table."""
    train, test = games_of(system, "train", 8 * pairs), games_of(system, "test", pairs)
    rows = []
    for name, contrast in SCORES.items():
        truth, _ = played(test, contrast, TRUTH)
        few = test.rows(slice(NAIVE))
        found, ms = timed(lambda few=few, c=contrast: naive(few, c), len(few))
        rows.append(row(name, "sampling, masks", ms, found, truth[: len(few)]))
        found, ms = timed(lambda c=contrast: played(test, c, PLAN), len(test))
        rows.append(row(name, "sampling, closed form", ms, found, truth))
        network, standard = learned(train, contrast, steps)
        found, ms = timed(lambda n=network, s=standard: predicted(n, s, test), len(test))
        rows.append(row(name, "UNSIL", ms, found, truth))
        rows[-1].append(float(truth.std()))
    return rows


def page(result: dict[str, Any]) -> str:
    """The table as Markdown."""
    cells = []
    for one in result["rows"]:
        score, by, ms, *numbers = one[: len(HEAD)]
        rest = [f"{value:.2f}" for value in numbers[1:]]
        cells.append([score, by, f"{ms:.3g}", f"{numbers[0]:.2g}", *rest])
    seen = result["environment"]
    spreads = ", ".join(f"{one[0]} {one[-1]:.2g}" for one in result["rows"] if len(one) > len(HEAD))
    return "\n".join([
        "# LOUPE: predicted and sampled interactions",
        "",
        f"{seen['date']}, commit {seen['commit']}, `{result['command']}`; {seen['cpu']}, one "
        f"thread, torch {seen['torch']}. Tokens and regions of the run `{result['run']}`; "
        f"{result['pairs']} test pairs of {result['data']}, "
        f"{result['regions']} regions each, 64 coalitions a region; the predictor learned "
        f"in {result['steps']} steps of {CHUNK} training pairs. Deviation of the truth over all "
        f"regions: {spreads}.",
        "",
        *md_table(HEAD, cells, words=2),
        "",
    ])  # fmt: skip


def main() -> None:
    """Compare, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--pairs", type=int, default=512)
    parser.add_argument("--steps", type=int, default=400)
    args = parser.parse_args()
    torch.set_num_threads(1)
    np.random.seed(0)
    system = tenfold.load(args.run)
    assert isinstance(system, Loupe)
    before = machine()
    command = f"python claims/loupe_unsil.py RUN --pairs {args.pairs} --steps {args.steps}"
    result = {
        "rows": compared(system, args.pairs, args.steps),
        "pairs": args.pairs, "steps": args.steps, "regions": system.cfg.games.regions,
        "data": system.data_used().name, "run": args.run.name, **before, "command": command,
        "environment": {**before["environment"], "command": command},
    }  # fmt: skip
    (HERE / "loupe-unsil.json").write_text(json.dumps(result, indent=1) + "\n")
    (HERE / "loupe-unsil.md").write_text(page(result))
    print(page(result))


if __name__ == "__main__":
    main()
