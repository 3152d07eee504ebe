"""The golden harness: which cases are found, how a kind is told, and what must not pass."""

from __future__ import annotations

import importlib
import json
import warnings
from pathlib import Path

import numpy as np
import pytest

from golden import twins
from golden.harness import HERE, Case, cases, check, require_cases, unread
from golden.kinds import KINDS, kind_of, system_of

COUNTS = {system: len(list((HERE / system).glob("*.json"))) for system in KINDS}


def test_every_case_given_is_read(pytestconfig: pytest.Config) -> None:
    root = (pytestconfig.getoption("--golden") or HERE).resolve()
    left = [path.relative_to(root) for path in unread(root)]
    lost = [path for path in left if len(path.parts) == 1 or set(path.parts) & set(KINDS)]
    assert not lost, f"no system reads {[str(path) for path in lost]}; known: {', '.join(KINDS)}"
    if left:
        folders = ", ".join(sorted({path.parts[0] for path in left}))
        warnings.warn(f"{root}: no system of tenfold is called {folders}", stacklevel=1)
        pytest.skip(f"{len(left)} cases of systems that are not here: {folders}")


@pytest.mark.parametrize("system", KINDS)
def test_every_kind_has_a_check(system: str) -> None:
    assert set(importlib.import_module(f"golden.test_{system}").CHECKS) == set(KINDS[system])


@pytest.mark.parametrize("system", KINDS)
def test_a_kind_and_a_system_are_told_without_names(system: str) -> None:
    for path in sorted((HERE / system).glob("*.json")):
        spec = json.loads(path.read_text())
        spec.pop("case", None)
        assert kind_of(spec, system, path.name) and system_of(spec) == system, path.name


def test_where_cases_may_lie(tmp_path: Path) -> None:
    for system in KINDS:
        assert len(cases(system, None)) == len(cases(system, HERE / system)) == COUNTS[system] > 0
        others = [other for other in KINDS if other != system]
        assert not any(cases(other, HERE / system) for other in others)
    flat = tmp_path / "flat"
    twins.write(flat, "one", *twins.stored("pangu", "perlin"))
    twins.write(flat, "two", *twins.stored("ldc", "ncm_metrics"))
    found = {system: [case.name for case in cases(system, flat)] for system in KINDS}
    assert {k: v for k, v in found.items() if v} == {"pangu": ["one"], "ldc": ["two"]}
    (flat / "three.json").write_text("{}")
    assert [path.name for path in unread(flat)] == ["three.json"]


def test_a_folder_without_cases_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"holds no golden case of .*found none"):
        require_cases(tmp_path)
    with pytest.raises(ValueError, match="found none"):
        require_cases(tmp_path / "nowhere")
    twins.write(tmp_path / "pango", "one", *twins.stored("pangu", "perlin"))
    with pytest.raises(ValueError, match=r"found .*pango/one\.json"):
        require_cases(tmp_path)


def test_an_unknown_kind_fails() -> None:
    known = "there are checks for: gate, moe_layer, lm_step, cost_model"
    with pytest.raises(AssertionError, match=f"no known kind of ppmoe and states .*'x'; {known}"):
        kind_of({"kind": "x"}, "ppmoe", "a.json")
    with pytest.raises(AssertionError, match=r"a\.json is of no known kind of ldc; there are"):
        kind_of({"case": "resnet20_cec", "config": {}}, "ldc", "a.json")
    with pytest.raises(AssertionError, match="is of perlin and metrics|metrics and perlin"):
        kind_of({"config": {"shape_VHW": 1, "octaves": 1, "res": 1}}, "pangu", "a.json")


def checked(case: Case) -> None:
    """The simplest check: of an output that is not looked at unless it is called `seen`."""
    case.compare_all({"seen": np.ones(3)}, names=["seen"])


