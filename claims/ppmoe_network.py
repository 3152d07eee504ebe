"""Writes claims/ppmoe-network.{json,md,png}: PPMoE and DPMoE over a link of a set rate.

python claims/ppmoe_network.py (as root on Linux, with `ip` and `tc` of iproute2; eight minutes)

An emulation on one machine: two network namespaces are the nodes, a veth pair that `tc tbf` limits
is the link between them, two ranks run in each. DPMoE's all-to-all crosses the link, PPMoE's
all-reduce stays in its node and only the pipeline's activations cross. What the planner makes of
it is written before the first step runs.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import torch

from tenfold.core import log
from tenfold.core.dist import World
from tenfold.systems.ppmoe.planner.calibrate import calibrate
from tenfold.systems.ppmoe.planner.clusters import Calibration
from tenfold.systems.ppmoe.planner.cost import Cost, Extensions, cost
from tenfold.systems.ppmoe.planner.shape import Kind, Placement, Shape
from tenfold.viz import plots

HERE = Path(__file__).parent
NAME = "ppmoe-network"
WORKER = HERE / "ppmoe_network_worker.py"

NODES, TP = 2, 2
SHAPE = Shape(layers=12, hidden=128, heads=4, vocab=256, seq=128, experts=8)
"""Three mixture layers a pipeline stage, as the paper's small model has them (24 layers, 4 stages);
top-1, as the paper."""
ROWS, MICRO = 8, 8
"""Sequences of a micro-batch, and micro-batches of a step over all replicas: 8192 tokens."""
FLOAT = 4
"""Bytes of a number on the link; the paper's are 2."""
RATES = (0, 2000, 1000, 500, 200, 100, 50, 25)
"""Mbit/s; 0 is a link without limit."""
LOWEST = min(rate for rate in RATES if rate)
SLOWEST_FOR_COPIES = 100
"""Mbit/s below which duplicates are left out, for time: where they lead is seen by then."""
GAIN = 1.75
"""What the paper's abstract says of PPMoE over existing layouts."""
ANSWER_S = 150.0
"""Longest time for one step or probe."""


@dataclass(frozen=True)
class Layout:
    """One way to lay the model on the two nodes."""

    label: str
    layout: dict[str, Any]
    place: Placement


