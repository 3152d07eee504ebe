"""Whether a game ranks objects above other windows of their picture: the worth of a score.

Where the interaction J(R) of an object's patches is not above that of as many patches elsewhere, it
is no label for regions. Other captions, and tokens at other places, say how much of it is of the
text and how much of the picture's own geometry.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from . import scores
from .games import Sampling, sampled, tokens
from .regions import hard_members

PLAN = Sampling(samples=64)
SCALE = 20.0
"""Factor on cosines of the contrasted score."""
TEXTS = 64
OTHERS = 3
"""Other captions, whose mean interaction is taken off."""
FINE_EVERY = 5
"""Every so manieth pair plays the games of finest similarities, which have no closed form."""
FINE = ("fine_drop", "fine_zero")
Values = Float[np.ndarray, "object 2"]
"""Interactions of an object and of the other window."""


@dataclass(frozen=True)
class Ranked:
    """Interactions of a chunk's objects by score, each beside that of another window."""

    values: dict[str, Values]


def of_chunk(
    patches: Float[Tensor, "pair patch dim"],
    text: Float[Tensor, "pair dim"],
    words: Float[Tensor, "pair word dim"],
    is_word: Bool[Tensor, "pair word"],
    boxes: list[Float[np.ndarray, "_ 4"]],
    grid: int,
    draw: torch.Generator,
) -> Ranked:
    """Play all games of a chunk's objects.

    Args:
        patches: Tokens of pictures.
        text: Vectors of captions.
        words: Tokens of captions.
        is_word: Which of them are words.
        boxes: Objects of each picture, as fractions.
        grid: Patches of a side.
        draw: Of windows, coalitions and places.
    """
    device = patches.device
    pairs, masks = [], []
    for place, some in enumerate(boxes):
        for box in torch.from_numpy(some.astype(np.float32)):
            own = hard_members(box[None], grid)[0]
            other = elsewhere(own.view(grid, grid), draw)
            if other is not None:
                pairs.append(place)
                masks.append(torch.stack([own, other.flatten()]))
    if not pairs:
        return Ranked({})
    rows, regions = torch.tensor(pairs, device=device), torch.stack(masks).to(device)
    texts, count = texts_for(text, rows, OTHERS + 1), min(OTHERS + 1, len(text))
    own = patches[rows]
    seed = int(torch.randint(2**31, (), generator=draw))

    def play(x: Tensor, t: Tensor, contrast: float = 0.0) -> Float[np.ndarray, "object 2 text"]:
        dice = torch.Generator(device).manual_seed(seed)  # the same coalitions for every score
        found = tokens.interactions(x, t, regions, PLAN, generator=dice, contrast=contrast)
        return found.value.double().cpu().numpy()

    plain = play(own, texts)
    order = torch.stack([torch.randperm(own.shape[1], generator=draw) for _ in pairs]).to(device)
    mixed = own.gather(1, order[..., None].expand_as(own))
    many = texts_for(text, rows, TEXTS)
    values = {"right": plain[..., 0], "permuted": play(mixed, texts[:, :1])[..., 0]}
    if count > 1:
        values |= {
            "wrong caption": plain[..., 1],
            "difference": plain[..., 0] - plain[..., 1:].mean(2),
            "contrast": play(own, many, SCALE)[..., 0],
            "contrast, wrong caption": play(own, many.roll(-1, 1), SCALE)[..., 0],
        }
    few = [number for number, place in enumerate(pairs) if place % FINE_EVERY == 0]
    for name in FINE:
        fine = [_fine(name, patches, words, is_word, pairs[n], regions[n], seed) for n in few]
        values[name] = np.stack(fine) if fine else np.zeros((0, 2))
    return Ranked(values)


def texts_for(
    text: Float[Tensor, "pair dim"], rows: Int64[Tensor, " object"], count: int
) -> Float[Tensor, "object text dim"]:
    """Each object's own caption and others, from half of the chunk on: not its neighbours, which
    may be of the same picture."""
    others = torch.arange(1, len(text), device=text.device).roll(1 - len(text) // 2)
    steps = torch.cat([others.new_zeros(1), others[: count - 1]])
    return text[(rows[:, None] + steps) % len(text)]


def _fine(
    name: str, patches: Tensor, words: Tensor, is_word: Tensor, place: int, regions: Tensor,
    seed: int,
) -> Float[np.ndarray, "2"]:  # fmt: skip
    alike = scores.similarities(patches[place], words[place], is_word[place])
    score = scores.fine_drop(alike) if name == "fine_drop" else scores.fine_zero(alike)
    dice = torch.Generator(patches.device).manual_seed(seed)
    found = sampled.interactions(score, regions, PLAN, generator=dice)
    return found.value.double().cpu().numpy()


def elsewhere(
    own: Bool[Tensor, "row column"], draw: torch.Generator
) -> Bool[Tensor, "row column"] | None:
    """The same patches moved to another place; None where they fit nowhere without much overlap.

    Of the places where at most half of the patches are shared one is drawn.
    """
    rows, columns = own.any(1).nonzero()[:, 0], own.any(0).nonzero()[:, 0]
    top, left = int(rows[0]), int(columns[0])
    high, wide = int(rows[-1]) + 1 - top, int(columns[-1]) + 1 - left
    window = own[top : top + high, left : left + wide]
    places = []
    for y in range(own.shape[0] - high + 1):
        for x in range(own.shape[1] - wide + 1):
            shared = max(0, high - abs(y - top)) * max(0, wide - abs(x - left))
            if 2 * shared <= high * wide and (y, x) != (top, left):
                places.append((y, x))
    if not places:
        return None
    y, x = places[int(torch.randint(len(places), (), generator=draw))]
    found = torch.zeros_like(own)
    found[y : y + high, x : x + wide] = window
    return found


def summary(parts: list[Ranked]) -> dict[str, float]:
    """How often the object is above the other window, in percent; equal ones are half of each."""
    found: dict[str, float] = {}
    names = list(dict.fromkeys(name for part in parts for name in part.values))
    for name in names:
        both = np.concatenate([part.values[name] for part in parts if name in part.values])
        if not len(both):
            continue
        above = (both[:, 0] > both[:, 1]) + 0.5 * (both[:, 0] == both[:, 1])
        found[f"ranking/{name}/AUC"] = 100 * float(above.mean())
        found[f"ranking/{name}/positive"] = 100 * float((both[:, 0] > 1e-6).mean())
    return found
