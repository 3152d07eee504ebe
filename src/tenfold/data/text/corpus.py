"""Text corpora: the set textmix, the user's own files, and Python's own library as a fallback."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
from jaxtyping import UInt8

from .. import catalog
from . import jsonl

DOMAINS = ("prose_en", "drama_en", "prose_es", "docs_py")
"""The domains of the published textmix."""
MAX_BYTES = 2**29
"""Most bytes of a corpus, after unpacking: all of it is held in memory."""
MAX_FILES = 100_000
MAX_DOMAINS = 16
"""Up to so many files are a domain each; more are grouped by folder."""
SHORTEST = 2**14
"""Fewest bytes of a domain."""
PIECE = 2**20
"""Bytes that are read at a time."""
PEEK = 2**16
"""First bytes of a text by which UTF-16 is told from stray NUL bytes."""
JOINED = "short_files"
"""Domain of the files that are too short for one of their own."""
HELD_LEAST = 2**11
"""Fewest bytes held out: a few windows (one line less may be taken)."""
BINARY = frozenset(
    ".7z .a .avi .bin .bmp .bz2 .class .ckpt .db .dll .doc .docx .dylib .exe .gif .h5 .ico .jar "
    ".jpeg .jpg .mkv .mov .mp3 .mp4 .nc .npy .npz .o .odt .ogg .onnx .parquet .pdf .pickle .pkl "
    ".png .ppt .pptx .pt .pth .pyc .pyd .rar .safetensors .so .sqlite .tar .tgz .tif .tiff .ttf "
    ".txz .wav .webm .webp .whl .woff .woff2 .xls .xlsx .zip .zst".split()
)
"""Endings of files that a folder of text may hold beside it; they are skipped."""
EXPORT, UNPACK = "Export its column of text as .jsonl", "Unpack it first"
TEXT = "Give text instead"
MAGIC = (
    (b"PAR1", "Parquet", EXPORT), (b"ARROW1", "Arrow", EXPORT),
    (b"SQLite format 3", "SQLite", EXPORT), (b"\x28\xb5\x2f\xfd", "packed by zstd", UNPACK),
    (b"PK\x03\x04", "a ZIP archive, or of an office program", "Unpack it, or export its text"),
    (b"BZh", "packed by bzip2", UNPACK), (b"7z\xbc\xaf\x27\x1c", "a 7z archive", UNPACK),
    (b"Rar!", "a RAR archive", UNPACK), (b"\x1f\x8b", "packed by gzip", "Let its name end in .gz"),
    (b"\xfd7zXZ\0", "packed by xz", "Let its name end in .xz"), (b"%PDF", "PDF", "Export its text"),
    (b"\x89PNG", "a picture", TEXT), (b"\xff\xd8\xff", "a picture", TEXT),
    (b"GIF8", "a picture", TEXT), (b"\x93NUMPY", "an array of numbers", TEXT),
    (b"\x89HDF", "HDF5", TEXT), (b"\x7fELF", "a program", TEXT),
)  # fmt: skip
"""Beginning of a file -> what it is, and what to do about it."""
PACKAGES = tuple(
    "asyncio collections concurrent email html http importlib json logging multiprocessing re "
    "tomllib urllib wsgiref xml xmlrpc zoneinfo".split()
)
"""Packages of the standard library that hold no tests or tables."""
PYTHON_BYTES = {"modules": 2_000_000, "packages": 1_500_000, "manuals": 500_000}
"""Most bytes of each domain of the fallback."""

Texts = dict[str, UInt8[np.ndarray, " _"]]


@dataclass(frozen=True)
class Corpus:
    """UTF-8 text of one or more domains, split; the bytes of each domain in one read-only array."""

    name: str
    """textmix, files or python."""
    kind: Literal["real"]
    """All text here was written by people, none is generated."""
    note: str
    """Description of the domains, and of what was left out."""
    licence: str
    """Terms, as far as the origin states them."""
    domains: tuple[str, ...]
    """Names of the domains, the keys of the three splits in this order."""
    train: Texts
    """Text to learn from."""
    validation: Texts
    """The end of the training text, held out: to choose by, never to report."""
    test: Texts
    """Text to report on."""


def load(
    name: Literal["textmix", "files", "python"], path: str = "", field: str = "text"
) -> Corpus:
    """Read a corpus whole and split it.

    textmix: the set at ``path`` or under $TENFOLD_DATA; every file must have the bytes and
    SHA-256 of manifest.json. Its val files are the test split, the last 2 % of train validation.

    files: the UTF-8 text of one file (plain, .gz or .xz) or of a folder and its subfolders. Up to
    16 files are a domain each; more are joined in the order of their names, one domain for each
    folder at the top, or one in all if those are more than 16. Files (or folders) too short to be
    a domain are one together, or skipped if that is too short, too. Of a .jsonl file the strings
    under `field` are the text. Hidden files, links, empty files and files with the ending of
    something binary are skipped and named in the note. The last 5 % of each domain is test, the
    5 % before that validation, cut at line ends.

    python: source and manuals of the running interpreter's standard library, split like files.

    Raises FileNotFoundError if there is nothing at ``path``, and ValueError for damage, for text
    that is not UTF-8 (with file, byte and line), and for too little or too much of it.
    """
    if name == "textmix":
        return _textmix(catalog.find_or_explain("textmix", path))
    if name == "files":
        return _files(path, field)
    if name == "python":
        if path:
            raise ValueError(
                f"the text 'python' is this interpreter's own library and takes no path, got "
                f"{path!r}. Read it with the name 'files', or leave the path empty."
            )
        return _python()
    raise ValueError(f"no text is called {name!r}; known: textmix, files, python")


def read(file: Path, most: int = MAX_BYTES) -> bytes:
    """The bytes of a file, unpacked if it ends in .xz or .gz.

    Raises ValueError, before more is read, if that gives more than ``most`` bytes, and for damage.
    """
    with unpacked(file) as stream:
        parts, size = [], 0  # a piece at a time: room for all that is asked for is taken at once
        while size <= most and (part := stream.read(min(PIECE, most + 1 - size))):
            parts.append(part)
            size += len(part)
    if size > most:
        packed = file.suffix.lower() in (".xz", ".gz")
        raise ValueError(
            f"{file} {'unpacks to' if packed else 'has'} more than {most} bytes, all that may "
            "still be read here. Give a smaller part of the text."
        )
    return b"".join(parts)


@contextmanager
def unpacked(file: Path) -> Iterator[IO[bytes]]:
    """A file to read from, unpacked if it ends in .xz or .gz; ValueError for damage."""
    stream: Any
    broken: tuple[type[Exception], ...] = ()
    if file.suffix.lower() == ".xz":  # imported here: a Python may be built without lzma
        import lzma

        stream, broken = lzma.LZMAFile(file), (lzma.LZMAError, EOFError)
    elif file.suffix.lower() == ".gz":
        import gzip
        import zlib

        stream, broken = gzip.GzipFile(file), (gzip.BadGzipFile, zlib.error, EOFError)
    else:
        stream = file.open("rb")
    with stream:
        try:
            yield stream
        except broken as error:
            raise ValueError(f"{file} cannot be unpacked: {error}. Copy it again.") from error


def check_text(text: bytes, source: str, before: tuple[int, int] = (0, 0)) -> None:
    """Raise ValueError naming ``source``, byte and line if this is not UTF-8, or holds NUL.

    ``before``: bytes and lines of the source that come before this part of it.
    """
    at = text.find(b"\0")
    what = "a NUL byte: this is not text, or it is UTF-16"
    guess = "utf-16"
    try:
        text.decode("utf-8")
    except UnicodeDecodeError as error:
        if at < 0 or error.start < at:
            at, guess = error.start, "latin1"
            what = f"the byte 0x{text[at]:02x}, which is not UTF-8"
    if at < 0:
        return
    _refuse_binary(text, source)
    way_out = f"Re-encode it, for instance with `iconv -f {guess} -t utf-8 OLD > NEW`"
    if text[:2] in (b"\xff\xfe", b"\xfe\xff"):
        way_out = "Re-encode it, for instance with `iconv -f utf-16 -t utf-8 OLD > NEW`"
    elif text[at] == 0 and text[:PEEK].count(0) * 8 < len(text[:PEEK]):
        # UTF-16 of most languages is half NUL; here a few strayed into text
        what = f"a NUL byte ({text.count(0)} in all)"
        way_out = "Remove them, for instance with `tr -d '\\000' < OLD > NEW`"
    raise ValueError(
        f"{source} has at byte {before[0] + at} (line {before[1] + text.count(10, 0, at) + 1}) "
        f"{what}. {way_out}, or leave it out."
    )


def _refuse_binary(text: bytes, source: str) -> None:
    """Raise ValueError for what no other encoding makes text: its beginning or its ending tells."""
    for begin, what, way_out in MAGIC:
        if text.startswith(begin):
            raise ValueError(f"{source} is no text: it is {what}. {way_out}.")
    ending = Path(source).suffix.lower()
    if ending in BINARY:
        raise ValueError(f"{source} is no text: files that end in {ending} are not. Give its text.")


def _array(text: bytes) -> UInt8[np.ndarray, " _"]:
    return np.frombuffer(text, np.uint8)


def _cut(text: bytes, end: int, held: int) -> int:
    """Find where the last ``held`` of ``end`` bytes begin: at a line, or else a character."""
    at = end - held
    line = text.rfind(b"\n", at - held, at) + 1
    if line:
        return line
    while text[at] & 0xC0 == 0x80:  # the middle of a character
        at -= 1
    return at


def _long_enough(text: bytes, source: str, way_out: str) -> None:
    if len(text) < SHORTEST:
        raise ValueError(
            f"{source} has {len(text)} bytes of text, at least {SHORTEST} are needed. {way_out}"
        )


def _split(name: str, note: str, licence: str, texts: Mapping[str, bytes]) -> Corpus:
    """A corpus of whole domains: 5 % test, before it 5 % validation."""
    train, validation, test = {}, {}, {}
    for domain, text in texts.items():
        held = max(len(text) // 20, HELD_LEAST)
        last = _cut(text, len(text), held)
        middle = _cut(text, last, held)
        whole = _array(text)
        train[domain] = whole[:middle]
        validation[domain] = whole[middle:last]
        test[domain] = whole[last:]
    return Corpus(name, "real", note, licence, tuple(texts), train, validation, test)


# textmix -------------------------------------------------------------------------------------


def _textmix(folder: Path) -> Corpus:
    manifest = _manifest(folder)
    domains = tuple(key.removesuffix(".train") for key in manifest if key.endswith(".train"))
    train, validation, test = {}, {}, {}
    left = MAX_BYTES
    for domain in domains:
        texts = {}
        for split in ("train", "val"):
            key = f"{domain}.{split}"
            texts[split] = _part(folder, key, manifest.get(key), left)
            left -= len(texts[split])
        text = texts["train"]
        _long_enough(text, f"{folder / domain}.train.txt.xz", "Prepare the set from longer texts.")
        cut = _cut(text, len(text), max(len(text) // 50, HELD_LEAST))
        train[domain], validation[domain] = _array(text)[:cut], _array(text)[cut:]
        test[domain] = _array(texts["val"])
    note = f"val files of {', '.join(domains)}"
    if set(domains) != set(DOMAINS):
        note += f"; not the published mix of {', '.join(DOMAINS)}"
    licence = catalog.entry("textmix").licence
    return Corpus("textmix", "real", note, licence, domains, train, validation, test)


def _manifest(folder: Path) -> dict[str, Any]:
    file = folder / "manifest.json"
    if not file.is_file():
        hint = "make the set with `tenfold data prepare textmix`, or read it as your own files"
        raise FileNotFoundError(f"textmix: {folder} holds no manifest.json: {hint}.")
    try:
        manifest = json.loads(read(file, 2**20))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file} is not valid JSON: {error}. Copy it again.") from error
    if not isinstance(manifest, dict) or not any(key.endswith(".train") for key in manifest):
        raise ValueError(f"{file} names no <domain>.train. Copy it again.")
    outside = [key for key in manifest if not re.fullmatch(r"\w[^/\\]*", key)]
    if outside:
        raise ValueError(
            f"{file} names {outside[0]!r}, which is no file of the set. Copy it again."
        )
    return manifest


def _part(folder: Path, key: str, stated: Any, most: int) -> bytes:
    """One file of the set, which must be what the manifest states."""
    file = folder / f"{key}.txt.xz"
    if not isinstance(stated, dict):
        raise ValueError(f"{folder / 'manifest.json'} does not describe {key}. Copy it again.")
    if not file.is_file():
        raise FileNotFoundError(f"textmix: {file} is missing. Copy it again.")
    text = read(file, most)
    for what, found in (("bytes", len(text)), ("sha256", hashlib.sha256(text).hexdigest())):
        if found != stated.get(what):
            raise ValueError(
                f"{file} unpacks to {what} {found}, but manifest.json states "
                f"{stated.get(what)}. Copy the set again; `tenfold data check textmix` lists "
                "what is damaged."
            )
    check_text(text, str(file))
    return text


# Files of the user's own ---------------------------------------------------------------------


def _files(path: str, field: str) -> Corpus:
    if not path:
        raise ValueError("your own text needs a path: give one file, or a folder of text files")
    root, files, skipped = walked(Path(path))
    size = sum(file.stat().st_size for file in files)
    if size > MAX_BYTES:
        raise ValueError(
            f"{root} holds more than {MAX_BYTES} bytes of text. Give a part of it, or make tokens "
            "of it first: tenfold data tokenise"
        )
    texts: dict[str, bytes] = {}
    left = MAX_BYTES
    for domain, members in domains_of(root, files).items():
        parts = []
        for file in members:
            part = read(file, left)
            left -= len(part)
            check_text(part, str(file))
            if jsonl.is_jsonl(file):
                part = jsonl.text(part, field, str(file))
            # joined files must not share a line
            parts.append(part if part.endswith(b"\n") or len(members) == 1 else part + b"\n")
        texts[domain] = b"".join(parts)
    texts, joined = _short_together(texts, root, skipped)
    number = f"{len(files)} file{'s' if len(files) > 1 else ''}"
    note = f"{number} of {root.resolve().name}.{joined}{_skipped(skipped)}"
    return _split("files", note, "your own", texts)


def walked(path: Path) -> tuple[Path, list[Path], list[str]]:
    """A user's file, or folder, with its text files in order, and what is skipped and why."""
    root = path.expanduser()
    if not root.exists():
        raise FileNotFoundError(f"{root} does not exist. Give one file, or a folder of text files.")
    if root.is_dir():
        files, skipped = _walk(root)
        if not files:
            raise ValueError(f"{root} holds no text file.{_skipped(skipped)} Give another folder.")
        return root, files, skipped
    if not root.is_file():
        raise ValueError(f"{root} is no ordinary file. Give one file, or a folder of text files.")
    return root, [root], []


