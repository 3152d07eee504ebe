"""FLOP/s that devices can do: known GPUs by their data sheets, CPUs by one product measured."""

from __future__ import annotations

import functools
import os
import re
import time
from dataclasses import dataclass

import torch

from . import host
from .precision import computes_in_bf16


@dataclass(frozen=True)
class Rates:
    """Data sheet of a GPU: FLOP/s of dense products, no sparsity."""

    half: float
    """In fp16 or bf16 with sums in fp32."""
    single: float
    """In fp32, without TF32."""


KNOWN = {
    "V100": Rates(125e12, 15.7e12),
    "V100 PCIE": Rates(112e12, 14e12),
    "T4": Rates(65e12, 8.1e12),
    "A10": Rates(125e12, 31.2e12),
    "A100": Rates(312e12, 19.5e12),
    "L4": Rates(121e12, 30.3e12),
    "L40S": Rates(362e12, 91.6e12),
    "RTX 3090": Rates(71e12, 35.6e12),
    "RTX 4090": Rates(165e12, 82.6e12),
    "H100": Rates(989e12, 67e12),
    "H100 PCIE": Rates(756e12, 51e12),
    "H100 NVL": Rates(835e12, 60e12),
    "GH200": Rates(989e12, 67e12),
    "H200": Rates(989e12, 67e12),
    "B200": Rates(2250e12, 75e12),
    "GB200": Rates(2500e12, 80e12),
}
"""Words of a GPU's name, as torch gives it -> its rates; SXM where a kind has several boards."""
OTHERS = {"MIG", "LAPTOP", "D"}
"""Words of names that say that a GPU is less than its kind."""
LONG_S = 0.01
"""Seconds of a product that are long enough to be timed."""


def rates_of(name: str) -> Rates | None:
    """Rates of a GPU by its name, such as "NVIDIA H100 80GB HBM3"; None for an unknown kind."""
    words = set(re.split(r"[^0-9A-Z]+", name.upper()))
    fitting = [kind for kind in KNOWN if words.issuperset(kind.split())]
    if not fitting or words & OTHERS:
        return None
    return KNOWN[max(fitting, key=lambda kind: len(kind.split()))]


def peak(device: torch.device, half: bool, processes: int = 1) -> float:
    """FLOP/s that the devices of all processes can do together; 0 for an unknown GPU.

    Args:
        device: This process's; the others' are taken to be of its kind.
        half: Products are in fp16 or bf16.
        processes: Their number, each with a GPU, or with torch's threads on the cores of its host.
    """
    if device.type == "cpu":
        local = int(os.environ.get("LOCAL_WORLD_SIZE", processes))
        threads = torch.get_num_threads()
        cores = host.cores()
        return measured(half, threads) * processes * min(1.0, cores / (local * threads))
    found = rates_of(torch.cuda.get_device_name(device))
    if found is None:
        return 0.0
    if half:
        return found.half * processes
    has_tf32 = torch.cuda.get_device_capability(device) >= (8, 0)
    if has_tf32 and torch.get_float32_matmul_precision() != "highest":
        return found.half / 2 * processes
    return found.single * processes


@functools.cache
def measured(half: bool, threads: int) -> float:
    """FLOP/s of one large product on the CPU, the best of a few; it takes under 0.1 s.

    Args:
        half: Products are in bf16. A CPU that emulates it could do as well in float32.
        threads: Those that torch has now: another number is another measurement.
    """
    in_bf16 = half and computes_in_bf16(torch.device("cpu"))
    kind = torch.bfloat16 if in_bf16 else torch.float32
    best, side = 0.0, 128
    seconds = 0.0
    while seconds < LONG_S and side < 2048:
        side *= 2
        a = torch.ones(side, side, dtype=kind)
        for _ in range(2):
            start = time.perf_counter()
            a @ a
            seconds = time.perf_counter() - start
            best = max(best, 2 * side**3 / seconds)
    return best
