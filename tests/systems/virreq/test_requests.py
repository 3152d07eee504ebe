"""Requests on an opened picture: trees, probes, new concepts, files, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tenfold.generated import dolls
from tenfold.nn.condinst import in_picture
from tenfold.nn.fcos import HeadOutputs
from tenfold.systems.virreq import data, trees
from tenfold.systems.virreq.model import Networks
from tenfold.systems.virreq.probing import cells, probed
from tenfold.systems.virreq.recipes import DEMO
from tenfold.systems.virreq.requests import Opened, Recogniser, follow, read_requests
from tenfold.systems.virreq.system import Virreq
from tenfold.systems.virreq.text import StoredTexts, space_of

PICTURE = dolls.pair("test", 1)[0]
WORDS = ("doll", "cart", "head", "hat", "shirt", "trousers", "shoe", "box", "window", "wheel")


@pytest.fixture(scope="module")
def texts() -> StoredTexts:
    rows = torch.randn(12, 32, generator=torch.Generator().manual_seed(0))
    return StoredTexts((*WORDS, "pocket", "door"), rows, "drawn", "a-name", "table.npz")


@pytest.fixture(scope="module")
def recogniser(texts: StoredTexts, tmp_path_factory: pytest.TempPathFactory) -> Recogniser:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TENFOLD_DATA", str(tmp_path_factory.mktemp("none")))
        cfg = Virreq.complete(DEMO)
    space = space_of(texts, "a-name", False)
    cfg = replace(cfg, text=replace(cfg.text, source="table", space=space))
    torch.manual_seed(2)
    kb = data.knowledge_of(cfg)
    networks = Networks(cfg, kb)
    networks.divide.texts.fill(texts.rows[:10])
    networks.divide.classifier.logit_scale.data.fill_(4.0)
    networks.name_things(kb)
    return Recogniser(networks, kb, "dolls")


@pytest.fixture
def opened(recogniser: Recogniser) -> Opened:
    return recogniser.open(PICTURE, "doll.png")


def test_parts_never_leave_their_whole(opened: Opened) -> None:
    tree = opened.run(2)
    trees.check(tree, opened.recogniser.kb)
    assert len(tree.units) > 3 and tree.root.state == "done"
    for unit in tree.units[1:]:
        whole = opened.mask(tree.by_id[unit.parent])
        assert not (opened.mask(unit) & ~whole).any()
        assert 0 <= unit.score <= 1
    for whole in tree.units:
        parts = [opened.mask(part) for part in tree.parts(whole.id)]
        assert not parts or np.sum(parts, 0).max() <= 1, "no pixel is of two parts"
    again = trees.of(json.loads(json.dumps(trees.item_of(tree))))
    assert again.units == tuple(replace(u, score=round(u.score, 6)) for u in tree.units)
    shallow = opened.recogniser.open(PICTURE).run(1)
    assert {u.name for u in shallow.units} <= {"scene", "doll", "cart"}


def test_a_request_for_some_names(opened: Opened) -> None:
    (unit,) = opened.ask(names=["cart"])[:1]
    assert unit.name == "cart" and opened.tree.root.state == "open"
    first = opened.mask(unit)
    again = opened.ask(names=["cart"])
    assert len(opened.tree.units) == 2 and (opened.mask(again[0]) == first).all()
    for wrong, says in (
        ({"names": ["carts"]}, r"'scene' has no part 'carts' .* did you mean 'cart'"),
        ({"unit": 9}, r"no unit 9; the tree has 0 \(scene\)"),
        ({"kind": "instance", "unit": again[0].id}, "needs a probe"),
        ({"kind": "instance", "probe": (-1, 3)}, r"the probe \(-1, 3\) is not in unit 0"),
        ({"kind": "instance", "probe": (64, 3)}, r"the probe \(64, 3\) is not in unit 0"),
        ({"kind": "instance", "probe": (3, 3)}, "'scene' is not countable; .* objects of doll"),
    ):
        with pytest.raises(ValueError, match=says):
            opened.ask(**wrong)  # type: ignore[arg-type]
    outside = np.argwhere(~opened.mask(again[0]))
    if len(outside):
        y, x = (int(v) for v in outside[0])
        with pytest.raises(ValueError, match="is not in unit"):
            opened.ask(again[0].id, "instance", probe=(x, y))
    with pytest.raises(ValueError, match="depth is 0"):
        opened.run(0)


def test_a_probe_is_answered_by_the_rule(opened: Opened) -> None:
    """The places of the cells that hold it, by class and mask at the probe, and nothing else."""
    network, encoded, outputs = opened.objects
    assert cells((63, 0), [(8, 8), (4, 4), (2, 2)], (8, 16, 32)).tolist() == [
        [0, 0, 0, 7], [0, 1, 0, 3], [0, 2, 0, 1],
    ]  # fmt: skip
    for probe in ((5, 40), (31, 20), (63, 63)):
        index = cells(probe, outputs.sizes, outputs.strides)
        with torch.no_grad():
            shares = in_picture(network.at_locations(encoded, index, outputs).sigmoid(),
                                (64, 64), (64, 64))  # fmt: skip
        here = shares[:, probe[1], probe[0]]
        places = [outputs.place(*own) for own in index[:, 1:].tolist()]
        chances = outputs.logits[0, places, 1].sigmoid() * here
        covering = [i for i in range(len(places)) if here[i] > 0.5]
        best = max(covering or range(len(places)), key=lambda i: float(chances[i]))
        found = probed(network, encoded, outputs, 1, probe)
        assert found.score == pytest.approx(float(chances[best]))
        assert found.confident == bool(covering)
        assert not (found.mask & (shares[best] <= 0.5)).any()
        again = probed(network, encoded, outputs, 1, probe)
        assert torch.equal(found.mask, again.mask)
        far = replace_centreness(outputs)
        assert probed(network, encoded, far, 1, probe).score == found.score


def replace_centreness(outputs: HeadOutputs) -> HeadOutputs:
    return replace(outputs, centreness=-outputs.centreness - 9)


def test_an_instance_is_a_part_of_its_region(opened: Opened) -> None:
    region = max(opened.ask(), key=lambda unit: opened.mask(unit).sum())
    y, x = (int(v) for v in np.argwhere(opened.mask(region))[0])
    (found,) = opened.ask(region.id, "instance", probe=(x, y))
    assert (found.name, found.parent, found.source) == (region.name, region.id, "type2")
    assert not (opened.mask(found) & ~opened.mask(region)).any()
    parts = opened.ask(found.id)
    assert all(part.parent == found.id for part in parts)


def test_a_new_concept_is_answered_at_once(texts: StoredTexts, opened: Opened) -> None:
    """And leaves what was known as it is."""
    recogniser = opened.recogniser
    space = space_of(texts, "a-name", False)
    doll = recogniser.kb.at(("doll",))
    before = recogniser.networks.divide.texts.rows_of().clone()
    node = recogniser.add("pocket", doll.id, texts, "a-name", space=space)
    assert recogniser.kb.children(doll.id)[-1] == node
    assert torch.equal(recogniser.networks.divide.texts.rows_of()[:10], before[:10])
    region = opened.ask(names=["doll"])
    assert all(u.name == "pocket" for u in opened.ask(region[0].id, names=["pocket"]))
    with pytest.raises(ValueError, match="are named 'pocket'"):
        recogniser.add("pocket", doll.id, texts, "a-name", space=space)
    with pytest.raises(ValueError, match="no text 'zip': .* give one as a synonym"):
        recogniser.add("zip", doll.id, texts, "a-name", space=space)
    with pytest.raises(ValueError, match="of the text space 'RN50'"):
        recogniser.add("door", doll.id, texts, "a-name", space="RN50")
    assert [n.name for n in recogniser.kb.children(doll.id)][-1] == "pocket", "nothing half done"


def test_requests_in_files(tmp_path: Path, opened: Opened) -> None:
    file = tmp_path / "requests.json"
    file.write_text(json.dumps([{"unit": 0}, {"unit": 1, "names": ["head"]}]))
    tree = follow(opened, read_requests(file))
    assert tree.root.state == "done"
    for content, says in (
        ([{"unit": 0}, {"unit": 77}], "request 1: there is no unit 77"),
        ([{"unit": 0, "kind": "instance", "probe": [900, 2]}], r"request 0: the probe \(900, 2\)"),
    ):
        file.write_text(json.dumps(content))
        with pytest.raises(ValueError, match=says):
            follow(opened, read_requests(file))
    for text, says in (
        ("{", "requests.json: "), ("{}", "must be a list"), ('[{"unit": "a"}]', r"\[0\]\.unit"),
        ('[{"kind": "panoptic"}]', r"\[0\]\.kind is 'panoptic'; semantic or instance"),
        ('[{"probe": [1]}]', r"\[0\]\.probe is x and y"),
    ):  # fmt: skip
        file.write_text(text)
        with pytest.raises(ValueError, match=says):
            read_requests(file)
