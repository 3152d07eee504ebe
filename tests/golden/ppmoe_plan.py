"""Golden checks of PPMoE's cost model: every term of every row, and the paper's equations."""

from __future__ import annotations

import pytest

from golden.harness import Case
from tenfold.systems.ppmoe.planner.cost import (
    Machine,
    Placement,
    Shape,
    allreduce_over_ffn,
    alltoall_bound,
    alltoall_over_ffn,
    cost,
    parameters,
)


def near(value: float):
    return pytest.approx(value, rel=1e-9, abs=0)


def check_cost_model(case: Case) -> None:
    for row in case.spec["rows"]:
        check_row(case, row, case.spec["cluster"])
    for at in case.spec.get("paper_equations", []):
        got = {
            "eq2": alltoall_over_ffn(at["E"], at["h"], float(at["F"]), float(at["B_inter"])),
            "eq3_bound": alltoall_bound(at["E"]),
            "eq5": allreduce_over_ffn(at["T"], at["h"], float(at["F"]), float(at["B_intra"])),
        }
        wanted = {name: value for name, value in at.items() if name.startswith("eq")}
        compare(case, got, wanted, str(at))


def compare(case: Case, got: dict[str, float], wanted: dict[str, float], what: str) -> None:
    for name, want in wanted.items():
        assert name in got, f"{case.json_path}: {what}: no check for {name!r}"
        assert got[name] == near(want), f"{what}: {name}"


def check_row(case: Case, row: dict, cluster: dict) -> None:
    shape = Shape(**row["model"])
    machine = Machine(
        gemm_flops=float(row["gemm_flops"]),
        nvlink_bytes_per_s=float(cluster["nvlink_bus_bytes_per_s"]),
        nic_bytes_per_s=float(cluster["nic_bytes_per_s"]),
        hbm_bytes_per_s=float(cluster["hbm_bytes_per_s"]),
        gpus_per_node=cluster["gpus_per_node"],
        expert_call_s=float(row["expert_call_s"]),
        a2a_eta=float(row["a2a_eta"]),
    )
    place = Placement(
        kind=row["kind"],
        pp=row["pp"],
        tp=row["tp"],
        dp=row["dp"],
        micro_batch_size=row["micro_batch_size"],
        micro_batches=row["micro_batches"],
        copies=float(row["a2a_dup"]),
    )
    got = cost(shape, place, machine)
    values = {
        "tokens_per_s_per_gpu": got.tokens_per_s_per_gpu,
        "stage_ms": 1e3 * got.stage,
        "dense_gemm_ms": 1e3 * got.dense_gemm,
        "expert_gemm_ms": 1e3 * got.expert_gemm,
        "allreduce_ms": 1e3 * got.allreduce,
        "alltoall_ms": 1e3 * got.alltoall,
        "expert_calls_ms": 1e3 * got.expert_calls,
        "bubble": got.bubble,
        "grad_s": got.grad,
        "opt_s": got.opt,
        "params_per_gpu": got.params_per_gpu,
        "state_gib": got.state_bytes / 2**30,
        "act_gib": got.activation_bytes / 2**30,
        "params_dense": sum(parameters(shape, dense=True)),
        "params_moe": sum(parameters(shape)),
    }
    compare(case, values, row["out"], row["name"])


CHECKS = {"cost_model": check_cost_model}
