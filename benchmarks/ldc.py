"""LDC: base training and sessions against the straightforward computation.

python benchmarks/ldc.py                 # writes benchmarks/results/ldc.KIND.json and .md
python benchmarks/ldc.py --accuracy      # also trains both ways and compares held-out accuracy

One process, one thread. Both sides have the same weights and batches and are found equal first
(gradients in float64). Base training: plain float32 in NCHW against channels-last under bf16
autocast, a step of 128 pictures of 32 x 32. Sessions: autograd and torch.optim.SGD, as the released
code does, against the written-out gradient. The unit: one class a step (official) against all
classes in one step, where the two do not compute the same and the loss after equal passes is given
too. Beside each ratio stands the share of our time that no side can do without (rates.py). Times
are wall-clock; run it on an otherwise idle machine.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import rates
import torch
from rates import RESULTS, quartiles
from torch.nn import functional

from tenfold.core.allocator import keep_freed_memory
from tenfold.core.optim import build, lr_factor, one_group
from tenfold.core.seed import generator
from tenfold.report.markdown import md_table
from tenfold.systems.ldc import Ldc
from tenfold.systems.ldc.calibration_unit import (
    UnitTrainingModel,
    matching_loss,
    real_features,
    unit_batches,
)
from tenfold.systems.ldc.heads import cosine
from tenfold.systems.ldc.heads import statistics as statistics_of
from tenfold.systems.ldc.model import BaseTrainingModel, Network, new_unit
from tenfold.systems.ldc.recipes import OFFICIAL, SMALL
from tenfold.systems.ldc.rehearsal import tune

CLASSES, BATCH = 60, 128
COMPARES = (
    "in one process, same weights and batches (base training is equal in float32 and ours runs in "
    "bf16 where the CPU computes in it; sessions are equal; the two ways to train the unit are not)"
)
Sides = dict[str, Callable[[], object]]
PLAIN = "plain (float32, NCHW)"
OURS = f"ours ({'bf16' if rates.BF16 else 'float32'}, channels-last)"
LAST = "float32, channels-last" if rates.BF16 else OURS
WAYS = {
    PLAIN: (torch.contiguous_format, False),
    LAST: (torch.channels_last, False),
    **({"bf16, NCHW": (torch.contiguous_format, True)} if rates.BF16 else {}),
    OURS: (torch.channels_last, rates.BF16),
}


def autocast(on: bool) -> AbstractContextManager[Any]:
    return torch.autocast("cpu", torch.bfloat16, enabled=on)


def trainee(
    layout: torch.memory_format, seed: int = 0, classes: int = CLASSES
) -> BaseTrainingModel:
    torch.manual_seed(seed)
    network = Network(SMALL.model, SMALL.calibration, classes, seed)
    network.encoder.to(memory_format=layout)
    return BaseTrainingModel(network)


def pictures(layout: torch.memory_format) -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(1)
    images = torch.randn(BATCH, 3, 32, 32, generator=draw).contiguous(memory_format=layout)
    return {"images": images, "labels": torch.randint(CLASSES, (BATCH,), generator=draw)}


def assert_equal_training() -> dict[str, float]:
    """Loss in float32, gradients in float64 (float32 has only noise left), loss in bf16."""
    losses, gradients = {}, {}
    for name, (layout, half) in WAYS.items():
        with torch.no_grad(), autocast(half):
            losses[name] = float(trainee(layout)(pictures(layout))["loss"])
        if not half:
            model, batch = trainee(layout).double(), pictures(layout)
            batch["images"] = batch["images"].double()
            # the trainee works in float32 behind the encoder
            model.encoder(batch["images"]).square().mean().backward()
            gradients[name] = torch.cat([p.grad.flatten() for p in model.encoder.parameters()])
    want, got = losses[PLAIN], losses[LAST]
    wanted, gradient = gradients.values()
    worst = float((gradient - wanted).abs().max() / wanted.abs().max())
    assert abs(got - want) < 1e-5 and worst < 1e-9, (got, want, worst)
    return {
        "loss, float32": abs(got - want),
        "gradients, float64 (relative)": worst,
        **({"loss, bf16": abs(losses[OURS] - want)} if rates.BF16 else {}),
    }


def training() -> Sides:
    sides: Sides = {}
    for name, (layout, half) in WAYS.items():
        model, batch = trainee(layout), pictures(layout)
        optimiser = build(model, replace(SMALL.optim, lr=1e-3), one_group)

        def step(model=model, batch=batch, optimiser=optimiser, half=half) -> None:
            optimiser.zero_grad(set_to_none=True)
            with autocast(half):
                loss = model(batch)["loss"]
            loss.backward()
            optimiser.step()

        sides[name] = step
    return sides


def features(dim: int, classes: int, each: int) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(2)
    means = torch.rand(classes, 1, dim, generator=draw)
    made = (means + 0.2 * torch.randn(classes, each, dim, generator=draw)).relu()
    return made.flatten(0, 1), torch.arange(classes).repeat_interleave(each)


def released_session(
    vectors: torch.Tensor, samples: torch.Tensor, labels: torch.Tensor
) -> torch.Tensor:
    """A session's optimisation as the released code does it: autograd, SGD, batches in order."""
    vectors = vectors.clone().requires_grad_()
    sgd = torch.optim.SGD([vectors], OFFICIAL.session_lr, 0.9, dampening=OFFICIAL.dampening)
    size = OFFICIAL.session_batch
    for _ in range(OFFICIAL.session_epochs):
        for first in range(0, len(samples) - size + 1, size):
            x, y = samples[first : first + size], labels[first : first + size]
            loss = functional.cross_entropy(cosine(x, vectors, 16.0), y)
            sgd.zero_grad()
            loss.backward()
            sgd.step()
    return vectors.detach()


