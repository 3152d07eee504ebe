"""Mixtral, Qwen-MoE and Llama of the transformers layout, read and written."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch

from tenfold.systems.ppmoe import published
from tenfold.systems.ppmoe.model import Gpt
from tenfold.weights.keymap import Converted

os.environ.setdefault("HF_HUB_OFFLINE", "1")
transformers = pytest.importorskip("transformers")

COMMON = {
    "vocab_size": 61, "hidden_size": 24, "intermediate_size": 20, "num_hidden_layers": 3,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 32,
    "tie_word_embeddings": False,
}  # fmt: skip
FAMILIES: dict[str, dict[str, Any]] = {
    "mixtral": {"num_local_experts": 5, "num_experts_per_tok": 2, "sliding_window": None},
    "qwen2_moe": {
        "num_experts": 6, "num_experts_per_tok": 3, "moe_intermediate_size": 12,
        "shared_expert_intermediate_size": 28, "decoder_sparse_step": 1, "mlp_only_layers": [1],
        "num_key_value_heads": 4,
    },
    "qwen3_moe": {
        "num_experts": 6, "num_experts_per_tok": 2, "moe_intermediate_size": 12, "head_dim": 10,
        "decoder_sparse_step": 2, "norm_topk_prob": True, "rope_theta": 500_000.0,
    },
    "llama": {"tie_word_embeddings": True, "rope_theta": 20_000.0},
    "qwen2": {},
    "qwen3": {"head_dim": 8},
}  # fmt: skip


def made(family: str) -> Any:
    """A model of transformers whose numbers follow a rule."""
    config = transformers.AutoConfig.for_model(family, **(COMMON | FAMILIES[family]))
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    with torch.no_grad():
        for number, (_, value) in enumerate(sorted(model.named_parameters())):
            steps = torch.arange(value.numel(), dtype=torch.float64) * (0.37 + 0.01 * number)
            scale = 1.0 if value.ndim == 1 else 0.3
            value.copy_((steps.sin() * scale + (value.ndim == 1)).view(value.shape))
    return model.eval()


def ours(folder: Path) -> tuple[Gpt, Converted]:
    opened = published.Folder.open(folder)
    cfg = published.model_of(opened.config)
    model, account = Gpt(cfg), Converted()
    state = dict(published.tensors(opened, cfg, account))
    model.load_state_dict(state)
    return model.eval(), account


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_equal_those_of_transformers_both_ways(family: str, tmp_path: Path) -> None:
    theirs = made(family)
    theirs.save_pretrained(tmp_path / "theirs", max_shard_size="20KB")
    assert len(list((tmp_path / "theirs").glob("*.safetensors"))) > 1
    tokens = torch.randint(0, 61, (2, 17), generator=torch.Generator().manual_seed(0))
    model, account = ours(tmp_path / "theirs")
    assert account.is_complete, account.report()
    with torch.no_grad():
        want, found = theirs(tokens).logits, model(tokens)
    torch.testing.assert_close(found, want, rtol=1e-5, atol=1e-5)
    state = model.state_dict()
    for name, size in (("whole", 10**9), ("sharded", 10_000)):
        files = published.write(tmp_path / name, model.cfg, state.__getitem__, size)
        assert len(files) == 2 if name == "whole" else len(files) > 3
        again = transformers.AutoModelForCausalLM.from_pretrained(
            tmp_path / name, attn_implementation="eager", dtype=torch.float32
        )
        with torch.no_grad():
            torch.testing.assert_close(again(tokens).logits, want, rtol=1e-5, atol=1e-5)
