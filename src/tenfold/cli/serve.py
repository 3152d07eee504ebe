"""`tenfold serve`: a page in the browser on which people label, with a trained run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from tenfold.core.errors import UsageError
from tenfold.systems import SYSTEMS, refusal, system_class

from .arguments import flags_of, parse, positional, say

PORT = 8765
"""Where the page is, unless another is asked for: an open page finds a restarted server."""


def serve(rest: list[str]) -> None:
    """Serve a page on which you label photos, with the help of a trained run."""
    import tyro

    system = rest[0] if rest and not rest[0].startswith("-") else ""
    asked: Any = None
    if system:
        cls = system_class(system)
        if "serve" not in SYSTEMS[system].verbs:
            raise refusal(system, "serve")
        asked = getattr(cls, "page_options")  # noqa: B009 (not every system has one)

    def verb(
        system: str, run: Path, images: str = "", out: str = "", port: int = PORT,
        device: Literal["auto", "cpu", "cuda"] = "auto", options: Any = asked,
    ) -> None:  # fmt: skip
        """Serve a page, on this machine alone, on which you label the photos of a folder.

        Open the address that is printed; it holds the key. Answers are kept as they come: stop
        with Ctrl-C whenever you like, the same command goes on.
        `tenfold serve SYSTEM --help` lists what the page of that system can be asked for.

        Args:
            system: Name of a system that has a page; `tenfold list` shows the systems.
            run: Run folder or .safetensors file.
            images: Folder of the photos.
            out: Folder for the answers; by default <images>-labels beside the photos.
            port: Where to listen on 127.0.0.1; 0 takes any that is free.
            device: Where to compute; auto takes a GPU if there is one.
            options: The page's own options.
        """
        from tenfold.runner import serve

        if not images:
            raise UsageError("which photos? give --images FOLDER")
        if not 0 <= port < 65536:
            raise UsageError(f"--port must be 0 to 65535, got {port}")
        folder = Path(out) if out else None
        serve.serve(system, run, Path(images), folder, port, options, device, _say)

    shown = tyro.conf.arg(name="") if asked is not None else tyro.conf.Suppress
    verb.__annotations__ = {
        "system": Annotated[str, *positional("SYSTEM")],
        "run": Annotated[Path, *positional("RUN")],
        "images": str,
        "out": str,
        "port": int,
        "device": Literal["auto", "cpu", "cuda"],
        "options": Annotated[type(asked), shown],
        "return": None,
    }
    flags = ["--images", "--out", "--port", "--device"]
    flags += flags_of(type(asked)) if asked is not None else []
    parse(verb, rest, "tenfold serve", flags)


def _say(line: str) -> None:
    """Print at once, though the server goes on."""
    say(line)
    import sys

    sys.stdout.flush()
