"""LDC's pictures and the files of its predictions, from systems that are made up."""

from __future__ import annotations

import csv
import io
import warnings
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from tenfold.data.images.decode import read_picture
from tenfold.systems.ldc import feature_plot, figures, predict
from tenfold.systems.ldc.data import Encoded
from tenfold.systems.ldc.heads import Base, statistics
from tenfold.systems.ldc.sessions import Course, Outcome, measure
from tenfold.viz import plots

DIM = 6


def base_of(means: Tensor, seed: int = 0, spread: Tensor | None = None) -> Base:
    """Statistics of 40 pictures a class around some means."""
    draw = torch.Generator().manual_seed(seed)
    labels = torch.arange(len(means)).repeat_interleave(40)
    noise = torch.randn(len(labels), means.shape[1], generator=draw)
    noise = noise if spread is None else noise @ spread
    return statistics((means[labels] + noise).float(), labels)


def scene_of(known: int, new: int, shot: int, names: Sequence[str] = ()) -> tuple[Any, Base]:
    """A scene of random classes."""
    draw = torch.Generator().manual_seed(known + new)
    base = base_of(3 * torch.randn(known, DIM, generator=draw))
    labels = torch.arange(new).repeat_interleave(shot)
    centres = 3 * torch.randn(new, DIM, generator=draw)
    features = centres[labels] + torch.randn(len(labels), DIM, generator=draw)
    titles = tuple(names) or tuple(f"newcomer {i}" for i in range(new))
    old = tuple(f"class {i}" for i in range(known))
    return figures.Scene(base.means, features, labels, old, titles), base


def opened(content: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(content))
    image.load()
    return image


@pytest.mark.parametrize(("known", "new", "shot"), [(1, 1, 1), (2, 1, 5), (200, 10, 5)])
def test_the_space_is_drawn_for_few_and_for_many(known: int, new: int, shot: int) -> None:
    image = opened(figures.space(*scene_of(known, new, shot)))
    assert image.format == "PNG" and image.width > 1.5 * image.height
    assert len(image.convert("RGB").getcolors(2**24)) > 50


def test_the_same_scene_makes_the_same_picture() -> None:
    assert figures.space(*scene_of(3, 1, 2)) == figures.space(*scene_of(3, 1, 2))


def test_names_of_any_script_make_no_warning_and_no_formula() -> None:
    names = ("猫 $x^2$ _{", "_ξ", "a name that is much too long to be written beside a dot at all")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        opened(figures.space(*scene_of(5, 3, 2, names)))


def test_the_plane_is_that_of_the_shared_covariance() -> None:
    """Distances are in its standard deviations: the widest direction counts least."""
    stretch = torch.diag(torch.tensor([30.0, 1, 1, 1, 1, 1]))
    means = torch.zeros(3, DIM)
    means[0, 0], means[1, 1], means[2, 2] = 20.0, 8.0, 8.0
    base = base_of(means, spread=stretch)
    photos = torch.zeros(5, DIM)  # by plain distance nearest to classes 1 and 2
    scene = figures.Scene(base.means, photos, torch.zeros(5).long(), ("a", "b", "c"), ("new",))
    plane = feature_plot._plane(scene, base, photos[:0])
    assert plane.near[0] == 0
    assert np.allclose(plane.means[0], plane.photos.mean(0))
    # shrinking adds a tenth of the mean variance, which only the stretched direction hardly feels
    assert 0 < np.linalg.eigvalsh(plane.covariance).max() <= 1
    apart = np.linalg.norm(plane.known[1] - plane.known[2])
    assert apart > 5 * np.linalg.norm(plane.known[0] - plane.means[0]) > 0


def test_in_the_plane_the_covariance_is_nearly_a_unit_circle() -> None:
    scene, base = scene_of(20, 2, 5)
    values = np.linalg.eigvalsh(feature_plot._plane(scene, base, scene.features[:0]).covariance)
    assert (values > 0.85).all() and (values <= 1).all()


