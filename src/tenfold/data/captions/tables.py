"""Tables of pictures and captions: CSV, TSV, JSON and lines of JSON, as people have them.

A table says of each picture its file and one caption or more; JSON may say phrases, objects and the
split too. Read as well are Flickr's lists (`1.jpg#0<tab>caption`) and Karpathy's `dataset_*.json`.
"""

from __future__ import annotations

import csv
import re
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tenfold.files import parse_json, require_bounded

from ..images.decode import SPLITS
from ..images.picture_names import is_picture_name
from ..io.spreadsheets import delimiter_of, without_sep
from .files import Record, objects_of, text_of

MOST_BYTES = 2 * 2**30
"""Largest table that is read."""
MOST_LINE = 2**20
"""Characters of a field, and of a line of JSON."""
TABLES = frozenset((".csv", ".tsv", ".txt", ".token"))
LINES = frozenset((".jsonl", ".ndjson"))
ENDINGS = TABLES | LINES | {".json"}
IMAGE = (
    "image image_path image_name image_file img img_path file file_name file_path filename "
    "filepath path picture photo"
).split()
"""Names of the field that has the picture, the likeliest first."""
CAPTION = "caption captions text sentence sentences title description comment raw txt".split()
SPLIT = ("split", "subset", "partition")
LISTS = ("data", "records", "items", "images", "annotations")
"""Field of an object of JSON that holds the list of records."""
MOST_LOOKED_AT = 64 * 2**20
"""Bytes of a file of JSON that is read to see what it is; a larger one is judged by its begin."""
COCO = frozenset(("info", "licenses", "categories"))
"""Fields of files of COCO's form, which are no tables."""
OWN_SPLITS = {name: split for split, names in SPLITS.items() for name in names} | {
    "restval": "train", "dev": "val",
}  # fmt: skip
"""Stated name of a split -> ours."""
MOST_QUOTED = 50
"""Lines of a quoted cell in a table of tabs; more are a quote that nobody closed."""
COUNTED = re.compile(r"#\d+$")
"""End of a picture's name in Flickr's lists: the number of its caption."""

Rows = Iterator[tuple[str, Record | ValueError]]


def read_table(file: Path) -> Rows:
    """Records of a table, each with its place in the file, or what is wrong with it.

    Raises:
        ValueError: The file as a whole is no table of pictures and captions, or is too large.
        FileNotFoundError: It is not there.
    """
    require_bounded(file, MOST_BYTES)
    with file.open("rb") as opened:
        if opened.read(2) in (b"\xff\xfe", b"\xfe\xff"):  # as spreadsheets write "Unicode text"
            raise ValueError(f"{file} is text in UTF-16. Save it as UTF-8.")
    ending = file.suffix.lower()
    if ending in LINES:
        return _of_lines(file)
    return _of_json(file) if ending == ".json" else _of_table(file)


SENTENCE = 4
"""Fewest words by which a sentence is told from a label."""


def is_table(file: Path) -> bool:
    """Return True for a file whose first record is one of a picture and its caption."""
    ending = file.suffix.lower()
    if ending not in ENDINGS:
        return False
    try:
        if ending == ".json" and file.stat().st_size > MOST_LOOKED_AT:
            with file.open("rb") as opened:
                head = opened.read(2**16).decode("utf-8", "replace").lower()
            keys = set(re.findall(r'"([a-z_]+)"\s*:', head))
            return bool(keys & set(IMAGE) and keys & set(CAPTION) and not keys & COCO)
        _, first = next(read_table(file))
    except (StopIteration, ValueError, OSError):  # no table: another reader may know what it is
        return False
    return isinstance(first, Record) and (ending not in TABLES or _is_said(file, first))


def reason(file: Path) -> str:
    """Say why a file with the ending of a table is none; empty for other files, and large ones."""
    if file.suffix.lower() not in ENDINGS - {".txt"} or file.stat().st_size > MOST_LOOKED_AT:
        return ""
    try:
        where, first = next(read_table(file))
        return f"{file}, {where}: {first}" if isinstance(first, ValueError) else ""
    except StopIteration:
        return f"{file} is empty"
    except (ValueError, OSError) as error:
        return str(error).rstrip(".")


