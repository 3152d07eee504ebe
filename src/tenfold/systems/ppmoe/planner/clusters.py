"""Models, devices and clusters that a user names, or this machine as it was measured."""

from __future__ import annotations

import math
import re
from dataclasses import MISSING, asdict, dataclass, field, fields, replace
from typing import Any

from tenfold.core.config import from_json
from tenfold.core.errors import nearest
from tenfold.core.peak import KNOWN

from .cost import PLAIN, Extensions, Machine, cost
from .shape import Placement, Shape

GIB = 2**30

MEDIUM = Shape(layers=24, hidden=1024, heads=16, vocab=50257, seq=2048)
LARGE = Shape(layers=32, hidden=4096, heads=32, vocab=50257, seq=2048)
SMALL = Shape(layers=4, hidden=128, heads=4, vocab=256, seq=128)
MODELS = {
    "0.3B": MEDIUM,
    "6.7B-moe": replace(MEDIUM, experts=64),
    "6.7B": LARGE,
    "143B-moe": replace(LARGE, experts=64),
    "small-dense": SMALL,
    "small": replace(SMALL, experts=8),
}
"""GPT-3 Medium and 6.7B with the paper's 64 experts (paper sec. 4; the sequence length and that
every second block has experts are ours), and a model that trains on a laptop (ours)."""


@dataclass(frozen=True)
class Device:
    """Data sheet of a device and of the node it is sold in."""

    flops: float
    """Dense FLOP/s of the tensor cores in fp16 or bf16 (data sheet)."""
    nvlink: float
    """Bytes/s of NVLink, both directions (data sheet)."""
    hbm: float
    """Bytes/s of memory (data sheet)."""
    nic: float
    """Bytes/s of a node to the others, one direction."""
    source: str
    """Source of the four."""
    amp: str = "bf16"
    """Type of 16 bit that it computes in; both are counted alike."""


V100_NODE = "V100 SXM2 data sheet; NIC: paper, 100 Gb/s a node"
V100 = Device(KNOWN["V100"].half, 300e9, 900e9, 12.5e9, V100_NODE, "fp16")
A100_NODE = "A100 SXM data sheet; NIC: DGX A100 data sheet, 8 x 200 Gb/s a node"
H100_NODE = "H100 SXM data sheet; NIC: DGX H100 data sheet, 8 x 400 Gb/s"
H200_NODE = "H200 SXM data sheet; NIC: DGX H200 data sheet, 8 x 400 Gb/s"
GB200_NODE = "GB200 NVL72 data sheet, a GPU; NIC: 400 Gb/s a GPU, of 8"
DEVICES = {
    "V100-16G": V100,
    "V100-32G": V100,
    "A100-40G": Device(KNOWN["A100"].half, 600e9, 1555e9, 200e9, A100_NODE),
    "A100-80G": Device(KNOWN["A100"].half, 600e9, 2039e9, 200e9, A100_NODE),
    "H100-80G": Device(KNOWN["H100"].half, 900e9, 3350e9, 400e9, H100_NODE),
    "H200-141G": Device(KNOWN["H200"].half, 900e9, 4800e9, 400e9, H200_NODE),
    "GB200-186G": Device(KNOWN["GB200"].half, 1800e9, 8000e9, 400e9, GB200_NODE),
}

# Achieved over data sheet, on a V100 where the worked example has 20 and 45 TFLOP/s, 130 and 700
# GB/s; taken over for the others. (ours: assumptions, not measurements)
GEMM_NARROW, GEMM_WIDE = 20 / 125, 45 / 125  # at h = 1024 and 4096
NVLINK_SHARE, HBM_SHARE = 130 / 300, 700 / 900


@dataclass(frozen=True)
class Cluster:
    """Nodes of equal devices."""

    name: str
    nodes: int
    machine: Machine
    memory_bytes: float
    """Bytes of a device."""
    source: str
    """Source of the rates."""
    measured: bool = False
    """The rates were measured on this machine."""
    amp: str = "bf16"
    """Type of 16 bit that its devices compute in."""

    @property
    def world(self) -> int:
        """Devices."""
        return self.nodes * self.machine.gpus_per_node

    @property
    def rates(self) -> Machine:
        """The machine as layouts see it: in a cluster of one node nothing passes a NIC. (ours)"""
        one = self.nodes == 1 and not self.machine.own_link
        link = self.machine.nvlink_bytes_per_s
        return replace(self.machine, nic_bytes_per_s=link) if one else self.machine