def test_names_keep_apart_and_inside() -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.text import Text

    spots = np.array([[0.5, 0.5], [0.51, 0.5], [0.5, 0.52], [0.98, 0.97], [0.01, 0.02]])
    names = [f"a rather long name {i}" for i in range(len(spots))]
    with plots.canvas("light", 5, 4) as figure:
        axes = figure.subplots()
        axes.set(xlim=(0, 1), ylim=(0, 1))
        figure.draw_without_rendering()
        feature_plot.name_spots(axes, spots, names, ["#000000"] * len(spots), spots)
        renderer = FigureCanvasAgg(figure).get_renderer()
        figure.draw(renderer)
        frame = axes.get_window_extent(renderer)
        boxes = [Text.get_window_extent(note, renderer) for note in axes.texts]
    assert [note.get_text() for note in axes.texts] == names
    for i, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[:i])
        assert frame.x0 <= box.x0 and box.x1 <= frame.x1
        assert frame.y0 <= box.y0 and box.y1 <= frame.y1


def test_listing_says_how_many_it_leaves_out() -> None:
    assert feature_plot.listing(["cat", "dog"]) == "cat · dog"
    assert feature_plot.listing(["cat", "dog", "cow"], room=10) == "cat · dog and 1 more"
    assert feature_plot.short("x" * 30, 10) == "x" * 9 + "…"


# --- report ----------------------------------------------------------------------------------


class Nearest:
    """A head: the nearest mean, by plain distance."""

    def __init__(self, base: Base) -> None:
        self.means = base.means

    def learn(self, features: Tensor, labels: Tensor) -> None:
        new = [features[labels == i].double().mean(0) for i in labels.unique()]
        self.means = torch.cat([self.means, torch.stack(new)])

    def logits(self, features: Tensor) -> Tensor:
        return -torch.cdist(features.double(), self.means)

    def state(self) -> dict[str, Tensor]:
        return {"means": self.means}

    def restore(self, state: dict[str, Tensor]) -> None:
        self.means = state["means"]


def measured_system(base: int, way: int, sessions: int, draws: int = 2) -> SimpleNamespace:
    """A system that has been evaluated; class numbers are also the names."""
    total = base + way * sessions
    draw = torch.Generator().manual_seed(1)
    means = 2 * torch.randn(total, DIM, generator=draw)
    known = base_of(means[:base])
    noise = torch.randn(8 * total, DIM, generator=draw)
    labels = torch.arange(total).repeat_interleave(8)
    test = Encoded(means[labels] + noise, labels)

    def photos(session: int) -> Encoded:
        first = base + session * way
        of = torch.arange(first, first + way).repeat_interleave(5)
        return Encoded(means[of] + torch.randn(len(of), DIM, generator=draw), of)

    supports = tuple(tuple(photos(s) for s in range(sessions)) for _ in range(draws))
    course = Course(base, way, supports, test)
    found, outcomes = measure(lambda: Nearest(known), course)
    cfg = SimpleNamespace(head="ldc", classes=tuple(f"class {i}" for i in range(total)))
    return SimpleNamespace(
        course=lambda split, space: course, space="raw", outcomes=outcomes, cfg=cfg,
        compared={"NCM": found, "NCM, centred": found | {"final/mean/overall": 1.0}},
        remembered=lambda: known,
    )  # fmt: skip


def test_a_report_shows_sessions_confusion_and_the_space(tmp_path: Path) -> None:
    system = measured_system(6, 2, 3)
    found = figures.report_pictures(system, tmp_path)  # type: ignore[arg-type]
    names = ["sessions.png", "base-and-new.png", "confusion.png", "features.png"]
    assert [path.name for path in found] == names
    assert all(opened(path.read_bytes()).width > 500 and caption for path, caption in found.items())
    assert "2 draws" in found[tmp_path / "sessions.png"]
    assert "No other head" not in found[tmp_path / "sessions.png"]
    assert "No other head" in figures._among({})


def test_a_report_of_base_classes_alone_shows_classes(tmp_path: Path) -> None:
    system = measured_system(30, 0, 0, draws=1)
    system.cfg.classes = tuple(f"猫 {i}" for i in range(30))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = figures.report_pictures(system, tmp_path)  # type: ignore[arg-type]
    assert [path.name for path in found] == ["classes.png", "confusion.png"]
    assert "10 worst and best" in found[tmp_path / "classes.png"]


