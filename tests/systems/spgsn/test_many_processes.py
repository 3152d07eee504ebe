"""SPGSN under `torchrun`: two processes measure and predict what one does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import forked
import numpy as np
import pytest

from tenfold import cli
from tenfold.generated import walker

pytestmark = pytest.mark.usefixtures("generated_only")
WORK = """
import sys
from tenfold.cli import main

run, folder, out = sys.argv[1:]
main(["evaluate", run])
main(["predict", run, folder, "--out", out])
"""


def test_two_processes_measure_and_predict_as_one(
    made: Callable[[str], Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    run, folder = str(made("spgsn")), tmp_path / "motions"
    (folder / "more").mkdir(parents=True)
    positions = walker.clips("test", seed=3, num_per_action=1, frames=30)[0].positions
    for name, frames in (("a", 30), ("b", 12), ("more/a", 25)):  # shares of unequal size
        np.savez(folder / f"{name}.npz", positions=positions[:frames])
    (folder / "broken.npz").write_bytes(b"no motion")

    (tmp_path / "work.py").write_text(WORK)
    done = forked.torchrun(2, tmp_path / "work.py", run, folder, tmp_path / "two")
    assert done.returncode == 0, done.stderr
    capsys.readouterr()
    cli.main(["evaluate", run])
    cli.main(["predict", run, str(folder), "--out", str(tmp_path / "one")])
    assert done.stdout == capsys.readouterr().out.replace(f"{tmp_path}/one", f"{tmp_path}/two")

    one, two = (
        {p.relative_to(r): p for p in r.rglob("*.*")} for r in (tmp_path / "one", tmp_path / "two")
    )
    assert one.keys() == two.keys() and Path("more/a.npz.predicted.npz") in one
    for name, path in one.items():
        if path.suffix != ".html":  # a page says when it was written
            assert path.read_bytes() == two[name].read_bytes(), name
