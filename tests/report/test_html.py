"""The pages: self-contained, escaped, and honest about what is missing. All runs are fabricated."""

import copy
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from report.fabricated import CONFIG, write_run

from tenfold.report import html
from tenfold.report.history import panels
from tenfold.report.html import write_comparison_page, write_demo_page, write_run_page
from tenfold.report.results import read_metrics
from tenfold.viz import page as page_parts

VOID = {"meta", "img", "source", "br", "link", "input"}


class Parsed(HTMLParser):
    """Checks that tags close in order; keeps tags, links and table rows."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.rows: list[list[tuple[str, str]]] = []  # text, class
        self.text = ""
        self.feed(text)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append(("", dict(attrs).get("class") or ""))

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag, f"</{tag}> closes something else"

    def handle_data(self, data):
        self.text += data
        if "td" in self.open or "th" in self.open:
            text, css = self.rows[-1][-1]
            self.rows[-1][-1] = (text + data.strip(), css)

    def references(self) -> list[str]:
        names = ("src", "href", "srcset", "data", "action", "poster")
        return [value or "" for _, attrs in self.tags for k, value in attrs.items() if k in names]

    def row(self, *start: str) -> list[tuple[str, str]]:
        """The first row whose cells begin like this."""
        return next(r for r in self.rows if [t for t, _ in r[: len(start)]] == list(start))


def parse(path: Path) -> Parsed:
    return Parsed(path.read_text(encoding="utf-8"))


def assert_self_contained(parsed: Parsed) -> None:
    for reference in parsed.references():
        assert re.match(r"data:(image|video)/", reference) or not re.match(r"\w+:|//", reference), (
            reference[:80]
        )
    assert not [tag for tag, _ in parsed.tags if tag in ("script", "link", "iframe")]
    for _, attrs in parsed.tags:
        assert not [name for name in attrs if name.startswith("on")]


@pytest.fixture(autouse=True)
def few_curves(monkeypatch):
    """Most pages are looked at for other things: a curve takes 0.2 s to draw, twice."""
    monkeypatch.setattr(html, "MOST_PANELS", 2)


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    run = write_run(tmp_path_factory.mktemp("runs") / "a", stages=("pretrain", "finetune"))
    recipe = copy.deepcopy(CONFIG)
    recipe["model"]["width"] = 256
    assert write_run_page(run, recipe) == run / "report.html"
    return run


def test_page_is_one_whole_self_contained_file(finished):
    parsed = parse(finished / "report.html")
    assert_self_contained(parsed)
    assert not list(finished.glob("*.tmp")) and not list(finished.glob(".*"))
    text = (finished / "report.html").read_text()
    assert "@import" not in text and "url(" not in text
    assert 'name="viewport"' in text and "prefers-color-scheme: dark" in text


def test_page_says_what_the_data_are(finished):
    parsed = parse(finished / "report.html")
    assert ("span", {"class": "badge generated"}) in parsed.tags
    assert "generated data" in parsed.text


def test_what_a_user_wrote_is_escaped(finished):
    text = (finished / "report.html").read_text()
    assert "<script" not in text and "<b>x86" not in text and "<down>" not in text
    assert "&lt;script&gt;alert(&#39;config&#39;)" in text
    assert "&lt;script&gt;alert(&#39;note&#39;)" in text
    assert 'A gradient, "upside" <down>' in parse(finished / "report.html").text


def test_columns_are_in_natural_order_and_the_best_is_marked(finished):
    parsed = parse(finished / "report.html")
    times = ["80ms", "160ms", "320ms", "400ms", "1000ms"]
    assert times in [[t for t, _ in row][2:] for row in parsed.rows]
    result = json.loads((finished / "result.json").read_text())
    methods = [result["metrics"], *result["baselines"].values()]
    at = next(i for i, row in enumerate(parsed.rows) if row and row[0][0] == "running")
    for column, time in enumerate(times):
        values = [m[f"mpjpe/running/{time}"] for m in methods]
        marks = ["best" in parsed.rows[at + i][column + 2][1] for i in range(3)]
        assert marks == [v == min(values) for v in values]
    accuracy = parsed.row("accuracy ↑")  # higher is better
    values = [m["accuracy"] for m in methods]
    assert ["best" in css for _, css in accuracy[1:]] == [v == max(values) for v in values]


def test_changes_to_the_recipe_are_shown(finished):
    parsed = parse(finished / "report.html")
    assert [t for t, _ in parsed.row("model.width")] == ["model.width", "64", "256"]
    assert parsed.text.count("changed from the recipe") == 1


def test_curves_and_pictures_are_inlined(finished):
    parsed = parse(finished / "report.html")
    images = [attrs["src"] for tag, attrs in parsed.tags if tag == "img"]
    assert sum(src.startswith("data:image/png") for src in images) >= 7 + 2
    assert sum(src.startswith("data:image/svg+xml") for src in images) == 1
    assert parsed.text.index("upside") < parsed.text.index("gradient 10")  # 9 before 10


@pytest.mark.parametrize(
    "name", ["config.json", "environment.json", "metrics.jsonl", "result.json", "pictures"]
)
def test_an_absent_file_is_named_not_fatal(tmp_path, name):
    run = write_run(tmp_path / "run")
    if name == "pictures":
        for file in (run / name).iterdir():
            file.unlink()
        (run / name).rmdir()
    else:
        (run / name).unlink()
    parsed = parse(write_run_page(run))
    assert_self_contained(parsed)
    assert (f"{name} is missing" in parsed.text) == (name != "pictures")


def test_an_empty_folder_still_gives_a_page(tmp_path):
    parsed = parse(write_run_page(tmp_path))
    assert parsed.text.count("is missing") == 4 and "data unknown" in parsed.text


def test_no_folder_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="nowhere is not a run folder"):
        write_run_page(tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["config.json", "result.json", "environment.json"])
def test_a_corrupt_file_is_named(tmp_path, name):
    run = write_run(tmp_path / "run")
    for content in (b'{"system": ', b"[1, 2]", b"\xff\xfe\xff"):
        (run / name).write_bytes(content)
        with pytest.raises(ValueError, match=name):
            write_run_page(run)
    assert not (run / "report.html").exists()


def test_a_half_written_last_line_is_left_out(tmp_path):
    run = write_run(tmp_path / "run")
    log = run / "metrics.jsonl"
    whole = read_metrics(log)
    with log.open("a") as file:
        file.write('{"stage": "train", "step": 301, "spl')
    assert read_metrics(log) == whole
    write_run_page(run)
    with log.open("a") as file:
        file.write('\n{"stage": "train", "step": 302}\n')
    with pytest.raises(ValueError, match=r"metrics.jsonl line \d+"):
        read_metrics(log)


def test_steps_that_a_resumed_run_wrote_again_count_once(tmp_path):
    log = tmp_path / "metrics.jsonl"
    steps = [(1, 5.0), (2, 4.0), (3, 9.0), (2, 4.0), (3, 3.0)]
    log.write_text("".join(json.dumps({"step": s, "loss": v}) + "\n" for s, v in steps))
    assert [(x["step"], x["loss"]) for x in read_metrics(log)] == [(1, 5.0), (2, 4.0), (3, 3.0)]


def test_values_that_are_not_finite_do_not_break_a_page(tmp_path):
    run = write_run(tmp_path / "run")
    result = json.loads((run / "result.json").read_text())
    result["metrics"]["accuracy"] = float("nan")
    result["baselines"]["repeat last pose"]["mpjpe/80ms"] = float("inf")
    (run / "result.json").write_text(json.dumps(result))
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"stage": "train", "split": "train", "step": 301, "loss": NaN}\n')
    parsed = parse(write_run_page(run))
    assert "Not finite at step 301" in parsed.text
    cells = parsed.row("accuracy ↑")
    assert cells[1][0] == "nan" and "best" not in cells[1][1]


def test_a_large_video_is_linked_and_a_small_one_inlined(tmp_path, monkeypatch):
    run = write_run(tmp_path / "run")
    (run / "pictures/small.mp4").write_bytes(b"x" * 10)
    (run / "pictures/large one.mp4").write_bytes(b"x" * 5000)
    monkeypatch.setattr(page_parts, "INLINE_LIMIT", 4000)
    parsed = parse(write_run_page(run))
    assert len([tag for tag, _ in parsed.tags if tag == "video"]) == 1
    assert "pictures/large%20one.mp4" in parsed.references()


def test_comparison_shows_differences_only(tmp_path):
    other = copy.deepcopy(CONFIG)
    other["model"]["width"] = 128
    runs = [write_run(tmp_path / "a"), write_run(tmp_path / "b", scale=0.6, config=other)]
    parsed = parse(write_comparison_page(runs, tmp_path / "out/compare.html"))
    assert_self_contained(parsed)
    assert [t for t, _ in parsed.row("model.width")] == ["model.width", "64", "128"]
    assert not [row for row in parsed.rows if row and row[0][0] in ("optim.lr", "model.bands")]
    cells = parsed.row("accuracy ↑")
    assert "best" in cells[2][1] and "best" not in cells[1][1]
    assert "+0.2143 (+16.7%)" in cells[2][0]
    assert "not comparable" not in parsed.text


def test_comparison_warns_of_different_data_and_unfinished_runs(tmp_path):
    runs = [write_run(tmp_path / "x/a", kind="real"), write_run(tmp_path / "y/a")]
    unfinished = tmp_path / "c"
    unfinished.mkdir()
    parsed = parse(write_comparison_page([*runs, unfinished], tmp_path / "compare.html"))
    assert "different data" in parsed.text and "not comparable" in parsed.text
    assert "x/a" in parsed.text and "y/a" in parsed.text  # two runs called a
    with pytest.raises(ValueError, match="at least two"):
        write_comparison_page(runs[:1], tmp_path / "compare.html")
    with pytest.raises(ValueError, match="twice"):
        write_comparison_page([runs[0], runs[0]], tmp_path / "compare.html")


def test_demo_page_lists_every_system_and_links_its_report(tmp_path):
    good = write_run(tmp_path / "runs/spgsn")
    write_run_page(good)
    bad = write_run(tmp_path / "runs/x y", scale=2.0, system="pangu", kind="simulated")
    rows = [
        {
            "system": "spgsn",
            "task": "motion",
            "run": good,
            "metric": "mpjpe/400ms",
            "untrained": 1e3,
        },
        {
            "system": "pangu",
            "task": "weather",
            "run": bad,
            "metric": "mpjpe/400ms",
            "untrained": 1.0,
        },
        {"system": "loupe", "task": "<i>fakes</i>", "error": "ValueError: boom"},
    ]
    parsed = parse(write_demo_page(rows, tmp_path / "runs/report.html"))
    assert_self_contained(parsed)
    assert "spgsn/report.html" in parsed.references()
    first, second, third = (parsed.row(name) for name in ("spgsn", "pangu", "loupe"))
    assert first[6][0] == "it learns" and first[7][0].endswith("constant velocity")
    assert second[6][0] == "it does not learn" and second[7][0].endswith("constant velocity")
    assert second[2][0].startswith("simulated")
    assert "tenfold claim SYSTEM" in parsed.text
    assert third[6][0] == "failed" and "1 of 3 systems failed" in parsed.text
    assert "boom" in parsed.text


def test_report_needs_no_torch_and_no_matplotlib_to_import():
    code = (
        "import sys, tenfold.report.html, tenfold.viz.plots, tenfold.report.card;"
        "import tenfold.report.claim;"
        "print([m for m in ('torch', 'matplotlib', 'scipy', 'tenfold.core') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_speed_is_one_curve_and_a_sentence() -> None:
    lines = [
        {"stage": "train", "step": step, "split": "train", "loss": 1.0}
        | ({} if step == 1 else {"tokens_per_second": 12000.0 + step})
        | ({} if step == 1 else {"flop_per_second": 4.5e10, "share_of_peak": 0.42})
        for step in range(1, 4)
    ]
    speed = [panel for panel in panels(lines) if panel.title == "Speed"]
    assert [list(panel.lines) for panel in speed] == [["tokens_per_second"]]
    said = "Median: 12,002 tokens a second, 45 GFLOP/s, 42% of what the devices can do."
    assert speed[0].caption == said
    assert len(panels(lines)) == 2
    images = [
        {k: v for k, v in line.items() if not k.startswith(("flop", "share"))} for line in lines
    ]
    assert panels(images)[-1].caption == "Median: 12,002 tokens a second."
