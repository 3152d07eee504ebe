"""Checkpoints of Swin and BERT in the names of transformers, older ones too."""

from __future__ import annotations

import re

import pytest
import torch
from torch import Tensor, nn

from tenfold.nn.bert import Bert, BertShape
from tenfold.nn.swin import Swin, SwinShape
from tenfold.weights import bert, swin


def shapes(module: nn.Module) -> dict[str, tuple[int, ...]]:
    return {key: tuple(value.shape) for key, value in module.state_dict().items()}


def small_swin() -> Swin:
    return Swin(SwinShape(8, (2, 1), (2, 4), window=2, patch_size=2, hidden=2.0)).eval()


def small_bert() -> Bert:
    return Bert(BertShape(9, 8, 2, 2, 12, positions=6), pooler=True).eval()


def old_swin(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Names of transformers 4, in a classifier."""
    projections = {"q": "self.query", "k": "self.key", "v": "self.value", "o": "output.dense"}
    names = {rf"attention\.{k}_proj": f"attention.{v}" for k, v in projections.items()}
    names |= {r"attention\.relative_position_bias\.": "attention.self."}
    names |= {r"mlp\.fc1": "intermediate.dense", r"mlp\.fc2": "output.dense"}
    found = {"classifier.weight": torch.zeros(3, 16)}
    for key, value in state.items():
        for new, old in names.items():
            key = re.sub(new, old, key)
        found[f"swin.{key}"] = value
        if key.endswith("_table"):
            index = key.replace("_bias_table", "_index")
            found[f"swin.{index}"] = torch.zeros(4, 4, dtype=torch.long)
    return found


def test_both_names_of_swin_are_read() -> None:
    network = small_swin()
    state = network.state_dict()
    for given in (state, old_swin(state)):
        found = swin.describe_swin(given)
        assert found == swin.SwinLayout(8, (2, 1), (2, 4), 2, 2, 2.0)
        converted = swin.convert_swin(given, shapes(network))
        assert all(torch.equal(converted.require_complete()[key], state[key]) for key in state)
    assert len(converted.ignored) == 4


def test_what_is_no_swin() -> None:
    state = small_swin().state_dict()
    with pytest.raises(ValueError, match="projection.weight is missing"):
        swin.describe_swin({})
    flat = {"embeddings.patch_embeddings.projection.weight": torch.zeros(8, 12)}
    with pytest.raises(ValueError, match=r"projection.weight is \(8, 12\)"):
        swin.describe_swin(state | flat)
    gap = {k.replace("blocks.1", "blocks.5"): v for k, v in state.items()}
    with pytest.raises(ValueError, match="not numbered from 0 without a gap"):
        swin.describe_swin(gap)
    bare = {k: v for k, v in state.items() if "bias_table" not in k}
    with pytest.raises(ValueError, match="block 0 of stage 0 has no table"):
        swin.describe_swin(bare)
    # a small file must not ask for a large network
    few = {k: v.flatten()[:1] if "blocks.1." in k else v for k, v in state.items()}
    with pytest.raises(ValueError, match=r"blocks\.1\..*q_proj\.weight is of shape \(1,\)"):
        swin.describe_swin(few)
    with pytest.raises(ValueError, match=r"q_proj\.weight is of shape \(8, 8\), expected \(4096,"):
        swin.describe_swin(state | {key: torch.zeros(4096, 3, 1, 1) for key in flat})
    more = state | {"encoder.layers.0.blocks.0.extra.weight": torch.zeros(1)}
    with pytest.raises(ValueError, match="unused: encoder.layers.0.blocks.0.extra"):
        swin.convert_swin(more, shapes(small_swin())).require_complete()


def old_bert(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Names of checkpoints that came from TensorFlow, in a model with a task's head."""
    found = {"cls.predictions.bias": torch.zeros(9), "bert.embeddings.position_ids": torch.zeros(6)}
    for key, value in state.items():
        key = key.replace("LayerNorm.weight", "LayerNorm.gamma")
        found[f"bert.{key}".replace("LayerNorm.bias", "LayerNorm.beta")] = value
    return found


def test_all_names_of_bert_are_read() -> None:
    network = small_bert()
    state = network.state_dict()
    for given in (state, old_bert(state)):
        assert bert.describe_bert(given) == bert.BertLayout(9, 8, 2, 12, 6, 2, True)
        converted = bert.convert_bert(given, shapes(network))
        assert all(torch.equal(converted.require_complete()[key], state[key]) for key in state)
    without = Bert(network.shape)
    converted = bert.convert_bert(old_bert(state), shapes(without))
    assert not converted.require_complete().keys() & {"pooler.dense.weight"}


def test_what_is_no_bert() -> None:
    state = small_bert().state_dict()
    with pytest.raises(ValueError, match="embeddings.word_embeddings.weight is missing"):
        bert.describe_bert({})
    with pytest.raises(ValueError, match="layers are not numbered"):
        bert.describe_bert({k: v for k, v in state.items() if "layer.0." not in k})
    with pytest.raises(ValueError, match="has no intermediate"):
        bert.describe_bert({k: v for k, v in state.items() if "intermediate" not in k})
    # a small file must not ask for a large network
    few = {k: v.flatten()[:1] if "layer.1." in k else v for k, v in state.items()}
    with pytest.raises(ValueError, match=r"layer\.1\..*query\.weight is of shape \(1,\), expected"):
        bert.describe_bert(few)
    table = {"embeddings.word_embeddings.weight": torch.zeros(9, 4096)}
    with pytest.raises(ValueError, match=r"query\.weight is of shape \(8, 8\), expected \(4096,"):
        bert.describe_bert(state | table)


def test_padding_changes_no_token() -> None:
    network, words = small_bert(), torch.tensor([[1, 5, 7, 2]])
    short = network(words[:, :3], torch.ones(1, 3).bool())
    padded = network(words, torch.tensor([[True, True, True, False]]))
    torch.testing.assert_close(padded[:, :3], short)
    with pytest.raises(ValueError, match="7 word pieces is longer than the 6"):
        network(torch.zeros(1, 7).long(), torch.ones(1, 7).bool())


def test_pictures_of_any_size_have_tokens() -> None:
    network = small_swin()
    for size, tokens in (((8, 8), 4), ((10, 7), 6), ((2, 2), 1)):
        found = network(torch.randn(2, 3, *size))
        assert found.shape == (2, tokens, 16) and found.isfinite().all()
    with pytest.raises(ValueError, match="stage 1 of 16 channels cannot have 3 heads"):
        SwinShape(8, (1, 1), (2, 3))
    with pytest.raises(ValueError, match="give one of both"):
        SwinShape(8, (1, 1), (2,))


def test_a_shift_lets_no_far_borders_meet() -> None:
    """A change in the first row and column reaches its windows of both blocks, and no further."""
    network = Swin(SwinShape(8, (2,), (2,), window=4, patch_size=1)).eval()
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.5)
    image = torch.randn(1, 3, 8, 8)
    changed = image.clone()
    changed[:, :, 0, 0] += 1
    with torch.no_grad():
        far = (network(image) - network(changed)).abs().sum(2).view(8, 8) > 1e-6
    assert far[:6, :6].all()  # windows of 4, then those shifted by 2 that begin in it
    assert not far[6:].any() and not far[:, 6:].any()
