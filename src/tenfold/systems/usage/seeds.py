"""Seed areas: activation maps of the classes that a picture has, over several scales and flips."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from tenfold.nn import cam
from tenfold.nn.uperhead import enlarged

from . import seam
from .networks import Activations, SeedNetwork

Rule = Literal["psa", "irn", "seam", "mctformer", "mctformer-plus"]
Of = Literal["fused", "patch", "class"]
Image = Float[Tensor, "3 height width"]
Present = Bool[Tensor, " class"]
Maps = Float[Tensor, "class height width"]

LAYERS = {"mctformer": 3, "mctformer-plus": 12}
"""Last blocks whose class tokens' attention counts: run.sh of V2, the default of +."""
STRIDE = 4
"""Pixels of a side of a cell of IRN's maps for the random walk."""
COARSE = 16
"""IRN enlarges maps to a multiple of it, and cuts that to the picture."""


def activation_maps(
    network: SeedNetwork,
    image: Image,
    labels: Present,
    scales: Sequence[float],
    flip: bool,
    rule: Rule,
    *,
    of: Of = "fused",
    affinity: bool = True,
    layers: int = 0,
) -> Maps:
    """Maps in [0, 1] of a picture, at its size; those of absent classes are 0.

    Args:
        network: In evaluation mode, best as `networks.for_inference` gives it.
        image: Normalised.
        labels: Classes that are there.
        scales: Factors on the picture's sides, which are rounded to what the network takes.
        flip: Whether the mirrored picture counts too.
        rule: Whose merging is done. psa and irn divide sums by their largest value and differ in
            how maps are enlarged; seam takes the maps of SEAM's branch, from 0 to 1; mctformer and
            mctformer-plus join maps with attention, and let them reach from 0 to 1.
        of: Joined maps, those of the patches, or the class tokens' attention alone (mctformer).
        affinity: Whether what patches attend to spreads the maps (mctformer).
        layers: Last blocks whose attention counts, 0 as published: 3, and 12 (mctformer).
    """
    found = outputs(network, image, labels, scales, flip, rule, of, affinity, layers)
    if not found:
        return image.new_zeros(len(labels), *image.shape[1:])
    return _placed(merged(found, _size(image), rule), labels)


