"""LDC as its users meet it: train, learn from a few photos, undo, predict, convert, refuse."""

from __future__ import annotations

import dataclasses
import shutil
import signal
import textwrap
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import forked
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from tiny import config, options

import tenfold
from tenfold import cli, systems
from tenfold.core import dist
from tenfold.core.capabilities import Learns
from tenfold.core.seed import generator
from tenfold.core.versions import Versions
from tenfold.generated import shapes
from tenfold.runner import train
from tenfold.runner.weights import construct
from tenfold.systems.ldc.classifier import Classifier
from tenfold.systems.ldc.evaluation import nbytes
from tenfold.systems.ldc.heads import in_space
from tenfold.systems.ldc.model import BaseTrainingModel
from tenfold.systems.ldc.official import to_official
from tenfold.systems.ldc.recipes import RECIPES
from tenfold.systems.ldc.system import Ldc

pytestmark = pytest.mark.usefixtures("generated_only")


def save_photos(folder: Path, label: int, count: int, first: int = 0) -> Path:
    """Generated pictures of a class that no training saw."""
    folder.mkdir(parents=True)
    for i, picture in enumerate(shapes.draw(label, [f"photo {first + i}" for i in range(count)])):
        Image.fromarray(picture.transpose(1, 2, 0)).save(folder / f"{i}.png")
    return folder


@pytest.fixture
def trained(made: Callable[[str], Path]) -> Path:
    return made("ldc")


@pytest.fixture
def copy(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "run"))


def logits(folder: Path) -> torch.Tensor:
    """What a run says of some pictures now."""
    classifier = classifier_of(folder)
    images = torch.from_numpy(shapes.draw(3, [f"probe {i}" for i in range(4)]))
    return classifier.head.logits(classifier.features(images))


def classifier_of(folder: Path) -> Classifier:
    """The classifier of a run."""
    system = tenfold.load(folder)
    assert isinstance(system, Ldc)
    return system.classifier


