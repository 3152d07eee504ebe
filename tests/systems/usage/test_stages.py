"""Stages and the files between them: kept, continued, entered with files of others."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import config, options

from tenfold.core import dist, loop
from tenfold.core.run_folder import contents
from tenfold.data.images.image_labels import read_image
from tenfold.runner.weights import construct
from tenfold.systems.usage import inference, pipeline, walking
from tenfold.systems.usage.system import Usage

pytestmark = pytest.mark.usefixtures("generated_only")
HERE = dist.World(0, 1, torch.device("cpu"))
WORDS = [*options("usage"), "--steps", "3", "--segment.steps", "2", "--data.generated", "8", "4"]


def trained(folder: Path, *words: str) -> Usage:
    cfg = config("usage", "demo", [*WORDS, *words])
    system = construct(Usage, cfg)
    system.work = folder / "work"
    loop.train(system.stages(), cfg.loop, HERE, folder, cfg.seed)
    return system


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Usage]:
    """A run that nothing disturbed."""
    folder = tmp_path_factory.mktemp("usage")
    return folder, trained(folder)


def files(folder: Path, kind: str) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted((folder / "work" / kind).iterdir())}


def same(one: Usage, other: Usage) -> bool:
    a, b = one.model.state_dict(), other.model.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def test_who_is_killed_between_stages_goes_on(
    run: tuple[Path, Usage], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seeds that were written are not computed again; all ends as without the kill."""
    whole, system = run
    calls: list[int] = []
    make = inference.seed_maps

    def counted(*args: Any) -> Any:
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return make(*args)

    monkeypatch.setattr(pipeline.inference, "seed_maps", counted)
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path)
    assert len(files(tmp_path, "seeds")) == 4  # three, and what they follow from
    again = trained(tmp_path)
    assert len(calls) == 4 + 8 - 3
    assert same(again, system)
    for kind in ("seeds", "masks"):
        assert files(tmp_path, kind) == files(whole, kind)


def test_files_of_other_weights_are_made_anew(run: tuple[Path, Usage], tmp_path: Path) -> None:
    whole, _ = run
    shutil.copytree(whole / "work", tmp_path / "work")
    other = trained(tmp_path, "--seed", "1")
    fresh = tmp_path / "fresh"
    assert same(other, trained(fresh, "--seed", "1"))
    assert files(tmp_path, "seeds") == files(fresh, "seeds") != files(whole, "seeds")


def test_files_are_those_of_a_run(run: tuple[Path, Usage]) -> None:
    """`--run.fresh` deletes them, and nothing else in the folder."""
    folder, _ = run
    (folder / "work/seeds/notes.txt").write_text("mine")
    found = contents(folder)
    (folder / "work/seeds/notes.txt").unlink()
    assert found.foreign == ["work/seeds/notes.txt"]
    assert {"work/seeds/made.json", "work/masks/made.json"} <= set(found.ours)


def test_a_stage_can_be_entered_with_files_of_others(
    run: tuple[Path, Usage], tmp_path: Path
) -> None:
    """Seeds as PSA writes them, and masks: earlier stages are not trained."""
    whole, system = run
    own = system.pipeline()
    given = tmp_path / "given"
    given.mkdir()
    for item in own.items("train") + own.items("validation"):
        maps = {label: own.seed(item)[label].numpy() for label in item.labels}
        np.save(given / f"{item.name}.npy", maps, allow_pickle=True)  # type: ignore[arg-type]
    entered = trained(tmp_path / "a", "--data.seeds-path", str(given))
    assert files(tmp_path / "a", "masks").keys() == files(whole, "masks").keys()
    for item in own.items("train"):
        assert np.array_equal(entered.pipeline().pseudo_mask(item), own.pseudo_mask(item))
    assert "classifier/test/mAP" not in entered.evaluate().metrics
    masked = trained(tmp_path / "b", "--data.masks-path", str(whole / "work/masks"))
    assert "seeds/train/mIoU" not in masked.evaluate().metrics
    a, b = (one.model.segment.state_dict() for one in (entered, masked))
    assert all(torch.equal(a[key], b[key]) for key in a)


