"""Equality with the official code, case by case; the contents tell a case's kind."""

from golden import ldc_encoder, ldc_peers, ldc_unit
from golden.harness import check

CHECKS = {**ldc_encoder.CHECKS, **ldc_peers.CHECKS, **ldc_unit.CHECKS}


def test_golden(case) -> None:
    check(case, "ldc", CHECKS)
