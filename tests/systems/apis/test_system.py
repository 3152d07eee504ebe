"""APIS as a system: rounds and their files, what is known of an object, starts, refusals."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pycocotools.coco import COCO
from tiny import config, options

import tenfold
from tenfold.cli import main
from tenfold.core import checkpoint
from tenfold.core.claim import Claim
from tenfold.core.stage import Stage
from tenfold.data.images.crops import crop_of
from tenfold.data.images.instances import Point, Shape
from tenfold.generated import hollows
from tenfold.report.results import lookup
from tenfold.runner import train
from tenfold.runner.claim import jobs_of
from tenfold.runner.weights import completed, construct
from tenfold.systems.apis import (
    Apis,
    Config,
    PredictOptions,
    data,
    evaluation,
    pretrained,
    selection,
)
from tenfold.systems.apis.answers import standing
from tenfold.systems.apis.rounds_of_run import Cost
from tenfold.systems.apis.selection import Question
from tenfold.systems.apis.training import Training

pytestmark = pytest.mark.usefixtures("generated_only")
Made = Callable[[str], Path]


def tiny(*words: str) -> Config:
    return config("apis", "demo", [*options("apis"), *words])


def log_of(run: Path) -> list[Any]:
    file = run / "work" / "rounds" / "answers.jsonl"
    return standing(json.loads(line) for line in file.read_text().splitlines())


# --- rounds --------------------------------------------------------------------------------------


def test_a_run_keeps_true_answers_and_points_of_every_stage(made: Made) -> None:
    run, found = made("apis"), log_of(made("apis"))
    some = data.open_set(tenfold.load(run).cfg.data, "train")
    shapes = {shape.id: shape for one in some.pictures for shape in one.asked}
    assert {one.annotation for one in found} == set(shapes)
    assert [one.round for one in found] == [0] * len(shapes) + [1] * len(shapes)
    for one in found:
        mask = shapes[one.annotation].mask
        assert mask is not None and one.label == int(mask.at(one.x, one.y))
    assert {one.source for one in found} <= {"random", "entropy", "fallback"}
    content = json.loads((run / "work/rounds/round1.json").read_text())
    first = {one.annotation: [one.x, one.y] for one in found if one.round == 0}
    for item in content["annotations"]:
        assert "segmentation" not in item
        assert item["point_coords"][0] == first[item["id"]]
        assert len(item["point_labels"]) == 2


def test_rounds_are_kept_and_asked_again_where_weights_changed(made: Made, tmp_path: Path) -> None:
    """The same files byte for byte; other weights ask anew; without made.json all is as it was."""
    run = tmp_path / "run"
    shutil.copytree(made("apis"), run)
    system = tenfold.load(run)
    assert isinstance(system, Apis)
    rounds = system.rounds()
    system.model.load_state_dict(checkpoint.read_tensors(rounds.folder / "boxes.safetensors"))
    names = ("answers.jsonl", "round1.json", "made.json")
    before = {name: (rounds.folder / name).read_bytes() for name in names}
    (rounds.folder / "made.json").unlink()
    (rounds.folder / "round1.json").unlink()
    rounds.ask(1)
    assert {name: (rounds.folder / name).read_bytes() for name in names} == before
    (rounds.folder / "round1.json").unlink()
    rounds.ask(1)  # kept: nothing is written
    assert not (rounds.folder / "round1.json").exists()
    with torch.no_grad():
        for parameter in system.model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    rounds.ask(1)
    assert (rounds.folder / "made.json").read_bytes() != before["made.json"]
    assert len(log_of(run)) == before["answers.jsonl"].count(b"\n")


def test_a_run_that_ended_in_a_round_goes_on_with_the_same_questions(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What `tests/test_every_system.py` does in the first stage, here between the stages."""
    words = ["train", "apis", "demo", *options("apis"), "--run.folder", str(tmp_path / "run")]
    stages = Apis.stages

    def broken(self: Apis) -> Iterator[Stage]:
        for stage in stages(self):
            if stage.name == "round1":
                raise RuntimeError("killed")
            yield stage

    monkeypatch.setattr(train, "conclude", lambda *_: {})  # what is measured does not matter
    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(Apis, "stages", broken)
        main(words)
    asked = (tmp_path / "run/work/rounds/made.json").read_bytes()
    main(words)
    assert (tmp_path / "run/work/rounds/made.json").read_bytes() == asked
    whole, run = made("apis"), tmp_path / "run"
    for name in ("weights.safetensors", "work/rounds/answers.jsonl", "work/rounds/round1.json"):
        assert (run / name).read_bytes() == (whole / name).read_bytes()


