"""Equality with the official code, case by case; the contents tell a case's kind.

The kinds of networks, of texts, of the detector, of trees and their metrics have a file each.
"""

from importlib import import_module

from golden.harness import check

FILES = (
    "golden.virreq_networks", "golden.virreq_text", "golden.virreq_detector",
    "golden.virreq_trees",
)  # fmt: skip
CHECKS = {kind: function for file in FILES for kind, function in import_module(file).KINDS.items()}


def test_golden(case) -> None:
    check(case, "virreq", CHECKS)