def _is_said(file: Path, first: Record) -> bool:
    """True for a table that names its columns, or whose first row is a sentence of a picture.

    Without names a table may as well be one of labels.
    """
    line = next((line for line in _text_lines(file) if line.strip()), "")
    row = next(csv.reader([line], delimiter=_delimiter(file, line)))
    is_named = _header(file, row) is not None
    return is_named or bool(COUNTED.search(row[0])) or len(first.texts[0][0].split()) >= SENTENCE


# --- lines ---------------------------------------------------------------------------------------


def _text_lines(file: Path) -> Iterator[str]:
    """Lines with their ends; bytes that are no UTF-8 stay as what no caption may hold."""
    with file.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as opened:
        is_first = True
        while line := opened.readline(MOST_LINE + 1):
            if len(line) > MOST_LINE:
                raise ValueError(f"{file} has a line of more than {MOST_LINE} characters")
            yield without_sep(line) if is_first else line
            is_first = False


def _of_lines(file: Path) -> Rows:
    for number, line in enumerate(_text_lines(file), 1):
        if not line.strip():
            continue
        found: Record | ValueError
        try:
            content = parse_json(line)
            if not isinstance(content, dict):
                raise ValueError("it is no object of JSON")
            found = record_of(content)
        except ValueError as error:
            found = error
        yield f"line {number}", found


# --- tables --------------------------------------------------------------------------------------


def _of_table(file: Path) -> Rows:
    """Rows under a line of names, or Flickr's two columns without one."""
    first = next((line for line in _text_lines(file) if line.strip()), "")
    delimiter = _delimiter(file, first)
    lines = (line.replace("\0", "\N{REPLACEMENT CHARACTER}") for line in _text_lines(file))
    rows: Any = csv.reader(lines, delimiter=delimiter)
    if delimiter == "\t":
        named = _header(file, next(csv.reader([first], delimiter=delimiter))) is not None
        rows = _Tabs(lines, is_plain=file.suffix.lower() == ".token" or not named)
    header: list[str] | None = None
    while True:
        try:
            row = next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            yield f"line {rows.line_num}", ValueError(str(error))
            continue
        if not any(cell.strip() for cell in row):
            continue
        where = f"line {rows.line_num}"
        if header is None:
            header = _header(file, row)
            if header is None:
                header = ["image", "caption"]
            else:
                continue
        if len(row) < len(header) or (len(row) > len(header) and delimiter not in ",|"):
            yield where, ValueError(f"it has {len(row)} columns, the table {len(header)}")
            continue
        # a caption with commas in it that nobody quoted, as in Flickr's lists, is the last column
        cells = [*row[: len(header) - 1], delimiter.join(row[len(header) - 1 :])]
        found: Record | ValueError
        try:
            found = record_of(dict(zip(header, cells, strict=True)))
        except ValueError as error:
            found = error
        yield where, found


class _Tabs:
    """Rows of a table of tabs, whose cells may be quoted as CSV has them, or not at all.

    Where nobody quoted, a quote is a character of the caption. So cells lose their quotes only if
    the whole row is what a writer of CSV writes; `is_plain` rows never do.
    """

    def __init__(self, lines: Iterator[str], is_plain: bool) -> None:
        self.line_num = 0
        self._lines, self._is_plain = lines, is_plain
        self._ahead: deque[str] = deque()

    def __iter__(self) -> _Tabs:
        return self

    def __next__(self) -> list[str]:
        row = [self._line()]
        if not self._is_plain:
            while True:
                try:
                    return next(csv.reader(row, delimiter="\t", strict=True))
                except csv.Error as error:
                    if "unexpected end" not in str(error) or not self._goes_on(row):
                        break
            self._ahead.extendleft(reversed(row[1:]))
            self.line_num -= len(row) - 1
        return next(csv.reader(row[:1], delimiter="\t", quoting=csv.QUOTE_NONE))

    def _goes_on(self, row: list[str]) -> bool:
        """Take the next line into a quoted cell, unless it looks like a row of its own."""
        try:
            line = self._line()
        except StopIteration:
            return False
        row.append(line)
        before, tab, _ = line.partition("\t")
        return len(row) <= MOST_QUOTED and not (tab and '"' not in before)

    def _line(self) -> str:
        line = self._ahead.popleft() if self._ahead else next(self._lines)
        self.line_num += 1
        return line