def test_budgets_take_the_least_sure() -> None:
    some = [[Question(1, (0, 0), "entropy", 0.1), Question(2, (1, 1), "entropy", 0.7)],
            [Question(3, (2, 2), "entropy", 0.5)], []]  # fmt: skip
    cfg = tiny()

    def kept(**changes: int) -> list[int]:
        own = replace(cfg, points=replace(cfg.points, **changes))
        return [one.annotation for one in selection.within_budget(some, own, 1)]

    assert kept() == [1, 2, 3]
    assert kept(per_image=1) == [2, 3]
    assert kept(total=2) == [2, 3] and kept(total=1) == [2]
    equal = [[Question(number, (0, 0), "random", 0.0) for number in range(40)]]
    own = replace(cfg, points=replace(cfg.points, total=10))
    drawn = [one.annotation for one in selection.within_budget(equal, own, 1)]
    assert drawn == sorted(drawn) and drawn != list(range(10))  # not the first of the file


def test_nothing_is_asked_of_objects_whose_masks_are_known(tmp_path: Path) -> None:
    system = construct(Apis, tiny("--loss.masked-share", "0.5"))
    system.work = tmp_path
    rounds = system.rounds()
    rounds.ask(1)
    asked = {one.annotation for one in rounds.answers("round1")}
    every = [shape for one in rounds.train.pictures for shape in one.asked]
    known = [shape for shape in every if shape.id not in asked]
    assert asked and known and all(data.is_masked(system.cfg, shape) for shape in known)
    cost = rounds.cost("round1")
    assert cost.answers == 2 * len(asked)
    assert cost.seconds == pytest.approx(79.2 * len(known) + (7 + 2 * 0.9) * len(asked))


def test_an_oracle_may_err_doubt_and_skip() -> None:
    mask = np.zeros((20, 20), dtype=bool)
    mask[:, :10] = True
    shapes = {5: Shape(5, 0, (0.0, 0.0, 20.0, 20.0), crop_of(mask))}
    questions = [Question(5, (x, y), "random", 0.0) for x in range(20) for y in range(10)]
    cfg = tiny()

    def labels(**changes: int | float) -> list[Any]:
        own = replace(cfg, oracle=replace(cfg.oracle, **changes))
        return [one.label for one in selection.answered(questions, shapes, own, 1)]

    true = [int(x < 10) for x in range(20) for y in range(10)]
    assert labels() == true
    wrong = sum(a != b for a, b in zip(labels(noise=0.2), true, strict=True))
    assert 20 < wrong < 60 and labels(noise=0.2) == labels(noise=0.2)
    unsure = [one is None for one in labels(not_sure=1.0)]
    near = [questions[row].xy[0] for row, is_unsure in enumerate(unsure) if is_unsure]
    assert {9, 10} <= set(near) and not set(near) & set(range(11, 20)) and len(near) < 60
    assert 50 < labels(skip=0.5).count("skip") < 150


@pytest.mark.parametrize("committee", ["flip", "dropout"])
def test_committees_have_more_members(committee: str, made: Made) -> None:
    from tenfold.systems.apis import inference

    system = tenfold.load(made("apis"))
    train = data.open_set(system.cfg.data, "train")
    boxes = [shape.box for shape in train.pictures[0].asked]
    alone = inference.members(system.model, system.cfg, train.picture(0), boxes, 1, 0)
    cfg = replace(system.cfg, points=replace(system.cfg.points, committee=committee, members=3))
    found = inference.members(system.model, cfg, train.picture(0), boxes, 1, 0)
    for one, other in zip(alone, found, strict=True):
        assert len(other) == {"flip": 2, "dropout": 3}[committee] * len(one)
        assert other.shape[1:] == one.shape[1:] and 0 <= other.min() <= other.max() <= 1


