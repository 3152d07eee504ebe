"""Who may import whom, and what nobody may do: read from the source, nothing is run."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
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
MAY_IMPORT = {
    "core": {"core", "tenfold.__version__"},
    "nn": {"nn"},
    "metrics": {"metrics"},
    "weights": {"weights"},
    "data": {"data"},
    "generated": {"generated", "data"},
    "report": {"report", "tenfold.__version__"},
    "systems": {
        *("core", "nn", "data", "metrics", "weights", "generated"),
        *("report.plots", "report.maps", "report.overlays", "report.place", "report.leads"),
        *("report.page", "report.tables", "report.results"),
    },
}
"""Folder -> what it may import from tenfold; a system also itself, and never another system."""
FREE = {
    "",
    "__main__",
    "arguments",
    "cli",
    "demo",
    "doctor",
    "export",
    "run",
    "verbs",
    "verbs_data",
    "verbs_learn",
    "verbs_plan",
}
"""Top-level modules, which may import everything (what is heavy only when needed)."""
FORBIDDEN = set(
    "torchvision timm segmentation_models_pytorch transformers lightning lightning_fabric "
    "pytorch_lightning accelerate hydra omegaconf albumentations cv2 kornia torchmetrics gradio "
    "mlflow aim cfgrib cartopy plotly".split()
)


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
    folder = module.split(".")[1] if "." in module else ""
    if folder in FREE:
        return True
    allowed = {a if a.startswith("tenfold.") else f"tenfold.{a}" for a in MAY_IMPORT[folder]}
    if folder == "systems" and module.count(".") > 1:
        allowed.add(".".join(module.split(".")[:3]))
    return any(imported == a or imported.startswith(a + ".") for a in allowed)


def test_every_module_is_known() -> None:
    tops = {name.split(".")[1] for name in MODULES if "." in name}
    assert tops <= set(MAY_IMPORT) | FREE


@pytest.mark.parametrize("module", MODULES)
def test_arrows(module: str) -> None:
    wrong = [
        f"line {line}: {name}"
        for name, line in imports(module, MODULES[module])
        if name.split(".")[0] == "tenfold" and not is_allowed(module, name)
    ]
    assert not wrong, f"{module} must not import: {'; '.join(wrong)}"


def test_the_arrows_are_enforced() -> None:
    """The rule itself: what it lets through and what not."""
    assert is_allowed("tenfold.systems.spgsn.model", "tenfold.systems.spgsn.config.Model")
    assert is_allowed("tenfold.systems.spgsn.picture", "tenfold.report.plots")
    assert is_allowed("tenfold.systems.pangu.picture", "tenfold.report.maps.field_map")
    assert not is_allowed("tenfold.systems.spgsn.picture", "tenfold.report.html.write_run_page")
    assert not is_allowed("tenfold.systems.spgsn.model", "tenfold.systems.pangu.model")
    assert not is_allowed("tenfold.systems.spgsn.model", "tenfold.cli")
    assert not is_allowed("tenfold.core.loop", "tenfold.data.catalog")
    assert not is_allowed("tenfold.metrics.mpjpe", "tenfold.data.skeleton.CMU")
    assert is_allowed("tenfold.core.log", "tenfold.__version__")


@pytest.mark.parametrize("module", MODULES)
def test_nothing_that_we_do_not_use(module: str) -> None:
    wrong = [
        f"line {line}: {name}"
        for name, line in imports(module, MODULES[module])
        if name.split(".")[0] in FORBIDDEN
    ]
    assert not wrong, wrong


@pytest.mark.parametrize("module", MODULES)
def test_nothing_unsafe(module: str) -> None:
    """No bare except, no unpickling of objects, no torch.load that may run code."""
    wrong = []
    for node in ast.walk(tree(MODULES[module])):
        if isinstance(node, ast.ExceptHandler) and node.type is None:
            wrong.append(f"line {node.lineno}: bare except")
        if not isinstance(node, ast.Call):
            continue
        given = {k.arg: k.value for k in node.keywords}
        called = ast.unparse(node.func)
        for name, safe in (("allow_pickle", False), ("weights_only", True)):
            if name in given and ast.unparse(given[name]) != str(safe):
                wrong.append(f"line {node.lineno}: {name} is not {safe}")
        if called == "torch.load" and "weights_only" not in given:
            wrong.append(f"line {node.lineno}: torch.load without weights_only=True")
        if called in ("np.load", "numpy.load") and "allow_pickle" not in given:
            wrong.append(f"line {node.lineno}: np.load does not say allow_pickle=False")
        if called in ("pickle.load", "pickle.loads", "eval", "exec", "os.system"):
            wrong.append(f"line {node.lineno}: {called}")
    assert not wrong, wrong


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
