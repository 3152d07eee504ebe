"""Measures and predictions: against a plain count, and for folders as users have them."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageSequence
from tiny import config, options

from tenfold.data.images.class_maps import CITYSCAPES_NAMES, SYNTHIA_13, SYNTHIA_16
from tenfold.data.images.films import open_film
from tenfold.generated import streets
from tenfold.nn import norm
from tenfold.systems.dts import data, evaluation, write
from tenfold.systems.dts.config import Config, Data, PredictOptions
from tenfold.systems.dts.model import Networks
from tenfold.systems.dts.system import Dts
from tenfold.viz import films
from tenfold.viz.films import write_mp4

pytestmark = pytest.mark.usefixtures("generated_only")


@pytest.fixture(scope="module")
def system() -> Dts:
    """An untrained system: what it says does not matter here."""
    patch = pytest.MonkeyPatch()
    patch.delenv("TENFOLD_DATA", raising=False)
    torch.manual_seed(0)
    found = Dts(config("dts", "demo", options("dts")))
    patch.undo()
    return found


def test_means_of_synthia_are_over_16_and_13_classes() -> None:
    draw = torch.Generator().manual_seed(0)
    counts = torch.randint(0, 50, (19, 19), generator=draw)
    for name in ("terrain", "truck", "train"):  # they do not occur
        row = CITYSCAPES_NAMES.index(name)
        counts[row] = 0
        counts[:, row] = 0
    cfg = Dts.recipes["paper-synthia"]
    found = evaluation.measures(counts, replace(cfg, classes=CITYSCAPES_NAMES), "deployed")
    plain = counts.double().numpy()
    with np.errstate(invalid="ignore"):
        each = plain.diagonal() / (plain.sum(0) + plain.sum(1) - plain.diagonal())
    for title, names in (("mIoU16", SYNTHIA_16), ("mIoU13", SYNTHIA_13)):
        mean = 100 * np.mean([each[CITYSCAPES_NAMES.index(name)] for name in names])
        assert found[f"iou/deployed/{title}"] == pytest.approx(mean)
    assert found["iou/deployed/mIoU"] == pytest.approx(100 * np.nanmean(each))
    assert "class/terrain/deployed" not in found and "class/road/deployed" in found


def test_every_network_is_measured(system: Dts) -> None:
    found = system.evaluate()
    names = {"deployed", "student1", "student2", "teacher1", "teacher2", "ensemble"}
    assert {key.split("/")[1] for key in found.metrics if key.startswith("iou/")} == names
    pixels = 3 * 48 * 64
    assert all(int(counts.sum()) == pixels for counts in found.details.confusion.values())
    assert found.metrics["iou/deployed/mIoU"] == found.metrics["iou/student2/mIoU"]
    with pytest.raises(ValueError, match="unknown split 'val'"):
        system.evaluate("val")


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Frames of several sizes in two folders, and one that is broken."""
    folder = tmp_path_factory.mktemp("frames")
    (folder / "c").mkdir()
    for number, name in enumerate(["a.png", "b.png", "c/a.png"]):
        picture = streets.scene("frames", number, size=(40 + 7 * number, 64))[0]
        Image.fromarray(picture).save(folder / name)
    (folder / "broken.jpg").write_bytes(b"\xff\xd8 nothing")
    return folder


def test_a_folder_of_frames_has_maps_table_film_and_page(
    system: Dts, frames: Path, tmp_path: Path
) -> None:
    files = system.predict(frames, tmp_path, PredictOptions(network="ensemble"))
    names = {file.relative_to(tmp_path).as_posix() for file in files}
    kinds = ("labels", "overlay", "confidence")
    assert {f"c/a.png-{kind}.png" for kind in kinds} | {"film.mp4", "classes.png"} <= names
    labels = np.asarray(Image.open(tmp_path / "b.png-labels.png"))
    assert labels.shape == (47, 64) and labels.max() < len(system.cfg.classes)
    assert open_film(tmp_path / "film.mp4").count == 3
    rows = list(csv.DictReader((tmp_path / "predictions.csv").open()))
    assert [row["file"] for row in rows] == ["a.png", "b.png", "broken.jpg", "c/a.png"]
    whole = [row for row in rows if not row["problem"]]
    for row in whole:
        assert sum(float(row[name]) for name in system.cfg.classes) == pytest.approx(1, abs=1e-2)
    assert len(whole) == 3 and "broken.jpg" in rows[2]["problem"]
    assert "1 of 4 files cannot be read" in files[-1].read_text()


