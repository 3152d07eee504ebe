"""Equality with the official code, case by case; the kind of a case picks its check."""

from golden import spgsn_data, spgsn_model
from golden.harness import check

CHECKS = {**spgsn_model.CHECKS, **spgsn_data.CHECKS}


def test_golden(case) -> None:
    check(case, "spgsn", CHECKS)
