"""Verdicts against scipy and by hand; the two files of a claim."""

import copy
import json
import math

import numpy as np
import pytest
from scipy.stats import ttest_rel

from tenfold.report.claim import claim_lines, judge, seeds_to_decide, verdict, write_claim

BASELINE = [10.0, 10.4, 9.8, 10.1]
BETTER = [9.0, 9.5, 8.9, 9.2]

RESULTS = {
    "claims": [
        {
            "says": "Scattering | beats <one band> at 400 ms.",
            "metric": "mpjpe/400ms",
            "better": "lower",
            "paper": {"baseline": 10.10, "method": 9.2, "where": "Table 2"},
            "baseline": "one band",
            "method": "five bands",
        },
        {
            "says": "It is more accurate.",
            "metric": "accuracy",
            "better": "higher",
            "paper": None,
            "baseline": "one band",
            "method": "five bands",
        },
    ],
    "methods": {
        "one band": {
            "seeds": [0, 1, 2],
            "metrics": [
                {"mpjpe/400ms": 10.0 + i / 10, "mpjpe/80ms": 3.0, "accuracy": 0.8 + i / 50}
                for i in range(3)
            ],
        },
        "five bands": {
            "seeds": [2, 1, 0],
            "metrics": [
                {"mpjpe/400ms": 9.0 + i / 9, "mpjpe/80ms": 2.0, "accuracy": 0.8 + i * i / 90}
                for i in (2, 1, 0)
            ],
            "seconds": [60.0, 62.0, 61.0],
        },
    },
    "environment": {"cpu": "made-up CPU", "commit": "abc123", "command": "tenfold claim spgsn"},
    "data": {"name": "walker", "kind": "generated", "note": "fabricated for this test"},
    "budget": "300 steps",
    "seconds": 366.0,
    "notes": ["seeds 0 to 2"],
    "better": {"mpjpe": "lower"},
}


@pytest.mark.parametrize("seed", range(5))
def test_interval_and_p_are_those_of_the_paired_t_test(seed):
    noise = np.random.default_rng(seed)
    a, b = noise.normal(1, 1, 6).tolist(), noise.normal(0.5, 1, 6).tolist()
    oracle = ttest_rel(b, a)
    interval = oracle.confidence_interval(0.95)
    ours = verdict(a, b, "lower")
    assert ours.p == pytest.approx(oracle.pvalue)
    assert ours.interval == pytest.approx((interval.low, interval.high))
    assert ours.difference == pytest.approx(np.mean(b) - np.mean(a))
    assert ours.difference_std == pytest.approx(np.std(np.subtract(b, a), ddof=1))
    assert (ours.name == "not shown") == (oracle.pvalue > 0.05)


def test_the_three_verdicts_in_both_directions():
    assert verdict(BASELINE, BETTER, "lower").name == "shown"
    assert verdict(BASELINE, BETTER, "higher").name == "contradicted"
    assert verdict(BETTER, BASELINE, "higher").name == "shown"
    assert verdict(BETTER, BASELINE, "lower").name == "contradicted"
    assert verdict([1.0, 2.0, 3.0], [1.1, 1.9, 3.05], "lower").name == "not shown"


def test_an_effect_too_small_is_not_shown_and_not_contradicted():
    assert verdict(BASELINE, BETTER, "lower", min_effect=0.5).name == "shown"
    small = verdict(BASELINE, BETTER, "lower", min_effect=2.0)
    assert small.name == "not shown" and "reaches below 2" in small.reason
    assert verdict(BETTER, BASELINE, "lower", min_effect=2.0).name == "contradicted"


def test_too_few_broken_or_copied_seeds_show_nothing():
    one = verdict([2.0], [1.0], "lower")
    assert one.name == "not shown" and "1 seed" in one.reason and one.interval is None
    assert verdict([], [], "lower").name == "not shown"
    broken = verdict([2.0, 2.1, 2.2], [1.0, math.nan, 1.1], "lower")
    assert broken.name == "not shown" and "1 of 3 seeds not finite" in broken.reason
    copies = verdict([2.0, 2.0, 2.0], [1.0, 1.0, 1.0], "lower")
    assert copies.name == "not shown" and "test nothing" in copies.reason
    # A baseline without randomness (repeat the last pose) is fine: the method still varies.
    assert verdict([2.0, 2.0, 2.0], [1.0, 1.1, 0.9], "lower").name == "shown"


