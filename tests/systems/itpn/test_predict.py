"""Predictions of iTPN for folders: names of results, what is held in memory, what pages say."""

from __future__ import annotations

import csv
import json
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from PIL import Image

from tenfold.core.system import Evaluation
from tenfold.generated import scenes
from tenfold.runner.export import TOLERANCE, export_checked
from tenfold.runner.weights import construct
from tenfold.systems.itpn import Itpn, data, evaluation, inference, predict
from tenfold.systems.itpn.config import Config, PredictOptions
from tenfold.systems.itpn.networks import network_of

CLASSES = ("background", *scenes.NAMES)
ALL = ("pretrain", "classify", "localise", "segment", "detect")


def config(*tasks: str) -> Config:
    """Small untrained networks of some tasks."""
    words = [*tiny.options("itpn"), "--data.name", "scenes", "--tasks", "pretrain"]
    words += ["--dense.head-dim", "8", "--dense.size", "64", "--dense.short-sides", "64"]
    cfg = tiny.config("itpn", "demo", [*words, "--dense.fc-dim", "16"])
    return replace(cfg, tasks=tasks, classes=CLASSES)


@pytest.fixture(scope="module")
def system() -> Itpn:
    return construct(Itpn, config(*ALL))


def photo(path: Path, number: int = 0, scale: int = 1) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(scenes.scene("own", number).picture)
    image.resize((80 * scale, 60 * scale)).save(path)
    return path


def table(out: Path) -> list[dict[str, str]]:
    with (out / "predictions.csv").open() as file:
        return list(csv.DictReader(file))


def test_each_file_has_results_of_its_own(system: Itpn, tmp_path: Path) -> None:
    names = ["a.jpg", "a.png", "c/a.jpg"]
    for number, name in enumerate(names):
        photo(tmp_path / "photos" / name, number)
    out = tmp_path / "out"
    written = system.predict(str(tmp_path / "photos"), str(out))
    assert len(set(written)) == len(written)
    assert sorted(written) == sorted(path for path in out.rglob("*") if path.is_file())
    for name in names:
        for kind in ("labels", "overlay", "objects"):
            with Image.open(out / f"{name}-{kind}.png") as image:
                assert image.size[0] in (80, 240)  # objects are drawn on an enlarged copy
    assert [row["file"] for row in table(out)] == names
    assert written[-1].name == "predictions.html"


def test_a_lone_file_keeps_its_short_names(system: Itpn, tmp_path: Path) -> None:
    written = system.predict(photo(tmp_path / "a.jpg"), tmp_path / "out")
    names = {path.name for path in written}
    assert {"a-labels.png", "a-overlay.png", "a-objects.png", "objects.json"} <= names
    assert {"labels.png", "boxes.png", "segmentation.png", "objects.png", "pyramid.png"} <= names


def test_what_was_predicted_before_is_not_predicted(tmp_path: Path) -> None:
    segmenter = construct(Itpn, config("segment"))
    photos = photo(tmp_path / "photos/a.jpg").parent
    for _ in range(2):
        segmenter.predict(photos, photos / "out")
        assert [row["file"] for row in table(photos / "out")] == ["a.jpg"]
    with pytest.raises(ValueError, match="would lie among the pictures of .*another --out"):
        segmenter.predict(photos, photos)
    with pytest.raises(ValueError, match="holds no picture but those of"):
        segmenter.predict(photos / "out", photos / "out/..")


def test_what_cannot_be_read_is_listed(system: Itpn, tmp_path: Path) -> None:
    photos = photo(tmp_path / "photos/c/a.jpg").parents[1]
    (photos / "broken.jpg").write_bytes(b"\xff\xd8 nothing")
    (photos / "=now.png").write_bytes(b"")
    system.predict(photos, tmp_path / "out")
    rows = {row["file"]: row["problem"] for row in table(tmp_path / "out")}
    assert list(rows) == ["'=now.png", "broken.jpg", "c/a.jpg"]
    assert "broken.jpg is not a picture" in rows["broken.jpg"] and not rows["c/a.jpg"]
    page = (tmp_path / "out/predictions.html").read_text()
    assert "2 of 3 files cannot be read" in page and "c/a.jpg: " in page
    with pytest.raises(ValueError, match="broken"):
        system.predict(photos / "broken.jpg", tmp_path / "never")
    (photos / "c/a.jpg").write_bytes(b"")
    with pytest.raises(ValueError, match="none of 3 pictures can be read"):
        system.predict(photos, tmp_path / "never")
    assert not (tmp_path / "never").exists()


