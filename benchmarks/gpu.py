"""What wants a GPU: steps of every system, layouts on NCCL, golden cases by the GPU's kernels.

benchmarks/gpu.sh                        # eight minutes at most
benchmarks/gpu.sh --device cpu --tiny --out FOLDER      # tries the script where there is none

1. The first stage of each system's recipe `small`, in fp32 and bf16: time of a step as the loop
   makes it, most memory, and FLOP/s of its products as a share of the data sheet's.
2. `tenfold check layouts` of PPMoE on two processes, where there are two devices.
3. `pytest tests/golden --device cuda`: each operation of the cases computes on the GPU.

A part that fails, or for which no time is left, says so; the others are written all the same.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from rates import machine  # noqa: E402
from torch.utils.flop_counter import FlopCounterMode

from tenfold.core import loop, run_folder
from tenfold.core.config import to_json
from tenfold.core.dist import World
from tenfold.core.peak import peak
from tenfold.core.prefetch import to_device
from tenfold.core.stage import Stage
from tenfold.report.markdown import md, md_table
from tenfold.runner.weights import completed, construct
from tenfold.systems import SYSTEMS, system_class

ROOT = Path(__file__).resolve().parent.parent
PARTS = ("steps", "layouts", "goldens")
KINDS = {"fp32": "off", "bf16": "bf16"}
STEPS = 22
"""Steps of each; the first two do not count."""
LONGEST_S = 60.0
"""Seconds that a system may take with both precisions."""
LAYOUTS = {
    "tensor parallel": ["--layout.tp", "2"],
    "pipeline": ["--layout.pp", "2", "--loop.accumulate", "4"],
    "data parallel": [],
    "all-to-all": ["--layout.dispatch", "alltoall"],
}


# --- steps -------------------------------------------------------------------------------------


def configured(name: str, tiny: bool) -> Any:
    """The recipe `small`; with `tiny` what tests train, on generated data."""
    if tiny:
        sys.path.insert(0, str(ROOT / "tests"))
        from tiny import config, options

        return config(name, "demo", options(name))
    cls = system_class(name)
    return completed(cls, cls.recipes["small"])


def step(name: str, kind: str, device: torch.device, tiny: bool) -> dict[str, Any]:
    """Steps of a system's first stage on one batch, through the loop."""
    with tempfile.TemporaryDirectory() as folder:
        cfg = configured(name, tiny)
        system = construct(system_class(name), cfg)
        system.work = Path(folder) / "work"
        stage = next(system.stages())
        batch, steps = stage.batches(0), 4 if tiny else STEPS
        flop = stage.work.flop if stage.work is not None else counted(stage, batch, device)
        stage = replace(stage, steps=steps, batches=lambda index: batch, validate=None, monitor="")
        settings = replace(
            cfg.loop, amp=KINDS[kind], accumulate=1, workers=0, validate_every=0, log_every=1,
            save_every=10 * steps, tensorboard=False,
        )  # fmt: skip
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        loop.train(iter([stage]), settings, World(0, 1, device), Path(folder), cfg.seed)
        text = (Path(folder) / "metrics.jsonl").read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    # in whole milliseconds, so not step by step
    seconds = (lines[-1]["seconds"] - lines[1]["seconds"]) / (len(lines) - 2)
    most = peak(device, kind == "bf16")
    return {
        "system": name,
        "stage": stage.name,
        "precision": kind,
        "parameters": sum(p.numel() for p in stage.model.parameters()),
        "seconds": seconds,
        "flop": flop,
        "peak_flops": most,
        "share_of_peak": flop / seconds / most if most and seconds else None,
        "memory_bytes": torch.cuda.max_memory_allocated() if device.type == "cuda" else None,
        "loss": lines[-1].get("loss"),
    }


def counted(stage: Stage, batch: Any, device: torch.device) -> float:
    """FLOP of a step's products, as torch counts them."""
    stage.model.to(device).train()
    with FlopCounterMode(display=False) as counter:
        stage.training_step(stage.model, to_device(batch, device), lambda loss: loss.backward())
    stage.model.zero_grad(set_to_none=True)
    return float(counter.get_total_flops())


def steps_of(name: str, device: torch.device, tiny: bool) -> list[dict[str, Any]]:
    """Both precisions of a system; what goes wrong is one line."""
    rows = []
    for kind in KINDS:
        try:
            rows.append(step(name, kind, device, tiny))
        except Exception as error:  # the other systems are to be measured all the same
            rows.append({"system": name, "precision": kind, "error": said(error)})
    return rows


