"""What benchmarks share: quartiles, rates of products beside the whole, and the machine."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from tenfold.core import dist, log

VECTORS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")
"""Features of CPUs that decide how fast products are."""


def quartiles(values: list[float]) -> list[float]:
    """Lower quartile, median and upper quartile; of one value that value."""
    found = statistics.quantiles(values, n=4) if len(values) > 1 else values * 3
    return [round(q, 6) for q in found]


def products(
    run: Callable[[], object], timed: Collection[str], counted: Collection[str]
) -> tuple[float, float, float]:
    """Share of a run's time that goes into products, their rate in FLOP/s, and their FLOP.

    `timed` are the kernels ("aten::mm") whose time counts, `counted` the operations ("aten.mm")
    whose arithmetic does.
    """
    with FlopCounterMode(display=False) as counter:
        run()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as seen:
        run()
    work = {str(op): flops for op, flops in counter.get_flop_counts()["Global"].items()}
    flops = sum(work.get(name, 0) for name in counted)
    times = {row.key: row.self_cpu_time_total for row in seen.key_averages()}
    spent = sum(times.get(name, 0.0) for name in timed)
    return spent / sum(times.values()), flops / (1e-6 * spent), flops


def square_product(dtype: torch.dtype, side: int = 2048) -> float:
    """FLOP/s of one large product, which is about what the core can do."""
    a, b = torch.randn(2, side, side, dtype=dtype)
    best = float("inf")
    for _ in range(7):
        start = time.perf_counter()
        a @ b
        best = min(best, time.perf_counter() - start)
    return 2 * side**3 / best


def machine() -> dict[str, Any]:
    """Environment, features of the CPU, and its load before the run."""
    load = os.getloadavg()[0]
    with dist.started("cpu") as world:
        environment = log.environment(world)
    flags = Path("/proc/cpuinfo").read_text()
    features = " ".join(name for name in VECTORS if name in flags)
    return {"environment": environment, "features": features, "load": load}
