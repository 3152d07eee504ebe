"""How PPMoE lies on processes: what fits, who holds what, and that a step does not depend on it."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import forked
import pytest
import torch
from systems.ppmoe.claims import script

from tenfold.core.loop import Loop
from tenfold.core.optim import Optim
from tenfold.systems.ppmoe.config import Config, Data, Layout, Model
from tenfold.systems.ppmoe.fit import check_layout
from tenfold.systems.ppmoe.parallel import Grid, Group
from tenfold.systems.ppmoe.parts import cut_of, own_part, shape_of
from tenfold.systems.ppmoe.pipeline import Part, stage_spans
from tenfold.systems.ppmoe.planner.clusters import Calibration

TINY = Model(layers=4, hidden=8, heads=4, ffn=16, seq=8, vocab=16, experts=8)
MODERN = replace(
    TINY, heads=8, kv_heads=4, head_size=4, activation="swiglu", norm="rms", qk_norm=True,
    bias="qkv", positions="rotary", expert_ffn=12, shared=20, shared_gate=True, tied=False,
)  # fmt: skip


def configuration(model: Model = TINY, batch: int = 4, micro: int = 1, **layout) -> Config:
    loop = Loop(accumulate=micro)
    return Config(model, Layout(**layout), Data(), Optim(), steps=1, batch=batch, loop=loop)


REFUSED = {
    "world": (
        configuration(pp=2, tp=2), 6, r"pp 2 x layout.tp 2 = 4 .* 6 processes.*multiple of 4",
    ),
    "layers": (configuration(replace(TINY, layers=3), pp=4), 4, r"layers 3 .* 4 pipeline stages"),
    "virtual": (
        configuration(pp=4, schedule="interleaved", micro=4), 4,
        r"layers 4 .* 8 pipeline stages \(layout.pp 4 x 2 a process\)",
    ),
    "heads": (configuration(tp=8), 8, r"model.heads 4 is not divisible by layout.tp 8"),
    "ffn": (configuration(replace(TINY, ffn=18), tp=4), 4, r"model.ffn 18 .* layout.tp 4"),
    "experts": (configuration(replace(TINY, experts=6), tp=4), 4, r"experts 6 .* layout.tp 4"),
    "experts over dp": (
        configuration(replace(TINY, experts=6), tp=2, dispatch="alltoall"), 4,
        r"experts 6 .* layout.tp x data-parallel size 4",
    ),
    "batch": (configuration(batch=3), 2, r"batch 3 .* data-parallel size 2"),
    "interleaved": (
        configuration(pp=2, schedule="interleaved", micro=5), 2,
        r"interleaved .* 5 micro-batches in 2 rounds on 2 stages.* multiple of 2",
    ),
    "dualpipev": (
        configuration(pp=2, schedule="dualpipev", micro=2), 2, r"dualpipev .* needs 4 .* 2",
    ),
    "tokens": (
        configuration(replace(TINY, seq=15), tp=2, dispatch="alltoall"), 2,
        r"model.seq 15 .* layout.tp 2",
    ),
    "vocabulary": (
        configuration(replace(TINY, vocab=9), tp=4), 4, r"vocab 9 .* layout.tp 4 .*no-vocab-par",
    ),
    "sequence": (
        configuration(replace(TINY, seq=7), tp=2, sequence=True), 2,
        r"model.seq 7 .* layout.tp 2, .* layout.sequence .* --layout.no-sequence",
    ),
    "sequence and vocabulary": (
        configuration(tp=2, sequence=True, vocab_parallel=False), 2,
        r"layout.sequence needs layout.vocab_parallel",
    ),
    "fsdp and zero": (configuration(fsdp=True, zero=True), 2, r"fsdp and layout.zero .*.no-zero"),
    "fsdp and pp": (configuration(fsdp=True, pp=2), 4, r"fsdp and layout.pp 2 .* use layout.zero"),
    "fsdp": (configuration(fsdp=True, batch=3), 3, r"model.hidden 8 .* size 3.* use layout.zero"),
    "fsdp and ema": (
        replace(configuration(fsdp=True), loop=Loop(ema=0.9)), 1, r"layout.fsdp and loop.ema",
    ),
    "zero and ema": (
        replace(configuration(zero=True), loop=Loop(ema=0.9)), 1, r"layout.zero and loop.ema",
    ),
}  # fmt: skip


@pytest.mark.parametrize("cfg, processes, told", REFUSED.values(), ids=REFUSED)
def test_refused_layouts(cfg: Config, processes: int, told: str) -> None:
    """The message names the value, what it does not fit, and the number that would."""
    with pytest.raises(ValueError, match=told):
        check_layout(cfg, processes)


@pytest.mark.parametrize(
    "cfg, processes",
    [
        (configuration(), 1),
        (configuration(pp=2, tp=2), 8),
        (configuration(pp=4), 4),  # fewer micro-batches than stages: slow, not wrong
        (configuration(replace(TINY, experts=6, kind="dense"), tp=4), 4),
        (configuration(replace(TINY, experts=6), tp=2, dispatch="alltoall"), 2),
        (configuration(replace(TINY, layers=3), schedule="interleaved"), 1),
        (configuration(pp=2, schedule="dualpipev", micro=4), 2),
        (configuration(replace(TINY, vocab=13), tp=4), 4),
        (configuration(sequence=True, vocab_parallel=False), 2),  # no tensor ranks
    ],
)
def test_layouts_that_fit(cfg: Config, processes: int) -> None:
    check_layout(cfg, processes)


# --- who holds what -----------------------------------------------------------------------------


def grids(pp: int, dp: int, tp: int) -> list[Grid]:
    """Every process's place, without processes: enough where nothing is communicated."""
    return [
        Grid(
            pp=Group("pp", pp, p),
            dp=Group("dp", dp, d),
            tp=Group("tp", tp, t),
            experts=Group("dp x tp", dp * tp, d * tp + t),
        )
        for p in range(pp)
        for d in range(dp)
        for t in range(tp)
    ]


