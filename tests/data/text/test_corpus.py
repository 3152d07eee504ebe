"""Text corpora: what is read, how it is split, and what is said of text that cannot be read."""

import gzip
import hashlib
import json
import lzma
import os
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenfold.data.checks import check
from tenfold.data.prepare import prepare
from tenfold.data.text import corpus as texts
from tenfold.data.text.corpus import HELD_LEAST, SHORTEST, load

REAL = os.environ.get("TENFOLD_DATA", "")
needs_textmix = pytest.mark.skipif(
    not (Path(REAL) / "textmix").is_dir() or not REAL, reason="TENFOLD_DATA has no textmix"
)
SPLITS = ("train", "validation", "test")


def lines(count: int = 1000, word: str = "línea") -> bytes:
    return "".join(f"{word} número {i}\n" for i in range(count)).encode()


def parts(corpus, domain: str) -> list[bytes]:
    return [getattr(corpus, split)[domain].tobytes() for split in SPLITS]


def whole(corpus, domain: str) -> bytes:
    return b"".join(parts(corpus, domain))


# --- textmix ---


@needs_textmix
def test_textmix_has_the_bytes_and_digests_of_its_manifest():
    corpus = load("textmix")
    manifest = json.loads((Path(REAL) / "textmix" / "manifest.json").read_text())
    assert corpus.domains == texts.DOMAINS and corpus.kind == "real"
    for domain in corpus.domains:
        train, validation, test = parts(corpus, domain)
        for key, found in (("train", train + validation), ("val", test)):
            stated = manifest[f"{domain}.{key}"]
            assert len(found) == stated["bytes"]
            assert hashlib.sha256(found).hexdigest() == stated["sha256"]
            assert len(set(found)) == stated["distinct_bytes"]
        assert train.endswith(b"\n")
        assert 0.02 <= len(validation) / len(train + validation) < 0.021


@pytest.fixture
def mix(tmp_path):
    """A small set of our own recipe: one domain."""
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "mine.txt").write_bytes(lines(5000))
    prepare("textmix", tmp_path / "in", tmp_path / "mix")
    return tmp_path / "mix"


def test_a_prepared_mix(mix):
    corpus = load("textmix", str(mix))
    assert corpus.domains == ("mine",) and "not the published mix" in corpus.note
    assert whole(corpus, "mine") == lines(5000)
    assert len(parts(corpus, "mine")[1]) >= HELD_LEAST


def test_no_textmix(monkeypatch, tmp_path):
    monkeypatch.delenv("TENFOLD_DATA", raising=False)
    with pytest.raises(FileNotFoundError, match="'textmix' was not found"):
        load("textmix")
    with pytest.raises(FileNotFoundError, match="no manifest.json.*tenfold data prepare textmix"):
        load("textmix", str(tmp_path))


def test_damaged_textmix(mix):
    file = mix / "mine.val.txt.xz"
    good, content = (mix / "manifest.json").read_text(), file.read_bytes()
    file.write_bytes(content[:-40])
    with pytest.raises(ValueError, match=r"mine.val.txt.xz cannot be unpacked.*Copy it again"):
        load("textmix", str(mix))
    file.write_bytes(lzma.compress(b"other\n"))
    with pytest.raises(ValueError, match=r"mine.val.txt.xz unpacks to bytes 6, but.* states \d+"):
        load("textmix", str(mix))
    file.unlink()
    with pytest.raises(FileNotFoundError, match=r"mine.val.txt.xz is missing"):
        load("textmix", str(mix))
    for bad in ("[", "[]", "{}", "[" * 10**5, '{"mine.train": 1}', '{"../up.train": {}}'):
        (mix / "manifest.json").write_text(bad)
        with pytest.raises(ValueError, match=r"manifest.json .*Copy it again"):
            load("textmix", str(mix))
    only = {"mine.train": json.loads(good)["mine.train"]}
    (mix / "manifest.json").write_text(json.dumps(only))
    with pytest.raises(ValueError, match="does not describe mine.val"):
        load("textmix", str(mix))


def test_the_check_says_what_to_do_with_plain_text(mix):
    assert check("textmix", mix).problems == []
    (mix / "manifest.json").unlink()
    (mix / "drama_en.txt").write_bytes(lines())
    result = check("textmix", mix)
    assert [problem.what for problem in result.problems] == ["is missing"]
    assert "tenfold data prepare textmix" in result.notes[0]


