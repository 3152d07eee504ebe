"""Dual encoders of CLIP's kind: equal to transformers', in every layout, written and read again."""

from __future__ import annotations

import json
from dataclasses import replace
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from clip_files import HEADS, TEXT, VISION, clip, pictures
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tenfold.nn.clip_text import ClipTextTower
from tenfold.nn.clip_vision import ClipVisionTower
from tenfold.weights.clip import Activation, ClipFile, ClipSettings, read_clip, settings_beside
from tenfold.weights.clip_export import official_names, transformers_names, write_clip

STORED = json.loads((Path(__file__).parent / "clip.json").read_text())
"""Vectors of the same weights by transformers' CLIPModel and by open_clip."""
SETTINGS = ClipSettings(HEADS, "gelu", (0.4, 0.5, 0.6), (0.1, 0.2, 0.3), "squash", assumed=False)


def towers(found: ClipFile) -> tuple[ClipVisionTower, ClipTextTower]:
    """Both encoders in double precision."""
    quick, (of_vision, of_text) = found.settings.activation == "quick_gelu", found.settings.heads
    v, t = found.vision, found.text
    visual = ClipVisionTower(v.width, v.layers, v.output_dim, v.patch_size, v.grid, of_vision,
                             v.hidden, quick)  # fmt: skip
    text = ClipTextTower(t.width, t.layers, t.dim, t.context, t.vocabulary, of_text, t.hidden,
                         quick)  # fmt: skip
    for prefix, tower in (("visual.", visual), ("text.", text)):
        own = {k.removeprefix(prefix): v for k, v in found.state.items() if k.startswith(prefix)}
        tower.load_state_dict(own)
    return visual.double(), text.double()


def near(found: Tensor, stored: list[list[float]]) -> None:
    torch.testing.assert_close(found, torch.tensor(stored).double(), rtol=0, atol=1e-6)


@pytest.mark.parametrize("activation", ["quick_gelu", "gelu"])
def test_vectors_are_those_of_transformers(activation: Activation) -> None:
    visual, text = towers(clip(settings=ClipSettings(HEADS, activation)))
    want, ids = STORED[activation], torch.tensor(STORED["ids"])
    near(visual(pictures().double()), want["pictures"])
    near(text(ids), want["texts"])
    patches = visual.patches(pictures()[:1].double())
    masks = torch.tensor(STORED["patch_masks"]).bool()
    near(visual.encode(patches * masks[..., None]), want["grey"])
    words = torch.tensor(STORED["word_masks"]).bool()
    ends = words.new_ones(len(words), 1)
    kept = torch.cat([ends, words, ends], 1)
    near(text(ids[:1, :5].expand(3, -1), kept), want["words"])
    # what is removed is attended to by none
    some = visual.encode_some(patches[0], masks)
    near(visual.encode(patches.expand(3, -1, -1), masks), some.tolist())
    near(some[2:], visual.encode_some(patches[0], masks[2:]).tolist())