def test_one_image_is_in_memory_at_a_time(
    system: Itpn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More photos than the page shows; small ones and ones that the page shows reduced."""
    monkeypatch.setattr(predict, "SHOWN", 2)
    for number in range(6):
        photo(tmp_path / f"photos/{number}.png", number, 4 if number % 3 == 0 else 1)
    read: Callable[[Path, Path], np.ndarray] = predict.read_offered
    answer = predict.answer
    alive: list[weakref.ref] = []
    most = 0

    def held() -> int:
        return sum(one() is not None for one in alive)

    def counted(inputs: Path, file: Path) -> np.ndarray:
        nonlocal most
        most = max(most, held())  # of those that were read before
        image = read(inputs, file).copy()
        alive.append(weakref.ref(image))
        return image

    def answered(*words: object) -> inference.Answer:
        found = answer(*words)  # type: ignore[arg-type]
        large = (found.labels, None if found.objects is None else found.objects.masks)
        alive.extend(weakref.ref(one) for one in large if one is not None)
        return found

    monkeypatch.setattr(predict, "read_offered", counted)
    monkeypatch.setattr(predict, "answer", answered)
    system.predict(tmp_path / "photos", tmp_path / "out", PredictOptions(score=0.1))
    assert len(alive) == 18 and most == 0 and held() == 0


def test_the_page_shows_images_of_all_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(predict, "SHOWN", 3)
    localiser = construct(Itpn, config("localise"))
    for number in range(6):
        photo(tmp_path / f"photos/{'ab'[number // 3]}/{number}.png", number)
    localiser.predict(tmp_path / "photos", tmp_path / "out")
    assert len(table(tmp_path / "out")) == 6
    page = (tmp_path / "out/predictions.html").read_text()
    shown = [name for name in (row["file"] for row in table(tmp_path / "out")) if name in page]
    assert shown == ["a/0.png", "a/2.png", "b/5.png"]


def test_objects_are_as_the_network_found_them(system: Itpn, tmp_path: Path) -> None:
    """Masks of weak objects are not made, those of the others are the same."""
    image = np.asarray(Image.open(photo(tmp_path / "a.png")))
    network = network_of(system.model, "detect")
    every = inference.detect(network, image, system.cfg)
    least = float(np.median(every.scores))
    some = inference.detect(network, image, system.cfg, least)
    rows = every.scores >= least
    assert 0 < rows.sum() < len(rows)
    assert np.array_equal(some.boxes, every.boxes[rows])
    assert every.masks is not None and np.array_equal(some.masks, every.masks[rows])
    system.predict(tmp_path / "a.png", tmp_path / "out", PredictOptions(score=least))
    listed = json.loads((tmp_path / "out/objects.json").read_text())
    assert len(listed) == rows.sum()
    assert list(listed[0])[:4] == ["image_id", "category_id", "file_name", "category"]
    assert listed[0]["segmentation"]["size"] == [60, 80]


def loaded(images: Path, objects: Path) -> list[dict]:
    """What pycocotools takes for results, sorted by number."""
    from pycocotools.coco import COCO

    found = COCO(str(images)).loadRes(str(objects))
    return [found.anns[number] for number in sorted(found.anns)]


def test_objects_are_results_that_pycocotools_takes(system: Itpn, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    for number, name in enumerate(("a.png", "c/b.png")):
        photo(photos / name, number)
    own = {
        "images": [{"id": 40, "file_name": "b.png"}, {"id": 7, "file_name": "a.png"}],
        "categories": [{"id": 90 - i, "name": name} for i, name in enumerate(CLASSES)],
        "annotations": [],
    }
    (tmp_path / "own.json").write_text(json.dumps(own))
    out, again = tmp_path / "out", tmp_path / "again"
    system.predict(photos, out, PredictOptions(score=0.05, yolo=True))
    system.predict(photos, again, PredictOptions(score=0.05, coco=str(tmp_path / "own.json")))
    first = loaded(out / "images.json", out / "objects.json")
    second = loaded(tmp_path / "own.json", again / "objects.json")
    assert len(first) == len(second) > 2
    assert {one["image_id"] for one in first} == {1, 2}
    assert {one["image_id"] for one in second} == {7, 40}
    for one, other in zip(first, second, strict=True):
        assert other["category_id"] == 91 - one["category_id"]
        assert one["bbox"] == other["bbox"] and isinstance(one["segmentation"]["counts"], str)
    with (out / "objects.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(first) and rows[0]["class"] == first[0]["category"]
    x0, y0, wide, tall = first[0]["bbox"]
    assert float(rows[0]["x1"]) == pytest.approx(x0 + wide, abs=0.01)
    lines = [line.split() for name in ("a", "c/b")
             for line in (out / f"yolo/labels/{name}.txt").read_text().splitlines()]  # fmt: skip
    assert len(lines) == len(first)
    name = (out / "yolo/classes.txt").read_text().splitlines()[int(lines[0][0])]
    assert name == first[0]["category"]
    centre, middle = float(lines[0][1]) * 80, float(lines[0][2]) * 60
    assert (centre, middle) == pytest.approx((x0 + wide / 2, y0 + tall / 2), abs=0.01)


@pytest.mark.parametrize("options", [PredictOptions(coco="own.json"), PredictOptions(yolo=True)])
def test_files_of_objects_need_a_run_that_finds_some(
    options: PredictOptions, tmp_path: Path
) -> None:
    system = construct(Itpn, config("classify"))
    with pytest.raises(ValueError, match="is for detected objects, and this run has learned class"):
        system.predict(photo(tmp_path / "a.png"), tmp_path / "out", options)
    assert not (tmp_path / "out").exists()


def test_numbers_that_do_not_fit_are_refused_first(system: Itpn, tmp_path: Path) -> None:
    source, file = photo(tmp_path / "a.png"), tmp_path / "own.json"
    good = {"images": [{"id": 1, "file_name": "x/a.png"}],
            "categories": [{"id": i, "name": n} for i, n in enumerate(CLASSES)]}  # fmt: skip
    for change, said in (
        ({"images": [{"id": 1, "file_name": "b.png"}]}, "lists no picture called a.png"),
        ({"categories": [{"id": 1, "name": "cat"}]}, "has no category background"),
        ({"images": 3}, "no list of images"),
        ({"categories": [{"id": "one", "name": "cat"}]}, "needs name and a whole id"),
    ):
        file.write_text(json.dumps(good | change))
        with pytest.raises(ValueError, match=said):
            system.predict(source, tmp_path / "out", PredictOptions(coco=str(file)))
    file.write_text("[" * 100_000)
    with pytest.raises(ValueError, match="own.json is no JSON"):
        system.predict(source, tmp_path / "out", PredictOptions(coco=str(file)))
    assert not (tmp_path / "out").exists()


def test_boxes_of_a_narrow_picture_are_where_the_network_saw_them(
    system: Itpn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A box around all that the network sees is one around the whole picture."""
    from tenfold.nn.mask_rcnn import Detections

    network, seen = network_of(system.model, "detect"), []

    def everything(images: torch.Tensor, sizes: torch.Tensor) -> list[Detections]:
        seen.append(sizes[0].tolist())
        height, width = seen[-1]
        box = torch.tensor([[0.0, 0, width, height], [width / 2, 0, width, height / 2]])
        return [Detections(box, torch.ones(2), torch.ones(2).long(), torch.ones(2, 8, 8))]

    monkeypatch.setattr(network, "detect", everything)
    image = np.zeros((60, 1000, 3), dtype=np.uint8)
    dense = replace(system.cfg.dense, short_sides=(176,), longest=192)
    found = inference.detect(network, image, replace(system.cfg, dense=dense))
    assert seen == [[12, 192]]
    assert found.boxes == pytest.approx(np.array([[0, 0, 1000, 60], [500, 0, 1000, 30]]))
    inference.detect(network, image, inference.at_size(replace(system.cfg, dense=dense), 24))
    assert seen[-1] == [2, 26]  # as far as the protocol's ratio of sides allows


def test_segmentation_at_the_size_of_the_test(system: Itpn) -> None:
    """Windows, one row of them at a time, and maps of the photo's own size."""
    network = network_of(system.model, "segment")
    image = np.asarray(Image.fromarray(scenes.scene("own", 1).picture).resize((150, 90)))
    for dense, short in (
        ({"stride": 40, "resize": (0, 0)}, 0), ({"stride": 40, "resize": (48, 192)}, 0),
        ({"stride": 0, "resize": (48, 192)}, 0), ({"stride": 0, "resize": (0, 0)}, 32),
    ):  # fmt: skip
        cfg = replace(system.cfg, dense=replace(system.cfg.dense, **dense))
        found = inference.label_map(network, image, inference.at_size(cfg, short))
        assert found.shape == (90, 150) and found.max() < len(CLASSES)


def test_a_large_photo_is_not_seen_whole(system: Itpn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inference, "MOST_UNITS", 20)
    network = network_of(system.model, "segment")
    dense = replace(system.cfg.dense, stride=0, resize=(0, 0))
    image = np.zeros((96, 128, 3), dtype=np.uint8)
    with pytest.warns(UserWarning, match="more than 20 units .* windows of 64 pixels; --short"):
        found = inference.label_map(network, image, replace(system.cfg, dense=dense))
    assert found.shape == (96, 128)
    monkeypatch.setattr(inference, "MOST_MASKS", 96 * 128)
    with pytest.warns(UserWarning, match="the best 1 are kept"):
        objects = inference.detect(network_of(system.model, "detect"), image, system.cfg)
    assert len(objects) == 1


def test_boxes_lie_in_the_image(system: Itpn) -> None:
    network = network_of(system.model, "localise").eval()
    box = inference.whole_box(network, np.zeros((30, 50, 3), dtype=np.uint8), system.cfg)
    assert (box >= 0).all() and (box <= [50, 30, 50, 30]).all()


def test_measured_boxes_are_those_that_are_predicted(system: Itpn) -> None:
    network, cfg = network_of(system.model, "localise"), system.cfg
    photos = data.photographs(cfg.data, "test", cfg.seed).at(np.arange(1))
    before = network.box.bias.detach().clone()
    try:  # as wide as the picture, and half of it beyond the left side
        network.box.bias.data.copy_(torch.tensor([-9.0, 0.0, 9.0, 0.0]))
        measured = evaluation.boxes(network, photos, cfg)
        predicted = inference.whole_box(network, photos.picture(0), cfg)
    finally:
        network.box.bias.data.copy_(before)
    assert predicted[0] == 0
    np.testing.assert_allclose(measured[0], predicted, rtol=1e-4)


def test_a_mask_follows_from_the_seed_and_the_place(tmp_path: Path) -> None:
    system, source = construct(Itpn, config("pretrain")), photo(tmp_path / "a.png")
    sheets = []
    for number, seed in enumerate((0, 0, 1)):
        out = tmp_path / str(number)
        system.predict(source, out, PredictOptions(seed=seed))
        sheets.append((out / "reconstruction.png").read_bytes())
    assert sheets[0] == sheets[1] != sheets[2]


def test_wrong_options_are_refused(system: Itpn, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="--top must be at least 1, got 0"):
        PredictOptions(top=0)
    with pytest.raises(ValueError, match=r"--score must be in \[0, 1\)"):
        PredictOptions(score=1.0)
    with pytest.raises(ValueError, match="must be a PredictOptions, got a dict"):
        system.predict(photo(tmp_path / "a.png"), tmp_path / "out", {"top": 3})


def test_figures_need_an_evaluation(system: Itpn, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="evaluate first"):
        system.pictures(tmp_path)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="none of this system"):
        system.pictures(Evaluation({}), tmp_path)


