"""What `learn` tells: the effect on known classes, whether photos are enough, what is unknown."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image

import tenfold
from tenfold import cli
from tenfold.generated import shapes
from tenfold.systems.ldc.baselines import Lda, Ncm
from tenfold.systems.ldc.classifier import Classifier
from tenfold.systems.ldc.data import new_classes
from tenfold.systems.ldc.enough import away_left_out, enough
from tenfold.systems.ldc.forecast import accuracy, draws, effect, left_out, widths
from tenfold.systems.ldc.heads import Base, statistics
from tenfold.systems.ldc.model import distances
from tenfold.systems.ldc.system import Ldc

pytestmark = pytest.mark.usefixtures("generated_only")
DIM, KNOWN = 8, 4


def clouds(classes: range, count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Gaussian features around corners of a cube, one a class."""
    random = torch.Generator().manual_seed(seed)
    labels = torch.tensor([c for c in classes for _ in range(count)])
    centres = 3 * torch.eye(DIM)
    return centres[labels] + torch.randn(len(labels), DIM, generator=random), labels


@pytest.fixture(scope="module")
def base() -> Base:
    return statistics(*clouds(range(KNOWN), 200, 0))


def test_the_estimate_is_near_new_pictures_and_seeded(base: Base) -> None:
    sure = torch.zeros(KNOWN, dtype=torch.int64)
    given = draws(base.means, base.covariance, sure, 0)
    again = draws(base.means, base.covariance, sure, 0)
    assert torch.equal(given.features, again.features)
    pictures, labels = clouds(range(KNOWN), 500, 1)
    photos, names = clouds(range(KNOWN, KNOWN + 2), 5, 2)
    for head in (Ncm(base), Lda(base)):
        before = 100 * float((head.logits(pictures).argmax(1) == labels).double().mean())
        assert abs(accuracy(head, given) - before) < 2
        head.learn(photos, names)
        after = 100 * float((head.logits(pictures).argmax(1) == labels).double().mean())
        found = effect("any", head, given, KNOWN, 1.0, 50.0)
        assert abs(found.known - after) < 2
        assert found.every == pytest.approx((KNOWN * found.known + 2 * 50) / (KNOWN + 2))
        assert effect("any", head, given, KNOWN, 0.5, 50.0).known == found.known / 2
        old, new, share = found.lost[0]
        rows = given.labels == old
        answers = head.logits(given.features[rows]).argmax(1)
        assert share == pytest.approx(100 * float((answers == new).double().mean()), abs=1e-4)


def test_a_mean_of_few_photos_is_uncertain() -> None:
    assert widths(torch.tensor([0, 1, 4])).tolist() == pytest.approx([1, 2**0.5, 1.25**0.5])


def test_photos_left_out_are_not_learned(base: Base) -> None:
    photos, labels = clouds(range(KNOWN, KNOWN + 2), 4, 3)
    seen: list[int] = []

    class Spy(Ncm):
        def learn(self, features: torch.Tensor, labels: torch.Tensor) -> None:
            seen.append(len(features))
            super().learn(features, labels)

    head = Spy(base)
    found = left_out(head, photos, labels - KNOWN, KNOWN)
    assert found > 50 and len(seen) == 3 and sum(8 - n for n in seen) == 8
    assert len(head.kept["vectors"]) == KNOWN  # copies learned
    assert math.isnan(left_out(head, photos[::4], torch.tensor([0, 1]), KNOWN))


def test_the_curve_is_the_loop_over_photos(base: Base) -> None:
    photos, labels = clouds(range(KNOWN, KNOWN + 2), 6, 4)
    photos, labels = photos.double(), labels - KNOWN
    found = enough(photos, labels, base.means, 0)
    assert [point.shots for point in found.curve] == [1, 2, 3, 4, 5]
    assert found.curve[-1].splits == 6 and found.curve[-1].left_out == 12
    right, taken = 0, []
    for i in range(12):
        others = [torch.stack([photos[j] for j in range(12) if j != i and labels[j] == c]).mean(0)
                  for c in range(2)]  # fmt: skip
        best = int(torch.stack([*base.means, *others]).sub(photos[i]).norm(dim=1).argmin())
        right += best == KNOWN + int(labels[i])
        taken += [] if best == KNOWN + int(labels[i]) else [(int(labels[i]), best)]
    assert sum(n for _, _, n in found.taken_for) == len(taken) == 12 - right
    assert all((a, b) in taken for a, b, _ in found.taken_for)
    assert found == enough(photos, labels, base.means, 0)
    one = torch.tensor([0, 6])
    assert "Cannot be told: 2 of 2" in enough(photos[one], labels[one], base.means, 0).verdict
    two = torch.tensor([0, 1, 6, 7])
    assert "Too few" in enough(photos[two], labels[two], base.means, 0).verdict


