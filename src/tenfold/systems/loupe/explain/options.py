"""What an explanation may be asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Box = tuple[float, float, float, float]
Absent = Literal["", "grey", "removed", "tokens"]
MOST = 2**16
"""Coalitions of one kind: each is an encoding."""
MOST_PLAYERS = 256
"""Of the photo, whose pairs with words are asked."""


@dataclass(frozen=True)
class ExplainOptions:
    """What is compared, and how much is drawn."""

    against: tuple[str, ...] = ()
    """Sentences that do not fit the photo: maps of the right one less the mean of these."""
    box: str = ""
    """A question about a part: x0,y0,x1,y1 in pixels of the photo."""
    absent: Absent = ""
    """How patches are left out: grey (pixels of the mean colour, as FIxLIP), removed (tokens that
    are not computed) or tokens (computed once, then left out of the vector); empty: the usual way
    of the encoder."""
    p: float = 0.5
    """Probability with which each other patch and word is there (weighted Banzhaf)."""
    pictures: int = 256
    """Photos with patches left out that are encoded for the interactions; with a box twice."""
    texts: int = 64
    """Sentences with words left out; all there are, if they are fewer."""
    regions: int = 32
    """Coalitions for what the patches of the box do together; each is as many photos as the box has
    patches, and two."""
    players: int = 64
    """Most parts of the photo: with more patches, squares of them are left out together."""
    judge: bool = True
    """Whether the explanation is judged too: R2 on fresh coalitions, insertion and deletion."""
    seed: int = 0
    """Of the draws."""

    def __post_init__(self) -> None:
        if not 0 < self.p < 1:
            raise ValueError(f"p must lie between 0 and 1, got {self.p}")
        for name, least, most in (
            ("pictures", 8, MOST), ("texts", 2, MOST), ("regions", 4, MOST),
            ("players", 1, MOST_PLAYERS),
        ):  # fmt: skip
            given = getattr(self, name)
            if not least <= given <= most:
                raise ValueError(f"{name} must be {least} to {most}, got {given}")
        if self.pictures * self.texts > 2**26:
            raise ValueError(
                f"{self.pictures} pictures with {self.texts} texts are more than {2**26} values; "
                "draw fewer of either"
            )
        if self.regions % 2:
            raise ValueError(f"regions must be even, for coalitions come in pairs: {self.regions}")
        if any(not sentence.strip() for sentence in self.against):
            raise ValueError("a sentence of --against is empty")
        if self.box:
            self.box_numbers()

    def box_numbers(self) -> Box:
        """The box as numbers; ValueError if it is none."""
        parts = self.box.split(",")
        try:
            numbers = [float(part) for part in parts]
        except ValueError:
            numbers = []
        if len(numbers) != 4 or not all(abs(n) < 1e9 for n in numbers):
            raise ValueError(f"a box is four numbers x0,y0,x1,y1, got {self.box!r}")
        x0, y0, x1, y1 = numbers
        if not (x0 < x1 and y0 < y1):
            raise ValueError(f"the box {self.box} has no area: x0 < x1 and y0 < y1 are needed")
        return x0, y0, x1, y1
