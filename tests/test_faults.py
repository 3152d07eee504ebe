"""Deliberate faults can still be put in: a snippet that code has left behind tests nothing."""

from __future__ import annotations

from pathlib import Path

from faults import FAULTS, located

ROOT = Path(__file__).resolve().parent.parent


def test_every_fault_has_its_place_and_its_tests() -> None:
    code = [path.read_text() for path in (ROOT / "src").rglob("*.py")]
    counts = {fault.name: sum(one.count(fault.old) for one in code) for fault in FAULTS}
    assert {name: count for name, count in counts.items() if count != 1} == {}
    assert all(fault.old != fault.new for fault in FAULTS)
    located((test for fault in FAULTS for test in fault.tests), ROOT)  # LookupError if one is gone