def test_a_film_is_its_frames(system: Dts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a folder of them; every second one where that is asked for."""
    pictures = [streets.scene("film", number, size=(48, 64))[0] for number in range(5)]
    write_mp4(tmp_path / "drive.mp4", pictures, 4.0)
    film = open_film(tmp_path / "drive.mp4")
    (tmp_path / "frames").mkdir()
    for number in range(5):
        Image.fromarray(film.frame(number)).save(tmp_path / "frames" / f"{number}.png")
    film.close()
    system.predict(tmp_path / "frames", tmp_path / "of-frames")
    files = system.predict(tmp_path / "drive.mp4", tmp_path / "of-film")
    for kind in ("labels", "overlay", "confidence"):
        for number in range(5):
            whole = tmp_path / "of-film" / f"frame-{number:06}-{kind}.png"
            alone = tmp_path / "of-frames" / f"{number}.png-{kind}.png"
            assert whole.read_bytes() == alone.read_bytes()
    assert files[-1].name == "predictions.html"
    found = open_film(tmp_path / "of-film" / "film.mp4")
    assert found.count == 5 and found.fps == 4
    monkeypatch.setattr(films, "can_write_mp4", lambda: False)
    system.predict(tmp_path / "drive.mp4", tmp_path / "every", PredictOptions(every=2))
    assert Image.open(tmp_path / "every" / "film.gif").n_frames == 3
    rows = list(csv.DictReader((tmp_path / "every" / "predictions.csv").open()))
    assert [row["file"] for row in rows] == ["frame 0", "frame 1", "frame 2"]


@pytest.mark.parametrize(("fps", "most"), [(10.0, 5), (100.0, 5), (100.0, 100)])
def test_a_gif_with_fewer_frames_lasts_as_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fps: float, most: int
) -> None:
    monkeypatch.setattr(films, "can_write_mp4", lambda: False)
    monkeypatch.setattr(write, "FRAMES", most)
    records = []
    for number in range(20):
        file = tmp_path / f"{number}-overlay.png"
        Image.new("RGB", (8, 6), (12 * number, 0, 0)).save(file)
        records.append(write.Record(str(number), written=[file]))
    with Image.open(write._film(records, fps, tmp_path)) as found:
        frames = [one.info["duration"] for one in ImageSequence.Iterator(found)]
    assert sum(frames) == pytest.approx(1000 * 20 / fps) and 5 <= len(frames) <= most


def test_a_lone_picture_keeps_its_name(system: Dts, frames: Path, tmp_path: Path) -> None:
    options = PredictOptions(network="teacher1", confidence=False)
    files = system.predict(frames / "a.png", tmp_path, options)
    names = {file.name for file in files}
    assert {"a-labels.png", "a-overlay.png"} <= names and "a-confidence.png" not in names
    with pytest.raises(ValueError, match=r"broken\.jpg"):
        system.predict(frames / "broken.jpg", tmp_path / "other")
    with pytest.raises(ValueError, match="results would lie among"):
        system.predict(frames, frames)


def test_a_network_that_the_run_has_not_is_refused(system: Dts, tmp_path: Path) -> None:
    words = [*options("dts"), "--groups.deploy", "student1"]
    alone = Dts(config("dts", "demo-baseline", words))
    Image.fromarray(streets.scene("one", 0, size=(48, 64))[0]).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match="has no student2; it has student1, teacher1"):
        alone.predict(tmp_path / "a.png", tmp_path / "out", PredictOptions(network="student2"))


def own_set(folder: Path, classes: tuple[str, ...], labelled: bool = True, count: int = 4) -> Path:
    """A folder of a user: images, and index masks where there are some."""
    images = folder / "images" if labelled else folder
    for index in range(count):
        picture, labels = streets.scene(folder.name, index, size=(48, 64))
        for place, pixels in ((images, picture), (folder / "masks", labels))[: 1 + labelled]:
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(place / f"{index}.png")
    if labelled:
        (folder / "classes.txt").write_text("\n".join(classes))
    return folder


def of_folders(source: Path, target: Path, *words: str) -> Dts:
    own = ["--data.source", "folder", "--data.source-path", str(source), *words]
    own += ["--data.target", "folder", "--data.target-path", str(target)]
    return Dts(config("dts", "demo", [*options("dts"), *own]))


def test_a_target_without_labels_is_measured_on_the_source(tmp_path: Path) -> None:
    source = own_set(tmp_path / "source", streets.NAMES)
    target = own_set(tmp_path / "target", streets.NAMES, labelled=False, count=1)
    system = of_folders(source, target)
    batch = next(system.stages()).batches(0)  # of one image alone
    assert batch["target_a"].shape == (2, 3, 32, 32)
    assert system.evaluate().metrics["iou/deployed/mIoU"] >= 0
    assert "the target has no labels: measured on held-out source images" in system.notes()


def test_source_images_are_measured_at_the_size_of_the_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = own_set(tmp_path / "source", streets.NAMES)
    target = own_set(tmp_path / "target", streets.NAMES, labelled=False, count=1)
    sizes = ["--data.source-size", "40", "56", "--data.target-size", "32", "64"]
    system = of_folders(source, target, *sizes)
    asked = []

    def answers(networks: object, pictures: list[np.ndarray], size: tuple[int, int]) -> list:
        asked.append(size)
        return [torch.zeros(len(system.cfg.classes), 4, 4) for _ in pictures]

    monkeypatch.setattr(evaluation, "answers", answers)
    system.evaluate()
    assert set(asked) == {(40, 56)}


def test_classes_that_differ_and_a_source_without_labels_are_refused(tmp_path: Path) -> None:
    source = own_set(tmp_path / "source", streets.NAMES)
    names = (*streets.NAMES[:-1], "wheelbarrow")
    with pytest.raises(ValueError, match="only the target folder has wheelbarrow"):
        of_folders(source, own_set(tmp_path / "target", names))
    bare = own_set(tmp_path / "bare", (), labelled=False)
    with pytest.raises((ValueError, FileNotFoundError), match="bare"):
        of_folders(bare, source)


def test_a_source_of_ignored_pixels_alone_is_refused(tmp_path: Path) -> None:
    source = own_set(tmp_path / "source", streets.NAMES)
    for file in (source / "masks").iterdir():
        Image.fromarray(np.full((48, 64), 255, dtype=np.uint8)).save(file)
    with pytest.raises(ValueError, match="no picture has a labelled pixel"):
        next(of_folders(source, source).stages())


@pytest.mark.parametrize("prefix", ["", "model."])
def test_an_official_checkpoint_becomes_a_run(prefix: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    words = ["--model.heads", "1", "2", "5", "8", "--model.dims", "8", "8", "10", "16"]
    given = Dts(config("dts", "demo", [*options("dts"), *words])).model.student(2)
    state = {f"{prefix}{key}": value for key, value in given.state_dict().items()}
    if prefix:
        state |= {f"ema_{key}": 2 * value for key, value in state.items()}
    torch.save({"meta": {}, "state_dict": state}, tmp_path / "official.pth")
    made, account = Dts.convert(tmp_path / "official.pth")
    account.require_complete()
    images = torch.randn(1, 3, 32, 64)
    with torch.no_grad():
        wanted = given.eval()(images).fused
        assert torch.equal(made.model.student(1).eval()(images).fused, wanted)
    encoder = {k.removeprefix("backbone."): v for k, v in given.state_dict().items()
               if k.startswith("backbone.")}  # fmt: skip
    torch.save(encoder, tmp_path / "mit.pth")
    with pytest.raises(ValueError, match="has an encoder alone; train from it"):
        Dts.convert(tmp_path / "mit.pth")
    words += ["--start", str(tmp_path / "mit.pth")]
    begun = Dts(config("dts", "demo", [*options("dts"), *words]))
    next(begun.stages())
    for name in begun.model.names():
        own = begun.model.named(name).backbone.state_dict()
        assert all(torch.equal(own[key], value) for key, value in encoder.items())


def test_target_statistics_are_a_row_of_source_only() -> None:
    words = [*options("dts"), "--method", "source", "--groups.deploy", "student1"]
    torch.manual_seed(0)
    found = Dts(config("dts", "demo", words)).evaluate()
    assert evaluation.TARGET_STATISTICS in found.baselines
    assert found.baselines[evaluation.TARGET_STATISTICS] != found.metrics


def statistics(networks: Networks, cfg: Config) -> list[torch.Tensor]:
    """Running means and variances of what target images make of a copy."""
    found = evaluation.with_target_statistics(networks, cfg)
    return [value for key, value in found.state_dict().items() if ".running_" in key]


def test_target_statistics_of_several_processes_are_those_of_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Every process sees all images, so that nothing is to be summed over them."""
    words = [*options("dts"), "--method", "source", "--groups.deploy", "student1"]
    system = Dts(config("dts", "demo", words))
    alone = statistics(system.model, system.cfg)
    monkeypatch.setattr(norm, "_several_processes", lambda: True)
    assert all(map(torch.equal, statistics(system.model, system.cfg), alone))


def test_target_statistics_are_of_photos_of_all_sizes(tmp_path: Path) -> None:
    source = own_set(tmp_path / "source", streets.NAMES)
    target = own_set(tmp_path / "target", streets.NAMES)
    for place in ("images", "masks"):
        for index in range(4):  # no batch of two has one size
            with Image.open(target / place / f"{index}.png") as image:
                image.crop((0, 0, 64, 48 - 4 * index)).save(target / place / f"{index}.png")
    words = ["--method", "source", "--groups.deploy", "student1", "--data.target-size", "0", "0"]
    system = of_folders(source, target, *words)
    seen = len(data.target_pictures(system.cfg.data))
    found = evaluation.with_target_statistics(system.model, system.cfg)
    norms = [m for m in found.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert norms and {int(norm.num_batches_tracked) for norm in norms} == {seen}


def test_generated_images_are_never_called_real(tmp_path: Path) -> None:
    """The kind is that of the images that are measured; the source is named with its own."""
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (32, 24)).save(tmp_path / "photos" / "a.png")
    photos = Data(source="streets", target="folder", target_path=str(tmp_path / "photos"))
    assert data.used(photos).kind == "generated"  # no labels there: measured on the source
    assert "measured on images of streets" in data.used(photos).note
    rendered = data.used(Data(source="folder", source_path="x", target="streets-dusk"))
    assert rendered.kind == "generated" and rendered.name.startswith("folder (real) to ")


def test_a_source_that_is_measured_is_not_trained_on(tmp_path: Path) -> None:
    """Sets without splits are divided where the target has no labels, and else used whole."""
    for part in ("images", "labels"):
        (tmp_path / "set" / part).mkdir(parents=True)
    for row in range(5):
        image, labels = streets.scene("streets/train", row, size=(24, 32))
        Image.fromarray(image).save(tmp_path / "set/images" / f"{row:05}.png")
        Image.fromarray(labels).save(tmp_path / "set/labels" / f"{row:05}.png")
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (32, 24)).save(tmp_path / "photos" / "a.png")
    here = Data(
        source="streetsim", source_path=str(tmp_path / "set"), target="folder",
        target_path=str(tmp_path / "photos"),
    )  # fmt: skip
    train, test = (data.labelled(here, "source", split).files for split in ("train", "test"))
    assert (len(train), len(test)) == (4, 1) and not set(train) & set(test)
    assert data.source_pixels(here).shape[0] == 4
    whole = replace(here, target="streets-dusk", target_path="")
    assert len(data.labelled(whole, "source", "train")) == 5
    both = replace(here, target="streetsim", target_path=str(tmp_path / "set"))
    train, test = data.labelled(both, "source", "train"), data.labelled(both, "target", "test")
    assert len(train) == 4 and not set(train.files) & set(test.files)


