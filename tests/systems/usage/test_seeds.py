"""Seed areas: equal to the plain loop, in [0, 1], of present classes, at the picture's size."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from systems.usage.test_networks import MODELS, randomised

from tenfold.systems.usage import seeds
from tenfold.systems.usage.networks import SeedNetwork, build, for_inference

LABELS = torch.tensor([True, False, True])
SCALES = (1.0, 0.5, 1.5)


def network(name: str) -> SeedNetwork:
    torch.manual_seed(0)
    found = randomised(build(MODELS[name], 3)).eval()
    assert isinstance(found, SeedNetwork)
    return found


def image(rows: int = 47, columns: int = 38) -> torch.Tensor:
    return torch.randn(3, rows, columns, generator=torch.Generator().manual_seed(1))


def plain(net: SeedNetwork, picture: torch.Tensor, rule: seeds.Rule) -> torch.Tensor:
    """One scale and one flip at a time, as the peers' scripts do it."""
    size, side = picture.shape[1:], net.model.multiple
    total = torch.zeros(3, *size)
    for scale in SCALES:
        wanted = [max(1, round(n * scale / side)) * side for n in size]
        x = picture[None]
        if wanted != list(size):
            x = F.interpolate(x, wanted, mode="bicubic", antialias=True)
        for flipped in (False, True):
            found = net(x.flip(3) if flipped else x, with_attention=rule in seeds.LAYERS)
            maps = found.maps.relu()
            if rule in seeds.LAYERS:
                to_patches = found.attention.to_patches[-3:].sum(0)
                if rule == "mctformer-plus":
                    to_patches = found.attention.to_patches.mean(0)
                maps = maps * to_patches.reshape(maps.shape)
                maps = maps.sqrt() if rule == "mctformer-plus" else maps
                spread = found.attention.affinity @ maps.flatten(2).mT
                maps = spread.mT.reshape(maps.shape)
            maps = F.interpolate(maps, tuple(size), mode="bilinear", align_corners=False)[0]
            total += (maps.flip(2) if flipped else maps) * LABELS[:, None, None]
    if rule in seeds.LAYERS:
        least = total.amin((1, 2), keepdim=True)
        return (total - least) / (total.amax((1, 2), keepdim=True) - least + 1e-8)
    return total / (total.amax((1, 2), keepdim=True) + 1e-5)


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("resnet18", "psa"), ("resnet38", "psa"), ("efficientnet-lite0", "psa"), ("hivit", "psa"),
        ("mctformer", "mctformer"), ("mctformer-plus", "mctformer-plus"), ("mctformer", "psa"),
    ],
)  # fmt: skip
def test_maps_are_those_of_the_plain_loop(name: str, rule: seeds.Rule) -> None:
    net = network(name)
    with torch.no_grad():
        want = plain(net, image(), rule)
    got = seeds.activation_maps(for_inference(net), image(), LABELS, SCALES, True, rule)
    # maps of attention are nearly flat here, so that stretching them stretches what is rounded
    torch.testing.assert_close(got, want, rtol=0, atol=2e-3 if rule in seeds.LAYERS else 1e-4)
    assert got.shape == (3, 47, 38) and got.min() >= 0 and 0.99 < got.max() <= 1
    assert not got[1].any()
    half = for_inference(net, "bfloat16")
    rough = seeds.activation_maps(half, image(), LABELS, SCALES, True, rule)
    assert rough.dtype == torch.float32
    assert (rough - want).abs().mean() < (0.15 if rule in seeds.LAYERS else 0.03)


@pytest.mark.parametrize("rule", ["psa", "irn"])
def test_a_mirrored_picture_has_mirrored_maps(rule: seeds.Rule) -> None:
    net = network("resnet18")
    picture = image(48, 64)
    a, b = (
        seeds.activation_maps(net, x, LABELS, (1.0, 0.5), True, rule)
        for x in (picture, picture.flip(2))
    )
    torch.testing.assert_close(b.flip(2), a, rtol=1e-3, atol=1e-4)


def test_maps_of_attention_of_each_kind() -> None:
    net = network("mctformer")
    maps = {
        (of, affinity, layers): seeds.activation_maps(
            net, image(), LABELS, (1.0,), False, "mctformer", of=of, affinity=affinity,
            layers=layers,
        )
        for of in ("fused", "patch", "class") for affinity in (True, False) for layers in (1, 2)
    }  # fmt: skip
    for key, found in maps.items():
        alike = [other for other in maps if other != key and torch.equal(maps[other], found)]
        assert alike == ([(*key[:2], 3 - key[2])] if key[0] == "patch" else [])
    one = seeds.activation_maps(network("deit"), image(), LABELS, (1.0,), True, "mctformer")
    assert one.shape == (3, 47, 38)


def test_maps_for_a_walk() -> None:
    net = network("resnet50")
    small, whole = seeds.strided_maps(net, image(), LABELS, SCALES, True)
    assert small.shape == (3, 12, 10) and whole.shape == (3, 47, 38)
    assert torch.equal(whole, seeds.activation_maps(net, image(), LABELS, SCALES, True, "irn"))
    assert not small[1].any() and 0.99 < small.max() <= 1


def test_a_picture_without_a_class_has_no_seeds() -> None:
    net, none = network("resnet18"), torch.zeros(3, dtype=torch.bool)
    assert not seeds.activation_maps(net, image(), none, SCALES, True, "psa").any()
    small, whole = seeds.strided_maps(net, image(), none, SCALES, True)
    assert small.shape == (3, 12, 10) and not small.any() and not whole.any()


def test_labels_of_maps() -> None:
    maps = torch.tensor([[[0.2, 0.9], [0.5, 0.3]], [[0.1, 0.9], [0.6, 0.3]]])
    assert seeds.label_map(maps, 0.3).tolist() == [[0, 1], [2, 0]]


def test_what_cannot_be_asked_for() -> None:
    net = network("resnet18")
    with pytest.raises(ValueError, match="labels for 2 classes, the network has 3"):
        seeds.activation_maps(net, image(), LABELS[:2], SCALES, True, "psa")
    with pytest.raises(ValueError, match=r"scales are \(1.0, 0.0\)"):
        seeds.activation_maps(net, image(), LABELS, (1.0, 0.0), True, "psa")
    with pytest.raises(ValueError, match="mctformer need attention, .* resnet18; use psa or irn"):
        seeds.activation_maps(net, image(), LABELS, SCALES, True, "mctformer")
