"""A watch over processes that work together: names what hangs, spreads errors, ends all.

Each process under `torchrun` has one watching thread. Twice a second it posts to the job's store
what the process is doing, and looks whether another one has failed. The first failure of a job,
whether an error, a hang or a lost process, is one record in the store; all processes read it, one
of them (rank 0, if it can) prints it, and all leave with its exit code, so that no one waits for
the dead and nothing is said twice.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch.distributed as dist

from tenfold.printable import Lines, printable

from . import flight
from .errors import BUG, HUNG, LOST, exit_code, message, report_to_torchrun

EVERY = 0.5
"""Seconds between two posts."""
WINDOW = 1.6
"""Seconds within which a live process posts; one that does not is called missing."""
GRACE = 1.0
"""Seconds a process has to fail by itself, after another one has: often it is the same."""
ANSWER = 4.0
"""Seconds to wait for the process that speaks to have spoken."""
STUCK = 5.0
"""Seconds an operation may go on after SIGTERM while a process is missing ..."""
STUCK_ALL_THERE = 25.0
"""... or while all are there, perhaps writing; `torchrun` sends SIGKILL after 30 s."""
GUARD = 20.0
"""Seconds a process that failed may take to end (threads that are joined, NCCL)."""

START = 60.0
"""Seconds processes may take to start, if the limit is shorter."""

Post = dict[str, Any]


class LostContact(RuntimeError):
    """Another process is gone, or failed first; the message names it."""

    def __init__(self, message: str, code: int = LOST) -> None:
        super().__init__(Lines(message))
        self.exit_code = code


@dataclass
class _Now:
    """Current activity of this process."""

    what: str = ""
    group: str = ""
    since: float = 0.0
    """Time at which that last changed, also by an operation inside this one."""
    count: int = 0
    last: str = ""
    """The operation that ended last."""
    broken: str = ""
    """The operation that raised."""
    place: str = ""
    patient: bool = False
    """Waiting for others without a limit."""


_now = _Now()
_current: Watch | None = None
_started = 0
"""Number of watches this process had: a later one must not see what an earlier one posted."""


@contextlib.contextmanager
def watched(what: str, group: str) -> Iterator[None]:
    """Say that this process is in an operation that others of `group` must join."""
    outer = _now.what, _now.group
    _now.count += 1
    _now.what, _now.group, _now.since = what, group, time.monotonic()
    try:
        yield
    except BaseException:  # also a SIGTERM meanwhile
        _now.broken = _now.broken or f"{what} over {group}"
        raise
    finally:
        _now.last = f"{what} over {group}, number {_now.count}"
        (_now.what, _now.group), _now.since = outer, time.monotonic()


@contextlib.contextmanager
def reading(what: str) -> Iterator[None]:
    """Watch a read of a number that a device computes, where that waits for others.

    On NCCL a collective returns as soon as it is queued: one that never ends is first noticed here.
    """
    if not flight.is_nccl():
        yield
        return
    last = _now.last  # what was queued, and stays the last: this read is no collective
    after = f" (queued last: {last.rpartition(', ')[0]})" if last else ""
    with watched(f"reading of {what}{after}", "all"):
        yield
    _now.last = last


def at(place: str) -> None:
    """Say where in training this process is, for reports."""
    _now.place = place


def meet() -> bool:
    """Wait for all processes for as long as they live; False if no watch can do that."""
    if _current is None:
        return False
    _current.meet()
    return True


def job_store(name: str, timeout: timedelta) -> dist.Store:
    """A store of this job's own: `torchrun` may keep the old one when it starts the job again."""
    environ = os.environ
    store = dist.TCPStore(
        environ["MASTER_ADDR"],
        int(environ["MASTER_PORT"]),
        is_master=environ["RANK"] == "0" and not _agent_hosts(),
        timeout=timeout,
        wait_for_workers=False,
        multi_tenant=True,
    )
    run = environ.get("TORCHELASTIC_RUN_ID", "none")
    attempt = environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    return dist.PrefixStore(f"tenfold/{run}/{attempt}/{_started}/{name}", store)


