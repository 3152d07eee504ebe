"""Features of frozen encoders on disk: a picture is encoded once, whichever head asks.

A file holds the features of one batch, vectors or maps. Its name is a hash of everything that they
follow from: the pictures' bytes, the way to the network's input, the encoder and its weights, the
kind of device and torch's version. So it never has to be told that something changed, and what is
read back is what would be computed, to the last bit.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from jaxtyping import Float, Shaped
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from .io import cache


def digest_of(state: Mapping[str, Tensor], *what: str) -> str:
    """SHA-256 of a network's tensors and of some words that say how it is used."""
    digest = hashlib.sha256("\n".join(what).encode())
    for key, value in sorted(state.items()):
        digest.update(f"{key} {value.dtype} {tuple(value.shape)}\n".encode())
        flat = value.detach().cpu().contiguous().reshape(-1)
        digest.update(flat.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def cached(
    images: Shaped[Tensor, "image 3 height width"],
    view: object,
    encoder: str,
    gib: int | float,
    compute: Callable[[], Float[Tensor, "image *feature"]],
) -> Float[Tensor, "image *feature"]:
    """Read the features of a batch of pictures, or compute and keep them.

    Args:
        images: As they are held.
        view: The way to the network's input; what `str` makes of it says all.
        encoder: Digest of the encoder, its weights and what they are computed on.
        gib: Gibibytes that all files may have together; the ones not used for longest are deleted.
        compute: Makes the features.
    """
    key = hashlib.sha256(f"{encoder} {view} {tuple(images.shape)} {torch.__version__}\n".encode())
    key.update(images.contiguous().numpy().tobytes())
    file = cache.folder("features") / f"{key.hexdigest()}.safetensors"
    found = _read(file, len(images))
    if found is None:
        found = compute()
        _write(file, found, gib)
    return found


def _read(file: Path, count: int) -> Tensor | None:
    """The features of a file; None if it is not there or damaged (then it is written anew)."""
    try:
        with safe_open(file, "pt") as opened:
            features, said = opened.get_tensor("features"), (opened.metadata() or {}).get("sha256")
        os.utime(file)  # it was used now
    except Exception:  # safetensors raises its own type; whatever it is, they can be computed
        return None
    whole = features.dtype == torch.float32 and features.ndim > 1 and len(features) == count
    return features if whole and _sum(features) == said else None


def _sum(features: Tensor) -> str:
    return hashlib.sha256(features.contiguous().numpy().tobytes()).hexdigest()


def _write(file: Path, features: Tensor, gib: int | float) -> None:
    """Keep features, and no more files than fit."""
    content, said = {"features": features.contiguous()}, {"sha256": _sum(features)}
    other_way = ", or --data.features-gib 0"
    if cache.keep(file, lambda place: save_file(content, place, said), "features", other_way):
        with contextlib.suppress(OSError):  # another user's files must not cost the run
            _bound(file.parent, gib * 2**30)


def _bound(place: Path, most: int | float) -> None:
    """Delete the files not used for longest until the others fit; other processes may, too."""
    found = []
    for file in place.glob("*.safetensors"):
        try:
            status = file.stat()
        except FileNotFoundError:
            continue
        found.append((status.st_mtime, status.st_size, file))
    total = sum(size for _, size, _ in found)
    for _, size, file in sorted(found):
        if total <= most:
            break
        file.unlink(missing_ok=True)
        total -= size
