"""Looks inside a network: a masked image and its reconstruction, the levels of the pyramid."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn

from tenfold.core.seed import generator
from tenfold.data.images import views
from tenfold.nn.hivit import HiViT, raster
from tenfold.viz.overlays import Rgb

from . import data, draw
from .config import Config
from .loss import patchify, statistics, unpatchify
from .model import PixelPretraining
from .networks import device_of, network_of

LARGEST = 1024
"""Longer side in pixels of images of which the pyramid is drawn."""


def noise_of(network: PixelPretraining, seed: int) -> Float[Tensor, "image unit"]:
    """Draw what decides on the masks of the images of a sheet."""
    draws = generator("masks to look at", seed)
    return torch.rand(draw.SHOWN, network.shape.units, generator=draws)


@torch.inference_mode()
def reconstruction(
    network: PixelPretraining, image: Rgb, noise: Float[Tensor, " unit"], cfg: Config
) -> list[Rgb]:
    """Return the centre of an image, masked by `noise`, with the network's guesses: a row.

    The guesses have each unit's true mean and contrast, where pixels are learned normalised by
    them.
    """
    how, side = cfg.data.normalise, network.shape.patch_size
    view = views.centre(image, cfg.model.size, cfg.data.test_crop)[None]
    x = data.normalised(view, how).to(device_of(network))
    found = network.decode(x, noise[None].to(x.device))
    values = network.decoder_pred(found.decoded).float()
    if network.normalised:
        mean, deviation = statistics(patchify(x, side))
        values = values * deviation + mean
    guess = data.shown(unpatchify(values, side, network.shape.grid), how)[0]
    removed = found.masking.mask[0].bool().cpu().numpy()
    return draw.reconstruction_row(data.shown(x, how)[0], removed, guess, side)


def pyramid_of(model: nn.ModuleDict, cfg: Config) -> HiViT | None:
    """Return the backbone of the last task that has a pyramid, if any has."""
    backbones = [network_of(model, task).backbone for task in cfg.tasks]
    return next((one for one in backbones[::-1] if one.shape.fpn_dim), None)


@torch.inference_mode()
def pyramid(backbone: HiViT, image: Rgb, cfg: Config) -> list[Rgb]:
    """Return an image of LARGEST pixels at most, and its pyramid levels as colours: a row."""
    unit = cfg.model.patch_size
    scale = min(1.0, LARGEST / max(image.shape[:2]))
    height, width = (max(unit, round(side * scale / unit) * unit) for side in image.shape[:2])
    small = np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC))
    x = torch.from_numpy(small.copy()).permute(2, 0, 1)[None]
    x = data.normalised(x, cfg.data.normalise).to(device_of(backbone))
    grid = backbone.grid_of(x)
    levels = backbone.pyramid(backbone.encode(x))
    maps = [raster(level, grid)[0].permute(1, 2, 0).float().cpu().numpy() for level in levels]
    return draw.pyramid_row(small, maps[::-1])