def _place(kind: Kind, copies: float = 1.0) -> Placement:
    pp, dp = (NODES, 1) if kind == "ppmoe" else (1, NODES)
    return Placement(kind, pp, TP, dp, ROWS, MICRO // dp, copies)


PPMOE, DPMOE, COPIES = "PPMoE", "DPMoE", "DPMoE with copies"
LAYOUTS = {
    one.label: one
    for one in (
        Layout(PPMOE, {"pp": NODES, "tp": TP, "dispatch": "slice"}, _place("ppmoe")),
        Layout(DPMOE, {"tp": TP, "dispatch": "alltoall"}, _place("dpmoe")),
        Layout(COPIES, {"tp": TP, "dispatch": "alltoall-copies"}, _place("dpmoe", float(TP))),
    )
}


# --- the two nodes and their link ---------------------------------------------------------------


def run(*words: str) -> str:
    """Output of a command; its error text if it fails."""
    done = subprocess.run(words, capture_output=True, text=True, timeout=30)
    if done.returncode:
        raise RuntimeError(f"`{' '.join(words)}` failed: {done.stderr.strip() or done.returncode}")
    return done.stdout


def check_machine() -> None:
    """Say what is missing before anything is started."""
    if sys.platform != "linux":
        raise ValueError("network namespaces exist on Linux only")
    missing = [tool for tool in ("ip", "tc") if shutil.which(tool) is None]
    if missing:
        raise ValueError(f"{' and '.join(missing)} not found; install iproute2")
    if os.geteuid() != 0:
        raise ValueError("network namespaces need root; run this as root")


class Link:
    """Two namespaces with one veth pair between them; `rate` shapes both of its ends."""

    DEVICE = "link0"

    def __init__(self) -> None:
        self.names = [f"tenfold-{os.getpid()}-{i}" for i in range(NODES)]
        self.addresses = [f"10.77.0.{i + 1}" for i in range(NODES)]

    def __enter__(self) -> Link:
        self._drop_stale()
        try:
            self._build()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _build(self) -> None:
        a, b = self.names
        for name in self.names:
            run("ip", "netns", "add", name)
        pair = ["type", "veth", "peer", "name", self.DEVICE, "netns", b]
        run("ip", "link", "add", self.DEVICE, "netns", a, *pair)
        for name, address in zip(self.names, self.addresses, strict=True):
            run("ip", "-n", name, "addr", "add", f"{address}/24", "dev", self.DEVICE)
            # Large frames, so that headers cost under 1 % of the rate.
            run("ip", "-n", name, "link", "set", self.DEVICE, "mtu", "9000", "up")
            run("ip", "-n", name, "link", "set", "lo", "up")
            # The queue below loses nothing, so the plainest congestion control will do; one that
            # estimates the rate would carry the estimate of the last rate over to the next.
            # Windows are larger than a message from the start.
            for key, value in (
                ("congestion_control", "reno"),
                ("slow_start_after_idle", "0"),
                ("rmem", "4096 4194304 33554432"),
            ):
                path = f"/proc/sys/net/ipv4/tcp_{key}"
                run("ip", "netns", "exec", name, "sh", "-c", f"echo '{value}' > {path}")

    def __exit__(self, *_: object) -> None:
        for name in self.names:
            subprocess.run(["ip", "netns", "del", name], capture_output=True, timeout=30)

    @staticmethod
    def _drop_stale() -> None:
        """Remove what a run that was killed outright has left."""
        for name in re.findall(r"^tenfold-\d+-\d", run("ip", "netns", "list"), re.MULTILINE):
            if not Path(f"/proc/{name.split('-')[1]}").exists():
                run("ip", "netns", "del", name)

    def rate(self, mbit: int) -> None:
        """Limit both directions, or neither (0)."""
        for name in self.names:
            device = ["dev", self.DEVICE, "root"]
            if mbit:
                # A bucket refills while the link idles and is then sent at once, so it must be
                # small beside a message; above some 500 Mbit/s the timer needs more.
                burst = max(16_000, mbit * 125)  # bytes: one millisecond
                shape = ["rate", f"{mbit}mbit", "burst", str(burst), "limit", "64mb"]
                run("tc", "-n", name, "qdisc", "replace", *device, "tbf", *shape)
            elif "tbf" in run("tc", "-n", name, "qdisc", "show", "dev", self.DEVICE):
                run("tc", "-n", name, "qdisc", "del", *device)

    def sent(self) -> list[int]:
        """Bytes that each node has sent over the link so far."""
        found = []
        for name in self.names:
            text = run("ip", "-s", "-j", "-n", name, "link", "show", "dev", self.DEVICE)
            found.append(int(json.loads(text)[0]["stats64"]["tx"]["bytes"]))
        return found


# --- the ranks ----------------------------------------------------------------------------------


class Job:
    """The four processes of one layout; they sleep on their input while others run."""

    def __init__(self, one: Layout) -> None:
        self.one = one
        self.processes: list[subprocess.Popen[bytes]] = []
        self.errors: list[Path] = []

    def start(self, link: Link, port: int, folder: Path) -> None:
        """Start the processes and wait until they have built their parts."""
        one, cores = self.one, node_cores()
        for rank in range(NODES * TP):
            node = rank // TP
            job = {
                "model": {**asdict(SHAPE), "kind": "moe"},
                "layout": one.layout,
                "rows": ROWS,
                "micro_batches": MICRO,
                "cores": cores[node],
                "timeout": ANSWER_S,
            }
            environment = os.environ | {
                "RANK": str(rank), "LOCAL_RANK": str(rank % TP), "WORLD_SIZE": str(NODES * TP),
                "MASTER_ADDR": link.addresses[0], "MASTER_PORT": str(port),
                "GLOO_SOCKET_IFNAME": link.DEVICE, "OMP_NUM_THREADS": "1",
            }  # fmt: skip
            errors = folder / f"{port}-{rank}.txt"
            with errors.open("wb") as file:
                process = subprocess.Popen(
                    ["ip", "netns", "exec", link.names[node], sys.executable, str(WORKER),
                     json.dumps(job)],
                    env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=file,
                )  # fmt: skip
            self.processes.append(process)
            self.errors.append(errors)
        self.answers()

    def answers(self) -> list[dict[str, Any]]:
        """One line of each rank."""
        end, found = time.monotonic() + ANSWER_S, []
        for rank, process in enumerate(self.processes):
            assert process.stdout is not None
            ready, _, _ = select.select([process.stdout], [], [], max(0, end - time.monotonic()))
            line = process.stdout.readline() if ready else b""
            if not line:
                what = "ended" if ready else f"gave no answer in {ANSWER_S:.0f} s"
                tail = self.errors[rank].read_text(errors="replace")[-2000:]
                raise RuntimeError(f"{self.one.label}: rank {rank} {what}\n{tail}")
            found.append(json.loads(line))
        return found

    def ask(self, do: str, **how: Any) -> list[dict[str, Any]]:
        """Let all ranks do something; their answers."""
        order = (json.dumps({"do": do, **how}) + "\n").encode()
        for process in self.processes:
            assert process.stdin is not None
            process.stdin.write(order)
            process.stdin.flush()
        return self.answers()

    def step(self, link: Link) -> dict[str, Any]:
        """One training step: seconds, those before the gradients are reduced, and bytes sent."""
        before = link.sent()
        stamps = self.ask("step")
        after = link.sent()
        begin = min(s["begin"] for s in stamps)
        return {
            "seconds": max(s["end"] for s in stamps) - begin,
            "without reduction": max(s["reduce"] for s in stamps) - begin,
            "sent": [b - a for a, b in zip(before, after, strict=True)],
        }

    def close(self) -> None:
        """End its processes."""
        for process in self.processes:
            process.kill()
        for process in self.processes:
            process.wait()
            for pipe in (process.stdin, process.stdout):
                assert pipe is not None
                pipe.close()


def node_cores() -> list[list[int]]:
    """The cores of each node: with a share of its own, a stage that waits leaves its core idle."""
    cores = sorted(os.sched_getaffinity(0))
    share = len(cores) // NODES
    return [cores[i * share : (i + 1) * share] for i in range(NODES)]


@contextmanager
def jobs_on(link: Link) -> Iterator[dict[str, Job]]:
    """All layouts' processes, started; killed at the end."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        jobs = {}
        for i, one in enumerate(LAYOUTS.values()):
            jobs[one.label] = Job(one)
            stack.callback(jobs[one.label].close)
            jobs[one.label].start(link, 29700 + i, Path(folder))
        yield jobs


# --- the prediction -----------------------------------------------------------------------------


def analytic_bytes(one: Layout) -> dict[str, float]:
    """Bytes that a node sends over the link in a step, from the formulas.

    Of an all-to-all, the half of a node's tokens that the other node's experts get, twice forward
    and twice backward; of an all-reduce of two, each number once. Both tensor ranks of a stage send
    its whole output (the paper's Megatron-LM would cut it in two and gather it in the node).
    """
    tokens, h, place = ROWS * SHAPE.seq, SHAPE.hidden, one.place
    whole = FLOAT * tokens * h
    # Over the tally: losses, five sums and a count an expert of each mixture layer, in float64.
    # It goes around a ring of four, of which one edge each way is the link.
    statistics = 8 * (1 + SHAPE.moe_layers * (5 + SHAPE.experts)) * 2 * 3 / 4
    if place.kind == "ppmoe":
        return {
            "activations": MICRO * TP * whole,
            "all-to-all": 0.0,
            "gradients": TP * FLOAT * SHAPE.vocab * h,  # embedding and head share their weights
            "statistics": statistics,
        }
    crossing = place.micro_batches * 4 * SHAPE.moe_layers * whole * SHAPE.top_k * place.copies / 2
    counts = place.micro_batches * SHAPE.moe_layers * TP * 8 * SHAPE.experts / 2
    return {
        "activations": 0.0,
        "all-to-all": crossing + counts,
        "gradients": FLOAT * sum(_replicated()),
        "statistics": statistics,
    }


def _replicated() -> tuple[int, int]:
    """Numbers outside experts on the tensor ranks of a replica: cut among them, and on each."""
    h, layers, moe = SHAPE.hidden, SHAPE.layers, SHAPE.moe_layers
    cut = layers * (4 * h * h + 3 * h) + (layers - moe) * (8 * h * h + 4 * h)
    each = layers * (h + 4 * h) + (layers - moe) * h + moe * SHAPE.experts * h
    each += (SHAPE.vocab + SHAPE.seq + 2) * h
    return cut, TP * each


def planned(one: Layout, calibration: Calibration, bytes_per_s: float) -> Cost:
    """The planner's cost of a step on two nodes of two processes, over a link of that rate."""
    local = calibration.machine(NODES * TP)
    machine = replace(
        local, own_link=False, gpus_per_node=TP, nic_bytes_per_s=bytes_per_s, a2a_eta=1.0
    )
    return cost(SHAPE, one.place, machine, Extensions(inside_node=True))


def planned_seconds(one: Layout, calibration: Calibration, bytes_per_s: float) -> float:
    """Seconds of `train_step`: no optimiser, and T copies of what a stage hands on."""
    found = planned(one, calibration, bytes_per_s)
    return found.step - found.opt + (TP - 1) * found.p2p_slots * found.p2p


def predict(
    calibration: Calibration, open_link: float, baseline: dict[str, float]
) -> dict[str, Any]:
    """Curves before the sweep, see `PREDICTIONS`.

    `open_link` is what the link gave without a limit, bytes a second; `baseline` are seconds of a
    step there.
    """
    rates = sorted({float(r) for r in RATES if r} | set(_grid()))
    curves: dict[str, dict[str, list[float]]] = {which: {} for which in PREDICTIONS}
    for name, one in LAYOUTS.items():
        free = planned_seconds(one, calibration, open_link)
        size = sum(analytic_bytes(one).values())
        for which in PREDICTIONS:
            curves[which][name] = []
        for mbit in rates:
            rate = min(mbit * 125_000, open_link)
            seconds = planned_seconds(one, calibration, rate)
            byte_s = size / rate - size / open_link
            curves["bytes"][name].append(baseline[name] + byte_s)
            curves["terms"][name].append(baseline[name] + seconds - free)
            curves["planner"][name].append(seconds)
    open_mbit = open_link / 125_000
    return {
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "open link Mbit/s": open_mbit,
        "rates": rates,
        "seconds": curves,
        "planner without limit": {
            name: planned_seconds(one, calibration, open_link) for name, one in LAYOUTS.items()
        },
        "planner link terms at 100 Mbit/s": {
            name: {
                "all-to-all": planned(one, calibration, 12.5e6).terms()["all-to-all"],
                "stage hand-over": TP
                * planned(one, calibration, 12.5e6).terms()["stage hand-over"],
                "gradient reduction": planned(one, calibration, 12.5e6).grad,
            }
            for name, one in LAYOUTS.items()
        },
        "baseline seconds": baseline,
        "crossings": {
            which: {
                f"{gain:g}": crossing(rates, ratios(curve[DPMOE], curve[PPMOE]), gain)
                for gain in (1.0, GAIN)
            }
            for which, curve in curves.items()
        },
        "bytes a step and node": {name: analytic_bytes(one) for name, one in LAYOUTS.items()},
    }


PREDICTIONS = {
    "bytes": "step without limit + bytes each way / rate",
    "terms": "step without limit + planner's link terms",
    "planner": "planner alone",
}
"""bytes: what a node sends takes its time, the other node's bytes pass meanwhile. terms: the same
for DPMoE; PPMoE's hand-overs one after the other in both directions, and those of the pipeline's
start and end. planner: those terms, and computation from the calibration instead of a step."""


def _grid() -> Iterator[float]:
    """Rates between those of the sweep, for smooth lines."""
    low, high = LOWEST, 10_000
    count = 60
    for i in range(count + 1):
        yield low * (high / low) ** (i / count)


def ratios(above: Sequence[float], below: Sequence[float]) -> list[float]:
    """Element by element."""
    return [a / b for a, b in zip(above, below, strict=True)]


def crossing(rates: Sequence[float], values: Sequence[float], gain: float) -> float | None:
    """The largest rate at which `values` passes `gain`, between two rates linear in the logs."""
    pairs = sorted(zip(rates, values, strict=True), reverse=True)
    for (r1, v1), (r2, v2) in itertools.pairwise(pairs):
        if (v1 - gain) * (v2 - gain) <= 0 and v1 != v2:
            part = math.log(gain / v1) / math.log(v2 / v1)
            return r1 * (r2 / r1) ** part
    return None


# --- the sweep ----------------------------------------------------------------------------------


EXCHANGE = FLOAT * ROWS * SHAPE.seq * SHAPE.hidden // TP
"""Bytes that a rank has for an all-to-all of DPMoE; half of them are for the other node."""


def probe(job: Job, link: Link, mbit: int) -> dict[str, float]:
    """What the link gives between the nodes at this rate, and an all-reduce inside a node."""
    link.rate(mbit)
    size = 4 * int(min(16e6, max(1e6, mbit * 125_000 * 0.4 or 16e6)) / 4)
    taken = job.ask("link", size=size)[TP]
    exchange = max(a["seconds"] for a in job.ask("exchange", size=EXCHANGE))
    before = link.sent()
    inside = max(a["seconds"] for a in job.ask("inside", size=2**22))
    leaked = max(b - a for a, b in zip(before, link.sent(), strict=True))
    return {
        "one way Mbit/s": 8e-6 * size / taken["one"],
        "each way at once Mbit/s": 8e-6 * size / taken["both"],
        "even exchange ms": 1e3 * exchange,
        "inside all-reduce ms": 1e3 * inside,
        "inside bytes on the link": leaked,
    }


def sweep(
    jobs: dict[str, Job], link: Link, rates: Sequence[int], rounds: int, deadline: float
) -> dict[int, dict[str, list[dict[str, Any]]]]:
    """Steps of all layouts at all rates, in turns, so that a drift of the machine hits all alike.

    From the third round on it stops where another round would pass the deadline.
    """
    found: dict[int, dict[str, list[dict[str, Any]]]] = {r: {n: [] for n in jobs} for r in rates}
    for number in range(rounds):
        begin = time.monotonic()
        order = list(jobs)[number % len(jobs) :] + list(jobs)[: number % len(jobs)]
        for mbit in rates:
            link.rate(mbit)
            for name in order:
                if name != COPIES or not mbit or mbit >= SLOWEST_FOR_COPIES:
                    found[mbit][name].append(jobs[name].step(link))
        taken = time.monotonic() - begin
        print(f"round {number + 1}: {taken:.0f} s", file=sys.stderr, flush=True)
        if number >= 2 and time.monotonic() + taken > deadline:
            break
    return found


def summary(values: Sequence[float]) -> list[float]:
    """Lower quartile, median, upper quartile."""
    if len(values) < 2:
        return [values[0]] * 3
    low, _, high = quantiles(values, n=4, method="inclusive")
    return [low, median(values), high]


def summarise(steps: dict[int, dict[str, list[dict[str, Any]]]]) -> dict[str, Any]:
    """Quartiles of seconds and of DPMoE over PPMoE within a round; median bytes of a node."""
    rows = []
    for mbit, by_layout in steps.items():
        row: dict[str, Any] = {"Mbit/s": mbit, "rounds": len(by_layout[PPMOE])}
        for name, taken in by_layout.items():
            if not taken:
                continue
            row[name] = {
                "seconds": summary([t["seconds"] for t in taken]),
                "without reduction": summary([t["without reduction"] for t in taken]),
                "bytes": [median(t["sent"][node] for t in taken) for node in range(NODES)],
            }
            for key in ("seconds", "without reduction"):
                each = ratios([t[key] for t in taken], [t[key] for t in by_layout[PPMOE]])
                row[name][f"{key} over PPMoE"] = summary(each)
        rows.append(row)
    limited = [row for row in rows if row["Mbit/s"]]
    crossings = {
        key: {
            f"{gain:g}": crossing(
                [row["Mbit/s"] for row in limited],
                [row[DPMOE][f"{key} over PPMoE"][1] for row in limited],
                gain,
            )
            for gain in (1.0, GAIN)
        }
        for key in ("seconds", "without reduction")
    }
    return {"rows": rows, "crossings": crossings}


# --- the page and the picture -------------------------------------------------------------------


def words(rate: float | None) -> str:
    """A rate where something is crossed."""
    return f"not above {LOWEST} Mbit/s" if rate is None else f"{rate:.0f} Mbit/s"


def at(predicted: dict[str, Any], which: str, name: str, mbit: int) -> float:
    """A predicted step at a rate of the sweep, seconds."""
    return predicted["seconds"][which][name][predicted["rates"].index(float(mbit))]


def page(result: dict[str, Any]) -> str:
    """The Markdown page."""
    environment, predicted, measured = (
        result["environment"], result["prediction"], result["measured"],
    )  # fmt: skip
    rows = measured["rows"]
    gain_at = measured["crossings"]["seconds"][f"{GAIN:g}"]
    even_at = measured["crossings"]["seconds"]["1"]
    verdict = (
        f"DPMoE's step takes {GAIN} times PPMoE's where the link gives {gain_at:.0f} Mbit/s here"
        if gain_at
        else f"DPMoE's step never takes {GAIN} times PPMoE's in this sweep"
    )
    foreseen = predicted["crossings"]
    without = measured["crossings"]["without reduction"]
    cores = node_cores()
    share = (
        f"each node has {len(cores[0])} of the machine's cores, which its {TP} ranks share"
        if cores[0]
        else f"all {NODES * TP} ranks share the one core"
    )
    lines = [
        "# PPMoE and DPMoE where the link between nodes is slow",
        "",
        f"**An emulation: two network namespaces on one {environment['cores']}-core machine**, "
        "joined by a veth pair that `tc tbf` limits to the stated rate in each direction; two "
        f"ranks in each, gloo, float32, one thread a rank; {share}, for all layouts alike. No GPU, "
        "no NVLink and no InfiniBand are in it: only where the two methods' bytes go is real.",
        "",
        f"{environment['cpu']}, {environment['cores']} cores, torch {environment['torch']}, "
        f"{environment['date']}, commit {environment['commit']}, `{environment['command']}`.",
        "",
        f"Model: {SHAPE.layers} layers ({SHAPE.moe_layers} with {SHAPE.experts} experts, top-1), "
        f"h = {SHAPE.hidden}, s = {SHAPE.seq}; a step is {MICRO} micro-batches of {ROWS} sequences "
        f"= {MICRO * ROWS * SHAPE.seq} tokens, forward, backward and the sum of gradients. PPMoE: "
        f"pp 2, tp 2, 1F1B, dispatch by index. DPMoE: dp 2, tp 2, {MICRO // NODES} micro-batches a "
        "replica, experts over dp x tp, each token sent once; with copies: by each tensor rank, as "
        "DeepSpeed did before it dropped duplicates. All three gave the same loss and gradient "
        f"norm ({result['check'][PPMOE]['ce']:.6f}, {result['check'][PPMOE]['gradient_norm']:.6f}; "
        f"largest relative difference {result['largest difference']:.1e}).",
        "",
        f"- {verdict}"
        f" (without the gradient reduction: {words(without[f'{GAIN:g}'])}). Predicted: "
        + "; ".join(f"{words(foreseen[w][f'{GAIN:g}'])} ({t})" for w, t in PREDICTIONS.items())
        + ".",
        f"- The two are equally fast at {crossover(even_at, rows)}. Predicted: "
        + "; ".join(f"{predicted_even(predicted, w)} ({t})" for w, t in PREDICTIONS.items())
        + ".",
        "",
        f"![Step time and ratio against the rate of the link]({NAME}.png)",
        "",
        f"Step in ms, median of {min(r['rounds'] for r in rows)} rounds (quartiles); all layouts "
        "and rates in turns within a round; ratios are of the same round.",
        "",
        "| link, Mbit/s | PPMoE | DPMoE | DPMoE with copies | DPMoE / PPMoE | predicted by bytes | "
        "by planner's terms | by planner alone | without gradient reduction | copies / PPMoE |",
        "|---" * 10 + "|",
    ]
    for row in rows:
        mbit = row["Mbit/s"]
        cells = [f"{mbit}" if mbit else f"no limit ({predicted['open link Mbit/s']:.0f})"]
        for name in LAYOUTS:
            cells.append(spread(row[name]["seconds"], 1e3, "{:.0f}") if name in row else "–")
        cells.append(spread(row[DPMOE]["seconds over PPMoE"], 1, "{:.2f}"))
        if mbit:
            for which in PREDICTIONS:
                pair = [at(predicted, which, name, mbit) for name in (DPMOE, PPMOE)]
                cells.append(f"{pair[0] / pair[1]:.2f}")
        else:
            plan_s = predicted["planner without limit"]
            cells += ["–", "–", f"{plan_s[DPMOE] / plan_s[PPMOE]:.2f}"]
        cells.append(spread(row[DPMOE]["without reduction over PPMoE"], 1, "{:.2f}"))
        copies = row.get(COPIES)
        cells.append(spread(copies["seconds over PPMoE"], 1, "{:.2f}") if copies else "–")
        lines.append("| " + " | ".join(cells) + " |")
    lines += [
        "",
        "Predicted step in ms: by bytes / by planner's terms / by planner alone:",
        "",
        "| link, Mbit/s | " + " | ".join(LAYOUTS) + " |",
        "|---" * (1 + len(LAYOUTS)) + "|",
    ]
    for row in rows:
        if mbit := row["Mbit/s"]:
            cells = [
                " / ".join(f"{1e3 * at(predicted, w, name, mbit):.0f}" for w in PREDICTIONS)
                for name in LAYOUTS
            ]
            lines.append(f"| {mbit} | " + " | ".join(cells) + " |")
    lines += [
        "",
        "Bytes over the link in a step, MB, the most that one node sends; measured on the veth "
        "device (frames and acknowledgements too), median over all rates:",
        "",
        "| | activations | all-to-all | gradients | sum | measured |",
        "|---|---|---|---|---|---|",
    ]
    for name in LAYOUTS:
        parts = predicted["bytes a step and node"][name]
        got = median(max(row[name]["bytes"]) for row in rows if name in row)
        figures = [parts["activations"], parts["all-to-all"], parts["gradients"]]
        cells = [f"{v / 1e6:.2f}" for v in (*figures, sum(parts.values()), got)]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    lines += [
        "",
        "The link as it was: a plain send between the nodes, both ways at once; an even all-to-all "
        f"of DPMoE's size alone ({TP * EXCHANGE // 2 // 1024} KiB each way) beside its bytes over "
        "the rate; and an all-reduce of 4 MB inside each node, which must not depend on the rate "
        "(what it puts on the link are the barriers around it):",
        "",
        "| tbf, Mbit/s | one way | each way at once | all-to-all, ms | bytes / rate, ms "
        "| all-reduce inside, ms | its bytes on the link |",
        "|---|---|---|---|---|---|---|",
    ]
    for mbit, got in result["link"].items():
        lines.append(
            f"| {mbit if mbit != '0' else 'no limit'} | {got['one way Mbit/s']:.1f} | "
            f"{got['each way at once Mbit/s']:.1f} | {got['even exchange ms']:.1f} | "
            f"{TP * EXCHANGE / 2 / (125 * int(mbit)) if int(mbit) else 0:.1f} | "
            f"{got['inside all-reduce ms']:.1f} | "
            f"{got['inside bytes on the link']:.0f} |"
        )
    lines += ["", *remarks(result), ""]
    return "\n".join(lines)


def crossover(even_at: float | None, rows: list[dict[str, Any]]) -> str:
    """Where the measured ratio is 1, or who wins throughout."""
    if even_at is not None:
        return f"{even_at:.0f} Mbit/s"
    values = [row[DPMOE]["seconds over PPMoE"][1] for row in rows]
    winner = PPMOE if min(values) > 1 else DPMOE
    return f"no rate of the sweep, {winner} is faster at all"


def predicted_even(predicted: dict[str, Any], which: str) -> str:
    """Where the predicted ratio is 1, or who wins throughout."""
    even_at = predicted["crossings"][which]["1"]
    if even_at is not None:
        return f"{even_at:.0f} Mbit/s"
    curve = predicted["seconds"][which]
    winner = PPMOE if min(ratios(curve[DPMOE], curve[PPMOE])) > 1 else DPMOE
    return f"no rate, {winner} faster at all"


def spread(three: Sequence[float], factor: float, form: str) -> str:
    """Median (quartiles)."""
    low, middle, high = (form.format(factor * v) for v in three)
    return f"{middle} ({low}–{high})"


def remarks(result: dict[str, Any]) -> list[str]:
    """What to know to read it."""
    layers = result["check"][PPMOE]["counts"]
    load = max(max(c) * len(c) / sum(c) for c in layers)
    # An exchange ends when its longer direction has; the two nodes' shares of a layer's tokens.
    longer = sum(2 * max(f := sum(c[: len(c) // 2]) / sum(c), 1 - f) for c in layers) / len(layers)
    slots = MICRO + 2 * NODES - 2
    return [
        f"The prediction was written at {result['prediction']['made']}, before the first step at a "
        "limited rate; no constant in it is fitted to the sweep (trial runs came before). "
        "By bytes: the step measured without a limit, and the bytes that a node sends over the "
        "rate, while the other node's pass in the other direction; nothing is hidden behind "
        "computation. Planner's terms: `tenfold.systems.ppmoe.planner.cost` with two nodes of two "
        "devices, the link as the NIC of a node, an all-to-all that uses it fully, 4-byte numbers. "
        f"For DPMoE that is the same; for PPMoE it charges M + 2P - 2 = {slots} hand-overs, "
        "forward and backward one after the other. Full duplex and 1F1B can do better: in the "
        "trial runs PPMoE lay between the two. Planner alone: computation and all-reduces from "
        "this machine's calibration too (two cores for four ranks). Departures from the planner: "
        f"the optimiser is left out (a step here has none), and a stage's output crosses {TP} "
        "times, once a tensor rank, as the code at hand sends it.",
        "",
        f"Not in the prediction: load is uneven (the fullest expert of a layer has {load:.2f} "
        "times the mean), and an exchange takes as long as its longer direction, "
        f"{longer:.3f} times an even one by the routing of a step; the messages that announce the "
        "sizes of an exchange; the pace of TCP after each pause, and what it costs the cores. The "
        "token bucket holds one millisecond of the rate (at least 16 kB), which passes unshaped "
        "after a pause.",
        "",
        "The depth was chosen, and decides much: on two nodes a step's all-to-alls send M Lm k n h "
        f"numbers each way, PPMoE's hand-overs M T n h, here {SHAPE.moe_layers * SHAPE.top_k} to "
        f"{TP}. With fewer mixture layers a stage, as in the paper's large model (one), PPMoE "
        "would gain less from a slow link; with one copy of each hand-over, more.",
        "",
        "DPMoE also sums the gradients of everything but its experts over the link, once a step; "
        "with more micro-batches a step that part shrinks, so the ratio without it is given too "
        "(PPMoE's has its own, small one, of the embedding that first and last stage share).",
    ]


def picture(result: dict[str, Any]) -> bytes:
    """Step time and ratio against the rate; dots are measured, lines predicted."""
    import io

    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import FixedLocator, LogLocator, NullFormatter

    predicted, rows = result["prediction"], result["measured"]["rows"]
    rates, top = predicted["rates"], max(RATES)
    # Without a limit it is tens of Gbit/s: a place of its own, not to scale.
    no_limit = 3 * top
    figure = Figure(figsize=(10, 4.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for axes in (left, right):
        axes.set_xscale("log")
        ticks = [*(r for r in RATES if r), no_limit]
        axes.xaxis.set_major_locator(FixedLocator(ticks))
        axes.set_xticklabels([*(f"{r}" for r in RATES if r), "no limit"])
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.tick_params(which="minor", length=0)
        axes.grid(True, color="#d9dde2", linewidth=0.7)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_xlabel("link between the nodes, Mbit/s (tbf)")

    def dots(axes: Any, points: list[tuple[float, list[float]]], i: int, label: str) -> None:
        x = [rate or no_limit for rate, _ in points]
        middle = [v[1] for _, v in points]
        bars = [[v[1] - v[0] for _, v in points], [v[2] - v[1] for _, v in points]]
        axes.errorbar(
            x, middle, bars, fmt="o", markersize=5, capsize=3, color=plots.colour(i), label=label
        )

    shown = [i for i, rate in enumerate(rates) if rate <= 1.4 * top]
    x = [rates[i] for i in shown]
    styles = {"bytes": "-", "terms": "--", "planner": ":"}
    for i, name in enumerate(LAYOUTS):
        dots(left, [(r["Mbit/s"], r[name]["seconds"]) for r in rows if name in r], i, name)
        for which, style in styles.items():
            y = [predicted["seconds"][which][name][j] for j in shown]
            left.plot(x, y, style, color=plots.colour(i), linewidth=1.2)
            if name == PPMOE:
                continue
            points = [(r["Mbit/s"], r[name]["seconds over PPMoE"]) for r in rows if name in r]
            y = ratios(y, [predicted["seconds"][which][PPMOE][j] for j in shown])
            right.plot(x, y, style, color=plots.colour(i), linewidth=1.2)
        if name != PPMOE:
            dots(right, points, i, "_")
    for which, style in styles.items():
        left.plot([], [], style, color="#555555", linewidth=1.2, label=PREDICTIONS[which])
    for value, text in ((1.0, "equal"), (GAIN, f"{GAIN}")):
        right.axhline(value, color="#555555", linewidth=0.9, linestyle="--")
        right.annotate(
            text, (0, value), (3, 3), xycoords=("axes fraction", "data"),
            textcoords="offset points", fontsize=8, color="#555555",
        )  # fmt: skip
    left.set_yscale("log")
    left.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    left.yaxis.set_major_formatter("{x:g}")
    left.yaxis.set_minor_formatter(NullFormatter())
    left.set_ylabel("seconds of a step")
    left.set_title("Step time", loc="left", fontsize=11, fontweight="bold")
    right.set_ylabel("step time over PPMoE's")
    right.set_title("How much longer than PPMoE", loc="left", fontsize=11, fontweight="bold")
    right.set_ylim(bottom=0)
    figure.suptitle(
        f"An emulation: two network namespaces on one {result['environment']['cores']}-core "
        "machine. Dots: measured, with quartiles; lines: predicted.",
        fontsize=10,
    )
    figure.legend(loc="outside lower center", ncols=3, fontsize=9, frameon=False)
    FigureCanvasAgg(figure)
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=160, metadata={"Software": None})
    return out.getvalue()


# --- all of it ----------------------------------------------------------------------------------


def main() -> None:
    """Calibrate, start, predict, sweep, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="most rounds (default 5)")
    parser.add_argument("--minutes", type=float, default=8.0, help="time to stay below")
    parser.add_argument("--rates", default=",".join(map(str, RATES)), help="Mbit/s, 0: no limit")
    parser.add_argument("--out", type=Path, default=HERE, help="folder of the three files")
    parser.add_argument("--redraw", action="store_true", help="page and picture from the JSON only")
    options = parser.parse_args()
    try:
        if options.redraw:
            write(options.out, json.loads((options.out / f"{NAME}.json").read_text()))
            return
        rates = [int(r) for r in options.rates.split(",")]
        unknown = [r for r in rates if r not in RATES]
        if unknown or 0 not in rates or len(rates) < 2:
            raise ValueError(f"--rates must be of {RATES}, 0 and another among them, got {rates}")
        check_machine()
    except ValueError as error:
        raise SystemExit(f"ppmoe_network: {error}") from None
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was made is removed
    measure(options, rates, time.monotonic() + 60 * options.minutes)


def measure(options: argparse.Namespace, rates: list[int], deadline: float) -> None:
    """The run itself."""
    torch.set_num_threads(1)
    environment = log.environment(World(0, 1, torch.device("cpu")))
    environment["command"] = " ".join(["python claims/ppmoe_network.py", *sys.argv[1:]])
    say("calibrating")
    calibration = calibrate(SHAPE, ROWS, seconds=15.0)
    result: dict[str, Any] = {
        "what": "an emulation: two network namespaces on one machine",
        "environment": environment,
        "shape": asdict(SHAPE),
        "layouts": {name: asdict(one) for name, one in LAYOUTS.items()},
        "calibration": calibration.to_json(),
        "cores of the nodes": node_cores(),
    }
    with Link() as link:
        say("starting 12 processes")
        with jobs_on(link) as jobs:
            check = {name: job.ask("check")[0] for name, job in jobs.items()}
            result["check"] = check
            result["largest difference"] = same(check)
            say("base: steps without a limit")
            probes = [probe(jobs[PPMOE], link, 0)["one way Mbit/s"] for _ in range(3)]
            steps = [
                {name: job.step(link)["seconds"] for name, job in jobs.items()} for _ in range(5)
            ]
            baseline = {name: median(s[name] for s in steps) for name in jobs}
            result["prediction"] = predict(calibration, median(probes) * 125_000, baseline)
            # On disk before anything is measured that it predicts.
            path = options.out / f"{NAME}.json"
            path.write_text(json.dumps(result, indent=1) + "\n")
            say(f"predicted: {result['prediction']['crossings']}")
            result["link"] = {str(r): probe(jobs[PPMOE], link, r) for r in rates}
            steps_at = sweep(jobs, link, rates, options.rounds, deadline)
    result["measured"] = {"ended": datetime.now(UTC).isoformat(timespec="seconds")}
    result["measured"] |= summarise(steps_at)
    result["measured"]["steps"] = {str(rate): steps for rate, steps in steps_at.items()}
    write(options.out, result)


def same(check: dict[str, Any], tolerance: float = 1e-4) -> float:
    """Largest relative difference of loss and gradient norm between layouts; an error if large."""
    worst = 0.0
    for key in ("ce", "gradient_norm"):
        values = [one[key] for one in check.values()]
        worst = max(worst, (max(values) - min(values)) / max(values))
    if worst > tolerance:
        raise RuntimeError(f"the layouts do not compute the same step: {check}")
    return worst


def write(folder: Path, result: dict[str, Any]) -> None:
    """The three files."""
    (folder / f"{NAME}.json").write_text(json.dumps(result, indent=1) + "\n")
    (folder / f"{NAME}.md").write_text(page(result))
    (folder / f"{NAME}.png").write_bytes(picture(result))
    say(f"{NAME}: {result['measured']['crossings']}")


def say(text: str) -> None:
    """A line of progress."""
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
