"""What costs seconds in each process of the tests, and no test looks at, is done roughly."""

from __future__ import annotations

from functools import cache
from typing import Any


def make_quick() -> None:
    """Sample coasts coarsely, draw one curve for all panels of run pages (plots are tested),
    generate a walk once, and write pictures less small."""
    from PIL import Image

    from tenfold.generated import walker
    from tenfold.report import history
    from tenfold.viz import map_axes, plots

    map_axes.SAMPLES = 7_000
    sample = cache(lambda theme: plots.curves({"a": ([0, 1], [0, 1])}, theme=theme))

    def curves(*_: Any, theme: plots.Theme = "light", **__: Any) -> bytes:
        return sample(theme)

    history.curves = curves  # type: ignore[attr-defined]
    walk, save = cache(walker._positions), Image.Image.save
    walker._positions = lambda *words: walk(*words).copy()  # type: ignore[assignment]

    def quickly(image: Image.Image, file: Any, format: str | None = None, **options: Any) -> None:
        save(image, file, format, **{**options, "optimize": False, "compress_level": 1})

    Image.Image.save = quickly  # type: ignore[method-assign]