def _delimiter(file: Path, first: str) -> str:
    if "\t" in first or file.suffix.lower() in (".tsv", ".token"):
        return "\t"
    return delimiter_of(first, ",;|")


def _header(file: Path, row: list[str]) -> list[str] | None:
    """Names of the columns; None if the first row is a picture and its caption already."""
    names = _numbered([cell.strip().lower().replace(" ", "_") for cell in row])
    if any(name in IMAGE for name in names) and any(_base(name) in CAPTION for name in names):
        return names
    if len(row) >= 2 and is_picture_name(COUNTED.sub("", row[0].strip())):
        return None
    raise ValueError(
        f"{file} begins with the columns {str(names)[1:-1][:100]}, but needs one of a picture "
        f"({', '.join(IMAGE[:6])}, ...) and one of its caption ({', '.join(CAPTION[:3])}, ...)"
    )


def _numbered(names: Sequence[str]) -> list[str]:
    """The names, of equal ones the second with `_2`, and so on: none takes another's place."""
    found: dict[str, None] = {}
    times: Counter[str] = Counter()
    for name in names:
        free = name
        while free in found:
            times[name] += 1
            free = f"{name}_{times[name] + 1}"
        found[free] = None
    return [*found]


def _base(name: str) -> str:
    """The name of a column of captions of which there may be several: "caption" of "caption_2".

    Pandas writes "caption.1" for the second of one name.
    """
    base = name.rstrip("0123456789")
    return base.removesuffix("_").removesuffix(".") if base != name else name


# --- JSON ----------------------------------------------------------------------------------------


def _of_json(file: Path) -> Rows:
    for number, item in enumerate(read_json_list(file), 1):
        found: Record | ValueError
        try:
            if not isinstance(item, dict):
                raise ValueError("it is no object of JSON")
            found = record_of(item)
        except ValueError as error:
            found = error
        yield f"record {number}", found


def read_json_list(file: Path) -> list[Any]:
    """The list that a JSON file holds, or that a field of its object does.

    Raises:
        ValueError: It holds none, is damaged or too large.
        FileNotFoundError: It is not there.
    """
    require_bounded(file, MOST_BYTES)
    try:
        content = parse_json(file.read_text(encoding="utf-8-sig"))
    except ValueError as error:
        raise ValueError(f"{file} is no JSON: {error}") from error
    if isinstance(content, dict):
        content = next((content[key] for key in LISTS if isinstance(content.get(key), list)), None)
    if not isinstance(content, list):
        raise ValueError(f"{file} holds no list of records ({', '.join(LISTS)})")
    return content


def record_of(item: Mapping[str, Any]) -> Record:
    """The record of a row of a table or an object of JSON.

    Raises:
        ValueError: It lacks a picture or a caption, or something in it does not fit.
    """
    image = next((item[name] for name in IMAGE if name in item), None)
    if not isinstance(image, str) or not image.strip():
        raise ValueError(f"it has no file of a picture ({', '.join(IMAGE[:3])}, ...)")
    image = image.strip()
    if not is_picture_name(image):
        image = COUNTED.sub("", image)
    folder = item.get("filepath")
    if isinstance(folder, str) and "filename" in item:  # Karpathy's
        image = f"{folder}/{item['filename']}"
    bases = {_base(name) for name in item}
    base = next((name for name in CAPTION if name in bases), "")
    stated = [value for name, value in item.items() if _base(name) == base]
    captions = [one for value in stated for one in (value if isinstance(value, list) else [value])]
    captions = [one.get("raw", one) if isinstance(one, dict) else one for one in captions]
    if not captions:
        raise ValueError(f"it has no caption ({', '.join(CAPTION[:3])}, ...)")
    phrases = item.get("phrases")
    if phrases is not None and len(captions) > 1:
        raise ValueError("it has phrases and several captions: give each caption its own record")
    split = next((item[name] for name in SPLIT if name in item), "")
    if not isinstance(split, str) or split.strip().lower() not in ("", *OWN_SPLITS):
        raise ValueError(f"its split is {str(split)[:40]!r}, expected {', '.join(OWN_SPLITS)}")
    return Record(
        image,
        tuple(text_of(one, phrases) for one in captions),
        objects_of(item["objects"]) if item.get("objects") is not None else (),
        OWN_SPLITS.get(split.strip().lower(), ""),
    )
