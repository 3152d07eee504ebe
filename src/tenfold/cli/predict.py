"""`tenfold predict`: a trained run on a user's file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from tenfold.systems import system_class

from .arguments import flags_of, parse, positional, say


def predict(rest: list[str]) -> None:
    """Run a trained system on a file of yours."""
    import tyro

    given = Path(rest[0]) if rest and not rest[0].startswith("-") else None
    asked: Any = None
    if given is not None:  # a system may have options of its own
        from tenfold.runner.weights import system_of

        asked = system_class(system_of(given)).options

    def verb(
        run: Annotated[Path, *positional("RUN")],
        file: Annotated[Path, *positional("FILE")],
        out: str = "",
        device: Literal["auto", "cpu", "cuda"] = "auto",
        options: Any = asked,
    ) -> None:
        """Run a trained system on a file of yours and write files that a person can open.

        Under torchrun each process takes its share of the files.
        `tenfold predict RUN --help` lists what the system of that run can be asked for.

        Args:
            run: Run folder or .safetensors file; for pangu also an official .onnx file, or a
                folder of them, which onnxruntime runs as they are.
            file: Input; `tenfold info SYSTEM` says which kinds.
            out: Output folder; by default predictions/<file name> in the run folder, with -2
                and so on where another prediction lies.
            device: Where to compute; auto takes a GPU if there is one.
            options: The system's own options.
        """
        from tenfold.runner import use

        folder = Path(out) if out else None
        for path in use.predict(run, file, folder, options, device):
            say(path)

    shown = tyro.conf.arg(name="") if asked is not None else tyro.conf.Suppress
    verb.__annotations__ = {
        "run": Annotated[Path, *positional("RUN")],
        "file": Annotated[Path, *positional("FILE")],
        "out": str,
        "device": Literal["auto", "cpu", "cuda"],
        "options": Annotated[type(asked), shown],
        "return": None,
    }
    flags = ["--out", "--device", *(flags_of(type(asked)) if asked is not None else [])]
    parse(verb, rest, "tenfold predict", flags)