@pytest.mark.parametrize("layout", ["open_clip", "transformers"])
def test_what_is_written_is_read(tmp_path: Path, layout: str) -> None:
    made = clip(settings=SETTINGS)
    files = write_clip(tmp_path, made, layout)  # type: ignore[arg-type]
    assert {file.name for file in tmp_path.iterdir()} == {file.name for file in files}
    found = read_clip(tmp_path)
    assert (found.vision, found.text, found.settings) == (VISION, TEXT, SETTINGS)
    assert found.state.keys() == made.state.keys()
    assert all(torch.equal(found.state[key], value) for key, value in made.state.items())
    if layout == "transformers" and find_spec("transformers"):
        theirs = import_module("transformers").CLIPModel.from_pretrained(tmp_path)
        assert load_file(files[0]).keys() <= theirs.state_dict().keys()
        ids, visual = torch.tensor(STORED["ids"]), towers(made)[0]
        with torch.no_grad():
            want = theirs.double()(input_ids=ids, pixel_values=pictures().double()).image_embeds
        near(nn.functional.normalize(visual(pictures().double()), dim=1), want.tolist())
    again = tmp_path / "again"
    write_clip(again, found, layout)  # type: ignore[arg-type]
    for file in files:
        assert (again / file.name).read_bytes() == file.read_bytes(), file.name
    assert read_clip(files[0]).settings == SETTINGS, "JSON beside a file is read"
    alone = tmp_path / "alone" / files[0].name
    alone.parent.mkdir()
    alone.write_bytes(files[0].read_bytes())
    assert read_clip(alone).settings == ClipSettings(), "a file alone says nothing"
    (alone.parent / "config.json").write_text(json.dumps({"model": {"width": 3}}))
    assert read_clip(alone).settings == ClipSettings(), "nor does a file of something else"
    with pytest.raises(ValueError, match=r"1 tensors do not fit.*logit_scale is \(1,\), expected"):
        write_clip(again, replace(made, state=made.state | {"logit_scale": torch.ones(1)}), layout)  # type: ignore[arg-type]


class Bag(nn.Module):
    """Modules and parameters under given names, as a TorchScript archive keeps them."""

    def __init__(self, state: dict[str, Tensor]) -> None:
        super().__init__()
        for name in {key.split(".")[0] for key in state}:
            below = {k.partition(".")[2]: v for k, v in state.items() if k.split(".")[0] == name}
            if "" in below:
                self.register_parameter(name, nn.Parameter(below[""], requires_grad=False))
            else:
                self.add_module(name, Bag(below))

    def forward(self) -> int:
        return 0


def test_files_of_others(tmp_path: Path) -> None:
    made = clip()
    official = official_names(made.state)
    sizes = {"input_resolution": torch.tensor(24), "context_length": torch.tensor(16)}
    torch.jit.save(torch.jit.script(Bag(official | sizes)), tmp_path / "jit.pt")
    torch.save({"state_dict": {f"module.{k}": v.half() for k, v in official.items()}},
               tmp_path / "state.pt")  # fmt: skip
    custom = {k if k.startswith("visual.") or k == "logit_scale" else f"text.{k}": v
              for k, v in official.items()}  # fmt: skip
    save_file(custom, tmp_path / "custom.safetensors")  # open_clip's CustomTextCLIP
    places = {"text_model.embeddings.position_ids": torch.arange(16)[None]}
    save_file(transformers_names(made.state) | places, tmp_path / "hf.safetensors")
    for name, limit in (("jit.pt", 0.0), ("state.pt", 2e-3), ("custom.safetensors", 0.0),
                        ("hf.safetensors", 0.0)):  # fmt: skip
        found = read_clip(tmp_path / name)
        assert (found.vision, found.text) == (VISION, TEXT), name
        for key, value in made.state.items():
            torch.testing.assert_close(found.state[key], value, rtol=limit, atol=limit)


def test_what_does_not_fit_is_named(tmp_path: Path) -> None:
    made = clip()
    good, file = official_names(made.state), tmp_path / "x.safetensors"

    def says(change: dict[str, Tensor | None]) -> str:
        save_file({k: v for k, v in (good | change).items() if v is not None}, file)
        with pytest.raises(ValueError) as error:
            read_clip(file)
        return str(error.value)

    no_text = dict.fromkeys(k for k in good if not k.startswith("visual"))
    assert "no token_embedding.weight, positional_embedding, text_projection" in says(no_text)
    assert "no class_embedding" in says(dict.fromkeys(k for k in good if k.startswith("visual")))
    assert "vectors of 16 numbers, its texts of 15" in says({"text_projection": torch.ones(24, 15)})
    left = says({"visual.attnpool.weight": torch.ones(2), "head": torch.ones(1),
                 "ln_final.bias": None})  # fmt: skip
    for key in ("unused: visual.attnpool.weight", "unused: head", "missing: text.ln_final.bias"):
        assert key in left
    assert "ln_final.weight is (3,), expected (24,)" in says({"ln_final.weight": torch.ones(3)})
    assert "not finite" in says({"ln_final.bias": torch.full((24,), torch.inf)})
    with pytest.raises(FileNotFoundError, match="holds no weights of a CLIP"):
        read_clip(tmp_path)
    with pytest.raises(FileNotFoundError, match="no file"):
        read_clip(tmp_path / "not-there.pt")


