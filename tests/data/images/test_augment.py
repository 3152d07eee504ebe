"""Random changes of pictures against slices, mirrors and hand-made boxes."""

import pytest
import torch
import torch.nn.functional as F

from tenfold.data.images import augment


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pictures(batch: int = 64, height: int = 9, width: int = 7) -> torch.Tensor:
    return torch.rand(batch, 3, height, width, generator=seeded(1))


def test_crop_is_the_slice_of_the_padded_picture_that_the_generator_says():
    x = pictures()
    got = augment.crop(x, 2, seeded(5))
    rows, columns = torch.randint(5, (2, len(x)), generator=seeded(5))
    padded = F.pad(x, [2] * 4)
    for i, (row, column) in enumerate(zip(rows.tolist(), columns.tolist(), strict=True)):
        assert torch.equal(got[i], padded[i, :, row : row + 9, column : column + 7])
    assert {*rows.tolist()} == {*columns.tolist()} == {0, 1, 2, 3, 4}


def test_crop_without_padding_changes_nothing():
    x = pictures()
    assert torch.equal(augment.crop(x, 0, seeded()), x)


def test_flip_mirrors_about_half_and_leaves_the_rest():
    x = pictures(400)
    got = augment.flip(x, seeded())
    mirrored = (got == x.flip(3)).flatten(1).all(1)
    assert torch.equal(mirrored, ~(got == x).flatten(1).all(1))
    assert 150 < int(mirrored.sum()) < 250


def test_resized_crop_of_the_whole_picture_is_the_picture():
    x = pictures(8, 12, 12)
    whole = augment.resized_crop(x, 12, seeded(), (1.0, 1.0), (1.0, 1.0))
    torch.testing.assert_close(whole, x, atol=1e-6, rtol=0)


def test_resized_crop_keeps_to_a_box_of_the_right_area_and_shape():
    # each picture holds its own coordinates, so the result says where its box lies
    side = 64
    line = (torch.arange(side) + 0.5) / side
    down, right = torch.meshgrid(line, line, indexing="ij")
    x = torch.stack([right, down, 0 * down]).expand(500, 3, side, side)
    got = augment.resized_crop(x, 32, seeded(), (0.1, 0.6), (0.5, 2.0))
    wide = (got[:, 0, 0, -1] - got[:, 0, 0, 0]) * 32 / 31
    tall = (got[:, 1, -1, 0] - got[:, 1, 0, 0]) * 32 / 31
    inner = (got[:, 0].amin((1, 2)) > 1 / side) & (got[:, 0].amax((1, 2)) < 1 - 1 / side)
    inner &= (got[:, 1].amin((1, 2)) > 1 / side) & (got[:, 1].amax((1, 2)) < 1 - 1 / side)
    area, ratio = (wide * tall)[inner], (wide / tall)[inner]
    assert int(inner.sum()) > 200
    assert 0.099 < float(area.min()) < 0.15 and 0.5 < float(area.max()) < 0.601
    assert 0.49 < float(ratio.min()) < 0.6 and 1.7 < float(ratio.max()) < 2.01
    assert abs(float(got[:, 0].mean()) - 0.5) < 0.02  # no side is preferred


def test_resized_crop_takes_the_largest_box_where_none_fits():
    x = torch.rand(5, 3, 8, 32, generator=seeded())
    got = augment.resized_crop(x, 8, seeded(), (1.0, 1.0), (1.0, 1.0))
    assert got.shape == (5, 3, 8, 8) and got.isfinite().all()


def test_colour_scales_brightness_and_saturation_by_the_drawn_factors():
    x = 0.2 + 0.4 * pictures(50)
    got = augment.colour(x, 0.3, seeded(7))
    bright, pure = 1 + 0.3 * (2 * torch.rand((2, 50, 1, 1, 1), generator=seeded(7)) - 1)
    for i in range(50):
        lit = x[i] * bright[i]
        grey = 0.299 * lit[0] + 0.587 * lit[1] + 0.114 * lit[2]
        torch.testing.assert_close(got[i], (grey + pure[i] * (lit - grey)).clamp(0, 1))
    grey = torch.full((4, 3, 2, 2), 0.5)
    assert (augment.colour(grey, 1.0, seeded()).std(1) < 1e-6).all()
    torch.testing.assert_close(augment.colour(x, 0, seeded()), x)


@pytest.mark.parametrize(
    "change",
    [
        lambda x, g: augment.crop(x, 2, g),
        augment.flip,
        lambda x, g: augment.resized_crop(x, 6, g),
        lambda x, g: augment.colour(x, 0.4, g),
    ],
)
def test_the_generator_alone_decides(change):
    x, before = pictures(), torch.random.get_rng_state()
    assert torch.equal(change(x, seeded(3)), change(x, seeded(3)))
    assert not torch.equal(change(x, seeded(3)), change(x, seeded(4)))
    assert torch.equal(x, pictures()) and torch.equal(before, torch.random.get_rng_state())
