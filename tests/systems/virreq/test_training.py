"""Groups and labels of a knowledge base, batches, and training that learns."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tenfold.core import checkpoint, loop
from tenfold.core.dist import World
from tenfold.core.loop import Loop
from tenfold.generated import dolls
from tenfold.runner.weights import construct, save_weights
from tenfold.systems.virreq import data, sources
from tenfold.systems.virreq.config import Config
from tenfold.systems.virreq.groups import concepts, groups, keys, paths
from tenfold.systems.virreq.knowledge import KnowledgeBase, Node
from tenfold.systems.virreq.model import RequestTraining, divider
from tenfold.systems.virreq.recipes import DEMO
from tenfold.systems.virreq.system import Virreq

SMALL = replace(
    DEMO,
    separate=replace(DEMO.separate, network="none"),
    data=replace(DEMO.data, generated=(16, 4), batch_size=4, labelled=1.0),
    loop=Loop(workers=0),
    steps=20,
)


HERE = World(0, 1, torch.device("cpu"))


@pytest.fixture(autouse=True)
def no_data(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TENFOLD_DATA", str(tmp_path))


def completed(cfg: Config = SMALL) -> Config:
    return Virreq.complete(cfg)


def test_groups_of_wholes_and_of_levels() -> None:
    cfg = completed()
    kb, codes = data.knowledge_of(cfg), data.codes_of(cfg)
    assert codes[1] == (1, 10) and codes[8] == (2, 17)
    scene, doll, cart = groups(kb, codes, "parent")
    assert [g.name for g in (scene, doll, cart)] == ["scene", "doll", "cart"]
    assert [g.level for g in (scene, doll, cart)] == [1, 2, 2]
    assert scene.wanted[[0, 1, 5, 6, 8, 255]].tolist() == [255, 0, 0, 1, 1, 255]
    assert scene.inside.sum() == 255 and not scene.inside[255]
    assert doll.wanted[[0, 1, 5, 6]].tolist() == [255, 0, 4, 255]
    assert doll.inside.nonzero().flatten().tolist() == [1, 2, 3, 4, 5]
    names = list(keys(kb).values())
    assert [names[row] for row in cart.rows] == ["box", "window", "wheel"]
    first, second = groups(kb, codes, "level")
    assert second.rows == doll.rows + cart.rows and second.wanted[8] == 7
    assert second.inside.nonzero().flatten().tolist() == list(range(1, 9))
    without = groups(kb, codes, "parent", frozenset(("hat",)))[1]
    assert without.wanted[2] == 255 and without.inside[2] and len(without.rows) == 5
    with pytest.raises(ValueError, match="data.hidden has 'cap'"):
        groups(kb, codes, "parent", frozenset(("cap",)))


def test_wholes_of_one_name_are_measured_apart() -> None:
    kb = KnowledgeBase((
        Node(0, "scene", children=(1, 2)), Node(1, "door", children=(3,), codes=(1,)),
        Node(2, "cabinet", children=(4,), codes=(2,)), Node(3, "pane", codes=(3,)),
        Node(4, "door", children=(5,), codes=(4,)), Node(5, "knob", codes=(5,)),
    ))  # fmt: skip
    found = {group.name: group.parents for group in groups(kb, paths(kb), "parent")}
    assert found == {"scene": (0,), "door (1)": (1,), "cabinet": (2,), "door (4)": (4,)}


def test_words_of_two_nodes_have_two_rows() -> None:
    """ADE20K has eleven words both for an object and for a part."""
    kb = KnowledgeBase((
        Node(0, "scene", children=(1, 2)), Node(1, "door", codes=(7,)),
        Node(2, "car", children=(3,)), Node(3, "door", codes=(9,)),
    ))  # fmt: skip
    assert list(keys(kb).values()) == ["door (1)", "car", "door (3)"]
    assert [(c.key, c.wholes) for c in concepts(kb)] == [
        ("door (1)", ()), ("car", ()), ("door (3)", ("car",)),
    ]  # fmt: skip
    found = paths(kb, "car")
    assert found[7] == (1,) and found[9] == (2, 3) and found[8] == (2,) and 0 not in found
    shared = KnowledgeBase((
        Node(0, "scene", children=(1, 2)), Node(1, "bus", children=(3,)),
        Node(2, "car", children=(3,)), Node(3, "wheel", codes=(4,)),
    ))  # fmt: skip
    with pytest.raises(ValueError, match="'wheel' .* is part of bus, car; a label map does not"):
        paths(shared)


def test_hidden_words_of_two_nodes_are_measured_as_hidden() -> None:
    kb = data.knowledge_of(completed())
    kb = kb.rename(kb.at(("cart", "wheel")).id, "hat")
    own = replace(SMALL.data, hidden=("hat",), generated=(8, 3))
    cfg = completed(replace(SMALL, knowledge=kb.text, data=own))
    metrics = construct(Virreq, cfg).evaluate().metrics
    hats = [metrics[f"concept/{key}"] for key in ("doll/hat (11)", "cart/hat (17)")]
    assert metrics["iou/hidden/mIoU"] == pytest.approx(sum(hats) / 2)
    others = {k: v for k, v in metrics.items() if k.startswith(("concept/doll", "concept/cart"))}
    known = [value for key, value in others.items() if "hat" not in key]
    assert metrics["iou/known/mIoU"] == pytest.approx(sum(known) / len(known))


def test_incomplete_labels() -> None:
    """Pictures without parts: their loss of parts does not look at the parts' labels."""
    cfg = completed(replace(SMALL, data=replace(SMALL.data, labelled=0.25)))
    batches = data.Batches(cfg, "divide", 4)
    assert len(batches.bare) == 12
    batch = batches(0)
    assert batch["divided"].sum() < 4 and batch["codes"].shape == (4, 64, 64)
    kb = data.knowledge_of(cfg)
    training = RequestTraining(cfg, divider(cfg, kb), groups(kb, data.codes_of(cfg), "parent"))
    training.eval()
    batch["divided"][:] = False
    swapped = batch["codes"].clone()
    table = torch.arange(256).byte()
    table[1:6] = torch.tensor([2, 3, 4, 5, 1]).byte()  # other parts of the same whole
    with torch.no_grad():
        first = training(batch)
        second = training(batch | {"codes": table[swapped.long()]})
        third = training(batch | {"divided": torch.ones(4, dtype=torch.bool)})
    assert first["loss"] == second["loss"] and first["loss"] != third["loss"]
    assert first["temperature"].item() == pytest.approx(1 / 0.07)


