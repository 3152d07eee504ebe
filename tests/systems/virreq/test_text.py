"""Vectors of concepts: prompts, synonyms, centring, stored tables, and files of CLIP."""

from __future__ import annotations

import gzip
import json
import re
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from tenfold.data.text import clip_tokens
from tenfold.data.text.clip_tokens import ClipTokenizer, cleaned, words
from tenfold.nn.clip_text import ClipTextTower
from tenfold.systems.virreq.text import (
    VIT_B32,
    ClipTexts,
    Concept,
    StoredTexts,
    sentences,
    space_of,
    vectors_of,
)

NAMES = ("road", "traffic_light", "suit_(clothing)", "head", "jean")


def stored(prompt: str = "a-name", dim: int = 8) -> StoredTexts:
    rows = torch.randn(len(NAMES), dim, generator=torch.Generator().manual_seed(1)) + 1
    return StoredTexts(NAMES, rows, "drawn", prompt, "table.npz")  # type: ignore[arg-type]


# --- prompts, synonyms, centring -----------------------------------------------------------------


def test_sentences() -> None:
    head = Concept("bed/head", "bed_head ", ("top",), ("bed", "night_stand"))
    assert sentences(head, "raw") == ["bed_head ", "top"], "official: as they are"
    assert sentences(head, "a-name") == ["a bed head", "a top"]
    assert sentences(head, "part-of-whole") == [
        "the bed head of a bed", "the bed head of a night stand", "the top of a bed",
        "the top of a night stand",
    ]  # fmt: skip
    assert sentences(Concept("road", "road"), "part-of-whole") == ["a road"]


def test_synonyms_are_averaged_at_length_one() -> None:
    table = stored()
    both, _ = vectors_of([Concept("k", "road", ("jean", "not there"))], table, "a-name")
    rows = F.normalize(table.rows, dim=1)
    torch.testing.assert_close(both[0], F.normalize(rows[0] + rows[4], dim=0))
    torch.testing.assert_close(both.norm(dim=1), torch.ones(1))


def test_centring_takes_the_mean_of_all_words_away() -> None:
    table = stored()
    names = [Concept(name, name) for name in NAMES]
    raw, _ = vectors_of(names, table, "a-name")
    centred, _ = vectors_of(names, table, "a-name", centred=True)
    want = F.normalize(raw - raw.mean(0), dim=1)
    torch.testing.assert_close(centred, want)
    assert (raw @ raw.T).mean() > (centred @ centred.T).mean() + 0.2
    spaces = {space_of(table, "a-name", c) for c in (False, True)}
    assert spaces == {"drawn, prompt a-name", "drawn, prompt a-name, centred"}


def test_a_word_of_a_table_is_found_as_people_write_it() -> None:
    table = stored()
    for word, name in (("Traffic light", 1), ("suit", 2), ("suit_(clothing)", 2), ("HEADS", 3)):
        assert table.find(word) == name, word
    with pytest.raises(ValueError, match=r"no text 'jeanz' or 'slacks': the nearest are jean;"):
        vectors_of([Concept("j", "jeanz", ("slacks",))], table, "a-name")
    with pytest.raises(ValueError, match="made with the prompt a-name, not raw"):
        vectors_of([Concept("r", "road")], table, "raw")


def test_words_that_no_table_has_can_be_drawn() -> None:
    """They are the same every time, as far from the others as words are, and are named."""
    table = stored(dim=64)
    concepts = [Concept("r", "road"), Concept("skin", "skin"), Concept("hair", "hair")]
    found, drawn = vectors_of(concepts, table, "a-name", draw=True)
    again, _ = vectors_of(concepts[1:], table, "a-name", draw=True)
    assert drawn == ["skin", "hair"] and torch.equal(found[1:], again)
    legs = Concept("limbs", "limbs", parts=("jeans", "shins"))
    found_of_parts, drawn = vectors_of([legs], table, "a-name", draw=True)
    assert not drawn, "it has the mean of those of its parts that are known"
    torch.testing.assert_close(found_of_parts[0], table.rows[4])
    floor = (table.rows @ table.rows.T).fill_diagonal_(0).sum() / 20
    assert abs((found[1] @ found[2]) - floor) < 0.3


# --- stored tables in files ----------------------------------------------------------------------


