"""torch's flight recorder: the last collectives of every process on NCCL, on disk when a job hangs.

torch keeps them in memory, with sizes and places in the source, and writes them when its own limit
passes. Our watch ends a job before that, and so writes them to where torch would. (On gloo a
collective that hangs is the one that we watch; torch's analyser does not read records of gloo.)
"""

from __future__ import annotations

import contextlib
import os
import threading
from pathlib import Path

import torch
import torch.distributed as dist

from tenfold.files import write_bytes

OLD = {
    "TORCH_FR_BUFFER_SIZE": "TORCH_NCCL_TRACE_BUFFER_SIZE",
    "TORCH_FR_DUMP_TEMP_FILE": "TORCH_NCCL_DEBUG_INFO_TEMP_FILE",
}
"""What torch 2.9 to 2.13 read -> its former name, which they read as well."""
PATIENCE = 2.0
"""Seconds that writing may take: what hangs may hold a lock that the recorder needs."""


def is_nccl() -> bool:
    """Return True if collectives are queued on GPUs, by NCCL."""
    return dist.is_initialized() and dist.get_backend() == "nccl"


def switch_on() -> None:
    """Let torch record, before it makes a process group on NCCL; what the user has set stays."""
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    job = f"tenfold-{os.environ['MASTER_PORT']}"
    wanted = {
        "TORCH_FR_BUFFER_SIZE": "2000",
        "TORCH_FR_DUMP_TEMP_FILE": os.path.join(cache, "torch", job, "rank_"),
        "TORCH_NCCL_DUMP_ON_TIMEOUT": "1",
    }
    for name, value in wanted.items():
        if OLD.get(name, name) not in os.environ:
            os.environ.setdefault(name, value)
    with contextlib.suppress(OSError):  # torch makes no folder for what it writes
        os.makedirs(os.path.dirname(prefix()), exist_ok=True)


def prefix() -> str:
    """Paths of all files without the rank that each ends with."""
    name = "TORCH_FR_DUMP_TEMP_FILE"
    return os.environ.get(name) or os.environ.get(OLD[name], "")


def told() -> str:
    """Where the files are, for who reads that the job hung."""
    folder = os.path.dirname(prefix())
    return f"last collectives of each process: {prefix()}* (`torchfrtrace {folder}` reads them)"


def dump(rank: int) -> bool:
    """Write what was recorded in this process; False if there is nothing, or torch cannot."""
    if not (is_nccl() and prefix()):
        return False
    written = threading.Event()
    thread = threading.Thread(target=_dump, args=(f"{prefix()}{rank}", written), daemon=True)
    thread.start()
    thread.join(PATIENCE)
    return written.is_set()


def _dump(path: str, written: threading.Event) -> None:
    recorded = getattr(torch._C._distributed_c10d, "_dump_nccl_trace", None)
    if recorded is None:
        return
    with contextlib.suppress(RuntimeError, OSError):
        write_bytes(Path(path), recorded())
        written.set()
