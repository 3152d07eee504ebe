"""Names of the official pseudocode (198808xc/Pangu-Weather @ 72bdd99) under our keys."""

from __future__ import annotations

from tenfold.weights.keymap import KeyMap, Rule

_BLOCK = r"(layer[1-4]\.blocks\.\d+)\."
PSEUDOCODE = KeyMap(
    [
        Rule(r"_input_layer\.conv\.(weight|bias)", r"embed.upper.\1"),
        Rule(r"_input_layer\.conv_surface\.(weight|bias)", r"embed.surface.\1"),
        Rule(_BLOCK + r"attention\.linear1\.(weight|bias)", r"\1.attention.qkv.\2"),
        Rule(_BLOCK + r"attention\.linear2\.(weight|bias)", r"\1.attention.project.\2"),
        Rule(_BLOCK + r"attention\.earth_specific_bias", r"\1.attention.bias_table"),
        Rule(_BLOCK + r"norm([12])\.(weight|bias)", r"\1.norm\2.\3"),
        Rule(_BLOCK + r"linear\.linear([12])\.(weight|bias)", r"\1.fc\2.\3"),
        Rule(r"downsample\.(linear|norm)\.(weight|bias)", r"down.\1.\2"),
        Rule(r"upsample\.linear1\.weight", r"up.expand.weight"),
        Rule(r"upsample\.linear2\.weight", r"up.project.weight"),
        Rule(r"upsample\.norm\.(weight|bias)", r"up.norm.\1"),
        Rule(r"_output_layer\.conv\.(weight|bias)", r"recover.upper_\1"),
        Rule(r"_output_layer\.conv_surface\.(weight|bias)", r"recover.surface_\1"),
    ]
)
