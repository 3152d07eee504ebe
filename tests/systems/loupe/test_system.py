"""Training with every control, the encoder that is left of it, and measures, of tiny networks."""

from __future__ import annotations

import copy
import importlib.util
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from tiny import config, options
from torch import Tensor

from tenfold.systems.loupe import (
    batches,
    data,
    evaluation,
    exported,
    figures,
    pretrained,
    ranking,
    training,
    words,
)
from tenfold.systems.loupe.answer import Asked
from tenfold.systems.loupe.config import Config, Games, Image, Loss, PredictOptions
from tenfold.systems.loupe.games import Sampling, tokens
from tenfold.systems.loupe.model import Networks
from tenfold.systems.loupe.system import Loupe
from tenfold.systems.loupe.towers import normalised
from tenfold.systems.loupe.training import Training
from tenfold.systems.loupe.unsil import Unsil

pytestmark = pytest.mark.usefixtures("generated_only")


@pytest.fixture
def cfg() -> Config:
    return config("loupe", "demo", [*options("loupe"), "--loss.ramp", "0", "0"])


def widened(networks: Networks) -> None:
    """Boxes of some patches instead of one."""
    with torch.no_grad():
        networks.regions.fc2.bias[3:] = 0.5


def trained(cfg: Config, **weights: Any) -> tuple[Training, dict[str, Tensor]]:
    """A training module with its gradients, and the losses of one step."""
    torch.manual_seed(0)
    cfg = replace(cfg, loss=replace(cfg.loss, clear=False, **weights))
    widened(networks := Networks(cfg))
    module = Training(cfg, networks)
    batch = batches.Batches(cfg, data.open_captions(cfg.data, "train"))(0)
    losses = module({**batch, "step": 5})
    losses["loss"].backward()
    return module, losses


# --- losses and their ways -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("weights", "names"),
    [
        ({"token": 0.0, "semantic": 0.0}, set()),
        ({"token": 0.0, "semantic": 0.0, "fine": 1.0}, {"fine"}),
        ({"semantic": 0.0}, {"token", "unsil"}),
        ({}, {"token", "semantic", "unsil"}),
        ({"semantic": 0.0, "target": "difference"}, {"token", "unsil"}),
        ({"semantic": 0.0, "target": "difference", "turned": True}, {"token", "unsil"}),
        ({"form": "softmax", "boxes": "both"}, {"token", "semantic", "unsil", "boxes"}),
    ],
)
def test_every_arm_is_a_configuration(cfg: Config, weights: Any, names: set[str]) -> None:
    module, losses = trained(cfg, **weights)
    found = {key.removeprefix("loss/") for key in losses if key.startswith("loss/")}
    assert found == {"contrastive", *names}
    assert all(bool(torch.isfinite(value)) for value in losses.values())
    assert not [n for n, p in module.named_parameters() if p.grad is None]
    assert ("regions" in dict(module.named_children())) == ("token" in names)


@pytest.mark.parametrize("way", ["soft", "drawn", "both", "none"])
def test_the_ways_of_a_gradient_to_the_boxes(cfg: Config, way: str) -> None:
    module, _ = trained(cfg, boxes=way)
    grad = module.regions.fc2.weight.grad
    assert grad is not None and grad[0].abs().sum() > 0
    centre, size = grad[1:3].abs().sum(), grad[3:].abs().sum()
    assert (centre > 0) == (way in ("soft", "both"))
    assert (size > 0) == (way != "none")


def test_half_precision_leaves_games_in_full(cfg: Config) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        _, losses = trained(cfg)
    assert all(bool(torch.isfinite(value)) for value in losses.values())
    assert losses["games/interaction"].dtype == losses["loss/token"].dtype == torch.float32


def test_the_proxies_come_slowly(cfg: Config) -> None:
    ends = (0.2, 0.4)
    assert [training.ramp(done, ends) for done in (0, 0.2, 0.3, 0.4, 1)] == pytest.approx(
        [0, 0, 0.5, 1, 1]
    )
    assert training.ramp(0.3, (0.3, 0.3)) == 1 and training.ramp(0.2, (0.3, 0.3)) == 0
    module, losses = trained(cfg, ramp=(0.95, 1.0))
    alone, _ = trained(cfg, token=0.0, semantic=0.0)
    for one, other in zip(module.encoder.parameters(), alone.encoder.parameters(), strict=True):
        assert one.grad is not None and other.grad is not None
        torch.testing.assert_close(one.grad, other.grad)
    torch.testing.assert_close(losses["loss"], losses["loss/contrastive"])


