"""Shards of WebDataset's layout: tar files in which the members of a record stand side by side.

A record is `<key>.jpg` (or another picture) with `<key>.txt`, `<key>.caption`, or `<key>.json` of
the fields that lines of JSON have. Nothing but headers is read when shards are opened; of them, one
place in BLOCK records is kept, so that reading can go on anywhere. Pictures are read one by one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np
from jaxtyping import Int64

from tenfold.files import parse_json
from tenfold.structures import Instances

from ..images.decode import ENDINGS, USUAL, Reading, decode
from .files import Text, text_of
from .records import Kind, LeftOut, Pair, Picture, instances
from .tables import CAPTION
from .tar_headers import Member, members

BLOCK = 1024
"""Records between two places that are kept."""
KEPT = 24
"""Blocks whose places are held."""
MOST_PICTURE = 2**28
MOST_TEXT = 2**20
"""Bytes of a member."""
NAME = re.compile(r"((?:.*/|)[^./]+)\.([^/]*)")
"""Key and ending of a member, as WebDataset divides them: at the first point of the last part."""
TEXTS = ("json", "txt", "caption", "text")
"""Endings of captions, the first of which is read."""


@dataclass(frozen=True)
class Place:
    """Where the members of a record lie."""

    shard: int
    key: str
    picture: Member
    text: Member


Group = dict[str, Member]
"""Members of one key, by ending in small letters."""


def _grouped(found: Iterator[Member]) -> Iterator[tuple[str, Group, str]]:
    """Members of one key that stand side by side; with the last ones, what stopped the reading."""
    key, group, problem = "", Group(), ""
    while True:
        try:
            member = next(found, None)
        except ValueError as error:
            member, problem = None, str(error)
        if member is None:
            break
        match = NAME.fullmatch(member.name)
        if match is None or match[1].startswith("__"):  # hidden, or of the tool that wrote it
            continue
        if match[1] != key and group:
            yield key, group, ""
            group = {}
        key = match[1]
        group.setdefault(match[2].lower(), member)
    if group or problem:
        yield key, group, problem


def places(
    shard: int, file: Path, at: int = 0, left: LeftOut | None = None, reading: Reading = USUAL
) -> Iterator[Place]:
    """Yield the records of a shard from byte `at` on.

    Raises:
        ValueError: A record lacks a picture or a text, or the shard is damaged. With
            `reading.skip_broken` the record, or the rest of the shard, is left out instead, and
            noted in `left` if there is one.
    """
    with file.open("rb") as opened:
        for key, group, damage in _grouped(members(opened, file, at)):
            picture = next((m for end, m in group.items() if f".{end}" in ENDINGS), None)
            text = next((group[end] for end in TEXTS if end in group), None)
            problem = ""
            if picture is None or text is None:
                missing = "text" if picture else "picture"
                problem = f"has no {missing}, only {', '.join(sorted(group))[:80]}"
            elif picture.size > MOST_PICTURE or text.size > MOST_TEXT:
                problem = (
                    f"has a picture of {picture.size} and a text of {text.size} bytes, more than "
                    f"{MOST_PICTURE} or {MOST_TEXT}"
                )
            else:
                yield Place(shard, key, picture, text)
            said = damage or (problem and f"{file}: record {key[:80]!r} {problem}")
            if said and not reading.skip_broken:
                raise ValueError(
                    f"{said}. Make the shard anew, or set data.skip_broken to go on without"
                )
            if said and left is not None:
                left.add(said)


@dataclass(frozen=True, eq=False)
class Shards:
    """Records of shards, by number."""

    name: str
    files: tuple[Path, ...]
    count: int
    starts: tuple[tuple[int, int], ...]
    """Shard and byte of every BLOCKth record."""
    reading: Reading = USUAL
    left: LeftOut = field(default_factory=LeftOut, repr=False, compare=False)
    kind: Kind = "real"
    names: tuple[str, ...] = ()
    replaced: dict[int, str] = field(default_factory=dict, repr=False, compare=False)
    """Number -> reason, of records that another stood in for."""

    def __len__(self) -> int:
        return self.count

    @property
    def owners(self) -> Int64[np.ndarray, " pair"]:
        """Each record is a picture of its own."""
        return np.arange(self.count, dtype=np.int64)

    @property
    def notes(self) -> tuple[str, ...]:
        """What was left out of the shards, and replaced by the next record."""
        swapped = LeftOut()
        for reason in self.replaced.values():
            swapped.add(reason)
        return (
            *self.left.said("records or ends of shards were left out"),
            *swapped.said("records could not be read, and the next stood in for them"),
        )

    def pair(self, index: int) -> Pair:
        """A caption with its phrases; the picture is asked for by itself."""
        return self._sound(index)[0]

    def picture(self, index: int) -> Picture:
        """The picture of a record.

        Raises:
            ValueError: It cannot be read; the error names shard and record. With `skip_broken` the
                next record that can be read stands in, with its caption.
        """
        place, found = self._place(index), self._sound(index)
        return self._picture(place) if found[1] is None else found[1]

    def objects(self, index: int) -> Instances:
        """No objects: shards are for training."""
        return instances([], [])

    # --- reading ---------------------------------------------------------------------------------

    def _place(self, index: int) -> Place:
        if not 0 <= index < self.count:
            raise IndexError(f"record {index} of {self.count}")
        return _block(self, index // BLOCK)[index % BLOCK]

    def _sound(self, index: int) -> tuple[Pair, Picture | None]:
        """The record, or with `skip_broken` the next whole one, which is decoded to know."""
        if not self.reading.skip_broken:
            return self._pair(self._place(index)), None
        return _decoded(self, index)

    def _bytes(self, place: Place, member: Member) -> bytes:
        with self.files[place.shard].open("rb") as opened:
            opened.seek(member.offset)
            found = opened.read(member.size)
        if len(found) < member.size:
            raise ValueError(f"{self._named(place)} was cut since it was opened")
        return found

    def _named(self, place: Place) -> str:
        return f"{self.files[place.shard]}: record {place.key[:80]!r}"

    def _pair(self, place: Place) -> Pair:
        try:
            caption, phrases = _text(place.text.name, self._bytes(place, place.text))
        except ValueError as error:
            raise ValueError(f"{self._named(place)}: {error}") from error
        return Pair(None, caption, phrases, f"{self.files[place.shard].name}/{place.key}")

    def _picture(self, place: Place) -> Picture:
        return decode(self._bytes(place, place.picture), self._named(place))


def _text(name: str, content: bytes) -> Text:
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"its caption is no UTF-8 text: {error.reason}") from error
    if not name.lower().endswith(".json"):
        return text_of(text)
    found = parse_json(text)
    if not isinstance(found, dict):
        raise ValueError("its JSON is no object")
    caption = next((found[name] for name in CAPTION if name in found), None)
    return text_of(caption, found.get("phrases"))


@lru_cache(maxsize=KEPT)
def _block(shards: Shards, number: int) -> list[Place]:
    shard, at = shards.starts[number]
    wanted = min(BLOCK, shards.count - number * BLOCK)
    found: list[Place] = []
    while len(found) < wanted:
        for place in places(shard, shards.files[shard], at, reading=shards.reading):
            found.append(place)
            if len(found) == wanted:
                break
        else:
            shard, at = shard + 1, 0
            if shard == len(shards.files):
                raise ValueError(f"{shards.files[-1]} has lost records since it was opened")
    return found


@lru_cache(maxsize=4)
def _decoded(shards: Shards, index: int) -> tuple[Pair, Picture]:
    for step in range(shards.count):
        row = (index + step) % shards.count
        if row in shards.replaced:
            continue
        try:
            place = shards._place(row)
            return shards._pair(place), shards._picture(place)
        except (ValueError, OSError) as error:
            shards.replaced[row] = str(error)
    raise ValueError(f"{shards.files[0]}: none of {shards.count} records can be read")


def open_shards(name: str, files: Sequence[Path], reading: Reading = USUAL) -> Shards:
    """Open shards, in this order.

    Raises:
        ValueError: A shard is cut, damaged or compressed, or a record lacks a part; with
            `reading.skip_broken` it is left out, counted and named in `notes`.
        FileNotFoundError: There is no shard.
    """
    if not files:
        raise FileNotFoundError(f"{name}: there is no shard (*.tar)")
    count, starts, left = 0, [], LeftOut()
    for shard, file in enumerate(files):
        for place in places(shard, file, 0, left, reading):
            if count % BLOCK == 0:
                starts.append((shard, min(place.picture.start, place.text.start)))
            count += 1
    if not count:
        raise ValueError(f"{files[0].parent}: the {len(files)} shards have no record to read")
    return Shards(name, tuple(files), count, tuple(starts), reading, left)
