"""The exact CRF in tiles against itself: small memory, many boxes, reduced grid, bad input."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tenfold.systems.usage import crf


@pytest.fixture(scope="module")
def scene() -> tuple[torch.Tensor, torch.Tensor]:
    """A bright disc on a dark ground with noise, and a blurred, shifted guess of it."""
    generator = torch.Generator().manual_seed(0)
    y, x = torch.meshgrid(torch.arange(36.0), torch.arange(44.0), indexing="ij")
    inside = (y - 18).square() + (x - 22).square() < 100
    image = 60 + 120 * inside[..., None] + 8 * torch.randn(36, 44, 3, generator=generator)
    near = (1 - ((y - 15).square() + (x - 25).square()) / 400).clamp(0.05, 0.95)
    return image.clamp(0, 255).to(torch.uint8), torch.stack([1 - near, near])


def test_whole_and_in_tiles_agree(scene, monkeypatch: pytest.MonkeyPatch) -> None:
    image, guess = scene
    found = []
    for box, far, megabytes in ((4096, 1e9, 1024), (64, 23.0, 1024), (100, 23.0, 0)):
        monkeypatch.setattr(crf, "BOX", box)
        monkeypatch.setattr(crf, "FAR", far)
        found.append(crf.dense_crf(image, guess, replace(crf.PSA, kernel_mb=megabytes)))
    for other in found[1:]:
        torch.testing.assert_close(other, found[0], rtol=0, atol=2e-5)
    torch.testing.assert_close(found[0].sum(0), torch.ones(36, 44))


def test_far_boxes_are_left_out(scene) -> None:
    image, _ = scene
    places = crf.Boxes(torch.cat([torch.zeros(512, 5), torch.full((512, 5), 9.0)]))
    assert places.near(0, places) == [0, 1] and len(places.spans) == 4
    kernel = crf.MeanField(image, crf.IRN).kernel
    assert sum(map(len, kernel.columns)) < 0.8 * len(kernel.columns) * 36 * 44


def test_labels_snap_to_the_disc(scene) -> None:
    image, guess = scene
    inside = image[..., 0] > 120
    assert ((guess[1] > 0.5) == inside).double().mean() < 0.9
    for options, given in ((crf.PSA, guess), (crf.IRN, (guess[1] > 0.5).long())):
        found = crf.dense_crf(image, given, replace(options, bilateral_srgb=13.0)).argmax(0)
        assert ((found == 1) == inside).double().mean() > 0.98


def test_a_reduced_grid_is_near(scene) -> None:
    image, guess = scene
    exact = crf.dense_crf(image, guess)
    field = crf.MeanField(image, replace(crf.PSA, max_pixels=500))
    assert (field.rows, field.columns) == (20, 24) and not field.exact
    found = field.run(-guess.log()[None])[0]
    assert (found.argmax(0) == exact.argmax(0)).double().mean() > 0.98


def test_pixels_unlike_every_cell_keep_what_they_were_given() -> None:
    """Stripes, whose cells are grey: no cell of the reduced grid has a pixel's colour."""
    image = (255 * (torch.arange(40) % 2)).byte()[None, :, None].expand(40, 40, 3)
    guess = torch.full((2, 40, 40), 0.2)
    guess[1] = 0.8
    found = crf.dense_crf(image, guess, replace(crf.PSA, max_pixels=16))
    torch.testing.assert_close(found.sum(0), torch.ones(40, 40))
    assert bool((found.argmax(0) == 1).all())


def test_several_energies_are_each_alone(scene) -> None:
    image, guess = scene
    energies = torch.stack([-guess.log(), -guess.flip(0).log()])
    field = crf.MeanField(image, replace(crf.PSA, iterations=3))
    alone = torch.cat([field.run(energy[None]) for energy in energies])
    torch.testing.assert_close(field.run(energies), alone)


def test_without_steps_the_input_is_given_back(scene) -> None:
    image, guess = scene
    for pixels in (16_384, 100):
        options = replace(crf.PSA, iterations=0, max_pixels=pixels)
        torch.testing.assert_close(crf.dense_crf(image, guess, options), guess)


def test_bad_input_is_named(scene) -> None:
    image, guess = scene
    with pytest.raises(ValueError, match=r"probabilities of shape \(2, 30, 44\).*36x44"):
        crf.dense_crf(image, guess[:, :30])
    with pytest.raises(ValueError, match="labels of shape"):
        crf.dense_crf(image, guess, crf.IRN)
    with pytest.raises(ValueError, match=r"labels reach 0\.\.3, allowed are 0\.\.1"):
        crf.dense_crf(image, torch.arange(44).expand(36, 44) % 4, crf.IRN, 2)
    with pytest.raises(ValueError, match="crf.gt_prob must be between 0 and 1, got 1"):
        crf.CrfOptions(gt_prob=1.0)
