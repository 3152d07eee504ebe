"""Equality with the official code, case by case; the contents tell a case's kind.

The kinds of networks, of batches and of training steps have a file each.
"""

from importlib import import_module

from golden.harness import check

FILES = ("golden.dts_networks", "golden.dts_batches", "golden.dts_training")
CHECKS = {kind: function for file in FILES for kind, function in import_module(file).KINDS.items()}


def test_golden(case) -> None:
    check(case, "dts", CHECKS)
