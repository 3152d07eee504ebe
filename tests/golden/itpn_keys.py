"""Every official list of keys and shapes loads into our modules, each key accounted for."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn

from golden.harness import Case
from golden.itpn_fill import shape_of_layout
from tenfold.nn.hivit import HiViT
from tenfold.systems.itpn.model import Classifier, ClipPretraining, PixelPretraining
from tenfold.systems.itpn.official import official_keys
from tenfold.weights.hivit import Layout, convert, describe

KINDS = {"float32": torch.float32, "int64": torch.int64}


def network_of(layout: Layout) -> nn.Module:
    """The module that such a file is of."""
    shape = shape_of_layout(layout)
    if layout.kind == "finetune":
        return Classifier(replace(shape, fpn_dim=0), layout.num_classes)
    if layout.kind == "dense":
        return HiViT(shape)
    if layout.family == "clip":
        return ClipPretraining(shape, layout.teacher_dim)
    return PixelPretraining(
        shape, mask_ratio=0.75, dim=layout.decoder_dim, depth=layout.decoder_depth, heads=16
    )


def check_keys(case: Case) -> None:
    listed = case.spec["keys"]
    state = {
        key: torch.empty(shape, dtype=KINDS[kind], device="meta") for key, shape, kind in listed
    }
    layout = describe(state)
    with torch.device("meta"):
        network = network_of(layout)
    names = official_keys(network)
    current = network.state_dict()
    account = convert(state, {key: tuple(current[name].shape) for key, name in names.items()})
    account.require_complete()
    assert all("index" in key for key, _ in account.ignored), account.ignored
    assert set(account.state) == set(names)
    assert sum(p.numel() for p in network.parameters()) == case.spec["n_trainable"]
    # one key away, and one too many, and the account says so
    gone = next(key for key in state if key.startswith("blocks.0"))
    rest = {key: value for key, value in state.items() if key != gone} | {"surplus": state[gone]}
    wrong = convert(rest, {key: tuple(current[name].shape) for key, name in names.items()})
    assert wrong.missing == [gone] and wrong.unused == ["surplus"]


CHECKS = {"keys": check_keys}