def _agent_hosts() -> bool:
    """Return True if the store lives in `torchrun` rather than in the first process."""
    return os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"


@contextlib.contextmanager
def over(rank: int, size: int, limit: float, knob: str = "") -> Iterator[None]:
    """Watch while the body runs, and leave it together with all other processes.

    What the body raises is told to all; `told` of it says whether someone has printed it. `knob` is
    how a user changes the limit.
    """
    global _current, _started
    _current = Watch(rank, size, limit, knob)
    _current.start()
    try:
        yield
        _current.stop()
    except BaseException as error:
        raised = _current.failed(error)
        if raised is error:
            raise
        raise raised from error
    finally:
        _current = None
        _started += 1


def told(error: BaseException) -> bool:
    """Return True if another process prints this error, so that this one need not.

    An error from before the processes met is compared through the store of `torchrun`.
    """
    if not hasattr(error, "told"):
        if not _agent_hosts():
            return False
        with contextlib.suppress(RuntimeError):  # no store: then everyone speaks for itself
            rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
            Watch(rank, size, float("inf")).failed(error)
    return bool(getattr(error, "told", False))


def _lost_contact(error: BaseException | None) -> bool:
    """Return True if an error, or one it came from, is torch's way to say that a peer is gone."""
    while error is not None:
        if isinstance(error, dist.DistError):
            return True
        if isinstance(error, RuntimeError) and any(
            word in str(error) for word in ("gloo/", "NCCL", "Connection closed", "Socket closed")
        ):
            return True
        error = error.__cause__ or error.__context__
    return False


def _terminate(signum: int, frame: Any) -> None:
    """Leave as an error does: whoever died first can be named before this process ends."""
    raise SystemExit(128 + signum)


