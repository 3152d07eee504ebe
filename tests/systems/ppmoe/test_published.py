"""Mixtral, Qwen-MoE and Llama of the transformers layout, read and written."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tenfold.cli import main
from tenfold.data.text.tokenizer_file import FileTokenizer
from tenfold.data.text.tokens import BpeTokenizer, ByteTokenizer
from tenfold.systems.ppmoe import published
from tenfold.systems.ppmoe.config import Layout, Model
from tenfold.systems.ppmoe.model import Gpt
from tenfold.systems.ppmoe.parallel import Grid
from tenfold.systems.ppmoe.parts import Owners, initialise
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


TEXT = "Some words of text, 12 numbers and an umlaut: \u00e4.\n" * 800


@pytest.fixture(scope="module")
def mixtral(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Mixtral as save_pretrained writes it, in shards, with a tokenizer of 300 byte pairs."""
    folder = tmp_path_factory.mktemp("published") / "mixtral"
    sizes = COMMON | FAMILIES["mixtral"] | {"vocab_size": 320}
    config = transformers.AutoConfig.for_model("mixtral", **sizes)
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(
        folder, max_shard_size="40KB"
    )
    (folder / "tokenizer.json").write_text(BpeTokenizer.train([TEXT.encode()], 270).to_file())
    return folder


def test_a_published_model_is_converted_continued_and_written(
    mixtral: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text, out = tmp_path / "text.txt", tmp_path / "ours"
    text.write_text(TEXT)
    main(["convert", "ppmoe", str(mixtral), "--out", str(out)])
    assert "tensors converted" in capsys.readouterr().out
    words = ["--data.path", str(text), "--data.name", "files", "--model.seq", "16", "--steps", "2"]
    words += ["--batch", "2", "--optim.warmup", "1", "--loop.accumulate", "1", "--loop.amp", "off"]
    run = tmp_path / "run"
    start = ["--config", str(out), "--start", str(mixtral), "--run.folder", str(run)]
    main(["train", "ppmoe", "config", *start, *words])
    main(["export", str(run), "--to", "official", "--out", str(tmp_path / "back")])
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "back")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "back")
    ids = tokenizer(TEXT[:60])["input_ids"]
    first = FileTokenizer((mixtral / "tokenizer.json").read_text())
    assert ids == first.encode(TEXT[:60].encode()).tolist()
    assert again.config.model_type == "mixtral" and tokenizer.decode(ids) == TEXT[:60]


@pytest.mark.parametrize(
    "change, said",
    [
        ({"model_type": "gpt2"}, "is of a 'gpt2' model; models that are read: mixtral"),
        ({"hidden_act": "gelu"}, "hidden_act 'gelu' is not implemented"),
        ({"sliding_window": 4096}, "sliding window .4096 tokens"),
        ({"rope_parameters": {"rope_type": "yarn"}}, "rotations of type 'yarn'"),
        ({"num_local_experts": 10**9}, "num_local_experts must be a whole number from 1 to 4096"),
        ({"num_hidden_layers": "4"}, "num_hidden_layers must be a whole number .* got '4'"),
        ({"quantization_config": {}}, "quantised weights are not read"),
        ({"attention_bias": True}, "attention_bias is not implemented"),
        ({"num_experts_per_tok": 1}, "num_experts_per_tok 1 with gates that are divided"),
        ({"rope_parameters": "linear"}, "rope_parameters must be an object of fields"),
        ({"model_type": "qwen3_moe", "mlp_only_layers": "0"}, "mlp_only_layers must be a list"),
    ],
)
def test_what_cannot_be_read_is_named(change: dict[str, Any], said: str, mixtral: Path) -> None:
    config = json.loads((mixtral / "config.json").read_text()) | change
    with pytest.raises(ValueError, match=said):
        published.model_of(config)


def test_what_transformers_would_compute_otherwise_is_not_written() -> None:
    model = Model(
        layers=2, hidden=16, heads=4, ffn=24, seq=12, vocab=40, experts=4, top_k=2, moe_every=1,
        activation="swiglu", norm="rms", bias="none", positions="rotary", norm_topk=True,
    )  # fmt: skip
    assert published.config_of(model)["model_type"] == "mixtral"
    changes: list[tuple[dict[str, Any], str]] = [
        ({"bias_rate": 1e-3}, "no model with model.bias_rate 0.001"),
        ({"capacity_factor": 1.0, "drops_in_evaluation": True}, "model.drops_in_evaluation"),
        ({"top_k": 1}, "norm_topk with top_k from 2"),
    ]
    for change, said in changes:
        with pytest.raises(ValueError, match=said):
            published.config_of(replace(model, **change))
    # of one expert Qwen3-MoE divides the gate by itself where it is asked to, ours does not
    single = published.config_of(replace(model, top_k=1, qk_norm=True))
    assert (single["model_type"], single["norm_topk_prob"]) == ("qwen3_moe", False)


