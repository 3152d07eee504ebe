"""Equality with the official code, case by case; a case's first words pick its check."""

from golden import itpn_keys, itpn_network, itpn_tools

CHECKS = {**itpn_network.CHECKS, **itpn_tools.CHECKS, **itpn_keys.CHECKS}


def test_golden(case) -> None:
    known = [name for name in CHECKS if case.name.startswith(name)]
    assert known, f"no check for golden case {case.name!r}; known: {sorted(CHECKS)}"
    CHECKS[max(known, key=len)](case)
