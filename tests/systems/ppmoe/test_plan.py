"""The planner of PPMoE: cost model, search, the paper's table, calibration and the verb."""

from __future__ import annotations

import json
import math
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.multiprocessing as mp
from systems.ppmoe.claims import script
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from tenfold import cli
from tenfold.core import host
from tenfold.systems.ppmoe.config import Model
from tenfold.systems.ppmoe.model import Gpt
from tenfold.systems.ppmoe.planner import paper, report
from tenfold.systems.ppmoe.planner.calibrate import _rates, calibrate, timed
from tenfold.systems.ppmoe.planner.clusters import (
    DEVICES,
    GIB,
    MODELS,
    Calibration,
    parse_cluster,
    parse_model,
    predict_step_seconds,
)
from tenfold.systems.ppmoe.planner.cost import Extensions, Machine, cost, training_flop
from tenfold.systems.ppmoe.planner.field import FIELD, compare, label
from tenfold.systems.ppmoe.planner.kept import kept
from tenfold.systems.ppmoe.planner.search import (
    METHODS,
    Plan,
    curve,
    divisors,
    launch_command,
    placements,
    plan,
    search,
    sensitivities,
    why_it_loses,
)
from tenfold.systems.ppmoe.planner.shape import Placement, Shape, parameters, shape_of

MOE = MODELS["6.7B-moe"]
V100 = parse_cluster("4x8xV100-32G", MOE)


@pytest.fixture(scope="module")
def made() -> Plan:
    return plan(MOE, V100, 128)


# --- the cost model: what the goldens do not reach ---------------------------------------------


def test_terms_add_up_to_the_step() -> None:
    for kind, pp, tp, dp in (("ppmoe", 4, 8, 1), ("dpmoe", 2, 2, 8), ("dense", 4, 2, 4)):
        place = Placement(kind, pp, tp, dp, 2, 8)
        c = cost(MOE, place, Machine(), Extensions(imbalance=1.5, overlap=0.3))
        assert sum(c.terms().values()) == pytest.approx(c.step, rel=1e-12)


def test_extensions_do_what_they_say_and_only_that() -> None:
    place = Placement("dpmoe", 2, 2, 16, 2, 8)
    plain = cost(MOE, place, Machine())
    skewed = cost(MOE, place, Machine(), Extensions(imbalance=2.0))
    assert skewed.expert_gemm == 2 * plain.expert_gemm and skewed.alltoall == 2 * plain.alltoall
    assert skewed.dense_gemm == plain.dense_gemm and skewed.expert_calls == plain.expert_calls
    hidden = cost(MOE, place, Machine(), Extensions(overlap=1.0))
    assert hidden.allreduce == hidden.alltoall == hidden.p2p == hidden.grad == 0
    assert hidden.stage == pytest.approx(plain.stage - plain.allreduce - plain.alltoall)
    inside = cost(MOE, place, Machine(), Extensions(inside_node=True))
    # 32 ranks in 4 nodes: of a rank's n/2 tokens, 7/32 stay in the node.
    wire = 2 * 2 * MOE.seq * MOE.hidden / Machine().nvlink_bytes_per_s
    sent = 4 * 12 / 2 * wire / 2 * 7 / 32
    assert inside.alltoall - plain.alltoall == pytest.approx(sent)
    gathered = 2 * 12 / 2 * wire / 2
    assert inside.allreduce - plain.allreduce == pytest.approx(gathered)


def test_virtual_stages_divide_the_bubble_and_cost_hand_overs_and_memory() -> None:
    plain = cost(MOE, Placement("ppmoe", 4, 8, 1, 2, 16), Machine())
    split = cost(MOE, Placement("ppmoe", 4, 8, 1, 2, 16, virtual=2), Machine())
    assert (plain.bubble, split.bubble) == (3 / 19, 1.5 / 17.5)
    assert split.p2p_slots == 2 * 16 + 6 and plain.p2p_slots == 16 + 6
    assert split.activation_bytes == pytest.approx(plain.activation_bytes * (1 + 3 / 8))


def test_memory_options() -> None:
    place = Placement("dpmoe", 1, 1, 16, 2, 8)
    plain, zero = (cost(MOE, place, Machine(), Extensions(zero=z)) for z in (False, True))
    experts = 12 * (64 * (8 * 1024**2 + 5 * 1024) + 64 * 1024) / 16
    outside = plain.params_per_gpu - experts
    # Experts have no replica at D = 16, so nothing of theirs can be cut.
    assert zero.state_bytes == pytest.approx((4 + 12 / 16) * outside + 16 * experts)
    flash = cost(MOE, place, Machine(), Extensions(flash=True))
    assert flash.activation_bytes == pytest.approx(2 * 2048 * 1024 * 24 * 34)


SIZES = Model(layers=4, hidden=32, heads=4, ffn=48, seq=16, vocab=40, experts=4)
MODERN = replace(
    SIZES, activation="swiglu", norm="rms", bias="none", positions="rotary", tied=False, kv_heads=2,
    head_size=4, expert_ffn=24, shared=20, top_k=2, moe_at=(0, 3),
)  # fmt: skip