def said(error: BaseException) -> str:
    """An error's first line with its kind."""
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"[:300]


def apart(name: str, args: argparse.Namespace, seconds: float) -> list[dict[str, Any]]:
    """`steps_of` in a process of its own: its memory, and its end, are its own."""
    words = [sys.executable, __file__, "--worker", name, "--device", args.device]
    words += ["--tiny"] * args.tiny
    done, why = ran(words, seconds)
    if done is not None and not done.returncode:
        rows: list[dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
        return rows
    return [{"system": name, "precision": kind, "error": why} for kind in KINDS]


def ran(words: list[str], seconds: float) -> tuple[Any, str]:
    """A finished command, or None, and why it failed."""
    try:
        done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=seconds)
    except subprocess.TimeoutExpired:
        return None, f"no answer in {seconds:.0f} s"
    last = (done.stderr.strip() or done.stdout.strip()).splitlines() or [""]
    return done, f"code {done.returncode}: {last[-1]}"[:300]


# --- layouts -----------------------------------------------------------------------------------


def layouts(args: argparse.Namespace, until: float) -> list[dict[str, Any]]:
    """Layouts of PPMoE on two processes against one, by the command that users have."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        cfg = replace(configured("ppmoe", args.tiny), loop=loop.Loop(device=args.device))
        identity = {"system": "ppmoe", "recipe": "small", "config": to_json(cfg)}
        run_folder.write_config(Path(folder), identity)
        for name, words in LAYOUTS.items():
            start = time.monotonic()
            done, why = ran(
                [sys.executable, "-m", "torch.distributed.run", "--standalone",
                 "--nproc-per-node", "2", "-m", "tenfold", "check", "layouts",
                 f"{folder}/config.json", *words],
                max(1.0, min(90.0, until - start)),
            )  # fmt: skip
            good = done is not None and not done.returncode
            seconds = time.monotonic() - start
            rows.append({"layout": name, "seconds": seconds, "error": "" if good else why})
    return rows


# --- golden cases ------------------------------------------------------------------------------


def goldens(args: argparse.Namespace, until: float) -> list[dict[str, Any]]:
    """Cases of each system that hold by the device's kernels."""
    # no time is measured, so a GPU may have several at once
    with ThreadPoolExecutor(4 if args.device == "cuda" else 1) as pool:
        return list(pool.map(lambda name: golden(name, args.device, until), args.systems))


def golden(name: str, device: str, until: float) -> dict[str, Any]:
    """Counts of one system's cases, from pytest's report."""
    tests = sorted((ROOT / "tests" / "golden").glob(f"test_{name}*.py"))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "goldens.xml"
        _, why = ran(
            [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--device", device,
             f"--junitxml={file}", *(str(test) for test in tests if "twins" not in test.stem)],
            max(1.0, until - time.monotonic()),
        )  # fmt: skip
        if not file.exists():
            return {"system": name, "error": why}
        cases = list(ElementTree.parse(file).iter("testcase"))
    row: dict[str, Any] = {"system": name, "passed": 0, "skipped": 0, "failed": [], "operations": 0}
    stayed: set[str] = set()
    for case in cases:
        properties = {p.get("name"): p.get("value", "") for p in case.iter("property")}
        row["operations"] += int(properties.get("operations") or 0)
        stayed |= set((properties.get("stayed") or "").split())
        if case.find("failure") is not None or case.find("error") is not None:
            row["failed"].append(case.get("name"))
        else:
            row["skipped" if case.find("skipped") is not None else "passed"] += 1
    return {**row, "stayed": sorted(stayed)}


# --- the result --------------------------------------------------------------------------------


