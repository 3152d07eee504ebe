"""Rates of this machine for the cost model, by half a minute of measurement on its CPU cores.

One thread a process, as local runs have it. Every figure is a median after a warm-up, with its
spread; other work on the machine shows in the spread and makes the rates too low.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from statistics import quantiles
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import torch.nn.functional as F
from torch import Tensor, nn

from tenfold.core import checkpoint, host, log
from tenfold.core.dist import World

from ..config import Model
from ..experts import Experts
from .clusters import Calibration
from .cost import OPTIMIZER_TRAFFIC, PASSES
from .shape import Shape

Timing = tuple[float, float]
"""Median seconds, and interquartile range over median."""


def timed(run: Callable[[], object], seconds: float, least: int = 5, most: int = 200) -> Timing:
    """Call `run` for about `seconds`, at least `least` times after two that do not count."""
    run()
    run()
    taken: list[float] = []
    end = time.perf_counter() + seconds
    while len(taken) < least or (time.perf_counter() < end and len(taken) < most):
        start = time.perf_counter()
        run()
        taken.append(time.perf_counter() - start)
    return _summary(taken)


def _summary(taken: list[float]) -> Timing:
    low, middle, high = quantiles(taken, n=4)
    return middle, (high - low) / middle


def calibrate(shape: Shape, micro_batch_size: int = 4, seconds: float = 25.0) -> Calibration:
    """Measure this machine at the sizes of a model; `seconds` is shared by all measurements.

    Raises ValueError for a model without experts or too large for the time, RuntimeError if the
    two processes that measure the links do not answer in time.
    """
    if seconds <= 0 or micro_batch_size < 1:
        raise ValueError(
            f"calibration needs a positive time and micro-batch, got {seconds} s and "
            f"{micro_batch_size} sequences"
        )
    if not shape.experts:
        raise ValueError("calibration measures experts too; give a --model that has some")
    flop = 72 * micro_batch_size * shape.seq * shape.hidden**2
    if flop > 5e11:
        raise ValueError(
            f"one block at hidden {shape.hidden} and {micro_batch_size} x {shape.seq} tokens is "
            f"{flop:.1e} FLOP, too much for a short measurement; take a smaller --model (small) or "
            "--micro-batch"
        )
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            share = seconds / 8
            timings = {
                "matmul": _matmul(shape, micro_batch_size, share),
                "block": _block(shape, micro_batch_size, 2 * share),
                "experts": _experts(shape, micro_batch_size, share),
                "optimizer": _optimizer(share),
                "copy": _copy(share / 2),
            }
    finally:
        torch.set_num_threads(threads)
    timings |= _links(shape, micro_batch_size, seconds=2.5 * share)
    return _rates(shape, micro_batch_size, timings)


def _rates(shape: Shape, micro_batch_size: int, timings: dict[str, Timing]) -> Calibration:
    """Rates from seconds; the counts are the cost model's."""
    n, h, k = micro_batch_size * shape.seq, shape.hidden, shape.top_k
    block = PASSES * (24 * n * h * h + 4 * n * shape.seq * h)
    gemm = block / timings["block"][0]
    products = PASSES * 16 * n * h * h * k / gemm
    call = max(0.0, timings["experts"][0] - products) / (PASSES * shape.experts)
    small, large = _link_bytes(shape, micro_batch_size)
    return Calibration(
        gemm_flops=gemm,
        expert_call_s=call,
        # Of two processes, an all-reduce moves 2 (2 - 1) / 2 of the buffer, an all-to-all half.
        allreduce_bytes_per_s=small / timings["allreduce"][0],
        gradient_bytes_per_s=large / timings["gradient"][0],
        alltoall_bytes_per_s=small / 2 / timings["alltoall"][0],
        optimizer_bytes_per_s=OPTIMIZER_TRAFFIC * NUMBERS / timings["optimizer"][0],
        matmul_flops=8 * n * h * h / timings["matmul"][0],
        copy_bytes_per_s=2.0 * 4 * NUMBERS / timings["copy"][0],
        cores=host.cores(),
        memory_bytes=float(host.memory_bytes()),
        shape=shape,
        micro_batch_size=micro_batch_size,
        spread={name: timing[1] for name, timing in timings.items()},
        environment=log.environment(World(0, 1, torch.device("cpu"))),
    )


NUMBERS = 2**22
"""Parameters, or numbers copied, when memory is measured: more than caches hold."""


def _matmul(shape: Shape, b: int, seconds: float) -> Timing:
    x = torch.randn(b * shape.seq, shape.hidden)
    w = torch.randn(shape.hidden, 4 * shape.hidden)
    return timed(lambda: x @ w, seconds)


class _Block(nn.Module):
    """A dense pre-norm block: what the cost model's rate is spent on, norms and GELU included."""

    def __init__(self, hidden: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(hidden), nn.LayerNorm(hidden)
        self.qkv, self.proj = nn.Linear(hidden, 3 * hidden), nn.Linear(hidden, hidden)
        self.fc1, self.fc2 = nn.Linear(hidden, 4 * hidden), nn.Linear(4 * hidden, hidden)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(self.norm1(x)).unflatten(-1, (3, self.heads, -1)).unbind(2)
        y = F.scaled_dot_product_attention(
            q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), is_causal=True
        )
        x = x + self.proj(y.transpose(1, 2).flatten(2))
        return x + self.fc2(F.gelu(self.fc1(self.norm2(x))))


