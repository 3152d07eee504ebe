"""What the labelling page asks: a run's network, and ONNX files in SAM's layout."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from onnx import TensorProto, helper, save
from web.discs import draw

import tenfold
from tenfold.generated import hollows
from tenfold.systems.apis import segmenters, serving
from tenfold.systems.apis.config import PageOptions
from tenfold.systems.apis.promptable import INPUTS, Promptable
from tenfold.systems.apis.segmenters import MOST, NetworkSegmenter

Made = Callable[[str], Path]
FLOAT = TensorProto.FLOAT


# --- the network of a run ------------------------------------------------------------------------


@pytest.mark.usefixtures("generated_only")
def test_answers_move_the_mask_and_not_the_network(made: Made) -> None:
    system = tenfold.load(made("apis"))
    segmenter = NetworkSegmenter(system.model, system.cfg)
    assert segmenter.classes == list(hollows.NAMES)
    drawn = hollows.picture("segmenters", 1)
    box = tuple(float(value) for value in drawn.boxes[0])
    before = {key: value.clone() for key, value in system.model.state_dict().items()}
    opened = segmenter.open(drawn.picture)
    first = opened.committee(box, 0, [])
    x0, y0, x1, y1 = (int(value) for value in box)
    assert 0 < len(first) <= MOST and first.shape[1:] == (y1 - y0, x1 - x0)
    assert 0 <= first.min() <= first.max() <= 1
    x, y = (x0 + x1) // 2, (y0 + y1) // 2
    for answer in (0, 1):
        found = opened.committee(box, 0, [(x, y, answer)])
        assert found.shape == first.shape
        change = found.mean(0)[y - y0, x - x0] - first.mean(0)[y - y0, x - x0]
        assert change > 0.01 if answer else change < -0.01
    assert np.array_equal(opened.committee(box, 0, []), first)  # nothing is left of answers
    assert all(torch.equal(before[key], value) for key, value in system.model.state_dict().items())
    assert all(score >= 0.3 for *_, score in opened.propose_boxes())


@pytest.mark.usefixtures("generated_only")
def test_any_box_has_predictions_of_its_size(made: Made) -> None:
    """At the edge, beyond it, of one pixel: the size is that of the whole pixels."""
    system = tenfold.load(made("apis"))
    opened = NetworkSegmenter(system.model, system.cfg).open(hollows.picture("a", 0).picture[:50])
    for box, size in (
        ((-5.0, -5.0, 70.0, 70.0), (50, 64)),
        ((63.2, 49.5, 63.3, 49.6), (1, 1)),
        ((10.0, 10.0, 10.0, 30.0), (20, 1)),
    ):
        assert opened.committee(box, 0, [(12, 12, 1)]).shape[1:] == size


@pytest.mark.usefixtures("generated_only")
def test_only_the_surroundings_of_a_box_are_computed(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without answers the predictions are those of the whole picture, at its edges too."""
    system = tenfold.load(made("apis"))
    drawn = hollows.picture("window", 0).picture
    opened = NetworkSegmenter(system.model, system.cfg).open(np.tile(drawn, (2, 3, 1)))
    for box in ((70.0, 40.0, 120.0, 80.0), (0.0, 0.0, 30.0, 30.0), (150.5, 90.0, 192.0, 128.0)):
        near = opened.committee(box, 0, [])
        monkeypatch.setattr(segmenters, "AROUND", 10_000)
        np.testing.assert_allclose(near, opened.committee(box, 0, []), atol=1e-5)
        monkeypatch.undo()


# --- ONNX ----------------------------------------------------------------------------------------


def write_encoder(path: Path, shape: list[int | str], side: int = 8) -> Path:
    """An encoder that makes the mean of the picture, at `side` x `side` places."""
    nodes = [
        helper.make_node("ReduceMean", ["picture"], ["mean"], keepdims=0),
        helper.make_node("Expand", ["mean", "size"], ["image_embeddings"]),
    ]
    size = helper.make_tensor("size", TensorProto.INT64, [4], [1, 2, side, side])
    return written(path, nodes, [size], {"picture": shape}, {"image_embeddings": [1, 2, 8, 8]})


def write_decoder(path: Path, masks: int, without: str = "") -> Path:
    """A decoder whose logits are the mean of the points' labels minus 2, at the size asked for."""
    nodes = [
        helper.make_node("ReduceMean", ["point_labels"], ["mean"], keepdims=0),
        helper.make_node("Sub", ["mean", "two"], ["logit"]),
        helper.make_node("Cast", ["orig_im_size"], ["size"], to=TensorProto.INT64),
        helper.make_node("Concat", ["first", "size"], ["shape"], axis=0),
        helper.make_node("Expand", ["logit", "shape"], ["masks"]),
        *[helper.make_node("Identity", [name], [f"unused_{name}"]) for name in INPUTS],
    ]
    constants = [
        helper.make_tensor("two", FLOAT, [], [2.0]),
        helper.make_tensor("first", TensorProto.INT64, [2], [1, masks]),
    ]
    shapes: dict[str, list[int | str]] = {
        "image_embeddings": [1, 2, 8, 8], "point_coords": [1, "n", 2], "point_labels": [1, "n"],
        "mask_input": [1, 1, 4, 4], "has_mask_input": [1], "orig_im_size": [2],
    }  # fmt: skip
    if without:
        shapes["something"] = shapes.pop(without)
        nodes = [node for node in nodes if without not in node.input]
    return written(path, nodes, constants, shapes, {"masks": [1, masks, "h", "w"]})