def test_tables_in_files(tmp_path: Path) -> None:
    vectors = np.random.RandomState(0).standard_normal((2, 6)).astype(np.float16)
    names = np.array(["road", "sky"])
    file = tmp_path / "t.npz"
    np.savez(file, lvis_names=names, lvis=vectors, coco_names=names[:1], coco=vectors[:1],
             other=np.zeros(3))  # fmt: skip
    found = StoredTexts.read(file)
    assert (found.space, found.prompt, found.dim) == (VIT_B32, "a-name", 6)
    np.savez(file, names=names, vectors=vectors, space="mine", prompt="raw")
    assert StoredTexts.read(file).space == "mine"
    bad = {
        r"names of type .* do not fit vectors of shape \(1, 6\)": {"vectors": vectors[:1]},
        "no finite numbers": {"vectors": vectors * np.nan},
        "of type int64": {"names": np.arange(2)},
        "prompt 'photo'; one of raw": {"prompt": "photo"},
    }
    for says, change in bad.items():
        np.savez(file, **({"names": names, "vectors": vectors, "space": "mine",
                           "prompt": "raw"} | change))  # fmt: skip
        with pytest.raises(ValueError, match=says):
            StoredTexts.read(file)
    odd = names.copy()
    odd.view(np.uint32)[1] = 0x7FFFFFFF
    np.savez(file, names=odd, vectors=vectors, space="mine", prompt="raw")
    with pytest.raises(ValueError, match="names holds characters that there are not"):
        StoredTexts.read(file)
    np.savez(file, a=vectors)
    with pytest.raises(ValueError, match=r"t\.npz holds a; a table of texts has names, vectors"):
        StoredTexts.read(file)


# --- tokens --------------------------------------------------------------------------------------


def small_tokenizer() -> ClipTokenizer:
    merges = [("r", "o"), ("a", "d</w>"), ("ro", "ad</w>"), ("i", "e</w>"), ("ro", "a")]
    return ClipTokenizer(merges)


def test_words_of_a_text() -> None:
    said = cleaned("  It's  L'été &amp;amp; 2½\tROADS!? ")
    assert said == "it's l'été & 2½ roads!?"
    assert list(words(said)) == ["it", "'s", "l", "'", "été", "&", "2", "½", "roads", "!?"]
    assert list(words("")) == []


def test_pairs_are_merged_in_the_order_in_which_they_were_learned() -> None:
    tokenizer = small_tokenizer()
    names = {number: token for token, number in tokenizer.ids.items()}
    assert [names[n] for n in tokenizer.encode("road roads")] == ["road</w>", "roa", "d", "s</w>"]
    table = tokenizer.table(["road", "ro"], 4)
    start, end = tokenizer.start, tokenizer.end
    assert table[0].tolist() == [start, tokenizer.ids["road</w>"], end, 0]
    with pytest.raises(ValueError, match="'road road road' has 5 tokens .* of which CLIP reads 4"):
        tokenizer.table(["road road road"], 4)


def test_a_damaged_table_of_merges(tmp_path: Path) -> None:
    file = tmp_path / "bpe.gz"
    for content, says in (
        (b"nothing", "cannot be read"),
        (gzip.compress(b"#\na b\n"), "1 merges|no pair"),
        (gzip.compress(b"#\n" + b"a b\n" * 3 + b"a b c\n" * clip_tokens.MERGES), "line 5 is no"),
        (gzip.compress(b"\xff\xfe"), "cannot be read"),
    ):
        file.write_bytes(content)
        with pytest.raises(ValueError, match=says):
            ClipTokenizer.read(file)


# --- files of CLIP -------------------------------------------------------------------------------


def tower() -> ClipTextTower:
    torch.manual_seed(0)
    made = ClipTextTower(64, 2, 8, 10, 520)
    for parameter in made.parameters():
        nn.init.normal_(parameter, std=0.1)
    return made


def in_layout_of_transformers(state: dict[str, Tensor]) -> dict[str, Tensor]:
    found = {"vision_model.post_layernorm.weight": torch.ones(3), "logit_scale": torch.ones(())}
    found["text_model.embeddings.position_ids"] = torch.arange(10)[None]
    names = {"token_embedding.weight": "text_model.embeddings.token_embedding.weight",
             "positional_embedding": "text_model.embeddings.position_embedding.weight",
             "ln_final.weight": "text_model.final_layer_norm.weight",
             "ln_final.bias": "text_model.final_layer_norm.bias"}  # fmt: skip
    for key, value in state.items():
        key = names.get(key, key)
        key = re.sub(r"transformer\.resblocks\.", "text_model.encoder.layers.", key)
        key = key.replace(".attn.", ".self_attn.").replace("ln_1", "layer_norm1")
        key = key.replace("ln_2", "layer_norm2").replace("c_fc", "fc1").replace("c_proj", "fc2")
        if "in_proj_" in key:
            for part, rows in zip("qkv", value.chunk(3), strict=True):
                found[key.replace("in_proj_", f"{part}_proj.")] = rows.clone()
        elif key == "text_projection":
            found["text_projection.weight"] = value.t().contiguous()
        else:
            found[key] = value
    return found


class Archive(nn.Module):
    """OpenAI's file: an archive of torch.jit.save."""

    def __init__(self, text: nn.Module) -> None:
        super().__init__()
        for name, value in text.named_parameters(recurse=False):
            self.register_parameter(name, value)
        for name, child in text.named_children():
            setattr(self, name, Held(child))
        self.visual = nn.Linear(2, 2)
        self.register_buffer("context_length", torch.tensor(10))

    def forward(self, x: Tensor) -> Tensor:
        return self.visual(x)


