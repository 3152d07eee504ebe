"""Networks that answer requests: trees, the rule of probes, new concepts, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tenfold.data.images import runs
from tenfold.generated import dolls
from tenfold.nn.condinst import in_picture
from tenfold.nn.fcos import HeadOutputs
from tenfold.systems.virreq import data, given, looking, sources, trees
from tenfold.systems.virreq.config import Text
from tenfold.systems.virreq.knowledge import Node
from tenfold.systems.virreq.model import Networks
from tenfold.systems.virreq.probing import cells, probed
from tenfold.systems.virreq.recipes import DEMO
from tenfold.systems.virreq.recogniser import OpenedPicture, TrainedRecogniser
from tenfold.systems.virreq.requests import Opened, Recogniser, Recognition
from tenfold.systems.virreq.serving import Taught
from tenfold.systems.virreq.system import Virreq
from tenfold.systems.virreq.text import StoredTexts, space_of

PICTURE = dolls.pair("test", 1)[0]
WORDS = ("doll", "cart", "head", "hat", "shirt", "trousers", "shoe", "box", "window", "wheel")


@pytest.fixture(scope="module")
def texts() -> StoredTexts:
    rows = torch.randn(12, 32, generator=torch.Generator().manual_seed(0))
    return StoredTexts((*WORDS, "pocket", "door"), rows, "drawn", "a-name", "table.npz")


@pytest.fixture(scope="module")
def recogniser(texts: StoredTexts, tmp_path_factory: pytest.TempPathFactory) -> TrainedRecogniser:
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
    return TrainedRecogniser(networks, kb)


@pytest.fixture
def opened(recogniser: TrainedRecogniser) -> OpenedPicture:
    return recogniser.open(PICTURE)


def test_parts_never_leave_their_whole(
    recogniser: TrainedRecogniser, opened: OpenedPicture
) -> None:
    assert isinstance(recogniser, Recogniser) and isinstance(opened, Opened)
    tree = Recognition(opened, recogniser.kb, "a.png").run(2)
    trees.check(tree, recogniser.kb)
    assert len(tree.units) > 3 and tree.root.state == "done"
    masks = {unit.id: runs.mask_of(unit.mask) for unit in tree.units}
    for unit in tree.units[1:]:
        assert not (masks[unit.id] & ~masks[unit.parent or 0]).any()
        parts = [masks[part.id] for part in tree.parts(unit.id)]
        assert not parts or np.sum(parts, 0).max() <= 1, "no pixel is of two parts"
    whole = TrainedRecogniser(recogniser.networks, recogniser.kb, objects=False)
    regions = Recognition(whole.open(PICTURE), whole.kb).run(2)
    assert {unit.source for unit in regions.units[1:]} == {"type1"}


def test_what_the_networks_do_not_know(
    recogniser: TrainedRecogniser, opened: OpenedPicture
) -> None:
    asked = Recognition(opened, recogniser.kb)
    with pytest.raises(ValueError, match=r"'scene' has no part 'carts' .* did you mean 'cart'"):
        asked.recognise(names=["carts"])
    node = recogniser.kb.at(("doll", "head"))
    with pytest.raises(ValueError, match="knows no objects of 'head', but of doll, cart"):
        opened.probe(3, 3, node)
    assert opened.objects(node) == []
    with pytest.raises(ValueError, match="'zip' .* has no text in this run"):
        recogniser.key(Node(99, "zip"))


def test_a_probe_is_answered_by_the_rule(opened: OpenedPicture) -> None:
    """The places of the cells that hold it, by class and mask at the probe, and nothing else."""
    network, encoded, outputs = opened._objects
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


def test_a_knowledge_base_in_place_of_the_runs(
    texts: StoredTexts, opened: OpenedPicture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fewer concepts, and one that was never trained; what cannot be known is named."""
    own = opened.recogniser
    recogniser = TrainedRecogniser(own.networks, own.kb)
    text = Text(source="table", prompt="a-name")
    monkeypatch.setattr(sources, "encoder", lambda _: texts)
    names = {"scene": [1], "cart": [2, 3], "wheel": [], "door": []}
    rows = [
        {"id": i, "name": n, "synonyms": [], "thing": False, "children": c, "codes": []}
        for i, (n, c) in enumerate(names.items())
    ]
    file = tmp_path / "kb.json"
    file.write_text(json.dumps({"nodes": rows}))
    kept = own.networks.divide.texts.rows_of(["wheel"])
    given.take_over(recogniser, file, text)
    kb = recogniser.kb
    assert [n.name for n in kb.children(kb.root.id)] == ["cart"]
    assert [n.name for n in kb.children(kb.at(("cart",)).id)] == ["wheel", "door"]
    assert recogniser.key(kb.at(("cart", "wheel"))) == "wheel"
    assert torch.equal(own.networks.divide.texts.rows_of(["wheel"]), kept)
    tree = Recognition(recogniser.open(PICTURE), kb).run(2)
    assert {unit.name for unit in tree.units} <= {"scene", "cart", "wheel", "door"}
    rows[2]["synonyms"] = ["doll"]
    file.write_text(json.dumps({"nodes": rows}))
    given.take_over(recogniser, file, text)
    wheel = recogniser.kb.at(("cart", "wheel"))
    assert wheel.synonyms == ("doll",), "another vector, that of both names"
    found = own.networks.divide.texts.rows_of([recogniser.key(wheel)])
    assert not torch.allclose(found, kept)
    kb = recogniser.kb
    rows[3]["name"] = "zip"
    file.write_text(json.dumps({"nodes": rows}))
    with pytest.raises(ValueError, match=r"kb\.json: the run does not know zip of cart: .*no text"):
        given.take_over(recogniser, file, text)
    assert recogniser.kb == kb, "nothing half done"
    with pytest.raises(ValueError, match="does not know zip of cart: its texts were learned"):
        given.take_over(recogniser, file, replace(text, source="learned"))


