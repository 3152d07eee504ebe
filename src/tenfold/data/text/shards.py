"""Texts as tokens on disk: made once, in constant memory, and read where they lie.

A folder holds `index.json` and a file of ids a domain (little-endian, 8, 16 or 32 bits), which is
mapped into memory: a window is read from the disk when it is drawn, whatever the whole has.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from jaxtyping import UInt

from tenfold.files import parse_json, require_bounded, require_empty, write_json

from . import jsonl
from .corpus import HELD_LEAST, PIECE, check_text, domains_of, unpacked, walked
from .tokenizer_file import FileTokenizer, read_tokenizer
from .tokens import BpeTokenizer, ByteTokenizer, Tokenizer, from_spec

INDEX = "index.json"
FORMAT = "tenfold tokens 1"
MOST_INDEX = 2**26
"""Bytes of an index; the tokenizer stands in it."""
KINDS: dict[str, Any] = {"uint8": np.uint8, "uint16": np.uint16, "uint32": np.uint32}
SPLITS = ("train", "validation", "test")
LONGEST_LINE = 2**24
"""Most bytes without a line end: pieces are cut at line ends."""


@dataclass(frozen=True)
class Domain:
    """A domain's file."""

    name: str
    file: str
    tokens: int
    bytes: int
    """Bytes of the text."""
    validation: int
    """First token of the validation split, which ends where the test split begins."""
    test: int
    """First token of the test split, which goes to the end."""


@dataclass(frozen=True)
class Tokens:
    """A folder of tokens."""

    folder: Path
    tokenizer: str
    """byte, bpe or file."""
    learnt: str
    """What the tokenizer needs (`to_json`)."""
    kind: str
    """Type of the ids."""
    domains: tuple[Domain, ...]
    note: str
    """Description of the text that they are of, and of what was left out."""

    @property
    def sizes(self) -> dict[str, int]:
        """Bytes of each domain's text."""
        return {domain.name: domain.bytes for domain in self.domains}

    def ids(self, split: str) -> dict[str, UInt[np.ndarray, " _"]]:
        """Ids of a split's domains, mapped into memory and read-only."""
        found = {}
        for one in self.domains:
            whole = np.memmap(self.folder / one.file, KINDS[self.kind], "r", shape=(one.tokens,))
            start, end = {
                "train": (0, one.validation),
                "validation": (one.validation, one.test),
                "test": (one.test, one.tokens),
            }[split]
            found[one.name] = whole[start:end]
        return found


def is_tokens(path: Path) -> bool:
    """True for a folder that `write` made."""
    return (path / INDEX).is_file()


def read(folder: Path) -> Tokens:
    """Open a folder of tokens; the files are mapped when ids are asked for.

    Raises:
        FileNotFoundError: A file is missing.
        ValueError: The index is damaged, or a file has another size than it says.
    """
    index = folder / INDEX
    require_bounded(index, MOST_INDEX)
    content = parse_json(index.read_text("utf-8"))
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ValueError(f"{index} is no index of tokens; `tenfold data tokenise` writes one")
    try:
        domains = tuple(Domain(**one) for one in content["domains"])
        found = Tokens(
            folder, content["tokenizer"], content["learnt"], content["kind"], domains,
            content["note"],
        )  # fmt: skip
        size = np.dtype(KINDS[found.kind]).itemsize
    except (KeyError, TypeError) as error:
        raise ValueError(f"{index} is damaged ({error}); make the tokens again") from error
    for one in domains:
        numbers = (one.tokens, one.bytes, one.validation, one.test)
        if any(type(number) is not int for number in numbers) or Path(one.file).name != one.file:
            raise ValueError(f"{index} is damaged at {str(one.name)[:40]!r}; make the tokens again")
        file = folder / one.file
        if not file.is_file():
            raise FileNotFoundError(f"{file} is missing; copy the folder again")
        if (
            not 0 < one.validation < one.test < one.tokens
            or file.stat().st_size != one.tokens * size
        ):
            raise ValueError(
                f"{file} has {file.stat().st_size} bytes, but {index} says {one.tokens} ids of "
                f"{size}; copy it again"
            )
    if not domains:
        raise ValueError(f"{index} names no domain; make the tokens again")
    from_spec(found.tokenizer, found.learnt)  # type: ignore[arg-type]
    return found