# --- what the network sees -----------------------------------------------------------------------


@pytest.mark.parametrize("is_flipped", [False, True])
def test_views_move_boxes_masks_and_points_alike(is_flipped: bool) -> None:
    train = hollows.open_set("views", 4)
    for row, one in enumerate(train.pictures):
        shapes = one.asked
        points = []
        for shape in shapes:
            assert shape.mask is not None
            places = [(int(shape.box[0]) + 3, int(shape.box[1]) + 5), (2, 60)]
            points.append([Point(x, y, int(shape.mask.at(x, y))) for x, y in places])  # type: ignore[arg-type]
        masked = [True] * len(shapes)
        seen = data.view(train.picture(row), shapes, points, masked, 96, 200, is_flipped)
        assert seen.picture.shape == (3, 96, 96) and seen.masks.shape[1:] == (96, 96)
        for mask, box, xy, answers in zip(
            seen.masks, seen.boxes, seen.points, seen.answers, strict=True
        ):
            y, x = mask.nonzero(as_tuple=True)
            around = torch.tensor([x.min(), y.min(), x.max() + 1, y.max() + 1])
            torch.testing.assert_close(around.float(), box, atol=1.0, rtol=0.0)
            x, y = xy.long().T
            assert torch.equal(mask[y, x].long(), answers)


def test_objects_of_one_batch_are_known_in_three_ways() -> None:
    """A mask here, points there, a box elsewhere; every loss has something to learn from."""
    cfg = tiny("--loss.masked-share", "0.5")
    train = data.open_set(cfg.data, "train")
    known = {data.is_masked(cfg, shape) for one in train.pictures for shape in one.asked}
    assert known == {True, False}
    network = construct(Apis, cfg).model
    batches = data.Batches(cfg, train, "boxes", lambda number: (Point(20, 20, 1),) * (number % 2))
    losses: dict[str, float] = {}
    for index in range(4):
        found = Training(cfg, network, is_first=True)(batches(index))
        losses = {k: losses.get(k, 0.0) + float(v.detach()) for k, v in found.items()}
    names = ("mask", "projection", "pairwise", "point", "class", "box", "centreness")
    assert all(losses[f"loss/{name}"] > 0 for name in names)
    assert losses["loss"] == pytest.approx(sum(losses[f"loss/{name}"] for name in names), rel=1e-5)


# --- measures ------------------------------------------------------------------------------------


def test_measures_stand_beside_the_whole_box(made: Made) -> None:
    result = json.loads((made("apis") / "result.json").read_text())
    metrics, floor = result["metrics"], result["baselines"]
    test = data.open_set(tenfold.load(made("apis")).cfg.data, "test")
    fills = []
    for one in test.pictures:
        for shape in one.asked:
            x0, y0, x1, y1 = shape.box
            fills.append(shape.mask.area / ((x1 - x0) * (y1 - y0)))  # type: ignore[union-attr]
    whole = floor["whole box"]["given/final/IoU"]
    assert whole == pytest.approx(100 * np.mean(fills), rel=1e-6)
    assert 0 < floor["ellipse in the box"]["given/final/IoU"] < 100
    objects = metrics["answers/boxes/all"]
    assert metrics["answers/final/all"] == 2 * objects
    assert metrics["answers/final/per object"] == 2
    assert metrics["seconds/final/total"] == pytest.approx(objects * (7 + 2 * 0.9))
    assert {key.split("/")[1] for key in metrics if key.startswith("masks/")} == {
        "boxes", "round1", "final",
    }  # fmt: skip


