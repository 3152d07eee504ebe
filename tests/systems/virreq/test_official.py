"""The official layout: there and back, encoders alone, and files that are another network."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from systems.apis.test_official import network as condinst
from systems.apis.test_official import official_state
from systems.virreq.networks import network, table
from torch import Tensor

from tenfold import cli
from tenfold.nn.clip_text import ClipTextTower
from tenfold.nn.condinst import CondInst
from tenfold.nn.fcos import TextClassifier
from tenfold.systems.virreq import data, pretrained
from tenfold.systems.virreq.config import Config
from tenfold.systems.virreq.model import Networks
from tenfold.systems.virreq.official import (
    PART_NAMES,
    SEMANTIC_NAMES,
    convert,
    describe,
    read_official,
    text_tower,
    theirs,
)
from tenfold.systems.virreq.recipes import DEMO
from tenfold.systems.virreq.system import Virreq
from tenfold.weights.mit import from_mmseg, to_mmseg

Call = Callable[..., tuple[int, str, str]]

CLIP = "decode_head.CLIP_CLS_SEG.clip_model."


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Call:
    """The command line in this process: exit code, stdout, stderr."""

    def run_words(*words: str | Path) -> tuple[int, str, str]:
        code = 0
        try:
            cli.main([str(word) for word in words])
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run_words


def shapes(state: dict[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {key: tuple(value.shape) for key, value in state.items()}


def test_a_network_there_and_back(tmp_path: Path) -> None:
    """With CLIP inside, whose keys are accounted for."""
    net, file = network(), tmp_path / "iter_160000.pth"
    saved = theirs(net.state_dict())
    assert not any(key.startswith(("classifier", "texts")) for key in saved)
    inside = {CLIP + "positional_embedding": torch.ones(3, 2)}
    torch.save({"meta": {"iter": 1}, "state_dict": saved | inside}, file)
    state = read_official(file)
    assert text_tower(state).keys() == {"positional_embedding"}
    sizes = describe(state)
    assert (sizes.channels, sizes.dim) == (16, 24)
    assert sizes.encoder[:4] == ((8, 16, 40, 64), (1, 2, 5, 8), (1,) * 4, (8, 4, 2, 1))
    account = convert(state, shapes(net.state_dict()))
    own = net.state_dict()
    assert account.is_complete and all(torch.equal(v, own[k]) for k, v in account.state.items())
    reasons = dict(account.ignored)
    assert reasons[CLIP + "positional_embedding"].startswith("CLIP, whose texts are encoded once")
    assert {"texts.vectors", "texts.about"} <= reasons.keys()
    assert len(account.state) + 2 == len(own)


@pytest.mark.parametrize("mmseg", [True, False])
def test_an_encoder_alone(tmp_path: Path, mmseg: bool) -> None:
    """SegFormer's ImageNet files, and those that mmsegmentation made of them."""
    net = network()
    state = dict(net.backbone.state_dict())
    saved = to_mmseg(state) if mmseg else state | {"head.weight": torch.ones(2, 2)}
    torch.save(saved, tmp_path / "mit.pth")
    account = convert(read_official(tmp_path / "mit.pth"), shapes(net.state_dict()))
    assert account.is_complete
    assert account.state.keys() == {f"backbone.{key}" for key in state}
    assert from_mmseg(to_mmseg(state)).keys() == state.keys()
    assert all(torch.equal(v, state[k]) for k, v in from_mmseg(to_mmseg(state)).items())


def test_files_of_other_networks(tmp_path: Path) -> None:
    good = theirs(network().state_dict())
    first = "backbone.layers.0.1.0.attn.attn.in_proj_weight"
    cases = [
        ({"conv1.weight": torch.ones(2)}, "no Mix Transformer; its keys are 'conv1.weight'"),
        (good | {first: torch.ones(25, 8)}, r"it has no backbone\.block1\.0\.attn\.q\.weight"),
        (good | {"decode_head.convs.2.conv.weight": torch.ones(16, 41, 1, 1)},
         r"convs\.2\.conv\.weight is of shape \(16, 41, 1, 1\), expected \(16, 40, 1, 1\)"),
        ({k: v for k, v in good.items() if "channel_transform.conv" not in k},
         r"it has no classifier\.channel_transform\.conv\.weight"),
    ]  # fmt: skip
    for state, says in cases:
        torch.save(state, tmp_path / "x.pth")
        with pytest.raises(ValueError, match=says):
            read_official(tmp_path / "x.pth")
    torch.save({k: v for k, v in good.items() if "norm2.bias" not in k}, tmp_path / "x.pth")
    account = convert(read_official(tmp_path / "x.pth"), shapes(network().state_dict()))
    assert account.missing == [f"backbone.block{i}.0.norm2.bias" for i in range(1, 5)]


def test_names_of_the_official_network() -> None:
    assert (len(SEMANTIC_NAMES), len(PART_NAMES)) == (19, 9)


# --- convert, and weights to start from ----------------------------------------------------------


def official_file(folder: Path, **more: Tensor) -> Path:
    """A whole-to-part checkpoint of a tiny network whose texts have 512 numbers."""
    state = theirs(network(table(dim=512)).state_dict())
    torch.save({"state_dict": state | more}, folder / "iter_160000.pth")
    return folder / "iter_160000.pth"


