"""Configuration, evaluation and settings of USAGE."""

from __future__ import annotations

import csv
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import config, options

import tenfold
from tenfold import cli
from tenfold.generated import shapes_wsss
from tenfold.metrics import iou
from tenfold.runner.weights import construct
from tenfold.systems.usage import data as usage_data
from tenfold.systems.usage import settings
from tenfold.systems.usage.backbones import Model
from tenfold.systems.usage.kept import build_kept
from tenfold.systems.usage.loss import generation_loss
from tenfold.systems.usage.model import UNSET
from tenfold.systems.usage.recipes import DEMO
from tenfold.systems.usage.seed_metrics import labels_at
from tenfold.systems.usage.system import Usage
from tenfold.systems.usage.training import SeedTraining, contrast

pytestmark = pytest.mark.usefixtures("generated_only")
WORDS = [*options("usage"), "--segment.steps", "0"]


def test_every_number_has_its_setting() -> None:
    words = ["--seeds.scales", "1", "0.5", "--refine.crf", "--threshold.how", "fixed"]
    system = construct(Usage, config("usage", "demo", [*WORDS, *words]))
    titles = system.labels()
    assert "scales 1 0.5, with flips, no CRF, threshold fixed" in titles["seeds/train/mIoU"]
    assert "no CRF, bfloat16" in settings.of_seeds(
        replace(system.cfg, seeds=replace(system.cfg.seeds, precision="bfloat16"))
    )
    assert "CRF" in titles["masks/train/mIoU"] and "segmentation/test/mIoU" not in titles
    found = system.evaluate()
    assert set(titles) <= {*found.metrics, *(key.rsplit("/", 1)[-1] for key in found.metrics)}
    told = re.findall(r'"([^"<.]+/[^"<.]+)"', " ".join(str(Usage.evaluate.__doc__).split()))
    assert len(told) > 3 and {*told} - {"segmentation/test/mIoU"} <= set(found.metrics)
    row = found.metrics["threshold/chosen/value"]
    assert row == system.cfg.threshold.fixed
    assert found.metrics["lost/chosen/points"] >= 0


def test_seeds_are_measured_at_the_threshold_of_the_run() -> None:
    """Which may lie beyond the sweep's last one, 0.59."""
    words = ["--threshold.how", "fixed", "--threshold.fixed", "0.85", "--data.generated", "8", "2"]
    system = construct(Usage, config("usage", "demo", [*WORDS, *words]))
    found, pipeline = system.evaluate(), system.pipeline()
    count, total = len(system.cfg.classes) + 1, 0
    for item in pipeline.items("train"):
        seeds = labels_at(pipeline.seed(item), 0.85)
        total = total + iou.confusion(seeds, torch.from_numpy(pipeline.true_mask(item)), count)
    want = iou.scores(total)["mIoU"]
    assert found.metrics["seeds/train/mIoU"] == pytest.approx(want)
    best = found.metrics["seeds/train, best threshold/mIoU"]
    assert found.metrics["lost/chosen/points"] == pytest.approx(best - want)
    assert pipeline.sweep("train").curve().miou[-1] != pytest.approx(want)


def test_choices_without_masks_are_set_against_the_best() -> None:
    """Every criterion, and the temperature that the usual classifier's errors ask for."""
    names = ["activation", "otsu", "edges", "stability", "confidence"]
    words = ["--threshold.compare", *names, "--loss.tau-pos", "0", "--loss.tau-neg", "0"]
    words += ["--threshold.how", "otsu", "--data.generated", "8", "2"]
    system = construct(Usage, config("usage", "demo", [*WORDS, *words]))
    found = system.evaluate()
    for name in names:
        assert 0 < found.metrics[f"threshold/{name}/value"] < 1
        assert found.metrics[f"lost/{name}/points"] >= 0
    assert found.metrics["threshold/chosen/value"] == found.metrics["threshold/otsu/value"]
    assert {"tau/by errors/value", "tau/by evidence/value"} <= set(found.metrics)
    assert sum("recommended by" in note for note in found.notes) == 2
    assert float(system.model.threshold) == UNSET  # nothing is left behind