def _short_together(
    texts: dict[str, bytes], root: Path, skipped: list[str]
) -> tuple[dict[str, bytes], str]:
    """Join domains that are too short, and say so; skip them if that is too short, too."""
    short = {name: text for name, text in texts.items() if len(text) < SHORTEST}
    if not short:
        return texts, ""
    whole = {name: text for name, text in texts.items() if name not in short}
    together = b"\n".join(text.removesuffix(b"\n") for text in short.values())
    if len(together) >= SHORTEST:
        name = JOINED
        while name in whole:
            name += "_"
        told = f" Too short to be a domain each, and one together ({name}): {_listed([*short])}."
        return {**whole, name: together}, told if len(texts) > 1 else ""
    if not whole:
        _long_enough(together, str(root), "Give more text.")
    skipped += [f"{name} (under {SHORTEST} bytes)" for name in short]
    return whole, ""


def _walk(root: Path) -> tuple[list[Path], list[str]]:
    """The text files of a folder in the order of their names, and what is skipped and why."""
    files, skipped = [], []
    for at, folders, names in os.walk(root, onerror=_refuse):
        for name in sorted(folders):
            reason = "link" if (Path(at) / name).is_symlink() else "hidden"
            if reason == "link" or name.startswith("."):
                folders.remove(name)
                skipped.append(f"{(Path(at) / name).relative_to(root)} ({reason})")
        for name in names:
            file = Path(at) / name
            reason = _reason(file)
            if reason:
                skipped.append(f"{file.relative_to(root)} ({reason})")
                continue
            files.append(file)
            if len(files) > MAX_FILES:
                raise ValueError(
                    f"{root} holds more than {MAX_FILES} files of text. Give a folder with a part "
                    "of them, or join them."
                )
    return sorted(files, key=lambda file: file.relative_to(root).parts), sorted(skipped)