@pytest.mark.parametrize("schedule", ["1f1b", "interleaved", "zbv"])
@pytest.mark.parametrize("dispatch", ["slice", "alltoall"])
@pytest.mark.parametrize("sizes", [(1, 1, 2), (1, 1, 4), (2, 1, 1), (2, 2, 2), (1, 2, 4)], ids=str)
def test_weights_do_not_depend_on_the_layout(sizes, dispatch: str, schedule: str) -> None:
    """Each process draws its own part of the one model that a seed means."""
    whole = dict(Part(configuration(), Grid()).keyed_parameters())
    pp, _, tp = sizes
    held: set[str] = set()
    for grid in grids(*sizes):
        cfg = configuration(pp=pp, tp=tp, dispatch=dispatch, schedule=schedule)
        part = Part(cfg, grid)
        for key, parameter in part.keyed_parameters():
            group = part.owners.of(key)
            assert torch.equal(parameter, own_part(key, whole[key], group.size, group.rank)), key
            assert shape_of(key, parameter, group.size, TINY.vocab) == whole[key].shape
            held.add(key)
        reloaded = Part(replace(cfg, seed=1), grid)
        reloaded.load_whole({k: p.detach() for k, p in whole.items()})
        for got, want in zip(reloaded.parameters(), part.parameters(), strict=True):
            assert torch.equal(got, want)
    assert held == set(whole)


@pytest.mark.parametrize("model", [TINY, MODERN], ids=["gpt", "modern"])
@pytest.mark.parametrize("size", [2, 4])
def test_parts_are_disjoint_and_complete(size: int, model: Model) -> None:
    for key, whole in Part(configuration(model), Grid()).keyed_parameters():
        numbered = torch.arange(whole.numel()).view(whole.shape)
        parts = [own_part(key, numbered, size, rank) for rank in range(size)]
        if cut_of(key) is None:
            assert all(torch.equal(part, numbered) for part in parts)
        else:
            assert torch.equal(torch.cat([p.flatten() for p in parts]).sort().values,
                               numbered.flatten())  # fmt: skip


def test_a_tensor_rank_has_whole_heads() -> None:
    key, head = "layers.0.attn.qkv.weight", TINY.hidden // TINY.heads
    whole = torch.arange(3 * TINY.hidden)[:, None].expand(-1, TINY.hidden)
    part = own_part(key, whole, 4, 1)[:, 0]
    q, k, v = part.view(3, head).tolist()
    assert q == [2, 3] and k == [10, 11] and v == [18, 19]


def test_blocks_that_stages_do_not_divide() -> None:
    assert stage_spans(7, 3) == [range(2), range(2, 5), range(5, 7)]
    assert stage_spans(11, 4) == [range(3), range(3, 6), range(6, 9), range(9, 11)]
    for layers in range(1, 20):
        for stages in range(1, layers + 1):
            spans = stage_spans(layers, stages)
            assert [i for span in spans for i in span] == list(range(layers))
            assert max(map(len, spans)) - min(map(len, spans)) <= 1


@pytest.mark.parametrize(
    "schedule, stages",
    [
        ("1f1b", [[0], [1]]),
        ("gpipe", [[0], [1]]),
        ("interleaved", [[0, 2], [1, 3]]),
        ("zero-bubble", [[0, 2], [1, 3]]),
        ("zbv", [[0, 3], [1, 2]]),
        ("dualpipev", [[0, 3], [1, 2]]),
    ],
)
def test_stages(schedule: str, stages: list[list[int]]) -> None:
    parts = [Part(configuration(pp=2, schedule=schedule), grid) for grid in grids(2, 1, 1)]
    assert [part.stage_indices for part in parts] == stages
    for part in parts:
        owners = [part.owner(stage) for stage in range(part.num_stages)]
        assert all(rank == owners[s] for rank, held in enumerate(stages) for s in held)
    # a tied embedding that both ends need is one parameter where one process holds both ends
    tied = [key for key, _ in parts[0].keyed_parameters() if key == "embed.tok.weight"]
    assert len(tied) == 1
    ends = parts[0].parts[-1]
    assert not ends.is_last or ends.embed["tok"] is parts[0].parts[0].embed["tok"]


