"""LOUPE's games against one coalition at a time, and beside shapiq where that is installed.

python benchmarks/loupe_games.py        # writes benchmarks/results/loupe_games.KIND.json and .md

One process, one thread, made-up tokens. A part of LOUPE's benchmark, in three tables:

- the interactions J(R) of a batch, 64 images of 49 patches with 10 regions of 9 patches and 64
  coalitions each in one call, against a loop over regions and coalitions in NumPy (of one image,
  times 64), all masks of one image in one product, and the predictor (UNSIL) of the same regions;
  loop and closed form are compared on the same coalitions;
- all pairs of 14 players, solved exactly by both sides, their numbers compared;
- all pairs of 49 players by samples: time and root mean square error, against an estimate of ours
  from 40000 coalitions, whose own error is given. shapiq's approximators have the same game. Beside
  each stands how much longer it takes than the cheapest closed form with at most the same error.

Times are those of the processor, so that a busy machine changes them little. shapiq brings numba
and scikit-learn along, and none of tenfold needs it: `pip install shapiq==1.4.1` in an environment
of its own adds its rows.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parent))
import rates  # noqa: E402
from rates import RESULTS, machine, products  # noqa: E402

from tenfold.report.claim import md_table  # noqa: E402
from tenfold.systems.loupe import games  # noqa: E402
from tenfold.systems.loupe.games import exact, sampled  # noqa: E402
from tenfold.systems.loupe.unsil import Unsil  # noqa: E402

IMAGES, GRID, REGIONS, DIM = 64, 7, 10, 256
BUDGETS = {
    "KernelSHAPIQ": (2048, 4096),
    "SHAPIQ": (2048, 4096),
    "PermutationSamplingSII": (2048, 20_000, 100_000),
}
"""Coalitions that shapiq's approximators may look at."""
SAMPLES = (4, 16, 64, 256)
"""Coalitions that we draw; each is looked at with every one and every two players changed."""
SEEDS, MORE_SEEDS = 3, 12
"""Estimates that an error is the mean of: shapiq's, and ours, which are quick."""


@dataclass(frozen=True)
class Timed:
    """Seconds of the best of some rounds."""

    seconds: float
    result: Any


def timed(work: Callable[[], Any], rounds: int = 5) -> Timed:
    """Processor time of the fastest round."""
    best, result = float("inf"), None
    for _ in range(rounds):
        start = time.process_time()
        result = work()
        best = min(best, time.process_time() - start)
    return Timed(best, result)


def plain_interactions(
    tokens: np.ndarray, text: np.ndarray, regions: np.ndarray, masks: np.ndarray, ends: np.ndarray
) -> np.ndarray:
    """J(R) of one image's regions, one coalition at a time."""

    def value(some: np.ndarray) -> float:
        if not some.any():
            return 0.0
        z = tokens[some].sum(0)
        return float(z @ text / np.sqrt(z @ z))

    found = []
    for region, drawn, weight in zip(regions, masks, ends, strict=True):
        members = np.flatnonzero(region)

        def bracket(some: np.ndarray, region=region, members=members) -> float:
            total = value(some | region) + (len(members) - 1) * value(some)
            for member in members:
                with_it = some.copy()
                with_it[member] = True
                total -= value(with_it)
            return total

        at_ends = [bracket(np.zeros_like(region)), bracket(~region)]
        mean = np.mean([bracket(some) for some in drawn])
        found.append((1 - weight.sum()) * mean + float(weight @ at_ends))
    return np.array(found)


def batch() -> tuple[Tensor, Tensor, Tensor]:
    """Tokens, a text and square regions of each image."""
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randn(IMAGES, GRID**2, DIM, generator=generator) + 0.3
    texts = torch.randn(IMAGES, 1, DIM, generator=generator) + 0.3
    corner = torch.randint(0, GRID - 2, (IMAGES, REGIONS, 2, 1), generator=generator)
    at = torch.arange(GRID)
    rows, columns = ((at >= corner) & (at < corner + 3)).unbind(2)
    return tokens, texts, (rows[..., None] & columns[..., None, :]).flatten(2)