def fails(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line that a refused command prints."""
    with pytest.raises(SystemExit) as end:
        cli.main(words)
    assert end.value.code == 2
    line = capsys.readouterr().err.strip()
    assert "\n" not in line and line.startswith("tenfold: ")
    return line


# --- learn -------------------------------------------------------------------------------------


def test_learn_undo_redo(copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = logits(copy)
    photos = save_photos(tmp_path / "red kite", 13, 5)
    cli.main(["learn", str(copy), str(photos)])
    said = capsys.readouterr().out
    assert "is at version 1" in said and "red kite" in said
    after = logits(copy)
    assert after.shape[1] == before.shape[1] + 1
    assert (copy / "learned/0001/features.png").read_bytes()[1:4] == b"PNG"
    cli.main(["learn", str(copy), "--undo"])
    assert torch.equal(logits(copy), before)
    cli.main(["learn", str(copy), "--redo"])
    assert torch.equal(logits(copy), after)
    # the weights themselves never change
    assert classifier_of(copy).known[-1] == "red kite"
    # learning again from the same photos is the same
    cli.main(["learn", str(copy), "--undo"])
    cli.main(["learn", str(copy), str(photos)])
    assert Versions(copy).current() == 2 and torch.equal(logits(copy), after)


def test_a_folder_of_class_folders_is_one_session(copy: Path, tmp_path: Path) -> None:
    for i, name in enumerate(("one", "two", "three")):
        save_photos(tmp_path / "classes" / name, 13 + i, 4)
    cli.main(["learn", str(copy), str(tmp_path / "classes")])
    assert classifier_of(copy).known[-3:] == ["one", "three", "two"]


def test_what_is_kept_does_not_depend_on_photos_seen(copy: Path, tmp_path: Path) -> None:
    """Class vectors, means and one covariance: 5 photos or 40, and from which session."""
    sizes = []
    for count in (5, 40):
        system = tenfold.load(copy)
        assert isinstance(system, Ldc)
        start = nbytes(system.classifier.head.state())
        learned = system.learn(save_photos(tmp_path / f"class of {count}", 15, count), "")
        assert learned.memory_before == start
        sizes.append(learned.memory_after - start)
    dim = system.model.encoder.dim
    assert sizes == [8 * dim, 8 * dim]  # a vector and a mean of float32


def test_learn_needs_none_of_the_old_pictures(
    copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shapes, "protocol", lambda **_: pytest.fail("old pictures were read"))
    cli.main(["learn", str(copy), str(save_photos(tmp_path / "new", 14, 5))])


def test_killed_while_learning(copy: Path, tmp_path: Path) -> None:
    """SIGKILL after the head has learned and before the version is whole: nothing has happened."""
    before = logits(copy)
    photos = save_photos(tmp_path / "new", 14, 5)
    script = textwrap.dedent("""
        import os, signal, sys
        from tenfold import cli
        from tenfold.core import checkpoint
        checkpoint.write_tensors = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
        cli.main(["learn", *sys.argv[1:]])
    """)
    (tmp_path / "killed.py").write_text(script)
    done = forked.run(tmp_path / "killed.py", copy, photos)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert Versions(copy).current() == 0
    assert torch.equal(logits(copy), before)
    cli.main(["learn", str(copy), str(photos)])
    assert Versions(copy).current() == 1


def test_one_photo_is_taken_with_a_note(
    copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cli.main(["learn", str(copy), str(save_photos(tmp_path / "lonely", 13, 1))])
    assert "only one photo" in capsys.readouterr().out
    assert logits(copy).isfinite().all()


def test_photos_of_any_mode_and_size(copy: Path, tmp_path: Path) -> None:
    folder = save_photos(tmp_path / "mixed", 13, 2)
    wide = Image.fromarray(np.zeros((40, 90, 3), dtype=np.uint8) + 90)
    for mode in ("L", "RGBA", "P", "CMYK", "1"):
        wide.convert(mode).save(folder / f"mode-{mode}.{'jpg' if mode == 'CMYK' else 'png'}")
    cli.main(["learn", str(copy), str(folder)])
    assert Versions(copy).history()[-1].version.photos == (7,)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda f: f.mkdir(), "holds no picture"),
        (lambda f: save_photos(f, 13, 3) / "0.png", "is a file"),
        (lambda f: (save_photos(f, 13, 3) / "1.png").write_bytes(b"\x89PNG nonsense"), "1.png"),
    ],
)
def test_bad_photos_change_nothing(
    copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], make, said: str
) -> None:
    made = make(tmp_path / "bad")
    target = made if isinstance(made, Path) else tmp_path / "bad"
    assert said in fails(["learn", str(copy), str(target)], capsys)
    assert not (copy / "learned").exists() or Versions(copy).current() == 0


def test_a_known_class_is_refused(
    copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos = save_photos(tmp_path / "again", 13, 5)
    name = classifier_of(copy).known[0]
    line = fails(["learn", str(copy), str(photos), "--name", name.upper()], capsys)
    assert "is known already" in line and "--name" in line


def test_learn_is_what_ldc_can_and_others_cannot() -> None:
    assert issubclass(systems.system_class("ldc"), Learns)
    assert not issubclass(systems.system_class("spgsn"), Learns)
    assert "ldc" in str(systems.refusal("spgsn", "learn"))


def test_batches_are_those_of_before() -> None:
    """Rows of base training: a permutation an epoch, seeded by (seed, "order", epoch)."""
    images = construct(Ldc, config("ldc", "demo", options("ldc"))).images
    count, size, seed = len(images.kept), images.cfg.data.batch_size, images.cfg.seed
    for index in (0, 7, images.epochs.steps - 1, images.epochs.steps, 3 * images.epochs.steps + 2):
        epoch, place = divmod(index, count // size)
        order = torch.randperm(count, generator=generator(seed, "order", epoch))
        assert np.array_equal(images.epochs.rows(index), order[place * size : (place + 1) * size])


# --- training ----------------------------------------------------------------------------------


def test_own_folder_of_class_folders(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for label in range(3):
        save_photos(tmp_path / "mine" / f"class {label}", label, 12)
    words = ["train", "ldc", "small", *options("ldc"), "--data.path", str(tmp_path / "mine")]
    cli.main([*words, "--run.folder", str(tmp_path / "run"), "--data.batch-size", "8"])
    said = capsys.readouterr().out
    assert "folder (real" in said
    (tmp_path / "mine/class 0/0.png").write_bytes(b"no picture")
    words += ["--run.folder", str(tmp_path / "other"), "--data.batch-size", "8"]
    assert "0.png" in fails(words, capsys)
    assert not (tmp_path / "other").exists()
    monkeypatch.setattr(train, "conclude", lambda *_: {})  # no evaluation
    cli.main([*words, "--data.skip-broken"])
    assert "0.png" in capsys.readouterr().err


def test_an_encoder_is_taken_as_it_is(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train, "conclude", lambda *_: {})  # no evaluation
    words = ["train", "ldc", "demo", *options("ldc"), "--encoder", str(trained), "--head", "lda"]
    cli.main([*words, "--run.folder", str(tmp_path / "run")])
    one, two = (load_file(f / "weights.safetensors") for f in (trained, tmp_path / "run"))
    assert all(torch.equal(one[k], two[k]) for k in one if k.startswith("encoder."))


def test_an_encoder_of_another_size_is_refused(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["train", "ldc", "demo", *options("ldc"), "--encoder", str(trained)]
    words += ["--run.folder", str(tmp_path / "run"), "--model.width", "6"]
    assert "--model.width" in fails(words, capsys)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("head", ["ldc", "ncm", "lda", "teen", "fine-tune"])
def test_every_head_learns_and_is_restored(trained: Path, tmp_path: Path, head: str) -> None:
    cfg = dataclasses.replace(tenfold.load(trained).cfg, head=head, encoder=str(trained))
    photos = save_photos(tmp_path / "new", 13, 5)
    one, two = construct(Ldc, cfg), construct(Ldc, cfg)
    for system in (one, two):
        assert [stage.name for stage in system.stages()] == (["calibrate"] if head == "ldc" else [])
    one.learn(photos, "")
    first, second = one.classifier, two.classifier
    two.restore_learned(one.learned_state(), tuple(first.known))
    features = first.features(torch.from_numpy(shapes.draw(1, ["a", "b"])))
    (left, unknown), (right, same) = first.classify(features), second.classify(features)
    assert torch.equal(left, right) and torch.equal(unknown, same) and left.shape[1] == 13
    with pytest.raises(ValueError, match="does not hold a mean of each"):
        two.restore_learned(one.learned_state(), tuple(first.known[:-1]))


def test_the_first_features_are_those_of_all_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each process meets its rows of a batch; what is kept is what one process would have kept."""
    words = [*options("ldc"), "--calibration.features", "first-epoch"]
    network = construct(Ldc, config("ldc", "demo", words)).model
    one, two = BaseTrainingModel(network, 3), BaseTrainingModel(network, 3)
    features = torch.randn(2, 8, network.encoder.dim)
    labels = torch.tensor([[0, 1, 1, 2, 1, 1, 0, 2], [0, 0, 2, 1, 2, 2, 0, 0]])
    for batch, kinds in zip(features, labels, strict=True):
        one._collect(batch, kinds)
    for batch, kinds in zip(features, labels, strict=True):
        first = (batch[:4], kinds[:4].tolist())
        world = SimpleNamespace(gather_objects=lambda own, first=first: [first, own])
        monkeypatch.setattr(dist, "current", lambda world=world: world)
        two._collect(batch[4:], kinds[4:])
    assert torch.equal(one.seen, two.seen) and torch.equal(one.filled, two.filled)
    assert one.filled[:4].tolist() == [3, 3, 3, 0]


def test_the_unit_can_learn_from_the_first_features(
    tmp_path: Path, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As the official code has it, behind a switch: collected in training, kept on resume."""
    words = [*options("ldc"), "--calibration.features", "first-epoch"]
    cfg = config("ldc", "demo", words)
    system = construct(Ldc, cfg)
    names = []
    for stage in system.stages():
        names.append(stage.name)
        if stage.name == "base":
            with torch.no_grad(), pytest.raises(ValueError, match="no picture of class 0"):
                stage.model.collected()
            for step in range(6):
                stage.model(stage.batches(step))
            early, count = stage.model.collected(), stage.model.filled
            assert early.shape == (12, 30, system.model.encoder.dim)
            few = int(count.argmin())
            assert torch.equal(early[few, : count[few]], early[few, count[few] : 2 * count[few]])
        else:
            real = stage.batches(0)["real"]
            torch.testing.assert_close(
                real, in_space(early.flatten(0, 1), "tukey").view(real.shape)
            )
    assert names == ["base", "calibrate"]
    line = ["train", "ldc", "demo", *words, "--encoder", str(trained)]
    assert "--calibration.features final" in fails(
        [*line, "--run.folder", str(tmp_path / "run")], capsys
    )


# --- predict -----------------------------------------------------------------------------------


def test_strangers_are_called_unknown(copy: Path, tmp_path: Path) -> None:
    classifier = classifier_of(copy)
    features = classifier.features(torch.from_numpy(shapes.draw(0, ["a", "b"])))
    assert classifier.classify(features, 0.0)[1].all()  # nearer than the nearest is impossible
    probabilities, unknown = classifier.classify(1000 * features, 100.0)
    assert not unknown.any()
    torch.testing.assert_close(probabilities.sum(1), torch.ones(2))


def test_a_folder_with_a_broken_picture_is_answered(copy: Path, tmp_path: Path) -> None:
    folder = save_photos(tmp_path / "=photos", 2, 3)
    (folder / "=1+1.png").write_bytes(b"nothing")
    written = tenfold.load(copy).predict(folder, tmp_path / "out")
    table = next(p for p in written if p.suffix == ".csv").read_text()
    assert "'=1+1.png" in table and table.count("\n") == 5


# --- official checkpoints ----------------------------------------------------------------------


def test_convert_and_back(trained: Path, tmp_path: Path) -> None:
    """An encoder in CEC's layout becomes a run that predicts and learns."""
    recipe = RECIPES["paper"]
    names = tuple(f"class {i}" for i in range(100))
    cfg = dataclasses.replace(
        recipe, classes=names, data=dataclasses.replace(recipe.data, base=60), head="ncm"
    )
    made = construct(Ldc, cfg)
    torch.save(to_official(made.model.state_dict(), 100), tmp_path / "session0.pth")
    cli.main(["convert", "ldc", str(tmp_path / "session0.pth")])
    folder = tmp_path / "session0"
    assert "fc.weight[60:]" in (folder / "conversion.txt").read_text()
    system = tenfold.load(folder)
    assert isinstance(system, Ldc) and len(system.classifier.known) == 60
    torch.testing.assert_close(
        system.classifier.head.state()["vectors"],
        made.model.classifier.detach(),
        rtol=1e-6,
        atol=1e-6,
    )
    cli.main(["learn", str(folder), str(save_photos(tmp_path / "new", 13, 5))])
    assert len(classifier_of(folder).known) == 61


def test_help_of_a_run_names_its_options(trained: Path) -> None:
    said = forked.run("-m", "tenfold", "predict", trained, "--help").stdout
    assert "--unknown" in said and "--top" in said
