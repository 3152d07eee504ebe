"""What costs seconds in each process of the tests, and no test looks at, is done roughly."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Any

drawing = False
"""Whether figures are drawn: for tests of figures. For others they are white."""


def make_quick() -> None:
    """Sample coasts coarsely, draw one curve for all panels of run pages (plots are tested), draw
    no figure where none is looked at, generate few walks, each once, write pictures less small, and
    find a variable of an open file once.
    """
    from h5netcdf import core, dimensions
    from matplotlib.figure import Figure
    from PIL import Image, PngImagePlugin

    from tenfold.generated import walker
    from tenfold.report import history
    from tenfold.viz import map_axes, plots

    map_axes.SAMPLES = 7_000
    sample = cache(lambda theme: plots.curves({"a": ([0, 1], [0, 1])}, theme=theme))

    def curves(*_: Any, theme: plots.Theme = "light", **__: Any) -> bytes:
        return sample(theme)

    history.curves = curves  # type: ignore[attr-defined]

    walk, save, draw = cache(walker._positions), Image.Image.save, Figure.savefig
    walker._positions = lambda *words: walk(*words).copy()  # type: ignore[assignment]
    walker.clips = partial(walker.clips, num_per_action=2, frames=120)  # type: ignore[assignment]

    def quickly(image: Image.Image, file: Any, format: str | None = None, **options: Any) -> None:
        save(image, file, format, **{**options, "optimize": False, "compress_level": 1})

    def white(figure: Figure, out: Any, *, format: str, dpi: int, metadata: dict[str, Any]) -> None:
        if drawing:
            draw(figure, out, format=format, dpi=dpi, metadata=metadata)
        elif format == "svg":
            out.write(b'<svg xmlns="http://www.w3.org/2000/svg"/>')
        else:
            about = PngImagePlugin.PngInfo()
            for name, text in metadata.items():
                if text:
                    about.add_text(name, text)
            size = tuple(int(dpi * side) for side in figure.get_size_inches())
            Image.new("RGB", size, "white").save(out, "PNG", pnginfo=about)

    Image.Image.save = quickly  # type: ignore[method-assign]
    Figure.savefig = white  # type: ignore[method-assign,assignment]

    for cls in (core.BaseObject, dimensions.Dimension):
        cls._h5ds = property(_once(cls._h5ds.fget))  # type: ignore[method-assign]


def _once(look: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """h5netcdf looks a variable up for every word about it; once is enough while it is read."""

    def found(self: Any) -> Any:
        kept = self.__dict__.get("_found")
        if kept is None or self._root._writable or not kept.id.valid:
            kept = self.__dict__["_found"] = look(self)
        return kept

    return found
