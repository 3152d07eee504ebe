"""Model cards say what is known and name what is not."""

import pytest
from report.fabricated import write_run

from tenfold.report.card import card_info, write_model_card


def test_card_of_a_run(tmp_path):
    run = write_run(tmp_path / "run")
    info = {
        **card_info(run),
        "paper": {"arxiv": "2208.00368", "title": "A <title>", "says": "Parts help."},
        "licence": "MIT",
        "limits": ["not for medicine", "walkers only"],
        "intended": "research",
    }
    info["data"]["licence"] = "none needed"
    path = write_model_card(run, info)
    assert path == run / "MODEL_CARD.md"
    text = path.read_text()
    for part in (
        "# Model card: spgsn, recipe demo",
        "Trained on **generated** data",
        "[arXiv:2208.00368](https://arxiv.org/abs/2208.00368)",
        "A &lt;title>",
        "| parameters | 415,320 |",
        "| seeds | 0 |",
        "| licence of the weights | MIT |",
        "| licence of the data | none needed |",
        "0123456789abcdef0123",
        "2026-10-01",
        "tenfold.load(",
        "- not for medicine",
        "repeat last pose",
        "| 80ms | 160ms | 320ms | 400ms | 1000ms |",
    ):
        assert part in text, part
    assert "<script" not in text


def test_real_data_carry_no_warning(tmp_path):
    run = write_run(tmp_path / "run", kind="real")
    assert "Trained on" not in write_model_card(run, card_info(run)).read_text()


def test_what_is_unknown_is_said(tmp_path):
    text = write_model_card(tmp_path, {"system": "pangu"}).read_text()
    assert "| licence of the weights | not stated |" in text and "Not measured." in text
    with pytest.raises(ValueError, match="system"):
        write_model_card(tmp_path, {})
