"""Speed of a training in bar and log, and what a device could do."""

from __future__ import annotations

import time

import pytest
import torch

from tenfold.core import pace, peak
from tenfold.core.dist import World
from tenfold.core.pace import Pace, Work, short

CPU = torch.device("cpu")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(pace, "peak", lambda device, half, size: 2e12 * size)
    return now


def test_speed_is_of_the_steps_since_the_last_line(clock: list[float]) -> None:
    one = Pace(Work(1000, "tokens", 1e12), False, World(0, 2, CPU))
    assert one.values(1) == {} and one.text == ""  # the first step is not like the others
    clock[0] += 5.0
    found = {"tokens_per_second": 2000.0, "flop_per_second": 2e12, "share_of_peak": 0.5}
    assert one.values(11) == found
    assert one.text == "  2k tokens/s  2 TFLOP/s (50%)"
    clock[0] += 2.5
    assert one.values(16) == found
    clock[0] += 60.0  # a validation
    one.restart(16)
    assert one.values(16) == {} and one.text
    clock[0] += 1.0
    assert one.values(18)["tokens_per_second"] == 2000.0


def test_what_is_not_counted_is_not_said(clock: list[float]) -> None:
    images = Pace(Work(8, "images"), False, World(0, 1, CPU))
    nothing, other = (
        Pace(None, False, World(0, 1, CPU)),
        Pace(Work(8, "a"), False, World(1, 2, CPU)),
    )
    for one in (images, nothing, other):
        one.values(1)
    clock[0] += 2.0
    assert images.values(2) == {"images_per_second": 4.0} and images.text == "  4 images/s"
    assert nothing.values(2) == other.values(2) == {} and nothing.text == ""


def test_an_unknown_gpu_has_no_share(clock: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "peak", lambda *_: 0.0)
    one = Pace(Work(1, "tokens", 1.0), True, World(0, 1, CPU))
    one.values(1)
    clock[0] += 1.0
    assert one.values(2).keys() == {"tokens_per_second", "flop_per_second"}


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("Tesla V100-SXM2-32GB", "V100"),
        ("Tesla V100-PCIE-16GB", "V100 PCIE"),
        ("NVIDIA A100-SXM4-80GB", "A100"),
        ("NVIDIA A100 80GB PCIe", "A100"),
        ("NVIDIA A10", "A10"),
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("NVIDIA H100 PCIe", "H100 PCIE"),
        ("NVIDIA H100 NVL", "H100 NVL"),
        ("NVIDIA H200", "H200"),
        ("NVIDIA GH200 480GB", "GH200"),
        ("NVIDIA GB200", "GB200"),
        ("NVIDIA L40S", "L40S"),
        ("NVIDIA GeForce RTX 4090", "RTX 4090"),
        ("NVIDIA GeForce RTX 4090 D", ""),
        ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", ""),
        ("NVIDIA GeForce RTX 3090 Laptop GPU", ""),
        ("NVIDIA A100X", ""),
        ("Quadro RTX 6000", ""),
    ],
)
def test_gpus_by_name(name: str, kind: str) -> None:
    assert peak.rates_of(name) == (peak.KNOWN[kind] if kind else None)


def test_peak_of_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = torch.device("cuda", 0)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "NVIDIA H200")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    assert peak.peak(gpu, True, 8) == 8 * 989e12 and peak.peak(gpu, False) == 67e12
    monkeypatch.setattr(torch, "get_float32_matmul_precision", lambda: "high")
    assert peak.peak(gpu, False) == 989e12 / 2
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "NVIDIA T1000")
    assert peak.peak(gpu, True) == 0.0


def test_processes_share_the_cores_of_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peak, "measured", lambda half, threads: 1e11 * threads)
    monkeypatch.setattr(peak.host, "cores", lambda: 2)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    assert [peak.peak(CPU, False, n) for n in (1, 2, 4)] == [1e11, 2e11, 2e11]
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")  # of four processes on two hosts
    assert peak.peak(CPU, False, 4) == 4e11


def test_the_rate_of_a_cpu_is_measured_once() -> None:
    began = time.perf_counter()
    found = peak.measured(False, torch.get_num_threads())
    assert 1e8 < found < 1e15
    assert time.perf_counter() - began < 10  # a busy machine; 0.1 s on an idle one
    assert peak.measured(False, torch.get_num_threads()) == found


@pytest.mark.parametrize(
    ("value", "text"), [(0.25, "0.25"), (999.0, "999"), (12345.0, "12.3k"), (3e16, "30P")]
)
def test_short_numbers(value: float, text: str) -> None:
    assert short(value) == text
