"""What benchmarks share, and that benchmarks and claims name what there is."""

import ast
import importlib
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent
INTEL = """processor\t: 0
cpu family\t: 6
model\t\t: 143
model name\t: Intel(R) Xeon(R) Platinum 8481C CPU @ 2.70GHz

processor\t: 1
"""


def module(folder: str, name: str) -> ModuleType:
    """A file beside the package, as its neighbours import it."""
    sys.path.insert(0, str(ROOT / folder))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.pop(0)


rates, speed = module("benchmarks", "rates"), module("docs", "speed")


def test_arithmetic_of_products_convolutions_and_attention() -> None:
    x = torch.randn(2, 4, 8, 16, requires_grad=True)

    def attend() -> None:
        torch.nn.functional.scaled_dot_product_attention(x, x, x).sum().backward()

    product = 2 * 2 * 4 * 8 * 8 * 16
    assert rates.arithmetic(attend) == (2 + 5) * product  # backward computes the scores anew
    image, kernel = torch.randn(1, 3, 8, 8), torch.randn(5, 3, 3, 3)
    convolve = rates.arithmetic(lambda: torch.nn.functional.conv2d(image, kernel))
    assert convolve == 2 * 5 * 3 * 9 * 36
    a, b = torch.randn(3, 4), torch.randn(4, 5)
    assert rates.arithmetic(lambda: a @ b) == 2 * 3 * 4 * 5
    assert rates.arithmetic(lambda: torch.zeros(3, 5).addmm_(a, b)) == 2 * 3 * 4 * 5
    if torch.backends.mkldnn.is_available():
        linear = torch.ops.mkldnn._linear_pointwise
        assert rates.arithmetic(lambda: linear(a, b.T, None, "none", [], "")) == 2 * 3 * 4 * 5


def test_what_is_unavoidable_is_of_the_leanest_side(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rates, "square_product", lambda dtype, clock: 1e9)
    lean, wasteful = (lambda n=n: torch.randn(n, 100) @ torch.randn(100, 50) for n in (10, 20))
    found = rates.unavoidable([wasteful, lean], 0.001)
    assert found == {rates.FEWEST: 0.0001, rates.RATE: 10**9, rates.SHARE: 0.1}
    assert speed.SHARE == rates.SHARE


def test_kinds_of_cpu_have_short_names() -> None:
    assert rates.cpu_kind(INTEL) == "intel-xeon-platinum-8481c-6-143"
    seen = "cpu family : 25\nmodel : 17\nmodel name : AMD EPYC\n"
    assert rates.cpu_kind(seen) == "amd-epyc-25-17"
    assert rates.cpu_kind("Features : fp asimd\n")  # no names: the machine's architecture


def test_the_table_of_speed_has_ranges_over_kinds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(speed, "RESULTS", tmp_path)
    for kind, ratio, more in (("a-1", 1.76, {}), ("b-2", 1.43, {rates.SHARE: 0.81})):
        row = {"what": "a step", "ratio": {"plain's": [1.0, ratio, 2.0]}, **more}
        (tmp_path / f"some.{kind}.json").write_text(json.dumps({"timings": [row]}))
    part = {"what": "masks", "seconds": {"grouped": 1, "ours": 1}, "ratio": [1.0, 2.0, 3.0]}
    (tmp_path / "parts.a-1.json").write_text(json.dumps({"masks": {"found": [part]}}))
    (tmp_path / "some_page.a-1.json").write_text("{}")
    assert speed.table(["some", "parts", "none"])[2:] == [
        "| [some](docs/systems/some.md#speed), 2 kinds | a step | plain | 1.43–1.76 | 81% |",
        "| [parts](docs/systems/parts.md#speed), 1 kind | masks | grouped | 2.00 |  |",
    ]
    counted = {"flop": {"plain": 3e9, "ours": 2e9}, "achievable": 1e10}
    assert speed.share(counted | {"seconds": {"ours": [0.3, 0.4, 0.5]}}) == [0.5]
    assert speed.share({"achievable": 0}) == []
    assert speed.section("none") == []
    assert "[b-2](../../benchmarks/results/some.b-2.md)" in speed.section("some")[2]


@pytest.mark.parametrize("folder", ["benchmarks", "claims", "examples"])
def test_what_is_imported_from_the_library_is_there(folder: str) -> None:
    missing = []
    for file in sorted((ROOT / folder).glob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("tenfold"):
                found = importlib.import_module(str(node.module))
                package = Path(str(found.__file__)).parent
                missing += [
                    f"{file.name}: {node.module}.{name.name}"
                    for name in node.names
                    if not hasattr(found, name.name) and not list(package.glob(f"{name.name}*"))
                ]
    assert not missing, missing


def test_cases_below_the_goal_say_where_their_time_goes() -> None:
    where = [["mm", 0.5], ["copy_", 0.25]]
    timings = [
        {"what": "fast", rates.SHARE: 0.8, "where": where},
        {"what": "slow", rates.SHARE: 0.79, "where": where},
    ]
    lines = rates.below_goal(timings)
    assert lines[2:] == ["- slow (79%): `mm` 50%, `copy_` 25%", ""]
    assert rates.below_goal(timings[:1]) == []
    seen = rates.where(lambda: torch.randn(200, 200) @ torch.randn(200, 200), most=2)
    assert {name for name, _ in seen} <= {"mm", "normal_", "randn", "empty"} and len(seen) == 2


def test_readme_says_for_which_systems_compilation_pays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(speed, "RESULTS", tmp_path)
    assert speed.compiled() == []
    for kind, ratio in (("a-1", 1.2), ("b-2", 1.5)):
        systems = {
            "quick": {"ratio": [1.0, ratio, 2.0]},
            "slow": {"ratio": [0.1, ratio - 0.5, 2.0]},
        }
        (tmp_path / f"compile.{kind}.json").write_text(json.dumps({"systems": systems}))
    said = " ".join(speed.compiled())
    assert "faster for quick (1.20–1.50); no faster, or slower, for slow (0.70–1.00)." in said
    assert "[b-2](benchmarks/results/compile.b-2.md)" in said
