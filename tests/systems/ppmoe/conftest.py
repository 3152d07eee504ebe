"""What several tests of the planner start from."""

from __future__ import annotations

import pytest

from tenfold.systems.ppmoe.planner.clusters import GIB, MODELS, Calibration


@pytest.fixture
def rates() -> Calibration:
    """A calibration with round numbers."""
    return Calibration(
        gemm_flops=1e11,
        expert_call_s=1e-4,
        allreduce_bytes_per_s=1e9,
        gradient_bytes_per_s=2e9,
        alltoall_bytes_per_s=5e8,
        optimizer_bytes_per_s=1e10,
        matmul_flops=2e11,
        copy_bytes_per_s=3e10,
        cores=2,
        memory_bytes=16.0 * GIB,
        shape=MODELS["small"],
        micro_batch_size=4,
        spread=dict.fromkeys(
            ("block", "matmul", "experts", "allreduce", "gradient", "alltoall", "optimizer",
             "copy"), 0.1),
    )  # fmt: skip