@pytest.mark.parametrize(
    ("apart", "says"), [(True, "Enough"), (False, "unlikely to help")], ids=["clear", "no"]
)
def test_the_verdict(base: Base, apart: bool, says: str) -> None:
    """Classes of their own, and photos that all look like known classes."""
    photos, labels = clouds(range(KNOWN, KNOWN + 2), 8, 5)
    centres = 3 * torch.eye(DIM)[labels]
    photos = (
        centres + 0.1 * (photos - centres)
        if apart
        else base.means[torch.arange(16) % KNOWN].float()
    )
    assert says in enough(photos.double(), labels - KNOWN, base.means, 0).verdict


def test_distances_of_photos_left_out(base: Base) -> None:
    photos, labels = clouds(range(KNOWN, KNOWN + 1), 5, 6)
    photos, eye = photos.double(), torch.eye(DIM, dtype=torch.float64)
    ones = torch.ones(KNOWN, dtype=torch.float64)
    found = away_left_out(photos, labels - KNOWN, base.means, ones)
    for i in range(5):
        rest = photos[[j for j in range(5) if j != i]].mean(0)
        means = torch.cat([base.means, rest[None]])
        wide = widths(torch.tensor([0] * KNOWN + [4]))
        # the whitening of `distances` shrinks a unit covariance by 10 %
        wanted = distances(photos[i : i + 1].float(), means.float().double(), eye, wide)
        assert float(found[i]) == pytest.approx(float(wanted) * 1.1**0.5, rel=1e-4)


# --- as a user meets it --------------------------------------------------------------------------


def save_photos(folder: Path, label: int, count: int) -> Path:
    folder.mkdir(parents=True)
    for i, picture in enumerate(shapes.draw(label, [f"{folder.name} {i}" for i in range(count)])):
        Image.fromarray(picture.transpose(1, 2, 0)).save(folder / f"{i}.png")
    return folder


def test_a_known_class_is_known_however_it_is_written() -> None:
    """macOS writes folder names in pieces: as another class, one name would stand for two."""
    classifier: Any = SimpleNamespace(known=["Caf\u00e9 noir"])
    for name in ("Cafe\u0301 noir", "CAFE\u0301 NOIR", "caf\u00e9  noir"):
        with pytest.raises(ValueError, match="class 'Caf\u00e9 noir' is known already"):
            Classifier.check_new(classifier, [name])
    Classifier.check_new(classifier, ["cafe noir"])


def test_hidden_photos_beside_class_folders_do_not_count(tmp_path: Path) -> None:
    """Archives of macOS bring such: they made one class of a folder of class folders."""
    save_photos(tmp_path / "classes" / "one", 13, 2)
    (tmp_path / "classes" / "._0.png").write_bytes(b"no picture")
    assert list(new_classes(tmp_path / "classes", "")) == ["one"]