def test_a_new_concept_is_answered_at_once(texts: StoredTexts, opened: OpenedPicture) -> None:
    """And leaves what was known as it is."""
    recogniser = opened.recogniser
    doll = recogniser.kb.at(("doll",))
    before = recogniser.networks.divide.texts.rows_of().clone()
    node = recogniser.add("pocket", doll.id, texts, "a-name")
    assert recogniser.kb.children(doll.id)[-1] == node
    assert torch.equal(recogniser.networks.divide.texts.rows_of()[:10], before[:10])
    asked = Recognition(opened, recogniser.kb)
    (region,) = asked.recognise(names=["doll"]).units
    found = asked.recognise(region.id, names=["pocket"]).units
    assert all(unit.name == "pocket" for unit in found)
    with pytest.raises(ValueError, match="are named 'pocket'"):
        recogniser.add("pocket", doll.id, texts, "a-name")
    with pytest.raises(ValueError, match="no text 'zip': .* give one as a synonym"):
        recogniser.add("zip", doll.id, texts, "a-name")
    with pytest.raises(ValueError, match="of the text space 'drawn, prompt a-name, centred'"):
        recogniser.add("door", doll.id, texts, "a-name", centred=True)
    assert [n.name for n in recogniser.kb.children(doll.id)][-1] == "pocket", "nothing half done"
    # another word makes another vector, and without it the old one is there again
    grown = recogniser.kb.rename(node.id, synonyms=["door"])
    assert [one.id for one in recogniser.unknown(grown)] == [node.id]
    recogniser.adopt(grown, texts, "a-name")
    table, (plain, both) = recogniser.networks.divide.texts, (node, grown.node(node.id))
    mean = torch.nn.functional.normalize(texts.rows[10:12].sum(0), dim=0)
    assert torch.allclose(table.rows_of([recogniser.key(both)])[0], mean, atol=1e-6)
    assert torch.equal(table.rows_of([recogniser.key(plain)])[0], texts.rows[10])


def test_a_page_takes_words_from_what_made_the_runs(
    texts: StoredTexts, recogniser: TrainedRecogniser, tmp_path: Path
) -> None:
    table = {"names": np.array(texts.names), "vectors": texts.rows.numpy()}
    np.savez(tmp_path / "table.npz", **table, space=texts.space, prompt=texts.prompt)
    text = Text(source="table", prompt="a-name", table=str(tmp_path / "table.npz"), dim=32)
    taught, cart = Taught(recogniser, text), recogniser.kb.at(("cart",))
    assert isinstance(taught, looking.Network) and not taught.refusal
    grown = recogniser.kb.add("door", cart.id, ["zip"])
    taught.adopt(grown)
    assert not recogniser.unknown(grown) and taught.unheard(["door", "zip"]) == ["zip"]
    with pytest.raises(ValueError, match="no text 'zip'"):
        taught.adopt(grown.add("zip", cart.id - 1))
    gone = Taught(recogniser, replace(text, table=str(tmp_path / "gone.npz")))
    gone.adopt(grown)  # nothing is new: no file is opened
    with pytest.raises(ValueError, match=r"gone\.npz"):
        gone.adopt(grown.add("pocket", cart.id))
    learned = Taught(recogniser, replace(text, source="learned"))
    with pytest.raises(ValueError, match="this run learned its words with its network"):
        learned.adopt(grown.add("pocket", cart.id))