@pytest.mark.parametrize("how", ["parent", "level"])
@pytest.mark.parametrize("parts", ["all", "present", "complete"])
@pytest.mark.parametrize("outside", ["others", "ignore"])
def test_every_loss_has_gradients(how: str, parts: str, outside: str) -> None:
    loss = replace(SMALL.loss, groups=how, parts=parts, outside=outside)  # type: ignore[arg-type]
    cfg = completed(replace(SMALL, loss=loss))
    kb = data.knowledge_of(cfg)
    own = groups(kb, data.codes_of(cfg), cfg.loss.groups)
    training = RequestTraining(cfg, divider(cfg, kb), own)
    found = training(data.Batches(cfg, "divide", 4)(0))
    found["loss"].backward()
    assert {"loss", "loss/level 1", "loss/level 2", "temperature"} == found.keys()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in training.parameters())


@pytest.mark.parametrize("parts", ["present", "complete"])
def test_parts_compete_where_they_are_labelled_on_the_same_object(parts: str) -> None:
    """Two carts, of one only the wheel is labelled, of the other only the window; a third has no
    part."""
    cfg = completed(replace(SMALL, loss=replace(SMALL.loss, parts=parts)))  # type: ignore[arg-type]
    kb = data.knowledge_of(cfg)
    training = RequestTraining(cfg, divider(cfg, kb), groups(kb, data.codes_of(cfg), "parent"))
    inside = torch.tensor([[[True, True, True, True, True, False]]])
    wanted = torch.tensor([[[2, 255, 1, 255, 255, 255]]], dtype=torch.uint8)
    objects = torch.tensor([[[7, 7, 9, 9, 4, 0]]])
    apart = training._allowed(wanted, inside, 3, objects)
    shown = [row.nonzero().flatten().tolist() for row in apart.table[apart.instances[0, 0]]]
    together = training._allowed(wanted, inside, 3, None)
    merged = [row.nonzero().flatten().tolist() for row in together.table[together.instances[0, 0]]]
    if parts == "present":
        assert shown == [[2], [2], [1], [1], [], []]
        assert merged == [[1, 2]] * 5 + [[]]
    else:
        assert shown == [[0, 1, 2]] * 4 + [[], []]
        assert merged == [[0, 1, 2]] * 5 + [[]]


