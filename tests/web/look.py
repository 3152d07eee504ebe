"""What tests do to a page in the browser, whatever it is about."""

from __future__ import annotations

from typing import Any

from web.browser import until

CALM = {"viewport": {"width": 900, "height": 600}, "reduced_motion": "reduce"}
"""Little to draw, for quick tests."""


def place(page: Any, x: float, y: float) -> tuple[float, float]:
    """Where a pixel of the picture is on the screen."""
    return tuple(page.evaluate(
        "([x, y]) => { const { view } = tenfold; const r = view.canvas.getBoundingClientRect();"
        " return [r.left + view.left + x * view.scale, r.top + view.top + y * view.scale]; }",
        [x, y],
    ))  # fmt: skip


def wait(page: Any, script: str) -> None:
    """Wait until something is true in the page, whose policy forbids playwright's own way."""
    until(lambda: page.evaluate(script))


def opened(page: Any, address: str) -> list[str]:
    """Open the page; returns the list that its errors will be in."""
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda m: errors.append(m.text) if m.type == "error" else None)
    page.goto(address)
    wait(page, "tenfold.numbers")
    return errors
