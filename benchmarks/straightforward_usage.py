"""Activation maps as the peers' scripts compute them, written anew: one picture, scale and flip
at a time, in float32, every class enlarged to the picture's size, then those of absent ones set to
0; MCTformer's attention is kept of every block and head until the end."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tenfold.nn.vit import Vit
from tenfold.systems.usage.networks import SeedNetwork


def attention_block(block: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """A transformer's block and the softmax of all heads."""
    batch, tokens, dim = x.shape
    heads = block.attn.heads
    qkv = block.attn.qkv(block.norm1(x)).reshape(batch, tokens, 3, heads, dim // heads)
    q, k, v = qkv.permute(2, 0, 3, 1, 4)
    weights = (q @ k.transpose(-2, -1) * (dim // heads) ** -0.5).softmax(-1)
    x = x + block.attn.proj((weights @ v).transpose(1, 2).reshape(batch, tokens, dim))
    return x + block.mlp.fc2(F.gelu(block.mlp.fc1(block.norm2(x)))), weights


def transformer_maps(network: SeedNetwork, x: Tensor) -> Tensor:
    """MCTformer-V2's fused maps, spread by what patches attend to."""
    body, count = network.body, network.num_classes
    assert isinstance(body, Vit)
    grid = [side // body.shape.patch_size for side in x.shape[2:]]
    x, weights = body.embed(x), []
    for block in body.blocks:
        x, one = attention_block(block, x)
        weights.append(one)
    maps = network.head(x[:, count:].transpose(1, 2).reshape(len(x), -1, *grid))
    attention = torch.stack(weights).mean(2)
    to_patches = attention[-3:].sum(0)[:, :count, count:].reshape(maps.shape)
    fused = to_patches * F.relu(maps)
    affinity = attention[:, :, count:, count:].sum(0)
    spread = torch.matmul(affinity.unsqueeze(1), fused.view(*fused.shape[:2], -1, 1))
    return spread.reshape(maps.shape)


def plain_maps(
    network: SeedNetwork, image: Tensor, labels: Tensor, scales: Sequence[float]
) -> Tensor:
    """Maps in [0, 1]: PSA's rule for networks of convolutions, MCTformer's for transformers."""
    is_transformer = isinstance(network.body, Vit)
    side = network.model.multiple
    found = []
    with torch.no_grad():
        for scale in scales:
            size = [max(1, round(n * scale / side)) * side for n in image.shape[1:]]
            x = image[None]
            if size != list(image.shape[1:]):
                x = F.interpolate(x, size, mode="bicubic", antialias=True)
            for flipped in (False, True):
                given = x.flip(3) if flipped else x
                if is_transformer:
                    maps = transformer_maps(network, given)
                else:
                    maps = F.relu(network.head(network.body.levels(given)[-1]))
                maps = F.interpolate(maps, image.shape[1:], mode="bilinear", align_corners=False)
                maps = maps[0] * labels[:, None, None]
                found.append(maps.flip(2) if flipped else maps)
    total = torch.stack(found).sum(0)
    largest = total.amax((1, 2), keepdim=True)
    if not is_transformer:
        return total / (largest + 1e-5)
    least = total.amin((1, 2), keepdim=True)
    return (total - least) / (largest - least + 1e-8)