def session(dim: int, classes: int) -> tuple[Sides, float]:
    samples, labels = features(dim, classes, 5)
    vectors = torch.stack([samples[labels == c].mean(0) for c in range(classes)])

    def ours() -> torch.Tensor:
        return tune(vectors, samples, labels, 16.0, OFFICIAL, generator(0))[0]

    def theirs() -> torch.Tensor:
        return released_session(vectors, samples, labels)

    worst = float((ours() - theirs()).abs().max())
    assert worst < 1e-4, worst
    return {"straightforward (autograd)": theirs, "ours": ours}, worst


def units() -> tuple[Sides, dict[str, float]]:
    """A pass over 60 classes, one a step or all at once; and the loss after 20 passes of each."""
    made, labels = features(64, CLASSES, 40)
    base, real = statistics_of(made, labels), real_features(made, labels, 30, 0)
    sides: Sides = {}
    losses = {}
    for name, step in (("one class a step (official)", "class"), ("all classes in a step", "all")):
        settings = replace(OFFICIAL, step=step)
        unit = new_unit(64, settings, 0)
        model = UnitTrainingModel(unit, settings, 16.0, base.covariance)
        optimiser = torch.optim.SGD(model.parameters(), 0.1, 0.9, dampening=0.9)
        batches, steps = (
            unit_batches(base, real, settings, unit, 0),
            CLASSES if step == "class" else 1,
        )

        def one_pass(model=model, optimiser=optimiser, batches=batches, steps=steps) -> None:
            for index in range(steps):
                optimiser.zero_grad(set_to_none=True)
                model(batches(index))["loss"].backward()
                optimiser.step()

        start = unit_batches(base, real, replace(settings, step="all"), unit, 0)(0)
        with torch.no_grad():
            losses["before"] = float(matching_loss(real, unit(start["start"]), "raw", 16.0).mean())
        for _ in range(20):
            one_pass()
        with torch.no_grad():
            losses[name] = float(matching_loss(real, unit(start["start"]), "raw", 16.0).mean())
        sides[name] = one_pass
    return sides, losses


