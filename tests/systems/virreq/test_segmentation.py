"""The Type-I network: what a logit depends on, answers inside a unit, and the table of texts."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from systems.virreq.networks import NAMES, network, table

from tenfold.core import checkpoint
from tenfold.systems.virreq.segmentation import (
    OTHERS,
    VOID,
    between,
    candidates,
    cosines,
    largest,
)
from tenfold.systems.virreq.table import TextTable, nearest

IMAGES = torch.randn(2, 3, 40, 56, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def test_a_logit_depends_on_its_own_name_alone() -> None:
    """Bit for bit: in any order, beside any others, and after a name was added."""
    net = network()
    every = net(IMAGES)
    order = [*NAMES[::-1]]
    assert torch.equal(net(IMAGES, order), every[:, list(range(len(NAMES)))[::-1]])
    assert torch.equal(net(IMAGES, ["car"]), every[:, [2]])
    for number in range(20):  # across a block of names
        vector = torch.randn(24, generator=torch.Generator().manual_seed(number))
        net.texts.add(f"new {number}", vector, net.texts.space)
        assert torch.equal(net(IMAGES)[:, : len(NAMES)], every)
    assert torch.equal(net(IMAGES, ["new 3", "leg"])[:, 1], every[:, -1])


def test_all_names_can_be_asked_without_training_before() -> None:
    """The official test path knows the names of wholes alone until `forward_train` was called,
    needs a GPU for CLIP, and keeps CLIP in every checkpoint (decode_head_cpp_part.py)."""
    net = network()
    with torch.no_grad():
        assert net(IMAGES, ["wheel", "head"]).shape == (2, 2, 10, 14)
    names = {key.split(".")[0] for key in net.state_dict()}
    assert names == {"backbone", "decode_head", "classifier", "texts"}


def test_blocks_are_the_product() -> None:
    pixels, texts = torch.randn(5, 7, 12), torch.randn(33, 12)
    with torch.no_grad():
        found = cosines(pixels, texts)
    torch.testing.assert_close(found, pixels @ texts.T)


def test_temperature_is_one_scalar_and_clamped() -> None:
    net, free = network(), network(most=0.0)
    assert net.classifier.temperature().item() == pytest.approx(1 / 0.07)
    assert sum(p.ndim == 0 for p in net.parameters()) == 1
    for each, limit in ((net, 100.0), (free, 22026.465)):
        each.classifier.logit_scale.data.fill_(10.0)
        assert each.classifier.temperature().item() == pytest.approx(limit)


def test_a_pixel_without_features_has_logits_of_zero() -> None:
    """The official code divides by its length (CLIP_CLS_SEG.forward)."""
    net = network().train()
    net.classifier.dropout.p = 1.0
    logits = net(IMAGES)
    assert (logits == 0).all()
    logits.sum().backward()
    slopes = [p.grad for p in net.parameters() if p.grad is not None]
    assert slopes and all(torch.isfinite(slope).all() for slope in slopes)


# --- answers -------------------------------------------------------------------------------------


def whole_answer(net, image: torch.Tensor, names: list[str]) -> torch.Tensor:
    """Labels of all pixels by enlarging all logits."""
    with torch.no_grad():
        logits = net(image[None], names)
    large = F.interpolate(logits, image.shape[1:], mode="bilinear", align_corners=False)[0]
    return F.pad(large, (0, 0, 0, 0, 1, 0)).argmax(0)


@pytest.mark.parametrize("size", [(40, 56), (37, 50), (32, 33)])
def test_an_answer_in_a_box_is_that_of_the_whole_picture(size: tuple[int, int]) -> None:
    net, (height, width) = network(), size
    net.classifier.logit_scale.data.fill_(3.0)
    image = IMAGES[0, :, :height, :width]
    encoded = net.encode(image)
    assert encoded.size == size
    draw = torch.Generator().manual_seed(2)
    for names in (["car"], ["road", "leg", "sky"], [*NAMES]):
        want = whole_answer(net, image, names)
        vectors = net.texts.rows_of(names)
        found = net.answer(encoded, vectors)
        assert (found.labels == want).float().mean() > 0.998, "but for ties within rounding"
        unit = torch.zeros(size, dtype=torch.bool)
        unit[height // 4 : height // 2 + 1, width // 3 : -1] = True
        unit &= torch.rand(size, generator=draw) < 0.8
        found = net.answer(encoded, vectors, unit)
        assert (found.labels[unit] == want[unit]).float().mean() > 0.995
        assert (found.labels[~unit] == VOID).all() and (found.labels[unit] >= OTHERS).all()
        shown = [bool((found.labels == k).any()) for k in range(1, len(names) + 1)]
        assert [bool(score) for score in found.scores > 0] == shown
        assert (found.scores <= 1).all()


def test_others_wins_where_all_children_are_below_zero() -> None:
    net = network()
    encoded = net.encode(IMAGES[0])
    away = -encoded.pixels.mean((0, 1))  # features behind ReLU: cosines with it are below 0
    found = net.answer(encoded, torch.stack([away, 2 * away]))
    assert (found.labels == OTHERS).all() and not found.scores.any()
    empty = torch.zeros(40, 56, dtype=torch.bool)
    assert (net.answer(encoded, away[None], empty).labels == VOID).all()
    with pytest.raises(ValueError, match=r"31 x 56 pixels is too small .* need 32"):
        net.encode(IMAGES[0, :, :31])
    nothing = net.answer(encoded, torch.zeros(0, 24))
    assert (nothing.labels == OTHERS).all() and not len(nothing.scores)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 9), st.integers(1, 7), st.integers(2, 30))
def test_no_candidate_is_left_out(seed: int, rows: int, columns: int, names: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    logits = F.pad(torch.randn(rows, columns, names, generator=draw), (1, 0))
    large = F.interpolate(logits.movedim(2, 0)[None], (5 * rows, 4 * columns), mode="bilinear")[0]
    possible = candidates(logits).flatten(0, 1).any(0)
    assert possible[large.argmax(0).unique()].all()
    places = (between(slice(0, 5 * rows), 5 * rows, rows),
              between(slice(0, 4 * columns), 4 * columns, columns))  # fmt: skip
    found = largest(logits, *places)
    near = large.amax(0) - large.gather(0, found[None])[0]
    assert near.max() < 1e-5, "but for rounding"


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 60), st.integers(1, 20), st.data())
def test_part_of_a_side_is_enlarged_as_the_whole(
    side: int, cells: int, data: st.DataObject
) -> None:
    start = data.draw(st.integers(0, side - 1))
    wanted = slice(start, data.draw(st.integers(start + 1, side)))
    values = torch.randn(cells)
    found = between(wanted, side, cells)
    few = values[found.first : found.last]
    whole = F.interpolate(values[None, None], side, mode="linear", align_corners=False)[0, 0]
    torch.testing.assert_close(few @ found.matrix(), whole[wanted])
    torch.testing.assert_close(few[found.low].lerp(few[found.high], found.share), whole[wanted])


# --- the table of texts --------------------------------------------------------------------------


def test_a_table_is_saved_with_the_weights(tmp_path: Path) -> None:
    """And read by a network that never saw the encoder, added names included."""
    net = network()
    net.texts.add("Łokieć", torch.ones(24), net.texts.space)
    checkpoint.write_tensors(tmp_path / "weights.safetensors", net.state_dict())
    state = checkpoint.read_tensors(tmp_path / "weights.safetensors")
    other = network(TextTable(NAMES[:2], 24, net.texts.space))
    other.load_state_dict(state)
    assert other.texts.names == (*NAMES, "Łokieć")
    with torch.no_grad():
        assert torch.equal(other(IMAGES), net(IMAGES))


def test_a_table_of_another_space_is_refused() -> None:
    state = network().state_dict()
    with pytest.raises(RuntimeError, match=r"of the text space 'drawn', .* of 'CLIP RN50'"):
        network(table(space="CLIP RN50")).load_state_dict(state)
    wide = TextTable(NAMES, 30, "drawn")
    with pytest.raises(ValueError, match=r"vector of 'hat' has 24 numbers .*, .* of texts 30"):
        wide.add("hat", torch.ones(24), "drawn")
    state["texts.vectors"] = torch.zeros(len(NAMES), 30)
    with pytest.raises(RuntimeError, match=r"of these weights has 30 numbers .*, .* texts 24"):
        network().load_state_dict(state)


@pytest.mark.parametrize(
    ("about", "says"),
    [
        (b"[", "cannot be read"),
        (b"[]", "cannot be read"),
        (b'{"space": 3, "names": []}', "no texts"),
        (b'{"space": "drawn", "names": ["a"]}', "1 names for vectors of shape"),
        (b'{"space": "drawn", "names": ["a", "a"]}', "a name twice"),
    ],
)
def test_a_damaged_table(about: bytes, says: str) -> None:
    net = network()
    state = net.state_dict()
    state["texts.about"] = torch.frombuffer(bytearray(about), dtype=torch.uint8)
    with pytest.raises(RuntimeError, match=says):
        net.load_state_dict(state)
    del state["texts.about"]
    with pytest.raises(RuntimeError, match=r"Missing key.*texts\.about"):
        net.load_state_dict(state)


def test_unknown_and_double_names() -> None:
    texts = table()
    with pytest.raises(ValueError, match=r"no concept 'wheels' .*nearest are wheel"):
        texts.rows(["car", "wheels"])
    with pytest.raises(ValueError, match="has 'car' already"):
        texts.add("car", torch.ones(24), texts.space)
    with pytest.raises(ValueError, match="has 'a' twice"):
        TextTable(["a", "b", "a"], 3, "x")
    assert "license_plate" in nearest("License plates", ["road", "license_plate"])
    assert nearest("zzz", NAMES) == "there are 9, among them road, sky, car, wheel, window"


def test_a_learned_table_has_gradients_and_no_new_names() -> None:
    texts = TextTable(NAMES, 24, "learned", learned=True)
    net = network(texts)
    net(IMAGES).square().sum().backward()
    assert texts.vectors.grad is not None and texts.vectors.grad.any()
    with pytest.raises(ValueError, match="'hat' has no text vector: this table was learned"):
        texts.add("hat", torch.ones(24), "learned")
    held = texts.vectors
    net.load_state_dict(network(TextTable(NAMES, 24, "learned", learned=True)).state_dict())
    assert net.texts.vectors is held
