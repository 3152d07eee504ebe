"""What processes promise each other: nobody waits for the dead, and errors are told once."""

from __future__ import annotations

import json
import os
import pickle
import re
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tenfold.core import dist, errors, flight, watchdog
from tenfold.core.seed import seed_of

WORKER = Path(__file__).parent / "watch_worker.py"
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}
LIMIT = 6.0
"""Seconds; so much longer than a process ever waits for a core, with all jobs and a test beside."""
LATE = 25.0
"""Seconds until nobody may be there any more: four on an idle machine, and torch takes over 30."""

JOBS: dict[str, list[int | str]] = {
    # name: number of processes, what goes wrong, options; those that take long come first
    "one-works-long": [2, "patient", "--limit", LIMIT],
    "sleeps": [2, "sleep", "--limit", LIMIT],
    "sleeps-on-nccl": [2, "sleep", "--limit", LIMIT, "--nccl"],
    "stopped": [3, "stop", "--rank", 2, "--limit", LIMIT],
    "first-stopped": [2, "stop", "--rank", 0, "--limit", LIMIT],
    "stopped-beside-work": [2, "stop-beside-work", "--limit", LIMIT],
    "terminated-while-blocked": [2, "stop", "--term"],
    "killed": [3, "kill", "--rank", 2],
    "first-killed": [2, "kill", "--rank", 0],
    "last-of-a-chain-killed": [3, "kill-one-of-a-chain"],
    "mistake-of-one": [2, "mistake"],
    "bug-of-one": [2, "bug"],
    "mistake-of-all": [2, "same-mistake"],
    "mistake-of-all-before-they-meet": [2, "same-mistake-early"],
    "other-config": [3, "other-config", "--rank", 2],
    "nan-in-one": [2, "train-nan"],
    "nothing-wrong": [2, "train"],
}


@dataclass(frozen=True)
class Job:
    """How a job ended."""

    codes: list[int]
    seconds: list[float]
    says: str
    run: Path

    def __post_init__(self) -> None:
        assert -signal.SIGTERM not in self.codes, "ended from outside"


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Job]:
    """All jobs, which ran beside each other."""
    folder = tmp_path_factory.mktemp("jobs")
    words = {name: [n, *map(str, rest)] for name, (n, *rest) in JOBS.items()}
    (folder / "jobs.json").write_text(json.dumps(words))
    subprocess.run(
        [sys.executable, str(WORKER), "--jobs", str(folder)],
        env={**ENVIRONMENT, "XDG_CACHE_HOME": str(folder / "cache")},
        timeout=240,
        check=True,
    )

    def job(name: str) -> Job:
        result = json.loads((folder / name / "result.json").read_text())
        lines = (folder / name / "output").read_text().splitlines()
        own = [line for line in lines if not line.startswith("[W")]  # torch's warnings
        return Job(says="\n".join(own), run=folder / name / "run", **result)

    return {name: job(name) for name in JOBS}


def test_a_process_that_does_not_come_is_named(ended: dict[str, Job]) -> None:
    job = ended["sleeps"]
    assert job.codes == [75, 75]
    head, other, way_out = job.says.splitlines()
    assert head.startswith("tenfold: rank 0 has waited ")
    assert "in all_reduce of (4,) over tp (number " in head and head.endswith(", step 3)")
    assert other.startswith("  rank 1: computing for ") and "all_reduce of (4,) over tp" in other
    assert "--layout.timeout" in way_out
    assert max(job.seconds) < LIMIT + LATE


@pytest.mark.parametrize(("name", "stopped"), [("stopped", 2), ("first-stopped", 0)])
def test_a_stopped_process_is_named_and_leaves(
    ended: dict[str, Job], name: str, stopped: int
) -> None:
    job = ended[name]
    assert set(job.codes) == {75}
    assert job.says.count("has waited") == 1 and "all_reduce of (4,) over tp" in job.says
    assert f"\n  rank {stopped}: not heard for " in job.says and "stopped" in job.says
    assert max(job.seconds) < LIMIT + LATE


def test_a_stopped_process_is_named_by_one_that_waits_for_nobody(ended: dict[str, Job]) -> None:
    job = ended["stopped-beside-work"]
    assert set(job.codes) == {75}
    assert "rank 0 no longer hears rank 1" in job.says and "rank 1: not heard for " in job.says
    assert max(job.seconds) < LIMIT + LATE


