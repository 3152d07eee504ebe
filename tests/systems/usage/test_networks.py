"""Seed networks: shapes, what is frozen, adjustment, attention, and inference."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from tenfold.systems.usage.adjust import Adjustment
from tenfold.systems.usage.backbones import Model
from tenfold.systems.usage.networks import build, for_inference

TOKENS = {"width": 16, "depths": (2,), "heads": 2, "grid": 4, "patch_size": 8}
MODELS = {
    "resnet18": Model("resnet18", width=4, depths=(1, 1, 1, 1)),
    "resnet50": Model("resnet50", width=4, depths=(1, 1, 1, 1), dilate=False),
    "resnet38": Model("resnet38", width=2, dropout=0.5),
    "efficientnet-lite0": Model("efficientnet-lite0", width=8),
    "deit": Model("deit", **TOKENS),
    "mctformer": Model("mctformer", **TOKENS),
    "mctformer-plus": Model("mctformer-plus", **TOKENS, drop_path=0.5),
    "hivit": Model("hivit", width=32, depths=(1, 1, 1), heads=2, grid=4, patch_size=8),
}  # fmt: skip
STRIDES = {"resnet38": 8, "resnet18": 16, "resnet50": 16, "efficientnet-lite0": 16}


@pytest.fixture(params=MODELS)
def model(request) -> Model:
    return MODELS[request.param]


def images(rows: int = 32, columns: int = 48) -> torch.Tensor:
    return torch.randn(2, 3, rows, columns, generator=torch.Generator().manual_seed(1))


def randomised(network: nn.Module) -> nn.Module:
    """A network whose norms do something."""
    generator = torch.Generator().manual_seed(2)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for value in (module.running_mean, module.bias.data):
                value.normal_(0, 0.1, generator=generator)
            for value in (module.running_var, module.weight.data):
                value.uniform_(0.5, 1.5, generator=generator)
    return network


def test_a_network(model: Model) -> None:
    network = build(model, 3)
    found = network(images())
    stride = STRIDES.get(model.name, model.patch_size)
    assert found.maps.shape == (2, 3, 32 // stride, 48 // stride)
    assert tuple(level.shape[1] for level in found.levels) == network.level_dims
    assert (found.class_logits is not None) == model.name.startswith("mctformer")
    strong = network(images(), Adjustment(0.5))
    assert not torch.equal(network.eval()(images()).maps, strong.maps)
    total = strong.maps.sum()
    if strong.class_logits is not None:
        total = total + strong.class_logits.sum()
    total.backward()
    trained = {key for key, p in network.named_parameters() if p.requires_grad}
    assert trained == {key for key, p in network.named_parameters() if p.grad is not None}


def test_a_network_of_no_strength_is_the_network(model: Model) -> None:
    network = build(model, 3).eval()
    assert torch.equal(network(images()).maps, network(images(), Adjustment(0.0)).maps)


def test_frozen_stages(model: Model) -> None:
    first = build(replace(model, frozen_stages=2), 3).train()
    stem = {"resnet38": "conv1a", "efficientnet-lite0": "conv_stem"}.get(model.name, "conv1")
    stem = stem if model.is_convolutional else "patch_embed"
    assert not any(p.requires_grad for p in getattr(first.body, stem).parameters())
    assert any(p.requires_grad for p in first.body.parameters())
    whole = build(replace(model, frozen_stages=-1), 3).train()
    left = {key for key, p in whole.named_parameters() if p.requires_grad}
    tokens = {"body.cls_token", "body.pos_embed", "body.pos_embed_cls", "body.pos_embed_pat"}
    assert {key for key in left if not key.startswith("head.")} <= tokens
    with pytest.raises(ValueError, match="frozen_stages is 99"):
        build(replace(model, frozen_stages=99), 3)


@pytest.mark.parametrize("name", [name for name, m in MODELS.items() if m.is_convolutional])
def test_norms_are_frozen_or_not(name: str) -> None:
    for frozen in (True, False):
        network = build(replace(MODELS[name], freeze_norm=frozen), 3).train()
        norms = [m for m in network.body.modules() if isinstance(m, nn.BatchNorm2d)]
        before = [m.running_mean.clone() for m in norms]
        network(images())
        stay = [torch.equal(m.running_mean, old) for m, old in zip(norms, before, strict=True)]
        assert all(stay) if frozen else not any(stay)
        assert all(m.weight.requires_grad != frozen for m in norms)


def test_inference_finds_the_same(model: Model) -> None:
    network = randomised(build(model, 3)).eval()
    fast = for_inference(network)
    with torch.inference_mode():
        want, got = network(images()).maps, fast(images()).maps
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)
        half = for_inference(network, "bfloat16")(images().bfloat16()).maps.float()
    assert (half - want).abs().max() < 0.1 * want.abs().max()
    assert network.head.weight.dtype == torch.float32 and network.head.weight.requires_grad
    norms = [m for m in fast.modules() if isinstance(m, nn.BatchNorm2d)]
    if model.name != "resnet38":  # whose norms come before convolutions, half of them
        assert not norms


@pytest.mark.parametrize("name", ["deit", "mctformer", "mctformer-plus"])
def test_attention_is_a_share_of_the_same_network(name: str) -> None:
    network = build(MODELS[name], 3).eval()
    plain, found = network(images()), network(images(), with_attention=True)
    torch.testing.assert_close(found.maps, plain.maps)
    assert plain.attention is None and found.attention is not None
    first = 1 if name == "deit" else 3
    assert found.attention.to_patches.shape == (2, 2, first, 24)
    assert found.attention.affinity.shape == (2, 24, 24)
    assert (found.attention.affinity.sum(2) < 2).all()  # two blocks, less what class tokens get


def test_dropped_tokens_are_seen_by_none() -> None:
    """Of a patch that every block drops, nothing reaches another patch's map."""
    network = build(replace(MODELS["deit"], frozen_stages=0), 3).eval()
    network.head = nn.Conv2d(16, 3, 1)
    block = network.body.blocks[0]
    x = torch.randn(2, 25, 16)
    kept = torch.ones(2, 25, dtype=torch.bool)
    kept[:, 7] = False
    changed = x.clone()
    changed[:, 7] += torch.randn(16)
    a, b = block(x, kept), block(changed, kept)
    others = [token for token in range(25) if token != 7]
    torch.testing.assert_close(a[:, others], b[:, others])
    assert not torch.allclose(block(x)[:, others], block(changed)[:, others])


