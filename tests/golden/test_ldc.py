"""Equality with the official code, case by case; the contents tell a case's kind."""

from golden import ldc_baselines, ldc_encoder, ldc_unit
from golden.harness import check

CHECKS = {**ldc_encoder.CHECKS, **ldc_baselines.CHECKS, **ldc_unit.CHECKS}


def test_golden(case) -> None:
    check(case, "ldc", CHECKS)