def test_a_difference_of_interactions_is_that_of_directions(cfg: Config) -> None:
    module, _ = trained(cfg, target="difference", others=2)
    patches = torch.randn(5, 9, cfg.dim)
    text = torch.randn(5, cfg.dim)
    regions = torch.rand(5, 2, 9) < 0.4
    regions[..., 0] = True
    every = F.normalize(text, dim=1)
    some = torch.stack([every, every.roll(-1, 0), every.roll(-2, 0)], 1)
    plan = Sampling(16)
    each = tokens.interactions(
        patches, some, regions, plan, generator=torch.Generator().manual_seed(3)
    ).value
    torch.manual_seed(3)
    module.cfg = replace(module.cfg, games=Games(how="sampled", samples=16))
    found = module._played(patches, module._texts(text), regions).value
    torch.manual_seed(3)
    again = tokens.interactions(patches, module._texts(text), regions, plan)
    length = module._texts(text)[:, 0].norm(dim=1)[:, None]
    torch.testing.assert_close(found, length * again.value[..., 0])
    torch.manual_seed(3)
    drawn = tokens.interactions(patches, some, regions, plan).value
    torch.testing.assert_close(found, drawn[..., 0] - drawn[..., 1:].mean(2), atol=1e-6, rtol=0)
    assert each.shape == (5, 2, 3)


def test_lone_patches_have_no_label(cfg: Config) -> None:
    module, losses = trained(cfg)
    assert losses["games/counted"] > 0 and losses["loss/token"] > 0
    with torch.no_grad():
        module.regions.fc2.bias[3:] = -6.0
    batch = batches.Batches(cfg, data.open_captions(cfg.data, "train"))(0)
    losses = module({**batch, "step": 5})
    assert losses["games/size"] == 1 and losses["games/counted"] == losses["loss/token"] == 0


def test_interactions_under_equal_texts_leave_nothing_to_learn(cfg: Config) -> None:
    module, _ = trained(cfg, target="difference")
    text = torch.ones(4, cfg.dim)
    assert module._texts(text).abs().max() < 1e-6


def test_settings_that_do_not_fit_are_refused(cfg: Config) -> None:
    with pytest.raises(ValueError, match="up to 16 patches, a picture has 25"):
        replace(cfg, image=replace(cfg.image, size=40), games=Games(how="exact"))
    with pytest.raises(ValueError, match=r"target difference is for --games\.score global"):
        replace(cfg, loss=Loss(target="difference"), games=Games(score="contrast"))
    with pytest.raises(ValueError, match=r"--image\.size 100 is no multiple of 32"):
        Image(size=100)
    with pytest.raises(ValueError, match="a vit has one stage"):
        Image(tower="vit")
    with pytest.raises(ValueError, match=r"--loss\.ramp must rise"):
        Loss(ramp=(0.5, 0.2))


# --- the encoder ---------------------------------------------------------------------------------


def vectors(encoder: torch.nn.Module, system: Loupe) -> tuple[Tensor, Tensor]:
    with torch.no_grad():
        found: tuple[Tensor, Tensor] = encoder(*system.export().inputs)
    return found


def test_proxies_never_change_the_encoder(cfg: Config) -> None:
    system = Loupe(cfg)
    encoder = system.model.encoder.eval()
    before = vectors(encoder, system)
    module = Training(cfg, system.model).eval()
    assert isinstance(module.unsil, Unsil)
    for name, parameter in module.named_parameters():
        if not name.startswith("encoder."):
            torch.nn.init.normal_(parameter)
    exported_one = system.export().module.eval()
    assert not [key for key in exported_one.state_dict() if "regions" in key or "unsil" in key]
    del system.model.regions
    for one in (encoder, exported_one):
        assert all(torch.equal(a, b) for a, b in zip(vectors(one, system), before, strict=True))


