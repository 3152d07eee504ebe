"""Proof that a layout, or a resume under another, computes what one process computes.

On a model and a machine of the user's own: same weights, same micro-batches, in float64, so that
what differs is no rounding. The first process holds the whole model; the others their parts.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn

from tenfold.core import loop
from tenfold.core.dist import World, local
from tenfold.core.optim import Optim, build
from tenfold.core.seed import seed_of
from tenfold.core.stage import Backward, Losses, Stage
from tenfold.data.text.tokens import TokenWindows

from .config import Config, Layout
from .fit import check_layout
from .parallel import Grid, make_grid
from .pipeline import Part

LIMIT = 1e-6
"""Largest relative difference that counts as equal; rounding of float64 gives 1e-12."""
BEFORE, AFTER = 2, 3
"""Steps at which a training is stopped, and to which it goes on."""


@dataclass(frozen=True)
class Difference:
    """Largest difference of a value over all processes."""

    what: str
    """loss, gradient norm, or the name of a parameter in the whole model."""
    relative: float
    """Over the largest entry of the value."""

    @property
    def is_wrong(self) -> bool:
        """True if this is more than rounding, or no number."""
        return not self.relative <= LIMIT


@dataclass(frozen=True)
class _Chunks:
    """The micro-batches of a step, which are the same on every layout."""

    windows: TokenWindows
    count: int
    """Micro-batches of a step, over all replicas."""
    rows: int
    """Sequences of each."""
    seed: int
    device: torch.device
    joined: bool = False
    """Replicas count the loads of experts together, so that for one process their rows are one."""

    def of(self, step: int, number: int) -> dict[str, Tensor]:
        """One of them."""
        rows = self.windows.draw(self.rows, self.seed, step * self.count + number)
        return {"tokens": torch.from_numpy(rows).to(self.device), "seed": torch.tensor(0)}

    def all_of(self, step: int) -> list[dict[str, Tensor]]:
        """All of a step."""
        return [self.of(step, number) for number in range(self.count)]

    def as_one(self, step: int, replicas: int) -> list[dict[str, Tensor]]:
        """All of a step as one process has to take them to compute what so many replicas do."""
        if not self.joined:
            return self.all_of(step)
        micro = self.count // replicas
        turns = (range(number, self.count, micro) for number in range(micro))
        every = [[self.of(step, number) for number in turn] for turn in turns]
        return [some[0] | {"tokens": torch.cat([one["tokens"] for one in some])} for some in every]


def step_differences(cfg: Config, windows: TokenWindows, world: World) -> list[Difference]:
    """Compare loss and gradients of a step on the configuration's layout with one process.

    Args:
        cfg: Complete configuration; all processes call this with the same.
        windows: Text to train on.
        world: All processes.

    Returns:
        On every process: loss, gradient norm, then every parameter in the order of the model.

    Raises:
        ValueError: The layout does not fit the model or the processes.
    """
    cfg = _plain(cfg)
    grid = make_grid(cfg, world)
    _require_comparable(cfg, grid)
    chunks = _chunks(cfg, grid, windows, world)
    part = _part(cfg, grid, world)
    tally = part.train_step(_own(chunks, grid, 0))
    norm = float(part.gradient_norm())
    whole = None
    seen = [float(tally.ce), norm]
    wanted = [0.0, 0.0]
    if world.is_first:
        whole = _part(replace(cfg, layout=Layout()), Grid(), world)
        one = whole.train_step(chunks.as_one(0, grid.dp.size))
        wanted = [float(one.ce), float(whole.gradient_norm())]
    wanted = world.gather(wanted)[0]
    found = [
        Difference(name, _relative(abs(mine - want), abs(want)))
        for name, mine, want in zip(("loss", "gradient norm"), seen, wanted, strict=True)
    ]
    own = {key: local(p.grad) for key, p in part.keyed_parameters() if p.grad is not None}
    named = () if whole is None else whole.keyed_parameters()
    theirs = {key: p.grad for key, p in named if p.grad is not None}
    return [*found, *_compared(own, theirs, part, cfg, world)]


def resume_differences(
    cfg: Config, then: Layout, windows: TokenWindows, world: World
) -> list[Difference]:
    """Compare weights that were trained on a layout and went on under another with one process'.

    Two steps on the configuration's layout, a checkpoint, a third step from it under `then`; beside
    three steps of one process. A rate that does not change, no average.

    Raises:
        ValueError: A layout does not fit the model or the processes.
    """
    cfg = _plain(cfg)
    first, second = make_grid(cfg, world), make_grid(replace(cfg, layout=then), world)
    _require_comparable(cfg, first, second)
    chunks = _chunks(cfg, first, windows, world)
    if chunks.count % second.dp.size:
        raise ValueError(
            f"the {chunks.count} micro-batches of a step (loop.accumulate x data-parallel size) "
            f"cannot be divided among the {second.dp.size} replicas of the other layout; change "
            "--loop.accumulate"
        )
    with _shared_folder(world) as folder:
        legs = ((cfg.layout, first, BEFORE), (then, second, AFTER))
        part = None
        for layout, grid, steps in legs:
            settled = replace(cfg, layout=layout)
            part = _part(settled, grid, world)
            micro = chunks.count // grid.dp.size
            settings = replace(
                cfg.loop, accumulate=micro, save_every=1, validate_every=0, workers=0, amp="off"
            )
            stage = _stage(part, chunks, grid, steps, cfg.optim)
            loop.train(iter([stage]), settings, world, folder, cfg.seed)
    assert part is not None
    theirs = {}
    if world.is_first:
        whole = _part(replace(cfg, layout=Layout()), Grid(), world)
        optimizer = build(whole, cfg.optim)
        for step in range(AFTER):
            whole.zero_grad()
            grid = first if step < BEFORE else second
            whole.train_step(chunks.as_one(step, grid.dp.size))
            norm = float(whole.gradient_norm())
            if cfg.optim.clip and norm > cfg.optim.clip:
                for p in whole.parameters():
                    if p.grad is not None:
                        p.grad *= cfg.optim.clip / (norm + 1e-6)
            optimizer.step()
        theirs = {key: p.detach() for key, p in whole.keyed_parameters()}
    own = {key: local(p.detach()) for key, p in part.keyed_parameters()}
    return _compared(own, theirs, part, cfg, world)


def _plain(cfg: Config) -> Config:
    """The configuration without what would make the comparison another one."""
    model = replace(cfg.model, dropout=0.0)
    optim = replace(cfg.optim, schedule="constant", warmup=0)
    return replace(cfg, model=model, optim=optim, loop=replace(cfg.loop, amp="off", ema=0.0))


def _chunks(cfg: Config, grid: Grid, windows: TokenWindows, world: World) -> _Chunks:
    check_layout(cfg, world.size)
    dp = grid.dp.size
    seed = seed_of(cfg.seed, "batch")
    joined = cfg.model.balance_scope == "global" and bool(cfg.model.moe_layers)
    count, rows = cfg.loop.accumulate * dp, cfg.batch // dp
    return _Chunks(windows, count, rows, seed, world.device, joined)


def _require_comparable(cfg: Config, *grids: Grid) -> None:
    """Refuse what one process computes otherwise, whichever rows it takes together."""
    model, is_shared = cfg.model, any(grid.dp.size > 1 for grid in grids)
    if is_shared and model.balance_scope == "global" and model.capacity_factor:
        raise ValueError(
            "model.balance_scope global with model.capacity_factor cannot be compared with one "
            "process, whose experts have places for the tokens of all replicas together; give "
            "--model.balance-scope micro"
        )


def _part(cfg: Config, grid: Grid, world: World) -> Part:
    """This process's part in float64; every whole weight follows from seed and name."""
    return Part(cfg, grid).to(world.device).double()


