"""`tenfold evaluate`: a trained run measured on a split."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from .arguments import parse, positional
from .results import show_result


def evaluate(rest: list[str]) -> None:
    """Measure a trained run on a split."""

    def verb(
        run: Annotated[Path, *positional("RUN")],
        split: Literal["test", "validation"] = "test",
        device: Literal["auto", "cpu", "cuda"] = "auto",
    ) -> None:
        """Measure a trained run, with the baselines that need no training beside it.

        Under torchrun each process measures its share; the numbers are those of one process.

        Args:
            run: Run folder or .safetensors file.
            split: Which data; test is the published protocol.
            device: Where to compute; auto takes a GPU if there is one.
        """
        from tenfold.runner import use

        result = use.evaluate(run, split, device)
        if result:
            show_result(result)

    parse(verb, rest, "tenfold evaluate", ["--split", "--device"])