def test_every_cost_has_its_unit() -> None:
    cost = evaluation.costs(Cost(2, 4, 0, 0, 17.6), "final")
    units = {key: lookup(key, Apis.units) for key in cost}
    assert units.pop("seconds/final/total") == "s" and not any(units.values())
    assert lookup("fill/car/share", Apis.units) == "%"
    assert lookup("seconds/final/total", Apis.better) == "lower"


def test_overlap_counts_pixels_beyond_the_box() -> None:
    truth = np.array([[True, True], [False, False]])
    assert evaluation.overlap(truth, truth, 2) == 1
    assert evaluation.overlap(truth, truth, 4) == 0.5
    assert evaluation.overlap(~truth, truth, 2) == 0


def test_weights_alone_are_measured_at_their_last_round(made: Made, tmp_path: Path) -> None:
    for name in ("weights.safetensors", "weights.safetensors.sha256"):
        shutil.copy(made("apis") / name, tmp_path / name)
    found = tenfold.load(tmp_path / "weights.safetensors").evaluate("validation")
    assert "masks/final/AP" in found.metrics and "masks/boxes/AP" not in found.metrics
    assert any("only its last network" in note for note in found.notes)


# --- use -----------------------------------------------------------------------------------------


def test_objects_are_read_by_pycocotools(made: Made, tmp_path: Path) -> None:
    from PIL import Image

    for number in range(2):
        picture = hollows.picture("use", number).picture
        Image.fromarray(picture[: 64 - 9 * number]).save(tmp_path / f"{number}.png")
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8 nothing")
    out = tmp_path / "out"
    system = tenfold.load(made("apis"))
    all_of_them = replace(system.model.settings.detection, threshold=0.0)  # it has learned little
    system.model.settings = replace(system.model.settings, detection=all_of_them)
    files = system.predict(tmp_path, out, PredictOptions(score=0.0, most=5))
    assert files[-1].name == "predictions.html"
    assert "broken.jpg" in (out / "predictions.csv").read_text()
    truth = COCO(str(out / "images.json"))
    found = truth.loadRes(str(out / "objects.json"))
    assert len(found.anns) == 10
    for item in found.anns.values():
        mask, size = found.annToMask(item), truth.imgs[item["image_id"]]
        assert mask.shape == (size["height"], size["width"])
        x, y, wide, tall = item["bbox"]
        mask[int(y) : int(y + tall) + 1, int(x) : int(x + wide) + 1] = 0
        assert not mask.any()  # nothing outside of the box


# --- starts, claims, refusals --------------------------------------------------------------------


def test_training_goes_on_from_a_run(made: Made) -> None:
    cfg = tiny("--start", str(made("apis")), "--steps", "0", "--points.strategy", "bald")
    system = construct(Apis, completed(Apis, cfg))
    first = next(system.stages())
    assert first.steps == 0 and "tensors" in system.origin
    given = tenfold.load(made("apis")).model.state_dict()
    assert all(torch.equal(given[key], value) for key, value in system.model.state_dict().items())
    other = construct(Apis, replace(cfg, classes=("one", "two")))
    with pytest.warns(UserWarning, match="the classifier starts anew"):
        pretrained.begin(other.model, other.cfg)
    taken = other.model.state_dict()["branch.tower.0.0.weight"]
    assert torch.equal(taken, given["branch.tower.0.0.weight"])


def test_answers_of_people_are_trained_on(made: Made, tmp_path: Path) -> None:
    """A folder of photos and a file with points, as the page exports it: no mask anywhere."""
    from PIL import Image

    content = json.loads((made("apis") / "work/rounds/round1.json").read_text())
    photos, file = tmp_path / "photos", tmp_path / "points.json"
    photos.mkdir()
    for image in content["images"]:
        split, _, number = image["file_name"].rpartition("/")
        image["file_name"] = f"{number}.png"
        picture = hollows.picture(split, int(number)).picture
        Image.fromarray(picture).save(photos / f"{number}.png")
    file.write_text(json.dumps(content))
    words = ["--data.name", "folder", "--data.path", str(photos), "--points.rounds", "0"]
    words += ["--data.points-path", str(file), "--steps", "2"]
    words += ["--points.initial", "0", "--run.folder", str(tmp_path / "run")]
    main(["train", "apis", "demo", *options("apis"), *words])
    result = json.loads((tmp_path / "run/result.json").read_text())
    assert result["main"] == ["agreement/final/points"]
    assert 0 <= result["metrics"]["agreement/final/points"] <= 100
    assert result["metrics"]["answers/final/per object"] == 2
    assert any("no masks" in note for note in result["notes"])


