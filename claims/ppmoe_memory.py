"""Writes claims/ppmoe-memory.{json,md}: bytes kept for backward, measured and as planned.

python claims/ppmoe_memory.py            # seconds
python claims/ppmoe_memory.py --quick --out FOLDER     # a few rows, for the tests

One process runs a layout's first, middle or last stage of one tensor rank; the other ranks are
imitated by torch's fake process group, which answers every collective at once.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.distributed._tools.mem_tracker import MemTracker
from torch.testing._internal.distributed.fake_pg import FakeStore

from tenfold.core import checkpoint
from tenfold.core.dist import World
from tenfold.core.log import environment
from tenfold.core.seed import generator
from tenfold.report.markdown import md, md_table
from tenfold.systems.ppmoe import experts, parallel
from tenfold.systems.ppmoe.config import Layout, Model
from tenfold.systems.ppmoe.model import Gpt
from tenfold.systems.ppmoe.parallel import Grid, Group
from tenfold.systems.ppmoe.pipeline import stage_spans
from tenfold.systems.ppmoe.planner.kept import Kept, kept
from tenfold.systems.ppmoe.planner.shape import Placement, shape_of
from tenfold.systems.ppmoe.routing import Routing

COMMAND = "python claims/ppmoe_memory.py"
HERE = Path(__file__).parent
GPT = Model(layers=4, hidden=128, heads=4, seq=128, vocab=1000, experts=8, top_k=1)
LLAMA = replace(
    GPT, activation="swiglu", norm="rms", bias="none", positions="rotary", tied=False
)  # fmt: skip
QWEN = replace(
    LLAMA, hidden=256, heads=8, kv_heads=2, head_size=32, experts=16, top_k=4, moe_every=1,
    expert_ffn=96, norm_topk=True,
)  # fmt: skip
CASES: dict[str, tuple[Model, int, int, bool]] = {
    "GPT-3 build, dense": (replace(GPT, kind="dense"), 1, 1, False),
    "GPT-3 build, 8 experts, top-1": (GPT, 1, 1, False),
    "GPT-3 build, 64 experts, top-2": (replace(GPT, experts=64, top_k=2), 1, 1, False),
    "GPT-3 build, 8 experts, TP 2": (GPT, 1, 2, False),
    "GPT-3 build, 8 experts, PP 2 TP 4": (GPT, 2, 4, False),
    "SwiGLU, 8 experts, top-2, shared": (replace(LLAMA, top_k=2, shared=192), 1, 1, False),
    "SwiGLU, dense, grouped queries": (replace(LLAMA, kind="dense", kv_heads=2), 1, 1, False),
    "Qwen3's build, 16 experts, top-4": (QWEN, 1, 1, False),
    "Qwen3's build, PP 2 TP 2, sequence": (QWEN, 2, 2, True),
    "Qwen3's build, PP 2 TP 2": (QWEN, 2, 2, False),
    "GPT-3 build, 8 experts, TP 2, sequence": (GPT, 1, 2, True),
}
"""Name -> model, P, T, whether tensor ranks split the sequence."""
ROWS = 2
"""Sequences of a micro-batch."""


@dataclass(frozen=True)
class Row:
    """Bytes that one stage keeps for backward of one micro-batch."""

    case: str
    precision: str
    stage: int
    measured: int
    predicted: float
    load: float
    """Pairs of this tensor rank's experts over its fair share: what the router happened to do."""

    @property
    def error(self) -> float:
        """(predicted - measured) / measured."""
        return self.predicted / self.measured - 1


class Counted:
    """Bytes of the storages that autograd saves; the parameters' own do not count."""

    def __init__(self, owned: set[int]) -> None:
        self.owned, self.seen = owned, dict[int, int]()

    def add(self, saved: Tensor) -> Tensor:
        """Count a tensor's storage once."""
        storage = saved.untyped_storage()
        if storage.data_ptr() not in self.owned:
            self.seen[storage.data_ptr()] = storage.nbytes()
        return saved

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Count what is saved inside, also under hooks of the experts' own."""

        def inner(
            pack: Callable[[Tensor], tuple[Tensor, Any]], unpack: Callable[[Any], Tensor]
        ) -> saved_tensors_hooks:
            def counting(saved: Tensor) -> tuple[Tensor, Any]:
                packed = pack(saved)
                self.add(packed[0])
                return packed

            return saved_tensors_hooks(counting, unpack)

        outer = saved_tensors_hooks(self.add, lambda saved: saved)
        with (
            mock.patch.object(experts, "saved_tensors_hooks", inner),
            mock.patch.object(parallel, "saved_tensors_hooks", inner),
            outer,
        ):
            yield