@pytest.fixture
def run(made: Callable[[str], Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(made("ldc"), tmp_path / "run"))


def test_lines_json_page(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_photos(tmp_path / "new" / "<b>kite", 13, 5)
    save_photos(tmp_path / "new" / "star", 14, 5)
    cli.main(["learn", str(run), str(tmp_path / "new")])
    said = capsys.readouterr().out
    told = (
        "known before: accuracy", "(estimated, head ldc)", "lda", "enough? ", "none of these? ",
        "of 10 photos were called unknown before", "test pictures",
    )  # fmt: skip
    for words in told:
        assert words in said, words
    facts = json.loads((run / "learned/0001/learned.json").read_text())
    assert facts["head"] == "ldc" and facts["classes"] == {"<b>kite": 5, "star": 5}
    assert set(facts["accuracy"]["heads"]) == {"ldc", "lda", "ncm", "teen"}
    kept = facts["accuracy"]["heads"]["ldc"]["known"]
    assert facts["accuracy"]["loss"] == pytest.approx(facts["accuracy"]["known_before"] - kept)
    assert len(facts["enough"]["curve"]) == 4 and facts["unknown"]["left_out"] == 10
    page = (run / "learned/0001/learned.html").read_text()
    assert "&lt;b&gt;kite" in page and "<b>kite" not in page and "Are the photos enough?" in page


def test_another_head_learns_and_stays(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cli.main(["learn", str(run), str(save_photos(tmp_path / "one", 13, 1))])
    assert "cannot be told" in capsys.readouterr().out.lower()
    facts = json.loads((run / "learned/0001/learned.json").read_text())
    assert facts["accuracy"]["heads"]["lda"]["new"] is None
    cli.main(["learn", str(run), str(save_photos(tmp_path / "two", 14, 4)), "--head", "lda"])
    system = tenfold.load(run)
    assert isinstance(system, Ldc) and system.classifier.kind == "lda"
    classifier = system.classifier
    assert isinstance(classifier.head, Lda) and classifier.known[-2:] == ["one", "two"]
    assert classifier.new_photos.tolist() == [1, 4]
    features = classifier.features(torch.from_numpy(shapes.draw(14, ["a", "b", "c"])))
    assert classifier.head.logits(features).shape == (3, 14)
    cli.main(["learn", str(run), str(save_photos(tmp_path / "three", 15, 3))])
    assert tenfold.load(run).classifier.kind == "lda"  # type: ignore[attr-defined]
    cli.main(["learn", str(run), "--to", "1"])
    assert tenfold.load(run).classifier.kind == "ldc"  # type: ignore[attr-defined]
    with pytest.raises(SystemExit) as end:
        cli.main(["learn", str(run), str(tmp_path / "two"), "--head", "svm"])
    assert end.value.code == 2 and "ldc, lda, ncm, teen" in capsys.readouterr().err


def test_sub_folders_belong_to_the_class_and_are_named(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = save_photos(tmp_path / "kite", 13, 3)
    save_photos(one / "2024" / "may", 13, 2)
    cli.main(["learn", str(run), str(one)])
    said = capsys.readouterr().out
    assert "kite  │ 5" in said and "2 photos are of sub-folders: 2024 (2)" in said
    save_photos(tmp_path / "many" / "a" / "deep", 14, 2)
    save_photos(tmp_path / "many" / "b", 15, 2)
    cli.main(["learn", str(run), str(tmp_path / "many")])
    assert "a: 2 photos are of sub-folders: deep (2)" in capsys.readouterr().out
    shutil.copy(one / "0.png", tmp_path / "many" / "cover.png")
    with pytest.raises(SystemExit):
        cli.main(["learn", str(run), str(tmp_path / "many")])
    wrong = capsys.readouterr().err
    assert "cover.png" in wrong and "a, b" in wrong and "--name" in wrong
    cli.main(["learn", str(run), str(tmp_path / "many"), "--name", "all"])
    assert "all   │ 5" in capsys.readouterr().out


def test_a_run_of_before_is_read(run: Path, tmp_path: Path) -> None:
    """Weights without the new statistics load; the estimate is then not scaled."""
    system = tenfold.load(run)
    assert isinstance(system, Ldc) and int(system.model.judged[1]) > 0
    state = system.model.state_dict()
    assert float(state["measured"][0]) >= 0 and float(state["measured"][1]) >= 0
    for key in ("judged", "measured"):
        del state[key]
    older = Ldc(system.cfg)
    older.model.load_state_dict(state)
    assert "earlier version" in older.model.judges() and bool((older.model.measured < 0).all())
    found = older.learn(save_photos(tmp_path / "new", 13, 3), "")
    assert found.loss == pytest.approx(found.facts["accuracy"]["loss"])