def stored_texts(folder: Path) -> None:
    """A table of the names of Cityscapes in the form of $TENFOLD_DATA/clip_text."""
    names = [name.replace("_", " ") for name in (*SEMANTIC_NAMES, *PART_NAMES)]
    draw = np.random.default_rng(0)
    vectors = draw.standard_normal((len(names), 512)).astype(np.float16)
    (folder / "clip_text").mkdir()
    np.savez(
        folder / "clip_text/clip_vitb32_a_name.npz", lvis_names=np.array(names), lvis=vectors,
        coco_names=np.array(["cat"]), coco=vectors[:1],
    )  # fmt: skip


def test_an_official_file_becomes_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: Call
) -> None:
    monkeypatch.setenv("TENFOLD_DATA", str(tmp_path))
    stored_texts(tmp_path)
    file = official_file(tmp_path)
    code, out, err = call("convert", "virreq", file, "--out", tmp_path / "run")
    assert code == 0 and "a stored table of its vectors is taken" in err
    assert "tensors converted" in out and "ours; the file does not have it" in out
    picture = np.random.default_rng(1).integers(0, 255, (40, 60, 3)).astype(np.uint8)
    Image.fromarray(picture).save(tmp_path / "x.png")
    code, out, err = call("predict", tmp_path / "run", tmp_path / "x.png",
                          "--out", tmp_path / "found", "--depth", "1")  # fmt: skip
    assert code == 0, err
    tree = json.loads((tmp_path / "found/x-tree.json").read_text())
    assert {unit["class"] for unit in tree["units"][1:]} <= {*SEMANTIC_NAMES}
    bad = official_file(tmp_path, **{"decode_head.odd.weight": torch.ones(2)})
    code, _, err = call("convert", "virreq", bad, "--out", tmp_path / "odd")
    assert code == 2 and "unused: decode_head.odd.weight" in err
    assert not (tmp_path / "odd").exists()


def test_other_files_say_how_they_are_used(tmp_path: Path, call: Call) -> None:
    state = dict(network().backbone.state_dict()) | {"neck.weight": torch.ones(1)}
    torch.save(state, tmp_path / "mit.pth")
    code, _, err = call("convert", "virreq", tmp_path / "mit.pth")
    assert code == 2 and "has an encoder alone; train from it" in err
    assert "unused: neck.weight" in err and "missing" not in err
    torch.save({"proposal_generator.fcos_head.x": torch.ones(1)}, tmp_path / "objects.pth")
    code, _, err = call("convert", "virreq", tmp_path / "objects.pth")
    assert code == 2 and "is a network of objects (AdelaiDet's layout); train from it" in err
    tower = ClipTextTower(64, 1, 16, 8, 32).state_dict() | {"odd": torch.ones(1)}
    torch.save(tower, tmp_path / "clip.pt")
    code, _, err = call("convert", "virreq", tmp_path / "clip.pt")
    assert code == 2 and "is CLIP's text encoder" in err and "unused: odd" in err


def started(file: Path, **changes: object) -> Config:
    few = replace(DEMO.data, generated=(8, 2), batch_size=2)
    return Virreq.complete(replace(DEMO, start=str(file), data=few, **changes))


def test_sizes_follow_from_the_encoders_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TENFOLD_DATA", str(tmp_path))
    torch.save(dict(network().backbone.state_dict()), tmp_path / "mit.pth")
    cfg = started(tmp_path / "mit.pth", separate=replace(DEMO.separate, network="none"))
    assert cfg.model.dims == (8, 16, 40, 64) and cfg.model.heads == (1, 2, 5, 8)
    networks = Networks(cfg, data.knowledge_of(cfg))
    assert "training started from" in pretrained.begin(networks, cfg)


def test_objects_start_from_a_network_of_other_classes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """AdelaiDet's file of COCO fills all but the classifier, which knows no texts."""
    monkeypatch.setenv("TENFOLD_DATA", str(tmp_path))
    whole = condinst()
    torch.save({"model": official_state(whole)}, tmp_path / "coco.pth")
    cfg = started(tmp_path / "coco.pth", separate=replace(DEMO.separate, network="none"))
    networks = Networks(cfg, data.knowledge_of(cfg))
    with pytest.raises(ValueError, match=r"is a network of objects.*--separate\.network resnet50"):
        pretrained.begin(networks, cfg)
    classifier = TextClassifier(whole.settings.channels, torch.ones(4, cfg.text.dim))
    networks.separate = CondInst(4, whole.settings, classifier)
    pretrained.begin(networks, cfg)
    own, theirs_ = networks.separate.state_dict(), whole.state_dict()
    taken = [
        key for key in theirs_
        if key in own and "num_batches" not in key and "cls_logits" not in key
    ]  # fmt: skip
    assert len(taken) > 50 and all(torch.equal(own[key], theirs_[key]) for key in taken)
    state = official_state(whole)
    del state["controller.bias"]
    torch.save({"model": state}, tmp_path / "coco.pth")
    with pytest.raises(ValueError, match=r"missing: separate\.fcos\.controller\.bias"):
        pretrained.begin(networks, cfg)