def _block(shape: Shape, b: int, seconds: float) -> Timing:
    heads = math.gcd(shape.hidden, shape.heads)  # with a head_size they need not divide
    module = _Block(shape.hidden, heads)
    x = torch.randn(b, shape.seq, shape.hidden, requires_grad=True)
    grad = torch.randn_like(x)
    return timed(lambda: module(x).backward(grad), seconds)


def _experts(shape: Shape, b: int, seconds: float) -> Timing:
    """Routing, sorting, all experts, and putting back, forward and backward; even load."""
    cfg = Model(hidden=shape.hidden, heads=1, experts=shape.experts, top_k=shape.top_k)
    experts = Experts(cfg, shape.experts)
    gate = nn.Linear(shape.hidden, shape.experts, bias=False)
    for p in experts.parameters():
        nn.init.normal_(p, std=0.02)
    n, k = b * shape.seq, shape.top_k
    x = torch.randn(n, shape.hidden, requires_grad=True)
    grad = torch.randn_like(x)
    even = (torch.arange(n * k) % shape.experts).reshape(n, k)

    def run() -> None:
        probs = gate(x).softmax(-1)
        probs.sort(dim=-1, descending=True, stable=True)
        order = even.flatten().argsort(stable=True)
        tokens = order // k
        y = experts(x[tokens], even.flatten().bincount(minlength=shape.experts))
        y = y * probs.gather(1, even).flatten()[order, None]
        torch.zeros_like(x).index_add(0, tokens, y).backward(grad)

    return timed(run, seconds)


def _optimizer(seconds: float) -> Timing:
    # In tensors of a block's size, not in one: the size of a tensor decides what caches do.
    weights = [nn.Parameter(torch.randn(NUMBERS // 64)) for _ in range(64)]
    for w in weights:
        w.grad = torch.randn_like(w)
    optimizer = torch.optim.AdamW(weights, lr=1e-4)
    return timed(optimizer.step, seconds)


def _copy(seconds: float) -> Timing:
    a, b = torch.randn(NUMBERS), torch.empty(NUMBERS)
    return timed(lambda: b.copy_(a), seconds)


def _link_bytes(shape: Shape, b: int) -> tuple[int, int]:
    """Bytes of the small and the large message: a micro-batch's activations, gradients."""
    small = 4 * b * shape.seq * shape.hidden
    return small + small % 8, 4 * NUMBERS


def _links(shape: Shape, b: int, seconds: float) -> dict[str, Timing]:
    """Collectives between two local processes on gloo; they are killed if they do not answer."""
    small, large = _link_bytes(shape, b)
    limit = 90.0 + 3 * seconds  # starting two interpreters on a busy machine takes a while
    with tempfile.TemporaryDirectory() as folder:
        spawned = mp.start_processes(
            _link_process, args=(folder, small // 4, large // 4, seconds / 3), nprocs=2,
            join=False, start_method="spawn",
        )  # fmt: skip
        end = time.monotonic() + limit
        try:
            while not spawned.join(timeout=max(0.1, end - time.monotonic())):
                if time.monotonic() > end:
                    raise RuntimeError(
                        f"the two processes that measure the links gave no answer in {limit:.0f} s"
                        "; is another process holding the loopback network?"
                    )
        finally:
            for process in spawned.processes:
                if process.is_alive():
                    process.kill()
                    process.join()
        timings: dict[str, Any] = checkpoint.read_json(Path(folder) / "links.json")
    return {name: (float(a), float(s)) for name, (a, s) in timings.items()}


def _link_process(rank: int, folder: str, small: int, large: int, seconds: float) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2,
        timeout=timedelta(seconds=90),
    )  # fmt: skip
    few, many, got = torch.zeros(small), torch.zeros(large), torch.zeros(small)
    runs: dict[str, Callable[[], object]] = {
        "allreduce": lambda: dist.all_reduce(few),
        "gradient": lambda: dist.all_reduce(many),
        "alltoall": lambda: dist.all_to_all_single(got, few),
    }
    timings = {}
    for name, run in runs.items():
        dist.barrier()
        start = time.perf_counter()
        run()
        # Both processes must call as often: rank 0 says how often, from one call.
        count = torch.tensor(math.ceil(seconds / max(1e-6, time.perf_counter() - start)))
        dist.broadcast(count, 0)
        taken = []
        for _ in range(min(200, max(7, int(count)))):
            dist.barrier()
            start = time.perf_counter()
            run()
            taken.append(time.perf_counter() - start)
        timings[name] = _summary(taken[2:])
    if rank == 0:
        checkpoint.write_json(Path(folder) / "links.json", timings)
    dist.barrier()
    dist.destroy_process_group()