def test_sigterm_ends_a_wait_for_a_stopped_process(ended: dict[str, Job]) -> None:
    job = ended["terminated-while-blocked"]
    assert job.codes[0] == 143
    assert "was asked to stop by SIGTERM" in job.says and "rank 1: not heard" in job.says


@pytest.mark.parametrize(
    ("name", "killed"), [("killed", 2), ("first-killed", 0), ("last-of-a-chain-killed", 2)]
)
def test_a_killed_process_is_named_and_all_leave(
    ended: dict[str, Job], name: str, killed: int
) -> None:
    """Also where it was not the process that the others waited for."""
    job = ended[name]
    assert [code for rank, code in enumerate(job.codes) if rank != killed] == [errors.LOST] * (
        len(job.codes) - 1
    )
    assert job.codes[killed] == -signal.SIGKILL
    assert len(job.says.splitlines()) == 1
    assert f"lost contact with rank {killed} (not heard for " in job.says
    if "chain" not in name:
        assert "in all_reduce of (4,) over tp, step 3" in job.says
    assert max(job.seconds) - job.seconds[killed] < LATE


def test_an_error_in_one_process_ends_all(ended: dict[str, Job]) -> None:
    job = ended["mistake-of-one"]
    assert job.codes == [2, 2]
    assert job.says == "tenfold: rank 1: file 7 is damaged; delete it"
    assert max(job.seconds) < LATE


def test_a_bug_in_one_process_shows_its_traceback(ended: dict[str, Job]) -> None:
    job = ended["bug-of-one"]
    assert job.codes == [70, 70]
    assert job.says.startswith("tenfold: rank 1: KeyError: 'no such expert'\nTraceback")
    assert job.says.count("Traceback") == 1


@pytest.mark.parametrize("name", ["mistake-of-all", "mistake-of-all-before-they-meet"])
def test_what_all_processes_say_is_said_once(ended: dict[str, Job], name: str) -> None:
    job = ended[name]
    assert job.codes == [2, 2]
    assert job.says == "tenfold: file 7 is damaged; delete it"


def test_another_configuration_is_named(ended: dict[str, Job]) -> None:
    job = ended["other-config"]
    assert job.codes == [2, 2, 2]
    first, field, way_out = job.says.splitlines()
    assert first == "tenfold: rank 2 differs from rank 0 in"
    assert field == "  config.model.hidden: 16 -> 32"
    assert "same command" in way_out


def test_who_works_long_is_waited_for(ended: dict[str, Job]) -> None:
    job = ended["one-works-long"]
    assert job.codes == [0, 0] and job.says == ""


def test_nan_in_one_process_is_named_by_the_first(ended: dict[str, Job]) -> None:
    job = ended["nan-in-one"]
    assert job.codes == [3, 3]
    assert job.says.count("tenfold: ") == 1
    assert "step 5, process 1: the weight body.4.weight is not finite" in job.says
    assert "process 0" not in job.says


def weights(run: Path) -> dict[str, torch.Tensor]:
    return {
        f"{file.parent.name}/{key}": value
        for file in sorted(run.glob("checkpoints/*/final*.safetensors"))
        for key, value in load_file(file).items()
    }


@pytest.mark.slow  # a real torchrun, twice: each process imports torch; its imitation is in ppmoe's
def test_torchrun_restarts_a_killed_job_which_resumes_exactly(
    ended: dict[str, Job], tmp_path: Path
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
        + ["--max-restarts", "1", "--master-port", str(20000 + seed_of(str(tmp_path)) % 10000)]
        + [str(WORKER), str(tmp_path), "train-killed"],
        capture_output=True, text=True, env=ENVIRONMENT, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "tenfold: rank 0 lost contact with rank 1" in done.stderr
    assert ended["nothing-wrong"].codes == [0, 0]
    whole, resumed = weights(ended["nothing-wrong"].run), weights(tmp_path)
    assert whole and whole.keys() == resumed.keys()
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)


def test_a_lone_process_has_no_watch() -> None:
    with dist.started("cpu") as world:
        assert world.size == 1 and not watchdog.meet()
        assert world.gather({"a": 1}) == [{"a": 1}]
        world.require_same({"a": 1})
        world.barrier(patient=True)


