"""The Mix Transformer: sizes, attention against its definition, stochastic depth, formats."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from tenfold.nn.mit import SIZES, Attention, MixTransformer, as_map, as_tokens

TINY = ((8, 16, 24, 32), (1, 2, 3, 4), (1, 2, 1, 1))


@pytest.mark.parametrize(("name", "millions"), [("b1", 13.1), ("b3", 44.0)])
def test_published_sizes(name: str, millions: float) -> None:
    """Parameters of the encoders by SegFormer's table 1; those of B0 and B5 are golden cases."""
    with torch.device("meta"):
        network = MixTransformer(*SIZES[name])
    count = sum(p.numel() for p in network.parameters())
    assert count / 1e6 == pytest.approx(millions, abs=0.1)
    assert list(SIZES) == [f"b{i}" for i in range(6)]


@pytest.mark.parametrize("size", [(64, 96), (50, 75)])
def test_maps(size: tuple[int, int]) -> None:
    """Any size does: cells at the end may be cut off, and squares of keys that are not full."""
    network = MixTransformer(*TINY).train()
    maps = network(torch.randn(2, 3, *size))
    sides = [tuple(-(-side // s) for side in size) for s in (4, 8, 16, 32)]
    assert [tuple(x.shape) for x in maps] == [
        (2, dim, *side) for dim, side in zip(TINY[0], sides, strict=True)
    ]
    assert all(x.is_contiguous(memory_format=torch.channels_last) for x in maps)
    sum(x.square().mean() for x in maps).backward()
    assert not [name for name, p in network.named_parameters() if p.grad is None]


def test_attention_is_softmax_over_squares() -> None:
    torch.manual_seed(0)
    layer, x = Attention(8, 2, 2, 1e-6).double(), torch.randn(1, 5 * 6, 8, dtype=torch.float64)
    few = layer.norm(as_tokens(layer.sr(as_map(x, (5, 6)))))
    assert few.shape == (1, 2 * 3, 8)  # the fifth row of tokens is in no square
    want = []
    for head in (slice(0, 4), slice(4, 8)):
        q, k, v = layer.q(x)[..., head], layer.kv(few)[..., :8][..., head], layer.kv(few)[..., 8:]
        want.append((q @ k.transpose(1, 2) / 2).softmax(-1) @ v[..., head])
    torch.testing.assert_close(layer(x, (5, 6)), layer.proj(torch.cat(want, -1)))


def test_depthwise_convolution_is_of_the_grid() -> None:
    layer = MixTransformer(*TINY).block1[0].mlp
    x, grid = torch.randn(2, 20, 8), (4, 5)
    hidden = layer.fc1(x).transpose(1, 2).reshape(2, 32, 4, 5).contiguous()
    conv = layer.dwconv.dwconv
    mixed = F.conv2d(hidden, conv.weight, conv.bias, padding=1, groups=32)
    want = layer.fc2(F.gelu(mixed).flatten(2).transpose(1, 2))
    torch.testing.assert_close(layer(x, grid), want)


def test_stochastic_depth_rises_from_zero() -> None:
    network = MixTransformer(*TINY, drop_path=0.4)
    rates = [m.rate for m in network.modules() if hasattr(m, "rate")]
    assert rates == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])
    x = torch.randn(1, 3, 32, 32)
    torch.testing.assert_close(network.eval()(x), MixTransformer.forward(network, x))
    assert not torch.equal(network.train()(x)[-1], network(x)[-1])


def test_sizes_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match="a stage of 16 channels cannot have 3 heads"):
        MixTransformer((8, 16, 24, 32), (1, 3, 3, 4), (1, 1, 1, 1))
    with pytest.raises(ValueError, match="must be four numbers each"):
        MixTransformer((8, 16), (1, 2), (1, 1))
