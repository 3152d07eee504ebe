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


def test_without_the_set_pictures_are_drawn_and_results_say_so(monkeypatch):
    monkeypatch.delenv("TENFOLD_DATA", raising=False)
    found = data.open_captions(Settings(), "train")
    assert (len(found), found.kind, data.used(Settings()).kind) == (12, "generated", "generated")
    assert len(data.open_captions(Settings(), "test")) == 5
    pair = found.pair(0)
    assert {tuple(box) for box in found.objects(0).boxes.tolist()} == {
        box for span in pair.phrases for box in span.boxes
    }
    with pytest.raises(ValueError, match="no split 'test_xstyle'"):
        data.open_captions(Settings(), "test_xstyle")


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
