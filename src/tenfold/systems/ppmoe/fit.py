"""Whether a model and its batch fit a layout on some processes."""

from __future__ import annotations

from .config import Config


def check_layout(cfg: Config, world_size: int) -> None:
    """Raise ValueError if the model or the batch does not fit the layout on so many processes."""
    model, layout = cfg.model, cfg.layout
    pp, tp = layout.pp, layout.tp
    if world_size % (pp * tp):
        raise ValueError(
            f"layout.pp {pp} x layout.tp {tp} = {pp * tp} does not divide the {world_size} "
            f"processes; start a multiple of {pp * tp} (torchrun --nproc-per-node), or change them"
        )
    dp = world_size // (pp * tp)
    stages = pp * layout.stages_per_process
    if pp > 1 and model.layers < stages:
        raise ValueError(
            f"model.layers {model.layers} are fewer than {stages} pipeline stages "
            f"(layout.pp {pp} x {layout.stages_per_process} a process); use fewer stages"
        )
    shared = (("kv_heads", model.groups), ("shared", model.shared))
    for name, value in (("heads", model.heads), ("ffn", model.inner), *shared):
        if value % tp:
            raise ValueError(f"model.{name} {value} is not divisible by layout.tp {tp}")
    share = tp if layout.dispatch == "slice" else tp * dp
    if model.moe_layers and model.experts % share:
        how = "layout.tp" if layout.dispatch == "slice" else "layout.tp x data-parallel size"
        raise ValueError(
            f"model.experts {model.experts} is not divisible by {how} {share}: every process "
            "holds equally many experts"
        )
    if cfg.batch % dp:
        raise ValueError(
            f"batch {cfg.batch} is not divisible by the data-parallel size {dp} "
            f"({world_size} processes / (pp {pp} x tp {tp}))"
        )
    micro = cfg.loop.accumulate
    by_rounds = layout.schedule in ("interleaved", "zero-bubble")
    if pp > 1 and by_rounds and micro % max(1, micro // pp):
        raise ValueError(
            f"schedule {layout.schedule} runs loop.accumulate {micro} micro-batches in "
            f"{micro // pp} rounds on {pp} stages, which must be equal; use a multiple of {pp}"
        )
    if pp > 1 and layout.schedule == "dualpipev" and micro < 2 * pp:
        raise ValueError(
            f"schedule dualpipev on {pp} processes needs {2 * pp} micro-batches or more, got "
            f"loop.accumulate {micro}"
        )
    if model.moe_layers and layout.dispatch == "alltoall" and model.seq % tp:
        raise ValueError(
            f"model.seq {model.seq} is not divisible by layout.tp {tp}: with layout.dispatch "
            "alltoall each tensor rank sends an equal share of the tokens; use slice"
        )
    if layout.vocab_parallel and 0 < model.vocab <= -(-model.vocab // tp) * (tp - 1):
        raise ValueError(
            f"model.vocab {model.vocab} leaves one of layout.tp {tp} processes without tokens; use "
            "fewer, or --layout.no-vocab-parallel"
        )
    if layout.sequence and tp > 1:
        if model.seq % tp:
            raise ValueError(
                f"model.seq {model.seq} is not divisible by layout.tp {tp}, among which "
                "layout.sequence splits it; change one of them, or --layout.no-sequence"
            )
        if not layout.vocab_parallel:
            raise ValueError(
                "layout.sequence needs layout.vocab_parallel: a head that is whole on each tensor "
                "rank would compute all tokens on each; set it, or --layout.no-sequence"
            )
    for name in ("zero", "fsdp"):
        if getattr(layout, name) and cfg.loop.ema:
            raise ValueError(f"layout.{name} and loop.ema do not go together; set one of them off")
    if layout.fsdp:
        _check_fsdp(cfg, dp)


def _check_fsdp(cfg: Config, dp: int) -> None:
    layout, hidden = cfg.layout, cfg.model.hidden
    if layout.zero:
        raise ValueError(
            "layout.fsdp and layout.zero do not go together: FSDP cuts the optimiser state, too; "
            "set --layout.no-zero"
        )
    if layout.pp > 1:
        raise ValueError(
            f"layout.fsdp and layout.pp {layout.pp} do not go together: a pipeline would gather "
            "all weights for each micro-batch of each stage; use layout.zero, or layout.pp 1"
        )
    if hidden % dp:
        raise ValueError(
            f"model.hidden {hidden} is not divisible by the data-parallel size {dp}, among which "
            "layout.fsdp cuts weights; use layout.zero, or another number of processes"
        )