def of_a_batch() -> dict[str, float]:
    """Milliseconds a pair of image and text; rates of the closed form."""
    tokens, texts, regions = batch()
    drawn = games.draws.draw(~regions, games.Sampling())
    one, direction = tokens[0].numpy(), texts[0, 0] / texts[0, 0].norm()
    sides = (regions[0].numpy(), drawn.masks[0].numpy(), drawn.ends[0].numpy())
    plain = timed(lambda: plain_interactions(one, direction.numpy(), *sides), 3)
    same = games.tokens.interactions(tokens, texts, regions, draws=drawn).value[0, :, 0]
    ours = timed(lambda: games.tokens.interactions(tokens, texts, regions))

    def masked(masks: Tensor) -> Tensor:  # of which nothing is known but its values
        z = masks.float() @ tokens[0]
        return z @ direction / z.norm(dim=1).clamp(min=1e-30)

    plain_torch = timed(lambda: sampled.interactions(masked, regions[0]))
    predictor = Unsil(DIM).eval()
    with torch.no_grad():
        guessed = timed(lambda: predictor(tokens, texts[:, 0], regions))

    def once() -> object:
        return games.tokens.interactions(tokens, texts, regions)

    share, rate = products(once)
    bound = rates.unavoidable([once], ours.seconds, clock=time.process_time)
    return {
        "loop_ms": 1e3 * plain.seconds,
        "masks_in_one_product_ms": 1e3 * plain_torch.seconds,
        "closed_form_ms": 1e3 * ours.seconds / IMAGES,
        "predictor_ms": 1e3 * guessed.seconds / IMAGES,
        "ratio": plain.seconds / ours.seconds * IMAGES,
        "ratio_of_predictor": plain.seconds / guessed.seconds * IMAGES,
        "batch_ms": 1e3 * ours.seconds,
        "largest_difference": float(np.abs(same.numpy() - plain.result).max()),
        "share_of_products": share,
        "products_of_large_product": rate / bound[rates.RATE],
        **bound,
    }


def game(players: int) -> tuple[games.SummedTokens, Callable[[np.ndarray], np.ndarray]]:
    """The cosine of summed tokens with a text, for us and as a function of arrays."""
    generator = torch.Generator().manual_seed(players)
    tokens = torch.randn(players, DIM, generator=generator).double() + 0.3
    text = torch.randn(DIM, generator=generator).double() + 0.3
    x, t = tokens.numpy(), (text / text.norm()).numpy()

    def score(masks: np.ndarray) -> np.ndarray:
        z = np.atleast_2d(np.asarray(masks, float)) @ x
        length = np.linalg.norm(z, axis=1)
        return z @ t / np.where(length > 0, length, 1)

    return games.SummedTokens(tokens, text), score


def by_pairs(values: Any, players: int) -> np.ndarray:
    """Numbers of all pairs, of shapiq's results."""
    rows, columns = np.triu_indices(players, 1)
    return np.array([values[(int(i), int(j))] for i, j in zip(rows, columns, strict=True)])


def exactly(players: int = 14) -> dict[str, float]:
    """Seconds of an exact solution of all pairs."""
    score, other = game(players)
    ours = timed(lambda: exact.pairs(exact.table(score, players)))
    found = {"ours_s": ours.seconds}
    if find_spec("shapiq"):
        from shapiq import ExactComputer

        theirs = timed(lambda: ExactComputer(other, n_players=players)("SII", 2), 1)
        want = by_pairs(theirs.result, players)
        mine = ours.result.numpy()[np.triu_indices(players, 1)]
        found |= {"shapiq_s": theirs.seconds, "ratio": theirs.seconds / ours.seconds}
        found["largest_difference"] = float(np.abs(want - mine).max())
    return found


