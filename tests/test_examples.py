"""The examples run as they are, on generated data, and are short enough to be read."""

from __future__ import annotations

from pathlib import Path

import forked
import pytest

from tenfold import systems

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.mark.usefixtures("generated_only")
@pytest.mark.parametrize("name", systems.SYSTEMS)
def test_example(name: str, tmp_path: Path) -> None:
    script = EXAMPLES / f"{name}.py"
    lines = [x for x in script.read_text().splitlines() if x.strip() and not x.startswith("#")]
    assert 10 <= len(lines) <= 40
    done = forked.run(script, tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert done.stdout and list((tmp_path / "out").rglob("weights.safetensors"))


def test_example_of_explanations(tmp_path: Path) -> None:
    script = EXAMPLES / "explain.py"
    assert len([x for x in script.read_text().splitlines() if x.strip()]) <= 40
    done = forked.run(script, tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert "{'red': (1, 1)" in done.stdout or "{'red': (2, 1)" in done.stdout
    assert "'blue': (1, 4)" in done.stdout or "'blue': (2, 4)" in done.stdout
    assert "Yes: the box supports it more" in done.stdout
    assert (tmp_path / "out/explanation.html").is_file()


def test_the_picture_of_signs(tmp_path: Path) -> None:
    done = forked.run(EXAMPLES / "loupe_signs.py", tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "loupe_signs.png").stat().st_size > 0