def test_export_leaves_the_network_as_it_was(system: Itpn) -> None:
    before = {key: value.clone() for key, value in system.model.state_dict().items()}
    what = system.export_part("segment", (96, 128))
    assert what.inputs[0].shape == (2, 3, 96, 128)
    after = system.model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(after[key], value) for key, value in before.items())


@pytest.mark.parametrize(
    ("masks", "to"),
    [(True, "eager"), (False, "eager"), pytest.param(True, "onnx", marks=pytest.mark.slow)],
)
def test_an_exported_detector_is_the_detector(tmp_path: Path, masks: bool, to: str) -> None:
    cfg = config("detect")
    system = construct(Itpn, replace(cfg, dense=replace(cfg.dense, masks=masks, proposals=32)))
    network = network_of(system.model, "detect").eval()
    torch.manual_seed(0)
    torch.nn.init.normal_(network.head.box_head.classify.weight, std=0.5)
    torch.nn.init.normal_(network.head.rpn.score.weight, std=0.5)
    what = system.export_part("detect", (64, 128))
    if to == "onnx":  # the graph without masks is a part of this one
        pytest.importorskip("onnxruntime")
        assert export_checked(what, "onnx", tmp_path / "detector.onnx") < TOLERANCE
    with torch.no_grad():
        (want,) = network.detect(what.inputs[0], torch.tensor([[64, 128]]))
        found = dict(zip(what.output_names, what.module(*what.inputs), strict=False))
    count = len(want.scores)
    assert 5 < count and not found["scores"][count:].any()
    for name in what.output_names:
        torch.testing.assert_close(
            found[name][:count], getattr(want, name), rtol=1e-3, atol=1e-4, msg=name
        )
    with pytest.raises(ValueError, match="multiples of 64 pixels, got 60 x 128"):
        system.export_part("detect", (60, 128))