def own_folder(folder: Path, count: int, masks: bool) -> Path:
    """Pictures of a user, and a table of their labels; returns the table."""
    rows = [["file", "labels"]]
    for place in ("images", "masks")[: 1 + masks]:
        (folder / place).mkdir(parents=True)
    for row in range(count):
        picture, mask = shapes_wsss.pair("own", row)
        Image.fromarray(picture).save(folder / "images" / f"{row}.png")
        if masks:
            Image.fromarray(mask).save(folder / "masks" / f"{row}.png")
        present = sorted(set(mask.ravel().tolist()) - {0, 255})
        names = [shapes_wsss.NAMES[label - 1] for label in present]
        rows.append([f"{row}.png", ";".join(names)])
    with (folder / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return folder / "labels.csv"


def test_a_folder_and_a_table_are_all_it_needs(tmp_path: Path) -> None:
    """One command to masks and a trained network; without masks it says what is not measured."""
    table = str(own_folder(tmp_path / "mine", 12, masks=False))
    words = [*options("usage"), "--data.name", "folder", "--data.path", table, "--steps", "2"]
    words += ["--segment.steps", "2", "--threshold.how", "fixed", "--data.holdout", "0"]
    cli.main(["train", "usage", "demo", *words, "--run.folder", str(tmp_path / "run")])
    assert len(list((tmp_path / "run/work/masks").glob("*.png"))) >= 9
    system = tenfold.load(tmp_path / "run")
    assert system.headline == ["classifier/test/mAP", "agreement/train/mIoU"]
    notes = system.evaluate().notes
    assert "not measured: pseudo masks, as the train pictures have no masks" in notes
    with pytest.raises(ValueError, match="looks at masks of the train pictures"):
        Usage.complete(replace(system.cfg, threshold=replace(system.cfg.threshold, how="swept")))


def test_a_table_with_a_test_of_its_own(tmp_path: Path) -> None:
    """Its test is measured, its validation (else a share) not trained on; labels must be known."""
    table = own_folder(tmp_path / "mine", 12, masks=True)
    head, *rows = table.read_text().splitlines()
    splits = ["train"] * 8 + ["test"] * 2 + ["val"] * 2

    def opened(splits: list[str], skip_broken: bool = False) -> tuple[list[str], ...]:
        lines = [f"{row},{split}" for row, split in zip(rows, splits, strict=True)]
        table.write_text("\n".join([f"{head},split", *lines]))
        data = replace(DEMO.data, name="folder", path=str(table), test_share=0.3)
        data = replace(data, skip_broken=skip_broken)
        usage_data.open_sets.cache_clear()
        sets = usage_data.open_sets(data)
        return tuple([i.name for i in s.items] for s in (sets.train, sets.validation, sets.test))

    train, validation, test = opened(splits)
    assert (validation, test) == (["10", "11"], ["8", "9"]) and len(train) == 8
    train, validation, test = opened(["train"] * 10 + ["test"] * 2)
    assert test == ["10", "11"] and sorted((*train, *validation), key=int) == list("0123456789")
    rows[8] = "8.png,zebra"
    with pytest.raises(ValueError, match="zebra is a label of split 'test'"):
        opened(splits)
    Image.fromarray(np.full((64, 64), 77, np.uint8)).save(tmp_path / "mine/masks/2.png")
    rows[8] = "8.png,disc"
    with pytest.raises(ValueError, match=r"2\.png holds 77 at row 0"):
        opened(splits)
    with pytest.warns(UserWarning, match="1 pictures left out: mask .*2.png holds 77"):
        train, *_ = opened(splits, skip_broken=True)
    assert len(train) == 7


@pytest.mark.parametrize("form", ["kl", "l1", "mse"])
def test_the_teacher_follows_and_regularises(form: str) -> None:
    """The loss is that of the parts, the ramp holds the regularisation back at first."""
    words = ["--loss.reg-weight", "2", "--loss.reg-form", form, "--loss.strong", "0.3"]
    words += ["--loss.ema", "0.5", "--steps", "9"]
    system = construct(Usage, config("usage", "demo", [*WORDS, *words]))
    stage = next(system.stages())
    training = stage.model
    assert isinstance(training, SeedTraining) and training.teacher is not None
    early, late = stage.batches(0), {**stage.batches(0), "step": 8}
    with torch.no_grad():
        for parameter in training.network.parameters():
            parameter.add_(0.01 * torch.randn_like(parameter))
    for batch, weight in ((early, 0.0), (late, 2.0)):
        with torch.no_grad():
            found = training.train()(batch)
        wanted = found["loss/generation"] + weight * found["loss/regularisation"]
        torch.testing.assert_close(found["loss"], wanted)
        assert float(found["loss/regularisation"]) > 0
    before = training.teacher.head.weight.clone()
    stage.after_step(0)
    wanted = (before + training.network.head.weight) / 2
    torch.testing.assert_close(training.teacher.head.weight, wanted)
    assert not any(p.requires_grad for p in training.teacher.parameters())


def test_no_temperature_is_the_usual_classifier() -> None:
    maps = torch.randn(2, 3, 16, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([[1.0, 0, 1], [0, 1, 0]])
    _, scores = generation_loss(maps, labels, 0.0, 0.0, "space", False)
    torch.testing.assert_close(scores, maps.mean(2))


def test_contrast_is_a_cross_entropy_over_present_classes() -> None:
    tokens = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([[1.0, 0, 1, 0], [0, 1, 0, 0], [1, 1, 1, 1]])
    total = 0.0
    for block in tokens:
        for picture, present in zip(block, labels, strict=True):
            unit = picture / picture.norm(dim=1, keepdim=True)
            rows = [row for row in range(4) if present[row]]
            losses = torch.nn.functional.cross_entropy(
                (unit @ unit.T)[rows], torch.tensor(rows), reduction="mean"
            )
            total += float(losses) / 6
    assert float(contrast(tokens, labels)) == pytest.approx(total, rel=1e-5)


def test_frozen_stages_are_computed_once_while_others_learn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The maps are those of the whole network, before and after a later stage changed."""
    monkeypatch.setenv("TENFOLD_CACHE", str(tmp_path))
    model = Model(name="efficientnet-lite0", width=8, frozen_stages=6)
    network = build_kept(model, 3, 1.0).eval()
    images = torch.randn(1, 3, 64, 64)
    for _ in range(2):
        network.gib = 1.0
        kept = network(images).maps
        network.gib = 0.0
        torch.testing.assert_close(network(images).maps, kept, rtol=1e-4, atol=1e-5)
        with torch.no_grad():
            network.body.blocks[-1].project_conv.weight.mul_(2)
    assert len(list((tmp_path / "features").iterdir())) == 1


def test_a_frozen_backbone_is_computed_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is read from disk is what was computed; other weights have other files."""
    monkeypatch.setenv("TENFOLD_CACHE", str(tmp_path))
    words = ["--model.frozen-stages", "-1", "--model.freeze-norm"]
    network = construct(Usage, config("usage", "demo", [*WORDS, *words])).model.seed.eval()
    images = torch.randn(2, 3, 32, 32)
    first = network(images).maps
    monkeypatch.setattr(network.body, "levels", lambda *_: pytest.fail("computed again"))
    torch.testing.assert_close(network(images.flip(0)).maps.flip(0), first)
    assert len(list((tmp_path / "features").iterdir())) == 2
    monkeypatch.undo()
    monkeypatch.setenv("TENFOLD_CACHE", str(tmp_path))
    with torch.no_grad():
        network.body.conv1.weight.add_(0.1)
    assert (network(images).maps - first).abs().max() > 1e-3
    assert len(list((tmp_path / "features").iterdir())) == 4


def test_a_frozen_backbone_of_random_weights_is_refused() -> None:
    cfg = Usage.complete(replace(DEMO, model=replace(DEMO.model, frozen_stages=-1)))
    with pytest.raises(ValueError, match="learns nothing: give --start FILE"):
        next(Usage(cfg).stages())
