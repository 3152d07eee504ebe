"""Flat keys to tables."""

import math

import pytest

from tenfold.report.results import best, duration, flatten, in_order, lookup, number
from tenfold.report.tables import delta, layout, main_keys, metric_tables, title


def test_order():
    assert in_order(["1000ms", "80ms", "mean", "160ms"]) == ["80ms", "160ms", "1000ms", "mean"]
    assert in_order(["car", "bus"]) == ["car", "bus"]
    assert in_order(["2.5km", "10km", "0.5km"]) == ["0.5km", "2.5km", "10km"]
    assert in_order(["AP", "AP75", "AP50"]) == ["AP50", "AP75", "AP"]


def test_three_parts_are_rows_and_columns_and_averages_join_them():
    (grid,) = layout(["e/walk/400ms", "e/walk/80ms", "e/run/80ms", "e/80ms"])
    assert grid.columns == ["80ms", "400ms"]
    assert grid.rows == [
        ("walk", {"400ms": "e/walk/400ms", "80ms": "e/walk/80ms"}),
        ("run", {"80ms": "e/run/80ms"}),
        ("overall", {"80ms": "e/80ms"}),
    ]


def test_every_key_stands_exactly_once():
    keys = ["a", "b", "a/x", "a/y", "c/1/x", "c/1", "c/2/x", "c/other", "d/1/2/3", "e/only"]
    keys += [f"iou/class{i}" for i in range(21)] + ["iou"]
    found = [key for grid in layout(keys) for _, row in grid.rows for key in row.values()]
    assert sorted(found) == sorted(keys)


def test_many_columns_become_a_list():
    grid = layout([f"iou/class {i}" for i in range(21)])[0]
    assert not grid.columns and len(grid.rows) == 21


def test_a_tie_of_all_marks_nobody_and_a_shared_best_marks_both():
    assert best([1.0, 1.0], "lower") == [False, False]
    assert best([1.0, 1.0, 2.0], "lower") == [True, True, False]
    assert best([1.0, 2.0, math.nan, None], "higher") == [False, True, False, False]
    assert best([1.0, 2.0], "") == [False, False]
    assert best([1.0], "lower") == [False]


def test_longest_prefix_decides():
    better = {"val": "lower", "val/accuracy": "higher"}
    assert lookup("val/accuracy/top5", better) == "higher"
    assert lookup("val/loss", better) == "lower"
    assert lookup("validation", better) == ""


def test_tables_cope_with_a_missing_metric():
    tables = metric_tables({"ours": {"e/a/1": 1.0, "e/b/2": 2.0}, "theirs": {"e/a/1": 3.0}})
    assert [[c.text for c in row] for row in tables[0].rows][1] == ["", "theirs", "3", "–"]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (float("nan"), "nan"),
        (0.0, "0"),
        (12.3456, "12.35"),
        (-1234.5, "−1,234"),
        (415320, "415,320"),
        (0.00123, "0.001230"),
        (1.5e-9, "1.50e−09"),
    ],
)
def test_numbers_for_people(value, text):
    assert number(value) == text


def test_delta_knows_which_way_is_good():
    assert delta(9.0, 10.0, "lower") == ("−1 (−10.0%)", "good")
    assert delta(9.0, 10.0, "higher")[1] == "bad"
    assert delta(9.0, 10.0, "") == ("−1 (−10.0%)", "")
    assert delta(1.0, -1.0, "higher") == ("+2", "good")  # a percentage of -1 misleads
    assert delta(None, 1.0, "lower") == ("", "")


def test_headline_prefers_what_is_named_then_an_average():
    result = {
        "metrics": {"e/walk/80ms": 1.0, "e/80ms": 2.0, "e/mean": 3.0, "other": 4.0},
        "better": {"e": "lower"},
    }
    assert main_keys(result) == ["e/mean"]
    assert main_keys({**result, "main": "other"}) == ["other"]
    assert main_keys({**result, "better": {}}, 2) == ["e/walk/80ms", "e/80ms"]


def test_units_and_directions_stand_where_they_are_alike():
    """Of a group with one, above; else at the column, or at the row that has it."""
    keys = ["rmse/z500/24h", "rmse/z500/72h", "rmse/t850/24h", "rmse/t850/72h"]
    units = {"rmse/z500": "m2/s2", "rmse/t850": "K"}
    better = {"rmse": "lower"}
    (table,) = metric_tables({"ours": dict.fromkeys(keys, 1.0)}, better, units)
    assert table.caption == "rmse (lower is better)"
    assert [row[0].text for row in table.rows] == ["z500 [m2/s2]", "t850 [K]"]
    (table,) = metric_tables({"ours": dict.fromkeys(keys, 1.0)}, better, {"rmse": "K"})
    assert table.caption == "rmse, K (lower is better)"
    keys = ["confusion/mean/base as base", "confusion/mean/base as new"]
    better = {"confusion": "lower", "confusion/mean/base as base": "higher"}
    ours, theirs = dict.fromkeys(keys, 60.0), dict.fromkeys(keys, 50.0)
    (table,) = metric_tables({"ours": ours, "theirs": theirs}, better, {"confusion": "%"})
    assert table.caption == "confusion, %"
    assert table.head[-2:] == ["base as base ↑", "base as new ↓"]
    marks = [[cell.best for cell in row[-2:]] for row in table.rows]
    assert marks == [[True, False], [False, True]]


def test_a_metric_without_a_unit_has_none_though_its_group_has():
    """LOUPE's median is a rank among recalls in percent."""
    keys = ["retrieval/i2t/R@1", "retrieval/i2t/median", "retrieval/t2i/R@1"]
    units = {"retrieval": "%", "retrieval/i2t/median": ""}
    assert [lookup(key, units) for key in keys] == ["%", "", "%"]
    (table,) = metric_tables({"ours": dict.fromkeys(keys, 1.0)}, {}, units)
    assert table.caption == "retrieval" and table.head[-2:] == ["R@1 [%]", "median"]


def test_titles_are_for_people():
    labels = {"final/mean/overall": "accuracy after the last session", "80ms": "80 ms (true 83)"}
    assert title("final/mean/overall", labels) == "accuracy after the last session"
    assert title("mpjpe/walking/80ms", labels) == "mpjpe, walking, 80 ms (true 83)"
    assert title("seconds_a_window") == "seconds a window"
    (table,) = metric_tables({"a": {"loss/x/y": 1.0}}, labels={"loss": "Loss", "loss/x": "X"})
    assert table.caption == "Loss" and table.rows[0][0].text == "X"


def test_small_helpers():
    assert flatten({"a": {"b": 1, "c": {}}, "d": 2}) == {"a.b": 1, "a.c": {}, "d": 2}
    assert [duration(s) for s in (3, 61.2, 600, 7200)] == ["3.0 s", "61 s", "10.0 min", "2.0 h"]