def test_an_oracle_trains_on_the_labels_of_the_target(tmp_path: Path) -> None:
    """The same folder as source and target: what is measured is not trained on."""
    own = own_set(tmp_path / "set", streets.NAMES, count=6)
    system = of_folders(own, own, "--method", "source", "--groups.deploy", "student1")
    batches = next(system.stages()).batches
    assert batches(0)["labels1"].shape == (2, 32, 32)
    train, test = (data.labelled(system.cfg.data, *which).files
                   for which in (("source", "train"), ("target", "test")))  # fmt: skip
    assert len(train) + len(test) == 6 and not set(train) & set(test)


def test_what_does_not_fit_is_known_before_the_first_step(tmp_path: Path) -> None:
    """A map of another size than its picture, a link that leads out, a photo that is none."""
    for part in ("images", "labels"):
        (tmp_path / "gta5" / part).mkdir(parents=True)
    for row in range(3):
        image, _ = streets.scene("streets/train", row, size=(24, 32))
        Image.fromarray(image).save(tmp_path / "gta5/images" / f"{row:05}.png")
        size = (32, 24) if row != 1 else (32, 23)
        Image.new("L", size, 7).save(tmp_path / "gta5/labels" / f"{row:05}.png")
    photos = tmp_path / "photos"
    photos.mkdir()
    Image.new("RGB", (32, 24)).save(tmp_path / "out.png")
    (photos / "a.png").symlink_to(tmp_path / "out.png")
    (photos / "b.png").write_bytes(b"no picture")
    usual = Data(
        source="gta5", source_path=str(tmp_path / "gta5"), target="folder",
        target_path=str(photos),
    )  # fmt: skip
    with pytest.raises(ValueError, match=r"00001\.png has 32 x 23 pixels.* set data\.skip_broken"):
        data.labelled(usual, "source", "train")
    with pytest.raises(ValueError, match=r"a\.png leads out of .* set data\.follow_links"):
        data.target_pictures(usual)
    own = replace(usual, skip_broken=True, follow_links=True)
    with pytest.warns(UserWarning, match=r"gta5: 1 of 3 pictures left out: .*00001\.png"):
        found = data.labelled(own, "source", "train")
    held = data.labelled(own, "source", "test")
    assert {f.name for f, _ in (*found.files, *held.files)} == {"00000.png", "00002.png"}
    targets = data.target_pictures(own)
    assert targets.picture(1).shape == (24, 32, 3)
    assert "b.png" in "".join(targets.replaced.values())


def test_a_turned_picture_fits_its_label_map(tmp_path: Path) -> None:
    own = own_set(tmp_path / "set", streets.NAMES, count=3)
    note = Image.Exif()
    note[0x0112] = 6
    for row, turned in ((0, (48, 64)), (1, (64, 48))):  # as stored, and as it is shown
        Image.new("RGB", (64, 48)).save(own / "images" / f"{row}.png", exif=note)
        Image.new("L", turned[::-1]).save(own / "masks" / f"{row}.png")
    here = Data(source="folder", source_path=str(own), target="streets-dusk", ignore_exif=True)
    found = [*(data.labelled(here, "source", split) for split in ("train", "test"))]
    assert sum(map(len, found)) == 3
    for part in found:
        for row in range(len(part)):
            picture, labels = part.scene(row)
            assert picture.shape[:2] == labels.shape
