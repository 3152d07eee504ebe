"""Shards: read from any place, in constant memory, with what is damaged named or counted."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
import tracemalloc

import caption_sets
import numpy as np
import pytest
from PIL import Image

from tenfold.data.captions import own, shards
from tenfold.data.captions.records import Span
from tenfold.data.images.decode import Reading

SKIP = Reading(skip_broken=True)
BLOCK = 512


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(shards, "BLOCK", 3)


def opened(*files, reading=Reading(skip_broken=False)):  # noqa: B008
    return shards.open_shards("folder", files, reading)


def everything(found):
    return [(found.pair(i), found.picture(i).tobytes()) for i in range(len(found))]


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_records_are_those_that_went_in_from_wherever_reading_begins(tmp_path, form):
    long = f"{'folder/' * 20}{'x' * 90}"
    prefix = "" if form == tarfile.USTAR_FORMAT else long
    items = [(prefix + name, said) for name, said in caption_sets.members(range(11))]
    files = [
        caption_sets.shard(tmp_path / "a.tar", items[:10], form),
        caption_sets.shard(tmp_path / "b.tar", items[10:], form),
    ]
    found = opened(*files)
    assert len(found) == 11 and len(found.starts) == 4
    for row in (10, 3, 5, 0):
        assert found.pair(row).caption == f"caption {row}"
        expected = Image.open(io.BytesIO(caption_sets.content(row)))
        assert (found.picture(row) == np.asarray(expected)).all()
    assert found.pair(10).key == f"b.tar/{prefix}0010" and not len(found.objects(0))
    assert found.owners.tolist() == list(range(11))
    again = opened(*files)
    assert everything(again)[6:] == everything(found)[6:]


def test_json_has_captions_and_phrases_and_other_members_are_left(tmp_path):
    said = {"caption": "a cat", "phrases": [{"start": 0, "end": 5, "boxes": [[0, 0, 9, 9]]}]}
    file = caption_sets.shard(
        tmp_path / "a.tar",
        [
            ("__meta__.json", b"{}"), ("a/0.cls", b"1"), ("a/0.txt", b"other"),
            ("a/0.seg.png", b"-"), ("a/0.PNG", caption_sets.content()),
            ("a/0.json", json.dumps(said).encode()), ("a/._0.png", b"-"),
        ],
    )  # fmt: skip
    found = opened(file)
    pair = found.pair(0)
    assert (pair.caption, pair.phrases) == ("a cat", (Span(0, 5, ((0.0, 0.0, 9.0, 9.0),)),))
    assert len(found) == 1 and found.picture(0).shape == (30, 40, 3)


def damaged(tmp_path, change):
    file = caption_sets.shard(tmp_path / "a.tar", caption_sets.members(range(6)))
    file.write_bytes(change(file.read_bytes()))
    return file


CUT = {
    "in the middle of '0003.png'": lambda c: c[: c.index(b"0003.png") + BLOCK + 9],
    "in the middle of '0003.txt'": lambda c: c[: c.index(b"0003.txt") + BLOCK + 3],
    "without the mark of its end": lambda c: c[: c.index(b"0003.png")],
    "without the mark": lambda c: c[: c.index(b"0003.png") + 99],
    "is damaged at byte": lambda c: c.replace(b"0003.png", b"0003\xff\xff\xff\xff"),
}


@pytest.mark.parametrize("said", CUT)
def test_a_cut_shard_is_named_and_what_is_before_can_be_read(tmp_path, said):
    file = damaged(tmp_path, CUT[said])
    with pytest.raises(ValueError, match=rf"a\.tar .*{said}"):
        opened(file)
    found = opened(file, reading=SKIP)
    assert [found.pair(i).caption for i in range(len(found))] == [f"caption {i}" for i in range(3)]
    assert "a.tar" in found.notes[0] and said in found.notes[0]


def test_compressed_and_empty_shards_are_refused(tmp_path):
    file = damaged(tmp_path, gzip.compress)
    with pytest.raises(ValueError, match="is compressed.*unpack it"):
        opened(file)
    file.write_bytes(b"")
    with pytest.raises(ValueError, match="is cut: it ends at byte 0"):
        opened(file)
    caption_sets.shard(file, [])
    with pytest.raises(ValueError, match="the 1 shards have no record"):
        opened(file)


@pytest.mark.parametrize(
    ("members", "said"),
    [
        ([("2.png", caption_sets.content())], "record '2' has no text, only png"),
        ([("2.txt", b"a"), ("2.cls", b"1")], "record '2' has no picture, only cls, txt"),
    ],
)
def test_records_that_lack_a_part_are_named_or_counted(tmp_path, members, said):
    items = caption_sets.members(range(2))
    file = caption_sets.shard(tmp_path / "a.tar", [*members, *items])
    with pytest.raises(ValueError, match=f"{said}.*data.skip_broken"):
        opened(file)
    found = opened(file, reading=SKIP)
    assert len(found) == 2 and said in found.notes[0] and found.pair(0).caption == "caption 0"


@pytest.mark.parametrize(
    ("members", "said"),
    [
        ([("x.png", b"\x89PNG no"), ("x.txt", b"a")], "record 'x' is not a picture"),
        ([("x.png", b""), ("x.txt", b"a")], "record 'x' is not a picture"),
        ([("x.png", caption_sets.content()), ("x.txt", b"caf\xe9")], "no UTF-8"),
        ([("x.png", caption_sets.content()), ("x.txt", b" ")], "caption is empty"),
        ([("x.png", caption_sets.content()), ("x.json", b"[1]")], "JSON is no object"),
        ([("x.png", caption_sets.content()), ("x.json", b'{"caption": "a", "phrases": [{"start": '
          b'0, "end": 4}]}')], "phrase 0-4 is no part of its caption"),
    ],
)  # fmt: skip
def test_a_record_that_cannot_be_read_is_named_or_the_next_stands_in(tmp_path, members, said):
    file = caption_sets.shard(tmp_path / "a.tar", [*members, *caption_sets.members(range(2))])
    found = opened(file)
    with pytest.raises(ValueError, match=f"a.tar: .*{said}"):
        found.pair(0)
        found.picture(0)
    found = opened(file, reading=SKIP)
    assert (found.pair(0).caption, found.pair(1).caption) == ("caption 0", "caption 0")
    assert found.picture(0).tobytes() == found.picture(1).tobytes()
    assert found.notes[0].startswith(
        "records that cannot be read, in whose place stands the next: 1 ("
    )
    assert said in found.notes[0]


def test_headers_state_no_more_than_there_is(tmp_path):
    info = tarfile.TarInfo("a.png")
    for size in (2**62, 8**11 - 1):
        info.size = size
        for kind in (tarfile.REGTYPE, tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.DIRTYPE):
            info.type = kind
            (tmp_path / "a.tar").write_bytes(info.tobuf(tarfile.GNU_FORMAT) + b"\0" * 2 * BLOCK)
            with pytest.raises(ValueError, match="in the middle of 'a.png|has no record"):
                opened(tmp_path / "a.tar")
    info.size, info.type = 2**17, tarfile.XHDTYPE
    (tmp_path / "a.tar").write_bytes(info.tobuf(tarfile.GNU_FORMAT) + b"\0" * 2**18)
    with pytest.raises(ValueError, match="a header of 131072 bytes"):
        opened(tmp_path / "a.tar")


def test_memory_does_not_grow_with_the_shards(tmp_path):
    items, peaks = caption_sets.members(range(40)), []
    for count in (2, 8):
        found = [
            caption_sets.shard(tmp_path / str(count) / f"{i}.tar", items) for i in range(count)
        ]
        tracemalloc.start()
        read = opened(*found)
        for row in range(0, len(read), 2):
            read.pair(row)
        read.picture(7)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    total = sum(file.stat().st_size for file in found)
    assert peaks[1] < 1.5 * peaks[0] and peaks[1] < total / 4


def test_shards_are_divided_by_name_or_held_out(tmp_path):
    for i in range(4):
        caption_sets.shard(tmp_path / f"{i}.tar", caption_sets.members(range(i, i + 1)))
    found = [own.open_set("folder", tmp_path, split) for split in ("train", "test")]
    assert [len(one.files) for one in found] == [3, 1]
    assert not set(found[0].files) & set(found[1].files)
    (tmp_path / "0.tar").rename(tmp_path / "val-0.tar")
    assert [f.name for f in own.open_set("folder", tmp_path, "test").files] == ["val-0.tar"]
    assert len(own.open_set("folder", tmp_path, "train").files) == 3
    (tmp_path / "1.tar").rename(tmp_path / "train-1.tar")
    with pytest.warns(
        UserWarning, match=r"left out: 2.tar, 3.tar \(2 shards\), whose name tells no"
    ):
        assert len(own.open_set("folder", tmp_path, "train").files) == 1
    (tmp_path / "train-1.tar").rename(tmp_path / "1.tar")
    with pytest.raises(ValueError, match="the only shard"):
        own.open_set("folder", tmp_path / "1.tar", "train")
