"""One process's part of the model, and a training step over all processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.distributed import pipelining
from torch.distributed.tensor import DTensor, Placement, Replicate, Shard

from tenfold.core.dist import local
from tenfold.core.optim import Groups, decay_groups
from tenfold.core.watchdog import watched

from . import fsdp
from .config import Config
from .gradients import Gradients
from .model import Gpt
from .parallel import Grid
from .parts import TABLES, Owners, cut_of, initialise, own_part
from .routing import Routing
from .vocabulary import own_tokens

SCHEDULES: dict[str, Any] = {
    "1f1b": pipelining.Schedule1F1B,
    "gpipe": pipelining.ScheduleGPipe,
    "interleaved": pipelining.ScheduleInterleaved1F1B,
    "looped-bfs": pipelining.ScheduleLoopedBFS,
    "zero-bubble": pipelining.ScheduleInterleavedZeroBubble,
    "zbv": pipelining.ScheduleZBVZeroBubble,
    "dualpipev": pipelining.ScheduleDualPipeV,
}


class Tally:
    """Sums over the micro-batches of a step: losses, and per mixture layer what its router did."""

    WORDS = ("balance", "z", "entropy", "dropped", "pairs")

    def __init__(self, layers: tuple[int, ...], experts: int, device: torch.device) -> None:
        self.row = {layer: i for i, layer in enumerate(layers)}
        self.ce = torch.zeros((), dtype=torch.float64, device=device)
        shape = (len(layers), len(self.WORDS) + experts)
        self.table = torch.zeros(shape, dtype=torch.float64, device=device)
        """A row a mixture layer: WORDS, then pairs routed to each expert."""

    @torch.no_grad()
    def add(self, layer: int, routing: Routing) -> None:
        """Count one micro-batch's routing."""
        row = self.table[self.row[layer]]
        pairs = routing.experts.numel()
        kept = pairs if routing.keep is None else routing.keep.sum()
        row[0] += routing.balance_loss
        row[1] += routing.z_loss
        row[2] += routing.entropy
        row[3] += pairs - kept
        row[4] += pairs
        row[len(self.WORDS) :] += routing.counts

    def counts(self) -> Float[Tensor, "layer expert"]:
        """Pairs routed to each expert."""
        return self.table[:, len(self.WORDS) :]