@pytest.mark.parametrize("model", [SIZES, replace(SIZES, kind="dense"), MODERN], ids=str)
def test_flop_of_a_step_are_those_of_its_products(model: Model) -> None:
    """Counted by torch while the model runs; of routers, which the count leaves out, as well."""
    part = Gpt(model)
    for p in part.parameters():
        p.data.normal_(0, 0.02, generator=torch.Generator().manual_seed(0))
    tokens = torch.arange(3 * model.seq).view(3, -1) % model.vocab
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        part(tokens).sum().backward()
    routers = 3 * 2 * tokens.numel() * model.hidden * model.experts * len(model.moe_layers)
    counted = training_flop(shape_of(model), tokens.numel())
    assert counter.get_total_flops() == counted + routers
    # a step of any layout costs a device its share
    place = Placement("ppmoe" if model.moe_layers else "dense", 2, 2, 1, 3, 1)
    spent = cost(shape_of(model), place, Machine(gemm_flops=1.0))
    assert spent.dense_gemm + spent.expert_gemm == pytest.approx(counted / 4)


def test_experts_with_several_replicas_are_reduced_too() -> None:
    whole = cost(MOE, Placement("dpmoe", 1, 1, 128, 1, 1), Machine())
    groups = cost(MOE, Placement("dpmoe", 1, 1, 128, 1, 1, expert_dp=64), Machine())
    assert groups.params_per_gpu > whole.params_per_gpu and groups.grad > whole.grad


def test_wrong_sizes_are_named() -> None:
    with pytest.raises(ValueError, match="layers must be at least 1, got 0"):
        Shape(0, 8, 2, 10, 4)
    with pytest.raises(ValueError, match="top_k 3 is more than experts 2"):
        Shape(2, 8, 2, 10, 4, experts=2, top_k=3)
    with pytest.raises(ValueError, match="gemm_flops must be positive, got -1"):
        Machine(gemm_flops=-1.0)
    with pytest.raises(ValueError, match="expert_call_s must not be negative"):
        Machine(expert_call_s=-1.0)
    with pytest.raises(ValueError, match="dp must be at least 1, got 0"):
        Placement("dense", 1, 1, 0, 1, 1)
    with pytest.raises(ValueError, match="imbalance must be at least 1"):
        Extensions(imbalance=0.5)
    with pytest.raises(ValueError, match="overlap must be in"):
        Extensions(overlap=2.0)


# --- models and clusters -----------------------------------------------------------------------


