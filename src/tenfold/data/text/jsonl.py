"""Text in lines of JSON, as corpora of documents are shared: one object a line."""

from __future__ import annotations

import json
from pathlib import Path

ENDINGS = (".jsonl", ".ndjson")


def is_jsonl(file: Path) -> bool:
    """True for a file of lines of JSON, packed (.gz, .xz) or not."""
    name = file.name.lower().removesuffix(".gz").removesuffix(".xz")
    return name.endswith(ENDINGS)


def text(content: bytes, field: str, source: str, first: int = 1) -> bytes:
    """The strings under a field of all lines, each on lines of its own, in UTF-8.

    Args:
        content: Lines of the source, or a part of them.
        field: Name of the field.
        source: File, for errors.
        first: Number of the first of the lines in the source.

    Raises:
        ValueError: A line is no JSON object, or its field is absent or no text; the message names
            source, line and the fields that there are.
    """
    parts = []
    for number, line in enumerate(content.split(b"\n"), first):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ValueError(
                f"{source}, line {number}, is no JSON: {str(error)[:80]}. Mend or remove the line."
            ) from error
        value = record.get(field) if isinstance(record, dict) else None
        if not isinstance(value, str):
            has = ", ".join(map(str, record))[:80] if isinstance(record, dict) else "no fields"
            raise ValueError(
                f"{source}, line {number}, has no text under {field!r} (it has {has}); name the "
                "field with --data.field"
            )
        try:
            parts.append(value.rstrip("\n").encode("utf-8") + b"\n")
        except UnicodeEncodeError as error:  # half of a pair, as "\\ud800"
            raise ValueError(
                f"{source}, line {number}, has half a character under {field!r}: {error.reason}. "
                "Mend or remove the line."
            ) from error
    return b"".join(parts)