def test_misuse_is_refused():
    with pytest.raises(ValueError, match="2 baseline values, 1 of the method"):
        verdict([1.0, 2.0], [1.0], "lower")
    with pytest.raises(ValueError, match="min_effect"):
        verdict([1.0], [1.0], "lower", min_effect=-1)


def test_claims_pair_by_seed_not_by_position():
    shown, unclear = judge(RESULTS)
    assert shown.name == "shown" and unclear.name == "not shown"
    assert shown.difference_std == pytest.approx(np.std([-1, -1 + 1 / 90, -1 + 2 / 90], ddof=1))


def test_only_common_seeds_are_judged():
    results = copy.deepcopy(RESULTS)
    results["methods"]["five bands"]["seeds"] = [2, 1, 7]
    assert [one.seeds for one in judge(results)] == [2, 2]


def test_names_that_do_not_exist_are_named():
    results = copy.deepcopy(RESULTS)
    results["claims"][0]["method"] = "six bands"
    with pytest.raises(ValueError, match="'six bands'; measured: one band, five bands"):
        judge(results)
    results = copy.deepcopy(RESULTS)
    results["claims"][0]["metric"] = "mpjpe/300ms"
    with pytest.raises(ValueError, match="it has accuracy, mpjpe/400ms, mpjpe/80ms"):
        judge(results)


def test_files_round_trip(tmp_path):
    as_json, as_text = write_claim("spgsn", RESULTS, tmp_path / "claims")
    assert (as_json.name, as_text.name) == ("spgsn.json", "spgsn.md")
    kept = json.loads(as_json.read_text())
    verdicts = [claim.pop("verdict") for claim in kept["claims"]]
    assert kept == {"system": "spgsn", **RESULTS}
    assert [v["name"] for v in verdicts] == ["shown", "not shown"]
    # What was written can be judged and written again, to the same bytes.
    again = write_claim("spgsn", json.loads(as_json.read_text()), tmp_path / "again")
    assert again[0].read_text() == as_json.read_text()
    assert again[1].read_text() == as_text.read_text()


def test_text_holds_what_a_reader_needs(tmp_path):
    text = write_claim("spgsn", RESULTS, tmp_path)[1].read_text()
    for part in (
        "Data: **generated**, walker",
        "Scattering \\| beats &lt;one band> at 400 ms.",
        "10.1 → 9.2",
        "| one band | 10.1 | 10.10 ± 0.10 |",
        "paper (Table 2)",
        "300 steps",
        "made-up CPU",
        "abc123",
        "tenfold claim spgsn",
        "6.1 min",
        "seeds 0 to 2",
        "**2 ± 0**",
    ):
        assert part in text, part
    tables = [line for line in text.splitlines() if line.startswith("|")]
    assert all(line.endswith("|") for line in tables)


def test_what_is_not_finite_becomes_null(tmp_path):
    results = copy.deepcopy(RESULTS)
    results["methods"]["five bands"]["metrics"][0]["accuracy"] = math.nan
    as_json, as_text = write_claim("spgsn", results, tmp_path)
    kept = json.loads(as_json.read_text())
    assert kept["methods"]["five bands"]["metrics"][0]["accuracy"] is None
    assert kept["claims"][1]["verdict"]["name"] == "not shown"
    assert "1 of 3 seeds not finite" in as_text.read_text()


