"""Shape-checks annotated functions of the rooms that compute, and hands golden cases to tests."""

from __future__ import annotations

import ast
import errno
import fcntl
import functools
import gc
import inspect
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jaxtyping
import pytest
from jaxtyping import _import_hook, install_import_hook

ROOT = Path(__file__).parents[1]
# A check costs at every call: functions that take and give no arrays are left as they are.
SHAPED = re.compile(
    r"['\"]|\b("  # Float[Tensor, "..."]
    + "|".join(  # and names for such types
        found[1]
        for file in (ROOT / "src").rglob("*.py")
        for found in re.finditer(r"(?m)^([A-Z]\w+) = .*\w\[[\w.]+, \"", file.read_text("utf-8"))
    )
    + r")\b"
)
_decorated = _import_hook.JaxtypingTransformer.visit_FunctionDef


def _if_shaped(self: Any, node: ast.FunctionDef) -> ast.AST:
    arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
    hints = [node.returns, *(a.annotation for a in arguments)]
    if any(SHAPED.search(ast.unparse(hint)) for hint in hints if hint is not None):
        return _decorated(self, node)
    self.generic_visit(node)
    return node


_import_hook.JaxtypingTransformer.visit_FunctionDef = _if_shaped

CHECKED = 4
"""Calls of a function that are checked in each test: hundreds of steps have the same shapes, and
checking all of them took a third of the tests' time."""
_test = 0
_jaxtyped = jaxtyping.jaxtyped


def _first_calls(*, typechecker: Any) -> Callable[[Any], Any]:
    """jaxtyping's decorator, for the first calls of each test."""

    from torch.compiler import is_compiling

    def decorate(made: Any) -> Any:
        check = _jaxtyped(typechecker=typechecker)
        if inspect.isclass(made):
            return check(made)
        checked, test, left = None, -1, 0

        @functools.wraps(made)
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal checked, test, left
            if is_compiling():  # counters would be compiled anew at every call
                return made(*args, **kwargs)
            if test != _test:
                test, left = _test, CHECKED
            if not left:
                return made(*args, **kwargs)
            left -= 1
            if checked is None:
                checked = check(made)
            return checked(*args, **kwargs)

        return call

    return decorate


jaxtyping.jaxtyped = _first_calls
# not core, runner, report and cli: they have few shapes, and each check costs at every call
SHAPES = ("nn", "metrics", "data", "weights", "generated", "viz", "systems")
_hook = install_import_hook([f"tenfold.{room}" for room in SHAPES], "beartype.beartype")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--golden",
        default=None,
        type=Path,
        help="folder of golden cases: <system>/*.json, or the *.json of one system",
    )
    parser.addoption(
        "--device", default="", help="golden cases: the device whose kernels compute, such as cuda"
    )


def pytest_configure(config: pytest.Config) -> None:
    import torch

    torch.set_num_threads(1)
    if config.getoption("--golden") is not None:
        from golden.harness import require_cases

        try:
            require_cases(config.getoption("--golden"))
        except ValueError as error:
            raise pytest.UsageError(str(error)) from None


def pytest_collection_finish() -> None:
    """What is imported by now stays: to look through it for garbage takes 4 % of the time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


def pytest_runtest_setup() -> None:
    global _test
    _test += 1


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test with a `case` argument in golden/test_<system>.py gets every case of that system."""
    if "case" in metafunc.fixturenames and metafunc.module.__name__.split(".")[-1].startswith(
        "test_"
    ):
        from golden.harness import cases

        system = Path(metafunc.module.__file__).stem.removeprefix("test_")
        found = cases(system, metafunc.config.getoption("--golden"))
        metafunc.parametrize("case", found, ids=[f"{system}-{c.name}" for c in found])


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory):
    """A function system -> its tiny run on generated data, made once; tests must not change it.

    Processes of pytest-xdist share the work: the first that asks trains, the others copy. It is
    trained in a process of its own, where nothing is as a test has made it.
    """
    import forked
    from tiny import options

    root = tmp_path_factory.getbasetemp()
    root = root.parent if "PYTEST_XDIST_WORKER" in os.environ else root
    copies: dict[str, Path] = {}

    def make(system: str) -> Path:
        if system in copies:
            return copies[system]
        run = root / "made" / system
        run.parent.mkdir(exist_ok=True)
        with (run.parent / f"{system}.lock").open("w") as lock, pytest.MonkeyPatch.context() as own:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not (run / "report.html").exists():
                own.setenv("TENFOLD_DATA", str(tmp_path_factory.mktemp("no-data")))
                words = ["train", system, "demo", *options(system), "--run.folder", str(run)]
                done = forked.run("-m", "tenfold", *words)
                assert done.returncode == 0, done.stderr
        copies[system] = tmp_path_factory.mktemp("made") / system
        shutil.copytree(run, copies[system])
        return copies[system]

    return make


@pytest.fixture(scope="session", autouse=True)
def quick() -> None:
    """Coasts and panels of run pages are drawn roughly."""
    from quick import make_quick

    make_quick()


@pytest.fixture(autouse=True)
def drawn(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures are drawn in tests of figures, which have to do with them by their file's name."""
    import quick

    of_figures = re.search("viz/|report/|figure|draw|plot|maps|pictures", str(request.path))
    monkeypatch.setattr(quick, "drawing", of_figures is not None)


@pytest.fixture
def generated_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No data set is found, so that every system generates its data."""
    (tmp_path / "no-data").mkdir()
    monkeypatch.setenv("TENFOLD_DATA", str(tmp_path / "no-data"))


@pytest.fixture
def shut(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], None]:
    """Makes a folder one that may not be looked into (its mode would not stop root)."""
    closed: set[str] = set()

    def guarded(look: Callable[..., Any]) -> Callable[..., Any]:
        def call(path: Any = ".") -> Any:
            if str(path) in closed:
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
            return look(path)

        return call

    for name in ("listdir", "scandir"):
        monkeypatch.setattr(os, name, guarded(getattr(os, name)))
    return lambda folder: closed.add(str(folder))