def by_samples(players: int = 49) -> list[dict[str, Any]]:
    """Seconds and error of estimates of all pairs."""
    score, other = game(players)
    upper = np.triu_indices(players, 1)
    many = games.Sampling(samples=512, standard_error=1e-12, most=40_000)
    reference = sampled.pairs(score, players, many, generator=torch.Generator().manual_seed(9))
    want = reference.value.numpy()[upper]
    error = float(reference.standard_error.numpy()[upper].mean())
    rows = [
        {"side": "reference", "seen": 0, "s": 0.0, "error": error},
        {"side": "no interaction", "seen": 0, "s": 0.0, "error": float(np.sqrt((want**2).mean()))},
    ]

    def plain(masks: Tensor) -> Tensor:
        return torch.from_numpy(other(masks.numpy()))

    for side, one in (("closed form", score), ("any score", plain)):
        for samples in SAMPLES:
            plan = games.Sampling(samples=samples)

            def once(seed: int, one: Any = one, plan: games.Sampling = plan) -> np.ndarray:
                generator = torch.Generator().manual_seed(seed)
                return sampled.pairs(one, players, plan, generator=generator).value.numpy()

            seen = (samples + 2) * (1 + players + players * (players - 1) // 2)
            rows.append(row(f"ours, {side}, {samples} draws", seen, once, upper, want))
    if find_spec("shapiq"):
        import shapiq

        for name, budgets in BUDGETS.items():
            for budget in budgets:

                def other_once(seed: int, name: str = name, budget: int = budget) -> np.ndarray:
                    kind = getattr(shapiq, name)
                    one = kind(n=players, max_order=2, index="SII", random_state=seed)
                    found = np.zeros((players, players))
                    found[upper] = by_pairs(one.approximate(budget, other), players)
                    return found

                rows.append(row(f"shapiq, {name}", budget, other_once, upper, want))
    kinds = {"times_ours": "closed form", "times_any_score": "any score"}
    return [one | {key: times(one, rows, kind) for key, kind in kinds.items()} for one in rows]


def times(one: dict[str, Any], rows: list[dict[str, Any]], kind: str) -> float:
    """How much longer a row of shapiq takes than the cheapest of ours of no larger error."""
    ours = [r["s"] for r in rows if kind in r["side"] and r["error"] <= one["error"]]
    return one["s"] / min(ours) if ours and one["side"].startswith("shapiq") else 0.0


def row(
    side: str, seen: int, once: Callable[[int], np.ndarray], upper: Any, want: np.ndarray
) -> dict[str, Any]:
    """An estimate's line: the time of its fastest seed, the error of all of them."""
    seeds = MORE_SEEDS if side.startswith("ours") else SEEDS
    done = [timed(lambda seed=seed: once(seed), 1) for seed in range(seeds)]
    found = np.stack([one.result[upper] for one in done])
    error = float(np.sqrt(np.square(found - want).mean()))
    seconds = min(one.seconds for one in done)
    return {"side": side, "seen": seen, "s": seconds, "error": error}


def measure() -> dict[str, Any]:
    """All three tables."""
    return {"batch": of_a_batch(), "exact": exactly(), "sampled": by_samples()}


def page(result: dict[str, Any]) -> str:
    """The tables in Markdown."""
    batch, solved = result["batch"], result["exact"]
    share, rate = batch["share_of_products"], batch["products_of_large_product"]
    lines = [
        "# LOUPE's games: ours against one coalition at a time, and beside shapiq\n",
        f"{rates.setting(result)} shapiq {result['shapiq'] or 'not installed'}. "
        "Times are the processor's, of the fastest of some rounds.\n",
        f"Interactions J(R) of a batch in one call ({IMAGES} images of {GRID**2} tokens, {REGIONS} "
        f"regions of 9, 64 coalitions each): **{batch['batch_ms']:.1f} ms**. Products are "
        f"{share:.0%} of it, at {rate:.0%} of the rate of a product of two square matrices; at "
        f"that rate they would take {rates.share(batch)}. Loop and closed form differ by "
        f"{batch['largest_difference']:.0e} on the same coalitions.\n",
    ]
    rows = [
        ["NumPy, one coalition at a time", f"{batch['loop_ms']:.1f}", "1"],
        ["any score, all masks of an image in one product",
         f"{batch['masks_in_one_product_ms']:.2f}",
         f"{batch['loop_ms'] / batch['masks_in_one_product_ms']:.0f}"],
        ["closed form, a batch", f"{batch['closed_form_ms']:.3f}", f"**{batch['ratio']:.0f}**"],
        ["predictor (UNSIL), a batch", f"{batch['predictor_ms']:.3f}",
         f"{batch['ratio_of_predictor']:.0f}"],
    ]  # fmt: skip
    lines += [*md_table(["one image and its text", "ms", "times as fast"], rows, words=1), ""]
    if "shapiq_s" in solved:
        lines.append(
            f"All pairs of 14 players exactly: ours {1e3 * solved['ours_s']:.1f} ms, shapiq "
            f"{solved['shapiq_s']:.2f} s, **{solved['ratio']:.0f} times**; they differ by "
            f"{solved['largest_difference']:.0e}.\n"
        )
    lines.append(
        "Estimates of all pairs of 49 players. An error above that of “no interaction” is worse "
        "than saying that there is none. The last columns: how much longer shapiq takes than the "
        "cheapest row of ours whose error is no larger, with the closed form, and with the same "
        "function of masks that shapiq has.\n"
    )
    head = ["", "coalitions", "s", "error", "times closed form", "times any score"]
    rows = []
    for one in result["sampled"]:
        ratios = [one["times_ours"], one["times_any_score"]]
        cells = [
            str(one["seen"] or ""),
            f"{one['s']:.4f}" if one["s"] else "",
            f"{one['error']:.1e}",
        ]
        rows.append([one["side"], *cells, *(f"**{r:.1f}**" if r else "" for r in ratios)])
    return "\n".join([*lines, *md_table(head, rows, words=1), ""])


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    has_it = find_spec("shapiq") is not None
    if not has_it:
        print("shapiq is not installed: no rows of it. pip install shapiq==1.4.1 adds them.\n")
    before = machine()  # its load is that before the run
    result = {
        **before,
        "command": "python benchmarks/loupe_games.py",
        "shapiq": version("shapiq") if has_it else "",
        **measure(),
    }
    rates.write("loupe_games", result, page(result), args.out)


if __name__ == "__main__":
    main()
