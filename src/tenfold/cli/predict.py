"""`tenfold predict`: a trained run on a user's file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tenfold.systems import system_class

from .arguments import flags_of, parse, positional

if TYPE_CHECKING:
    pass


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
        out: Path = Path(),
        options: Any = asked,
    ) -> None:
        """Run a trained system on a file of yours and write files that a person can open.

        `tenfold predict RUN --help` lists what the system of that run can be asked for.

        Args:
            run: Run folder or .safetensors file; for pangu also an official .onnx file, or a
                folder of them, which onnxruntime runs as they are.
            file: Input; `tenfold info SYSTEM` says which kinds.
            out: Output folder; by default predictions/<file name> in the run folder.
            options: The system's own options.
        """
        from tenfold.runner.weights import load, system_of

        if not file.exists():
            raise FileNotFoundError(f"{file} does not exist")
        system = load(system_class(system_of(run)), run)
        system.options = options
        home = run if run.is_dir() else run.parent
        folder = home / "predictions" / file.stem if out == Path() else out
        for path in system.predict(file, folder):
            print(path)

    shown = tyro.conf.arg(name="") if asked is not None else tyro.conf.Suppress
    verb.__annotations__ = {
        "run": Annotated[Path, *positional("RUN")],
        "file": Annotated[Path, *positional("FILE")],
        "out": Path,
        "options": Annotated[type(asked), shown],
        "return": None,
    }
    flags = ["--out", *(flags_of(type(asked)) if asked is not None else [])]
    parse(verb, rest, "tenfold predict", flags)
