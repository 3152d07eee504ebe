"""Files in AdelaiDet's layout: read whole, and every key that does not fit is listed."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from golden.harness import HERE
from torch import Tensor

from tenfold.nn.condinst import CondInst, Settings
from tenfold.nn.dynamic_masks import DynamicHead
from tenfold.systems.apis import Apis, official, pretrained
from tenfold.weights.condinst import LAYOUT

TINY = replace(
    Settings(), widths=(4,), depths=(1, 1, 2, 1), channels=32, convs=1, branch_channels=6,
    branch_convs=2,
)  # fmt: skip


def network(settings: Settings = TINY, classes: int = 3) -> CondInst:
    torch.manual_seed(0)
    made = CondInst(classes, settings).eval()
    for value in made.state_dict().values():
        if value.is_floating_point():
            value.copy_(torch.randn(value.shape).abs() / 3)
    return made


def official_state(made: CondInst) -> dict[str, Tensor]:
    """A network under the keys of a published file, as far as it has such layers."""
    keys = [k for k, *_ in json.loads((HERE / "apis/condinst_full_r50.json").read_text())["params"]]
    own, last = made.state_dict(), made.settings.branch_convs
    given = {}
    for key in keys:
        name = re.sub(r"(tower\.)4\.", rf"\g<1>{last}.", key) if key.startswith("mask_b") else key
        rule = next((r for r in LAYOUT.rules if re.fullmatch(r.pattern, name)), None)
        if rule and (ours := re.sub(rule.pattern, rule.replacement, name)) in own:
            given[name] = rule.inverse(own[ours]) if rule.inverse else own[ours]
    step = {"mask_head._iter": torch.ones(1), "mask_head.sizes_of_interest": torch.ones(5)}
    return given | step


def save(folder: Path, state: dict[str, Tensor]) -> Path:
    torch.save({"model": state, "iteration": 89999}, folder / "model.pth")
    return folder / "model.pth"


@pytest.mark.parametrize("features", [8, 16], ids=["CondInst", "BoxInst"])
def test_a_published_file_is_opened(tmp_path: Path, features: int) -> None:
    made = network(replace(TINY, mask=DynamicHead(features)))
    found, account = official.opened(save(tmp_path, official_state(made)))
    assert account.is_complete and found.settings == made.settings
    assert [key for key, _ in account.ignored] == ["mask_head._iter", "mask_head.sizes_of_interest"]
    images = torch.rand(1, 3, 64, 64) * 255
    torch.testing.assert_close(found.encode(images).features, made.encode(images).features)
    assert all(not v.any() for k, v in found.state_dict().items() if k.endswith("tracked"))


def test_its_first_kernels_are_of_bgr(tmp_path: Path) -> None:
    made = network()
    state = official_state(made)
    torch.testing.assert_close(
        state["backbone.bottom_up.stem.conv1.weight"].flip(1), made.backbone.conv1.weight
    )


def test_every_key_that_does_not_fit_is_listed(tmp_path: Path) -> None:
    state = official_state(network())
    state["proposal_generator.fcos_head.share_tower.0.weight"] = torch.ones(2)
    state["mask_branch.refine.1.0.weight"] = torch.ones(2, 2)
    del state["controller.bias"]
    with pytest.raises(ValueError) as error:
        official.opened(save(tmp_path, state))
    said = str(error.value)
    assert "unused: proposal_generator.fcos_head.share_tower.0.weight" in said
    assert "shape: branch.refine.1.0.weight is (2, 2)" in said
    assert "missing: fcos.controller.bias" in said and "model.pth" in said


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("controller.weight", torch.ones(170, 8, 3, 3), "have 170 numbers; .* have 169"),
        ("controller.weight", torch.ones(3), r"of shape \(3,\); 4 dimensions"),
        ("controller.weight", None, "no CondInst in AdelaiDet's layout: it has no controller"),
        (
            "proposal_generator.fcos_head.cls_logits.text_porj.weight", torch.ones(2, 3),
            "classifier is one of texts",
        ),
    ],
)  # fmt: skip
def test_other_networks_are_refused(
    tmp_path: Path, key: str, value: Tensor | None, message: str
) -> None:
    state = official_state(network())
    state = {k: v for k, v in state.items() if k != key}
    if value is not None:
        state[key] = value
    with pytest.raises(ValueError, match=message):
        official.opened(save(tmp_path, state))


def test_a_network_of_other_classes_starts_from_it(tmp_path: Path) -> None:
    made, fresh = network(), network(classes=5)
    before = fresh.fcos.cls_logits.weight.clone()
    account = official.load(fresh, save(tmp_path, official_state(made)))
    assert dict(account.ignored)["fcos.cls_logits.weight"] == official.ANEW
    assert torch.equal(fresh.fcos.cls_logits.weight, before)
    assert torch.equal(fresh.fcos.controller.weight, made.fcos.controller.weight)


def test_a_backbone_of_imagenet_is_taken(tmp_path: Path) -> None:
    """As detectron2 names it, with and without what it stands in."""
    made, prefix = network(), "backbone.bottom_up."
    whole = {k: v for k, v in official_state(made).items() if k.startswith(prefix)}
    for cut in ("", "backbone.", prefix):
        state = {k.removeprefix(cut): v for k, v in whole.items()} | {
            "stem.fc.weight": before(made)
        }
        fresh = network(replace(TINY, convs=2))
        with torch.no_grad():
            fresh.backbone.conv1.weight.zero_()
        account = official.load(fresh, save(tmp_path, state))
        assert torch.equal(fresh.backbone.conv1.weight, made.backbone.conv1.weight)
        assert dict(account.ignored)["fcos.controller.weight"] == official.ANEW
    with pytest.raises(ValueError, match="does not fill this network"):
        official.load(network(), save(tmp_path, {"some.weight": torch.ones(3)}))


def test_an_efficientnet_of_imagenet_is_taken(tmp_path: Path) -> None:
    """As the widely used port names it; its norms and, if asked, its stages stay as they are."""
    lite = replace(
        TINY, backbone="efficientnet-lite0", widths=(), depths=(), branch_norm="group",
        branch_channels=32, frozen_stages=6,
    )  # fmt: skip
    made = network(lite)
    names = {
        key: "_" + key.replace(".", "._", 2) if key.startswith("blocks") else f"_{key}"
        for key in made.backbone.state_dict()
    }
    names = {key: re.sub(r"\._(\d+)\.", r".\1.", name) for key, name in names.items()}
    state = {names[key]: value for key, value in made.backbone.state_dict().items()}
    extra = {"_fc.bias": torch.ones(1000), "_blocks.15._bn0.weight": torch.ones(4)}
    torch.save(state | extra, tmp_path / "lite.pth")
    fresh = CondInst(3, lite)
    account = official.load(fresh, tmp_path / "lite.pth")
    assert dict(account.ignored)["_fc.bias"] == "a classifier of ImageNet"
    assert "_blocks.15._bn0.weight" in dict(account.ignored) and not account.unused
    for key, value in fresh.backbone.state_dict().items():
        assert torch.equal(value, made.backbone.state_dict()[key])
    fresh.train()
    fresh.encode(torch.rand(1, 3, 64, 64)).features.sum().backward()
    assert all(p.grad is None for p in fresh.backbone.parameters())
    assert torch.equal(fresh.backbone.bn0.running_mean, made.backbone.bn0.running_mean)


def before(made: CondInst) -> Tensor:
    """A classifier's weights."""
    return torch.ones(1000, made.backbone.widths[-1])


def test_a_published_file_is_a_system_and_a_start(tmp_path: Path) -> None:
    """Converted, its sizes follow from its shapes; own classes start with a classifier anew."""
    file = save(tmp_path, official_state(network()))
    system, account = Apis.convert(file)
    assert account.is_complete and system.cfg.classes == ("class 1", "class 2", "class 3")
    assert isinstance(system, Apis) and system.cfg.model.widths == (4,)
    images = torch.rand(1, 3, 64, 64) * 255
    made = network()
    for name in ("features", "levels"):
        a, b = (getattr(n.eval().encode(images), name) for n in (system.model, made))
        torch.testing.assert_close(a, b)
    cfg = replace(system.cfg, classes=("one", "two"), start=str(file))
    other = Apis(cfg)
    assert "tensors" in pretrained.begin(other.model, cfg)
    taken = other.model.state_dict()["fcos.bbox_pred.weight"]
    assert torch.equal(taken, made.state_dict()["fcos.bbox_pred.weight"])
