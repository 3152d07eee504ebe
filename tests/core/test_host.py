"""Cores and memory that a process may use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tenfold.core import host


@pytest.fixture
def groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A host of 64 cores without limits, on a system without affinity."""
    monkeypatch.setattr(host, "OWN_GROUPS", tmp_path / "own")
    monkeypatch.setattr(host, "GROUPS", tmp_path / "groups")
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(os, "sysconf", lambda name: 4096 if "SIZE" in name else 2**20)
    return tmp_path


def put(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def test_without_limits_all_may_be_used(groups: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (host.cores(), host.memory_bytes()) == (64, 2**32)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {1, 2, 5}, raising=False)
    assert host.cores() == 3
    put(groups / "own", "0::/job a/step\n")
    put(groups / "groups/cpu.max", "max 100000\n")
    put(groups / "groups/memory.max", "max\n")
    assert (host.cores(), host.memory_bytes()) == (3, 2**32)


def test_a_group_limits_what_is_below_it(groups: Path) -> None:
    put(groups / "own", "0::/job a/step\n")
    put(groups / "groups/job a/cpu.max", "250000 100000\n")
    put(groups / "groups/job a/step/cpu.max", "max 100000\n")
    put(groups / "groups/job a/step/memory.max", "1048576\n")
    assert (host.cores(), host.memory_bytes()) == (2, 2**20)
    put(groups / "groups/job a/cpu.max", "50000 100000\n")  # half of one
    assert host.cores() == 1


def test_groups_of_the_first_version(groups: Path) -> None:
    put(groups / "own", "9:name=systemd:/\n5:cpu,cpuacct:/docker/1\n4:memory:/docker/1\n0::/\n")
    put(groups / "groups/cpu/cpu.cfs_quota_us", "400000\n")  # its own group is mounted as root
    put(groups / "groups/cpu/cpu.cfs_period_us", "100000\n")
    put(groups / "groups/memory/memory.limit_in_bytes", "2097152\n")
    assert (host.cores(), host.memory_bytes()) == (4, 2**21)
    put(groups / "groups/cpu/cpu.cfs_quota_us", "-1\n")
    assert host.cores() == 64
