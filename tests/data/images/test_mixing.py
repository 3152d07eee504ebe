"""Mixing of batches: what is drawn, and what is made of it."""

from __future__ import annotations

import colorsys
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from tenfold.data.images import mixing
from tenfold.data.images.mixing import Jitter, Strong


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_half_of_the_classes_of_each_picture_are_drawn() -> None:
    labels = torch.full((3, 4, 5), 255)
    labels[0, 0, :3] = torch.tensor([2, 7, 9])
    labels[1] = 4
    seen = torch.zeros(256, dtype=torch.long)
    for seed in range(60):
        chosen = mixing.draw_classes(labels, seeded(seed))
        assert chosen.sum(1).tolist() == [2, 1, 0]  # the last one has no class to draw
        seen += chosen[0]
    assert set(seen.nonzero().flatten().tolist()) == {2, 7, 9} and seen[[2, 7, 9]].min() > 25
    a, b = mixing.draw_classes(labels, seeded(1)), mixing.draw_classes(labels.byte(), seeded(1))
    assert torch.equal(a, b)


def test_the_official_draw_is_of_the_whole_batch_and_of_255() -> None:
    labels = torch.tensor([[[0, 1]], [[2, 255]]])
    drawn = [mixing.draw_classes(labels, seeded(seed), compat=True) for seed in range(40)]
    assert all(chosen.sum(1).tolist() == [2, 2] for chosen in drawn)
    assert {*torch.stack(drawn).any(0)[0].nonzero().flatten().tolist()} == {0, 1, 2, 255}


def test_paste() -> None:
    labels = torch.tensor([[[0, 1, 255]]])
    chosen = torch.zeros(1, 256, dtype=torch.bool)
    chosen[0, [1, 255]] = True
    mask = mixing.class_mask(labels, chosen)
    assert mask.tolist() == [[[False, True, True]]]
    above, below = torch.ones(1, 3, 1, 3), torch.zeros(1, 3, 1, 3)
    assert mixing.paste(mask, above, below)[0, :, 0].tolist() == [[0, 1, 1]] * 3
    assert mixing.paste(mask, labels, torch.full_like(labels, 5)).tolist() == [[[5, 1, 255]]]


def test_block_mask() -> None:
    drawn = mixing.draw_blocks(50, 33, 64, 16, seeded())
    assert drawn.shape == (50, 1, 2, 4) and mixing.draw_blocks(1, 5, 5, 64, seeded()).numel() == 1
    kept = mixing.block_mask(drawn, 0.7, 33, 64)
    assert kept.shape == (50, 1, 33, 64) and 0.2 < kept.float().mean() < 0.4
    assert torch.equal(kept[:, 0, 0, ::16], drawn[:, 0, 0] > 0.7)


def test_changes_of_colour_are_those_of_hsv() -> None:
    x = torch.rand(1, 3, 2, 4, generator=seeded())
    x[0, :, 0, 0], x[0, :, 0, 1] = 0.5, torch.tensor([0.7, 0.7, 0.2])  # grey; two largest
    turned = mixing.jitter(x, [Jitter(hue=0.3, order=(mixing.HUE,))])
    paler = mixing.jitter(x, [Jitter(saturation=0.5, order=(mixing.SATURATION,))])
    for place in range(8):
        red, green, blue = x.flatten(2)[0, :, place].tolist()
        h, s, v = colorsys.rgb_to_hsv(red, green, blue)
        for got, want in ((turned, ((h + 0.3) % 1, s, v)), (paler, (h, s / 2, v))):
            expected = torch.tensor(colorsys.hsv_to_rgb(*want))
            torch.testing.assert_close(got.flatten(2)[0, :, place], expected, atol=1e-4, rtol=0)
    bright = Jitter(1.5, 2.0, order=(mixing.BRIGHTNESS, mixing.CONTRAST))
    torch.testing.assert_close(mixing.jitter(x, [bright]), (2 * (x + 0.5).clamp(0, 1)).clamp(0, 1))


def test_blur_is_that_of_the_square_kernel() -> None:
    """Each picture has its own deviation; weights that are left out are not missed."""
    x = torch.rand(2, 3, 96, 40, generator=seeded())
    sizes = [mixing.kernel_size(side) for side in (96, 40)]
    assert sizes == [9, 3] and [mixing.kernel_size(n) for n in (512, 300, 8)] == [51, 29, 1]
    sigmas = (0.2, 1.1)
    for got, one, sigma in zip(mixing.blur(x, sigmas), x, sigmas, strict=True):
        lines = [torch.exp(-((torch.arange(n) - n // 2) ** 2) / (2 * sigma**2)) for n in sizes]
        kernel = torch.outer(*[line / line.sum() for line in lines]).expand(3, 1, -1, -1)
        padded = F.pad(one[None], [1, 1, 4, 4], mode="reflect")
        torch.testing.assert_close(got, F.conv2d(padded, kernel, groups=3)[0])
    wide = torch.rand(1, 3, 600, 8, generator=seeded())
    torch.testing.assert_close(mixing.blur(wide, [1.15]).mean(), wide.mean(), atol=1e-3, rtol=0)


def test_draws_of_the_augmentation() -> None:
    drawn = [mixing.draw_strong(2, seeded(seed)) for seed in range(200)]
    assert 130 < sum(bool(one.jitters) for one in drawn) < 185  # 0.8
    assert 70 < sum(bool(one.sigmas) for one in drawn) < 130  # 0.5
    every = [jitter for one in drawn for jitter in one.jitters]
    assert all(0.8 <= j.brightness <= 1.2 and -0.2 <= j.hue <= 0.2 for j in every)
    assert len({j.order for j in every}) == 24
    assert all(0.15 <= sigma <= 1.15 for one in drawn for sigma in one.sigmas)
    with pytest.raises(ValueError, match="must be 0 to 0.5, got 0.7"):
        mixing.draw_strong(2, seeded(), strength=0.7)


def test_what_was_drawn_is_applied() -> None:
    x = torch.randn(2, 3, 24, 24, generator=seeded())
    assert torch.equal(mixing.strong(x, Strong()), x)
    torch.testing.assert_close(mixing.normalise(mixing.denormalise(x)), x, atol=1e-5, rtol=1e-5)
    inside = mixing.normalise(torch.rand(2, 3, 24, 24, generator=seeded()))
    drawn = mixing.draw_strong(2, seeded(3), jitter=1, blur=1)
    whole = mixing.strong(inside, drawn)
    coloured = mixing.strong(inside, replace(drawn, sigmas=()))
    torch.testing.assert_close(whole, mixing.blur(coloured, drawn.sigmas))
    # each picture has its own draw
    second = Strong(drawn.jitters[1:], drawn.sigmas[1:])
    torch.testing.assert_close(mixing.strong(inside[1:], second), whole[1:])
