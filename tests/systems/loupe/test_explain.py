"""Explanations of matches whose games are known, and of CLIP beside plain masked encodings."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from clip_files import HEADS, MERGES, TEXT, VISION, clip
from torch import Tensor

from tenfold.core.capabilities import PictureParts, SentenceParts
from tenfold.data.text.clip_tokens import ClipTokenizer
from tenfold.systems.loupe.clip import ClipDual, prepared
from tenfold.systems.loupe.explain import ExplainOptions, explain
from tenfold.systems.loupe.explain.judge import LESS, WHOLE, judge
from tenfold.systems.loupe.explain.page import answer, strongest_pairs, with_error, write
from tenfold.systems.loupe.explain.players import inside, players_of
from tenfold.systems.loupe.explain.study import Case, study
from tenfold.systems.loupe.faithfulness import Measured
from tenfold.weights.clip import ClipSettings
from tenfold.weights.clip_vit import ClipLayout

PHOTO = np.random.RandomState(0).randint(0, 256, (30, 60, 3)).astype(np.uint8)
ALPHA = torch.tensor([0.3, -0.1, 0.05, 0.2, 0.0, 0.15]).double()
BETA = {"red": 0.4, "dog": 0.3, "the": 0.0, "cat": -0.2}


class Product:
    """The logit is 10 * (sum of patches) * (sum of words): all interactions are known."""

    name, scale = "product", 10.0

    def picture(self, photo: np.ndarray) -> PictureParts:
        def encode(masks: Tensor) -> Tensor:
            f = masks.double() @ ALPHA
            return torch.stack([f, (1 - f**2).sqrt(), 0 * f], 1).float()

        return PictureParts((2, 3), (0.0, 0.0, 60.0, 30.0), encode)

    def sentence(self, text: str) -> SentenceParts:
        beta = torch.tensor([BETA[word] for word in text.split()]).double()

        def encode(masks: Tensor) -> Tensor:
            g = masks.double() @ beta
            return torch.stack([g, 0 * g, (1 - g**2).sqrt()], 1).float()

        return SentenceParts(tuple(text.split()), encode)


def close(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=0, atol=1e-5)


@pytest.mark.parametrize("p", [0.5, 0.3])
def test_a_match_whose_game_is_known(p: float) -> None:
    options = ExplainOptions(("the cat",), "0,0,35,15", p=p, pictures=64, texts=64, regions=8)
    said = explain(Product(), PHOTO, "red the dog", options).explanation
    beta = torch.tensor([0.4, 0.0, 0.3]).double()
    close(said.pairs.value, 10 * ALPHA[:, None] * beta)
    assert said.pairs.standard_error.max() < 1e-5, "nothing is left of the fit"
    close(said.each_word.value, 10 * p * ALPHA.sum() * beta)
    close(said.patches.value, 10 * p * beta.sum() * ALPHA)
    close(said.shown.value[:, 0], 10 * 0.7 * ALPHA)
    close(said.shown.value[:, 1], 10 * (0.7 + 0.2) * ALPHA)
    assert said.logits == pytest.approx((10 * 0.6 * 0.7, 10 * 0.6 * -0.2))
    assert said.nothing == pytest.approx(0)
    box = said.box
    assert box is not None and box.members.tolist() == [True, True, False, False, False, False]
    assert (box.alone, box.without) == (
        pytest.approx(10 * 0.2 * 0.7),
        pytest.approx(10 * 0.4 * 0.7),
    )
    close(box.value.value, torch.tensor([10 * 0.2 * 0.7, 10 * 0.2 * 0.9]).double())
    close(box.together.value, torch.zeros(2).double())
    close(box.words.value, 10 * 0.2 * beta)
    assert answer(said, box).startswith("Yes: the box supports it more than sentences that do not")
    assert [pair[:2] for pair in strongest_pairs(said)[:2]] == [(0, 0), (0, 2)]


def test_an_explanation_is_judged() -> None:
    options = ExplainOptions(box="0,0,20,15", pictures=48, regions=8, seed=3)
    match = explain(Product(), PHOTO, "red dog", options)
    found = judge(match)
    assert found.has_patch_pairs and found.pairs.value == pytest.approx(1, abs=1e-6)
    assert found.heat.value < 1 - 2 * found.heat.standard_error
    assert found.by_pairs.gain >= found.by_heat.gain - 1e-6
    assert found.by_heat.gain > found.random.value
    assert found.by_heat.insertion[-1] == pytest.approx(match.explanation.logits[0])
    assert found.pointing.keys() == {WHOLE, "1 red", "2 dog"}
    assert found.pointing[WHOLE].hit == 1 and found.pointing[WHOLE].chance == pytest.approx(1 / 6)
    against = replace(options, against=("the cat",))
    assert LESS in judge(explain(Product(), PHOTO, "red dog", against)).pointing


def test_a_file_is_in_the_way_of_an_explanation(tmp_path: Path) -> None:
    said = explain(Product(), PHOTO, "red dog", ExplainOptions(regions=8)).explanation
    (tmp_path / "out").write_text("mine")
    with pytest.raises(ValueError, match="out is a file; give a folder"):
        write(tmp_path / "out", "photo.png", PHOTO, said, None)
    assert len(write(tmp_path / "new", "photo.png", PHOTO, said, None)) == 3


def test_a_study_of_many_photos() -> None:
    cases = [Case(PHOTO, "the red dog", ("the cat",), "dog", (0.0, 0.0, 20.0, 15.0))] * 3
    found = study(Product(), cases, ExplainOptions(pictures=48, regions=4))
    assert found["r2/pairs"].value == pytest.approx(1, abs=1e-5)
    less = found["r2/pairs less heat map"]
    assert less.value > 2 * less.standard_error > 0, "each photo has draws of its own"
    assert found["hit/word"] == found["hit/sentence"] == found["right"] == Measured(1.0, 0.0)
    assert found["chance"].value == pytest.approx(1 / 6)
    assert found["inside/word"].value == pytest.approx(0.3 / 0.7, abs=1e-3)
    assert found["gain/pairs less heat map"].value > -1e-6


def test_a_box_that_says_no_or_nothing() -> None:
    options = ExplainOptions(box="21,0,40,15", pictures=48, regions=8)
    said = explain(Product(), PHOTO, "red dog", options).explanation
    assert said.box is not None and said.box.members.tolist() == [False, True] + 4 * [False]
    assert (
        answer(said, said.box)
        == "No: the box speaks against the sentence, by 0.70000 ± 0.00000 logits."
    )
    noisy = replace(said.box.value, standard_error=torch.tensor([1.0]))
    assert answer(said, replace(said.box, value=noisy)).startswith("Not to be told: -0.7 ± 1.0")
    assert with_error(1.23456, 0.0123) == "+1.235 ± 0.012"
    assert with_error(1.0, float("inf")) == "+1.00 ± inf"


def test_players_are_patches_or_squares_of_them() -> None:
    found = players_of((5, 4), (10.0, 0.0, 50.0, 50.0), 6)
    assert (found.rows, found.columns, len(found)) == (3, 2, 6)
    assert found.members.sum() == 20 and found.members.sum(1).tolist() == [4, 4, 4, 4, 2, 2]
    assert found.members[1].nonzero()[:, 0].tolist() == [2, 3, 6, 7]
    assert found.cells[0] == (10, 0, 30, 20) and found.cells[-1] == (30, 40, 50, 50)
    alone = players_of((5, 4), (10.0, 0.0, 50.0, 50.0), 20)
    assert len(alone) == 20 and torch.equal(alone.members, torch.eye(20).bool())
    size = (60, 50)
    assert inside(alone, (10.0, 0.0, 20.0, 10.0), size).nonzero()[:, 0].tolist() == [0]
    assert inside(alone, (21.0, 11.0, 23.0, 13.0), size).nonzero()[:, 0].tolist() == [5], (
        "its own patch"
    )
    assert inside(alone, (0.0, 0.0, 60.0, 50.0), size).all()
    with pytest.raises(ValueError, match="0,0,61,50 does not lie in the photo of 60 x 50 pixels"):
        inside(alone, (0.0, 0.0, 61.0, 50.0), size)
    with pytest.raises(ValueError, match="does not see the box 0,0,5,5: .* takes 10,0,50,50"):
        inside(alone, (0.0, 0.0, 5.0, 5.0), size)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pictures": 7}, "pictures must be 8 to 65536, got 7"),
        ({"texts": 10**9}, "texts must be 2 to 65536, got 1000000000"),
        ({"pictures": 65536, "texts": 4096}, "are more than 67108864 values"),
        ({"regions": 5}, "must be even"),
        ({"p": 1.0}, "p must lie between 0 and 1, got 1.0"),
        ({"players": 0}, "players must be 1 to 256"),
        ({"against": ("a cat", " ")}, "a sentence of --against is empty"),
        ({"box": "1,2,3"}, "four numbers x0,y0,x1,y1, got '1,2,3'"),
        ({"box": "1,2,nan,4"}, "four numbers"),
        ({"box": "5,2,5,4"}, "the box 5,2,5,4 has no area"),
    ],
)
def test_options_that_cannot_be(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ExplainOptions(**change)  # type: ignore[arg-type]


# --- CLIP ----------------------------------------------------------------------------------------


def opened(absent: str = "grey", resize: str = "shorter") -> ClipDual:
    settings = ClipSettings(HEADS, resize=resize, assumed=False)  # type: ignore[arg-type]
    return ClipDual(clip(settings=settings), ClipTokenizer(MERGES), "tiny", absent)


def test_a_photo_is_prepared_as_by_the_official_code() -> None:
    settings = ClipSettings(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    flat = np.full((30, 60, 3), 128, np.uint8)
    flat[:, :16] = 0
    image, window = prepared(flat, 24, settings)
    assert image.shape == (3, 24, 24) and window == (15.0, 0.0, 45.0, 30.0)
    assert float(image[0, 12, 12]) == pytest.approx(128 / 255) and image[0, 12, 0] < 0.5
    tall, window = prepared(flat.transpose(1, 0, 2), 24, settings)
    assert window == (0.0, 15.0, 30.0, 45.0)
    squashed, window = prepared(flat, 24, replace(settings, resize="squash"))
    assert window == (0.0, 0.0, 60.0, 30.0) and squashed.shape == (3, 24, 24)


def test_absent_patches_of_clip() -> None:
    masks = torch.rand(70, 9, generator=torch.Generator().manual_seed(0)) < 0.5
    masks[0], masks[1] = False, True
    for absent in ("grey", "removed"):
        dual = opened(absent)
        parts = dual.picture(PHOTO)
        assert (parts.grid, parts.window) == ((3, 3), (15.0, 0.0, 45.0, 30.0))
        found = parts.encode(masks)
        image, _ = prepared(PHOTO, 24, dual.settings)
        close(found[1:2], dual.visual(image[None]))
        for row in (0, 5):
            kept = masks[row].view(3, 3).repeat_interleave(8, 0).repeat_interleave(8, 1)
            if absent == "grey":
                want = dual.visual((image * kept)[None])
            else:
                want = dual.visual.encode(dual.visual.patches(image[None]), masks[row][None])
            close(found[row : row + 1], want)
    with pytest.raises(ValueError, match="left out grey or removed, not 'tokens'"):
        opened("tokens")


def test_absent_words_of_clip() -> None:
    dual = opened()
    parts = dual.sentence("  A red Dog, &amp;  sky!")
    assert parts.words == ("a", "red", "dog,", "&", "sky!")
    tokens = torch.from_numpy(dual.tokenizer.table(["a red dog, & sky!"], TEXT.context))
    masks = torch.tensor([[True] * 5, [True, False, False, True, True], [False] * 5])
    found = parts.encode(masks)
    close(found[:1], dual.text(tokens))
    count = [len(dual.tokenizer.encode(word)) for word in parts.words]
    starts = np.cumsum([1, *count]).tolist()
    kept = torch.zeros_like(tokens).bool()
    kept[0, 0] = kept[0, starts[-1]] = True
    for word, (a, b) in enumerate(pairwise(starts)):
        kept[0, a:b] = masks[1, word]
    close(found[1:2], dual.text(tokens, kept))
    with pytest.raises(ValueError, match="has no word"):
        dual.sentence("  ")
    with pytest.raises(ValueError, match="tokens with start and end, of which CLIP reads 16"):
        dual.sentence("elephants " * 9)
    with pytest.raises(ValueError, match="tiny has 520 tokens, the table of merges 519"):
        ClipDual(clip(), ClipTokenizer(MERGES[:-1]), "tiny")


def test_an_explanation_of_clip_is_that_of_all_coalitions() -> None:
    """Nine patches and three words: estimates lie about the indices of the whole table."""
    from tenfold.systems.loupe.games import exact

    dual = opened()
    options = ExplainOptions(pictures=256, box="15,0,31,30", regions=16, judge=False)
    match = explain(dual, PHOTO, "red sky dog", options)
    said = match.explanation

    def score(masks: Tensor) -> Tensor:
        both = match.photo(masks[:, :9]) * match.sentence(masks[:, 9:])
        return said.scale * both.sum(1)

    table = exact.table(score, 12)
    pairs = exact.pairs(table, 0.5)[:9, 9:]
    off = (said.pairs.value - pairs).abs() / said.pairs.standard_error
    assert off.max() < 5 and off.square().mean() < 2.5
    values = exact.values(table, 0.5)
    assert ((said.patches.value - values[:9]).abs() < 5 * said.patches.standard_error).all()
    assert ((said.each_word.value - values[9:]).abs() < 5 * said.each_word.standard_error).all()
    whole = exact.table(
        lambda masks: score(torch.cat([masks, masks.new_ones(len(masks), 3)], 1)), 9
    )
    box = said.box
    assert box is not None and box.members.sum() == 6, "two columns of three, by their centres"
    for found, want in (
        (box.value, exact.group_values(whole, box.members[None], 0.5)),
        (box.together, exact.interactions(whole, box.members[None], 0.5)),
    ):
        assert (found.value - want).abs() <= 4.5 * found.standard_error + 1e-9
    wide = clip(ClipLayout(32, 2, 4, (6, 6), 16, 48), settings=ClipSettings(HEADS))
    tiles = explain(
        ClipDual(wide, ClipTokenizer(MERGES)), PHOTO, "red dog",
        ExplainOptions(pictures=32, players=9, judge=False),
    ).explanation  # fmt: skip
    assert len(tiles.players) == 9 and tiles.pairs.value.shape == (9, 2)
    assert VISION.grid == (3, 3)
