"""Checks of the encoders that LOUPE uses, in the layout of transformers."""

from __future__ import annotations

import torch
from torch import Tensor

from golden.harness import Case
from tenfold.nn.bert import Bert, BertShape
from tenfold.nn.swin import Swin, SwinShape
from tenfold.weights import bert, swin

CLOSE = {"rtol": 1e-4, "atol": 1e-4}
"""Of single precision."""


def state_of(case: Case) -> dict[str, Tensor]:
    """The case's weights by their rule: norms around 1, all else scaled."""
    state, prefix = {}, case.spec["config"].get("key_prefix", "")
    for key, shape in case.spec["weights"]:
        is_norm = key.endswith("weight") and "norm" in key.split(".")[-2].lower()
        value = 1 + 0.1 * case.rule(prefix + key, shape) if is_norm else None
        if value is None:
            value = case.rule(prefix + key, shape, case.spec["weight_scale"])
        state[key] = torch.from_numpy(value.astype("float32"))
    return state


def shapes(module: torch.nn.Module) -> dict[str, tuple[int, ...]]:
    return {key: tuple(value.shape) for key, value in module.state_dict().items()}


def check_swin(case: Case) -> None:
    config, state = case.spec["config"], state_of(case)
    found = swin.describe_swin(state)
    shape = SwinShape(
        found.dim, found.depths, found.heads, found.window, found.patch_size, found.hidden
    )
    assert shape == SwinShape(
        config["embed_dim"], tuple(config["depths"]), tuple(config["num_heads"]),
        config["window_size"], config["patch_size"], config["mlp_ratio"],
    )  # fmt: skip
    network = Swin(shape).eval()
    network.load_state_dict(swin.convert_swin(state, shapes(network)).require_complete())
    images = torch.from_numpy(case.input("pix"))
    with torch.no_grad():
        maps, tokens = network.maps(images), network(images)
    got = {f"hidden{i}": one.flatten(1, 2) for i, one in enumerate(maps)}
    case.compare_all(got | {"last": tokens, "pooled": tokens.mean(1)}, CLOSE)


def check_bert(case: Case) -> None:
    config, state = case.spec["config"], state_of(case)
    found = bert.describe_bert(state)
    shape = BertShape(
        found.vocabulary, found.dim, found.depth, config["num_attention_heads"], found.hidden,
        found.positions, found.types,
    )  # fmt: skip
    assert shape == BertShape(
        config["vocab_size"], config["hidden_size"], config["num_hidden_layers"],
        config["num_attention_heads"], config["intermediate_size"],
        config["max_position_embeddings"], config["type_vocab_size"],
    )  # fmt: skip
    network = Bert(shape, pooler=found.has_pooler).eval()
    network.load_state_dict(bert.convert_bert(state, shapes(network)).require_complete())
    words = torch.tensor(config["input_ids"])
    is_token = torch.tensor(config["attention_mask"]).bool()
    with torch.no_grad():
        hidden = [network.embeddings(words)]
        for layer in network.encoder.layer:
            hidden.append(layer(hidden[-1], is_token))
        tokens = network(words, is_token)
        got = {f"hidden{i}": one for i, one in enumerate(hidden)} | {"last": tokens}
        if found.has_pooler:
            got["pooled"] = network.pooler(tokens)
    case.compare_all(got, CLOSE)


KINDS = {"swin": check_swin, "bert": check_bert}
"""Kind of case -> its check."""