def test_a_report_before_any_evaluation_shows_the_space_alone(tmp_path: Path) -> None:
    system = measured_system(6, 2, 3)
    system.outcomes = []
    found = figures.report_pictures(system, tmp_path)  # type: ignore[arg-type]
    assert [path.name for path in found] == ["features.png"]


def test_of_each_family_the_best_variant_is_compared() -> None:
    rows = {
        name: {"final/mean/overall": value}
        for name, value in {"NCM": 5.0, "NCM, centred": 7.0, "LDA": 6.0, "LDA, x": 2.0}.items()
    }
    assert list(figures._rivals(rows)) == ["NCM, centred", "LDA"]
    many = {f"head {i}": {"final/mean/overall": 1.0} for i in range(20)}
    assert list(figures._rivals(many)) == list(many)[: figures.RIVALS]


def test_confusion_counts_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    """Classes 0 and 1 are base, 2 came in session 1, 3 in session 2; two draws."""
    tables: list[np.ndarray] = []
    monkeypatch.setattr(plots, "heatmap", lambda table, **words: tables.append(table) or b"")
    labels = torch.tensor([0, 1, 2, 2, 3])
    course = Course(2, 1, ((), ()), Encoded(torch.zeros(5, DIM), labels))
    last = [[1, 2, 2, 0, 3], [0, 1, 2, 3, 2]]
    outcomes = [Outcome(torch.tensor([[0] * 5, [0] * 5, row]), 1) for row in last]
    figures._groups(outcomes, course)
    assert tables[0].tolist() == [[75, 25, 0], [25, 50, 25], [0, 50, 50]]


def test_the_most_confused_classes_are_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: dict[str, Any] = {}
    monkeypatch.setattr(
        plots, "heatmap", lambda table, **words: shown.update(words, t=table) or b""
    )
    labels = torch.arange(14).repeat_interleave(2)
    found = labels.clone()
    found[26], found[27], found[24] = 3, 3, 3  # 13 is always taken for 3, 12 half the time
    course = Course(14, 0, ((),), Encoded(torch.zeros(28, DIM), labels))
    figures._mixed_up([Outcome(found[None], 1)], course, ["same name, but very long, " * 2] * 14)
    assert len(set(shown["rows"])) == len(shown["rows"]) == figures.ENDS
    assert shown["t"][-1].tolist()[shown["t"].shape[1] - 1] == 0 and 100 in shown["t"][-1]


# --- predictions -----------------------------------------------------------------------------

NAMES = ["red", "green", "blue", "=1+1", "<b>bold</b>", "grey"]


class Painter:
    """A system that knows colours; a picture that is black is unknown."""

    def __init__(self, top: int = 2, unknown: float = 95.0) -> None:
        self.known = list(NAMES)
        self.options = SimpleNamespace(top=top, unknown=unknown)
        self.cfg = SimpleNamespace(head="ldc")

    def features_of(self, files: list[Path]) -> Tensor:
        """Mean colours; reads as the real one does."""
        return torch.stack([torch.tensor(read_picture(f).mean((0, 1))).float() for f in files])

    def means_known(self) -> Tensor:
        return torch.zeros(len(self.known), 3, dtype=torch.float64)

    def answers(self, features: Tensor) -> tuple[Tensor, Tensor]:
        logits = torch.cat([features / 50, features.new_tensor([[0, -1, -2]]) + 0 * features], 1)
        return logits.softmax(1), features.sum(1) == 0

    def data_used(self) -> SimpleNamespace:
        return SimpleNamespace(kind="real", name="colours")

    def notes(self) -> list[str]:
        return ["a note"]


def paint(path: Path, colour: tuple[int, int, int], size: tuple[int, int] = (9, 7)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)
    return path


def predicted(system: Painter, inputs: Path, out: Path) -> tuple[list[list[str]], str]:
    """Rows of the table, and the page."""
    files = predict.predict_files(system, inputs, out)  # type: ignore[arg-type]
    assert [file.name for file in files] == [f"predictions.{end}" for end in ("csv", "png", "html")]
    opened(files[1].read_bytes())
    rows = list(csv.reader(io.StringIO(files[0].read_text(encoding="utf-8"))))
    assert len({len(row) for row in rows}) == 1
    return rows, files[2].read_text(encoding="utf-8")


