"""Checkpoints of peers as runs and as starts, and networks as plain tensors."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from tiny import config, options

from tenfold.runner.weights import construct
from tenfold.systems.usage import Usage, seam, seeds
from tenfold.systems.usage.backbones import Model
from tenfold.systems.usage.networks import build, for_inference

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


def test_the_maps_of_seam(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of SEAM's becomes a run whose seeds are those of its branch (infer_SEAM.py)."""
    network = build(Model(name="resnet38", width=2, correlation=True), 4).eval()
    state = {
        key.replace("head.weight", "fc8.weight")
        .removeprefix("body.")
        .removeprefix("correlation.")
        .removeprefix("pixels."): value
        for key, value in network.state_dict().items()
    }
    torch.save(state, tmp_path / "seam.pth")
    system, account = Usage.convert(tmp_path / "seam.pth")
    account.require_complete()
    assert not account.ignored and system.cfg.seeds.rule == "seam"
    assert system.cfg.model.correlation and len(system.cfg.classes) == 3
    image, labels = torch.randn(3, 40, 48), torch.tensor([True, False, True])
    monkeypatch.setattr(seam, "PIECE", 200)
    own = for_inference(system.model.seed.eval())
    found = seeds.activation_maps(own, image, labels, (1.0, 0.5), True, "seam")
    branch = system.model.seed.correlation
    assert branch is not None
    total = torch.zeros(3, 40, 48)
    for size in ((40, 48), (20, 24)):
        x = F.interpolate(image[None], size, mode="bicubic", antialias=True)
        x = image[None] if size == (40, 48) else x
        for view in (x, x.flip(3)):
            with torch.no_grad():
                there = system.model.seed(view)
                third, fourth = there.levels[2:4]
                colours = F.interpolate(view, third.shape[2:], mode="bilinear", align_corners=True)
                each = [colours, branch.f8_3(third).relu(), branch.f8_4(fourth).relu()]
                f = branch.pixels.f9(torch.cat(each, 1))[0].flatten(1).T
            f = f / (f.norm(dim=1, keepdim=True) + 1e-5)
            alike = (f @ f.T).clamp(min=0)
            alike = alike / (alike.sum(0) + 1e-5)
            maps = there.maps[0].flatten(1).clamp(min=0)
            maps = (maps - 1e-5).clamp(min=0) / (maps.amax(1, keepdim=True) + 1e-5)
            won = torch.where(maps == maps.amax(0), maps, 0)
            spread = (won @ alike).unflatten(1, third.shape[2:])[None]
            large = F.interpolate(spread, size, mode="bilinear", align_corners=True)
            large = F.interpolate(large, (40, 48), mode="bilinear", align_corners=False)
            total += (large if view is x else large.flip(3))[0]
    least, most = total.amin((1, 2), keepdim=True), total.amax((1, 2), keepdim=True)
    wanted = (total - least - 1e-5).clamp(min=0) / (most - least + 1e-5) * labels[:, None, None]
    assert float(wanted.amax()) > 0.9 and not bool(found[1].any())
    torch.testing.assert_close(found, wanted, atol=2e-4, rtol=1e-3)
    with pytest.raises(ValueError, match="need SEAM's branch"):
        seeds.activation_maps(
            build(Model(name="resnet38", width=2), 3), image, labels, (1.0,), True, "seam"
        )
    with pytest.raises(ValueError, match=r"needs SEAM's branch; give --model\.correlation true"):
        replace(system.cfg, model=replace(system.cfg.model, correlation=False))
    with pytest.raises(ValueError, match="of resnet38, and model.name is resnet50"):
        Model(name="resnet50", correlation=True)