def strided_maps(
    network: SeedNetwork, image: Image, labels: Present, scales: Sequence[float], flip: bool
) -> tuple[Float[Tensor, "class rows columns"], Maps]:
    """IRN's maps for its random walk, at a quarter of the picture's sides, and those at its size.

    Those of absent classes are 0. Source: IRN, step/make_cam.py.
    """
    found = outputs(network, image, labels, scales, flip, "irn")
    size = _size(image)
    if not found:
        small = image.new_zeros(len(labels), -(-size[0] // STRIDE), -(-size[1] // STRIDE))
        return small, image.new_zeros(len(labels), *size)
    return _placed(merged_strided(found, size), labels), _placed(merged(found, size, "irn"), labels)


def outputs(
    network: SeedNetwork,
    image: Image,
    labels: Present,
    scales: Sequence[float],
    flip: bool,
    rule: Rule,
    of: Of = "fused",
    affinity: bool = True,
    layers: int = 0,
) -> list[Float[Tensor, "present _ _"]]:
    """The network's maps of the present classes for every scale, summed over flips.

    None of a picture that has no class. Enlarging is linear and does not tell left from right,
    so flips are summed before it.
    """
    _check(network, labels, scales, rule)
    if not labels.any():
        return []
    is_token_rule = rule in LAYERS
    found = []
    with torch.inference_mode():
        for scale in scales:
            x = resized(image[None], scale, network.model.multiple)
            x = torch.cat([x, x.flip(3)]) if flip else x
            x = x.to(network.head.weight.dtype, memory_format=torch.channels_last)
            there = network(x, with_attention=is_token_rule)
            if is_token_rule:
                one = of_tokens(there, labels, rule, of, affinity, layers or LAYERS[rule])
            elif rule == "seam":
                one = _of_seam(network, x, there)[:, labels]
            else:
                one = there.maps[:, labels].float().relu()
            found.append(one[0] + one[1].flip(2) if flip else one[0])
    return found


def merged(
    found: Sequence[Float[Tensor, "present _ _"]], size: tuple[int, int], rule: Rule
) -> Float[Tensor, "present height width"]:
    """Maps of several scales as one of the picture's size, in [0, 1]."""
    height, width = size
    wanted = size
    if rule == "irn":
        wanted = (-(-height // COARSE) * COARSE, -(-width // COARSE) * COARSE)
    total = sum(enlarged(maps[None], wanted)[0] for maps in found)
    assert isinstance(total, Tensor)
    total = total[:, :height, :width]
    if rule == "seam":
        return seam.max_norm(total[None])[0]
    return cam.by_range(total) if rule in LAYERS else cam.by_largest(total)


def merged_strided(
    found: Sequence[Float[Tensor, "present _ _"]], size: tuple[int, int]
) -> Float[Tensor, "present rows columns"]:
    """Maps of several scales as one at a quarter of the picture's sides, in [0, 1] (IRN)."""
    wanted = (-(-size[0] // STRIDE), -(-size[1] // STRIDE))
    total = sum(enlarged(maps[None], wanted)[0] for maps in found)
    assert isinstance(total, Tensor)
    return cam.by_largest(total)


def label_map(maps: Maps, threshold: float) -> UInt8[Tensor, "height width"]:
    """Number, from 1 on, of the class of the largest value; 0 where none exceeds the threshold."""
    background = maps.new_full((1, *maps.shape[1:]), threshold)
    return torch.cat([background, maps]).argmax(0).byte()


def resized(images: Tensor, scale: float, multiple: int) -> Tensor:
    """Pictures at a scale, bicubic; sides are rounded to multiples."""
    height, width = images.shape[2:]
    wanted = [max(1, round(side * scale / multiple)) * multiple for side in (height, width)]
    if wanted == [height, width]:
        return images
    return F.interpolate(images, wanted, mode="bicubic", antialias=True)


def of_tokens(
    found: Activations, labels: Tensor, rule: Rule, of: Of, affinity: bool, layers: int
) -> Float[Tensor, "batch present rows columns"]:
    """Maps of the present classes by what tokens attend to (see `activation_maps`)."""
    assert found.attention is not None
    rows_and_columns = found.maps.shape[2:]
    last = found.attention.to_patches[-layers:]
    attention = last.sum(0) if rule == "mctformer" else last.mean(0)
    attention = attention.unflatten(2, rows_and_columns)
    # a class token for all classes (DeiT) has one map of attention
    attention = attention[:, labels] if attention.shape[1] == len(labels) else attention
    maps = found.maps[:, labels].float()
    if of == "class":
        maps = attention.expand_as(maps)
    elif of == "patch":
        maps = maps.relu()
    else:
        maps = cam.joined(maps, attention, "product" if rule == "mctformer" else "root")
    return cam.spread(maps, found.attention.affinity) if affinity else maps


def _of_seam(
    network: SeedNetwork, images: Float[Tensor, "batch 3 height width"], found: Activations
) -> Float[Tensor, "batch class height width"]:
    """Maps of SEAM's branch, at the picture's size (infer_SEAM.py, network/resnet38_SEAM.py)."""
    assert network.correlation is not None  # checked with the rule
    maps = network.correlation(images, found.maps, found.levels).float()
    return F.interpolate(maps, images.shape[2:], mode="bilinear", align_corners=True)


def _size(image: Tensor) -> tuple[int, int]:
    return image.shape[1], image.shape[2]


def _placed(maps: Tensor, labels: Tensor) -> Tensor:
    """Maps of present classes among all."""
    found = maps.new_zeros(len(labels), *maps.shape[1:])
    found[labels] = maps
    return found


def _check(network: SeedNetwork, labels: Tensor, scales: Sequence[float], rule: Rule) -> None:
    if len(labels) != network.num_classes:
        raise ValueError(
            f"the picture has labels for {len(labels)} classes, the network has "
            f"{network.num_classes}"
        )
    if not scales or min(scales) <= 0:
        raise ValueError(f"scales are {tuple(scales)}; give at least one, each above 0")
    if rule == "seam" and network.correlation is None:
        raise ValueError(
            "maps by the rule seam need SEAM's branch: model.correlation, and its file"
        )
    if rule in LAYERS and (network.model.is_convolutional or network.model.name == "hivit"):
        raise ValueError(
            f"maps by the rule {rule} need attention, which is not taken of {network.model.name}; "
            "use psa or irn"
        )
