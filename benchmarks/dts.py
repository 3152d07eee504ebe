"""A step of DACS, DAFormer and DTS against the straightforward computation in the official order.

python benchmarks/dts.py                # writes benchmarks/results/dts.KIND.json and .md

One process, one thread; MiT-B0 with DAFormer's head, crops of 192 x 192, 2 source and 2 target
images, and a MiT of 0.6 million parameters at the crops and batch of recipe `small`. Both sides
have the same weights, images and draws; their losses are found equal at every step that is timed.
Both keep freed memory. A profile says how much of our time goes into matrix products and
convolutions, which both sides need; how much the leaner side's would take at the rate of one large
product stands beside it (rates.py).
The peak of memory is that of a fresh process, over what it held before the step; DTS in one
backward pass keeps the activations of all passes of both groups. Last, what is learned under bf16
autocast in as many steps, on images held out of the source. Times are wall-clock; run it on an idle
machine.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).parent))
import rates  # noqa: E402
from rates import RESULTS, machine, products, quartiles  # noqa: E402
from straightforward_dts import PlainHost, PlainNetwork  # noqa: E402

from tenfold.core import optim  # noqa: E402
from tenfold.core.allocator import keep_freed_memory  # noqa: E402
from tenfold.report.claim import md_table  # noqa: E402
from tenfold.systems.dts import data  # noqa: E402
from tenfold.systems.dts.config import Config  # noqa: E402
from tenfold.systems.dts.groups import Draws, SelfTraining, SourceTraining  # noqa: E402
from tenfold.systems.dts.hosts import Students  # noqa: E402
from tenfold.systems.dts.model import Networks, probabilities  # noqa: E402
from tenfold.systems.dts.rates import parameter_groups  # noqa: E402
from tenfold.systems.dts.recipes import PAPER, SMALL, TINY  # noqa: E402

COMPARES = "in one process, same weights, images and draws; losses equal at every step"
STEPS, HELD_OUT = 300, 100
"""Of the comparison of what is learned: steps, and images of the source that are not trained on."""
Step = Callable[[], dict[str, float]]


def b0(host: str, method: str) -> Config:
    model = replace(PAPER.model, dims=(32, 64, 160, 256), depths=(2, 2, 2, 2))
    cut = replace(PAPER.data, crop=(192, 192), border=(0, 0, 0, 0))
    cfg = replace(PAPER, model=model, data=cut, classes=tuple(f"class {i}" for i in range(19)))
    return with_method(replace(cfg, host=replace(PAPER.host, name=host)), method)


def with_method(cfg: Config, method: str) -> Config:
    deploy = "student2" if method == "dts" else "student1"
    return replace(cfg, method=method, groups=replace(cfg.groups, warmup=0, deploy=deploy))


def small(method: str) -> Config:
    names = tuple(f"class {i}" for i in range(11))
    cfg = replace(SMALL, model=TINY, optim=PAPER.optim, classes=names)
    return with_method(replace(cfg, host=replace(SMALL.host, name="dacs")), method)


CASES: dict[str, Callable[[], Config]] = {
    "DACS, B0": lambda: b0("dacs", "host"),
    "DAFormer, B0": lambda: b0("daformer", "host"),
    "DTS on DAFormer, B0": lambda: b0("daformer", "dts"),
    "DACS, 0.6 M": lambda: small("host"),
    "DTS on DACS, 0.6 M": lambda: small("dts"),
}


def inputs(cfg: Config) -> dict[str, Any]:
    """A batch of noise whose labels are squares."""
    draw = torch.Generator().manual_seed(1)
    size, (height, width) = cfg.data.batch_size, cfg.data.crop
    found: dict[str, Any] = {"index": 0, "places": list(range(size))}
    for group in (1, 2):
        squares = (size, height // 32, width // 32)
        coarse = torch.randint(len(cfg.classes), squares, generator=draw)
        labels = coarse.repeat_interleave(32, 1).repeat_interleave(32, 2).byte()
        found[f"labels{group}"] = labels
        found[f"source{group}"] = torch.randn(size, 3, height, width, generator=draw)
    for side in "ab":
        found[f"target_{side}"] = torch.randn(size, 3, height, width, generator=draw)
        found[f"valid_{side}"] = torch.ones(size, height, width, dtype=torch.bool)
    return found


def things(cfg: Config) -> range:
    return range(len(cfg.classes) // 2, len(cfg.classes))


def networks(cfg: Config) -> Networks:
    torch.manual_seed(0)
    made = Networks(cfg)
    made.begin_groups(own_heads=True)
    return made


def ours(cfg: Config, made: Networks, half: bool, at_once: bool = False) -> Step:
    """Our step; `at_once` keeps the graphs of all passes for one backward pass."""
    batch, first = inputs(cfg), made.student(1)
    frozen = None
    if cfg.host.has_features:
        frozen = deepcopy(first.backbone).eval().requires_grad_(False)
    students = Students(
        [made.student(g) for g in range(1, made.num_groups + 1)], cfg.host, things(cfg)
    ).train()
    training = SelfTraining(cfg, made, frozen)
    optimiser = optim.build(students, cfg.optim, lambda m: parameter_groups(m, cfg.head_lr))
    for group in optimiser.param_groups:
        group["lr"] = cfg.optim.lr * group["lr_scale"]
    kept: list[torch.Tensor] = []

    def step() -> dict[str, float]:
        torch.manual_seed(batch["index"])
        students.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            losses = training(students, batch, kept.append if at_once else torch.Tensor.backward)
            if at_once:
                torch.stack(kept).sum().backward()
                kept.clear()
        found = {key: float(value) for key, value in losses.items()}
        optimiser.step()
        training.after_step(batch["index"])
        batch["index"] += 1
        return {key: value for key, value in found.items() if key.startswith("loss/")}

    return step


def plain(cfg: Config, made: Networks, half: bool) -> Step:
    """The straightforward step, of one host or of two that teach each other."""
    hosts = {}
    for group in range(1, made.num_groups + 1):
        pair = [PlainNetwork(cfg.model, len(cfg.classes)) for _ in range(2)]
        for network in pair:
            network.load_state_dict(made.student(group).state_dict())
        hosts[group] = PlainHost(cfg, *pair, things(cfg))
    batch = inputs(cfg)

    def step() -> dict[str, float]:
        index, found = batch["index"], {}
        torch.manual_seed(index)
        draws = Draws(cfg, batch)
        for host in hosts.values():
            host.average(index)
            host.optimiser.zero_grad()
        for group, host in hosts.items():
            teacher = hosts[3 - group] if len(hosts) > 1 else host
            images, labels = batch[f"source{group}"], batch[f"labels{group}"]
            with torch.autocast("cpu", torch.bfloat16, enabled=half):
                parts = host.supervised(images, labels)
                target = (batch["target_a"], *teacher.labels(batch["target_a"]))
                if group == 1:
                    above, below = (images, labels, torch.ones(labels.shape)), target
                    chosen = draws.classes("source classes", 1, labels)
                else:
                    below = (batch["target_b"], *teacher.labels(batch["target_b"]))
                    above, chosen = target, draws.classes("target classes", 2, target[1].byte())
                drawn = draws.strong("augmentation", group)
                parts.insert(1, host.mixed(above, below, chosen, drawn))
            names = ("source", "mixed", "features")
            found |= {f"loss/{n}{group}": v for n, v in zip(names, parts, strict=False)}
            host.optimiser.step()
        batch["index"] += 1
        return found

    return step


def timing(case: str, kind: str, rounds: int) -> dict[str, Any]:
    """Both sides in turns; the ratio is of steps next to each other."""
    keep_freed_memory()
    cfg, half = CASES[case](), rates.KINDS[kind]
    made = networks(cfg)
    sides = {"straightforward": plain(cfg, made, half), "ours": ours(cfg, made, half)}
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    worst = 0.0
    for number in range(rates.WARM + rounds):
        found = {}
        for name, step in sides.items():
            start = time.perf_counter()
            found[name] = step()
            if number >= rates.WARM:
                seconds[name].append(time.perf_counter() - start)
        assert found["ours"].keys() == found["straightforward"].keys(), found
        apart = [abs(found["ours"][key] - value) / max(abs(value), 1e-3)
                 for key, value in found["straightforward"].items()]  # fmt: skip
        worst = max(worst, *apart)
    assert half or worst < 1e-4, worst
    share, rate = products(sides["ours"])
    a, b = seconds["straightforward"], seconds["ours"]
    return {
        "what": f"{case}, {kind}",
        "seconds": {"straightforward": quartiles(a), "ours": quartiles(b)},
        "ratio": {"straightforward": quartiles([x / y for x, y in zip(a, b, strict=True)])},
        "share of products": round(share, 3),
        **rates.unavoidable(
            sides.values(), statistics.median(b), torch.bfloat16 if half else torch.float32
        ),
        "FLOP/s of products": round(rate),
        "largest difference of a loss": float(f"{worst:.1e}"),
        "where": rates.where(sides["ours"]),
        "rounds": rounds,
    }


def peak(side: str) -> int:
    """Bytes that the second step takes above what there was before it."""
    cfg = b0("daformer", "host" if "host" in side else "dts")
    made = networks(cfg)
    is_plain = side.startswith("straightforward")
    step = plain(cfg, made, False) if is_plain else ours(cfg, made, False, "at once" in side)
    step()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = in_use("VmRSS")
    step()
    return in_use("VmHWM") - before


def in_use(what: str) -> int:
    found = re.search(rf"{what}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found, f"the system does not say {what}"
    return 1024 * int(found[1])


PEAKS = (
    "straightforward host", "host", "DTS, one pass after the other", "DTS, all passes at once",
)  # fmt: skip


def learned(kind: str, seed: int) -> dict[str, float]:
    """Loss and accuracy on held-out images of streetsim after steps of recipe small."""
    keep_freed_memory()
    cfg = data.complete(replace(SMALL, method="source", seed=seed,
                                groups=replace(SMALL.groups, deploy="student1")))  # fmt: skip
    torch.manual_seed(seed)
    made = Networks(cfg)
    batches = data.Batches(cfg)
    whole, batches.rare = batches.source, None
    batches.source = whole.at(range(len(whole) - HELD_OUT))
    students = Students([made.student(1)], cfg.host, ()).train()
    settings = replace(cfg.source_optim, warmup=min(cfg.source_optim.warmup, STEPS))
    optimiser = optim.build(students, settings, lambda m: parameter_groups(m, cfg.head_lr))
    training = SourceTraining(cfg, made)
    for index in range(STEPS):
        optim.set_lr(optimiser, settings, index, STEPS)
        students.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=rates.KINDS[kind]):
            training(students, batches.supervised(index), torch.Tensor.backward)
        optimiser.step()
    network, losses, hits = made.student(1).eval(), [], []
    for row in range(len(whole) - HELD_OUT, len(whole)):
        picture, labels = whole.scene(row)
        image = data.normalised([data.resized(picture, cfg.data.source_size)])
        wanted = torch.tensor(data.resized_labels(labels, cfg.data.source_size)).long()[None]
        found = probabilities(network, image)
        losses.append(float(F.nll_loss(found.log(), wanted, ignore_index=255)))
        hits.append(float((found.argmax(1) == wanted)[wanted != 255].float().mean()))
    return {"loss": statistics.mean(losses), "accuracy": 100 * statistics.mean(hits)}


def page(result: dict[str, Any]) -> str:
    times, learned_rows = [], []
    for timed in result["timings"]:
        low, middle, high = timed["ratio"]["straightforward"]
        cells = [f"{m:.2f} s ({lo:.2f}-{hi:.2f})" for lo, m, hi in timed["seconds"].values()]
        times.append([timed["what"], *cells, f"**{middle:.2f}** ({low:.2f}-{high:.2f})",
                      f"{timed['share of products']:.0%}",
                      rates.share(timed),
                      f"{timed['FLOP/s of products'] / 1e9:.0f} of "
                      f"{timed[rates.RATE] / 1e9:.0f}",
                      f"{timed['largest difference of a loss']:.0e}"])  # fmt: skip
    peaks = [[what, f"{found / 2**20:.0f} MiB"] for what, found in result["peak bytes"].items()]
    for kind, runs in result["learned"].items():
        spread = [f"{statistics.mean(r[key] for r in runs):.{digits}f} "
                  f"({min(r[key] for r in runs):.{digits}f}-{max(r[key] for r in runs):.{digits}f})"
                  for key, digits in (("loss", 3), ("accuracy", 1))]  # fmt: skip
        learned_rows.append([kind, *spread])
    heads = ["a training step", "straightforward", "ours", "ratio", "products and convolutions",
             "unavoidable", "GFLOP/s", "losses differ by"]  # fmt: skip
    return "\n".join([
        "# DTS: ours against the straightforward computation",
        "",
        f"{rates.setting(result)} B0: 192 x 192, 2 + 2 images; "
        "0.6 M: a MiT of as many parameters, 96 x 128, 6 + 6 images. Times: median (quartiles) of "
        "wall-clock; ratio: median over rounds of steps next to each other; products and "
        "convolutions: their share of our time, and their rate against that of a product of two "
        f"square matrices. {rates.MEANS} Losses: the largest "
        "relative difference of a part of the loss at any step.",
        "",
        *md_table(heads, times, words=1),
        "",
        *rates.below_goal(result["timings"]),
        "What is left are passes over maps of 19 MB, which no cache of a core holds: normalisation "
        "and ReLU with their gradients, sums of Winograd's tiles, shifts of dilated kernels. All "
        "maps of the head are channels-last already (of this size, a gradient in the other order "
        "would make ReLU's 25 ms instead of 2, and normalisation's 60 instead of 6). In bf16 the "
        "small network's layers of 16 to 128 channels leave the processor's bf16 units idle.",
        "",
        "Memory that a step takes above weights, averages and the optimiser's state "
        "(DAFormer, B0, float32):",
        "",
        *md_table(["", "peak"], peaks, words=1),
        "",
        f"Learned in {STEPS} steps of recipe small on labelled streets, {len(runs)} seeds, on "
        f"{HELD_OUT} held-out images (mean, range):",
        "",
        *md_table(["", "cross entropy", "pixel accuracy"], learned_rows, words=1),
        "",
    ])  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--wrap", default="", help="command that each timing is run by (nice, ...)")
    parser.add_argument("--part", nargs="+", help="measure one part and print it (used within)")
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.part:
        what, *rest = args.part
        parts = {"timing": lambda: timing(*rest, args.rounds), "peak": lambda: peak(*rest),
                 "learned": lambda: learned(rest[0], int(rest[1]))}  # fmt: skip
        print(json.dumps(parts[what]()))
        return

    def part(*words: str, wrap: str = "") -> Any:
        command = [*wrap.split(), sys.executable, __file__, "--rounds", str(args.rounds)]
        done = subprocess.run([*command, "--part", *words], stdout=subprocess.PIPE, check=True)
        found = json.loads(done.stdout.splitlines()[-1])
        print(words, found, file=sys.stderr)
        return found

    before = machine()  # its load is that before the run
    result = {
        "compares": COMPARES,
        "timings": [part("timing", c, kind, wrap=args.wrap) for kind in rates.KINDS for c in CASES],
        "peak bytes": {side: part("peak", side) for side in PEAKS},
        "learned": {
            kind: [part("learned", kind, str(seed)) for seed in range(args.seeds)]
            for kind in rates.KINDS
        },
        **before,
        "command": f"python benchmarks/dts.py --rounds {args.rounds} --seeds {args.seeds}",
    }
    rates.write("dts", result, page(result), args.out)


if __name__ == "__main__":
    main()
