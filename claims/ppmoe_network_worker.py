"""One rank of `ppmoe_network.py`: builds its part, then does what each line of its input asks."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist

from tenfold.core.dist import World, started
from tenfold.core.loop import Loop
from tenfold.core.optim import Optim
from tenfold.systems.ppmoe.config import Config, Data, Layout, Model
from tenfold.systems.ppmoe.parallel import make_grid
from tenfold.systems.ppmoe.pipeline import Part


def main() -> None:
    """Answer each line of JSON with one; leave when the input ends, also if the parent dies."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # gloo speaks on standard output too
    job: dict[str, Any] = json.loads(sys.argv[1])
    if job["cores"]:
        os.sched_setaffinity(0, job["cores"])
    torch.set_num_threads(1)
    with started("cpu", minutes=job["timeout"] / 60) as world:
        rank = Rank(job, world)
        print(json.dumps(rank.description), file=answers, flush=True)
        for line in sys.stdin:
            order = json.loads(line)
            print(json.dumps(rank.do(order)), file=answers, flush=True)


class Rank:
    """The part that this rank holds, its tokens, and the clock around a step."""

    def __init__(self, job: dict[str, Any], world: World) -> None:
        model, layout = Model(**job["model"]), Layout(**job["layout"])
        rows, micro = job["rows"], job["micro_batches"]  # of a micro-batch; of all replicas
        dp = world.size // (layout.pp * layout.tp)
        loop = Loop(accumulate=micro // dp)
        cfg = Config(model, layout, Data(), Optim(), 1, rows * dp, 0, loop)
        self.world, self.grid = world, make_grid(cfg, world)
        self.part = Part(cfg, self.grid)
        draw = torch.Generator().manual_seed(0)
        tokens = torch.randint(model.vocab, (micro * rows, model.seq + 1), generator=draw)
        mine = tokens.chunk(dp)[self.grid.dp.rank]
        self.batches = [{"tokens": chunk} for chunk in mine.chunk(micro // dp)]
        self.reduce_from = 0.0
        reduce: Callable[[], None] = self.part.gradients.complete

        def timed_reduce() -> None:
            self.reduce_from = time.monotonic()
            reduce()

        self.part.gradients.complete = timed_reduce  # type: ignore[method-assign]
        self.description = {"parameters": sum(p.numel() for p in self.part.parameters())}

    def do(self, order: dict[str, Any]) -> dict[str, Any]:
        """`step`, `check`, `link`, `exchange` or `inside`."""
        return getattr(self, order["do"])(**{k: v for k, v in order.items() if k != "do"})

    def step(self) -> dict[str, float]:
        """Clock stamps of one step; the monotonic clock is the same for all processes."""
        self.part.zero_grad(set_to_none=True)
        self.world.barrier()
        begin = time.monotonic()
        self.part.train_step(self.batches)
        return {"begin": begin, "reduce": self.reduce_from, "end": time.monotonic()}

    def check(self) -> dict[str, Any]:
        """What must not depend on the layout: loss, gradient norm, and who was routed where."""
        self.part.zero_grad(set_to_none=True)
        tally = self.part.train_step(self.batches)
        return {
            "ce": float(tally.ce),
            "gradient_norm": float(self.part.gradient_norm()),
            "counts": tally.counts().tolist(),
        }

    def link(self, size: int) -> dict[str, float]:
        """Seconds of `size` bytes from the first node to the second, and of both ways at once."""
        rank, half = self.world.rank, self.world.size // 2
        data, got = torch.zeros(size // 4), torch.zeros(size // 4)
        taken = {}
        for name, ways in (("one", 1), ("both", 2)):
            self.world.barrier()
            begin = time.monotonic()
            pending = []
            if rank == 0:
                pending.append(dist.isend(data, half))
                if ways == 2:
                    pending.append(dist.irecv(got, half))
            elif rank == half:
                pending.append(dist.irecv(got, 0))
                if ways == 2:
                    pending.append(dist.isend(data, 0))
            for one in pending:
                assert one is not None
                one.wait()
            taken[name] = time.monotonic() - begin
        return taken if rank == half else {}

    def exchange(self, size: int) -> dict[str, float]:
        """Seconds of an even all-to-all of `size` bytes a rank among all ranks; median of 9."""
        data = torch.zeros(self.world.size, size // 4 // self.world.size)
        got = torch.empty_like(data)
        taken = []
        for _ in range(9):
            self.world.barrier()
            begin = time.monotonic()
            dist.all_to_all_single(got, data)
            taken.append(time.monotonic() - begin)
        return {"seconds": sorted(taken)[4]}

    def inside(self, size: int) -> dict[str, float]:
        """Seconds of an all-reduce of `size` bytes in each node's tensor group; median of 5."""
        data = torch.zeros(size // 4)
        taken = []
        for _ in range(5):
            self.world.barrier()
            begin = time.monotonic()
            self.grid.tp.sum_(data)
            taken.append(time.monotonic() - begin)
        return {"seconds": sorted(taken)[2]}


if __name__ == "__main__":
    main()
