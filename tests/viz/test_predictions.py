"""What all systems write of predictions."""

from __future__ import annotations

import csv
from pathlib import Path

from tenfold.viz.predictions import write_table


def test_a_table_holds_no_formula_in_heads_or_cells(tmp_path: Path) -> None:
    """Names of classes are heads of DTS's columns, and come from files of others."""
    file = write_table(tmp_path / "a.csv", ["file", "=1+1", "tree"], [["@a.png", "-2+3", "0.5"]])
    with file.open() as opened:
        assert list(csv.reader(opened)) == [["file", "'=1+1", "tree"], ["'@a.png", "'-2+3", "0.5"]]


def test_negative_numbers_of_a_table_are_numbers(tmp_path: Path) -> None:
    """LOUPE's interactions have both signs; with an apostrophe nobody can compute with them."""
    row = ["-0.01234", "+2", "-1e-05", "-x", "-1e5)", "-"]
    file = write_table(tmp_path / "a.csv", ["a"], [row])
    with file.open() as opened:
        assert list(csv.reader(opened))[1] == [*row[:3], "'-x", "'-1e5)", "'-"]
