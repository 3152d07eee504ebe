"""Equality with the numbers of ViRReq's files and metrics."""

from __future__ import annotations

import pytest

from golden.harness import Case, cases, check, kind_of
from golden.virreq_trees import KINDS


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """The cases of these kinds; the networks' have a file of their own."""
    found = [
        case
        for case in cases("virreq", metafunc.config.getoption("--golden"))
        if kind_of(case.spec, "virreq", str(case.json_path)) in KINDS
    ]
    metafunc.parametrize("golden", found, ids=[case.name for case in found])


def test_golden(golden: Case) -> None:
    check(golden, "virreq", KINDS)