class Part(nn.Module):
    """Part of the model that one process holds: one or more runs of consecutive blocks.

    On a single process that is the whole model.
    """

    def __init__(self, cfg: Config, grid: Grid, device: torch.device | str = "cpu") -> None:
        super().__init__()
        self.cfg, self.grid = cfg, grid
        self.owners = Owners(cfg.layout, grid)
        layout = cfg.layout
        self.factor: float | Tensor = 1.0
        """What the loss is multiplied by before backward (fp16)."""
        self.per_process = 1 if grid.pp.size == 1 else layout.stages_per_process
        self.is_v = grid.pp.size > 1 and layout.is_v_shaped
        spans = stage_spans(cfg.model.layers, self.num_stages)
        with torch.device(device):
            self.parts = nn.ModuleList(
                Gpt(cfg.model, layout, grid, spans[i]) for i in self.stage_indices
            )
        if grid.pp.size > 1 and self.holds_both_ends and cfg.model.tied:
            first, last = self.held.values()
            last.embed["tok"] = first.embed["tok"]
        if torch.device(device).type != "meta":
            for part in self.parts:
                initialise(part, cfg.model, cfg.seed, self.owners)
        self.sharded: dict[str, int] = {}
        if layout.fsdp and grid.dp.size > 1:
            (only,) = self.held.values()
            self.sharded = fsdp.dimensions(only, self.owners, cfg.model)
            fsdp.shard(only, grid, self.sharded)

    @property
    def held(self) -> dict[int, Gpt]:
        """Stage -> the blocks of it, of the stages that are here."""
        parts = [p for p in self.parts if isinstance(p, Gpt)]
        return dict(zip(self.stage_indices, parts, strict=True))

    @property
    def num_stages(self) -> int:
        """Pipeline stages of all processes."""
        return self.grid.pp.size * self.per_process

    @property
    def stage_indices(self) -> list[int]:
        """This process's stages: one, every P-th, or (V schedules) r and its mirror image."""
        rank, size = self.grid.pp.rank, self.grid.pp.size
        if self.is_v:
            return [rank, 2 * size - 1 - rank]
        return [rank + i * size for i in range(self.per_process)]

    @property
    def holds_both_ends(self) -> bool:
        """True if embedding and head are both here."""
        return self.stage_indices[0] == 0 and self.stage_indices[-1] == self.num_stages - 1

    def owner(self, stage: int) -> int:
        """Pipeline rank that holds a stage."""
        size = self.grid.pp.size
        if self.is_v and stage >= size:
            return 2 * size - 1 - stage
        return stage % size

    def keyed_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """(name in the whole model, parameter), each parameter once."""
        for name, parameter in self.named_parameters():
            yield key_of(name), parameter

    # --- a training step ------------------------------------------------------------------------

    def scale_loss(self, factor: Tensor) -> None:
        """Multiply the losses of later steps, and so their gradients, by a number."""
        self.factor = factor

    def compile_blocks(self, compiled: Callable[[nn.Module], nn.Module]) -> None:
        """Train with compiled blocks: alike ones share their code, and a whole part has breaks."""
        for part in self.held.values():
            part.compiled = {block.index: compiled(block) for block in part.blocks()}

    def train_step(self, batches: list[dict[str, Tensor]]) -> Tally:
        """Forward and backward of all micro-batches; leaves complete gradients on each process.

        A batch holds `tokens` (rows, seq + 1), the same on all tensor ranks and pipeline stages.
        Loss: mean over replicas and micro-batches of cross-entropy + weighted balance and z losses.
        """
        tally = Tally(self.cfg.model.moe_layers, self.cfg.model.experts, self.device)
        scale = 1.0 / (len(batches) * self.grid.dp.size)  # gradients of replicas are then summed
        for part in self.held.values():
            part.loss_scale, part.routed = self.factor * scale, tally.add
        self.train()
        self.gradients.begin(len(batches))

        def loss_of(logits: Tensor, target: Tensor) -> Tensor:
            loss = self.held[self.num_stages - 1].mean_loss(logits, target)
            tally.ce += loss.detach()
            return loss * scale * self.factor

        tokens = [b["tokens"] for b in batches]
        if self.grid.pp.size == 1:
            for rows in tokens:
                loss_of(self.parts[0](rows[:, :-1]), rows[:, 1:]).backward()
        else:
            self._pipelined(torch.cat(tokens), len(tokens), loss_of)
        for part in self.held.values():
            part.routed = None
        self.gradients.complete()
        return self._shared(tally, len(batches))

    def _pipelined(self, tokens: Tensor, micro_batches: int, loss_of: Any) -> None:
        """Let torch's schedule run the micro-batches through the stages."""
        schedule = self._schedule(len(tokens) // micro_batches, micro_batches, tokens.shape[1] - 1)
        # the loss function of the step: the schedule itself is kept from step to step
        self._loss_of = loss_of
        indices = self.stage_indices
        inputs = (tokens[:, :-1],) if 0 in indices else ()
        last = self.num_stages - 1 in indices
        target = {"target": tokens[:, 1:]} if last else {}
        losses: dict[str, Any] = {"losses": []} if last else {}
        with watched(f"pipeline step, schedule {self.cfg.layout.schedule}", "pp"):
            schedule.step(*inputs, **target, **losses, return_outputs=False)

    def _schedule(self, rows: int, micro_batches: int, time: int) -> Any:
        key = (rows, micro_batches, time, self.dtype)
        if key not in self._schedules:
            self._schedules[key] = self._new_schedule(rows, micro_batches, time)
        return self._schedules[key]

    @cached_property
    def _schedules(self) -> dict[Any, Any]:
        return {}

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """Type of the weights, and of what passes from stage to stage."""
        return next(self.parameters()).dtype

    def _new_schedule(self, rows: int, micro_batches: int, time: int) -> Any:
        model, grid, device = self.cfg.model, self.grid, self.device
        # Shapes are given: otherwise torch runs one more forward pass, on uninitialised memory,
        # which the router's statistics would count. They require gradients, or none would be sent.
        own_time = time // grid.split.size
        hidden = torch.empty(
            rows, own_time, model.hidden, device="meta", dtype=self.dtype, requires_grad=True
        )
        tokens = torch.empty(rows, time, device="meta", dtype=torch.int64)
        kind = (
            torch.get_autocast_dtype(device.type)
            if torch.is_autocast_enabled(device.type)
            else self.dtype
        )
        words = len(own_tokens(model.vocab, self.owners.of(TABLES[0])))
        logits = torch.empty(rows, time, words, device="meta", dtype=kind, requires_grad=True)
        stages = [
            pipelining.PipelineStage(
                part, index, self.num_stages, device, group=grid.pp.handle,
                input_args=(tokens if index == 0 else hidden,),
                output_args=(logits if index == self.num_stages - 1 else hidden,),
            )
            for index, part in self.held.items()
        ]  # fmt: skip

        def loss_of(logits: Tensor, target: Tensor) -> Tensor:
            return self._loss_of(logits, target)

        name = self.cfg.layout.schedule
        one = name in ("1f1b", "gpipe")
        if name == "1f1b" and micro_batches < grid.pp.size:
            name = "gpipe"  # the same order then; torch's 1F1B refuses so few
        return SCHEDULES[name](
            stages[0] if one else stages, micro_batches, loss_fn=loss_of, scale_grads=False
        )

    @cached_property
    def gradients(self) -> Gradients:
        """Sums of gradients over processes, and who updates what; of the parameters as they are."""
        both = self.grid.pp.size > 1 and self.holds_both_ends and self.cfg.model.tied
        return Gradients(
            dict(self.keyed_parameters()), self.owners, TABLES[:1] if both else (), self.cfg.model
        )

    def groups(self, model: nn.Module) -> Groups:
        """Groups of the parameters that this process updates."""
        zero = self.gradients.zero
        if zero is not None:
            return zero.groups(model)
        found = decay_groups(model)
        if self.sharded:  # torch's fused optimisers take DTensors, or others
            kinds = (
                [p for p in group["params"] if isinstance(p, DTensor) == is_cut]
                for group in found
                for is_cut in (True, False)
            )
            found = [
                {**group, "params": some}
                for group, some in zip((g for g in found for _ in range(2)), kinds, strict=True)
                if some
            ]
        return found

    def share(self) -> None:
        """After an optimiser's step: take what other replicas have updated."""
        if self.gradients.zero is not None:
            self.gradients.zero.share(self.gradients.bucket)

    def _shared(self, tally: Tally, micro_batches: int) -> Tally:
        """The tally of all processes: means of losses, sums of counts."""
        if self.grid.all.size > 1:
            joined = torch.cat([tally.ce.view(1), tally.table.view(-1)])
            self.grid.all.sum_(joined)
            # all tensor ranks count the same; a stage's rows are zero elsewhere
            joined /= self.grid.tp.size
            tally.ce, tally.table = joined[0], joined[1:].view_as(tally.table)
        chunks = micro_batches * self.grid.dp.size
        tally.ce = tally.ce / chunks
        tally.table[:, :3] /= chunks
        return tally

    def gradient_norm(self) -> Tensor:
        """Norm of the whole model's gradient: what several processes hold is counted once."""
        return self.gradients.norm()

    @torch.no_grad()
    def balance(self, counts: Float[Tensor, "layer expert"], rate: float) -> None:
        """Loss-free balancing (Wang et al. 2024, alg. 1): shift the choice towards idle experts."""
        for row, layer in enumerate(self.cfg.model.moe_layers):
            for block in (b for part in self.held.values() for b in part.blocks()):
                if block.index == layer and block.moe.gate.bias is not None:
                    block.moe.gate.bias += rate * (counts[row].mean() - counts[row]).sign()

    # --- evaluation -----------------------------------------------------------------------------

    @torch.no_grad()
    def token_losses(self, tokens: Int64[Tensor, "row time"]) -> Float[Tensor, "row target"]:
        """Cross-entropy in nats of each token but the first; the same on all pipeline stages."""
        x = tokens[:, :-1]
        shape = (len(x), x.shape[1] // self.grid.split.size, self.cfg.model.hidden)
        pp, held = self.grid.pp, self.held
        for stage in range(self.num_stages):
            if stage in held:
                if stage and self.owner(stage - 1) != pp.rank:
                    x = torch.empty(shape, dtype=self.dtype, device=tokens.device)
                    with watched(f"receive of {shape}", pp.name):
                        dist.recv(x, group=pp.handle, group_src=self.owner(stage - 1))
                if stage + 1 == self.num_stages:
                    losses = held[stage](x, target=tokens[:, 1:])
                    break
                x = held[stage](x)
                if self.owner(stage + 1) != pp.rank:
                    with watched(f"send of {shape}", pp.name):
                        dist.send(
                            x.to(self.dtype).contiguous(),
                            group=pp.handle,
                            group_dst=self.owner(stage + 1),
                        )
        else:
            losses = torch.empty(tokens.shape[0], tokens.shape[1] - 1, device=tokens.device)
        return pp.broadcast_(losses.contiguous(), self.owner(self.num_stages - 1))

    # --- weights on any layout ------------------------------------------------------------------

    def whole(self, name: str, tensor: Tensor) -> tuple[str, Tensor]:
        """A parameter of this part (or its average, or optimiser state) as part of the whole model.

        Returns its key and a tensor that torch's distributed checkpoint can save on one layout and
        load on another; it shares memory with `tensor`.
        """
        key = key_of(name)
        cut, tensor = cut_of(key), local(tensor)
        if tensor.ndim == 0:
            tensor = tensor.view(1)
        elif cut is not None and cut[1] > 1:  # blocks that are cut apart: an axis of their own
            tensor = tensor.view(cut[1], -1, *tensor.shape[1:])
        if self.grid.mesh is None:
            return key, tensor
        over_dp: Placement = Replicate()
        over_tp: Placement = Replicate()
        whole: dict[str, Any] = {}
        if key in self.sharded and tensor.ndim > 1:
            over_dp = Shard(self.sharded[key] + int(cut is not None and cut[1] > 1))
        if cut is not None and tensor.numel() > 1 and self.owners.of(key).size > 1:
            over_tp = Shard(cut[0] + int(cut[1] > 1))
            if self.owners.spread_over_dp(key):
                over_dp = over_tp
            if key in TABLES:  # a vocabulary need not divide
                hidden = self.cfg.model.hidden
                whole = {"shape": (self.cfg.model.vocab, hidden), "stride": (hidden, 1)}
        return key, DTensor.from_local(
            tensor, self.grid.mesh["dp", "tp"], (over_dp, over_tp), run_check=False, **whole
        )

    def streamed(self, shapes: dict[str, tuple[int, ...]]) -> Iterator[tuple[str, Tensor | None]]:
        """The whole model's weights one after another, on the first process; None elsewhere.

        All processes take everything from it; `shapes` has every key, in the same order on all.
        """
        if self.grid.all.size == 1:
            own = {key_of(name): t for name, t in self.state_dict().items()}
            yield from ((key, own[key]) for key in shapes)
            return
        parts = dict(self.whole(name, t) for name, t in self.state_dict().items())
        first = self.grid.all.rank == 0
        for key, shape in shapes.items():
            holder = self.owner(self._stage_of(key))
            source = holder * self.grid.experts.size
            value = None
            if self.grid.pp.rank == holder:
                part = parts[key]
                assert isinstance(part, DTensor)
                value = part.full_tensor().reshape(shape)
                if self.grid.all.rank == source and not first:
                    dist.send(value.contiguous(), 0)
            elif first:
                value = torch.empty(shape, dtype=self.dtype, device=self.device)
                dist.recv(value, source)
            yield key, value if first else None

    def _stage_of(self, key: str) -> int:
        words = key.split(".")
        if words[0] == "layers":
            spans = stage_spans(self.cfg.model.layers, self.num_stages)
            return next(stage for stage, span in enumerate(spans) if int(words[1]) in span)
        return 0 if words[0] == "embed" else self.num_stages - 1

    def load_whole(self, state: Mapping[str, Tensor]) -> None:
        """Take this part of a whole model's weights, by their keys, one after another."""
        with torch.no_grad():
            for name, tensor in self.state_dict(keep_vars=True).items():
                key = key_of(name)
                if key not in state:  # it starts anew
                    continue
                local(tensor).copy_(self.piece(key, state[key]))

    def piece(self, key: str, whole: Tensor) -> Tensor:
        """This process's piece of a whole parameter, or of its gradient."""
        group, dp = self.owners.of(key), self.grid.dp
        own = own_part(key, whole, group.size, group.rank)
        return own.chunk(dp.size, self.sharded[key])[dp.rank] if key in self.sharded else own


def stage_spans(layers: int, stages: int) -> list[range]:
    """Blocks of each pipeline stage: as even as can be.

    Blocks that are left over go to stages in the middle first: the first stage has the embedding,
    the last the head, whose products take time, too.
    """
    each, more = divmod(layers, stages)
    order = [*range(1, stages - 1), 0, stages - 1] if stages > 1 else [0]
    sizes = [each] * stages
    for stage in order[:more]:
        sizes[stage] += 1
    starts = [sum(sizes[:stage]) for stage in range(stages)]
    return [range(start, start + size) for start, size in zip(starts, sizes, strict=True)]


def key_of(name: str) -> str:
    """Name in the whole model of a parameter of a Part: "parts.1.layers.3..." -> "layers.3..."."""
    return name.split(".", 2)[2]
