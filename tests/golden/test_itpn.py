"""Equality with the official code, case by case; the contents tell a case's kind."""

from golden import itpn_keys, itpn_network, itpn_tools
from golden.harness import check

CHECKS = {**itpn_network.CHECKS, **itpn_tools.CHECKS, **itpn_keys.CHECKS}


def test_golden(case) -> None:
    check(case, "itpn", CHECKS)
