"""`tenfold check layouts`: does a layout compute what one process computes?"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from tenfold.core.errors import UsageError, nearest
from tenfold.systems import system_class

from .arguments import LIST_FLAGS, add_row, flags_of, parse, positional, say, show, table_of
from .train import from_run

CHECKS = ("layouts",)
SHOWN = 8
"""Parameters that the table shows, those that differ most."""


@dataclass(frozen=True)
class Then:
    """Another layout under which a stopped training goes on; pp 0: none is tried."""

    pp: int = 0
    """Pipeline stages."""
    tp: int = 1
    """Tensor-parallel size."""
    schedule: str = "1f1b"
    """Order of the micro-batches' passes."""
    dispatch: str = "slice"
    """Way of tokens to experts."""


def check(rest: list[str]) -> None:
    """Check on this machine that a layout computes what one process does."""
    import tyro

    usage = (
        "usage: tenfold check layouts CONFIG [--layout.pp P] [--layout.tp T]\n"
        "       [--then.pp P --then.tp T] ...      under torchrun --nproc-per-node N -m\n\n"
        "Compares loss and every gradient of a step of this model on N processes with the same\n"
        "step on one, in float64, and names the first parameter that differs. With --then, two\n"
        "steps are made, stored, and a third under the other layout, and the weights compared.\n\n"
        "  CONFIG  a run, its config.json, or its weights\n\n"
        "The first process holds the whole model: --model.layers 4 makes a large one smaller."
    )
    if not rest or rest[0] in ("-h", "--help"):
        say(usage)
        return
    if rest[0] not in CHECKS:
        nearest(rest[0], list(CHECKS), "check")
    if LIST_FLAGS in rest:
        default: Any = next(iter(system_class("ppmoe").recipes.values()))
    elif len(rest) < 2 or rest[1].startswith("-"):
        raise UsageError("which model? give a run folder or its config.json")
    elif not Path(rest[1]).exists():
        raise FileNotFoundError(f"{rest[1]}: no run folder, config.json or weights there")
    else:
        _, default = from_run("ppmoe", system_class("ppmoe"), Path(rest[1]))

    def verb(
        what: Annotated[str, *positional("CHECK")],
        model: Annotated[Path, *positional("CONFIG")],
        config: Annotated[Any, tyro.conf.arg(name="")] = default,
        then: Then = Then(),  # noqa: B008 - frozen
    ) -> None:
        """Compare a layout with one process.

        Args:
            what: layouts.
            model: A run folder, its config.json, or its weights.
            config: The configuration; every field can be changed.
            then: Another layout under which a stopped training goes on.
        """
        _layouts(config, then)

    verb.__annotations__ |= {
        "what": Annotated[str, *positional("CHECK")],
        "model": Annotated[Path, *positional("CONFIG")],
        "config": Annotated[type(default), tyro.conf.arg(name="")],
        "then": Then,
        "return": None,
    }
    flags = [*flags_of(type(default)), *flags_of(Then, "--then.")]
    parse(verb, rest, "tenfold check", flags)


def _layouts(config: Any, then: Then) -> None:
    from tenfold.core import dist
    from tenfold.core.config import from_json, to_json
    from tenfold.runner.weights import completed
    from tenfold.systems.ppmoe.config import Layout
    from tenfold.systems.ppmoe.data import Text
    from tenfold.systems.ppmoe.equality import resume_differences, step_differences

    cls = system_class("ppmoe")
    limit = config.layout.timeout
    with dist.started(config.loop.device, limit=limit, knob="--layout.timeout") as world:
        config = completed(cls, config)
        windows = Text(config).windows("train")
        layout = config.layout
        shown = f"pp {layout.pp}, tp {layout.tp}, {layout.schedule}, {layout.dispatch}"
        found = {f"a step, {shown}": step_differences(config, windows, world)}
        if then.pp:
            values = to_json(replace(layout, virtual=layout.virtual))
            values |= {k: getattr(then, k) for k in ("pp", "tp", "schedule", "dispatch")}
            other = from_json(Layout, values, "--then")
            name = f"2 steps, then 1 with pp {then.pp}, tp {then.tp}, {then.schedule}"
            found[name] = resume_differences(config, other, windows, world)
        wrong = [(name, one) for name, some in found.items() for one in some if one.is_wrong]
        if world.is_first:
            _show(found, world.size)
        if wrong:
            name, first = wrong[0]
            raise ValueError(
                f"{name}: {first.what} differs by {first.relative:.3g} of its largest entry from "
                f"one process; {len(wrong)} values differ in all"
            )


def _show(found: dict[str, list[Any]], processes: int) -> None:
    for name, some in found.items():
        parameters = [one for one in some if one.what not in ("loss", "gradient norm")]
        table = table_of(f"{name}: {processes} processes against one", "value", "difference")
        for one in some:
            if one not in parameters:
                add_row(table, one.what, f"{one.relative:.2g}")
        for one in sorted(parameters, key=lambda one: -one.relative)[:SHOWN]:
            add_row(table, one.what, f"{one.relative:.2g}")
        add_row(table, f"all {len(parameters)} parameters, largest",
                f"{max(one.relative for one in parameters):.2g}")  # fmt: skip
        show(table)
        say()
    say("Differences are relative to the largest entry; 1e-6 and less counts as equal.")
