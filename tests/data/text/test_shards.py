"""Text as tokens on disk: the same tokens as of text in memory, mapped and never read whole."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from tenfold.data.text import shards
from tenfold.data.text.corpus import PIECE
from tenfold.data.text.tokens import BpeTokenizer, ByteTokenizer


def text(words: str, count: int) -> bytes:
    return "".join(f"{i} {words} ä\n" for i in range(count)).encode()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    source = tmp_path / "source"
    source.mkdir()
    (source / "large.txt").write_bytes(text("of the large one", 60_000))
    (source / "small.txt.gz").write_bytes(gzip.compress(text("of the small one", 1_000)))
    lines = "\n".join(json.dumps({"body": f"line {i}\nof json"}) for i in range(900))
    (source / "records.jsonl").write_text(lines)
    (source / "short.txt").write_text("ab")
    return source


@pytest.mark.parametrize("kind", ["byte", "bpe"])
def test_tokens_are_those_of_the_text(folder: Path, tmp_path: Path, kind: str) -> None:
    tokenizer = ByteTokenizer() if kind == "byte" else BpeTokenizer.train([text("one", 99)], 300)
    seen: list[int] = []
    made = shards.write(folder, tmp_path / "out", tokenizer, kind, "body", seen.append)
    large = (folder / "large.txt").read_bytes()
    assert len(large) > PIECE and len(seen) >= 4
    assert made.kind == ("uint8" if kind == "byte" else "uint16")
    assert [one.name for one in made.domains] == ["large", "records", "small"]
    assert "short (too short)" in made.note
    parts = [made.ids(split)["large"] for split in shards.SPLITS]
    assert all(isinstance(part, np.memmap) for part in parts)
    assert np.array_equal(np.concatenate(parts), tokenizer.encode(large))
    records = np.concatenate([made.ids(split)["records"] for split in shards.SPLITS])
    assert tokenizer.decode(records) == "".join(f"line {i}\nof json\n" for i in range(900)).encode()
    assert len(parts[2]) == pytest.approx(len(parts[1]), abs=1)
    assert made.sizes["large"] == len(large)
    with pytest.raises(ValueError, match="out exists and is not empty"):
        shards.write(folder, tmp_path / "out", tokenizer, kind)


def tokenizer_file(folder: Path, kind: str) -> Path:
    """A tokenizer.json: WordPiece in small letters, SentencePiece with bytes, or with too few."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

    if kind == "words":
        made = Tokenizer(models.WordPiece({"[UNK]": 0, "one": 1, "##e": 2}, unk_token="[UNK]"))
        made.normalizer = normalizers.BertNormalizer()
        made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    else:
        names = [f"<0x{byte:02X}>" for byte in range(256)] + ["<unk>", "\u2581", *"aeinorst"]
        vocab = {name: number for number, name in enumerate(names)}
        made = Tokenizer(models.BPE(vocab, [], unk_token="<unk>", byte_fallback=True))
        parts = [normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]
        made.normalizer = normalizers.Sequence(parts)
        if kind == "composed":
            made.normalizer = normalizers.Sequence([normalizers.NFC(), *parts])
    file = folder / f"{kind}.json"
    made.save(str(file))
    return file


def test_a_tokenizer_that_loses_text_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="words.json: its tokens lose text: of .The QUICK"):
        shards.tokenizer_of(str(tokenizer_file(tmp_path, "words")), 0, folder)
    for kind in ("bytes", "composed"):
        tokenizer, name = shards.tokenizer_of(str(tokenizer_file(tmp_path, kind)), 0, folder)
        made = shards.write(folder / "small.txt.gz", tmp_path / kind, tokenizer, name)
        assert [one.name for one in made.domains] == ["small"]
    (folder / "accents.txt").write_text("e\u0301e\u0301 " * 9000)
    with pytest.raises(ValueError, match=r"accents.txt: of \d+ bytes of text the tokens of the"):
        shards.write(folder / "accents.txt", tmp_path / "lost", tokenizer, name)
    assert not (tmp_path / "lost").exists()


def test_folders_that_cannot_be_read_are_named(folder: Path, tmp_path: Path) -> None:
    (folder / "records.jsonl").unlink()
    out = tmp_path / "out"
    made = shards.write(folder, out, ByteTokenizer(), "byte")
    index = json.loads((out / shards.INDEX).read_text())

    def refused(content: object, said: str, error: type[Exception] = ValueError) -> None:
        (out / shards.INDEX).write_text(json.dumps(content))
        with pytest.raises(error, match=said):
            shards.read(out)

    first, second = index["domains"]
    refused([], "is no index of tokens")
    refused(index | {"kind": "int8"}, "is damaged .'int8'.")
    refused(index | {"domains": []}, "names no domain")
    refused(index | {"domains": [first | {"file": "../x"}]}, "is damaged at 'large'")
    refused(index | {"domains": [first | {"tokens": "3"}]}, "is damaged")
    refused(index | {"domains": [first | {"tokens": 3}]}, r"has \d+ bytes, but .* says 3 ids")
    refused(index | {"domains": [first | {"file": "no"}]}, "no is missing", FileNotFoundError)
    refused(index | {"tokenizer": "bpe"}, "has to be learnt first")
    (folder / "large.txt").write_bytes(text("one", 3) + b"\0")
    with pytest.raises(ValueError, match="large.txt has at byte"):
        shards.write(folder, tmp_path / "other", ByteTokenizer(), "byte")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out", "source"]
    assert made.domains[1].name == second["name"] == "small"


@pytest.mark.parametrize(
    ("name", "line", "bad", "said"),
    [
        ("a.jsonl", b'{"text": "a b c d e f g"}\n', b"{no\n", r"line 50001, is no JSON"),
        ("a.jsonl", b'{"text": "a b c d e f g"}\n', b'{"to": 1}\n', r"line 50001, has no text"),
        ("a.txt", b"a line of twenty five b.\n", b"ab\xff\n", r"byte 1250002 \(line 50001\)"),
    ],
)
def test_faults_behind_the_first_piece_are_named_by_their_line_of_the_file(
    tmp_path: Path, name: str, line: bytes, bad: bytes, said: str
) -> None:
    (tmp_path / name).write_bytes(50_000 * line + bad)
    assert len(line) * 50_000 > PIECE
    with pytest.raises(ValueError, match=said):
        shards.write(tmp_path / name, tmp_path / "out", ByteTokenizer(), "byte")
