"""The planner's command trains the model that was planned."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

from tenfold.data.text.tokens import ByteTokenizer

Call = Callable[..., tuple[int, str, str]]
SIZES = "layers=2,hidden=16,heads=2,seq=16,experts=4,top_k=2,moe_every=2"


@pytest.mark.parametrize("vocab", [256, 300, 70_000])
def test_the_command_of_a_plan_trains_what_was_planned(
    vocab: int, call: Call, tmp_path: Path
) -> None:
    words = ("--cluster", "1x1xV100-32G", "--batch", "4")
    code, out, _ = call("plan", "ppmoe", "--model", f"{SIZES},vocab={vocab}", *words)
    assert code == 0
    command = next(line for line in out.replace("\n  ", " ").splitlines() if "torchrun" in line)
    _, _, train = command.partition("-m tenfold ")
    lines = [f"{i} some words of text, {i * i} and more of them" for i in range(1_000)]
    text, own = tmp_path / "text", tmp_path / "own.json"
    text.mkdir()
    (text / "text.txt").write_text("\n".join(lines))
    own.write_text(ByteTokenizer().to_file())  # a model may have more tokens than a file
    code, out, error = call(
        *shlex.split(train.replace("TOKENIZER.json", shlex.quote(str(own)))),
        "--data.path", str(text), "--run.folder", str(tmp_path / "run"), "--dry-run",
    )  # fmt: skip
    assert code == 0, error
    shown = dict(line.split(maxsplit=1) for line in out.splitlines() if line.startswith("model."))
    wanted = {"layers": 2, "hidden": 16, "heads": 2, "seq": 16, "experts": 4, "top_k": 2,
              "moe_every": 2, "vocab": vocab}  # fmt: skip
    assert {name: int(shown[f"model.{name}"]) for name in wanted} == wanted
    assert "fp16" in out
