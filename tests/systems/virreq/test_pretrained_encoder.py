"""EfficientNet-Lite0 as the encoder: ImageNet's file, what stays as it is, and few examples."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tenfold.nn.efficientnet import EfficientNetLite
from tenfold.nn.encoders import LiteEncoder
from tenfold.systems.virreq import data, pretrained
from tenfold.systems.virreq.config import Config, Data, Model
from tenfold.systems.virreq.model import LITE, Networks, RequestTraining, normalised
from tenfold.systems.virreq.official import describe, read_official
from tenfold.systems.virreq.recipes import DEMO
from tenfold.systems.virreq.system import Virreq

PREFIXES = ("conv_stem", "bn0", "conv_head", "bn1")


def port_file(path: Path) -> dict[str, torch.Tensor]:
    """A file as the port writes it, of random weights; and its tensors."""
    torch.manual_seed(4)
    state = {}
    for key, value in EfficientNetLite().state_dict().items():
        first, _, rest = key.partition(".")
        number, _, layer = rest.partition(".")
        name = f"_{key}" if first in PREFIXES else f"_blocks.{number}._{layer}"
        state[name] = value
    state |= {"_fc.weight": torch.ones(5, 1280), "_fc.bias": torch.ones(5)}
    torch.save(state, path)
    return state


def started(file: Path, **changes: object) -> Config:
    model = Model(encoder="efficientnet-lite0", frozen=2, head_dim=8)
    few = Data(name="dolls", generated=(12, 2), batch_size=2, crop=64)
    cfg = replace(DEMO, model=model, data=few, separate=replace(DEMO.separate, network="none"))
    return Virreq.complete(replace(cfg, start=str(file), **changes))


def test_the_maps_are_those_of_the_whole_network() -> None:
    torch.manual_seed(0)
    encoder, whole = LiteEncoder().eval(), EfficientNetLite().eval()
    account = whole.load_state_dict(encoder.state_dict(), strict=False)
    assert not account.unexpected_keys
    image = torch.randn(1, 3, 70, 50)
    maps, levels = encoder(image), whole.levels(image)
    assert [m.shape[1] for m in maps] == list(encoder.dims) == [24, 40, 112, 192]
    assert [m.shape[2] for m in maps] == [18, 9, 5, 3]
    for found, place in zip(maps, (2, 3, 5, 6), strict=True):
        torch.testing.assert_close(found, levels[place])
    with pytest.raises(ValueError, match="9 stages cannot be frozen; there are 6"):
        LiteEncoder(frozen=9)


def test_a_file_of_imagenet_is_taken_whole(tmp_path: Path) -> None:
    state = port_file(tmp_path / "lite0.pth")
    cfg = started(tmp_path / "lite0.pth")
    networks = Networks(cfg, data.knowledge_of(cfg))
    assert describe(read_official(tmp_path / "lite0.pth")).encoder is None
    said = pretrained.begin(networks, cfg)
    assert "lite0.pth" in said
    own = networks.divide.backbone
    assert isinstance(own, LiteEncoder)
    assert torch.equal(own.blocks[14].project_conv.weight, state["_blocks.14._project_conv.weight"])
    del state["_blocks.3._bn1.bias"]
    torch.save(state, tmp_path / "less.pth")
    with pytest.raises(ValueError, match=r"missing: divide\.backbone\.blocks\.3\.bn1\.bias"):
        pretrained.begin(networks, replace(cfg, start=str(tmp_path / "less.pth")))
    grey = torch.full((3, 4, 4), 127, dtype=torch.uint8)
    assert normalised(grey, networks.divide).abs().max() < 1e-6, "its own colours"
    assert LITE[1][0] == 128 / 255


def test_norms_and_first_stages_stay(tmp_path: Path) -> None:
    port_file(tmp_path / "lite0.pth")
    cfg = started(tmp_path / "lite0.pth")
    system = Virreq(cfg)
    stage = next(iter(system.stages()))
    encoder = system.model.divide.backbone
    stage.model.train()
    before = {key: value.clone() for key, value in encoder.state_dict().items()}
    assert isinstance(stage.model, RequestTraining)
    found = stage.model(stage.batches(0))
    found["loss"].backward()
    torch.optim.SGD([p for p in encoder.parameters() if p.requires_grad], 1e-3).step()
    changed = {k for k, v in encoder.state_dict().items() if not torch.equal(v, before[k])}
    assert changed and not any(
        ".bn" in key or key.startswith(("bn0", "conv_stem")) for key in changed
    )
    assert min(int(key.split(".")[1]) for key in changed) == encoder.ends[1]
    with pytest.raises(ValueError, match=r"model\.frozen is of efficientnet-lite0"):
        Model(frozen=1)


def test_training_on_a_few_examples_of_hidden_concepts() -> None:
    few = Data(name="dolls", generated=(40, 2), hidden=("hat", "wheel"), examples=3, crop=64)
    cfg = Virreq.complete(replace(DEMO, data=few))
    chosen = data.Batches(cfg, "divide", 4).found
    codes = data.codes_of(cfg)
    for name, code in (("hat", 2), ("wheel", 8)):
        assert data.knowledge_of(cfg).node(codes[code][-1]).name == name
        seen = sum(bool((item.read()[1] == code).any()) for item in chosen.items)
        assert seen >= 3
    assert 3 <= len(chosen) <= 6
    other = data.Batches(replace(cfg, seed=1), "divide", 4).found
    assert {item.name for item in other.items} != {item.name for item in chosen.items}
    shown = next(iter(Virreq(cfg).stages())).model.groups
    kept = next(iter(Virreq(replace(cfg, data=replace(few, examples=0))).stages())).model.groups
    assert shown[1].wanted[2] != 255 and kept[1].wanted[2] == 255, "examples are labelled whole"
    assert "labelled in training, 3 pictures each: hat, wheel" in Virreq(cfg).notes()
    with pytest.raises(ValueError, match=r"data\.examples is 2, but data\.hidden names no"):
        Data(examples=2)
    with pytest.raises(ValueError, match="no training picture has 'hat'"):
        data.examples_of(cfg, replace(chosen, items=()))
