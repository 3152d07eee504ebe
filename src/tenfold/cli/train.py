"""The verbs of the command line, a function each; heavy imports wait inside them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tenfold.core.errors import UsageError, nearest
from tenfold.printable import printable
from tenfold.systems import SYSTEMS, system_class

from .arguments import flags_of, parse, say
from .results import show_result

if TYPE_CHECKING:
    from tenfold.core.system import System


LONGEST = 120
"""Characters of a value that --dry-run shows."""


@dataclass(frozen=True)
class Run:
    """Location of the run."""

    folder: str = ""
    """Run folder; empty means runs/<system>-<recipe>. An unfinished run there is continued."""
    fresh: bool = False
    """Delete what the folder holds and start over."""


def train(rest: list[str]) -> None:
    """Train a system by a recipe; any field of its configuration can be changed."""
    import tyro

    usage = (
        "usage: tenfold train SYSTEM RECIPE [--run.folder DIR] [--dry-run] [--FIELD VALUE ...]\n"
        "       tenfold train SYSTEM --config RUN/config.json [--FIELD VALUE ...]\n\n"
        "Trains, evaluates on the test split, and writes a run folder with weights, metrics,\n"
        "pictures and report.html. The same command continues an interrupted run; with larger\n"
        "--steps a finished one goes on. --start RUN begins with the weights of another run,\n"
        "--config with its configuration; options on the command line win.\n\n"
        f"  SYSTEM  {', '.join(SYSTEMS)}\n"
        "  RECIPE  a named setting: paper, small, demo ... (`tenfold info SYSTEM`)\n\n"
        "examples:\n"
        "  tenfold train spgsn demo\n"
        "  tenfold train spgsn small --optim.lr 3e-4 --run.folder runs/lower-rate\n"
        "  torchrun --nproc-per-node 2 -m tenfold train spgsn small\n\n"
        "`tenfold train SYSTEM RECIPE --help` lists every field."
    )
    if not rest or rest[0] in ("-h", "--help"):
        say(usage)
        return
    cls = system_class(rest[0])
    name, recipes = rest[0], cls.recipes
    rest, source = _without_config(rest)
    begun = from_run(name, cls, Path(source)) if source else None
    if begun is not None and (len(rest) < 2 or rest[1].startswith("-")):
        rest = [name, begun[0], *rest[1:]]
    if len(rest) < 2 or rest[1].startswith("-"):
        raise UsageError(
            f"which recipe? `tenfold train {name} RECIPE`; known: {', '.join(recipes)}"
        )
    recipe = rest[1]
    if recipe not in recipes and (begun is None or recipe != begun[0]):
        nearest(recipe, list(recipes), "recipe")
    default = recipes[recipe] if begun is None else begun[1]

    def verb(
        config: Annotated[Any, tyro.conf.arg(name="", constructor=type(default))] = default,
        run: Run = Run(),  # noqa: B008 - frozen
        dry_run: bool = False,
    ) -> None:
        """Train; every field below can be changed.

        Args:
            config: The system's configuration.
            run: Where the run lives.
            dry_run: Print the configuration, shapes and one step's loss; write nothing.
        """
        from tenfold.runner import train as runs

        _require_passes_read(cls, config, default)
        if dry_run:
            _show_dry_run(name, cls, config)
            return
        folder = Path(run.folder or f"runs/{name}-{recipe}")
        result = runs.train(name, cls, recipe, config, folder, run.fresh)
        if result:
            show_result(result)
            say(f"\n{folder / 'report.html'}")

    verb.__annotations__["config"] = Annotated[type(default), tyro.conf.arg(name="")]
    verb.__annotations__["run"] = Run
    verb.__annotations__["dry_run"] = bool
    verb.__annotations__["return"] = None
    flags = [*flags_of(type(default)), "--run.folder", "--run.fresh", "--dry-run", "--config"]
    parse(verb, rest[2:], f"tenfold train {name} {recipe}", flags)


def _require_passes_read(cls: type[System[Any]], config: Any, default: Any) -> None:
    """Refuse a number of passes that was given where the number of steps counts."""
    from tenfold.core.config import get

    for name in cls.passes:
        if config.steps and get(config, name) != get(default, name):
            raise UsageError(
                f"--{name.replace('_', '-')} is {get(config, name)}, but steps is {config.steps}, "
                "which counts. Add --steps 0."
            )


def _without_config(rest: list[str]) -> tuple[list[str], str]:
    """The words without `--config FILE`, and the file."""
    for place, word in enumerate(rest):
        if word.startswith("--config="):
            return rest[:place] + rest[place + 1 :], word.partition("=")[2]
        if word == "--config":
            if place + 1 == len(rest):
                raise UsageError("--config needs RUN/config.json")
            return rest[:place] + rest[place + 2 :], rest[place + 1]
    return rest, ""


def from_run(name: str, cls: type[System[Any]], path: Path) -> tuple[str, Any]:
    """Recipe and configuration of a run, from its config.json, its folder or its weights.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no configuration of the system `name`.
    """
    from tenfold.core import checkpoint
    from tenfold.core.config import from_json

    kind = type(next(iter(cls.recipes.values())))
    file = path / "config.json" if path.is_dir() else path
    if path.is_dir() and not file.exists():  # a converted checkpoint has weights alone
        file = path / "weights.safetensors"
    if not file.exists():
        raise FileNotFoundError(f"--config {path} is not a run folder, its config.json or weights")
    if file.suffix == ".safetensors":
        system, values, recipe = *checkpoint.read_header(file), "config"
    else:
        saved = checkpoint.read_json(file)
        if not isinstance(saved, dict) or not {"system", "recipe", "config"} <= saved.keys():
            raise ValueError(f"--config {file} is no config.json of a run: it lacks its fields")
        system, values, recipe = (saved[key] for key in ("system", "config", "recipe"))
    if system != name:
        raise ValueError(f"--config {file} is of a run of {printable(str(system))}, not of {name}")
    if not isinstance(recipe, str):
        raise ValueError(f"--config {file}: recipe must be a str, got {recipe!r}")
    return recipe, from_json(kind, values, f"{file}: config")


def _show_dry_run(name: str, cls: type[System[Any]], config: Any) -> None:
    from tenfold.core.config import flatten, to_json
    from tenfold.runner.dry_run import dry_run
    from tenfold.runner.weights import completed

    config = completed(cls, config)  # with what the data decide, as the run would have it
    for key, value in flatten(to_json(config)).items():
        text = str(value)
        shown = text if len(text) <= LONGEST else f"{text[:LONGEST]}... ({len(text)} characters)"
        say(f"{key:28} {shown}")
    found = dry_run(name, cls, config)
    say(f"\nparameters of the first stage: {found.parameters:,}")
    say("\n".join(["stages:", *("  " + s for s in found.stages)]))
    say("\n".join(["one batch:", *("  " + s for s in found.batch)]))
    say("one step: " + ", ".join(f"{k} {v:.5g}" for k, v in found.losses.items()))