def measure(
    model: Model, pp: int, tp: int, sequence: bool, stage: int, bf16: bool
) -> tuple[int, float]:
    """Bytes that a stage keeps for backward of one micro-batch, and the load of its experts."""
    group = Group("tp", tp, 0, dist.new_group(list(range(tp))))
    grid = Grid(tp=group, sequence=sequence) if tp > 1 else Grid()
    layout = Layout(pp=pp, tp=tp, sequence=sequence)
    part = Gpt(model, layout, grid, stage_spans(model.layers, pp)[stage])
    draw = generator(0, "weights")
    with torch.no_grad():
        for parameter in part.parameters():
            parameter.normal_(0, 0.02, generator=draw)
    part.train()
    pairs = [0, 0]

    def listen(index: int, routing: Routing) -> None:
        pairs[0] += int(routing.counts[: model.experts // tp].sum())
        pairs[1] += int(routing.counts.sum())

    part.routed = listen
    counted = Counted({p.untyped_storage().data_ptr() for p in part.parameters()})
    tokens = torch.randint(model.vocab, (ROWS, model.seq), generator=draw)
    shape = (ROWS, model.seq // grid.split.size, model.hidden)
    hidden = torch.randn(shape, generator=draw, requires_grad=True)
    with counted.watching(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        out = part(tokens if part.is_first else hidden)
        loss = part.mean_loss(out, tokens) if part.is_last else out.sum()
    assert loss.requires_grad  # the graph that holds what was counted
    return sum(counted.seen.values()), tp * pairs[0] / pairs[1] if pairs[1] else 1.0


def planned(
    model: Model, pp: int, tp: int, bf16: bool, load: float, sequence: bool = False
) -> tuple[Kept, Placement]:
    """The planner's count of the same."""
    shape = shape_of(model)
    place = Placement("dense" if model.kind == "dense" else "ppmoe", pp, tp, 1, ROWS, 1)
    return kept(shape, place, 2 if bf16 else 4, load, 1.0, sequence), place


@dataclass(frozen=True)
class Peak:
    """Bytes of a whole micro-batch forward and backward in one process, gradients there before."""

    case: str
    precision: str
    measured: int
    predicted: float

    @property
    def error(self) -> float:
        """(predicted - measured) / measured."""
        return self.predicted / self.measured - 1


def peak(case: str, model: Model, bf16: bool) -> Peak:
    """Most bytes that torch's memory tracker sees, and weights, gradients and activations."""
    part = Gpt(model)
    draw = generator(0, "weights")
    for parameter in part.parameters():
        parameter.data.normal_(0, 0.02, generator=draw)
        parameter.grad = torch.zeros_like(parameter)
    tokens = torch.randint(model.vocab, (ROWS, model.seq), generator=draw)
    tracker = MemTracker()
    tracker.track_external(part)
    with tracker:
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            loss = part.mean_loss(part(tokens), tokens)
        loss.backward()
    measured = tracker.get_tracker_snapshot("peak")[torch.device("cpu")]["Total"]
    own, place = planned(model, 1, 1, bf16, 1.0)
    weights = 2 * sum(p.numel() * p.element_size() for p in part.parameters())
    activations = own.activation_bytes(place, 1.0, model.recompute)
    words = ("bf16" if bf16 else "fp32") + (", recomputed" if model.recompute else "")
    return Peak(case, words, measured, weights + activations)


def rows(quick: bool) -> tuple[list[Row], list[Peak]]:
    """All cases in fp32, bf16, and with recomputation."""
    found, peaks = list[Row](), list[Peak]()
    for name, (model, pp, tp, sequence) in list(CASES.items())[:: 4 if quick else 1]:
        for recompute, bf16 in itertools.product((False, True), (False, True)):
            used = replace(model, recompute=recompute)
            words = ("bf16" if bf16 else "fp32") + (", recomputed" if recompute else "")
            for stage in sorted({0, pp - 1}):
                measured, load = measure(used, pp, tp, sequence, stage, bf16)
                own = planned(used, pp, tp, bf16, load, sequence)[0]
                bytes_ = own.kept_bytes(stage == pp - 1, recompute)
                found.append(Row(name, words, stage, measured, bytes_, load))
            if pp * tp == 1 and not (quick and peaks):
                peaks.append(peak(name, used, bf16))
    return found, peaks


def main(args: list[str]) -> int:
    """Measure, compare, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--out", type=Path, default=HERE)
    given = parser.parse_args(args)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    dist.init_process_group("fake", rank=0, world_size=4, store=FakeStore())
    try:
        found, peaks = rows(given.quick)
    finally:
        dist.destroy_process_group()
        torch.set_num_threads(threads)
    given.out.mkdir(parents=True, exist_ok=True)
    value = {
        "rows_of_a_micro_batch": ROWS,
        "kept": [{**asdict(r), "error": r.error} for r in found],
        "peaks": [{**asdict(r), "error": r.error} for r in peaks],
        "largest_error": {"kept": worst(found), "peaks": worst(peaks)},
        "environment": environment(World(0, 1, torch.device("cpu"))) | {"command": COMMAND},
    }
    checkpoint.write_json(given.out / "ppmoe-memory.json", value)
    checkpoint.write_text(given.out / "ppmoe-memory.md", page(value))
    print(f"largest error: kept {worst(found):.1%}, peaks {worst(peaks):.1%}")
    return 0


def worst(rows: Sequence[Row | Peak]) -> float:
    """Largest error, without its sign."""
    return max(abs(row.error) for row in rows)


def page(value: dict[str, Any]) -> str:
    """The claim as Markdown."""
    largest = value["largest_error"]
    kept_rows = [
        [r["case"], r["precision"], str(r["stage"] + 1), f"{r['load']:.2f}", f"{r['measured']:,}",
         f"{r['predicted']:,.0f}", f"{r['error']:+.1%}"] for r in value["kept"]
    ]  # fmt: skip
    peak_rows = [
        [r["case"], r["precision"], f"{r['measured']:,}", f"{r['predicted']:,.0f}",
         f"{r['error']:+.1%}"] for r in value["peaks"]
    ]  # fmt: skip
    setting = [[md(k.replace("_", " ")), md(v)] for k, v in value["environment"].items()]
    lines = [
        "# ppmoe: memory as the planner counts it, and as measured", "",
        f"**Bytes kept for backward: within {largest['kept']:.1%} of what autograd saved; peak of "
        f"a micro-batch: within {largest['peaks']:.1%} of what torch's memory tracker saw.**", "",
        f"Small models on a CPU, {value['rows_of_a_micro_batch']} sequences a micro-batch; not a "
        "GPU: its allocator's rounding and workspace are not in it, and its fused norms and "
        "attention may keep less. Other ranks are imitated by torch's fake process group. "
        "All-to-all dispatch was not measured on several ranks. Load: rows of this tensor rank's "
        "experts over its fair share, as the untrained router dealt them; the prediction is for "
        "that load.", "",
        "## Kept after forward of one micro-batch", "",
        *md_table(["case", "precision", "stage", "load", "measured [bytes]", "predicted", "error"],
                  [[md(c) for c in r] for r in kept_rows], words=2), "",
        "With recomputation in bf16 the experts' rows are kept all the same: their hooks "
        "(`cast_again`) come before those of torch's checkpoint. The planner counts them.", "",
        "## Peak of one micro-batch, forward and backward, with all weights and gradients", "",
        *md_table(["case", "precision", "measured [bytes]", "predicted", "error"],
                  [[md(c) for c in r] for r in peak_rows], words=2), "",
        "## Setting", "", *md_table(["", ""], setting, words=2), "",
    ]  # fmt: skip
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
