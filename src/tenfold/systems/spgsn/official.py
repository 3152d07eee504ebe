"""The official SPGSN checkpoint (MediaBrain-SJTU/SPGSN @ 55e865f) under our keys."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tenfold.weights.keymap import Converted, KeyMap, Rule, require_shape

PREFIX = "module."
"""Prefix that DataParallel puts before every key."""


NEEDED = ("gc1.weight", "gc1.att", "gcbs.0.gc1.scat_tree.f_coef")
"""Tensors from whose shapes the size of the network follows."""


def official_state(checkpoint: object) -> dict[str, Tensor]:
    """The tensors of a `.pth.tar` file, {epoch, lr, err, state_dict, optimizer}, or of a bare one.

    Raises ValueError if it is something else.
    """
    state = checkpoint.get("state_dict", checkpoint) if isinstance(checkpoint, Mapping) else None
    if not isinstance(state, Mapping) or not all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in state.items()
    ):
        raise ValueError("it holds no state_dict of tensors with names")
    tensors = {key.removeprefix(PREFIX): value for key, value in state.items()}
    if absent := [key for key in NEEDED if key not in tensors]:
        raise ValueError(f"it has no {', '.join(absent)}")
    return tensors


@dataclass(frozen=True)
class Size:
    """Size of a checkpoint's network, by the shapes of its tensors."""

    nodes: int
    width: int
    blocks: int
    filters: int
    coeffs: int


def size_of(state: Mapping[str, Tensor]) -> Size:
    """The size of the network of an official state; ValueError if its parts do not fit.

    A network of this size is not much larger than the state, so that building one is safe.
    """
    embed, graph = state["gc1.weight"].shape, state["gc1.att"].shape
    if len(embed) != 2 or not graph:
        raise ValueError("odd shapes of gc1")
    (coeffs, width), filters = embed, state["gcbs.0.gc1.scat_tree.f_coef"].numel() // 2
    blocks = len({key.split(".")[1] for key in state if key.startswith("gcbs.")})
    for block in range(blocks):
        key = f"gcbs.{block}.gc1.scat_tree.feat_sc1.weight"
        require_shape(state, key, filters, width, width)
    return Size(graph[0], width, blocks, filters, coeffs)


def key_map(order: Tensor) -> KeyMap:
    """The map; `order` is `ScatteringNetwork.order`: the nodes upper | lower | others."""
    inverse = order.argsort()

    def rows(index: Tensor) -> Any:
        return lambda x: x.view(len(index), -1)[index].flatten()

    def square(index: Tensor) -> Any:
        return lambda x: x[index][:, index]

    def transposed(x: Tensor) -> Tensor:
        return x.T

    graph = (square(order), square(inverse))
    features = (rows(order), rows(inverse))
    flip = (transposed, transposed)
    block, ours = r"gcbs\.(\d+)\.", r"blocks.\1."
    norms = {
        r"bn1\.": "embed_norm.",
        block + r"bn1_conv\.": ours + "low_norm.",
        block + r"bn1_scat\.": ours + "band_norm.",
        block + r"bn2_conv\.": ours + "mix_norm.",
    }
    rules = []
    for theirs, mine in norms.items():
        last = mine.count("\\") + 1
        rules.append(
            Rule(theirs + "(weight|bias|running_mean|running_var)", f"{mine}\\{last}", *features)
        )
        rules.append(Rule(theirs + "num_batches_tracked", mine + "num_batches_tracked"))
    for theirs, mine in {"gc1": "embed", "gc7": "readout"}.items():
        rules.append(Rule(rf"{theirs}\.att", f"{mine}.graph", *graph))
        rules.append(Rule(rf"{theirs}\.(weight|bias)", rf"{mine}.\1"))
    plain = {
        r"gc1\.att_up1": "graphs.upper",
        r"gc1\.att_down1": "graphs.lower",
        r"gc1\.scat_tree\.f_coef": "graphs.coefs",
        r"gc1\.scat_tree\.feat_gcn\.(weight|bias)": r"tree.low_\2",
        r"gc1\.scat_tree\.feat_sc1\.(weight|bias)": r"tree.first_\2",
        r"gc1\.scat_tree\.feat_sc2\.(weight|bias)": r"tree.second_\2",
        r"gc2\.(weight|bias)": r"mix_\2",
        r"att_Sigmoid1\.w_h": "attention.hidden_weight",
        r"att_Sigmoid1\.w_q": "attention.query_weight",
        r"att_Sigmoid1\.bs": "attention.hidden_bias",
        r"att_Sigmoid1\.fc2\.bias": "attention.score_bias",
    }
    flipped = {
        r"gc1\.partfuse\.fc_up1\.weight": "exchange.upper_in",
        r"gc1\.partfuse\.fc_up2\.weight": "exchange.upper_out",
        r"gc1\.partfuse\.fc_down1\.weight": "exchange.lower_in",
        r"gc1\.partfuse\.fc_down2\.weight": "exchange.lower_out",
        r"att_Sigmoid1\.fc1\.weight": "attention.embed",
        r"att_Sigmoid1\.fc2\.weight": "attention.score_weight",
    }
    graphs = {r"gc1\.att1": "graphs.whole", "att1": "mix_graph"}
    for names, how in ((plain, ()), (flipped, flip), (graphs, graph)):
        rules += [Rule(block + theirs, ours + mine, *how) for theirs, mine in names.items()]
    dead = r"gcbs\.\d+\.(gc1\.scat_tree\.feat_(gcn|sc1|sc2)|gc2)\.att"
    return KeyMap(rules, [(dead, "48 x 48 matrix that the official code never uses")])


def convert(
    checkpoint: Mapping[str, Any], order: Tensor, target: Mapping[str, Tensor]
) -> Converted:
    """An official checkpoint as the state of a network whose state now is `target`."""
    shapes = {key: tuple(value.shape) for key, value in target.items()}
    with torch.no_grad():
        return key_map(order).convert(official_state(checkpoint), shapes)
