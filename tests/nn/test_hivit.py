"""HiViT: leaving units out, input sizes, position tables, drop path, errors."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tenfold.nn.hivit import HiViT, Shape, raster, square_grid
from tenfold.nn.hivit_blocks import DropPath, attend
from tenfold.nn.position import relative_index, resize_bias, resize_position

SHAPE = Shape(
    embed_dim=16, depths=(1, 1, 2), num_heads=2, patch_size=8, grid=(4, 4), fpn_dim=8, fpn_depth=1
)


def network(shape: Shape = SHAPE) -> HiViT:
    torch.manual_seed(0)
    found = HiViT(shape).eval()
    for name, p in found.named_parameters():
        if "bias_table" in name or "rel_pos" in name:
            torch.nn.init.normal_(p)
    return found


def pictures(height: int = 32, width: int = 32) -> torch.Tensor:
    return torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(1))


def test_units_left_out_do_not_matter() -> None:
    net, x = network(), pictures()
    kept = torch.tensor([[1, 6, 11], [0, 5, 15]])
    with torch.no_grad():
        before = net.encode(x, kept).tokens
        other = x.clone()
        other[:, :, 16:24, 24:] = 9.0  # unit 11 of the first picture and nothing of the second
        after = net.encode(other, kept).tokens
    assert not torch.equal(before[0], after[0])
    assert torch.equal(before[1], after[1])


def test_order_of_kept_units_does_not_matter() -> None:
    net, x = network(replace(SHAPE, bias="full")), pictures()
    kept = torch.tensor([[1, 6, 11], [0, 5, 15]])
    with torch.no_grad():
        a, b = net.encode(x, kept).tokens, net.encode(x, kept.flip(1)).tokens
    torch.testing.assert_close(a, b.flip(1), rtol=1e-5, atol=1e-5)


def test_all_units_kept_are_as_no_choice() -> None:
    net, x = network(replace(SHAPE, bias="full")), pictures()
    kept = torch.randperm(16, generator=torch.Generator().manual_seed(2)).expand(2, -1)
    with torch.no_grad():
        a, b = net.encode(x, kept).tokens, net.encode(x).tokens
    torch.testing.assert_close(a, b[:, kept[0]], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("bias", ["none", "full", "decomposed"])
@pytest.mark.parametrize("size", [(32, 32), (64, 32), (8, 8), (8, 24)])
def test_any_size(bias: str, size: tuple[int, int]) -> None:
    net = network(replace(SHAPE, bias=bias))
    with torch.no_grad():
        maps = net.detection_maps(pictures(*size))
        dense = net.segmentation_maps(pictures(*size))
    height, width = size
    assert [m.shape[2:] for m in maps[:3]] == [(height // s, width // s) for s in (2, 4, 8)]
    assert [m.shape[1] for m in dense] == list(net.widths())
    units = (height // 8, width // 8)
    assert dense[3].shape[2:] == tuple(max(1, n // 2) for n in units)
    assert maps[4].shape[2:] == tuple(max(1, n // 2 // 2) for n in units)
    assert all(bool(m.isfinite().all()) for m in maps)


def test_a_size_that_does_not_divide_is_refused() -> None:
    with pytest.raises(ValueError, match="30 x 32 .* units of 8 x 8; pad or resize"):
        network().encode(pictures(30, 32))


def test_raster_puts_units_where_they_were() -> None:
    units = torch.arange(2 * 3 * 4).view(1, 6, 2, 2, 1).float()
    found = raster(units, (2, 3))[0, 0]
    assert found.shape == (4, 6)
    assert found[0, :4].tolist() == [0, 1, 4, 5] and found[1, :2].tolist() == [2, 3]
    assert found[2, :2].tolist() == [12, 13]


def test_checkpointing_changes_nothing() -> None:
    a, b = network(), network()
    for net, on in ((a, False), (b, True)):
        net.encode(pictures(), checkpointing=on).tokens.square().sum().backward()
    for (name, p), q in zip(a.named_parameters(), b.parameters(), strict=True):
        if p.grad is not None:
            torch.testing.assert_close(p.grad, q.grad, msg=name)


def test_drop_path_keeps_the_mean_and_whole_samples() -> None:
    torch.manual_seed(0)
    drop = DropPath(0.25).train()
    x = drop(torch.ones(4000, 3))
    assert x.unique().tolist() == pytest.approx([0.0, 4 / 3])
    assert (x == x[:, :1]).all() and abs(float(x.mean()) - 1) < 0.05
    assert torch.equal(drop.eval()(x), x)


def test_attention_in_bf16_training_is_the_same() -> None:
    draw = torch.Generator().manual_seed(0)
    q, k, v = torch.randn(3, 2, 2, 9, 8, generator=draw).unbind()
    mask = torch.randn(1, 2, 9, 9, generator=draw)
    want = attend(q, k, v, mask)
    half = [t.bfloat16() for t in (q, k, v)]
    torch.testing.assert_close(attend(*half, mask.bfloat16()).float(), want, rtol=0.05, atol=0.05)
    with torch.no_grad():
        fused = attend(*half, mask.bfloat16()).float()
    torch.testing.assert_close(fused, want, rtol=0.05, atol=0.05)


def test_tables_of_the_same_grid_stay() -> None:
    table = torch.randn(49, 2)
    torch.testing.assert_close(resize_bias(table, (4, 4), (4, 4)), table, rtol=1e-5, atol=1e-5)
    assert resize_bias(table, (4, 4), (3, 6)).shape == (5 * 11, 2)
    assert resize_position(torch.randn(1, 16, 5), (4, 4), (3, 6)).shape == (1, 18, 5)
    index = relative_index(2, 3)
    assert index[0].tolist() == [7, 6, 5, 2, 1, 0] and index.max() == 14


def test_only_squares_are_square() -> None:
    assert square_grid(196) == (14, 14)
    with pytest.raises(ValueError, match="12 units"):
        square_grid(12)