def test_damaged_folders_are_named(mixtral: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="config.json does not exist"):
        published.Folder.open(tmp_path)
    copy = tmp_path / "copy"
    shutil.copytree(mixtral, copy)
    index = copy / published.INDEX
    content = json.loads(index.read_text())
    missing = next(key for key in content["weight_map"] if "experts.0.w1" in key)
    del content["weight_map"][missing]
    content["weight_map"]["model.of.no.rule"] = content["weight_map"]["lm_head.weight"]
    index.write_text(json.dumps(content))
    opened, account = published.Folder.open(copy), Converted()
    list(published.tensors(opened, published.model_of(opened.config), account))
    assert account.missing == ["layers.0.moe.experts.gate_up_weight"]
    assert "model.of.no.rule" in account.unused and len(account.unused) == 10
    content["weight_map"]["lm_head.weight"] = "../outside.safetensors"
    index.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="names '../outside.safetensors', which is no file of its"):
        published.Folder.open(copy)
    file = next(copy.glob("model-*.safetensors"))
    content["weight_map"] = {"lm_head.weight": file.name}
    index.write_text(json.dumps(content))
    file.write_bytes(b"no tensors")
    with pytest.raises(ValueError, match="is no safetensors file"):
        opened = published.Folder.open(copy)
        list(published.tensors(opened, published.model_of(opened.config), Converted()))


def test_numbers_that_no_network_has_are_refused(mixtral: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(mixtral, copy)
    file = next(copy.glob("model-*.safetensors"))
    held = load_file(file)
    key = min(held)
    for value, said in ((torch.nan, "holds values that are not finite"), (1.0, "float8")):
        held[key] = torch.full_like(held[key], value)
        held[key] = held[key].to(torch.float8_e4m3fn) if said == "float8" else held[key]
        save_file(held, file, {"format": "pt"})
        opened = published.Folder.open(copy)
        with pytest.raises(ValueError, match=said):
            list(published.tensors(opened, published.model_of(opened.config), Converted()))


@pytest.mark.parametrize("activation, bias", [("swiglu", "none"), ("erf", "all")])
def test_an_upcycled_network_answers_as_the_dense_one(activation: Any, bias: Any) -> None:
    dense = Model(
        kind="dense", layers=4, hidden=16, heads=4, ffn=24, seq=12, vocab=40, activation=activation,
        bias=bias, norm="rms" if bias == "none" else "layer",
    )  # fmt: skip
    mixed = replace(dense, kind="moe", experts=4, top_k=2, norm_topk=True)
    whole, other = Gpt(dense), Gpt(mixed)
    initialise(whole, dense, 0, Owners(Layout(), Grid()))
    with pytest.warns(UserWarning, match="experts of blocks 1, 3 all begin as the dense network"):
        state = published.upcycled(whole.state_dict(), mixed, 1)
    other.load_state_dict(state)
    tokens = torch.randint(0, 40, (3, 12), generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        torch.testing.assert_close(other(tokens), whole(tokens))
    assert len({float(state[f"layers.{i}.moe.gate.weight"].sum()) for i in (1, 3)}) == 2
    assert published.upcycled(other.state_dict(), mixed, 1).keys() == state.keys()


def test_tokens_of_files_stand_for_the_bytes_of_the_text() -> None:
    pairs = BpeTokenizer.train([TEXT.encode()], 280)
    file = FileTokenizer(pairs.to_file())
    sample = TEXT[:200].encode()
    ids = file.encode(sample)
    assert ids.tolist() == pairs.encode(sample).tolist() and file.decode(ids) == sample
    assert file.lengths.tolist() == pairs.lengths.tolist()
    plain = FileTokenizer(ByteTokenizer().to_file())
    assert plain.encode(sample).tolist() == list(sample)
    sentences = json.loads(pairs.to_file())
    sentences["decoder"] = sentences["pre_tokenizer"] = None
    sentences["model"] = {
        "type": "BPE",
        "vocab": {"\u2581a": 0, "<0xE4>": 1, "<s>": 2},
        "merges": [],
    }
    sentences["added_tokens"] = [
        {"id": 2, "content": "<s>", "special": True, "single_word": False, "lstrip": False,
         "rstrip": False, "normalized": False},
    ]  # fmt: skip
    assert FileTokenizer(json.dumps(sentences)).decode([0, 1, 2, 9]) == b" a\xe4"
    with pytest.raises(ValueError, match="tokenizer.json cannot be read"):
        FileTokenizer("{}")
