"""Tokenizers lose nothing and trust nothing; windows are drawn evenly and predict every byte."""

import json
import math
import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenfold.data.text import tokens
from tenfold.data.text.tokens import BpeTokenizer, ByteTokenizer, TokenWindows, from_spec

TEXTS = [
    "".join(f"the {i}th cat sat on\n\n    the mañana mat {i * i}\n" for i in range(400)).encode(),
    ("=" * 200 + "\n" + "日本語のテキスト🙂🙂\r\n").encode() * 30,
]


@pytest.fixture(scope="module")
def bpe():
    pytest.importorskip("tokenizers")
    return BpeTokenizer.train(TEXTS, 500)


# --- tokenizers ---


@given(st.binary())
def test_bytes_there_and_back(content):
    tokenizer = ByteTokenizer()
    ids = tokenizer.encode(content)
    assert ids.dtype == np.uint8 and ids.tolist() == list(content)
    assert tokenizer.decode(ids) == tokenizer.decode(ids.tolist()) == content


@given(content=st.text().map(lambda text: text.encode()))
def test_pairs_there_and_back(bpe, content):
    ids = bpe.encode(content)
    assert ids.dtype == np.uint16 and (ids < bpe.vocab).all()
    assert bpe.decode(ids) == bpe.decode(ids.tolist()) == content
    assert bpe.lengths[ids].sum() == len(content)
    again = BpeTokenizer.from_json(bpe.to_json())
    assert again.merges == bpe.merges and np.array_equal(again.lengths, bpe.lengths)


def test_pairs_are_learnt(bpe):
    for text in TEXTS:
        ids = bpe.encode(text)
        assert bpe.decode(ids) == text and len(ids) < 0.5 * len(text)
    assert bpe.vocab == 500 and bpe.lengths[:256].tolist() == [1] * 256
    assert [bpe.decode([byte]) for byte in range(256)] == [bytes([byte]) for byte in range(256)]
    assert 1 < bpe.lengths[256:].min() and bpe.lengths.max() <= tokens.MAX_TOKEN_BYTES
    assert np.array_equal(
        BpeTokenizer.from_json(bpe.to_json()).encode(TEXTS[0]), bpe.encode(TEXTS[0])
    )


def test_a_text_cut_at_a_line_end_has_the_same_tokens(bpe, monkeypatch):
    text = b"".join(TEXTS)
    cut = text.index(b"\n\n    the") + 1
    parts = [bpe.encode(text[:cut]), bpe.encode(text[cut:])]
    assert np.array_equal(np.concatenate(parts), bpe.encode(text))
    expected = bpe.encode(text)
    monkeypatch.setattr(tokens, "BATCH", 100)
    assert np.array_equal(bpe.encode(text), expected)


def test_a_file_of_one_line_is_taken_in_pieces(bpe, monkeypatch):
    monkeypatch.setattr(tokens, "LONGEST", 10)
    text = "un año y otro año sin fin ".encode() * 20
    assert bpe.decode(bpe.encode(text)) == text
    assert max(map(len, next(tokens._batches(text)))) == 10


def test_the_same_text_gives_the_same_tokenizer_in_any_process(bpe, tmp_path):
    code = (
        "from tenfold.data.text.tokens import BpeTokenizer\n"
        f"print(BpeTokenizer.train({TEXTS!r}, 500).to_json())"
    )
    for threads in ("1", "4"):
        env = {**os.environ, "RAYON_NUM_THREADS": threads}
        done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
        assert done.stdout.strip() == bpe.to_json()


def test_too_little_text_gives_a_smaller_vocabulary():
    pytest.importorskip("tokenizers")
    assert BpeTokenizer.train([b"abab\n"], 1000).vocab == 257
    assert BpeTokenizer.train([b""], 1000).vocab == 256
    assert len(BpeTokenizer.train([b"abab\n"], 1000).encode(b"")) == 0


def test_pairs_need_utf8(bpe):
    with pytest.raises(ValueError, match=r"byte 3 of the text is not UTF-8.*tokenizer byte"):
        bpe.encode(b"abc\xff")
    with pytest.raises(ValueError, match="byte 0 of the text"):
        BpeTokenizer.train([b"\xff"], 300)


@pytest.mark.parametrize("size", [0, 256, 2**16 + 1])
def test_vocabularies_out_of_range(size):
    with pytest.raises(ValueError, match=f"vocabulary of {size} tokens.*257 to 65536"):
        BpeTokenizer.train([b"text"], size)


