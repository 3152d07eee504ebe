"""LDC's figures, from evaluations that are made up."""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from tenfold.core.system import Evaluation
from tenfold.systems.ldc import feature_plot, figures
from tenfold.systems.ldc.config import Config
from tenfold.systems.ldc.data import Encoded
from tenfold.systems.ldc.evaluation import (
    Course,
    Details,
    Outcome,
    evaluate,
    scores,
    summary,
)
from tenfold.systems.ldc.feature_plot import Scene, draw_space
from tenfold.systems.ldc.heads import Base, statistics
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
    return Scene(base.means, features, labels, old, titles), base


def opened(content: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(content))
    image.load()
    return image


@pytest.mark.parametrize(("known", "new", "shot"), [(1, 1, 1), (2, 1, 5), (200, 10, 5)])
def test_the_space_is_drawn_for_few_and_for_many(known: int, new: int, shot: int) -> None:
    image = opened(draw_space(*scene_of(known, new, shot)))
    assert image.format == "PNG" and image.width > 1.5 * image.height
    assert len(image.convert("RGB").getcolors(2**24)) > 50


def test_the_same_scene_makes_the_same_picture() -> None:
    assert draw_space(*scene_of(3, 1, 2)) == draw_space(*scene_of(3, 1, 2))


def test_names_of_any_script_make_no_warning_and_no_formula() -> None:
    names = ("猫 $x^2$ _{", "_ξ", "a name that is much too long to be written beside a dot at all")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        opened(draw_space(*scene_of(5, 3, 2, names)))


def test_the_plane_is_that_of_the_shared_covariance() -> None:
    """Distances are in its standard deviations: the widest direction counts least."""
    stretch = torch.diag(torch.tensor([30.0, 1, 1, 1, 1, 1]))
    means = torch.zeros(3, DIM)
    means[0, 0], means[1, 1], means[2, 2] = 20.0, 8.0, 8.0
    base = base_of(means, spread=stretch)
    photos = torch.zeros(5, DIM)  # by plain distance nearest to classes 1 and 2
    scene = Scene(base.means, photos, torch.zeros(5).long(), ("a", "b", "c"), ("new",))
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


def measured(base: int, way: int, sessions: int, draws: int = 2) -> tuple[Evaluation, Base, Config]:
    """An evaluation; class numbers are also the names."""
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
    outcomes = evaluate({"": (lambda: Nearest(known), course)})[""]
    numbers = summary([scores(one, course) for one in outcomes])
    compared = {"NCM": numbers, "NCM, centred": numbers | {"final/mean/overall": 1.0}}
    cfg = Config(classes=tuple(f"猫 {i}" for i in range(total)))
    return Evaluation(numbers, compared, Details(course, tuple(outcomes))), known, cfg


def test_a_report_shows_sessions_confusion_and_the_space(tmp_path: Path) -> None:
    drawn = figures.report_pictures(*measured(6, 2, 3), tmp_path)
    names = ["sessions.png", "base-and-new.png", "confusion.png", "features.png"]
    assert [path.name for path in drawn] == names
    assert all(opened(path.read_bytes()).width > 500 and caption for path, caption in drawn.items())
    assert "2 draws" in drawn[tmp_path / "sessions.png"]
    assert "No other head" not in drawn[tmp_path / "sessions.png"]
    assert "No other head" in figures._among({})


def test_a_report_of_base_classes_alone_shows_classes(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        drawn = figures.report_pictures(*measured(30, 0, 0, draws=1), tmp_path)
    assert [path.name for path in drawn] == ["classes.png", "confusion.png"]
    assert "10 worst and best" in drawn[tmp_path / "classes.png"]


def test_another_systems_evaluation_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not an evaluation of LDC"):
        figures.report_pictures(Evaluation({}), *measured(6, 2, 3)[1:], tmp_path)


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
