"""A server in a process of its own, and Debian's Chromium to look at it."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tenfold.web.pages import Labelling
from tenfold.web.server import serve

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
FLAGS = ["--no-sandbox", "--disable-background-networking"]
"""Needed as root, and without a network."""


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


class Served:
    """A page served by a forked process, which begins when it is told to."""

    def __init__(self, make: Callable[[], Labelling], folder: Path, port: int) -> None:
        reading, self._writing = os.pipe()
        told, telling = os.pipe()
        self._told = told
        self.pid = os.fork()
        if self.pid == 0:
            os.close(self._writing)
            code = 1
            try:
                os.setpgid(0, 0)
                if os.read(reading, 1):
                    signal.signal(signal.SIGINT, signal.default_int_handler)
                    page = make()
                    serve(page, port, folder, lambda line: os.write(telling, f"{line}\n".encode()))
                    page.close()
                    code = 0
            finally:
                os._exit(code)
        os.close(reading)
        os.close(telling)

    def begin(self) -> str:
        """Start to serve; returns the address once it answers."""
        os.write(self._writing, b"x")
        said = b""
        while b"\n" not in said:
            part = os.read(self._told, 1000)
            assert part, "the server ended"
            said += part
        return said.decode().splitlines()[0]

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)

    def end(self) -> int:
        """Ctrl-C; returns the exit code."""
        os.kill(self.pid, signal.SIGINT)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def close(self) -> None:
        """End it whatever its state."""
        os.close(self._writing)
        os.close(self._told)
        try:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        except (ProcessLookupError, ChildProcessError):
            pass


@contextmanager
def chromium() -> Iterator[Any]:
    """A headless browser; the test is skipped, with the reason, where there is none."""
    if CHROMIUM is None:
        pytest.skip("no chromium here: apt-get install chromium")
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


def until(holds: Callable[[], Any], seconds: float = 45.0) -> Any:
    """Wait until something is true."""
    deadline = time.monotonic() + seconds
    while not (found := holds()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)
    return found