def write(
    source: Path,
    out: Path,
    tokenizer: Tokenizer,
    name: str,
    field: str = "text",
    progress: Callable[[int], None] = lambda read: None,
) -> Tokens:
    """Turn a file or a folder of text into a folder of tokens, a piece at a time.

    Args:
        source: UTF-8 text (plain, .gz, .xz, .jsonl), or a folder of such; domains as in `load`.
        out: New or empty folder; it appears when it is whole.
        tokenizer: Text to ids.
        name: What the tokenizer is called: byte, bpe or file.
        field: Field of lines of JSON that holds the text.
        progress: Told how many bytes of a domain's text are behind, as they pass.

    Returns:
        What is then in `out`.

    Raises:
        FileNotFoundError: There is no such text.
        ValueError: A text is damaged, no UTF-8, or too short; `out` holds anything.
    """
    require_empty(out, "OUT")
    root, files, skipped = walked(source)
    out.parent.mkdir(parents=True, exist_ok=True)
    # a name that nobody has: what lies beside OUT is the user's
    temporary = Path(tempfile.mkdtemp(prefix=f".{out.name}-", suffix=".tmp", dir=out.parent))
    temporary.chmod(0o755)
    kind = next(k for k, t in KINDS.items() if tokenizer.vocab - 1 <= np.iinfo(t).max)
    try:
        domains = []
        for number, (domain, members) in enumerate(domains_of(root, files).items()):
            file = f"{number:03}.{kind}"
            with (temporary / file).open("wb") as target:
                made = _encoded(members, target, tokenizer, KINDS[kind], field, progress)
            split = _split(*made)
            if split is None:
                (temporary / file).unlink()
                skipped.append(f"{domain} (too short)")
                continue
            domains.append(Domain(domain, file, *made, *split))
        if not domains:
            raise ValueError(f"{source} has too little text; give {2 * HELD_LEAST} tokens or more")
        left_out = f" Skipped: {', '.join(skipped[:8])}." if skipped else ""
        note = f"{len(files)} files of {root.resolve().name}, as tokens.{left_out}"
        content: dict[str, Any] = {
            "format": FORMAT, "tokenizer": name, "learnt": tokenizer.to_json(), "kind": kind,
            "domains": [asdict(one) for one in domains], "note": note,
        }  # fmt: skip
        write_json(temporary / INDEX, content)
        if out.exists():
            out.rmdir()
        temporary.rename(out)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return read(out)


def tokenizer_of(wish: str, vocab: int, source: Path, field: str = "text") -> tuple[Tokenizer, str]:
    """The tokenizer that a user asks for, and what it is called.

    Args:
        wish: byte, bpe (learned from the beginning of each domain of `source`), or the file of a
            tokenizer.json.
        vocab: Tokens of bpe.
        source: The text.
        field: Field of lines of JSON.
    """
    if wish == "byte":
        return ByteTokenizer(), "byte"
    if wish == "bpe":
        root, files, _ = walked(source)
        parts = []
        for members in domains_of(root, files).values():
            _, piece = next(_pieces(members[0]), (0, b""))
            is_lines = jsonl.is_jsonl(members[0])
            parts.append(jsonl.text(piece, field, str(members[0])) if is_lines else piece)
        return BpeTokenizer.train(parts, vocab), "bpe"
    return read_tokenizer(Path(wish)), "file"


def _encoded(
    files: list[Path], target: IO[bytes], tokenizer: Tokenizer, kind: Any, field: str,
    progress: Callable[[int], None],
) -> tuple[int, int]:  # fmt: skip
    """Ids of some files one after another into a file; how many, and of how many bytes."""
    tokens = size = 0
    for file in files:
        is_lines = jsonl.is_jsonl(file)
        for before, piece in _pieces(file):
            text = jsonl.text(piece, field, str(file), before + 1) if is_lines else piece
            ids = tokenizer.encode(text)
            if isinstance(tokenizer, FileTokenizer):
                tokenizer.require_whole(text, ids, str(file))
            target.write(ids.astype(np.dtype(kind).newbyteorder("<")).tobytes())
            tokens, size = tokens + len(ids), size + len(text)
            progress(len(piece))
    return tokens, size


def _pieces(file: Path) -> Iterator[tuple[int, bytes]]:
    """A file's text in pieces of about a mebibyte that end at line ends; each is UTF-8.

    With each comes the number of lines before it, by which errors count on.
    """
    rest = b""
    size = lines = 0
    with unpacked(file) as stream:
        while part := stream.read(PIECE):
            part = rest + part
            end = part.rfind(b"\n") + 1
            if not end and len(part) > LONGEST_LINE:
                raise ValueError(
                    f"{file} has a line of more than {LONGEST_LINE} bytes; break long lines"
                )
            piece, rest = part[:end], part[end:]
            if piece:
                check_text(piece, str(file), (size, lines))
                yield lines, piece
                size, lines = size + len(piece), lines + piece.count(b"\n")
    if rest:
        check_text(rest, str(file), (size, lines))
        yield lines, rest if rest.endswith(b"\n") else rest + b"\n"


def _split(tokens: int, _: int) -> tuple[int, int] | None:
    """First tokens of validation and test: 5 % each at the end; None if there are too few."""
    held = max(tokens // 20, min(HELD_LEAST, tokens // 4))
    return (tokens - 2 * held, tokens - held) if held > 1 and tokens > 4 * held - 1 else None
