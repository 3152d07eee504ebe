"""What benchmarks share: quartiles, arithmetic and its rate, the machine, files of results.

A ratio of two times is of the machine that it was measured on. What travels better is the share of
our time that is arithmetic which no side can do without (`unavoidable`): 1 would be a step of
nothing but products at full rate. Results are kept a kind of CPU each: `<name>.<kind>.json`.
"""

from __future__ import annotations

import json
import os
import platform
import re
import statistics
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from tenfold.core import dist, log
from tenfold.core.precision import computes_in_bf16

RESULTS = Path(__file__).parent / "results"
VECTORS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")
"""Features of CPUs that decide how fast products are."""
BF16 = computes_in_bf16(torch.device("cpu"))
"""Whether bf16 is timed: a CPU that emulates it takes many times as long as in float32."""
KINDS = {"float32": False} | ({"bf16": True} if BF16 else {})
"""Kinds of arithmetic -> whether autocast is on."""
SHARE, RATE = "share at the rate of a square product", "FLOP/s of a square product"
FEWEST = "GFLOP of the leanest side"
KERNELS = frozenset({
    "aten::mm", "aten::addmm", "aten::addmm_", "aten::bmm", "aten::baddbmm",
    "aten::mkldnn_linear", "aten::mkldnn_convolution", "aten::thnn_conv2d",
    "aten::_conv_depthwise2d", "aten::convolution_backward", "mkldnn::_linear_pointwise",
    "aten::_scaled_dot_product_flash_attention_for_cpu",
    "aten::_scaled_dot_product_flash_attention_for_cpu_backward",
})  # fmt: skip
"""Kernels of a CPU in which products of matrices and convolutions are computed."""
Clock = Callable[[], float]
Shape = torch.Size


def quartiles(values: list[float]) -> list[float]:
    """Lower quartile, median and upper quartile; of one value that value."""
    found = statistics.quantiles(values, n=4) if len(values) > 1 else values * 3
    return [round(q, 6) for q in found]


def _attention(query: Shape, key: Shape, value: Shape, *_: Any, **__: Any) -> int:
    return sdpa_flop_count(query, key, value)


def _attention_backward(
    grad: Shape, query: Shape, key: Shape, value: Shape, *_: Any, **__: Any
) -> int:
    return sdpa_backward_flop_count(grad, query, key, value)


def _added(_: Shape, a: Shape, b: Shape, **__: Any) -> int:
    return 2 * a.numel() * b[-1]


def _linear(x: Shape, weight: Shape, *_: Any, **__: Any) -> int:
    return 2 * x.numel() * weight[0]


UNCOUNTED = {
    torch.ops.aten.addmm_: _added,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
    torch.ops.mkldnn._linear_pointwise: _linear,
}
"""Kernels that torch's counter does not know, counted as those it knows."""


def arithmetic(run: Callable[[], object]) -> int:
    """FLOP of a run's matrix products, convolutions and attention."""
    with FlopCounterMode(display=False, custom_mapping=UNCOUNTED) as counter:
        run()
    return counter.get_total_flops()


def products(run: Callable[[], object]) -> tuple[float, float]:
    """Share of a run's time that goes into products, and their rate in FLOP/s, by a profile."""
    flops = arithmetic(run)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as seen:
        run()
    times = {row.key: row.self_cpu_time_total for row in seen.key_averages()}
    spent = sum(found for name, found in times.items() if name in KERNELS)
    return spent / sum(times.values()), flops / (1e-6 * spent)


def operators(run: Callable[[], object], most: int, times: int = 1) -> list[dict[str, Any]]:
    """Operators that take most of a run's time: own share, milliseconds and calls of one run."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as seen:
        for _ in range(times):
            run()
    rows = seen.key_averages()
    whole = sum(row.self_cpu_time_total for row in rows)
    return [
        {
            "operator": row.key,
            "share": round(row.self_cpu_time_total / whole, 4),
            "milliseconds": round(row.self_cpu_time_total / times / 1e3, 1),
            "calls": row.count // times,
        }
        for row in sorted(rows, key=lambda row: -row.self_cpu_time_total)[:most]
    ]


def where(run: Callable[[], object], most: int = 6) -> list[list[Any]]:
    """Names of the operators that take most of a run's time, each with its share."""
    found = operators(run, most)
    return [[row["operator"].removeprefix("aten::"), round(row["share"], 3)] for row in found]


def square_product(
    dtype: torch.dtype = torch.float32, side: int = 2048, clock: Clock = time.perf_counter
) -> float:
    """FLOP/s of one large product on torch's threads, which is about what the cores can do."""
    a, b = torch.randn(2, side, side, dtype=dtype)
    best = float("inf")
    for _ in range(7):
        start = clock()
        a @ b
        best = min(best, clock() - start)
    return 2 * side**3 / best


