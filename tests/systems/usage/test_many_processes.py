"""Two processes of `torchrun` choose the threshold and measure what one does, each its share."""

from __future__ import annotations

import json
from pathlib import Path

import forked
import pytest
from tiny import config, options

from tenfold.runner.weights import construct
from tenfold.systems.usage import Usage, threshold

pytestmark = pytest.mark.usefixtures("generated_only")
WORDS = [*options("usage"), "--segment.steps", "0", "--data.generated", "7", "2"]
WORDS += ["--threshold.compare", *threshold.CRITERIA, "--loss.tau-pos", "0", "--loss.tau-neg", "0"]
WORKER = """
import json, sys
from pathlib import Path
from tenfold.core import dist
from tenfold.runner.weights import construct
from tenfold.systems.usage import Usage, choices
from tiny import config
out, *words = sys.argv[1:]
looked = []
whole = choices._Seen.__call__
choices._Seen.__call__ = lambda self, item: looked.append(item.name) or whole(self, item)
with dist.started("cpu") as world:
    system = construct(Usage, config("usage", "demo", words))
    found = system.evaluate()
    said = [found.metrics, list(found.notes), looked]
    Path(out, f"{world.rank}.json").write_text(json.dumps(said))
"""


def test_two_processes_choose_the_threshold_of_one(tmp_path: Path) -> None:
    """Every criterion and the evidence for tau; each picture is looked at by one of them."""
    (tmp_path / "worker.py").write_text(WORKER)
    done = forked.torchrun(2, tmp_path / "worker.py", tmp_path, *WORDS)
    assert done.returncode == 0, done.stderr
    said = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1)]
    one = construct(Usage, config("usage", "demo", WORDS)).evaluate()
    assert {f"threshold/{name}/value" for name in threshold.CRITERIA} <= one.metrics.keys()
    for metrics, notes, _ in said:
        assert metrics == one.metrics and notes == list(one.notes)
    looked = [names for *_, names in said]
    assert all(looked) and not set(looked[0]) & set(looked[1])
