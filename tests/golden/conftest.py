"""`pytest tests/golden --device cuda`: the cases by another device's kernels."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from golden.kernels import kernels_of


@pytest.fixture(autouse=True)
def on_device(
    request: pytest.FixtureRequest, record_property: Callable[[str, object], None]
) -> Iterator[None]:
    device = request.config.getoption("--device")
    if not device:
        yield
        return
    with kernels_of(device) as mode:
        yield
    record_property("operations", mode.count)
    record_property("stayed", " ".join(sorted(mode.stayed)))
