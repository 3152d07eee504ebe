"""Equality with the official pseudocode and its references; the contents tell a case's kind."""

from golden import pangu_network, pangu_tools
from golden.harness import check

CHECKS = {**pangu_network.CHECKS, **pangu_tools.CHECKS}


def test_golden(case) -> None:
    check(case, "pangu", CHECKS)
