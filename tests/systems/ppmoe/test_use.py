"""PPMoE in use: text is continued as the model says, and pages show what it did."""

from __future__ import annotations

import csv
import itertools
import os
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from tenfold.core.seed import generator
from tenfold.data.text.tokens import BpeTokenizer, ByteTokenizer, TokenWindows
from tenfold.systems.ppmoe import figures, predict, routing_load
from tenfold.systems.ppmoe.config import Layout, Model, PredictOptions
from tenfold.systems.ppmoe.generate import pick, stream, text_of
from tenfold.systems.ppmoe.model import Gpt
from tenfold.systems.ppmoe.parallel import Grid
from tenfold.systems.ppmoe.parts import Owners, initialise
from tenfold.systems.ppmoe.routing_page import VISIBLE, routing_page
from tenfold.viz.predictions import Trained, output_name

SEQ = 16


def tiny(**fields: object) -> Gpt:
    cfg = Model(
        **{  # type: ignore[arg-type]
            "layers": 2, "hidden": 16, "heads": 2, "seq": SEQ, "vocab": 256, "experts": 4, **fields
        }
    )  # fmt: skip
    model = Gpt(cfg)
    initialise(model, cfg, 3, Owners(Layout(), Grid()))
    with torch.no_grad():
        for p in model.parameters():  # enough for the tokens before to matter
            p.mul_(6.0)
    return model


def ids(text: str | bytes) -> Tensor:
    raw = text.encode() if isinstance(text, str) else text
    return torch.tensor(list(raw), dtype=torch.int64)


def continued(model: Gpt, prompt: Tensor, sample: int = 0, **fields: object) -> list[int]:
    return list(stream(model, prompt, PredictOptions(**fields), sample))  # type: ignore[arg-type]