def plain_vit(state: dict[str, Tensor], images: Tensor, heads: int) -> Tensor:
    """A picture's vector as open_clip computes it from a file of its layout, mean over patches."""
    patch = state["visual.conv1.weight"].shape[2]
    x = F.conv2d(images, state["visual.conv1.weight"], stride=patch).flatten(2).mT
    first = state["visual.class_embedding"].expand(len(x), 1, -1)
    x = torch.cat([first, x], 1) + state["visual.positional_embedding"]
    wide = x.shape[2]

    def norm(x: Tensor, key: str) -> Tensor:
        return F.layer_norm(x, (wide,), state[f"{key}.weight"], state[f"{key}.bias"], 1e-6)

    for number in range(sum(key.endswith("attn.in_proj_weight") for key in state)):
        block = f"visual.transformer.resblocks.{number}"
        y = norm(x, f"{block}.ln_1").transpose(0, 1)
        y, _ = F.multi_head_attention_forward(
            y, y, y, wide, heads, state[f"{block}.attn.in_proj_weight"],
            state[f"{block}.attn.in_proj_bias"], None, None, False, 0.0,
            state[f"{block}.attn.out_proj.weight"], state[f"{block}.attn.out_proj.bias"],
        )  # fmt: skip
        x = x + y.transpose(0, 1)
        y = norm(x, f"{block}.ln_2")
        for layer in ("c_fc", "c_proj"):
            key = f"{block}.mlp.{layer}"
            y = F.linear(y, state[f"{key}.weight"], state[f"{key}.bias"])
            y = F.gelu(y) if layer == "c_fc" else y
        x = x + y
    x = norm(x, "visual.ln_post")[:, 1:].mean(1) @ state["visual.proj"]
    return F.normalize(x, dim=1)


def test_a_vit_is_written_as_open_clip_reads_it(cfg: Config, tmp_path: Path) -> None:
    system = Loupe(cfg)
    torch.nn.init.normal_(system.model.encoder.image.patch_embed.proj.bias)
    torch.nn.init.normal_(system.model.encoder.image.cls_token)
    files = {file.name: file for file in system.export_official(tmp_path / "vit")}
    state = load_file(files["open_clip_model.safetensors"])
    images = system.export().inputs[0]
    want = vectors(system.model.encoder.eval(), system)[0]
    torch.testing.assert_close(plain_vit(state, images, cfg.image.heads[0]), want)
    assert {key.split(".")[0] for key in state} == {"visual", "text", "logit_scale"}
    assert torch.equal(state["text.proj.weight"], system.model.encoder.text_projection.weight)
    assert not (tmp_path / "vit/text/vocab.txt").exists(), "by it BERT would split words"
    pieces = replace(cfg, text=replace(cfg.text, tokens="pieces"))
    exported.write(system.model.encoder, pieces, tmp_path / "pieces")
    assert (tmp_path / "pieces/text/vocab.txt").read_text() == cfg.text.vocabulary + "\n"


def test_words_are_split_by_others_as_by_us(cfg: Config, tmp_path: Path) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    words_of_it = ["t-shirt", "dog's", "caf", "é", "a", "red", "-", "don't", "'", "3", "d", "!"]
    text = replace(cfg.text, vocabulary="\n".join([*words.SPECIAL, *words_of_it]))
    exported.write(Loupe(cfg).model.encoder, replace(cfg, text=text), tmp_path / "vit")
    theirs = tokenizers.Tokenizer.from_file(str(tmp_path / "vit/text/tokenizer.json"))
    own = words.Vocabulary("words", text.vocabulary, 64)
    for caption in ("A red T-shirt!", "The dog's café, don't -- 3D", "CAFÉ\tred\u00a0\n 33", ""):
        assert theirs.encode(caption).ids == list(own.encode(caption).numbers), caption
    said = json.loads((tmp_path / "vit/text/tokenizer_config.json").read_text())
    assert said["tokenizer_class"] == "PreTrainedTokenizerFast" and said["pad_token"] == words.PAD


def with_towers(cfg: Config) -> Config:
    return replace(
        cfg,
        image=Image(size=32, patch=4, dim=8, depths=(1, 1), heads=(1, 2), window=2, ratio=2.0),
        text=replace(cfg.text, vector="pooler"),
    )


