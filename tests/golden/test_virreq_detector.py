"""Equality of the detector of requests with the official code."""

from __future__ import annotations

import pytest

from golden.harness import Case, cases, check
from golden.kinds import kind_of
from golden.virreq_detector import KINDS


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """The cases of these kinds; others have files of their own."""
    found = [
        case
        for case in cases("virreq", metafunc.config.getoption("--golden"))
        if kind_of(case.spec, "virreq", str(case.json_path)) in KINDS
    ]
    metafunc.parametrize("golden", found, ids=[case.name for case in found])


def test_golden(golden: Case) -> None:
    check(golden, "virreq", KINDS)