def page(value: dict[str, Any]) -> str:
    """The results as Markdown."""
    where = value["machine"]["environment"]
    lines = [
        "# What a GPU makes of it", "",
        f"{where['date']}, commit {where['commit']}, `{value['command']}`; {where['device']}, "
        f"{value['devices']} device(s), torch {where['torch']}, {value['seconds']:.0f} s.", "",
    ]  # fmt: skip
    if value["steps"]:
        rows = []
        for r in value["steps"]:
            if r.get("error"):
                rows.append([r["system"], "", r["precision"], f"**{r['error']}**", *[""] * 4])
                continue
            memory, share = r["memory_bytes"], r["share_of_peak"]
            rows.append([
                r["system"], r["stage"], r["precision"], f"{1e3 * r['seconds']:.1f}",
                "–" if memory is None else f"{memory / 2**20:,.0f}", f"{r['flop'] / 1e9:,.1f}",
                "–" if share is None else f"{share:.1%}",
                "–" if r["loss"] is None else f"{r['loss']:.4g}",
            ])  # fmt: skip
        lines += [
            "## A training step", "",
            f"The first stage of the recipe `{value['recipe']}`, through the loop: forward, "
            "backward, gradient norm, optimiser, and reading the loss after each step. Batches are "
            "ready. FLOP: of products and convolutions, forward and backward, as torch counts them "
            "(PPMoE's: as its planner does). Share: of the data sheet's rate in that precision, in "
            "fp32 without TF32 (which torch lets convolutions use: they may pass that rate); "
            "of a CPU: of one large product.", "",
            *md_table(["system", "stage", "precision", "step [ms]", "most memory [MiB]", "GFLOP",
                       "share of peak", "loss"], [[md(c) for c in r] for r in rows], words=3), "",
        ]  # fmt: skip
    lines += ["## Layouts of PPMoE on two processes", ""]
    if value["layouts"]:
        rows = [[r["layout"], r["error"] or "equal to one process", f"{r['seconds']:.0f}"]
                for r in value["layouts"]]  # fmt: skip
        lines += [*md_table(["layout", "a step, float64", "seconds"],
                            [[md(c) for c in r] for r in rows], words=2), ""]  # fmt: skip
    else:
        lines += [f"Not run: {value['devices']} device(s).", ""]
    if value["goldens"]:
        lines += [
            "## Golden cases", "",
            "Each operation of a case that computes runs on the device, and its results return; "
            "what is changed in place or drawn at random stays on the CPU.", "",
        ]  # fmt: skip
        rows = []
        for r in value["goldens"]:
            if r.get("error"):
                rows.append([r["system"], f"**{r['error']}**", "", "", "", ""])
                continue
            rows.append([r["system"], ", ".join(r["failed"]), ", ".join(r["stayed"]),
                         str(r["passed"]), str(r["skipped"]), f"{r['operations']:,}"])  # fmt: skip
        head = ["system", "failed", "without a kernel", "passed", "skipped", "operations"]
        lines += [*md_table(head, [[md(c) for c in r] for r in rows], words=3), ""]
    return "\n".join(lines)


def main(words: list[str]) -> int:
    """Run the parts within the time; 1 if something failed, 2 without a GPU."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--tiny", action="store_true", help="the sizes of tests")
    parser.add_argument("--systems", nargs="+", default=list(SYSTEMS), choices=list(SYSTEMS))
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=PARTS)
    parser.add_argument("--minutes", type=float, default=7.5, help="for all parts together")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    args = parser.parse_args(words)
    if args.device == "cuda" and not torch.cuda.is_available():
        print(
            "gpu.py: torch sees no GPU, so nothing was measured; --device cpu --tiny --out FOLDER "
            "tries the script itself",
            file=sys.stderr,
        )
        return 2
    if args.device == "cpu":
        torch.set_num_threads(1)
    if args.worker:
        rows = steps_of(args.worker, torch.device(args.device), args.tiny)
        print(json.dumps(rows))
        return 0
    began = time.monotonic()
    until = began + 60 * args.minutes
    devices = torch.cuda.device_count() if args.device == "cuda" else 1
    steps: list[dict[str, Any]] = []
    for name in args.systems if "steps" in args.parts else ():
        left = until - time.monotonic()
        steps += apart(name, args, max(1.0, min(LONGEST_S, left)))
        print(*steps[-2:], sep="\n", file=sys.stderr)
    several = "layouts" in args.parts and (devices > 1 or args.device == "cpu")
    value = {
        "machine": machine(),
        "devices": devices,
        "command": " ".join(["benchmarks/gpu.sh", *words]),
        "recipe": "demo, as tests have it" if args.tiny else "small",
        "steps": steps,
        "layouts": layouts(args, until) if several else [],
        "goldens": goldens(args, until) if "goldens" in args.parts else [],
    }
    if args.device == "cuda":
        value["machine"]["environment"]["device"] = torch.cuda.get_device_name()
    value["seconds"] = time.monotonic() - began
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "gpu.json").write_text(json.dumps(value, indent=1) + "\n")
    (args.out / "gpu.md").write_text(page(value))
    print(page(value))
    every = [*value["steps"], *value["layouts"], *value["goldens"]]
    return int(any(row.get("error") or row.get("failed") for row in every))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
