"""Names of the widely used PyTorch port of EfficientNet and its Lite variants, and ours."""

from __future__ import annotations

from .keymap import Rule

STEM = "_conv_stem.weight"
"""A key that every file of the port has."""
CLASSIFIER = r"_fc\.(?:weight|bias)"


def rules(prefix: str) -> list[Rule]:
    """Rules for the port's keys, under a prefix of ours."""
    return [
        Rule(r"_(conv_stem|bn0|conv_head|bn1)\.(.+)", rf"{prefix}\1.\2"),
        Rule(r"_blocks\.(\d+)\._(\w+)\.(.+)", rf"{prefix}blocks.\1.\2.\3"),
    ]
