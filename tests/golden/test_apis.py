"""Equality with the official code, case by case; the contents tell a case's kind.

The kinds of networks and their losses, and of points and their choice, have a file each.
"""

from importlib import import_module

from golden.harness import check

FILES = ("golden.apis_networks", "golden.apis_points")
CHECKS = {kind: function for file in FILES for kind, function in import_module(file).KINDS.items()}


def test_golden(case) -> None:
    check(case, "apis", CHECKS)