def written(path: Path, nodes: list, constants: list, inputs: dict, outputs: dict) -> Path:  # type: ignore[type-arg]
    given, made = (
        [helper.make_tensor_value_info(name, FLOAT, shape) for name, shape in some.items()]
        for some in (inputs, outputs)
    )
    graph = helper.make_graph(nodes, "tiny", given, made, constants)
    opset = [helper.make_opsetid("", 17)]
    save(helper.make_model(graph, opset_imports=opset, ir_version=8), path)
    return path


@pytest.mark.parametrize("shape", [["h", "w", 3], [1, 3, 32, 32]])
@pytest.mark.parametrize("masks", [1, 3])
def test_a_promptable_segmenter_makes_a_committee(
    shape: list[int | str], masks: int, tmp_path: Path
) -> None:
    encoder = write_encoder(tmp_path / "encoder.onnx", shape)
    decoder = write_decoder(tmp_path / "decoder.onnx", masks)
    segmenter = Promptable(encoder, decoder, ["thing"], threads=1)
    opened = segmenter.open(np.full((30, 20, 3), 200, dtype=np.uint8))
    found = opened.committee((2.0, 3.0, 12.0, 8.0), 0, [(3, 4, 1), (10, 7, 0)])
    assert found.shape == (3, 5, 10)  # one mask: of three boxes
    # labels of the corners are 2 and 3, of the answers 1 and 0
    np.testing.assert_allclose(found, 1 / (1 + np.exp(0.5)), rtol=1e-5)
    assert opened.propose_boxes() == [] and segmenter.classes == ["thing"]


@pytest.mark.usefixtures("generated_only")
def test_the_page_with_a_segmenter_of_the_users_own(made: Made, tmp_path: Path) -> None:
    """Its masks follow the answers; it is not trained, and finds no boxes."""
    files = {
        "encoder": str(write_encoder(tmp_path / "encoder.onnx", ["h", "w", 3])),
        "decoder": str(write_decoder(tmp_path / "decoder.onnx", 1)),
    }
    system = tenfold.load(made("apis"))
    options = PageOptions(ahead=False, **files)
    photos = draw(tmp_path / "photos")
    page = serving.open_page(
        system.model, system.cfg, photos, tmp_path / "out", options, lambda *_: None
    )
    try:
        state = page.state()
        assert not state["can_train"] and not state["can_suggest"] and state["can_add"]
        assert state["classes"] == list(hollows.NAMES)
        drawn = {"class": hollows.NAMES[0]}
        said = page.draw("event-001", "tab-00001", 0, [8.0, 8.0, 28.0, 24.0], **drawn)
        assert sum(said["object"]["mask"]["counts"][1::2]) == 20 * 16
        question = said["question"]
        said = page.answer("event-002", "tab-00001", question["id"], "no", 1.0)
        assert sum(said["object"]["mask"]["counts"][1::2]) == 0
        assert said["question"]["point"] != question["point"]
        assert page.undo("event-003", "tab-00001")["question"]["point"] == question["point"]
        assert page.suggest("event-004", "tab-00001", 0)["made"] == 0
        with pytest.raises(ValueError, match="is not trained here"):
            page.train()
        (annotation,) = json.loads(page.export("coco").content)["annotations"]
        assert annotation["area"] == 20 * 16
    finally:
        page.close()


def test_points_are_in_the_encoders_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = write_encoder(tmp_path / "encoder.onnx", [1, 3, 32, 32])
    segmenter = Promptable(encoder, write_decoder(tmp_path / "decoder.onnx", 2), [], threads=1)
    seen = []
    run = segmenter._decoder.run

    class Session:
        def run(self, names: list[str], feed: dict[str, np.ndarray]) -> list[np.ndarray]:
            seen.append(feed)
            return run(names, feed)

    monkeypatch.setattr(segmenter, "_decoder", Session())
    segmenter.open(np.zeros((64, 32, 3), dtype=np.uint8)).committee(
        (8.0, 8.0, 24.0, 40.0), 0, [(9, 10, 1)]
    )
    np.testing.assert_allclose(seen[0]["point_coords"][0], [[4, 4], [12, 20], [4.75, 5.25]])
    assert seen[0]["point_labels"].tolist() == [[2, 3, 1]]
    assert seen[0]["orig_im_size"].tolist() == [64, 32]
    assert seen[0]["mask_input"].shape == (1, 1, 4, 4) and not seen[0]["has_mask_input"]


def test_other_files_are_refused_with_what_they_have(tmp_path: Path) -> None:
    encoder = write_encoder(tmp_path / "encoder.onnx", ["h", "w", 3])
    decoder = write_decoder(tmp_path / "decoder.onnx", 1)
    with pytest.raises(FileNotFoundError, match="nowhere.onnx"):
        Promptable(tmp_path / "nowhere.onnx", decoder, [])
    with pytest.raises(ValueError, match="encoder.onnx is no decoder.*point_coords.*found picture"):
        Promptable(encoder, encoder, [])
    other = write_decoder(tmp_path / "other.onnx", 1, without="has_mask_input")
    with pytest.raises(ValueError, match="other.onnx is no decoder.*found .*something"):
        Promptable(encoder, other, [])
    with pytest.raises(ValueError, match=r"decoder.onnx is no encoder.*\(1, 3, side, side\)"):
        Promptable(decoder, decoder, [])
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"nothing")
    with pytest.raises(ValueError, match="cannot open .*broken.onnx"):
        Promptable(broken, decoder, [])