def _refuse(error: OSError) -> None:
    raise error  # os.walk would leave an unreadable folder out without a word


def _reason(file: Path) -> str:
    """Say why a file of a folder is skipped, or nothing."""
    if file.name.startswith("."):
        return "hidden"
    if file.is_symlink():  # it may lead anywhere, or to text that is read already
        return "link"
    if not file.is_file():
        return "no ordinary file"
    endings = [ending.lower() for ending in file.suffixes]
    if endings and endings[-1] in (".xz", ".gz"):
        endings.pop()
    if endings and endings[-1] in BINARY:
        return "binary"
    return "" if file.stat().st_size else "empty"


def _skipped(skipped: list[str]) -> str:
    return f" Skipped: {_listed(skipped)}." if skipped else ""


def _listed(names: list[str], most: int = 8) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return f"{', '.join(names[:most])}{more}"


def domains_of(root: Path, files: list[Path]) -> dict[str, list[Path]]:
    """The files of each domain, by its name."""
    groups: dict[tuple[str, str], list[Path]]
    if len(files) <= MAX_DOMAINS:
        groups = {(file.relative_to(root).as_posix(), _stem(file)): [file] for file in files}
    else:
        groups = {}
        for file in files:
            parts = file.relative_to(root).parts
            top = parts[0] if len(parts) > 1 else root.resolve().name
            groups.setdefault((top, top), []).append(file)
        if len(groups) > MAX_DOMAINS:
            groups = {("", root.resolve().name): files}
    stems = [_plain(stem) for _, stem in groups]
    names: dict[str, list[Path]] = {}
    for (inner, stem), members in groups.items():
        name = _plain(stem) if stems.count(_plain(stem)) == 1 else _plain(inner)
        while name in names:
            name += "_"
        names[name] = members
    return names


