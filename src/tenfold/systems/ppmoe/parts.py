"""Parts of parameters that processes hold, and first values, which do not depend on the layout."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tenfold.core.seed import generator

from .config import Layout, Model
from .parallel import ALONE, Grid, Group

DRAWN = 2**22
"""Numbers that are drawn at a time: a process holds no more of what is not its own."""
TABLES = ("embed.tok.weight", "head.weight")
"""Parameters with a row for each token of the vocabulary."""


def cut_of(key: str) -> tuple[int, int] | None:
    """Dimension in which tensor ranks cut a parameter, and in how many blocks, each by itself.

    None: all have the whole. Tables are cut by tokens. q, k and v are three blocks of the qkv
    outputs, each cut by itself; so are k and v of kv, and the two of gate_up.
    """
    if key in TABLES or ".experts." in key or ".attn.q." in key or ".fc1." in key:
        return 0, 1
    if ".attn.kv." in key or ".gate_up." in key:
        return 0, 2
    if ".attn.qkv." in key:
        return 0, 3
    if key.endswith((".attn.proj.weight", ".fc2.weight")):
        return 1, 1
    return None


@dataclass(frozen=True)
class Owners:
    """Processes that share a parameter, and what each has of its gradient."""

    layout: Layout
    grid: Grid

    def __deepcopy__(self, memo: object) -> Owners:
        return self

    def of(self, key: str) -> Group:
        """The processes that a parameter is cut among: tensor ranks, or DPMoE's dp x tp."""
        if self.spread_over_dp(key):
            return self.grid.experts
        if key in TABLES and not self.layout.vocab_parallel:
            return ALONE
        return self.grid.tp

    def spread_over_dp(self, key: str) -> bool:
        """Return True if replicas hold different parts: DPMoE's experts."""
        return ".experts." in key and self.layout.dispatch != "slice"

    def partial_over_tp(self, key: str) -> bool:
        """Return True if tensor ranks hold the same parameter and have parts of its gradient.

        The router of `sync` params (paper sec. 3.3), and what a rank did with its own tokens alone.
        """
        if key.endswith(".gate.weight") and self.grid.split.size == 1:
            return self.layout.sync == "params" and self.layout.dispatch != "alltoall-copies"
        if self.grid.split.size == 1 or ".attn.q_norm" in key or ".attn.k_norm" in key:
            return False
        return cut_of(key) is None  # norms, biases that are added to sums, positions


def own_part(key: str, whole: Tensor, size: int, rank: int) -> Tensor:
    """A rank's part of a parameter, of `size` ranks that share it."""
    cut = cut_of(key)
    if cut is None or size == 1:
        return whole
    dim, blocks = cut
    parts = [block.chunk(size, dim)[rank] for block in whole.chunk(blocks, dim)]
    return torch.cat(parts, dim)


def shape_of(key: str, part: Tensor, size: int, vocab: int) -> tuple[int, ...]:
    """Shape of the whole parameter, from a part's; a vocabulary need not divide."""
    shape, cut = list(part.shape), cut_of(key)
    if key in TABLES:
        return (vocab, *shape[1:])
    if cut is not None:
        shape[cut[0]] *= size
    return tuple(shape)


@torch.no_grad()
def initialise(model: nn.Module, cfg: Model, seed: int, owners: Owners) -> None:
    """N(0, 0.02), what is added to the residual stream / sqrt(2 L) (GPT-2), biases 0, norms 1.

    Every whole tensor follows from (seed, its name) and each process keeps its part: weights do
    not depend on the layout. Large ones are drawn in slabs.
    """
    for key, parameter in model.named_parameters():
        if key.endswith("bias") or ".ln" in key or key.startswith("ln_f") or "_norm." in key:
            parameter.fill_(1.0 if key.endswith("weight") else 0.0)
            continue
        group = owners.of(key)
        shape = shape_of(key, parameter, group.size, cfg.vocab)
        if math.prod(shape) <= DRAWN:
            whole = drawn(key, torch.empty(shape), cfg, seed)
            parameter.copy_(own_part(key, whole, group.size, group.rank))
        else:
            _draw_slabs(parameter, key, shape, group, cfg, seed)


def _draw_slabs(
    parameter: Tensor, key: str, shape: tuple[int, ...], group: Group, cfg: Model, seed: int
) -> None:
    """Draw a large parameter some rows at a time, each slab by a generator of its own.

    Rows are those of the matrix, of all experts one below the other. A process draws the slabs
    that hold rows of its own and keeps its part of them.
    """
    columns = shape[-1]
    rows = math.prod(shape[:-1])
    each = max(1, DRAWN // columns)
    # numbers of the rows and columns of the whole that are here
    numbers = torch.arange(rows).view(shape[:-1])
    cut = cut_of(key)
    own_rows, own_columns = numbers.flatten(), slice(None)
    if cut is not None and group.size > 1 and cut[0] == 0:
        own_rows = own_part(key, numbers, group.size, group.rank).flatten()
    elif cut is not None and group.size > 1:
        width = columns // group.size
        own_columns = slice(group.rank * width, (group.rank + 1) * width)
    target = parameter.view(-1, parameter.shape[-1])
    for slab, start in enumerate(range(0, rows, each)):
        here = (own_rows >= start) & (own_rows < start + each)
        if not bool(here.any()):
            continue
        part = torch.empty(min(each, rows - start), columns)
        part.normal_(0, _deviation(key, cfg), generator=generator(seed, key, slab))
        target[here] = part[own_rows[here] - start][:, own_columns].to(target)


def drawn(key: str, whole: Tensor, cfg: Model, seed: int) -> Tensor:
    """Fill a whole parameter that is no bias and no norm with what follows from seed and name."""
    return whole.normal_(0, _deviation(key, cfg), generator=generator(seed, key))


def _deviation(key: str, cfg: Model) -> float:
    adds = key.endswith((".proj.weight", ".fc2.weight", "fc2_weight"))
    return 0.02 / math.sqrt(2 * cfg.layers) if adds else 0.02
