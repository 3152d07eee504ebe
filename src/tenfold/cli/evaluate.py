"""`tenfold evaluate`: a trained run measured on a split."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from tenfold.systems import system_class

from .arguments import parse, positional

if TYPE_CHECKING:
    pass
from .results import show_result


def evaluate(rest: list[str]) -> None:
    """Measure a trained run on a split."""

    def verb(
        run: Annotated[Path, *positional("RUN")], split: Literal["test", "validation"] = "test"
    ) -> None:
        """Measure a trained run, with the baselines that need no training beside it.

        Args:
            run: Run folder or .safetensors file.
            split: Which data; test is the published protocol.
        """
        from tenfold.core.checkpoint import read_header
        from tenfold.runner.weights import load, weights_of

        name, _ = read_header(weights_of(run))
        system = load(system_class(name), run)
        data = system.data_used()
        show_result(
            {
                "recipe": name,
                "data": {"name": data.name, "kind": data.kind, "note": data.note},
                "metrics": system.evaluate(split),
                "baselines": system.baselines(split),
                "notes": system.notes(),
                "labels": system.labels(),
                "main": system.headline,
            }
        )

    parse(verb, rest, "tenfold evaluate", ["--split"])