def _stem(file: Path) -> str:
    """The name without .txt, .txt.xz and the like."""
    name = file.name
    if file.suffix.lower() in (".xz", ".gz"):
        name = name[: -len(file.suffix)]
    return Path(name).stem


def _plain(name: str) -> str:
    """A name that can stand in the key of a metric."""
    return re.sub(r"[^\w.-]", "_", name) or "text"


# The standard library ------------------------------------------------------------------------


def _python() -> Corpus:
    """Sources and manuals of this interpreter: always there, and real text."""
    library = Path(sysconfig.get_paths()["stdlib"])
    # private modules hold settings of the build, and sites add files of their own
    modules = [
        file for file in sorted(library.glob("[!_]*.py")) if file.stem in sys.stdlib_module_names
    ]
    packages = [file for name in PACKAGES for file in sorted((library / name).rglob("*.py"))]
    topics: dict[str, str] = {}
    with suppress(ImportError):  # some systems keep it in a package of its own
        topics = import_module("pydoc_data.topics").topics
    parts: dict[str, Iterable[bytes]] = {
        "modules": (file.read_bytes() for file in modules),
        "packages": (file.read_bytes() for file in packages),
        "manuals": (topics[key].encode() for key in sorted(topics)),
    }
    texts = {domain: _first(part, PYTHON_BYTES[domain]) for domain, part in parts.items()}
    texts = {domain: text for domain, text in texts.items() if len(text) >= SHORTEST}
    if not texts:
        raise FileNotFoundError(
            f"{library} holds no source files of Python's library. Give text of your own."
        )
    version = platform.python_version()
    note = (
        f"fallback, because no data set was found: {', '.join(texts)} of the standard library of "
        f"Python {version}. Other versions of Python give other numbers."
    )
    return _split("python", note, "PSF Licence Version 2", texts)


def _first(parts: Iterable[bytes], most: int) -> bytes:
    """The leading parts, joined, that have at most so many bytes together."""
    text = bytearray()
    for part in parts:
        if len(text) + len(part) > most:
            break
        text += part.rstrip(b"\n") + b"\n"
    found = bytes(text)
    check_text(found, "Python's standard library")
    return found
