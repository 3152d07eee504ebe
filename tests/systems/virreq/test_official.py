"""The official layout: there and back, encoders alone, and files that are another network."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from systems.virreq.networks import network
from torch import Tensor

from tenfold.systems.virreq.official import (
    PART_NAMES,
    SEMANTIC_NAMES,
    convert,
    describe,
    read_official,
    text_tower,
    theirs,
)
from tenfold.weights.mit import from_mmseg, to_mmseg

CLIP = "decode_head.CLIP_CLS_SEG.clip_model."


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
