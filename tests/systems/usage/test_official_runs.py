"""Checkpoints of peers as runs and as starts, and networks as plain tensors."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny import config, options

from tenfold.runner.weights import construct
from tenfold.systems.usage import Usage
from tenfold.systems.usage.backbones import Model
from tenfold.systems.usage.networks import build

pytestmark = pytest.mark.usefixtures("generated_only")
WORDS = [*options("usage"), "--segment.steps", "0"]


@pytest.mark.parametrize(
    "model",
    [
        Model(name="mctformer", width=32, depths=(2,), heads=1, grid=4),
        Model(name="mctformer-plus", width=32, depths=(2,), heads=1, grid=4),
        Model(name="resnet38", width=8),
    ],
    ids=lambda model: model.name,
)
def test_a_checkpoint_of_a_peer_becomes_a_run(model: Model, tmp_path: Path) -> None:
    """Kind and sizes follow from the file; every tensor is accounted for."""
    network = build(model, 3).eval()
    names = {"head.weight": "fc8.weight"} if model.name == "resnet38" else {}
    state = {names.get(k, k).removeprefix("body."): v for k, v in network.state_dict().items()}
    torch.save({"model": state}, tmp_path / "peer.pth")
    system, account = Usage.convert(tmp_path / "peer.pth")
    account.require_complete()
    assert system.cfg.model.name == model.name and len(system.cfg.classes) == 3
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        wanted = network(images).maps
        torch.testing.assert_close(system.model.seed.eval()(images).maps, wanted)


def test_later_stages_start_with_the_same_backbone(tmp_path: Path) -> None:
    """An ImageNet file fills the seed network and the encoder that learns from masks."""
    model = Model(name="resnet18", width=8, depths=(1, 1, 1, 1))
    body = build(model, 3).body.state_dict()
    state = {**body, "fc.weight": torch.zeros(10, 64), "fc.bias": torch.zeros(10)}
    torch.save(state, tmp_path / "imagenet.pth")
    words = [*options("usage"), "--segment.encoder", "seed", "--segment.head", "deeplab"]
    system = construct(
        Usage, config("usage", "demo", [*words, "--start", str(tmp_path / "imagenet.pth")])
    )
    next(system.stages())
    assert "imagenet.pth" in system.origin
    later = system.model.bodies()
    assert len(later) == 1
    for own in (system.model.seed.body, *later):
        found = own.state_dict()
        assert all(torch.equal(found[key], value) for key, value in body.items())
    wrong = replace(system.cfg, model=Model(name="resnet38"))
    with pytest.raises(ValueError, match=r"imagenet\.pth"):
        Usage.complete(wrong)


def test_both_networks_are_exported() -> None:
    system = construct(Usage, config("usage", "demo", options("usage")))
    classifier = system.export_part("classifier", (32, 48))
    maps, scores = classifier.module.eval()(*classifier.inputs)
    assert maps.shape == (2, 5, 8, 12) and scores.shape == (2, 5)
    logits = system.export_part("", (32, 32))
    assert logits.module.eval()(*logits.inputs).shape[:2] == (2, 6)
    with pytest.raises(ValueError, match="has segmentation, classifier"):
        system.export_part("affinity", (0, 0))
    alone = construct(Usage, config("usage", "demo", WORDS))
    assert alone.export().output_names == ("maps", "scores")