def test_swin_and_bert_go_out_and_come_back(cfg: Config, tmp_path: Path) -> None:
    cfg = with_towers(cfg)
    system = Loupe(cfg)
    files = system.export_official(tmp_path / "dual")
    state = load_file(files[0])
    for side in ("vision_model", "text_model"):
        own = {k.removeprefix(f"{side}."): v for k, v in state.items() if k.startswith(side)}
        (tmp_path / side).mkdir()
        save_file(own, tmp_path / side / "model.safetensors")
    # heads of fewer channels than 64, which nothing else says
    described = json.loads((tmp_path / "dual/config.json").read_text())["text_config"]
    (tmp_path / "text_model/config.json").write_text(json.dumps(described))
    torch.manual_seed(9)
    given = replace(
        cfg, image=replace(cfg.image, dim=64, weights=str(tmp_path / "vision_model")),
        text=replace(cfg.text, depth=3, weights=str(tmp_path / "text_model")),
    )  # fmt: skip
    sized = pretrained.sized(given)
    assert sized.image.dim == 8 and sized.image.heads == (1, 2) and sized.text.depth == 1
    assert sized.text.heads == cfg.text.heads == 2
    networks = Networks(sized)
    assert "tensors" in pretrained.begin(networks, sized)
    images, numbers, is_token = Loupe(cfg).export().inputs
    with torch.no_grad():
        for one in (networks, system.model):
            one.encoder.load_state_dict(
                {k: v for k, v in system.model.encoder.state_dict().items() if "projection" in k},
                strict=False,
            )
            one.eval()
        a, b = (one.encoder(images, numbers, is_token) for one in (networks, system.model))
    assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))
    broken = {k: v for k, v in state.items() if k.startswith("text_model")}
    broken = {k.removeprefix("text_model."): v for k, v in broken.items()}
    broken["encoder.layer.0.mystery"] = torch.zeros(1)
    save_file(broken, tmp_path / "text_model" / "model.safetensors")
    with pytest.raises(ValueError, match=r"unused: encoder\.layer\.0\.mystery"):
        pretrained.begin(networks, sized)
    bare = Loupe(replace(cfg, text=replace(cfg.text, vector="first")))
    with pytest.raises(ValueError, match=r"has not \(--text\.vector pooler\)"):
        bare.export_official(tmp_path / "bare")
    assert not exported._fourth("layernorm.weight").startswith("attention")


# --- texts ---------------------------------------------------------------------------------------


def vocabulary(most: int = 6) -> words.Vocabulary:
    return words.Vocabulary("words", "\n".join([*words.SPECIAL, "a", "red", "cat"]), most)


def test_words_have_places_and_padding_is_none() -> None:
    own = vocabulary()
    one, cut, empty = (own.encode(text) for text in ("A red cat!", "a a a a a a a", ""))
    assert one.numbers == (1, 4, 5, 6, 3, 2) and one.places[2] == (2, 5)
    assert cut.numbers == (1, 4, 4, 4, 4, 2)
    batch = own.batch([one, cut, empty])
    assert batch["is_token"].sum(1).tolist() == [6, 6, 2]
    assert batch["is_word"].tolist()[2] == [True] + 5 * [False]
    assert batches.places_of(data.Span(2, 9), one) == (2, 3)
    assert batches.places_of(data.Span(9, 10), one) == (4,)


def test_word_pieces_are_those_of_the_file(tmp_path: Path) -> None:
    file = tmp_path / "vocab.txt"
    file.write_text("\n".join([*words.SPECIAL, "ca", "##t", "red"]) + "\n")
    own = words.Vocabulary("pieces", words.read_pieces(file), 8)
    found = own.encode("Red cat")
    assert found.numbers == (1, 6, 4, 5, 2) and found.places[2:4] == ((4, 6), (6, 7))
    odd = [*words.SPECIAL, "\u2028", "\x85", "red"]  # ends of lines for Python, tokens for BERT
    file.write_bytes("\r\n".join([*odd, ""]).encode())
    assert words.read_pieces(file).split("\n") == odd
    file.write_text("a\nb\n")
    with pytest.raises(ValueError, match=r"vocab\.txt is no vocabulary of BERT: .*\[PAD\]"):
        words.read_pieces(file)
    file.write_bytes(b"\xff\xfe\n")
    with pytest.raises(ValueError, match=r"no text in UTF-8 \(byte 0\)"):
        words.read_pieces(file)
    with pytest.raises(ValueError, match="has one twice"):
        words.Vocabulary("words", "\n".join([*words.SPECIAL, "a", "a"]), 8)


