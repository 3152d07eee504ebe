"""Small jobs that go wrong in one way each; see test_watch.py.

torchrun watch_worker.py RUN WHAT [--rank N] [--limit SECONDS]
python watch_worker.py --jobs FOLDER    # all jobs of FOLDER/jobs.json together, torch loaded once
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import sys
import threading
import time
from datetime import timedelta
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent))

from toy import LOOP, Toy, seed_everything

from tenfold import cli
from tenfold.core import dist, flight, loop, watchdog


def ring(world: dist.World, wrong: int, act, steps: int = 5) -> None:
    """Sums over all processes; before the third one, process `wrong` does something else."""
    for step in range(steps):
        watchdog.at(f"step {step}")
        if step == 3 and world.rank == wrong:
            act()
        x = torch.ones(4)
        with watchdog.watched("all_reduce of (4,)", "tp"):
            queued = torch.distributed.all_reduce(x, async_op=flight.is_nccl())
        with watchdog.reading("the losses"):
            if queued is not None:
                queued.wait()
        assert x[0] == world.size


def sleep() -> None:
    time.sleep(300)


def stop() -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def mistake() -> None:
    raise ValueError("file 7 is damaged; delete it")


def bug() -> None:
    raise KeyError("no such expert")


def imitate_nccl() -> None:
    """Collectives are queued, and torch's record of them is that of gloo."""
    c10d = torch._C._distributed_c10d
    c10d._dump_nccl_trace = c10d._dump_fr_trace
    flight.is_nccl = lambda: True
    flight.switch_on()


def verb(words: list[str]) -> None:
    """Fail as told."""
    parser = argparse.ArgumentParser()
    parser.add_argument("run", type=Path)
    parser.add_argument("what")
    parser.add_argument("--rank", type=int, default=1)
    parser.add_argument("--limit", type=float, default=60.0)
    parser.add_argument("--term", action="store_true")
    parser.add_argument("--nccl", action="store_true")
    args = parser.parse_args(words)
    torch.set_num_threads(1)
    here = int(os.environ["RANK"])
    attempt = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))
    what = args.what
    if args.nccl:
        imitate_nccl()
    if what == "same-mistake-early":
        mistake()
    with dist.started("cpu", limit=args.limit, knob="--layout.timeout") as world:
        if what == "same-mistake":
            time.sleep(0.3 * here)
            mistake()
        elif what == "other-config":
            hidden = 32 if here == args.rank else 16
            world.require_same({"config": {"model": {"hidden": hidden}}, "code": "abc"})
        elif what == "patient":
            time.sleep(1.5 * args.limit * (here == args.rank))
            world.barrier(patient=True)
        elif what == "stop-beside-work":
            stop() if here == args.rank else sleep()
        elif what in ("train", "train-killed", "train-nan"):
            wrong = here == args.rank and attempt == 0
            kill_at = 7 if wrong and what == "train-killed" else 0
            poison = 5 if wrong and what == "train-nan" else 0
            seed_everything(7)
            toy = Toy(kill_at, signal.SIGKILL, False, poison)
            loop.train(toy.stages(), LOOP, world, args.run, 7)
        elif what == "kill-one-of-a-chain":
            # the last dies; the first waits for the middle one only
            if here == world.size - 1:
                time.sleep(1)
                kill()
            elif here:
                torch.distributed.recv(torch.ones(1), src=here + 1)
            else:
                with watchdog.watched("receive of (1,)", "pp"):
                    torch.distributed.recv(torch.ones(1), src=1)
        else:
            if what == "stop" and args.term and here != args.rank:
                threading.Timer(1.0, os.kill, [os.getpid(), signal.SIGTERM]).start()
            ring(world, args.rank, globals()[what])


def launch(folder: Path, processes: int, words: list[str]) -> bool:
    """Do as `torchrun` does: host the store, end all when one fails. True in its processes."""
    # kept from here on: a port that is given back may be another's before the store has it
    listening = socket.create_server(("127.0.0.1", 0))
    port = listening.getsockname()[1]
    environ = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(processes)}
    environ["TORCHELASTIC_USE_AGENT_STORE"] = "True"
    ranks: dict[int, int] = {}
    for rank in range(processes):
        pid = os.fork()
        if pid == 0:
            listening.close()
            os.environ.update(environ, RANK=str(rank), LOCAL_RANK=str(rank))
            sys.argv[1:] = words
            return True
        ranks[pid] = rank
    store = torch.distributed.TCPStore(
        "127.0.0.1", port, is_master=True, wait_for_workers=False, timeout=timedelta(seconds=60),
        master_listen_fd=listening.detach(),
    )  # fmt: skip
    began, ended, asked = time.monotonic(), {}, 0.0
    while len(ended) < processes:
        time.sleep(0.05)
        now = time.monotonic() - began
        for pid in [p for p, r in ranks.items() if r not in ended]:
            found, status = os.waitpid(pid, os.WNOHANG)
            if found:
                ended[ranks[pid]] = os.waitstatus_to_exitcode(status), round(now, 1)
            elif now > 50 or (asked and now > asked + 30):
                os.kill(pid, signal.SIGKILL)
            elif not asked and any(code for code, _ in ended.values()):
                for other in [p for p, r in ranks.items() if r not in ended]:
                    os.kill(other, signal.SIGTERM)
                asked = now
    del store
    result = {"codes": [ended[r][0] for r in range(processes)]}
    result["seconds"] = [ended[r][1] for r in range(processes)]
    (folder / "result.json").write_text(json.dumps(result))
    return False


def jobs(folder: Path) -> bool:
    """Start every job, one a second; True in a job's own processes."""
    import torch._dynamo  # noqa: F401 - optimisers import it: here once, not in every process

    waiting = []
    for name, (processes, *words) in json.loads((folder / "jobs.json").read_text()).items():
        (folder / name).mkdir()
        pid = os.fork()
        if pid == 0:
            with (folder / name / "output").open("wb") as output:
                os.dup2(output.fileno(), 1)
                os.dup2(output.fileno(), 2)
            if launch(folder / name, processes, [str(folder / name / "run"), *words]):
                return True
            os._exit(0)
        waiting.append(pid)
        time.sleep(1)  # so that no process waits for a core until others give it up for dead
    for pid in waiting:
        os.waitpid(pid, 0)
    return False


if __name__ == "__main__":
    forked = sys.argv[1] == "--jobs"
    if not forked or jobs(Path(sys.argv[2])):
        cli.VERBS["fail"] = verb
        code = 0
        try:
            cli.main(["fail", *sys.argv[1:]])
        except SystemExit as end:
            code = int(end.code or 0)
        if forked:  # taking torch down costs a forked process a second
            sys.stderr.flush()
            os._exit(code)
        sys.exit(code)
