"""Readers of captions with a small valid sample, for `readers.py`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import caption_sets


def read(name: str, folder: Path) -> None:
    """Open all splits, strictly and leaving out what is broken, and read them to their ends."""
    from tenfold.data.captions import own
    from tenfold.data.images.decode import Reading

    refused: Exception | None = None
    for skip in (True, False):
        try:
            for split in own.splits_of(name, folder):
                found = own.open_set(name, folder, split, Reading(skip_broken=skip))
                owners = found.owners.tolist()
                for row, owner in enumerate(owners):
                    found.pair(row)
                    if row == 0 or owner != owners[row - 1]:
                        found.picture(row)
                        found.objects(row)
                assert all("\n" not in note for note in found.notes)
        except (ValueError, OSError) as error:
            refused = error
    if refused is not None:
        raise refused


def table(name: str, text: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        for i in range(3):
            caption_sets.photo(folder / "images" / f"{i}.png", i)
        (folder / name).write_text(text)

    return make


def shards(folder: Path) -> None:
    for i in range(2):
        numbers = range(4 * i, 4 * i + 4)
        caption_sets.shard(folder / f"{i}.tar", caption_sets.members(numbers, (8, 8)))


CSV = 'image,caption,split\n0.png,a cat,train\n1.png,"a dog, a mat",val\n2.png,it,train\n'
TOKEN = "0.png#0\ta cat\n1.png#0\ta dog\n2.png#1\tit\n"
MADE = {
    "captions, CSV": (table("a.csv", CSV), "folder", "*.csv"),
    "captions, token": (table("a.token", TOKEN), "folder", "*.token"),
    "captions, lines": (lambda folder: caption_sets.lines(folder) and None, "folder", "*.jsonl"),
    "captions, COCO": (lambda folder: caption_sets.coco(folder) and None, "coco", "*.json"),
    "RefCOCO": (lambda folder: caption_sets.refer(folder) and None, "refcoco", "*.p"),
    "Flickr30k": (lambda folder: caption_sets.flickr30k(folder) and None, "flickr30k", "[SA]*/*"),
    "shards": (shards, "folder", "*.tar"),
    "emoji scenes": (lambda folder: caption_sets.emoji(folder) and None, "emoji_scenes", "*.json*"),
}
CAPTION_READERS = {
    label: (make, partial(read, name), damaged) for label, (make, name, damaged) in MADE.items()
}
"""Name -> what writes a sample into an empty folder, what reads it, files that are damaged."""
