"""Equality with the official code, case by case; the name of a case picks its check."""

from golden import ldc_encoder, ldc_peers, ldc_unit

CHECKS = {**ldc_encoder.CHECKS, **ldc_peers.CHECKS, **ldc_unit.CHECKS}


def test_golden(case) -> None:
    kind = case.spec["case"]
    assert kind in CHECKS, f"no check for golden case {kind!r}; known: {sorted(CHECKS)}"
    CHECKS[kind](case)