def test_a_text_without_a_known_word_is_refused(cfg: Config) -> None:
    asked = Asked(Networks(cfg), cfg)
    with pytest.raises(ValueError, match="'xyzzy quux' has no word of the training captions"):
        asked.text("xyzzy quux")
    *_, members, names = asked.text("of")
    assert names == ["of"] and members.any()


@pytest.mark.parametrize("absent", ["tokens", "grey"])
def test_all_parts_are_the_whole(cfg: Config, absent: str) -> None:
    system = Loupe(cfg)
    parted = system.dual_encoder(absent)
    found = data.open_captions(cfg.data, "test")
    picture, text = found.picture(0), "a red ring, and a blue star"
    photo, sentence = parted.picture(picture), parted.sentence(text)
    assert photo.grid == (4, 4)
    assert sentence.words == ("a", "red", "ring,", "and", "a", "blue", "star")
    masks = torch.tensor([[True] * 16, [True] + [False] * 15, [False] * 16])
    images = photo.encode(masks)
    seen = normalised(batches.as_tensor(picture, cfg.image.size)[None])
    with torch.no_grad():
        whole = system.model.encoder.image_vectors(seen)[0]
    torch.testing.assert_close(F.normalize(images[0], dim=0), whole)
    assert not torch.equal(images[0], images[1]) and bool(torch.isfinite(images).all())
    texts = sentence.encode(torch.tensor([[True] * 7, [False] * 3 + [True] * 4, [False] * 7]))
    one = batches.vocabulary_of(cfg)
    batch = one.batch([one.encode(text)])
    with torch.no_grad():
        whole = system.model.encoder.text_tokens(batch["words"], batch["is_token"])[0][0]
    torch.testing.assert_close(texts[0], whole)
    assert not torch.allclose(texts[1], whole) and bool(torch.isfinite(texts).all())
    with pytest.raises(ValueError, match="has no word"):
        parted.sentence("  ")
    with pytest.raises(ValueError, match="more tokens than the 22 that this run takes"):
        parted.sentence("star " * 40)
    with pytest.raises(ValueError, match="tokens or grey, not 'removed'"):
        system.dual_encoder("removed")


def test_pictures_are_asked_with_a_text(cfg: Config, tmp_path: Path) -> None:
    found = data.open_captions(cfg.data, "test")
    folder = tmp_path / "photos"
    folder.mkdir()
    PIL.Image.fromarray(found.picture(0)[:60]).save(folder / "one.png")
    (folder / "two.png").write_bytes(b"no picture")
    caption = PredictOptions("a red ring and a blue star", regions=2, samples=8)
    files = Loupe(cfg).predict(folder, tmp_path / "out", caption)
    assert [file.name for file in files] == [
        "one.png-regions.png", "one.png-phrases.png", "one.png-answer.json", "predictions.csv",
        "predictions.html",
    ]  # fmt: skip
    answer = json.loads(files[2].read_text())
    assert [one["text"] for one in answer["phrases"]] == ["a red ring", "a blue star"]
    assert len(answer["regions"]) <= 2 and (answer["width"], answer["height"]) == (112, 60)
    for one in (*answer["regions"], *answer["phrases"]):
        x0, y0, x1, y1 = one["box"]
        assert 0 <= x0 <= x1 <= 112 and 0 <= y0 <= y1 <= 60
    rows = files[3].read_text().splitlines()
    assert rows[0].startswith("file,text,what,name") and "two.png" in rows[-1]
    with pytest.raises(ValueError, match="two.png"):
        Loupe(cfg).predict(folder / "two.png", tmp_path / "lone", caption)
    with pytest.raises(ValueError, match="--samples must be even"):
        PredictOptions(samples=7)


def test_what_is_cut_off_a_caption_is_not_answered(cfg: Config, tmp_path: Path) -> None:
    picture = data.open_captions(cfg.data, "test").picture(0)
    long = f"a red ring {'and ' * 30}a blue star"
    answer = Asked(Networks(cfg), cfg, samples=8).answer(picture, long, 2)
    assert [one.text for one in answer.phrases] == ["a red ring"]
    PIL.Image.fromarray(picture).save(tmp_path / "one.png")
    with pytest.raises(ValueError, match="more tokens than the 22 that this run takes; shorten"):
        Loupe(cfg).predict(tmp_path / "one.png", tmp_path / "out", PredictOptions(long))


