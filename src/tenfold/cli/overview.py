"""`tenfold list` and `tenfold info`: what there is."""

from __future__ import annotations

from typing import Annotated

from tenfold.systems import SYSTEMS, system_class

from .arguments import add_row, parse, positional, say, show, table_of


def list_systems(rest: list[str]) -> None:
    """List the systems: task, data found or generated, minutes of the demo."""

    def verb() -> None:
        """List the systems: what each does, whether its data is here, minutes of its demo."""
        from tenfold.data import catalog

        table = table_of("tenfold", "system", "what it does", "data", "found", "demo (min)")
        for name, entry in SYSTEMS.items():
            present = "yes" if catalog.find(entry.data) else "no: generated"
            add_row(table, name, entry.task, entry.data, present, f"{entry.minutes:g}")
        show(table)

    parse(verb, rest, "tenfold list", [])


def info(rest: list[str]) -> None:
    """Show a system's paper, recipes, claims, licence and how to cite it."""

    def verb(system: Annotated[str, *positional("SYSTEM")]) -> None:
        """Show a system's paper, recipes, claims, licences and how to cite it.

        Args:
            system: Name of a system; `tenfold list` shows them.
        """
        from tenfold.core.config import differences, to_json

        cls = system_class(system)
        paper = cls.paper
        say(f"{system}: {paper.title} (arXiv {paper.arxiv})\n{paper.says}\n")
        say(f"official code:    {paper.code}\nofficial weights: {paper.weights_licence}\n")
        say(f"predicts from:    {cls.accepts}\n")
        first = to_json(cls.recipes["paper"])
        for name, recipe in cls.recipes.items():
            changed = differences(first, to_json(recipe))
            say(f"recipe {name}: " + ("the published setting" if not changed else "paper, but"))
            for line in changed:
                say(f"    {line}")
        from tenfold.runner.weights import completed, construct

        say()
        for claim in construct(cls, completed(cls, cls.recipes["small"])).claims():
            say(f"claim: {claim.says} ({claim.method.name} against {claim.baseline.name})")
        say(f"\ncite:\n{paper.cite}")

    parse(verb, rest, "tenfold info", [])