def test_training_learns_and_its_weights_are_opened_again(tmp_path: Path) -> None:
    cfg = completed(replace(SMALL, steps=40, data=replace(SMALL.data, generated=(32, 6))))
    system = construct(Virreq, cfg)
    before = system.evaluate().metrics
    loop.train(system.stages(), cfg.loop, HERE, tmp_path, cfg.seed)
    after = system.evaluate()
    assert after.metrics["iou/parts/mIoU"] > before["iou/parts/mIoU"] + 10
    assert {"iou/scene/mIoU", "iou/doll/mIoU", "concept/cart/wheel"} <= after.metrics.keys()
    assert after.details.names["cart"] == ("box", "window", "wheel")
    save_weights(tmp_path / "weights.safetensors", "virreq", system)
    other = Virreq(cfg)
    other.model.load_state_dict(checkpoint.read_tensors(tmp_path / "weights.safetensors"))
    assert other.evaluate().metrics == after.metrics
    started = Virreq(replace(cfg, start=str(tmp_path), seed=1))
    next(iter(started.stages()))
    own = dict(system.model.named_parameters())
    assert all(torch.equal(p, own[k]) for k, p in started.model.named_parameters())
    with pytest.raises(ValueError, match=r"shape: divide\.decode_head\.convs\.0\.conv\.weight"):
        wide = replace(cfg, start=str(tmp_path), model=replace(cfg.model, head_dim=16))
        next(iter(Virreq(wide).stages()))


def test_objects_of_a_label_map() -> None:
    cfg = completed(replace(SMALL, separate=DEMO.separate))
    kb = data.knowledge_of(cfg)
    things = data.things_of(kb, data.codes_of(cfg))
    assert [kb.node(number).name for number in things.ids] == ["doll", "cart", "shoe", "wheel"]
    codes = np.zeros((20, 30), dtype=np.uint8)
    codes[2:10, 2:8] = 3  # a doll's shirt
    codes[10:14, 2:4] = codes[10:14, 6:8] = 5  # and its shoes
    codes[12:18, 20:26] = 8
    codes[0, 29] = 8  # too small
    found = data.objects_of(codes, things, 8)
    assert found["labels"].tolist() == [0, 1, 2, 2, 3]
    assert found["boxes"][0].tolist() == [2, 2, 8, 14]
    assert found["masks"].sum((1, 2)).tolist() == [64, 36, 8, 8, 36]
    assert data.objects_of(codes, things, 8, divided=False)["labels"].tolist() == [0, 1]
    assert data.objects_of(codes * 0, things, 8)["masks"].shape == (0, 20, 30)


def test_both_stages(tmp_path: Path) -> None:
    """Objects are classified by the same texts; a run's weights hold both networks."""
    own = replace(DEMO.separate, steps=2, batch_size=2, proposals=8)
    cfg = completed(replace(SMALL, separate=own, steps=1))
    system = construct(Virreq, cfg)
    loop.train(system.stages(), cfg.loop, HERE, tmp_path, cfg.seed)
    separate = system.model.separate
    assert separate is not None
    names = system.model.divide.texts.rows_of(["doll", "cart", "shoe", "wheel"])
    assert torch.equal(separate.fcos.cls_logits.get_buffer("text"), names)
    save_weights(tmp_path / "weights.safetensors", "virreq", system)
    other = Virreq(cfg)
    other.model.load_state_dict(checkpoint.read_tensors(tmp_path / "weights.safetensors"))
    assert system.notes() == ["texts: learned with the network"]


def test_texts_fall_back_with_a_warning() -> None:
    cfg = replace(SMALL, text=replace(SMALL.text, source="clip"))
    with (
        pytest.warns(UserWarning, match="has no weights"),
        pytest.warns(UserWarning, match="a vector a concept is learned"),
    ):
        cfg = data.complete(cfg)
        found = sources.complete(cfg, data.knowledge_of(cfg))
    assert (found.text.source, found.text.space) == ("learned", "learned with the network")


def test_dolls_are_the_same_every_time() -> None:
    first, second = dolls.pair("test", 3), dolls.pair("test", 3)
    assert (first[0] == second[0]).all() and (first[1] == second[1]).all()
    seen = set()
    for _, labels in dolls.pairs("train", 20):
        seen |= set(labels.ravel().tolist())
    assert seen == set(range(9))