class Strange(data.Generated):
    """Some captions have no word of the training's."""

    def pair(self, index: int) -> Any:
        one = super().pair(index)
        return one if index == self.count - 1 else data.Pair(None, "xyzzy quux", (), one.key)


@pytest.mark.parametrize("count", [1, 4])
def test_test_captions_without_a_known_word_are_not_drawn(
    cfg: Config, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, count: int
) -> None:
    networks = Networks(cfg)
    monkeypatch.setattr(data, "open_captions", lambda *_: Strange("test", count))
    assert [file.name for file in figures.draw_figures(networks, cfg, {}, tmp_path)] == [
        "phrases.png"
    ]
    monkeypatch.setattr(Strange, "pair", lambda *_: data.Pair(None, "xyzzy quux", (), "a"))
    assert not figures.draw_figures(networks, cfg, {}, tmp_path)


def test_without_a_text_a_picture_is_asked_for_known_names(cfg: Config, tmp_path: Path) -> None:
    found = data.open_captions(cfg.data, "test")
    PIL.Image.fromarray(found.picture(0)).save(tmp_path / "one.png")
    foreign = "\n".join([*words.SPECIAL, "ein", "hund"])
    cfg = replace(
        cfg, text=replace(cfg.text, vocabulary=foreign),
        data=replace(cfg.data, classes="xyzzy\nhund\nquux"),
    )  # fmt: skip
    options = PredictOptions(samples=8)
    files = Loupe(cfg).predict(tmp_path / "one.png", tmp_path / "out", options)
    (answer,) = (file for file in files if file.name.endswith("answer.json"))
    assert json.loads(answer.read_text())["text"] == "a hund"
    for classes in ("xyzzy\nquux", ""):
        cfg = replace(cfg, data=replace(cfg.data, classes=classes))
        with pytest.raises(ValueError, match="say what is sought with --caption"):
            Loupe(cfg).predict(tmp_path / "one.png", tmp_path / "none", options)


# --- measures ------------------------------------------------------------------------------------


def test_another_window_has_as_many_patches() -> None:
    own = torch.zeros(7, 7, dtype=torch.bool)
    own[1:3, 2:5] = True
    draw = torch.Generator().manual_seed(0)
    for _ in range(20):
        other = ranking.elsewhere(own, draw)
        assert other is not None and other.sum() == 6 and (own & other).sum() <= 3
    assert ranking.elsewhere(torch.ones(7, 7, dtype=torch.bool), draw) is None


def test_equal_interactions_are_half_won() -> None:
    parts = [ranking.Ranked({"right": np.array([[1.0, 0.0], [2.0, 2.0], [0.0, 1.0], [3.0, 1.0]])})]
    assert ranking.summary(parts)["ranking/right/AUC"] == 62.5


