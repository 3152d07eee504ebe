"""The table of SPGSN at its published length: which errors stand beside which."""

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parents[1] / "claims"


@pytest.fixture
def paper(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(FOLDER)
    monkeypatch.delitem(sys.modules, "long_run", raising=False)
    spec = importlib.util.spec_from_file_location("spgsn_paper", FOLDER / "spgsn_paper.py")
    assert spec is not None and spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


def run(paper: Any, error: float) -> dict[str, Any]:
    """A finished run whose errors are all the same; another for washwindow, and half in mean."""

    def errors(value: float) -> dict[str, float]:
        rows = {"walking": value, "running": value, "washwindow (never trained)": 2 * value}
        rows["average"] = value / 2
        return {f"mpjpe/{a}/{h}": v for a, v in rows.items() for h in paper.HORIZONS}

    best = {"step": 1500, "metric": "mpjpe", "value": error}
    return {
        "result": {
            "metrics": errors(error), "baselines": {"repeat last pose": errors(9 * error)},
            "labels": {h: h for h in paper.HORIZONS}, "parameters": 1234,
            "data": {"name": "cmu_mocap", "kind": "real", "note": "all test windows"},
            "stages": [{"name": "train", "steps": 2000, "seconds": 5400.0, "best": best}],
        },
        "environment": {"cpu": "A CPU", "threads": 1, "torch": "2.13.0", "date": "today",
                        "commit": "abc"},
        "training loss": [(1, 99.0), (2, 98.0)], "held-out error": [(500, 2.0), (1000, 1.0)],
    }  # fmt: skip


def test_the_three_runs_are_of_the_same_data_and_length(paper: Any) -> None:
    ours, published, gcn = paper.arms().values()
    assert ours.data == published.data == gcn.data
    assert published.data.holdout == 0.03
    assert (published.epochs, published.steps, gcn.epochs, ours.steps) == (50, 0, 50, 12_000)
    assert (gcn.model.kind, gcn.model.width, gcn.model.num_blocks) == ("gcn", 256, 12)


def test_errors_stand_beside_the_peers_of_the_same_actions(paper: Any) -> None:
    found = dict(zip(paper.arms(), (run(paper, e) for e in (10.0, 20.0, 30.0)), strict=True))
    lines = paper.page(found).splitlines()

    def first(who: str) -> list[str]:
        """The first column of who's row in every table: the average, then each action."""
        return [line.split(" | ")[1] for line in lines if line.startswith(f"| {who} |")]

    ours, published, gcn = paper.arms()
    assert first(ours) == ["5.00", "10.00", "10.00", "20.00"]
    assert first(gcn) == ["15.00", "30.00", "30.00", "60.00"]
    assert first("repeat last pose") == ["45.00", "90.00", "90.00", "180.00"]
    # the peers' average is that of walking and running alone
    assert first(paper.PEERS) == ["9.46", "6.23", "12.69", "4.63"]
    assert "1.5 h; best held-out error 10.0 mm at step 1,500" in "\n".join(lines)
    assert paper.picture(found).startswith(b"\x89PNG")