def test_masks_that_do_not_fit_are_named(run: tuple[Path, Usage], tmp_path: Path) -> None:
    _, system = run
    item = system.pipeline().items("train")[0]
    cfg = replace(system.cfg, data=replace(system.cfg.data, masks_path=str(tmp_path)))
    own = construct(Usage, cfg).pipeline()
    with pytest.raises(FileNotFoundError, match=f"has no file {item.name}"):
        own.require_given()
    height, width = read_image(item).shape[:2]
    Image.fromarray(np.full((height, width), 9, np.uint8)).save(tmp_path / f"{item.name}.png")
    with pytest.raises(ValueError, match="holds label 9, but there are 5 classes"):
        own.require_given()
    Image.fromarray(np.ones((height + 1, width), np.uint8)).save(tmp_path / f"{item.name}.png")
    with pytest.raises(ValueError, match=f"stage masks: the mask of {item.name} has"):
        own.require_given()


def test_seeds_of_another_size_are_named_where_they_are_measured(
    run: tuple[Path, Usage], tmp_path: Path
) -> None:
    """Of many files not all are read before the training."""
    _, system = run
    cfg = replace(system.cfg, data=replace(system.cfg.data, seeds_path=str(tmp_path)))
    own = construct(Usage, cfg).pipeline()
    for item in own.items("train"):
        height, width = read_image(item).shape[:2]
        maps = {label: np.zeros((height - 1, width), np.float32) for label in item.labels}
        np.save(tmp_path / f"{item.name}.npy", maps, allow_pickle=True)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"stage seeds: the mask of .* has"):
        own.sweep("train")


@pytest.mark.parametrize("size", [(9, 100), (5, 5), (64, 60)])
@pytest.mark.parametrize("walk", ["psa", "irn"])
def test_a_walk_is_made_on_pictures_of_any_size(walk: str, size: tuple[int, int]) -> None:
    words = ["--refine.walk", walk, "--refine.log2-steps", "1"]
    walker = construct(Usage, config("usage", "demo", [*WORDS, *words])).model.affinity
    assert walker is not None
    picture = np.random.default_rng(0).integers(0, 255, (*size, 3), dtype=np.uint8)
    found = walker.walked(picture, torch.rand(5, *size))
    assert found.shape == (6, *size) and bool(found.isfinite().all())
    for stride in (4, 8, 16):
        assert walking.stride_of((305, 321), (-(-305 // stride), -(-321 // stride))) == stride


@pytest.mark.parametrize(
    ("walk", "name", "value", "way"),
    [
        ("irn", "low", "2", "--refine.walk psa"),
        ("irn", "high", "12", "--refine.walk psa"),
        ("irn", "power", "8", "--refine.walk psa"),
        ("psa", "ground", "0.3", "--refine.walk irn"),
        ("none", "log2-steps", "2", "--refine.walk psa or --refine.walk irn"),
    ],
)
def test_what_a_walk_does_not_read_is_refused(walk: str, name: str, value: str, way: str) -> None:
    words, shown = [*WORDS, "--refine.walk", walk], name.replace("-", "_")
    said = rf"refine\.{shown} is {value}.*refine\.walk is {walk}, .*or add {way}\."
    with pytest.raises(ValueError, match=said):
        config("usage", "demo", [*words, f"--refine.{name}", value])
    config("usage", "demo", words)


@pytest.mark.parametrize("walk", ["psa", "irn"])
def test_a_walk_has_a_stage_of_its_own(walk: str, tmp_path: Path) -> None:
    """Sure labels are files, its network learns, and masks follow from what it learned."""
    words = ["--refine.walk", walk, "--refine.steps", "2", "--refine.batch-size", "2"]
    words += ["--data.generated", "8", "2", "--segment.steps", "1"]
    words += ["--refine.crop", "64", "--refine.view", "whole", "--refine.log2-steps", "2"]
    words += ["--refine-optim.lr", "0.01"]
    system = trained(tmp_path, *words)
    assert (tmp_path / "checkpoints/affinity/done.json").is_file()
    own = system.pipeline()
    labels = own.confident(own.items("train")[0])
    assert labels.shape == (64, 64) and set(np.unique(labels)) <= {0, 1, 2, 3, 4, 5, 255}
    assert len(files(tmp_path, "masks")) == len(own.items("train")) + 1
    before = files(tmp_path, "masks")
    found = system.evaluate().metrics
    assert "masks/train/mIoU" in found and files(tmp_path, "masks") == before
    assert "random walk of" in system.labels()["masks/train/mIoU"]
    with torch.no_grad():
        for parameter in system.model.affinity.parameters():  # type: ignore[union-attr]
            parameter.mul_(2)
    own.make_masks()
    assert files(tmp_path, "masks")["made.json"] != before["made.json"]
