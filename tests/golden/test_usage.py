"""Equality with the official code, case by case; the contents tell a case's kind.

The kinds of losses, of networks and their maps, and of refinement have a file each.
"""

from importlib import import_module

from golden.harness import check

FILES = ("golden.usage_losses", "golden.usage_networks", "golden.usage_refine")
CHECKS = {kind: function for file in FILES for kind, function in import_module(file).KINDS.items()}


def test_golden(case) -> None:
    check(case, "usage", CHECKS)
