"""Python processes without the seconds that imports cost: forked from one that has them behind it.

`run` and `torchrun` start scripts or modules as `python` and `torchrun` would (own process, own
arguments, environment and output, real signals), but torch is already imported. `torchrun` is
imitated: its environment, and that the failure of one process ends the others. The real one is
used where restarts or its own behaviour count.
"""

from __future__ import annotations

import atexit
import gc
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

GRACE = 15.0
"""Seconds that processes have to end after another one has failed."""
_parent: subprocess.Popen[str] | None = None


def run(*words: str | Path, timeout: float = 180) -> subprocess.CompletedProcess[str]:
    """Run `python WORDS` (a script, or -m and a module) with this process's environment."""
    return _ask([{}], [str(w) for w in words], timeout)


def torchrun(
    processes: int, *words: str | Path, timeout: float = 180
) -> subprocess.CompletedProcess[str]:
    """Run WORDS on several processes that know of each other; the worst exit code counts."""
    shared = {
        "MASTER_ADDR": "127.0.0.1",
        "TORCHELASTIC_USE_AGENT_STORE": "True",
        "WORLD_SIZE": str(processes),
        "LOCAL_WORLD_SIZE": str(processes),
    }
    ranks = [{**shared, "RANK": str(r), "LOCAL_RANK": str(r)} for r in range(processes)]
    return _ask(ranks, [str(w) for w in words], timeout)


def _ask(
    ranks: list[dict[str, str]], words: list[str], timeout: float
) -> subprocess.CompletedProcess[str]:
    global _parent
    if _parent is None or _parent.poll() is not None:
        _parent = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        atexit.register(_parent.kill)
    assert _parent.stdin and _parent.stdout
    with tempfile.TemporaryDirectory() as folder:
        outputs = [f"{folder}/out", f"{folder}/err"]
        asked = {
            "ranks": ranks, "words": words, "timeout": timeout, "outputs": outputs,
            "env": dict(os.environ), "cwd": os.getcwd(),
        }  # fmt: skip
        print(json.dumps(asked), file=_parent.stdin, flush=True)
        code = json.loads(_parent.stdout.readline())
        out, err = (Path(file).read_text(errors="replace") for file in outputs)
    if code is None:
        raise subprocess.TimeoutExpired(words, timeout, out, err)
    return subprocess.CompletedProcess(words, code, out, err)


# --- the process that is forked ------------------------------------------------------------------


def serve() -> None:
    """Import what is slow, then fork for each line of stdin."""
    import matplotlib.pyplot
    import torch._dynamo  # optimisers import it
    import torch.distributed.checkpoint
    import xarray
    from quick import make_quick

    import tenfold.runner.train
    from tenfold import cli, systems

    for name in systems.SYSTEMS:
        systems.system_class(name)
    assert torch.distributed.checkpoint and torch._dynamo and tenfold.runner.train and cli
    assert matplotlib.pyplot and xarray
    make_quick()
    torch.set_num_threads(1)
    gc.freeze()
    for line in sys.stdin:
        asked = json.loads(line)
        print(json.dumps(_supervised(asked)), flush=True)


def _supervised(asked: dict[str, Any]) -> int | None:
    """The exit code of all: the first that is not 0 (-9 for SIGKILL); None if time ran out."""
    agent = 0
    if len(asked["ranks"]) > 1:
        agent, port = _agent()
        asked["ranks"] = [{**rank, "MASTER_PORT": port} for rank in asked["ranks"]]
    try:
        return _waited_for(asked)
    finally:
        if agent:
            os.kill(agent, signal.SIGKILL)
            os.waitpid(agent, 0)


def _agent() -> tuple[int, str]:
    """A process that hosts the job's store, as torchrun does, and the port of the store."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid:
        os.close(writing)
        with os.fdopen(reading) as pipe:
            return pid, pipe.readline().strip()
    from torch.distributed import TCPStore

    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    os.write(writing, f"{store.port}\n".encode())
    while True:
        time.sleep(60)


def _waited_for(asked: dict[str, Any]) -> int | None:
    waiting = {_fork(asked, rank): rank for rank in asked["ranks"]}
    ends, code = time.monotonic() + asked["timeout"], 0
    timed_out = False
    while waiting:
        ended = [(p, s) for p, s in (os.waitpid(q, os.WNOHANG) for q in waiting) if p]
        for pid, status in ended:
            del waiting[pid]
            own = os.waitstatus_to_exitcode(status)
            if own and not code:
                code = own
                ends = min(ends, time.monotonic() + GRACE)
        if time.monotonic() > ends:
            timed_out = timed_out or not code
            for other in waiting:
                os.kill(other, signal.SIGKILL)
            ends += 60
        elif not ended:
            time.sleep(0.01)
    return None if timed_out else code


def _fork(asked: dict[str, Any], rank: dict[str, str]) -> int:
    pid = os.fork()
    if pid:
        return pid
    os.setsid()
    for number, file in zip((1, 2), asked["outputs"], strict=True):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.environ.clear()
    os.environ.update({**asked["env"], **rank})
    os.chdir(asked["cwd"])
    code = 1
    try:
        _execute(asked["words"])
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _execute(words: list[str]) -> None:
    import runpy

    if words[0] == "-m":
        sys.argv = words[1:]
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = words
        sys.path.insert(0, str(Path(words[0]).parent))
        runpy.run_path(words[0], run_name="__main__")


if __name__ == "__main__":
    serve()
