"""Who may import whom, and what nobody may do: read from the source, nothing is run."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src/tenfold"
MODULES = {
    ".".join(("tenfold", *path.relative_to(SOURCE).with_suffix("").parts)).removesuffix(
        ".__init__"
    ): path
    for path in sorted(SOURCE.rglob("*.py"))
}
PACKAGES = {name for name, path in MODULES.items() if path.name == "__init__.py"}
LEAVES = {"structures", "files", "journal", "printable", "extras", "tenfold.__version__"}
"""What every room may import."""
MAY_IMPORT = {
    "structures": set(),
    "files": set(),
    "journal": set(),
    "printable": set(),
    "extras": set(),
    "core": {"core"},
    "nn": {"nn"},
    "metrics": {"metrics"},
    "weights": {"weights"},
    "data": {"data"},
    "generated": {"generated", "data"},
    "viz": {"viz"},
    "report": {"report", "viz"},
    "web": {"web"},
    "systems": {"core", "nn", "data", "metrics", "weights", "generated", "viz", "web"},
    "runner": {"core", "data", "report", "runner", "systems", "viz", "weights", "web"},
    "cli": {"cli", "core", "data", "report", "runner", "systems", "viz"},
    "": {"core", "runner", "systems"},
    "__main__": {"cli"},
}
"""Room -> what it may import from tenfold; a system also itself, and never another system."""
FORBIDDEN = set(
    "torchvision timm segmentation_models_pytorch transformers lightning lightning_fabric "
    "pytorch_lightning accelerate hydra omegaconf albumentations cv2 kornia torchmetrics gradio "
    "mlflow aim cartopy plotly".split()
)


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def imports(module: str, path: Path) -> Iterator[tuple[str, int]]:
    """Every imported name, absolute, with its line: functions' own imports too."""
    package = module if module in PACKAGES else module.rpartition(".")[0]
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, *([base] if base else [])])
            for alias in node.names:
                yield f"{base}.{alias.name}", node.lineno


def is_allowed(module: str, imported: str) -> bool:
    room = module.split(".")[1] if "." in module else ""
    allowed = {a if a.startswith("tenfold.") else f"tenfold.{a}" for a in MAY_IMPORT[room] | LEAVES}
    if room == "systems" and module.count(".") > 1:
        allowed.add(".".join(module.split(".")[:3]))
    return any(imported == a or imported.startswith(a + ".") for a in allowed)


def file_of(imported: str) -> str:
    """The module that an imported name is, or lies in."""
    while imported not in MODULES:
        imported = imported.rpartition(".")[0]
    return imported


def graph() -> dict[str, set[str]]:
    """Module -> modules of tenfold that it imports, for types only and in functions too."""
    return {
        module: {
            file_of(name)
            for name, _ in imports(module, path)
            if name.split(".")[0] == "tenfold" and name != "tenfold.__version__"
        }
        for module, path in MODULES.items()
    }


def circles(arrows: dict[str, set[str]]) -> list[list[str]]:
    """Groups of modules each of which reaches the others (Tarjan's algorithm)."""
    order: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    groups: list[list[str]] = []

    def visit(module: str) -> None:
        order[module] = low[module] = len(order)
        stack.append(module)
        for other in sorted(arrows[module]):
            if other not in order:
                visit(other)
            if other in stack:
                low[module] = min(low[module], low[other])
        if low[module] == order[module]:
            group = stack[stack.index(module) :]
            del stack[-len(group) :]
            if len(group) > 1:
                groups.append(sorted(group))

    for module in arrows:
        if module not in order:
            visit(module)
    return groups


def test_every_room_is_known() -> None:
    rooms = {name.split(".")[1] if "." in name else "" for name in MODULES}
    assert rooms <= set(MAY_IMPORT)


def test_arrows() -> None:
    wrong = [
        f"{path.relative_to(SOURCE)}:{line} imports {name}"
        for module, path in MODULES.items()
        for name, line in imports(module, path)
        if name.split(".")[0] == "tenfold" and not is_allowed(module, name)
    ]
    assert not wrong, "\n".join(wrong)


def test_no_circle_of_files() -> None:
    found = circles(graph())
    assert not found, "\n".join(" <-> ".join(group) for group in found)


def test_the_rules_are_enforced() -> None:
    """The rules themselves: what they let through and what not."""
    assert is_allowed("tenfold.systems.spgsn.model", "tenfold.systems.spgsn.config.Model")
    assert is_allowed("tenfold.systems.spgsn.figures", "tenfold.viz.plots")
    assert is_allowed("tenfold.core.log", "tenfold.__version__")
    assert is_allowed("tenfold.metrics.ap", "tenfold.structures.Instances")
    assert not is_allowed("tenfold.systems.spgsn.figures", "tenfold.report.html.write_run_page")
    assert not is_allowed("tenfold.systems.spgsn.model", "tenfold.systems.pangu.model")
    assert not is_allowed("tenfold.systems.spgsn.model", "tenfold.cli")
    assert not is_allowed("tenfold.runner.train", "tenfold.cli.arguments")
    assert not is_allowed("tenfold.core.loop", "tenfold.data.catalog")
    assert not is_allowed("tenfold.metrics.mpjpe", "tenfold.data.motion.skeleton.CMU")
    assert file_of("tenfold.data.catalog.SETS") == "tenfold.data.catalog"
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"a"}}) == [["b", "c"]]
    assert not circles({"a": {"b", "c"}, "b": {"c"}, "c": set()})


def test_nothing_that_we_do_not_use() -> None:
    wrong = [
        f"{path.relative_to(SOURCE)}:{line} imports {name}"
        for module, path in MODULES.items()
        for name, line in imports(module, path)
        if name.split(".")[0] in FORBIDDEN
    ]
    assert not wrong, "\n".join(wrong)


def unsafe(path: Path) -> Iterator[tuple[int, str]]:
    """Line and kind of each bare except, unpickling of objects, torch.load that may run code."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.ExceptHandler) and node.type is None:
            yield node.lineno, "bare except"
        if not isinstance(node, ast.Call):
            continue
        given = {k.arg: k.value for k in node.keywords}
        called = ast.unparse(node.func)
        for name, safe in (("allow_pickle", False), ("weights_only", True)):
            if name in given and ast.unparse(given[name]) != str(safe):
                yield node.lineno, f"{name} is not {safe}"
        if called == "torch.load" and "weights_only" not in given:
            yield node.lineno, "torch.load without weights_only=True"
        if called in ("np.load", "numpy.load") and "allow_pickle" not in given:
            yield node.lineno, "np.load does not say allow_pickle=False"
        if called in ("pickle.load", "pickle.loads", "eval", "exec", "os.system"):
            yield node.lineno, called


def test_nothing_unsafe() -> None:
    wrong = [
        f"{path.relative_to(SOURCE)}:{line}: {what}"
        for path in MODULES.values()
        for line, what in unsafe(path)
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("words", [["--help"], ["list"], ["data"]], ids=" ".join)
def test_looking_around_loads_neither_torch_nor_a_system(words: list[str]) -> None:
    code = (
        "import sys\nfrom tenfold.cli import main\n"
        f"main({words!r})\n"
        "heavy = [m for m in sys.modules if m in ('torch', 'scipy', 'matplotlib')"
        " or m.startswith('tenfold.systems.')]\n"
        "print('HEAVY', heavy)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "HEAVY []"
    assert len(done.stdout.splitlines()) > 3
