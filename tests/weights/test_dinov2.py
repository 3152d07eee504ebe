"""Weights of DINOv2 in both layouts become the same network; every key is accounted for."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tenfold.nn.vit import Vit, VitShape
from tenfold.weights.dinov2 import convert_dinov2, describe_dinov2, is_dinov2


def network_of(registers: int, gated: bool) -> Vit:
    return Vit(VitShape(8, 2, 2, 4, 3, 12, registers, gated))


def official(network: Vit) -> dict[str, Tensor]:
    return {**network.state_dict(), "mask_token": torch.zeros(1, network.shape.dim)}


def of_transformers(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The names of Dinov2Model and Dinov2WithRegistersModel, with separate q, k and v."""
    names = {
        "patch_embed.proj": "embeddings.patch_embeddings.projection",
        "pos_embed": "embeddings.position_embeddings",
        "cls_token": "embeddings.cls_token",
        "mask_token": "embeddings.mask_token",
        "register_tokens": "embeddings.register_tokens",
        "blocks.": "encoder.layer.",
        "attn.proj": "attention.output.dense",
        "ls1.gamma": "layer_scale1.lambda1",
        "ls2.gamma": "layer_scale2.lambda1",
        "mlp.w12": "mlp.weights_in",
        "mlp.w3": "mlp.weights_out",
    }
    found = {}
    for key, value in state.items():
        if key.startswith("norm."):
            key = key.replace("norm.", "layernorm.")
        for ours, theirs in names.items():
            key = key.replace(ours, theirs)
        if "attn.qkv" not in key:
            found[key] = value
            continue
        for part, some in zip(("query", "key", "value"), value.chunk(3), strict=True):
            found[key.replace("attn.qkv", f"attention.attention.{part}")] = some
    return found


@pytest.mark.parametrize(("registers", "gated"), [(0, False), (3, False), (2, True)])
def test_both_layouts(registers: int, gated: bool) -> None:
    network = network_of(registers, gated)
    target = {key: tuple(value.shape) for key, value in network.state_dict().items()}
    first = official(network)
    chunked = {k.replace("blocks.", "blocks.0."): v for k, v in first.items()}
    theirs = of_transformers(first)
    inside = {f"dinov2.{key}": value for key, value in theirs.items()}
    inside["classifier.weight"] = torch.zeros(5, 16)
    for state in (first, chunked, theirs, inside):
        assert is_dinov2(state)
        found = describe_dinov2(state)
        assert (found.dim, found.depth, found.patch_size, found.grid) == (8, 2, 4, 3)
        assert (found.hidden, found.registers, found.gated) == (12, registers, gated)
        account = convert_dinov2(state, target)
        for key, value in account.require_complete().items():
            assert torch.equal(value, network.state_dict()[key]), key
        assert any("mask_token" in key for key, _ in account.ignored)


def test_what_does_not_fit_is_listed() -> None:
    network = network_of(0, False)
    target = {key: tuple(value.shape) for key, value in network.state_dict().items()}
    state = of_transformers(official(network))
    del state["encoder.layer.1.attention.attention.key.bias"], state["layernorm.bias"]
    state["decoder.weight"] = torch.zeros(2)
    with pytest.raises(ValueError) as wrong:
        convert_dinov2(state, target).require_complete()
    said = str(wrong.value)
    for name in ("unused: decoder.weight", "missing: blocks.1.attn.qkv.bias", "missing: norm.bias",
                 "unused: encoder.layer.1.attention.attention.query.bias"):  # fmt: skip
        assert name in said
    assert not is_dinov2({"conv1.weight": torch.zeros(1)})
    with pytest.raises(ValueError, match="pos_embed"):
        describe_dinov2({**official(network), "pos_embed": torch.zeros(1, 9, 8)})
    with pytest.raises(ValueError, match="no cls_token"):
        describe_dinov2({"conv1.weight": torch.zeros(1)})