def measured(
    what: str, sides: Sides, rounds: int, repeats: int, dtype: torch.dtype = torch.float32,
    same: bool = True, others: dict[str, torch.dtype] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Every side in turns; the ratio is of runs next to each other, over the last side.

    What no side can do without is of the leanest if all compute the `same`, else of the last; it
    is given for the last side, whose products are of `dtype`, and for `others`, with their types.
    """
    for function in sides.values():
        function()
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, function in sides.items():
            start = time.perf_counter()
            for _ in range(repeats):
                function()
            seconds[name].append((time.perf_counter() - start) / repeats)
    last = list(sides)[-1]
    ours = seconds[last]
    ratio = {
        name: quartiles([a / b for a, b in zip(each, ours, strict=True)])
        for name, each in seconds.items()
        if each is not ours
    }
    each = {name: quartiles(values) for name, values in seconds.items()}
    lean = sides.values() if same else [sides[last]]
    types = {**(others or {}), last: dtype}
    bounds = {
        name: rates.unavoidable(lean, statistics.median(seconds[name]), of)
        for name, of in types.items()
    }
    row = {"what": what, "seconds": each, "ratio": ratio, "rounds": rounds}
    return {**row, **bounds[last], "bounds": bounds, "where": rates.where(sides[last])}


def accuracy(epochs: int, seeds: int) -> dict[str, list[float]]:
    """Held-out accuracy (%) of 20 base classes after equal training, plain and ours."""
    found: dict[str, list[float]] = {PLAIN: [], OURS: []}
    for seed in range(seeds):
        data = replace(SMALL.data, base=20, rotations=False, holdout=0.2)
        cfg = Ldc.complete(replace(SMALL, data=data, seed=seed))
        if cfg.data.name != data.name:  # the page names the data
            raise ValueError(f"--accuracy needs {data.name}: set TENFOLD_DATA to where it lies")
        system = Ldc(cfg)
        for name in found:
            layout, half = WAYS[name]
            model = trainee(layout, seed, 20)
            optim = replace(SMALL.optim, warmup=20)
            optimiser = build(model, optim, one_group)
            steps = epochs * system.images.epochs.steps
            for step in range(steps):
                batch = system.images.batch(step)
                batch["images"] = batch["images"].contiguous(memory_format=layout)
                for group in optimiser.param_groups:
                    group["lr"] = optim.lr * lr_factor(optim, step, steps)
                optimiser.zero_grad(set_to_none=True)
                with autocast(half):
                    loss = model(batch)["loss"]
                loss.backward()
                optimiser.step()
            model.eval()
            with torch.no_grad():
                found[name].append(system.held_accuracy(model)["accuracy"])
    return {name: [round(value, 2) for value in values] for name, values in found.items()}


def page(result: dict[str, Any]) -> str:
    rows = []
    for timing in result["timings"]:
        for i, (side, (low, middle, high)) in enumerate(timing["seconds"].items()):
            ratio = timing["ratio"].get(side)
            over = "" if ratio is None else f"**{ratio[1]:.2f}** ({ratio[0]:.2f}-{ratio[2]:.2f})"
            spread = f"{1e3 * middle:.1f} ms ({1e3 * low:.1f}-{1e3 * high:.1f})"
            bound = rates.share(timing["bounds"][side]) if side in timing["bounds"] else ""
            rows.append([timing["what"] if i == 0 else "", side, spread, over, bound])
    heads = ["", "side", "time", "over the last side (quartiles)", "unavoidable"]
    lines = [
        "# LDC: ours against the straightforward computation",
        "",
        f"{rates.setting(result)} Times: median (quartiles) of wall-clock; ratio: "
        f"median over rounds of runs next to each other. {rates.MEANS}",
        "",
        *md_table(heads, rows, words=2),
        "",
        *rates.below_goal(result["timings"]),
        "Differences before timing: "
        + ", ".join(f"{k} {v:.1e}" for k, v in result["differences"].items()) + ".",
        "",
        "The unit's loss a class after 20 passes (these two do not compute the same): "
        + ", ".join(f"{k} {v:.3f}" for k, v in result["unit loss"].items()) + ".",
        "",
    ]  # fmt: skip
    if result["accuracy"]:
        each = ", ".join(f"{k} {v}" for k, v in result["accuracy"]["percent"].items())
        lines += [
            f"Held-out accuracy after {result['accuracy']['epochs']} passes over 20 classes of "
            f"tiny_imagenet_fscil (real; a fifth held out; percent, a number a seed): {each}.", "",
        ]  # fmt: skip
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--accuracy", action="store_true")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    before = rates.machine()  # its load is that before the run
    keep_freed_memory()
    differences = assert_equal_training()
    small, differences["session vectors, 64 features"] = session(64, 100)
    large, differences["session vectors, 512 features"] = session(512, 200)
    unit, losses = units()
    timings = [
        measured(
            "base training, a step of 128" + ("" if rates.BF16 else ", float32"),
            training(),
            args.rounds,
            2,
            torch.bfloat16 if rates.BF16 else torch.float32,
            others={LAST: torch.float32},
        ),
        measured("a session's vectors, 100 classes, 64 features", small, args.rounds, 1),
        measured(
            "a session's vectors, 200 classes, 512 features", large, max(3, args.rounds // 3), 1
        ),
        measured("a pass of the unit's training, 60 classes", unit, args.rounds, 1, same=False),
    ]
    percent = accuracy(args.epochs, args.seeds) if args.accuracy else {}
    words = f" --accuracy --epochs {args.epochs}" if args.accuracy else ""
    result = {
        "compares": COMPARES,
        "timings": timings,
        "differences": differences,
        "unit loss": losses,
        "accuracy": {"epochs": args.epochs, "percent": percent} if percent else {},
        **before,
        "command": f"python benchmarks/ldc.py --rounds {args.rounds}{words}",
    }
    rates.write("ldc", result, page(result), args.out)


if __name__ == "__main__":
    main()
