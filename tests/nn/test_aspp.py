"""Heads of segmentation over an encoder's maps: DAFormer's, DeepLab-V2's, SegFormer's."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from tenfold.nn import dilated
from tenfold.nn.aspp import DaformerHead, DeepLabHead, SegmentationHead
from tenfold.nn.dilated import depthwise
from tenfold.nn.segformer import SegformerHead

WIDTHS = (4, 5, 6, 7)


def maps(height: int = 16, width: int = 12) -> list[torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    sides = [(-(-height // s), -(-width // s)) for s in (1, 2, 4, 8)]
    pairs = zip(WIDTHS, sides, strict=True)
    return [torch.randn(2, channels, *side, generator=draw) for channels, side in pairs]


HEADS: dict[str, tuple[SegmentationHead, tuple[int, int]]] = {
    "daformer": (DaformerHead(WIDTHS, 3, 6, 8, (1, 2, 3)), (16, 12)),
    "not separable": (DaformerHead(WIDTHS, 3, 6, 8, (1, 2), separable=False), (16, 12)),
    "with the mean": (DaformerHead(WIDTHS, 3, 6, 8, (1, 2), pool=True), (16, 12)),
    "of pixels": (DaformerHead(WIDTHS, 3, 6, 8, ()), (16, 12)),
    "segformer": (SegformerHead(WIDTHS, 3, 8), (16, 12)),
    "deeplab": (DeepLabHead(7, 3, (1, 2)), (2, 2)),
}


@pytest.mark.parametrize("name", HEADS)
def test_size_and_gradients(name: str) -> None:
    head, size = HEADS[name]
    found = head(maps())
    assert found.shape == (2, 3, *size)
    found.square().sum().backward()
    assert not [key for key, p in head.named_parameters() if p.grad is None]


def same_size(head, x: list[torch.Tensor], layers: list[str]) -> list[torch.Tensor]:
    """Each level by its linear layer, at the size of the finest."""
    found = []
    for layer, level in zip(layers, x, strict=True):
        proj = head.get_submodule(layer).proj
        y = F.conv2d(level, proj.weight[:, :, None, None], proj.bias)
        found.append(F.interpolate(y, x[0].shape[2:], mode="bilinear"))
    return found


@pytest.mark.parametrize("dilation", [1, 2, 5, 18])
@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("piece", [600_000, 500, 1])
def test_dilated_convolution_of_each_channel(
    dilation: int, memory: torch.memory_format, piece: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dilated, "PIECE", piece)  # several images, several rows, one row at once
    conv = torch.nn.Conv2d(6, 6, 3, 1, dilation, dilation, 6).double()
    x = torch.randn(2, 6, 11, 15, dtype=torch.float64).contiguous(memory_format=memory)
    x.requires_grad_()
    found, want = depthwise(conv, x), conv(x)
    torch.testing.assert_close(found, want)
    given, leaves = torch.randn_like(want), [x, *conv.parameters()]
    pairs = (torch.autograd.grad(y, leaves, given) for y in (found, want))
    for mine, torchs in zip(*pairs, strict=True):
        torch.testing.assert_close(mine, torchs)


def test_dilated_convolution_sums_in_float32() -> None:
    conv = torch.nn.Conv2d(6, 6, 3, 1, 2, 2, 6, bias=False)
    x = torch.randn(2, 6, 11, 15)
    with torch.autocast("cpu", torch.bfloat16):
        found = depthwise(conv, x.bfloat16())
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, conv(x.bfloat16().float()))


def test_segformer_fuses_the_coarsest_first() -> None:
    head, x = SegformerHead(WIDTHS, 3, 8).eval(), maps()
    levels = same_size(head, x, [f"linear_c{i}" for i in range(1, 5)])
    want = head.linear_pred(head.linear_fuse(torch.cat(levels[::-1], 1)))
    torch.testing.assert_close(head(x), want)
    assert {key.split(".")[0] for key in head.state_dict()} == {
        "linear_c1", "linear_c2", "linear_c3", "linear_c4", "linear_fuse", "linear_pred"
    }  # fmt: skip


def test_daformer_by_its_parts() -> None:
    head, x = DaformerHead(WIDTHS, 3, 6, 8, (1, 2), pool=True).eval(), maps()
    y = torch.cat(same_size(head, x, [f"embed_layers.{i}" for i in range(4)]), 1)
    fuse = head.fuse_layer
    mean = fuse.image_pool[1](y.mean((2, 3), keepdim=True)).expand(-1, -1, 16, 12)
    far = fuse.aspp_modules[1]
    parts = [mean, fuse.aspp_modules[0](y), far.pointwise_conv(far.depthwise_conv(y))]
    torch.testing.assert_close(head(x), head.conv_seg(fuse.bottleneck(torch.cat(parts, 1))))


def test_deeplab_is_a_sum() -> None:
    head, x = DeepLabHead(7, 3, (1, 6)), maps(64, 64)
    want = 0
    for branch, dilation in zip(head.aspp_modules, (1, 6), strict=True):
        conv, padding = branch["conv"], 0 if dilation == 1 else dilation
        want = want + F.conv2d(x[-1], conv.weight, conv.bias, 1, padding, dilation)
    torch.testing.assert_close(head(x), want)
    assert set(head.state_dict()) == {
        f"aspp_modules.{i}.conv.{part}" for i in (0, 1) for part in ("weight", "bias")
    }