class Held(nn.Module):
    """A module of which the parameters alone are kept."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        for name, value in module.named_parameters(recurse=False):
            self.register_parameter(name, value)
        for name, child in module.named_children():
            setattr(self, name, Held(child))

    def forward(self, x: Tensor) -> Tensor:
        return x


@pytest.mark.parametrize("layout", ["openai", "archive", "transformers", "authors"])
def test_every_layout_has_the_same_texts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, layout: str
) -> None:
    monkeypatch.setattr(ClipTokenizer, "read", lambda path: small_tokenizer())
    net, file = tower(), tmp_path / "clip.pt"
    state = dict(net.state_dict())
    if layout == "archive":
        torch.jit.save(torch.jit.script(Archive(net)), file)
    elif layout == "transformers":
        file = tmp_path / "model.safetensors"
        save_file(in_layout_of_transformers(state), file)
    elif layout == "authors":
        inside = {f"decode_head.CLIP_CLS_SEG.clip_model.{k}": v for k, v in state.items()}
        torch.save({"state_dict": inside | {"backbone.x": torch.ones(1)}}, file)
    else:
        torch.save(state | {"visual.proj": torch.ones(2, 2)}, file)
    found = ClipTexts.read(file, tmp_path / "bpe.gz")
    tokens = torch.from_numpy(small_tokenizer().table(["a road"], 10))
    vectors, _ = vectors_of([Concept("r", "road")], found, "a-name")
    torch.testing.assert_close(vectors, F.normalize(net(tokens), dim=1))
    assert re.fullmatch("CLIP text encoder [0-9a-f]{12}", found.space)
    many = small_tokenizer().table(["road", "a road road", "x"], 10)
    every = net(torch.from_numpy(many))
    torch.testing.assert_close(every[:1], net(torch.from_numpy(many[:1])))
    rows = StoredTexts(("road", "ro"), found._encoded(["a road", "a ro"]), VIT_B32, "a-name", "t")
    same = ClipTexts.read(file, tmp_path / "bpe.gz", rows)
    assert same.space == VIT_B32, "texts of a stored table that agree are of its space"
    middle = F.normalize(rows.rows, dim=1).mean(0)
    torch.testing.assert_close(same.mean("a-name"), middle)
    other = StoredTexts(rows.names, -rows.rows, VIT_B32, "a-name", "t")
    assert ClipTexts.read(file, tmp_path / "bpe.gz", other).space == found.space


def test_heads_and_activation_are_those_of_the_file_beside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """open_clip's networks have GELU and heads of any width; a file alone is said to be taken for
    OpenAI's, and vectors of both are of two spaces."""
    monkeypatch.setattr(ClipTokenizer, "read", lambda path: small_tokenizer())
    state, file, config = tower().state_dict(), tmp_path / "clip.pt", tmp_path / "config.json"
    torch.save(dict(state), file)
    with pytest.warns(UserWarning, match=r"clip\.pt does not say its heads and activation: OpenAI"):
        alone = ClipTexts.read(file, tmp_path / "bpe.gz")
    text = {"hidden_act": "gelu", "num_attention_heads": 4, "hidden_size": 64}
    config.write_text(json.dumps({"model_type": "clip", "text_config": text}))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = ClipTexts.read(file, tmp_path / "bpe.gz")
    net = ClipTextTower(64, 2, 8, 10, 520, heads=4, quick=False)
    net.load_state_dict(state)
    tokens = torch.from_numpy(small_tokenizer().table(["a road"], 10))
    torch.testing.assert_close(found._encoded(["a road"]), net(tokens))
    assert found.space == f"{alone.space}, 4 heads, gelu"
    config.write_text(json.dumps({"text_config": text | {"hidden_size": 512}}))
    with pytest.raises(ValueError, match=r"config\.json is of an encoder with 512 channels"):
        ClipTexts.read(file, tmp_path / "bpe.gz")


def test_files_that_are_no_text_encoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ClipTokenizer, "read", lambda path: small_tokenizer())
    good, file = dict(tower().state_dict()), tmp_path / "clip.pt"
    layer = "transformer.resblocks.1."
    cases: list[tuple[dict[str, Tensor], str]] = [
        ({"visual.proj": torch.ones(2)}, "no token_embedding.weight, positional_embedding"),
        ({k: v for k, v in good.items() if k != layer + "ln_1.bias"}, rf"missing: {layer}ln_1\.b"),
        (good | {"surplus.weight": torch.ones(1)}, "unused: surplus.weight"),
        (good | {layer + "attn.in_proj_weight": torch.ones(3, 64)}, r"is \(3, 64\), expected"),
        (good | {"text_projection": torch.ones(32, 8)}, "text_projection 32; they should"),
        (good | {"text_projection": torch.ones(8)}, "where a matrix is expected"),
        ({k.replace("resblocks.1", "resblocks.7"): v for k, v in good.items()}, "not from 0"),
        (good | {"token_embedding.weight": torch.ones(100, 64)}, "has 100 tokens"),
    ]
    for state, says in cases:
        torch.save(state, file)
        with pytest.raises(ValueError, match=says):
            ClipTexts.read(file, tmp_path / "bpe.gz")