@torch.no_grad()
def slowly(model: Gpt, prompt: Tensor, count: int) -> list[int]:
    """Greedy without a cache: the whole window is read for every token."""
    seq = model.cfg.seq
    window, found = prompt[-max(seq - 1, 1) :].tolist(), []
    for _ in range(count):
        full = len(window) == seq
        found.append(int(model(torch.tensor([window]))[0, -1].argmax()))
        window.append(found[-1])
        if full:
            window = window[-max(seq // 2, 1) :]
    return found


MODELS = {
    "learned": {},
    "rotary": {"positions": "rotary"},
    "top-2": {"top_k": 2, "norm_topk": True},
    "dense": {"kind": "dense"},
    "untied": {"tied": False},
}


@pytest.mark.parametrize("fields", MODELS.values(), ids=MODELS)
@pytest.mark.parametrize("length", [1, 5, SEQ - 1, SEQ, 3 * SEQ])
def test_greedy_with_a_cache_is_greedy_without(fields: dict, length: int) -> None:
    model = tiny(**fields).double().train()  # near ties must not decide
    prompt = torch.randint(256, (length,), generator=generator("prompt"))
    found = continued(model, prompt, tokens=3 * SEQ, temperature=0.0)
    assert not model.training
    assert found == slowly(model, prompt, 3 * SEQ)
    assert len(set(found)) > 2  # not a model that says one thing


@pytest.mark.parametrize("seq", [1, 2, 3])
def test_shortest_windows(seq: int) -> None:
    model = tiny(seq=seq)
    assert continued(model, ids("abcd"), tokens=9, temperature=0.0) == slowly(model, ids("abcd"), 9)


def test_a_capacity_drops_tokens_in_training_alone() -> None:
    free, tight = tiny(), tiny(capacity_factor=0.25)
    text = ids("aaaaaaaaaaaaaaaa")[None]
    with torch.no_grad():
        assert not torch.equal(free.train()(text), tight.train()(text))
        assert torch.equal(free.eval()(text), tight.eval()(text))


def test_seed_and_sample_decide() -> None:
    model, prompt = tiny(), ids("abc")
    first = continued(model, prompt, tokens=30)
    torch.manual_seed(5)
    assert continued(model, prompt, tokens=30) == first
    assert continued(model, prompt, tokens=30, sample=1) != first
    assert continued(model, prompt, tokens=30, seed=1) != first


def test_it_streams_and_leaves_gradients_on() -> None:
    model = tiny()
    tokens = stream(model, ids("abc"), PredictOptions(tokens=1000))
    assert len(list(itertools.islice(tokens, 3))) == 3
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("fields", [{"top_p": 0.0}, {"top_p": 1e-9}, {"temperature": 1e-300}])
def test_limits_of_sampling_are_greedy(fields: dict) -> None:
    model, prompt = tiny(), ids("abc")
    greedy = continued(model, prompt, tokens=30, temperature=0.0)
    assert continued(model, prompt, tokens=30, **fields) == greedy


def test_nucleus() -> None:
    logits = torch.tensor([0.15, 0.4, 0.05, 0.3, 0.1]).log()
    draw = generator("nucleus")

    def shares(**fields: float) -> np.ndarray:
        options = PredictOptions(**fields)  # type: ignore[arg-type]
        drawn = [pick(logits, options, draw) for _ in range(3000)]
        return np.bincount(drawn, minlength=5) / 3000

    near = {"atol": 0.03, "rtol": 0}
    np.testing.assert_allclose(shares(temperature=1.0, top_p=1.0), logits.exp(), **near)
    # 0.4 + 0.3 do not reach 0.75, with 0.15 they do
    kept = np.array([0.15, 0.4, 0, 0.3, 0]) / 0.85
    found = shares(temperature=1.0, top_p=0.75)
    np.testing.assert_allclose(found, kept, **near)
    assert found[2] == found[4] == 0
    warm = logits.exp().numpy() ** 2
    np.testing.assert_allclose(shares(temperature=0.5, top_p=1.0), warm / warm.sum(), **near)


def test_weights_that_are_broken_are_said_to_be() -> None:
    model = tiny()
    with torch.no_grad():
        model.ln_f.weight[0] = float("nan")
    with pytest.raises(ValueError, match="not finite"):
        continued(model, ids("abc"))


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"tokens": 0}, r"--tokens must be in \[1, 1000000\], got 0"),
        ({"samples": 101}, r"--samples must be in \[1, 100\], got 101"),
        ({"temperature": -0.1}, "temperature must be .* got -0.1"),
        ({"temperature": float("nan")}, "temperature must be .* got nan"),
        ({"top_p": 1.5}, r"--top-p must be in \[0, 1\], got 1.5"),
    ],
)
def test_sampling_is_checked(fields: dict, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        PredictOptions(**fields)


def test_an_empty_prompt_is_refused() -> None:
    with pytest.raises(ValueError, match="prompt is empty; give a text"):
        continued(tiny(), ids(""))


def test_characters_come_whole() -> None:
    raw = "añ€😀".encode()
    parts = list(text_of(iter(raw), ByteTokenizer()))
    assert parts == ["a", "ñ", "€", "😀"]
    assert "".join(text_of(iter(raw[:-1]), ByteTokenizer())) == "añ€\ufffd"  # cut off at the end
    assert "".join(text_of(iter(b"\xffa\xc3b"), ByteTokenizer())) == "\ufffda\ufffdb"
    bpe = BpeTokenizer([(0xE2, 0x82)])  # two thirds of the euro sign
    assert list(text_of(iter([97, 256, 0xAC]), bpe)) == ["a", "€"]


# Figures -------------------------------------------------------------------------------------


def test_expert_load_is_what_the_router_says() -> None:
    model = tiny(layers=4, top_k=2).train()
    windows = {
        "words": torch.randint(97, 123, (5, 12), generator=generator("a")),
        "digits": torch.randint(48, 58, (3, 16), generator=generator("b")),
    }
    load = routing_load.expert_load(model, windows, batch=2)
    assert model.training and model.routed is None
    assert list(load) == ["words", "digits"]
    model.eval()
    for domain, shares in load.items():
        assert shares.shape == (2, 4)
        np.testing.assert_allclose(shares.sum(1), 1)
        seen: list[Tensor] = []
        model.routed = lambda index, routing, seen=seen: seen.append(routing.experts)
        model(windows[domain])
        counted = [torch.bincount(e.flatten(), minlength=4) / e.numel() for e in seen]
        np.testing.assert_allclose(shares, torch.stack(counted), rtol=1e-6)
    with pytest.raises(ValueError, match="words has no tokens"):
        routing_load.expert_load(model, {"words": torch.zeros(0, 4, dtype=torch.int64)})


def test_windows_are_whole_and_from_all_over() -> None:
    text = {"long": np.arange(200, dtype=np.uint8), "short": np.arange(5, dtype=np.uint8)}
    found = routing_load.some_windows(TokenWindows(text, 8), most=3)
    assert found["long"][:, 0].tolist() == [0, 96, 184]  # windows 0, 12, 23 of 24 whole ones
    assert found["short"].tolist() == [[0, 1, 2, 3, 4]]


def page(model: Gpt, content: str | bytes, **more: object) -> str:
    routed = predict.routed_text(model, ids(content), **more)  # type: ignore[arg-type]
    return routing_page(routed, ByteTokenizer())


def spans(text: str) -> list[tuple[str, str, str]]:
    return re.findall(r'<span class="([^"]+)" title="([^"]*)">(.*?)</span>', text, re.DOTALL)


def test_hostile_text_stays_text() -> None:
    hostile = "<b>&\"'\x1b"
    model = tiny()
    text = page(model, hostile)
    body = text[text.index("<pre>") :]
    assert "".join(shown for _, _, shown in spans(body)) == "&lt;b&gt;&amp;&quot;&#x27;\u241b"
    made = {"span", "/span", "/pre", "pre", "/section", "/main", "/body", "/html"}
    assert set(re.findall(r"<(/?\w+)", body)) == made
    assert "\x1b" not in text
    script = BpeTokenizer([(60, 115), (256, 62)])  # "<s>", one token
    text = routing_page(predict.routed_text(tiny(vocab=258), torch.tensor([257, 97])), script)
    assert "<s>" not in text and "&lt;s&gt;" in text
    assert "<script" not in page(model, "<script>alert") and "src=" not in text


def test_every_token_is_coloured_by_its_expert() -> None:
    model = tiny(layers=4, experts=12)
    prompt = ids("año\n")
    seen: dict[int, Tensor] = {}
    model.routed = lambda index, routing: seen.setdefault(index, routing.experts[:, 0])
    model.eval()(prompt[None])
    model.routed = None
    text = page(model, "año\n", written=2)
    sections = text.split("<section>")[1:]
    assert [re.search(r"Block (\d)", s).group(1) for s in sections] == ["1", "3"]  # type: ignore[union-attr]
    for section, experts in zip(sections, seen.values(), strict=True):
        found = spans(section)
        named = [int(re.search(r"expert (\d+) \d", t).group(1)) for _, t, _ in found]  # type: ignore[union-attr]
        assert named == experts.tolist()
        tints = dict(re.findall(r'<li><b class="(\w+)">(\d+)', section))
        for (classes, _, _), expert in zip(found, experts.tolist(), strict=True):
            assert tints[classes.split()[0]] == str(expert)
        assert [shown for _, _, shown in found] == ["a", "", "ñ", "o", "<i>↵</i>\n"]
        assert "part" in found[1][0] and "bytes c3" in found[1][1]
        assert section.count('class="written"') == 1
    assert len(page(model, "ab", layers=[3]).split("<section>")) == 2


def test_pages_that_cannot_be_made() -> None:
    with pytest.raises(ValueError, match="dense"):
        page(tiny(kind="dense"), "ab")
    with pytest.raises(ValueError, match=r"layers \[0\]: give 1 to 4 of the mixture blocks"):
        page(tiny(), "ab", layers=[0])


TEXT = {d: np.frombuffer(t * 60, np.uint8) for d, t in (("es", b"que no "), ("en", b"of the "))}


def test_load_figures(tmp_path: Path) -> None:
    windows = routing_load.some_windows(TokenWindows(TEXT, SEQ))

    def drawn(model: Gpt) -> dict[Path, str]:
        load = routing_load.expert_load(model, windows)
        return figures.load_figures(model.cfg, load, "test", tmp_path)

    made = drawn(tiny(layers=8))
    assert [path.name for path in made] == [f"expert-load-{i}.png" for i in (1, 5, 7)]
    assert all(path.read_bytes()[:4] == b"\x89PNG" for path in made)
    caption = made[tmp_path / "expert-load-7.png"]
    assert re.search(
        r"\d\.\d\d times the mean .* es \d+% \(\d, \d\), en \d+% \(\d, \d\)\.", caption
    )
    assert figures.load_figures(tiny(kind="dense").cfg, {}, "test", tmp_path) == {}
    one = drawn(tiny(experts=1))
    assert "100% (0)" in one[tmp_path / "expert-load-1.png"]


def test_bits_figure(tmp_path: Path) -> None:
    guess = {"bits/es/per byte": 4.0, "bits/en/per byte": 4.5}
    made = figures.bits_figure({"es": 2.0, "en": 3.0}, {"guess": guess}, "validation", tmp_path)
    (path, caption), *more = made.items()
    assert path.name == "bits-per-byte.png" and path.read_bytes()[:4] == b"\x89PNG" and not more
    assert "each domain's validation text" in caption


def predicted(model: Gpt, file: Path, out: Path, **fields: object) -> list[Path]:
    options = PredictOptions(**{"tokens": 40, **fields})  # type: ignore[arg-type]
    if not file.is_dir():
        return predict.predict_file(model, ByteTokenizer(), file, out, options)
    trained = Trained("toy", "words", "real", ["a note"])
    return predict.predict_folder(model, ByteTokenizer(), file, out, options, trained)


def test_predict_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, out = tmp_path / "prompt.txt", tmp_path / "out"
    file.write_text("x" * 100 + "¿qué\x1b?\n", encoding="utf-8")
    model = tiny()
    files = predicted(model, file, out, samples=2)
    assert [f.name for f in files] == ["continuation-1.txt", "continuation-2.txt", "routing.html"]
    assert {f.name for f in out.iterdir()} == {f.name for f in files}
    texts = [f.read_bytes().decode() for f in files[:2]]
    drawn = continued(model, ids(file.read_bytes()), tokens=40)
    assert texts[0] == bytes(drawn).decode(errors="replace") != texts[1]
    shown, told = capsys.readouterr()
    assert shown.startswith("--- continuation 1 of 2\n" + "x" * 53 + "¿qué\u241b?\n")
    assert shown.count("\n--- continuation 2 of 2\nxxx") == 1 and shown.endswith("\n")
    assert texts[0].translate(VISIBLE) in shown and "\x1b" not in shown
    assert re.fullmatch(r"80 tokens in \d+\.\d s, \d+ a second\n", told)
    again = predicted(model, file, tmp_path / "again", quiet=True)
    assert again[0].read_bytes() == files[0].read_bytes()
    assert capsys.readouterr().out == ""
    dense = predicted(tiny(kind="dense"), file, out, quiet=True)
    assert [f.name for f in dense] == ["continuation-1.txt"]


def test_predict_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every file gets what it gets alone, under a name of its own; the unreadable are listed."""
    texts, out = tmp_path / "texts", tmp_path / "texts/out"
    for name, content in {
        "a.txt": b"one\ntwo", "a.md": b"=1+1", "c/a.txt": "año\x1b".encode(),
        "\udcff<i>.txt": b"odd", "broken.txt": b"\x89PNG\r\n", ".hidden": b"no", "empty.txt": b"",
        "out/old.txt": b"a result",
    }.items():  # fmt: skip
        (texts / name).parent.mkdir(parents=True, exist_ok=True)
        (texts / name).write_bytes(content)
    model = tiny()
    files = predicted(model, texts, out, samples=2)
    assert capsys.readouterr().out == ""  # nothing is shown as it is written
    ends = ["continuation-1.txt", "continuation-2.txt", "routing.html"]
    odd = output_name(Path("\udcff<i>.txt"))
    names = [f"{name}-{end}" for name in ("a.md", "a.txt", "c/a.txt", odd) for end in ends]
    assert [f.relative_to(out).as_posix() for f in files] == [
        *names, "predictions.csv", "predictions.html",
    ]  # fmt: skip
    assert {f for f in out.rglob("*") if f.is_file()} == {*files, out / "old.txt"}
    alone = predicted(model, texts / "c/a.txt", tmp_path / "alone", samples=2, quiet=True)
    for one in alone:
        assert one.read_bytes() == (out / f"c/a.txt-{one.name}").read_bytes()
    rows = list(csv.reader((out / "predictions.csv").open(encoding="utf-8")))
    assert rows[0] == ["file", "ends with", "goes on", "written to", "problem"]
    assert [row[0] for row in rows[1:]] == [
        "a.md", "a.txt", "broken.txt", "c/a.txt", "empty.txt", "\ufffd<i>.txt",
    ]  # fmt: skip
    assert rows[1][1] == "'=1+1" and rows[2][1] == "one ↵ two" and rows[4][1] == "año\u241b"
    assert "it is a picture" in rows[3][4] and "is empty" in rows[5][4]
    page = (out / "predictions.html").read_text()
    assert "2 of 6 files cannot be read" in page and "a note" in page
    assert 'href="c/a.txt-routing.html"' in page
    assert "<i>" not in page and "\x1b" not in page


def test_links_in_a_folder_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text("secret")
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts/a.txt").write_text("one")
    (tmp_path / "texts/l.txt").symlink_to(tmp_path / "secret.txt")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "texts/m").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "texts/n.txt").symlink_to("nowhere.txt")
    (tmp_path / "texts/o.txt").symlink_to("o.txt")
    os.mkfifo(tmp_path / "texts/p.txt")
    files = predicted(tiny(), tmp_path / "texts", tmp_path / "out")
    assert [f.name[:5] for f in files if f.suffix == ".txt"] == ["a.txt"]
    rows = list(csv.reader((tmp_path / "out/predictions.csv").open(encoding="utf-8")))
    links = ["l.txt", "m", "n.txt", "o.txt"]
    assert [row[0] for row in rows[1:]] == ["a.txt", *links, "p.txt"]
    assert all("is a link, which is not followed" in row[4] for row in rows[2:6])
    assert "is not a file" in rows[6][4]
    assert "secret" not in (tmp_path / "out/predictions.html").read_text()


def test_a_folder_that_may_not_be_looked_into_is_listed(
    shut: Callable[[Path], None], tmp_path: Path
) -> None:
    (tmp_path / "texts/shut").mkdir(parents=True)
    (tmp_path / "texts/a.txt").write_text("one")
    shut(tmp_path / "texts/shut")
    predicted(tiny(), tmp_path / "texts", tmp_path / "out")
    rows = list(csv.reader((tmp_path / "out/predictions.csv").open(encoding="utf-8")))
    assert rows[2][0] == "shut" and "may not be looked into" in rows[2][4]
    shut(tmp_path / "texts")
    with pytest.raises(PermissionError):
        predicted(tiny(), tmp_path / "texts", tmp_path / "out")


def test_folders_that_cannot_be_continued(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no file; give a text file"):
        predicted(tiny(), tmp_path, tmp_path / "out")
    (tmp_path / "empty.txt").touch()
    with pytest.raises(ValueError, match="none of 1 files can be read; the first: .*is empty"):
        predicted(tiny(), tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_prompts_that_cannot_be_read(tmp_path: Path) -> None:
    def refused(content: bytes, says: str) -> None:
        file = tmp_path / "prompt.txt"
        file.write_bytes(content)
        with pytest.raises(ValueError, match=says):
            predicted(tiny(), file, tmp_path / "out", quiet=True)
        assert not (tmp_path / "out").exists()

    refused(b"", "prompt.txt is empty; give a text")
    refused(b"ab\n\x89PNG\r\n", r"prompt.txt has at byte 3 \(line 2\) the byte 0x89")
    refused("abc".encode("utf-16"), "which is not UTF-8.*iconv -f utf-16")
    refused(b"a" * 2**20 + b"\xff", r"prompt.txt, read from byte 1, has at byte 1048575")


def test_only_the_end_of_a_long_file_is_read(tmp_path: Path) -> None:
    file = tmp_path / "long.txt"
    file.write_bytes("ñ".encode() * 2**20 + b"a")  # the cut lies inside a character
    assert predict.read_prompt(file) == "ñ".encode() * (2**19 - 1) + b"a"