# --- NCCL, by its name alone: there is no GPU here ----------------------------------------------


def test_on_nccl_a_hang_is_seen_where_a_number_is_read(ended: dict[str, Job]) -> None:
    """What torch recorded of every process is written, also of the one that does not come."""
    job = ended["sleeps-on-nccl"]
    assert job.codes == [75, 75]
    head, other, _, recorded = job.says.splitlines()
    assert "in reading of the losses (queued last: all_reduce of (4,) over tp) over all (" in head
    assert other.startswith("  rank 1: computing for ")
    path = re.fullmatch(
        r"  last collectives of each process: (.+/tenfold-\d+/rank_)\* .*", recorded
    )
    assert path
    counts = []
    for rank in range(2):
        entries = pickle.loads(Path(f"{path[1]}{rank}").read_bytes())["entries"]
        counts.append([e["profiling_name"] for e in entries].count("gloo:all_reduce"))
    assert counts == [4, 3]
    assert "last collectives" not in ended["sleeps"].says


@pytest.fixture
def nccl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_backend", lambda: "nccl")
    monkeypatch.setenv("MASTER_PORT", "29500")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for name in (*flight.OLD, *flight.OLD.values(), "TORCH_NCCL_DUMP_ON_TIMEOUT"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv(name, "")  # so that it is restored
        monkeypatch.delenv(name)
    monkeypatch.setattr(watchdog, "_now", watchdog._Now())


def test_on_nccl_a_read_is_what_waits(nccl: None) -> None:
    with watchdog.watched("all_reduce of (4,)", "tp"):
        pass  # queued
    for _ in range(2):
        with watchdog.reading("the losses"):
            assert watchdog._now.group == "all"
            queued = "(queued last: all_reduce of (4,) over tp)"
            assert watchdog._now.what == f"reading of the losses {queued}"
        assert watchdog._now.what == "" and "all_reduce" in watchdog._now.last


def test_on_gloo_a_read_waits_for_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watchdog, "_now", watchdog._Now())
    with watchdog.reading("the losses"):
        assert watchdog._now.what == ""


def test_torch_records_where_we_write(nccl: None, tmp_path: Path) -> None:
    flight.switch_on()
    prefix = str(tmp_path / "torch/tenfold-29500/rank_")
    assert os.environ["TORCH_FR_DUMP_TEMP_FILE"] == flight.prefix() == prefix
    assert int(os.environ["TORCH_FR_BUFFER_SIZE"]) > 0
    assert os.environ["TORCH_NCCL_DUMP_ON_TIMEOUT"] == "1"


def test_the_recorders_settings_of_a_user_stay(nccl: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_NCCL_TRACE_BUFFER_SIZE", "100")  # torch warns if both are set
    monkeypatch.setenv("TORCH_NCCL_DEBUG_INFO_TEMP_FILE", "/mine/rank")
    monkeypatch.setenv("TORCH_NCCL_DUMP_ON_TIMEOUT", "0")
    flight.switch_on()
    assert "TORCH_FR_BUFFER_SIZE" not in os.environ and flight.prefix() == "/mine/rank"
    assert os.environ["TORCH_NCCL_DUMP_ON_TIMEOUT"] == "0"
    assert "/mine/rank*" in flight.told() and "`torchfrtrace /mine`" in flight.told()


def test_the_record_of_nccl_is_written(nccl: None, monkeypatch: pytest.MonkeyPatch) -> None:
    flight.switch_on()
    c10d = torch._C._distributed_c10d
    monkeypatch.setattr(c10d, "_dump_nccl_trace", lambda: b"recorded", raising=False)
    assert flight.dump(3) and Path(f"{flight.prefix()}3").read_bytes() == b"recorded"


def test_a_recorder_that_gives_nothing_stops_nobody(
    nccl: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    flight.switch_on()
    monkeypatch.setattr(flight, "PATIENCE", 0.1)
    released = threading.Event()

    def fails() -> bytes:
        raise RuntimeError("no")

    def hangs() -> bytes:
        released.wait()
        return fails()

    for recorded in (None, fails, hangs):
        c10d = torch._C._distributed_c10d
        monkeypatch.setattr(c10d, "_dump_nccl_trace", recorded, raising=False)
        assert not flight.dump(0)
    released.set()