def _own(chunks: _Chunks, grid: Grid, step: int) -> list[dict[str, Tensor]]:
    micro = chunks.count // grid.dp.size
    return [chunks.of(step, grid.dp.rank * micro + number) for number in range(micro)]


def _stage(part: Part, chunks: _Chunks, grid: Grid, steps: int, optim: Optim) -> Stage:
    micro = chunks.count // grid.dp.size

    def batches(index: int) -> dict[str, Tensor]:
        step, number = divmod(index, micro)
        return chunks.of(step, grid.dp.rank * micro + number)

    def training_step(model: nn.Module, some: list[dict[str, Tensor]], _: Backward) -> Losses:
        return {"loss": part.train_step(some).ce}

    return Stage(
        "train", part, batches, steps, optim, part.groups, lambda step: part.share(),
        training_step=training_step, parallel=part.whole,
    )  # fmt: skip


def _compared(
    own: dict[str, Tensor],
    theirs: dict[str, Tensor],
    part: Part,
    cfg: Config,
    world: World,
) -> list[Difference]:
    """Differences of every parameter, one whole tensor at a time from the first process."""
    with torch.device("meta"):
        whole = Part(replace(cfg, layout=Layout()), Grid(), "meta")
    shapes = {key: tuple(p.shape) for key, p in whole.keyed_parameters()}
    found = []
    for key, shape in shapes.items():
        value = torch.empty(shape, dtype=torch.float64, device=world.device)
        if world.is_first:
            value.copy_(theirs[key])
        if world.size > 1:
            dist.broadcast(value, 0)
        worst = 0.0
        if key in own:
            mine = part.piece(key, value)
            worst = _relative(float((own[key] - mine).abs().max()), float(value.abs().max()))
        found.append(worst)
    every = world.gather(found)
    # Python's maximum may lose what is no number
    return [
        Difference(key, float(torch.tensor(some, dtype=torch.float64).max()))
        for key, some in zip(shapes, zip(*every, strict=True), strict=True)
    ]


def _relative(difference: float, largest: float) -> float:
    """A difference over what it is a difference of; an expert without tokens has gradient 0."""
    return difference / max(largest, 1e-9)


@contextmanager
def _shared_folder(world: World) -> Iterator[Path]:
    """A temporary folder that all processes of one host see, gone afterwards."""
    made = tempfile.mkdtemp(prefix="tenfold-check-") if world.is_first else ""
    path = Path(world.gather(made)[0])
    try:
        yield path
    finally:
        world.barrier()
        if world.is_first:
            shutil.rmtree(path, ignore_errors=True)
