"""What spreadsheets write into text files besides the table."""

from __future__ import annotations

import re

SEP = re.compile(r'\A"?sep=[^\r\n]"?(?=[\r\n]|\Z)', re.IGNORECASE)


def without_sep(text: str) -> str:
    """A CSV file's text, or first line, without the words by which Excel is told how to split it.

    The first line (`sep=;`) becomes an empty one, so that lines keep their numbers.
    """
    return SEP.sub("", text, count=1)


def delimiter_of(line: str, known: str = ",;\t") -> str:
    """The one of these signs that stands most often in a header; the first where none does."""
    return max(known, key=line.count)
