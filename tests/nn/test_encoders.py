"""Networks of the house as encoders: maps, sizes, names of parameters, gradients through a head."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from tenfold.nn.aspp import DaformerHead, DeepLabHead
from tenfold.nn.encoders import Encoder, HivitEncoder, ResnetEncoder, VitEncoder
from tenfold.nn.hivit import HiViT, Shape
from tenfold.nn.hivit_blocks import bias_index
from tenfold.nn.mit import MixTransformer
from tenfold.nn.resnet import ResNet
from tenfold.nn.vit import Vit, VitShape

VIT = VitShape(dim=12, depth=5, heads=2, patch_size=14, grid=4, hidden=24, registers=2)
HIVIT = Shape(embed_dim=32, depths=(1, 1, 2), num_heads=2, patch_size=16, grid=(4, 6))
PLAIN = [16, 8, 4, 2]
"""Rows of the maps of pictures of 64 rows."""


def encoders() -> dict[str, tuple[Encoder, list[int]]]:
    torch.manual_seed(0)
    return {
        "mit": (MixTransformer((8, 16, 24, 32), (1, 2, 3, 4), (1, 1, 1, 1)), PLAIN),
        "resnet": (ResnetEncoder("resnet18", 4), [16, 8, 8, 8]),
        "hivit": (HivitEncoder(HIVIT), PLAIN),
        "itpn": (HivitEncoder(Shape(**(vars(HIVIT) | {"fpn_dim": 8}))), PLAIN),
        "vit": (VitEncoder(VIT), PLAIN),
    }


@pytest.mark.parametrize("name", encoders())
def test_maps_and_gradients(name: str) -> None:
    encoder, rows = encoders()[name]
    maps = encoder(torch.randn(2, 3, 64, 96))
    sides = [(n, n * 3 // 2) for n in rows]
    assert [tuple(x.shape[1:]) for x in maps] == [
        (dim, *side) for dim, side in zip(encoder.dims, sides, strict=True)
    ]
    logits = DaformerHead(encoder.dims, 3, 6, 8, (1, 2))(maps)
    assert logits.shape == (2, 3, 16, 24)
    (logits.square().mean() + DeepLabHead(encoder.dims[-1], 3, (1, 2))(maps).mean()).backward()
    unused = [key for key, p in encoder.named_parameters() if p.grad is None]
    assert not unused


def test_names_are_those_of_the_networks() -> None:
    pairs = [
        (VitEncoder(VIT), Vit(VIT)), (HivitEncoder(HIVIT), HiViT(HIVIT)),
        (ResnetEncoder("resnet18", 4), ResNet("resnet18", 4)),
    ]  # fmt: skip
    for encoder, network in pairs:
        encoder.load_state_dict(network.state_dict())


def test_the_last_map_of_a_transformer_is_its_tokens() -> None:
    torch.manual_seed(0)
    encoder, x = VitEncoder(VIT).eval(), torch.randn(1, 3, 64, 96)
    last = encoder(x)[-1]
    tokens = encoder.tokens(F.interpolate(x, (56, 84), mode="bilinear"))[:, 3:]
    want = F.avg_pool2d(tokens.transpose(1, 2).unflatten(2, (4, 6)), 2)
    torch.testing.assert_close(last, want)


@pytest.mark.parametrize("name", ["vit", "hivit", "itpn"])
def test_pictures_of_any_size(name: str) -> None:
    odd = encoders()[name][0](torch.randn(1, 3, 50, 70))
    assert [tuple(m.shape[2:]) for m in odd] == [(13, 18), (7, 9), (4, 5), (2, 3)]


@pytest.mark.parametrize("bias", ["shared", "shared-decoupled"])
def test_a_shared_bias_is_resized_for_other_pictures(bias: str) -> None:
    """A bias that grows along a side still does so where there are more units, and stays."""
    shape = Shape(**(vars(HIVIT) | {"bias": bias, "has_class_token": True, "grid": (3, 3)}))
    network = HiViT(shape)
    with torch.no_grad():
        for table in network.rel_pos_bias.parameters():
            table.copy_(torch.arange(float(len(table)))[:, None].expand_as(table))
    for grid in ((3, 3), (4, 6)):
        index = bias_index(bias, grid, torch.device("cpu"))
        found = network.rel_pos_bias(index, grid)[0]
        assert found.shape == (2, 1 + grid[0] * grid[1], 1 + grid[0] * grid[1])
        line = found[0, 1, 1 : 1 + grid[1]].diff()  # a query, keys of its row
        assert (line > 0).all() or (line < 0).all()
        last = [float(len(t)) for t in network.rel_pos_bias.parameters()]
        assert found[0, 0, 0] == sum(last) - len(last)  # the class token's own row
    assert network.encode(torch.randn(1, 3, 64, 96)).tokens.shape == (1, 24, 32)


def test_shapes_that_are_no_encoders() -> None:
    with pytest.raises(ValueError, match="3 blocks is too shallow"):
        VitEncoder(VitShape(dim=12, depth=3, heads=2, patch_size=14, grid=4, hidden=24))
    with pytest.raises(ValueError, match="has 2 levels; an encoder for segmentation needs 3"):
        HivitEncoder(Shape(**(vars(HIVIT) | {"fpn_dim": 8, "fpn_levels": 2})))
