"""Equality with the official code, case by case; the kind of a case picks its check."""

from golden import spgsn_data, spgsn_model

CHECKS = {**spgsn_model.CHECKS, **spgsn_data.CHECKS}


def test_golden(case) -> None:
    kind = case.spec["kind"]
    assert kind in CHECKS, f"no check for golden kind {kind!r}; known: {sorted(CHECKS)}"
    CHECKS[kind](case)