def unavoidable(
    sides: Iterable[Callable[[], object]],
    seconds: float,
    dtype: torch.dtype = torch.float32,
    clock: Clock = time.perf_counter,
) -> dict[str, float]:
    """Share of our time that is arithmetic which no side can do without.

    Args:
        sides: What computes the same in several ways; the FLOP of the leanest count.
        seconds: Our time.
        dtype: Type of most of our products; the rate is that of one large product of it, now.
        clock: By which `seconds` were measured, so that the rate is by it, too.
    """
    flops, rate = min(arithmetic(run) for run in sides), square_product(dtype, clock=clock)
    return {
        FEWEST: round(flops / 1e9, 4),
        RATE: round(rate),
        SHARE: round(flops / rate / seconds, 3),
    }


def share(timing: dict[str, Any]) -> str:
    """The share as a page shows it, with what it is of: "62 % (97 GFLOP at 111 GFLOP/s)"."""
    fewest, rate = timing[FEWEST], timing[RATE] / 1e9
    return f"{timing[SHARE]:.0%} ({fewest:.3g} GFLOP at {rate:.0f} GFLOP/s)"


WARM = 4
"""Rounds before any is timed: a virtual machine may get memory only as it is first touched, which
takes longer than what is computed with it and is no processor time."""
GOAL = 0.8
"""Share of our time that is to be unavoidable."""


def below_goal(timings: Iterable[dict[str, Any]]) -> list[str]:
    """Lines that say where our time goes in those cases that miss the goal."""
    lines = [
        f"- {one['what']} ({one[SHARE]:.0%}): "
        + ", ".join(f"`{name}` {part:.0%}" for name, part in one["where"])
        for one in timings
        if one[SHARE] < GOAL
    ]
    if not lines:
        return []
    return [f"Where our time goes, where less than {GOAL:.0%} is unavoidable:", "", *lines, ""]


MEANS = (
    "The share of our time that no side can do without: FLOP of matrix products, convolutions and "
    "attention of the leanest side, at the rate of one large product of the same type and threads."
)
"""What `share` shows, for the text above a table."""


def cpu_kind(cpuinfo: str) -> str:
    """Short name of a kind of CPU, of what /proc/cpuinfo says: "amd-epyc-25-17".

    Name of the model, family and number of the model: virtual machines often hide all but brand and
    line in the name.
    """
    pairs = [line.split(":", 1) for line in cpuinfo.split("\n\n")[0].splitlines() if ":" in line]
    told = {key.strip(): value.strip() for key, value in pairs}
    name = told.get("model name", "").lower().split("@")[0]
    words = re.findall(r"[a-z0-9]+", re.sub(r"\(\w+\)", " ", name))
    words = [word for word in words if word not in ("processor", "cpu", "core")]
    numbers = [told[key] for key in ("cpu family", "model") if key in told]
    return "-".join([*words[:4], *numbers]) or platform.machine()


def this_kind() -> str:
    """The kind of CPU that this process runs on."""
    return cpu_kind(Path("/proc/cpuinfo").read_text())


def machine() -> dict[str, Any]:
    """Environment, kind and features of the CPU, and its load before the run."""
    load = os.getloadavg()[0]
    with dist.started("cpu") as world:
        environment = log.environment(world)
    flags = Path("/proc/cpuinfo").read_text()
    features = " ".join(name for name in VECTORS if name in flags)
    return {"environment": environment, "kind": this_kind(), "features": features, "load": load}


NO_BF16 = " This CPU emulates bf16, which is therefore not timed."


def setting(result: dict[str, Any]) -> str:
    """When, what, where: the first sentence of a page."""
    seen, without = result["environment"], "" if "bf16" in result["features"] else NO_BF16
    return (
        f"{seen['date']}, commit {seen['commit']}, `{result['command']}`; {seen['cpu']} "
        f"({result['kind']}; {result['features'] or 'no wide vectors'}), {seen['cores']} cores, "
        f"{seen['threads']} thread(s), torch {seen['torch']}, load {result['load']:.2f} before the "
        f"run.{without}"
    )


def result_file(name: str, folder: Path = RESULTS) -> Path:
    """Where the result of this kind of CPU is kept."""
    return folder / f"{name}.{this_kind()}.json"


def write(name: str, result: dict[str, Any], page: str, folder: Path = RESULTS) -> None:
    """Keep a result of this kind of CPU and its page, and print the page."""
    file = result_file(name, folder)
    folder.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(result, indent=1) + "\n")
    file.with_suffix(".md").write_text(page)
    print(page)
