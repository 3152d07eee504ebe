"""From one's own text to tokens on disk, and a model trained on them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import tenfold
from tenfold.data.text.tokens import ByteTokenizer
from tenfold.systems.ppmoe import Ppmoe

Call = Callable[..., tuple[int, str, str]]


def test_text_to_tokens_to_a_model(call: Call, tmp_path: Path) -> None:
    text, tokens, run = tmp_path / "text", tmp_path / "tokens", tmp_path / "run"
    text.mkdir()
    for name in ("a", "b"):
        lines = (f"{name} {i} and the words of {name}, {i * i}\n" for i in range(3_000))
        (text / f"{name}.txt").write_text("".join(lines))
    code, out, _ = call("data", "tokenise", text, tokens, "--bpe-vocab", "300")
    assert code == 0 and "a: " in out and "b: " in out
    words = ["--model.layers", "2", "--model.hidden", "16", "--model.heads", "2", "--steps", "2",
             "--model.seq", "16", "--batch", "4", "--optim.warmup", "1", "--loop.workers", "0",
             "--data.eval-windows", "8"]  # fmt: skip
    code, out, error = call(
        "train", "ppmoe", "demo", "--data.path", tokens, "--run.folder", run, *words
    )
    assert code == 0 and "token frequencies" in out, error
    system = tenfold.load(run)
    assert isinstance(system, Ppmoe) and system.cfg.model.vocab == 300
    assert system.cfg.data.name == "tokens" and system.tokenizer.vocab == 300
    assert "Rows to train on: a 50" in system.data_used().note
    other = tmp_path / "other.json"
    other.write_text(ByteTokenizer().to_file())
    code, _, error = call(
        "train", "ppmoe", "demo", "--data.path", tokens, "--data.tokenizer-file", other,
        "--run.folder", tmp_path / "second", *words, "--dry-run",
    )  # fmt: skip
    assert code == 2 and "is not the tokenizer of which the tokens of" in error
