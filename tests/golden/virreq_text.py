"""Checks of CLIP's tokens and of its text encoder."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from golden.harness import Case
from golden.virreq_fill import filled
from tenfold.data.text.clip_tokens import FILE, ClipTokenizer
from tenfold.nn.clip_text import ClipTextTower
from tenfold.weights.clip_text import convert_clip_text, describe_clip_text

LIMITS = {"rtol": 1e-4, "atol": 1e-5}
"""What the README of the cases suggests."""


def merges(case: Case) -> Path | None:
    """CLIP's table of merges, where it is."""
    try:
        return case.data_file(f"data/clip_text/{FILE}")
    except FileNotFoundError:
        return None


def check_tokens(case: Case) -> None:
    path = merges(case)
    if path is None:
        pytest.skip(f"{FILE} is not here")
    config, tokenizer = case.spec["config"], ClipTokenizer.read(path)
    assert (tokenizer.start, tokenizer.end) == (config["sot"], config["eot"])
    found = tokenizer.table(config["texts"], config["context_length"])
    case.compare("tokens", found.astype(case.arrays["tokens"].dtype))


def check_text_tower(case: Case) -> None:
    config, state = case.spec["config"], filled(case)
    tokens = case.take("tokens")
    path = merges(case)
    if path is not None:
        found = ClipTokenizer.read(path).table(config["texts"], config["context_length"])
        case.compare("tokens", found.astype(tokens.dtype))
    sizes = describe_clip_text(state)
    assert (sizes.width, sizes.layers, sizes.dim) == (
        config["width"], config["layers"], config["embed_dim"],
    )  # fmt: skip
    tower = ClipTextTower(sizes.width, sizes.layers, sizes.dim, sizes.context, sizes.vocabulary)
    shapes = {key: tuple(value.shape) for key, value in tower.state_dict().items()}
    tower.load_state_dict(convert_clip_text(state, shapes).require_complete())
    features = tower(torch.from_numpy(tokens).long())
    case.compare_all({"features": features, "normalised": F.normalize(features, dim=-1)}, LIMITS)


KINDS = {"text_tower": check_text_tower, "tokens": check_tokens}
"""Kind of case -> its check."""
