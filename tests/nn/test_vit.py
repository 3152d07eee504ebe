"""The vision transformer of DINOv2 against its arithmetic, written out token by token."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from tenfold.nn.vit import Vit, VitShape


def random_vit(**sizes: int | bool) -> Vit:
    """A small network none of whose numbers is a default."""
    shape = VitShape(**{"dim": 8, "depth": 2, "heads": 2, "patch_size": 4, "grid": 3,
                        "hidden": 12, **sizes})  # fmt: skip
    torch.manual_seed(0)
    network = Vit(shape).eval()
    with torch.no_grad():
        for value in network.parameters():
            value.copy_(torch.randn_like(value) * 0.4)
    return network


def norm(x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    return (x - x.mean()) / np.sqrt(x.var() + 1e-6) * weight + bias


def by_hand(network: Vit, image: Tensor) -> np.ndarray:
    """All normalised tokens of one picture, in loops of float64."""
    p = {k: v.detach().double().numpy() for k, v in network.state_dict().items()}
    shape, x = network.shape, image.double().numpy()
    side = shape.patch_size
    tokens = [p["cls_token"][0, 0] + p["pos_embed"][0, 0]]
    tokens += list(p["register_tokens"][0]) if shape.registers else []
    for row in range(shape.grid):
        for column in range(shape.grid):
            patch = x[:, row * side : (row + 1) * side, column * side : (column + 1) * side]
            embedded = np.array([(k * patch).sum() for k in p["patch_embed.proj.weight"]])
            place = 1 + row * shape.grid + column
            tokens.append(embedded + p["patch_embed.proj.bias"] + p["pos_embed"][0, place])
    for i in range(shape.depth):
        own = {k.removeprefix(f"blocks.{i}."): v for k, v in p.items()}

        def linear(name: str, v: np.ndarray, own: dict = own) -> np.ndarray:
            return own[f"{name}.weight"] @ v + own[f"{name}.bias"]

        normed = [norm(t, own["norm1.weight"], own["norm1.bias"]) for t in tokens]
        q, k, v = zip(*[np.split(linear("attn.qkv", t), 3) for t in normed], strict=True)
        size, mixed = shape.dim // shape.heads, []
        for query in q:
            parts = []
            for head in range(shape.heads):
                part = slice(head * size, (head + 1) * size)
                scores = np.array([query[part] @ key[part] / math.sqrt(size) for key in k])
                weights = np.exp(scores - scores.max())
                weights /= weights.sum()
                parts.append(sum(w * value[part] for w, value in zip(weights, v, strict=True)))
            mixed.append(np.concatenate(parts))
        tokens = [
            t + own.get("ls1.gamma", 1.0) * linear("attn.proj", m)
            for t, m in zip(tokens, mixed, strict=True)
        ]
        for place, token in enumerate(tokens):
            t = norm(token, own["norm2.weight"], own["norm2.bias"])
            if shape.gated:
                gate, value = np.split(linear("mlp.w12", t), 2)
                found = linear("mlp.w3", gate / (1 + np.exp(-gate)) * value)
            else:
                t = linear("mlp.fc1", t)
                gelu = [0.5 * one * (1 + math.erf(one / math.sqrt(2))) for one in t]
                found = linear("mlp.fc2", np.array(gelu))
            tokens[place] = token + own.get("ls2.gamma", 1.0) * found
    return np.stack([norm(t, p["norm.weight"], p["norm.bias"]) for t in tokens])


@pytest.mark.parametrize(
    "sizes",
    [{}, {"registers": 2}, {"gated": True}, {"layer_scale": False, "heads": 4}],
    ids=["plain", "registers", "swiglu", "no scale"],
)
def test_equal_to_loops(sizes: dict[str, int | bool]) -> None:
    network = random_vit(**sizes)
    images = torch.randn(2, 3, 12, 12)
    with torch.no_grad():
        tokens, features = network.tokens(images), network(images)
    for image, found, feature in zip(images, tokens, features, strict=True):
        wanted = by_hand(network, image)
        np.testing.assert_allclose(found.numpy(), wanted, atol=2e-5)
        np.testing.assert_allclose(feature.numpy(), wanted[0], atol=2e-5)


def test_positions_of_another_grid() -> None:
    """By DINO's factor without registers, to the size with antialiasing with them; never moved."""
    for registers in (0, 2):
        network = random_vit(registers=registers)
        table = network.pos_embed[:, 1:].unflatten(1, (3, 3)).permute(0, 3, 1, 2)
        how = {"size": (2, 4), "antialias": True}
        if not registers:
            how = {"scale_factor": (2.1 / 3, 4.1 / 3)}
        wanted = torch.nn.functional.interpolate(table, mode="bicubic", **how)
        found = network.positions(2, 4)
        assert torch.equal(found[:, :1], network.pos_embed[:, :1])
        torch.testing.assert_close(found[:, 1:], wanted.flatten(2).transpose(1, 2))
        assert network(torch.randn(1, 3, 8, 16)).shape == (1, 8)


def test_refusals() -> None:
    with pytest.raises(ValueError, match="multiples of 4"):
        random_vit()(torch.randn(1, 3, 10, 12))
    with pytest.raises(ValueError, match="3 heads"):
        VitShape(8, 1, 3, 4, 2, 8)