# --- files ---


@pytest.mark.parametrize("pack", [bytes, gzip.compress, lzma.compress])
def test_one_file(tmp_path, pack):
    file = tmp_path / ("my book.md" + {gzip.compress: ".gz", lzma.compress: ".XZ"}.get(pack, ""))
    file.write_bytes(pack(lines()))
    corpus = load("files", str(file))
    assert corpus.domains == ("my_book",) and whole(corpus, "my_book") == lines()
    assert corpus.licence == "your own" and corpus.note == f"1 file of {file.name}."
    train, validation, test = parts(corpus, "my_book")
    for held in (validation, test):
        assert HELD_LEAST <= len(held) < HELD_LEAST + 30
    assert train.endswith(b"\n") and validation.endswith(b"\n")


def test_shares_of_a_long_file(tmp_path):
    (tmp_path / "a.txt").write_bytes(lines(20_000))
    train, validation, test = parts(load("files", str(tmp_path / "a.txt")), "a")
    size = len(train + validation + test)
    assert len(test) == pytest.approx(0.05 * size, rel=0.01)
    assert len(validation) == pytest.approx(0.05 * size, rel=0.01)


@given(st.text(min_size=1, max_size=40))
def test_the_splits_join_to_the_text_and_cut_no_character(piece):
    content = (piece * (SHORTEST // len(piece.encode()) + 1)).encode()
    corpus = texts._split("files", "", "", {"a": content})
    assert whole(corpus, "a") == content
    for part in parts(corpus, "a"):
        assert len(part) >= HELD_LEAST and part.decode() is not None


def test_a_folder_of_few_files_has_a_domain_each(tmp_path):
    for name in ("b.txt", "a.md", "sub/b.txt", "sub/c.txt.gz"):
        file = tmp_path / name
        file.parent.mkdir(exist_ok=True)
        content = lines(word=name)
        file.write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    corpus = load("files", str(tmp_path))
    assert corpus.domains == ("a", "b.txt", "sub_b.txt", "c")
    assert whole(corpus, "sub_b.txt") == lines(word="sub/b.txt")


def test_names_that_become_equal_stay_apart(tmp_path):
    for name in ("a b.txt", "a_b.txt", "a?b.txt"):
        (tmp_path / name).write_bytes(lines(word=name))
    corpus = load("files", str(tmp_path))
    assert len(set(corpus.domains)) == 3
    assert {whole(corpus, d) for d in corpus.domains} == {
        lines(word=name) for name in ("a b.txt", "a_b.txt", "a?b.txt")
    }


def test_a_folder_of_many_files_has_a_domain_for_each_folder_at_the_top(tmp_path):
    for folder in ("one", "two/deep"):
        (tmp_path / folder).mkdir(parents=True)
        for i in range(9):
            (tmp_path / folder / f"{i}.txt").write_bytes(lines(200, str(i)).rstrip(b"\n"))
    corpus = load("files", str(tmp_path))
    assert corpus.domains == ("one", "two")
    joined = b"".join(lines(200, str(i)) for i in range(9))
    assert whole(corpus, "one") == whole(corpus, "two") == joined
    for i in range(17):
        (tmp_path / f"top{i}").mkdir()
        (tmp_path / f"top{i}" / "x.txt").write_bytes(lines(2, "x"))
    (domain,) = load("files", str(tmp_path)).domains
    assert domain == texts._plain(tmp_path.name)


def test_what_a_folder_skips_is_said(tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret.txt").write_bytes(lines(word="secret"))
    folder = tmp_path / "folder"
    (folder / ".git").mkdir(parents=True)
    (folder / "good.txt").write_bytes(lines())
    (folder / ".git" / "x.txt").write_bytes(lines())
    (folder / ".hidden.txt").write_bytes(lines())
    (folder / "a.png").write_bytes(b"\x89PNG")
    (folder / "a.PNG.gz").write_bytes(b"\x1f\x8b")
    (folder / "old.tar.gz").write_bytes(b"\x1f\x8b")
    (folder / "empty.txt").touch()
    (folder / "link").symlink_to(outside)
    (folder / "link.txt").symlink_to(outside / "secret.txt")
    os.mkfifo(folder / "pipe")
    corpus = load("files", str(folder))
    assert corpus.domains == ("good",) and whole(corpus, "good") == lines()
    assert corpus.note == (
        "1 file of folder. Skipped: .git (hidden), .hidden.txt (hidden), a.PNG.gz (binary), "
        "a.png (binary), empty.txt (empty), link (link), link.txt (link), "
        "old.tar.gz (binary) and 1 more."
    )
    (folder / "good.txt").unlink()
    with pytest.raises(ValueError, match=r"holds no text file. Skipped: .git"):
        load("files", str(folder))
    with pytest.raises(ValueError, match="no ordinary file"):
        load("files", str(folder / "pipe"))


def test_an_unreadable_folder_is_not_left_out(tmp_path, monkeypatch):
    (tmp_path / "good.txt").write_bytes(lines())
    (tmp_path / "locked").mkdir()
    scan = os.scandir

    def guarded(path):  # permissions do not stop root, who may run this
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", guarded)
    with pytest.raises(PermissionError, match="locked"):
        load("files", str(tmp_path))


@pytest.mark.parametrize(
    "content, said",
    [
        (lines() + "Peña\n".encode("latin-1"), r"line 1001\) the byte 0xf1.*iconv -f latin1"),
        (lines() + b"a\nb\0c", r"line 1002\) a NUL byte"),
        (lines() + b"\0\n\xff", r"line 1001\) a NUL byte"),
        (lines() + b"\xff\0", r"line 1001\) the byte 0xff"),
        (lines()[:-2] + b"\xc3", r"line 1000\) the byte 0xc3"),  # cut within a character
        (lines().decode().encode("utf-16"), r"byte 0 \(line 1\) the byte 0xff.*-f utf-16"),
        ("plain\n".encode("utf-16-le") * 5000, r"byte 1 \(line 1\) a NUL byte.*-f utf-16"),
    ],
)
def test_what_is_not_utf8_is_named(tmp_path, content, said):
    (tmp_path / "bad.txt").write_bytes(content)
    with pytest.raises(ValueError, match=rf"bad.txt has at .*{said}"):
        load("files", str(tmp_path))


def test_the_place_of_a_bad_byte(tmp_path):
    (tmp_path / "bad.txt").write_bytes(b"ab\ncd\xe9\n" + lines())
    with pytest.raises(ValueError, match=r"at byte 5 \(line 2\) the byte 0xe9"):
        load("files", str(tmp_path / "bad.txt"))


def test_too_short_or_absent(tmp_path):
    (tmp_path / "short.txt").write_bytes(b"a line\n")
    with pytest.raises(ValueError, match=rf"has 6 bytes of text, at least {SHORTEST}"):
        load("files", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="none does not exist"):
        load("files", str(tmp_path / "none"))
    with pytest.raises(ValueError, match="needs a path"):
        load("files")


def test_short_files_are_joined_or_skipped_and_named(tmp_path):
    (tmp_path / "long.txt").write_bytes(lines())
    (tmp_path / "README.txt").write_bytes(b"a line\n")
    corpus = load("files", str(tmp_path))
    assert corpus.domains == ("long",)
    assert f"Skipped: README (under {SHORTEST} bytes)" in corpus.note
    half = lines()[: SHORTEST - 3]
    (tmp_path / "half.txt").write_bytes(half)
    corpus = load("files", str(tmp_path))
    assert corpus.domains == ("long", "short_files") and "Skipped" not in corpus.note
    assert "one together (short_files): README, half." in corpus.note
    parts = (getattr(corpus, split)["short_files"] for split in ("train", "validation", "test"))
    assert b"".join(part.tobytes() for part in parts) == b"a line\n" + half.removesuffix(b"\n")


def test_lines_of_json(tmp_path):
    records = [{"body": f"Text {i} ä\n", "id": i} for i in range(2000)]
    packed = gzip.compress("\n".join(json.dumps(record) for record in records).encode())
    (tmp_path / "a.jsonl.gz").write_bytes(packed)
    corpus = load("files", str(tmp_path), "body")
    whole = b"".join(getattr(corpus, s)["a"].tobytes() for s in ("train", "validation", "test"))
    assert whole.decode() == "".join(record["body"] for record in records)
    with pytest.raises(ValueError, match=r"gz, line 1, has no text under 'text' .*body, id.*field"):
        load("files", str(tmp_path))
    for line, said in (
        (b"{", "line 2, is no JSON"),
        (b"[1]", "line 2, has no text under 'body' .it has no fields"),
        (b'{"body": "\\ud800"}', "line 2, has half a character"),
        (b"[" * 100_000, "line 2, is no JSON"),
    ):
        (tmp_path / "b.jsonl").write_bytes(b'{"body": ""}\n' + line)
        with pytest.raises(ValueError, match=said):
            load("files", str(tmp_path / "b.jsonl"), "body")


@pytest.mark.parametrize(
    "name, begin, said",
    [
        ("a.parquet", b"PAR1", "it is Parquet. Export its column of text as .jsonl"),
        ("a.zip", b"PK\x03\x04", "it is a ZIP archive.*. Unpack it"),
        ("a.txt.zst", b"\x28\xb5\x2f\xfd", "it is packed by zstd. Unpack it first"),
        ("a.txt", b"\x1f\x8b", "it is packed by gzip. Let its name end in .gz"),
        ("a.bin", b"ab", "files that end in .bin are not"),
    ],
)
def test_binary_files_get_no_advice_that_damages_them(tmp_path, name, begin, said):
    (tmp_path / name).write_bytes(begin + b"\0\1\2\xff\n" + lines())
    with pytest.raises(ValueError, match=f"{name} is no text: {said}") as error:
        load("files", str(tmp_path / name))
    assert "tr -d" not in str(error.value) and "iconv" not in str(error.value)


def test_stray_nul_bytes_are_to_be_removed_not_reencoded(tmp_path):
    (tmp_path / "a.txt").write_bytes(lines() + b"x\0y\n\0")
    with pytest.raises(ValueError, match=r"a NUL byte \(2 in all\). Remove them.*tr -d '.000'"):
        load("files", str(tmp_path / "a.txt"))


def test_a_bomb_stops_at_the_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(texts, "MAX_BYTES", 2**20)
    for name, pack in (("a.gz", gzip.compress), ("a.xz", lzma.compress), ("a.txt", bytes)):
        (tmp_path / name).write_bytes(pack(bytes(2**21)))
        with pytest.raises(ValueError, match=rf"{name} .*more than {2**20} bytes"):
            load("files", str(tmp_path / name))
        (tmp_path / name).unlink()
    for i in range(3):  # small files, together too much
        (tmp_path / f"{i}.txt.gz").write_bytes(gzip.compress(lines(20_000)))
    with pytest.raises(ValueError, match=r"2.txt.gz unpacks to more than \d+ bytes"):
        load("files", str(tmp_path))
    for i in range(3):
        (tmp_path / f"{i}.txt.gz").unlink()
        (tmp_path / f"{i}.txt").write_bytes(bytes(2**19))
    with pytest.raises(ValueError, match="holds more than"):
        load("files", str(tmp_path))


@pytest.mark.parametrize("name", ["a.txt.gz", "a.txt.xz"])
@pytest.mark.parametrize("content", [b"", b"not packed", gzip.compress(lines())[:-9]])
def test_damaged_archives(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match="cannot be unpacked|0 bytes of text"):
        load("files", str(tmp_path / name))


# --- python ---


def test_python_is_real_text_and_says_that_it_stands_in():
    corpus = load("python")
    assert corpus.domains == ("modules", "packages", "manuals")
    assert "no data set was found" in corpus.note and platform.python_version() in corpus.note
    sizes = {domain: len(whole(corpus, domain)) for domain in corpus.domains}
    assert all(100_000 < sizes[d] <= texts.PYTHON_BYTES[d] for d in sizes)
    for split in SPLITS:
        again = getattr(load("python"), split)
        assert all(np.array_equal(getattr(corpus, split)[d], again[d]) for d in sizes)
    assert b"import " in whole(corpus, "modules")
    with pytest.raises(ValueError, match="takes no path"):
        load("python", "/somewhere")


def test_a_python_without_sources(tmp_path, monkeypatch):
    monkeypatch.setattr("sysconfig.get_paths", lambda: {"stdlib": str(tmp_path)})
    assert load("python").domains == ("manuals",)
    monkeypatch.setitem(sys.modules, "pydoc_data.topics", None)
    with pytest.raises(FileNotFoundError, match="holds no source files"):
        load("python")


def test_importing_needs_neither_lzma_nor_tokenizers():
    code = (
        "import sys; sys.modules['lzma'] = sys.modules['tokenizers'] = None\n"
        "from tenfold.data.text import corpus, tokens; corpus.load('python')"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