def test_no_output_is_left_out(tmp_path: Path) -> None:
    spec = {"kind": "gate", "outputs": {}}
    ones = np.ones(3)
    check(twins.write(tmp_path, "good", dict(spec), {"seen": ones}), "ppmoe", {"gate": checked})
    both = twins.write(tmp_path, "more", dict(spec), {"seen": ones, "unseen": ones})
    with pytest.raises(AssertionError, match=r"the check of 'gate' never looked at \['unseen'\]"):
        check(both, "ppmoe", {"gate": checked})
    with pytest.raises(AssertionError, match="no check for the output 'unseen'; .* may have"):
        Case(both.json_path).compare_all({"seen": ones})
    wrong = twins.write(tmp_path, "wrong", dict(spec), {"seen": 2 * ones})
    with pytest.raises(AssertionError, match="case wrong: seen"):
        check(wrong, "ppmoe", {"gate": checked})


def test_outputs_are_those_listed(tmp_path: Path) -> None:
    case = twins.write(tmp_path, "a", {"outputs": {}}, {"seen": np.ones(3)})
    spec = json.loads(case.json_path.read_text())
    case.json_path.write_text(json.dumps(spec | {"outputs": {"seen": [4]}}))
    with pytest.raises(AssertionError, match=r"holds \{'seen': \[3\]\}, but a\.json lists"):
        _ = Case(case.json_path).arrays
    case.json_path.with_suffix(".npz").unlink()
    with pytest.raises(AssertionError, match=r"has outputs, but no a\.npz"):
        _ = Case(case.json_path).arrays


@pytest.mark.parametrize(
    ("spec", "role", "name"),
    [
        ({"input_prefix": "h.", "inputs": [["h.pcu.z0", [2], 1.0]]}, "pcu.z0", "h.pcu.z0"),
        ({"input_prefix": "h_", "inputs": [["h_z0", [2], 1.0], ["h_z1", [2], 1.0]]}, "z0", "h_z0"),
        ({"inputs": [["a.b.z0", [2], 1.0], ["a.c.z1", [2], 1.0]]}, "z1", "a.c.z1"),
        ({"inputs": [{"key": "anything", "shape": [2]}]}, "z0", "anything"),
        ({"inputs": [{"name": "q.img", "shape": [2], "kind": "uniform"}]}, "img", "q.img"),
    ],
)
def test_inputs_are_found_by_role(tmp_path: Path, spec: dict, role: str, name: str) -> None:
    case = twins.write(tmp_path, "other", spec)
    entry = case.find(role)
    assert entry.name == name
    want = twins.normals(name, [2])
    if entry.kind == "uniform":
        assert (case.value(entry) >= 0).all()
    else:
        assert np.array_equal(case.value(entry), want)


def test_an_input_that_is_not_there_is_said(tmp_path: Path) -> None:
    inputs = [["a.z0", [2], 1.0], ["b.z0", [2], 1.0]]
    case = twins.write(tmp_path, "other", {"inputs": inputs})
    for role in ("z0", "z1"):
        with pytest.raises(AssertionError, match=rf"inputs are '{role}' after the prefix"):
            case.find(role)


def test_a_prefix_is_hashed_once(tmp_path: Path) -> None:
    """`key_prefix` stands before each key of the rule, unless the key has it already."""
    spec = {"key_prefix": "h.", "inputs": [{"key": "x", "shape": [3], "scale": 2.0}]}
    case = twins.write(tmp_path, "other", spec)
    assert np.array_equal(case.input("x"), twins.normals("h.x", 3, 2.0))
    assert np.array_equal(case.rule("h.w", 3), case.rule("w", 3))
    assert case.role("h.w") == "w"


def test_a_tolerance_of_the_case_stands_above_the_checks(tmp_path: Path) -> None:
    spec = {"kind": "gate", "outputs": {}, "tolerance": {"atol": 0.1}}
    case = twins.write(tmp_path, "loose", spec, {"seen": np.ones(3) + 0.05})
    check(case, "ppmoe", {"gate": checked})