def test_a_whole_mean_keeps_its_spread(tmp_path):
    results = copy.deepcopy(RESULTS)
    for method, one in results["methods"].items():
        base = 10.0 if method == "one band" else 8.0
        one["metrics"] = [{"mpjpe/400ms": base + d, "accuracy": 1.0} for d in (-0.5, 0.0, 0.5)]
    text = write_claim("spgsn", results, tmp_path)[1].read_text()
    assert "10.00 ± 0.50 → 8.00 ± 0.50" in text
    assert "**8.00 ± 0.50**" in text


def test_a_row_a_method_has_its_cost_and_the_chosen_metrics(tmp_path):
    assert "A row a method" not in write_claim("spgsn", RESULTS, tmp_path)[1].read_text()
    results = copy.deepcopy(RESULTS)
    results["methods"]["five bands"] |= {"steps": 300, "after": "one band"}
    results["methods"]["standing still"] = {"seeds": [0], "metrics": [{"mpjpe/80ms": 4.0}]}
    results |= {"columns": ["mpjpe/400ms", "mpjpe/80ms"], "labels": {"mpjpe/80ms": "80 ms"}}
    lines = write_claim("spgsn", results, tmp_path)[1].read_text().splitlines()
    start = lines.index("## A row a method")
    assert lines[start + 4 : start + 9] == [
        "| method | starts from | steps | time of a run | mpjpe, 400ms | 80 ms |",
        "| --- | --- | ---: | ---: | ---: | ---: |",
        "| one band | – | – | – | 10.10 ± 0.10 | 3 ± 0 |",
        "| standing still | – | – | – | – | 4 |",
        "| five bands | one band | 300 | 61 s | **9.11 ± 0.11** | **2 ± 0** |",
    ]


def test_lines_for_the_terminal():
    first, second = claim_lines(RESULTS)
    assert first.startswith("shown: Scattering") and "10.10 ± 0.10 (one band)" in first
    assert second.startswith("not shown: ") and "3 seeds" in second


def test_seeds_that_would_decide_are_those_of_published_tables() -> None:
    """Cohen's table of the paired test at 5 %: d 0.5 takes 34 pairs, d 0.8 15, d 0.2 199."""
    seen = {"difference": -0.5, "difference_std": 1.0}
    assert seeds_to_decide(seen) == 34
    assert seeds_to_decide({**seen, "difference": 0.8}) == 15
    assert seeds_to_decide({**seen, "difference": 0.2}) is None  # over MOST_SEEDS
    assert seeds_to_decide({**seen, "difference": 1.3}, min_effect=0.5) == 15
    assert seeds_to_decide({**seen, "difference": 0.4}, min_effect=0.5) is None
    worse = {**seen, "difference": -0.8}  # contradicted as soon as it is beyond zero
    assert seeds_to_decide(worse, min_effect=0.9) == 15
    assert seeds_to_decide({**worse, "difference": 0.8}, 0.9, "lower") == 15
    assert seeds_to_decide(worse, 0.3, "lower") == 34
    assert seeds_to_decide({**seen, "difference": 0.0}) is None
    assert seeds_to_decide({"difference": None, "difference_std": None}) is None
    assert seeds_to_decide({**seen, "difference_std": 0.0}) is None


def test_so_many_seeds_decide_in_a_simulation() -> None:
    rng = np.random.default_rng(0)
    change = rng.normal(1.0, 1.0, size=(400, 10))  # 10 for d = 1
    assert seeds_to_decide({"difference": 1.0, "difference_std": 1.0}) == 10
    shown = sum(verdict([0.0] * 10, one, "higher").name == "shown" for one in change.tolist())
    assert 0.74 < shown / 400 < 0.87


def test_a_claim_that_is_open_says_how_many_seeds_it_takes(tmp_path) -> None:
    text = write_claim("spgsn", RESULTS, tmp_path)[1].read_text()
    assert "seeds to be decided with a power of 80 %" in text.split("## 2. not shown")[1]
    assert "power" not in text.split("## 2. not shown")[0]


def test_headings_of_metrics_say_their_direction_after_a_space(tmp_path) -> None:
    text = write_claim("spgsn", RESULTS, tmp_path)[1].read_text()
    assert "### mpjpe (lower is better)" in text
