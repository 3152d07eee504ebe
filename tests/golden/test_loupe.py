"""Equality with an independent reference, case by case; the contents tell a case's kind."""

from golden import loupe_games, loupe_networks, loupe_parts
from golden.harness import check

CHECKS = loupe_games.KINDS | loupe_parts.KINDS | loupe_networks.KINDS


def test_golden(case) -> None:
    check(case, "loupe", CHECKS)