class Watch:
    """The watching thread of one process; its store is not the process group's, which may block."""

    def __init__(self, rank: int, size: int, limit: float, knob: str = "") -> None:
        self.rank, self.size, self.limit, self.knob = rank, size, limit, knob
        self.store = job_store("watch", timedelta(seconds=START))
        self.beat = self.meetings = 0
        self.posted = 0.0
        self.looked = self.heard = time.monotonic()
        self.heard_beat = -1
        self.asked: tuple[int, float] | None = None
        self.ending, self.failing = threading.Event(), threading.Event()
        self.leaving = threading.Lock()  # only one of the two threads ends the process
        self.thread = threading.Thread(target=self._run, name="watch", daemon=True)
        self.signals = -1
        self.asleep: list[int] = []
        self.undo = contextlib.ExitStack()

    # -- the main thread ---------------------------------------------------------------------

    def start(self) -> None:
        """Post once, listen to signals, start the thread."""
        _now.since, _now.broken, _now.place = time.monotonic(), "", ""
        self._post()
        if threading.current_thread() is threading.main_thread():
            self._listen()
        self.thread.start()

    def _listen(self) -> None:
        """Learn of signals while the main thread waits inside torch, where no handler can run."""
        self.signals, write = os.pipe()
        for end in (self.signals, write):
            os.set_blocking(end, False)
            self.undo.callback(os.close, end)
        self.undo.callback(signal.set_wakeup_fd, signal.set_wakeup_fd(write))
        if signal.getsignal(signal.SIGTERM) == signal.SIG_DFL:
            self.undo.callback(signal.signal, signal.SIGTERM, signal.SIG_DFL)
            signal.signal(signal.SIGTERM, _terminate)

    def stop(self) -> None:
        """Wait for all to end well, then end the thread."""
        self.meet()
        if self._first() is not None:
            time.sleep(GUARD)  # too late to end well: the thread ends this process
        self.ending.set()
        self.thread.join()
        self.undo.close()
        if _agent_hosts():
            return
        # the store lives in the first process: it must not go before the others have met
        with contextlib.suppress(RuntimeError):
            if self.rank:
                self.store.add("gone", 1)
            else:
                self._until(lambda: self.store.add("gone", 0) == self.size - 1, ANSWER)

    def meet(self) -> None:
        """Wait for all, however long one of them works: who dies or fails ends this."""
        self.meetings += 1
        key = f"met/{self.meetings}"
        _now.patient = True
        try:
            with watched("a wait for all", "all"):
                if self.store.add(key, 1) == self.size:
                    self.store.set(f"{key}/all", "yes")
                pause = 0.002
                while not self.store.check([f"{key}/all"]):
                    time.sleep(pause)
                    pause = min(2 * pause, 0.1)
        finally:
            _now.patient = False

    def failed(self, error: BaseException) -> BaseException:
        """Tell all that this process fails; returns what to raise, with `told` set."""
        with contextlib.suppress(ValueError):  # not the main thread
            # `torchrun` terminates all once the first is gone; what happened must be said before
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if not self.leaving.acquire(blocking=False):
            time.sleep(GUARD)  # the thread is ending this process
        self.failing.set()
        raised, missing, quiet = error, list[int](), False
        with contextlib.suppress(RuntimeError):  # the store is gone: everyone for itself
            ended = isinstance(error, SystemExit) and exit_code(error) > 128
            if self.thread.is_alive() and (ended or _lost_contact(error)):
                raised, missing = self._explained(error)
            quiet = self._share(raised, missing)
        with contextlib.suppress(AttributeError):  # an error without a dictionary
            raised.told = quiet  # type: ignore[attr-defined]
        self.ending.set()
        if self.thread.is_alive():
            self.thread.join(ANSWER)
        guard = threading.Timer(GUARD, os._exit, [exit_code(raised)])
        guard.daemon = True
        guard.start()
        return raised

    def _explained(self, error: BaseException) -> tuple[BaseException, list[int]]:
        """Find what lies behind a broken connection or a SIGTERM: another's failure, or death."""
        missing = self._missing(lambda: self._first() is not None)
        first = self._first()
        if first is not None:
            return LostContact(first["line"], first["code"]), []
        if isinstance(error, SystemExit) and not missing:
            return error, []
        posts = self._posts()
        names = [f"rank {r} ({_age(posts.get(r))}; killed?)" for r in missing]
        text = f"rank {self.rank} lost contact with {', '.join(names) or 'another process'}"
        text += f" in {_now.broken}" if _now.broken else ""
        text += f", {_now.place}" if _now.place else ""
        if not missing:
            why = message(error).strip().splitlines() or [type(error).__name__]
            text = "\n".join([f"{text}: {why[0]}", *self._states(posts, missing)])
        return LostContact(text), missing

    def _share(self, error: BaseException, missing: list[int]) -> bool:
        """Post a failure; True if someone else speaks of it."""
        code = exit_code(error)
        text = message(error) if code != BUG else f"{type(error).__name__}: {error}"
        if isinstance(error, (KeyboardInterrupt, SystemExit)):
            text = ""
        first = self._claim(text, code, missing)
        mine = first["rank"] == self.rank
        if first["hang"] and not mine:
            flight.dump(self.rank)
        if self.rank == first["speaker"]:
            if first["text"] == text:
                self.store.set("told", "same")
                return False
            self._say(first)
            return isinstance(error, LostContact)  # that is but an echo
        if self._until(lambda: self.store.check(["told"]), ANSWER):
            # the others need no second line, but a bug's own process has the only traceback
            return not (mine and code == BUG and self.store.get("told") == b"line")
        if mine and code != BUG:
            self._say(first)
        return not mine or code != BUG

    # -- both threads ------------------------------------------------------------------------

    def _post(self) -> None:
        now = time.monotonic()
        self.beat += 1
        self.posted = now
        post: Post = {
            "what": _now.what,
            "group": _now.group,
            "count": _now.count,
            "seconds": now - _now.since,
            "last": _now.last,
            "place": _now.place,
            "time": time.time(),
            "beat": self.beat,
            "host": socket.gethostname(),
            "pid": os.getpid(),
        }
        self.store.set(f"post/{self.rank}", json.dumps(post))

    def _read(self, key: str) -> Any:
        return json.loads(self.store.get(key)) if self.store.check([key]) else None

    def _posts(self) -> dict[int, Post]:
        read = {r: self._read(f"post/{r}") for r in range(self.size)}
        return {r: post for r, post in read.items() if post is not None}

    def _first(self) -> Any:
        """The first failure of the job, or None."""
        return self._read("first")

    def _until(self, condition: Callable[[], bool], seconds: float) -> bool:
        """Wait until a condition holds, posting meanwhile; False if it takes too long."""
        end = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > end:
                return False
            if time.monotonic() - self.posted > EVERY:
                self._post()
            time.sleep(0.05)
        return True

    def _missing(self, or_if: Callable[[], bool] = lambda: False) -> list[int]:
        """List ranks that post nothing for `WINDOW` seconds (beats: clocks of hosts may differ)."""
        silent = {r: self._beat(r) for r in range(self.size) if r != self.rank}

        def all_heard() -> bool:
            for rank in [r for r, beat in silent.items() if self._beat(r) != beat]:
                del silent[rank]
            return not silent or or_if()

        self._until(all_heard, WINDOW)
        return sorted(silent)

    def _beat(self, rank: int) -> int:
        post = self._read(f"post/{rank}")
        return -1 if post is None else int(post["beat"])

    def _claim(self, text: str, code: int, missing: list[int], hang: bool = False) -> Any:
        """Make this the job's failure, unless there is one; returns the one that is."""
        line = text if text.startswith("rank ") else f"rank {self.rank}: {text}"
        speaker = min(r for r in range(self.size) if r not in missing)
        mine = {
            "rank": self.rank,
            "text": text,
            "line": line if text else "",
            "code": code,
            "speaker": speaker,
            "hang": hang,
        }
        return json.loads(self.store.compare_set("first", "", json.dumps(mine)))

    def _say(self, first: Any) -> None:
        if first["line"]:
            line = printable(f"tenfold: {first['line']}", "\n")
            print(line, file=sys.stderr, flush=True)
        self.store.set("told", "line")

    # -- the watching thread -----------------------------------------------------------------

    def _run(self) -> None:
        try:
            while not self.ending.wait(EVERY):
                self._look()
        except RuntimeError as error:
            # nobody can be heard any more; without `torchrun` this process would be an orphan
            if not self.ending.is_set() and self.leaving.acquire(blocking=False):
                print(
                    f"tenfold: rank {self.rank} lost the job's store: torchrun, or the first "
                    f"process, is gone ({str(error).splitlines()[0]})",
                    file=sys.stderr,
                )
                self._exit(LOST)

    def _look(self) -> None:
        now = time.monotonic()
        if now - self.looked > 10 * EVERY:  # stopped ourselves (Ctrl-Z): no one else's fault
            _now.since = self.heard = now
        self.looked = now
        self._post()
        if self.failing.is_set():
            return
        first = self._first()
        if first is not None:
            self._follow(first)
            return
        self._look_at_signals()
        since, waits = _now.since, bool(_now.what)
        if waits and not _now.patient and now - since > self.limit:
            self._give_up(HUNG, since, True)
        elif waits and self.asked and (late := now - max(self.asked[1], since)) > STUCK:
            even_if_all_there = late > STUCK_ALL_THERE and not _now.patient
            self._give_up(128 + self.asked[0], since, even_if_all_there)
        else:
            self._look_at_the_next()

    def _look_at_signals(self) -> None:
        with contextlib.suppress(OSError):  # nothing to read, or not listening
            for signum in os.read(self.signals, 64):
                if signum in (signal.SIGTERM, signal.SIGINT):
                    self.asked = signum, time.monotonic()

    def _look_at_the_next(self) -> None:
        """Each looks after one other, so that a stopped process is seen wherever the others are."""
        rank = (self.rank + 1) % self.size
        beat = self._beat(rank)
        if beat != self.heard_beat:
            self.heard_beat, self.heard = beat, time.monotonic()
            return
        limit = self.limit if beat >= 0 else max(self.limit, START)
        if time.monotonic() - self.heard > limit and rank in (missing := self._missing()):
            alone = f"rank {self.rank} no longer hears rank {rank}"
            self._fail(self._waiting() if _now.what else alone, HUNG, missing)

    def _give_up(self, code: int, since: float, even_if_all_there: bool) -> None:
        """End the wait that this process is in, unless it ends just now."""
        missing = self._missing()
        if _now.since != since or self.failing.is_set() or not (missing or even_if_all_there):
            return
        head = self._waiting()
        if code != HUNG:
            head += f" and was asked to stop by {signal.Signals(code - 128).name}"
        self._fail(head, code, missing)

    def _waiting(self) -> str:
        where = f", {_now.place}" if _now.place else ""
        return (
            f"rank {self.rank} has waited {time.monotonic() - _now.since:.0f} s in {_now.what} "
            f"over {_now.group} (number {_now.count}{where})"
        )

    def _fail(self, head: str, code: int, missing: list[int]) -> None:
        posts = self._posts()
        lines = [head, *self._states(posts, missing)]
        if code == HUNG:
            by = f" ({self.knob})" if self.knob else ""
            lines.append(
                f"  gave up after {self.limit:.0f} s; if it was only slow, allow more time{by}, "
                "else look at the process that is not there"
            )
        if flight.dump(self.rank):
            lines.append(f"  {flight.told()}")
        self._claim("\n".join(lines), code, missing, hang=True)
        here = socket.gethostname()
        self.asleep = [posts[r]["pid"] for r in missing if r in posts and posts[r]["host"] == here]

    def _states(self, posts: dict[int, Post], missing: list[int]) -> list[str]:
        """A line for every other process that is not where this one waits, the worst first."""
        lines = []
        for rank in missing:
            post = posts.get(rank)
            line = f"  rank {rank}: {_age(post)}: stopped, swapped out or killed"
            lines.append(line + (f"; last {_doing(post)}" if post else ""))
        there = []
        for rank, post in posts.items():
            if rank in (self.rank, *missing):
                continue
            if (post["what"], post["group"]) == (_now.what, _now.group) and _now.what:
                there.append(str(rank))
            else:
                lines.append(f"  rank {rank}: {_doing(post)}")
        if len(lines) > 8:
            lines[8:] = [f"  ... and {len(lines) - 8} more"]
        if there:
            lines.append(f"  waiting in the same operation: rank {', '.join(there)}")
        return lines

    def _follow(self, first: Any) -> None:
        """Another process failed, or this thread found a hang: have it said, and leave."""
        # usually the main thread is about to fail the same way, and then speaks for itself
        if self._until(self.failing.is_set, GRACE):
            return
        if not self.leaving.acquire(blocking=False):
            return
        mine = first["rank"] == self.rank
        if self.rank == first["speaker"]:
            self._say(first)
        elif not self._until(lambda: self.store.check(["told"]), ANSWER + (not mine)) and mine:
            self._say(first)
        if first["hang"] and not mine:
            flight.dump(self.rank)
        report_to_torchrun(f"tenfold: {first['line']}")
        self._exit(first["code"])

    def _exit(self, code: int) -> None:
        """End the process, whatever the main thread is blocked in."""
        for pid in self.asleep:
            with contextlib.suppress(OSError):  # one that is only stopped can then leave, too
                os.kill(pid, signal.SIGCONT)
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _age(post: Post | None) -> str:
    return "never heard" if post is None else f"not heard for {time.time() - post['time']:.0f} s"


def _doing(post: Post) -> str:
    where = f", {post['place']}" if post["place"] else ""
    if post["what"]:
        return (
            f"in {post['what']} over {post['group']} for {post['seconds']:.0f} s "
            f"(number {post['count']}{where})"
        )
    after = f" since {post['last']}" if post["last"] else ""
    return f"computing for {post['seconds']:.0f} s{after}{where}"
