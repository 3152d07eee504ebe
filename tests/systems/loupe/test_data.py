"""Opening sets of captions, the vocabulary, and batches as a function of seed and number."""

from __future__ import annotations

from dataclasses import dataclass

import caption_sets
import pytest
import torch

from tenfold.systems.loupe import data


@dataclass(frozen=True)
class Settings:
    name: str = "emoji_scenes"
    path: str = ""
    generated: tuple[int, int] = (12, 5)
    test_share: float = 0.2
    skip_broken: bool = False
    follow_links: bool = False
    ignore_exif: bool = False


def test_without_the_set_pictures_are_drawn_and_results_say_so(monkeypatch):
    monkeypatch.delenv("TENFOLD_DATA", raising=False)
    with pytest.raises(FileNotFoundError, match="'emoji_scenes' was not found"):
        data.open_captions(Settings(), "train")
    drawn = Settings(name=data.chosen(Settings()))
    found = data.open_captions(drawn, "train")
    assert (len(found), found.kind, data.used(drawn).kind) == (12, "generated", "generated")
    assert len(data.open_captions(drawn, "test")) == 5
    pair = found.pair(0)
    assert {tuple(box) for box in found.objects(0).boxes.tolist()} == {
        box for span in pair.phrases for box in span.boxes
    }
    with pytest.raises(ValueError, match="no split 'test_xstyle'"):
        data.open_captions(drawn, "test_xstyle")


def test_a_folder_that_is_given_is_read(tmp_path):
    settings = Settings(path=str(caption_sets.emoji(tmp_path)))
    assert len(data.open_captions(settings, "test_xstyle")) == 2
    assert data.used(settings).name == "emoji_scenes"
    with pytest.raises(FileNotFoundError, match="does not exist"):
        data.open_captions(Settings(path=str(tmp_path / "nowhere")), "train")


def test_words_are_in_order_of_their_number():
    texts = ["A cat and a dog", "a cat, twice"]
    assert data.vocabulary(texts) == ("a", "cat", ",", "and", "dog", "twice")
    assert data.vocabulary(texts, most=2) == ("a", "cat")
    assert data.vocabulary(texts, least=2) == ("a", "cat")


def test_phrases_are_those_of_the_data_or_found_in_the_text():
    span = data.Span(0, 3)
    assert data.phrases_of(data.Pair(None, "the cat sits on a mat", (span,))) == (span,)
    found = data.phrases_of(data.Pair(None, "the cat sits on a mat"))
    assert [(one.start, one.end) for one in found] == [(0, 7), (16, 21)]
    assert len(data.phrases_of(data.Pair(None, "a cat, a dog, a cow"), most=2)) == 2


def test_a_batch_follows_from_seed_and_number_and_processes_share_it(monkeypatch):
    found = data.open_captions(Settings(name=data.GENERATED), "train")
    batches = data.Batches(found, 4, 0, "train")
    first = [pair.key for pair, _ in batches(1)]
    assert first == [pair.key for pair, _ in data.Batches(found, 4, 0, "train")(1)]
    assert first != [pair.key for pair, _ in data.Batches(found, 4, 1, "train")(1)]
    shares = []
    for rank in range(2):
        world = data.dist.World(rank, 2, torch.device("cpu"))
        monkeypatch.setattr(data.dist, "current", lambda world=world: world)
        shares += [pair.key for pair, _ in batches(1)]
    assert shares == first


# --- shards --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def streamed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards")
    for i in range(3):
        caption_sets.shard(
            folder / f"train-{i}.tar", caption_sets.members(range(8 * i, 8 * i + 8), (8, 8))
        )
    caption_sets.shard(folder / "test.tar", caption_sets.members(range(2), (8, 8)))
    return Settings("folder", str(folder))


def seen(settings, index, rank=0, size=1):
    """Keys and pixels of a process's share of a batch, by a set that was opened for it."""
    data._opened.cache_clear()
    found = data.open_captions(settings, "train")
    with pytest.MonkeyPatch.context() as patch:
        world = data.dist.World(rank, size, torch.device("cpu"))
        patch.setattr(data.dist, "current", lambda: world)
        return [
            (pair, picture.tobytes()) for pair, picture in data.Batches(found, 4, 3, "a")(index)
        ]


def test_shards_go_on_anywhere_and_processes_share_them(streamed):
    found = data.open_captions(streamed, "train")
    batches = data.Batches(found, 4, 3, "a")
    whole = [[(pair, p.tobytes()) for pair, p in batches(index)] for index in range(8)]
    assert seen(streamed, 7) == whole[7]  # begun anew in the middle of the second epoch
    assert seen(streamed, 5, 0, 2) + seen(streamed, 5, 1, 2) == whole[5]
    said = [pair.caption for batch in whole[:6] for pair, _ in batch]
    assert sorted(said) == sorted(f"caption {i}" for i in range(24)) != said
    assert data.used(streamed).kind == "real"


@pytest.mark.parametrize(("count", "batch"), [(101, 7), (64, 64), (33, 4)])
def test_each_epoch_has_each_row_at_most_once_in_windows_of_blocks(count, batch, monkeypatch):
    monkeypatch.setattr(data.Windows, "WINDOW", 2)
    order = data.Windows(count, batch, 0, "a", block=5)
    epochs = [
        [row for i in range(order.steps) for row in order.rows(e * order.steps + i)] for e in (0, 1)
    ]
    for rows in epochs:
        assert len(set(rows)) == len(rows) == count // batch * batch and max(rows) < count
        blocks = [len({row // 5 for row in rows[i : i + 10]}) for i in range(0, len(rows), 10)]
        assert max(blocks) <= 4  # of two windows, where a short block shifts them
    assert epochs[0] != epochs[1] != list(range(len(epochs[1])))
    with pytest.raises(ValueError, match="do not fill one batch of 102"):
        data.Windows(101, 102, 0, "a")


def test_a_folder_of_ones_own_needs_a_path():
    with pytest.raises(FileNotFoundError, match="data.path '' is not there"):
        data.open_captions(Settings("folder"), "train")


def test_records_left_out_are_named_by_all_processes(tmp_path, monkeypatch):
    items = caption_sets.records(3)
    items[0] = {"image": "0.png", "caption": "!?"}
    path = caption_sets.lines(tmp_path, [*items, {"image": "9.png"}])
    with pytest.raises(ValueError, match="line 4: it has no caption.*data.skip_broken"):
        data.open_captions(Settings("folder", str(path)), "train")
    found = data.open_captions(Settings("folder", str(path), skip_broken=True), "train")
    note, bare = data.notes_of(found)
    assert bare == "captions without a phrase: 1 (images/0.png: '!?')"
    assert note.startswith("records left out of a.jsonl: 1 (line 4: it has no caption")
    world = data.dist.World(0, 2, torch.device("cpu"))
    monkeypatch.setattr(data.dist, "current", lambda: world)
    other = "records that cannot be read: 1"
    monkeypatch.setattr(data.dist.World, "gather_objects", lambda self, mine: [mine, (note, other)])
    assert data.notes_of(found) == (note, bare, other)
