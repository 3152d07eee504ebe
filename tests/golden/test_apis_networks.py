"""Equality of CondInst, its losses and its detector with the official code."""

from __future__ import annotations

import pytest

from golden.apis_networks import KINDS
from golden.harness import Case, cases, check
from golden.kinds import kind_of


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """The cases of these kinds; those of points and their choice have a file of their own."""
    found = [
        case
        for case in cases("apis", metafunc.config.getoption("--golden"))
        if kind_of(case.spec, "apis", str(case.json_path)) in KINDS
    ]
    metafunc.parametrize("golden", found, ids=[case.name for case in found])


def test_golden(golden: Case) -> None:
    check(golden, "apis", KINDS)
