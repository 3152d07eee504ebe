"""Dual encoders of CLIP's kind, from a file, whose patches and words can be left out.

As in FIxLIP's code (hbaniecki/fixlip, src/game_huggingface.py), an absent patch has the mean
colour, which is 0 behind the normalisation, and an absent word keeps its place and is attended to
by none. Since the patch embedding has no bias, the embedding of a grey patch is 0, and one
embedding of the photo serves all coalitions. Patches can also be removed, so that none attends to
them either.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from PIL import Image
from torch import Tensor

from tenfold.core.capabilities import PictureParts, SentenceParts
from tenfold.data import catalog
from tenfold.data.text.clip_tokens import FILE, PLAIN_FILE, ClipTokenizer, cleaned
from tenfold.nn.clip_text import ClipTextTower
from tenfold.nn.clip_vision import ClipVisionTower
from tenfold.weights.clip import Activation, ClipFile, ClipSettings, read_clip

BATCH = 64
"""Coalitions that are encoded at once."""
LARGEST_SCALE = 100.0
"""Of cosines, in the official training."""
ABSENCES = ("grey", "removed")
Window = tuple[float, float, float, float]


class ClipDual:
    """Both encoders, their tokens, and how a photo is prepared."""

    absences = ABSENCES

    def __init__(
        self, clip: ClipFile, tokenizer: ClipTokenizer, name: str = "CLIP", absent: str = "grey"
    ) -> None:
        """`absent` is how patches are left out: "grey" or "removed".

        Raises:
            ValueError: The table of tokens is of another CLIP.
        """
        vision, text, settings = clip.vision, clip.text, clip.settings
        if tokenizer.end + 1 != text.vocabulary:
            raise ValueError(
                f"{name} has {text.vocabulary} tokens, the table of merges {tokenizer.end + 1}; "
                "take the table of the same CLIP"
            )
        if absent not in ABSENCES:
            raise ValueError(f"patches can be left out {' or '.join(ABSENCES)}, not {absent!r}")
        quick, heads = settings.activation == "quick_gelu", settings.heads
        self.visual = ClipVisionTower(
            vision.width, vision.layers, vision.output_dim, vision.patch_size, vision.grid,
            heads[0], vision.hidden, quick,
        )  # fmt: skip
        self.text = ClipTextTower(
            text.width, text.layers, text.dim, text.context, text.vocabulary, heads[1],
            text.hidden, quick,
        )  # fmt: skip
        for prefix, tower in (("visual.", self.visual), ("text.", self.text)):
            own = {k.removeprefix(prefix): v for k, v in clip.state.items() if k.startswith(prefix)}
            tower.load_state_dict(own)
        self.scale = min(float(clip.state["logit_scale"].exp()), LARGEST_SCALE)
        self.tokenizer, self.name, self.absent, self.settings = tokenizer, name, absent, settings
        self.patch, self.grid = vision.patch_size, vision.grid

    def to(self, device: torch.device) -> ClipDual:
        """Compute on a device."""
        self.visual.to(device)
        self.text.to(device)
        return self

    def picture(self, photo: UInt8[np.ndarray, "height width 3"]) -> PictureParts:
        """A photo, ready to be encoded."""
        image, window = prepared(photo, self.grid[0] * self.patch, self.settings)
        device = self.visual.proj.device
        with torch.no_grad():
            patches = self.visual.patches(image[None].to(device))

        def grey(masks: Tensor) -> Tensor:
            return self.visual.encode(patches * masks[..., None])

        def removed(masks: Tensor) -> Tensor:
            return self.visual.encode_some(patches[0], masks)

        if self.absent == "grey":
            return PictureParts(self.grid, window, _in_parts(grey, device))
        return PictureParts(self.grid, window, _by_size(_in_parts(removed, device)))

    def sentence(self, text: str) -> SentenceParts:
        """A sentence, ready to be encoded; its words are what stands between blanks.

        Raises:
            ValueError: It has no word, or more tokens than the encoder has places.
        """
        words = cleaned(text).split()
        if not words:
            raise ValueError("the sentence has no word; give one, as 'a dog on the grass'")
        tokens = torch.from_numpy(self.tokenizer.table([" ".join(words)], self.text.context))[0]
        counts = torch.tensor([len(self.tokenizer.encode(word)) for word in words])
        owner = torch.arange(len(words)).repeat_interleave(counts)
        tokens = tokens[: len(owner) + 2]
        device = self.text.text_projection.device

        def encode(masks: Tensor) -> Tensor:
            ends = masks.new_ones(len(masks), 1)
            kept = torch.cat([ends, masks[:, owner.to(masks.device)], ends], 1)
            return self.text(tokens.to(device).expand(len(masks), -1), kept)

        return SentenceParts(tuple(words), _in_parts(encode, device))


def read(
    path: Path, merges: str = "", absent: str = "grey", activation: Activation | Literal[""] = ""
) -> ClipDual:
    """A dual encoder of a file (OpenAI's, open_clip's, transformers'), or of a folder of theirs.

    Args:
        path: Weights, or the folder that has them with their JSON files.
        merges: Table of merges; empty looks in the folder, then in $TENFOLD_DATA/clip_text.
        absent: How patches are left out, "grey" or "removed".
        activation: Another than the files say (without any: QuickGELU).

    Raises:
        FileNotFoundError: A file is not there.
        ValueError: The file is damaged, has not both encoders, or other tokens than the table.
    """
    clip = read_clip(path)
    if activation:
        clip = replace(clip, settings=replace(clip.settings, activation=activation, assumed=False))
    rows, columns = clip.vision.grid
    name = f"{path.name}, a CLIP of {rows} x {columns} patches"
    return ClipDual(clip, ClipTokenizer.read(_table(path, merges)), name, absent)


def _table(path: Path, merges: str) -> Path:
    """The table of merges that a user means."""
    if merges:
        if not Path(merges).is_file():
            raise FileNotFoundError(f"the table of merges {merges} is not there")
        return Path(merges)
    folder = path if path.is_dir() else path.parent
    places = [folder / FILE, folder / PLAIN_FILE]
    stored = catalog.find("clip_text", "")
    places += [stored / FILE] if stored is not None else []
    found = next((place for place in places if place.is_file()), None)
    if found is None:
        raise FileNotFoundError(f"CLIP's texts need its {FILE}; give --merges")
    return found


def prepared(
    photo: UInt8[np.ndarray, "height width 3"], side: int, settings: ClipSettings
) -> tuple[Float[Tensor, "3 side side"], Window]:
    """A photo as the encoder takes it, and the part of it that this is, in its pixels.

    The shorter side is brought to the size (bicubic), and the middle is cut out.
    """
    image = Image.fromarray(photo)
    wide, tall = image.size
    if settings.resize == "squash":
        image = image.resize((side, side), Image.Resampling.BICUBIC)
        window = (0.0, 0.0, float(wide), float(tall))
    else:
        short = min(wide, tall)
        size = (int(side * wide / short), int(side * tall / short))
        image = image.resize(size, Image.Resampling.BICUBIC)
        left, top = (round((length - side) / 2) for length in size)
        image = image.crop((left, top, left + side, top + side))
        x, y = wide / size[0], tall / size[1]
        window = (left * x, top * y, (left + side) * x, (top + side) * y)
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255
    mean, std = (torch.tensor(v)[:, None, None] for v in (settings.mean, settings.std))
    return (pixels - mean) / std, window


Encode = Callable[[Tensor], Tensor]


def _in_parts(encode: Encode, device: torch.device) -> Encode:
    """The same, a part of the coalitions at once, from the CPU and back."""

    def parts(masks: Bool[Tensor, "coalition player"]) -> Float[Tensor, "coalition dim"]:
        return torch.cat([encode(some.to(device)).float().cpu() for some in masks.split(BATCH)])

    return parts


def _by_size(encode: Encode) -> Encode:
    """The same with coalitions of about one size beside each other."""

    def sorted_first(masks: Tensor) -> Tensor:
        order = masks.sum(1).argsort()
        return encode(masks[order])[order.argsort()]

    return sorted_first