@dataclass(frozen=True)
class Calibration:
    """Rates of this machine, one thread a process, by a short measurement."""

    gemm_flops: float
    """FLOP/s of a dense block, forward and backward, counted as the cost model counts them."""
    expert_call_s: float
    """Seconds of calling one expert forward, beyond its products: routing and sorting too."""
    allreduce_bytes_per_s: float
    """Bus bandwidth of an all-reduce of a micro-batch's activations, two processes."""
    gradient_bytes_per_s: float
    """Bus bandwidth of an all-reduce of gradients, two processes."""
    alltoall_bytes_per_s: float
    """Bytes a process sends to others per second in an all-to-all, two processes."""
    optimizer_bytes_per_s: float
    """Memory traffic of AdamW, counted as the cost model counts it."""
    matmul_flops: float
    """FLOP/s of a bare matrix product, for comparison; not used."""
    copy_bytes_per_s: float
    """Bytes read and written per second by a copy, for comparison; not used."""
    cores: int
    """Processes that run at full rate, on the cores that may be used."""
    memory_bytes: float
    """Memory of the machine, as far as it may be used."""
    shape: Shape
    """The model at whose sizes all was measured."""
    micro_batch_size: int
    """Sequences of a micro-batch at which all was measured."""
    element_bytes: int = 4
    """Bytes of a number (fp32)."""
    spread: dict[str, float] = field(default_factory=dict)
    """Interquartile range over median of each measurement."""
    environment: dict[str, Any] = field(default_factory=dict)
    """Machine, versions, commit, command, date."""

    def machine(self, processes: int) -> Machine:
        """The machine that `processes` local processes see; more than the cores share them."""
        share = min(1.0, self.cores / processes)
        return Machine(
            gemm_flops=self.gemm_flops * share,
            nvlink_bytes_per_s=self.allreduce_bytes_per_s * share,
            nic_bytes_per_s=self.gradient_bytes_per_s * share,
            hbm_bytes_per_s=self.optimizer_bytes_per_s * share,
            gpus_per_node=processes,
            expert_call_s=self.expert_call_s / share,
            a2a_eta=self.alltoall_bytes_per_s / self.gradient_bytes_per_s,
            element_bytes=self.element_bytes,
            own_link=True,
        )

    def to_json(self) -> dict[str, Any]:
        """Content of `calibration.json`."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any], where: str) -> Calibration:
        """Read what `to_json` wrote; `where` names the file in errors."""
        known, way_out = (
            {f.name for f in fields(cls)},
            "write one with `tenfold plan ppmoe --calibrate`",
        )
        if not isinstance(value, dict) or known != set(value):
            raise ValueError(
                f"{where} is not a calibration (wanted {', '.join(sorted(known))}); {way_out}"
            )
        shape = value["shape"] if isinstance(value["shape"], dict) else {}
        if lacking := [
            f.name for f in fields(Shape) if f.default is MISSING and f.name not in shape
        ]:
            raise ValueError(f"{where}: its shape lacks {', '.join(lacking)}; {way_out}")
        found = from_json(cls, value, where)
        for name in (f.name for f in fields(cls) if f.type in ("float", "int")):
            number = getattr(found, name)
            if not (0 < number < math.inf or (number == 0 and name == "expert_call_s")):
                raise ValueError(f"{where}: {name} must be positive, got {number}; {way_out}")
        return found


def predict_step_seconds(
    shape: Shape,
    place: Placement,
    calibration: Calibration,
    extensions: Extensions = PLAIN,
) -> float:
    """Seconds of one optimiser step on the calibrated machine, a process a device of the layout."""
    return cost(shape, place, calibration.machine(place.world), extensions).step


def parse_model(text: str) -> Shape:
    """A named model, or `layers=24,hidden=1024,heads=16,vocab=50257,seq=2048,experts=64`."""
    if "=" not in text:
        if text not in MODELS:
            nearest(text, list(MODELS), "model")
        return MODELS[text]
    known = [f.name for f in fields(Shape)]
    given: dict[str, int] = {}
    for part in text.split(","):
        name, _, value = part.partition("=")
        name = name.strip().replace("-", "_")
        if name not in known:
            nearest(name, known, "field of --model")
        if not re.fullmatch(r"\d+", value.strip()):
            raise ValueError(f"--model: {name} must be a whole number, got {value.strip()!r}")
        given[name] = int(value)
    missing = [name for name in known[:5] if name not in given]
    if missing:
        raise ValueError(f"--model {text} lacks {', '.join(missing)}; add {missing[0]}=NUMBER")
    shape = Shape(**given)
    try:
        shape.require_whole_heads(is_rotary=bool(shape.swiglu))
    except ValueError as error:
        raise ValueError(f"--model: {error}") from error
    return shape


UNITS = {"TF": 1e12, "GB/s": 1e9, "GB": float(GIB), "Gb/s": 1e9 / 8}
NUMBERS = {"memory": "GB", "bf16": "TF", "fp16": "TF", "link": "GB/s", "hbm": "GB/s", "nic": "GB/s"}
"""What describes a device, and in which unit."""


def parse_gpu(text: str) -> tuple[Device, float]:
    """A device by its data sheet, and bytes of its memory: `memory=24GB,bf16=165TF,link=64GB/s`.

    link is what a device sends and gets over NVLink or PCIe inside a node, both directions; hbm its
    memory's bandwidth; nic that of a node to the others (12.5 GB/s if not given; Gb/s is taken,
    too). A device that has no bf16 is given by fp16.

    Raises ValueError for a name or a unit that is none of these, and for what is missing.
    """
    given: dict[str, float] = {}
    for part in text.split(","):
        name, _, value = (piece.strip() for piece in part.partition("="))
        if name not in NUMBERS:
            nearest(name, list(NUMBERS), "number of --gpu")
        found = re.fullmatch(r"([0-9.]+)\s*([A-Za-z/]*)", value)
        unit = (found[2] if found else "") or NUMBERS[name]
        is_rate = NUMBERS[name] == "GB/s" and unit == "Gb/s"
        if not found or (unit != NUMBERS[name] and not is_rate):
            raise ValueError(
                f"--gpu: {name} is {value!r}; give a number in {NUMBERS[name]}, as in "
                f"{name}=24{NUMBERS[name]}"
            )
        number = float(found[1]) if found[1].count(".") < 2 else 0.0
        if not 0 < number < 1e9:
            raise ValueError(f"--gpu: {name} must be above 0, got {value!r}")
        given[name] = number * UNITS[unit]
    amp = "fp16" if "fp16" in given and "bf16" not in given else "bf16"
    missing = [name for name in ("memory", amp, "link", "hbm") if name not in given]
    if missing:
        raise ValueError(f"--gpu {text} lacks {', '.join(missing)}; add {missing[0]}=NUMBER")
    nic = given.get("nic", V100.nic)
    device = Device(given[amp], given["link"], given["hbm"], nic, "numbers of --gpu", amp)
    return device, given["memory"]


def parse_cluster(
    text: str, shape: Shape, calibration: Calibration | None = None, gpu: str = ""
) -> Cluster:
    """`4x8xV100-32G` (nodes, devices a node, kind), or `local`, `local:4` with a calibration.

    With `gpu`, the numbers of a device, `4x8` alone.
    """
    local, _, count = text.partition(":")
    if local == "local":
        return _local(count, calibration)
    if calibration is not None:
        raise ValueError(
            f"the calibration is of this machine, not of {text}; use --cluster local, or leave the "
            "calibration away"
        )
    if gpu:
        size = re.fullmatch(r"(\d+)x(\d+)", text)
        if not size or not (int(size[1]) and int(size[2])):
            raise ValueError(f"--cluster {text!r}: with --gpu give NODESxGPUS, as in 4x8")
        device, memory = parse_gpu(gpu)
        return _cluster(f"{text}, {gpu}", int(size[1]), int(size[2]), device, memory, shape)
    parts = re.fullmatch(r"(\d+)x(\d+)x([A-Za-z0-9]+-\d+G)", text)
    if not parts:
        raise ValueError(
            f"--cluster {text!r} is not NODESxGPUSxKIND-MEMORY such as 4x8xV100-32G, nor local; "
            f"kinds: {', '.join(DEVICES)}; any other by its numbers: --cluster 4x8 --gpu "
            "memory=24GB,bf16=165TF,link=64GB/s,hbm=1008GB/s"
        )
    nodes, gpus, kind = int(parts[1]), int(parts[2]), parts[3]
    if nodes < 1 or gpus < 1:
        raise ValueError(f"--cluster {text} has no device; give at least 1x1x{kind}")
    if kind not in DEVICES:
        nearest(kind, list(DEVICES), "device")
    memory = float(int(kind.split("-")[1][:-1]) * GIB)
    return _cluster(text, nodes, gpus, DEVICES[kind], memory, shape)


def _cluster(
    name: str, nodes: int, gpus: int, device: Device, memory: float, shape: Shape
) -> Cluster:
    """Nodes of a device, which achieves shares of its data sheet."""
    width = min(1.0, max(0.0, math.log(shape.hidden / 1024, 4)))  # between the two known widths
    achieved = GEMM_NARROW + (GEMM_WIDE - GEMM_NARROW) * width
    machine = Machine(
        gemm_flops=device.flops * achieved,
        nvlink_bytes_per_s=device.nvlink * NVLINK_SHARE,
        nic_bytes_per_s=device.nic,
        hbm_bytes_per_s=device.hbm * HBM_SHARE,
        gpus_per_node=gpus,
    )
    source = (
        f"{device.source}. Achieved shares are assumptions (ours): GEMM {achieved:.0%} of "
        f"{device.flops / 1e12:.0f} TFLOP/s at h = {shape.hidden}, NVLink {NVLINK_SHARE:.0%}, "
        f"memory {HBM_SHARE:.0%}"
    )
    return Cluster(name, nodes, machine, memory, source, amp=device.amp)


def _local(count: str, calibration: Calibration | None) -> Cluster:
    if calibration is None:
        raise ValueError(
            "--cluster local needs rates of this machine: add --calibrate, or --calibration FILE"
        )
    if count and not (count.isdigit() and int(count)):
        raise ValueError(f"--cluster local:N wants a number of processes, got {count!r}")
    processes = int(count) if count else calibration.cores
    return Cluster(
        name=f"local, {processes} processes",
        nodes=1,
        machine=calibration.machine(processes),
        memory_bytes=calibration.memory_bytes / processes,
        source="measured on this machine",
        measured=True,
    )