def test_models_and_clusters_by_name() -> None:
    assert parse_model("layers=24,hidden=1024,heads=16,vocab=50257,seq=2048,experts=64") == MOE
    assert parse_model("small") == Shape(4, 128, 4, 256, 128, experts=8)
    assert parse_model("layers=2, hidden=8, heads=2, vocab=9, seq=4, top-k=1").experts == 0
    wide = parse_model("layers=2,hidden=9,heads=2,vocab=9,seq=4,head_size=8")
    assert wide.attention_width == 16  # as the trainer, which takes such sizes
    assert (V100.world, V100.memory_bytes, V100.measured) == (32, 32.0 * GIB, False)
    # The worked example's rates are this cluster's.
    assert V100.machine == Machine(gemm_flops=20e12)
    assert parse_cluster("16x8xV100-32G", MODELS["143B-moe"]).machine == Machine(gemm_flops=45e12)
    for kind in DEVICES:
        assert parse_cluster(f"1x8x{kind}", MOE).rates.nic_bytes_per_s > 0
    one = parse_cluster("1x8xV100-32G", MOE)
    assert one.rates.nic_bytes_per_s == one.machine.nvlink_bytes_per_s


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("6.7B-mo", "unknown model '6.7B-mo'; did you mean '6.7B-moe'"),
        ("layer=3", "did you mean 'layers'"),
        ("layers=x", "layers must be a whole number, got 'x'"),
        ("layers=2,hidden=8", "lacks heads, vocab, seq; add heads=NUMBER"),
        ("layers=2,hidden=9,heads=2,vocab=9,seq=4", "hidden 9 is not divisible by heads 2"),
        ("layers=0,hidden=8,heads=2,vocab=9,seq=4", "layers must be at least 1, got 0"),
        ("layers=2,hidden=8,heads=4,vocab=9,seq=4,kv_heads=3", "not divisible by kv_heads 3"),
        ("layers=2,hidden=6,heads=2,vocab=9,seq=4,swiglu=1", "an even head size, got 3"),
    ],
)
def test_wrong_models(model: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_model(model)


@pytest.mark.parametrize(
    ("cluster", "message"),
    [
        ("4x8xV100-64G", "did you mean 'V100-16G'|did you mean 'V100-32G'"),
        ("V100", "not NODESxGPUSxKIND-MEMORY such as 4x8xV100-32G"),
        ("0x8xV100-32G", "has no device"),
        ("local", "add --calibrate, or --calibration FILE"),
    ],
)
def test_wrong_clusters(cluster: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_cluster(cluster, MOE)


def test_local_clusters(rates: Calibration) -> None:
    two, four = (parse_cluster(c, rates.shape, rates) for c in ("local", "local:4"))
    assert (two.world, four.world, two.measured) == (2, 4, True)
    assert four.machine.gemm_flops == rates.gemm_flops / 2  # four processes share two cores
    assert four.machine.expert_call_s == 2 * rates.expert_call_s
    assert two.rates == two.machine
    with pytest.raises(ValueError, match="local:N wants a number of processes, got 'x'"):
        parse_cluster("local:x", rates.shape, rates)
    with pytest.raises(ValueError, match="the calibration is of this machine, not of 4x8xV100"):
        parse_cluster("4x8xV100-32G", rates.shape, rates)


# --- the search --------------------------------------------------------------------------------


def test_the_best_is_the_best_of_all_that_fit(made: Plan) -> None:
    assert made.best.rate == max(f.rate for f in made.competing)
    assert all(f.cost.memory <= made.memory_limit for f in made.fitting)
    assert all(f.cost.memory > made.memory_limit for f in made.misfits)
    assert sum(made.discarded().values()) == len(made.misfits)
    assert {f.method for f in made.competing} == set(METHODS) - {"dense"}
    # The paper's layout of PPMoE is in it, at the worked example's rate.
    ours = made.best_of("ppmoe")
    assert ours is not None
    assert ours.place == Placement("ppmoe", 4, 8, 1, 8, 16)
    assert ours.rate == pytest.approx(4041.2107831442986, rel=1e-9)


def test_every_layout_divides(made: Plan) -> None:
    assert made.fitting
    for found in [*made.fitting, *made.misfits]:
        p = found.place
        assert p.world == 32 and p.dp * p.micro_batch_size * p.micro_batches == 128
        assert MOE.layers % p.pp == 0 and 8 % p.tp == 0 and math.gcd(64, 16) % p.tp == 0
        assert (p.kind == "dpmoe") == found.method.startswith("dpmoe")
        if found.method == "dpmoe-pipeline":
            assert p.pp > 1
        if found.method == "dpmoe-copies":
            assert p.copies == p.tp > 1
        if p.kind == "dpmoe":
            spread = p.tp * p.shared_by
            assert p.dp % p.shared_by == 0 and 64 % p.shared_by == 0
            assert 64 % spread == 0 or spread % 64 == 0
    assert len({(f.method, f.place) for f in made.fitting}) == len(made.fitting)


def test_virtual_stages_are_used_where_they_divide() -> None:
    every = list(placements(MOE, V100, 128, "ppmoe", virtual=2))
    split = [p for p in every if p.virtual == 2]
    assert split and all(24 % (2 * p.pp) == 0 and p.micro_batches % p.pp == 0 for p in split)
    assert plan(MOE, V100, 128, virtual=2).best.rate >= plan(MOE, V100, 128).best.rate


def test_losers_say_why(made: Plan) -> None:
    losers = made.runners_up(8)
    assert len(losers) == 8 and [f.rate for f in losers] == sorted(f.rate for f in losers)[::-1]
    for loser in losers:
        why = why_it_loses(made.best, loser, made.memory_limit)
        term = why.partition(":")[0]
        mine, theirs = made.best.cost.terms(), loser.cost.terms()
        assert all(theirs[term] - mine[term] >= theirs[t] - mine[t] for t in mine)
    assert why_it_loses(made.best, made.misfits[0], made.memory_limit).startswith("memory: ")


def test_the_frontier_has_no_better_layout(made: Plan) -> None:
    front = made.frontier()
    assert front[-1] is made.best
    for one in front:
        assert not any(
            f.rate > one.rate and f.cost.memory <= one.cost.memory for f in made.competing
        )


def test_sensitivities_search_again(made: Plan) -> None:
    rows = sensitivities(made)
    assert len(rows) == 2 * 6 + 2
    halved = replace(V100, machine=replace(V100.machine, gemm_flops=10e12))
    again = plan(MOE, halved, 128).best
    assert rows[0].best == again and rows[0].rate_of_winner <= again.rate
    assert any(r.changed for r in rows)
    for row in rows:
        assert row.changed or row.best.rate == row.rate_of_winner


def test_curve_keeps_the_batch_a_device_and_passes_ten_thousand(made: Plan) -> None:
    points = curve(made)
    assert [p.gpus for p in points] == [8 * 2**i for i in range(12)]
    assert all(p.batch == 4 * p.gpus and set(p.best) == set(METHODS) for p in points)
    assert points[2].best["ppmoe"] == made.best_of("ppmoe")
    large = curve(plan(MODELS["143B-moe"], parse_cluster("16x8xV100-32G", MOE), 256))
    assert large[0].best["ppmoe"] is None  # does not fit on one node


def test_a_dense_model_has_one_method() -> None:
    made = plan(MODELS["0.3B"], V100, 128)
    assert made.best.method == "dense" and {f.method for f in made.fitting} == {"dense"}
    assert "--model.kind dense" in launch_command(made, made.best)


def test_impossible_plans_say_the_way_out() -> None:
    with pytest.raises(ValueError, match="try a --batch that is a multiple of 32"):
        plan(replace(MOE, layers=7, heads=1), V100, 31)
    with pytest.raises(ValueError, match="nothing fits into 28.8 GiB .* more nodes, --ext"):
        plan(MODELS["143B-moe"], V100, 64)
    with pytest.raises(ValueError, match="--batch must be at least 1"):
        plan(MOE, V100, 0)
    with pytest.raises(ValueError, match="--virtual must be at least 1"):
        plan(MOE, V100, 128, virtual=0)
    with pytest.raises(ValueError, match="--memory-share must be in"):
        plan(MOE, V100, 128, memory_share=1.5)


def test_launch_commands(made: Plan) -> None:
    ours = made.best_of("ppmoe")
    assert ours is not None
    words = launch_command(made, ours)
    assert words.startswith("torchrun --nnodes 4 --nproc-per-node 8 ")
    for part in (
        "-m tenfold train ppmoe paper --data.tokenizer bpe --data.bpe-vocab 50257 --loop.amp fp16 ",
        "--layout.pp 4 --layout.tp 8 ",
        "--batch 8 ",
        "--layout.dispatch slice ",
        "--loop.accumulate 16 ",
        "--model.experts 64 ",
    ):
        assert part in words
    copies, apart = made.best_of("dpmoe-copies"), made.best_of("dpmoe")
    assert copies is not None and apart is not None
    assert "--layout.dispatch alltoall-copies" in launch_command(made, copies)
    rows = apart.place.dp * apart.place.micro_batch_size
    assert f"--layout.dispatch alltoall --loop.accumulate {apart.place.micro_batches} " in (
        launch_command(made, apart)
    )
    assert f"--batch {rows} " in launch_command(made, apart)  # over all replicas


def test_layouts_that_the_trainer_refuses_are_not_planned() -> None:
    node, shape = parse_cluster("1x8xV100-32G", MOE), Shape(4, 64, 8, 300, 100, experts=8)
    for odd in (replace(shape, ffn=100), replace(shape, shared=12)):
        assert {f.place.tp for f in search(odd, node, 8).fitting} == {1, 2, 4}
    sizes: dict[str, set[int]] = {}
    for one in search(replace(shape, seq=6), node, 8).fitting:
        sizes.setdefault(one.method, set()).add(one.place.tp)
    assert sizes["ppmoe"] == {1, 2, 4, 8} and sizes["dpmoe"] == {1, 2}


def test_divisors() -> None:
    assert divisors(1) == [1] and divisors(12) == [1, 2, 3, 4, 6, 12] and divisors(16)[2] == 4


# --- the paper's table -------------------------------------------------------------------------

SPEC = {
    "b small": {"2": {"small PPMoE": 0.522}, "4": {"small PPMoE": 0.686},
                "8": {"small PPMoE": 0.814}, "16": {"small PPMoE": 0.897}},
    "b large": {"1": {"large PPMoE": 0.744, "large PPMoE/DPMoE": 1.47},
                "2": {"large PPMoE": 0.853, "large PPMoE/DPMoE": 1.30},
                "4": {"large PPMoE": 0.921, "large PPMoE/DPMoE": 1.19},
                "8": {"large PPMoE": 0.959, "large PPMoE/DPMoE": 1.13}},
    "g small": {"1.2e+13": {"small PPMoE": 0.870, "small DPMoE": 0.728},
                "3.5e+13": {"small PPMoE": 0.741, "small DPMoE": 0.532}},
    "g large": {"3e+13": {"large PPMoE": 0.941, "large PPMoE/DPMoE": 1.09},
                "7e+13": {"large PPMoE": 0.894, "large PPMoE/DPMoE": 1.32}},
    "eta": {"1": {"small DPMoE": 0.773, "large PPMoE/DPMoE": 1.01},
            "0.7": {"small DPMoE": 0.707, "large PPMoE/DPMoE": 1.09},
            "0.35": {"small DPMoE": 0.551, "large PPMoE/DPMoE": 1.35}},
    "alpha": {"5e-05": {"small PPMoE": 0.956, "large PPMoE": 0.979},
              "0.00015": {"small PPMoE": 0.886, "large PPMoE": 0.952},
              "0.0004": {"small PPMoE": 0.748, "large PPMoE": 0.889}},
    "M large": {"16": {"large PPMoE": 0.915, "large PPMoE/DPMoE": 0.73}},
}  # fmt: skip
"""The sensitivities as the design states them, to its printed digits."""


def test_the_papers_table() -> None:
    ours = {r.setting: r.ours for r in paper.rows()}
    want = {
        "0.3B dense, DP 32": 6952,
        "0.3B dense, TP 8 PP 4": 4965,
        "6.7B PPMoE, TP 8 PP 4": 4041,
        "6.7B DPMoE, TP 8 DP 4": 3779,
        "6.7B dense, TP 8 PP 16": 637,
        "143B PPMoE, TP 8 PP 16": 587,
        "143B DPMoE, TP 8 DP 16": 492,
        "143B DPMoE, TP 8 DP 16, u = 8": 118,
    }
    assert {name: round(ours[name]) for name in want} == want
    ratios = paper.settings().ratios()
    assert [round(v, 3) for v in ratios.values()][:3] == [0.814, 0.635, 0.921]
    assert round(ratios["large PPMoE/DPMoE"], 2) == 1.19
    assert round(ratios["large PPMoE/DPMoE, u = 8"], 2) == 4.95
    first = paper.rows()[0]
    assert first.deviation == pytest.approx(100 * (first.ours / 5120 - 1))
    share = next(r for r in paper.rows() if r.unit == "%")
    assert share.deviation == pytest.approx(share.ours - 82.6)


@pytest.mark.parametrize("what", SPEC)
def test_sensitivities_are_the_designs(what: str) -> None:
    got = paper.swept()[what]
    for value, ratios in SPEC[what].items():
        for name, number in ratios.items():
            places = 2 if name == "large PPMoE/DPMoE" else 3
            assert round(got[value][name], places) == number, (what, value, name)


# --- calibration -------------------------------------------------------------------------------


def test_prediction_by_hand(rates: Calibration) -> None:
    shape, place = rates.shape, Placement("ppmoe", 1, 2, 2, 2, 3)
    # Four processes on two cores: every rate is halved.
    n, h = 2 * shape.seq, shape.hidden
    flop = 4 * (8 * n * h * h + 4 * n * shape.seq * h) + 2 * 16 * n * h * h + 2 * n * h * 256
    stage = 3 * (flop + 2 * 16 * n * h * h) / 2 / 5e10
    stage += 16 * 2 / 2 * 4 * n * h / 5e8  # all-reduces of fp32 between two
    stage += 3 * 2e-4 * 4 * 2  # four experts a process, two layers
    params = 842_496 + 2 * (7 * (8 * h * h + 5 * h) + 8 * h)
    # Each process has a link of its own: half the gradients each, at half the rate.
    step = 3 * stage + 4 * params / 2 / 1e9 + params / 2 * 28 / 5e9
    assert predict_step_seconds(shape, place, rates) == pytest.approx(step, rel=1e-12)


def test_local_all_to_all_is_charged(rates: Calibration) -> None:
    """Between local processes everything passes the link, as between nodes."""
    c = cost(rates.shape, Placement("dpmoe", 1, 1, 2, 4, 1), rates.machine(2))
    sent = 4 * 4 * 128 * 128 / 2  # half of the tokens, fp32
    assert c.alltoall == pytest.approx(4 * 2 * sent / 5e8)


def test_calibration_survives_json(rates: Calibration, tmp_path: Path) -> None:
    value = json.loads(json.dumps(rates.to_json()))
    assert Calibration.from_json(value, "x.json") == rates
    with pytest.raises(ValueError, match="x.json is not a calibration"):
        Calibration.from_json({**value, "more": 1}, "x.json")
    for changed, said in (
        ({"shape": {"layers": 2}}, "x.json: its shape lacks hidden, heads, vocab, seq; write one"),
        ({"shape": 3}, "x.json: its shape lacks layers"),
        ({"shape": {**value["shape"], "depth": 1}}, r"x.json.shape has fields .*: depth"),
        ({"shape": {**value["shape"], "layers": "2"}}, r"x.json.shape.layers must be a int"),
        ({"cores": "two"}, "x.json.cores must be a int, got 'two'"),
        ({"gradient_bytes_per_s": 0.0}, "gradient_bytes_per_s must be positive, got 0.0; write"),
        ({"cores": 0}, "x.json: cores must be positive, got 0"),
        ({"gemm_flops": math.nan}, "gemm_flops must be positive, got nan"),
    ):
        with pytest.raises(ValueError, match=said):
            Calibration.from_json({**value, **changed}, "x.json")
    free = Calibration.from_json({**value, "expert_call_s": 0.0}, "x.json")
    assert free.machine(4).expert_call_s == 0


def test_timing_is_a_median_with_a_spread() -> None:
    calls = []
    middle, spread = timed(lambda: calls.append(1), 0.0, least=5)
    assert len(calls) == 2 + 5 and middle > 0 and spread >= 0


@pytest.mark.parametrize(
    ("shape", "b", "seconds", "message"),
    [
        (MODELS["143B-moe"], 4, 1.0, "too much for a short measurement"),
        (MODELS["small-dense"], 4, 1.0, "measures experts too"),
        (MODELS["small"], 0, 1.0, "positive time and micro-batch, got 1.0 s and 0"),
    ],
)
def test_wrong_calibrations(shape: Shape, b: int, seconds: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        calibrate(shape, b, seconds)


def test_a_calibration_is_of_what_may_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a host with many cores a container may have few."""
    monkeypatch.setattr(host, "cores", lambda: 3)
    monkeypatch.setattr(host, "memory_bytes", lambda: 5 * GIB)
    names = "matmul block experts optimizer copy allreduce gradient alltoall".split()
    found = _rates(MODELS["small"], 4, {name: (1.0, 0.0) for name in names})
    assert (found.cores, found.memory_bytes) == (3, 5 * GIB)
    assert found.environment["cores"] == 3


# --- the verb ----------------------------------------------------------------------------------


def run(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    capsys.readouterr()
    code = 0
    try:
        cli.main(["plan", *map(str, words)])
    except SystemExit as end:
        code = int(end.code or 0)
    out, err = capsys.readouterr()
    return code, out, err


def test_plan_prints_and_writes(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    code, out, err = run(
        capsys, "ppmoe", "--model", "6.7B-moe", "--cluster", "4x8xV100-32G", "--out", tmp_path
    )
    assert (code, err) == (0, "")
    for words in ("best: ", "bubble", "why the others lose", "sensitivity of the best", "16384",
                  "NOT measured", "of it communication", "torchrun --nnodes 4"):  # fmt: skip
        assert words in out
    value = json.loads((tmp_path / "plan.json").read_text())
    assert value["best"]["tokens_per_s_per_gpu"] > 0 and len(value["curve"]) == 12
    assert run(capsys, "ppmoe", "--out", tmp_path)[0] == 0  # over what it wrote
    for name in ("pareto.png", "curve.png", "curve-total.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    "words, file",
    [([], "plan.json"), ([], "curve.png"), (["--paper"], "ppmoe-plan.md"),
     (["--field"], "ppmoe-field.json"), (["--calibrate"], "calibration.json")],
)  # fmt: skip
def test_a_plan_overwrites_nothing_of_others(
    words: list[str], file: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / file).write_text('{"mine": 1}')
    code, out, err = run(capsys, "ppmoe", *words, "--out", tmp_path)
    assert (code, out) == (2, "") and f"{file} was not written by tenfold" in err
    assert [p.read_text() for p in tmp_path.iterdir()] == ['{"mine": 1}']


def test_constants_and_extensions_reach_the_model(capsys: pytest.CaptureFixture[str]) -> None:
    usual = run(capsys, "ppmoe")[1]
    faster = run(capsys, "ppmoe", "--constants.gemm-flops", "4e13")[1]
    assert "given on the command line: gemm_flops" in faster
    best = [float(text.split(" tokens/s/GPU")[0].split()[-1]) for text in (usual, faster)]
    assert best[1] > best[0]


def test_plan_with_a_calibration(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, rates: Calibration
) -> None:
    file = tmp_path / "calibration.json"
    file.write_text(json.dumps(rates.to_json()))
    code, out, err = run(capsys, "ppmoe", "--calibration", file, "--cluster", "local:4")
    assert (code, err) == (0, "") and "NOT measured" not in out and "local, 4 processes" in out
    assert "torchrun --nnodes 1 --nproc-per-node 4 -m tenfold" in out
    wide = "layers=2,hidden=64,heads=4,vocab=9,seq=8,experts=4"
    assert (
        "measured at hidden 128, not 64"
        in run(capsys, "ppmoe", "--calibration", file, "--model", wide)[1]
    )


def test_calibrate_measures_and_writes(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = mp.start_processes

    def forked(*args: Any, **words: Any) -> Any:  # spawned ones import for ten seconds
        return start(*args, **{**words, "start_method": "fork"})

    monkeypatch.setattr(mp, "start_processes", forked)
    model = "layers=2,hidden=32,heads=2,vocab=64,seq=16,experts=4"
    code, out, err = run(
        capsys, "ppmoe", "--calibrate", "--seconds", "0.02", "--model", model, "--out", tmp_path
    )
    assert (code, err) == (0, "") and "spread (IQR/median)" in out
    assert (tmp_path / "pareto.png").exists()
    value = json.loads((tmp_path / "calibration.json").read_text())
    measured = Calibration.from_json(value, "calibration.json")
    for field in fields(measured):
        rate = getattr(measured, field.name)
        if isinstance(rate, float):
            assert math.isfinite(rate) and rate >= 0, field.name
    assert measured.gemm_flops > 0 and measured.alltoall_bytes_per_s > 0
    assert measured.shape == Shape(2, 32, 2, 64, 16, experts=4)
    assert len(measured.spread) == 8 and measured.environment["commit"]
    place = Placement("ppmoe", 1, 2, 1, 2, 2)
    assert predict_step_seconds(measured.shape, place, measured) > 0


def test_the_papers_table_warns_and_is_written(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    code, out, _ = run(capsys, "ppmoe", "--paper", "--out", tmp_path)
    assert code == 0 and "not a reproduction" in out and "0.814" in out
    value = json.loads((tmp_path / "ppmoe-plan.json").read_text())
    assert value["environment"]["commit"] and value["rows"][0]["tag"] == "N"
    assert run(capsys, "ppmoe", "--paper", "--out", tmp_path)[0] == 0
    page = (tmp_path / "ppmoe-plan.md").read_text()
    assert paper.WARNING in page and "| commit |" in page


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["ppmeo"], "did you mean 'ppmoe'"),
        (["ppmoe", "--modle", "small"], "did you mean '--model'"),
        (["ppmoe", "--extensions.imbalance", "0"], "imbalance"),
        (["ppmoe", "--constants.a2a-eta", "-1"], "a2a-eta must be at least 0"),
        (["ppmoe", "--calibration", "nowhere.json"], "nowhere.json does not exist"),
        (["ppmoe", "--calibrate", "--calibration", "a.json"], "give either"),
        (["ppmoe", "--cluster", "local"], "--calibrate"),
    ],
)
def test_a_users_mistake_is_one_line(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = run(capsys, *words)
    assert code == 2 and message in err and out == ""


def test_planning_modules_need_no_torch_of_their_own() -> None:
    folder = Path(report.__file__).parent
    for name in ("cost", "shape", "kept", "clusters", "search", "paper", "report", "field"):
        assert "torch" not in {
            line.split()[1].split(".")[0]
            for line in (folder / f"{name}.py").read_text().splitlines()
            if line.startswith(("import ", "from "))
        }


def test_a_device_by_its_numbers() -> None:
    sheet = "memory=32GB, bf16=125TF,link=300GB/s,hbm=900GB/s,nic=100Gb/s"
    made, known = parse_cluster("4x8", MOE, None, sheet), parse_cluster("4x8xV100-32G", MOE)
    assert made.machine == known.machine and made.memory_bytes == known.memory_bytes
    old = parse_cluster("4x8", MOE, None, sheet.replace("bf16", "fp16"))  # such as the V100
    assert old.machine == made.machine and (made.amp, old.amp, known.amp) == (
        "bf16",
        "fp16",
        "fp16",
    )
    for text, said in (
        ("memory=32GB", "lacks bf16, link, hbm; add bf16=NUMBER"),
        ("memory=32TF", "memory is '32TF'; give a number in GB"),
        ("memory=0GB", "memory must be above 0"),
        ("memory=1.2.3GB", "memory must be above 0"),
        ("ram=3GB", "ram"),
    ):
        with pytest.raises(ValueError, match=said):
            parse_cluster("1x1", MOE, None, text)
    with pytest.raises(ValueError, match="with --gpu give NODESxGPUS"):
        parse_cluster("4x8xV100-32G", MOE, None, sheet)


def test_sizes_of_published_models() -> None:
    """Parameters as their authors count them, and of those in use for a token."""
    qwen = "layers=48,hidden=2048,heads=32,vocab=151936,seq=4096,experts=128,top_k=8,moe_every=1"
    shape = parse_model(f"{qwen},expert_ffn=768,kv_heads=4,head_size=128,swiglu=1")
    outside, inside = parameters(shape)
    assert (outside + inside) / 1e9 == pytest.approx(30.5, abs=0.1)
    assert (outside + inside * 8 / 128) / 1e9 == pytest.approx(3.3, abs=0.1)
    mixtral = "layers=32,hidden=4096,heads=32,vocab=32000,seq=4096,experts=8,top_k=2,moe_every=1"
    outside, inside = parameters(parse_model(f"{mixtral},ffn=14336,kv_heads=8,swiglu=1"))
    assert (outside + inside) / 1e9 == pytest.approx(46.7, abs=0.1)
    assert (outside + inside / 4) / 1e9 == pytest.approx(12.9, abs=0.1)


# --- memory as it is kept ----------------------------------------------------------------------

KEPT = Extensions(as_kept=True)
FEW = replace(MOE, vocab=256)  # the head keeps less than the first stage's micro-batches


def test_memory_is_within_a_few_percent_of_what_was_measured(tmp_path: Path) -> None:
    """A few rows of claims/ppmoe-memory.md again: the count must follow the modules."""
    claim = script("ppmoe_memory")
    assert claim.main(["--quick", "--out", str(tmp_path)]) == 0
    value = json.loads((tmp_path / "ppmoe-memory.json").read_text())
    assert max(abs(row["error"]) for row in value["kept"]) < 0.02
    assert max(abs(row["error"]) for row in value["peaks"]) < 0.1


def test_uneven_load_costs_time_and_memory_of_experts_alone() -> None:
    place = Placement("ppmoe", 4, 8, 1, 2, 16)
    even, full = (cost(FEW, place, Machine(), replace(KEPT, imbalance=i)) for i in (1.0, 2.0))
    assert full.expert_gemm == 2 * even.expert_gemm and full.dense_gemm == even.dense_gemm
    assert full.state_bytes == even.state_bytes
    # 4 micro-batches in flight of 3 mixture layers: an eighth of the tokens' rows in, both sides
    # of GELU, and out twice, in 2 bytes
    rows = 4 * 3 * 2 * 2048 / 8 * (3 * 1024 + 2 * 4096) * 2
    assert full.activation_bytes - even.activation_bytes == pytest.approx(rows)
    # all-to-all: what comes back is as much as was sent, whoever computed it
    apart = Placement("dpmoe", 1, 1, 8, 2, 1)
    rows = 12 * 2 * 2048 * (1024 + 2 * 4096) * 2
    even, full = (cost(FEW, apart, Machine(), replace(KEPT, imbalance=i)) for i in (1.0, 2.0))
    assert full.activation_bytes - even.activation_bytes == pytest.approx(rows)


def test_recomputation_costs_a_forward_pass_and_keeps_inputs() -> None:
    place = Placement("ppmoe", 4, 8, 1, 2, 16)
    plain, again = (cost(FEW, place, Machine(), replace(KEPT, recompute=r)) for r in (False, True))
    assert again.expert_gemm == pytest.approx(4 / 3 * plain.expert_gemm)
    # of 96 sums in 24 blocks half are made again; not those of the vocabulary's two ends
    assert again.allreduce == pytest.approx((1.5 * 96 + 2) / (96 + 2) * plain.allreduce)
    assert again.activation_bytes < plain.activation_bytes / 2
    with pytest.raises(ValueError, match=r"recompute needs extensions\.as_kept"):
        Extensions(recompute=True)
    made = plan(MOE, V100, 128, replace(KEPT, recompute=True))
    assert launch_command(made, made.best).endswith(" --model.recompute")


def test_sequence_parallelism_cuts_what_lies_between_products() -> None:
    place = Placement("ppmoe", 4, 8, 1, 2, 16)
    plain, split = (cost(FEW, place, Machine(), replace(KEPT, sequence=s)) for s in (False, True))
    assert split.p2p == pytest.approx(plain.p2p / 8) and split.state_bytes == plain.state_bytes
    # inputs of 24 attentions and 12 dense networks are gathered once more, by half a sum each
    assert split.allreduce == pytest.approx((96 + 18 + 2) / (96 + 2) * plain.allreduce)
    # of two norms, the router and the inputs of a block's products an eighth is kept
    tokens, blocks = 4 * 2 * 2048, 3
    mixture, dense = 2 * (4 * 1024 + 8) + (2 + 4) * 1024, 2 * (4 * 1024 + 8) + (2 + 2) * 1024
    saved = tokens * blocks * (mixture + dense) * 7 / 8
    assert plain.activation_bytes - split.activation_bytes == pytest.approx(saved)
    with pytest.raises(ValueError, match=r"sequence needs extensions\.as_kept"):
        Extensions(sequence=True)
    made = plan(MOE, V100, 128, replace(KEPT, sequence=True))
    assert launch_command(made, made.best).count("--layout.sequence") == 1


def test_fsdp_cuts_weights_and_gradients_too() -> None:
    place = Placement("ppmoe", 1, 4, 8, 1, 2)
    zero, fsdp = (
        cost(MOE, place, Machine(), replace(KEPT, zero=not f, fsdp=f)) for f in (False, True)
    )
    own = kept(MOE, place, 2)
    held = own.outside + own.inside
    # 16 bytes a parameter cut by 8, against 8 whole and 8 cut; what is gathered beside it
    assert fsdp.state_bytes == pytest.approx(2 * held + 4 * own.gathered)
    assert zero.state_bytes == pytest.approx(9 * held) and own.gathered < held / 3
    # three exchanges of 4 bytes for each of 2 micro-batches, against two of 2 bytes a step
    assert fsdp.grad == pytest.approx(6 * zero.grad)
    with pytest.raises(ValueError, match=r"extensions\.fsdp .* extensions\.zero"):
        replace(KEPT, zero=True, fsdp=True)
    made = plan(MOE, V100, 128, replace(KEPT, fsdp=True))
    assert made.best.place.pp == 1 and " --layout.fsdp " in launch_command(made, made.best)


def test_the_head_is_cut_among_tensor_ranks() -> None:
    one, eight = (kept(MOE, Placement("ppmoe", 1, t, 1, 1, 1), 4) for t in (1, 8))
    table = 50257 * 1024
    assert one.logits == pytest.approx(8 * eight.logits)
    assert one.loss - eight.loss == pytest.approx(7 / 8 * 4 * 50257 * 2048)
    assert one.outside - eight.outside > 7 / 8 * table


def test_state_is_fp32() -> None:
    place = Placement("ppmoe", 1, 4, 8, 1, 1)
    own = kept(MOE, place, 2)
    outside, inside = parameters(MOE)
    beside = (2048 + 2) * 1024  # positions and the last norm; the table of tokens is cut, too
    assert own.outside == pytest.approx((outside - beside) / 4 + beside)
    assert own.inside == inside / 4
    held = own.outside + own.inside
    assert own.state_bytes(place, zero=False) == pytest.approx(16 * held)
    # the eight replicas share the moments of all: none has experts of its own
    assert own.state_bytes(place, zero=True) == pytest.approx(9 * held)


def test_uneven_stages_wait_for_the_fullest() -> None:
    shape = replace(MOE, layers=25)
    even, uneven = (
        cost(shape, Placement("ppmoe", 4, 8, 1, 2, 16), Machine(), Extensions(uneven=u))
        for u in (False, True)
    )
    assert uneven.dense_gemm == pytest.approx(even.dense_gemm * 28 / 25)
    with pytest.raises(ValueError, match="no layout"):
        plan(replace(shape, heads=1), parse_cluster("4x1xV100-32G", MOE), 3)
    assert plan(shape, V100, 128, Extensions(uneven=True)).best_of("ppmoe") is not None


def test_sequences_that_devices_share() -> None:
    alone, shared = (cost(MOE, Placement("dense", 2, 2, 2, 1, 4, cp=c), Machine()) for c in (1, 2))
    assert Placement("dense", 2, 2, 2, 1, 4, cp=2).world == 16
    assert shared.dense_gemm == pytest.approx(alone.dense_gemm / 2)
    assert shared.allreduce > alone.allreduce / 2  # keys and values pass by


# --- the field ---------------------------------------------------------------------------------


@pytest.mark.parametrize("published", FIELD, ids=lambda p: p.name)
def test_published_layouts_are_those_of_their_sources(published) -> None:
    words = published.name.split(", ")[1].split()
    assert published.place.world == int(words[0])
    text = " ".join(published.sources)
    for name, size in (("TP", published.place.tp), ("PP", published.place.pp),
                       ("EP", published.expert_parallel)):  # fmt: skip
        assert f"{name} {size}" in text
    sizes = {"Qwen3-30B-A3B": 30.5, "Qwen3-235B-A22B": 235, "DeepSeek-V3": 671, "Kimi-K2": 1026}
    billions = sum(parameters(published.shape)) / 1e9
    assert billions == pytest.approx(sizes[published.name.split(",")[0]], rel=5e-3)


def test_compared_with_the_field() -> None:
    found = compare(FIELD[0])
    assert found.theirs.place == FIELD[0].place and found.theirs.cost.memory <= found.limit
    assert found.ours is not None and found.ours.cost.memory <= found.limit
    assert found.any_ is not None and found.any_.rate >= found.ours.rate
    assert label(found.theirs, True).startswith("all-to-all, EP 4, TP 4 PP 2 DP 1")


def test_the_field_is_printed_and_written(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.setattr("tenfold.systems.ppmoe.planner.field.FIELD", FIELD[:1])
    monkeypatch.setattr("tenfold.systems.ppmoe.planner.field.LOADS", (2.0,))
    code, out, _ = run(capsys, "ppmoe", "--field", "--out", tmp_path)
    assert code == 0 and "not published" in out
    value = json.loads((tmp_path / "ppmoe-field.json").read_text())
    assert len(value["settings"]) == 1 and value["environment"]["commit"]
    assert "| load, max/mean |" in (tmp_path / "ppmoe-field.md").read_text()
    assert run(capsys, "ppmoe", "--field", "--paper")[0] == 2
