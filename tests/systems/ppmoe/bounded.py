"""Run on two processes: train, store, evaluate and open again a model under a limit of memory.

python bounded.py FOLDER MEBIBYTES     what each process may take beyond what it has at the start
"""

from __future__ import annotations

import ctypes
import re
import resource
import sys
from pathlib import Path

import torch

from tenfold.core import checkpoint, dist, loop
from tenfold.core.loop import Loop
from tenfold.core.optim import Optim
from tenfold.runner.train import train
from tenfold.runner.weights import load
from tenfold.systems.ppmoe import Ppmoe
from tenfold.systems.ppmoe.config import Config, Data, Layout, Model

MODEL = Model(
    layers=2, hidden=256, heads=4, seq=16, experts=32, moe_every=1, expert_ffn=1024,
    activation="swiglu", bias="none", norm="rms", positions="rotary",
)  # fmt: skip


M_MMAP_THRESHOLD, M_ARENA_MAX = -3, -8
"""Parameters of glibc's mallopt (malloc.h)."""


def config(text: Path) -> Config:
    data = Data(name="files", path=str(text), eval_windows=4)
    loop = Loop(workers=0, device="cpu", save_every=100)
    return Config(MODEL, Layout(tp=2), data, Optim(lr=1e-3), steps=1, batch=1, loop=loop)


def give_back_what_is_freed() -> None:
    """Make malloc map what is large, so that what counts is held, not kept for later use."""
    loop.keep_freed_memory = lambda: None
    libc = ctypes.CDLL(None)
    for parameter, value in ((M_MMAP_THRESHOLD, 2**18), (M_ARENA_MAX, 1)):
        assert libc.mallopt(parameter, value) == 1


def taken() -> int:
    """Bytes of this process's own memory."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(re.search(r"VmData:\s+(\d+)", status)[1])  # type: ignore[index]


def main() -> None:
    folder, allowed = Path(sys.argv[1]), int(sys.argv[2]) * 2**20
    torch.set_num_threads(1)
    give_back_what_is_freed()
    with dist.started("cpu") as world:
        torch.randn(64, 64) @ torch.randn(64, 64)  # what libraries set up is no part of the model
        limit = taken() + allowed
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
        cfg = config(folder / "text.txt")
        result = train("ppmoe", Ppmoe, "small", cfg, folder / "run")
        system = load(Ppmoe, folder / "run")
        again = system.evaluate("test").metrics
        if world.is_first:
            measured = {"trained": result["metrics"], "opened": again}
            checkpoint.write_json(folder / "measured.json", measured)


if __name__ == "__main__":
    main()