def test_weights_of_the_first_tokens_are_those_of_all() -> None:
    attention = build(MODELS["mctformer"], 3).body.blocks[0].attn
    x = torch.randn(2, 9, 16)
    mixed, weights = attention.with_weights(x)
    torch.testing.assert_close(attention.weights(x, 3), weights[:, :, :3])
    torch.testing.assert_close(attention(x), mixed)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"width": -1}, "model.width must be at least 0, got -1"),
        ({"dropout": 1.0}, r"model.dropout must be in \[0, 1\), got 1.0"),
        ({"name": "hivit", "depths": (2,)}, r"depths is \(2,\); hivit takes 3 numbers"),
        ({"depths": (2,)}, r"depths is \(2,\); resnet38 takes \(\)"),
        ({"frozen_stages": -2}, "frozen-stages must be at least -1"),
        ({"patch_size": 0}, "patch-size must be at least 1"),
    ],
)
def test_sizes_that_no_network_has(values: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Model(**values)


def test_strides_that_no_network_has() -> None:
    with pytest.raises(ValueError, match="output_stride is 16; resnet38 has 8"):
        build(Model("resnet38", output_stride=16), 3)
    with pytest.raises(ValueError, match="output_stride is 1, but the stem"):
        build(Model("efficientnet-lite0", output_stride=1), 3)