def test_one_picture(tmp_path: Path) -> None:
    file = paint(tmp_path / "photo.png", (0, 250, 0), (300, 40))
    rows, page = predicted(Painter(), file, tmp_path / "out")
    head = ["file", "unknown", "class 1", "probability 1", "class 2", "probability 2", "problem"]
    assert rows[0] == head
    assert rows[1][:3] == ["photo.png", "no", "green"] and 0.9 < float(rows[1][3]) < 1
    assert "accuracy" not in page and "a note" in page and "95 %" in page


def test_class_folders_give_accuracy(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    paint(folder / "Red/1.png", (250, 0, 0))  # capitals do not matter
    paint(folder / "Red/2.png", (0, 0, 250))
    paint(folder / "green/1.png", (0, 250, 0))
    paint(folder / "purple/1.png", (0, 0, 0))
    rows, page = predicted(Painter(), folder, tmp_path / "out")
    assert [row[0] for row in rows[1:]] == ["Red/1.png", "Red/2.png", "green/1.png", "purple/1.png"]
    assert [row[1] for row in rows[1:]] == ["no", "no", "no", "yes"]
    assert "66.7 %" in page and "2 of 3 in folders named like a known class" in page
    assert "1 (50 %)" in page and "no known class" in page


def test_what_is_broken_is_listed_and_stops_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    paint(folder / "b.png", (0, 0, 250))
    (folder / "a.png").write_bytes(b"<script>alert(1)</script>")
    rows, page = predicted(Painter(), folder, tmp_path / "out")
    assert rows[1][:2] == ["a.png", ""] and "not a picture" in rows[1][-1]
    assert rows[2][:3] == ["b.png", "no", "blue"] and rows[2][-1] == ""
    assert "1 of 2 pictures cannot be read" in page and "a.png is not a picture" in page


def test_what_cannot_be_read_alone_is_an_error(tmp_path: Path) -> None:
    bad = tmp_path / "in/bad.png"
    bad.parent.mkdir()
    bad.write_bytes(b"no")
    with pytest.raises(ValueError, match="bad.png is not a picture"):
        predict.predict_files(Painter(), bad, tmp_path / "out")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="none of 1 pictures can be read.*bad.png"):
        predict.predict_files(Painter(), bad.parent, tmp_path / "out")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="holds no picture"):
        (tmp_path / "empty").mkdir()
        predict.predict_files(Painter(), tmp_path / "empty", tmp_path)  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()


def test_names_are_harmless(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    for name in ("=1+1", "<b>bold</b>", "+x\ny"):
        paint(folder / name.replace("/", "_") / "@evil<i>.png", (0, 0, 0))
    system = Painter(top=6, unknown=100.0)
    rows, page = predicted(system, folder, tmp_path / "out")
    assert not [cell for row in rows for cell in row if cell.startswith(("=", "+", "-", "@"))]
    assert "'=1+1" in rows[1] and rows[1][0].startswith("'")
    assert "<b>bold" not in page and "<i>" not in page and "&lt;b&gt;bold" in page
    assert "turns that off" in page
    assert all(cell.isprintable() for row in rows for cell in row)


def test_more_than_the_page_holds_is_in_the_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(predict, "SHOWN", 4)
    monkeypatch.setattr(predict.data, "ENCODE_BATCH", 3)  # several batches, one with a broken file
    for i in range(8):
        paint(tmp_path / f"in/{i}.png", (0, 250 * (i % 2), 250 * (1 - i % 2)))
    (tmp_path / "in/4.png").write_bytes(b"no")
    rows, page = predicted(Painter(top=99), tmp_path / "in", tmp_path / "out")
    assert [row[0] for row in rows[1:]] == [f"{i}.png" for i in range(8)]
    wanted = ["blue", "green", "blue", "green", "", "green", "blue", "green"]
    assert [row[2] for row in rows[1:]] == wanted
    assert len(rows[0]) == 3 + 2 * len(NAMES)
    assert "4 of 7 pictures; predictions.csv has all" in page
    shown = [i for i in range(8) if f">{i}.png<" in page]
    assert len(shown) == 4 and shown[0] == 0 and shown[-1] == 7
