"""DTS on two folders of a user by the command line: what works, and what is refused in one line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny import config, options

from tenfold.generated import streets
from tenfold.systems.dts.system import Dts

pytestmark = pytest.mark.usefixtures("generated_only")
Call = Callable[..., tuple[int, str, str]]


def folder(place: Path, labelled: bool = True, count: int = 4) -> Path:
    """Images and index masks with the names of the classes; or images alone."""
    images = place / "images" if labelled else place
    for index in range(count):
        picture, labels = streets.scene(place.name, index, size=(48, 64))
        for part, pixels in ((images, picture), (place / "masks", labels))[: 1 + labelled]:
            part.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(part / f"{index}.png")
    if labelled:
        (place / "classes.txt").write_text("\n".join(streets.NAMES))
    return place


def folders(source: Path, target: Path) -> list[str]:
    own = ["--data.source", "folder", "--data.source-path", str(source)]
    return [*own, "--data.target", "folder", "--data.target-path", str(target)]


def masks(place: Path) -> list[Path]:
    return sorted((place / "masks").iterdir())


def other_classes(source: Path, target: Path) -> None:
    names = "\n".join([*streets.NAMES[:-1], "wheelbarrow"])
    (target / "classes.txt").write_text(names)


def no_labels(source: Path, target: Path) -> None:
    for file in masks(source):
        file.unlink()
    (source / "masks").rmdir()


def only_ignored(source: Path, target: Path) -> None:
    for file in masks(source):
        Image.fromarray(np.full((48, 64), 255, dtype=np.uint8)).save(file)


def other_size(source: Path, target: Path) -> None:
    for file in masks(source):
        Image.fromarray(np.zeros((48, 60), dtype=np.uint8)).save(file)


def out_of_range(source: Path, target: Path) -> None:
    for file in masks(source):
        Image.fromarray(np.full((48, 64), 77, dtype=np.uint8)).save(file)


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (other_classes, "only the target folder has wheelbarrow"),
        (no_labels, "source"),
        (only_ignored, "no picture has a labelled pixel"),
        (other_size, "has 60 x 48 pixels, its picture"),
        (out_of_range, "label maps hold label 77, but 11 classes are named"),
    ],
)
def test_what_cannot_be_trained_on_is_refused(
    damage: Callable[[Path, Path], None], says: str, call: Call, tmp_path: Path
) -> None:
    source, target = folder(tmp_path / "source"), folder(tmp_path / "target")
    damage(source, target)
    words = [*options("dts"), *folders(source, target), "--run.folder", tmp_path / "run"]
    code, _, err = call("train", "dts", "demo", *words)
    assert code == 2 and says in err and err.count("\n") == 1, err


def test_crops_without_a_label_and_a_lone_target_image_work(tmp_path: Path) -> None:
    """Half of the source is ignored whole, the rest but for a corner; the target is one photo."""
    source = folder(tmp_path / "source")
    for number, file in enumerate(masks(source)):
        labels = np.full((48, 64), 255, dtype=np.uint8)
        if number % 2:
            labels[:4, :4] = np.asarray(Image.open(file))[:4, :4]
        Image.fromarray(labels).save(file)
    target = folder(tmp_path / "target", labelled=False, count=1)
    words = [*options("dts"), *folders(source, target), "--data.rare-temperature", "0"]
    *_, stage = Dts(config("dts", "demo", words)).stages()
    batches = [stage.batches(index) for index in range(4)]
    assert any((batch["labels1"] == 255).all() for batch in batches)
    for batch in batches:
        losses = stage.training_step(stage.model.train(), batch, lambda value: value.backward())
        assert losses["loss"].isfinite()
    assert all(p.grad.isfinite().all() for p in stage.model.parameters())