@pytest.mark.parametrize("bad", [-1, 256, 10**30])
def test_ids_out_of_range(bad):
    with pytest.raises(ValueError, match=rf"token {bad} at place 1 is none of the 256"):
        ByteTokenizer().decode([65, bad])
    with pytest.raises(ValueError, match=rf"token {max(bad, -1)} at place 0 .*0 to 255"):
        BpeTokenizer([]).decode([bad])
    assert BpeTokenizer([]).decode([]) == ByteTokenizer().decode([]) == b""


def test_from_spec(bpe):
    assert isinstance(from_spec("byte"), ByteTokenizer)
    assert isinstance(from_spec("byte", ByteTokenizer().to_json()), ByteTokenizer)
    learnt = from_spec("bpe", bpe.to_json())
    assert isinstance(learnt, BpeTokenizer) and learnt.vocab == bpe.vocab
    with pytest.raises(ValueError, match="has to be learnt first"):
        from_spec("bpe")


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    tokenizer = BpeTokenizer.from_json('{"type": "BPE", "merges": [[97, 98]]}')
    assert tokenizer.decode([256, 99]) == b"abc"  # decoding needs no package
    with pytest.raises(ModuleNotFoundError, match=r"tenfold\[text\].*--data.tokenizer byte"):
        tokenizer.encode(b"abc")
    with pytest.raises(ModuleNotFoundError, match=r"tenfold\[text\]"):
        BpeTokenizer.train([b"abc"], 300)


def spec(merges: object, **more: object) -> str:
    return json.dumps({"type": "BPE", "merges": merges, **more})