class Doubled(data.Generated):
    """Each picture with two captions."""

    @property
    def owners(self) -> Any:
        return np.arange(self.count, dtype=np.int64) // 2

    def picture(self, index: int) -> Any:
        return super().picture(index // 2 * 2)


def test_all_captions_of_a_picture_count(cfg: Config) -> None:
    networks = Networks(cfg).eval()
    found = Doubled("test", 8)
    parts = evaluation.of_split(networks, cfg, found, "test")
    metrics, chance = evaluation.together(parts, found, cfg, [0, 1], "test")
    assert chance["retrieval/i2t/R@1"] == chance["retrieval/t2i/R@1"] == 25
    assert chance["retrieval/t2i/R@5"] == chance["retrieval/i2t/R@10"] == 100  # of 4 and of 8
    # of 8 captions, 2 of them its own, 5 are seen: 1 - C(6, 5) / C(8, 5)
    assert chance["retrieval/i2t/R@5"] == pytest.approx(100 * (1 - 6 / 56))
    assert evaluation.luck(np.array([1, 1, 1, 1]), 3) == pytest.approx(0.75)
    images = np.concatenate([part.images for part in parts])
    assert (images[0] == images[1]).all() and (images[0] != images[2]).any()
    assert {f"grounding/{way}/acc@0.3" for way in evaluation.WAYS} <= set(metrics)
    assert metrics["ranking/fine_zero/positive"] == 0  # it is submodular
    again = evaluation.together(
        evaluation.of_split(networks, cfg, found, "test"), found, cfg, [0, 1], "test"
    )
    assert again == (metrics, chance)


class Renumbered(data.Generated):
    """The same objects, whose classes are numbered from behind."""

    def objects(self, index: int) -> Any:
        one = super().objects(index)
        return replace(one, labels=len(self.names) - 1 - one.labels)


def test_frequent_names_are_the_same_in_a_test_that_numbers_them_otherwise(
    cfg: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A test table of one's own has the classes that occur in it, as they come."""
    monkeypatch.setattr(evaluation, "FREQUENT", 3)
    often, asked = evaluation.frequent(cfg), []

    def together(_: Any, found: Any, cfg: Config, known: list[int], name: str) -> Any:
        asked.append((known, {found.names[label] for label in known}))
        return {}, {}

    monkeypatch.setattr(evaluation, "together", together)
    tests = (data.Generated("test", 2), Renumbered("test", 2, names=data.Generated.names[::-1]))
    for test in tests:
        opened = {"train": data.Generated("train", 24), "test": test}
        monkeypatch.setattr(data, "open_captions", lambda _, name, opened=opened: opened[name])
        evaluation.evaluate(Networks(cfg), cfg, "test")
    assert len(often) == 3 and [names for _, names in asked] == [often, often]
    assert asked[0][0] != asked[1][0]


def test_a_region_module_that_learned_is_not_the_untrained_one(cfg: Config) -> None:
    networks = Networks(cfg).eval()
    fresh = evaluation.untrained(networks, cfg)
    state = copy.deepcopy(torch.get_rng_state())
    again = evaluation.untrained(networks, cfg)
    assert torch.equal(state, torch.get_rng_state())
    assert all(
        torch.equal(a, b) for a, b in zip(fresh.parameters(), again.parameters(), strict=True)
    )


def test_a_test_of_two_parts(cfg: Config, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(data, "splits", lambda _: ("train", "validation", "testA", "testB"))
    opened: list[str] = []

    def generated(_: Any, split: str) -> data.Generated:
        assert split in data.splits(cfg.data)  # as a set on disk refuses others
        opened.append(split)
        return data.Generated(split, 4)

    monkeypatch.setattr(data, "open_captions", generated)
    system = Loupe(cfg)
    found = system.evaluate("test")
    opened.clear()
    assert len(system.pictures(found, tmp_path)) == 2 and opened == ["testA"]
    assert "the test is testA" in found.notes
    assert {"retrieval/both/rsum", "retrieval testB/both/rsum"} <= set(found.metrics)
    assert Loupe.better["retrieval testB"] == "higher"
    with pytest.raises(ValueError, match="unknown split 'test_z'; known: validation, testA, testB"):
        Loupe(cfg).evaluate("test_z")


def test_the_predictor_is_compared_with_sampling(
    cfg: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = Path(__file__).parents[3] / "claims/loupe_unsil.py"
    spec = importlib.util.spec_from_file_location("loupe_unsil", file)
    assert spec is not None and spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "loupe_unsil", script)
    spec.loader.exec_module(script)
    monkeypatch.setattr(script, "TRUTH", Sampling(256))
    system = Loupe(cfg)
    widened(system.model)
    rows = script.compared(system, 8, 3)
    ways = ["sampling, masks", "sampling, closed form", "UNSIL"]
    assert [row[1] for row in rows] == 2 * ways
    errors = {tuple(row[:2]): row[3] for row in rows}
    for name in script.SCORES:
        assert errors[name, "sampling, closed form"] < errors[name, "UNSIL"]
        assert errors[name, "sampling, masks"] < errors[name, "UNSIL"]
    assert "| cosine | UNSIL |" in script.page(
        {"rows": rows, "pairs": 8, "steps": 3, "regions": 3, "data": "shapes", "run": "r",
         "command": "",
         "environment": dict.fromkeys(("date", "commit", "cpu", "torch"), "")}
    )  # fmt: skip