@pytest.mark.parametrize(
    ("layout", "name", "field", "value", "message"),
    [
        ("transformers", "config.json", "vision_config.hidden_act", "relu", "hidden_act is 'relu'"),
        ("transformers", "config.json", "text_config.hidden_act", "gelu", "two activations"),
        ("transformers", "config.json", "text_config.num_attention_heads", 7, "7 heads cannot"),
        ("transformers", "config.json", "text_config.layer_norm_eps", 1e-6, "layer_norm_eps is"),
        ("transformers", "config.json", "text_config", [], "text_config must be an object"),
        ("transformers", "config.json", "vision_config.hidden_size", 48, "with 48 channels, and"),
        ("open_clip", "open_clip_config.json", "model_cfg.text_cfg.width", 512, "has 24; give the"),
        ("transformers", "preprocessor_config.json", "image_mean", [1.0], "are 3 numbers"),
        ("open_clip", "open_clip_config.json", "preprocess_cfg.resize_mode", "longest", "longest"),
        ("open_clip", "open_clip_config.json", "model_cfg.vision_cfg.head_width", 0, "one head"),
        (
            "open_clip",
            "open_clip_config.json",
            "model_cfg.vision_cfg.head_width",
            5,
            "heads cannot",
        ),
    ],
)
def test_settings_that_are_not_read(
    tmp_path: Path, layout: str, name: str, field: str, value: object, message: str
) -> None:
    write_clip(tmp_path, clip(), layout)  # type: ignore[arg-type]
    said = json.loads((tmp_path / name).read_text())
    inner, *names = said, *field.split(".")
    for part in names[:-1]:
        inner = inner[part]
    inner[names[-1]] = value
    (tmp_path / name).write_text(json.dumps(said))
    with pytest.raises(ValueError, match=message):
        read_clip(tmp_path)


def test_one_encoder_alone_has_its_own_settings(tmp_path: Path) -> None:
    """As transformers' CLIPTextModelWithProjection and CLIPVisionModelWithProjection say them."""
    file, config = tmp_path / "model.safetensors", tmp_path / "config.json"
    tower = {"hidden_act": "gelu", "num_attention_heads": 3, "hidden_size": 24}
    config.write_text(json.dumps({"model_type": "clip_text_model", **tower}))
    found = settings_beside(file, text=24)
    assert (found.heads, found.activation, found.assumed) == ((0, 3), "gelu", False)
    assert settings_beside(file, image=24).assumed, "it says nothing of the other one"
    config.write_text(json.dumps({"model_type": "clip_vision_model", **tower}))
    assert settings_beside(file, image=24).heads == (3, 0)


@pytest.mark.parametrize(
    ("size", "resize"),
    [
        ({"height": 24, "width": 24}, "squash"),
        ({"shortest_edge": 24}, "shorter"),
        (24, "shorter"),
    ],
)
def test_both_sides_are_resized_whether_the_middle_is_cut_out_or_not(
    tmp_path: Path, size: object, resize: str
) -> None:
    """As transformers' CLIPImageProcessor, which cuts by default."""
    write_clip(tmp_path, clip(), "transformers")
    file = tmp_path / "preprocessor_config.json"
    said = json.loads(file.read_text())
    for cut in ({"do_center_crop": True}, {}):
        plain = {key: value for key, value in said.items() if key != "do_center_crop"}
        file.write_text(json.dumps({**plain, **cut, "size": size}))
        assert read_clip(tmp_path).settings.resize == resize