def test_sums_of_gradients_begin_while_backward_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the last micro-batch's pass alone, of the memory in which gradients were added up."""
    part = Part(configuration(micro=2, bucket_mb=2.0**-10), Grid(dp=Group("dp", 2, 0)))
    events: list[Any] = []

    class Sum:
        def wait(self) -> None:
            events.append("waited for")

    def begun(flat: torch.Tensor, **how: Any) -> Sum:
        events.append(flat.untyped_storage().data_ptr())
        return Sum()

    monkeypatch.setattr(torch.distributed, "all_reduce", begun)
    part.parts[0].embed["pos"].weight.register_post_accumulate_grad_hook(
        lambda p: events.append("positions")
    )
    tokens = torch.arange(36).view(4, 9) % TINY.vocab
    part.train_step([{"tokens": tokens[:2]}, {"tokens": tokens[2:]}])
    assert events[0] == "positions"  # a pass ends there; no sum has begun
    second = events.index("positions", 1)
    sums = len(part.gradients.buckets.buckets)  # type: ignore[union-attr]
    assert sums > 8 and second > sums - 3 and events[-sums:] == ["waited for"] * sums
    lie = {p.grad.untyped_storage().data_ptr() for p in part.parameters() if p.grad is not None}
    assert lie == {event for event in events if isinstance(event, int)}


# --- a step on several processes ----------------------------------------------------------------


@pytest.mark.slow  # a minute beside others; golden cases are on every layout, too
def test_a_step_on_several_processes_equals_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A few rows of the matrix of `claims/ppmoe_layouts.py`, every model of it."""
    claim = script("ppmoe_layouts")

    def launch(processes: int, folder: Path) -> list[dict[str, Any]]:
        done = forked.torchrun(processes, claim.__file__, "--worker", folder)
        assert done.returncode == 0, done.stderr[-4000:] + done.stdout[-2000:]
        return claim.rows_of(folder, processes)

    monkeypatch.setattr(claim, "launch", launch)
    runs = tmp_path / "runs"
    runs.mkdir()
    # of a run that was cut after its first row
    found = dict.fromkeys(("loss", "norm", "relative", "gradients", "after"), 0.0)
    first = claim.jobs_of(2, quick=True)[0] | {"found": found, "seconds": 1.0}
    (runs / "rows-2.jsonl").write_text(json.dumps(first) + "\n")
    argv = [claim.__file__, "--quick", "--out", str(tmp_path), "--runs", str(runs)]
    monkeypatch.setattr(sys, "argv", argv)
    assert claim.main() == 0
    rows = json.loads((tmp_path / "ppmoe-layouts.json").read_text())["rows"]
    assert [{**row, "found": 0, "wrong": 0} for row in rows] == [
        {**job, "found": 0, "wrong": 0} for job in claim.jobs_of(2, quick=True)
    ]
    assert len({row["model"] for row in rows}) == 4
    assert {row["kind"] for row in rows} == {"float64"}
    assert max(max(row["found"].values()) for row in rows) < 1e-12
    # rows of other steps are not taken for these
    (runs / "rows-2.jsonl").write_text(json.dumps(first | {"model": "another"}) + "\n")
    with pytest.raises(SystemExit, match="2"):
        claim.main()


def test_time_is_predicted_and_measured_on_every_layout(
    tmp_path: Path, rates: Calibration, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A small model: the numbers are whatever a busy machine gives."""
    claim = script("ppmoe_time")
    monkeypatch.setattr(claim, "calibrate", lambda *_: rates)
    launch = claim.launch

    def launched(processes: int, folder: Path, quick: bool) -> dict[str, list[float]]:
        if processes == 1:
            return launch(processes, folder, quick)
        done = forked.torchrun(processes, claim.__file__, "--worker", folder, "--quick")
        assert done.returncode == 0, done.stderr[-3000:]
        return json.loads((folder / f"out-{processes}.json").read_text())

    monkeypatch.setattr(claim, "launch", launched)
    assert claim.main(["--quick", "--out", str(tmp_path)]) == 0
    value = json.loads((tmp_path / "ppmoe-time.json").read_text())
    assert [row["layout"] for row in value["rows"]] == list(claim.CASES)[:5]
    for row in value["rows"]:
        assert row["error"] == pytest.approx(row["predicted"] / row["measured"][1] - 1)
        assert 0 <= row["communication"] < row["predicted"]
    page = (tmp_path / "ppmoe-time.md").read_text()
    assert page.count("| own |") == 5 and "2 processes, fastest first: predicted " in page
    four = claim.row(claim.QUICK.models[0], "TP 2, PP 2, 4 micro-batches", 8, rates, [1.0] * 3)
    assert "| shared by 2 |" in claim.page(value | {"rows": [four]})
    assert "where processes share cores" in claim.summary([four])
