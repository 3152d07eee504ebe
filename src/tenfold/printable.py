"""Text of users and files as a terminal, a page and a table may show it."""

from __future__ import annotations


class Lines(str):
    """Text of an error or a warning that has several lines on purpose.

    All others are shown as one line, whatever the names of files in them hold.
    """


def shown(error: BaseException) -> str:
    """The text of an error or a warning as a terminal may show it."""
    text = str(error)
    meant = any(isinstance(part, Lines) for part in error.args)
    return printable(text, "\n" if meant else "")


def printable(text: str, keep: str = "") -> str:
    """Text that any file can hold and any reader can show: names of files may be any bytes.

    Control characters (escape sequences that would steer a terminal), marks that turn the
    direction of writing and halves of characters become U+FFFD, but for those in `keep`.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep else "\ufffd" for c in text)