@pytest.mark.parametrize(
    "text, said",
    [
        ("", "not valid JSON"),
        ("[" * 10**5, "not valid JSON"),
        ("9" * 5000, "not valid JSON"),
        (" " * (tokens.MAX_JSON + 1), "at most"),
        ("[]", "of type 'list'"),
        ("{}", "of type 'None'"),
        ('{"type": "Unigram", "vocab": []}', "of type 'Unigram'"),
        (json.dumps({"type": ["x" * 10**5]}), "of type .{42}, not 'BPE'"),
        (spec(None), "not a list of merges"),
        (spec([], vocab={}), "not a list of merges"),
        (spec([1]), "merge 0 of the tokenizer is no pair"),
        (spec([[1, 2], [3]]), "merge 1 of the tokenizer is no pair"),
        (spec([[1, 2.0]]), "no pair of ids"),
        (spec([[1, True]]), "no pair of ids"),
        (spec([["a", "b"]]), "no pair of ids"),
        (spec([[1, 2], [257, 1]]), r"merge 1 .* \(257, 1\).*0 to 256"),
        (spec([[-1, 2]]), r"\(-1, 2\)"),
        (spec([[1, 10**100]]), "expected a new pair"),
        (spec([[1, 2], [1, 2]]), "expected a new pair"),
        (spec([[97, 97], *([256 + i] * 2 for i in range(40))]), "128 bytes; the limits are"),
        (spec([[i // 256, i % 256] for i in range(2**16)]), "the limits are 65536 tokens"),
    ],
)
def test_hostile_tokenizers(text, said):
    with pytest.raises(ValueError, match=said):
        BpeTokenizer.from_json(text)


def test_a_file_that_fills_and_cuts_texts_does_neither(bpe, monkeypatch):
    from tokenizers import Tokenizer

    made = Tokenizer.from_str(bpe.to_file())
    made.add_special_tokens(["[PAD]"])
    made.enable_padding(pad_id=made.token_to_id("[PAD]"), pad_token="[PAD]")
    made.enable_truncation(16)
    text = b"one line and another\n" * 40
    monkeypatch.setattr("tenfold.data.text.tokenizer_file.PIECE", 256)
    found = from_spec("file", made.to_str())
    ids = found.encode(text)
    assert np.array_equal(ids, bpe.encode(text))
    assert found.decode(ids) == text


def test_two_merges_may_give_one_token():
    pytest.importorskip("tokenizers")
    a, b, c = b"abc"
    tokenizer = BpeTokenizer([(a, b), (b, c), (256, c), (a, 257)])
    assert tokenizer.vocab == 259 and tokenizer.decode([258]) == b"abc"
    assert tokenizer.encode(b"abc").tolist() == [258]


# --- windows ---


def domains(*sizes: int) -> dict[str, np.ndarray]:
    """Ids that tell where they are: id = place, domains 1000 apart."""
    return {f"d{i}": (np.arange(n) + 1000 * i).astype(np.uint16) for i, n in enumerate(sizes)}


def test_draws_are_windows_of_the_domains_in_turn():
    windows = TokenWindows(domains(50, 500, 11), 10)
    found = windows.draw(9, seed=3)
    assert found.dtype == np.int64 and found.shape == (9, 11)
    assert (np.diff(found) == 1).all()
    assert (found[:, 0] // 1000).tolist() == [0, 1, 2] * 3 == windows.domain_of(9).tolist()
    assert (found[2::3, 0] == 2000).all()  # a domain of just one window
    starts = np.concatenate([windows.draw(90, 0, i)[::3, 0] for i in range(20)])
    assert set(starts.tolist()) == set(range(40))


def test_every_domain_has_its_share_where_rows_do_not_divide():
    windows = TokenWindows(domains(50, 50, 50), 10)
    taken = np.concatenate([windows.draw(4, 1, i)[:, 0] // 1000 for i in range(9)])
    assert np.bincount(taken).tolist() == [12, 12, 12]
    assert windows.domain_of(4, 1).tolist() == [1, 2, 0, 1]


def test_rows_are_divided_as_the_weights_are():
    windows = TokenWindows(domains(50, 500, 50), 10, weights=[1.0, 17.0, 2.0])
    for index in (0, 7, 10**9):
        share = np.bincount(windows.domain_of(400, index), minlength=3) / 400
        assert np.abs(share - [0.05, 0.85, 0.1]).max() < 0.01
    parts = [windows.domain_of(4, index) for index in range(5)]
    assert np.array_equal(np.concatenate(parts), windows.domain_of(20))
    assert set(TokenWindows(domains(50, 50), 10, weights=[0.0, 1.0]).domain_of(100)) == {1}


def test_a_draw_depends_on_its_arguments_only():
    ids = domains(300, 400)
    windows = TokenWindows(ids, 10)
    first = windows.draw(8, seed=2**63 - 1, index=5)
    windows.draw(8, seed=1)
    assert np.array_equal(TokenWindows(ids, 10).draw(8, 2**63 - 1, 5), first)
    assert not np.array_equal(windows.draw(8, 2**63 - 1, 6), first)
    assert not np.array_equal(windows.draw(8, 2**63 - 2, 5), first)
    halves = [windows.draw(8, 2**63 - 1, 5, share) for share in (slice(0, 4), slice(4, 8))]
    assert np.array_equal(np.concatenate(halves), first)


@given(
    size=st.integers(2, 60), seq=st.integers(1, 20), split=st.integers(0, 60), wide=st.booleans()
)
def test_every_token_but_the_first_is_predicted_once(size, seq, split, wide):
    ids = np.arange(size, dtype=np.uint16 if wide else np.uint8)
    windows = TokenWindows({"a": ids}, seq)
    every = windows.in_order("a")
    assert len(every.tokens) == windows.count("a") == math.ceil((size - 1) / seq)
    assert every.tokens[:, 1:][every.mask].tolist() == list(range(1, size))
    assert every.tokens[:, :-1][every.mask].tolist() == list(range(size - 1))
    assert every.tokens[:, 1:][~every.mask].sum() == 0
    assert every.bytes.sum() == size - 1
    parts = [windows.in_order("a", last=split), windows.in_order("a", first=split)]
    for field in ("tokens", "mask", "bytes"):
        joined = np.concatenate([getattr(part, field) for part in parts])
        assert np.array_equal(joined, getattr(every, field))


def test_bits_per_byte_count_the_bytes_of_the_targets(bpe):
    ids = bpe.encode(TEXTS[0])
    windows = TokenWindows({"a": ids}, 7, bpe.lengths)
    every = windows.in_order("a")
    assert every.bytes.sum() == len(TEXTS[0]) - bpe.lengths[ids[0]]
    second = every.tokens[1, 1:]
    assert every.bytes[1] == len(bpe.decode(second))


def test_ids_are_not_copied():
    ids = domains(50)
    assert TokenWindows(ids, 10).ids["d0"] is ids["d0"]


def test_windows_that_cannot_be():
    with pytest.raises(ValueError, match=r"d1 has 10 tokens, but a window of 10 .* needs 11"):
        TokenWindows(domains(50, 10), 10).draw(2, 0)
    with pytest.raises(ValueError, match="d0 has 1 tokens, 2 are needed"):
        TokenWindows(domains(1), 10)
    with pytest.raises(ValueError, match="got none"):
        TokenWindows({}, 10)
    with pytest.raises(ValueError, match="got 0"):
        TokenWindows(domains(50), 0)