def test_claims_share_what_they_have_in_common() -> None:
    claims: list[Claim[Config]] = construct(Apis, tiny()).claims()
    arms = {arm.name: arm for c in claims for arm in (c.baseline, *c.also, c.method)}
    order = [arm for arm, seed in jobs_of(claims, arms) if seed == 0]
    assert order[:3] == ["boxes", "first point", "random"]
    wanted = {"random", "entropy", "bald", "topk_random", "diverse", "boxes alone", "full masks"}
    assert wanted <= set(arms)

    def steps(name: str) -> int:
        cfg, after = arms[name].config, arms[name].after
        own = cfg.steps + cfg.points.rounds * cfg.round_steps
        return own + (steps(after) if after else 0)

    assert len({steps(name) for name in wanted}) == 1


@pytest.mark.parametrize(
    ("group", "changes", "problem"),
    [
        ("loss", {"supervision": "box"}, "learns from no point"),
        ("model", {"bounds": (64,)}, "give two"),
        ("oracle", {"noise": 1.5}, r"--oracle.noise must be in \[0, 1\], got 1.5"),
        ("points", {"share": 0.0}, "--points.share"),
        ("points", {"members": 0}, "--points.members"),
        ("data", {"short_sides": ()}, "data.short_sides is empty"),
    ],
)
def test_what_cannot_work_is_refused(group: str, changes: dict[str, Any], problem: str) -> None:
    cfg = Apis.recipes["demo"]
    with pytest.raises(ValueError, match=problem):
        replace(cfg, **{group: replace(getattr(cfg, group), **changes)})


def test_what_cannot_be_begun_is_refused(tmp_path: Path) -> None:
    cfg = Apis.recipes["demo"]
    with pytest.raises(ValueError, match="there is no start"):
        Apis.complete(replace(cfg, steps=0))
    with pytest.raises(ValueError, match="--data.path"):
        Apis.complete(replace(cfg, data=replace(cfg.data, name="folder")))
    nothing = replace(cfg.points, initial=0, rounds=0)
    with pytest.raises(ValueError, match="no point is asked for"):
        replace(cfg, points=nothing, loss=replace(cfg.loss, supervision="points"))
    other = tmp_path / "other.safetensors"
    checkpoint.write_tensors(other, {"a": torch.zeros(1)}, {"tenfold": json.dumps(
        {"system": "ldc", "config": {}}
    )})  # fmt: skip
    with pytest.raises(ValueError, match="weights of ldc, not of apis"):
        next(construct(Apis, tiny("--start", str(other))).stages())


def test_a_truth_that_is_not_there_is_not_asked(tmp_path: Path) -> None:
    from PIL import Image

    Image.fromarray(hollows.picture("own", 0).picture).save(tmp_path / "a.png")
    item = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [5, 5, 20, 20], "area": 400,
            "iscrowd": 0}  # fmt: skip
    content = {
        "images": [{"id": 1, "file_name": "a.png", "height": 64, "width": 64}],
        "annotations": [item], "categories": [{"id": 1, "name": "thing"}],
    }  # fmt: skip
    (tmp_path / "instances.json").write_text(json.dumps(content))
    words = ["--data.name", "folder", "--data.path", str(tmp_path)]
    with pytest.warns(UserWarning, match="only picture"):
        with pytest.raises(ValueError, match="1 of 1 training objects of folder have no mask"):
            tiny(*words)


def test_splits_are_named(made: Made) -> None:
    with pytest.raises(ValueError, match="unknown split 'train2'.*test, validation"):
        tenfold.load(made("apis")).evaluate("train2")
